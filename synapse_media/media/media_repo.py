"""Whether what matrix-media-repo knows is in the bucket, by the SHA-256 that its own database has of each content.

It keeps an object under a random name, which only its database has beside the media's. Tables and columns are those of
v1.3.8: https://github.com/t2bot/matrix-media-repo/tree/v1.3.8/migrations. They are only read, page by page.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.store.objects import listed

from . import database
from .bucket import Bucket
from .database import POSTGRESQL, DatabaseError, Source, original
from .handover import directory
from .plan import Amount, RoomError
from .rclone import Progress, without_room
from .root import Root
from .tree import Tree, name_fault
from .verify import SHOWN, Found, Meter, Result, Show

_TABLES: Final = """
CREATE TABLE object (key TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE known (
  location TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, path TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT ''
);
CREATE INDEX known_location ON known (location);
CREATE INDEX known_path ON known (path);
CREATE TABLE local (path TEXT PRIMARY KEY, size INTEGER NOT NULL, state TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
"""
_BATCH: Final = 64
"""Objects that are downloaded at once, to be compared and removed."""
_VERIFIED, _DIFFERENT, _UNREADABLE = "verified", "different", "unreadable"


def verify(
    tree: Tree,
    bucket: Bucket,
    source: Source,
    names: Collection[str],
    *,
    say: Callable[[str], None] = lambda _: None,
    show: Show = lambda _, __: None,
) -> Result:
    """Compare the database of matrix-media-repo with the bucket, and Synapse's media store with both.

    Every object is read: the store does not tell its SHA-256.

    Args:
        tree: from which Synapse's media was imported: each original of local media has to be known.
        source: the database of matrix-media-repo.
        names: of the homeserver, as media IDs have it: server name or domain.
        say: is told what is being done.
        show: is told how far that is.

    Returns what was found, of which `missing` are objects that the database knows and local files that it does not.

    Raises:
        UsageError: the store names no datastore.
        DatabaseError: it can't be read, or has no media of this datastore.
        StoreError: the bucket can't be listed or read.
    """
    datastore = bucket.store.media_repo.get("s3_datastore_id", "")
    if not datastore:
        raise UsageError("--store has no media_repo.s3_datastore_id, by which matrix-media-repo knows its media there")
    with _tables() as tables:
        # In this order: what comes in meanwhile is an object more, never one too few.
        say(f"reading {source.said}")
        tables.executemany(
            "INSERT INTO known (location, size, sha256, path) VALUES (?, ?, ?, ?)", _known(source, datastore, names)
        )
        say(f"reading {tree.path}")
        tables.executemany(
            "INSERT INTO local (path, size) VALUES (?, ?)",
            ((file.path, file.size) for file in tree.files() if file.path.startswith("local_content/")),
        )
        say(f"listing {bucket.said}")
        tables.executemany(
            "INSERT OR REPLACE INTO object VALUES (?, ?)",
            ((each.key, each.size) for each in listed(bucket.client, bucket.store.bucket, "")),
        )
        with Root(tree.path) as root:
            reasons = _compare(tables, root, say, show)
        reasons |= _read(tables, bucket, say, show)
        return _result(tables, tree, reasons)


@contextmanager
def _tables() -> Iterator[sqlite3.Connection]:
    """The tables of a run, of which nothing stays. Raises SynapseMediaError where they can't be written."""
    try:
        # A file without a name, that SQLite unlinks as soon as it has made it.
        with closing(sqlite3.connect("")) as tables:
            tables.executescript(f"PRAGMA journal_mode = OFF; PRAGMA temp_store = FILE; {_TABLES}")
            yield tables
    except sqlite3.Error as error:
        raise SynapseMediaError(
            f"the tables of this run, in $TMPDIR or else /var/tmp, can't be written: {error}. Is its disk full? Make "
            "room there, or name another directory by TMPDIR, and run this again."
        ) from None


def _known(source: Source, datastore: str, names: Collection[str]) -> Iterator[tuple[str, int, str, str]]:
    """(location, bytes, SHA-256, path in Synapse's media store, or "") of media and thumbnails."""
    if source.engine != POSTGRESQL:
        raise UsageError(
            f"{source.setting} is a file; allowed: the database of matrix-media-repo, postgresql://USER@HOST/NAME"
        )
    with closing(database.connected(source)) as connection:

        def page(query: str, *values: object) -> list[tuple[Any, ...]]:
            return database.page(connection, source, query, values)

        after, found = ("", ""), False
        while rows := page(
            "SELECT media_id, origin, location, size_bytes, sha256_hash FROM media WHERE datastore_id = %s "  # noqa: S608
            f"AND (media_id, origin) > (%s, %s) ORDER BY media_id, origin LIMIT {database.PAGE}",
            *(datastore, *after),
        ):
            found, after = True, rows[-1][:2]
            for media_id, origin, location, size, sha256 in rows:
                yield location, size, sha256.lower(), original("", media_id) if origin in names else ""
        if not found:
            raise DatabaseError(
                f"{source.said} has no media of the datastore {datastore!r}, which --store has as "
                "media_repo.s3_datastore_id: is it the database of matrix-media-repo, and was the media imported?"
            )
        last = ""
        # One content has one location, whoever shows it.
        while rows := page(
            "SELECT DISTINCT location, size_bytes, sha256_hash FROM thumbnails WHERE datastore_id = %s "  # noqa: S608
            f"AND location > %s ORDER BY location LIMIT {database.PAGE}",
            *(datastore, last),
        ):
            last = rows[-1][0]
            yield from ((location, size, sha256.lower(), "") for location, size, sha256 in rows)


def _read(tables: sqlite3.Connection, bucket: Bucket, say: Callable[[str], None], show: Show) -> dict[str, str]:
    """Download each object that the database knows, a few at a time, and compare it; {location: why it can't be}."""
    same = "FROM known JOIN object ON object.key = known.location AND object.size = known.size"
    count, size = tables.execute(
        f"SELECT count(*), total(size) FROM (SELECT DISTINCT known.location, known.size {same})"  # noqa: S608 - ours
    ).fetchone()
    of, done, reasons = Amount(count, int(size)), Amount(), dict[str, str]()
    if not count:
        return reasons
    say(f"reading {of.files} objects, {of.size} bytes")
    rclone, after = bucket.rclone(), ""
    while rows := tables.execute(
        f"SELECT DISTINCT known.location, known.size {same} WHERE known.location > ? ORDER BY known.location LIMIT ?",
        (after, _BATCH),
    ).fetchall():
        after = rows[-1][0]
        sizes = dict(rows)
        begun = Progress(done.files, done.size)

        def shown(progress: Progress, begun: Progress = begun) -> None:
            show(begun + progress, of)

        # A name that would lead elsewhere is none of matrix-media-repo's.
        why = {name: "has a name that matrix-media-repo gives to nothing" for name in sizes if not _is_plain(name)}
        names = {name: size for name, size in sizes.items() if name not in why}
        with directory() as place:
            options = ("--multi-thread-streams", "0", "--ignore-checksum")
            failed = rclone.copy(rclone.remote(), str(place), names, *options, show=shown)
            if full := without_room(failed):
                # That says nothing of the objects.
                needed = f"{sum(names.values()) >> 20} MiB of objects that are to be compared are written there"
                raise RoomError(place.parent, failed[full], needed)
            why |= failed
            for name, size in sizes.items():
                done.add(size)
                state, sha256 = _UNREADABLE, ""
                if name not in why:
                    with (place / name).open("rb") as content:
                        state, sha256 = _VERIFIED, hashlib.file_digest(content, "sha256").hexdigest()
                elif len(reasons) < 2 * SHOWN:
                    reasons[name] = why[name]
                tables.execute(
                    "UPDATE known SET state = CASE WHEN ? != '' AND sha256 != ? THEN ? ELSE ? END WHERE location = ?",
                    (sha256, sha256, _DIFFERENT, state, name),
                )
    return reasons


def _is_plain(name: str) -> bool:
    return {"", ".", ".."}.isdisjoint(name.split("/")) and not name_fault(name)


def _compare(tables: sqlite3.Connection, root: Root, say: Callable[[str], None], show: Show) -> dict[str, str]:
    """Compare each local file with the hash in the database of what was imported from it; {path: why not}."""
    both = "FROM local JOIN known ON known.path = local.path"
    count, size = tables.execute(f"SELECT count(*), total(local.size) {both}").fetchone()
    meter, reasons, after = Meter(Amount(count, int(size)), show), dict[str, str](), ""
    say("comparing contents")
    while rows := tables.execute(
        f"SELECT local.path, local.size, known.sha256 {both} WHERE local.path > ? ORDER BY local.path LIMIT ?",
        (after, database.PAGE),
    ).fetchall():
        after = rows[-1][0]
        for path, size, sha256 in rows:
            state, why = "", ""
            try:
                with root.opened(path) as descriptor, open(descriptor, "rb", closefd=False) as content:
                    if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                        state, why = _DIFFERENT, "it has another content than matrix-media-repo has of it"
            except FileNotFoundError:
                pass  # Synapse purged it meanwhile
            except OSError as error:
                state, why = _UNREADABLE, f"it can't be read here: {error.strerror}"
            if state:
                tables.execute("UPDATE local SET state = ? WHERE path = ?", (state, path))
                reasons |= {path: why} if len(reasons) < 2 * SHOWN else {}
            meter.add(size)
    return reasons


def _result(tables: sqlite3.Connection, tree: Tree, reasons: dict[str, str]) -> Result:
    def found(chosen: str, *values: object) -> Found:
        """
        Args:
            chosen: a query of (path, size).
        """
        count, size = tables.execute(f"SELECT count(*), total(size) FROM ({chosen})", values).fetchone()  # noqa: S608
        paths = tables.execute(f"{chosen} ORDER BY 1 LIMIT {SHOWN}", values)
        return Found(count, int(size), paths=tuple(path for path, _ in paths))

    def state(which: str) -> Found:
        return found(
            "SELECT DISTINCT location AS path, size FROM known WHERE state = ? "
            "UNION ALL SELECT path, size FROM local WHERE state = ?",
            *(which, which),
        )

    nowhere = "SELECT DISTINCT location AS path, size FROM known WHERE location NOT IN (SELECT key FROM object)"
    not_imported = "SELECT path, size FROM local WHERE path NOT IN (SELECT path FROM known)"
    unknown = dict.fromkeys(found(not_imported).paths, "matrix-media-repo does not know it: it was not imported")
    return Result(
        verified=state(_VERIFIED),
        missing=found(f"{nowhere} UNION ALL {not_imported}"),
        different=state(_DIFFERENT),
        unreadable=state(_UNREADABLE),
        left_out=Found(len(tree.left_out), paths=tuple(f"{left.path} {left.why}" for left in tree.left_out[:SHOWN])),
        damaged=found(
            "SELECT DISTINCT known.location AS path, object.size AS size FROM known JOIN object "
            "ON object.key = known.location WHERE object.size != known.size"
        ),
        orphans=found("SELECT key AS path, size FROM object WHERE key NOT IN (SELECT location FROM known)"),
        has_database=True,
        reasons=(*reasons.items(), *unknown.items()),
    )
