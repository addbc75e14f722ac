"""Pulumi components that provision a homeserver's store, one per provider, and their use from a stack file.

In a program of your own:

    from synapse_media.components import AmazonS3, AmazonS3Args

    args = AmazonS3Args(server_name="example.com", bucket="example-com-media", region="eu-central-1")
    media = AmazonS3("media", args)
    pulumi.export("bucket", media.bucket)

From the stack file, as this repository's own program:
`publish({name: make(store) for name, store in from_config().items()})`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pulumi

from synapse_media import catalog, contract, extras, settings
from synapse_media.errors import SettingsError
from synapse_media.settings import Keys, StoreSettings

from .args import StoreArgs

if TYPE_CHECKING:
    from .amazon_s3 import AmazonS3, AmazonS3Args
    from .backblaze_b2 import BackblazeB2, BackblazeB2Args
    from .digitalocean_spaces import DigitalOceanSpaces, DigitalOceanSpacesArgs
    from .garage import Garage, GarageArgs
    from .s3_compatible import S3Compatible, S3CompatibleArgs
    from .storj import Storj, StorjArgs
    from .wasabi import Wasabi, WasabiArgs

__all__ = (
    "AmazonS3",
    "AmazonS3Args",
    "BackblazeB2",
    "BackblazeB2Args",
    "DigitalOceanSpaces",
    "DigitalOceanSpacesArgs",
    "Garage",
    "GarageArgs",
    "Keys",
    "S3Compatible",
    "S3CompatibleArgs",
    "Storj",
    "StorjArgs",
    "Wasabi",
    "WasabiArgs",
    "from_config",
    "make",
    "publish",
)


def __getattr__(name: str) -> Any:
    """A component or its arguments, loaded on first use, since vendors' SDKs load slowly.

    Raises pulumi.RunError if the SDK it needs is not installed.
    """
    for family in catalog.families():
        if name in (family.component_class, f"{family.component_class}Args"):
            try:
                extras.require([family.name])
            except extras.MissingExtraError as error:
                raise pulumi.RunError(str(error)) from None
            return getattr(import_module(f".{family.component}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def from_config() -> dict[str, StoreSettings]:
    """The stores of the stack file, by homeserver. Raises pulumi.RunError with every problem in it."""
    config = pulumi.Config(settings.PROJECT)
    if pulumi.runtime.is_config_secret(f"{settings.PROJECT}:stores"):
        # Once decrypted, it can't be told from other values, and would get into the state in clear text.
        raise pulumi.RunError(
            str(
                SettingsError(
                    [settings.secure_value(f"{settings.PROJECT}:stores", "an object with a `secure:` value in it")]
                )
            )
        )
    try:
        return settings.parse(config.get("stores"), settings.with_confirmed(config.get("allow")))
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None


def make(store: StoreSettings) -> dict[str, Any]:
    """Declare one store's resources. Returns its StorageOutputs, with Pulumi Outputs for values not known yet."""
    if not store.uses_store:
        empty = dict.fromkeys(
            ("provider", "bucket", "region", "endpoint_url", "access_key_id", "secret_access_key"), ""
        )
        return {
            **empty,
            "version": contract.VERSION,
            "server_name": store.server_name,
            "method": store.method,
            "access": store.access,
        }
    extras.require([store.provider])
    component = __getattr__(catalog.load(store.provider).component_class)
    outputs: dict[str, Any] = component(store.server_name, arguments(store)).storage_outputs
    return outputs


def arguments(store: StoreSettings) -> StoreArgs:
    """A stack file's settings as the arguments of its provider's component."""
    args: type[StoreArgs] = __getattr__(f"{catalog.load(store.provider).component_class}Args")
    values = {**{item.name: getattr(store, item.name) for item in fields(store)}, **store.options}
    taken = {item.name: values[item.name] for item in fields(args) if values.get(item.name) not in (None, "")}
    return args(**taken, from_stack_file=True)


def publish(stores: Mapping[str, Mapping[str, Any]]) -> None:
    """Export stores for the commands: `stores` without any secret, and `store_secrets`.

    They are separate because a StackReference treats an output as secret if any part of it is.

    Args:
        stores: the result of `make`, or a component's `storage_outputs`, by homeserver.
    """
    parts = {name: contract.split(outputs) for name, outputs in stores.items()}
    pulumi.export("stores", {name: shown for name, (shown, _) in parts.items()})
    pulumi.export("store_secrets", {name: secret for name, (_, secret) in parts.items()})
