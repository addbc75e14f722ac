"""DigitalOcean Spaces: the limited keys of a bucket, and the full-access key that a stack may create for its own use.

https://docs.digitalocean.com/reference/api/reference/spaces-keys/ ; the token comes from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from synapse_media.errors import StoreError
from synapse_media.schema.connection import AdminCheck, Connection
from synapse_media.schema.resources import (
    SPACES_ADMIN_KEY,
    SPACES_KEY_RING,
    ProofInputs,
    SpacesAdminKeyInputs,
    SpacesAdminKeyState,
    SpacesGrant,
    SpacesKeyRingInputs,
    SpacesKeyRingState,
)
from synapse_media.settings import SLOTS
from synapse_media.store import credentials
from synapse_media.store.answers import NO_ANSWER, ApiError, items, part
from synapse_media.store.clients import Credential, s3_client
from synapse_media.store.http import NO_CONTENT, JsonClient
from synapse_media.store.objects import may_be_there

from .families import Family
from .keyring import MadeKey, NamedKey, NamedKeys, RingBase, accepted_at, is_printed, key_name, not_gone
from .proof import clear_with_proved_key
from .resource import Context, SchemaResource
from .s3_bucket import is_public, make_private, read_policy, write_policy

API: Final = "https://api.digitalocean.com"
TOKEN: Final = "DIGITALOCEAN_TOKEN"  # noqa: S105 - the variable's name
_KEYS: Final = "/v2/spaces/keys"
_PAGE: Final = 200
_PAGES: Final = 50
_WHAT: Final = f"{_KEYS} at DigitalOcean's API (api_endpoint)"
_LIMIT: Final = 200
"""Spaces keys of an account. https://docs.digitalocean.com/products/spaces/details/limits/"""
_UNISSUED: Final = "-making"
"""The suffix of a key's name until the key is in the state, when it is renamed: a key with it was never issued, so it
can be deleted. Other providers record that in the bucket's state, but here the vendor's plugin makes the bucket."""
_ADMIN: Final = "admin"
"""The slot of a full-access key."""
_FULL: Final = "fullaccess"
_ID: Final = re.compile("[A-Za-z0-9]+")
_ANY_REGION: Final = ("https://nyc3.digitaloceanspaces.com", "nyc3")
"""An endpoint and what is signed for there: a full-access key is of the account, and works in every region."""


Grants = tuple[SpacesGrant, ...]


@dataclass(frozen=True, slots=True)
class _Key:
    """A Spaces key in the API's list.

    Attributes:
        grants: in the order of `_ordered`.
    """

    key_id: str
    name: str
    grants: Grants


