"""`make setup` asks for what it needs, does its work once, and starts again where it was cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engine.helpers import script

_ROOT = Path(__file__).resolve().parents[2]
_TOOLS = ("sh", "make", "awk", "touch", "mkdir", "cp")

# A stand-in for Python: says which version it is, makes an "environment" holding itself, and notes what it is asked. It
# is uv's, too.
_PYTHON = """
echo "$*" >> {log}
case "$*" in
  -V) echo Python {version} ;;
  *version_info*) exit {too_old} ;;
  *ensurepip*) exit {no_venv} ;;
  *"-m pip --version") test -e .venv/pip ;;
  *install*uv.lock) cp "$0" .venv/bin/uv; exit {pip} ;;
  *install*) exit {pip} ;;
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && touch .venv/pip ;;
esac
"""


class Place:
    """A copy of what `make setup` reads, with only the tools that the test names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "repo"
        self.bin = directory / "bin"
        self.log = directory / "log"
        self.cache = directory / "cache"
        self.directory.mkdir()
        self.bin.mkdir()
        for name in ("Makefile", "requirements.lock", "pyproject.toml"):
            shutil.copyfile(_ROOT / name, self.directory / name)
        for name in _TOOLS:
            found = shutil.which(name)
            if found:
                (self.bin / name).symlink_to(found)
        self.python()
        script(self.bin / "git", "exit 0")
        script(self.bin / "go", "exit 0")

    def python(self, name: str = "python3", **answers: object) -> None:
        """The stand-in; `answers`: its version, and exit codes for what it is asked."""
        defaults = {"version": "3.11.0", "too_old": 0, "no_venv": 0, "pip": 0}
        script(self.bin / name, _PYTHON.format(log=self.log, **{**defaults, **answers}))

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.directory,
            env={"PATH": str(self.bin), "HOME": str(self.directory), "XDG_CACHE_HOME": str(self.cache)},
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self) -> list[str]:
        """What Python and uv were asked to do since the last time, but for the checks."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if line.startswith(("-m", "pip ")) and "--version" not in line]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_setting_up_installs_once_and_then_only_looks(place: Place) -> None:
    assert place.make("setup").returncode == 0
    venv, uv, lock, package, engine = place.asked()
    assert venv == "-m venv --clear .venv"
    assert "install --quiet --no-deps --require-hashes -r .venv/uv.lock" in uv
    assert lock == "pip install --quiet --python .venv/bin/python --no-deps --require-hashes -r requirements.lock"
    assert "install --quiet --no-deps --no-build-isolation -e ." in package
    assert engine == "-m synapse_media.engine"
    assert place.make("setup").returncode == 0
    assert place.asked() == [engine]


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_is_installed_into_the_same_environment(place: Place, changed: str) -> None:
    place.make("setup")
    ready = (place.directory / ".venv/.ready").stat().st_mtime
    os.utime(place.directory / changed, (ready + 10, ready + 10))
    place.asked()
    place.make("setup")
    asked = place.asked()
    assert len(asked) == 4
    assert not [line for line in asked if "-m venv" in line]


@pytest.mark.parametrize("lost", ["pip", "bin/python"])
def test_an_environment_that_is_not_whole_is_made_again(place: Place, lost: str) -> None:
    place.make("setup")
    (place.directory / ".venv" / lost).unlink()
    if lost == "pip":  # cut off while it was made: then there was no mark yet either
        (place.directory / ".venv/.ready").unlink()
    place.asked()
    assert place.make("setup").returncode == 0
    assert "-m venv --clear .venv" in place.asked()


def test_an_installation_that_fails_is_tried_again(place: Place) -> None:
    place.python(pip=1)
    assert place.make("setup").returncode != 0
    assert any("uv.lock" in line for line in place.asked())
    place.python()
    (place.directory / ".venv/bin/python").unlink()
    assert place.make("setup").returncode == 0
    assert any("requirements.lock" in line for line in place.asked())


def refusal(place: Place, *arguments: str) -> str:
    done = place.make("setup", *arguments)
    assert done.returncode != 0
    assert place.asked() == []
    return done.stderr


def test_a_missing_python_is_named(place: Place) -> None:
    (place.bin / "python3").unlink()
    assert "python3 is not on PATH. Install Python 3.11 or newer" in refusal(place)


def test_an_old_python_is_named_and_another_can_be_chosen(place: Place) -> None:
    place.python(version="3.9.2", too_old=1)
    place.python("python3.12", version="3.12.1")
    message = refusal(place)
    assert "python3 is Python 3.9.2; 3.11 or newer is needed" in message
    assert "make setup PYTHON=python3.12" in message
    assert place.make("setup", "PYTHON=python3.12").returncode == 0


def test_a_python_without_venv_is_named(place: Place) -> None:
    place.python(no_venv=1)
    assert "apt install python3-venv" in refusal(place)


def test_a_missing_git_is_named(place: Place) -> None:
    (place.bin / "git").unlink()
    assert "git is not on PATH. Install it" in refusal(place)


def test_a_missing_go_is_named_unless_the_engine_is_there(place: Place) -> None:
    (place.bin / "go").unlink()
    assert "Install Go 1.25 or newer (https://go.dev/dl/)" in refusal(place)
    (place.cache / "synapse-media/engine").mkdir(parents=True)
    assert place.make("setup").returncode == 0


def test_the_targets_are_listed(place: Place) -> None:
    shown = place.make().stdout
    for target in ("setup", "check", "test"):
        assert f"make {target} " in shown
