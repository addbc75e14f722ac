"""A key ring: all access keys of one user, by slot, kept alike for every provider.

A family says how its keys are listed, made and deleted (`KeyFamily`); the ring says when (`RingBase`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from synapse_media.errors import StoreError
from synapse_media.redaction import remember
from synapse_media.settings import ADOPTED_SECRET
from synapse_media.store import credentials

from .resource import UNKNOWN, Context, Found, PartialError, Resource, Values, text

_PROOF_TIME: Final = timedelta(minutes=5)


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

    def drifted(self, slots: Mapping[str, str]) -> Values:
        """Inputs that no longer describe the kept keys ({slot: access key ID}), as they are now."""
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

    Attributes:
        names: {slot: name of its key}, of every slot there may be.
        adopted: the store was taken over, or taken up again: what is found there may be in use, and is only reported.
    """

    names: Mapping[str, str]
    adopted: bool = False

    @abstractmethod
    def found(self) -> list[NamedKey]:
        """Every key that carries one of `names`, and any other that reaches the bucket."""

    def listed(self) -> dict[str, bool] | None:
        return {key.key_id: key.active for key in self.found()}

    def orphans(self, known: frozenset[str]) -> list[str]:
        if self.adopted:
            return []
        ours = frozenset(self.names.values())
        return [
            key.key_id for key in self.found() if key.name in ours and key.key_id not in known and not key.elsewhere
        ]


