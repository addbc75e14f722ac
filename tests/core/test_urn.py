"""URNs, as the engine writes them."""

from __future__ import annotations

import pytest

from synapse_media.guards import applied, changes
from synapse_media.guards.applied import is_component, is_ours
from synapse_media.urn import Urn, short

HEAD = "urn:pulumi:prod::infra::"
SERVER = "matrix.example.com:8448"


def test_the_parts_of_a_component_within_another() -> None:
    text_of = f"{HEAD}own:index:Homeserver$infra:store:AmazonS3$aws:s3/bucket:Bucket::{SERVER}"
    urn = Urn.parse(text_of)
    assert (urn.stack, urn.project, urn.name) == ("prod", "infra", SERVER)
    assert urn.parents == ("own:index:Homeserver", "infra:store:AmazonS3")
    assert urn.kind == "aws:s3/bucket:Bucket"
    assert short(urn.kind) == "Bucket"
    assert is_ours(text_of)


def test_a_name_may_have_the_separators_in_it() -> None:
    urn = Urn.parse(f"{HEAD}aws:s3/bucket:Bucket::a::b$c")
    assert (urn.parents, urn.kind, urn.name) == ((), "aws:s3/bucket:Bucket", "a::b$c")


@pytest.mark.parametrize(
    "text", ["", "media", "urn:pulumi:prod::infra::aws:s3/bucket:Bucket", "arn:aws:s3:::b::c::d::e"]
)
def test_what_is_no_urn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no URN"):
        Urn.parse(text)


def test_a_store_is_told_by_its_type_and_not_by_a_name() -> None:
    assert is_component("infra:store:Garage")
    assert is_component("synapse-media:index:Garage")
    assert not is_component("infra:index:store")
    assert not is_component("infra:store:Shop")
    assert not is_ours(f"{HEAD}own:index:Thing::a:store:b")


@pytest.mark.parametrize("around", ["", "own:index:Homeserver$"])
def test_a_store_below_another_component_is_read_like_any(around: str) -> None:
    parent = f"{HEAD}{around}infra:store:S3Compatible::{SERVER}"
    bucket = f"{HEAD}{around}infra:store:S3Compatible$s3store:index:Bucket::{SERVER}"
    elsewhere = f"{HEAD}own:index:Thing$s3store:index:Bucket::a:store:b"
    state = {
        "deployment": {
            "resources": [
                {"urn": parent, "type": "infra:store:S3Compatible", "outputs": {}},
                {"urn": bucket, "type": "s3store:index:Bucket", "parent": parent, "outputs": {"bucket": "media"}},
                {"urn": elsewhere, "type": "s3store:index:Bucket", "parent": f"{HEAD}own:index:Thing::a:store:b"},
            ]
        }
    }
    found = applied.read(state)
    assert set(found) == {SERVER}
    assert [one.name for one in found[SERVER].buckets] == ["media"]


@pytest.mark.parametrize("around", ["", "own:index:Homeserver$"])
def test_the_component_of_a_store_is_no_change_of_its_own_in_any_project(around: str) -> None:
    urn = f"{HEAD}{around}infra:store:S3Compatible"
    steps = [
        {"op": "create", "urn": f"{urn}::{SERVER}", "newState": {}},
        {"op": "create", "urn": f"{urn}$s3store:index:Bucket::{SERVER}", "newState": {"inputs": {"bucket": "media"}}},
    ]
    assert [str(change) for change in changes.of_preview({"steps": steps})] == [f"create Bucket of {SERVER}"]
