"""A media store and its bucket on the embedded store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_media.engine.embedded import Running
from tests.media.worlds import World, lent


@pytest.fixture(params=["", "media/"], ids=["whole-bucket", "prefix"])
def at(
    request: pytest.FixtureRequest, embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[World]:
    with lent(embedded_store, tmp_path, capsys, request.param) as made:
        yield made


@pytest.fixture
def one(embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    with lent(embedded_store, tmp_path, capsys) as made:
        yield made
