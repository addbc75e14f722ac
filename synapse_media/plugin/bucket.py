"""Buckets: one life cycle for every provider, and the bucket over the S3 API.

A family says how a bucket is found, made, marked, set, emptied and deleted (`BucketFamily`); the life cycle says when
(`BucketBase`).
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Generic, Protocol, TypeVar

from synapse_media.contract import PROOF_OBJECT
from synapse_media.errors import StoreError
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN, camel
from synapse_media.schema.resources import (
    BUCKET,
    AnyBucketInputs,
    AnyBucketState,
    AnyS3BucketState,
    BucketInputs,
    BucketState,
)
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import call, s3_client
from synapse_media.store.objects import create_bucket, empty_out, is_empty, look, remove_versions

from .resource import Context, Diff, PartialError, SchemaResource, Values, import_id

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

    def resume(self) -> None:
        """Note what it means that the bucket is ours already, though no state knew it."""

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

    def differences(self) -> tuple[str, ...]:
        """What a new bucket would have had, and this one has not; in words, nothing changed."""
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
        family.resume()
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


def _refuse_unadopted(inputs: AnyBucketInputs, old: AnyBucketState[Any]) -> None:
    """What was taken over doesn't become ours because a setting is gone: its own would pass for a new bucket's."""
    if old.adopted and not inputs.adopt:
        raise StoreError(
            f"bucket: {inputs.bucket!r} was taken over or imported, and stays as it was: set adopt: true for this "
            "store. To have one of its settings changed, name it in the stack file's allow, for example "
            "<homeserver>/set-versioning."
        )


# ---- over the S3 API: its settings

S3In = TypeVar("S3In", bound=BucketInputs)
S3State = TypeVar("S3State", bound=AnyS3BucketState[Any])

_PUBLIC: Final = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)
_BLOCK: Final = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
_RULE: Final = "synapse-media"
_REFUSED: Final = frozenset({"MalformedXML", "InvalidArgument", "InvalidRequest"})
"""What stores say of settings that they don't have, and that are as S3's documentation has them."""
SETTLE_SECONDS: Final = 30.0
"""A bucket that was just made is not looked for longer."""
_LOOKS: Final = 2
_PAUSE: Final = 1.0
"""Seconds between two looks."""


def canonical(document: str) -> str:
    """A policy document in one form, so that two of the same meaning compare equal; "" stays ""."""
    return json.dumps(json.loads(document), sort_keys=True, separators=(",", ":")) if document.strip() else ""


class _Read(Protocol):
    def __call__(self, s3: Any, inputs: S3In, /) -> S3In: ...


@dataclass(frozen=True, slots=True)
class _S3Setting(Setting):
    """A setting, with how it is read and written.

    Attributes:
        get: the inputs, with the setting as the bucket has it.
        put: makes it as the inputs say.
        may_be_refused: a store that knows the call, and refuses what is asked, is one that lacks it. Not so where the
            bucket would be open to others.
    """

    get: _Read
    put: Callable[[Any, BucketInputs], None]
    may_be_refused: bool = True


def _get_versioning(s3: Any, inputs: S3In, /) -> S3In:
    status = call(s3, "get_bucket_versioning", Bucket=inputs.bucket).get("Status")
    return replace(inputs, versioning=status == "Enabled")


def _put_versioning(s3: Any, inputs: BucketInputs) -> None:
    # A bucket that was never versioned has nothing to suspend.
    if inputs.versioning or call(s3, "get_bucket_versioning", Bucket=inputs.bucket).get("Status"):
        status = "Enabled" if inputs.versioning else "Suspended"
        call(s3, "put_bucket_versioning", Bucket=inputs.bucket, VersioningConfiguration={"Status": status})


@dataclass(frozen=True, slots=True)
class _Lifecycle:
    """What the active lifecycle rules come to: the shortest times in days, 0 for none; IDs of rules that expire media.

    A rule that expires current objects deletes media, so it shows as drift, whoever made it.
    """

    noncurrent_days: int = 0
    abort_days: int = 0
    expiring: tuple[str, ...] = ()


def _lifecycle(s3: Any, bucket: str) -> _Lifecycle:
    try:
        rules = call(s3, "get_bucket_lifecycle_configuration", Bucket=bucket).get("Rules", [])
    except ApiError as error:
        if error.code != "NoSuchLifecycleConfiguration":
            raise
        rules = []
    active = [rule for rule in rules if rule.get("Status") == "Enabled"]
    noncurrent = [
        rule["NoncurrentVersionExpiration"].get("NoncurrentDays", 0)
        for rule in active
        if "NoncurrentVersionExpiration" in rule
    ]
    abort = [
        rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 0)
        for rule in active
        if "AbortIncompleteMultipartUpload" in rule
    ]
    expiring = tuple(rule.get("ID", "") for rule in active if {"Days", "Date"} & set(rule.get("Expiration", {})))
    return _Lifecycle(min(noncurrent, default=0), min(abort, default=0), expiring)


def _get_lifecycle(s3: Any, inputs: S3In, /) -> S3In:
    has = _lifecycle(s3, inputs.bucket)
    return replace(inputs, noncurrent_days=has.noncurrent_days, abort_days=has.abort_days, expiring_rules=has.expiring)


def _put_lifecycle(s3: Any, inputs: BucketInputs) -> None:
    rule: dict[str, object] = {"ID": _RULE, "Status": "Enabled", "Filter": {"Prefix": ""}}
    if inputs.abort_days:
        rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": inputs.abort_days}
    if inputs.noncurrent_days:
        rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": inputs.noncurrent_days}
    rules = {"Rules": [rule]}
    call(s3, "put_bucket_lifecycle_configuration", Bucket=inputs.bucket, LifecycleConfiguration=rules)


def read_policy(s3: Any, bucket: str) -> str:
    """A bucket's policy in canonical form; "" for none."""
    try:
        document = call(s3, "get_bucket_policy", Bucket=bucket)["Policy"]
    except ApiError as error:
        if error.code != "NoSuchBucketPolicy":
            raise
        return ""
    try:
        # The one answer of S3 that is not XML.
        if "Statement" in json.loads(document):
            return canonical(document)
    except (ValueError, TypeError):
        pass
    raise ApiError(
        "Unparsable", 0, f"get_bucket_policy {bucket}: the answer is no policy: does the store answer there?"
    )


