"""What was last applied, a record per store, as the stack's state holds it.

The state is what `pulumi stack export` prints: https://www.pulumi.com/docs/iac/concepts/state-and-backends/
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from synapse_media import catalog
from synapse_media.urn import Urn, is_store

_OURS: Final = "s3store:index:"
RING: Final = "KeyRing"
PROOF: Final = f"{_OURS}Proof"
EXISTING_KEY: Final = f"{_OURS}ExistingKey"
_USERS: Final = (f"{_OURS}User", "aws:iam/user:User", "aws:iam/role:Role")


def is_bucket(kind: str) -> bool:
    """Whether a resource type is a bucket: ours and the vendors' all end in it, and nothing else does."""
    return kind.endswith("Bucket")


def owner_of(resource: Mapping[str, Any]) -> str:
    """The homeserver whose store a resource of the state is part of.

    A run that was cut off while it renamed a homeserver leaves children that have the former name yet; their parent has
    the new one.
    """
    parent = str(resource.get("parent") or "")
    return Urn.parse(parent if _is_of_store(parent) else resource["urn"]).name


def _is_of_store(parent: str) -> bool:
    return bool(parent) and Urn.parse(parent).is_of_store


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store's media is. A media file that is looked for at another place is not found.

    Attributes:
        endpoint: with scheme; "" where the account or the key says it.
        datastore_id: matrix-media-repo's id of the s3 datastore; "" with other methods.
    """

    provider: str
    endpoint: str
    region: str
    bucket: str
    prefix: str = ""
    datastore_id: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket in the state.

    Attributes:
        kind: its resource type.
        values: its outputs, or its inputs where it is half made.
        retained: its deletion would leave it where it is (`retainOnDelete`).
    """

    urn: str
    kind: str
    values: Mapping[str, Any] = field(repr=False)
    retained: bool = False

    @property
    def name(self) -> str:
        """The bucket's own name. The vendors' call it `bucket` or `name`."""
        return str(self.values.get("bucket") or self.values.get("name") or "")

    @property
    def by_vendor(self) -> bool:
        """Whether a vendor's plugin manages it."""
        return not self.kind.startswith(_OURS)


@dataclass(frozen=True, slots=True)
class Ring:
    """The key ring in the state.

    Attributes:
        keys: {slot: access key ID} of the keys there are.
        active: the slot in use; "" where its key was never made.
    """

    urn: str
    user: str
    keys: Mapping[str, str]
    active: str
    connection: Mapping[str, Any]

    @property
    def retiring(self) -> tuple[str, ...]:
        """The slots with a key that is kept until Synapse uses the active one."""
        return tuple(sorted(set(self.keys) - {self.active})) if self.active else ()


@dataclass(frozen=True, slots=True)
class Applied:
    """A store as it was last applied, as far as that went.

    Attributes:
        place: what was handed out last; None where no `up` came to the end of this store yet.
        outputs: the store's StorageOutputs as the state holds them, the secret encrypted; {} where there are none.
        user: the name of its user or role; "" where the store has none.
        iam_endpoint: where that user is.
        policies: whether there is a policy of the user's or the role's.
        proof_urn: of its proof; "" where there is none.
        ending_keys: access key IDs of a ring that was replaced, and whose deletion is still to come.
        has_key: there is a key that the store did not issue here (`existing_key`).
    """

    server_name: str
    place: Place | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    method: str = ""
    buckets: tuple[Bucket, ...] = ()
    ring: Ring | None = None
    user: str = ""
    iam_endpoint: str = ""
    policies: bool = False
    proof_urn: str = ""
    ending_keys: tuple[str, ...] = ()
    has_key: bool = False
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def provider(self) -> str:
        """The provider's name in the catalog; "" where the state does not tell."""
        return self.place.provider if self.place else ""


def read(export: Mapping[str, Any]) -> dict[str, Applied]:
    """The record of every store in a state, by homeserver.

    Args:
        export: what `pulumi stack export` prints.
    """
    of_store: dict[str, list[Mapping[str, Any]]] = {}
    finished: dict[str, Mapping[str, Any]] = {}
    for resource in export.get("deployment", {}).get("resources") or []:
        kind = str(resource["type"])
        if kind == "pulumi:pulumi:Stack":
            stores = (resource.get("outputs") or {}).get("stores")
            for name, outputs in (stores if isinstance(stores, Mapping) else {}).items():
                if isinstance(outputs, Mapping):
                    finished.setdefault(str(name), outputs)
        elif is_store(kind):
            # Registered when the store was finished, whatever became of the others.
            outputs = (resource.get("outputs") or {}).get("outputs")
            if isinstance(outputs, Mapping):
                finished[Urn.parse(resource["urn"]).name] = outputs
        elif not kind.startswith("pulumi:") and _is_of_store(str(resource.get("parent") or "")):
            of_store.setdefault(owner_of(resource), []).append(resource)
    found = {}
    for name, resources in sorted(of_store.items()):
        # By its former name, where a run that renames it was cut off.
        known = (name, *(Urn.parse(resource["urn"]).name for resource in resources))
        found[name] = _applied(name, resources, next((finished[one] for one in known if one in finished), {}))
    return found


