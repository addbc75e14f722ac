"""Pictures of a study: cost over stored size, cost over 24 months, share of each cost term. Needs matplotlib.

One panel per currency. Text and axes are drawn in one colour, which the report replaces with that of its theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from math import log10
from pathlib import Path
from typing import Any

from synapse_media import catalog
from synapse_media.errors import SynapseMediaError, UsageError

from .model import TERMS, curve, months
from .prices import Offer
from .study import Study
from .units import show_size

INK = "#23282f"
"""The colour of text and axes. Used for nothing else, since the report replaces it."""

MONTHS = 24
_POINTS = 81
_FLOOR = 0.5
"""The lower end of the logarithmic axis: a monthly cost."""

_WIDTHS = {False: 9.5, True: 4.2}
"""{narrow: width in inches}. The narrow one has about as many points as a phone has pixels, so text stays readable."""

# Distinguishable on white and on near black.
_HUES = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#b07aa1",
    "#c9a400",
    "#3ba7b5",
    "#d37295",
    "#8264c8",
    "#86892d",
)
_GREY = "#8a8f98"
_TERM_HUES = dict(zip(("storage", *(term for term in TERMS if term != "storage")), _HUES, strict=False))


class PictureError(SynapseMediaError):
    """The pictures can't be drawn here."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`name` is the file name without its extension; `alt` describes the picture."""

    name: str
    title: str
    alt: str
    draw: Callable[[Study, bool], Any]


def save(study: Study, directory: Path) -> list[Path]:
    """Write every picture as PNG and SVG, and return the paths.

    Raises PictureError without matplotlib, UsageError where the directory can't be written.
    """
    _matplotlib()
    try:
        directory.mkdir(exist_ok=True)
        paths = []
        for picture in PICTURES:
            for kind in ("png", "svg"):
                path = directory / f"{picture.name}.{kind}"
                path.write_bytes(render(picture, study, kind, narrow=False))
                paths.append(path)
    except OSError as error:
        raise UsageError(f"--picture {str(directory)!r}: can't be written ({error.strerror}).") from error
    return paths


def render(picture: Picture, study: Study, kind: str, *, narrow: bool, transparent: bool = False) -> bytes:
    """One picture as `png` or `svg`; `narrow` for a phone."""
    matplotlib = _matplotlib()
    style = {
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": picture.name,
        "figure.constrained_layout.use": True,
    }
    target = io.BytesIO()
    with matplotlib.rc_context(style):
        figure = picture.draw(study, narrow)
        # No date, so that the same study gives the same bytes.
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(target, format=kind, dpi=150, transparent=transparent, metadata=metadata)
    return target.getvalue()


def _matplotlib() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise PictureError(
            "pictures need matplotlib, which is not installed: pip install 'synapse-media[pictures]'. "
            "Tables and --json work without it."
        ) from error
    return mpl


