"""Faults, counted: kill and disturb `up`, `rotate` and `destroy` at random moments, run `up` again, and look.

    make faults                       100 trials
    make faults N=20 SEED=1234        the first 20 of a run that is known by its seed
    make faults STORES=3              three stores in the stack: one is changed, the others must not notice
    make faults SAVED=at-end          with the state written at the end of each run only (each-step: after every step)
    make faults PATIENCE=900          on a busy machine: a command that takes longer is counted as broken (240 s)
    python -m tests.faults --seed 1234 --walk 7      one walk of it: a store's life, with a fault in each step

Exit code 1 if anything that must hold did not.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from synapse_media.cli import checkpoints
from tests.conftest import _FOREIGN
from tests.faults.trial import KINDS, Trial, attempt, draw, life
from tests.faults.world import BrokenError, World, world


def walk(here: World, trials: list[Trial], tell: Callable[[Trial, str], None]) -> None:
    """A store's life from nothing to nothing, with a fault in every step of it.

    Raises BrokenError, or whatever a look at the store fails with.
    """
    for trial in trials:
        started = time.monotonic()
        try:
            struck = attempt(here, trial)
            here.check_media()
            here.put_media()
        except Exception:
            tell(trial, "BROKEN")
            raise
        tell(trial, f"survived, {time.monotonic() - started:.0f} s" if struck else "missed")
    # The known ways out still work.
    here.write("delete-bucket", "delete-media", everywhere=True)
    code, said = here.run("destroy", "--yes")
    if code:
        raise BrokenError(f"`destroy` ended with {code}:\n{said[-3000:]}")
    here.check_nothing()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=100, help="how many faults must have struck (100)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of an earlier run, to have it again")
    parser.add_argument("--stores", type=int, default=1, help="how many the stack has (1)")
    parser.add_argument(
        "--saved", default="", choices=("each-step", "at-end"), help="how often the state is written (decided)"
    )
    parser.add_argument("--walk", type=int, help="only this walk")
    wanted = parser.parse_args(arguments)
    print(f"seed {wanted.seed}", flush=True)
    survived: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    hurt: Counter[str] = Counter()

    def tell(trial: Trial, how: str) -> None:
        {"missed": missed, "BROKEN": hurt}.get(how, survived)[trial.kind] += 1
        print(f"  {trial}: {how}", flush=True)

    broken: list[str] = []
    number = wanted.walk or 0
    while sum(survived.values()) + len(broken) < wanted.n if wanted.walk is None else number == wanted.walk:
        print(f"walk {number}", flush=True)
        with tempfile.TemporaryDirectory(prefix="synapse-media-faults-") as folder:
            try:
                with world(Path(folder), f"walk-{number}", wanted.stores) as here:
                    here.environment = {checkpoints.VARIABLE: wanted.saved}
                    seed = f"{wanted.seed}/{number}"
                    walk(here, [draw(seed, action, wanted.stores) for action in life(seed)], tell)
            except Exception as error:  # noqa: BLE001 - whatever it is, the counts are reported
                words = str(error) if isinstance(error, BrokenError) else traceback.format_exc()
                broken.append(f"seed {wanted.seed}, {wanted.stores} stores, walk {number}: {words}")
                print(f"  {words}", flush=True)
        number += 1
    for kind in KINDS:
        tried = survived[kind] + hurt[kind]
        print(f"{kind:>14}: {tried} tried, {survived[kind]} survived, {hurt[kind]} broken; {missed[kind]} missed")
    outside = len(broken) - sum(hurt.values())
    print(
        f"{sum(survived.values())} survived, {len(broken)} broken"
        f"{f', {outside} of them outside of a trial' if outside else ''}; seed {wanted.seed}"
    )
    print("\n".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    for variable in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[variable]
    with tempfile.TemporaryDirectory(prefix="synapse-media-xdg-") as base:
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            os.environ[variable] = f"{base}/{variable}"
        sys.exit(main())
