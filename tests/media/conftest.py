"""A media store and its bucket on the embedded store."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_media.engine.embedded import Running
from tests.media.worlds import World, world


@pytest.fixture(params=["", "media/"], ids=["whole-bucket", "prefix"])
def at(
    request: pytest.FixtureRequest, embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> World:
    return world(embedded_store, tmp_path, capsys, request.param)


@pytest.fixture
def one(embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return world(embedded_store, tmp_path, capsys)
