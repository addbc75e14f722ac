"""Whose a bucket, a user and its keys are: asked before anything of them is changed or deleted."""

from __future__ import annotations

import itertools
import json
import re
from contextlib import suppress
from typing import Any

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin.iam import POLICY_NAME, KeyRing, User, UserPolicy, allows_all, forget_journal
from synapse_media.plugin.resource import Context, PartialError, Values
from synapse_media.plugin.s3_bucket import OWNER_TAG, Bucket
from tests.accounts import user_names
from tests.doubles import proxy
from tests.plugin.direct import OWNER, URN, Direct, allow

BUCKET, USER, POLICY, RING = Bucket(), User(), UserPolicy(), KeyRing()
OTHER = "synapse-media/other/matrix.example.com"
LEGACY = "/synapse-media/prod/"


# ---- the bucket


def bucket_of(direct: Direct, **changes: Any) -> Values:
    inputs, failures = BUCKET.check(
        {"bucket": direct.name, "connection": direct.connection(), "owner": OWNER, "versioning": True, **changes}
    )
    assert not failures
    return inputs


def tag(direct: Direct) -> str:
    found = direct.s3.get_bucket_tagging(Bucket=direct.name)["TagSet"]
    return {item["Key"]: item["Value"] for item in found}[OWNER_TAG]


def marked(direct: Direct, mark: str) -> None:
    tags = {"TagSet": [{"Key": OWNER_TAG, "Value": mark}]} if mark else {"TagSet": []}
    direct.s3.put_bucket_tagging(Bucket=direct.name, Tagging=tags)


def test_a_bucket_of_another_stack_is_neither_changed_nor_emptied_nor_deleted(direct: Direct) -> None:
    inputs = bucket_of(direct, forceDestroy=True)
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.put()
    marked(direct, OTHER)
    direct.s3.put_bucket_versioning(Bucket=direct.name, VersioningConfiguration={"Status": "Suspended"})
    for step in (
        lambda: BUCKET.update(direct.name, outputs, inputs, direct.context),
        lambda: BUCKET.delete(direct.name, outputs, direct.context),
    ):
        with pytest.raises(StoreError, match=f"that of another stack \\({OTHER}\\)") as refused:
            step()
        assert not isinstance(refused.value, PartialError)
        assert "retain-bucket" in str(refused.value)
    assert tag(direct) == OTHER
    assert direct.keys_in() == ["local_content/a"]
    assert direct.s3.get_bucket_versioning(Bucket=direct.name)["Status"] == "Suspended"


def test_a_mark_that_was_taken_off_or_replaced_is_drift(direct: Direct) -> None:
    inputs = bucket_of(direct)
    _, outputs = BUCKET.create(inputs, direct.context)
    for mark in ("", OTHER):
        marked(direct, mark)
        found = BUCKET.read(direct.name, inputs, outputs, direct.context)
        assert found is not None
        assert BUCKET.diff(found.inputs, inputs).changed == ("owner",)
        # What is ours, the outputs go on to say: the next update asks by them.
        assert found.outputs["owner"] == OWNER
    with pytest.raises(StoreError, match="another stack"):
        BUCKET.update(direct.name, found.outputs, inputs, direct.context)
    marked(direct, "")
    BUCKET.update(direct.name, found.outputs, inputs, direct.context)
    assert tag(direct) == OWNER


def test_a_bucket_without_a_mark_is_deleted_only_if_it_is_empty(direct: Direct) -> None:
    inputs = bucket_of(direct, forceDestroy=True)
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.put()
    marked(direct, "")
    with pytest.raises(StoreError, match="the mark of this stack was removed from it: it is not deleted"):
        BUCKET.delete(direct.name, outputs, direct.context)
    assert direct.keys_in() == ["local_content/a"]
    for version in direct.s3.list_object_versions(Bucket=direct.name)["Versions"]:
        direct.s3.delete_object(Bucket=direct.name, Key=version["Key"], VersionId=version["VersionId"])
    BUCKET.delete(direct.name, outputs, direct.context)
    assert not direct.bucket_exists()


