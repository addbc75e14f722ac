"""The components as a package for programs in other languages: its schema, and the provider that serves it.

The schema is generated from the arguments' dataclasses: types, docstrings, and which values must be known when the
program runs (`plain`). The SDK's own analyzer (pulumi.provider.experimental) ignores defaults and docstrings of
inherited fields, and supports only Python enums.
https://www.pulumi.com/docs/iac/guides/building-extending/packages/schema/
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Awaitable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from importlib import import_module
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pulumi
from pulumi.errors import InputPropertiesError, InputPropertyErrorDetails
from pulumi.provider import ConstructResult, Provider, main

import synapse_media
from synapse_media import catalog
from synapse_media.allow import Word
from synapse_media.errors import Problem
from synapse_media.methods import METHODS

from .args import StoreArgs
from .store import PACKAGE, ArgumentsError, Store

_INTERNAL_FIELDS = ("from_stack_file",)
_SECRET = ("secret_access_key", "outputs")
_SCALARS = {str: "string", int: "integer", bool: "boolean"}
_ENUMS = {
    "access": ("Access", "What a key may do."),
    "allow": ("Allow", "What may pass a guard."),
    "method": ("Method", "How Synapse reaches its store."),
    "provider": ("Preset", "What is known of an S3-compatible store."),
}
"""Enum fields -> name and description of the type."""
_EMPTY_OPTIONS = ("ignore_changes", "protect", "replace_on_changes", "retain_on_delete")
"""Options that arrive as an empty list or False if they were left out."""


def names_in_schema(name: str) -> str:
    """A field's name in the schema, and so in every language but Python."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


@dataclass(slots=True)
class Schema:
    """The package's schema; `add` adds a component.

    Attributes:
        version: of the package.
        types: enums and object types by their tokens.
        resources: the components by their tokens.
    """

    version: str
    types: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)

    def add(self, component: type[Store[StoreArgs]], args: type[StoreArgs]) -> None:
        """Add a component with its arguments and outputs."""
        inputs = inputs_of(args)
        hints, docs = _hints(args), _docstrings(args)
        output_hints, output_docs = _hints(component), _docstrings(component)
        outputs = outputs_of(component)
        optional = [name for name in outputs if type(None) in get_args(output_hints[name])]
        self.resources[f"{PACKAGE}:index:{component.__name__}"] = {
            "isComponent": True,
            "description": _in_schema_names(f"{_text(args)}\n\n{_text(component)}", args),
            "inputProperties": {
                names_in_schema(item.name): {
                    **self._property(hints[item.name], item.name),
                    **_default(item),
                    "description": _in_schema_names(docs[item.name], args),
                }
                for item in inputs
            },
            "requiredInputs": sorted(names_in_schema(item.name) for item in inputs if _is_required(item)),
            "properties": {
                names_in_schema(name): {
                    **self._output(output_hints[name]),
                    "description": output_docs[name],
                    **({"secret": True} if name in _SECRET else {}),
                }
                for name in outputs
            },
            "required": sorted(names_in_schema(name) for name in outputs if name not in optional),
        }

    def to_json(self) -> str:
        """The schema as returned by `GetSchema`."""
        respecting = {"respectSchemaVersion": True}
        whole = {
            "name": PACKAGE,
            "displayName": PACKAGE,
            "description": "Object storage for the media of a Matrix homeserver: bucket, scoped key, proof.",
            "version": self.version,
            "language": {
                **dict.fromkeys(("csharp", "go", "java", "python"), respecting),
                # The default name would be `@pulumi/…`, as if it were Pulumi's own.
                "nodejs": {**respecting, "packageName": PACKAGE},
            },
            "types": self.types,
            "resources": self.resources,
        }
        return json.dumps(whole, indent=2)

    def _property(self, hint: Any, name: str) -> dict[str, Any]:
        value, later = _without_input(hint)
        plain = {} if later else {"plain": True}
        if (name in _ENUMS and value is str) or get_origin(value) is Literal:
            return {"$ref": self._enum(name), **plain}
        if value in _SCALARS:
            return {"type": _SCALARS[value], **plain}
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            return {"$ref": self._object(value), **plain}
        if issubclass(get_origin(value), Mapping):
            _, item = get_args(value)
            return {"type": "object", "additionalProperties": self._property(item, ""), **plain}
        if issubclass(get_origin(value), Collection):
            return {"type": "array", "items": self._property(get_args(value)[0], name), **plain}
        raise TypeError(f"{name}: {hint} can't be expressed in the schema")

    def _output(self, hint: Any) -> dict[str, Any]:
        (value,) = get_args(hint)
        if value in _SCALARS:
            return {"type": _SCALARS[value]}
        anything = {"$ref": "pulumi.json#/Any"}
        return anything if value is Any else {"type": "object", "additionalProperties": anything}

    def _enum(self, name: str) -> str:
        called, description = _ENUMS[name]
        token = f"{PACKAGE}:index:{called}"
        self.types[token] = {"type": "string", "description": description, "enum": _values(name)}
        return f"#/types/{token}"

    def _object(self, found: type) -> str:
        token = f"{PACKAGE}:index:{found.__name__}"
        hints, said = _hints(found), _docstrings(found)
        self.types[token] = {
            "type": "object",
            "description": _text(found),
            "properties": {
                names_in_schema(item.name): {
                    **self._property(hints[item.name], item.name),
                    **_default(item),
                    **({"description": said[item.name]} if item.name in said else {}),
                }
                for item in dataclasses.fields(found)
            },
            "required": [names_in_schema(item.name) for item in dataclasses.fields(found) if _is_required(item)],
        }
        return f"#/types/{token}"


