"""The plugin as a process, spoken to as the engine does: gRPC, with a double of the engine that takes its messages.

Values are put on the wire and read from it here, independently of the plugin's own module.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc, status_pb2

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "synapse_media.plugin")
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(values), struct_pb2.Struct())


def raw(message: struct_pb2.Struct) -> dict[str, Any]:
    """As it is on the wire: secrets wrapped, unknowns as their signature."""
    found: dict[str, Any] = json_format.MessageToDict(message)
    return found


def secret(value: Any) -> dict[str, Any]:
    return {SIGNATURE: SECRET, "value": value}


def plain(value: Any) -> Any:
    """Secrets taken out of their wrapping."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return plain(value["value"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def outside_of_secrets(value: Any) -> Iterator[str]:
    """Every text that would be in the state in clear text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and value.get(SIGNATURE) != SECRET:
        for key, item in value.items():
            yield key
            yield from outside_of_secrets(item)
    elif isinstance(value, list):
        for item in value:
            yield from outside_of_secrets(item)


def urn(kind: str, name: str = "matrix.example.com") -> str:
    return f"urn:pulumi:tests::synapse-media::synapse-media:store:S3Compatible$s3store:index:{kind}::{name}"


class EngineDouble(engine_pb2_grpc.EngineServicer):
    """Takes what the plugin says to the user: warnings and notes by their resource, with `-v` each call it makes."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self.calls: list[str] = []

    def Log(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        if request.message.startswith("api: "):
            self.calls.append(request.message)
        else:
            self.said.append((request.urn, request.message))
            if request.severity == engine_pb2.WARNING:
                self.warnings.append(request.message)
        return empty_pb2.Empty()


@dataclass(slots=True)
class Plugin:
    """A running plugin."""

    process: subprocess.Popen[bytes]
    stub: Any
    engine: EngineDouble
    errors: list[bytes]
    port: int

    def call(self, name: str, **request: Any) -> Any:
        """One call by name; `properties`, `inputs`, `news`, `olds`, `old_inputs` may be dicts."""
        kind = getattr(provider_pb2, f"{name.removesuffix('Config')}Request", None) or empty_pb2.Empty
        values = {key: struct(value) if isinstance(value, dict) else value for key, value in request.items()}
        return getattr(self.stub, name)(kind(**values), timeout=60)


def init_failed(error: grpc.RpcError) -> Any:
    """The ErrorResourceInitFailed in an error's details, as the engine looks for it."""
    [packed] = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(packed)
    found = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(found)
    return found


@contextmanager
def running(
    environment: Mapping[str, str], *, command: tuple[str, ...] = COMMAND, cwd: Path = ROOT, engine: bool = True
) -> Iterator[Plugin]:
    """A separate plugin process, with the engine's address as its argument; ended on leaving.

    `engine`: False has it told of one that does not listen.
    """
    double = EngineDouble()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    engine_pb2_grpc.add_EngineServicer_to_server(double, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0') if engine else 9}"
    server.start()
    process = subprocess.Popen(
        [*command, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env=dict(environment)
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[bytes] = []
    reader = threading.Thread(target=errors.extend, args=(process.stderr,))
    reader.start()
    try:
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            yield Plugin(process, provider_pb2_grpc.ResourceProviderStub(channel), double, errors, port)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()
        server.stop(None).wait()
