"""The versions this package was built and tried with.

The two Go pins are those of `sources/*/go.mod`; the tests compare them. Why these: the newest `pulumi/pkg` whose
source a Go module proxy serves, and the newest `pulumi/sdk` that still had the Python language host in it.
"""

from __future__ import annotations

PULUMI = "3.259.0"
LANGUAGE_HOST = "3.68.0"
VERSITYGW = "1.8.0"
MINIMUM_GO = (1, 25)

# A `pulumi` of the user's own is taken from this version on, within its major version.
MINIMUM_PULUMI = (3, 259, 0)
