"""Every call of every resource, with one answer of its store replaced by what no store would say.

What a call meets is drawn from a seed, so that a run can be had again. HOSTILE_ROUNDS raises the number of draws.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from synapse_media import catalog
from synapse_media.errors import StoreError
from synapse_media.plugin import backblaze_b2, digitalocean_spaces, families, garage, storj
from synapse_media.plugin.iam import POLICY_NAME
from synapse_media.plugin.resource import Context, Resource, Values
from synapse_media.schema import model
from synapse_media.schema.connection import AdminCheck, Connection
from synapse_media.store import bounded, clients, pace
from synapse_media.store.http import JsonClient
from tests.accounts import user_names
from tests.doubles import b2_simulator, garage_admin, proxy, spaces_api, storj_auth
from tests.plugin.direct import Direct, allow
from tests.storj.vectors import PARENTS

ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "10"))
OWNER = "synapse-media/tests/matrix.example.com"
XML, JSON, TEXT = "application/xml", "application/json", "text/plain"


# ---- what is answered


def _redirect(status: int, location: str = "") -> proxy.Fault:
    def fault(_: proxy.Request, __: proxy.Upstream) -> proxy.Answer:
        return proxy.Answer(status, (("Location", location),) if location else ())

    return fault


def _gzipped(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
    body = b"" if request.method == "HEAD" else gzip.compress(b"<a>" * 8_000_000)
    return proxy.Answer(200, (("Content-Type", XML), ("Content-Encoding", "gzip")), body)


def _bytes(status: int, kind: str, body: bytes) -> proxy.Fault:
    def fault(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        return proxy.Answer(status, (("Content-Type", kind),), b"" if request.method == "HEAD" else body)

    return fault


DEEP = 20_000
NOBODYS: dict[str, proxy.Fault] = {
    **proxy.NO_STORE,
    **{f"bare {status}": proxy.in_between(status) for status in (204, 206, 400, 401, 403, 500, 503)},
    **{f"page {status}": proxy.html(status) for status in (200, 403, 404, 502)},
    "301": _redirect(301),
    "301 to https": _redirect(301, "https://127.0.0.1:9/"),
    "302": _redirect(302, "/elsewhere"),
    "307": _redirect(307, "http://127.0.0.1:9/"),
    "308": _redirect(308, "//["),
    "another document": proxy.in_between(200, XML, "<rss><channel/></rss>"),
    "an error of nobody": proxy.in_between(404, XML, "<Error/>"),
    "codes of another kind": proxy.in_between(404, JSON, '{"code": 404, "message": {"code": []}, "id": {}}'),
    "deep xml": proxy.in_between(200, XML, "<a>" * DEEP + "</a>" * DEEP),
    "deep xml in an error": proxy.in_between(404, XML, "<Error>" * DEEP + "</Error>" * DEEP),
    "deep json": proxy.in_between(200, JSON, "[" * DEEP + "]" * DEEP),
    "deep json in an error": proxy.in_between(400, JSON, '{"a":' * DEEP + "1" + "}" * DEEP),
    "null": proxy.in_between(200, JSON, "null"),
    "list": proxy.in_between(200, JSON, "[1, null, [], {}]"),
    "number": proxy.in_between(200, JSON, "1e999"),
    "long number": proxy.in_between(200, JSON, "9" * 5_000),
    "huge": proxy.in_between(200, XML, "<a>" + "x" * (9 * 1024 * 1024) + "</a>"),
    "huge once unpacked": _gzipped,
    "no text": _bytes(200, XML, bytes(range(256))),
    "no text in an error": _bytes(404, JSON, bytes(range(256))),
    "hung up": lambda _, __: None,
    "truncated": proxy.truncated,
}
"""No store answers so: no call may take it for a store's answer."""


SAYS_DELETED = ("bare 204", "null")
"""As far as HTTP, and Garage, have a word for it."""


def _mangled(seed: int) -> proxy.Fault:
    """The store's own answer, with one part of it left out or of another kind."""

    def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        if answer is None or not answer.body:
            return answer
        draw = random.Random(seed)
        text = answer.body.decode(errors="replace")
        try:
            body = json.dumps(_without_a_part(json.loads(text), draw))
        except ValueError:
            body = _without_an_element(text, draw)
        return proxy.Answer(answer.status, answer.headers, body.encode())

    return fault


