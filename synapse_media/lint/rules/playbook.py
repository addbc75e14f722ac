"""What goes wrong with the variables of matrix-docker-ansible-deploy, which checks little of it itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

from synapse_media import catalog, methods
from synapse_media.homeserver import playbook, synapse
from synapse_media.lint import references, stores
from synapse_media.lint.config import Config, ConfiguredStore, Kind, misspelt, nearest
from synapse_media.lint.findings import Hit, Severity, rule
from synapse_media.lint.rules.synapse import LOCAL_NOT_STORED, NOT_SYNCHRONOUS

_ONLY = (Kind.PLAYBOOK,)
_NEVER = 3650
"""A day count that selects nothing new, on any homeserver."""
_SWITCH_OFF = (
    f'Set {playbook.MIGRATION_SCHEDULE} to "{playbook.MIGRATION_NEVER}" until the content of the bucket was '
    "compared with the local files. A day count is not enough: what an earlier run noted is deleted all the same."
)


def _store(config: Config, method: str) -> ConfiguredStore | None:
    """The store that these variables switch on; None where they don't, or nobody can tell."""
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
    "Goofys and the module together: the module's job deletes the objects themselves through the mount.",
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
        return  # a bucket that is mounted to copy from it
    yield Hit(
        goofys.where,
        playbook.GOOFYS_ENABLED,
        "the module is enabled as well: its nightly job finds each file in the bucket and deletes it from the media "
        "store, which is the mounted bucket: the object is gone, and the job says success",
        "Enable one of the two. `synapse-media switch` prints the way from one to the other.",
    )


@rule(
    "media-repo-and-other",
    Severity.BREAKS,
    "matrix-media-repo beside Goofys or the module, which do nothing then.",
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
                "matrix-media-repo is enabled, which switches Synapse's own repository off: this does nothing more, "
                "and the media behind it is not found until it is imported",
                "Enable one of them. `synapse-media switch` prints the way from one to the other.",
            )


