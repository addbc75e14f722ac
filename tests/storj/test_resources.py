"""The bucket and the key ring called as the engine would, on a double of the auth service and a real S3 store."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from synapse_media.engine import embedded
from synapse_media.engine.embedded import Running
from synapse_media.errors import StoreError
from synapse_media.plugin import storj
from synapse_media.plugin.resource import Context, PartialError, Values
from synapse_media.plugin.storj import OBJECTS, StorjBucket, StorjKeyRing, administrator
from synapse_media.plugin.storj_grant import parse
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN
from synapse_media.store.http import JsonClient
from tests.doubles import proxy, storj_auth
from tests.doubles.storj_auth import AuthDouble
from tests.storj.vectors import PARENTS

RING = StorjKeyRing()


@dataclass(slots=True)
class At:
    """One test's auth service, and what the plugin says to the user."""

    auth: AuthDouble
    bucket: str = "media"
    url: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def context(self) -> Context:
        return Context(
            warn=self.said.append, urn="urn:pulumi:prod::synapse-media::s3store:index:StorjKeyRing::example.com"
        )

    def connection(self, **changes: Any) -> Values:
        return {
            "endpoint": "",
            "region": "us-east-1",
            "authEndpoint": self.url or self.auth.url,
            "variables": ["UPLINK_ACCESS"],
            **changes,
        }

    def bucket_inputs(self, **changes: Any) -> Values:
        inputs = {"bucket": self.bucket, "owner": "tests", "connection": self.connection(), **changes}
        checked, failures = StorjBucket().check({"mayBeDenied": True, "keyPermissions": sorted(OBJECTS), **inputs})
        assert not failures
        return checked

    def ring_inputs(self, *slots: str, **changes: Any) -> Values:
        named = slots or ("a",)
        inputs = {
            "userName": self.bucket,
            "bucket": self.bucket,
            "active": named[0],
            "slots": list(named),
            "permissions": sorted(OBJECTS),
            "expiresInDays": 400,
            "connection": self.connection(),
            **changes,
        }
        checked, failures = RING.check(inputs)
        assert not failures, failures
        return checked

    def make(self, **changes: Any) -> Values:
        return RING.create(self.ring_inputs(**changes), self.context)[1]


