"""A few faults of each sort, in every run of the tests; `make faults` tries a hundred."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse_media.cli import checkpoints
from synapse_media.renderer import inventory_host
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


KILLED = (
    Trial("up", "kill engine", 19, 0.0, 1),
    Trial("rotate", "lost answer", 6, 0.0, 1),
    Trial("finish", "kill plugin", 3, 0.0, 1),
    Trial("destroy", "server gone", 2, 0.0, 1),
)
DISTURBED = (
    Trial("up", "disk full", 19, 0.0, 8000),
    Trial("rotate", "kill host", 4, 0.0, 1),
    Trial("finish", "truncated", 3, 0.0, 1),
    Trial("destroy", "clock skew", 2, 0.0, 1),
)
EDITED = (
    Trial("up", "terminate", 19, 0.0, 1),
    Trial("rename", "kill engine", 8, 0.0, 1),
    Trial("endpoint", "kill command", 12, 0.0, 1),
    Trial("bucket", "kill engine", 30, 0.0, 1),
    Trial("region", "kill plugin", 12, 0.0, 1),
    Trial("destroy", "hang up", 2, 0.0, 1),
)

AT_END = (
    Trial("up", "kill engine", 44, 0.2, 1),
    Trial("rotate", "kill engine", 26, 0.1, 1),
    Trial("finish", "kill command", 8, 0.0, 1),
    Trial("destroy", "kill engine", 5, 0.0, 1),
)
"""For a state that is written at the end of a run only."""


@pytest.mark.parametrize(
    ("trials", "saved"),
    [(KILLED, ""), (DISTURBED, ""), (EDITED, ""), (AT_END, "at-end")],
    ids=["killed", "disturbed", "edited", "at-end"],
)
def test_a_life_full_of_faults(
    trials: tuple[Trial, ...],
    saved: str,
    here: World,
    own_directories: Path,
    tmp_path: Path,
) -> None:
    # In a home of the user's own the engine writes logs, which are searched too.
    here.environment = {checkpoints.VARIABLE: saved, "PULUMI_HOME": str(tmp_path / "pulumi-home")}
    told: list[tuple[str, str]] = []
    rendered: dict[Path, str] = {}

    def tell(one: Trial, how: str) -> None:
        told.append((one.kind, how.partition(",")[0]))
        if one.action in ("rotate", "destroy"):
            out = tmp_path / f"rendered-{len(told)}"
            code, said = here.run("render", "--out", str(out))
            assert code == 0, said
            name = here.first.name
            rendered[out / name] = here.stack.outputs(name).secret_access_key

    walk(here, list(trials), tell)
    assert told == [(one.kind, "survived") for one in trials]
    secrets = {*here.issued, here.store.secret_access_key}
    # Among them are those that were retired, and those that nobody ever received.
    assert here.issued > set(rendered.values())
    places = [*own_directories.rglob("*"), *tmp_path.rglob("*")]
    # The server's own account data is the one other place where a secret must be.
    files = [path for path in places if path.is_file() and not {"embedded", ".venv"} & set(path.parts)]
    assert {"stacks", "backups", "history", "logs"} <= {part for path in files for part in path.parts}
    found = {path: {one for one in secrets if one.encode() in path.read_bytes()} for path in files}
    assert {path: held for path, held in found.items() if held} == {
        place / name: {active}
        for place, active in rendered.items()
        for name in ("store.json", f"inventory/host_vars/{inventory_host(place.name)}/synapse-media.yml")
    }


@pytest.mark.parametrize("action", sorted(trial.ACTIONS))
def test_a_seed_finds_the_same_moment_again(action: str) -> None:
    assert trial.draw("seed/7", action) == trial.draw("seed/7", action)
    assert len({trial.draw(f"seed/{number}", action) for number in range(20)}) > 10


def test_every_action_comes_in_some_life_and_each_begins_and_ends() -> None:
    lives = [trial.life(f"seed/{number}") for number in range(50)]
    assert {action for life in lives for action in life} == set(trial.ACTIONS)
    assert {(life[0], life[-1]) for life in lives} == {("up", "destroy")}
    assert trial.life("seed/7") == lives[7]


def test_a_command_that_does_not_end_is_ended_and_is_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, nobody_writes = tmp_path / "command", tmp_path / "fifo"
    os.mkfifo(nobody_writes)
    command.write_text(f'#!/bin/sh\nexec cat "{nobody_writes}"\n')
    command.chmod(0o700)
    monkeypatch.setattr(worlds, "COMMAND", command)
    monkeypatch.setattr(worlds, "PATIENCE", 0.1)
    fields: Any = {"stack": SimpleNamespace(name="s", engine=SimpleNamespace(project=tmp_path)), "store": None}
    with pytest.raises(BrokenError, match="did not end within"):
        World(**fields, store_name="", proxies={}, stores=[], logs=tmp_path).run("up")


def test_what_would_strike_after_the_command_ended_does_not() -> None:
    methods = ("behave", "edit", "held", "write", "recover", "settled", "still_works")
    fields = dict.fromkeys(methods, lambda *_, **__: None)
    world: Any = SimpleNamespace(**fields, start=lambda *_: subprocess.Popen(["true"]))
    assert trial.attempt(world, Trial("up", "server gone", 0, 60.0, 1)) is False
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]


def test_whatever_breaks_is_counted_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def nothing(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace()

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
