"""`s3store:index:GarageBucket` and `GarageKeyRing`: Garage over its admin API, version 2.

https://garagehq.deuxfleurs.fr/api/garage-admin-v2.html . A token of the admin API is the only credential; a scoped one
will do. A bucket is marked by the ID of the lifecycle rule that we put on it, a key by its name.

A `connection` here holds `adminEndpoint` beside what every other has.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from synapse_media.contract import PROOF_OBJECT
from synapse_media.errors import StoreError
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN
from synapse_media.settings import SLOTS
from synapse_media.store import credentials
from synapse_media.store.clients import ApiError, Credential, s3_client
from synapse_media.store.http import JsonClient, trusting
from synapse_media.store.objects import empty_out, is_empty, remove_versions

from .bucket import (
    drift,
    is_marked,
    marks_of,
    not_emptied_unmarked,
    not_empty,
    nothing_to_adopt,
    refuse_ownership,
    require_mark,
    require_same_place,
    say_differences,
    taken,
    there_already,
    unlike_new,
)
from .keyring import MadeKey, NamedKey, NamedKeys, RingBase
from .resource import Context, Found, PartialError, Resource, Values, connection_of, text

_MARK: Final = "synapse-media/"
_PERMISSIONS: Final = {"read": True, "write": True, "owner": False}
"""What Synapse's key may: never `owner`, with which it could give the bucket away."""
_EMPTYING: Final = timedelta(hours=1)


def admin(values: Mapping[str, Any]) -> JsonClient:
    """A client of the admin API, with the token in the environment."""
    connection = values["connection"]
    name = connection["variables"][0]
    credentials.refuse_foreign([name], family="garage")
    token = credentials.read(name)
    if not token:
        raise StoreError(f"the environment has no {name}: set it to a token of Garage's admin API.")
    headers = {"Authorization": f"Bearer {token}"}
    return JsonClient(connection["adminEndpoint"], "Garage's admin API", headers, ca_file=connection.get("caFile", ""))


def check_admin(values: Mapping[str, Any]) -> None:
    """Raises StoreError where the token in the environment is not accepted, or the region is not the cluster's."""
    _keys(admin(values))
    check_region(connection_of(values))


def _info(api: JsonClient, **query: str) -> dict[str, Any] | None:
    """The bucket by globalAlias or id; None where Garage says that there is none."""
    try:
        found = api.call("GET", "/v2/GetBucketInfo", query=query)
    except ApiError as error:
        # Its own code: some other server's 404 does not say that something is gone.
        if error.code == "NoSuchBucket":
            return None
        raise
    return _expected(api, "GetBucketInfo", found, id=str, objects=int, keys=list)


def _keys(api: JsonClient) -> list[dict[str, Any]]:
    """Every key of the cluster: {id, name, created, expired}."""
    found = api.call("GET", "/v2/ListKeys")
    if not isinstance(found, list):
        raise _not_garage(api, "ListKeys")
    return [_expected(api, "ListKeys", key, id=str, name=str) for key in found]


def _key_info(api: JsonClient, key_id: str) -> dict[str, Any]:
    """A key with the buckets that it reaches; the list of keys does not tell them."""
    return _expected(api, "GetKeyInfo", api.call("GET", "/v2/GetKeyInfo", query={"id": key_id}), buckets=list)


def _made_key(api: JsonClient, body: Mapping[str, Any]) -> dict[str, Any]:
    """A new key. One try: a repeated one would leave a key that nobody knows."""
    made = api.call("POST", "/v2/CreateKey", body)
    return _expected(api, "CreateKey", made, accessKeyId=str, secretAccessKey=str, created=str)


def _made_bucket(api: JsonClient, name: str) -> dict[str, Any]:
    """A new bucket, or the one that a try whose answer was lost has made: it is as new."""
    made = api.call("POST", "/v2/CreateBucket", {"globalAlias": name}, repeatable=True)
    return _expected(api, "CreateBucket", made, id=str)


def _expected(api: JsonClient, operation: str, found: Any, **parts: type) -> dict[str, Any]:
    """An answer, if it holds what Garage's does."""
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in parts.items()):
        raise _not_garage(api, operation)
    return found


def _not_garage(api: JsonClient, operation: str) -> ApiError:
    return ApiError(
        "NotGarage",
        200,
        f"{operation} at {api.base}: the answer is not that of Garage's admin API, version 2: check admin_endpoint",
    )


