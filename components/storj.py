"""Storj: bucket, key ring and proof, from the operator's access grant, which is only passed on restricted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pulumi

from synapse_media.plugin.storj import AUTH

from . import resources
from .args import StoreArgs, is_known
from .store import Store, given

OBJECTS = ("deletes", "lists", "reads", "writes")
"""What a key is given under `access: least`: no method works with less, since overwriting and aborting need deletes."""

EVERYTHING = ("*",)
"""Under `access: full`; the operator's own grant must have it all."""

EXPIRES_IN_DAYS = 400


@dataclass(frozen=True, kw_only=True)
class StorjArgs(StoreArgs):
    """A store at Storj."""

    expires_in_days: int | None = None
    """Days until a key expires, 1 to 36500; 0: never. Default: 400."""

    auth_endpoint: pulumi.Input[str] | None = None
    """URL of the auth service that issues S3 keys for access grants. Default: https://auth.storjshare.io."""

    ca_file: str | None = None
    """PEM file with the certificates to trust for your own auth service and gateway."""

    versioning: bool | None = None
    """True: keep overwritten and deleted versions, which Storj never removes. Default: that of the catalog."""


class Storj(Store[StorjArgs]):
    """A private bucket, S3 keys for grants restricted to it, and the proof of the active key.

    Storj has no users, policies or lifecycle rules. Key pairs can't be deleted, so they expire.
    """

    family = "storj"

    def provision(self) -> None:
        store = self.store
        permissions = sorted(EVERYTHING if store.access == "full" else OBJECTS)
        usual = self.bucket_args()
        settings = replace(
            usual,
            versioning=store.options.get("versioning", usual.versioning),
            # The gateway has no ACLs: access needs a grant.
            acl="",
            # Versioning and tags must be enabled for a project: a denial is only reported.
            may_be_denied=True,
        )
        bucket = resources.StorjBucket(
            self.name,
            resources.StorjBucketArgs(**vars(settings), key_permissions=permissions),
            self.of_bucket(),
        )
        ring = resources.StorjKeyRing(
            self.name,
            resources.StorjKeyRingArgs(
                # Grants have no users, so the bucket identifies the keys.
                **vars(replace(self.any_ring(), user_name=self.setting("bucket"))),
                bucket=self.setting("bucket"),
                permissions=permissions,
                expires_in_days=store.options.get("expires_in_days", EXPIRES_IN_DAYS),
            ),
            self.child(bucket),
        )
        named, found = self._named_endpoint, ring.endpoint
        self.finish(
            ring,
            bucket,
            endpoint_url=(named or found) if is_known(named) else given(_first, named, found),
            lacks=pulumi.Output.all(self.with_known_lacks(bucket.lacks), ring.lifetimes).apply(
                lambda found: [words for listed in found for words in listed or ()]
            ),
            policy=given(lambda name: {"bucket": name, "permissions": permissions}, self.setting("bucket")),
        )

    @property
    def _named_endpoint(self) -> str | pulumi.Output[str]:
        """The gateway in the stack file; "": the one that is returned with the key."""
        usual = self.provider.endpoint("")
        return given(lambda endpoint: "" if endpoint == usual else endpoint, self.setting("endpoint"))

    def connection(self) -> resources.ConnectionArgs:
        auth = self.setting("auth_endpoint", AUTH)
        return replace(super().connection(), endpoint=self._named_endpoint, auth_endpoint=auth)


def _first(named: str, found: str) -> str:
    return named or found
