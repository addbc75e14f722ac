"""Several stacks by one command: side by side, each for itself, with one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from synapse_media import stackfile
from synapse_media.cli import main, several
from synapse_media.engine.embedded import Running
from synapse_media.engine.paths import state_dir
from synapse_media.engine.processes import identity
from synapse_media.errors import UsageError
from tests.cli.pseudo_terminal import on_terminal
from tests.providers.project import ROOT, Stack, stack

SHAPES = Draft7Validator(json.loads((ROOT / "synapse_media/cli/shapes.schema.json").read_text(encoding="utf-8")))
SHARDS = ("shard-1", "shard-2", "shard-3")
BOTH = ("--stack", "shard-1", "--stack", "shard-2")
FIRST = ["second.example.com", "shard-1.example.com"]


class Project:
    """A project with a stack file a shard, each with one store of one homeserver; the first one with two."""

    def __init__(self, folder: Path, server: Running) -> None:
        self.server = server
        self.folder = folder
        self.made: Stack = stack(folder, "other", {})
        self.engine = self.made.engine
        for name in SHARDS:
            self.write(name)

    def write(self, name: str, allow: tuple[str, ...] = (), **changes: Any) -> None:
        path = stackfile.path_of(self.folder, name)
        salt = yaml.safe_load(path.read_text()).get("encryptionsalt") if path.exists() else None
        shared = {
            "provider": "s3_compatible",
            "endpoint": self.server.endpoint,
            "iam_endpoint": self.server.iam_endpoint,
            "settle_seconds": 0,
        }
        store = {"bucket": f"several-{self.folder.name[:20].replace('_', '-')}-{name}", **changes}
        stores = {f"{name}.example.com": store}
        if name == SHARDS[0]:
            stores["second.example.com"] = {"bucket": f"{store['bucket']}-second"}
        config = {
            "synapse-media:defaults": shared,
            "synapse-media:stores": stores,
            "synapse-media:allow": list(allow),
        }
        path.write_text(yaml.safe_dump({"config": config, **({"encryptionsalt": salt} if salt else {})}))

    def homeservers(self, name: str) -> list[str]:
        return sorted(self.engine.outputs(name).get("stores", {})) if self.engine.has_stack(name) else []


@pytest.fixture
def project(tmp_path: Path, embedded_store: Running, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("S3_ACCESS_KEY_ID", embedded_store.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", embedded_store.secret_access_key)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    folder = tmp_path / tmp_path.name[-18:]
    folder.mkdir()
    made = Project(folder, embedded_store)
    monkeypatch.chdir(folder)
    return made


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of which no more than the stack files are there."""
    (tmp_path / "Pulumi.yaml").write_text("name: synapse-media\n")
    for name in (*SHARDS, "other", "wasabi"):
        stackfile.path_of(tmp_path, name).write_text("config: {}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main([*arguments, "--stack", "shard-*", "--parallel", "2"])
    printed = capfd.readouterr()
    return code, printed.out, printed.err


def test_one_that_fails_stops_no_other_and_a_second_run_does_what_is_left(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.write("shard-2", access="all")
    code, out, err = run("up", "--yes", capfd=capfd)
    assert code == 1, err
    assert "3 stacks: 2 done, 1 failed" in err
    assert "shard-2: failed\n  defaults" not in err
    assert "shard-2: failed\n  stores.shard-2.example.com.access is 'all'; allowed: least, full" in err
    assert [project.homeservers(name) for name in SHARDS] == [
        FIRST,
        [],
        ["shard-3.example.com"],
    ]
    secrets = project.engine.run(["stack", "output", "--json", "--show-secrets", "--stack", "shard-1"]).stdout
    secret = json.loads(secrets)["store_secrets"]["shard-1.example.com"]["secret_access_key"]
    output = state_dir() / "output"
    assert output.stat().st_mode & 0o777 == 0o700
    (folder,) = output.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.glob("[!.]*"))) == 2 * len(SHARDS)
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert secret not in path.read_text(encoding="utf-8")

    # An error before changes: what is not known may be anything.
    code, out, err = run("diff", capfd=capfd)
    assert (code, out) == (1, "")
    project.write("shard-2")
    code, out, err = run("diff", capfd=capfd)
    assert code == 2
    assert out.startswith("shard-2:\n")
    assert "shard-1" not in out
    assert "3 stacks: 2 done, 1 changes pending" in err

    code, out, err = run("up", "--yes", "--json", capfd=capfd)
    assert code == 0, err
    assert list(SHAPES.iter_errors(json.loads(out))) == []
    shown = json.loads(out)["stacks"]
    assert {name: shown[name]["exit_code"] for name in SHARDS} == dict.fromkeys(SHARDS, 0)
    assert shown["shard-2"]["answer"]["stores"]["shard-2.example.com"]["proof"]
    assert run("diff", capfd=capfd)[:2] == (0, "")


