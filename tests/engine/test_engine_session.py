"""Pulumi runs with no more than it needs, says clearly what is wrong, and leaves no stack locked."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from synapse_media import stackfile
from synapse_media.engine import obtain, session
from synapse_media.engine.paths import state_dir
from synapse_media.engine.processes import end, identity
from synapse_media.engine.session import Engine, EngineError
from tests.engine.helpers import Said, eventually
from tests.faults.world import descendants

SECRET = "correct-horse-battery-staple"

_PROJECT = """
name: tiny
runtime:
  name: python
  options:
    virtualenv: .venv
    toolchain: pip
stackConfigDir: stacks
plugins:
  providers:
    - name: s3store
      path: bin
"""

# What the program does is said by its configuration.
_PROGRAM = """
import os, pathlib, signal, time
import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider

config = pulumi.Config()


class Slow(ResourceProvider):
    def create(self, props):
        pathlib.Path(props["started"]).touch()
        while not os.path.exists(props["go"]):
            time.sleep(0.05)
        return CreateResult("slow", props)


class SlowResource(Resource):
    def __init__(self, directory):
        super().__init__(Slow(), "slow", {"started": directory + "/started", "go": directory + "/go"})


if config.get("slow"):
    SlowResource(config.require("slow"))
if config.get_bool("fail"):
    raise ValueError("told to fail")
if config.get_bool("tell"):
    pulumi.info("variables: " + " ".join(sorted(os.environ)))
pulumi.export("word", config.get_secret("word"))
pulumi.export("variables", sorted(os.environ))
pulumi.export("interruptible", signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)
"""


@dataclass(frozen=True, slots=True)
class Project:
    """A tiny project of the tests' own."""

    path: Path

    def stack(self, name: str, config: Mapping[str, str] | None = None) -> Path:
        file = self.path / f"stacks/Pulumi.{name}.yaml"
        file.write_text(json.dumps({"config": {f"tiny:{key}": value for key, value in (config or {}).items()}}))
        return file


@pytest.fixture
def project(tmp_path: Path, own_state: Path) -> Project:
    path = tmp_path / "project"
    (path / "stacks").mkdir(parents=True)
    (path / "bin").mkdir()
    (path / "bin/pulumi-resource-s3store").write_text("#!/bin/sh\nexit 1\n")
    (path / "bin/pulumi-resource-s3store").chmod(0o755)
    (path / ".venv").symlink_to(sys.prefix)
    (path / "Pulumi.yaml").write_text(_PROJECT)
    (path / "__main__.py").write_text(_PROGRAM)
    return Project(path)


# The environment.


