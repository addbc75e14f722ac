"""The guards on whole previews: what people do to a stack file, and whether `up` goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from synapse_media import settings
from synapse_media.guards import applied, changes, entries, refusals
from synapse_media.guards.danger import DangerError
from synapse_media.schema.model import UNKNOWN_ON_WIRE
from tests.core.test_changes import NAME, preview, step

BUCKET = {"bucket": "media", "versioning": True, "publicAccessBlock": True, "acl": "private"}
RING = {"userName": "u", "slots": ["a", "b"], "active": "a"}
POLICY = {
    "userName": "u",
    "policy": json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}),
}


def words(*steps: dict[str, Any]) -> set[str]:
    return {danger.word for change in changes.of_preview(preview(*steps)) for danger in change.dangers}


def test_a_store_that_leaves_the_stack_file_is_asked_for_bucket_key_and_policy() -> None:
    steps = (
        step("delete", "Proof", {}),
        step("delete", "KeyRing", RING),
        step("delete", "UserPolicy", POLICY),
        step("delete", "User", {"userName": "u"}),
        step("delete", "Bucket", BUCKET),
    )
    assert words(*steps) == {"delete-bucket", "retire-key", "narrow-policy"}


def test_so_is_one_that_is_given_up() -> None:
    given_up = step("delete", "Bucket", BUCKET, retainOnDelete=True)
    asked = {"retain-bucket", "retire-key", "narrow-policy"}
    assert words(step("delete", "KeyRing", RING), step("delete", "UserPolicy", POLICY), given_up) == asked


@pytest.mark.parametrize("kind", ["KeyRing", "SpacesKeyRing"])
def test_keys_that_go_although_the_bucket_stays_are_keys_in_use(kind: str) -> None:
    assert words(step("delete", kind, RING)) == {"retire-key"}


@pytest.mark.parametrize("kind", ["UserPolicy", "aws:iam/rolePolicy:RolePolicy"])
def test_a_policy_that_goes_although_the_bucket_stays_cuts_access(kind: str) -> None:
    assert words(step("delete", kind, POLICY)) == {"narrow-policy"}


def test_each_danger_needs_its_own_word_of_its_own_store() -> None:
    found = changes.of_preview(preview(step("delete", "Bucket", BUCKET), step("update", "KeyRing", RING, RING)))
    for allow, left in (
        ([], 1),
        ([f"{NAME}/replace-bucket", "other.example.com/delete-bucket", "delete-bucket"], 1),
        ([f"{NAME}/delete-bucket"], 0),
    ):
        assert len(changes.refused(found, allow)) == left


def test_the_refusal_says_what_would_let_it_through() -> None:
    found = changes.of_preview(preview(step("delete", "Bucket", BUCKET)))
    refused = changes.refused(found, [])
    text = changes.refusal(refused, "stacks/Pulumi.prod.yaml")
    assert "nothing was changed" in text
    assert "the bucket media would be deleted" in text
    assert f"put {NAME}/delete-bucket into synapse-media:allow in stacks/Pulumi.prod.yaml" in text
    assert changes.to_json(found, (), refused)["refused"] == [f"{NAME}/delete-bucket"]


def test_an_entry_of_allow_for_no_store_is_reported() -> None:
    component = "urn:pulumi:prod::acme::synapse-media:index:S3Compatible::media"
    declared = {"urn": component, "type": "synapse-media:index:S3Compatible", "inputs": {"serverName": "example.com"}}
    created = {"steps": [{"op": "create", "urn": component, "newState": declared}]}
    state = {"deployment": {"resources": [declared]}}
    allow = ["examle.com/delete-bucket", "example.com/delete-bucket", "local.example/retire-key"]
    for seen in ((state, {}), ({}, created)):
        (found,) = entries.of_no_store(allow, {"local.example"}, *seen)
        assert found == (
            "synapse-media:allow has examle.com/delete-bucket, but this stack has no store examle.com; "
            "it has example.com, local.example. Did you mean example.com/delete-bucket?"
        )
    (found,) = entries.of_no_store(["gone.test/retire-key"], (), {}, {})
    assert found.endswith("it has none. Remove it if its store is gone.")


def test_a_store_that_the_program_does_not_declare_is_reported() -> None:
    """`diff` said "no changes", and `up` to run `up`."""
    wanted = settings.parse(
        {
            "example.com": {"provider": "wasabi", "region": "us-east-1", "bucket": "example-media"},
            "local.example": {"method": "filesystem"},
        }
    )
    component = "urn:pulumi:prod::acme::synapse-media:index:S3Compatible::media"
    declared = {"urn": component, "type": "synapse-media:index:S3Compatible", "inputs": {"serverName": "example.com"}}
    created = {"steps": [{"op": "create", "urn": component, "newState": declared}]}
    (found,) = entries.undeclared(wanted, {}, {"steps": []})
    assert "the store example.com, of which the program makes nothing" in found
    assert "publish({name: make(store) for name, store in from_config().items()})" in found
    assert entries.undeclared(wanted, {}, created) == ()
    assert entries.undeclared(wanted, {"deployment": {"resources": [declared]}}, {}) == ()


# ---- whose a resource is

_ROOT = "urn:pulumi:s::acme"


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        ("synapse-media:index:AmazonS3", True),
        ("acme:store:DigitaloceanSpaces", True),
        ("synapse-media:store:S3Compatible", True),
        ("acme:store:Cart", False),
        ("acme:infra:Group", False),
        ("s3store:index:Bucket", False),
    ],
)
def test_a_component_is_told_by_its_type_whatever_the_project_is_called(kind: str, ours: bool) -> None:
    assert applied.is_component(kind) is ours


def test_a_part_is_known_by_the_homeserver_that_its_component_says() -> None:
    kinds = "acme:infra:Group$synapse-media:index:S3Compatible"
    component = f"{_ROOT}::{kinds}::media"
    bucket = f"{_ROOT}::{kinds}$s3store:index:Bucket::media"
    found = applied.Homeservers([{"urn": component, "inputs": {"serverName": "example.com"}}])
    assert found.of(component) == found.of(bucket) == "example.com"
    assert found.is_declared(component)
    assert applied.is_ours(bucket)
    # Of a stack file's, the name says it; while one is renamed, the parent's.
    assert applied.Homeservers([]).of(f"{_ROOT}::synapse-media:index:Wasabi$s3store:index:User::a") == "a"
    former = {"urn": f"{_ROOT}::synapse-media:store:Wasabi$s3store:index:User::a", "parent": component}
    assert found.of_resource(former) == "example.com"


@pytest.mark.parametrize(
    "urn", [f"{_ROOT}::aws:s3/bucket:Bucket::assets", f"{_ROOT}::acme:infra:Group$aws:s3/bucket:Bucket::assets"]
)
def test_a_bucket_of_the_users_own_is_shown_and_not_judged(urn: str) -> None:
    step = {"op": "delete", "urn": urn, "oldState": {"urn": urn, "inputs": {"bucket": "assets"}}}
    (change,) = changes.of_preview({"steps": [step]})
    assert (str(change), change.dangers) == ("delete Bucket of assets", ())


@pytest.mark.parametrize(
    ("name", "word"), [("prefix", "move-media"), ("endpointUrl", "replace-bucket"), ("bucket", "replace-bucket")]
)
def test_a_store_that_a_program_declares_does_not_move_without_its_word(name: str, word: str) -> None:
    component = "urn:pulumi:prod::acme::synapse-media:index:S3Compatible::media"
    urn = "urn:pulumi:prod::acme::synapse-media:index:S3Compatible$s3store:index:Proof::media"
    before = {"bucket": "media", "endpointUrl": "https://s3.example.com", "prefix": ""}

    def steps(after: dict[str, str]) -> list[dict[str, Any]]:
        return [
            {"op": "same", "urn": component, "newState": {"urn": component, "inputs": {"serverName": "example.com"}}},
            {"op": "update", "urn": urn, "oldState": {"inputs": before}, "newState": {"inputs": after}},
        ]

    [found] = changes.of_preview({"steps": steps({**before, name: "https://elsewhere.example.com"})})
    assert [danger.word for danger in found.dangers] == [word]
    assert found.store == "example.com"
    [same] = changes.of_preview({"steps": steps({**before, "access": "full"})})
    assert same.dangers == ()
    source = "urn:pulumi:prod::acme::acme:infra:Name::name"
    changing = {"op": "update", "urn": source, "oldState": {"inputs": {}}, "newState": {"inputs": {}}}
    unknown = steps({**before, name: UNKNOWN_ON_WIRE})
    unknown[-1]["newState"]["propertyDependencies"] = {name: [source]}
    _, later = changes.of_preview({"steps": [changing, *unknown]})
    assert [danger.waits_for for danger in later.dangers] == ([] if name == "endpointUrl" else [(source,)])


def test_a_name_that_is_not_known_yet_is_left_out() -> None:
    found = changes.of_preview(preview(step("create", "Bucket", new={**BUCKET, "bucket": UNKNOWN_ON_WIRE})))
    assert UNKNOWN_ON_WIRE not in changes.in_words(found)


def program(
    name: str = "media", server_name: str = "example.com", *, former_owner: str = "", ids: str = "", **place: str
) -> list[dict[str, Any]]:
    """A component of a program, its ring and its proof, as the steps of a preview have them."""
    inputs = {"serverName": server_name, **({"s3DatastoreId": ids} if ids else {})}
    root = {"urn": f"{_ROOT}::synapse-media:index:S3Compatible::{name}", "type": "synapse-media:index:S3Compatible"}
    keys = {"active": place.pop("active", "b"), "slots": ["a", "b"], "userName": "u"}
    proved = {
        "endpointUrl": "https://s3.example.com",
        "region": "us-east-1",
        "bucket": "media",
        "prefix": "",
        "formerOwner": former_owner,
        **place,
    }
    return [
        {**root, "inputs": inputs},
        {**of_component("KeyRing", name, []), "inputs": keys},
        {**of_component("Proof", name, []), "inputs": proved},
    ]


def made(name: str = "media", server_name: str = "example.com") -> dict[str, Any]:
    """The state after `up` of `program`."""
    component, ring, proof = program(name, server_name)
    outputs = {
        "provider": "s3_compatible",
        "endpoint_url": "https://s3.example.com",
        "region": "us-east-1",
        "bucket": "media",
        "prefix": "",
        "media_repo": {"s3_datastore_id": "one"},
        "access_key_id": "KEY-b",
    }
    held = {**ring["inputs"], "keys": {slot: {"accessKeyId": f"KEY-{slot}"} for slot in ("a", "b")}}
    resources = [{**component, "outputs": {"outputs": outputs}}, {**ring, "outputs": held}, proof]
    return {"deployment": {"resources": resources}}


def planned(*after: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The preview from a state to what is declared now: by URN, so that another name is another resource."""
    before = {one["urn"]: one for one in state["deployment"]["resources"]}
    steps = [
        {"op": "update", "urn": one["urn"], "oldState": before[one["urn"]], "newState": one}
        if one["urn"] in before
        else {"op": "create", "urn": one["urn"], "newState": one}
        for one in after
    ]
    names = {one["urn"] for one in after}
    return {
        "steps": steps
        + [{"op": "delete", "urn": urn, "oldState": one} for urn, one in before.items() if urn not in names]
    }