def write_policy(s3: Any, bucket: str, policy: str) -> None:
    """Put a policy on a bucket; "" takes away the one there is."""
    if policy:
        call(s3, "put_bucket_policy", Bucket=bucket, Policy=policy)
    elif read_policy(s3, bucket):
        call(s3, "delete_bucket_policy", Bucket=bucket)


def _get_policy(s3: Any, inputs: S3In, /) -> S3In:
    return replace(inputs, policy=read_policy(s3, inputs.bucket))


def _put_policy(s3: Any, inputs: BucketInputs) -> None:
    write_policy(s3, inputs.bucket, inputs.policy or "")


def _get_block(s3: Any, inputs: S3In, /) -> S3In:
    try:
        found = call(s3, "get_public_access_block", Bucket=inputs.bucket)["PublicAccessBlockConfiguration"]
    except ApiError as error:
        if error.code != "NoSuchPublicAccessBlockConfiguration":
            raise
        found = {}
    return replace(inputs, public_access_block=all(found.get(name) is True for name in _BLOCK))


def _put_block(s3: Any, inputs: BucketInputs) -> None:
    call(s3, "put_public_access_block", Bucket=inputs.bucket, PublicAccessBlockConfiguration=_BLOCK)


def _get_encryption(s3: Any, inputs: S3In, /) -> S3In:
    try:
        found = call(s3, "get_bucket_encryption", Bucket=inputs.bucket)["ServerSideEncryptionConfiguration"]
    except ApiError as error:
        if error.code != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        found = {}
    return replace(inputs, encryption=bool(found.get("Rules")))


def _put_encryption(s3: Any, inputs: BucketInputs) -> None:
    if _get_encryption(s3, inputs).encryption:
        return
    bucket = inputs.bucket
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    call(s3, "put_bucket_encryption", Bucket=bucket, ServerSideEncryptionConfiguration=rules)
    try:
        call(s3, "put_object", Bucket=bucket, Key=PROOF_OBJECT, Body=b"after default encryption was switched on")
    except ApiError as error:
        # SeaweedFS without a key of its own takes the setting, and answers 500 to whatever is written from then on.
        if error.status >= 500:
            call(s3, "delete_bucket_encryption", Bucket=bucket)
            raise ApiError(
                "NotImplemented", error.status, f"with default encryption nothing can be written: {error}"
            ) from None
    else:
        remove_versions(s3, bucket, PROOF_OBJECT)