def test_two_runs_at_once_have_each_its_own_output(project: Project) -> None:
    assert main(["diff", "--stack", "shard-*"]) == 2  # makes the stacks
    command = [sys.executable, "-m", "synapse_media.cli", "diff", "--json", "--stack", "shard-*"]
    runs = [subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for one in runs:
        answer = json.loads(one.communicate()[0])
        assert {name: answer["stacks"][name]["exit_code"] for name in SHARDS} == dict.fromkeys(SHARDS, 2)
        assert all(answer["stacks"][name]["answer"]["digest"] for name in SHARDS)
    # Of former runs, some stay to be read.
    for _ in range(6):
        assert main(["diff", "--stack", "shard-*"]) == 2
    assert len(list((state_dir() / "output").iterdir())) == 6


def test_dangerous_changes_come_before_plain_ones_and_keys_are_rotated(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("up", "--yes", capfd=capfd)[0] == 0
    project.write("shard-1", prefix="elsewhere/")
    project.write("shard-3", abort_days=9)
    code, out, err = run("diff", capfd=capfd)
    assert code == 3
    assert "1 done, 1 changes pending, 1 dangerous changes pending" in err
    code, out, err = run("up", "--yes", capfd=capfd)
    assert code == 3
    assert "shard-1: dangerous changes pending\n  " in err
    assert "shard-1.example.com/move-media" in err
    project.write("shard-1")

    code, out, err = run("prove", capfd=capfd)
    assert code == 0, err
    assert out.count("passed") == len(SHARDS) + 1
    code, out, err = run("render", "--form", "plain", "--out", "rendered", capfd=capfd)
    assert code == 0, err
    for name in SHARDS:
        assert (project.folder / "rendered" / name / f"{name}.example.com" / "store.json").is_file()
    code, out, err = run("rotate", "--yes", capfd=capfd)
    assert code == 1
    assert "3 stacks: 2 done, 1 failed" in err
    assert "the stores of" in err
    assert "Pulumi.shard-1.yaml: second.example.com, shard-1.example.com; all of them: --all" in err
    # What is left: in the others it has begun already.
    for keys in (("b", ("a",)), ("b", ("a",)), ("b", ())):
        more = [] if keys[1] else ["--finish", "--confirm"]
        code, out, err = run("rotate", "--all", "--yes", *more, capfd=capfd)
        assert code == 0, err
        for name in SHARDS:
            for store in stackfile.read(project.folder, name).stores.values():
                assert (store.keys.active, store.keys.retiring) == keys
    assert run("diff", capfd=capfd)[:2] == (0, "")


def test_up_asks_once_for_what_it_showed_of_all(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--stack", "shard-*"]) == 1
    assert "this is no terminal to ask on. Add --yes." in capfd.readouterr().err
    project.write("shard-2", access="all")
    code, shown = on_terminal("up", "--stack", "shard-*", cwd=project.folder, typed="n\n", NO_COLOR="1")
    assert code == 1
    assert shown.count("[y/N]") == 1
    assert "Make these changes of shard-1, shard-3? The 1 others that failed or were refused" in shown
    assert [project.homeservers(name) for name in SHARDS] == [[], [], []]

    code, shown = on_terminal("up", "--stack", "shard-*", cwd=project.folder, typed="y\n")
    assert code == 1
    assert shown.count("[y/N]") == 1
    assert [project.homeservers(name) for name in SHARDS] == [FIRST, [], ["shard-3.example.com"]]
    # The table.
    assert "of 3 stacks" in shown

    project.write("shard-2")
    code, shown = on_terminal("up", "--stack", "shard-*", cwd=project.folder, typed="y\n", NO_COLOR="1")
    assert code == 0, shown
    assert "Make these changes of shard-2? [y/N]" in shown
    assert "3 stacks: 3 done" in shown
    code, shown = on_terminal("up", "--stack", "shard-*", cwd=project.folder, NO_COLOR="1")
    assert (code, "[y/N]" in shown) == (0, False)


def test_ctrl_c_reaches_each_and_leaves_no_lock(project: Project) -> None:
    command = [sys.executable, "-m", "synapse_media.cli", "up", "--yes", "--stack", "shard-*", "--parallel", "2"]
    with subprocess.Popen(command, cwd=project.folder, stderr=subprocess.PIPE, text=True) as child:
        # Some way into the runs; wherever it strikes, nothing may be left.
        while child.poll() is None and not list((state_dir() / "unfinished").glob("*")):
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate()
    assert child.returncode == 128 + signal.SIGINT, err
    assert "interrupted; not done: " in err
    assert "Run it again to go on." in err
    backend = Path(project.engine.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
    assert list((backend / ".pulumi" / "locks").rglob("*.json")) == []
    assert main(["up", "--yes", "--stack", "shard-*"]) == 0
    assert [project.homeservers(name) for name in SHARDS] == [FIRST, ["shard-2.example.com"], ["shard-3.example.com"]]


def test_each_ends_in_order_where_the_run_is_killed(project: Project) -> None:
    """Nobody sees how it ends, so it does not go on: the next run would find the stacks locked."""
    command = [sys.executable, "-m", "synapse_media.cli", "up", "--yes", *BOTH, "--parallel", "2"]
    with subprocess.Popen(command, cwd=project.folder, stderr=subprocess.DEVNULL, text=True) as child:
        while child.poll() is None and not list((state_dir() / "unfinished").glob("*")):
            time.sleep(0.05)
        children = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
        beneath = {pid: identity(pid) for pid in children}
        child.kill()
    assert len(beneath) == 2
    deadline = time.monotonic() + 60
    while any(identity(pid) == known for pid, known in beneath.items()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid, known in beneath.items() if identity(pid) == known] == []
    backend = Path(project.engine.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
    assert list((backend / ".pulumi" / "locks").rglob("*.json")) == []
    # Some of it was left to do: they did not run on to their end.
    assert main(["diff", *BOTH]) == 2
    assert main(["up", "--yes", *BOTH]) == 0
    assert [project.homeservers(name) for name in SHARDS[:2]] == [FIRST, ["shard-2.example.com"]]
    assert main(["diff", "--refresh", *BOTH]) == 0


def test_the_stacks_that_names_and_patterns_mean(files: Path) -> None:
    wanted = ["shard-[13]", "acme/shard-2", "shard-1", "organization/synapse-media/shard-3", "none-such"]
    assert several.names(files, wanted) == ["shard-1", "shard-3", "acme/shard-2", "none-such"]
    with pytest.raises(UsageError, match=r"'shrad-.', which no stack file matches; stacks here: other, shard-1, shard"):
        several.names(files, ["shrad-*"])
    # An example is no stack.
    assert "wasabi" not in several.names(files, ["*"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--yes", "--reviewed", "abc"], "--reviewed is for one stack, and --stack names 3: shard-1, shard-2"),
        (["render", "--out", "x", "--server", "a"], "--server is for one stack"),
        (["render", "--out", "x", "--stack", "acme/shard-1"], "two stacks would be written to x/shard-1"),
        (["destroy", "--yes"], "the stack's name is 'shard-*'"),
    ],
)
def test_what_is_of_one_stack_is_refused(
    files: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    more = [] if arguments[0] == "destroy" else ["--parallel", "2"]
    assert main([*arguments, "--stack", "shard-*", *more]) == 64
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([0, 2], 2),
        ([2, 3, 0], 3),
        ([3, 1, 2], 1),
        ([0, 64], 1),
        ([3, None], 1),
        ([130, 2], 1),
    ],
)
def test_one_exit_code_for_all(codes: list[int | None], code: int) -> None:
    assert several.worst(codes) == code


def test_a_process_gets_the_options_that_were_given(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def together(runs: list[several.Run], at_once: int) -> int:
        seen.extend([list(one.words) for one in runs])
        for one in runs:
            one.code = 0
        return 0

    monkeypatch.setattr(several, "_together", together)
    stacks = ["--stack", "shard-1", "-sshard-2"]
    assert main(["diff", *stacks, "--format=json", "-v", "--refresh", "--", "--target", "urn:x"]) == 0
    # --json is --format json.
    assert seen == [["--refresh", "--format=json", "--json", "--verbose", "--", "--target", "urn:x"]] * 2
    seen.clear()
    assert main(["render", *stacks, "--out", "x", "--form", "plain"]) == 0
    assert seen == [["--form=plain", "--out=x/shard-1"], ["--form=plain", "--out=x/shard-2"]]