def check_region(connection: Connection) -> None:
    """Garage refuses a signature for another region than its own, and names its own in every refusal."""
    request = urllib.request.Request(f"{connection.endpoint}/", headers={"User-Agent": "synapse-media"})  # noqa: S310
    context = trusting(connection.ca_file)
    try:
        try:
            answer = urllib.request.urlopen(request, timeout=10, context=context)  # noqa: S310 - settings check it
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read(4096).decode(errors="replace")
    except http.client.HTTPException as error:
        raise ApiError(
            "NotS3", 0, f"endpoint {connection.endpoint}: what answers there is not HTTP ({type(error).__name__})"
        ) from None
    except OSError as error:
        raise ApiError("NoConnection", 0, f"endpoint {connection.endpoint}: no connection: {error}") from None
    # Nobody may do anything without a key, so it is always an error, in XML.
    if not re.search(r"<Error[ >]", body):
        raise ApiError(
            "NotS3",
            answer.status,
            f"endpoint {connection.endpoint}: what answers there (HTTP {answer.status}) is not Garage's S3 API: check "
            "the endpoint, and what stands in front of it.",
        )
    match = re.search(r"<Region>([^<]{1,100})</Region>", body)
    if match and match[1] != connection.region:
        raise StoreError(
            f"region: {connection.region!r} is not this cluster's, which signs for {match[1]!r} (s3_region in "
            f"garage.toml). Set region: {match[1]}."
        )


def _rule(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ID": inputs["owner"],
        "Status": "Enabled",
        "Filter": {},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": int(inputs["abortDays"])},
    }


def _now(info: Mapping[str, Any]) -> Values:
    """The settings of a bucket, as the inputs have them."""
    rules = [rule for rule in info.get("lifecycleRules") or [] if rule.get("Status") == "Enabled"]
    aborting = [
        rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 0)
        for rule in rules
        if rule.get("AbortIncompleteMultipartUpload")
    ]
    quotas = info.get("quotas") or {}
    found: Values = {
        "abortDays": min(aborting, default=0),
        "quotaBytes": quotas.get("maxSize") or 0,
        "quotaObjects": quotas.get("maxObjects") or 0,
        "website": bool(info.get("websiteAccess")),
    }
    # A rule that expires objects deletes media: it shows as drift, whoever made it.
    expiring = [rule.get("ID") or "" for rule in rules if rule.get("Expiration")]
    return {**found, "expiringRules": expiring} if expiring else found


