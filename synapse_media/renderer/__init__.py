"""Render the configuration of a homeserver: outputs of a store -> {path: text}. Pure functions.

Only `writing` accesses the disk, and only `vault` uses Ansible Vault; callers import them if needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import urlsplit

from synapse_media import values
from synapse_media.contract import StorageOutputs
from synapse_media.methods import FILESYSTEM, GOOFYS, MEDIA_REPO, METHODS, MODULE

from . import (
    filesystem,
    goofys,
    kubernetes,
    matrix_media_repo,
    nixos,
    nixos_goofys,
    sources,
    synapse_s3_storage_provider,
)
from .quoting import RenderError, ansible
from .request import Form, FormRenderer, Instructions, MethodRenderer, Request, Seal, Secrets
from .text import domain, host, inventory_host, lookup, secret_variable

__all__ = [
    "FORMS",
    "SECRETS",
    "Form",
    "Instructions",
    "RenderError",
    "Seal",
    "Secrets",
    "domain",
    "forms",
    "host",
    "instructions",
    "inventory_host",
    "render",
    "secret_variable",
    "takes_media_path",
]

FORMS: tuple[Form, ...] = ("playbook", "plain", "nixos", "kubernetes")
SECRETS: tuple[Secrets, ...] = ("plain", "reference")

_METHODS: Mapping[str, MethodRenderer] = MappingProxyType(
    {
        MODULE: synapse_s3_storage_provider,
        GOOFYS: goofys,
        MEDIA_REPO: matrix_media_repo,
        FILESYSTEM: filesystem,
    }
)
_OF_SOME: Mapping[Form, Mapping[str, FormRenderer]] = MappingProxyType(
    {"nixos": {MODULE: nixos, GOOFYS: nixos_goofys}, "kubernetes": {MODULE: kubernetes}}
)
"""Forms that not every method has."""
_WITHOUT_FORM: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("nixos", MEDIA_REPO): "nixpkgs has the package matrix-media-repo and no service for it, and its key stands in "
        "its configuration, which must stay out of the Nix store. Render it with --form plain, run the package by a "
        "systemd service of your own whose REPO_CONFIG names a directory outside of the Nix store with "
        "media-repo.d/synapse-media.yaml and the rest of media-repo.yaml, set "
        f"{nixos.SERVICE}.settings.enable_media_repo = false, and give services.nginx the routes of "
        "reverse-proxy/nginx.conf.",
        ("nixos", FILESYSTEM): f"Synapse keeps its media in {nixos.SERVICE}.settings.media_store_path from the "
        "start: nothing is to be rendered. `synapse-media switch --to filesystem --form nixos` has the steps back to "
        "it.",
        ("kubernetes", GOOFYS): "a pod mounts with FUSE only where it is privileged, and Synapse's pod sees the mount "
        f"only by mount propagation from it. Set method: {MODULE} in the stack file, which needs no mount.",
        ("kubernetes", MEDIA_REPO): "it is a deployment of its own, with a database, whose manifests are yours. Render "
        "it with --form plain, put media-repo.d/synapse-media.yaml into a Secret that is mounted into its "
        "configuration directory, set enable_media_repo: false in Synapse's configuration, and give the ingress the "
        "routes of reverse-proxy/.",
        ("kubernetes", FILESYSTEM): "Synapse keeps its media on its volume from the start: nothing is to be rendered. "
        "docs/forms/kubernetes.md says how to go back to it.",
    }
)
"""Why a method has no such form, and what to do in its place: {(form, method): text}."""
_SOURCES: Mapping[Form, tuple[sources.Kind, ...]] = MappingProxyType(
    {
        "playbook": ("env", "file", "sops", "vault"),
        "plain": ("file",),
        "nixos": ("file",),
        "kubernetes": ("secret",),
    }
)
"""Where each form can take a secret from, by reference."""


def forms(method: str) -> tuple[Form, ...]:
    """The forms that a method has."""
    return tuple(form for form in FORMS if form not in _OF_SOME or method in _OF_SOME[form])


def render(
    outputs: StorageOutputs,
    form: Form,
    secrets: Secrets = "plain",
    *,
    seal: Seal | None = None,
    media_path: str = "",
    source: str = "",
    host_in_inventory: str = "",
) -> dict[str, str]:
    """The files of one store: {relative path: text}, byte-identical for identical input.

    Args:
        form: `playbook` for matrix-docker-ansible-deploy, `nixos` and `kubernetes` for those, `plain` for every other
            Synapse; see `forms`.
        secrets: `plain`; or `reference`: a vars file looks the secret up in Ansible's environment (see
            `secret_variable`), plain Synapse has it from an environment file, NixOS from a file and Kubernetes from a
            Secret that are there already.
        seal: writes a secret into a vars file in place of the two, for Ansible Vault.
        media_path: a local directory, in the plain form and for Goofys on NixOS: where Goofys mounts,
            matrix-media-repo's file datastore, or Synapse's media store; "" is the method's own choice. Elsewhere it
            has no effect: see `takes_media_path`.
        host_in_inventory: the server's name in the playbook's inventory; "" is `inventory_host`.
        source: with `reference`, where the secret is kept: see `sources`; "" is what the form has by default.

    Raises:
        ContractError: no passed proof was made for these outputs. Without a key it is to be made on the instance,
            and the files say so.
        RenderError: what can't be expressed, every problem that can be known at once.
    """
    request = _request(outputs, form, secrets, seal=seal, media_path=media_path, source=source)
    if host_in_inventory:
        request = replace(request, inventory_host=host(host_in_inventory))
    if form in _OF_SOME:
        files = _OF_SOME[form][outputs.method].files(request)
    else:
        renderer = _METHODS[outputs.method]
        files = renderer.playbook_files(request) if form == "playbook" else renderer.plain_files(request)
    return dict(sorted(files.items()))


def instructions(
    outputs: StorageOutputs, form: Form, secrets: Secrets = "plain", *, media_path: str = "", source: str = ""
) -> Instructions:
    """The instructions for the files that `render` returns for the same arguments."""
    request = _request(outputs, form, secrets, seal=None, media_path=media_path, source=source)
    if form in _OF_SOME:
        return _OF_SOME[form][outputs.method].instructions(request)
    return _METHODS[outputs.method].instructions(request, form)


def takes_media_path(outputs: StorageOutputs, form: Form) -> bool:
    """Whether `media_path` has any effect on these files. Raises what `render` raises."""
    return render(outputs, form, media_path="/a") != render(outputs, form, media_path="/b")


def _request(
    outputs: StorageOutputs, form: Form, secrets: Secrets, *, seal: Seal | None, media_path: str, source: str
) -> Request:
    if outputs.method not in _METHODS:
        raise RenderError((f"method {outputs.method!r} can't be rendered; allowed: {', '.join(_METHODS)}",))
    if form not in forms(outputs.method):
        raise RenderError(
            (
                f"form is {form!r}, which {outputs.method} does not have; allowed: {', '.join(forms(outputs.method))}: "
                + _WITHOUT_FORM.get((form, outputs.method), "choose one of these."),
            )
        )
    reference = _reference(form, secrets, source)
    outputs.require_proof()
    problems = [*_store_problems(outputs)] if METHODS[outputs.method].uses_store else []
    host(outputs.server_name)
    if media_path and not media_path.startswith("/"):
        problems.append(f"media_path {media_path!r} is not an absolute path. Give the full path of the directory.")
    # What names the secret's place needs no secret; an environment file of the plain form holds it.
    sealed = secrets == "reference" and (form != "plain" or reference is not None)
    if METHODS[outputs.method].uses_store and not (outputs.keyless or outputs.secret_access_key or sealed):
        problems.append(
            "secret_access_key is missing in these outputs, which were written without it. Render the stack again, or "
            "take it by reference."
        )
    if problems:
        raise RenderError(problems)
    if seal is None:
        seal = (lambda _, __: lookup(outputs.server_name, reference)) if secrets == "reference" else ansible
    return Request(
        store=outputs,
        secrets=secrets,
        seal=seal,
        media_path=media_path,
        source=reference,
        inventory_host=inventory_host(outputs.server_name),
    )


def _reference(form: Form, secrets: Secrets, source: str) -> sources.Reference | None:
    return sources.parse(source, _SOURCES[form]) if source and secrets == "reference" else None


def _store_problems(outputs: StorageOutputs) -> list[str]:
    method = METHODS[outputs.method]
    problems = [
        f"{name} is missing. Run `synapse-media up` again."
        for name in ("bucket", "region", *(() if outputs.keyless else ("access_key_id",)))
        if not getattr(outputs, name)
    ]
    try:
        parts = urlsplit(outputs.endpoint_url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        bare = not (parts.path or parts.query or parts.fragment or parts.username)
    except ValueError:
        whole = bare = False
    if not whole or not bare:
        problems.append(
            f"endpoint_url is {outputs.endpoint_url!r}; allowed: scheme and host, perhaps a port, such as "
            "https://s3.example.com. Correct `endpoint` in the stack file."
        )
    read = {"bucket": outputs.bucket, "region": outputs.region, "endpoint": outputs.endpoint_url if whole else ""}
    for name, text in read.items():
        fault = values.refused(name, text, MODULE)
        if fault is not None:
            problems.append(f"{name} is {text!r}: {fault.reason}. {fault.mend}")
    prefix = outputs.prefix
    if prefix and not method.prefix:
        problems.append(f"prefix is {prefix!r}, but {method.name} supports none. Remove it from the stack file.")
    elif prefix.startswith("/"):
        problems.append(f"prefix is {prefix!r}; it must not start with '/'.")
    if method.storage_classes is not None and outputs.storage_class not in method.storage_classes:
        problems.append(
            f"storage_class is {outputs.storage_class!r}; {method.name} takes {', '.join(method.storage_classes)}. "
            "Choose one of them in the stack file."
        )
    return problems
