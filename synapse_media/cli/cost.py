"""`synapse-media cost`: what a store would cost at each provider, and how else they differ."""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from synapse_media.errors import UsageError

from . import programs

if TYPE_CHECKING:
    from synapse_media.cost.measure import Measured
    from synapse_media.cost.model import SizeGroup, Usage
    from synapse_media.cost.prices import Offer

# What --fit does not look at, as it is written.
_COST_ONLY = {
    **{name: f"--{name}" for name in ("stored", "growth", "egress", "files", "uploads", "downloads", "deleted")},
    **{name: f"--{name}" for name in ("media", "prices", "date", "lines")},
    "small_files": "--small-files",
    "small_size": "--small-size",
    "deleted_age": "--deleted-age",
    "classes": "--class",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare what a store would cost at each provider, line by line. Needs no account. A size is a number with a "
        "unit: GB is 10^9 bytes, GiB 2^30. A rate adds /day, /week, /month or /year."
    )
    usage = parser.add_argument_group("what is stored and read")
    usage.add_argument("--stored", metavar="SIZE", help="media stored today, such as 400GB")
    usage.add_argument("--growth", metavar="RATE", help="more stored each month, such as 10GB/month")
    usage.add_argument("--egress", metavar="RATE", help="read over the internet, such as 50GB/month (default: nothing)")
    usage.add_argument("--files", metavar="N", help="how many files that is, such as 900k")
    usage.add_argument("--small-files", metavar="N", help="how many of them are small (thumbnails)")
    usage.add_argument("--small-size", metavar="SIZE", help="size of a small one, such as 15kB")
    usage.add_argument("--uploads", metavar="RATE", help="upload requests (default: one a new file)")
    usage.add_argument("--downloads", metavar="RATE", help="download requests (default: egress by mean file size)")
    usage.add_argument("--deleted", metavar="RATE", help="deleted or overwritten, such as 2GB/month (default: nothing)")
    usage.add_argument("--deleted-age", metavar="DAYS", help="days it was stored then (default: 0)")
    usage.add_argument(
        "--media", metavar="DIR", help="measure Synapse's media directory instead of --stored and --files"
    )
    which = parser.add_argument_group("which offers")
    which.add_argument("--provider", metavar="NAME", action="append", default=[], help="only this one (repeatable)")
    which.add_argument("--class", metavar="CLASS", dest="classes", action="append", default=[], help="only this class")
    which.add_argument("--near", metavar="LAT,LON", help="show the nearest region of each provider")
    which.add_argument("--prices", metavar="FILE", help="prices of your own, over those of the catalog (JSON)")
    which.add_argument("--date", metavar="DATE", help="judge the age of prices on this day (default: today)")
    output = parser.add_argument_group("output")
    output.add_argument("--lines", action="store_true", help="show each month and first year line by line")
    output.add_argument("--fit", action="store_true", help="show what differs beside the price, instead of the cost")
    form = output.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of tables")
    form.add_argument("--markdown", action="store_true", help="print Markdown instead of tables")
    output.add_argument("--picture", metavar="DIR", help="draw PNG and SVG pictures into this directory")
    output.add_argument("--report", metavar="FILE.html", help="write one HTML file with tables and pictures")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from synapse_media.cost import fit, markdown, table, units

    console = Console(highlight=False)
    for name in ("media", "prices", "picture", "report"):
        if getattr(args, name) == "":
            raise UsageError(f"--{name} '': allowed is a path. Is a variable empty?")
    near = None if args.near is None else units.place(args.near, "--near")
    if args.fit:
        return _run_fit(console, args, near)
    from synapse_media.cost import prices
    from synapse_media.cost.study import as_json, study

    if args.report and Path(args.report).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {args.report!r}: allowed is a file whose name ends in .html.")
    today = _day(args.date)
    overrides = prices.read_overrides(Path(args.prices), today) if args.prices else None
    offers = prices.offers(args.provider, args.classes, overrides)
    usage, measured, notes = _usage(args, offers)
    unpriced = [] if args.classes else prices.unpriced(offers)
    if unpriced:
        notes.append(f"Not compared, since the catalog has no price for them: {'; '.join(unpriced)}.")
    found = study(offers, usage, today, near, notes)
    if args.json:
        print(programs.text(as_json(found) | {"measured": _measured_json(measured)}))
    elif args.markdown:
        print(markdown.costs(found))
    else:
        if measured:
            table.show_measured(console, measured)
        table.show(console, found, lines=args.lines)
    written = []
    if args.picture:
        from synapse_media.cost import pictures

        written += pictures.save(found, Path(args.picture))
    if args.report:
        from synapse_media.cost import report

        written.append(report.save(found, fit.fits(args.provider, near), measured, Path(args.report)))
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    return 0


def _run_fit(console: Any, args: argparse.Namespace, near: tuple[float, float] | None) -> int:
    from dataclasses import asdict

    from synapse_media.cost import fit, markdown, prices, table

    for option in ("picture", "report"):
        if getattr(args, option):
            raise UsageError(f"--fit and --{option} don't go together: the report has both, leave --fit out.")
    for option, value in vars(args).items():
        if option in _COST_ONLY and value not in (None, False, []):
            raise UsageError(
                f"--fit and {_COST_ONLY[option]} don't go together: --fit computes no cost. Leave one out."
            )
    prices.known(args.provider)
    found = fit.fits(args.provider, near)
    if args.json:
        print(programs.text({"fit": [asdict(item) for item in found]}))
    elif args.markdown:
        print(markdown.aspects(found))
    else:
        table.show_fit(console, found)
    return 0


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--date {text!r}: allowed is a day such as 2026-11-23.") from error


