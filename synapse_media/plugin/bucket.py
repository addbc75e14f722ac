"""Buckets: one life cycle for every provider.

A family says how a bucket is found, made, marked, set, emptied and deleted (`BucketFamily`); the life cycle says when
(`BucketBase`).
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

from .resource import Context, PartialError, SchemaResource

In = TypeVar("In", bound=AnyBucketInputs)
S = TypeVar("S", bound=AnyBucketState[Any])

# ---- whose a bucket is


class Marked(Protocol):
    """What names the store that a mark is for."""

    @property
    def owner(self) -> str: ...

    @property
    def former_owner(self) -> str | None: ...


def marks_of(*marked: Marked) -> frozenset[str]:
    """Every mark by which a bucket is this store's."""
    return frozenset(mark for one in marked for mark in (one.owner, one.former_owner) if mark)


def is_marked(mark: str, marked: Marked) -> bool:
    """Whether it is exactly ours: then a bucket that no state knows is taken up again, whatever is in it."""
    return mark in marks_of(marked)


def require_mark(bucket: str, mark: str, where: str, *marked: Marked) -> None:
    """Refuse a bucket that carries another's mark; before each change, and before each delete.

    Args:
        where: what holds the mark, as messages name it.
        marked: whose marks are ours.
    """
    if mark and mark not in marks_of(*marked):
        raise StoreError(
            f"bucket: {bucket!r} is marked as that of another stack ({mark}): nothing of it is changed or deleted. "
            f"Choose another bucket, or remove {where} if that stack is gone for good. A bucket that was this stack's "
            "is given up, and left where it is, by <homeserver>/retain-bucket in the stack file's allow."
        )


def require_same_place(bucket: str, mark: str, endpoint: str, former_endpoint: str) -> None:
    """Refuse a bucket without a mark that is at another endpoint than the one in state: it may be anybody's."""
    if not mark and former_endpoint != endpoint:
        raise StoreError(
            f"bucket: {bucket!r} at {endpoint} carries no mark of this stack: it is another bucket than the one at "
            f"{former_endpoint}, which is this store's. Nothing of it was touched. Check the endpoint; to move to "
            "another store, bring the media along as docs/switching.md says, and use adopt: true there."
        )


def taken(bucket: str, error: ApiError) -> StoreError:
    """The refusal of a name that is another account's."""
    return StoreError(f"bucket: {bucket!r} is taken by somebody else at this provider. Choose another name. {error}")


def not_empty(bucket: str) -> StoreError:
    """The refusal to delete media that nobody gave leave to delete."""
    return StoreError(
        f"bucket {bucket!r} holds media and is not deleted. To give it up without deleting anything, put "
        "<homeserver>/retain-bucket into the stack file's allow; to delete the media for good, put "
        "<homeserver>/delete-media there."
    )


def new_nonce() -> str:
    """What tells the keys of a bucket in one state from those that another state of the same store made."""
    return secrets.token_hex(8)


