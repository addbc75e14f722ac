"""Garage: everything on the real thing, where `make garage` has built it."""

from __future__ import annotations

import json
import socketserver
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from synapse_media import settings
from synapse_media.engine.session import EngineError
from synapse_media.errors import SettingsError, StoreError
from synapse_media.plugin.garage import GarageAdministrator, GarageBucket, GarageKeyRing, check_region
from synapse_media.plugin.resource import Context
from synapse_media.renderer import render
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.schema.resources import ProofInputs
from tests.doubles import garage_admin, proxy
from tests.doubles.serving import serving
from tests.providers import garage_server
from tests.providers.garage_server import Running
from tests.providers.project import SERVER, Stack, stack

BUCKET = "garage-media"
SCOPE = [
    "CreateBucket",
    "DeleteBucket",
    "GetBucketInfo",
    "ListBuckets",
    "UpdateBucket",
    "CleanupIncompleteUploads",
    "CreateKey",
    "UpdateKey",
    "DeleteKey",
    "GetKeyInfo",
    "ListKeys",
    "AllowBucketKey",
    "DenyBucketKey",
]

needs_garage = pytest.mark.skipif(
    not garage_server.binary().exists(),
    reason=f"Garage {garage_server.VERSION} is not in the cache: `make garage` builds it (10 to 40 minutes)",
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with garage_server.running(tmp_path_factory.mktemp("garage")) as running:
        yield running


def _ask(node: Running, operation: str, body: Any = None) -> Any:
    """The admin API by hand."""
    request = urllib.request.Request(
        f"{node.admin_endpoint}/v2/{operation}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {node.token}"},
        method="GET" if body is None else "POST",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def token(node: Running) -> str:
    """A token with the scope that the catalog and the guide name, and no more."""
    made = _ask(node, "CreateAdminToken", {"name": "synapse-media", "neverExpires": True, "scope": SCOPE})
    secret: str = made["secretToken"]
    return secret


@pytest.fixture
def garage(tmp_path: Path, token: str) -> Stack:
    return stack(tmp_path, "garage", {"GARAGE_ADMIN_TOKEN": token})


def _settings(node: Running, bucket: str = BUCKET, **more: Any) -> dict[str, Any]:
    return {
        "provider": "garage",
        "endpoint": node.endpoint,
        "admin_endpoint": node.admin_endpoint,
        "bucket": bucket,
        "method": "synapse-s3-storage-provider",
        **more,
    }


def _ours(node: Running) -> list[str]:
    return [key["id"] for key in _ask(node, "ListKeys") if key["name"].startswith("synapse-media/garage/")]


@needs_garage
def test_life_of_a_store(garage: Stack, node: Running) -> None:
    garage.store(**_settings(node, quota_bytes=50_000_000))
    garage.up()
    assert garage.preview() == ()
    info = _ask(node, f"GetBucketInfo?globalAlias={BUCKET}")
    assert info["quotas"] == {"maxSize": 50_000_000, "maxObjects": None}
    [rule] = info["lifecycleRules"]
    assert rule["ID"] == f"synapse-media/garage/{SERVER}"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    [key] = info["keys"]
    assert key["permissions"] == {"read": True, "write": True, "owner": False}

    first = garage.outputs()
    first.require_proof()
    assert (first.access_key_id, first.region) == (key["accessKeyId"], "garage")
    assert any(first.access_key_id in text for text in render(first, form="plain").values())
    assert first.secret_access_key not in garage.state()
    assert first.proof is not None
    outcomes = {line.operation: (line.expected, line.outcome) for line in first.proof.lines}
    assert outcomes["other-bucket"] == ("refused", "refused")
    assert outcomes["delete"] == ("can't be refused here", "allowed")
    assert info["objects"] == 0  # the proof cleaned up

    # Changed by hand: found by a refresh, mended by the next up.
    more = {"bucketId": info["id"], "accessKeyId": first.access_key_id, "permissions": {"owner": True}}
    _ask(node, "AllowBucketKey", more)
    _ask(node, f"UpdateBucket?id={info['id']}", {"quotas": {"maxSize": None, "maxObjects": None}})
    assert {change.kind for change in garage.preview(refresh=True)} == {"GarageBucket", "GarageKeyRing"}
    garage.up(refresh=True)
    assert garage.preview(refresh=True) == ()
    info = _ask(node, f"GetBucketInfo?globalAlias={BUCKET}")
    assert info["keys"][0]["permissions"]["owner"] is False
    assert info["quotas"]["maxSize"] == 50_000_000

    # A ring that is made anew has a key of the same name, and that is not the one that goes.
    ring = garage.urn("s3store:index:GarageKeyRing")
    with pytest.raises(EngineError, match="may be in use and is not deleted"):
        garage.up(options=["--replace", ring])
    garage.let_keys_go()
    garage.up(options=["--replace", ring])
    first = garage.outputs()
    first.require_proof()
    assert _ours(node) == [first.access_key_id]

    # Rotation: the second key beside the first, then the first retired.
    garage.store(**_settings(node, keys={"active": "b", "retiring": ["a"]}))
    garage.up()
    second = garage.outputs()
    second.require_proof()
    assert sorted(_ours(node)) == sorted([first.access_key_id, second.access_key_id])
    garage.store(["retire-key"], **_settings(node, keys={"active": "b"}))
    garage.up()
    assert _ours(node) == [second.access_key_id]

    # A bucket with media in it is given up only where the stack file says so.
    s3 = boto3.client(
        "s3",
        endpoint_url=node.endpoint,
        region_name="garage",
        aws_access_key_id=second.access_key_id,
        aws_secret_access_key=second.secret_access_key,
    )
    s3.put_object(Bucket=BUCKET, Key="local_content/media", Body=b"kept")
    s3.create_multipart_upload(Bucket=BUCKET, Key="unfinished")
    garage.store(["delete-bucket"], **_settings(node, keys={"active": "b"}))
    garage.up()
    with pytest.raises(EngineError, match="holds media and is not deleted"):
        garage.destroy()
    assert _ask(node, f"GetBucketInfo?globalAlias={BUCKET}")["objects"] == 1
    garage.store(["delete-bucket", "delete-media"], **_settings(node, keys={"active": "b"}))
    garage.up()
    garage.destroy()
    assert _ours(node) == []
    assert _ask(node, "ListBuckets") == []


@needs_garage
def test_the_admin_api_goes_down_half_way(garage: Stack, node: Running) -> None:
    """The key was made and the answer lost: asked once, found by its name, deleted; a 503 burst is waited for."""

    def does_it_and_hangs_up(request: proxy.Request, upstream: proxy.Upstream) -> None:
        upstream.ask(request)

    busy = proxy.Answer(503, (("Content-Type", "application/json"),), b'{"code": "ServiceUnavailable"}')
    # What a run leaves that was killed right after it made the bucket.
    _ask(node, "CreateBucket", {"globalAlias": "half-way"})
    with proxy.in_front_of(node.admin_endpoint) as double:
        cut = double.misbehave(does_it_and_hangs_up, when=lambda request: request.path == "/v2/CreateKey")
        wanted = _settings(node, "half-way", admin_endpoint=double.url)
        garage.store(["delete-bucket"], **wanted)
        with pytest.raises(EngineError, match="POST /v2/CreateKey"):
            garage.up()
        assert cut.hits == 1
        assert len(_ours(node)) == 1
        double.behave()
        burst = double.misbehave(
            lambda _request, _upstream: busy, when=lambda request: request.path == "/v2/AllowBucketKey", times=2
        )
        garage.up()
        assert burst.hits == 2
        assert _ours(node) == [garage.outputs().access_key_id]
        garage.outputs().require_proof()

        # Revoked by hand: the next refresh finds it gone, and another is made and proved.
        revoked = garage.outputs().access_key_id
        _ask(node, f"DeleteKey?id={revoked}", {})
        garage.up(refresh=True)
        assert garage.outputs().access_key_id != revoked
        garage.outputs().require_proof()

        page = proxy.Answer(404, (("Content-Type", "text/html"),), b"<html>Not here</html>")
        double.misbehave(lambda _request, _upstream: page)
        with pytest.raises(EngineError, match="404") as raised:
            garage.up(refresh=True)
        assert "Traceback" not in str(raised.value)
        double.behave()
        assert garage.preview(refresh=True) == ()
        garage.destroy()
    assert _ours(node) == []


@needs_garage
def test_a_wrong_region_a_wrong_token_and_a_bucket_of_somebody_else(garage: Stack, node: Running) -> None:
    garage.store(**_settings(node, "wrong-media", region="us-east-1"))
    with pytest.raises(EngineError, match="'us-east-1' is not this cluster's, which signs for 'garage'"):
        garage.up()
    assert _ask(node, "ListBuckets") == []

    right = garage.engine.environment["GARAGE_ADMIN_TOKEN"]
    garage.engine.environment["GARAGE_ADMIN_TOKEN"] = "not-a-token"
    garage.store(**_settings(node, "wrong-media"))
    with pytest.raises(EngineError, match="Invalid bearer token"):
        garage.up()
    garage.engine.environment["GARAGE_ADMIN_TOKEN"] = right

    theirs = _ask(node, "CreateBucket", {"globalAlias": "wrong-media"})
    key = _ask(node, "CreateKey", {"name": "theirs", "neverExpires": True})
    given = {"bucketId": theirs["id"], "accessKeyId": key["accessKeyId"], "permissions": {"read": True}}
    _ask(node, "AllowBucketKey", given)
    with pytest.raises(EngineError, match="adopt: true"):
        garage.up()
    garage.store(["retain-bucket"], **_settings(node, "wrong-media", adopt=True))
    said = garage.up()
    assert "abortDays is 0, a new bucket would have 7" in said
    assert f"has the key {key['accessKeyId']}, not created by this stack" in said
    garage.outputs().require_proof()
    assert "lifecycleRules" not in _ask(node, f"GetBucketInfo?id={theirs['id']}")
    garage.destroy()
    assert [found["accessKeyId"] for found in _ask(node, f"GetBucketInfo?id={theirs['id']}")["keys"]] == [
        key["accessKeyId"]
    ]


@needs_garage
def test_with_the_state_lost_the_key_in_use_outlives_a_take_over(garage: Stack, node: Running) -> None:
    garage.store(**_settings(node, "found-media"))
    garage.up()
    [in_use] = _ours(node)
    garage.engine.run(["stack", "rm", "--yes", "--force", "--stack", garage.name])
    garage.engine.ensure_stack(garage.name)
    garage.store(["delete-bucket"], **_settings(node, "found-media", adopt=True))
    assert f"has the key {in_use}, not created by this stack" in garage.up()
    garage.outputs().require_proof()
    assert set(_ours(node)) == {in_use, garage.outputs().access_key_id}
    with pytest.raises(EngineError, match=f"accessible with the key {in_use}, which this state does not know"):
        garage.destroy()
    assert _ours(node) == [in_use]
    _ask(node, f"DeleteKey?id={in_use}", {})
    garage.destroy()


@needs_garage
def test_the_key_that_empties_a_bucket_is_not_left(garage: Stack, node: Running) -> None:
    with proxy.in_front_of(node.admin_endpoint) as double:
        garage.store(["delete-bucket", "delete-media"], **_settings(node, "emptied-media", admin_endpoint=double.url))
        garage.up()
        double.misbehave(proxy.lost_answer, when=lambda request: request.path == "/v2/CreateKey")
        s3 = boto3.client(
            "s3",
            endpoint_url=node.endpoint,
            region_name="garage",
            aws_access_key_id=garage.outputs().access_key_id,
            aws_secret_access_key=garage.outputs().secret_access_key,
        )
        s3.put_object(Bucket="emptied-media", Key="local_content/media", Body=b"given up")
        with pytest.raises(EngineError, match="POST /v2/CreateKey"):
            garage.destroy()
        double.behave()
        garage.destroy()
    assert _ours(node) == []


NARROW = [operation for operation in SCOPE if operation != "ListBuckets"]


@needs_garage
@pytest.mark.parametrize("scope", [SCOPE, NARROW])
def test_what_garage_still_has_is_not_taken_for_gone(
    node: Running, monkeypatch: pytest.MonkeyPatch, scope: list[str]
) -> None:
    """Whatever an answer says; and what was deleted is gone, also to a token of the scope of an earlier release."""
    made = _ask(node, "CreateAdminToken", {"name": "narrow", "neverExpires": True, "scope": scope})
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", made["secretToken"])
    bucket, ring, context = GarageBucket(), GarageKeyRing(), Context(lambda _: None)
    with proxy.in_front_of(node.admin_endpoint) as double:
        connection = {"endpoint": node.endpoint, "adminEndpoint": double.url, "region": "garage"}
        shared = {"owner": "ours", "connection": {**connection, "variables": ["GARAGE_ADMIN_TOKEN"]}}
        wanted, failures = bucket.check({**shared, "bucket": "there-media"})
        assert not failures
        _, known = bucket.create(wanted, context)
        of_bucket = {"bucketId": known["bucketId"], "nonce": known["nonce"]}
        wanted_ring, failures = ring.check({**shared, **of_bucket, "userName": "u", "active": "a", "slots": ["a"]})
        assert not failures
        _, keys = ring.create(wanted_ring, context)

        def read_ring() -> Any:
            return ring.read("u", wanted_ring, keys, context)

        def says(operation: str, found: Any, status: int = 200) -> None:
            answer = proxy.Answer(status, (("Content-Type", "application/json"),), json.dumps(found).encode())
            double.misbehave(lambda _, __: answer, when=lambda request: request.path == f"/v2/{operation}")

        says("ListKeys", [])
        with pytest.raises(StoreError, match=f"lacks keys that GetBucketInfo has .{keys['accessKeyId']}"):
            read_ring()
        says("GetBucketInfo", {**_ask(node, f"GetBucketInfo?id={known['bucketId']}"), "keys": []})
        with pytest.raises(StoreError, match=f"key {keys['accessKeyId']} is not among its keys any more.*accepted"):
            read_ring()
        double.behave()
        _ask(node, f"DeleteKey?id={keys['accessKeyId']}", {})
        assert read_ring().inputs["slots"] == []

        says("GetBucketInfo", NO_BUCKET[1], 404)
        if scope == SCOPE:
            with pytest.raises(StoreError, match="not taken for deleted"):
                bucket.read("there-media", wanted, known, context)
        double.behave()
        bucket.delete("there-media", known, context)
        assert bucket.read("there-media", wanted, known, context) is None
        bucket.delete("there-media", known, context)
        assert known["bucketId"] not in {one["id"] for one in _ask(node, "ListBuckets")}


@needs_garage
def test_the_double_answers_as_garage_does(node: Running) -> None:
    """Each part of an answer is in Garage's, and of the same type."""

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(part) for name, part in value.items()}
        return [shape(part) for part in value[:1]] if isinstance(value, list) else type(value)

    def among(value: Any, real: Any) -> bool:
        if isinstance(value, dict) and isinstance(real, dict):
            return all(name in real and among(part, real[name]) for name, part in value.items())
        if isinstance(value, list) and isinstance(real, list):
            return not value or (bool(real) and among(value[0], real[0]))
        return bool(value == real)

    with garage_admin.garage_admin() as double:
        asked = Running("", double.url, "")
        ids: dict[Running, dict[str, str]] = {one: {} for one in (node, asked)}
        limits = {"maxSize": 5, "maxObjects": 6}
        for operation, body in [
            ("CreateBucket", {"globalAlias": "double-media"}),
            ("CreateKey", {"name": "double", "neverExpires": True}),
            ("UpdateBucket?id=BUCKET", {"lifecycleRules": [rule_of("a", Filter={"Prefix": "x"})], "quotas": limits}),
            ("AllowBucketKey", {"bucketId": "BUCKET", "accessKeyId": "KEY", "permissions": {"read": True}}),
            ("DenyBucketKey", {"bucketId": "BUCKET", "accessKeyId": "KEY", "permissions": {"owner": True}}),
            ("UpdateKey?id=KEY", {"name": "renamed"}),
            ("GetBucketInfo?id=BUCKET", None),
            ("GetBucketInfo?globalAlias=double-media", None),
            ("GetKeyInfo?id=KEY", None),
            ("ListBuckets", None),
            ("ListKeys", None),
            ("CleanupIncompleteUploads", {"bucketId": "BUCKET", "olderThanSecs": 0}),
            ("DeleteKey?id=KEY", {}),
            ("DeleteBucket?id=BUCKET", {}),
        ]:
            answers = {}
            for one, known in ids.items():
                text = json.dumps([operation, body])
                for name, value in known.items():
                    text = text.replace(name, value)
                answers[one] = made = _ask(one, *json.loads(text))
                if operation == "CreateBucket":
                    known["BUCKET"] = made["id"]
                elif operation == "CreateKey":
                    known["KEY"] = made["accessKeyId"]
            assert among(shape(answers[asked]), shape(answers[node])), (operation, answers[asked], answers[node])


