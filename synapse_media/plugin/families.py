"""The provider families of the plugin: one module each, imported when it is used.

A module's `FAMILY` is all that the rest of the plugin and the commands know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

from synapse_media.errors import StoreError

if TYPE_CHECKING:
    from synapse_media.schema.connection import AdminCheck

    from .proof import ProofAdministrator
    from .resource import Resource

COMPONENTS: Final = {
    "amazon_s3": "s3",
    "backblaze_b2": "backblaze_b2",
    "digitalocean_spaces": "digitalocean_spaces",
    "garage": "garage",
    "s3_compatible": "s3",
    "storj": "storj",
    "wasabi": "s3",
}
"""The `component` of a catalog entry -> the module of its family."""


@dataclass(frozen=True, slots=True)
class Family:
    """What the plugin has for the providers of one family.

    Attributes:
        resources: the resource types that this family alone serves.
        proof_administrator: who makes decoys for a proof, and clears up after it.
        check_admin: raises StoreError where the administrator's credential in the environment is not accepted.
        lender: the input `lender` of this family's proofs, which recorded states hold.
    """

    resources: tuple[Resource, ...]
    proof_administrator: ProofAdministrator
    check_admin: Callable[[AdminCheck], None]
    lender: str


def load(component: str) -> Family:
    """The family of a catalog entry's component."""
    return _family(COMPONENTS[component])


def every() -> Iterator[Family]:
    """Each family once; the modules are imported one by one."""
    return map(_family, dict.fromkeys(sorted(COMPONENTS.values(), key=lambda module: (module != "s3", module))))


def _family(module: str) -> Family:
    family: Family = import_module(f".{module}", __package__).FAMILY
    return family


def resources() -> list[Resource]:
    """Every resource of the plugin."""
    from .proof import ProofResource

    return [ProofResource(), *(resource for family in every() for resource in family.resources)]


def proof_administrator(lender: str) -> ProofAdministrator:
    """The administrator of a proof, by its input `lender`. Raises StoreError where no family has that."""
    for family in every():
        if family.lender == lender:
            return family.proof_administrator
    allowed = ", ".join(repr(family.lender) for family in every())
    raise StoreError(f"lender: is {lender!r}; allowed: {allowed}")
