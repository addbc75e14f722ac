"""`s3store:index:GarageBucket` and `GarageKeyRing`: Garage over its admin API, version 2.

https://garagehq.deuxfleurs.fr/api/garage-admin-v2.html . A token of the admin API is the only credential; a scoped one
is sufficient. A bucket is marked by the ID of our lifecycle rule on it, a key by its name:
OWNER/USER/SLOT/NONCE/making, and `known` in place of `making` once the state has it. A key that moved with its store to
another bucket has the nonce of each in its name, the last one's last. Release 0.1.0 named keys OWNER/USER/SLOT.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from synapse_media.errors import StoreError
from synapse_media.schema.connection import AdminCheck, Connection
from synapse_media.schema.resources import (
    GARAGE_BUCKET,
    GARAGE_KEY_RING,
    GarageBucketInputs,
    GarageBucketState,
    GarageKeyRingInputs,
    GarageKeyRingState,
    ProofInputs,
)
from synapse_media.settings import SLOTS
from synapse_media.store import bounded, credentials, schemes
from synapse_media.store.answers import NO_ANSWER, ApiError, items, part
from synapse_media.store.clients import Credential, s3_client
from synapse_media.store.http import JsonClient, opener
from synapse_media.store.objects import empty_out, is_empty

from .bucket import (
    BucketBase,
    BucketFamily,
    Setting,
    days_in_force,
    marks_of,
    new_nonce,
    not_empty,
    not_kept,
    require_mark,
    require_no_keys,
    taken,
)
from .families import Family
from .keyring import MadeKey, NamedKey, NamedKeys, RingBase, accepted_at
from .proof import clear_with_proved_key

_MARK: Final = "synapse-media/"
"""The prefix of marks in a project of the default name, also those of earlier releases in other forms."""
_ANY_MARK: Final = re.compile(r"[\w.-]+/[\w.-]+/[\w.:\[\]-]+", re.ASCII)
"""PROJECT/STACK/HOMESERVER: a mark in a project of any name."""
_PERMISSIONS: Final = {"read": True, "write": True, "owner": False}
"""The permissions of Synapse's key: never `owner`, which could delete the bucket or grant access to it."""
_ABSENT: Final = {
    "NoSuchBucket": {"GetBucketInfo", "UpdateBucket", "DeleteBucket", "AllowBucketKey", "DenyBucketKey"},
    "NoSuchAccessKey": {"GetKeyInfo", "UpdateKey", "DeleteKey", "AllowBucketKey", "DenyBucketKey"},
}
"""Garage's words for what is not there, and the operations that have them, always with a 404."""
_EMPTYING: Final = timedelta(hours=1)
_MAKING: Final = "making"
"""The last part of a key's name until the key is in the state: with it, a key that is in no state was never issued."""
_KNOWN: Final = "known"
_OUR_NAME: Final = re.compile(rf".+/(?:{'|'.join(SLOTS)})(?:/[0-9a-f]*)*(?:/{_MAKING}|/{_KNOWN})?")
_NO_KEY: Final = f"GK{0:024x}"
"""An access key ID that no key has."""


def admin(connection: Connection) -> JsonClient:
    """A client for the admin API with the token from the environment. Makes no call."""
    name = connection.variables[0]
    credentials.refuse_foreign([name], family="garage")
    token = credentials.read(name)
    if not token:
        raise StoreError(f"the environment has no {name}: set it to a token of Garage's admin API.")
    headers = {"Authorization": f"Bearer {token}"}
    return JsonClient(
        connection.admin_endpoint, "Garage's admin API", headers, "admin_endpoint", ca_file=connection.ca_file
    )


def check_admin(asked: AdminCheck) -> None:
    """Raises StoreError if the token in the environment is rejected, or the region is not that of the cluster."""
    _keys(admin(asked.connection))
    check_region(asked.connection)


# ---- calls and responses


