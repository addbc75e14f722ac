"""Wasabi: the real stack on the embedded store with its IAM service, and on moto for what that store lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from synapse_media import catalog, settings
from synapse_media.cli import doctor
from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from synapse_media.errors import SettingsError
from synapse_media.plugin.resource import Context
from synapse_media.plugin.s3_bucket import Bucket
from synapse_media.renderer import render
from tests.accounts import user_names
from tests.doubles import proxy
from tests.providers.project import SERVER, Stack, stack

BUCKET = "wasabi-media"
USER = f"synapse-media-{BUCKET}"


def _environment(store: Running) -> dict[str, str]:
    return {"WASABI_ACCESS_KEY_ID": store.access_key_id, "WASABI_SECRET_ACCESS_KEY": store.secret_access_key}


def _settings(store: Running, **more: Any) -> dict[str, Any]:
    return {
        "provider": "wasabi",
        "region": store.region,
        "bucket": BUCKET,
        "method": "synapse-s3-storage-provider",
        "endpoint": store.endpoint,
        "iam_endpoint": store.iam_endpoint,
        **more,
    }


@pytest.fixture
def wasabi(tmp_path: Path, embedded_store: Running) -> Stack:
    return stack(tmp_path, "wasabi", _environment(embedded_store))


def _client(service: str, store: Running) -> Any:
    endpoint = store.endpoint if service == "s3" else store.iam_endpoint
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key,
    )


def test_life_of_a_store(wasabi: Stack, embedded_store: Running) -> None:
    iam = _client("iam", embedded_store)
    s3 = _client("s3", embedded_store)
    wasabi.store(**_settings(embedded_store))
    wasabi.up()
    assert wasabi.preview() == ()

    first = wasabi.outputs()
    first.require_proof()
    assert (first.provider, first.region, first.endpoint_url) == ("wasabi", "us-east-1", embedded_store.endpoint)
    assert "endpoint_url: " in "".join(render(first, form="plain").values())
    assert first.secret_access_key not in wasabi.state()

    # Changed by hand: found by a refresh, mended by the next up.
    iam.put_user_policy(
        UserName=USER,
        PolicyName="synapse-media",
        PolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["*"]}]}',
    )
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    assert {change.kind for change in wasabi.preview(refresh=True)} == {"Bucket", "UserPolicy"}
    wasabi.up(refresh=True)
    assert wasabi.preview(refresh=True) == ()
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"

    # Rotation: the second key beside the first, then the first retired.
    wasabi.store(**_settings(embedded_store, keys={"active": "b", "retiring": ["a"]}))
    wasabi.up()
    second = wasabi.outputs()
    second.require_proof()
    assert second.access_key_id != first.access_key_id
    assert len(iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]) == 2
    wasabi.store(["retire-key"], **_settings(embedded_store, keys={"active": "b"}))
    wasabi.up()
    keys = [key["AccessKeyId"] for key in iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]]
    assert keys == [second.access_key_id]

    # A bucket is given up only where the stack file says so.
    with pytest.raises(EngineError, match="protect"):
        wasabi.destroy()
    wasabi.store(["delete-bucket"], **_settings(embedded_store, keys={"active": "b"}))
    wasabi.up()
    wasabi.destroy()
    assert BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert USER not in user_names(iam)


def test_the_permissions_that_doctor_prints_suffice(wasabi: Stack, embedded_store: Running) -> None:
    wanted = _settings(embedded_store, bucket="wasabi-least")
    store = settings.parse({SERVER: wanted})[SERVER]
    printed = doctor.permissions(catalog.load("wasabi"), [store])["text"]
    iam = _client("iam", embedded_store)
    iam.create_user(UserName="wasabi-admin")
    iam.put_user_policy(UserName="wasabi-admin", PolicyName="p", PolicyDocument=printed[printed.index("{") :])
    key = iam.create_access_key(UserName="wasabi-admin")["AccessKey"]
    wasabi.engine.environment |= {
        "WASABI_ACCESS_KEY_ID": key["AccessKeyId"],
        "WASABI_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    wasabi.store(**wanted)
    wasabi.up()
    wasabi.outputs().require_proof()
    assert wasabi.preview(refresh=True) == ()
    wasabi.store(**wanted, keys={"active": "b", "retiring": ["a"]})
    wasabi.up()
    # Whether the first is still used is asked, and may be.
    wasabi.store(**wanted, keys={"active": "b"})
    with pytest.raises(EngineError, match="is not retired") as raised:
        wasabi.up()
    assert "AccessDenied" not in str(raised.value)
    wasabi.store(["delete-bucket", "retire-key"], **wanted, keys={"active": "b"})
    wasabi.up()
    wasabi.destroy()


def test_an_endpoint_that_answers_html(wasabi: Stack, embedded_store: Running) -> None:
    page = proxy.Answer(200, (("Content-Type", "text/html"),), b"<html><body>Welcome to the router</body></html>")
    with proxy.in_front_of(embedded_store.iam_endpoint) as double:
        double.misbehave(lambda _request, _upstream: page)
        wasabi.store(["retain-bucket"], **_settings(embedded_store, bucket="wasabi-html", iam_endpoint=double.url))
        with pytest.raises(EngineError) as raised:
            wasabi.up()
    assert double.url in str(raised.value)
    assert "Traceback" not in str(raised.value)
    # With the right endpoint the next run goes on from there.
    wasabi.store(["delete-bucket"], **_settings(embedded_store, bucket="wasabi-html"))
    wasabi.up()
    wasabi.outputs().require_proof()
    wasabi.destroy()


def test_iam_down_while_the_key_is_made(wasabi: Stack, embedded_store: Running) -> None:
    """Called once, whatever fails; a key that was created nevertheless is found and deleted."""
    made = _settings(embedded_store, bucket="wasabi-down")
    user = "synapse-media-wasabi-down"

    def does_it_and_hangs_up(request: proxy.Request, upstream: proxy.Upstream) -> None:
        upstream.ask(request)

    with proxy.in_front_of(embedded_store.iam_endpoint) as double:
        cut = double.misbehave(does_it_and_hangs_up, when=lambda request: request.action == "CreateAccessKey")
        wasabi.store(["delete-bucket"], **{**made, "iam_endpoint": double.url})
        with pytest.raises(EngineError, match="create_access_key"):
            wasabi.up()
        assert cut.hits == 1
    iam = _client("iam", embedded_store)
    assert len(iam.list_access_keys(UserName=user)["AccessKeyMetadata"]) == 1
    wasabi.store(["delete-bucket"], **made)
    wasabi.up()
    keys = [key["AccessKeyId"] for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]]
    assert keys == [wasabi.outputs().access_key_id]
    wasabi.destroy()


def test_a_burst_of_503_is_waited_for(wasabi: Stack, embedded_store: Running) -> None:
    busy = proxy.Answer(
        503, (("Content-Type", "application/xml"),), b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
    )
    with proxy.in_front_of(embedded_store.endpoint) as double:
        burst = double.misbehave(
            lambda _request, _upstream: busy, when=lambda request: request.bucket == "wasabi-burst", times=3
        )
        wasabi.store(["delete-bucket"], **_settings(embedded_store, bucket="wasabi-burst", endpoint=double.url))
        wasabi.up()
        assert burst.hits == 3
        wasabi.outputs().require_proof()
        wasabi.destroy()


def test_regions_and_endpoints_are_the_catalogs() -> None:
    wanted = {"provider": "wasabi", "bucket": "example-com-media", "method": "goofys"}
    store = settings.parse({SERVER: {**wanted, "region": "eu-central-2"}})[SERVER]
    assert store.endpoint == "https://s3.eu-central-2.wasabisys.com"
    assert store.iam_endpoint == "https://iam.wasabisys.com"
    with pytest.raises(SettingsError, match="Did you mean 'eu-central-1'"):
        settings.parse({SERVER: {**wanted, "region": "eu-central1"}})
    with pytest.raises(SettingsError, match="region is missing"):
        settings.parse({SERVER: wanted})


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A double: moto, which has the lifecycle rules and the public access block."""
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("WASABI_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("WASABI_SECRET_ACCESS_KEY", "testing-secret")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_lifecycle_and_public_access_block_on_a_moto_double(moto: str) -> None:
    bucket = Bucket()
    inputs, failures = bucket.check(
        {
            "bucket": BUCKET,
            "connection": {
                "endpoint": moto,
                "region": "eu-central-1",
                "variables": ["WASABI_ACCESS_KEY_ID", "WASABI_SECRET_ACCESS_KEY"],
            },
            "owner": "synapse-media/test/matrix.example.com",
            "versioning": True,
            "noncurrentDays": 30,
            "abortDays": 7,
            "publicAccessBlock": True,
            "encryption": True,
            "policy": None,
        }
    )
    assert not failures
    said: list[str] = []
    name, outputs = bucket.create(inputs, Context(said.append))
    assert outputs["lacks"] == []
    s3 = boto3.client(
        "s3",
        endpoint_url=moto,
        region_name="eu-central-1",
        aws_access_key_id=os.environ["WASABI_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["WASABI_SECRET_ACCESS_KEY"],
    )
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    s3.delete_public_access_block(Bucket=BUCKET)
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    found = bucket.read(name, inputs, outputs, Context(said.append))
    assert found is not None
    assert set(bucket.diff(found.inputs, inputs).changed) == {"publicAccessBlock", "noncurrentDays", "abortDays"}
    mended = bucket.update(name, found.outputs, inputs, Context(said.append))
    found = bucket.read(name, inputs, mended, Context(said.append))
    assert found is not None
    assert bucket.diff(found.inputs, inputs).changed == ()
    bucket.delete(name, mended, Context(said.append))
    assert name not in [left["Name"] for left in s3.list_buckets()["Buckets"]]
