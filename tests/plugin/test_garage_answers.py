"""Garage's answers, each about something else than what was asked for: nothing is deleted, dropped or made by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin import garage
from synapse_media.plugin.garage import GarageAdministrator, GarageBucket, GarageKeyRing
from synapse_media.plugin.resource import Context
from synapse_media.schema import model
from synapse_media.schema.resources import ProofInputs
from tests.doubles import garage_admin, proxy

OWNER = "synapse-media/tests/matrix.example.com"
OTHER_ID = "0" * 64
QUIET = Context(lambda _: None)


class Place:
    """A store with a bucket of ours and its key, behind a proxy that may answer in its place."""

    def __init__(self, admin: garage_admin.GarageDouble, front: proxy.Proxy) -> None:
        self.admin = admin
        self.front = front
        self.connection = {
            "endpoint": front.url,
            "adminEndpoint": front.url,
            "region": garage_admin.REGION,
            "variables": ["GARAGE_ADMIN_TOKEN"],
        }
        bucket, self.ring = GarageBucket(), GarageKeyRing()
        self.bucket = bucket
        self.wanted = self._checked(bucket, bucket="our-media", forceDestroy=True)
        self.state = bucket.create(self.wanted, QUIET)[1]
        self.bucket_id: str = self.state["bucketId"]
        self.wanted_ring = self._checked(
            self.ring, userName="u", bucketId=self.bucket_id, nonce=self.state["nonce"], active="a", slots=["a"]
        )
        # A bucket of the same mark, as that of another checkout, with media in it.
        ours = admin.buckets[self.bucket_id]
        self.other = {**ours, "id": OTHER_ID, "globalAliases": ["their-media"], "keys": [], "objects": 3}

    def _checked(self, resource: Any, **inputs: Any) -> dict[str, Any]:
        checked, failures = resource.check({"owner": OWNER, "connection": self.connection, **inputs})
        assert not failures
        result: dict[str, Any] = checked
        return result

    def add_other(self) -> None:
        self.admin.buckets = {OTHER_ID: self.other, **self.admin.buckets}

    def make_ring(self) -> dict[str, Any]:
        return self.ring.create(self.wanted_ring, QUIET)[1]

    def answers(self, operation: str, found: Any, status: int = 200) -> None:
        """This, or what a function makes of Garage's own answer."""

        def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
            body = found
            if callable(found):
                answer = upstream.ask(request)
                assert answer is not None
                body = found(json.loads(answer.body))
            raw = b"" if status == 204 else json.dumps(body).encode()
            return proxy.Answer(status, (("Content-Type", "application/json"),), raw)

        self.front.misbehave(fault, when=lambda request: request.path == f"/v2/{operation}")

    def drops_rules(self) -> None:
        """A Garage whose UpdateBucket knows no lifecycle rules, as 2.0.0; it has no bucket yet."""
        self.front.misbehave(
            lambda request, upstream: upstream.ask(replace(request, body=_without_rules(request.body))),
            when=lambda request: request.path == "/v2/UpdateBucket",
        )
        self.admin.buckets.clear()

    def called(self, operation: str) -> int:
        return sum(exchange.target.startswith(f"/v2/{operation}") for exchange in self.front.exchanges)

    def reads_bucket(self) -> Any:
        return self.bucket.read("our-media", self.wanted, self.state, QUIET)

    def deletes_bucket(self) -> None:
        self.bucket.delete("our-media", self.state, QUIET)

    def proof(self) -> ProofInputs:
        return model.read(ProofInputs, {"owner": OWNER, "connection": self.connection})


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", "a-token-of-the-double")
    client = garage.JsonClient
    monkeypatch.setattr(garage, "JsonClient", lambda *args, **more: client(*args, **more, attempts=1))
    with garage_admin.garage_admin() as admin, proxy.in_front_of(admin.url) as front:
        yield Place(admin, front)


ABOUT_ANOTHER = "the answer is about another bucket"