@pytest.mark.parametrize("mark", ["", OTHER])
def test_a_bucket_of_the_same_name_at_another_endpoint_is_not_taken(direct: Direct, mark: str) -> None:
    inputs = bucket_of(direct)
    _, outputs = BUCKET.create(inputs, direct.context)
    before = {**outputs, "connection": direct.connection(endpoint="http://127.0.0.1:9")}
    marked(direct, mark)
    direct.put()
    with pytest.raises(StoreError, match="has no mark of this stack" if not mark else "another stack"):
        BUCKET.update(direct.name, before, inputs, direct.context)
    # The same store under another address carries our mark.
    marked(direct, OWNER)
    BUCKET.update(direct.name, before, inputs, direct.context)


def test_a_bucket_that_can_not_be_marked_has_lost_no_mark(direct: Direct) -> None:
    """Earlier releases reported it only as text."""
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 501, "NotImplemented", "no"),
            when=lambda request: request.method == "PUT" and "tagging" in request.query,
        )
        inputs = bucket_of(direct, connection=direct.connection(endpoint=double.url))
        _, outputs = BUCKET.create(inputs, direct.context)
    assert outputs["hasNoTags"] is True
    assert "bucket tags (the bucket carries no mark of its stack)" in outputs["lacks"]
    earlier = {name: value for name, value in outputs.items() if name != "hasNoTags"}
    inputs = bucket_of(direct)
    for known in (outputs, earlier):
        found = BUCKET.read(direct.name, inputs, known, direct.context)
        assert found is not None
        assert BUCKET.diff(found.inputs, inputs).changed == ()
    # Where it can be marked by now, it is.
    there = {**earlier, "connection": direct.connection()}
    outputs = BUCKET.update(direct.name, there, inputs, direct.context)
    assert (tag(direct), outputs["hasNoTags"]) == (OWNER, False)
    assert not [words for words in outputs["lacks"] if "tags" in words]


def test_an_older_mark_of_ours_is_replaced(direct: Direct) -> None:
    new = "synapse-media/tests/new.example.com"
    _, outputs = BUCKET.create(bucket_of(direct), direct.context)
    outputs = BUCKET.update(direct.name, outputs, bucket_of(direct, owner=new), direct.context)
    assert (tag(direct), outputs["owner"]) == (new, new)
    marked(direct, OWNER)
    BUCKET.update(direct.name, outputs, bucket_of(direct, owner=new, formerOwner=OWNER), direct.context)
    assert tag(direct) == new
    without = bucket_of(direct, owner=new)
    assert BUCKET.diff(without, {**without, "formerOwner": OWNER}).changed == ()


