"""A question on a terminal, and what ends it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

ASKS = """
from synapse_media.cli import stacks
from synapse_media.signals import ended_in_order
with ended_in_order():
    stacks.confirm("Go on?")
print("went on")
"""


def _asked() -> tuple[subprocess.Popen[bytes], int]:
    """A process that has asked, and the terminal to answer on."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", ASKS],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs)
    assert child.stdout is not None
    said = b""
    while b"[y/N] " not in said:
        said += os.read(child.stdout.fileno(), 1000)
    return child, ours


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP] * 5)
def test_a_signal_at_the_moment_of_the_question_ends_it(number: signal.Signals) -> None:
    """Python sees one that comes just before a read with the next signal only."""
    child, terminal = _asked()
    with child:
        child.send_signal(number)
        child.wait(120)
    os.close(terminal)
    assert child.returncode == 128 + number


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_an_answer_is_taken(answer: bytes, code: int) -> None:
    child, terminal = _asked()
    with child:
        # Another signal does not end the question.
        child.send_signal(signal.SIGWINCH)
        os.write(terminal, answer)
        assert child.stdout is not None
        assert (b"went on" in child.stdout.read()) == (code == 0)
    os.close(terminal)
    assert child.returncode == code
