"""Storj: the real stack through the real engine, on a double of the auth service and a versitygw behind it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from synapse_media import settings
from synapse_media.cli import main
from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from synapse_media.errors import SettingsError
from synapse_media.renderer import render
from tests.doubles import proxy, storj_auth
from tests.doubles.storj_auth import AuthDouble
from tests.providers.project import ROOT, SERVER, Stack, stack

BUCKET = "storj-media"
PARENTS = json.loads((ROOT / "tests/storj/vectors.json").read_text())["parents"]


@pytest.fixture
def auth(embedded_store: Running) -> Iterator[AuthDouble]:
    with storj_auth.in_front_of(embedded_store) as double:
        yield double


@pytest.fixture
def storj(tmp_path: Path, request: pytest.FixtureRequest) -> Stack:
    return stack(tmp_path, request.node.name.replace("_", "-")[:60], {"UPLINK_ACCESS": PARENTS["full"]})


def _settings(auth: AuthDouble, **more: Any) -> dict[str, Any]:
    return {
        "provider": "storj",
        "bucket": BUCKET,
        "method": "synapse-s3-storage-provider",
        "auth_endpoint": auth.url,
        **more,
    }


def _s3(store: Running) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key,
    )


def _refused(store: Running, key: tuple[str, str]) -> str:
    """The code with which a key is refused; "" if it is not."""
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=store.region,
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
    )
    try:
        client.list_objects_v2(Bucket=BUCKET)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_life_of_a_store(
    storj: Stack, auth: AuthDouble, embedded_store: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = _s3(embedded_store)
    storj.store(**_settings(auth))
    storj.up()
    assert storj.preview() == ()

    first = storj.outputs()
    first.require_proof()
    assert (first.provider, first.endpoint_url, first.user) == ("storj", embedded_store.endpoint, "")
    assert any(f"key {first.access_key_id} ends on" in words for words in first.lacks)
    rendered = "".join(render(first, form="plain").values())
    assert embedded_store.endpoint in rendered
    assert first.access_key_id in rendered
    # One lasting grant was registered, for the bucket alone, with an end; the others live for an hour.
    ((grant, key_id),) = auth.lasting()
    assert key_id == first.access_key_id
    assert grant.buckets == {BUCKET}
    assert not grant.root_key
    assert grant.not_after is not None
    assert {item.not_after is not None and not item.root_key for item, _ in auth.registered} == {True}
    # Nothing secret is in state in clear, and the grant of the operator not at all.
    state = storj.state()
    assert not [text for text in (first.secret_access_key, grant.serialize(), PARENTS["full"]) if text in state]
    short = [key for item, key in auth.registered if item != grant]
    assert short
    assert not [key for key in short if key in state]

    # A refresh finds what was changed by hand, and registers nothing that lasts.
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    assert {change.kind for change in storj.preview(refresh=True)} == {"StorjBucket"}
    storj.up(refresh=True)
    assert storj.preview(refresh=True) == ()
    assert len(auth.lasting()) == 1
    assert storj.outputs().access_key_id == first.access_key_id

    # Rotation: the second key beside the first, then the first revoked by the vendor's command.
    folder = tmp_path / "path"
    storj_auth.write_uplink(folder, sys.executable, auth)
    storj.engine.environment["PATH"] = f"{folder}{os.pathsep}{storj.engine.environment['PATH']}"
    storj.store(**_settings(auth, keys={"active": "b", "retiring": ["a"]}))
    storj.up()
    second = storj.outputs()
    second.require_proof()
    keys = [(store.access_key_id, store.secret_access_key) for store in (first, second)]
    assert [_refused(embedded_store, key) for key in keys] == ["", ""]
    assert storj_auth.calls(folder) == []
    storj.store(["retire-key"], **_settings(auth, keys={"active": "b"}))
    storj.up()
    assert [_refused(embedded_store, key) for key in keys] == ["InvalidAccessKeyId", ""]
    (called,) = storj_auth.calls(folder)
    assert called["contents"] == [PARENTS["full"], grant.serialize()]
    assert called["modes"] == ["-rw-------"] * 2
    assert not [word for word in called["words"] if word in called["contents"]]
    assert "UPLINK_ACCESS" not in called["environment"]

    # What an upload that was never completed left behind: Storj has no rule for it, so a command removes it.
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="half")["UploadId"]
    (place,) = (embedded_store.data_dir / BUCKET).rglob(upload)
    os.utime(place, (0, 0))
    monkeypatch.chdir(storj.engine.project)
    assert main(["abort-uploads", "--stack", storj.name]) == 0
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)

    # Given up: the bucket is gone, and its key is revoked with it.
    storj.store(["delete-bucket"], **_settings(auth, keys={"active": "b"}))
    storj.up()
    storj.destroy()
    assert BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    revoked = [called["contents"][1] for called in storj_auth.calls(folder)]
    assert revoked == [grant.serialize() for grant, _ in auth.lasting()]


def test_full_access_and_no_uplink(storj: Stack, auth: AuthDouble, embedded_store: Running) -> None:
    """`full` from a grant that has it all; on leaving, that the key lives on is said."""
    more = {"access": "full", "bucket": "storj-full", "expires_in_days": 0}
    storj.store(["delete-bucket"], **_settings(auth, **more))
    storj.up()
    outputs = storj.outputs()
    outputs.require_proof()
    ((grant, key_id),) = auth.lasting()
    assert (grant.forbidden, grant.not_after) == (frozenset(), None)
    assert f"key {key_id} has no end" in " ".join(outputs.lacks)

    # Less access is another grant: asked for by a rotation, refused without one.
    storj.store(["delete-bucket"], **_settings(auth, **{**more, "access": "least"}))
    with pytest.raises(EngineError, match="Rotate in the same edit"):
        storj.preview()
    narrow = {**more, "access": "least", "keys": {"active": "b", "retiring": ["a"]}}
    storj.store(["delete-bucket"], **_settings(auth, **narrow))
    storj.up()
    storj.outputs().require_proof()
    assert "locks" in auth.lasting()[1][0].forbidden

    said = storj.destroy()
    assert said.count("stays valid forever: Storj can't delete keys") >= 2
    assert "storj-full" not in [bucket["Name"] for bucket in _s3(embedded_store).list_buckets()["Buckets"]]


def test_a_parent_of_no_use(storj: Stack, auth: AuthDouble) -> None:
    storj.engine.environment["UPLINK_ACCESS"] = PARENTS["read-only"]
    storj.store(**_settings(auth, bucket="media"))
    with pytest.raises(EngineError, match="it forbids deletes, writes") as raised:
        storj.up()
    assert auth.registered == []
    assert PARENTS["read-only"] not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_grant_for_the_one_bucket_and_a_gateway_of_ones_own(
    storj: Stack, auth: AuthDouble, embedded_store: Running
) -> None:
    """No decoy can be created then, and the proof says so; the gateway is that of the stack file."""
    storj.engine.environment["UPLINK_ACCESS"] = PARENTS["the-bucket"]
    with proxy.in_front_of(embedded_store.endpoint) as gateway:
        storj.store(["delete-bucket"], **_settings(auth, bucket="media", endpoint=gateway.url))
        storj.up()
        outputs = storj.outputs()
        assert outputs.endpoint_url == gateway.url
        assert outputs.proof is not None
        assert outputs.proof.passed
        untried = {line.operation for line in outputs.proof.lines if line.outcome == "not tested"}
        assert untried == {"create-bucket", "other-bucket"}
        storj.destroy()
        # Nothing went past it: every key that was registered was used there, and there alone.
        assert {exchange.access_key_id for exchange in gateway.exchanges} == {key for _, key in auth.registered}


def test_a_registration_whose_answer_is_lost(storj: Stack, auth: AuthDouble, tmp_path: Path) -> None:
    """Asked once; what may have been made is revoked, and the next run goes on."""
    folder = tmp_path / "path"
    storj_auth.write_uplink(folder, sys.executable, auth)
    storj.engine.environment["PATH"] = f"{folder}{os.pathsep}{storj.engine.environment['PATH']}"
    with proxy.in_front_of(auth.url) as between:
        rule = between.misbehave(proxy.lost_answer, when=lambda _: len(auth.registered) == 1)
        storj.store(["delete-bucket"], **_settings(auth, bucket="storj-lost", auth_endpoint=between.url))
        with pytest.raises(EngineError, match="may have made a key pair"):
            storj.up()
        assert rule.hits == 1
    ((grant, _),) = auth.lasting()
    assert [called["contents"][1] for called in storj_auth.calls(folder)] == [grant.serialize()]
    storj.store(["delete-bucket"], **_settings(auth, bucket="storj-lost"))
    storj.up()
    storj.outputs().require_proof()
    assert len(auth.lasting()) == 2
    storj.destroy()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("expires_in_days", -1), ("expires_in_days", 40_000), ("expires_in_days", "a year"), ("auth_endpoint", "auth")],
)
def test_settings_that_can_not_be(setting: str, value: object) -> None:
    store = {"provider": "storj", "bucket": "media", "method": "goofys", setting: value}
    with pytest.raises(SettingsError, match=setting):
        settings.parse({SERVER: store})
