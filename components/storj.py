"""Storj: bucket, key ring and proof, from an access grant that never leaves the operator's machine as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from synapse_media.allow import retires_key
from synapse_media.settings import StoreSettings

from . import resources
from .store import Store

OBJECTS = ("deletes", "lists", "reads", "writes")
"""What a key is given under `access: least`: no method works with less, since overwriting and aborting need deletes."""

EVERYTHING = ("*",)
"""Under `access: full`; the operator's own grant must have it all."""

EXPIRES_IN_DAYS = 400
AUTH = "https://auth.storjshare.io"


class Storj(Store):
    """A private bucket, S3 keys for grants restricted to it, and the proof of the active key.

    Storj has no users, policies or lifecycle rules. A key pair can't be deleted, so each ends by itself.
    """

    def __init__(self, name: str, store: StoreSettings) -> None:
        super().__init__(name, store)
        permissions = sorted(EVERYTHING if store.access == "full" else OBJECTS)
        inputs, known_lacks = self.bucket_inputs()
        bucket = resources.Bucket(
            name,
            {
                **inputs,
                "versioning": store.options.get("versioning", inputs["versioning"]),
                # The gateway has no access lists: nothing but a grant reaches the bucket.
                "acl": "",
                # Versioning and tags are switched on by project: a refusal is said, and no reason to fail.
                "mayBeDenied": True,
                "keyPermissions": permissions,
                "fingerprint": None,
            },
            self.of_bucket(),
            kind="StorjBucket",
        )
        ring = resources.KeyRing(
            name,
            {
                "userName": store.bucket,
                "bucket": store.bucket,
                "active": store.keys.active,
                "slots": sorted(store.keys.slots),
                "retireConfirmed": retires_key(store.allow),
                "permissions": permissions,
                "expiresInDays": store.options.get("expires_in_days", EXPIRES_IN_DAYS),
                "connection": self.connection(),
                **dict.fromkeys(("endpoint", "endpoints", "ends", "grants", "ending", "lifetimes")),
            },
            self.child(bucket),
            kind="StorjKeyRing",
        )
        self.finish(
            region=store.region,
            endpoint_url=self._named_endpoint or ring.out("endpoint"),
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=pulumi.Output.all(bucket.out("lacks"), ring.out("lifetimes")).apply(
                lambda found: _all_of(known_lacks, *found)
            ),
            made=(bucket, ring),
            policy={"bucket": store.bucket, "permissions": permissions},
            lender="storj",
            created_at=self.created_at(ring),
        )

    @property
    def _named_endpoint(self) -> str:
        """The gateway that the stack file names; "": the one that knows the key says where it is."""
        usual = self.provider.endpoint(self.store.region)
        return "" if self.store.endpoint == usual else self.store.endpoint

    def connection(self) -> dict[str, Any]:
        auth = str(self.store.options.get("auth_endpoint", AUTH))
        return {**super().connection(), "endpoint": self._named_endpoint, "authEndpoint": auth}


def _all_of(*lists: Sequence[str] | None) -> list[str]:
    return [words for listed in lists for words in listed or ()]
