"""The base class of the generated classes of the plugin's resources (`resources.py`)."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pulumi

from synapse_media.schema import resources as described
from synapse_media.schema.model import camel, properties

Args = TypeVar("Args")


def _wire(value: object) -> object:
    if is_dataclass(value):
        return _properties(value)
    if isinstance(value, (list, tuple)):
        return [_wire(item) for item in value]
    return value


def _properties(args: Any) -> dict[str, object]:
    found = {one.name: getattr(args, one.name) for one in fields(args)}
    return {camel(name): _wire(part) for name, part in found.items() if part is not None}


class Declared(pulumi.CustomResource, Generic[Args]):
    """A resource of the plugin, with arguments in a dataclass; subclasses annotate its outputs."""

    _described: described.ResourceType

    def __init__(self, name: str, args: Args, opts: pulumi.ResourceOptions | None = None) -> None:
        outputs = {one.wire: None for one in properties(self._described.state)}
        super().__init__(self._described.token, name, {**outputs, **_properties(args)}, opts)

    if not TYPE_CHECKING:  # it would have type checkers accept every name

        def __getattr__(self, name: str) -> Any:
            # Pulumi stores outputs under their wire names.
            if name.startswith("_"):
                raise AttributeError(name)
            return pulumi.get(self, camel(name))
