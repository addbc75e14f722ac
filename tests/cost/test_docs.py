"""Every number of docs/choosing.md is printed by the tool, and printed again here."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "choosing.md"
BLOCK = re.compile(r"<!-- synapse-media (cost .*?) -->\n(.*?)<!-- end -->", re.DOTALL)


def test_the_page_is_as_the_tool_prints_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    updated = runpy.run_path(str(DOCS / "update.py"))["updated"]
    assert updated(text) == text, "run: python docs/update.py"


def test_every_cost_has_its_date_and_every_block_its_table() -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 5
    for command, printed in blocks:
        assert "--fit" in command or "--date 2026-" in command, command
        assert printed.count("| --- |") >= 1


def test_no_price_stands_outside_the_blocks() -> None:
    prose = BLOCK.sub("", PAGE.read_text(encoding="utf-8")).split("## Prices of your own")[0]
    assert not re.search(r"[$€] ?[0-9]|[0-9] ?(USD|EUR|dollars|cents|[$€])", prose)


def test_a_page_out_of_date_is_updated(tmp_path: Path) -> None:
    page = Path(shutil.copy(PAGE, tmp_path / "page.md"))
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("| Wasabi | ", "| Wasabi | 9"), encoding="utf-8")
    command = [sys.executable, str(DOCS / "update.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DOCS.parent)
    assert "updated" in done.stdout
    assert page.read_text(encoding="utf-8") == text
