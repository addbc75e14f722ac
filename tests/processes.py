"""The processes beneath one: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""

from __future__ import annotations

from pathlib import Path


def beneath(pid: int) -> set[int]:
    """The ids of all of them, however deep."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: set[int] = set()
    edge = {pid}
    while edge := {child for child, parent in parents.items() if parent in edge}:
        found |= edge
    return found
