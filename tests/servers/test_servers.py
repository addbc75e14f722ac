"""A store's whole life as `s3_compatible` on the real servers beside the embedded one, where they were built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from synapse_media.cli import abort_uploads
from synapse_media.engine.session import EngineError
from synapse_media.renderer import render
from synapse_media.store.answers import ApiError
from tests.accounts import user_names
from tests.providers.project import Stack, stack
from tests.servers import real

LACKS = {
    "moto": set(),
    "minio": {
        "abortDays (accepted by this store, and not kept)",
        "default encryption",  # it was given no key service
        "public access block",
    },
    "seaweedfs": {"default encryption"},  # it was given no key service either, and takes the setting
    "s3s-fs": {
        "bucket tags (the bucket carries no mark of its stack)",
        "versioning",
        "public access block",
        "access control list",
        "default encryption",
        "lifecycle rules (old versions and unfinished uploads stay)",
        "bucket policy",
    },
}
"""What these can't do, as the stack's outputs say it."""
LISTS_NO_UPLOADS = {"s3s-fs"}


def _those(*, with_iam: bool = False) -> list[Any]:
    return [
        pytest.param(
            server,
            id=server.name,
            marks=pytest.mark.skipif(
                not server.is_there,
                reason=f"{server.name} is not in the cache: `make servers` builds it (5 to 15 minutes)",
            ),
        )
        for server in real.SERVERS.values()
        if server.has_iam or not with_iam
    ]


@dataclass(frozen=True, slots=True)
class Place:
    """A running server, and a folder of the test's own."""

    name: str
    at: real.Running
    folder: Path

    def client(self, service: str) -> Any:
        """boto3 with the administrator's key."""
        return boto3.client(
            service,
            endpoint_url=self.at.endpoint,
            region_name=self.at.region,
            aws_access_key_id=self.at.access_key_id,
            aws_secret_access_key=self.at.secret_access_key,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def stack(self, name: str) -> Stack:
        admin = {"S3_ACCESS_KEY_ID": self.at.access_key_id, "S3_SECRET_ACCESS_KEY": self.at.secret_access_key}
        return stack(self.folder, name, admin)

    def settings(self, bucket: str, **more: Any) -> dict[str, Any]:
        place = {"provider": "s3_compatible", "endpoint": self.at.endpoint, "bucket": bucket}
        return {**place, "method": "synapse-s3-storage-provider", **more}

    def buckets(self) -> list[str]:
        return [bucket["Name"] for bucket in self.client("s3").list_buckets()["Buckets"]]


@pytest.fixture(scope="module", params=_those())
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    server: real.Server = request.param
    with real.running(server, tmp_path_factory.mktemp(server.name)) as at:
        yield server.name, at


@pytest.fixture
def place(running: tuple[str, real.Running], tmp_path: Path) -> Place:
    return Place(*running, tmp_path)


def test_a_bucket_of_ours_with_the_operators_key(place: Place) -> None:
    own, s3 = place.stack("own"), place.client("s3")
    own.store(**place.settings("own-media", existing_key=True))
    own.up()
    assert own.preview() == ()
    assert own.preview(refresh=True) == ()
    assert "5 unchanged" in own.up()
    outputs = own.outputs()
    outputs.require_proof()
    assert set(outputs.lacks) == LACKS[place.name]
    assert any(outputs.access_key_id in text for text in render(outputs, form="plain").values())

    # Changed by hand: found by a refresh, mended by the next up.
    if "versioning" not in outputs.lacks:
        s3.put_bucket_versioning(Bucket="own-media", VersioningConfiguration={"Status": "Suspended"})
        assert [change.kind for change in own.preview(refresh=True)] == ["Bucket"]
        own.up(refresh=True)
        assert s3.get_bucket_versioning(Bucket="own-media")["Status"] == "Enabled"
        assert own.preview(refresh=True) == ()

    # With media in it, it is deleted only where the stack file says so; then with all that is in it.
    s3.put_object(Bucket="own-media", Key="local_content/ab/cd/media", Body=b"kept")
    s3.create_multipart_upload(Bucket="own-media", Key="local_content/ab/cd/unfinished")
    own.store(["delete-bucket"], **place.settings("own-media", existing_key=True))
    own.up()
    with pytest.raises(EngineError, match="holds media and is not deleted"):
        own.destroy()
    assert s3.get_object(Bucket="own-media", Key="local_content/ab/cd/media")["Body"].read() == b"kept"
    own.store(["delete-bucket", "delete-media"], **place.settings("own-media", existing_key=True))
    own.up()
    own.destroy()
    assert "own-media" not in place.buckets()


def test_a_bucket_that_is_there(place: Place) -> None:
    there, s3 = place.stack("there"), place.client("s3")
    s3.create_bucket(Bucket="there-media")
    s3.put_object(Bucket="there-media", Key="local_content/ab/cd/media", Body=b"kept")
    there.store(**place.settings("there-media", existing_key=True))
    with pytest.raises(EngineError, match="adopt: true"):
        there.up()
    there.store(["retain-bucket"], **place.settings("there-media", existing_key=True, adopt=True))
    there.up()
    there.outputs().require_proof()
    assert there.preview(refresh=True) == ()
    there.destroy()
    assert s3.get_object(Bucket="there-media", Key="local_content/ab/cd/media")["Body"].read() == b"kept"


def test_a_bucket_deleted_by_hand_is_made_again(place: Place) -> None:
    again, s3 = place.stack("again"), place.client("s3")
    again.store(["delete-bucket"], **place.settings("again-media", existing_key=True))
    again.up()
    for item in s3.list_objects_v2(Bucket="again-media").get("Contents", []):
        s3.delete_object(Bucket="again-media", Key=item["Key"])
    s3.delete_bucket(Bucket="again-media")
    assert "Bucket" in {change.kind for change in again.preview(refresh=True)}
    again.up(refresh=True)
    again.outputs().require_proof()
    assert "again-media" in place.buckets()
    again.destroy()
    assert "again-media" not in place.buckets()


def test_unfinished_uploads_under_a_prefix(place: Place) -> None:
    s3 = place.client("s3")
    s3.create_bucket(Bucket="uploads")
    if place.name in LISTS_NO_UPLOADS:
        with pytest.raises(ApiError, match="ListMultipartUploads"):
            list(abort_uploads.stale(s3, "uploads", "", timedelta()))
        return
    s3.create_multipart_upload(Bucket="uploads", Key="media/local_content/ab/cd/media")
    s3.create_multipart_upload(Bucket="uploads", Key="other")
    # By the store's own clock, which tells whole seconds.
    before = timedelta(hours=-1)
    for prefix, keys in (("media/", ["media/local_content/ab/cd/media"]), ("", ["other"])):
        found = list(abort_uploads.stale(s3, "uploads", prefix, before))
        assert [upload.key for upload in found] == keys
        for upload in found:
            abort_uploads.abort(s3, "uploads", upload)
    assert list(abort_uploads.stale(s3, "uploads", "", before)) == []


def test_goofys_has_its_calls(place: Place) -> None:
    """It asks for more than the other methods: the uploads, the location, a copy."""
    goofys = place.stack("goofys")
    goofys.store(["delete-bucket"], **(place.settings("goofys-media", existing_key=True) | {"method": "goofys"}))
    if place.name in LISTS_NO_UPLOADS:
        with pytest.raises(EngineError, match="This store has no such call, and the method needs it"):
            goofys.up()
    else:
        goofys.up()
        goofys.outputs().require_proof()
    goofys.destroy()
    assert "goofys-media" not in place.buckets()


def test_a_wrong_secret(place: Place) -> None:
    wrong = place.stack("wrong")
    wrong.engine.environment |= {"S3_SECRET_ACCESS_KEY": "x" * len(place.at.secret_access_key)}
    wrong.store(**place.settings("wrong-media", existing_key=True))
    with pytest.raises(EngineError, match="does not match the access key ID"):
        wrong.up()
    assert "wrong-media" not in place.buckets()


@pytest.mark.parametrize("running", _those(with_iam=True), indirect=True)
def test_a_user_and_a_key_of_its_own(place: Place) -> None:
    own, iam = place.stack("user"), place.client("iam")
    wanted = place.settings("user-media", iam_endpoint=place.at.iam_endpoint, user="user-of-media")
    own.store(**wanted)
    own.up()
    assert own.preview() == ()
    assert own.preview(refresh=True) == ()
    first = own.outputs()
    first.require_proof()
    assert first.proof is not None
    assert {line.outcome for line in first.proof.lines if line.expected == "refused"} == {"refused"}

    own.store(**wanted, keys={"active": "b", "retiring": ["a"]})
    own.up()
    second = own.outputs()
    second.require_proof()
    listed = iam.list_access_keys(UserName="user-of-media")["AccessKeyMetadata"]
    assert {key["AccessKeyId"] for key in listed} == {first.access_key_id, second.access_key_id}
    own.store(["retire-key"], **wanted, keys={"active": "b"})
    own.up()
    [left] = iam.list_access_keys(UserName="user-of-media")["AccessKeyMetadata"]
    assert left["AccessKeyId"] == second.access_key_id

    # Made by hand beside it: whoever uses it keeps its user.
    by_hand = iam.create_access_key(UserName="user-of-media")["AccessKey"]["AccessKeyId"]
    own.store(["delete-bucket"], **wanted, keys={"active": "b"})
    own.up()
    with pytest.raises(EngineError, match=by_hand):
        own.destroy()
    iam.delete_access_key(UserName="user-of-media", AccessKeyId=by_hand)
    own.destroy()
    assert "user-media" not in place.buckets()
    assert "user-of-media" not in user_names(iam)
