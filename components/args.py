"""Typed arguments of the components: the settings that stores at all providers have.

Names, defaults, limits and messages are those of a stack file (docs/providers/). A field of type `pulumi.Input` accepts
an output of another resource. The others decide which resources are created, so they must be known when the program
runs, and refuse an Output.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final, get_args, get_type_hints

import pulumi

from synapse_media.allow import Word
from synapse_media.errors import Described, Problem, a_value_of
from synapse_media.methods import Access, MethodName
from synapse_media.settings import LATER, Keys

__all__ = ("IamStoreArgs", "Keys", "StoreArgs")


@dataclass(frozen=True, kw_only=True)
class StoreArgs:
    """A homeserver's store at any provider."""

    server_name: str
    """The homeserver, such as `example.com`: part of the ownership marks on its resources."""

    bucket: pulumi.Input[str]
    """The name of the bucket: 3 to 63 characters a-z, 0-9 and '-'."""

    method: MethodName = "synapse-s3-storage-provider"
    """How Synapse reaches the store: `synapse-s3-storage-provider`, `goofys` or `matrix-media-repo`. The key's
    permissions follow from it."""

    access: Access = "least"
    """What the key may do: `least`, what the method needs; `full`, everything in the bucket."""

    region: pulumi.Input[str] | None = None
    """The region as used in signatures. Default: that of the provider, if it has one."""

    endpoint: pulumi.Input[str] | None = None
    """URL of the S3 API: scheme, host and optionally a port. Default: the provider's for the region."""

    prefix: pulumi.Input[str] | None = None
    """Prefix of all objects, such as `media/`; for the method `synapse-s3-storage-provider`. Default: none."""

    storage_class: str = "STANDARD"
    """The storage class of new objects."""

    user: pulumi.Input[str] | None = None
    """Name of Synapse's user, or of its keys. Default: `synapse-media-<bucket>`."""

    keys: Keys = field(default_factory=Keys)
    """The slot of the active key, and those of keys that are kept until Synapse uses it."""

    adopt: bool = False
    """True: adopt an existing bucket without changing its settings."""

    noncurrent_days: int | None = None
    """Days for which an overwritten or deleted version is kept, 1 to 3650. Default: 30 (Backblaze B2: 1). Refused where
    the provider keeps no versions or has no lifecycle rules (Garage, Storj). With `adopt`, it takes effect only once
    `allow` has `set-lifecycle` or `own-bucket`."""

    abort_days: int | None = None
    """Days after which an upload that was never completed is removed, 1 to 365. Default: 7. Refused where the provider
    has no lifecycle rules (Storj). With `adopt`, as `noncurrent_days`."""

    media_repo: Mapping[str, str] = field(default_factory=dict)
    """With the method `matrix-media-repo`: `s3_datastore_id`, and `file_datastore_id` while it has old media."""

    renamed_from: str | None = None
    """The homeserver's former name, if its store was created under it."""

    allow: Collection[str] = ()
    """Dangerous changes to permit, such as `delete-bucket`: entries of synapse_media.allow."""

    from_stack_file: bool = False
    """Whether the arguments are from a stack file, so that the commands use it as the wanted state; set by `make`."""

    def raw(self) -> tuple[dict[str, Any], dict[str, pulumi.Output[Any]], list[Problem]]:
        """The settings as a stack file would have them, with LATER for what is not known yet; that, by its name; and a
        problem, without its place, for each argument that has to be known and is not."""
        known: dict[str, Any] = {}
        later: dict[str, pulumi.Output[Any]] = {}
        problems = []
        arguments: type = type(self)
        types = _types_of(arguments)
        for item in fields(self):
            value = getattr(self, item.name)
            # False is the default of every flag. A stack file leaves it out, and some flags are refused if set.
            if item.name in ("server_name", "allow", "from_stack_file") or value is None or value is False:
                if not is_known(value):
                    problems.append(_must_be_known(item.name))
            elif is_known(value):
                known[item.name] = _plain(value)
            else:
                known[item.name] = LATER
                if _takes_outputs(types[item.name]):
                    later[item.name] = pulumi.Output.from_input(value)
                else:
                    problems.append(_must_be_known(item.name))
        return known, later, [*problems, *self._of_other_types({problem.setting for problem in problems})]

    def _of_other_types(self, reported: Collection[str]) -> list[Problem]:
        """Problems of arguments that have the wrong type. `reported`: the arguments that have a problem already."""
        problems = []
        if "server_name" not in reported and not isinstance(self.server_name, str):
            value = Described(a_value_of(self.server_name))
            problems.append(
                Problem("server_name", value, "a host name such as matrix.example.com", "Write it as a string.")
            )
        if "from_stack_file" not in reported and not isinstance(self.from_stack_file, bool):
            value = Described(a_value_of(self.from_stack_file))
            problems.append(Problem("from_stack_file", value, "true or false", "Leave it out: `make` sets it."))
        words = self.allow
        listed = isinstance(words, Collection) and not isinstance(words, (str, bytes, Mapping))
        if "allow" not in reported and not (listed and all(isinstance(word, str) for word in words)):
            shown = words if isinstance(words, (str, list, tuple)) else Described(a_value_of(words))
            allowed = f"a list of {', '.join(Word)}"
            problems.append(Problem("allow", shown, allowed, 'Write it as a list of strings: ["delete-bucket"].'))
        return problems


@dataclass(frozen=True, kw_only=True)
class IamStoreArgs(StoreArgs):
    """A store with users and keys of an IAM-style API."""

    iam_endpoint: pulumi.Input[str] | None = None
    """URL of the IAM-style API for the user and its keys. Default: the provider's, if it has one."""

    adopt_key: str | None = None
    """With `adopt`: access key ID of a key of the adopted user to continue with. The environment variable
    SYNAPSE_MEDIA_ADOPTED_SECRET has its secret."""


@cache
def _types_of(arguments: Hashable) -> dict[str, Any]:
    """The types of a class's arguments; to work them out takes longer than all that is asked of one store's."""
    # What `pulumi.Input` names without its module.
    return get_type_hints(arguments, localns={"Output": pulumi.Output, "T": Any})


def is_known(value: object) -> bool:
    """Whether a value, with everything in it, is known now."""
    return not any(isinstance(item, pulumi.Output) or inspect.isawaitable(item) for item in _all_in(value))


def _all_in(value: object) -> Iterator[object]:
    yield value
    if isinstance(value, Keys):
        value = (value.active, value.retiring)
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, _SEVERAL):
        for item in value:
            yield from _all_in(item)


_SEVERAL: Final = (list, tuple, set, frozenset)


def _plain(value: object) -> object:
    if isinstance(value, Keys):
        retiring = value.retiring
        return {"active": value.active, "retiring": list(retiring) if isinstance(retiring, _SEVERAL) else retiring}
    return dict(value) if isinstance(value, Mapping) else value


def _takes_outputs(hint: Any) -> bool:
    """Whether a field's type is `pulumi.Input` of something."""
    return any(getattr(one, "__origin__", one) is pulumi.Output for one in get_args(hint))


def _must_be_known(name: str) -> Problem:
    return Problem(
        name,
        Described("a pulumi.Output"),
        "a value that is known when the program runs",
        "It decides which resources are made, so no other resource can give it: write the value itself.",
    )
