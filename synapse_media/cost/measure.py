"""Measure a media directory: files and bytes by folder and by size, and growth from modification times.

Memory use does not depend on the number of files. The folder names are Synapse's:
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

STORED_FOLDERS = ("local_content", "local_thumbnails", "remote_content", "remote_thumbnail")
"""Folders whose files Synapse hands to a storage provider."""
LOCAL_FOLDERS = ("url_cache", "url_cache_thumbnails")
"""Folders that stay on the local disk: previews of web pages."""

GROWTH_DAYS = 90
"""The period growth is computed over."""

_MINIMUM_DAYS = 30
"""The shortest history growth is computed from: a directory copied recently looks like one of a few days."""

DAY = 86_400
MONTH_DAYS = Decimal(365) / 12
_MAX_DEPTH = 64
_MAX_SKIPPED_SHOWN = 5


@dataclass(slots=True)
class Folder:
    """Totals of one folder."""

    files: int = 0
    bytes: int = 0


@dataclass
class Measured:
    """The result of `measure`. `sizes` groups the files of STORED_FOLDERS, split at each of its `boundaries`.

    Attributes:
        growth: bytes a month in STORED_FOLDERS over the last GROWTH_DAYS; None: unknown.
        growth_note: how growth was computed, or why it is unknown.
        unreadable: the first few entries that were skipped (unreadable, or links), each with the reason.
        skipped: the number of skipped entries.
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
        return sum(folder.files for name, folder in self.folders.items() if self.is_stored(name))

    @property
    def bytes(self) -> int:
        return sum(folder.bytes for name, folder in self.folders.items() if self.is_stored(name))

    def is_stored(self, folder: str) -> bool:
        """Whether Synapse stores the files of this folder in the bucket."""
        return folder in STORED_FOLDERS

    def usage(self, growth: Decimal | None, egress: Decimal) -> Usage:
        """The usage for the cost model. `growth` None: as measured, or 0 where that is unknown."""
        found = self.growth if growth is None else growth
        # Usage requires at least one byte per file. `sizes` still counts empty files for minimum object sizes.
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
    """Measure a media directory.

    Args:
        boundaries: minimum object sizes in bytes, between which files are grouped.
        now: the current time, as from time.time().
        progress: called from time to time with the number of files counted so far.

    Raises:
        UsageError: it is missing, can't be read, or is not a media directory of Synapse.
    """
    return _DirectoryCount(path, boundaries, now, progress).run()


class _DirectoryCount:
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
        names = self.list_folders()
        for name in names:
            folder = self.found.folders.setdefault(name, Folder())
            for entry in self.walk(self.found.path / name):
                self.add(name, folder, entry)
        self.found.sizes = tuple(SizeGroup(group.files, group.bytes) for group in self.groups if group.files)
        self.estimate_growth()
        return self.found

    def list_folders(self) -> list[str]:
        """The folders to count. Raises UsageError where this is not a media directory."""
        path = self.found.path
        try:
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries if self.is_folder(entry)]
        except NotADirectoryError as error:
            raise UsageError(
                f"--media {str(path)!r}: is not a directory. Give the one that media_store_path names."
            ) from error
        except OSError as error:
            raise UsageError(f"--media {str(path)!r}: can't be read ({error.strerror}).") from error
        if not set(names) & {*STORED_FOLDERS, *LOCAL_FOLDERS}:
            # Path.is_dir raises PermissionError; os.path.isdir returns False.
            inside = [name for name in names if os.path.isdir(path / name / "local_content")]  # noqa: PTH112
            raise UsageError(
                f"--media {str(path)!r}: is not a media directory of Synapse, which has folders such as "
                f"{STORED_FOLDERS[0]} and {STORED_FOLDERS[2]}. "
                + (
                    f"Did you mean {str(path / inside[0])!r}?"
                    if inside
                    else "Give the one that media_store_path names."
                )
            )
        # Synapse's own folders first, so that of two names for the same folder the other one is skipped.
        names.sort(key=lambda name: (name not in (*STORED_FOLDERS, *LOCAL_FOLDERS), name))
        kept = []
        places = {path.resolve(), *path.resolve().parents}
        for name in names:
            # A folder on another disk is often a symbolic link. It is followed unless that would count files twice.
            place = (path / name).resolve()
            if place in places:
                self.skip(path / name, "a link to a folder that is counted already")
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
        """Every entry below `top` that is not a directory, with one open directory per level and no list of names."""
        levels: list[Iterator[os.DirEntry[str]]] = []
        self.open_level(levels, str(top))
        try:
            while levels:
                try:
                    entry = next(levels[-1], None)
                except OSError as error:
                    # Listing can fail halfway, as in /proc or on a failing disk; the rest of this directory is skipped.
                    self.skip(error.filename or top, error.strerror or "can't be read")
                    entry = None
                if entry is None:
                    _close(levels.pop())
                elif not _is_folder(entry):
                    yield entry
                elif len(levels) < _MAX_DEPTH:
                    self.open_level(levels, entry.path)
                else:
                    self.skip(entry.path, "nested too deeply for a media directory")
        finally:
            for level in levels:
                _close(level)

    def open_level(self, levels: list[Iterator[os.DirEntry[str]]], path: str) -> None:
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
        if self.found.is_stored(name):
            group = self.groups[bisect_left(self.edges, status.st_size)]
            group.files += 1
            group.bytes += status.st_size
            day = max(0, int((self.now - status.st_mtime) // DAY))
            self.days[day] = self.days.get(day, 0) + status.st_size

    def skip(self, path: str | Path, why: str) -> None:
        self.found.skipped += 1
        if len(self.found.unreadable) < _MAX_SKIPPED_SHOWN:
            self.found.unreadable.append(f"{path}: {why}")

    def estimate_growth(self) -> None:
        total = sum(self.days.values())
        if not total:
            self.found.growth_note = "no files are stored yet"
            return
        window = min(GROWTH_DAYS, max(self.days) + 1)
        if window < _MINIMUM_DAYS:
            self.found.growth_note = f"the oldest file is {window} days old, and growth needs {_MINIMUM_DAYS}"
            return
        recent = {day: size for day, size in self.days.items() if day < window}
        week = max(sum(recent.get(day, 0) for day in range(first, first + 7)) for first in range(window))
        if week > total / 2:
            self.found.growth_note = "more than half of the bytes date from one week, as after a copy"
            return
        self.found.growth = sum(recent.values()) * MONTH_DAYS / window
        self.found.growth_note = f"from the files of the last {window} days"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory, not a link to one. False where that can't be read: `add` reports it."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _close(level: Iterator[os.DirEntry[str]]) -> None:
    close = getattr(level, "close", None)
    if close:
        close()