# ---- the calls of the admin API, on a double with prepared answers: it creates nothing

OLD = {"id": "GK0ld", "name": "ours/user/a//making", "expired": False}
MADE = {
    "accessKeyId": "GKnew",
    "secretAccessKey": "a-secret",
    "created": "2026-11-23T10:00:00Z",
    "permissions": {"createBucket": False},
    "buckets": [],
}
FRESH = {"id": "b1", "globalAliases": ["double-media", "decoy"], "keys": [], "objects": 0}
MAY = {"read": True, "write": True, "owner": False}
NO_BUCKET = 404, {"code": "NoSuchBucket", "message": "no"}
NO_KEY = 404, {"code": "NoSuchAccessKey", "message": "no"}
DENIED = 403, {"code": "AccessDenied", "message": "Forbidden: Invalid bearer token"}
LOST = 0, None
REFUSED = (
    b"<Error><Code>AccessDenied</Code><Message>Forbidden: Garage does not support anonymous access yet</Message>"
    b"<Region>garage</Region></Error>"
)


@dataclass(slots=True)
class Double:
    """A double of Garage: answers each operation with the prepared answers, the last one repeatedly.

    Attributes:
        keys: those that it makes, renames and deletes; None: it is told.
        narrow: the token may not rename keys, like one of an earlier release's scope.
    """

    url: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    keys: list[dict[str, Any]] | None = None
    narrow: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, request: proxy.Request, _: proxy.Upstream) -> proxy.Answer | None:
        if not request.path.startswith("/v2/"):
            # Of the S3 API, which knows nobody.
            return proxy.Answer(403, (("Content-Type", "application/xml"),), REFUSED)
        operation = request.path.removeprefix("/v2/")
        self.asked.append((operation, "".join(request.query.get("id", []))))
        if self.keys is not None:
            self._keep(self.keys, operation, request)
        told = self.answers.get(operation) or [self._usual(operation, request)]
        status, found = told.pop(0) if len(told) > 1 else told[0]
        # What Garage repeats of what it was asked.
        if operation == "CreateKey" and isinstance(found, dict):
            found = {"name": json.loads(request.body)["name"], **found}
        elif operation == "GetKeyInfo" and isinstance(found, dict):
            found = {"accessKeyId": self.asked[-1][1], **found}
        body = json.dumps(found).encode()
        return proxy.Answer(status, (("Content-Type", "application/json"),), body) if status else None

    def _usual(self, operation: str, request: proxy.Request) -> tuple[int, Any]:
        """The answer to a call for which none was prepared."""
        if operation in ("AllowBucketKey", "DenyBucketKey"):
            body = json.loads(request.body)
            key = {"accessKeyId": body["accessKeyId"], "name": "", "permissions": MAY}
            return 200, {**FRESH, "id": body["bucketId"], "keys": [key]}
        return {
            "UpdateKey": NO_KEY,
            "ListBuckets": (200, []),
            "UpdateBucket": (200, {**FRESH, "id": self.asked[-1][1]}),
        }.get(operation, (200, None))

    def _keep(self, keys: list[dict[str, Any]], operation: str, request: proxy.Request) -> None:
        if operation == "CreateKey":
            key = {"id": f"GK{len(self.asked)}", "name": json.loads(request.body)["name"], "expired": False}
            keys.append(key)
            self.answers[operation] = [(200, {**MADE, "accessKeyId": key["id"]})]
        elif operation == "DeleteKey":
            keys[:] = [key for key in keys if key["id"] not in request.query["id"]]
        elif operation == "UpdateKey" and not self.narrow:
            renamed = [key for key in keys if key["id"] in request.query["id"]]
            for key in renamed:
                key["name"] = json.loads(request.body)["name"]
            answers = [(200, {"accessKeyId": key["id"], "name": key["name"]}) for key in renamed]
            self.answers[operation] = answers or [NO_KEY]
        elif operation == "UpdateKey":
            self.answers[operation] = [DENIED]
        reaching = [{"accessKeyId": key["id"], "name": key["name"], "permissions": MAY} for key in keys]
        self.answers |= {"ListKeys": [(200, keys)], "GetBucketInfo": [(200, {**MARKED, "keys": reaching})]}

    def inputs(self, **more: Any) -> dict[str, Any]:
        connection = {
            "endpoint": self.url,
            "region": "garage",
            "adminEndpoint": self.url,
            "variables": ["GARAGE_ADMIN_TOKEN"],
        }
        return {"owner": "ours", "connection": connection, **more}

    def make_bucket(self) -> dict[str, Any]:
        inputs, failures = GarageBucket().check(self.inputs(bucket="double-media"))
        assert not failures
        return GarageBucket().create(inputs, Context(lambda _: None))[1]

    def make_key(self, **more: Any) -> dict[str, Any]:
        ring = {"userName": "user", "bucketId": "b1", "active": "a", "slots": ["a"], **more}
        inputs, failures = GarageKeyRing().check(self.inputs(**ring))
        assert not failures
        return GarageKeyRing().create(inputs, Context(lambda _: None))[1]


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", "a-token")
    with proxy.in_front_of("http://127.0.0.1:9") as front:
        made = Double(front.url)
        front.misbehave(made.answer)
        yield made


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize(
    ("name", "deleted"), [("ours/user/a", set()), ("ours/user/a//known", set()), (OLD["name"], {OLD["id"]})]
)
def test_a_key_of_our_name_is_deleted_only_where_the_name_says_that_it_was_not_issued(
    double: Double, adopted: bool, name: str, deleted: set[str]
) -> None:
    """In a bucket of release 0.1.0, whose names followed from the store alone, and told nothing of the kind."""
    reaching = {"accessKeyId": OLD["id"], "name": name, "permissions": MAY}
    double.answers = {
        "ListKeys": [(200, [{**OLD, "name": name}])],
        "GetBucketInfo": [(200, {**FRESH, "keys": [reaching]})],
        "CreateKey": [(200, MADE)],
    }
    made = double.make_key(**({"adopt": True} if adopted else {}))
    assert made["accessKeyId"] == MADE["accessKeyId"]
    assert made["unknownKeys"] == ([] if deleted else [OLD["id"]])
    GarageKeyRing().update("user", made, {**made, "adopt": False}, Context(lambda _: None))
    assert {key for operation, key in double.asked if operation == "DeleteKey"} == deleted


