"""Which files the homeserver's database knows, on Synapse's own schemas in SQLite and PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from synapse_media.errors import UsageError
from synapse_media.media import database
from synapse_media.media.database import Database, DatabaseError, Source, of_option, of_settings
from tests.end_to_end import postgresql, synapse

ROOM = "!room:example.com"
_NAMES = """
import json, sys
from synapse.media.filepath import MediaFilePaths
paths, answers = MediaFilePaths("/"), []
for name, arguments in json.load(sys.stdin):
    try:
        answers.append(getattr(paths, name)(*arguments))
    except ValueError:
        answers.append("")
print(json.dumps(answers))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """A database of Synapse's own schema, with the rows below."""
    if request.param == "sqlite":
        file = tmp_path / "homeserver.db"
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(schema("sqlite"))
            fill(connection, "?")
            connection.commit()
        return of_option(str(file))
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    import psycopg

    given = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    with psycopg.connect(**given, dbname=server.database) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        connection.execute(schema("postgres"))
        connection.execute("SET search_path TO public")
        fill(connection, "%s")
    found = of_settings({"database": server.settings}, "homeserver.yaml")
    assert found is not None
    return found


def schema(engine: str) -> str:
    (file,) = (
        synapse.installed()
        .parents[1]
        .glob(f"lib/python*/site-packages/synapse/storage/schema/main/full_schemas/72/full.sql.{engine}")
    )
    return file.read_text()


def fill(connection: Any, mark: str) -> None:
    def insert(table: str, **values: object) -> None:
        columns = ", ".join(values)
        marks = ", ".join([mark] * len(values))
        connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))  # noqa: S608

    def local(media_id: str, **values: object) -> None:
        given = {"media_length": 10, "created_ts": 1_000_000, "user_id": "@alice:example.com", **values}
        insert("local_media_repository", media_id=media_id, **given)

    def remote(origin: str, media_id: str, file_id: str, **values: object) -> None:
        given = {"media_length": 20, "created_ts": 2_000_000, **values}
        insert("remote_media_cache", media_origin=origin, media_id=media_id, filesystem_id=file_id, **given)

    small = {
        "thumbnail_width": 32,
        "thumbnail_height": 24,
        "thumbnail_type": "image/png",
        "thumbnail_method": "crop",
        "thumbnail_length": 5,
    }
    local("AAbbCCdd", last_access_ts=3_000_000)
    local("quarantined", quarantined_by="@admin:example.com")
    local("ofBobsWithoutOwner", user_id=None)
    local("announced", media_length=None)
    local("2026-11-26previewed", url_cache="https://example.org")
    local("../../etc/passwd")
    local("bobsMedia", user_id="@bob:example.com")
    remote("b.example.org:8448", "zz", "FILEid1")
    remote("a.example.org", "AAbbCCdd", "FILEid2", last_access_ts=4_000_000)
    remote("[2001:db8::1]", "yy", "FILEid3")
    insert("local_media_repository_thumbnails", media_id="AAbbCCdd", **small)
    insert("local_media_repository_thumbnails", media_id="announced", **small)
    insert(
        "remote_media_cache_thumbnails",
        media_origin="a.example.org",
        media_id="AAbbCCdd",
        filesystem_id="FILEid2",
        **small,
    )
    insert("users", name="@alice:example.com")
    insert("rooms", room_id=ROOM, creator="@alice:example.com")
    shown = [
        {"url": "mxc://example.com/AAbbCCdd", "info": {"thumbnail_url": "mxc://example.com/bobsMedia"}},
        {"url": "mxc://a.example.org/AAbbCCdd", "info": "no mapping"},
        {"url": "mxc://example.com/AAbbCCdd"},
        {"url": "https://example.com/AAbbCCdd"},
        {"url": 7, "info": {"thumbnail_url": None}},
        {"url": "mxc://example.com/neverHere"},
        # What any member of the room may send, and no database takes.
        {"url": "mxc://example.com/A\0"},
        {"url": "mxc://a.example.org/\ud800", "info": {"thumbnail_url": "mxc://\0/A"}},
    ]
    outlier = {"url": "mxc://example.com/quarantined"}
    # More than one page.
    for number, content in enumerate([*shown, *[{"url": "mxc://example.com/gone"}] * 250, outlier]):
        event = f"$event{number}"
        insert(
            "events",
            topological_ordering=number,
            event_id=event,
            type="m.room.message",
            room_id=ROOM,
            processed=True,
            outlier=content is outlier,
            depth=number,
            contains_url=True,
            stream_ordering=number + 1,
        )
        insert(
            "event_json", event_id=event, room_id=ROOM, internal_metadata="{}", json=json.dumps({"content": content})
        )