@pytest.mark.parametrize("name", ["media", "another-name"])
@pytest.mark.parametrize(
    ("edit", "word"),
    [
        ({}, ""),
        ({"ids": "one"}, ""),
        ({"ids": "two"}, "move-media"),
        ({"prefix": "other/"}, "move-media"),
        ({"region": "eu-west-1"}, "replace-bucket"),
        ({"bucket": "other"}, "replace-bucket"),
        ({"endpointUrl": "https://elsewhere.example.com"}, "replace-bucket"),
    ],
)
def test_whatever_its_component_is_called_a_programs_store_moves_by_its_word(
    name: str, edit: dict[str, str], word: str
) -> None:
    state = made()
    found = changes.of_preview(planned(*program(name, **edit), state=state), state)
    moved = {(one.store, danger.word) for one in found for danger in one.dangers if "looked for" in danger.why}
    assert moved == ({("example.com", word)} if word else set())


MODULE = "synapse-s3-storage-provider"


@pytest.mark.parametrize("name", ["media", "another-name"])
@pytest.mark.parametrize(
    ("before", "after", "dangerous"),
    [
        (MODULE, "goofys", False),
        (MODULE, "matrix-media-repo", True),
        ("matrix-media-repo", "goofys", True),
        ("matrix-media-repo", "matrix-media-repo", False),
    ],
)
def test_a_program_has_the_method_changed_by_its_word(name: str, before: str, after: str, *, dangerous: bool) -> None:
    state = made()
    state["deployment"]["resources"][0]["outputs"]["outputs"] |= {"method": before}
    found = changes.of_preview(planned(*program(name, method=after), state=state), state)
    whys = [danger.why for one in found for danger in one.dangers if danger.word == "move-media"]
    assert [f"method {before} becomes {after}" in why for why in whys] == [True] * dangerous


