"""Stores to render, each with a proof that was made for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from synapse_media import catalog
from synapse_media.contract import Proof, ProofLine, StorageOutputs

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
S3_ID = "0f1e2d3c4b5a69788796a5b4c3d2e1f000112233"
FILE_ID = "aabbccddeeff00112233445566778899aabbccdd"

_AMAZON = StorageOutputs(
    server_name="matrix.example.com",
    provider="amazon_s3",
    method="synapse-s3-storage-provider",
    access="least",
    bucket="example-com-media",
    region="eu-central-1",
    endpoint_url="https://s3.eu-central-1.amazonaws.com",
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret_access_key=SECRET,
    user="synapse-media-example-com-media",
    checksums="when_supported",
)
_COMPATIBLE = replace(
    _AMAZON,
    provider="s3_compatible",
    bucket="acme-media",
    region="us-east-1",
    endpoint_url="http://127.0.0.1:7070",
    access_key_id="synapse-media",
    checksums="when_required",
)


def providers(outputs: StorageOutputs) -> dict[str, Any]:
    """What Synapse has to read for a store: its list of storage providers, without the key."""
    return {
        "media_storage_providers": [
            {
                "module": "s3_storage_provider.S3StorageProviderBackend",
                "store_local": True,
                "store_remote": True,
                "store_synchronous": True,
                "config": {
                    "bucket": outputs.bucket,
                    "region_name": outputs.region,
                    "endpoint_url": outputs.endpoint_url,
                    "storage_class": "STANDARD",
                    **({"prefix": outputs.prefix} if outputs.prefix else {}),
                },
            }
        ]
    }


def _at(provider: catalog.Provider) -> StorageOutputs:
    """A store there, as its catalog entry has it."""
    region = next(iter(provider.regions), provider.value("default_region"))
    return replace(
        _AMAZON,
        provider=provider.name,
        region=region,
        endpoint_url=provider.endpoint(region) or f"https://{provider.name}.example.com",
        access_key_id="synapse-media",
        addressing=provider.value("addressing"),
        checksums=provider.value("checksums"),
    )


CASES: dict[str, StorageOutputs] = {
    "amazon": _AMAZON,
    "compatible": _COMPATIBLE,
    "keyless": replace(_AMAZON, access_key_id="", secret_access_key="", keyless=True),
    **{
        provider.name: _at(provider)
        for provider in map(catalog.load, catalog.names())
        # A preset is the provider whose component it has.
        if provider.component == provider.name and provider.name not in (_AMAZON.provider, _COMPATIBLE.provider)
    },
}
"""One of every provider, and what no provider shows."""


def proved(outputs: StorageOutputs) -> StorageOutputs:
    return replace(outputs, proof=Proof(outputs.made_for(), (ProofLine("put", "allowed", "allowed"),)))


def store(case: str = "compatible", method: str = "synapse-s3-storage-provider", **changes: Any) -> StorageOutputs:
    """One of CASES for a method, changed, and then proved."""
    settings: dict[str, Any] = {"method": method}
    if method == "matrix-media-repo":
        ids = {"s3_datastore_id": S3_ID}
        settings["media_repo"] = ids if case == "amazon" else {**ids, "file_datastore_id": FILE_ID}
    elif method == "synapse-s3-storage-provider" and case == "compatible":
        settings["prefix"] = "media/"
    elif method == "filesystem":
        settings |= dict.fromkeys(("provider", "bucket", "region", "endpoint_url", "access_key_id"), "")
        settings["secret_access_key"] = ""
    return proved(replace(CASES[case], **(settings | changes)))
