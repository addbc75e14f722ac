"""What the stand-ins for vendors' plugins share: a real provider process under the vendor's name and version.

They behave as the vendors' plugins were measured to, where it matters to us: what is replaced and what is updated in
place, what a read finds and where it is put (`Vendor`, `_VendorServicer`), how errors look. The vendor's own
validation, defaults and waiting are not shown but where a class says so.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import grpc
from botocore.exceptions import ClientError
from google.protobuf import struct_pb2
from pulumi.runtime.proto import engine_pb2, plugin_pb2, provider_pb2, provider_pb2_grpc

from synapse_media.engine.paths import state_dir
from synapse_media.errors import StoreError
from synapse_media.plugin.protocol import Servicer, decode, die_with_parent, encode
from synapse_media.plugin.resource import Context, Found, PartialError, Resource, Values
from synapse_media.plugin.s3_bucket import canonical
from synapse_media.schema.model import UNKNOWN

ROOT = Path(__file__).resolve().parents[2]

Configure = Callable[[Mapping[str, Any]], None]


_GONE = ("NoSuch", "NotFound", "404", "ServerSideEncryptionConfigurationNotFound", "OwnershipControlsNotFound")


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))


class Gone(Exception):  # noqa: N818 - what it says, not a fault
    """What a `get` looks for is not there, where the store answers without an error."""


class Vendor(Resource):
    """A resource whose `put` makes and changes it, `get` reads its inputs (or raises Gone) and `remove` deletes it.

    As the bridge has it (pulumi-terraform-bridge): a difference is one between the outputs in state and the program's
    inputs, told by paths to single values and never as one of inputs; a read changes the outputs alone; objects carry
    `__defaults`.

    Class attributes:
        documents: inputs that are policies: of the same meaning is no change.
        gone_is_done: to delete what is gone already is no error.
    """

    documents: ClassVar[frozenset[str]] = frozenset()
    gone_is_done: ClassVar[bool] = True

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        inputs, failures = super().check(inputs)
        return _with_defaults(inputs), failures

    def detailed(self, olds: Values, old_inputs: Values, news: Values) -> dict[str, str]:
        """{path of a value: ADD, DELETE or UPDATE} of what differs between the outputs in state and the inputs."""
        found: dict[str, str] = {}
        for name in sorted({*old_inputs, *news} - {"__defaults"}):
            old, new = olds.get(name), news.get(name)
            if name in self.documents and isinstance(old, str) and isinstance(new, str):
                old, new = canonical(old), canonical(new)
            found |= dict(_paths(name, old, new))
        return found

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**(old or {"arn": UNKNOWN}), **_without_defaults(inputs)}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        inputs = _without_defaults(inputs)
        resource_id = self.identity(inputs)
        made = self._calls(self.put, inputs, None)
        if type(self).__name__ == os.environ.get("STAND_IN_HANGS_AFTER"):
            # Created, and not reported yet: the worst moment for a kill.
            time.sleep(600)
        return resource_id, self._outputs(inputs, made)

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        inputs = _without_defaults(inputs)
        return {**old, **self._outputs(inputs, self._calls(self.put, inputs, old))}

    def _outputs(self, inputs: Values, made: Values) -> Values:
        tags = {"tagsAll": inputs["tags"]} if "tags" in inputs else {}
        return {**inputs, **tags, **made}

    def _calls(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except ClientError as error:
            raise StoreError(self.told(error)) from None

    def told(self, error: ClientError) -> str:
        """The vendor's words for an answer of the store."""
        return f"{type(self).__name__}: {_code(error)}: {error.response['Error'].get('Message', '')}"

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        try:
            found = self.get({**outputs, "id": resource_id})
        except Gone:
            return None
        except ClientError as error:
            if _code(error).startswith(_GONE):
                return None
            raise StoreError(self.told(error)) from None
        tags = {"tagsAll": found["tags"]} if "tags" in found else {}
        return Found(resource_id, inputs, {**outputs, **found, **tags})

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        try:
            self.remove({**outputs, "id": resource_id})
        except ClientError as error:
            if not (self.gone_is_done and _code(error).startswith(_GONE)):
                raise StoreError(self.told(error)) from None

    def identity(self, inputs: Values) -> str:
        return str(inputs.get("name") or inputs["bucket"])

    @abstractmethod
    def put(self, inputs: Values, old: Values | None) -> Values:
        """Make it, or (where `old`, the outputs in state, are given) change it; further outputs."""

    @abstractmethod
    def get(self, outputs: Values) -> Values:
        """What the store says of it, by the names of its inputs; `id` is among the outputs."""

    @abstractmethod
    def remove(self, outputs: Values) -> None: ...


