"""Checks of Synapse's own settings, in homeserver.yaml and in the playbook's list of custom providers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from synapse_media import methods, values
from synapse_media.homeserver import media_repo, playbook, synapse
from synapse_media.lint import references, stores
from synapse_media.lint.config import (
    Config,
    Kind,
    as_flag,
    field_of,
    is_false_word,
    is_module,
    misspelt_media_setting,
    nearest,
    shown_name,
)
from synapse_media.lint.findings import Hit, Severity, rule
from synapse_media.lint.reading import FILLED, Value

_BOTH = (Kind.SYNAPSE, Kind.PLAYBOOK)
_ONLY = (Kind.SYNAPSE,)
_STORE = (synapse.STORE_LOCAL, synapse.STORE_REMOTE, synapse.STORE_SYNCHRONOUS)
_PROVIDER_KEYS = ("module", "config", *_STORE)
_DEAD = ("threadpool_size", "request_checksum_calculation", "response_checksum_validation")
_CONFIG_KEYS = (*synapse.MODULE_OPTIONS.values(), synapse.CUSTOMER_KEY_ALGORITHM)


def _modules(config: Config) -> Iterator[tuple[str, Value]]:
    return ((setting, entry) for setting, entry in stores.providers(config) if is_module(entry))


def _unset(entry: Value, name: str) -> bool:
    """Whether a switch of a provider is not set or has no value, which Synapse counts as false."""
    value = entry.items.get(name)
    return value is None or value.data in (None, "", (), {})


def _switch(entry: Value, name: str, kind: Kind) -> bool | None:
    """Whether a switch of a provider counts as true, as any non-empty string does; None if it can't be determined."""
    found = field_of("", entry.items.get(name), kind)
    return bool(found.value and found.value.data) if found.literal else None


@rule(
    "misspelt-setting",
    Severity.BREAKS,
    "A name close to one of Synapse's media settings; Synapse silently ignores it.",
    f"{references.MODULE_ISSUES}/149",
    _ONLY,
)
def misspelt_setting(config: Config) -> Iterable[Hit]:
    for name, value in config.settings.items():
        meant = misspelt_media_setting(name)
        if meant:
            yield Hit(value, name, "Synapse has no such setting, and silently ignores it", f"Rename it to {meant}.")


@rule(
    "provider-form",
    Severity.BREAKS,
    "A storage provider without module or config, a misspelt module, or no list: Synapse does not start.",
    references.PROVIDERS,
    _BOTH,
)
def provider_form(config: Config) -> Iterable[Hit]:
    name = playbook.PROVIDERS_CUSTOM if config.kind is Kind.PLAYBOOK else synapse.PROVIDERS
    found = config.settings.get(name)
    of_chart = any(document.alone for document in config.documents)
    if found is not None and found.data is None and not of_chart and _has_repository(config):
        mend = "Write [] if there is none, or remove the line."
        yield Hit(found, name, "it has no value, and Synapse does not start: it must be a list", mend)
    elif found is not None and found.data is not None and not _is_list(found) and not _is_from_elsewhere(found):
        yield Hit(found, name, "it must be a list, and Synapse does not start", "Begin each provider with '- '.")
    for setting, entry in stores.providers(config):
        module = entry.items.get("module")
        if module is None:
            yield Hit(
                entry,
                f"{setting}.module",
                "with a provider without a module, Synapse does not start",
                "Add the module.",
            )
        elif is_module(entry) and module.data != synapse.MODULE_CLASS:
            yield Hit(
                module,
                f"{setting}.module",
                "the module has no such class, and Synapse does not start",
                f"Write {synapse.MODULE_CLASS}.",
            )
        options = entry.items.get("config", Value(None, "", 0)).items
        if is_module(entry) and not options:
            yield Hit(
                entry,
                f"{setting}.config",
                "the module has no bucket, and Synapse does not start",
                "Put bucket, endpoint_url and region_name under `config:`, indented below the module.",
            )
        elif module is not None and module.data in synapse.FILE_SYSTEM_MODULES and "directory" not in options:
            yield Hit(
                entry,
                f"{setting}.config.directory",
                "the provider has no directory, and Synapse does not start",
                "Add config: and, indented below it, directory:.",
            )


