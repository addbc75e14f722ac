"""Backblaze B2: control plane on the double made of b2sdk's own simulator, data plane on the embedded store."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synapse_media import catalog, settings
from synapse_media.cli import credentials
from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from synapse_media.errors import SettingsError, StoreError
from synapse_media.plugin.backblaze_b2 import NEEDED, B2Administrator, B2Bucket, B2KeyRing
from synapse_media.plugin.resource import Context, PartialError
from synapse_media.renderer import render
from synapse_media.schema import model
from synapse_media.schema.resources import ProofInputs
from tests.doubles.b2_simulator import B2Double, b2_double
from tests.providers.project import SERVER, Stack, stack

BUCKET = "double-media"


@pytest.fixture
def double(embedded_store: Running) -> Iterator[B2Double]:
    with b2_double(embedded_store) as running:
        yield running


@pytest.fixture
def b2(tmp_path: Path, double: B2Double) -> Stack:
    environment = {"B2_APPLICATION_KEY_ID": double.key_id, "B2_APPLICATION_KEY": double.key}
    return stack(tmp_path, "b2", environment)


def _settings(double: B2Double, bucket: str, **more: Any) -> dict[str, Any]:
    return {
        "provider": "backblaze_b2",
        "realm": double.API_URL,
        "bucket": bucket,
        "method": "synapse-s3-storage-provider",
        **more,
    }


def _keys(double: B2Double) -> dict[str, Any]:
    return {key.application_key_id: key for key in double.all_application_keys}


def test_life_of_a_store(b2: Stack, double: B2Double, embedded_store: Running) -> None:
    b2.store(**_settings(double, BUCKET))
    b2.up()
    assert b2.preview() == ()
    bucket = double.bucket_name_to_bucket[BUCKET]
    assert bucket.bucket_type == "allPrivate"
    assert bucket.lifecycle_rules == [
        {
            "fileNamePrefix": "",
            "daysFromHidingToDeleting": 1,
            "daysFromStartingToCancelingUnfinishedLargeFiles": 7,
        }
    ]
    assert bucket.default_server_side_encryption.mode.value == "SSE-B2"
    assert bucket.bucket_info == {"synapse-media-stack": f"synapse-media/b2/{SERVER}"}

    # The master key made it, and the key that was minted is proved by S3.
    first = b2.outputs()
    first.require_proof()
    assert (first.endpoint_url, first.region) == (embedded_store.endpoint, "us-east-1")
    [key] = double.all_application_keys
    assert (key.application_key_id, key.key) == (first.access_key_id, first.secret_access_key)
    assert sorted(key.capabilities) == ["listBuckets", "listFiles", "readFiles", "writeFiles"]
    assert any(first.access_key_id in text for text in render(first, form="plain").values())
    assert first.secret_access_key not in b2.state()
    assert first.proof is not None
    outcomes = {line.operation: line.outcome for line in first.proof.lines}
    assert (outcomes["other-bucket"], outcomes["create-bucket"]) == ("refused", "refused")
    assert list(double.bucket_name_to_bucket) == [BUCKET]  # the decoy is gone

    # Changed by hand: found by a refresh, mended by the next up.
    bucket.bucket_type = "allPublic"
    bucket.lifecycle_rules = [{"fileNamePrefix": "", "daysFromUploadingToHiding": 30, "daysFromHidingToDeleting": 1}]
    [change] = b2.preview(refresh=True)
    assert change.kind == "B2Bucket"
    assert {detail.partition(":")[0] for detail in change.details} >= {"private", "abortDays", "expiringRules"}
    b2.up(refresh=True)
    assert b2.preview(refresh=True) == ()
    assert bucket.bucket_type == "allPrivate"
    assert "daysFromUploadingToHiding" not in bucket.lifecycle_rules[0]

    # A ring that is made anew has a key of the same name, and that is not the one that goes.
    ring = b2.urn("s3store:index:B2KeyRing")
    with pytest.raises(EngineError, match="may be in use and is not deleted"):
        b2.up(options=["--replace", ring])
    b2.let_keys_go()
    b2.up(options=["--replace", ring])
    first = b2.outputs()
    first.require_proof()
    assert [key.application_key_id for key in double.all_application_keys] == [first.access_key_id]

    # Rotation: the second key beside the first, then the first retired.
    b2.store(**_settings(double, BUCKET, keys={"active": "b", "retiring": ["a"]}))
    b2.up()
    second = b2.outputs()
    second.require_proof()
    assert set(_keys(double)) == {first.access_key_id, second.access_key_id}
    b2.store(**_settings(double, BUCKET, keys={"active": "b"}))
    with pytest.raises(EngineError, match="does not tell when a key was last used"):
        b2.up()
    b2.store(["retire-key"], **_settings(double, BUCKET, keys={"active": "b"}))
    b2.up()
    assert set(_keys(double)) == {second.access_key_id}

    b2.store(["delete-bucket"], **_settings(double, BUCKET, keys={"active": "b"}))
    b2.up()
    double.put_file(BUCKET, "local_content/media")
    with pytest.raises(EngineError, match="holds media and is not deleted"):
        b2.destroy()
    b2.store(["delete-bucket", "delete-media"], **_settings(double, BUCKET, keys={"active": "b"}))
    b2.up()
    b2.destroy()
    assert _keys(double) == {}
    assert double.bucket_name_to_bucket == {}


def test_a_key_cannot_be_changed_so_another_method_needs_another_key(b2: Stack, double: B2Double) -> None:
    b2.store(["delete-bucket"], **_settings(double, "changing-media"))
    b2.up()
    first = b2.outputs()
    b2.store(["delete-bucket"], **_settings(double, "changing-media", method="goofys", access="full"))
    with pytest.raises(EngineError, match="can't be changed") as raised:
        b2.up()
    assert "keys: {active: b, retiring: [a]}" in str(raised.value)
    assert set(_keys(double)) == {first.access_key_id}
    keys = {"active": "b", "retiring": ["a"]}
    b2.store(["delete-bucket"], **_settings(double, "changing-media", method="goofys", access="full", keys=keys))
    b2.up()
    second = b2.outputs()
    second.require_proof()
    assert "deleteFiles" in _keys(double)[second.access_key_id].capabilities
    assert first.access_key_id in _keys(double)
    assert b2.preview() == ()
    b2.destroy()
    assert _keys(double) == {}


def test_a_key_made_while_the_answer_was_lost_is_no_orphan(b2: Stack, double: B2Double) -> None:
    """One try to create it; the next run deletes a key that was never handed out, and no key of anybody else."""
    hits = []
    mine = "synapse-media-lost-media-{}-a-{}".format

    def does_it_and_hangs_up(operation: str) -> tuple[int, str, bytes] | None:
        if operation != "create_key":
            return None
        hits.append(operation)
        [token] = double.bucket_name_to_bucket["lost-media"].bucket_info["synapse-media-making"].split()
        for key_name in (mine(_slot_mark(b2), token), "by-hand"):
            _key_by_hand(double, key_name)
        return 0, "", b""

    double.fault = does_it_and_hangs_up
    b2.store(["delete-bucket"], **_settings(double, "lost-media"))
    with pytest.raises(EngineError, match="b2_create_key"):
        b2.up()
    assert hits == ["create_key"]
    double.fault = lambda _: None
    said = b2.up()
    names = sorted(key.name for key in double.all_application_keys)
    assert names == ["by-hand", mine(_slot_mark(b2), names[-1][-8:])]
    assert set(double.bucket_name_to_bucket["lost-media"].bucket_info) == {"synapse-media-stack"}
    assert "not created by this stack" in said
    b2.outputs().require_proof()
    with pytest.raises(EngineError, match="which this state does not know"):
        b2.destroy()
    [by_hand] = double.all_application_keys
    assert by_hand.name == "by-hand"
    assert list(double.bucket_name_to_bucket) == ["lost-media"]
    _delete_key(double, by_hand.application_key_id)
    b2.destroy()
    assert double.bucket_name_to_bucket == {}


def _key_by_hand(double: B2Double, name: str) -> None:
    """A key of the only bucket, not created by this stack."""
    [bucket] = double.bucket_name_to_bucket.values()
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    double.create_key(double.API_URL, token, bucket.account_id, ["readFiles"], name, None, [bucket.bucket_id], None)


def _delete_key(double: B2Double, key_id: str) -> None:
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    double.delete_key(double.API_URL, token, key_id)


def _delete_bucket(double: B2Double) -> None:
    """The only one, with what is in it, as by hand."""
    [bucket] = double.bucket_name_to_bucket.values()
    bucket.file_id_to_file.clear()
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    double.delete_bucket(double.API_URL, token, bucket.account_id, bucket.bucket_id)


def _slot_mark(b2: Stack) -> str:
    resources = b2.engine.export(b2.name)["deployment"]["resources"]
    [nonce] = [item["outputs"]["nonce"] for item in resources if item["type"] == "s3store:index:B2Bucket"]
    return hashlib.sha256(nonce.encode()).hexdigest()[:16]


def test_a_second_checkout_keeps_the_key_of_the_first(b2: Stack, double: B2Double) -> None:
    """The same project and stack with another state, and a bucket that is still empty."""
    b2.store(["delete-bucket"], **_settings(double, "shared-media"))
    b2.up()
    first, state = b2.outputs(), b2.engine.export(b2.name)
    b2.engine.replace_state(b2.name, {**state, "deployment": {**state["deployment"], "resources": []}})
    assert f"has the key {first.access_key_id}, not created by this stack" in b2.up()
    second = b2.outputs()
    assert set(_keys(double)) == {first.access_key_id, second.access_key_id}
    # Back in the first, whose next up looks at the keys.
    b2.engine.replace_state(b2.name, state)
    b2.store(["delete-bucket"], **_settings(double, "shared-media", keys={"active": "b", "retiring": ["a"]}))
    assert f"has the key {second.access_key_id}, not created by this stack" in b2.up()
    assert set(_keys(double)) == {first.access_key_id, second.access_key_id, b2.outputs().access_key_id}
    with pytest.raises(EngineError, match=f"accessible with the key {second.access_key_id}, which this state does not"):
        b2.destroy()
    assert set(_keys(double)) == {second.access_key_id}
    assert list(double.bucket_name_to_bucket) == ["shared-media"]
    _delete_key(double, second.access_key_id)
    b2.destroy()
    assert double.bucket_name_to_bucket == {}


def test_with_the_state_lost_the_key_in_use_outlives_a_take_over(b2: Stack, double: B2Double) -> None:
    b2.store(**_settings(double, "found-media"))
    b2.up()
    [in_use] = _keys(double)
    b2.engine.run(["stack", "rm", "--yes", "--force", "--stack", b2.name])
    b2.engine.ensure_stack(b2.name)
    b2.store(**_settings(double, "found-media", adopt=True))
    assert f"has the key {in_use}, not created by this stack" in b2.up()
    b2.outputs().require_proof()
    assert set(_keys(double)) == {in_use, b2.outputs().access_key_id}
    # Nor does it end with the store.
    b2.store(["delete-bucket"], **_settings(double, "found-media", adopt=True))
    b2.up()
    with pytest.raises(EngineError, match=f"accessible with the key {in_use}, which this state does not know"):
        b2.destroy()
    assert set(_keys(double)) == {in_use}
    _delete_key(double, in_use)
    b2.destroy()


def test_a_ring_taken_out_of_the_state_leaves_its_key_in_use(b2: Stack, double: B2Double) -> None:
    """`pulumi state delete`, as docs/state.md has it: it deletes nothing at the store, and neither does the next up."""
    b2.store(["delete-bucket"], **_settings(double, "taken-media"))
    b2.up()
    [in_use] = _keys(double)
    for kind in ("Proof", "B2KeyRing"):
        b2.engine.run(["state", "delete", "--yes", "--stack", b2.name, b2.urn(f"s3store:index:{kind}")])
    assert f"has the key {in_use}, not created by this stack" in b2.up()
    assert set(_keys(double)) == {in_use, b2.outputs().access_key_id}
    b2.outputs().require_proof()
    with pytest.raises(EngineError, match=f"accessible with the key {in_use}, which this state does not know"):
        b2.destroy()
    assert set(_keys(double)) == {in_use}
    _delete_key(double, in_use)
    b2.destroy()


PROGRAM = """
import pulumi
from components import BackblazeB2, BackblazeB2Args

