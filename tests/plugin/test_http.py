"""The JSON client, against a server with the faults that a test sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin import garage
from synapse_media.schema.connection import Connection
from synapse_media.store import bounded
from synapse_media.store.answers import ApiError
from synapse_media.store.bounded import LIMIT
from synapse_media.store.http import NO_CONTENT, JsonClient

TOKEN = "token-that-no-error-may-hold"
Answer = Callable[[BaseHTTPRequestHandler], None]


class MisbehavingServer(ThreadingHTTPServer):
    """A double of an API: answers the calls one after the other as `answers` says, the last one for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []
        self.calls: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: MisbehavingServer

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.calls.append((self.command, self.path, self.headers.get("Authorization")))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names http.server looks for

    def log_message(self, *_: object) -> None:
        """Quiet."""


def says(status: int, body: str = "", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        raw = body.encode()
        handler.send_response(status)
        for name, value in {"Content_Type": "application/json", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(201)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"key": {"secret_key": "secret-that-no-error-may-hold')


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    for _ in range(20):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.1)


@pytest.fixture
def api() -> Iterator[MisbehavingServer]:
    server = MisbehavingServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def client(api: MisbehavingServer, pauses: list[float] | None = None, seconds: float = 5) -> JsonClient:
    waited = [] if pauses is None else pauses
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return JsonClient(api.url, "the API", headers, "endpoint", seconds=seconds, pause=waited.append)


def test_an_answer_is_parsed_and_an_empty_one_is_not_null(api: MisbehavingServer) -> None:
    api.answers = [says(200, '{"keys": []}'), says(204), says(200, "null")]
    assert client(api).call("GET", "/v2/keys", query={"page": 2}) == {"keys": []}
    assert client(api).call("DELETE", "/v2/keys/x") is NO_CONTENT
    assert client(api).call("DELETE", "/v2/keys/x") is None
    assert api.calls[0] == ("GET", "/v2/keys?page=2", f"Bearer {TOKEN}")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_can_t_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StoreError, match=r"ca_file: '.*ca\.pem' can't be used.*Give the path of a PEM file"):
        JsonClient("https://127.0.0.1:9", "an API", {}, "endpoint", ca_file=str(file)).call("GET", "/")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_burst_is_waited_out_for_a_repeatable_call(api: MisbehavingServer, status: int) -> None:
    api.answers = [says(status), says(status, Retry_After="7"), says(200, "{}")]
    pauses: list[float] = []
    assert client(api, pauses).call("GET", "/") == {}
    assert len(pauses) == 2
    assert pauses[0] <= 1
    assert pauses[1] == 7


def test_a_burst_that_does_not_end_is_given_up(api: MisbehavingServer) -> None:
    api.answers = [says(503, '{"id": "overloaded", "message": "later", "request_id": "r-1"}', Retry_After="9999")]
    pauses: list[float] = []
    with pytest.raises(
        ApiError, match=r"overloaded: later \(HTTP 503, request r-1\), asked 5 times in \d+ s"
    ) as caught:
        client(api, pauses).call("GET", "/")
    assert caught.value.status == 503
    assert max(pauses) <= 20


@pytest.mark.parametrize("answer", [says(429), says(503), cut_short])
def test_a_post_is_never_repeated(api: MisbehavingServer, answer: Answer) -> None:
    api.answers = [answer, says(201, "{}")]
    with pytest.raises(ApiError):
        client(api).call("POST", "/v2/keys", {"name": "x"})
    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ('{"message": "API rate limit exceeded"}', 1),  # a gateway's
        ('{"id": "too_many_requests", "message": "later"}', 2),  # the API's own
    ],
)
def test_a_post_is_repeated_where_the_api_itself_put_it_off(api: MisbehavingServer, body: str, calls: int) -> None:
    api.answers = [says(429, body), says(201, "{}")]
    with suppress(ApiError):
        client(api).call("POST", "/v2/keys", {"name": "x"})
    assert len(api.calls) == calls


def test_an_answer_cut_short_says_so_and_shows_nothing_of_it(api: MisbehavingServer) -> None:
    api.answers = [cut_short]
    with pytest.raises(ApiError, match="the answer broke off") as caught:
        client(api).call("POST", "/v2/keys", {})
    assert "secret" not in str(caught.value)


def test_a_page_of_a_portal_is_no_answer(api: MisbehavingServer) -> None:
    api.answers = [says(200, "<html>Sign in</html>", Content_Type="text/html")]
    with pytest.raises(ApiError, match=r"not JSON \(text/html, 20 bytes\)"):
        client(api).call("GET", "/")


def test_an_error_page_keeps_its_status(api: MisbehavingServer) -> None:
    api.answers = [says(403, "<html>no</html>", Content_Type="text/html", x_request_id="r-2")]
    with pytest.raises(ApiError, match=r"403: Forbidden \(HTTP 403, request r-2\)") as caught:
        client(api).call("GET", "/")
    assert caught.value.status == 403
    # Nobody knows whose page it is.
    assert not caught.value.denied
    assert "It came without the error of that API: check its address and any proxy" in str(caught.value)


def test_what_a_server_writes_is_no_command_for_a_terminal(api: MisbehavingServer) -> None:
    api.answers = [says(401, '{"code": "bad\\u001b[2J", "message": "\\ud800 \\u001b[2J\\u202e\\u009bx"}')]
    with pytest.raises(ApiError) as caught:
        client(api).call("GET", "/")
    told = f"{caught.value} {caught.value.code}"
    assert told.isprintable()
    assert r"\ud800 \x1b[2J\u202e\x9bx (HTTP 401)" in told


@pytest.mark.parametrize("status", [200, 404])
def test_a_chunk_of_negative_length_is_no_answer(api: MisbehavingServer, status: int) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(status)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"-5\r\nabc\r\n0\r\n\r\n")
        handler.close_connection = True

    api.answers = [answer] * 5
    with pytest.raises(ApiError):
        client(api).call("GET", "/")
    api.answers = [answer] * 5
    with pytest.raises(ApiError, match=r"Garage's S3 API|is not HTTP"):
        garage.check_region(Connection(endpoint=api.url, region="garage"))


def test_a_redirect_is_not_followed(api: MisbehavingServer) -> None:
    api.answers = [says(302, Location="http://127.0.0.1:9/stolen")]
    with pytest.raises(ApiError, match=r"redirects to 127\.0\.0\.1:9, which is not followed"):
        client(api).call("GET", "/")
    assert len(api.calls) == 1


def test_an_endless_answer_is_not_read_to_its_end(api: MisbehavingServer) -> None:
    api.answers = [says(200, " " * (LIMIT + 1))]
    with pytest.raises(ApiError, match="longer than 8 MiB"):
        client(api).call("GET", "/")


def test_an_answer_that_drips_runs_out_of_time(api: MisbehavingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    api.answers = [drips]
    with pytest.raises(ApiError, match="did not end within its time"):
        client(api).call("POST", "/", {})


def test_nobody_there_is_said(api: MisbehavingServer) -> None:
    api.answers = [says(200)]
    elsewhere = JsonClient("http://127.0.0.1:9", "the API", {}, "endpoint", pause=lambda _: None)
    with pytest.raises(ApiError, match=r"no connection: .*asked 5 times in \d+ s") as caught:
        elsewhere.call("GET", "/")
    assert caught.value.code == "NoConnection"


def test_the_credential_is_in_no_repr(api: MisbehavingServer) -> None:
    assert TOKEN not in repr(client(api))