def _has_repository(config: Config) -> bool:
    """Whether the process with this configuration reads settings of media."""
    worker = config.settings.get("worker_app")
    return config.flag(synapse.ENABLE_MEDIA_REPO, default=True) is True or (
        worker is not None and worker.data == synapse.MEDIA_WORKER
    )


def _is_list(value: Value) -> bool:
    return isinstance(value.data, tuple)


def _is_from_elsewhere(value: Value) -> bool:
    """Whether another tool replaces a value before its program reads it."""
    return value.tag not in ("", "!unsafe") or (isinstance(value.data, str) and values.is_reference(value.data))


@rule(
    "nothing-stored",
    Severity.BREAKS,
    "Neither store_local nor store_remote has a value: both count as false, so nothing is ever uploaded.",
    references.PROVIDERS,
    _BOTH,
)
def nothing_stored(config: Config) -> Iterable[Hit]:
    for setting, entry in _modules(config):
        if _unset(entry, synapse.STORE_LOCAL) and _unset(entry, synapse.STORE_REMOTE):
            at = entry.items.get(synapse.STORE_LOCAL)
            yield Hit(
                at or entry,
                f"{setting}.store_local",
                "store_local and store_remote are not set, and default to false: nothing is ever uploaded, and "
                "nothing is logged"
                if at is None
                else "store_local and store_remote have no value, which counts as false: nothing is ever uploaded, and "
                "nothing is logged",
                "Set store_local, store_remote and store_synchronous to true.",
            )


@rule(
    "partly-stored",
    Severity.WARNS,
    "Only one of store_local and store_remote has a value, or both are false: some media never reaches the bucket.",
    references.PROVIDERS,
    _BOTH,
)
def partly_stored(config: Config) -> Iterable[Hit]:
    for setting, entry in _modules(config):
        missing = [name for name in (synapse.STORE_LOCAL, synapse.STORE_REMOTE) if _unset(entry, name)]
        if len(missing) == 1:
            at = entry.items.get(missing[0])
            reason = "it is not set, and defaults to" if at is None else "it has no value, which counts as"
            kind = "uploads of your users" if missing == [synapse.STORE_LOCAL] else "media fetched from other servers"
            yield Hit(
                at or entry,
                f"{setting}.{missing[0]}",
                f"{reason} false: {kind} never reach the bucket",
                "Set it to true."
                if missing == [synapse.STORE_LOCAL]
                else "Set it to true, or to false if that is intended.",
            )
        elif not missing and all(
            _switch(entry, name, config.kind) is False for name in (synapse.STORE_LOCAL, synapse.STORE_REMOTE)
        ):
            yield Hit(
                entry.items[synapse.STORE_LOCAL],
                f"{setting}.store_local",
                "both are false: the bucket is only read from, and no new media is stored there",
                "Set both to true, unless you are migrating away from the bucket.",
            )


LOCAL_NOT_STORED = (
    "store_local: false does not mean that no files are kept on local disk: it means that uploads of your users never "
    "reach the bucket, and exist on local disk only"
)


@rule(
    "local-not-stored",
    Severity.WARNS,
    "store_local: false: uploads of your own users never reach the bucket.",
    references.PROVIDERS,
    _BOTH,
)
def local_not_stored(config: Config) -> Iterable[Hit]:
    for setting, entry in _modules(config):
        local, remote = (_switch(entry, name, config.kind) for name in (synapse.STORE_LOCAL, synapse.STORE_REMOTE))
        if _unset(entry, synapse.STORE_LOCAL):
            continue  # reported by partly-stored and nothing-stored
        if local is False and (remote is not False or _unset(entry, synapse.STORE_REMOTE)):
            yield Hit(
                entry.items[synapse.STORE_LOCAL],
                f"{setting}.{synapse.STORE_LOCAL}",
                LOCAL_NOT_STORED,
                "Set it to true. To copy existing uploads, use s3_media_upload, or `synapse-media switch`.",
            )


_FLEETING = re.compile(r"/(?:tmp|var/tmp|run|var/run|dev/shm)(?:/|$)")


