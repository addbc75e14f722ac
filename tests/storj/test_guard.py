"""What a key may do more than before is guarded, also where it has no policy."""

from __future__ import annotations

from typing import Any

from synapse_media.guards import changes
from synapse_media.plugin.storj import OBJECTS

URN = "urn:pulumi:s::synapse-media::synapse-media:store:Storj$s3store:index:StorjKeyRing::matrix.example.com"


def _dangers(before: list[str], after: list[str]) -> list[str]:
    state = {"slots": ["a"], "active": "a"}
    old: dict[str, Any] = {"inputs": {**state, "permissions": before}}
    new: dict[str, Any] = {"inputs": {**state, "permissions": after}}
    step = {"op": "update", "urn": URN, "oldState": old, "newState": new, "detailedDiff": {"permissions": {}}}
    return [danger.word for change in changes.of_preview({"steps": [step]}) for danger in change.dangers]


def test_wider_permissions_are_guarded() -> None:
    assert _dangers(sorted(OBJECTS), sorted({*OBJECTS, "locks"})) == ["widen-policy"]


def test_fewer_or_the_same_are_not() -> None:
    assert _dangers(sorted({*OBJECTS, "locks"}), sorted(OBJECTS)) == []
    assert _dangers(sorted(OBJECTS), sorted(OBJECTS)) == []
