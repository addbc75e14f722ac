"""What is to be transferred, in a temporary file."""

from __future__ import annotations

import errno
import functools
import tempfile
from pathlib import Path

import pytest

from synapse_media.media.plan import Plan, RoomError


def fill() -> None:
    with Plan() as plan:
        plan.add("local_content/aa/bb/cc", 1)
        list(plan.batches())


def test_the_full_disk_of_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else people look at the disk of the media."""
    monkeypatch.setattr(tempfile, "TemporaryFile", functools.partial(Path("/dev/full").open, "w+b"))
    with pytest.raises(RoomError) as full:
        fill()
    assert str(full.value) == (
        f"{tempfile.gettempdir()} is full (No space left on device), and a list of the files, about 100 bytes for "
        "each, is written there. What was done before is whole. Make room there, or name another directory by TMPDIR, "
        "and run this again."
    )


def test_another_error_names_the_disk_of_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(OSError, match="Read-only file system") as failed:
        fill()
    assert failed.value.filename == f"a temporary file in {tempfile.gettempdir()} (TMPDIR)"