@pytest.mark.parametrize("answer", [(200, {"buckets": [{"id": "b2"}]}), (403, {"code": "AccessDenied"})])
def test_a_key_of_our_name_for_another_bucket_is_another_stores(double: Double, answer: tuple[int, Any]) -> None:
    """Two checkouts with stacks, homeservers and users of the same name; or a token that may not ask."""
    double.answers = {"ListKeys": [(200, [OLD])], "GetBucketInfo": [(200, FRESH)], "CreateKey": [(200, MADE)]}
    double.answers["GetKeyInfo"] = [answer]
    assert double.make_key()["unknownKeys"] == [OLD["id"]]
    assert "DeleteKey" not in {operation for operation, _ in double.asked}


MARKED = {**FRESH, "lifecycleRules": [{"ID": "ours", "Status": "Enabled"}]}


@pytest.mark.parametrize("mark", ["synapse-media/other/matrix.example.com", ""])
def test_a_bucket_that_is_marked_by_another_or_by_nobody_is_not_emptied(double: Double, mark: str) -> None:
    rules = [{"ID": mark, "Status": "Enabled"}] if mark else []
    double.answers = {"GetBucketInfo": [(200, {**FRESH, "objects": 1, "lifecycleRules": rules})]}
    said = "marked as that of another stack" if mark else "the mark of this stack was removed from it"
    with pytest.raises(StoreError, match=said):
        GarageBucket().delete(
            "double-media", double.inputs(bucket="double-media", forceDestroy=True), Context(lambda _: None)
        )
    assert {operation for operation, _ in double.asked} == {"GetBucketInfo"}
    inputs, _ = GarageBucket().check(double.inputs(bucket="double-media"))
    if mark:
        with pytest.raises(StoreError, match="marked as that of another stack"):
            GarageBucket().update("double-media", inputs, inputs, Context(lambda _: None))
        assert {operation for operation, _ in double.asked} == {"GetBucketInfo"}


