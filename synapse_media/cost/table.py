"""The comparison as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .fit import Fit
from .measure import Measured
from .model import Bill
from .study import CAVEAT, Study, describe_cheapest, describe_usage, marks, money
from .units import show_count, show_size

_COLUMNS = (
    "Month: for what is stored now. Restore: reading everything once. Leaving: reading everything once, plus early "
    "deletion."
)


_TABLE_WIDTH = 110
"""Terminal width, in columns, from which `show_fit` prints a table instead of a list."""


def show(console: Console, study: Study, *, lines: bool) -> None:
    """One table per currency; with `lines`, also the itemised bills of a month and of the first year."""
    console.print(Text(f"{describe_usage(study.usage)}; prices as known on {study.today}.", style="bold"))
    for currency, results in study.results.items():
        console.print()
        console.print(_comparison(study, currency))
        console.print(Text(describe_cheapest(study, currency)))
        if lines:
            for result in results:
                console.print()
                console.print(_bill(f"{result.offer.label}, a month", result.month, currency))
                console.print(_bill(f"{result.offer.label}, the first year", result.year, currency))
    console.print()
    for note in study.notes:
        console.print(Text(f"• {note}"))
    console.print(Text(f"• {_COLUMNS}", style="dim"))
    console.print(Text(f"• {CAVEAT}", style="dim"))


def _comparison(study: Study, currency: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(currency, ratio=1)
    for name in ("month", "1st year", "restore", "leaving"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mostly for")
    for at, result in enumerate(study.results[currency]):
        label = Text().append(result.offer.label, style="" if at else "bold")
        label.append(f" {marks(result.offer, study.today)}".rstrip(), style="yellow")
        region = study.nearest.get(result.offer.provider)
        if region:
            label.append(f"\n{region}", style="dim")
        bills = (result.month, result.year, result.restore, result.leaving)
        row = [
            label,
            *(Text(money(bill.total, "").strip()) for bill in bills),
            Text(result.month.dominant or "nothing"),
        ]
        table.add_row(*row)
    return table


def _bill(title: str, bill: Bill, currency: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("item")
    table.add_column("quantity", justify="right")
    table.add_column(currency, justify="right")
    for line in bill.lines:
        table.add_row(line.what, line.quantity, f"{line.amount:,.4f}")
    billed = show_size(bill.billed) if bill.billed else ""
    table.add_row(Text("storage as billed", style="dim"), billed, Text(f"{bill.stored:,.4f}", style="dim"))
    table.add_row(Text("total", style="bold"), "", Text(f"{bill.total:,.4f}", style="bold"))
    return table


def show_measured(console: Console, found: Measured) -> None:
    """Files and bytes of a media directory, by folder."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=str(found.path), title_justify="left", title_style="bold")
    table.add_column("folder")
    table.add_column("files", justify="right")
    table.add_column("size", justify="right")
    table.add_column("stored in the bucket")
    for name, folder in sorted(found.folders.items(), key=lambda item: -item[1].bytes):
        table.add_row(name, show_count(folder.files), show_size(folder.bytes), "yes" if found.is_stored(name) else "no")
    console.print(table)
    growth = f"{show_size(found.growth)} a month" if found.growth is not None else "unknown"
    console.print(Text(f"Growth: {growth} ({found.growth_note})."))
    if found.skipped:
        shown = "; ".join(found.unreadable)
        more = found.skipped - len(found.unreadable)
        console.print(Text(f"Not counted: {shown}" + (f"; and {more:,} more." if more else "."), style="yellow"))
    console.print()


def show_fit(console: Console, fits: Iterable[Fit]) -> None:
    """The criteria other than price: a table, or a list where the terminal is too narrow for one."""
    names = ("operator", "encryption", "price, egress", "cannot")
    table = Table("provider", *names, box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    for column in table.columns:
        column.ratio, column.overflow = 1, "fold"
    listed = console.width < _TABLE_WIDTH
    for fit in fits:
        title = Text(f"{fit.title}\n", style="bold").append(f"{fit.layout}; {fit.regions}", style="dim not bold")
        cells = (
            Text(fit.held_by),
            Text(fit.encryption + (" (uncertain)" if "encryption" in fit.uncertain else "")),
            Text(f"{fit.prices}. Egress: {fit.egress}"),
            Text("\n".join(f"• {item}" for item in fit.cannot) or "–"),
        )
        if listed:
            grid = Table.grid(padding=(0, 2))
            for name, cell in zip(names, cells, strict=True):
                grid.add_row(Text(name, style="dim"), cell)
            console.print(title, grid, "", sep="\n")
        else:
            table.add_row(title, *cells)
    if not listed:
        console.print(table)
