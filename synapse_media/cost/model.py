"""The cost model: itemised bills as pure functions of an offer and a usage, in decimals of 28 digits.

Conventions, the same for every provider:

* A month is billed for what is stored at its beginning; `growth` is added at the beginning of the next one.
* Deleted and overwritten bytes were uploaded too: a month's uploads are the sum of growth and deletions.
* Where request counts are not given, each new file is one upload and each file read one download, of mean size.
* An object below the minimum size is billed at that size: by `sizes` where known, else assuming equal files.
* Bytes deleted before the minimum retention are billed for the rest of it, in months of 30 days.
* Tiers start above a free allowance. Each kind of usage is rounded up to whole units separately.

No clock, no network, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

from synapse_media.errors import UsageError

from .prices import Offer
from .units import UNITS, show_count, show_size

ZERO = Decimal(0)
RETENTION_MONTH = Decimal(30)
"""Days of a month in the price of a minimum retention."""

MINIMUM_SIZE = "minimum object size"
STORED = ("storage", MINIMUM_SIZE, "minimum storage", "minimum retention")
"""The terms that together are what storage costs as it is billed; the first alone is only a part of that."""
# The cost terms, in the order of a bill; the pictures label their shares with them.
TERMS = (
    "subscription",
    "storage",
    MINIMUM_SIZE,
    "minimum storage",
    "minimum retention",
    "requests",
    "retrieval",
    "egress",
    "minimum charge",
)


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """The files between two minimum object sizes: their number and total bytes."""

    files: Decimal | int
    bytes: Decimal | int


@dataclass(frozen=True)
class Usage:
    """What is stored, and how it is used.

    Attributes:
        stored: bytes stored when the first month begins.
        growth: bytes added each month.
        egress: bytes read over the internet each month.
        files: the number of files in `stored`; None: unknown, so requests and small files are not billed.
        uploads, downloads: requests a month; None: derived from files.
        deleted: bytes deleted or overwritten each month.
        deleted_age: days those bytes had been stored.
        sizes: files grouped by size, for the minimum object size; empty: assume equal sizes.
    """

    stored: Decimal
    growth: Decimal = ZERO
    egress: Decimal = ZERO
    files: Decimal | None = None
    uploads: Decimal | None = None
    downloads: Decimal | None = None
    deleted: Decimal = ZERO
    deleted_age: int = 0
    sizes: tuple[SizeGroup, ...] = ()

    def __post_init__(self) -> None:
        for name in ("stored", "growth", "egress", "files", "uploads", "downloads", "deleted", "deleted_age"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name} {value}: must not be negative.")
        if self.files is not None and self.files > self.stored:
            raise UsageError(
                f"{show_count(self.files)} files in {show_size(self.stored)}: at least one byte per file is required. "
                "Check the number of files and the unit of the size."
            )

    @cached_property
    def mean(self) -> Decimal | None:
        """Mean bytes per file."""
        return self.stored / self.files if self.files else None

    @property
    def month_uploads(self) -> Decimal | None:
        if self.uploads is not None:
            return self.uploads
        return (self.growth + self.deleted) / self.mean if self.mean else None

    @property
    def month_downloads(self) -> Decimal | None:
        if self.downloads is not None:
            return self.downloads
        return self.egress / self.mean if self.mean else None

    def padding(self, minimum: int) -> Decimal:
        """Bytes billed beyond the actual size of files below the minimum."""
        groups = self.sizes or (SizeGroup(self.files or 0, self.stored),)
        return sum((max(ZERO, Decimal(group.files * minimum - group.bytes)) for group in groups), ZERO)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill. `term` is one of TERMS; a free allowance is a negative line of its term."""

    term: str
    what: str
    quantity: str
    amount: Decimal


