"""Checks of the variables of matrix-docker-ansible-deploy, few of which it validates itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

from synapse_media import catalog, methods
from synapse_media.homeserver import playbook, synapse
from synapse_media.lint import references, stores
from synapse_media.lint.config import Config, ConfiguredStore, Kind, misspelt, nearest
from synapse_media.lint.findings import Hit, Severity, rule
from synapse_media.lint.rules.media_repo import NO_LIST
from synapse_media.lint.rules.synapse import LOCAL_NOT_STORED, NOT_SYNCHRONOUS

_ONLY = (Kind.PLAYBOOK,)
_NEVER = 3650
"""A day count that selects no further files, on any homeserver."""
_SWITCH_OFF = (
    f'Set {playbook.MIGRATION_SCHEDULE} to "{playbook.MIGRATION_NEVER}" until the bucket has been compared with the '
    "local files by content. A day count is not enough: files recorded by an earlier run are still deleted."
)


def _store(config: Config, method: str) -> ConfiguredStore | None:
    """The store that these variables enable; None if they don't, or it can't be determined."""
    names = {methods.MODULE: playbook.MODULE, "goofys": playbook.GOOFYS, "matrix-media-repo": playbook.S3}
    return next(
        (
            store
            for store in config.stores
            if store.method == method and store.enabled and store.fields["bucket"].setting.startswith(names[method])
        ),
        None,
    )


@rule(
    "goofys-and-module",
    Severity.LOSES,
    "Goofys and the module are both enabled: the module's clean-up deletes the objects themselves through the mount.",
    references.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_and_module(config: Config) -> Iterable[Hit]:
    module, goofys = _store(config, methods.MODULE), _store(config, "goofys")
    if module is None or goofys is None:
        return
    path = config.field(playbook.GOOFYS_PATH)
    beside = path.text and path.text.rstrip("/") != playbook.MEDIA_STORE
    if beside and module.fields["bucket"].text != goofys.fields["bucket"].text:
        return  # a bucket mounted to copy from
    yield Hit(
        goofys.where,
        playbook.GOOFYS_ENABLED,
        "the module is enabled as well: its nightly job finds each file in the bucket and deletes it from the media "
        "store, which is the mounted bucket, so the object itself is deleted, and the job reports success",
        "Enable only one of them. `synapse-media switch` prints how to migrate.",
    )


@rule(
    "media-repo-and-other",
    Severity.BREAKS,
    "matrix-media-repo is enabled with Goofys or the module, which then have no effect.",
    references.PLAYBOOK_MEDIA_REPO,
    _ONLY,
)
def media_repo_and_other(config: Config) -> Iterable[Hit]:
    if config.flag(playbook.MEDIA_REPO_ENABLED, default=False) is not True:
        return
    switches = {methods.MODULE: playbook.MODULE_ENABLED, "goofys": playbook.GOOFYS_ENABLED}
    for other in config.stores:
        if other.method in switches and other.enabled:
            listed = other.fields["bucket"].setting.startswith(playbook.PROVIDERS_CUSTOM)
            yield Hit(
                other.where,
                playbook.PROVIDERS_CUSTOM if listed else switches[other.method],
                "matrix-media-repo is enabled, which disables Synapse's own repository: this has no effect, and its "
                "media is not found until it is imported",
                "Enable only one of them. `synapse-media switch` prints how to migrate.",
            )


@rule(
    "nightly-clean-up",
    Severity.LOSES,
    "The nightly job deletes each local file if the bucket has an object of that name, whatever its content.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def nightly_clean_up(config: Config) -> Iterable[Hit]:
    days = _clean_up_days(config)
    if days == 0:
        found = config.field(playbook.MIGRATION_DAYS)
        unset = "" if found.given else " (not set; the default is 0)"
        yield Hit(
            found.value or config.settings[playbook.MODULE_ENABLED],
            found.setting,
            f"with 0 days{unset} a job at 05:00 deletes every local file for which the bucket has an object of the "
            "same name, whatever its content: if it is empty or truncated, the file is lost, and the job succeeds",
            _SWITCH_OFF,
        )


@rule(
    "clean-up-by-name",
    Severity.WARNS,
    "The nightly job with a day count also deletes by name, only later, or deletes files recorded by an earlier run.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def clean_up_by_name(config: Config) -> Iterable[Hit]:
    days = _clean_up_days(config)
    if days is not None and days > 0:
        found = config.field(playbook.MIGRATION_DAYS)
        which = (
            f"local files not accessed for {days} days"
            if days < _NEVER
            else "no further files are selected, but those that a run with fewer days recorded in its cache.db"
        )
        yield Hit(
            found.value or config.start,
            found.setting,
            f"{which} are deleted if the bucket has an object of the same name, whatever its content",
            _SWITCH_OFF,
        )


def _clean_up_days(config: Config) -> int | None:
    """The number of days after which the nightly job deletes; None if it is off, or can't be determined."""
    if _store(config, methods.MODULE) is None:
        return None
    schedule = config.field(playbook.MIGRATION_SCHEDULE)
    if not schedule.literal or re.match(r"\d{4}-\d{1,2}-\d{1,2}(\s|$)", schedule.text):
        return None  # one date, and not every day
    found = config.field(playbook.MIGRATION_DAYS)
    if not found.given:
        return 0 if not config.hidden else None
    return int(found.text) if found.text.isascii() and found.text.isdigit() else None


