"""Why a TLS handshake, or HTTP, came to nothing: http in place of https, the other way round, or a certificate.

What a client is told by a server of the other kind says neither.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .answers import ApiError

_SECONDS: Final = 3
NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""OpenSSL's reasons for what is no record of TLS."""
_CLOSED: Final = (
    "EOF occurred",
    "Connection reset",
    "Connection aborted",
    "onnection was closed",
    "broke off",
    "handshake operation timed out",
)
"""What clients say where the other side ends the connection, or waits, in place of a TLS handshake."""
_NO_HTTP: Final = ("BadStatusLine", "onnection was closed", "Connection aborted")
"""What they say, among other things, of an answer that is not HTTP."""
_OTHER_NAME: Final = ("Hostname mismatch", "IP address mismatch", "doesn't match")
_OTHER_TIME: Final = ("certificate has expired", "certificate is not yet valid")


def is_alert(said: str) -> bool:
    """Whether an error of OpenSSL's is an alert of the server: why it ended the handshake."""
    return "_ALERT_" in said or "UNRECOGNIZED_NAME" in said


def hint(url: str, setting: str, said: str) -> str:
    """The cause and the next step, to follow an error, where TLS, or what answers in place of HTTP, is why a call was
    not answered; "" where it is not.

    Args:
        url: what was called.
        setting: the one that names it.
        said: the error.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "https":
            return _without_handshake(parts, setting, said) or _about_certificate(setting, said)
        if parts.scheme == "http":
            host, port = parts.hostname or "", parts.port or 80
            if _speaks_tls(host, port):
                return f". What answers there speaks TLS: set {setting}: https://{parts.netloc}."
            if any(words in said for words in _NO_HTTP) and _greeting(host, port) not in (b"", b"HTTP/"):
                return f". What answers there speaks no HTTP: check the port in {setting}."
    return ""


def _without_handshake(parts: SplitResult, setting: str, said: str) -> str:
    host, port = parts.hostname or "", parts.port or 443
    closed = any(words in said for words in _CLOSED)
    if any(reason in said for reason in NOT_TLS) or (closed and not _speaks_tls(host, port)):
        greeting = _greeting(host, port)
        if greeting == b"HTTP/":
            return (
                f". What answers there speaks no TLS: is it http in place of https? Give {setting} the port that "
                f"speaks TLS, or set {setting}: http://{parts.netloc}, with which nothing is encrypted."
            )
        return f". What answers there speaks neither TLS nor HTTP: check the port in {setting}." if greeting else ""
    if is_alert(said):
        why = next((words for alert, words in _ALERTS.items() if alert in said), _ANY_ALERT)
        return f". {why.format(setting=setting)}"
    return ""


_NO_CERTIFICATE: Final = "it wants a certificate of the client, which is not supported"
_ALERTS: Final = {
    "PROTOCOL_VERSION": "The server has no version of TLS that this machine takes.",
    "CERTIFICATE_REQUIRED": f"The server ended the handshake: {_NO_CERTIFICATE}.",
    "UNRECOGNIZED_NAME": "The server does not have this name: check {setting}.",
}
"""What a server means by its alerts, by OpenSSL's names for them."""
_ANY_ALERT: Final = f"The server ended the handshake: it does not have the name in {{setting}}, or {_NO_CERTIFICATE}."


def _about_certificate(setting: str, said: str) -> str:
    if any(words in said for words in _OTHER_NAME):
        return f". Give {setting} a name that is in the server's certificate."
    if any(words in said for words in _OTHER_TIME):
        return ". Renew the server's certificate, or set the clock of this machine."
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            ". If its authority is your own, name the authority's certificate with ca_file, where the provider has "
            "that setting (s3_compatible, storj), or else in the environment, as SSL_CERT_FILE, AWS_CA_BUNDLE and "
            "REQUESTS_CA_BUNDLE."
        )
    return ""


_UNREACHED: Final = frozenset({"NoConnection", "EndpointConnectionError", "ConnectTimeoutError"})
"""What boto3 and our own client call it where no connection came about."""


def with_cause(error: ApiError, codes: Collection[str], url: str, setting: str) -> ApiError:
    """The error with that hint, or with what to check where nothing was reached; as it is for any other.

    Args:
        codes: of the errors of a client that a server of the other kind may be behind.
        url, setting: as for `hint`.
    """
    cause = hint(url, setting, str(error)) if error.code in codes else ""
    if not cause and error.code in _UNREACHED:
        cause = f". Check {setting}, and whether this machine can reach it (name, port, firewall, proxy)"
    return ApiError(error.code, error.status, str(error) + cause) if cause else error


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
        return is_alert(str(error.reason))
    except (OSError, ValueError):
        return False


@cache
def _greeting(host: str, port: int) -> bytes:
    """How the answer to a request of HTTP begins, for the options of the server; b"" for none."""
    try:
        with socket.create_connection((host, port), _SECONDS) as plain:
            plain.sendall(f"OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return plain.recv(5, socket.MSG_WAITALL)
    except (OSError, ValueError):
        return b""