@rule(
    "nightly-clean-up",
    Severity.LOSES,
    "The playbook's nightly job deletes every local file that has a namesake in the bucket, whatever is in that.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def nightly_clean_up(config: Config) -> Iterable[Hit]:
    days = _clean_up_days(config)
    if days == 0:
        found = config.field(playbook.MIGRATION_DAYS)
        unset = "" if found.given else " (not set: 0 is the default)"
        yield Hit(
            found.value or config.settings[playbook.MODULE_ENABLED],
            found.setting,
            f"with 0 days{unset} a job deletes every local file at 05:00 for which the bucket has an object of the "
            "same name, whatever its content: an empty or half an object loses the file, and the job says success",
            _SWITCH_OFF,
        )


@rule(
    "clean-up-by-name",
    Severity.WARNS,
    "The nightly job with a day count: it deletes by name as well, only later, or what an earlier run noted.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def clean_up_by_name(config: Config) -> Iterable[Hit]:
    days = _clean_up_days(config)
    if days is not None and days > 0:
        found = config.field(playbook.MIGRATION_DAYS)
        which = (
            f"local files that nobody asked for in {days} days"
            if days < _NEVER
            else "nothing new is selected, but local files that a run with fewer days noted in its cache.db"
        )
        yield Hit(
            found.value or config.start,
            found.setting,
            f"{which} are deleted if the bucket has an object of the same name, whatever its content",
            _SWITCH_OFF,
        )


def _clean_up_days(config: Config) -> int | None:
    """After how many days the nightly job deletes; None where it is off, or nobody can tell."""
    if _store(config, methods.MODULE) is None:
        return None
    schedule = config.field(playbook.MIGRATION_SCHEDULE)
    if not schedule.literal or re.match(r"\d{4}-\d{1,2}-\d{1,2}(\s|$)", schedule.text):
        return None  # one date, and not every day
    found = config.field(playbook.MIGRATION_DAYS)
    if not found.given:
        return 0 if not config.hidden else None
    return int(found.text) if found.text.isascii() and found.text.isdigit() else None


@rule(
    "playbook-not-synchronous",
    Severity.WARNS,
    "store_synchronous is false, the playbook's default: an upload that fails is only logged.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_not_synchronous(config: Config) -> Iterable[Hit]:
    name = playbook.STORE_SYNCHRONOUS
    if _store(config, methods.MODULE) is None or config.hidden:
        return
    local = config.flag(playbook.STORE_LOCAL, default=True)
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
    "store_local is false: what your own users upload never reaches the bucket.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_local_not_stored(config: Config) -> Iterable[Hit]:
    local, remote = (config.flag(name, default=True) for name in (playbook.STORE_LOCAL, playbook.STORE_REMOTE))
    if _store(config, methods.MODULE) and local is False and remote is not False:
        yield Hit(config.settings[playbook.STORE_LOCAL], playbook.STORE_LOCAL, LOCAL_NOT_STORED, "Set it to true.")


@rule(
    "prefix-once-ignored",
    Severity.WARNS,
    "The playbook ignored the prefix before 2026-03-01: objects of that time lie without it.",
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
        "the playbook ignored it before 2026-03-01: what was stored until your first run since lies without the "
        "prefix, and is no longer found",
        "A store begun since then: nothing to do. An older one: look under which names the objects lie, and copy them "
        "to the prefix, or remove the variable.",
    )


def _store_paths(config: Config) -> tuple[str, str] | None:
    """Where the media store is said to be, and where Synapse looks; None where nobody can tell from here."""
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
    f"{playbook.STORE_PATH} is elsewhere than Synapse looks: it uses the storage directory alone.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def store_path_elsewhere(config: Config) -> Iterable[Hit]:
    paths = _store_paths(config)
    if paths is None or paths[0] == paths[1] or config.flag(playbook.MEDIA_REPO_ENABLED, default=False):
        return
    goofys = _store(config, "goofys")
    effect = "the bucket is mounted there, and nothing reaches it" if goofys else "what lies there is not found"
    yield Hit(
        config.settings[playbook.STORE_PATH],
        playbook.STORE_PATH,
        f"Synapse's container sees {playbook.STORAGE_PATH} alone, and keeps media in {paths[1]}: {effect}",
        f"Set {playbook.STORAGE_PATH} to {paths[0].rpartition('/')[0] or '/'} as well, once what lies in {paths[1]} "
        "was copied; or remove the variable.",
    )


def _goofys_mount(config: Config) -> str | None:
    """Where Goofys mounts the bucket, if that is not where Synapse looks; None where it is, or nobody can tell."""
    mount, paths = config.field(playbook.GOOFYS_PATH), _store_paths(config)
    if _store(config, "goofys") is None or not mount.text or paths is None:
        return None
    path = mount.text.rstrip("/")
    module = _store(config, methods.MODULE)
    if path in paths or module is not None:
        return None  # beside the module, a bucket that is copied from
    return path


@rule(
    "goofys-mount-elsewhere",
    Severity.LOSES,
    f"{playbook.GOOFYS_PATH} is elsewhere than Synapse looks: nothing reaches the bucket.",
    references.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_mount_elsewhere(config: Config) -> Iterable[Hit]:
    path = _goofys_mount(config)
    if path not in (None, playbook.GOOFYS_MIGRATION_MOUNT):
        yield Hit(
            config.settings[playbook.GOOFYS_PATH],
            playbook.GOOFYS_PATH,
            "Synapse keeps media in its own storage directory, and this is another: nothing reaches the bucket",
            "Remove it. During the migration of the playbook's guide it is "
            f"{playbook.GOOFYS_MIGRATION_MOUNT}, and is removed at its end.",
        )


@rule(
    "goofys-migrating",
    Severity.WARNS,
    "The bucket is mounted beside the media store, as during the migration: Synapse does not use it yet.",
    references.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_migrating(config: Config) -> Iterable[Hit]:
    if _goofys_mount(config) == playbook.GOOFYS_MIGRATION_MOUNT:
        yield Hit(
            config.settings[playbook.GOOFYS_PATH],
            playbook.GOOFYS_PATH,
            "this is the mount of the migration: as long as it is set, nothing that is uploaded reaches the bucket",
            "Finish the guide: copy, stop, copy again, and remove the variable.",
        )


@rule(
    "playbook-nothing-stored",
    Severity.WARNS,
    "store_local and store_remote are both false: nothing new reaches the bucket.",
    references.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_nothing_stored(config: Config) -> Iterable[Hit]:
    names = [playbook.STORE_LOCAL, playbook.STORE_REMOTE]
    if _store(config, methods.MODULE) and all(config.flag(name, default=True) is False for name in names):
        yield Hit(
            config.settings[names[0]],
            names[0],
            "store_remote is false as well: the bucket is read from, and nothing new gets there",
            "Set both to true, unless you are leaving the bucket.",
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
            "the module drops it while it reads its configuration: it uses 40 threads",
            "Remove it.",
        )


@rule(
    "customer-key-half",
    Severity.BREAKS,
    "Only one of the switch for a customer key and the key itself is there.",
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
            f"{key.setting} is not there: each request names an empty key, which a store refuses",
            "Set the key as well, or remove the switch.",
        )
    elif enabled is False and not key.empty:
        yield Hit(
            key.value or module.where,
            key.setting,
            f"it is ignored, since {switch} is not true: nothing is encrypted with a key of yours",
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
    """Whose endpoint this is. Not a preset's, which has what is safe anywhere rather than what is known of it."""
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
    "The playbook refuses the module without bucket, region, endpoint and key.",
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
        missing = [name for name in missing if name not in keys]  # said by key-half
    for name in missing:
        found = module.fields[name]
        also = ", also for Amazon S3: https://s3.REGION.amazonaws.com" if name == "endpoint" else ""
        nothing = found.value is not None and not found.given
        yield Hit(
            found.value or module.where,
            found.setting,
            "nothing stands after the colon, which the playbook takes for a value: Synapse gets null, and the module "
            "fails or makes the text 'None' of it"
            if nothing
            else "it is not set in these files, and the playbook stops without it",
            f"Set it{also}. If another file sets it, give that one to this command as well.",
        )


@rule(
    "goofys-default",
    Severity.BREAKS,
    "Goofys is enabled with a key or an endpoint of the defaults, which are placeholders.",
    references.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_default(config: Config) -> Iterable[Hit]:
    goofys = _store(config, "goofys")
    if goofys is None or config.hidden:
        return
    unset = [name for name in ("access_key_id", "secret_access_key") if not goofys.fields[name].given]
    if len(unset) == 1:
        unset = []  # said by key-half
    if config.flag(playbook.GOOFYS_ENDPOINT_ENABLED, default=False) and not goofys.fields["endpoint"].given:
        unset.append("endpoint")
    for name in unset:
        yield Hit(
            goofys.where,
            goofys.fields[name].setting,
            "it is not set in these files, and the default is a placeholder, which the playbook deploys as it is",
            "Set it. If another file sets it, give that one to this command as well.",
        )


@rule(
    "endpoint-unused",
    Severity.BREAKS,
    f"{playbook.GOOFYS_VARIABLES['endpoint']} without …_enabled: Goofys goes to Amazon.",
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
            f"it is ignored, since {switch} is not true",
            f"Set {switch}: true.",
        )


@rule(
    "goofys-storage-class",
    Severity.WARNS,
    "Goofys without a custom endpoint writes STANDARD_IA: billed for 30 days and 128 KiB an object at least.",
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
            "without a custom endpoint the playbook makes Goofys write STANDARD_IA, which bills each thumbnail as "
            "128 KiB, each object for 30 days, and every read; no variable changes that",
            f"Set it to true, and {goofys.fields['endpoint'].setting} to https://s3.{region}.amazonaws.com: STANDARD.",
        )


@rule(
    "misspelt-variable",
    Severity.BREAKS,
    "A variable that the playbook does not have: Ansible ignores it in silence.",
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
            "the playbook has no such variable (August 2026), and Ansible ignores it in silence",
            f"{guess}Mend or remove it.",
        )


def _is_read(config: Config, name: str) -> bool:
    """Whether one of these files makes use of a variable: then it is a helper of its author."""
    pattern = re.compile(rf"\{{[{{%][^}}]*\b{re.escape(name)}\b")
    return any(pattern.search(document.source) for document in config.documents)


@rule(
    "removed-variable",
    Severity.BREAKS,
    "A variable that the playbook had once, and refuses now.",
    references.PLAYBOOK_MEDIA_REPO,
    _ONLY,
)
def removed_variable(config: Config) -> Iterable[Hit]:
    for name in playbook.REMOVED:
        if name in config.settings:
            yield Hit(
                config.settings[name],
                name,
                "the playbook stops at it: each of its settings has a variable of its own now, or none",
                "Remove it, and set what is needed of those. Keep each datastore's id.",
            )


@rule(
    "providers-overridden",
    Severity.BREAKS,
    "The playbook's own list of storage providers is overridden: the module it would add is lost.",
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
                "it replaces the list that the playbook puts the module into: Synapse never loads it",
                f"Use {playbook.PROVIDERS_CUSTOM} for providers of your own.",
            )
