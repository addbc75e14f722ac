"""How fast a store is asked: so many calls at once at most, and slower where it says so."""

from __future__ import annotations

import threading

import pytest

from synapse_media import catalog
from synapse_media.store import pace


@pytest.mark.parametrize(
    ("status", "body", "anybody", "store"),
    [
        (503, b"<Error><Code>SlowDown</Code></Error>", True, True),
        (429, b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>", True, True),
        (400, b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>", True, True),
        # Somebody in between, who may have passed the call on; or the answer to HEAD.
        (503, b"", True, False),
        (429, b"<html>Too many requests</html>", True, False),
        # The store's own word for something else.
        (503, b"<Error><Code>ServiceUnavailable</Code></Error>", False, False),
        (409, b"<ErrorResponse><Error><Code>LimitExceeded</Code></Error></ErrorResponse>", False, False),
        (500, b"<Error><Code>InternalError</Code></Error>", False, False),
        (200, b"<Code>SlowDown</Code>", False, False),
    ],
)
def test_what_is_throttled(status: int, body: bytes, anybody: bool, store: bool) -> None:
    assert pace.throttled(status, body, by_the_store=False) is anybody
    assert pace.throttled(status, body, by_the_store=True) is store


def test_no_more_calls_at_once_than_that() -> None:
    rhythm = pace.Pace(3)
    inside, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(3)

    def call() -> None:
        nonlocal inside, most
        with rhythm.call(pace.Patience()):
            with lock:
                inside += 1
                most = max(most, inside)
            full.wait()
            with lock:
                inside -= 1

    threads = [threading.Thread(target=call) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3


def test_a_throttled_call_is_sent_again_until_it_is_taken() -> None:
    slept: list[float] = []
    rhythm = pace.Pace(1, sleep=slept.append)
    answers = iter([503, 503, 200])
    assert (
        rhythm.patiently(lambda: next(answers), lambda status: None if status == 200 else 7.0, pace.Patience()) == 200
    )
    # As long as Retry-After says, at least.
    assert slept.count(7.0) == 2


def test_it_ends_where_a_store_does_nothing_but_throttle() -> None:
    slept: list[float] = []
    rhythm = pace.Pace(1, sleep=slept.append)
    said = r"was each time that there are too many requests \(asked \d+ times in 1[012]\d s\)"
    with pytest.raises(pace.ThrottledError, match=said):
        rhythm.patiently(lambda: 503, lambda _: 0.0, pace.Patience())
    assert max(slept) <= pace.LONGEST
    with pytest.raises(pace.ThrottledError):
        rhythm.patiently(lambda: 503, lambda _: 9999.0, pace.Patience())
    assert max(slept) <= 2 * pace.LONGEST


def test_what_a_call_waits_for_its_turn_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    rhythm = pace.Pace(1, sleep=sleep)

    def others_come_first() -> int:
        rhythm._next = now + 20 + 12
        return 503

    with pytest.raises(pace.ThrottledError, match=r"asked 4 times in 1[012]\d s"):
        rhythm.patiently(others_come_first, lambda _: 20.0, pace.Patience())
    assert sum(slept) <= pace.SECONDS


def test_of_several_calls_that_are_throttled_together_one_slows_down_all() -> None:
    rhythm = pace.Pace(8, sleep=lambda _: None)
    with rhythm.call(pace.Patience()) as first, rhythm.call(pace.Patience()) as second:
        pass
    rhythm.slow_down(first)
    apart = rhythm._apart
    assert apart > 0
    rhythm.slow_down(second)
    assert rhythm._apart == apart
    # And faster again.
    for _ in range(200):
        rhythm.went_well()
    assert rhythm._apart == 0


def test_the_catalog_says_how_many_at_once() -> None:
    storj = catalog.load("storj")
    assert pace._at_once()[storj.value("endpoint").removeprefix("https://")] == storj.value("calls_at_once") == 8
    assert pace.of("https://s3.example.com/x") is pace.of("https://s3.example.com")
