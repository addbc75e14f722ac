"""Install the engine, the embedded store's program and rclone, without root and only into the cache directory.

The engine is the `pulumi` on PATH if it is new enough, else one installed before, else downloaded with the vendor's
installer, else built with Go from the pinned modules in `sources/`. The embedded store is always built; rclone is the
one on PATH if it is new enough, else built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, cast

from synapse_media.engine import versions
from synapse_media.engine.files import locked
from synapse_media.engine.paths import cache_dir
from synapse_media.engine.processes import environment
from synapse_media.errors import SynapseMediaError
from synapse_media.signals import ended_in_order

Say = Callable[[str], None]
Route = Literal["path", "vendor", "source"]

ROUTE_VARIABLE = "SYNAPSE_MEDIA_ENGINE"
_HOST = "pulumi-language-python"
_LAUNCHERS = {f"{_HOST}-exec": "python/cmd", "pulumi-resource-pulumi-python": "python/dist"}
_GET_GO = "Install Go {} or newer: https://go.dev/dl/"
_MINIMUM_GO = ".".join(map(str, versions.MINIMUM_GO))
_VENDOR_SCRIPT = """
import socket, sys
socket.setdefaulttimeout(20)
from semver import VersionInfo
from pulumi.automation import PulumiCommand
PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))
"""


class ObtainError(SynapseMediaError):
    """The engine or the embedded store's program could not be obtained. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The engine: the directory to put first on PATH, the CLI in it, and how it was obtained."""

    bin: Path
    pulumi: Path
    route: Route


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A Go program to build: the directory of its go.mod, its package, the linker's -X setting, a note for the log."""

    name: str
    source: Path
    package: str
    stamp: str = ""
    note: str = ""


def _source(name: str) -> Path:
    return Path(str(resources.files("synapse_media.engine") / "sources" / name))


PULUMI = GoProgram(
    "pulumi",
    _source("pulumi"),
    "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    # Required by the Automation API, and by the check in _on_path.
    f"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{versions.PULUMI}",
    "; the first time takes 4 to 15 minutes and 3 GB of Go's caches",
)
LANGUAGE_HOST = GoProgram(
    _HOST, _source("language-python"), "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"
)
VERSITYGW = GoProgram(
    "versitygw",
    _source("versitygw"),
    ".",  # a main of our own: versitygw's has every backend, the clients of their clouds, and its own tests
    f"main.Version={versions.VERSITYGW}",
)
RCLONE = GoProgram(
    "rclone",
    _source("rclone"),
    ".",  # a main of our own: with every backend the program is five times as large, and takes as much longer
    f"github.com/rclone/rclone/fs.Version=v{versions.RCLONE}",
    ", with what copying media needs; the first time takes 1 to 5 minutes",
)


def say_on_stderr(text: str) -> None:
    """Print progress on standard error: the default."""
    print(text, file=sys.stderr, flush=True)


_LINE_EVERY = 30.0
"""Seconds between two lines on how far a build is, where there is no terminal."""


class _Progress:
    """How far a build is: on a terminal one line that changes, elsewhere a line every half minute."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._in_place = say is say_on_stderr and sys.stderr.isatty()
        self._shown = time.monotonic()

    def show(self, text: Callable[[], str]) -> None:
        """`text` is asked for only where it is shown."""
        if time.monotonic() - self._shown < (1 if self._in_place else _LINE_EVERY):
            return
        self._shown = time.monotonic()
        if self._in_place:
            print(f"\r\x1b[K{text()}", end="", file=sys.stderr, flush=True)
        else:
            self._say(text())

    def clear(self) -> None:
        if self._in_place:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def obtain_pulumi(say: Say = say_on_stderr) -> Toolchain:
    """The engine, installed if necessary.

    The variable SYNAPSE_MEDIA_ENGINE (path, vendor or source) forces one route. Raises ObtainError.
    """
    forced = os.environ.get(ROUTE_VARIABLE, "")
    if forced not in ("", "path", "vendor", "source"):
        raise ObtainError(f"{ROUTE_VARIABLE} is {forced!r}; allowed: path, vendor, source. Unset it to try all.")
    home = _engine_dir() / f"pulumi-{versions.PULUMI}"
    why_not = ""
    if forced in ("", "path"):
        found, why_not = _on_path(home)
        if found:
            return found
        if forced:
            raise ObtainError(f"{ROUTE_VARIABLE}=path, but {why_not or 'there is no pulumi on PATH.'}")
    routes = cast("tuple[Route, ...]", (forced,) if forced else ("vendor", "source"))
    if kept := _kept(home, routes):
        return kept
    with _one_at_a_time(home.name, say):
        if kept := _kept(home, routes):  # another process installed it meanwhile
            return kept
        if why_not:
            say(f"Not using the pulumi on PATH: {why_not}")
        if "vendor" in routes:
            try:
                return _from_vendor(home, say)
            except ObtainError as error:
                if forced:
                    raise
                say(f"{error} Building it from source instead.")
        return _from_source(home, say)


def obtain_versitygw(say: Say = say_on_stderr) -> Path:
    """The embedded store's program, built if necessary. Raises ObtainError."""
    return build_once(VERSITYGW, _home_of_versitygw(), say)


