"""The report of a verification: a file of SQLite, in which what lies where is put side by side in little memory.

`free` deletes nothing but what a report says was verified, and takes a report only of the same store and the same
directory, complete and recent. It is written at 0600 under another name and renamed when it is whole, so that one that
was interrupted is never taken for one.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from synapse_media.contract import StorageOutputs, fingerprint
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.store.objects import Listed

from .database import Known
from .root import Root
from .tree import LeftOut, MediaFile, printable

FORMAT_VERSION: Final = 2
RECENT: Final = 24 * 3600
"""Seconds for which a report is taken."""
PAGE: Final = 1_000
_CACHE: Final = 64 * 1024
"""KiB of memory for the tables."""
_MARK: Final = 0x53594D52
"""`application_id` of the file, by which SQLite's files are told apart."""

_TABLES: Final = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE local (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified REAL NOT NULL, changed REAL NOT NULL, state TEXT NOT NULL,
  how TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '', md5 TEXT NOT NULL DEFAULT '',
  inode INTEGER, modified_ns INTEGER
) WITHOUT ROWID;
CREATE TABLE remote (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, etag TEXT NOT NULL, modified REAL NOT NULL, class TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE left_out (path TEXT PRIMARY KEY, why TEXT NOT NULL) WITHOUT ROWID;
"""
_KNOWN: Final = """
CREATE {0} TABLE known (
  path TEXT PRIMARY KEY, former TEXT NOT NULL, origin TEXT NOT NULL, thumbnail INTEGER NOT NULL, size INTEGER,
  accessed REAL NOT NULL, quarantined INTEGER NOT NULL
) WITHOUT ROWID;
CREATE {0} TABLE former (path TEXT PRIMARY KEY, now TEXT NOT NULL) WITHOUT ROWID;
"""
IS_KNOWN: Final = (
    "(EXISTS (SELECT 1 FROM known WHERE known.path = {0}.path) OR "
    "EXISTS (SELECT 1 FROM former WHERE former.path = {0}.path))"
)
"""Whether the homeserver's database knows a file; the table is to be filled in."""
ACCESSED: Final = (
    "COALESCE((SELECT accessed FROM known WHERE known.path = local.path), "
    "(SELECT accessed FROM former JOIN known ON known.path = former.now WHERE former.path = local.path))"
)
"""When a local file was last asked for; null where the database does not know it."""


def integer(value: int) -> int:
    """A number as SQLite has it, in 64 bits with a sign.

    An inode of a network file system may be larger, and so is a time after 2262 in nanoseconds.
    """
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


class ReportError(SynapseMediaError):
    """A report that can't be taken for what was asked, or not be written."""


class State(StrEnum):
    """What a verification found of a local file."""

    UNSEEN = "unseen"
    VERIFIED = "verified"
    MISSING = "missing"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"
    RECENT = "recent"
    READ_BACK = "to be read back"


def of_store(store: StorageOutputs) -> str:
    """The fingerprint of where a store's objects are."""
    return fingerprint(
        provider=store.provider,
        bucket=store.bucket,
        endpoint_url=store.endpoint_url,
        region=store.region,
        prefix=store.prefix,
        method=store.method,
    )


class Report:
    """An open report.

    Attributes:
        started: when the verification began, in seconds since 1970.
        has_database: whether it knows what the homeserver's database knows.
    """

    def __init__(self, connection: sqlite3.Connection, started: float) -> None:
        self.connection = connection
        self.started = started

    # ---- filling it

    def add_local(self, files: Iterable[MediaFile]) -> None:
        self._fill(
            "INSERT OR REPLACE INTO local (path, size, modified, changed, state) VALUES (?, ?, ?, ?, ?)",
            ((file.path, file.size, file.modified, file.changed, State.UNSEEN) for file in files),
        )

    def add_left_out(self, found: Iterable[LeftOut]) -> None:
        self._fill("INSERT OR REPLACE INTO left_out VALUES (?, ?)", ((each.path, each.why) for each in found))

    def add_remote(self, objects: Iterable[Listed], prefix: str) -> None:
        """
        Args:
            prefix: the store's, which is left out of the paths.
        """
        self._fill(
            "INSERT OR REPLACE INTO remote (path, size, etag, modified, class) VALUES (?, ?, ?, ?, ?)",
            (
                (each.key.removeprefix(prefix), each.size, each.etag, each.modified, each.storage_class)
                for each in objects
            ),
        )

    def add_known(self, files: Iterable[Known]) -> None:
        former: list[tuple[str, str]] = []

        def rows() -> Iterator[tuple[Any, ...]]:
            for each in files:
                if each.former:
                    former.append((each.former, each.path))
                yield (
                    *(each.path, each.former, each.origin, each.thumbnail, each.size, each.accessed),
                    each.quarantined,
                )

        for page in _pages(rows()):
            self.connection.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?)", page)
            self.connection.executemany("INSERT OR IGNORE INTO former VALUES (?, ?)", former)
            former.clear()
        self.connection.commit()

    def know_anew(self, files: Iterable[Known]) -> None:
        """Put what the database knows now in place of what it knew, in a report that is only read."""
        self.connection.executescript(_KNOWN.format("TEMP"))
        self.add_known(files)

    def _fill(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        for page in _pages(rows):
            self.connection.executemany(statement, page)
        self.connection.commit()

    def note(self, name: str, value: str) -> None:
        """Put down something of the whole run."""
        with self.connection:
            self.connection.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, value))

    # ---- reading it

    def noted(self, name: str) -> str:
        """What was put down; "" where nothing was."""
        row = self.connection.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    @property
    def has_database(self) -> bool:
        return self.noted("database") == "yes"

    def pages(self, columns: str, where: str, *values: object) -> Iterator[list[tuple[Any, ...]]]:
        """Rows of `local`, each with its row of `remote`, by path and page by page; what was read may be changed.

        Args:
            columns: the first has to be `local.path`.
        """
        after = ""
        while True:
            rows = self.connection.execute(
                f"SELECT {columns} FROM local LEFT JOIN remote ON remote.path = local.path "  # noqa: S608 - ours
                f"WHERE local.path > ? AND ({where}) ORDER BY local.path LIMIT {PAGE}",
                (after, *values),
            ).fetchall()
            if not rows:
                return
            yield rows
            after = rows[-1][0]

    def one(self, query: str, *values: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self.connection.execute(query, values).fetchone()
        return row

    def paths(self, query: str, *values: object, limit: int) -> list[str]:
        return [row[0] for row in self.connection.execute(f"{query} LIMIT {limit}", values)]


def _pages(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    page: list[tuple[Any, ...]] = []
    for row in rows:
        page.append(row)
        if len(page) == PAGE:
            yield page
            page = []
    yield page


@contextmanager
def writing(path: Path | None, store: StorageOutputs, root: Root) -> Iterator[Report]:
    """A new report, there under its name once the block has ended without an exception.

    Args:
        path: None: one without a name, of which nothing stays, even where this is killed.

    Raises ReportError where it can't be written, or something else is there.
    """
    if path is None:
        with _new(None, store, root) as report:
            yield report
        return
    if path.exists() and not (path.is_file() and _is_report(path)):
        raise UsageError(
            f"--report is {str(path)!r}, which is there and is no report; allowed: a new file, or a former report, "
            "which is replaced"
        )
    part = path.with_name(path.name + ".part")
    if part.exists():
        if not (part.is_file() and _is_report(part)):
            raise UsageError(f"{part} is in the way: move it, or name another file by --report")
        _remove_left(part)
    try:
        with _new(part, store, root) as report:
            yield report
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _remove_left(part: Path) -> None:
    """Remove what a run that was killed left. Raises ReportError where another run writes it."""
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ReportError(f"the report {part} can't be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
    except BlockingIOError:
        raise ReportError(
            f"another verification is writing {part}: wait for its end, or name another file by --report"
        ) from None
    finally:
        os.close(descriptor)


@contextmanager
def _new(path: Path | None, store: StorageOutputs, root: Root) -> Iterator[Report]:
    said = f"the report {path}" if path else "the report of this run, in $TMPDIR or else /var/tmp,"
    descriptor = -1
    if path:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            # Held until the end, whatever SQLite locks: by this another run tells that it is no dead one's.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ReportError(f"{said} can't be written: {error.strerror}") from None
    # Without a name it is a file that SQLite unlinks as soon as it has made it: https://www.sqlite.org/inmemorydb.html
    connection = sqlite3.connect(path or "")
    try:
        # Until it is renamed it is worth nothing, so that nothing of it has to outlive a power failure.
        connection.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE; "
            f"PRAGMA cache_size = -{_CACHE}; PRAGMA application_id = {_MARK}; "
            f"PRAGMA user_version = {FORMAT_VERSION}; {_TABLES} {_KNOWN.format('')}"
        )
        report = Report(connection, time.time())
        about = {
            "store": of_store(store),
            "bucket": f"{store.bucket}/{store.prefix}",
            "directory": json.dumps([root.device, root.inode]),
            "path": printable(str(root.directory)),
            "started": repr(report.started),
        }
        for name, value in about.items():
            report.note(name, value)
        yield report
        report.note("ended", repr(time.time()))
    except sqlite3.Error as error:
        raise ReportError(f"{said} can't be written: {error}. Is its disk full?") from None
    else:
        if path:
            connection.close()
            os.fsync(descriptor)
    finally:
        connection.close()
        if path:
            os.close(descriptor)


@contextmanager
def reading(path: Path, store: StorageOutputs, root: Root) -> Iterator[Report]:
    """A report that was made of this store and this directory, is complete and recent.

    Raises ReportError where it is not.
    """
    _require_own(path)
    try:
        connection = sqlite3.connect(f"file:{quote(os.fsencode(path.resolve()))}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise ReportError(f"--report is {str(path)!r}: {error}. {_AGAIN}") from None
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT_VERSION:
            raise ReportError(
                f"--report is {str(path)!r}, of format version {version}; allowed: {FORMAT_VERSION}, that of this "
                f"release. {_AGAIN}"
            )
        report = Report(connection, 0)
        try:
            report.started = float(report.noted("started"))
            directory = json.loads(report.noted("directory"))
        except ValueError:
            raise ReportError(f"--report is {str(path)!r}, which is damaged. {_AGAIN}") from None
        if why := _why_not(report, store, root, directory):
            raise ReportError(f"--report is {str(path)!r}: {why}. {_AGAIN}")
        yield report
    except sqlite3.DatabaseError as error:
        raise ReportError(f"--report is {str(path)!r}, which is damaged: {error}. {_AGAIN}") from None
    finally:
        connection.close()


_AGAIN: Final = "Run `synapse-media media verify DIR` again, and name its report."


def _why_not(report: Report, store: StorageOutputs, root: Root, directory: object) -> str:
    if not report.noted("ended"):
        return "its verification did not come to its end"
    if report.noted("store") != of_store(store):
        return f"it is of another store ({report.noted('bucket')}) than that of --store"
    if directory != [root.device, root.inode]:
        return f"it is of another directory ({report.noted('path')}) than {root.directory}"
    age = time.time() - report.started
    if not 0 <= age <= RECENT:
        return f"it was begun {age / 3600:.0f} hours ago; allowed: {RECENT // 3600} at most"
    return ""


def _require_own(path: Path) -> None:
    try:
        status = path.lstat()
    except OSError as error:
        raise ReportError(f"--report is {str(path)!r}: {error.strerror}. {_AGAIN}") from None
    if not stat.S_ISREG(status.st_mode) or not _is_report(path):
        raise ReportError(f"--report is {str(path)!r}, which is no report of a verification. {_AGAIN}")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        # Whoever may write it decides on what is deleted.
        raise ReportError(
            f"--report is {str(path)!r}, which others than this user may write; allowed: a file of your own, of mode "
            f"0600. {_AGAIN}"
        )


def _is_report(path: Path) -> bool:
    """Whether a file is a report, of whatever version: by SQLite's header, https://www.sqlite.org/fileformat.html."""
    with path.open("rb") as file:
        head = file.read(72)
    return head[:16] == b"SQLite format 3\0" and head[68:72] == _MARK.to_bytes(4, "big")
