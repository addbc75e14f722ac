"""A client for the JSON APIs of providers: retries, time limits, size limits, and errors in words.

Only a call that does no harm when it is repeated is repeated. What an answer holds is never put into an error beyond
the server's own message: it may be a secret.
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
"""Time limit of one try, connecting and reading together."""
ATTEMPTS: Final = 5
LIMIT: Final = 8 * 1024 * 1024
"""Bytes; no answer of a control plane is that long."""
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
PATIENCE: Final = 20.0
"""Seconds; the longest pause between two tries, whatever the server asks for."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """A redirect would carry the credential to a place nobody named: it stays an answer."""


@dataclass(slots=True)
class JsonClient:
    """One API at `base` (scheme, host and path, no slash at the end).

    Attributes:
        what: the API's name in errors, "DigitalOcean's API".
        headers: sent with every call; the credential is in them and in no error.
        ca_file: PEM file to trust in place of the system's; "" for the system's.
        plain_errors: this API says in plain text what is wrong.
        pause: how it waits between tries (seconds).
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
        """The parsed answer; None for an empty one. Raises ApiError, its code that of the server where it gives one.

        Args:
            repeatable: may the call be tried again; by default, what HTTP says of its method (POST: no).
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
            # http.client shows the header that it could not write.
            raise ApiError(
                "BadRequest",
                0,
                f"{where}: the call could not be written ({type(error).__name__}): its address or its credential has a "
                "character that HTTP does not allow",
            ) from None


def trusting(ca_file: str) -> ssl.SSLContext:
    """What https is checked by: the certificates of a PEM file, or the system's for "". Raises StoreError."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise StoreError(
            f"ca_file: {ca_file!r} can't be used ({error.strerror or error}). Give the name of a PEM file with "
            "certificates, as this machine has it."
        ) from None


class _TransientError(ApiError):
    """May go away by itself. `after`: seconds the server asks to wait."""

    def __init__(self, code: str, status: int, message: str, after: float = 0) -> None:
        super().__init__(code, status, message)
        self.after = after


def _read(answer: Any, deadline: float, where: str) -> bytes:
    """The body, within the time and size that an answer may have."""
    parts: list[bytes] = []
    size = 0
    while piece := answer.read1(64 * 1024):
        parts.append(piece)
        size += len(piece)
        if size > LIMIT:
            raise ApiError("TooLong", answer.status, f"{where}: the answer is longer than {LIMIT // 1024**2} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    # read1 takes an early end for the end of the body.
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
            "proxy before it?",
        ) from None


def _refusal(error: urllib.error.HTTPError, deadline: float, where: str, *, plain: bool) -> ApiError:
    """An error status in words, with the server's code, message and request id where it sends them."""
    if 300 <= error.code < 400:
        target = urlsplit(error.headers.get("Location") or "").netloc or "elsewhere"
        return ApiError(
            "Redirected", error.code, f"{where}: it redirects to {target}, which is not followed. Mend the address."
        )
    kind = error.headers.get_content_type()
    try:
        raw = _read(error.fp, deadline, where)
        parsed = {"message": raw.decode(errors="replace")} if plain and kind == "text/plain" else None
        parsed = parsed or _parsed(raw, kind, error.code, where)
    except (ApiError, OSError, http.client.HTTPException):
        parsed = None
    told: Mapping[str, Any] = parsed if isinstance(parsed, dict) else {}
    code = str(next((told[name] for name in ("id", "code", "error") if isinstance(told.get(name), str)), error.code))
    message = redacted(" ".join(str(told.get("message") or error.reason or "").split()))[:300]
    request_id = _request_id(error.headers) or told.get("request_id") or ""
    words = f"{where}: {code}: {message} (HTTP {error.code}{f', request {request_id}' if request_id else ''})"
    if error.code in (408, 429) or error.code >= 500:
        return _TransientError(code, error.code, words, _seconds(error.headers.get("Retry-After")))
    return ApiError(code, error.code, words)


def _request_id(headers: Any) -> str:
    return str(headers.get("x-request-id") or headers.get("x-github-request-id") or "")


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isdigit() else 0.0