@dataclass(frozen=True)
class Bill:
    """An itemised bill in the offer's currency, without VAT.

    `billed`: of a month, bytes that are billed as stored: with small files as the minimum object size, and with the
    minimum storage; 0 where several months are added up.
    """

    lines: tuple[Line, ...]
    warnings: tuple[str, ...] = ()
    billed: Decimal = ZERO

    @cached_property
    def total(self) -> Decimal:
        return sum((line.amount for line in self.lines), ZERO)

    @cached_property
    def shares(self) -> Mapping[str, Decimal]:
        """The net amount of each term, in the order of TERMS, without those that are zero."""
        found = {
            term: sum((line.amount for line in self.lines if line.term == term), ZERO)
            for term in TERMS
            if any(line.term == term for line in self.lines)
        }
        return {term: amount for term, amount in found.items() if amount}

    @property
    def stored(self) -> Decimal:
        """What storage costs as it is billed: with minimum object sizes, the minimum storage and its duration."""
        return sum((self.shares.get(term, ZERO) for term in STORED), ZERO)

    @property
    def dominant(self) -> str:
        """The most expensive term; "" where the total is zero."""
        return max(self.shares, key=lambda term: self.shares[term], default="")


def month(offer: Offer, usage: Usage) -> Bill:
    """One month's bill."""
    return _MonthBill(offer, usage).bill()


class _MonthBill:
    """Builds the bill of one month."""

    def __init__(self, offer: Offer, usage: Usage) -> None:
        self.offer = offer
        self.usage = usage
        self.lines: list[Line] = []
        self.warnings: list[str] = []
        self.billed = ZERO

    def add(self, term: str, what: str, quantity: str, amount: Decimal) -> None:
        if amount:
            self.lines.append(Line(term, what, quantity, amount))

    def bytes(self, name: str, key: str = "amount") -> Decimal:
        term = self.offer.terms.get(name)
        return term.bytes(key) if term else ZERO

    def number(self, name: str, key: str) -> Decimal:
        term = self.offer.terms.get(name)
        return Decimal(term.value[key]) if term else ZERO

    def price_of(self, name: str, quantity: Decimal) -> Decimal:
        """The price of `quantity` bytes under the tiers of a term."""
        value = self.offer.terms[name].value
        return _tiered_price(value["tiers"], self.rounded(quantity) / UNITS[value["per"]])

    def rounded(self, quantity: Decimal) -> Decimal:
        term = self.offer.terms.get("rounding")
        return _round_up(quantity, UNITS[term.value["per"]]) if term else quantity

    def bill(self) -> Bill:
        self.add("subscription", "base price", "", self.number("subscription", "price"))
        self.storage()
        self.retention()
        self.requests("requests_put", "uploads", self.usage.month_uploads)
        self.requests("requests_get", "downloads", self.usage.month_downloads)
        self.egress()
        floor = self.number("minimum_charge", "price")
        so_far = sum((line.amount for line in self.lines), ZERO)
        self.add("minimum charge", "up to the minimum charge", "", max(ZERO, floor - so_far))
        return Bill(tuple(self.lines), tuple(self.warnings), self.billed)

    def storage(self) -> None:
        stored, free = self.usage.stored, self.bytes("storage_free")
        padding = self.usage.padding(self.offer.terms["minimum_object"].value["bytes"])
        least = self.bytes("minimum_storage")

        def net(quantity: Decimal) -> Decimal:
            return self.price_of("storage", max(ZERO, quantity - free))

        gross = self.price_of("storage", stored)
        self.add("storage", "storage", show_size(stored), gross)
        self.add("storage", "free storage", show_size(min(stored, free)), net(stored) - gross)
        self.add(MINIMUM_SIZE, "small files", show_size(padding), net(stored + padding) - net(stored))
        short = max(ZERO, least - stored - padding)
        self.billed = stored + padding + short
        top_up = net(stored + padding + short) - net(stored + padding)
        self.add("minimum storage", "up to the minimum storage", show_size(short), top_up)

    def retention(self) -> None:
        days = max(0, self.offer.terms["minimum_days"].value["days"] - self.usage.deleted_age)
        amount = self.early_deletion(self.usage.deleted, Decimal(days))
        self.add("minimum retention", f"deleted {days} days early", show_size(self.usage.deleted), amount)

    def early_deletion(self, quantity: Decimal, days: Decimal) -> Decimal:
        """The charge for `days` of minimum retention left on `quantity` bytes, at the price of the first tier."""
        value = self.offer.terms["storage"].value
        price = Decimal(value["tiers"][0]["price"]) / UNITS[value["per"]]
        return quantity * price * days / RETENTION_MONTH

    def requests(self, name: str, what: str, number: Decimal | None) -> None:
        value = self.offer.terms[name].value
        price, per, free = Decimal(value["price"]), Decimal(value["per"]), Decimal(value["free"])
        if number is None:
            return

        def cost(requests: Decimal) -> Decimal:
            return (_round_up(requests, per) if value["whole"] else requests) / per * price

        self.add("requests", what, show_count(number), cost(number))
        allowance = cost(max(ZERO, number - free)) - cost(number)
        self.add("requests", f"free {what}", show_count(min(number, free)), allowance)

    def egress(self) -> None:
        egress = self.usage.egress
        retrieval = self.offer.terms.get("retrieval")
        if retrieval:
            amount = self.rounded(egress) * Decimal(retrieval.value["price"]) / UNITS[retrieval.value["per"]]
            self.add("retrieval", "retrieval", show_size(egress), amount)
        free = self.bytes("egress_free") + self.usage.stored * self.number("egress_free_times_stored", "times")
        gross = self.price_of("egress", egress)
        self.add("egress", "egress", show_size(egress), gross)
        allowance = self.price_of("egress", max(ZERO, egress - free)) - gross
        self.add("egress", "free egress", show_size(min(egress, free)), allowance)
        fair = self.offer.terms.get("fair_egress_times_stored")
        if fair and egress > self.usage.stored * Decimal(fair.value["times"]):
            self.warnings.append(
                f"reads {show_size(egress)} a month, above fair use ({fair.value['times']} × the stored size): "
                "the account may be limited"
            )


