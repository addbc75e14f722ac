"""Checks across several configurations, or several stores of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from synapse_media import methods, values
from synapse_media.homeserver import playbook, synapse

from . import references, stores
from .config import Config, ConfiguredStore, Kind
from .findings import RULES as FOUND
from .findings import Finding, Hit, Rule, Severity
from .rules.synapse import NO_STORAGE, REMOVE_BY_HAND, RETENTION_STAYS, UNLESS_ELSEWHERE

SHARED_BUCKET = Rule(
    "two-methods-one-bucket",
    Severity.LOSES,
    (),
    "Two methods use one bucket: one may delete the other's media as garbage.",
    references.PLAYBOOK_GOOFYS,
    lambda _: (),
)
TWO_HOMESERVERS = Rule(
    "two-homeservers-one-bucket",
    Severity.WARNS,
    (),
    "Two configurations use the same bucket and prefix.",
    references.MODULE,
    lambda _: (),
)
TWO_REPOSITORIES = Rule(
    "two-repositories",
    Severity.WARNS,
    (),
    "matrix-media-repo is configured, and Synapse's own media repository is still on.",
    f"{references.SYNAPSE}#{synapse.ENABLE_MEDIA_REPO}",
    lambda _: (),
)
RULES = (SHARED_BUCKET, TWO_HOMESERVERS, TWO_REPOSITORIES)


def find(configs: Sequence[Config]) -> Iterator[Finding]:
    """Findings of these checks."""
    for one, other, same_config in _pairs(configs):
        bucket = other.fields["bucket"]
        if one.method != other.method:
            if same_config and _is_reported(one, other):
                continue
            reason = f"{one.fields['bucket'].setting} uses the same bucket for {one.method}: two methods on one bucket"
            mend = "Use a separate bucket for each, or disable one of them."
            yield SHARED_BUCKET.finding(Hit(bucket.value or other.where, bucket.setting, reason, mend))
        elif not same_config and _prefix(one) == _prefix(other) and not _of_one_playbook(one, other):
            reason = f"{one.where.file}:{one.where.line} uses it as well: the media of two homeservers would be mixed"
            mend = (
                "Use a separate bucket or prefix per homeserver. If both files belong to one homeserver, ignore this."
            )
            yield TWO_HOMESERVERS.finding(Hit(bucket.value or other.where, bucket.setting, reason, mend))
    yield from _repositories(configs)
    yield from _overridden(configs)
    yield from _set_beside(configs)


def _of_one_playbook(one: ConfiguredStore, other: ConfiguredStore) -> bool:
    """Whether both are in the variables of one host, one of them in a variable that overrides the other."""
    return Path(one.where.file).parent == Path(other.where.file).parent


def _set_beside(configs: Sequence[Config]) -> Iterator[Finding]:
    """Settings in a raw variable of the playbook that contradict its own variables."""
    for config in configs:
        place, path = config.documents[0].place, config.documents[0].path
        if not place:
            continue
        beside = [each for each in configs if each.kind is Kind.PLAYBOOK and path in [at.path for at in each.documents]]
        local = config.settings.get(synapse.ENABLE_LOCAL_STORAGE)
        uses = any(store.method == methods.MODULE and store.enabled for each in beside for store in each.stores)
        off = config.flag(synapse.ENABLE_LOCAL_STORAGE, default=True) is False
        if local is not None and off and not any(stores.has_any(each) for each in (config, *beside)):
            yield FOUND["no-storage"].finding(Hit(local, place, NO_STORAGE, f"Set it to true.{UNLESS_ELSEWHERE}"))
        if local is not None and off and uses:
            reason = "the module is enabled, and reads each file from the local store, which is disabled"
            yield FOUND["no-local-storage"].finding(
                Hit(local, place, f"{reason}: every upload fails", "Set it to true.")
            )
        retention = config.settings.get(synapse.RETENTION)
        if retention is not None and retention.data and uses:
            yield FOUND["retention-stays"].finding(Hit(retention, place, RETENTION_STAYS, REMOVE_BY_HAND))
        moved = config.settings.get(synapse.MEDIA_STORE_PATH)
        if moved is None or not isinstance(moved.data, str) or moved.data.startswith(playbook.STORE_IN_CONTAINER):
            continue
        mounted = any(document.source.count(moved.data) > 1 for each in beside for document in each.documents)
        if not mounted and not values.is_reference(moved.data):
            reason = (
                f"only {playbook.STORE_IN_CONTAINER} is mounted into Synapse's container: media stored elsewhere is "
                "lost when the container is recreated, and the playbook's jobs and Goofys don't look there"
            )
            mend = f"Remove it; set {playbook.STORAGE_PATH} to move the media store."
            yield FOUND["store-path-elsewhere"].finding(Hit(moved, place, reason, mend))


def _overridden(configs: Sequence[Config]) -> Iterator[Finding]:
    """A raw variable whose list of providers replaces the one that the playbook generates."""
    for config in configs:
        place, found = config.documents[0].place, config.settings.get(synapse.PROVIDERS)
        if not place or found is None:
            continue
        for other in configs:
            if other.kind is Kind.PLAYBOOK and config.documents[0].path in [each.path for each in other.documents]:
                used = [store for store in other.stores if store.method == methods.MODULE and store.enabled]
                own = [store for store in config.stores if store.method == methods.MODULE]
                effect = _effect(used, own)
                if effect:
                    reason = f"{place} replaces the list to which the playbook adds the module: {effect}"
                    mend = f"Use {playbook.PROVIDERS_CUSTOM} for providers of your own."
                    yield FOUND["providers-overridden"].finding(Hit(found, place, reason, mend))


def _effect(used: Sequence[ConfiguredStore], listed: Sequence[ConfiguredStore]) -> str:
    """What a list that replaces the playbook's changes for the module; "" if nothing."""
    if not listed:
        return "Synapse never loads it" if used else ""
    generated = next((store for store in used if store.fields["bucket"].setting.startswith(playbook.MODULE)), None)
    if generated is None:
        return ""
    same = [store for store in listed if _may_be_same(store, generated)]
    if not same:
        return (
            f"Synapse uses the store listed here, and not that of {generated.fields['bucket'].setting}, to which the "
            "playbook's migration job uploads before it deletes the local files"
        )
    key = generated.fields["access_key_id"]
    if key.given and not generated.keyless and all(store.keyless for store in same):
        return f"the module listed here has no key, and does not get that of {key.setting}"
    return ""


