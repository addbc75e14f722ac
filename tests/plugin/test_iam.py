"""User, policy and key ring on the real embedded store's IAM service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from synapse_media.errors import StoreError
from synapse_media.plugin.iam import JOURNAL, POLICY_NAME, KeyRing, User, UserPolicy, forget_journal
from synapse_media.plugin.resource import PartialError, Values
from synapse_media.schema.model import UNKNOWN
from synapse_media.store import clients as connections
from synapse_media.store import pace
from synapse_media.store.answers import ApiError
from tests.accounts import user_names
from tests.doubles import proxy
from tests.plugin.direct import Direct, allow

USER, POLICY, RING = User(), UserPolicy(), KeyRing()
PATH = "/synapse-media/tests/"


def user_inputs(direct: Direct, **changes: Any) -> Values:
    return {"userName": direct.name, "path": PATH, "connection": direct.connection(), **changes}


def path_of(direct: Direct) -> str:
    path: str = direct.iam.get_user(UserName=direct.name)["User"]["Path"]
    return path


def user_exists(direct: Direct) -> bool:
    return direct.name in user_names(direct.iam)


def policies_of(direct: Direct) -> set[str]:
    return set(direct.iam.list_user_policies(UserName=direct.name)["PolicyNames"])


# ---- the user


def test_a_user_is_made_under_our_path(direct: Direct) -> None:
    resource_id, outputs = direct.make(USER, user_inputs(direct))
    assert resource_id == direct.name
    assert path_of(direct) == PATH
    assert outputs["arn"].endswith(f"user{PATH}{direct.name}")
    assert outputs["adopted"] is False


def test_a_user_that_an_interrupted_run_left_is_ours(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path=PATH)
    _, outputs = direct.make(USER, user_inputs(direct))
    assert outputs["adopted"] is False


def test_a_lost_answer_of_create_user_is_no_stranger(direct: Direct) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(proxy.lost_answer, when=lambda request: request.action == "CreateUser", times=1)
        direct.make(USER, user_inputs(direct, connection=direct.connection(iamEndpoint=double.url)))
    assert path_of(direct) == PATH


def test_a_store_that_keeps_no_paths_is_refused_and_nothing_stays(direct: Direct) -> None:
    """SeaweedFS: CreateUser and GetUser answer without a Path."""

    def without_path(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        assert answer is not None
        headers = tuple(pair for pair in answer.headers if pair[0].lower() != "content-length")
        return proxy.Answer(answer.status, headers, re.sub(rb"<Path>[^<]*</Path>", b"", answer.body))

    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(without_path, when=lambda request: request.action in ("CreateUser", "GetUser"))
        with pytest.raises(StoreError, match=r"keeps no path of a user.*existing_key: true"):
            direct.make(USER, user_inputs(direct, connection=direct.connection(iamEndpoint=double.url)))
    assert not user_exists(direct)


def test_a_user_of_somebody_else_is_refused(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    with pytest.raises(StoreError, match=r"exists already \(path '/web/', ours is '/synapse-media/tests/'\)"):
        direct.make(USER, user_inputs(direct))
    assert path_of(direct) == "/web/"


def test_an_adopted_user_is_used_and_never_deleted(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    direct.policy(allow("s3:ListAllMyBuckets"), name="of-old")
    _, outputs = direct.make(USER, user_inputs(direct, adopt=True))
    assert outputs["adopted"] is True
    USER.delete(direct.name, outputs, direct.context)
    assert user_exists(direct)
    assert policies_of(direct) == {"of-old"}
    assert any("was adopted" in said for said in direct.said)


def test_a_user_goes_with_all_that_hangs_on_it(direct: Direct) -> None:
    _, outputs = direct.make(USER, user_inputs(direct))
    direct.policy(allow("s3:GetObject"))
    USER.delete(direct.name, outputs, direct.context)
    assert not user_exists(direct)
    USER.delete(direct.name, outputs, direct.context)


def test_a_user_that_is_gone_is_gone(direct: Direct) -> None:
    inputs, _ = USER.check(user_inputs(direct))
    _, outputs = USER.create(inputs, direct.context)
    found = USER.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert (found.inputs, found.outputs) == (inputs, outputs)
    direct.iam.delete_user(UserName=direct.name)
    assert USER.read(direct.name, inputs, outputs, direct.context) is None


def test_a_refusal_is_not_taken_for_gone(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    key = direct.user_with_key({"Effect": "Deny", "Action": "iam:*", "Resource": "*"})
    monkeypatch.setenv("S3_ACCESS_KEY_ID", key.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", key.secret)
    inputs, _ = USER.check(user_inputs(direct))
    for resource, more in ((USER, {}), (RING, {"slots": ["a"], "active": "a"})):
        with pytest.raises(ApiError) as refused:
            resource.read(direct.name, {**inputs, **more}, {"keys": {}}, direct.context)
        assert refused.value.denied


def test_an_imported_user_is_somebody_elses(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    found = USER.read(f"{direct.name}@{direct.running.iam_endpoint}", {}, {}, direct.context)
    assert found is not None
    assert (found.resource_id, found.inputs["path"], found.inputs["adopt"]) == (direct.name, "/web/", True)
    USER.delete(direct.name, found.outputs, direct.context)
    assert user_exists(direct)


def test_the_arn_is_known_once_the_user_is(direct: Direct) -> None:
    inputs, _ = USER.check(user_inputs(direct))
    assert USER.planned(inputs, None)["arn"] is UNKNOWN
    outputs = {**inputs, "arn": "arn:x", "adopted": True}
    assert USER.planned(inputs, outputs) == outputs
    direct.iam.create_user(UserName=direct.name)
    assert USER.update(direct.name, outputs, inputs, direct.context) == outputs


NOWHERE = {"endpoint": "http://127.0.0.1:9", "iamEndpoint": "http://127.0.0.1:9"}


def test_a_user_and_its_keys_stay_in_state_where_they_are_until_seen_elsewhere(owner: Direct) -> None:
    """A refresh looks where state says: a mistyped endpoint there could not be corrected any more."""
    user, _ = USER.check(user_inputs(owner))
    _, ring = owner.make(RING, ring_inputs(owner, "a"))
    elsewhere = owner.connection(**NOWHERE)
    for change in (
        lambda: USER.update(owner.name, {**user, "arn": "arn:x"}, {**user, "connection": elsewhere}, owner.context),
        lambda: RING.update(owner.name, ring, ring_inputs(owner, "a", connection=elsewhere), owner.context),
    ):
        with pytest.raises(
            ApiError, match=r"Could not connect.*Check iam_endpoint, and whether this machine can reach it"
        ):
            change()


def test_a_user_that_is_not_at_its_new_endpoint_is_told(direct: Direct) -> None:
    inputs, _ = USER.check(user_inputs(direct))
    with pytest.raises(StoreError, match="does not exist at http"):
        USER.update(direct.name, {**inputs, "arn": "arn:x"}, inputs, direct.context)


def test_without_an_iam_endpoint_nothing_is_called(direct: Direct) -> None:
    """boto3 without an endpoint talks to Amazon: the admin's credential must not go there by accident."""
    with pytest.raises(StoreError, match="iam_endpoint is missing"):
        direct.make(USER, user_inputs(direct, connection=direct.connection(iamEndpoint="")))


