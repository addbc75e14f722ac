"""DigitalOcean Spaces through doubles: a stand-in for the vendor's plugin, and one for the API of Spaces keys.

The bucket and the keys are on the embedded store, so that the proof runs; lifecycle rules are on moto. Nothing here
shows the vendor's own validation, defaults, diffs or replace rules, nor Spaces' own time until a key works.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from synapse_media.engine import embedded
from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from synapse_media.plugin.digitalocean_spaces import SpacesAdminKey, SpacesKeyRing
from synapse_media.plugin.keyring import key_name
from synapse_media.plugin.resource import Context, PartialError, ResourceError
from synapse_media.renderer import render
from tests.doubles import proxy, vendor_plugin
from tests.doubles.spaces_api import LIMIT, TOKEN, SpacesApiDouble, spaces_api
from tests.providers.project import SERVER, stack

BUCKET = "spaces-media"
REGION = "fra1"
USER = f"synapse-media-{BUCKET}"
OWNER = f"synapse-media/spaces/{SERVER}"


@dataclass(slots=True)
class Cloud:
    """Where DigitalOcean is in these tests."""

    store: Running
    api: SpacesApiDouble
    rest: str

    @property
    def token(self) -> dict[str, str]:
        return {"DIGITALOCEAN_TOKEN": TOKEN, "STAND_IN_DIGITALOCEAN_REST": self.rest}

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.token,
            "SPACES_ACCESS_KEY_ID": self.store.access_key_id,
            "SPACES_SECRET_ACCESS_KEY": self.store.secret_access_key,
        }

    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.store.endpoint,
            region_name=self.store.region,
            aws_access_key_id=self.store.access_key_id,
            aws_secret_access_key=self.store.secret_access_key,
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "provider": "digitalocean_spaces",
            "region": REGION,
            "bucket": BUCKET,
            "method": "synapse-s3-storage-provider",
            "endpoint": self.store.endpoint,
            "api_endpoint": self.api.url,
            "settle_seconds": 0,
            **more,
        }

    def inputs(self, **more: Any) -> dict[str, Any]:
        """Of a key ring that is asked without the engine."""
        return {
            "userName": USER,
            "owner": OWNER,
            "active": "a",
            "slots": ["a"],
            "retireConfirmed": False,
            "grants": [{"bucket": BUCKET, "permission": "readwrite"}],
            "adopt": False,
            "connection": {"apiEndpoint": self.api.url},
            **more,
        }


@pytest.fixture(scope="module")
def store(own_directories: Path) -> Iterator[Running]:
    """A store that signs for a region of Spaces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "REGION", REGION)
        yield embedded.start(name="spaces-tests")
        embedded.wipe(name="spaces-tests")


