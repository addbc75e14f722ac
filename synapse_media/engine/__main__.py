"""`python -m synapse_media.engine`: obtain everything that runs, and be quiet where it is there."""

from __future__ import annotations

import sys

from synapse_media.engine.obtain import obtain_pulumi, obtain_versitygw
from synapse_media.errors import SynapseMediaError


def main() -> int:
    try:
        obtain_versitygw()
        obtain_pulumi()
    except SynapseMediaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. Nothing half-made is left; the next run begins where Go's cache ends.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
