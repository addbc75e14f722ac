"""A double for the network between a client and its store: an HTTP proxy that forwards requests, or injects faults.

Requests go to the real server unchanged, the Host header too, so that signatures hold; answers come back as they are.
A fault is a function from a request, and the way to ask the real server, to an answer, or to None: hang up.
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the client sent it; the body of a chunked one is put together."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def bucket(self) -> str:
        """Path-style addressing; "" for a request to the service."""
        return self.path.lstrip("/").partition("/")[0]

    @property
    def key(self) -> str:
        """ "" for a request to the bucket or the service."""
        return self.path.lstrip("/").partition("/")[2]

    @property
    def action(self) -> str:
        """The `Action` of the IAM query API; "" for S3."""
        if not self.header("content-type").startswith("application/x-www-form-urlencoded"):
            return ""
        return parse_qs(self.body.decode()).get("Action", [""])[0]

    @property
    def access_key_id(self) -> str:
        """Who signed it; "" for an anonymous or presigned request."""
        return self.header("authorization").partition("Credential=")[2].partition("/")[0]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets: Content-Length is that of the body, unless `headers` hold it, as for HEAD.

    Attributes:
        cut: the connection is closed after so many bytes of the body.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that came, and how it ended: the status, or None where the proxy hung up."""

    method: str
    target: str
    action: str
    access_key_id: str
    status: int | None
    faulty: bool


class Upstream:
    """The real server, and whether the proxy is being closed."""

    def __init__(self, endpoint_url: str) -> None:
        parts = urlsplit(endpoint_url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{endpoint_url}: the double speaks plain http")
        self._address = (parts.hostname, parts.port or 80)
        self.closing = threading.Event()

    def ask(self, request: Request) -> Answer | None:
        """Pass a request on unchanged; None where the server is down."""
        connection = http.client.HTTPConnection(*self._address, timeout=120)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            if request.body or request.header("content-length"):
                connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body)
            response = connection.getresponse()
            body = response.read()
            headers = tuple(
                (name, value)
                for name, value in response.getheaders()
                if name.lower() not in _HOP_BY_HOP or (name.lower() == "content-length" and request.method == "HEAD")
            )
            return Answer(response.status, headers, body)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


Fault = Callable[[Request, Upstream], Answer | None]


@dataclass(slots=True)
class Rule:
    """A fault, the requests that it is for, how often (None: always), and how often it was."""

    fault: Fault
    when: Callable[[Request], bool]
    times: int | None
    hits: int = 0


