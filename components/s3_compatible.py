"""Any other S3-compatible store: with an IAM endpoint a user of its own, else the operator's own key."""

from __future__ import annotations

from typing import Any

from synapse_media.methods import NEVER, Operation

from . import resources
from .s3_iam import S3IamStore


class S3Compatible(S3IamStore):
    """Bucket, user, policy and key over the S3 and IAM query APIs (versitygw, Ceph, …).

    With `existing_key: true` and no IAM endpoint: the bucket, and the operator's own key for Synapse. What such a key
    may do beyond that is the operator's affair, so the proof says what it may and demands no refusal.
    """

    def bucket_inputs(self) -> tuple[dict[str, Any], list[str]]:
        inputs, lacks = super().bucket_inputs()
        return {**inputs, "mayBeDenied": not self.store.iam_endpoint}, lacks

    def provision(self) -> None:
        if self.store.iam_endpoint:
            super().provision()
            return
        bucket, lacks = self.make_bucket()
        key = resources.ExistingKey(
            self.name, {"active": self.store.keys.active, "connection": self.connection()}, self.child()
        )
        self.finish(
            region=self.store.region,
            endpoint_url=self.store.endpoint,
            access_key_id=key.out("accessKeyId"),
            secret_access_key=key.out("secretAccessKey"),
            lacks=lacks,
            made=(bucket, key),
            # The only key there is can't lend itself a decoy.
            admin=False,
            cannot_refuse=sorted(NEVER | {Operation.DELETE}),
        )