def require_go() -> None:
    """Raise ObtainError where nothing can be built."""
    _go_version(VERSITYGW.source)


def has_versitygw() -> bool:
    """Whether the embedded store's program was built before."""
    return (_home_of_versitygw() / VERSITYGW.name).exists()


def _home_of_versitygw() -> Path:
    return _home_of(VERSITYGW, versions.VERSITYGW)


def _home_of(program: GoProgram, version: str) -> Path:
    """Where a program with a main of our own is kept: another source is another program, and is built anew."""
    files = sorted(path for path in program.source.iterdir() if path.suffix in (".go", ".mod", ".sum"))
    digest = hashlib.sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in files))
    return _engine_dir() / f"{program.name}-{version}-{digest.hexdigest()[:12]}"


def obtain_rclone(say: Say = say_on_stderr) -> Path:
    """rclone: the one on PATH if it is new enough, else one of our own, built if necessary. Raises ObtainError."""
    found, why_not = _rclone_on_path()
    if found:
        return found
    home = _home_of(RCLONE, versions.RCLONE)
    if why_not and not home.exists():
        say(f"Not using the rclone on PATH: {why_not}")
    try:
        return build_once(RCLONE, home, say)
    except ObtainError as error:
        wanted = ".".join(map(str, versions.MINIMUM_RCLONE))
        raise ObtainError(
            f"{why_not or 'There is no rclone on PATH.'} Install {wanted} or newer (Debian: apt install rclone; "
            f"https://rclone.org/install/). It could not be built here either: {error}"
        ) from None