def test_every_file_that_synapse_can_serve(source: Source) -> None:
    with Database(source) as found:
        known = {each.path: each for each in found.media()}
    assert sorted(known) == [
        "local_content/AA/bb/CCdd",
        "local_content/bo/bs/Media",
        "local_content/of/Bo/bsWithoutOwner",
        "local_content/qu/ar/antined",
        "local_thumbnails/AA/bb/CCdd/32-24-image-png-crop",
        "remote_content/[2001:db8::1]/FI/LE/id3",
        "remote_content/a.example.org/FI/LE/id2",
        "remote_content/b.example.org:8448/FI/LE/id1",
        "remote_thumbnail/a.example.org/FI/LE/id2/32-24-image-png-crop",
    ]
    first = known["local_content/AA/bb/CCdd"]
    assert (first.size, first.accessed, first.owner, first.quarantined) == (10, 3000.0, "@alice:example.com", False)
    small = known["remote_thumbnail/a.example.org/FI/LE/id2/32-24-image-png-crop"]
    assert small.former == "remote_thumbnail/a.example.org/FI/LE/id2/32-24-image-png"
    assert (small.thumbnail, small.size, small.accessed, small.origin) == (True, 5, 4000.0, "a.example.org")
    assert known["local_content/qu/ar/antined"].quarantined
    assert known["remote_content/b.example.org:8448/FI/LE/id1"].accessed == 2000.0


