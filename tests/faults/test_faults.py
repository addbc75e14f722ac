"""A few faults of each sort, in every run of the tests; `make faults` tries a hundred."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import __main__ as faults
from tests.faults import trial
from tests.faults import world as worlds
from tests.faults.__main__ import walk
from tests.faults.trial import Trial
from tests.faults.world import BrokenError, World, world


@pytest.fixture
def here(tmp_path: Path, own_directories: Path) -> Iterator[World]:
    with world(tmp_path, "short") as new:
        yield new


def test_a_life_full_of_faults(here: World, own_directories: Path) -> None:
    trials = [
        Trial("up", "kill engine", 19, 0.0, 1),
        Trial("rotate", "lost answer", 6, 0.0, 1),
        Trial("finish", "kill plugin", 3, 0.0, 1),
        Trial("destroy", "server gone", 2, 0.0, 1),
    ]
    told: list[tuple[str, str]] = []
    walk(here, trials, lambda one, how: told.append((one.kind, how.partition(",")[0])))
    assert told == [(one.kind, "survived") for one in trials]
    secrets = here.issued
    # The first, that of the rotation, and one made again after the destroy.
    assert len(secrets) >= 3
    places = [*own_directories.rglob("*"), *here.stack.engine.project.rglob("*"), *here.logs.rglob("*")]
    for path in places:
        # The server's own account data is the one place where a secret must be.
        if path.is_file() and "embedded" not in path.parts and ".venv" not in path.parts:
            content = path.read_bytes()
            assert not [path for secret in secrets if secret.encode() in content]


@pytest.mark.parametrize("action", sorted(trial.ACTIONS))
def test_a_seed_finds_the_same_moment_again(action: str) -> None:
    assert trial.draw("seed/7", action) == trial.draw("seed/7", action)
    assert len({trial.draw(f"seed/{number}", action) for number in range(20)}) > 10


def test_a_command_that_does_not_end_is_ended_and_is_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, nobody_writes = tmp_path / "command", tmp_path / "fifo"
    os.mkfifo(nobody_writes)
    command.write_text(f'#!/bin/sh\nexec cat "{nobody_writes}"\n')
    command.chmod(0o700)
    monkeypatch.setattr(worlds, "COMMAND", command)
    monkeypatch.setattr(worlds, "PATIENCE", 0.1)
    fields: Any = {"stack": SimpleNamespace(name="s", engine=SimpleNamespace(project=tmp_path)), "store": None}
    with pytest.raises(BrokenError, match="did not end within"):
        World(**fields, store_name="", proxies={}, bucket="", logs=tmp_path).run("up")


def test_whatever_breaks_is_counted_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def nothing(*_: object) -> Iterator[None]:
        yield

    def fails(_: object, trial: Trial) -> bool:
        raise ConnectionError("the store can't be asked")

    monkeypatch.setattr(faults, "world", nothing)
    monkeypatch.setattr(faults, "attempt", fails)
    assert faults.main(["-n", "3", "--seed", "seed"]) == 1
    printed = capsys.readouterr().out
    kinds = [trial.draw(f"seed/{number}", "up").kind for number in range(3)]
    for kind in trial.KINDS:
        count = kinds.count(kind)
        assert f"{kind}: {count} tried, 0 survived, {count} broken; 0 missed" in printed
    assert "0 survived, 3 broken; seed seed" in printed
    assert "the store can't be asked" in printed