def test_an_import_makes_nothing_ours(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    marked(direct, OTHER)
    found = BUCKET.read(f"{direct.name}@{direct.endpoint}", {}, {}, direct.context)
    assert found is not None
    with pytest.raises(StoreError, match="another stack"):
        BUCKET.update(direct.name, found.outputs, bucket_of(direct, adopt=True), direct.context)
    assert tag(direct) == OTHER


# ---- the user


def of_store(direct: Direct, bucket: str = "media-a", stack: str = "prod", **changes: Any) -> Values:
    """The inputs that the three resources of a user share."""
    path = f"/synapse-media/synapse-media/{stack}/matrix.example.com/{bucket}/"
    mark = {"path": path, "formerPaths": [f"/synapse-media/{stack}/"], "bucket": bucket}
    return {"userName": direct.name, "connection": direct.connection(), "adopt": False, "mark": mark, **changes}


def user_of(direct: Direct, bucket: str = "media-a", stack: str = "prod", **changes: Any) -> Values:
    shared = of_store(direct, bucket, stack, **changes)
    inputs, failures = USER.check({"path": shared["mark"]["path"], **shared})
    assert not failures
    return inputs


def policy_of(direct: Direct, bucket: str = "media-a", **changes: Any) -> Values:
    document = {"Version": "2012-10-17", "Statement": [allow("s3:GetObject", on=f"arn:aws:s3:::{bucket}/*")]}
    inputs, failures = POLICY.check(
        {**of_store(direct, bucket, **changes), "policyName": POLICY_NAME, "policy": json.dumps(document)}
    )
    assert not failures
    return inputs


def ring_of(direct: Direct, bucket: str = "media-a", **changes: Any) -> Values:
    inputs, failures = RING.check({"active": "a", "slots": ["a"], **of_store(direct, bucket, **changes)})
    assert not failures
    return inputs


def policy_at_store(direct: Direct) -> Any:
    return direct.iam.get_user_policy(UserName=direct.name, PolicyName=POLICY_NAME)["PolicyDocument"]


def test_a_second_checkout_gets_neither_the_user_nor_its_policy_nor_a_key(direct: Direct) -> None:
    """Two checkouts, stacks of the same name, the same user, other buckets."""
    direct.make(USER, user_of(direct))
    direct.make(POLICY, policy_of(direct))
    direct.make(RING, ring_of(direct))
    before, keys = policy_at_store(direct), direct.key_ids()
    for step in (
        lambda: direct.make(USER, user_of(direct, "media-b")),
        lambda: direct.make(USER, user_of(direct, "media-b", adopt=True)),
        lambda: direct.make(POLICY, policy_of(direct, "media-b")),
        lambda: direct.make(RING, ring_of(direct, "media-b")),
    ):
        with pytest.raises(StoreError, match="is marked as another stack's"):
            step()
    assert (policy_at_store(direct), direct.key_ids()) == (before, keys)


def test_a_user_of_an_earlier_release_is_told_by_the_bucket_of_its_policy(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path=LEGACY)
    statement = allow("s3:GetObject", on="arn:aws:s3:::media-a/*")
    direct.policy(statement, name=POLICY_NAME)
    before = policy_at_store(direct)
    for step in (
        lambda: direct.make(USER, user_of(direct, "media-b")),
        lambda: direct.make(POLICY, policy_of(direct, "media-b")),
        lambda: direct.make(RING, ring_of(direct, "media-b")),
    ):
        with pytest.raises(StoreError, match=r"its policy 'synapse-media' is for media-a"):
            step()
    assert policy_at_store(direct) == before
    _, outputs = direct.make(USER, user_of(direct))
    assert (outputs["adopted"], outputs["path"]) == (False, LEGACY)
    direct.make(POLICY, policy_of(direct))
    direct.make(RING, ring_of(direct))


def test_two_stacks_that_took_over_one_user_do_not_share_its_policy(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    direct.make(USER, user_of(direct, adopt=True))
    direct.make(POLICY, policy_of(direct, adopt=True))
    with pytest.raises(StoreError, match="is another store's"):
        direct.make(POLICY, policy_of(direct, "media-b", adopt=True, stack="other"))


def test_a_user_stays_ours_when_its_bucket_becomes_another(direct: Direct) -> None:
    """The user keeps its path; the component hands it on to the policy and the ring."""
    _, user = direct.make(USER, user_of(direct))
    _, ring = direct.make(RING, ring_of(direct))
    moved = user_of(direct, "media-b")
    assert USER.diff(user_of(direct), moved).changed == ()
    kept = USER.update(direct.name, user, moved, direct.context)
    assert kept["path"] == user["path"]
    policy, keys = policy_of(direct, "media-b"), ring_of(direct, "media-b")
    for inputs in (policy, keys):
        inputs["mark"]["formerPaths"].append(kept["path"])
    direct.make(POLICY, policy)
    ring = RING.update(direct.name, ring, keys, direct.context)
    RING.delete(direct.name, {**ring, "retireConfirmed": True}, direct.context)
    USER.delete(direct.name, kept, Context(direct.said.append, moved))
    assert direct.name not in user_names(direct.iam)


def test_a_bucket_that_was_renamed_here_is_ours_in_the_policy(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path=LEGACY)
    _, outputs = direct.make(POLICY, policy_of(direct))
    POLICY.update(f"{direct.name}/{POLICY_NAME}", outputs, policy_of(direct, "media-b"), direct.context)
    assert "media-b" in json.dumps(policy_at_store(direct))


def test_destroy_leaves_what_is_another_stacks_by_now(direct: Direct) -> None:
    """Made by an earlier release, which let two stacks of the same name overwrite each other."""
    direct.iam.create_user(UserName=direct.name, Path=LEGACY)
    theirs = direct.iam.create_access_key(UserName=direct.name)["AccessKey"]["AccessKeyId"]
    direct.policy(allow("s3:GetObject", on="arn:aws:s3:::media-a/*"), name=POLICY_NAME)
    before = policy_at_store(direct)
    old_user = {"userName": direct.name, "path": LEGACY, "connection": direct.connection(), "adopted": False}
    old_policy = {name: value for name, value in policy_of(direct, "media-b").items() if name not in ("mark", "adopt")}
    POLICY.delete(f"{direct.name}/{POLICY_NAME}", old_policy, direct.context)
    USER.delete(direct.name, old_user, direct.context)
    assert (policy_at_store(direct), direct.key_ids()) == (before, {theirs})
    assert any("is another store's" in said for said in direct.said)
    # The one whose bucket it names takes its own along, once its ring has let the key go.
    direct.iam.delete_access_key(UserName=direct.name, AccessKeyId=theirs)
    POLICY.delete(f"{direct.name}/{POLICY_NAME}", policy_of(direct), direct.context)
    USER.delete(direct.name, old_user, direct.context)
    assert direct.name not in user_names(direct.iam)


# ---- a user of exactly our mark that another state may have


@pytest.fixture
def first(direct: Direct) -> Values:
    """The ring of a checkout whose user has a policy for everything under x/, and whose key is in use."""
    direct.make(USER, user_of(direct))
    direct.make(POLICY, under(direct, "x/*", "y/*"))
    _, ring = direct.make(RING, ring_of(direct))
    forget_journal(direct.iam, direct.name, ring["accessKeyId"])
    return ring


def under(direct: Direct, *prefixes: str, **changes: Any) -> Values:
    """A policy that lets its user read what is under some prefixes."""
    statements = [allow("s3:GetObject", on=f"arn:aws:s3:::media-a/{prefix}") for prefix in prefixes]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    inputs, failures = POLICY.check({**policy_of(direct, **changes), "policy": document})
    assert not failures
    return inputs


def test_a_second_state_does_not_narrow_the_policy_of_a_key_that_it_does_not_know(
    direct: Direct, first: Values
) -> None:
    before = policy_at_store(direct)
    with pytest.raises(StoreError, match=r"neither of which this state knows.*`up` with the stack file as it") as one:
        direct.make(POLICY, under(direct, "x/*"))
    assert first["accessKeyId"] in str(one.value)
    assert policy_at_store(direct) == before
    # The same again, as after a lost state, and one that allows more.
    direct.make(POLICY, under(direct, "x/*", "y/*"))
    direct.make(POLICY, under(direct, "*"))
    # With no key that anybody may use, it is what an interrupted run left.
    direct.iam.delete_access_key(UserName=direct.name, AccessKeyId=first["accessKeyId"])
    direct.make(POLICY, under(direct, "x/*"))


def test_a_policy_is_narrowed_where_its_state_knows_it_or_its_user_is_taken_over(direct: Direct, first: Values) -> None:
    direct.make(POLICY, under(direct, "x/*", adopt=True))
    known = under(direct, "x/*")
    POLICY.update(f"{direct.name}/{POLICY_NAME}", known, under(direct, "z/*"), direct.context)
    assert "z/*" in json.dumps(policy_at_store(direct))


@pytest.mark.parametrize("times", [1, None])
def test_a_policy_is_not_deleted_while_one_answer_says_that_its_user_is_gone(
    direct: Direct, first: Values, times: int | None
) -> None:
    policy_id, policy = direct.make(POLICY, under(direct, "x/*", "y/*"))
    _, user = direct.make(USER, user_of(direct))
    before = policy_at_store(direct)
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 404, "NoSuchEntity", "there is no such user"),
            when=lambda request: request.action == "GetUser",
            times=times,
        )
        there = {"connection": direct.connection(iamEndpoint=double.url)}
        with pytest.raises(StoreError, match="list_access_keys has keys of the user: it is not taken for gone"):
            POLICY.delete(policy_id, {**policy, **there}, direct.context)
        double.behave()
        double.misbehave(
            lambda request, _: proxy.error(request, 404, "NoSuchEntity", "there is no such user"),
            when=lambda request: request.action == "GetUser",
            times=times,
        )
        with pytest.raises(StoreError, match="list_access_keys has keys of the user: it is not taken for gone"):
            USER.delete(direct.name, {**user, **there}, direct.context)
    assert (policy_at_store(direct), direct.key_ids()) == (before, {first["accessKeyId"]})