class SpacesApi:
    """DigitalOcean's API for Spaces keys. Every method may raise ApiError."""

    def __init__(self, connection: Connection) -> None:
        token = credentials.read(TOKEN)
        if not token:
            raise StoreError(
                f"the environment has no {TOKEN}: set it to an API token with the scopes spaces_key:create, read, "
                "update and delete. `synapse-media doctor` says what it needs."
            )
        headers = {"Authorization": f"Bearer {token}"}
        base = connection.api_endpoint or API
        self._client = JsonClient(base, "DigitalOcean's API", headers, "api_endpoint", ca_file=connection.ca_file)

    def listed(self) -> list[_Key]:
        """Every key of the account.

        A key that is not among them is taken for deleted, so each page is compared with the number of keys that the
        answer itself names.
        """
        keys: dict[str, _Key] = {}
        expected: int | None = None
        for page in range(1, _PAGES + 1):
            answer = self._call("GET", _KEYS, query={"page": page, "per_page": _PAGE})
            found = [_parsed(key) for key in items(_WHAT, answer, "keys", dict)]
            total = part(_WHAT, answer, "meta", dict).get("total")
            # A bool is an int to Python.
            if not isinstance(total, int) or isinstance(total, bool) or total < 0:
                raise _not_whole("does not say how many keys there are (meta.total)")
            if expected not in (None, total):
                raise _not_whole(f"says {expected} keys on one page and {total} on another")
            expected = total
            if len(keys.keys() | {key.key_id for key in found}) < len(keys) + len(found):
                raise _not_whole("has a key twice")
            keys |= {key.key_id: key for key in found}
            if len(keys) > total or (len(keys) < total and not found):
                raise _not_whole(f"says that there are {total} keys, and has {len(keys)}")
            if len(keys) == total:
                if _names_another_page(answer):
                    raise _not_whole(f"has the {total} keys that it says there are, and says that another page follows")
                return list(keys.values())
        raise ApiError(NO_ANSWER, 0, f"{_WHAT}: more than {_PAGES * _PAGE} keys, where an account has {_LIMIT} at most")

    def made(self, name: str, grants: Grants, before: frozenset[str]) -> MadeKey:
        """Create a key; its secret is returned only once.

        Args:
            before: the IDs of the account's keys.
        """
        try:
            key = part(_WHAT, self._call("POST", _KEYS, _asked(name, grants)), "key", dict)
            secret, new = part(_WHAT, key, "secret_key", str), _parsed(key)
            if not is_printed(secret):
                raise ApiError(NO_ANSWER, 0, f"{_WHAT}: the answer has a secret_key that is none")
            if new.key_id in before:
                raise ApiError(NO_ANSWER, 0, f"{_WHAT}: the answer has a key that was there before, {new.key_id}")
            if (new.name, new.grants) != (name, grants):
                raise ApiError(
                    NO_ANSWER,
                    0,
                    f"{_WHAT}: the answer has a key with another name or other grants than were asked for, "
                    f"{new.key_id}: look at it in the control panel",
                )
        except ApiError as error:
            if 400 <= error.status < 500 and len(before) >= _LIMIT:
                raise StoreError(
                    f"key {name!r}: the account has reached its limit of {_LIMIT} Spaces keys. Delete an unused "
                    f"one. {error}"
                ) from None
            if error.status < 300 or error.status >= 500:
                raise StoreError(
                    f"key {name!r}: {error}. If it was made nevertheless, the next `up` finds it by its name and "
                    "replaces it."
                ) from None
            raise
        return MadeKey(new.key_id, secret, _created(key))

    def changed(self, key_id: str, name: str, grants: Grants) -> None:
        """Give a key this name and these grants, in place of all that it has."""
        answer, wanted = self._call("PUT", _path(key_id), _asked(name, grants)), _Key(key_id, name, grants)
        with suppress(ApiError):
            if _parsed(part(_WHAT, answer, "key", dict)) == wanted:
                return
        # The API answers with the key as it is now. To anything else, the list of keys tells.
        if wanted not in self.listed():
            raise ApiError(
                NO_ANSWER,
                200,
                f"{_WHAT}: key {key_id} does not have the name and the grants that it was given, after an answer to "
                "the change that is not the API's: is this its address, with no proxy in front of it?",
            )

    def deleted(self, key_id: str) -> None:
        """Delete a key. Succeeds if it does not exist."""
        try:
            answer = self._call("DELETE", _path(key_id))
        except ApiError as error:
            # The API's own code: a proxy's 404 does not mean that the key does not exist.
            if (error.status, error.code) != (404, "not_found"):
                raise
            answer = error
        # The API answers 204, without a body. To anything else, the list of keys tells.
        if answer is not NO_CONTENT and any(key.key_id == key_id for key in self.listed()):
            raise ApiError(
                NO_ANSWER,
                200,
                f"{_WHAT}: key {key_id} is still there, after an answer to its deletion that is not the API's: is "
                "this its address, with no proxy in front of it?",
            )

    def _call(self, method: str, path: str, body: Any = None, query: Mapping[str, int] | None = None) -> Any:
        try:
            return self._client.call(method, path, body, query=query)
        except ApiError as error:
            meaning = {
                401: f" {TOKEN} is not valid, or has expired.",
                403: f" {TOKEN} lacks a permission: it needs the scopes spaces_key:create, read, update and delete.",
            }.get(error.status)
            if meaning is None or error.is_anybodys:
                raise
            raise ApiError(error.code, error.status, f"{error}.{meaning}") from None


def check_admin(asked: AdminCheck) -> None:
    """Raises StoreError if the API token in the environment is rejected."""
    SpacesApi(asked.connection).listed()


def _path(key_id: str) -> str:
    # A state may hold what an answer named as an ID.
    return f"{_KEYS}/{quote(key_id, safe='')}"


def _not_whole(fault: str) -> ApiError:
    return ApiError(
        NO_ANSWER,
        0,
        f"{_WHAT}: the list of keys {fault}, so it does not tell which keys there are. Check "
        "api_endpoint and any proxy in front of the API. If a key was made or deleted just then, run this again.",
    )


