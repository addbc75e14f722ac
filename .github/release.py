"""The notes of a release, as CHANGELOG.md has them, once the tag, the version and the changelog agree.

    python3 .github/release.py v1.2.3

Needs nothing but Python. Exit code 1: they don't agree; what to mend is on standard error.
"""  # noqa: INP001 (a script, not a package)

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""https://keepachangelog.com/en/1.1.0/"""


class ReleaseError(Exception):
    """Why this can't be released."""


def sections(changelog: str) -> dict[str, str]:
    """The changelog's text by the heading of each release: "Unreleased", or "1.2.3 - 2026-01-31"."""
    parts = re.split(r"^## (.+)$", changelog, flags=re.MULTILINE)
    return {
        heading.replace("[", "").replace("]", "").strip(): text.strip()
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def faults(changelog: str) -> list[str]:
    """What is not in the form of Keep a Changelog."""
    found = []
    headings = list(sections(changelog))
    if headings[:1] != ["Unreleased"]:
        found.append("the first section is not [Unreleased]")
    for heading in headings[1:]:
        try:
            version, day = heading.split(" - ")
            date.fromisoformat(day)
        except ValueError:
            version = ""
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            found.append(f"'## {heading}' is not of the form '## [1.2.3] - 2026-01-31'")
    found += [
        f"'### {kind}' in {heading}; allowed: {', '.join(KINDS)}"
        for heading, text in sections(changelog).items()
        for kind in re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
        if kind not in KINDS
    ]
    return found


def notes(tag: str, version: str, changelog: str) -> str:
    """The notes of the release that a tag names. Raises ReleaseError."""
    if tag != f"v{version}":
        raise ReleaseError(
            f"the tag is {tag!r}, the version {version!r}: set __version__ to the tag's, or tag v{version}"
        )
    if wrong := faults(changelog):
        raise ReleaseError(f"CHANGELOG.md: {'; '.join(wrong)}")
    found = sections(changelog)
    if found["Unreleased"]:
        raise ReleaseError(f"CHANGELOG.md has entries under [Unreleased]: move them under [{version}]")
    text = next((text for heading, text in found.items() if heading.startswith(f"{version} - ")), "")
    if not text:
        raise ReleaseError(f"CHANGELOG.md has nothing under '## [{version}] - <date>'")
    return f"{text}\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: release.py TAG", file=sys.stderr)
        return 64
    source = (ROOT / "synapse_media/__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)
    try:
        print(notes(arguments[0], version, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), end="")
    except ReleaseError as error:
        print(f"release.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