def _no_keys(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
    result = "<ListAccessKeysResult><AccessKeyMetadata/><IsTruncated>false</IsTruncated></ListAccessKeysResult>"
    body = f"<ListAccessKeysResponse>{result}</ListAccessKeysResponse>"
    return proxy.Answer(200, (("Content-Type", "text/xml"),), body.encode())


def _another_path(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
    answer = upstream.ask(request)
    assert answer is not None
    return proxy.Answer(answer.status, answer.headers, re.sub(rb"<Path>[^<]*</Path>", b"<Path>/</Path>", answer.body))


@pytest.mark.parametrize(
    ("fault", "action", "number"),
    [(_no_keys, "ListAccessKeys", 1), (_no_keys, "ListAccessKeys", 2), (_another_path, "GetUser", 1)],
    ids=["no key at first", "no key at last", "another path"],
)
def test_one_answer_does_not_cut_a_key_in_use(
    direct: Direct, first: Values, fault: proxy.Fault, action: str, number: int
) -> None:
    policy_id, policy = direct.make(POLICY, under(direct, "x/*", "y/*"))
    _, user = direct.make(USER, user_of(direct))
    before = policy_at_store(direct)
    for delete in (
        lambda there: POLICY.delete(policy_id, {**policy, **there}, direct.context),
        lambda there: USER.delete(direct.name, {**user, **there}, direct.context),
    ):
        asked = itertools.count(1)
        with proxy.in_front_of(direct.running.iam_endpoint) as double, suppress(StoreError):
            double.misbehave(fault, when=lambda request: request.action == action and next(asked) == number)  # noqa: B023
            delete({"connection": direct.connection(iamEndpoint=double.url)})
        assert (policy_at_store(direct), direct.key_ids()) == (before, {first["accessKeyId"]})


def test_a_second_state_that_goes_takes_neither_key_nor_policy_nor_user_along(direct: Direct, first: Values) -> None:
    _, user = direct.make(USER, user_of(direct))
    policy_id, policy = direct.make(POLICY, under(direct, "x/*", "y/*"))
    _, ring = direct.make(RING, ring_of(direct))
    before = policy_at_store(direct)
    RING.delete(direct.name, {**ring, "retireConfirmed": True}, direct.context)
    POLICY.delete(policy_id, policy, direct.context)
    assert "the policy synapse-media is kept as long as" in direct.said[-1]
    with pytest.raises(StoreError, match=r"which this state does not know.*pulumi state delete") as kept:
        USER.delete(direct.name, user, direct.context)
    assert first["accessKeyId"] in str(kept.value)
    assert str(kept.value).endswith(f"pulumi state delete '{URN}' --stack tests")
    assert (policy_at_store(direct), direct.key_ids()) == (before, {first["accessKeyId"]})
    # What the message says: the key is deleted by somebody who knows that nobody uses it.
    direct.iam.delete_access_key(UserName=direct.name, AccessKeyId=first["accessKeyId"])
    USER.delete(direct.name, user, direct.context)
    assert direct.name not in user_names(direct.iam)


def test_a_key_that_an_interrupted_run_made_goes_with_the_user(direct: Direct) -> None:
    """The ring never got into the state; its journal shows that the key was never handed out."""
    _, user = direct.make(USER, user_of(direct))
    policy_id, policy = direct.make(POLICY, policy_of(direct))
    direct.make(RING, ring_of(direct))
    POLICY.delete(policy_id, policy, direct.context)
    USER.delete(direct.name, user, direct.context)
    assert direct.name not in user_names(direct.iam)


READ, PUT = allow("s3:GetObject", on="arn:aws:s3:::b/*"), allow("s3:PutObject", on="arn:aws:s3:::b/*")
NO = {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}


@pytest.mark.parametrize(
    ("policy", "former", "all_of_it"),
    [
        ([READ], [READ], True),
        ([READ, PUT], [READ], True),
        ([READ], [READ, PUT], False),
        ([allow("s3:*", on="*")], [READ, PUT], True),
        ([allow("s3:Get*", on="arn:aws:s3:::b/x/*")], [READ], False),
        ([READ, NO], [READ], False),
        ([READ], [READ, NO], True),
        ([{**READ, "Condition": {"Bool": {"aws:SecureTransport": "true"}}}], [READ], False),
        ([READ], [{**READ, "Condition": {"Bool": {"aws:SecureTransport": "true"}}}], True),
        ([READ], [{"Effect": "Allow", "NotAction": "s3:DeleteObject", "Resource": "*"}], False),
        ([READ], [], True),
    ],
)
def test_what_a_policy_allows_beside_another(policy: list[Values], former: list[Values], all_of_it: bool) -> None:
    assert allows_all(json.dumps({"Statement": policy}), {"Statement": former}) is all_of_it


def test_a_user_of_a_homeserver_that_was_renamed_is_told_from_another_stacks(direct: Direct) -> None:
    """Its path is that of the first name, which only the state knew that was lost."""
    wanted = user_of(direct)
    *_, project, stack, homeserver, bucket = wanted["path"].strip("/").split("/")
    first = f"/synapse-media/{project}/{stack}/first.{homeserver}/{bucket}/"
    direct.make(USER, {**wanted, "path": first, "mark": {**wanted["mark"], "path": first}})
    with pytest.raises(StoreError, match=f"when its homeserver was first.{homeserver}: set renamed_from to that"):
        direct.make(USER, wanted)
    # The way out.
    _, outputs = direct.make(USER, {**wanted, "mark": {**wanted["mark"], "formerPaths": [first]}})
    assert outputs["path"] == first
    other = wanted["path"].replace(f"/{stack}/", "/another/")
    with pytest.raises(StoreError) as refused:
        direct.make(USER, {**wanted, "path": other, "mark": {**wanted["mark"], "path": other}})
    assert "renamed_from" not in str(refused.value)


def test_a_user_that_was_marked_by_another_is_left_in_peace(direct: Direct) -> None:
    _, outputs = direct.make(USER, user_of(direct))
    direct.iam.update_user(UserName=direct.name, NewPath="/synapse-media/synapse-media/other/matrix.example.com/b/")
    found = USER.read(direct.name, user_of(direct), outputs, direct.context)
    assert found is not None
    assert USER.diff(found.inputs, user_of(direct)).changed == ("movedTo",)
    with pytest.raises(StoreError, match="is marked as another stack's"):
        USER.update(direct.name, found.outputs, user_of(direct), direct.context)
    USER.delete(direct.name, found.outputs, Context(direct.said.append, user_of(direct)))
    assert direct.name in user_names(direct.iam)
    assert "It is not deleted." in direct.said[-1]


def test_a_user_that_was_moved_away_is_drift_and_put_back(direct: Direct) -> None:
    inputs = user_of(direct)
    _, outputs = direct.make(USER, inputs)
    direct.iam.update_user(UserName=direct.name, NewPath="/")
    found = USER.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert USER.diff(found.inputs, inputs).changed == ("movedTo",)
    mended = USER.update(direct.name, found.outputs, inputs, direct.context)
    assert direct.iam.get_user(UserName=direct.name)["User"]["Path"] == inputs["path"]
    again = USER.read(direct.name, inputs, mended, direct.context)
    assert again is not None
    assert USER.diff(again.inputs, inputs).changed == ()


def test_a_store_that_can_not_move_a_user_says_so(direct: Direct) -> None:
    inputs = user_of(direct)
    _, outputs = direct.make(USER, inputs)
    direct.iam.update_user(UserName=direct.name, NewPath="/")
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 400, "InvalidAction", "no such operation"),
            when=lambda request: request.action == "UpdateUser",
        )
        there = {"connection": direct.connection(iamEndpoint=double.url)}
        with pytest.raises(StoreError, match="Move it back at the provider"):
            USER.update(direct.name, {**outputs, **there}, {**inputs, **there}, direct.context)


