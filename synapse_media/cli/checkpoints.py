"""How often the engine writes the state: after every step, or once at the end of a run.

Pulumi writes the whole state to a file backend twice for every resource that changes. That is durable, and quadratic:
with 150 stores it was three quarters of the CPU of an `up`. Written at the end only, a run that is killed leaves the
state of before. That is safe where the next run finds again what was made, and knows that it has to look:

- the mark that `stacks.changing` leaves is in this user's state directory, so the state must be there too;
- the resources must be of types that say so (`ResourceType.found_again`), and a new bucket must carry a mark;
- of a key that was made and is in no state, the note at the store (plugin/iam.py; elsewhere the key's name or token)
  must stay until the state has it: the plugin leaves it there, and `settle` removes it when the run came to its end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from synapse_media.errors import StoreError, SynapseMediaError, UsageError
from synapse_media.guards.applied import OURS, PROOF, is_bucket, resources_of
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.urn import Urn

from . import stacks

VARIABLE: Final = "SYNAPSE_MEDIA_CHECKPOINTS"
_EACH_STEP: Final = "each-step"
_AT_END: Final = "at-end"
NEW_STORES: Final = 15
"""An `up` that makes so many stores is worth it: about two seconds of CPU. Below, every step is written."""
RESOURCES: Final = 6
"""Of one store: the component, bucket, user, policy, key ring, proof."""
WORTH_IT: Final = (NEW_STORES * RESOURCES) ** 2
"""The same in resources times steps."""
_CHANGING: Final = frozenset({"create", "update", "replace", "create-replacement"})
_MAKING: Final = frozenset({"create", "create-replacement"})
_HARMLESS: Final = frozenset({"same", "refresh", "delete", "delete-replaced"})
"""Done once more, they do nothing more."""
_NEITHER: Final = ("pulumi:pulumi:Stack", f"pulumi:providers:{OURS.partition(':')[0]}")


def of_up(session: stacks.Session, preview: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether an `up` may write the state at its end only.

    Raises UsageError where the variable is set to something else than it allows.
    """
    steps = [step for step in preview.get("steps", ()) if step["op"] != "same"]
    count = len(preview.get("steps", ())) + len(resources_of(state))
    return (
        _wanted(len(steps) * count)
        and session.engine.has_own_state
        and all(map(_is_found_again, steps))
        and _marks_are_kept(session, steps)
    )


def of_destroy(session: stacks.Session, state: Mapping[str, Any]) -> bool:
    """Whether a `destroy` may: what is gone is deleted once more by the next one. Raises UsageError, as `of_up`."""
    found = resources_of(state)
    return (
        _wanted(len(found) * len(found) // 2)
        and session.engine.has_own_state
        and all(_is_ours(one["urn"]) for one in found if one.get("custom"))
    )


def making(preview: Mapping[str, Any], state: Mapping[str, Any]) -> list[stacks.Making]:
    """What a run makes, by its preview. A proof is a record only."""
    ids = {one["urn"]: str(one.get("id") or "") for one in resources_of(state)}
    return [
        stacks.Making(step["urn"], ids.get(step["urn"], ""), inputs)
        for step, inputs in changing(preview)
        if step["op"] in _MAKING
    ]


def changing(preview: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The steps of a preview that make or change a resource, each with the digest of its inputs; no proofs."""
    for step in preview.get("steps", ()):
        if step["op"] in _CHANGING:
            new = step["newState"]
            if new.get("custom") and new["type"] not in (PROOF, *_NEITHER):
                yield step, _digest(new.get("inputs") or {})


def _digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of the inputs of a preview, which has "[secret]" in place of secrets; whatever `allow` says."""
    named = {name: value for name, value in inputs.items() if name not in stacks.BY_ALLOW}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def settle(session: stacks.Session, preview: Mapping[str, Any], *, everything: bool) -> None:
    """Remove the notes at the store of keys that the state has now. Raises SynapseMediaError.

    Args:
        everything: of every store, as after a run that was cut off.
    """
    from synapse_media.plugin import families
    from synapse_media.schema.resources import ProofInputs

    proved = {step["urn"] for step in preview.get("steps", ()) if step["op"] != "same"}
    for one in resources_of(session.state()):
        if one["type"] != PROOF or not (everything or one["urn"] in proved):
            continue
        inputs = model.read(ProofInputs, {**one["inputs"], "secretAccessKey": ""})
        try:
            with session.credentials():
                families.proof_administrator(inputs.administrator).note_known(inputs)
        except StoreError as error:
            raise SynapseMediaError(
                f"everything was made and proved, but the store still has the note that the key {inputs.access_key_id} "
                f"was not handed out, which could not be removed: {error} Run `synapse-media up --stack "
                f"{session.stack.name}` again: until then a run whose state lacks that key would delete it."
            ) from None


def _wanted(work: int) -> bool:
    said = os.environ.get(VARIABLE, "")
    if said not in ("", _EACH_STEP, _AT_END):
        raise UsageError(f"{VARIABLE} is {said!r}; allowed: {_EACH_STEP}, {_AT_END}. Unset it to have it decided.")
    return said == _AT_END or (not said and is_worth_it(work))


def is_worth_it(work: int) -> bool:
    """Whether so many resources times steps are worth a run whose state is written at the end."""
    return work >= WORTH_IT


def _is_found_again(step: Mapping[str, Any]) -> bool:
    kind = Urn.parse(step["urn"]).kind
    custom = (step.get("newState") or step.get("oldState") or {}).get("custom")
    if kind in _NEITHER or not custom:
        return True
    known = _found_again()
    return kind in known and (step["op"] in _HARMLESS or (step["op"] in _CHANGING and known[kind]))


def _is_ours(urn: str) -> bool:
    kind = Urn.parse(urn).kind
    return kind in _found_again() or kind in _NEITHER


@cache
def _found_again() -> dict[str, bool]:
    """{type of our plugin's resources: whether it is found again}. Loaded here: `--help` has no use for the schema."""
    from synapse_media.schema.resources import RESOURCES

    return {kind.token: kind.found_again for kind in RESOURCES}


def _marks_are_kept(session: stacks.Session, steps: Iterable[Mapping[str, Any]]) -> bool:
    """Whether new buckets can be told from others' by the tag that they get. One call an endpoint."""
    from synapse_media.plugin.look import keeps_marks

    new = [step["newState"]["inputs"] for step in steps if step["op"] in _CHANGING and _is_bucket(step)]
    asked: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for inputs in new:
        connection = inputs.get("connection")
        if not isinstance(connection, Mapping):
            return False  # known only once something was made
        place = model.read(Connection, connection)
        asked.setdefault((place.endpoint, place.variables), inputs)
    with session.credentials(), stacks.waiting("the store: does it keep tags?"):
        return all(keeps_marks(inputs) for inputs in asked.values())


def _is_bucket(step: Mapping[str, Any]) -> bool:
    return is_bucket(Urn.parse(step["urn"]).kind)
