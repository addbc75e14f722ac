"""`s3store:index:Bucket`: a private bucket over the S3 API, kept as the stack file says.

Inputs: `bucket`, `connection`, `owner` (the mark it carries), `formerOwner` (an older mark of ours), `adopt`, `manage`
(settings of an adopted bucket that may be changed: versioning, access, encryption, lifecycle, policy), `versioning`,
`noncurrentDays`, `abortDays`, `policy` (canonical JSON; "": none may be there; null: not looked at),
`publicAccessBlock`, `encryption`, `acl`, `forceDestroy`, `mayBeDenied` (the key is no administrator's: what it may not
set or see is said in `lacks`).
Outputs: the inputs, `arn`, `lacks` (settings this store does not have, in words), `adopted`, `differences` (what an
adopted bucket has otherwise than a new one would, in words).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from synapse_media.errors import StoreError
from synapse_media.schema import model
from synapse_media.store.clients import ApiError, call, s3_client
from synapse_media.store.objects import empty_out, holds_media, is_empty, look

from .resource import Context, Found, PartialError, Resource, Values, connection_of, import_id, text

OWNER_TAG = "synapse-media:stack"
_WHERE = f"its tag {OWNER_TAG!r}"


def nothing_to_adopt(bucket: str) -> StoreError:
    return StoreError(
        f"bucket: {bucket!r} does not exist, so it can't be adopted. Check the name and the endpoint, or set "
        "adopt: false to have it made."
    )


def require_mark(bucket: str, mark: str, where: str, inputs: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Refuse a bucket that carries another's mark; before each change, and before each delete.

    Args:
        where: what holds the mark, as messages name it.
        old: outputs, whose mark is ours as well; {} where there are none.
    """
    if mark and mark not in marks_of(inputs, old):
        raise StoreError(
            f"bucket: {bucket!r} is marked as that of another stack ({mark}): nothing of it is changed or deleted. "
            f"Choose another bucket, or remove {where} if that stack is gone for good. A bucket that was this stack's "
            "is given up, and left where it is, by <homeserver>/retain-bucket in the stack file's allow."
        )


def marks_of(inputs: Mapping[str, Any], old: Mapping[str, Any]) -> frozenset[str]:
    """Every mark by which a bucket is ours."""
    return frozenset(
        {text(inputs, "owner"), text(inputs, "formerOwner"), text(old, "owner"), text(old, "formerOwner")} - {""}
    )


def is_marked(mark: str, inputs: Mapping[str, Any]) -> bool:
    """Whether it is exactly ours: then a bucket that state does not know is taken up again, whatever is in it."""
    return mark in marks_of(inputs, {})


def require_same_place(bucket: str, mark: str, endpoint: str, former_endpoint: str) -> None:
    """Refuse a bucket without a mark that is at another endpoint than the one in state: it may be anybody's."""
    if not mark and former_endpoint != endpoint:
        raise StoreError(
            f"bucket: {bucket!r} at {endpoint} carries no mark of this stack: it is another bucket than the one at "
            f"{former_endpoint}, which is this store's. Nothing of it was touched. Check the endpoint; to move to "
            "another store, bring the media along as docs/switching.md says, and use adopt: true there."
        )


def not_emptied_unmarked(bucket: str) -> StoreError:
    return StoreError(
        f"bucket {bucket!r} is not empty, and the mark of this stack was taken off it: it is not deleted. If it is "
        "this stack's, `synapse-media up --refresh` marks it again; to give it up and leave it where it is, put "
        "<homeserver>/retain-bucket into the stack file's allow."
    )


def there_already(bucket: str) -> StoreError:
    return StoreError(
        f"bucket: {bucket!r} exists already and is not empty or not new. Nothing in it was touched. To keep Synapse's "
        "media in it, set adopt: true for this store; otherwise choose another name."
    )


def taken(bucket: str, error: ApiError) -> StoreError:
    return StoreError(f"bucket: {bucket!r} is taken by somebody else at this provider. Choose another name. {error}")


