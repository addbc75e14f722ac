"""`list` and `show`: what exists, said without changing anything, on the real engine and the embedded store."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from synapse_media.cli import main
from synapse_media.cli.commandline import parser
from tests.cli.shapes import SCHEMA, answer
from tests.life.conftest import begin as begin  # noqa: PLC0414 - a fixture
from tests.life.life import SERVER, Life
from tests.providers.project import ROOT

SHAPES = Draft7Validator(SCHEMA)


def everything(*places: Path) -> dict[str, str]:
    """A digest of every file that there is."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in places
        for path in sorted(place.rglob("*"))
        if path.is_file() and not {".venv", "__pycache__", "pulumi-home"} & set(path.parts)
    }


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert main(arguments) == 0
    return capfd.readouterr().out


def as_json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    stacks: dict[str, Any] = answer(arguments[0], said(capfd, *arguments, "--json"))["stacks"]
    return stacks


def test_what_exists_is_said_and_nothing_is_changed(
    begin: Callable[[], Life],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    life = begin()
    name, project = life.stack.name, life.stack.engine.project
    life.store()
    (project / "stacks/Pulumi.later.yaml").write_text("config: {synapse-media:stores: {x: {method: nonesuch}}}\n")
    (project / "stacks/Pulumi.wasabi.yaml").write_text("config: {}\n")
    backend = Path(life.stack.engine.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))

    for more in ([], ["--from-nothing"]):
        capfd.readouterr()
        assert main(["diff", "--stack", name, "--json", *more]) == 2
        answer("diff", capfd.readouterr().out)

    # Nothing was made yet: neither is a stack by being looked at.
    before = everything(project, backend)
    listed = as_json(capfd, "list")
    assert listed["later"]["made"] is False
    assert "method" in listed["later"]["fault"]
    assert "wasabi" not in listed
    assert as_json(capfd, "show", "--stack", name)[name]["stores"] == {}
    assert "nothing yet" in said(capfd, "show", "--stack", name)
    assert everything(project, backend) == before

    assert life.command("up", "--yes")[0] == 0
    capfd.readouterr()
    assert main(["rotate", "--stack", name, "--yes", "--json"]) == 0
    assert answer("rotate", capfd.readouterr().out)["stores"][SERVER]["bucket"] == life.bucket
    assert main(["prove", "--stack", name, "--json"]) == 0
    assert answer("prove", capfd.readouterr().out)["proofs"][SERVER]["passed"] is True
    secrets = life.stack.engine.run(["stack", "output", "--json", "--show-secrets", "--stack", name]).stdout
    secret = json.loads(secrets)["store_secrets"][SERVER]["secret_access_key"]
    former, active = sorted(life.keys(), key=lambda key: key == life.stack.outputs().access_key_id)

    # Neither the credential nor the passphrase is here, and the server is not asked.
    for variable in ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "not the one")
    before = everything(project, backend)
    listed = as_json(capfd, "list")[name]
    assert listed["made"] is True
    assert listed["homeservers"][SERVER]["bucket"] == life.bucket
    assert listed["resources"] > 4
    shown = as_json(capfd, "show")
    assert name in shown
    store = shown[name]["stores"][SERVER]
    assert store["keys"] == {active: "active", former: "retiring"}
    assert store["bucket"] == life.bucket
    assert store["finished"] is True
    assert store["proved_at"] >= store["key_created_at"][:10]
    words = said(capfd, "show", "--stack", name)
    assert f"bucket     {life.bucket} at " in words
    assert f"key        {active}, made " in words
    assert f"retiring   {former}, until `synapse-media rotate --finish --confirm --stack {name}`" in words
    assert "proved     20" in words
    assert "failed" not in words
    assert f"{SERVER}: {life.bucket} at s3_compatible" in said(capfd, "list")
    assert secret not in words + json.dumps(shown)
    assert everything(project, backend) == before

    # One of which the stack file is gone is still there.
    life.stack.path.unlink()
    assert as_json(capfd, "list")[name]["file"] is None
    assert as_json(capfd, "show", "--stack", name)[name]["stores"][SERVER]["bucket"] == life.bucket


