"""The command line: its commands and options, and what is said to somebody who mistyped one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from synapse_media import __version__, catalog
from synapse_media.errors import UsageError

from . import examples
from .completion import complete_values

COMMANDS = (
    "init",
    "list",
    "show",
    "diff",
    "up",
    "check",
    "render",
    "prove",
    "rotate",
    "switch",
    "media",
    "doctor",
    "destroy",
    "abort_uploads",
    "cost",
    "embedded",
    "env",
    "completion",
    "help",
)
"""Each is a module of this package with `add_parser(subparsers)` and `run(arguments) -> exit code`."""


class WrongUsageError(SystemExit):
    """A command line that can't be read; it was said on standard error. `command` is "" if none was named."""

    def __init__(self, message: str, prog: str) -> None:
        super().__init__(UsageError.exit_code)
        self.message = message
        self.command = prog.partition(" ")[2]


class _Parser(argparse.ArgumentParser):
    """Errors end with exit code 64, and name what was probably meant."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise WrongUsageError(message, self.prog)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = list(action.choices or ())
        if choices and value not in choices:
            name = action.metavar if isinstance(action.metavar, str) else "/".join(action.option_strings) or action.dest
            raise argparse.ArgumentError(
                None, f"{name} is {value!r}; allowed: {', '.join(map(str, choices))}{_meant(str(value), choices)}"
            )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = self.commands[parsed.command]
            known = [*command._option_string_actions, *self._option_string_actions]  # noqa: SLF001 - ours
            told = [
                f"{word} is no {'option' if word.startswith('-') else 'argument'} of {parsed.command}"
                f"{_meant(word.partition('=')[0], known) if word.startswith('-') else ''}"
                for word in unknown
            ]
            command.error("; ".join(told))
        return parsed

    @property
    def commands(self) -> dict[str, Any]:
        """The parser of each command."""
        (found,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
        return dict(found.choices)


def _meant(value: str, allowed: Sequence[str]) -> str:
    guess = catalog.nearest(value, allowed)
    return f". Did you mean {guess!r}?" if guess else ""


def parser() -> _Parser:
    """The whole command line."""
    made = _Parser(
        prog="synapse-media",
        description="Object storage for a Matrix homeserver's media: provisioned, proved, configured.",
        epilog="exit codes: 0 done or nothing to do; 1 error, failed proof or finding; 2 changes pending; "
        "3 dangerous changes pending; 64 wrong usage. `synapse-media help COMMAND` has examples.",
    )
    _add_directory(made, default=None)
    made.add_argument("--version", action="version", version=f"synapse-media {__version__}")
    commands: Any = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f".{name}", __package__).add_parser(commands)
    for name, command in commands.choices.items():
        # Before the command or after it, as pulumi has it.
        _add_directory(command, default=argparse.SUPPRESS)
        command.add_argument(
            "--verbose", "-v", action="store_true", help="show each API call: time, status, request id"
        )
        command.formatter_class = _Formatter
        command.epilog = examples.epilog(name)
        complete_values(command)
    return made


class _Formatter(argparse.HelpFormatter):
    """Keeps the lines of the examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)


def _add_directory(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "-C", "--cwd", metavar="DIR", default=default, help="run as if started in this directory, as `pulumi -C`"
    )
