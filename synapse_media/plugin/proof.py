"""The proof: every operation tried with the issued key itself, before anything is configured with it.

`prove` needs only the key and runs anywhere, on the server too. The resource `s3store:index:Proof` runs it in `up`
with an admin at hand, who lends a decoy bucket and clears up.

Probes that should be refused do no harm where they are not: the policy is malformed, the bucket to be made exists.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from synapse_media.contract import PROOF_OBJECT, Proof, ProofLine, fingerprint, line_to_json, secret_sha256
from synapse_media.methods import Expected, Operation

from .bucket import is_marked, mark, mark_of, remove_versions
from .connection import ApiError, Connection, Credential, call
from .iam import forget_journal
from .resource import UNKNOWN, Context, Found, PartialError, Resource, ResourceError, Values, text

PART: Final = 8 * 1024 * 1024
"""boto3 uploads anything larger in parts of this size; so do Synapse's module and its script."""
_BIG: Final = PART + 1024 * 1024

_OUTCOME = {Expected.ALLOWED: "allowed", Expected.REFUSED: "refused"}
NOT_TESTED: Final = "not tested"
_HOPELESS: Final = frozenset({"NoSuchBucket", "AuthorizationHeaderMalformed", "RequestTimeTooSkewed"})


class _NotTestedError(Exception):
    """An operation that can't be tried here; the text says why."""


@dataclass(slots=True)
class _Try:
    """What the probes share.

    Attributes:
        decoy: an existing bucket the key must not reach; "" if there is none.
    """

    s3: Any
    bucket: str
    key: str
    decoy: str
    small: bytes = field(default_factory=lambda: _filler(1024))
    uploads: list[str] = field(default_factory=list)