def rule_of(rule_id: str, **more: Any) -> dict[str, Any]:
    """A lifecycle rule in the form of our mark, as Garage returns it."""
    abort = {"DaysAfterInitiation": 7}
    return {"ID": rule_id, "Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": abort, **more}


OF_ANOTHER_PROJECT = [
    rule_of("gar/prod/m.com"),
    rule_of("gar/prod/m.com:8448"),
    rule_of("gar/prod/[2001:db8::1]:8448"),
    rule_of("my.project/prod-2/localhost", Filter={"Prefix": None}),
    # Changed by hand.
    rule_of("gar/prod/m.com", Status="Disabled"),
    rule_of("gar/prod/m.com", Expiration={"Days": 30}),
]


@pytest.mark.parametrize("rule", OF_ANOTHER_PROJECT)
def test_the_mark_of_a_stack_in_a_project_of_any_name_is_recognised(double: Double, rule: dict[str, Any]) -> None:
    """Whatever the name of our own project, and whether its bucket is there to be adopted, updated or deleted."""
    theirs = (200, {**FRESH, "objects": 1, "lifecycleRules": [rule]})
    double.answers = {"GetBucketInfo": [theirs]}
    context = Context(lambda _: None)
    for adopt in (True, False):
        inputs, failures = GarageBucket().check(
            double.inputs(bucket="double-media", owner="gar/test/other.com", adopt=adopt)
        )
        assert not failures
        # What an earlier release recorded once it had taken the bucket.
        outputs = {**inputs, "bucketId": "b1", "nonce": "n", "adopted": adopt, "forceDestroy": True}
        with pytest.raises(StoreError, match="marked as that of another stack") as refused:
            GarageBucket().create(inputs, context)
        assert repr(rule["ID"]) in str(refused.value)
        assert "give it another ID if it is not a mark" in str(refused.value)
        with pytest.raises(StoreError, match="marked as that of another stack"):
            GarageBucket().update("double-media", outputs, inputs, context)
        with pytest.raises(StoreError, match="marked as that of another stack"):
            GarageBucket().delete("double-media", outputs, context)
    with pytest.raises(StoreError, match="marked as that of another stack"):
        GarageAdministrator().ensure_decoy(model.read(ProofInputs, double.inputs()), "decoy")
    assert {operation for operation, _ in double.asked} == {"GetBucketInfo"}


