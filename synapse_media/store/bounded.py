"""Limits on a server's responses: size and duration of the body, and no XML entities.

botocore and requests read a response to its end, whatever its length, and botocore's parser expands the entities that a
document declares. botocore follows no redirect to another host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

LIMIT: Final = 8 * 1024 * 1024
"""Bytes. A full page of a listing has about one million."""
SECONDS: Final = 60
"""For the body of one response, however slowly it arrives."""


def read(raw: Any, refused: Callable[[str], Exception]) -> bytes:
    """The body of a urllib3 response, within these limits and not decompressed.

    Args:
        refused: makes the error to raise from a clause that follows "the answer".
    """
    deadline = time.monotonic() + SECONDS
    parts: list[bytes] = []
    size = 0
    while piece := raw.read1(64 * 1024):
        parts.append(piece)
        size += len(piece)
        if size > LIMIT:
            raise refused(f"is longer than {LIMIT // 1024**2} MiB")
        if time.monotonic() > deadline:
            raise refused(f"did not end within {SECONDS} s")
    return b"".join(parts)


def bound(client: Any) -> None:
    """Make a boto3 client enforce the limits, with a BotoCoreError that is not retried."""
    import urllib3.exceptions as transport
    from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError

    class RefusedAnswerError(BotoCoreError):  # type: ignore[misc]
        fmt = "the answer {why}"

    session = client._endpoint.http_session  # noqa: SLF001 - the event gives a request and no way to send it

    def send(request: Any, **_: object) -> Any:
        streaming, request.stream_output = request.stream_output, True
        response = session.send(request)
        if streaming and response.status_code < 300:
            # An object's content is read, and limited, by the caller.
            return response
        try:
            content = read(response.raw, lambda why: RefusedAnswerError(why=why))
        except transport.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from None
        except transport.ProtocolError as error:
            raise ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from None
        finally:
            response.raw.close()
        if b"<!ENTITY" in content:
            raise RefusedAnswerError(why="declares XML entities, which no store does")
        response._content = content  # noqa: SLF001 - as botocore itself leaves it
        return response

    client.meta.events.register_last(f"before-send.{client.meta.service_model.service_name}", send)
