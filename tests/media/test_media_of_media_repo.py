"""`media verify` of what matrix-media-repo keeps, by a real PostgreSQL with its tables."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synapse_media.engine.embedded import Running
from synapse_media.media import database, media_repo
from tests.doubles import proxy
from tests.end_to_end import postgresql
from tests.media.test_media_copy import with_keys
from tests.media.test_media_restore import small_disk
from tests.media.test_media_verify import counts
from tests.media.worlds import World, world

# Of the migrations of v1.3.8, those of these tables, in their order:
# https://github.com/t2bot/matrix-media-repo/tree/v1.3.8/migrations
SCHEMA = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE TABLE media (
    origin TEXT NOT NULL, media_id TEXT NOT NULL, upload_name TEXT NOT NULL, content_type TEXT NOT NULL,
    user_id TEXT NOT NULL, sha256_hash TEXT NOT NULL, size_bytes BIGINT NOT NULL, location TEXT NOT NULL,
    creation_ts BIGINT NOT NULL
);
CREATE UNIQUE INDEX media_index ON media (media_id, origin);
CREATE TABLE thumbnails (
    origin TEXT NOT NULL, media_id TEXT NOT NULL, width INT NOT NULL, height INT NOT NULL, method TEXT NOT NULL,
    content_type TEXT NOT NULL, size_bytes BIGINT NOT NULL, location TEXT NOT NULL, creation_ts BIGINT NOT NULL
);
ALTER TABLE media ADD COLUMN quarantined BOOL NOT NULL DEFAULT FALSE;
ALTER TABLE thumbnails ADD COLUMN sha256_hash TEXT NULL DEFAULT NULL;
ALTER TABLE thumbnails ALTER COLUMN sha256_hash SET NOT NULL;
ALTER TABLE media ADD COLUMN datastore_id TEXT NOT NULL DEFAULT '';
ALTER TABLE thumbnails ADD COLUMN datastore_id TEXT NOT NULL DEFAULT '';
"""


