"""Telling one process from another that got its number later."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

_PROC = Path("/proc")


def identity(pid: int) -> str | None:
    """Text that no later process of that number has; None where no such process runs.

    A process that ended, but was not waited for by its parent, does not run.
    """
    if (_PROC / "self/stat").exists():
        ticks = _ticks(pid)
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return None if ticks is None else f"{boot}:{ticks}"
    return _started_by_ps(pid)


def started_at(pid: int) -> float | None:
    """Seconds since the epoch, right to a few seconds; None where no such process runs."""
    if (_PROC / "self/stat").exists():
        ticks = _ticks(pid)
        lines = (_PROC / "stat").read_text(encoding="utf-8").splitlines()
        boot = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
        return None if ticks is None else boot + ticks / os.sysconf("SC_CLK_TCK")
    text = _started_by_ps(pid)
    return None if text is None else datetime.strptime(text, "%a %b %d %H:%M:%S %Y").astimezone().timestamp()


def _ticks(pid: int) -> int | None:
    """Field 22 of proc(5)'s stat: the start, in clock ticks since boot."""
    try:
        # The second field is the name in parentheses, which may itself hold anything.
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _started_by_ps(pid: int) -> str | None:
    """Where there is no /proc, as on macOS."""
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
    )
    return answer.stdout.strip() or None


def end(pid: int, expected: str, *, patience: float = 5) -> None:
    """End a process, if it still is the one of that identity, and wait until it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + patience
        if identity(pid) == expected:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while identity(pid) == expected and time.monotonic() < deadline:
            time.sleep(0.02)
