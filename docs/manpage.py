"""Write the man page synapse-media.1 from the command line's own help.

Usage: python docs/manpage.py
"""  # noqa: INP001 (a script, not a package)

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from synapse_media.cli.commandline import parser
from synapse_media.cli.examples import OF

PAGE = Path(__file__).parents[1] / "synapse_media" / "synapse-media.1"
_GENERAL = ("--help", "--cwd", "--verbose")
"""Options that every command takes: listed once."""
_VALUE_WIDTH = 50
"""Characters; choices that are longer follow in the text."""


def page() -> str:
    """The page in roff, in the form that man-pages(7) has."""
    made = parser()
    return "\n".join(_lines(made)) + "\n"


def _lines(made: Any) -> Iterator[str]:
    yield from (
        '.TH SYNAPSE\\-MEDIA 1 "" "synapse\\-media" "User Commands"',
        ".SH NAME",
        "synapse\\-media \\- object storage for a Matrix homeserver's media",
        ".SH SYNOPSIS",
        ".B synapse\\-media",
        "[\\fIoptions\\fR] \\fICOMMAND\\fR [\\fIoptions\\fR]",
        ".SH DESCRIPTION",
        _text(made.description),
        ".SH OPTIONS",
    )
    yield from _arguments(made)
    # Of every command, and not of the command line as such.
    verbose = made.commands["diff"]._option_string_actions["--verbose"]
    yield from (".TP", "\\fB\\-\\-verbose\\fR, \\fB\\-v\\fR (after \\fICOMMAND\\fR)", _text(verbose.help))
    yield ".SH COMMANDS"
    for name, command in made.commands.items():
        yield f".SS {_text(name)}"
        yield _text(command.description or "")
        yield from _arguments(command, without=_GENERAL)
        yield ".PP"
        yield "Examples:"
        for line, what in OF[name].lines:
            yield from (".PP", f"{_text(what)}:", ".EX", f"    {_text(f'synapse-media {line}')}", ".EE")
        yield from (".PP", f"More: docs/{_text(OF[name].page)}")
    codes = made.epilog.partition("exit codes: ")[2].partition(". ")[0]
    yield ".SH EXIT STATUS"
    for code in codes.split("; "):
        number, _, meaning = code.partition(" ")
        yield from (".TP", f".B {number}", _text(meaning))
    yield from (
        ".SH SEE ALSO",
        ".BR pulumi (1)",
        ".PP",
        "https://github.com/matrix\\-org/synapse\\-s3\\-storage\\-provider",
    )


def _arguments(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> Iterator[str]:
    formatter = argparse.HelpFormatter(parser.prog)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or set(action.option_strings) & set(without):
            continue
        choices = [str(choice) for choice in action.choices or ()]
        value = "" if action.nargs == 0 else action.metavar or "|".join(choices) or action.dest.upper()
        words = formatter._expand_help(action) if action.help else ""
        if len(str(value)) > _VALUE_WIDTH:
            value = action.dest.upper()
            words = f"{words}; one of {', '.join(choices)}".removeprefix("; ")
        names = ", ".join(f"\\fB{_text(name)}\\fR" for name in action.option_strings)
        yield ".TP"
        yield " ".join(part for part in (names, f"\\fI{_text(str(value))}\\fR" if value else "") if part)
        yield _text(words) if words else "\\&"


def _text(text: str) -> str:
    """As roff takes it literally: a backslash, a hyphen that can be copied, a line that begins like a request."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
