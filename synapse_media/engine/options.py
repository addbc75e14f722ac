"""Which of pulumi's own options a command hands on, after `--`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from synapse_media.errors import UsageError

# Name -> whether a value follows.
_CHOOSING: Final[Mapping[str, bool]] = {
    "--target": True,
    "-t": True,
    "--target-dependents": False,
    "--target-replace": True,
    "--replace": True,
    "--exclude": True,
    "--exclude-dependents": False,
}
_OTHERS: Final[Mapping[str, bool]] = {
    "--continue-on-error": False,
    "--debug": False,
    "--diff": False,
    "--message": True,
    "--parallel": True,
    "-p": True,
    "--show-reads": False,
    "--show-replacement-steps": False,
    "--show-sames": False,
    "--suppress-progress": False,
}
_PARTS: Final = frozenset({"--target", "-t", "--target-replace", "--exclude"})
_KNOWN: Final = {**_CHOOSING, **_OTHERS}


def choosing(options: Sequence[str]) -> list[str]:
    """Those that choose what is changed: a preview has to have them, too, or it is not of what will run.

    Raises UsageError for any that points pulumi at another stack, file or configuration, or past its own protection:
    a guard that judged this stack would not have judged that.
    """
    chosen: list[str] = []
    words = iter(options)
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in _KNOWN:
            raise UsageError(
                f"-- {word} is not handed to pulumi; allowed: {', '.join(_KNOWN)}. What the stack file says is changed "
                'there. For anything else, with fewer guards: eval "$(synapse-media env)", and pulumi itself.'
            )
        own = [word]
        if _KNOWN[name] and not equals:
            value = next(words, None)
            if value is None:
                raise UsageError(f"-- {name} needs a value")
            own.append(value)
        if name in _CHOOSING:
            chosen += own
    return chosen


def chooses_targets(options: Sequence[str]) -> bool:
    """Whether only a part of the stack is changed."""
    return any(word.partition("=")[0] in _PARTS for word in options)