def _tiered_price(tiers: Sequence[Mapping[str, Any]], quantity: Decimal) -> Decimal:
    cost, start = ZERO, ZERO
    for tier in tiers:
        end = Decimal(tier["up_to"]) if "up_to" in tier else quantity
        cost += max(ZERO, min(quantity, end) - start) * Decimal(tier["price"])
        start = end
    return cost


def _round_up(quantity: Decimal, unit: Decimal | int) -> Decimal:
    return (quantity / unit).to_integral_value(ROUND_CEILING) * unit


def grown(usage: Usage, months: int) -> Usage:
    """The usage after `months` of growth: files grow in proportion, monthly requests and egress stay the same."""
    stored = usage.stored + usage.growth * months
    if not usage.stored or stored == usage.stored:
        return replace(usage, stored=stored)
    grown = scaled(usage, stored / usage.stored)
    return replace(
        grown,
        growth=usage.growth,
        egress=usage.egress,
        deleted=usage.deleted,
        uploads=usage.month_uploads,
        downloads=usage.month_downloads,
    )


def scaled(usage: Usage, factor: Decimal) -> Usage:
    """The usage with every quantity multiplied by `factor`."""

    def times(value: Decimal | None) -> Decimal | None:
        return None if value is None else value * factor

    return replace(
        usage,
        stored=usage.stored * factor,
        growth=usage.growth * factor,
        egress=usage.egress * factor,
        deleted=usage.deleted * factor,
        files=times(usage.files),
        uploads=times(usage.uploads),
        downloads=times(usage.downloads),
        sizes=tuple(replace(group, files=group.files * factor, bytes=group.bytes * factor) for group in usage.sizes),
    )


def first_upload(offer: Offer, usage: Usage) -> Bill:
    """The cost of uploading what is stored today: one upload per file, on top of the first month."""
    if usage.files is None:
        return Bill(())
    more = replace(usage, uploads=(usage.month_uploads or ZERO) + usage.files)
    return _difference(month(offer, more), month(offer, usage), "first upload")


