"""Steps, and the orders of them that lose media: refused, whoever put them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from synapse_media.errors import SynapseMediaError


class RunbookError(SynapseMediaError):
    """A switch that can't be made, or not in this way."""


class DangerousOrderError(RunbookError):
    """Steps in an order that loses media."""


class Effect(Enum):
    """What a step does, for the check of the order."""

    STOPS = auto()  # nobody writes media from here on
    STARTS = auto()
    CLEAN_UP_OFF = auto()  # nothing deletes local files by name any more
    COPIED = auto()  # all that was in the old place when this began is in the new one
    VERIFIED = auto()  # content was compared, not names
    LEFT = auto()  # the old method is out of the configuration, and out of the way
    ENTERED = auto()  # the new method is in it
    EMPTIED = auto()  # the old place may go


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        where: "here", where the stack is; "playbook", where ansible-playbook is run; "server", as root.
        why: what it is for, in a sentence or two.
        files: what is needed for it, and who makes it.
        commands: lines of a POSIX shell.
        check: how to see that it worked: counts and content.
        undo: how to go back from here.
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
    """Raise DangerousOrderError unless no step can lose media, and none is left out.

    Args:
        copies_media: media is copied to another place (bucket, directory, repository).
        one_at_a_time: the two methods must never be in use together: a mount and the module on one bucket.
        written_both_ways: while the old method runs, or once the new one does, what is new is in both places, so that
            nobody has to stop for the copy: the module keeps the local copy.
        deletes_by_name: the old method may bring a job that deletes local files for which the bucket has a namesake.
    """
    done: list[Effect] = []
    for step in steps:
        for effect in step.effects:
            fault = _fault(effect, done, copies_media=copies_media, one_at_a_time=one_at_a_time, both=written_both_ways)
            if effect is Effect.COPIED and deletes_by_name and Effect.CLEAN_UP_OFF not in done:
                fault = "copies what a job may delete again by its name"
            if fault:
                raise DangerousOrderError(f"{step.title!r} {fault}")
            done.append(effect)
    missing = [effect.name.lower() for effect in _needed(copies_media=copies_media) if effect not in done]
    if missing:
        raise DangerousOrderError(f"the steps lack one that has: {', '.join(missing)}")
    if done.count(Effect.STOPS) > done.count(Effect.STARTS):
        raise DangerousOrderError("Synapse is stopped, and never started again")


def _needed(*, copies_media: bool) -> Iterable[Effect]:
    return (Effect.LEFT, Effect.ENTERED, *((Effect.COPIED, Effect.VERIFIED) if copies_media else ()))


def _fault(effect: Effect, done: Sequence[Effect], *, copies_media: bool, one_at_a_time: bool, both: bool) -> str:
    """Why `effect` may not follow what was done; "" if it may."""
    stopped = done.count(Effect.STOPS) > done.count(Effect.STARTS)
    if effect is Effect.VERIFIED and Effect.COPIED not in done:
        return "compares what was not copied"
    if effect in (Effect.COPIED, Effect.VERIFIED) and not (stopped or both):
        return "comes while media is still written to the old place alone"
    if effect is Effect.LEFT and copies_media and Effect.VERIFIED not in done:
        return "leaves the old place before its content was compared with the copy"
    if effect is Effect.ENTERED and one_at_a_time and Effect.LEFT not in done:
        return "brings both methods on one bucket, which destroys media"
    if effect is Effect.STARTS and copies_media and not both and Effect.VERIFIED in done and Effect.LEFT not in done:
        return "lets media be written to the old place again, after the copy was compared"
    if effect is Effect.EMPTIED and not {Effect.VERIFIED, Effect.LEFT, Effect.ENTERED} <= set(done):
        return "empties the old place before the new one was compared with it and is in use"
    return ""