class RingBase(Resource):
    """All access keys of one user, by slot.

    Inputs: `userName`, `active` (slot), `slots` (all slots there shall be), `retireConfirmed`, `connection`, `adoptKey`
    (an existing key that becomes the first, its secret in the environment as ADOPTED_SECRET).
    Outputs: the inputs, `keys` {slot: {accessKeyId, createdAt}} (createdAt "": it was brought along, and is never
    deleted), `secrets` {slot: secret access key} (secret), `accessKeyId` and `secretAccessKey` (secret) of the active
    slot, `unknownKeys`, `inactiveKeys`, `orphanUntil` (ISO 8601; only where a key was asked for and no answer came: so
    long the store may still make it, and each `up` looks).
    `retireConfirmed` is leave for the run it is given in: as an output it is True only where somebody put it there, to
    have the ring deleted although a key may be in use.
    """

    secrets = frozenset({"secrets", "secretAccessKey"})
    replace_on = frozenset({"userName"})
    required = frozenset({"userName", "active", "slots", "connection"})
    # They are about one run; that they are gone again is no change.
    passing = frozenset({"retireConfirmed", "adoptKey"})

    @abstractmethod
    def family(self, values: Values) -> KeyFamily:
        """The keys that a resource's inputs or outputs speak of. No call is made."""

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        inputs, failures = super().check({"retireConfirmed": False, **inputs})
        slots, active = inputs.get("slots"), inputs.get("active")
        if not isinstance(slots, list) or not all(isinstance(slot, str) for slot in slots):
            return inputs, {"slots": "is not a list of names", **failures}
        if active not in slots and "active" not in failures:
            failures["active"] = "is not among the slots"
        return {**inputs, "slots": sorted(slots)}, failures

    def unsettled(self, outputs: Values) -> tuple[str, ...]:
        return ("orphanUntil",) if outputs.get("orphanUntil") else ()

    def planned(self, inputs: Values, old: Values | None) -> Values:
        keys = (old or {}).get("keys", {})
        active = inputs.get("active")
        if old is not None and set(inputs["slots"]) == set(keys):
            return {**old, **inputs, **_of_active(active, keys, old.get("secrets", {}))}
        known = active in keys
        return {
            **inputs,
            "keys": UNKNOWN,
            "secrets": UNKNOWN,
            "accessKeyId": keys[active]["accessKeyId"] if known else UNKNOWN,
            "secretAccessKey": (old or {}).get("secrets", {})[active] if known else UNKNOWN,
            "unknownKeys": UNKNOWN,
            "inactiveKeys": UNKNOWN,
        }

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        outputs: Values = {**inputs, "keys": {}, "secrets": {}, "unknownKeys": [], "inactiveKeys": []}
        return text(inputs, "userName"), self._converge(outputs, inputs, context)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise StoreError(
                "a key ring can't be imported: a store never shows a secret access key again. Let `up` make new keys, "
                "and delete the old ones once nothing uses them."
            )
        family = self.family(inputs)
        listed = family.listed()
        if listed is None:
            return None
        kept = {slot: key for slot, key in outputs.get("keys", {}).items() if key["accessKeyId"] in listed}
        outputs = {
            **outputs,
            "keys": kept,
            "secrets": {slot: secret for slot, secret in outputs.get("secrets", {}).items() if slot in kept},
        }
        outputs |= _strangers(listed, kept)
        _report(family.who, outputs, context)
        outputs |= _of_active(inputs.get("active"), kept, outputs["secrets"])
        drifted = family.drifted({slot: key["accessKeyId"] for slot, key in kept.items()})
        return Found(text(inputs, "userName", resource_id), {**inputs, "slots": sorted(kept), **drifted}, outputs)

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        if old.get("adopt"):
            # Once taken over: `adopt` may leave the stack file, and a key that was found is still somebody's.
            inputs = {**inputs, "adopt": True}
        outputs: Values = {"keys": {}, "secrets": {}, **old, **inputs}
        outputs["keys"], outputs["secrets"] = dict(outputs["keys"]), dict(outputs["secrets"])
        return self._converge(outputs, inputs, context)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        family = self.family({"userName": resource_id, **outputs})
        listed = family.listed()
        if listed is None:
            return
        require_leave(family, listed, outputs, context)
        keys = list(outputs.get("keys", {}).values())
        known = frozenset(key["accessKeyId"] for key in keys)
        for key_id in family.orphans(known):
            family.delete(key_id)
        for key in keys:
            if is_brought(key):
                _say_left(family.who, key, context)
            else:
                family.delete(key["accessKeyId"])
        until = family.settle(ending=True)
        if until:
            context.warn(
                f"{family.who}: a key was asked for and no answer came. The store may still make it until {until}: "
                "look then whether the user has a key that nobody knows, and delete it."
            )

    def _converge(self, outputs: Values, inputs: Values, context: Context) -> Values:
        """Make the ring as the inputs say; what was reached is in the PartialError where something stops it."""
        slots, active = list(inputs["slots"]), inputs["active"]
        family = self.family(inputs)
        keys, secrets = outputs["keys"], outputs["secrets"]
        # The leave was for this run.
        outputs["retireConfirmed"] = False
        known = frozenset(key["accessKeyId"] for key in keys.values())
        # A place that does not answer must not get into state by a PartialError: a refresh would look there.
        family.require_ours(known)
        orphans = family.orphans(known)
        listed = dict(family.listed() or {})
        try:
            for orphan in orphans:
                family.delete(orphan)
                listed.pop(orphan, None)
                context.warn(f"{family.who}: key {orphan}, made by an interrupted run and never handed out, is deleted")
            outputs.pop("orphanUntil", None)
            until = family.settle()
            for note in family.notes:
                context.warn(note)
            if until:
                outputs["orphanUntil"] = until
                context.warn(
                    f"{family.who}: an interrupted run asked for a key and got no answer. The store may still make it "
                    f"until {until}: run `synapse-media up` again after that, which deletes it, or finds that there is "
                    "none."
                )
            for slot in [slot for slot, key in keys.items() if key["accessKeyId"] not in listed]:
                del keys[slot]
                secrets.pop(slot, None)
            handed_out = active in keys
            for slot in slots:
                if slot in keys:
                    family.mend(slot, keys[slot]["accessKeyId"])
                    continue
                brought = text(inputs, "adoptKey") if slot == active and not keys else ""
                made = _brought(brought, listed) if brought else family.make(slot, frozenset(listed))
                keys[slot] = {"accessKeyId": made.key_id, "createdAt": made.created_at}
                secrets[slot] = made.secret
                listed[made.key_id] = True
                if not brought:
                    context.warn(f"{family.who}: key {made.key_id} is new. Render, and restart Synapse to use it.")
            for slot in [slot for slot in keys if slot not in slots]:
                if not handed_out:
                    raise StoreError(
                        f"key {keys[slot]['accessKeyId']} is not retired: {keys[active]['accessKeyId']}, which follows "
                        "it, was made only now and nobody has it yet. Keep both (`synapse-media rotate` does), render, "
                        "restart Synapse, and retire it then."
                    )
                if is_brought(keys[slot]):
                    _say_left(family.who, keys[slot], context)
                else:
                    _may_retire(family, keys[slot], keys[active], confirmed=bool(inputs.get("retireConfirmed")))
                    family.delete(keys[slot]["accessKeyId"])
                    listed.pop(keys[slot]["accessKeyId"], None)
                del keys[slot]
                secrets.pop(slot, None)
            outputs |= _strangers(listed, keys)
            _report(family.who, outputs, context)
        except StoreError as error:
            outputs |= {"slots": sorted(keys), **_of_active(active, keys, secrets)}
            raise PartialError(str(error), text(inputs, "userName"), outputs) from None
        return {**outputs, **_of_active(active, keys, secrets)}


