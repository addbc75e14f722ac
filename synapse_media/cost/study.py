"""The comparison of offers for a usage, computed once for every output: table, JSON, pictures, report, docs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from synapse_media import catalog
from synapse_media.methods import METHODS, MODULE

from .model import MINIMUM_SIZE, ZERO, Bill, Crossing, Result, Usage, compare, crossings, curves, leaders, month
from .prices import STALE_DAYS, Offer
from .units import show_count, show_size

CAVEAT = "List prices without VAT and discounts, from copies of the dates given: a guide, never a quote."

_GB = Decimal(10**9)
_EARTH_KM = 6371.0


@dataclass(frozen=True, slots=True)
class Region:
    """The region of a provider that is nearest to a place, with its distance."""

    name: str
    where: str
    km: int

    def __str__(self) -> str:
        return f"{self.name} ({self.where}), {self.km:,} km"


@dataclass(frozen=True)
class Study:
    """Attributes:
    results: by currency, the cheapest first.
    flips: the stored sizes at which the ranking of two offers changes, everything else in proportion.
    leaders: by currency, the offers that are the cheapest somewhere in `span`, by ascending size.
    span: the range of stored sizes examined, in bytes.
    nearest: by provider; empty where no place was given.
    notes: remarks for the reader, one sentence each.
    disputed: flips and leaders with the other prices of vendors whose own pages contradict each other.
    """

    usage: Usage
    today: date
    results: Mapping[str, list[Result]]
    flips: Sequence[Crossing]
    leaders: Mapping[str, Sequence[Offer]]
    span: tuple[Decimal, Decimal]
    nearest: Mapping[str, Region]
    notes: Sequence[str]
    disputed: tuple[Sequence[Crossing], Mapping[str, Sequence[Offer]]] | None = None

    @property
    def typical(self) -> Usage:
        """The usage that the pictures scale: this one, or 1 GB where nothing is stored yet."""
        return _typical(self.usage)

    def drawn(self, currency: str) -> list[Offer]:
        """The offers to draw: the first of each provider in the catalog's order, and every leader."""
        kept: list[Offer] = []
        for result in sorted(self.results[currency], key=lambda result: _catalog_order(result.offer)):
            offer = result.offer
            if offer in self.leaders[currency] or offer.provider not in {item.provider for item in kept}:
                kept.append(offer)
        return kept


def _typical(usage: Usage) -> Usage:
    return usage if usage.stored else Usage(stored=_GB)


def _catalog_order(offer: Offer) -> tuple[str, bool, int]:
    raw = catalog.load(offer.provider).value("prices", ())
    keys = [(item["class"], item["region"], item["variant"]) for item in raw]
    mine = (offer.storage_class, offer.region, offer.variant)
    return offer.provider, mine not in keys, keys.index(mine) if mine in keys else 0


def study(
    offers: Iterable[Offer],
    usage: Usage,
    today: date,
    near: tuple[float, float] | None = None,
    notes: Iterable[str] = (),
) -> Study:
    """Compare offers for a usage.

    Args:
        today: the date that the age of prices is computed from.
        near: latitude and longitude in degrees; of an offer with several regions, only the nearest is kept.
        notes: sentences to put before the study's own notes.
    """
    kept = list(offers) if near is None else _keep_nearest(offers, near)
    results = compare(kept, usage)
    typical = _typical(usage)
    low, high = min(10 * _GB, typical.stored / 10), max(10_000 * _GB, typical.stored * 10)
    nearest = {}
    if near is not None:
        for name in sorted({offer.provider for offer in kept}):
            region = nearest_region(catalog.load(name), near)
            if region:
                nearest[name] = region
    drawn = curves(kept, typical, low, high)
    disputed = None
    if any(offer.disputed for offer in kept):
        others = curves([offer.disputed or offer for offer in kept], typical, low, high)
        disputed = crossings(others, typical), leaders(others)
    said = [*notes, *_unpriced_regions(kept, nearest), *_notes(results, usage, today)]
    return Study(usage, today, results, crossings(drawn, typical), leaders(drawn), (low, high), nearest, said, disputed)


def nearest_region(provider: catalog.Provider, near: tuple[float, float]) -> Region | None:
    """The region nearest to a place; None where the provider has no list of regions."""
    found = [
        (_km(near, (region["lat"], region["lon"])), region["name"], region["where"])
        for region in provider.value("regions", ())
    ]
    if not found:
        return None
    km, name, where = min(found)
    return Region(name, where, round(km))