def test_another_bucket_is_neither_taken_nor_deleted(place: Place) -> None:
    ring = place.make_ring()
    place.add_other()
    place.answers("GetBucketInfo", place.other)
    steps: list[Callable[[], object]] = [
        place.reads_bucket,
        place.deletes_bucket,
        lambda: place.bucket.update("our-media", place.state, place.wanted, QUIET),
        lambda: place.bucket.create(place.wanted, QUIET),
        lambda: place.ring.read("u", place.wanted_ring, ring, QUIET),
        lambda: place.ring.delete("u", {**ring, "retireConfirmed": True}, QUIET),
        lambda: GarageAdministrator().ensure_decoy(place.proof(), "our-decoy"),
        lambda: GarageAdministrator().delete_decoy(place.proof(), "our-decoy"),
    ]
    for step in steps:
        with pytest.raises(StoreError, match=f"GetBucketInfo at .*: {ABOUT_ANOTHER}"):
            step()
    assert len(place.admin.buckets) == 2
    assert ring["accessKeyId"] in place.admin.keys


@pytest.mark.parametrize("listed", [True, False])
def test_a_bucket_of_another_id_while_ours_is_there(place: Place, *, listed: bool) -> None:
    """It has the name that was asked for. A token of an earlier release may not list buckets."""
    place.add_other()
    place.other["globalAliases"] = ["our-media"]
    if not listed:
        place.answers("ListBuckets", {"code": "AccessDenied", "message": "Forbidden: Invalid bearer token"}, 403)
    for step in (place.reads_bucket, place.deletes_bucket):
        with pytest.raises(StoreError, match=f"ID {place.bucket_id}, our-media.*not taken for deleted"):
            step()
    assert len(place.admin.buckets) == 2
    # Ours was deleted, and one of the same name and mark made.
    del place.admin.buckets[place.bucket_id]
    assert place.reads_bucket().outputs["bucketId"] == OTHER_ID


def test_a_bucket_that_is_made_or_changed_is_the_one_asked_for(place: Place) -> None:
    place.add_other()
    wanted = {**place.wanted, "bucket": "new-media"}
    place.answers("CreateBucket", place.other)
    for step in (
        lambda: place.bucket.create(wanted, QUIET),
        lambda: GarageAdministrator().ensure_decoy(place.proof(), "our-decoy"),
    ):
        with pytest.raises(StoreError, match=f"CreateBucket at .*: {ABOUT_ANOTHER}"):
            step()
    place.front.behave()
    # One that is not new is looked at as any that is there.
    before = place.called("UpdateBucket")
    foreign = [{**place.other["lifecycleRules"][0], "ID": "synapse-media/other/x"}]
    place.answers("CreateBucket", {**place.other, "globalAliases": ["new-media"], "lifecycleRules": foreign})
    with pytest.raises(StoreError, match="marked as that of another stack"):
        place.bucket.create(wanted, QUIET)
    assert place.called("UpdateBucket") == before
    place.front.behave()
    for answer in (place.other, None, {}):
        place.answers("UpdateBucket", answer)
        with pytest.raises(StoreError, match=f"UpdateBucket at .*({ABOUT_ANOTHER}|not that of Garage)"):
            place.bucket.update("our-media", place.state, {**place.wanted, "website": True}, QUIET)
        place.front.behave()


@pytest.mark.parametrize("code", ["NoSuchBucket", "NoSuchKey", "NoSuchEntity"])
@pytest.mark.parametrize("status", [400, 403, 500, 404])
@pytest.mark.parametrize("operation", ["GetBucketInfo", "DeleteBucket", "ListKeys", "ListBuckets"])
def test_only_garages_own_form_says_that_a_bucket_is_gone(place: Place, operation: str, status: int, code: str) -> None:
    place.answers(operation, {"error": code}, status)
    if operation in ("ListKeys", "ListBuckets"):
        place.admin.buckets[place.bucket_id]["objects"] = 3
        if operation == "ListBuckets":
            place.answers("GetBucketInfo", {"code": "NoSuchBucket"}, 404)
    elif (status, code) == (404, "NoSuchBucket"):
        # The one form that Garage has: then it lists the bucket all the same.
        with pytest.raises(StoreError, match="not taken for deleted" if operation == "GetBucketInfo" else operation):
            place.deletes_bucket()
        return
    with pytest.raises(StoreError, match=f"{operation} at .*{code} with HTTP {status} is no answer of Garage"):
        place.deletes_bucket()
    if operation == "GetBucketInfo":
        with pytest.raises(StoreError, match=f"{code} with HTTP {status} is no answer of Garage"):
            place.reads_bucket()
    assert place.bucket_id in place.admin.buckets