def test_a_state_directory_may_have_any_name(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    state = tmp_path / "50% off? #1 ä"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    engine = Engine(project.path, say=said)
    project.stack("one")
    engine.ensure_stack("one")
    assert engine.has_stack("one")
    assert list((state / "synapse-media/backend/.pulumi").rglob("one.json"))


def test_as_much_configuration_as_a_stack_file_may_have_is_handed_on(project: Project, said: Said) -> None:
    engine = Engine(project.path, say=said)
    rest = len(json.dumps({"tiny:much": ""}, separators=(",", ":")))
    project.stack("one", {"much": "x" * (stackfile.MAX_HANDED_ON - rest)})
    engine.ensure_stack("one")
    engine.up("one", ["--skip-preview"])
    assert engine.outputs("one")["interruptible"] is True


def test_a_stack_that_another_run_made_meanwhile_is_no_riddle(
    project: Project, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    engine = Engine(project.path, say=said)
    project.stack("one")
    engine.ensure_stack("one")
    answers = iter([False, True])
    monkeypatch.setattr(engine, "has_stack", lambda _: next(answers))
    with pytest.raises(EngineError, match="the stack one was made by another run just now"):
        engine.ensure_stack("one")


def test_the_environment_holds_what_is_needed_and_no_more(
    own_state: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "B2_APPLICATION_KEY",
        "GITHUB_TOKEN",
        "PYTHONPATH",
        "LD_PRELOAD_X",
        "VGW_PORT",
        "PULUMI_OPTION_REPLACE",
    ):
        monkeypatch.setenv(name, "foreign")
    for name in ("LC_ALL", "https_proxy", "NO_PROXY", "SSL_CERT_FILE", "PULUMI_PARALLEL", "XDG_CONFIG_HOME", "TMPDIR"):
        monkeypatch.setenv(name, "passed")
    env = session.environment(["B2_APPLICATION_KEY", "B2_APPLICATION_KEY_ID"], say=said)
    assert env["B2_APPLICATION_KEY"] == "foreign"
    assert not env.keys() & {
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "PYTHONPATH",
        "LD_PRELOAD_X",
        "VGW_PORT",
        "PULUMI_OPTION_REPLACE",
        "B2_APPLICATION_KEY_ID",
    }
    for name in ("LC_ALL", "https_proxy", "NO_PROXY", "SSL_CERT_FILE", "PULUMI_PARALLEL", "XDG_CONFIG_HOME", "TMPDIR"):
        assert env[name] == "passed"
    assert env["HOME"] == os.environ["HOME"]
    first, second, *rest = env["PATH"].split(os.pathsep)
    assert Path(first) == Path(sys.executable).parent
    assert (Path(second) / "pulumi").exists()
    assert os.pathsep.join(rest) == os.environ["PATH"]


def test_what_makes_the_engine_write_secrets_down_is_kept_back_with_a_word(
    own_state: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    revealing = {
        "PULUMI_DEBUG_GRPC",
        "PULUMI_DEBUG_COMMANDS",
        "PULUMI_DEBUG_PROVIDERS",
        "PULUMI_LOG_OTLP_ENDPOINT",
        "PULUMI_OTEL_EXPORTER_OTLP_ENDPOINT",
        "PULUMI_TRACING",
        "PULUMI_TRACING_HEADER",
        "PULUMI_CONFIG",
        "PULUMI_OPTION_SHOW_SECRETS",
        "PULUMI_ENABLE_STREAMING_JSON_PREVIEW",
    }
    others = {"TF_LOG", "TF_LOG_PATH", "GRPC_TRACE", "GRPC_VERBOSITY", "SSLKEYLOGFILE", "AWS_SDK_GO_LOGGING_LEVEL"}
    for name in revealing | others:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://theirs")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "theirs")
    env = session.environment(say=said)
    assert not env.keys() & (revealing | others)
    assert env["PULUMI_BACKEND_URL"] == "s3://theirs"
    assert all(name in said.text for name in revealing)
    assert "not passed to pulumi" in said.text


def test_the_selected_stack_is_not_pulumis_to_read(
    own_state: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    """The commands read it, and name the stack to pulumi: there is nothing to warn of."""
    monkeypatch.setenv("PULUMI_STACK", "prod")
    assert "PULUMI_STACK" not in session.environment(say=said)
    assert "PULUMI_STACK" not in said.text


def test_plugins_may_be_downloaded_where_the_engine_was(
    own_state: Path, monkeypatch: pytest.MonkeyPatch, said: Said, tmp_path: Path
) -> None:
    for route, forbidden in (("source", True), ("vendor", False), ("path", False)):
        toolchain = obtain.Toolchain(tmp_path, tmp_path / "pulumi", route)  # type: ignore[arg-type]
        monkeypatch.setattr(session, "obtain_pulumi", lambda _say, toolchain=toolchain: toolchain)
        env = session.environment(say=said)
        assert ("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" in env) is forbidden


def test_a_passphrase_is_made_once_and_said_once(own_state: Path, said: Said) -> None:
    first = session.environment(say=said)
    second = session.environment(say=said)
    file = Path(first["PULUMI_CONFIG_PASSPHRASE_FILE"])
    assert first == second
    assert file == own_state / "passphrase"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text()) >= 40
    assert len(said.lines) == 1
    assert f"Back up {own_state}" in said.text
    assert file.read_text() not in said.text


@pytest.mark.parametrize("variable", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
def test_what_the_user_set_is_left_alone(
    own_state: Path, monkeypatch: pytest.MonkeyPatch, said: Said, variable: str
) -> None:
    theirs = {variable: "", "PULUMI_BACKEND_URL": "s3://theirs", "PULUMI_HOME": "/theirs"}
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    env = session.environment(say=said)
    assert theirs.items() <= env.items()
    assert len(env.keys() & {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"}) == 1
    assert list(own_state.glob("*")) == []
    assert said.lines == []


@pytest.mark.parametrize(("theirs", "given"), [("", "200"), ("50", "50")])
def test_how_often_the_engine_collects_its_garbage(
    own_state: Path, monkeypatch: pytest.MonkeyPatch, said: Said, theirs: str, given: str
) -> None:
    monkeypatch.delenv("GOGC", raising=False)
    if theirs:
        monkeypatch.setenv("GOGC", theirs)
    assert session.environment(say=said)["GOGC"] == given


# Runs of the real engine.


def test_a_stack_from_making_to_forgetting(
    project: Project, own_state: Path, monkeypatch: pytest.MonkeyPatch, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOREIGN_TOKEN", "foreign")
    file = project.stack("one")
    engine = Engine(project.path, ["ADMIN_KEY_ID"], {"ADMIN_KEY": SECRET[::-1]}, said)
    engine.ensure_stack("one")
    engine.ensure_stack("one")
    engine.run(["config", "set", "--secret", "--stack", "one", "word", SECRET])
    assert engine.preview("one")["changeSummary"] == {"create": 1}
    engine.up("one")
    assert "1 created" in capfd.readouterr().out.replace("+ ", "")
    engine.up("one", ["--expect-no-changes", "--skip-preview"])
    outputs = engine.outputs("one")
    assert outputs["word"] == SECRET
    assert "ADMIN_KEY" in outputs["variables"]
    assert not {"FOREIGN_TOKEN", "ADMIN_KEY_ID"} & set(outputs["variables"])
    assert SECRET not in json.dumps(engine.export("one"))
    assert engine.preview("one", refresh=True)["changeSummary"] == {"same": 1}
    assert engine.clear_pending_creates("one") is False
    assert engine.unlock_if_dead("one") is False
    engine.refresh("one")
    engine.destroy("one")
    engine.remove_stack("one")
    assert (own_state / "pulumi-home/logs").read_bytes() == b""
    assert file.exists()
    kept = [path.name for path in (own_state / "backend/.pulumi").rglob("*") if path.is_file()]
    assert sorted(kept) == ["meta.yaml", "meta.yaml.attrs"]
    said_by_pulumi = capfd.readouterr()
    for written in (said_by_pulumi.out, said_by_pulumi.err, said.text):
        assert SECRET not in written
    for path in [path for path in (*own_state.rglob("*"), *(project.path / "stacks").iterdir()) if path.is_file()]:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert SECRET[::-1].encode() not in content, path


def test_the_engines_own_log_is_kept_where_there_is_a_directory_for_it(
    project: Project, own_state: Path, said: Said
) -> None:
    logs = own_state / "pulumi-home/logs"
    logs.mkdir(parents=True)
    assert Engine(project.path, say=said).stacks() == []
    assert [path.suffix for path in logs.iterdir()] == [".log"]


def test_a_failing_program_says_why_and_no_secret(project: Project, said: Said) -> None:
    project.stack("one", {"fail": "true"})
    program = project.path / "__main__.py"
    program.write_text(
        program.read_text().replace('"told to fail"', "f\"told to fail with {os.environ['ADMIN_KEY']}\"")
    )
    engine = Engine(project.path, extra={"ADMIN_KEY": SECRET}, say=said)
    engine.ensure_stack("one")
    for call in (lambda: engine.preview("one"), lambda: engine.run(["up", "--yes", "--stack", "one"])):
        with pytest.raises(EngineError, match=r"told to fail with \[secret\]") as caught:
            call()
        assert SECRET not in str(caught.value)
        assert "\x1b" not in str(caught.value)
        assert "<{%" not in str(caught.value)
    with pytest.raises(EngineError, match=r"`pulumi up` failed \(code 1\): see above"):
        engine.up("one")
    assert engine.run(["preview", "--stack", "one"], check=False).returncode == 1


def test_a_wrong_passphrase_is_one_clear_message(project: Project, said: Said) -> None:
    project.stack("one")
    engine = Engine(project.path, say=said)
    engine.ensure_stack("one")
    engine.run(["config", "set", "--secret", "--stack", "one", "word", SECRET])
    engine.up("one", ["--skip-preview"])
    wrong = Engine(project.path, extra={"PULUMI_CONFIG_PASSPHRASE": "wrong passphrase"}, say=said)
    for call in (wrong.preview, wrong.outputs):
        with pytest.raises(EngineError, match=r"PULUMI_CONFIG_PASSPHRASE does not have the passphrase") as caught:
            call("one")
        assert "wrong passphrase" not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_variable_that_the_program_misses_is_named(
    project: Project, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.stack("one")
    (project.path / "__main__.py").write_text("import os\nos.environ['SITE_NAME']\n", encoding="utf-8")
    monkeypatch.setenv("SITE_NAME", "a site")
    engine = Engine(project.path, say=said)
    engine.ensure_stack("one")
    with pytest.raises(EngineError, match=r"SITE_NAME is set here, but not passed .* `synapse-media:variables`"):
        engine.preview("one")
    named = Engine(project.path, ["SITE_NAME"], say=said)
    named.preview("one")
    with pytest.raises(EngineError, match="KeyError: 'SITE_NAME'"):
        named.preview_from_nothing("one")
    named.preview_from_nothing("one", ["SITE_NAME"])


@pytest.mark.parametrize("name", ["other.json", "other.json.attrs"])
def test_the_stacks_are_listed_while_the_state_of_another_is_being_written(
    project: Project, said: Said, name: str
) -> None:
    engine = Engine(project.path, say=said)
    for stack in ("one", "other"):
        project.stack(stack)
        engine.ensure_stack(stack)
    backend = Path(engine.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
    (file,) = backend.rglob(name)
    whole = file.read_bytes()
    file.write_bytes(b"")
    written = threading.Timer(0.5, lambda: file.write_bytes(whole))
    written.start()
    assert engine.has_stack("one")
    written.join()
    file.write_bytes(b"")
    with pytest.raises(EngineError, match=r"`pulumi stack ls` failed"):
        engine.has_stack("one")


def test_a_stack_that_is_not_there_is_named(project: Project, said: Said) -> None:
    engine = Engine(project.path, say=said)
    with pytest.raises(EngineError, match=r"`pulumi stack export` failed .*no stack named 'none'"):
        engine.export("none")
    with pytest.raises(EngineError, match=r"There is no stack file .*Pulumi\.none\.yaml"):
        engine.preview_from_nothing("none")


def test_a_preview_from_nothing_writes_nothing_and_has_no_credentials(
    project: Project, own_state: Path, said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADMIN_KEY_ID", "foreign")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    file = project.stack("tracked", {"tell": "true"})
    # As a user's own stack has it, made with a passphrase that is not ours.
    file.write_text(
        file.read_text()[:-1] + ', "encryptionsalt": "v1:l60750DNbj4=:v1:LDEwC3ohfBzJP4Gj:gV2LqRrbutp946cW"}'
    )
    engine = Engine(project.path, ["ADMIN_KEY_ID"], {"ADMIN_KEY": SECRET}, said)
    engine.environment["PULUMI_ACCESS_TOKEN"] = SECRET

    def content() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in (*project.path.rglob("*"), *(own_state / "backend").rglob("*"))
            if path.is_file() and not {"__pycache__", ".venv"} & set(path.parts)
        }

    # An absolute directory, and a stack of an organization, are no way out of the copy.
    settings = project.path / "Pulumi.yaml"
    settings.write_text(
        settings.read_text().replace("stackConfigDir: stacks", f"stackConfigDir: {project.path}/stacks")
    )
    before = content()
    preview = engine.preview_from_nothing("acme/tracked")
    assert preview["changeSummary"] == {"create": 1}
    (told,) = [item["message"] for item in preview["diagnostics"] if item["message"].startswith("variables: ")]
    variables = set(told.split()[1:])
    assert "PULUMI_CONFIG_PASSPHRASE" in variables
    assert not variables & {"ADMIN_KEY_ID", "ADMIN_KEY", "PULUMI_ACCESS_TOKEN"}
    assert content() == before
    assert list((tmp_path / "tmp").glob("synapse-media-*")) == []


def test_children_can_be_interrupted_even_where_we_ignore_it(project: Project, said: Said) -> None:
    """Otherwise every run under nohup takes 5 s more."""
    project.stack("one")
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        engine = Engine(project.path, say=said)
        engine.ensure_stack("one")
        engine.up("one", ["--skip-preview"])
        assert engine.outputs("one")["interruptible"] is True
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


# Locks, and runs that were cut off.


@dataclass(frozen=True, slots=True)
class Cut:
    """A run of `up` in the middle of creating a resource."""

    engine: Engine
    directory: Path
    wrapper: subprocess.Popen[bytes]
    lock: Path

    @property
    def pid(self) -> int:
        return int(json.loads(self.lock.read_text())["pid"])

    def go(self) -> None:
        (self.directory / "go").touch()


_UP = """
import sys
from pathlib import Path
from synapse_media.engine.session import Engine
Engine(Path(sys.argv[1])).up("slow", ["--skip-preview"])
"""


@pytest.fixture
def running_up(project: Project, own_state: Path, tmp_path: Path, said: Said) -> Iterator[Cut]:
    directory = tmp_path / "signals"
    directory.mkdir()
    project.stack("slow", {"slow": str(directory)})
    engine = Engine(project.path, say=said)
    engine.ensure_stack("slow")
    with (tmp_path / "up.log").open("wb") as log:
        wrapper = subprocess.Popen([sys.executable, "-c", _UP, project.path], stdout=log, stderr=log)
    started = eventually(lambda: (directory / "started").exists() or wrapper.poll() is not None, 60)
    assert started, (tmp_path / "up.log").read_text()
    assert wrapper.poll() is None, (tmp_path / "up.log").read_text()
    (lock,) = (own_state / "backend/.pulumi/locks/organization/tiny/slow").glob("*.json")
    cut = Cut(engine, directory, wrapper, lock)
    yield cut
    cut.go()
    wrapper.wait(timeout=60)


def test_a_live_lock_is_kept_and_a_dead_ones_work_is_finished(running_up: Cut) -> None:
    engine = running_up.engine
    assert engine.unlock_if_dead("slow") is False
    with pytest.raises(
        EngineError, match=r"the stack slow is locked by another run: of .* process \d+, since .* and run this again\.$"
    ):
        engine.run(["up", "--yes", "--skip-preview", "--stack", "slow"])
    beneath = {pid: identity(pid) for pid in descendants(running_up.pid)}
    os.kill(running_up.pid, signal.SIGKILL)
    running_up.wrapper.wait(timeout=60)
    assert running_up.wrapper.returncode == 1
    running_up.go()
    for pid, known in beneath.items():
        # Pulumi's own dynamic provider outlives its engine for good.
        if known is not None:
            end(pid, known)

    # Somebody else's, on another machine that shares the backend.
    lock = running_up.lock
    ours = lock.read_text()
    lock.write_text(json.dumps({**json.loads(ours), "hostname": "elsewhere"}))
    assert engine.unlock_if_dead("slow") is False
    # The number belongs to another program by now.
    lock.write_text(json.dumps({**json.loads(ours), "pid": os.getpid()}))
    assert engine.unlock_if_dead("slow") is True
    assert not lock.exists()
    lock.write_text(ours)
    assert engine.unlock_if_dead("slow") is True
    assert engine.unlock_if_dead("slow") is False

    assert [item["type"] for item in engine.export("slow")["deployment"]["pending_operations"]] == ["creating"]
    assert engine.clear_pending_creates("slow") is True
    assert not engine.export("slow")["deployment"].get("pending_operations")
    assert engine.clear_pending_creates("slow") is False
    engine.up("slow", ["--skip-preview"])
    assert engine.preview("slow")["changeSummary"] == {"same": 2}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_an_interrupted_run_ends_in_order(running_up: Cut, number: signal.Signals, code: int) -> None:
    running_up.wrapper.send_signal(number)
    # Pulumi lets the step it is at finish.
    assert not eventually(lambda: running_up.wrapper.poll() is not None, 1)
    running_up.go()
    running_up.wrapper.wait(timeout=60)
    assert running_up.wrapper.returncode == code
    assert not running_up.lock.exists()
    assert not running_up.engine.export("slow")["deployment"].get("pending_operations")


def test_only_a_file_backend_is_looked_into(project: Project, said: Said) -> None:
    engine = Engine(project.path, extra={"PULUMI_BACKEND_URL": "s3://theirs"}, say=said)
    assert engine.unlock_if_dead("one") is False


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///var/state%20files?no_tmp_dir=true", "/var/state files"),
        ("file://~/state", "{home}/state"),
        ("file://~", "{home}"),
        ("file://./state", "{project}/state"),
    ],
)
def test_where_a_file_backend_is(project: Project, said: Said, url: str, path: str) -> None:
    engine = Engine(project.path, extra={"PULUMI_BACKEND_URL": url}, say=said)
    assert engine._file_backend() == Path(path.format(home=Path.home(), project=project.path))
    assert not engine.has_own_state


@pytest.mark.parametrize("way", ["{}/backend", "{}/../synapse-media/backend?no_tmp_dir=true", "{}/link"])
def test_a_state_of_one_s_own_is_the_same_however_it_is_spelled(project: Project, said: Said, way: str) -> None:
    own = state_dir()
    (own / "backend").mkdir(exist_ok=True)
    (own / "link").symlink_to(own / "backend")
    engine = Engine(project.path, extra={"PULUMI_BACKEND_URL": f"file://{way.format(own)}"}, say=said)
    assert engine.has_own_state
    assert engine.backend == Engine(project.path, say=said).environment["PULUMI_BACKEND_URL"]


def test_the_backend_that_the_project_names(
    project: Project, said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = project.path / "Pulumi.yaml"
    file.write_text(file.read_text() + "backend:\n  url: s3://theirs\n")
    monkeypatch.setenv("AWS_PROFILE", "theirs")
    assert Engine(project.path, say=said).environment["PULUMI_BACKEND_URL"] == "s3://theirs"
    shown = session.environment(say=said, project=project.path)
    assert (shown["PULUMI_BACKEND_URL"], shown["AWS_PROFILE"]) == ("s3://theirs", "theirs")
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")
    assert Engine(project.path, say=said).environment["PULUMI_BACKEND_URL"] == f"file://{tmp_path}"


@pytest.mark.parametrize(("text", "why"), [("a: [", "can't be read as YAML"), ("- a", "is not a YAML mapping")])
def test_a_project_file_that_is_none(project: Project, said: Said, text: str, why: str) -> None:
    (project.path / "Pulumi.yaml").write_text(text)
    with pytest.raises(EngineError, match=rf"Pulumi\.yaml {why}"):
        Engine(project.path, say=said)


# Names of stacks.


def test_the_stack_that_was_selected(project: Project, own_state: Path, said: Said) -> None:
    engine = Engine(project.path, say=said)
    assert engine.selected_stack() == ""
    for name in ("one", "two"):
        project.stack(name)
        engine.ensure_stack(name)
    engine.run(["stack", "select", "one"])
    assert engine.selected_stack() == "one"


@pytest.mark.parametrize(
    ("listed", "named", "same"),
    [
        ("prod", "prod", True),
        ("prod", "test", False),
        # The backend leaves out the organization that is the user's default.
        ("prod", "acme/prod", True),
        ("acme/prod", "prod", True),
        ("acme/prod", "acme/infra/prod", True),
        ("other/prod", "acme/prod", False),
    ],
)
def test_one_stack_by_two_names(listed: str, named: str, same: bool) -> None:
    assert session._is_same(listed, named) is same


# What encrypts the secrets in a state.


@pytest.mark.parametrize(
    "theirs",
    [
        {"PULUMI_CONFIG_PASSPHRASE": ""},
        {"PULUMI_CONFIG_PASSPHRASE_FILE": ""},
        {"PULUMI_CONFIG_PASSPHRASE_FILE": "{project}/empty"},
        # Pulumi takes the variable, however empty, before the file.
        {"PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_CONFIG_PASSPHRASE_FILE": "{project}/Pulumi.yaml"},
    ],
)
def test_an_empty_passphrase_is_refused(
    project: Project, own_state: Path, said: Said, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str]
) -> None:
    (project.path / "empty").write_text("\n")
    for name, value in theirs.items():
        monkeypatch.setenv(name, value.format(project=project.path))
    project.stack("one")
    engine = Engine(project.path, say=said)
    with pytest.raises(EngineError, match=rf"^{next(iter(theirs))}.* is empty: anyone with the state"):
        engine.ensure_stack("one")
    assert not (own_state / "backend/.pulumi").exists()
    # What is previewed from nothing has one of its own.
    assert engine.preview_from_nothing("one")["changeSummary"] == {"create": 1}