class Server(pulumi.ComponentResource):
    def __init__(self):
        super().__init__("acme:index:Server", "server", {{}}, pulumi.ResourceOptions(retain_on_delete=True))
        arguments = BackblazeB2Args(
            server_name="matrix.example.com", bucket="handed-media", realm={realm!r}, user={user!r}
        )
        BackblazeB2("media", arguments, pulumi.ResourceOptions(parent=self))

Server()
"""


def test_a_key_in_use_is_kept_where_the_parent_retains_what_is_replaced(b2: Stack, double: B2Double) -> None:
    """The engine hands `retain_on_delete` down; neither the component nor the plugin is told."""
    program = b2.engine.project / "__main__.py"
    program.write_text(PROGRAM.format(realm=double.API_URL, user="first"))
    b2.up()
    [in_use] = _keys(double)
    program.write_text(PROGRAM.format(realm=double.API_URL, user="second"))
    assert f"has the key {in_use}, not created by this stack" in b2.up()
    assert {key_id == in_use or key.name.startswith("second-") for key_id, key in _keys(double).items()} == {True}
    assert len(_keys(double)) == 2


def test_a_key_of_another_account_is_refused_and_nothing_forgotten(b2: Stack, double: B2Double) -> None:
    b2.store(["delete-bucket"], **_settings(double, "other-media"))
    b2.up()
    before = b2.outputs()
    right = dict(b2.engine.environment)
    key_id, key = double.create_account()
    another = {"B2_APPLICATION_KEY_ID": key_id, "B2_APPLICATION_KEY": key}
    b2.engine.environment |= another
    with pytest.raises(EngineError, match="was created in the account"):
        b2.up(refresh=True)
    b2.engine.environment |= right
    assert b2.preview(refresh=True) == ()
    assert b2.outputs() == before
    b2.engine.environment |= another
    with pytest.raises(EngineError, match="was created in the account"):
        b2.destroy()
    assert set(_keys(double)) == {before.access_key_id}
    b2.engine.environment |= right
    b2.destroy()
    assert _keys(double) == {}


def test_a_burst_of_429_and_503_is_waited_for_and_a_web_page_is_named(b2: Stack, double: B2Double) -> None:
    left = [503, 429]

    def busy(operation: str) -> tuple[int, str, bytes] | None:
        if operation == "create_bucket" and left:
            status = left.pop()
            return status, "application/json", b'{"status": %d, "code": "busy", "message": "busy"}' % status
        return None

    double.fault = busy
    b2.store(["delete-bucket"], **_settings(double, "busy-media"))
    b2.up()
    assert left == []
    double.fault = lambda _: (200, "text/html", b"<html>Welcome</html>")
    with pytest.raises(EngineError, match="the response is not that of B2's API") as raised:
        b2.up(refresh=True)
    assert "Traceback" not in str(raised.value)
    # The API is back: nothing was lost.
    double.fault = lambda _: None
    assert b2.preview(refresh=True) == ()
    # A key revoked by hand is made again and proved.
    [revoked] = _keys(double)
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    double.delete_key(double.API_URL, token, revoked)
    b2.up(refresh=True)
    [again] = _keys(double)
    assert again == b2.outputs().access_key_id != revoked
    b2.outputs().require_proof()
    b2.destroy()


def _connection(double: B2Double) -> dict[str, Any]:
    return {
        "endpoint": "",
        "region": "",
        "realm": double.API_URL,
        "variables": ["B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY"],
    }


@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_page_in_place_of_an_error_is_not_quoted(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("B2_APPLICATION_KEY_ID", double.key_id)
    monkeypatch.setenv("B2_APPLICATION_KEY", double.key)
    double.fault = lambda operation: (status, "text/html", b"<html>busy</html>") if operation == "create_key" else None
    ring = {"userName": "user", "owner": "ours", "bucketId": "id", "capabilities": ["listBuckets"]}
    inputs, failures = B2KeyRing().check({**ring, "active": "a", "slots": ["a"], "connection": _connection(double)})
    assert not failures
    with pytest.raises(StoreError, match=r"b2_create_key.*: it finds such a key and replaces it") as raised:
        B2KeyRing().create(inputs, Context(lambda _: None))
    assert "<html>" not in str(raised.value)


def _answering(
    double: B2Double, patch: pytest.MonkeyPatch, operation: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Have the double answer otherwise than it does."""
    answer = double.answer

    def other(called: str, *arguments: Any) -> Any:
        found = answer(called, *arguments)
        return change(found) if called == operation else found

    patch.setattr(double, "answer", other)


