"""Any other S3-compatible store: with an IAM endpoint a user of its own, else the operator's own key."""

from __future__ import annotations

from dataclasses import dataclass, replace

from synapse_media.methods import NEVER, Operation

from . import resources
from .args import IamStoreArgs
from .s3_iam import S3IamStore


@dataclass(frozen=True, kw_only=True)
class S3CompatibleArgs(IamStoreArgs):
    """A store that is reached by `endpoint`, with `iam_endpoint` or `existing_key`."""

    provider: str = "s3_compatible"
    """What is known of the store: `s3_compatible`, or a preset such as `minio`, `ceph_rgw` or `hetzner`."""

    existing_key: bool = False
    """True: the key in the environment (S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY) is Synapse's own, since the store has
    no IAM endpoint; it is proved, never changed."""

    ca_file: str | None = None
    """PEM file with the certificate of the authority that signed the store's certificate."""

    settle_seconds: int | None = None
    """Seconds that a key made just now may need until the store knows it. Left out: what the catalog has."""


class S3Compatible(S3IamStore[S3CompatibleArgs]):
    """Bucket, user, policy and key over the S3 and IAM query APIs (versitygw, Ceph, …).

    With `existing_key` and no IAM endpoint: the bucket, and the operator's own key for Synapse. What such a key may do
    beyond that is the operator's affair, so the proof says what it may and demands no refusal.
    """

    family = "s3_compatible"

    def bucket_args(self) -> resources.BucketArgs:
        return replace(super().bucket_args(), may_be_denied=not self.is_set("iam_endpoint"))

    def provision(self) -> None:
        if self.is_set("iam_endpoint"):
            super().provision()
            return
        bucket, lacks = self.make_bucket()
        key = resources.ExistingKey(
            self.name,
            resources.ExistingKeyArgs(
                active=self.store.keys.active, connection=self.connection(), bucket=self.setting("bucket")
            ),
            # It is tried on the bucket, before anything of it gets into state.
            self.child(bucket),
        )
        self.finish(
            key,
            bucket,
            lacks=lacks,
            # The only key there is can't create a decoy for itself.
            admin=False,
            cannot_refuse=sorted(NEVER | {Operation.DELETE}),
        )
