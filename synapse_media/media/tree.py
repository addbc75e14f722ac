"""Synapse's media store as a directory: recognised, and its files one after the other in the order of a bucket's keys.

The layout is that of https://github.com/element-hq/synapse/blob/develop/synapse/media/filepath.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.methods import MEDIA_FOLDERS

from .root import OWN

FOLDERS: Final = ("local_content", "local_thumbnails", "remote_content", "remote_thumbnail")
"""What the storage provider module keeps in a bucket, too."""
CACHES: Final = ("url_cache", "url_cache_thumbnails")
"""Synapse makes them anew, and never reads them from a bucket."""
STAGING: Final = OWN
"""A restore's own directory."""
PROBE: Final = re.compile(r"\.synapse-media-[0-9a-f]{16}")
"""Names of the files by which `free` tries whether a directory is the bucket."""
UNFINISHED: Final = re.compile(rf"{re.escape(OWN)}-[0-9a-f]{{16}}")
"""Names of the directories that a restore makes, and of files on a file system that has none without a name."""

_CONTENT: Final = tuple(folder.rstrip("/") for folder in MEDIA_FOLDERS)
_OF_THE_DISK: Final = ("lost+found", STAGING)


class MediaTreeError(SynapseMediaError):
    """A directory that is not Synapse's media store, or can't be read."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of the media store.

    Attributes:
        path: relative to the media store, with "/" between its parts.
        size: bytes.
        modified: when its content was last written, in seconds since the epoch.
        changed: the same of the inode, which nobody can set back: a file put in place of another is newer by this.
    """

    path: str
    size: int
    modified: float
    changed: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something in the media store that can't be copied, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of the media, of several that are equally large: those paths whose beginnings fall to it.

    Which part a path is in depends on nothing but the path, so that several servers agree without asking each other.

    Attributes:
        number: from 1 to `of`.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`3/16`. Raises UsageError."""
        match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise UsageError(
                f"--shard is {text!r}; allowed: N/M, part N of M, with N from 1 to M and M up to 9999. For three "
                "servers, run one with 1/3, one with 2/3 and one with 3/3."
            )
        return shard

    def has(self, path: str) -> bool:
        return zlib.crc32(os.fsencode(group(path))) % self.of == self.number - 1


def group(path: str) -> str:
    """The beginning of a path by which media is divided: `local_content/aB`, `remote_content/example.com/aB`."""
    parts = path.split("/")
    return "/".join(parts[: _depth(parts[0])])


def _depth(folder: str) -> int:
    return 3 if folder.startswith("remote_") else 2


def sort_key(path: str) -> bytes:
    """The order of S3's listings: that of the bytes of the whole key."""
    return os.fsencode(path)