def _may_be_same(listed: ConfiguredStore, generated: ConfiguredStore) -> bool:
    """Whether two stores have the same endpoint, bucket and prefix, as far as these are literals."""
    for name in ("endpoint", "bucket", "prefix"):
        found = listed.fields[name], generated.fields[name]
        if name != "prefix" and generated.fields[name].empty:
            continue  # the playbook requires it, so another file sets it
        texts = {stores.host(each.text) if name == "endpoint" else each.text for each in found}
        if all(each.literal for each in found) and len(texts) > 1:
            return False
    return True


def _pairs(configs: Iterable[Config]) -> Iterator[tuple[ConfiguredStore, ConfiguredStore, bool]]:
    """Pairs of stores with the same bucket, and whether both are in one configuration."""
    found = [
        (number, store)
        for number, config in enumerate(configs)
        for store in config.stores
        if store.enabled and store.fields["bucket"].text
    ]
    for index, (number, one) in enumerate(found):
        for other_number, other in found[index + 1 :]:
            if _place(one) == _place(other):
                yield one, other, number == other_number


def _is_reported(one: ConfiguredStore, other: ConfiguredStore) -> bool:
    """Whether goofys-and-module reports it: that rule only knows the playbook's own switch for the module."""
    module = one if one.method == methods.MODULE else other
    own = module.fields["bucket"].setting.startswith(playbook.MODULE)
    return own and {one.method, other.method} == {methods.GOOFYS, methods.MODULE}


def _place(store: ConfiguredStore) -> tuple[str, str]:
    """Host and bucket."""
    return stores.host(store.fields["endpoint"].text), store.fields["bucket"].text


def _prefix(store: ConfiguredStore) -> str:
    return store.fields["prefix"].text if "prefix" in store.fields else ""


def _repositories(configs: Iterable[Config]) -> Iterator[Finding]:
    servers = [config for config in configs if config.kind is Kind.SYNAPSE]
    if not any(config.kind is Kind.MEDIA_REPO and "datastores" in config.settings for config in configs):
        return
    for config in servers:
        if "server_name" in config.settings and config.flag(synapse.ENABLE_MEDIA_REPO, default=True) is True:
            yield TWO_REPOSITORIES.finding(
                Hit(
                    config.settings.get(synapse.ENABLE_MEDIA_REPO, config.start),
                    synapse.ENABLE_MEDIA_REPO,
                    "matrix-media-repo is configured as well, but never sees uploads to Synapse's own repository",
                    "Set enable_media_repo: false, and route media requests to matrix-media-repo.",
                )
            )