@rule(
    "media-store-temporary",
    Severity.LOSES,
    "The media store is under /tmp or /run and uploads of your users don't reach the bucket: a restart deletes them.",
    f"{references.SYNAPSE}#{synapse.MEDIA_STORE_PATH}",
    (Kind.SYNAPSE, Kind.MEDIA_REPO),
)
def media_store_temporary(config: Config) -> Iterable[Hit]:
    for setting, entry in stores.datastores(config) if config.kind is Kind.MEDIA_REPO else ():
        path = entry.items.get("opts", Value(None, "", 0)).items.get("path")
        if path is not None and _FLEETING.match(path.text) and entry.items.get(media_repo.FOR_KINDS, path).entries:
            yield Hit(
                path,
                f"{setting}.opts.path",
                "a restart of the machine or the container deletes media there",
                "Use a persistent directory.",
            )
    found = config.settings.get(synapse.MEDIA_STORE_PATH)
    if found is None or not isinstance(found.data, str) or not _FLEETING.match(found.data.strip()):
        return
    if config.flag(synapse.ENABLE_MEDIA_REPO, default=True) is False:
        return
    drop_in = "server_name" not in config.settings and synapse.PROVIDERS not in config.settings
    kept = [
        entry for _, entry in stores.providers(config) if _switch(entry, synapse.STORE_LOCAL, config.kind) is not False
    ]
    if not (kept or drop_in or config.hidden):
        yield Hit(
            found,
            synapse.MEDIA_STORE_PATH,
            "a restart of the machine or the container deletes media there, and no storage provider stores uploads of "
            "your users",
            "Use a persistent directory, and set store_local: true on the storage provider.",
        )


@rule(
    "media-store-path",
    Severity.BREAKS,
    "media_store_path has no value, is an address, ends with a blank, or has a `$X` or `~` that is not expanded.",
    f"{references.SYNAPSE}#{synapse.MEDIA_STORE_PATH}",
    _ONLY,
)
def media_store_path(config: Config) -> Iterable[Hit]:
    found = config.settings.get(synapse.MEDIA_STORE_PATH)
    if found is None or _is_from_elsewhere(found) or not _has_repository(config):
        return
    path = found.data
    if not isinstance(path, str):
        if not any(document.alone for document in config.documents):
            reason = "it has no value" if path is None else "it is not a string"
            yield Hit(found, synapse.MEDIA_STORE_PATH, f"{reason}, and Synapse does not start", "Set it to a path.")
        return
    if "://" in path:
        yield Hit(
            found,
            synapse.MEDIA_STORE_PATH,
            "it is an address, not a directory: Synapse makes a directory of that name where it is started, and no "
            "media reaches the store",
            f"Set it to a directory, and add the store to {synapse.PROVIDERS}.",
        )
    elif path != path.strip():
        yield Hit(
            found,
            synapse.MEDIA_STORE_PATH,
            "it begins or ends with a blank, which is part of the directory's name: it is another directory",
            "Remove the blank.",
        )
    elif re.match(r"~|\$\w|\$\{", path) or re.search(r"\$\{[^{}]*\}|/\$[A-Za-z_]\w*", path):
        yield Hit(
            found,
            synapse.MEDIA_STORE_PATH,
            "Synapse does not expand it, and keeps media in a directory of exactly that name where it is started: in "
            "a container it is lost when that is recreated",
            "Write the whole path.",
        )


@rule(
    "unknown-tag",
    Severity.BREAKS,
    "A YAML tag such as !include or !env, which Synapse's reader rejects.",
    references.SYNAPSE,
    _ONLY,
)
def unknown_tag(config: Config) -> Iterable[Hit]:
    if any(document.alone or document.place for document in config.documents):
        return
    for name, value in config.settings.items():
        tagged = next(_tagged(value), None)
        if tagged is not None:
            yield Hit(
                tagged,
                name,
                f"the tag {tagged.tag[:40]} is not one of YAML's own: Synapse rejects the file, and does not start",
                "Write the value itself, or name the file as a template if a tool replaces the tag.",
            )


def _tagged(value: Value) -> Iterator[Value]:
    # Ansible resolves !vault and !unsafe, and has done so before Synapse reads the file.
    if value.tag and value.tag not in ("!vault", "!unsafe", FILLED):
        yield value
    for item in (*value.items.values(), *value.entries):
        yield from _tagged(item)