# ---- the policy


DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}


@pytest.fixture
def policy(direct: Direct) -> Values:
    """Checked inputs of a policy, on a user that exists."""
    direct.iam.create_user(UserName=direct.name)
    inputs, failures = POLICY.check(
        {
            "userName": direct.name,
            "policyName": "media",
            "policy": json.dumps(DOCUMENT, indent=2),
            "connection": direct.connection(),
        }
    )
    assert not failures
    return inputs


def document_of(direct: Direct) -> Any:
    return direct.iam.get_user_policy(UserName=direct.name, PolicyName="media")["PolicyDocument"]


def test_a_policy_edited_by_hand_is_found_and_put_back(direct: Direct, policy: Values) -> None:
    resource_id, outputs = POLICY.create(policy, direct.context)
    assert resource_id == f"{direct.name}/media"
    assert document_of(direct) == DOCUMENT
    found = POLICY.read(resource_id, policy, outputs, direct.context)
    assert found is not None
    assert POLICY.diff(found.inputs, policy).changed == ()
    direct.policy(allow("s3:*"), name="media")
    found = POLICY.read(resource_id, policy, outputs, direct.context)
    assert found is not None
    assert POLICY.diff(found.inputs, policy).changed == ("policy",)
    POLICY.update(resource_id, found.outputs, policy, direct.context)
    assert document_of(direct) == DOCUMENT


def test_a_policy_or_its_user_that_is_gone_is_gone(direct: Direct, policy: Values) -> None:
    resource_id, outputs = POLICY.create(policy, direct.context)
    POLICY.delete(resource_id, outputs, direct.context)
    assert policies_of(direct) == set()
    POLICY.delete(resource_id, outputs, direct.context)
    assert POLICY.read(resource_id, policy, outputs, direct.context) is None
    direct.iam.delete_user(UserName=direct.name)
    assert POLICY.read(resource_id, policy, outputs, direct.context) is None
    POLICY.delete(resource_id, outputs, direct.context)


def test_a_user_that_is_there_and_is_not_is_explained(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name)
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 404, "NoSuchEntity", "gone"),
            when=lambda request: request.action == "GetUser",
        )
        with pytest.raises(ApiError, match="Check whether several servers answer at iam_endpoint"):
            direct.make(USER, {**user_inputs(direct), "connection": direct.connection(iamEndpoint=double.url)})
    assert direct.name in user_names(direct.iam)