def _names_another_page(answer: Any) -> bool:
    links = part(_WHAT, answer, "links", dict, {})
    return bool(part(_WHAT, links, "pages", dict, {}).get("next"))


def _parsed(key: Mapping[str, Any]) -> _Key:
    key_id = part(_WHAT, key, "access_key", str)
    if not _ID.fullmatch(key_id):
        raise ApiError(
            NO_ANSWER,
            0,
            f"{_WHAT}: the answer has an access_key that is not letters and digits alone. Check "
            "api_endpoint and any proxy in front of the API",
        )
    grants = (
        SpacesGrant(bucket=part(_WHAT, grant, "bucket", str, ""), permission=part(_WHAT, grant, "permission", str, ""))
        for grant in items(_WHAT, key, "grants", dict, [])
    )
    return _Key(key_id, part(_WHAT, key, "name", str, ""), _ordered(grants))


def _ordered(grants: Iterable[SpacesGrant]) -> Grants:
    """Sorted, so that equal sets of grants compare equal."""
    return tuple(sorted(grants, key=lambda grant: (grant.bucket, grant.permission)))


def _asked(name: str, grants: Grants) -> dict[str, Any]:
    wire = [{"bucket": grant.bucket, "permission": grant.permission} for grant in grants]
    return {"name": name, "grants": wire}


def _created(key: Mapping[str, Any]) -> str:
    try:
        return datetime.fromisoformat(str(key.get("created_at"))).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return datetime.now(UTC).replace(microsecond=0).isoformat()


class _SpacesKeys(NamedKeys):
    """The limited keys of one bucket."""

    def __init__(self, state: SpacesKeyRingState) -> None:
        inputs = state.inputs
        self.who = f"Spaces keys {inputs.user_name}"
        self._kept_names = {slot: key_name(inputs.user_name, inputs.owner, slot) for slot in SLOTS}
        self._names = {slot: name + _UNISSUED for slot, name in self._kept_names.items()}
        self._wanted = _ordered(inputs.grants)
        self._state = state
        self._api = SpacesApi(inputs.connection)
        # The IDs of the keys that the account had when it was asked last.
        self._account: frozenset[str] = frozenset()

    def found(self) -> list[NamedKey]:
        ours, buckets = {*self._names.values(), *self._kept_names.values()}, {grant.bucket for grant in self._wanted}
        # A key of the state whose name and grants were changed by hand is ours all the same.
        known = {key.access_key_id for key in self._state.keys.values()}
        listed = [(key, bool(buckets & {grant.bucket for grant in key.grants})) for key in self._api.listed()]
        self._account = frozenset(key.key_id for key, _ in listed)
        return [
            # Another store of the same stack, homeserver and user name may have keys with our names.
            NamedKey(key.key_id, key.name, elsewhere=not reaches and not any(map(_is_full, key.grants)))
            for key, reaches in listed
            if reaches or key.name in ours or key.key_id in known
        ]

    def is_unissued(self, name: str) -> bool:
        return name in self._names.values()

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        return self._api.made(self._names[slot], self._wanted, before | self._account)

    def usable(self) -> bool:
        # The keys API can't tell whether a bucket exists: ask with the key itself.
        key = Credential(self._state.access_key_id, self._state.secret_access_key)
        s3 = s3_client(self._state.inputs.connection, key)
        return not self._wanted or any(may_be_there(s3, grant.bucket) for grant in self._wanted)

    def still_works(self, key: Credential) -> str:
        connection = self._state.inputs.connection
        if not connection.endpoint:
            return ""
        places = (accepted_at(key, connection, grant.bucket) for grant in self._wanted if grant.bucket)
        return next(filter(None, places), "")

    def delete(self, key_id: str) -> None:
        self._api.deleted(key_id)

    def mend(self, slot: str, key_id: str) -> None:
        for key in self._api.listed():
            if key.key_id == key_id and (key.name, key.grants) != (self._kept_names[slot], self._wanted):
                self._api.changed(key_id, self._kept_names[slot], self._wanted)

    def drifted(self, slots: Mapping[str, str]) -> Mapping[str, Any]:
        for key in self._api.listed():
            if key.key_id in slots.values() and key.grants != self._wanted:
                return {"grants": key.grants}
        return {}


