"""`s3store:index:B2Bucket` and `B2KeyRing`: Backblaze B2 over its native API, by b2sdk.

The region is that of the account and fixed at sign-up, so endpoint and region are read from the account. A key can't be
changed, only replaced. Its name has a token, which stands in the bucket info too until the key is in the state: a key
that is in no state, and whose token stands there, was created by an interrupted run and never handed out.
"""

from __future__ import annotations

import hashlib
import http
import itertools
import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import formatdate
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from synapse_media.contract import PROOF_OBJECT
from synapse_media.errors import StoreError
from synapse_media.redaction import redacted, remember
from synapse_media.schema.connection import AdminCheck, Connection
from synapse_media.schema.resources import (
    B2_BUCKET,
    B2_KEY_RING,
    B2BucketInputs,
    B2BucketState,
    B2KeyRingInputs,
    B2KeyRingState,
    ProofInputs,
)
from synapse_media.settings import SLOTS
from synapse_media.store import bounded, credentials, pace, schemes, tracing
from synapse_media.store.answers import ApiError, items
from synapse_media.store.clients import Credential
from synapse_media.store.http import ATTEMPTS, PATIENCE, SECONDS, host_of
from synapse_media.store.objects import PAGE, Elsewhere, is_left, is_ours, search

from .bucket import (
    BucketBase,
    BucketFamily,
    Setting,
    days_in_force,
    is_marked,
    new_nonce,
    not_empty,
    require_mark,
    require_no_keys,
    taken,
)
from .families import Family
from .keyring import MadeKey, NamedKey, NamedKeys, RingBase
from .proof import DECOY

OWNER_INFO: Final = "synapse-media-stack"
_WHERE: Final = f"its bucket info {OWNER_INFO!r}"
_MAKING_INFO: Final = "synapse-media-making"
"""The bucket info with the tokens of keys that are not known to be in a state, oldest first."""
_MOST_TOKENS: Final = 16
"""Of more, the oldest goes, and its key would be kept and reported: Backblaze bounds the bucket info."""
AUTHORIZE: Final = "b2_authorize_account"
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
"""The capabilities that the admin's key must have."""
_NEEDED_TO_LOOK: Final = ("listBuckets", "readBucketEncryption", "listKeys")
"""Those without which a refresh would find less than there is."""
_NOT_EMPTY: Final = "cannot_delete_non_empty_bucket"
"""https://www.backblaze.com/apidocs/b2-delete-bucket"""
_S3_URL = re.compile(r"https://s3\.([a-z0-9-]+)\.backblazeb2\.com/?")

_apis: dict[tuple[object, ...], Any] = {}
_lock = threading.Lock()


_answered = threading.local()
"""`status` and `is_json`: of the last answer in this thread; b2sdk's errors don't have them."""


@cache
def _adapter() -> tuple[Any, type[Exception]]:
    """requests' way to send, bounded and traced, and the error of what it refuses."""
    import requests
    from b2sdk.v3.exception import B2ConnectionError, B2Error
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import HTTPError

    class RefusedAnswerError(B2Error):  # type: ignore[misc]
        """Not tried again."""

        def __init__(self, code: str, words: str) -> None:
            super().__init__(words)
            self.code = code

    class Adapter(HTTPAdapter):
        """Logs each call, follows no redirects, and enforces the limits on responses."""

        def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
            super().init_poolmanager(*arguments, **named)
            self.poolmanager.pool_classes_by_scheme = bounded.pools()

        def proxy_manager_for(self, *arguments: Any, **named: Any) -> Any:
            manager = super().proxy_manager_for(*arguments, **named)
            manager.pool_classes_by_scheme = bounded.pools()
            return manager

        def send(self, request: Any, *arguments: Any, **named: Any) -> Any:
            parts = urlsplit(request.url)
            what = f"{parts.path.rpartition('/')[2]} {request.method} {parts.netloc}{parts.path}"
            started = time.monotonic()
            _answered.status, _answered.is_json = 0, True
            try:
                bounded.refuse_late()
                response = super().send(request, *arguments, **named)
                _answered.status = response.status_code
                tracing.say(what, started, response.status_code)
                return self._taken(response)
            except requests.exceptions.SSLError as error:
                tracing.say(what, started, type(error).__name__)
                # No further try mends it. What it says of its connection is of no use to anybody.
                reason = getattr(error.args[0] if error.args else error, "reason", error)
                raise RefusedAnswerError("SSLError", f"no connection: {reason}") from None
            except requests.RequestException as error:
                tracing.say(what, started, type(error).__name__)
                raise
            except bounded.TooMuchError as error:
                raise RefusedAnswerError("RefusedAnswer", f"the answer {error}") from None

        def _taken(self, response: Any) -> Any:
            try:
                if 300 <= response.status_code < 400:
                    # It would carry the credential to a place nobody named.
                    target = host_of(response.headers.get("Location")) or "elsewhere"
                    words = f"it redirects to {target}, which is not followed. Mend realm"
                    raise RefusedAnswerError("Redirected", words)
                response._content = bounded.read(response.raw)  # noqa: SLF001 - as requests itself leaves it
                _answered.is_json = _is_json(response.content)
                # b2sdk compares its clock with this, and knows no answer without it.
                response.headers.setdefault("Date", formatdate(usegmt=True))
                if _answered.is_json and _is_anybodys(response):
                    words = "It came without the error of that API: check realm and any proxy in front of it"
                    raise RefusedAnswerError(str(response.status_code), f"{response.reason}. {words}")
            except (HTTPError, OSError) as error:
                raise B2ConnectionError(f"the answer broke off: {error}") from None
            finally:
                response.raw.close()
            return response

    return Adapter, RefusedAnswerError


