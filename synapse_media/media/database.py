"""What the homeserver's database knows of media: where each file lies, and when it was last asked for. Read only.

The paths are those of `MediaFilePaths` of Synapse 1.163 (synapse/media/filepath.py), the tables those of its schema.
Rows are read page by page: neither a snapshot nor a lock is held for longer than a page takes.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from synapse_media.contract import StorageOutputs
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.redaction import redacted, remember

SQLITE, POSTGRESQL = "sqlite3", "psycopg2"
"""As homeserver.yaml names the two in `database.name`."""
PAGE: Final = 5_000
"""Rows of media that are read at once."""
_PATIENCE: Final = 60
"""Seconds to wait for a lock of SQLite, and for a connection to PostgreSQL."""
_ALLOWED: Final = re.compile(r"[A-Za-z0-9_\-.\[\]:]+\Z")
"""What Synapse allows in a part of a path; "." and ".." not."""
_MXC: Final = re.compile(r"mxc://([^/]+)/([^/#?]+)\Z")
"""MXC_REGEX of synapse/util/stringutils.py."""
_NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
"""What no database takes for text: among it what stands in an argument for bytes that are not UTF-8."""
_PATH: Final = re.compile(r"[^\s=@:?]+\Z")
"""Of what is no file: what was meant for one, and is no connection string."""
_PARAMETERS: Final = frozenset(
    {"application_name", "connect_timeout", "dbname", "host", "hostaddr", "port", "sslcert", "sslkey", "sslmode"}
    | {"sslrootcert", "target_session_attrs", "user"}
)
"""Those of libpq that a URL may have here: none of them is a secret."""
_OF_POOL: Final = ("cp_", "check_same_thread", "txn_limit", "connection_factory", "cursor_factory")
"""Arguments that Synapse keeps for itself, or that are psycopg2's and not libpq's."""
EXTRA: Final = "postgres"


class DatabaseError(SynapseMediaError):
    """The homeserver's database could not be reached or read."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the homeserver's database is.

    Attributes:
        arguments: of `sqlite3.connect` or of libpq. They may hold the password.
        said: how messages name it.
        setting: where it was read from.
    """

    engine: Literal["sqlite3", "psycopg2"]
    arguments: Mapping[str, Any] = field(repr=False)
    said: str
    setting: str


@dataclass(frozen=True, slots=True)
class Known:
    """A file that the database knows.

    Attributes:
        path: where Synapse keeps it, below the media store and below the prefix alike.
        former: where an older Synapse kept it, and where it is still looked for; "" where that is nowhere else.
        origin: the server that the media is from; "" for local media.
        size: bytes; None where the database does not tell.
        accessed: when it was last asked for, or else when it was made; seconds since 1970.
        quarantined: an administrator has it not served.
        owner: the user who uploaded it, `@u:server`; "" for remote media, and where nobody did.
    """

    path: str
    former: str
    origin: str
    media_id: str
    thumbnail: bool
    size: int | None
    accessed: float
    quarantined: bool
    owner: str = ""


# ---- paths


def _path(*parts: str) -> str:
    """Parts joined; "" where Synapse itself refuses one of them, so that the file can't be served."""
    return "/".join(parts) if all(_ALLOWED.match(part) and part not in (".", "..") for part in parts) else ""


def _split(file_id: str) -> tuple[str, str, str]:
    return file_id[:2], file_id[2:4], file_id[4:]


def original(origin: str, file_id: str) -> str:
    """The path of media itself; "" where Synapse refuses the name.

    Args:
        origin: "" for local media.
        file_id: the media ID of local media, the `filesystem_id` of remote media.
    """
    return _path("remote_content", origin, *_split(file_id)) if origin else _path("local_content", *_split(file_id))


def thumbnail(origin: str, file_id: str, size: tuple[int, int], content_type: str, method: str) -> tuple[str, str]:
    """The path of a thumbnail, and its former one; "" where there is none. As `original`.

    Args:
        size: width and height.
    """
    kind, _, subtype = content_type.partition("/")
    name = f"{size[0]}-{size[1]}-{kind}-{subtype}"
    if not origin:
        return _path("local_thumbnails", *_split(file_id), f"{name}-{method}"), ""
    above = ("remote_thumbnail", origin, *_split(file_id))
    return _path(*above, f"{name}-{method}"), _path(*above, name)


