"""The interface of the plugin's resources, independent of the gRPC protocol.

`protocol.py` passes wire values (`Resource`); our resources work on the types of `synapse_media.schema`
(`SchemaResource`). A value that is unknown during a preview is `UNKNOWN`.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, cast

from synapse_media import catalog
from synapse_media.errors import StoreError
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN, State, WireError
from synapse_media.schema.resources import ResourceType
from synapse_media.urn import Urn

Values = dict[str, Any]
In = TypeVar("In")
S = TypeVar("S", bound=State[Any])


class PartialError(StoreError):
    """Partially created: what exists goes into the state, and the next `up` completes it by an update."""

    def __init__(self, reason: str, resource_id: str, state: State[Any] | Values) -> None:
        super().__init__(reason)
        self.resource_id = resource_id
        self._state = state

    @property
    def outputs(self) -> Values:
        """The wire values of the partial state, with changes made to it after this was raised."""
        return model.write_state(self._state) if isinstance(self._state, State) else self._state


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a read: `inputs` include any drift, so that a diff against the program shows it."""

    resource_id: str
    inputs: Values
    outputs: Values


@dataclass(frozen=True, slots=True)
class Context:
    """The context of a call.

    Attributes:
        warn: shows a warning to the user at this resource.
        note: shows what is no warning while this resource is made, and not again at the end of the run.
        inputs: for a delete: the inputs of the last `up`, even if it changed nothing; `outputs` are of the last change.
        urn: the resource's URN.
    """

    warn: Callable[[str], None]
    inputs: Values = field(default_factory=dict)
    urn: str = ""
    note: Callable[[str], None] = lambda _: None


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
        replace_on: inputs whose change replaces the resource.
        required: inputs that must be given.
        passing: inputs whose change alone causes no update: they concern one run, or earlier releases lack them.
        one_of_a_name: the id is its name at the store, and `create` takes over an existing one of ours.
    """

    pulumi_type: ClassVar[str]
    secrets: ClassVar[frozenset[str]] = frozenset()
    replace_on: ClassVar[frozenset[str]] = frozenset()
    required: ClassVar[frozenset[str]] = frozenset()
    passing: ClassVar[frozenset[str]] = frozenset()
    one_of_a_name: ClassVar[bool] = False

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        """The inputs in canonical form with defaults, and {input: what is wrong with it}."""
        failures = {name: "is missing" for name in sorted(self.required) if inputs.get(name) in (None, "")}
        return inputs, failures

    def diff(self, old: Values, new: Values) -> Diff:
        """The difference between the inputs in the state (including drift) and those of the program."""
        names = sorted((set(old) | set(new)) - self.passing)
        changed = tuple(name for name in names if not _same(old.get(name), new.get(name)))
        return Diff(
            changed=changed,
            # In a preview, a value that is not known yet may be the one that there is: calling that a replacement would
            # make the engine refuse every run in which a resource that gives the name changes. At apply each value is
            # known, and a real change replaces.
            replaced=tuple(name for name in changed if name in self.replace_on and new.get(name) is not UNKNOWN),
            deleted=frozenset(name for name in changed if new.get(name) is None),
            added=frozenset(name for name in changed if old.get(name) is None),
        )

    def unsettled(self, outputs: Values, inputs: Values) -> tuple[str, ...]:
        """Outputs that require an update by the next `up` although no input changed.

        Args:
            inputs: those of the program.
        """
        return ()

    @abstractmethod
    def planned(self, inputs: Values, old: Values | None) -> Values:
        """The outputs for a preview: those that follow from the inputs, the rest `UNKNOWN`. Makes no call."""

    @abstractmethod
    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        """Create it; the id and the outputs. Raises PartialError once anything exists that the state must record."""

    @abstractmethod
    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        """The actual values; None only if the store reports that it is gone. Empty inputs: an import."""

    @abstractmethod
    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        """Update it to the inputs, from outputs `old`, which may be those of a partially created resource."""

    @abstractmethod
    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        """Delete it. Succeeds if it does not exist."""


def _same(old: Any, new: Any) -> bool:
    if old is UNKNOWN or new is UNKNOWN:
        return False
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return set(old) == set(new) and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)


class SchemaResource(Resource, Generic[In, S]):
    """A resource with typed inputs `In` and state `S`.

    Class attributes:
        described: its description in the schema.
        not_imported: why it can't be imported, and what to do instead.
    """

    described: ClassVar[ResourceType]
    not_imported: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "described" not in cls.__dict__:
            return
        inputs = model.properties(cls.described.inputs)
        everything = (*inputs, *model.properties(cls.described.state))
        cls.pulumi_type = cls.described.token
        cls.secrets = frozenset(one.wire for one in everything if one.meta.secret)
        cls.replace_on = frozenset(one.wire for one in inputs if one.meta.replaces)
        cls.required = frozenset(one.wire for one in inputs if one.required)
        cls.passing = frozenset(one.wire for one in inputs if one.meta.transient)
        cls.one_of_a_name = cls.described.one_of_a_name

    # ---- on typed values

    def checked(self, inputs: In) -> tuple[In, dict[str, str]]:
        """The inputs in canonical form, and {name on the wire: what is wrong with it}. Any of them may be UNKNOWN."""
        return inputs, {}

    def foreseen(self, inputs: In, old: S | None) -> S:
        """The state that a preview expects, with UNKNOWN for unknown values, in the inputs too. Makes no call."""
        return cast("S", model.unknown_state(self.described.state, inputs))

    @abstractmethod
    def make(self, inputs: In, context: Context) -> tuple[str, S]:
        """Create it; the ID and the state. Raises PartialError once anything exists that the state must record."""

    def imported(self, resource_id: str) -> tuple[In, S]:
        """The inputs and state to read an imported resource with. Raises StoreError if it can't be imported."""
        raise StoreError(self.not_imported)

    @abstractmethod
    def find(self, resource_id: str, inputs: In, state: S, context: Context) -> tuple[str, In, S] | None:
        """The actual ID, inputs (including drift) and state.

        None only if the store reports that it is gone.
        """

    @abstractmethod
    def change(self, resource_id: str, old: S, inputs: In, context: Context) -> S:
        """Update it to the inputs, from a state that may be that of a partially created resource."""

    @abstractmethod
    def remove(self, resource_id: str, state: S, last: In, context: Context) -> None:
        """Delete it. Succeeds if it does not exist.

        Args:
            last: the inputs of the last `up`, even if it changed nothing; those in the state are of the last change.
        """

    # ---- on the wire

    def read_inputs(self, values: Mapping[str, Any]) -> In:
        """Inputs from wire values. Raises StoreError for a value of the wrong type."""
        try:
            return cast("In", model.read(self.described.inputs, values))
        except WireError as error:
            raise StoreError(str(error)) from None

    def read_state(self, values: Mapping[str, Any]) -> S:
        """A state from wire values. Raises StoreError for a value of the wrong type."""
        try:
            return cast("S", model.read_state(self.described.state, self.described.inputs, values))
        except WireError as error:
            raise StoreError(str(error)) from None

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        described = model.properties(self.described.inputs)
        failures = dict.fromkeys(model.missing(self.described.inputs, inputs), "is missing")
        known = {one.wire for one in described} | {one.wire for one in model.properties(self.described.state)}
        for name in sorted(set(inputs) - known):
            if inputs[name] is not None:
                failures[name] = f"is not an input; allowed: {', '.join(sorted(one.wire for one in described))}"
        try:
            typed = cast("In", model.read(self.described.inputs, inputs))
        except WireError as error:
            return inputs, {error.name: f"allowed: {error.allowed}", **failures}
        for one in described:
            value = inputs.get(one.wire)
            if one.meta.choices and value is not None and value is not UNKNOWN and value not in one.meta.choices:
                failures[one.wire] = f"allowed: {', '.join(filter(None, one.meta.choices))}"
        typed, faults = self.checked(typed)
        return model.write(typed), {**faults, **failures}

    def diff(self, old: Values, new: Values) -> Diff:
        # An input that is missing in a state of an earlier release has its default.
        complete = [model.write(self.read_inputs(values)) for values in (old, new)]
        return super().diff(*complete)

    def unsettled(self, outputs: Values, inputs: Values) -> tuple[str, ...]:
        described = model.properties(self.described.state)
        return tuple(one.wire for one in described if one.meta.pending and outputs.get(one.wire))

    def planned(self, inputs: Values, old: Values | None) -> Values:
        before = None if old is None else self.read_state(old)
        return model.write_state(self.foreseen(self.read_inputs(inputs), before))

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        resource_id, state = self.make(self.read_inputs(inputs), context)
        return resource_id, model.write_state(state)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if inputs:
            typed, state = self.read_inputs(inputs), self.read_state(outputs)
        else:
            typed, state = self.imported(resource_id)
        found = self.find(resource_id, typed, state, context)
        if found is None:
            return None
        resource_id, typed, state = found
        return Found(resource_id, model.write(typed), model.write_state(state))

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        return model.write_state(self.change(resource_id, self.read_state(old), self.read_inputs(inputs), context))

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        self.remove(resource_id, self.read_state(outputs), self.read_inputs(context.inputs), context)


def forgetting(urn: str) -> str:
    """The shell line that takes a resource out of the state and leaves it at the store."""
    stack = Urn.parse(urn).stack
    return f'eval "$(synapse-media env)"; pulumi state delete {shlex.quote(urn)} --stack {stack}'


def import_id(resource_id: str) -> tuple[str, Connection]:
    """The parts of an import ID, `NAME@ENDPOINT`: an import has no other source for the endpoint."""
    name, at, endpoint = resource_id.rpartition("@")
    if not name or not at or "://" not in endpoint:
        raise StoreError(
            f"import id {resource_id!r} is not NAME@ENDPOINT, for example media@https://s3.example.com "
            "(an IAM endpoint for users and policies)"
        )
    # The provider is unknown, so the credential is read from the variables of s3_compatible.
    variables = catalog.load("s3_compatible").admin_variables
    return name, Connection(endpoint=endpoint, region="us-east-1", iam_endpoint=endpoint, variables=variables)
