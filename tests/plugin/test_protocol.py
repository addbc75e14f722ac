"""A conformance test per call of the protocol, against the real plugin process on the real embedded store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2

import synapse_media
from synapse_media.engine.embedded import Running
from synapse_media.engine.processes import identity
from synapse_media.plugin import protocol
from synapse_media.plugin.protocol import Servicer
from synapse_media.schema import model
from tests.accounts import user_names
from tests.doubles import proxy
from tests.plugin import process
from tests.plugin.direct import OWNER, VARIABLES, Direct, allow
from tests.plugin.process import UNKNOWN, Plugin, init_failed, outside_of_secrets, plain, raw, secret, urn

KINDS = ("Bucket", "User", "UserPolicy", "KeyRing", "ExistingKey", "Proof")


def environment(store: Running | None = None) -> dict[str, str]:
    """Little else than the admin credential."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    if store is not None:
        kept |= dict(zip(VARIABLES, (store.access_key_id, store.secret_access_key), strict=True))
    return kept


@pytest.fixture(scope="module")
def plugin(embedded_store: Running) -> Iterator[Plugin]:
    with process.running(environment(embedded_store)) as found:
        yield found


@pytest.fixture(scope="module")
def next_run(embedded_store: Running) -> Iterator[Plugin]:
    """What an earlier run made is deleted by another process."""
    with process.running(environment(embedded_store)) as found:
        yield found


def test_values_are_written_and_read_as_pulumi_has_them() -> None:
    values = {
        "text": "Größe",
        "empty": "",
        "whole": 3,
        "part": 0.5,
        "yes": True,
        "no": False,
        "none": None,
        "list": ["a", 1, [], {}, None],
        "object": {"in": {"empty": {}, "list": []}, "tuple": ["a"]},
    }
    written = protocol.encode({**values, "object": {"in": {"empty": {}, "list": ()}, "tuple": ("a",)}}, ())
    assert written == json_format.ParseDict(values, struct_pb2.Struct())
    assert protocol.decode(written) == values
    assert type(protocol.decode(written)["whole"]) is int
    with pytest.raises(TypeError, match="bytes has no form"):
        protocol.encode({"raw": b""}, ())


def test_a_secret_is_wrapped_and_unwrapped_however_deep() -> None:
    written = protocol.encode({"keys": {"a": {"secret": "s" * 20}}, "later": model.UNKNOWN}, ["keys", "later"])
    plain = json_format.MessageToDict(written)
    assert plain["keys"] == secret({"a": {"secret": "s" * 20}})
    assert plain["later"] == secret(UNKNOWN)
    assert protocol.decode(written) == {"keys": {"a": {"secret": "s" * 20}}, "later": model.UNKNOWN}
    deep = json_format.ParseDict({"a": [{"b": secret({"c": secret(UNKNOWN)})}]}, struct_pb2.Struct())
    assert protocol.decode(deep) == {"a": [{"b": {"c": model.UNKNOWN}}]}


def bucket_inputs(direct: Direct, **changes: Any) -> dict[str, Any]:
    return {
        "bucket": direct.name,
        "connection": direct.connection(),
        "owner": OWNER,
        "versioning": True,
        "policy": "",
        **changes,
    }


def checked(plugin: Plugin, kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
    answer = plugin.call("Check", urn=urn(kind), news=inputs)
    assert not answer.failures
    return raw(answer.inputs)


def ring_inputs(direct: Direct, *slots: str, **changes: Any) -> dict[str, Any]:
    return {
        "userName": direct.name,
        "active": slots[0],
        "slots": list(slots),
        "connection": direct.connection(),
        **changes,
    }


def refused(plugin: Plugin, name: str, **request: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        plugin.call(name, **request)
    return error.value


# ---- the plugin itself


def test_handshake_promises_what_is_kept(plugin: Plugin) -> None:
    """Secrets come wrapped and go wrapped; references to resources and output values are not read, so not asked for."""
    answer = plugin.stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address="127.0.0.1:9"))
    assert answer.accept_secrets
    assert not answer.accept_resources
    assert not answer.accept_outputs


