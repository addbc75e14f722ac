"""Findings, and the registry of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from .config import Config, Kind
from .reading import Value


class Severity(StrEnum):
    """The consequence of not fixing a finding, in the order of the report."""

    LOSES = "loses media"
    BREAKS = "breaks"
    WARNS = "warns"


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where a rule applies, and the fix. Never contains a secret's value. `link` overrides the rule's."""

    at: Value
    setting: str
    reason: str
    mend: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    rule: str
    severity: Severity
    file: str
    line: int
    setting: str
    reason: str
    mend: str
    link: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: {self.severity}: {self.setting} [{self.rule}]\n"
            f"  why:  {self.reason}\n  fix:  {self.mend}\n  see:  {self.link}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Find = Callable[[Config], Iterable[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A check of one configuration. `summary` is its line in the documentation."""

    name: str
    severity: Severity
    kinds: tuple[Kind, ...]
    summary: str
    link: str
    find: Find

    def apply(self, config: Config) -> list[Finding]:
        if config.kind not in self.kinds:
            return []
        return [self.finding(hit) for hit in self.find(config)]

    def finding(self, hit: Hit) -> Finding:
        link = hit.link or self.link
        return Finding(self.name, self.severity, hit.at.file, hit.at.line, hit.setting, hit.reason, hit.mend, link)


RULES: dict[str, Rule] = {}
"""The rules that check a single configuration, by name."""

EVERYWHERE = (Kind.SYNAPSE, Kind.PLAYBOOK, Kind.MEDIA_REPO)


def rule(
    name: str, severity: Severity, summary: str, link: str, kinds: tuple[Kind, ...] = EVERYWHERE
) -> Callable[[Find], Find]:
    """Register a function as a rule."""

    def register(find: Find) -> Find:
        RULES[name] = Rule(name, severity, kinds, summary, link, find)
        return find

    return register
