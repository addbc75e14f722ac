"""Programs of others are run with what they need of the environment, and no secret in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import doctor
from synapse_media.engine import obtain
from synapse_media.engine.obtain import GoProgram, ObtainError
from synapse_media.engine.paths import private_dir
from tests.engine.helpers import Said, script

SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "PULUMI_ACCESS_TOKEN",
    "PULUMI_CONFIG_PASSPHRASE",
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory first on PATH; the environment holds secrets, and what Go needs."""
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("GOPROXY", "https://proxy.example.com")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path / "bin"


def look_at(program: Path, then: str) -> Callable[[], set[str]]:
    """A program that notes the names in its environment; they are what is returned later."""
    note = program.with_suffix(".env")
    script(program, f"env > '{note}'\n{then}")
    return lambda: {line.partition("=")[0] for line in note.read_text().splitlines()}


def test_a_foreign_python(path: Path) -> None:
    seen = look_at(path / "python", "echo 1.7.0")
    assert doctor.module_findings(str(path / "python")) == []
    assert {"PATH", "HOME"} <= seen()
    assert not seen() & set(SECRETS)


def test_go(path: Path, tmp_path: Path, said: Said) -> None:
    seen = look_at(
        path / "go", 'case $1 in version) echo go version go1.99.0 x/y ;; *) for a in "$@"; do :; done; esac'
    )
    source = tmp_path / "source"
    source.mkdir()
    obtain.go_build(GoProgram("some", source, "."), tmp_path / "some", said)
    assert {"PATH", "HOME", "GOPROXY", "https_proxy", "CGO_ENABLED"} <= seen()
    assert not seen() & set(SECRETS)


def test_a_pulumi_that_is_asked_for_its_version(path: Path, said: Said) -> None:
    seen = look_at(path / "pulumi", "echo v3.259.0")
    script(path / "pulumi-language-python", "exit 1")
    assert obtain.obtain_pulumi(said).route == "path"
    assert {"PATH", "PULUMI_SKIP_UPDATE_CHECK"} <= seen()
    assert not seen() & set(SECRETS)


@pytest.mark.usefixtures("path")
def test_the_vendor_s_installer(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def run(_command: Any, log: Path, *, env: dict[str, str], **_: Any) -> str:
        log.touch()
        given.update(env)
        return "not now"

    monkeypatch.setattr(obtain, "_run_watched", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ObtainError, match="not now"):
        obtain._from_vendor(private_dir(tmp_path / "cache") / "pulumi-0", said)
    assert {"PATH", "TMPDIR", "https_proxy"} <= given.keys()
    assert not given.keys() & set(SECRETS)
