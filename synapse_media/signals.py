"""What the signals that end a process do to a command."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Have SIGTERM (systemd, CI) and SIGHUP (a terminal that is closed) end a run as Ctrl-C does, with its clean-up.

    Raises SystemExit with 128 and the signal's number. A signal that is ignored, as under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread alone
        return

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_line(stream: TextIO) -> None:
    """Wait until a terminal has a line, or its end.

    Python sees a signal that comes in the moment before it reads with the next signal only: the read itself would wait
    for ever. So nothing is read before there is something.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    woken, wakes = socket.socketpair()
    with woken, wakes:
        woken.setblocking(False)
        wakes.setblocking(False)
        before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        try:
            while stream.fileno() not in select.select([stream.fileno(), woken.fileno()], [], [])[0]:
                woken.recv(4096)
        finally:
            signal.set_wakeup_fd(before)