def _filler(size: int) -> bytes:
    """Bytes that don't compress and are the same each time."""
    block = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(2048))
    return (block * (size // len(block) + 1))[:size]


def _expect_bytes(got: bytes, sent: bytes, what: str) -> None:
    if got != sent:
        raise ApiError("WrongContent", 200, f"{what} came back with other content ({len(got)} of {len(sent)} bytes)")


def _read(s3: Any, bucket: str, key: str) -> bytes:
    import botocore.exceptions as faults

    try:
        body: bytes = call(s3, "get_object", Bucket=bucket, Key=key)["Body"].read(2 * _BIG)
    except (faults.BotoCoreError, OSError) as error:
        raise ApiError("Truncated", 200, f"get_object {bucket}: the answer broke off: {type(error).__name__}") from None
    return body


def _put(at: _Try) -> None:
    call(at.s3, "put_object", Bucket=at.bucket, Key=at.key, Body=at.small)


def _head(at: _Try) -> None:
    size = call(at.s3, "head_object", Bucket=at.bucket, Key=at.key).get("ContentLength", 0)
    if size != len(at.small):
        raise ApiError("WrongContent", 200, f"head_object says {size} bytes, {len(at.small)} were written")


def _get(at: _Try) -> None:
    _expect_bytes(_read(at.s3, at.bucket, at.key), at.small, "the object")


def _list(at: _Try) -> None:
    call(at.s3, "list_objects_v2", Bucket=at.bucket, Prefix=at.key, MaxKeys=1)


def _missing_key(at: _Try) -> None:
    try:
        call(at.s3, "get_object", Bucket=at.bucket, Key=at.key + "-absent")
    except ApiError as error:
        # The store's own word: a bare 404 may be anybody's in between.
        if error.code == "NoSuchKey":
            return
        raise
    raise ApiError("WrongContent", 200, "an object that was never written was found")


def _upload(at: _Try, key: str) -> str:
    upload = str(call(at.s3, "create_multipart_upload", Bucket=at.bucket, Key=key)["UploadId"])
    at.uploads.append(upload)
    return upload


def _multipart(at: _Try) -> None:
    body = _filler(_BIG)
    upload = _upload(at, at.key)
    parts = []
    for number, start in enumerate(range(0, len(body), PART), start=1):
        piece = body[start : start + PART]
        where = {"Bucket": at.bucket, "Key": at.key, "UploadId": upload}
        part = call(at.s3, "upload_part", **where, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    where = {"Bucket": at.bucket, "Key": at.key, "UploadId": upload}
    call(at.s3, "complete_multipart_upload", **where, MultipartUpload={"Parts": parts})
    at.uploads.remove(upload)
    _expect_bytes(_read(at.s3, at.bucket, at.key), body, "the object of 9 MiB")


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


def _delete(at: _Try) -> None:
    call(at.s3, "delete_object", Bucket=at.bucket, Key=at.key)


def _put_bucket_policy(at: _Try) -> None:
    try:
        call(at.s3, "put_bucket_policy", Bucket=at.bucket, Policy="not a policy")
    except ApiError as error:
        if error.lacking:
            raise _NotTestedError("this store has no bucket policies") from None
        # The malformed document was looked at, so the key got past the authorization.
        if error.status == 400 and not error.bad_key and not error.denied:
            return
        raise


def _create_bucket(at: _Try) -> None:
    if not at.decoy:
        raise _NotTestedError("needs a decoy bucket, which only an administrator can lend")
    try:
        call(at.s3, "create_bucket", **_bucket_in(at.s3.meta.region_name, at.decoy))
    except ApiError as error:
        if error.code == "BucketAlreadyOwnedByYou":
            return
        if error.code == "BucketAlreadyExists":
            raise _NotTestedError("the store looks whether the bucket exists before it asks who may make one") from None
        raise


def _other_bucket(at: _Try) -> None:
    if not at.decoy:
        raise _NotTestedError("needs a decoy bucket, which only an administrator can lend")
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
    # Last: where it is allowed, the object is gone.
    Operation.DELETE: _delete,
}


def prove(
    connection: Connection,
    credential: Credential,
    bucket: str,
    prefix: str,
    expected: Mapping[Operation, Expected],
    *,
    decoy: str = "",
    settle_seconds: float = 0,
) -> tuple[ProofLine, ...]:
    """Try every expected operation with the key; a line for each, in the order tried.

    Args:
        prefix: the store's prefix, "" or ending with "/".
        settle_seconds: a key or policy made just now may need so long until the store knows it.
    """
    at = _Try(connection.s3(credential), bucket, prefix + PROOF_OBJECT, decoy)
    deadline = time.monotonic() + settle_seconds
    while True:
        lines = tuple(_lines(at, expected))
        if not any(line.failed for line in lines) or time.monotonic() >= deadline:
            return lines
        time.sleep(min(1.5, max(0.1, deadline - time.monotonic())))


def _lines(at: _Try, expected: Mapping[Operation, Expected]) -> Iterator[ProofLine]:
    stop = ""
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
            # It is the same for all: say so once, not sixteen times.
            if error.bad_key or error.status == 0 or error.code in _HOPELESS:
                stop = f"{operation.value} could not even be tried"
            # Somebody in between may refuse, too: that the store itself does, only its own document says.
            said = error.code != str(error.status)
            outcome = "refused" if error.denied and (said or wanted == "allowed") else f"failed ({error.code})"
            yield ProofLine(operation.value, wanted, outcome, "" if outcome == wanted else str(error))
        else:
            yield ProofLine(operation.value, wanted, "allowed")
    for upload in list(at.uploads):
        quietly(call, at.s3, "abort_multipart_upload", Bucket=at.bucket, Key=at.key, UploadId=upload)


def quietly(action: Callable[..., object], *arguments: Any, **named: Any) -> None:
    """Clearing up after a failed probe: what failed is told already."""
    try:
        action(*arguments, **named)
    except ApiError:
        return


def advice(lines: tuple[ProofLine, ...]) -> str:
    """What to do about a failed proof, in a few sentences; "" if nothing failed."""
    failed = [line for line in lines if line.failed]
    if not failed:
        return ""
    told = [
        "; ".join(f"{x.operation} should be {x.expected}, was {x.outcome}: {x.detail}" for x in failed),
    ]
    if any("SignatureDoesNotMatch" in line.outcome or "InvalidAccessKeyId" in line.outcome for line in failed):
        told.append(
            "The key itself is not accepted. `synapse-media up --refresh` makes another where the store says that it "
            "is gone; where that changes nothing, rotate."
        )
    elif any("NoSuchBucket" in line.outcome for line in failed):
        told.append("The bucket is gone. `synapse-media up --refresh` finds out and makes it again, empty.")
    elif any(line.outcome == "refused" for line in failed):
        told.append(
            "Something denies what the policy grants: a bucket policy made by hand, or a TLS-only policy behind a "
            "proxy that ends TLS itself and speaks http to the store. Where nothing at all is allowed, the key was "
            "perhaps revoked: rotate."
        )
    elif any(line.outcome == "allowed" for line in failed):
        told.append("The key may do more than the method needs: look for a second policy on the user or its groups.")
    else:
        told.append("Is the store reachable from here, at this endpoint?")
    told.append("Everything that was made is kept; mend the cause and run `synapse-media up` again.")
    return " ".join(told)


DECOY: Final = "synapse-media-decoy-"
"""How the name of every decoy bucket begins."""


def decoy_name(connection: Connection, bucket: str) -> str:
    """The same name for the same store: what a killed run left is found again."""
    seed = f"{connection.endpoint}/{connection.region}/{bucket}"
    return f"{DECOY}{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


def _bucket_in(region: str, bucket: str) -> dict[str, Any]:
    """The arguments of create_bucket. Amazon's first region, and whatever imitates it, refuses to be named."""
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    return {"Bucket": bucket, **where}


class Lender(Protocol):
    """What the proof needs an administrator for. Takes the proof's inputs; may raise ResourceError."""

    def lend(self, inputs: Values, decoy: str) -> bool:
        """Make an empty bucket of this name that the key must not reach, or find the one an earlier run left.

        It carries the store's mark, where the store has marks; with another's it is refused. False where this
        administrator has none to lend.
        """

    def take_back(self, inputs: Values, decoy: str) -> None:
        """Delete the bucket that was lent."""

    def left_behind(self, inputs: Values, decoy: str) -> list[str]:
        """The decoys of this store but this one, that a run which was killed left; [] where they can't be told."""

    def clear(self, inputs: Values) -> None:
        """Remove what the proof wrote."""


class S3Lender:
    """An administrator with an S3 key."""

    def lend(self, inputs: Values, decoy: str) -> bool:
        connection = Connection.parse(inputs)
        s3 = connection.s3()
        try:
            call(s3, "create_bucket", **_bucket_in(connection.region, decoy))
        except ApiError as error:
            if error.code != "BucketAlreadyOwnedByYou":
                raise
        mark(s3, decoy, inputs)
        return True

    def take_back(self, inputs: Values, decoy: str) -> None:
        call(Connection.parse(inputs).s3(), "delete_bucket", Bucket=decoy)

    def left_behind(self, inputs: Values, decoy: str) -> list[str]:
        s3 = Connection.parse(inputs).s3()
        try:
            listed = [bucket["Name"] for bucket in call(s3, "list_buckets").get("Buckets", [])]
        except ApiError as error:
            if not (error.denied or error.lacking):
                raise
            return []  # an administrator of some buckets alone
        found = []
        for name in listed:
            if not name.startswith(DECOY) or name == decoy:
                continue
            try:
                if is_marked(mark_of(s3, name, inputs), inputs):
                    found.append(name)
            except ApiError as error:
                # Another store's, whose proof ended meanwhile.
                if not error.absent:
                    raise
        return found

    def clear(self, inputs: Values) -> None:
        s3, bucket = Connection.parse(inputs).s3(), text(inputs, "bucket")
        key = text(inputs, "prefix") + PROOF_OBJECT
        remove_versions(s3, bucket, key)
        # A key that may not abort leaves its uploads.
        for upload in call(s3, "list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", []):
            if upload["Key"] == key:
                call(s3, "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload["UploadId"])


def _took_back(lender: Lender, inputs: Values, decoy: str, context: Context) -> bool:
    """Delete a decoy; False, and said, where it is still there."""
    try:
        lender.take_back(inputs, decoy)
    except ResourceError as error:
        if not (isinstance(error, ApiError) and error.absent):
            _say_left(decoy, error, context)
            return False
    return True


def _say_left(decoy: str, why: ResourceError, context: Context) -> None:
    context.warn(
        f"the bucket {decoy}, made empty for the proof, could not be deleted: {why} The next proof tries again; to be "
        "rid of it now, delete it at the provider."
    )


class ProofResource(Resource):
    """The proof as a resource: run again whenever the key, policy, bucket or endpoint changes, and at no other time.

    Inputs: `connection`, `bucket`, `prefix`, `method`, `access`, `endpointUrl`, `region`, `policySha256`,
    `accessKeyId`, `secretAccessKey` (secret), `expected` {operation: expectation}, `admin` (is there one), `decoy`
    (may it lend a bucket), `lender` (a name in `lenders`; "": an S3 key), `owner`, `formerOwner`, `userName` ("" if the
    store has no users), `settleSeconds`.
    Outputs: the inputs, `madeFor`, `lines` [{operation, expected, outcome, detail}], `secretSha256` (secret),
    `decoysLeft` (only where there are any: names of decoy buckets that could not be deleted; the next proof tries
    again).
    """

    pulumi_type = "s3store:index:Proof"
    secrets = frozenset({"secretAccessKey", "secretSha256"})
    required = frozenset({"connection", "bucket", "accessKeyId", "secretAccessKey", "expected"})
    passing = frozenset({"formerOwner"})

    def __init__(self, lenders: Mapping[str, Lender] | None = None) -> None:
        self._lenders: dict[str, Lender] = {"": S3Lender(), **(lenders or {})}

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "madeFor": UNKNOWN, "lines": UNKNOWN, "secretSha256": UNKNOWN}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        name = f"proof-{inputs['bucket']}"
        return name, self._prove(name, inputs, {}, context)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise ResourceError("a proof can't be imported: `up` makes it.")
        # Nothing to read: it says what was tried and when it was made, of which nothing can drift.
        return Found(resource_id, inputs, outputs)

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        return self._prove(resource_id, inputs, old, context)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        """A proof is a record: nothing at the store is to be deleted but a decoy that could not be before."""
        self._take_back(self._lenders[text(outputs, "lender")], outputs, outputs.get("decoysLeft") or (), context)

    def _take_back(self, lender: Lender, inputs: Values, decoys: Iterable[str], context: Context) -> list[str]:
        """Delete decoys that earlier runs left; the names of those that are still there."""
        left = []
        for decoy in decoys:
            try:
                # By its mark it is known to be ours.
                if lender.lend(inputs, decoy) and not _took_back(lender, inputs, decoy, context):
                    left.append(decoy)
            except ResourceError as error:
                _say_left(decoy, error, context)
                left.append(decoy)
        return left

    @contextmanager
    def _lent(self, lender: Lender, inputs: Values, left: list[str], context: Context) -> Iterator[str]:
        """A decoy for the time of the proof; "" where there is none to be had."""
        decoy = decoy_name(Connection.parse(inputs), text(inputs, "bucket"))
        if not (inputs.get("admin") and inputs.get("decoy") and lender.lend(inputs, decoy)):
            yield ""
            return
        try:
            yield decoy
        finally:
            lent = (decoy, *lender.left_behind(inputs, decoy))
            left += [name for name in lent if not _took_back(lender, inputs, name, context)]

    def _prove(self, resource_id: str, inputs: Values, old: Values, context: Context) -> Values:
        connection = Connection.parse(inputs)
        credential = Credential(text(inputs, "accessKeyId"), text(inputs, "secretAccessKey"))
        bucket, prefix = text(inputs, "bucket"), text(inputs, "prefix")
        expected = {Operation(name): Expected(value) for name, value in inputs["expected"].items()}
        settle = float(inputs.get("settleSeconds") or 0)
        outputs: Values = {**inputs, "madeFor": "", "lines": []}
        lender = self._lenders[text(inputs, "lender")]
        left: list[str] = []
        try:
            if old.get("decoysLeft"):
                left += self._take_back(self._lenders[text(old, "lender")], old, old["decoysLeft"], context)
            with self._lent(lender, inputs, left, context) as decoy:
                lines = prove(connection, credential, bucket, prefix, expected, decoy=decoy, settle_seconds=settle)
            if inputs.get("admin"):
                quietly(lender.clear, inputs)
            if inputs.get("userName"):
                forget_journal(connection.iam(), text(inputs, "userName"), credential.access_key_id)
        except ResourceError as error:
            raise PartialError(f"the proof could not be run: {error}", resource_id, outputs) from None
        finally:
            if left:
                outputs["decoysLeft"] = sorted(set(left))
        outputs["secretSha256"] = secret_sha256(credential.access_key_id, credential.secret)
        outputs["lines"] = [line_to_json(line) for line in lines]
        outputs["madeFor"] = fingerprint(
            access_key_id=credential.access_key_id,
            policy_sha256=text(inputs, "policySha256"),
            bucket=bucket,
            endpoint_url=text(inputs, "endpointUrl"),
            region=text(inputs, "region"),
            prefix=prefix,
            method=text(inputs, "method"),
            access=text(inputs, "access"),
        )
        if not Proof(outputs["madeFor"], lines).passed:
            raise PartialError(f"the proof failed: {advice(lines)}", resource_id, outputs)
        return outputs