def drift(inputs: Values, now: Mapping[str, Any], managed: Collection[str]) -> Values:
    """The inputs, with what is managed as it is now, and rules that expire media where somebody made them."""
    drifted = {**inputs, **{name: now[name] for name in managed}}
    if "expiringRules" in now and "abortDays" in managed:
        drifted["expiringRules"] = now["expiringRules"]
    return drifted


def say_differences(outputs: Values, context: Context) -> None:
    """Report what an adopted bucket has otherwise than a new one would, each time it is looked at."""
    for words in outputs["differences"]:
        context.warn(f"bucket {outputs['bucket']} is taken over as it is: {words}")


def refuse_ownership(inputs: Values, old: Values) -> None:
    """What was taken over is not made ours by the way: its settings would be said to be those of a new bucket."""
    if old.get("adopted") and not inputs.get("adopt"):
        raise StoreError(
            f"bucket: {inputs['bucket']!r} was taken over or imported, and stays as it was: set adopt: true for this "
            "store. To have one of its settings changed, name it in the stack file's allow, for example "
            "<homeserver>/set-versioning."
        )


def not_empty(bucket: str) -> StoreError:
    return StoreError(
        f"bucket {bucket!r} holds media and is not deleted. To give it up without deleting anything, put "
        "<homeserver>/retain-bucket into the stack file's allow; to delete the media for good, put "
        "<homeserver>/delete-media there."
    )


_PUBLIC = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)
_BLOCK = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
_RULE = "synapse-media"


def canonical(document: str) -> str:
    """A policy document in one form, so that two of the same meaning compare equal; "" stays ""."""
    return json.dumps(json.loads(document), sort_keys=True, separators=(",", ":")) if document.strip() else ""


@dataclass(frozen=True, slots=True)
class _Setting:
    """One setting of a bucket.

    Attributes:
        key: what `manage` calls it.
        inputs: the inputs that hold it.
        words: its name when the store lacks it.
    """

    key: str
    inputs: tuple[str, ...]
    words: str
    read: Callable[[Any, str], Values]
    write: Callable[[Any, str, Mapping[str, Any]], None]


def _read_versioning(s3: Any, bucket: str) -> Values:
    return {"versioning": call(s3, "get_bucket_versioning", Bucket=bucket).get("Status") == "Enabled"}


def _write_versioning(s3: Any, bucket: str, wanted: Mapping[str, Any]) -> None:
    # A bucket that was never versioned has nothing to suspend.
    if wanted["versioning"] or call(s3, "get_bucket_versioning", Bucket=bucket).get("Status"):
        status = "Enabled" if wanted["versioning"] else "Suspended"
        call(s3, "put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": status})


def _read_lifecycle(s3: Any, bucket: str) -> Values:
    try:
        rules = call(s3, "get_bucket_lifecycle_configuration", Bucket=bucket).get("Rules", [])
    except ApiError as error:
        if error.code != "NoSuchLifecycleConfiguration":
            raise
        rules = []
    active = [rule for rule in rules if rule.get("Status") == "Enabled"]
    # A rule that expires current objects deletes media: it shows as drift, whoever made it.
    expiring = [rule.get("ID", "") for rule in active if {"Days", "Date"} & set(rule.get("Expiration", {}))]
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
    found: Values = {"noncurrentDays": min(noncurrent, default=0), "abortDays": min(abort, default=0)}
    if expiring:
        found["expiringRules"] = expiring
    return found


