"""A real Synapse with its real S3 module, started with configuration files as they are."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.end_to_end import built

SERVER_NAME = "matrix.example.com"
_START_SECONDS = 180.0
_STOP_SECONDS = 60.0
_REGISTRATION_SECRET = "only of this test's homeserver"

_LOAD = """
import json, sys
from synapse.config._base import ConfigError
from synapse.config.homeserver import HomeServerConfig
try:
    config = HomeServerConfig.load_config("", sys.argv[1:])
except ConfigError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({
        "media_storage_providers": [
            {"class": f"{cls.__module__}.{cls.__name__}", "config": parsed,
             "store_local": store.store_local, "store_remote": store.store_remote,
             "store_synchronous": store.store_synchronous}
            for cls, parsed, store in getattr(config.media, "media_storage_providers", [])
        ],
        "media_store_path": getattr(config.media, "media_store_path", None),
        "enable_media_repo": config.media.can_load_media_repo,
    }))
"""

_PICTURE = """
import io, random, sys
from PIL import Image
noise = Image.frombytes("RGB", (120, 90), random.Random(7).randbytes(120 * 90 * 3))
noise.resize((1600, 1200), Image.Resampling.BICUBIC).save(sys.stdout.buffer, "JPEG", quality=90)
"""


class ConfigError(Exception):
    """Synapse's own loader refused a configuration; the text is Synapse's."""


class StartError(Exception):
    """Synapse ended, or never answered; carries the end of its log."""


class AnswerError(Exception):
    """Synapse answered a request with another status than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        super().__init__(f"{status}: {body[:500]!r}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration as Synapse understood it.

    Attributes:
        media_storage_providers: one dict a provider: class, config (as the module parsed it), store_*.
        enable_media_repo: whether this process would serve media itself; where not, the rest is not even read.
    """

    media_storage_providers: list[dict[str, Any]]
    media_store_path: str | None
    enable_media_repo: bool


@dataclass(frozen=True, slots=True)
class User:
    """A registered user; its token outlives a restart."""

    user_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Media:
    """Something that was uploaded."""

    uri: str

    @property
    def path(self) -> str:
        return self.uri.removeprefix("mxc://")


@dataclass(frozen=True, slots=True)
class Home:
    """A homeserver's directory: base configuration, database, signing key, media.

    Attributes:
        media: the local media store, inside `directory` unless it is a mount of its own.
        database: `database` of the configuration; None: SQLite in `directory`.
    """

    python: Path
    directory: Path
    media: Path
    database: Mapping[str, Any] | None = None

    @property
    def base(self) -> Path:
        return self.directory / "homeserver.yaml"

    @property
    def log(self) -> Path:
        return self.directory / "homeserver.log"

    @property
    def sqlite(self) -> Path:
        return self.directory / "homeserver.db"

    def load(self, *drop_ins: Path, environment: Mapping[str, str] | None = None) -> Loaded:
        """What Synapse's own loader makes of base and drop-ins, without a start. Raises ConfigError."""
        self._write_base(port=8008)
        done = subprocess.run(
            [str(self.python), "-c", _LOAD, *_config_arguments(self.base, drop_ins)],
            cwd=self.directory,
            env=_environment(self.directory, environment),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ConfigError(done.stderr[-4000:])
        # Modules may print while they are loaded: the answer is the last line.
        answer = json.loads(done.stdout.splitlines()[-1])
        if "error" in answer:
            raise ConfigError(answer["error"])
        return Loaded(**answer)

    @contextmanager
    def running(self, *drop_ins: Path, environment: Mapping[str, str] | None = None) -> Iterator[Homeserver]:
        """Synapse on this directory, with `-c` for each drop-in after the base. Raises StartError."""
        port = _free_port()
        self._write_base(port)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(str(self.python), "-m", "synapse.app.homeserver"),
                    *_config_arguments(self.base, drop_ins),
                ],
                cwd=self.directory,
                env=_environment(self.directory, environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        server = Homeserver(port)
        try:
            self._wait(process, server)
            yield server
        finally:
            _stop(process)

    def _wait(self, process: subprocess.Popen[bytes], server: Homeserver) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not server.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                state = f"ended with {process.returncode}" if process.returncode is not None else "never answered"
                raise StartError(f"Synapse {state}:\n{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)

    def _write_base(self, port: int) -> None:
        listener = {
            "port": port,
            "type": "http",
            "bind_addresses": ["127.0.0.1"],
            "resources": [{"names": ["client"]}],
        }
        generous = {"per_second": 1000, "burst_count": 1000}
        base = {
            "server_name": SERVER_NAME,
            "report_stats": False,
            "listeners": [listener],
            "database": self.database or {"name": "sqlite3", "args": {"database": str(self.sqlite)}},
            "media_store_path": str(self.media),
            "signing_key_path": str(self.directory / "signing.key"),
            "trusted_key_servers": [],
            "registration_shared_secret": _REGISTRATION_SECRET,
            "macaroon_secret_key": "made for one test",
            "form_secret": "made for one test",
            "rc_registration": generous,
            "rc_media_create": generous,
        }
        # JSON is YAML.
        self.base.write_text(json.dumps(base, indent=1))


class Homeserver:
    """A running Synapse, reached through the client API on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def answers(self) -> bool:
        try:
            self._call("GET", "/_matrix/client/versions")
        except (OSError, http.client.HTTPException, AnswerError):
            return False
        return True

    def register(self, name: str) -> User:
        """Make a user with the registration secret that the base configuration holds."""
        path = "/_synapse/admin/v1/register"
        nonce = json.loads(self._call("GET", path))["nonce"]
        password = "correct horse"
        signed = "\0".join([nonce, name, password, "notadmin"]).encode()
        body = {
            "nonce": nonce,
            "username": name,
            "password": password,
            "admin": False,
            "mac": hmac.new(_REGISTRATION_SECRET.encode(), signed, hashlib.sha1).hexdigest(),
        }
        answer = json.loads(self._call("POST", path, json.dumps(body).encode(), "application/json"))
        return User(answer["user_id"], answer["access_token"])

    def upload(self, user: User, content: bytes, content_type: str = "application/octet-stream") -> Media:
        """Upload as a client does. Raises AnswerError where Synapse could not store it."""
        answer = self._call("POST", "/_matrix/media/v3/upload?filename=file", content, content_type, user)
        return Media(json.loads(answer)["content_uri"])

    def download(self, user: User, media: Media) -> bytes:
        return self._call("GET", f"/_matrix/client/v1/media/download/{quote(media.path)}", user=user)

    def thumbnail(self, user: User, media: Media, width: int = 320, height: int = 240) -> bytes:
        query = f"?width={width}&height={height}&method=scale"
        return self._call("GET", f"/_matrix/client/v1/media/thumbnail/{quote(media.path)}{query}", user=user)

    def _call(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "", user: User | None = None
    ) -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        if user is not None:
            headers["Authorization"] = f"Bearer {user.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise AnswerError(response.status, content)
        return content


def installed() -> Path:
    """The Python of an environment with the pinned Synapse and S3 module, made on the first call."""
    return built.python_environment("synapse", built.HERE / "synapse.lock")


def home(directory: Path, media: Path | None = None) -> Home:
    """A new homeserver in an empty directory; nothing is started."""
    directory.mkdir(parents=True, exist_ok=True)
    media = media or directory / "media_store"
    media.mkdir(exist_ok=True)
    key = b64encode(os.urandom(32)).decode().rstrip("=")
    (directory / "signing.key").write_text(f"ed25519 a_test {key}\n")
    return Home(installed(), directory, media)


def picture() -> bytes:
    """A JPEG of 1600 by 1200, the same each time, made by the imaging library that makes Synapse's thumbnails."""
    return subprocess.run([str(installed()), "-c", _PICTURE], check=True, stdout=subprocess.PIPE).stdout


def files_of(directory: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _config_arguments(base: Path, drop_ins: Sequence[Path]) -> list[str]:
    return [word for path in (base, *drop_ins) for word in ("-c", str(path))]


def _environment(directory: Path, extra: Mapping[str, str] | None) -> dict[str, str]:
    """Nothing of the developer's: no AWS profile, no credentials, and no asking of an instance's role."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "PYTHONUNBUFFERED": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **(extra or {}),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
