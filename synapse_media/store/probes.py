"""The probes of a proof: each operation is tried with the key, here or on the homeserver.

Probes that should be denied are harmless if they are not: the policy is malformed, and undone at a store that takes it
nevertheless; the bucket to be created exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from synapse_media.contract import PROOF_OBJECT, ProofLine
from synapse_media.methods import NOT_TESTED, Expected, Operation
from synapse_media.schema.connection import Connection

from .answers import LACKING, ApiError
from .bounded import TooMuchError
from .clients import Client, Credential, call, s3_client
from .objects import create_bucket, remove_versions

PART: Final = 8 * 1024 * 1024
"""The part size of boto3 for larger uploads, and so of Synapse's module and its script."""
_BIG: Final = PART + 1024 * 1024
_transfers = threading.BoundedSemaphore(2)
"""Held while an object of 9 MiB is sent and read: so many are in memory at once, however many stores are proved."""

_CHUNK: Final = 256 * 1024
"""Bytes that are read of an object at once."""
_NO_POLICY: Final = "not a policy"
_WRONG_CONTENT: Final = "WrongContent"
_HOPELESS: Final = frozenset({"NoSuchBucket", "AuthorizationHeaderMalformed", "RequestTimeTooSkewed"})


class _NotTestedError(Exception):
    """An operation that can't be tried here, with the reason."""