def test_drift_is_shown_if_asked_for_and_not_what_the_stack_file_changes(
    begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    life = begin()
    name = life.stack.name
    life.store()
    (life.stack.engine.project / "stacks/Pulumi.later.yaml").write_text("config: {}\n")
    assert life.command("up", "--yes")[0] == 0
    assert "drift: none" in said(capfd, "show", "--drift", "--stack", name)

    (policy,) = life.iam.list_user_policies(UserName=life.user)["PolicyNames"]
    life.iam.delete_user_policy(UserName=life.user, PolicyName=policy)
    # Pending, but no drift.
    life.store(abort_days=9)
    assert "Bucket" in life.command("diff")[1]
    shown = as_json(capfd, "show", "--drift")
    assert {change["kind"] for change in shown[name]["drift"]} == {"UserPolicy"}
    assert shown[name]["drift_fault"] == ""
    # Of one that was not made there is none.
    assert "drift" not in shown["later"]
    words = said(capfd, "show", "--drift", "--stack", name)
    assert f"`synapse-media up --refresh --stack {name}` would mend it by" in words
    assert "UserPolicy" in words
    # It was only looked at.
    assert life.iam.list_user_policies(UserName=life.user)["PolicyNames"] == []

    monkeypatch.delenv("S3_SECRET_ACCESS_KEY")
    capfd.readouterr()
    assert main(["show", "--drift", "--json"]) == 1
    found = answer("show", capfd.readouterr().out)["stacks"][name]
    assert found["drift"] is None
    assert "S3_SECRET_ACCESS_KEY" in found["drift_fault"]
    assert found["stores"][SERVER]["bucket"] == life.bucket


def test_an_unknown_stack_is_answered_with_those_there_are(
    begin: Callable[[], Life], capfd: pytest.CaptureFixture[str]
) -> None:
    life = begin()
    capfd.readouterr()
    assert main(["show", "--stack", "nonesuch", "--json"]) == 64
    printed = capfd.readouterr()
    assert life.stack.name in printed.err
    # For programs there is the same as JSON.
    found = answer("error", printed.out)
    assert found["error"]["exit_code"] == 64
    assert life.stack.name in found["error"]["message"]


def test_every_problem_of_a_stack_file_is_told_to_a_program(
    begin: Callable[[], Life], capfd: pytest.CaptureFixture[str]
) -> None:
    life = begin()
    secret = "wJalrXUtnFEMI"
    stores = {SERVER: {**life.settings(), "bukcet": secret, "access": "more"}}
    life.stack.path.write_text(json.dumps({"config": {"synapse-media:stores": stores}}), encoding="utf-8")
    for arguments in (["diff", "--json"], ["diff", "--format", "json"], ["up", "--json"], ["doctor", "--json"]):
        capfd.readouterr()
        assert main([*arguments, "--stack", life.stack.name]) == 1
        printed = capfd.readouterr()
        found = answer("error", printed.out)
        assert {problem["setting"].rpartition(".")[2] for problem in found["error"]["problems"]} == {"bukcet", "access"}
        assert secret not in printed.out + printed.err


def test_every_command_for_programs_has_a_shape() -> None:
    answering = {name for name, command in parser().commands.items() if "--json" in command.format_help()}
    # And what is of any command, or of none alone.
    answers, parts = {"error", "several"}, {"store", "amount", "named", "found"}
    answering |= {f"media-{action}" for action in ("copy", "verify", "free", "restore")}
    answering.remove("media")
    assert answering | answers | parts == set(SCHEMA["definitions"])
    assert {shape["$ref"].rpartition("/")[2] for shape in SCHEMA["anyOf"]} == answering | answers
    for file in (ROOT / "synapse_media/cli").glob("*.py"):
        # The version of the form is in all of them; what `up --review` prints is for `several` alone.
        if file.name != "up.py":
            assert not re.search(r"print\(\s*json\.dumps", file.read_text(encoding="utf-8")), file


def test_the_shapes_tell_what_is_none_of_them() -> None:
    Draft7Validator.check_schema(SHAPES.schema)
    for wrong in ({}, {"stacks": {}}, {"format_version": 1}, {"format_version": 1, "error": {"message": "no"}}):
        assert list(SHAPES.iter_errors(wrong))
