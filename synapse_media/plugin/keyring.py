"""A key ring: all access keys of one user, by slot, kept alike for every provider.

A family says how its keys are listed, made and deleted (`KeyFamily`); the ring says when (`RingBase`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from synapse_media.errors import StoreError
from synapse_media.redaction import remember
from synapse_media.schema.resources import AccessKey, AnyRingInputs, AnyRingState
from synapse_media.settings import ADOPTED_SECRET
from synapse_media.store import credentials
from synapse_media.store.clients import Credential

from .resource import Context, PartialError, SchemaResource

In = TypeVar("In", bound=AnyRingInputs)
S = TypeVar("S", bound=AnyRingState[Any])


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key that was just made. `created_at` is ISO 8601, by the provider's clock where it tells."""

    key_id: str
    secret: str
    created_at: str

    def __post_init__(self) -> None:
        remember(self.secret)


class KeyFamily(ABC):
    """The keys of one user at one provider, for the time of one call. Every method may raise ApiError.

    Attributes:
        who: whose keys these are, as messages begin: "user synapse-media-example".
        notes: what `orphans` has to say of keys that it leaves alone.
    """

    who: str
    notes: Sequence[str] = ()

    @abstractmethod
    def listed(self) -> dict[str, bool] | None:
        """{access key ID: is it switched on} of every key of the user; None where the user is gone."""

    @abstractmethod
    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        """Make a key. One try, whatever fails: a repeated call would leave a key that nobody knows.

        Args:
            before: the keys there are already.
        """

    @abstractmethod
    def delete(self, key_id: str) -> None:
        """Delete a key; already gone is done."""

    @abstractmethod
    def orphans(self, known: frozenset[str]) -> list[str]:
        """Keys that an interrupted run made and nobody was ever given; none of `known`."""

    def require_ours(self, known: Collection[str]) -> None:  # noqa: B027 - where names tell, nothing else is asked
        """Refuse the keys of a user that is neither this store's nor taken over; asked before each change.

        Args:
            known: the keys in state.
        """

    def settle(self, *, ending: bool = False) -> str:
        """Forget what was noted to find orphans by, once it is in state, or undone.

        Args:
            ending: nobody will look again, so all of it is forgotten.

        Returns until when an orphan may still appear (ISO 8601); "" where none can.
        """
        return ""

    def usable(self) -> bool:
        """Whether there is still a bucket that the keys are for; asked only where a key may be in use."""
        return True

    def last_used(self, key_id: str) -> datetime | None:
        """When the key was last used (UTC); None where the provider does not tell."""
        return None

    def mend(self, slot: str, key_id: str) -> None:  # noqa: B027 - most keys can't be changed
        """Make a key that is kept be as the inputs say, where a family's keys can be changed."""

    def drifted(self, slots: Mapping[str, str]) -> Mapping[str, Any]:
        """Fields of the inputs that no longer describe the kept keys ({slot: access key ID}), as they are now."""
        return {}


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key where keys have names.

    Attributes:
        elsewhere: it is for another bucket, so another store's, whatever its name says.
    """

    key_id: str
    name: str
    active: bool = True
    elsewhere: bool = False


def key_name(user: str, owner: str, slot: str) -> str:
    """The name of the key in a slot; it follows from whose it is, so a key nobody noted is known again by it."""
    return f"{user}-{slot}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}"


class NamedKeys(KeyFamily):
    """Keys that carry a name: what a key is for is read from it, and nothing needs to be noted beforehand.

    Two checkouts may each have a state of the same store, so a name that follows from the store alone does not tell
    whose a key is: a key in use in the one state would be an orphan by the other.

    Attributes:
        names: {slot: name that its key is made under}, of every slot there may be. Nobody was ever given a key that
            has one of them and is not in this state.
        shared_names: the store was taken over, and what is found there under `names` may be in use: it is only
            reported.
    """

    names: Mapping[str, str]
    shared_names: bool = False

    @abstractmethod
    def found(self) -> list[NamedKey]:
        """Every key that carries one of `names`, and any other that reaches the bucket."""

    def listed(self) -> dict[str, bool] | None:
        return {key.key_id: key.active for key in self.found()}

    def orphans(self, known: frozenset[str]) -> list[str]:
        if self.shared_names:
            return []
        ours = frozenset(self.names.values())
        return [
            key.key_id for key in self.found() if key.name in ours and key.key_id not in known and not key.elsewhere
        ]


class RingBase(SchemaResource[In, S]):
    """All access keys of one user, by slot.

    `retire_confirmed` is leave for the run it is given in: in a state it is True only where somebody put it there, to
    have the ring deleted although a key may be in use.
    """

    not_imported = (
        "a key ring can't be imported: a store never shows a secret access key again. Let `up` make new keys, "
        "and delete the old ones once nothing uses them."
    )

    @abstractmethod
    def family(self, state: S) -> KeyFamily:
        """The keys that a state speaks of, by its inputs. No call is made."""

    def checked(self, inputs: In) -> tuple[In, dict[str, str]]:
        slots = tuple(sorted(inputs.slots))
        faults = {} if inputs.active in slots else {"active": "is not among the slots"}
        return replace(inputs, slots=slots), faults

    def foreseen(self, inputs: In, old: S | None) -> S:
        if old is None:
            return super().foreseen(inputs, old)
        if set(inputs.slots) == set(old.keys):
            return _with_active(replace(old, inputs=inputs))
        state = super().foreseen(inputs, old)
        if inputs.active in old.keys:
            state.access_key_id = old.keys[inputs.active].access_key_id
            state.secret_access_key = old.secrets[inputs.active]
        return state

    def make(self, inputs: In, context: Context) -> tuple[str, S]:
        state: S = self.described.state(inputs=inputs)  # type: ignore[assignment]
        return inputs.user_name, self._converge(state, context)

    def find(self, resource_id: str, inputs: In, state: S, context: Context) -> tuple[str, In, S] | None:
        family = self.family(replace(state, inputs=inputs))
        listed = family.listed()
        if listed is None:
            return None
        state.keys = {slot: key for slot, key in state.keys.items() if key.access_key_id in listed}
        state.secrets = {slot: secret for slot, secret in state.secrets.items() if slot in state.keys}
        _note_strangers(state, listed)
        _report(family.who, state, context)
        _with_active(state, inputs.active)
        drifted = family.drifted({slot: key.access_key_id for slot, key in state.keys.items()})
        found = replace(inputs, slots=tuple(sorted(state.keys)), **drifted)
        return inputs.user_name or resource_id, found, state

    def change(self, resource_id: str, old: S, inputs: In, context: Context) -> S:
        if old.inputs.adopt:
            # Once taken over: `adopt` may leave the stack file, and a key that was found is still somebody's.
            inputs = replace(inputs, adopt=True)
        old.inputs = inputs
        return self._converge(old, context)

    def remove(self, resource_id: str, state: S, last: In, context: Context) -> None:
        family = self.family(state)
        listed = family.listed()
        if listed is None:
            return
        require_leave(family, listed, state, confirmed=state.inputs.retire_confirmed or last.retire_confirmed)
        known = frozenset(key.access_key_id for key in state.keys.values())
        for key_id in family.orphans(known):
            family.delete(key_id)
        for key in state.keys.values():
            if is_brought(key):
                _say_left(family.who, key, context)
            else:
                family.delete(key.access_key_id)
        until = family.settle(ending=True)
        if until:
            context.warn(
                f"{family.who}: a key was asked for and no answer came. The store may still make it until {until}: "
                "look then whether the user has a key that nobody knows, and delete it."
            )

    def _converge(self, state: S, context: Context) -> S:
        """Make the ring as the state's inputs say; what was reached is in the PartialError where something stops it."""
        inputs, keys, secrets = state.inputs, state.keys, state.secrets
        slots, active = inputs.slots, inputs.active
        family = self.family(state)
        # The leave was for this run.
        state.inputs = replace(inputs, retire_confirmed=False)
        known = frozenset(key.access_key_id for key in keys.values())
        # A place that does not answer must not get into state by a PartialError: a refresh would look there.
        family.require_ours(known)
        orphans = family.orphans(known)
        listed = dict(family.listed() or {})
        alive = [slot for slot, key in keys.items() if key.access_key_id in listed]
        # What is no key of the user may be a secret: it must not get into state by a PartialError, either.
        brought = _brought(inputs.adopt_key, listed) if inputs.adopt_key and not alive else None
        try:
            for orphan in orphans:
                family.delete(orphan)
                listed.pop(orphan, None)
                context.warn(f"{family.who}: key {orphan}, made by an interrupted run and never handed out, is deleted")
            state.orphan_until = family.settle() or None
            for note in family.notes:
                context.warn(note)
            if state.orphan_until:
                context.warn(
                    f"{family.who}: an interrupted run asked for a key and got no answer. The store may still make it "
                    f"until {state.orphan_until}: run `synapse-media up` again after that, which deletes it, or finds "
                    "that there is none."
                )
            for slot in [slot for slot, key in keys.items() if key.access_key_id not in listed]:
                del keys[slot]
                secrets.pop(slot, None)
            handed_out = active in keys
            for slot in slots:
                if slot in keys:
                    family.mend(slot, keys[slot].access_key_id)
                    continue
                along = brought if slot == active else None
                made = along or family.make(slot, frozenset(listed))
                keys[slot] = AccessKey(access_key_id=made.key_id, created_at=made.created_at)
                secrets[slot] = made.secret
                listed[made.key_id] = True
                if along is None:
                    context.warn(f"{family.who}: key {made.key_id} is new. Render, and restart Synapse to use it.")
            for slot in [slot for slot in keys if slot not in slots]:
                key = keys[slot]
                if not handed_out:
                    raise StoreError(
                        f"key {key.access_key_id} is not retired: {keys[active].access_key_id}, which follows it, was "
                        "made only now and nobody has it yet. Keep both (`synapse-media rotate` does), render, restart "
                        "Synapse, and retire it then."
                    )
                if is_brought(key):
                    _say_left(family.who, key, context)
                else:
                    _require_confirmed(family, key, confirmed=inputs.retire_confirmed)
                    family.delete(key.access_key_id)
                    listed.pop(key.access_key_id, None)
                del keys[slot]
                secrets.pop(slot, None)
            _note_strangers(state, listed)
            _report(family.who, state, context)
        except StoreError as error:
            state.inputs = replace(state.inputs, slots=tuple(sorted(keys)))
            raise PartialError(str(error), inputs.user_name, _with_active(state)) from None
        return _with_active(state)


