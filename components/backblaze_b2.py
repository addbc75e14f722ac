"""Backblaze B2: a bucket by the native API, application keys restricted to it, region and endpoint of the account."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pulumi

from synapse_media.methods import Operation, granted

from . import resources
from .args import StoreArgs
from .store import Store, given

# https://www.backblaze.com/docs/cloud-storage-s3-compatible-app-keys ; HeadBucket, which many programs begin with, and
# the calls of every other line need listBuckets. A delete by name only hides and comes with writeFiles; deleteFiles
# deletes a version for good.
_CAPABILITIES = {
    Operation.PUT: ("writeFiles",),
    Operation.GET: ("readFiles",),
    Operation.LIST: ("listFiles",),
    Operation.DELETE: ("deleteFiles",),
    Operation.LOCATION: ("readBuckets",),
}


@dataclass(frozen=True, kw_only=True)
class BackblazeB2Args(StoreArgs):
    """A store at Backblaze B2. `region` and `endpoint` are read from the account; if given, they are compared with
    it."""

    realm: pulumi.Input[str] | None = None
    """URL of the native API if not Backblaze's own, for example that of a proxy."""


class BackblazeB2(Store[BackblazeB2Args]):
    """A private bucket that keeps only the last version of a file, and keys restricted to it.

    Every key can hide files. With `access: least`, only those of a method that deletes can delete a version
    permanently.
    """

    family = "backblaze_b2"

    def provision(self) -> None:
        # Filled in from the region; only one that was written says anything.
        def written(endpoint: str, region: str) -> str:
            return "" if endpoint == self.provider.endpoint(region) else endpoint

        bucket = resources.B2Bucket(
            self.name,
            resources.B2BucketArgs(
                **vars(self.any_bucket()),
                private=True,
                encryption=True,
                noncurrent_days=self.store.noncurrent_days,
                abort_days=self.store.abort_days,
                region=self.setting("region"),
                endpoint=given(written, self.setting("endpoint"), self.setting("region")),
            ),
            self.of_bucket(),
        )
        ring = resources.B2KeyRing(
            self.name,
            resources.B2KeyRingArgs(
                **vars(self.any_ring()),
                owner=self.owner,
                bucket_id=bucket.bucket_id,
                capabilities=self._capabilities(),
                nonce=bucket.nonce,
            ),
            self.of_named_keys(bucket),
        )
        self.finish(
            ring,
            bucket,
            region=bucket.account_region,
            endpoint_url=bucket.account_endpoint,
            lacks=self.with_known_lacks(bucket.lacks),
        )

    def connection(self) -> resources.ConnectionArgs:
        return replace(super().connection(), realm=self.setting("realm", ""))

    def _capabilities(self) -> list[str]:
        given = granted(self.method, self.store.access)
        return sorted({"listBuckets", *(name for operation in given for name in _CAPABILITIES.get(operation, ()))})