def test_configure_promises_the_same(plugin: Plugin) -> None:
    answer = plugin.call("Configure", args={}, acceptSecrets=True)
    assert answer.acceptSecrets
    assert answer.supportsPreview
    assert not answer.acceptResources
    assert not answer.acceptOutputs


def test_get_plugin_info_tells_the_version(plugin: Plugin) -> None:
    assert plugin.call("GetPluginInfo").version == synapse_media.__version__


def test_get_schema_names_the_plugin(plugin: Plugin) -> None:
    schema = json.loads(plugin.call("GetSchema").schema)
    assert (schema["name"], schema["version"]) == ("s3store", synapse_media.__version__)


def test_check_config_takes_none_and_keeps_what_it_was_given_secret(plugin: Plugin) -> None:
    assert not plugin.call("CheckConfig", news={}).failures
    assert not plugin.call("CheckConfig", news={"version": "1.0.0", "pluginDownloadURL": "x"}).failures
    answer = plugin.call("CheckConfig", news={"version": "1.0.0", "secretKey": "hunter2", "other": secret("hunter3")})
    assert [failure.property for failure in answer.failures] == ["other", "secretKey"]
    assert "takes no configuration" in answer.failures[0].reason
    assert "hunter" not in " ".join(failure.reason for failure in answer.failures)
    inputs = raw(answer.inputs)
    assert not any("hunter" in text for text in outside_of_secrets(inputs))
    assert plain(inputs)["secretKey"] == "hunter2"


def test_diff_config_finds_nothing(plugin: Plugin) -> None:
    answer = plugin.call("DiffConfig", olds={"version": "1.0.0"}, news={"version": "2.0.0"})
    assert answer.changes == provider_pb2.DiffResponse.DIFF_NONE
    assert not answer.replaces


def test_cancel_and_attach_answer_and_the_plugin_goes_on(plugin: Plugin) -> None:
    plugin.call("Cancel")
    plugin.call("Attach")
    assert plugin.call("GetPluginInfo").version


NOT_OFFERED = {"Invoke", "Call", "Construct", "Parameterize", "List", "GetMapping", "GetMappings"}


def test_what_is_not_offered_is_said_to_be_unimplemented(plugin: Plugin) -> None:
    for name in NOT_OFFERED - {"List"}:
        assert refused(plugin, name).code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as error:
        list(plugin.call("List"))  # a stream: the refusal comes with its first element
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_other_call_of_the_protocol_is_answered() -> None:
    service = provider_pb2.DESCRIPTOR.services_by_name["ResourceProvider"]
    assert {method.name for method in service.methods} - NOT_OFFERED <= set(vars(Servicer))


# ---- check


@pytest.mark.parametrize("kind", KINDS)
def test_check_names_every_missing_input(plugin: Plugin, kind: str) -> None:
    answer = plugin.call("Check", urn=urn(kind), news={})
    assert "connection" in {failure.property for failure in answer.failures}
    assert all(failure.reason for failure in answer.failures)


def test_check_fills_in_defaults_and_one_form(plugin: Plugin, direct: Direct) -> None:
    found = checked(plugin, "Bucket", bucket_inputs(direct, policy='{ "b": 1,\n "a": 2 }'))
    assert found["policy"] == '{"a":2,"b":1}'
    assert found["forceDestroy"] is False
    assert found["noncurrentDays"] == 0
    again = checked(plugin, "Bucket", found)
    assert again == found


def test_check_passes_on_what_is_not_known_yet(plugin: Plugin, direct: Direct) -> None:
    inputs = {
        "connection": direct.connection(endpoint=UNKNOWN),
        "bucket": direct.name,
        "accessKeyId": UNKNOWN,
        "secretAccessKey": secret(UNKNOWN),
        "expected": {"put": "allowed"},
    }
    found = checked(plugin, "Proof", inputs)
    assert {name: found[name] for name in inputs if name != "connection"} == {
        name: value for name, value in inputs.items() if name != "connection"
    }
    assert found["connection"].items() >= inputs["connection"].items()


