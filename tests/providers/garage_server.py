"""The real Garage, for its tests: built once into the cache, started on free ports.

`make garage` runs this module. It takes 10 to 40 minutes, so `make test` never does it by itself.
"""

from __future__ import annotations

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from synapse_media.engine.paths import cache_dir

VERSION = "2.5.0"
REGION = "garage"


def binary() -> Path:
    """Where it is, once it was built."""
    return cache_dir() / "engine" / f"garage-{VERSION}" / "garage"


def build() -> None:
    """Build it with cargo, from its own lock file; nothing is left half-made."""
    if binary().exists():
        return
    if shutil.which("cargo") is None:
        sys.exit(
            "cargo is not on PATH; it builds Garage. Install Rust: https://rustup.rs/ (Debian: apt install cargo)."
        )
    binary().parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary().parent.parent, prefix=".garage-") as staging:
        command = ["cargo", "install", "garage", "--version", VERSION, "--locked", "--root", staging]
        if subprocess.run(command, check=False).returncode:
            sys.exit("cargo could not build Garage: see above.")
        binary().parent.mkdir(exist_ok=True)
        (Path(staging) / "bin" / "garage").rename(binary())


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster of one node."""

    endpoint: str
    admin_endpoint: str
    token: str = field(repr=False)


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """A node that is well, its data under `folder`."""
    s3, admin, rpc = (_free_port() for _ in range(3))
    token = secrets.token_hex(16)
    config = folder / "garage.toml"
    config.touch(mode=0o600)
    config.write_text(
        f"""metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secrets.token_hex(32)}"
[s3_api]
s3_region = "{REGION}"
api_bind_addr = "127.0.0.1:{s3}"
root_domain = ".s3.localhost"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
admin_token = "{token}"
"""
    )
    environment = {"HOME": str(folder), "PATH": os.defpath, "RUST_LOG": "garage=warn"}
    with (folder / "log").open("wb") as log:
        command = [str(binary()), "-c", str(config), "server", "--single-node"]
        node = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        _wait(f"http://127.0.0.1:{admin}/health", node, folder / "log")
        yield Running(f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{admin}", token)
    finally:
        # Asked politely it takes ten seconds; its data goes with the test.
        node.kill()
        node.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait(url: str, node: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while node.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"garage does not run:\n{log.read_text()[-2000:]}")


if __name__ == "__main__":
    build()
