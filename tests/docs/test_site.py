"""The documentation: generated pages are current, links lead somewhere, the site builds strictly and can be read."""

from __future__ import annotations

import html
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from synapse_media import contract, settings
from synapse_media.cli import commandline
from synapse_media.errors import SettingsError, SynapseMediaError
from tests.cost.test_pictures import contrast, luminance

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES: dict[str, Any] = runpy.run_path(str(DOCS / "pages.py"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """The links, the loaded files and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.anchors.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(found["href"])


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(site),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", place)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}


class TestGenerated:
    @pytest.mark.parametrize("name", PAGES["PAGES"])
    def test_a_page_is_the_one_that_follows(self, name: str) -> None:
        assert (DOCS / name).read_text(encoding="utf-8") == PAGES["PAGES"][name](), "run `make docs`"

    def test_the_pictures_of_cost_are_those_that_follow(self) -> None:
        drawn = PAGES["pictures"]()
        assert len(drawn) == 3
        # Beside them lies what was measured, which does not follow from the code.
        assert {name: (DOCS / "pictures" / name).read_text(encoding="utf-8") for name in drawn} == drawn

    def test_every_command_and_option_is_in_the_reference(self) -> None:
        text = (DOCS / "reference/commands.md").read_text(encoding="utf-8")
        for name, command in commandline.parser().commands.items():
            (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
            for option in set(command._option_string_actions) - {"-h", "--help", "-C", "--cwd", "-v", "--verbose"}:
                assert option in section, (name, option)

    def test_a_message_that_was_raised_is_found(self) -> None:
        """What a user sees matches an entry, in which `…` stands for what is filled in."""
        text = (DOCS / "reference/errors.md").read_text(encoding="utf-8")
        entries = re.findall(r"^- (?:`` (.*?) ``|`([^`]*)`)", text, re.MULTILINE)
        patterns = [re.escape(one or other).replace("…", ".*") for one, other in entries]
        assert len(patterns) > 200
        for message in raised():
            assert any(re.match(pattern, message) for pattern in patterns if len(pattern) > 12), message

    def test_no_message_says_nothing(self) -> None:
        for path, message in PAGES["raised"]():
            assert len(re.findall(r"[A-Za-z]{2,}", message)) >= 2, (path, message)


def raised() -> Iterator[str]:
    """Messages of three parts, as they reach a user."""
    outputs = contract.StorageOutputs(
        server_name="example.com",
        provider="wasabi",
        method="goofys",
        access="least",
        bucket="media",
        region="eu-central-1",
        endpoint_url="https://s3.eu-central-1.wasabisys.com",
        access_key_id="A",
        secret_access_key="B",
    )
    with pytest.raises(SynapseMediaError) as unproved:
        outputs.require_proof()
    yield str(unproved.value)
    with pytest.raises(SynapseMediaError) as foreign:
        contract.from_json({"version": 99})
    yield str(foreign.value)
    with pytest.raises(SettingsError) as wrong:
        settings.parse({"example.com": {"provider": "wasabi", "bucket": "example-com-media", "abort_days": "x"}})
    for problem in wrong.value.problems:
        yield str(problem).replace(" is missing;", " is …;")


class TestPlainFiles:
    LINK = re.compile(r"\]\(([^)\s]+)\)")

    def sources(self) -> list[Path]:
        return [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]

    def test_links_lead_to_files_and_headings(self) -> None:
        for source in self.sources():
            for link in self.LINK.findall(source.read_text(encoding="utf-8")):
                if re.match(r"[a-z]+:", link):
                    continue
                name, _, anchor = link.partition("#")
                target = (source.parent / unquote(name)).resolve() if name else source
                assert target.exists(), (source.name, link)
                assert not anchor or anchor in self.headings(target), (source.name, link)

    def headings(self, page: Path) -> set[str]:
        """The anchors of a page, as forges make them."""
        titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}

    def test_every_thread_has_an_entry_with_advice(self) -> None:
        """An entry without a link is about our own settings; the others name the thread they answer."""
        text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
        entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
        assert len(entries) >= 25
        assert all("https://github.com/" in entry or "](" in entry for entry in entries)
        threads = re.findall(r"https://github\.com/([^/]+/[^/]+/(?:issues|pull)/\d+)\)", text)
        assert len(threads) == len(set(threads)) >= 75


class TestSite:
    def test_links_and_anchors(self, site: Path, pages: dict[Path, Page]) -> None:
        assert len(pages) >= 45
        for path, page in pages.items():
            for link in (*page.links, *page.loads):
                parts = urlsplit(link)
                if parts.scheme:
                    continue
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                assert target.is_relative_to(site), (path, link)
                target = target / "index.html" if target.is_dir() else target
                assert target.is_file(), (path, link)
                if parts.fragment and target.suffix == ".html":
                    assert unquote(parts.fragment) in pages[target].anchors, (path, link)

    def test_nothing_is_loaded_from_elsewhere(self, site: Path, pages: dict[Path, Page]) -> None:
        for path, page in pages.items():
            assert not [link for link in page.loads if urlsplit(link).scheme or link.startswith("//")], path
        for sheet in site.rglob("*.css"):
            assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet

    def test_no_script_or_source_of_the_build_is_published(self, site: Path) -> None:
        assert not list(site.glob("*.py"))
        assert not list((site / "site").glob("*.py"))

    def test_a_broken_link_or_anchor_fails(self, tmp_path: Path) -> None:
        shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"):
            shutil.copy(ROOT / name, tmp_path)
        for name in ("examples", "synapse_media/cli/shapes.schema.json", "synapse_media/stack-file.schema.json"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
        with (tmp_path / "docs/day-two.md").open("a", encoding="utf-8") as page:
            page.write("\n[gone](gone.md), [nowhere](changes.md#nowhere), [outside](../gone.md)\n")
        done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
        assert done.returncode == 1
        for named in ("'gone.md'", "#nowhere", "'../gone.md'"):
            assert named in done.stderr
        assert len(re.findall(r"^WARNING", done.stderr, re.MULTILINE)) == 3, done.stderr


class TestInABrowser:
    """In a frame as wide as the screen, over HTTP, as a reader has it; its own script tells what came out."""

    @pytest.fixture
    def address(self, site: Path) -> Iterator[tuple[str, Path]]:
        handler = partial(_Quiet, directory=str(site))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}", site
            server.shutdown()
            thread.join()

    @pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH; the other tests check links and files")
    @pytest.mark.parametrize("screen", [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")], ids=str)
    def test_pages_fit_and_have_contrast(
        self, pages: dict[Path, Page], address: tuple[str, Path], tmp_path: Path, screen: tuple[int, str]
    ) -> None:
        assert CHROMIUM
        width, scheme = screen
        url, site = address
        # Those with the most in them; in the other widths and colours one of each kind.
        names = [
            path.relative_to(site).as_posix() for path in sorted(pages, key=lambda path: -path.stat().st_size)[:14]
        ]
        if screen != (360, "light"):
            names = ["index.html", "how-it-works.html", "reference/catalog.html"]
        (site / "probe.html").write_text(
            f'<iframe id="screen" style="width:{width}px;height:800px;border:0"></iframe>'
            f"<script>const names = {json.dumps(names)};{PROBE}</script>",
            encoding="utf-8",
        )
        done = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=1400,900",
                "--virtual-time-budget=60000",
                "--dump-dom",
                f"{url}/probe.html",
            ],
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        (site / "probe.html").unlink()
        title = re.search(r"<title>(.*?)</title>", done.stdout)
        assert title is not None, done.stdout[:2000]
        seen = json.loads(html.unescape(title[1]))
        assert list(seen) == names
        for name, page in seen.items():
            assert page["width"] <= width, (name, page["wide"])
            assert page["scheme"] == ("default" if scheme == "light" else "slate"), name
            assert page["search"], name
            paper = luminance(page["paper"])
            assert (paper < 0.05) == (scheme == "dark"), name
            # WCAG AA.
            for ink in page["inks"]:
                assert contrast(luminance(ink), paper) >= 4.5, (name, ink)


class _Quiet(SimpleHTTPRequestHandler):
    """Serves the site without a word on each request."""

    def log_message(self, *arguments: object) -> None:
        pass


PROBE = """
const seen = {}, frame = document.getElementById('screen');
const look = name => new Promise(done => {
  frame.onload = () => setTimeout(() => {
    const at = frame.contentDocument, style = e => frame.contentWindow.getComputedStyle(e);
    const all = selector => [...at.querySelectorAll(selector)];
    const width = at.documentElement.clientWidth;
    seen[name] = {
      width: at.documentElement.scrollWidth,
      wide: all('article *').filter(e => e.getBoundingClientRect().right > width + 1)
        .slice(0, 5).map(e => e.outerHTML.slice(0, 200)),
      scheme: at.body.dataset.mdColorScheme,
      search: all('.md-search').length === 1,
      paper: style(at.body).backgroundColor,
      inks: [...new Set(all('article p, article li, article td, article h1, article a[href]:not(.headerlink)')
        .map(e => style(e).color))],
    };
    done();
  }, 400);
  frame.src = name;
});
onload = async () => {
  for (const name of names) await look(name);
  document.title = JSON.stringify(seen);
};
"""
