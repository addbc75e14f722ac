"""The double in front of the real store: it forwards requests, and injects the faults that a test sets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError, ReadTimeoutError

from synapse_media.contract import StorageOutputs
from synapse_media.methods import Operation
from tests.doubles import proxy
from tests.end_to_end.aws_double import answering_403_for_missing_keys
from tests.end_to_end.by_hand import Admin, s3


@pytest.fixture(scope="module")
def store(admin: Admin) -> StorageOutputs:
    return admin.provision(method="matrix-media-repo")


@pytest.fixture
def double(store: StorageOutputs) -> Iterator[proxy.Proxy]:
    with proxy.in_front_of(store.endpoint_url) as running:
        yield running


@pytest.fixture
def client(store: StorageOutputs, double: proxy.Proxy) -> Any:
    return s3(replace(store, endpoint_url=double.url))


def code(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_signed_requests_pass_unchanged(store: StorageOutputs, double: proxy.Proxy, client: Any) -> None:
    body = bytes(range(256)) * 40_000
    client.put_object(Bucket=store.bucket, Key="a b/ü+%", Body=body)
    assert client.get_object(Bucket=store.bucket, Key="a b/ü+%")["Body"].read() == body
    assert client.head_object(Bucket=store.bucket, Key="a b/ü+%")["ContentLength"] == len(body)
    assert [item["Key"] for item in client.list_objects_v2(Bucket=store.bucket)["Contents"]] == ["a b/ü+%"]
    client.delete_object(Bucket=store.bucket, Key="a b/ü+%")
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket=store.bucket, Key="a b/ü+%")
    assert code(caught) == (404, "NoSuchKey")
    seen = [(one.method, one.status, one.access_key_id, one.faulty) for one in double.exchanges]
    methods = ["PUT", "GET", "HEAD", "GET", "DELETE", "GET"]
    statuses = [200, 200, 200, 200, 204, 404]
    assert seen == [(*each, store.access_key_id, False) for each in zip(methods, statuses, strict=True)]


def test_iam_requests_pass_and_are_told_by_action(admin: Admin) -> None:
    with proxy.in_front_of(admin.iam_endpoint_url) as double:
        iam = replace(admin, iam_endpoint_url=double.url).client("iam")
        lost = double.misbehave(proxy.lost_answer, when=lambda request: request.action == "CreateUser", times=1)
        with pytest.raises(HTTPClientError):
            iam.create_user(UserName="answer-lost")
        assert iam.get_user(UserName="answer-lost")["User"]["UserName"] == "answer-lost"
        double.misbehave(proxy.slow_down)
        with pytest.raises(ClientError) as caught:
            iam.delete_user(UserName="answer-lost")
        assert code(caught) == (400, "Throttling")
        double.behave()
        iam.delete_user(UserName="answer-lost")
    assert lost.hits == 1
    assert [one.action for one in double.exchanges] == ["CreateUser", "GetUser", "DeleteUser", "DeleteUser"]
    assert [one.faulty for one in double.exchanges] == [True, False, True, False]


def test_the_first_calls_fail(store: StorageOutputs, double: proxy.Proxy, client: Any) -> None:
    slow = double.misbehave(proxy.slow_down, times=2)
    double.misbehave(proxy.internal_error, times=1)
    codes = []
    for _ in range(3):
        with pytest.raises(ClientError) as caught:
            client.list_objects_v2(Bucket=store.bucket)
        codes.append(code(caught))
    assert codes == [(503, "SlowDown"), (503, "SlowDown"), (500, "InternalError")]
    client.list_objects_v2(Bucket=store.bucket)
    assert slow.hits == 2
    assert [one.faulty for one in double.exchanges] == [True, True, True, False]


def test_latency(store: StorageOutputs, double: proxy.Proxy, client: Any) -> None:
    double.misbehave(proxy.latency(0.5))
    began = time.monotonic()
    client.list_objects_v2(Bucket=store.bucket)
    assert time.monotonic() - began >= 0.5


def test_truncated(store: StorageOutputs, double: proxy.Proxy, client: Any) -> None:
    client.put_object(Bucket=store.bucket, Key="cut", Body=b"x" * 1000)
    double.misbehave(proxy.truncated)
    with pytest.raises(HTTPClientError):
        client.get_object(Bucket=store.bucket, Key="cut")["Body"].read()


def test_black_hole_holds_until_the_client_or_the_double_gives_up(store: StorageOutputs) -> None:
    with proxy.in_front_of(store.endpoint_url) as double:
        double.misbehave(proxy.black_hole)
        client = s3(replace(store, endpoint_url=double.url), read_timeout=0.3)
        with pytest.raises(ReadTimeoutError):
            client.list_objects_v2(Bucket=store.bucket)


def test_html(store: StorageOutputs, double: proxy.Proxy, client: Any) -> None:
    """boto3 takes a well-formed page for the listing of an empty bucket, but for what a real one always has."""
    assert "Name" in client.list_objects_v2(Bucket=store.bucket)
    double.misbehave(proxy.html())
    assert set(client.list_objects_v2(Bucket=store.bucket)) == {"ResponseMetadata"}
    double.behave()
    double.misbehave(proxy.html(502))
    with pytest.raises(ClientError) as caught:
        client.list_objects_v2(Bucket=store.bucket)
    assert code(caught) == (502, "502")


def test_server_down(store: StorageOutputs) -> None:
    with proxy.in_front_of("http://127.0.0.1:1") as double, pytest.raises(HTTPClientError):
        s3(replace(store, endpoint_url=double.url)).list_objects_v2(Bucket=store.bucket)
    assert [one.status for one in double.exchanges] == [None]


def test_missing_keys_of_a_key_without_list_bucket(admin: Admin) -> None:
    without = admin.provision(without=[Operation.LIST, Operation.MISSING_KEY])
    with answering_403_for_missing_keys(admin.endpoint_url, {without.access_key_id}) as endpoint_url:
        client = s3(replace(without, endpoint_url=endpoint_url))
        for call, expected in ((client.get_object, (403, "AccessDenied")), (client.head_object, (403, "403"))):
            with pytest.raises(ClientError) as caught:
                call(Bucket=without.bucket, Key="missing")
            assert code(caught) == expected
        client.put_object(Bucket=without.bucket, Key="there", Body=b"content")
        assert client.get_object(Bucket=without.bucket, Key="there")["Body"].read() == b"content"
        root = s3(replace(admin, endpoint_url=endpoint_url))
        with pytest.raises(ClientError) as caught:
            root.get_object(Bucket=without.bucket, Key="missing")
        assert code(caught) == (404, "NoSuchKey")
        with pytest.raises(ClientError) as caught:
            root.get_bucket_policy(Bucket=without.bucket)
        assert code(caught) == (404, "NoSuchBucketPolicy")
