"""Whether what is in the media store is in the bucket, by content and not by name.

An object that was uploaded in one piece has the MD5 of its content for its ETag, one that was uploaded in parts that of
the parts' MD5s (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html): the store computed it from what
arrived. What neither fits, such as an object that is encrypted by a key of the user's, is read back.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from synapse_media.contract import StorageOutputs
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.methods import FILESYSTEM, GOOFYS, MEDIA_REPO

from . import report as reports
from .bucket import Bucket
from .database import Database, Source
from .plan import Amount
from .rclone import Progress, RcloneError
from .report import IS_KNOWN, Report, State
from .root import Root
from .tree import Tree

BEING_WRITTEN: Final = 300
"""Seconds in which a file is taken for one that Synapse may still be writing or storing."""
ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"})
"""Storage classes, and tiers of INTELLIGENT_TIERING, whose objects can't be read at once, nor served by Synapse:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html"""
_PARTS: Final = tuple(size << 20 for size in (5, 6, 8, 10, 15, 16, 20, 25, 32, 48, 50, 64, 100, 128, 256, 512, 1024))
"""Bytes of a part: of rclone 5, of boto3, Synapse's module and the AWS CLI 8, of s3fs and Cyberduck 10, of s3cmd 15, of
minio-go 16, of s5cmd 50, and what people set. boto3 doubles its own until a large file is in no more than 10,000."""
_MIB: Final = 1 << 20
_CHUNK: Final = 1 << 20
_READERS: Final = 4
READ_BACK: Final = 64
"""Objects that are read back by one rclone."""
Show = Callable[[Progress, Amount], None]
"""Is told how far something is, and of how much."""
SHOWN: Final = 20
"""Paths of a kind that are named outside of the report."""
_THUMBNAILS: Final = ("local_thumbnails/", "remote_thumbnail/")


