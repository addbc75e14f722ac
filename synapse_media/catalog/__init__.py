"""The provider catalog: facts about each object-storage provider as data, one file `data/<provider>.json` each.

A preset (an entry whose `component` is another provider) gives only the facts that differ from that provider's.

Every fact has its source, date and certainty (`primary`: the vendor's own text was read, or it was tried; `secondary`:
a dated transcription; `uncertain`: undated, conflicting or from memory). `schema.json` is the schema of an entry. Code
never branches on a provider's name; it asks the entry.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum, auto
from functools import cache
from importlib import resources
from typing import Any, Final

from synapse_media.errors import SynapseMediaError
from synapse_media.schema.connection import Connection

_PLACES: Final = frozenset(item.name for item in fields(Connection)).difference(
    ("endpoint", "region", "iam_endpoint", "addressing", "checksums", "variables")
)
"""Provider settings that are passed on as fields of a connection."""
_DATA = resources.files(__package__) / "data"


class UnknownProviderError(SynapseMediaError):
    """A provider that is not in the catalog."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A value with its provenance. `date` is that of the source, in ISO 8601."""

    value: Any
    source: str
    date: str
    certainty: str


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider's entry.

    Attributes:
        name: what a stack file says.
        component: the family that provisions it: the name of the family's own entry, and of its module of `components`.
        component_class: the class in that module.
        plugin: the module of `synapse_media.plugin` that serves the family.
        administrator: the value of the input `administrator` of the family's proofs, which states hold too.
        extra: the extra of this package with the vendor's SDK that the family needs; "": it needs none.
    """

    name: str
    title: str
    component: str
    facts: Mapping[str, Fact]
    component_class: str
    plugin: str
    administrator: str
    extra: str

    def value(self, fact: str, default: Any = None) -> Any:
        """The value of a fact, or `default` if the entry does not have it."""
        found = self.facts.get(fact)
        return default if found is None else found.value

    @property
    def regions(self) -> tuple[str, ...]:
        """Region names as used in signatures; empty: any name is accepted."""
        return tuple(region["name"] for region in self.value("regions", ()))

    @property
    def admin_variables(self) -> tuple[str, ...]:
        """The environment variables of the admin credential, with the vendor's own names."""
        return tuple(item["name"] for item in self.value("admin_variables", ()))

    @property
    def optional_variables(self) -> tuple[str, ...]:
        """The optional ones of `admin_variables`."""
        return tuple(item["name"] for item in self.value("admin_variables", ()) if "without" in item)

    def can(self, capability: str) -> bool | None:
        """True or False; None where only the store itself can tell."""
        known: bool | None = self.value("capabilities", {}).get(capability)
        return known

    def endpoint(self, region: str) -> str:
        """The S3 endpoint URL of a region; "" where it comes from the stack file or the account."""
        return _fill(self.value("endpoint", ""), region)

    def iam_endpoint(self, region: str) -> str:
        """The endpoint URL of the IAM-style API; "" where there is none or it comes from the stack file."""
        return _fill(self.value("iam_endpoint", ""), region)

    def connection(
        self, *, endpoint: str, region: str, iam_endpoint: str = "", options: Mapping[str, object] | None = None
    ) -> Connection:
        """The connection to a store at this provider with the admin credential.

        Args:
            options: the provider's own settings in the stack file; only those in _PLACES are used.
        """
        places = {name: str((options or {}).get(name, "")) for name in _PLACES}
        return Connection(
            endpoint=endpoint,
            region=region,
            iam_endpoint=iam_endpoint,
            addressing=str(self.value("addressing", "path")),
            checksums=str(self.value("checksums", "when_required")),
            variables=self.admin_variables,
            **places,
        )


def _fill(pattern: str, region: str) -> str:
    return "" if "{region}" in pattern and not region else pattern.replace("{region}", region)


@cache
def names() -> tuple[str, ...]:
    """The names of all providers, sorted."""
    return tuple(sorted(item.name.removesuffix(".json") for item in _DATA.iterdir() if item.name.endswith(".json")))


@cache
def load(name: str) -> Provider:
    """The entry of one provider. Raises UnknownProviderError, which suggests the nearest name."""
    if name not in names():
        guess = nearest(name, names())
        raise UnknownProviderError(
            f"provider {name!r} is not in the catalog; allowed: {', '.join(names())}."
            + (f" Did you mean {guess!r}?" if guess else "")
        )
    raw = json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))
    facts = {
        key: Fact(value=item["value"], source=item["source"], date=item["date"], certainty=item["certainty"])
        for key, item in raw["facts"].items()
    }
    if raw["component"] != name:
        family = load(raw["component"])
        return replace(family, name=raw["name"], title=raw["title"], facts={**family.facts, **facts})
    return Provider(
        name=raw["name"],
        title=raw["title"],
        component=raw["component"],
        facts=facts,
        component_class=raw["class"],
        plugin=raw.get("plugin", "s3"),
        administrator=raw.get("administrator", ""),
        extra=raw.get("extra", ""),
    )


def families() -> list[Provider]:
    """The entries that have a component of their own, sorted."""
    return [entry for entry in map(load, names()) if entry.component == entry.name]


def schema() -> dict[str, Any]:
    """The JSON schema of an entry."""
    loaded: dict[str, Any] = json.loads((resources.files(__package__) / "schema.json").read_text(encoding="utf-8"))
    return loaded


def capabilities() -> dict[str, str]:
    """{capability: its description in the schema, without capital and full stop}."""
    facts = schema()["properties"]["facts"]["properties"]
    described = facts["capabilities"]["properties"]["value"]["properties"]
    return {name: str(item["description"]) for name, item in described.items()}


def nearest(value: str, allowed: Iterable[str]) -> str:
    """The allowed value nearest to `value`, for a suggestion; "" if none is near."""
    found = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.5)
    return found[0] if found else ""


# Valid at every provider: no dots (they break TLS wildcard certificates, and B2 forbids them), no reserved affix.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html ; B2 and Spaces pages in the entries.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]*[a-z0-9]")
_RESERVED_START = ("b2-", "xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_END = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


class NameRule(Enum):
    """What a bucket's name has to keep to; no bucket that is there can break RESERVED."""

    LENGTH = auto()
    CHARACTERS = auto()
    RESERVED = auto()


@dataclass(frozen=True, slots=True)
class NameFault:
    """A violated rule; `words` explains it as a clause with the name as its subject."""

    rule: NameRule
    words: str


def bucket_name_fault(name: str, provider: Provider) -> NameFault | None:
    """The rule that a bucket name violates at this provider; None if it is valid."""
    limits = provider.value("bucket_name", {"min": 3, "max": 63})
    if not limits["min"] <= len(name) <= limits["max"]:
        return NameFault(NameRule.LENGTH, f"it has {len(name)} character{'' if len(name) == 1 else 's'}")
    for start in _RESERVED_START:
        if name.startswith(start):
            return NameFault(NameRule.RESERVED, f"names starting with {start!r} are reserved")
    for end in _RESERVED_END:
        if name.endswith(end):
            return NameFault(NameRule.RESERVED, f"names ending with {end!r} are reserved")
    if limits.get("single_hyphens") and re.search(r"[.-]{2}", name):
        return NameFault(NameRule.RESERVED, f"{provider.title} refuses two of '-' and '.' in a row")
    if not _BUCKET.fullmatch(name):
        return NameFault(NameRule.CHARACTERS, "it has a character other than a-z, 0-9 and '-', or '-' at an end")
    return None
