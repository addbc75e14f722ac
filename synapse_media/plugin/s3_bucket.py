"""The bucket over the S3 API: its settings, its mark, and the resource."""

from __future__ import annotations

import http
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar

from synapse_media.contract import PROOF_OBJECT
from synapse_media.errors import StoreError
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN
from synapse_media.schema.resources import BUCKET, AnyS3BucketState, BucketInputs, BucketState
from synapse_media.store.answers import NO_ANSWER, ApiError
from synapse_media.store.clients import Client, call, call_if_any, s3_client
from synapse_media.store.objects import (
    ANOTHER_LOOK,
    Elsewhere,
    Version,
    bucket_names,
    create_bucket,
    empty_out,
    left_by_proof,
    look,
    media_elsewhere,
    remove_versions,
)

from .bucket import BucketBase, BucketFamily, Marked, Setting, days_in_force, not_empty, not_kept, require_mark, taken
from .resource import Diff, Values, import_id

# ---- its settings

S3In = TypeVar("S3In", bound=BucketInputs)
S3State = TypeVar("S3State", bound=AnyS3BucketState[Any])
Result = TypeVar("Result")

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
_AES: Final = {"SSEAlgorithm": "AES256"}
_RULE: Final = "synapse-media"
_REFUSED: Final = frozenset({"MalformedXML", "InvalidArgument", "InvalidRequest"})
"""What stores say of settings that they don't have, and that are as S3's documentation has them."""
SETTLE_SECONDS: Final = 30.0
"""A bucket that was just made is not looked for longer."""
_LOOKS: Final = 2
_PAUSE: Final = 1.0
"""Seconds between two looks."""


def canonical(document: str) -> str:
    """The canonical form of a policy document, for comparison; "" for "". Raises ValueError for what is not JSON."""
    try:
        return json.dumps(json.loads(document), sort_keys=True, separators=(",", ":")) if document.strip() else ""
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Read(Protocol):
    def __call__(self, s3: Client, inputs: S3In, /) -> S3In: ...


@dataclass(frozen=True, slots=True)
class _S3Setting(Setting):
    """A setting with its accessors.

    Attributes:
        get: the inputs, with the setting as the bucket has it.
        put: makes it as the inputs say.
        may_be_refused: a store that knows the call, and refuses what is asked, is one that lacks it. Not so where the
            bucket would be open to others.
        preset: some stores give it to every new bucket; else a bucket that was just made has nothing to be read.
        unlike: what a new bucket would not have, and `get` does not show, as text.
    """

    get: _Read
    put: Callable[[Any, BucketInputs], None]
    may_be_refused: bool = True
    preset: bool = False
    unlike: Callable[[Any, BucketInputs], list[str]] = lambda _, __: []


def _get_versioning(s3: Client, inputs: S3In, /) -> S3In:
    status = call(s3, "get_bucket_versioning", Bucket=inputs.bucket).get("Status")
    return replace(inputs, versioning=status == "Enabled")


def _put_versioning(s3: Client, inputs: BucketInputs) -> None:
    # A bucket that was never versioned has nothing to suspend.
    if inputs.versioning or call(s3, "get_bucket_versioning", Bucket=inputs.bucket).get("Status"):
        status = "Enabled" if inputs.versioning else "Suspended"
        call(s3, "put_bucket_versioning", Bucket=inputs.bucket, VersioningConfiguration={"Status": status})


def _unlike_versioning(s3: Client, inputs: BucketInputs) -> list[str]:
    if call(s3, "get_bucket_versioning", Bucket=inputs.bucket).get("MFADelete") == "Enabled":
        return ["deleting a version needs MFA, a new bucket would not have that"]
    return []


Rule = Mapping[str, Any]
"""A lifecycle rule: https://docs.aws.amazon.com/AmazonS3/latest/API/API_LifecycleRule.html"""

_OLD_VERSIONS: Final = "NoncurrentVersionExpiration"
_UPLOADS: Final = "AbortIncompleteMultipartUpload"
_NO_ACTIONS: Final = frozenset({"ID", "Status", "Filter", "Prefix"})


