"""What a resource of this plugin is, without a word of the protocol.

Inputs and outputs are plain JSON values; an input that is not known yet (preview) is `UNKNOWN`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from synapse_media.errors import StoreError

Values = dict[str, Any]


class _Unknown:
    """A value that is only known once something was made."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()


class PartialError(StoreError):
    """Made, but not finished: what exists goes into state, and the next `up` finishes it by an update."""

    def __init__(self, reason: str, resource_id: str, outputs: Values) -> None:
        super().__init__(reason)
        self.resource_id = resource_id
        self.outputs = outputs


@dataclass(frozen=True, slots=True)
class Found:
    """What a read found: `inputs` with any drift in them, so that a diff against the program shows it."""

    resource_id: str
    inputs: Values
    outputs: Values


@dataclass(frozen=True, slots=True)
class Context:
    """What a call may need beside its values.

    Attributes:
        warn: says something to the user, at this resource, without failing.
        inputs: of a delete: those of the last `up`, also where it changed nothing; `outputs` are of the last change.
    """

    warn: Callable[[str], None]
    inputs: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diff:
    """`changed` and `replaced` are input names; a name in `replaced` is in `changed` too."""

    changed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    deleted: frozenset[str] = field(default_factory=frozenset)
    added: frozenset[str] = field(default_factory=frozenset)


class Resource(ABC):
    """One resource type.

    Class attributes:
        pulumi_type: the type, `s3store:index:Bucket`.
        secrets: names of outputs and inputs that are secret, wherever they appear.
        replace_on: inputs whose change makes another resource.
        required: inputs that must be there.
        passing: inputs that are no change by themselves: they are about one run, or an earlier release had none.
        one_of_a_name: the id is its name at the store, and `create` takes over what has it and is ours.
    """

    pulumi_type: ClassVar[str]
    secrets: ClassVar[frozenset[str]] = frozenset()
    replace_on: ClassVar[frozenset[str]] = frozenset()
    required: ClassVar[frozenset[str]] = frozenset()
    passing: ClassVar[frozenset[str]] = frozenset()
    one_of_a_name: ClassVar[bool] = False

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        """The inputs with defaults filled in and in canonical form, and {input: what is wrong with it}."""
        failures = {name: "is missing" for name in sorted(self.required) if inputs.get(name) in (None, "")}
        return inputs, failures

    def diff(self, old: Values, new: Values) -> Diff:
        """What changed between the inputs in state (drift included) and the program's."""
        names = sorted((set(old) | set(new)) - self.passing)
        changed = tuple(name for name in names if not _same(old.get(name), new.get(name)))
        return Diff(
            changed=changed,
            replaced=tuple(name for name in changed if name in self.replace_on),
            deleted=frozenset(name for name in changed if new.get(name) is None),
            added=frozenset(name for name in changed if old.get(name) is None),
        )

    def unsettled(self, outputs: Values) -> tuple[str, ...]:
        """Outputs for whose sake the next `up` has to look again, though no input changed."""
        return ()

    @abstractmethod
    def planned(self, inputs: Values, old: Values | None) -> Values:
        """Outputs of a preview: what follows from the inputs is known, the rest `UNKNOWN`. No call is made."""

    @abstractmethod
    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        """Make it; the id and the outputs. Raises PartialError once anything exists that state must know."""

    @abstractmethod
    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        """How it is now; None only where the store says that it is gone. Empty inputs: an import."""

    @abstractmethod
    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        """Make it as the inputs say, from outputs `old`, which may be those of a half-made resource."""

    @abstractmethod
    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        """Delete it; already gone is done."""


def _same(old: Any, new: Any) -> bool:
    if old is UNKNOWN or new is UNKNOWN:
        return False
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return set(old) == set(new) and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)


def text(values: Mapping[str, Any], name: str, default: str = "") -> str:
    """A string among the values, `default` where it is missing."""
    value = values.get(name)
    return value if isinstance(value, str) else default
