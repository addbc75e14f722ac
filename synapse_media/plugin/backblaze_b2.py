"""`s3store:index:B2Bucket` and `B2KeyRing`: Backblaze B2 over its native API, by b2sdk.

The region belongs to the account and is fixed at sign-up, so endpoint and region are read from there. A key can't be
changed, only replaced; it carries a name that follows from the stack and the slot, so a key under such a name that is
not in state was made by an interrupted run and never handed out.

A `connection` here holds `realm` ("production", or the URL of an API that speaks like it) and `variables`.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from synapse_media.contract import PROOF_OBJECT
from synapse_media.errors import StoreError
from synapse_media.redaction import redacted, remember
from synapse_media.schema.model import UNKNOWN
from synapse_media.settings import SLOTS
from synapse_media.store import bounded, credentials, tracing
from synapse_media.store.clients import ApiError
from synapse_media.store.objects import is_ours

from .bucket import (
    drift,
    is_marked,
    not_emptied_unmarked,
    not_empty,
    nothing_to_adopt,
    refuse_ownership,
    require_mark,
    say_differences,
    taken,
    there_already,
    unlike_new,
)
from .keyring import MadeKey, NamedKey, NamedKeys, RingBase
from .proof import DECOY
from .resource import Context, Found, PartialError, Resource, Values, text

OWNER_INFO: Final = "synapse-media-stack"
_WHERE: Final = f"its bucket info {OWNER_INFO!r}"
AUTHORIZE: Final = "b2_authorize_account"
SECONDS: Final = 30
ATTEMPTS: Final = 5
_PATIENCE: Final = 20.0
"""Seconds; the longest pause between two tries, whatever the server asks for."""
NEEDED: Final = (
    "listBuckets",
    "writeBuckets",
    "deleteBuckets",
    "readBucketEncryption",
    "writeBucketEncryption",
    "listKeys",
    "writeKeys",
    "deleteKeys",
    "listFiles",
    "writeFiles",
    "deleteFiles",
)
"""What the admin's key must be able to do."""
_S3_URL = re.compile(r"https://s3\.([a-z0-9-]+)\.backblazeb2\.com/?")

_apis: dict[tuple[object, ...], Any] = {}
_lock = threading.Lock()


@cache
def _classes() -> tuple[Any, Any]:
    """b2sdk's API with our patience, once with and once without a second try."""
    import requests
    from b2sdk.v3 import B2Api, B2Http, B2Session
    from b2sdk.v3.exception import B2ConnectionError, B2Error
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import HTTPError

    class RefusedAnswerError(B2Error):  # type: ignore[misc]
        """Not tried again."""

        def __init__(self, code: str, words: str) -> None:
            super().__init__(words)
            self.code = code

    class Adapter(HTTPAdapter):
        """Says each call, follows no redirect, and takes no more of an answer than one may have."""

        def send(self, request: Any, *arguments: Any, **named: Any) -> Any:
            parts = urlsplit(request.url)
            what = f"{parts.path.rpartition('/')[2]} {request.method} {parts.netloc}{parts.path}"
            started = time.monotonic()
            answered.status = 0
            try:
                response = super().send(request, *arguments, **named)
            except requests.RequestException as error:
                tracing.say(what, started, type(error).__name__)
                raise
            answered.status = response.status_code
            tracing.say(what, started, response.status_code)
            try:
                if 300 <= response.status_code < 400:
                    # It would carry the credential to a place nobody named.
                    target = urlsplit(response.headers.get("Location") or "").netloc or "elsewhere"
                    words = f"it redirects to {target}, which is not followed. Mend realm"
                    raise RefusedAnswerError("Redirected", words)
                response._content = bounded.read(  # noqa: SLF001 - as requests itself leaves it
                    response.raw, lambda why: RefusedAnswerError("RefusedAnswer", f"the answer {why}")
                )
            except HTTPError as error:
                raise B2ConnectionError(f"the answer broke off: {error}") from None
            finally:
                response.raw.close()
            return response

    answered = threading.local()

    class Http(B2Http):  # type: ignore[misc]
        # b2sdk's own is 20 minutes for every call, and as long as the server asks between two tries.
        CONNECTION_TIMEOUT = 5
        TIMEOUT_FOR_COPY = SECONDS
        attempts = ATTEMPTS

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.session.adapters.clear()
            self.session.mount("", Adapter())

        def post_json_return_json(self, url: str, headers: Any, params: Any, try_count: int = 1) -> Any:
            del try_count
            for attempt in range(1, self.attempts + 1):
                try:
                    return super().post_json_return_json(url, headers, params, 1)
                except B2Error as error:
                    error.status = answered.status
                    if not error.should_retry_http() or attempt == self.attempts:
                        raise
                    wait = random.uniform(0.5, 1.0) * 0.5 * 2**attempt  # noqa: S311 - jitter
                    time.sleep(min(max(wait, error.retry_after_seconds or 0), _PATIENCE))
            raise AssertionError("the last attempt returns or raises")

    class Once(Http):
        attempts = 1

    def api(http: type[Http]) -> Any:
        class Session(B2Session):  # type: ignore[misc]
            B2HTTP_CLASS = http

        class Api(B2Api):  # type: ignore[misc]
            SESSION_CLASS = Session

        return Api

    return api(Http), api(Once)


