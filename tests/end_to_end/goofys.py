"""The real Goofys v0.24.0, mounted as a systemd unit or a line of fstab says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end import built, systemd

_SECONDS = 60.0
_CAP_SYS_ADMIN = 1 << 21
_OCTAL = re.compile(r"\\([0-7]{3})")


class MountError(Exception):
    """Goofys ended, or nothing was mounted; carries what it said."""


def program() -> Path:
    """Goofys, built from the Go module proxy on the first call."""
    return built.go_program(built.HERE / "goofys", "github.com/kahing/goofys")


def unusable() -> str:
    """Why this machine can't mount, or "" where it can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as problem:
        return f"/dev/fuse can't be opened: {problem.strerror}"
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    if not capabilities & _CAP_SYS_ADMIN and shutil.which("fusermount") is None:
        return "mounting needs root, or fusermount"
    return ""


@contextmanager
def mounted_by_unit(unit: str, environment_file: str, mount_point: Path, log: Path) -> Iterator[None]:
    """The command lines of a unit and the variables of its EnvironmentFile=, until it is unmounted again.

    Goofys' path is another, and so is fusermount's where it is not installed. Raises MountError.
    """
    service = systemd.unit(unit)["Service"]
    environment = {"PATH": os.environ["PATH"], **systemd.environment_file(environment_file)}
    commands = {
        key: [systemd.command(line.removeprefix("-"), environment) for line in lines]
        for key, lines in service.items()
        if key.startswith("Exec")
    }
    for before in commands["ExecStartPre"]:
        subprocess.run(_fusermount(before), env=environment, check=False, stderr=subprocess.DEVNULL)
    (start,) = commands["ExecStart"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(program()), *start[1:]], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        for after in commands["ExecStartPost"]:
            subprocess.run(after, env=environment, check=True, timeout=_SECONDS)
        if not mount_point.is_mount():
            raise MountError(f"nothing is mounted on {mount_point}: {log.read_text()[-4000:]}")
        yield
        for stop in commands["ExecStop"]:
            subprocess.run(_fusermount(stop), env=environment, check=True)
        process.wait(_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
            subprocess.run(["umount", "--lazy", mount_point], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def mounted_by_fstab(fstab: str, credentials: str, home: Path) -> Iterator[Path]:
    """A line of fstab, mounted as mount.fuse(8) does it, with `credentials` in the home directory given.

    Yields the mount point. Raises MountError.
    """
    (line,) = (line for line in fstab.splitlines() if line and not line.startswith("#"))
    source, target, kind, options, *_ = (_OCTAL.sub(lambda found: chr(int(found[1], 8)), word) for word in line.split())
    helper, _, bucket = source.partition("#")
    if (helper, kind) != ("goofys", "fuse"):
        raise MountError(f"not Goofys': {line}")
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(credentials)
    # mount.fuse keeps what is for init alone to itself.
    passed = ",".join(["rw", *(word for word in options.split(",") if word != "_netdev")])
    done = subprocess.run(
        [str(program()), bucket, target, "-o", passed],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    mount_point = Path(target)
    if done.returncode or not mount_point.is_mount():
        raise MountError(f"goofys ended with {done.returncode}: {done.stdout}{done.stderr}")
    try:
        yield mount_point
    finally:
        subprocess.run(_fusermount(["fusermount", "-u", target]), check=True)


def _fusermount(command: list[str]) -> list[str]:
    """As it is, or for root, who needs no fusermount, its equal."""
    if Path(command[0]).name != "fusermount":
        raise MountError(f"not an unmount: {command}")
    if shutil.which(command[0]) is not None:
        return command
    return ["umount", *(["--lazy"] if "-z" in command else []), command[-1]]
