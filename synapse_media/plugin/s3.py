"""The family of stores whose administrator has an S3 key: Amazon S3, Wasabi, and any that is compatible."""

from __future__ import annotations

from typing import Final

from synapse_media.schema.connection import AdminCheck
from synapse_media.schema.resources import ProofInputs
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import call, iam_client, s3_client
from synapse_media.store.objects import bucket_names, clear_proof, create_bucket

from .bucket import is_marked
from .existing_key import ExistingKey
from .families import Family
from .iam import KeyRing, User, UserPolicy, forget_journal
from .proof import DECOY
from .s3_bucket import Bucket, mark, mark_of, read_policy


def check_admin(asked: AdminCheck) -> None:
    """Raises StoreError where the S3 key in the environment is not accepted."""
    try:
        call(s3_client(asked.connection), "list_buckets")
    except ApiError as error:
        # It is known, and may not list all buckets: it need not.
        if not error.denied:
            raise


class S3Administrator:
    """An administrator with an S3 key."""

    def __init__(self) -> None:
        self._ours: set[str] = set()
        """Decoys of the proofs of this process, each of which deletes its own."""

    def ensure_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        self._ours.add(decoy)
        s3 = s3_client(inputs.connection)
        try:
            create_bucket(s3, decoy, inputs.connection.region)
        except ApiError as error:
            if error.code != "BucketAlreadyOwnedByYou":
                raise
        mark(s3, decoy, inputs)
        return True

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        call(s3_client(inputs.connection), "delete_bucket", Bucket=decoy)

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        s3 = s3_client(inputs.connection)
        try:
            listed = list(bucket_names(s3, DECOY))
        except ApiError as error:
            if not (error.denied or error.lacking):
                raise
            return []  # an administrator of some buckets alone
        found = []
        for name in listed:
            # Not those of the proofs beside this one, of which each would ask for the mark of every other.
            if name == decoy or name in self._ours:
                continue
            try:
                if is_marked(mark_of(s3, name), inputs):
                    found.append(name)
            except ApiError as error:
                # Another store's, whose proof ended meanwhile.
                if not error.absent:
                    raise
        return found

    def bucket_policy(self, inputs: ProofInputs) -> str | None:
        try:
            return read_policy(s3_client(inputs.connection), inputs.bucket)
        except ApiError:
            return None  # the key itself is asked then, and why it can't be read is in the proof

    def clear(self, inputs: ProofInputs, own: str) -> None:
        s3, bucket = s3_client(inputs.connection), inputs.bucket
        clear_proof(s3, bucket, inputs.prefix, own)
        # A key that may not abort leaves its uploads.
        for upload in call(s3, "list_multipart_uploads", Bucket=bucket, Prefix=own).get("Uploads", []):
            if upload["Key"] == own:
                call(s3, "abort_multipart_upload", Bucket=bucket, Key=own, UploadId=upload["UploadId"])

    def note_known(self, inputs: ProofInputs) -> None:
        if inputs.user_name:
            # A journal that stayed would have a key that somebody makes by hand deleted, taken for the announced one.
            forget_journal(iam_client(inputs.connection), inputs.user_name, inputs.access_key_id)


FAMILY: Final = Family(
    resources=(Bucket(), User(), UserPolicy(), KeyRing(), ExistingKey()),
    proof_administrator=S3Administrator(),
    check_admin=check_admin,
)
