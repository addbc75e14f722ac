"""DigitalOcean Spaces through doubles: a stand-in for the vendor's plugin, and one for the API of Spaces keys.

The bucket and the keys are on the embedded store, so that the proof runs; lifecycle rules are on moto. The stand-in
behaves as the vendor's plugin was measured to (docs/vendors.md); Spaces' own time until a key works is not shown.
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
from synapse_media.engine.vendor_errors import readable_errors
from synapse_media.errors import StoreError
from synapse_media.plugin.digitalocean_spaces import SpacesAdministrator, SpacesAdminKey, SpacesKeyRing
from synapse_media.plugin.keyring import key_name
from synapse_media.plugin.resource import Context, PartialError
from synapse_media.renderer import render
from synapse_media.schema import model
from synapse_media.schema.resources import ProofInputs
from tests.components.library import SOURCE, library, write
from tests.doubles import digitalocean_plugin, proxy, vendor_plugin
from tests.doubles.spaces_api import LIMIT, TOKEN, SpacesApiDouble, spaces_api
from tests.providers.project import SERVER, stack

ADMIN = ("SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")
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
    rest = boto3.client(
        "s3", endpoint_url=cloud.rest, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )
    cleaner = {"ID": "cleaner", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    rest.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [cleaner]})
    found = {change.kind: change for change in spaces.preview(refresh=True)}
    assert set(found) == {"SpacesBucket", "SpacesKeyRing"}
    told = found["SpacesBucket"]
    assert "versioning.enabled: false -> true" in told.details
    assert (
        "found at the store: a lifecycle rule deletes media by age: cleaner expires all media after 1 day"
        in told.details
    )
    assert told.dangers == ()
    spaces.up(refresh=True)
    assert cloud.api.keys[first.access_key_id]["grants"] == [{"bucket": BUCKET, "permission": "readwrite"}]
    assert cloud.s3().get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"

    # A ring that is made anew has a key of the same name, and that is not the one that goes.
    ring = spaces.urn("s3store:index:SpacesKeyRing")
    with pytest.raises(EngineError, match="may be in use and is not deleted"):
        spaces.up(options=["--replace", ring])
    spaces.let_keys_go()
    spaces.up(options=["--replace", ring])
    first = spaces.outputs()
    first.require_proof()
    assert set(cloud.api.keys) == {first.access_key_id}

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


def _open(cloud: Cloud, bucket: str) -> None:
    """Make a bucket public by hand, by its access list and by a policy."""
    s3 = cloud.s3()
    ownership = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=ownership)
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    reading = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [reading]}))


def _is_open(cloud: Cloud, bucket: str) -> bool:
    grants = cloud.s3().get_bucket_acl(Bucket=bucket)["Grants"]
    return any(grant["Grantee"].get("ID") == "all-users" for grant in grants)


def test_a_space_made_public_by_hand_is_found_and_made_private(tmp_path: Path, cloud: Cloud) -> None:
    bucket = "spaces-opened"
    spaces = stack(tmp_path, "spaces-opened", cloud.environment)
    spaces.store(["delete-bucket"], **cloud.settings(bucket=bucket))
    spaces.up()
    assert spaces.preview(refresh=True) == ()
    _open(cloud, bucket)
    assert _is_open(cloud, bucket)
    [change] = spaces.preview(refresh=True)
    assert (change.kind, change.verb, change.dangers) == ("SpacesKeyRing", "update", ())
    reading = f'allow to "*" s3:GetObject on arn:aws:s3:::{bucket}/*'
    assert change.details == (
        f"- {reading}",
        'acl: "public" -> nothing',
        f"found at the store: the bucket's policy lets everybody in: {reading}",
        "found at the store: the bucket's access list lets everybody in",
    )
    spaces.up(refresh=True)
    assert not _is_open(cloud, bucket)
    with pytest.raises(cloud.s3().exceptions.ClientError, match="NoSuchBucketPolicy"):
        cloud.s3().get_bucket_policy(Bucket=bucket)
    assert spaces.preview(refresh=True) == ()
    spaces.destroy()


def test_a_space_that_was_there_becomes_a_managed_one_by_a_word(tmp_path: Path, cloud: Cloud) -> None:
    """It stays with our plugin, as adopt: true says; the vendor's would make it anew."""
    s3, bucket = cloud.s3(), "spaces-owned"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="local_content/a", Body=b"a picture of years ago")
    spaces = stack(tmp_path, "spaces-owned", cloud.environment)
    adopted = cloud.settings(bucket=bucket, adopt=True)
    spaces.store(**adopted)
    spaces.up()
    spaces.store(["own-bucket"], **adopted)
    with pytest.raises(EngineError, match=r"still differs from a new bucket: .*versioning is False"):
        spaces.up()
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    spaces.store(["set-versioning", "set-lifecycle", "set-policy", "set-access", "set-encryption"], **adopted)
    spaces.up()
    spaces.store(["own-bucket"], **adopted)
    spaces.up()
    spaces.store(**adopted)
    assert spaces.preview(refresh=True) == ()
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert [change.kind for change in spaces.preview(refresh=True)] == ["Bucket"]
    spaces.up(refresh=True)
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_object(Bucket=bucket, Key="local_content/a")["Body"].read() == b"a picture of years ago"
    spaces.store(["retain-bucket"], **adopted)
    spaces.up()
    spaces.destroy()


