"""A store's whole life, and a search of all that was printed or written in it for every secret that there was."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from synapse_media.store import tracing
from tests.life.life import Life

WRONG = "wrong+secret/0123456789abcdef="
SHOWING = ("--diff", "--show-reads", "--show-sames", "--show-replacement-steps")


def forms(secret: str) -> Iterator[str]:
    """As it may stand in a text or a file. Base64 of what comes right before it is taken for three lengths."""
    yield from (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
    for before in ("", "x", "xx"):
        encoded = base64.b64encode(before.encode() + secret.encode())
        yield encoded[4:-4].decode()


class Everything:
    """What a life printed and left behind: each command's output, and every file in these places."""

    def __init__(self, life: Life, places: list[Path]) -> None:
        self.life = life
        self.places = places
        self.printed: list[str] = []
        self.secrets: set[str] = set()
        self.own: set[Path] = set()

    def command(self, *arguments: str, code: int = 0) -> str:
        got, printed = self.life.command(*arguments)
        assert got == code, printed
        self.printed.append(printed)
        self.learn()
        return printed

    def learn(self) -> None:
        """Whatever the state has encrypted by now is a secret."""
        run = self.life.stack.engine.run
        shown = run(["stack", "export", "--show-secrets", "--stack", self.life.stack.name]).stdout
        for resource in json.loads(shown)["deployment"].get("resources") or ():
            self.secrets |= set(_plaintexts(resource))

    def found(self) -> list[str]:
        """Where a secret stands, and which."""
        wanted = {form for secret in self.secrets for form in forms(secret)}
        texts = {f"what command {number} printed": printed for number, printed in enumerate(self.printed)}
        for place in self.places:
            for path in place.rglob("*"):
                if path.is_file() and not path.is_symlink() and path not in self.own:
                    raw = path.read_bytes()
                    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
                    texts[str(path)] = raw.decode(errors="replace")
        assert len(texts) > 20
        assert any("/pulumi-home/logs/" in place for place in texts)
        return [f"{form} in {place}" for place, text in texts.items() for form in wanted if form in text]


def _plaintexts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "plaintext" in value:
            yield from _texts(json.loads(value["plaintext"]))
        for item in value.values():
            yield from _plaintexts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _plaintexts(item)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


@pytest.fixture
def everything(begin: Callable[[], Life], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Everything:
    """Nothing exists yet. Every call is shown, and the engine logs everything."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    for name, value in {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TMPDIR": str(temporary),
        "PULUMI_DEBUG_GRPC": str(temporary / "grpc.json"),
        "PULUMI_DEBUG_COMMANDS": "true",
        "PULUMI_OPTION_DEBUG": "true",
        "PULUMI_OPTION_SHOW_SECRETS": "true",
        "TF_LOG": "TRACE",
        "TF_LOG_PATH": str(temporary / "terraform.log"),
        tracing.VARIABLE: "1",
    }.items():
        monkeypatch.setenv(name, value)
    # With a directory for them, the engine writes logs, as it does where an earlier release has made one.
    logs = tmp_path / "state/synapse-media/pulumi-home/logs"
    logs.mkdir(parents=True)
    life = begin()
    found = Everything(life, [tmp_path])
    passphrase = Path(life.stack.engine.environment["PULUMI_CONFIG_PASSPHRASE_FILE"])
    found.own.add(passphrase)
    found.secrets |= {passphrase.read_text().strip(), life.running.secret_access_key, WRONG}
    return found


def test_no_secret_is_printed_or_written_in_a_store_s_life(
    everything: Everything, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life, command = everything.life, everything.command
    life.store("delete-bucket")
    command("up", "--yes", "--", *SHOWING)
    first = life.stack.outputs().secret_access_key
    assert first in everything.secrets
    command("diff", "--refresh")
    command("prove")
    command("doctor")
    command("render", "--secrets", "reference", "--out", str(tmp_path / "reference"))
    command("rotate", "--yes")
    second = life.stack.outputs().secret_access_key
    assert second != first
    assert second in everything.secrets
    command("render", "--diff", "--secrets", "reference", "--out", str(tmp_path / "reference"), code=2)
    command("rotate", "--finish", "--confirm", "--yes")
    command("abort-uploads")

    # A proof that fails.
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"}]}
    life.iam.put_user_policy(UserName=life.user, PolicyName="by-hand", PolicyDocument=json.dumps(deny))
    assert "FAILED" in command("prove", code=1)
    life.store("delete-bucket", "widen-policy", method="goofys", keys={"active": "b"})
    assert "failed" in command("up", "--yes", code=1)
    life.iam.delete_user_policy(UserName=life.user, PolicyName="by-hand")
    command("up", "--refresh", "--yes")

    # An admin credential that is wrong, malformed, or in the other's place.
    with monkeypatch.context() as wrong:
        wrong.setenv("S3_SECRET_ACCESS_KEY", WRONG)
        assert "was not accepted" in command("doctor", code=1)
        command("up", "--refresh", "--yes", code=1)
    for value in (f"{WRONG}\n", f"'{WRONG}'", f"{WRONG[:8]}\r\n{WRONG[8:]}"):
        with monkeypatch.context() as wrong:
            wrong.setenv("S3_SECRET_ACCESS_KEY", value)
            for name, more in (("doctor", ()), ("up", ("--yes",)), ("destroy", ("--yes",))):
                printed = command(name, *more, code=1)
                assert "S3_SECRET_ACCESS_KEY has a " in printed
                assert WRONG[:8] not in printed
                assert WRONG[8:] not in printed
    with monkeypatch.context() as wrong:
        wrong.setenv("S3_ACCESS_KEY_ID", life.running.secret_access_key)
        wrong.setenv("S3_SECRET_ACCESS_KEY", life.running.access_key_id)
        command("doctor", code=1)
        command("up", "--refresh", "--yes", code=1)

    # What would show them.
    for option in ("--debug", "--json", "--show-secrets", "-v=9", "--logtostderr", f"--tracing=file:{tmp_path}/trace"):
        assert "is refused" in command("up", "--yes", "--", option, code=64)

    command("destroy", "--yes", "--", "--diff")
    assert len(everything.secrets) >= 5
    assert not (tmp_path / "temporary/grpc.json").exists()
    assert everything.found() == []
    # The search finds what there is: each passphrase has its file.
    everything.own.clear()
    assert len(everything.found()) == 1


def test_the_search_would_find_what_the_engine_shows_when_asked(everything: Everything) -> None:
    """Past our command, so that it is known that the options are refused for a reason."""
    life = everything.life
    life.store("delete-bucket")
    everything.command("up", "--yes")
    engine = life.stack.engine
    done = engine.run(["up", "--yes", "--skip-preview", "--stack", life.stack.name, "--debug", "--refresh"])
    everything.printed.append(done.stdout + done.stderr)
    engine.environment["PULUMI_DEBUG_GRPC"] = os.environ["PULUMI_DEBUG_GRPC"]
    engine.run(["refresh", "--yes", "--stack", life.stack.name])
    where = "\n".join(everything.found())
    assert f"{life.stack.outputs().secret_access_key} in what command" in where
    assert "grpc.json" in where
