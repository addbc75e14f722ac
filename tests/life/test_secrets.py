"""While `up` runs, and after it: who could read what."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from synapse_media.store import tracing
from tests.cli.shapes import answer
from tests.life.life import Life

COMMAND = str(Path(sys.executable).parent / "synapse-media")
FOREIGN = "a-token-of-another-program"


@contextmanager
def watching(mark: str) -> Iterator[dict[str, set[str]]]:
    """Command lines and environments of every process that has `mark` in its environment, as others could see them."""
    seen: dict[str, set[str]] = {"cmdline": set(), "environ": set()}
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for place in Path("/proc").glob("[0-9]*"):
                try:
                    environ = (place / "environ").read_text(errors="replace")
                    if mark in environ:
                        seen["environ"].add(environ)
                        seen["cmdline"].add((place / "cmdline").read_text(errors="replace").replace("\0", " "))
                except OSError:
                    continue
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_no_argument_holds_a_credential_and_no_child_gets_more_than_it_needs(
    begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = begin()
    life.store()
    monkeypatch.setenv("OTHER_PROGRAMS_TOKEN", FOREIGN)
    project = life.stack.engine.project
    with watching(os.environ["XDG_STATE_HOME"]) as seen:
        done = subprocess.run(
            [COMMAND, "up", "--stack", life.stack.name, "--yes"],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
            umask=0,
        )
    assert done.returncode == 0, done.stderr
    issued = life.stack.outputs().secret_access_key
    passphrase = Path(life.stack.engine.environment["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()
    lines = "\n".join(seen["cmdline"])
    assert "synapse_media.plugin" in lines
    assert "pulumi-language-python" in lines
    for secret in (issued, passphrase, life.running.secret_access_key):
        assert secret not in lines
        assert secret not in done.stdout + done.stderr
    # Only the command itself has what the user's shell has; the issued key is in no environment at all.
    command = [environ for environ in seen["environ"] if FOREIGN in environ]
    assert len(command) <= 1
    assert len(seen["environ"]) > 3
    assert not [environ for environ in seen["environ"] if issued in environ or passphrase in environ]


def test_what_is_written_is_its_owners_whatever_the_umask(life: Life, tmp_path: Path, own_directories: Path) -> None:
    project = life.stack.engine.project
    subprocess.run([COMMAND, "rotate", "--stack", life.stack.name, "--yes"], cwd=project, umask=0, check=True)
    out = tmp_path / "rendered"
    subprocess.run([COMMAND, "render", "--stack", life.stack.name, "--out", out], cwd=project, umask=0, check=True)
    secret = life.stack.outputs().secret_access_key
    state = Path(os.environ["XDG_STATE_HOME"]) / "synapse-media"
    # Nobody else gets past this directory.
    assert state.stat().st_mode & 0o777 == 0o700
    for path in state.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    holding = [path for path in out.rglob("*") if path.is_file() and secret in path.read_text()]
    assert holding
    for path in holding:
        assert path.stat().st_mode & 0o777 == 0o600, path
    for path in project.rglob("*"):
        if path.is_file() and ".venv" not in path.parts and out not in path.parents:
            assert secret.encode() not in path.read_bytes(), path


def test_each_call_is_shown_where_it_is_asked_for(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "api: " not in life.command("diff", "--refresh")[1]
    monkeypatch.setenv(tracing.VARIABLE, "")
    code, printed = life.command("diff", "--refresh", "-v")
    assert code == 0
    assert "api: GetBucketTagging GET" in printed
    assert "api: ListAccessKeys POST" in printed
    code, printed = life.command("rotate", "-v", "--yes")
    assert code == 0
    assert "api: CreateAccessKey POST" in printed
    assert ", request " in printed
    for secret in (life.stack.outputs().secret_access_key, life.running.secret_access_key):
        assert secret not in printed


def test_what_there_is_can_be_had_as_json_without_a_secret(life: Life) -> None:
    done = subprocess.run(
        [COMMAND, "up", "--stack", life.stack.name, "--yes", "--json"],
        cwd=life.stack.engine.project,
        capture_output=True,
        text=True,
        check=True,
    )
    outputs = life.stack.outputs()
    found = answer("up", done.stdout)["stores"][outputs.server_name]
    assert found["access_key_id"] == outputs.access_key_id
    assert found["proof"]["put"] == "allowed"
    assert "no changes" in done.stderr
    assert outputs.secret_access_key not in done.stdout + done.stderr