@pytest.mark.parametrize("document", ["junk", "[]", "%22text%22", "1", "[" * 20_000])
def test_what_is_no_policy_is_no_answer(direct: Direct, policy: Values, document: str) -> None:
    resource_id, outputs = POLICY.create(policy, direct.context)

    def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        assert answer is not None
        body = re.sub(rb"(?<=<PolicyDocument>)[^<]*", document.encode(), answer.body)
        return proxy.Answer(answer.status, answer.headers, body)

    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(fault, when=lambda request: request.action == "GetUserPolicy")
        there = {**policy, "connection": direct.connection(iamEndpoint=double.url)}
        with pytest.raises(ApiError, match="get_user_policy"):
            POLICY.read(resource_id, there, {**outputs, **there}, direct.context)
        with pytest.raises(ApiError, match="get_user_policy"):
            POLICY.create({**there, "mark": policy.get("mark")}, direct.context)
    assert document_of(direct) == DOCUMENT


def test_a_policy_is_imported_as_it_is(direct: Direct, policy: Values) -> None:
    POLICY.create(policy, direct.context)
    found = POLICY.read(f"{direct.name}/media@{direct.running.iam_endpoint}", {}, {}, direct.context)
    assert found is not None
    assert found.inputs["policy"] == policy["policy"]
    assert found.resource_id == f"{direct.name}/media"
    with pytest.raises(StoreError, match="is not USER/POLICY@IAM-ENDPOINT"):
        POLICY.read(f"{direct.name}@{direct.running.iam_endpoint}", {}, {}, direct.context)


def test_a_policy_that_is_not_json_is_refused_before_any_call() -> None:
    found = {"userName": "u", "policyName": "p", "policy": "{", "connection": {}}
    assert POLICY.check(found)[1] == {"policy": "is not JSON"}
    assert POLICY.check({})[1] == dict.fromkeys(("userName", "policyName", "policy", "connection"), "is missing")
    assert POLICY.check({**found, "policy": UNKNOWN})[1] == {}


def test_a_policy_of_another_user_or_name_is_another(policy: Values) -> None:
    for name in ("userName", "policyName"):
        assert POLICY.diff(policy, {**policy, name: "other"}).replaced == (name,)
    assert POLICY.diff(policy, {**policy, "policy": "{}"}).replaced == ()


# ---- the key ring


def ring_inputs(direct: Direct, *slots: str, active: str = "", **changes: Any) -> Values:
    inputs, failures = RING.check(
        {
            "userName": direct.name,
            "active": active or slots[0],
            "slots": list(slots),
            "connection": direct.connection(),
            **changes,
        }
    )
    assert not failures, failures
    return inputs


def confirmed(outputs: Values) -> Values:
    """As the commands leave it in state where `allow` lets the keys go."""
    return {**outputs, "retireConfirmed": True}


@pytest.fixture
def owner(direct: Direct) -> Direct:
    """A user who may look at its own buckets and has no key."""
    direct.iam.create_user(UserName=direct.name, Path=PATH)
    direct.policy(allow("s3:ListAllMyBuckets"), name=POLICY_NAME)
    return direct


def sign_in(owner: Direct, key_id: str, secret: str) -> bool:
    """Whether the store knows this key; what it may do is another matter."""
    client = boto3.client(
        "s3",
        endpoint_url=owner.endpoint,
        region_name=owner.running.region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}),
    )
    try:
        client.list_objects_v2(Bucket=f"{owner.name}-absent")
    except ClientError as error:
        return error.response["Error"]["Code"] not in ("InvalidAccessKeyId", "SignatureDoesNotMatch")
    return True


def test_keys_of_others_keep_a_ring_whose_user_takes_them_along(owner: Direct) -> None:
    """As the vendor's plugin for Amazon deletes a user. The inputs of the last `up` tell, too."""
    made = RING.create(ring_inputs(owner, "a"), owner.context)[1]
    by_hand = owner.iam.create_access_key(UserName=owner.name)["AccessKey"]["AccessKeyId"]
    keys = owner.key_ids()
    takes = ring_inputs(owner, "a", userTakesKeys=True)
    for outputs, context in (
        ({**confirmed(made), "userTakesKeys": True}, owner.context),
        (confirmed(made), replace(owner.context, inputs=takes)),
    ):
        with pytest.raises(StoreError, match=f"has the key {by_hand}, which the state does not know.*docs/state.md"):
            RING.delete(owner.name, outputs, context)
        assert owner.key_ids() == keys
    # A user of our plugin's is not deleted with it.
    RING.delete(owner.name, confirmed(made), owner.context)
    assert owner.key_ids() == {by_hand}


def test_a_ring_makes_a_key_for_each_slot(owner: Direct) -> None:
    resource_id, outputs = RING.create(ring_inputs(owner, "a", "b", active="b"), owner.context)
    assert resource_id == owner.name
    assert set(outputs["keys"]) == set(outputs["secrets"]) == {"a", "b"}
    assert {key["accessKeyId"] for key in outputs["keys"].values()} == owner.key_ids()
    assert outputs["accessKeyId"] == outputs["keys"]["b"]["accessKeyId"]
    assert outputs["secretAccessKey"] == outputs["secrets"]["b"]
    assert outputs["unknownKeys"] == outputs["inactiveKeys"] == []
    assert sign_in(owner, outputs["accessKeyId"], outputs["secretAccessKey"])
    assert len([said for said in owner.said if "Render, and restart Synapse" in said]) == 2
    assert not any(secret in said for said in owner.said for secret in outputs["secrets"].values())
    age = datetime.now(UTC) - datetime.fromisoformat(outputs["keys"]["a"]["createdAt"])
    assert abs(age) < timedelta(minutes=1)