@dataclass(frozen=True, slots=True)
class Found:
    """Files of one kind. Paths are the first of them, relative to the media store."""

    count: int = 0
    size: int = 0
    thumbnails: int = 0
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a verification found.

    Attributes:
        verified: local files whose object has the same content.
        missing: local files without an object.
        different: local files whose object has other content.
        unreadable: local files whose content could not be compared, or whose object can't be read at once.
        recent: local files that were written a moment ago: they are for the next run.
        left_out: what lies in the media store and can't be copied: symbolic links, special files.
        extra: objects without a local file, as after `free`.
        damaged: files and objects of another size than the database has for them.
        lost: what the database knows and nobody has. Synapse makes a thumbnail anew from its original.
        elsewhere: the same of remote media, which Synapse fetches again from its server if that still has it.
        orphans: objects that the database does not know: of media that was purged, for Synapse never deletes them.
        unknown: local files that the database does not know.
        has_database: whether the last five were looked for.
    """

    verified: Found = Found()
    missing: Found = Found()
    different: Found = Found()
    unreadable: Found = Found()
    recent: Found = Found()
    left_out: Found = Found()
    extra: Found = Found()
    damaged: Found = Found()
    lost: Found = Found()
    elsewhere: Found = Found()
    orphans: Found = Found()
    unknown: Found = Found()
    has_database: bool = False
    reasons: tuple[tuple[str, str], ...] = field(default=())

    @property
    def failed(self) -> bool:
        """Whether something is wrong that somebody has to see to."""
        bad = (self.missing, self.different, self.unreadable, self.left_out, self.damaged)
        # A lost thumbnail is made anew.
        return any(kind.count for kind in bad) or self.lost.count > self.lost.thumbnails

    def to_json(self) -> dict[str, Any]:
        """Plain data: each kind, null where it was not looked for, and `failed`."""
        plain: dict[str, Any] = {"failed": self.failed}
        for each in fields(self):
            kind = getattr(self, each.name)
            if isinstance(kind, Found):
                looked_for = self.has_database or each.name not in _BY_DATABASE
                plain[each.name] = (
                    {"files": kind.count, "bytes": kind.size, "thumbnails": kind.thumbnails, "first": list(kind.paths)}
                    if looked_for
                    else None
                )
        return {**plain, "reasons": dict(self.reasons)}


_BY_DATABASE: Final = ("damaged", "lost", "elsewhere", "orphans", "unknown")


def require_media_of_synapse(store: StorageOutputs, *, to_delete: bool) -> None:
    """Raise UsageError for a store in which the media is not under the names that it has in the media store.

    Args:
        to_delete: local files are to go: not where they are the bucket's own, as with Goofys. A directory beside the
            mount may be compared with the bucket.
    """
    why = {
        **(
            {
                GOOFYS: "the bucket is mounted as the media store, so that both are one, and whatever is deleted there "
                "is deleted in the bucket"
            }
            if to_delete
            else {}
        ),
        MEDIA_REPO: "matrix-media-repo keeps its media under names of its own",
        FILESYSTEM: "there is no bucket",
    }.get(store.method)
    if why:
        raise UsageError(
            f"--store is of the method {store.method}: {why}; allowed: a store.json of the method "
            "synapse-s3-storage-provider."
        )


def verify(
    tree: Tree,
    bucket: Bucket,
    *,
    database: Database | None = None,
    report: Path | None = None,
    read_all: bool = False,
    say: Callable[[str], None] = lambda _: None,
    show: Show = lambda _, __: None,
) -> Result:
    """Compare a media store with its bucket.

    Args:
        database: the homeserver's; None: what it knows is not looked for.
        report: where the report is left; None: nowhere.
        read_all: read every object back, whatever its ETag.
        say: is told what is being done.
        show: is told how far that is.

    Raises:
        UsageError: the store is none of Synapse's own module.
        SynapseMediaError: the database is of another homeserver.
        StoreError: the bucket can't be listed, or the store is not reached.
        ReportError: the report can't be written.
    """
    require_media_of_synapse(bucket.store, to_delete=False)
    with Root(tree.path) as root, reports.writing(report, bucket.store, root) as found:
        fill(found, tree, root, bucket, database=database, read_all=read_all, say=say, show=show)
        return result(found)


def fill(
    found: Report,
    tree: Tree,
    root: Root,
    bucket: Bucket,
    *,
    database: Database | None,
    read_all: bool,
    say: Callable[[str], None],
    show: Show,
) -> None:
    """Put a verification into a report; as `verify`."""
    # In this order: what comes in meanwhile is an object more, never a file or an object too few.
    if database is not None:
        database.require_homeserver(bucket.store)
        say(f"reading {database.source.said}")
        found.add_known(database.media())
        found.note("database", "yes")
    say(f"reading {tree.path}")
    found.add_local(tree.files())
    found.add_left_out(tree.left_out)
    say(f"listing {bucket.said}")
    found.add_remote(bucket.objects(), bucket.store.prefix)
    if database is not None:
        require_same_homeserver(found, database.source, bucket.store)
    say("comparing contents")
    _compare(found, root, show, read_all=read_all)
    _read_back(found, bucket, say, show)


def require_same_homeserver(found: Report, source: Source, store: StorageOutputs) -> None:
    """Raise SynapseMediaError where the database knows local media, and none of it is here or in the bucket."""

    def some(query: str) -> bool:
        return found.connection.execute(f"{query} LIMIT 1").fetchone() is not None

    known = "SELECT path FROM known WHERE origin = '' AND NOT thumbnail"
    here, there = "SELECT path FROM local", "SELECT path FROM remote"
    if not some(known) or not (some(here) or some(there)):
        return
    if some(f"{known} AND path IN ({here})") or some(f"{known} AND path IN ({there})"):
        return
    raise SynapseMediaError(
        f"{source.setting}: of the local media that {source.said} knows, nothing is in the media "
        f"store, and nothing under {store.prefix!r} in {store.bucket}: it is the database of another homeserver, or "
        "the prefix is another."
    )


# ---- local content


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file, and what the file was when it was read.

    Attributes:
        etags: what a store that has this content may call it, by bytes of a part; 0: in one piece.
    """

    md5: str
    size: int
    device: int
    inode: int
    modified_ns: int
    changed_ns: int
    etags: dict[int, str]


class ChangedError(Exception):
    """A file that was written while it was read."""


def content(root: Root, path: str, parts: Sequence[int] = ()) -> Content:
    """Read a file.

    Args:
        parts: bytes of a part for which the ETag is wanted.

    Raises OSError, ValueError; ChangedError.
    """
    with root.opened(path) as descriptor:
        before = os.fstat(descriptor)
        etags = etags_of(descriptor, parts)
        after = os.fstat(descriptor)
    # The time of the last writing can be put back, that of the last change of the inode can't.
    if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        *(after.st_size, after.st_mtime_ns, after.st_ctime_ns),
    ):
        raise ChangedError(path)
    return Content(
        md5=etags[0],
        size=after.st_size,
        device=after.st_dev,
        inode=after.st_ino,
        modified_ns=after.st_mtime_ns,
        changed_ns=after.st_ctime_ns,
        etags=etags,
    )