# ---- where the database is


def of_settings(settings: Mapping[str, Any], file: str) -> Source | None:
    """The database of a homeserver.yaml, from its settings as plain data; None where it names none.

    Raises UsageError where the setting can't be used.
    """
    setting, found = f"{file}: database", settings.get("database")
    several = settings.get("databases")
    if not found and isinstance(several, Mapping):
        for name, each in several.items():
            stores = each.get("data_stores") if isinstance(each, Mapping) else None
            if isinstance(each, Mapping) and (stores is None or "main" in stores):
                setting, found = f"{file}: databases.{name}", each
                break
    if not found and settings.get("database_path"):
        setting, found = f"{file}: database_path", {"args": {"database": settings["database_path"]}}
    if not found:
        return None
    engine = found.get("name", SQLITE) if isinstance(found, Mapping) else None
    arguments = found.get("args") or {} if isinstance(found, Mapping) else None
    if engine not in (SQLITE, POSTGRESQL) or not isinstance(arguments, Mapping):
        raise UsageError(
            f"{setting} can't be read; allowed: name: {SQLITE} or {POSTGRESQL}, with args, as Synapse has it. Name the "
            "database by --database."
        )
    plain = {str(name): value for name, value in arguments.items() if not str(name).startswith(_OF_POOL)}
    if engine == SQLITE:
        return _sqlite(Path(str(plain.get("database", ""))), f"{setting}.args.database", beside=Path(file).parent)
    if "dsn" in plain:
        # Not by its own words: an error of libpq repeats what it can't read, which may be the password.
        raise UsageError(
            f"{setting}.args has dsn, of which no error could be shown without a secret; allowed: user, password, "
            "host, port and dbname. Name the database by --database, and its password by PGPASSWORD or ~/.pgpass."
        )
    remember(str(plain.get("password") or ""))
    # psycopg2 has a second name for it, libpq has not.
    if "database" in plain:
        plain["dbname"] = plain.pop("database")
    return Source("psycopg2", plain, _said(plain), setting)


def of_option(value: str) -> Source:
    """The database that `--database` names: a file of SQLite, or a `postgresql://` URL without password.

    Raises UsageError, which repeats nothing of what may be a connection string: a password may stand anywhere in it.
    """
    if Path(value).is_file() or _PATH.match(value):
        return _sqlite(Path(value), "--database", beside=Path())
    plain = unquote(value)
    # A password with "/", "?" or "#" in it is one to libpq, or was meant as one, wherever it would end by RFC 3986.
    if re.search(r":[^/].*@", plain, re.DOTALL) or re.search(r"password\w*\s*=", plain, re.IGNORECASE):
        raise UsageError(
            "--database has a password, which every user of this machine can read in the list of processes; allowed: "
            "postgresql://USER@HOST:PORT/NAME. Let --config name homeserver.yaml, which has it, or set PGPASSWORD or "
            "~/.pgpass."
        )
    # With a space or "?" in it: no form of a connection string begins so.
    if re.match(r"\.{0,2}/(?!/)", value):
        return _sqlite(Path(value), "--database", beside=Path())
    said = _said_of_url(value)
    if said is None:
        raise UsageError(
            "--database is no file and no URL of PostgreSQL; allowed: a file of SQLite, or "
            f"postgresql://USER@HOST:PORT/NAME, with ?NAME=VALUE of {', '.join(sorted(_PARAMETERS))}"
        )
    return Source("psycopg2", {"conninfo": value}, said, "--database")


