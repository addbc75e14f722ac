"""`python -m synapse_media.engine`: obtain the engine, the embedded store, rclone; prints nothing if they are there."""

from __future__ import annotations

import sys

from synapse_media.engine.obtain import obtain_pulumi, obtain_rclone, obtain_versitygw
from synapse_media.errors import SynapseMediaError


def main() -> int:
    try:
        obtain_versitygw()
        obtain_rclone()
        obtain_pulumi()
    except SynapseMediaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. No partial files are left; the next run continues from Go's cache.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
