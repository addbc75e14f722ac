"""Clients for a store's S3 and IAM APIs: boto3 with retries, timeouts and readable errors.

Admin credentials are read from the environment variables that the connection names, and never enter the state.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from synapse_media.errors import StoreError
from synapse_media.redaction import redacted, remember
from synapse_media.schema.connection import Connection

from . import credentials, tracing
from .bounded import bound

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest

CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 30
ATTEMPTS: Final = 6
"""botocore's `standard` mode: exponential backoff with jitter on throttling, 5xx and connection faults."""

DENIED: Final = frozenset(
    {"AccessDenied", "AllAccessDisabled", "Forbidden", "403", "UnauthorizedAccess", "Unauthorized"}
)
ABSENT: Final = frozenset({"NoSuchBucket", "NoSuchEntity", "NoSuchKey"})
"""Codes from the error document of S3 or IAM. A bare 404 is not enough: it may come from a proxy in between."""
LACKING: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405", "XNotImplemented", "InvalidAction"})
BAD_KEY: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "AuthFailure"})

# boto3 sends a checksum header with these even with `when_required`. Older S3 servers reject it and require
# Content-MD5. https://github.com/boto/boto3/issues/4392
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


class ApiError(StoreError):
    """A call that failed: the store responded with an error, or not at all."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code = redacted(code)
        self.status = status

    @property
    def denied(self) -> bool:
        return self.code in DENIED or (self.status == 403 and self.code not in BAD_KEY | {"RequestTimeTooSkewed"})

    @property
    def absent(self) -> bool:
        return self.code in ABSENT

    @property
    def lacking(self) -> bool:
        return self.code in LACKING or self.status == 501

    @property
    def bad_key(self) -> bool:
        return self.code in BAD_KEY


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
    """A boto3 client, to be used with `call`."""

    meta: Any


def s3_client(connection: Connection, credential: Credential | None = None, attempts: int = ATTEMPTS) -> Client:
    """An S3 client with the given credential, by default the admin's; at most `attempts` tries per call."""
    return _client("s3", connection, credential or admin_credential(connection), attempts)


def iam_client(connection: Connection, attempts: int = ATTEMPTS) -> Client:
    """An IAM client with the admin credential; at most `attempts` tries per call.

    Amazon's and Wasabi's IAM is one service for all regions, with requests signed for us-east-1.
    """
    return _client("iam", replace(connection, region="us-east-1"), admin_credential(connection), attempts)


# botocore's format: (key in the config file, environment variable, default, conversion).
_NO_FILES: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}

_clients: dict[tuple[object, ...], Client] = {}
_lock = threading.Lock()


@cache
def _session() -> Any:
    """A session for all clients that reads no profile, file or role: only the credentials given may be used."""
    import boto3
    import botocore.session

    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=_NO_FILES))


def _client(service: str, connection: Connection, credential: Credential, attempts: int) -> Client:
    """Cached by all its parameters. boto3 clients may be shared between threads, but not created concurrently."""
    endpoint = connection.endpoint if service == "s3" else connection.iam_endpoint
    if not endpoint:
        # Without an endpoint boto3 would send any provider's credential to Amazon.
        name = "endpoint" if service == "s3" else "iam_endpoint"
        raise StoreError(f"{name} is missing: this store's {service.upper()} API has no address. Set {name}.")
    key = (service, connection, credential.access_key_id, hash((credential.secret, credential.token)), attempts)
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
                user_agent_extra="synapse-media",
            )
            client = _session().client(
                service,
                endpoint_url=endpoint,
                region_name=connection.region or "us-east-1",
                aws_access_key_id=credential.access_key_id,
                aws_secret_access_key=credential.secret,
                aws_session_token=credential.token or None,
                config=config,
                verify=connection.ca_file or None,
            )
            if service == "s3" and connection.checksums == "when_required":
                for operation in _WANT_MD5:
                    client.meta.events.register(f"before-sign.s3.{operation}", _content_md5)
            tracing.watch(client, service)
            client.meta.events.register(f"before-parse.{service}", _require_document)
            bound(client)
            if _looks_swapped(credential):
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


