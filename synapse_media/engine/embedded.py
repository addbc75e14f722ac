"""The embedded store: a real S3 gateway with a real IAM service, on loopback, its data in a directory.

Two processes of versitygw: the gateway over a directory, and `versitygw iam`, which speaks the AWS IAM and STS query
APIs and whose policies the gateway enforces. They run on after this process; what is needed to find them again, their
root credentials and their data lie under the state directory.
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
_HOST = "127.0.0.1"
# Below the range the kernel takes outgoing ports from, so that a port can be kept over a restart.
_PORTS = range(20000, 32000)
# No bucket can be called so.
_HEALTH = "/_health"
# sun_path has 108 bytes on Linux, 104 on macOS.
_LONGEST_SOCKET = 100
_PATIENCE = 30.0


class EmbeddedError(SynapseMediaError):
    """The embedded store could not be started."""


@dataclass(frozen=True, slots=True)
class Running:
    """A store that runs. The key is root's: it may do anything, and no policy holds it back."""

    endpoint: str
    iam_endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    ca_file: Path | None
    pids: tuple[int, ...]
    data_dir: Path


@dataclass(slots=True)
class _Known:
    """What is remembered of a store between commands: server.json."""

    tls: bool = False
    s3_port: int = 0
    iam_port: int = 0
    socket_dir: str = ""
    processes: list[tuple[int, str]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return len(self.processes) == 2 and all(identity(pid) == expected for pid, expected in self.processes)


# A Popen that is forgotten while its process runs warns; these run on by design.
_started: list[subprocess.Popen[bytes]] = []


def start(*, tls: bool | None = None, name: str = "embedded", say: Say = say_on_stderr) -> Running:
    """Start the store, or find it running; returns when both services answer.

    `tls`: with a certificate of its own making; None: as last time, at first without. Ports, credentials and data are
    those of last time; a port that somebody else took is replaced. Raises EmbeddedError with the end of the log.
    """
    home = _home(name)
    with _lock(name):
        known = _read(home)
        wanted = known.tls if tls is None else tls
        if known.alive and known.tls == wanted and _answers(home, known):
            return _running(home, known)
        _end(home, known)
        known.tls = wanted
        program = obtain_versitygw(say)
        for _ in range(3):
            _choose_ports(known, say)
            try:
                _start(home, known, program)
            except _PortTakenError:
                continue
            return _running(home, known)
        raise EmbeddedError(f"The embedded store found no free port between {_PORTS.start} and {_PORTS.stop}.")


def stop(*, name: str = "embedded") -> bool:
    """Stop the store and keep everything; True if it ran."""
    home = _home(name)
    with _lock(name):
        known = _read(home)
        ran = known.alive
        _end(home, known)
        return ran


def status(*, name: str = "embedded") -> Running | None:
    """The store, if it runs."""
    home = _home(name)
    known = _read(home)
    return _running(home, known) if known.alive else None


def buckets(*, name: str = "embedded") -> list[str]:
    """The buckets on the store, whoever made them; it need not run."""
    data = _home(name) / "data"
    # The gateway's posix backend keeps a bucket as a directory of its name, which never begins with a dot.
    return sorted(path.name for path in data.glob("[!.]*") if path.is_dir()) if data.is_dir() else []


def wipe(*, name: str = "embedded") -> None:
    """Stop the store and delete all of it: data, users, credentials, certificates."""
    home = _home(name)
    with _lock(name):
        _end(home, _read(home))
        shutil.rmtree(home)


def _home(name: str) -> Path:
    return private_dir(private_dir(state_dir() / "embedded") / name)


def _lock(name: str) -> contextlib.AbstractContextManager[None]:
    # Not in the directory that `wipe` deletes.
    return locked(state_dir() / "embedded" / f".{name}.lock")


def _read(home: Path) -> _Known:
    try:
        raw = json.loads((home / "server.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _Known()
    raw["processes"] = [(pid, expected) for pid, expected in raw["processes"]]
    return _Known(**raw)


def _write(home: Path, known: _Known) -> None:
    write_private(home / "server.json", json.dumps(asdict(known)))


def _credentials(home: Path) -> dict[str, str]:
    path = home / "credentials.json"
    fresh = {"access_key_id": f"ROOT{secrets.token_hex(8).upper()}", "secret_access_key": secrets.token_urlsafe(30)}
    if not path.exists():
        write_private(path, json.dumps(fresh), replace=False)
    loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _running(home: Path, known: _Known) -> Running:
    scheme = "https" if known.tls else "http"
    return Running(
        endpoint=f"{scheme}://{_HOST}:{known.s3_port}",
        iam_endpoint=f"{scheme}://{_HOST}:{known.iam_port}",
        region=REGION,
        **_credentials(home),
        ca_file=home / "tls" / "ca.pem" if known.tls else None,
        pids=tuple(pid for pid, _ in known.processes),
        data_dir=home / "data",
    )


def _choose_ports(known: _Known, say: Say) -> None:
    for name in ("s3_port", "iam_port"):
        port = old = getattr(known, name)
        while not port or not _free(port) or (name == "iam_port" and port == known.s3_port):
            port = secrets.choice(_PORTS)
        if old and port != old:
            say(f"Port {old} of the embedded store is taken by another program; using {port} from now on.")
        setattr(known, name, port)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


class _PortTakenError(Exception):
    """Somebody took the port between looking and listening."""


def _start(home: Path, known: _Known, program: Path) -> None:
    credentials = _credentials(home)
    private = {name: private_dir(home / name) for name in ("data", "versions", "iam")}
    sock = home / "iam.sock"
    if len(os.fsencode(sock)) >= _LONGEST_SOCKET:
        known.socket_dir = tempfile.mkdtemp(prefix="synapse-media-")
        sock = Path(known.socket_dir) / "iam.sock"
    sock.unlink(missing_ok=True)
    common = ["--region", REGION, "--quiet"]
    if known.tls:
        _make_certificate(private_dir(home / "tls"))
        common += ["--cert", str(home / "tls/cert.pem"), "--key", str(home / "tls/key.pem")]
    iam = ["--port", f"{_HOST}:{known.iam_port}", *common]
    iam += [
        "iam",
        "--dir",
        str(private["iam"]),
        "--private-ports",
        str(sock),
        "--private-socket-perm",
        "0600",
        "--quiet",
    ]
    s3 = ["--port", f"{_HOST}:{known.s3_port}", *common, "--health", _HEALTH, "--iam-standalone-endpoint", str(sock)]
    s3 += ["posix", "--dir-perms", "0700", "--file-perms", "0600"]
    s3 += ["--versioning-dir", str(private["versions"]), str(private["data"])]
    # Nothing else of the user's environment: the program reads many variables.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "ROOT_ACCESS_KEY": credentials["access_key_id"],
        "ROOT_SECRET_KEY": credentials["secret_access_key"],
    }
    deadline = time.monotonic() + _PATIENCE
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        # The gateway ends at once where the IAM service does not listen yet.
        for name, arguments, ready in (("iam", iam, sock.exists), ("s3", s3, lambda: _answers(home, known))):
            child = children[name] = _spawn([str(program), *arguments], home / f"{name}.log", environment, home)
            known.processes.append((child.pid, identity(child.pid) or ""))
            _write(home, known)
            while not ready():
                for service, started in children.items():
                    if started.poll() is not None:
                        raise _failure(home / f"{service}.log", f"{service} service ended", credentials)
                if time.monotonic() > deadline:
                    why = f"{name} service did not answer within {_PATIENCE:.0f} s"
                    raise _failure(home / f"{name}.log", why, credentials)
                time.sleep(0.02)
    except BaseException:
        _end(home, known)
        raise


def _failure(log: Path, why: str, credentials: Mapping[str, str]) -> Exception:
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


def _end(home: Path, known: _Known) -> None:
    for pid, expected in reversed(known.processes):
        end(pid, expected)
    for child in [child for child in _started if child.poll() is not None]:
        _started.remove(child)
    if known.socket_dir:
        shutil.rmtree(known.socket_dir, ignore_errors=True)
    known.processes, known.socket_dir = [], ""
    _write(home, known)


def _answers(home: Path, known: _Known) -> bool:
    """Whether both services speak HTTP; the gateway says that it is well."""
    for port, path, expected in ((known.s3_port, _HEALTH, 200), (known.iam_port, "/?Action=ListUsers", None)):
        connection: http.client.HTTPConnection
        if known.tls:
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
    """A CA and a certificate for a host and 127.0.0.1; both anew when a month is left.

    The CA's key is never written: nothing else can be signed with it.
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
