"""The wheel, built once for all that is installed from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.library import environments


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.build_wheel(tmp_path_factory.mktemp("wheel"))
