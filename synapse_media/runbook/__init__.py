"""Runbooks for switching the method or provider, with the steps in an order that loses no media.

Pure: `runbook` takes the current store and the wanted one and returns instructions.
"""

from __future__ import annotations

import posixpath
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synapse_media import catalog
from synapse_media.contract import StorageOutputs
from synapse_media.errors import UsageError
from synapse_media.homeserver import playbook, synapse
from synapse_media.methods import FILESYSTEM, GOOFYS, MEDIA_REPO, METHODS, MODULE
from synapse_media.renderer import Form, forms

from . import migrations
from .migrations import Migration
from .rclone import Remote
from .site import Site
from .steps import DangerousOrderError, Effect, RunbookError, Step, require_safe

__all__ = ["DangerousOrderError", "Effect", "Runbook", "RunbookError", "Step", "require_safe", "runbook"]

_DEFAULT_MEDIA_PATH: dict[Form, str] = {
    "playbook": playbook.MEDIA_STORE,
    "plain": synapse.MEDIA_STORE,
    "nixos": synapse.MEDIA_STORE_OF_NIXOS,
}
_MOUNT: dict[Form, str] = {
    "playbook": playbook.GOOFYS_MIGRATION_MOUNT,
    "plain": synapse.GOOFYS_MOUNT,
    "nixos": synapse.GOOFYS_MOUNT,
}
"""Where Goofys mounts beside the local media store; the playbook does for the migration only, and over it later."""