_NOT_LOADED = "where Synapse does not load it as a storage provider: it does not start, or nothing is stored"


@rule(
    "module-misplaced",
    Severity.BREAKS,
    "The S3 module or media_storage_providers is where Synapse does not look for it.",
    references.PROVIDERS,
    _BOTH,
)
def module_misplaced(config: Config) -> Iterable[Hit]:
    if config.kind is Kind.PLAYBOOK:
        for entry in config.settings.get(stores.PLAYBOOK_MODULES, config.start).entries:
            if is_module(entry):
                yield Hit(
                    entry.items["module"],
                    stores.PLAYBOOK_MODULES,
                    f"the S3 module is under {stores.PLAYBOOK_MODULES}, {_NOT_LOADED}",
                    f"Remove it, and set {playbook.MODULE_ENABLED}: true and the variables of the store.",
                )
        return
    for name, value in config.settings.items():
        if name == synapse.PROVIDERS:
            continue
        for entry in (*value.entries, value):
            if is_module(entry):
                yield Hit(
                    entry.items["module"],
                    name,
                    f"the S3 module is under {name}, {_NOT_LOADED}",
                    f"Move it to {synapse.PROVIDERS}, with store_local, store_remote and store_synchronous: true.",
                )
            elif synapse.PROVIDERS in entry.items:
                yield Hit(
                    entry.items[synapse.PROVIDERS],
                    f"{name}.{synapse.PROVIDERS}",
                    f"it is inside {name}, where Synapse silently ignores it",
                    "Make it a top-level setting, without indentation.",
                )
    if synapse.PROVIDERS not in config.settings:
        alone = config.settings.get("module")
        if alone is not None and synapse.MODULE_PACKAGE in str(alone.data):
            mend = f"Move it into the list {synapse.PROVIDERS}."
            yield Hit(alone, "module", "a module at the top level is silently ignored", mend)


_SINCE = {
    "session_token": (1, 6),
    "prefix": values.PREFIX_SINCE,
    "customer_key": (1, 2),
}
"""{setting of a store: the module's first release that reads it}."""


@rule(
    "option-too-new",
    Severity.BREAKS,
    "An option that the pinned release of the module does not support yet.",
    references.MODULE,
    _BOTH,
)
def option_too_new(config: Config) -> Iterable[Hit]:
    version = config.module_version
    if version is None:
        return
    for store in config.stores:
        for field, option in synapse.MODULE_OPTIONS.items():
            found = store.fields.get(field)
            if (
                store.method == methods.MODULE
                and store.enabled
                and found is not None
                and not found.empty
                and version < _SINCE.get(field, version)
            ):
                yield Hit(
                    found.value or store.where,
                    found.setting,
                    f"the module is pinned to {values.written(version)}, which ignores it: {option} is supported since "
                    f"{values.written(_SINCE[field])}",
                    f"Upgrade to {synapse.MODULE_VERSION}. First move objects without the prefix to it.",
                )


@rule(
    "not-a-switch",
    Severity.BREAKS,
    'A switch is a string that does not mean true, such as "false": a non-empty string counts as true.',
    references.PROVIDERS,
    _BOTH,
)
def not_a_switch(config: Config) -> Iterable[Hit]:
    of_synapse = (synapse.ENABLE_LOCAL_STORAGE, synapse.ENABLE_MEDIA_REPO)
    for name in of_synapse if config.kind is Kind.SYNAPSE else playbook.SWITCHES:
        found = config.field(name)
        if found.value is not None and found.literal and is_false_word(found):
            where = "the playbook's templates count it" if name not in playbook.AS_JSON else "Synapse counts it"
            yield Hit(
                found.value,
                name,
                f"it is a string, not a boolean: {where} as true, whatever it says",
                "Write true or false without quotes.",
            )
    for setting, entry in _modules(config):
        for name in _STORE:
            found = field_of(f"{setting}.{name}", entry.items.get(name), config.kind)
            counts = _switch(entry, name, config.kind)
            if counts and as_flag(found) is not True:
                yield Hit(
                    found.value or entry,
                    found.setting,
                    "it is not a boolean, so it counts as true",
                    "Write true or false without quotes.",
                )