def _brought(key_id: str, listed: Mapping[str, bool]) -> MadeKey:
    """A key that was there before, brought along with an adopted user. When it was made is not known."""
    if key_id not in listed:
        raise StoreError(
            f"adopt_key: the user has no key {key_id!r}; it has {', '.join(sorted(listed)) or 'none'}. Name one of "
            "them, or leave the setting out to have a new one made."
        )
    secret = credentials.read(ADOPTED_SECRET)
    if not secret:
        raise StoreError(
            f"adopt_key: the environment has no {ADOPTED_SECRET}: set it to the secret access key of {key_id}. Once "
            "it is in the encrypted state it is not needed any more."
        )
    return MadeKey(key_id, secret, "")


def is_brought(key: Mapping[str, str]) -> bool:
    """Whether a key of the ring was there before it: somebody else's to delete."""
    return not key.get("createdAt")


def _say_left(who: str, key: Mapping[str, str], context: Context) -> None:
    context.warn(
        f"{who}: key {key['accessKeyId']} was brought along and is left as it is. Delete it at the provider once "
        "nothing uses it."
    )


def require_leave(family: KeyFamily, listed: Mapping[str, bool], outputs: Values, context: Context) -> None:
    """Refuse to delete a ring one of whose keys may be in use, unless the stack file's `allow` gave leave.

    A key that was brought along stays, so nobody is asked for it.
    """
    if outputs.get("retireConfirmed") or context.inputs.get("retireConfirmed"):
        return
    used = [
        key["accessKeyId"]
        for key in outputs.get("keys", {}).values()
        if key["accessKeyId"] in listed and not is_brought(key) and not _only_proved(family, key)
    ]
    if used and family.usable():
        raise StoreError(
            f"{family.who}: key {', '.join(used)} may be in use and is not deleted: with it Synapse would lose its "
            "media. Run `synapse-media destroy`, which asks; or put <homeserver>/retire-key into the stack file's "
            "allow, run `up`, and then this again."
        )


def _only_proved(family: KeyFamily, key: Mapping[str, str]) -> bool:
    """Whether the store tells that nobody but the proof has used a key."""
    used = family.last_used(key["accessKeyId"])
    return used is not None and used - datetime.fromisoformat(key["createdAt"]) < _PROOF_TIME


def _of_active(active: Any, keys: Mapping[str, Any], secrets: Mapping[str, Any]) -> Values:
    if active not in keys:
        return {"accessKeyId": "", "secretAccessKey": ""}
    return {"accessKeyId": keys[active]["accessKeyId"], "secretAccessKey": secrets[active]}


def _strangers(listed: Mapping[str, bool], keys: Mapping[str, Any]) -> Values:
    ours = {key["accessKeyId"] for key in keys.values()}
    return {
        "unknownKeys": sorted(set(listed) - ours),
        "inactiveKeys": sorted(key for key in ours if listed.get(key) is False),
    }


def _report(who: str, outputs: Values, context: Context) -> None:
    for key in outputs["unknownKeys"]:
        context.warn(f"{who} has the key {key}, not made by this stack. It is left alone: delete it if nobody uses it.")
    for key in outputs["inactiveKeys"]:
        context.warn(
            f"{who}: key {key} was switched off by somebody. It is left so; Synapse can't use it. Switch it "
            "on at the provider, or rotate."
        )


def _may_retire(family: KeyFamily, old: Mapping[str, str], new: Mapping[str, str], *, confirmed: bool) -> None:
    if confirmed:
        return
    if new["createdAt"]:
        made = datetime.fromisoformat(new["createdAt"])
        why = retire_fault(family.last_used(old["accessKeyId"]), family.last_used(new["accessKeyId"]), made)
    else:
        why = f"{new['accessKeyId']} was brought along, so its uses don't tell whether Synapse has moved on to it"
    if why:
        raise StoreError(
            f"key {old['accessKeyId']} is not retired: {why}. Render, restart Synapse, and then confirm: "
            "`synapse-media rotate --finish --confirm`, or <homeserver>/retire-key in the stack file's allow."
        )


def retire_fault(old_used: datetime | None, new_used: datetime | None, new_made: datetime) -> str:
    """Why the old key can't be taken for unused; "" if Synapse has moved on to the new one.

    The proof uses the new key as soon as it is made; only a use well after that is Synapse's.
    """
    if new_used is None:
        return "this store does not tell when a key was last used"
    if new_used - new_made < _PROOF_TIME:
        return "nobody but the proof has used the new key yet"
    if old_used is not None and old_used >= new_used:
        return f"it was used at {old_used:%Y-%m-%d %H:%M} UTC, after the new one was"
    return ""
