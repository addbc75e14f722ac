"""What was last applied, a record per store, as the stack's state holds it.

The state is what `pulumi stack export` prints: https://www.pulumi.com/docs/iac/concepts/state-and-backends/
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from synapse_media import catalog
from synapse_media.schema.resources import PLUGIN, ComponentInput
from synapse_media.urn import Urn

_COMPONENTS: Final = "synapse-media:index:"
"""How the type of every component begins."""
_FORMER: Final = frozenset(catalog.load(name).component.replace("_", "") for name in catalog.names())
"""Releases before 2026-12 called them `<project>:store:AmazonS3`; the last part in lower case."""
OURS: Final = f"{PLUGIN}:index:"
RING: Final = "KeyRing"
PROOF: Final = f"{OURS}Proof"
EXISTING_KEY: Final = f"{OURS}ExistingKey"
_USERS: Final = (f"{OURS}User", "aws:iam/user:User", "aws:iam/role:Role")


def is_bucket(kind: str) -> bool:
    """Whether a resource type is a bucket: ours and the vendors' all end in it, and nothing else does."""
    return kind.endswith("Bucket")


def is_component(kind: str) -> bool:
    """Whether a resource type is that of one of our components."""
    if kind.startswith(_COMPONENTS):
        return True
    _, module, name = kind.split(":") if kind.count(":") == 2 else ("", "", "")
    return module == "store" and name.lower() in _FORMER


def is_ours(urn: str) -> bool:
    """Whether a resource is part of a store, or is made by our plugin: a program may have others beside those."""
    parent = Urn.parse(urn).of_parent
    return Urn.parse(urn).kind.startswith(OURS) or bool(parent and is_component(Urn.parse(parent).kind))


class Homeservers:
    """Whose store a resource is part of.

    A component that a program declares says it in an input (ComponentInput); a stack file's has that very name.
    Whatever is part of none is known by its own name.
    """

    def __init__(self, resources: Iterable[Mapping[str, Any]]) -> None:
        """
        Args:
            resources: of a state, or the states of a preview's steps.
        """
        self._declared = {
            str(one["urn"]): str(name)
            for one in resources
            if is_component(Urn.parse(one["urn"]).kind)
            and (name := (one.get("inputs") or {}).get(ComponentInput.SERVER_NAME))
        }

    @classmethod
    def of_steps(cls, steps: Iterable[Mapping[str, Any]], resources: Iterable[Mapping[str, Any]] = ()) -> Homeservers:
        """
        Args:
            resources: of the state before. A preview that was refused a deletion leaves out the steps that come after.
        """
        states = (step.get(state) for step in steps for state in ("oldState", "newState"))
        return cls([*resources, *(state for state in states if state and state.get("urn"))])

    @property
    def declared(self) -> frozenset[str]:
        """Those whose store a program declares."""
        return frozenset(self._declared.values())

    def of(self, urn: str, parent: str = "") -> str:
        """
        Args:
            parent: the parent's URN, where it is known. A run that was cut off while it renamed a homeserver leaves
                parts that have the former name yet; their parent has the new one.
        """
        if is_component(Urn.parse(urn).kind):
            component = urn
        elif parent and is_component(Urn.parse(parent).kind):
            component = parent
        else:
            component = Urn.parse(urn).of_parent
        return self._declared.get(component) or Urn.parse(component or urn).name

    def of_resource(self, resource: Mapping[str, Any]) -> str:
        """Of a resource of a state."""
        return self.of(str(resource["urn"]), str(resource.get("parent") or ""))

    def is_declared(self, component: str) -> bool:
        """Whether a program declares the component of this URN, and no stack file."""
        return component in self._declared


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
        return not self.kind.startswith(OURS)


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
        user_takes_keys: the user's deletion deletes every key it has, whoever made it (`forceDestroy`).
        iam_endpoint: where that user is.
        policies: the documents of the user's or the role's policies, as JSON.
        ending_keys: access key IDs of a ring that was replaced, and whose deletion is still to come.
        has_key: there is a key that the store did not issue here (`existing_key`).
        declared: a program of the user's own declares it, and no stack file.
    """

    server_name: str
    place: Place | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    method: str = ""
    buckets: tuple[Bucket, ...] = ()
    ring: Ring | None = None
    user: str = ""
    user_takes_keys: bool = False
    iam_endpoint: str = ""
    policies: tuple[str, ...] = ()
    ending_keys: tuple[str, ...] = ()
    has_key: bool = False
    declared: bool = False
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def retiring_key(self, slot: str) -> str:
        """The ID of a slot's key that is being retired, and may not become the active one again; "" for any other.

        The key that was last handed out may: a run that was to replace it was interrupted.
        """
        ring = self.ring
        if ring is None or not ring.active or slot == ring.active:
            return ""
        key = ring.keys.get(slot, "")
        return "" if key == str(self.outputs.get("access_key_id") or "") else key

    @property
    def provider(self) -> str:
        """The provider's name in the catalog; "" where the state does not tell."""
        return self.place.provider if self.place else ""


