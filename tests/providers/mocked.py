"""What the program declares, without an engine: pulumi's own mocks, asked for every resource."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, set_mocks, test

from components import make
from synapse_media import settings

with warnings.catch_warnings():
    # The vendor's SDK warns of its own deprecated classes when it is first used; of those we use it would warn later.
    warnings.simplefilter("ignore", DeprecationWarning)
    assert aws.s3.Bucket
    assert aws.iam.User
    import_module("pulumi_digitalocean")


@dataclass(slots=True)
class Declared(Mocks):
    """Every resource as it was declared: (type, name, inputs). Each "is made" at once, a key ring with a key."""

    resources: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.resources.append((args.typ, args.name, dict(args.inputs)))
        made = dict(args.inputs)
        if args.typ.endswith("KeyRing"):
            slot = made["active"]
            made["keys"] = {slot: {"accessKeyId": "AKIDMADE", "createdAt": "2026-11-23T12:00:00+00:00"}}
            made |= {"accessKeyId": "AKIDMADE", "secretAccessKey": "made-secret"}
        return f"{args.name}-id", made

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"no function is called: {args.token}")

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Inputs of every resource whose type ends in `kind`."""
        return [inputs for found, _, inputs in self.resources if found.rpartition(":")[2] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (inputs,) = self.of(kind)
        return inputs

    @property
    def kinds(self) -> list[str]:
        """Types of what is made, without components and providers."""
        return [kind for kind, _, _ in self.resources if not kind.startswith(("pulumi:", "synapse-media:"))]


def declare(stores: Mapping[str, Any], allow: Iterable[str] = (), *, preview: bool = False) -> Declared:
    """Run the program on a stack file's `stores` and `allow`."""
    parsed = settings.parse(dict(stores), list(allow))
    recorder = Declared()
    set_mocks(recorder, project="synapse-media", stack="mocked", preview=preview)

    @test  # type: ignore[untyped-decorator]
    def program() -> pulumi.Output[Any]:
        made = pulumi.Output.from_input({name: make(store) for name, store in parsed.items()})
        return made.apply(recorder.outputs.update)

    program()
    return recorder