def test_check_wraps_a_secret_that_came_in_clear(plugin: Plugin, direct: Direct) -> None:
    inputs = {
        "connection": direct.connection(),
        "bucket": direct.name,
        "accessKeyId": "AKIA",
        "secretAccessKey": "in-clear",
        "expected": {"put": "allowed"},
    }
    assert checked(plugin, "Proof", inputs)["secretAccessKey"] == secret("in-clear")


# ---- diff


def diff(plugin: Plugin, old: dict[str, Any], new: dict[str, Any], **more: Any) -> Any:
    return plugin.call("Diff", id="x", urn=urn("Bucket"), olds=old, old_inputs=old, news=new, **more)


def kinds(answer: Any) -> dict[str, str]:
    names = provider_pb2.PropertyDiff.Kind
    return {name: names.Name(found.kind) for name, found in answer.detailedDiff.items()}


def test_two_resources_of_a_program_with_one_bucket_are_refused(next_run: Plugin, direct: Direct) -> None:
    """Two components of one homeserver, whose bucket was not known before: both have the same mark."""
    inputs = bucket_inputs(direct)
    for _ in range(2):
        checked(next_run, "Bucket", inputs)
    not_known = next_run.call("Check", urn=urn("Bucket", "other"), news={**inputs, "bucket": UNKNOWN})
    assert not not_known.failures
    elsewhere = {**inputs, "connection": direct.connection(endpoint="https://s3.example.com")}
    assert not next_run.call("Check", urn=urn("Bucket", "other"), news=elsewhere).failures
    [failure] = next_run.call("Check", urn=urn("Bucket", "other"), news=inputs).failures
    assert failure.property == "bucket"
    assert f"{direct.name!r} is also the bucket of {urn('Bucket')}" in failure.reason


def test_diff_of_the_same_is_none(plugin: Plugin, direct: Direct) -> None:
    inputs = checked(plugin, "Bucket", bucket_inputs(direct))
    answer = diff(plugin, inputs, inputs)
    assert answer.changes == provider_pb2.DiffResponse.DIFF_NONE
    assert answer.hasDetailedDiff
    assert not answer.diffs
    assert not answer.detailedDiff


def test_diff_tells_what_is_added_changed_and_gone(plugin: Plugin, direct: Direct) -> None:
    old = checked(plugin, "Bucket", bucket_inputs(direct, policy=None))
    new = checked(plugin, "Bucket", bucket_inputs(direct, policy="", versioning=False))
    answer = diff(plugin, {**old, "expiringRules": ["x"]}, new)
    assert answer.changes == provider_pb2.DiffResponse.DIFF_SOME
    assert kinds(answer) == {"policy": "ADD", "versioning": "UPDATE", "expiringRules": "DELETE"}
    assert sorted(answer.diffs) == sorted(kinds(answer))
    assert all(found.inputDiff for found in answer.detailedDiff.values())
    assert not answer.replaces


def test_diff_tells_what_makes_another_resource(plugin: Plugin, direct: Direct) -> None:
    old = checked(plugin, "Bucket", bucket_inputs(direct))
    answer = diff(plugin, old, {**old, "bucket": "another"})
    assert list(answer.replaces) == ["bucket"]
    assert kinds(answer) == {"bucket": "UPDATE_REPLACE"}
    assert not answer.deleteBeforeReplace


def test_diff_does_not_take_an_unknown_name_for_another(next_run: Plugin, direct: Direct) -> None:
    """At apply it is known, and then it replaces if it is another."""
    plugin = next_run
    old = checked(plugin, "Bucket", bucket_inputs(direct))
    answer = diff(plugin, old, {**old, "bucket": UNKNOWN})
    assert not answer.replaces
    [said] = plugin.engine.warnings
    assert said.startswith("bucket is known only once the resource that gives it is applied")
    assert kinds(answer) == {"bucket": "UPDATE"}


def test_diff_leaves_out_what_is_to_be_ignored(plugin: Plugin, direct: Direct) -> None:
    old = checked(plugin, "Bucket", bucket_inputs(direct))
    new = {**old, "bucket": "another", "versioning": False}
    answer = diff(plugin, old, new, ignoreChanges=["bucket"])
    assert list(answer.diffs) == ["versioning"]
    assert not answer.replaces
    assert diff(plugin, old, new, ignoreChanges=["bucket", "versioning"]).changes == answer.DIFF_NONE


