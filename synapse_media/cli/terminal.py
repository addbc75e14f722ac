"""Colours and tables on a terminal. Elsewhere, and with NO_COLOR (https://no-color.org/), output is plain text."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from synapse_media.contract import ProofLine
    from synapse_media.guards.changes import Line

DANGER = "bold red"
_STYLES = {
    "create": "green",
    "update": "yellow",
    "take over": "yellow",
    "replace": "magenta",
    "delete": "magenta",
    "give up": "magenta",
    "forget": "magenta",
    "danger": DANGER,
    "note": "cyan",
}
"""{kind of a line of a preview: its style}; other kinds have none. Red is for dangers and failures alone."""


def shows_colour(stream: TextIO) -> bool:
    """Whether what is written to a stream is read on a terminal by somebody who has not turned colours off."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _substituted(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream's encoding lacks: a byte of a path as it is, else "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    if all("\udc80" <= character <= "\udcff" for character in bad):
        return bytes(ord(character) - 0xDC00 for character in bad), error.end
    return "?" * len(bad), error.end


def tolerate(stream: TextIO) -> None:
    """Have a stream take any text: its encoding may lack characters (a locale of Latin-1), or a path be no text."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error("synapse-media", _substituted)
        stream.reconfigure(errors="synapse-media")


def write(lines: Iterable[tuple[str, str]], stream: TextIO) -> None:
    """Print lines, each with its style."""
    if not shows_colour(stream):
        print("\n".join(text for text, _ in lines), file=stream)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, force_terminal=True, highlight=False)
    for text, style in lines:
        # The terminal wraps: what is copied from it has no line breaks of ours.
        console.print(Text(text, style=style), soft_wrap=True)


def write_changes(lines: Iterable[Line], stream: TextIO) -> None:
    """Print a preview, its dangers in red."""
    write(((line.text, _STYLES.get(line.kind, "")) for line in lines), stream)


def proof(lines: Sequence[ProofLine]) -> str:
    """A proof as a table, with colours, for standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    details = any(line.detail for line in lines)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("operation", "expected", "was", *(["why"] if details else [])):
        table.add_column(name, no_wrap=name != "why")
    for line in lines:
        style = DANGER if line.failed else "green" if line.outcome == line.expected else "dim"
        cells = [Text(line.operation), Text(line.expected), Text(line.outcome, style=style)]
        table.add_row(*cells, *([Text(line.detail, style="dim")] if details else []))
    width = Console(file=sys.stdout).width
    console = Console(file=io.StringIO(), force_terminal=True, highlight=False, width=width - 2)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(f"  {line}".rstrip() for line in captured.get().splitlines() if line.strip())


@contextlib.contextmanager
def bar() -> Iterator[Callable[[float, float, str], None]]:
    """One progress bar on standard error: how much is done, of how much, and a line of words on it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda done, of, words: shown.update(task, completed=done, total=of, description=words)


def in_bytes(size: float) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def counted(files: int, size: int) -> str:
    """A number of files and their size, for people."""
    return f"{files} file{'' if files == 1 else 's'}, {in_bytes(size)}"