def months(offer: Offer, usage: Usage, number: int) -> list[Bill]:
    """The bills of the first `number` months, with growth."""
    return [month(offer, grown(usage, at)) for at in range(number)]


def year(offer: Offer, usage: Usage) -> Bill:
    """The first year: twelve months with growth, plus the first upload."""
    lines: dict[tuple[str, str], Decimal] = {}
    bills = [*months(offer, usage, 12), first_upload(offer, usage)]
    for bill in bills:
        for line in bill.lines:
            lines[line.term, line.what] = lines.get((line.term, line.what), ZERO) + line.amount
    order = sorted(lines, key=lambda key: TERMS.index(key[0]))
    warnings = dict.fromkeys(warning for bill in bills for warning in bill.warnings)
    return Bill(tuple(Line(term, what, "", lines[term, what]) for term, what in order), tuple(warnings))


def restore(offer: Offer, usage: Usage) -> Bill:
    """What a full restore, reading everything once, adds to a month's bill."""
    return _difference(month(offer, _with_full_read(usage)), month(offer, usage), "")


def leaving(offer: Offer, usage: Usage) -> Bill:
    """The one-off cost of leaving: reading everything once, plus early deletion.

    Growth is assumed to be even, so objects younger than the minimum retention have half of it left on average.
    """
    days = Decimal(offer.terms["minimum_days"].value["days"])
    young = min(usage.stored, usage.growth * days / RETENTION_MONTH)
    # Computed within one month's bill, since a minimum charge may already cover part of it.
    month_bill = _MonthBill(offer, _with_full_read(usage))
    month_bill.add("minimum retention", "deleted early", show_size(young), month_bill.early_deletion(young, days / 2))
    return _difference(month_bill.bill(), month(offer, usage), "")


def _with_full_read(usage: Usage) -> Usage:
    """The usage of a month in which everything is read once in addition."""
    downloads = None if usage.files is None else (usage.month_downloads or ZERO) + usage.files
    return replace(usage, egress=usage.egress + usage.stored, downloads=downloads)


def _difference(more: Bill, less: Bill, prefix: str) -> Bill:
    """`more` minus `less`, term by term."""
    lines = []
    for term in TERMS:
        amount = more.shares.get(term, ZERO) - less.shares.get(term, ZERO)
        if amount:
            lines.append(Line(term, f"{prefix} {term}".strip(), "", amount))
    return Bill(tuple(lines), tuple(warning for warning in more.warnings if warning not in less.warnings))


@dataclass(frozen=True)
class Result:
    """The bills of one offer for a usage."""

    offer: Offer
    month: Bill
    year: Bill
    restore: Bill
    leaving: Bill


@dataclass(frozen=True, slots=True)
class Crossing:
    """From about `stored` bytes on, everything else in proportion, `above` is cheaper than `below`.

    `leads`: the cheapest of all offers changes here.
    """

    stored: Decimal
    currency: str
    below: Offer
    above: Offer
    monthly: Decimal
    leads: bool


def compare(offers: Iterable[Offer], usage: Usage) -> dict[str, list[Result]]:
    """The bills of every offer, by currency, sorted by the cost of a month, of the first year and of a restore."""
    found: dict[str, list[Result]] = {}
    for offer in offers:
        result = Result(
            offer=offer,
            month=month(offer, usage),
            year=year(offer, usage),
            restore=restore(offer, usage),
            leaving=leaving(offer, usage),
        )
        found.setdefault(offer.currency, []).append(result)
    for results in found.values():
        results.sort(key=lambda result: (result.month.total, result.year.total, result.restore.total, result.offer.key))
    # The currency with the most offers first, then by name.
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


@dataclass(frozen=True)
class Curve:
    """Monthly cost as a function of the stored size, everything else in proportion."""

    offer: Offer
    stored: tuple[Decimal, ...]
    cost: tuple[Decimal, ...]


def curve(offer: Offer, usage: Usage, low: Decimal, high: Decimal, points: int) -> Curve:
    """The cost at `points` sizes from `low` to `high`, evenly spaced on a log axis."""
    step = (high / low).ln() / (points - 1)
    sizes = tuple(low * (step * at).exp() for at in range(points))
    return Curve(offer, sizes, tuple(_cost_at(size, offer, usage) for size in sizes))