@pytest.fixture(scope="module")
def rest() -> Iterator[str]:
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def cloud(store: Running, rest: str) -> Iterator[Cloud]:
    vendor_plugin.install()
    with spaces_api(store) as api:
        yield Cloud(store, api, rest)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def context(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    return Context(warn=said.append)


def test_life_of_a_store(tmp_path: Path, cloud: Cloud) -> None:
    spaces = stack(tmp_path, "spaces", cloud.environment)
    spaces.store(**cloud.settings())
    spaces.up()
    assert spaces.preview() == ()

    first = spaces.outputs()
    first.require_proof()
    assert (first.provider, first.user, first.region) == ("digitalocean_spaces", "", REGION)
    assert "bucket policy" in first.lacks
    assert render(first, form="plain")
    state = spaces.state()
    for secret in (first.secret_access_key, cloud.store.secret_access_key, TOKEN):
        assert secret not in state
    # The key cleared up after its proof.
    assert "Versions" not in cloud.s3().list_object_versions(Bucket=BUCKET)
    assert [key["name"] for key in cloud.api.keys.values()] == [key_name(USER, OWNER, "a")]

    # Changed by hand: found by a refresh, mended by the next up.
    cloud.s3().put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    cloud.api.keys[first.access_key_id]["grants"] = [{"bucket": BUCKET, "permission": "read"}]
    assert {change.kind for change in spaces.preview(refresh=True)} == {"SpacesBucket", "SpacesKeyRing"}
    spaces.up(refresh=True)
    assert cloud.api.keys[first.access_key_id]["grants"] == [{"bucket": BUCKET, "permission": "readwrite"}]
    assert cloud.s3().get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"

    # Rotation: the second key beside the first, then the first retired.
    spaces.store(**cloud.settings(keys={"active": "b", "retiring": ["a"]}))
    spaces.up()
    second = spaces.outputs()
    second.require_proof()
    assert set(cloud.api.keys) == {first.access_key_id, second.access_key_id}
    spaces.store(["retire-key", "delete-bucket"], **cloud.settings(keys={"active": "b"}))
    spaces.up()
    assert set(cloud.api.keys) == {second.access_key_id}

    spaces.destroy()
    assert cloud.api.keys == {}
    assert BUCKET not in [bucket["Name"] for bucket in cloud.s3().list_buckets()["Buckets"]]


def test_a_token_alone(tmp_path: Path, cloud: Cloud) -> None:
    """The stack makes a full-access key for itself, keeps it to itself, and gives it up for one it is given."""
    spaces = stack(tmp_path, "spaces-token", cloud.token)
    bucket = "spaces-token-media"
    spaces.store(["delete-bucket"], **cloud.settings(bucket=bucket))
    assert "full-access Spaces key" in spaces.up()
    outputs = spaces.outputs()
    outputs.require_proof()
    admin = next(key for key in cloud.api.keys.values() if key["name"].startswith("synapse-media-admin-admin-"))
    assert admin["grants"] == [{"bucket": "", "permission": "fullaccess"}]
    assert admin["access_key"] not in json.dumps(spaces.engine.outputs("spaces-token"))
    resources = spaces.engine.export("spaces-token")["deployment"]["resources"]
    vendor = next(item for item in resources if item["type"] == "pulumi:providers:digitalocean")
    assert isinstance(vendor["inputs"]["spacesSecretKey"], dict)
    assert "ciphertext" in vendor["inputs"]["spacesSecretKey"]
    assert spaces.preview() == ()

    spaces.engine.environment |= cloud.environment
    spaces.up()
    assert set(cloud.api.keys) == {outputs.access_key_id}
    spaces.destroy()


def test_one_of_two_credentials_is_missing(tmp_path: Path, cloud: Cloud) -> None:
    given = {name: value for name, value in cloud.environment.items() if name != "SPACES_SECRET_ACCESS_KEY"}
    spaces = stack(tmp_path, "spaces-half", given)
    spaces.store(**cloud.settings())
    with pytest.raises(EngineError, match="SPACES_SECRET_ACCESS_KEY is missing") as caught:
        spaces.up()
    assert "Traceback" not in str(caught.value)


def test_the_limit_of_keys(cloud: Cloud, context: Context) -> None:
    foreign = [{"bucket": "elsewhere", "permission": "read"}]
    for number in range(LIMIT):
        cloud.api.keys[f"K{number}"] = {"name": f"k{number}", "access_key": f"K{number}", "grants": foreign}
    with pytest.raises(PartialError, match=r"as many Spaces keys as it may have \(200\)"):
        SpacesKeyRing().create(cloud.inputs(), context)


def test_keys_are_found_on_every_page(cloud: Cloud, context: Context) -> None:
    foreign = [{"bucket": "elsewhere", "permission": "read"}]
    for number in range(LIMIT + 5):
        cloud.api.keys[f"K{number}"] = {"name": f"k{number}", "access_key": f"K{number}", "grants": foreign}
    cloud.api.keys["LAST"] = {
        "name": "by hand",
        "access_key": "LAST",
        "grants": [{"bucket": BUCKET, "permission": "read"}],
    }
    found = SpacesKeyRing().family(cloud.inputs()).found()
    assert [key.key_id for key in found] == ["LAST"]


def test_an_answer_cut_short_leaves_no_key_behind(cloud: Cloud, context: Context, said: list[str]) -> None:
    ring = SpacesKeyRing()

    def cut(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
        answer = upstream.ask(request)
        assert answer is not None
        return proxy.Answer(answer.status, answer.headers, answer.body, cut=20)

    with proxy.in_front_of(cloud.api.url) as double:
        fault = double.misbehave(cut, when=lambda request: request.method == "POST")
        with pytest.raises(PartialError, match="finds it by its name and replaces it") as caught:
            ring.create(cloud.inputs(connection={"apiEndpoint": double.url}), context)
        assert fault.hits == 1
    assert len(cloud.api.keys) == 1
    lost = next(iter(cloud.api.keys))
    assert caught.value.outputs["keys"] == {}

    made = ring.update(USER, caught.value.outputs, cloud.inputs(), context)
    assert list(cloud.api.keys) == [made["accessKeyId"]]
    assert any(f"key {lost}, made by an interrupted run" in words for words in said)
    ring.delete(USER, {**made, "retireConfirmed": True}, context)
    assert cloud.api.keys == {}


def test_a_key_that_may_be_in_use_is_not_deleted_unasked(cloud: Cloud, context: Context) -> None:
    there = {"apiEndpoint": cloud.api.url, "endpoint": cloud.store.endpoint, "region": REGION}
    cloud.s3().create_bucket(Bucket=BUCKET)
    ring = SpacesKeyRing()
    made = ring.create(cloud.inputs(connection=there), context)[1]
    with pytest.raises(ResourceError, match="may be in use and is not deleted"):
        ring.delete(USER, made, context)
    assert list(cloud.api.keys) == [made["accessKeyId"]]
    cloud.s3().delete_bucket(Bucket=BUCKET)
    # Without its bucket the key is of no use, so nobody is asked.
    ring.delete(USER, made, context)
    assert cloud.api.keys == {}


@pytest.mark.parametrize("status", [429, 503])
def test_a_burst_is_waited_out(cloud: Cloud, context: Context, status: int) -> None:
    ring = SpacesKeyRing()
    busy = proxy.Answer(status, (("Content-Type", "application/json"),), b'{"id": "busy", "message": "later"}')
    with proxy.in_front_of(cloud.api.url) as double:
        fault = double.misbehave(
            lambda _request, _upstream: busy, when=lambda request: request.method == "GET", times=2
        )
        made = ring.create(cloud.inputs(connection={"apiEndpoint": double.url}), context)[1]
        assert fault.hits == 2
    assert list(cloud.api.keys) == [made["accessKeyId"]]
    ring.delete(USER, cloud.inputs(keys=made["keys"], retireConfirmed=True), context)


def test_making_a_key_is_never_repeated(cloud: Cloud, context: Context) -> None:
    busy = proxy.Answer(503, (("Content-Type", "application/json"),), b'{"id": "busy", "message": "later"}')
    with proxy.in_front_of(cloud.api.url) as double:
        fault = double.misbehave(lambda _request, _upstream: busy, when=lambda request: request.method == "POST")
        with pytest.raises(PartialError, match="busy: later"):
            SpacesKeyRing().create(cloud.inputs(connection={"apiEndpoint": double.url}), context)
        assert fault.hits == 1


def test_a_token_that_is_not_valid(cloud: Cloud, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "dop_v1_revoked")
    with pytest.raises(
        ResourceError, match=r"HTTP 401, request double-0\)\. DIGITALOCEAN_TOKEN is not valid"
    ) as caught:
        SpacesKeyRing().create(cloud.inputs(), context)
    assert "dop_v1_revoked" not in str(caught.value)


def test_no_token_is_said(cloud: Cloud, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITALOCEAN_TOKEN")
    with pytest.raises(ResourceError, match="the environment has no DIGITALOCEAN_TOKEN"):
        SpacesKeyRing().create(cloud.inputs(), context)


def test_an_adopted_stores_keys_are_only_reported(cloud: Cloud, context: Context, said: list[str]) -> None:
    cloud.api.keys["OLD"] = {
        "name": key_name(USER, OWNER, "a"),
        "access_key": "OLD",
        "grants": [{"bucket": BUCKET, "permission": "readwrite"}],
    }
    ring = SpacesKeyRing()
    made = ring.create(cloud.inputs(adopt=True), context)[1]
    assert set(cloud.api.keys) == {"OLD", made["accessKeyId"]}
    assert made["unknownKeys"] == ["OLD"]
    assert any("key OLD, not made by this stack" in words for words in said)
    del cloud.api.keys["OLD"]
    ring.delete(USER, {**made, "retireConfirmed": True}, context)


def test_a_key_of_our_name_for_another_bucket_is_another_stores(cloud: Cloud, context: Context) -> None:
    """Two checkouts with stacks, homeservers and users of the same name."""
    cloud.api.keys["OTHER"] = {
        "name": key_name(USER, OWNER, "a"),
        "access_key": "OTHER",
        "grants": [{"bucket": "another", "permission": "readwrite"}],
    }
    ring = SpacesKeyRing()
    made = ring.create(cloud.inputs(), context)[1]
    assert set(cloud.api.keys) == {"OTHER", made["accessKeyId"]}
    del cloud.api.keys["OTHER"]
    ring.delete(USER, {**made, "retireConfirmed": True}, context)


def test_an_admin_key_of_an_interrupted_run_is_replaced(cloud: Cloud, context: Context) -> None:
    inputs = {"name": "synapse-media-admin", "owner": "synapse-media/s", "connection": {"apiEndpoint": cloud.api.url}}
    resource = SpacesAdminKey()
    lost, _ = resource.create(inputs, context)
    made, outputs = resource.create(inputs, context)
    assert list(cloud.api.keys) == [made]
    assert lost != made
    assert resource.read(made, inputs, outputs, context) is not None
    resource.delete(made, outputs, context)
    assert resource.read(made, inputs, outputs, context) is None
