"""What a boto3 client takes from a server at most: no endless body, no body that drips for ever, no XML entities.

botocore reads an answer to its end, whatever its length, and its parser expands what a document declares. It follows
no redirect to another host by itself.
"""

from __future__ import annotations

import time
from typing import Any, Final

LIMIT: Final = 8 * 1024 * 1024
"""Bytes; a full page of a listing is about one million."""
SECONDS: Final = 60
"""For the body of one answer, however it drips."""


def bound(client: Any) -> None:
    """Have a boto3 client refuse such answers, with a BotoCoreError that is not tried again."""
    import urllib3.exceptions as transport
    from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError

    class RefusedAnswerError(BotoCoreError):  # type: ignore[misc]
        fmt = "the answer {why}"

    session = client._endpoint.http_session  # noqa: SLF001 - the event hands over a request and no way to send it

    def send(request: Any, **_: object) -> Any:
        streaming, request.stream_output = request.stream_output, True
        response = session.send(request)
        if streaming and response.status_code < 300:
            # An object's content: whoever asked for it reads it.
            return response
        deadline = time.monotonic() + SECONDS
        parts: list[bytes] = []
        size = 0
        try:
            while piece := response.raw.read1(64 * 1024):
                parts.append(piece)
                size += len(piece)
                if size > LIMIT:
                    raise RefusedAnswerError(why=f"is longer than {LIMIT // 1024**2} MiB")
                if time.monotonic() > deadline:
                    raise RefusedAnswerError(why=f"did not end within {SECONDS} s")
        except transport.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from None
        except transport.ProtocolError as error:
            raise ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from None
        finally:
            response.raw.close()
        content = b"".join(parts)
        if b"<!ENTITY" in content:
            raise RefusedAnswerError(why="declares XML entities, which no store does")
        response._content = content  # noqa: SLF001 - as botocore itself leaves it
        return response

    client.meta.events.register_last(f"before-send.{client.meta.service_model.service_name}", send)