def _cost_at(size: Decimal, offer: Offer, usage: Usage) -> Decimal:
    """Monthly cost, rounded so that equal sums computed in a different order compare equal."""
    return month(offer, scaled(usage, size / usage.stored)).total.quantize(Decimal("1e-9"))


def curves(offers: Iterable[Offer], usage: Usage, low: Decimal, high: Decimal, points: int = 61) -> list[Curve]:
    """One curve per offer on a common grid, as `crossings` and `leaders` need them."""
    return [curve(offer, usage, low, high, points) for offer in offers]


def crossings(drawn: Sequence[Curve], usage: Usage) -> list[Crossing]:
    """Where two curves cross, smallest size first.

    Two curves that are equal over a range (both free, for example) cross where the range ends. Two crossings between
    neighbouring points of the grid are not detected.
    """
    changes = {
        (at, before.key, after.key)
        for lead in _cheapest_by_currency(drawn).values()
        for (_, before), (at, after) in pairwise(lead)
    }
    found = []
    for one, other in combinations(drawn, 2):
        if one.offer.currency != other.offer.currency:
            continue
        for at in _sign_changes(one, other):
            below, above = (one, other) if other.cost[at] < one.cost[at] else (other, one)
            leads = (at, below.offer.key, above.offer.key) in changes
            found.append(_crossing(below.offer, above.offer, usage, *one.stored[at - 1 : at + 1], leads=leads))
    return sorted(found, key=lambda item: item.stored)


def leaders(drawn: Iterable[Curve]) -> dict[str, list[Offer]]:
    """{currency: the offers that are the cheapest somewhere on the grid, by ascending size}."""
    return {currency: [offer for _, offer in lead] for currency, lead in _cheapest_by_currency(drawn).items()}


def _cheapest_by_currency(drawn: Iterable[Curve]) -> dict[str, list[tuple[int, Offer]]]:
    """{currency: (index on the grid from which it is the cheapest, offer)}.

    Of offers with equal cost (two minimum charges, for example), the one that stays the cheapest longest.
    """
    by_currency: dict[str, list[Curve]] = {}
    for item in drawn:
        by_currency.setdefault(item.offer.currency, []).append(item)
    return {currency: _cheapest_along(items) for currency, items in by_currency.items()}


def _cheapest_along(curves: Sequence[Curve]) -> list[tuple[int, Offer]]:
    least = [min(costs) for costs in zip(*(item.cost for item in curves), strict=True)]

    def until(item: Curve, at: int) -> int:
        """The first index from `at` on where it is not the cheapest."""
        return next((later for later in range(at, len(least)) if item.cost[later] > least[later]), len(least))

    lead, at = [], 0
    while at < len(least):
        end, best = max(((until(item, at), item) for item in curves), key=lambda pair: (pair[0], pair[1].offer.key))
        lead.append((at, best.offer))
        at = end
    return lead


def _sign_changes(one: Curve, other: Curve) -> list[int]:
    """The indexes where the cheaper one of the two changes, or where an equal start ends."""
    changes = []
    last = 0
    for at in range(len(one.stored)):
        gap = one.cost[at] - other.cost[at]
        sign = (gap > 0) - (gap < 0)
        if sign and sign != last and at:
            changes.append(at)
        last = sign or last
    return changes


def _crossing(below: Offer, above: Offer, usage: Usage, low: Decimal, high: Decimal, *, leads: bool) -> Crossing:
    end = _bisect(lambda size: _cost_at(size, above, usage) < _cost_at(size, below, usage), low, high)
    return Crossing(end, below.currency, below, above, _cost_at(end, above, usage), leads)


def _bisect(holds: Callable[[Decimal], bool], low: Decimal, high: Decimal) -> Decimal:
    """The least size at which `holds` is true, to one part in ten thousand; it must be true at `high`."""
    while high - low > high / 10_000:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
