"""A user's own project with the wheel, from an empty directory to a proved store and back to nothing."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from synapse_media.engine.embedded import Running
from tests.library import environments
from tests.library.environments import UserProject, has_bucket

SERVER = "matrix.example.org"
LOWEST, NEWEST = f"pulumi=={environments.lowest_pulumi()}", "pulumi"

pytestmark = pytest.mark.usefixtures("engine_toolchain")


@pytest.fixture
def begin(tmp_path: Path, wheel: Path, embedded_store: Running) -> Callable[..., UserProject]:
    """A user's directory, empty but for the environment, with the embedded store's admin credential."""

    def made(place: str = ".venv", pulumi: str = NEWEST) -> UserProject:
        home = tmp_path / "My infra"
        home.mkdir()
        environment = (home / place).resolve()
        environments.make_environment(environment, wheel, pulumi)
        credentials = {
            "S3_ACCESS_KEY_ID": embedded_store.access_key_id,
            "S3_SECRET_ACCESS_KEY": embedded_store.secret_access_key,
        }
        return UserProject(home, environment, {**credentials, "PULUMI_IGNORE_AMBIENT_PLUGINS": "true"})

    return made


def init(stranger: UserProject, running: Running, bucket: str) -> str:
    words = ["--provider", "s3_compatible", "--server-name", SERVER, "--bucket", bucket, "--region", running.region]
    places = ["--endpoint", running.endpoint, "--iam-endpoint", running.iam_endpoint, "--set", "settle_seconds=0"]
    return stranger.command("init", *words, *places)


def allow(stranger: UserProject, *words: str) -> None:
    path = stranger.home / "stacks/Pulumi.prod.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["config"]["synapse-media:allow"] = [f"{SERVER}/{word}" for word in words]
    path.write_text(yaml.safe_dump(document), encoding="utf-8")


def test_a_project_of_ones_own(begin: Callable[..., UserProject], embedded_store: Running) -> None:
    """Every command, on the newest pulumi that the range admits."""
    stranger, bucket = begin(), "library-newest"
    home = stranger.home
    # A small environment: no vendor's SDK, whose plugin pulumi would want for every stack, and no package `components`.
    site = Path(stranger.python("import sysconfig; print(sysconfig.get_path('purelib'))"))
    assert list(site.glob("*/pulumi-plugin.json")) == []
    assert not (site / "components").exists()

    assert "no Pulumi.yaml in" in stranger.command("diff", "--stack", "prod", code=64)
    assert "--provider is missing" in stranger.command("init", code=64)
    assert [item.name for item in home.iterdir()] == [".venv"]
    said = init(stranger, embedded_store, bucket)
    written = {str(item.relative_to(home)) for item in home.rglob("*") if item.is_file() and ".venv" not in item.parts}
    assert written == {
        ".github/workflows/preview.yml",
        ".gitignore",
        "Pulumi.yaml",
        "__main__.py",
        "bin/pulumi-resource-s3store",
        "ci/preview.sh",
        "ci/up.sh",
        "requirements.txt",
        "stacks/Pulumi.prod.yaml",
        "stacks/stack-file.schema.json",
    }
    assert all(str(home / name) in said for name in written - {"stacks/stack-file.schema.json"})
    line = (home / "stacks/Pulumi.prod.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert line == "# yaml-language-server: $schema=stack-file.schema.json"
    assert "exists already" in stranger.command("init", "--provider", "wasabi", code=64)

    assert f"create Bucket of {SERVER}" in stranger.command("diff", "--stack", "prod", code=2)
    assert "nothing wrong was found" in stranger.command("doctor", "--stack", "prod")
    up = stranger.command("up", "--stack", "prod", "--yes")
    assert "may not    put-bucket-policy, create-bucket, other-bucket, delete" in up
    assert "no changes" in stranger.command("diff", "--stack", "prod")

    # Plain pulumi on the same state.
    lines = stranger.command("env").splitlines()
    shown = dict(shlex.split(line)[1].partition("=")[::2] for line in lines if line.startswith("export "))
    env = {**stranger.env, **shown}
    pulumi = shutil.which("pulumi", path=shown["PATH"])
    assert pulumi
    preview = ("preview", "--non-interactive", "--expect-no-changes", "--stack", "prod")
    done = environments.run(pulumi, *preview, cwd=home, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 unchanged" in done.stdout

    # The stack that pulumi selected, from another directory; and by its whole name.
    assert environments.run(pulumi, "stack", "select", "prod", cwd=home, env=env).returncode == 0
    command = stranger.environment / "bin/synapse-media"
    done = environments.run(command, "diff", "-C", home, cwd=home.parent, env=stranger.env)
    assert (done.returncode, done.stdout) == (0, "no changes\n"), done.stderr
    assert "no changes" in stranger.command("diff", "--stack", "organization/My-infra/prod")

    stranger.command("render", "--out", str(home / "out"), "--form", "plain")
    store = home / "out" / SERVER / "store.json"
    assert json.loads(store.read_text(encoding="utf-8"))["bucket"] == bucket
    assert "delete" in stranger.command("prove")
    stranger.command("prove", "--store", str(store))
    stranger.command("check", str(next((home / "out" / SERVER).rglob("synapse-media.yaml"))))
    assert "filesystem" in stranger.command("switch", "--to", "filesystem")
    stranger.command("cost", "--stored", "100GB")
    stranger.command("rotate", "--yes")
    stranger.command("rotate", "--finish", "--confirm", "--yes")
    assert environments.run(home / "ci/preview.sh", cwd=home, env=stranger.env).returncode == 2  # from nothing

    allow(stranger, "delete-bucket")
    stranger.command("destroy", "--yes")
    assert not has_bucket(embedded_store, bucket)


def test_the_lowest_pulumi_and_an_environment_that_lies_elsewhere(
    begin: Callable[..., UserProject], embedded_store: Running
) -> None:
    stranger, bucket = begin("../elsewhere", LOWEST), "library-lowest"
    installed = stranger.python("import importlib.metadata as found; print(found.version('pulumi'))")
    assert f"pulumi=={installed}" == LOWEST

    # What is there is not overwritten.
    another = stranger.home / "Pulumi.yml"
    another.write_text("name: acme\nruntime: python\n", encoding="utf-8")
    assert "has a project in Pulumi.yml" in stranger.command("init", code=64)
    another.unlink()
    program, ignored = stranger.home / "__main__.py", stranger.home / ".gitignore"
    program.touch()
    assert "has a program, __main__.py, but no Pulumi.yaml" in stranger.command("init", code=64)
    program.unlink()
    ignored.write_text("/out/\n/mine/\n", encoding="utf-8")
    said = init(stranger, embedded_store, bucket)
    assert f"{ignored} was there and is left as it is\n  it lacks: /.venv/\n" in said
    assert ignored.read_text(encoding="utf-8") == "/out/\n/mine/\n"

    project = stranger.home / "Pulumi.yaml"
    written = project.read_text(encoding="utf-8")
    assert str(stranger.environment) not in written
    stranger.command("up", "--stack", "prod", "--yes")
    assert "no changes" in stranger.command("diff", "--stack", "prod", "--refresh")
    allow(stranger, "delete-bucket")
    stranger.command("destroy", "--stack", "prod", "--yes")
    assert not has_bucket(embedded_store, bucket)

    # As in a project that was there before, and does not say where the plugin is.
    project.write_text(written.partition("plugins:")[0], encoding="utf-8")
    said = stranger.command("diff", "--stack", "prod", code=1)
    assert f"pulumi can't find the plugin {stranger.environment}/bin/pulumi-resource-s3store" in said
    del stranger.variables["PULUMI_IGNORE_AMBIENT_PLUGINS"]
    assert f"create Bucket of {SERVER}" in stranger.command("diff", "--stack", "prod", code=2)
