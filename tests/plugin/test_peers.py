"""The plugin's port on loopback, which every account of the machine can connect to."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_media.engine.embedded import Running
from synapse_media.plugin import peers
from tests.plugin import process
from tests.plugin.direct import Direct
from tests.plugin.process import Plugin, urn
from tests.plugin.test_protocol import environment

NOBODY = 65534
TOLD = pytest.mark.skipif(not peers.TABLES[0].exists(), reason="this system does not tell whose a socket is")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another account")

# A call as the other account would make it. It imports what it needs before it gives up root, with which it may read
# the environment that this runs in.
CALL = """
import os, sys
import grpc
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc
import grpc._cython, encodings.idna
to, name, uid, urn = sys.argv[1:]
values = json_format.Parse(sys.stdin.read(), struct_pb2.Struct())
os.setgroups([])
os.setresuid(int(uid), int(uid), int(uid))
channel = grpc.insecure_channel(to, options=[("grpc.enable_http_proxy", 0)])
stub = provider_pb2_grpc.ResourceProviderStub(channel)
request = {
    "Create": lambda: provider_pb2.CreateRequest(urn=urn, properties=values),
    "Delete": lambda: provider_pb2.DeleteRequest(urn=urn, id="x", properties=values),
    "Check": lambda: provider_pb2.CheckRequest(urn=urn, news=values),
}[name]()
try:
    print("answered", getattr(stub, name)(request, timeout=20))
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""


@pytest.fixture(scope="module")
def plugin(embedded_store: Running) -> Iterator[Plugin]:
    with process.running(environment(embedded_store)) as found:
        yield found


def called(to: str, uid: int, name: str, kind: str, values: str) -> str:
    command = [sys.executable, "-c", CALL, to, name, str(uid), urn(kind)]
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@TOLD
@ROOT
@pytest.mark.parametrize("address", ["127.0.0.1", "ipv6:[::ffff:127.0.0.1]"])
def test_another_account_is_refused_whatever_it_calls(plugin: Plugin, direct: Direct, address: str) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put()
    to = f"{address}:{plugin.port}"
    key = json.dumps({"active": "a", "connection": direct.connection()})
    bucket = json.dumps({"bucket": direct.name, "connection": direct.connection(), "forceDestroy": True})
    for name, kind, values in (("Create", "ExistingKey", key), ("Delete", "Bucket", bucket), ("Check", "User", "{}")):
        answer = called(to, NOBODY, name, kind, values)
        assert answer.startswith("PERMISSION_DENIED plugin s3store: the caller is of another account"), answer
        assert f"uid {NOBODY}" in answer
        assert direct.running.secret_access_key not in answer
    assert direct.keys_in() == ["local_content/a"]
    # The same program as the account that the plugin runs as.
    assert called(to, 0, "Create", "ExistingKey", key).startswith("answered")


@pytest.fixture(params=["_owner_by_query", "_owner_in_tables"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to ask the kernel, without the other."""
    (other,) = {"_owner_by_query", "_owner_in_tables"} - {request.param}
    monkeypatch.setattr(peers, other, lambda *_: None)


@TOLD
@ROOT
@pytest.mark.usefixtures("either_way")
def test_another_account_is_refused_on_a_port_that_was_ours(plugin: Plugin) -> None:
    """Whose a port is, is asked for every call: a number is free again once its connection ended."""
    assert plugin.call("Check", urn=urn("User"), news={"userName": "u"}) is not None
    with socket.socket() as ours:
        # Not one of those that the kernel gives to any program that connects.
        ours.bind(("127.0.0.1", secrets.choice(range(20000, 32000))))
        ours.connect(("127.0.0.1", plugin.port))
        number = ours.getsockname()[1]
        assert peers.refusal(f"ipv4:127.0.0.1:{number}", plugin.port) == ""
        # Closed hard, so that the number is free at once.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    take = f"""
import os, socket, sys
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
theirs = socket.socket()
theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
theirs.bind(("127.0.0.1", int(sys.argv[1])))
theirs.connect(("127.0.0.1", int(sys.argv[2])))
print("there", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", take, str(number), str(plugin.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as theirs:
        assert theirs.stdout is not None
        assert theirs.stdout.readline() == "there\n"
        assert f"uid {NOBODY}" in peers.refusal(f"ipv4:127.0.0.1:{number}", plugin.port)
        theirs.communicate("")


@TOLD
@pytest.mark.usefixtures("either_way")
def test_a_connection_that_was_closed_belongs_to_nobody() -> None:
    """What is left of it is uid 0 in the table, which is not to be taken for root."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        number = client.getsockname()[1]
        accepted, _ = server.accept()
        with accepted:
            assert peers.refusal(f"ipv4:127.0.0.1:{number}", port) == ""
            client.close()
            assert f":{number:04X} " in Path("/proc/net/tcp").read_text()
            assert "nothing tells" in peers.refusal(f"ipv4:127.0.0.1:{number}", port)


@TOLD
@pytest.mark.parametrize("client", [socket.AF_INET, socket.AF_INET6])
def test_the_tables_are_not_read_for_each_call(monkeypatch: pytest.MonkeyPatch, client: socket.AddressFamily) -> None:
    """They have every socket of the machine: with 5,000 closed ones, a look into them took 29 ms of CPU."""
    monkeypatch.setattr(peers, "_owner_in_tables", lambda *_: pytest.fail("the tables were read"))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(client) as ours:
        port = server.getsockname()[1]
        ours.connect(("127.0.0.1" if client == socket.AF_INET else "::ffff:127.0.0.1", port))
        assert peers.refusal(f"ipv4:127.0.0.1:{ours.getsockname()[1]}", port) == ""


def test_a_kernel_without_the_query_is_asked_by_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(peers.socket, "socket", refused)
    assert peers._owner_by_query(ipaddress.IPv4Address("127.0.0.1"), 1, 2) is None


@TOLD
@pytest.mark.parametrize("peer", ["", "unix:", "ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:5", "ipv4:127.0.0.1"])
def test_a_caller_that_the_table_does_not_have_is_refused(peer: str) -> None:
    assert "nothing tells which account" in peers.refusal(peer, 2)


def test_where_the_system_does_not_tell_everybody_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "TABLES", (tmp_path / "tcp",))
    assert peers.refusal("ipv4:127.0.0.1:1", 2) == ""
