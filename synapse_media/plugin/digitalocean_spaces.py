"""DigitalOcean Spaces: limited keys of a bucket, and the full-access key a stack may make for itself.

https://docs.digitalocean.com/reference/api/reference/spaces-keys/ ; the token comes from the environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from synapse_media.contract import PROOF_OBJECT
from synapse_media.errors import StoreError
from synapse_media.schema.model import UNKNOWN
from synapse_media.store import credentials
from synapse_media.store.clients import ApiError, Credential, s3_client
from synapse_media.store.http import JsonClient
from synapse_media.store.objects import look, remove_versions

from .bucket import read_acl, read_policy, write_acl, write_policy
from .keyring import MadeKey, NamedKey, NamedKeys, RingBase, key_name
from .resource import Context, Found, Resource, Values, connection_of, text

API: Final = "https://api.digitalocean.com"
TOKEN: Final = "DIGITALOCEAN_TOKEN"  # noqa: S105 - the variable's name
_KEYS: Final = "/v2/spaces/keys"
_PAGE: Final = 200
_LIMIT: Final = 200
"""Spaces keys of an account. https://docs.digitalocean.com/products/spaces/details/limits/"""
_SLOTS: Final = ("a", "b")


class SpacesApi:
    """The calls on Spaces keys. Each may raise ApiError."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        token = credentials.read(TOKEN)
        if not token:
            raise StoreError(
                f"the environment has no {TOKEN}: set it to an API token with the scopes spaces_key:create, read, "
                "update and delete. `synapse-media doctor` says what it needs."
            )
        where = values.get("connection") or {}
        base = str(where.get("apiEndpoint") or API)
        headers = {"Authorization": f"Bearer {token}"}
        self._client = JsonClient(base, "DigitalOcean's API", headers, ca_file=str(where.get("caFile") or ""))

    def listed(self) -> list[dict[str, Any]]:
        """Every key of the account."""
        keys: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = self._call("GET", _KEYS, query={"page": page, "per_page": _PAGE})
            found = _part(answer, "keys", list)
            keys += found
            if not found or len(keys) >= int(_part(answer, "meta", dict).get("total") or 0):
                return keys
            page += 1

    def made(self, name: str, grants: list[dict[str, str]]) -> dict[str, Any]:
        """A new key, its secret in it, for this once."""
        try:
            key: dict[str, Any] = _part(self._call("POST", _KEYS, {"name": name, "grants": grants}), "key", dict)
        except ApiError as error:
            if 400 <= error.status < 500 and len(self.listed()) >= _LIMIT:
                raise StoreError(
                    f"key {name!r}: the account has as many Spaces keys as it may have ({_LIMIT}). Delete one that "
                    f"nothing uses. {error}"
                ) from None
            if error.status < 300 or error.status >= 500:
                raise StoreError(
                    f"key {name!r}: {error}. If it was made all the same, the next `up` finds it by its name and "
                    "replaces it."
                ) from None
            raise
        for part in ("access_key", "secret_key"):
            if not isinstance(key.get(part), str) or not key[part]:
                raise StoreError(
                    f"key {name!r}: the answer of DigitalOcean's API has no {part}. The next `up` finds the key by its "
                    "name and replaces it."
                )
        return key

    def changed(self, key_id: str, name: str, grants: list[dict[str, str]]) -> None:
        self._call("PUT", f"{_KEYS}/{key_id}", {"name": name, "grants": grants})

    def deleted(self, key_id: str) -> None:
        """Delete a key; already gone is done."""
        try:
            self._call("DELETE", f"{_KEYS}/{key_id}")
        except ApiError as error:
            # Its own word: a gateway's 404 does not say that the key is gone.
            if error.code != "not_found":
                raise

    def _call(self, method: str, path: str, body: Any = None, query: Mapping[str, int] | None = None) -> Any:
        try:
            return self._client.call(method, path, body, query=query)
        except ApiError as error:
            meaning = {
                401: f" {TOKEN} is not valid, or expired.",
                403: f" {TOKEN} may not do that: it needs the scopes spaces_key:create, read, update and delete.",
            }.get(error.status)
            if meaning is None:
                raise
            raise ApiError(error.code, error.status, f"{error}.{meaning}") from None


def check_admin(values: Mapping[str, Any]) -> None:
    """Raises StoreError where the API token in the environment is not accepted."""
    SpacesApi(values).listed()


def _part(answer: Any, name: str, kind: type) -> Any:
    part = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(part, kind):
        raise ApiError("Unparsable", 0, f"the answer of DigitalOcean's API has no {name!r}: is this its address?")
    return part


def _grants(key: Mapping[str, Any]) -> list[dict[str, str]]:
    """In one order, so that two of the same meaning compare equal."""
    listed = [
        {"bucket": str(grant.get("bucket") or ""), "permission": str(grant.get("permission") or "")}
        for grant in key.get("grants") or ()
    ]
    return sorted(listed, key=lambda grant: (grant["bucket"], grant["permission"]))


def _created(key: Mapping[str, Any]) -> str:
    try:
        return datetime.fromisoformat(str(key.get("created_at"))).astimezone(UTC).isoformat()
    except ValueError:
        return datetime.now(UTC).replace(microsecond=0).isoformat()


class _SpacesKeys(NamedKeys):
    """The limited keys of one bucket."""

    def __init__(self, values: Values) -> None:
        user, owner = text(values, "userName"), text(values, "owner")
        self.who = f"Spaces keys {user}"
        self.names = {slot: key_name(user, owner, slot) for slot in _SLOTS}
        self.adopted = bool(values.get("adopt"))
        self._wanted = _grants(values)
        self._values = values
        self._api = SpacesApi(values)

    def found(self) -> list[NamedKey]:
        ours, buckets = set(self.names.values()), {grant["bucket"] for grant in self._wanted}
        listed = ((key, bool(buckets & {grant["bucket"] for grant in _grants(key)})) for key in self._api.listed())
        return [
            # Another store of the same stack, homeserver and user name may have keys of our names.
            NamedKey(key["access_key"], str(key.get("name")), elsewhere=not reaches)
            for key, reaches in listed
            if reaches or key.get("name") in ours
        ]

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        key = self._api.made(self.names[slot], self._wanted)
        return MadeKey(key["access_key"], key["secret_key"], _created(key))

    def usable(self) -> bool:
        # The API of keys knows no buckets: the key itself asks for its own.
        key = Credential(text(self._values, "accessKeyId"), text(self._values, "secretAccessKey"))
        s3 = s3_client(connection_of(self._values), key)
        try:
            for grant in self._wanted:
                look(s3, grant["bucket"])
        except ApiError as error:
            return not error.absent
        return True

    def delete(self, key_id: str) -> None:
        self._api.deleted(key_id)

    def mend(self, slot: str, key_id: str) -> None:
        for key in self._api.listed():
            if key["access_key"] == key_id and (key.get("name"), _grants(key)) != (self.names[slot], self._wanted):
                self._api.changed(key_id, self.names[slot], self._wanted)

    def drifted(self, slots: Mapping[str, str]) -> Values:
        for key in self._api.listed():
            if key["access_key"] in slots.values() and _grants(key) != self._wanted:
                return {"grants": _grants(key)}
        return {}


class _Opened:
    """Who beside its keys reaches the bucket. The vendor's plugin never looks at a bucket's access list or policy.

    Nothing is looked at without the admin's Spaces key in the environment.
    """

    def __init__(self, values: Values) -> None:
        where = values.get("connection") or {}
        given = [name for name in list(where.get("variables") or ())[:2] if credentials.read(name)]
        self._s3 = s3_client(connection_of(values)) if len(given) == 2 else None
        self._buckets = sorted({grant["bucket"] for grant in _grants(values)})

    def found(self) -> Values:
        """`acl` "public" and `policy` (JSON), where a bucket has them; neither is ever among a ring's own inputs."""
        found: Values = {}
        for bucket in self._buckets if self._s3 is not None else ():
            with _where_there_is():
                found |= {name: value for name, value in read_acl(self._s3, bucket).items() if value != "private"}
            with _where_there_is():
                found |= {name: value for name, value in read_policy(self._s3, bucket).items() if value}
        return found

    def close(self) -> None:
        """Make each bucket private again."""
        for bucket in self._buckets if self._s3 is not None else ():
            with _where_there_is():
                write_acl(self._s3, bucket, {"acl": "private"})
            with _where_there_is():
                write_policy(self._s3, bucket, {"policy": ""})


