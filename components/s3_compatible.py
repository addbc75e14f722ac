"""Any other S3-compatible store: with an IAM endpoint a user of its own, else the operator's own key."""

from __future__ import annotations

from .s3_iam import S3IamStore


class S3Compatible(S3IamStore):
    """Bucket, user, policy and key over the S3 and IAM query APIs (versitygw, Ceph, …)."""
