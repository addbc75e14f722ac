"""The embedded store: a real S3 gateway with a real IAM service, on loopback, its data in a directory.

Two processes of versitygw (`sources/versitygw`): the gateway over a directory, and the IAM service, which serves the
AWS IAM and STS query APIs and whose policies the gateway enforces. They keep running after this process ends; their
process ids, root credentials and data are kept in the state directory.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from synapse_media.engine.files import locked, write_private
from synapse_media.engine.obtain import Say, obtain_versitygw, say_on_stderr
from synapse_media.engine.paths import private_dir, state_dir
from synapse_media.engine.processes import end, identity
from synapse_media.errors import SynapseMediaError

REGION = "us-east-1"
_IAM_REGION = "us-east-1"
"""What IAM requests are signed for, whatever the store's region is."""
_HOST = "127.0.0.1"
# Below the kernel's ephemeral range, so that a port is still free after a restart.
_PORTS = range(20000, 32000)
# Not a valid bucket name.
_HEALTH = "/_health"
# sun_path has 108 bytes on Linux, 104 on macOS.
_MAX_SOCKET_PATH = 100
_START_SECONDS = 30.0


class EmbeddedError(SynapseMediaError):
    """The embedded store could not be started."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running store. The key is the root key, which no policy restricts."""

    endpoint: str
    iam_endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    ca_file: Path | None
    pids: tuple[int, ...]
    data_dir: Path