_NEXT: Final = (
    ("startFileName", "nextFileName"),
    ("startFileId", "nextFileId"),
    ("startApplicationKeyId", "nextApplicationKeyId"),
)
"""Where a page of a listing begins, in its request, and where the next one does, in the answer."""
_KEYS: Final = "keys"
_LISTED: Final = ("files", _KEYS)
"""What a page of a listing has."""


class _Pages(threading.local):
    """The listing that a thread is at: b2sdk asks for its pages until there is none left."""

    def __init__(self) -> None:
        self._following: tuple[object, ...] = ()
        self._next_page = self._next_empty = bounded.within_pages(0)

    def turn(self, here: tuple[object, ...], following: tuple[object, ...], answer: Mapping[str, Any]) -> None:
        """Raises TooMuchError where the listing has no end.

        Args:
            here: where the page of the answer began.
            following: where the next one is to begin.
        """
        # Not every listing sends all of what the page before named.
        if not any(place is not None and place in self._following for place in here):
            self._next_page = bounded.within_pages(bounded.PAGES if _KEYS in answer else bounded.PAGES_OF_MEDIA)
            self._next_page(here)
            self._next_empty = bounded.within_pages(bounded.EMPTY_PAGES)
        elif any(answer.get(name) for name in _LISTED):
            self._next_empty = bounded.within_pages(bounded.EMPTY_PAGES)
        self._following = following
        self._next_page(following)
        self._next_empty(following)


_pages = _Pages()


@cache
def _classes() -> tuple[Any, Any]:
    """b2sdk's API with our patience, once with and once without a second try."""
    from b2sdk.v3 import B2Api, B2Http, B2Session
    from b2sdk.v3.exception import B2Error

    class Http(B2Http):  # type: ignore[misc]
        # b2sdk's default is 20 minutes per call, plus any pause between attempts that the server requests.
        CONNECTION_TIMEOUT = 5
        TIMEOUT_FOR_COPY = SECONDS
        attempts = ATTEMPTS

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.session.adapters.clear()
            self.session.mount("", _adapter()[0]())

        def post_json_return_json(self, url: str, headers: Any, params: Any, try_count: int = 1) -> Any:
            del try_count
            with bounded.one_call():
                answer = self._tried(url, headers, params)
            here = tuple(params.get(name) for name, _ in _NEXT)
            following = tuple(answer.get(name) for _, name in _NEXT)
            if any(place is not None for place in following):
                try:
                    _pages.turn(here, following, answer)
                except bounded.TooMuchError as error:
                    raise _adapter()[1]("EndlessListing", f"the answer {error}") from None
            return answer

        def _tried(self, url: str, headers: Any, params: Any) -> Any:
            patience = bounded.patience()
            for attempt in range(1, self.attempts + 1):
                patience.asked += 1
                try:
                    return super().post_json_return_json(url, headers, params, 1)
                except B2Error as error:
                    error.status, error.is_json = _answered.status, _answered.is_json
                    error.tries = f", {patience}" if patience.asked > 1 else ""
                    if not error.should_retry_http() or attempt == self.attempts:
                        raise
                    backoff = random.uniform(0.5, 1.0) * 0.5 * 2**attempt  # noqa: S311 - jitter
                    wait = min(max(backoff, error.retry_after_seconds or 0), PATIENCE)
                    try:
                        patience.take(wait)
                    except pace.TooLongError:
                        raise error from None
                    time.sleep(wait)
            raise AssertionError("the last attempt returns or raises")

    class Once(Http):
        attempts = 1

        def _tried(self, url: str, headers: Any, params: Any) -> Any:
            # Over a connection of its own: one that was kept may be closed by now, and there is no second try.
            self.session.close()
            return super()._tried(url, headers, params)

    def api(http: type[Http]) -> Any:
        class Session(B2Session):  # type: ignore[misc]
            B2HTTP_CLASS = http

        class Api(B2Api):  # type: ignore[misc]
            SESSION_CLASS = Session

        return Api

    return api(Http), api(Once)


def account(connection: Connection, *, once: bool = False) -> Any:
    """The B2Api, authorized with the credential in the environment; nothing is written to disk.

    Args:
        once: disable retries.
    """
    names = connection.variables
    credentials.refuse_foreign(names, family="backblaze_b2")
    key_id, key = (credentials.read(name) for name in names)
    missing = [name for name, value in zip(names, (key_id, key), strict=True) if not value]
    if missing:
        raise StoreError(
            f"the environment has no {' and no '.join(missing)}: set it to an application key for all buckets. "
            "`synapse-media doctor` says what it needs."
        )
    Credential(key_id, key).refuse_swapped(*names)
    realm = _realm(connection)
    cached = (realm, key_id, hash(key), once)
    with _lock:
        if cached not in _apis:
            api = _new_api(once=once)
            with in_words(AUTHORIZE, realm):
                _authorize(api, Credential(key_id, key), realm)
            _apis[cached] = api
        return _apis[cached]


