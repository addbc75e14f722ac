"""What no word lets through, judged by the steps of a preview: which of them read the environment, and what becomes of
stores that a program declares, no stack file tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synapse_media.schema.resources import ComponentInput
from synapse_media.urn import Urn

from .applied import (
    EXISTING_KEY,
    OURS,
    PROOF,
    RING,
    Applied,
    Homeservers,
    former_name,
    is_bucket,
    is_component,
    keyless_place,
    read,
)
from .danger import DangerError


def refuse(preview: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raise DangerError with everything that no word lets through.

    Args:
        preview: what `pulumi preview --json` prints.
        state: what `pulumi stack export` printed before.
    """
    refused = tuple(dict.fromkeys((*_admin_keys(preview, state), *_of_programs(preview, state))))
    if refused:
        raise DangerError("nothing was changed:\n  " + "\n  ".join(refused))


def _inputs(step: Mapping[str, Any]) -> Mapping[str, Any]:
    return (step.get("newState") or {}).get("inputs") or {}


def _of_programs(preview: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[str]:
    """What the judge says of a stack file's stores, of those that a program declares."""
    records = read(state)
    steps = preview.get("steps") or ()
    homeservers = Homeservers.of_steps(steps, state.get("deployment", {}).get("resources") or ())
    renamed = {
        homeservers.of(step["urn"]): str(_inputs(step).get(ComponentInput.RENAMED_FROM) or "")
        for step in steps
        if is_component(Urn.parse(step["urn"]).kind)
    }
    for step in steps:
        kind = Urn.parse(step["urn"]).kind
        inputs = _inputs(step)
        component = step["urn"] if is_component(kind) else Urn.parse(step["urn"]).of_parent
        if step["op"] == "delete" or not inputs or not homeservers.is_declared(component):
            continue
        name = homeservers.of(step["urn"])
        others = {owner: was for owner, was in records.items() if owner not in (name, renamed.get(name))}
        if kind.endswith(RING):
            yield from _anothers_user(name, others, inputs)
            if step["op"] == "update" and name in records:
                yield from _used_again(name, records[name], inputs)
        elif kind == PROOF:
            yield from _anothers_bucket(name, others, inputs)
        elif place := keyless_place(inputs):
            yield from _anothers_bucket(name, others, place)


def _used_again(name: str, was: Applied, inputs: Mapping[str, Any]) -> Iterator[str]:
    """A key that is being retired never becomes the active one again."""
    ring, active = was.ring, str(inputs.get("active") or "")
    retiring = was.retiring_key(active)
    if ring and retiring:
        yield (
            f"keys of {name} makes slot {active} active, whose key {retiring} is being retired: a key that "
            f"was replaced is not used again. Set active {ring.active!r} and retiring {list(ring.retiring)!r}, as it "
            "is; once Synapse uses that key, remove the other from retiring, and after that let a new one take its "
            "slot."
        )


def _anothers_user(name: str, others: Mapping[str, Applied], inputs: Mapping[str, Any]) -> Iterator[str]:
    """A user belongs to one store: two would overwrite its policy and delete each other's key."""
    connection, user = inputs.get("connection"), inputs.get("userName")
    endpoint = connection.get("iamEndpoint") if isinstance(connection, Mapping) else ""
    for owner, was in others.items():
        if endpoint and user and (was.iam_endpoint, was.user) == (endpoint, user):
            yield (
                f"user of {name} is {user!r}, the user of {owner}. If the homeserver {owner} is now called {name}, set "
                f"renamed_from: {owner} for it. Otherwise choose a user of its own."
            )


def _anothers_bucket(name: str, others: Mapping[str, Applied], inputs: Mapping[str, Any]) -> Iterator[str]:
    """A bucket belongs to one store: what deletes the one would delete the other's media."""
    for owner, was in others.items():
        if owner == former_name(inputs) or was.place is None:
            continue
        if (was.place.endpoint, was.place.bucket) == (inputs.get("endpointUrl"), inputs.get("bucket")):
            yield (
                f"bucket of {name} is {was.place.bucket!r}, the bucket of {owner}. If the homeserver {owner} is now "
                f"called {name}, set renamed_from: {owner} for it. Otherwise give it up first: put "
                f"{owner}/retain-bucket into allow, remove the component of {owner} and run `up`; then take the mark "
                f"of {owner} off the bucket (docs/adopt.md), and declare {name} with adopt."
            )


def _admin_keys(preview: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[str]:
    """Where the environment would be read for Synapse's key, and has to have the administrator's.

    What is in the state before (users, policies, issued keys) is deleted with the credential in the environment, so
    that this is an administrator's for the whole run, although nothing that is declared now creates keys.
    """
    resources = state.get("deployment", {}).get("resources") or ()
    steps = preview.get("steps") or ()
    homeservers = Homeservers.of_steps(steps, resources)
    makers = {variable: one for one in resources if _makes_keys(one["urn"]) for variable in _read(one)}
    for step in steps:
        # What stays the same, or is deleted, does not read the environment.
        if Urn.parse(step["urn"]).kind != EXISTING_KEY or step["op"] in ("same", "delete") or not step.get("newState"):
            continue
        shared = [variable for variable in _read(step["newState"]) if variable in makers]
        if shared:
            name, maker = homeservers.of(step["urn"]), makers[shared[0]]
            of = homeservers.of_resource(maker)
            component = str(maker.get("parent") or "") or Urn.parse(maker["urn"]).of_parent
            leaves = "remove its component" if homeservers.is_declared(component) else "set method: filesystem for it"
            yield (
                f"existing_key of {name} takes the key in {', '.join(shared)} for Synapse. The administrator's has to "
                f"be there, which deletes the keys of {of}. First give {of} up with that: {leaves}, put "
                f"{of}/retain-bucket, {of}/retire-key and {of}/narrow-policy into allow, and run `up`. Then have "
                f"{name} with existing_key, with the key for Synapse in the environment."
            )


def _makes_keys(urn: str) -> bool:
    """Whether it is one of the plugin's users, policies or keys, which an administrator's credential deletes."""
    kind = Urn.parse(urn).kind
    return kind.startswith(OURS) and not is_bucket(kind) and kind not in (EXISTING_KEY, PROOF)


def _read(state: Mapping[str, Any]) -> Iterator[str]:
    """The environment variables with the credential for a resource."""
    connection = (state.get("inputs") or {}).get("connection")
    variables = connection.get("variables") if isinstance(connection, Mapping) else None
    yield from map(str, variables if isinstance(variables, list) else ())
