"""The clients of a store: one for all credentials of an endpoint, each call signed with the caller's own."""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.utils import parse_timestamp

from synapse_media.engine import embedded
from synapse_media.errors import StoreError
from synapse_media.methods import Expected, Operation
from synapse_media.plugin.s3_bucket import Bucket
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.store import clients, probes
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Credential, call, call_if_any, s3_client
from synapse_media.store.http import trusting
from synapse_media.store.probes import prove
from tests.doubles.proxy import Answer, Request, Upstream, in_front_of
from tests.plugin.direct import OWNER, Direct


def _others(count: int) -> list[Credential]:
    return [Credential(f"AKIAOTHER{number:03}", f"{number:03}" + "s" * 37) for number in range(count)]


def test_the_clients_of_an_endpoint_are_one_and_each_signs_with_its_own_key(direct: Direct) -> None:
    with in_front_of(direct.endpoint) as proxy:
        there = model.read(Connection, direct.connection(endpoint=proxy.url))
        admin, others = s3_client(there), [s3_client(there, one) for one in _others(8)]

        def asked(client: Any) -> str:
            try:
                call(client, "list_buckets")
            except ApiError as error:
                return error.code
            return "allowed"

        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(asked, [client for _ in range(4) for client in (admin, *others)]))
        ids = sorted(exchange.access_key_id for exchange in proxy.exchanges)
    assert {id(client.shared) for client in (admin, *others)} == {id(admin.shared)}
    assert said == ["allowed", *["InvalidAccessKeyId"] * 8] * 4
    assert ids == sorted([direct.running.access_key_id, *(one.access_key_id for one in _others(8))] * 4)


def test_a_call_says_who_calls_and_nothing_that_is_put_together_for_it(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "botocore.useragent.UserAgentString._build_sdk_metadata", lambda _: pytest.fail("put together anew")
    )
    agents: list[str] = []

    def noted(request: Request, upstream: Upstream) -> Answer | None:
        agents.append(request.header("user-agent"))
        return upstream.ask(request)

    with in_front_of(direct.endpoint) as proxy:
        proxy.misbehave(noted)
        call(s3_client(model.read(Connection, direct.connection(endpoint=proxy.url))), "list_buckets")
    assert agents == [f"synapse-media Botocore/{botocore.__version__}"]


def test_nothing_is_sent_without_a_credential(direct: Direct) -> None:
    with in_front_of(direct.endpoint) as proxy:
        there = model.read(Connection, direct.connection(endpoint=proxy.url))
        shared: Any = clients._shared("s3", there, 1)
        with pytest.raises(StoreError, match="nothing was sent"):
            shared.list_buckets()
        assert proxy.exchanges == []


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T23:59:59.000Z",
        "2026-01-31T23:59:59Z",
        "2026-01-31T23:59:59.123456789Z",
        "2026-01-31T23:59:59+02:00",
        "Sat, 31 Jan 2026 23:59:59 GMT",
        "1769903999",
        "20260131",
    ],
)
def test_times_are_read_as_botocore_reads_them(text: str) -> None:
    assert clients._timestamp(text).timestamp() == parse_timestamp(text).timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-31T25:00:00Z", "xxxxxxxxxxTxZ"])
def test_what_is_no_time_is_refused_as_by_botocore(text: str) -> None:
    with pytest.raises(ValueError, match=r"[Tt]imestamp"):
        clients._timestamp(text)


