"""A client for providers' JSON APIs: retries, time and size limits, readable errors.

Only idempotent calls are retried. An error has no more of a response than the server's message, since the rest may be
secret.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from synapse_media import incoming
from synapse_media.errors import StoreError
from synapse_media.redaction import redacted

from . import bounded, pace, schemes, tracing
from .answers import ApiError

SECONDS: Final = 30
"""For connecting, and for each read; one answer has `bounded.SECONDS` at most, one call `bounded.CALL_SECONDS`, and of
these it waits for `pace.SECONDS` at most."""
ATTEMPTS: Final = 5
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
PATIENCE: Final = 20.0
"""The maximum pause between two attempts in seconds, whatever Retry-After says."""
NO_CONTENT: Final = object()
"""An answer with HTTP 204 and no body. It is not JSON's null, with which an API may say something else."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the credential to a place nobody named: it stays an answer."""

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage
    ) -> None:
        """Not looked at: what it names may be no URL."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Connection(http.client.HTTPConnection):
    response_class = bounded.BoundedResponse


class _SecureConnection(http.client.HTTPSConnection):
    response_class = bounded.BoundedResponse


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(_Connection, request)


class _Secure(urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        return self.do_open(_SecureConnection, request, context=self._context)  # type: ignore[attr-defined]


def host_of(url: str | None) -> str:
    """The host that a URL names, with its port; "" where it is none."""
    try:
        return urlsplit(url or "").netloc
    except ValueError:
        return ""


@dataclass(slots=True)
class JsonClient:
    """One API at `base` (scheme, host and path, no slash at the end).

    Attributes:
        what: the API's name in errors, such as "DigitalOcean's API".
        setting: the one that names `base`.
        headers: sent with every call, including the credential; never shown in an error.
        ca_file: PEM file with the certificates to trust; "": those of the system.
        plain_errors: this API sends error messages as plain text.
        pause: waits between attempts (seconds).
    """

    base: str
    what: str
    headers: Mapping[str, str] = field(repr=False)
    setting: str
    ca_file: str = ""
    seconds: float = SECONDS
    attempts: int = ATTEMPTS
    plain_errors: bool = False
    pause: Callable[[float], None] = time.sleep

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str | int] | None = None,
        repeatable: bool | None = None,
    ) -> Any:
        """The parsed response, or NO_CONTENT. Raises ApiError, with the server's error code if it sends one.

        Args:
            repeatable: whether the call may be retried; by default, whether HTTP defines its method as idempotent.
        """
        again = method in _REPEATABLE if repeatable is None else repeatable
        url = f"{self.base}{path}{'?' + urlencode(query) if query else ''}"
        where = f"{method} {path} at {self.what} ({urlsplit(self.base).netloc})"
        try:
            with bounded.one_call():
                return self._tried(method, url, body, where, again=again)
        except ApiError as error:
            raise schemes.with_cause(error, _UNANSWERED, self.base, self.setting) from None

    def _tried(self, method: str, url: str, body: Any, where: str, *, again: bool) -> Any:
        rhythm, patience = pace.of(self.base), bounded.patience()
        retries = 0
        fault: _TransientError  # of the last try; the first one is made in any case
        with suppress(pace.TooLongError):
            while True:
                try:
                    with rhythm.call(patience) as began:
                        answer = self._once(method, url, body, where)
                except _TransientError as error:
                    fault = error
                else:
                    rhythm.went_well()
                    return answer
                if fault.throttled and (again or fault.by_the_api):
                    wait = rhythm.slow_down(began, fault.after)
                elif again and retries < self.attempts - 1:
                    retries += 1
                    backoff = random.uniform(0.5, 1.0) * 0.5 * 2**retries  # noqa: S311 - jitter
                    wait = min(max(backoff, fault.after), PATIENCE)
                else:
                    break
                patience.take(wait)
                self.pause(wait)
        tries = f", {patience}" if patience.asked > 1 else ""
        raise ApiError(fault.code, fault.status, f"{fault}{tries}")

    def _once(self, method: str, url: str, body: Any, where: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", "User-Agent": "synapse-media", **self.headers}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310 - see settings
        started = time.monotonic()
        try:
            bounded.refuse_late()
            with opener(self.ca_file).open(request, timeout=self.seconds) as answer:
                tracing.say(where, started, answer.status, _request_id(answer.headers))
                raw = _read(answer)
                if not raw.strip():
                    if answer.status == http.HTTPStatus.NO_CONTENT:
                        return NO_CONTENT
                    raise ApiError(
                        "NotJson", answer.status, f"{where}: the answer is empty: is this the API's address?"
                    )
                return _parsed(raw, answer.headers.get_content_type(), answer.status, where)
        except bounded.TooMuchError as error:
            raise ApiError("RefusedAnswer", 0, f"{where}: the answer {error}") from None
        except urllib.error.HTTPError as error:
            tracing.say(where, started, error.code, _request_id(error.headers))
            with error:
                raise _refusal(error, where, plain=self.plain_errors) from None
        except urllib.error.URLError as error:
            fault = error.reason
            tracing.say(where, started, "no connection")
            if isinstance(fault, ssl.SSLError):
                raise _about_tls(fault, where) from None
            raise _TransientError("NoConnection", 0, f"{where}: no connection: {fault}") from None
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, ssl.SSLError) and schemes.is_alert(str(error.reason)):
                raise _about_tls(error, where) from None
            kind = "time-out" if isinstance(error, TimeoutError) else type(error).__name__
            raise _TransientError("Truncated", 0, f"{where}: the answer broke off ({kind})") from None
        except ValueError as error:
            # The exception of http.client would show the header, so only its type is used.
            raise ApiError(
                "BadRequest",
                0,
                f"{where}: the request could not be sent ({type(error).__name__}): its address or its credential has a "
                "character that HTTP does not allow",
            ) from None


_UNANSWERED: Final = frozenset({"NoTls", "NoConnection", "BadCertificate", "Truncated", "NotJson", "400"})
"""The codes of what a server may have that speaks TLS where none is asked for, or the other way round."""


def _about_tls(fault: ssl.SSLError, where: str) -> ApiError:
    """No further try mends a certificate, or makes a server speak TLS."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return ApiError("BadCertificate", 0, f"{where}: its certificate is not valid: {fault}")
    if fault.reason in schemes.NOT_TLS or schemes.is_alert(str(fault.reason)):
        return ApiError("NoTls", 0, f"{where}: no connection: {fault}")
    return _TransientError("NoConnection", 0, f"{where}: no connection: {fault}")


