"""How a resource is described: dataclasses whose fields carry what the plugin and Pulumi need to know of them.

A field is made with `prop`. In Python its name is snake_case, on the wire camelCase.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Generic, TypeVar, Union, cast, get_args, get_origin, get_type_hints


class _Unknown:
    """A value that is only known once something was made."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""In a preview it stands where a value is not known yet, whatever the type of the field."""
UNKNOWN_ON_WIRE: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""The same in Pulumi's protocol, and in the engine's JSON: sdk/python/lib/pulumi/runtime/rpc.py."""
SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - it marks one
"""{SIGNATURE: SECRET, …} stands for a secret in the protocol, and in a state: fixed in the same file."""


def is_secret(value: object) -> bool:
    """Whether a value, as the protocol or a state has it, is marked as a secret."""
    return isinstance(value, Mapping) and value.get(SIGNATURE) == SECRET


T = TypeVar("T")
In = TypeVar("In")

_META: Final = "synapse-media"


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a field beside its name and type.

    Attributes:
        doc: for the reader of the schema: meaning, unit, what a missing one means.
        secret: never shown, and encrypted in the state.
        replaces: another value is another resource.
        transient: a changed value alone is no change: it is about one run, or earlier releases had none.
        drift: no program sets it; a refresh puts it among the inputs where the store has more than was asked for.
        choices: the values there are; (): any of the type.
        sparse: left out on the wire where it is empty.
        pending: while a state has it, the next `up` looks again though no input changed.
        former: its wire name in states of earlier releases; "" if it had no other.
    """

    doc: str
    secret: bool = False
    replaces: bool = False
    transient: bool = False
    drift: bool = False
    sparse: bool = False
    pending: bool = False
    choices: tuple[str, ...] = ()
    former: str = ""


def prop(
    doc: str,
    *,
    default: Any = MISSING,
    secret: bool = False,
    replaces: bool = False,
    transient: bool = False,
    drift: bool = False,
    sparse: bool = False,
    pending: bool = False,
    choices: Sequence[str] = (),
    former: str = "",
) -> Any:
    """A field of a description; without a default it is required. See Meta for the arguments."""
    meta = {_META: Meta(doc, secret, replaces, transient, drift, sparse, pending, tuple(choices), former)}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(kw_only=True)
class State(Generic[In]):
    """What the state holds of a resource: the inputs that it was made of, and what is described in a subclass.

    Not frozen: what was reached is noted step by step, and is what an error leaves in the state.
    """

    inputs: In


@dataclass(frozen=True, slots=True)
class Property:
    """A field, as the wire and the schema have it."""

    name: str
    wire: str
    type: Any
    meta: Meta
    required: bool
    default: Any

    @property
    def optional(self) -> bool:
        """Whether it may be None: left out on the wire."""
        return NoneType in get_args(self.type)


def properties(kind: type) -> tuple[Property, ...]:
    """The fields of a described dataclass; one of a state's that holds the inputs is left out."""
    return _properties(kind)


@cache
def _properties(kind: Hashable) -> tuple[Property, ...]:
    hints = get_type_hints(kind)
    return tuple(_property(item, hints[item.name]) for item in fields(cast("Any", kind)) if _META in item.metadata)


def _property(item: Field[Any], kind: Any) -> Property:
    meta: Meta = item.metadata[_META]
    required = item.default is MISSING and item.default_factory is MISSING
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    return Property(item.name, camel(item.name), kind, meta, required, None if required else default)


def camel(name: str) -> str:
    """`access_key_id` -> `accessKeyId`"""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


# ---- to and from the wire


class WireError(ValueError):
    """A value that is not of its type. The text names the property and what is allowed, never the value."""

    def __init__(self, name: str, allowed: str) -> None:
        super().__init__(f"{name}: allowed: {allowed}")
        self.name = name
        self.allowed = allowed


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """A described dataclass from wire values.

    A property that is missing or null has its default; a required one, the empty value of its type, since the state of
    an earlier release or of a half-made resource may lack it. `missing` says what a program left out.

    Raises:
        WireError: a value is of another type.
    """
    found = {
        one.name: _read(one.type, values.get(one.wire, values.get(one.meta.former)), one) for one in properties(kind)
    }
    return kind(**found)


def _read(kind: Any, value: Any, one: Property) -> Any:
    if value is None:
        return _empty(kind) if one.required else _copied(one.default)
    return _typed(kind, value, one.wire)


def _copied(value: Any) -> Any:
    return type(value)(value) if isinstance(value, (dict, list)) else value


def _empty(kind: Any) -> Any:
    origin = get_origin(kind) or kind
    if is_dataclass(origin):
        return read(cast("type[Any]", origin), {})
    return None if origin in (Union, UnionType) else origin()


_SIMPLE: Final = frozenset({str, bool, int, float})


def _typed(kind: Any, value: Any, name: str) -> Any:
    # Most values are of these types, and every call of the engine has all values of its resource.
    if value is UNKNOWN or (type(value) is kind and kind in _SIMPLE):
        return value
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        [some] = [one for one in get_args(kind) if one is not NoneType]
        return _typed(some, value, name)
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise WireError(name, "an object")
        return read(cast("type[Any]", kind), value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise WireError(name, "a list")
        return tuple(_typed(get_args(kind)[0], item, name) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise WireError(name, "an object")
        return {str(key): _typed(get_args(kind)[1], item, name) for key, item in value.items()}
    # A bool is an int to Python, and the wire has no integers.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise WireError(name, {str: "text", bool: "true or false", int: "a whole number", float: "a number"}[kind])
    return value


def write(values: Any) -> dict[str, Any]:
    """The wire values of a described dataclass, without what is None, and without what is empty and sparse or drift."""
    found: dict[str, Any] = {}
    for one in properties(type(values)):
        value = getattr(values, one.name)
        if value is None or ((one.meta.drift or one.meta.sparse) and not value):
            continue
        found[one.wire] = _written(value)
    return found


def _written(value: Any) -> Any:
    if value is UNKNOWN or type(value) in _SIMPLE:
        return value
    if is_dataclass(value):
        return write(value)
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(item) for item in value]
    return value


S = TypeVar("S", bound="State[Any]")


def read_state(kind: type[S], inputs: type, values: Mapping[str, Any]) -> S:
    """A resource's state from wire values, as `read`."""
    found = {one.name: _read(one.type, values.get(one.wire), one) for one in properties(kind)}
    return kind(inputs=read(inputs, values), **found)


def write_state(state: State[Any]) -> dict[str, Any]:
    """The wire values of a state: its inputs and what they were made into."""
    return {**write(state.inputs), **write(state)}


def unknown_state(kind: type[S], inputs: Any) -> S:
    """A state of which nothing but the inputs is known yet, as a preview has it."""
    found = {one.name: UNKNOWN for one in properties(kind) if not (one.optional or one.meta.drift)}
    return kind(inputs=inputs, **cast("dict[str, Any]", found))


def missing(kind: type, values: Mapping[str, Any]) -> list[str]:
    """Required properties that the values lack, or have empty; wire names, in order."""
    return sorted(one.wire for one in properties(kind) if one.required and values.get(one.wire) in (None, ""))