def test_a_bucket_that_is_listed_is_not_taken_for_gone(place: Place) -> None:
    ring = place.make_ring()
    place.answers("GetBucketInfo", {"code": "NoSuchBucket", "message": "Bucket not found"}, 404)
    for step in (
        place.reads_bucket,
        place.deletes_bucket,
        lambda: place.ring.read("u", place.wanted_ring, ring, QUIET),
        # A key without its bucket may go unasked.
        lambda: place.ring.delete("u", ring, QUIET),
    ):
        with pytest.raises(StoreError, match=f"ID {place.bucket_id}, our-media.*not taken for deleted"):
            step()
    assert ring["accessKeyId"] in place.admin.keys
    # Its name was changed by hand.
    place.front.behave()
    place.admin.buckets[place.bucket_id]["globalAliases"] = ["renamed"]
    with pytest.raises(StoreError, match=f"ID {place.bucket_id}, renamed.*change it back: `garage bucket alias"):
        place.reads_bucket()


def test_a_bucket_that_is_gone_is_gone(place: Place) -> None:
    for listed in (True, False):
        if not listed:
            place.answers("ListBuckets", {"code": "AccessDenied", "message": "Forbidden: Invalid bearer token"}, 403)
        place.admin.buckets.clear()
        assert place.reads_bucket() is None
        place.deletes_bucket()
    place.front.behave()
    for answer in (None, {}, [None], [{"id": 3, "globalAliases": []}], [{"id": "x"}], {"buckets": []}):
        place.answers("ListBuckets", answer)
        with pytest.raises(StoreError, match="ListBuckets at"):
            place.reads_bucket()
        place.front.behave()


@pytest.mark.parametrize("operation", ["DeleteBucket", "DeleteKey"])
@pytest.mark.parametrize("status", [204, 404])
def test_what_is_said_to_be_gone_and_is_listed_is_not_deleted(place: Place, operation: str, status: int) -> None:
    ring = place.make_ring()
    code = "NoSuchBucket" if operation == "DeleteBucket" else "NoSuchAccessKey"
    place.answers(operation, {"code": code, "message": "not found"} if status == 404 else None, status)
    if operation == "DeleteBucket":
        place.admin.answer("DeleteKey", {"id": ring["accessKeyId"]}, {})
        with pytest.raises(StoreError, match="DeleteBucket at"):
            place.deletes_bucket()
        return
    with pytest.raises(StoreError, match="DeleteKey at"):
        place.ring.delete("u", {**ring, "retireConfirmed": True}, QUIET)


def test_a_bucket_is_not_gone_by_the_word_of_another_s3_api(place: Place) -> None:
    place.admin.buckets[place.bucket_id]["objects"] = 3
    error = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
    place.front.misbehave(
        lambda _, __: proxy.Answer(404, (("Content-Type", "application/xml"),), error),
        when=lambda request: not request.path.startswith("/v2/") and request.path != "/",
    )
    with pytest.raises(StoreError, match=r"NoSuchBucket.*Garage's admin API has it"):
        place.deletes_bucket()
    assert place.bucket_id in place.admin.buckets
    # The key that was to empty it is not left.
    assert place.admin.keys == {}
    place.answers("AllowBucketKey", {"code": "NoSuchBucket", "message": "Bucket not found"}, 404)
    with pytest.raises(StoreError, match="Garage's admin API has it"):
        place.deletes_bucket()


def test_a_decoy_of_another_stack_is_not_deleted(place: Place) -> None:
    assert GarageAdministrator().ensure_decoy(place.proof(), "our-decoy")
    [decoy] = [one for one in place.admin.buckets.values() if "our-decoy" in one["globalAliases"]]
    ours = decoy["lifecycleRules"]
    decoy["lifecycleRules"] = [{**ours[0], "ID": "synapse-media/other/x"}]
    with pytest.raises(StoreError, match="marked as that of another stack"):
        GarageAdministrator().delete_decoy(place.proof(), "our-decoy")
    decoy["lifecycleRules"] = ours
    GarageAdministrator().delete_decoy(place.proof(), "our-decoy")
    assert [*place.admin.buckets] == [place.bucket_id]


