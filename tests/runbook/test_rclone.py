"""The commands of a runbook, as a shell reads them."""

from __future__ import annotations

import re

import pytest

from synapse_media.methods import MODULE
from synapse_media.runbook.rclone import Remote
from tests.renderer.samples import store


@pytest.mark.parametrize("addressing", ["path", "virtual"])
@pytest.mark.parametrize("case", ["amazon", "compatible", "keyless"])
def test_what_a_remote_needs_is_exported_once_and_under_its_name(case: str, addressing: str) -> None:
    remote = Remote("old", store(case, MODULE, addressing=addressing, ca_file="/etc/ca.pem"), "S")
    exported = [line for line in remote.configuration if line.startswith("export")]
    names = re.findall(r"(\S+?)=", " ".join(exported))
    assert all(re.fullmatch(r"RCLONE_[A-Z0-9_]+", name) for name in names), exported
    assert not [line for line in exported if re.match(r"export\s+export\b", line)]
    assert len(names) == len(set(names))
    assert any(name.endswith("FORCE_PATH_STYLE") for name in names) == (addressing == "virtual")
