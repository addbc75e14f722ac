"""Clients for a store's S3 and IAM APIs: boto3 with retries, timeouts and readable errors.

Admin credentials are read from the environment variables that the connection names, and never enter the state.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from synapse_media.errors import StoreError
from synapse_media.redaction import redacted, remember
from synapse_media.schema.connection import Connection

from . import credentials, schemes, tracing
from .answers import (
    BAD_KEY,
    NO_ANSWER,
    Answer,
    ApiError,
    moment,
    require_asked,
    require_document,
    require_whole_page,
    strict_parsers,
)
from .bounded import bound, one_call
from .http import trusting

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest

CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 30
ATTEMPTS: Final = 6
"""botocore's `standard` mode: exponential backoff with jitter on throttling, 5xx and connection faults."""

# These carry a checksum header even with `when_required`; older S3 servers want Content-MD5 and refuse the header.
# https://github.com/boto/boto3/issues/4392
_WANT_MD5 = (
    "DeleteObjects",
    "PutBucketLifecycleConfiguration",
    "PutBucketPolicy",
    "PutBucketVersioning",
    "PutBucketEncryption",
    "PutBucketTagging",
    "PutPublicAccessBlock",
    "PutBucketAcl",
)


@dataclass(frozen=True, slots=True)
class Credential:
    """An access key, with the session token of a role. The secrets appear in no repr and no error.

    Raises StoreError if a part is malformed.
    """

    access_key_id: str
    secret: str
    token: str = ""

    def __post_init__(self) -> None:
        remember(self.secret, self.token, *([self.access_key_id] if _looks_swapped(self) else []))
        parts = {"access key ID": self.access_key_id, "secret access key": self.secret, "session token": self.token}
        for what, value in parts.items():
            if value:
                credentials.refuse_malformed(f"the {what}", value)

    def __repr__(self) -> str:
        return f"Credential({'[secret]' if _looks_swapped(self) else self.access_key_id})"

    def refuse_swapped(self, id_name: str, secret_name: str) -> None:
        """Raises StoreError if ID and secret look swapped: the ID is sent and kept in the state in plain text.

        Args:
            id_name, secret_name: the names of the two in the message.
        """
        # A self-chosen ID may be longer than its secret: let the store decide then.
        if _looks_swapped(self) and (len(self.access_key_id) >= _SHORTEST_SECRET or _BASE64 & set(self.access_key_id)):
            raise StoreError(
                f"{id_name} looks like a secret access key and {secret_name} like an access key ID: were the two "
                "swapped? Nothing was sent."
            )


def ambient() -> Credential:
    """The credential of the machine's role, as boto3 finds it. Raises StoreError if there is none."""
    import boto3

    found = boto3.session.Session().get_credentials()
    if found is None:
        raise StoreError("this machine has no role: attach the instance profile, then run `synapse-media prove` again")
    frozen = found.get_frozen_credentials()
    return Credential(frozen.access_key, frozen.secret_key, frozen.token or "")


def admin_credential(connection: Connection) -> Credential:
    """The admin credential from the environment.

    Raises StoreError if it is missing, malformed or swapped, or if the variables are not those of an admin credential.
    """
    credentials.refuse_foreign(connection.variables)
    values = [credentials.read(name) for name in connection.variables[:3]]
    missing = [name for name, value in zip(connection.variables[:2], values, strict=False) if not value]
    if missing or len(connection.variables) < 2:
        raise StoreError(
            f"the environment has no {' and no '.join(missing) or 'admin credential'}: set it to a credential "
            f"that may administer {connection.endpoint}. `synapse-media doctor` says what it needs."
        )
    found = Credential(*values)
    found.refuse_swapped(*connection.variables[:2])
    return found


class Client(Protocol):
    """A boto3 client that signs with one credential, to be used with `call`."""

    @property
    def meta(self) -> Any:
        """As boto3 has it."""


def s3_client(connection: Connection, credential: Credential | None = None, attempts: int | None = None) -> Client:
    """An S3 client: the administrator's, or one of the given credential.

    Args:
        attempts: how often each call is tried at most; None for ATTEMPTS. Where it is tried once, each call goes over
            a connection of its own.
    """
    return _Signing(_shared("s3", connection, attempts), credential or admin_credential(connection))


def iam_client(connection: Connection, attempts: int | None = None) -> Client:
    """The administrator's IAM client; `attempts` as of `s3_client`.

    Amazon's and Wasabi's IAM is one service for all regions, with requests signed for us-east-1.
    """
    return _Signing(_shared("iam", replace(connection, region="us-east-1"), attempts), admin_credential(connection))


# botocore's format: (key in the config file, environment variable, default, conversion).
_NO_FILES: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}

