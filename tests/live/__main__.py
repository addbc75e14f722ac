"""`make live STACK=…`: the acceptance of a store on the real service, with the operator's own credentials.

Makes what the stack file says, proves it, changes nothing the second time, rotates the key and retires the old one, and
finds no drift. A keyless store has no key to rotate, and is proved on its instance only: those steps are left out. What
the stand-ins are tried with beside that, is not tried here: nothing is changed by hand, and the store is left as it is;
`synapse-media destroy` is the operator's decision.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from synapse_media import stackfile
from synapse_media.cli import main as command

STEPS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("up", ("up", "--stack", "{stack}", "--yes"), 0),
    ("a second up has nothing to do", ("diff", "--stack", "{stack}"), 0),
    ("nothing drifts by itself", ("diff", "--stack", "{stack}", "--refresh"), 0),
    ("render", ("render", "--stack", "{stack}", "--out", "{out}"), 0),
    ("prove without an admin", ("prove", "--stack", "{stack}"), 0),
    ("a second key", ("rotate", "--stack", "{stack}", "--yes"), 0),
    ("both keys stay", ("diff", "--stack", "{stack}"), 0),
    ("the first key retires", ("rotate", "--stack", "{stack}", "--finish", "--confirm", "--yes"), 0),
    ("the second key still works", ("prove", "--stack", "{stack}"), 0),
    ("no drift at the end", ("diff", "--stack", "{stack}", "--refresh"), 0),
)


OF_A_KEY = frozenset({"prove", "rotate"})
"""Commands that need a key, not a machine's own role."""


def main() -> int:
    """Run every step; 1 at the first that fails."""
    parser = argparse.ArgumentParser(prog="make live", description=__doc__)
    parser.add_argument("stack")
    stack = parser.parse_args().stack
    stores = stackfile.read(stackfile.find_project(), stack).stores.values()
    keyless = any(store.options.get("keyless") for store in stores)
    with tempfile.TemporaryDirectory() as out:
        for name, words, expected in STEPS:
            if keyless and words[0] in OF_A_KEY:
                print(f"== {name}: left out, a store of the stack is keyless", file=sys.stderr)
                continue
            print(f"== {name}", file=sys.stderr)
            code = command([word.format(stack=stack, out=Path(out)) for word in words])
            if code != expected:
                print(f"FAILED: {name}: exit code {code}, expected {expected}", file=sys.stderr)
                return 1
    print(f"passed on {datetime.now(UTC):%Y-%m-%d}: write it into docs/tried.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
