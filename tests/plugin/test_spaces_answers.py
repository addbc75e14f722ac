"""What DigitalOcean's API for Spaces keys answers is compared with what was asked, before anything follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin import digitalocean_spaces
from synapse_media.plugin.digitalocean_spaces import SpacesAdministrator, SpacesAdminKey, SpacesApi, SpacesKeyRing
from synapse_media.plugin.keyring import key_name
from synapse_media.plugin.resource import Context, PartialError, Values
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.schema.resources import ProofInputs, SpacesGrant
from tests.doubles import proxy
from tests.doubles.spaces_api import TOKEN, SpacesApiDouble, spaces_api
from tests.plugin.direct import OWNER, Direct

RING, ADMIN = SpacesKeyRing(), SpacesAdminKey()
STACK = OWNER.rpartition("/")[0]
KEYS = "/v2/spaces/keys"


@dataclass(slots=True)
class Spaces:
    """The API, a proxy in front of it that lies where a test says so, and a ring and a full-access key made there."""

    direct: Direct
    api: SpacesApiDouble
    double: proxy.Proxy

    @property
    def connection(self) -> Values:
        return {"endpoint": self.direct.endpoint, "region": self.direct.running.region, "apiEndpoint": self.double.url}

    @property
    def context(self) -> Context:
        return self.direct.context

    def ring(self, **changes: Any) -> Values:
        grants = [{"bucket": self.direct.name, "permission": "readwrite"}]
        shared = {"userName": self.direct.name, "owner": OWNER, "connection": self.connection}
        return {**shared, "grants": grants, "active": "a", "slots": ["a"], "retireConfirmed": False, **changes}

    def admin(self, **changes: Any) -> Values:
        return {"name": "synapse-media-admin", "owner": STACK, "connection": self.connection, **changes}

    def made(self) -> tuple[Values, str, Values]:
        """The outputs of a ring, and the ID and the outputs of a full-access key, neither of them in use yet."""
        self.direct.s3.create_bucket(Bucket=self.direct.name)
        ring = RING.create(self.ring(), self.context)[1]
        return (ring, *ADMIN.create(self.admin(), self.context))

    def answers(self, method: str, status: int, body: Any, times: int | None = None) -> proxy.Rule:
        sent = proxy.Answer(status, (("Content-Type", "application/json"),), json.dumps(body).encode())
        return self.double.misbehave(lambda _, __: sent, when=lambda one: one.method == method, times=times)

    def edits(self, method: str, edit: Callable[[Any], Any]) -> proxy.Rule:
        """The API does what it was asked, and its answer comes changed."""

        def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
            answer = upstream.ask(request)
            assert answer is not None
            body = edit(json.loads(answer.body))
            return proxy.Answer(answer.status, answer.headers, json.dumps(body).encode())

        return self.double.misbehave(fault, when=lambda one: one.method == method)

    def asked(self) -> set[str]:
        return {exchange.method for exchange in self.double.exchanges}

    def named(self, key_id: str) -> str:
        name: str = self.api.keys[key_id]["name"]
        return name


@pytest.fixture
def spaces(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spaces]:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    with spaces_api(direct.running) as api, proxy.in_front_of(api.url) as double:
        yield Spaces(direct, api, double)


def _strangers(*names: str) -> list[Values]:
    return [{"access_key": name, "name": name, "grants": []} for name in names]


NOT_WHOLE: dict[str, tuple[Any, str]] = {
    "empty, of five": ({"keys": [], "meta": {"total": 5}}, "says that there are 5 keys, and has 0"),
    "null": ({"keys": _strangers("Z"), "meta": {"total": None}}, "does not say how many keys there are"),
    "no total": ({"keys": _strangers("Z"), "meta": {}}, "does not say how many keys there are"),
    "no meta": ({"keys": []}, "has no 'meta' as it should be"),
    "negative": ({"keys": _strangers("Z"), "meta": {"total": -1}}, "does not say how many keys there are"),
    "a bool": ({"keys": [], "meta": {"total": False}}, "does not say how many keys there are"),
    "a fraction": ({"keys": [], "meta": {"total": 0.0}}, "does not say how many keys there are"),
    "words": ({"keys": [], "meta": {"total": "0"}}, "does not say how many keys there are"),
    "the same page again": ({"keys": _strangers("Z", "Y"), "meta": {"total": 4}}, "has a key twice"),
    "a key twice": ({"keys": _strangers("Z", "Z"), "meta": {"total": 2}}, "has a key twice"),
    "too many": ({"keys": _strangers("Z", "Y"), "meta": {"total": 1}}, "says that there are 1 keys, and has 2"),
    "a page to follow": (
        {"keys": _strangers("Z"), "meta": {"total": 1}, "links": {"pages": {"next": "https://x.example/?page=2"}}},
        "says that another page follows",
    ),
    "an ID that is a path": ({"keys": _strangers("../droplets?x="), "meta": {"total": 1}}, "letters and digits alone"),
    "an empty ID": ({"keys": _strangers(""), "meta": {"total": 1}}, "letters and digits alone"),
}
"""What says of itself that it is not the account's keys, all of them and each once."""


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_a_listing_that_is_not_whole_tells_nothing_of_what_is_gone(spaces: Spaces, name: str) -> None:
    listing, words = NOT_WHOLE[name]
    ring, admin_id, admin = spaces.made()
    before = set(spaces.api.keys)
    spaces.double.exchanges.clear()
    spaces.answers("GET", 200, listing)
    steps: tuple[Callable[[], object], ...] = (
        lambda: RING.read(spaces.direct.name, spaces.ring(), ring, spaces.context),
        lambda: RING.update(spaces.direct.name, ring, spaces.ring(), spaces.context),
        lambda: RING.delete(spaces.direct.name, {**ring, "retireConfirmed": True}, spaces.context),
        lambda: ADMIN.read(admin_id, spaces.admin(), admin, spaces.context),
        lambda: ADMIN.delete(admin_id, admin, spaces.context),
        lambda: ADMIN.create(spaces.admin(), spaces.context),
    )
    for step in steps:
        with pytest.raises(StoreError, match=words) as told:
            step()
        assert "api_endpoint" in str(told.value)
    assert spaces.asked() == {"GET"}
    assert set(spaces.api.keys) == before


