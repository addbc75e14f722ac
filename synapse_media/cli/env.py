"""`synapse-media env`: the environment in which plain `pulumi` works on the same state."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from synapse_media import stackfile
from synapse_media.engine import session

from . import programs, stacks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        '`eval "$(synapse-media env)"`. Plain pulumi knows fewer guards: only its own '
        "protection, and what the plugin itself refuses. No credential is printed."
    )
    parser.add_argument("--json", action="store_true", help="for programs: the variables and their values")


def run(arguments: argparse.Namespace) -> int:
    show(missing_here(), as_json=arguments.json)
    return 0


def missing_here() -> dict[str, str]:
    """The variables that plain pulumi needs, and that the user's own shell has not. No credential is among them."""
    # Pulumi.yaml may name the backend; a program on the Automation API has none.
    project = stackfile.project_above(Path.cwd())
    return {
        name: value
        for name, value in sorted(session.environment(say=stacks.say, project=project).items())
        # What the user's own shell has already is not repeated: it may be a secret.
        if (name == "PATH" or name.startswith("PULUMI_")) and os.environ.get(name) != value
    }


def show(variables: Mapping[str, str], *, as_json: bool) -> None:
    """Print variables as lines for a shell, or for programs."""
    if as_json:
        print(programs.text({"variables": variables}))
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
