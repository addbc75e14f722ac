"""`synapse-media env`: the environment in which plain `pulumi` works on the same state."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from synapse_media import stackfile
from synapse_media.engine import session

from . import stacks


def add_parser(commands: Any) -> None:
    commands.add_parser(
        "env",
        help="shell lines after which plain `pulumi` works",
        description='`eval "$(synapse-media env)"`. Plain pulumi knows fewer guards: only its own '
        "protection, and what the plugin itself refuses. No credential is printed.",
    )


def run(arguments: argparse.Namespace) -> int:
    del arguments
    for name, value in session.shell_variables(stackfile.find_project(), stacks.say).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0
