"""A key ring: all access keys of one user, by slot, with the same life cycle at every provider.

`KeyFamily` is how a provider's keys are listed, created and deleted; `RingBase` decides when.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard, TypeVar

from synapse_media.errors import StoreError
from synapse_media.redaction import remember
from synapse_media.schema.connection import Connection
from synapse_media.schema.resources import AccessKey, AnyRingInputs, AnyRingState
from synapse_media.settings import ADOPTED_SECRET
from synapse_media.store import credentials
from synapse_media.store.answers import NO_ANSWER, ApiError
from synapse_media.store.clients import Credential, call, s3_client
from synapse_media.store.objects import look
from synapse_media.urn import Urn

from .resource import Context, PartialError, SchemaResource

In = TypeVar("In", bound=AnyRingInputs)
S = TypeVar("S", bound=AnyRingState[Any])


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key that was just created. `created_at` is ISO 8601, by the provider's clock if it reports one."""

    key_id: str
    secret: str
    created_at: str

    def __post_init__(self) -> None:
        remember(self.secret)


class KeyFamily(ABC):
    """The keys of one user at one provider, for the duration of one call. Every method may raise ApiError.

    Attributes:
        who: the owner of the keys, as messages begin: "user synapse-media-example".
        notes: warnings from `orphans` about keys that it does not delete.
    """

    who: str
    notes: Sequence[str] = ()

    @abstractmethod
    def listed(self) -> dict[str, bool] | None:
        """{access key ID: whether it is enabled} of every key of the user; None if the user does not exist."""

    @abstractmethod
    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        """Create a key, without retries.

        A request that fails without a response may still have created a key, whose secret is then lost. A retry would
        create a second one, and leave the first valid and unknown.

        Args:
            before: the IDs of the existing keys.
        """

    @abstractmethod
    def delete(self, key_id: str) -> None:
        """Delete a key. Succeeds if it does not exist."""

    @abstractmethod
    def orphans(self, known: frozenset[str]) -> list[str]:
        """Keys that an interrupted run created and that were never handed out, without those in `known`."""

    def require_ours(self, known: Collection[str]) -> None:  # noqa: B027 - where names tell, nothing else is asked
        """Raises StoreError if the user is neither this store's nor adopted. Called before each change.

        Args:
            known: the keys in the state.
        """

    def settle(self, *, ending: bool = False) -> str:
        """Clear the journal that orphans are found by, of entries whose keys are in the state or deleted.

        Args:
            ending: the ring is being deleted, so clear all of it.

        Returns until when an orphan may still appear (ISO 8601); "" if none can.
        """
        return ""

    def usable(self) -> bool:
        """Whether the bucket of the keys still exists. Called only if a key may be in use."""
        return True

    def still_works(self, key: Credential) -> str:
        """Where a key was accepted just now that is not among those listed; "" if it is gone, or nobody can tell.

        Called only for a key that seems to be gone, whose secret would be lost for good.
        """
        return ""

    def last_used(self, key_id: str) -> datetime | None:
        """When the key was last used (UTC); None if the provider does not report it."""
        return None

    def mend(self, slot: str, key_id: str) -> None:  # noqa: B027 - most keys can't be changed
        """Update a kept key to the inputs, if this provider's keys can be changed."""

    def drifted(self, slots: Mapping[str, str]) -> Mapping[str, Any]:
        """{input: actual value} for the inputs from which the kept keys ({slot: access key ID}) differ."""
        return {}


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key at a provider whose keys have names.

    Attributes:
        elsewhere: it is for another bucket, so it belongs to another store, whatever its name.
    """

    key_id: str
    name: str
    active: bool = True
    elsewhere: bool = False


def key_name(user: str, owner: str, slot: str) -> str:
    """The name of the key in a slot, derived from its owner, so that a key missing from the state is recognised."""
    return f"{user}-{slot}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}"


class NamedKeys(KeyFamily):
    """Keys with names, by which orphans are recognised.

    A name alone does not tell that a key was never handed out: a ring that was replaced with `retain_on_delete`, or
    taken out of the state, left keys of the same names in use. So the store holds of each new key that it is not known
    yet, until the proof, without which nothing is rendered, finds the key in the state (`note_known`) or the ring
    itself does. Where that can't be read any more, a key is kept and reported.
    """

    @abstractmethod
    def found(self) -> list[NamedKey]:
        """Every key of which `is_unissued` is true, every other key that has access to the bucket, and the ring's."""

    @abstractmethod
    def is_unissued(self, name: str) -> bool:
        """Whether a key of this name that is not in the state was made by it, and never handed out.

        A family whose names contain the nonce of this state recognises them by the nonce alone, since user and
        homeserver may have been changed after the run that was interrupted.
        """

    def listed(self) -> dict[str, bool] | None:
        return {key.key_id: key.active for key in self.found()}

    def orphans(self, known: frozenset[str]) -> list[str]:
        return [
            key.key_id
            for key in self.found()
            if self.is_unissued(key.name) and key.key_id not in known and not key.elsewhere
        ]