@contextmanager
def _where_there_is() -> Iterator[None]:
    """Around what the bucket, or the store, may not have."""
    try:
        yield
    except ApiError as error:
        if not (error.lacking or error.absent):
            raise


class SpacesKeyRing(RingBase):
    """Limited Spaces keys, by slot (see RingBase). Keys with our names that are not in state are replaced.

    Further inputs: `owner`, `grants` [{bucket, permission}], `adopt`; `connection` holds `apiEndpoint`. A read also
    looks who else reaches the bucket, and puts it into the inputs `acl` and `policy`, which the program never sets: so
    it shows as a change, and an update makes the bucket private. Of an adopted one it is only reported.
    """

    pulumi_type = "s3store:index:SpacesKeyRing"
    required = RingBase.required | {"owner", "grants"}

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        if isinstance(inputs.get("grants"), list):
            inputs = {**inputs, "grants": _grants(inputs)}
        return super().check({"adopt": False, **inputs})

    def family(self, values: Values) -> _SpacesKeys:
        return _SpacesKeys(values)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        own = {name: value for name, value in inputs.items() if name not in ("acl", "policy")}
        found = super().read(resource_id, own, outputs, context)
        if found is None:
            return None
        opened = _Opened(own).found()
        if own.get("adopt"):
            for name in sorted(opened):
                context.warn(
                    f"{own['userName']}: the bucket has {'a public access list' if name == 'acl' else 'a policy'}. It "
                    "was taken over and is left so."
                )
            return found
        return replace(found, inputs={**found.inputs, **opened})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        if not (inputs.get("adopt") or old.get("adopt")):
            _Opened(inputs).close()
        return super().update(resource_id, old, inputs, context)


