"""Garage: bucket and keys by its admin API."""

from __future__ import annotations

from typing import Any

from synapse_media.allow import retires_key
from synapse_media.settings import StoreSettings

from . import resources
from .store import Store


class Garage(Store):
    """A bucket with quotas and a rule for unfinished uploads, and keys with read and write on it, never owner."""

    def __init__(self, name: str, store: StoreSettings) -> None:
        super().__init__(name, store)
        inputs, lacks = self.bucket_inputs()
        kept = ("bucket", "connection", "owner", "formerOwner", "adopt", "manage", "abortDays", "forceDestroy")
        bucket = resources.Bucket(
            name,
            {
                **{key: inputs[key] for key in kept if key in inputs},
                "quotaBytes": store.options.get("quota_bytes", 0),
                "quotaObjects": store.options.get("quota_objects", 0),
                "website": False,
            },
            self.of_bucket(),
            kind="GarageBucket",
            more=("bucketId", "resumed"),
        )
        ring = resources.KeyRing(
            name,
            {
                "userName": store.user,
                "owner": self.owner,
                "bucketId": bucket.out("bucketId"),
                "active": store.keys.active,
                "slots": sorted(store.keys.slots),
                "retireConfirmed": retires_key(store.allow),
                "connection": self.connection(),
                **({"adopt": True} if store.adopt else {}),
                "resumed": bucket.out("resumed"),
            },
            resources.by_name(self.child(bucket)),
            kind="GarageKeyRing",
        )
        self.finish(
            region=store.region,
            endpoint_url=store.endpoint,
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=bucket.out("lacks").apply(lambda found: [*lacks, *(found or [])]),
            made=(bucket, ring),
            lender="garage",
            created_at=self.created_at(ring),
        )

    def connection(self) -> dict[str, Any]:
        return {**super().connection(), "adminEndpoint": self.store.options["admin_endpoint"]}
