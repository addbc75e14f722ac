"""The form for Kubernetes: values for Element's Helm chart (ess-helm), and a drop-in file for any other chart.

The chart takes extra configuration, environment, volumes and init containers (charts/matrix-stack/values.yaml of
26.8): a Secret holds the key alone, as a file that boto3 reads, and everything else is plain configuration.
https://github.com/element-hq/ess-helm
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

from synapse_media.homeserver import synapse

from . import quoting
from . import synapse_s3_storage_provider as module
from .request import Instructions, Request
from .text import PROVE, ca_path, comment, credentials_file, header, host

_NAME = "synapse-media"
"""Of what is a pod's own. What is the namespace's has the homeserver's name in it: see `_object`."""
_AUTHORITY = f"{_NAME}-ca"
_MODULES = f"{_NAME}-modules"
_KEY = "credentials"
_CA_KEY = "ca.pem"
_DROP_IN = "synapse-media.yaml"
_BASE = "/synapse-media"
_BUILDER = "docker.io/library/python:3.13-slim"
"""The init container's image. It installs only pure Python, so its version may differ from that of Synapse's image."""

_Value = str | bool | int | Sequence["_Value"] | Mapping[str, "_Value"]


def instructions(request: Request) -> Instructions:
    secret = "" if request.store.keyless else f", then delete the Secret {_secret(request)} and secret.yaml"
    if request.by_reference and not request.store.keyless:
        secret = f", then delete the Secret {_secret(request)}"
    return Instructions(
        does=module.does(request),
        apply=("Apply the manifests, and give the values to the chart, as INSTALL.md says.",),
        undo=(f"Take the values out, roll the chart out again{secret}. {module.UNDO_KEEPS}",),
    )


def files(request: Request) -> dict[str, str]:
    store = request.store
    found = {
        "INSTALL.md": _install(request),
        "ess/values.yaml": _values(request, own_image=False),
        "ess/values-own-image.yaml": _values(request, own_image=True),
        "any-chart/configmap.yaml": _config_map(request),
        "any-chart/pod-patch.yaml": _patch(request),
        "image/Containerfile": module.containerfile(),
    }
    if not store.keyless and not request.by_reference:
        found["secret.yaml"] = comment(
            f"The key of {host(store.server_name)}'s bucket, for `kubectl apply` in the namespace of Synapse."
        ) + _yaml(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": _secret(request)},
                "type": "Opaque",
                "stringData": {_KEY: credentials_file(store, "in a Secret of Kubernetes.")},
            }
        )
    return found


def _object(request: Request, suffix: str = "") -> str:
    """The name of a Secret or ConfigMap: another homeserver in the namespace must not replace it by its own.

    It is a DNS subdomain in lower case, so the colon before a port becomes a hyphen.
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
    """
    return f"{_NAME}-{request.store.server_name.lower().replace(':', '-')}{suffix}"


def _secret(request: Request) -> str:
    return request.source.place if request.source else _object(request)


def _yaml(value: Mapping[str, _Value], indent: str = "") -> str:
    """Block style; a string of one line is put in double quotes."""
    return "".join(f"{indent}{name}:{_below(item, indent + '  ')}" for name, item in value.items())