_clients: dict[tuple[object, ...], Any] = {}
_lock = threading.Lock()
_signing = threading.local()
"""The credential of the call that this thread makes."""


@dataclass(frozen=True, slots=True)
class _Signing:
    """A client that is shared by all credentials of an endpoint, and signs with one of them.

    A client of its own for every key would have a copy of the service's model, a TLS context and connections of its
    own: a third of a megabyte for each store of a stack.
    """

    shared: Any
    credential: Credential

    @property
    def meta(self) -> Any:
        return self.shared.meta

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        method = getattr(self.shared, operation)

        def signed(**arguments: Any) -> Any:
            before = getattr(_signing, "credential", None)
            _signing.credential = self.credential
            try:
                return method(**arguments)
            finally:
                _signing.credential = before

        return signed


def _sign_with(context: dict[str, Any], **_: object) -> None:
    """Have botocore sign the request with the credential of the call. Raises StoreError where there is none."""
    from botocore.credentials import Credentials

    credential: Credential | None = getattr(_signing, "credential", None)
    if credential is None:
        raise StoreError("a client was called by nobody's credential: nothing was sent")
    signing = {
        **context.get("signing", {}),
        "request_credentials": Credentials(credential.access_key_id, credential.secret, credential.token or None),
    }
    context["signing"] = signing


@cache
def _session() -> Any:
    """A session for all clients that reads no profile, file or role: only the credentials given may be used."""
    import boto3
    import botocore.session

    session = botocore.session.Session(session_vars=_NO_FILES)
    session.register_component("response_parser_factory", strict_parsers(_timestamp))
    return boto3.session.Session(botocore_session=session)


_HTTP_DATE: Final = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", re.ASCII)


def _timestamp(value: Any) -> datetime:
    """A time in an answer, of which a page of a listing has a thousand: botocore's own way takes 15 times as long.

    Raises what `parse_timestamp` does.
    """
    # As S3 writes it, "2026-01-31T23:59:59.000Z", and as a header has it, "Sat, 31 Jan 2026 23:59:59 GMT"; another form
    # is botocore's to read.
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if value[10:11] == "T" and value.endswith("Z"):
                return datetime.fromisoformat(value)
            if _HTTP_DATE.fullmatch(value):
                return parsedate_to_datetime(value)
    from botocore.utils import parse_timestamp

    read: datetime = parse_timestamp(value)
    return read


def _shared(service: str, connection: Connection, attempts: int | None) -> Any:
    """The one client of an endpoint, for the credential of whoever calls.

    boto3 clients may be shared between threads, but not created concurrently.
    """
    attempts = attempts or ATTEMPTS
    endpoint = connection.endpoint if service == "s3" else connection.iam_endpoint
    if not endpoint:
        # Without an endpoint boto3 would send any provider's credential to Amazon.
        name = "endpoint" if service == "s3" else "iam_endpoint"
        raise StoreError(f"{name} is missing: this store's {service.upper()} API has no address. Set {name}.")
    if connection.ca_file and endpoint.startswith("https:"):
        # What botocore says of one that is none doesn't name it, and it waits for a FIFO.
        trusting(connection.ca_file)
    key = (service, replace(connection, variables=()), attempts)
    with _lock:
        if key not in _clients:
            from botocore.config import Config

            config = Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": attempts},
                s3={"addressing_style": connection.addressing},
                request_checksum_calculation=connection.checksums,
                response_checksum_validation=connection.checksums,
                max_pool_connections=32,
                signature_version="s3v4" if service == "s3" else None,
                # botocore would put its own together anew for each call.
                user_agent="synapse-media",
            )
            client = _session().client(
                service,
                endpoint_url=endpoint,
                region_name=connection.region or "us-east-1",
                # Replaced by `_sign_with`. Without any, botocore would look for credentials on this machine.
                aws_access_key_id="none",
                aws_secret_access_key="none",  # noqa: S106
                config=config,
                verify=connection.ca_file or None,
            )
            if service == "s3" and connection.checksums == "when_required":
                for operation in _WANT_MD5:
                    client.meta.events.register(f"before-sign.s3.{operation}", _content_md5)
            client.meta.events.register_first(f"before-call.{service}", _sign_with)
            tracing.watch(client, service)
            # With no service named it comes before botocore's own, which makes a 500 of what it can't read.
            client.meta.events.register_first("before-parse.*.*", require_document)
            client.meta.events.register_first("needs-retry.s3", _stay_where_nothing_is_said)
            bound(client, own_connection=attempts == 1)
            client.meta.events.register(f"after-call.{service}", _say_swapped)
            _clients[key] = client
        return _clients[key]