@dataclass(frozen=True, slots=True)
class _Rule:
    """A lifecycle rule; 0 days if it does not abort unfinished uploads.

    Attributes:
        wire: as Garage has it.
        filtered: it is limited to some objects.
    """

    rule_id: str
    filtered: bool
    enabled: bool
    abort_days: int
    expires: bool
    wire: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _BucketInfo:
    """The properties of a bucket that are used.

    Attributes:
        aliases: its global names.
        keys: {access key ID: {permission: whether granted}} of the keys with access.
        key_names: {access key ID: name} of those keys.
        quota_bytes, quota_objects: 0 for none.
    """

    bucket_id: str
    aliases: tuple[str, ...]
    objects: int
    keys: Mapping[str, Mapping[str, bool]]
    key_names: Mapping[str, str]
    rules: tuple[_Rule, ...]
    website: bool
    quota_bytes: int
    quota_objects: int


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the cluster."""

    key_id: str
    name: str
    expired: bool


def _call(
    api: JsonClient,
    operation: str,
    body: object = None,
    *,
    query: Mapping[str, str] | None = None,
    repeatable: bool | None = None,
) -> Any:
    """The answer to an operation; where there is no body, not even an empty one, it reads. Raises ApiError.

    That something is not there is believed only in Garage's own form: it may end in a deletion from the state.
    """
    try:
        return api.call(
            "GET" if body is None else "POST", f"/v2/{operation}", body or None, query=query, repeatable=repeatable
        )
    except ApiError as error:
        if not (error.absent or error.code in _ABSENT):
            raise
        if error.status == http.HTTPStatus.NOT_FOUND and operation in _ABSENT.get(error.code, ()):
            raise
        raise ApiError(
            "NotGarage",
            error.status,
            f"{_called(api, operation)}: {error.code} with HTTP {error.status} is no answer of Garage's admin API, "
            "version 2: check admin_endpoint",
        ) from None


def _info(api: JsonClient, **query: str) -> _BucketInfo | None:
    """The bucket with this globalAlias or id; None if Garage reports that there is none."""
    try:
        found = _call(api, "GetBucketInfo", query=query)
    except ApiError as error:
        # Garage's own code: a 404 of another server does not mean that it does not exist.
        if error.code == "NoSuchBucket":
            return None
        raise
    return _parsed(api, "GetBucketInfo", found, **query)


def _held(api: JsonClient, bucket_id: str) -> _BucketInfo | None:
    """The bucket of a state, by its ID; as `_info`, and Garage does not list it either."""
    info = _info(api, id=bucket_id)
    if info is None:
        _require_gone(api, bucket_id)
    return info


def _require_gone(api: JsonClient, bucket_id: str, alias: str = "") -> None:
    """Raises ApiError where Garage has a bucket of this ID or alias which a lookup did not find.

    A bucket that is taken for gone is dropped from the state with its media, or made anew.
    """
    try:
        found = _call(api, "ListBuckets")
    except ApiError as error:
        if not error.denied:
            raise
        # A token with the scope of an earlier release: it may only ask for one.
        info = _info(api, id=bucket_id) if bucket_id else None
        found = [{"id": info.bucket_id, "globalAliases": [*info.aliases]}] if info else []
    what = _called(api, "ListBuckets")
    if not isinstance(found, list):
        raise _not_garage(api, "ListBuckets")
    for bucket in found:
        has, names = part(what, bucket, "id", str), items(what, bucket, "globalAliases", str)
        if has == bucket_id or alias in names:
            raise ApiError(
                NO_ANSWER,
                0,
                f"bucket {alias or bucket_id!r} at {api.base}: Garage did not find it when asked for it, and yet has "
                f"it (ID {has}, {', '.join(names) or 'without a name'}). It is not taken for deleted. If somebody "
                "changed its name, change it back: `garage bucket alias ID NAME`. If not, check whether several "
                "servers answer at admin_endpoint, of which one lags behind or is another cluster, and run this again.",
            )


def _made_bucket(api: JsonClient, name: str) -> _BucketInfo:
    """Create a bucket. Raises ApiError BucketAlreadyExists also if a first attempt with a lost response created it."""
    made = _call(api, "CreateBucket", {"globalAlias": name}, repeatable=True)
    return _parsed(api, "CreateBucket", made, globalAlias=name)


def _parsed(api: JsonClient, operation: str, found: Any, **asked: str) -> _BucketInfo:
    """The bucket in an answer. Raises ApiError if it is not the one with this globalAlias or id."""
    answer = _expected(api, operation, found, id=str, globalAliases=list, objects=int, keys=list)
    what = _called(api, operation)
    keys = items(what, answer, "keys", dict)
    quotas = part(what, answer, "quotas", dict, {})
    info = _BucketInfo(
        bucket_id=part(what, answer, "id", str),
        aliases=tuple(items(what, answer, "globalAliases", str)),
        objects=part(what, answer, "objects", int),
        keys={part(what, key, "accessKeyId", str): _granted(what, key) for key in keys},
        key_names={part(what, key, "accessKeyId", str): part(what, key, "name", str, "") for key in keys},
        rules=tuple(
            _Rule(
                rule_id=part(what, rule, "ID", str, ""),
                filtered=any(part(what, rule, "Filter", dict, {}).values()),
                enabled=rule.get("Status") == "Enabled",
                abort_days=part(
                    what, part(what, rule, "AbortIncompleteMultipartUpload", dict, {}), "DaysAfterInitiation", int, 0
                ),
                expires=bool(rule.get("Expiration")),
                wire=rule,
            )
            for rule in items(what, answer, "lifecycleRules", dict, [])
        ),
        website=part(what, answer, "websiteAccess", bool, False),
        quota_bytes=part(what, quotas, "maxSize", int, 0),
        quota_objects=part(what, quotas, "maxObjects", int, 0),
    )
    for name, value in asked.items():
        if value not in ((info.bucket_id,) if name == "id" else info.aliases):
            raise _of_another(api, operation, "bucket")
    return info


def _granted(what: str, key: Mapping[str, Any]) -> dict[str, bool]:
    """{permission: whether granted} of a key in an answer about a bucket."""
    permissions = part(what, key, "permissions", dict)
    return {name: part(what, permissions, name, bool) for name in {*_PERMISSIONS, *permissions}}


def _update(api: JsonClient, bucket_id: str, changes: Mapping[str, object]) -> None:
    """Change settings of a bucket. Idempotent, so it is retried."""
    found = _call(api, "UpdateBucket", changes, query={"id": bucket_id}, repeatable=True)
    _parsed(api, "UpdateBucket", found, id=bucket_id)


def _delete_bucket(api: JsonClient, bucket_id: str, bucket: str) -> None:
    try:
        answer = _call(api, "DeleteBucket", {}, query={"id": bucket_id}, repeatable=True)
    except ApiError as error:
        if error.code == "BucketNotEmpty":
            raise not_empty(bucket) from None
        if error.code != "NoSuchBucket":
            raise
        answer = error
    # Garage answers null. To anything else, the bucket itself tells.
    if answer is not None and _held(api, bucket_id):
        raise _not_garage(api, "DeleteBucket")


def _keys(api: JsonClient) -> list[_Key]:
    """Every key of the cluster."""
    found = _call(api, "ListKeys")
    if not isinstance(found, list):
        raise _not_garage(api, "ListKeys")
    what = _called(api, "ListKeys")
    listed = [_expected(api, "ListKeys", key, id=str, name=str) for key in found]
    return [_Key(key["id"], key["name"], expired=part(what, key, "expired", bool, False)) for key in listed]


def _reaches_any(api: JsonClient, key_id: str) -> bool:
    """Whether a key has access to any bucket, which the list of keys does not show."""
    found = _expected(api, "GetKeyInfo", _call(api, "GetKeyInfo", query={"id": key_id}), accessKeyId=str, buckets=list)
    if found["accessKeyId"] != key_id:
        raise _of_another(api, "GetKeyInfo", "key")
    return bool(found["buckets"])


def _made_key(api: JsonClient, body: Mapping[str, object], there: Collection[str]) -> MadeKey:
    """Create a key, without retries: a lost response would leave a second, unknown key.

    Args:
        there: the IDs of the keys that there are already: what is done with a new one must not be done with them.
    """
    operation = "CreateKey"
    answer = _call(api, operation, body)
    parts = {"accessKeyId": str, "secretAccessKey": str, "created": str, "name": str, "buckets": list}
    made = _expected(api, operation, answer, **parts, permissions=dict)
    if made["name"] != body["name"] or made["accessKeyId"] in there:
        raise _of_another(api, operation, "key")
    may_more = part(_called(api, operation), made["permissions"], "createBucket", bool) or made["buckets"]
    if may_more or (body.get("neverExpires") and made.get("expiration") is not None):
        raise ApiError(
            "NotGarage",
            200,
            f"{_called(api, operation)}: the key in the answer may do more than a new one, or expires: check "
            "admin_endpoint",
        )
    try:
        created = datetime.fromisoformat(made["created"]).isoformat()
    except ValueError:
        created = datetime.now(UTC).isoformat()
    return MadeKey(made["accessKeyId"], made["secretAccessKey"], created)


def _allow(api: JsonClient, bucket_id: str, key_id: str) -> None:
    """Set the permissions of a key on a bucket."""
    asked: dict[str, bool] = {}
    for operation, value in (("AllowBucketKey", True), ("DenyBucketKey", False)):
        names = {name: True for name, is_wanted in _PERMISSIONS.items() if is_wanted is value}
        asked |= dict.fromkeys(names, value)
        body = {"bucketId": bucket_id, "accessKeyId": key_id, "permissions": names}
        has = _parsed(api, operation, _call(api, operation, body, repeatable=True), id=bucket_id).keys.get(key_id, {})
        if not asked.items() <= has.items():
            raise ApiError(
                "NotGarage",
                200,
                f"{_called(api, operation)}: by the answer, the permissions of key {key_id} are not as asked: check "
                "admin_endpoint",
            )


def _rename(api: JsonClient, key_id: str, name: str) -> None:
    found = _call(api, "UpdateKey", {"name": name}, query={"id": key_id}, repeatable=True)
    renamed = _expected(api, "UpdateKey", found, accessKeyId=str, name=str)
    if (renamed["accessKeyId"], renamed["name"]) != (key_id, name):
        raise _of_another(api, "UpdateKey", "key")


def _may_rename(api: JsonClient) -> bool:
    """Whether the token's scope, which may be that of an earlier release, includes UpdateKey."""
    try:
        _rename(api, _NO_KEY, "")
    except ApiError as error:
        if error.denied:
            return False
        if error.code != "NoSuchAccessKey":
            raise
    return True


