"""What the end-to-end tests share. The embedded store itself is a fixture of the conftest above."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synapse_media.contract import StorageOutputs
from synapse_media.engine.embedded import Running
from synapse_media.renderer import render
from tests.end_to_end import synapse
from tests.end_to_end.by_hand import Admin


@pytest.fixture(scope="session")
def admin(embedded_store: Running) -> Admin:
    """The embedded store with root credentials, to provision and to look behind the program under test."""
    return Admin(
        endpoint_url=embedded_store.endpoint,
        iam_endpoint_url=embedded_store.iam_endpoint,
        access_key_id=embedded_store.access_key_id,
        secret_access_key=embedded_store.secret_access_key,
        region=embedded_store.region,
    )


@pytest.fixture(scope="session")
def picture() -> bytes:
    return synapse.picture()


@pytest.fixture
def home(tmp_path: Path) -> synapse.Home:
    """A homeserver of this test's own, not yet running."""
    return synapse.home(tmp_path / "homeserver")


@pytest.fixture
def rendered(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Write what is rendered, in the plain form unless another is given, as it is: rendered path -> file."""

    def write(outputs: StorageOutputs, **arguments: Any) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for name, text in render(outputs, **{"form": "plain", **arguments}).items():
            files[name] = tmp_path / "rendered" / name
            files[name].parent.mkdir(parents=True, exist_ok=True)
            files[name].write_text(text)
        return files

    return write
