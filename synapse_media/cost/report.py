"""The study as one self-contained HTML file, which loads nothing and supports phones and dark mode."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

from synapse_media.errors import UsageError

from . import pictures
from .fit import Fit
from .measure import Measured
from .model import Bill, Result
from .study import CAVEAT, Study, describe_cheapest, describe_usage, marks, money
from .units import show_count, show_size

_STYLE = """
:root { color-scheme: light dark; --ink: #23282f; --soft: #626a75; --paper: #fff; --tint: #f3f5f7; --line: #d5dae0;
  --good: #1f7a3f }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #a0a8b3; --paper: #15181c; --tint: #1f242a; --line: #39404a; --good: #6fcf8f }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p, ul { max-width: 44rem } ul { padding-left: 1.2rem }
.soft { color: var(--soft) } .answer { font-size: 1.1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  overflow-wrap: normal }
th { color: var(--soft); font-weight: 600; white-space: nowrap }
.n { text-align: right; white-space: nowrap }
tr.best td { background: var(--tint) } tr.best td:first-child { font-weight: 700; color: var(--good) }
details { margin: .4rem 0; border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .7rem }
summary { cursor: pointer; font-weight: 600 } dt { color: var(--soft); font-size: .9rem } dd { margin: 0 0 .4rem }
figure { margin: 1rem 0 } figcaption { color: var(--soft); font-size: .9rem }
svg { width: 100%; height: auto; display: block } svg.narrow { display: none }
svg text { font-family: system-ui, sans-serif !important }
@media (max-width: 40rem) {
  svg.wide { display: none } svg.narrow { display: block }
  .offers thead { display: none }
  .offers tr { display: grid; grid-template-columns: repeat(4, 1fr); border-bottom: 1px solid var(--line) }
  .offers td { border: 0; padding: .2rem .4rem } .offers td:first-child { grid-column: 1 / -1; font-weight: 600 }
  .offers td:last-child { grid-column: 1 / -1; padding-bottom: .5rem }
  .offers [data-name]::before { content: attr(data-name) " "; color: var(--soft); font-size: .8rem }
  .offers .n::before { display: block }
}
@media print { details { break-inside: avoid } }
""".strip()


def save(study: Study, fits: Iterable[Fit], measured: Measured | None, path: Path) -> Path:
    """Write the report. Raises PictureError without matplotlib, UsageError where the file can't be written."""
    text = render(study, fits, measured)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--report {str(path)!r}: can't be written ({error.strerror}).") from error
    return path


def render(study: Study, fits: Iterable[Fit], measured: Measured | None = None) -> str:
    """The report's HTML."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        # Enforces that the report loads nothing from elsewhere.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>",
        f"<title>Cost of a media store</title><style>{_STYLE}</style></head><body><main>",
        "<h1>What a store for Synapse’s media costs</h1>",
        f"<p>{_text(describe_usage(study.usage))}. Prices as known on {study.today}.</p>",
    ]
    if measured:
        parts.append(_measured(measured))
    for currency in study.results:
        parts.append(f'<p class="answer">{_text(currency)}: {_text(describe_cheapest(study, currency))}</p>')
        parts.append(_table(study, currency))
    parts.append(
        '<p class="soft">Month: for what is stored now. Restore: reading everything once. Leaving: reading everything '
        "once, plus early deletion. ?: a term is uncertain; !: a price is old; *: the recommended "
        "module can’t write it.</p>"
    )
    parts += [_figure(picture, study) for picture in pictures.PICTURES]
    parts.append("<h2>Notes</h2><ul>")
    parts += [f"<li>{_text(note)}</li>" for note in (*study.notes, CAVEAT)]
    parts.append("</ul><h2>Itemised bills</h2>")
    parts += [_details(study, result) for results in study.results.values() for result in results]
    parts.append("<h2>Other criteria</h2>")
    parts += [_fit(fit) for fit in fits]
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _text(value: object) -> str:
    return escape(str(value))


def _table(study: Study, currency: str) -> str:
    names = ("Month", "1st year", "Restore", "Leaving")
    heads = "".join(f'<th class="n">{name}</th>' for name in names)
    rows = []
    for at, result in enumerate(study.results[currency]):
        label = _text(f"{result.offer.label} {marks(result.offer, study.today)}".strip())
        region = study.nearest.get(result.offer.provider)
        if region:
            label += f'<br/><span class="soft">{_text(region)}</span>'
        bills = (result.month, result.year, result.restore, result.leaving)
        amounts = "".join(
            f'<td class="n" data-name="{name}">{_text(money(bill.total, "").strip())}</td>'
            for name, bill in zip(names, bills, strict=True)
        )
        style = "" if at else ' class="best"'
        mostly = f'<td data-name="Mostly for">{_text(result.month.dominant or "nothing")}</td>'
        rows.append(f"<tr{style}><td>{label}</td>{amounts}{mostly}</tr>")
    return (
        f'<table class="offers"><thead><tr><th>{_text(currency)}</th>{heads}<th>Mostly for</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _measured(found: Measured) -> str:
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="n">{show_count(folder.files)}</td>'
        f'<td class="n">{show_size(folder.bytes)}</td><td>{"yes" if found.is_stored(name) else "no"}</td></tr>'
        for name, folder in sorted(found.folders.items(), key=lambda item: -item[1].bytes)
    )
    growth = f"{show_size(found.growth)} a month" if found.growth is not None else "unknown"
    skipped = f" {found.skipped:,} entries could not be counted." if found.skipped else ""
    return (
        f"<h2>Measured: {_text(found.path)}</h2>"
        '<div class="scroll"><table><thead><tr><th>Folder</th><th class="n">Files</th><th class="n">Size</th>'
        f"<th>Stored in the bucket</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>Growth: {_text(growth)} ({_text(found.growth_note)}).{skipped}</p>"
    )


def _details(study: Study, result: Result) -> str:
    currency = result.offer.currency
    terms = "".join(
        f"<dt>{_text(name.replace('_', ' '))}: {_text(term.when)}, {_text(term.certainty)}"
        f"{_text(''.join(f', {flag}' for flag in term.flags(study.today) if flag != term.certainty))}</dt>"
        f"<dd>{_text(term.source)}{f'. {_text(term.note)}' if term.note else ''}</dd>"
        for name, term in result.offer.terms.items()
    )
    note = f"<p>{_text(result.offer.note)}</p>" if result.offer.note else ""
    return (
        f"<details><summary>{_text(result.offer.label)}: {_text(money(result.month.total, currency))} a month</summary>"
        f"{note}{_bill('a month', result.month, currency)}{_bill('the first year', result.year, currency)}"
        f"<p class='soft'>Sources</p><dl>{terms}</dl></details>"
    )


def _bill(title: str, bill: Bill, currency: str) -> str:
    rows = "".join(
        f'<tr><td>{_text(line.what)}</td><td class="n">{_text(line.quantity)}</td>'
        f'<td class="n">{line.amount:,.4f}</td></tr>'
        for line in bill.lines
    )
    billed = show_size(bill.billed) if bill.billed else ""
    return (
        f'<div class="scroll"><table><thead><tr><th>{_text(title)}</th><th class="n"></th>'
        f'<th class="n">{_text(currency)}</th></tr></thead><tbody>{rows}'
        f'<tr><td class="soft">storage as billed</td><td class="n soft">{_text(billed)}</td>'
        f'<td class="n soft">{bill.stored:,.4f}</td></tr>'
        f'<tr><td>total</td><td></td><td class="n"><b>{bill.total:,.4f}</b></td></tr></tbody></table></div>'
    )


def _fit(fit: Fit) -> str:
    cannot = "".join(f"<li>{_text(item)}</li>" for item in fit.cannot)
    encryption = fit.encryption + (" (uncertain)" if "encryption" in fit.uncertain else "")
    aspects = (
        ("Operator", fit.held_by),
        ("Where", f"{fit.layout}; {fit.regions}"),
        ("Encryption", encryption),
        ("Price", fit.prices),
        ("Egress", fit.egress),
        ("A key for one bucket", fit.key),
    )
    listed = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in aspects)
    return (
        f"<details><summary>{_text(fit.title)}</summary><dl>{listed}"
        + (f"<dt>Cannot</dt><dd><ul>{cannot}</ul></dd>" if cannot else "")
        + "</dl></details>"
    )


def _figure(picture: pictures.Picture, study: Study) -> str:
    drawn = "".join(_svg(picture, study, narrow=narrow) for narrow in (False, True))
    return f"<h2>{_text(picture.title)}</h2><figure>{drawn}<figcaption>{_text(picture.alt)}</figcaption></figure>"


def _svg(picture: pictures.Picture, study: Study, *, narrow: bool) -> str:
    """A picture as an inline element: with unique ids, in the page's text colour, as wide as the page."""
    kind = "narrow" if narrow else "wide"
    raw = pictures.render(picture, study, "svg", narrow=narrow, transparent=True).decode()
    element = raw[raw.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    mine = f"{picture.name}-{kind}-"
    element = re.sub(r'\bid="', f'id="{mine}', element)
    element = re.sub(r"url\(#", f"url(#{mine}", element)
    element = re.sub(r'href="#', f'href="#{mine}', element)
    element = element.replace(pictures.INK, "currentColor")
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    said = f'class="{kind}" role="img" aria-label="{escape(picture.alt)}"'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf"<svg {spaces} \1 {said}>", element, count=1)