def _km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Great-circle distance by the haversine formula."""
    (lat1, lon1), (lat2, lon2) = ([math.radians(part) for part in place] for place in (one, other))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def _unpriced_regions(offers: Iterable[Offer], nearest: Mapping[str, Region]) -> list[str]:
    """Notes on providers whose nearest region has no price in the catalog."""
    priced: dict[str, str] = {}
    for offer in offers:
        region = nearest.get(offer.provider)
        if region and offer.region not in ("", region.name):
            priced[f"{offer.title}: the price is that of {offer.region}"] = region.name
    return [f"{price}; that of {name} is not in the catalog." for price, name in priced.items()]


def _keep_nearest(offers: Iterable[Offer], near: tuple[float, float]) -> list[Offer]:
    best: dict[tuple[str, str, str], tuple[float, Offer]] = {}
    for offer in offers:
        places: dict[str, Any] = {item["name"]: item for item in catalog.load(offer.provider).value("regions", ())}
        at = places.get(offer.region)
        km = _km(near, (at["lat"], at["lon"])) if at else 0.0
        key = (offer.provider, offer.storage_class, offer.variant)
        if key not in best or km < best[key][0]:
            best[key] = (km, offer)
    return [offer for _, offer in best.values()]


def _notes(results: Mapping[str, list[Result]], usage: Usage, today: date) -> list[str]:
    found = []
    everything = [result for items in results.values() for result in items]
    if usage.files is None:
        found.append("The number of files is unknown (--files): requests and small files are not counted.")
    elif not usage.sizes and usage.mean:
        found.append(
            f"All files are assumed to have the mean size ({show_size(usage.mean)}). Thumbnails are smaller, and cost "
            "more where there is a minimum object size: --media measures them, --small-files gives their number."
        )
    found += _costlier_classes(everything)
    found += _billed_for_more(everything, usage)
    for result in everything:
        other = result.offer.disputed
        if other:
            found.append(
                f"{result.offer.label}: the vendor's own pages contradict each other; by the other price a month is "
                f"{money(month(other, usage).total, other.currency)}. {_conflict(result.offer)}."
            )
    beyond = list(dict.fromkeys(result.offer.label for result in everything if not result.offer.by_module))
    if beyond:
        found.append(
            f"{METHODS[MODULE].title} can't write these classes (marked '*'): {', '.join(beyond)}. It takes "
            f"{', '.join(METHODS[MODULE].storage_classes or ())}."
        )
    for result in everything:
        found += [f"{result.offer.label}: {warning}." for warning in result.month.warnings]
        found += [f"{result.offer.label}: a restore {warning}." for warning in result.restore.warnings]
    old = [result.offer.label for result in everything if _flagged(result.offer, today, "old")]
    if old:
        found.append(f"At least one term is older than {STALE_DAYS} days (marked '!'): {', '.join(old)}.")
    unsure = [result.offer.label for result in everything if _flagged(result.offer, today, "uncertain")]
    if unsure:
        found.append(f"At least one term is uncertain (marked '?'): {', '.join(unsure)}.")
    return found


def _conflict(offer: Offer) -> str:
    return "; ".join(term.note for term in offer.terms.values() if term.other is not None)


def _billed_for_more(results: Iterable[Result], usage: Usage) -> list[str]:
    """Where more bytes are billed than are stored."""
    more = [
        f"{result.offer.label} {show_size(result.month.billed)}"
        for result in results
        if result.month.billed > usage.stored
    ]
    if not more:
        return []
    return [
        f"{show_size(usage.stored)} are billed as more, for small objects or a minimum: {', '.join(more)}. The months "
        "above are what is billed."
    ]


def _flagged(offer: Offer, today: date, flag: str) -> bool:
    return any(flag in flags for flags in offer.flags(today).values())


def marks(offer: Offer, today: date) -> str:
    """`?` for an uncertain term, `!` for an old one, `*` for a class that the recommended module can't write."""
    found = {
        "?": _flagged(offer, today, "uncertain"),
        "!": _flagged(offer, today, "old"),
        "*": not offer.by_module,
    }
    return "".join(mark for mark, holds in found.items() if holds)


def _costlier_classes(results: Iterable[Result]) -> list[str]:
    """Notes on classes that cost more here than STANDARD of the same provider and region."""
    listed = list(results)
    standard = {
        (result.offer.provider, result.offer.region): result
        for result in reversed(listed)
        if result.offer.storage_class == "STANDARD"
    }
    found = []
    for result in listed:
        plain = standard.get((result.offer.provider, result.offer.region))
        if plain is None or result.offer.storage_class == "STANDARD":
            continue
        more = result.month.total - plain.month.total
        if more <= 0:
            continue
        grown = {term: amount - plain.month.shares.get(term, ZERO) for term, amount in result.month.shares.items()}
        worst = max(grown, key=lambda term: grown[term])
        least = show_size(result.offer.terms["minimum_object"].value["bytes"])
        small = f": thumbnails and other files below {least} are billed as {least}"
        why = small if worst == MINIMUM_SIZE else ""
        found.append(
            f"{result.offer.label} costs {money(more, result.offer.currency)} a month more than STANDARD here, "
            f"most of it for {worst} ({money(grown[worst], result.offer.currency)}){why}."
        )
    return found