def former_name(inputs: Mapping[str, Any]) -> str:
    """The former name of a homeserver that is renamed, by the inputs of its proof; "" for none."""
    return str(inputs.get("formerOwner") or "").rpartition("/")[2]


def keyless_place(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a store without a key is that a program declares, named as in a proof's inputs, by those of its component.

    {} of every other store: its proof says it.
    """
    place = inputs.get(ComponentInput.KEYLESS_PLACE)
    return place if isinstance(place, Mapping) else {}


def resources_of(export: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The resources in a state.

    Args:
        export: what `pulumi stack export` prints.
    """
    found: list[dict[str, Any]] = export.get("deployment", {}).get("resources") or []
    return found


def read(export: Mapping[str, Any]) -> dict[str, Applied]:
    """The record of every store in a state, by homeserver.

    Args:
        export: what `pulumi stack export` prints.
    """
    found = {}
    resources = [one for one in resources_of(export) if one.get("type")]
    homeservers = Homeservers(resources)
    parts: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    finished: dict[str, Mapping[str, Any]] = {}
    for resource in resources:
        kind, parent = str(resource["type"]), str(resource.get("parent") or "")
        if kind == "pulumi:pulumi:Stack":
            stores = (resource.get("outputs") or {}).get("stores")
            for name, outputs in (stores if isinstance(stores, Mapping) else {}).items():
                if isinstance(outputs, Mapping):
                    finished.setdefault(str(name), outputs)
        elif is_component(kind):
            # Registered when the store was finished, whatever became of the others.
            outputs = (resource.get("outputs") or {}).get("outputs")
            if isinstance(outputs, Mapping):
                finished[homeservers.of_resource(resource)] = outputs
        elif not kind.startswith("pulumi:") and parent and is_component(Urn.parse(parent).kind):
            store = homeservers.of_resource(resource), homeservers.is_declared(parent)
            parts.setdefault(store, []).append(resource)
    # A stack file's last: where a program declares a store of the same homeserver, it is the one that is judged.
    for (name, declared), own in sorted(parts.items(), key=lambda item: (not item[0][1], item[0][0])):
        # By its former name, where a run that renames it was cut off.
        known = (name, *(Urn.parse(resource["urn"]).name for resource in own))
        outputs = next((finished[one] for one in known if one in finished), {})
        found[name] = replace(_applied(name, own, outputs), declared=declared)
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
        elif kind == EXISTING_KEY:
            found["has_key"] = True
        elif kind in _USERS:
            found["user"] = str(values.get("userName") or values.get("name") or "")
            found["user_takes_keys"] = values.get("forceDestroy") is True
        elif kind.endswith(("UserPolicy", "RolePolicy")):
            document = (resource.get("inputs") or {}).get("policy")
            found["policies"] = (*found.get("policies", ()), str(document or ""))
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
