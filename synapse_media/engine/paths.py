"""The directories for caches and state, by the XDG base directory specification.

https://specifications.freedesktop.org/basedir-spec/latest/
"""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "synapse-media"


def _base(variable: str, default: str) -> Path:
    # The specification says to ignore relative paths.
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / default


def cache_dir() -> Path:
    """The directory for what can be obtained again: the engine and the embedded store's program."""
    path = _base("XDG_CACHE_HOME", ".cache") / _NAME
    path.mkdir(parents=True, exist_ok=True)
    return path


def state_dir() -> Path:
    """The directory for what must be neither lost nor read by others: state, passphrase, the embedded store's data."""
    return private_dir(_base("XDG_STATE_HOME", ".local/state") / _NAME)


def private_dir(path: Path) -> Path:
    """The directory, with mode 0700, created if missing."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
