"""What a client takes from a server at most: no endless head or body, none that drips for ever, no XML entities.

botocore, requests and urllib bound each read from a socket, and none of them an answer: one that drips takes hours.
Their connections have an answer here whose head and body together end in time (`BoundedResponse`).
"""

from __future__ import annotations

import http.client
import io
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from . import pace, tracing

LIMIT: Final = 8 * 1024 * 1024
"""Bytes of a body; a full page of a listing is about one million."""
HEAD_LIMIT: Final = 256 * 1024
"""Bytes of status line and headers, those of any `100 Continue` or `103 Early Hints` before it included."""
SECONDS: Final = 60
"""For one answer, head and body, however it drips."""
OBJECT_SECONDS: Final = 600
"""For one answer that is an object's content."""
CALL_SECONDS: Final = 240
"""For one call with all its tries; it waits for `pace.SECONDS` of them at most."""
_DECLARATIONS: Final = (b"<!ENTITY", b"<!ATTLIST")
"""What makes much of a short document: a name stands for a text, or each element has attributes that are not there."""
PAGES: Final = 1_000
"""Of a listing in which next to nothing is expected: a million of the proof's own objects."""
PAGES_OF_MEDIA: Final = 1_000_000
"""Of a listing of media that are to be deleted."""
EMPTY_PAGES: Final = 1_000
"""Of a listing, one after the other: a store may look through so much, but does not go on so for ever."""


class TooMuchError(Exception):
    """An answer is beyond these bounds, or of HTTP. Its text follows "the answer"."""


_call = threading.local()


@contextmanager
def one_call() -> Iterator[None]:
    """Bound all tries of a call in sum. One within another has the time of the outer one."""
    if getattr(_call, "deadline", None) is not None:
        yield
        return
    _call.deadline, _call.patience = time.monotonic() + CALL_SECONDS, pace.Patience()
    try:
        yield
    finally:
        _call.deadline = _call.patience = None


def patience() -> pace.Patience:
    """What the call of this thread has waited; one of its own where there is none."""
    return getattr(_call, "patience", None) or pace.Patience()


def refuse_late() -> None:
    """Raise TooMuchError where the time of the call is over: nothing is sent any more."""
    _remaining(getattr(_call, "deadline", None) or float("inf"))


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TooMuchError("did not end within its time")
    return left


