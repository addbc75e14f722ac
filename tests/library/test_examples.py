"""The programs in examples/ and docs/library.md as whoever copies them runs them: on the wheel, on the embedded
store."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from synapse_media.engine.embedded import Running
from synapse_media.engine.obtain import Toolchain
from tests.library import environments
from tests.library.environments import UserProject, has_bucket, has_user
from tests.providers.project import ROOT

SERVER = "example.com"
GUIDE = "acme"
"""The project of docs/library.md, in an empty directory."""
BUCKETS = {name: f"{name}-media" for name in ("mixed", "automation", "component-inputs", GUIDE)}
"""Of each example that makes a store."""


@dataclass(slots=True)
class Example(UserProject):
    """A copy of an example, with the environment that all of them share as its own."""

    def pulumi(self, *arguments: str, code: int = 0) -> str:
        """Plain pulumi with these; what it printed. Fails where the exit code is another."""
        done = environments.run("pulumi", *arguments, "--non-interactive", cwd=self.home, env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def shown(self) -> dict[str, Any]:
        """The outputs, with secrets masked."""
        found: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json"))
        return found

    def secret(self, name: str) -> str:
        return self.pulumi("stack", "output", name, "--show-secrets").strip()

    def resources(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.pulumi("stack", "export"))["deployment"].get("resources") or []
        return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    place = tmp_path_factory.mktemp("examples") / "environment"
    environments.make_environment(place, wheel)
    return place


@pytest.fixture
def example(
    tmp_path: Path, environment: Path, embedded_store: Running, engine_toolchain: Toolchain
) -> Iterator[Callable[[str], Example]]:
    """Copies an example out of the wheel; at the end nothing of it may be left."""
    variables = {
        # As `eval "$(synapse-media env)"` has them, but with a state of the test's own.
        "PATH": os.pathsep.join((str(environment / "bin"), str(engine_toolchain.bin), os.defpath)),
        "PULUMI_BACKEND_URL": f"file://{tmp_path}",
        "PULUMI_CONFIG_PASSPHRASE": "of a test",
        "PULUMI_HOME": str(tmp_path / "pulumi-home"),
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "S3_ACCESS_KEY_ID": embedded_store.access_key_id,
        "S3_SECRET_ACCESS_KEY": embedded_store.secret_access_key,
    }

    made = []

    def copied(name: str) -> Example:
        home = tmp_path / name
        if name == GUIDE:
            home.mkdir()
        else:
            (folder,) = environment.glob(f"lib/python*/site-packages/synapse_media/examples/{name}")
            shutil.copytree(folder, home)
        (home / ".venv").symlink_to(environment)
        made.append(BUCKETS.get(name))
        return Example(home, environment, dict(variables))

    yield copied
    for bucket in filter(None, made):
        assert not has_bucket(embedded_store, bucket)
        assert not has_user(embedded_store, f"synapse-media-{bucket}")


def _blocks(section: str) -> list[str]:
    """The indented blocks of a section of docs/library.md."""
    text = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n## {section}\n")
    assert found
    indented = re.findall(r"(?:^(?: {4}.*)?\n)+", rest.partition("\n## ")[0], re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for block in indented if block.strip()]


def test_the_program_of_the_guide(example: Callable[[str], Example], embedded_store: Running) -> None:
    """docs/library.md, followed in an empty directory."""
    acme, bucket = example(GUIDE), BUCKETS[GUIDE]
    project, program, commands, *_ = _blocks("A program of your own")
    for name in ("endpoint", "iam_endpoint"):
        program, found = re.subn(rf'("{name}": )"[^"]+"', rf'\1"{getattr(embedded_store, name)}"', program)
        assert found == 1
    (acme.home / "Pulumi.yaml").write_text(project, encoding="utf-8")
    main = acme.home / "__main__.py"
    main.write_text(program, encoding="utf-8")
    lines = [
        line.replace("~/", "").split() for line in commands.splitlines() if not line.startswith(("export", "eval"))
    ]
    for tool, *arguments in lines:
        if tool == "pulumi":
            acme.pulumi(*arguments)
        else:
            assert tool == "synapse-media"
            acme.command(*arguments, *(["--yes"] if arguments[0] == "up" else []))
    assert [tool for tool, *_ in lines] == ["pulumi", *["synapse-media"] * 3]
    assert acme.shown()["bucket"] == bucket
    assert json.loads((acme.home / "rendered" / SERVER / "store.json").read_text(encoding="utf-8"))["bucket"] == bucket
    acme.pulumi("preview", "--expect-no-changes")
    assert "no changes" in acme.command("diff", "--stack", "prod")
    assert "its key is rotated by the argument `keys`" in acme.command("rotate", "--stack", "prod", "--yes", code=1)

    # What can lose media is refused, as of a stack file's store.
    main.write_text(program.replace("**place)", '**place, prefix="elsewhere/")'), encoding="utf-8")
    assert "media that is there already is looked for elsewhere" in acme.command("diff", "--stack", "prod", code=3)
    assert f"{SERVER}/move-media" in acme.command("up", "--stack", "prod", "--yes", code=3)
    main.write_text(program, encoding="utf-8")
    assert f"the media of {SERVER} is protected" in acme.command("destroy", "--stack", "prod", "--yes", code=3)
    stack = acme.home / "Pulumi.prod.yaml"
    named = f"config:\n  synapse-media:allow: [{SERVER}/delete-bucket]\n"
    before = stack.read_text(encoding="utf-8")
    for wrong in (f"x{SERVER}/delete-bucket", f"{SERVER}/delete-bucke"):
        stack.write_text(before + named.replace(f"{SERVER}/delete-bucket", wrong), encoding="utf-8")
        said = acme.command("diff", "--stack", "prod", code=0 if wrong.endswith("t") else 1)
        assert f"Did you mean {SERVER}/delete-bucket?" in said
    stack.write_text(before + named, encoding="utf-8")
    acme.command("destroy", "--stack", "prod", "--yes")
    assert not has_bucket(embedded_store, bucket)
    assert acme.resources() == []

    # Plain pulumi goes by the program's own `allow`.
    stack.write_text(before, encoding="utf-8")
    leave = '**place, allow=["delete-bucket", "retire-key"])'
    assert leave.partition(", ")[2].rstrip(")") in (ROOT / "docs/library.md").read_text(encoding="utf-8")
    main.write_text(program.replace("**place)", leave), encoding="utf-8")
    acme.pulumi("up", "--yes", "--skip-preview")
    acme.pulumi("destroy", "--yes", "--skip-preview")
    assert acme.resources() == []


def test_mixed_and_a_stack_that_reads_its_outputs(example: Callable[[str], Example], embedded_store: Running) -> None:
    mixed, bucket = example("mixed"), BUCKETS["mixed"]
    mixed.pulumi("stack", "init", "prod")
    for name in ("endpoint", "iam_endpoint"):
        place = f'synapse-media:stores["{SERVER}"].{name}'
        mixed.pulumi("config", "set", "--path", place, getattr(embedded_store, name))
    assert "create" in mixed.pulumi("preview")
    mixed.pulumi("up", "--yes", "--skip-preview")
    mixed.pulumi("preview", "--expect-no-changes")
    said = mixed.home / f"{SERVER}.txt"
    assert said.read_text(encoding="utf-8") == f"{embedded_store.endpoint}/{bucket}"

    # The commands on the same stack: what is the user's own is shown, and stays.
    assert "no changes" in mixed.command("diff")
    assert "no changes" in mixed.command("up", "--yes")
    assert f"{SERVER}: passed" in mixed.command("prove")
    said.unlink()
    mixed.command("render", "--form", "plain", "--out", "rendered")
    assert (mixed.home / "rendered" / SERVER / "store.json").is_file()

    consumer = example("stack-reference")
    consumer.pulumi("stack", "init", "prod")
    consumer.pulumi("config", "set", "media", "organization/mixed/prod")
    consumer.pulumi("up", "--yes", "--skip-preview")
    consumer.pulumi("preview", "--expect-no-changes")
    shown = consumer.shown()
    store = mixed.shown()["stores"][SERVER]
    assert shown == {
        "bucket": bucket,
        "endpoint_url": embedded_store.endpoint,
        "access_key_id": store["access_key_id"],
        "secret_access_key": "[secret]",
    }
    assert (
        consumer.secret("secret_access_key") == json.loads(mixed.secret("store_secrets"))[SERVER]["secret_access_key"]
    )
    consumer.pulumi("destroy", "--yes", "--skip-preview")
    assert consumer.resources() == []

    # A bucket outlives mistakes, in somebody else's program, too.
    assert "delete-bucket" in mixed.command("destroy", "--yes", code=3)
    mixed.pulumi("config", "set", "--path", "synapse-media:allow[0]", f"{SERVER}/delete-bucket")
    mixed.command("destroy", "--yes")
    assert mixed.resources() == []


def test_automation(example: Callable[[str], Example], embedded_store: Running) -> None:
    program = example("automation")
    # Where no Pulumi.yaml says where our plugin is, pulumi finds it on PATH.
    places = (embedded_store.endpoint, embedded_store.iam_endpoint)

    def deploy(command: str) -> str:
        python = program.environment / "bin/python"
        done = environments.run(python, "deploy.py", command, *places, cwd=program.home, env=program.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    said = deploy("up")
    assert "'create'" in said
    rendered = [path for path in (program.home / "rendered").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in rendered} == {0o600}
    whole = json.loads(program.pulumi("stack", "output", "media", "--show-secrets", "--stack", ORGANIZATION))
    secret = whole["secret_access_key"]
    assert any(secret in path.read_text(encoding="utf-8") for path in rendered)
    assert secret not in said
    state = program.pulumi("stack", "export", "--stack", ORGANIZATION)
    assert BUCKETS["automation"] in state
    assert secret not in state

    again = deploy("up")
    assert "'same'" in again
    assert "'create'" not in again
    assert "'update'" not in again
    deploy("destroy")


ORGANIZATION = "organization/automation/prod"


def test_component_inputs(example: Callable[[str], Example], embedded_store: Running) -> None:
    program, bucket = example("component-inputs"), BUCKETS["component-inputs"]
    # The provider of the program's own maps its variables; without it there is no credential.
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        program.variables[f"SITE_{name}"] = program.variables.pop(f"S3_{name}")
    places = {"endpoint": embedded_store.endpoint, "iam_endpoint": embedded_store.iam_endpoint}
    inventory = program.home / "inventory.json"
    inventory.write_text(json.dumps({**json.loads(inventory.read_text(encoding="utf-8")), **places}), encoding="utf-8")
    program.pulumi("stack", "init", "prod")
    # The commands pass on variables of the program's own only where they are named.
    for number, name in enumerate(("SITE_ACCESS_KEY_ID", "SITE_SECRET_ACCESS_KEY")):
        program.pulumi("config", "set", "--path", f"synapse-media:variables[{number}]", name)
    program.command("up", "--yes")
    program.pulumi("preview", "--expect-no-changes")
    program.pulumi("up", "--yes", "--expect-no-changes")

    shown = program.shown()
    assert (shown["bucket"], shown["endpoint_url"]) == (bucket, embedded_store.endpoint)
    assert shown["secret_access_key"] == "[secret]"
    assert program.secret("secret_access_key") not in program.pulumi("stack", "export")
    assert "put" in {line["operation"] for line in shown["proof"]["lines"]}
    parts = [one for one in program.resources() if one["type"].startswith("s3store:")]
    assert len(parts) == 5
    for part in parts:
        kinds = part["urn"].split("::")[2]
        assert kinds == f"acme:matrix:Homeserver$synapse-media:index:S3Compatible${part['type']}"
        assert "::pulumi:providers:s3store::site::" in part["provider"]

    program.pulumi("destroy", "--yes", code=1)
    assert has_bucket(embedded_store, bucket)
    assert has_user(embedded_store, f"synapse-media-{bucket}")
    for number, word in enumerate(("delete-bucket", "retire-key")):
        program.pulumi("config", "set", "--path", f"allow[{number}]", word)
    program.pulumi("up", "--yes", "--skip-preview")
    program.pulumi("destroy", "--yes", "--skip-preview")
    assert program.resources() == []