class Proxy:
    """A running double. Requests are counted in `exchanges`, in the order in which they ended.

    Attributes:
        closes_kept: a connection that was kept alive is closed once another request comes over it, as a server does
            whose time for idle ones has just run out.
    """

    def __init__(self, url: str, upstream: Upstream) -> None:
        self.url = url
        self.exchanges: list[Exchange] = []
        self.closes_kept = False
        self._upstream = upstream
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def misbehave(
        self, fault: Fault, *, when: Callable[[Request], bool] = lambda _: True, times: int | None = None
    ) -> Rule:
        """Meet matching requests with `fault`, the first `times` of them. Earlier rules come first."""
        rule = Rule(fault, when, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def behave(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()

    def answer(self, request: Request) -> Answer | None:
        with self._lock:
            rule = next(
                (one for one in self._rules if (one.times is None or one.hits < one.times) and one.when(request)), None
            )
            if rule is not None:
                rule.hits += 1
        answer = self._upstream.ask(request) if rule is None else rule.fault(request, self._upstream)
        status = None if answer is None else answer.status
        exchange = Exchange(
            request.method, request.target, request.action, request.access_key_id, status, rule is not None
        )
        with self._lock:
            self.exchanges.append(exchange)
        return answer


@contextmanager
def in_front_of(endpoint_url: str) -> Iterator[Proxy]:
    """A proxy on a free loopback port; on leaving, whoever still waits is hung up on."""
    upstream = Upstream(endpoint_url)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.proxy = proxy = Proxy(f"http://127.0.0.1:{server.server_port}", upstream)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            upstream.closing.set()
            server.shutdown()
            thread.join()
            server.hang_up()
    if server.errors:
        raise server.errors[0]


def latency(seconds: float) -> Fault:
    """Pass on after a while."""

    def fault(request: Request, upstream: Upstream) -> Answer | None:
        upstream.closing.wait(seconds)
        return upstream.ask(request)

    return fault


def slow_down(request: Request, _: Upstream) -> Answer:
    """Throttled: nothing was done."""
    if request.action:
        return error(request, 400, "Throttling", "Rate exceeded")
    return error(request, 503, "SlowDown", "Please reduce your request rate.")


def at_most(per_second: float) -> Fault:
    """A store with a limit: a request that comes sooner than its share after the last one taken is throttled.

    S3 says 503 SlowDown, IAM a 429 with a document of its own. The same fault in front of both is one limit.
    """
    lock = threading.Lock()
    taken = 0.0

    def fault(request: Request, upstream: Upstream) -> Answer | None:
        nonlocal taken
        with lock:
            now = time.monotonic()
            if now < taken + 1 / per_second:
                code, status = ("Throttling", 429) if request.action else ("SlowDown", 503)
                return error(request, status, code, "Please reduce your request rate.")
            taken = now
        return upstream.ask(request)

    return fault


def internal_error(request: Request, _: Upstream) -> Answer:
    """A 500: nothing was done."""
    code = "ServiceFailure" if request.action else "InternalError"
    return error(request, 500, code, "We encountered an internal error. Please try again.")


def lost_answer(request: Request, upstream: Upstream) -> None:
    """The server executes it, but the client gets no answer: the connection is closed instead."""
    upstream.ask(request)


def black_hole(_: Request, upstream: Upstream) -> None:
    """Accepted and never answered, until the proxy is closed."""
    upstream.closing.wait()


def truncated(request: Request, upstream: Upstream) -> Answer | None:
    """Half of the answer's body, then the connection is closed; an answer without one is lost as a whole."""
    answer = upstream.ask(request)
    if answer is None or not answer.body:
        return None
    return Answer(answer.status, answer.headers, answer.body, cut=len(answer.body) // 2)


def html(status: int = 200) -> Fault:
    """A page of an intermediary, such as a portal or a load balancer."""

    def fault(request: Request, _: Upstream) -> Answer:
        page = b"<html><head><title>Welcome</title></head><body>Please sign in.</body></html>"
        return Answer(status, (("Content-Type", "text/html"),), b"" if request.method == "HEAD" else page)

    return fault


def in_between(status: int, content_type: str = "", text: str = "") -> Fault:
    """An answer of a router or gateway before the store, which it never reached: no page, and no document of S3."""

    def fault(request: Request, _: Upstream) -> Answer:
        headers = (("Content-Type", content_type),) if content_type else ()
        return Answer(status, headers, b"" if request.method == "HEAD" else text.encode())

    return fault


TRAEFIK = in_between(404, "text/plain; charset=utf-8", "404 page not found\n")
KUBERNETES = in_between(404, "text/plain; charset=utf-8", "default backend - 404")
KONG = in_between(404, "application/json; charset=utf-8", '{"message":"no Route matched with those values"}')
BARE = in_between(404)
EMPTY = in_between(200)
NO_STORE: dict[str, Fault] = {
    "traefik": TRAEFIK,
    "kubernetes": KUBERNETES,
    "kong": KONG,
    "bare 404": BARE,
    "empty 200": EMPTY,
    "ok": in_between(200, "text/plain", "ok"),
    "json": in_between(200, "application/json", "{}"),
    "xhtml": in_between(200, "application/xml", '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"/>'),
}
"""What says nothing of a store, by name."""


def key_last_used(when: datetime | None) -> Fault:
    """The answer to GetAccessKeyLastUsed; None: IAM tells of no use."""

    def fault(_: Request, __: Upstream) -> Answer:
        date = f"<LastUsedDate>{when:%Y-%m-%dT%H:%M:%SZ}</LastUsedDate>" if when else ""
        inner = f"<AccessKeyLastUsed>{date}<ServiceName>s3</ServiceName></AccessKeyLastUsed>"
        result = f"<GetAccessKeyLastUsedResult>{inner}</GetAccessKeyLastUsedResult>"
        body = f"<GetAccessKeyLastUsedResponse>{result}</GetAccessKeyLastUsedResponse>"
        return Answer(200, (("Content-Type", "text/xml"),), body.encode())

    return fault


def denied_for_missing_keys(for_keys: Collection[str] | None = None) -> Fault:
    """GET and HEAD of a missing key answer 403, as Amazon S3 does to a key without s3:ListBucket.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, "Permissions".

    Args:
        for_keys: the access key ids that lack s3:ListBucket; None: all do.
    """

    def fault(request: Request, upstream: Upstream) -> Answer | None:
        answer = upstream.ask(request)
        lacks = for_keys is None or request.access_key_id in for_keys
        if answer is None or not lacks or answer.status != 404 or request.method not in {"GET", "HEAD"}:
            return answer
        if not request.key or (request.method == "GET" and b"<Code>NoSuchKey</Code>" not in answer.body):
            return answer
        return error(
            request,
            403,
            "AccessDenied",
            f"User: {request.access_key_id} is not authorized to perform: s3:ListBucket on resource: "
            f'"arn:aws:s3:::{request.bucket}" because no identity-based policy allows the s3:ListBucket action',
        )

    return fault


def error(request: Request, status: int, code: str, message: str) -> Answer:
    """An error in the form of the API that was asked, S3 or IAM; without a body for HEAD."""
    inner = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    if request.action:
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>double</RequestId></ErrorResponse>"
    else:
        text = f"<Error>{inner}<RequestId>double</RequestId></Error>"
    body = b"" if request.method == "HEAD" else text.encode()
    return Answer(status, (("Content-Type", "application/xml"),), body)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128
    proxy: Proxy

    def __init__(self, *args: object) -> None:
        self.errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        super().__init__(*args)  # type: ignore[arg-type]

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may go away at any time; anything else is a fault of this file and is raised at the end."""
        problem = sys.exception()
        if problem is not None and not isinstance(problem, ConnectionError):
            self.errors.append(problem)

    def hang_up(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client was faster
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body of an answer are two writes
    server: _Server
    served = False

    def handle_one_request(self) -> None:
        """As the parent, for every method there is."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if not self.parse_request():
            return
        if self.served and self.server.proxy.closes_kept:
            self.close_connection = True
            return
        self.served = True
        request = Request(self.command, self.path, tuple(self.headers.items()), self._body())
        self._send(self.server.proxy.answer(request))

    def log_message(self, *_: object) -> None:
        """The exchanges are the log."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._read(int(self.headers.get("Content-Length", 0)))
        chunks: list[bytes] = []
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            chunks.append(self._read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _read(self, size: int) -> bytes:
        content = self.rfile.read(size)
        if len(content) < size:
            raise ConnectionError("the client went away")
        return content

    def _send(self, answer: Answer | None) -> None:
        if answer is None:
            self.close_connection = True
            return
        lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, '')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if not any(name.lower() == "content-length" for name, _ in answer.headers) and answer.status != 204:
            lines.append(f"Content-Length: {len(answer.body)}")
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
        if answer.cut is not None:
            self.close_connection = True