def test_a_user_of_the_same_name_at_another_endpoint_is_not_taken(direct: Direct) -> None:
    inputs = user_of(direct)
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    nowhere = direct.connection(iamEndpoint="http://127.0.0.1:9")
    old = {**inputs, "connection": nowhere, "arn": "arn:x", "adopted": False}
    with pytest.raises(StoreError, match="it is not this stack's"):
        USER.update(direct.name, old, inputs, direct.context)
    assert direct.iam.get_user(UserName=direct.name)["User"]["Path"] == "/web/"


def test_a_path_of_an_earlier_release_is_no_change(direct: Direct) -> None:
    old = {"userName": direct.name, "path": LEGACY, "connection": direct.connection(), "adopt": False}
    assert USER.diff(old, user_of(direct)).changed == ()
    shared = {"userName": direct.name, "connection": direct.connection()}
    assert (
        POLICY.diff(
            {**shared, "policyName": "p", "policy": "{}"}, {**policy_of(direct), "policyName": "p", "policy": "{}"}
        ).changed
        == ()
    )
    ring = {"active": "a", "slots": ["a"], "retireConfirmed": False, **shared}
    assert RING.diff(ring, ring_of(direct)).changed == ()


# ---- what a user of ours may do beside its policy


@pytest.fixture
def with_key(direct: Direct) -> tuple[Values, Values]:
    """Inputs and outputs of a ring on a user of ours."""
    direct.make(USER, user_of(direct))
    direct.make(POLICY, policy_of(direct))
    inputs = ring_of(direct)
    return inputs, RING.create(inputs, direct.context)[1]