# ---- the life cycle


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a bucket, or some that are read together.

    Attributes:
        group: what `manage` calls it.
        fields: the inputs that hold it.
        words: its name, as `lacks` has it.
    """

    group: str
    fields: tuple[str, ...]
    words: str


Kind = TypeVar("Kind", bound=Setting)


def not_kept(name: str) -> str:
    """What `lacks` has of an input that the store took without a word, and did not keep."""
    return f"{camel(name)} (accepted by this store, and not kept)"


class BucketFamily(ABC, Generic[In, Kind]):
    """One bucket at one provider, for the time of one call. Every method may raise StoreError.

    `find` and `make` determine which bucket the other methods are about.

    Attributes:
        state: what is known of it; what is found out is noted in it.
        settings: what there is to set, in the order in which it is set and reported.
        place: where the bucket is, as messages go on after "does not exist": "in this account".
        place_setting: what to check if it is not there: "the key".
        can_be_marked: whether a mark that is missing was taken off, and is put back.
    """

    state: AnyBucketState[In]
    settings: tuple[Kind, ...]
    place: str
    place_setting: str
    can_be_marked: bool = True

    @property
    def inputs(self) -> In:
        """The inputs that the bucket is made by."""
        return self.state.inputs

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.inputs.bucket

    def prepare(self, *, changing: bool) -> None:
        """Refuse a place that is not the right one, and note what the provider says of it.

        Args:
            changing: something is about to be made or changed there.
        """

    @abstractmethod
    def find(self) -> bool:
        """Look for the bucket; False only where the store says that there is none."""

    def find_unknown(self) -> bool:
        """As `find`, for a bucket that no state knows yet: it may be anybody's."""
        return self.find()

    @abstractmethod
    def make(self) -> bool:
        """Make it; False where it is there after all, and has to be judged like one that was found."""

    @abstractmethod
    def mark(self, ours: frozenset[str]) -> str | None:
        """The mark on it; "" where it was never marked or the mark was taken off; None where a mark can't be seen or
        is not needed.

        Args:
            ours: the marks of this store, for a provider whose marks have no form of their own.
        """

    @abstractmethod
    def mark_place(self, mark: str) -> str:
        """What holds the mark, as messages name it: "its tag 'x'"."""

    def address(self, connection: Connection) -> str:
        """The URL that tells one place from another; "" where `prepare` does."""
        return ""

    def is_untouched(self) -> bool:
        """Whether it is as an interrupted run leaves one: not marked yet, nothing in it, and nothing set."""
        return False

    @abstractmethod
    def read(self, setting: Kind, inputs: In) -> In:
        """The inputs, with a setting as the bucket has it."""

    @abstractmethod
    def apply(self) -> None:
        """Mark the bucket, and make its managed settings as the inputs say."""

    @abstractmethod
    def expiring_words(self, rules: tuple[str, ...]) -> str:
        """What is reported of lifecycle rules that take media away by age."""

    def looks_empty(self) -> bool:
        """As `is_empty`, by a look that makes nothing at the store; False where that does not tell."""
        return self.is_empty()

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether there is nothing in it but what the proof left; old versions count as media."""

    @abstractmethod
    def empty(self) -> None:
        """Delete all there is in it."""

    @abstractmethod
    def clear(self) -> None:
        """Delete what the proof left in it, and nothing else."""

    @abstractmethod
    def delete(self) -> None:
        """Delete it, empty as it is. Raises StoreError where the store says that it is not."""

    # ---- the same for all

    def managed(self) -> tuple[Kind, ...]:
        """The settings we answer for: all of a bucket of ours, of an adopted one only those that `manage` names."""
        if not self.state.adopted:
            return self.settings
        return tuple(setting for setting in self.settings if setting.group in self.inputs.manage)

    def wanted(self, setting: Kind) -> tuple[str, ...]:
        """Those of its inputs that say anything."""
        return setting.fields

    def excuses(self, error: ApiError) -> bool:
        """Whether it is no reason to fail, but for `lacks`, that a setting can't be read or set."""
        return False

    def now(self) -> In:
        """The inputs, with the managed settings as the bucket has them."""
        found = replace(self.inputs, expiring_rules=())
        for setting in self.managed():
            if setting.words not in self.state.lacks and self.wanted(setting):
                try:
                    found = self._without_lost(setting, self.read(setting, found))
                except ApiError as error:
                    # Of a half-made bucket it is not noted yet what the store lacks.
                    if not self.excuses(error):
                        raise
        return found

    def _without_lost(self, setting: Kind, found: In) -> In:
        """As the inputs where the store took a value and did not keep it: no difference for ever."""
        lost = [name for name in setting.fields if not_kept(name) in self.state.lacks]
        return replace(found, **{name: getattr(self.inputs, name) for name in lost})

    def media_elsewhere(self) -> Elsewhere | None:
        """Whether it holds objects, but none where Synapse will look for media; None also where nobody can tell."""
        return None

    def differences(self, *, of_store: bool = True) -> tuple[str, ...]:
        """What a new bucket would have had, and this one has not; in words, nothing changed.

        Args:
            of_store: with what a new bucket would not have either, since the store lacks it.
        """
        words: list[str] = []
        for setting in self.settings:
            names = self.wanted(setting)
            if not names:
                continue
            try:
                has = self.read(setting, replace(self.inputs, expiring_rules=()))
            except ApiError as error:
                if not self.excuses(error):
                    raise
                if error.lacking and not of_store:
                    continue
                what = "this store has no" if error.lacking else "this key may not look at"
                words.append(f"{what} {setting.words}")
                continue
            words += _unlike_new(has, self.inputs, names)
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
    """A bucket that is ours. Never takes over a bucket that holds anything, unless `adopt` says so."""

    @abstractmethod
    def family(self, state: S) -> BucketFamily[In, Any]:
        """The bucket that a state speaks of, by its inputs. No call is made."""

    def begun(self, inputs: In) -> S:
        """The state of a bucket that is about to be made, or taken over."""
        state: S = self.described.state(inputs=inputs)  # type: ignore[assignment]
        return state

    def holds_media(self, outputs: Mapping[str, Any]) -> bool:
        """Whether there is media in it, old versions included; False also where it is gone. May raise StoreError.

        Args:
            outputs: the wire values of its state.
        """
        family = self.family(self.read_state(outputs))
        return family.find() and not family.is_empty()

    def refuse_taken(self, inputs: In) -> None:
        """Raise StoreError where the bucket is there already, and neither ours nor just made."""
        family = self.family(self.begun(inputs))
        if family.find_unknown():
            _judge(family)

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
        elif inputs.adopt:
            raise StoreError(
                f"bucket: {inputs.bucket!r} does not exist, so it can't be adopted. Check the name and the endpoint, "
                "or set adopt: false to have it made."
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
        # Whose it is, the state goes on to say: what somebody else marked shows among the inputs alone.
        known.inputs = replace(found, owner=state.inputs.owner)
        return inputs.bucket, found if mark is None else replace(found, owner=mark), known

    def change(self, resource_id: str, old: S, inputs: In, context: Context) -> S:
        _refuse_unadopted(inputs, old)
        state, former = replace(old, inputs=inputs), old.inputs
        family = self.family(state)
        family.prepare(changing=True)
        # State keeps the old place until the bucket was seen at the new one: there the media is, and a refresh looks.
        if not family.find():
            raise StoreError(
                f"bucket: {inputs.bucket!r} does not exist {family.place}. Check {family.place_setting}; if the bucket "
                "was deleted, `synapse-media up --refresh` finds out and makes it again, empty."
            )
        mark = family.mark(marks_of(inputs, former))
        if mark is not None:
            require_mark(inputs.bucket, mark, family.mark_place(mark), inputs, former)
            require_same_place(
                inputs.bucket, mark, family.address(inputs.connection), family.address(former.connection)
            )
        if state.adopted and not inputs.adopt:
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
            everything = state.inputs.force_destroy and mark != ""
            if mark == "":
                if not family.looks_empty():
                    raise StoreError(
                        f"bucket {bucket!r} is not empty, and the mark of this stack was taken off it: it is not "
                        "deleted. If it is this stack's, `synapse-media up --refresh` marks it again; to give it up "
                        "and leave it where it is, put <homeserver>/retain-bucket into the stack file's allow."
                    )
            elif not everything and not family.is_empty():
                raise not_empty(bucket)
            if everything:
                family.empty()
            else:
                # What somebody writes from here on stays, and the store refuses to delete the bucket.
                family.clear()
            family.delete()
        except ApiError as error:
            if not error.absent:
                raise


def _judge(family: BucketFamily[Any, Any]) -> bool:
    """Whether the bucket that was found is adopted; False where it is ours. Any other is refused."""
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
        f"bucket: {inputs.bucket!r} exists already and is not empty or not new. Nothing in it was touched. To keep "
        "Synapse's media in it, set adopt: true for this store; otherwise choose another name."
    )


