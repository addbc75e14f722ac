"""Buckets: one life cycle for every provider.

`BucketFamily` is how a provider's buckets are found, created, marked, configured, emptied and deleted; `BucketBase`
decides when.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from synapse_media.errors import StoreError
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import camel
from synapse_media.schema.resources import (
    AnyBucketInputs,
    AnyBucketState,
)
from synapse_media.store.answers import ApiError
from synapse_media.store.objects import Elsewhere

from .resource import Context, PartialError, SchemaResource, Values

In = TypeVar("In", bound=AnyBucketInputs)
S = TypeVar("S", bound=AnyBucketState[Any])

# ---- the ownership of buckets


class Marked(Protocol):
    """The identity of the store in a mark."""

    @property
    def owner(self) -> str: ...

    @property
    def former_owner(self) -> str | None: ...


def marks_of(*marked: Marked) -> frozenset[str]:
    """The marks that identify a bucket as this store's."""
    return frozenset(mark for one in marked for mark in (one.owner, one.former_owner) if mark)


def is_marked(mark: str, marked: Marked) -> bool:
    """Whether the mark is unique to this store: then a bucket missing from the state is reused, even with contents."""
    return mark in marks_of(marked)


def require_mark(bucket: str, mark: str, where: str, *marked: Marked) -> None:
    """Raises StoreError for a bucket with another store's mark. Called before each change and each delete.

    Args:
        where: the holder of the mark, for the message.
        marked: the marks of this store.
    """
    ours = marks_of(*marked)
    if not mark or mark in ours:
        return
    stack, _, homeserver = mark.rpartition("/")
    if stack in {one.rpartition("/")[0] for one in ours}:
        raise StoreError(
            f"bucket: {bucket!r} is marked as that of {homeserver}, in this very stack: it was neither changed nor "
            f"deleted. If a store of {homeserver} has it, in this stack or in that of another checkout with a state of "
            f"its own, choose another bucket. If none has, a renaming that was cut off left the mark: remove {where}, "
            "and run `synapse-media up --refresh`, which marks the bucket as this store's."
        )
    raise StoreError(
        f"bucket: {bucket!r} is marked as that of another stack ({mark}): it was neither changed nor deleted. "
        f"Choose another bucket, or remove {where} if that stack no longer exists. To keep a bucket that was this "
        "stack's without managing it, put <homeserver>/retain-bucket into the stack file's allow."
    )


def require_same_place(bucket: str, mark: str, endpoint: str, former_endpoint: str) -> None:
    """Raises StoreError for an unmarked bucket at another endpoint than that in the state: it may be anyone's."""
    if not mark and former_endpoint != endpoint:
        raise StoreError(
            f"bucket: {bucket!r} at {endpoint} has no mark of this stack: it is not this store's bucket, which is at "
            f"{former_endpoint}. It was not changed. Check the endpoint; to move to another store, copy the media as "
            "described in docs/switching.md, and use adopt: true there."
        )


def taken(bucket: str, error: ApiError) -> StoreError:
    """The error for a name that is used by another account."""
    return StoreError(f"bucket: {bucket!r} is used by another account at this provider. Choose another name. {error}")


def not_empty(bucket: str) -> StoreError:
    """The error for deleting media without permission in `allow`."""
    return StoreError(
        f"bucket {bucket!r} holds media and is not deleted. To stop managing it and keep it, put "
        "<homeserver>/retain-bucket into the stack file's allow; to delete the media for good, put "
        "<homeserver>/delete-media there."
    )


def require_no_keys(bucket: str, keys: Iterable[str], way_out: str) -> None:
    """Raises StoreError if keys that this state does not know have access to a bucket that is to be deleted.

    Args:
        way_out: how to delete the keys or their access, as a clause.
    """
    unknown = ", ".join(keys)
    if unknown:
        raise StoreError(
            f"bucket {bucket!r} is not deleted: it is accessible with the key {unknown}, which this state does not "
            "know, and which may be in use: by another checkout with its own state, or by another program. If nobody "
            f"uses it, {way_out}, and run this again. To stop managing the bucket and keep it, put "
            "<homeserver>/retain-bucket into the stack file's allow."
        )


