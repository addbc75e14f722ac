"""CPU and peak memory of a command, by process: the engine, the Python program, the plugin."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.processes import beneath

PROCESSES: Final = ("engine", "program", "plugin")
_MARKS: Final = {
    "synapse_media.plugin": "plugin",
    "pulumi-language-python-exec": "program",
    "/pulumi --non-interactive": "engine",
    "terraform-provider-aws": "plugin",
    " -chdir=": "engine",
}
_PAUSE: Final = 0.05
"""Seconds between two looks: what a process does after the last one of its life is in none of its numbers."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a command: seconds of CPU, and the most memory that it held (resident, MiB)."""

    cpu: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took. `cpu` is that of all children together, in seconds."""

    wall: float
    cpu: float
    parts: Mapping[str, Part] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.wall:7.2f} s wall {self.cpu:7.2f} s CPU"


def measured(action: Callable[[], object]) -> Cost:
    """Wall clock, CPU of the children that ended, and what could be seen of each of them meanwhile."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    seen: dict[int, tuple[str, Part]] = {}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seen, over))
    watcher.start()
    try:
        action()
    finally:
        wall = time.monotonic() - start
        over.set()
        watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    parts = {
        name: Part(
            sum(part.cpu for kind, part in seen.values() if kind == name),
            max((part.memory for kind, part in seen.values() if kind == name), default=0),
        )
        for name in PROCESSES
    }
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, parts)


def _watch(seen: dict[int, tuple[str, Part]], over: threading.Event) -> None:
    while not over.wait(_PAUSE):
        for pid in beneath(os.getpid()):
            found = _looked_at(pid)
            if found is not None:
                seen[pid] = found


def _looked_at(pid: int) -> tuple[str, Part] | None:
    """None of a process that is none of ours, or gone."""
    place = Path("/proc") / str(pid)
    try:
        line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        kind = next((name for mark, name in _MARKS.items() if mark in line), "")
        if not kind:
            return None
        fields = (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        status = (place / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    peak = next((int(row.split()[1]) // 1024 for row in status.splitlines() if row.startswith("VmHWM")), 0)
    return kind, Part((int(fields[11]) + int(fields[12])) / _TICKS, peak)
