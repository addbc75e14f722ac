"""Is the admin credential accepted? One harmless call a provider family, by the code that provisions with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from synapse_media import catalog
from synapse_media.plugin.resource import ResourceError
from synapse_media.settings import StoreSettings


def missing(provider: catalog.Provider) -> list[str]:
    """The admin variables that are not set and are needed, each by name: one that may be missing, beside its pair."""
    items = provider.value("admin_variables", ())
    begun = {item["without"] for item in items if "without" in item and os.environ.get(item["name"])}
    return [
        f"{item['name']} is not set: {item['what']}. `up`, refresh, rotate and destroy need it; `diff` does not"
        for item in items
        if not os.environ.get(item["name"]) and item.get("without") in {None, *begun}
    ]


def findings(store: StoreSettings) -> list[str]:
    """What is wrong with the admin credential of a store, as far as a look can tell: [] if it is accepted."""
    provider = catalog.load(store.provider)
    lacking = missing(provider)
    if lacking:
        return lacking
    try:
        _CHECKS[provider.component](_values(store, provider))
    except ResourceError as error:
        return [f"the admin credential was not accepted: {error}"]
    return []


def _values(store: StoreSettings, provider: catalog.Provider) -> dict[str, Any]:
    """Bucket and connection, as a component of the family hands them to the plugin."""
    options = store.options
    return {
        "bucket": store.bucket,
        "connection": {
            "endpoint": store.endpoint,
            "region": store.region,
            "iamEndpoint": store.iam_endpoint,
            "addressing": provider.value("addressing", "path"),
            "checksums": provider.value("checksums", "when_required"),
            "variables": list(provider.admin_variables),
            "caFile": str(options.get("ca_file", "")),
            "apiEndpoint": str(options.get("api_endpoint", "")),
            "adminEndpoint": str(options.get("admin_endpoint", "")).rstrip("/"),
            "realm": str(options.get("realm", "")),
        },
    }


def _s3(values: Mapping[str, Any]) -> None:
    from synapse_media.plugin.connection import ApiError, Connection, call

    try:
        call(Connection.parse(values).s3(), "list_buckets")
    except ApiError as error:
        # It is known, and may not list all buckets: it need not.
        if not error.denied:
            raise


def _spaces(values: Mapping[str, Any]) -> None:
    from synapse_media.plugin.spaces import SpacesApi

    SpacesApi(values).listed()


def _b2(values: Mapping[str, Any]) -> None:
    from synapse_media.plugin.backblaze import account

    account(values)


def _garage(values: Mapping[str, Any]) -> None:
    from synapse_media.plugin.garage import admin

    admin(values).call("GET", "/v2/ListKeys")


def _storj(values: Mapping[str, Any]) -> None:
    from synapse_media.plugin.storj import parent

    parent(values["bucket"], {"read", "write", "list", "delete"})


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "amazon_s3": _s3,
    "backblaze_b2": _b2,
    "digitalocean_spaces": _spaces,
    "garage": _garage,
    "s3_compatible": _s3,
    "storj": _storj,
    "wasabi": _s3,
}
"""By component family, as in components.REGISTRY."""
