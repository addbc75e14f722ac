"""Pulumi's provider protocol over gRPC, used in this module only; tested with the SDK range in pyproject.toml.

https://github.com/pulumi/pulumi/blob/master/proto/pulumi/provider.proto
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.message import Message
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

import synapse_media
from synapse_media.errors import SynapseMediaError
from synapse_media.redaction import redacted, remember_all
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import SECRET, SIGNATURE, UNKNOWN, UNKNOWN_ON_WIRE, is_secret
from synapse_media.schema.package import package
from synapse_media.schema.resources import PLUGIN
from synapse_media.store import tracing
from synapse_media.urn import Urn

from . import peers
from .resource import Context, PartialError, Resource, Values

THREADS: Final = 16
_NEW_OBJECTS: Final = 20_000
"""So many more objects than before, and the garbage collector looks for cycles among them: 700 by Python's default."""
_UNFINISHED: Final = "unfinished"
"""The output, on every partially created resource, that says why it is incomplete."""


def decode(struct: struct_pb2.Struct) -> Values:
    """Plain values: secrets unwrapped, unknowns as UNKNOWN, whole numbers as int."""
    return {key: _plain(value) for key, value in struct.fields.items() if key != "__internal"}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == UNKNOWN_ON_WIRE else value.string_value
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "struct_value":
        found = {key: _plain(item) for key, item in value.struct_value.fields.items()}
        if is_secret(found):
            remember_all(found["value"])
            return found["value"]
        return found
    return None


def encode(values: Mapping[str, Any], secrets: Iterable[str]) -> struct_pb2.Struct:
    """The wire form; every value named in `secrets` is wrapped as a secret."""
    hidden = frozenset(secrets)
    remember_all([value for key, value in values.items() if key in hidden and value is not UNKNOWN])
    struct = struct_pb2.Struct()
    for key, value in values.items():
        _write(struct.fields[key], {SIGNATURE: SECRET, "value": value} if key in hidden else value)
    return struct