def _mark_of(info: Mapping[str, Any], inputs: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """The mark; in a program of another project's name only our own is known for one."""
    ours, marks = marks_of(inputs, old), [rule.get("ID") or "" for rule in info.get("lifecycleRules") or []]
    return next((mark for mark in marks if mark in ours or mark.startswith(_MARK)), "")


def _require_mark(bucket: str, mark: str, inputs: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    require_mark(bucket, mark, f"its lifecycle rule {mark!r}", inputs, old)


_MANAGED: Final = {"access": ("website",), "lifecycle": ("abortDays",), "quota": ("quotaBytes", "quotaObjects")}


def _managed(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> frozenset[str]:
    """Inputs we answer for: all of a bucket of ours; of an adopted one those that `manage` names, and the quota, where
    the stack file sets one."""
    words = set(_MANAGED)
    if outputs.get("adopted"):
        asked = bool(inputs["quotaBytes"] or inputs["quotaObjects"])
        words = {*(inputs.get("manage") or ()), *(("quota",) if asked else ())}
    return frozenset(name for word in words for name in _MANAGED.get(word, ()))


class GarageBucket(Resource):
    """A bucket under a global alias, without website, with quotas and a rule that removes unfinished uploads.

    Inputs: `bucket`, `connection`, `owner` (the mark: the ID of the lifecycle rule), `formerOwner`, `adopt`, `manage`
    (settings of an adopted bucket that may be changed: access, lifecycle), `abortDays`, `quotaBytes` and `quotaObjects`
    (0: none), `website`, `forceDestroy`.
    Outputs: the inputs, `bucketId`, `lacks`, `adopted`, `differences`, `resumed` (it was ours by its mark and held
    objects when it was made: its keys may be in use, though state has none).
    """

    pulumi_type = "s3store:index:GarageBucket"
    replace_on = frozenset({"bucket"})
    required = frozenset({"bucket", "connection", "owner"})
    passing = frozenset({"formerOwner"})
    one_of_a_name = True

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        filled: Values = {
            "adopt": False,
            "manage": [],
            "abortDays": 7,
            "quotaBytes": 0,
            "quotaObjects": 0,
            "website": False,
            "forceDestroy": False,
        }
        return super().check({**filled, **inputs})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        refuse_ownership(inputs, old or {})
        names = ("bucketId", "lacks", "adopted", "differences")
        resumed = UNKNOWN if old is None else bool(old.get("resumed"))
        return {**inputs, **{name: (old or {}).get(name, UNKNOWN) for name in names}, "resumed": resumed}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        bucket, api = text(inputs, "bucket"), admin(inputs)
        check_region(connection_of(inputs))
        info, adopted, resumed = self._take_or_make(api, bucket, inputs)
        outputs: Values = {**inputs, "bucketId": info["id"], "lacks": [], "adopted": adopted, "differences": []}
        outputs["resumed"] = resumed
        try:
            if adopted:
                outputs["differences"] = _differences(info, inputs)
            self._apply(api, info, inputs, outputs)
        except StoreError as error:
            raise PartialError(f"bucket {bucket} is there, but not finished: {error}", bucket, outputs) from None
        say_differences(outputs, context)
        return bucket, outputs

    def _take_or_make(self, api: JsonClient, bucket: str, inputs: Values) -> tuple[dict[str, Any], bool, bool]:
        """The bucket, whether an existing one was adopted, and whether one of ours was taken up again."""
        info = _info(api, globalAlias=bucket)
        if info is None:
            if inputs.get("adopt"):
                raise nothing_to_adopt(bucket)
            try:
                return _made_bucket(api, bucket), False, False
            except ApiError as error:
                if error.code != "BucketAlreadyExists":
                    raise
                # A repeated call finds the bucket of the first try, whose answer was lost.
                info = _info(api, globalAlias=bucket)
                if info is None:
                    raise taken(bucket, error) from None
        mark = _mark_of(info, inputs, {})
        _require_mark(bucket, mark, inputs, {})
        if inputs.get("adopt"):
            return info, True, False
        if is_marked(mark, inputs):
            return info, False, bool(info["objects"])
        # What an interrupted run leaves: made, not marked yet, without anybody's key.
        if not (info["objects"] or info["keys"] or info.get("lifecycleRules")):
            return info, False, False
        raise there_already(bucket)

    def _apply(self, api: JsonClient, info: Mapping[str, Any], inputs: Values, outputs: Values) -> None:
        now, managed = _now(info), _managed(inputs, outputs)
        body: Values = {}
        if "website" in managed and now["website"] != inputs["website"]:
            body["websiteAccess"] = {"enabled": bool(inputs["website"])}
        if "abortDays" in managed and (
            now["abortDays"] != inputs["abortDays"]
            or "expiringRules" in now
            or _mark_of(info, inputs, outputs) != inputs["owner"]
        ):
            body["lifecycleRules"] = [_rule(inputs)]
        if "quotaBytes" in managed and any(now[name] != inputs[name] for name in _MANAGED["quota"]):
            quotas = (int(inputs["quotaBytes"]) or None, int(inputs["quotaObjects"]) or None)
            body["quotas"] = dict(zip(("maxSize", "maxObjects"), quotas, strict=True))
        if body:
            # As often as it takes: the same body leaves the same bucket.
            api.call("POST", "/v2/UpdateBucket", body, query={"id": info["id"]}, repeatable=True)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise StoreError("a Garage bucket is taken over with adopt: true in the stack file, not by an import")
        info = _info(admin(inputs), globalAlias=text(inputs, "bucket", resource_id))
        if info is None:
            return None
        now, managed = _now(info), _managed(inputs, outputs)
        drifted = drift(inputs, now, managed)
        if outputs.get("adopted"):
            outputs = {**outputs, "differences": _differences(info, inputs)}
            say_differences(outputs, context)
        ours = {"owner": text(outputs, "owner"), "bucketId": info["id"]}
        # Among the inputs alone: what the outputs say is ours. An adopted bucket has a mark only where its rules are
        # managed.
        marked = {**drifted, "owner": _mark_of(info, inputs, outputs)} if "abortDays" in managed else drifted
        return Found(text(inputs, "bucket"), marked, {**outputs, **drifted, **ours})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        bucket, api = text(inputs, "bucket"), admin(inputs)
        refuse_ownership(inputs, old)
        outputs: Values = {"adopted": False, "lacks": [], "differences": [], **old, **inputs}
        outputs.pop("expiringRules", None)
        # State keeps the old place until the bucket was seen at the new one: a refresh looks where state says.
        check_region(connection_of(inputs))
        info = _info(api, globalAlias=bucket)
        if info is None:
            raise StoreError(
                f"bucket: {bucket!r} does not exist at {api.base}. Check admin_endpoint; if the bucket was deleted, "
                "`synapse-media up --refresh` finds out and makes it again, empty."
            )
        mark = _mark_of(info, inputs, old)
        _require_mark(bucket, mark, inputs, old)
        if not old.get("adopted"):
            require_same_place(bucket, mark, api.base, ({**inputs, **old})["connection"]["adminEndpoint"])
        outputs["bucketId"] = info["id"]
        try:
            self._apply(api, info, inputs, outputs)
        except StoreError as error:
            raise PartialError(f"bucket {bucket}: {error}", bucket, outputs) from None
        return outputs

    def holds_media(self, outputs: Values) -> bool:
        """As `bucket.Bucket.holds_media`."""
        bucket, api = text(outputs, "bucket"), admin(outputs)
        info = _info(api, globalAlias=bucket)
        if info is None or not info["objects"]:
            return False
        with _reaching(api, info["id"], outputs) as s3:
            return not is_empty(s3, bucket)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        bucket, api = text(outputs, "bucket", resource_id), admin(outputs)
        info = _info(api, globalAlias=bucket)
        if info is None:
            return
        mark = _mark_of(info, {}, outputs)
        _require_mark(bucket, mark, {}, outputs)
        if info["objects"]:
            # An adopted bucket has no mark of ours unless its rules are managed.
            if not (mark or outputs.get("adopted")):
                raise not_emptied_unmarked(bucket)
            _empty(api, info["id"], bucket, outputs)
        api.call("POST", "/v2/CleanupIncompleteUploads", {"bucketId": info["id"], "olderThanSecs": 0}, repeatable=True)
        _delete_bucket(api, info["id"], bucket)


def _delete_bucket(api: JsonClient, bucket_id: str, bucket: str) -> None:
    try:
        api.call("POST", "/v2/DeleteBucket", query={"id": bucket_id}, repeatable=True)
    except ApiError as error:
        if error.code == "BucketNotEmpty":
            raise not_empty(bucket) from None
        if error.code != "NoSuchBucket":
            raise


def _empty(api: JsonClient, bucket_id: str, bucket: str, outputs: Values) -> None:
    """Delete the objects; without `forceDestroy` only where they are the proof's."""
    with _reaching(api, bucket_id, outputs) as s3:
        if not outputs.get("forceDestroy") and not is_empty(s3, bucket):
            raise not_empty(bucket)
        empty_out(s3, bucket)


@contextmanager
def _reaching(api: JsonClient, bucket_id: str, outputs: Values) -> Iterator[Any]:
    """An S3 client with a key for just this, there for as long as it takes: the admin API can't list a bucket."""
    name, expiration = f"{outputs['owner']}/emptying", (datetime.now(UTC) + _EMPTYING).isoformat()
    for left in _keys(api):
        # Of a run that was cut off; expired keys stay, too.
        if left["name"] == name:
            _delete_key(api, left["id"])
    key = _made_key(api, {"name": name, "expiration": expiration})
    try:
        _allow(api, bucket_id, key["accessKeyId"])
        yield s3_client(connection_of(outputs), Credential(key["accessKeyId"], key["secretAccessKey"]))
    finally:
        _delete_key(api, key["accessKeyId"])


def _differences(info: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """What a new bucket would have had, and this one has not; in words, nothing changed."""
    now = _now(info)
    words = unlike_new(now, inputs, (name for names in _MANAGED.values() for name in names))
    if "expiringRules" in now:
        words.append("a lifecycle rule deletes media by age: remove it")
    return words


def _allow(api: JsonClient, bucket_id: str, key_id: str, permissions: Mapping[str, bool] | None = None) -> None:
    """What is true is allowed, what is false denied; all that was before stays otherwise."""
    wanted = permissions or _PERMISSIONS
    for operation, value in (("AllowBucketKey", True), ("DenyBucketKey", False)):
        names = {name: True for name, is_wanted in wanted.items() if is_wanted is value}
        if names:
            body = {"bucketId": bucket_id, "accessKeyId": key_id, "permissions": names}
            api.call("POST", f"/v2/{operation}", body, repeatable=True)


def _delete_key(api: JsonClient, key_id: str) -> None:
    try:
        api.call("POST", "/v2/DeleteKey", query={"id": key_id}, repeatable=True)
    except ApiError as error:
        if error.code != "NoSuchAccessKey":
            raise


class GarageKeyRing(RingBase):
    """Keys with read and write on one bucket.

    Inputs beside those of every ring: `owner`, `bucketId`, `permissions` {read, write, owner}, `adopt` and `resumed`
    (see NamedKeys and GarageBucket).
    """

    pulumi_type = "s3store:index:GarageKeyRing"
    required = RingBase.required | {"owner", "bucketId"}
    passing = RingBase.passing | {"resumed"}

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        return super().check({"permissions": dict(_PERMISSIONS), **inputs})

    def family(self, values: Values) -> NamedKeys:
        return _Keys(values)


class _Keys(NamedKeys):
    """The keys of a bucket, and those that carry our names."""

    def __init__(self, values: Values) -> None:
        self.who = f"the keys of {text(values, 'userName')}"
        self._api = admin(values)
        self._bucket_id = text(values, "bucketId")
        self.names = {slot: f"{text(values, 'owner')}/{text(values, 'userName')}/{slot}" for slot in SLOTS}
        self.adopted = bool(values.get("adopt") or values.get("resumed"))
        self._permissions: dict[str, dict[str, bool]] = {}

    def found(self) -> list[NamedKey]:
        info = _info(self._api, id=self._bucket_id) or {"keys": []}
        self._permissions = {key["accessKeyId"]: key["permissions"] for key in info["keys"]}
        return [
            NamedKey(key["id"], key["name"], active=not key.get("expired"), elsewhere=self._is_elsewhere(key["id"]))
            for key in _keys(self._api)
            if key["id"] in self._permissions or key["name"] in self.names.values()
        ]

    def _is_elsewhere(self, key_id: str) -> bool:
        """Another store of the same stack, homeserver and user name may have keys of our names."""
        if key_id in self._permissions:
            return False
        try:
            return bool(_key_info(self._api, key_id)["buckets"])
        except ApiError as error:
            # A token made for an earlier release may not ask: the key is left alone, and reported.
            if error.denied:
                return True
            raise

    def usable(self) -> bool:
        return _info(self._api, id=self._bucket_id) is not None

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        made = _made_key(self._api, {"name": self.names[slot], "neverExpires": True})
        _allow(self._api, self._bucket_id, made["accessKeyId"])
        return MadeKey(made["accessKeyId"], made["secretAccessKey"], made["created"].replace("Z", "+00:00"))

    def delete(self, key_id: str) -> None:
        _delete_key(self._api, key_id)

    def mend(self, slot: str, key_id: str) -> None:
        if self._permissions.get(key_id) != _PERMISSIONS:
            _allow(self._api, self._bucket_id, key_id)

    def drifted(self, slots: Mapping[str, str]) -> Values:
        none = dict.fromkeys(_PERMISSIONS, False)
        found = [self._permissions.get(key_id, none) for key_id in slots.values()]
        return {"permissions": next((has for has in found if has != _PERMISSIONS), dict(_PERMISSIONS))}


class GarageLender:
    """The proof's administrator at Garage: by the admin API, which has no key of its own for S3."""

    def lend(self, inputs: Values, decoy: str) -> bool:
        api = admin(inputs)
        found = _info(api, globalAlias=decoy) or _made_bucket(api, decoy)
        mark = _mark_of(found, inputs, {})
        _require_mark(decoy, mark, inputs, {})
        if mark != inputs["owner"]:
            rules = {"lifecycleRules": [_rule({"owner": inputs["owner"], "abortDays": 1})]}
            api.call("POST", "/v2/UpdateBucket", rules, query={"id": found["id"]}, repeatable=True)
        return True

    def take_back(self, inputs: Values, decoy: str) -> None:
        api = admin(inputs)
        found = _info(api, globalAlias=decoy)
        if found is not None:
            _delete_bucket(api, found["id"], decoy)

    def left_behind(self, inputs: Values, decoy: str) -> list[str]:
        # Its admin API lists names and ids, and no mark.
        return []

    def clear(self, inputs: Values) -> None:
        # A key that may write may delete, so the proved one cleans up after itself.
        key = Credential(text(inputs, "accessKeyId"), text(inputs, "secretAccessKey"))
        prefix = text(inputs, "prefix") + PROOF_OBJECT
        remove_versions(s3_client(connection_of(inputs), key), text(inputs, "bucket"), prefix)
