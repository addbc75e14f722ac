"""The embedded store for measurements: its IAM service takes as long for a thousand users as for one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from synapse_media.engine import embedded
from synapse_media.engine.obtain import obtain_versitygw
from tests.end_to_end.built import go_program

IAM = Path(__file__).resolve().parent / "iam"


@contextmanager
def running(name: str, folder: Path) -> Iterator[embedded.Running]:
    """The embedded store with the IAM service in `iam/`, until the end of the block.

    Args:
        folder: for the program that chooses between the two.
    """
    gateway, iam = obtain_versitygw(), go_program(IAM, ".")
    program = folder / "store"
    choice = f'if [ "$1" = iam ]; then exec {shlex.quote(str(iam))} "$@"; fi'
    program.write_text(f'#!/bin/sh\n{choice}\nexec {shlex.quote(str(gateway))} "$@"\n')
    program.chmod(0o700)
    with mock.patch.object(embedded, "obtain_versitygw", return_value=program):
        started = embedded.start(name=name)
    try:
        yield started
    finally:
        embedded.wipe(name=name)
