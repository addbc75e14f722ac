"""Fixtures for all tests: directories, the engine, an embedded store and PostgreSQL, separate for each run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from synapse_media import catalog
from synapse_media.engine import embedded
from synapse_media.engine.obtain import Toolchain, obtain_pulumi
from tests.end_to_end import postgresql

# On a busy machine an example may take any time: no test is one of speed.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# What a developer may have set, and no test may depend on.
_VENDORS = {name.split("_")[0] for entry in catalog.names() for name in catalog.load(entry).admin_variables}
_FOREIGN = ("PULUMI_", *(f"{vendor}_" for vendor in sorted(_VENDORS)))
_KEPT = ("AWS_CA_BUNDLE",)

# Under nohup, or as a background job, both are ignored, by the commands that a test starts and then signals too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """XDG directories of the run's own, except the cache: the engine takes minutes to build."""
    base = tmp_path_factory.mktemp("xdg")
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith(_FOREIGN) and name not in _KEPT]:
            patch.delenv(variable)
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.setenv(variable, str(base / variable))
        # A vendor's own plugin on PATH must not step in for its stand-in.
        patch.setenv("PULUMI_IGNORE_AMBIENT_PLUGINS", "true")
        yield base


@pytest.fixture(scope="session")
def engine_toolchain() -> Toolchain:
    """The real engine, built where it is not in the user's cache."""
    return obtain_pulumi()


@pytest.fixture(scope="session")
def embedded_store(own_directories: Path) -> Iterator[embedded.Running]:
    """A real store over http, shared by the run: use bucket and user names of your own."""
    running = embedded.start(name="tests")
    yield running
    embedded.wipe(name="tests")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A real PostgreSQL, shared by the run: empty its database before use."""
    at = postgresql.programs()
    if at is None:
        pytest.skip("no PostgreSQL here (Debian: apt install postgresql)")
    with postgresql.running(at) as server:
        yield server
