"""The recipe and the workflows that preview a pull request: run, and linted."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from synapse_media import catalog
from synapse_media.engine.obtain import Toolchain
from tests.doubles.vault_transit import vault
from tests.end_to_end.built import go_program
from tests.life.conftest import begin as begin  # noqa: PLC0414 - a fixture
from tests.life.life import SERVER, Life
from tests.providers.project import ROOT

HERE = Path(__file__).parent
WORKFLOWS = ROOT / ".github/workflows"


def recipe(
    project: Path, *arguments: str, environment: Mapping[str, str], script: str = "preview.sh", given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a script of ci/ in a project.

    Args:
        given: on its standard input.
    """
    (project / "ci").mkdir(exist_ok=True)
    copy = project / "ci" / script
    copy.write_text((ROOT / "ci" / script).read_text(encoding="utf-8"), encoding="utf-8")
    copy.chmod(0o755)
    return subprocess.run([copy, *arguments], env=environment, input=given, capture_output=True, text=True, check=False)


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


def test_the_recipe_refuses_an_option_that_is_none(tmp_path: Path) -> None:
    done = recipe(tmp_path, "--nonesuch", environment=bare())
    assert done.returncode == 64
    assert "ci/preview.sh: " in done.stderr


def test_a_look_at_the_store_needs_the_state(
    begin: Callable[[], Life], engine_toolchain: Toolchain, tmp_path: Path
) -> None:
    """Else it would compare the store with an empty state that was just made, and find nothing wrong."""
    life = begin()
    life.store()
    new = tmp_path / "state"
    environment = bare(XDG_STATE_HOME=str(new))
    done = recipe(life.stack.engine.project, "--refresh", life.stack.name, environment=environment)
    assert done.returncode == 1
    assert "--refresh needs the state" in done.stderr
    assert "PULUMI_BACKEND_URL is not set" in done.stderr
    assert not new.exists()


def test_a_stack_under_a_kms_is_previewed_without_a_passphrase(begin: Callable[[], Life], tmp_path: Path) -> None:
    life = begin()
    project, backend = life.stack.engine.project, tmp_path / "backend"
    backend.mkdir()
    life.stack.name = "kms"
    config = {"synapse-media:stores": {SERVER: life.settings()}}
    life.stack.path.write_text(yaml.safe_dump({"secretsprovider": "hashivault://mykey", "config": config}))
    with vault("the-token-of-vault") as double:
        state = {"PULUMI_BACKEND_URL": f"file://{backend}", "PULUMI_CONFIG_PASSPHRASE": ""}
        kms = {**state, "VAULT_SERVER_URL": double.url, "VAULT_SERVER_TOKEN": "the-token-of-vault"}
        done = recipe(project, "kms", environment=bare(**kms))
        assert done.returncode == 2, done.stderr
        assert "From nothing" not in done.stdout
        assert double.calls
        # Without the way to the KMS, as in a fork's build: pulumi is asked, and its answer is the reason.
        done = recipe(project, "kms", environment=bare(**state))
        assert done.returncode == 2, done.stderr
        assert "From nothing" in done.stdout
        assert "VAULT&#95;SERVER&#95;TOKEN" in done.stdout
        # A wrong one is a fault, and no reason to preview something else.
        done = recipe(project, "kms", environment=bare(**{**kms, "VAULT_SERVER_TOKEN": "another"}))
        assert done.returncode == 1
        assert "no preview" in done.stdout