def _said_of_url(value: str) -> str | None:
    """How messages name the database of a URL, by its parts that are no secrets; None if it is no URL for libpq."""
    if _NO_TEXT.search(value) or re.search(r"\s|#", value):
        return None
    try:
        parts = urlsplit(value)
        found = {
            "dbname": parts.path.lstrip("/"),
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            **dict(parse_qsl(parts.query, strict_parsing=bool(parts.query))),
        }
    except ValueError:
        return None
    # The scheme as it is written: libpq takes no other letters.
    if value.partition("://")[0] not in ("postgres", "postgresql") or found.keys() - _PARAMETERS:
        return None
    return _said(found)


def _sqlite(path: Path, setting: str, beside: Path) -> Source:
    # Synapse takes a relative path from where it was started, which nobody knows here.
    found = path if path.is_absolute() or path.is_file() else beside / path
    if str(path) == "." or not found.is_file():
        raise UsageError(
            f"{setting} is {str(path)!r}, and there is no such file; allowed: the homeserver's SQLite database, or "
            "postgresql://USER@HOST:PORT/NAME. Name it by --database."
        )
    return Source("sqlite3", {"database": str(found)}, str(found), setting)


def _said(arguments: Mapping[str, Any]) -> str:
    names = ("dbname", "host", "port", "user")
    return "PostgreSQL " + " ".join(f"{name}={arguments[name]}" for name in names if arguments.get(name))


# ---- reading