def _new_api(*, once: bool = False) -> Any:
    from b2sdk.v3 import B2HttpApiConfig, DummyCache, InMemoryAccountInfo

    config = B2HttpApiConfig(user_agent_append="synapse-media")
    return _classes()[once](InMemoryAccountInfo(), cache=DummyCache(), api_config=config)


def _authorize(api: Any, key: Credential, realm: str) -> None:
    """Authorize b2sdk's API. Raises, for `in_words`, also where a part of the answer is missing or of another kind."""
    api.authorize_account(application_key_id=key.access_key_id, application_key=key.secret, realm=realm)
    info = api.account_info
    for part in (info.get_account_auth_token(), info.get_account_id(), info.get_s3_api_url()):
        if not _of_kind(part, str):
            raise ValueError(part)
    remember(info.get_account_auth_token())


def _realm(connection: Connection) -> str:
    return connection.realm or "production"


def _admin(connection: Connection, *, once: bool = False, needed: tuple[str, ...] = NEEDED) -> Any:
    """`account`. Raises StoreError, before anything else, if its key is limited to a bucket or lacks capabilities."""
    api = account(connection, once=once)
    with in_words(AUTHORIZE, _realm(connection)):
        allowed = _of_kind(api.account_info.get_allowed(), dict)
        capabilities = _of_kind(allowed["capabilities"], list)
    lacking = [name for name in needed if name not in capabilities]
    name = connection.variables[0]
    if allowed.get("buckets") or allowed.get("namePrefix"):
        raise StoreError(
            f"{name} is a key limited to a bucket or a prefix, which can neither create buckets nor list, create or "
            f"delete keys. Create an application key for all buckets, with {', '.join(NEEDED)}."
        )
    if lacking:
        raise StoreError(
            f"{name} is a key without {', '.join(lacking)}. A key can't be changed: create another one with "
            f"{', '.join(NEEDED)}."
        )
    return api


def check_admin(asked: AdminCheck) -> None:
    """Raises StoreError if the key in the environment lacks capabilities, or the region is not the account's."""
    _account_of(_admin(asked.connection), asked.region, asked.endpoint)


@dataclass(frozen=True, slots=True)
class _Account:
    """An account: its ID, the region chosen at sign-up, and the URL of its S3 API."""

    account_id: str
    region: str
    endpoint: str


def _account_of(api: Any, region: str, endpoint: str) -> _Account:
    """The account of a credential.

    Args:
        region, endpoint: those in the stack file; "": any.

    Raises:
        StoreError: one of the two is not that of the account.
    """
    has_endpoint = str(api.account_info.get_s3_api_url()).rstrip("/")
    match = _S3_URL.fullmatch(has_endpoint)
    has_region = match[1] if match else (region or "us-east-1")
    if region and region != has_region:
        raise StoreError(
            f"region: {region!r} is not this account's: its region is {has_region}, chosen at sign-up for all its "
            "buckets. Omit region, or use an account in the other region (with this one, S3 would answer "
            "InvalidAccessKeyId)."
        )
    if endpoint.rstrip("/") not in ("", has_endpoint):
        raise StoreError(
            f"endpoint: {endpoint.rstrip('/')!r} is not this account's, which is {has_endpoint}. Omit endpoint."
        )
    return _Account(_account_id(api), has_region, has_endpoint)


def _account_id(api: Any) -> str:
    return str(api.account_info.get_account_id())


def _same_account(connection: Connection, made_in: str) -> Any:
    """`_admin`, for a look. Raises StoreError if it is not the account in which the resource was created.

    In another account everything would seem to be deleted.

    Args:
        made_in: the ID of that account; "" if nothing was created yet.
    """
    api = _admin(connection, needed=_NEEDED_TO_LOOK)
    if made_in and made_in != _account_id(api):
        raise StoreError(
            f"{connection.variables[0]} is a key of the account {_account_id(api)}, but this was created in the "
            "account "
            f"{made_in}, where it may still exist. Use a key of that account."
        )
    return api