def test_pages_that_name_two_totals_are_no_listing(spaces: Spaces) -> None:
    """A key was deleted between them: the one that moved to the page before is on neither."""
    pages = iter([(["A", "B"], 4), (["D"], 3)])

    def page(_: proxy.Request, __: proxy.Upstream) -> proxy.Answer:
        names, total = next(pages)
        return proxy.Answer(200, (), json.dumps({"keys": _strangers(*names), "meta": {"total": total}}).encode())

    spaces.double.misbehave(page)
    with pytest.raises(StoreError, match=r"says 4 keys on one page and 3 on another.*just then, run this again"):
        SpacesApi(Connection(api_endpoint=spaces.double.url)).listed()


def test_short_pages_are_put_together(spaces: Spaces) -> None:
    """A service may give fewer on a page than it was asked for."""
    pages = iter([["A", "B"], ["C"]])

    def page(_: proxy.Request, __: proxy.Upstream) -> proxy.Answer:
        return proxy.Answer(200, (), json.dumps({"keys": _strangers(*next(pages)), "meta": {"total": 3}}).encode())

    spaces.double.misbehave(page)
    found = SpacesApi(Connection(api_endpoint=spaces.double.url)).listed()
    assert [key.key_id for key in found] == ["A", "B", "C"]


# ---- a key that is not listed, and works


def test_a_key_that_is_not_listed_and_works_is_not_gone(spaces: Spaces) -> None:
    ring, admin_id, admin = spaces.made()
    before = set(spaces.api.keys)
    spaces.double.exchanges.clear()
    spaces.answers("GET", 200, {"keys": [], "links": {}, "meta": {"total": 0}})
    for step in (
        lambda: RING.read(spaces.direct.name, spaces.ring(), ring, spaces.context),
        lambda: RING.update(spaces.direct.name, ring, spaces.ring(), spaces.context),
        lambda: RING.delete(spaces.direct.name, {**ring, "retireConfirmed": True}, spaces.context),
    ):
        with pytest.raises(StoreError, match=r"is not among its keys any more.*accepted just now by list_objects"):
            step()
    for step in (
        lambda: ADMIN.read(admin_id, spaces.admin(), admin, spaces.context),
        lambda: ADMIN.delete(admin_id, admin, spaces.context),
    ):
        with pytest.raises(StoreError, match=f"{admin_id} is not among .* any more.*just now by list_buckets") as told:
            step()
        assert admin["secretAccessKey"] not in str(told.value)
    assert spaces.asked() == {"GET"}
    assert set(spaces.api.keys) == before