def test_another_datastore_id_after_other_methods_has_the_word_of_the_method() -> None:
    """The id is not remembered while another method is in use, but neither finds the other's files."""
    state = made()
    state["deployment"]["resources"][0]["outputs"]["outputs"] |= {"method": "goofys", "media_repo": {}}
    found = changes.of_preview(planned(*program(ids="two", method="matrix-media-repo"), state=state), state)
    assert "move-media" in {danger.word for one in found for danger in one.dangers}


def keyless(name: str = "media", **inputs: str) -> dict[str, Any]:
    """The component of a store without a key, as the step of a preview has it."""
    place = {
        "method": MODULE,
        "endpointUrl": "https://s3.example.com",
        "region": "us-east-1",
        "bucket": "media",
        "prefix": "",
    }
    names = {name: value for name, value in inputs.items() if name not in place}
    place |= {name: value for name, value in inputs.items() if name in place}
    said = {"serverName": "example.com", **names, "keylessPlace": place}
    return {**component(name, "example.com"), "inputs": said}


@pytest.mark.parametrize("name", ["media", "another-name"])
@pytest.mark.parametrize(
    ("edit", "word"),
    [
        ({}, ""),
        ({"prefix": "other/"}, "move-media"),
        ({"method": "matrix-media-repo"}, "move-media"),
        ({"region": "eu-west-1"}, "replace-bucket"),
        ({"bucket": "other"}, "replace-bucket"),
        ({"endpointUrl": "https://elsewhere.example.com"}, "replace-bucket"),
    ],
)
def test_a_programs_store_without_a_key_moves_by_its_word(name: str, edit: dict[str, str], word: str) -> None:
    """It has no proof; whatever the steps of the vendor's plugin are, its place is judged."""
    state = made()
    state["deployment"]["resources"][0]["outputs"]["outputs"] |= {"method": MODULE, "media_repo": {}}
    found = changes.of_preview(planned(keyless(name, **edit), state=state), state)
    moved = {(one.store, danger.word) for one in found for danger in one.dangers if "looked for" in danger.why}
    assert moved == ({("example.com", word)} if word else set())
    with pytest.raises(DangerError, match="the bucket of example\\.com"):
        refusals.refuse(planned(keyless(name, serverName="new.example.com"), state=state), state)
    renamed = keyless(name, serverName="new.example.com", renamedFrom="example.com")
    refusals.refuse(planned(renamed, state=state), state)