def _lifecycle(s3: Client, bucket: str) -> Mapping[str, Any]:
    """The lifecycle configuration; {} for none."""
    try:
        found: Mapping[str, Any] = call_if_any(s3, "get_bucket_lifecycle_configuration", Bucket=bucket)
    except ApiError as error:
        if error.code != "NoSuchLifecycleConfiguration":
            raise
        return {}
    return found


def _is_active(rule: Rule) -> bool:
    return rule.get("Status") == "Enabled"


def _is_whole(rule: Rule) -> bool:
    """Whether a rule is for every object of the bucket."""
    only = rule.get("Filter", {})
    return not rule.get("Prefix") and set(only) <= {"Prefix"} and not only.get("Prefix")


def _is_expiring(rule: Rule) -> bool:
    """Whether a rule expires current objects. It deletes media, so it shows as drift, whoever created it."""
    return _is_active(rule) and bool({"Days", "Date"} & set(rule.get("Expiration", {})))


def _old_version_days(rule: Rule) -> int:
    return int(rule.get(_OLD_VERSIONS, {}).get("NoncurrentDays", 0))


def _upload_days(rule: Rule) -> int:
    return int(rule.get(_UPLOADS, {}).get("DaysAfterInitiation", 0))


def _get_lifecycle(s3: Client, inputs: S3In, /) -> S3In:
    active = [rule for rule in _lifecycle(s3, inputs.bucket).get("Rules", []) if _is_active(rule)]
    return replace(
        inputs,
        noncurrent_days=days_in_force(
            ((_old_version_days(rule), _is_whole(rule)) for rule in active), inputs.noncurrent_days
        ),
        abort_days=days_in_force(((_upload_days(rule), _is_whole(rule)) for rule in active), inputs.abort_days),
        expiring_rules=tuple(rule.get("ID", "") for rule in active if _is_expiring(rule)),
    )


def _unlike_lifecycle(s3: Client, inputs: BucketInputs) -> list[str]:
    """Rules with other actions, objects or a status that a new bucket's rule does not have."""
    return [
        f"it has the lifecycle rule {json.dumps(rule, sort_keys=True, default=str)}, a new bucket would not"
        for rule in _lifecycle(s3, inputs.bucket).get("Rules", [])
        if not (_is_active(rule) and _is_whole(rule) and _is_plain(rule)) and not _is_expiring(rule)
    ]


def _is_plain(rule: Rule) -> bool:
    """Whether a rule does nothing but what our rule does, after whatever time."""
    actions = set(rule) - _NO_ACTIONS
    return actions <= {_OLD_VERSIONS, _UPLOADS} and set(rule.get(_OLD_VERSIONS, {})) <= {"NoncurrentDays"}


def _kept(rule: Rule, inputs: BucketInputs) -> Rule:
    """A rule of somebody else, without the actions that were found as drift."""
    if not _is_active(rule):
        return rule
    actions = {
        "Expiration": _is_expiring(rule),
        _OLD_VERSIONS: not inputs.noncurrent_days or _old_version_days(rule) < inputs.noncurrent_days,
        _UPLOADS: not inputs.abort_days or _upload_days(rule) < inputs.abort_days,
    }
    return {name: value for name, value in rule.items() if not actions.get(name)}


def _put_lifecycle(s3: Client, inputs: BucketInputs) -> None:
    """Put our rule beside those of others, which lose what was found as drift: expiring media, or too early an end."""
    found = _lifecycle(s3, inputs.bucket)
    others = [_kept(rule, inputs) for rule in found.get("Rules", []) if rule.get("ID") != _RULE]
    rule: dict[str, object] = {"ID": _RULE, "Status": "Enabled", "Filter": {"Prefix": ""}}
    if inputs.abort_days:
        rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": inputs.abort_days}
    if inputs.noncurrent_days:
        rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": inputs.noncurrent_days}
    rules = {"Rules": [*(other for other in others if set(other) - _NO_ACTIONS), rule]}
    # A setting of the whole configuration, which a call without it resets.
    size = {name: found[name] for name in ("TransitionDefaultMinimumObjectSize",) if found.get(name)}
    call(s3, "put_bucket_lifecycle_configuration", Bucket=inputs.bucket, LifecycleConfiguration=rules, **size)