def test_a_second_look_finds_nothing_changed(owner: Direct) -> None:
    inputs = ring_inputs(owner, "a")
    _, outputs = RING.create(inputs, owner.context)
    found = RING.read(owner.name, inputs, outputs, owner.context)
    assert found is not None
    assert RING.diff(found.inputs, inputs).changed == ()
    assert found.outputs == outputs
    assert RING.planned(inputs, outputs) == outputs


def test_a_preview_tells_what_stays_and_hides_nothing_that_changes(owner: Direct) -> None:
    before = {
        **ring_inputs(owner, "a"),
        "keys": {"a": {"accessKeyId": "AKIA", "createdAt": "x"}},
        "secrets": {"a": "s"},
        "accessKeyId": "AKIA",
        "secretAccessKey": "s",
    }
    fresh = RING.planned(ring_inputs(owner, "a"), None)
    assert fresh["accessKeyId"] is fresh["secretAccessKey"] is fresh["keys"] is UNKNOWN
    both = RING.planned(ring_inputs(owner, "a", "b", active="a"), before)
    assert (both["accessKeyId"], both["secretAccessKey"], both["keys"]) == ("AKIA", "s", UNKNOWN)
    turned = RING.planned(ring_inputs(owner, "a", "b", active="b"), before)
    assert turned["accessKeyId"] is turned["secretAccessKey"] is UNKNOWN


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"active": "b"}, "active"), ({"slots": []}, "active"), ({"userName": ""}, "userName"), ({"slots": "a"}, "slots")],
)
def test_a_ring_without_its_active_slot_is_refused(changes: Values, named: str, direct: Direct) -> None:
    inputs = {"userName": "u", "active": "a", "slots": ["a"], "connection": direct.connection(), **changes}
    assert named in RING.check(inputs)[1]


def test_rotation_keeps_both_until_the_old_one_is_retired(owner: Direct) -> None:
    _, first = RING.create(ring_inputs(owner, "a"), owner.context)
    both = RING.update(owner.name, first, ring_inputs(owner, "a", "b", active="b"), owner.context)
    assert both["keys"]["a"] == first["keys"]["a"]
    assert both["secrets"]["a"] == first["secrets"]["a"]
    assert both["accessKeyId"] != first["accessKeyId"]
    for slot in ("a", "b"):
        assert sign_in(owner, both["keys"][slot]["accessKeyId"], both["secrets"][slot])
    last = RING.update(owner.name, both, ring_inputs(owner, "b", retireConfirmed=True), owner.context)
    assert owner.key_ids() == {both["accessKeyId"]}
    # Not asked of the gateway: it remembers a key that was used for two minutes.
    assert set(last["keys"]) == set(last["secrets"]) == {"b"}


def test_a_key_is_not_retired_unless_the_next_is_in_use(owner: Direct) -> None:
    _, first = RING.create(ring_inputs(owner, "a"), owner.context)
    both = RING.update(owner.name, first, ring_inputs(owner, "a", "b", active="b"), owner.context)
    with pytest.raises(PartialError, match=r"is not retired: .*Render, restart Synapse, and then confirm") as stopped:
        RING.update(owner.name, both, ring_inputs(owner, "b"), owner.context)
    assert owner.key_ids() == {key["accessKeyId"] for key in both["keys"].values()}
    assert stopped.value.outputs["keys"] == both["keys"]
    assert stopped.value.outputs["slots"] == ["a", "b"]


def test_a_key_made_in_the_same_run_replaces_none_whatever_is_confirmed(owner: Direct) -> None:
    _, first = RING.create(ring_inputs(owner, "a"), owner.context)
    with pytest.raises(PartialError, match="was created in this run, and Synapse does not have it yet") as stopped:
        RING.update(owner.name, first, ring_inputs(owner, "b", retireConfirmed=True), owner.context)
    assert set(stopped.value.outputs["keys"]) == {"a", "b"}
    assert first["accessKeyId"] in owner.key_ids()


