"""`python -m synapse_media.engine`: obtain the engine, the embedded store, rclone; prints nothing if they are there.

The other two are built beside the engine, in a process of its own (`python -m synapse_media.engine beside`): most of
the time of each is one thread that links.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from synapse_media.engine.obtain import (
    ObtainError,
    has_versitygw,
    obtain_pulumi,
    obtain_rclone,
    obtain_versitygw,
    require_go,
)
from synapse_media.errors import SynapseMediaError

_BESIDE = "beside"


def main() -> int:
    try:
        if sys.argv[1:] == [_BESIDE]:
            obtain_versitygw()
            obtain_rclone()
        else:
            with _others_beside():
                obtain_pulumi()
            obtain_rclone()
    except SynapseMediaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. No partial files are left; the next run continues from Go's cache.", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _others_beside() -> Iterator[None]:
    """Build the embedded store and rclone meanwhile, and show what was said at the end. Raises ObtainError."""
    if has_versitygw():
        yield
        return
    require_go()
    print("Building the embedded store and rclone beside the engine …", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "synapse_media.engine", _BESIDE]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as child:
            try:
                yield
                child.wait()
            finally:
                # Nothing where it is done. Else it removes what it had begun.
                child.terminate()
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    if child.returncode:
        raise ObtainError(text or f"the embedded store or rclone could not be built (code {child.returncode})")
    if text:
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