def call(client: Client, operation: str, **arguments: Any) -> dict[str, Any]:
    """Make one call. Raises ApiError with operation, target, the store's error and the request id."""
    import botocore.exceptions as faults
    from botocore.parsers import ResponseParserError

    where = client.meta.endpoint_url
    try:
        answer = _Answer(f"{operation} at {where}", getattr(client, operation)(**arguments))
    except faults.ClientError as error:
        _refuse_page(error.response, operation, where)
        raise _in_words(error, operation, where, arguments) from None
    except faults.BotoCoreError as error:
        raise ApiError(type(error).__name__, 0, f"{operation} at {where}: {_first_line(error)}") from None
    except (ValueError, KeyError, AttributeError, ResponseParserError) as error:
        # The response is not this API's XML: truncated, a proxy's page, or another kind of server.
        raise ApiError(
            "Unparsable", 0, f"{operation} at {where}: the answer is not that of an S3 or IAM API: {_first_line(error)}"
        ) from None
    _refuse_page(answer, operation, where)
    return answer


def server_time(answer: Mapping[str, Any]) -> datetime:
    """When an answer was given, by the store's clock (UTC); by this machine's where the store does not tell."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)


class _Answer(dict[str, Any]):
    """A response of which a missing member raises ApiError instead of KeyError."""

    def __init__(self, what: str, found: Mapping[str, Any]) -> None:
        super().__init__(found)
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise ApiError("Unparsable", 0, f"{self._what}: the answer of the store has no {name}")


_PAGE: Final = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!DOCTYPE html|<html)", re.IGNORECASE)


def _require_document(operation_model: Any, response_dict: Mapping[str, Any], **_: object) -> None:
    """Raises ResponseParserError for a success without a document, which botocore would parse as an empty list."""
    from botocore.parsers import ResponseParserError

    if response_dict["status_code"] >= 300 or not _has_document(operation_model):
        return
    body = response_dict["body"]
    if not body.strip() or _PAGE.match(body):
        what = "a web page" if body.strip() else "empty"
        raise ResponseParserError(f"HTTP {response_dict['status_code']}, and the body is {what}")


def _has_document(operation: Any) -> bool:
    """Whether a successful response of this operation has an XML document."""
    if operation.service_model.service_name == "iam":
        return True
    shape = operation.output_shape
    if shape is None or operation.has_streaming_output or operation.http["method"] == "HEAD":
        return False
    return "payload" in shape.serialization or any(
        "location" not in member.serialization for member in shape.members.values()
    )


def _refuse_page(answer: Mapping[str, Any], operation: str, where: str) -> None:
    """Raises ApiError for a web page, which must not be taken for a response of the store, such as 'not found'."""
    meta = answer.get("ResponseMetadata", {})
    headers = meta.get("HTTPHeaders", {})
    # A store's response has a request id, whatever its content type (an object may be a web page too).
    if str(headers.get("content-type", "")).startswith("text/html") and not any(
        name.startswith("x-amz") for name in headers
    ):
        raise ApiError(
            "Unparsable",
            0,
            f"{operation} at {where}: the response is a web page (HTTP {meta.get('HTTPStatusCode')}), not that of a "
            "store: check the endpoint and any proxy in front of it.",
        )


def _in_words(error: Any, operation: str, where: str, arguments: Mapping[str, Any]) -> ApiError:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code") or "")
    meta = answer.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode") or 0)
    request_id = meta.get("RequestId") or meta.get("HTTPHeaders", {}).get("x-amz-request-id") or ""
    target = str(arguments.get("Bucket") or arguments.get("UserName") or "")
    message = _first_line(answer.get("Error", {}).get("Message") or "")
    words = f"{operation} {target} at {where}: {code} {message}".replace("  ", " ").strip()
    return ApiError(
        code,
        status,
        f"{words} (HTTP {status}{f', request {request_id}' if request_id else ''}){_meaning(code, message)}",
    )


def _meaning(code: str, message: str) -> str:
    # IAM has no code for this, only messages: "Signature expired: … is now earlier than …", "Signature not yet current:
    # …".
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
        return ". The region is not the one this endpoint signs for."
    return ""


def _first_line(what: object) -> str:
    """The first line of a server's text, redacted and truncated."""
    return redacted(str(what).strip().split("\n", 1)[0])[:300]
