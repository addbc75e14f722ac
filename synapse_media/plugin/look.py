"""A look into a bucket before anything is deleted, by the code that would delete it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse_media.errors import StoreError
from synapse_media.store.clients import ApiError, call

from .backblaze_b2 import B2Bucket
from .bucket import Bucket
from .garage import GarageBucket
from .resource import Values
from .storj import StorjBucket

_S3 = Bucket()
_OURS: Mapping[str, Bucket | B2Bucket | GarageBucket] = {
    bucket.pulumi_type: bucket for bucket in (_S3, B2Bucket(), GarageBucket(), StorjBucket())
}


def look(kind: str, values: Mapping[str, Any]) -> bool:
    """Whether there is media in a bucket, old versions included; False also where the store says that it is gone.

    Args:
        kind: its resource type. A vendor's is looked at over S3.
        values: its outputs; of a vendor's, `bucket` and `connection`.

    Raises:
        StoreError: it can't be seen.
    """
    found: Values = dict(values)
    return _OURS.get(kind, _S3).holds_media(found)


def is_gone(values: Mapping[str, Any]) -> bool:
    """Whether the store says that a vendor's bucket is not there. Raises StoreError where it can't be asked.

    Args:
        values: its `bucket` and `connection`.
    """
    found: Values = dict(values)
    try:
        call(_S3.s3(found), "list_objects_v2", Bucket=found["bucket"], MaxKeys=1)
    except ApiError as error:
        if error.code != "NoSuchBucket":
            raise
        return True
    return False


def refuse_taken(values: Mapping[str, Any]) -> None:
    """Raise StoreError where a bucket is there already that a vendor's plugin would take over.

    Some stores answer CreateBucket with success to whoever owns the bucket, whatever is in it (Amazon in us-east-1,
    Ceph: https://github.com/ceph/ceph/pull/68722).

    Args:
        values: `bucket`, `connection`, `owner`.
    """
    found: Values = dict(values)
    try:
        s3 = _S3.s3(found)
    except StoreError:
        return  # without a key for S3 there is no look; the vendor's plugin says what it lacks
    _S3.taken(s3, found["bucket"], found)
