"""The comparison as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable

from .fit import Fit
from .study import CAVEAT, Study, describe_cheapest, describe_usage, marks, money


def costs(study: Study) -> str:
    """One table per currency, followed by the notes."""
    parts = [f"**{describe_usage(study.usage)}**; prices as known on {study.today}."]
    for currency, results in study.results.items():
        rows = [
            f"| {currency} | month | 1st year | restore | leaving | mostly for |",
            "| --- | ---: | ---: | ---: | ---: | --- |",
        ]
        for result in results:
            label = " ".join(filter(None, (result.offer.label, marks(result.offer, study.today))))
            region = study.nearest.get(result.offer.provider)
            bills = (result.month, result.year, result.restore, result.leaving)
            cells = [
                label + (f"; {region}" if region else ""),
                *(money(bill.total, "").strip() for bill in bills),
                result.month.dominant or "nothing",
            ]
            rows.append(_row(cells))
        parts += ["\n".join(rows), f"{currency}: {describe_cheapest(study, currency)}"]
    parts.append("\n".join(f"- {note}" for note in (*study.notes, CAVEAT)))
    return "\n\n".join(parts)


def aspects(fits: Iterable[Fit]) -> str:
    """The criteria other than price."""
    rows = ["| provider | operator | encryption | price, egress | cannot |", "| --- | --- | --- | --- | --- |"]
    for fit in fits:
        unsure = " (uncertain)" if "encryption" in fit.uncertain else ""
        rows.append(
            _row(
                [
                    f"**{fit.title}**: {fit.layout}; {fit.regions}",
                    fit.held_by,
                    fit.encryption + unsure,
                    f"{fit.prices}. Egress: {fit.egress}",
                    "; ".join(fit.cannot) or "–",
                ]
            )
        )
    return "\n".join(rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
