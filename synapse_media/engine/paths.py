"""Where things are kept: the XDG base directories.

https://specifications.freedesktop.org/basedir-spec/latest/
"""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "synapse-media"


def _base(variable: str, default: str) -> Path:
    # The specification: a relative path in one of these is to be ignored.
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / default


def cache_dir() -> Path:
    """What can be obtained again: the engine and the embedded store's program."""
    path = _base("XDG_CACHE_HOME", ".cache") / _NAME
    path.mkdir(parents=True, exist_ok=True)
    return path


def state_dir() -> Path:
    """What must not be lost or read by others: state, passphrase, the embedded store's data (mode 0700)."""
    return private_dir(_base("XDG_STATE_HOME", ".local/state") / _NAME)


def private_dir(path: Path) -> Path:
    """The directory, made if need be, and nobody else's to read."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
