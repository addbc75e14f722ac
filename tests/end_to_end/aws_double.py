"""A double of how Amazon S3 answers for a missing key; everything else is the embedded store's.

The embedded store says NoSuchKey even to a key without s3:ListBucket, so it can't show what a policy without that
action does to Synapse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from tests.doubles import proxy


@contextmanager
def answering_403_for_missing_keys(endpoint_url: str, for_keys: Collection[str] | None = None) -> Iterator[str]:
    """The URL of a double in front of an endpoint that answers 403 AccessDenied for GET and HEAD of a missing key.

    Args:
        for_keys: the access key ids that are without s3:ListBucket; None: all.
    """
    with proxy.in_front_of(endpoint_url) as double:
        double.misbehave(proxy.denied_for_missing_keys(for_keys))
        yield double.url
