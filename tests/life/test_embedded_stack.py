"""`make up`, `make down` and `make clean`: the commands behind them, on the real engine and the real store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_media.cli import embedded as command
from synapse_media.cli import main
from synapse_media.engine import embedded
from tests.providers.project import stack


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project, with a state directory of its own that holds another stack as well."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "project").mkdir()
    stack(tmp_path / "project", "another", {})
    monkeypatch.chdir(tmp_path / "project")
    yield tmp_path / "project"
    embedded.wipe()


def test_up_again_another_method_down_and_clean(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["embedded", "up"]) == 0
    printed = capfd.readouterr().out
    for expected in (
        "bucket     matrix-example-com-media at http://127.0.0.1:",
        "may not    ",
        "init prod",
        "up --stack prod",
    ):
        assert expected in printed
    rendered = project / "out/embedded"
    drop_in = rendered / "plain/matrix.example.com/conf.d/synapse-media.yaml"
    first = (drop_in.read_bytes(), drop_in.stat().st_mtime_ns)
    assert drop_in.stat().st_mode & 0o777 == 0o600

    assert main(["embedded", "up"]) == 0
    assert "no changes" in capfd.readouterr().err
    assert (drop_in.read_bytes(), drop_in.stat().st_mtime_ns) == first

    assert main(["embedded", "up", "--method", "goofys"]) == 0
    assert (
        not (rendered / "plain/matrix.example.com/INSTALL.md")
        .read_text()
        .startswith("# matrix.example.com: media on S3 with synapse")
    )
    store = json.loads((rendered / "plain/matrix.example.com/store.json").read_text())
    assert store["method"] == "goofys"
    assert not (rendered / "plain/matrix.example.com/docker").exists()

    assert main(["embedded", "stop"]) == 0
    assert main(["embedded", "status"]) == 1
    assert main(["diff", "--stack", "embedded"]) == 1
    assert "start it with" in capfd.readouterr().err
    assert main(["embedded", "up"]) == 0
    assert "no changes" in capfd.readouterr().err

    assert main(["embedded", "clean"]) == 1
    assert "YES=embedded answers" in capfd.readouterr().err
    assert rendered.exists()
    monkeypatch.setenv("YES", "embedded")
    assert main(["embedded", "clean"]) == 0
    assert embedded.status() is None
    assert not rendered.exists()
    assert not (project / "stacks/Pulumi.embedded.yaml").exists()
    state = project.parent / "state/synapse-media"
    assert [path.name for path in state.rglob("another*.json")]
    assert (state / "passphrase").exists()
    assert not list(state.rglob("embedded.json"))


def test_up_over_tls(project: Path) -> None:
    assert main(["embedded", "up", "--tls"]) == 0
    store = json.loads((project / "out/embedded/plain" / command.SERVER_NAME / "store.json").read_text())
    assert store["endpoint_url"].startswith("https://")
    assert Path(store["ca_file"]).is_file()
    assert all(line["outcome"] == line["expected"] for line in store["proof"]["lines"])
