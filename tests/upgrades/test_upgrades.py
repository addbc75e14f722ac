"""Today's code on states that earlier releases left: no change but those of MIGRATIONS. How to record one: record.py.

A change that is wanted (a new input, a renamed type) needs an alias or a default that keeps this test as it is; one
that CHANGELOG.md announces is in MIGRATIONS, in the words of a preview. What a record was made on is its `made_on`:
where that is a stand-in for a vendor's plugin, the same stand-in previews it here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synapse_media import __version__
from synapse_media.engine.obtain import Toolchain
from synapse_media.guards import changes
from tests.doubles.vendor_plugin import STAND_INS, install
from tests.providers.project import Stack, stack
from tests.upgrades.record import HERE, NAME, PASSPHRASE, PLACEHOLDER, PLACES

RECORDS = {f"{path.parent.name}-{path.stem}": path for path in sorted(HERE.glob("*/*.json"))}
SECRET = re.compile(r"secret|token|password", re.IGNORECASE)
OF_A_MACHINE = re.compile(r"/(home|root|tmp|Users|var|opt|private)/")

of_each = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)


def _read(record: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return found


_NARROWER = {
    ("update", "UserPolicy of goofys.example.com"),
    ("update", "Proof of goofys.example.com"),
    ("update", "UserPolicy of repo.example.com"),
    ("update", "Proof of repo.example.com"),
}
_PROVED_AGAIN = {("update", "Proof of goofys.example.com")}
MIGRATIONS: dict[str, set[tuple[str, str]]] = {
    # Goofys and matrix-media-repo lose leave that they never used; the proof is made again for what they have.
    "0.1.0-embedded": _NARROWER,
    # Where policies have no part in it, only what the proof asks changes.
    "0.1.0-digitalocean_spaces": _PROVED_AGAIN,
    "0.1.0-digitalocean_spaces_by_token": _PROVED_AGAIN,
    "0.1.0-garage": _PROVED_AGAIN,
}
"""{record: (verb, what) of each change of its preview}; a record that is not here needs no change."""
_DROPPED = {"s3:GetBucketLocation", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"}


@of_each
def test_a_recorded_state_needs_no_change_but_what_the_changelog_announces(
    record: Path, tmp_path: Path, engine_toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no server to ask, and no credential; nothing of it is a danger, so `up` needs no word in `allow`."""
    install()
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    preview = restored(tmp_path, _read(record)).engine.preview(NAME)
    found = changes.of_preview(preview)
    wanted = MIGRATIONS.get(f"{record.parent.name}-{record.stem}", set())
    assert {(change.verb, f"{change.kind} of {change.store}") for change in found} == wanted
    assert {step["op"] for step in preview["steps"]} == ({"same", "update"} if wanted else {"same"})
    assert [danger for change in found for danger in change.dangers] == []
    for step in preview["steps"]:
        if step["op"] == "update" and "UserPolicy" in step["urn"]:
            was, will = (_actions(step[state]["inputs"]["policy"]) for state in ("oldState", "newState"))
            assert will < was
            assert was - will <= _DROPPED


def _actions(policy: str) -> set[str]:
    return {action for statement in json.loads(policy)["Statement"] for action in statement["Action"]}


def restored(folder: Path, record: dict[str, Any]) -> Stack:
    project = folder / "project"
    project.mkdir()
    made = stack(project, NAME, dict.fromkeys(record["placeholders"], PLACEHOLDER))
    made.path.write_text(record["stack_file"], encoding="utf-8")
    state = folder / "state.json"
    state.write_text(json.dumps(record["state"]), encoding="utf-8")
    made.engine.run(["stack", "import", "--stack", NAME, "--file", str(state)])
    return made


def test_this_version_is_recorded() -> None:
    assert {f"{__version__}-{name}" for name in PLACES} <= set(RECORDS)


def _secrets(value: Any) -> Iterator[Any]:
    """What is named like a secret, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from _secrets(item)
    elif isinstance(value, dict) and "ciphertext" not in value:
        for name, item in value.items():
            if SECRET.search(name):
                yield item
            else:
                yield from _secrets(item)


@of_each
def test_a_record_holds_no_secret_in_clear_and_no_path_of_a_machine(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert '"plaintext"' not in text
    assert not OF_A_MACHINE.search(text)
    resources = _read(record)["state"]["deployment"]["resources"]
    parts = [resource.get(part, {}) for resource in resources for part in ("inputs", "outputs")]
    found = [secret for secret in _secrets(parts) if secret != ""]
    assert found
    assert all("ciphertext" in secret for secret in found)


@of_each
def test_a_record_says_what_it_was_made_on(record: Path) -> None:
    found = _read(record)
    kinds = {resource["type"] for resource in found["state"]["deployment"]["resources"]}
    vendors = {f"pulumi:providers:{name}" for name in STAND_INS}
    assert found["made_on"]
    assert ("stand-in" in found["made_on"]) == bool(kinds & vendors)