@pytest.mark.parametrize(
    "rule",
    [
        rule_of("abort"),
        rule_of("ops/abort"),
        rule_of("ops/eu/all/abort"),
        rule_of("ops/eu/all buckets"),
        rule_of("ops/eu/logs", Filter={"Prefix": "logs/"}),
        {"ID": "ops/eu/logs", "Status": "Enabled", "Expiration": {"Days": 30}},
    ],
)
def test_a_rule_of_somebody_else_is_no_mark(double: Double, rule: dict[str, Any]) -> None:
    double.answers = {"GetBucketInfo": [(200, {**FRESH, "objects": 1, "lifecycleRules": [rule]})]}
    inputs, failures = GarageBucket().check(double.inputs(bucket="double-media", adopt=True))
    assert not failures
    assert GarageBucket().create(inputs, Context(lambda _: None))[1]["adopted"] is True


def test_our_own_mark_counts_beside_a_rule_of_the_same_form(double: Double) -> None:
    double.answers = {"GetBucketInfo": [(200, {**FRESH, "lifecycleRules": [rule_of("ops/eu/abort"), rule_of("ours")]})]}
    assert double.make_bucket()["adopted"] is False


def adopted(double: Double, *manage: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of an adopted bucket."""
    inputs, failures = GarageBucket().check(double.inputs(bucket="double-media", adopt=True, manage=list(manage)))
    assert not failures
    double.answers = {"GetBucketInfo": [(200, {**MARKED, "objects": 1} if manage else {**FRESH, "objects": 1})]}
    return inputs, GarageBucket().create(inputs, Context(lambda _: None))[1]


def with_rule(rule_id: str) -> dict[str, Any]:
    return {**FRESH, "objects": 1, "lifecycleRules": [{"ID": rule_id, "Status": "Enabled"}] if rule_id else []}


@pytest.mark.parametrize(("mark", "changed"), [("", ()), ("ours", ()), ("synapse-media/other/x", ("owner",))])
def test_an_adopted_bucket_needs_no_mark_but_has_no_other_s(
    double: Double, mark: str, changed: tuple[str, ...]
) -> None:
    inputs, outputs = adopted(double)
    double.answers = {"GetBucketInfo": [(200, with_rule(mark))]}
    found = GarageBucket().read("double-media", inputs, outputs, Context(lambda _: None))
    assert found is not None
    assert GarageBucket().diff(found.inputs, inputs).changed == changed
    if changed:
        with pytest.raises(StoreError, match="marked as that of another stack"):
            GarageBucket().update("double-media", outputs, inputs, Context(lambda _: None))


def test_an_adopted_bucket_whose_rules_are_managed_has_a_mark_that_can_be_taken_off(double: Double) -> None:
    inputs, outputs = adopted(double, "lifecycle")
    double.answers = {"GetBucketInfo": [(200, with_rule(""))]}
    found = GarageBucket().read("double-media", inputs, outputs, Context(lambda _: None))
    assert found is not None
    assert "owner" in GarageBucket().diff(found.inputs, inputs).changed
    with pytest.raises(StoreError, match="the mark of this stack was removed from it"):
        GarageBucket().delete("double-media", {**outputs, "forceDestroy": True}, Context(lambda _: None))


@pytest.fixture
def keys(double: Double) -> list[dict[str, Any]]:
    """The keys that the double makes and deletes, of an empty bucket of ours that all of them reach."""
    double.keys = []
    return double.keys


def ring_of(double: Double, bucket: dict[str, Any], *slots: str, **more: Any) -> dict[str, Any]:
    """Inputs of the key ring of a bucket, by the bucket's outputs."""
    ring = {"userName": "user", "bucketId": bucket["bucketId"], "nonce": bucket["nonce"], "slots": list(slots)}
    inputs, failures = GarageKeyRing().check(double.inputs(**ring, active=slots[-1], **more))
    assert not failures
    return inputs


def ids(keys: list[dict[str, Any]]) -> set[str]:
    return {key["id"] for key in keys}


@pytest.mark.parametrize("adopt", [False, True])
def test_two_states_of_one_store_keep_each_others_keys(
    double: Double, keys: list[dict[str, Any]], *, adopt: bool
) -> None:
    """Another checkout of the same project and stack, or a state that was lost and found again."""
    ring, context = GarageKeyRing(), Context(lambda _: None)
    first, second = double.make_bucket(), double.make_bucket()
    in_use = ring.create(ring_of(double, first, "a"), context)[1]
    theirs = ring.create(ring_of(double, second, "a", adopt=adopt), context)[1]
    assert theirs["unknownKeys"] == [in_use["accessKeyId"]]
    again = ring.update("user", in_use, ring_of(double, first, "a"), context)
    assert again["unknownKeys"] == [theirs["accessKeyId"]]
    assert ids(keys) == {in_use["accessKeyId"], theirs["accessKeyId"]}
    ring.delete("user", {**theirs, "retireConfirmed": True}, context)
    assert ids(keys) == {in_use["accessKeyId"]}


@pytest.mark.parametrize("leave", [{}, {"forceDestroy": True}])
def test_a_bucket_that_a_key_of_another_state_reaches_is_not_deleted(
    double: Double, keys: list[dict[str, Any]], leave: dict[str, bool]
) -> None:
    """As that of another checkout, before Synapse wrote anything."""
    ring, context = GarageKeyRing(), Context(lambda _: None)
    first, second = double.make_bucket(), double.make_bucket()
    in_use = ring.create(ring_of(double, first, "a"), context)[1]["accessKeyId"]
    theirs = ring.create(ring_of(double, second, "a"), context)[1]
    ring.delete("user", {**theirs, "retireConfirmed": True}, context)
    double.asked.clear()
    with pytest.raises(StoreError, match=f"accessible with the key {in_use}, which this state does not know") as kept:
        GarageBucket().delete("double-media", {**second, **leave}, context)
    assert "`garage bucket deny --read --write --owner double-media --key KEY`" in str(kept.value)
    assert "<homeserver>/retain-bucket" in str(kept.value)
    assert {operation for operation, _ in double.asked} == {"GetBucketInfo"}
    # The state of the key knows it, also where the key moved on to another bucket.
    GarageBucket().delete("double-media", {**first, **leave}, context)
    assert double.asked[-1] == ("DeleteBucket", "b1")
    keys.clear()
    GarageBucket().delete("double-media", {**second, **leave}, context)


NONE = {"read": False, "write": False, "owner": False}


@pytest.mark.parametrize(
    ("name", "permissions", "deleted"),
    [
        ("backup", {**NONE, "read": True}, False),
        ("backup", NONE, True),
        ("ours/user/a/0123456789abcdef", {**NONE, "write": True}, False),
        ("ours/user/b", {**NONE, "write": True}, True),
        ("ours/user/b//making", {**NONE, "write": True}, True),
        ("ours/user/b//known", {**NONE, "write": True}, False),
        ("ours/user/b//0123456789abcdef/known", {**NONE, "write": True}, True),
        ("making", {**NONE, "write": True}, False),
        ("yours/user/b", {**NONE, "write": True}, False),
        ("ours/emptying", {**NONE, "write": True}, True),
    ],
)
def test_which_keys_keep_a_bucket_of_a_state_of_an_earlier_release(
    double: Double, name: str, permissions: dict[str, bool], *, deleted: bool
) -> None:
    """One without a nonce, whose keys are named by owner, user and slot."""
    key = {"accessKeyId": "GKthere", "name": name, "permissions": permissions}
    double.answers = {"GetBucketInfo": [(200, {**MARKED, "keys": [key]})]}
    outputs = double.inputs(bucket="double-media")
    if deleted:
        GarageBucket().delete("double-media", outputs, Context(lambda _: None))
    else:
        with pytest.raises(StoreError, match="accessible with the key GKthere"):
            GarageBucket().delete("double-media", outputs, Context(lambda _: None))
    assert ("DeleteBucket" in {operation for operation, _ in double.asked}) is deleted


@pytest.mark.parametrize("adopt", [False, True])
def test_a_key_of_a_killed_run_is_replaced(double: Double, keys: list[dict[str, Any]], *, adopt: bool) -> None:
    """Killed after the key was made and before it was in the state, which has the bucket."""
    ring, context = GarageKeyRing(), Context(lambda _: None)
    bucket = double.make_bucket()
    ring.create(ring_of(double, bucket, "a", adopt=adopt), context)
    made = ring.create(ring_of(double, bucket, "a", adopt=adopt), context)[1]
    assert ids(keys) == {made["accessKeyId"]}
    # In a rotation, too.
    ring.update("user", made, ring_of(double, bucket, "a", "b", adopt=adopt), context)
    rotated = ring.update("user", made, ring_of(double, bucket, "a", "b", adopt=adopt), context)
    assert ids(keys) == {key["accessKeyId"] for key in rotated["keys"].values()}


@pytest.mark.parametrize("edited", [{"userName": "other"}, {"owner": "renamed"}])
@pytest.mark.parametrize("adopt", [False, True])
def test_a_key_of_a_killed_run_is_replaced_whatever_was_edited_since(
    double: Double, keys: list[dict[str, Any]], edited: dict[str, Any], *, adopt: bool
) -> None:
    """The nonce of the state in its name tells that this state created it; the bucket's key of another state stays."""
    ring, context = GarageKeyRing(), Context(lambda _: None)
    theirs = ring.create(ring_of(double, double.make_bucket(), "a"), context)[1]
    bucket = double.make_bucket()
    ring.create(ring_of(double, bucket, "a", adopt=adopt), context)
    inputs, failures = GarageKeyRing().check({**ring_of(double, bucket, "a", adopt=adopt), **edited})
    assert not failures
    made = ring.create(inputs, context)[1]
    assert ids(keys) == {theirs["accessKeyId"], made["accessKeyId"]}
    assert made["unknownKeys"] == [theirs["accessKeyId"]]


def proved(double: Double, key_id: str) -> None:
    """What the proof does when the key is in the state."""
    known = double.inputs(bucket="double-media", accessKeyId=key_id, secretAccessKey="", expected={})
    GarageAdministrator().note_known(model.read(ProofInputs, known))


@pytest.mark.parametrize("edited", [{}, {"userName": "other"}])
def test_a_key_that_was_handed_out_outlives_a_ring_that_is_made_anew(
    double: Double, keys: list[dict[str, Any]], edited: dict[str, Any]
) -> None:
    """After `pulumi state delete`; or where `retain_on_delete` kept it, whoever set that, and the user was edited."""
    ring, context = GarageKeyRing(), Context(lambda _: None)
    bucket = double.make_bucket()
    left = ring.create(ring_of(double, bucket, "a"), context)[1]["accessKeyId"]
    proved(double, left)
    made = ring.create({**ring_of(double, bucket, "a"), **edited}, context)[1]
    assert ids(keys) == {left, made["accessKeyId"]}
    assert made["unknownKeys"] == [left]
    proved(double, made["accessKeyId"])
    # Nor does a rotation take it, whether it is killed or not.
    both = {**ring_of(double, bucket, "a", "b"), **edited}
    ring.update("user", made, both, context)
    rotated = ring.update("user", made, both, context)
    assert ids(keys) == {left, *(key["accessKeyId"] for key in rotated["keys"].values())}
    assert rotated["unknownKeys"] == [left]
    ring.delete("user", {**rotated, "retireConfirmed": True}, context)
    assert ids(keys) == {left}
    with pytest.raises(StoreError, match=f"accessible with the key {left}, which this state does not know"):
        GarageBucket().delete("double-media", {**bucket, "forceDestroy": True}, context)


def test_a_key_that_moves_to_another_bucket_with_its_store_keeps_neither(
    double: Double, keys: list[dict[str, Any]]
) -> None:
    """Its name has both nonces then: the bucket that it left may go, and the one that it is for stays if it is lost."""
    ring, context = GarageKeyRing(), Context(lambda _: None)
    first, second = double.make_bucket(), double.make_bucket()
    made = ring.create(ring_of(double, first, "a"), context)[1]
    proved(double, made["accessKeyId"])
    moved = ring.update("user", made, ring_of(double, second, "a"), context)
    assert moved["accessKeyId"] == made["accessKeyId"]
    assert [key["name"] for key in keys] == [f"ours/user/a/{first['nonce']}/{second['nonce']}/known"]
    assert ring.update("user", moved, ring_of(double, second, "a"), context) == moved
    GarageBucket().delete("double-media", first, context)
    with pytest.raises(StoreError, match=f"accessible with the key {made['accessKeyId']}, which this state does not"):
        GarageBucket().delete("double-media", second, context)
    # One of release 0.1.0, whose bucket had no nonce.
    keys[0]["name"] = "ours/user/a"
    ring.update("user", made, ring_of(double, second, "a"), context)
    assert [key["name"] for key in keys] == [f"ours/user/a//{second['nonce']}/known"]
    GarageBucket().delete("double-media", {**first, "nonce": ""}, context)


def test_a_ring_notes_the_keys_that_are_in_its_state(double: Double, keys: list[dict[str, Any]]) -> None:
    """All of them, where the proof notes the active one; but none that somebody else named."""
    ring, context = GarageKeyRing(), Context(lambda _: None)
    bucket = double.make_bucket()
    made = ring.create(ring_of(double, bucket, "a", "b"), context)[1]
    proved(double, "GK-of-nobody")
    assert {key["name"].rpartition("/")[2] for key in keys} == {"making"}
    ring.update("user", made, ring_of(double, bucket, "a", "b"), context)
    assert {key["name"].rpartition("/")[2] for key in keys} == {"known"}
    keys[0]["name"] = "by-hand/backup"
    ring.update("user", made, ring_of(double, bucket, "a", "b"), context)
    assert keys[0]["name"] == "by-hand/backup"


def test_with_a_token_that_may_not_rename_keys_none_is_in_danger(double: Double, keys: list[dict[str, Any]]) -> None:
    """One of the scope that an earlier release asked for: the key has its last name at once."""
    said: list[str] = []
    ring, context = GarageKeyRing(), Context(said.append)
    bucket = double.make_bucket()
    double.narrow = True
    left = ring.create(ring_of(double, bucket, "a"), context)[1]["accessKeyId"]
    assert "the token in GARAGE_ADMIN_TOKEN lacks the permission UpdateKey" in said[0]
    proved(double, left)
    made = ring.create(ring_of(double, bucket, "a"), context)[1]
    assert ids(keys) == {left, made["accessKeyId"]}
    assert made["unknownKeys"] == [left]
    assert ring.update("user", made, ring_of(double, bucket, "a"), context) == made
    # A key that another token made stays as it is, and is not handed out by a proof that can't note it.
    keys[0]["name"] = f"ours/user/a/{bucket['nonce']}/making"
    with pytest.raises(StoreError, match=r"UpdateKey.*lacks the permission UpdateKey"):
        proved(double, left)


def test_a_key_of_a_run_killed_before_it_had_access_is_replaced_whatever_was_edited_since(double: Double) -> None:
    left = {"id": "GKleft", "name": "ours/former/a/fedcba9876543210/making", "expired": False}
    theirs = {"id": "GKtheirs", "name": "ours/former/a/0123456789abcdef/making", "expired": False}
    known = {"id": "GKknown", "name": "ours/former/a/fedcba9876543210/known", "expired": False}
    there = [left, theirs, known]
    double.answers = {"ListKeys": [(200, there)], "GetBucketInfo": [(200, FRESH)], "CreateKey": [(200, MADE)]}
    double.answers["GetKeyInfo"] = [(200, {"buckets": []})]
    assert double.make_key(nonce="fedcba9876543210")["accessKeyId"] == MADE["accessKeyId"]
    assert [key for operation, key in double.asked if operation == "DeleteKey"] == ["GKleft"]


def test_what_was_changed_in_an_adopted_bucket_is_no_difference(double: Double) -> None:
    public = {**FRESH, "objects": 1, "websiteAccess": True}
    double.answers = {"GetBucketInfo": [(200, public), (200, {**public, "websiteAccess": False})]}
    said: list[str] = []
    inputs, failures = GarageBucket().check(double.inputs(bucket="double-media", adopt=True, manage=["access"]))
    assert not failures
    _, outputs = GarageBucket().create(inputs, Context(said.append))
    assert outputs["differences"] == ["abortDays is 0, a new bucket would have 7"]
    rules = [{"ID": "ours", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]
    double.answers = {"GetBucketInfo": [(200, FRESH), (200, {**FRESH, "lifecycleRules": rules})]}
    wanted = {**inputs, "manage": ["access", "lifecycle"]}
    changed = GarageBucket().update("double-media", outputs, wanted, Context(said.append))
    assert changed["differences"] == []
    assert said == ["bucket double-media is adopted without changes: abortDays is 0, a new bucket would have 7"]


UPLOADS = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
OUR_RULE = {"ID": "ours", "Status": "Enabled", "Filter": {}, **UPLOADS}
THEIRS = {"ID": "theirs", "Status": "Disabled", "Filter": {"Prefix": "url_cache/"}, "Expiration": {"Days": 1}}


def test_an_adopted_bucket_with_a_rule_of_its_own_is_not_owned(double: Double) -> None:
    inputs, outputs = adopted(double)
    double.answers = {"GetBucketInfo": [(200, {**FRESH, "objects": 1, "lifecycleRules": [OUR_RULE, THEIRS]})]}
    double.asked.clear()
    with pytest.raises(StoreError, match=r'still differs from a new bucket: .*"url_cache/"'):
        GarageBucket().update("double-media", outputs, {**inputs, "adopt": False, "own": True}, Context(lambda _: None))
    assert {operation for operation, _ in double.asked} == {"GetBucketInfo"}


def test_rules_of_others_are_kept_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", "a-token")
    bucket, context = GarageBucket(), Context(lambda _: None)
    with garage_admin.garage_admin() as admin:
        inputs, failures = bucket.check(Double(admin.url).inputs(bucket="double-media"))
        assert not failures
        _, outputs = bucket.create(inputs, context)
        [there] = admin.buckets.values()
        assert there["lifecycleRules"] == [OUR_RULE]
        # Ours was made narrower; of the others, one expires media, and one ends uploads too early.
        expiring = {**THEIRS, "ID": "expiring", "Status": "Enabled"}
        sooner = {**OUR_RULE, "ID": "sooner", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
        there["lifecycleRules"] = [{**OUR_RULE, "Filter": {"Prefix": "a"}}, THEIRS, expiring, sooner]
        found = bucket.read("double-media", inputs, outputs, context)
        assert found is not None
        assert set(bucket.diff(found.inputs, inputs).changed) == {"abortDays", "expiringRules"}
        bucket.update("double-media", found.outputs, inputs, context)
        assert there["lifecycleRules"] == [THEIRS, OUR_RULE]


def test_an_empty_bucket_is_deleted_without_its_unfinished_uploads_ended(double: Double) -> None:
    """One of them may end meanwhile: then Garage refuses to delete the bucket."""
    double.answers = {"GetBucketInfo": [(200, MARKED)], "DeleteBucket": [(400, {"code": "BucketNotEmpty"})]}
    outputs = double.inputs(bucket="double-media")
    with pytest.raises(StoreError, match=r"holds media and is not deleted"):
        GarageBucket().delete("double-media", outputs, Context(lambda _: None))
    assert [operation for operation, _ in double.asked] == ["GetBucketInfo", "DeleteBucket"]


def test_a_key_that_may_be_in_use_is_not_deleted_unasked(double: Double) -> None:
    held = {"keys": {"a": {"accessKeyId": OLD["id"], "createdAt": "2026-11-23T10:00:00+00:00"}}}
    outputs = double.inputs(userName="user", bucketId="b1", **held)
    reaching = {"accessKeyId": OLD["id"], "permissions": MAY}
    double.answers = {"ListKeys": [(200, [OLD])], "GetBucketInfo": [(200, {**FRESH, "keys": [reaching]})]}
    with pytest.raises(StoreError, match="may be in use and is not deleted"):
        GarageKeyRing().delete("user", outputs, Context(lambda _: None))
    assert "DeleteKey" not in {operation for operation, _ in double.asked}
    # Without its bucket the key is of no use, so nobody is asked.
    double.answers |= {"GetBucketInfo": [NO_BUCKET], "GetKeyInfo": [(200, {"buckets": []})]}
    GarageKeyRing().delete("user", outputs, Context(lambda _: None))
    assert ("DeleteKey", OLD["id"]) in double.asked


def test_a_decoy_is_marked_and_one_of_another_stack_is_not_used(double: Double) -> None:
    double.answers = {"GetBucketInfo": [NO_BUCKET], "CreateBucket": [(200, FRESH)]}
    inputs = model.read(ProofInputs, double.inputs())
    assert GarageAdministrator().ensure_decoy(inputs, "decoy")
    assert double.asked[-1] == ("UpdateBucket", "b1")
    theirs = {**FRESH, "lifecycleRules": [{"ID": "synapse-media/other/x", "Status": "Enabled"}]}
    double.answers = {"GetBucketInfo": [(200, theirs)]}
    with pytest.raises(StoreError, match="marked as that of another stack"):
        GarageAdministrator().ensure_decoy(inputs, "decoy")


def test_a_key_that_empties_a_bucket_and_was_left_is_deleted_first(double: Double) -> None:
    left = {"id": "GKleft", "name": "ours/emptying", "expired": True}
    double.answers = {
        "GetBucketInfo": [(200, {**MARKED, "objects": 1})],
        "ListKeys": [(200, [OLD, left])],
        "CreateKey": [LOST],
    }
    with pytest.raises(StoreError, match="POST /v2/CreateKey"):
        GarageBucket().delete("double-media", double.inputs(bucket="double-media"), Context(lambda _: None))
    assert double.asked[-2:] == [("DeleteKey", "GKleft"), ("CreateKey", "")]


@pytest.mark.parametrize(("adopted", "then"), [(False, "finds such a key and replaces it"), (True, "names such a key")])
def test_a_429_of_somebody_in_between_says_what_to_do(double: Double, adopted: bool, then: str) -> None:
    double.answers = {"ListKeys": [(200, [])], "GetBucketInfo": [(200, FRESH)], "CreateKey": [(429, None)]}
    with pytest.raises(StoreError, match=f"429.* after a minute .*: it {then}"):
        double.make_key(adopt=adopted)
    assert [operation for operation, _ in double.asked].count("CreateKey") == 1


def test_a_bucket_is_asked_for_again_and_found_where_the_answer_was_lost(double: Double) -> None:
    exists = 409, {"code": "BucketAlreadyExists", "message": "it is there"}
    double.answers = {
        "GetBucketInfo": [NO_BUCKET, (200, FRESH)],
        "CreateBucket": [(429, None), (503, None), LOST, exists],
    }
    made = double.make_bucket()
    assert (made["bucketId"], made["adopted"]) == ("b1", False)
    # Somebody was faster, and it is in use.
    double.answers = {"GetBucketInfo": [NO_BUCKET, (200, {**FRESH, "objects": 1})], "CreateBucket": [exists]}
    with pytest.raises(StoreError, match="adopt: true"):
        double.make_bucket()


@pytest.mark.parametrize("answer", [None, {}, {"id": 3}, "text", [{"id": "a"}]])
@pytest.mark.parametrize("operation", ["ListKeys", "GetBucketInfo", "CreateKey", "CreateBucket"])
def test_an_answer_that_is_not_garages_is_said(double: Double, operation: str, answer: Any) -> None:
    double.answers = {"ListKeys": [(200, [])], "GetBucketInfo": [(200, FRESH)], "CreateKey": [(200, MADE)]}
    if operation == "CreateBucket":
        double.answers["GetBucketInfo"] = [NO_BUCKET]
    double.answers[operation] = [(200, answer)]
    make = double.make_bucket if operation == "CreateBucket" else double.make_key
    with pytest.raises(StoreError, match=f"{operation} at .*not that of Garage's admin API"):
        make()


def test_an_endpoint_that_is_a_page_is_named_before_anything_is_made() -> None:
    for status in (200, 404, 502):
        with proxy.in_front_of("http://127.0.0.1:9") as front:
            front.misbehave(proxy.html(status))
            with pytest.raises(StoreError, match=rf"endpoint {front.url}: .*HTTP {status}.*is not Garage's S3 API"):
                check_region(Connection(front.url, "garage"))


def test_an_endpoint_that_speaks_no_http_is_named() -> None:
    class Speaks(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Speaks) as server, serving(server):
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(StoreError, match=f"endpoint {url}: "):
            check_region(Connection(url, "garage"))


def test_settings_of_the_provider() -> None:
    wanted = {
        "provider": "garage",
        "endpoint": "https://garage.example.com",
        "bucket": "example-com-media",
        "method": "goofys",
        "admin_endpoint": "http://127.0.0.1:3903",
    }
    assert settings.parse({SERVER: wanted})[SERVER].region == "garage"
    with pytest.raises(SettingsError, match="admin_endpoint is missing"):
        settings.parse({SERVER: {name: value for name, value in wanted.items() if name != "admin_endpoint"}})
    with pytest.raises(SettingsError, match="quota_bytes is -1; allowed: a whole number of bytes"):
        settings.parse({SERVER: {**wanted, "quota_bytes": -1}})


def test_the_scope_of_a_token_is_the_catalogs() -> None:
    from synapse_media import catalog

    assert catalog.load("garage").value("admin_permissions")["actions"] == SCOPE
