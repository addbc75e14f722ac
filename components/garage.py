"""Garage: bucket and keys by its admin API."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """Quota of the bucket in bytes. Default: none."""

    quota_objects: int | None = None
    """Quota of the bucket in objects. Default: none."""


class Garage(Store[GarageArgs]):
    """A bucket with quotas and a rule for unfinished uploads, and keys with read and write on it, never owner."""

    family = "garage"

    def provision(self) -> None:
        store = self.store
        bucket = resources.GarageBucket(
            self.name,
            resources.GarageBucketArgs(
                **vars(self.any_bucket()),
                abort_days=store.abort_days,
                quota_bytes=store.options.get("quota_bytes", 0),
                quota_objects=store.options.get("quota_objects", 0),
                website=False,
            ),
            self.of_bucket(),
        )
        ring = resources.GarageKeyRing(
            self.name,
            resources.GarageKeyRingArgs(
                **vars(self.any_ring()), owner=self.owner, bucket_id=bucket.bucket_id, nonce=bucket.nonce
            ),
            self.of_named_keys(bucket),
        )
        self.finish(
            ring,
            bucket,
            lacks=self.with_known_lacks(bucket.lacks),
        )

    def connection(self) -> resources.ConnectionArgs:
        return replace(super().connection(), admin_endpoint=self.setting("admin_endpoint"))