def new_nonce() -> str:
    """Distinguishes the keys of this state from those that another state of the same store created."""
    return secrets.token_hex(8)


# ---- the life cycle


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a bucket, or several that are read in one call.

    Attributes:
        group: its name in `manage`.
        fields: its inputs.
        words: its name in `lacks`.
    """

    group: str
    fields: tuple[str, ...]
    words: str


Kind = TypeVar("Kind", bound=Setting)


def days_in_force(rules: Iterable[tuple[int, bool]], wanted: int) -> int:
    """The days of one action of the active lifecycle rules; 0 for none.

    The shortest, whichever objects it is for; 0 if days are wanted and no rule has them for the whole bucket.

    Args:
        rules: for each rule, its days (0: without this action) and whether it is for the whole bucket.
    """
    having = [(days, is_whole) for days, is_whole in rules if days]
    if wanted and not any(is_whole for _, is_whole in having):
        return 0
    return min((days for days, _ in having), default=0)


def not_kept(name: str) -> str:
    """What `lacks` has of an input that the store took without a word, and did not keep."""
    return f"{camel(name)} (accepted by this store, and not kept)"


class BucketFamily(ABC, Generic[In, Kind]):
    """One bucket at one provider, for the duration of one call. Every method may raise StoreError.

    `find` or `make` must be called before the methods that act on the bucket.

    Attributes:
        state: its state, updated with what is found.
        settings: its settings, in the order in which they are applied and reported.
        place: where it is looked for, to complete "does not exist": "in this account".
        place_setting: what to check if it is not found: "the key".
        can_be_marked: whether a missing mark was removed by somebody, and is restored.
    """

    state: AnyBucketState[In]
    settings: tuple[Kind, ...]
    place: str
    place_setting: str
    can_be_marked: bool = True

    @property
    def inputs(self) -> In:
        """The inputs of the bucket."""
        return self.state.inputs

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.inputs.bucket

    def prepare(self, *, changing: bool) -> None:
        """Raises StoreError for the wrong account, region or endpoint, and records them in the state.

        Args:
            changing: whether something is about to be created or changed.
        """

    @abstractmethod
    def find(self) -> bool:
        """Find the bucket; False only if the store reports that it does not exist."""

    def find_unknown(self) -> bool:
        """Like `find`, for a bucket that is not in the state and may belong to anyone."""
        return self.find()

    @abstractmethod
    def make(self) -> bool:
        """Create it; False if it exists after all, and its ownership must be checked."""

    @abstractmethod
    def mark(self, ours: frozenset[str]) -> str | None:
        """The mark on it; "" if it has none; None if a mark can't be read or is not needed.

        Args:
            ours: the marks of this store, for a provider whose marks can't be recognised by their form.
        """

    @abstractmethod
    def mark_place(self, mark: str) -> str:
        """The holder of the mark, for messages: "its tag 'x'"."""

    def address(self, connection: Connection) -> str:
        """The endpoint URL to compare with the state's; "" if `prepare` checks the account."""
        return ""

    def is_untouched(self) -> bool:
        """Whether it looks like the bucket of an interrupted run: unmarked, empty and without settings."""
        return False

    def require_no_unknown_keys(self) -> None:
        """Raises StoreError if keys that this state does not know have access to it. Called before it is deleted.

        Its key ring is deleted before it.
        """

    @abstractmethod
    def read(self, setting: Kind, inputs: In) -> In:
        """The inputs, with the actual value of a setting."""

    def unlike(self, setting: Kind) -> list[str]:
        """What a new bucket would not have of a setting, and its inputs don't show, as text."""
        return []

    @abstractmethod
    def apply(self) -> None:
        """Mark the bucket, and write those of its managed settings that differ from the inputs."""

    @abstractmethod
    def expiring_words(self, rules: tuple[str, ...]) -> str:
        """The report on lifecycle rules that delete media by age."""

    def looks_empty(self) -> bool:
        """Like `is_empty`, without creating anything at the store; False if unknown."""
        return self.is_empty()

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether it has no objects but those of the proof; old versions count as objects."""

    @abstractmethod
    def empty(self) -> None:
        """Delete its contents."""

    @abstractmethod
    def clear(self) -> None:
        """Delete the proof's objects in it, and nothing else."""

    @abstractmethod
    def delete(self) -> None:
        """Delete it. Raises StoreError if it is not empty."""

    # ---- common to all families

    def managed(self) -> tuple[Kind, ...]:
        """The managed settings: all for a bucket of ours, for an adopted one only those that `manage` names."""
        if not self.state.adopted:
            return self.settings
        return tuple(setting for setting in self.settings if setting.group in self.inputs.manage)

    def wanted(self, setting: Kind) -> tuple[str, ...]:
        """The inputs that request a setting."""
        return setting.fields

    def excuses(self, error: ApiError) -> bool:
        """Whether an error only means that the store lacks a setting, which is recorded in `lacks`."""
        return False

    def now(self) -> In:
        """The inputs, with the actual values of the managed settings."""
        found = replace(self.inputs, expiring_rules=())
        for setting in self.managed():
            if setting.words not in self.state.lacks and self.wanted(setting):
                try:
                    found = self._without_lost(setting, self.read(setting, found))
                except ApiError as error:
                    # For a partially created bucket, `lacks` is not recorded yet.
                    if not self.excuses(error):
                        raise
        return found

    def _without_lost(self, setting: Kind, found: In) -> In:
        """As the inputs where the store took a value and did not keep it: no difference for ever."""
        lost = [name for name in setting.fields if not_kept(name) in self.state.lacks]
        return replace(found, **{name: getattr(self.inputs, name) for name in lost})

    def media_elsewhere(self) -> Elsewhere | None:
        """Where the media is if the bucket has none where Synapse looks; None if all is well or unknown."""
        return None

    def differences(self, *, of_store: bool = True) -> tuple[str, ...]:
        """How an adopted bucket differs from a new one, as text. Changes nothing.

        Args:
            of_store: include what a new bucket would not have either, since the store lacks it.
        """
        words: list[str] = []
        for setting in self.settings:
            if not self.wanted(setting):
                continue
            try:
                has = self.read(setting, replace(self.inputs, expiring_rules=()))
                unlike = self.unlike(setting)
            except ApiError as error:
                if not self.excuses(error):
                    raise
                if error.lacking and not of_store:
                    continue
                what = "this store has no" if error.lacking else "this key may not look at"
                words.append(f"{what} {setting.words}")
                continue
            words += _unlike_new(has, self.inputs, setting.fields)
            words += unlike
            if has.expiring_rules:
                words.append(self.expiring_words(has.expiring_rules))
        return tuple(words)


