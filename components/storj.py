"""Storj: bucket, key ring and proof, from an access grant that never leaves the operator's machine as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from . import resources
from .args import StoreArgs, is_known
from .store import Store, given

OBJECTS = ("deletes", "lists", "reads", "writes")
"""What a key is given under `access: least`: no method works with less, since overwriting and aborting need deletes."""

EVERYTHING = ("*",)
"""Under `access: full`; the operator's own grant must have it all."""

EXPIRES_IN_DAYS = 400
AUTH = "https://auth.storjshare.io"


@dataclass(frozen=True, kw_only=True)
class StorjArgs(StoreArgs):
    """A store at Storj."""

    expires_in_days: int | None = None
    """A key ends so many days after it is made, 1 to 36500; 0 for no end. Left out: 400."""

    auth_endpoint: pulumi.Input[str] | None = None
    """Where access grants are registered for S3 keys. Left out: https://auth.storjshare.io."""

    ca_file: str | None = None
    """PEM file with the certificates to trust for an auth service and gateway of your own."""

    versioning: bool | None = None
    """True: keep overwritten and deleted versions; Storj never removes them by itself. Left out: what the catalog
    has."""


class Storj(Store):
    """A private bucket, S3 keys for grants restricted to it, and the proof of the active key.

    Storj has no users, policies or lifecycle rules. A key pair can't be deleted, so each ends by itself.
    """

    family = "storj"

    def __init__(self, name: str, args: StorjArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts)

    def provision(self) -> None:
        store = self.store
        permissions = sorted(EVERYTHING if store.access == "full" else OBJECTS)
        inputs, known_lacks = self.bucket_inputs()
        bucket = resources.Bucket(
            self.name,
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
            self.name,
            {
                **self.ring_inputs(),
                # A grant has no user; its bucket is what its keys are known by.
                "userName": self.setting("bucket"),
                "bucket": self.setting("bucket"),
                "permissions": permissions,
                "expiresInDays": store.options.get("expires_in_days", EXPIRES_IN_DAYS),
                **dict.fromkeys(("endpoint", "endpoints", "ends", "grants", "ending", "lifetimes")),
            },
            self.child(bucket),
            kind="StorjKeyRing",
        )
        named, found = self._named_endpoint, ring.out("endpoint")
        self.finish(
            region=self.setting("region"),
            endpoint_url=(named or found) if is_known(named) else given(_first, named, found),
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=pulumi.Output.all(bucket.out("lacks"), ring.out("lifetimes")).apply(
                lambda found: _all_of(known_lacks, *found)
            ),
            made=(bucket, ring),
            policy=given(lambda name: {"bucket": name, "permissions": permissions}, self.setting("bucket")),
            lender="storj",
            created_at=self.created_at(ring),
        )

    @property
    def _named_endpoint(self) -> Any:
        """The gateway that the stack file names; "": the one that knows the key says where it is."""
        usual = self.provider.endpoint("")
        return given(lambda endpoint: "" if endpoint == usual else endpoint, self.setting("endpoint"))

    def connection(self) -> dict[str, Any]:
        auth = self.setting("auth_endpoint", AUTH)
        return {**super().connection(), "endpoint": self._named_endpoint, "authEndpoint": auth}


def _first(named: str, found: str) -> str:
    return named or found


def _all_of(*lists: Sequence[str] | None) -> list[str]:
    return [words for listed in lists for words in listed or ()]