_SHORTEST_SECRET: Final = 30
"""Characters. The shortest secret of any provider has 31 (Backblaze B2), the longest ID 28 (Storj)."""
_BASE64: Final = frozenset("/+=")
"""Characters that occur in secrets, and in no provider's access key IDs."""


def _looks_swapped(credential: Credential) -> bool:
    """Every provider's secret is longer than its ID; many are Base64, which no ID is."""
    key_id, secret = credential.access_key_id, credential.secret
    return len(key_id) > len(secret) or (bool(_BASE64 & set(key_id)) and secret.isalnum())


def _say_swapped(parsed: dict[str, Any], **_: object) -> None:
    error = parsed.get("Error", {})
    if not _looks_swapped(_signing.credential):
        return
    # An ID with a '/' is rejected as a malformed header.
    if error.get("Code") in BAD_KEY | {"AuthorizationHeaderMalformed"}:
        error["Message"] = (
            "the access key ID looks like a secret and the secret like an ID: were the two swapped? "
            + str(error.get("Message") or "")
        )


def _content_md5(request: AWSRequest, **_: object) -> None:
    for name in list(request.headers):
        if name.lower().startswith("x-amz-checksum-") or name.lower() == "x-amz-sdk-checksum-algorithm":
            del request.headers[name]
    body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    del request.headers["Content-MD5"]
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()


def _stay_where_nothing_is_said(request_dict: Any, response: Any, **_: object) -> None:
    """botocore signs again for the region that an answer names; where it names none, it asks round in circles."""
    if response is None:
        return
    parsed = response[1]
    headers = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    redirect = request_dict.get("context", {}).get("s3_redirect")
    if redirect and "x-amz-bucket-region" not in headers and not parsed.get("Error", {}).get("Region"):
        redirect["redirected"] = True


_CHECK: Final = "Check the endpoint and any proxy in front of it."


_NOT_OF: Final = {"s3": frozenset({"NoSuchEntity"}), "iam": frozenset({"NoSuchBucket"})}
"""What one of the two APIs says of what is not there, and the other one never."""


def call(client: Client, operation: str, **arguments: Any) -> dict[str, Any]:
    """Make one call. Raises ApiError with operation, target, the store's error and the request id."""
    try:
        return _called(client, operation, **arguments)
    except ApiError as error:
        setting = "iam_endpoint" if client.meta.service_model.service_name == "iam" else "endpoint"
        raise schemes.with_cause(error, _UNANSWERED, client.meta.endpoint_url, setting) from None


_UNANSWERED: Final = frozenset({"ConnectionClosedError", "HTTPClientError", "SSLError", "400", NO_ANSWER})
"""The codes of what a server may have that speaks TLS where none is asked for, or the other way round."""


def _called(client: Client, operation: str, **arguments: Any) -> dict[str, Any]:
    import botocore.exceptions as faults
    from botocore.parsers import ResponseParserError

    where = client.meta.endpoint_url
    asked = f"{operation} at {where}"
    try:
        with one_call():
            answer = Answer(asked, getattr(client, operation)(**arguments))
    except faults.ClientError as error:
        _refuse_page(error.response, operation, where)
        refusal = _in_words(error, operation, where, arguments)
        if refusal.code in _NOT_OF[client.meta.service_model.service_name]:
            raise ApiError(NO_ANSWER, 0, f"{refusal}. That is no answer of this API. {_CHECK}") from None
        raise refusal from None
    except faults.BotoCoreError as error:
        raise ApiError(type(error).__name__, 0, f"{asked}: {_first_line(error)}") from None
    except (
        ResponseParserError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        SyntaxError,  # ElementTree's ParseError is one
        RuntimeError,  # RecursionError is one, and botocore's for a date that it can't convert
    ) as error:
        # An answer that is not the XML of this API: cut off, a proxy's page, or a server of another kind.
        why = "it is nested too deeply" if isinstance(error, RecursionError) else _first_line(error)
        words = f"{asked}: the answer is not that of an S3 or IAM API: {why}. {_CHECK}"
        raise ApiError(NO_ANSWER, 0, words) from None
    _refuse_page(answer, operation, where)
    require_asked(asked, arguments, answer)
    require_whole_page(asked, operation, answer, str(arguments.get("Prefix") or ""))
    return answer


_lacking: dict[tuple[str, str], ApiError] = {}
"""{(endpoint, operation): what the store said}, of operations that it lacks."""
_NEVER_THERE: Final = frozenset({"NotImplemented", "InvalidAction"})
"""What the error document of a store says of an operation that it lacks, whatever the operation is asked of."""