def _is_json(content: bytes) -> bool:
    """Whether a response has the form that b2sdk assumes without checking."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _is_anybodys(response: Any) -> bool:
    """Whether it is a refusal without a code, which b2sdk takes for the API's own word; one that is tried again is
    not."""
    status = response.status_code
    refused = 400 <= status < 500 and status not in (408, 429)
    return refused and not isinstance(json.loads(response.content).get("code"), str)


@contextmanager
def in_words(operation: str, where: str) -> Iterator[None]:
    """Turns b2sdk's errors into ApiError, with nothing of the response but the server's message."""
    from b2sdk.v3.exception import B2Error

    at = f"{operation} at Backblaze B2 ({where})"
    try:
        yield
    except B2Error as error:
        code = str(getattr(error, "code", None) or type(error).__name__)
        status = int(getattr(error, "status", 0))
        http = f" (HTTP {status})" if status else ""
        message = redacted(" ".join(str(error).split()))[:300]
        if not getattr(error, "is_json", True):
            # Nothing, or a web page, which b2sdk's message would quote.
            words = f"{at}: the answer is not JSON{http}: that is no B2 API"
            raise ApiError("NotJson", status, words + (schemes.hint(where, "realm", "") or ", check realm")) from None
        refused = operation == AUTHORIZE and type(error).__name__ in ("InvalidAuthToken", "Unauthorized")
        hint = ". Check keyID and applicationKey for a swap or a missing character" if refused else ""
        tries = getattr(error, "tries", "")
        words = f"{at}: {code}: {message}{http}{tries}"
        raise ApiError(code, status, words + (hint or schemes.hint(where, "realm", message))) from None
    except (
        OSError,  # requests' errors are such, and those of a time that no clock shows
        AssertionError,  # b2sdk's, where a key that was made is not the one that was asked for
        OverflowError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as error:
        kind = type(error).__name__
        raise ApiError("NotJson", 0, f"{at}: the response is not that of B2's API ({kind}): check realm") from None


T = TypeVar("T")


def _of_kind(value: Any, kind: type[T]) -> T:
    """A part of a response, which b2sdk hands on as it came. Raises TypeError, for `in_words`, if it is no `kind`."""
    # A bool is an int to Python.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(kind.__name__)
    return value


# ---- buckets


def _whole(bucket: Any) -> Any:
    """b2sdk's bucket. Raises TypeError, for `in_words`, if a part of it that is read here is of another kind."""
    _of_kind(bucket.id_, str)
    _of_kind(bucket.name, str)
    for text in _of_kind(bucket.bucket_info, dict).values():
        _of_kind(text, str)  # all of it is written back
    for rule in _of_kind(bucket.lifecycle_rules or [], list):
        _of_kind(rule, dict)
        _of_kind(rule.get("fileNamePrefix", ""), str)
        for action in (_HIDING, _STARTING, _UPLOADING):
            _of_kind(rule.get(action) or 0, int)
    _of_kind(bucket.default_server_side_encryption.mode.value, str)
    return bucket


def _find(api: Any, bucket: str) -> Any:
    """The actual bucket, or None. Bypasses b2sdk's cache, which lacks lifecycle and encryption."""
    listed = api.list_buckets(bucket_name=bucket, use_cache=False)
    return _one_of(listed, bucket, lambda found: bool(found.name == bucket))


def _find_by_id(api: Any, bucket_id: str) -> Any:
    """The actual bucket, or None."""
    listed = api.list_buckets(bucket_id=bucket_id, use_cache=False)
    return _one_of(listed, bucket_id, lambda found: bool(found.id_ == bucket_id))


def _one_of(listed: Iterable[Any], asked: str, is_it: Callable[[Any], bool]) -> Any:
    """The bucket that was asked for; None for an empty listing. Raises ApiError for one of others alone."""
    buckets = [_whole(bucket) for bucket in listed]
    found = next(filter(is_it, buckets), None)
    if found is None and buckets:
        raise _other_bucket(asked, buckets[0].name)
    return found


def _other_bucket(asked: str, answered: str) -> ApiError:
    words = f"bucket {asked} at Backblaze B2: the answer is about another bucket, {answered!r}: "
    return ApiError("NotJson", 0, f"{words}check realm and any proxy in front of it")


def _updated(found: Any, **changes: Any) -> Any:
    """The bucket after a change. Raises ApiError where the answer is about another one."""
    after = _whole(found.update(**changes))
    if (after.id_, after.name) != (found.id_, found.name):
        raise _other_bucket(found.name, after.name)
    return after


def _delete(api: Any, found: Any) -> None:
    """Delete a bucket. Raises ApiError where the answer is about another one."""
    answer = _of_kind(api.session.delete_bucket(_account_id(api), found.id_), dict)
    if answer.get("bucketId") != found.id_:
        raise _other_bucket(found.name, str(answer.get("bucketName")))


def _made_bucket(api: Any, name: str, kind: str, **settings: Any) -> Any:
    """A new bucket. Raises ApiError where the answer is about another one."""
    made = _whole(api.create_bucket(name, kind, **settings))
    if made.name != name:
        raise _other_bucket(name, made.name)
    return made


def _mark_of(found: Any) -> str:
    return str(found.bucket_info.get(OWNER_INFO, ""))


def _calling(connection: Connection, bucket: str) -> AbstractContextManager[None]:
    return in_words(f"bucket {bucket}", _realm(connection))


def _encryption(*, on: bool) -> Any:
    from b2sdk.v3 import EncryptionAlgorithm, EncryptionMode, EncryptionSetting

    if on:
        return EncryptionSetting(EncryptionMode.SSE_B2, EncryptionAlgorithm.AES256)
    return EncryptionSetting(EncryptionMode.NONE)