class Components(Provider):
    """Makes components for programs in other languages."""

    def __init__(self) -> None:
        super().__init__(synapse_media.__version__)

    @property
    def schema(self) -> str | None:
        """Generated on request, since it loads every vendor's SDK; `pulumi up` does not request it."""
        found = Schema(synapse_media.__version__)
        for family in catalog.families():
            found.add(*_component(family.component_class))
        return found.to_json()

    @schema.setter
    def schema(self, value: str | None) -> None:
        """Set by the base class, to None."""

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: pulumi.Inputs,
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        """Make a component.

        Raises InputPropertiesError for an unknown or missing argument, pulumi.RunError as the component does.
        """
        component, args = _component(resource_type.rpartition(":")[2])
        try:
            made = component(name, arguments(args, inputs), own_options(options or pulumi.ResourceOptions()))
        except ArgumentsError as error:
            raise ArgumentsError([_with_schema_name(problem) for problem in error.problems]) from None
        return ConstructResult(
            made.urn, {names_in_schema(output): getattr(made, output) for output in outputs_of(component)}
        )


def _component(name: str) -> tuple[type[Store[StoreArgs]], type[StoreArgs]]:
    # Through the package, whose error names the extra to install if a vendor's SDK is missing.
    package = import_module(__package__)
    return getattr(package, name), getattr(package, f"{name}Args")


def inputs_of(args: type[StoreArgs]) -> list[dataclasses.Field[Any]]:
    """The fields that users set."""
    return [item for item in dataclasses.fields(args) if item.name not in _INTERNAL_FIELDS]


def outputs_of(component: type[Store[StoreArgs]]) -> list[str]:
    """The names of the attributes that are outputs."""
    return [name for name, hint in _hints(component).items() if get_origin(hint) is pulumi.Output]


def arguments(args: type[StoreArgs], inputs: pulumi.Inputs) -> StoreArgs:
    """The arguments, from inputs under their schema names.

    Raises InputPropertiesError with all unknown and missing ones.
    """
    takes = {names_in_schema(item.name): item for item in inputs_of(args)}
    wrong: list[InputPropertyErrorDetails] = [
        {"property_path": name, "reason": f"no such argument; there are {', '.join(sorted(takes))}"}
        for name in sorted(inputs.keys() - takes)
    ]
    wrong += [
        {"property_path": name, "reason": f"is needed: {_docstrings(args)[item.name]}"}
        for name, item in takes.items()
        if _is_required(item) and inputs.get(name) is None
    ]
    if wrong:
        raise InputPropertiesError("", wrong)
    hints = _hints(args)
    return args(
        **{
            item.name: _arrived(inputs[name], hints[item.name])
            for name, item in takes.items()
            if inputs.get(name) is not None
        }
    )