def test_a_key_that_was_brought_along_is_not_taken_for_used(owner: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = owner.iam.create_access_key(UserName=owner.name)["AccessKey"]
    monkeypatch.setenv("SYNAPSE_MEDIA_ADOPTED_SECRET", brought["SecretAccessKey"])
    _, first = RING.create(ring_inputs(owner, "a", adoptKey=brought["AccessKeyId"]), owner.context)
    both = RING.update(owner.name, first, ring_inputs(owner, "a", "b"), owner.context)
    with pytest.raises(PartialError, match="is not retired"):
        RING.update(owner.name, both, ring_inputs(owner, "a"), owner.context)
    RING.update(owner.name, both, ring_inputs(owner, "a", retireConfirmed=True), owner.context)
    assert owner.key_ids() == {brought["AccessKeyId"]}


@pytest.mark.parametrize("hours", [None, 0, 2])
def test_no_use_that_a_store_tells_of_stands_for_a_restart(owner: Direct, hours: int | None) -> None:
    """A proof and `render` use the new key, too."""
    _, first = RING.create(ring_inputs(owner, "a"), owner.context)
    used = None if hours is None else datetime.now(UTC) + timedelta(hours=hours)
    with proxy.in_front_of(owner.running.iam_endpoint) as iam:
        iam.misbehave(proxy.key_last_used(used), when=lambda request: request.action == "GetAccessKeyLastUsed")
        there = owner.connection(iamEndpoint=iam.url)
        both = RING.update(owner.name, first, ring_inputs(owner, "b", "a", connection=there), owner.context)
        with pytest.raises(PartialError, match="only you know whether Synapse uses the next one"):
            RING.update(owner.name, both, ring_inputs(owner, "b", connection=there), owner.context)
    assert len(owner.key_ids()) == 2


# ---- keys that somebody touched


def test_a_key_made_by_hand_is_reported_and_left(owner: Direct) -> None:
    inputs = ring_inputs(owner, "a")
    _, outputs = RING.create(inputs, owner.context)
    forget_journal(owner.iam, owner.name, outputs["accessKeyId"])
    by_hand = owner.iam.create_access_key(UserName=owner.name)["AccessKey"]["AccessKeyId"]
    found = RING.read(owner.name, inputs, outputs, owner.context)
    assert found is not None
    assert found.outputs["unknownKeys"] == [by_hand]
    assert RING.diff(found.inputs, inputs).changed == ()
    RING.update(owner.name, found.outputs, inputs, owner.context)
    assert by_hand in owner.key_ids()
    assert f"user {owner.name} has the key {by_hand}, not created by this stack" in " ".join(owner.said)
    RING.delete(owner.name, confirmed(outputs), owner.context)
    assert owner.key_ids() == {by_hand}


def test_a_key_made_by_hand_just_after_ours_is_no_orphan(owner: Direct) -> None:
    """The proof failed, so the journal is still there, and the operator made a key to look why."""
    inputs = ring_inputs(owner, "a")
    _, outputs = RING.create(inputs, owner.context)
    assert policies_of(owner) > {POLICY_NAME}
    by_hand = owner.iam.create_access_key(UserName=owner.name)["AccessKey"]["AccessKeyId"]
    RING.update(owner.name, outputs, inputs, owner.context)
    assert owner.key_ids() == {outputs["accessKeyId"], by_hand}


def test_a_key_that_was_there_before_is_never_an_orphan(owner: Direct) -> None:
    by_hand = owner.iam.create_access_key(UserName=owner.name)["AccessKey"]["AccessKeyId"]
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(proxy.lost_answer, when=lambda request: request.action == "CreateAccessKey")
        with pytest.raises(PartialError):
            RING.create(ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url)), owner.context)
    assert len(owner.key_ids()) == 2
    _, outputs = RING.create(ring_inputs(owner, "a"), owner.context)
    assert owner.key_ids() == {by_hand, outputs["accessKeyId"]}


def test_a_key_switched_off_is_reported_and_left_off(owner: Direct) -> None:
    inputs = ring_inputs(owner, "a")
    _, outputs = RING.create(inputs, owner.context)
    key_id = outputs["accessKeyId"]
    owner.iam.update_access_key(UserName=owner.name, AccessKeyId=key_id, Status="Inactive")
    found = RING.read(owner.name, inputs, outputs, owner.context)
    assert found is not None
    assert found.outputs["inactiveKeys"] == [key_id]
    assert RING.diff(found.inputs, inputs).changed == ()
    RING.update(owner.name, found.outputs, inputs, owner.context)
    [listed] = owner.iam.list_access_keys(UserName=owner.name)["AccessKeyMetadata"]
    assert (listed["AccessKeyId"], listed["Status"]) == (key_id, "Inactive")
    assert any(f"key {key_id} was disabled outside of this stack" in said for said in owner.said)


def test_a_key_deleted_by_hand_is_made_anew(owner: Direct) -> None:
    inputs = ring_inputs(owner, "a", "b", active="a")
    _, outputs = RING.create(inputs, owner.context)
    owner.iam.delete_access_key(UserName=owner.name, AccessKeyId=outputs["accessKeyId"])
    found = RING.read(owner.name, inputs, outputs, owner.context)
    assert found is not None
    assert RING.diff(found.inputs, inputs).changed == ("slots",)
    assert found.outputs["accessKeyId"] == ""
    mended = RING.update(owner.name, found.outputs, inputs, owner.context)
    assert mended["keys"]["b"] == outputs["keys"]["b"]
    assert mended["accessKeyId"] not in ("", outputs["accessKeyId"])
    assert owner.key_ids() == {key["accessKeyId"] for key in mended["keys"].values()}