class _Bounded(io.RawIOBase):
    """What is read from a socket, until a deadline; a head of HEAD_LIMIT bytes at most."""

    def __init__(self, raw: Any, sock: Any) -> None:
        self._raw, self._sock = raw, sock
        self._patience: float = sock.gettimeout() or SECONDS
        self._started = time.monotonic()
        call = getattr(_call, "deadline", None) or float("inf")
        self._deadline = min(self._started + SECONDS, call)
        self._read = 0
        self.in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(min(self._patience, _remaining(self._deadline)))
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            _remaining(self._deadline)
            raise
        self._read += count or 0
        if self.in_head and self._read > HEAD_LIMIT:
            raise TooMuchError(f"has headers of more than {HEAD_LIMIT // 1024} KiB")
        return count

    def allow_object(self) -> None:
        """An object's content follows."""
        self._deadline = self._started + OBJECT_SECONDS

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class BoundedResponse(http.client.HTTPResponse):
    """An answer whose head and body end in time. Raises TooMuchError in whatever reads it."""

    def __init__(self, sock: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.bounds = _Bounded(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self.bounds, buffer_size=16 * 1024)

    def begin(self) -> None:
        super().begin()
        self.bounds.in_head = False
        if self.status < http.HTTPStatus.OK:
            raise TooMuchError("switches to another protocol, which nobody asked for")

    def _read_status(self) -> tuple[str, int, str]:
        # Of those before the final answer, http.client passes over 100 alone: the next one is read as it does then.
        version, status, reason = super()._read_status()  # type: ignore[misc]
        early = http.HTTPStatus.CONTINUE <= status < http.HTTPStatus.OK
        if early and status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            status = http.HTTPStatus.CONTINUE
        return version, status, reason


@cache
def pools() -> dict[str, Any]:
    """{scheme: pool of connections} for urllib3, with such answers, as botocore and requests can be told to use."""
    from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    trusting: weakref.WeakSet[Any] = weakref.WeakSet()

    class Connection(AWSHTTPConnection):  # type: ignore[misc]
        response_class = BoundedResponse

    class SecureConnection(AWSHTTPSConnection):  # type: ignore[misc]
        response_class = BoundedResponse

        ssl_context: Any
        ca_certs: Any

        def connect(self) -> None:
            # urllib3 has the file parsed for every connection, which takes 30 ms of CPU. A client has one context and
            # one file.
            if self.ssl_context in trusting:
                self.ca_certs = None
            super().connect()
            if self.ssl_context is not None and self.ca_certs:
                trusting.add(self.ssl_context)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": Pool, "https": SecurePool}


def read(raw: Any) -> bytes:
    """The body of a response, of urllib3 or http.client, within these bounds; what is compressed stays so.

    Raises TooMuchError; and what the library raises where the answer breaks off.
    """
    parts: list[bytes] = []
    size = 0
    while piece := raw.read1(64 * 1024):
        parts.append(piece)
        size += len(piece)
        if size > LIMIT:
            raise TooMuchError(f"is longer than {LIMIT // 1024**2} MiB")
    return b"".join(parts)


def bound(client: Any, *, own_connection: bool = False) -> None:
    """Have a boto3 client refuse such answers, with a BotoCoreError that is not tried again; and keep to the pace.

    Args:
        own_connection: each call goes over a new connection, and is sent again only where the store itself said that it
            was not executed. A server may close one that is kept at any moment, and a
            call that is not tried again would fail for nothing.
    """
    import urllib3.exceptions as transport
    from botocore.exceptions import BotoCoreError, ConnectionClosedError, HTTPClientError, ReadTimeoutError
    from botocore.handlers import add_expect_header

    class RefusedAnswerError(BotoCoreError):  # type: ignore[misc]
        fmt = "the answer {why}"

    class ThrottledAnswerError(RefusedAnswerError):
        """Nothing was done by the call: the store asked for fewer calls for too long."""

    service = client.meta.service_model.service_name
    session = client._endpoint.http_session  # noqa: SLF001 - the event hands over a request and no way to send it
    session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = pools()  # noqa: SLF001
    # botocore reads a `100 Continue` by itself, to the end of a line that may never come.
    client.meta.events.unregister("before-call.s3", add_expect_header)

    def sent(request: Any) -> Any:
        refuse_late()
        if own_connection:
            session.close()
        streaming, request.stream_output = request.stream_output, True
        response = session.send(request)
        if streaming and response.status_code < 300:
            # An object's content: whoever asked for it reads it.
            response.raw._fp.bounds.allow_object()  # noqa: SLF001 - urllib3 keeps what http.client gave it
            return response
        try:
            content = read(response.raw)
        except transport.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from None
        except (transport.HTTPError, OSError) as error:
            raise ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from None
        finally:
            response.raw.close()
        # Each second byte of UTF-16 is zero here.
        declared = content.replace(b"\0", b"") if b"\0" in content else content
        if any(word in declared for word in _DECLARATIONS):
            raise RefusedAnswerError(why="declares XML entities or attributes, which no store does")
        response._content = content  # noqa: SLF001 - as botocore itself leaves it
        return response

    def send(request: Any, **_: object) -> Any:
        try:
            return pace.of(client.meta.endpoint_url).patiently(
                lambda: sent(request),
                lambda answer: _asked_to_wait(request, answer, by_the_store=own_connection),
                patience(),
            )
        except pace.ThrottledError as error:
            raise ThrottledAnswerError(why=str(error)) from None
        except TooMuchError as error:
            raise RefusedAnswerError(why=str(error)) from None
        except HTTPClientError as error:
            if isinstance(error.kwargs.get("error"), TooMuchError):
                raise RefusedAnswerError(why=str(error.kwargs["error"])) from None
            raise

    client.meta.events.register_last(f"before-send.{service}", send)


def _asked_to_wait(request: Any, response: Any, *, by_the_store: bool) -> float | None:
    """How many seconds a throttled request is to be put off at least; None where it was taken."""
    content = b"" if response.status_code < 300 else response.content
    if not pace.throttled(response.status_code, content, by_the_store=by_the_store):
        return None
    tracing.say(f"{request.method} {urlsplit(request.url).netloc}: put off", time.monotonic(), response.status_code)
    request.reset_stream()
    return _seconds(response.headers.get("Retry-After"))


def _seconds(header: object) -> float:
    """What Retry-After asks for; 0 where it is a date, or nothing."""
    text = str(header or "")[:6]
    return float(text) if text.isascii() and text.isdigit() else 0.0


def within_pages(limit: int) -> Callable[[object], None]:
    """Counts the pages of one listing: called with the place at which the next begins.

    Raises TooMuchError where there are more than `limit`, or a page begins where one before it began.
    """
    seen: set[int] = set()

    def next_page(place: object) -> None:
        if len(seen) == limit:
            raise TooMuchError(f"is one of more than {limit} pages of a listing")
        # A listing of millions of pages is remembered by their hashes.
        found = hash(repr(place))
        if found in seen:
            raise TooMuchError("begins where a page before it did")
        seen.add(found)

    return next_page
