"""The project's program, as plain `pulumi` runs it on any stack file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from synapse_media import stackfile
from synapse_media.cli import main
from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from synapse_media.errors import SettingsError
from tests.providers.project import ROOT, SERVER, Stack, stack

STORES = "synapse-media:stores"


def _settings(store: Running, bucket: str) -> dict[str, Any]:
    return {
        "provider": "s3_compatible",
        "endpoint": store.endpoint,
        "iam_endpoint": store.iam_endpoint,
        "bucket": bucket,
        "method": "synapse-s3-storage-provider",
        "settle_seconds": 0,
    }


def _set(made: Stack, *arguments: str) -> None:
    made.engine.run(["config", "set", "--stack", made.name, *arguments])


def test_what_is_wrong_in_a_stack_file_is_told_and_no_traceback(tmp_path: Path, embedded_store: Running) -> None:
    made = stack(tmp_path, "bad", {})
    made.path.write_text(f"config:\n  {STORES}:\n    {SERVER}: {{provider: wasabi, bucket: No, region: nowhere}}\n")
    with pytest.raises(EngineError) as refused:
        made.engine.run(["preview", "--stack", "bad"])
    said = str(refused.value)
    assert f"stores.{SERVER}.bucket is 'No'; allowed:" in said
    assert f"stores.{SERVER}.region is 'nowhere'; allowed:" in said
    assert "Traceback" not in said


def test_settings_of_pulumis_own_commands_are_read_by_every_command(
    tmp_path: Path,
    embedded_store: Running,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    environment = {
        "S3_ACCESS_KEY_ID": embedded_store.access_key_id,
        "S3_SECRET_ACCESS_KEY": embedded_store.secret_access_key,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = stack(tmp_path, "by-text", environment)
    monkeypatch.chdir(made.engine.project)
    _set(made, STORES, json.dumps({SERVER: _settings(embedded_store, "by-text-media")}))
    _set(made, "synapse-media:allow", json.dumps([f"{SERVER}/delete-bucket"]))
    assert isinstance(stackfile.read_yaml(made.path)["config"][STORES], str)
    made.up()
    for command in (["diff"], ["up", "--yes"], ["prove"], ["rotate", "--yes"], ["diff"], ["destroy", "--yes"]):
        assert main([command[0], "--stack", "by-text", *command[1:]]) == 0, capfd.readouterr()
    assert stackfile.read_yaml(made.path)["config"][STORES][SERVER]["keys"] == {"active": "b", "retiring": ["a"]}


def test_a_setting_by_path_is_read_and_an_encrypted_one_is_named(tmp_path: Path, embedded_store: Running) -> None:
    made = stack(tmp_path, "by-path", {})
    for name, value in _settings(embedded_store, "by-path-media").items():
        _set(made, "--path", f'{STORES}["{SERVER}"].{name}', str(value))
    assert stackfile.read(made.engine.project, "by-path").stores[SERVER].bucket == "by-path-media"
    made.engine.run(["preview", "--stack", "by-path"])

    _set(made, "--path", "--secret", f'{STORES}["{SERVER}"].bucket', "by-path-media")
    with pytest.raises(SettingsError, match=re.escape(f"{STORES}.{SERVER}.bucket is a `secure:` value; allowed:")):
        stackfile.read(made.engine.project, "by-path")
    with pytest.raises(EngineError) as refused:
        made.engine.run(["preview", "--stack", "by-path"])
    assert f"{STORES} is an object with a `secure:` value in it; allowed: plain text" in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_the_program_gives_its_stores_the_defaults(tmp_path: Path, embedded_store: Running) -> None:
    made = stack(tmp_path, "by-default", {})
    shared = _settings(embedded_store, "by-default-media")
    shared["prefix"] = "taken-away/"
    own = {"bucket": shared.pop("bucket"), "prefix": None}
    config = {STORES: {SERVER: own}, "synapse-media:defaults": shared}
    made.path.write_text(json.dumps({"config": config}), encoding="utf-8")
    steps = made.engine.preview("by-default")["steps"]
    assert any("by-default-media" in json.dumps(step["newState"].get("inputs", {})) for step in steps)
    assert "taken-away" not in json.dumps(steps)

    shared["method"] = "goofy"
    made.path.write_text(json.dumps({"config": config}), encoding="utf-8")
    with pytest.raises(EngineError, match=re.escape("defaults.method is 'goofy'; allowed: ")):
        made.engine.run(["preview", "--stack", "by-default"])
    _set(made, "--path", "--secret", "synapse-media:defaults.access", "least")
    with pytest.raises(EngineError) as refused:
        made.engine.run(["preview", "--stack", "by-default"])
    assert "synapse-media:defaults is an object with a `secure:` value in it; allowed: plain" in str(refused.value)


def test_pulumi_finds_the_locked_versions() -> None:
    """Its pip toolchain installs `requirements.txt`, and nothing where there is none."""
    named = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert named == ["-r requirements.lock"]
    assert (ROOT / "requirements.lock").is_file()


COUNTING = """
import asyncio, atexit, pulumi
from pathlib import Path

made, looked_at = [], []
track, wait = pulumi.Output._track, asyncio.wait

def counted(self):
    made.append(self)
    track(self)

def waiting(futures, **options):
    looked_at.extend(futures)
    return wait(futures, **options)

pulumi.Output._track, asyncio.wait = counted, waiting
atexit.register(lambda: Path("counted").write_text(f"{len(made)} {len(looked_at)}"))
"""


def test_the_program_does_not_wait_for_every_output_again_and_again(tmp_path: Path, embedded_store: Running) -> None:
    """The SDK would look at all outputs that are left each time that one of them is there."""
    made = stack(tmp_path, "waiting", {})
    program = tmp_path / "__main__.py"
    program.write_text(COUNTING + program.read_text())
    names = [f"m{number}.example.com" for number in range(4)]
    made.write({name: _settings(embedded_store, f"waiting-{name[:2]}") for name in names})
    made.engine.preview("waiting")
    outputs, looked_at = map(int, (tmp_path / "counted").read_text().split())
    assert outputs > 400
    assert looked_at < outputs / 4