def _below(value: _Value, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"\n{_yaml(value, indent)}" if value else " {}\n"
    if isinstance(value, str) and "\n" in value:
        # Written by this module: printable ASCII with one line break at the end.
        return " |\n" + textwrap.indent(value, indent)
    if isinstance(value, str | bool | int):
        return f" {quoting.yaml('value', value)}\n"
    return "\n" + "".join(_item(item, indent) for item in value)


def _item(value: _Value, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}- {_yaml(value, indent + '  ').lstrip()}"
    return f"{indent}-{_below(value, indent + '  ')}"


def _configuration(request: Request) -> str:
    """Synapse's configuration. ess-helm replaces `${NAME}` in it, so a dollar sign is escaped."""
    return module.provider(module.options(request.store)).replace("$", "\\u0024")


def _environment(request: Request, *, own_image: bool) -> list[_Value]:
    store = request.store
    pairs = [] if own_image else [("PYTHONPATH", f"{_BASE}/modules")]
    if not store.keyless:
        pairs.append(("AWS_SHARED_CREDENTIALS_FILE", f"{_BASE}/key/{_KEY}"))
    pairs += [(name, "when_required") for name in module.checksum_variables(store)]
    if store.ca_file:
        pairs.append(("AWS_CA_BUNDLE", f"{_BASE}/ca/{_CA_KEY}"))
    return [{"name": name, "value": value} for name, value in pairs]


def _volumes(request: Request, *, own_image: bool) -> list[tuple[Mapping[str, _Value], str]]:
    """(volume, mount path)."""
    found: list[tuple[Mapping[str, _Value], str]] = []
    if not own_image:
        found.append(({"name": _MODULES, "emptyDir": {}}, f"{_BASE}/modules"))
    if not request.store.keyless:
        found.append(
            ({"name": _NAME, "secret": {"secretName": _secret(request), "defaultMode": 0o440}}, f"{_BASE}/key")
        )
    if request.store.ca_file:
        found.append(({"name": _AUTHORITY, "configMap": {"name": _object(request, "-ca")}}, f"{_BASE}/ca"))
    return found


def _mounts(volumes: Sequence[tuple[Mapping[str, _Value], str]]) -> list[_Value]:
    return [{"name": volume["name"], "mountPath": path, "readOnly": True} for volume, path in volumes]


def _init_container() -> Mapping[str, _Value]:
    """boto3 with its dependencies, and the module without: Synapse's image has the others, such as Twisted."""
    install = "pip install --no-cache-dir --no-compile --disable-pip-version-check --target=/modules"
    return {
        "name": _MODULES,
        "image": _BUILDER,
        "command": [
            "/bin/sh",
            "-ec",
            f"{install} boto3\n{install} --no-deps synapse-s3-storage-provider=={synapse.MODULE_VERSION}\n",
        ],
        # pip looks for its settings in the home directory, which the pod's user may lack.
        "env": [{"name": "HOME", "value": "/modules"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": _MODULES, "mountPath": "/modules"}],
    }


def _values(request: Request, *, own_image: bool) -> str:
    volumes = _volumes(request, own_image=own_image)
    environment = _environment(request, own_image=own_image)
    values: dict[str, _Value] = {
        "additional": {_NAME: {"config": _configuration(request)}},
        **({"extraEnv": environment} if environment else {}),
        **({"extraVolumes": [volume for volume, _ in volumes]} if volumes else {}),
        **({"extraVolumeMounts": _mounts(volumes)} if volumes else {}),
        **({} if own_image else {"extraInitContainers": [_init_container()]}),
    }
    return _header(
        request,
        "For `helm upgrade --values`. Helm replaces lists and does not merge them: entries of your own in these go "
        f"into this file. The chart adds this `{synapse.PROVIDERS}` to one of another entry of `additional`: take a "
        "former provider of this bucket out there.",
    ) + _yaml({"synapse": values})


def _header(request: Request, more: str) -> str:
    # The authority comes from a ConfigMap, not from a path of the machine.
    store = replace(request.store, ca_file="")
    return header(replace(request, store=store), instructions(request), more)


def _config_map(request: Request) -> str:
    return _header(
        request,
        f"It replaces a `{synapse.PROVIDERS}` list of homeserver.yaml: move other providers into it.",
    ) + _yaml(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": _object(request, "-config")},
            "data": {_DROP_IN: _configuration(request)},
        }
    )


def _patch(request: Request) -> str:
    config: tuple[Mapping[str, _Value], str] = (
        {"name": f"{_NAME}-config", "configMap": {"name": _object(request, "-config")}},
        f"{_BASE}/config",
    )
    volumes = [config, *_volumes(request, own_image=False)]
    pod: dict[str, _Value] = {
        "initContainers": [_init_container()],
        "containers": [
            {
                "name": "synapse",
                "env": _environment(request, own_image=False),
                "volumeMounts": _mounts(volumes),
            }
        ],
        "volumes": [volume for volume, _ in volumes],
    }
    return comment(
        "A strategic merge patch of the Deployment or StatefulSet whose container `synapse` runs Synapse: what to give "
        "to your chart under its own names (extraEnv, extraVolumes …), or to `kubectl patch` and kustomize as it is."
    ) + _yaml({"spec": {"template": {"spec": pod}}})


_FILE = """    [default]
    aws_access_key_id = ID
    aws_secret_access_key = SECRET
"""
_IMAGE = """Either an init container installs it from PyPI at each start of a pod: then there is nothing to do here.
Or build an image of your own, which starts without PyPI, from the one that you run now:

    podman build --build-arg SYNAPSE_IMAGE="${SYNAPSE_IMAGE:?the image and tag that you run now}" \\
        --tag "${OWN_IMAGE:?a name in your registry}" image
    podman push "${OWN_IMAGE:?a name in your registry}"
"""
_ESS = """With the init container:

    helm upgrade ess oci://ghcr.io/element-hq/ess-helm/matrix-stack --reuse-values --wait \\
        --values ess/values.yaml

With an image of your own, which `synapse.image.registry`, `.repository` and `.tag` of your values name:

    helm upgrade ess oci://ghcr.io/element-hq/ess-helm/matrix-stack --reuse-values --wait \\
        --values ess/values-own-image.yaml

If you keep values files, name them all there as you always do, in place of `--reuse-values`.
"""
_ANY_CHART = """    kubectl apply -f any-chart/configmap.yaml

Then give Synapse what any-chart/pod-patch.yaml has: by your chart's values for environment, volumes and init
containers, by kustomize, or at once, where Synapse is the Deployment `synapse` (a chart's next upgrade may undo that):

    kubectl patch deployment synapse --patch-file any-chart/pod-patch.yaml

And add `--config-path=/synapse-media/config/synapse-media.yaml` to the arguments of Synapse and of every worker, after
the one that is there. With an image of your own, leave PYTHONPATH and all of `synapse-media-modules` out.
"""


def _sections(request: Request) -> list[tuple[str, str]]:
    """(title, text) of the steps, in order."""
    store = request.store
    secret = _secret(request)
    sections: list[tuple[str, str]] = []
    if not store.keyless and request.by_reference:
        text = f"""A Secret `{secret}` whose value `{_KEY}` is a shared credentials file of AWS:

{_FILE}
It is there already, or made by whatever keeps your secrets: SOPS (a Secret encrypted in git), External Secrets with
Vault, Sealed Secrets. This says whether it is:

    kubectl get secret {secret}
"""
        sections.append(("The key", text))
    elif not store.keyless:
        text = f"""    kubectl apply -f secret.yaml

It is a Secret `{secret}` whose value `{_KEY}` is a shared credentials file of AWS. Keep secret.yaml out of git, or
encrypt it first:

    sops encrypt --encrypted-regex '^stringData$' --in-place secret.yaml

Where External Secrets, Vault or another tool makes your Secrets, render with `--secrets reference`: then there is no
secret.yaml, and `--secrets-from secret:NAME` says which Secret to use.
"""
        sections.append(("The key", text))
    if store.ca_file:
        source = quoting.sh("ca_file", ca_path(store, "a command"))
        text = f"    kubectl create configmap {_object(request, '-ca')} --from-file={_CA_KEY}={source}\n"
        sections.append(("The store's private certificate authority", text))
    return [
        *sections,
        ("The module in Synapse's image", _IMAGE),
        ("Element Server Suite (ess-helm)", _ESS),
        ("Or any other chart, or manifests of your own", _ANY_CHART),
    ]


def _install(request: Request) -> str:
    store = request.store
    what = instructions(request)
    numbered = "\n".join(
        f"## {number}. {title}\n\n{text}" for number, (title, text) in enumerate(_sections(request), 1)
    )
    keyless = (
        "\nThere is no key: the pod's own role signs (IRSA, Pod Identity, or the node's). It was not proved: run "
        "`synapse-media prove --store store.json`\nin a pod with the same service account first.\n"
    )
    prove = f":\n\n    {PROVE}"
    if request.by_reference and not store.keyless:
        secret = f"kubectl get secret {_secret(request)} --output='jsonpath={{.data.{_KEY}}}' | base64 --decode"
        prove = (
            ", in bash with the Secret's value, since store.json has no secret:\n\n"
            f"    AWS_SHARED_CREDENTIALS_FILE=<({secret}) {PROVE}"
        )
    rotated = """
After another key was rendered, apply secret.yaml again (or change the Secret where it is made) and restart Synapse, in
ess-helm with

    kubectl rollout restart statefulset --selector=app.kubernetes.io/component=matrix-server
"""
    names = (_object(request, "-config"), *((_object(request, "-ca"),) if store.ca_file else ()))
    delete = [f"kubectl delete configmap --ignore-not-found {' '.join(names)}"]
    if not store.keyless:
        delete.insert(0, f"kubectl delete secret --ignore-not-found {_secret(request)}")
    if not store.keyless and not request.by_reference:
        delete.append("rm -f secret.yaml store.json")
    name = host(store.server_name)
    return f"""# {name}: media on S3 with synapse-s3-storage-provider {synapse.MODULE_VERSION} on Kubernetes

What it does: {" ".join(what.does)}

{module.releases()}{keyless if store.keyless else ""}
A wrong key does not keep Synapse from starting: every upload fails instead. So prove the key from within the cluster's
network first{prove}

All commands are for the namespace that Synapse runs in (ess-helm's guide calls it `ess`); this makes it the default:

    kubectl config set-context --current --namespace="${{NAMESPACE:?the namespace of Synapse}}"

{numbered}{"" if store.keyless else rotated}
## Undo

{" ".join(what.undo)}

{textwrap.indent(chr(10).join(delete), "    ")}

{module.NEVER_DELETES}
"""
