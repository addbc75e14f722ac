"""The options after `--` that a command passes to pulumi."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from synapse_media.errors import UsageError

# Name -> whether a value follows.
_SELECTING: Final[Mapping[str, bool]] = {
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
_PARTIAL: Final = frozenset({"--target", "-t", "--target-replace", "--exclude"})
_ALLOWED: Final = {**_SELECTING, **_OTHERS}

_SHOWS_TRAFFIC: Final = "it shows the traffic between the engine and its plugins, with issued keys in plain text"
_SHOWS_SECRETS: Final = "it shows secrets of the stack in plain text"
# Name -> why it is refused. Tried on pulumi 3.259: of these, `--debug` and `--json` print issued keys.
_REVEALING: Final[Mapping[str, str]] = {
    "--debug": _SHOWS_TRAFFIC,
    "--json": _SHOWS_SECRETS,
    "--show-secrets": _SHOWS_SECRETS,
    "--show-config": _SHOWS_SECRETS,
    "--verbose": _SHOWS_TRAFFIC,
    "--logtostderr": _SHOWS_TRAFFIC,
    "--logflow": _SHOWS_TRAFFIC,
    "--event-log": _SHOWS_TRAFFIC,
    "--tracing": _SHOWS_TRAFFIC,
    "--tracing-header": _SHOWS_TRAFFIC,
    "--otel-traces": _SHOWS_TRAFFIC,
    "--profiling": "its files hold what the engine had in memory",
    "--memprofilerate": "its files hold what the engine had in memory",
    "--attach-debugger": "a debugger sees every credential, and any account of this machine may attach to it",
}
_SHORT: Final[Mapping[str, str]] = {"d": "--debug", "j": "--json", "v": "--verbose"}


def selecting_options(options: Sequence[str]) -> list[str]:
    """The options that select resources, which the preview needs too, or it would not show what will run.

    Raises UsageError for an option that shows secrets, and for any that is not allowed: one that selects another stack,
    file or configuration, or that overrides protection, would bypass the guards.
    """
    selecting: list[str] = []
    arguments = iter(options)
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if revealing := _revealing(argument):
            raise UsageError(
                f"-- {argument} is refused: {_REVEALING[revealing]}. To see each API call, its time, status and "
                "request "
                "id, without a secret: `-v` before `--` (or SYNAPSE_MEDIA_VERBOSE=1). For programs: `--json` before "
                "`--`, where the command has it."
            )
        if name not in _ALLOWED:
            raise UsageError(
                f"-- {argument} is not passed to pulumi; allowed: {', '.join(_ALLOWED)}. Change settings in "
                'the stack file. For anything else, with fewer guards: eval "$(synapse-media env)", then run pulumi.'
            )
        own = [argument]
        if _ALLOWED[name] and not equals:
            value = next(arguments, None)
            if value is None:
                raise UsageError(f"-- {name} needs a value")
            own.append(value)
        if name in _SELECTING:
            selecting += own
    return selecting


def has_targets(options: Sequence[str]) -> bool:
    """Whether the options select a part of the stack."""
    return any(argument.partition("=")[0] in _PARTIAL for argument in options)


def _revealing(argument: str) -> str:
    """The long name of an option in this argument that shows secrets (as in `-dv=9` and `-v9`); "" if none does."""
    name = argument.partition("=")[0]
    if name in _REVEALING:
        return name
    # Short options may be combined, up to the first one that takes the rest as its value.
    flags = re.fullmatch(r"-([^-tpscmC]*).*", name)
    return next((_SHORT[letter] for letter in flags[1] if letter in _SHORT), "") if flags else ""
