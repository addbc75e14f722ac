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

import gc
import os
import sys
from collections.abc import Generator, Mapping
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

from synapse_media import catalog, contract, extras, settings
from synapse_media.errors import Described, Problem, SettingsError, a_value_of
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


def _loaded(name: str) -> Any:
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


if not TYPE_CHECKING:
    # Type checkers know every name from above, and report any other one.
    __getattr__ = _loaded


def from_config() -> dict[str, StoreSettings]:
    """The stores of the stack file, by homeserver. Raises pulumi.RunError with every problem in it."""
    # Not where the program is a function of a longer process, as with the Automation API.
    if _LANGUAGE_HOSTS_PROGRAM in [Path(argument).name for argument in sys.orig_argv]:
        # The program of a stack file declares stores and ends with them. Each search for cycles would go through every
        # resource of every store, which took half of a program with 150 stores.
        gc.disable()
        if not os.environ.get("SYNAPSE_MEDIA_VERBOSE"):
            # The SDK sends the engine 27 messages a store, and waits for each; only `pulumi --debug` shows them.
            pulumi.log.debug = lambda *_, **__: None
    # The SDK waits for the calls that the program began, and then for the outputs that are left. When the program ends,
    # none has begun yet: it would wait for the outputs of all stores, and go through all that are left each time that
    # one is there, which is quadratic. With a call in its list it waits for the calls first, for each once.
    pulumi.runtime.settings.SETTINGS.rpc_manager.rpcs.append(_Done())
    config = pulumi.Config(settings.PROJECT)
    # Once decrypted, it can't be told from other values, and would get into the state in clear text.
    secure = [
        settings.secure_value(name, "an object with a `secure:` value in it")
        for name in (f"{settings.PROJECT}:stores", f"{settings.PROJECT}:defaults")
        if pulumi.runtime.is_config_secret(name)
    ]
    if secure:
        raise pulumi.RunError(str(SettingsError(secure)))
    allow = settings.with_confirmed(config.get("allow"))
    try:
        return settings.parse(config.get("stores"), allow, config.get("defaults"))
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None


_LANGUAGE_HOSTS_PROGRAM = "pulumi-language-python-exec"
"""What Pulumi's language host starts to run a program in a process of its own."""


class _Done:
    """A call that is done."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def make(store: StoreSettings) -> dict[str, Any]:
    """Declare the resources of one of `from_config`'s stores.

    Returns its StorageOutputs (synapse_media.contract), with Pulumi Outputs for values not known yet. Raises
    pulumi.RunError if its settings can't be carried out, or the SDK that its provider needs is not installed.
    """
    if not isinstance(store, StoreSettings):
        raise _refused("store", store, "a value of from_config()", "For a store of the program's own, use its class.")
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
    component = _loaded(catalog.load(store.provider).component_class)
    outputs: dict[str, Any] = component(store.server_name, arguments(store)).storage_outputs
    return outputs


def arguments(store: StoreSettings) -> StoreArgs:
    """A stack file's settings as the arguments of its provider's component."""
    args: type[StoreArgs] = _loaded(f"{catalog.load(store.provider).component_class}Args")
    values = {**{item.name: getattr(store, item.name) for item in fields(store)}, **store.options}
    for name in settings.retention_lacks(catalog.load(store.provider)):
        # Its default, which the component would refuse as it refuses any value.
        del values[name]
    taken = {item.name: values[item.name] for item in fields(args) if values.get(item.name) not in (None, "")}
    return args(**taken, from_stack_file=True)


def publish(stores: Mapping[str, Mapping[str, Any]]) -> None:
    """Export stores for the commands: `stores` without any secret, and `store_secrets`.

    They are separate because a StackReference treats an output as secret if any part of it is. A program may call
    this several times, each time with other homeservers.

    Args:
        stores: the result of `make`, or a component's `storage_outputs`, by homeserver.

    Raises pulumi.RunError for anything else, and for a homeserver that was published already.
    """
    if not isinstance(stores, Mapping):
        raise _refused("stores", stores, "a mapping of storage_outputs by homeserver", _PUBLISHED)
    published = _published(pulumi.runtime.settings.get_monitor())
    for name, outputs in stores.items():
        if not isinstance(name, str) or not isinstance(outputs, Mapping) or "secret_access_key" not in outputs:
            raise _refused(
                f"stores[{name!r}]", outputs, "storage_outputs of a component, or a result of make", _PUBLISHED
            )
        own = outputs.get("server_name")
        if isinstance(own, str) and own != name:
            raise pulumi.RunError(
                f"publish: stores[{name!r}] is the store of {own!r}; allowed: each store under its own homeserver. "
                f"Write {own!r}, or the store that you meant."
            )
        if name in published and published[name] is not outputs:
            raise pulumi.RunError(
                f"publish: stores[{name!r}] was published by an earlier call; allowed: each homeserver once. Publish "
                "every store under its own homeserver."
            )
    published.update(stores)
    parts = {name: contract.split(outputs) for name, outputs in published.items()}
    pulumi.export("stores", {name: shown for name, (shown, _) in parts.items()})
    pulumi.export("store_secrets", {name: secret for name, (_, secret) in parts.items()})


_PUBLISHED = 'Write publish({"example.com": media.storage_outputs}).'


def _refused(name: str, value: object, allowed: str, next_step: str) -> pulumi.RunError:
    return pulumi.RunError(str(Problem(name, Described(a_value_of(value)), allowed, next_step)))


@cache
def _published(program: object) -> dict[str, Mapping[str, Any]]:  # noqa: ARG001 - a cache key: a run of the program
    """What this run of the program published so far, by homeserver."""
    return {}