def _with_defaults(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_defaults(item) for item in value]
    if isinstance(value, dict):
        return {"__defaults": [], **{name: _with_defaults(item) for name, item in value.items()}}
    return value


def _without_defaults(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_defaults(item) for name, item in value.items() if name != "__defaults"}
    return value


def _paths(path: str, old: Any, new: Any) -> Iterable[tuple[str, str]]:
    """(path, kind) of each value that differs; what a Terraform schema calls empty is the same as nothing."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new} - {"__defaults"}):
            step = f".{name}" if re.fullmatch(r"\w+", name) else f'["{name}"]'
            yield from _paths(path + step, old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            was, will = (each[index] if index < len(each) else None for each in (old, new))
            yield from _paths(f"{path}[{index}]", was, will)
    elif old != new and (old or new):
        yield path, "DELETE" if new is None else "ADD" if old is None else "UPDATE"


class _VendorServicer(Servicer):
    def __init__(
        self, name: str, resources: Mapping[str, Resource], address: str, secrets: Iterable[str], configure: Configure
    ) -> None:
        super().__init__(resources, address)
        self._name = name
        self._version = importlib.metadata.version(f"pulumi_{name}")
        self._secrets = frozenset(secrets)
        self._configure = configure

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        with self._answering(context, request.urn):
            resource = self._of(request.urn)
            assert isinstance(resource, Vendor)
            found = resource.detailed(decode(request.olds), decode(request.old_inputs), decode(request.news))
            top = {path: re.split(r"[.\[]", path)[0] for path in found}
            kinds = provider_pb2.PropertyDiff
            detailed = {
                path: kinds(
                    kind=kinds.Kind.Value(f"{kind}_REPLACE" if top[path] in resource.replace_on else kind),
                    inputDiff=False,
                )
                for path, kind in found.items()
            }
            answer = provider_pb2.DiffResponse
            return answer(
                changes=answer.DIFF_SOME if found else answer.DIFF_NONE,
                diffs=sorted(set(top.values())),
                replaces=sorted(set(top.values()) & resource.replace_on),
                detailedDiff=detailed,
                hasDetailedDiff=True,
            )

    @contextlib.contextmanager
    def _answering(self, context: Any, urn: str, inputs: struct_pb2.Struct | None = None) -> Any:
        """An error is reported twice: in the log, with a line of the library's source, and in the answer."""
        with super()._answering(context, urn, inputs):
            try:
                yield
            except StoreError as error:
                if isinstance(error, PartialError):
                    raise
                line = f"sdk-v2/provider2.go:572: sdk.helper_schema: {error}: provider={self._name}@{self._version}"
                self._log(engine_pb2.ERROR, line, "")
                raise StoreError(f"1 error occurred:\n\t* {error}\n\n") from None

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
# As they were before a run of tests hides them.
_PATH = os.environ.get("PATH", os.defpath)
_HOME = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def own_plugin(name: str) -> Path | None:
    """The vendor's own plugin on this machine, on PATH or where pulumi keeps plugins; None where there is none."""
    program = f"pulumi-resource-{name}"
    kept = sorted(_HOME.glob(f"plugins/resource-{name}-v*/{program}"))
    found = shutil.which(program, path=_PATH) or next(iter(reversed(kept)), None)
    return Path(found) if found else None


def install(own: Mapping[str, Path] = MappingProxyType({})) -> None:
    """Put the stand-ins where the engine looks for the vendors' plugins, in the versions that the SDKs ask for.

    Args:
        own: vendors' own plugins, to be there in a stand-in's place.
    """
    for name in STAND_INS:
        version = importlib.metadata.version(f"pulumi_{name}")
        folder = state_dir() / "pulumi-home" / "plugins" / f"resource-{name}-v{version}"
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / f"pulumi-resource-{name}"
        stand_in = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.doubles.{name}_plugin "$@"'
        runs = f'exec "{own[name]}" "$@"' if name in own else stand_in
        script.write_text(f"#!/bin/sh\n{runs}\n", encoding="utf-8")
        script.chmod(0o755)
