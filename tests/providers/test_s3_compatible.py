"""Any other S3-compatible store without an IAM API, and the presets: the operator's own key, on the embedded store."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from synapse_media import catalog, settings
from synapse_media.cli import rotate
from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from synapse_media.errors import SettingsError, UsageError
from synapse_media.guards import changes
from synapse_media.renderer import render
from tests.doubles import proxy
from tests.providers.project import SERVER, Stack, stack

PRESETS = tuple(
    name for name in catalog.names() if catalog.load(name).component == "s3_compatible" and name != "s3_compatible"
)


def _settings(store: Running, bucket: str, **more: Any) -> dict[str, Any]:
    return {
        "provider": "s3_compatible",
        "region": store.region,
        "endpoint": store.endpoint,
        "existing_key": True,
        "bucket": bucket,
        "method": "synapse-s3-storage-provider",
        **more,
    }


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """A key limited to one bucket that the operator made by hand."""

    user: str
    access_key_id: str
    secret_access_key: str

    @property
    def environment(self) -> dict[str, str]:
        return {"S3_ACCESS_KEY_ID": self.access_key_id, "S3_SECRET_ACCESS_KEY": self.secret_access_key}


def _client(service: str, store: Running) -> Any:
    endpoint = store.endpoint if service == "s3" else store.iam_endpoint
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key,
    )


def _scoped_key(store: Running, bucket: str) -> OperatorKey:
    iam, user = _client("iam", store), f"by-hand-{bucket}"
    iam.create_user(UserName=user)
    allowed = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName=user, PolicyName="by-hand", PolicyDocument=document)
    made = iam.create_access_key(UserName=user)["AccessKey"]
    return OperatorKey(user, made["AccessKeyId"], made["SecretAccessKey"])


def _outcomes(of: Stack) -> dict[str, tuple[str, str]]:
    proof = of.outputs().proof
    assert proof is not None
    return {line.operation: (line.expected, line.outcome) for line in proof.lines}


def test_a_scoped_key_and_a_bucket_that_is_there(tmp_path: Path, embedded_store: Running) -> None:
    bucket = "by-hand-media"
    s3 = _client("s3", embedded_store)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="old/media", Body=b"kept")
    key = _scoped_key(embedded_store, bucket)
    by_hand = stack(tmp_path, "by-hand", key.environment)

    by_hand.store(**_settings(embedded_store, bucket))
    with pytest.raises(EngineError, match="adopt: true"):
        by_hand.up()
    by_hand.store(**_settings(embedded_store, bucket, adopt=True))
    by_hand.up()
    assert by_hand.preview() == ()
    assert by_hand.preview(refresh=True) == ()

    outputs = by_hand.outputs()
    outputs.require_proof()
    assert (outputs.access_key_id, outputs.secret_access_key) == (key.access_key_id, key.secret_access_key)
    assert key.secret_access_key not in by_hand.state()
    assert any(key.access_key_id in text for text in render(outputs, form="plain").values())
    # No refusal is demanded of a key that we did not make, but what it may is found out.
    assert _outcomes(by_hand)["put"] == ("allowed", "allowed")
    assert _outcomes(by_hand)["delete"] == ("can't be refused here", "refused")
    assert "bucket tags (the bucket carries no mark of its stack)" in outputs.lacks

    # The operator made another key: a refresh takes it up and proves it.
    made = _client("iam", embedded_store).create_access_key(UserName=key.user)["AccessKey"]
    second = OperatorKey(key.user, made["AccessKeyId"], made["SecretAccessKey"])
    by_hand.engine.environment.update(second.environment)
    by_hand.up(refresh=True)
    assert by_hand.outputs().access_key_id == second.access_key_id
    by_hand.outputs().require_proof()

    # There is nothing to rotate from here, and the command says so.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(by_hand.engine.project)
        for variable, value in second.environment.items():
            patch.setenv(variable, value)
        with pytest.raises(UsageError, match="can't be rotated from here"):
            rotate.run(
                argparse.Namespace(stack=by_hand.name, server=None, all=False, finish=False, confirm=False, yes=True)
            )

    # Taken away by hand: said, and everything is kept.
    _client("iam", embedded_store).delete_access_key(UserName=key.user, AccessKeyId=second.access_key_id)
    with pytest.raises(EngineError, match="does not know this access key ID"):
        by_hand.up(refresh=True)
    by_hand.engine.environment.update(key.environment)
    by_hand.store(["retain-bucket"], **_settings(embedded_store, bucket, adopt=True))
    by_hand.up(refresh=True)
    by_hand.destroy()
    assert s3.get_object(Bucket=bucket, Key="old/media")["Body"].read() == b"kept"


def test_an_administrators_key_makes_the_bucket_and_nothing_is_faked(tmp_path: Path, embedded_store: Running) -> None:
    environment = OperatorKey("root", embedded_store.access_key_id, embedded_store.secret_access_key).environment
    admin = stack(tmp_path, "admin", environment)
    admin.store(["delete-bucket"], **_settings(embedded_store, "admin-media"))
    admin.up()
    admin.outputs().require_proof()
    assert _outcomes(admin)["delete"] == ("can't be refused here", "allowed")
    assert _outcomes(admin)["other-bucket"] == ("can't be refused here", "not tested")
    admin.destroy()


def test_a_swapped_key_and_one_with_a_wrong_secret(tmp_path: Path, embedded_store: Running) -> None:
    right = OperatorKey("root", embedded_store.access_key_id, embedded_store.secret_access_key)
    swapped = OperatorKey("root", right.secret_access_key, right.access_key_id)
    wrong = OperatorKey("root", right.access_key_id, "x" * len(right.secret_access_key))
    bad = stack(tmp_path, "bad", swapped.environment)
    bad.store(**_settings(embedded_store, "swapped-media"))
    with pytest.raises(EngineError, match="were the two swapped") as raised:
        bad.up()
    assert right.secret_access_key not in str(raised.value)
    assert right.secret_access_key not in bad.state()
    bad.engine.environment.update(wrong.environment)
    with pytest.raises(EngineError, match="does not match the access key ID"):
        bad.up()
    assert "ExistingKey" not in bad.state()


def test_a_web_page_at_the_endpoint_is_no_bucket_that_is_gone(tmp_path: Path, embedded_store: Running) -> None:
    environment = OperatorKey("root", embedded_store.access_key_id, embedded_store.secret_access_key).environment
    with proxy.in_front_of(embedded_store.endpoint) as double:
        behind = stack(tmp_path, "behind", environment)
        behind.store(["delete-bucket"], **_settings(embedded_store, "behind-media", endpoint=double.url))
        behind.up()
        page = proxy.Answer(404, (("Content-Type", "text/html"),), b"<html>Not here</html>")
        double.misbehave(lambda _request, _upstream: page)
        with pytest.raises(EngineError, match="the response is a web page"):
            behind.up(refresh=True)
        double.behave()
        assert behind.preview(refresh=True) == ()
        behind.destroy()


def test_neither_an_iam_endpoint_nor_a_key_is_refused_and_so_are_both() -> None:
    wanted = {
        "provider": "s3_compatible",
        "endpoint": "https://s3.example.net",
        "bucket": "example-media",
        "method": "goofys",
    }
    with pytest.raises(SettingsError, match=r"iam_endpoint is missing.*existing_key: true"):
        settings.parse({SERVER: wanted})
    with pytest.raises(SettingsError, match="existing_key is True; allowed: nothing beside iam_endpoint"):
        settings.parse({SERVER: {**wanted, "existing_key": True, "iam_endpoint": "https://iam.example.net"}})


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A stack with a store at every preset, without credentials."""
    made = stack(tmp_path_factory.mktemp("presets"), "presets", {})
    stores = {}
    for name in PRESETS:
        provider = catalog.load(name)
        stores[f"{name.replace('_', '-')}.example.com"] = {
            "provider": name,
            "bucket": f"media-at-{name.replace('_', '-')}",
            "method": "synapse-s3-storage-provider",
            "existing_key": True,
            **({"region": provider.regions[0]} if provider.regions and not provider.value("default_region") else {}),
            **({"region": "fr2"} if name in ("akamai", "idrive_e2") else {}),
            **({} if provider.endpoint("x") else {"endpoint": f"https://{name.replace('_', '-')}.example.net"}),
        }
    made.write(stores)
    return made


def test_a_preview_of_every_preset(presets: Stack) -> None:
    assert len(PRESETS) >= 13
    preview = presets.engine.preview_from_nothing(presets.name)
    found = changes.of_preview(preview)
    for name in PRESETS:
        server = f"{name.replace('_', '-')}.example.com"
        assert {change.kind for change in found if change.store == server} == {"Bucket", "ExistingKey", "Proof"}
    endpoints = {
        step["newState"]["inputs"]["bucket"]: step["newState"]["inputs"]["connection"]["endpoint"]
        for step in preview["steps"]
        if step["newState"]["type"] == "s3store:index:Bucket"
    }
    assert endpoints["media-at-hetzner"] == "https://fsn1.your-objectstorage.com"
    assert endpoints["media-at-ovhcloud"] == "https://s3.gra.io.cloud.ovh.net"
    assert endpoints["media-at-minio"] == "https://minio.example.net"