@pytest.mark.parametrize("page", [1, 2, 3])
def test_pages_of_any_length_hold_the_same(source: Source, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(source) as found:
        whole = list(found.media())
        monkeypatch.setattr(database, "PAGE", page)
        assert list(found.media()) == whole


def test_the_media_of_a_user(source: Source) -> None:
    with Database(source) as found:
        assert [each.path for each in found.of_user("@bob:example.com")] == ["local_content/bo/bs/Media"]
        assert len(list(found.of_user("@alice:example.com"))) == 3
        with pytest.raises(UsageError, match=r"--user is '@carol:example\.com'.*no media.*allowed"):
            list(found.of_user("@carol:example.com"))
        with pytest.raises(UsageError, match=r"--user is 'bob'; allowed: @NAME:SERVER"):
            list(found.of_user("bob"))


def test_the_media_of_a_room(source: Source) -> None:
    with Database(source) as found:
        assert sorted(each.path for each in found.of_room(ROOM)) == [
            "local_content/AA/bb/CCdd",
            "local_content/bo/bs/Media",
            "local_thumbnails/AA/bb/CCdd/32-24-image-png-crop",
            "remote_content/a.example.org/FI/LE/id2",
            "remote_thumbnail/a.example.org/FI/LE/id2/32-24-image-png-crop",
        ]
        with pytest.raises(UsageError, match=r"--room is '#alias:example\.com'; allowed: a room ID"):
            list(found.of_room("#alias:example.com"))
        with pytest.raises(UsageError, match="does not know"):
            list(found.of_room("!other:example.com"))


def test_nothing_can_be_written(source: Source) -> None:
    with Database(source) as found, pytest.raises(Exception, match=r"readonly|read-only"):
        found._connection.execute("DELETE FROM local_media_repository")


def test_no_page_leaves_a_lock_or_a_snapshot_behind(source: Source, request: pytest.FixtureRequest) -> None:
    """Synapse must go on writing while a large store is read."""
    with Database(source) as found:
        media = found.media()
        next(media)
        if source.engine == database.SQLITE:
            with closing(sqlite3.connect(source.arguments["database"], timeout=0)) as other, other:
                other.execute("UPDATE local_media_repository SET last_access_ts = 5000000")
        else:
            import psycopg

            with psycopg.connect(**source.arguments) as other:
                state = other.execute(
                    "SELECT state FROM pg_stat_activity WHERE pid = %s", (found._connection.info.backend_pid,)
                ).fetchone()
            assert state == ("idle",)
        assert len(list(media)) == 8


def test_paths_are_those_of_synapse_itself() -> None:
    ids = [
        "abcdefgh",
        "abcde",
        "abcd",
        "a",
        "",
        "....x",
        "..",
        "aa..",
        "aa...",
        "a/b/c/d",
        "ab cdef",
        "äöüßab",
        "ab-_.[]:",
    ]
    origins = ["example.org", "[2001:db8::1]:8448", "..", "a/b", "exa mple", "münchen.example"]
    calls: list[tuple[str, list[object]]] = []
    ours: list[str] = []
    for name in ids:
        calls.append(("local_media_filepath_rel", [name]))
        ours.append(database.original("", name))
        calls.append(("local_media_thumbnail_rel", [name, 1, 2, "image/jpeg", "scale"]))
        ours.append(database.thumbnail("", name, (1, 2), "image/jpeg", "scale")[0])
        for origin in origins:
            calls.append(("remote_media_filepath_rel", [origin, name]))
            ours.append(database.original(origin, name))
            small = database.thumbnail(origin, name, (1, 2), "image/png", "crop")
            calls.append(("remote_media_thumbnail_rel", [origin, name, 1, 2, "image/png", "crop"]))
            calls.append(("remote_media_thumbnail_rel_legacy", [origin, name, 1, 2, "image/png"]))
            ours += small
    done = subprocess.run(
        [str(synapse.installed()), "-c", _NAMES], input=json.dumps(calls), capture_output=True, text=True, check=True
    )
    assert ours == json.loads(done.stdout)


class TestWhereTheDatabaseIs:
    def test_settings_of_synapse(self, tmp_path: Path) -> None:
        file = tmp_path / "homeserver.db"
        file.touch()
        given = {"name": "sqlite3", "args": {"database": str(file), "cp_min": 1}}
        for settings in (
            {"database": given},
            {"databases": {"state": {**given, "data_stores": ["state"]}, "all": {**given, "data_stores": ["main"]}}},
            {"database_path": str(file)},
            {"database": {"name": "sqlite3", "args": {"database": "homeserver.db"}}},
        ):
            found = of_settings(settings, str(tmp_path / "homeserver.yaml"))
            assert found is not None
            assert found.arguments == {"database": str(file)}
        assert of_settings({}, "homeserver.yaml") is None

    def test_psycopg2s_names_are_those_of_libpq(self) -> None:
        args = {"user": "u", "password": "p4ssw0rd!", "database": "synapse", "host": "h", "cp_min": 5, "cp_max": 10}
        found = of_settings({"database": {"name": "psycopg2", "txn_limit": 1, "args": args}}, "homeserver.yaml")
        assert found is not None
        assert found.arguments == {"user": "u", "password": "p4ssw0rd!", "dbname": "synapse", "host": "h"}
        assert "p4ssw0rd!" not in f"{found} {found.said}"

    @pytest.mark.parametrize("setting", [{"name": "mysql"}, ["a list"], "text", {"name": "psycopg2", "args": "text"}])
    def test_what_is_no_database(self, setting: object) -> None:
        with pytest.raises(UsageError, match=r"homeserver\.yaml: database can't be read; allowed: .*--database"):
            of_settings({"database": setting}, "homeserver.yaml")

    def test_no_such_file(self) -> None:
        with pytest.raises(UsageError, match=r"--database is '/nowhere/homeserver\.db', and there is no such file"):
            of_option("/nowhere/homeserver.db")

    @pytest.mark.parametrize(
        "value",
        [
            "postgresql://u:s3cret-word@h/d",
            "postgresql://u:s3cret/word@h/d",
            "postgresql://u:s3cret?word@h/d",
            "postgresql://u:s3cret#word@h/d",
            "postgresql://u:s3cret@word@h/d",
            "postgres://h/d?user=u&password=s3cret-word",
            "postgres://h/d?user=u&pass%77ord=s3cret-word",
            "postgresql://u@h/d?sslpassword=s3cret-word",
            "host=h user=u password=s3cret-word dbname=d",
            "host=h user=u PASSWORD = 's3cret-word' dbname=d",
            "postgresql+psycopg2://u:s3cret-word@h/d",
            "PostgreSQL://u:s3cret-word@h/d",
            "postgresql:u:s3cret-word@h/d",
            "postgresql://u:s3cret-word%40h/d",
            "postgresql://u%3As3cret-word@h/d",
            "//u:s3cret-word@h/d",
            "/u:s3cret-word@h/d",
            "~u:s3cret-word@h/d",
            "./u password=s3cret-word",
            "postgresql://h/d?passwordx=s3cret-word",
        ],
    )
    def test_a_password_in_an_argument_is_refused_and_not_repeated(self, value: str) -> None:
        with pytest.raises(UsageError) as caught:
            of_option(value)
        said = str(caught.value)
        assert "s3cret" not in said
        assert "word@" not in said
        assert "postgresql://USER@HOST:PORT/NAME" in said

    @pytest.mark.parametrize(
        "value",
        ["host=h s3cret-word", "mysql://h/s3cret-word", "PostgreSQL://h/s3cret-word", "u:s3cret-word"]
        + ["postgresql://u:s3cret-word", "postgresql://u@h:s3cret-word/d", "postgresql://u@h/d password s3cret-word"]
        + [
            f"postgresql://h/d?{name}=s3cret-word"
            for name in ("pass", "pwd", "oauth_client_secret", "options", "service")
        ]
        + ["postgresql://h/d?s3cret-word", "postgresql://h/d#s3cret-word"],
    )
    def test_what_is_neither_a_file_nor_a_url_is_not_repeated_either(self, value: str) -> None:
        with pytest.raises(UsageError, match="--database is no file and no URL of PostgreSQL; allowed: ") as caught:
            of_option(value)
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize(
        "value", ["postgresql://u@h:5432/d", "postgres:///d?host=/run/postgresql&user=u", "postgresql://u@[::1]:5432/d"]
    )
    def test_a_url_without_a_password(self, value: str) -> None:
        assert of_option(value).arguments == {"conninfo": value}

    def test_a_file_whose_name_looks_like_a_url(self, tmp_path: Path) -> None:
        file = tmp_path / "password=a:b@c"
        file.touch()
        assert of_option(str(file)).arguments == {"database": str(file)}

    def test_what_psycopg2_alone_takes(self) -> None:
        args = {"host": "h", "cursor_factory": "x", "connection_factory": "y"}
        found = of_settings({"database": {"name": "psycopg2", "args": args}}, "homeserver.yaml")
        assert found is not None
        assert found.arguments == {"host": "h"}
        args = {"dsn": "host=h password=s3cret-word"}
        with pytest.raises(UsageError, match=r"homeserver\.yaml: database\.args has dsn.*--database") as caught:
            of_settings({"database": {"name": "psycopg2", "args": args}}, "homeserver.yaml")
        assert "s3cret" not in str(caught.value)

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("no database, but long enough for the header of one " * 10)
        with (
            pytest.raises(DatabaseError, match=r"file is not a database.*Is --database the database of Synapse"),
            Database(of_option(str(file))),
        ):
            pass

    def test_a_database_of_something_else(self, tmp_path: Path) -> None:
        file = tmp_path / "other.db"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE things (name TEXT)")
        with (
            pytest.raises(DatabaseError, match="no such table: local_media_repository"),
            Database(of_option(str(file))),
        ):
            pass

    def test_a_server_that_is_not_there_is_named_without_the_password(self) -> None:
        args = {"user": "u", "password": "p4ssw0rd-of-it", "database": "d", "host": "127.0.0.1", "port": 9}
        found = of_settings({"database": {"name": "psycopg2", "args": args}}, "homeserver.yaml")
        assert found is not None
        with (
            pytest.raises(DatabaseError, match=r"homeserver\.yaml: database is PostgreSQL dbname=d host=127") as caught,
            Database(found),
        ):
            pass
        assert "p4ssw0rd" not in str(caught.value)

    def test_a_wrong_password(self, postgresql_server: postgresql.Server) -> None:
        settings = postgresql_server.settings
        settings["args"]["password"] = "another-p4ssword"
        found = of_settings({"database": settings}, "homeserver.yaml")
        assert found is not None
        with pytest.raises(DatabaseError, match="password authentication failed") as caught, Database(found):
            pass
        assert "another-p4ssword" not in str(caught.value)

    def test_the_package_is_named_where_it_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with (
            pytest.raises(DatabaseError, match=r"psycopg.*pip install 'synapse-media\[postgres\]'"),
            Database(of_option("postgresql://u@127.0.0.1/d")),
        ):
            pass

    def test_by_url_with_the_password_from_the_environment(
        self, source: Source, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if source.engine == database.SQLITE:
            pytest.skip("no password there")
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        monkeypatch.setenv("PGPASSWORD", server.password)
        with Database(of_option(server.url)) as found:
            assert len(list(found.media())) == 9