@pytest.fixture
def at(embedded_store: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    monkeypatch.setenv("UPLINK_ACCESS", PARENTS["full"])
    monkeypatch.setenv("PATH", "/nonexistent")
    with storj_auth.in_front_of(embedded_store) as double:
        yield At(double)


@pytest.fixture
def uplink(at: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a double of the vendor's command that is on PATH."""
    storj_auth.write_uplink(tmp_path / "bin", sys.executable, at.auth)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def _revoked(uplink: Path) -> list[str]:
    return [called["contents"][1] for called in storj_auth.calls(uplink)]


# ---- the operator's grant


@pytest.mark.parametrize(
    ("parent", "why"),
    [
        ("another-bucket", "it does not reach the whole bucket"),
        ("a-prefix", "it reaches no bucket as a whole"),
        ("read-only", "it forbids deletes, writes"),
        ("ended", "it expired at 2020-01-01"),
        ("not-yet", "not valid before 2100"),
        ("objects-expire", "media would be deleted by age"),
        ("no-node-id", "without a node ID"),
        ("", "the environment has no UPLINK_ACCESS"),
    ],
)
def test_a_parent_of_no_use_is_refused_before_anything_is_made(
    at: At, monkeypatch: pytest.MonkeyPatch, parent: str, why: str
) -> None:
    monkeypatch.setenv("UPLINK_ACCESS", PARENTS.get(parent, ""))
    for make in (
        lambda: StorjBucket().create(at.bucket_inputs(), at.context),
        lambda: RING.create(at.ring_inputs(), at.context),
    ):
        with pytest.raises(StoreError, match=why) as raised:
            make()
        assert not parent or PARENTS[parent] not in str(raised.value)
    assert at.auth.registered == []


def test_full_access_is_refused_before_the_bucket_is_made(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLINK_ACCESS", PARENTS["the-bucket"])
    with pytest.raises(StoreError, match="it forbids bypass_governance_retention"):
        StorjBucket().create(at.bucket_inputs(keyPermissions=["*"]), at.context)
    assert at.auth.registered == []


def test_a_parent_that_is_about_to_end(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = parse(PARENTS["full"]).restricted([at.bucket], OBJECTS, datetime.now(UTC) + timedelta(seconds=50))
    monkeypatch.setenv("UPLINK_ACCESS", ending.serialize())
    with pytest.raises(StoreError, match="expires within a minute"):
        StorjBucket().create(at.bucket_inputs(), at.context)
    assert at.auth.registered == []


def test_a_restriction_that_is_not_known_is_said(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = replace(parse(PARENTS["full"]), caveats=(b"\x80\x01\x01",))
    monkeypatch.setenv("UPLINK_ACCESS", grown.serialize())
    at.bucket = "storj-grown"
    name, outputs = StorjBucket().create(at.bucket_inputs(), at.context)
    assert "caveat field 16" in at.said[0]
    StorjBucket().delete(name, outputs, at.context)


def test_a_grant_of_another_project_or_passphrase(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket would seem gone, or the next key could read nothing that is there: refused, and nothing is made."""
    at.bucket = "storj-other"
    name, outputs = StorjBucket().create(at.bucket_inputs(), at.context)
    keys = at.make()
    before = len(at.auth.registered)
    other = replace(parse(PARENTS["full"]), root_key=b"another passphrase, another key.")
    monkeypatch.setenv("UPLINK_ACCESS", other.serialize())
    for attempt in (
        lambda: StorjBucket().read(name, at.bucket_inputs(), outputs, at.context),
        lambda: StorjBucket().update(name, outputs, at.bucket_inputs(versioning=True), at.context),
        lambda: StorjBucket().delete(name, outputs, at.context),
        lambda: RING.update(at.bucket, keys, at.ring_inputs("b", "a"), at.context),
    ):
        with pytest.raises(StoreError, match="another project, or was made with another passphrase"):
            attempt()
    assert len(at.auth.registered) == before
    # Another grant of the same project and passphrase will do, such as one for the bucket alone.
    monkeypatch.setenv("UPLINK_ACCESS", parse(PARENTS["full"]).restricted([at.bucket]).serialize())
    assert StorjBucket().read(name, at.bucket_inputs(), outputs, at.context) is not None
    RING.update(at.bucket, keys, at.ring_inputs("b", "a"), at.context)
    StorjBucket().delete(name, outputs, at.context)


# ---- the bucket


def test_a_bucket_through_a_key_of_an_hour(at: At) -> None:
    at.bucket = "storj-hour"
    name, outputs = StorjBucket().create(at.bucket_inputs(versioning=True), at.context)
    found = StorjBucket().read(name, at.bucket_inputs(versioning=True), outputs, at.context)
    assert found is not None
    assert found.inputs["versioning"] is True
    StorjBucket().delete(name, outputs, at.context)
    assert StorjBucket().read(name, at.bucket_inputs(), outputs, at.context) is None
    # One key for all of it, which ends within the hour, and of which nothing is kept.
    ((grant, key_id),) = at.auth.registered
    assert grant.buckets == {"storj-hour"}
    assert grant.not_after is not None
    assert grant.not_after <= datetime.now(UTC) + timedelta(hours=1)
    assert key_id not in repr(outputs)


def test_a_bucket_that_is_there(at: At, embedded_store: Running) -> None:
    """Refused where it holds anything; taken over with `adopt`, and given back as it was."""
    at.bucket = "storj-there"
    s3 = boto3.client(
        "s3",
        endpoint_url=embedded_store.endpoint,
        region_name=embedded_store.region,
        aws_access_key_id=embedded_store.access_key_id,
        aws_secret_access_key=embedded_store.secret_access_key,
    )
    s3.create_bucket(Bucket=at.bucket)
    s3.put_object(Bucket=at.bucket, Key="local_content/a", Body=b"media")
    with pytest.raises(StoreError, match="adopt: true"):
        StorjBucket().create(at.bucket_inputs(versioning=True), at.context)
    name, outputs = StorjBucket().create(at.bucket_inputs(versioning=True, adopt=True), at.context)
    assert outputs["adopted"] is True
    assert any("versioning is False" in words for words in outputs["differences"])
    with pytest.raises(StoreError, match="holds media"):
        StorjBucket().delete(name, outputs, at.context)
    assert s3.get_object(Bucket=at.bucket, Key="local_content/a")["Body"].read() == b"media"


def test_a_short_lived_key_is_renewed_in_time(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    there = model.read(Connection, at.connection())
    monkeypatch.setattr(storj, "_SHORT", timedelta(minutes=5))
    administrator(there, at.bucket)
    monkeypatch.setattr(storj, "_SHORT", timedelta(hours=1))
    administrator(there, at.bucket)
    administrator(there, at.bucket)
    assert len(at.auth.registered) == 2


def test_a_gateway_that_does_not_know_the_key_yet(at: At, embedded_store: Running) -> None:
    unknown = proxy.Answer(
        403,
        (("Content-Type", "application/xml"),),
        b"<Error><Code>InvalidAccessKeyId</Code><Message>no</Message></Error>",
    )
    waits: list[float] = []
    with proxy.in_front_of(embedded_store.endpoint) as gateway:
        rule = gateway.misbehave(lambda _request, _upstream: unknown, times=2)
        there = model.read(Connection, at.connection(endpoint=gateway.url))
        s3 = administrator(there, "storj-late", pause=waits.append)
        assert rule.hits == 2
        assert len(waits) == 2
        s3.create_bucket(Bucket="storj-late")
        s3.delete_bucket(Bucket="storj-late")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId"])
def test_a_grant_that_was_revoked_is_named(
    at: At, embedded_store: Running, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """The auth service issues a key for it nevertheless; the gateway refuses every request."""
    monkeypatch.setattr(storj, "_SETTLE", 0)

    def refused(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        return proxy.error(request, 403, code, "no")

    with proxy.in_front_of(embedded_store.endpoint) as gateway:
        gateway.misbehave(refused)
        at.bucket = "storj-revoked"
        inputs = at.bucket_inputs(connection=at.connection(endpoint=gateway.url))
        outputs = {**inputs, "fingerprint": ""}
        for attempt in (
            lambda: StorjBucket().create(inputs, at.context),
            lambda: StorjBucket().read(at.bucket, inputs, outputs, at.context),
            lambda: StorjBucket().delete(at.bucket, outputs, at.context),
        ):
            with pytest.raises(StoreError, match=r"UPLINK_ACCESS: .* was perhaps revoked: set it to a valid one"):
                attempt()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_auth_service_is_asked_again_for_a_short_lived_key(at: At, status: int) -> None:
    with proxy.in_front_of(at.auth.url) as between:
        rule = between.misbehave(proxy.html(status), times=2)
        at.url, at.bucket = between.url, "storj-busy"
        name, outputs = StorjBucket().create(at.bucket_inputs(), at.context)
        assert rule.hits == 2
        StorjBucket().delete(name, outputs, at.context)


def test_what_a_key_will_need_is_no_change_of_the_bucket(at: At) -> None:
    old = at.bucket_inputs()
    assert StorjBucket().diff(old, {**old, "keyPermissions": ["reads"]}).changed == ()


def test_a_bucket_is_not_imported(at: At) -> None:
    with pytest.raises(StoreError, match="adopt: true"):
        StorjBucket().read("media", {}, {}, at.context)


# ---- the keys


def test_a_key_is_registered_once(at: At) -> None:
    outputs = at.make()
    inputs = at.ring_inputs()
    found = RING.read("media", inputs, outputs, at.context)
    assert found is not None
    assert (found.inputs, found.outputs) == (inputs, outputs)
    assert RING.update("media", outputs, inputs, at.context) == outputs
    ((grant, key_id),) = at.auth.registered
    assert outputs["keys"]["a"]["accessKeyId"] == outputs["accessKeyId"] == key_id
    assert outputs["endpoint"] == at.auth.store.endpoint
    assert parse(outputs["grants"]["a"]) == grant
    assert grant.not_after is not None
    assert timedelta(days=399) < grant.not_after - datetime.now(UTC) < timedelta(days=401)


def test_every_secret_is_an_output_that_is_secret(at: At) -> None:
    outputs = at.make()
    plain = repr({name: value for name, value in outputs.items() if name not in RING.secrets})
    for secret in (outputs["secretAccessKey"], outputs["grants"]["a"]):
        assert secret not in plain
        assert secret not in "".join(at.said)


def test_a_parent_that_ends_sooner_ends_the_key(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLINK_ACCESS", PARENTS["ends"])
    outputs = at.make(expiresInDays=0)
    assert "ends on 2100-01-01" in outputs["lifetimes"][0]


REFUSALS = {
    400: (b"access grant: disallowed satellite", "no key was made.*disallowed satellite.*auth_endpoint"),
    413: (b"http: request body too large", "no key was made.*too long"),
    422: (b"unmarshal request body", "no key was made.*did not understand"),
    404: (b"404 page not found", "no key was made.*Is auth_endpoint an auth service"),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_registration_that_is_refused(at: At, uplink: Path, status: int) -> None:
    body, why = REFUSALS[status]
    answer = proxy.Answer(status, (("Content-Type", "text/plain; charset=utf-8"),), body)
    with proxy.in_front_of(at.auth.url) as between:
        rule = between.misbehave(lambda _request, _upstream: answer)
        at.url = between.url
        with pytest.raises(PartialError, match=why) as raised:
            at.make()
        assert rule.hits == 1
    # Nothing was made, so there is nothing to revoke.
    assert raised.value.outputs["keys"] == raised.value.outputs["grants"] == {}
    assert _revoked(uplink) == []


@pytest.mark.parametrize("length", [0, 30, 15])
def test_a_server_that_repeats_the_grant_is_not_quoted(at: At, length: int) -> None:
    """Whole, or in lines."""
    given: list[str] = []

    def repeats(request: proxy.Request, _: object) -> proxy.Answer:
        text = json.loads(request.body)["access_grant"]
        given.append(text)
        lines = [text[start : start + length] for start in range(0, len(text), length)] if length else [text]
        return proxy.Answer(400, (("Content-Type", "text/plain"),), b"bad: " + "\n".join(lines).encode())

    with proxy.in_front_of(at.auth.url) as between:
        between.misbehave(repeats)
        at.url = between.url
        with pytest.raises(PartialError, match=r"bad: .*\[access grant\]") as refused:
            at.make()
    assert not any(given[0][start : start + 12] in str(refused.value) for start in range(len(given[0]) - 12))


def _pair(*, gateway: str = "https://gateway.example.com", key_id: str = "j", secret: str = "s") -> proxy.Fault:
    body = json.dumps({"access_key_id": key_id, "secret_key": secret, "endpoint": gateway}).encode()
    return lambda _request, _upstream: proxy.Answer(200, (), body)


NOT_KNOWN = {
    "lost": proxy.lost_answer,
    "truncated": proxy.truncated,
    "a web page": proxy.html(200),
    "an empty 502": lambda _request, _upstream: proxy.Answer(502),
    "a page of 503": proxy.html(503),
    "another's JSON": lambda _request, _upstream: proxy.Answer(200, (), b'{"ok": true}'),
    "a list": lambda _request, _upstream: proxy.Answer(200, (), b"[]"),
    "no gateway": lambda _request, _upstream: proxy.Answer(
        200, (), b'{"access_key_id": "j", "secret_key": "s", "endpoint": "gateway"}'
    ),
    **{
        f"the gateway {gateway!r}": _pair(gateway=gateway)
        for gateway in (
            "https://[",
            "https://user:password@gateway.example.com",
            "https://gateway.example.com/?x=1",
            "https://gateway.example.com/#x",
            "https://gateway.example.com:99999",
            "https://gateway.example.com:0",
            "https://gateway.exa\nmple.com",
            "https://gateway example.com",
            "https://$(id).example.com",
            "https://'gateway'.example.com",
        )
    },
    "a secret in two lines": _pair(secret="a\nb"),
    "an access key ID with a blank": _pair(key_id="a b"),
    "no secret": _pair(secret=""),
    "429 of a proxy": lambda _request, _upstream: proxy.Answer(
        429, (("Content-Type", "application/json"),), b'{"message": "API rate limit exceeded"}'
    ),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_a_registration_of_which_nothing_is_known(at: At, uplink: Path, name: str) -> None:
    """Asked once; what may have been made is revoked at once."""
    with proxy.in_front_of(at.auth.url) as between:
        rule = between.misbehave(NOT_KNOWN[name])
        at.url = between.url
        with pytest.raises(PartialError, match="may have made a key pair") as raised:
            at.make()
        assert rule.hits == 1
    (revoked,) = _revoked(uplink)
    assert [grant.serialize() for grant, _ in at.auth.registered] in ([], [revoked])
    at.url = ""
    outputs = RING.update("media", raised.value.outputs, at.ring_inputs(), at.context)
    assert outputs["accessKeyId"] == at.auth.registered[-1][1]
    assert len(_revoked(uplink)) == 1


def test_a_registration_that_timed_out(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storj, "JsonClient", functools.partial(JsonClient, seconds=0.3))
    with proxy.in_front_of(at.auth.url) as between:
        between.misbehave(proxy.black_hole)
        at.url = between.url
        with pytest.raises(PartialError, match="may have made a key pair"):
            at.make()
    # Without the vendor's command it is said how long it may live.
    assert "stays valid until" in at.said[-1]
    assert "not on PATH" in at.said[-1]


def test_nobody_listens(at: At) -> None:
    at.url = "http://127.0.0.1:9"
    with pytest.raises(PartialError, match="no connection"):
        at.make()


def test_rotation_and_retirement(at: At, uplink: Path) -> None:
    outputs = at.make()
    both = RING.update("media", outputs, at.ring_inputs("b", "a"), at.context)
    assert both["keys"]["a"] == outputs["keys"]["a"]
    assert both["accessKeyId"] == both["keys"]["b"]["accessKeyId"]
    with pytest.raises(PartialError, match="does not tell when a key was last used") as raised:
        RING.update("media", both, at.ring_inputs("b"), at.context)
    assert raised.value.outputs["keys"] == both["keys"]
    assert _revoked(uplink) == []
    last = RING.update("media", both, at.ring_inputs("b", retireConfirmed=True), at.context)
    assert set(last["keys"]) == set(last["grants"]) == set(last["secrets"]) == {"b"}
    assert _revoked(uplink) == [outputs["grants"]["a"]]


def test_a_revocation_that_fails_is_tried_again(at: At, uplink: Path) -> None:
    both = RING.update("media", at.make(), at.ring_inputs("b", "a"), at.context)
    (uplink / "broken").touch()
    with pytest.raises(PartialError, match="could not be revoked") as raised:
        RING.update("media", both, at.ring_inputs("b", retireConfirmed=True), at.context)
    outputs = raised.value.outputs
    assert set(outputs["keys"]) == {"b"}
    assert outputs["ending"] == [both["grants"]["a"]]
    assert "permission denied: [access grant] (code 1)" in at.said[-1]
    assert both["grants"]["a"] not in "".join(at.said)
    with pytest.raises(StoreError, match="2 access grants could not be revoked"):
        RING.delete("media", outputs, at.context)
    (uplink / "broken").unlink()
    mended = RING.update("media", outputs, at.ring_inputs("b"), at.context)
    assert mended["ending"] == []
    RING.delete("media", mended, at.context)
    assert _revoked(uplink)[-2:] == [both["grants"]["a"], both["grants"]["b"]]


def test_a_key_that_ended_is_replaced(at: At, uplink: Path) -> None:
    outputs = at.make()
    ended = parse(PARENTS["full"]).restricted([at.bucket], OBJECTS, datetime.now(UTC) - timedelta(days=1))
    outputs["grants"]["a"] = ended.serialize()
    found = RING.read("media", at.ring_inputs(), outputs, at.context)
    assert found is not None
    assert found.inputs["slots"] == []
    assert RING.diff(found.inputs, at.ring_inputs()).changed == ("slots",)
    assert RING.planned(at.ring_inputs(), found.outputs)["accessKeyId"] is UNKNOWN
    again = RING.update("media", found.outputs, at.ring_inputs(), at.context)
    assert again["accessKeyId"] == at.auth.registered[-1][1] != outputs["accessKeyId"]
    # What ended by itself needs no revoking.
    assert _revoked(uplink) == []


def test_a_free_trial_ends_the_key_before_its_grant(at: At) -> None:
    def trial(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
        answer = upstream.ask(request)
        assert answer is not None
        until = (datetime.now(UTC) + timedelta(days=5)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
        made = {**json.loads(answer.body), "freeTierRestrictedExpiration": until}
        return proxy.Answer(200, (("Content-Type", "application/json"),), json.dumps(made).encode())

    with proxy.in_front_of(at.auth.url) as between:
        between.misbehave(trial)
        at.url = between.url
        outputs = at.make()
        day = datetime.now(UTC) + timedelta(days=5)
        assert f"ends on {day:%Y-%m-%d}" in outputs["lifetimes"][0]
        assert RING.read("media", at.ring_inputs(), outputs, at.context) is not None
    assert f"expires on {day:%Y-%m-%d}, after which Synapse" in at.said[-1]
    outputs["ends"]["a"] = "2026-01-01T00:00:00Z"
    found = RING.read("media", at.ring_inputs(), outputs, at.context)
    assert found is not None
    assert found.inputs["slots"] == []


@pytest.mark.parametrize("ended", ["1970-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01"])
def test_a_key_that_ended_before_it_was_made_is_no_answer(at: At, ended: str) -> None:
    def past(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
        answer = upstream.ask(request)
        assert answer is not None
        made = {**json.loads(answer.body), "freeTierRestrictedExpiration": ended}
        return proxy.Answer(200, (("Content-Type", "application/json"),), json.dumps(made).encode())

    with proxy.in_front_of(at.auth.url) as between:
        between.misbehave(past)
        at.url = between.url
        with pytest.raises(PartialError, match=r"ended (1970|2026)-01-01: check auth_endpoint"):
            at.make()


def test_a_key_that_ends_soon_is_said(at: At) -> None:
    outputs = at.make(expiresInDays=29)
    RING.read("media", at.ring_inputs(expiresInDays=29), outputs, at.context)
    assert "Run `synapse-media rotate` before" in at.said[-1]


def test_another_expiry_is_for_the_next_key(at: At) -> None:
    outputs = at.make()
    later = RING.update("media", outputs, at.ring_inputs(expiresInDays=10), at.context)
    assert later["grants"] == outputs["grants"]
    assert len(at.auth.registered) == 1


def test_other_permissions_are_a_rotation(at: At) -> None:
    outputs = at.make()
    wider = {"permissions": sorted({*OBJECTS, "locks"})}
    for attempt in (
        lambda: RING.planned(at.ring_inputs(**wider), outputs),
        lambda: RING.update("media", outputs, at.ring_inputs(**wider), at.context),
    ):
        with pytest.raises(StoreError, match=r"\{active: b, retiring: \[a\]\}"):
            attempt()
    both = RING.update("media", outputs, at.ring_inputs("b", "a", **wider), at.context)
    assert "locks" not in parse(both["grants"]["b"]).forbidden
    assert len(at.auth.registered) == 2


@pytest.mark.parametrize("days", [-1, 36501, "a year", True, 1.5])
def test_an_expiry_that_can_not_be(at: At, days: object) -> None:
    _, failures = RING.check({**at.ring_inputs(), "expiresInDays": days})
    assert set(failures) == {"expiresInDays"}


def test_a_permission_that_is_not_known(at: At) -> None:
    _, failures = RING.check({**at.ring_inputs(), "permissions": ["reads", "everything"]})
    assert set(failures) == {"permissions"}


def test_over_https(embedded_store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLINK_ACCESS", PARENTS["full"])
    monkeypatch.setenv("PATH", "/nonexistent")
    store = embedded.start(tls=True, name="storj-tls")
    try:
        with storj_auth.in_front_of(store, tls=True) as double:
            at = At(double, bucket="storj-tls")
            trusting = {"connection": at.connection(caFile=str(store.ca_file))}
            with pytest.raises(PartialError, match="certificate is not valid"):
                at.make()
            name, outputs = StorjBucket().create(at.bucket_inputs(**trusting), at.context)
            made = at.make(**trusting)
            assert made["endpoint"].startswith("https://")
            s3 = boto3.client(
                "s3",
                endpoint_url=made["endpoint"],
                region_name="us-east-1",
                aws_access_key_id=made["accessKeyId"],
                aws_secret_access_key=made["secretAccessKey"],
                verify=str(store.ca_file),
            )
            s3.put_object(Bucket="storj-tls", Key="a", Body=b"media")
            with pytest.raises(StoreError, match="holds media"):
                StorjBucket().delete(name, outputs, at.context)
            s3.delete_object(Bucket="storj-tls", Key="a")
            StorjBucket().delete(name, outputs, at.context)
    finally:
        embedded.wipe(name="storj-tls")


def test_a_key_that_may_be_in_use_is_not_revoked_unasked(at: At, uplink: Path) -> None:
    name, bucket = StorjBucket().create(at.bucket_inputs(), at.context)
    outputs = at.make()
    with pytest.raises(StoreError, match="may be in use and is not deleted"):
        RING.delete("media", outputs, at.context)
    assert _revoked(uplink) == []
    StorjBucket().delete(name, bucket, at.context)
    # Without its bucket the key is of no use, so nobody is asked.
    RING.delete("media", outputs, at.context)
    assert len(_revoked(uplink)) == 1


def test_a_key_whose_bucket_is_said_to_be_gone_once_is_not_revoked_for_that(
    at: At, uplink: Path, embedded_store: Running
) -> None:
    StorjBucket().create(at.bucket_inputs(), at.context)
    with proxy.in_front_of(embedded_store.endpoint) as s3:
        s3.misbehave(
            lambda request, _: proxy.error(request, 404, "NoSuchBucket", "there is no such bucket"),
            when=lambda request: "list-type" in request.query,
            times=1,
        )
        outputs = at.make(connection=at.connection(endpoint=s3.url))
        with pytest.raises(StoreError, match="may be in use and is not deleted"):
            RING.delete("media", outputs, at.context)
    assert _revoked(uplink) == []