def _is_full(grant: SpacesGrant) -> bool:
    return grant.permission == _FULL


class _Exposure:
    """Access to the buckets other than by keys. The vendor's plugin never reads a bucket's access list or policy.

    Without the admin's Spaces key in the environment nothing is read.
    """

    def __init__(self, inputs: SpacesKeyRingInputs) -> None:
        given = [name for name in inputs.connection.variables[:2] if credentials.read(name)]
        s3 = s3_client(inputs.connection) if len(given) == 2 else None
        self._buckets = [(s3, name) for name in sorted({grant.bucket for grant in inputs.grants}) if s3 is not None]

    def found(self) -> tuple[str, str]:
        """(access list, policy): "public" and the policy (JSON) if a bucket has them, else ""."""
        acl = policy = ""
        for s3, bucket in self._buckets:
            with _where_there_is():
                acl = "public" if is_public(s3, bucket) else acl
            with _where_there_is():
                policy = read_policy(s3, bucket) or policy
        return acl, policy

    def close(self) -> None:
        """Make each bucket private again."""
        for s3, bucket in self._buckets:
            with _where_there_is():
                make_private(s3, bucket)
            with _where_there_is():
                write_policy(s3, bucket, "")


@contextmanager
def _where_there_is() -> Iterator[None]:
    """Ignore an error that says that the bucket, or this feature of the store, does not exist."""
    try:
        yield
    except ApiError as error:
        if not (error.lacking or error.absent):
            raise


class SpacesKeyRing(RingBase[SpacesKeyRingInputs, SpacesKeyRingState]):
    """Limited Spaces keys, by slot (see RingBase). Keys with our names that are not in state are replaced.

    A refresh also records a public access list or a policy of the bucket in the inputs `acl` and `policy`, so that it
    shows as a change, and an update makes the bucket private. For an adopted bucket it is only reported.
    """

    described = SPACES_KEY_RING

    def checked(self, inputs: SpacesKeyRingInputs) -> tuple[SpacesKeyRingInputs, dict[str, str]]:
        # An unknown value is not a tuple of grants.
        known = isinstance(inputs.grants, tuple)
        return super().checked(replace(inputs, grants=_ordered(inputs.grants)) if known else inputs)

    def family(self, state: SpacesKeyRingState) -> _SpacesKeys:
        return _SpacesKeys(state)

    def find(
        self, resource_id: str, inputs: SpacesKeyRingInputs, state: SpacesKeyRingState, context: Context
    ) -> tuple[str, SpacesKeyRingInputs, SpacesKeyRingState] | None:
        inputs = replace(inputs, acl="", policy="")
        found = super().find(resource_id, inputs, state, context)
        if found is None:
            return None
        acl, policy = _Exposure(inputs).found()
        if not inputs.adopt:
            resource_id, drifted, state = found
            return resource_id, replace(drifted, acl=acl, policy=policy), state
        for has, what in ((acl, "a public access list"), (policy, "a policy")):
            if has:
                context.warn(
                    f"{inputs.user_name}: the bucket has {what}. The bucket is adopted, so this is not changed."
                )
        return found

    def change(
        self, resource_id: str, old: SpacesKeyRingState, inputs: SpacesKeyRingInputs, context: Context
    ) -> SpacesKeyRingState:
        if not (inputs.adopt or old.inputs.adopt):
            _Exposure(inputs).close()
        return super().change(resource_id, old, inputs, context)