def _ring(double: B2Double, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The inputs of a ring, whose bucket is made."""
    bucket = _create(double, patch, double.key_id, double.key)
    ring = {"userName": "user", "owner": "ours", "bucketId": bucket["bucketId"], "capabilities": ["listBuckets"]}
    inputs, failures = B2KeyRing().check({**ring, "active": "a", "slots": ["a"], "connection": _connection(double)})
    assert not failures
    return inputs


QUIET = Context(lambda _: None)


@pytest.mark.parametrize(
    "changes",
    [
        {"keyName": "other"},
        {"capabilities": ["listBuckets", "readFiles"]},
        {"bucketIds": ["other"]},
        {"bucketIds": None},
        {"namePrefix": "media/"},
        {"expirationTimestamp": 1},
        {"applicationKey": ""},
        {"applicationKey": "a\nb"},
        {"applicationKeyId": ""},
        {"applicationKeyId": "a b"},
        {"applicationKeyId": None},
    ],
    ids=str,
)
def test_a_key_other_than_what_was_asked_for_is_no_answer(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    inputs = _ring(double, monkeypatch)
    with monkeypatch.context() as patch:
        _answering(double, patch, "create_key", lambda found: found | changes)
        with pytest.raises(StoreError, match="the key may have been made, so the request is not repeated") as refused:
            B2KeyRing().create(inputs, QUIET)
    assert isinstance(refused.value, PartialError)
    assert refused.value.outputs["keys"] == {}
    # What was made is found, and replaced.
    outputs = B2KeyRing().update("user", refused.value.outputs, inputs, QUIET)
    assert list(_keys(double)) == [outputs["keys"]["a"]["accessKeyId"]]


def test_a_key_that_was_there_before_is_not_a_new_one(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = _ring(double, monkeypatch)
    _answering(double, monkeypatch, "create_key", lambda found: found | {"applicationKeyId": double.key_id})
    with pytest.raises(StoreError, match="has a key that was there before"):
        B2KeyRing().create(inputs, QUIET)


@pytest.mark.parametrize("listed", ["none", "without buckets"])
def test_a_key_that_is_not_listed_and_works_is_kept(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    """Its secret would be lost for good."""
    inputs = _ring(double, monkeypatch)
    _, outputs = B2KeyRing().create(inputs, QUIET)
    with monkeypatch.context() as patch:
        keys = [] if listed == "none" else [key.as_key() | {"bucketIds": None} for key in double.all_application_keys]
        _answering(double, patch, "list_keys", lambda found: found | {"keys": keys})
        found = B2KeyRing().read("user", inputs, outputs, QUIET)
        assert found is not None
        assert found.outputs == outputs
        assert B2KeyRing().diff(found.inputs, inputs).changed == ()
        assert B2KeyRing().update("user", outputs, inputs, QUIET) == outputs
        with pytest.raises(StoreError, match="may be in use and is not deleted"):
            B2KeyRing().delete("user", outputs, QUIET)
    assert list(_keys(double)) == [outputs["keys"]["a"]["accessKeyId"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"bucketInfo": {"synapse-media-stack": []}},
        {"bucketInfo": {"synapse-media-stack": None}},
        {"lifecycleRules": [{"fileNamePrefix": "", "daysFromHidingToDeleting": True}]},
    ],
    ids=str,
)
def test_a_bucket_with_parts_of_another_kind_is_no_answer(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """The bucket info is written back as it was read, and a rule goes into the state."""
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    inputs = {name: bucket[name] for name in (*B2Bucket().check({})[0], "bucket", "connection", "owner")}
    before = dict(double.bucket_name_to_bucket["refused-media"].bucket_info)
    with monkeypatch.context() as patch:
        _answering(
            double, patch, "list_buckets", lambda found: {"buckets": [one | changes for one in found["buckets"]]}
        )
        for step in (
            lambda: B2Bucket().read("refused-media", inputs, bucket, QUIET),
            lambda: B2KeyRing().create(_ring_of(bucket, "a"), QUIET),
        ):
            with pytest.raises(StoreError, match=r"the response is not that of B2's API \(TypeError\): check realm"):
                step()
    assert double.bucket_name_to_bucket["refused-media"].bucket_info == before


@pytest.mark.parametrize("lies", [1, 2])
def test_a_key_whose_bucket_is_not_in_one_answer_is_not_deleted_for_that(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, lies: int
) -> None:
    """Neither where it is looked for by its ID, nor where all are listed."""
    inputs = _ring(double, monkeypatch)
    _, outputs = B2KeyRing().create(inputs, QUIET)
    asked = itertools.count(1)
    with monkeypatch.context() as patch:
        _answering(
            double, patch, "list_buckets", lambda found: found | ({"buckets": []} if next(asked) == lies else {})
        )
        with pytest.raises(StoreError, match="may be in use and is not deleted"):
            B2KeyRing().delete("user", outputs, QUIET)
    assert list(_keys(double)) == [outputs["keys"]["a"]["accessKeyId"]]


def test_a_key_that_is_gone_is_gone(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = _ring(double, monkeypatch)
    _, outputs = B2KeyRing().create(inputs, QUIET)
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    double.delete_key(double.API_URL, token, outputs["keys"]["a"]["accessKeyId"])
    found = B2KeyRing().read("user", inputs, outputs, QUIET)
    assert found is not None
    assert found.outputs["keys"] == {}


def test_a_deletion_of_another_key_is_no_answer(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {**_ring(double, monkeypatch), "retireConfirmed": True}
    _, outputs = B2KeyRing().create(inputs, QUIET)
    _answering(double, monkeypatch, "delete_key", lambda found: found | {"applicationKeyId": "other"})
    with pytest.raises(StoreError, match="b2_delete_key"):
        B2KeyRing().delete("user", {**outputs, "retireConfirmed": True}, QUIET)


def test_only_the_bucket_that_was_asked_for_is_taken(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _create(double, monkeypatch, double.key_id, double.key, forceDestroy=True)
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    info = {"synapse-media-stack": "ours"}
    other = double.create_bucket(double.API_URL, token, double.key_id, "other-media", "allPrivate", bucket_info=info)
    proof = model.read(ProofInputs, {"owner": made["owner"], "connection": made["connection"]})
    decoy = "synapse-media-decoy-1"
    with monkeypatch.context() as patch:
        _answering(double, patch, "list_buckets", lambda _: {"buckets": [other]})
        calls: tuple[Callable[[], object], ...] = (
            lambda: B2Bucket().delete("refused-media", made, QUIET),
            lambda: B2Bucket().read("refused-media", made, made, QUIET),
            lambda: B2Administrator().delete_decoy(proof, decoy),
            lambda: B2Administrator().ensure_decoy(proof, decoy),
        )
        for call in calls:
            with pytest.raises(StoreError, match="the answer is about another bucket, 'other-media'"):
                call()
    assert sorted(double.bucket_name_to_bucket) == ["other-media", "refused-media"]
    # A server that leaves the choice to us.
    listed = [bucket.bucket_dict(token) for bucket in double.bucket_name_to_bucket.values()]
    with monkeypatch.context() as patch:
        _answering(double, patch, "list_buckets", lambda _: {"buckets": listed[::-1]})
        B2Bucket().delete("refused-media", made, QUIET)
    assert list(double.bucket_name_to_bucket) == ["other-media"]


def test_a_bucket_that_is_found_by_its_id_is_not_gone(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _create(double, monkeypatch, double.key_id, double.key)
    listed = double.list_buckets

    def without_names(*arguments: Any, bucket_name: str | None = None, **named: Any) -> Any:
        return {"buckets": []} if bucket_name else listed(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(double, "list_buckets", without_names)
        for call in (
            lambda: B2Bucket().delete("refused-media", made, QUIET),
            lambda: B2Bucket().read("refused-media", made, made, QUIET),
        ):
            with pytest.raises(StoreError, match="it is not taken for deleted"):
                call()
    assert list(double.bucket_name_to_bucket) == ["refused-media"]


@pytest.mark.parametrize(
    ("operation", "changes"),
    [
        ("create_bucket", {"bucketName": "other"}),
        ("update_bucket", {"bucketId": "other"}),
        ("delete_bucket", {"bucketId": "other"}),
        ("delete_bucket", {"bucketId": None}),
    ],
)
def test_an_answer_about_another_bucket_is_none(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, operation: str, changes: dict[str, Any]
) -> None:
    made = {} if operation == "create_bucket" else _create(double, monkeypatch, double.key_id, double.key)
    _answering(double, monkeypatch, operation, lambda found: found | changes)
    calls = {
        "create_bucket": lambda: _create(double, monkeypatch, double.key_id, double.key),
        "update_bucket": lambda: B2Bucket().update("refused-media", made, {**made, "abortDays": 3}, QUIET),
        "delete_bucket": lambda: B2Bucket().delete("refused-media", made, QUIET),
    }
    # Of a new bucket, b2sdk asserts its name.
    with pytest.raises(StoreError, match=r"about another bucket|is not that of B2's API"):
        calls[operation]()


@pytest.mark.parametrize("part", ["accountId", "authorizationToken", "s3ApiUrl"])
def test_an_account_without_a_part_is_no_answer(double: B2Double, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def without(found: dict[str, Any]) -> dict[str, Any]:
        storage = found["apiInfo"]["storageApi"]
        holder = storage if part in storage else found
        holder[part] = None
        return found

    _answering(double, monkeypatch, "authorize_account", without)
    with pytest.raises(StoreError, match="b2_authorize_account at Backblaze B2"):
        _create(double, monkeypatch, double.key_id, double.key)


def _create(
    double: B2Double, patch: pytest.MonkeyPatch, key_id: str, key: str, said: list[str] | None = None, **more: Any
) -> dict[str, Any]:
    patch.setenv("B2_APPLICATION_KEY_ID", key_id)
    patch.setenv("B2_APPLICATION_KEY", key)
    bucket = B2Bucket()
    inputs, failures = bucket.check(
        {"bucket": "refused-media", "owner": "ours", "connection": _connection(double), **more}
    )
    assert not failures
    return bucket.create(inputs, Context([].append if said is None else said.append))[1]


def test_the_region_is_the_accounts(embedded_store: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with b2_double(embedded_store, "https://s3.eu-central-003.backblazeb2.com") as double:
        with pytest.raises(StoreError, match=r"'us-west-002' is not this account's: its region is eu-central-003"):
            _create(double, monkeypatch, double.key_id, double.key, region="us-west-002")
        with pytest.raises(StoreError, match=r"endpoint: 'https://s3\.example\.net' is not this account's"):
            _create(double, monkeypatch, double.key_id, double.key, endpoint="https://s3.example.net")
        for more in (
            {},
            {"region": "eu-central-003"},
            {"region": "us-west-002"},
            {"endpoint": "https://s3.example.net"},
        ):
            store = settings.parse({SERVER: _settings(double, "refused-media", **more)})[SERVER]
            wrong = more.get("region") == "us-west-002" or "endpoint" in more
            assert len(credentials.findings(store)) == wrong
        assert double.bucket_name_to_bucket == {}
        made = _create(double, monkeypatch, double.key_id, double.key)
        # A run that was killed before it could note the bucket in the state: its mark tells that it is ours.
        assert _create(double, monkeypatch, double.key_id, double.key)["adopted"] is False
        assert made["accountRegion"] == "eu-central-003"
        assert made["accountEndpoint"] == "https://s3.eu-central-003.backblazeb2.com"
        B2Bucket().delete("refused-media", made, Context(lambda _: None))


def test_admin_keys_that_will_not_do(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    weak = double.create_key(
        double.API_URL, token, double.key_id, ["listBuckets", "writeBuckets"], "w", None, None, None
    )
    with pytest.raises(StoreError, match=r"is a key without deleteBuckets.*writeKeys"):
        _create(double, monkeypatch, weak["applicationKeyId"], weak["applicationKey"])
    with pytest.raises(StoreError, match="swap") as raised:
        _create(double, monkeypatch, double.key, double.key_id)
    assert double.key_id not in str(raised.value)
    assert double.bucket_name_to_bucket == {}
    made = _create(double, monkeypatch, double.key_id, double.key)
    limited = double.create_key(
        double.API_URL, token, double.key_id, ["listBuckets"], "l", None, [made["bucketId"]], None
    )
    with pytest.raises(StoreError, match="limited to a bucket"):
        _create(double, monkeypatch, limited["applicationKeyId"], limited["applicationKey"])
    # `doctor` and `init` say the same.
    store = settings.parse({SERVER: _settings(double, "refused-media")})[SERVER]
    for key, why in ((weak, "is a key without deleteBuckets"), (limited, "limited to a bucket")):
        monkeypatch.setenv("B2_APPLICATION_KEY_ID", key["applicationKeyId"])
        monkeypatch.setenv("B2_APPLICATION_KEY", key["applicationKey"])
        [finding] = credentials.findings(store)
        assert why in finding
    # A bucket that a key of somebody's opens is not deleted.
    _delete_key(double, limited["applicationKeyId"])
    monkeypatch.setenv("B2_APPLICATION_KEY_ID", double.key_id)
    monkeypatch.setenv("B2_APPLICATION_KEY", double.key)
    B2Bucket().delete("refused-media", made, Context(lambda _: None))


@pytest.mark.parametrize("bucket", ["limited-media", "another-media"])
def test_a_key_of_one_bucket_looks_at_nothing_and_changes_nothing(b2: Stack, double: B2Double, bucket: str) -> None:
    """An administrator's key that is limited to a bucket, its own or another: refused by the same words everywhere."""
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    double.create_bucket(double.API_URL, token, double.key_id, "another-media", "allPrivate")
    b2.store(["delete-bucket"], **_settings(double, "limited-media"))
    b2.up()
    right = dict(b2.engine.environment)
    where = double.bucket_name_to_bucket[bucket].bucket_id
    limited = double.create_key(double.API_URL, token, double.key_id, list(NEEDED), "l", None, [where], None)
    b2.engine.environment |= {
        "B2_APPLICATION_KEY_ID": limited["applicationKeyId"],
        "B2_APPLICATION_KEY": limited["applicationKey"],
    }
    for run in (lambda: b2.preview(refresh=True), lambda: b2.up(refresh=True), b2.destroy):
        with pytest.raises(EngineError, match="B2_APPLICATION_KEY_ID is a key limited to a bucket") as raised:
            run()
        assert "unauthorized" not in str(raised.value)
    _delete_key(double, limited["applicationKeyId"])
    b2.engine.environment |= right
    # Nothing is at the store of a proof, which was the first to go.
    assert [change.kind for change in b2.preview(refresh=True)] == ["Proof"]
    b2.destroy()
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    double.delete_bucket(double.API_URL, token, double.key_id, double.bucket_name_to_bucket["another-media"].bucket_id)


def test_a_key_that_may_not_read_the_encryption_finds_no_drift(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _create(double, monkeypatch, double.key_id, double.key)
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    few = ["listBuckets", "listKeys"]
    weak = double.create_key(double.API_URL, token, double.key_id, few, "w", None, None, None)
    monkeypatch.setenv("B2_APPLICATION_KEY_ID", weak["applicationKeyId"])
    monkeypatch.setenv("B2_APPLICATION_KEY", weak["applicationKey"])
    with pytest.raises(StoreError, match="is a key without readBucketEncryption"):
        B2Bucket().read("refused-media", made, made, Context(lambda _: None))
    monkeypatch.setenv("B2_APPLICATION_KEY_ID", double.key_id)
    monkeypatch.setenv("B2_APPLICATION_KEY", double.key)
    B2Bucket().delete("refused-media", made, Context(lambda _: None))


def test_a_bucket_that_is_there_is_taken_over_only_when_told(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    rule = {"fileNamePrefix": "", "daysFromHidingToDeleting": 90}
    double.create_bucket(double.API_URL, token, double.key_id, "refused-media", "allPublic", lifecycle_rules=[rule])
    there = double.bucket_name_to_bucket["refused-media"]
    with pytest.raises(StoreError, match="adopt: true"):
        _create(double, monkeypatch, double.key_id, double.key)
    adopted = _create(double, monkeypatch, double.key_id, double.key, adopt=True, manage=["access"])
    assert (there.bucket_type, there.lifecycle_rules) == ("allPrivate", [rule])
    assert "noncurrentDays is 90, a new bucket would have 1" in adopted["differences"]
    with pytest.raises(
        StoreError, match=r"marked as that of ours, in this very stack.*If none has, a renaming that was cut off"
    ):
        _create(double, monkeypatch, double.key_id, double.key, owner="theirs", adopt=True)
    with pytest.raises(StoreError, match="marked as that of another stack"):
        _create(double, monkeypatch, double.key_id, double.key, owner="another/stack/theirs", adopt=True)
    said: list[str] = []
    context = Context(said.append)
    inputs = {name: adopted[name] for name in (*B2Bucket().check({})[0], "bucket", "connection", "owner")}
    B2Bucket().read("refused-media", inputs, adopted, context)
    assert "bucket refused-media is adopted without changes: noncurrentDays is 90, a new bucket would have 1" in said
    with pytest.raises(StoreError, match="set adopt: true"):
        B2Bucket().update("refused-media", adopted, {**inputs, "adopt": False}, context)
    B2Bucket().delete("refused-media", adopted, context)
    # State keeps the place where it was.
    with pytest.raises(StoreError, match="does not exist in this account") as gone:
        B2Bucket().update("refused-media", adopted, inputs, context)
    assert not isinstance(gone.value, PartialError)


def test_an_adopted_bucket_says_where_its_media_is(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    made = double.create_bucket(double.API_URL, token, double.key_id, "elsewhere-media", "allPrivate")

    def upload(name: str) -> None:
        to = double.get_upload_url(double.API_URL, token, made["bucketId"])
        sha1 = hashlib.sha1(b"x").hexdigest()  # noqa: S324 - B2's own checksum
        where = (to["uploadUrl"], to["authorizationToken"])
        double.upload_file(*where, name, 1, "text/plain", sha1, {}, io.BytesIO(b"x"))

    def said(*looked_for: str) -> list[str]:
        words: list[str] = []
        _create(
            double,
            monkeypatch,
            double.key_id,
            double.key,
            words,
            bucket="elsewhere-media",
            adopt=True,
            mediaIn=list(looked_for),
        )
        return [line for line in words if "holds objects" in line]

    assert said("local_content/") == []
    upload("notes/readme.txt")
    assert "Is it the right bucket?" in said("local_content/", "remote_content/")[0]
    upload("old/matrix/local_content/ab/cd/ef")
    assert "Set prefix: 'old/matrix/'" in said("local_content/", "remote_content/")[0]
    assert said("old/matrix/local_content/") == []
    # Of a method without fixed places nothing is asked.
    assert said() == []


def test_what_was_changed_in_an_adopted_bucket_is_no_difference(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = double.authorize_account(double.API_URL, double.key_id, double.key)["authorizationToken"]
    rule = {"fileNamePrefix": "", "daysFromHidingToDeleting": 90}
    double.create_bucket(double.API_URL, token, double.key_id, "refused-media", "allPublic", lifecycle_rules=[rule])
    said: list[str] = []
    adopted = _create(double, monkeypatch, double.key_id, double.key, said, adopt=True, manage=["access"])
    lifecycle = ["noncurrentDays is 90, a new bucket would have 1", "abortDays is 0, a new bucket would have 7"]
    assert adopted["differences"] == lifecycle
    assert len(said) == 2
    inputs = {name: adopted[name] for name in (*B2Bucket().check({})[0], "bucket", "connection", "owner")}
    wanted = {**inputs, "manage": ["access", "lifecycle"]}
    changed = B2Bucket().update("refused-media", adopted, wanted, Context(said.append))
    assert changed["differences"] == []
    assert len(said) == 2
    B2Bucket().delete("refused-media", changed, Context(said.append))


def test_a_rule_for_a_part_of_the_bucket_is_not_that_of_a_new_one(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2 refuses two rules for the same files, so such a bucket lacks ours."""
    made = _create(double, monkeypatch, double.key_id, double.key)
    inputs = {name: made[name] for name in (*B2Bucket().check({})[0], "bucket", "connection", "owner")}
    there, context = double.bucket_name_to_bucket["refused-media"], Context(lambda _: None)
    [ours] = there.lifecycle_rules
    theirs = [{**ours, "fileNamePrefix": "url_cache/"}]
    there.lifecycle_rules = theirs
    found = B2Bucket().read("refused-media", inputs, made, context)
    assert found is not None
    assert set(B2Bucket().diff(found.inputs, inputs).changed) == {"noncurrentDays", "abortDays"}
    adopted = _create(double, monkeypatch, double.key_id, double.key, adopt=True)
    with pytest.raises(StoreError, match="still differs from a new bucket: noncurrentDays is 0"):
        B2Bucket().update("refused-media", adopted, {**inputs, "own": True}, context)
    assert there.lifecycle_rules == theirs
    B2Bucket().update("refused-media", found.outputs, inputs, context)
    assert there.lifecycle_rules == [ours]


def test_a_key_is_deleted_by_its_id_whether_it_is_listed_or_not(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    ring = B2KeyRing()
    inputs, failures = ring.check(
        {
            "userName": "refused-media",
            "owner": "ours",
            "bucketId": bucket["bucketId"],
            "capabilities": ["listFiles"],
            "active": "a",
            "slots": ["a"],
            "connection": _connection(double),
        }
    )
    assert not failures
    name, outputs = ring.create(inputs, Context([].append))
    nothing = b'{"keys": [], "nextApplicationKeyId": null}'
    double.fault = lambda operation: (200, "application/json", nothing) if operation == "list_keys" else None
    with pytest.raises(StoreError, match="may be in use and is not deleted"):
        ring.delete(name, outputs, QUIET)
    ring.delete(name, {**outputs, "retireConfirmed": True}, QUIET)
    assert _keys(double) == {}
    # Again, as after a run that was cut off.
    ring.delete(name, outputs, QUIET)


def test_what_the_admin_key_needs_is_the_catalogs() -> None:
    assert set(catalog.load("backblaze_b2").value("admin_permissions")["actions"]) == set(NEEDED)


def test_settings_of_the_provider() -> None:
    wanted = {"provider": "backblaze_b2", "bucket": "example-com-media", "method": "goofys"}
    store = settings.parse({SERVER: wanted})[SERVER]
    assert (store.noncurrent_days, store.region) == (1, "")
    with pytest.raises(SettingsError, match="storage_class is 'STANDARD_IA'; allowed: STANDARD"):
        settings.parse({SERVER: {**wanted, "method": "matrix-media-repo", "storage_class": "STANDARD_IA"}})
    with pytest.raises(SettingsError, match="6 to 63 characters"):
        settings.parse({SERVER: {**wanted, "bucket": "media"}})


OTHER = "synapse-media/other/matrix.example.com"


@pytest.mark.parametrize("other", [OTHER, "gar/prod/m.com"])
def test_a_bucket_of_another_stack_is_neither_changed_nor_emptied(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    made = _create(double, monkeypatch, double.key_id, double.key, forceDestroy=True)
    inputs = {name: made[name] for name in (*B2Bucket().check({})[0], "bucket", "connection", "owner")}
    there, context = double.bucket_name_to_bucket["refused-media"], Context(lambda _: None)
    double.put_file("refused-media", "local_content/media")
    there.bucket_info["synapse-media-stack"] = other
    found = B2Bucket().read("refused-media", inputs, made, context)
    assert found is not None
    assert B2Bucket().diff(found.inputs, inputs).changed == ("owner",)
    for step in (
        lambda: B2Bucket().update("refused-media", found.outputs, {**inputs, "abortDays": 3}, context),
        lambda: B2Bucket().delete("refused-media", found.outputs, context),
    ):
        with pytest.raises(StoreError, match="marked as that of another stack"):
            step()
    assert there.bucket_info["synapse-media-stack"] == other
    assert there.lifecycle_rules[0]["daysFromStartingToCancelingUnfinishedLargeFiles"] == 7
    # The mark was taken off: nothing that holds media is deleted, and `up --refresh` marks it again.
    there.bucket_info.clear()
    with pytest.raises(StoreError, match="the mark of this stack was removed from it"):
        B2Bucket().delete("refused-media", found.outputs, context)
    B2Bucket().update("refused-media", found.outputs, inputs, context)
    B2Bucket().delete("refused-media", found.outputs, context)
    assert double.bucket_name_to_bucket == {}


@pytest.mark.filterwarnings("ignore:bad request exception with an unknown `code`")  # of b2sdk, which lacks this one
def test_what_is_written_while_a_bucket_is_deleted_is_not_lost(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _create(double, monkeypatch, double.key_id, double.key)

    def written_meanwhile(operation: str) -> None:
        if operation == "list_unfinished_large_files":
            double.put_file("refused-media", "local_content/media")

    double.fault = written_meanwhile
    with pytest.raises(StoreError, match=r"holds media and is not deleted.*retain-bucket.*delete-media"):
        B2Bucket().delete("refused-media", made, Context(lambda _: None))
    files = double.bucket_name_to_bucket["refused-media"].file_id_to_file
    assert [file.name for file in files.values()] == ["local_content/media"]


def _ring_of(bucket: dict[str, Any], *slots: str, **more: Any) -> dict[str, Any]:
    """Inputs of the key ring of a bucket, by the bucket's outputs."""
    of_bucket = {name: bucket[name] for name in ("owner", "connection", "bucketId", "nonce")}
    ring = {"userName": "media", "capabilities": ["listFiles"], "active": slots[-1], "slots": list(slots)}
    inputs, failures = B2KeyRing().check({**ring, **of_bucket, **more})
    assert not failures
    return inputs


@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("media", [False, True])
def test_two_states_of_one_store_keep_each_others_keys(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, *, adopt: bool, media: bool
) -> None:
    """Another checkout of the same project and stack, or a state that was lost and found again."""
    ring, context = B2KeyRing(), Context(lambda _: None)
    first = _create(double, monkeypatch, double.key_id, double.key)
    in_use = ring.create(_ring_of(first, "a"), context)[1]
    if media:
        double.put_file("refused-media", "local_content/media")
    second = _create(double, monkeypatch, double.key_id, double.key, adopt=adopt)
    assert second["adopted"] is adopt
    theirs = ring.create(_ring_of(second, "a", adopt=adopt), context)[1]
    assert theirs["unknownKeys"] == [in_use["accessKeyId"]]
    both = {in_use["accessKeyId"], theirs["accessKeyId"]}
    again = ring.update("media", in_use, _ring_of(first, "a"), context)
    assert again["unknownKeys"] == [theirs["accessKeyId"]]
    assert set(_keys(double)) == both
    # Each ends alone.
    with pytest.raises(StoreError, match="may be in use and is not deleted"):
        ring.delete("media", theirs, context)
    ring.delete("media", {**theirs, "retireConfirmed": True}, context)
    assert set(_keys(double)) == {in_use["accessKeyId"]}
    _delete_bucket(double)
    # Without a bucket no key is of use, so nobody is asked.
    ring.delete("media", again, context)


@pytest.mark.parametrize("adopt", [False, True])
def test_a_key_of_a_killed_run_is_replaced(double: B2Double, monkeypatch: pytest.MonkeyPatch, *, adopt: bool) -> None:
    """Killed after the key was made and before it was in the state, which has the bucket."""
    ring, context = B2KeyRing(), Context(lambda _: None)
    _create(double, monkeypatch, double.key_id, double.key)
    bucket = _create(double, monkeypatch, double.key_id, double.key, adopt=adopt)
    ring.create(_ring_of(bucket, "a", adopt=adopt), context)
    made = ring.create(_ring_of(bucket, "a", adopt=adopt), context)[1]
    assert set(_keys(double)) == {made["accessKeyId"]}
    # In a rotation, too.
    ring.update("media", made, _ring_of(bucket, "a", "b", adopt=adopt), context)
    rotated = ring.update("media", made, _ring_of(bucket, "a", "b", adopt=adopt), context)
    assert set(_keys(double)) == {key["accessKeyId"] for key in rotated["keys"].values()}
    ring.delete("media", {**rotated, "retireConfirmed": True}, context)
    B2Bucket().delete("refused-media", bucket, context)


def test_a_refresh_finds_a_key_of_a_killed_rotation_that_was_undone(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys line was put back, so that nothing else would change the ring, and the key would live on."""
    said: list[str] = []
    ring, context = B2KeyRing(), Context(said.append)
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    made = ring.create(_ring_of(bucket, "a"), context)[1]
    ring.update("media", made, _ring_of(bucket, "a", "b"), context)
    assert len(_keys(double)) == 2
    said.clear()
    found = ring.read("media", _ring_of(bucket, "a"), made, context)
    assert found is not None
    assert found.outputs["unknownKeys"] == []
    assert said == []
    assert ring.unsettled(found.outputs, _ring_of(bucket, "a")) == ("orphanUntil",)
    settled = ring.update("media", found.outputs, _ring_of(bucket, "a"), context)
    assert set(_keys(double)) == {made["accessKeyId"]}
    assert ring.unsettled(settled, _ring_of(bucket, "a")) == ()


@pytest.mark.parametrize("edited", [{"userName": "other"}, {"owner": "renamed"}])
def test_a_key_of_a_killed_run_is_replaced_whatever_was_edited_since(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, edited: dict[str, Any]
) -> None:
    """The nonce of the state in its name tells that this state created it; the bucket's key of another state stays."""
    ring, context = B2KeyRing(), Context(lambda _: None)
    first = _create(double, monkeypatch, double.key_id, double.key)
    theirs = ring.create(_ring_of(first, "a"), context)[1]
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    ring.create(_ring_of(bucket, "a"), context)
    made = ring.create({**_ring_of(bucket, "a"), **edited}, context)[1]
    assert set(_keys(double)) == {theirs["accessKeyId"], made["accessKeyId"]}
    assert made["unknownKeys"] == [theirs["accessKeyId"]]
    # Neither does the key of the other state let the bucket be deleted.
    with pytest.raises(StoreError, match=f"the key {theirs['accessKeyId']}, which this state does not know"):
        B2Bucket().delete("refused-media", {**bucket, "forceDestroy": True}, context)
    _delete_key(double, theirs["accessKeyId"])
    B2Bucket().delete("refused-media", bucket, context)


def _proved(bucket: dict[str, Any], key_id: str) -> None:
    """What the proof does when the key is in the state."""
    known = {"bucket": "refused-media", "accessKeyId": key_id, "secretAccessKey": "", "expected": {}}
    of_store = {name: bucket[name] for name in ("owner", "connection")}
    B2Administrator().note_known(model.read(ProofInputs, {**known, **of_store}))


@pytest.mark.parametrize("edited", [{}, {"userName": "other"}])
def test_a_key_that_was_handed_out_outlives_a_ring_that_is_made_anew(
    double: B2Double, monkeypatch: pytest.MonkeyPatch, edited: dict[str, Any]
) -> None:
    """After `pulumi state delete`; or where `retain_on_delete` kept it, whoever set that, and the user was edited."""
    ring, context = B2KeyRing(), Context(lambda _: None)
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    left = ring.create(_ring_of(bucket, "a"), context)[1]["accessKeyId"]
    _proved(bucket, left)
    made = ring.create({**_ring_of(bucket, "a"), **edited}, context)[1]
    assert set(_keys(double)) == {left, made["accessKeyId"]}
    assert made["unknownKeys"] == [left]
    _proved(bucket, made["accessKeyId"])
    # Nor does a rotation take it, whether it is killed or not.
    both = {**_ring_of(bucket, "a", "b"), **edited}
    ring.update("media", made, both, context)
    rotated = ring.update("media", made, both, context)
    assert set(_keys(double)) == {left, *(key["accessKeyId"] for key in rotated["keys"].values())}
    assert rotated["unknownKeys"] == [left]
    ring.delete("media", {**rotated, "retireConfirmed": True}, context)
    assert set(_keys(double)) == {left}
    with pytest.raises(StoreError, match=f"accessible with the key {left}, which this state does not know"):
        B2Bucket().delete("refused-media", {**bucket, "forceDestroy": True}, context)


def test_in_a_bucket_of_an_earlier_release_keys_are_noted_too(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no nonce, and its keys no token: nothing tells that one of them was not issued, so each is kept."""
    ring, context = B2KeyRing(), Context(lambda _: None)
    bucket = {**_create(double, monkeypatch, double.key_id, double.key), "nonce": ""}
    former = hashlib.sha256(bucket["owner"].encode()).hexdigest()[:16]
    _key_by_hand(double, f"media-{former}-a")
    [old] = _keys(double)
    ring.create(_ring_of(bucket, "a"), context)
    made = ring.create(_ring_of(bucket, "a"), context)[1]
    assert set(_keys(double)) == {old, made["accessKeyId"]}
    assert made["unknownKeys"] == [old]
    _delete_key(double, old)
    _proved(bucket, made["accessKeyId"])
    # Taken over, a key of that name may be in use.
    second = ring.create(_ring_of(bucket, "a", adopt=True), context)[1]
    assert set(_keys(double)) == {made["accessKeyId"], second["accessKeyId"]}
    with pytest.raises(StoreError, match=f"accessible with the key {made['accessKeyId']}, which this state does not"):
        B2Bucket().delete("refused-media", bucket, context)
    # A key in the state under such a name stays, and needs no other one.
    for key in _keys(double).values():
        key.name = f"media-{former}-a"
    assert ring.update("media", second, _ring_of(bucket, "a"), context) == {**second, "adopt": True}


def test_what_else_is_in_the_bucket_info_stays(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside another state's tokens, also where that state changes the bucket at the same time."""
    ring, context = B2KeyRing(), Context(lambda _: None)
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    there = double.bucket_name_to_bucket["refused-media"]
    info = {"synapse-media-stack": bucket["owner"], "Cache-Control": "max-age=1", "synapse-media-making": "0a0b0c0d"}
    there.bucket_info = dict(info)
    updates = []

    def meanwhile(operation: str) -> None:
        if operation == "update_bucket":
            updates.append(operation)
            if len(updates) == 1:
                there.revision += 1

    double.fault = meanwhile
    made = ring.create(_ring_of(bucket, "a"), context)[1]
    assert len(updates) == 2
    theirs, token = there.bucket_info["synapse-media-making"].split()
    assert theirs == "0a0b0c0d"
    assert _keys(double)[made["accessKeyId"]].name.endswith(f"-a-{token}")
    # An update of the bucket keeps it, and it is no drift.
    inputs = {name: bucket[name] for name in (*B2Bucket().check({})[0], "bucket", "connection", "owner")}
    found = B2Bucket().read("refused-media", inputs, bucket, context)
    assert found is not None
    assert B2Bucket().diff(found.inputs, inputs).changed == ()
    there.bucket_info["synapse-media-stack"] = ""
    B2Bucket().update("refused-media", bucket, {**inputs, "abortDays": 3}, context)
    assert there.bucket_info["synapse-media-making"] == f"0a0b0c0d {token}"
    # The ring's next change notes its keys, as the proof does.
    ring.update("media", made, _ring_of(bucket, "a"), context)
    assert there.bucket_info == info


def test_a_key_that_is_not_listed_yet_is_noted_too(double: B2Double, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backblaze may list it minutes later; then its token is not known, and none stays."""
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    made = B2KeyRing().create(_ring_of(bucket, "a"), Context(lambda _: None))[1]
    _proved(bucket, "not-listed")
    assert set(double.bucket_name_to_bucket["refused-media"].bucket_info) == {"synapse-media-stack"}
    again = B2KeyRing().create(_ring_of(bucket, "a"), Context(lambda _: None))[1]
    assert again["unknownKeys"] == [made["accessKeyId"]]


def test_of_many_keys_that_never_came_the_last_are_kept_in_mind(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backblaze bounds the bucket info."""
    bucket = _create(double, monkeypatch, double.key_id, double.key)
    info = double.bucket_name_to_bucket["refused-media"].bucket_info
    info["synapse-media-making"] = " ".join(f"{number:08x}" for number in range(16))
    B2KeyRing().create(_ring_of(bucket, "a"), Context(lambda _: None))
    tokens = double.bucket_name_to_bucket["refused-media"].bucket_info["synapse-media-making"].split()
    assert tokens[:-1] == [f"{number:08x}" for number in range(1, 16)]


def test_a_key_that_an_earlier_release_let_read_the_buckets_settings_is_kept(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Release 0.1.0 gave readBuckets to Goofys and matrix-media-repo; that alone is no reason for another key."""
    made = _create(double, monkeypatch, double.key_id, double.key)
    shared = {"owner": made["owner"], "connection": made["connection"], "bucketId": made["bucketId"]}
    ring = {"userName": "media", "active": "a", "slots": ["a"], **shared}
    context = Context(lambda _: None)

    def inputs(*capabilities: str) -> dict[str, Any]:
        checked: dict[str, Any] = B2KeyRing().check({**ring, "capabilities": list(capabilities)})[0]
        return checked

    first = B2KeyRing().create(inputs("listBuckets", "listFiles", "readBuckets"), context)[1]
    kept = B2KeyRing().update("media", first, inputs("listBuckets", "listFiles"), context)
    assert kept["accessKeyId"] == first["accessKeyId"]
    assert set(_keys(double)) == {first["accessKeyId"]}
    for other in (inputs("listBuckets"), inputs("listBuckets", "listFiles", "readBuckets", "deleteFiles")):
        with pytest.raises(StoreError, match="can't be changed"):
            B2KeyRing().update("media", kept, other, context)


def test_a_decoy_is_marked_and_one_of_another_stack_is_not_used(
    double: B2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _create(double, monkeypatch, double.key_id, double.key)
    administrator = B2Administrator()
    inputs = model.read(ProofInputs, {"owner": made["owner"], "connection": made["connection"]})
    assert administrator.ensure_decoy(inputs, "a-decoy-bucket")
    there = double.bucket_name_to_bucket["a-decoy-bucket"]
    assert there.bucket_info == {"synapse-media-stack": made["owner"]}
    there.bucket_info["synapse-media-stack"] = OTHER
    with pytest.raises(StoreError, match="marked as that of another stack"):
        administrator.ensure_decoy(inputs, "a-decoy-bucket")
    administrator.delete_decoy(inputs, "a-decoy-bucket")
    administrator.delete_decoy(inputs, "a-decoy-bucket")
    B2Bucket().delete("refused-media", made, Context(lambda _: None))
