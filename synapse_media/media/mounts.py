"""Whether a directory is a bucket that is mounted: then what is done to one is done to the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from synapse_media.errors import SynapseMediaError

_MOUNTS: Final = Path("/proc/self/mountinfo")


_OF_BUCKETS: Final = ("goofys", "geesefs", "rclone", "s3fs", "mountpoint-s3", "juicefs", "s3backer", "s3ql")


class RefusedError(SynapseMediaError):
    """Nothing was done, since media could have been lost."""


def refuse_mount(directory: Path, mounts: Path = _MOUNTS) -> None:
    """Raise RefusedError where a directory, or one below it, is a bucket that is mounted.

    Args:
        mounts: proc(5), /proc/PID/mountinfo.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        # Not Linux's /proc: the bucket itself is asked before the first deletion.
        return
    over: tuple[int, Path, str, str] | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, source, *_ = [*after.split(), "", ""]
        place = Path(_unescaped(before.split()[4]))
        if directory.is_relative_to(place) and (over is None or len(place.parts) >= over[0]):
            over = (len(place.parts), place, kind, source)
        if place.is_relative_to(directory):
            _refuse_kind(directory, place, kind, source)
    if over is not None:
        _refuse_kind(directory, *over[1:])


def _refuse_kind(directory: Path, place: Path, kind: str, source: str) -> None:
    program = kind.removeprefix("fuse.")
    if kind.startswith("fuse") and (program in _OF_BUCKETS or any(name in source.lower() for name in _OF_BUCKETS)):
        raise RefusedError(
            f"{directory}: {place} is a bucket, mounted by {program}, so that both are one: nothing was done. Name "
            "the media store on the server's own disk."
        )


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
