"""The program of docs/library.md passes a type checker, as whoever copies it may run one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_program_of_the_guide_is_typed(tmp_path: Path) -> None:
    text = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    _, found, rest = text.partition("In the program, `__main__.py`, a store is a component like any other:\n")
    assert found
    program = textwrap.dedent(rest.partition("\n`publish` exports")[0])
    # In a wheel the components are in the package; here they are next to it.
    program = program.replace("synapse_media.components", "components")
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", str(path)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
