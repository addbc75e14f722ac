"""`-v`: log every API call with its duration, status and request id, but no headers and no body."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from synapse_media.redaction import plain, redacted

VARIABLE: Final = "SYNAPSE_MEDIA_VERBOSE"
"""An environment variable, since the plugin is a grandchild process of the command."""
MARK: Final = "api: "
_STARTED: Final = "synapse_media_started"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


tell: Callable[[str], None] = _to_stderr
"""The sink for lines. The plugin, which has no terminal, replaces it with the engine's log."""


def enabled() -> bool:
    return bool(os.environ.get(VARIABLE))


def say(what: str, started: float, status: object, request_id: str = "") -> None:
    """Log a finished call if `-v` is on.

    Args:
        started: `time.monotonic()` when it was sent.
        status: the HTTP status, or the kind of failure.
    """
    if enabled():
        spent = (time.monotonic() - started) * 1000
        words = f"{what}: {status} in {spent:.0f} ms{f', request {request_id}' if request_id else ''}"
        tell(plain(redacted(MARK + words)))


def watch(client: Any, service: str) -> None:
    """Log every attempt of every call of a boto3 client."""
    client.meta.events.register(f"request-created.{service}", _sent)
    client.meta.events.register(f"response-received.{service}", _answered)


def _sent(request: Any, operation_name: str, **_: object) -> None:
    parts = urlsplit(request.url)
    # Without the query, which is not secret today but could be some day.
    request.context[_STARTED] = (time.monotonic(), f"{operation_name} {request.method} {parts.netloc}{parts.path}")


def _answered(
    response_dict: Any, parsed_response: Any, context: Any, exception: BaseException | None, **_: object
) -> None:
    started, what = context[_STARTED]
    if exception is not None:
        say(what, started, type(exception).__name__)
        return
    headers = response_dict["headers"]
    meta = (parsed_response or {}).get("ResponseMetadata", {})
    request_id = meta.get("RequestId") or headers.get("x-amz-request-id") or headers.get("x-amzn-requestid") or ""
    # Some servers send the id twice.
    say(what, started, response_dict["status_code"], str(request_id).partition(",")[0])
