"""The embedded store is real, keeps what it holds, and gives nothing away."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, SSLError

from synapse_media.engine import embedded, processes
from synapse_media.engine.embedded import EmbeddedError, Running
from tests.accounts import user_names
from tests.engine.helpers import Said, eventually, script


@pytest.fixture
def store(own_state: Path) -> Iterator[Path]:
    """The directory of a store that only this test uses."""
    yield own_state / "embedded/embedded"
    embedded.wipe()


def client(running: Running, service: str, **other: Any) -> Any:
    arguments: dict[str, Any] = {
        "aws_access_key_id": running.access_key_id,
        "aws_secret_access_key": running.secret_access_key,
        "endpoint_url": running.iam_endpoint if service == "iam" else running.endpoint,
        "region_name": running.region,
        "verify": str(running.ca_file) if running.ca_file else None,
        "config": Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10),
    }
    return closing(boto3.client(service, **{**arguments, **other}))


def put(running: Running, text: bytes) -> None:
    with client(running, "s3") as s3:
        s3.create_bucket(Bucket="kept")
        s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="kept", Key="folder/key", Body=text)
    with client(running, "iam") as iam:
        iam.create_user(UserName="kept")


def get(running: Running) -> bytes:
    with client(running, "iam") as iam:
        assert user_names(iam) == ["kept"]
    with client(running, "s3") as s3:
        body: bytes = s3.get_object(Bucket="kept", Key="folder/key")["Body"].read()
        return body


def listening(port: int) -> set[str]:
    """The local addresses with a listener on a port, in the kernel's notation."""
    lines = [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]
    rows = [line.split() for line in lines if "local_address" not in line]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


def test_it_starts_answers_and_keeps_everything_over_a_restart(store: Path, said: Said) -> None:
    first = embedded.start(say=said)
    put(first, b"content")
    assert embedded.status() == first
    assert embedded.stop() is True
    assert embedded.status() is None
    assert all(processes.identity(pid) is None for pid in first.pids)
    assert embedded.stop() is False
    second = embedded.start(say=said)
    assert get(second) == b"content"
    assert (second.endpoint, second.iam_endpoint) == (first.endpoint, first.iam_endpoint)
    assert second.access_key_id == first.access_key_id
    assert said.lines == []


def test_starting_twice_changes_nothing(store: Path) -> None:
    assert embedded.start() == embedded.start()


def test_two_at_once_start_one(store: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: embedded.start(), range(2))
    assert first == second


def test_it_outlives_the_process_that_started_it(store: Path) -> None:
    code = "from synapse_media.engine import embedded; embedded.start()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
    running = embedded.status()
    assert running is not None
    put(running, b"content")
    assert get(running) == b"content"


def test_it_listens_on_loopback_only(store: Path) -> None:
    running = embedded.start()
    for endpoint in (running.endpoint, running.iam_endpoint):
        assert listening(urlsplit(endpoint).port or 0) == {"0100007F"}


def test_keys_it_did_not_issue_are_refused(store: Path) -> None:
    running = embedded.start()
    for service, call in (("s3", "list_buckets"), ("iam", "list_users")):
        for wrong, code in (
            ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
            ({"aws_access_key_id": "NOBODY"}, "InvalidAccessKeyId|InvalidClientTokenId"),
        ):
            with client(running, service, **wrong) as wrong_client, pytest.raises(ClientError, match=code):
                getattr(wrong_client, call)()


def test_secrets_are_neither_in_arguments_nor_logs_nor_shown(store: Path) -> None:
    running = embedded.start()
    put(running, b"content")
    for pid in running.pids:
        shown = Path(f"/proc/{pid}/cmdline").read_bytes()
        passed = Path(f"/proc/{pid}/environ").read_bytes()
        for secret in (running.secret_access_key, running.access_key_id):
            assert secret.encode() not in shown
            assert secret.encode() in passed
    for log in ("s3.log", "iam.log"):
        assert running.secret_access_key not in (store / log).read_text()
    assert running.secret_access_key not in repr(running)