def _usage(args: argparse.Namespace, offers: tuple[Offer, ...]) -> tuple[Usage, Measured | None, list[str]]:
    """The usage asked for, what was measured for it, and what to say about it."""
    from synapse_media.cost import units

    rates = {
        name: units.rate(text, f"--{name}")
        for name in ("growth", "egress", "deleted")
        if (text := getattr(args, name)) is not None
    }
    notes = [] if "egress" in rates else ["No egress is counted: say --egress, such as 50GB/month."]
    if args.media:
        usage, measured = _measured_usage(args, offers, rates)
        if measured.growth is None and "growth" not in rates:
            notes.append(f"No growth is counted ({measured.growth_note}): say --growth.")
    else:
        usage, measured = _given_usage(args, rates), None
    deleted_age = units.days(args.deleted_age or "0", "--deleted-age")
    deleted = rates.get("deleted", Decimal(0))
    if deleted > 31 * (usage.stored + usage.growth):
        raise UsageError(
            f"--deleted {args.deleted!r}: allowed is at most what is stored, once a day. Check the unit and the period."
        )
    usage = replace(
        usage,
        deleted=deleted,
        deleted_age=deleted_age,
        uploads=None if args.uploads is None else units.count_rate(args.uploads, "--uploads"),
        downloads=None if args.downloads is None else units.count_rate(args.downloads, "--downloads"),
    )
    return usage, measured, notes


def _given_usage(args: argparse.Namespace, rates: dict[str, Decimal]) -> Usage:
    from synapse_media.cost import units
    from synapse_media.cost.model import Usage

    if args.stored is None:
        raise UsageError("Say what is stored: --stored 400GB (with --files 900k), or measure it: --media DIR.")
    stored = units.size(args.stored, "--stored")
    files = None if args.files is None else Decimal(units.count(args.files, "--files"))
    if files == 0 and stored:
        raise UsageError(f"--files {args.files!r}: allowed is 1 or more with --stored {args.stored!r}. Leave it out?")
    return Usage(
        stored=stored,
        growth=rates.get("growth", Decimal(0)),
        egress=rates.get("egress", Decimal(0)),
        files=files,
        sizes=_small(args, stored, files),
    )


def _small(args: argparse.Namespace, stored: Decimal, files: Decimal | None) -> tuple[SizeGroup, ...]:
    """Small files and the rest as two groups."""
    from synapse_media.cost import units
    from synapse_media.cost.model import SizeGroup

    if args.small_files is None and args.small_size is None:
        return ()
    if args.small_files is None or args.small_size is None or files is None:
        raise UsageError("--small-files and --small-size go together, and with --files.")
    small = units.count(args.small_files, "--small-files")
    each = units.size(args.small_size, "--small-size")
    if not each:
        raise UsageError(f"--small-size {args.small_size!r}: allowed is a byte or more.")
    if small > files:
        raise UsageError(f"--small-files {args.small_files!r}: allowed is at most --files {args.files!r}.")
    rest, left = files - small, stored - small * each
    if left < rest or (left and not rest):
        raise UsageError(
            f"--small-files {args.small_files!r} of {args.small_size!r} leave {units.show_size(left)} of --stored for "
            f"{units.show_count(rest)} files. Check the three numbers."
            if left >= 0
            else f"--small-files {args.small_files!r} of {args.small_size!r} are more than --stored {args.stored!r}."
        )
    if rest and left / rest < each:
        raise UsageError("--small-size: the other files would be smaller still. Check the numbers.")
    return (SizeGroup(small, small * each), SizeGroup(rest, left))


def _measured_usage(
    args: argparse.Namespace, offers: tuple[Offer, ...], rates: dict[str, Decimal]
) -> tuple[Usage, Measured]:
    from synapse_media.cost import measure

    for name in ("stored", "files", "small_files", "small_size"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} and --media don't go together: --media measures it.")
    boundaries = {offer.terms["minimum_object"].value["bytes"] for offer in offers}
    with _Progress() as progress:
        found = measure.measure(Path(args.media), boundaries, time.time(), progress.seen)
    return found.usage(rates.get("growth"), rates.get("egress", Decimal(0))), found


class _Progress:
    """A line on stderr once counting takes more than two seconds, on a terminal only."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def seen(self, files: int) -> None:
        if not sys.stderr.isatty() or time.monotonic() - self.started < 2:
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                SpinnerColumn(),
                TextColumn("counting {task.completed:,} files"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.task = self.bar.add_task("count", total=None, completed=files)
            self.bar.start()
        self.bar.update(self.task, completed=files)


def _measured_json(found: Measured | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "path": str(found.path),
        "folders": {
            name: {"files": folder.files, "bytes": folder.bytes, "stored": found.is_stored(name)}
            for name, folder in found.folders.items()
        },
        "growth_bytes_per_month": None if found.growth is None else int(found.growth),
        "growth_note": found.growth_note,
        "not_counted": found.skipped,
        "examples": found.unreadable,
    }
