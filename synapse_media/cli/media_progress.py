"""How far a `media` command is: one bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from . import terminal

if TYPE_CHECKING:
    from synapse_media.media.plan import Amount
    from synapse_media.media.rclone import Progress

EVERY = 15
"""Seconds between two lines on how far it is, where there is no terminal."""
_DRAWN_EVERY = 0.1
"""Seconds between two drawings of a bar."""


class Shown:
    """Tells people of a command on standard error.

    Args:
        draw: draws a bar: how much is done, of how much, and words; None: lines are printed.
    """

    def __init__(self, draw: Callable[[float, float, str], None] | None) -> None:
        self._draw, self._what, self._last = draw, "", time.monotonic()

    def say(self, what: str) -> None:
        """Something new is begun."""
        self._what = what
        if self._draw is not None:
            self._draw(0, 1, what)
        else:
            _print(what)

    def show(self, progress: Progress, of: Amount) -> None:
        """How far that is."""
        if time.monotonic() - self._last < (EVERY if self._draw is None else _DRAWN_EVERY):
            return
        self._last = time.monotonic()
        words = f"{self._what}: {_how_far(progress, of)}" if self._what else _how_far(progress, of)
        if self._draw is not None:
            self._draw(progress.size, of.size, words)
        else:
            _print(words)


@contextlib.contextmanager
def shown(*, json: bool) -> Iterator[Shown]:
    """
    Args:
        json: a program reads standard output, and may read standard error, too: no bar.
    """
    # A server need not have what draws it.
    if terminal.shows_colour(sys.stderr) and not json and find_spec("rich"):
        with terminal.bar() as draw:
            yield Shown(draw)
        return
    yield Shown(None)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _how_far(progress: Progress, of: Amount) -> str:
    left = f", {_span((of.size - progress.size) / progress.rate)} left" if progress.rate >= 1 else ""
    return (
        f"{progress.files} of {of.files} files, {terminal.in_bytes(progress.size)} of {terminal.in_bytes(of.size)}, "
        f"{terminal.in_bytes(progress.rate)}/s{left}"
    )


def _span(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
