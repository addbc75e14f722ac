"""Pulumi's names of resources (URN), taken apart.

urn:pulumi:<stack>::<project>::<parent type$>…<type>::<name>, with the types of all parents, the outermost first:
https://www.pulumi.com/docs/iac/concepts/resources/names/#urns
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Urn:
    """A URN.

    Attributes:
        kind: the resource's type, such as `s3store:index:Bucket`.
        parents: the types of the components that it is part of, the outermost first.
        name: of the resource, as the program gives it; it may have "::" in it.
    """

    stack: str
    project: str
    parents: tuple[str, ...]
    kind: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Urn:
        """Take a URN apart. Raises ValueError for what is none."""
        head, *rest = text.split("::", 3)
        if len(rest) != 3 or not head.startswith("urn:pulumi:"):
            raise ValueError(f"{text!r} is no URN of Pulumi")
        project, types, name = rest
        *parents, kind = types.split("$")
        return cls(head.removeprefix("urn:pulumi:"), project, tuple(parents), kind, name)

    @property
    def of_parent(self) -> str:
        """The URN of the parent, if that has the resource's own name, as a component has that of its parts; "" for
        none."""
        if not self.parents:
            return ""
        return f"urn:pulumi:{self.stack}::{self.project}::{'$'.join(self.parents)}::{self.name}"


def short(kind: str) -> str:
    """A resource type without package and module, as it is shown: `Bucket` for `aws:s3/bucket:Bucket`."""
    return kind.rpartition(":")[2]
