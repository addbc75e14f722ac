"""The ways in which a configuration reaches a store."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from . import playbook
from .config import Config, Field, Kind, Use, field_of
from .reading import Value

MODULE = "synapse-s3-storage-provider"
MODULE_CLASS = "s3_storage_provider.S3StorageProviderBackend"

# Field -> the key in the module's `config`.
MODULE_KEYS = {
    "bucket": "bucket",
    "prefix": "prefix",
    "region": "region_name",
    "endpoint": "endpoint_url",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
    "customer_key": "sse_customer_key",
    "storage_class": "storage_class",
}
# Field -> the key in the `opts` of an s3 datastore.
MEDIA_REPO_KEYS = {
    "bucket": "bucketName",
    "region": "region",
    "endpoint": "endpoint",
    "access_key_id": "accessKeyId",
    "secret_access_key": "accessSecret",
    "storage_class": "storageClass",
}
SECRETS = ("secret_access_key", "session_token", "customer_key")
CUSTOM = "matrix_synapse_media_storage_providers_custom"


def of(config: Config) -> tuple[Use, ...]:
    """Every way to a store, enabled or not."""
    if config.kind is Kind.SYNAPSE:
        return tuple(_providers(config))
    if config.kind is Kind.MEDIA_REPO:
        return tuple(_datastores(config))
    return (*_variables(config), *_providers(config))


def providers(config: Config) -> Iterator[tuple[str, Value]]:
    """(setting, entry) of Synapse's storage providers."""
    name = CUSTOM if config.kind is Kind.PLAYBOOK else "media_storage_providers"
    found = config.settings.get(name)
    for number, entry in enumerate(found.entries if found else ()):
        yield f"{name}[{number}]", entry


def host(endpoint: str) -> str:
    """Where an endpoint is. Amazon's, and none, is one place: a bucket's name is there once in the world."""
    try:
        place = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").netloc.lower()
    except ValueError:
        place = ""
    if not place or place.endswith(".amazonaws.com"):
        place = "amazonaws.com"
    return place.removesuffix(":443")


def is_module(entry: Value) -> bool:
    """Whether a storage provider is meant to be the S3 module."""
    module = entry.items.get("module")
    return module is not None and "s3_storage_provider" in str(module.data)


def datastores(config: Config) -> Iterator[tuple[str, Value]]:
    """(setting, entry) of the datastores of a media-repo.yaml."""
    found = config.settings.get("datastores")
    for number, entry in enumerate(found.entries if found else ()):
        yield f"datastores[{number}]", entry


def _providers(config: Config) -> Iterator[Use]:
    for setting, entry in providers(config):
        if not is_module(entry):
            continue
        given = entry.items.get("config")
        options = given.items if given else {}
        fields = {
            field: field_of(f"{setting}.config.{key}", options.get(key), config.kind)
            for field, key in MODULE_KEYS.items()
        }
        keyless = not (fields["access_key_id"].given or fields["secret_access_key"].given)
        yield Use(MODULE, entry, enabled=True, keyless=keyless, fields=fields)


def _datastores(config: Config) -> Iterator[Use]:
    for setting, entry in datastores(config):
        kind, opts = entry.items.get("type"), entry.items.get("opts")
        if kind is None or kind.data != "s3":
            continue
        options = opts.items if opts else {}
        fields = {
            field: field_of(f"{setting}.opts.{key}", options.get(key), config.kind)
            for field, key in MEDIA_REPO_KEYS.items()
        }
        yield Use("matrix-media-repo", entry, enabled=True, keyless=False, fields=fields)


def _variables(config: Config) -> Iterator[Use]:
    keyless = config.flag(f"{playbook.MODULE}config_ec2_instance_profile", default=False)
    yield from _family(
        config,
        MODULE,
        playbook.MODULE,
        playbook.MODULE_FIELDS,
        f"{playbook.MODULE}enabled",
        keyless=keyless is not False,
    )
    yield from _family(
        config, "goofys", playbook.GOOFYS, playbook.GOOFYS_FIELDS, f"{playbook.GOOFYS}enabled", keyless=False
    )
    yield from _family(
        config, "matrix-media-repo", playbook.S3, playbook.S3_FIELDS, f"{playbook.MEDIA_REPO}enabled", keyless=False
    )


def _family(
    config: Config, method: str, prefix: str, names: dict[str, str], switch: str, *, keyless: bool
) -> Iterator[Use]:
    fields: dict[str, Field] = {field: config.field(f"{prefix}{name}") for field, name in names.items()}
    given = [field.value for field in fields.values() if field.value is not None]
    own = config.settings.get(switch)
    # A file of secrets alone is turned on by another one, which is not here.
    enabled = config.flag(switch, default=None)
    if method == "matrix-media-repo" and enabled is not False:
        enabled = _has_kinds(config, enabled)
    if own is not None or given:
        yield Use(method, own or given[0], enabled, keyless, fields)


def _has_kinds(config: Config, enabled: bool | None) -> bool | None:
    """Whether the s3 datastore is defined: by its switch, or because it takes some kind, which is none by default."""
    kinds = config.field(f"{playbook.S3}for_kinds")
    if kinds.value is None:
        taken = False if enabled else None
    else:
        taken = bool(kinds.value.entries) if kinds.literal else None
    defined = config.flag(f"{playbook.S3}enabled", default=taken)
    return enabled if defined else defined