def test_a_second_inline_policy_is_drift_and_taken_away(direct: Direct, with_key: tuple[Values, Values]) -> None:
    inputs, outputs = with_key
    found = RING.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert RING.diff(found.inputs, inputs).changed == (), "the journal and the store's own policy are none"
    direct.policy(allow("s3:*"), name="wider")
    found = RING.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert found.inputs["otherPolicies"] == ["wider"]
    assert RING.diff(found.inputs, inputs).changed == ("otherPolicies",)
    mended = RING.update(direct.name, found.outputs, inputs, direct.context)
    assert direct.iam.list_user_policies(UserName=direct.name)["PolicyNames"] == [POLICY_NAME]
    assert "otherPolicies" not in mended
    again = RING.read(direct.name, inputs, mended, direct.context)
    assert again is not None
    assert RING.diff(again.inputs, inputs).changed == ()


def test_a_second_policy_of_a_user_that_was_taken_over_is_said_and_left(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    direct.policy(allow("s3:*"), name="of-old")
    inputs = ring_of(direct, adopt=True)
    _, outputs = RING.create(inputs, direct.context)
    for program in (inputs, {name: value for name, value in inputs.items() if name not in ("mark", "adopt")}):
        direct.said.clear()
        found = RING.read(direct.name, program, outputs, direct.context)
        assert found is not None
        assert RING.diff(found.inputs, program).changed == ()
        assert any(
            "has more permissions than this store's policy grants: inline policy of-old" in said for said in direct.said
        )


class Attached:
    """A double of an IAM with managed policies and groups, before one that has none."""

    def __init__(self) -> None:
        self.attached, self.groups = {"arn:aws:iam::aws:policy/AmazonS3FullAccess"}, {"admins"}

    def answer(self, request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        listed = {
            "ListAttachedUserPolicies": ("AttachedPolicies", "PolicyArn", self.attached),
            "ListGroupsForUser": ("Groups", "GroupName", self.groups),
        }
        if request.action in listed:
            part, name, found = listed[request.action]
            members = "".join(f"<member><{name}>{one}</{name}></member>" for one in sorted(found))
            inner = f"<{request.action}Result><{part}>{members}</{part}></{request.action}Result>"
        elif request.action == "DetachUserPolicy":
            self.attached.clear()
            inner = ""
        elif request.action == "RemoveUserFromGroup":
            self.groups.clear()
            inner = ""
        else:
            return upstream.ask(request)
        body = f"<{request.action}Response>{inner}</{request.action}Response>".encode()
        return proxy.Answer(200, (("Content-Type", "text/xml"),), body)


def test_an_attached_policy_and_a_group_are_drift_and_taken_away(
    direct: Direct, with_key: tuple[Values, Values]
) -> None:
    inputs, outputs = with_key
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        attached = Attached()
        double.misbehave(attached.answer)
        there = {"connection": direct.connection(iamEndpoint=double.url)}
        inputs, outputs = {**inputs, **there}, {**outputs, **there}
        found = RING.read(direct.name, inputs, outputs, direct.context)
        assert found is not None
        assert RING.diff(found.inputs, inputs).changed == ("attachedPolicies", "groups")
        RING.update(direct.name, found.outputs, inputs, direct.context)
    assert (attached.attached, attached.groups) == (set(), set())


def test_what_this_credential_may_not_look_at_is_said(direct: Direct, with_key: tuple[Values, Values]) -> None:
    inputs, outputs = with_key
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "no"),
            when=lambda request: request.action == "ListGroupsForUser",
        )
        there = {"connection": direct.connection(iamEndpoint=double.url)}
        assert RING.read(direct.name, {**inputs, **there}, {**outputs, **there}, direct.context) is not None
    assert any("its other permissions are unknown: list_groups_for_user" in said for said in direct.said)