_OTHER_KINDS: tuple[Any, ...] = (None, "", "junk", -1, 1.5, [], [None], {}, {"a": {}}, True)


def _without_a_part(value: Any, draw: random.Random) -> Any:
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        here = waiting.pop()
        for key in here if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ():
            places.append((here, key))
            waiting.append(here[key])
    if not places:
        return draw.choice(_OTHER_KINDS)
    holder, key = draw.choice(places)
    if draw.random() < 0.4:
        del holder[key]
    else:
        holder[key] = draw.choice(_OTHER_KINDS)
    return value


def _without_an_element(text: str, draw: random.Random) -> str:
    names = sorted(set(re.findall(r"<(\w+)[ >]", text)))
    if not names:
        return draw.choice(["", "junk", text[: len(text) // 2]])
    name = draw.choice(names)
    element = re.compile(rf"<{name}(?: [^>]*)?>.*?</{name}>", re.DOTALL)
    ways = ("", f"<{name}/>", f"<{name}>junk</{name}>", "<other>1</other>", f"<{name}>-1</{name}>" * 2)
    return element.sub(lambda _: draw.choice(ways), text, count=1)


# ---- what is called


@dataclass(slots=True)
class World:
    """One kind of resource at a store, behind a proxy that may answer in its place.

    Attributes:
        inputs: of a thing of this name, at the store itself.
        through: the same, behind the proxy.
        is_there: whether the store has it.
    """

    resource: Resource
    double: proxy.Proxy
    inputs: Callable[[str], Values]
    through: Callable[[Values], Values]
    is_there: Callable[[str, Values], bool]
    names: Iterator[str]

    def made(self) -> tuple[str, str, Values]:
        """(name, ID, outputs) of a new thing."""
        name = next(self.names)
        return (name, *self.resource.create(self.checked(name), Context(warn=_ignore)))

    def checked(self, name: str) -> Values:
        inputs, failures = self.resource.check(self.inputs(name))
        assert not failures, failures
        return inputs

    def step(self, operation: str) -> tuple[Callable[[], object], Callable[[], bool]]:
        """A call of the resource, and whether the thing is there."""
        if operation == "create":
            name = next(self.names)
            inputs = self.through(self.checked(name))
            return lambda: self.resource.create(inputs, Context(warn=_ignore)), lambda: True
        name, resource_id, outputs = self.made()
        inputs, known = self.through(self.checked(name)), self.through(outputs)
        context = Context(warn=_ignore, inputs=inputs)
        steps: dict[str, Callable[[], object]] = {
            "read": lambda: self.resource.read(resource_id, inputs, known, context),
            "update": lambda: self.resource.update(resource_id, known, inputs, context),
            "delete": lambda: self.resource.delete(resource_id, {**known, "retireConfirmed": True}, context),
        }
        return steps[operation], lambda: self.is_there(name, outputs)


def _names(direct: Direct) -> Iterator[str]:
    """Of this test alone: it shares the store behind the double with others."""
    return (f"hostile-{direct.name[-8:]}-{number}" for number in itertools.count())


def _ignore(_: str) -> None:
    """Warnings are no part of this."""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No account and no key of a test before."""
    monkeypatch.setattr(backblaze_b2, "_apis", {})
    monkeypatch.setattr(storj, "_short", {})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second try, and no waiting for a key to be known."""
    monkeypatch.setattr(clients, "ATTEMPTS", 1)
    monkeypatch.setattr(pace, "SECONDS", -1.0)
    monkeypatch.setattr(pace, "LONGEST", 0.0)
    monkeypatch.setattr(storj, "_SETTLE", 0.0)
    monkeypatch.setattr(backblaze_b2._classes()[0].SESSION_CLASS.B2HTTP_CLASS, "attempts", 1)
    for module in (garage, storj, digitalocean_spaces):
        monkeypatch.setattr(module, "JsonClient", functools.partial(JsonClient, attempts=1))


def _moved(**changes: str) -> Callable[[Values], Values]:
    return lambda values: {**values, "connection": {**values["connection"], **changes}}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def _s3(direct: Direct, stack: ExitStack, kind: str) -> World:
    double = stack.enter_context(
        proxy.in_front_of(direct.endpoint if kind == "Bucket" else direct.running.iam_endpoint)
    )
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListAllMyBuckets")]})
    path = "/synapse-media/tests/"

    def user(name: str) -> None:
        try:
            direct.iam.create_user(UserName=name, Path=path)
        except direct.iam.exceptions.EntityAlreadyExistsException:
            return

    def inputs(name: str) -> Values:
        if kind == "Bucket":
            wanted = {"versioning": True, "abortDays": 7, "acl": "private", "policy": "", "forceDestroy": True}
            return {"bucket": name, "owner": OWNER, "connection": direct.connection(), **wanted}
        shared = {"userName": name, "connection": direct.connection()}
        if kind == "User":
            return {**shared, "path": path}
        user(name)
        if kind == "UserPolicy":
            return {**shared, "policyName": POLICY_NAME, "policy": document}
        return {**shared, "active": "a", "slots": ["a"]}

    def is_there(name: str, outputs: Values) -> bool:
        if kind == "Bucket":
            return direct.bucket_exists(name)
        users = user_names(direct.iam)
        if kind == "User" or name not in users:
            return name in users
        if kind == "UserPolicy":
            return POLICY_NAME in direct.iam.list_user_policies(UserName=name)["PolicyNames"]
        keys = direct.iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
        return outputs["accessKeyId"] in {key["AccessKeyId"] for key in keys}

    resource = next(one for one in families.resources() if one.pulumi_type.rpartition(":")[2] == kind)
    moved = _moved(endpoint=double.url) if kind == "Bucket" else _moved(iamEndpoint=double.url)
    return World(resource, double, inputs, moved, is_there, _names(direct))


def _b2(direct: Direct, stack: ExitStack, kind: str, monkeypatch: pytest.MonkeyPatch) -> World:
    simulated = stack.enter_context(b2_simulator.b2_double(direct.running))
    double = stack.enter_context(proxy.in_front_of(simulated.API_URL))
    # What the account names is where the calls after the first go.
    simulated.API_URL = double.url
    monkeypatch.setenv("B2_APPLICATION_KEY_ID", simulated.key_id)
    monkeypatch.setenv("B2_APPLICATION_KEY", simulated.key)
    connection = {"realm": double.url, "variables": ["B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY"]}
    bucket = families.load("backblaze_b2").resources[0]

    def inputs(name: str) -> Values:
        shared = {"owner": OWNER, "connection": connection}
        if kind == "B2Bucket":
            return {**shared, "bucket": name, "forceDestroy": True}
        if name not in simulated.bucket_name_to_bucket:
            checked, _ = bucket.check({**shared, "bucket": name})
            bucket.create(checked, Context(warn=_ignore))
        bucket_id = simulated.bucket_name_to_bucket[name].bucket_id
        ring = {"userName": name, "bucketId": bucket_id, "capabilities": ["listFiles", "readFiles"]}
        return {**shared, **ring, "active": "a", "slots": ["a"]}

    def is_there(name: str, outputs: Values) -> bool:
        if kind == "B2Bucket":
            return name in simulated.bucket_name_to_bucket
        return outputs["accessKeyId"] in {key.application_key_id for key in simulated.all_application_keys}

    resource = families.load("backblaze_b2").resources[kind == "B2KeyRing"]
    return World(resource, double, inputs, lambda values: values, is_there, _names(direct))


def _spaces(direct: Direct, stack: ExitStack, kind: str, monkeypatch: pytest.MonkeyPatch) -> World:
    api = stack.enter_context(spaces_api.spaces_api(direct.running))
    double = stack.enter_context(proxy.in_front_of(api.url))
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", spaces_api.TOKEN)
    connection = {"endpoint": direct.endpoint, "region": "us-east-1", "apiEndpoint": api.url}

    def inputs(name: str) -> Values:
        shared = {"owner": OWNER, "connection": connection}
        if kind == "SpacesAdminKey":
            return {**shared, "name": name}
        ring = {"grants": [{"bucket": name, "permission": "readwrite"}], "active": "a", "slots": ["a"]}
        return {**shared, "userName": name, **ring}

    resource = families.load("digitalocean_spaces").resources[kind == "SpacesAdminKey"]
    moved = _moved(apiEndpoint=double.url)
    return World(resource, double, inputs, moved, lambda _, outputs: outputs["accessKeyId"] in api.keys, _names(direct))


def _garage(direct: Direct, stack: ExitStack, kind: str, monkeypatch: pytest.MonkeyPatch) -> World:
    admin = stack.enter_context(garage_admin.garage_admin())
    double = stack.enter_context(proxy.in_front_of(admin.url))
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", "a-token-of-the-double")
    connection = {"endpoint": admin.url, "adminEndpoint": admin.url, "region": garage_admin.REGION}
    connection |= {"variables": ["GARAGE_ADMIN_TOKEN"]}

    def inputs(name: str) -> Values:
        shared = {"owner": OWNER, "connection": connection}
        if kind == "GarageBucket":
            return {**shared, "bucket": name, "forceDestroy": True}
        if not any(name in bucket["globalAliases"] for bucket in admin.buckets.values()):
            admin.answer("CreateBucket", {}, {"globalAlias": name})
        [bucket_id] = [one["id"] for one in admin.buckets.values() if name in one["globalAliases"]]
        return {**shared, "userName": name, "bucketId": bucket_id, "active": "a", "slots": ["a"]}

    def is_there(name: str, outputs: Values) -> bool:
        if kind == "GarageBucket":
            return any(name in bucket["globalAliases"] for bucket in admin.buckets.values())
        return outputs["accessKeyId"] in admin.keys

    resource = families.load("garage").resources[kind == "GarageKeyRing"]
    moved = _moved(endpoint=double.url, adminEndpoint=double.url)
    return World(resource, double, inputs, moved, is_there, _names(direct))


def _storj(direct: Direct, stack: ExitStack, kind: str, monkeypatch: pytest.MonkeyPatch) -> World:
    auth = stack.enter_context(storj_auth.in_front_of(direct.running))
    target = direct.endpoint if kind == "StorjBucket" else auth.url
    double = stack.enter_context(proxy.in_front_of(target))
    monkeypatch.setenv("UPLINK_ACCESS", PARENTS["full"])
    monkeypatch.setenv("PATH", "/nonexistent")
    connection = {"endpoint": direct.endpoint, "region": "us-east-1", "authEndpoint": auth.url}
    connection |= {"variables": ["UPLINK_ACCESS"]}

    def inputs(name: str) -> Values:
        if kind == "StorjBucket":
            wanted = {"mayBeDenied": True, "keyPermissions": sorted(storj.OBJECTS), "forceDestroy": True}
            return {"bucket": name, "owner": OWNER, "connection": connection, **wanted}
        ring = {"permissions": sorted(storj.OBJECTS), "expiresInDays": 400, "active": "a", "slots": ["a"]}
        return {"userName": name, "bucket": name, "connection": connection, **ring}

    resource = families.load("storj").resources[kind == "StorjKeyRing"]
    moved = _moved(endpoint=double.url) if kind == "StorjBucket" else _moved(authEndpoint=double.url)
    # A key pair can neither be looked at nor deleted.
    there = (lambda name, _: direct.bucket_exists(name)) if kind == "StorjBucket" else (lambda _, __: False)
    return World(resource, double, inputs, moved, there, _names(direct))


KINDS = {
    "Bucket": "s3",
    "User": "s3",
    "UserPolicy": "s3",
    "KeyRing": "s3",
    "B2Bucket": "backblaze_b2",
    "B2KeyRing": "backblaze_b2",
    "SpacesKeyRing": "digitalocean_spaces",
    "SpacesAdminKey": "digitalocean_spaces",
    "GarageBucket": "garage",
    "GarageKeyRing": "garage",
    "StorjBucket": "storj",
    "StorjKeyRing": "storj",
}
_WORLDS: dict[str, Any] = {"backblaze_b2": _b2, "digitalocean_spaces": _spaces, "garage": _garage, "storj": _storj}


@pytest.fixture
def world(kind: str, direct: Direct, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> World:
    if KINDS[kind] == "s3":
        return _s3(direct, stack, kind)
    made: World = _WORLDS[KINDS[kind]](direct, stack, kind, monkeypatch)
    return made


def _nth(number: int, double: proxy.Proxy) -> Callable[[proxy.Request], bool]:
    """From now on, the request of this number and every later one to the same place."""
    seen: list[tuple[str, str, str]] = []

    def when(request: proxy.Request) -> bool:
        seen.append((request.method, request.target.partition("?")[0], request.action))
        return len(seen) == number or (len(seen) > number and seen[-1] == seen[number - 1])

    return when


def test_every_resource_of_a_store_is_here() -> None:
    named = {one.pulumi_type.rpartition(":")[2] for one in families.resources()}
    # A proof is a record, and a key of one's own is neither made nor deleted.
    assert named == {*KINDS, "Proof", "ExistingKey"}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("operation", ["create", "read", "update", "delete"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_answer_is_an_error_in_words(world: World, kind: str, operation: str) -> None:
    call, _ = world.step(operation)
    before = len(world.double.exchanges)
    call()
    calls = len(world.double.exchanges) - before
    draw = random.Random(f"{kind} {operation}")
    for number in range(ROUNDS if calls else 0):
        name = draw.choice([*NOBODYS, f"mangled {number}", f"mangled {number}"])
        at = draw.randint(1, calls)
        call, is_there = world.step(operation)
        fault = NOBODYS.get(name) or _mangled(draw.randrange(10**9))
        rule = world.double.misbehave(fault, when=_nth(at, world.double))
        told = f"{name!r} as answer {at} of {calls}"
        try:
            result = call()
        except StoreError:
            pass
        except Exception as error:
            raise AssertionError(f"{told}: {type(error).__name__} escaped: {error}") from error
        else:
            if name in NOBODYS and rule.hits:
                if operation == "read":
                    assert result is not None, f"{told}: dropped from the state"
                elif (
                    operation == "delete"
                    and name not in SAYS_DELETED
                    and world.resource.pulumi_type != "s3store:index:StorjKeyRing"
                ):
                    assert not is_there(), f"{told}: taken for deleted"
        finally:
            world.double.behave()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("kind", "listing", "following"),
    [
        ("B2Bucket", "b2_list_unfinished_large_files", "nextFileId"),
        ("B2Bucket", "b2_list_file_versions", "nextFileName"),
        ("B2KeyRing", "b2_list_keys", "nextApplicationKeyId"),
    ],
)
@pytest.mark.parametrize("places", ["a", "abc", "a new one each time"])
def test_a_listing_that_does_not_end_ends(
    world: World, listing: str, following: str, places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "PAGES", 20)
    monkeypatch.setattr(bounded, "EMPTY_PAGES", 20)
    in_circles = len(places) <= 3
    told = "begins where a page before it did" if in_circles else "is one of more than 20 pages of a listing"
    asked = itertools.cycle(places) if in_circles else map(str, itertools.count())

    def again(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
        answer = upstream.ask(request)
        assert answer is not None
        place = next(asked)
        # A listing of files names both, and one of unfinished files is asked for by the ID alone.
        names = ("nextFileName", "nextFileId") if "File" in following else (following,)
        body = json.loads(answer.body) | dict.fromkeys(names, place)
        return proxy.Answer(answer.status, answer.headers, json.dumps(body).encode())

    call, is_there = world.step("delete")
    rule = world.double.misbehave(again, when=lambda request: request.path.endswith(listing))
    with pytest.raises(StoreError, match=f"the answer {told}"):
        call()
    assert 1 < rule.hits <= 21
    assert is_there()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("component", sorted(family.component for family in catalog.families()))
def test_a_hostile_answer_to_a_look_at_the_credential(
    component: str, direct: Direct, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = families.load(component)
    kind = next(kind for kind, name in KINDS.items() if name == catalog.load(component).plugin)
    world = _s3(direct, stack, "Bucket") if kind == "Bucket" else _WORLDS[KINDS[kind]](direct, stack, kind, monkeypatch)
    values = world.through(world.inputs("hostile-look"))["connection"]
    asked = AdminCheck(model.read(Connection, values), "hostile-look", "least", "", "")
    for name, fault in NOBODYS.items():
        monkeypatch.setattr(backblaze_b2, "_apis", {})
        rule = world.double.misbehave(fault)
        try:
            family.check_admin(asked)
        except StoreError:
            pass
        except Exception as error:
            raise AssertionError(f"{name!r}: {type(error).__name__} escaped: {error}") from error
        else:
            # An access grant is looked at on this machine.
            assert not rule.hits, name
        finally:
            world.double.behave()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith(("Ring", "AdminKey"))])
def test_a_key_is_made_over_a_connection_of_its_own(world: World, kind: str) -> None:
    """A call that is never repeated must not meet the end of a connection that a call before it left open."""
    world.double.closes_kept = True
    inputs = world.through(world.checked(next(world.names)))
    if "slots" in inputs:
        inputs = {**inputs, "slots": ["a", "b"]}
    _, outputs = world.resource.create(inputs, Context(warn=_ignore))
    assert outputs["secretAccessKey"]
