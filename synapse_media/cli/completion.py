"""`synapse-media completion`: what a shell needs to complete commands, options and stacks."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any, Final

from synapse_media.errors import SynapseMediaError

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints a script for the shell: commands, options, their values and the stacks of the project are "
        "then completed. Put it where the shell looks for completions, or evaluate it at its start."
    )
    parser.add_argument("shell", choices=SHELLS)


def run(arguments: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["synapse-media"], shell=arguments.shell))
    return 0


def complete_values(command: argparse.ArgumentParser) -> None:
    """Have a shell complete the values of a command's options that are names, and not files."""
    for action in command._actions:  # noqa: SLF001 - argparse has no other way to them
        for option in action.option_strings:
            if option in _COMPLETERS:
                completed: Any = action
                completed.completer = _COMPLETERS[option]


def _stacks(**_: object) -> list[str]:
    """The stacks that have a stack file. Nothing is asked: a shell waits for it."""
    from synapse_media import stackfile

    with contextlib.suppress(SynapseMediaError):
        project = stackfile.find_project()
        return list(stackfile.files_in(project / stackfile.config_dir(project)))
    return []


def _targets(**_: object) -> list[str]:
    """What a store can be switched to."""
    from synapse_media import catalog
    from synapse_media.methods import METHODS

    return [*METHODS, *catalog.names()]


_COMPLETERS: Final = {"--stack": _stacks, "--to-stack": _stacks, "--to": _targets}