def _lacks_update(variable: str) -> str:
    return (
        f"the token in {variable} lacks the permission UpdateKey. Create a token with the permissions that "
        "`synapse-media doctor` names."
    )


def _delete_key(api: JsonClient, key_id: str) -> None:
    try:
        answer = _call(api, "DeleteKey", {}, query={"id": key_id}, repeatable=True)
    except ApiError as error:
        if error.code != "NoSuchAccessKey":
            raise
        answer = error
    # Garage answers null. To anything else, the list of keys tells.
    if answer is not None and key_id in {key.key_id for key in _keys(api)}:
        raise _not_garage(api, "DeleteKey")


def _expected(api: JsonClient, operation: str, found: Any, **parts: type) -> dict[str, Any]:
    """The response, validated. Raises ApiError if it is not Garage's."""
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in parts.items()):
        raise _not_garage(api, operation)
    return found


def _called(api: JsonClient, operation: str) -> str:
    return f"{operation} at {api.what} ({api.setting} {api.base})"


def _not_garage(api: JsonClient, operation: str) -> ApiError:
    return ApiError(
        "NotGarage",
        200,
        f"{_called(api, operation)}: the answer is not that of Garage's admin API, version 2: check admin_endpoint",
    )


def _of_another(api: JsonClient, operation: str, thing: str) -> ApiError:
    return ApiError(
        "NotGarage",
        200,
        f"{_called(api, operation)}: the answer is about another {thing} than the one asked for: check admin_endpoint "
        "and any proxy in front of it",
    )


