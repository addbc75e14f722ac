"""`synapse-media diff`: what `up` would change, in plain words."""

from __future__ import annotations

import argparse
import json
from typing import Any

from synapse_media import changes

from . import stacks


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "diff",
        help="say what `up` would change",
        description="A real preview in plain words. Exit code 0: nothing, 2: changes, 3: changes that can lose media "
        "or cut access and that the stack file's `allow` does not name.",
    )
    stacks.add_stack(parser, options=False)
    parser.add_argument(
        "--refresh", action="store_true", help="look at the store first: finds what was changed by hand"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    session = stacks.open_stack(arguments.stack, credentials=arguments.refresh)
    preview = session.engine.preview(arguments.stack, refresh=arguments.refresh)
    found = changes.of_preview(preview)
    refused = changes.refused(found, session.stack.allow)
    if arguments.json:
        print(json.dumps(changes.to_json(found, changes.warnings(preview), refused), indent=2))
    else:
        print(changes.in_words(found, changes.warnings(preview)))
    if refused:
        return 3
    return 2 if found else 0
