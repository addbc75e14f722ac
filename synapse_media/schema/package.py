"""The Pulumi package schema of the plugin, from the descriptions of its resources.

https://www.pulumi.com/docs/iac/extending-pulumi/schema/
"""

from __future__ import annotations

from dataclasses import is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from . import model
from .resources import PLUGIN, RESOURCES, ResourceType

Json = dict[str, Any]

_SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number"}


def package(version: str) -> Json:
    """The schema that `GetSchema` answers, as JSON."""
    types: Json = {}
    return {
        "name": PLUGIN,
        "displayName": "synapse-media",
        "version": version,
        "description": "Object storage for a Matrix homeserver's media: buckets, keys and their proof.",
        "keywords": ["category/infrastructure", "kind/native", "matrix", "synapse", "s3"],
        "types": types,
        "resources": {kind.token: _resource(kind, types) for kind in RESOURCES},
        "language": {"python": {"pyproject": {"enabled": True}}},
    }


def _resource(kind: ResourceType, types: Json) -> Json:
    inputs = [one for one in model.properties(kind.inputs) if not one.meta.drift]
    outputs = [*inputs, *model.properties(kind.state)]
    return {
        "description": kind.doc,
        "inputProperties": {one.wire: _property(one, types, kind.name) for one in inputs},
        "requiredInputs": [one.wire for one in inputs if one.required],
        "properties": {one.wire: _property(one, types, kind.name) for one in outputs},
        "required": [one.wire for one in outputs if not (one.optional or one.meta.drift)],
    }


def _property(one: model.Property, types: Json, of: str) -> Json:
    found: Json = {**_type(one, one.type, types, of), "description": one.meta.doc}
    if one.meta.secret:
        found["secret"] = True
    if one.meta.replaces:
        found["willReplaceOnChanges"] = True
    if isinstance(one.default, (str, bool, int, float)) and one.default != "":
        found["default"] = one.default
    return found


def _type(one: model.Property, kind: Any, types: Json, of: str) -> Json:
    origin, arguments = get_origin(kind), get_args(kind)
    if NoneType in arguments:
        return _type(one, next(some for some in arguments if some is not NoneType), types, of)
    if origin is tuple:
        return {"type": "array", "items": _type(one, arguments[0], types, of)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(one, arguments[1], types, of)}
    if is_dataclass(kind):
        return {"$ref": f"#/types/{_object(kind, types)}"}
    if one.meta.choices:
        return {"type": "string", "$ref": f"#/types/{_enum(one, types, of)}"}
    return {"type": _SCALARS[kind]}


def _object(kind: Any, types: Json) -> str:
    token = f"{PLUGIN}:index:{kind.__name__}"
    if token not in types:
        fields = model.properties(kind)
        types[token] = {
            "type": "object",
            "description": (kind.__doc__ or "").partition("\n")[0],
            "properties": {one.wire: _property(one, types, kind.__name__) for one in fields},
            "required": [one.wire for one in fields if one.required],
        }
    return token


def _enum(one: model.Property, types: Json, of: str) -> str:
    token = f"{PLUGIN}:index:{of}{one.wire[0].upper()}{one.wire[1:]}"
    types[token] = {"type": "string", "enum": [{"value": value} for value in one.meta.choices]}
    return token