_CHECK: Final = ": check the endpoint and any proxy in front of it."


def check_region(connection: Connection) -> None:
    """Raises StoreError if the region is wrong: Garage rejects such a signature, and names its region in the error."""
    request = urllib.request.Request(f"{connection.endpoint}/", headers={"User-Agent": "synapse-media"})  # noqa: S310
    opened = opener(connection.ca_file)
    try:
        try:
            answer = opened.open(request, timeout=10)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read(4096).decode(errors="replace")
    except (http.client.HTTPException, ValueError) as error:  # the latter at a chunk of negative length
        said = f"endpoint {connection.endpoint}: what answers there is not HTTP ({type(error).__name__})"
        raise ApiError("NotS3", 0, said + schemes.hint(connection.endpoint, "endpoint", said)) from None
    except bounded.TooMuchError as error:
        raise ApiError("RefusedAnswer", 0, f"endpoint {connection.endpoint}: the answer {error}") from None
    except OSError as error:
        said = f"endpoint {connection.endpoint}: no connection: {error}"
        raise ApiError("NoConnection", 0, said + schemes.hint(connection.endpoint, "endpoint", said)) from None
    # A request without a key is always an error, in XML.
    if not re.search(r"<Error[ >]", body):
        raise ApiError(
            "NotS3",
            answer.status,
            f"endpoint {connection.endpoint}: what answers there (HTTP {answer.status}) is not Garage's S3 API"
            + (schemes.hint(connection.endpoint, "endpoint", "") or _CHECK),
        )
    match = re.search(r"<Region>([^<]{1,100})</Region>", body)
    if match and match[1] != connection.region:
        raise StoreError(
            f"region: {connection.region!r} is not this cluster's, which signs for {match[1]!r} (s3_region in "
            f"garage.toml). Set region: {match[1]}."
        )


# ---- buckets