def is_public(s3: Any, bucket: str) -> bool:
    """Whether a bucket's access list lets everybody in."""
    grants = call(s3, "get_bucket_acl", Bucket=bucket).get("Grants", [])
    return any(
        grant.get("Grantee", {}).get("URI") in _PUBLIC or grant.get("Grantee", {}).get("ID") == "all-users"
        for grant in grants
    )


def make_private(s3: Any, bucket: str) -> None:
    """Have a bucket's access list let nobody in but its owner."""
    # Where ACLs are switched off (BucketOwnerEnforced) there is nothing to write: private is all there is.
    if is_public(s3, bucket):
        call(s3, "put_bucket_acl", Bucket=bucket, ACL="private")


def _get_acl(s3: Any, inputs: S3In, /) -> S3In:
    return replace(inputs, acl="public" if is_public(s3, inputs.bucket) else "private")


def _put_acl(s3: Any, inputs: BucketInputs) -> None:
    make_private(s3, inputs.bucket)


_SETTINGS: Final = (
    _S3Setting("versioning", ("versioning",), "versioning", _get_versioning, _put_versioning),
    _S3Setting("access", ("public_access_block",), "public access block", _get_block, _put_block),
    _S3Setting("access", ("acl",), "access control list", _get_acl, _put_acl, may_be_refused=False),
    _S3Setting("encryption", ("encryption",), "default encryption", _get_encryption, _put_encryption),
    _S3Setting(
        "lifecycle",
        ("noncurrent_days", "abort_days"),
        "lifecycle rules (old versions and unfinished uploads stay)",
        _get_lifecycle,
        _put_lifecycle,
    ),
    # Last: on Amazon a policy put before the public access block can be refused (pulumi-aws#2927).
    _S3Setting("policy", ("policy",), "bucket policy", _get_policy, _put_policy, may_be_refused=False),
)
_NOTHING: Final = BucketInputs(bucket="", connection=Connection(), owner="")
"""Inputs that ask for no setting."""


# ---- over the S3 API: its mark

OWNER_TAG: Final = "synapse-media:stack"
_WHERE: Final = f"its tag {OWNER_TAG!r}"
_NO_TAGS: Final = "bucket tags (the bucket carries no mark of its stack)"


def _tags(s3: Any, bucket: str) -> dict[str, str]:
    try:
        return {tag["Key"]: tag["Value"] for tag in call(s3, "get_bucket_tagging", Bucket=bucket)["TagSet"]}
    except ApiError as error:
        if error.code in ("NoSuchTagSet", "NoSuchTagSetError"):
            return {}
        raise


def _tags_if_any(s3: Any, bucket: str, *, may_be_denied: bool) -> dict[str, str] | None:
    """The tags; None where the store has none, or this key may not look at them."""
    try:
        return _tags(s3, bucket)
    except ApiError as error:
        if _is_excused(error, may_be_denied=may_be_denied):
            return None
        raise


def _put_mark(s3: Any, bucket: str, owner: str, tags: Mapping[str, str]) -> None:
    if tags.get(OWNER_TAG) != owner:
        tag_set = [{"Key": key, "Value": value} for key, value in {**tags, OWNER_TAG: owner}.items()]
        call(s3, "put_bucket_tagging", Bucket=bucket, Tagging={"TagSet": tag_set})


def _is_excused(error: ApiError, *, may_be_denied: bool) -> bool:
    """Nothing to fail for: the store doesn't have it, or a key that is no administrator's may not."""
    return error.lacking or (may_be_denied and error.denied)


def mark(s3: Any, bucket: str, marked: Marked, *, may_be_denied: bool = False) -> None:
    """Put our mark on a bucket that is no store's; one that carries another's is refused.

    Args:
        may_be_denied: it is no reason to fail that this key may not.
    """
    tags = _tags_if_any(s3, bucket, may_be_denied=may_be_denied)
    if tags is None:
        return
    require_mark(bucket, tags.get(OWNER_TAG, ""), _WHERE, marked)
    try:
        _put_mark(s3, bucket, marked.owner, tags)
    except ApiError as error:
        if not _is_excused(error, may_be_denied=may_be_denied):
            raise


