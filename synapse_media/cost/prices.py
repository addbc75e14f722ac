"""Offers: the prices of one storage class at one provider, from the catalog or from a user's prices file.

Shapes and units are those of `prices` in catalog/schema.json. A prices file is a JSON object with a list of offers per
provider. An offer with the class, region and variant of an offer in the catalog overrides the terms it gives; any other
is added and must be complete. `source`, `date` and `certainty` of a term are optional there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from synapse_media import catalog, incoming
from synapse_media.errors import UsageError
from synapse_media.methods import METHODS, MODULE

from .units import UNITS

STALE_DAYS = 180
"""A price older than this is flagged."""

REQUIRED = ("storage", "egress", "requests_put", "requests_get", "minimum_object", "minimum_days")


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an offer, with its provenance. `value` is as in the catalog's schema.

    `other`: the value that the vendor's own pages state as well, where they contradict each other.
    """

    name: str
    value: Mapping[str, Any]
    source: str
    when: date
    certainty: str
    note: str = ""
    other: Mapping[str, Any] | None = None

    def flags(self, today: date) -> tuple[str, ...]:
        """Reservations about it: `uncertain`, `old`."""
        found = []
        if self.certainty == "uncertain":
            found.append("uncertain")
        if (today - self.when).days > STALE_DAYS:
            found.append("old")
        return tuple(found)

    def bytes(self, key: str) -> Decimal:
        """The value of `key`, which is given in units of `per`, in bytes."""
        return Decimal(self.value[key]) * UNITS[self.value["per"]]


@dataclass(frozen=True, slots=True)
class Offer:
    """The prices of one storage class at a provider, in one region ("": all) and variant ("": the only one)."""

    provider: str
    title: str
    storage_class: str
    region: str
    variant: str
    currency: str
    terms: Mapping[str, Term]
    note: str = ""

    @property
    def key(self) -> str:
        """`backblaze_b2/STANDARD`, `amazon_s3/STANDARD@eu-central-1`: its identifier in every output."""
        tail = (f"/{self.variant}" if self.variant else "") + (f"@{self.region}" if self.region else "")
        return f"{self.provider}/{self.storage_class}{tail}"

    @property
    def label(self) -> str:
        """For display: the title, with the class unless it is STANDARD, the variant and the region."""
        shown = [self.storage_class] if self.storage_class != "STANDARD" else []
        return " ".join([self.title, *shown, *filter(None, (self.variant, self.region))])

    @property
    def disputed(self) -> Offer | None:
        """The offer as the vendor's own pages state it, too; None where they agree."""
        others = {name: replace(term, value=term.other) for name, term in self.terms.items() if term.other is not None}
        return replace(self, terms={**self.terms, **others}) if others else None

    @property
    def by_module(self) -> bool:
        """Whether Synapse's own storage provider module can write this class."""
        return self.storage_class in (METHODS[MODULE].storage_classes or ())

    def flags(self, today: date) -> dict[str, tuple[str, ...]]:
        """Flagged terms by name."""
        return {name: found for name, term in self.terms.items() if (found := term.flags(today))}


def offers(
    providers: Iterable[str] = (), classes: Iterable[str] = (), overrides: Mapping[str, list[Offer]] | None = None
) -> tuple[Offer, ...]:
    """The offers of the catalog, or those of the given providers and classes.

    Raises UsageError for a provider or class that is unknown or has no price.
    """
    chosen = known(providers)
    wanted = tuple(classes)
    found = [offer for name in chosen or catalog.names() for offer in _with_overrides(name, overrides or {})]
    for name in chosen:
        if not any(offer.provider == name for offer in found):
            raise UsageError(
                f"--provider {name!r}: the catalog has no price for {catalog.load(name).title}. "
                "Give your own with --prices FILE, or omit it."
            )
    priced = sorted({offer.storage_class for offer in found})
    for name in wanted:
        if name not in priced:
            raise UsageError(_class_problem(name, chosen or catalog.names(), priced))
    return tuple(offer for offer in found if not wanted or offer.storage_class in wanted)


def known(providers: Iterable[str]) -> tuple[str, ...]:
    """The names, unchanged. Raises UsageError for one that is not in the catalog."""
    chosen = tuple(providers)
    for name in chosen:
        if name not in catalog.names():
            raise UsageError(_unknown("--provider", name, catalog.names()))
    return chosen