def _rule(owner: str, abort_days: int) -> dict[str, object]:
    return {
        "ID": owner,
        "Status": "Enabled",
        "Filter": {},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": abort_days},
    }


def _mark_of(info: _BucketInfo, ours: frozenset[str]) -> str:
    """The mark; "" if there is none. One in `ours` takes precedence."""
    found = [rule.rule_id for rule in info.rules if rule.rule_id in ours or _is_mark(rule)]
    return next((mark for mark in found if mark in ours), next(iter(found), ""))


def _is_mark(rule: _Rule) -> bool:
    """Whether a rule looks like the mark of some stack, in a project of any name.

    A rule that was disabled or extended by hand still counts: taking another stack's bucket is worse than refusing one
    that has somebody's rule of this form.
    """
    if rule.rule_id.startswith(_MARK):
        return True
    return bool(rule.abort_days and not rule.filtered and _ANY_MARK.fullmatch(rule.rule_id))


def _mark_place(mark: str) -> str:
    where = f"its lifecycle rule {mark!r}"
    if mark.startswith(_MARK):
        return where
    return f"{where} (recognised by the form PROJECT/STACK/HOMESERVER: give it another ID if it is not a mark)"


_ACCESS: Final = Setting("access", ("website",), "website")
_LIFECYCLE: Final = Setting("lifecycle", ("abort_days",), "lifecycle rules")
_QUOTA: Final = Setting("quota", ("quota_bytes", "quota_objects"), "quotas")
_NO_MARK: Final = "lifecycle rules (the bucket carries no mark of its stack)"
"""What `lacks` has of a Garage whose admin API takes lifecycle rules and drops them, as 2.0.0 does."""


