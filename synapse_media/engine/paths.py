"""The directories for caches and state, by the XDG base directory specification.

https://specifications.freedesktop.org/basedir-spec/latest/
"""

from __future__ import annotations

import os
from pathlib import Path

from synapse_media.errors import UsageError

_NAME = "synapse-media"


def _base(variable: str, default: str) -> Path:
    """Raises UsageError if there is no home directory, or the path is not UTF-8, which Pulumi can't be told."""
    # The specification says to ignore relative paths.
    value = os.environ.get(variable, "")
    try:
        path = Path(value) if value.startswith("/") else Path.home() / default
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(error.object).decode(errors="replace")
        raise UsageError(f"the path {shown!r} is not UTF-8: set {variable} to one that is") from None
    except RuntimeError:
        # An account without an entry in /etc/passwd, as containers have.
        raise UsageError(f"HOME is not set, and this account has no home directory: set HOME or {variable}") from None
    return path


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
