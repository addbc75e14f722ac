"""Pictures and the report: drawn, well formed, without a word to the network, and whole on a phone."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from synapse_media.cost import fit, pictures, prices, report
from synapse_media.cost.measure import measure
from synapse_media.cost.model import Usage
from synapse_media.cost.study import Study, describe_cheapest, study
from synapse_media.cost.units import show_size
from synapse_media.errors import UsageError

TODAY = date(2026, 11, 23)
GB = Decimal(10**9)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def found() -> Study:
    usage = Usage(400 * GB, growth=10 * GB, egress=50 * GB, files=Decimal(900_000))
    return study(prices.offers(), usage, TODAY, (52.5, 13.4))


@pytest.fixture(scope="module")
def page(found: Study) -> str:
    return report.render(found, fit.fits())


@pytest.fixture(scope="module")
def small() -> Study:
    return study(prices.offers(["backblaze_b2", "hetzner"]), Usage(400 * GB), TODAY)


def parsed(text: str | bytes) -> ET.Element:
    """What we wrote ourselves, as a tree. Raises where it is not well formed."""
    return ET.fromstring(text)  # noqa: S314 (our own file)


def tree(page: str) -> ET.Element:
    return parsed(page.removeprefix("<!DOCTYPE html>\n"))


def drawings(page: str, kind: str) -> list[ET.Element]:
    """The pictures of a report, `wide` or `narrow`, in the order of PICTURES."""
    found = [item for item in tree(page).iter(f"{SVG}svg") if item.get("class") == kind]
    assert len(found) == len(pictures.PICTURES)
    return found


def texts(element: ET.Element) -> list[str]:
    return ["".join(item.itertext()) for item in element.iter(f"{SVG}text")]


def test_png_and_svg_of_each(small: Study, tmp_path: Path) -> None:
    paths = pictures.save(small, tmp_path / "new")
    assert sorted(path.name for path in paths) == sorted(
        f"{name}.{kind}" for name in ("cost-by-size", "cost-over-time", "cost-shares") for kind in ("png", "svg")
    )
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG")
            width, height = struct.unpack(">II", content[16:24])
            assert width >= 1200
            assert height >= 400
        else:
            assert {"USD", "EUR"} <= {text.split()[0] for text in texts(parsed(content)) if text}


def test_what_is_in_the_pictures(page: str) -> None:
    by_size, over_time, shares = (texts(item) for item in drawings(page, "wide"))
    for label in ("Backblaze B2", "Wasabi", "Amazon S3 eu-central-1", "Hetzner Object Storage"):
        assert by_size.count(label) == over_time.count(label) == 1
    # The ring of the flip, computed by hand in test_model; the stored size; both panels.
    assert {"873.3 GB", "400 GB", "10 TB", "USD a month by stored size", "EUR a month by stored size"} <= set(by_size)
    assert {"storage", "minimum storage", "subscription", "2.71", "7.99"} <= set(shares)


@pytest.mark.parametrize("kind", ["wide", "narrow"])
def test_no_label_lies_on_another(page: str, found: Study, kind: str) -> None:
    """Labels at the ends of the lines: their lines of text are further apart than they are high."""
    for drawing in drawings(page, kind)[:2]:
        spots = []
        for label in drawing.iter(f"{SVG}g"):
            for item in label.iter(f"{SVG}text") if "-label-" in (label.get("id") or "") else ():
                # Readable on white and on black: in the page's ink.
                assert "fill: currentColor" in (item.get("style") or "")
                at = re.search(r"(?:translate\(|rotate\([-0-9.]+ )[-0-9.]+ ([-0-9.]+)\)", item.get("transform") or "")
                assert at
                spots.append((float(at[1]), "".join(item.itertext()).strip()))
        said = " ".join(text for _, text in spots)
        assert all(word in said for offer in found.drawn("USD") for word in offer.label.split())
        for (above, one), (below, other) in pairwise(sorted(spots)):
            assert below - above >= 8.5, (one, other)


def test_what_leads_is_ringed_where_the_report_says() -> None:
    usage = Usage(400 * GB, growth=10 * GB, egress=50 * GB, files=Decimal(900_000))
    three = study(prices.offers(["amazon_s3", "storj", "wasabi"]), usage, TODAY)
    drawn = texts(parsed(pictures.render(pictures.PICTURES[0], three, "svg", narrow=False)))
    rings = {text for text in drawn if re.fullmatch(r"[0-9.]+ [GT]B", text)} - {"10 GB", "100 GB", "400 GB", "10 TB"}
    assert rings == {show_size(flip.stored) for flip in three.flips if flip.leads} | {"1 TB"}
    assert all(ring in describe_cheapest(three, "USD") for ring in rings)
    assert "Amazon S3 STANDARD_IA us-east-1" in drawn


def test_of_lines_on_one_another_the_upper_ones_are_dashed() -> None:
    floor = [5.0, 5.0, 6.0]
    solid, dashed, dotted, crossing, nothing, again = pictures._dashes(
        [
            ("one", floor),
            ("other", [5.0, 5.0, 9.0]),
            ("third", [5.0, 5.0, 5.0]),
            ("fourth", [1.0, 5.0, 8.0]),
            ("fifth", [0.0, 0.0, 0.0]),
            ("one", [1.0, 2.0, 3.0]),
        ]
    )
    assert solid == crossing == nothing == "-"
    assert dashed == again != "-"
    assert dotted not in ("-", dashed)


def test_labels_are_moved_apart_and_stay_inside() -> None:
    for places in ([0.5, 0.5, 0.5], [0.98, 0.99, 1.0], [0.0, 0.0, 0.01], [0.2], []):
        moved = pictures._spread(places, 0.1)
        ordered = sorted(moved)
        assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(ordered))
        assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)
    assert pictures._spread([0.9, 0.1], 0.1) == [0.9, 0.1]


def test_the_same_study_gives_the_same_bytes(small: Study) -> None:
    picture = pictures.PICTURES[2]
    for kind in ("svg", "png"):
        first, again = (pictures.render(picture, small, kind, narrow=True) for _ in range(2))
        assert first == again


@pytest.mark.parametrize("usage", [Usage(Decimal(0)), Usage(Decimal(10**18)), Usage(5 * GB)])
def test_one_offer_of_any_size_can_be_drawn(usage: Usage) -> None:
    one = study(prices.offers(["backblaze_b2"]), usage, TODAY)
    for picture in pictures.PICTURES:
        assert "Backblaze B2" in texts(parsed(pictures.render(picture, one, "svg", narrow=False)))


def test_what_can_not_be_written(small: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "none" / "none"):
        with pytest.raises(UsageError, match=r"--picture .* can't be written"):
            pictures.save(small, place)
    with pytest.raises(UsageError, match=r"--report .* can't be written"):
        report.save(small, [], None, tmp_path)


def test_without_matplotlib_the_word_is_clear() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from synapse_media.cli import main\n"
        "assert main(['cost', '--stored', '1GB', '--json']) == 0\n"
        "sys.exit(main(['cost', '--stored', '1GB', '--json', '--picture', 'never']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'synapse-media[pictures]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("never").exists()


class TestReport:
    def test_well_formed(self, page: str) -> None:
        assert page.startswith("<!DOCTYPE html>\n<html")
        root = tree(page)
        ids = [item.get("id") for item in root.iter() if item.get("id")]
        assert len(ids) == len(set(ids)) > 100
        # Every reference inside has its target.
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', page))
        assert used <= set(ids)
        assert used

    def test_it_loads_nothing(self, page: str) -> None:
        root = tree(page)
        for item in root.iter():
            assert item.tag.rpartition("}")[2] not in ("script", "link", "img", "iframe", "object", "embed", "base"), (
                item.tag
            )
            for name, value in item.attrib.items():
                if name.rpartition("}")[2] in ("src", "href", "action", "data"):
                    assert value.startswith("#"), (name, value)
        assert not re.search(r"@import|url\((?!#)", page)
        assert "default-src 'none'" in page

    def test_it_says_what_the_study_says(self, page: str, found: Study) -> None:
        root = tree(page)
        said = html.unescape("".join(root.itertext()))
        for results in found.results.values():
            for result in results:
                assert result.offer.label in said
                assert f"{result.month.total:,.2f}" in said
        for note in found.notes:
            assert note in said
        for item in fit.fits():
            assert item.held_by in said

    def test_names_from_outside_stay_text(self, small: Study, tmp_path: Path) -> None:
        place = tmp_path / "<script>alert(1)<"
        (place / "local_content").mkdir(parents=True)
        (place / "<b>&").mkdir()
        text = report.render(small, [], measure(place, (), time.time()))
        assert "<script" not in text
        assert "<script>alert(1)<" in "".join(tree(text).itertext())

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_a_phone_in_a_real_browser(self, page: str, tmp_path: Path, scheme: str) -> None:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            pytest.skip("no Chromium on PATH; the tests beside this one check that the report is well formed")
        # In a frame as wide as a phone; the frame's own script tells what came out.
        wrapper = tmp_path / "phone.html"
        wrapper.write_text(
            f'<iframe id="phone" style="width:360px;height:800px;color-scheme:{scheme}" srcdoc="{html.escape(page)}">'
            f"</iframe><script>{PROBE}</script>",
            encoding="utf-8",
        )
        done = subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=4000",
                "--dump-dom",
                wrapper.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        title = re.search(r"<title>(.*?)</title>", done.stdout.rpartition("</iframe>")[0].partition("<iframe")[0])
        assert title is not None, done.stdout[:2000]
        seen = json.loads(html.unescape(title[1]))
        assert seen["width"] <= 360
        assert seen["wide"] == []
        # Of each picture one form, its text large enough for a phone.
        assert seen["shown"] == len(pictures.PICTURES)
        assert seen["text"] >= 9
        assert seen["dark"] == (scheme == "dark")
        paper = luminance(seen["paper"])
        assert paper < 0.05 if scheme == "dark" else paper > 0.95
        # WCAG AAA for what is read, AA for what is said in passing.
        for inks, least in ((seen["inks"], 7), (seen["soft"], 4.5)):
            assert inks
            for ink in inks:
                assert contrast(luminance(ink), paper) >= least, ink


PROBE = """
onload = () => {
  const frame = document.getElementById('phone'), at = frame.contentDocument, look = frame.contentWindow;
  const style = e => look.getComputedStyle(e);
  const all = selector => [...at.querySelectorAll(selector)];
  const drawn = all('svg').filter(e => e.getBoundingClientRect().width > 300);
  const texts = drawn.flatMap(e => [...e.querySelectorAll('text')].map(text =>
    [parseFloat(style(text).fontSize) * e.getBoundingClientRect().width / e.viewBox.baseVal.width,
     style(text).fill, text.closest('[id*="-label-"]')]));
  document.title = JSON.stringify({
    width: at.documentElement.scrollWidth,
    wide: all('body *').filter(e => !e.closest('.scroll') && !e.closest('svg') &&
      e.getBoundingClientRect().right > 361).map(e => e.tagName),
    shown: drawn.length,
    text: Math.min(...texts.map(text => text[0])),
    dark: look.matchMedia('(prefers-color-scheme: dark)').matches,
    paper: style(at.body).backgroundColor,
    inks: [...new Set([style(at.body).color, ...texts.filter(text => text[2]).map(text => text[1])])],
    soft: [...new Set(all('.soft, figcaption, dt, .best td:first-child').map(e => style(e).color))],
  });
};
"""


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(1, 2, 3)`, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"[0-9]+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
