"""Garage: bucket and keys by its admin API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from . import resources
from .args import StoreArgs
from .store import Store


@dataclass(frozen=True, kw_only=True)
class GarageArgs(StoreArgs):
    """A store on Garage. `endpoint` is needed."""

    admin_endpoint: pulumi.Input[str]
    """URL of the admin API, such as http://127.0.0.1:3903."""

    quota_bytes: int | None = None
    """Bytes that the bucket holds at most. Left out: any number."""

    quota_objects: int | None = None
    """Objects that the bucket holds at most. Left out: any number."""


class Garage(Store):
    """A bucket with quotas and a rule for unfinished uploads, and keys with read and write on it, never owner."""

    family = "garage"

    def __init__(self, name: str, args: GarageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)

    def provision(self) -> None:
        store = self.store
        inputs, lacks = self.bucket_inputs()
        kept = ("bucket", "connection", "owner", "formerOwner", "adopt", "manage", "abortDays", "forceDestroy")
        bucket = resources.Bucket(
            self.name,
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
            self.name,
            {
                **self.ring_inputs(),
                "owner": self.owner,
                "bucketId": bucket.out("bucketId"),
                **({"adopt": True} if store.adopt else {}),
                "resumed": bucket.out("resumed"),
            },
            resources.by_name(self.child(bucket)),
            kind="GarageKeyRing",
        )
        self.finish(
            region=self.setting("region"),
            endpoint_url=self.setting("endpoint"),
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=bucket.out("lacks").apply(lambda found: [*lacks, *(found or [])]),
            made=(bucket, ring),
            lender="garage",
            created_at=self.created_at(ring),
        )

    def connection(self) -> dict[str, Any]:
        return {**super().connection(), "adminEndpoint": self.setting("admin_endpoint")}
