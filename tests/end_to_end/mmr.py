"""matrix-media-repo v1.3.8's own configuration and datastore packages, run on files as they are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.end_to_end import built


class ReaderError(Exception):
    """matrix-media-repo's code refused; the text is its own."""


def show(config: Path) -> list[dict[str, Any]]:
    """The datastores of a file, or of a directory of files: Type, Id, MediaKinds, Options (all strings)."""
    datastores: list[dict[str, Any]] = json.loads(_run(config, "show"))
    return datastores


def store(config: Path, kind: str, content: bytes) -> str:
    """Store content in the datastore for this kind, have it read back and compared; returns its key or path there."""
    return _run(config, "store", kind, stdin=content).decode().strip()


def remove(config: Path, kind: str, place: str) -> None:
    _run(config, "remove", kind, place)


def _run(config: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    program = built.go_program(built.HERE / "mmr", ".")
    done = subprocess.run(
        [str(program), *arguments],
        cwd=config.parent,
        env={"REPO_CONFIG": str(config)},
        input=stdin,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ReaderError(done.stderr.decode()[-4000:])
    return done.stdout
