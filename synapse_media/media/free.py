"""Delete local files whose objects were verified by content, and nothing else.

A file goes if, and only if, at this moment: Synapse is configured to read its object; the key is proved; the file was
verified; the object is what it was then; the homeserver's database knows the file, where it is read; nobody asked
for it for long; and what is read from the file now is what was verified. All of that is looked at before the first
deletion or right before each.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from synapse_media.contract import ProofLine
from synapse_media.errors import StoreError
from synapse_media.store.answers import ApiError
from synapse_media.store.probes import advice

from . import report as reports
from .bucket import Bucket
from .database import Database
from .homeserver import Homeserver
from .mounts import RefusedError, below, refuse_mount
from .report import ACCESSED, Report, State, integer
from .restore import staging
from .root import Root
from .tree import FOLDERS, PROBE, STAGING, Tree
from .verify import (
    ARCHIVED,
    BEING_WRITTEN,
    SHOWN,
    ChangedError,
    Meter,
    Result,
    Show,
    amount,
    content,
    fill,
    require_media_of_synapse,
    require_same_homeserver,
    result,
)


@dataclass(frozen=True, slots=True)
class Count:
    """Files, and their bytes."""

    files: int = 0
    size: int = 0

    def __add__(self, size: int) -> Count:
        return Count(self.files + 1, self.size + size)


class Outcome(StrEnum):
    """What became of a local file."""

    FREED = "freed"
    """Deleted; with a dry run: to be deleted."""
    YOUNG = "young"
    """Kept: somebody asked for it not long ago."""
    UNVERIFIED = "unverified"
    """Kept: its object was not verified, or the database has another size for it."""
    UNKNOWN = "unknown"
    """Kept: the database does not know it, so that Synapse could not serve it again."""
    OFF = "off"
    """Kept: Synapse stores no files of its kind in the bucket."""
    CHANGED = "changed"
    """Kept: file or object is not what was verified any more."""
    GONE = "gone"
    """Somebody else deleted it since."""
    FAILED = "failed"
    """Kept: it could not be read or deleted."""


_WRONG: Final = (Outcome.FAILED, Outcome.CHANGED)
"""What somebody has to see to."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What was done with the local files, or would be.

    Attributes:
        quarantined: of those freed, the ones that an administrator has not served; they stay in the bucket.
        failures: (path, why) of the first files that failed, or that changed.
        by_database: whether age is that of the last access; else it is that of the file.
        deleted: false with a dry run.
        verification: what was found of the files: now, or by the report that was taken.
    """

    counts: Mapping[Outcome, Count]
    quarantined: Count
    failures: tuple[tuple[str, str], ...]
    by_database: bool
    deleted: bool
    verification: Result

    @property
    def failed(self) -> bool:
        """Whether something is wrong that somebody has to see to."""
        return self.verification.failed or any(self.counts[outcome].files for outcome in _WRONG)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = {
            str(name): {"files": count.files, "bytes": count.size} for name, count in self.counts.items()
        }
        return {
            "deleted": self.deleted,
            **plain,
            "quarantined": {"files": self.quarantined.files, "bytes": self.quarantined.size},
            "failures": dict(self.failures),
            "age_by": "last access" if self.by_database else "file times",
            "verification": self.verification.to_json(),
        }


def free(
    tree: Tree,
    bucket: Bucket,
    homeserver: Homeserver,
    older_than: timedelta,
    *,
    prove: Callable[[], tuple[ProofLine, ...]],
    database: Database | None = None,
    report: Path | None = None,
    delete: bool = False,
    say: Callable[[str], None] = lambda _: None,
    show: Show = lambda _, __: None,
) -> Freed:
    """Delete old local files that Synapse can read from the bucket.

    Args:
        homeserver: its configuration, which has to name this store.
        older_than: since when nobody may have asked for a file.
        prove: proves the store's key, now.
        database: the homeserver's; None: age is by the times of the file.
        report: of a verification of today; None: everything is verified now.
        delete: False: a dry run, that only tells.
        say: is told what is being done.
        show: is told how far that is.

    Raises:
        RefusedError, ConfigurationError, UsageError, ReportError, RestoreError, DatabaseError: nothing was deleted,
            and why.
        StoreError: the store was not reached.
    """
    store = bucket.store
    require_media_of_synapse(store, to_delete=True)
    with Root(tree.path) as root:
        folders = homeserver.require_store(store, tree.path)
        homeserver.require_homeserver(store)
        if note := homeserver.require_key(store):
            say(note)
        refuse_mount(tree.path)
        lines = prove()
        if any(line.failed for line in lines):
            raise RefusedError(f"{store.server_name}: the key fails its proof, so nothing is deleted. {advice(lines)}")
        if delete:
            refuse_bucket_itself(tree.path, bucket)
            if os.path.lexists(tree.path / STAGING):
                # What a restore that was killed left there are further names of the files: none would be freed.
                with staging(root):
                    pass
        with reports.reading(report, store, root) if report else reports.writing(None, store, root) as found:
            if report is None:
                fill(found, tree, root, bucket, database=database, read_all=False, say=say, show=show)
            elif (database is not None) != found.has_database:
                why = (
                    "with the database, and without it nobody knows what was asked for since; allowed: --database or "
                    "--config, as for the verification"
                    if database is None
                    else "without the database; allowed: one with it. Run `synapse-media media verify DIR` with "
                    "--database or --config, and name its report"
                )
                raise RefusedError(f"--report is {str(report)!r}, of a verification {why}.")
            verification = result(found)
            if report and database is not None:
                # Somebody may have asked for a file since, or it was purged.
                database.require_homeserver(store)
                say(f"reading {database.source.said}")
                found.know_anew(database.media())
                require_same_homeserver(found, database.source, store)
            say("deleting what may go" if delete else "counting what may go")
            return _Freeing(root, found, bucket, folders, older_than, delete=delete).all(verification, show)


_AT_ONCE: Final = 16
"""Files that are looked at: before each deletion the store is asked, which takes as long as its answer is away."""


_UNANSWERED: Final = 2 * _AT_ONCE
"""After so many objects one after the other that the store did not tell of, it is not asked for more in this run:
each takes minutes."""


class _File(NamedTuple):
    """What a report has of a local file, in the order of _COLUMNS."""

    path: str
    size: int
    state: str
    md5: str
    inode: int
    modified_ns: int
    modified: float
    etag: str
    written: float
    accessed: float | None
    right_size: int | None
    quarantined: bool


_COLUMNS: Final = ", ".join(
    (
        *(f"local.{name}" for name in ("path", "size", "state", "md5", "inode", "modified_ns", "modified")),
        *("remote.etag", "remote.modified", ACCESSED),
        "(SELECT size FROM known WHERE known.path = local.path)",
        "(SELECT quarantined FROM known WHERE known.path = local.path)",
    )
)


class _UnsafeError(Exception):
    """An object that is what was verified, and could not be served all the same, or not for long; or was not seen."""


class _OtherObjectError(Exception):
    """An object that is gone, or another one than was verified."""


class _Freeing:
    """One pass over what was verified."""

    def __init__(
        self,
        root: Root,
        found: Report,
        bucket: Bucket,
        folders: frozenset[str],
        older_than: timedelta,
        *,
        delete: bool,
    ) -> None:
        self._root, self._found, self._bucket, self._folders, self._delete = root, found, bucket, folders, delete
        self._before = time.time() - older_than.total_seconds()
        self._written_before = time.time() - BEING_WRITTEN
        # The report itself is for the thread that opened it.
        self._by_database = found.has_database
        self._unanswered = 0

    def all(self, verification: Result, show: Show) -> Freed:
        counts, quarantined = dict.fromkeys(Outcome, Count()), Count()
        failures: list[tuple[str, str]] = []
        meter = Meter(amount(self._found, "1"), show)
        with _threads() as pool:
            for page in self._found.pages(_COLUMNS, "1"):
                files = list(itertools.starmap(_File, page))
                for file, (outcome, why) in zip(files, pool.map(self._judge, files), strict=True):
                    counts[outcome] += file.size
                    if outcome is Outcome.FREED and file.quarantined:
                        quarantined += file.size
                    if outcome in _WRONG and len(failures) < SHOWN:
                        failures.append((file.path, why))
                    meter.add(file.size)
        return Freed(
            counts,
            quarantined,
            tuple(failures),
            by_database=self._by_database,
            deleted=self._delete,
            verification=verification,
        )

    def _judge(self, file: _File) -> tuple[Outcome, str]:
        """What becomes of a file, and why."""
        if file.path.partition("/")[0] not in self._folders:
            return Outcome.OFF, ""
        if file.state != State.VERIFIED or file.right_size not in (None, file.size):
            return Outcome.UNVERIFIED, ""
        if self._by_database and file.accessed is None:
            return Outcome.UNKNOWN, ""
        try:
            return self._look(file), ""
        except FileNotFoundError:
            return Outcome.GONE, ""
        except ChangedError:
            return Outcome.CHANGED, "the file is not the one that was verified"
        except _OtherObjectError:
            return Outcome.CHANGED, "its object is gone, or is not the one that was verified"
        except _UnsafeError as error:
            return Outcome.FAILED, str(error)
        except OSError as error:
            return Outcome.FAILED, error.strerror or str(error)
        except StoreError as error:
            return Outcome.FAILED, f"the object can't be looked at: {error}"

    def _look(self, file: _File) -> Outcome:
        """Look at the file itself, now, and at its object, and delete it.

        Raises OSError, ChangedError, _OtherObjectError, _UnsafeError, StoreError.
        """
        verified = (file.size, file.inode, file.modified_ns)  # as `integer` has them
        with self._root.opened(file.path) as descriptor:
            status = os.fstat(descriptor)
        # With noatime or relatime the time of access may be long ago, whoever read the file since.
        accessed = max(status.st_atime, status.st_mtime) if file.accessed is None else file.accessed
        if accessed > self._before or max(file.modified, status.st_mtime) > self._written_before:
            return Outcome.YOUNG
        if (status.st_size, integer(status.st_ino), integer(status.st_mtime_ns)) != verified:
            raise ChangedError(file.path)
        if not self._delete:
            return Outcome.FREED
        if self._unanswered >= _UNANSWERED:
            raise _UnsafeError(f"the store did not answer for {_UNANSWERED} others, so this was left for the next run")
        here = content(self._root, file.path)
        if (here.size, integer(here.inode), integer(here.modified_ns)) != verified or here.md5 != file.md5:
            raise ChangedError(file.path)
        # The object last: reading the file takes long, and of the two only the object stays.
        if not self._is_there(file):
            raise _OtherObjectError
        if not self._root.unlink(file.path, here.device, here.inode, here.changed_ns):
            raise ChangedError(file.path)
        self._root.prune(file.path)
        return Outcome.FREED

    def _is_there(self, file: _File) -> bool:
        """Whether the object is, now, the one that was verified. Raises StoreError, _UnsafeError."""
        try:
            there = self._bucket.look(file.path)
        except StoreError as error:
            answered = isinstance(error, ApiError) and 0 < error.status < 500
            self._unanswered = 0 if answered else self._unanswered + 1
            raise
        self._unanswered = 0
        if there is None:
            return False
        if there.storage_class in ARCHIVED:
            raise _UnsafeError(f"the object can't be read at once: it is in {there.storage_class}")
        if there.expires:
            raise _UnsafeError(f"the object will be deleted by a lifecycle rule of the bucket: {there.expires}")
        return (
            (there.size, there.etag) == (file.size, file.etag)
            # Listings have fractions of a second, the header Last-Modified has none.
            and abs(there.modified - file.written) < 1
        )


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Some threads, which begin nothing more once this is interrupted."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


# ---- the directory and the bucket may be one


def refuse_bucket_itself(directory: Path, bucket: Bucket) -> None:
    """Raise RefusedError where a file that is written below this directory becomes an object of the store.

    Each folder of it is tried, and whatever is mounted below, which may be the bucket where the rest is not.
    """
    name = f".synapse-media-{secrets.token_hex(8)}"
    mounted = [place for place in below(directory) if place.relative_to(directory).parts[0] in FOLDERS]
    for place in dict.fromkeys([*(directory / folder for folder in FOLDERS), *mounted]):
        if not place.is_dir() or place.is_symlink():
            continue
        _clear_probes(place)
        probe, path = place / name, f"{place.relative_to(directory)}/{name}"
        try:
            probe.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise RefusedError(
                f"{place} can't be written to ({error.strerror}), so that nothing could be deleted there. Run this as "
                "root, or as the user of Synapse."
            ) from None
        try:
            if (
                any(True for _ in bucket.objects([f"{folder}/{name}" for folder in FOLDERS]))
                or bucket.look(path) is not None
            ):
                raise RefusedError(
                    f"{directory} and the bucket {bucket.store.bucket} are one: a file that was written to "
                    f"{place.relative_to(directory)} appeared there as an object. What is deleted here is deleted in "
                    "the bucket, so nothing was. Name the media store on the server's own disk."
                )
        finally:
            probe.unlink(missing_ok=True)


def _clear_probes(place: Path) -> None:
    """Remove the files by which runs that were killed tried a directory; not those of one that runs beside this."""
    with contextlib.suppress(OSError):
        for file in place.iterdir():
            if not PROBE.fullmatch(file.name):
                continue
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and not status.st_size and status.st_mtime < time.time() - BEING_WRITTEN:
                file.unlink()
