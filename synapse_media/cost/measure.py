"""A media directory, counted: files and bytes by folder and by size, growth from file times.

Streams: memory does not grow with the number of files. Folder names are Synapse's:
https://github.com/element-hq/synapse/blob/develop/docs/media_repository.md
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from synapse_media.errors import UsageError

from .model import SizeGroup, Usage

STORED = ("local_content", "local_thumbnails", "remote_content", "remote_thumbnail")
"""Folders whose files Synapse gives to a storage provider."""
LOCAL_ONLY = ("url_cache", "url_cache_thumbnails")
"""Folders that never leave the disk: previews of web pages."""

GROWTH_DAYS = 90
"""Growth is taken from the files of so many days."""

_LEAST_DAYS = 30
"""Younger files tell nothing of a month: a copy of several days looks like them."""

DAY = 86_400
MONTH_DAYS = Decimal(365) / 12
_DEEPEST = 64
_SHOWN = 5


@dataclass(slots=True)
class Folder:
    """What lies in one folder of the media directory."""

    files: int = 0
    bytes: int = 0


@dataclass
class Measured:
    """What was found. `sizes` has the files of STORED by size, split at every minimum object size asked for.

    Attributes:
        growth: bytes a month of STORED by the newest GROWTH_DAYS; None: file times don't tell.
        growth_note: how growth was found, or why not.
        unreadable: what could not be read, and links that were not followed: a few of them, with the reason.
        skipped: how many there are.
    """

    path: Path
    folders: dict[str, Folder] = field(default_factory=dict)
    sizes: tuple[SizeGroup, ...] = ()
    growth: Decimal | None = None
    growth_note: str = ""
    unreadable: list[str] = field(default_factory=list)
    skipped: int = 0

    @property
    def files(self) -> int:
        return sum(folder.files for name, folder in self.folders.items() if self.goes(name))

    @property
    def bytes(self) -> int:
        return sum(folder.bytes for name, folder in self.folders.items() if self.goes(name))

    def goes(self, folder: str) -> bool:
        """Whether Synapse gives the files of a folder to the store."""
        return folder in STORED

    def usage(self, growth: Decimal | None, egress: Decimal) -> Usage:
        """The usage for the cost model. `growth` None: as measured, else nothing."""
        found = self.growth if growth is None else growth
        # An empty file is billed where a minimum object is; the model wants a byte a file at least.
        files = min(self.files, self.bytes)
        return Usage(
            stored=Decimal(self.bytes),
            growth=found or Decimal(0),
            egress=egress,
            files=Decimal(files),
            sizes=self.sizes,
        )


def measure(
    path: Path, boundaries: Iterable[int], now: float, progress: Callable[[int], None] | None = None
) -> Measured:
    """Count a media directory.

    Args:
        boundaries: minimum object sizes in bytes; files are grouped between them.
        now: seconds since 1970, for the growth.
        progress: called now and then with the number of files so far.

    Raises:
        UsageError: it is missing, can't be read, or is not a media directory of Synapse.
    """
    return _Count(path, boundaries, now, progress).run()


class _Count:
    def __init__(
        self, path: Path, boundaries: Iterable[int], now: float, progress: Callable[[int], None] | None
    ) -> None:
        self.found = Measured(path)
        self.edges = sorted({*boundaries} - {0})
        self.groups = [Folder() for _ in range(len(self.edges) + 1)]
        self.days: dict[int, int] = {}
        self.now = now
        self.progress = progress
        self.seen = 0

    def run(self) -> Measured:
        names = self.top()
        for name in names:
            folder = self.found.folders.setdefault(name, Folder())
            for entry in self.walk(self.found.path / name):
                self.add(name, folder, entry)
        self.found.sizes = tuple(SizeGroup(group.files, group.bytes) for group in self.groups if group.files)
        self.grow()
        return self.found

    def top(self) -> list[str]:
        """The folders to count: all of a media directory, its own name first checked."""
        path = self.found.path
        try:
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries if self.is_folder(entry)]
        except NotADirectoryError as error:
            raise UsageError(f"--media {str(path)!r}: is not a directory. Name the one of media_store_path.") from error
        except OSError as error:
            raise UsageError(f"--media {str(path)!r}: can't be read ({error.strerror}).") from error
        if not set(names) & {*STORED, *LOCAL_ONLY}:
            # Not Path.is_dir, which raises where it may not look.
            inside = [name for name in names if os.path.isdir(path / name / "local_content")]  # noqa: PTH112
            raise UsageError(
                f"--media {str(path)!r}: is not a media directory of Synapse, which has folders such as "
                f"{STORED[0]} and {STORED[2]}. "
                + (f"Did you mean {str(path / inside[0])!r}?" if inside else "Name the one of media_store_path.")
            )
        # Synapse's own folders first: a link of another name to one of them is the one left out.
        names.sort(key=lambda name: (name not in (*STORED, *LOCAL_ONLY), name))
        kept = []
        places = {path.resolve(), *path.resolve().parents}
        for name in names:
            # A folder on another disk is often a link: followed, unless it leads back or to the same place twice.
            place = (path / name).resolve()
            if place in places:
                self.skip(path / name, "a link that leads back, or to what is counted already")
            else:
                places.add(place)
                kept.append(name)
        return kept

    def is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:
            self.skip(entry.path, error.strerror or "can't be read")
            return False

    def walk(self, top: Path) -> Iterator[os.DirEntry[str]]:
        """Every entry below that is not a directory. Holds one open directory a level, no list of names."""
        levels: list[Iterator[os.DirEntry[str]]] = []
        self.enter(levels, str(top))
        try:
            while levels:
                try:
                    entry = next(levels[-1], None)
                except OSError as error:
                    # What else is in this directory can't be listed: /proc and broken disks are like that.
                    self.skip(error.filename or top, error.strerror or "can't be read")
                    entry = None
                if entry is None:
                    _close(levels.pop())
                elif not _is_folder(entry):
                    yield entry
                elif len(levels) < _DEEPEST:
                    self.enter(levels, entry.path)
                else:
                    self.skip(entry.path, "too deep for a media directory")
        finally:
            for level in levels:
                _close(level)

    def enter(self, levels: list[Iterator[os.DirEntry[str]]], path: str) -> None:
        try:
            levels.append(os.scandir(path))
        except OSError as error:
            self.skip(path, error.strerror or "can't be read")

    def add(self, name: str, folder: Folder, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            self.skip(entry.path, error.strerror or "can't be read")
            return
        if not stat.S_ISREG(status.st_mode):
            self.skip(entry.path, "a link" if stat.S_ISLNK(status.st_mode) else "not a file")
            return
        self.seen += 1
        if self.progress and self.seen % 1000 == 0:
            self.progress(self.seen)
        folder.files += 1
        folder.bytes += status.st_size
        if self.found.goes(name):
            group = self.groups[bisect_left(self.edges, status.st_size)]
            group.files += 1
            group.bytes += status.st_size
            day = max(0, int((self.now - status.st_mtime) // DAY))
            self.days[day] = self.days.get(day, 0) + status.st_size

    def skip(self, path: str | Path, why: str) -> None:
        self.found.skipped += 1
        if len(self.found.unreadable) < _SHOWN:
            self.found.unreadable.append(f"{path}: {why}")

    def grow(self) -> None:
        total = sum(self.days.values())
        if not total:
            self.found.growth_note = "nothing is stored yet"
            return
        window = min(GROWTH_DAYS, max(self.days) + 1)
        if window < _LEAST_DAYS:
            self.found.growth_note = f"no file is older than {window} days: growth is read from {_LEAST_DAYS} or more"
            return
        recent = {day: size for day, size in self.days.items() if day < window}
        week = max(sum(recent.get(day, 0) for day in range(first, first + 7)) for first in range(window))
        if week > total / 2:
            self.found.growth_note = "more than half of the bytes are of one week: the times look like those of a copy"
            return
        self.found.growth = sum(recent.values()) * MONTH_DAYS / window
        self.found.growth_note = f"from the files of the last {window} days"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory itself. What can't be looked at is none: who counts it says why."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _close(level: Iterator[os.DirEntry[str]]) -> None:
    close = getattr(level, "close", None)
    if close:
        close()
