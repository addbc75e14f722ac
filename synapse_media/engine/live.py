"""Pulumi's live display: pulumi runs on a pseudo-terminal of its own, and what it shows there is copied to ours.

On ours it could not run: it stays out of our process group, so that Ctrl-C reaches it once, and a terminal stops a
process of another group that changes its mode, as the live display does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

_SECONDS = 0.2
"""Between two looks at the size of our terminal, and at whether pulumi has ended."""


def possible() -> bool:
    """Whether standard output is a terminal that shows more than plain text."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextlib.contextmanager
def pair() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the end that is read here, and the one for the child. The latter is closed by `show`."""
    ours, theirs = pty.openpty()
    try:
        settings = termios.tcgetattr(theirs)
        settings[1] &= ~termios.OPOST  # our terminal ends the lines
        termios.tcsetattr(theirs, termios.TCSANOW, settings)
        _resize(ours, (0, 0))
        yield ours, theirs
    finally:
        os.close(ours)


def show(child: subprocess.Popen[str], ours: int, theirs: int) -> None:
    """Copy what the child shows to standard output until it has ended, whatever becomes of our terminal."""
    os.close(theirs)
    size, shown = (0, 0), sys.stdout.fileno()
    sys.stdout.flush()
    ended = False
    while not ended:
        ended = child.poll() is not None
        size = _resize(ours, size)
        # After its end, what is left: a plugin that goes on must not keep this going.
        while select.select([ours], [], [], 0 if ended else _SECONDS)[0]:
            try:
                some = os.read(ours, 65536)
            except OSError:  # Linux answers so when the other end is closed
                child.wait()
                return
            with contextlib.suppress(OSError):
                os.write(shown, some)
            if not ended:
                break


def _resize(ours: int, last: tuple[int, int]) -> tuple[int, int]:
    """Give the pseudo-terminal the size of our terminal, if that changed."""
    try:
        size = tuple(os.get_terminal_size(sys.stdout.fileno()))
    except OSError:
        return last
    if size != last:
        columns, lines = size
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return size[0], size[1]
