"""How providers differ in other respects than price, read from the catalog."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from synapse_media import catalog

from .study import nearest_region


@dataclass(frozen=True, slots=True)
class Fit:
    """A provider's criteria as text. `uncertain` names those whose fact in the catalog is marked uncertain."""

    provider: str
    title: str
    layout: str
    held_by: str
    encryption: str
    regions: str
    prices: str
    egress: str
    key: str
    cannot: tuple[str, ...]
    uncertain: tuple[str, ...]


ASPECTS = {
    "layout": "layout",
    "held_by": "held_by",
    "encryption": "encryption_at_rest",
    "prices": "price_transparency",
    "egress": "egress_terms",
    "cannot": "cannot_do",
}
"""{field of Fit: fact of the catalog}."""


def fits(providers: Iterable[str] = (), near: tuple[float, float] | None = None) -> list[Fit]:
    """All providers, or those named, sorted by title. Raises UnknownProviderError."""
    found = [_fit(catalog.load(name), near) for name in tuple(providers) or catalog.names()]
    return sorted(found, key=lambda item: item.title.lower())


def _fit(provider: catalog.Provider, near: tuple[float, float] | None) -> Fit:
    facts = provider.facts
    return Fit(
        provider=provider.name,
        title=provider.title,
        layout=provider.value("layout"),
        held_by=provider.value("held_by"),
        encryption=provider.value("encryption_at_rest"),
        regions=_regions(provider, near),
        prices=provider.value("price_transparency"),
        egress=provider.value("egress_terms"),
        key=provider.value("scoped_key")["how"],
        cannot=tuple(provider.value("cannot_do")),
        uncertain=tuple(name for name, fact in ASPECTS.items() if facts[fact].certainty == "uncertain"),
    )


def _regions(provider: catalog.Provider, near: tuple[float, float] | None) -> str:
    number = len(provider.regions)
    if not number:
        return "wherever you run it" if provider.value("layout") == "self-hosted" else "not listed"
    region = nearest_region(provider, near) if near else None
    if region:
        return str(region)
    return f"{number} regions" + (", fixed at sign-up" if provider.value("endpoint_from_account") else "")
