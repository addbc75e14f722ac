"""http in place of https, or the other way round: what a client is told by a server of the other kind says neither."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from .answers import ApiError

_SECONDS: Final = 3
NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""OpenSSL's reasons for what is no record of TLS."""
_CLOSED: Final = ("EOF occurred", "Connection reset", "Connection aborted", "Connection was closed", "broke off")
"""What clients say of a connection that the other side closed: a server without TLS may do so at a greeting of TLS."""


def hint(url: str, setting: str, said: str) -> str:
    """The cause and the next step, to follow an error, where TLS is why a call was not answered; "" where it is not.

    Args:
        url: what was called.
        setting: the one that names it.
        said: the error.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https" and (
            any(reason in said for reason in NOT_TLS)
            or (any(words in said for words in _CLOSED) and _speaks_http_alone(host, parts.port or 443))
        ):
            return (
                f". What answers there speaks no TLS: is it http in place of https? Give {setting} the port that "
                f"speaks TLS, or set {setting}: http://{parts.netloc}, with which nothing is encrypted."
            )
        if parts.scheme == "http" and _speaks_tls(host, parts.port or 80):
            return f". What answers there speaks TLS: set {setting}: https://{parts.netloc}."
    return ""


def with_cause(error: ApiError, codes: Collection[str], url: str, setting: str) -> ApiError:
    """The error with that hint; as it is where there is none.

    Args:
        codes: of the errors of a client that a server of the other kind may be behind.
        url, setting: as for `hint`.
    """
    cause = hint(url, setting, str(error)) if error.code in codes else ""
    return ApiError(error.code, error.status, str(error).removesuffix(".") + cause) if cause else error


@cache
def _speaks_tls(host: str, port: int) -> bool:
    """Whether TLS can be spoken there, whoever it is. Nothing is sent but its greeting."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        # It wants a certificate of the client, say: that is TLS as well.
        return "ALERT" in str(error.reason)
    except (OSError, ValueError):
        return False


@cache
def _speaks_http_alone(host: str, port: int) -> bool:
    """Whether HTTP is answered there, and TLS is not. Nothing is sent but a question for the options of the server."""
    if _speaks_tls(host, port):
        return False
    try:
        with socket.create_connection((host, port), _SECONDS) as plain:
            plain.sendall(f"OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return plain.recv(5, socket.MSG_WAITALL) == b"HTTP/"
    except (OSError, ValueError):
        return False