def opener(ca_file: str) -> urllib.request.OpenerDirector:
    """Opens URLs: follows no redirect, bounds the time and length of the headers, trusts what `trusting` does."""
    return urllib.request.build_opener(_NoRedirects, _Plain, _Secure(context=trusting(ca_file)))


@cache
def trusting(ca_file: str) -> ssl.SSLContext:
    """A TLS context that trusts the certificates of a PEM file, or those of the system for "". Raises StoreError.

    Made once: to parse a system's certificates takes longer than a call.
    """
    try:
        if ca_file:
            incoming.refuse_other_kind(Path(ca_file))
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise StoreError(
            f"ca_file: {ca_file!r} can't be used ({error.strerror or error}). Give the path of a PEM file with "
            "certificates on this machine."
        ) from None


class _TransientError(ApiError):
    """An error worth a retry.

    Attributes:
        after: seconds to wait, as requested by the server.
        by_the_api: the API's own document says so, with its code, and not somebody in between.
    """

    def __init__(self, code: str, status: int, message: str, after: float = 0, *, by_the_api: bool = False) -> None:
        super().__init__(code, status, message)
        self.after = after
        self.by_the_api = by_the_api

    @property
    def throttled(self) -> bool:
        """Whether it was not executed, for there being too many calls."""
        return self.status == http.HTTPStatus.TOO_MANY_REQUESTS


def _read(answer: Any) -> bytes:
    """The body, within the time and size that an answer may have."""
    raw = bounded.read(answer)
    # read1 takes an early end for the end of the body.
    if getattr(answer, "length", None):
        raise http.client.IncompleteRead(b"", answer.length)
    return raw


def _parsed(raw: bytes, kind: str, status: int, where: str) -> Any:
    if not raw.strip():
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(
            "NotJson",
            status,
            f"{where}: the answer is not JSON ({kind}, {len(raw)} bytes): is this the API's address, with no portal or "
            "proxy in front of it?",
        ) from None


def _refusal(error: urllib.error.HTTPError, where: str, *, plain: bool) -> ApiError:
    """An error status in words, with the server's code, message and request id where it sends them."""
    if 300 <= error.code < 400:
        target = host_of(error.headers.get("Location")) or "elsewhere"
        return ApiError(
            "Redirected", error.code, f"{where}: it redirects to {target}, which is not followed. Correct the address."
        )
    kind = error.headers.get_content_type()
    try:
        raw = _read(error.fp)
        parsed = {"message": raw.decode(errors="replace")} if plain and kind == "text/plain" else None
        parsed = parsed or _parsed(raw, kind, error.code, where)
    except (ApiError, OSError, ValueError, http.client.HTTPException, bounded.TooMuchError):
        parsed = None
    told: Mapping[str, Any] = parsed if isinstance(parsed, dict) else {}
    code = str(next((told[name] for name in ("id", "code", "error") if isinstance(told.get(name), str)), error.code))
    message = redacted(" ".join(str(told.get("message") or error.reason or "").split()))[:300]
    request_id = _request_id(error.headers) or redacted(str(told.get("request_id") or ""))[:100]
    words = f"{where}: {code}: {message} (HTTP {error.code}{f', request {request_id}' if request_id else ''})"
    if code == str(error.code) and not (plain and kind == "text/plain"):
        words += ". It came without the error of that API: check its address and any proxy in front of it"
    if error.code in (408, 429) or error.code >= 500:
        after = _seconds(error.headers.get("Retry-After"))
        return _TransientError(code, error.code, words, after, by_the_api=code != str(error.code))
    return ApiError(code, error.code, words)


def _request_id(headers: Any) -> str:
    return str(headers.get("x-request-id") or headers.get("x-github-request-id") or "")


def _seconds(header: str | None) -> float:
    return float(header[:6]) if header and header.isascii() and header.isdigit() else 0.0
