"""`synapse-media show`: what exists, of one stack or of all, without changing anything."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import Any

from synapse_media import stackfile
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.guards import changes
from synapse_media.guards.changes import Change

from . import drift, overview, programs, stacks
from .overview import Existing, Overview


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What the state has of one stack, or of all: buckets, users, keys, when a key was made and last "
        "proved, and what it may do. Reads the state alone: no store is asked and nothing is decrypted, so neither an "
        "admin credential nor the passphrase is needed, unless --drift asks the stores. Changes nothing."
    )
    parser.add_argument(
        "--stack", "-s", metavar="S", dest="only", help="one stack, or a pattern; default: all of this project"
    )
    parser.add_argument(
        "--drift", action="store_true", help="ask the stores as well, and show what was changed there by hand"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    project = stackfile.find_project()
    found = overview.all_stacks(project)
    if arguments.only is not None:
        wanted = stackfile.short_name(stackfile.without_placeholder(project, arguments.only))
        names = [one.name for one in found]
        found = [one for one in found if fnmatchcase(one.name, wanted)]
        if not found:
            raise UsageError(f"--stack is {arguments.only!r}; stacks here: {', '.join(names) or 'none'}")
    stores = {one.name: list(overview.existing(project, one)) for one in found}
    drifts = {one.name: _drift(one) for one in found if arguments.drift and one.known}
    if arguments.json:
        shown = {one.name: _to_json(one, stores[one.name], drifts.get(one.name)) for one in found}
        print(programs.text({"stacks": shown}))
    else:
        told = [_in_words(one, stores[one.name], drifts.get(one.name)) for one in found]
        print("\n\n".join(told) or "no stack yet")
    return 1 if any(isinstance(each, SynapseMediaError) for each in drifts.values()) else 0


Drift = tuple[Change, ...] | SynapseMediaError
"""What was changed by hand, or why it can't be known."""


def _drift(one: Overview) -> Drift:
    try:
        return drift.of(one.name)
    except SynapseMediaError as error:
        # The other stacks are shown all the same.
        return error


def _to_json(one: Overview, stores: Iterable[Existing], found: Drift | None) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if isinstance(found, SynapseMediaError):
        asked = {"drift": None, "drift_fault": str(found)}
    elif found is not None:
        asked = {"drift": changes.to_json(found, (), ())["changes"], "drift_fault": ""}
    return {
        "made": bool(one.known),
        **asked,
        "updated": one.updated,
        "stores": {
            store.record.server_name: {
                **(stacks.report([store.outputs])[store.record.server_name] if store.outputs else {}),
                "finished": store.outputs is not None or store.is_encrypted,
                "proved_at": store.proved_at,
                "keys": {
                    key: "active" if slot == store.record.ring.active else "retiring"
                    for slot, key in sorted(store.record.ring.keys.items())
                }
                if store.record.ring
                else {},
            }
            for store in stores
        },
    }


def _in_words(one: Overview, stores: Collection[Existing], found: Drift | None) -> str:
    lines = [f"stack {one.name}"]
    for store in stores:
        name, ring = store.record.server_name, store.record.ring
        if store.is_encrypted:
            lines.append(
                f"{name}: made; what it has is encrypted in the state, since a setting of it is a secret: "
                f"`synapse-media prove --stack {one.name}` tries its key"
            )
        elif store.outputs is None:
            lines.append(f"{name}: not finished; run `synapse-media up --stack {one.name}`")
        else:
            lines.append(stacks.summary([store.outputs]))
        if store.proved_at:
            proof = store.outputs.proof if store.outputs else None
            # That of encrypted outputs can't be read: that it was made is all that is known.
            passed = store.is_encrypted or (proof is not None and proof.passed)
            lines.append(f"  proved     {store.proved_at[:16].replace('T', ' ')} UTC{'' if passed else ', and failed'}")
        if ring is not None:
            server = f" --server {name}" if len(stores) > 1 else ""
            finish = f"until `synapse-media rotate --finish --confirm --stack {one.name}{server}`"
            lines += [f"  retiring   {ring.keys[slot]}, {finish}" for slot in ring.retiring]
    if len(lines) == 1:
        lines.append(f"nothing yet; `synapse-media diff --stack {one.name}` says what would be made")
    if isinstance(found, SynapseMediaError):
        lines.append(f"drift: not known, since {found}")
    elif found:
        lines.append(f"drift: `synapse-media up --refresh --stack {one.name}` would mend it by")
        lines += [f"  {line.text}" for line in changes.lines(found)]
    elif found is not None:
        lines.append("drift: none")
    return "\n".join(lines)
