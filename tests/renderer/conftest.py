from __future__ import annotations

import pytest

from synapse_media.cli import render
from tests.renderer import readers


@pytest.fixture(autouse=True)
def no_store_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples name real vendors' endpoints, and keys that were never issued."""
    monkeypatch.setattr(render, "_ask", lambda *_: None)


@pytest.fixture(scope="session")
def ansible() -> readers.Ansible:
    return readers.Ansible()
