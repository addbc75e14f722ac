"""A real PostgreSQL of a test's own, where the machine has one: Debian's package, or any whose programs are on PATH."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "synapse_user"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, which takes passwords over TCP only. `database` is that of a homeserver: UTF-8, locale C."""

    port: int
    password: str = field(repr=False)
    database: str = "synapse"
    user: str = _USER
    host: str = "127.0.0.1"

    @property
    def settings(self) -> dict[str, Any]:
        """`database` of a homeserver.yaml."""
        arguments = {name: getattr(self, name) for name in ("user", "password", "database", "host", "port")}
        return {"name": "psycopg2", "args": {**arguments, "cp_min": 1, "cp_max": 3}}

    @property
    def url(self) -> str:
        """Without the password."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"


def programs() -> Path | None:
    """The directory with initdb and postgres; None where there is none."""
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(_DEBIAN.glob("*/bin"), key=lambda path: -int(path.parent.name.split(".")[0]))
    return next((path for path in candidates if (path / "postgres").exists() and (path / "initdb").exists()), None)


@contextmanager
def running(at: Path) -> Iterator[Server]:
    """A new, empty server of the programs in `at`. It refuses to run as root, who starts it as nobody."""
    # Not below pytest's own directory, which only its user may enter.
    home = Path(tempfile.mkdtemp(prefix="synapse-media-postgresql-"))
    other = []
    if os.geteuid() == 0:
        shutil.chown(home, "nobody", "nogroup")
        other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    try:
        server = Server(_free_port(), secrets.token_urlsafe(16))
        password = home / "password"
        password.write_text(server.password)
        password.chmod(0o644)
        _run(
            *(*other, at / "initdb", "--pgdata", home / "data", "--username", _USER, "--pwfile", password),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            at=home,
        )
        settings = {
            "port": server.port,
            "listen_addresses": server.host,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 20,
        }
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        control = (*other, at / "pg_ctl", "--pgdata", home / "data")
        _run(*control, "--wait", "--timeout", "120", "--log", home / "log", "-o", options, "start", at=home)
        try:
            _create_database(server)
            yield server
        finally:
            _run(*control, "--mode", "immediate", "stop", at=home)
    finally:
        shutil.rmtree(home)


def _create_database(server: Server) -> None:
    import psycopg

    with psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        connection.execute(f"CREATE DATABASE {server.database} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")


def _run(*command: str | Path, at: Path) -> None:
    # The server inherits standard output, and would keep a pipe open.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run([str(word) for word in command], cwd=at, stdout=said, stderr=said, check=False)
        said.seek(0)
        assert done.returncode == 0, said.read()[-4000:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
