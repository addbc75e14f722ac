"""Checks whether the pinned releases are compatible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from synapse_media import methods, values
from synapse_media.homeserver import playbook, synapse

from . import references
from .config import Config, Kind
from .findings import Finding, Hit, Rule, Severity
from .versions import Pin, Pins

PAIR = Rule(
    "version-pair",
    Severity.BREAKS,
    (),
    "Incompatible releases of the module and Synapse.",
    references.MODULE_RELEASES,
    lambda _: (),
)
OLD = Rule(
    "module-old",
    Severity.WARNS,
    (),
    "The module is pinned to a release with known faults.",
    references.MODULE_RELEASES,
    lambda _: (),
)
RULES = (PAIR, OLD)


def find(configs: Sequence[Config], pins: Pins) -> Iterator[Finding]:
    """Findings on each distinct pair of releases; on the pins themselves if there is no configuration."""
    alone = [(pins.module, pins.synapse)] if pins.module else []
    pairs = dict.fromkeys([_pair(config) for config in configs] or alone)
    for module, homeserver in pairs:
        at = module or homeserver
        if at is None:
            continue
        default = values.version(synapse.MODULE_VERSION) if module is None else module.numbers
        fault = values.pair(default, homeserver.numbers if homeserver else None)
        if fault is not None and (module is not None or fault.rule == PAIR.name):
            rule = PAIR if fault.rule == PAIR.name else OLD
            unpinned = "no release is pinned, so pip installs the newest: " if at.newest else ""
            yield rule.finding(Hit(at.at, at.setting, unpinned + fault.reason, fault.mend))


def _pair(config: Config) -> tuple[Pin | None, Pin | None]:
    """The releases pinned for a configuration; none if it does not use the module."""
    used = [store for store in config.stores if store.method == methods.MODULE and store.enabled is not False]
    if not used:
        return None, None
    own = any(store.fields["bucket"].setting.startswith(playbook.MODULE) for store in used)
    # The playbook installs its own release if none is pinned; elsewhere the release is unknown.
    known = config.pins.module is not None or (own and config.kind is Kind.PLAYBOOK)
    return (config.pins.module, config.pins.synapse) if known else (None, None)