def etags_of(descriptor: int, parts: Sequence[int]) -> dict[int, str]:
    """What a store that has the content of an open file may call it, by bytes of a part; 0: in one piece, its MD5."""
    whole = hashlib.md5(usedforsecurity=False)
    each = {size: _Parts(size) for size in parts}
    while chunk := os.read(descriptor, _CHUNK):
        whole.update(chunk)
        for one in each.values():
            one.update(chunk)
    return {0: whole.hexdigest(), **{size: one.etag() for size, one in each.items()}}


class _Parts:
    """The ETag of an object that is uploaded in parts: the MD5 of their MD5s, and their number."""

    def __init__(self, size: int) -> None:
        self._size, self._count, self._filled = size, 0, 0
        self._part, self._all = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            piece = left[: self._size - self._filled]
            self._part.update(piece)
            self._filled += len(piece)
            left = left[len(piece) :]
            if self._filled == self._size:
                self._end()

    def _end(self) -> None:
        self._all.update(self._part.digest())
        self._part, self._filled, self._count = hashlib.md5(usedforsecurity=False), 0, self._count + 1

    def etag(self) -> str:
        if self._filled:
            self._end()
        return f"{self._all.hexdigest()}-{self._count}"


def parts_of(etag: str, size: int) -> tuple[int, ...]:
    """The bytes that a part may have had, of an object of this ETag and size."""
    match = re.fullmatch(r"[0-9a-fA-F]{32}-([1-9][0-9]{0,5})", etag)
    if not match or not size:
        return ()
    count = int(match[1])
    if count == 1:
        return (size,)  # whatever it was
    # rclone and others take the smallest number of MiB of which there are no more parts than allowed; rclone one more
    # where that is right at the boundary.
    least = -(-size // count // _MIB) * _MIB
    return tuple(part for part in dict.fromkeys((*_PARTS, least, least + _MIB)) if -(-size // part) == count)


class Meter:
    """How far a pass over the files of a report is.

    Args:
        of: what it passes over.
        show: is told after each file.
    """

    def __init__(self, of: Amount, show: Show) -> None:
        self._of, self._show = of, show
        self._done, self._started = Amount(), time.monotonic()

    def add(self, size: int) -> None:
        self._done.add(size)
        took = time.monotonic() - self._started
        self._show(Progress(self._done.files, self._done.size, self._done.size / took if took else 0), self._of)


def amount(found: Report, where: str, *values: object) -> Amount:
    """The local files of a report for which this is so."""
    files, size = found.one(f"SELECT count(*), total(size) FROM local WHERE {where}", *values)  # noqa: S608 - ours
    return Amount(files, int(size))


def _compare(found: Report, root: Root, show: Show, *, read_all: bool) -> None:
    """Judge every local file by the listing and its own content; what can't be judged so is to be read back."""
    meter = Meter(amount(found, "1"), show)
    with ThreadPoolExecutor(_READERS) as pool:
        for page in found.pages("local.path, local.size, local.modified, remote.size, remote.etag, remote.class", "1"):
            judged = []
            for row, one in zip(
                page, pool.map(lambda row: _judged(root, found.started, row, read_all=read_all), page), strict=True
            ):
                judged.append(one)
                meter.add(row[1])
            with found.connection:
                found.connection.executemany(
                    "UPDATE local SET state = ?, how = ?, why = ?, md5 = ?, inode = ?, modified_ns = ? WHERE path = ?",
                    judged,
                )


def _judged(root: Root, started: float, row: tuple[Any, ...], *, read_all: bool) -> tuple[Any, ...]:
    """(state, how, why, md5, inode, modified_ns, path)."""
    path, size, modified, there, etag, storage_class = row
    # A time further in the future is that of a wrong clock, and nobody writes to such a file for ever.
    recent = started - BEING_WRITTEN < modified <= time.time() + BEING_WRITTEN
    none = ("", None, None, path)
    if there is None:
        return (State.RECENT if recent else State.MISSING, "", "", *none)
    if there != size:
        return (State.RECENT if recent else State.DIFFERENT, "", f"it has {there} bytes there, {size} here", *none)
    if storage_class in ARCHIVED:
        return (State.UNREADABLE, "", f"its storage class {storage_class} can't be read at once", *none)
    try:
        here = content(root, path, parts_of(etag, size))
    except FileNotFoundError:
        # Synapse purged it meanwhile.
        return (State.RECENT, "", "it was deleted meanwhile", *none)
    except ChangedError:
        return (State.RECENT, "", "it was written meanwhile", *none)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return (State.UNREADABLE, "", f"it can't be read here: {why}", *none)
    if here.size != size:
        return (State.RECENT, "", "it was written meanwhile", *none)
    facts = (here.md5, reports.integer(here.inode), reports.integer(here.modified_ns), path)
    if not read_all and etag.lower() in here.etags.values():
        return (State.VERIFIED, "parts" if "-" in etag else "etag", "", *facts)
    return (State.READ_BACK, "", "", *facts)


# ---- remote content


def _read_back(found: Report, bucket: Bucket, say: Callable[[str], None], show: Show) -> None:
    of = amount(found, "state = ?", State.READ_BACK)
    if not of.files:
        return
    say(f"reading {of.files} objects back, {of.size} bytes")
    engine, meter = bucket.rclone(), Meter(of, show)
    for page in found.pages("local.path, local.md5, local.size", "local.state = ?", State.READ_BACK):
        for start in range(0, len(page), READ_BACK):
            batch = page[start : start + READ_BACK]
            got = engine.md5s([path for path, _, _ in batch])
            rows = [_compared(path, md5, got[path]) for path, md5, _ in batch]
            with found.connection:
                found.connection.executemany("UPDATE local SET state = ?, how = ?, why = ? WHERE path = ?", rows)
            for _, _, size in batch:
                meter.add(size)


def _compared(path: str, md5: str, got: str | RcloneError) -> tuple[str, str, str, str]:
    if isinstance(got, RcloneError):
        return State.UNREADABLE, "", f"the object can't be read: {got}", path
    if got == md5:
        return State.VERIFIED, "read", "", path
    return State.DIFFERENT, "", "its content is another there", path


# ---- what was found


def result(found: Report) -> Result:
    """Count what a report holds."""

    def state(which: State) -> Found:
        return _count(found, "local", "local.state = ?", which)

    left_out = Found(
        found.one("SELECT count(*) FROM left_out")[0],
        paths=tuple(found.paths("SELECT path || ' ' || why FROM left_out ORDER BY path", limit=SHOWN)),
    )
    extra = _count(found, "remote", "path NOT IN (SELECT path FROM local)")
    reasons = found.connection.execute(
        "SELECT path, why FROM local WHERE state IN (?, ?) LIMIT ?", (State.DIFFERENT, State.UNREADABLE, 2 * SHOWN)
    ).fetchall()
    compared = Result(
        verified=state(State.VERIFIED),
        missing=state(State.MISSING),
        different=state(State.DIFFERENT),
        unreadable=state(State.UNREADABLE),
        recent=state(State.RECENT),
        left_out=left_out,
        extra=extra,
        reasons=tuple(reasons),
    )
    if not found.has_database:
        return compared
    nowhere = (
        "path NOT IN (SELECT path FROM local) AND path NOT IN (SELECT path FROM remote) "
        "AND former NOT IN (SELECT path FROM local) AND former NOT IN (SELECT path FROM remote)"
    )
    # What came in after the database was read is none.
    orphans = f"NOT {IS_KNOWN.format('remote')} AND modified < ?"
    unknown = f"NOT {IS_KNOWN.format('local')} AND max(modified, changed) < ?"
    before = found.started - BEING_WRITTEN
    return replace(
        compared,
        damaged=_count(found, "known", DAMAGED),
        lost=_count(found, "known", f"origin = '' AND {nowhere}"),
        elsewhere=_count(found, "known", f"origin != '' AND {nowhere}"),
        orphans=_count(found, "remote", orphans, before),
        unknown=_count(found, "local", unknown, before),
        has_database=True,
    )


DAMAGED: Final = (
    "size IS NOT NULL AND (EXISTS (SELECT 1 FROM local WHERE local.path = known.path AND local.size != known.size) "
    "OR EXISTS (SELECT 1 FROM remote WHERE remote.path = known.path AND remote.size != known.size))"
)


def _count(found: Report, table: str, where: str, *values: object) -> Found:
    small = " OR ".join(f"{table}.path GLOB '{folder}*'" for folder in _THUMBNAILS)
    chosen = f"FROM {table} WHERE {where}"
    count, size, thumbnails = found.one(f"SELECT count(*), total({table}.size), total({small}) {chosen}", *values)
    paths = found.paths(f"SELECT {table}.path {chosen} ORDER BY {table}.path", *values, limit=SHOWN) if count else []
    return Found(count, int(size), int(thumbnails), tuple(paths))
