"""What the end-to-end tests run for real, built once into the user's cache directory from committed locks."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from synapse_media.engine.files import locked
from synapse_media.engine.obtain import GoProgram, build_once, say_on_stderr
from synapse_media.engine.paths import cache_dir

HERE = Path(__file__).resolve().parent


class BuildError(Exception):
    """An environment could not be made; carries the end of what was said."""


def python_environment(name: str, lock: Path) -> Path:
    """The Python of an environment that holds exactly what `lock` pins; wheels only, so that no compiler is needed.

    Safe to interrupt (what is unfinished is thrown away) and to call twice at once (one waits for the other).
    """
    home = _home(name, [lock], sys.version, sys.base_prefix)
    python = home / "bin" / "python"
    done = home / ".complete"
    if not done.exists():
        with locked(home.with_suffix(".lock")):
            if not done.exists():
                shutil.rmtree(home, ignore_errors=True)
                say_on_stderr(f"Making the environment {home.name} …")
                _run(sys.executable, "-m", "venv", home)
                pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps")
                _run(*pip, "--only-binary", ":all:", "--require-hashes", "-r", lock)
                done.touch()
    return python


def go_program(module: Path, package: str) -> Path:
    """The program that `package` is, built from the go.mod and go.sum in `module`. Raises ObtainError."""
    sources = [path for path in module.iterdir() if path.is_file()]
    return build_once(GoProgram(module.name, module, package), _home(module.name, sources), say_on_stderr)


def _home(name: str, inputs: Iterable[Path], *also: str) -> Path:
    """A directory of the cache, named after everything that decides what is built into it."""
    digest = hashlib.sha256("\0".join(also).encode())
    for path in sorted(inputs):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    tests = cache_dir() / "tests"
    tests.mkdir(exist_ok=True)
    return tests / f"{name}-{digest.hexdigest()[:16]}"


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")