def _type(*, private: bool) -> str:
    return "allPrivate" if private else "allPublic"


def _versions(bucket: Any) -> Iterator[Any]:
    for version, _ in bucket.ls(latest_only=False, recursive=True):
        yield version


_ACCESS: Final = Setting("access", ("private",), "privacy")
_ENCRYPTION: Final = Setting("encryption", ("encryption",), "default encryption")
_LIFECYCLE: Final = Setting("lifecycle", ("noncurrent_days", "abort_days"), "lifecycle rules")
_HIDING: Final = "daysFromHidingToDeleting"
_STARTING: Final = "daysFromStartingToCancelingUnfinishedLargeFiles"
_UPLOADING: Final = "daysFromUploadingToHiding"


def _days(rules: Iterable[Mapping[str, Any]], action: str) -> Iterator[tuple[int, bool]]:
    return ((rule.get(action) or 0, not rule.get("fileNamePrefix")) for rule in rules)


class _BucketFamily(BucketFamily[B2BucketInputs, Setting]):
    """A bucket in the account of the credential, marked in its bucket info."""

    settings = (_ACCESS, _ENCRYPTION, _LIFECYCLE)
    place = "in this account"
    place_setting = "the key"

    def __init__(self, state: B2BucketState) -> None:
        self.state: B2BucketState = state
        self._found: Any = None

    @property
    def _api(self) -> Any:
        return _same_account(self.inputs.connection, self.state.account_id)

    def _calling(self) -> AbstractContextManager[None]:
        return _calling(self.inputs.connection, self.bucket)

    def _rule(self) -> dict[str, object]:
        days = {_HIDING: self.inputs.noncurrent_days, _STARTING: self.inputs.abort_days}
        return {"fileNamePrefix": "", **days}

    def prepare(self, *, changing: bool) -> None:
        if changing:
            _admin(self.inputs.connection)
        found = _account_of(self._api, self.inputs.region, self.inputs.endpoint)
        self.state.account_id = found.account_id
        self.state.account_region, self.state.account_endpoint = found.region, found.endpoint

    def find(self) -> bool:
        api = self._api
        with self._calling():
            self._found = _find(api, self.bucket)
            if self._found is None and self.state.bucket_id and _find_by_id(api, self.state.bucket_id) is not None:
                # A bucket keeps its name. One that is taken for gone is dropped from the state with its media.
                raise ApiError(
                    "NotJson",
                    0,
                    f"bucket {self.bucket} at Backblaze B2: it is not found by its name, and is by its ID "
                    f"({self.state.bucket_id}): it is not taken for deleted. Check realm and any proxy in front of it, "
                    "and run this again.",
                )
        if self._found is None:
            return False
        self.state.bucket_id = self._found.id_
        return True

    def make(self) -> bool:
        from b2sdk.v3.exception import DuplicateBucketName

        api, inputs = self._api, self.inputs
        with self._calling():
            try:
                # The call that creates a bucket marks it too, so the bucket of an interrupted run is marked, and empty.
                self._found = _made_bucket(
                    api,
                    self.bucket,
                    _type(private=inputs.private),
                    bucket_info={OWNER_INFO: inputs.owner},
                    lifecycle_rules=[self._rule()],
                    default_server_side_encryption=_encryption(on=inputs.encryption),
                )
            except DuplicateBucketName as error:
                # A retry finds the bucket of the first attempt.
                self._found = _find(api, self.bucket)
                if self._found is None or _mark_of(self._found) != inputs.owner:
                    raise taken(self.bucket, ApiError("duplicate_bucket_name", 400, str(error))) from None
        self.state.bucket_id = self._found.id_
        return True

    def mark(self, ours: frozenset[str]) -> str | None:
        return _mark_of(self._found)

    def mark_place(self, mark: str) -> str:
        return _WHERE

    def require_no_unknown_keys(self) -> None:
        api, connection = self._api, self.inputs.connection
        keys = _keys_of(api, connection, self.state.bucket_id)
        mark, tokens = _mark(self.inputs.owner, self.state.nonce), _tokens_of(self._found)
        unknown = [
            key_id
            for key_id, key in keys.items()
            # One that an interrupted run created is of no use to anybody.
            if key.active and _token(key.name, mark) not in tokens
        ]
        require_no_keys(self.bucket, sorted(unknown), "delete it at the provider")

    def read(self, setting: Setting, inputs: B2BucketInputs) -> B2BucketInputs:
        has = self._found
        if setting is _ACCESS:
            return replace(inputs, private=has.type_ == _type(private=True))
        if setting is _ENCRYPTION:
            return replace(inputs, encryption=has.default_server_side_encryption.mode.value == "SSE-B2")
        rules = has.lifecycle_rules or []
        return replace(
            inputs,
            noncurrent_days=days_in_force(_days(rules, _HIDING), inputs.noncurrent_days),
            abort_days=days_in_force(_days(rules, _STARTING), inputs.abort_days),
            # A rule that hides files by age deletes media, so it shows as drift, whoever created it.
            expiring_rules=tuple(rule.get("fileNamePrefix", "") for rule in rules if rule.get(_UPLOADING)),
        )

    def apply(self) -> None:
        """Apply all differing settings in one call."""
        inputs, now = self.inputs, self.now()
        changes: dict[str, object] = {}
        if now.private != inputs.private:
            changes["bucket_type"] = _type(private=inputs.private)
        if now.encryption != inputs.encryption:
            changes["default_server_side_encryption"] = _encryption(on=inputs.encryption)
        days = (inputs.noncurrent_days, inputs.abort_days)
        if (now.noncurrent_days, now.abort_days) != days or now.expiring_rules:
            # Any other rule was found as drift: B2 refuses two rules for the same files, so the bucket lacks ours then.
            changes["lifecycle_rules"] = [self._rule()]
        if _mark_of(self._found) != inputs.owner:
            changes["bucket_info"] = {**self._found.bucket_info, OWNER_INFO: inputs.owner}
        if changes:
            with self._calling():
                self._found = _updated(self._found, **changes)

    def expiring_words(self, rules: tuple[str, ...]) -> str:
        return "a lifecycle rule hides media by age: remove it"

    def media_elsewhere(self) -> Elsewhere | None:
        def names(under: str, count: int) -> list[str]:
            listed = self._found.ls(under, recursive=True, fetch_count=count)
            return [version.file_name for version, _ in itertools.islice(listed, count)]

        def folders(under: str) -> list[str]:
            # A folder costs a request each.
            listed = itertools.islice(self._found.ls(under, fetch_count=PAGE), PAGE)
            return [f"{folder.rstrip('/')}/" for _, folder in listed if folder]

        try:
            with self._calling():
                return search(self.inputs.media_in, names, folders)
        except StoreError:
            return None  # a key that may not list: it is not known

    def is_empty(self) -> bool:
        with self._calling():
            return all(is_ours(version.file_name) for version in _versions(self._found))

    def empty(self) -> None:
        with self._calling():
            for upload in list(self._found.list_unfinished_large_files()):
                self._found.cancel_large_file(upload.file_id)
            for version in list(_versions(self._found)):
                self._found.delete_file_version(version.id_, version.file_name)

    def clear(self) -> None:
        with self._calling():
            for upload in list(self._found.list_unfinished_large_files()):
                if is_ours(upload.file_name):
                    self._found.cancel_large_file(upload.file_id)
            for version in list(_versions(self._found)):
                if is_ours(version.file_name):
                    self._found.delete_file_version(version.id_, version.file_name)

    def delete(self) -> None:
        api = self._api
        try:
            with self._calling():
                _delete(api, self._found)
        except ApiError as error:
            if error.code != _NOT_EMPTY:
                raise
            raise not_empty(self.bucket) from None