class Repository:
    """matrix-media-repo's database, and its objects in a bucket."""

    def __init__(self, at: World, connection: Any, url: str) -> None:
        self.at, self.connection, self.url = at, connection, url

    def media(
        self, media_id: str, location: str, content: bytes = b"content", *, origin: str = "example.com", in_: str = "s3"
    ) -> None:
        self.connection.execute(
            "INSERT INTO media (origin, media_id, upload_name, content_type, user_id, sha256_hash, size_bytes, "
            "location, creation_ts, datastore_id) VALUES (%s, %s, '', '', '', %s, %s, %s, 0, %s)",
            (origin, media_id, hashlib.sha256(content).hexdigest(), len(content), location, in_),
        )

    def thumbnail(self, media_id: str, location: str, content: bytes = b"content") -> None:
        self.connection.execute(
            "INSERT INTO thumbnails VALUES ('example.com', %s, 32, 32, 'crop', '', %s, %s, 0, %s, 's3')",
            (media_id, len(content), location, hashlib.sha256(content).hexdigest()),
        )

    def verify(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        return self.at.run("verify", "--database", self.url, *arguments)


@pytest.fixture
def repository(
    embedded_store: Running,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    postgresql_server: postgresql.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Repository]:
    import psycopg

    at = world(embedded_store, tmp_path, capsys, "")
    at.store = replace(at.store, method="matrix-media-repo", media_repo={"s3_datastore_id": "s3"})
    at.save(at.store)
    server = postgresql_server
    monkeypatch.setenv("PGPASSWORD", server.password)
    given = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    with psycopg.connect(**given, dbname=server.database, autocommit=True) as connection:
        connection.execute(SCHEMA)
        yield Repository(at, connection, server.url)


def test_everything_is_there_with_its_hash(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    at = repository.at
    for number in range(5):
        content = b"content" * number
        at.write(f"local_content/aa/bb/file{number}", content)
        repository.media(f"aabbfile{number}", f"ab/cdef{number}idv2fmt", content)
        at.put(f"ab/cdef{number}idv2fmt", content)
    repository.media("elsewhere", "of another server", origin="b.example")
    at.put("of another server")
    repository.media("aabbcopy", "of another server", origin="c.example")
    repository.thumbnail("aabbfile1", "small")
    at.put("small")
    repository.media("on disk", "aa/bb/cc", in_="file")
    monkeypatch.setattr(database, "PAGE", 2)
    monkeypatch.setattr(media_repo, "_BATCH", 2)
    code, answer, said = repository.verify()
    assert (code, counts(answer)) == (0, {"verified": 7}), said
    assert f"reading 7 objects, {7 * 10 + 14} bytes" in said


def test_what_is_wrong_is_told(repository: Repository) -> None:
    at = repository.at
    for name in ("fine", "missing", "other", "half", "changed"):
        repository.media(f"aabb{name}", f"key of {name}")
        at.write(f"local_content/aa/bb/{name}", b"tnetnoc" if name == "changed" else b"content")
        if name != "missing":
            at.put(f"key of {name}", {"other": b"tnetnoc", "half": b"con"}.get(name, b"content"))
    at.write("local_content/aa/bb/new")
    at.put("nobody's")
    code, answer, _ = repository.verify()
    assert code == 1
    assert counts(answer) == {"verified": 2, "missing": 2, "different": 2, "damaged": 1, "orphans": 1}
    assert answer["missing"]["first"] == ["key of missing", "local_content/aa/bb/new"]
    assert answer["different"]["first"] == ["key of other", "local_content/aa/bb/changed"]
    assert answer["damaged"]["first"] == ["key of half"]
    assert answer["reasons"]["local_content/aa/bb/new"].endswith("it was not imported")


def test_an_object_that_can_not_be_read(repository: Repository) -> None:
    at = repository.at
    for name in ("good", "bad"):
        repository.media(f"aabb{name}", name)
        at.put(name)
    with proxy.in_front_of(at.store.endpoint_url) as double:
        double.misbehave(proxy.truncated, when=lambda request: request.method == "GET" and request.key == "bad")
        at.save(replace(at.store, endpoint_url=double.url))
        code, answer, _ = repository.verify()
    assert (code, counts(answer)) == (1, {"verified": 1, "unreadable": 1})
    assert answer["unreadable"]["first"] == ["bad"]


def test_a_full_disk_of_temporary_files_says_nothing_of_the_objects(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at, content = repository.at, bytes(2 << 20)
    repository.media("aabbcc", "large", content)
    at.put("large", content)
    place = tmp_path / "small"
    place.mkdir()
    with small_disk(place, "1m"):
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        code, _, said = repository.verify()
    assert code == 1
    assert f"{place} is full" in said
    assert "2 MiB of objects that are to be compared are written there" in said


def test_tables_that_can_not_be_written(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.media("aabbcc", "key")

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(media_repo, "_read", full)
    code, _, said = repository.verify()
    assert code == 1
    assert "the tables of this run, in $TMPDIR or else /var/tmp, can't be written: database or disk is full" in said


def test_a_location_that_leads_elsewhere_is_not_followed(repository: Repository) -> None:
    at = repository.at
    repository.media("aabbcc", "../../../etc/hostname", b"con")
    with proxy.in_front_of(at.store.endpoint_url) as double:
        double.misbehave(with_keys("../../../etc/hostname"))
        at.save(replace(at.store, endpoint_url=double.url))
        code, answer, _ = repository.verify()
        assert not any(exchange.target.partition("?")[0].endswith("hostname") for exchange in double.exchanges)
    assert (code, counts(answer)) == (1, {"unreadable": 1})
    assert "a name that matrix-media-repo gives to nothing" in answer["reasons"]["../../../etc/hostname"]


def test_nothing_is_written_to_the_database(repository: Repository) -> None:
    source = database.of_option(repository.url)
    connection = database.connected(source)
    try:
        with pytest.raises(Exception, match="read-only"):
            connection.execute("DELETE FROM media")
    finally:
        connection.close()


def test_another_datastore_or_database(repository: Repository) -> None:
    repository.media("aabbcc", "key", in_="another")
    code, _, said = repository.verify()
    assert code == 1
    assert "has no media of the datastore 's3'" in said
    repository.connection.execute("DROP TABLE media")
    code, _, said = repository.verify()
    assert code == 1
    assert 'relation "media" does not exist' in said


@pytest.mark.parametrize("arguments", [(), ("--database", "X", "--report", "report")])
def test_usage(repository: Repository, arguments: tuple[str, ...]) -> None:
    given = [repository.url if each == "X" else each for each in arguments]
    code, _, said = repository.at.run("verify", *given)
    assert code == 64
    assert "allowed: --database postgresql://USER@HOST/NAME" in said


def test_a_file_is_no_database_of_it(repository: Repository) -> None:
    code, _, said = repository.at.run("verify", "--database", repository.at.know())
    assert code == 64
    assert "the database of matrix-media-repo, postgresql://" in said
