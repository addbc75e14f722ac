"""The real S3 servers beside the embedded one, for their tests: each built once into the cache, started on free ports.

`make servers` runs this module. A build takes 5 to 15 minutes, so `make test` runs those that are there, and never
builds one by itself. moto is a locked dependency, and is always there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from synapse_media.engine.obtain import GoProgram, ObtainError, build_once, say_on_stderr
from synapse_media.engine.paths import cache_dir

HERE = Path(__file__).resolve().parent
MINIO = "20260212"
S3S_FS = "0.14.1"
SEAWEEDFS = "20261109"


@dataclass(frozen=True, slots=True)
class Running:
    """A server with its administrator's key. `iam_endpoint`: "" if it has no IAM API."""

    endpoint: str
    iam_endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Server:
    """One that can be obtained.

    Attributes:
        build: makes its program; raises ObtainError.
        program: where it is, once it was built; None if nothing has to be built.
        command: its arguments and variables, for (folder of its data, port, access key ID, secret).
        has_iam: its IAM API is at the endpoint of its S3 API.
        asks_later: it takes any key until it is told to ask for signatures and permissions.
    """

    name: str
    command: Callable[[Path, int, str, str], tuple[list[str], Mapping[str, str]]]
    build: Callable[[], object] | None = None
    program: Path | None = None
    has_iam: bool = False
    asks_later: bool = False

    @property
    def is_there(self) -> bool:
        return self.program is None or self.program.exists()


def _engine(name: str, version: str) -> Path:
    return cache_dir() / "engine" / f"{name}-{version}"


def _with_go(name: str, version: str, package: str) -> Callable[[], object]:
    program = GoProgram(name, HERE / name, package)
    return lambda: build_once(program, _engine(name, version), say_on_stderr)


def _with_cargo() -> None:
    home = _engine("s3s-fs", S3S_FS)
    if shutil.which("cargo") is None:
        raise ObtainError(
            "cargo is not on PATH; it builds s3s-fs. Install Rust: https://rustup.rs/ (Debian: apt install cargo)."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".s3s-fs-") as staging:
        command = ["cargo", "install", "s3s-fs", "--version", S3S_FS, "--locked", "--features", "binary"]
        if subprocess.run([*command, "--root", staging], check=False).returncode:
            raise ObtainError("cargo could not build s3s-fs: see above.")
        home.mkdir(exist_ok=True)
        (Path(staging) / "bin" / "s3s-fs").rename(home / "s3s-fs")


def _minio(folder: Path, port: int, key: str, secret: str) -> tuple[list[str], Mapping[str, str]]:
    words = ["server", str(folder / "data"), "--address", f"127.0.0.1:{port}", "--quiet"]
    return words, {"MINIO_ROOT_USER": key, "MINIO_ROOT_PASSWORD": secret, "MINIO_BROWSER": "off"}


def _seaweedfs(folder: Path, port: int, key: str, secret: str) -> tuple[list[str], Mapping[str, str]]:
    """One process for all its parts, each on a free port. Its volumes are small: a bucket takes several."""
    identity = {"name": "administrator", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
    config = folder / "identities.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}))
    parts = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    words = [
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{part}={_free_port()}" for part in parts),
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",
        "-s3",
        f"-s3.port={port}",
        f"-s3.port.grpc={_free_port()}",
        f"-s3.config={config}",
    ]
    return words, {}


def _s3s_fs(folder: Path, port: int, key: str, secret: str) -> tuple[list[str], Mapping[str, str]]:
    # It can be told its key in no other way.
    words = ["--host", "127.0.0.1", "--port", str(port), "--access-key", key, "--secret-key", secret]
    return [*words, str(folder / "data")], {}


def _moto(folder: Path, port: int, key: str, secret: str) -> tuple[list[str], Mapping[str, str]]:
    return ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}


SERVERS = {
    server.name: server
    for server in (
        Server("moto", _moto, has_iam=True, asks_later=True),
        Server(
            "minio",
            _minio,
            _with_go("minio", MINIO, "github.com/minio/minio"),
            _engine("minio", MINIO) / "minio",
        ),
        Server("s3s-fs", _s3s_fs, _with_cargo, _engine("s3s-fs", S3S_FS) / "s3s-fs"),
        Server(
            "seaweedfs",
            _seaweedfs,
            _with_go("seaweedfs", SEAWEEDFS, "github.com/seaweedfs/seaweedfs/weed"),
            _engine("seaweedfs", SEAWEEDFS) / "seaweedfs",
        ),
    )
}


@contextmanager
def running(server: Server, folder: Path) -> Iterator[Running]:
    """A server that answers, its data under `folder`."""
    port = _free_port()
    key, secret = f"AK{secrets.token_hex(9).upper()}", secrets.token_hex(20)
    (folder / "data").mkdir()
    words, variables = server.command(folder, port, key, secret)
    environment = {"HOME": str(folder), "PATH": os.defpath, **variables}
    endpoint = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        command = [str(server.program or sys.executable), *words]
        child = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        _wait(endpoint, child, folder / "log")
        if server.asks_later:
            key, secret = _administrator(endpoint)
        yield Running(endpoint, endpoint if server.has_iam else "", key, secret)
    finally:
        child.kill()
        child.wait()


def _administrator(endpoint: str) -> tuple[str, str]:
    """A user of moto's that may do everything; from then on it asks for signatures and permissions."""
    import boto3

    iam = boto3.client(
        "iam", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
    )
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    iam.create_user(UserName="administrator")
    iam.put_user_policy(UserName="administrator", PolicyName="everything", PolicyDocument=document)
    made = iam.create_access_key(UserName="administrator")["AccessKey"]
    strict = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    urllib.request.urlopen(strict, timeout=5).close()
    return made["AccessKeyId"], made["SecretAccessKey"]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait(endpoint: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers, whatever it says to a stranger."""
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            try:
                urllib.request.urlopen(endpoint, timeout=5).close()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code >= 500:
                    time.sleep(0.2)
                    continue
            return
        time.sleep(0.2)
    raise RuntimeError(f"{endpoint} does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def build(names: list[str]) -> None:
    """Build those that are not there, one after the other."""
    for name in names:
        server = SERVERS[name]
        if server.build is not None and not server.is_there:
            try:
                server.build()
            except ObtainError as error:
                sys.exit(str(error))


if __name__ == "__main__":
    build(sys.argv[1:] or list(SERVERS))