def test_a_user_of_another_store_is_not_shared_by_a_program() -> None:
    state = made()
    iam = {"variables": [], "iamEndpoint": "https://iam.example.com"}
    state["deployment"]["resources"][1]["outputs"]["connection"] = iam

    def declared(name: str, user: str, endpoint: str, **said: str) -> list[dict[str, Any]]:
        root, ring, proof = program(name, "new.example.com", bucket="its-own")
        connection = {"variables": [], "iamEndpoint": endpoint}
        root["inputs"] |= said
        return [root, {**ring, "inputs": {**ring["inputs"], "userName": user, "connection": connection}}, proof]

    for after in (
        [*program(), *declared("other", "u", iam["iamEndpoint"])],
        declared("media", "u", iam["iamEndpoint"]),
    ):
        with pytest.raises(DangerError, match="user of new\\.example\\.com is 'u', the user of example\\.com"):
            refusals.refuse(planned(*after, state=state), state)
    for user, endpoint in (("its-own", iam["iamEndpoint"]), ("u", "https://iam.elsewhere.example.com"), ("u", "")):
        refusals.refuse(planned(*program(), *declared("other", user, endpoint), state=state), state)
    moved = declared("media", "u", iam["iamEndpoint"], renamedFrom="example.com")
    refusals.refuse(planned(*moved, state=state), state)


def test_another_providers_component_is_another_place() -> None:
    state = made()
    other = json.loads(json.dumps(program("other")).replace("index:S3Compatible", "index:Wasabi"))
    found = changes.of_preview(planned(*other, state=state), state)
    assert "s3_compatible becomes Wasabi" in str(found)


