"""The provider families of the plugin: one module each, named by the catalog and imported on first use.

The rest of the plugin and the commands access a module only through its `FAMILY`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from synapse_media import catalog
from synapse_media.errors import StoreError

if TYPE_CHECKING:
    from synapse_media.schema.connection import AdminCheck

    from .proof import ProofAdministrator
    from .resource import Resource


@dataclass(frozen=True, slots=True)
class Family:
    """The plugin's support for the providers of one family.

    Attributes:
        resources: the resource types of this family alone.
        proof_administrator: creates decoys for a proof and cleans up after it.
        check_admin: raises StoreError if the store rejects the admin credential in the environment.
    """

    resources: tuple[Resource, ...]
    proof_administrator: ProofAdministrator
    check_admin: Callable[[AdminCheck], None]


def load(component: str) -> Family:
    """The family of a catalog entry's component."""
    return _family(catalog.load(component).plugin)


def every() -> Iterator[Family]:
    """All families. Each module is imported when the iterator reaches it."""
    return map(_family, sorted({family.plugin for family in catalog.families()}))


def _family(module: str) -> Family:
    family: Family = import_module(f".{module}", __package__).FAMILY
    return family


def resources() -> list[Resource]:
    """Every resource of the plugin."""
    from .proof import ProofResource

    return [ProofResource(), *(resource for family in every() for resource in family.resources)]


def proof_administrator(name: str) -> ProofAdministrator:
    """The administrator of a proof.

    Args:
        name: the proof's input `administrator`. Raises StoreError if no family has it.
    """
    modules = {family.administrator: family.plugin for family in catalog.families()}
    if name not in modules:
        raise StoreError(f"administrator: is {name!r}; allowed: {', '.join(map(repr, modules))}")
    return _family(modules[name]).proof_administrator
