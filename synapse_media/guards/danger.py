"""A danger, and the error that refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from synapse_media.allow import Word
from synapse_media.errors import SynapseMediaError

UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What the engine writes for a value that is only known once something was made: sdk/go/common/resource/plugin."""


class DangerError(SynapseMediaError):
    """A change that may lose media or cut access, and that `allow` does not name."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Danger:
    """`word` is what `allow` has to name, as `<homeserver>/<word>`, for the change to be made."""

    word: Word
    why: str
