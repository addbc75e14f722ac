"""What the end-to-end tests run for real, built once into the user's cache directory from committed locks."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Read at import: tests give their children an XDG_CACHE_HOME of their own, which would mean building again.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "synapse-media" / "tests"
_DONE = ".complete"


class BuildError(Exception):
    """A tool could not be built; carries the end of what the build said."""


def build_once(name: str, inputs: Iterable[Path], build: Callable[[Path], None], *also: str) -> Path:
    """The directory `<cache>/<name>-<hash of inputs>`, filled by `build` unless an earlier run has finished it.

    Safe to interrupt (an unfinished directory is thrown away) and to run twice at once (one waits for the other).

    Args:
        inputs: files that decide what is built; `also`: words that do, such as a version of a compiler.
    """
    digest = hashlib.sha256("\0".join(also).encode())
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    directory = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if (directory / _DONE).exists():
        return directory
    CACHE.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / _DONE).exists():
            if directory.exists():
                shutil.rmtree(directory)
            directory.mkdir()
            build(directory)
            (directory / _DONE).touch()
    return directory


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run one step of a build. Raises BuildError with the end of its output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def python_environment(name: str, lock: Path) -> Path:
    """The Python of an environment that holds exactly what `lock` pins; wheels only, so that no compiler is needed."""

    def build(directory: Path) -> None:
        run(sys.executable, "-m", "venv", directory)
        run(
            *(directory / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", lock),
        )

    return build_once(name, [lock], build, sys.version, sys.base_prefix) / "bin" / "python"


def go_program(module: Path, package: str) -> Path:
    """The program that `package` is, built without cgo from the go.mod and go.sum in `module`.

    Raises BuildError naming Go where there is none.
    """
    if shutil.which("go") is None:
        raise BuildError("Go 1.25 or newer is needed to build this test's programs: https://go.dev/doc/install")
    sources = sorted(path for path in module.iterdir() if path.suffix in {".go", ".mod", ".sum"})

    def build(directory: Path) -> None:
        run(
            *("go", "build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-o", directory / "program", package),
            cwd=module,
            env={"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""},
        )

    return build_once(module.name, sources, build, platform.machine(), platform.system()) / "program"