def _figure(study: Study, width: float, heights: Sequence[float], below: float = 0) -> tuple[Any, list[Any]]:
    """A figure with one panel per currency; sizes in inches. Without pyplot, which keeps global state."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, sum(heights) + below))
    figure.get_layout_engine().set(h_pad=0.1)
    axes = figure.subplots(len(study.results), 1, squeeze=False, height_ratios=list(heights))
    return figure, [row[0] for row in axes]


def _hue(provider: str) -> str:
    priced = [name for name in catalog.names() if catalog.load(name).value("prices")]
    return _HUES[priced.index(provider) % len(_HUES)] if provider in priced else _HUES[-1]


def _by_size(study: Study, narrow: bool) -> Any:
    low, high = study.span
    usage = study.typical
    figure, panels = _figure(study, _WIDTHS[narrow], [5.2] * len(study.results))
    for axes, currency in zip(panels, study.results, strict=True):
        offers = study.drawn(currency)
        curves = [curve(offer, usage, low, high, _POINTS) for offer in offers]
        top = max(float(item.cost[-1]) for item in curves)
        dashes = _dashes([(item.offer.provider, [float(cost) for cost in item.cost]) for item in curves])
        for item, dash in zip(curves, dashes, strict=True):
            axes.plot(
                [float(size) / 1e9 for size in item.stored],
                [max(float(cost), _FLOOR / 10) for cost in item.cost],
                color=_hue(item.offer.provider),
                linewidth=2,
                linestyle=dash,
            )
        axes.set(xscale="log", yscale="log", xlim=(float(low) / 1e9, float(high) / 1e9), ylim=(_FLOOR, top * 1.6))
        axes.set_title(f"{currency} a month" + ("" if narrow else " by stored size"))
        _size_axis(axes)
        _money_axis(axes.yaxis)
        axes.grid(visible=True, which="major", color=_GREY, alpha=0.25, linewidth=0.6)
        axes.axvline(float(usage.stored) / 1e9, color=_GREY, linestyle=":", linewidth=1.2)
        axes.annotate(
            show_size(usage.stored),
            (float(usage.stored) / 1e9, top * 1.5),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=9,
            va="top",
            color=_GREY,
        )
        _mark_crossings(axes, study, offers, narrow=narrow)
        ends = [(float(item.cost[-1]), item.offer.label, _hue(item.offer.provider)) for item in curves]
        _label_ends(axes, ends, log=True, narrow=narrow)
    return figure


def _dashes(lines: Sequence[tuple[str, Sequence[float]]]) -> list[Any]:
    """A line style per line: dashed where it overlaps an earlier line or has the same hue."""
    styles = ("-", (0, (4, 4)), (0, (1.2, 2.4)))
    found = []
    for at, (provider, costs) in enumerate(lines):
        below = 0
        for before, others in lines[:at]:
            same = [cost == other > 0 for cost, other in zip(costs, others, strict=True)]
            below += before == provider or any(one and next_one for one, next_one in pairwise(same))
        found.append(styles[min(below, 2)])
    return found


def _mark_crossings(axes: Any, study: Study, offers: Sequence[Offer], *, narrow: bool) -> None:
    """Mark crossings with dots, and with a ring and the size where the cheapest offer changes."""
    for item in study.flips:
        if item.below not in offers or item.above not in offers:
            continue
        x, y = float(item.stored) / 1e9, float(item.monthly)
        if item.leads:
            axes.plot(
                [x], [y], marker="o", markersize=8, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.5
            )
            axes.annotate(
                show_size(item.stored), (x, y), xytext=(6, -12), textcoords="offset points", fontsize=9, weight="bold"
            )
        else:
            axes.plot([x], [y], marker="o", markersize=2.6 if narrow else 3.5, color=_GREY)


def _over_time(study: Study, narrow: bool) -> Any:
    figure, panels = _figure(study, _WIDTHS[narrow], [5.2 if narrow else 4.4] * len(study.results))
    for axes, currency in zip(panels, study.results, strict=True):
        offers = study.drawn(currency)
        lines = [[round(float(bill.total), 9) for bill in months(offer, study.usage, MONTHS)] for offer in offers]
        dashes = _dashes([(offer.provider, costs) for offer, costs in zip(offers, lines, strict=True)])
        for offer, costs, dash in zip(offers, lines, dashes, strict=True):
            axes.plot(range(1, MONTHS + 1), costs, color=_hue(offer.provider), linewidth=2, linestyle=dash)
        ends = [(costs[-1], offer.label, _hue(offer.provider)) for offer, costs in zip(offers, lines, strict=True)]
        axes.set(xlim=(1, MONTHS), ylim=(0, max(max(end[0] for end in ends) * 1.1, 1)))
        axes.set_xticks([1, 6, 12, 18, 24])
        axes.set_xlabel("month")
        axes.set_title(f"{currency} a month over {MONTHS} months")
        axes.grid(visible=True, axis="y", color=_GREY, alpha=0.25, linewidth=0.6)
        _label_ends(axes, ends, log=False, narrow=narrow)
    return figure


def _shares(study: Study, narrow: bool) -> Any:
    heights = [0.75 + (0.44 if narrow else 0.34) * len(results) for results in study.results.values()]
    figure, panels = _figure(study, _WIDTHS[narrow], heights, below=1.1 if narrow else 0.55)
    used: dict[str, Any] = {}
    for axes, (currency, results) in zip(panels, study.results.items(), strict=True):
        top = max(float(result.month.total) for result in results) or 1.0
        for at, result in enumerate(results):
            start = 0.0
            for term, amount in result.month.shares.items():
                (bar,) = axes.barh(at, float(amount), left=start, color=_TERM_HUES[term], height=0.68)
                used.setdefault(term, bar)
                start += float(amount)
            axes.text(start + top * 0.01, at, f"{result.month.total:,.2f}", va="center", fontsize=9)
        labels = [_wrapped_label(result.offer.label) if narrow else result.offer.label for result in results]
        axes.set_yticks(range(len(results)), labels, fontsize=9)
        axes.set(xlim=(0, top * (1.3 if narrow else 1.14)))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_title(f"{currency} a month by term")
    order = [term for term in TERMS if term in used]
    figure.legend(
        [used[term] for term in order],
        order,
        loc="outside lower center",
        ncols=2 if narrow else 4,
        frameon=False,
        fontsize=9,
    )
    return figure


def _wrapped_label(label: str) -> str:
    """A long label, broken at the space nearest to its middle."""
    if len(label) < 18:
        return label
    spaces = [at for at, letter in enumerate(label) if letter == " "]
    cut = min(spaces, key=lambda at: abs(at - len(label) / 2), default=None)
    return label if cut is None else f"{label[:cut]}\n{label[cut + 1 :]}"


def _size_axis(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda gb, _: show_size(Decimal(str(gb)) * 10**9)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("stored (everything else in proportion)")


def _money_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10))
    axis.set_major_formatter(FuncFormatter(lambda amount, _: f"{amount:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label_ends(axes: Any, ends: Sequence[tuple[float, str, str]], *, log: bool, narrow: bool) -> None:
    """Label the lines at their right ends, spread out where labels would overlap and connected to their lines."""
    low, high = axes.get_ylim()

    def place(value: float) -> float:
        if log:
            return (log10(max(value, float(low))) - log10(low)) / (log10(high) - log10(low))
        return (value - float(low)) / (float(high) - float(low))

    gap = 0.085 if narrow else 0.062
    spread = _spread([place(value) for value, _, _ in ends], gap)
    for (value, label, hue), at in zip(ends, spread, strict=True):
        axes.annotate(
            _wrapped_label(label) if narrow else label,
            xy=(1.0, place(value)),
            xytext=(1.045, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=9.5,
            va="center",
            # Only the connector has the hue: most hues are too pale for text on white or on black.
            color=INK,
            linespacing=0.95,
            gid=f"label-{re.sub(r'[^a-z0-9]+', '-', label.lower())}",
            arrowprops={
                "arrowstyle": "-",
                "color": hue,
                "linewidth": 2,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _spread(places: Sequence[float], gap: float) -> list[float]:
    """Positions between 0 and 1, moved to be at least `gap` apart."""
    order = sorted(range(len(places)), key=lambda at: places[at])
    moved = list(places)
    for before, at in pairwise(order):
        moved[at] = max(moved[at], moved[before] + gap)
    over = moved[order[-1]] - 1 if order else 0
    if over > 0:
        moved[order[-1]] -= over
        for after, at in pairwise(reversed(order)):
            moved[at] = min(moved[at], moved[after] - gap)
    return moved


PICTURES = (
    Picture(
        "cost-by-size",
        "Cost by stored size",
        "Monthly cost over stored size on logarithmic axes: a line per provider, and one per further class that is "
        "the cheapest somewhere. Flat stretches on the left are minimum charges. Dots mark crossings, rings where the "
        f"cheapest offer changes. A dashed line overlaps another. Below {_FLOOR:.2f} a month nothing is drawn.",
        _by_size,
    ),
    Picture(
        "cost-over-time",
        f"Cost over {MONTHS} months",
        f"The same offers: monthly cost over {MONTHS} months at the given growth.",
        _over_time,
    ),
    Picture("cost-shares", "Cost by term", "A bar per offer: the terms that make up its monthly cost.", _shares),
)
