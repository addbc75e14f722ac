"""How fast a store is asked: a bounded number of calls at once per host, and slower while it asks for that.

A store that throttles answers 503 SlowDown, 429, or a 400 with a code such as Throttling. That is no failure: the call
was not executed, so it is sent again, later, until it is taken or it has waited for `SECONDS`. All calls of this
process to the host slow down together, and get faster again by and by.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, TypeVar
from urllib.parse import urlsplit

from synapse_media import catalog

SECONDS: float = 120.0
"""So long one call waits at most, in sum, between all its tries, whatever they failed for, and for their turns."""
LONGEST: Final = 20.0
"""Seconds: the longest pause between two calls that are put off, whatever Retry-After says."""
AT_ONCE: Final = 16
"""Calls at once to a host of which the catalog knows nothing else."""
_FIRST: Final = 0.5
"""Seconds of the first pause."""
_APART: Final = 0.02
"""Seconds between the starts of two calls, after the first throttled one; doubled by each further one."""
_MOST_APART: Final = 2.0
CODES: Final = frozenset(
    {
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
    }
)
"""What S3's and IAM's own error documents say of a call that was not executed for there being too many:
botocore's list of throttling codes, without those of other services, and MinIO's two."""
_CODE: Final = re.compile(rb"<Code>\s*([A-Za-z]+)\s*</Code>")
_TOO_MANY: Final = frozenset({429, 503})


def throttled(status: int, body: bytes, *, by_the_store: bool) -> bool:
    """Whether an answer of an S3 or IAM API says that the call was not executed, and may be sent again later.

    Args:
        by_the_store: only where the store's own error document says so. A 429 or 503 of somebody in between does not
            tell what became of the call, and a key must not be made twice.
    """
    match = _CODE.search(body[:4096]) if status >= 400 else None
    if match is not None:
        return match[1].decode() in CODES
    # An answer to HEAD has no document.
    return status in _TOO_MANY and not by_the_store


class ThrottledError(Exception):
    """A store throttled for longer than a call waits. Its text follows "the answer"."""


class TooLongError(Exception):
    """A call would wait for longer than it may."""


class Patience:
    """What one call has waited, and how often it was sent, over all its tries.

    Attributes:
        asked: how often.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._began = time.monotonic()
        self._waited = 0.0

    def take(self, seconds: float) -> None:
        """Count a wait that is about to begin. Raises TooLongError where it is more than is left."""
        if self._waited + seconds > SECONDS:
            raise TooLongError
        self._waited += seconds

    def __str__(self) -> str:
        times = "once" if self.asked == 1 else f"{self.asked} times"
        return f"asked {times} in {max(self._waited, time.monotonic() - self._began):.0f} s"


Answer = TypeVar("Answer")


class Pace:
    """The calls of this process to one host.

    Args:
        at_once: how many at once at most.
    """

    def __init__(self, at_once: int, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self._slots = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._sleep = sleep
        self._apart = 0.0
        self._pause = 0.0
        self._next = 0.0
        self._slowed = 0.0

    @contextmanager
    def call(self, patience: Patience) -> Iterator[float]:
        """Around one try of a call: it waits for its turn. Yields when it began, for `slow_down`.

        Raises TooLongError where its turn comes too late, but never for the first try.
        """
        with self._slots:
            with self._lock:
                now = time.monotonic()
                begins = max(now, self._next)
                if patience.asked:
                    patience.take(begins - now)
                self._next = begins + self._apart
            wait = begins - time.monotonic()
            if wait > 0:
                self._sleep(wait)
            patience.asked += 1
            yield begins

    def patiently(
        self, send: Callable[[], Answer], asked_to_wait: Callable[[Answer], float | None], patience: Patience
    ) -> Answer:
        """The answer to a call that is sent until it is taken. Raises ThrottledError, and what `send` raises.

        Args:
            asked_to_wait: how many seconds an answer asks to be put off at least; None where the call was taken.
        """
        try:
            while True:
                with self.call(patience) as began:
                    answer = send()
                after = asked_to_wait(answer)
                if after is None:
                    self.went_well()
                    return answer
                wait = self.slow_down(began, after)
                patience.take(wait)
                self._sleep(wait)
        except TooLongError:
            raise ThrottledError(
                f"was each time that there are too many requests ({patience}). Nothing was done by this call. "
                "Run this again later, or fewer stacks at once."
            ) from None

    def slow_down(self, began: float, after: float = 0.0) -> float:
        """A call was throttled: how many seconds it has to be put off.

        Args:
            began: when it began. Of several at once that are throttled, the first one slows down all.
            after: what the answer asked for (Retry-After), in seconds.
        """
        with self._lock:
            now = time.monotonic()
            if began >= self._slowed:
                self._apart = min(max(self._apart * 2, _APART), _MOST_APART)
                self._pause = min(max(self._pause * 2, _FIRST), LONGEST)
                self._slowed = now
                self._next = max(self._next, now + min(max(self._apart, after), LONGEST))
            pause = self._pause
        return max(random.uniform(0.5, 1.0) * pause, min(after, LONGEST))  # noqa: S311 - jitter

    def went_well(self) -> None:
        """A call was answered: the next ones may come a little sooner."""
        with self._lock:
            self._pause = 0.0
            self._apart = self._apart * 0.97 if self._apart > _APART / 4 else 0.0


_paces: dict[str, Pace] = {}
_paces_lock = threading.Lock()


def of(url: str) -> Pace:
    """The pace of calls to the host of a URL."""
    host = urlsplit(url).netloc
    with _paces_lock:
        if host not in _paces:
            _paces[host] = Pace(_at_once().get(host, AT_ONCE))
        return _paces[host]


@cache
def _at_once() -> dict[str, int]:
    """{host: calls at once}, of the hosts that the catalog knows by name."""
    found: dict[str, int] = {}
    for provider in map(catalog.load, catalog.names()):
        number = provider.value("calls_at_once")
        if number is None:
            continue
        places = [provider.value("endpoint", ""), provider.value("iam_endpoint", "")]
        urls = {place.replace("{region}", region) for place in places for region in ("", *provider.regions)}
        found |= {urlsplit(url).netloc: int(number) for url in urls if url}
    return found
