"""Today's code on states that earlier releases left: no change. How to record one: record.py.

A change that is wanted (a new input, a renamed type) needs an alias or a default that keeps this test as it is.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synapse_media import __version__, changes
from synapse_media.engine.obtain import Toolchain
from tests.providers.project import Stack, stack
from tests.upgrades.record import HERE, NAME, PASSPHRASE

RECORDS = sorted(HERE.glob("*/*.json"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_state_needs_no_change(
    record: Path, tmp_path: Path, engine_toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    found = json.loads(record.read_text(encoding="utf-8"))
    made = restored(tmp_path, found)
    preview = made.engine.preview(NAME)
    assert changes.in_words(changes.of_preview(preview)) == "no changes"
    assert {step["op"] for step in preview["steps"]} == {"same"}


def restored(folder: Path, record: dict[str, object]) -> Stack:
    project = folder / "project"
    project.mkdir()
    made = stack(project, NAME, {})
    made.path.write_text(str(record["stack_file"]), encoding="utf-8")
    state = folder / "state.json"
    state.write_text(json.dumps(record["state"]), encoding="utf-8")
    made.engine.run(["stack", "import", "--stack", NAME, "--file", str(state)])
    return made


def test_this_version_is_recorded() -> None:
    assert __version__ in {record.parent.name for record in RECORDS}


def test_records_hold_no_secret_in_clear() -> None:
    for record in RECORDS:
        text = record.read_text(encoding="utf-8")
        assert '"plaintext"' not in text
        for resource in json.loads(text)["state"]["deployment"]["resources"]:
            for part in ("inputs", "outputs"):
                for name in ("secretAccessKey", "secrets"):
                    assert "ciphertext" in resource.get(part, {}).get(name, {"ciphertext": ""})
