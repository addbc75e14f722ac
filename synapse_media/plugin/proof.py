"""`s3store:index:Proof`: the probes of `store.probes` run in `up`, before anything is configured with the key.

An admin is at hand, who lends a decoy bucket and clears up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

from synapse_media.contract import PROOF_OBJECT, Proof, fingerprint, line_to_json, secret_sha256
from synapse_media.errors import StoreError
from synapse_media.methods import Expected, Operation
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN
from synapse_media.schema.resources import ProofInputs
from synapse_media.store.clients import ApiError, Credential, call, iam_client, s3_client
from synapse_media.store.objects import remove_versions
from synapse_media.store.probes import advice, bucket_in, prove, quietly

from .bucket import is_marked, mark, mark_of
from .iam import forget_journal
from .resource import Context, Found, PartialError, Resource, Values, connection_of, text

DECOY: Final = "synapse-media-decoy-"
"""How the name of every decoy bucket begins."""


def decoy_name(connection: Connection, bucket: str) -> str:
    """The same name for the same store: what a killed run left is found again."""
    seed = f"{connection.endpoint}/{connection.region}/{bucket}"
    return f"{DECOY}{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


class ProofAdministrator(Protocol):
    """What the proof needs an administrator for. Every method may raise StoreError."""

    def lend_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        """Make an empty bucket of this name that the key must not reach, or find the one an earlier run left.

        It carries the store's mark, where the store has marks; with another's it is refused. False where this
        administrator can make none.
        """

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        """Delete the decoy."""

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        """The decoys of this store but this one, that a run which was killed left; [] where they can't be told."""

    def clear(self, inputs: ProofInputs) -> None:
        """Remove what the proof wrote."""


class S3Lender:
    """An administrator with an S3 key."""

    def lend(self, inputs: Values, decoy: str) -> bool:
        connection = connection_of(inputs)
        s3 = s3_client(connection)
        try:
            call(s3, "create_bucket", **bucket_in(connection.region, decoy))
        except ApiError as error:
            if error.code != "BucketAlreadyOwnedByYou":
                raise
        mark(s3, decoy, inputs)
        return True

    def take_back(self, inputs: Values, decoy: str) -> None:
        call(s3_client(connection_of(inputs)), "delete_bucket", Bucket=decoy)

    def left_behind(self, inputs: Values, decoy: str) -> list[str]:
        s3 = s3_client(connection_of(inputs))
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
        s3, bucket = s3_client(connection_of(inputs)), text(inputs, "bucket")
        key = text(inputs, "prefix") + PROOF_OBJECT
        remove_versions(s3, bucket, key)
        # A key that may not abort leaves its uploads.
        for upload in call(s3, "list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", []):
            if upload["Key"] == key:
                call(s3, "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload["UploadId"])


def _took_back(lender: ProofAdministrator, inputs: Values, decoy: str, context: Context) -> bool:
    """Delete a decoy; False, and said, where it is still there."""
    try:
        lender.take_back(inputs, decoy)
    except StoreError as error:
        if not (isinstance(error, ApiError) and error.absent):
            _say_left(decoy, error, context)
            return False
    return True


def _say_left(decoy: str, why: StoreError, context: Context) -> None:
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

    def __init__(self, lenders: Mapping[str, ProofAdministrator] | None = None) -> None:
        self._lenders: dict[str, ProofAdministrator] = {"": S3Lender(), **(lenders or {})}

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "madeFor": UNKNOWN, "lines": UNKNOWN, "secretSha256": UNKNOWN}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        name = f"proof-{inputs['bucket']}"
        return name, self._prove(name, inputs, {}, context)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise StoreError("a proof can't be imported: `up` makes it.")
        # Nothing to read: it says what was tried and when it was made, of which nothing can drift.
        return Found(resource_id, inputs, outputs)

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        return self._prove(resource_id, inputs, old, context)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        """A proof is a record: nothing at the store is to be deleted but a decoy that could not be before."""
        self._take_back(self._lenders[text(outputs, "lender")], outputs, outputs.get("decoysLeft") or (), context)

    def _take_back(
        self, lender: ProofAdministrator, inputs: Values, decoys: Iterable[str], context: Context
    ) -> list[str]:
        """Delete decoys that earlier runs left; the names of those that are still there."""
        left = []
        for decoy in decoys:
            try:
                # By its mark it is known to be ours.
                if lender.lend(inputs, decoy) and not _took_back(lender, inputs, decoy, context):
                    left.append(decoy)
            except StoreError as error:
                _say_left(decoy, error, context)
                left.append(decoy)
        return left

    @contextmanager
    def _lent(self, lender: ProofAdministrator, inputs: Values, left: list[str], context: Context) -> Iterator[str]:
        """A decoy for the time of the proof; "" where there is none to be had."""
        decoy = decoy_name(connection_of(inputs), text(inputs, "bucket"))
        if not (inputs.get("admin") and inputs.get("decoy") and lender.lend(inputs, decoy)):
            yield ""
            return
        try:
            yield decoy
        finally:
            lent = (decoy, *lender.left_behind(inputs, decoy))
            left += [name for name in lent if not _took_back(lender, inputs, name, context)]

    def _prove(self, resource_id: str, inputs: Values, old: Values, context: Context) -> Values:
        connection = connection_of(inputs)
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
                forget_journal(iam_client(connection), text(inputs, "userName"), credential.access_key_id)
        except StoreError as error:
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