# ---- keys


@pytest.mark.parametrize("listed", [[], [{"id": "GKz", "name": "z", "expired": False}]])
def test_a_key_that_the_bucket_has_is_not_taken_for_gone(place: Place, listed: list[dict[str, Any]]) -> None:
    ring = place.make_ring()
    place.answers("ListKeys", listed)
    key_id = ring["accessKeyId"]
    for step in (
        lambda: place.ring.read("u", place.wanted_ring, ring, QUIET),
        lambda: place.ring.update("u", ring, place.wanted_ring, QUIET),
        lambda: place.ring.delete("u", {**ring, "retireConfirmed": True}, QUIET),
    ):
        with pytest.raises(StoreError, match=rf"ListKeys at .*lacks keys that GetBucketInfo has \({key_id}\)"):
            step()
    assert [*place.admin.keys] == [key_id]


def test_a_key_of_the_state_is_tried_before_it_is_taken_for_gone(place: Place) -> None:
    ring = place.make_ring()
    place.answers("ListKeys", [])
    place.answers("GetBucketInfo", lambda info: {**info, "keys": []})
    listing = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"

    def accepted(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        if request.access_key_id != ring["accessKeyId"]:
            return upstream.ask(request)
        return proxy.Answer(200, (("Content-Type", "application/xml"),), listing)

    place.front.misbehave(accepted, when=lambda request: request.bucket == place.bucket_id)
    for step in (
        lambda: place.ring.read("u", place.wanted_ring, ring, QUIET),
        lambda: place.ring.update("u", ring, place.wanted_ring, QUIET),
    ):
        with pytest.raises(StoreError, match=f"key {ring['accessKeyId']} is not among its keys any more.*accepted"):
            step()
    # One that Garage does not know; and where the address of the S3 API is not known, nobody is asked.
    unknown = {**place.wanted_ring, "connection": {**place.connection, "endpoint": ""}}
    found = place.ring.read("u", unknown, ring, QUIET)
    assert found is not None
    assert found.inputs["slots"] == []
    place.front.behave()
    place.admin.answer("DeleteKey", {"id": ring["accessKeyId"]}, {})
    found = place.ring.read("u", place.wanted_ring, ring, QUIET)
    assert found is not None
    assert found.inputs["slots"] == []


@pytest.mark.parametrize(
    "other",
    [
        {"name": "another"},
        {"accessKeyId": "GKtheirs"},
        {"buckets": [{"id": OTHER_ID}]},
        {"buckets": None},
        {"permissions": {"createBucket": True}},
        {"permissions": {}},
        {"permissions": None},
        {"expiration": "2026-11-28T00:00:00Z"},
    ],
)
def test_a_new_key_is_the_one_asked_for(place: Place, other: dict[str, Any]) -> None:
    """None of another name, and none that reaches more; it is given access to nothing."""
    place.admin.keys["GKtheirs"] = {"name": "theirs", "secretAccessKey": "secret"}
    place.answers("CreateKey", lambda made: {**made, **other})
    before = place.called("AllowBucketKey")
    with pytest.raises(StoreError, match=r"CreateKey at .*may have been made"):
        place.make_ring()
    assert place.called("AllowBucketKey") == before
    assert "GKtheirs" in place.admin.keys
    # The one that was made is found by its name.
    place.front.behave()
    made = place.make_ring()
    assert {*place.admin.keys} == {"GKtheirs", made["accessKeyId"]}


def test_the_key_that_empties_a_bucket_is_new(place: Place) -> None:
    place.admin.keys["GKtheirs"] = {"name": "theirs", "secretAccessKey": "secret"}
    place.admin.buckets[place.bucket_id]["objects"] = 3
    place.answers("CreateKey", lambda made: {**made, "accessKeyId": "GKtheirs"})
    with pytest.raises(StoreError, match=r"CreateKey at .*another key"):
        place.deletes_bucket()
    assert "GKtheirs" in place.admin.keys


def _with(permissions: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda info: {**info, "keys": [{**key, "permissions": permissions} for key in info["keys"]]}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        lambda info: {**info, "id": OTHER_ID},
        lambda info: {**info, "keys": []},
        _with({"read": True, "write": False, "owner": False}),
        _with({"read": "true", "write": [1], "owner": False}),
    ],
)
@pytest.mark.parametrize("operation", ["AllowBucketKey", "DenyBucketKey"])
def test_the_permissions_of_a_key_are_those_asked_for(place: Place, operation: str, answer: Any) -> None:
    place.answers(operation, answer)
    with pytest.raises(StoreError, match=f"{operation} at "):
        place.make_ring()