class Tree:
    """A directory that is Synapse's media store.

    Attributes:
        path: its real, absolute path.
        left_out: what `files` met and could not hand out; complete when that has come to its end.
        unfinished: the same of what a restore that was killed left, which is no media.
        unknown: what lies beside Synapse's folders, and is none of its media.
    """

    def __init__(self, directory: str | os.PathLike[str], *, may_be_empty: bool = False) -> None:
        """
        Args:
            may_be_empty: a directory without anything in it is one, too: what was lost is restored to it.

        Raises:
            MediaTreeError: it is not a media store, is a whole file system, or can't be read.
        """
        self.left_out: list[LeftOut] = []
        self.unfinished: list[str] = []
        self.path = _recognised(Path(directory), may_be_empty=may_be_empty)
        self.unknown = tuple(
            sorted(
                _shown(entry.name)
                for entry in os.scandir(self.path)
                if entry.name not in (*FOLDERS, *CACHES, *_OF_THE_DISK) and not UNFINISHED.fullmatch(entry.name)
            )
        )

    def files(self, *, shard: Shard | None = None) -> Iterator[MediaFile]:
        """Every file of local and remote media and of thumbnails, in the order of `sort_key`, in little memory.

        No symbolic link is followed: each is in `left_out`, as is what can't be read or has a name that a store would
        keep under another one. What Synapse deletes meanwhile is passed over, as are the files of these commands' own.
        """
        self.left_out.clear()
        self.unfinished.clear()
        self.unfinished += sorted(each.name for each in self.path.iterdir() if UNFINISHED.fullmatch(each.name))
        for folder in sorted(FOLDERS):
            # The root of a folder may be a link, as nothing else may: it is told by name.
            at = self.path / folder
            if at.is_symlink():
                self._leave_out(folder, _link(at, self.path, " Mount its target there instead (mount --bind)."))
            elif at.exists():
                yield from self._walk(folder, shard)

    def _walk(self, folder: str, shard: Shard | None) -> Iterator[MediaFile]:
        """Depth first, without recursion: directories nest as deep as somebody likes."""
        stack: list[Iterator[tuple[str, os.DirEntry[str]]]] = [self._entries(folder)]
        depth = _depth(folder)
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                continue
            path, entry = found
            if UNFINISHED.fullmatch(entry.name):
                self.unfinished.append(path)
                continue
            if PROBE.fullmatch(entry.name):
                continue
            if shard is not None and path.count("/") + 1 == depth and not shard.has(path):
                continue
            if entry.is_symlink():
                self._leave_out(path, _link(Path(entry.path), self.path))
            elif entry.is_dir(follow_symlinks=False):
                stack.append(self._entries(path))
            elif (shard is None or shard.has(path)) and (file := self._file(path, entry)) is not None:
                yield file

    def _entries(self, path: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """(path, entry) of a directory, each directory where the "/" behind its name sorts it."""
        try:
            with os.scandir(self.path / path) as found:
                entries = list(found)
        except FileNotFoundError:
            return
        except OSError as error:
            self._leave_out(path, f"can't be read ({error.strerror})")
            return
        entries.sort(key=lambda entry: os.fsencode(entry.name) + (b"/" if _is_directory(entry) else b""))
        for entry in entries:
            yield f"{path}/{entry.name}", entry

    def _file(self, path: str, entry: os.DirEntry[str]) -> MediaFile | None:
        if why := name_fault(path):
            self._leave_out(path, why)
            return None
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            self._leave_out(path, "is not a regular file")
            return None
        return MediaFile(path, status.st_size, status.st_mtime, status.st_ctime)

    def _leave_out(self, path: str, why: str) -> None:
        self.left_out.append(LeftOut(_shown(path), why))


def md5_of(content: BufferedReader) -> str:
    """The MD5 of an open file, in hexadecimal."""
    return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def name_fault(path: str) -> str:
    """Why a file of this name can't be copied under the same name; "" where it can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8, which no store can keep"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "has a control character in its name"
    return ""


def printable(text: str) -> str:
    """A name for people: what would move the cursor, ring, or begin a new line is escaped, as is what is no UTF-8."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in _shown(text))


def _recognised(directory: Path, *, may_be_empty: bool) -> Path:
    said = printable(str(directory))
    wanted = (
        "Name the directory that media_store_path in homeserver.yaml names: in it are local_content and, mostly, "
        "remote_content."
    )
    try:
        path = directory.resolve(strict=True)
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        raise MediaTreeError(f"{said}: there is no such directory. {wanted}") from None
    except NotADirectoryError:
        raise MediaTreeError(f"{said} is not a directory. {wanted}") from None
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "its links lead in a circle"
        raise MediaTreeError(f"{said} can't be read: {why}. Run this as root, or as the user of Synapse.") from None
    if path == Path(path.anchor):
        raise MediaTreeError(f"{said} is the root of the file system, not a media store. {wanted}")
    ours = {*_OF_THE_DISK, *filter(UNFINISHED.fullmatch, names)}
    if names & set(_CONTENT) or (may_be_empty and names <= {*FOLDERS, *CACHES, *ours}):
        return path
    inside = next((parent for parent in path.parents if path.relative_to(parent).parts[0] in FOLDERS), None)
    if inside is not None:
        raise MediaTreeError(f"{said} is a part of the media store {printable(str(inside))}: name that.")
    below = next((name for name in sorted(names) if any((path / name / one).is_dir() for one in _CONTENT)), None)
    if below is not None:
        raise MediaTreeError(f"{said} is not Synapse's media store, but {printable(str(path / below))} is: name that.")
    raise MediaTreeError(f"{said} is not Synapse's media store: it has neither {' nor '.join(_CONTENT)}. {wanted}")


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _link(path: Path, root: Path, advice: str = "") -> str:
    """What is said of a symbolic link."""
    try:
        out = not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        out = True
    return f"is a symbolic link{' out of the media store' if out else ''}, which is not followed.{advice}"


def _shown(text: str) -> str:
    """A name for people, whatever bytes it has."""
    return os.fsencode(text).decode(errors="backslashreplace")
