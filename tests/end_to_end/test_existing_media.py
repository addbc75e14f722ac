"""Media from before there was a bucket: copied, verified, freed and restored around the real Synapse."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main
from synapse_media.contract import StorageOutputs, to_json
from tests.doubles import proxy
from tests.end_to_end import postgresql, synapse
from tests.end_to_end.by_hand import Admin

OLD = time.time() - 100 * 24 * 3600
REMOTE = synapse.Media("mxc://remote.example:8448/theirId")
REMOTE_PATH = "remote_content/remote.example:8448/fi/le/SystemId"


@dataclass(slots=True)
class World:
    """A homeserver with media, and a store that it does not use yet."""

    home: synapse.Home
    store: StorageOutputs
    store_file: Path
    drop_in: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, action: str, *arguments: object) -> tuple[int, dict[str, Any]]:
        """(exit code, answer) of a `media` command, with what `--json` has."""
        self.capsys.readouterr()
        words = [action, str(self.home.media), "--store", str(self.store_file), "--json", *map(str, arguments)]
        code = main(["media", *words])
        said = self.capsys.readouterr()
        assert said.out, said.err
        return code, json.loads(said.out)

    @property
    def configured(self) -> tuple[object, ...]:
        return "--config", self.home.base, "--config", self.drop_in

    def make_old(self) -> None:
        """Nobody asked for any of it in a hundred days."""
        for path in self.home.media.rglob("*"):
            os.utime(path, (OLD, OLD))
        with self.database() as execute:
            for table in ("local_media_repository", "remote_media_cache"):
                execute(f"UPDATE {table} SET created_ts = {int(OLD * 1000)}, last_access_ts = {int(OLD * 1000)}")  # noqa: S608

    @contextmanager
    def database(self) -> Iterator[Callable[[str], object]]:
        if self.home.database is None:
            with closing(sqlite3.connect(self.home.sqlite, timeout=60)) as connection, connection:
                yield connection.execute
            return
        import psycopg

        arguments = self.home.database["args"]
        names = {"user": "user", "password": "password", "host": "host", "port": "port", "database": "dbname"}
        with psycopg.connect(**{name: arguments[given] for given, name in names.items()}) as connection:
            yield connection.execute


@pytest.fixture(params=["sqlite", "postgresql"])
def at(
    request: pytest.FixtureRequest,
    home: synapse.Home,
    admin: Admin,
    rendered: Callable[..., dict[str, Path]],
) -> World:
    if request.param == "postgresql":
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        import psycopg

        with psycopg.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, dbname=server.database
        ) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        home = replace(home, database=server.settings)
    store = admin.provision(prefix="media/")
    store_file = home.directory / "store.json"
    store_file.write_text(json.dumps(to_json(store)))
    store_file.chmod(0o600)
    return World(
        home, store, store_file, rendered(store)["conf.d/synapse-media.yaml"], request.getfixturevalue("capsys")
    )


def test_copy_verify_free_and_restore(at: World, picture: bytes) -> None:
    contents = [(os.urandom(100_000), ""), (picture, "image/jpeg"), (os.urandom(9 << 20), ""), (b"x", "text/plain")]
    with at.home.running() as server:
        alice, bob = server.register("alice"), server.register("bob")
        media = {server.upload(alice, content, kind): content for content, kind in contents}
        of_bob = os.urandom(1000)
        media[server.upload(bob, of_bob)] = of_bob
        image = next(each for each, content in media.items() if content == picture)
        thumbnail = server.thumbnail(alice, image)
    remote = at.home.media / REMOTE_PATH
    remote.parent.mkdir(parents=True)
    remote.write_bytes(b"of another server")
    with at.database() as execute:
        execute(
            "INSERT INTO remote_media_cache (media_origin, media_id, media_type, created_ts, upload_name, "
            "media_length, filesystem_id) VALUES ('remote.example:8448', 'theirId', 'text/plain', 1, 'a', 17, "
            "'fileSystemId')"
        )
    media[REMOTE] = b"of another server"
    at.make_old()
    before = synapse.files_of(at.home.media)
    assert len(before) > len(media) + 3

    def all_is_served(server: synapse.Homeserver, user: synapse.User = alice) -> None:
        assert {each: server.download(user, each) for each in media} == media
        assert server.thumbnail(user, image) == thumbnail

    # Nothing goes before it is copied, and before Synapse looks into the bucket.
    code, _ = at.run("free", "--config", at.home.base, "--older-than", "30d", "--delete")
    assert code == 1
    code, answer = at.run("verify", *at.configured)
    assert (code, answer["missing"]["files"]) == (1, len(before))
    code, answer = at.run("free", *at.configured, "--older-than", "30d", "--delete")
    assert (code, answer["freed"]["files"]) == (1, 0)
    assert synapse.files_of(at.home.media) == before

    code, _ = at.run("copy")
    assert code == 0
    code, answer = at.run("verify", *at.configured)
    assert (code, answer["verified"]["files"]) == (0, len(before))
    assert answer["lost"]["files"] == answer["unknown"]["files"] == answer["damaged"]["files"] == 0

    with at.home.running(at.drop_in) as server:
        all_is_served(server)
        new = server.upload(alice, b"uploaded since")
    at.make_old()
    with at.database() as execute:
        execute("UPDATE remote_media_cache SET last_access_ts = 4000000000000")
    with at.home.running(at.drop_in) as server:
        code, answer = at.run("free", *at.configured, "--older-than", "30d")
        assert (code, answer["deleted"], answer["age_by"]) == (0, False, "last access")
        code, answer = at.run("free", *at.configured, "--older-than", "30d", "--delete")
        assert (code, answer["young"]["files"]) == (0, 1)
        assert set(synapse.files_of(at.home.media)) == {REMOTE_PATH}
        media[new] = b"uploaded since"
        all_is_served(server)
        shutil.rmtree(at.home.media)
        at.home.media.mkdir()
        all_is_served(server)
        code, answer = at.run("verify", *at.configured)
        assert (code, answer["lost"]["files"], answer["extra"]["files"]) == (0, 0, len(before) + 1)

    code, _ = at.run("restore")
    assert code == 0
    assert synapse.files_of(at.home.media).items() >= before.items()
    with at.home.running() as server:
        all_is_served(server)


def test_an_upload_that_never_reached_the_bucket_is_found_and_mended(at: World) -> None:
    """With store_synchronous off Synapse says that it has the media, and only its log that the bucket has not."""
    asynchronous = at.drop_in.with_name("asynchronous.yaml")
    with proxy.in_front_of(at.store.endpoint_url) as double:
        double.misbehave(proxy.internal_error, when=lambda request: request.method in ("PUT", "POST"))
        text = at.drop_in.read_text().replace(at.store.endpoint_url, double.url)
        asynchronous.write_text(text.replace("store_synchronous: true", "store_synchronous: false"))
        with at.home.running(asynchronous) as server:
            alice = server.register("alice")
            media = server.upload(alice, b"only here")
    assert double.exchanges
    at.make_old()
    code, answer = at.run("verify", *at.configured)
    assert (code, answer["missing"]["files"]) == (1, 1)
    code, answer = at.run("free", *at.configured, "--older-than", "30d", "--delete")
    assert (code, answer["freed"]["files"], answer["unverified"]["files"]) == (1, 0, 1)
    assert at.run("copy")[0] == 0
    code, answer = at.run("free", *at.configured, "--older-than", "30d", "--delete")
    assert (code, answer["freed"]["files"]) == (0, 1)
    with at.home.running(at.drop_in) as server:
        assert server.download(alice, media) == b"only here"
