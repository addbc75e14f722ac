"""DigitalOcean Spaces: the bucket on the vendor's plugin, limited keys by ours.

Limited keys and bucket policies exclude each other on one bucket, so there is no TLS-only policy.
https://docs.digitalocean.com/products/spaces/how-to/configure-bucket-policies/
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_digitalocean as digitalocean

from synapse_media.allow import deletes_media, retires_key
from synapse_media.settings import StoreSettings

from . import resources
from .store import Store

TOKEN = "DIGITALOCEAN_TOKEN"  # noqa: S105 - the variable's name
ADMIN = ("SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")
"""The full-access key; the vendor's plugin reads the same variables."""


class DigitalOceanSpaces(Store):
    """A private, versioned bucket and its ring of limited keys.

    With an API token alone in the environment, also a full-access key for the vendor's plugin: it is deleted again by
    the first `up` that finds one in the environment.
    """

    def __init__(self, name: str, store: StoreSettings) -> None:
        super().__init__(name, store)
        bucket, lacks = self._adopted() if store.adopt else self._made()
        ring = resources.KeyRing(
            name,
            {
                "userName": store.user,
                "owner": self.owner,
                "active": store.keys.active,
                "slots": sorted(store.keys.slots),
                "retireConfirmed": retires_key(store.allow),
                "grants": [{"bucket": store.bucket, "permission": "readwrite"}],
                "adopt": store.adopt,
                "connection": self.connection(),
            },
            resources.by_name(self.child(bucket)),
            kind="SpacesKeyRing",
        )
        self.finish(
            region=store.region,
            endpoint_url=store.endpoint,
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=lacks,
            made=(bucket, ring),
            lender="spaces",
            created_at=self.created_at(ring),
        )

    def connection(self) -> dict[str, Any]:
        return {**super().connection(), "variables": list(ADMIN), "apiEndpoint": self._api_endpoint}

    @property
    def _api_endpoint(self) -> str:
        return str(self.store.options.get("api_endpoint", ""))

    def _adopted(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        """A bucket that is there already: ours looks at it and reports, where the vendor's plugin would set it."""
        inputs, lacks = self.bucket_inputs()
        bucket = resources.Bucket(self.name, inputs, self.of_bucket())
        return bucket, bucket.out("lacks").apply(lambda found: [*lacks, *(found or [])])

    def _made(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        store = self.store
        own_endpoint = store.endpoint != self.provider.endpoint(store.region)
        vendor = _vendor(
            pulumi.runtime.settings.get_monitor(), self._api_endpoint, store.endpoint if own_endpoint else ""
        )
        rule = digitalocean.SpacesBucketLifecycleRuleArgs(
            id="synapse-media",
            enabled=True,
            prefix="",
            abort_incomplete_multipart_upload_days=store.abort_days,
            noncurrent_version_expiration=digitalocean.SpacesBucketLifecycleRuleNoncurrentVersionExpirationArgs(
                days=store.noncurrent_days
            ),
        )
        # The vendor's plugin writes a new name into the state and nowhere else; what it then deletes is another's.
        by_vendor = pulumi.ResourceOptions(provider=vendor, replace_on_changes=["name"])
        bucket = digitalocean.SpacesBucket(
            self.name,
            name=store.bucket,
            region=store.region,
            acl="private",
            force_destroy=deletes_media(store.allow),
            versioning=digitalocean.SpacesBucketVersioningArgs(enabled=True),
            lifecycle_rules=[rule],
            opts=pulumi.ResourceOptions.merge(self.of_bucket(), by_vendor),
        )
        return bucket, self.bucket_inputs()[1]


@cache
def _vendor(
    program: object,  # noqa: ARG001 - a cache key: another run of the program needs a resource of its own
    api_endpoint: str,
    spaces_endpoint: str,
) -> digitalocean.Provider:
    """The vendor's plugin, one for all stores of the stack: each is a process of its own.

    Args:
        api_endpoint, spaces_endpoint: "" for the vendor's own.
    """
    options: dict[str, Any] = {}
    if api_endpoint:
        options["api_endpoint"] = api_endpoint
    if spaces_endpoint:
        options["spaces_endpoint"] = spaces_endpoint
    name = "-".join(["digitalocean", *(urlsplit(url).netloc for url in (spaces_endpoint,) if url)])
    key = _admin_key(name, api_endpoint)
    if key is not None:
        # The vendor's SDK takes only the token for a secret.
        options["spaces_access_id"] = key.out("accessKeyId")
        options["spaces_secret_key"] = pulumi.Output.secret(key.out("secretAccessKey"))
    return digitalocean.Provider(name, **options)


def _admin_key(name: str, api_endpoint: str) -> resources.SpacesAdminKey | None:
    """A full-access key of the stack's own, where only the token is there; None where there is one already."""
    missing = [variable for variable in ADMIN if not os.environ.get(variable)]
    if len(missing) == 1:
        raise pulumi.RunError(f"the environment has only one of {' and '.join(ADMIN)}: {missing[0]} is missing.")
    if not missing or not os.environ.get(TOKEN):
        return None
    owner = f"{pulumi.get_project()}/{pulumi.get_stack()}"
    inputs = {"name": "synapse-media-admin", "owner": owner, "connection": {"apiEndpoint": api_endpoint}}
    return resources.SpacesAdminKey(name, inputs, pulumi.ResourceOptions())
