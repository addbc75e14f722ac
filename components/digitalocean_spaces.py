"""DigitalOcean Spaces: the bucket on the vendor's plugin, limited keys by ours.

Limited keys and bucket policies exclude each other on one bucket, so there is no TLS-only policy.
https://docs.digitalocean.com/products/spaces/how-to/configure-bucket-policies/
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_digitalocean as digitalocean

from synapse_media.allow import deletes_media
from synapse_media.plugin.digitalocean_spaces import TOKEN

from . import resources
from .args import StoreArgs, is_known
from .store import Store

ADMIN = ("SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")
"""The variables of the full-access key, which the vendor's plugin reads too."""


@dataclass(frozen=True, kw_only=True)
class DigitalOceanSpacesArgs(StoreArgs):
    """A store at DigitalOcean Spaces. `region` is needed."""

    api_endpoint: pulumi.Input[str] | None = None
    """URL of DigitalOcean's API, if not https://api.digitalocean.com. The API token is sent there."""

    settle_seconds: int | None = None
    """How many seconds to wait at most until Spaces accepts a new key. Default: that of the catalog."""


class DigitalOceanSpaces(Store[DigitalOceanSpacesArgs]):
    """A private, versioned bucket and its ring of limited keys.

    With only an API token in the environment, also a full-access key for the vendor's plugin. It is deleted by the
    first `up` that finds one in the environment. A provider of `opts` for the package `digitalocean` makes the bucket;
    it has to be of the same account as the credentials in the environment, by which the keys are made.
    """

    family = "digitalocean_spaces"

    def provision(self) -> None:
        bucket, lacks = self._adopted() if self.store.adopt else self._made()
        grant = resources.SpacesGrantArgs(bucket=self.setting("bucket"), permission="readwrite")
        ring = resources.SpacesKeyRing(
            self.name,
            resources.SpacesKeyRingArgs(**vars(self.any_ring()), owner=self.owner, grants=[grant]),
            self.of_named_keys(bucket),
        )
        self.finish(
            ring,
            bucket,
            lacks=lacks,
        )

    def connection(self) -> resources.ConnectionArgs:
        return replace(super().connection(), variables=list(ADMIN), api_endpoint=self._api_endpoint)

    @property
    def _api_endpoint(self) -> Any:
        return self.setting("api_endpoint", "")

    def _adopted(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        """An adopted bucket, by our plugin, which only reports differences that the vendor's plugin would change."""
        bucket = resources.Bucket(self.name, self.bucket_args(), self.of_bucket())
        return bucket, self.with_known_lacks(bucket.lacks)

    def _made(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        store = self.store
        vendor = self.get_provider("digitalocean:index:Provider") or self._own_vendor()
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
            name=self.setting("bucket"),
            region=self.setting("region"),
            acl="private",
            force_destroy=deletes_media(store.allow),
            versioning=digitalocean.SpacesBucketVersioningArgs(enabled=True),
            lifecycle_rules=[rule],
            opts=pulumi.ResourceOptions.merge(
                pulumi.ResourceOptions.merge(self.of_bucket(), by_vendor), self.keeping_in_previews("name", "region")
            ),
        )
        return bucket, self.known_lacks

    def _own_vendor(self) -> digitalocean.Provider:
        store = self.store
        if "endpoint" in store.later:
            own_endpoint = "endpoint" in self.raw
        else:
            own_endpoint = store.endpoint != self.provider.endpoint(store.region)
        places = self._api_endpoint, self.setting("endpoint") if own_endpoint else ""
        if is_known(places) and not self.alone:
            return _vendor(pulumi.runtime.settings.get_monitor(), *places)
        # Nothing that is known yet, or here, tells it from another store's.
        return _provider(self.name, *places, pulumi.ResourceOptions(parent=self))


@cache
def _vendor(
    program: object,  # also a cache key: another run of the program needs a resource of its own
    api_endpoint: str,
    spaces_endpoint: str,
) -> digitalocean.Provider:
    """The vendor's plugin, one for all stores of the stack at these places: each is a process of its own.

    Args:
        api_endpoint, spaces_endpoint: "" for the vendor's own.
    """
    hosts = [urlsplit(url).netloc for url in (spaces_endpoint, api_endpoint) if url]
    name = "-".join(["digitalocean", *hosts])
    # Releases before 2026-12 left the API's host out. Where two of one program differ in it alone, the first has it.
    former = "-".join(["digitalocean", *hosts[: bool(spaces_endpoint)]])
    names = _former_names(program)
    aliases = [pulumi.Alias(name=former)] if former not in {name, *names} else []
    names.add(former)
    return _provider(name, api_endpoint, spaces_endpoint, pulumi.ResourceOptions(aliases=aliases))


@cache
def _former_names(program: object) -> set[str]:  # noqa: ARG001 - a cache key
    """Names of vendors' plugins that one of this run of the program has, or had."""
    return set()


def _provider(
    name: str, api_endpoint: pulumi.Input[str], spaces_endpoint: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> digitalocean.Provider:
    places = {"api_endpoint": api_endpoint, "spaces_endpoint": spaces_endpoint}
    options: dict[str, Any] = {option: url for option, url in places.items() if not is_known(url) or url}
    key = _admin_key(name, api_endpoint, opts)
    if key is not None:
        # The vendor's SDK takes only the token for a secret.
        options["spaces_access_id"] = key.access_key_id
        options["spaces_secret_key"] = pulumi.Output.secret(key.secret_access_key)
    return digitalocean.Provider(name, **options, opts=opts)


def _admin_key(
    name: str, api_endpoint: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> resources.SpacesAdminKey | None:
    """A full-access key of the stack's own, where only the token is there; None where there is one already."""
    missing = [variable for variable in ADMIN if not os.environ.get(variable)]
    if len(missing) == 1:
        raise pulumi.RunError(f"the environment has only one of {' and '.join(ADMIN)}: {missing[0]} is missing.")
    if not missing or not os.environ.get(TOKEN):
        return None
    owner = f"{pulumi.get_project()}/{pulumi.get_stack()}"
    connection = resources.ConnectionArgs(api_endpoint=api_endpoint)
    args = resources.SpacesAdminKeyArgs(name="synapse-media-admin", owner=owner, connection=connection)
    return resources.SpacesAdminKey(name, args, opts)