def test_a_ring_whose_user_is_gone_is_gone(owner: Direct) -> None:
    inputs = ring_inputs(owner, "a")
    _, outputs = RING.create(inputs, owner.context)
    USER.delete(owner.name, {**user_inputs(owner), "adopted": False}, owner.context)
    assert RING.read(owner.name, inputs, outputs, owner.context) is None
    RING.delete(owner.name, outputs, owner.context)


def test_a_ring_can_not_be_imported(owner: Direct) -> None:
    with pytest.raises(StoreError, match="a store never shows a secret access key again"):
        RING.read(f"{owner.name}@{owner.running.iam_endpoint}", {}, {}, owner.context)


def test_as_many_keys_as_a_user_may_have(owner: Direct) -> None:
    """Two, as at Amazon; both made by hand."""
    by_hand = sorted(owner.iam.create_access_key(UserName=owner.name)["AccessKey"]["AccessKeyId"] for _ in range(2))
    with pytest.raises(PartialError, match="has the maximum number of keys") as stopped:
        RING.create(ring_inputs(owner, "a"), owner.context)
    assert all(key_id in str(stopped.value) for key_id in by_hand)
    assert "slot 'a' needs another. Delete an unused one" in str(stopped.value)
    assert sorted(owner.key_ids()) == by_hand


# ---- making a key is never repeated


def black_hole(request: proxy.Request, upstream: proxy.Upstream) -> None:
    """Done by the server, and never answered."""
    upstream.ask(request)
    upstream.closing.wait()


@pytest.mark.parametrize(
    ("fault", "made"),
    [
        (proxy.internal_error, 0),
        (proxy.html(502), 0),
        (proxy.lost_answer, 1),
        (proxy.truncated, 1),
        (black_hole, 1),
    ],
)
def test_making_a_key_is_tried_once_and_an_orphan_is_replaced(
    owner: Direct, monkeypatch: pytest.MonkeyPatch, fault: proxy.Fault, made: int
) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 1)
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        rule = double.misbehave(fault, when=lambda request: request.action == "CreateAccessKey")
        there = ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url))
        with pytest.raises(PartialError) as stopped:
            RING.create(there, owner.context)
        assert rule.hits == 1
        assert len(owner.key_ids()) == made
        orphans = owner.key_ids()
        outputs = stopped.value.outputs
        assert (outputs["keys"], outputs["secrets"], outputs["slots"]) == ({}, {}, [])
        assert stopped.value.resource_id == owner.name
        double.behave()
        finished = RING.update(owner.name, outputs, there, owner.context)
    assert owner.key_ids() == {finished["accessKeyId"]}
    assert not orphans & owner.key_ids()
    assert sign_in(owner, finished["accessKeyId"], finished["secretAccessKey"])
    told = [said for said in owner.said if "created by an interrupted run and never handed out, was deleted" in said]
    assert len(told) == made


def test_making_a_key_is_put_off_where_the_store_itself_says_that_it_did_nothing(owner: Direct) -> None:
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        slow = double.misbehave(proxy.slow_down, when=lambda request: request.action == "CreateAccessKey", times=2)
        there = ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url))
        _, outputs = RING.create(there, owner.context)
        asked = [one.action for one in double.exchanges].count("CreateAccessKey")
    assert (slow.hits, asked) == (2, 3)
    assert owner.key_ids() == {outputs["accessKeyId"]}


@pytest.mark.parametrize("page", [b"<html>Too many requests</html>", b"", b"later"])
def test_making_a_key_is_not_repeated_where_somebody_in_between_throttles(owner: Direct, page: bytes) -> None:
    def too_many(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
        """Of a gateway, which may have passed it on: the key is made."""
        upstream.ask(request)
        return proxy.Answer(429, (("Content-Type", "text/html" if page.startswith(b"<") else "text/plain"),), page)

    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        rule = double.misbehave(too_many, when=lambda request: request.action == "CreateAccessKey")
        there = ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url))
        with pytest.raises(
            PartialError, match=r"429.* after a minute .*: it finds such a key and replaces it"
        ) as stopped:
            RING.create(there, owner.context)
    assert rule.hits == 1
    (lost,) = owner.key_ids()
    finished = RING.update(owner.name, stopped.value.outputs, ring_inputs(owner, "a"), owner.context)
    assert owner.key_ids() == {finished["accessKeyId"]} != {lost}


def test_a_store_that_throttles_for_too_long_is_said_to(owner: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SECONDS", 0)
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(proxy.slow_down, when=lambda request: request.action == "CreateAccessKey")
        there = ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url))
        with pytest.raises(PartialError) as stopped:
            RING.create(there, owner.context)
    assert "too many requests (asked once in 0 s). Nothing was done by this call. Run this again" in str(stopped.value)
    assert owner.key_ids() == set()


