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
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from synapse_media.errors import SynapseMediaError

from .plan import temporary
from .root import Root

_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made in it has a random name, and is this user's alone
_NAME: Final = "synapse-media-copy-"
_OTHERS: Final = 200
"""Descriptors that this process needs beside them."""
_LEAST: Final = 100
_NODES: Final = 5
"""What a link takes of a file system at most, with the directories above it that no other link has."""
_NODE: Final = 1 << 10
"""Bytes of memory that each of these takes."""


def at_once(wanted: int) -> int:
    """How many files of `wanted` may be handed over at once: as many as this process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted + _OTHERS if hard == resource.RLIM_INFINITY else min(wanted + _OTHERS, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    return wanted if soft == resource.RLIM_INFINITY else max(_LEAST, min(wanted, soft - _OTHERS))


@dataclass(slots=True)
class HandedOver:
    """Files that are open.

    Attributes:
        directory: has a link of each path to its open file.
        refused: {path: why} of those that could not be opened.
        opened: {path: (device, inode)} of the others.
    """

    directory: Path
    refused: dict[str, OSError] = field(default_factory=dict)
    opened: dict[str, tuple[int, int]] = field(default_factory=dict)

    def gone(self, root: Root, paths: Iterable[str]) -> tuple[set[str], dict[str, int]]:
        """Of these paths those that are deleted by now, and {path: size} of those under which another file lies."""
        deleted, replaced = set[str](), dict[str, int]()
        for path in paths:
            try:
                with root.opened(path) as descriptor:
                    status = os.fstat(descriptor)
            except FileNotFoundError:
                deleted.add(path)
            except OSError:
                continue  # a link was put above it: that says nothing of the file that was open
            else:
                if (status.st_dev, status.st_ino) != self.opened[path]:
                    replaced[path] = status.st_size
        return deleted, replaced


@contextlib.contextmanager
def handed_over(root: Root, paths: Collection[str]) -> Iterator[HandedOver]:
    """Open files, in a private directory.

    Args:
        paths: of files below `root`, whose directories are reached part by part. At most `at_once` of them.

    Raises SynapseMediaError where another process would not find what is open here, or there is no room for the links.
    """
    with directory(len(paths)) as place, contextlib.ExitStack() as opened:
        handed, made = HandedOver(place), dict[str, None]()
        try:
            for path in paths:
                try:
                    descriptor = opened.enter_context(root.opened(path))
                except OSError as error:
                    handed.refused[path] = error
                    continue
                with temporary(place.parent, needed=_needed(len(paths))):
                    _make_directories(place, path, made)
                    try:
                        # By the number of this process, so that rclone finds it, too.
                        (place / path).symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
                    except OSError as error:
                        # The error itself names what the link leads to.
                        raise OSError(error.errno, error.strerror, str(place / path)) from None
                status = os.fstat(descriptor)
                if not handed.opened:
                    _require_proc(place / path, status)
                handed.opened[path] = status.st_dev, status.st_ino
            yield handed
        finally:
            _remove(place, handed.opened, made)


def _make_directories(place: Path, path: str, made: dict[str, None]) -> None:
    """Make those above a path that are not `made` yet, and add them: few calls, for there are as many as files."""
    above = path.rpartition("/")[0]
    if not above or above in made:
        return
    at = ""
    for part in above.split("/"):
        at = f"{at}/{part}" if at else part
        if at not in made:
            (place / at).mkdir(0o700)
            made[at] = None


def _remove(place: Path, links: Iterable[str], made: dict[str, None]) -> None:
    """Remove what is known by name, the inner ones first: to look for it takes five times as many calls."""
    with contextlib.suppress(OSError):
        for path in links:
            (place / path).unlink()
        for path in reversed(made):
            (place / path).rmdir()


def _require_proc(link: Path, status: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        if os.path.samestat(link.stat(), status):
            return
    raise SynapseMediaError(
        "/proc does not show the open files of this process, as in a chroot or a container without a /proc of its own, "
        "so rclone can't be given them. Mount it (`mount -t proc proc /proc`), or run this outside."
    )


@contextlib.contextmanager
def directory(links: int | None = None) -> Iterator[Path]:
    """A directory of this user's alone. What a run that was killed left of its own goes.

    Args:
        links: how many links are made in it at most; None: it is for contents, which would fill the memory.
    """
    places = _places(links)
    for each in places:
        _tidy(each)
    while True:
        with temporary(places[0], needed=_needed(links) if links else "what is read back is written there"):
            place = Path(tempfile.mkdtemp(prefix=_NAME, dir=places[0]))
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another run tidied just then
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


def _places(links: int | None) -> tuple[Path, ...]:
    """Where such directories may lie, the place for a new one first.

    For links that is in memory, if it can be: on a disk that others write to, each of thousands of them waits for its
    journal.
    """
    on_disk = Path(tempfile.gettempdir())
    try:
        mode = _IN_MEMORY.stat().st_mode
        room = links is not None and _has_room(os.statvfs(_IN_MEMORY), links)
    except OSError:
        return (on_disk,)
    # Elsewhere than in a sticky directory anybody could put another one in place of ours.
    if not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX and os.access(_IN_MEMORY, os.W_OK | os.X_OK)):
        return (on_disk,)
    return (_IN_MEMORY, on_disk) if room else (on_disk, _IN_MEMORY)


def _needed(links: int) -> str:
    nodes = links * _NODES
    return (
        f"up to {nodes} inodes and {-(-nodes * _NODE >> 20)} MiB are taken there for the links by which rclone is "
        f"given {links} files"
    )


def _has_room(found: os.statvfs_result, links: int) -> bool:
    """Whether a file system has room for so many links. One without a limit has 0 for all that it could have."""
    nodes = links * _NODES
    return (not found.f_files or found.f_favail >= nodes) and (
        not found.f_blocks or found.f_bavail * found.f_frsize >= nodes * _NODE
    )


def _tidy(directory: Path) -> None:
    """Remove the directories of this user's runs that are dead."""
    for place in directory.glob(f"{_NAME}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(descriptor)