class B2Bucket(BucketBase[B2BucketInputs, B2BucketState]):
    """A private bucket that keeps only the last version of a file."""

    described = B2_BUCKET
    not_imported = "a B2 bucket can't be imported: adopt it with adopt: true in the stack file"

    def begun(self, inputs: B2BucketInputs) -> B2BucketState:
        # Recorded in the state before any key is created.
        return B2BucketState(inputs=inputs, nonce=new_nonce())

    def family(self, state: B2BucketState) -> _BucketFamily:
        return _BucketFamily(state)


# ---- keys


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mark(owner: str, nonce: str) -> str:
    """The part of a key's name that tells whose it is: the state's with this nonce, for whichever user and homeserver.

    Where an earlier release made the bucket there is no nonce.
    """
    return _digest(nonce or owner)


def _token(name: str, mark: str = "") -> str:
    """The token in the name of a key, if the name has this mark (by default, any); else "".

    Release 0.1.0 made keys without a token, which nothing tells to be in use or not.
    """
    match = _KEY_NAME.fullmatch(name)
    return match["token"] if match and mark in ("", match["mark"]) else ""


_KEY_NAME: Final = re.compile(rf".*-(?P<mark>[0-9a-f]{{16}})-(?:{'|'.join(SLOTS)})-(?P<token>[0-9a-f]{{8}})")


def _tokens_of(found: Any) -> list[str]:
    return str(found.bucket_info.get(_MAKING_INFO, "")).split()


def _change_tokens(find: Callable[[], Any], change: Callable[[list[str]], list[str]]) -> None:
    """Change the tokens in the bucket info, and nothing else there. Nothing is done where the bucket is gone.

    Args:
        find: finds the bucket as it is now, or None.
    """
    from b2sdk.v3.exception import Conflict

    for attempt in range(ATTEMPTS):
        found = find()
        tokens = [] if found is None else _tokens_of(found)
        wanted = change(tokens)[-_MOST_TOKENS:]
        if found is None or wanted == tokens:
            return
        info = {name: value for name, value in found.bucket_info.items() if name != _MAKING_INFO}
        if wanted:
            info[_MAKING_INFO] = " ".join(wanted)
        try:
            after = _updated(found, bucket_info=info, if_revision_is=found.revision)
            if _tokens_of(after) != wanted:
                raise ValueError(_MAKING_INFO)
            return
        except Conflict:
            # Another run changed the bucket meanwhile, or this is the second try of a call whose response was lost.
            if attempt == ATTEMPTS - 1:
                raise