def test_a_programs_key_that_is_being_retired_is_not_made_active_again() -> None:
    state = made()
    with pytest.raises(DangerError, match="makes slot a active, whose key KEY-a is being retired"):
        refusals.refuse(planned(*program(active="a"), state=state), state)
    refusals.refuse(planned(*program(active="b"), state=state), state)
    # A run that was cut off before the new key was handed out goes back to the one that was.
    state["deployment"]["resources"][0]["outputs"]["outputs"]["access_key_id"] = "KEY-a"
    refusals.refuse(planned(*program(active="a"), state=state), state)


@pytest.mark.parametrize("name", ["media", "another-name"])
def test_a_programs_homeserver_is_renamed_only_where_it_is_said(name: str) -> None:
    state = made()
    with pytest.raises(DangerError, match="set renamed_from: example\\.com for it"):
        refusals.refuse(planned(*program(name, "new.example.com"), state=state), state)
    refusals.refuse(planned(*program(name, "new.example.com", former_owner="acme/s/example.com"), state=state), state)
    refusals.refuse(planned(*program(name, "new.example.com", bucket="its-own"), state=state), state)


# ---- the administrator's key

S3_VARIABLES = ["S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"]


def of_component(kind: str, name: str, variables: list[str]) -> dict[str, Any]:
    """A resource of the store that the component `name` declares, as a state and a step have it."""
    component = f"{_ROOT}::synapse-media:index:S3Compatible::{name}"
    urn = f"{_ROOT}::synapse-media:index:S3Compatible$s3store:index:{kind}::{name}"
    return {
        "urn": urn,
        "type": f"s3store:index:{kind}",
        "parent": component,
        "inputs": {"connection": {"variables": variables}},
    }


def component(name: str, server_name: str) -> dict[str, Any]:
    urn = f"{_ROOT}::synapse-media:index:S3Compatible::{name}"
    return {"urn": urn, "type": "synapse-media:index:S3Compatible", "inputs": {"serverName": server_name}}


@pytest.mark.parametrize("op", ["create", "update", "create-replacement", "refresh"])
@pytest.mark.parametrize("kind", ["KeyRing", "User", "UserPolicy"])
@pytest.mark.parametrize("server_name", ["one.example.com", "two.example.com"])
def test_the_credential_that_deletes_keys_is_not_read_as_synapses(op: str, kind: str, server_name: str) -> None:
    state = {
        "deployment": {"resources": [component("one", "one.example.com"), of_component(kind, "one", S3_VARIABLES)]}
    }
    key = of_component("ExistingKey", "two", S3_VARIABLES)
    declared = {"op": "create", "urn": component("two", "")["urn"], "newState": component("two", server_name)}
    read = {"op": op, "urn": key["urn"], "newState": key}
    said = (
        f"existing_key of {server_name} takes the key in S3_ACCESS_KEY_ID.*one.example.com up .*: remove its component"
    )
    with pytest.raises(DangerError, match=said):
        refusals.refuse({"steps": [declared, read]}, state)
    # A stack file's store is given up by its method.
    state = {"deployment": {"resources": [of_component(kind, "one.example.com", S3_VARIABLES)]}}
    key = of_component("ExistingKey", server_name, S3_VARIABLES)
    with pytest.raises(DangerError, match=r"give one\.example\.com up with that: set method: filesystem for it"):
        refusals.refuse({"steps": [{"op": op, "urn": key["urn"], "newState": key}]}, state)


def test_a_key_of_synapses_own_is_read() -> None:
    key = of_component("ExistingKey", "two", S3_VARIABLES)
    create = {"op": "create", "urn": key["urn"], "newState": key}

    def judged(step: dict[str, Any], *resources: dict[str, Any]) -> None:
        refusals.refuse({"steps": [step]}, {"deployment": {"resources": list(resources)}})

    # A store like it, its bucket and its proof need no other credential; another provider has variables of its own.
    judged(create, *(of_component(kind, "one", S3_VARIABLES) for kind in ("Bucket", "ExistingKey", "Proof")))
    judged(create, of_component("KeyRing", "one", ["GARAGE_ADMIN_TOKEN"]))
    # What stays or goes reads nothing.
    ring = of_component("KeyRing", "one", S3_VARIABLES)
    judged({"op": "same", "urn": key["urn"], "oldState": key, "newState": key}, ring)
    judged({"op": "delete", "urn": key["urn"], "oldState": key}, ring)
