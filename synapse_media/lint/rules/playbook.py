"""What goes wrong with the variables of matrix-docker-ansible-deploy, which checks little of it itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

from synapse_media.lint import links, playbook, uses
from synapse_media.lint.config import Config, Kind, Use, misspelt, nearest
from synapse_media.lint.findings import Hit, Severity, rule
from synapse_media.lint.rules.synapse import NOT_SYNCHRONOUS

_ONLY = (Kind.PLAYBOOK,)
_NEVER = 3650
"""A day count that selects nothing yet, on any homeserver."""


def _use(config: Config, method: str) -> Use | None:
    """The way to a store that these variables switch on; None where they don't, or nobody can tell."""
    names = {uses.MODULE: playbook.MODULE, "goofys": playbook.GOOFYS, "matrix-media-repo": playbook.S3}
    return next(
        (
            use
            for use in config.uses
            if use.method == method and use.enabled and use.fields["bucket"].setting.startswith(names[method])
        ),
        None,
    )


@rule(
    "goofys-and-module",
    Severity.LOSES,
    "Goofys and the module together: the module's job deletes the objects themselves through the mount.",
    links.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_and_module(config: Config) -> Iterable[Hit]:
    module, goofys = _use(config, uses.MODULE), _use(config, "goofys")
    if module is None or goofys is None:
        return
    path = config.field(f"{playbook.GOOFYS}path")
    beside = path.text and path.text.rstrip("/") != "/matrix/synapse/storage/media-store"
    if beside and module.fields["bucket"].text != goofys.fields["bucket"].text:
        return  # a bucket that is mounted to copy from it
    yield Hit(
        goofys.where,
        f"{playbook.GOOFYS}enabled",
        "the module is enabled as well: its nightly job finds each file in the bucket and deletes it from the media "
        "store, which is the mounted bucket: the object is gone, and the job says success",
        "Enable one of the two. `synapse-media switch` prints the way from one to the other.",
    )


@rule(
    "media-repo-and-other",
    Severity.BREAKS,
    "matrix-media-repo beside Goofys or the module, which do nothing then.",
    links.PLAYBOOK_MEDIA_REPO,
    _ONLY,
)
def media_repo_and_other(config: Config) -> Iterable[Hit]:
    if config.flag(f"{playbook.MEDIA_REPO}enabled", default=False) is not True:
        return
    for method, prefix in ((uses.MODULE, playbook.MODULE), ("goofys", playbook.GOOFYS)):
        other = _use(config, method)
        if other is not None:
            yield Hit(
                other.where,
                f"{prefix}enabled",
                "matrix-media-repo is enabled, which switches Synapse's own repository off: this does nothing more, "
                "and the media behind it is not found until it is imported",
                "Enable one of them. `synapse-media switch` prints the way from one to the other.",
            )


@rule(
    "nightly-clean-up",
    Severity.LOSES,
    "The playbook's nightly job deletes every local file that has a namesake in the bucket, whatever is in that.",
    links.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def nightly_clean_up(config: Config) -> Iterable[Hit]:
    days = _clean_up_days(config)
    if days == 0:
        found = config.field(f"{playbook.MODULE}update_db_day_count")
        unset = "" if found.given else " (not set: 0 is the default)"
        yield Hit(
            found.value or config.settings[f"{playbook.MODULE}enabled"],
            found.setting,
            f"with 0 days{unset} a job deletes every local file at 05:00 for which the bucket has an object of the "
            "same name, whatever its content: an empty or half an object loses the file, and the job says success",
            "Set it to 36500 until the content of the bucket was compared with the local files.",
        )


@rule(
    "clean-up-by-name",
    Severity.WARNS,
    "The nightly job with some days: it deletes by name as well, only later.",
    links.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def clean_up_by_name(config: Config) -> Iterable[Hit]:
    days = _clean_up_days(config)
    if days is not None and 0 < days < _NEVER:
        found = config.field(f"{playbook.MODULE}update_db_day_count")
        yield Hit(
            found.value or config.start,
            found.setting,
            f"local files that nobody asked for in {days} days are deleted if the bucket has an object of the "
            "same name, whatever its content",
            "Compare the content first, and have a look at the job's log: it says success where uploads fail.",
        )


def _clean_up_days(config: Config) -> int | None:
    """After how many days the nightly job deletes; None where it is off, or nobody can tell."""
    if _use(config, uses.MODULE) is None:
        return None
    schedule = config.field(f"{playbook.MODULE}periodic_migration_schedule")
    if not schedule.literal or re.match(r"\d{4}-", schedule.text):
        return None  # a date, and not every day
    found = config.field(f"{playbook.MODULE}update_db_day_count")
    if not found.given:
        return 0 if not config.hidden else None
    return int(found.text) if found.text.isascii() and found.text.isdigit() else None


@rule(
    "playbook-not-synchronous",
    Severity.WARNS,
    "store_synchronous is false, the playbook's default: an upload that fails is only logged.",
    links.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_not_synchronous(config: Config) -> Iterable[Hit]:
    name = f"{playbook.MODULE}store_synchronous"
    if _use(config, uses.MODULE) is None or config.hidden:
        return
    local = config.flag(f"{playbook.MODULE}store_local", default=True)
    if local is not False and config.flag(name, default=False) is False:
        yield Hit(
            config.settings.get(name) or config.settings[f"{playbook.MODULE}enabled"],
            name,
            NOT_SYNCHRONOUS,
            "Set it to true.",
        )


@rule(
    "playbook-nothing-stored",
    Severity.WARNS,
    "store_local and store_remote are both false: nothing new reaches the bucket.",
    links.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def playbook_nothing_stored(config: Config) -> Iterable[Hit]:
    names = [f"{playbook.MODULE}{name}" for name in ("store_local", "store_remote")]
    if _use(config, uses.MODULE) and all(config.flag(name, default=True) is False for name in names):
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
    links.MODULE,
    _ONLY,
)
def playbook_dead_option(config: Config) -> Iterable[Hit]:
    if _use(config, uses.MODULE) is None:
        return
    pool = config.settings.get(f"{playbook.MODULE}config_threadpool_size")
    if pool is not None:
        yield Hit(
            pool,
            f"{playbook.MODULE}config_threadpool_size",
            "the module (1.7.0) drops it while it reads its configuration: it uses 40 threads",
            "Remove it.",
        )


@rule(
    "setting-required",
    Severity.BREAKS,
    "The playbook refuses the module without bucket, region, endpoint and key.",
    links.PLAYBOOK_MODULE,
    _ONLY,
)
def setting_required(config: Config) -> Iterable[Hit]:
    module = _use(config, uses.MODULE)
    if module is None or config.hidden:
        return
    keys = () if module.keyless else ("access_key_id", "secret_access_key")
    missing = [name for name in ("bucket", "region", "endpoint", *keys) if module.fields[name].empty]
    if keys and len([name for name in missing if name in keys]) == 1:
        missing = [name for name in missing if name not in keys]  # said by key-half
    for name in missing:
        found = module.fields[name]
        also = ", also for Amazon S3: https://s3.REGION.amazonaws.com" if name == "endpoint" else ""
        yield Hit(
            found.value or module.where,
            found.setting,
            "it is not set in these files, and the playbook stops without it",
            f"Set it{also}. If another file sets it, give that one to this command as well.",
        )


@rule(
    "goofys-default",
    Severity.BREAKS,
    "Goofys is enabled with keys of the defaults, which are placeholders.",
    links.PLAYBOOK_GOOFYS,
    _ONLY,
)
def goofys_default(config: Config) -> Iterable[Hit]:
    goofys = _use(config, "goofys")
    if goofys is None or config.hidden:
        return
    unset = [name for name in ("access_key_id", "secret_access_key") if not goofys.fields[name].given]
    if len(unset) == 1:
        return  # said by key-half
    for name in unset:
        yield Hit(
            goofys.where,
            goofys.fields[name].setting,
            "it is not set in these files, and the default is a placeholder, which the playbook deploys happily",
            "Set it. If another file sets it, give that one to this command as well.",
        )


@rule(
    "endpoint-unused",
    Severity.BREAKS,
    "matrix_s3_media_store_custom_endpoint without …_enabled: Goofys goes to Amazon.",
    links.PLAYBOOK_GOOFYS_UNIT,
    _ONLY,
)
def endpoint_unused(config: Config) -> Iterable[Hit]:
    goofys, switch = _use(config, "goofys"), f"{playbook.GOOFYS}custom_endpoint_enabled"
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
    links.PLAYBOOK_GOOFYS_UNIT,
    _ONLY,
)
def goofys_storage_class(config: Config) -> Iterable[Hit]:
    goofys = _use(config, "goofys")
    if goofys and config.flag(f"{playbook.GOOFYS}custom_endpoint_enabled", default=False) is False:
        region = goofys.fields["region"].text or "REGION"
        yield Hit(
            goofys.where,
            f"{playbook.GOOFYS}custom_endpoint_enabled",
            "without a custom endpoint the playbook makes Goofys write STANDARD_IA, which bills each thumbnail as "
            "128 KiB, each object for 30 days, and every read; no variable changes that",
            f"Set it to true, and {playbook.GOOFYS}custom_endpoint to https://s3.{region}.amazonaws.com: STANDARD.",
        )


@rule(
    "misspelt-variable",
    Severity.BREAKS,
    "A variable that the playbook does not have: Ansible ignores it in silence.",
    links.PLAYBOOK_DEFAULTS,
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
    "providers-overridden",
    Severity.BREAKS,
    "The playbook's own list of storage providers is overridden: the module it would add is lost.",
    links.PLAYBOOK_DEFAULTS,
    _ONLY,
)
def providers_overridden(config: Config) -> Iterable[Hit]:
    if _use(config, uses.MODULE) is None:
        return
    for name in ("matrix_synapse_media_storage_providers", "matrix_synapse_media_storage_providers_auto"):
        found = config.field(name)
        if found.given and found.literal and found.value:
            yield Hit(
                found.value,
                name,
                "it replaces the list that the playbook puts the module into: Synapse never loads it",
                f"Use {uses.CUSTOM} for providers of your own.",
            )
