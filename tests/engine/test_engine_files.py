"""Files and directories that others may not read, written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from synapse_media.engine import files, paths
from synapse_media.errors import UsageError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    assert files.write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_to_write_wins_where_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert files.write_private(path, "first", replace=False) is True
    assert files.write_private(path, "second", replace=False) is False
    assert (path.read_text(), mode(path)) == ("first", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    files.write_private(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_private(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_state_directory_is_private_even_if_it_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "synapse-media").mkdir(mode=0o755)
    assert paths.state_dir() == tmp_path / "synapse-media"
    assert mode(paths.state_dir()) == 0o700


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_a_base_directory_that_is_not_absolute_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", value)
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert paths.state_dir() == tmp_path / ".local/state/synapse-media"
    assert paths.cache_dir() == tmp_path / ".cache/synapse-media"


def test_an_account_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's random user ID, for which /etc/passwd has no entry."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UsageError, match="set HOME or XDG_STATE_HOME"):
        paths.state_dir()


def test_a_base_directory_whose_name_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/\udcff")
    with pytest.raises(UsageError, match="is not UTF-8: set XDG_STATE_HOME"):
        paths.state_dir()
    assert list(tmp_path.iterdir()) == []
