"""`synapse-media list`: the stacks of this project."""

from __future__ import annotations

import argparse
from typing import Any

from synapse_media import stackfile

from . import overview, programs
from .overview import Overview


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Every stack with a stack file or in the backend: its homeservers, and when it was last changed. "
        "Changes nothing."
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    found = overview.all_stacks(stackfile.find_project())
    if arguments.json:
        print(programs.text({"stacks": {one.name: _to_json(one) for one in found}}))
    else:
        print("\n".join(map(_in_words, found)) or "no stack yet: `synapse-media init` writes a stack file")
    return 0


def _to_json(one: Overview) -> dict[str, Any]:
    return {
        "file": str(one.file) if one.file else None,
        "fault": one.fault,
        "made": bool(one.known),
        "selected": bool(one.known.get("current")),
        "updated": one.updated,
        "resources": int(one.known.get("resourceCount") or 0),
        "homeservers": {
            name: {"provider": store.provider, "method": store.method, "bucket": store.bucket}
            for name, store in (one.stack.stores if one.stack else {}).items()
        },
    }


def _in_words(one: Overview) -> str:
    when = f"last changed {one.updated[:16].replace('T', ' ')} UTC" if one.updated else "not made yet"
    if one.known and not one.updated:
        when = "made, never changed"
    lines = [f"{one.name}{' (selected)' if one.known.get('current') else ''}: {when}"]
    if one.file is None:
        lines.append("  no stack file here")
    if one.fault:
        lines.append(f"  the stack file can't be read: {one.fault.splitlines()[0]}")
    for name, store in (one.stack.stores if one.stack else {}).items():
        place = f"{store.bucket} at {store.provider}, by {store.method}" if store.uses_store else store.method
        lines.append(f"  {name}: {place}")
    return "\n".join(lines)
