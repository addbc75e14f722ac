"""Is the admin credential accepted? Harmless calls, by the code that provisions with it.

A family with an API of its own has a module in `synapse_media.plugin` under its own name, with `check_admin`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from synapse_media import catalog, extras
from synapse_media.errors import StoreError
from synapse_media.settings import StoreSettings
from synapse_media.store import credentials


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
    """What is wrong with the admin credential of a store, as far as a look can tell: [] if it is accepted.

    Without the vendor's SDK that is what is wrong: the credential can't be tried.
    """
    if absent := extras.lacking([store.provider]):
        return [absent]
    provider = catalog.load(store.provider)
    lacking = missing(provider)
    if lacking:
        return lacking
    try:
        for name in provider.admin_variables:
            credentials.read(name)
    except StoreError as error:
        return [str(error)]
    try:
        _check(provider.component, _values(store, provider))
    except StoreError as error:
        return [f"the admin credential was not accepted: {error}"]
    return []


def _values(store: StoreSettings, provider: catalog.Provider) -> dict[str, Any]:
    """What a component of the family hands to the plugin, as far as the credential's own checks look at it."""
    named = {name: value for name, value in store.options.items() if isinstance(value, str)}
    return {
        "bucket": store.bucket,
        "access": store.access,
        "region": store.region,
        # Filled in from the region; only one that was written says anything.
        "endpoint": "" if store.endpoint == provider.endpoint(store.region) else store.endpoint,
        "connection": {
            "endpoint": store.endpoint,
            "region": store.region,
            "iamEndpoint": store.iam_endpoint,
            "addressing": provider.value("addressing", "path"),
            "checksums": provider.value("checksums", "when_required"),
            "variables": list(provider.admin_variables),
            **{re.sub("_([a-z])", lambda match: match[1].upper(), name): value for name, value in named.items()},
        },
    }


def _check(family: str, values: Mapping[str, Any]) -> None:
    own = f"synapse_media.plugin.{family}"
    module = import_module(own) if find_spec(own) else None
    getattr(module, "check_admin", _s3)(values)


def _s3(values: Mapping[str, Any]) -> None:
    from synapse_media.store.connection import ApiError, Connection, call

    try:
        call(Connection.parse(values).s3(), "list_buckets")
    except ApiError as error:
        # It is known, and may not list all buckets: it need not.
        if not error.denied:
            raise
