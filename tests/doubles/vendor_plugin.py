"""What the stand-ins for vendors' plugins share: a real provider process under the vendor's name and version.

They prove our program and its wiring through the real engine. They do not show the vendor's own validation, defaults,
diffs or replace rules.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, ClassVar

import grpc
from botocore.exceptions import ClientError
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from synapse_media.engine.paths import state_dir
from synapse_media.plugin.bucket import canonical
from synapse_media.plugin.protocol import Servicer, decode, die_with_parent, encode
from synapse_media.plugin.resource import UNKNOWN, Context, Found, Resource, ResourceError, Values

ROOT = Path(__file__).resolve().parents[2]

Configure = Callable[[Mapping[str, Any]], None]


_GONE = ("NoSuch", "NotFound", "404", "ServerSideEncryptionConfigurationNotFound", "OwnershipControlsNotFound")


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))


class Gone(Exception):  # noqa: N818 - what it says, not a fault
    """What a `get` looks for is not there, where the store answers without an error."""


class Vendor(Resource):
    """A resource whose `put` makes and changes it, `get` reads its inputs (or raises Gone) and `remove` deletes it."""

    documents: ClassVar[frozenset[str]] = frozenset()

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        for name in self.documents & set(inputs):
            if isinstance(inputs[name], str):
                inputs[name] = canonical(inputs[name])
        return super().check(inputs)

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "arn": (old or {}).get("arn", UNKNOWN)}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        return self.identity(inputs), {**inputs, **self._put(inputs, new=True)}

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        return {**old, **inputs, **self._put(inputs, new=False)}

    def _put(self, inputs: Values, *, new: bool) -> Values:
        try:
            made = self.put(inputs, new=new)
            if type(self).__name__ == os.environ.get("STAND_IN_HANGS_AFTER"):
                # Made, and nobody told: the moment at which a kill is worst.
                time.sleep(600)
            return made
        except ClientError as error:
            raise ResourceError(f"{type(self).__name__}: {error}") from None

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        try:
            found = self.get(inputs)
        except Gone:
            return None
        except ClientError as error:
            if _code(error).startswith(_GONE):
                return None
            raise ResourceError(str(error)) from None
        return Found(resource_id, {**inputs, **found}, {**outputs, **found})

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        try:
            self.remove(outputs)
        except ClientError as error:
            if not _code(error).startswith(_GONE):
                raise ResourceError(str(error)) from None

    def identity(self, inputs: Values) -> str:
        return str(inputs.get("name") or inputs["bucket"])

    @abstractmethod
    def put(self, inputs: Values, *, new: bool) -> Values: ...

    @abstractmethod
    def get(self, inputs: Values) -> Values: ...

    @abstractmethod
    def remove(self, outputs: Values) -> None: ...


class _VendorServicer(Servicer):
    def __init__(
        self, name: str, resources: Mapping[str, Resource], address: str, secrets: Iterable[str], configure: Configure
    ) -> None:
        super().__init__(resources, address)
        self._version = importlib.metadata.version(f"pulumi_{name}")
        self._secrets = frozenset(secrets)
        self._configure = configure

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return plugin_pb2.PluginInfo(version=self._version)

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        old, new = decode(request.old_inputs), decode(request.news)
        changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        answer = provider_pb2.DiffResponse
        return answer(changes=answer.DIFF_SOME if changed else answer.DIFF_NONE, diffs=changed)

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return provider_pb2.CheckResponse(inputs=encode(decode(request.news), self._secrets))

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        # Anything but text arrives as JSON: so a vendor's plugin made from a Terraform provider wants it.
        values = {}
        for name, value in decode(request.args).items():
            try:
                values[name] = json.loads(value) if isinstance(value, str) else value
            except ValueError:
                values[name] = value
        self._configure(values)
        return super().Configure(request, context)


def serve(name: str, resources: Iterable[Resource], secrets: Iterable[str], configure: Configure) -> None:
    """Serve the resources until the engine ends.

    Args:
        name: the vendor's plugin, as one of STAND_INS.
        secrets: names of the plugin's settings that are secret.
        configure: takes the plugin's settings.
    """
    die_with_parent(os.getppid())
    by_type = {resource.pulumi_type: resource for resource in resources}
    address = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    servicer = _VendorServicer(name, by_type, address, secrets, configure)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


STAND_INS = ("aws", "digitalocean")


def install() -> None:
    """Put the stand-ins where the engine looks for the vendors' plugins, in the versions that the SDKs ask for."""
    for name in STAND_INS:
        version = importlib.metadata.version(f"pulumi_{name}")
        folder = state_dir() / "pulumi-home" / "plugins" / f"resource-{name}-v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / f"pulumi-resource-{name}"
        script.write_text(
            f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.doubles.{name}_plugin "$@"\n',
            encoding="utf-8",
        )
        script.chmod(0o755)