def money(amount: Decimal, currency: str) -> str:
    """An amount for display, rounded to cents; `< 0.01` for less than half a cent."""
    if 0 < amount < Decimal("0.005"):
        return f"< 0.01 {currency}"
    return f"{amount:,.2f} {currency}"


def describe_cheapest(found: Study, currency: str) -> str:
    """`Backblaze B2 is the cheapest; from 1.1 TB on Wasabi`; twice where it hangs on a price that is in conflict."""
    words = _order(found.flips, found.leaders, found.span, currency)
    if not found.disputed:
        return words
    other = _order(*found.disputed, found.span, currency)
    if other == words:
        return words
    whose = sorted({item.offer.label for item in found.results[currency] if item.offer.disputed})
    return f"Not certain, since {' and '.join(whose)} states two prices. By one: {words} By the other: {other}"


def _order(
    flips: Iterable[Crossing], leaders: Mapping[str, Sequence[Offer]], span: tuple[Decimal, Decimal], currency: str
) -> str:
    leading = [item for item in flips if item.currency == currency and item.leads]
    low, high = (show_size(size) for size in span)
    if not leading:
        return f"{_named(leaders[currency][0])} is the cheapest from {low} to {high}."
    words = [f"{_named(leading[0].below)} is the cheapest below {show_size(leading[0].stored)}"]
    words += [f"{_named(item.above)} from there" for item in leading[:1]]
    words += [f"{_named(item.above)} from {show_size(item.stored)}" for item in leading[1:]]
    return f"{', '.join(words)} (examined from {low} to {high}, everything else in proportion)."


def _named(offer: Offer) -> str:
    return offer.label if offer.by_module else f"{offer.label} (not by the recommended module)"


def describe_usage(usage: Usage) -> str:
    """`400 GB stored, 10 GB more a month, 50 GB read a month, 900,000 files.`"""
    words = [f"{show_size(usage.stored)} stored"]
    if usage.growth:
        words.append(f"{show_size(usage.growth)} more a month")
    words.append(f"{show_size(usage.egress)} read a month")
    if usage.deleted:
        words.append(f"{show_size(usage.deleted)} deleted a month after {usage.deleted_age} days")
    if usage.files is not None:
        words.append(f"{show_count(usage.files)} files")
    return ", ".join(words)


def as_json(found: Study) -> dict[str, Any]:
    """The study as JSON. Amounts are strings with four decimals, in the currency of their group; sizes are bytes."""

    def number(value: Decimal | None) -> int | None:
        return None if value is None else int(value)

    def bill(item: Bill) -> dict[str, Any]:
        return {
            "total": f"{item.total:.4f}",
            "storage_as_billed": {"bytes": number(item.billed or None), "amount": f"{item.stored:.4f}"},
            "dominant": item.dominant,
            "lines": [
                {"term": line.term, "what": line.what, "quantity": line.quantity, "amount": f"{line.amount:.4f}"}
                for line in item.lines
            ],
            "warnings": list(item.warnings),
        }

    usage = found.usage
    return {
        "date": found.today.isoformat(),
        "caveat": CAVEAT,
        "usage": {
            "stored_bytes": number(usage.stored),
            "growth_bytes_per_month": number(usage.growth),
            "egress_bytes_per_month": number(usage.egress),
            "deleted_bytes_per_month": number(usage.deleted),
            "files": number(usage.files),
            "uploads_per_month": number(usage.month_uploads),
            "downloads_per_month": number(usage.month_downloads),
        },
        "currencies": {
            currency: [
                {
                    "offer": result.offer.key,
                    "label": result.offer.label,
                    "provider": result.offer.provider,
                    "class": result.offer.storage_class,
                    "region": result.offer.region,
                    "variant": result.offer.variant,
                    "month": bill(result.month),
                    "first_year": bill(result.year),
                    "restore": bill(result.restore),
                    "leaving": bill(result.leaving),
                    "flags": {name: list(flags) for name, flags in result.offer.flags(found.today).items()},
                    "terms": {
                        name: {
                            "value": dict(term.value),
                            "source": term.source,
                            "date": term.when.isoformat(),
                            "certainty": term.certainty,
                            "note": term.note,
                        }
                        for name, term in result.offer.terms.items()
                    },
                }
                for result in results
            ]
            for currency, results in found.results.items()
        },
        "flips": [
            {
                "stored_bytes": int(item.stored),
                "currency": item.currency,
                "below": item.below.key,
                "above": item.above.key,
                "cheapest": item.leads,
                "monthly": f"{item.monthly:.4f}",
            }
            for item in found.flips
        ],
        "nearest": {
            name: {"region": region.name, "where": region.where, "km": region.km}
            for name, region in found.nearest.items()
        },
        "notes": list(found.notes),
    }