def _unlike_new(has: AnyBucketInputs, inputs: AnyBucketInputs, names: Iterable[str]) -> list[str]:
    return [
        f"{camel(name)} is {getattr(has, name)!r}, a new bucket would have {getattr(inputs, name)!r}"
        for name in names
        if getattr(has, name) != getattr(inputs, name)
    ]


class BucketBase(SchemaResource[In, S]):
    """A bucket of ours. An existing bucket with contents is taken over only with `adopt`."""

    @abstractmethod
    def family(self, state: S) -> BucketFamily[In, Any]:
        """The bucket described by the inputs of a state. Makes no call."""

    def begun(self, inputs: In) -> S:
        """The state of a bucket that is about to be created or adopted."""
        state: S = self.described.state(inputs=inputs)  # type: ignore[assignment]
        return state

    def holds_media(self, outputs: Mapping[str, Any]) -> bool:
        """Whether it has media, including old versions; False also if it does not exist. May raise StoreError.

        Args:
            outputs: the wire values of its state.
        """
        family = self.family(self.read_state(outputs))
        return family.find() and not family.is_empty()

    def refuse_taken(self, inputs: In) -> None:
        """Raises StoreError if the bucket exists and is neither ours nor new."""
        family = self.family(self.begun(inputs))
        # The second look is another one: what one answer calls absent would be adopted.
        if family.find_unknown() or family.find():
            _judge(family)

    def unsettled(self, outputs: Values, inputs: Values) -> tuple[str, ...]:
        # The word alone makes an adopted bucket a fully managed one, with the settings that it has.
        becomes_ours = ("adopted",) if outputs.get("adopted") and inputs.get("own") else ()
        return (*super().unsettled(outputs, inputs), *becomes_ours)

    def foreseen(self, inputs: In, old: S | None) -> S:
        if old is None:
            return super().foreseen(inputs, old)
        _refuse_unadopted(inputs, old)
        return replace(old, inputs=inputs)

    def make(self, inputs: In, context: Context) -> tuple[str, S]:
        state = self.begun(inputs)
        family = self.family(state)
        family.prepare(changing=True)
        if family.find_unknown():
            state.adopted = _judge(family)
            if state.adopted and inputs.own:
                _require_alike(family)
                state.adopted = False
        elif inputs.adopt:
            raise StoreError(
                f"bucket: {inputs.bucket!r} does not exist, so it can't be adopted. Check the name and the endpoint, "
                "or set adopt: false to have it created."
            )
        elif not family.make():
            _judge(family)
        try:
            _apply(family, context)
        except StoreError as error:
            words = f"bucket {inputs.bucket} is there, but not finished: {error}"
            raise PartialError(words, inputs.bucket, state) from None
        return inputs.bucket, state

    def find(self, resource_id: str, inputs: In, state: S, context: Context) -> tuple[str, In, S] | None:
        known = replace(state, inputs=inputs)
        family = self.family(known)
        family.prepare(changing=False)
        if not family.find():
            return None
        found = family.now()
        mark = family.mark(marks_of(inputs, state.inputs)) if family.can_be_marked else None
        if known.adopted:
            known.differences = family.differences()
            _report(family, context)
        # The state keeps the recorded mark; a mark changed by somebody else shows in the inputs alone.
        known.inputs = replace(found, owner=state.inputs.owner)
        return inputs.bucket, found if mark is None else replace(found, owner=mark), known

    def change(self, resource_id: str, old: S, inputs: In, context: Context) -> S:
        _refuse_unadopted(inputs, old)
        state, former = replace(old, inputs=inputs), old.inputs
        family = self.family(state)
        family.prepare(changing=True)
        # The state keeps the old endpoint, where the media is, until the bucket was found at the new one.
        if not family.find():
            raise StoreError(
                f"bucket: {inputs.bucket!r} does not exist {family.place}. Check {family.place_setting}; if the bucket "
                "was deleted, `synapse-media up --refresh` detects that and creates it again, empty."
            )
        mark = family.mark(marks_of(inputs, former))
        if mark is not None:
            require_mark(inputs.bucket, mark, family.mark_place(mark), inputs, former)
            require_same_place(
                inputs.bucket, mark, family.address(inputs.connection), family.address(former.connection)
            )
        if state.adopted and inputs.own:
            _require_alike(family)
            state.adopted = False
        try:
            _apply(family, context)
        except StoreError as error:
            raise PartialError(f"bucket {inputs.bucket}: {error}", inputs.bucket, state) from None
        return state

    def remove(self, resource_id: str, state: S, last: In, context: Context) -> None:
        family, bucket = self.family(state), state.inputs.bucket
        try:
            if not family.find():
                return
            mark = family.mark(marks_of(state.inputs))
            require_mark(bucket, mark or "", family.mark_place(mark or ""), state.inputs)
            family.require_no_unknown_keys()
            everything = state.inputs.force_destroy and mark != ""
            if mark == "":
                if not family.looks_empty():
                    raise StoreError(
                        f"bucket {bucket!r} is not empty, and the mark of this stack was removed from it: it is "
                        "not deleted. If it is this stack's, `synapse-media up --refresh` marks it again; to keep it "
                        "without managing it, put <homeserver>/retain-bucket into the stack file's allow."
                    )
            elif not everything and not family.is_empty():
                raise not_empty(bucket)
            if everything:
                family.empty()
            else:
                # Objects written from here on stay: the store then refuses to delete the bucket.
                family.clear()
            family.delete()
        except ApiError as error:
            # Gone by now, as after a try whose answer was lost; unless it is found once more.
            if not error.absent or family.find():
                raise


