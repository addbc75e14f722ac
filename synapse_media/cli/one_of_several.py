"""`python -m synapse_media.cli.one_of_several`: the command on one stack, started by the command on several.

It ends in order, as by SIGTERM, when the process that started it is gone without a word, as by SIGKILL: nobody would
see how it ends, and the next run would find the stack locked.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from . import main

_MAIN = threading.get_ident()


def _follow_starter() -> None:
    """Have this process get SIGTERM once standard input ends: its other end is open as long as the starter lives."""
    ours = os.dup(sys.stdin.fileno())  # not inherited
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    threading.Thread(target=_wait, args=(ours,), daemon=True).start()


def _wait(ours: int) -> None:
    while os.read(ours, 1):
        pass
    # To the thread that has the handler, wherever it waits.
    signal.pthread_kill(_MAIN, signal.SIGTERM)


if __name__ == "__main__":
    _follow_starter()
    sys.exit(main())