class SpacesAdminKey(SchemaResource[SpacesAdminKeyInputs, SpacesAdminKeyState]):
    """A full-access key of the stack itself, used if only an API token is given."""

    described = SPACES_ADMIN_KEY
    not_imported = "a key can't be imported: DigitalOcean never shows its secret again"

    def foreseen(self, inputs: SpacesAdminKeyInputs, old: SpacesAdminKeyState | None) -> SpacesAdminKeyState:
        return super().foreseen(inputs, old) if old is None else replace(old, inputs=inputs)

    def make(self, inputs: SpacesAdminKeyInputs, context: Context) -> tuple[str, SpacesAdminKeyState]:
        api, name = SpacesApi(inputs.connection), key_name(inputs.name, inputs.owner, _ADMIN)
        there = api.listed()
        for key in there:
            # It was never issued: its secret was lost with the interrupted run.
            if key.name == name + _UNISSUED:
                api.deleted(key.key_id)
            elif key.name == name:
                context.warn(
                    f"there is a full-access Spaces key {key.key_id} with this stack's name that is not in this state. "
                    "Another checkout with its own state may use it; if none does, delete it at the provider."
                )
        before = frozenset(key.key_id for key in there)
        made = api.made(name + _UNISSUED, (SpacesGrant(permission=_FULL),), before)
        context.warn(
            f"a full-access Spaces key {made.key_id} was made for this stack; its secret is encrypted in the state. To "
            "do without it, set SPACES_ACCESS_KEY_ID and SPACES_SECRET_ACCESS_KEY, and run `up`."
        )
        return made.key_id, SpacesAdminKeyState(inputs=inputs, access_key_id=made.key_id, secret_access_key=made.secret)

    def find(
        self, resource_id: str, inputs: SpacesAdminKeyInputs, state: SpacesAdminKeyState, context: Context
    ) -> tuple[str, SpacesAdminKeyInputs, SpacesAdminKeyState] | None:
        if _is_listed(SpacesApi(inputs.connection), replace(state, inputs=inputs)):
            return resource_id, inputs, state
        return None

    def change(
        self, resource_id: str, old: SpacesAdminKeyState, inputs: SpacesAdminKeyInputs, context: Context
    ) -> SpacesAdminKeyState:
        # Only the API endpoint can change.
        return replace(old, inputs=inputs)

    def remove(
        self, resource_id: str, state: SpacesAdminKeyState, last: SpacesAdminKeyInputs, context: Context
    ) -> None:
        api = SpacesApi(state.inputs.connection)
        if _is_listed(api, state):
            api.deleted(state.access_key_id)


def _is_listed(api: SpacesApi, state: SpacesAdminKeyState) -> bool:
    """Whether the account has this key. Raises StoreError where its list says no, and the key works all the same."""
    if any(key.key_id == state.access_key_id for _ in range(2) for key in api.listed()):
        return True
    where = _accepted_at(state)
    if where:
        raise not_gone("full access to the account's Spaces", state.access_key_id, where)
    return False


def _accepted_at(state: SpacesAdminKeyState) -> str:
    """Where a full-access key is accepted over S3; "" if it is not, or nobody can tell."""
    connection = state.inputs.connection
    if not state.secret_access_key:
        return ""
    if not connection.endpoint:
        # Where the Spaces of another API are, this resource does not know.
        if connection.api_endpoint:
            return ""
        connection = replace(connection, endpoint=_ANY_REGION[0], region=_ANY_REGION[1])
    return accepted_at(Credential(state.access_key_id, state.secret_access_key), connection)


class SpacesAdministrator:
    """Has no decoy, since a deleted bucket's name stays blocked for a week, and cleans up with the proved key."""

    def ensure_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        return False

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        """Nothing to do: there is no decoy."""

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        return []

    def bucket_policy(self, inputs: ProofInputs) -> str | None:
        return None  # the token is of another API

    def clear(self, inputs: ProofInputs, own: str) -> None:
        clear_with_proved_key(inputs, own)

    def note_known(self, inputs: ProofInputs) -> None:
        # Without a token this run made no key. If a later run has one, its key ring takes care of the name.
        if not credentials.read(TOKEN):
            return
        api, admin = SpacesApi(inputs.connection), key_name("", inputs.owner.rpartition("/")[0], _ADMIN) + _UNISSUED
        for key in api.listed():
            if key.name.endswith(_UNISSUED) and (key.key_id == inputs.access_key_id or key.name.endswith(admin)):
                if not key.grants or any(not (grant.bucket or _is_full(grant)) for grant in key.grants):
                    # A change of the name sends the grants too: without them, the key would lose its access.
                    raise ApiError(
                        NO_ANSWER,
                        0,
                        f"{_WHAT}: the list of keys has no grants of key {key.key_id}, which works. Check "
                        "api_endpoint and any proxy in front of the API",
                    )
                api.changed(key.key_id, key.name.removesuffix(_UNISSUED), key.grants)


FAMILY: Final = Family(
    resources=(SpacesKeyRing(), SpacesAdminKey()),
    proof_administrator=SpacesAdministrator(),
    check_admin=check_admin,
)