def _judge(family: BucketFamily[Any, Any]) -> bool:
    """Whether a found bucket is to be adopted; False if it is ours. Raises StoreError for any other."""
    inputs = family.inputs
    mark = family.mark(marks_of(inputs)) or ""
    require_mark(inputs.bucket, mark, family.mark_place(mark), inputs)
    if inputs.adopt:
        return True
    if is_marked(mark, inputs):
        return False
    if family.is_untouched():
        return False
    raise StoreError(
        f"bucket: {inputs.bucket!r} exists already and is not empty or not new. It was not changed. To keep "
        "Synapse's media in it, set adopt: true for this store; otherwise choose another name."
    )


def _apply(family: BucketFamily[Any, Any], context: Context) -> None:
    """Apply the inputs, then report the differences that remain: those of settings that are not managed."""
    family.apply()
    family.state.differences = family.differences() if family.state.adopted else ()
    _report(family, context)


def _report(family: BucketFamily[Any, Any], context: Context) -> None:
    """Warn, on each read, how an adopted bucket differs from a new one."""
    for words in family.state.differences:
        context.warn(f"bucket {family.bucket} is adopted without changes: {words}")
    elsewhere = family.media_elsewhere() if family.state.adopted else None
    if elsewhere is not None:
        context.warn(f"bucket {family.bucket} {_in_words(elsewhere, family.inputs.media_in)}")