@rule(
    "not-synchronous",
    Severity.WARNS,
    "store_synchronous is not true: a failed upload is only logged, never retried.",
    references.PROVIDERS,
    _BOTH,
)
def not_synchronous(config: Config) -> Iterable[Hit]:
    for setting, entry in _modules(config):
        unset = _unset(entry, synapse.STORE_LOCAL)
        if unset and _unset(entry, synapse.STORE_REMOTE):
            continue
        local = unset or _switch(entry, synapse.STORE_LOCAL, config.kind)
        if local is not False and _switch(entry, synapse.STORE_SYNCHRONOUS, config.kind) is False:
            at = entry.items.get(synapse.STORE_SYNCHRONOUS)
            yield Hit(at or entry, f"{setting}.store_synchronous", NOT_SYNCHRONOUS, "Set it to true.")


NOT_SYNCHRONOUS = (
    "without it Synapse confirms an upload before it is in the bucket; a failure is only logged and never retried, so "
    "a clean-up of the local disk loses the file"
)


@rule(
    "dead-option",
    Severity.WARNS,
    "An option that the module documents but never reads.",
    references.MODULE,
    _BOTH,
)
def dead_option(config: Config) -> Iterable[Hit]:
    for setting, entry in _modules(config):
        options = entry.items.get("config", Value(None, "", 0)).items
        for name in _DEAD:
            if name in options:
                effect = "40 threads" if name == "threadpool_size" else "when_required"
                yield Hit(
                    options[name],
                    f"{setting}.config.{name}",
                    f"the module ({config.module_said}) drops it when it reads its configuration, and uses {effect}",
                    "Remove it.",
                )
        algorithm, key = synapse.CUSTOMER_KEY_ALGORITHM, synapse.MODULE_OPTIONS["customer_key"]
        if algorithm in options and key not in options:
            yield Hit(
                options[algorithm],
                f"{setting}.config.{algorithm}",
                f"it is only read together with {key}: nothing is encrypted with your key",
                f"Set {key} as well, or remove it.",
            )


@rule(
    "unknown-option",
    Severity.WARNS,
    "An option that the module or Synapse does not know and silently drops.",
    references.MODULE,
    _BOTH,
)
def unknown_option(config: Config) -> Iterable[Hit]:
    for setting, entry in _modules(config):
        options = entry.items.get("config", Value(None, "", 0)).items
        for place, found, known, elsewhere in (
            (setting, entry.items, _PROVIDER_KEYS, _CONFIG_KEYS),
            (f"{setting}.config", options, (*_CONFIG_KEYS, *_DEAD), _PROVIDER_KEYS),
        ):
            for name, value in found.items():
                if name in known:
                    continue
                other = "config" if elsewhere is _CONFIG_KEYS else "the provider itself"
                mend = f"Move it to {other}." if name in elsewhere else f"{nearest(name, known)}Fix or remove it."
                option = next((option for option in known if re.match(rf"{option}[:= ]", name)), "")
                if option:
                    mend = f"Put a blank after the colon of {option}."
                yield Hit(
                    value, f"{place}.{shown_name(name)}", "it is not supported here, and is silently dropped", mend
                )


@rule(
    "prefix-null",
    Severity.BREAKS,
    "`prefix:` without a value: the first media request fails.",
    references.MODULE,
    _BOTH,
)
def prefix_null(config: Config) -> Iterable[Hit]:
    for setting, entry in _modules(config):
        prefix = entry.items.get("config", Value(None, "", 0)).items.get("prefix")
        if prefix is not None and prefix.data is None:
            yield Hit(
                prefix,
                f"{setting}.config.prefix",
                "with a null prefix the first media request fails",
                "Remove the line.",
            )


@rule(
    "provider-and-backup",
    Severity.BREAKS,
    "media_storage_providers together with backup_media_store_path: Synapse does not start.",
    references.SYNAPSE,
    _ONLY,
)
def provider_and_backup(config: Config) -> Iterable[Hit]:
    backup, found = config.settings.get(synapse.BACKUP_PATH), config.settings.get(synapse.PROVIDERS)
    if backup is not None and backup.data and found is not None and found.data:
        yield Hit(
            backup,
            synapse.BACKUP_PATH,
            "Synapse rejects it together with media_storage_providers, and does not start",
            "Remove it; the same provider in the list is `module: file_system` with a `directory`.",
        )


