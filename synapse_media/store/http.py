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
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from synapse_media.errors import StoreError
from synapse_media.redaction import redacted

from . import tracing
from .clients import ApiError

SECONDS: Final = 30
"""Time limit of one attempt, for connecting and reading."""
ATTEMPTS: Final = 5
LIMIT: Final = 8 * 1024 * 1024
"""Bytes. No response of a control plane is that long."""
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
PATIENCE: Final = 20.0
"""The maximum pause between two attempts in seconds, whatever Retry-After says."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Don't follow: a redirect would send the credential to an address that nobody configured."""


@dataclass(slots=True)
class JsonClient:
    """One API at `base` (scheme, host and path, no slash at the end).

    Attributes:
        what: the API's name in errors, such as "DigitalOcean's API".
        headers: sent with every call, including the credential; never shown in an error.
        ca_file: PEM file with the certificates to trust; "": those of the system.
        plain_errors: this API sends error messages as plain text.
        pause: waits between attempts (seconds).
    """

    base: str
    what: str
    headers: Mapping[str, str] = field(repr=False)
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
        """The parsed response; None for an empty one. Raises ApiError, with the server's error code if it sends one.

        Args:
            repeatable: whether the call may be retried; by default, whether HTTP defines its method as idempotent.
        """
        again = method in _REPEATABLE if repeatable is None else repeatable
        url = f"{self.base}{path}{'?' + urlencode(query) if query else ''}"
        where = f"{method} {path} at {self.what} ({urlsplit(self.base).netloc})"
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(method, url, body, where)
            except _TransientError as error:
                if not again or attempt == self.attempts:
                    tries = f", tried {attempt} times" if attempt > 1 else ""
                    raise ApiError(error.code, error.status, f"{error}{tries}") from None
                backoff = random.uniform(0.5, 1.0) * 0.5 * 2**attempt  # noqa: S311 - jitter
                self.pause(min(max(backoff, error.after), PATIENCE))
        raise AssertionError("the last attempt returns or raises")

    def _once(self, method: str, url: str, body: Any, where: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", "User-Agent": "synapse-media", **self.headers}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310 - see settings
        opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=trusting(self.ca_file)))
        started = time.monotonic()
        deadline = started + self.seconds
        try:
            with opener.open(request, timeout=self.seconds) as answer:
                tracing.say(where, started, answer.status, _request_id(answer.headers))
                raw = _read(answer, deadline, where)
                if not raw.strip() and answer.status != http.HTTPStatus.NO_CONTENT:
                    raise ApiError(
                        "NotJson", answer.status, f"{where}: the answer is empty: is this the API's address?"
                    )
                return _parsed(raw, answer.headers.get_content_type(), answer.status, where)
        except urllib.error.HTTPError as error:
            tracing.say(where, started, error.code, _request_id(error.headers))
            with error:
                raise _refusal(error, deadline, where, plain=self.plain_errors) from None
        except urllib.error.URLError as error:
            fault = error.reason
            tracing.say(where, started, "no connection")
            if isinstance(fault, ssl.SSLCertVerificationError):
                raise ApiError("BadCertificate", 0, f"{where}: its certificate is not valid: {fault.reason}") from None
            raise _TransientError("NoConnection", 0, f"{where}: no connection: {fault}") from None
        except (http.client.HTTPException, OSError) as error:
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


def trusting(ca_file: str) -> ssl.SSLContext:
    """A TLS context that trusts the certificates of a PEM file, or those of the system for "". Raises StoreError."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise StoreError(
            f"ca_file: {ca_file!r} can't be used ({error.strerror or error}). Give the path of a PEM file with "
            "certificates on this machine."
        ) from None


class _TransientError(ApiError):
    """An error worth a retry. `after`: seconds to wait, as requested by the server."""

    def __init__(self, code: str, status: int, message: str, after: float = 0) -> None:
        super().__init__(code, status, message)
        self.after = after


def _read(answer: Any, deadline: float, where: str) -> bytes:
    """The body, within the time and size limits."""
    parts: list[bytes] = []
    size = 0
    while piece := answer.read1(64 * 1024):
        parts.append(piece)
        size += len(piece)
        if size > LIMIT:
            raise ApiError("TooLong", answer.status, f"{where}: the answer is longer than {LIMIT // 1024**2} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    # read1 doesn't raise for a connection closed early.
    if getattr(answer, "length", None):
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(parts)


def _parsed(raw: bytes, kind: str, status: int, where: str) -> Any:
    if not raw.strip():
        return None
    try:
        return json.loads(raw)
    except ValueError:
        raise ApiError(
            "NotJson",
            status,
            f"{where}: the answer is not JSON ({kind}, {len(raw)} bytes): is this the API's address, with no portal or "
            "proxy in front of it?",
        ) from None


def _refusal(error: urllib.error.HTTPError, deadline: float, where: str, *, plain: bool) -> ApiError:
    """The exception for an error status, with the server's code, message and request id if it sends them."""
    if 300 <= error.code < 400:
        target = urlsplit(error.headers.get("Location") or "").netloc or "elsewhere"
        return ApiError(
            "Redirected", error.code, f"{where}: it redirects to {target}, which is not followed. Correct the address."
        )
    kind = error.headers.get_content_type()
    try:
        raw = _read(error.fp, deadline, where)
        parsed = {"message": raw.decode(errors="replace")} if plain and kind == "text/plain" else None
        parsed = parsed or _parsed(raw, kind, error.code, where)
    except (ApiError, OSError, http.client.HTTPException):
        parsed = None
    fields: Mapping[str, Any] = parsed if isinstance(parsed, dict) else {}
    code = str(
        next((fields[name] for name in ("id", "code", "error") if isinstance(fields.get(name), str)), error.code)
    )
    message = redacted(" ".join(str(fields.get("message") or error.reason or "").split()))[:300]
    request_id = _request_id(error.headers) or fields.get("request_id") or ""
    words = f"{where}: {code}: {message} (HTTP {error.code}{f', request {request_id}' if request_id else ''})"
    if error.code in (408, 429) or error.code >= 500:
        return _TransientError(code, error.code, words, _seconds(error.headers.get("Retry-After")))
    return ApiError(code, error.code, words)


def _request_id(headers: Any) -> str:
    return str(headers.get("x-request-id") or headers.get("x-github-request-id") or "")


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isdigit() else 0.0