def _applied(name: str, resources: list[Mapping[str, Any]], outputs: Mapping[str, Any]) -> Applied:
    found: dict[str, Any] = {"outputs": outputs, "method": str(outputs.get("method") or "")}
    if outputs.get("bucket"):
        media_repo = outputs.get("media_repo")
        found["place"] = Place(
            provider=str(outputs.get("provider") or ""),
            endpoint=str(outputs.get("endpoint_url") or ""),
            region=str(outputs.get("region") or ""),
            bucket=str(outputs["bucket"]),
            prefix=str(outputs.get("prefix") or ""),
            datastore_id=str((media_repo if isinstance(media_repo, Mapping) else {}).get("s3_datastore_id") or ""),
        )
    # Of what is on its way out since a run that was cut off, buckets count: there may be media in them.
    outgoing = [one for one in resources if one.get("delete") is True and not is_bucket(str(one["type"]))]
    buckets = []
    for resource in (one for one in resources if one not in outgoing):
        kind = str(resource["type"])
        values: Mapping[str, Any] = {**(resource.get("inputs") or {}), **(resource.get("outputs") or {})}
        if is_bucket(kind):
            buckets.append(_bucket(resource, kind, values))
        elif kind.endswith(RING):
            found["ring"] = _ring(resource["urn"], values)
            found["user"] = found.get("user") or str(values.get("userName") or "")
        elif kind == PROOF:
            found["proof_urn"] = str(resource["urn"])
        elif kind == EXISTING_KEY:
            found["has_key"] = True
        elif kind in _USERS:
            found["user"] = str(values.get("userName") or values.get("name") or "")
        elif kind.endswith(("UserPolicy", "RolePolicy")):
            found["policies"] = True
        if isinstance(values.get("connection"), Mapping):
            found.setdefault("connection", values["connection"])
            if kind == PROOF:
                # Its endpoint and region are those that were read from the account or the key.
                found["connection"] = values["connection"]
            found["iam_endpoint"] = str(values["connection"].get("iamEndpoint") or "") or found.get("iam_endpoint", "")
    ending = (
        _ring(one["urn"], one.get("outputs") or {}).keys.values() for one in outgoing if one["type"].endswith(RING)
    )
    return Applied(name, buckets=tuple(buckets), ending_keys=tuple(itertools.chain(*ending)), **found)


def _bucket(resource: Mapping[str, Any], kind: str, values: Mapping[str, Any]) -> Bucket:
    return Bucket(
        urn=str(resource["urn"]),
        kind=kind,
        values=values,
        retained=bool(resource.get("retainOnDelete")),
    )


def _ring(urn: str, values: Mapping[str, Any]) -> Ring:
    held = values.get("keys")
    keys = {
        str(slot): str(key.get("accessKeyId") or "")
        for slot, key in (held if isinstance(held, Mapping) else {}).items()
        if isinstance(key, Mapping)
    }
    active = str(values.get("active") or "")
    if active not in keys:
        # A rotation that did not get as far as its new key: the one there is, is in use.
        active = next(iter(keys)) if len(keys) == 1 else ""
    connection = values.get("connection")
    return Ring(
        urn=urn,
        user=str(values.get("userName") or ""),
        keys=keys,
        active=active,
        connection=connection if isinstance(connection, Mapping) else {},
    )


def variables(applied: Mapping[str, Applied]) -> tuple[str, ...]:
    """The environment variables with the admin credentials by which what is in the state can be read and deleted."""
    return tuple(dict.fromkeys(name for store in applied.values() for name in _variables(store)))


def required_variables(store: Applied) -> tuple[str, ...]:
    """Those of one store that nothing of it can be deleted without."""
    optional = catalog.load(store.provider).optional_variables if store.provider in catalog.names() else ()
    return tuple(name for name in _variables(store) if name not in optional)


def _variables(store: Applied) -> Iterator[str]:
    named = store.connection.get("variables")
    yield from (str(name) for name in named) if isinstance(named, list) else ()
    if store.provider in catalog.names():
        yield from catalog.load(store.provider).admin_variables