def _write_lifecycle(s3: Any, bucket: str, wanted: Mapping[str, Any]) -> None:
    rule: Values = {"ID": _RULE, "Status": "Enabled", "Filter": {"Prefix": ""}}
    if wanted["abortDays"]:
        rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": int(wanted["abortDays"])}
    if wanted["noncurrentDays"]:
        rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(wanted["noncurrentDays"])}
    call(s3, "put_bucket_lifecycle_configuration", Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


def read_policy(s3: Any, bucket: str) -> Values:
    try:
        document = call(s3, "get_bucket_policy", Bucket=bucket)["Policy"]
    except ApiError as error:
        if error.code != "NoSuchBucketPolicy":
            raise
        return {"policy": ""}
    try:
        # The one answer of S3 that is not XML.
        if "Statement" in json.loads(document):
            return {"policy": canonical(document)}
    except (ValueError, TypeError):
        pass
    raise ApiError(
        "Unparsable", 0, f"get_bucket_policy {bucket}: the answer is no policy: does the store answer there?"
    )


def write_policy(s3: Any, bucket: str, wanted: Mapping[str, Any]) -> None:
    if wanted["policy"]:
        call(s3, "put_bucket_policy", Bucket=bucket, Policy=wanted["policy"])
    elif read_policy(s3, bucket)["policy"]:
        call(s3, "delete_bucket_policy", Bucket=bucket)


def _read_block(s3: Any, bucket: str) -> Values:
    try:
        found = call(s3, "get_public_access_block", Bucket=bucket)["PublicAccessBlockConfiguration"]
    except ApiError as error:
        if error.code != "NoSuchPublicAccessBlockConfiguration":
            raise
        found = {}
    return {"publicAccessBlock": all(found.get(name) is True for name in _BLOCK)}


def _write_block(s3: Any, bucket: str, wanted: Mapping[str, Any]) -> None:
    if wanted["publicAccessBlock"]:
        call(s3, "put_public_access_block", Bucket=bucket, PublicAccessBlockConfiguration=_BLOCK)


def _read_encryption(s3: Any, bucket: str) -> Values:
    try:
        rules = call(s3, "get_bucket_encryption", Bucket=bucket)["ServerSideEncryptionConfiguration"].get("Rules", [])
    except ApiError as error:
        if error.code != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        rules = []
    return {"encryption": bool(rules)}


def _write_encryption(s3: Any, bucket: str, wanted: Mapping[str, Any]) -> None:
    if wanted["encryption"]:
        rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        call(s3, "put_bucket_encryption", Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def read_acl(s3: Any, bucket: str) -> Values:
    grants = call(s3, "get_bucket_acl", Bucket=bucket).get("Grants", [])
    public = any(
        grant.get("Grantee", {}).get("URI") in _PUBLIC or grant.get("Grantee", {}).get("ID") == "all-users"
        for grant in grants
    )
    return {"acl": "public" if public else "private"}


def write_acl(s3: Any, bucket: str, wanted: Mapping[str, Any]) -> None:
    # Where ACLs are switched off (BucketOwnerEnforced) there is nothing to write: private is all there is.
    if wanted["acl"] == "private" and read_acl(s3, bucket)["acl"] != "private":
        call(s3, "put_bucket_acl", Bucket=bucket, ACL="private")


_SETTINGS = (
    _Setting("versioning", ("versioning",), "versioning", _read_versioning, _write_versioning),
    _Setting("access", ("publicAccessBlock",), "public access block", _read_block, _write_block),
    _Setting("access", ("acl",), "access control list", read_acl, write_acl),
    _Setting("encryption", ("encryption",), "default encryption", _read_encryption, _write_encryption),
    _Setting(
        "lifecycle",
        ("noncurrentDays", "abortDays"),
        "lifecycle rules (old versions and unfinished uploads stay)",
        _read_lifecycle,
        _write_lifecycle,
    ),
    # Last: on Amazon a policy put before the public access block can be refused (pulumi-aws#2927).
    _Setting("policy", ("policy",), "bucket policy", read_policy, write_policy),
)
_OFF: Values = {
    "versioning": False,
    "publicAccessBlock": False,
    "encryption": False,
    "acl": "",
    "noncurrentDays": 0,
    "abortDays": 0,
    "policy": None,
}


def _managed(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[_Setting, ...]:
    """The settings we answer for: all of a bucket of ours, of an adopted one only those that `manage` names."""
    if not outputs.get("adopted"):
        return _SETTINGS
    return tuple(setting for setting in _SETTINGS if setting.key in (inputs.get("manage") or ()))


def _wanted(setting: _Setting, inputs: Mapping[str, Any]) -> bool:
    return any(inputs.get(name, _OFF[name]) != _OFF[name] for name in setting.inputs)


class Bucket(Resource):
    """A bucket that is ours. Never takes over a bucket that holds anything, unless `adopt` says so."""

    pulumi_type = "s3store:index:Bucket"
    replace_on = frozenset({"bucket"})
    required = frozenset({"bucket", "connection", "owner"})
    passing = frozenset({"formerOwner"})
    one_of_a_name = True

    def s3(self, values: Values) -> Any:
        """The administrator's S3 client, for a resource's inputs or outputs."""
        return s3_client(connection_of(values))

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        filled: Values = {"adopt": False, "manage": [], "forceDestroy": False, "mayBeDenied": False, **_OFF, **inputs}
        inputs, failures = super().check(filled)
        if isinstance(inputs["policy"], str):
            try:
                inputs["policy"] = canonical(inputs["policy"])
            except ValueError:
                failures["policy"] = "is not JSON"
        return inputs, failures

    def planned(self, inputs: Values, old: Values | None) -> Values:
        known = {**inputs, "arn": f"arn:aws:s3:::{inputs['bucket']}"}
        if old is not None:
            refuse_ownership(inputs, old)
            known |= {name: old[name] for name in ("lacks", "adopted", "differences") if name in old}
        return known

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        bucket = text(inputs, "bucket")
        s3 = self.s3(inputs)
        adopted = self._take_or_make(s3, bucket, connection_of(inputs).region, inputs)
        outputs: Values = {
            **inputs,
            "arn": f"arn:aws:s3:::{bucket}",
            "adopted": adopted,
            "lacks": [],
            "differences": [],
        }
        try:
            self._mark(s3, bucket, inputs, outputs)
            _apply(s3, bucket, inputs, outputs)
            if adopted:
                outputs["differences"] = _differences(s3, bucket, inputs)
                say_differences(outputs, context)
        except StoreError as error:
            raise PartialError(f"bucket {bucket} is there, but not finished: {error}", bucket, outputs) from None
        return bucket, outputs

    def _take_or_make(self, s3: Any, bucket: str, region: str, inputs: Values) -> bool:
        """Make the bucket, or take the one that is there; True where an existing one was adopted."""
        adopted = self.taken(s3, bucket, inputs)
        if adopted is None:
            if inputs.get("adopt"):
                raise nothing_to_adopt(bucket)
            self._make(s3, bucket, region)
        return bool(adopted)

    def taken(self, s3: Any, bucket: str, inputs: Values) -> bool | None:
        """Take the bucket that is there: None where there is none, True where it is adopted, False where it is ours.

        Raises StoreError where it is somebody else's, or holds what is not ours.
        """
        try:
            look(s3, bucket)
        except ApiError as error:
            if error.denied:
                raise StoreError(
                    f"bucket: {bucket!r} exists and this credential may not look at it: it belongs to somebody else, "
                    "or the admin credential may not administer buckets. Choose another name. " + str(error)
                ) from None
            if not error.absent:
                raise
            return None
        mark = _mark_in(_tags_if_any(s3, bucket, inputs))
        require_mark(bucket, mark, _WHERE, inputs, {})
        if inputs.get("adopt"):
            return True
        if is_marked(mark, inputs):
            return False
        # What an interrupted run leaves: made, not marked yet, nothing in it.
        try:
            if is_empty(s3, bucket) and not _touched(s3, bucket):
                return False
        except ApiError as error:
            if not (inputs.get("mayBeDenied") and error.denied):
                raise
        raise there_already(bucket)

    def _make(self, s3: Any, bucket: str, region: str) -> None:
        arguments: dict[str, Any] = {"Bucket": bucket}
        # Amazon's first region, and whatever imitates it, refuses to be named.
        if region != "us-east-1":
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": region}
        try:
            call(s3, "create_bucket", **arguments)
        except ApiError as error:
            # A retry after an answer that was lost finds the bucket of the first try.
            if error.code == "BucketAlreadyOwnedByYou":
                return
            if error.code == "BucketAlreadyExists":
                raise taken(bucket, error) from None
            raise

    def _mark(
        self, s3: Any, bucket: str, inputs: Values, outputs: Values, tags: Mapping[str, str] | None = None
    ) -> None:
        owner = text(inputs, "owner")
        try:
            tags = _tags(s3, bucket) if tags is None else tags
            if tags.get(OWNER_TAG) != owner:
                tag_set = [{"Key": key, "Value": value} for key, value in {**tags, OWNER_TAG: owner}.items()]
                call(s3, "put_bucket_tagging", Bucket=bucket, Tagging={"TagSet": tag_set})
        except ApiError as error:
            if not _excused(error, inputs):
                raise
            outputs["lacks"].append("bucket tags (the bucket carries no mark of its stack)")

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        imported = not inputs
        if imported:
            bucket, connection = import_id(resource_id)
            inputs = {
                "bucket": bucket,
                "connection": model.write(connection),
                "adopt": True,
                "manage": [],
                "forceDestroy": False,
                **_OFF,
            }
            outputs = {**inputs, "arn": f"arn:aws:s3:::{bucket}", "adopted": True, "lacks": [], "differences": []}
        bucket = text(inputs, "bucket", resource_id)
        s3 = self.s3(inputs)
        try:
            look(s3, bucket)
        except ApiError as error:
            if error.absent:
                return None
            raise
        found: Values = {}
        lacks = set(outputs.get("lacks") or ())
        for setting in _managed(inputs, outputs):
            if setting.words not in lacks and _wanted(setting, inputs):
                try:
                    found |= setting.read(s3, bucket)
                except ApiError as error:
                    # Of a half-made bucket it is not noted yet what the store lacks.
                    if not _excused(error, inputs):
                        raise
        tags = None if any(words.startswith("bucket tags") for words in lacks) else _tags_if_any(s3, bucket, inputs)
        if imported:
            inputs["owner"] = _mark_in(tags)
        elif outputs.get("adopted"):
            outputs = {**outputs, "differences": _differences(s3, bucket, inputs)}
            say_differences(outputs, context)
        # Among the inputs alone: what the outputs say is ours.
        mark = {} if tags is None or imported else {"owner": _mark_in(tags)}
        ours = "" if imported else text(outputs, "owner")
        return Found(bucket, {**inputs, **found, **mark}, {**outputs, **inputs, **found, "owner": ours})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        bucket = text(inputs, "bucket")
        refuse_ownership(inputs, old)
        s3 = self.s3(inputs)
        try:
            look(s3, bucket)
        except ApiError as error:
            # State keeps the old place: there the media is, and there a refresh looks.
            if not error.absent:
                raise
            raise StoreError(
                f"bucket: {bucket!r} does not exist at {inputs['connection']['endpoint']}. Check the endpoint; if "
                "the bucket was deleted, `synapse-media up --refresh` finds out and makes it again, empty."
            ) from None
        tags = _tags_if_any(s3, bucket, inputs)
        require_mark(bucket, _mark_in(tags), _WHERE, inputs, old)
        if tags is not None:
            endpoint = connection_of(inputs).endpoint
            require_same_place(bucket, _mark_in(tags), endpoint, connection_of({**inputs, **old}).endpoint)
        outputs: Values = {"adopted": False, "lacks": [], "differences": [], **old, **inputs}
        outputs["arn"] = f"arn:aws:s3:::{bucket}"
        outputs.pop("expiringRules", None)
        outputs["lacks"] = [words for words in outputs["lacks"] if words.startswith("bucket tags")]
        try:
            self._mark(s3, bucket, inputs, {"lacks": []} if outputs["lacks"] else outputs, tags)
            _apply(s3, bucket, inputs, outputs)
            if outputs["adopted"]:
                outputs["differences"] = _differences(s3, bucket, inputs)
                say_differences(outputs, context)
        except StoreError as error:
            raise PartialError(f"bucket {bucket}: {error}", bucket, outputs) from None
        return outputs

    def holds_media(self, outputs: Values) -> bool:
        """Whether there is media in it, old versions included; False also where it is gone. May raise StoreError."""
        return holds_media(self.s3(outputs), text(outputs, "bucket"))

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        bucket = text(outputs, "bucket", resource_id)
        s3 = self.s3(outputs)
        try:
            tags = _tags_if_any(s3, bucket, outputs)
            require_mark(bucket, _mark_in(tags), _WHERE, {}, outputs)
            unmarked = tags is not None and not _mark_in(tags)
            if (unmarked or not outputs.get("forceDestroy")) and not is_empty(s3, bucket):
                raise not_emptied_unmarked(bucket) if unmarked else not_empty(bucket)
            empty_out(s3, bucket)
            call(s3, "delete_bucket", Bucket=bucket)
        except ApiError as error:
            if not error.absent:
                raise


def _excused(error: ApiError, inputs: Mapping[str, Any]) -> bool:
    """Nothing to fail for: the store doesn't have it, or a key that is no administrator's may not."""
    return error.lacking or (bool(inputs.get("mayBeDenied")) and error.denied)


def _apply(s3: Any, bucket: str, inputs: Values, outputs: Values) -> None:
    for setting in _managed(inputs, outputs):
        try:
            if _wanted(setting, inputs):
                setting.write(s3, bucket, inputs)
        except ApiError as error:
            if not _excused(error, inputs):
                raise
            outputs["lacks"].append(setting.words)


def unlike_new(found: Mapping[str, Any], inputs: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """In words, which of the named settings a new bucket would have otherwise."""
    return [
        f"{name} is {found[name]!r}, a new bucket would have {inputs[name]!r}"
        for name in names
        if found[name] != inputs[name]
    ]


def _differences(s3: Any, bucket: str, inputs: Values) -> list[str]:
    """What a new bucket would have had, and this one has not; in words, nothing changed."""
    words = []
    for setting in _SETTINGS:
        if not _wanted(setting, inputs):
            continue
        try:
            found = setting.read(s3, bucket)
        except ApiError as error:
            if not _excused(error, inputs):
                raise
            what = "this store has no" if error.lacking else "this key may not look at"
            words.append(f"{what} {setting.words}")
            continue
        words += unlike_new(found, inputs, (name for name in setting.inputs if inputs[name] != _OFF[name]))
        if "expiringRules" in found:
            words.append(f"the lifecycle rules {', '.join(found['expiringRules'])} delete media by age: remove them")
    return words


def _tags(s3: Any, bucket: str) -> dict[str, str]:
    try:
        return {tag["Key"]: tag["Value"] for tag in call(s3, "get_bucket_tagging", Bucket=bucket)["TagSet"]}
    except ApiError as error:
        if error.code in ("NoSuchTagSet", "NoSuchTagSetError"):
            return {}
        raise


def mark(s3: Any, bucket: str, inputs: Mapping[str, Any]) -> None:
    """Put our mark on a bucket that is no store's; one that carries another's is refused.

    Args:
        inputs: `owner`, `formerOwner`, `mayBeDenied`, as a bucket has them.
    """
    tags = _tags_if_any(s3, bucket, inputs)
    if tags is None:
        return
    require_mark(bucket, _mark_in(tags), _WHERE, inputs, {})
    if tags.get(OWNER_TAG) != inputs["owner"]:
        tag_set = [{"Key": key, "Value": value} for key, value in {**tags, OWNER_TAG: inputs["owner"]}.items()]
        try:
            call(s3, "put_bucket_tagging", Bucket=bucket, Tagging={"TagSet": tag_set})
        except ApiError as error:
            if not _excused(error, inputs):
                raise


def _tags_if_any(s3: Any, bucket: str, inputs: Mapping[str, Any]) -> dict[str, str] | None:
    """The tags; None where the store has none, or this key may not look at them."""
    try:
        return _tags(s3, bucket)
    except ApiError as error:
        if _excused(error, inputs):
            return None
        raise


def mark_of(s3: Any, bucket: str, inputs: Mapping[str, Any]) -> str:
    """The mark that a bucket carries; "" for none, or where this key may not look."""
    return _mark_in(_tags_if_any(s3, bucket, inputs))


def _mark_in(tags: Mapping[str, str] | None) -> str:
    return (tags or {}).get(OWNER_TAG, "")


def _touched(s3: Any, bucket: str) -> bool:
    """Somebody has configured it: an empty bucket without our mark that is not just a minute old."""
    looks: tuple[Callable[[], object], ...] = (
        lambda: call(s3, "get_bucket_versioning", Bucket=bucket).get("Status"),
        lambda: _tags(s3, bucket),
        lambda: read_policy(s3, bucket)["policy"],
        lambda: any(_read_lifecycle(s3, bucket).values()),
    )
    for is_set in looks:
        try:
            if is_set():
                return True
        except ApiError as error:
            if not error.lacking:
                raise
    return False
