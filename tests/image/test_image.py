"""The image: linted, its steps run here as a script, and built where there is something to build it with.

The lock is made with: uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
tests/image/hadolint.in -o tests/image/hadolint.lock
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_media import __version__
from synapse_media.engine.obtain import Toolchain
from synapse_media.engine.paths import cache_dir
from tests.end_to_end.built import python_environment
from tests.providers.project import ROOT

HERE = Path(__file__).parent
CONTAINERFILE = ROOT / "Containerfile"
ABSENT = ("apt-get", "useradd", "rm -rf /var", "install -d")
"""Steps of the base system, which is another here."""


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Containerfile in order, continued lines joined, comments left out."""
    lines = [line for line in CONTAINERFILE.read_text(encoding="utf-8").splitlines() if not re.match(r"\s*#", line)]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def test_the_containerfile_is_lint_free() -> None:
    python = python_environment("hadolint", HERE / "hadolint.lock")
    done = subprocess.run(
        [python.parent / "hadolint", "--no-color", CONTAINERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_as_nobody_in_particular_and_keeps_its_state_in_a_volume() -> None:
    last = max(number for number, (name, _) in enumerate(instructions()) if name == "FROM")
    final = instructions()[last:]
    assert [arguments for name, arguments in final if name == "USER"] == ["10001:10001"]
    assert [arguments for name, arguments in final if name == "VOLUME"] == ['["/state"]']
    environment = dict(word.split("=", 1) for name, arguments in final if name == "ENV" for word in arguments.split())
    assert environment["XDG_STATE_HOME"] == "/state"
    # A secret among the build's arguments or variables would be in the image's history.
    assert {arguments.split("=")[0] for name, arguments in instructions() if name == "ARG"} == {"EXTRAS"}
    assert not [name for name in environment if re.search(r"KEY|SECRET|TOKEN|PASS", name)]


def copied() -> Iterator[str]:
    for name, arguments in instructions():
        if name == "COPY" and not arguments.startswith("--from"):
            yield from arguments.split()[:-1]


def test_nothing_that_somebody_keeps_beside_it_is_sent_to_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"

    def sent(path: str) -> bool:
        """By the last rule that fits, as https://docs.docker.com/build/concepts/context/#dockerignore-files says."""
        result = True
        for rule in rules:
            pattern = rule.removeprefix("!")
            if fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
                result = rule.startswith("!")
        return result

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for name in copied():
        within = [path for path in tracked if path == name or path.startswith(f"{name}/")]
        assert within, name
        assert all(map(sent, within)), name
    for kept in ("stacks/Pulumi.prod.yaml", ".git/config", "out/store.json", ".venv/bin/python", "passphrase"):
        assert not sent(kept), kept


def test_the_steps_make_what_runs(tmp_path: Path, engine_toolchain: Toolchain) -> None:
    """Those of the build, in directories of the test's own; then the command, with nothing of this checkout."""
    source, opt = tmp_path / "src", tmp_path / "opt/synapse-media"
    source.mkdir()
    places = {"/src": source, "/build": tmp_path / "build", "/wheels": tmp_path / "wheels", "/opt/synapse-media": opt}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "LANG", "TMPDIR") or name.startswith(("PIP_", "SSL_CERT", "REQUESTS_CA"))
        or name.lower().endswith("_proxy")
    }  # fmt: skip
    for name, arguments in instructions():
        if name == "FROM" and "AS build" not in arguments:
            break
        if name == "COPY":
            *what, where = arguments.split()
            for item in what:
                to = source / (item if where == "./" else where)
                copy = shutil.copytree if (ROOT / item).is_dir() else shutil.copy2
                copy(ROOT / item, to)  # type: ignore[operator]
        if name != "RUN" or arguments.startswith(ABSENT):
            continue
        if "obtain_pulumi" in arguments:
            # As it was obtained before: that is tried in tests/engine.
            (opt / "cache/synapse-media").mkdir(parents=True)
            (opt / "cache/synapse-media/engine").symlink_to(cache_dir() / "engine")
        # No vendor's SDK: they are the greater part of it.
        script = re.sub(
            r"(?<![\w/])(/(?:src|build|wheels|opt/synapse-media))\b", lambda at: str(places[at[1]]), arguments
        )
        done = subprocess.run(
            ["sh", "-ec", script.replace("[$EXTRAS]", "").replace("--no-cache-dir ", "")],
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    work, state = tmp_path / "work", tmp_path / "state"
    work.mkdir()
    final = {
        "PATH": f"{opt}/bin:/usr/bin:/bin",
        "HOME": str(state),
        "XDG_STATE_HOME": str(state),
        "XDG_CACHE_HOME": str(opt / "cache"),
    }

    def command(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            ["synapse-media", *arguments], cwd=work, env=final, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    assert __version__ in command("--version")
    command("init", "prod", "--provider", "wasabi", "--server-name", "example.com", "--region", "eu-central-1")
    assert "create Bucket of example.com" in command("diff", "--stack", "prod", code=2)
    assert (state / "synapse-media/passphrase").exists()


def test_it_is_built_where_there_is_something_to_build_it_with() -> None:
    builder = next((found for name in ("podman", "docker") if (found := shutil.which(name))), None)
    if builder is None or subprocess.run([builder, "info"], capture_output=True, check=False).returncode != 0:
        pytest.skip("neither podman nor a running docker is here: the image's steps are run as a script instead")
    tag = "synapse-media-test"
    subprocess.run([builder, "build", "-f", CONTAINERFILE, "-t", tag, ROOT], check=True)
    said = subprocess.run([builder, "run", "--rm", tag, "--version"], check=True, capture_output=True, text=True).stdout
    assert __version__ in said
