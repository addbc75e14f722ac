"""What is to be transferred, in a temporary file."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest

from synapse_media.media.plan import Plan


def fill() -> None:
    with Plan() as plan:
        plan.add("local_content/aa/bb/cc", 1)
        list(plan.batches())


def test_the_full_disk_of_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else people look at the disk of the media."""
    monkeypatch.setattr(tempfile, "TemporaryFile", functools.partial(Path("/dev/full").open, "w+b"))
    with pytest.raises(OSError, match="No space left on device") as full:
        fill()
    assert full.value.filename == f"a temporary file in {tempfile.gettempdir()} (TMPDIR)"
