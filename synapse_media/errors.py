"""The one exception root of this package, and the shape of a message people can act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

from synapse_media.redaction import plain, redacted


class SynapseMediaError(Exception):
    """Anything this package refuses or could not do. Its text is for people: no secret, no traceback needed."""

    exit_code = 1

    def __str__(self) -> str:
        # Whatever a library or a server put into it.
        return plain(redacted(super().__str__()))


class UsageError(SynapseMediaError):
    """A command line that can't be carried out (exit code 64, as in sysexits.h)."""

    exit_code = 64


class StoreError(SynapseMediaError):
    """A store, or a resource at it, that could not be reached, made, read, changed or deleted."""


class _NoSetting:
    def __repr__(self) -> str:
        return "no setting"


NO_SETTING: Final = _NoSetting()
"""The value of a problem with a name that is not known: what stands there is nobody's business."""


@dataclass(frozen=True, repr=False)
class Described:
    """In place of a value that is not to be shown, or that has no form that says anything."""

    words: str

    def __repr__(self) -> str:
        return self.words


def a_value_of(value: object) -> str:
    """What a value is by its type, without what is in it."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


_SHOWN: Final = 300
"""Characters of a value in a message."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one setting, and what to do about it."""

    setting: str
    value: object
    allowed: str
    next_step: str

    def __str__(self) -> str:
        # Redacted before it is cut, or a part of a secret would be left.
        value = redacted(_text_of(self.value))
        cut = f"{value[:_SHOWN]}…" if len(value) > _SHOWN else value
        shown = "is missing" if self.value is None else f"is {cut}"
        return f"{self.setting} {shown}; allowed: {self.allowed}. {self.next_step}"


def _text_of(value: object) -> str:
    # YAML reads 2026-02-03 as a date.
    if isinstance(value, date):
        return value.isoformat()
    try:
        return repr(value)
    except (ValueError, RecursionError):
        # A number with thousands of digits, or a value within itself.
        return a_value_of(value)


class SettingsError(SynapseMediaError):
    """Every problem of a stack file, all at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