def test_the_times_of_a_listing_are_read_in_the_short_way(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a thousand of them on a page, and botocore's way takes most of the time that a page takes."""
    import botocore.utils

    direct.s3.create_bucket(Bucket=direct.name)
    direct.put()
    monkeypatch.setattr(botocore.utils, "parse_timestamp", None)
    there = model.read(Connection, direct.connection())
    (found,) = call(s3_client(there), "list_objects_v2", Bucket=direct.name)["Contents"]
    assert found["LastModified"].timestamp() > 0
    # That of one object is a header.
    head = call(s3_client(there), "head_object", Bucket=direct.name, Key=found["Key"])
    assert head["LastModified"].timestamp() == int(found["LastModified"].timestamp())


def test_a_store_that_lacks_something_is_asked_for_it_once(direct: Direct) -> None:
    """Each of a hundred buckets would ask for what none of them can have."""
    with in_front_of(direct.endpoint) as proxy:
        s3 = s3_client(model.read(Connection, direct.connection(endpoint=proxy.url)))
        for name in (direct.name, f"{direct.name}-b"):
            direct.s3.create_bucket(Bucket=name)
            with pytest.raises(ApiError) as error:
                call_if_any(s3, "get_bucket_encryption", Bucket=name)
            assert error.value.lacking
        assert len(proxy.exchanges) == 1


def test_what_a_store_has_or_denies_is_asked_each_time(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    nobody = Credential("AKIANOBODY", "n" * 40)
    with in_front_of(direct.endpoint) as proxy:
        there = model.read(Connection, direct.connection(endpoint=proxy.url))
        for _ in range(2):
            call_if_any(s3_client(there), "get_bucket_versioning", Bucket=direct.name)
            with pytest.raises(ApiError, match="InvalidAccessKeyId"):
                call_if_any(s3_client(there, nobody), "get_bucket_encryption", Bucket=direct.name)
        assert len(proxy.exchanges) == 4


def test_the_credential_of_a_call_stays_where_its_answer_leads_elsewhere(direct: Direct) -> None:
    """A store that names another region is asked again, for that region, with the same key."""
    with in_front_of(direct.endpoint) as proxy:
        there = model.read(Connection, direct.connection(endpoint=proxy.url))
        elsewhere = (("x-amz-bucket-region", "eu-west-1"), ("Content-Type", "application/xml"))
        document = b"<Error><Code>PermanentRedirect</Code><Region>eu-west-1</Region></Error>"
        proxy.misbehave(lambda *_: Answer(301, elsewhere, document), times=1)
        (other,) = _others(1)
        with pytest.raises(ApiError):
            call(s3_client(there, other), "list_objects_v2", Bucket=direct.name)
        assert {exchange.access_key_id for exchange in proxy.exchanges} == {other.access_key_id}


def test_two_large_objects_at_most_are_on_their_way_at_once(direct: Direct) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def counted(request: Request, upstream: Upstream) -> Answer | None:
        nonlocal now, most
        large = len(request.body) > 1024**2
        with lock:
            now += large
            most = max(most, now)
        try:
            return upstream.ask(request)
        finally:
            with lock:
                now -= large

    direct.s3.create_bucket(Bucket=direct.name)
    key = Credential(direct.running.access_key_id, direct.running.secret_access_key)
    with in_front_of(direct.endpoint) as proxy:
        there = model.read(Connection, direct.connection(endpoint=proxy.url))
        proxy.misbehave(counted)

        def proof(number: int) -> str:
            (line,) = prove(there, key, direct.name, f"{number}/", {Operation.MULTIPART: Expected.ALLOWED})
            return line.outcome

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(proof, range(6))) == ["allowed"] * 6
    assert 1 <= most <= 2
    assert probes._filler(1024) is probes._filler(1024)


def test_a_refresh_reads_each_setting_of_an_adopted_bucket_once(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put()
    with in_front_of(direct.endpoint) as proxy:
        inputs, failures = Bucket().check(
            {
                "bucket": direct.name,
                "connection": direct.connection(endpoint=proxy.url),
                "owner": OWNER,
                "adopt": True,
                "versioning": True,
                "noncurrentDays": 90,
                "abortDays": 7,
                "acl": "private",
                "encryption": True,
                "publicAccessBlock": True,
                "policy": "",
            }
        )
        assert not failures
        name, outputs = Bucket().create(inputs, direct.context)
        proxy.exchanges.clear()
        found = Bucket().read(name, inputs, outputs, direct.context)
        asked = [(one.method, one.target) for one in proxy.exchanges]
    assert found is not None
    assert found.outputs["differences"]
    assert len(asked) == len(set(asked))


def test_certificates_are_read_once_for_all_connections(own_directories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = embedded.start(tls=True, name="tls-once")
    loads: list[object] = []
    load = ssl.SSLContext.load_verify_locations

    def counted(context: ssl.SSLContext, *arguments: Any) -> None:
        loads.append(arguments[0])
        load(context, *arguments)

    trusting(str(running.ca_file))  # by this it is checked, once in a process
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
    key = Credential(running.access_key_id, running.secret_access_key)
    try:
        client = s3_client(
            Connection(endpoint=running.endpoint, region="us-east-1", ca_file=str(running.ca_file)), key, 1
        )
        for _ in range(3):
            call(client, "list_buckets")
        assert loads == [str(running.ca_file)]
        # Another client does not trust what this one does.
        with pytest.raises(ApiError, match="certificate"):
            call(s3_client(Connection(endpoint=running.endpoint, region="us-east-1"), key, 1), "list_buckets")
    finally:
        embedded.wipe(name="tls-once")
