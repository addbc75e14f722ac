"""Files of unknown content that a command was given: regular ones, read to a length."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def text(path: Path, most: int) -> str:
    """The text of a file. Raises OSError, whose `strerror` says it of what is no regular file or longer as well; and
    UnicodeDecodeError.

    Args:
        most: bytes that it may have.
    """
    # Without waiting: a FIFO has perhaps no other end. A terminal or a device has no end at all.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_other_kind(os.fstat(descriptor), path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes, and none of its kind is that long", str(path))
    return raw.decode("utf-8")


def refuse_other_kind(path: Path) -> None:
    """Raise OSError for what is no regular file, before a library opens it."""
    _refuse_other_kind(path.stat(), path)


def _refuse_other_kind(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
