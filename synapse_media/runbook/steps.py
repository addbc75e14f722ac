"""Steps of a runbook, and the check that their order can't lose media."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from synapse_media.errors import SynapseMediaError


class RunbookError(SynapseMediaError):
    """A switch that is impossible, or not possible this way."""


class DangerousOrderError(RunbookError):
    """Steps in an order that can lose media."""


class Effect(Enum):
    """What a step achieves, for the check of the order."""

    STOPS = auto()  # no media is written from here on
    STARTS = auto()
    CLEAN_UP_OFF = auto()  # no job deletes local files by name any more
    COPIED = auto()  # everything that the old place held at the beginning of this step is in the new one
    VERIFIED = auto()  # contents were compared, not just names
    LEFT = auto()  # the old method is no longer configured or running
    ENTERED = auto()  # the new method is configured
    EMPTIED = auto()  # the old place may be deleted


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        where: HERE, PLAYBOOK or SERVER of `site`.
        why: its purpose, in a sentence or two.
        files: the files it needs, and what creates them.
        commands: POSIX shell commands.
        check: how to verify that it worked.
        undo: how to revert it.
    """

    title: str
    where: str
    why: str
    check: str
    undo: str
    files: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "where": self.where,
            "why": self.why,
            "files": list(self.files),
            "commands": list(self.commands),
            "check": self.check,
            "undo": self.undo,
        }


def require_safe(
    steps: Sequence[Step],
    *,
    copies_media: bool = True,
    one_at_a_time: bool = False,
    written_both_ways: bool = False,
    deletes_by_name: bool = False,
) -> None:
    """Raise DangerousOrderError if the order can lose media, or a necessary step is missing.

    Args:
        copies_media: media is copied to another place (bucket, directory, repository).
        one_at_a_time: the two methods must never run at the same time, as a mount and the module on one bucket.
        written_both_ways: new media is written to both places, so Synapse need not stop for the copy: the module keeps
            a local copy.
        deletes_by_name: the old method may have a job that deletes local files if the bucket has an object of that
        name.
    """
    done: list[Effect] = []
    for step in steps:
        for effect in step.effects:
            fault = _fault(effect, done, copies_media=copies_media, one_at_a_time=one_at_a_time, both=written_both_ways)
            if effect is Effect.COPIED and deletes_by_name and Effect.CLEAN_UP_OFF not in done:
                fault = "copies files that a clean-up job may delete by name"
            if fault:
                raise DangerousOrderError(f"{step.title!r} {fault}")
            done.append(effect)
    missing = [effect.name.lower() for effect in _needed(copies_media=copies_media) if effect not in done]
    if missing:
        raise DangerousOrderError(f"no step has the effect: {', '.join(missing)}")
    if done.count(Effect.STOPS) > done.count(Effect.STARTS):
        raise DangerousOrderError("Synapse is stopped and never started again")


def _needed(*, copies_media: bool) -> Iterable[Effect]:
    return (Effect.LEFT, Effect.ENTERED, *((Effect.COPIED, Effect.VERIFIED) if copies_media else ()))


def _fault(effect: Effect, done: Sequence[Effect], *, copies_media: bool, one_at_a_time: bool, both: bool) -> str:
    """Why `effect` must not follow the effects in `done`; "" if it may."""
    stopped = done.count(Effect.STOPS) > done.count(Effect.STARTS)
    if effect is Effect.VERIFIED and Effect.COPIED not in done:
        return "compares before anything was copied"
    if effect in (Effect.COPIED, Effect.VERIFIED) and not (stopped or both):
        return "happens while media is still written to the old place alone"
    if effect is Effect.LEFT and copies_media and Effect.VERIFIED not in done:
        return "disables the old place before its content was compared with the copy"
    if effect is Effect.ENTERED and one_at_a_time and Effect.LEFT not in done:
        return "runs both methods on one bucket, which destroys media"
    if effect is Effect.STARTS and copies_media and not both and Effect.VERIFIED in done and Effect.LEFT not in done:
        return "allows writing to the old place again after the copy was compared"
    if effect is Effect.EMPTIED and not {Effect.VERIFIED, Effect.LEFT, Effect.ENTERED} <= set(done):
        return "deletes the old place before the new one was compared with it and is in use"
    return ""