@dataclass(frozen=True, slots=True)
class _Key:
    """An application key. `active`: it has not expired."""

    name: str
    capabilities: frozenset[str]
    active: bool


def _keys_of(api: Any, connection: Connection, bucket_id: str) -> dict[str, _Key]:
    """The keys that are restricted to a bucket, by their IDs."""
    now = time.time() * 1000
    with in_words("b2_list_keys", _realm(connection)):
        return {
            _of_kind(key.id_, str): _Key(
                name=_of_kind(key.key_name, str),
                capabilities=frozenset(_of_kind(name, str) for name in _of_kind(key.capabilities, list)),
                active=not key.expiration_timestamp_millis or _of_kind(key.expiration_timestamp_millis, int) > now,
            )
            for key in api.list_keys()
            if bucket_id in _of_kind(key.bucket_ids or [], list)
        }


class _Keys(NamedKeys):
    """The application keys of a bucket."""

    def __init__(self, state: B2KeyRingState) -> None:
        self._state = state
        inputs = state.inputs
        self.who = f"the keys of {inputs.user_name}"
        # B2 allows letters, digits and '-', at most 100 characters.
        self._user = re.sub(r"[^A-Za-z0-9-]", "-", inputs.user_name)
        self._mark = _mark(inputs.owner, inputs.nonce)
        self._known = frozenset(key.access_key_id for key in state.keys.values())
        self._tokens: list[str] = []
        self._names: dict[str, str] = {}
        self._capabilities: dict[str, frozenset[str]] = {}

    @property
    def _api(self) -> Any:
        return _same_account(self._state.inputs.connection, self._state.account_id)

    def _calling(self, operation: str) -> AbstractContextManager[None]:
        return in_words(operation, _realm(self._state.inputs.connection))

    def _keys(self) -> dict[str, _Key]:
        """The keys of the bucket, by their IDs: those listed, and those of the state that are accepted."""
        keys = _keys_of(self._api, self._state.inputs.connection, self._state.inputs.bucket_id)
        # b2_list_keys does not list every kind of key, and the secret of one that is taken for gone is lost.
        for slot, key in self._state.keys.items():
            secret = self._state.secrets.get(slot, "")
            if key.access_key_id not in keys and secret:
                found = self._accepted(Credential(key.access_key_id, secret))
                keys |= {key.access_key_id: found} if found else {}
        self._capabilities = {key_id: key.capabilities for key_id, key in keys.items()}
        self._names = {key_id: key.name for key_id, key in keys.items()}
        return keys

    def _accepted(self, key: Credential) -> _Key | None:
        """What a key may do, as it says itself; None where it is gone."""
        api, realm = _new_api(), _realm(self._state.inputs.connection)
        try:
            with in_words(AUTHORIZE, realm):
                _authorize(api, key, realm)
                allowed = _of_kind(api.account_info.get_allowed(), dict)
                return _Key("", frozenset(_of_kind(allowed["capabilities"], list)), active=True)
        except ApiError as error:
            if error.status != http.HTTPStatus.UNAUTHORIZED or error.is_anybodys:
                raise
            return None

    def _bucket(self, api: Any) -> Any:
        """The bucket as it is now, or None."""
        return _find_by_id(api, self._state.inputs.bucket_id)

    def require_ours(self, known: Collection[str]) -> None:
        # Recorded first, so that it is in the state even if creating a key fails halfway.
        self._state.account_id = _account_id(self._api)

    def found(self) -> list[NamedKey]:
        keys, api = self._keys(), self._api
        # After the keys: a token that is removed meanwhile is that of a key in use.
        with self._calling("b2_list_buckets"):
            bucket = self._bucket(api)
            self._tokens = [] if bucket is None else _tokens_of(bucket)
        return [NamedKey(key_id, key.name, active=key.active) for key_id, key in keys.items()]

    def is_unissued(self, name: str) -> bool:
        return _token(name, self._mark) in self._tokens

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        inputs = self._state.inputs
        api, token = _admin(inputs.connection), secrets.token_hex(4)
        with self._calling("b2_update_bucket"):
            _change_tokens(lambda: self._bucket(api), lambda tokens: [*tokens, token])
        once = _admin(inputs.connection, once=True)
        with self._calling("b2_create_key"):
            name = f"{self._user}-{self._mark}-{slot}-{token}"
            made = once.create_key(list(inputs.capabilities), name, bucket_ids=[inputs.bucket_id])
            key_id, secret = _of_kind(made.id_, str), _of_kind(made.application_key, str)
            asked = (name, frozenset(inputs.capabilities), [inputs.bucket_id])
            if (made.key_name, frozenset(made.capabilities), made.bucket_ids) != asked:
                raise ValueError(key_id)
            if made.name_prefix or made.expiration_timestamp_millis:
                raise ValueError(key_id)
        return MadeKey(key_id, secret, datetime.now(UTC).isoformat())

    def usable(self) -> bool:
        api = self._api
        bucket_id = self._state.inputs.bucket_id
        with self._calling("b2_list_buckets"):
            # One answer without it is not believed: a key in use would be deleted.
            return self._bucket(api) is not None or any(
                _whole(bucket).id_ == bucket_id for bucket in api.list_buckets(use_cache=False)
            )

    def delete(self, key_id: str) -> None:
        api = self._api
        try:
            with self._calling("b2_delete_key"):
                if api.delete_key_by_id(key_id).id_ != key_id:
                    raise ValueError(key_id)
        except ApiError as error:
            # By its ID, whether it is listed or not: b2_list_keys does not list every kind of key. For one that is not
            # there B2 has no code of its own.
            if error.status not in (400, 404) or key_id in self._keys():
                raise

    def settle(self, *, ending: bool = False) -> str:
        # Called after the orphans were deleted. Of other keys with a token, another state may have one.
        done = {_token(name) for key_id, name in self._names.items() if key_id in self._known or self.is_unissued(name)}
        if done & set(self._tokens):
            api = self._api
            with self._calling("b2_update_bucket"):
                _change_tokens(lambda: self._bucket(api), lambda tokens: [one for one in tokens if one not in done])
        return ""

    def mend(self, slot: str, key_id: str) -> None:
        inputs = self._state.inputs
        if slot != inputs.active:
            return
        has, wanted = self._capabilities[key_id], frozenset(inputs.capabilities)
        if wanted - has or has - wanted - _FORMERLY_GIVEN:
            other = "b" if slot == "a" else "a"
            raise StoreError(
                f"key {key_id} of slot {slot} has the capabilities {', '.join(sorted(has))} instead of "
                f"{', '.join(sorted(wanted))}. A key at Backblaze B2 can't be changed: have another one created with "
                f"keys: {{active: {other}, retiring: [{slot}]}} (`synapse-media rotate` writes that)."
            )