def test_nothing_of_the_users_environment_is_passed_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGW_READ_ONLY", "true")
    monkeypatch.setenv("FOREIGN_TOKEN", "foreign")
    running = embedded.start()
    put(running, b"content")
    assert all(b"FOREIGN" not in Path(f"/proc/{pid}/environ").read_bytes() for pid in running.pids)


@pytest.mark.parametrize("tls", [False, True])
def test_nobody_else_can_read_its_files(store: Path, tls: bool) -> None:
    put(embedded.start(tls=tls), b"content")
    for path in (store, *store.rglob("*")):
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) & 0o077 == 0, path
    assert stat.S_IMODE((store / "credentials.json").stat().st_mode) == 0o600


def test_over_tls_with_a_certificate_of_its_own(store: Path) -> None:
    running = embedded.start(tls=True)
    assert running.endpoint.startswith("https://127.0.0.1:")
    assert running.iam_endpoint.startswith("https://127.0.0.1:")
    put(running, b"content")
    assert get(running) == b"content"
    for service, call in (("s3", "list_buckets"), ("iam", "list_users")):
        with client(running, service, verify=None) as untrusting, pytest.raises(SSLError, match="CERTIFICATE_VERIFY"):
            getattr(untrusting, call)()
    context = ssl.create_default_context(cafile=str(running.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of newer Pythons
    port = urlsplit(running.endpoint).port
    for host in ("localhost", "127.0.0.1"):
        with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw, server_hostname=host):
            pass
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
        context.wrap_socket(raw, server_hostname="elsewhere.example"),
    ):
        pass
    # On a connection that is kept it misreads, now and then, what comes after a large body.
    with closing(HTTPSConnection("127.0.0.1", port, context=context, timeout=10)) as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        assert answer.will_close
    # No key is left that could sign for another name.
    assert sorted(item.name for item in (store / "tls").iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


def test_tls_is_kept_until_it_is_asked_for_otherwise(store: Path) -> None:
    first = embedded.start(tls=True)
    put(first, b"content")
    certificate = (store / "tls/cert.pem").read_bytes()
    assert embedded.start() == first
    embedded.stop()
    assert embedded.start().endpoint == first.endpoint
    assert (store / "tls/cert.pem").read_bytes() == certificate
    plain = embedded.start(tls=False)
    assert plain.endpoint == first.endpoint.replace("https", "http")
    assert plain.ca_file is None
    assert get(plain) == b"content"


def test_a_port_that_somebody_took_is_replaced(store: Path, said: Said) -> None:
    first = embedded.start()
    put(first, b"content")
    embedded.stop()
    port = urlsplit(first.endpoint).port
    with socket.create_server(("127.0.0.1", port or 0)):
        second = embedded.start(say=said)
        assert second.endpoint != first.endpoint
        assert second.iam_endpoint == first.iam_endpoint
        assert get(second) == b"content"
    assert f"Port {port} of the embedded store is in use" in said.text


@pytest.mark.parametrize("which", ["endpoint", "iam_endpoint"])
def test_a_port_taken_at_the_last_moment_is_replaced(
    store: Path, monkeypatch: pytest.MonkeyPatch, said: Said, which: str
) -> None:
    first = embedded.start()
    put(first, b"content")
    embedded.stop()
    port = urlsplit(getattr(first, which)).port
    really_free = embedded._free
    looked: list[int] = []

    def too_early(number: int) -> bool:
        looked.append(number)
        return looked.count(number) == 1 or really_free(number)

    monkeypatch.setattr(embedded, "_free", too_early)
    with socket.create_server(("127.0.0.1", port or 0)):
        second = embedded.start(say=said)
        assert getattr(second, which) != getattr(first, which)
        assert get(second) == b"content"


def test_a_process_that_got_an_old_number_is_left_alone(store: Path) -> None:
    first = embedded.start()
    put(first, b"content")
    embedded.stop()
    with subprocess.Popen(["sleep", "100"]) as bystander:
        known = json.loads((store / "server.json").read_text())
        identity = processes.identity(bystander.pid) or ""
        earlier = f"{identity.rpartition(':')[0]}:{int(identity.rpartition(':')[2]) - 1}"
        known["processes"] = [[bystander.pid, earlier]] * 2
        (store / "server.json").write_text(json.dumps(known))
        assert embedded.status() is None
        assert embedded.stop() is False
        assert get(embedded.start()) == b"content"
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("which", [0, 1])
def test_a_service_that_died_is_noticed_and_started_again(store: Path, which: int) -> None:
    first = embedded.start()
    put(first, b"content")
    processes.end(first.pids[which], processes.identity(first.pids[which]) or "")
    assert embedded.status() is None
    second = embedded.start()
    assert get(second) == b"content"
    assert processes.identity(first.pids[1 - which]) is None


def test_a_program_that_dies_is_reported_without_secrets(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stand-in for versitygw that prints its environment and ends.
    program = script(tmp_path / "versitygw", 'echo "no luck with $ROOT_SECRET_KEY"; exit 3')
    monkeypatch.setattr(embedded, "obtain_versitygw", lambda _say: program)
    with pytest.raises(EmbeddedError, match=r"iam service ended\. The end of .*iam\.log:\nno luck with \[secret\]$"):
        embedded.start()
    assert embedded.status() is None
    monkeypatch.undo()


def test_a_program_that_never_answers_is_given_up(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    # A stand-in for versitygw that does nothing.
    program = script(tmp_path / "versitygw", f"echo $$ > {pid_file}; exec sleep 100")
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "obtain_versitygw", lambda _say: program)
        patch.setattr(embedded, "_START_SECONDS", 1.0)
        with pytest.raises(EmbeddedError, match="did not answer within 1 s"):
            embedded.start()
    assert processes.identity(int(pid_file.read_text())) is None


def test_an_interrupted_start_leaves_no_process(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupted(_home: Path, known: Any) -> bool:
        started.extend(pid for pid, _ in known.processes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_is_ready", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded.start()
    assert len(started) == 2
    assert all(processes.identity(pid) is None for pid in started)


def test_a_long_path_gets_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("long" * 30)))
    put(running := embedded.start(), b"content")
    directory = Path(json.loads((running.data_dir.parent / "server.json").read_text())["socket_dir"])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert get(running) == b"content"
    embedded.wipe()
    assert not directory.exists()


def test_named_stores_are_apart(store: Path) -> None:
    first, second = embedded.start(), embedded.start(name="other")
    put(first, b"content")
    with client(second, "s3") as s3:
        assert s3.list_buckets()["Buckets"] == []
    assert first.secret_access_key != second.secret_access_key
    embedded.wipe(name="other")
    assert get(first) == b"content"


def test_wiping_deletes_it_and_nothing_else(store: Path, own_state: Path) -> None:
    running = embedded.start()
    put(running, b"content")
    (own_state / "passphrase").write_text("kept")
    embedded.wipe()
    assert not store.exists()
    assert (own_state / "passphrase").read_text() == "kept"
    assert all(processes.identity(pid) is None for pid in running.pids)
    assert embedded.start().secret_access_key != running.secret_access_key


def test_processes_are_told_apart(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        first = processes.identity(child.pid)
        assert first is not None
        assert eventually(lambda: processes.program_name(child.pid) == "sleep")
        assert processes._ps(child.pid, "comm") == "sleep"
        child.kill()
        # It is a zombie now: nobody waited for it yet.
        assert eventually(lambda: processes.identity(child.pid) is None)
        assert processes.program_name(child.pid) is None
    assert processes._ps(child.pid, "lstart") is None
    assert processes.identity(os.getpid()) not in (None, first)
