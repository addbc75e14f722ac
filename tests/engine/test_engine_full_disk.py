"""What a full disk leaves of a file backend: found, and put back as it was before."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from synapse_media.engine.session import Engine, EngineError
from tests.engine.helpers import Said

PROGRAM = "name: tiny\nruntime: yaml\n"


@pytest.fixture
def engine(tmp_path: Path, said: Said) -> Engine:
    project = tmp_path / "project"
    project.mkdir()
    (project / "Pulumi.yaml").write_text(PROGRAM)
    (tmp_path / "backend").mkdir()
    return Engine(project, extra={"PULUMI_BACKEND_URL": f"file://{tmp_path}/backend"}, say=said)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where the state of stack `one` is."""
    path = tmp_path / "backend/.pulumi/stacks/tiny/one.json"
    path.parent.mkdir(parents=True)
    return path


def test_a_state_that_was_cut_off_is_put_back(engine: Engine, state: Path, tmp_path: Path) -> None:
    engine.ensure_stack("one")
    whole = engine.export("one")
    # What tests/faults sees pulumi leave behind when it may write no more.
    shutil.copy2(state, state.with_name("one.json.bak"))
    state.write_text(state.read_text()[:-20])
    with pytest.raises(EngineError, match="unexpected end of JSON"):
        engine.has_stack("one")
    assert engine.restore_truncated_states() == ["one"]
    assert engine.has_stack("one")
    assert engine.export("one")["deployment"].get("resources") == whole["deployment"].get("resources")
    assert state.stat().st_mode & 0o777 == 0o600
    assert engine.restore_truncated_states() == []


def test_the_newest_whole_backup_is_taken_where_the_one_beside_it_is_cut_too(
    engine: Engine, state: Path, tmp_path: Path
) -> None:
    whole = json.dumps({"version": 3, "checkpoint": {}})
    backups = tmp_path / "backend/.pulumi/backups/tiny/one"
    backups.mkdir(parents=True, exist_ok=True)
    (backups / "one.1.json").write_text(whole)
    (backups / "one.2.json").write_text(whole[:-1])
    state.with_name("one.json.bak").write_text(whole[:-1])
    state.write_text(whole[:-1])
    attributes = state.with_name("one.json.attrs")
    attributes.write_text("{")
    assert engine.restore_truncated_states() == ["one"]
    assert state.read_text() == whole
    assert not attributes.exists()


def test_half_a_lock_is_nobodys(engine: Engine, tmp_path: Path) -> None:
    lock = tmp_path / "backend/.pulumi/locks/organization/tiny/one/x.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text('{"pid": 1')
    assert engine.unlock_if_dead("one") is True
    assert not lock.exists()


def test_a_lock_that_was_never_put_in_its_place_is_nobodys(engine: Engine, tmp_path: Path) -> None:
    """Pulumi reads it as a lock, for ever: gocloud leaves it where the disk was full."""
    engine.ensure_stack("one")
    lock = tmp_path / "backend/.pulumi/locks/organization/tiny/one/x.json.18ebe95113e91295.tmp"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    with pytest.raises(EngineError, match="unexpected end of JSON input"):
        engine.run(["destroy", "--yes", "--skip-preview", "--stack", "one"])
    # It may be one that is being written.
    os.utime(lock, (time.time() + 60, time.time() + 60))
    assert engine.unlock_if_dead("one") is False
    os.utime(lock, (time.time() - 2, time.time() - 2))
    assert engine.unlock_if_dead("one") is True
    assert not lock.exists()
    engine.run(["destroy", "--yes", "--skip-preview", "--stack", "one"])


def test_what_can_not_be_put_back_is_left(engine: Engine, state: Path) -> None:
    state.write_text("{")
    assert engine.restore_truncated_states() == []
    assert state.read_text() == "{"
