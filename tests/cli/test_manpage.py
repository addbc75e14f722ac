"""The man page is what the command line says, and roff understands it."""

from __future__ import annotations

import runpy
import shutil
import subprocess

import pytest

from synapse_media.cli.commandline import COMMANDS
from tests.providers.project import ROOT

PAGE = ROOT / "synapse_media/synapse-media.1"


def test_it_is_as_generated() -> None:
    script = runpy.run_path(str(ROOT / "docs/manpage.py"))
    assert PAGE.read_text(encoding="utf-8") == script["page"](), "run: make docs"


def test_every_command_is_in_it() -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed here: the page is not typeset")
    command = [groff, "-man", "-Tascii", "-P-cbou", "-wmac", str(PAGE)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert [name for name in COMMANDS if f"\n   {name}\n" not in done.stdout] == []
    for words in ("--reviewed DIGEST", "synapse-media rotate --stack prod", "3      dangerous changes pending"):
        assert words in done.stdout
