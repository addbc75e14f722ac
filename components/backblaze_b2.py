"""Backblaze B2: a bucket by the native API, application keys restricted to it, region and endpoint of the account."""

from __future__ import annotations

from typing import Any

from synapse_media.allow import retires_key
from synapse_media.methods import Operation, granted
from synapse_media.settings import StoreSettings

from . import resources
from .store import Store

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


class BackblazeB2(Store):
    """A private bucket that keeps the last version of a file only, and keys restricted to it.

    Every key can hide a file, whatever it was made for; under `least` only those whose method deletes can delete a
    version for good.
    """

    def __init__(self, name: str, store: StoreSettings) -> None:
        super().__init__(name, store)
        inputs, lacks = self.bucket_inputs()
        kept = (
            "bucket",
            "connection",
            "owner",
            "formerOwner",
            "adopt",
            "manage",
            "noncurrentDays",
            "abortDays",
            "forceDestroy",
        )
        # Filled in from the region; only one that was written says anything.
        endpoint = "" if store.endpoint == self.provider.endpoint(store.region) else store.endpoint
        bucket = resources.Bucket(
            name,
            {
                **{key: inputs[key] for key in kept if key in inputs},
                "private": True,
                "encryption": True,
                "region": store.region,
                "endpoint": endpoint,
            },
            self.of_bucket(),
            kind="B2Bucket",
            more=("bucketId", "accountRegion", "accountEndpoint", "resumed"),
        )
        ring = resources.KeyRing(
            name,
            {
                "userName": store.user,
                "owner": self.owner,
                "bucketId": bucket.out("bucketId"),
                "capabilities": self._capabilities(),
                "active": store.keys.active,
                "slots": sorted(store.keys.slots),
                "retireConfirmed": retires_key(store.allow),
                "connection": self.connection(),
                **({"adopt": True} if store.adopt else {}),
                "resumed": bucket.out("resumed"),
            },
            resources.by_name(self.child(bucket)),
            kind="B2KeyRing",
        )
        self.finish(
            region=bucket.out("accountRegion"),
            endpoint_url=bucket.out("accountEndpoint"),
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=bucket.out("lacks").apply(lambda found: [*lacks, *(found or [])]),
            made=(bucket, ring),
            lender="backblaze_b2",
            created_at=self.created_at(ring),
        )

    def connection(self) -> dict[str, Any]:
        return {**super().connection(), "realm": str(self.store.options.get("realm", ""))}

    def _capabilities(self) -> list[str]:
        given = granted(self.method, self.store.access)
        return sorted({"listBuckets", *(name for operation in given for name in _CAPABILITIES.get(operation, ()))})