def _switch(config: Config, name: str) -> bool | None:
    """A switch of the module, by default true; a null or empty one is passed on, and counts as false for Synapse."""
    found = config.field(name)
    return False if found.value is not None and found.empty else config.flag(name, default=True)


@rule(
    "playbook-not-synchronous",
    Severity.WARNS,
    "store_synchronous is false, the playbook's default: a failed upload is only logged.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_not_synchronous(config: Config) -> Iterable[Hit]:
    name = playbook.STORE_SYNCHRONOUS
    if _store(config, methods.MODULE) is None or config.hidden:
        return
    local = _switch(config, playbook.STORE_LOCAL)
    if local is not False and config.flag(name, default=False) is False:
        yield Hit(
            config.settings.get(name) or config.settings[playbook.MODULE_ENABLED],
            name,
            NOT_SYNCHRONOUS,
            "Set it to true.",
        )


@rule(
    "playbook-local-not-stored",
    Severity.WARNS,
    "store_local is false: uploads of your own users never reach the bucket.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_local_not_stored(config: Config) -> Iterable[Hit]:
    local, remote = (_switch(config, name) for name in (playbook.STORE_LOCAL, playbook.STORE_REMOTE))
    if _store(config, methods.MODULE) and local is False and remote is not False:
        yield Hit(config.settings[playbook.STORE_LOCAL], playbook.STORE_LOCAL, LOCAL_NOT_STORED, "Set it to true.")


@rule(
    "prefix-once-ignored",
    Severity.WARNS,
    "The playbook ignored the prefix before 2026-03-01: objects stored before then have no prefix.",
    references.PLAYBOOK_CHANGES,
    _ONLY,
)
def prefix_once_ignored(config: Config) -> Iterable[Hit]:
    module = _store(config, methods.MODULE)
    if module is None or module.fields["prefix"].empty:
        return
    found = module.fields["prefix"]
    yield Hit(
        found.value or module.where,
        found.setting,
        "the playbook ignored it before 2026-03-01: objects stored until your first run after that have no prefix, "
        "and are no longer found",
        "For a store created since then, ignore this. For an older one, look whether objects have the prefix, and copy "
        "those without to it, or remove the variable.",
    )


def _store_paths(config: Config) -> tuple[str, str] | None:
    """The configured path of the media store, and where Synapse looks; None if it can't be determined."""
    told, storage = config.field(playbook.STORE_PATH), config.field(playbook.STORAGE_PATH)
    if not told.literal or not storage.literal or config.hidden or _has_own_mount(config):
        return None
    moved = {name: config.field(name) for name in playbook.DATA_PATHS}
    if any(not found.literal for found in moved.values()):
        return None
    base, synapse_base = (moved[name].text.rstrip("/") for name in playbook.DATA_PATHS)
    default = f"{synapse_base or (base or '/matrix') + '/synapse'}/storage"
    looked = storage.text.rstrip("/") or default
    path = told.text.rstrip("/")
    return path or f"{looked}/media-store", f"{looked}/{path.rpartition('/')[2] or 'media-store'}"


def _has_own_mount(config: Config) -> bool:
    return any(
        playbook.STORE_IN_CONTAINER in document.source
        or (re.search(r"bind[^\n]*" + re.escape(playbook.STORAGE), document.source) is not None)
        for document in config.documents
    )


@rule(
    "store-path-elsewhere",
    Severity.LOSES,
    f"{playbook.STORE_PATH} is not where Synapse looks: it only uses the storage directory.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def store_path_elsewhere(config: Config) -> Iterable[Hit]:
    paths = _store_paths(config)
    if paths is None or paths[0] == paths[1] or config.flag(playbook.MEDIA_REPO_ENABLED, default=False):
        return
    goofys = _store(config, "goofys")
    effect = "the bucket is mounted there, so nothing reaches it" if goofys else "media there is not found"
    yield Hit(
        config.settings[playbook.STORE_PATH],
        playbook.STORE_PATH,
        f"Synapse's container only sees {playbook.STORAGE_PATH}, and keeps media in {paths[1]}: {effect}",
        f"Set {playbook.STORAGE_PATH} to {paths[0].rpartition('/')[0] or '/'} as well, once the media in {paths[1]} "
        "has been copied; or remove the variable.",
    )


def _goofys_mount(config: Config) -> str | None:
    """Where Goofys mounts the bucket, if Synapse does not look there; None if it does, or it can't be determined."""
    mount, paths = config.field(playbook.GOOFYS_PATH), _store_paths(config)
    if _store(config, "goofys") is None or not mount.text or paths is None:
        return None
    path = mount.text.rstrip("/")
    module = _store(config, methods.MODULE)
    if path in paths or module is not None:
        return None  # with the module enabled, this bucket is being copied from
    return path


@rule(
    "goofys-mount-elsewhere",
    Severity.LOSES,
    f"{playbook.GOOFYS_PATH} is not where Synapse looks: nothing reaches the bucket.",
    references.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_mount_elsewhere(config: Config) -> Iterable[Hit]:
    path = _goofys_mount(config)
    if path not in (None, playbook.GOOFYS_MIGRATION_MOUNT):
        yield Hit(
            config.settings[playbook.GOOFYS_PATH],
            playbook.GOOFYS_PATH,
            "Synapse keeps media in its own storage directory, not here: nothing reaches the bucket",
            "Remove it. The playbook's guide sets it to "
            f"{playbook.GOOFYS_MIGRATION_MOUNT} during a migration, and removes it at the end.",
        )


@rule(
    "goofys-migrating",
    Severity.WARNS,
    "The bucket is mounted next to the media store, as during a migration: Synapse does not use it yet.",
    references.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_migrating(config: Config) -> Iterable[Hit]:
    if _goofys_mount(config) == playbook.GOOFYS_MIGRATION_MOUNT:
        yield Hit(
            config.settings[playbook.GOOFYS_PATH],
            playbook.GOOFYS_PATH,
            "this is the mount point of the migration: as long as it is set, no upload reaches the bucket",
            "Finish the playbook's guide: copy, stop Synapse, copy again, and remove the variable.",
        )


@rule(
    "playbook-nothing-stored",
    Severity.WARNS,
    "store_local and store_remote are both false: no new media reaches the bucket.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_nothing_stored(config: Config) -> Iterable[Hit]:
    names = [playbook.STORE_LOCAL, playbook.STORE_REMOTE]
    if _store(config, methods.MODULE) and all(_switch(config, name) is False for name in names):
        yield Hit(
            config.settings[names[0]],
            names[0],
            "store_remote is false as well: the bucket is only read from, and no new media is stored there",
            "Set both to true, unless you are migrating away from the bucket.",
        )


@rule(
    "playbook-dead-option",
    Severity.WARNS,
    "A variable that has no effect.",
    references.MODULE,
    _ONLY,
)
def playbook_dead_option(config: Config) -> Iterable[Hit]:
    if _store(config, methods.MODULE) is None:
        return
    pool = config.settings.get(playbook.THREADPOOL_SIZE)
    if pool is not None:
        yield Hit(
            pool,
            playbook.THREADPOOL_SIZE,
            "the module drops it when it reads its configuration, and uses 40 threads",
            "Remove it.",
        )


@rule(
    "customer-key-half",
    Severity.BREAKS,
    "Only one of the customer key and its switch is set.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def customer_key_half(config: Config) -> Iterable[Hit]:
    module, switch = _store(config, methods.MODULE), playbook.CUSTOMER_KEY_ENABLED
    if module is None or config.hidden:
        return
    key, enabled = module.fields["customer_key"], config.flag(switch, default=False)
    if enabled and key.empty:
        yield Hit(
            config.settings[switch],
            switch,
            f"{key.setting} is not set: every request has an empty key, which the store rejects",
            "Set the key as well, or remove the switch.",
        )
    elif enabled is False and not key.empty:
        yield Hit(
            key.value or module.where,
            key.setting,
            f"it is ignored because {switch} is not true: nothing is encrypted with your key",
            "Set the switch to true before anything is stored, or remove the key.",
        )


@rule(
    "checksum-headers",
    Severity.WARNS,
    "The playbook's job sends newer checksum headers to a store that may reject them.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def checksum_headers(config: Config) -> Iterable[Hit]:
    module = _store(config, methods.MODULE)
    given = config.settings.get(playbook.MODULE_CONTAINER_ARGUMENTS)
    if module is None or config.hidden or (given is not None and isinstance(given.data, str)):
        return
    if any("AWS_REQUEST_CHECKSUM_CALCULATION=" in str(entry.data) for entry in (given.entries if given else ())):
        return
    endpoint = module.fields["endpoint"]
    found = _provider(endpoint.text)
    if found is not None and found.value("checksums") == "when_required":
        is_old = config.module_version is not None and config.module_version < synapse.THREADPOOL_SINCE
        yield Hit(
            endpoint.value or module.where,
            playbook.MODULE_CONTAINER_ARGUMENTS,
            f"s3_media_upload (bin/migrate) sends checksum headers that {found.title} may reject; the module itself "
            f"sends {'them too' if is_old else 'none'}",
            "Add --env=AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
            "--env=AWS_RESPONSE_CHECKSUM_VALIDATION=when_required to its list.",
        )


def _provider(endpoint: str) -> catalog.Provider | None:
    """The provider of this endpoint. Presets are skipped: their values are safe defaults rather than known facts."""
    for provider in map(catalog.load, catalog.names()):
        pattern = re.escape(provider.value("endpoint", "")).replace(r"\{region\}", "[a-z0-9-]+")
        if (
            provider.component == provider.name
            and pattern
            and re.fullmatch(pattern, f"https://{stores.host(endpoint)}")
        ):
            return provider
    return None


@rule(
    "setting-required",
    Severity.BREAKS,
    "The playbook refuses the module without bucket, region, endpoint and access key.",
    references.PLAYBOOK_MODULE,
    _ONLY,
)
def setting_required(config: Config) -> Iterable[Hit]:
    module = _store(config, methods.MODULE)
    if module is None or config.hidden:
        return
    keys = () if module.keyless else ("access_key_id", "secret_access_key")
    missing = [name for name in ("bucket", "region", "endpoint", *keys) if module.fields[name].empty]
    if keys and len([name for name in missing if name in keys]) == 1:
        missing = [name for name in missing if name not in keys]  # reported by key-half
    for name in missing:
        found = module.fields[name]
        also = ", also for Amazon S3: https://s3.REGION.amazonaws.com" if name == "endpoint" else ""
        nothing = found.value is not None and not found.given
        yield Hit(
            found.value or module.where,
            found.setting,
            "it has no value, which the playbook passes on: Synapse gets null, and the module fails or turns it into "
            "the string 'None'"
            if nothing
            else "it is not set in these files, and the playbook requires it",
            f"Set it{also}. If another file sets it, pass that file to this command as well.",
        )


@rule(
    "goofys-default",
    Severity.BREAKS,
    "Goofys is enabled with the default key or endpoint, which are placeholders.",
    references.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_default(config: Config) -> Iterable[Hit]:
    goofys = _store(config, "goofys")
    if goofys is None or config.hidden:
        return
    unset = [name for name in ("access_key_id", "secret_access_key") if not goofys.fields[name].given]
    if len(unset) == 1:
        unset = []  # reported by key-half
    if config.flag(playbook.GOOFYS_ENDPOINT_ENABLED, default=False) and not goofys.fields["endpoint"].given:
        unset.append("endpoint")
    for name in unset:
        yield Hit(
            goofys.where,
            goofys.fields[name].setting,
            "it is not set in these files, and its default is a placeholder, which the playbook deploys unchanged",
            "Set it. If another file sets it, pass that file to this command as well.",
        )


@rule(
    "endpoint-unused",
    Severity.BREAKS,
    f"{playbook.GOOFYS_VARIABLES['endpoint']} without …_enabled: Goofys connects to Amazon.",
    references.PLAYBOOK_GOOFYS_UNIT,
    _ONLY,
)
def endpoint_unused(config: Config) -> Iterable[Hit]:
    goofys, switch = _store(config, "goofys"), playbook.GOOFYS_ENDPOINT_ENABLED
    if goofys and not goofys.fields["endpoint"].empty and config.flag(switch, default=False) is False:
        found = goofys.fields["endpoint"]
        yield Hit(
            found.value or goofys.where,
            found.setting,
            f"it is ignored because {switch} is not true",
            f"Set {switch}: true.",
        )


@rule(
    "goofys-storage-class",
    Severity.WARNS,
    "Goofys without a custom endpoint writes STANDARD_IA, billed for at least 30 days and 128 KiB per object.",
    references.PLAYBOOK_GOOFYS_UNIT,
    _ONLY,
)
def goofys_storage_class(config: Config) -> Iterable[Hit]:
    goofys = _store(config, "goofys")
    if goofys and config.flag(playbook.GOOFYS_ENDPOINT_ENABLED, default=False) is False:
        region = goofys.fields["region"].text or "REGION"
        yield Hit(
            goofys.where,
            playbook.GOOFYS_ENDPOINT_ENABLED,
            "without a custom endpoint the playbook has Goofys write STANDARD_IA, which bills each thumbnail as "
            "128 KiB, each object for 30 days, and every read; no variable changes that",
            f"Set it to true, and {goofys.fields['endpoint'].setting} to https://s3.{region}.amazonaws.com: STANDARD.",
        )


@rule(
    "misspelt-variable",
    Severity.BREAKS,
    "A variable that the playbook does not have; Ansible silently ignores it.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def misspelt_variable(config: Config) -> Iterable[Hit]:
    for name, value in config.settings.items():
        if name in playbook.KNOWN or not name.startswith("matrix_") or _is_read(config, name):
            continue
        family = next((prefix for prefix in playbook.FAMILIES if name.startswith(prefix)), "")
        guess = nearest(name, playbook.KNOWN) if family else ""
        if not family:
            meant = misspelt(name, playbook.KNOWN, alike=0.96)
            if not meant:
                continue
            guess = f"Did you mean {meant!r}? "
        yield Hit(
            value,
            name[:120],
            "the playbook has no such variable (as of August 2026), and Ansible silently ignores it",
            f"{guess}Fix or remove it.",
        )


def _is_read(config: Config, name: str) -> bool:
    """Whether one of these files uses a variable, which is then a helper of its author."""
    pattern = re.compile(rf"\{{[{{%][^}}]*\b{re.escape(name)}\b")
    return any(pattern.search(document.source) for document in config.documents)


@rule(
    "removed-variable",
    Severity.BREAKS,
    "A variable that the playbook has removed and now rejects.",
    references.PLAYBOOK_MEDIA_REPO,
    _ONLY,
)
def removed_variable(config: Config) -> Iterable[Hit]:
    for name in playbook.REMOVED:
        if name in config.settings:
            yield Hit(
                config.settings[name],
                name,
                "the playbook rejects it: its settings have variables of their own now, or were removed",
                "Remove it, and set those variables that you need. Keep each datastore's id.",
            )


@rule(
    "kinds-form",
    Severity.BREAKS,
    "The kinds of a datastore are not a list: matrix-media-repo does not start.",
    references.MEDIA_REPO_SAMPLE,
    _ONLY,
)
def kinds_form(config: Config) -> Iterable[Hit]:
    for name in (playbook.FILE_KINDS, playbook.S3_KINDS):
        found = config.field(name)
        if found.given and found.literal and found.value and not isinstance(found.value.data, tuple):
            yield Hit(found.value, name, NO_LIST, f"Write [{found.text[:40]}].")


@rule(
    "providers-overridden",
    Severity.BREAKS,
    "The playbook's list of storage providers is overridden: the module is not loaded, or not with this store and key.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def providers_overridden(config: Config) -> Iterable[Hit]:
    if _store(config, methods.MODULE) is None:
        return
    for name in (playbook.PROVIDERS, playbook.PROVIDERS_AUTO):
        found = config.field(name)
        if found.given and found.literal and found.value:
            yield Hit(
                found.value,
                name,
                "it replaces the list to which the playbook adds the module: Synapse never loads it",
                f"Use {playbook.PROVIDERS_CUSTOM} for providers of your own.",
            )