def _apply(family: BucketFamily[Any, Any], context: Context) -> None:
    """Make it as the inputs say. What differs is looked at afterwards: it is what was left as it is."""
    family.apply()
    family.state.differences = family.differences() if family.state.adopted else ()
    _report(family, context)


def _report(family: BucketFamily[Any, Any], context: Context) -> None:
    """Report what an adopted bucket has otherwise than a new one would, each time it is looked at."""
    for words in family.state.differences:
        context.warn(f"bucket {family.bucket} is taken over as it is: {words}")
    elsewhere = family.media_elsewhere() if family.state.adopted else None
    if elsewhere is not None:
        context.warn(f"bucket {family.bucket} {_in_words(elsewhere, family.inputs.media_in)}")


def _in_words(elsewhere: Elsewhere, looked_for: Iterable[str]) -> str:
    said = f"holds objects, but none where Synapse will look for media ({', '.join(looked_for)}): "
    if elsewhere.prefix is None:
        return said + "nothing that looks like Synapse's media was found. Is it the right bucket?"
    if not elsewhere.prefix:
        return said + "media lies at its top, so it would be found without a prefix. Remove prefix from the stack file."
    return (
        said
        + f"media lies under {elsewhere.prefix!r}, and prefix: {elsewhere.prefix!r} in the stack file would find it."
    )


def _refuse_unadopted(inputs: AnyBucketInputs, old: AnyBucketState[Any]) -> None:
    """What was taken over doesn't become ours because a setting is gone: its own would pass for a new bucket's."""
    if old.adopted and not inputs.adopt and not inputs.own:
        raise StoreError(
            f"bucket: {inputs.bucket!r} was taken over or imported, and stays as it was: set adopt: true for this "
            "store. To have one of its settings changed, name it in the stack file's allow, for example "
            "<homeserver>/set-versioning. Once it looks as a new one would, <homeserver>/own-bucket there makes it "
            "one like any other."
        )


def _require_alike(family: BucketFamily[Any, Any]) -> None:
    """Refuse to take a bucket that was taken over for one that was made here while it differs from such."""
    differences = family.differences(of_store=False)
    if differences:
        raise StoreError(
            f"bucket: {family.bucket!r} was taken over, and is not yet as one that is made here: "
            f"{'; '.join(differences)}. Nothing was changed. Set adopt: true again, name what may be changed in the "
            "stack file's allow (<homeserver>/set-versioning, set-lifecycle, set-policy, set-access, set-encryption), "
            "`up`, and then try again."
        )