def account(values: Mapping[str, Any], *, once: bool = False) -> Any:
    """The B2Api of the credential in the environment, authorized; nothing of it is written to disk.

    Args:
        once: no call is repeated.
    """
    connection = values["connection"]
    names = list(connection["variables"])
    credentials.refuse_foreign(names, family="backblaze_b2")
    key_id, key = (credentials.read(name) for name in names)
    missing = [name for name, value in zip(names, (key_id, key), strict=True) if not value]
    if missing:
        raise StoreError(
            f"the environment has no {' and no '.join(missing)}: set it to an application key for all buckets. "
            "`synapse-media doctor` says what it needs."
        )
    realm = str(connection.get("realm") or "production")
    cached = (realm, key_id, hash(key), once)
    with _lock:
        if cached not in _apis:
            from b2sdk.v3 import B2HttpApiConfig, DummyCache, InMemoryAccountInfo

            config = B2HttpApiConfig(user_agent_append="synapse-media")
            api = _classes()[once](InMemoryAccountInfo(), cache=DummyCache(), api_config=config)
            with in_words(AUTHORIZE, realm):
                api.authorize_account(application_key_id=key_id, application_key=key, realm=realm)
            remember(api.account_info.get_account_auth_token())
            _apis[cached] = api
        return _apis[cached]


def _admin(values: Mapping[str, Any], *, once: bool = False) -> Any:
    """`account`, if its key may do all that is needed: found out before anything is made."""
    api = account(values, once=once)
    allowed = api.account_info.get_allowed()
    lacking = [name for name in NEEDED if name not in allowed["capabilities"]]
    name = values["connection"]["variables"][0]
    if allowed.get("buckets") or allowed.get("namePrefix"):
        raise StoreError(
            f"{name} is a key limited to a bucket or a prefix, which can make neither buckets nor keys. Make an "
            f"application key for all buckets, with {', '.join(NEEDED)}."
        )
    if lacking:
        raise StoreError(
            f"{name} is a key without {', '.join(lacking)}. A key can't be changed: make another one with "
            f"{', '.join(NEEDED)}."
        )
    return api


def check_admin(values: Mapping[str, Any]) -> None:
    """Raises StoreError where the key in the environment can't do all that is needed, or the region is another's."""
    _account_facts(_admin(values), values)


@contextmanager
def in_words(operation: str, where: str) -> Iterator[None]:
    """b2sdk's errors as ApiError, in words and without what the server sent beside its message."""
    import requests
    from b2sdk.v3.exception import B2Error

    at = f"{operation} at Backblaze B2 ({where})"
    try:
        yield
    except B2Error as error:
        code = str(getattr(error, "code", None) or type(error).__name__)
        status = int(getattr(error, "status", 0))
        http = f" (HTTP {status})" if status else ""
        message = redacted(" ".join(str(error).split()))[:300]
        # b2sdk's own code for a page; a text with it quotes the page.
        if "non_json_response" in message or type(error).__name__ == "PotentialS3EndpointPassedAsRealm":
            words = f"{at}: the answer is not JSON{http}: that is no B2 API, check realm"
            raise ApiError("NotJson", status, words) from None
        refused = operation == AUTHORIZE and type(error).__name__ in ("InvalidAuthToken", "Unauthorized")
        hint = ". Check keyID and applicationKey for a swap or a missing character" if refused else ""
        raise ApiError(code, status, f"{at}: {code}: {message}{http}{hint}") from None
    except (requests.RequestException, ValueError, KeyError) as error:
        kind = type(error).__name__
        raise ApiError("NotJson", 0, f"{at}: the answer is not that of B2's API ({kind}): check realm") from None


