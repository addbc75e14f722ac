"""A danger, and the error that refuses it."""

from __future__ import annotations

from dataclasses import dataclass

from synapse_media.allow import Word
from synapse_media.errors import SynapseMediaError


class DangerError(SynapseMediaError):
    """A change that may lose media or cut access, and that `allow` does not name."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Danger:
    """`word` is what `allow` has to name, as `<homeserver>/<word>`, for the change to be made.

    Attributes:
        unknown: a value that is known only at apply decides whether there is a danger at all.
        waits_for: with `unknown`, the URNs of the resources that change first and give the value.
    """

    word: Word
    why: str
    unknown: bool = False
    waits_for: tuple[str, ...] = ()