def mark_of(s3: Any, bucket: str, *, may_be_denied: bool = False) -> str:
    """The mark that a bucket carries; "" for none, or where this key may not look."""
    return (_tags_if_any(s3, bucket, may_be_denied=may_be_denied) or {}).get(OWNER_TAG, "")


# ---- over the S3 API: the bucket


class S3Family(BucketFamily[S3In, _S3Setting]):
    """A bucket over the S3 API."""

    settings = _SETTINGS
    place_setting = "the endpoint"

    def __init__(self, state: AnyS3BucketState[S3In]) -> None:
        self.state: AnyS3BucketState[S3In] = state
        self.place = f"at {state.inputs.connection.endpoint}"
        self._tags: dict[str, str] | None = None
        self._made_at: float | None = None

    @cached_property
    def s3(self) -> Any:
        """The administrator's client."""
        return s3_client(self.inputs.connection)

    @property
    def can_be_marked(self) -> bool:  # type: ignore[override]
        return not self.state.has_no_tags

    def prepare(self, *, changing: bool) -> None:
        self.state.arn = arn(self.bucket)

    def find(self) -> bool:
        try:
            look(self.s3, self.bucket)
        except ApiError as error:
            if error.absent:
                return False
            raise
        return True

    def find_unknown(self) -> bool:
        try:
            return self.find()
        except ApiError as error:
            if not error.denied:
                raise
            raise StoreError(
                f"bucket: {self.bucket!r} exists and this credential may not look at it: it belongs to somebody else, "
                f"or the admin credential may not administer buckets. Choose another name. {error}"
            ) from None

    def make(self) -> bool:
        try:
            create_bucket(self.s3, self.bucket, self.inputs.connection.region)
        except ApiError as error:
            if error.code == "BucketAlreadyExists":
                raise taken(self.bucket, error) from None
            # A retry after an answer that was lost finds the bucket of the first try.
            if error.code != "BucketAlreadyOwnedByYou":
                raise
        self._made_at = time.monotonic()
        return True

    def mark(self, ours: frozenset[str]) -> str | None:
        self._tags = _tags_if_any(self.s3, self.bucket, may_be_denied=self.inputs.may_be_denied)
        return None if self._tags is None else self._tags.get(OWNER_TAG, "")

    def mark_place(self, mark: str) -> str:
        return _WHERE

    def address(self, connection: Connection) -> str:
        return connection.endpoint

    def is_untouched(self) -> bool:
        try:
            return self.is_empty() and not self._is_configured()
        except ApiError as error:
            if self.inputs.may_be_denied and error.denied:
                return False
            raise

    def _is_configured(self) -> bool:
        """Whether somebody has set anything of it."""
        s3, bucket = self.s3, self.bucket
        looks: tuple[Callable[[], object], ...] = (
            lambda: call(s3, "get_bucket_versioning", Bucket=bucket).get("Status"),
            lambda: _tags(s3, bucket),
            lambda: read_policy(s3, bucket),
            lambda: _lifecycle(s3, bucket) != _Lifecycle(),
        )
        for is_set in looks:
            try:
                if is_set():
                    return True
            except ApiError as error:
                if not error.lacking:
                    raise
        return False

    def wanted(self, setting: _S3Setting) -> tuple[str, ...]:
        return tuple(name for name in setting.fields if getattr(self.inputs, name) != getattr(_NOTHING, name))

    def excuses(self, error: ApiError) -> bool:
        return _is_excused(error, may_be_denied=self.inputs.may_be_denied)

    def read(self, setting: _S3Setting, inputs: S3In) -> S3In:
        return setting.get(self.s3, inputs)

    def apply(self) -> None:
        while True:
            try:
                return self._apply()
            except ApiError as error:
                # A bucket that was just made may not be known yet to whoever answers next.
                if not error.absent or self._made_at is None or time.monotonic() > self._made_at + SETTLE_SECONDS:
                    raise
                time.sleep(_PAUSE)

    def _apply(self) -> None:
        state = self.state
        state.lacks, state.has_no_tags = (), False
        try:
            tags = _tags(self.s3, self.bucket) if self._tags is None else self._tags
            _put_mark(self.s3, self.bucket, self.inputs.owner, tags)
        except ApiError as error:
            if not self.excuses(error):
                raise
            state.lacks, state.has_no_tags = (_NO_TAGS,), True
        for setting in self.managed():
            try:
                if self.wanted(setting):
                    setting.put(self.s3, self.inputs)
                    state.lacks = (*state.lacks, *self._dropped(setting))
            except ApiError as error:
                if not (
                    self.excuses(error) or (setting.may_be_refused and error.status == 400 and error.code in _REFUSED)
                ):
                    raise
                state.lacks = (*state.lacks, setting.words)

    def _dropped(self, setting: _S3Setting) -> list[str]:
        """What the store took and did not keep; in words, as `lacks` has it."""
        for patience in (*(_PAUSE,) * _LOOKS, 0):
            has = self.read(setting, self.inputs)
            lost = [name for name in setting.fields if getattr(has, name) != getattr(self.inputs, name)]
            if not lost or not patience:
                break
            # What was just written may be read a moment later only.
            time.sleep(patience)
        return list(map(not_kept, lost))

    def expiring_words(self, rules: tuple[str, ...]) -> str:
        return f"the lifecycle rules {', '.join(rules)} delete media by age: remove them"

    def is_empty(self) -> bool:
        return is_empty(self.s3, self.bucket)

    def empty(self) -> None:
        empty_out(self.s3, self.bucket)

    def clear(self) -> None:
        empty_out(self.s3, self.bucket, of_proof=True)

    def delete(self) -> None:
        try:
            call(self.s3, "delete_bucket", Bucket=self.bucket)
        except ApiError as error:
            if error.code != "BucketNotEmpty":
                raise
            raise not_empty(self.bucket) from None