class RingBase(SchemaResource[In, S]):
    """All access keys of one user, by slot.

    `retire_confirmed` is valid for one run. In a state it is True only if `destroy` set it there, to allow deleting the
    ring although a key may be in use.
    """

    not_imported = (
        "a key ring can't be imported: a store never shows a secret access key again. Let `up` create new keys, "
        "and delete the old ones once they are unused."
    )

    @abstractmethod
    def family(self, state: S) -> KeyFamily:
        """The keys described by the inputs of a state. Makes no call."""

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
        _require_gone(family, listed, state)
        if listed is None:
            return None
        state.keys = {slot: key for slot, key in state.keys.items() if key.access_key_id in listed}
        state.secrets = {slot: secret for slot, secret in state.secrets.items() if slot in state.keys}
        known = frozenset(key.access_key_id for key in state.keys.values())
        # Of a user without other keys nothing more is asked.
        orphans = family.orphans(known) if set(listed) - known else []
        if orphans:
            # Shows as a change, so that the next `up` deletes them.
            state.orphan_until = state.orphan_until or datetime.now(UTC).isoformat()
        _note_strangers(state, {key: active for key, active in listed.items() if key not in orphans})
        _report(family.who, state, context)
        _with_active(state, inputs.active)
        drifted = family.drifted({slot: key.access_key_id for slot, key in state.keys.items()})
        found = replace(inputs, slots=tuple(sorted(state.keys)), **drifted)
        return inputs.user_name or resource_id, found, state

    def change(self, resource_id: str, old: S, inputs: In, context: Context) -> S:
        if old.inputs.adopt:
            # Even if `adopt` was removed from the stack file since, the keys found at adoption may be in use elsewhere.
            inputs = replace(inputs, adopt=True)
        old.inputs = inputs
        return self._converge(old, context)

    def remove(self, resource_id: str, state: S, last: In, context: Context) -> None:
        family = self.family(state)
        listed = family.listed()
        _require_gone(family, listed, state)
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
                f"{family.who}: a key was requested and no response came. The store may still create it until {until}: "
                "check then whether the user has an unknown key, and delete it."
            )

    def _converge(self, state: S, context: Context) -> S:
        """Bring the ring into the state that its inputs describe. Raises PartialError with what was achieved."""
        inputs, keys, secrets = state.inputs, state.keys, state.secrets
        slots, active = inputs.slots, inputs.active
        family = self.family(state)
        # The confirmation was for this run only.
        state.inputs = replace(inputs, retire_confirmed=False)
        known = frozenset(key.access_key_id for key in keys.values())
        # Calls outside of the `try`: if the user or endpoint is wrong, a PartialError would put it into the state.
        family.require_ours(known)
        orphans = family.orphans(known)
        listed = dict(family.listed() or {})
        _require_gone(family, listed, state)
        alive = [slot for slot, key in keys.items() if key.access_key_id in listed]
        # Also outside: an ID that is not a key of the user may be a secret, which must not enter the state in plain
        # text.
        brought = _brought(inputs.adopt_key, listed) if inputs.adopt_key and not alive else None
        try:
            for orphan in orphans:
                family.delete(orphan)
                listed.pop(orphan, None)
                context.warn(
                    f"{family.who}: key {orphan}, created by an interrupted run and never handed out, was deleted"
                )
            state.orphan_until = family.settle() or None
            for note in family.notes:
                context.warn(note)
            if state.orphan_until:
                context.warn(
                    f"{family.who}: an interrupted run requested a key and got no response. The store may still "
                    "create it "
                    f"until {state.orphan_until}: run `synapse-media up` again after that, which deletes it if it "
                    "exists."
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
                made = along or _make(family, slot, frozenset(listed), inputs)
                keys[slot] = AccessKey(access_key_id=made.key_id, created_at=made.created_at)
                secrets[slot] = made.secret
                listed[made.key_id] = True
                if along is None:
                    context.note(f"{family.who}: key {made.key_id} is new. Render, and restart Synapse to use it.")
            for slot in [slot for slot in keys if slot not in slots]:
                key = keys[slot]
                if not handed_out:
                    raise StoreError(
                        f"key {key.access_key_id} is not retired: its successor {keys[active].access_key_id} was "
                        "created in "
                        "this run, and Synapse does not have it yet. Keep both (`synapse-media rotate` does), "
                        "render, restart "
                        "Synapse, and retire it then."
                    )
                if is_brought(key):
                    _say_left(family.who, key, context)
                else:
                    _require_confirmed(family, key, context.urn, confirmed=inputs.retire_confirmed)
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


def _make(family: KeyFamily, slot: str, before: frozenset[str], inputs: AnyRingInputs) -> MadeKey:
    """A new key. Raises ApiError, with the next step where nobody knows whether the key was made.

    A 429 without the store's own document is of that kind: who sent it may have passed the request on before.
    """
    own = {credentials.read(name) for name in inputs.connection.variables}
    try:
        made = family.make(slot, before)
        _require_new(family.who, made, before | own)
        return made
    except ApiError as error:
        if not error.is_anybodys:
            raise
        said = str(error)
        said += "" if said.endswith("?") else "."
        then = "names such a key, which may be deleted" if inputs.adopt else "finds such a key and replaces it"
        raise ApiError(
            error.code,
            error.status,
            f"{said} That is no answer of the store's own: the key may have been made, so the request is not "
            "repeated. Run `synapse-media up` again, after a minute if there were too many requests (HTTP 429): it "
            f"{then}.",
        ) from None


def _require_new(who: str, made: MadeKey, before: frozenset[str]) -> None:
    """Raises ApiError for an answer that has no key, or one that was there before, the administrator's among them."""
    if not (is_printed(made.key_id) and is_printed(made.secret)):
        fault = "has no key, or one with characters that no key has"
    elif made.key_id in before:
        fault = "has a key that was there before"
    else:
        return
    raise ApiError(NO_ANSWER, 0, f"{who}: the answer to the call that makes a key {fault}")


def is_printed(part: object) -> TypeGuard[str]:
    """Whether a part of an answer can be an access key ID or a secret access key: it has no blank and no control."""
    return isinstance(part, str) and _PRINTED.fullmatch(part) is not None


_PRINTED: Final = re.compile("[!-~]+")


def accepted_at(key: Credential, connection: Connection, bucket: str = "") -> str:
    """Where a key is accepted over S3; "" if it is not. Raises ApiError where nobody can tell.

    Args:
        bucket: the one that it is for; "": it may list all.
    """
    said = _said_to(key, connection, bucket)
    if said is not None:
        if said.bad_key:
            return ""
        if not (said.denied or said.code == "NoSuchBucket"):
            raise said
        # A store may answer whom it does not know in the same way.
        stranger = Credential(f"AKIA{secrets.token_hex(8).upper()}", secrets.token_hex(20))
        other = _said_to(stranger, connection, bucket)
        if other is None or not other.bad_key:
            return ""
    return f"{f'list_objects_v2 {bucket}' if bucket else 'list_buckets'} at {connection.endpoint}"


def _said_to(key: Credential, connection: Connection, bucket: str) -> ApiError | None:
    s3 = s3_client(connection, key)
    try:
        if bucket:
            look(s3, bucket)
        else:
            call(s3, "list_buckets")
    except ApiError as error:
        return error
    return None


def _require_gone(family: KeyFamily, listed: Mapping[str, bool] | None, state: AnyRingState[Any]) -> None:
    """Raises StoreError if a key of the state that is not listed works all the same: the listing is not believed."""
    for slot, key in state.keys.items():
        if key.access_key_id in (listed or {}) or not state.secrets.get(slot):
            continue
        where = family.still_works(Credential(key.access_key_id, state.secrets[slot]))
        if where:
            raise not_gone(family.who, key.access_key_id, where)


def not_gone(who: str, key_id: str, where: str) -> StoreError:
    """The error for a key that is not listed, and was accepted just now by `where`."""
    return StoreError(
        f"{who}: key {key_id} is not among its keys any more, by the store's own word, and yet it was accepted just "
        f"now by {where}. Nothing was changed. A store may take minutes to forget a key: if it was deleted, run this "
        "again later. If not, the answer about the keys was wrong: check the API that manages them, and any proxy in "
        "front of it."
    )


def _brought(key_id: str, listed: Mapping[str, bool]) -> MadeKey:
    """The key of an adopted user that `adopt_key` names. Its creation time is unknown."""
    secret = credentials.read(ADOPTED_SECRET)
    if secret:
        Credential(key_id, secret).refuse_swapped("adopt_key", ADOPTED_SECRET)
    if key_id not in listed:
        # The value is not shown: it may be a secret given instead of the ID.
        raise StoreError(
            f"adopt_key: the user has no key of this ID; it has {', '.join(sorted(listed)) or 'none'}. Name one of "
            "them, or remove the setting to have a new one created."
        )
    if not secret:
        raise StoreError(
            f"adopt_key: the environment has no {ADOPTED_SECRET}: set it to the secret access key of {key_id}. Once "
            "it is in the encrypted state, it is no longer needed."
        )
    return MadeKey(key_id, secret, "")


def is_brought(key: AccessKey) -> bool:
    """Whether a key was adopted, so that it is not ours to delete."""
    return not key.created_at


def _say_left(who: str, key: AccessKey, context: Context) -> None:
    context.warn(
        f"{who}: key {key.access_key_id} was adopted and is not deleted. Delete it at the provider once it is unused."
    )


def require_leave(family: KeyFamily, listed: Mapping[str, bool], state: AnyRingState[Any], *, confirmed: bool) -> None:
    """Raises StoreError if a key of a ring to be deleted may be in use, unless that was confirmed by `allow`.

    No store can report that a key is unused: the last use may be that of the proof, or be reported hours late.
    Adopted keys are not deleted, so they need no confirmation.
    """
    if confirmed:
        return
    used = [key.access_key_id for key in state.keys.values() if key.access_key_id in listed and not is_brought(key)]
    if used and family.usable():
        raise StoreError(
            f"{family.who}: key {', '.join(used)} may be in use and is not deleted: Synapse would lose access to its "
            "media. Run `synapse-media destroy`, which asks; or put <homeserver>/retire-key into the stack file's "
            "allow (retire-key into that of its arguments, where a program declares the store), run `up`, and then "
            "this again."
        )


def _with_active(state: S, active: str = "") -> S:
    """The state, with its outputs set to the key of the active slot (by default, that of its inputs)."""
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
        context.warn(
            f"{who} has the key {key}, not created by this stack. It is not changed: delete it if it is unused."
        )
    for key in state.inactive_keys:
        context.warn(
            f"{who}: key {key} was disabled outside of this stack, so Synapse can't use it. Enable it at the "
            "provider, or "
            "rotate."
        )


def _require_confirmed(family: KeyFamily, old: AccessKey, urn: str, *, confirmed: bool) -> None:
    """Raises StoreError unless the operator confirmed that Synapse uses the next key.

    The store's time of last use can't replace that: the proof and `prove` use keys too.
    """
    if confirmed:
        return
    used = family.last_used(old.access_key_id)
    when = (
        f"it was last used at {used:%Y-%m-%d %H:%M} UTC; a store may record a use hours later, so wait before you "
        "conclude from this time that it is unused"
        if used
        else "this store does not tell when a key was last used"
    )
    ring = Urn.parse(urn)
    raise StoreError(
        f"key {old.access_key_id} is not retired: only you know whether Synapse uses the next one already ({when}). "
        f"Render, restart Synapse, and then confirm: `synapse-media rotate --stack {ring.stack} --server {ring.name} "
        "--finish --confirm`, or "
        "<homeserver>/retire-key in the stack file's allow; of a store that a program declares, retire-key in allow of "
        "its arguments."
    )