@dataclass(frozen=True, slots=True)
class Runbook:
    """The steps of a switch, in order.

    Attributes:
        before, after: method and provider, as text.
        notes: limitations of the new method, and what is not copied.
    """

    server_name: str
    form: Form
    before: str
    after: str
    notes: tuple[str, ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        preamble = (
            "Follow the steps in order, and continue only after the check of each step succeeds. `here` is the "
            "machine with "
            "the stack, `playbook` the machine that runs ansible-playbook, `server` a root shell on the homeserver."
        )
        lines = [
            f"{self.server_name}: from {self.before} to {self.after} ({self.form} form), {len(self.steps)} steps",
            "",
            *_wrapped(preamble, ""),
            *(f"- {note}" for note in self.notes),
        ]
        for number, step in enumerate(self.steps, 1):
            lines += ["", f"{number}. {step.title} [{step.where}]", *_wrapped(step.why, "   ")]
            lines += [line for file in step.files for line in _wrapped(f"needs: {file}", "   ")]
            lines += [f"       {line}" for command in step.commands for line in command.split("\n")]
            lines += [*_wrapped(f"check: {step.check}", "   "), *_wrapped(f"undo:  {step.undo}", "   ")]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        return {
            "server_name": self.server_name,
            "form": self.form,
            "from": self.before,
            "to": self.after,
            "notes": list(self.notes),
            "steps": [{"number": number, **step.to_json()} for number, step in enumerate(self.steps, 1)],
        }


def _wrapped(text: str, indent: str) -> Sequence[str]:
    return textwrap.wrap(
        text, 110, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def runbook(
    current: StorageOutputs,
    to: str,
    *,
    form: Form = "playbook",
    target: StorageOutputs | None = None,
    stack: str = "S",
    new_stack: str = "",
    media_path: str = "",
) -> Runbook:
    """The steps from `current` to `to`.

    Args:
        to: a method, or a provider, which keeps the method (or uses the module if there was no store).
        target: the new store, if it exists.
        stack, new_stack: the names of both stacks in the commands; the new one is derived from the old by default.
        media_path: the local media store; "": the default of the form.

    Raises:
        UsageError: `to` is neither method nor provider, the form has no runbook, `media_path` or a
            stack's name can't be used in a command, or a target is given for the filesystem.
        RunbookError: there is nothing to do, or the switch is impossible or would lose media.
    """
    method = to if to in METHODS else (current.method if current.method != FILESYSTEM else MODULE)
    if to not in METHODS and to not in catalog.names():
        guess = catalog.nearest(to, (*METHODS, *catalog.names()))
        raise UsageError(
            f"--to is {to!r}; allowed: a method ({', '.join(METHODS)}) or a provider ({', '.join(catalog.names())})."
            + (f" Did you mean {guess!r}?" if guess else "")
        )
    if media_path and not re.fullmatch(r"(?:/[A-Za-z0-9._+-]+)+/?", media_path):
        raise UsageError(
            f"--media-path is {media_path!r}; allowed: an absolute path of letters, digits and . _ + - /. "
            "Mount or link the directory under such a path."
        )
    for setting, name in (("--stack", stack), ("--to-stack", new_stack)):
        if not re.fullmatch(r"[A-Za-z0-9_./-]*", name):
            raise UsageError(f"{setting} is {name!r}; allowed: letters, digits and . _ - /. Rename the stack.")
    _require_form(form, current.method, method)
    _require_possible(current, to, method, target)
    if GOOFYS in (current.method, method):
        _require_local(media_path, form)
    site = Site(current.server_name, form, (media_path or _DEFAULT_MEDIA_PATH[form]).rstrip("/"))
    old = Remote("old", current, stack)
    edited = current.method == FILESYSTEM and target is None
    new = Remote(
        "new",
        target,
        new_stack or (stack if edited else f"{stack}-new"),
        provider="PROVIDER" if to in METHODS else to,
        edited=edited,
    )
    needed = _migrations(site, current.method, method, old, new, same_store=to in METHODS and target is None)
    main = [step for migration in needed for step in migration.steps]
    if any(site.media in command for step in main for command in step.commands):
        main.insert(0, migrations.locate(site, current.method))
    # The old store is the backup, so deleting it comes last.
    last = [step for migration in reversed(needed) for step in migration.last]
    steps = (*main, *last)
    if used := [number for number, step in enumerate(steps, 1) if any("store.json" in line for line in step.commands)]:
        steps = (*steps[: used[-1]], migrations.tidy_up(), *steps[used[-1] :])
    after = f"{method} at {target.provider}" if target else (method if to in METHODS else f"{method} at {to}")
    return Runbook(
        server_name=current.server_name,
        form=form,
        before=current.method if current.method == FILESYSTEM else f"{current.method} at {current.provider}",
        after=after,
        notes=(
            *(METHODS[method].limits if method != current.method else ()),
            *((_PREVIEWS,) if any(_copies(command) for step in main for command in step.commands) else ()),
        ),
        steps=steps,
    )


def _require_local(media_path: str, form: Form) -> None:
    """Raises UsageError if `media_path` is the mount of the bucket, in it or above it: it would be copied to itself.

    It is the local media store here; for `render`, the option of this name is the mount point.
    """
    mount = _MOUNT[form]
    given = posixpath.normpath(media_path)
    if media_path and posixpath.commonpath((given, mount)) in (given, mount):
        raise UsageError(
            f"--media-path is {media_path!r}, and the bucket is mounted at {mount}; allowed: the directory of the "
            "local media, which is not the mount, nor in it, nor above it. Name Synapse's media store without Goofys, "
            f"{_DEFAULT_MEDIA_PATH[form]} by default."
        )


_PREVIEWS = (
    "cached previews of links (url_cache) are not copied: Synapse makes them anew, and until then a picture may be "
    "missing in one"
)


def _copies(command: str) -> bool:
    return "rclone copy" in command or "media copy" in command or "media restore" in command


def _migrations(
    site: Site, before: str, after: str, old: Remote, new: Remote, *, same_store: bool
) -> tuple[Migration, ...]:
    if before == FILESYSTEM:
        return (migrations.from_filesystem(site, after, new),)
    if after == FILESYSTEM:
        return (migrations.to_filesystem(site, before, old),)
    if before == after:
        return (migrations.between_stores(site, after, old, new),)
    if same_store and (before, after) == (MODULE, GOOFYS):
        return (migrations.module_to_goofys(site, old),)
    if same_store and (before, after) == (GOOFYS, MODULE):
        return (migrations.goofys_to_module(site, old),)
    return (migrations.to_filesystem(site, before, old), migrations.from_filesystem(site, after, new))


def _require_form(form: Form, *methods: str) -> None:
    """Raises UsageError for a form without a runbook between these methods, with what to do in its place."""
    if form == "kubernetes":
        raise UsageError(
            "--form is 'kubernetes', which has no runbook: how Synapse's volume is mounted and its pods are stopped is "
            "the chart's. Print the steps with --form plain --media-path PATH, the media store in the pod (/media/"
            "media_store in ess-helm); run the commands of `server` in a pod that mounts this volume; where it "
            "stops Synapse, scale its StatefulSets to 0; and where it installs files, apply those that "
            "`render` writes for Kubernetes and wait for `kubectl rollout status`."
        )
    if form not in _DEFAULT_MEDIA_PATH:
        raise UsageError(
            f"--form is {form!r}; there are runbooks for: {', '.join(_DEFAULT_MEDIA_PATH)}. Choose one of them."
        )
    lacking = [method for method in methods if method != FILESYSTEM and form not in forms(method)]
    if lacking:
        raise UsageError(
            f"--form is {form!r}, which {lacking[0]} does not have, so there is no runbook. Print the steps with "
            "--form plain --media-path PATH, the directory of Synapse's media; where they install or remove a file, "
            "change your NixOS configuration accordingly and run `nixos-rebuild switch`."
        )


def _require_possible(current: StorageOutputs, to: str, method: str, target: StorageOutputs | None) -> None:
    """Raises RunbookError for a switch that is impossible or would lose media, with the alternative."""
    name = current.server_name
    if method == FILESYSTEM and current.method == FILESYSTEM:
        raise RunbookError(f"{name} already keeps its media on the local filesystem: there is nothing to switch.")
    if target is None and method == current.method and to in (method, current.provider):
        raise RunbookError(
            f"{name} already uses {current.method} at {current.provider}: there is nothing to switch. "
            "For another bucket at the same provider, create it in a separate stack and name that with --to-stack."
        )
    if method == MEDIA_REPO and (current if target is None else target).keyless:
        raise RunbookError(
            f"{name} has no key, and matrix-media-repo requires one. Give the store a key first, or choose {MODULE}."
        )
    for store in (current, target):
        if store is not None and store.prefix and not store.prefix.endswith("/"):
            raise RunbookError(
                f"{store.server_name}: its prefix {store.prefix!r} does not end with '/', so its media lies in no "
                "directory of the bucket, and rclone copies directories. Copy the objects by a tool that takes the "
                f"beginning of keys, to keys under {store.prefix + '/'!r}; then change the prefix, with "
                f"{store.server_name}/move-media in the stack file's allow."
            )
    if target is not None:
        _require_valid_target(current, to, method, target)
    elif (current.method, method) == (MODULE, GOOFYS) and current.prefix:
        raise RunbookError(
            f"{name}: its media is under the prefix {current.prefix!r}, and Goofys supports no prefix: it would "
            "show an "
            "empty media store. Create a bucket for it in another stack, and name that with --to-stack."
        )


def _require_valid_target(current: StorageOutputs, to: str, method: str, target: StorageOutputs) -> None:
    name = current.server_name
    same_place = (target.endpoint_url, target.bucket) == (current.endpoint_url, current.bucket)
    if method == FILESYSTEM:
        raise UsageError("the filesystem has no store: omit --to-stack and --to-store")
    if target.server_name != name:
        raise RunbookError(
            f"the new store belongs to {target.server_name}, this one to {name}: media of two homeservers must not "
            "be mixed"
        )
    if target.method != method:
        raise RunbookError(
            f"the new store was created for {target.method}, and its key was proved for that alone. Set "
            f"`method: {method}` in its stack and `up` again."
        )
    if to not in METHODS and target.provider != to:
        raise RunbookError(f"--to is {to}, but the new store is at {target.provider}: make the two agree")
    if same_place and method != current.method:
        raise RunbookError(
            f"the new store is the bucket {current.bucket} that {current.method} uses now: two methods on one bucket "
            "destroy media. Omit --to-stack: then the first method is removed before the second is installed."
            if {method, current.method} == {MODULE, GOOFYS}
            else f"the new store is the bucket {current.bucket} that {current.method} uses now: two methods on one "
            "bucket destroy media. Create another bucket."
        )
    if same_place:
        raise RunbookError(
            f"the new store is the bucket {current.bucket} that is in use: it would be copied onto itself and then "
            "deleted "
            "as the old store, with all media"
        )
    ids = [store.media_repo.get("s3_datastore_id") for store in (current, target)]
    if method == current.method == MEDIA_REPO and ids[0] != ids[1]:
        raise RunbookError(
            "media_repo.s3_datastore_id of the new store differs from that of the old one: matrix-media-repo "
            "would not find "
            "the copied media. Set the old id in the new stack."
        )