def test_a_key_is_tried_on_another_of_its_buckets_where_one_is_gone(spaces: Spaces) -> None:
    there = spaces.direct.name
    spaces.direct.s3.create_bucket(Bucket=there)
    grants = [{"bucket": name, "permission": "readwrite"} for name in (f"a-{there}"[:60], there)]
    inputs = spaces.ring(grants=grants)
    ring = RING.create(inputs, spaces.context)[1]
    # A key of two buckets is in use as long as one of them is there.
    with pytest.raises(StoreError, match="may be in use and is not deleted"):
        RING.delete(there, ring, spaces.context)
    spaces.answers("GET", 200, {"keys": [], "links": {}, "meta": {"total": 0}})
    with pytest.raises(StoreError, match="accepted just now by list_objects_v2"):
        RING.read(there, inputs, ring, spaces.context)


def test_a_key_whose_bucket_is_said_to_be_gone_once_is_not_deleted_for_that(spaces: Spaces) -> None:
    spaces.direct.s3.create_bucket(Bucket=spaces.direct.name)
    ring = RING.create(spaces.ring(), spaces.context)[1]
    with proxy.in_front_of(spaces.direct.endpoint) as s3:
        s3.misbehave(
            lambda request, _: proxy.error(request, 404, "NoSuchBucket", "there is no such bucket"),
            when=lambda request: request.bucket == spaces.direct.name,
            times=1,
        )
        lying = {**ring, "connection": {**spaces.connection, "endpoint": s3.url}}
        with pytest.raises(StoreError, match="may be in use and is not deleted"):
            RING.delete(spaces.direct.name, lying, spaces.context)
    assert ring["accessKeyId"] in spaces.api.keys


def test_a_full_access_key_that_one_list_lacks_is_not_gone(spaces: Spaces) -> None:
    """Where nobody else can be asked: its Spaces are those of another API."""
    elsewhere = {"connection": {"apiEndpoint": spaces.double.url}}
    inputs = spaces.admin(**elsewhere)
    admin_id, admin = ADMIN.create(inputs, spaces.context)
    empty = {"keys": [], "links": {}, "meta": {"total": 0}}
    spaces.answers("GET", 200, empty, times=1)
    assert ADMIN.read(admin_id, inputs, admin, spaces.context) is not None
    spaces.answers("GET", 200, empty, times=1)
    ADMIN.delete(admin_id, admin, spaces.context)
    assert admin_id not in spaces.api.keys


def test_a_full_access_key_that_may_not_list_is_not_gone_where_a_stranger_is_told_apart(spaces: Spaces) -> None:
    _, admin_id, admin = spaces.made()
    spaces.answers("GET", 200, {"keys": [], "links": {}, "meta": {"total": 0}})
    with proxy.in_front_of(spaces.direct.endpoint) as s3:
        s3.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "not that"),
            when=lambda request: request.access_key_id == admin["accessKeyId"],
        )
        there = {"connection": {**spaces.connection, "endpoint": s3.url}}
        with pytest.raises(StoreError, match=f"accepted just now by list_buckets at {s3.url}"):
            ADMIN.read(admin_id, {**spaces.admin(), **there}, {**admin, **there}, spaces.context)


def test_keys_that_are_gone_are_gone(spaces: Spaces) -> None:
    ring, admin_id, admin = spaces.made()
    for key_id in list(spaces.api.keys):
        SpacesApi(Connection(api_endpoint=spaces.api.url)).deleted(key_id)
    found = RING.read(spaces.direct.name, spaces.ring(), ring, spaces.context)
    assert found is not None
    assert found.outputs["keys"] == {}
    assert ADMIN.read(admin_id, spaces.admin(), admin, spaces.context) is None
    ADMIN.delete(admin_id, admin, spaces.context)
    RING.delete(spaces.direct.name, ring, spaces.context)