def test_a_key_that_may_still_do_what_was_denied_is_no_success(place: Place) -> None:
    place.answers("DenyBucketKey", _with({"read": True, "write": True, "owner": True}))
    with pytest.raises(StoreError, match=r"DenyBucketKey at .*permissions of key GK.* are not as asked"):
        place.make_ring()


@pytest.mark.parametrize("answer", [None, {}, {"accessKeyId": "GKother", "name": "asked"}, "name"])
def test_a_key_that_is_renamed_is_the_one_asked_for(place: Place, answer: Any) -> None:
    ring = place.make_ring()
    key_id = ring["accessKeyId"]

    def renames(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        found = {"accessKeyId": key_id, "name": place.admin.keys[key_id]["name"]} if answer == "name" else answer
        return proxy.Answer(200, (("Content-Type", "application/json"),), json.dumps(found).encode())

    place.front.misbehave(
        renames, when=lambda request: request.path == "/v2/UpdateKey" and request.query["id"] == [key_id]
    )
    with pytest.raises(StoreError, match="UpdateKey at"):
        place.ring.update("u", ring, place.wanted_ring, QUIET)


def test_a_key_of_our_name_is_not_deleted_by_an_answer_about_another(place: Place) -> None:
    ring = place.make_ring()
    place.admin.buckets[place.bucket_id]["keys"] = []
    place.answers("GetKeyInfo", {"accessKeyId": "GKother", "buckets": []})
    with pytest.raises(StoreError, match=r"GetKeyInfo at .*another key"):
        place.make_ring()
    assert [*place.admin.keys] == [ring["accessKeyId"]]


def test_the_permissions_that_an_answer_shows_are_no_guess(place: Place) -> None:
    """A bucket is deleted only if no other key has access to it."""
    place.admin.keys["GKtheirs"] = {"name": "theirs", "secretAccessKey": "secret"}
    for permissions in ({}, {"read": False, "write": False}, {"read": "false", "write": False, "owner": False}):
        theirs = {"accessKeyId": "GKtheirs", "name": "theirs", "permissions": permissions}
        place.admin.buckets[place.bucket_id]["keys"] = [theirs]
        with pytest.raises(StoreError, match="GetBucketInfo at"):
            place.deletes_bucket()


def test_a_garage_that_drops_lifecycle_rules_has_a_bucket_without_a_mark(place: Place) -> None:
    """As 2.0.0, whose UpdateBucket knows none: said, and no difference for ever."""
    place.drops_rules()
    state = place.bucket.create(place.wanted, QUIET)[1]
    assert [words.partition(" (")[0] for words in state["lacks"]] == ["abortDays", "lifecycle rules"]
    found = place.bucket.read("our-media", place.wanted, state, QUIET)
    assert found is not None
    assert place.bucket.diff(found.inputs, place.wanted).changed == ()
    assert place.bucket.update("our-media", state, place.wanted, QUIET)["lacks"] == state["lacks"]
    # A Garage that has the rules by now keeps what the next change writes.
    place.front.behave()
    state = place.bucket.update("our-media", state, place.wanted, QUIET)
    assert state["lacks"] == []
    [bucket] = place.admin.buckets.values()
    assert [rule["ID"] for rule in bucket["lifecycleRules"]] == [OWNER]
    place.bucket.delete("our-media", state, QUIET)
    assert place.admin.buckets == {}


def _without_rules(body: bytes) -> bytes:
    return json.dumps({name: value for name, value in json.loads(body).items() if name != "lifecycleRules"}).encode()


def test_a_bucket_without_a_mark_is_deleted_with_its_media_by_its_word(place: Place) -> None:
    place.drops_rules()
    state = place.bucket.create(place.wanted, QUIET)[1]
    place.bucket.delete("our-media", state, QUIET)
    assert place.admin.buckets == {}