def test_what_was_reached_before_a_failure_is_kept(owner: Direct) -> None:
    """The first key was made, the second was not: the first goes into state."""
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        count: list[int] = []

        def second(request: proxy.Request) -> bool:
            if request.action == "CreateAccessKey":
                count.append(1)
            return request.action == "CreateAccessKey" and len(count) == 2

        double.misbehave(proxy.internal_error, when=second)
        there = ring_inputs(owner, "a", "b", active="a", connection=owner.connection(iamEndpoint=double.url))
        with pytest.raises(PartialError) as stopped:
            RING.create(there, owner.context)
    reached = stopped.value.outputs
    assert reached["slots"] == ["a"]
    assert owner.key_ids() == {reached["accessKeyId"]}
    finished = RING.update(owner.name, reached, ring_inputs(owner, "a", "b", active="a"), owner.context)
    assert finished["keys"]["a"] == reached["keys"]["a"]
    assert len(owner.key_ids()) == 2


def test_other_calls_are_repeated(owner: Direct) -> None:
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        rules = [
            double.misbehave(fault, when=lambda request, wanted=action: request.action == wanted, times=1)  # type: ignore[misc]
            for fault, action in ((proxy.slow_down, "ListAccessKeys"), (proxy.internal_error, "PutUserPolicy"))
        ]
        RING.create(ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url)), owner.context)
        assert [rule.hits for rule in rules] == [1, 1]
    assert len(owner.key_ids()) == 1


def test_the_journal_is_written_before_the_key_is_made(owner: Direct) -> None:
    seen: list[set[str]] = []

    def look(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        seen.append(policies_of(owner))
        return upstream.ask(request)

    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(look, when=lambda request: request.action == "CreateAccessKey")
        there = ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url))
        _, outputs = RING.create(there, owner.context)
    assert seen == [{POLICY_NAME, f"{JOURNAL}a"}]
    forget_journal(owner.iam, owner.name, outputs["accessKeyId"])
    assert policies_of(owner) == {POLICY_NAME}


def journal_without_sense(owner: Direct) -> None:
    owner.policy({"Sid": "SomethingElse", **allow("s3:GetObject")}, name=f"{JOURNAL}a")


def journal_of_last_year(owner: Direct) -> None:
    statement = {"Sid": "At20250101T000000Z", "Effect": "Deny", "Action": "iam:CreateAccessKey", "Resource": "*"}
    owner.policy(statement, name=f"{JOURNAL}a")


@pytest.mark.parametrize("write", [journal_without_sense, journal_of_last_year])
def test_a_journal_that_tells_nothing_deletes_nothing(owner: Direct, write: Callable[[Direct], None]) -> None:
    by_hand = owner.iam.create_access_key(UserName=owner.name)["AccessKey"]["AccessKeyId"]
    write(owner)
    _, outputs = RING.create(ring_inputs(owner, "a"), owner.context)
    assert owner.key_ids() == {by_hand, outputs["accessKeyId"]}


def test_a_ring_that_ends_leaves_no_orphan_and_no_journal(owner: Direct) -> None:
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(proxy.lost_answer, when=lambda request: request.action == "CreateAccessKey")
        with pytest.raises(PartialError) as stopped:
            RING.create(ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url)), owner.context)
    assert len(owner.key_ids()) == 1
    outputs = {**stopped.value.outputs, "connection": owner.connection()}
    RING.delete(owner.name, outputs, owner.context)
    assert owner.key_ids() == set()
    assert policies_of(owner) == {POLICY_NAME}
    RING.delete(owner.name, outputs, owner.context)


@pytest.mark.parametrize("how", ["expired: 20260101T000000Z is now earlier than", "not yet current: 20260101T000000Z"])
def test_a_wrong_clock_is_not_taken_for_a_wrong_secret(owner: Direct, how: str) -> None:
    """As Amazon's IAM puts it, by the code of a wrong secret; there is no key, and the next run makes it."""
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(lambda request, _: proxy.error(request, 403, "SignatureDoesNotMatch", f"Signature {how} …"))
        there = ring_inputs(owner, "a", connection=owner.connection(iamEndpoint=double.url))
        with pytest.raises(StoreError, match="The clock of this machine is wrong") as refused:
            RING.create(there, owner.context)
        assert "does not match" not in str(refused.value)
        assert owner.key_ids() == set()
        double.behave()
        _, outputs = RING.create(there, owner.context)
    assert owner.key_ids() == {outputs["accessKeyId"]}


def test_wrong_admin_secret_is_told_and_not_shown(owner: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "a-secret-that-is-wrong-0123456789abcdef")
    with pytest.raises(StoreError, match="SignatureDoesNotMatch") as refused:
        RING.create(ring_inputs(owner, "a"), owner.context)
    assert "a-secret-that-is-wrong" not in str(refused.value)