def arn(bucket: str) -> str:
    """A bucket's ARN. The name may be UNKNOWN in a preview, and so is the ARN then."""
    name: object = bucket
    return bucket if name is UNKNOWN else f"arn:aws:s3:::{bucket}"


class S3BucketBase(BucketBase[S3In, S3State]):
    """A bucket over the S3 API."""

    def family(self, state: S3State) -> S3Family[S3In]:
        return S3Family(state)

    def checked(self, inputs: S3In) -> tuple[S3In, dict[str, str]]:
        if not isinstance(inputs.policy, str):
            return inputs, {}
        try:
            return replace(inputs, policy=canonical(inputs.policy)), {}
        except ValueError:
            return inputs, {"policy": "is not JSON"}

    def foreseen(self, inputs: S3In, old: S3State | None) -> S3State:
        state = super().foreseen(inputs, old)
        state.arn = arn(inputs.bucket)
        return state

    def read_state(self, values: Mapping[str, Any]) -> S3State:
        state = super().read_state(values)
        # Earlier releases noted it in words alone.
        state.has_no_tags = state.has_no_tags or _NO_TAGS in state.lacks
        return state


class Bucket(S3BucketBase[BucketInputs, BucketState]):
    """A private bucket over the S3 API, with the administrator's key."""

    described = BUCKET

    def diff(self, old: Values, new: Values) -> Diff:
        was, will = self.read_inputs(old).connection, self.read_inputs(new).connection
        known = isinstance(was, Connection) and isinstance(will, Connection)
        if known and was.iam_endpoint and will.iam_endpoint == "":
            # By one credential in the environment: the administrator's would get into state, and to Synapse.
            raise StoreError(
                "existing_key: this store has a user and a key of its own, made at "
                f"{was.iam_endpoint}, and the same variables can't hold the administrator's key that deletes these and "
                "the key that is meant for Synapse. Take two steps. First, with the administrator's key in the "
                "environment and iam_endpoint as it was: method: filesystem, <homeserver>/retain-bucket, "
                "<homeserver>/retire-key and <homeserver>/narrow-policy in the stack file's allow, and `up`. Then, "
                "with Synapse's own key in the environment: the method as it was, existing_key: true in place of "
                "iam_endpoint, adopt: true if that key may not see the bucket's tags, and `up`."
            )
        return super().diff(old, new)

    def imported(self, resource_id: str) -> tuple[BucketInputs, BucketState]:
        bucket, connection = import_id(resource_id)
        # Nothing of it is ours until the program that follows says so.
        inputs = BucketInputs(bucket=bucket, connection=connection, owner="", adopt=True)
        return inputs, BucketState(inputs=inputs, adopted=True)
