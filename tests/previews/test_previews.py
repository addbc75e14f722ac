"""What a preview of each example stack says, from nothing and with no credential at all, as text in review.

`UPDATE_GOLDEN=1 pytest tests/previews` writes it anew. A stack file of one's own that is in the repository is previewed
too, and compared where it has a text here; it needs none. Where the provider has a vendor's plugin, it was made with a
stand-in for it (tests/doubles/), and its first line says so.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from synapse_media import stackfile
from synapse_media.engine.obtain import Toolchain
from synapse_media.engine.session import Engine
from synapse_media.guards import changes
from tests.doubles.vendor_plugin import STAND_INS, install
from tests.providers.project import ROOT

HERE = Path(__file__).parent
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the engine writes a value that is not known yet."""
LABEL = "# made with a stand-in for the vendor's plugin"


def _tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "stacks"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    return [Path(name).name.removeprefix("Pulumi.").removesuffix(".yaml") for name in listed]


def _inputs(preview: Mapping[str, Any]) -> list[str]:
    """What each resource is made from, in full: a paragraph a resource."""
    made = {step["urn"].split("::", 2)[2]: step["newState"].get("inputs") for step in preview["steps"]}
    paragraphs = []
    for kind, inputs in sorted(made.items()):
        shown = {name: value for name, value in _own(inputs or {}).items() if name != "version"}
        if shown:
            text = yaml.safe_dump(shown, width=110).replace(UNKNOWN, "(known once it is made)").strip()
            paragraphs.append(f"{kind.rpartition('$')[2]}\n{text}")
    return paragraphs


def _own(value: Any) -> Any:
    """Without what the engine and a vendor's plugin note for themselves."""
    if isinstance(value, Mapping):
        return {name: _own(item) for name, item in value.items() if not name.startswith("__")}
    return [_own(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", _tracked())
def test_preview_from_nothing(name: str, engine_toolchain: Toolchain) -> None:
    install()
    preview = Engine(ROOT, say=lambda _: None).preview_from_nothing(name)
    # The engine makes what does not depend on one another in any order.
    found = sorted(changes.of_preview(preview), key=lambda change: (change.store, change.kind))
    text = "\n\n".join([changes.in_words(found, changes.warnings(preview)), *_inputs(preview)]) + "\n"
    if any(f":pulumi:providers:{vendor}:" in step["urn"] for step in preview["steps"] for vendor in STAND_INS):
        text = f"{LABEL}\n{text}"
    golden = HERE / f"{name}.txt"
    if stackfile.is_example(name) or golden.exists():
        if os.environ.get("UPDATE_GOLDEN"):
            golden.write_text(text, encoding="utf-8")
        assert text == golden.read_text(encoding="utf-8")
    # And nothing would be refused on the way there.
    assert not changes.refused(found, stackfile.read(ROOT, name).allow)


def test_every_example_has_its_preview_and_every_preview_its_stack() -> None:
    there, tracked = {path.stem for path in HERE.glob("*.txt")}, set(_tracked())
    assert {name for name in tracked if stackfile.is_example(name)} <= there <= tracked