def test_whether_a_space_is_public_is_looked_at_again_and_only_with_a_key(
    cloud: Cloud, context: Context, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, ring = "spaces-looked-at", SpacesKeyRing()
    where = {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
    cloud.s3().create_bucket(Bucket=bucket, **where)
    reach = {"endpoint": cloud.store.endpoint, "region": REGION, "variables": list(ADMIN), "addressing": "path"}
    inputs = cloud.inputs(
        grants=[{"bucket": bucket, "permission": "readwrite"}], connection={"apiEndpoint": cloud.api.url, **reach}
    )
    _, outputs = ring.create(inputs, context)
    _open(cloud, bucket)

    def read(**known: Any) -> dict[str, Any]:
        found = ring.read(USER, {**inputs, **known}, outputs, context)
        assert found is not None
        return {name: value for name, value in found.inputs.items() if name in ("acl", "policy")}

    # Without the admin's key it can't be looked at, and what was found before is not said again.
    assert read(acl="public") == {}
    for name in ADMIN:
        monkeypatch.setenv(name, cloud.environment[name])
    assert read()["acl"] == "public"
    assert set(read()) == {"acl", "policy"}
    # Taken over: reported, and left.
    said.clear()
    assert read(adopt=True) == {}
    assert [words for words in said if "public access list" in words]
    ring.update(USER, {**outputs, "adopt": True}, {**inputs, "adopt": True}, context)
    assert _is_open(cloud, bucket)
    ring.update(USER, outputs, inputs, context)
    assert not _is_open(cloud, bucket)
    assert read(acl="public", policy="{}") == {}
    # Gone, and that is the bucket's own affair.
    cloud.s3().delete_bucket(Bucket=bucket)
    assert read() == {}
    ring.delete(USER, outputs, context)


def test_a_bucket_of_another_name_is_another_bucket(tmp_path: Path, cloud: Cloud) -> None:
    """The vendor's plugin would write the new name into the state, and empty the bucket of that name."""
    s3, old, other = cloud.s3(), "spaces-old", "spaces-of-somebody"
    where = {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
    s3.create_bucket(Bucket=other, **where)
    s3.put_object(Bucket=other, Key="theirs", Body=b"not ours")
    spaces = stack(tmp_path, "spaces-renamed", cloud.environment)
    allow = ["delete-bucket", "delete-media"]
    spaces.store(allow, **cloud.settings(bucket=old, user="one"))
    spaces.up()
    spaces.store(allow, **cloud.settings(bucket=other, user="one"))
    (bucket,) = [change for change in spaces.preview() if change.kind == "SpacesBucket"]
    assert (bucket.verb, [danger.word for danger in bucket.dangers]) == ("replace", ["replace-bucket"])
    with pytest.raises(EngineError, match="BucketAlreadyOwnedByYou"):
        spaces.up()
    spaces.destroy()
    # Other tests have buckets there, too.
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} & {old, other} == {other}
    assert s3.list_objects_v2(Bucket=other)["KeyCount"] == 1
    s3.delete_object(Bucket=other, Key="theirs")
    s3.delete_bucket(Bucket=other)


def test_a_wrong_secret_is_said_once_and_with_its_cause(tmp_path: Path, cloud: Cloud) -> None:
    spaces = stack(tmp_path, "spaces-wrong", {**cloud.environment, "SPACES_SECRET_ACCESS_KEY": "not-this-one"})
    spaces.store(**cloud.settings(bucket="spaces-wrong"))
    with pytest.raises(EngineError) as caught:
        spaces.up()
    told = readable_errors(str(caught.value))
    assert told.count("Forbidden: Forbidden") == 1
    assert "its secret is wrong" in told
    assert ".go:" not in told


def test_the_stand_in_behaves_as_measured(cloud: Cloud, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(digitalocean_plugin._settings, "spacesEndpoint", cloud.store.endpoint)
    space, s3, first, second = digitalocean_plugin.SpacesBucket(), cloud.s3(), "measured-one", "measured-two"
    rule = {"id": "r", "enabled": True, "noncurrentVersionExpiration": {"days": 3}}
    inputs = {"name": first, "region": REGION, "acl": "private", "forceDestroy": True, "lifecycleRules": [rule]}
    inputs["versioning"] = {"enabled": True}
    found, outputs = space.create(inputs, context)
    assert found == first
    # Its owner makes it again: an error at Spaces, an answer like the first one's at Ceph RGW.
    with pytest.raises(StoreError, match="BucketAlreadyOwnedByYou"):
        space.create(inputs, context)
    monkeypatch.setenv("STAND_IN_DIGITALOCEAN_OWNER_MAY_CREATE_AGAIN", "yes")
    assert space.create(inputs, context)[0] == first
    # The access list is never read.
    _open(cloud, first)
    read = space.read(first, inputs, outputs, context)
    assert read is not None
    assert (read.inputs, read.outputs["acl"]) == (inputs, "private")
    # Another name is one in the state alone, and what is emptied is what has it.
    s3.create_bucket(Bucket=second, CreateBucketConfiguration={"LocationConstraint": REGION})
    for bucket in (first, second):
        s3.put_object(Bucket=bucket, Key="media", Body=b"kept?")
    renamed = space.update(first, outputs, {**inputs, "name": second}, context)
    with pytest.raises(StoreError, match="without end"):
        space.delete(first, renamed, context)
    assert s3.list_objects_v2(Bucket=first)["KeyCount"] == 1
    assert s3.list_objects_v2(Bucket=second)["KeyCount"] == 0
    # With its own name it goes, and is not found a second time.
    space.delete(first, outputs, context)
    with pytest.raises(StoreError, match="NoSuchBucket"):
        space.delete(first, outputs, context)
    s3.delete_bucket(Bucket=second)


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
    with pytest.raises(PartialError, match="its limit of 200 Spaces keys"):
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
    ring = SpacesKeyRing()
    found = ring.family(ring.read_state(cloud.inputs())).found()
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
    assert any(f"key {lost}, created by an interrupted run" in words for words in said)
    ring.delete(USER, {**made, "retireConfirmed": True}, context)
    assert cloud.api.keys == {}


def test_a_key_that_may_be_in_use_is_not_deleted_unasked(cloud: Cloud, context: Context) -> None:
    there = {"apiEndpoint": cloud.api.url, "endpoint": cloud.store.endpoint, "region": REGION}
    cloud.s3().create_bucket(Bucket=BUCKET)
    ring = SpacesKeyRing()
    made = ring.create(cloud.inputs(connection=there), context)[1]
    with pytest.raises(StoreError, match="may be in use and is not deleted"):
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


def test_a_429_of_somebody_in_between_says_what_to_do(cloud: Cloud, context: Context) -> None:
    def too_many(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
        upstream.ask(request)
        return proxy.Answer(429, (), b"")

    ring = SpacesKeyRing()
    with proxy.in_front_of(cloud.api.url) as double:
        fault = double.misbehave(too_many, when=lambda request: request.method == "POST")
        with pytest.raises(PartialError, match=r"429.* after a minute .*: it finds such a key and replaces it") as told:
            ring.create(cloud.inputs(connection={"apiEndpoint": double.url}), context)
        assert fault.hits == 1
    assert len(cloud.api.keys) == 1
    made = ring.update(USER, told.value.outputs, cloud.inputs(), context)
    assert list(cloud.api.keys) == [made["accessKeyId"]]
    ring.delete(USER, {**made, "retireConfirmed": True}, context)


def test_a_token_that_is_not_valid(cloud: Cloud, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "dop_v1_revoked")
    with pytest.raises(StoreError, match=r"HTTP 401, request double-0\)\. DIGITALOCEAN_TOKEN is not valid") as caught:
        SpacesKeyRing().create(cloud.inputs(), context)
    assert "dop_v1_revoked" not in str(caught.value)


def test_no_token_is_said(cloud: Cloud, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITALOCEAN_TOKEN")
    with pytest.raises(StoreError, match="the environment has no DIGITALOCEAN_TOKEN"):
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
    assert any("key OLD, not created by this stack" in words for words in said)
    del cloud.api.keys["OLD"]
    ring.delete(USER, {**made, "retireConfirmed": True}, context)


def _note_known(cloud: Cloud, outputs: dict[str, Any], owner: str = OWNER) -> None:
    """What the proof does, once the key is in a state."""
    known = {"owner": owner, "accessKeyId": outputs["accessKeyId"], "connection": {"apiEndpoint": cloud.api.url}}
    SpacesAdministrator().note_known(model.read(ProofInputs, known))


@pytest.mark.parametrize("adopt", [False, True])
def test_two_states_of_one_store_keep_each_others_keys(cloud: Cloud, context: Context, *, adopt: bool) -> None:
    """Another checkout of the same project and stack, or a state that was lost and found again."""
    ring = SpacesKeyRing()
    in_use = ring.create(cloud.inputs(), context)[1]
    _note_known(cloud, in_use)
    theirs = ring.create(cloud.inputs(adopt=adopt), context)[1]
    assert theirs["unknownKeys"] == [in_use["accessKeyId"]]
    _note_known(cloud, theirs)
    again = ring.update(USER, in_use, cloud.inputs(), context)
    assert again["unknownKeys"] == [theirs["accessKeyId"]]
    assert set(cloud.api.keys) == {in_use["accessKeyId"], theirs["accessKeyId"]}
    ring.delete(USER, {**theirs, "retireConfirmed": True}, context)
    assert set(cloud.api.keys) == {in_use["accessKeyId"]}


@pytest.mark.parametrize("adopt", [False, True])
def test_a_key_of_a_killed_run_is_replaced(cloud: Cloud, context: Context, *, adopt: bool) -> None:
    """Killed after the key was made and before it was in the state."""
    ring = SpacesKeyRing()
    ring.create(cloud.inputs(adopt=adopt), context)
    made = ring.create(cloud.inputs(adopt=adopt), context)[1]
    assert set(cloud.api.keys) == {made["accessKeyId"]}
    _note_known(cloud, made)
    # In a rotation, too; and what is known is noted by the ring where no proof was made.
    both = cloud.inputs(slots=["a", "b"], active="b", adopt=adopt)
    ring.update(USER, made, both, context)
    rotated = ring.update(USER, made, both, context)
    assert set(cloud.api.keys) == {key["accessKeyId"] for key in rotated["keys"].values()}
    ring.update(USER, rotated, both, context)
    assert {key["name"] for key in cloud.api.keys.values()} == {key_name(USER, OWNER, slot) for slot in "ab"}


def test_a_proof_without_the_token_leaves_the_note_to_the_ring(
    cloud: Cloud, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SpacesKeyRing().create(cloud.inputs(), context)[1]
    before = json.dumps(cloud.api.keys)
    with monkeypatch.context() as patch:
        patch.delenv("DIGITALOCEAN_TOKEN")
        _note_known(cloud, made)
    assert json.dumps(cloud.api.keys) == before
    SpacesKeyRing().update(USER, made, cloud.inputs(), context)
    assert [key["name"] for key in cloud.api.keys.values()] == [key_name(USER, OWNER, "a")]


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


def test_an_admin_key_of_an_interrupted_run_is_replaced(cloud: Cloud, context: Context, said: list[str]) -> None:
    inputs = {"name": "synapse-media-admin", "owner": "synapse-media/s", "connection": {"apiEndpoint": cloud.api.url}}
    resource = SpacesAdminKey()
    lost, _ = resource.create(inputs, context)
    made, outputs = resource.create(inputs, context)
    assert list(cloud.api.keys) == [made]
    assert lost != made
    assert resource.read(made, inputs, outputs, context) is not None
    # Another state of the same stack keeps it.
    ring = SpacesKeyRing().create(cloud.inputs(owner="synapse-media/s/matrix.example.com"), context)[1]
    _note_known(cloud, ring, "synapse-media/s/matrix.example.com")
    theirs, _ = resource.create(inputs, context)
    assert {made, theirs} < set(cloud.api.keys)
    assert [words for words in said if f"full-access Spaces key {made} with this stack's name" in words]
    for key in (theirs, ring["accessKeyId"]):
        del cloud.api.keys[key]
    resource.delete(made, outputs, context)
    assert resource.read(made, inputs, outputs, context) is None


def test_a_name_that_is_unknown_in_a_preview_replaces_nothing_unless_it_changes(tmp_path: Path, cloud: Cloud) -> None:
    """As of our own buckets (tests/components/test_library.py)."""

    def program(bucket: str, tag: str) -> str:
        return f"""{SOURCE}
    DigitalOceanSpaces(
        "media",
        DigitalOceanSpacesArgs(
            server_name="example.com",
            bucket=Source("name", "{bucket}", "{tag}").found,
            region={REGION!r},
            endpoint={cloud.store.endpoint!r},
            api_endpoint={cloud.api.url!r},
            settle_seconds=0,
        ),
    )
    """

    found = library(tmp_path / "project", "spaces-unknown", cloud.environment, program("spaces-unknown", "1"))
    found.up()
    write(found, program("spaces-unknown", "2"))
    assert {change.verb for change in found.preview() if change.kind != "Resource"} == {"update"}
    found.engine.run(["up", "--yes", "--stack", found.name])
    write(found, program("spaces-another", "3"))
    with pytest.raises(EngineError, match="marked for protection"):
        found.engine.run(["up", "--yes", "--stack", found.name])
    names = {one["Name"] for one in cloud.s3().list_buckets()["Buckets"]}
    assert names & {"spaces-unknown", "spaces-another"} == {"spaces-unknown"}
