"""`-v`: every API call is shown, with time, status and request id; no secret is, and nothing is without it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from synapse_media.plugin import backblaze_b2
from synapse_media.plugin.iam import KeyRing, User
from synapse_media.plugin.s3_bucket import Bucket
from synapse_media.schema.connection import Connection
from synapse_media.store import tracing
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import iam_client, s3_client
from synapse_media.store.http import JsonClient
from tests.doubles.b2_simulator import b2_double
from tests.doubles.proxy import error, in_front_of, internal_error
from tests.plugin.direct import OWNER, Direct

LINE = re.compile(r"api: (\w+) (\w+) (\S+): (\w+) in \d+ ms(?:, request (\S+))?")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    lines: list[str] = []
    monkeypatch.setenv(tracing.VARIABLE, "1")
    monkeypatch.setattr(tracing, "tell", lines.append)
    yield lines
    assert all(line.startswith(tracing.MARK) for line in lines)


def test_each_call_is_shown_and_no_secret(direct: Direct, calls: list[str]) -> None:
    direct.make(Bucket(), {"bucket": direct.name, "connection": direct.connection(), "owner": OWNER})
    direct.make(User(), {"userName": direct.name, "path": "/t/", "connection": direct.connection()})
    ring = {"userName": direct.name, "active": "a", "slots": ["a"], "connection": direct.connection()}
    _, outputs = direct.make(KeyRing(), ring)
    found = [LINE.fullmatch(line) for line in calls]
    assert all(found), calls
    operations = {match[1]: match for match in found if match}
    head = operations["ListObjectsV2"]
    assert (head[2], head[3], head[4]) == ("GET", f"{direct.endpoint.removeprefix('http://')}/{direct.name}", "404")
    assert head[5]
    assert operations["CreateAccessKey"][4] == "200"
    said = "\n".join(calls)
    for secret in (outputs["secretAccessKey"], direct.running.secret_access_key):
        assert secret not in said


def test_each_try_is_shown(direct: Direct, calls: list[str]) -> None:
    with in_front_of(direct.endpoint) as proxy:
        proxy.misbehave(internal_error, times=1)
        client = s3_client(direct.parsed(endpoint=proxy.url))
        client.list_buckets()
    assert [line.split(": ")[2].split()[0] for line in calls] == ["500", "200"]


def test_a_call_without_an_answer_is_shown(direct: Direct, calls: list[str]) -> None:
    with in_front_of(direct.endpoint) as proxy:
        address = proxy.url
    client = iam_client(direct.parsed(endpoint=address, iamEndpoint=address), attempts=1)
    with pytest.raises(Exception, match="Could not connect"):
        client.list_users()
    assert "EndpointConnectionError in" in calls[-1]


def test_calls_of_json_apis_are_shown_too(direct: Direct, calls: list[str]) -> None:
    with in_front_of(direct.endpoint) as proxy:
        proxy.misbehave(lambda request, _: error(request, 403, "No", "no"))
        client = JsonClient(proxy.url, "the API", {"Authorization": "Bearer not-to-be-shown"}, "endpoint")
        with pytest.raises(ApiError):
            client.call("GET", "/v2/keys", query={"cursor": "not-to-be-shown"})
    assert len(calls) == 1
    assert re.fullmatch(r"api: GET /v2/keys at the API \(127.0.0.1:\d+\): 403 in \d+ ms", calls[0])
    assert "not-to-be-shown" not in calls[0]


def test_calls_of_b2_are_shown_too(direct: Direct, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told = b'{"status": 403, "code": "access_denied", "message": "no"}'
    with b2_double(direct.running) as double:
        monkeypatch.setenv("B2_APPLICATION_KEY_ID", double.key_id)
        monkeypatch.setenv("B2_APPLICATION_KEY", double.key)
        variables = ("B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY")
        api = backblaze_b2.account(Connection(realm=double.API_URL, variables=variables))
        double.fault = lambda _: (403, "application/json", told)
        with (
            pytest.raises(ApiError, match=r"AccessDenied: .*\(HTTP 403\)") as caught,
            backblaze_b2.in_words("b2_list_buckets", double.API_URL),
        ):
            api.list_buckets()
        address = double.API_URL.removeprefix("http://")
    assert caught.value.status == 403
    found = [match for match in map(LINE.fullmatch, calls) if match]
    assert [(match[1], match[2], match[4]) for match in found] == [
        ("b2_authorize_account", "POST", "200"),
        ("b2_list_buckets", "POST", "403"),
    ]
    assert all(match[3].startswith(f"{address}/b2api/") for match in found)
    assert double.key not in "\n".join(calls)


def test_nothing_is_shown_unasked(direct: Direct, capfd: pytest.CaptureFixture[str]) -> None:
    s3_client(direct.parsed()).list_buckets()
    assert capfd.readouterr().err == ""


def test_on_a_terminal_the_lines_go_to_standard_error(
    direct: Direct, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(tracing.VARIABLE, "1")
    s3_client(direct.parsed()).list_buckets()
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("api: ListBuckets GET ")
