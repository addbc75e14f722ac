"""The recipe and the workflows that preview a pull request: run, and linted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from synapse_media.engine.obtain import Toolchain
from tests.end_to_end.built import go_program
from tests.life.conftest import begin as begin  # noqa: PLC0414 - a fixture
from tests.life.life import Life
from tests.providers.project import ROOT

HERE = Path(__file__).parent
WORKFLOWS = ROOT / ".github/workflows"


def recipe(project: Path, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    (project / "ci").mkdir(exist_ok=True)
    script = project / "ci/preview.sh"
    script.write_text((ROOT / "ci/preview.sh").read_text(encoding="utf-8"), encoding="utf-8")
    script.chmod(0o755)
    return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)


def bare(**more: str) -> dict[str, str]:
    """What a build without any secret has."""
    kept = ("PATH", "HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR")
    # A secret that is missing is an empty variable there.
    empty = dict.fromkeys(("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "AWS_ACCESS_KEY_ID"), "")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **empty, **more}


def test_the_recipe(begin: Callable[[], Life], engine_toolchain: Toolchain) -> None:
    life = begin()
    life.store()
    project = life.stack.engine.project
    (project / "stacks/Pulumi.broken.yaml").write_text("config: {synapse-media:stores: {x: {method: nonesuch}}}\n")
    # A fork: no state, no passphrase, no credential.
    done = recipe(project, life.stack.name, environment=bare())
    assert done.returncode == 2, done.stderr
    assert "From nothing" in done.stdout
    assert "create Bucket" in done.stdout
    assert (project / f"out/preview/{life.stack.name}.md").read_text() in done.stdout
    # With them, once the store is there: nothing to say, and no section.
    assert life.command("up", "--yes")[0] == 0
    engine = life.stack.engine.environment
    state = bare(
        PULUMI_BACKEND_URL=engine["PULUMI_BACKEND_URL"],
        PULUMI_CONFIG_PASSPHRASE_FILE=engine["PULUMI_CONFIG_PASSPHRASE_FILE"],
    )
    done = recipe(project, life.stack.name, environment=state)
    assert (done.returncode, done.stdout) == (0, "No stack would change.\n"), done.stderr
    assert list((project / "out/preview").iterdir()) == []
    # A danger, and beside it one that can't be previewed: that counts more. Every stack file, where none is named.
    life.store(bucket=f"{life.bucket}-2", user=life.user)
    assert recipe(project, life.stack.name, environment=state).returncode == 3
    done = recipe(project, environment=state)
    assert done.returncode == 1
    assert "[!CAUTION]" in done.stdout
    assert "no preview" in done.stdout
    assert "nonesuch" in done.stdout
    secrets = life.stack.engine.run(["stack", "output", "--json", "--show-secrets", "--stack", life.stack.name]).stdout
    assert yaml.safe_load(secrets)["store_secrets"]["matrix.example.com"]["secret_access_key"] not in done.stdout


@pytest.mark.parametrize("arguments", [["--refresh"], ["--nonesuch"]])
def test_the_recipe_refuses_what_it_can_not_do(tmp_path: Path, arguments: list[str]) -> None:
    done = recipe(tmp_path, *arguments, environment=bare())
    assert done.returncode == 64
    assert "ci/preview.sh: " in done.stderr


def test_workflows_are_lint_free() -> None:
    actionlint = go_program(HERE / "actionlint", "github.com/rhysd/actionlint/cmd/actionlint")
    files = sorted(WORKFLOWS.glob("*.yml"))
    assert {file.stem for file in files} >= {"preview", "drift"}
    # Other linters are used where somebody has them, or nobody could say what was checked.
    done = subprocess.run(
        [actionlint, "-no-color", "-shellcheck=", "-pyflakes=", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_project_of_ones_own_has_the_same_workflow() -> None:
    """But for how its environment is made and where the program that comments lies."""
    own = (ROOT / ".github/workflows/preview.yml").read_text(encoding="utf-8")
    for here, there in (
        ("run: make setup", "run: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
        (".venv/bin/python ci/comment.py", ".venv/bin/python -m synapse_media.ci.comment"),
    ):
        assert own.count(here) == 1
        own = own.replace(here, there)
    assert (ROOT / "ci/preview.yml").read_text(encoding="utf-8") == own


def test_workflows_give_no_more_than_they_need() -> None:
    for file in WORKFLOWS.glob("*.yml"):
        text = file.read_text(encoding="utf-8")
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}
        # With it, code of a fork would run beside our secrets.
        assert "pull_request_target" not in text
        for job in workflow["jobs"].values():
            for step in job.get("steps", ()):
                if "uses" in step:
                    assert len(step["uses"].partition("@")[2]) == 40
                # What a pull request can name goes through the environment, never into a script.
                assert "${{" not in step.get("run", "")
