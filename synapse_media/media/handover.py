"""Files handed to rclone by their open descriptors: it goes by paths, and follows whatever link is put into one.

Whoever may write to the media store could otherwise have a program that runs as root read any file of the machine, by
putting a link in place of a directory after it was looked at.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from .root import Root

_NAME: Final = "synapse-media-copy-"
_OTHERS: Final = 200
"""Descriptors that this process needs beside them."""
_LEAST: Final = 100


def at_once(wanted: int) -> int:
    """How many files of `wanted` may be handed over at once: as many as this process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted + _OTHERS if hard == resource.RLIM_INFINITY else min(wanted + _OTHERS, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    return wanted if soft == resource.RLIM_INFINITY else max(_LEAST, min(wanted, soft - _OTHERS))


@contextlib.contextmanager
def handed_over(root: Root, paths: Iterable[str]) -> Iterator[tuple[Path, dict[str, OSError]]]:
    """A private directory with a link of each path to its open file, and {path: why} of what could not be opened.

    Args:
        paths: of files below `root`, whose directories are reached part by part. At most `at_once` of them.
    """
    refused: dict[str, OSError] = {}
    with directory() as place, contextlib.ExitStack() as opened:
        made = set[str]()
        for path in paths:
            try:
                descriptor = opened.enter_context(root.opened(path))
            except OSError as error:
                refused[path] = error
                continue
            above = path.rpartition("/")[0]
            if above not in made:
                (place / above).mkdir(parents=True, exist_ok=True)
                made.add(above)
            # By the number of this process, so that rclone finds it, too.
            (place / path).symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        yield place, refused


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory of this user's alone. What a run that was killed left of its own goes."""
    _tidy()
    while True:
        place = Path(tempfile.mkdtemp(prefix=_NAME))
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # The kernel releases it where this is killed: by that the next run tells.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if place.exists():
            break
        os.close(descriptor)  # another run tidied just then
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def _tidy() -> None:
    """Remove the directories of this user's runs that are dead."""
    for place in Path(tempfile.gettempdir()).glob(f"{_NAME}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(descriptor)