def call_if_any(client: Client, operation: str, **arguments: Any) -> dict[str, Any]:
    """As `call`; a store that has said that it lacks the operation is not asked again in this process."""
    asked = (client.meta.endpoint_url, operation)
    if asked in _lacking:
        said = _lacking[asked]
        raise ApiError(said.code, said.status, str(said))
    try:
        return call(client, operation, **arguments)
    except ApiError as error:
        if error.code in _NEVER_THERE:
            _lacking[asked] = error
        raise


def server_time(answer: Mapping[str, Any]) -> datetime:
    """When an answer was given, by the store's clock (UTC); by this machine's where the store does not tell.

    Raises ApiError where it tells something else in the place of a date.
    """
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not date:
        return datetime.now(UTC)
    try:
        found = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        found = datetime.max.replace(tzinfo=UTC)
    return moment("the header Date", found)


def _refuse_page(answer: Mapping[str, Any], operation: str, where: str) -> None:
    """Raises ApiError for a web page, which must not be taken for a response of the store, such as 'not found'."""
    meta = answer.get("ResponseMetadata", {})
    headers = meta.get("HTTPHeaders", {})
    # nginx's and Apache's is a page: `_meaning` knows its cause.
    if meta.get("HTTPStatusCode") == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return
    # A store's response has a request id, whatever its content type (an object may be a web page too).
    if str(headers.get("content-type", "")).startswith("text/html") and not any(
        name.startswith("x-amz") for name in headers
    ):
        raise ApiError(
            NO_ANSWER,
            0,
            f"{operation} at {where}: the response is a web page (HTTP {meta.get('HTTPStatusCode')}), not that of a "
            f"store. {_CHECK}",
        )


def _in_words(error: Any, operation: str, where: str, arguments: Mapping[str, Any]) -> ApiError:
    answer = error.response
    meta = answer.get("ResponseMetadata", {})
    headers = meta.get("HTTPHeaders", {})
    status = int(meta.get("HTTPStatusCode") or 0)
    # As botocore has it where there is no document; it has nothing of a document that is no error.
    code = str(answer.get("Error", {}).get("Code") or status)
    request_id = meta.get("RequestId") or headers.get("x-amz-request-id") or ""
    target = str(arguments.get("Bucket") or arguments.get("UserName") or "")
    message = _first_line(answer.get("Error", {}).get("Message") or "")
    if code == str(status):
        message = message or http.client.responses.get(status, "")
    named = answer.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    region = _first_line(named or "")[:64]
    words = f"{operation} {target} at {where}: {code} {message}".replace("  ", " ").strip()
    # No answer to HEAD has a document.
    bare = code == str(status) and not operation.startswith("head_")
    return ApiError(
        code,
        status,
        f"{words} (HTTP {status}{f', request {request_id}' if request_id else ''})"
        f"{_meaning(code, message, status, region) or _elsewhere(status, headers) or _said_by(bare)}",
    )


def _said_by(bare: bool) -> str:
    if not bare:
        return ""
    return f". It came without the error of a store. {_CHECK}"


def _elsewhere(status: int, headers: Mapping[str, Any]) -> str:
    if not 300 <= status < 400:
        return ""
    try:
        parts = urlsplit(str(headers.get("location") or ""))
    except ValueError:
        parts = urlsplit("")
    target = f" to {parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else ""
    return redacted(f". It redirects{target[:200]}, which is not followed: mend the endpoint.")


def _meaning(code: str, message: str, status: int, region: str) -> str:
    # IAM has no code of its own for it: "Signature expired: … is now earlier than …", "Signature not yet current: …".
    if code == "RequestTimeTooSkewed" or message.startswith(("Signature expired", "Signature not yet current")):
        return ". The clock of this machine is wrong: synchronise it (NTP) and run again."
    if code in ("InvalidAccessKeyId", "InvalidClientTokenId"):
        return (
            ". The store does not know this access key ID: check the variable, that it belongs to this endpoint, and "
            "that it is a key for S3 (an account's master key may not be one)."
        )
    if code == "SignatureDoesNotMatch":
        return ". The secret access key does not match the access key ID: check both for a swap or a missing character."
    if code == "AuthorizationHeaderMalformed":
        right = f": set region: {region}" if region else ""
        return f". The region is not the one this endpoint signs for{right}."
    if code == "PermanentRedirect" and region:
        return f". This endpoint does not serve the region of the bucket: set region: {region}, and its endpoint."
    if status == 413:
        return (
            ". What stands in front of the store takes no request of this length: have it take 16 MiB and more "
            "(nginx: client_max_body_size)."
        )
    return ""


def _first_line(what: object) -> str:
    """The first line of a server's text, redacted and truncated."""
    return redacted(str(what).strip().split("\n", 1)[0])[:300]