def own_options(options: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """A component's options as in Python, with None for those left out.

    So a bucket is protected unless `protect` is set to False.
    """
    for name in _EMPTY_OPTIONS:
        if not getattr(options, name):
            setattr(options, name, None)
    if options.parent is not None and not hasattr(options.parent, "_protect"):
        # It represents a resource of the program's process; Resource reads options left out here from it.
        vars(options.parent)["_protect"] = None
    return options


def serve() -> None:
    """Serve the package, as Pulumi starts it: the engine's address is the first argument."""
    main(Components(), sys.argv[1:])


def _arrived(value: Any, hint: Any) -> Any:
    """Convert a wire value, which has no integers and no classes, to Python."""
    wanted, _ = _without_input(hint)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if dataclasses.is_dataclass(wanted) and isinstance(value, Mapping):
        by_name = {names_in_schema(item.name): item.name for item in dataclasses.fields(wanted)}
        found: dict[str, Any] = {by_name[name]: item for name, item in value.items() if name in by_name}
        found = {name: tuple(item) if isinstance(item, list) else item for name, item in found.items()}
        if len(found) == len(value):
            made: Any = wanted
            return made(**found)
    return value


def _values(name: str) -> list[dict[str, Any]]:
    """The values of an enum."""
    if name == "method":
        titled = {method.name: method.title for method in METHODS.values() if method.uses_store}
        return [_value(value, title) for value, title in titled.items()]
    if name == "provider":
        entries = [catalog.load(entry) for entry in catalog.names()]
        return [_value(entry.name, entry.title) for entry in entries if entry.component == "s3_compatible"]
    named: Iterable[str] = Word if name == "allow" else get_args(_hints(StoreArgs)[name])
    return [_value(value) for value in named]


def _value(value: str, description: str = "") -> dict[str, Any]:
    called = "".join(word.capitalize() for word in re.split(r"[-_]", value))
    return {"name": called, "value": value, **({"description": description} if description else {})}


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _default(item: dataclasses.Field[Any]) -> dict[str, Any]:
    return {"default": item.default} if isinstance(item.default, (str, int)) and item.default else {}


def _without_input(hint: Any) -> tuple[Any, bool]:
    """The type of a field's value, and whether it may be an Output."""
    if get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    members = [member for member in get_args(hint) if member is not types.NoneType]
    (value,) = [member for member in members if get_origin(member) not in (pulumi.Output, Awaitable)]
    return value, len(members) > 1


def _hints(found: type) -> dict[str, Any]:
    # Pulumi's annotations use some of its types without their module.
    return get_type_hints(found, localns={**vars(pulumi), "T": Any})


def _docstrings(found: type) -> dict[str, str]:
    """The docstrings of a class's fields, including those of its bases."""
    result: dict[str, str] = {}
    for one in reversed(found.__mro__):
        if one.__module__.split(".")[0] in ("builtins", "pulumi", "typing"):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for statement, after in itertools.pairwise(statements):
            if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
                target, value = statement.target, after.value
                if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    result[target.id] = inspect.cleandoc(value.value)
    return result


def _in_schema_names(text: str, args: type[StoreArgs]) -> str:
    """A docstring with the names of arguments converted from Python's to the schema's."""
    names = {item.name for item in dataclasses.fields(args)}
    return re.sub(
        r"(?<=`)[a-z_0-9]+(?=`)", lambda found: names_in_schema(found[0]) if found[0] in names else found[0], text
    )


def _with_schema_name(problem: Problem) -> Problem:
    """A problem with the argument's schema name, which follows the component's name (any text)."""
    component, of_args, argument = problem.setting.rpartition("args.")
    return dataclasses.replace(problem, setting=f"{component}{of_args}{names_in_schema(argument)}")


def _text(found: type) -> str:
    return inspect.cleandoc(found.__doc__ or "")


if __name__ == "__main__":
    serve()
