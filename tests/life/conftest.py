"""Fixtures: a stack that is not made yet, and one whose store exists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_media.engine.embedded import Running
from tests.life.life import Life
from tests.providers.project import stack


@pytest.fixture
def begin(
    embedded_store: Running,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Callable[[], Life]:
    """A new stack with a unique bucket name; nothing is created yet."""

    def made() -> Life:
        # The names of parametrized tests begin alike, and stacks of one name would share their state.
        unique = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
        slug = "".join(letter for letter in request.node.name.lower() if letter.isalnum())[:30] + unique
        environment = {
            "S3_ACCESS_KEY_ID": embedded_store.access_key_id,
            "S3_SECRET_ACCESS_KEY": embedded_store.secret_access_key,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        project = tmp_path / "project"
        project.mkdir()
        found = stack(project, slug, environment)
        monkeypatch.chdir(project)
        bucket = f"life-{slug}"
        return Life(found, embedded_store, bucket, f"synapse-media-{bucket}", capfd)

    return made


@pytest.fixture
def life(begin: Callable[[], Life]) -> Life:
    """A stack whose store exists and is proved."""
    new = begin()
    new.store()
    code, printed = new.command("up", "--yes")
    assert code == 0, printed
    return new
