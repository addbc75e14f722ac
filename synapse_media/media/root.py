"""A directory, and what is below it, reached part by part: no symbolic link is followed, nothing outside is touched."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

OWN: Final = ".synapse-media-restore"
"""How the names begin of what a restore has in the media store, so that it is moved to its place in one step."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO in place of a file would make the opening wait.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Root:
    """An open directory; a context manager. Paths are relative to it, with "/" between their parts.

    Several threads may open, delete and prune at once.

    Attributes:
        device, inode: what it is, whatever is put at its path meanwhile.

    Args:
        directory: its real path, as `Tree` has it. Raises OSError where it can't be opened.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor = os.open(directory, _DIRECTORY)
        status = os.fstat(self._descriptor)
        self.device, self.inode = status.st_dev, status.st_ino
        self._kept: tuple[str, int] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        os.close(self._descriptor)

    def _forget(self) -> None:
        if self._kept is not None:
            os.close(self._kept[1])
            self._kept = None

    def _folder(self, path: str) -> int:
        """The open directory in which a path lies. Raises OSError; ValueError for a path that leads elsewhere."""
        parent, _, name = path.rpartition("/")
        if name in ("", ".", "..") or "\0" in path:
            raise ValueError(f"{path!r} is not the path of a file below {self.directory}")
        if self._kept is not None and self._kept[0] == parent:
            return self._kept[1]
        at = os.dup(self._descriptor)
        try:
            for part in parent.split("/") if parent else ():
                if part in ("", ".", ".."):
                    raise ValueError(f"{path!r} is not the path of a file below {self.directory}")
                below = os.open(part, _DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
        except BaseException:
            os.close(at)
            raise
        self._forget()
        self._kept = (parent, at)
        return at

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A regular file, open for reading; it may be on another disk that is mounted below.

        Raises OSError, also where the path leads over a symbolic link or to something else than a file; ValueError
        for a path that is none of a file below this directory.
        """
        with self._lock:
            folder, name = self._folder(path), path.rpartition("/")[2]
            try:
                # Reading it here says nothing of whether anybody asked for it.
                descriptor = os.open(name, _FILE | os.O_NOATIME, dir_fd=folder)
            except PermissionError:
                # Only the owner may have that.
                descriptor = os.open(name, _FILE, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            yield descriptor
        finally:
            os.close(descriptor)

    def unlink(self, path: str, device: int, inode: int, changed_ns: int) -> bool:
        """Delete a file if it still is the one of this device and inode, and unchanged; whether it was.

        Args:
            changed_ns: its st_ctime_ns, which nobody can put back, as the time of its last writing can be.

        Raises OSError.
        """
        with self._lock:
            # Found anew: somebody may have put another directory in its place.
            self._forget()
            folder, name = self._folder(path), path.rpartition("/")[2]
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            now = (status.st_dev, status.st_ino, status.st_ctime_ns)
            if now != (device, inode, changed_ns) or not stat.S_ISREG(status.st_mode):
                return False
            os.unlink(name, dir_fd=folder)
            return True

    def prune(self, path: str) -> None:
        """Remove the directories above a path that are empty; never the first part of it, nor this directory."""
        with self._lock:
            self._forget()
            parts = path.split("/")[:-1]
            while len(parts) > 1:
                # One that is not empty, or was removed by Synapse meanwhile.
                try:
                    folder = self._folder("/".join(parts))
                    os.rmdir(parts[-1], dir_fd=folder)
                except OSError:
                    return
                parts.pop()

    def remove_directory(self, path: str) -> None:
        """Remove a directory. Raises OSError, also where it is none, or not empty."""
        with self._lock:
            self._forget()
            os.rmdir(path.rpartition("/")[2], dir_fd=self._folder(path))

    @contextmanager
    def make_directories(self, path: str, *, mode: int, owner: tuple[int, int] | None) -> Iterator[int]:
        """The open directory in which a path lies, made where it is missing; on whatever file system it is.

        One that is made has its name only when it has its owner and mode: nobody could mend it after a kill.

        Args:
            mode, owner: of each directory that is made. Without an owner, (uid, gid), it is that of this process.

        Raises OSError, also where the path leads over a symbolic link or to something else than a directory;
        ValueError for a path that is none of a file below this directory.
        """
        *parents, name = path.split("/")
        if any(part in ("", ".", "..") for part in (*parents, name)) or "\0" in path:
            raise ValueError(f"{path!r} is not the path of a file below {self.directory}")
        at = os.dup(self._descriptor)
        try:
            for part in parents:
                below = _below(at, part, mode, owner)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)


def _below(at: int, part: str, mode: int, owner: tuple[int, int] | None) -> int:
    """A directory in an open one, open, and made where it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return os.open(part, _DIRECTORY, dir_fd=at)
    unfinished = f"{OWN}-{secrets.token_hex(8)}"
    os.mkdir(unfinished, 0o700, dir_fd=at)
    try:
        below = os.open(unfinished, _DIRECTORY, dir_fd=at)
        try:
            # Who may write above may have put another directory there meanwhile: an empty one is no loss.
            with os.scandir(below) as inside:
                mine = os.fstat(below).st_uid == os.geteuid() and next(inside, None) is None
            if mine:
                if owner is not None:
                    os.fchown(below, *owner)
                os.fchmod(below, mode)
                # In place of nothing, or of an empty directory.
                os.rename(unfinished, part, src_dir_fd=at, dst_dir_fd=at)
                return below
        except BaseException:
            os.close(below)
            raise
        os.close(below)
    except OSError as error:
        _discard(unfinished, at)
        # Somebody else made it meanwhile.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    return os.open(part, _DIRECTORY, dir_fd=at)


def _discard(name: str, at: int) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=at)
