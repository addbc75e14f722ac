"""An answer that the store did not give is no answer: nothing is forgotten, made, proved or deleted by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest

from synapse_media.errors import StoreError
from synapse_media.methods import METHODS, Operation, expectations
from synapse_media.plugin import garage, storj
from synapse_media.plugin.digitalocean_spaces import SpacesApi
from synapse_media.plugin.iam import POLICY_NAME, KeyRing, User, UserPolicy
from synapse_media.plugin.resource import Values
from synapse_media.plugin.s3_bucket import Bucket
from synapse_media.schema.connection import Connection
from synapse_media.store import clients as connections
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Credential
from synapse_media.store.probes import prove
from tests.doubles import proxy
from tests.plugin.direct import OWNER, Direct, allow

BUCKET, USER, POLICY, RING = Bucket(), User(), UserPolicy(), KeyRing()
PATH = "/synapse-media/tests/"

of_each = pytest.mark.parametrize("fault", proxy.NO_STORE.values(), ids=proxy.NO_STORE)


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ATTEMPTS", 1)


def checked(resource: Any, inputs: Values) -> Values:
    found, failures = resource.check(inputs)
    assert not failures
    return dict(found)


def bucket_of(direct: Direct, **connection: Any) -> Values:
    return checked(
        BUCKET,
        {
            "bucket": direct.name,
            "connection": direct.connection(**connection),
            "owner": OWNER,
            "versioning": True,
            "policy": "",
            "acl": "private",
            "forceDestroy": True,
        },
    )


@of_each
def test_nothing_is_known_of_a_bucket_by_it(direct: Direct, fault: proxy.Fault) -> None:
    _, outputs = BUCKET.create(bucket_of(direct), direct.context)
    direct.put()
    before = direct.versions_in()
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(fault)
        inputs = bucket_of(direct, endpoint=double.url)
        known = {**outputs, **inputs}
        for step in (
            lambda: BUCKET.read(direct.name, inputs, known, direct.context),
            lambda: BUCKET.create(inputs, direct.context),
            lambda: BUCKET.update(direct.name, known, inputs, direct.context),
            lambda: BUCKET.delete(direct.name, known, direct.context),
        ):
            with pytest.raises(ApiError):
                step()
        # Nothing was even tried that changes something.
        assert {exchange.method for exchange in double.exchanges} == {"GET"}
    assert direct.versions_in() == before


def test_nothing_is_known_of_a_bucket_by_iams_word(direct: Direct) -> None:
    """Of a server that answers everything in the same way."""
    _, outputs = BUCKET.create(bucket_of(direct), direct.context)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(lambda request, _: proxy.error(request, 404, "NoSuchEntity", "there is no such user"))
        inputs = bucket_of(direct, endpoint=double.url)
        with pytest.raises(ApiError, match=r"NoSuchEntity.*That is no answer of this API"):
            BUCKET.read(direct.name, inputs, {**outputs, **inputs}, direct.context)


@of_each
@pytest.mark.parametrize("subresource", ["tagging", "versioning", "policy", "acl", "versions", "uploads"])
def test_one_route_that_goes_elsewhere_tells_nothing_of_its_setting(
    direct: Direct, fault: proxy.Fault, subresource: str
) -> None:
    _, outputs = BUCKET.create(bucket_of(direct), direct.context)
    direct.put()
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(fault, when=lambda request: request.method == "GET" and subresource in request.query)
        inputs = bucket_of(direct, endpoint=double.url)
        known = {**outputs, **inputs}
        look: Callable[[], object] = lambda: BUCKET.read(direct.name, inputs, known, direct.context)  # noqa: E731
        if subresource in ("versions", "uploads"):
            look = lambda: BUCKET.delete(direct.name, known, direct.context)  # noqa: E731
        with pytest.raises(ApiError):
            look()
    assert direct.keys_in() == ["local_content/a"]


@of_each
def test_nothing_is_known_of_a_user_and_its_keys_by_it(direct: Direct, fault: proxy.Fault) -> None:
    shared = {"userName": direct.name, "connection": direct.connection()}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListAllMyBuckets")]})
    wanted: list[tuple[Any, Values]] = [
        (USER, checked(USER, {**shared, "path": PATH})),
        (POLICY, checked(POLICY, {**shared, "policyName": POLICY_NAME, "policy": document})),
        (RING, checked(RING, {**shared, "active": "a", "slots": ["a"]})),
    ]
    made = [(resource, inputs, *resource.create(inputs, direct.context)) for resource, inputs in wanted]
    keys = direct.key_ids()
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(fault)
        there = {"connection": direct.connection(iamEndpoint=double.url)}
        for resource, inputs, resource_id, outputs in made:
            steps: tuple[Callable[..., object], ...] = (
                lambda one, name, wish, known: one.read(name, wish, known, direct.context),
                lambda one, _, wish, __: one.create(wish, direct.context),
                lambda one, name, wish, known: one.update(name, known, wish, direct.context),
                lambda one, name, _, known: one.delete(name, {**known, "retireConfirmed": True}, direct.context),
            )
            for step in steps:
                with pytest.raises(StoreError):
                    step(resource, resource_id, {**inputs, **there}, {**outputs, **there})
        changing = {"CreateAccessKey", "DeleteAccessKey", "PutUserPolicy", "DeleteUser"}
        assert not changing & {exchange.action for exchange in double.exchanges}
    assert direct.key_ids() == keys


@of_each
def test_nothing_is_proved_by_it(direct: Direct, fault: proxy.Fault) -> None:
    expected = expectations(METHODS["synapse-s3-storage-provider"], "least")
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(fault)
        lines = prove(direct.parsed(endpoint=double.url), Credential("AKIA", "secret"), direct.name, "", expected)
    assert not [line for line in lines if line.expected == line.outcome and line.operation not in ("put", "delete")]
    assert any(line.failed for line in lines)


@pytest.mark.parametrize("name", ["traefik", "kubernetes", "kong", "bare 404"])
def test_a_missing_object_is_missing_by_the_stores_own_word(direct: Direct, name: str) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    key = direct.user_with_key(allow("s3:*"))
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.NO_STORE[name], when=lambda request: request.key.endswith("-absent"))
        expected = {Operation.MISSING_KEY: expectations(METHODS["goofys"], "least")[Operation.MISSING_KEY]}
        [line] = prove(direct.parsed(endpoint=double.url), key, direct.name, "", expected)
    assert line.failed


def test_a_refusal_of_somebody_in_between_is_not_the_stores(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    key = direct.user_with_key(allow("s3:*"))
    expected = expectations(METHODS["synapse-s3-storage-provider"], "least")
    refused = {Operation.PUT_BUCKET_POLICY: expected[Operation.PUT_BUCKET_POLICY]}
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.in_between(403, "text/plain", "Forbidden"))
        [line] = prove(direct.parsed(endpoint=double.url), key, direct.name, "", refused, policy="")
    assert line.outcome == "failed (403)"


@pytest.mark.parametrize("name", ["traefik", "kong", "bare 404", "empty 200", "ok"])
def test_a_spaces_key_is_gone_by_the_apis_own_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "a-token")
    with proxy.in_front_of("http://127.0.0.1:9") as double:
        api = SpacesApi(Connection(api_endpoint=double.url))
        double.misbehave(proxy.NO_STORE[name], times=1)
        with pytest.raises(ApiError):
            api.deleted("DO00KEY")
        double.misbehave(
            proxy.in_between(404, "application/json", '{"id": "not_found", "message": "gone"}'),
            when=lambda request: request.method == "DELETE",
        )
        double.misbehave(proxy.in_between(200, "application/json", '{"keys": [], "meta": {"total": 0}}'))
        api.deleted("DO00KEY")


@pytest.mark.parametrize(("code", "outcome"), [("MalformedXML", "not tested"), ("MalformedPolicy", "allowed")])
def test_a_store_that_reads_a_policy_as_xml_has_none(direct: Direct, code: str, outcome: str) -> None:
    """Its key is limited as it is: of policies of buckets nothing can be said."""
    direct.s3.create_bucket(Bucket=direct.name)
    key = direct.user_with_key(allow("s3:*"))
    expected = expectations(METHODS["synapse-s3-storage-provider"], "least")
    refused = {Operation.PUT_BUCKET_POLICY: expected[Operation.PUT_BUCKET_POLICY]}
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(lambda request, _: proxy.error(request, 400, code, "no"), when=lambda one: one.method == "PUT")
        [line] = prove(direct.parsed(endpoint=double.url), key, direct.name, "", refused, policy="")
    assert line.outcome == outcome


FOREIGN = {
    "bare": ("", ""),
    "plain": ("text/plain", "404 page not found"),
    "json": ("application/json", '{"message": "no Route matched with those values"}'),
    "other xml": ("application/xml", "<Fault><Code>NoSuchBucket</Code></Fault>"),
    "other xml with an error": ("application/xml", "<Fault><Error><Code>NoSuchEntity</Code></Error></Fault>"),
    "cut off": ("application/xml", "<ErrorResponse><Error><Code>NoSuchEntity</Code>"),
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 502])
@pytest.mark.parametrize("body", FOREIGN)
def test_an_error_without_the_stores_document_is_told_with_its_status_and_the_next_step(
    direct: Direct, body: str, status: int
) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.in_between(status, *FOREIGN[body]))
        there = direct.parsed(endpoint=double.url, iamEndpoint=double.url)
        for client, operation, arguments in (
            (connections.s3_client(there, attempts=1), "list_objects_v2", {"Bucket": "b"}),
            (connections.iam_client(there, attempts=1), "get_user", {"UserName": "u"}),
        ):
            with pytest.raises(ApiError) as caught:
                connections.call(client, operation, **arguments)
            error = caught.value
            assert (error.code, error.status) == (str(status), status)
            assert not error.denied
            assert not error.absent
            assert f"{status} {HTTPStatus(status).phrase} (HTTP {status})" in str(error)
            assert str(error).lower().endswith("check the endpoint and any proxy in front of it")


@pytest.mark.parametrize("form", ["<Error>{}</Error>", "<ErrorResponse><Error>{}</Error></ErrorResponse>"])
def test_the_stores_own_refusal_is_taken_in_either_form(direct: Direct, form: str) -> None:
    text = form.format("<Code>AccessDenied</Code><Message>not for you</Message>")
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.in_between(403, "application/xml", text))
        there = direct.parsed(endpoint=double.url, iamEndpoint=double.url)
        for client, operation in (
            (connections.s3_client(there), "list_buckets"),
            (connections.iam_client(there), "list_users"),
        ):
            with pytest.raises(ApiError, match="AccessDenied not for you") as caught:
                connections.call(client, operation)
            assert caught.value.denied


@pytest.mark.parametrize("text", ["", '{"ok": true}', "<html/>", "<!doctype html><p>", "<ListBucketResult><a></b>"])
def test_a_success_that_is_no_answer_is_told_as_what_it_was(direct: Direct, text: str) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.in_between(200, "application/xml", text))
        client = connections.s3_client(direct.parsed(endpoint=double.url))
        with pytest.raises(ApiError) as caught:
            connections.call(client, "list_objects_v2", Bucket="b")
        assert len(double.exchanges) == 1
        assert "500" not in str(caught.value)
        assert "HTTP 200, and the body is " in str(caught.value)
        if text and not text.startswith("<"):
            with pytest.raises(ApiError, match="HTTP 200, and the body is no XML"):
                connections.call(client, "put_object", Bucket="b", Key="k", Body=b"x")


@pytest.mark.parametrize("name", ["traefik", "kong", "bare 404"])
def test_a_gateway_that_does_not_answer_has_accepted_no_key(direct: Direct, name: str) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        s3 = connections.s3_client(direct.parsed(endpoint=double.url))
        for fault in (proxy.NO_STORE[name], proxy.in_between(403)):
            double.behave()
            double.misbehave(fault)
            with pytest.raises(ApiError):
                storj._wait_until_known(s3, "b", lambda _: None)


def test_a_key_of_which_nobody_knows_the_buckets_is_no_other_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garage's own refusal says that the token may not look; one of a proxy says nothing."""
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", "a-token-of-the-double")
    with proxy.in_front_of("http://127.0.0.1:9") as double:
        double.misbehave(proxy.in_between(403))
        api = garage.admin(Connection(admin_endpoint=double.url, variables=("GARAGE_ADMIN_TOKEN",)))
        with pytest.raises(ApiError, match="check its address and any proxy in front of it") as caught:
            api.call("GET", "/v2/GetKeyInfo", query={"id": "GK1"})
    assert not caught.value.denied
