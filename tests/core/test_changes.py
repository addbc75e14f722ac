"""A preview as text, and its dangers. The steps have the form of the engine's `preview --json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components import policies
from synapse_media.allow import Word
from synapse_media.cli import reviewed
from synapse_media.errors import SynapseMediaError
from synapse_media.guards import changes
from synapse_media.guards.changes import Change, of_preview
from synapse_media.guards.danger import Danger
from synapse_media.methods import METHODS

NAME = "matrix.example.com"
MODULE = "synapse-s3-storage-provider"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def urn(kind: str, name: str = NAME) -> str:
    return f"urn:pulumi:s::synapse-media::synapse-media:store:S3Compatible${kind}::{name}"


def step(
    op: str,
    kind: str,
    old: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
    *,
    diff: tuple[str, ...] | None = None,
    **state: Any,
) -> dict[str, Any]:
    """One step; `diff` are the inputs in its detailed diff, by default those that differ."""
    kind = kind if ":" in kind else f"s3store:index:{kind}"
    found: dict[str, Any] = {"op": op, "urn": urn(kind), "detailedDiff": None}
    if old is not None:
        found["oldState"] = {"urn": urn(kind), "type": kind, "inputs": dict(old), "outputs": dict(old), **state}
    if new is not None:
        found["newState"] = {"urn": urn(kind), "type": kind, "inputs": dict(new)}
    if diff is None and old is not None and new is not None:
        diff = tuple(name for name in sorted({*old, *new}) if old.get(name) != new.get(name))
    if diff:
        found["detailedDiff"] = {name: {"kind": "update", "inputDiff": True} for name in diff}
    return found


def preview(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    stack = {"op": "same", "urn": f"urn:pulumi:s::synapse-media::pulumi:pulumi:Stack::{NAME}", "oldState": {}}
    component = {"op": "create", "urn": f"urn:pulumi:s::synapse-media::synapse-media:store:S3Compatible::{NAME}"}
    provider = {"op": "create", "urn": "urn:pulumi:s::synapse-media::pulumi:providers:s3store::default"}
    return {"steps": [stack, provider, component, *steps], **more}


def one(*steps: dict[str, Any]) -> Change:
    [change] = of_preview(preview(*steps))
    return change


def words(*steps: dict[str, Any]) -> set[str]:
    """What `allow` would have to name."""
    return {danger.word for change in of_preview(preview(*steps)) for danger in change.dangers}


def test_of_an_object_the_entries_that_change_are_shown() -> None:
    was, will = {"get": "allowed", "delete": "refused"}, {"get": "allowed", "delete": "allowed", "list": "allowed"}
    found = one(step("update", "Proof", {"expected": was}, {"expected": will}))
    assert found.details == ('expected.delete: "refused" -> "allowed"', 'expected.list: nothing -> "allowed"')
    # What is made or taken away as a whole is shown so, and what differs by nothing but empty entries.
    for before, after, shown in (
        ({}, {"a": 1}, 'tags: nothing -> {"a": 1}'),
        ({"a": 1, "b": None}, {"a": 1}, 'tags: {"a": 1} -> {"a": 1}'),
    ):
        assert one(step("update", "Bucket", {"tags": before}, {"tags": after})).details == (shown,)


BUCKET = {"bucket": "media", "versioning": True, "publicAccessBlock": True, "acl": "private", "policy": ""}


def policy(*statements: Mapping[str, Any]) -> dict[str, Any]:
    return {"userName": "u", "policyName": "p", "policy": json.dumps({"Version": "x", "Statement": list(statements)})}


def key_policy(method: str = MODULE, prefix: str = "", access: Any = "least") -> dict[str, Any]:
    return policy(*policies.key_policy("media", METHODS[method], access, prefix)["Statement"])


def proof(method: str = MODULE, **more: str) -> dict[str, Any]:
    inputs = {"method": method, **more}
    return step("same", "Proof", inputs, inputs)


# ---- in words


def test_no_change_is_called_so() -> None:
    assert of_preview(preview()) == ()
    assert of_preview({}) == ()
    assert of_preview(preview(step("same", "Bucket", BUCKET, BUCKET), step("read", "Bucket", BUCKET))) == ()
    assert changes.in_words(()) == "no changes"


def test_a_preview_from_nothing_names_what_is_made() -> None:
    found = of_preview(
        preview(
            step("create", "Bucket", None, BUCKET),
            step("create", "KeyRing", None, {"userName": "u", "slots": ["a"]}),
            step("create", "UserPolicy", None, key_policy()),
        )
    )
    assert changes.in_words(found).splitlines() == [
        f"create Bucket of {NAME}",
        "    name: media",
        f"create KeyRing of {NAME}",
        "    name: u",
        "    a key is made for slot a",
        f"create UserPolicy of {NAME}",
        "    name: u",
        "    + allow s3:ListBucket on arn:aws:s3:::media",
        "    + allow s3:AbortMultipartUpload, s3:GetObject, s3:PutObject on arn:aws:s3:::media/*",
    ]
    assert not any(change.dangers for change in found)


def test_an_update_says_what_was_and_what_will_be() -> None:
    change = one(step("update", "Bucket", {**BUCKET, "noncurrentDays": 30}, {**BUCKET, "noncurrentDays": 90}))
    assert (change.verb, change.store, change.kind) == ("update", NAME, "Bucket")
    assert change.details == ("noncurrentDays: 30 -> 90",)
    change = one(step("update", "Bucket", {**BUCKET, "manage": []}, {**BUCKET, "manage": ["policy"]}))
    assert change.details == ('manage: nothing -> ["policy"]',)


def test_what_is_only_known_later_is_called_so() -> None:
    change = one(step("update", "Proof", {"accessKeyId": "AKIA"}, {"accessKeyId": UNKNOWN}))
    assert change.details == ('accessKeyId: "AKIA" -> what is known later',)
    assert UNKNOWN not in changes.in_words([change])


def test_a_policy_is_told_statement_by_statement() -> None:
    change = one(step("update", "UserPolicy", key_policy(), key_policy("goofys")))
    assert change.details == (
        "- allow s3:ListBucket on arn:aws:s3:::media",
        "- allow s3:AbortMultipartUpload, s3:GetObject, s3:PutObject on arn:aws:s3:::media/*",
        "+ allow s3:ListBucket, s3:ListBucketMultipartUploads on arn:aws:s3:::media",
        "+ allow s3:AbortMultipartUpload, s3:DeleteObject, s3:GetObject, s3:PutObject on arn:aws:s3:::media/*",
    )


def test_a_deny_and_its_condition_are_told() -> None:
    told = changes.statements(policies.to_json(policies.tls_only("media")))
    assert told == (
        'deny to "*" s3:* on arn:aws:s3:::media, arn:aws:s3:::media/* when {"Bool": {"aws:SecureTransport": "false"}}',
    )
    document = json.dumps({"Statement": {"Effect": "Allow", "NotAction": "iam:*", "NotResource": ["a", "b"]}})
    assert changes.statements(document) == ("allow all but iam:* on all but a, b",)


def test_a_key_made_and_a_key_retired_are_told() -> None:
    change = one(step("update", "KeyRing", {"slots": ["a"]}, {"slots": ["a", "b"]}))
    assert change.details == ('slots: ["a"] -> ["a", "b"]', "a key is made for slot b")
    change = one(step("update", "KeyRing", {"slots": ["a", "b"]}, {"slots": ["b"]}))
    assert "the key of slot a is retired" in change.details


def test_what_an_earlier_run_left_is_called_so() -> None:
    assert one(step("update", "Bucket", BUCKET, BUCKET)).details == ("finishes what an earlier run left unfinished",)


@pytest.mark.parametrize(
    "order",
    [
        ("create-replacement", "replace", "delete-replaced"),
        ("delete-replaced", "replace", "create-replacement"),
    ],
)
def test_a_replacement_is_one_change_in_whatever_order(order: tuple[str, ...]) -> None:
    new = {**BUCKET, "bucket": "other"}
    steps = {
        "create-replacement": step("create-replacement", "Bucket", BUCKET, new),
        "replace": step("replace", "Bucket", BUCKET, new),
        "delete-replaced": step("delete-replaced", "Bucket", BUCKET),
    }
    change = one(*(steps[op] for op in order))
    assert (change.verb, change.details) == ("replace", ('bucket: "media" -> "other"',))
    assert [danger.word for danger in change.dangers] == ["replace-bucket"]


def test_what_an_earlier_replacement_left_to_delete_hides_no_replacement() -> None:
    new = {**BUCKET, "bucket": "other"}
    steps = (step("delete", "Bucket", {**BUCKET, "bucket": "older"}), step("replace", "Bucket", BUCKET, new))
    assert words(*steps) == {"replace-bucket"}


def test_a_policy_that_is_deleted_first_and_made_anew_is_not_called_narrower() -> None:
    old, new = key_policy(), {**key_policy(), "policyName": "other"}
    steps = (
        step("delete-replaced", "UserPolicy", old),
        step("replace", "UserPolicy", old, new),
        step("create-replacement", "UserPolicy", old, new),
    )
    assert words(proof(), *steps) == set()


def test_an_import_is_told() -> None:
    assert one(step("import", "Bucket", None, BUCKET)).verb == "take over"


def test_stores_are_kept_apart() -> None:
    other = step("create", "Bucket", None, BUCKET)
    other["urn"] = urn("s3store:index:Bucket", "other.example.com")
    assert [change.store for change in of_preview(preview(step("create", "Bucket", None, BUCKET), other))] == [
        NAME,
        "other.example.com",
    ]


def test_warnings_are_told_once_and_last() -> None:
    diagnostics = [
        {"severity": "warning", "message": "warning: user u has the key AKIA\n"},
        {"severity": "warning", "message": "warning: user u has the key AKIA\n"},
        {"severity": "info", "message": "noise"},
        {"severity": "warning"},
    ]
    found = changes.warnings(preview(diagnostics=diagnostics))
    assert found == ("user u has the key AKIA", "")
    assert changes.in_words((), found[:1]) == "no changes\nnote: user u has the key AKIA"
    assert changes.warnings({"diagnostics": None}) == ()


# ---- secrets


@pytest.mark.parametrize("verb", ["create", "update", "replace", "delete"])
def test_secrets_are_never_shown(verb: str) -> None:
    """The engine shows "[secret]"; were it to show one, it would not get further than this."""
    old = {"userName": "u", "secretAccessKey": "hunter2", "secrets": {"a": "hunter2"}, "connection": {"x": "hunter2"}}
    new = {**old, "secretAccessKey": "hunter3", "secrets": {"a": "hunter3"}, "connection": {"x": "hunter3"}}
    for kind in ("Proof", "KeyRing"):
        change = one(step(verb, kind, None if verb == "create" else old, None if verb == "delete" else new))
        told = changes.in_words([change]) + json.dumps(changes.to_json([change], (), ()))
        assert "hunter" not in told
        assert ("secretAccessKey changes" in told) == (verb in ("update", "replace"))


# ---- dangers

SPACE = "digitalocean:index/spacesBucket:SpacesBucket"
ACL = "aws:s3/bucketAcl:BucketAcl"
VERSIONS = "disable-versioning"


def grants(*each: str) -> dict[str, Any]:
    pairs = (one.partition(":")[::2] for one in each)
    return {"slots": ["a"], "grants": [{"bucket": bucket, "permission": permission} for bucket, permission in pairs]}


def named(input_name: str, *names: str) -> dict[str, Any]:
    return {"slots": ["a"], input_name: list(names)}


def switches(*names: str) -> dict[str, Any]:
    """As Garage has a key's rights on a bucket."""
    return {"slots": ["a"], "permissions": {name: name in names for name in ("read", "write", "owner")}}


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (step("replace", "Bucket", BUCKET, {**BUCKET, "bucket": "x"}), "replace-bucket"),
        (step("delete", "Bucket", BUCKET), "delete-bucket"),
        (step("delete", "aws:s3/bucket:Bucket", {"bucket": "media"}), "delete-bucket"),
        (step("delete", SPACE, {"name": "media"}), "delete-bucket"),
        (step("replace", SPACE, {"name": "media"}, {"name": "other"}), "replace-bucket"),
        (step("update", SPACE, {"versioning": {"enabled": True}}, {"versioning": {"enabled": False}}), VERSIONS),
        (step("update", SPACE, {"versioning": {"enabled": True}}, {}), VERSIONS),
        (step("update", "B2Bucket", {"private": True}, {"private": False}), "public-bucket"),
        (step("update", ACL, {"acl": "private"}, {"acl": "public-read"}), "public-bucket"),
        (step("create", ACL, None, {"acl": "public-read"}), "public-bucket"),
        (step("update", "SpacesKeyRing", grants("media:read"), grants("media:readwrite")), "widen-policy"),
        (step("update", "SpacesKeyRing", grants("media:read"), grants("media:read", "other:read")), "widen-policy"),
        (step("update", "SpacesKeyRing", grants("media:readwrite"), grants(":fullaccess")), "widen-policy"),
        (step("update", "SpacesKeyRing", grants("media:readwrite"), grants("media:read")), "narrow-policy"),
        (
            step("update", "GarageKeyRing", switches("read", "write"), switches("read", "write", "owner")),
            "widen-policy",
        ),
        (step("update", "GarageKeyRing", switches("read", "write"), switches("read")), "narrow-policy"),
        (
            step("update", "GarageKeyRing", switches("read", "write"), {"slots": ["a"], "permissions": {}}),
            "narrow-policy",
        ),
        (step("update", "B2KeyRing", named("capabilities", "a"), named("capabilities", "a", "b")), "widen-policy"),
        (
            step("update", "B2KeyRing", named("capabilities", "a"), {"capabilities": UNKNOWN, "slots": ["a"]}),
            "widen-policy",
        ),
        (step("update", "StorjKeyRing", named("permissions", "a"), named("permissions", "b")), "widen-policy"),
        (step("replace", "aws:iam/role:Role", {"name": "old"}, {"name": "new"}), "retire-key"),
        (step("replace", "aws:iam/user:User", {"name": "old"}, {"name": "new"}), "retire-key"),
        (step("delete", "aws:iam/role:Role", {"name": "old"}), "retire-key"),
        (step("delete", "aws:iam/instanceProfile:InstanceProfile", {"name": "old"}), "retire-key"),
        (step("update", "Bucket", BUCKET, {**BUCKET, "versioning": False}), "disable-versioning"),
        (step("update", "Bucket", BUCKET, {**BUCKET, "publicAccessBlock": False}), "public-bucket"),
        (step("update", "Bucket", BUCKET, {**BUCKET, "acl": "public-read"}), "public-bucket"),
        (step("update", "KeyRing", {"slots": ["a", "b"]}, {"slots": ["b"]}), "retire-key"),
        (step("replace", "KeyRing", {"slots": ["a"]}, {"slots": ["a"], "userName": "x"}), "retire-key"),
        (step("update", "UserPolicy", key_policy(), key_policy("goofys")), "widen-policy"),
    ],
)
def test_a_danger_needs_its_own_word(found: dict[str, Any], word: str) -> None:
    listed = of_preview(preview(found))
    assert words(found) == {word}
    assert len(changes.refused(listed, [])) == 1
    assert changes.refused(listed, [f"{NAME}/{word}"]) == ()
    assert len(changes.refused(listed, [f"other.example.com/{word}", word, f"{NAME}/other"])) == 1
    [(change, danger)] = changes.refused(listed, [])
    assert f"{NAME}/{word}" in changes.refusal([(change, danger)], "stacks/Pulumi.s.yaml")
    assert f"DANGER: {danger.why}" in changes.in_words(listed)
    assert "None" not in danger.why
    assert changes.to_json(listed, ["w"], [(change, danger)])["refused"] == [f"{NAME}/{word}"]


