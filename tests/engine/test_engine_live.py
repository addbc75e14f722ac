"""Pulumi's live display, with a shell in place of pulumi: what it sees, and what is seen of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from synapse_media.engine import live
from tests.cli.pseudo_terminal import run_on_terminal

PROGRAM = """
import signal, subprocess, sys
from synapse_media.engine import live
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background
assert live.possible()
with live.pair() as (ours, theirs):
    child = subprocess.Popen(
        ["/bin/sh", "-c", sys.argv[1]], stdin=theirs, stdout=theirs, stderr=theirs, text=True, process_group=0
    )
    live.show(child, ours, theirs)
print("ended with", child.returncode)
"""


def test_it_is_on_a_terminal_of_our_size_and_all_that_it_writes_is_shown(tmp_path: Path) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && stty size; seq 20000; exit 3"
    code, shown = run_on_terminal(PROGRAM, script, cwd=tmp_path)
    assert code == 0
    lines = shown.splitlines()
    assert lines[0] == "50 100"
    assert lines[1:-1] == [str(number) for number in range(1, 20001)]
    assert lines[-1] == "ended with 3"


def test_it_may_change_the_mode_of_its_terminal(tmp_path: Path) -> None:
    # On ours it would be stopped, since it is not in our process group.
    code, shown = run_on_terminal(PROGRAM, "stty raw -echo && echo changed", cwd=tmp_path)
    assert (code, shown.split()) == (0, ["changed", "ended", "with", "0"])


def test_ctrl_c_is_passed_on_once_and_its_end_is_waited_for(tmp_path: Path) -> None:
    relay = "from synapse_media.engine.session import _Relay\nwith _Relay() as relay, live.pair()"
    program = PROGRAM.replace("with live.pair()", relay)
    program = program.replace("    live.show(", "    relay.to(child.pid)\n    live.show(")
    script = "trap 'echo stopping; sleep 0.5; echo stopped; exit 5' INT; kill -INT $PPID; while :; do sleep 0.1; done"
    code, shown = run_on_terminal(program, script, cwd=tmp_path)
    assert (code, shown.splitlines()) == (0, ["stopping", "stopped", "ended with 5"])


def test_what_it_left_behind_is_not_waited_for(tmp_path: Path) -> None:
    code, shown = run_on_terminal(PROGRAM, "sleep 600 & echo $! >pid; echo done", cwd=tmp_path)
    assert (code, shown.split()) == (0, ["done", "ended", "with", "0"])
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_elsewhere_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not live.possible()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert not live.possible()
    monkeypatch.setenv("TERM", "xterm")
    assert live.possible()
