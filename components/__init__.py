"""One component a provider, and the factory from settings to component."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from synapse_media import catalog, extras
from synapse_media.contract import VERSION
from synapse_media.settings import StoreSettings

REGISTRY = {
    "amazon_s3": ("amazon_s3", "AmazonS3"),
    "backblaze_b2": ("backblaze_b2", "BackblazeB2"),
    "digitalocean_spaces": ("digitalocean_spaces", "DigitalOceanSpaces"),
    "garage": ("garage", "Garage"),
    "s3_compatible": ("s3_compatible", "S3Compatible"),
    "storj": ("storj", "Storj"),
    "wasabi": ("wasabi", "Wasabi"),
}
"""Component family -> (module, class). Imported when used: a vendor's SDK is slow to load."""


def make(store: StoreSettings) -> dict[str, Any]:
    """Declare one store's resources; its StorageOutputs, with Pulumi outputs for what is not known yet."""
    if not store.uses_store:
        empty = dict.fromkeys(
            ("provider", "bucket", "region", "endpoint_url", "access_key_id", "secret_access_key"), ""
        )
        return {
            **empty,
            "version": VERSION,
            "server_name": store.server_name,
            "method": store.method,
            "access": store.access,
        }
    extras.require([store.provider])
    module, name = REGISTRY[catalog.load(store.provider).component]
    component = getattr(import_module(f".{module}", __name__), name)
    outputs: dict[str, Any] = component(store.server_name, store).outputs
    return outputs
