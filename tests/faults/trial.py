"""One fault at one moment of one command, and then `up` again.

A moment is a request: the fault strikes before or after the store answered the n-th, or a little later; n = 0 is a
moment before any, in the preview. So a seed finds the same moment again, on a fast machine and on a slow one.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from synapse_media.engine.processes import identity
from tests.doubles import proxy
from tests.doubles.proxy import Answer, Fault, Request, Upstream
from tests.faults.world import Edit, World, descendants, ended, find, kill, later, leftovers

MODULE = "synapse-s3-storage-provider"
UP = ("up", "--yes")
GIVES_UP = ("retain-bucket", "retire-key", "narrow-policy")
BACK = {"adopt": True}


@dataclass(frozen=True, slots=True)
class Action:
    """One change of a stack, as an operator makes it.

    Attributes:
        requests: about as many does it make; a moment past the last one is missed, and not counted.
        edit: settings of the first store that change before it.
        words: what `allow` has to name for it, of that store.
        command: of the tool; with `--server` where it needs one.
        everywhere: it is of all stores.
    """

    requests: int
    edit: Edit = field(default_factory=dict)
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = UP
    everywhere: bool = False


ACTIONS: Final[Mapping[str, Action]] = {
    "up": Action(46),
    "rotate": Action(33, command=("rotate", "--yes")),
    "finish": Action(28, command=("rotate", "--finish", "--confirm", "--yes")),
    "to goofys": Action(33, {"method": "goofys"}, ("widen-policy",)),
    "from goofys": Action(25, {"method": MODULE}, ("narrow-policy",)),
    "to matrix-media-repo": Action(
        33, {"method": "matrix-media-repo", "media_repo": {"s3_datastore_id": "id"}}, ("move-media", "widen-policy")
    ),
    "from matrix-media-repo": Action(25, {"method": MODULE, "media_repo": None}, ("move-media", "narrow-policy")),
    "to filesystem": Action(8, {"method": "filesystem"}, GIVES_UP),
    "from filesystem": Action(46, {"method": MODULE, **BACK}),
    "remove": Action(8, {"managed": False}, GIVES_UP),
    "add again": Action(46, {"managed": True, **BACK}),
    "rename": Action(33, {"name": "renamed.example.com"}),
    "endpoint": Action(37, {"route": "other"}, ("replace-bucket", "retire-key")),
    "prefix": Action(25, {"prefix": "media/"}, ("move-media", "widen-policy", "narrow-policy")),
    "no prefix": Action(25, {"prefix": ""}, ("move-media", "widen-policy", "narrow-policy")),
    "bucket": Action(55, {"bucket": "another", "adopt": False}, (*GIVES_UP, "replace-bucket", "widen-policy")),
    "region": Action(40, {"region": "eu-west-1"}, ("replace-bucket", "retire-key"), everywhere=True),
    "destroy": Action(10, words=("retain-bucket",), command=("destroy", "--yes"), everywhere=True),
}
CHAPTERS: Final = (
    ("rotate", "finish"),
    ("to goofys", "from goofys"),
    ("to matrix-media-repo", "from matrix-media-repo"),
    ("to filesystem", "from filesystem"),
    ("remove", "add again"),
    ("rename",),
    ("endpoint",),
    ("prefix", "no prefix"),
    ("bucket",),
    ("region",),
)
"""What may happen in a store's life, in any order, between the `up` that begins it and the `destroy` at its end."""

