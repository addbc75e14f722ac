"""What a preview of each example stack says, from nothing and with no credential at all, as text in review.

`UPDATE_GOLDEN=1 pytest tests/previews` writes it anew. Where the provider has a vendor's plugin, it was made with a
stand-in for it (tests/doubles/), and its first line says so.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from synapse_media import changes, stackfile
from synapse_media.engine.obtain import Toolchain
from synapse_media.engine.session import Engine
from tests.doubles import vendor_plugin
from tests.providers.project import ROOT

HERE = Path(__file__).parent
LABEL = "# made with a stand-in for the vendor's plugin"


def _tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "stacks"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    return [Path(name).name.removeprefix("Pulumi.").removesuffix(".yaml") for name in listed]


@pytest.mark.parametrize("name", _tracked())
def test_preview_from_nothing(name: str, engine_toolchain: Toolchain) -> None:
    vendor_plugin.install()
    preview = Engine(ROOT, say=lambda _: None).preview_from_nothing(name)
    # The engine makes what does not depend on one another in any order.
    found = sorted(changes.of_preview(preview), key=lambda change: (change.store, change.kind))
    lines = [changes.in_words(found, changes.warnings(preview))]
    if any(
        f":pulumi:providers:{name}:" in step["urn"] for step in preview["steps"] for name in vendor_plugin.STAND_INS
    ):
        lines.insert(0, LABEL)
    golden = HERE / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert "\n".join(lines) + "\n" == golden.read_text(encoding="utf-8")
    # And nothing would be refused on the way there.
    assert not changes.refused(found, stackfile.read(ROOT, name).allow)


def test_every_preview_is_of_a_stack() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(_tracked())