def unpriced(offers: Iterable[Offer]) -> list[str]:
    """Classes of these providers that Synapse can use and that have no price, as `Amazon S3 GLACIER_IR, ONEZONE_IA`."""
    priced: dict[str, set[str]] = {}
    for offer in offers:
        priced.setdefault(offer.provider, set()).add(offer.storage_class)
    found = []
    for name, classes in sorted(priced.items()):
        provider = catalog.load(name)
        usable = {item["name"] for item in provider.value("storage_classes", ()) if item["instant"]}
        if usable - classes:
            found.append(f"{provider.title} {', '.join(sorted(usable - classes))}")
    return found


def _class_problem(name: str, providers: Iterable[str], priced: Iterable[str]) -> str:
    """Why a class can't be compared: unknown, without a price, or not readable without a restore."""
    having = {
        provider.title: item["instant"]
        for provider in map(catalog.load, providers)
        for item in provider.value("storage_classes", ())
        if item["name"] == name
    }
    if not having:
        return _unknown("--class", name, priced)
    why = (
        f"the catalog has no price for it ({', '.join(having)}). Give your own with --prices FILE"
        if any(having.values())
        else f"its objects must be restored before they can be read ({', '.join(having)}), so Synapse can't use it"
    )
    return f"--class {name!r}: {why}, or choose one of {', '.join(priced)}."


def _unknown(option: str, name: str, allowed: Iterable[str]) -> str:
    choices = tuple(allowed)
    guess = catalog.nearest(name, choices)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return f"{option} {name!r}: allowed is one of {', '.join(choices)}.{hint}"


def _with_overrides(name: str, overrides: Mapping[str, list[Offer]]) -> list[Offer]:
    provider = catalog.load(name)
    own = {offer.key: offer for raw in provider.value("prices", ()) if (offer := _offer(name, provider.title, raw))}
    for offer in overrides.get(name, ()):
        before = own.get(offer.key)
        own[offer.key] = replace(before, terms={**before.terms, **offer.terms}) if before else offer
    return list(own.values())


def _offer(name: str, title: str, raw: Mapping[str, Any]) -> Offer:
    return Offer(
        provider=name,
        title=title,
        storage_class=raw["class"],
        region=raw["region"],
        variant=raw["variant"],
        currency=raw["currency"],
        note=raw.get("note", ""),
        terms={
            key: Term(
                name=key,
                value=item["value"],
                source=item["source"],
                when=date.fromisoformat(item["date"]),
                certainty=item["certainty"],
                note=item.get("note", ""),
                other=item.get("other"),
            )
            for key, item in raw["terms"].items()
        },
    )


_LONGEST: Final = 1_000_000


def read_overrides(path: Path, today: date) -> dict[str, list[Offer]]:
    """{provider: offers} of a prices file. Raises UsageError with the file, the place in it and what is allowed.

    Args:
        today: the date of a term that gives none.
    """
    try:
        raw = json.loads(incoming.text(path, _LONGEST))
    except OSError as error:
        raise UsageError(f"--prices {str(path)!r}: can't be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--prices {str(path)!r}: is not JSON ({error}).") from error
    return _PricesFile(path, today).read(raw)


_AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")


def _amount(value: object) -> bool:
    return isinstance(value, str) and _AMOUNT.fullmatch(value) is not None


def _positive(value: object) -> bool:
    return _amount(value) and Decimal(str(value)) > 0


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9


def _tiers(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    *bounded, last = value
    if not all(isinstance(tier, dict) and _amount(tier.get("price")) for tier in value) or set(last) != {"price"}:
        return False
    if not all(set(tier) == {"price", "up_to"} and _positive(tier["up_to"]) for tier in bounded):
        return False
    ends = [Decimal(tier["up_to"]) for tier in bounded]
    return all(low < high for low, high in pairwise(ends))


_MONEY = 'a decimal number in quotes, such as "6.95"'
_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "price": (_amount, _MONEY),
    "amount": (_amount, _MONEY),
    "times": (_amount, _MONEY),
    "free": (_amount, _MONEY),
    "tiers": (_tiers, 'a list of {"price": "0.02", "up_to": "50"}, ascending, the last one without up_to'),
    "bytes": (_whole, "a whole number of bytes"),
    "days": (_whole, "a whole number of days"),
    "whole": (lambda value: isinstance(value, bool), "true or false"),
}
_UNIT: tuple[Callable[[object], bool], str] = (lambda value: value in ("GB", "GiB", "TB", "TiB"), "GB, GiB, TB or TiB")
_COUNTED: tuple[Callable[[object], bool], str] = (_positive, 'a number of requests in quotes, such as "1000"')