def _find(api: Any, bucket: str) -> Any:
    """The bucket as it is now, or None; never b2sdk's cache, which knows neither lifecycle nor encryption."""
    found = api.list_buckets(bucket_name=bucket, use_cache=False)
    return found[0] if found else None


def _rule(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fileNamePrefix": "",
        "daysFromHidingToDeleting": int(inputs["noncurrentDays"]),
        "daysFromStartingToCancelingUnfinishedLargeFiles": int(inputs["abortDays"]),
    }


def _now(bucket: Any) -> Values:
    """The settings of a bucket, as the inputs have them."""
    rules = bucket.lifecycle_rules or []
    hiding = [rule["daysFromHidingToDeleting"] for rule in rules if rule.get("daysFromHidingToDeleting")]
    starting = "daysFromStartingToCancelingUnfinishedLargeFiles"
    aborting = [rule[starting] for rule in rules if rule.get(starting)]
    found: Values = {
        "private": bucket.type_ == "allPrivate",
        "encryption": bucket.default_server_side_encryption.mode.value == "SSE-B2",
        "noncurrentDays": min(hiding, default=0),
        "abortDays": min(aborting, default=0),
    }
    # A rule that hides by age takes media away: it shows as drift, whoever made it.
    expiring = [rule.get("fileNamePrefix", "") for rule in rules if rule.get("daysFromUploadingToHiding")]
    return {**found, "expiringRules": expiring} if expiring else found


_MANAGED: Final = {
    "access": ("private",),
    "encryption": ("encryption",),
    "lifecycle": ("noncurrentDays", "abortDays"),
}


