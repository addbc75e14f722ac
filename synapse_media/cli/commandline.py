"""The command line: its commands and options, and what is said to somebody who mistyped one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from synapse_media import __version__
from synapse_media.errors import UsageError

COMMANDS: Mapping[str, str] = {
    "init": "write a stack file of your own, and a project for it where there is none",
    "list": "the stacks of this project",
    "show": "what exists, and when its key was made and proved",
    "diff": "say what `up` would change",
    "up": "make a stack so, and prove its keys",
    "check": "find what breaks or loses media in configuration files",
    "render": "write what the homeserver reads",
    "prove": "try a key again, here",
    "rotate": "replace a store's access key, in two steps",
    "switch": "print the way to another method or provider",
    "media": "existing media: copy it to the store, verify it there, free the disk, restore it",
    "doctor": "what the admin credential needs, and what is wrong here",
    "destroy": "delete what a stack made, as far as the stack file's `allow` says so",
    "abort-uploads": "remove what uploads that were never completed left behind",
    "cost": "compare what a store would cost at each provider",
    "embedded": "the embedded store: start, stop, status, up, env, clean",
    "env": "shell lines after which plain `pulumi` works",
    "completion": "completion for a shell",
    "help": "the help of a command",
}
"""{command: its line in the help}. Each is a module of this package with `add_arguments(parser)` and
`run(arguments) -> exit code`, imported where that command is parsed: the others and `--help` need nothing of it."""


def module_of(command: str) -> ModuleType:
    """The module of a command."""
    return import_module(f".{command.replace('-', '_')}", __package__)


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

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Of a variable that is not set: it would be the current directory, the selected stack, or every user's media.
        # Of a command, what comes after its name are its own arguments.
        if "" in (arg_strings[:1] if action.nargs == argparse.PARSER else arg_strings):
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            raise argparse.ArgumentError(None, f"{name} is empty; leave it out, or name what is meant")
        return super()._get_values(action, arg_strings)

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
            command = self.command(parsed.command)
            known = [*command._option_string_actions, *self._option_string_actions]  # noqa: SLF001 - ours
            told = [
                f"{word} is no {'option' if word.startswith('-') else 'argument'} of {parsed.command}"
                f"{_meant(word.partition('=')[0], known) if word.startswith('-') else ''}"
                for word in unknown
            ]
            command.error("; ".join(told))
        return parsed

    @property
    def commands(self) -> dict[str, _Command]:
        """The parser of each command."""
        return {name: self.command(name) for name in COMMANDS}

    def command(self, name: str) -> _Command:
        """The parser of one command."""
        (found,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
        command: _Command = found.choices[name]
        command.fill()
        return command


class _Command(_Parser):
    """The parser of one command. It has no arguments until something is parsed, or `fill` is called."""

    def __init__(self, *, command: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._unfilled = command

    def fill(self) -> None:
        """Add the arguments, unless that was done."""
        name, self._unfilled = self._unfilled, ""
        if not name:
            return
        from . import examples
        from .completion import complete_values

        module_of(name).add_arguments(self)
        # Before the command or after it, as pulumi has it.
        _add_directory(self, default=argparse.SUPPRESS)
        self.add_argument("--verbose", "-v", action="store_true", help="show each API call: time, status, request id")
        self.formatter_class = _Formatter
        self.epilog = examples.epilog(name)
        complete_values(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.fill()
        return super().parse_known_args(args, namespace)


def _meant(value: str, allowed: Sequence[str]) -> str:
    from synapse_media import catalog

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
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Command)
    for name, line in COMMANDS.items():
        commands.add_parser(name, help=line, command=name)
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