def read_policy(s3: Client, bucket: str) -> str:
    """A bucket's policy in canonical form; "" for none."""
    try:
        document = call(s3, "get_bucket_policy", Bucket=bucket)["Policy"]
    except ApiError as error:
        if error.code != "NoSuchBucketPolicy":
            raise
        return ""
    try:
        # The only response of S3 that is not XML.
        found = canonical(document)
        if "Statement" in json.loads(found):
            return found
    except (ValueError, TypeError):
        pass
    raise ApiError(
        "Unparsable", 0, f"get_bucket_policy {bucket}: the response is not a policy: is this the store's endpoint?"
    )


def write_policy(s3: Client, bucket: str, policy: str) -> None:
    """Set the policy of a bucket; "" removes it."""
    if policy:
        call(s3, "put_bucket_policy", Bucket=bucket, Policy=policy)
    elif read_policy(s3, bucket):
        call(s3, "delete_bucket_policy", Bucket=bucket)


def _get_policy(s3: Client, inputs: S3In, /) -> S3In:
    return replace(inputs, policy=read_policy(s3, inputs.bucket))


def _put_policy(s3: Client, inputs: BucketInputs) -> None:
    write_policy(s3, inputs.bucket, inputs.policy or "")


def _get_block(s3: Client, inputs: S3In, /) -> S3In:
    try:
        found = call_if_any(s3, "get_public_access_block", Bucket=inputs.bucket)["PublicAccessBlockConfiguration"]
    except ApiError as error:
        if error.code != "NoSuchPublicAccessBlockConfiguration":
            raise
        found = {}
    return replace(inputs, public_access_block=all(found.get(name) is True for name in _BLOCK))


def _put_block(s3: Client, inputs: BucketInputs) -> None:
    call_if_any(s3, "put_public_access_block", Bucket=inputs.bucket, PublicAccessBlockConfiguration=_BLOCK)


def _encryption_rules(s3: Client, bucket: str) -> list[Mapping[str, Any]]:
    try:
        found = call_if_any(s3, "get_bucket_encryption", Bucket=bucket)["ServerSideEncryptionConfiguration"]
    except ApiError as error:
        if error.code != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        found = {}
    return list(found.get("Rules", []))


def _get_encryption(s3: Client, inputs: S3In, /) -> S3In:
    return replace(inputs, encryption=bool(_encryption_rules(s3, inputs.bucket)))


def _unlike_encryption(s3: Client, inputs: BucketInputs) -> list[str]:
    defaults = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in _encryption_rules(s3, inputs.bucket)]
    return [
        f"default encryption is {json.dumps(default, sort_keys=True)}, not {json.dumps(_AES)}"
        for default in defaults
        if default != _AES
    ]


def _put_encryption(s3: Client, inputs: BucketInputs) -> None:
    bucket = inputs.bucket
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": _AES}]}
    call_if_any(s3, "put_bucket_encryption", Bucket=bucket, ServerSideEncryptionConfiguration=rules)
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


def is_public(s3: Client, bucket: str) -> bool:
    """Whether a bucket's ACL grants public access."""
    grants = call(s3, "get_bucket_acl", Bucket=bucket).get("Grants", [])
    return any(
        grant.get("Grantee", {}).get("URI") in _PUBLIC or grant.get("Grantee", {}).get("ID") == "all-users"
        for grant in grants
    )


def make_private(s3: Client, bucket: str) -> None:
    """Set a bucket's ACL to private."""
    # With ACLs disabled (BucketOwnerEnforced) there is nothing to do: the bucket is private.
    if is_public(s3, bucket):
        call(s3, "put_bucket_acl", Bucket=bucket, ACL="private")


