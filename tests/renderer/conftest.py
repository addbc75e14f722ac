from __future__ import annotations

import pytest

from tests.renderer import readers


@pytest.fixture(scope="session")
def ansible() -> readers.Ansible:
    return readers.Ansible()