class Database:
    """An open database of a homeserver; a context manager. Raises DatabaseError in whatever it does."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._connection: Any = None
        self._mark = "?" if source.engine == SQLITE else "%s"

    def __enter__(self) -> Self:
        self._connection = connected(self.source)
        try:
            self._rows("SELECT media_id FROM local_media_repository LIMIT 1", ())
        except DatabaseError as error:
            self._connection.close()
            raise DatabaseError(
                f"{error} Is {self.source.setting} the database of Synapse, and may this user read it?"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @property
    def server_name(self) -> str:
        """What stands in the IDs of this homeserver's users; "" where it has none."""
        # In both of these tables all users are this homeserver's.
        for query in (
            "SELECT user_id FROM local_media_repository WHERE user_id IS NOT NULL LIMIT 1",
            "SELECT name FROM users LIMIT 1",
        ):
            if rows := self._rows(query, ()):
                return str(rows[0][0]).partition(":")[2]
        return ""

    def require_homeserver(self, store: StorageOutputs) -> None:
        """Require that a store is this homeserver's, where it can be told. Raises DatabaseError."""
        from synapse_media.renderer import domain

        if self.server_name not in ("", store.server_name, domain(store.server_name)):
            raise DatabaseError(
                f"{self.source.setting}: {self.source.said} is the database of {self.server_name}, and --store is of "
                f"{store.server_name}: what one homeserver knows says nothing of the media of another. Name the "
                "database of this homeserver, or its store.json."
            )

    def media(self) -> Iterator[Known]:
        """Every file that Synapse can serve: originals, each followed by its thumbnails; no URL previews.

        Media whose upload was announced and has not come is no file yet.
        """
        yield from self._local("", ())
        yield from self._remote()

    def of_user(self, user_id: str) -> Iterator[Known]:
        """What a user of this homeserver uploaded, as `media`. Raises UsageError where the user has no media here."""
        if not re.match(r"@[^:]*:.", user_id) or _NO_TEXT.search(user_id):
            raise UsageError(f"--user is {user_id!r}; allowed: @NAME:SERVER")
        found = False
        for known in self._local(f"AND user_id = {self._mark}", (user_id,)):
            found = True
            yield known
        if not found:
            raise UsageError(
                f"--user is {user_id!r}, and {self.source.said} has no media of that user; allowed: a user of this "
                "homeserver who has uploaded media"
            )

    def of_room(self, room_id: str) -> Iterator[Known]:
        """What the events of a room show, as `media`: as Synapse itself finds it (get_media_mxcs_in_room), each once.

        Media of encrypted rooms is named in what only its members can read, and is not found.

        Raises UsageError where the room is not known here.
        """
        if not room_id.startswith("!") or _NO_TEXT.search(room_id):
            raise UsageError(f"--room is {room_id!r}; allowed: a room ID, !…, not an alias (#…)")
        if not self._rows(f"SELECT 1 FROM rooms WHERE room_id = {self._mark}", (room_id,)):  # noqa: S608 - a mark
            raise UsageError(
                f"--room is {room_id!r}, which {self.source.said} does not know; allowed: the ID of a room of this "
                "homeserver"
            )
        server_name = self.server_name
        seen: set[tuple[str, str]] = set()
        for origin, media_id in self._shown_in(room_id):
            if (origin, media_id) in seen:
                continue
            seen.add((origin, media_id))
            if origin == server_name:
                yield from self._local(f"AND media_id = {self._mark}", (media_id,))
            else:
                yield from self._remote(origin, media_id)

    def _shown_in(self, room_id: str) -> Iterator[tuple[str, str]]:
        """(server, media ID) of what the events of a room show, the latest first."""
        before: int | None = None
        while True:
            earlier = f"AND stream_ordering < {self._mark}" if before is not None else ""
            rows = self._rows(
                "SELECT stream_ordering, json FROM events JOIN event_json USING (room_id, event_id) "  # noqa: S608
                f"WHERE room_id = {self._mark} {earlier} AND contains_url = {self._true} AND outlier = {self._false} "
                "ORDER BY stream_ordering DESC LIMIT 100",
                (room_id, *([before] if before is not None else [])),
            )
            for _, text in rows:
                yield from _shown(text)
            if not rows:
                return
            before = rows[-1][0]

    @property
    def _true(self) -> str:
        return "1" if self.source.engine == SQLITE else "TRUE"

    @property
    def _false(self) -> str:
        return "0" if self.source.engine == SQLITE else "FALSE"

    def _local(self, where: str, values: Sequence[Any]) -> Iterator[Known]:
        mark, after = self._mark, ""
        while True:
            rows = self._rows(
                "SELECT media_id, media_length, COALESCE(last_access_ts, created_ts), quarantined_by, user_id "  # noqa: S608
                f"FROM local_media_repository WHERE media_id > {mark} AND url_cache IS NULL "
                f"AND media_length IS NOT NULL {where} ORDER BY media_id LIMIT {PAGE}",
                (after, *values),
            )
            if not rows:
                return
            small: dict[str, list[tuple[Any, ...]]] = {}
            for media_id, *each in self._rows(
                "SELECT media_id, thumbnail_width, thumbnail_height, thumbnail_type, thumbnail_method, "  # noqa: S608
                f"thumbnail_length FROM local_media_repository_thumbnails WHERE media_id >= {mark} "
                f"AND media_id <= {mark}",
                (rows[0][0], rows[-1][0]),
            ):
                small.setdefault(media_id, []).append(tuple(each))
            for media_id, size, accessed, quarantined, owner in rows:
                if path := original("", media_id):
                    common = (self._seconds(accessed), bool(quarantined), owner or "")
                    yield Known(path, "", "", media_id, False, size, *common)
                    yield from _small("", media_id, media_id, small.get(media_id, ()), common)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def _remote(self, origin: str = "", media_id: str = "") -> Iterator[Known]:
        mark, after = self._mark, ("", "")
        columns = "media_origin, media_id"
        while True:
            place, values = f"({columns}) > ({mark}, {mark})", after
            if origin:
                place, values = f"({columns}) = ({mark}, {mark})", (origin, media_id)
            rows = self._rows(
                f"SELECT {columns}, media_length, COALESCE(last_access_ts, created_ts), quarantined_by, "  # noqa: S608
                f"filesystem_id FROM remote_media_cache WHERE {place} ORDER BY {columns} LIMIT {PAGE}",
                values,
            )
            if not rows:
                return
            small: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
            for server, name, *each in self._rows(
                f"SELECT {columns}, thumbnail_width, thumbnail_height, thumbnail_type, thumbnail_method, "  # noqa: S608
                f"thumbnail_length FROM remote_media_cache_thumbnails WHERE ({columns}) >= ({mark}, {mark}) "
                f"AND ({columns}) <= ({mark}, {mark})",
                (*rows[0][:2], *rows[-1][:2]),
            ):
                small.setdefault((server, name), []).append(tuple(each))
            for server, name, size, accessed, quarantined, file_id in rows:
                if path := original(server, file_id or ""):
                    common = (self._seconds(accessed), bool(quarantined), "")
                    yield Known(path, "", server, name, False, size, *common)
                    yield from _small(server, name, file_id, small.get((server, name), ()), common)
            if origin or len(rows) < PAGE:
                return
            after = rows[-1][:2]

    def _seconds(self, milliseconds: object) -> float:
        """A time of the database, in seconds. Raises DatabaseError: SQLite keeps anything in a column of numbers."""
        if milliseconds is not None and not isinstance(milliseconds, int | float):
            raise DatabaseError(
                f"{self.source.said}: last_access_ts or created_ts of some media is {str(milliseconds)[:40]!r}; "
                "allowed: milliseconds since 1970. Correct the row, and run this again."
            )
        return float(milliseconds or 0) / 1000

    def _rows(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return page(self._connection, self.source, query, values)


def _small(
    origin: str, media_id: str, file_id: str, rows: Sequence[tuple[Any, ...]], common: tuple[float, bool, str]
) -> Iterator[Known]:
    for width, height, content_type, method, size in rows:
        path, former = thumbnail(origin, file_id, (width, height), content_type or "", method or "")
        if path:
            yield Known(path, former, origin, media_id, True, size, *common)


def _shown(text: str) -> Iterator[tuple[str, str]]:
    try:
        content = json.loads(text)["content"]
        info = content.get("info")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    for url in (content.get("url"), info.get("thumbnail_url") if isinstance(info, Mapping) else None):
        match = _MXC.match(url) if isinstance(url, str) else None
        # Any member of the room chose it.
        if match and not _NO_TEXT.search(match[0]):
            yield match[1], match[2]


def page(connection: Any, source: Source, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows of a query. Raises DatabaseError.

    Args:
        connection: as `connected` gives it.
    """
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute(query, tuple(values))
            rows = [tuple(row) for row in cursor.fetchall()]
        # The transaction, and with it SQLite's lock and PostgreSQL's snapshot, ends with the page.
        connection.rollback()
    except Exception as error:
        if not _is_of_database(error):
            raise
        raise DatabaseError(f"{source.said}: {_first_line(error)}.") from None
    return rows


def connected(source: Source) -> Any:
    """A connection that can only read. Raises DatabaseError."""
    if source.engine == SQLITE:
        try:
            address = f"file:{quote(os.fsencode(source.arguments['database']))}?mode=ro"
            return sqlite3.connect(address, uri=True, timeout=_PATIENCE)
        except sqlite3.Error as error:
            raise DatabaseError(f"{source.setting} is {source.said}: {_first_line(error)}.") from None
    try:
        import psycopg
    except ModuleNotFoundError:
        raise DatabaseError(
            f"{source.setting} is a PostgreSQL database: reading it needs the package psycopg, which is not installed "
            f"here: pip install 'synapse-media[{EXTRA}]'"
        ) from None
    except ImportError as error:
        # Without its `binary` it looks for the system's libpq.
        raise DatabaseError(
            f"{source.setting}: psycopg can't be loaded ({_first_line(error)}): pip install 'synapse-media[{EXTRA}]'"
        ) from None
    try:
        connection = psycopg.connect(**{"connect_timeout": _PATIENCE, **source.arguments})
        connection.read_only = True
    except Exception as error:
        if not _is_of_database(error):
            raise
        raise DatabaseError(
            f"{source.setting} is {source.said}: {_first_line(error)}. Is the database reached from here by this "
            "address? That of a container is known to containers only: name it by --database, as this machine reaches "
            "it."
        ) from None
    return connection


def _is_of_database(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return True
    with suppress(ImportError):
        import psycopg

        return isinstance(error, psycopg.Error)
    return False


def _first_line(error: object) -> str:
    return redacted(str(error).strip().split("\n", 1)[0])[:300].rstrip(".")
