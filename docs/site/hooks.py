"""Hooks of mkdocs: files of the repository outside docs/ that pages link to become part of the site.

The Markdown stays readable where it lies: links are written as they are in the repository, and rewritten here alone.
"""  # noqa: INP001 (mkdocs loads it by its path)

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[2]
_PROJECT = "project"
"""Where in the site the repository's files outside docs/ are."""
_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md")
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the project's own pages, and every other file that a page links to."""
    for page in _PAGES:
        text = (_ROOT / page).read_text(encoding="utf-8")
        files.append(File.generated(config, f"{_PROJECT}/{page}", content=text))
    for file in tuple(files.documentation_pages()):
        for link in _LINK.finditer(file.content_string):
            target = _target(link[1], file.src_uri)
            # A page that is not among _PAGES is not added, so that the strict build names the link.
            if target and not target.startswith("docs/") and not target.endswith(".md"):
                place = f"{_PROJECT}/{target}"
                if files.get_file_from_path(place) is None and (_ROOT / target).is_file():
                    files.append(File.generated(config, place, abs_src_path=str(_ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links that leave docs/, or that lead into it from outside."""

    def rewritten(link: re.Match[str]) -> str:
        target = _target(link[1], page.file.src_uri)
        if not target:
            return link[0]
        place = _place(target)
        return posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".") + (link[2] or "")

    return _LINK.sub(rewritten, markdown)


def _target(link: str, page: str) -> str:
    """The path in the repository that a page's link leads to; "" where it leads elsewhere."""
    if re.match(r"[a-z][a-z0-9+.-]*:|/", link):
        return ""
    source = page.removeprefix(f"{_PROJECT}/") if page.startswith(f"{_PROJECT}/") else f"docs/{page}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(link)))
    if (_ROOT / target).is_dir():
        target = posixpath.join(target, "README.md")
    return target if os.path.lexists(_ROOT / target) else ""


def _place(target: str) -> str:
    """Where in the site a file of the repository is."""
    return target.removeprefix("docs/") if target.startswith("docs/") else f"{_PROJECT}/{target}"
