"""Nobody sits before a silent terminal where it is not pulumi that is waited for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse_media import contract
from synapse_media.cli import abort_uploads, credentials, doctor, main, stacks, up
from synapse_media.engine import session
from synapse_media.guards.applied import Applied, Bucket
from synapse_media.guards.changes import Change
from synapse_media.plugin import look
from synapse_media.store import probes
from tests.cli.shapes import answer
from tests.cli.test_commands import project as project  # noqa: PLC0414 - a fixture
from tests.renderer import samples

STORE = samples.store("compatible")


@pytest.fixture
def answered_when_told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Callable[..., Any]]:
    """A call that returns once the message was shown; None if it never is."""
    told = threading.Event()
    monkeypatch.setattr(session, "_ANNOUNCE_AFTER", 0)
    monkeypatch.setattr(stacks, "say", lambda line: told.set() if line.startswith("waiting for ") else None)

    def slow(answer: Any) -> Callable[..., Any]:
        return lambda *_, **__: answer if told.wait(30) else None

    return slow


Slow = Callable[[Any], Callable[..., Any]]


def test_prove(answered_when_told: Slow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps(contract.to_json(STORE)))
    monkeypatch.setattr(probes, "prove", answered_when_told(()))
    assert main(["prove", "--store", str(tmp_path / "store.json")]) == 0


def test_is_there_media(answered_when_told: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "look", answered_when_told(True))
    session = SimpleNamespace(credentials=nullcontext)
    assert "holds media" in stacks.media_in(
        session, Bucket("urn", "s3store:index:Bucket", {"bucket": "b"}), Applied("a")
    )


def test_abort_uploads(answered_when_told: Slow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps(contract.to_json(STORE)))
    monkeypatch.setattr(abort_uploads, "client_of", lambda *_: None)
    monkeypatch.setattr(abort_uploads, "stale", answered_when_told([]))
    assert main(["abort-uploads", "--store", str(tmp_path / "store.json")]) == 0


@pytest.mark.usefixtures("project")
def test_the_look_at_the_admin_credential(
    answered_when_told: Slow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(credentials, "findings", answered_when_told([]))
    monkeypatch.setattr(doctor, "state_findings", lambda *_: [])
    assert main(["init", "prod", "--provider", "wasabi", "--region", "eu-central-2", "--server-name", "a.example"]) == 0
    assert main(["doctor", "--stack", "prod", "--json"]) == 0
    assert answer("doctor", capsys.readouterr().out.partition("--out DIR\n")[2])["findings"] == []


def test_what_takes_long_at_a_provider_is_said_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(stacks, "say", said.append)
    made = SimpleNamespace(provider="amazon_s3", uses_store=True)
    here = SimpleNamespace(stack=SimpleNamespace(stores={"a.example.com": made}))
    rules = "BucketLifecycleConfiguration"
    changes = [Change("create", "a.example.com", rules), Change("delete", "a.example.com", rules)]
    up._say_what_is_slow(here, [*changes, Change("create", "b.example.com", rules)])  # type: ignore[arg-type]
    assert said == [
        "create BucketLifecycleConfiguration of a.example.com takes 30 to 55 seconds: pulumi-aws waits until S3 shows "
        "the lifecycle rules steadily"
    ]