@cache
def _filler(size: int) -> bytes:
    """Deterministic, incompressible bytes, which all proofs share."""
    block = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(2048))
    return (block * (size // len(block) + 1))[:size]


@cache
def _pieces() -> tuple[bytes, ...]:
    """The parts of the object of 9 MiB, which all proofs share too."""
    body = _filler(_BIG)
    return tuple(body[start : start + PART] for start in range(0, len(body), PART))


@dataclass(slots=True)
class _Try:
    """The parameters of a probe.

    Attributes:
        decoy: an existing bucket the key must not reach; "" if there is none.
        policy: the bucket's policy, "" for none; None if only the key itself may be able to read it.
        large: keys of the objects of 9 MiB that were written.
    """

    s3: Client
    bucket: str
    key: str
    decoy: str
    policy: str | None = None
    large: list[str] = field(default_factory=list)
    small: bytes = field(default_factory=lambda: _filler(1024))
    uploads: list[str] = field(default_factory=list)


def _expect(s3: Client, bucket: str, key: str, sent: bytes, what: str) -> None:
    """Raises ApiError where the object is not what was sent. It is compared as it comes, and not held."""
    import botocore.exceptions as faults

    body = call(s3, "get_object", Bucket=bucket, Key=key)["Body"]
    size, same = 0, True
    try:
        while size <= len(sent) and (piece := body.read(_CHUNK)):
            same = same and sent[size : size + len(piece)] == piece
            size += len(piece)
    except (faults.BotoCoreError, OSError, TooMuchError) as error:
        raise ApiError("Truncated", 200, f"get_object {bucket}: the answer broke off: {type(error).__name__}") from None
    if not same or size != len(sent):
        body.close()
        raise ApiError(_WRONG_CONTENT, 200, f"{what} came back with other content ({size} of {len(sent)} bytes)")


def _put(at: _Try) -> None:
    call(at.s3, "put_object", Bucket=at.bucket, Key=at.key, Body=at.small)


def _head(at: _Try) -> None:
    try:
        size = call(at.s3, "head_object", Bucket=at.bucket, Key=at.key).get("ContentLength", 0)
    except ApiError as error:
        if 400 <= error.status < 500:
            # An answer to HEAD has no body that would say why: the same by a call that brings one.
            call(at.s3, "get_object", Bucket=at.bucket, Key=at.key)
        raise
    if size != len(at.small):
        raise ApiError(_WRONG_CONTENT, 200, f"head_object says {size} bytes, {len(at.small)} were written")


def _get(at: _Try) -> None:
    _expect(at.s3, at.bucket, at.key, at.small, "the object")


def _list(at: _Try) -> None:
    call(at.s3, "list_objects_v2", Bucket=at.bucket, Prefix=at.key, MaxKeys=1)


def _missing_key(at: _Try) -> None:
    try:
        call(at.s3, "get_object", Bucket=at.bucket, Key=at.key + "-absent")
    except ApiError as error:
        # NoSuchKey is from the store's error document; a bare 404 may come from a proxy.
        if error.code == "NoSuchKey":
            return
        raise
    raise ApiError(_WRONG_CONTENT, 200, "an object that was never written was found")


def _upload(at: _Try, key: str) -> str:
    upload = str(call(at.s3, "create_multipart_upload", Bucket=at.bucket, Key=key)["UploadId"])
    at.uploads.append(upload)
    return upload


def _multipart(at: _Try) -> None:
    with _transfers:
        body = _filler(_BIG)
        upload = _upload(at, at.key)
        where = {"Bucket": at.bucket, "Key": at.key, "UploadId": upload}
        parts = []
        for number, piece in enumerate(_pieces(), start=1):
            # As a file it is sent in blocks; bytes would be copied behind the head of the request.
            part = call(at.s3, "upload_part", **where, PartNumber=number, Body=io.BytesIO(piece))
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        call(at.s3, "complete_multipart_upload", **where, MultipartUpload={"Parts": parts})
        at.uploads.remove(upload)
        at.large.append(at.key)
        _expect(at.s3, at.bucket, at.key, body, "the object of 9 MiB")


def _abort(at: _Try) -> None:
    upload = _upload(at, at.key)
    call(at.s3, "abort_multipart_upload", Bucket=at.bucket, Key=at.key, UploadId=upload)
    at.uploads.remove(upload)


def _list_parts(at: _Try) -> None:
    upload = _upload(at, at.key)
    try:
        call(at.s3, "list_parts", Bucket=at.bucket, Key=at.key, UploadId=upload)
    finally:
        call(at.s3, "abort_multipart_upload", Bucket=at.bucket, Key=at.key, UploadId=upload)
        at.uploads.remove(upload)


def _list_uploads(at: _Try) -> None:
    call(at.s3, "list_multipart_uploads", Bucket=at.bucket, Prefix=at.key, MaxUploads=1)


def _location(at: _Try) -> None:
    call(at.s3, "get_bucket_location", Bucket=at.bucket)


def _copy(at: _Try) -> None:
    source = {"Bucket": at.bucket, "Key": at.key}
    call(at.s3, "copy_object", Bucket=at.bucket, Key=at.key + "-copy", CopySource=source)
    at.large.append(at.key + "-copy")


def _delete(at: _Try) -> None:
    call(at.s3, "delete_object", Bucket=at.bucket, Key=at.key)


def _put_bucket_policy(at: _Try) -> None:
    former = _policy(at) if at.policy is None else at.policy
    try:
        call(at.s3, "put_bucket_policy", Bucket=at.bucket, Policy=_NO_POLICY)
    except ApiError as error:
        # One that reads a policy, which is JSON, as XML takes the call for another.
        if error.lacking or error.code == "MalformedXML":
            raise _NotTestedError("this store has no bucket policies") from None
        # The document was parsed, so the key was authorized.
        if error.status == 400 and not error.bad_key and not error.denied:
            return
        raise
    _put_back(at, former)


def _policy(at: _Try) -> str:
    """The bucket's policy, as the key reads it; "" if there is none."""
    try:
        document = str(call(at.s3, "get_bucket_policy", Bucket=at.bucket)["Policy"])
        return document if isinstance(json.loads(document), dict) else ""
    except ApiError as error:
        if error.code == "NoSuchBucketPolicy":
            return ""
        if error.lacking:
            raise _NotTestedError("this store has no bucket policies") from None
        if error.denied:
            raise _NotTestedError(
                "the key may not read the bucket's policy, which would have to be put back if the store took the "
                "probe's malformed one"
            ) from None
        raise
    except (ValueError, RecursionError):
        return ""


def _put_back(at: _Try, former: str) -> None:
    """Undo the probe at a store that takes any text for a policy."""
    try:
        if former:
            call(at.s3, "put_bucket_policy", Bucket=at.bucket, Policy=former)
        else:
            call(at.s3, "delete_bucket_policy", Bucket=at.bucket)
    except ApiError as error:
        # Not the error itself: a denial would read as if the key could not write the policy.
        raise ApiError(
            "PolicyLeft",
            200,
            f"this store took {_NO_POLICY!r} for the policy of bucket {at.bucket}, and the former policy "
            f"({former or 'none'}) could not be put back: do that by hand. {error}",
        ) from None


def _create_bucket(at: _Try) -> None:
    if not at.decoy:
        raise _NotTestedError("needs a second bucket, which only an administrator can provide")
    try:
        create_bucket(at.s3, at.decoy, at.s3.meta.region_name)
    except ApiError as error:
        if error.code == "BucketAlreadyOwnedByYou":
            return
        if error.code == "BucketAlreadyExists":
            raise _NotTestedError(
                "the store checks whether the bucket exists before it checks the permission"
            ) from None
        raise


def _other_bucket(at: _Try) -> None:
    if not at.decoy:
        raise _NotTestedError("needs a second bucket, which only an administrator can provide")
    call(at.s3, "list_objects_v2", Bucket=at.decoy, MaxKeys=1)


_PROBES: Mapping[Operation, Callable[[_Try], None]] = {
    Operation.PUT: _put,
    Operation.HEAD: _head,
    Operation.GET: _get,
    Operation.LIST: _list,
    Operation.MISSING_KEY: _missing_key,
    Operation.MULTIPART: _multipart,
    Operation.ABORT: _abort,
    Operation.LIST_PARTS: _list_parts,
    Operation.LIST_UPLOADS: _list_uploads,
    Operation.LOCATION: _location,
    Operation.COPY: _copy,
    Operation.PUT_BUCKET_POLICY: _put_bucket_policy,
    Operation.CREATE_BUCKET: _create_bucket,
    Operation.OTHER_BUCKET: _other_bucket,
    # Last, since it deletes the object if it is allowed.
    Operation.DELETE: _delete,
}


def own_object(prefix: str) -> str:
    """A key for the object of one proof: two at once must not see each other's."""
    return f"{prefix}{PROOF_OBJECT}-{secrets.token_hex(6)}"


def prove(
    connection: Connection,
    credential: Credential,
    bucket: str,
    prefix: str,
    expected: Mapping[Operation, Expected],
    *,
    decoy: str = "",
    policy: str | None = None,
    settle_seconds: float = 0,
    own: str = "",
    cleared: Callable[[], bool] | None = None,
) -> tuple[ProofLine, ...]:
    """Try every expected operation with the key; one line per operation, in the order tried.

    Args:
        prefix: the store's prefix, put before each key as it is.
        policy: the bucket's policy as an administrator reads it; None if there is none to ask.
        own: the key of the object to write; by default, one that no other proof has.
        settle_seconds: a key or policy made just now may need so long until the store knows it.
        cleared: removes what was written with an administrator's key, and says whether it could. Otherwise the key
            itself leaves as little as it may.
    """
    at = _Try(s3_client(connection, credential), bucket, own or own_object(prefix), decoy, policy)
    deadline = time.monotonic() + settle_seconds
    while True:
        lines = tuple(_lines(at, expected, cleared))
        if not any(line.failed for line in lines) or time.monotonic() >= deadline:
            return lines
        time.sleep(min(1.5, max(0.1, deadline - time.monotonic())))


def _lines(at: _Try, expected: Mapping[Operation, Expected], cleared: Callable[[], bool] | None) -> Iterator[ProofLine]:
    stop, deleted = "", False
    for operation, probe in _PROBES.items():
        if operation not in expected:
            continue
        wanted = expected[operation].value
        if stop:
            yield ProofLine(operation.value, wanted, NOT_TESTED, stop)
            continue
        try:
            probe(at)
        except _NotTestedError as why:
            yield ProofLine(operation.value, wanted, NOT_TESTED, str(why))
        except ApiError as error:
            # The remaining operations would fail the same way.
            if error.bad_key or error.status == 0 or error.code in _HOPELESS:
                stop = f"{operation.value} could not even be tried"
            # A 403 without the store's error document may come from a proxy, which is no proof that the key is
            # restricted.
            outcome = "refused" if error.denied else f"failed ({error.code})"
            yield ProofLine(operation.value, wanted, outcome, "" if outcome == wanted else str(error))
        else:
            yield ProofLine(operation.value, wanted, "allowed")
            deleted = deleted or operation is Operation.DELETE
    if cleared is not None and cleared():
        at.large.clear()
        at.uploads.clear()
    else:
        _leave_little(at, deleted=deleted)


def _leave_little(at: _Try, *, deleted: bool) -> None:
    """Delete what was written, or, where the key may not, let 1 KiB of it stay (and an old version, where
    versions are kept: a key that may not delete can't remove it)."""
    with suppress(ApiError):
        if deleted:
            remove_versions(at.s3, at.bucket, at.key)
            at.large.clear()
    with suppress(ApiError):
        # A key that may not list versions leaves those it wrote to the lifecycle rule.
        for key in at.large:
            if deleted:
                call(at.s3, "delete_object", Bucket=at.bucket, Key=key)
            else:
                call(at.s3, "put_object", Bucket=at.bucket, Key=key, Body=at.small)
    at.large.clear()
    for upload in list(at.uploads):
        with suppress(ApiError):
            call(at.s3, "abort_multipart_upload", Bucket=at.bucket, Key=at.key, UploadId=upload)


def advice(lines: tuple[ProofLine, ...]) -> str:
    """The causes to check after a failed proof, in a few sentences; "" if nothing failed."""
    failed = [line for line in lines if line.failed]
    if not failed:
        return ""
    found = "; ".join(
        f"{x.operation} should be {x.expected}, was {x.outcome}{f': {x.detail}' if x.detail else ''}" for x in failed
    )
    sentences = [found if found.endswith((".", "?")) else f"{found}."]
    if any("SignatureDoesNotMatch" in line.outcome or "InvalidAccessKeyId" in line.outcome for line in failed):
        sentences.append(
            "The key itself is not accepted. `synapse-media up --refresh` replaces it if the store reports that it "
            "is gone; if that does not help, rotate."
        )
    elif any("NoSuchBucket" in line.outcome for line in failed):
        sentences.append(
            "By the store's word the bucket does not exist. If it was deleted, `synapse-media up --refresh` creates it "
            "again, empty."
        )
    elif any(line.outcome == "refused" for line in failed):
        sentences.append(
            "Something denies what the policy grants: a bucket policy created by hand, or a TLS-only policy behind a "
            "proxy that terminates TLS and uses http to the store. If nothing at all is allowed, the key may have been "
            "revoked: rotate."
        )
    elif any(line.outcome == "allowed" for line in failed):
        sentences.append(
            "The key may do more than the method needs: look for a second policy on the user or its groups."
        )
    elif any(f"({code})" in line.outcome for line in failed for code in LACKING):
        sentences.append("This store has no such call, and the method needs it: choose another method or store.")
    elif any(f"({_WRONG_CONTENT})" in line.outcome for line in failed):
        sentences.append("What was read is not what was written: check the endpoint and any proxy in front of it.")
    else:
        sentences.append("Is the store reachable from here, at this endpoint?")
    return " ".join(sentences)
