"""Is the admin credential accepted? Harmless calls, by the code that provisions with it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from synapse_media import catalog, extras
from synapse_media.errors import StoreError
from synapse_media.plugin import families
from synapse_media.schema.connection import AdminCheck
from synapse_media.settings import StoreSettings
from synapse_media.store import credentials
from synapse_media.store.answers import ApiError


def missing(provider: catalog.Provider) -> list[str]:
    """The admin variables that are not set and are needed, each by name: one that may be missing, beside its pair."""
    items = provider.value("admin_variables", ())
    begun = {item["without"] for item in items if "without" in item and os.environ.get(item["name"])}
    return [
        f"{item['name']} is not set: {item['what']}. `up`, refresh, rotate and destroy need it; `diff` does not. "
        f"{from_a_profile([item['name']])}".removesuffix(". ")
        for item in items
        if not os.environ.get(item["name"]) and item.get("without") in {None, *begun}
    ]


def from_a_profile(lacking: Iterable[str]) -> str:
    """How a profile of the AWS CLI, an SSO session among them, becomes variables; "" where none of these is missing.

    https://docs.aws.amazon.com/cli/latest/reference/configure/export-credentials.html
    """
    if "AWS_ACCESS_KEY_ID" not in lacking:
        return ""
    profile = shlex.quote(os.environ.get("AWS_PROFILE") or "PROFILE")
    return (
        "From a profile or an SSO session (after `aws sso login`): "
        f'eval "$(aws configure export-credentials --profile {profile} --format env)"'
    )


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
        families.load(provider.component).check_admin(_asked(store, provider))
    except ApiError as error:
        if error.status == 0 or error.status >= 500 or error.is_anybodys:
            return [f"it is not known whether the admin credential is accepted: {error}"]
        return [f"the admin credential was not accepted: {error}"]
    except StoreError as error:
        return [f"the admin credential was not accepted: {error}"]
    return []


def _asked(store: StoreSettings, provider: catalog.Provider) -> AdminCheck:
    return AdminCheck(
        connection=provider.connection(
            endpoint=store.endpoint, region=store.region, iam_endpoint=store.iam_endpoint, options=store.options
        ),
        bucket=store.bucket,
        access=store.access,
        region=store.region,
        # Filled in from the region; only one that was written says anything.
        endpoint="" if store.endpoint == provider.endpoint(store.region) else store.endpoint,
    )
