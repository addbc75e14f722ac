"""The command `synapse-media`: parse, call one function, print."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise

from synapse_media.errors import Problem, SettingsError, SynapseMediaError, UsageError
from synapse_media.redaction import redacted
from synapse_media.signals import ended_in_order

from . import programs, terminal
from .commandline import WrongUsageError, module_of, parser


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--near -33.9,151.2` as `--near=-33.9,151.2`: argparse takes what begins with '-' for an option of its own."""
    joined: list[str] = []
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for argument in arguments[:end]:
        if joined and re.fullmatch(r"--[a-z-]+", joined[-1]) and re.match(r"-[0-9.]", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return [*joined, *arguments[end:]]


def _defect(error: BaseException) -> str:
    """An error that nobody expected: its kind and place, and those of its causes. What they say may be secret."""
    lines = ["a defect of synapse-media. Please report these lines; what the errors say is left out: it may be secret."]
    cause: BaseException | None = error
    while cause is not None:
        places = [f"{at.filename}:{at.lineno} in {at.name}" for at in traceback.extract_tb(cause.__traceback__)]
        lines += [f"  {place}" for place in places]
        lines.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if cause is not None:
            lines.append("which came of")
    return "\n".join(lines)


_PACKAGES = {"boto3": "boto3", "botocore": "boto3", "rich": "rich", "ruamel": "ruamel.yaml", "yaml": "PyYAML"}
"""{module: its package} of what a command needs that a server, where only `prove` runs, may not have."""


def _lacking(error: ModuleNotFoundError) -> str:
    package = _PACKAGES.get((error.name or "").partition(".")[0])
    if package is None:
        return _defect(error)
    return f"it needs the package {package}, which is not installed here: pip install {package}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. What goes wrong is said on standard error, without a traceback."""
    try:
        parsed, command = _parse(arguments)
    except KeyboardInterrupt:
        # While there was no command yet to say it: its module was being imported.
        terminal.write([("synapse-media: interrupted; nothing was changed", "")], sys.stderr)
        return 130
    with ended_in_order(), contextlib.ExitStack() as directory:
        return _run(parsed, command, directory)


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The command line, and its command's parser. Exits where it can't be carried out, or is answered by that."""
    made = parser()
    if "_ARGCOMPLETE" in os.environ:
        # Asked by the shell, in the middle of a line.
        import argcomplete

        _ = made.commands  # fills them
        argcomplete.autocomplete(made)
    terminal.tolerate(sys.stdout)
    words = _joined(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = made.parse_args(words)
    except WrongUsageError as error:
        if {"--json", "--format=json"} & set(words) or ("--format", "json") in pairwise(words):
            print(programs.error(error.command, error.message, UsageError.exit_code))
        raise
    return parsed, made.command(parsed.command)


def _run(parsed: argparse.Namespace, command: argparse.ArgumentParser, directory: contextlib.ExitStack) -> int:
    if parsed.verbose:
        from synapse_media.store import tracing

        # It is the plugin that calls, two processes further.
        os.environ[tracing.VARIABLE] = "1"
    try:
        if parsed.cwd is not None:
            directory.enter_context(contextlib.chdir(parsed.cwd))
        several = _name_stacks(parsed)
        if several:
            from .several import run

            return run(parsed, command, several)
        code: int = module_of(parsed.command).run(parsed)
    except SynapseMediaError as error:
        from synapse_media.guards.danger import DangerError

        style = terminal.DANGER if isinstance(error, DangerError) else ""
        problems = error.problems if isinstance(error, SettingsError) else ()
        return _failed(parsed, str(error), error.exit_code, problems, style)
    except BrokenPipeError:
        # Who read it has seen enough.
        _leave_output()
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(parsed, redacted(f"{where}{error.strerror or error}{'' if where else _room(error)}"))
    except EOFError:
        # The end of the input (Ctrl-D) in place of an answer.
        return _failed(parsed, "nothing was changed: there was no answer")
    except KeyboardInterrupt:
        return _failed(parsed, "interrupted; run it again to go on", 130)
    except ModuleNotFoundError as error:
        return _failed(parsed, _lacking(error))
    except Exception as error:  # noqa: BLE001 - what it says may hold a secret, so it is not shown
        return _failed(parsed, _defect(error))
    return code


def _room(error: OSError) -> str:
    """Where there may be no room left; "" for another error. What fails to write names no file."""
    from synapse_media.media.plan import FULL

    if error.errno not in FULL:
        return ""
    import tempfile

    from synapse_media.engine.paths import state_dir

    return (
        f" in {state_dir()}, {tempfile.gettempdir()} or where this command writes to. Free some room, and run it "
        "again: it goes on from there."
    )


def _failed(
    parsed: argparse.Namespace, message: str, exit_code: int = 1, problems: Sequence[Problem] = (), style: str = ""
) -> int:
    """Say why a command failed: in words, and in JSON as well if it was asked for. Returns the exit code."""
    terminal.write([(f"synapse-media {parsed.command}: {message}", style)], sys.stderr)
    if programs.wanted(parsed):
        try:
            print(programs.error(parsed.command, message, exit_code, problems), flush=True)
        except OSError:
            # Where the answer goes, no more can be written: it was said above.
            _leave_output()
    return exit_code


def _leave_output() -> None:
    """Write nothing more to standard output: Python itself would complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _name_stacks(parsed: argparse.Namespace) -> list[str]:
    """Fill in the stack that was selected where none was named; write every name as it is known here.

    Returns the stacks, where there are several.
    """
    named = vars(parsed)
    if not {"stack", "to_stack"} & set(named):
        return []
    from synapse_media import stackfile

    from . import stacks

    # The name `list` is that of a command here.
    if isinstance(named.get("stack"), Sequence) and not isinstance(parsed.stack, str):
        from .several import names

        found = names(stackfile.find_project(), parsed.stack)
        if len(found) > 1:
            return found
        parsed.stack = found[0]
    if "stack" in named and named["stack"] is None and named.get("store") is None:
        parsed.stack = stacks.selected(or_store="store" in named)
    for option in ("stack", "to_stack"):
        if named.get(option) is not None:
            setattr(parsed, option, stackfile.without_placeholder(stackfile.find_project(), named[option]))
    return []
