"""What only shows between several configurations, or several ways to a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from . import links, playbook, uses
from .config import Config, Kind, Use
from .findings import Finding, Hit, Rule, Severity

SHARED_BUCKET = Rule(
    "two-methods-one-bucket",
    Severity.LOSES,
    (),
    "Two methods on one bucket: what one takes for rubbish is the other's media.",
    links.PLAYBOOK_GOOFYS,
    lambda _: (),
)
TWO_HOMESERVERS = Rule(
    "two-homeservers-one-bucket",
    Severity.WARNS,
    (),
    "Two configurations use one bucket under one prefix.",
    links.MODULE,
    lambda _: (),
)
TWO_REPOSITORIES = Rule(
    "two-repositories",
    Severity.WARNS,
    (),
    "matrix-media-repo is configured, and Synapse's own media repository is still on.",
    links.SYNAPSE + "#enable_media_repo",
    lambda _: (),
)
RULES = (SHARED_BUCKET, TWO_HOMESERVERS, TWO_REPOSITORIES)


def find(configs: Sequence[Config]) -> Iterator[Finding]:
    """Findings between configurations."""
    for one, other, same_config in _pairs(configs):
        bucket = other.fields["bucket"]
        if one.method != other.method:
            if same_config and _is_said(one, other):
                continue
            reason = (
                f"{one.fields['bucket'].setting} names this bucket as well, for {one.method}: two methods in one bucket"
            )
            mend = "Give each its own bucket, or switch one of them off."
            yield SHARED_BUCKET.finding(Hit(bucket.value or other.where, bucket.setting, reason, mend))
        elif not same_config and _prefix(one) == _prefix(other):
            reason = (
                f"{one.where.file}:{one.where.line} uses it as well: the media of two homeservers can't be told apart"
            )
            mend = "Give each homeserver its own bucket, or a prefix. If both files are of one homeserver, all is well."
            yield TWO_HOMESERVERS.finding(Hit(bucket.value or other.where, bucket.setting, reason, mend))
    yield from _repositories(configs)


def _pairs(configs: Iterable[Config]) -> Iterator[tuple[Use, Use, bool]]:
    """Two ways to one bucket, and whether one configuration has both."""
    found = [
        (number, use)
        for number, config in enumerate(configs)
        for use in config.uses
        if use.enabled and use.fields["bucket"].text
    ]
    for index, (number, one) in enumerate(found):
        for other_number, other in found[index + 1 :]:
            if _place(one) == _place(other):
                yield one, other, number == other_number


def _is_said(one: Use, other: Use) -> bool:
    """Whether goofys-and-module says it: that rule knows the playbook's own switch of the module alone."""
    module = one if one.method == uses.MODULE else other
    own = module.fields["bucket"].setting.startswith(playbook.MODULE)
    return own and {one.method, other.method} == {"goofys", uses.MODULE}


def _place(use: Use) -> tuple[str, str]:
    """Host and bucket."""
    return uses.host(use.fields["endpoint"].text), use.fields["bucket"].text


def _prefix(use: Use) -> str:
    return use.fields["prefix"].text if "prefix" in use.fields else ""


def _repositories(configs: Iterable[Config]) -> Iterator[Finding]:
    synapse = [config for config in configs if config.kind is Kind.SYNAPSE]
    if not any(config.kind is Kind.MEDIA_REPO and "datastores" in config.settings for config in configs):
        return
    for config in synapse:
        if "server_name" in config.settings and config.flag("enable_media_repo", default=True) is True:
            yield TWO_REPOSITORIES.finding(
                Hit(
                    config.settings.get("enable_media_repo", config.start),
                    "enable_media_repo",
                    "matrix-media-repo is configured as well: what reaches Synapse's own repository, it never sees",
                    "Set enable_media_repo: false, and give matrix-media-repo its routes.",
                )
            )