_TERMS: Mapping[str, tuple[str, ...]] = {
    "storage": ("tiers", "per"),
    "storage_free": ("amount", "per"),
    "minimum_storage": ("amount", "per"),
    "egress": ("tiers", "per"),
    "egress_free": ("amount", "per"),
    "egress_free_times_stored": ("times",),
    "fair_egress_times_stored": ("times",),
    "retrieval": ("price", "per"),
    "requests_put": ("price", "per", "free", "whole"),
    "requests_get": ("price", "per", "free", "whole"),
    "subscription": ("price",),
    "minimum_charge": ("price",),
    "rounding": ("per",),
    "minimum_object": ("bytes",),
    "minimum_days": ("days",),
}


class _PricesFile:
    """Reads a prices file; every error names the place in it."""

    def __init__(self, path: Path, today: date) -> None:
        self.path = path
        self.today = today

    def fault(self, place: str, allowed: str) -> UsageError:
        return UsageError(f"--prices {str(self.path)!r}, {place}: allowed is {allowed}.")

    def read(self, raw: object) -> dict[str, list[Offer]]:
        if not isinstance(raw, dict):
            raise self.fault("at the top", "an object with a list of offers per provider")
        found: dict[str, list[Offer]] = {}
        for name, items in raw.items():
            if name not in catalog.names():
                raise self.fault(f"provider {name!r}", f"one of {', '.join(catalog.names())}")
            if not isinstance(items, list) or not items:
                raise self.fault(name, "a list of offers")
            known = {offer.key for offer in _with_overrides(name, {})}
            found[name] = [self.offer(name, f"{name}[{at}]", item, known) for at, item in enumerate(items)]
        return found

    def offer(self, name: str, place: str, raw: object, known: set[str]) -> Offer:
        allowed = ("class", "region", "variant", "currency", "note", "terms")
        if not isinstance(raw, dict) or set(raw) - set(allowed) or not isinstance(raw.get("terms"), dict):
            raise self.fault(place, f"an object with {', '.join(allowed)}; terms is an object, the others text")
        text = {"class": "STANDARD", "region": "", "variant": "", "currency": "USD", "note": ""}
        text |= {key: raw[key] for key in text if key in raw}
        if not all(isinstance(value, str) for value in text.values()) or text["currency"] not in ("USD", "EUR"):
            raise self.fault(place, "text for class, region, variant and note, and USD or EUR for currency")
        offer = Offer(
            provider=name,
            title=catalog.load(name).title,
            storage_class=text["class"],
            region=text["region"],
            variant=text["variant"],
            currency=text["currency"],
            note=text["note"],
            terms={key: self.term(f"{place}.terms.{key}", key, item) for key, item in raw["terms"].items()},
        )
        missing = [key for key in REQUIRED if key not in offer.terms]
        if offer.key not in known and missing:
            raise self.fault(f"{place}.terms", f"all of {', '.join(REQUIRED)}, since the catalog has no {offer.key}")
        same = next((item for item in _with_overrides(name, {}) if item.key == offer.key), offer)
        if same.currency != offer.currency:
            raise self.fault(f"{place}.currency", f"{same.currency}, as the catalog has it: currencies are not mixed")
        return offer

    def term(self, place: str, key: str, raw: object) -> Term:
        if key not in _TERMS:
            raise self.fault(place, f"one of {', '.join(_TERMS)}")
        fields = {"value", "source", "date", "certainty", "note"}
        if not isinstance(raw, dict) or set(raw) - fields or not isinstance(raw.get("value"), dict):
            raise self.fault(place, f"an object with value, and perhaps {', '.join(sorted(fields - {'value'}))}")
        value = raw["value"]
        if set(value) != set(_TERMS[key]):
            raise self.fault(f"{place}.value", f"an object with {', '.join(_TERMS[key])}")
        for name in _TERMS[key]:
            right, allowed = (_COUNTED if "free" in value else _UNIT) if name == "per" else _KINDS[name]
            if not right(value[name]):
                raise self.fault(f"{place}.value.{name}", allowed)
        try:
            when = date.fromisoformat(raw.get("date", self.today.isoformat()))
        except (TypeError, ValueError) as error:
            raise self.fault(f"{place}.date", "a date such as 2026-11-23") from error
        certainty = raw.get("certainty", "primary")
        if certainty not in ("primary", "secondary", "uncertain"):
            raise self.fault(f"{place}.certainty", "primary, secondary or uncertain")
        return Term(key, value, str(raw.get("source", self.path)), when, certainty, str(raw.get("note", "")))