def _write(target: struct_pb2.Value, value: object) -> None:
    if value is UNKNOWN:
        target.string_value = UNKNOWN_ON_WIRE
    elif value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, (int, float)):
        target.number_value = value
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()  # an empty one is not the same as none
        for key, item in value.items():
            _write(target.struct_value.fields[key], item)
    elif isinstance(value, (list, tuple)):
        target.list_value.SetInParent()
        for item in value:
            _write(target.list_value.values.add(), item)
    else:
        raise TypeError(f"{type(value).__name__} has no form in Pulumi's protocol")


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Dispatches each call to the resource of its type."""

    def __init__(self, resources: Mapping[str, Resource], engine_address: str, schema: str = "") -> None:
        self._resources = resources
        self._schema = schema
        self._engine = None
        self._adopted: set[tuple[str, ...]] = set()
        self._declared: dict[tuple[str, ...], str] = {}
        if engine_address:
            # The engine is on this machine, so a proxy of the environment must not be used.
            channel = grpc.insecure_channel(engine_address, options=[("grpc.enable_http_proxy", 0)])
            self._engine = engine_pb2_grpc.EngineStub(channel)
            tracing.tell = lambda line: self._log(engine_pb2.INFO, line, "")

    # ---- the plugin itself

    def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        # Resource references and output values are not accepted, since `decode` doesn't support them.
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=synapse_media.__version__)

    def GetSchema(
        self, request: provider_pb2.GetSchemaRequest, context: grpc.ServicerContext
    ) -> provider_pb2.GetSchemaResponse:
        return provider_pb2.GetSchemaResponse(schema=self._schema)

    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        news = decode(request.news)
        unknown = sorted(set(news) - {"version", "pluginDownloadURL"})
        failures = [
            provider_pb2.CheckFailure(
                property=name,
                reason="s3store takes no configuration: each resource says where its store is, and the admin "
                "credential comes from the environment",
            )
            for name in unknown
        ]
        # An unexpected value may be a credential, so it must not get into the state in clear text.
        return provider_pb2.CheckResponse(inputs=encode(news, unknown), failures=failures)

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        # Running calls have timeouts of their own, and their results belong in the state: none is aborted.
        return empty_pb2.Empty()

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    # ---- resources

    def Check(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        with self._answering(context, request.urn):
            resource = self._of(request.urn)
            inputs, failures = resource.check(decode(request.news))
            other = self._other_with_bucket(resource, inputs, request.urn)
            if other:
                failures = {
                    **failures,
                    "bucket": f"{inputs['bucket']!r} is also the bucket of {other}: deleting one would delete the "
                    "other's media. Choose another bucket",
                }
            return provider_pb2.CheckResponse(
                inputs=encode(inputs, resource.secrets),
                failures=[provider_pb2.CheckFailure(property=name, reason=why) for name, why in failures.items()],
            )

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        with self._answering(context, request.urn):
            resource = self._of(request.urn)
            news = decode(request.news)
            found = resource.diff(decode(request.old_inputs), news)
            ignored = set(request.ignoreChanges)
            changed = [name for name in found.changed if name not in ignored]
            unsettled = resource.unsettled(decode(request.olds), news)
            for name in sorted(resource.replace_on.intersection(changed) - set(found.replaced)):
                self._log(
                    engine_pb2.WARNING,
                    f"{name} is known only once the resource that gives it is applied: if it is another value then, "
                    "this is a replacement, and not an update",
                    request.urn,
                )
            kinds = provider_pb2.PropertyDiff
            detailed = {}
            for name in changed:
                kind = "ADD" if name in found.added else "DELETE" if name in found.deleted else "UPDATE"
                full = f"{kind}_REPLACE" if name in found.replaced else kind
                detailed[name] = kinds(kind=kinds.Kind.Value(full), inputDiff=True)
            for name in unsettled:
                detailed[name] = kinds(kind=kinds.Kind.Value("UPDATE"))
            answer = provider_pb2.DiffResponse
            return answer(
                changes=answer.DIFF_SOME if detailed else answer.DIFF_NONE,
                diffs=list(detailed),
                replaces=[name for name in found.replaced if name in changed],
                detailedDiff=detailed,
                hasDetailedDiff=True,
            )

    def Create(self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:
        with self._answering(context, request.urn, request.properties):
            resource = self._of(request.urn)
            inputs = decode(request.properties)
            if request.preview:
                return provider_pb2.CreateResponse(
                    id="", properties=encode(resource.planned(inputs, None), resource.secrets)
                )
            resource_id, outputs = resource.create(inputs, self._context(request.urn))
            if resource.one_of_a_name:
                self._adopted.add(_identity(resource, resource_id, inputs))
            return provider_pb2.CreateResponse(id=resource_id, properties=encode(outputs, resource.secrets))

    def Read(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:
        with self._answering(context, request.urn, request.inputs):
            resource = self._of(request.urn)
            outputs = decode(request.properties)
            unfinished = outputs.pop(_UNFINISHED, "")
            found = resource.read(request.id, decode(request.inputs), outputs, self._context(request.urn))
            if found is None:
                return provider_pb2.ReadResponse()
            inputs = encode(found.inputs, resource.secrets)
            if not unfinished:
                return provider_pb2.ReadResponse(
                    id=found.resource_id, inputs=inputs, properties=encode(found.outputs, resource.secrets)
                )
        # A response without an error would make the engine forget that the resource is incomplete.
        partial = PartialError(unfinished, found.resource_id, found.outputs)
        return self._abort_partial(context, partial, inputs, resource.secrets)

    def Update(self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:
        with self._answering(context, request.urn, request.news):
            resource = self._of(request.urn)
            old, inputs = decode(request.olds), decode(request.news)
            old.pop(_UNFINISHED, None)
            if request.preview:
                outputs = resource.planned(inputs, old)
            else:
                outputs = resource.update(request.id, old, inputs, self._context(request.urn))
            return provider_pb2.UpdateResponse(properties=encode(outputs, resource.secrets))

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        with self._answering(context, request.urn):
            resource = self._of(request.urn)
            inputs, outputs = decode(request.old_inputs), decode(request.properties)
            # When replaced under the same name (`--replace`), this run's create adopted the very object to delete.
            if _identity(resource, request.id, outputs) not in self._adopted:
                resource.delete(request.id, outputs, self._context(request.urn, inputs))
            return empty_pb2.Empty()

    # ---- internals

    def _of(self, urn: str) -> Resource:
        wanted = Urn.parse(urn).kind
        if wanted not in self._resources:
            raise SynapseMediaError(f"plugin {PLUGIN} {synapse_media.__version__} has no resource type {wanted!r}")
        return self._resources[wanted]

    def _other_with_bucket(self, resource: Resource, inputs: Values, urn: str) -> str:
        """The URN of another resource of this program with the same bucket; "" if there is none.

        Two stores of one homeserver have the same mark, and the settings can't be compared while a name is unknown.
        """
        bucket = inputs.get("bucket")
        if not resource.one_of_a_name or not isinstance(bucket, str):
            return ""
        first = self._declared.setdefault(_identity(resource, bucket, inputs), urn)
        return first if first != urn else ""

    def _context(self, urn: str, inputs: Values | None = None) -> Context:
        return Context(
            warn=lambda message: self._log(engine_pb2.WARNING, message, urn),
            inputs=inputs or {},
            urn=urn,
            note=lambda message: self._log(engine_pb2.INFO, message, urn),
        )

    def _log(self, severity: engine_pb2.LogSeverity.ValueType, message: str, urn: str) -> None:
        if self._engine is not None:
            # A message that can't be delivered must not fail an operation that succeeded.
            with contextlib.suppress(grpc.RpcError):
                said = engine_pb2.LogRequest(severity=severity, message=redacted(message), urn=urn)
                self._engine.Log(said, timeout=5)

    @contextlib.contextmanager
    def _answering(
        self, context: grpc.ServicerContext, urn: str, inputs: struct_pb2.Struct | None = None
    ) -> Iterator[None]:
        """Turn errors into gRPC statuses; a partially created resource goes into the state with the reason."""
        try:
            yield
        except PartialError as error:
            self._abort_partial(context, error, inputs, self._of(urn).secrets)
        except SynapseMediaError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except Exception as error:  # noqa: BLE001 - the engine needs an answer whatever happened
            # A bug. Its text may contain secrets, so only its type and place are reported.
            import traceback

            place = traceback.extract_tb(error.__traceback__)[-1]
            context.abort(
                grpc.StatusCode.INTERNAL,
                f"plugin {PLUGIN}: {type(error).__name__} at {os.path.basename(place.filename)}:{place.lineno}",  # noqa: PTH119
            )

    def _abort_partial(
        self,
        context: grpc.ServicerContext,
        error: PartialError,
        inputs: struct_pb2.Struct | None,
        secrets: frozenset[str],
    ) -> NoReturn:
        detail = provider_pb2.ErrorResourceInitFailed(
            id=error.resource_id,
            properties=encode({**error.outputs, _UNFINISHED: str(error)}, secrets),
            reasons=[str(error)],
            inputs=inputs or struct_pb2.Struct(),
        )
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        status.details.add().Pack(detail)
        aborting = grpc.Status()
        aborting.code = grpc.StatusCode.UNKNOWN
        aborting.details = str(error)
        aborting.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)
        context.abort_with_status(aborting)
        raise AssertionError("abort_with_status returned")


class _SameUser(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses connections of other users of this machine, before a call is handled.

    The engine starts this process and connects to it, so both have the same user. `port` is the port being served.
    """

    port = 0

    def __init__(self) -> None:
        self._behaviors: dict[str, grpc.RpcMethodHandler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        if details.method not in self._behaviors:
            handler = continuation(details)
            if handler is None or handler.unary_unary is None:
                return None  # this protocol has no streaming calls
            self._behaviors[details.method] = self._refusing(handler)
        return self._behaviors[details.method]

    def _refusing(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        def behavior(request: Message, context: grpc.ServicerContext) -> Message:
            why = peers.refusal(context.peer(), self.port)
            if why:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, f"plugin {PLUGIN}: {why}")
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(behavior, handler.request_deserializer, handler.response_serializer)


def _identity(resource: Resource, resource_id: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The identity of a resource with a fixed name: type, name and location."""
    given = values.get("connection")
    where = model.read(Connection, given) if isinstance(given, Mapping) else Connection()
    return (resource.pulumi_type, resource_id, where.endpoint, where.iam_endpoint, where.api_endpoint)


def die_with_parent(parent: int) -> None:
    """End with the engine: a plugin that outlives it could finish a create after the next run has cleaned up."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def serve(resources: Iterable[Resource], arguments: list[str], announce: Callable[[str], None] = print) -> None:
    """Serve on a free loopback port until the engine ends; the port is announced on standard output, as it expects."""
    die_with_parent(os.getppid())
    by_type = {resource.pulumi_type: resource for resource in resources}
    address = next((argument for argument in arguments if not argument.startswith("-")), "")
    limit = 400 * 1024 * 1024
    same_user = _SameUser()
    servicer = Servicer(by_type, address, json.dumps(package(synapse_media.__version__)))
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=THREADS),
        interceptors=[same_user],
        options=[("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)],
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    same_user.port = server.add_insecure_port("127.0.0.1:0")
    # What was imported stays, and most of what a call makes goes with it: looking for cycles at Python's own pace took
    # a tenth of the CPU.
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
    # The engine asks a plugin to end by SIGINT.
    with contextlib.suppress(KeyboardInterrupt):
        server.start()
        announce(str(same_user.port))
        sys.stdout.flush()
        server.wait_for_termination()
