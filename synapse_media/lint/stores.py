"""The stores of a configuration, of any method."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from synapse_media import methods
from synapse_media.homeserver import media_repo, playbook, synapse

from .config import Config, ConfiguredStore, Field, Kind, field_of, is_module
from .reading import Value

SECRETS = ("secret_access_key", "session_token", "customer_key")

PLAYBOOK_MODULES = f"{playbook.SYNAPSE}modules"
"""The playbook's variable for Synapse's `modules`."""


def of(config: Config) -> tuple[ConfiguredStore, ...]:
    """All stores, enabled or not."""
    if config.kind is Kind.SYNAPSE:
        return tuple(_providers(config))
    if config.kind is Kind.MEDIA_REPO:
        return tuple(_datastores(config))
    return (*_variables(config), *_providers(config))


def providers(config: Config) -> Iterator[tuple[str, Value]]:
    """(setting, entry) of Synapse's storage providers."""
    of_playbook = (playbook.PROVIDERS_CUSTOM, playbook.PROVIDERS, playbook.PROVIDERS_AUTO)
    for name in of_playbook if config.kind is Kind.PLAYBOOK else (synapse.PROVIDERS,):
        found = config.settings.get(name)
        for number, entry in enumerate(found.entries if found else ()):
            yield f"{name}[{number}]", entry


def has_any(config: Config) -> bool:
    """Whether there may be a storage provider, of any module, or another store."""
    names = [name for name in config.settings if synapse.PROVIDERS in name or name == synapse.BACKUP_PATH]
    enabled = any(store.enabled is not False for store in config.stores)
    return config.hidden or enabled or any(config.settings[name].data for name in names)


def host(endpoint: str) -> str:
    """The host of an endpoint. All of Amazon's count as one, as does none: bucket names are globally unique there."""
    try:
        place = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").netloc.lower()
    except ValueError:
        place = ""
    if not place or place.endswith(".amazonaws.com"):
        place = "amazonaws.com"
    return place.removesuffix(":443")


def datastores(config: Config) -> Iterator[tuple[str, Value]]:
    """(setting, entry) of the datastores of a media-repo.yaml."""
    found = config.settings.get("datastores")
    for number, entry in enumerate(found.entries if found else ()):
        yield f"datastores[{number}]", entry


def _providers(config: Config) -> Iterator[ConfiguredStore]:
    for setting, entry in providers(config):
        options = entry.items.get("config", entry).items
        if not is_module(entry) or options is entry.items or not options:
            continue  # without a configuration Synapse does not start: reported by provider-form
        fields = {
            field: field_of(f"{setting}.config.{key}", options.get(key), config.kind)
            for field, key in synapse.MODULE_OPTIONS.items()
        }
        keyless = not (fields["access_key_id"].given or fields["secret_access_key"].given)
        yield ConfiguredStore(methods.MODULE, entry, enabled=True, keyless=keyless, fields=fields)


def _datastores(config: Config) -> Iterator[ConfiguredStore]:
    for setting, entry in datastores(config):
        kind, opts = entry.items.get("type"), entry.items.get("opts")
        if kind is None or kind.data != "s3":
            continue
        options = opts.items if opts else {}
        fields = {
            field: field_of(f"{setting}.opts.{key}", options.get(key), config.kind)
            for field, key in media_repo.S3_OPTIONS.items()
        }
        yield ConfiguredStore(methods.MEDIA_REPO, entry, enabled=True, keyless=False, fields=fields)


def _variables(config: Config) -> Iterator[ConfiguredStore]:
    keyless = config.flag(playbook.INSTANCE_PROFILE, default=False)
    for method, names, switch, has_role in (
        (methods.MODULE, playbook.MODULE_VARIABLES, playbook.MODULE_ENABLED, keyless is not False),
        (methods.GOOFYS, playbook.GOOFYS_VARIABLES, playbook.GOOFYS_ENABLED, False),
        (methods.MEDIA_REPO, playbook.S3_VARIABLES, playbook.MEDIA_REPO_ENABLED, False),
    ):
        yield from _of_method(config, method, names, switch, keyless=has_role)


def _of_method(
    config: Config, method: str, names: dict[str, str], switch: str, *, keyless: bool
) -> Iterator[ConfiguredStore]:
    fields: dict[str, Field] = {field: config.field(name) for field, name in names.items()}
    given = [field.value for field in fields.values() if field.value is not None]
    own = config.settings.get(switch)
    # The switch may be in another file, which was not given.
    enabled = config.flag(switch, default=None)
    if method == methods.MEDIA_REPO and enabled is not False:
        enabled = _has_kinds(config, enabled)
    if own is not None or given:
        yield ConfiguredStore(method, own or given[0], enabled, keyless, fields)


def _has_kinds(config: Config, enabled: bool | None) -> bool | None:
    """Whether the s3 datastore is defined: by its switch, or because it accepts a kind (by default none)."""
    kinds = config.field(playbook.S3_KINDS)
    if kinds.value is None:
        taken = False if enabled else None
    else:
        taken = bool(kinds.value.entries) if kinds.literal else None
    defined = config.flag(playbook.S3_ENABLED, default=taken)
    return enabled if defined else defined
