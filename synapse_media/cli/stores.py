"""The store of the file that `render` left, and its own key."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from synapse_media import incoming, values
from synapse_media.contract import ContractError, StorageOutputs, from_json
from synapse_media.errors import UsageError
from synapse_media.methods import METHODS, MODULE
from synapse_media.renderer import secret_variable

if TYPE_CHECKING:
    from synapse_media.schema.connection import Connection
    from synapse_media.store.clients import Credential


_LONGEST: Final = 1_000_000
"""Bytes of a store.json, which has some thousand."""


def load_file(path: str) -> StorageOutputs:
    """The store of a store.json.

    Where the file was written without the secret, the environment has it: under `renderer.secret_variable`, as
    AWS_SECRET_ACCESS_KEY beside this very AWS_ACCESS_KEY_ID, or beside that ID in the file that
    AWS_SHARED_CREDENTIALS_FILE names.

    Raises:
        ContractError: there is no such file, it is not a store's, or boto3 refuses its endpoint or region.
        StoreError: the secret in the environment is malformed.
    """
    try:
        plain = json.loads(incoming.text(Path(path), _LONGEST), object_pairs_hook=_once_each)
    except OSError as error:
        raise ContractError(f"{path}: {error.strerror}. `synapse-media render` writes it as store.json.") from None
    except (ValueError, RecursionError):  # the latter where it is nested too deeply
        raise ContractError(
            f"{path} is not JSON that can be read. `synapse-media render` writes it as store.json."
        ) from None
    if not isinstance(plain, dict):
        raise ContractError(f"{path} is not the outputs of a store. `synapse-media render` writes it as store.json.")
    store = from_json(plain)
    if "@" in store.endpoint_url:
        raise ContractError(
            f"{path}: endpoint_url has a user name or a password in it (…@{store.endpoint_url.rpartition('@')[2]}). "
            "Leave it out: the key is in access_key_id and secret_access_key."
        )
    for name, field, text in (("endpoint_url", "endpoint", store.endpoint_url), ("region", "region", store.region)):
        fault = values.refused(field, text, MODULE)
        if fault is not None:
            raise ContractError(f"{path}: {name} is {text!r}: {fault.reason}. {fault.mend}")
    if store.secret_access_key or store.keyless or not store.access_key_id:
        return store
    from synapse_media.store import credentials

    secret = credentials.read(secret_variable(store.server_name))
    if not secret and os.environ.get("AWS_ACCESS_KEY_ID") == store.access_key_id:
        secret = credentials.read("AWS_SECRET_ACCESS_KEY")
    if not secret:
        secret = credentials.shared(store.access_key_id)
    return replace(store, secret_access_key=secret)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ContractError for a name that is there twice, of which JSON takes the last one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = ", ".join(sorted(name for name, count in names.items() if count > 1))
        raise ContractError(f"store.json: {twice}: is there twice. `synapse-media render` writes it anew.")
    return found


def choose(loaded: list[StorageOutputs], server: str | None) -> StorageOutputs:
    """The one of a homeserver, or the only one. Raises UsageError."""
    if server is None and len(loaded) == 1:
        return loaded[0]
    found = next((store for store in loaded if store.server_name == server), None)
    if found is None:
        names = ", ".join(store.server_name for store in loaded)
        raise UsageError(f"--server is {server!r}; the stores there are: {names or 'none'}")
    return found


def own_key(store: StorageOutputs) -> tuple[Connection, Credential]:
    """How a store is reached, and its own key: Synapse's, or the machine's role where it has none.

    Raises StoreError where there is no secret, or the key is malformed.
    """
    from synapse_media.errors import StoreError
    from synapse_media.schema.connection import Connection
    from synapse_media.store.clients import Credential, ambient

    connection = Connection(
        endpoint=store.endpoint_url,
        region=store.region,
        addressing=METHODS[store.method].addressing(store.endpoint_url, store.bucket),
        checksums=store.checksums,
        ca_file=store.ca_file,
    )
    if store.keyless:
        return connection, ambient()
    if not store.secret_access_key:
        raise StoreError(
            f"{store.server_name}: the secret access key of {store.access_key_id} is neither in this store.json nor in "
            "the environment. Load the environment file that was rendered with it (`set -a; . ./synapse-media.env; "
            f"set +a`), name a credentials file with AWS_SHARED_CREDENTIALS_FILE, or set "
            f"{secret_variable(store.server_name)} to the secret."
        )
    return connection, Credential(store.access_key_id, store.secret_access_key)
