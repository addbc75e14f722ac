"""`synapse-media destroy`: give a stack up, as far as its `allow` says so."""

from __future__ import annotations

import argparse
import json
from collections.abc import Container
from typing import Any

from synapse_media import changes
from synapse_media.contract import ContractError, StorageOutputs
from synapse_media.errors import SynapseMediaError

from . import stacks
from .up import confirm


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "destroy",
        help="delete what a stack made, as far as the stack file's `allow` says so",
        description="A bucket is deleted only where `allow` names <homeserver>/delete-bucket, and only if it is empty "
        "or <homeserver>/delete-media is there too; <homeserver>/retain-bucket gives it up and leaves it where it is.",
    )
    stacks.add_stack(parser)
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.add_argument("--json", action="store_true", help="for programs: what became of each bucket")


def run(arguments: argparse.Namespace) -> int:
    session = stacks.open_stack(arguments.stack, credentials=True, options=arguments.options)
    stacks.quiet_for_json(session, as_json=arguments.json)
    engine, stack = session.engine, session.stack
    buckets = {urn: urn.rpartition("::")[2] for urn in stacks.buckets_of(engine.export(stack.name))}
    kept = [name for name in buckets.values() if not _may_go(name, stack.allow)]
    if kept:
        raise changes.DangerError(
            f"nothing was destroyed: the media of {', '.join(kept)} is protected. Put into synapse-media:allow in "
            f"{stack.path} for each: <homeserver>/retain-bucket (give the bucket up, leave it where it is) or "
            "<homeserver>/delete-bucket (with <homeserver>/delete-media, if there is media in it)."
        )
    full = [store for store in _to_empty(session) if stacks.holds_media(store)]
    if full:
        raise SynapseMediaError(
            f"nothing was destroyed: the bucket of {', '.join(store.server_name for store in full)} holds media and is "
            "not deleted. Put <homeserver>/delete-media into synapse-media:allow to delete the media for good, or "
            "<homeserver>/retain-bucket in place of delete-bucket to leave it where it is."
        )
    if not arguments.yes:
        confirm(f"Destroy stack {stack.name} with the buckets of {', '.join(buckets.values()) or 'no store'}?")
    with stacks.changing(session):
        # Protection and `allow` live in state: a destroy acts on what the last `up` wrote there.
        stacks.unprotect_allowed(session, ("delete-bucket", "retain-bucket"))
        wanted = [urn for urn, name in buckets.items() if name in stack.stores]
        if wanted:
            engine.up(
                stack.name,
                ["--skip-preview", "--suppress-outputs", *(word for urn in wanted for word in ("--target", urn))],
            )
        engine.destroy(stack.name, arguments.options)
        engine.clear_pending_creates(stack.name)
    if arguments.json:
        left = {urn.rpartition("::")[2] for urn in stacks.buckets_of(engine.export(stack.name))}
        print(json.dumps({name: _became(name, stack.allow, left) for name in buckets.values()}, indent=2))
    return 0


def _became(server_name: str, allow: tuple[str, ...], left: Container[str]) -> str:
    """What became of a bucket; with pulumi's --target it may still be there."""
    if server_name in left:
        return "managed"
    return "retained" if f"{server_name}/retain-bucket" in allow else "deleted"


def _to_empty(session: stacks.Session) -> list[StorageOutputs]:
    """The stores whose bucket goes only if nothing is in it."""
    allow = session.stack.allow
    try:
        stores = stacks.outputs_of(session)
    except ContractError:
        return []  # nothing was finished, so nothing was handed out
    return [
        store
        for store in stores
        if f"{store.server_name}/delete-bucket" in allow
        and not {f"{store.server_name}/delete-media", f"{store.server_name}/retain-bucket"} & set(allow)
        and store.bucket
    ]


def _may_go(server_name: str, allow: tuple[str, ...]) -> bool:
    return bool({f"{server_name}/delete-bucket", f"{server_name}/retain-bucket"} & set(allow))