def _managed(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> frozenset[str]:
    """Inputs we answer for: all of a bucket of ours, of an adopted one those that `manage` names."""
    words = (inputs.get("manage") or ()) if outputs.get("adopted") else _MANAGED
    return frozenset(name for word in words for name in _MANAGED.get(word, ()))


class B2Bucket(Resource):
    """A private bucket that keeps only the last version of a file.

    Inputs: `bucket`, `connection`, `owner` (the mark in its bucket info), `formerOwner`, `adopt`, `manage` (settings of
    an adopted bucket that may be changed: access, encryption, lifecycle), `private`, `encryption` (SSE-B2),
    `noncurrentDays` (a hidden version is kept so long), `abortDays`, `region` and `endpoint` ("": whatever the account
    has), `forceDestroy`.
    Outputs: the inputs, `bucketId`, `accountId`, `accountRegion`, `accountEndpoint`, `lacks`, `adopted`, `differences`,
    `resumed` (it was ours by its mark and held files when it was made: its keys may be in use, though state has none).
    """

    pulumi_type = "s3store:index:B2Bucket"
    replace_on = frozenset({"bucket"})
    required = frozenset({"bucket", "connection", "owner"})
    passing = frozenset({"formerOwner"})
    one_of_a_name = True

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        filled: Values = {
            "adopt": False,
            "manage": [],
            "private": True,
            "encryption": True,
            "noncurrentDays": 1,
            "abortDays": 7,
            "region": "",
            "endpoint": "",
            "forceDestroy": False,
        }
        return super().check({**filled, **inputs})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        refuse_ownership(inputs, old or {})
        names = ("bucketId", "accountId", "accountRegion", "accountEndpoint", "lacks", "adopted", "differences")
        resumed = UNKNOWN if old is None else bool(old.get("resumed"))
        return {**inputs, **{name: (old or {}).get(name, UNKNOWN) for name in names}, "resumed": resumed}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        bucket, api = text(inputs, "bucket"), _admin(inputs)
        outputs: Values = {**inputs, **_account_facts(api, inputs), "lacks": [], "differences": []}
        with _calling(inputs, bucket):
            found, outputs["adopted"], outputs["resumed"] = self._take_or_make(api, bucket, inputs)
            outputs["bucketId"] = found.id_
        try:
            with _calling(inputs, bucket):
                if outputs["adopted"]:
                    outputs["differences"] = _differences(found, inputs)
                self._apply(found, inputs, outputs)
        except StoreError as error:
            raise PartialError(f"bucket {bucket} is there, but not finished: {error}", bucket, outputs) from None
        say_differences(outputs, context)
        return bucket, outputs

    def _take_or_make(self, api: Any, bucket: str, inputs: Values) -> tuple[Any, bool, bool]:
        """The bucket, whether an existing one was adopted, and whether one of ours was taken up again."""
        found = _find(api, bucket)
        if found is None:
            if inputs.get("adopt"):
                raise nothing_to_adopt(bucket)
            return _make(api, bucket, inputs), False, False
        mark = _mark_of(found)
        require_mark(bucket, mark, _WHERE, inputs, {})
        if inputs.get("adopt"):
            return found, True, False
        # The mark is written by the call that makes it: what an interrupted run left carries it, and is empty.
        if is_marked(mark, inputs):
            return found, False, not _is_empty(found)
        raise there_already(bucket)

    def _apply(self, found: Any, inputs: Values, outputs: Values) -> None:
        """Whatever is not as it should be, in one call."""
        now, managed = _now(found), _managed(inputs, outputs)
        wrong = {name for name in managed if now[name] != inputs[name]}
        changes: dict[str, Any] = {}
        if "private" in wrong:
            changes["bucket_type"] = "allPrivate" if inputs["private"] else "allPublic"
        if "encryption" in wrong:
            changes["default_server_side_encryption"] = _encryption(on=bool(inputs["encryption"]))
        if wrong & {"noncurrentDays", "abortDays"} or ("expiringRules" in now and "abortDays" in managed):
            changes["lifecycle_rules"] = [_rule(inputs)]
        if found.bucket_info.get(OWNER_INFO) != inputs["owner"]:
            changes["bucket_info"] = {**found.bucket_info, OWNER_INFO: inputs["owner"]}
        if changes:
            found.update(**changes)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise StoreError("a B2 bucket is taken over with adopt: true in the stack file, not by an import")
        bucket = text(inputs, "bucket", resource_id)
        api = _same_account(account(inputs), inputs, outputs)
        with _calling(inputs, bucket):
            found = _find(api, bucket)
        if found is None:
            return None
        now, managed = _now(found), _managed(inputs, outputs)
        drifted = drift(inputs, now, managed)
        if outputs.get("adopted"):
            outputs = {**outputs, "differences": _differences(found, inputs)}
            say_differences(outputs, context)
        facts = _account_facts(api, inputs)
        ours = {"owner": text(outputs, "owner"), "bucketId": found.id_}
        # Among the inputs alone: what the outputs say is ours.
        marked = {**drifted, "owner": _mark_of(found)}
        return Found(bucket, marked, {**outputs, **drifted, **facts, **ours})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        bucket, api = text(inputs, "bucket"), _same_account(_admin(inputs), inputs, old)
        refuse_ownership(inputs, old)
        outputs: Values = {"adopted": False, "lacks": [], "differences": [], **old, **inputs}
        outputs.pop("expiringRules", None)
        outputs |= _account_facts(api, inputs)
        # State keeps the old place until the bucket was seen at the new one: a refresh looks where state says.
        with _calling(inputs, bucket):
            found = _find(api, bucket)
        if found is None:
            raise StoreError(
                f"bucket: {bucket!r} does not exist in this account. Check the key; if the bucket was deleted, "
                "`synapse-media up --refresh` finds out and makes it again, empty."
            )
        require_mark(bucket, _mark_of(found), _WHERE, inputs, old)
        outputs["bucketId"] = found.id_
        try:
            with _calling(inputs, bucket):
                self._apply(found, inputs, outputs)
        except StoreError as error:
            raise PartialError(f"bucket {bucket}: {error}", bucket, outputs) from None
        return outputs

    def holds_media(self, outputs: Values) -> bool:
        """As `bucket.Bucket.holds_media`."""
        bucket = text(outputs, "bucket")
        api = _same_account(account(outputs), outputs, outputs)
        with _calling(outputs, bucket):
            found = _find(api, bucket)
            return found is not None and not _is_empty(found)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        bucket = text(outputs, "bucket", resource_id)
        api = _same_account(account(outputs), outputs, outputs)
        with _calling(outputs, bucket):
            found = _find(api, bucket)
            if found is None:
                return
            mark = _mark_of(found)
            require_mark(bucket, mark, _WHERE, {}, outputs)
            if not (mark and outputs.get("forceDestroy")) and not _is_empty(found):
                raise not_empty(bucket) if mark else not_emptied_unmarked(bucket)
            for upload in list(found.list_unfinished_large_files()):
                found.cancel_large_file(upload.file_id)
            _remove(found, lambda _: True)
            api.delete_bucket(found)


def _calling(values: Mapping[str, Any], bucket: str) -> AbstractContextManager[None]:
    return in_words(f"bucket {bucket}", str(values["connection"].get("realm") or "production"))


def _mark_of(found: Any) -> str:
    return str(found.bucket_info.get(OWNER_INFO, ""))


def _make(api: Any, bucket: str, inputs: Mapping[str, Any]) -> Any:
    from b2sdk.v3.exception import DuplicateBucketName

    try:
        return api.create_bucket(
            bucket,
            "allPrivate" if inputs["private"] else "allPublic",
            bucket_info={OWNER_INFO: inputs["owner"]},
            lifecycle_rules=[_rule(inputs)],
            default_server_side_encryption=_encryption(on=bool(inputs["encryption"])),
        )
    except DuplicateBucketName as error:
        # A repeated call finds the bucket of the first try.
        found = _find(api, bucket)
        if found is not None and found.bucket_info.get(OWNER_INFO) == inputs["owner"]:
            return found
        raise taken(bucket, ApiError("duplicate_bucket_name", 400, str(error))) from None


def _encryption(*, on: bool) -> Any:
    from b2sdk.v3 import EncryptionAlgorithm, EncryptionMode, EncryptionSetting

    if on:
        return EncryptionSetting(EncryptionMode.SSE_B2, EncryptionAlgorithm.AES256)
    return EncryptionSetting(EncryptionMode.NONE)


def _account_id(api: Any) -> str:
    return str(api.account_info.get_account_id())


def _same_account(api: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """`api`, if it is of the account that `outputs` were made in: any other would seem to have lost everything."""
    made_in = text(outputs, "accountId")
    if made_in and made_in != _account_id(api):
        raise StoreError(
            f"{inputs['connection']['variables'][0]} is a key of the account {_account_id(api)}, and this was made in "
            f"the account {made_in}, where it still may be. Give a key of that account."
        )
    return api


def _account_facts(api: Any, inputs: Mapping[str, Any]) -> Values:
    """The account's ID, endpoint and region. Raises StoreError where the stack file says another of the two."""
    endpoint = str(api.account_info.get_s3_api_url()).rstrip("/")
    match = _S3_URL.fullmatch(endpoint)
    wanted = text(inputs, "region")
    region = match[1] if match else (wanted or "us-east-1")
    if wanted and wanted != region:
        raise StoreError(
            f"region: {wanted!r} is not this account's: its region is {region}, chosen at sign-up for all its buckets. "
            "Leave region out, or use an account of the other region (with this one, S3 would answer "
            "InvalidAccessKeyId)."
        )
    named = text(inputs, "endpoint").rstrip("/")
    if named not in ("", endpoint):
        raise StoreError(f"endpoint: {named!r} is not this account's, which is {endpoint}. Leave endpoint out.")
    return {"accountId": _account_id(api), "accountRegion": region, "accountEndpoint": endpoint}


def _differences(found: Any, inputs: Mapping[str, Any]) -> list[str]:
    """What a new bucket would have had, and this one has not; in words, nothing changed."""
    now = _now(found)
    words = unlike_new(now, inputs, (name for names in _MANAGED.values() for name in names))
    if "expiringRules" in now:
        words.append("a lifecycle rule hides media by age: remove it")
    return words


def _versions(bucket: Any) -> Iterator[Any]:
    for version, _ in bucket.ls(latest_only=False, recursive=True):
        yield version


def _is_empty(bucket: Any) -> bool:
    """Nothing in it but what the proof left; hidden versions count as media."""
    return all(is_ours(version.file_name) for version in _versions(bucket))


def _remove(bucket: Any, which: Callable[[str], bool]) -> None:
    for version in list(_versions(bucket)):
        if which(version.file_name):
            bucket.delete_file_version(version.id_, version.file_name)


class B2KeyRing(RingBase):
    """Application keys restricted to one bucket.

    Inputs beside those of every ring: `owner`, `bucketId`, `capabilities` (sorted), `adopt` and `resumed` (see
    NamedKeys and B2Bucket).
    Output beside those: `accountId`.
    """

    pulumi_type = "s3store:index:B2KeyRing"
    replace_on = frozenset({"userName", "bucketId"})
    required = RingBase.required | {"owner", "bucketId", "capabilities"}
    passing = RingBase.passing | {"resumed"}

    def family(self, values: Values) -> NamedKeys:
        return _Keys(values)

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        # Among the inputs, so that it is in state even where a key is only half made.
        return super().create(_of_account(inputs, {}), context)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        known = _of_account(outputs, outputs) if inputs else outputs
        return super().read(resource_id, inputs, known, context)

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        return super().update(resource_id, old, _of_account(inputs, old), context)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        super().delete(resource_id, _of_account(outputs, outputs), context)


def _of_account(values: Values, old: Mapping[str, Any]) -> Values:
    """`values` with the account's ID; refused where `old` has another."""
    return {**values, "accountId": _account_id(_same_account(account(values), values, old))}


class _Keys(NamedKeys):
    """The application keys of a bucket."""

    def __init__(self, values: Values) -> None:
        self.who = f"the keys of {text(values, 'userName')}"
        # B2 knows letters, digits and '-', at most 100.
        mark = hashlib.sha256(text(values, "owner").encode()).hexdigest()[:16]
        user = re.sub(r"[^A-Za-z0-9-]", "-", text(values, "userName"))
        self.names = {slot: f"{user}-{mark}-{slot}" for slot in SLOTS}
        self.adopted = bool(values.get("adopt") or values.get("resumed"))
        self._values = values
        self._bucket_id = text(values, "bucketId")
        self._listed: dict[str, Any] = {}

    def _calling(self, operation: str) -> AbstractContextManager[None]:
        return in_words(operation, str(self._values["connection"].get("realm") or "production"))

    def _keys(self) -> dict[str, Any]:
        with self._calling("b2_list_keys"):
            found = {key.id_: key for key in account(self._values).list_keys()}
        self._listed = {id_: key for id_, key in found.items() if self._bucket_id in (key.bucket_ids or ())}
        return self._listed

    def found(self) -> list[NamedKey]:
        now = time.time() * 1000
        return [
            NamedKey(id_, key.key_name, active=(key.expiration_timestamp_millis or now + 1) > now)
            for id_, key in self._keys().items()
        ]

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        api = _admin(self._values, once=True)
        with self._calling("b2_create_key"):
            made = api.create_key(list(self._values["capabilities"]), self.names[slot], bucket_ids=[self._bucket_id])
        return MadeKey(made.id_, made.application_key, datetime.now(UTC).isoformat())

    def usable(self) -> bool:
        with self._calling("b2_list_buckets"):
            return bool(account(self._values).list_buckets(bucket_id=self._bucket_id, use_cache=False))

    def delete(self, key_id: str) -> None:
        api = account(self._values)
        if key_id in self._keys():
            with self._calling("b2_delete_key"):
                api.delete_key_by_id(key_id)

    def mend(self, slot: str, key_id: str) -> None:
        if slot != self._values.get("active"):
            return
        has, wanted = set(self._listed[key_id].capabilities), set(self._values["capabilities"])
        if has != wanted:
            other = "b" if slot == "a" else "a"
            raise StoreError(
                f"key {key_id} of slot {slot} may {', '.join(sorted(has))}, and would have to may "
                f"{', '.join(sorted(wanted))}. A key at Backblaze B2 can't be changed: have another one made with "
                f"keys: {{active: {other}, retiring: [{slot}]}} (`synapse-media rotate` writes that)."
            )


class B2Lender:
    """The proof's administrator at Backblaze B2: by the native API, since the master key is none for S3."""

    def lend(self, inputs: Values, decoy: str) -> bool:
        api = account(inputs)
        with _calling(inputs, decoy):
            found = _find(api, decoy)
            if found is None:
                api.create_bucket(decoy, "allPrivate", bucket_info={OWNER_INFO: inputs["owner"]})
        if found is not None:
            require_mark(decoy, _mark_of(found), _WHERE, inputs, {})
        return True

    def take_back(self, inputs: Values, decoy: str) -> None:
        api = account(inputs)
        with _calling(inputs, decoy):
            found = _find(api, decoy)
            if found is not None:
                api.delete_bucket(found)

    def left_behind(self, inputs: Values, decoy: str) -> list[str]:
        with _calling(inputs, decoy):
            listed = account(inputs).list_buckets(use_cache=False)
        decoys = [bucket for bucket in listed if bucket.name.startswith(DECOY) and bucket.name != decoy]
        return [bucket.name for bucket in decoys if is_marked(_mark_of(bucket), inputs)]

    def clear(self, inputs: Values) -> None:
        prefix = text(inputs, "prefix") + PROOF_OBJECT
        with _calling(inputs, text(inputs, "bucket")):
            found = _find(account(inputs), text(inputs, "bucket"))
            if found is not None:
                for name in (prefix, f"{prefix}-copy"):
                    for version in list(found.list_file_versions(name)):
                        found.delete_file_version(version.id_, version.file_name)