def _in_words(elsewhere: Elsewhere, looked_for: Iterable[str]) -> str:
    said = f"holds objects, but none where Synapse will look for media ({', '.join(looked_for)}): "
    if elsewhere.prefix is None:
        return said + "nothing that looks like Synapse's media was found. Is it the right bucket?"
    if not elsewhere.prefix:
        return said + "it has media without a prefix. Remove prefix from the stack file."
    return said + f"it has media under {elsewhere.prefix!r}. Set prefix: {elsewhere.prefix!r} in the stack file."


def _refuse_unadopted(inputs: AnyBucketInputs, old: AnyBucketState[Any]) -> None:
    """Raises StoreError if `adopt` was removed for an adopted bucket: it would then be managed as a new one."""
    if old.adopted and not inputs.adopt and not inputs.own:
        raise StoreError(
            f"bucket: {inputs.bucket!r} was adopted or imported, and is not changed: set adopt: true for this "
            "store. To change one of its settings, add it to the stack file's allow, for example "
            "<homeserver>/set-versioning. Once it has the settings of a new bucket, <homeserver>/own-bucket there "
            "makes it a fully managed one."
        )


def _require_alike(family: BucketFamily[Any, Any]) -> None:
    """Refuse to turn an adopted bucket into a fully managed one while it differs from a new one."""
    differences = family.differences(of_store=False)
    if differences:
        raise StoreError(
            f"bucket: {family.bucket!r} is adopted, and still differs from a new bucket: "
            f"{'; '.join(differences)}. Nothing was changed. Take <homeserver>/own-bucket out of the stack file's "
            "allow, with adopt: true in it; name there what may be changed (<homeserver>/set-versioning, "
            "set-lifecycle, set-policy, set-access, set-encryption), `up`, change by hand what remains, and then try "
            "again."
        )
