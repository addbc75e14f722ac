"""What is to be transferred, kept outside of memory: a million names are written to a file that has no name."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from synapse_media.errors import SynapseMediaError

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a file system that has no more room, or none for this user."""
BATCH: Final = 10_000
"""Files that rclone is handed at once: it keeps all of their names."""
NAMED: Final = 1000
"""Paths of one kind that a report names at most."""


@dataclass(slots=True)
class Amount:
    """Files and their bytes."""

    files: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        self.files += 1
        self.size += size

    def to_json(self) -> dict[str, int]:
        return {"files": self.files, "bytes": self.size}


@dataclass(slots=True)
class Named:
    """Paths with a word on each, of which only the first NAMED are kept."""

    count: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, why: str) -> None:
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append((path, why))

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "first": [{"path": path, "why": why} for path, why in self.first]}


class RoomError(SynapseMediaError):
    """A directory of temporary files that is full.

    Args:
        needed: what lies there, and how much of it.
    """

    def __init__(self, place: Path, why: str, needed: str) -> None:
        super().__init__(
            f"{place} is full ({why}), and {needed}. What was done before is whole. Make room there, or name another "
            "directory by TMPDIR, and run this again."
        )


@contextlib.contextmanager
def temporary(
    place: Path | None = None, *, needed: str = "a list of the files, about 100 bytes for each, is written there"
) -> Iterator[None]:
    """Have an error say where temporary files lie: the disk that is full is not that of the media.

    Args:
        place: the directory; None: that of `tempfile`.
        needed: what lies there, and how much of it.

    Raises RoomError where it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise RoomError(place or Path(tempfile.gettempdir()), error.strerror or "", needed) from None
        if error.filename is None:
            error.filename = f"a temporary file in {tempfile.gettempdir()} (TMPDIR)"
        raise


class Plan:
    """Names in the order in which they are added, with a number each: bytes, for a transfer."""

    def __init__(self) -> None:
        self.amount = Amount()
        with temporary():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with the plan

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with temporary():
            self._file.close()

    def add(self, path: str, size: int, note: str = "") -> None:
        """
        Args:
            path: without control characters, which `tree.name_fault` refuses.
            note: a word that is handed back with it.
        """
        self.amount.add(size)
        with temporary():
            self._file.write(os.fsencode(f"{size}\t{note}\t{path}\n"))

    def batches(self, count: int = BATCH, size: int = 0) -> Iterator[tuple[tuple[str, int, str], ...]]:
        """(path, size, note) of so many at once.

        Args:
            size: bytes with which a batch is full, too; 0: however many.
        """
        with temporary():
            self._file.seek(0)  # which writes what is in the buffer
        batch, held = list[tuple[str, int, str]](), 0
        for line in self._read():
            batch.append(line)
            held += line[1]
            if len(batch) == count or held >= size > 0:
                yield tuple(batch)
                batch, held = [], 0
        if batch:
            yield tuple(batch)

    def _read(self) -> Iterator[tuple[str, int, str]]:
        for line in self._file:
            size, note, path = os.fsdecode(line).rstrip("\n").split("\t", 2)
            yield path, int(size), note
