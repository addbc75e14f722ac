"""What `doctor` says of a state: secrets in clear, and a state that it could not read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli.doctor import state_findings
from synapse_media.engine.obtain import Toolchain
from tests.providers.project import Stack, stack
from tests.upgrades.record import HERE, NAME, PASSPHRASE
from tests.upgrades.test_upgrades import RECORDS, restored

SECRET = "hunter2hunter2"


@pytest.fixture(autouse=True)
def passphrase(engine_toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    del engine_toolchain
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)


def imported(folder: Path, record: dict[str, Any]) -> Stack:
    folder.mkdir()
    return restored(folder, record)


def in_clear(value: Any) -> Any:
    """The same with each encrypted secret in clear text, as an object in a key ring."""
    if isinstance(value, list):
        return [in_clear(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "ciphertext" in value:
        return SECRET
    return {
        name: {"a": SECRET} if name in ("secrets", "grants") and "ciphertext" in item else in_clear(item)
        for name, item in value.items()
    }


def encrypted(value: Any, name: str = "") -> Iterator[str]:
    for key, item in value.items() if isinstance(value, dict) else ():
        path = f"{name}.{key}" if name else key
        if isinstance(item, dict) and "ciphertext" in item:
            yield path
        else:
            yield from encrypted(item, path)


@pytest.mark.parametrize("name", ["storj", "digitalocean_spaces_by_token"])
def test_every_secret_of_ours_that_is_in_clear_is_named(name: str, tmp_path: Path) -> None:
    record = json.loads(max(HERE.glob(f"*/{name}.json")).read_text(encoding="utf-8"))
    made = imported(tmp_path / "encrypted", record)
    assert state_findings(made.engine, NAME) == []
    resources = record["state"]["deployment"]["resources"]
    expected = {
        (resource["urn"], path)
        for resource in resources
        for part in ("inputs", "outputs")
        for path in encrypted(resource.get(part, {}))
    }
    assert any("stores." in path for _, path in expected)
    for resource in resources:
        for part in ("inputs", "outputs"):
            if part in resource:
                resource[part] = in_clear(resource[part])
    found = state_findings(imported(tmp_path / "clear", record).engine, NAME)
    assert SECRET not in "\n".join(found)
    assert len(found) == len(expected)
    for urn, path in expected:
        assert any(f" {path}" in line and urn in line for line in found), path


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_what_is_encrypted_is_no_finding(record: Path) -> None:
    class Recorded:
        """An engine that has the record's state."""

        def has_stack(self, _: str) -> bool:
            return True

        def export(self, _: str) -> Any:
            return json.loads(record.read_text(encoding="utf-8"))["state"]

    assert state_findings(Recorded(), NAME) == []  # type: ignore[arg-type]


def test_a_stack_without_a_state_is_no_finding_and_a_state_that_can_not_be_read_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stack(tmp_path, "some", {})
    assert state_findings(made.engine, "another") == []
    made.engine.environment["PULUMI_BACKEND_URL"] = f"file://{tmp_path}/gone"
    [finding] = state_findings(made.engine, "some")
    assert finding.startswith("the state of some could not be searched for secrets: ")