def _brought(key_id: str, listed: Mapping[str, bool]) -> MadeKey:
    """A key that was there before, brought along with an adopted user. When it was made is not known."""
    secret = credentials.read(ADOPTED_SECRET)
    if secret:
        Credential(key_id, secret).refuse_swapped("adopt_key", ADOPTED_SECRET)
    if key_id not in listed:
        # It is not shown: it may be a secret that was put there in place of its ID.
        raise StoreError(
            f"adopt_key: the user has no key of this ID; it has {', '.join(sorted(listed)) or 'none'}. Name one of "
            "them, or leave the setting out to have a new one made."
        )
    if not secret:
        raise StoreError(
            f"adopt_key: the environment has no {ADOPTED_SECRET}: set it to the secret access key of {key_id}. Once "
            "it is in the encrypted state it is not needed any more."
        )
    return MadeKey(key_id, secret, "")


def is_brought(key: AccessKey) -> bool:
    """Whether a key of the ring was there before it: somebody else's to delete."""
    return not key.created_at


def _say_left(who: str, key: AccessKey, context: Context) -> None:
    context.warn(
        f"{who}: key {key.access_key_id} was brought along and is left as it is. Delete it at the provider once "
        "nothing uses it."
    )


def require_leave(family: KeyFamily, listed: Mapping[str, bool], state: AnyRingState[Any], *, confirmed: bool) -> None:
    """Refuse to delete a ring one of whose keys may be in use, unless the stack file's `allow` gave leave.

    No store tells that a key is unused: what it tells of the last use may be the proof's, or hours old.
    A key that was brought along stays, so nobody is asked for it.
    """
    if confirmed:
        return
    used = [key.access_key_id for key in state.keys.values() if key.access_key_id in listed and not is_brought(key)]
    if used and family.usable():
        raise StoreError(
            f"{family.who}: key {', '.join(used)} may be in use and is not deleted: with it Synapse would lose its "
            "media. Run `synapse-media destroy`, which asks; or put <homeserver>/retire-key into the stack file's "
            "allow (retire-key into that of its arguments, where a program declares the store), run `up`, and then "
            "this again."
        )