PUBLIC = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::media/*"}


def bucket_with(*statements: Mapping[str, Any]) -> dict[str, Any]:
    return {**BUCKET, "policy": json.dumps({"Statement": list(statements)})}


@pytest.mark.parametrize(
    "principal",
    ["*", {"AWS": "*"}, {"AWS": ["*"]}, {"AWS": ["arn:aws:iam::1:user/u", "*"]}, {"AWS": "1", "CanonicalUser": ["*"]}],
)
def test_a_bucket_policy_that_lets_everybody_in_is_a_danger(principal: Any) -> None:
    opened = bucket_with({**PUBLIC, "Principal": principal})
    assert words(step("update", "Bucket", BUCKET, opened)) == {"public-bucket"}
    assert words(step("update", "Bucket", opened, BUCKET)) == set()
    assert words(step("update", "Bucket", opened, {**opened, "noncurrentDays": 3})) == set()
    for op, old in (("create", None), ("update", {"policy": ""})):
        assert words(step(op, "aws:s3/bucketPolicy:BucketPolicy", old, opened)) == {"public-bucket"}


def test_a_bucket_policy_that_lets_in_all_but_a_few_is_a_danger() -> None:
    opened = {name: value for name, value in PUBLIC.items() if name != "Principal"}
    found = step("update", "Bucket", BUCKET, bucket_with({**opened, "NotPrincipal": {"AWS": "1"}}))
    assert words(found) == {"public-bucket"}
    assert '+ allow to all but {"AWS": "1"} s3:GetObject' in changes.in_words(of_preview(preview(found)))


def test_a_tls_only_policy_is_no_danger() -> None:
    closed = {**BUCKET, "policy": policies.to_json(policies.tls_only("media"))}
    assert words(step("update", "Bucket", BUCKET, closed)) == set()
    assert words(step("update", "Bucket", closed, BUCKET)) == set()
    only_one = {**PUBLIC, "Principal": {"AWS": "arn:aws:iam::1:user/u"}}
    assert words(step("update", "Bucket", BUCKET, bucket_with(only_one))) == set()


@pytest.mark.parametrize(
    "found",
    [
        step("create", "Bucket", None, BUCKET),
        step("update", "Bucket", {**BUCKET, "versioning": False}, BUCKET),
        step("update", "Bucket", BUCKET, {**BUCKET, "abortDays": 3}),
        step("update", "KeyRing", {"slots": ["a"], "active": "a"}, {"slots": ["a", "b"], "active": "b"}),
        step("update", "UserPolicy", key_policy("goofys"), key_policy()),
        step("update", SPACE, {"versioning": {"enabled": True}}, {"versioning": {"enabled": True}, "region": "x"}),
        step("update", SPACE, {"versioning": {"enabled": False}}, {"versioning": {"enabled": True}}),
        step("update", "B2Bucket", {"private": False}, {"private": True}),
        step("update", ACL, {"acl": "public-read"}, {"acl": "private"}),
        step("update", ACL, {"acl": "public-read"}, {"acl": "public-read", "bucket": "x"}),
        step("update", "SpacesKeyRing", grants("media:read"), {**grants("media:read"), "active": "b"}),
        step("create", "SpacesKeyRing", None, grants("media:readwrite")),
        step("update", "GarageKeyRing", {"slots": ["a"]}, switches("read", "write")),
        step("update", "GarageKeyRing", switches("read", "write"), {"slots": ["a"]}),
        step("update", "GarageKeyRing", {"slots": ["a"], "permissions": {"read": True}}, switches("read")),
        # Of a key that is there these take nothing: they are of the next one.
        step("update", "B2KeyRing", named("capabilities", "a", "b"), named("capabilities", "a")),
        step("update", "StorjKeyRing", named("permissions", "a", "b"), named("permissions", "a")),
        step("create", "aws:iam/role:Role", None, {"name": "new"}),
        step("update", "aws:iam/role:Role", {"name": "u"}, {"name": "u", "tags": {"a": "b"}}),
        step("create", "UserPolicy", None, key_policy(access="full")),
    ],
)
def test_what_is_no_danger(found: dict[str, Any]) -> None:
    assert words(found) == set()


@pytest.mark.parametrize("retained", [False, True])
def test_a_bucket_that_goes_takes_no_key_and_policy_with_it_unasked(retained: bool) -> None:
    own = (
        step("delete", "UserPolicy", key_policy()),
        step("delete", "KeyRing", {"slots": ["a"]}),
        step("delete", "User", {"userName": "u"}),
    )
    bucket = step("delete", "Bucket", BUCKET, retainOnDelete=retained)
    fate = "retain-bucket" if retained else "delete-bucket"
    assert words(bucket, *own) == {fate, "retire-key", "narrow-policy"}


def test_keys_and_policies_do_not_go_unasked_while_their_bucket_stays() -> None:
    assert words(step("delete", "KeyRing", {"slots": ["a"]})) == {"retire-key"}
    assert words(step("delete", "UserPolicy", key_policy())) == {"narrow-policy"}


def test_a_retained_bucket_is_given_up_by_its_word() -> None:
    change = one(step("delete", "Bucket", BUCKET, retainOnDelete=True))
    assert change.verb == "give up"
    assert [danger.word for danger in change.dangers] == ["retain-bucket"]
    assert "it is left where it is" in change.details


def test_a_bucket_that_stays_the_stores_is_not_deleted_as_its_former_resource() -> None:
    """As where `adopt: true` has another plugin take over what the vendor's made."""
    taken_over = step("create", "Bucket", None, BUCKET)
    assert words(taken_over, step("delete", "aws:s3/bucket:Bucket", {"bucket": "media"})) == {"retain-bucket"}
    assert words(taken_over, step("delete", "aws:s3/bucket:Bucket", {"bucket": "other"})) == {"delete-bucket"}


def test_what_is_known_of_a_store_is_told_once() -> None:
    of_store = Change("change", NAME, "store", (), (Danger(Word.RETIRE_KEY, "the key goes"),))
    steps = of_preview(preview(step("delete", "KeyRing", {"slots": ["a"]})))
    told = changes.combined([of_store], steps)
    assert [danger.why for change in told for danger in change.dangers] == ["the key goes"]


def test_the_settings_of_a_bucket_that_goes_are_not_told_as_dangers_of_their_own() -> None:
    kind = "aws:s3/bucketVersioning:BucketVersioning"
    setting = step("delete", kind, {"bucket": "media"}, deletedWith=urn("aws:s3/bucket:Bucket"))
    block = step("delete", "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", {"blockPublicAcls": True})
    block["oldState"]["deletedWith"] = urn("aws:s3/bucket:Bucket")
    bucket = step("delete", "aws:s3/bucket:Bucket", {"bucket": "media"})
    assert words(bucket, setting, block) == {"delete-bucket"}
    retained = step("delete", "aws:s3/bucket:Bucket", {"bucket": "media"}, retainOnDelete=True)
    assert words(retained, setting, block) == {"retain-bucket"}
    assert words(setting, block) == {"disable-versioning", "public-bucket"}


# ---- drift


def test_mending_what_somebody_widened_is_no_danger() -> None:
    by_hand = policy({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    steps = (
        step("refresh", "UserPolicy", key_policy(), by_hand),
        step("update", "UserPolicy", by_hand, key_policy()),
    )
    change = one(*steps)
    assert change.dangers == ()
    assert "- allow s3:* on *" in change.details, "what somebody did is told all the same"


def test_mending_what_somebody_narrowed_is_no_danger() -> None:
    by_hand = policy({"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::media"})
    steps = (
        step("refresh", "UserPolicy", key_policy(), by_hand),
        proof(),
        step("update", "UserPolicy", by_hand, key_policy()),
    )
    assert words(*steps) == set()


def test_a_change_beside_the_mending_is_one() -> None:
    by_hand = policy({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    steps = (
        step("refresh", "UserPolicy", key_policy(), by_hand),
        step("update", "UserPolicy", by_hand, key_policy("goofys")),
    )
    assert words(*steps) == {"widen-policy"}


def test_a_key_made_anew_for_one_deleted_by_hand_is_no_danger() -> None:
    steps = (
        step("refresh", "KeyRing", {"slots": ["a"]}, {"slots": []}),
        step("update", "KeyRing", {"slots": []}, {"slots": ["a"]}),
    )
    assert words(*steps) == set()


AWS = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
AWS_POLICY = "aws:iam/userPolicy:UserPolicy"
NOTED = {"__defaults": []}


def vendors(kind: str, inputs: Mapping[str, Any], found: Mapping[str, Any], *paths: str) -> dict[str, Any]:
    """An update as a vendor's plugin has it after a refresh: what was found is in the outputs alone."""
    made = step("update", kind, {**NOTED, **inputs}, {**NOTED, **inputs}, diff=paths)
    made["oldState"]["outputs"] = {**inputs, **found, "tagsAll": {"a": "b"}}
    made["detailedDiff"] = {path: {"kind": "update", "inputDiff": False} for path in (*paths, "tagsAll.a")}
    return made


def aws_rule(**more: Any) -> dict[str, Any]:
    kept = {"noncurrentDays": 30}
    rule = {"id": "synapse-media", "status": "Enabled", "filter": {"prefix": ""}, "noncurrentVersionExpiration": kept}
    return {**rule, **more}


def spaces_rule(**more: Any) -> dict[str, Any]:
    return {"id": "synapse-media", "enabled": True, "prefix": "", "noncurrentVersionExpiration": {"days": 30}, **more}


def test_a_rule_that_expires_all_media_is_told_wherever_it_was_found() -> None:
    gone = {"id": "cleaner", "status": "Enabled", "filter": {"prefix": None}, "expiration": {"days": 1}}
    found = {"rules": [aws_rule(expiration=None), {**NOTED, **gone}]}
    change = one(vendors(AWS, {"rules": [{**NOTED, **aws_rule()}]}, found, "rules[1]"))
    assert change.dangers == ()
    assert change.details == (
        'rules[1]: {"expiration": {"days": 1}, "id": "cleaner", "status": "Enabled"} -> nothing',
        "found at the store: a lifecycle rule deletes media by age: cleaner expires all media after 1 day",
    )
    found = {"lifecycleRules": [spaces_rule(expiration={"days": 3}, prefix="media/")]}
    path = "lifecycleRules[0].expiration.days"
    change = one(vendors(SPACE, {"name": "m", "lifecycleRules": [spaces_rule()]}, found, path))
    assert change.dangers == ()
    assert change.details[0] == f"{path}: 3 -> nothing"
    assert change.details[1].endswith("synapse-media expires what is under media/ after 3 days")
    ours = {**BUCKET, "expiringRules": ["cleaner"]}
    told = of_preview(preview(step("refresh", "Bucket", BUCKET, ours), step("update", "Bucket", ours, BUCKET)))
    assert "found at the store: a lifecycle rule deletes media by age: cleaner" in told[0].details


def test_a_widened_policy_of_a_vendors_user_is_told_statement_by_statement() -> None:
    by_hand = policy({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})["policy"]
    change = one(vendors(AWS_POLICY, {"user": "u", "policy": key_policy()["policy"]}, {"policy": by_hand}, "policy"))
    assert change.dangers == ()
    assert "- allow s3:* on *" in change.details
    assert "found at the store: the key may do more than before: s3:*" in change.details


def test_a_vendors_bucket_policy_opened_to_everybody_is_told() -> None:
    closed = policies.to_json(policies.tls_only("media"))
    kind = "aws:s3/bucketPolicy:BucketPolicy"
    opened = json.dumps({"Statement": [PUBLIC]})
    change = one(vendors(kind, {"bucket": "media", "policy": closed}, {"policy": opened}, "policy"))
    assert change.dangers == ()
    [found] = [line for line in change.details if line.startswith("found at the store")]
    assert 'lets everybody in: allow to "*" s3:GetObject' in found
    # Anything else in a document is shown as it is.
    odd = json.dumps({"Id": "by hand", **json.loads(closed)})
    change = one(vendors(kind, {"bucket": "media", "policy": closed}, {"policy": odd}, "policy"))
    assert len(change.details) == 1
    assert "by hand" in change.details[0]


def test_a_role_that_others_may_take_on_is_told() -> None:
    trust = policies.to_json(policies.for_service("ec2.amazonaws.com"))
    opened = trust.replace('{"Service":"ec2.amazonaws.com"}', '{"AWS":"*"}')
    inputs = {"name": "r", "assumeRolePolicy": trust}
    change = one(vendors("aws:iam/role:Role", inputs, {"assumeRolePolicy": opened}, "assumeRolePolicy"))
    assert change.dangers == ()
    assert 'found at the store: the role may be taken on by others: allow to {"AWS": "*"} sts:AssumeRole' in " ".join(
        change.details
    )
    changed = step("update", "aws:iam/role:Role", inputs, {**inputs, "assumeRolePolicy": opened})
    assert words(changed) == {"widen-policy"}


def test_what_a_vendors_plugin_notes_for_itself_is_not_shown() -> None:
    tags = {"tags": {"team": "matrix"}}
    change = one(
        vendors("aws:iam/user:User", tags, {"tags": {"team": "other", "x.y": "z"}}, "tags.team", 'tags["x.y"]')
    )
    assert change.details == ('tags.team: "other" -> "matrix"', 'tags["x.y"]: "z" -> nothing')
    only = vendors("aws:iam/user:User", {}, {})
    assert one(only).details == ()
    created = step("create", "aws:iam/user:User", None, {**NOTED, "name": "u"})
    assert one(created).details == ("name: u",)


def test_a_thing_that_is_gone_is_told_with_what_that_means() -> None:
    kind, block = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", {"blockPublicAcls": True}
    gone = step("refresh", kind, block)
    change = one(gone, step("create", kind, None, block))
    assert change.dangers == ()
    assert change.details == (
        "found at the store: it is gone",
        "found at the store: the public access block is taken away",
    )
    assert one(step("refresh", "Bucket", BUCKET), step("create", "Bucket", None, BUCKET)).details == (
        "name: media",
        "found at the store: it is gone",
    )


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("Bucket", lambda days: {**BUCKET, "noncurrentDays": days}),
        ("B2Bucket", lambda days: {"bucket": "media", "private": True, "noncurrentDays": days}),
        (SPACE, lambda days: {"lifecycleRules": [spaces_rule(noncurrentVersionExpiration={"days": days})]}),
        (AWS, lambda days: {"rules": [aws_rule(noncurrentVersionExpiration={"noncurrentDays": days})]}),
    ],
)
def test_old_versions_kept_for_fewer_days_are_a_danger_at_every_provider(kind: str, inputs: Any) -> None:
    change = one(step("update", kind, inputs(30), inputs(1)))
    [danger] = change.dangers
    assert danger.word == "shorten-retention"
    assert "kept for 1 day, no longer 30 days" in danger.why
    assert words(step("update", kind, inputs(1), inputs(30))) == set()
    # 0: no rule, and they are kept.
    assert words(step("update", kind, inputs(0), inputs(30))) == {"shorten-retention"}
    assert words(step("update", kind, inputs(30), inputs(0))) == set()
    assert words(step("refresh", kind, inputs(30), inputs(1)), step("update", kind, inputs(1), inputs(30))) == set()


def test_a_bucket_that_became_a_managed_one_is_judged_as_one_though_adopt_stays() -> None:
    def days(count: int, *, adopted: bool) -> dict[str, Any]:
        return {**BUCKET, "adopt": True, "adopted": adopted, "noncurrentDays": count}

    assert words(step("update", "Bucket", days(30, adopted=True), days(1, adopted=True))) == set()
    assert words(step("update", "Bucket", days(30, adopted=False), days(1, adopted=False))) == {"shorten-retention"}


def test_a_rule_that_is_not_in_force_deletes_nothing() -> None:
    off = spaces_rule(id="off", enabled=False, expiration={"days": 1}, noncurrentVersionExpiration={"days": 1})
    found = step("update", SPACE, {"lifecycleRules": [spaces_rule()]}, {"lifecycleRules": [spaces_rule(), off]})
    assert words(found) == set()
    on = {**off, "enabled": True}
    assert words(step("update", SPACE, {"lifecycleRules": []}, {"lifecycleRules": [on]})) == {"shorten-retention"}


# ---- policies


READ = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::media/*"]}
HOME = {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}


@pytest.mark.parametrize(
    ("was", "will"),
    [
        ([READ], [{**READ, "Action": ["s3:GetObject", "s3:PutObject"]}]),
        ([READ], [{**READ, "Action": "s3:*"}]),
        ([READ], [{**READ, "Action": "s3:Get*"}]),
        ([READ], [{**READ, "Resource": "*"}]),
        ([READ], [{**READ, "Resource": "arn:aws:s3:::media*"}]),
        ([READ], [READ, {**READ, "Resource": "arn:aws:s3:::other/*"}]),
        ([READ], [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]),
        ([{**READ, "Condition": HOME}], [READ]),
        ([{**READ, "Condition": HOME}], [{**READ, "Condition": {"Bool": {"x": "y"}}}]),
        ([READ, {"Effect": "Deny", "Action": "s3:*", "Resource": "*", "Condition": HOME}], [READ]),
        ([{**READ, "Action": "s3:Get?bject"}], [{**READ, "Action": "s3:Get*"}]),
        ([], [READ]),
    ],
)
def test_a_wider_policy(was: list[Any], will: list[Any]) -> None:
    assert words(step("update", "UserPolicy", policy(*was), policy(*will))) == {"widen-policy"}


@pytest.mark.parametrize(
    ("was", "will"),
    [
        ([READ], [READ]),
        ([READ], [{**READ, "Action": "S3:getobject", "Resource": "arn:aws:s3:::media/*"}]),
        ([{**READ, "Action": "s3:*"}], [READ]),
        ([{**READ, "Action": "s3:*"}], [{**READ, "Action": "s3:Get*"}]),
        ([{**READ, "Action": "s3:*Object"}], [READ]),
        ([{**READ, "Resource": "*"}], [READ]),
        ([READ], [{**READ, "Resource": "arn:aws:s3:::media/a/*"}]),
        ([READ], [{**READ, "Condition": HOME}]),
        ([READ], [READ, {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]),
        ([READ, READ], [READ]),
        ([READ], []),
    ],
)
def test_a_policy_that_is_not_wider(was: list[Any], will: list[Any]) -> None:
    assert words(step("update", "UserPolicy", policy(*was), policy(*will))) == set()


SOURCE = "urn:pulumi:s::synapse-media::acme:infra:Name::source"


@pytest.mark.parametrize("op", ["update", "replace"])
@pytest.mark.parametrize(
    ("kind", "name", "word"),
    [
        ("Bucket", "bucket", "replace-bucket"),
        ("User", "userName", "retire-key"),
        ("KeyRing", "userName", "retire-key"),
        ("UserPolicy", "policy", "widen-policy"),
    ],
)
def test_a_value_known_only_at_apply_is_to_be_applied_first(op: str, kind: str, name: str, word: str) -> None:
    """No word is asked for that would permit a real replacement beforehand."""
    found = step(op, kind, {name: "media"}, {name: UNKNOWN})
    found["newState"]["propertyDependencies"] = {name: [SOURCE]}
    source = {**step("update", "acme:infra:Name", {"tag": "1"}, {"tag": "2"}, diff=()), "urn": SOURCE}
    all_of_it = of_preview(preview(source, found))
    refused = changes.refused(all_of_it, [])
    assert [danger.word for _, danger in refused] == [word]
    said = changes.refusal(refused, "Pulumi.s.yaml")
    assert "known only at apply" in said
    assert f"pulumi up --stack s --target {SOURCE}" in said
    assert "allow" not in said
    # What gives the value is shown by what changes in it.
    assert all_of_it[0].details == ('tag: "1" -> "2"',)
    # Nothing else gives it: then the words are the only way.
    assert word in changes.refusal(changes.refused(of_preview(preview(found)), []), "Pulumi.s.yaml")


def test_a_policy_known_only_later_can_not_be_judged() -> None:
    found = step("update", "UserPolicy", key_policy(), {**key_policy(), "policy": UNKNOWN})
    assert words(found) == {"widen-policy"}


@pytest.mark.parametrize(
    ("was", "will"),
    [
        (key_policy("goofys"), key_policy(MODULE)),
        (key_policy("goofys"), policy()),
        (key_policy("goofys"), key_policy("goofys", "media/")),
        (key_policy("goofys", access="full"), key_policy(MODULE)),
        (key_policy("goofys"), policy(*json.loads(key_policy("goofys")["policy"])["Statement"][1:])),
        (
            key_policy("goofys"),
            policy(
                *json.loads(key_policy("goofys")["policy"])["Statement"],
                {"Effect": "Deny", "Action": "s3:Delete*", "Resource": "*"},
            ),
        ),
        (
            key_policy("goofys"),
            policy(
                *({**found, "Condition": HOME} for found in json.loads(key_policy("goofys")["policy"])["Statement"])
            ),
        ),
    ],
)
def test_a_policy_narrower_than_what_runs_now_needs(was: dict[str, Any], will: dict[str, Any]) -> None:
    """Goofys runs and deletes; its key may not lose that before the method was changed on the server."""
    assert words(proof("goofys"), step("update", "UserPolicy", was, will)) == {"narrow-policy"}
    assert words(step("update", "UserPolicy", was, will)) == set(), "nothing runs yet"


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].uses_store])
@pytest.mark.parametrize("prefix", ["", "media/"])
def test_from_full_to_least_cuts_nothing_that_runs(method: str, prefix: str) -> None:
    """`full` reaches all of the bucket; what runs needs what is under its prefix."""
    steps = (step("update", "UserPolicy", key_policy(method, access="full"), key_policy(method, prefix)),)
    assert words(proof(method, bucket="media", prefix=prefix), *steps) == set()
    if prefix:
        for other in ("", "other/", "media/old/"):
            cut = words(proof(method, bucket="media", prefix=other), *steps) == {"narrow-policy"}
            assert cut == (other != "media/old/"), other
    assert words(proof(method), step("update", "UserPolicy", key_policy(method), key_policy(method))) == set()


def test_a_policy_of_a_role_is_guarded_as_that_of_a_user() -> None:
    for kind in ("aws:iam/userPolicy:UserPolicy", "aws:iam/rolePolicy:RolePolicy"):
        assert words(step("update", kind, key_policy(), key_policy("goofys"))) == {"widen-policy"}


HOSTILE = [
    "",
    "{",
    "null",
    "[]",
    "3",
    '"x"',
    "[" * 100_000,
    '{"Statement": null}',
    '{"Statement": [null, 3, "x", []]}',
    '{"Statement": {"Effect": ["Allow"], "Action": {"a": 1}, "Resource": [1, null, {}]}}',
    '{"Statement": [{"Effect": "Allow", "Action": [["s3:*"]], "Resource": null, "Principal": {"AWS": 3}}]}',
    '{"Statement": [{"Effect": "Allow", "Action": "((((", "Resource": "[a-", "Condition": "x"}]}',
    '{"Statement": [{"Effect": "Allow", "Action": "s3:\\n*", "Resource": "*"}]}',
]


@pytest.mark.parametrize("document", HOSTILE)
@pytest.mark.parametrize("kind", ["UserPolicy", "Bucket"])
def test_whatever_somebody_wrote_by_hand_is_told_and_does_not_stop_the_rest(kind: str, document: str) -> None:
    odd, ours = {**BUCKET, "policy": document}, {**BUCKET, **key_policy()}
    for steps in (
        (step("update", kind, odd, ours),),
        (step("update", kind, ours, odd), step("update", "KeyRing", {"slots": ["a"]}, {"slots": []})),
        (step("refresh", kind, ours, odd), step("update", kind, odd, ours)),
    ):
        found = of_preview(preview(proof(), *steps))
        assert changes.in_words(found)
        assert json.dumps(changes.to_json(found, (), changes.refused(found, ())))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["*", "s3:*", "Allow", "Deny"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Statement", "Effect", "Action", "NotAction", "Resource", "Principal", "Condition", "AWS"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(was=JSON, will=JSON)
@example(was={"Statement": {"Effect": "Allow", "Principal": [{}]}}, will=None)
def test_no_policy_breaks_the_guards(was: Any, will: Any) -> None:
    for kind in ("UserPolicy", "Bucket"):
        old, new = ({**BUCKET, "policy": json.dumps(document)} for document in (was, will))
        assert len(of_preview(preview(proof(), step("update", kind, old, new)))) == 1


ACTIONS = st.sampled_from(["s3:GetObject", "s3:Get*", "s3:*", "*", "s3:PutObject", "s3:?utObject"])
RESOURCES = st.sampled_from(
    ["*", "arn:aws:s3:::media", "arn:aws:s3:::media/*", "arn:aws:s3:::media/a/*", "arn:aws:s3:::o*"]
)
STATEMENT = st.fixed_dictionaries(
    {"Effect": st.just("Allow"), "Action": st.lists(ACTIONS, min_size=1), "Resource": st.lists(RESOURCES, min_size=1)}
)


CONCRETE = [
    (action, resource)
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "iam:CreateUser")
    for resource in ("arn:aws:s3:::media", "arn:aws:s3:::media/a/b", "arn:aws:s3:::media/b", "arn:aws:s3:::other/b")
]


def allowed(listed: list[Any]) -> set[tuple[str, str]]:
    """What statements allow, tried one by one."""
    return {
        (action, resource)
        for action, resource in CONCRETE
        for found in listed
        if any(fnmatchcase(action, pattern) for pattern in found["Action"])
        and any(fnmatchcase(resource, pattern) for pattern in found["Resource"])
    }


@given(was=st.lists(STATEMENT, max_size=3), will=st.lists(STATEMENT, max_size=3))
def test_no_policy_that_allows_more_goes_unsaid(was: list[Any], will: list[Any]) -> None:
    found = words(step("update", "UserPolicy", policy(*was), policy(*will)))
    assert "widen-policy" in found or allowed(will) <= allowed(was)


@given(was=st.lists(STATEMENT, max_size=3), more=st.lists(STATEMENT, max_size=2))
def test_taking_statements_away_never_widens(was: list[Any], more: list[Any]) -> None:
    assert "widen-policy" not in words(step("update", "UserPolicy", policy(*was, *more), policy(*was)))


def test_what_somebody_gave_a_garage_key_by_hand_is_told_and_mended_without_a_word() -> None:
    drifted = {
        "op": "refresh",
        "urn": urn("s3store:index:GarageKeyRing"),
        "oldState": {"inputs": switches("read", "write"), "outputs": switches("read", "write")},
    }
    mended = step("update", "GarageKeyRing", switches("read", "write", "owner"), switches("read", "write"))
    [change] = of_preview(preview(drifted, mended))
    assert any("owner" in line for line in change.details if line.startswith("found at the store: "))
    assert change.dangers == ()


def test_the_digest_of_what_was_reviewed_is_the_same_in_any_order() -> None:
    """Of several stores the engine lists the same changes in another order each time."""
    found = [Change("create", f"{name}.example.com", "Bucket", ("name: media",)) for name in ("one", "two", "three")]
    digest = reviewed.digest(found, {})
    assert digest == reviewed.digest(found[::-1], {})
    assert digest != reviewed.digest(found[:2], {})
    assert reviewed.require(found[::-1], {}, digest, "prod") == digest
    with pytest.raises(SynapseMediaError, match=f"not what was reviewed .*now it is {digest}"):
        reviewed.require(found, {}, "0" * 64, "prod")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("connection", {"endpoint": "https://elsewhere.example.com", "region": "one"}),
        ("connection", {"endpoint": "https://s3.example.com", "region": "two"}),
        ("adopt", True),
        ("noncurrentDays", 1),
        ("abortDays", 1),
    ],
)
def test_where_and_how_a_new_bucket_is_made_is_in_what_is_reviewed(setting: str, value: object) -> None:
    inputs = {"bucket": "media", "connection": {"endpoint": "https://s3.example.com", "region": "one"}, "adopt": False}

    def digest(**more: object) -> str:
        made = step("create", "Bucket", None, {**inputs, **more})
        made["newState"]["custom"] = True
        return reviewed.digest([Change("create", NAME, "Bucket")], {"steps": [made]})

    assert digest(**{setting: value}) != digest()
    # What may be deleted follows from `allow`, which is in what is shown, where it matters.
    assert digest(forceDestroy=True) == digest()


def test_what_becomes_of_the_media_is_in_what_is_reviewed() -> None:
    steps = [changes.Change("delete", NAME, "Bucket"), changes.Change("delete", NAME, "User")]
    kept = changes.combined([], steps, [f"{NAME}/delete-bucket", "other.example.com/delete-media"])
    goes = changes.combined([], steps, [f"{NAME}/delete-bucket", f"{NAME}/delete-media"])
    assert kept == tuple(steps)
    assert goes[0].details == (f"with all media in it, as {NAME}/delete-media says",)
    assert goes[1] == steps[1]
    assert reviewed.digest(kept, {}) != reviewed.digest(goes, {})
