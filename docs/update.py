"""Update the generated blocks of a docs page, between `<!-- synapse-media cost … -->` and `<!-- end -->`.

The first marker is the command whose output the block holds. Usage: python docs/update.py [PAGE …]
"""  # noqa: INP001 (a script, not a package)

from __future__ import annotations

import io
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

from synapse_media.cli import main

PAGES = (Path(__file__).parent / "choosing.md",)

_BLOCK = re.compile(r"<!-- synapse-media (cost [^>]*?) -->\n.*?<!-- end -->", re.DOTALL)


def updated(text: str) -> str:
    """The page with every block generated again."""
    return _BLOCK.sub(_block, text)


def _block(found: re.Match[str]) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = main(shlex.split(found[1]))
    if code:
        raise SystemExit(f"synapse-media {found[1]}: exit code {code}")
    return f"<!-- synapse-media {found[1]} -->\n{printed.getvalue().strip()}\n<!-- end -->"


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:] or PAGES):
        before = page.read_text(encoding="utf-8")
        after = updated(before)
        page.write_text(after, encoding="utf-8")
        print(f"{page}: {'unchanged' if after == before else 'updated'}")