class _BucketFamily(BucketFamily[GarageBucketInputs, Setting]):
    """A bucket under a global alias, marked by the ID of its lifecycle rule."""

    settings = (_ACCESS, _LIFECYCLE, _QUOTA)
    place_setting = "admin_endpoint"

    def __init__(self, state: GarageBucketState) -> None:
        self.state: GarageBucketState = state
        self._api = admin(self.inputs.connection)
        self.place = f"at {self._api.base}"
        self._info: _BucketInfo | None = None

    @property
    def _found(self) -> _BucketInfo:
        if self._info is None:
            raise LookupError("nothing was found or made yet")
        return self._info

    def _note(self, info: _BucketInfo | None) -> bool:
        self._info = info
        if info is None:
            return False
        self.state.bucket_id = info.bucket_id
        return True

    def prepare(self, *, changing: bool) -> None:
        if changing:
            check_region(self.inputs.connection)

    @property
    def can_be_marked(self) -> bool:  # type: ignore[override]
        return _NO_MARK not in self.state.lacks

    def find(self) -> bool:
        info, held = _info(self._api, globalAlias=self.bucket), self.state.bucket_id
        # By another ID it was deleted and made anew; or it is still there, and something else has its name.
        if info is None or held not in ("", info.bucket_id):
            _require_gone(self._api, held, self.bucket if info is None else "")
        return self._note(info)

    def find_unknown(self) -> bool:
        return self._note(_info(self._api, globalAlias=self.bucket))

    def make(self) -> bool:
        try:
            self._note(_made_bucket(self._api, self.bucket))
        except ApiError as error:
            if error.code != "BucketAlreadyExists":
                raise
            # The bucket of a first attempt whose response was lost, or of somebody else.
            if not self.find_unknown():
                raise taken(self.bucket, error) from None
            return False
        return self.is_untouched()

    def mark(self, ours: frozenset[str]) -> str | None:
        mark = _mark_of(self._found, ours)
        # The rules of an adopted bucket are changed only if they are managed, so it may have no mark of ours.
        unmarked = not self.can_be_marked or (self.state.adopted and _LIFECYCLE not in self.managed())
        return None if unmarked and mark in {"", *ours} else mark

    def mark_place(self, mark: str) -> str:
        return _mark_place(mark)

    def address(self, connection: Connection) -> str:
        return connection.admin_endpoint

    def is_untouched(self) -> bool:
        # Includes having no keys.
        return not (self._found.objects or self._found.keys or self._found.rules)

    def require_no_unknown_keys(self) -> None:
        names = self._found.key_names
        unknown = [
            key_id
            for key_id, permissions in self._found.keys.items()
            if any(permissions.values()) and names[key_id] != self._emptying and not self._may_lose(names[key_id])
        ]
        deny = f"`garage bucket deny --read --write --owner {self.bucket} --key KEY`"
        require_no_keys(self.bucket, sorted(unknown), f"delete it, or take its access by {deny}")

    def _may_lose(self, name: str) -> bool:
        """Whether a key of this name needs no access: it moved with its store to another bucket, or an interrupted run
        created it."""
        nonce = self.state.nonce
        if not nonce and self._is_of_earlier_release(name):
            return True
        parts = name.split("/")
        return parts[-2:] == [nonce, _MAKING] or (parts[-1] == _KNOWN and nonce in parts[:-2])

    def _is_of_earlier_release(self, name: str) -> bool:
        """Whether a key may be that of a state without a nonce: OWNER/USER/SLOT."""
        owner, _, rest = name.partition(f"{self.inputs.owner}/")
        return not owner and rest.rpartition("/")[2] in SLOTS

    @property
    def _emptying(self) -> str:
        """The name of the temporary key that empties the bucket."""
        return f"{self.inputs.owner}/emptying"

    def managed(self) -> tuple[Setting, ...]:
        """As everywhere, and the quota of an adopted bucket where the stack file sets one."""
        managed = super().managed()
        asked = bool(self.inputs.quota_bytes or self.inputs.quota_objects)
        return tuple(setting for setting in self.settings if setting in managed or (setting is _QUOTA and asked))

    def read(self, setting: Setting, inputs: GarageBucketInputs) -> GarageBucketInputs:
        has = self._found
        if setting is _ACCESS:
            return replace(inputs, website=has.website)
        if setting is _QUOTA:
            return replace(inputs, quota_bytes=has.quota_bytes, quota_objects=has.quota_objects)
        rules = [rule for rule in has.rules if rule.enabled]
        return replace(
            inputs,
            abort_days=days_in_force(((rule.abort_days, not rule.filtered) for rule in rules), inputs.abort_days),
            # A rule that expires objects deletes media, so it shows as drift, whoever created it.
            expiring_rules=tuple(rule.rule_id for rule in rules if rule.expires),
        )

    def unlike(self, setting: Setting) -> list[str]:
        if setting is not _LIFECYCLE:
            return []
        return [
            f"it has the lifecycle rule {json.dumps(rule.wire, sort_keys=True)}, a new bucket would not"
            for rule in self._found.rules
            if not (rule.enabled and (not rule.filtered or rule.expires))
        ]

    def _rules(self) -> list[object]:
        """Our rule beside those of others, which lose what was found as drift: expiring media, or too early an end."""
        abort_days = self.inputs.abort_days
        kept: list[object] = [
            rule.wire
            for rule in self._found.rules
            if rule.rule_id not in marks_of(self.inputs)
            and not (rule.enabled and (rule.expires or 0 < rule.abort_days < abort_days))
        ]
        return [*kept, _rule(self.inputs.owner, abort_days)]

    def apply(self) -> None:
        self.state.lacks = ()
        inputs, now, has = self.inputs, self.now(), self._found
        changes: dict[str, object] = {}
        if now.website != inputs.website:
            changes["websiteAccess"] = {"enabled": inputs.website}
        unmarked = _LIFECYCLE in self.managed() and all(rule.rule_id != inputs.owner for rule in has.rules)
        if now.abort_days != inputs.abort_days or now.expiring_rules or unmarked:
            changes["lifecycleRules"] = self._rules()
        if (now.quota_bytes, now.quota_objects) != (inputs.quota_bytes, inputs.quota_objects):
            changes["quotas"] = {"maxSize": inputs.quota_bytes or None, "maxObjects": inputs.quota_objects or None}
        if changes:
            _update(self._api, has.bucket_id, changes)
            self._info = _info(self._api, id=has.bucket_id) or has
            self.state.lacks = tuple(self._dropped())

    def _dropped(self) -> Iterator[str]:
        """What Garage took and did not keep, in words, as `lacks` has it."""
        now = self.now()
        for name in (name for setting in self.managed() for name in setting.fields):
            if getattr(self.inputs, name) and not getattr(now, name):
                yield not_kept(name)
        if _LIFECYCLE in self.managed() and all(rule.rule_id != self.inputs.owner for rule in self._found.rules):
            yield _NO_MARK

    def expiring_words(self, rules: tuple[str, ...]) -> str:
        return "a lifecycle rule deletes media by age: remove it"

    def looks_empty(self) -> bool:
        return not self._found.objects

    def is_empty(self) -> bool:
        if self.looks_empty():
            return True
        with self._s3() as s3:
            return is_empty(s3, self.bucket)

    def empty(self) -> None:
        if not self.looks_empty():
            with self._s3() as s3:
                empty_out(s3, self.bucket)
        uploads = {"bucketId": self._found.bucket_id, "olderThanSecs": 0}
        _call(self._api, "CleanupIncompleteUploads", uploads, repeatable=True)

    def clear(self) -> None:
        if not self.looks_empty():
            with self._s3() as s3:
                empty_out(s3, self.bucket, of_proof=True)

    def delete(self) -> None:
        _delete_bucket(self._api, self._found.bucket_id, self.bucket)

    @contextmanager
    def _s3(self) -> Iterator[Any]:
        """An S3 client with a temporary key, since the admin API can't list objects."""
        name, expiration = self._emptying, (datetime.now(UTC) + _EMPTYING).isoformat()
        there = _keys(self._api)
        for left in there:
            # Left by interrupted runs; Garage keeps expired keys too.
            if left.name == name:
                _delete_key(self._api, left.key_id)
        body = {"name": name, "expiration": expiration}
        key = _made_key(self._api, body, {known.key_id for known in there})
        bucket_id = self._found.bucket_id
        try:
            _allow(self._api, bucket_id, key.key_id)
            yield s3_client(self.inputs.connection, Credential(key.key_id, key.secret))
        except ApiError as error:
            if error.absent and _held(self._api, bucket_id):
                # Of another store at the endpoint: the bucket would be taken for gone.
                raise ApiError(NO_ANSWER, error.status, f"{error}. Garage's admin API has it{_CHECK}") from None
            raise
        finally:
            _delete_key(self._api, key.key_id)