def gone(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
    return proxy.error(request, 404, "NoSuchEntity", "there is no such user")


def ring_of_a_bucket(owner: Direct, **changes: Any) -> tuple[Values, Values]:
    """A ring whose key may read its bucket, as the engine knows it."""
    owner.s3.create_bucket(Bucket=owner.name)
    owner.policy(allow("s3:*"))
    mark = {"path": PATH, "bucket": owner.name}
    there = ring_inputs(owner, "a", mark=mark, **changes)
    return there, RING.create(there, owner.context)[1]


@pytest.mark.parametrize("rights", ["all", "none"])
def test_a_user_whose_key_still_works_is_not_gone(owner: Direct, rights: str) -> None:
    """IAM says NoSuchEntity to everything, in its own form: the secrets would be forgotten, the keys stay."""
    there, outputs = ring_of_a_bucket(owner)
    keys = owner.key_ids()
    if rights == "none":
        owner.iam.delete_user_policy(UserName=owner.name, PolicyName="by-hand")
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(gone)
        lying = {"connection": owner.connection(iamEndpoint=double.url)}
        for step in (
            lambda: RING.read(owner.name, {**there, **lying}, {**outputs, **lying}, owner.context),
            lambda: RING.update(owner.name, {**outputs, **lying}, {**there, **lying, "active": "a"}, owner.context),
            lambda: RING.delete(owner.name, {**outputs, **lying, "retireConfirmed": True}, owner.context),
        ):
            with pytest.raises(StoreError, match=r"is not among its keys any more.*accepted just now by list_objects"):
                step()
        assert {exchange.action for exchange in double.exchanges} <= {"ListAccessKeys", "GetUser", "ListUserPolicies"}
    assert owner.key_ids() == keys


def test_a_user_that_is_gone_with_its_keys_is_gone(owner: Direct) -> None:
    there, outputs = ring_of_a_bucket(owner)
    [key] = owner.key_ids()
    owner.iam.delete_access_key(UserName=owner.name, AccessKeyId=key)
    found = RING.read(owner.name, there, outputs, owner.context)
    assert found is not None
    assert found.outputs["keys"] == {}


def test_what_works_is_not_asked_where_nothing_is_gone(owner: Direct) -> None:
    there, outputs = ring_of_a_bucket(owner)
    with proxy.in_front_of(owner.endpoint) as double:
        watched = {"connection": owner.connection(endpoint=double.url)}
        RING.read(owner.name, {**there, **watched}, {**outputs, **watched}, owner.context)
        assert double.exchanges == []


def no_bucket(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
    return proxy.error(request, 404, "NoSuchBucket", "there is no such bucket")


@pytest.mark.parametrize("times", [1, None])
def test_a_key_whose_bucket_is_said_to_be_gone_is_not_deleted_for_that(owner: Direct, times: int | None) -> None:
    _, outputs = ring_of_a_bucket(owner)
    keys = owner.key_ids()
    with proxy.in_front_of(owner.endpoint) as double:
        rule = double.misbehave(no_bucket, when=lambda request: request.bucket == owner.name, times=times)
        lying = {**outputs, "connection": owner.connection(endpoint=double.url)}
        with pytest.raises(StoreError, match="may be in use and is not deleted"):
            RING.delete(owner.name, lying, owner.context)
        assert rule.hits == 1
    assert owner.key_ids() == keys
    owner.s3.delete_bucket(Bucket=owner.name)
    RING.delete(owner.name, outputs, owner.context)
    assert owner.key_ids() == set()


def test_an_administrator_that_may_not_list_buckets_looks_twice(owner: Direct) -> None:
    _, outputs = ring_of_a_bucket(owner)
    keys = owner.key_ids()
    with proxy.in_front_of(owner.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "not that"),
            when=lambda request: not request.bucket,
        )
        double.misbehave(no_bucket, when=lambda request: request.bucket == owner.name, times=1)
        lying = {**outputs, "connection": owner.connection(endpoint=double.url)}
        with pytest.raises(StoreError, match="may be in use and is not deleted"):
            RING.delete(owner.name, lying, owner.context)
        assert owner.key_ids() == keys
        owner.s3.delete_bucket(Bucket=owner.name)
        RING.delete(owner.name, lying, owner.context)
    assert owner.key_ids() == set()


def test_a_key_that_is_not_listed_is_tried_where_its_bucket_is_said_to_be_gone(owner: Direct) -> None:
    """Who is told that there is no such bucket was let in, where a stranger is not."""
    there, outputs = ring_of_a_bucket(owner)
    with proxy.in_front_of(owner.running.iam_endpoint) as iam, proxy.in_front_of(owner.endpoint) as s3:
        iam.misbehave(gone)
        s3.misbehave(no_bucket, when=lambda request: request.access_key_id == outputs["accessKeyId"])
        lying = {"connection": owner.connection(iamEndpoint=iam.url, endpoint=s3.url)}
        with pytest.raises(StoreError, match=r"is not among its keys any more.*accepted just now by list_objects"):
            RING.read(owner.name, {**there, **lying}, {**outputs, **lying}, owner.context)
