"""Two entries of the state for one resource at the store: when the one is deleted, the other's is gone.

That comes of a replacement under the same name (the new entry took over what the old one's deletion would delete), of a
run that ended between the two, and of a store whose provider changes on the same server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from synapse_media.urn import Urn

from .applied import OURS, RING, Homeservers, is_bucket, resources_of


@dataclass(frozen=True, slots=True)
class _Identity:
    """What an entry of the state stands for at the store.

    Attributes:
        names: its name, or the access key IDs of a ring.
        place: the endpoint it is reached at; "" where the entry does not tell.
    """

    store: str
    kind: str
    names: frozenset[str]
    place: str = ""

    def is_same_as(self, other: _Identity) -> bool:
        same_place = not self.place or not other.place or self.place == other.place
        return (self.store, self.kind) == (other.store, other.kind) and bool(self.names & other.names) and same_place


def duplicates(export: Mapping[str, Any], preview: Mapping[str, Any]) -> list[int]:
    """The positions, in the state's list, of entries that a run would delete and whose resource another entry keeps.

    Only where the other is our plugin's, which takes over what is ours: a vendor's fails where the resource is there.

    Args:
        export: what `pulumi stack export` prints.
        preview: what `pulumi preview --json` prints for that state.
    """
    resources = resources_of(export)
    steps = preview.get("steps") or ()
    deleted = {step["urn"] for step in steps if step["op"] == "delete"}
    stated, planned = Homeservers(resources), Homeservers.of_steps(steps, resources)
    made = [
        _of_step(step, planned)
        for step in steps
        if step["op"] in ("create", "create-replacement") and step.get("newState")
    ]
    going = [resource.get("delete") is True or resource["urn"] in deleted for resource in resources]
    living = [_of_state(one, stated) for one, goes in zip(resources, going, strict=True) if not goes]
    kept = [thing for thing in (*made, *living) if thing is not None]
    return [
        number
        for number, (resource, goes) in enumerate(zip(resources, going, strict=True))
        if goes and _is_any(_of_state(resource, stated, any_plugin=True), kept)
    ]


def without(export: Mapping[str, Any], positions: Collection[int]) -> dict[str, Any]:
    """The state without these entries, and without what goes with one of them (the settings of a vendor's bucket)."""
    resources = export["deployment"]["resources"]
    left_out = {resources[number]["urn"] for number in positions if resources[number].get("delete") is not True}
    kept = [
        resource
        for number, resource in enumerate(resources)
        if number not in positions and resource.get("deletedWith") not in left_out
    ]
    gone = {resource["urn"] for resource in resources} - {resource["urn"] for resource in kept}
    return {
        **export,
        "deployment": {**export["deployment"], "resources": [_independent(resource, gone) for resource in kept]},
    }


def _independent(resource: Mapping[str, Any], gone: Collection[str]) -> dict[str, Any]:
    """The entry without a word of what is gone: pulumi refuses a state in which one depends on nothing."""
    changed = dict(resource)
    if "dependencies" in resource:
        changed["dependencies"] = [urn for urn in resource["dependencies"] or () if urn not in gone]
    if "propertyDependencies" in resource:
        changed["propertyDependencies"] = {
            name: [urn for urn in urns or () if urn not in gone]
            for name, urns in (resource["propertyDependencies"] or {}).items()
        }
    return changed


def _is_any(identity: _Identity | None, others: Iterable[_Identity]) -> bool:
    return identity is not None and any(identity.is_same_as(other) for other in others)


def _of_step(step: Mapping[str, Any], homeservers: Homeservers) -> _Identity | None:
    kind = Urn.parse(step["urn"]).kind
    if not kind.startswith(OURS):
        return None
    return _identity(homeservers.of(step["urn"]), kind, step["newState"].get("inputs") or {})


def _of_state(resource: Mapping[str, Any], homeservers: Homeservers, *, any_plugin: bool = False) -> _Identity | None:
    kind = str(resource["type"])
    if not (kind.startswith(OURS) or any_plugin):
        return None
    values = {**(resource.get("inputs") or {}), **(resource.get("outputs") or {})}
    return _identity(homeservers.of_resource(resource), kind, values)


def _identity(store: str, kind: str, values: Mapping[str, Any]) -> _Identity | None:
    """None for what can't be two: a proof, a vendor's setting."""
    connection = values.get("connection")
    reached = connection if isinstance(connection, Mapping) else {}
    user = str(values.get("userName") or values.get("user") or "")
    if kind.endswith(RING):
        keys = values.get("keys")
        held = keys.values() if isinstance(keys, Mapping) else ()
        return _Identity(
            store, "keys", frozenset(str(key.get("accessKeyId")) for key in held if isinstance(key, Mapping))
        )
    if is_bucket(kind):
        name = str(values.get("bucket") or values.get("name") or "")
        return _Identity(store, "bucket", frozenset({name} - {""}), str(reached.get("endpoint") or ""))
    if kind.endswith(":UserPolicy"):
        policy = str(values.get("policyName") or values.get("name") or "")
        return _Identity(store, "policy", frozenset({f"{user}/{policy}"}), str(reached.get("iamEndpoint") or ""))
    if kind.endswith(":User"):
        name = user or str(values.get("name") or "")
        return _Identity(store, "user", frozenset({name} - {""}), str(reached.get("iamEndpoint") or ""))
    return None