class GarageBucket(BucketBase[GarageBucketInputs, GarageBucketState]):
    """A bucket under a global alias, without website, with quotas and a rule that removes unfinished uploads."""

    described = GARAGE_BUCKET
    not_imported = "a Garage bucket can't be imported: adopt it with adopt: true in the stack file"

    def begun(self, inputs: GarageBucketInputs) -> GarageBucketState:
        # Recorded in the state before any key is created.
        return GarageBucketState(inputs=inputs, nonce=new_nonce())

    def family(self, state: GarageBucketState) -> _BucketFamily:
        return _BucketFamily(state)


# ---- keys


def _known_name(name: str, nonce: str) -> str:
    """The name of one of our keys once it is in the state of a ring whose bucket has this nonce."""
    parts = name.split("/")
    if parts[-1] in (_MAKING, _KNOWN):
        parts.pop()
    elif parts[-1] in SLOTS:
        parts.append("")  # release 0.1.0 had no nonce
    if parts[-1] != nonce:
        parts.append(nonce)
    return "/".join([*parts, _KNOWN])


class _Keys(NamedKeys):
    """The keys of a bucket, those of the ring, and those with our names that were not issued."""

    def __init__(self, state: GarageKeyRingState) -> None:
        inputs = state.inputs
        self.who = f"the keys of {inputs.user_name}"
        self._api = admin(inputs.connection)
        self._token = inputs.connection.variables[0]
        self._bucket_id = inputs.bucket_id
        self._nonce = inputs.nonce
        self._unissued = {slot: f"{inputs.owner}/{inputs.user_name}/{slot}/{inputs.nonce}/{_MAKING}" for slot in SLOTS}
        self._held = frozenset(key.access_key_id for key in state.keys.values())
        self._may_rename = True
        self._permissions: Mapping[str, Mapping[str, bool]] = {}
        self._names: Mapping[str, str] = {}
        self._connection = inputs.connection

    def require_ours(self, known: Collection[str]) -> None:
        self._may_rename = _may_rename(self._api)
        if not self._may_rename:
            self.notes = [
                f"{self.who}: {_lacks_update(self._token)} With this one, a key of a run that is interrupted is only "
                "reported by the next run, not deleted."
            ]

    def found(self) -> list[NamedKey]:
        info = _held(self._api, self._bucket_id)
        self._permissions = {} if info is None else info.keys
        listed = _keys(self._api)
        self._names = {key.key_id: key.name for key in listed}
        unlisted = self._permissions.keys() - self._names.keys()
        if unlisted:
            # What is taken for gone is dropped from the state with its secret, and lives on.
            raise ApiError(
                NO_ANSWER,
                0,
                f"{_called(self._api, 'ListKeys')}: the answer lacks keys that GetBucketInfo has "
                f"({', '.join(sorted(unlisted))}). None is taken for deleted. If somebody deleted them just now, run "
                "this again; if not, check admin_endpoint and any proxy in front of it.",
            )
        return [
            NamedKey(key.key_id, key.name, active=not key.expired, elsewhere=self._is_elsewhere(key.key_id))
            for key in listed
            if key.key_id in self._permissions or key.key_id in self._held or self.is_unissued(key.name)
        ]

    def is_unissued(self, name: str) -> bool:
        return name in self._unissued.values() or (bool(self._nonce) and name.endswith(f"/{self._nonce}/{_MAKING}"))

    def _is_elsewhere(self, key_id: str) -> bool:
        """Another store of the same stack, homeserver and user name may have keys of our names."""
        if key_id in self._permissions:
            return False
        try:
            return _reaches_any(self._api, key_id)
        except ApiError as error:
            # A token with the scope of an earlier release may lack this permission: then the key is kept and reported.
            if error.denied:
                return True
            raise

    def usable(self) -> bool:
        return _held(self._api, self._bucket_id) is not None

    def still_works(self, key: Credential) -> str:
        # Without an address of the S3 API a client would ask Amazon.
        if not self._connection.endpoint:
            return ""
        # Over S3 too, Garage takes the ID of a bucket for its name.
        return accepted_at(key, self._connection, self._bucket_id)

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        name = self._unissued[slot]
        if not self._may_rename:
            # Under the name of a key to be deleted it would stay in danger once it is in use.
            name = _known_name(name, self._nonce)
        made = _made_key(self._api, {"name": name, "neverExpires": True}, {*self._names, *before})
        _allow(self._api, self._bucket_id, made.key_id)
        return made

    def delete(self, key_id: str) -> None:
        _delete_key(self._api, key_id)

    def mend(self, slot: str, key_id: str) -> None:
        if self._permissions.get(key_id) != _PERMISSIONS:
            _allow(self._api, self._bucket_id, key_id)
        name = self._names[key_id]
        known = _known_name(name, self._nonce)
        # An adopted key keeps the name that somebody gave it.
        if name != known and self._may_rename and _OUR_NAME.fullmatch(name):
            _rename(self._api, key_id, known)

    def drifted(self, slots: Mapping[str, str]) -> Mapping[str, Any]:
        none = dict.fromkeys(_PERMISSIONS, False)
        found = [self._permissions.get(key_id, none) for key_id in slots.values()]
        return {"permissions": dict(next((has for has in found if has != _PERMISSIONS), _PERMISSIONS))}