def test_diff_takes_what_is_not_known_for_changed(plugin: Plugin, direct: Direct) -> None:
    old = checked(plugin, "Bucket", bucket_inputs(direct))
    answer = diff(plugin, old, {**old, "connection": direct.connection(endpoint=UNKNOWN)})
    assert kinds(answer) == {"connection": "UPDATE"}


def test_diff_compares_what_is_in_a_secret(plugin: Plugin) -> None:
    old = {"secretAccessKey": secret("one"), "accessKeyId": "AKIA"}
    for new, changed in (("one", []), ("two", ["secretAccessKey"])):
        news = {"secretAccessKey": secret(new), "accessKeyId": "AKIA"}
        answer = plugin.call("Diff", id="x", urn=urn("Proof"), olds=old, old_inputs=old, news=news)
        assert list(answer.diffs) == changed


# ---- create, read, update, delete


def test_a_preview_of_create_calls_nobody(plugin: Plugin, direct: Direct) -> None:
    inputs = checked(
        plugin, "Bucket", bucket_inputs(direct, connection=direct.connection(endpoint="http://127.0.0.1:9"))
    )
    answer = plugin.call("Create", urn=urn("Bucket"), properties=inputs, preview=True)
    assert answer.id == ""
    assert raw(answer.properties)["arn"] == f"arn:aws:s3:::{direct.name}"


def test_a_preview_of_create_leaves_unknown_what_only_the_store_knows(plugin: Plugin, direct: Direct) -> None:
    inputs = checked(plugin, "KeyRing", ring_inputs(direct, "a"))
    found = raw(plugin.call("Create", urn=urn("KeyRing"), properties=inputs, preview=True).properties)
    assert found["accessKeyId"] == found["keys"] == UNKNOWN
    assert found["secretAccessKey"] == found["secrets"] == secret(UNKNOWN)
    assert found["userName"] == direct.name


def test_a_bucket_through_its_life(plugin: Plugin, next_run: Plugin, direct: Direct) -> None:
    inputs = checked(plugin, "Bucket", bucket_inputs(direct))
    made = plugin.call("Create", urn=urn("Bucket"), properties=inputs)
    assert made.id == direct.name
    state = raw(made.properties)
    assert state == {
        **inputs,
        "arn": f"arn:aws:s3:::{direct.name}",
        "adopted": False,
        "lacks": [],
        "hasNoTags": False,
        "differences": [],
    }
    same = plugin.call("Read", id=made.id, urn=urn("Bucket"), properties=state, inputs=inputs)
    assert (same.id, raw(same.inputs), raw(same.properties)) == (made.id, inputs, state)

    direct.s3.put_bucket_versioning(Bucket=direct.name, VersioningConfiguration={"Status": "Suspended"})
    drifted = plugin.call("Read", id=made.id, urn=urn("Bucket"), properties=state, inputs=inputs)
    assert raw(drifted.inputs) == {**inputs, "versioning": False}
    assert raw(drifted.properties) == {**state, "versioning": False}

    request = {"id": made.id, "urn": urn("Bucket"), "olds": raw(drifted.properties), "news": inputs}
    assert raw(plugin.call("Update", **request, preview=True).properties) == state
    assert direct.s3.get_bucket_versioning(Bucket=direct.name)["Status"] == "Suspended", "a preview changes nothing"
    assert raw(plugin.call("Update", **request).properties) == state
    assert direct.s3.get_bucket_versioning(Bucket=direct.name)["Status"] == "Enabled"

    direct.put()
    # In the run that made it, or took it over, it is the new one of a replacement under the same name.
    plugin.call("Delete", id=made.id, urn=urn("Bucket"), properties=state)
    error = refused(next_run, "Delete", id=made.id, urn=urn("Bucket"), properties=state)
    assert "holds media and is not deleted" in str(error.details())
    direct.s3.delete_object(Bucket=direct.name, Key="local_content/a", VersionId=version(direct))
    plugin.call("Delete", id=made.id, urn=urn("Bucket"), properties=state)
    assert direct.bucket_exists()
    next_run.call("Delete", id=made.id, urn=urn("Bucket"), properties=state)
    assert not direct.bucket_exists()
    next_run.call("Delete", id=made.id, urn=urn("Bucket"), properties=state)
    gone = plugin.call("Read", id=made.id, urn=urn("Bucket"), properties=state, inputs=inputs)
    assert gone.id == ""
    assert raw(gone.properties) == raw(gone.inputs) == {}