def _get_acl(s3: Client, inputs: S3In, /) -> S3In:
    return replace(inputs, acl="public" if is_public(s3, inputs.bucket) else "private")


def _unlike_acl(s3: Client, inputs: BucketInputs) -> list[str]:
    """Grants to other accounts and to groups, where the store names the owner."""
    found = call(s3, "get_bucket_acl", Bucket=inputs.bucket)
    owner = found.get("Owner", {}).get("ID")
    grants = [(grant.get("Grantee", {}), grant.get("Permission", "")) for grant in found.get("Grants", [])]
    named = [(grantee.get("ID") or grantee.get("URI"), permission) for grantee, permission in grants]
    return [
        f"its access control list grants {permission} to {grantee}, a new bucket's would not"
        for grantee, permission in named
        if owner and grantee and grantee != owner
    ]


def _put_acl(s3: Client, inputs: BucketInputs) -> None:
    make_private(s3, inputs.bucket)


_SETTINGS: Final = (
    _S3Setting(
        "versioning", ("versioning",), "versioning", _get_versioning, _put_versioning, unlike=_unlike_versioning
    ),
    _S3Setting("access", ("public_access_block",), "public access block", _get_block, _put_block, preset=True),
    _S3Setting(
        "access",
        ("acl",),
        "access control list",
        _get_acl,
        _put_acl,
        may_be_refused=False,
        preset=True,
        unlike=_unlike_acl,
    ),
    _S3Setting(
        "encryption",
        ("encryption",),
        "default encryption",
        _get_encryption,
        _put_encryption,
        preset=True,
        unlike=_unlike_encryption,
    ),
    _S3Setting(
        "lifecycle",
        ("noncurrent_days", "abort_days"),
        "lifecycle rules (old versions and unfinished uploads stay)",
        _get_lifecycle,
        _put_lifecycle,
        unlike=_unlike_lifecycle,
    ),
    # Last: on Amazon a policy put before the public access block can be refused (pulumi-aws#2927).
    _S3Setting("policy", ("policy",), "bucket policy", _get_policy, _put_policy, may_be_refused=False),
)
_NOTHING: Final = BucketInputs(bucket="", connection=Connection(), owner="")
"""Inputs that request no settings."""


# ---- its mark

OWNER_TAG: Final = "synapse-media:stack"
_WHERE: Final = f"its tag {OWNER_TAG!r}"
_NO_TAGS: Final = "bucket tags (the bucket carries no mark of its stack)"


def _tags(s3: Client, bucket: str) -> dict[str, str]:
    try:
        return {tag["Key"]: tag["Value"] for tag in call(s3, "get_bucket_tagging", Bucket=bucket)["TagSet"]}
    except ApiError as error:
        if error.code in ("NoSuchTagSet", "NoSuchTagSetError"):
            return {}
        raise


def _tags_if_any(s3: Client, bucket: str, *, may_be_denied: bool) -> dict[str, str] | None:
    """The tags; None if the store does not support them or denies access to them."""
    try:
        return _tags(s3, bucket)
    except ApiError as error:
        if _is_excused(error, may_be_denied=may_be_denied):
            return None
        raise


def _put_mark(s3: Client, bucket: str, owner: str, tags: Mapping[str, str]) -> None:
    if tags.get(OWNER_TAG) != owner:
        tag_set = [{"Key": key, "Value": value} for key, value in {**tags, OWNER_TAG: owner}.items()]
        call(s3, "put_bucket_tagging", Bucket=bucket, Tagging={"TagSet": tag_set})


def _is_excused(error: ApiError, *, may_be_denied: bool) -> bool:
    """Whether an error is acceptable: the store lacks the feature, or denies it to a key that is not an admin's."""
    return error.lacking or (may_be_denied and error.denied)