_FORMERLY_GIVEN = frozenset({"readBuckets"})
"""What keys of Goofys and matrix-media-repo had in release 0.1.0 and don't need. It only lets them read a bucket's
settings, so such a key is kept, and the next one is made without."""


class B2KeyRing(RingBase[B2KeyRingInputs, B2KeyRingState]):
    """Application keys restricted to one bucket."""

    described = B2_KEY_RING

    def family(self, state: B2KeyRingState) -> NamedKeys:
        return _Keys(state)


# ---- the proof


class B2Administrator:
    """The proof's administrator at Backblaze B2, through the native API, since the master key can't be used with S3."""

    def ensure_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        api = _admin(inputs.connection)
        with _calling(inputs.connection, decoy):
            found = _find(api, decoy)
            if found is None:
                _made_bucket(api, decoy, _type(private=True), bucket_info={OWNER_INFO: inputs.owner})
        if found is not None:
            require_mark(decoy, _mark_of(found), _WHERE, inputs)
        return True

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        api = account(inputs.connection)
        with _calling(inputs.connection, decoy):
            found = _find(api, decoy)
            if found is not None:
                _delete(api, found)

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        api = account(inputs.connection)
        with _calling(inputs.connection, decoy):
            listed = [_whole(bucket) for bucket in api.list_buckets(use_cache=False)]
        decoys = [bucket for bucket in listed if bucket.name.startswith(DECOY) and bucket.name != decoy]
        return [bucket.name for bucket in decoys if is_marked(_mark_of(bucket), inputs)]

    def bucket_policy(self, inputs: ProofInputs) -> str | None:
        return ""  # B2 has no bucket policies

    def clear(self, inputs: ProofInputs, own: str) -> None:
        api, prefix = account(inputs.connection), inputs.prefix + PROOF_OBJECT
        with _calling(inputs.connection, inputs.bucket):
            found = _find(api, inputs.bucket)
            if found is not None:
                listed = api.session.list_file_versions(found.id_, start_file_name=prefix, prefix=prefix)
                for version in items(f"the files of {inputs.bucket}", listed, "files", dict):
                    written = datetime.fromtimestamp(version["uploadTimestamp"] / 1000, UTC)
                    if is_ours(version["fileName"]) and is_left(version["fileName"], own, written):
                        found.delete_file_version(version["fileId"], version["fileName"])

    def note_known(self, inputs: ProofInputs) -> None:
        api = _admin(inputs.connection)
        with _calling(inputs.connection, inputs.bucket):
            found = _find(api, inputs.bucket)
        if found is None:
            # The key was proved with it just now, and would be taken for one that was never handed out.
            raise ApiError("NotJson", 0, f"bucket {inputs.bucket} at Backblaze B2 is not found, and was a moment ago")
        if not _tokens_of(found):
            return
        key = _keys_of(api, inputs.connection, found.id_).get(inputs.access_key_id)
        # Of a key that is not listed yet the token is not known: without any token, no key is taken for an orphan.
        done = _tokens_of(found) if key is None else [_token(key.name)]
        with _calling(inputs.connection, inputs.bucket):
            _change_tokens(lambda: _find(api, inputs.bucket), lambda tokens: [one for one in tokens if one not in done])


FAMILY: Final = Family(
    resources=(B2Bucket(), B2KeyRing()),
    proof_administrator=B2Administrator(),
    check_admin=check_admin,
)