def _rclone_on_path() -> tuple[Path | None, str]:
    """The `rclone` on PATH, or why it can't be used ("" if there is none)."""
    found = shutil.which("rclone")
    if found is None:
        return None, ""
    # rclone 1.60 does not start at all with this variable.
    env = {name: value for name, value in environment().items() if name != "AWS_CA_BUNDLE"}
    try:
        answer = subprocess.run(
            [found, "version", "--config="], capture_output=True, text=True, timeout=30, check=True, env=env
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{found} does not answer `rclone version` ({type(error).__name__})."
    match = re.match(r"rclone v(\d+)\.(\d+)", answer)
    if match is None or (int(match[1]), int(match[2])) < versions.MINIMUM_RCLONE:
        wanted = ".".join(map(str, versions.MINIMUM_RCLONE))
        first = answer.strip().partition("\n")[0]
        return None, f"{found} is {first or 'of no version'}; {wanted} or newer is needed."
    return Path(found), ""


def build_once(program: GoProgram, home: Path, say: Say) -> Path:
    """Build a program into `home` unless it exists. One process builds; concurrent ones wait for it."""
    binary = home / program.name
    if not binary.exists():
        with _one_at_a_time(home.name, say), _staging(home) as staging:
            if not binary.exists():
                go_build(program, staging / program.name, say)
                home.parent.mkdir(parents=True, exist_ok=True)
                staging.rename(home)
    return binary


def _engine_dir() -> Path:
    path = cache_dir() / "engine"
    path.mkdir(exist_ok=True)
    return path


def _kept(home: Path, routes: Sequence[Route]) -> Toolchain | None:
    for route in routes:
        if (home / route / "bin" / "pulumi").exists():
            return _toolchain(home, route)
    return None


def _toolchain(home: Path, route: Route) -> Toolchain:
    bin_ = home / route / "bin"
    return Toolchain(bin_, bin_ / "pulumi", route)


@contextlib.contextmanager
def _one_at_a_time(name: str, say: Say) -> Iterator[None]:
    with locked(_engine_dir() / f".{name}.lock", lambda: say(f"Another process is obtaining {name}; waiting for it.")):
        yield


@contextlib.contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """A temporary directory, to be renamed to `home` when complete. Called under the lock, so any other is stale."""
    home.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{home.name}.staging-"
    for waste in home.parent.glob(f"{prefix}*"):
        shutil.rmtree(waste, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(dir=home.parent, prefix=prefix))
    staging.chmod(0o755)
    try:
        with ended_in_order():
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _on_path(home: Path) -> tuple[Toolchain | None, str]:
    """The `pulumi` on PATH, or why it can't be used ("" if there is none)."""
    found = shutil.which("pulumi")
    if found is None:
        return None, ""
    pulumi = Path(found)
    if pulumi.is_relative_to(home):  # ours, by `synapse-media env`
        return None, ""
    try:
        answer = subprocess.run(
            [found, "version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={**environment(), "PULUMI_SKIP_UPDATE_CHECK": "1"},
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{found} does not answer `pulumi version` ({type(error).__name__})."
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", answer)
    version = tuple(int(part) for part in match.groups()) if match else (0,)
    if version < versions.MINIMUM_PULUMI or version[0] != versions.MINIMUM_PULUMI[0]:
        wanted = ".".join(map(str, versions.MINIMUM_PULUMI))
        return None, f"{found} is {answer or 'of no version'}; {wanted} or newer (3.x) is needed."
    if not (pulumi.resolve().parent / _HOST).exists() and shutil.which(_HOST) is None:
        return None, f"{found} has no {_HOST} beside it or on PATH."
    return Toolchain(pulumi.parent, pulumi, "path"), ""


def _from_vendor(home: Path, say: Say, *, silence: float = 25, limit: float = 900) -> Toolchain:
    """Run the vendor's installer; give up after `silence` seconds without a byte written, or after `limit` seconds."""
    say(f"Trying the vendor's installer for pulumi {versions.PULUMI} …")
    target = home / "vendor"
    with _staging(target) as staging:
        scratch = staging / "tmp"
        scratch.mkdir()
        log = staging / "log"
        deadline = time.monotonic() + limit
        size, quiet_since = 0, time.monotonic()

        def watch() -> str:
            nonlocal size, quiet_since
            now = time.monotonic()
            if (grown := _tree_size(staging)) != size:
                size, quiet_since = grown, now
            if now - quiet_since > silence:
                return f"nothing arrived for {silence:.0f} s"
            return f"it took longer than {limit:.0f} s" if now > deadline else ""

        command = [sys.executable, "-c", _VENDOR_SCRIPT, str(staging), versions.PULUMI]
        # The installer downloads to TMPDIR, so its progress shows there.
        why = _run_watched(command, log, env={**environment(), "TMPDIR": str(scratch)}, cwd=staging, watch=watch)
        if why is None and not (staging / "bin" / _HOST).exists():
            why = f"it did not install {_HOST}"
        if why is not None:
            last = _tail(log, 1)
            raise ObtainError(f"The vendor's installer did not work: {why}{f' ({last})' if last else ''}.")
        shutil.rmtree(scratch)
        log.unlink()
        staging.rename(target)
    return _toolchain(home, "vendor")


def _from_source(home: Path, say: Say) -> Toolchain:
    target = home / "source"
    with _staging(target) as staging:
        bin_ = staging / "bin"
        bin_.mkdir()
        go_build(LANGUAGE_HOST, bin_ / _HOST, say)
        go_build(PULUMI, bin_ / "pulumi", say)
        with _writable(PULUMI.source) as module:
            answer = _go(["mod", "download", "-json", "github.com/pulumi/pulumi/sdk/v3"], cwd=module).stdout
        sdk = Path(json.loads(answer)["Dir"])
        for name, folder in _LAUNCHERS.items():
            shutil.copyfile(sdk / folder / name, bin_ / name)
            (bin_ / name).chmod(0o755)
        staging.rename(target)
    return _toolchain(home, "source")


def go_build(program: GoProgram, output: Path, say: Say) -> None:
    """Build a program with Go from its pinned modules. Raises ObtainError."""
    with _writable(program.source) as module:
        version = _go_version(module)
        say(f"Building {program.name} with Go {version}{program.note} …")
        began = time.monotonic()
        log = output.with_name(f"{output.name}.log")
        progress = _Progress(say)

        def reached() -> str:
            # Go prints the name of each package that it compiles, and not how many there are.
            packages = log.read_bytes().count(b"\n")
            return f"  {program.name}: {packages} packages in {time.monotonic() - began:.0f} s"

        def watch() -> str:
            progress.show(reached)
            return ""

        ldflags = f"-s -w -X {program.stamp}" if program.stamp else "-s -w"
        command = ["go", "build", "-v", "-trimpath", "-ldflags", ldflags, "-o", str(output), program.package]
        try:
            why = _run_watched(command, log, env=_go_environment(), cwd=module, watch=watch)
        finally:
            progress.clear()
        if why is not None:
            output.unlink(missing_ok=True)
            raise ObtainError(f"Building {program.name} failed: {why}.\n{_tail(log, 15)}\n{_hint(log)}".rstrip())
        log.unlink()
        say(f"Built {program.name} in {time.monotonic() - began:.0f} s.")


def _go_environment() -> dict[str, str]:
    """The environment for Go: the user's GO… variables, except those that would change the result."""
    return {
        **environment("GO[A-Z0-9]+"),
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        # Without cgo the result does not depend on a C compiler, and runs with any C library.
        "CGO_ENABLED": "0",
    }


def _go(arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["go", *arguments], cwd=cwd, env=_go_environment(), capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise ObtainError(
            f"`go` is not on PATH, and is needed to build what could not be downloaded. {_GET_GO.format(_MINIMUM_GO)}"
        ) from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        wanted = re.search(r"requires go >= ([\d.]+\d)", error.stderr)
        hint = f"{_GET_GO.format(wanted[1])}, or set GOTOOLCHAIN=auto so that this one fetches it." if wanted else ""
        raise ObtainError(f"`go {' '.join(arguments)}` failed: {' '.join(lines[-3:])} {hint}".rstrip()) from error


def _go_version(module: Path) -> str:
    """The version of Go in this module: Go may switch to the one that go.mod requires (GOTOOLCHAIN=auto)."""
    answer = _go(["version"], cwd=module).stdout
    match = re.search(r"\bgo(\d+)\.(\d+)(\S*)", answer)
    if match is None or (int(match[1]), int(match[2])) < versions.MINIMUM_GO:
        raise ObtainError(f"Go is too old: {answer.strip()!r}. {_GET_GO.format(_MINIMUM_GO)}")
    return f"{match[1]}.{match[2]}{match[3]}"


def _hint(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    if re.search(r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake|proxyconnect", text):
        return (
            "The Go module proxy can't be reached: check the network, or set GOPROXY to one that can be "
            "(https://go.dev/ref/mod#module-proxy)."
        )
    if "no space left on device" in text:
        return f"Free about 4 GB under {cache_dir()} and where `go env GOCACHE GOMODCACHE` point."
    return ""


@contextlib.contextmanager
def _writable(source: Path) -> Iterator[Path]:
    """A copy of a module's files: the originals may be read-only, and Go would read a go.work in a parent directory."""
    with tempfile.TemporaryDirectory(prefix="synapse-media-") as name:
        for item in source.iterdir():
            if item.is_file():
                shutil.copyfile(item, Path(name) / item.name)
        yield Path(name)


def _run_watched(
    command: Sequence[str], log: Path, *, env: Mapping[str, str], cwd: Path, watch: Callable[[], str]
) -> str | None:
    """Run a command; None if it succeeded, else why not. `watch` is polled twice a second for a reason to give up.

    The child and its descendants are killed when this returns or raises, on Ctrl-C too.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=cwd, process_group=0
        )
    try:
        while True:
            try:
                code = child.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if why := watch():
                    return why
            else:
                return None if code == 0 else f"it ended with code {code}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _tree_size(path: Path) -> int:
    total = 0
    for item in path.rglob("*"):
        with contextlib.suppress(OSError):  # it may vanish meanwhile
            total += item.lstat().st_size
    return total


def _tail(log: Path, lines: int) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return "\n".join(text.splitlines()[-lines:])
