"""What is installed only on demand: the extras of this package that a provider's stores need."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Final

from synapse_media import catalog
from synapse_media.errors import SynapseMediaError

MODULES: Final = {"aws": "pulumi_aws", "b2": "b2sdk", "digitalocean": "pulumi_digitalocean"}
"""Extra of pyproject.toml that a catalog entry may name -> the package that is imported then."""


class MissingExtraError(SynapseMediaError):
    """A vendor's SDK that is needed and not installed."""


def lacking(providers: Iterable[str]) -> str:
    """Which SDKs of these providers are not installed, and the command that installs them all; "" where none lacks."""
    extras = {name: catalog.load(name).extra for name in sorted(set(providers))}
    absent = {name: extra for name, extra in extras.items() if extra and find_spec(MODULES[extra]) is None}
    if not absent:
        return ""
    needs = ", ".join(f"{name} needs the package {MODULES[extra]}" for name, extra in absent.items())
    named = ",".join(sorted(set(absent.values())))
    return f"{needs}, which is not installed here: pip install 'synapse-media[{named}]'"


def require(providers: Iterable[str]) -> None:
    """Raise MissingExtraError where the SDK of a provider is not installed.

    Args:
        providers: names of catalog entries, as a stack file has them.
    """
    if text := lacking(providers):
        raise MissingExtraError(text)