SIGNALS: Final = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "hang up": signal.SIGHUP}
KILLS = ("kill engine", "kill host", "kill plugin", "kill command", *SIGNALS)
KINDS = (
    *KILLS,
    "server gone",
    "burst of 500",
    "burst of 503",
    "burst of 429",
    "truncated",
    "lost answer",
    "slow",
    "black hole",
    "disk full",
    "clock skew",
)
WEIGHTS = (5, 3, 5, 4, 2, 2, 1, 2, 1, 1, 1, 2, 2, 1, 0.5, 2, 1)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is done to which command, and when.

    Attributes:
        request: the moment, as the number of a request; 0: before any.
        after: seconds after that request was answered; negative: before it is passed on.
        amount: how many requests are met; for a full disk, how many bytes a file may have.
    """

    action: str
    kind: str
    request: int
    after: float
    amount: int

    def __str__(self) -> str:
        when = "before" if self.after < 0 else f"{self.after:.2f} s after"
        return f"{self.action}: {self.kind} {when} request {self.request} ({self.amount})"


def life(seed: str) -> list[str]:
    """The actions of a seed's walk: a store's life from nothing to nothing."""
    chance = random.Random(seed)
    chapters = chance.sample(CHAPTERS, 4)
    return ["up", *(action for chapter in chapters for action in chapter), "destroy"]


def draw(seed: str, action: str, stores: int = 1) -> Trial:
    """The trial of a seed.

    Args:
        stores: how many the stack has: all of them are made, moved to another region and destroyed, and one is
            changed otherwise.
    """
    chance = random.Random(f"{seed}/{action}")
    kind = chance.choices(KINDS, WEIGHTS)[0]
    after = chance.choice((-1.0, 0.0, chance.uniform(0, 0.4)))
    amount = chance.choice((1, 2, 3, 8))
    if kind == "disk full":
        amount = chance.choice((0, 1000, 8000, 20000))
    requests = ACTIONS[action].requests * (stores if action == "up" or ACTIONS[action].everywhere else 1)
    return Trial(action, kind, chance.randint(0 if kind in KILLS else 1, requests), after, amount)


def attempt(world: World, trial: Trial) -> bool:
    """Edit the stack file, run the command with the fault, mend the fault, run `up`, and look; whether the fault struck
    at all.

    Raises BrokenError where the store or the state is not as it should be afterwards.
    """
    action = ACTIONS[trial.action]
    held = world.held()
    world.edit(action.edit, everywhere=action.everywhere)
    world.write(*action.words, everywhere=action.everywhere)
    which = ("--server", world.first.name) if action.command[0] == "rotate" else ()
    child = world.start(*action.command, *which)
    struck = threading.Event()
    beneath: dict[int, str] = {}
    timers: list[threading.Timer] = []
    with child:
        _arrange(world, trial, _strike(world, trial, child.pid, struck, beneath), struck, timers)
        ended(child)
    # The command was quicker: what strikes later would strike the next one.
    for timer in timers:
        timer.cancel()
        timer.join()
    # What outlives a killed command or engine must be gone soon, or it could act beside the next run.
    leftovers(beneath)
    world.behave()
    destroyed = trial.action == "destroy"
    if destroyed:
        # Everything went but the buckets with the media.
        world.edit(BACK, everywhere=True)
        world.write()
    world.recover((*action.command, *which))
    world.write()
    world.settled()
    if not destroyed and not (action.everywhere and "retire-key" in action.words):
        world.still_works(held, but="retire-key" in action.words)
    return struck.is_set()


def _arrange(
    world: World, trial: Trial, strike: Callable[[], None], struck: threading.Event, timers: list[threading.Timer]
) -> None:
    """Have the fault strike at its moment; `timers` gets what may still be to come."""
    if trial.request == 0:
        timers.append(later(max(0.0, trial.after) * 5, strike))
        return
    seen = 0
    lock = threading.Lock()
    answer = _answers(trial)

    def fault(request: Request, upstream: Upstream) -> Answer | None:
        nonlocal seen
        upstream = world.hearing(upstream)
        with lock:
            seen += 1
            mine = seen
        if mine < trial.request or (answer is None and mine > trial.request):
            return upstream.ask(request)
        if answer is not None:
            if mine >= trial.request + trial.amount and trial.kind != "clock skew":
                return upstream.ask(request)
            struck.set()
            return answer(request, upstream)
        if trial.after < 0:
            strike()
            return None
        passed = upstream.ask(request)
        if trial.after == 0:
            strike()
        else:
            timers.append(later(trial.after, strike))
        return passed

    for one in world.proxies.values():
        one.behave()
        one.misbehave(fault)


def _strike(
    world: World, trial: Trial, pid: int, struck: threading.Event, beneath: dict[int, str]
) -> Callable[[], None]:
    """What happens to processes at the moment."""

    def strike() -> None:
        beneath.update({child: identity(child) or "" for child in descendants(pid)})
        if trial.kind == "server gone":
            for server in world.store.pids:
                kill(server)
            struck.set()
            return
        if trial.kind in SIGNALS or trial.kind == "kill command":
            os.kill(pid, SIGNALS.get(trial.kind, signal.SIGKILL))
            struck.set()
            return
        target = find(pid, "engine" if trial.kind == "disk full" else trial.kind.removeprefix("kill "))
        if target is None:
            return
        if trial.kind == "disk full":
            resource.prlimit(target, resource.RLIMIT_FSIZE, (trial.amount, resource.RLIM_INFINITY))
        else:
            kill(target)
        struck.set()

    return strike


def _answers(trial: Trial) -> Fault | None:
    """What requests get at the moment, where it is they who are hit."""

    def burst(status: int, code: str) -> Fault:
        return lambda request, _: proxy.error(request, status, code, "Try again.")

    return {
        "burst of 500": proxy.internal_error,
        "burst of 503": proxy.slow_down,
        "burst of 429": burst(429, "TooManyRequests"),
        "truncated": proxy.truncated,
        "lost answer": proxy.lost_answer,
        "slow": proxy.latency(1.0),
        "black hole": proxy.black_hole,
        "clock skew": burst(403, "RequestTimeTooSkewed"),
    }.get(trial.kind)