@rule(
    "no-local-storage",
    Severity.BREAKS,
    "enable_local_media_storage: false with the module: every upload fails.",
    f"{references.MODULE_ISSUES}/162",
    _BOTH,
)
def no_local_storage(config: Config) -> Iterable[Hit]:
    at = _local_storage_off(config)
    if at is not None and any(store.method == methods.MODULE and store.enabled for store in config.stores):
        yield Hit(
            at[0],
            at[1],
            f"the module ({config.module_said}) reads the file from the local store, which is disabled: "
            "every upload fails",
            "Set it to true. You can remove the local copies later, once their content has been compared.",
        )


@rule(
    "no-storage",
    Severity.LOSES,
    "enable_local_media_storage: false and no storage provider: media is kept nowhere.",
    f"{references.SYNAPSE}#enable_local_media_storage",
    _BOTH,
)
def no_storage(config: Config) -> Iterable[Hit]:
    at = _local_storage_off(config)
    if at is None or stores.has_any(config):
        return
    alone = any(document.alone for document in config.documents)
    if config.kind is Kind.SYNAPSE and "server_name" not in config.settings and not alone:
        return  # a drop-in alone: the rest is elsewhere
    yield Hit(at[0], at[1], NO_STORAGE, "Set it to true." + UNLESS_ELSEWHERE * alone)


NO_STORAGE = "there is no storage provider either: media is not stored anywhere"
UNLESS_ELSEWHERE = " If another file has a storage provider, pass that file to this command as well."


def _local_storage_off(config: Config) -> tuple[Value, str] | None:
    name = playbook.LOCAL_STORAGE if config.kind is Kind.PLAYBOOK else synapse.ENABLE_LOCAL_STORAGE
    if config.flag(name, default=True) is not False:
        return None
    return config.settings[name], name


@rule(
    "list-replaced",
    Severity.BREAKS,
    "A later file replaces the list of storage providers and omits one of an earlier file.",
    references.PROVIDERS,
    _ONLY,
)
def list_replaced(config: Config) -> Iterable[Hit]:
    kept = {_identity(entry) for _, entry in stores.providers(config)}
    for name, before, after in config.earlier:
        if name != synapse.PROVIDERS:
            continue
        lost = [entry for entry in before.entries if _keeps_media(entry) and _identity(entry) not in kept]
        if lost:
            modules = ", ".join(str(entry.items["module"].data)[:60] for entry in lost)
            yield Hit(
                after,
                name,
                f"it replaces the whole list in {before.file}:{before.line}, so {modules} is lost: media that is only "
                "there is no longer found",
                "Put all providers into the last list.",
            )


def _keeps_media(entry: Value) -> bool:
    options = entry.items.get("config", Value(None, "", 0)).items
    return "module" in entry.items and (not is_module(entry) or "bucket" in options)


_PLACE = ("bucket", "prefix", "directory")


def _identity(entry: Value) -> tuple[str, ...]:
    options = entry.items.get("config", Value(None, "", 0)).items
    module, endpoint = entry.items.get("module"), options.get("endpoint_url")
    return (
        str(module.data) if module else "",
        stores.host(str(endpoint.data)) if endpoint and endpoint.data else stores.host(""),
        *(str(options[key].data) for key in _PLACE if key in options),
    )


@rule(
    "retention-stays",
    Severity.WARNS,
    "media_retention with the module: deleted media stays in the bucket.",
    f"{references.MODULE_ISSUES}/96",
    _BOTH,
)
def retention_stays(config: Config) -> Iterable[Hit]:
    if not any(store.method == methods.MODULE and store.enabled for store in config.stores):
        return
    names = (synapse.RETENTION,) if config.kind is Kind.SYNAPSE else playbook.RETENTION
    for name in names:
        value = config.settings.get(name)
        if value is not None and value.data:
            yield Hit(value, name, RETENTION_STAYS, REMOVE_BY_HAND)


RETENTION_STAYS = "the module never deletes: expired, purged or erased media stays in the bucket, and is billed"
REMOVE_BY_HAND = "Remove such objects by hand, or with a suitable lifecycle rule."