def test_a_full_access_key_of_the_vendors_own_api_is_tried_in_one_of_its_regions(
    spaces: Spaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack's own key has no region: it is for the stores of all of them."""
    monkeypatch.setattr(digitalocean_spaces, "API", spaces.double.url)
    monkeypatch.setattr(digitalocean_spaces, "_ANY_REGION", (spaces.direct.endpoint, spaces.direct.running.region))
    inputs = spaces.admin(connection={})
    admin_id, admin = ADMIN.create(inputs, spaces.context)
    spaces.answers("GET", 200, {"keys": [], "links": {}, "meta": {"total": 0}})
    with pytest.raises(StoreError, match=f"accepted just now by list_buckets at {spaces.direct.endpoint}"):
        ADMIN.read(admin_id, inputs, admin, spaces.context)
    # Of another API nobody knows where its Spaces are.
    elsewhere = {"connection": {"apiEndpoint": spaces.double.url}}
    assert ADMIN.read(admin_id, {**inputs, **elsewhere}, {**admin, **elsewhere}, spaces.context) is None


def test_a_key_of_the_state_is_known_by_its_id_alone(spaces: Spaces) -> None:
    """Its name and its grants were changed by hand."""
    ring, _, _ = spaces.made()
    key_id = ring["accessKeyId"]
    spaces.api.keys[key_id] |= {"name": "by hand", "grants": []}
    found = RING.read(spaces.direct.name, spaces.ring(), ring, spaces.context)
    assert found is not None
    assert found.outputs["accessKeyId"] == key_id
    again = RING.update(spaces.direct.name, ring, spaces.ring(), spaces.context)
    assert again["accessKeyId"] == key_id
    assert spaces.named(key_id) == key_name(spaces.direct.name, OWNER, "a")
    assert spaces.api.keys[key_id]["grants"] == spaces.ring()["grants"]


# ---- the answer to the call that makes a key


EVERYTHING = [{"bucket": "", "permission": "fullaccess"}]
ELSEWHERE = [{"bucket": "elsewhere", "permission": "readwrite"}]
NO_KEY: dict[str, tuple[Callable[[Values], Any], str]] = {
    "null": (lambda _: None, "has no 'key' as it should be"),
    "an empty ID": (lambda key: {**key, "access_key": ""}, "letters and digits alone"),
    "an ID that is a path": (lambda key: {**key, "access_key": "../../v2/droplets?x="}, "letters and digits alone"),
    "an ID with a line break": (lambda key: {**key, "access_key": "DO00\n"}, "letters and digits alone"),
    "a key of somebody else": (lambda key: {**key, "access_key": "STRANGER"}, "a key that was there before"),
    "no secret": (lambda key: {**key, "secret_key": None}, "has no 'secret_key' as it should be"),
    "an empty secret": (lambda key: {**key, "secret_key": ""}, "has a secret_key that is none"),
    "a secret with a line break": (lambda key: {**key, "secret_key": "a\nb"}, "has a secret_key that is none"),
    "another name": (lambda key: {**key, "name": "zz"}, "another name or other grants"),
    "no name": (lambda key: {**key, "name": None}, "another name or other grants"),
    "other grants": (lambda key: {**key, "grants": ELSEWHERE}, "another name or other grants"),
    "no grants": (lambda key: {**key, "grants": None}, "another name or other grants"),
}


@pytest.mark.parametrize("name", NO_KEY)
@pytest.mark.parametrize("kind", ["ring", "admin"])
def test_another_key_than_the_one_asked_for_is_not_taken(spaces: Spaces, kind: str, name: str) -> None:
    edit, words = NO_KEY[name]
    spaces.api.keys["STRANGER"] = {"access_key": "STRANGER", "name": "of somebody", "grants": ELSEWHERE}
    inputs, resource = (spaces.ring(), RING) if kind == "ring" else (spaces.admin(), ADMIN)
    spaces.edits("POST", lambda body: {"key": edit(body["key"])})
    with pytest.raises(StoreError, match=rf"{words}.*the next `up` finds it by its name and replaces it") as told:
        resource.create(inputs, spaces.context)
    if isinstance(told.value, PartialError):
        assert told.value.outputs["keys"] == told.value.outputs["secrets"] == {}
    spaces.double.behave()
    made = (
        RING.update(spaces.direct.name, told.value.outputs, inputs, spaces.context)
        if isinstance(told.value, PartialError)
        else ADMIN.create(inputs, spaces.context)[1]
    )
    assert set(spaces.api.keys) == {"STRANGER", made["accessKeyId"]}


def test_a_key_for_everything_in_place_of_one_for_a_bucket_is_replaced(spaces: Spaces) -> None:
    """The API made it so: its name is the ring's all the same."""

    def generous(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        body = json.dumps({**json.loads(request.body), "grants": EVERYTHING}).encode()
        return upstream.ask(proxy.Request(request.method, request.target, request.headers, body))

    spaces.double.misbehave(generous, when=lambda one: one.method == "POST", times=1)
    with pytest.raises(PartialError, match="another name or other grants") as told:
        RING.create(spaces.ring(), spaces.context)
    [generously_made] = spaces.api.keys
    made = RING.update(spaces.direct.name, told.value.outputs, spaces.ring(), spaces.context)
    assert list(spaces.api.keys) == [made["accessKeyId"]] != [generously_made]


# ---- the answers to a change and to a deletion


ODD: dict[str, Any] = {
    "nothing of it": {},
    "null": None,
    "a list": [],
    "another key": {"key": {"access_key": "ZZ", "name": "n", "grants": []}},
}


@pytest.mark.parametrize("name", ODD)
def test_a_change_that_was_not_made_is_not_taken_for_done(spaces: Spaces, name: str) -> None:
    """The key in use would keep the name of one that was never issued."""
    ring, _, _ = spaces.made()
    key_id = ring["accessKeyId"]
    unissued = spaces.named(key_id)
    spaces.answers("PUT", 200, ODD[name])
    proved = {"owner": OWNER, "accessKeyId": key_id, "connection": spaces.connection}
    steps: tuple[Callable[[], object], ...] = (
        lambda: RING.update(spaces.direct.name, ring, spaces.ring(), spaces.context),
        lambda: SpacesAdministrator().note_known(model.read(ProofInputs, proved)),
    )
    for step in steps:
        with pytest.raises(StoreError, match=f"key {key_id} does not have the name and the grants that it was given"):
            step()
    assert spaces.named(key_id) == unissued


@pytest.mark.parametrize("name", ODD)
def test_a_change_that_was_made_is_done_whatever_the_answer(spaces: Spaces, name: str) -> None:
    ring, _, _ = spaces.made()
    spaces.edits("PUT", lambda _: ODD[name])
    RING.update(spaces.direct.name, ring, spaces.ring(), spaces.context)
    assert spaces.named(ring["accessKeyId"]) == key_name(spaces.direct.name, OWNER, "a")


@pytest.mark.parametrize("grants", [None, [], [{"permission": "readwrite"}]])
def test_a_key_is_not_renamed_to_one_without_its_grants(spaces: Spaces, grants: Any) -> None:
    """A change of the name sends the grants as they are listed, and here the list has none."""
    ring, _, _ = spaces.made()
    key_id = ring["accessKeyId"]
    before = dict(spaces.api.keys[key_id])
    spaces.edits("GET", lambda body: {**body, "keys": [{**key, "grants": grants} for key in body["keys"]]})
    proved = {"owner": OWNER, "accessKeyId": key_id, "connection": spaces.connection}
    with pytest.raises(StoreError, match=f"the list of keys has no grants of key {key_id}.*api_endpoint"):
        SpacesAdministrator().note_known(model.read(ProofInputs, proved))
    assert spaces.api.keys[key_id] == before


@pytest.mark.parametrize(
    ("status", "body"), [(404, {"id": "not_found", "message": "no"}), (200, None), (200, {"key": {}})]
)
def test_a_key_that_is_said_to_be_gone_and_is_listed_is_not_deleted(spaces: Spaces, status: int, body: Any) -> None:
    ring, _, _ = spaces.made()
    spaces.answers("DELETE", status, body)
    with pytest.raises(StoreError, match=f"key {ring['accessKeyId']} is still there"):
        RING.delete(spaces.direct.name, {**ring, "retireConfirmed": True}, spaces.context)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_only_a_404_says_that_a_key_is_gone(spaces: Spaces, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse_media.store.http.PATIENCE", 0.0)
    spaces.answers("DELETE", status, {"id": "not_found", "message": "no"})
    with pytest.raises(StoreError, match="not_found"):
        SpacesApi(Connection(api_endpoint=spaces.double.url)).deleted("DO00KEY")


def test_a_list_that_is_not_found_does_not_say_that_a_key_is_gone(spaces: Spaces) -> None:
    spaces.answers("DELETE", 200, {})
    spaces.answers("GET", 404, {"id": "not_found", "message": "no"})
    with pytest.raises(StoreError, match="not_found"):
        SpacesApi(Connection(api_endpoint=spaces.double.url)).deleted("DO00KEY")


def test_an_id_of_a_state_is_one_part_of_a_path(spaces: Spaces) -> None:
    """A release before may have taken it from an answer."""
    api = SpacesApi(Connection(api_endpoint=spaces.double.url))
    api.deleted("../../v2/droplets?x=")
    with pytest.raises(StoreError, match="not_found"):
        api.changed("../../v2/droplets?x=", "name", (SpacesGrant(bucket="b", permission="read"),))
    targets = {exchange.target for exchange in spaces.double.exchanges}
    assert targets - {f"{KEYS}?page=1&per_page=200"} == {f"{KEYS}/..%2F..%2Fv2%2Fdroplets%3Fx%3D"}