class GarageKeyRing(RingBase[GarageKeyRingInputs, GarageKeyRingState]):
    """Keys with read and write on one bucket."""

    described = GARAGE_KEY_RING

    def family(self, state: GarageKeyRingState) -> NamedKeys:
        return _Keys(state)


# ---- the proof


class GarageAdministrator:
    """The proof's administrator at Garage, through the admin API, which has no S3 key."""

    def ensure_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        api = admin(inputs.connection)
        found = _info(api, globalAlias=decoy) or _made_bucket(api, decoy)
        mark = _mark_of(found, marks_of(inputs))
        require_mark(decoy, mark, _mark_place(mark), inputs)
        if mark != inputs.owner:
            _update(api, found.bucket_id, {"lifecycleRules": [_rule(inputs.owner, abort_days=1)]})
        return True

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        api = admin(inputs.connection)
        found = _info(api, globalAlias=decoy)
        if found is None:
            _require_gone(api, "", decoy)
        else:
            mark = _mark_of(found, marks_of(inputs))
            require_mark(decoy, mark, _mark_place(mark), inputs)
            _delete_bucket(api, found.bucket_id, decoy)

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        # The admin API lists names and ids without marks.
        return []

    def bucket_policy(self, inputs: ProofInputs) -> str | None:
        return ""  # Garage has no bucket policies

    def clear(self, inputs: ProofInputs, own: str) -> None:
        clear_with_proved_key(inputs, own)

    def note_known(self, inputs: ProofInputs) -> None:
        api, unissued = admin(inputs.connection), f"/{_MAKING}"
        for key in _keys(api):
            if key.key_id == inputs.access_key_id and key.name.endswith(unissued):
                try:
                    _rename(api, key.key_id, f"{key.name.removesuffix(unissued)}/{_KNOWN}")
                except ApiError as error:
                    if not error.denied:
                        raise
                    lacks = _lacks_update(inputs.connection.variables[0])
                    raise ApiError(error.code, error.status, f"{error}: {lacks}") from None


FAMILY: Final = Family(
    resources=(GarageBucket(), GarageKeyRing()),
    proof_administrator=GarageAdministrator(),
    check_admin=check_admin,
)