@dataclass(slots=True)
class _ServerState:
    """What server.json keeps of a store between commands."""

    tls: bool = False
    s3_port: int = 0
    iam_port: int = 0
    socket_dir: str = ""
    processes: list[tuple[int, str]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return len(self.processes) == 2 and all(identity(pid) == expected for pid, expected in self.processes)


# A Popen that is garbage-collected while its process runs raises a ResourceWarning. These outlive this process by
# design.
_started: list[subprocess.Popen[bytes]] = []


def start(*, tls: bool | None = None, name: str = "embedded", say: Say = say_on_stderr) -> Running:
    """Start the store unless it is running; returns when both services respond.

    `tls`: with a self-made certificate; None: as on the last start, initially without. Ports, credentials and data are
    kept from the last start; a port taken by another program is replaced. Raises EmbeddedError with the end of the log.
    """
    home = _server_dir(name)
    with _lock(name):
        server = _read(home)
        wanted = server.tls if tls is None else tls
        if server.alive and server.tls == wanted and _is_ready(home, server):
            return _running(home, server)
        _end(home, server)
        server.tls = wanted
        program = obtain_versitygw(say)
        for _ in range(3):
            _choose_ports(server, say)
            try:
                _start(home, server, program)
            except _PortTakenError:
                continue
            return _running(home, server)
        raise EmbeddedError(f"The embedded store found no free port between {_PORTS.start} and {_PORTS.stop}.")


def stop(*, name: str = "embedded") -> bool:
    """Stop the store and keep its data; True if it was running."""
    home = _server_dir(name)
    with _lock(name):
        server = _read(home)
        ran = server.alive
        _end(home, server)
        return ran


def status(*, name: str = "embedded") -> Running | None:
    """The store, if it is running."""
    home = _server_dir(name)
    server = _read(home)
    return _running(home, server) if server.alive else None


def buckets(*, name: str = "embedded") -> list[str]:
    """The buckets of the store, whether created by a stack or not. The store need not be running."""
    data = _server_dir(name) / "data"
    # The gateway's posix backend keeps a bucket as a directory of its name, which never begins with a dot.
    return sorted(path.name for path in data.glob("[!.]*") if path.is_dir()) if data.is_dir() else []


def wipe(*, name: str = "embedded") -> None:
    """Stop the store and delete all of it: data, users, credentials, certificates."""
    home = _server_dir(name)
    with _lock(name):
        _end(home, _read(home))
        shutil.rmtree(home)


def _server_dir(name: str) -> Path:
    return private_dir(private_dir(state_dir() / "embedded") / name)


def _lock(name: str) -> contextlib.AbstractContextManager[None]:
    # Outside the directory that `wipe` deletes.
    return locked(state_dir() / "embedded" / f".{name}.lock")


def _read(home: Path) -> _ServerState:
    try:
        raw = json.loads((home / "server.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _ServerState()
    raw["processes"] = [(pid, expected) for pid, expected in raw["processes"]]
    return _ServerState(**raw)


def _write(home: Path, server: _ServerState) -> None:
    write_private(home / "server.json", json.dumps(asdict(server)))


def _credentials(home: Path) -> dict[str, str]:
    path = home / "credentials.json"
    fresh = {"access_key_id": f"ROOT{secrets.token_hex(8).upper()}", "secret_access_key": secrets.token_urlsafe(30)}
    if not path.exists():
        write_private(path, json.dumps(fresh), replace=False)
    loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _running(home: Path, server: _ServerState) -> Running:
    scheme = "https" if server.tls else "http"
    return Running(
        endpoint=f"{scheme}://{_HOST}:{server.s3_port}",
        iam_endpoint=f"{scheme}://{_HOST}:{server.iam_port}",
        region=REGION,
        **_credentials(home),
        ca_file=home / "tls" / "ca.pem" if server.tls else None,
        pids=tuple(pid for pid, _ in server.processes),
        data_dir=home / "data",
    )


def _choose_ports(server: _ServerState, say: Say) -> None:
    for name in ("s3_port", "iam_port"):
        port = old = getattr(server, name)
        while not port or not _free(port) or (name == "iam_port" and port == server.s3_port):
            port = secrets.choice(_PORTS)
        if old and port != old:
            say(f"Port {old} of the embedded store is in use by another program; using {port} from now on.")
        setattr(server, name, port)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


class _PortTakenError(Exception):
    """Another program took the port between the check and listen()."""


def _start(home: Path, server: _ServerState, program: Path) -> None:
    credentials = _credentials(home)
    private = {name: private_dir(home / name) for name in ("data", "versions", "iam")}
    sock = home / "iam.sock"
    if len(os.fsencode(sock)) >= _MAX_SOCKET_PATH:
        server.socket_dir = tempfile.mkdtemp(prefix="synapse-media-")
        sock = Path(server.socket_dir) / "iam.sock"
    sock.unlink(missing_ok=True)
    common = ["--iam-socket", str(sock)]
    if server.tls:
        _make_certificate(private_dir(home / "tls"))
        common += ["--cert", str(home / "tls/cert.pem"), "--key", str(home / "tls/key.pem")]
    iam = ["iam", "--listen", f"{_HOST}:{server.iam_port}", "--region", _IAM_REGION, *common]
    iam += ["--data", str(private["iam"])]
    s3 = ["s3", "--listen", f"{_HOST}:{server.s3_port}", "--region", REGION, *common]
    s3 += ["--health", _HEALTH, "--versions", str(private["versions"]), "--data", str(private["data"])]
    # The AWS SDK in it reads many variables, so it gets none of the user's others.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "ROOT_ACCESS_KEY": credentials["access_key_id"],
        "ROOT_SECRET_KEY": credentials["secret_access_key"],
    }
    deadline = time.monotonic() + _START_SECONDS
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        # The gateway exits at once if the IAM service is not listening yet, so that one is started first.
        for name, arguments, ready in (("iam", iam, sock.exists), ("s3", s3, lambda: _is_ready(home, server))):
            child = children[name] = _spawn([str(program), *arguments], home / f"{name}.log", environment, home)
            server.processes.append((child.pid, identity(child.pid) or ""))
            _write(home, server)
            while not ready():
                for service, started in children.items():
                    if started.poll() is not None:
                        raise _start_error(home / f"{service}.log", f"{service} service ended", credentials)
                if time.monotonic() > deadline:
                    why = f"{name} service did not answer within {_START_SECONDS:.0f} s"
                    raise _start_error(home / f"{name}.log", why, credentials)
                time.sleep(0.02)
    except BaseException:
        _end(home, server)
        raise


def _start_error(log: Path, why: str, credentials: Mapping[str, str]) -> Exception:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    if "address already in use" in text:
        return _PortTakenError()
    for secret in credentials.values():
        text = text.replace(secret, "[secret]")
    tail = "\n".join(text.splitlines()[-10:]) or "(the log is empty)"
    return EmbeddedError(f"The embedded store's {why}. The end of {log}:\n{tail}")


def _spawn(command: list[str], log: Path, environment: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    log.unlink(missing_ok=True)
    log.touch(mode=0o600)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=cwd,
            start_new_session=True,
            umask=0o077,
        )
    _started.append(child)
    return child


def _end(home: Path, server: _ServerState) -> None:
    for pid, expected in reversed(server.processes):
        end(pid, expected)
    for child in [child for child in _started if child.poll() is not None]:
        _started.remove(child)
    if server.socket_dir:
        shutil.rmtree(server.socket_dir, ignore_errors=True)
    server.processes, server.socket_dir = [], ""
    _write(home, server)


def _is_ready(home: Path, server: _ServerState) -> bool:
    """Whether both services respond over HTTP and the gateway reports that it is healthy."""
    for port, path, expected in ((server.s3_port, _HEALTH, 200), (server.iam_port, "/?Action=ListUsers", None)):
        connection: http.client.HTTPConnection
        if server.tls:
            context = ssl.create_default_context(cafile=str(home / "tls/ca.pem"))
            connection = http.client.HTTPSConnection(_HOST, port, timeout=5, context=context)
        else:
            connection = http.client.HTTPConnection(_HOST, port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if expected is not None and answer != expected:
            return False
    return True


def _make_certificate(folder: Path, host: str = "localhost") -> None:
    """Make a CA and a certificate for a host and 127.0.0.1, unless there is one that is valid for another 30 days.

    The CA's key is never written, so nothing else can be signed with it.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC)
    with contextlib.suppress(FileNotFoundError):
        old = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
        if old.not_valid_after_utc - now > timedelta(days=30):
            return

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def certificate(subject: str, key: Any, issuer: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("synapse-media embedded store CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=397))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        )

    def usage(*, signs_certificates: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs_certificates,
            key_cert_sign=signs_certificates,
            crl_sign=signs_certificates,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address(_HOST))]
    ca = (
        certificate("synapse-media embedded store CA", ca_key, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        certificate("synapse-media embedded store", key, ca_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_private(folder / "key.pem", key.private_bytes(serialization.Encoding.PEM, *plain).decode())
    write_private(folder / "ca.pem", ca.public_bytes(serialization.Encoding.PEM).decode())
    write_private(folder / "cert.pem", server.public_bytes(serialization.Encoding.PEM).decode())
