"""Whether a directory is a bucket that is mounted: then what is done to one is done to the other."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from synapse_media.errors import SynapseMediaError

_MOUNTS: Final = Path("/proc/self/mountinfo")
_PLACE: Final = 4
"""The field of the mount point."""
_OF_BUCKETS: Final = ("goofys", "geesefs", "rclone", "s3fs", "mountpoint-s3", "juicefs", "s3backer", "s3ql")


class RefusedError(SynapseMediaError):
    """Nothing was done, since media could have been lost."""


class _Mount(NamedTuple):
    place: Path
    kind: str
    source: str


def _table(mounts: Path) -> list[_Mount]:
    """What is mounted; nothing where there is no Linux's /proc."""
    try:
        table = mounts.read_bytes()
    except OSError:
        return []
    found = []
    # The kernel escapes what ends a field of its own, and no other blank or end of a line that Unicode knows.
    for line in table.split(b"\n"):
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if len(fields) < _PLACE + 1:
            continue  # the last line is empty
        kind, source, *_ = [*after.split(b" "), b"", b""]
        found.append(_Mount(Path(_unescaped(fields[_PLACE])), os.fsdecode(kind), _unescaped(source)))
    return found


def below(directory: Path, mounts: Path = _MOUNTS) -> list[Path]:
    """The mount points below a directory, each once. Args: as `refuse_mount`."""
    found = (mount.place for mount in _table(mounts) if directory in mount.place.parents)
    return list(dict.fromkeys(found))


def refuse_mount(directory: Path, mounts: Path = _MOUNTS) -> None:
    """Raise RefusedError where a directory, or one below it, is a bucket that is mounted.

    Args:
        mounts: proc(5), /proc/PID/mountinfo. Where there is none, the bucket itself is asked before the first deletion.
    """
    over: _Mount | None = None
    for mount in _table(mounts):
        if directory.is_relative_to(mount.place) and (over is None or len(mount.place.parts) >= len(over.place.parts)):
            over = mount
        if mount.place.is_relative_to(directory):
            _refuse_kind(directory, *mount)
    if over is not None:
        _refuse_kind(directory, *over)


def _refuse_kind(directory: Path, place: Path, kind: str, source: str) -> None:
    program = kind.removeprefix("fuse.")
    if kind.startswith("fuse") and (program in _OF_BUCKETS or any(name in source.lower() for name in _OF_BUCKETS)):
        raise RefusedError(
            f"{directory}: {place} is a bucket, mounted by {program}, so that both are one: nothing was done. Name "
            "the media store on the server's own disk."
        )


def _unescaped(text: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text))
