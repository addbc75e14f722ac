"""DigitalOcean Spaces: the limited keys of a bucket, and the full-access key that a stack may create for its own use.

https://docs.digitalocean.com/reference/api/reference/spaces-keys/ ; the token comes from the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

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
from synapse_media.store.http import JsonClient
from synapse_media.store.objects import look

from .families import Family
from .keyring import MadeKey, NamedKey, NamedKeys, RingBase, key_name
from .proof import clear_with_proved_key
from .resource import Context, SchemaResource
from .s3_bucket import is_public, make_private, read_policy, write_policy

API: Final = "https://api.digitalocean.com"
TOKEN: Final = "DIGITALOCEAN_TOKEN"  # noqa: S105 - the variable's name
_KEYS: Final = "/v2/spaces/keys"
_PAGE: Final = 200
_PAGES: Final = 50
_WHAT: Final = f"{_KEYS} at DigitalOcean's API"
_LIMIT: Final = 200
"""Spaces keys of an account. https://docs.digitalocean.com/products/spaces/details/limits/"""
_UNISSUED: Final = "-making"
"""The suffix of a key's name until the key is in the state, when it is renamed: a key with it was never issued, so it
can be deleted. Other providers record that in the bucket's state, but here the vendor's plugin makes the bucket."""
_ADMIN: Final = "admin"
"""The slot of a full-access key."""


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
        """Every key of the account."""
        keys: list[_Key] = []
        for page in range(1, _PAGES + 1):
            answer = self._call("GET", _KEYS, query={"page": page, "per_page": _PAGE})
            found = items(_WHAT, answer, "keys", dict)
            keys += map(_listed, found)
            if not found or len(keys) >= part(_WHAT, part(_WHAT, answer, "meta", dict), "total", int, 0):
                return keys
        raise ApiError(NO_ANSWER, 0, f"{_WHAT}: more than {_PAGES * _PAGE} keys, where an account has {_LIMIT} at most")

    def made(self, name: str, grants: Grants) -> MadeKey:
        """Create a key; its secret is returned only once."""
        try:
            key = part(_WHAT, self._call("POST", _KEYS, {"name": name, "grants": _wire(grants)}), "key", dict)
        except ApiError as error:
            if 400 <= error.status < 500 and len(self.listed()) >= _LIMIT:
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
        for needed in ("access_key", "secret_key"):
            if not isinstance(key.get(needed), str) or not key[needed]:
                raise StoreError(
                    f"key {name!r}: the answer of DigitalOcean's API has no {needed}. The next `up` finds the key by "
                    "its name and replaces it."
                )
        return MadeKey(key["access_key"], key["secret_key"], _created(key))

    def changed(self, key_id: str, name: str, grants: Grants) -> None:
        self._call("PUT", f"{_KEYS}/{key_id}", {"name": name, "grants": _wire(grants)})

    def deleted(self, key_id: str) -> None:
        """Delete a key. Succeeds if it does not exist."""
        try:
            answer = self._call("DELETE", f"{_KEYS}/{key_id}")
            # The API answers 204, without a body. To anything else, the list of keys tells.
            if answer is not None and any(key.key_id == key_id for key in self.listed()):
                raise ApiError(
                    NO_ANSWER,
                    200,
                    f"{_WHAT}: key {key_id} is still there, after an answer to its deletion that is not the API's: is "
                    "this its address, with no proxy in front of it?",
                )
        except ApiError as error:
            # The API's own code: a proxy's 404 does not mean that the key does not exist.
            if error.code != "not_found":
                raise

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


def _listed(key: Mapping[str, Any]) -> _Key:
    grants = (
        SpacesGrant(bucket=part(_WHAT, grant, "bucket", str, ""), permission=part(_WHAT, grant, "permission", str, ""))
        for grant in items(_WHAT, key, "grants", dict, [])
    )
    return _Key(part(_WHAT, key, "access_key", str), part(_WHAT, key, "name", str, ""), _ordered(grants))


def _ordered(grants: Iterable[SpacesGrant]) -> Grants:
    """Sorted, so that equal sets of grants compare equal."""
    return tuple(sorted(grants, key=lambda grant: (grant.bucket, grant.permission)))


def _wire(grants: Grants) -> list[dict[str, str]]:
    return [{"bucket": grant.bucket, "permission": grant.permission} for grant in grants]


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

    def found(self) -> list[NamedKey]:
        ours, buckets = {*self._names.values(), *self._kept_names.values()}, {grant.bucket for grant in self._wanted}
        listed = ((key, bool(buckets & {grant.bucket for grant in key.grants})) for key in self._api.listed())
        return [
            # Another store of the same stack, homeserver and user name may have keys with our names.
            NamedKey(key.key_id, key.name, elsewhere=not reaches)
            for key, reaches in listed
            if reaches or key.name in ours
        ]

    def is_unissued(self, name: str) -> bool:
        return name in self._names.values()

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        return self._api.made(self._names[slot], self._wanted)

    def usable(self) -> bool:
        # The keys API can't tell whether a bucket exists: ask with the key itself.
        key = Credential(self._state.access_key_id, self._state.secret_access_key)
        s3 = s3_client(self._state.inputs.connection, key)
        try:
            for grant in self._wanted:
                look(s3, grant.bucket)
        except ApiError as error:
            return not error.absent
        return True

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
        for key in api.listed():
            # It was never issued: its secret was lost with the interrupted run.
            if key.name == name + _UNISSUED:
                api.deleted(key.key_id)
            elif key.name == name:
                context.warn(
                    f"there is a full-access Spaces key {key.key_id} with this stack's name that is not in this state. "
                    "Another checkout with its own state may use it; if none does, delete it at the provider."
                )
        made = api.made(name + _UNISSUED, (SpacesGrant(permission="fullaccess"),))
        context.warn(
            f"a full-access Spaces key {made.key_id} was made for this stack; its secret is encrypted in the state. To "
            "do without it, set SPACES_ACCESS_KEY_ID and SPACES_SECRET_ACCESS_KEY, and run `up`."
        )
        return made.key_id, SpacesAdminKeyState(inputs=inputs, access_key_id=made.key_id, secret_access_key=made.secret)

    def find(
        self, resource_id: str, inputs: SpacesAdminKeyInputs, state: SpacesAdminKeyState, context: Context
    ) -> tuple[str, SpacesAdminKeyInputs, SpacesAdminKeyState] | None:
        if any(key.key_id == resource_id for key in SpacesApi(inputs.connection).listed()):
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
        SpacesApi(state.inputs.connection).deleted(resource_id)


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
                api.changed(key.key_id, key.name.removesuffix(_UNISSUED), key.grants)


FAMILY: Final = Family(
    resources=(SpacesKeyRing(), SpacesAdminKey()),
    proof_administrator=SpacesAdministrator(),
    check_admin=check_admin,
)