def _with_active(state: S, active: str = "") -> S:
    """The state, with the key of the active slot (by default, that of its inputs)."""
    slot = active or state.inputs.active
    state.access_key_id = state.keys[slot].access_key_id if slot in state.keys else ""
    state.secret_access_key = state.secrets[slot] if slot in state.keys else ""
    return state


def _note_strangers(state: AnyRingState[Any], listed: Mapping[str, bool]) -> None:
    ours = {key.access_key_id for key in state.keys.values()}
    state.unknown_keys = tuple(sorted(set(listed) - ours))
    state.inactive_keys = tuple(sorted(key for key in ours if listed.get(key) is False))


def _report(who: str, state: AnyRingState[Any], context: Context) -> None:
    for key in state.unknown_keys:
        context.warn(f"{who} has the key {key}, not made by this stack. It is left alone: delete it if nobody uses it.")
    for key in state.inactive_keys:
        context.warn(
            f"{who}: key {key} was switched off by somebody. It is left so; Synapse can't use it. Switch it "
            "on at the provider, or rotate."
        )


_NEVER_TOLD: Final = "this store does not tell when a key was last used"


def _require_confirmed(family: KeyFamily, old: AccessKey, *, confirmed: bool) -> None:
    """Refuse to retire a key unless somebody says that Synapse has moved on to the next.

    When a store says that a key was last used does not tell: the proof, `prove` and `render` use the new one, too.
    """
    if confirmed:
        return
    used = family.last_used(old.access_key_id)
    when = (
        f"it was last used at {used:%Y-%m-%d %H:%M} UTC"
        if used
        else "this store does not tell when a key was last used"
    )
    raise StoreError(
        f"key {old.access_key_id} is not retired: only you know whether Synapse has moved on to the next one ({when}). "
        "Render, restart Synapse, and then confirm: `synapse-media rotate --finish --confirm`, or "
        "<homeserver>/retire-key in the stack file's allow; of a store that a program declares, retire-key in allow of "
        "its arguments."
    )