def test_a_variable_set_to_nothing_is_not_handed_on(tmp_path: Path) -> None:
    """A secret that a system does not have is an empty variable there, which would stand before a role's credential."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks/Pulumi.prod.yaml").touch()
    (tmp_path / "command").write_text("#!/bin/sh\nenv >seen\n", encoding="utf-8")
    (tmp_path / "command").chmod(0o755)
    environment = bare(SYNAPSE_MEDIA="./command", AWS_ROLE_ARN="arn", AWS_SESSION_TOKEN="", OTHER="a\nAWS_ROLE_ARN=")
    for script, given in (("preview.sh", ""), ("up.sh", "prod 0123\n")):
        done = recipe(tmp_path, environment=environment, script=script, given=given)
        assert done.returncode == 0, done.stderr
        seen = (tmp_path / "seen").read_text(encoding="utf-8").splitlines()
        assert "AWS_ROLE_ARN=arn" in seen
        assert not [line for line in seen if line.startswith(("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "PULUMI_"))]


def test_what_was_reviewed_is_made_and_nothing_else(begin: Callable[[], Life]) -> None:
    life = begin()
    life.store()
    project, engine = life.stack.engine.project, life.stack.engine.environment
    state = {
        "PULUMI_BACKEND_URL": engine["PULUMI_BACKEND_URL"],
        "PULUMI_CONFIG_PASSPHRASE_FILE": engine["PULUMI_CONFIG_PASSPHRASE_FILE"],
    }
    admin = {
        "S3_ACCESS_KEY_ID": life.running.access_key_id,
        "S3_SECRET_ACCESS_KEY": life.running.secret_access_key,
    }
    assert recipe(project, life.stack.name, environment=bare(**state)).returncode == 2
    digests = (project / "out/preview/digests").read_text(encoding="utf-8")
    stack, digest = digests.split()
    assert stack == life.stack.name
    assert f"Digest of these changes: {digest}" in (project / f"out/preview/{stack}.md").read_text(encoding="utf-8")
    # The stack file was changed since.
    life.store(prefix="media/")
    done = recipe(project, environment=bare(**state, **admin), script="up.sh", given=digests)
    assert done.returncode == 1
    assert "not what was reviewed" in done.stderr
    # Without the state nothing is made: another one would be gone with the machine.
    life.store()
    done = recipe(project, environment=bare(**admin), script="up.sh", given=digests)
    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    done = recipe(project, environment=bare(**state, **admin), script="up.sh", given=digests)
    assert done.returncode == 0, done.stderr
    # It is there now; the same line would make it again, which is another thing.
    assert recipe(project, life.stack.name, environment=bare(**state)).returncode == 0
    assert not (project / "out/preview/digests").exists()
    # An update, in which the key is proved anew: the digest that needs no credential is that of `up`.
    life.store(noncurrent_days=60)
    assert recipe(project, life.stack.name, environment=bare(**state)).returncode == 2
    digests = (project / "out/preview/digests").read_text(encoding="utf-8")
    done = recipe(project, environment=bare(**state, **admin), script="up.sh", given=digests)
    assert done.returncode == 0, done.stderr


def test_a_line_without_a_digest_is_refused(tmp_path: Path) -> None:
    done = recipe(tmp_path, environment=bare(), script="up.sh", given="prod\n")
    assert done.returncode == 64
    assert "has no digest" in done.stderr


TEMPLATES = [ROOT / "ci" / name for name in ("preview.yml", "forgejo.yml")]


def test_workflows_are_lint_free() -> None:
    actionlint = go_program(HERE / "actionlint", "github.com/rhysd/actionlint/cmd/actionlint")
    files = sorted(WORKFLOWS.glob("*.yml"))
    assert {file.stem for file in files} == {"preview", "drift", "stack", "shards", "test", "lock", "release"}
    # Other linters are used where somebody has them, or nobody could say what was checked. "docker" is a label of
    # Forgejo's and Gitea's own runners.
    options = ["-no-color", "-shellcheck=", "-pyflakes=", "-ignore", 'label "docker" is unknown']
    done = subprocess.run([actionlint, *options, *files, *TEMPLATES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_project_of_ones_own_has_the_same_workflow() -> None:
    """But for how its environment is made and where the program that comments is."""
    own = (ROOT / ".github/workflows/preview.yml").read_text(encoding="utf-8")
    for here, there in (
        ("run: make setup", "run: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
        (".venv/bin/python ci/comment.py", ".venv/bin/python -m synapse_media.ci.comment"),
    ):
        assert own.count(here) == 1
        own = own.replace(here, there)
    assert (ROOT / "ci/preview.yml").read_text(encoding="utf-8") == own


def test_workflows_give_no_more_than_they_need() -> None:
    for file in [*WORKFLOWS.glob("*.yml"), *TEMPLATES]:
        text = file.read_text(encoding="utf-8")
        workflow = yaml.safe_load(text)
        # Forgejo and Gitea take no notice of it.
        if file.name != "forgejo.yml":
            assert workflow["permissions"] == {"contents": "read"}
        # With it, code of a fork would run beside our secrets.
        assert "pull_request_target" not in text
        for job in workflow["jobs"].values():
            for step in job.get("steps", ()):
                if "uses" in step:
                    assert len(step["uses"].partition("@")[2]) == 40
                # What a pull request can name goes through the environment, never into a script.
                assert "${{" not in step.get("run", "")


def test_an_admin_credential_is_where_something_is_made_alone() -> None:
    """Every one that the catalog names; and none in a preview, which asks no store."""
    names = {name for entry in catalog.names() for name in catalog.load(entry).admin_variables}
    state = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    for file in (WORKFLOWS / "stack.yml", WORKFLOWS / "shards.yml", ROOT / "ci/forgejo.yml"):
        jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
        given = {job: {name for step in jobs[job]["steps"] for name in step.get("env", ())} for job in jobs}
        assert names <= given["up"]
        assert given["preview"] & names == state
    for name in ("stack.yml", "shards.yml"):
        called = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
        # YAML reads the key `on` as true.
        assert names < set(called[True]["workflow_call"]["secrets"])
        assert called["jobs"]["up"]["environment"] == "${{ inputs.environment }}"


def steps_of(system: str) -> dict[str, str]:
    """The commands that preview and make, as a system runs them: one script each."""
    if system in ("github", "forgejo"):
        file = WORKFLOWS / "stack.yml" if system == "github" else ROOT / "ci/forgejo.yml"
        jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
        found = {
            step["name"]: step["run"]
            for job in jobs.values()
            for step in job["steps"]
            if "run" in step and "name" in step
        }
        return {"preview": found["Preview"] + found.get("Outcome", ""), "up": found["Up"]}
    loaded = yaml.safe_load((ROOT / f"ci/{system}.yml").read_text(encoding="utf-8"))
    if system == "gitlab":
        return {name: "\n".join(loaded[name]["script"]) for name in ("preview", "up")}
    return {step["name"]: "\n".join(step["commands"][1:]) for step in loaded["steps"]}


@pytest.mark.parametrize("system", ["github", "gitlab", "forgejo", "woodpecker"])
@pytest.mark.parametrize(("code", "passes"), [(0, True), (1, False), (2, True), (3, False)])
def test_every_system_fails_where_a_preview_does(system: str, code: int, passes: bool, tmp_path: Path) -> None:
    """Its own commands, with stand-ins for the scripts. The comment is written all the same; `up` gets the digests."""
    shown = "echo 'prod 0123' >out/preview/digests"
    for name, text in {
        "ci/preview.sh": f'echo "$@" >asked; mkdir -p out/preview; {shown}; exit {code}',
        "ci/up.sh": "cat >made",
        ".venv/bin/python": 'echo "$@" >commented',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
    outputs = tmp_path / "outputs"
    environment = {
        "PATH": os.environ["PATH"],
        "STACKS": "prod spare",
        "COMMENT_TOKEN": "token",
        "CI_MERGE_REQUEST_IID": "7",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(outputs),
        "CODE": str(code),
        "DIGESTS": "prod 0123",
        "REVIEWED": "prod 0123",
    }

    def run(script: str) -> int:
        command = ["bash", "-e", "-o", "pipefail", "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode

    steps = steps_of(system)
    assert (run(steps["preview"]) == 0) is passes
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "prod spare\n"
    if system == "github":
        assert outputs.read_text(encoding="utf-8") == f"code={code}\ndigests<<END\nprod 0123\nEND\n"
    else:
        assert (tmp_path / "commented").read_text(encoding="utf-8") == "-m synapse_media.ci.comment out/preview\n"
    assert run(steps["up"]) == 0
    assert (tmp_path / "made").read_text(encoding="utf-8") == "prod 0123\n"


def shards(step: str, tmp_path: Path, **environment: str) -> tuple[int, dict[str, str]]:
    """Run a step of the matrix workflow; its exit code, and what it gives to later jobs."""
    jobs = yaml.safe_load((WORKFLOWS / "shards.yml").read_text(encoding="utf-8"))["jobs"]
    script = next(s["run"] for job in jobs.values() for s in job["steps"] if s.get("name") == step)
    outputs = tmp_path / "outputs"
    outputs.write_text("", encoding="utf-8")
    own = {"PATH": os.environ["PATH"], "GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env={**own, **environment}, check=False)
    found: dict[str, str] = {}
    lines = iter(outputs.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.endswith("<<END"):
            found[line.removesuffix("<<END")] = "\n".join(iter(lambda: next(lines), "END"))
        else:
            name, _, value = line.partition("=")
            found[name] = value
    return done.returncode, found


def test_the_matrix_has_a_job_for_each_shard(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    for name in ("shard-01", "shard-02", "prod", "wasabi", 'shard-"x', "shard-x y"):
        (tmp_path / f"stacks/Pulumi.{name}.yaml").touch()
    code, found = shards("List", tmp_path, STACKS="shard-* prod")
    assert (code, json.loads(found["stacks"])) == (0, ["prod", "shard-01", "shard-02"])
    code, found = shards("List", tmp_path, STACKS="shrad-*")
    assert (code, found) == (1, {})
    for number in range(257):
        (tmp_path / f"stacks/Pulumi.many-{number}.yaml").touch()
    assert shards("List", tmp_path, STACKS="many-*")[0] == 1


def test_the_matrix_makes_what_was_shown_of_each_shard_and_no_other(tmp_path: Path) -> None:
    scripts = {
        "ci/preview.sh": 'echo "$@" >>asked; mkdir -p out/preview; exit 2',
        "ci/up.sh": "cat >made",
    }
    for name, text in scripts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
    assert shards("Preview", tmp_path, STACK="shard-1") == (0, {"code": "2"})
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "shard-1\n"
    assert [shards("Outcome", tmp_path, CODE=str(code))[0] == 0 for code in range(4)] == [True, False, True, False]

    # As the jobs' artifacts come: of a shard that failed there is no digest, of one without changes nothing at all.
    assert shards("Collect", tmp_path) == (0, {"digests": "", "changed": "[]"})
    for name in ("shard-1", "shard-10", "shard-2"):
        place = tmp_path / f"out/shards/preview-{name}"
        place.mkdir(parents=True)
        (place / f"{name}.md").write_text(f"## {name}\n", encoding="utf-8")
        if name != "shard-2":
            (place / "digests").write_text(f"{name} 0{name[-1]}\n", encoding="utf-8")
    code, found = shards("Collect", tmp_path)
    assert (code, json.loads(found["changed"])) == (0, ["shard-1", "shard-10"])
    assert {path.name for path in (tmp_path / "out/preview").iterdir()} == {"shard-1.md", "shard-10.md", "shard-2.md"}
    assert shards("Up", tmp_path, STACK="shard-1", DIGESTS=found["digests"])[0] == 0
    assert (tmp_path / "made").read_text(encoding="utf-8") == "shard-1 01\n"