def mark(s3: Client, bucket: str, marked: Marked, *, may_be_denied: bool = False) -> None:
    """Mark an unmarked bucket. Raises StoreError for one with another store's mark.

    Args:
        may_be_denied: ignore a denial.
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


def has_tags(s3: Client, bucket: str) -> bool:
    """Whether the store has tags. Raises ApiError where it does not say, and for a bucket that is not there."""
    return _tags_if_any(s3, bucket, may_be_denied=False) is not None


def mark_of(s3: Client, bucket: str, *, may_be_denied: bool = False) -> str:
    """The mark of a bucket; "" if it has none or it can't be read."""
    return (_tags_if_any(s3, bucket, may_be_denied=may_be_denied) or {}).get(OWNER_TAG, "")


# ---- the bucket


class _Remembering:
    """A client that asks for each setting of the bucket once, until something is written or `forget` is called.

    It lives as long as one call of the engine. What is looked at, what is unlike a new bucket, and what is kept beside
    what is written are then of one answer.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: dict[tuple[str, str], Any] = {}

    @property
    def meta(self) -> Any:
        """As boto3 has it."""
        return self._client.meta

    def forget(self) -> None:
        """What is asked from here on is asked anew."""
        self._answers.clear()

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        from botocore.exceptions import ClientError

        method = getattr(self._client, operation)

        def ask(**arguments: Any) -> Any:
            about = (operation, repr(sorted(arguments.items())))
            if about not in self._answers:
                try:
                    self._answers[about] = method(**arguments)
                except ClientError as error:
                    self._answers[about] = error
            answer = self._answers[about]
            if isinstance(answer, ClientError):
                raise answer
            return answer

        def change(**arguments: Any) -> Any:
            self.forget()
            return method(**arguments)

        if operation.startswith("get_") and operation != "get_object":
            return ask
        return method if operation.startswith("list_") else change


class S3Family(BucketFamily[S3In, _S3Setting]):
    """A bucket over the S3 API."""

    settings = _SETTINGS
    place_setting = "the endpoint"

    def __init__(self, state: AnyS3BucketState[S3In]) -> None:
        self.state: AnyS3BucketState[S3In] = state
        self.place = f"at {state.inputs.connection.endpoint}"
        self._tags: dict[str, str] | None = None
        self._made_at: float | None = None
        self._is_new = False
        self._left: list[Version] | None = None

    @cached_property
    def s3(self) -> _Remembering:
        """The administrator's client."""
        return _Remembering(self.administrator())

    def administrator(self) -> Client:
        """A new client that may do everything with the bucket."""
        return s3_client(self.inputs.connection)

    @property
    def can_be_marked(self) -> bool:  # type: ignore[override]
        return not self.state.has_no_tags

    def prepare(self, *, changing: bool) -> None:
        self.state.arn = arn(self.bucket)

    def find(self) -> bool:
        # What has a mark is there, and the mark is needed next. Without one, or where it can't be read, that is asked.
        if (self.can_be_marked and self._has_mark()) or self._is_there():
            return True
        self._require_unlisted()
        return False

    def _require_unlisted(self) -> None:
        """Raises ApiError where the store lists the bucket which it says is not there.

        A bucket that is taken for gone is dropped from the state with its media, or made anew.
        """
        gone = f"bucket {self.bucket!r} {self.place}: the store says that it does not exist (NoSuchBucket)"
        otherwise = "lists it among its buckets"
        try:
            is_there = self.bucket in bucket_names(self.s3, self.bucket)
        except ApiError as error:
            unanswered = error.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or (
                not error.status and error.code != NO_ANSWER
            )
            if unanswered and not error.lacking:
                raise ApiError(
                    error.code,
                    error.status,
                    f"{gone}, and whether it lists the bucket is not known: {error}. It is not taken for deleted, nor "
                    "made anew. Run this again once the store lists its buckets.",
                ) from None
            # An administrator of some buckets alone, or a proxy that passes on nothing but the bucket.
            self.s3.forget()
            time.sleep(ANOTHER_LOOK)
            is_there, otherwise = self._is_there(), "finds it when asked once more"
        if is_there:
            raise ApiError(
                NO_ANSWER,
                0,
                f"{gone}, and {otherwise}. It is not taken for deleted, nor made anew. Check whether several servers "
                "answer at the endpoint, of which one lags behind or is another store, and run this again.",
            )

    def _has_mark(self) -> bool:
        try:
            return bool(mark_of(self.s3, self.bucket, may_be_denied=True))
        except ApiError as error:
            if error.absent:
                return False
            raise

    def _is_there(self) -> bool:
        try:
            look(self.s3, self.bucket)
        except ApiError as error:
            if error.absent:
                return False
            raise
        return True

    def find_unknown(self) -> bool:
        try:
            return self._is_there()
        except ApiError as error:
            if not error.denied:
                raise
            raise StoreError(
                f"bucket: {self.bucket!r} exists and the store denies access to it: it belongs to another account, "
                f"or the admin credential lacks permissions for buckets. Choose another name. {error}"
            ) from None

    def make(self) -> bool:
        try:
            create_bucket(self.s3, self.bucket, self.inputs.connection.region)
        except ApiError as error:
            if error.code == "BucketAlreadyExists":
                raise taken(self.bucket, error) from None
            if error.code != "BucketAlreadyOwnedByYou":
                raise
            # The bucket of a first attempt whose response was lost, or one that another run has just made.
            self._made_at = time.monotonic()
            self._once_known(lambda: look(self.s3, self.bucket))
            return False
        self._made_at = time.monotonic()
        # Some stores answer so for a bucket that was there (Amazon in us-east-1, Ceph), which the look did not find.
        # Where its tags can't be read, `apply` says why: the bucket is in the state then.
        with suppress(ApiError):
            self._tags = self._once_known(lambda: _tags_if_any(self.s3, self.bucket, may_be_denied=True)) or {}
        self._is_new = OWNER_TAG not in (self._tags or {}) and self._once_known(self._has_nothing)
        return self._is_new

    def _has_nothing(self) -> bool:
        try:
            return self.is_empty()
        except ApiError as error:
            if not self.excuses(error):
                raise
            return True  # nothing is listed to a key that may not list

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
        """Whether the bucket has any setting."""
        s3, bucket = self.s3, self.bucket
        looks: tuple[Callable[[], object], ...] = (
            lambda: call(s3, "get_bucket_versioning", Bucket=bucket).get("Status"),
            lambda: _tags(s3, bucket),
            lambda: read_policy(s3, bucket),
            lambda: _lifecycle(s3, bucket).get("Rules"),
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

    def unlike(self, setting: _S3Setting) -> list[str]:
        return setting.unlike(self.s3, self.inputs)

    def apply(self) -> None:
        self._once_known(self._apply)

    def _once_known(self, action: Callable[[], Result]) -> Result:
        """What it returns, tried again while a bucket that was just made is not known yet to whoever answers next."""
        while True:
            try:
                return action()
            except ApiError as error:
                if not error.absent or self._made_at is None or time.monotonic() > self._made_at + SETTLE_SECONDS:
                    raise
                time.sleep(_PAUSE)
                self.s3.forget()

    def _apply(self) -> None:
        state = self.state
        state.lacks, state.has_no_tags = (), False
        try:
            tags = _tags(self.s3, self.bucket) if self._tags is None else self._tags
            if self._is_new:
                require_mark(self.bucket, tags.get(OWNER_TAG, ""), _WHERE, self.inputs)
            _put_mark(self.s3, self.bucket, self.inputs.owner, tags)
        except ApiError as error:
            if not self.excuses(error):
                raise
            state.lacks, state.has_no_tags = (_NO_TAGS,), True
        for setting in self.managed():
            try:
                if self.wanted(setting) and not self._is_alike(setting):
                    setting.put(self.s3, self.inputs)
                    state.lacks = (*state.lacks, *self._dropped(setting))
            except ApiError as error:
                if not (
                    self.excuses(error) or (setting.may_be_refused and error.status == 400 and error.code in _REFUSED)
                ):
                    raise
                state.lacks = (*state.lacks, setting.words)

    def _is_alike(self, setting: _S3Setting) -> bool:
        """Whether the bucket has a setting as the inputs say: then it is not written, as they don't show all of it."""
        if self._is_new and not setting.preset:
            return False
        try:
            has = self.read(setting, replace(self.inputs, expiring_rules=()))
        except ApiError as error:
            # In a bucket that was just made there is nothing to overwrite.
            if self._made_at is None or not self.excuses(error):
                raise
            return False
        return not has.expiring_rules and all(
            getattr(has, name) == getattr(self.inputs, name) for name in setting.fields
        )

    def _dropped(self, setting: _S3Setting) -> list[str]:
        """What the store took and did not keep, as if nothing had been asked; in words, as `lacks` has it."""
        for patience in (*(_PAUSE,) * _LOOKS, 0):
            try:
                has = self.read(setting, self.inputs)
            except ApiError as error:
                if not self.excuses(error):
                    raise
                return []  # a key that may set what it may not look at
            lost = [name for name in setting.fields if getattr(self.inputs, name) and not getattr(has, name)]
            if not lost or not patience:
                break
            # What was just written may be read a moment later only.
            time.sleep(patience)
            self.s3.forget()
        return list(map(not_kept, lost))

    def media_elsewhere(self) -> Elsewhere | None:
        try:
            return media_elsewhere(self.s3, self.bucket, self.inputs.media_in)
        except ApiError as error:
            if not self.excuses(error):
                raise
            return None

    def expiring_words(self, rules: tuple[str, ...]) -> str:
        return f"the lifecycle rules {', '.join(rules)} delete media by age: remove them"

    def is_empty(self) -> bool:
        self._left = left_by_proof(self.s3, self.bucket)
        return self._left is not None

    def empty(self) -> None:
        empty_out(self.s3, self.bucket)

    def clear(self) -> None:
        empty_out(self.s3, self.bucket, of_proof=True, listed=self._left)

    def delete(self) -> None:
        try:
            call(self.s3, "delete_bucket", Bucket=self.bucket)
        except ApiError as error:
            if error.code != "BucketNotEmpty":
                raise
            raise not_empty(self.bucket) from None


def arn(bucket: str) -> str:
    """A bucket's ARN; UNKNOWN if the name is, in a preview."""
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
        # Earlier releases recorded it as text only.
        state.has_no_tags = state.has_no_tags or _NO_TAGS in state.lacks
        return state


class Bucket(S3BucketBase[BucketInputs, BucketState]):
    """A private bucket over the S3 API, with the administrator's key."""

    described = BUCKET

    def diff(self, old: Values, new: Values) -> Diff:
        was, will = self.read_inputs(old).connection, self.read_inputs(new).connection
        known = isinstance(was, Connection) and isinstance(will, Connection)
        if known and was.iam_endpoint and will.iam_endpoint == "":
            # Both keys would come from the same variables, so the admin's would get into the state and to Synapse.
            raise StoreError(
                "existing_key: this store has a user and a key of its own, made at "
                f"{was.iam_endpoint}, and the same variables can't hold the administrator's key that deletes these and "
                "the key that is meant for Synapse. Take two steps. First, with the administrator's key in the "
                "environment and iam_endpoint as it was: method: filesystem, <homeserver>/retain-bucket, "
                "<homeserver>/retire-key and <homeserver>/narrow-policy in the stack file's allow, and `up`; in a "
                "program, whose components have no such method, remove the component for one `up`, with the same "
                "entries. Then, "
                "with Synapse's own key in the environment: the method as it was, existing_key: true in place of "
                "iam_endpoint, adopt: true if that key may not see the bucket's tags, and `up`."
            )
        return super().diff(old, new)

    def imported(self, resource_id: str) -> tuple[BucketInputs, BucketState]:
        bucket, connection = import_id(resource_id)
        # An imported bucket is treated as adopted until the program says otherwise.
        inputs = BucketInputs(bucket=bucket, connection=connection, owner="", adopt=True)
        return inputs, BucketState(inputs=inputs, adopted=True)
