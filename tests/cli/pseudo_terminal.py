"""The command on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path


def on_terminal(*arguments: str, cwd: Path, typed: str = "", **environment: str) -> tuple[int, str]:
    """Exit code, and what the terminal shows of the command and its children.

    Args:
        typed: what is typed, all of it at once, and Ctrl-D after it: a question more ends the command.
    """
    program = "import sys; from synapse_media.cli import main; sys.exit(main())"
    return run_on_terminal(program, *arguments, cwd=cwd, typed=typed, **environment)


def run_on_terminal(program: str, *arguments: str, cwd: Path, typed: str = "", **environment: str) -> tuple[int, str]:
    """The same of a program in Python, on a terminal of 50 lines of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    command = [sys.executable, "-c", program, *arguments]
    own = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    shown = b""
    with subprocess.Popen(command, cwd=cwd, env=own, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        os.write(ours, typed.encode() + b"\x04")
        try:
            while some := os.read(ours, 65536):
                shown += some
        except OSError:
            pass  # Linux answers so when the other end is closed
        finally:
            os.close(ours)
    return child.returncode, shown.decode().replace("\r\n", "\n")
