"""Nobody sits before a silent terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse_media.engine import session
from synapse_media.engine.session import Engine
from tests.engine.helpers import Said


@pytest.mark.parametrize(("silence", "told"), [(0.0, True), (60.0, False)])
def test_what_takes_long_is_named(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, silence: float, told: bool
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: tiny\nruntime: yaml\n")
    monkeypatch.setattr(session, "_ANNOUNCE_AFTER", silence)
    Engine(tmp_path, say=said).run(["version"])
    assert ("waiting for `pulumi version` …" in said.lines) is told
