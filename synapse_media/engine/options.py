"""Which of pulumi's own options a command hands on, after `--`."""

from __future__ import annotations

import re
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

_RAW: Final = "it shows what the engine and its plugins say to each other, issued keys in clear"
_CLEAR: Final = "it shows secrets of the stack in clear"
# Name -> why its output may not be had. Tried on pulumi 3.259: of these, `--debug` and `--json` print issued keys.
_REVEALING: Final[Mapping[str, str]] = {
    "--debug": _RAW,
    "--json": _CLEAR,
    "--show-secrets": _CLEAR,
    "--show-config": _CLEAR,
    "--verbose": _RAW,
    "--logtostderr": _RAW,
    "--logflow": _RAW,
    "--event-log": _RAW,
    "--tracing": _RAW,
    "--tracing-header": _RAW,
    "--otel-traces": _RAW,
    "--profiling": "its files hold what the engine had in memory",
    "--memprofilerate": "its files hold what the engine had in memory",
    "--attach-debugger": "a debugger sees every credential, and any account of this machine may attach to it",
}
_SHORT: Final[Mapping[str, str]] = {"d": "--debug", "j": "--json", "v": "--verbose"}


def target_options(options: Sequence[str]) -> list[str]:
    """Those that choose what is changed: a preview has to have them, too, or it is not of what will run.

    Raises UsageError for any that points pulumi at another stack, file or configuration, or past its own protection:
    a guard that judged this stack would not have judged that.
    """
    chosen: list[str] = []
    words = iter(options)
    for word in words:
        name, equals, _ = word.partition("=")
        if revealing := _revealing(word):
            raise UsageError(
                f"-- {word} is refused: {_REVEALING[revealing]}. To see each API call, its time, status and request "
                "id, without a secret: `-v` before `--` (or SYNAPSE_MEDIA_VERBOSE=1). For programs: `--json` before "
                "`--`, where the command has it."
            )
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


def has_targets(options: Sequence[str]) -> bool:
    """Whether only a part of the stack is changed."""
    return any(word.partition("=")[0] in _PARTS for word in options)


def _revealing(word: str) -> str:
    """The long name of the option that shows secrets, where the word is one or holds one (`-dv=9`, `-v9`); or ""."""
    name = word.partition("=")[0]
    if name in _REVEALING:
        return name
    # Short options may be joined, up to one whose value is the rest of the word.
    flags = re.fullmatch(r"-([^-tpscmC]*).*", name)
    return next((_SHORT[letter] for letter in flags[1] if letter in _SHORT), "") if flags else ""
