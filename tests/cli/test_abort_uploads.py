"""Unfinished uploads removed, on the embedded store; its clock is moved by the times of its files."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from synapse_media import catalog, contract
from synapse_media.cli import abort_uploads
from synapse_media.engine.embedded import Running
from synapse_media.errors import SynapseMediaError
from synapse_media.store import bounded
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Credential
from tests.cli.shapes import answer
from tests.doubles import proxy
from tests.media.worlds import administrator
from tests.renderer import samples

DAY = 86400


@dataclass(slots=True)
class Place:
    """A bucket of a test's own, and the store's outputs as `render` leaves them."""

    s3: Any
    bucket: str
    data: Path
    outputs: contract.StorageOutputs
    file: Path

    def begin(self, key: str, *, days: float) -> str:
        """Begin an upload; the store then thinks that it was so many days ago."""
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"half of it")
        (folder,) = (self.data / self.bucket).rglob(str(upload))
        then = time.time() - days * DAY
        os.utime(folder, (then, then))
        return str(upload)

    def left(self) -> set[str]:
        return {item["Key"] for item in self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])}

    def save(self, **changes: Any) -> None:
        self.outputs = replace(self.outputs, **changes)
        self.file.write_text(json.dumps(contract.to_json(self.outputs)))

    def run(self, *words: str) -> int:
        parser = argparse.ArgumentParser()
        abort_uploads.add_arguments(parser)
        return abort_uploads.run(parser.parse_args(["--store", str(self.file), *words]))


@pytest.fixture
def place(embedded_store: Running, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    s3 = administrator(embedded_store).client("s3")
    bucket = f"abort-{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"
    s3.create_bucket(Bucket=bucket)
    outputs = samples.store(
        "compatible",
        prefix="",
        bucket=bucket,
        endpoint_url=embedded_store.endpoint,
        access_key_id=embedded_store.access_key_id,
        secret_access_key=embedded_store.secret_access_key,
    )
    made = Place(s3, bucket, embedded_store.data_dir, outputs, tmp_path / "store.json")
    made.save()
    return made


def test_only_what_is_old_enough_is_aborted(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.s3.put_object(Bucket=place.bucket, Key="media", Body=b"whole")
    place.begin("old", days=7.1)
    place.begin("young", days=6.9)
    assert place.run() == 0
    assert place.left() == {"young"}
    assert "aborted old, begun " in capsys.readouterr().out
    assert place.s3.get_object(Bucket=place.bucket, Key="media")["Body"].read() == b"whole"
    assert place.run() == 0
    assert "no unfinished uploads" in capsys.readouterr().out
    assert place.run("--older-than", "1d") == 0
    assert place.left() == set()


def test_a_dry_run_only_says(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.begin("old", days=30)
    assert place.run("--older-than", "4w", "--dry-run") == 0
    assert place.left() == {"old"}
    assert "would abort old, begun " in capsys.readouterr().out
    assert place.run("--older-than", "4w", "--dry-run", "--json") == 0
    [found] = answer("abort-uploads", capsys.readouterr().out)["uploads"].values()
    assert (found["bucket"], found["aborted"]) == (place.bucket, False)
    assert [upload["key"] for upload in found["uploads"]] == ["old"]


def test_only_under_the_prefix(place: Place) -> None:
    place.begin("media/old", days=30)
    place.begin("other/old", days=30)
    place.save(prefix="media/")
    assert place.run() == 0
    assert place.left() == {"other/old"}


def test_more_than_a_page(place: Place) -> None:
    uploads = [place.begin(f"old-{number}", days=30) for number in range(7)]
    place.begin("young", days=0)

    class Paged:
        """The real client, asked for two at a time."""

        meta = place.s3.meta

        def list_multipart_uploads(self, **arguments: Any) -> Any:
            return place.s3.list_multipart_uploads(**arguments, MaxUploads=2)

    found = list(abort_uploads.stale(Paged(), place.bucket, "", timedelta(days=7)))
    assert sorted(upload.upload_id for upload in found) == sorted(uploads)


def test_a_store_that_gives_the_same_page_for_ever(place: Place) -> None:
    place.begin("old", days=30)

    class Stuck:
        """A double of a store that ignores the markers and never ends."""

        meta = place.s3.meta

        def list_multipart_uploads(self, **arguments: Any) -> Any:
            answer = place.s3.list_multipart_uploads(Bucket=arguments["Bucket"])
            return {**answer, "IsTruncated": True, "NextKeyMarker": "", "NextUploadIdMarker": ""}

    assert len(list(abort_uploads.stale(Stuck(), place.bucket, "", timedelta(days=7)))) == 1


def test_a_store_that_gives_a_new_page_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.begin("old", days=30)
    monkeypatch.setattr(bounded, "PAGES", 20)
    numbers = itertools.count()

    class Endless:
        """A double of a store that has further uploads on each page."""

        meta = place.s3.meta

        def list_multipart_uploads(self, **arguments: Any) -> Any:
            answer = place.s3.list_multipart_uploads(Bucket=arguments["Bucket"])
            number = str(next(numbers))
            uploads = [{**upload, "UploadId": number} for upload in answer["Uploads"]]
            return {
                **answer,
                "Uploads": uploads,
                "IsTruncated": True,
                "NextKeyMarker": "old",
                "NextUploadIdMarker": number,
            }

    with pytest.raises(ApiError, match=f"the listing of {place.bucket}: the answer is one of more than 20 pages"):
        list(abort_uploads.stale(Endless(), place.bucket, "", timedelta(days=7)))


def test_the_uploads_of_others_stay_where_the_store_does_not_know_a_prefix(place: Place) -> None:
    place.begin("media/old", days=30)
    place.begin("other/old", days=30)

    class Unfiltered:
        """A double of a store that lists all uploads, whatever the prefix."""

        meta = place.s3.meta

        def list_multipart_uploads(self, **arguments: Any) -> Any:
            return place.s3.list_multipart_uploads(Bucket=arguments["Bucket"])

    found = list(abort_uploads.stale(Unfiltered(), place.bucket, "media/", timedelta(days=7)))
    assert [upload.key for upload in found] == ["media/old"]


def test_aborted_by_somebody_else_meanwhile(place: Place) -> None:
    place.begin("old", days=30)
    (upload,) = abort_uploads.stale(place.s3, place.bucket, "", timedelta(days=7))
    abort_uploads.abort(place.s3, place.bucket, upload)
    abort_uploads.abort(place.s3, place.bucket, upload)
    assert place.left() == set()


@pytest.mark.parametrize(
    ("provider", "variables"),
    [
        ("s3_compatible", ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")),
        ("wasabi", ("WASABI_ACCESS_KEY_ID", "WASABI_SECRET_ACCESS_KEY")),
        ("amazon_s3", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")),
        ("digitalocean_spaces", ("SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")),
    ],
)
def test_a_key_that_may_not_list_uploads(
    place: Place,
    embedded_store: Running,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    variables: tuple[str, ...],
) -> None:
    """The module's key may not: said, with what to do; with the admin's in the environment it is done."""
    place.begin("old", days=30)
    iam = administrator(embedded_store).client("iam")
    user = f"abort-uploads-{provider}"
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    place.save(access_key_id=key["AccessKeyId"], secret_access_key=key["SecretAccessKey"], provider=provider)
    for name in catalog.load(provider).admin_variables:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SynapseMediaError, match=rf"\({', '.join(variables)}\)"):
        place.run()
    monkeypatch.setenv(variables[0], embedded_store.access_key_id)
    monkeypatch.setenv(variables[1], embedded_store.secret_access_key)
    assert place.run() == 0
    assert place.left() == set()


def test_a_temporary_credential_is_used_with_its_token(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def refusing(_: object, credential: Credential) -> Any:
        used.append(credential)
        return place.s3

    def denied(*_: object, **__: object) -> None:
        raise ApiError("AccessDenied", 403, "denied")

    monkeypatch.setattr(abort_uploads, "s3_client", refusing)
    monkeypatch.setattr(abort_uploads, "call", denied)
    environment = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    with pytest.raises(SynapseMediaError, match="may not list uploads"):
        abort_uploads.client_of(replace(place.outputs, provider="amazon_s3"), environment)
    assert used[1:] == [Credential("id", "secret", "token")]


def test_an_administrator_without_an_s3_key_is_not_sent_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise ApiError("AccessDenied", 403, "denied")

    monkeypatch.setattr(abort_uploads, "call", denied)
    with pytest.raises(SynapseMediaError, match="is no key for S3 here"):
        abort_uploads.client_of(replace(place.outputs, provider="garage"), {"GARAGE_ADMIN_TOKEN": "t"})


def test_a_web_page_in_place_of_the_store(place: Place, embedded_store: Running) -> None:
    with proxy.in_front_of(embedded_store.endpoint) as double:
        double.misbehave(proxy.html())
        place.save(endpoint_url=double.url)
        with pytest.raises(ApiError, match="web page"):
            place.run()


def test_no_store_no_uploads(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.outputs = samples.store("compatible", "filesystem")
    place.save()
    assert place.run() == 0
    assert "uses no store" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "7 d", "1m", "7D", "100000d", "1.5d"])
def test_an_age_that_can_not_be(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="allowed: 12h, 7d, 4w"):
        abort_uploads.age(text)


def test_ages() -> None:
    assert [abort_uploads.age(text) for text in ("12h", "7d", "4w")] == [
        timedelta(hours=12),
        timedelta(days=7),
        timedelta(days=28),
    ]
