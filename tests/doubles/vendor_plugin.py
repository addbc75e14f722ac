"""What the stand-ins for vendors' plugins share: a real provider process under the vendor's name and version.

They prove our program and its wiring through the real engine. They do not show the vendor's own validation, defaults,
diffs or replace rules.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from synapse_media.engine.paths import state_dir
from synapse_media.plugin.protocol import Servicer, decode, die_with_parent, encode
from synapse_media.plugin.resource import Resource

ROOT = Path(__file__).resolve().parents[2]

Configure = Callable[[Mapping[str, Any]], None]


class _VendorServicer(Servicer):
    def __init__(
        self, resources: Mapping[str, Resource], address: str, secrets: Iterable[str], configure: Configure
    ) -> None:
        super().__init__(resources, address)
        self._secrets = frozenset(secrets)
        self._configure = configure

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


def serve(resources: Iterable[Resource], secrets: Iterable[str], configure: Configure) -> None:
    """Serve the resources until the engine ends.

    Args:
        secrets: names of the plugin's settings that are secret.
        configure: takes the plugin's settings.
    """
    die_with_parent(os.getppid())
    by_type = {resource.pulumi_type: resource for resource in resources}
    address = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    servicer = _VendorServicer(by_type, address, secrets, configure)
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
