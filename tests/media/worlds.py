"""A media store, a bucket on the embedded store, and the commands between them."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main
from synapse_media.contract import PROOF_OBJECT, StorageOutputs, to_json
from synapse_media.engine.embedded import Running
from synapse_media.renderer import render
from tests.cli import shapes
from tests.end_to_end import by_hand
from tests.end_to_end.by_hand import Admin

DAY = 24 * 3600
OLD = 100 * DAY
UNUSUAL = (5 << 20) + 4096
"""Bytes of a part that no program uploads of its own accord."""
KILLS = int(os.environ.get("MEDIA_KILLS", "0"))
"""Random moments at which each command is killed; 0: as many as a test thinks enough."""


def administrator(running: Running) -> Admin:
    """The embedded store with root credentials."""
    return Admin(
        running.endpoint, running.iam_endpoint, running.access_key_id, running.secret_access_key, running.region
    )


@dataclass(slots=True)
class World:
    """A homeserver's directory: its media store, its configuration with this store, and store.json."""

    home: Path
    admin: Admin
    store: StorageOutputs
    capsys: pytest.CaptureFixture[str]
    media: Path = field(init=False)
    config: Path = field(init=False)
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        # Making one takes longer than what it is asked here.
        self.client = by_hand.s3(self.store)
        self.media = self.home / "media_store"
        self.config = self.home / "conf"
        (self.media / "local_content").mkdir(parents=True)
        (self.config / "conf.d").mkdir(parents=True)
        (self.config / "homeserver.yaml").write_text(
            f'server_name: example.com\nmedia_store_path: "{self.media}"\n', encoding="utf-8"
        )
        self.configure(self.store)
        self.save(self.store)

    @property
    def store_file(self) -> Path:
        return self.home / "store.json"

    def configure(self, store: StorageOutputs) -> None:
        """Have Synapse use this store, as `render` would."""
        (self.config / "conf.d" / "synapse-media.yaml").write_text(
            render(by_hand.proved(store), form="plain")["conf.d/synapse-media.yaml"], encoding="utf-8"
        )

    def save(self, store: StorageOutputs) -> None:
        self.store_file.write_text(json.dumps(to_json(store)), encoding="utf-8")
        self.store_file.chmod(0o600)

    def write(self, path: str, content: bytes = b"content", age: float = OLD) -> Path:
        """A file of the media store, last written and asked for so many seconds ago."""
        file = self.media / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (time.time() - age,) * 2)
        return file

    def put(self, path: str, content: bytes = b"content", **more: Any) -> None:
        """An object, under the store's prefix."""
        self.client.put_object(Bucket=self.store.bucket, Key=self.store.prefix + path, Body=content, **more)

    def put_in_parts(self, path: str, content: bytes, part: int) -> None:
        """An object that is uploaded in parts of so many bytes."""
        s3, where = self.client, {"Bucket": self.store.bucket, "Key": self.store.prefix + path}
        upload = s3.create_multipart_upload(**where)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(content), part), start=1):
            piece = content[start : start + part]
            answer = s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=piece)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})

    def both(self, path: str, content: bytes = b"content", age: float = OLD) -> Path:
        """A file, and its object."""
        self.put(path, content)
        return self.write(path, content, age)

    def files(self) -> set[str]:
        # A directory may be removed meanwhile by a command that runs, which os.walk passes over.
        return {
            os.path.relpath(os.path.join(above, name), self.media)  # noqa: PTH118 - as os.walk has them
            for above, _, names in os.walk(self.media)
            for name in names
        }

    def objects(self) -> set[str]:
        """Without what proofs leave."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.store.bucket)
        keys = [item["Key"].removeprefix(self.store.prefix) for page in pages for item in page.get("Contents", [])]
        return {key for key in keys if not key.startswith(PROOF_OBJECT)}

    def run(self, *arguments: object) -> tuple[int, dict[str, Any], str]:
        """(exit code, the answer as JSON, standard error) of a `media` command."""
        action, *rest = map(str, arguments)
        code = main(["media", action, str(self.media), "--store", str(self.store_file), "--json", *rest])
        said = self.capsys.readouterr()
        if not said.out:
            return code, {}, said.err
        shape = "error" if "error" in json.loads(said.out) else f"media-{action}"
        return code, shapes.answer(shape, said.out), said.err

    def free(self, *arguments: object, older_than: str = "30d") -> tuple[int, dict[str, Any], str]:
        return self.run("free", "--config", self.config, "--older-than", older_than, *arguments)

    def know(self, **files: tuple[int, float]) -> Path:
        """A database of SQLite as Synapse has it, that knows local media: {media ID: (bytes, age in seconds)}."""
        file = self.home / "homeserver.db"
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.executescript(
                "CREATE TABLE IF NOT EXISTS users (name TEXT);"
                "CREATE TABLE IF NOT EXISTS local_media_repository (media_id TEXT UNIQUE, media_length INTEGER, "
                "created_ts BIGINT, user_id TEXT, quarantined_by TEXT, url_cache TEXT, last_access_ts BIGINT);"
                "CREATE TABLE IF NOT EXISTS local_media_repository_thumbnails (media_id TEXT, thumbnail_width INTEGER, "
                "thumbnail_height INTEGER, thumbnail_type TEXT, thumbnail_method TEXT, thumbnail_length INTEGER);"
                "CREATE TABLE IF NOT EXISTS remote_media_cache (media_origin TEXT, media_id TEXT, created_ts BIGINT, "
                "media_length INTEGER, filesystem_id TEXT, last_access_ts BIGINT, quarantined_by TEXT);"
                "CREATE TABLE IF NOT EXISTS remote_media_cache_thumbnails (media_origin TEXT, media_id TEXT, "
                "thumbnail_width INTEGER, thumbnail_height INTEGER, thumbnail_method TEXT, thumbnail_type TEXT, "
                "thumbnail_length INTEGER, filesystem_id TEXT);"
            )
            for media_id, (size, age) in files.items():
                connection.execute(
                    "INSERT INTO local_media_repository VALUES (?, ?, ?, '@a:example.com', NULL, NULL, ?)",
                    (media_id, size, 0, int((time.time() - age) * 1000)),
                )
        return file

    def execute(self, statement: str, *values: object) -> None:
        """Change that database."""
        with closing(sqlite3.connect(self.home / "homeserver.db")) as connection, connection:
            connection.execute(statement, values)


@contextmanager
def lent(running: Running, home: Path, capsys: pytest.CaptureFixture[str], prefix: str = "media/") -> Iterator[World]:
    """A world whose user is deleted at the end."""
    made = world(running, home, capsys, prefix)
    store = made.store
    yield made
    made.admin.retire(store)


def world(running: Running, home: Path, capsys: pytest.CaptureFixture[str], prefix: str = "media/") -> World:
    """With a bucket and a key of its own."""
    admin = administrator(running)
    store = admin.provision(prefix=prefix)
    return World(home, admin, replace(store, server_name="example.com"), capsys)
