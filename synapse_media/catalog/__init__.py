"""What is known of each object-storage provider, as data: `data/<provider>.json`, one file a provider.

A preset (its `component` is another provider's) holds only what differs; the rest is its component's entry.

Every fact carries its source, date and certainty (`primary`: the vendor's own text was read, or it was tried;
`secondary`: a dated transcription; `uncertain`: undated, conflicting or from memory). `schema.json` says what
an entry may hold. Code never branches on a provider's name: it asks the entry.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from importlib import resources
from typing import Any, Final

from synapse_media.errors import SynapseMediaError
from synapse_media.schema.connection import Connection

_PLACES: Final = ("admin_endpoint", "api_endpoint", "auth_endpoint", "realm", "ca_file")
"""Settings of providers that are fields of a connection."""
_DATA = resources.files(__package__) / "data"


class UnknownProviderError(SynapseMediaError):
    """A provider that the catalog does not have."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A value and why to believe it. `date` is ISO 8601: when the source said so."""

    value: Any
    source: str
    date: str
    certainty: str


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider's entry. `name` is what a stack file says; `component` the class family that provisions it.

    `extra` is the extra of this package with the vendor's SDK that the component needs; "": it needs none.
    """

    name: str
    title: str
    component: str
    facts: Mapping[str, Fact]
    extra: str = ""

    def value(self, fact: str, default: Any = None) -> Any:
        """The bare value of a fact, or `default` where the catalog does not have it."""
        found = self.facts.get(fact)
        return default if found is None else found.value

    @property
    def regions(self) -> tuple[str, ...]:
        """Region names as the store signs them; empty: any."""
        return tuple(region["name"] for region in self.value("regions", ()))

    @property
    def admin_variables(self) -> tuple[str, ...]:
        """Environment variables with the admin credential, in the vendor's own names."""
        return tuple(item["name"] for item in self.value("admin_variables", ()))

    @property
    def optional_variables(self) -> tuple[str, ...]:
        """Those of `admin_variables` that may be missing."""
        return tuple(item["name"] for item in self.value("admin_variables", ()) if "without" in item)

    def can(self, capability: str) -> bool | None:
        """True or False where known; None where only the store itself can tell."""
        known: bool | None = self.value("capabilities", {}).get(capability)
        return known

    def endpoint(self, region: str) -> str:
        """The S3 endpoint of a region, with scheme; "" where the stack file or the account has to say it."""
        return _fill(self.value("endpoint", ""), region)

    def iam_endpoint(self, region: str) -> str:
        """The endpoint of the IAM-style API; "" where there is none, or the stack file has to say it."""
        return _fill(self.value("iam_endpoint", ""), region)

    def connection(
        self, *, endpoint: str, region: str, iam_endpoint: str = "", options: Mapping[str, object] | None = None
    ) -> Connection:
        """How a store at this provider is reached with the administrator's credential.

        Args:
            options: the provider's own settings, as the stack file has them; those that say where something is.
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
    """Every provider of the catalog, sorted."""
    return tuple(sorted(item.name.removesuffix(".json") for item in _DATA.iterdir() if item.name.endswith(".json")))


@cache
def load(name: str) -> Provider:
    """The entry of one provider. Raises UnknownProviderError with the nearest name and all of them."""
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
    extra = raw.get("extra", "")
    if raw["component"] != name:
        family = load(raw["component"])
        facts, extra = {**family.facts, **facts}, family.extra
    return Provider(name=raw["name"], title=raw["title"], component=raw["component"], facts=facts, extra=extra)


def schema() -> dict[str, Any]:
    """The JSON schema that every entry is checked against in the tests; its descriptions are for people."""
    loaded: dict[str, Any] = json.loads((resources.files(__package__) / "schema.json").read_text(encoding="utf-8"))
    return loaded


def capabilities() -> dict[str, str]:
    """{capability: what a store can do that has it}, as the schema describes it; the start of no sentence."""
    facts = schema()["properties"]["facts"]["properties"]
    described = facts["capabilities"]["properties"]["value"]["properties"]
    return {name: str(item["description"]) for name, item in described.items()}


def nearest(value: str, allowed: Iterable[str]) -> str:
    """The allowed value that was probably meant, or ""."""
    found = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.5)
    return found[0] if found else ""


# Safe on every provider of the catalog: no dots (TLS wildcard certificates; B2 forbids them), no reserved affix.
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
    """Why a bucket can't have a name; `words` is a clause about the name."""

    rule: NameRule
    words: str


def bucket_name_fault(name: str, provider: Provider) -> NameFault | None:
    """Why a bucket can't have this name at this provider; None if it can."""
    limits = provider.value("bucket_name", {"min": 3, "max": 63})
    if not limits["min"] <= len(name) <= limits["max"]:
        return NameFault(NameRule.LENGTH, f"it has {len(name)} characters")
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
