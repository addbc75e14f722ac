"""The versions this package is built and tested with.

The two Pulumi pins equal those in `sources/*/go.mod`, which a test checks: the newest `pulumi/pkg` whose source a Go
module proxy serves, and the newest `pulumi/sdk` that still contains the Python language host.
"""

from __future__ import annotations

PULUMI = "3.259.0"
LANGUAGE_HOST = "3.68.0"
VERSITYGW = "1.8.0"
RCLONE = "1.75.0"
MINIMUM_GO = (1, 25)

# The oldest `rclone` on PATH that is used: Debian 12's.
MINIMUM_RCLONE = (1, 60)

# The oldest `pulumi` on PATH that is used; the major version must be the same.
MINIMUM_PULUMI = (3, 259, 0)