class SpacesAdminKey(Resource):
    """A full-access key of the stack's own, for where an API token is all there is.

    Inputs: `name`, `owner`, `connection`. Outputs: the inputs, `accessKeyId`, `secretAccessKey` (secret).
    """

    pulumi_type = "s3store:index:SpacesAdminKey"
    secrets = frozenset({"secretAccessKey"})
    replace_on = frozenset({"name", "owner"})
    required = frozenset({"name", "owner", "connection"})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        known = {name: (old or {}).get(name, UNKNOWN) for name in ("accessKeyId", "secretAccessKey")}
        return {**inputs, **known}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        api, name = SpacesApi(inputs), key_name(text(inputs, "name"), text(inputs, "owner"), "admin")
        for key in api.listed():
            # Nobody was ever given it: its secret went with the run that was interrupted.
            if key.get("name") == name:
                api.deleted(key["access_key"])
        made = api.made(name, [{"bucket": "", "permission": "fullaccess"}])
        context.warn(
            f"a full-access Spaces key {made['access_key']} was made for this stack: its secret lies encrypted in the "
            "state. To have none, set SPACES_ACCESS_KEY_ID and SPACES_SECRET_ACCESS_KEY, and run `up`."
        )
        return made["access_key"], {
            **inputs,
            "accessKeyId": made["access_key"],
            "secretAccessKey": made["secret_key"],
        }

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise StoreError("a key can't be imported: DigitalOcean never shows its secret again")
        if any(key["access_key"] == resource_id for key in SpacesApi(inputs).listed()):
            return Found(resource_id, inputs, outputs)
        return None

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        # Nothing of it can change but where the API is.
        return {**old, **inputs}

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        SpacesApi(outputs).deleted(resource_id)


class SpacesLender:
    """Who serves the proof: no decoy (a deleted bucket's name is blocked for a week), and the key clears up itself."""

    def lend(self, inputs: Values, decoy: str) -> bool:
        return False

    def take_back(self, inputs: Values, decoy: str) -> None:
        """None was lent."""

    def left_behind(self, inputs: Values, decoy: str) -> list[str]:
        # None was lent.
        return []

    def clear(self, inputs: Values) -> None:
        key = Credential(text(inputs, "accessKeyId"), text(inputs, "secretAccessKey"))
        prefix = text(inputs, "prefix") + PROOF_OBJECT
        remove_versions(s3_client(connection_of(inputs), key), text(inputs, "bucket"), prefix)
