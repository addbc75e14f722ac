"""A look into a bucket before anything is deleted or made, by the code that would do it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from synapse_media.errors import StoreError
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import s3_client

from . import families
from .bucket import BucketBase
from .s3_bucket import Bucket, has_tags

_S3 = Bucket()


@cache
def _buckets() -> dict[str, BucketBase[Any, Any]]:
    """The bucket of each family, by its resource type."""
    return {resource.pulumi_type: resource for resource in families.resources() if isinstance(resource, BucketBase)}


def look(kind: str, values: Mapping[str, Any]) -> bool:
    """Whether there is media in a bucket, old versions included; False also where the store says that it is gone.

    Args:
        kind: its resource type. A vendor's is looked at over S3.
        values: its outputs; of a vendor's, `bucket` and `connection`.

    Raises:
        StoreError: it can't be seen.
    """
    return _buckets().get(kind, _S3).holds_media(values)


def is_gone(values: Mapping[str, Any]) -> bool:
    """Whether the store says that a vendor's bucket is not there. Raises StoreError where it can't be asked.

    Args:
        values: its `bucket` and `connection`.
    """
    return not _S3.family(_S3.read_state(values)).find()


def keeps_marks(values: Mapping[str, Any]) -> bool:
    """Whether the store of a bucket that is not there yet has tags, by which its stack is known; False if unknown.

    Args:
        values: `bucket`, `connection`.
    """
    inputs = _S3.read_inputs({"owner": "", **values})
    try:
        return has_tags(s3_client(inputs.connection), inputs.bucket)
    except ApiError as error:
        return error.absent
    except StoreError:
        return False


def refuse_taken(values: Mapping[str, Any]) -> None:
    """Raise StoreError if a bucket exists that a vendor's plugin would silently adopt.

    Some stores answer CreateBucket with success to whoever owns the bucket, whatever is in it (Amazon in us-east-1,
    Ceph: https://github.com/ceph/ceph/pull/68722).

    Args:
        values: `bucket`, `connection`, `owner`.
    """
    inputs = _S3.read_inputs(values)
    try:
        s3_client(inputs.connection)
    except StoreError:
        return  # without a key for S3 there is no look; the vendor's plugin says what it lacks
    _S3.refuse_taken(inputs)