def version(direct: Direct) -> str:
    [found] = direct.s3.list_object_versions(Bucket=direct.name)["Versions"]
    version_id: str = found["VersionId"]
    return version_id


def test_an_import_has_an_id_and_nothing_else(plugin: Plugin, direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    found = plugin.call("Read", id=f"{direct.name}@{direct.endpoint}", urn=urn("Bucket"))
    assert found.id == direct.name
    assert raw(found.inputs)["bucket"] == direct.name
    assert set(raw(found.inputs)) < set(raw(found.properties))
    for kind in ("KeyRing", "Proof", "ExistingKey"):
        assert "can't be imported" in str(refused(plugin, "Read", id="x", urn=urn(kind)).details())
    assert plugin.call("Read", id=f"{direct.name}-no@{direct.endpoint}", urn=urn("Bucket")).id == ""


def test_user_policy_ring_and_proof_with_every_secret_wrapped(
    plugin: Plugin, next_run: Plugin, direct: Direct, embedded_store: Running
) -> None:
    """All calls in the engine's order; no secret is ever outside its wrapper, and the admin's is nowhere."""
    answers: list[dict[str, Any]] = []

    def create(kind: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        made = plugin.call("Create", urn=urn(kind), properties=checked(plugin, kind, inputs))
        answers.append(raw(made.properties))
        return made.id, raw(made.properties)

    direct.s3.create_bucket(Bucket=direct.name)
    at = {"userName": direct.name, "connection": direct.connection()}
    user_id, user = create("User", {**at, "path": "/synapse-media/tests/"})
    ring_id, ring = create("KeyRing", ring_inputs(direct, "a"))
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListBucket", "s3:PutObject")]})
    policy_id, policy = create("UserPolicy", {**at, "policyName": "media", "policy": document})
    proof = {
        "connection": direct.connection(),
        "bucket": direct.name,
        "accessKeyId": ring["accessKeyId"],
        "secretAccessKey": ring["secretAccessKey"],
        "expected": {"put": "allowed", "list": "allowed", "delete": "refused"},
    }
    proof_id, proved = create("Proof", proof)
    assert [line["outcome"] for line in proved["lines"]] == ["allowed", "allowed", "refused"]

    state = {"KeyRing": (ring_id, ring, ring_inputs(direct, "a")), "Proof": (proof_id, proved, proof)}
    for kind, (found, outputs, inputs) in state.items():
        news = checked(plugin, kind, inputs)
        answers.append(news)
        read = plugin.call("Read", id=found, urn=urn(kind), properties=outputs, inputs=news)
        answers += [raw(read.inputs), raw(read.properties)]
        for preview in (True, False):
            update = plugin.call("Update", id=found, urn=urn(kind), olds=outputs, news=news, preview=preview)
            answers.append(raw(update.properties))

    secrets = [plain(ring)["secretAccessKey"], embedded_store.secret_access_key]
    assert all(len(text) > 20 for text in secrets)
    assert ring["secretAccessKey"] == secret(secrets[0])
    assert plain(ring)["secrets"] == {"a": secrets[0]}
    for answer in answers:
        for text in outside_of_secrets(answer):
            assert not any(hidden in text for hidden in secrets)
        assert embedded_store.secret_access_key not in json.dumps(answer)
    assert not any(hidden in message for _, message in plugin.engine.said for hidden in secrets)

    for kind, found, outputs in (
        ("Proof", proof_id, proved),
        ("UserPolicy", policy_id, policy),
        ("KeyRing", ring_id, ring),
        ("User", user_id, user),
    ):
        leave = {"retireConfirmed": True} if kind == "KeyRing" else {}
        for _ in range(2):
            next_run.call("Delete", id=found, urn=urn(kind), properties=outputs, old_inputs=leave)
    assert direct.name not in user_names(direct.iam)


def test_what_the_plugin_says_reaches_the_user_at_its_resource(plugin: Plugin, direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name)
    plugin.call("Create", urn=urn("KeyRing", direct.name), properties=ring_inputs(direct, "a"))
    [said] = [message for at, message in plugin.engine.said if at == urn("KeyRing", direct.name)]
    # To make a key is what was asked for: it is said, and is no warning.
    assert plugin.engine.warnings == []
    assert "is new. Render, and restart Synapse" in said


def test_each_call_is_told_where_it_is_asked_for(embedded_store: Running, direct: Direct, plugin: Plugin) -> None:
    direct.iam.create_user(UserName=direct.name)
    with process.running({**environment(embedded_store), "SYNAPSE_MEDIA_VERBOSE": "1"}) as own:
        made = own.call("Create", urn=urn("KeyRing"), properties=ring_inputs(direct, "a"))
        hidden = plain(raw(made.properties))["secretAccessKey"]
        calls = list(own.engine.calls)
        leave = {"retireConfirmed": True}
        own.call("Delete", id=made.id, urn=urn("KeyRing"), properties=raw(made.properties), old_inputs=leave)
    [created] = [line for line in calls if "CreateAccessKey" in line]
    assert created.startswith("api: CreateAccessKey POST ")
    assert ": 200 in " in created
    assert not any(text in line for line in calls for text in (hidden, embedded_store.secret_access_key))
    assert plugin.engine.calls == []


# ---- half made


def test_a_create_that_stops_half_way_goes_into_state(plugin: Plugin, direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name)
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        count: list[int] = []

        def second(request: proxy.Request) -> bool:
            count.extend([1] * (request.action == "CreateAccessKey"))
            return request.action == "CreateAccessKey" and len(count) == 2

        double.misbehave(proxy.internal_error, when=second)
        there = ring_inputs(direct, "a", "b", connection=direct.connection(iamEndpoint=double.url))
        inputs = checked(plugin, "KeyRing", there)
        error = refused(plugin, "Create", urn=urn("KeyRing"), properties=inputs)
    assert error.code() is grpc.StatusCode.UNKNOWN
    found = init_failed(error)
    assert found.id == direct.name
    assert list(found.reasons) == [error.details()]
    assert "ServiceFailure" in found.reasons[0]
    assert raw(found.inputs) == inputs
    reached = raw(found.properties)
    [key_id] = direct.key_ids()
    assert reached["keys"]["a"]["accessKeyId"] == key_id
    hidden = plain(reached)["secrets"]["a"]
    assert reached["secrets"] == secret({"a": hidden})
    assert reached["secretAccessKey"] == secret(hidden)
    assert hidden not in str(error.details())
    # The engine forces an update of what has init errors.
    news = checked(plugin, "KeyRing", ring_inputs(direct, "a", "b"))
    done = plugin.call("Update", id=found.id, urn=urn("KeyRing"), olds=reached, news=news)
    assert raw(done.properties)["keys"]["a"] == reached["keys"]["a"]
    assert len(direct.key_ids()) == 2


def test_an_update_that_stops_half_way_goes_into_state(plugin: Plugin, direct: Direct) -> None:
    key = direct.user_with_key(allow("s3:ListAllMyBuckets"))
    inputs = {
        "connection": direct.connection(),
        "bucket": direct.name,
        "accessKeyId": key.access_key_id,
        "secretAccessKey": secret(key.secret),
        "expected": {"put": "allowed"},
    }
    error = refused(plugin, "Update", id="proof-x", urn=urn("Proof"), olds=inputs, news=inputs)
    found = init_failed(error)
    assert found.id == "proof-x"
    assert "the proof failed" in found.reasons[0]
    assert raw(found.properties)["lines"][0]["operation"] == "put"
    for values in (raw(found.properties), raw(found.inputs)):
        assert values["secretAccessKey"] == secret(key.secret)


# ---- errors


def test_an_error_of_the_store_is_said_in_words(plugin: Plugin, direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put()
    error = refused(plugin, "Create", urn=urn("Bucket"), properties=bucket_inputs(direct))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "set adopt: true" in str(error.details())
    assert not [key for key, _ in error.trailing_metadata() if key == "grpc-status-details-bin"]


@pytest.mark.parametrize("name", ["Check", "Diff", "Create", "Read", "Update", "Delete"])
def test_an_unknown_type_is_named(plugin: Plugin, name: str) -> None:
    error = refused(plugin, name, urn=urn("Nothing"))
    assert f"s3store {synapse_media.__version__} has no resource type 's3store:index:Nothing'" in str(error.details())


def test_a_defect_of_ours_tells_its_place_and_no_value(embedded_store: Running, direct: Direct) -> None:
    values = {
        "connection": direct.connection(),
        "bucket": direct.name,
        "accessKeyId": "AKIA",
        "secretAccessKey": secret("hunter2"),
        "expected": {"hunter2": "allowed"},
    }
    with process.running(environment(embedded_store)) as own:
        error = refused(own, "Create", urn=urn("Proof"), properties=values)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert str(error.details()).startswith("plugin s3store: ValueError at ")
    assert "hunter2" not in str(error.details())
    assert b"hunter2" not in b"".join(own.errors)


def test_an_engine_that_does_not_listen_undoes_nothing(embedded_store: Running, direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name)
    with process.running(environment(embedded_store), engine=False) as own:
        made = own.call("Create", urn=urn("KeyRing"), properties=ring_inputs(direct, "a"))
        assert made.id == direct.name


def test_a_missing_admin_credential_is_named_and_a_preview_needs_none(direct: Direct) -> None:
    with process.running(environment()) as own:
        inputs = checked(own, "Bucket", bucket_inputs(direct))
        planned = own.call("Create", urn=urn("Bucket"), properties=inputs, preview=True)
        assert raw(planned.properties)["bucket"] == direct.name
        error = refused(own, "Create", urn=urn("Bucket"), properties=inputs)
    assert "the environment has no S3_ACCESS_KEY_ID and no S3_SECRET_ACCESS_KEY" in str(error.details())


# ---- the process


def test_the_executable_finds_the_environment_of_its_project(tmp_path: Path) -> None:
    """From any directory, as the engine starts it; elsewhere than in a checkout the Python on PATH serves."""
    script = process.ROOT / "bin/pulumi-resource-s3store"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with process.running({"PATH": path}, command=(str(script),), cwd=tmp_path) as own:
        assert own.call("GetPluginInfo").version == synapse_media.__version__


_PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
print(child.pid, int(child.stdout.readline()), flush=True)
child.wait()
"""


def test_the_plugin_ends_with_its_engine() -> None:
    """Killed, not asked: a plugin that lives on could make a key after the next run has cleared up."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, *process.COMMAND], stdout=subprocess.PIPE, env=environment(), cwd=process.ROOT
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline().split()[0])
        known = identity(child)
        assert known is not None
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 5
        while identity(child) == known and time.monotonic() < deadline:
            time.sleep(0.05)
    assert identity(child) != known


def test_the_plugin_ends_quietly_where_the_engine_asks_it_to() -> None:
    with subprocess.Popen(
        process.COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=process.ROOT
    ) as own:
        assert own.stdout is not None
        own.stdout.readline()
        own.send_signal(signal.SIGINT)
        _, said = own.communicate()
    assert (own.returncode, said) == (0, b"")


def test_nothing_but_the_port_is_on_standard_output(embedded_store: Running, direct: Direct) -> None:
    with process.running(environment(embedded_store)) as own:
        own.call("Create", urn=urn("Bucket"), properties=checked(own, "Bucket", bucket_inputs(direct)))
        own.process.kill()
        assert own.process.stdout is not None
        assert own.process.stdout.read() == b""
    assert own.errors == []


def test_a_start_loads_no_cloud_sdk() -> None:
    """The plugin starts with every preview; boto3 alone takes as long as all the rest."""
    program = (
        "import sys; import synapse_media.plugin.__main__; "
        "print(sorted({'boto3', 'botocore', 'b2sdk', 'requests', 'urllib3'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=process.ROOT
    )
    assert answer.stdout.strip() == "[]"
