"""Files of unknown content: limited in size, and refused with a message; never a traceback."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from synapse_media import settings, stackfile
from synapse_media.cli import main
from synapse_media.engine.session import EngineError, backend_of
from synapse_media.errors import Problem, SettingsError, StoreError, SynapseMediaError, UsageError
from synapse_media.lint import reading
from synapse_media.schema.connection import Connection
from synapse_media.store import credentials
from synapse_media.store.clients import Credential, s3_client
from synapse_media.store.http import trusting
from tests.core.test_stackfile import GOOD

MUTANTS = int(os.environ.get("FILE_MUTANTS", "400"))

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
REFUSED = {
    "a date there is none of": "2026-02-30",
    "no number": "0x_",
    "a long number": "9" * 5_000,
    "a long hexadecimal number": "0x" + "f" * 5_000,
    "a tag that does not fit": "!!int x",
    "another": "!!float x",
    "a time": "!!timestamp x",
    "bytes": "!!binary ä",
    "truth": "!!bool x",
    "pairs": "!!omap [x]",
    "more pairs": "!!pairs [x]",
    "a set": "!!set [x]",
    "deep": "[" * 3_000 + "]" * 3_000,
    "deep blocks": "\n" + "".join(" " * n + "- \n" for n in range(1, 400)),
    "itself": "&a [*a]",
    "a key that is a list": "{[a]: b}",
    "merged with a list": "{<<: [a]}",
    "merged with text": "{<<: a}",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: synapse-media\n")
    return tmp_path


def put(project: Path, content: str | bytes) -> Path:
    path = project / "Pulumi.s.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    "form", ["config: {acme:x: %s}\n", "config:\n  synapse-media:stores: {example.com: {bucket: %s}}\n"]
)
def test_a_value_that_can_t_be_read_is_refused_in_words(project: Path, form: str, value: str) -> None:
    path = put(project, form.replace("%s", value))
    with pytest.raises(SynapseMediaError) as refused:
        stackfile.read(project, "s")
    assert len(str(refused.value)) < 3000
    # The other reader says it of the file, or takes it as it is written.
    assert isinstance(reading.read(path), reading.Document)


@pytest.mark.parametrize("text", [BOMB, f"config:\n  synapse-media:stores: {{a.example.com: {{bucket: 1}}}}\n{BOMB}"])
def test_anchors_are_counted_each_time(project: Path, text: str) -> None:
    path = put(project, text)
    with pytest.raises(stackfile.StackFileError, match=r"more than 20,000 values .anchors counted each time"):
        stackfile.read(project, "s")
    assert "anchors counted" in reading.read(path).problem


def test_a_file_is_read_to_a_length(project: Path) -> None:
    put(project, "a: " + "x" * 16_000_000)
    with pytest.raises(stackfile.StackFileError, match="more than 1,000,000 bytes"):
        stackfile.read(project, "s")


def test_what_is_no_file_is_not_opened(project: Path) -> None:
    os.mkfifo(project / "Pulumi.s.yaml")
    with pytest.raises(stackfile.StackFileError, match="no regular file"):
        stackfile.read(project, "s")
    (project / "Pulumi.s.yaml").unlink()
    (project / "Pulumi.s.yaml").symlink_to("/dev/zero")
    with pytest.raises(stackfile.StackFileError, match="no regular file"):
        stackfile.read(project, "s")


NO_FILES = ("a FIFO", "a device", "a folder", "long", "a circle of links")


@pytest.fixture(params=NO_FILES)
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What a command is given in place of a file."""
    path = tmp_path / "what-is-given"
    if request.param == "a FIFO":
        os.mkfifo(path)
    elif request.param == "a device":
        path.symlink_to("/dev/zero")
    elif request.param == "a folder":
        path.mkdir()
    elif request.param == "a circle of links":
        circle = tmp_path / "circle"
        circle.symlink_to(circle)
        path.symlink_to(circle)
    else:
        with path.open("wb") as file:
            file.truncate(1 << 33)
    return path


WHY = "it is no regular file|it has more than 1,0[0-9,]* bytes|Too many levels of symbolic links"


@pytest.mark.parametrize(
    "command",
    [
        ("prove", "--store"),
        ("render", "--out", "o", "--store"),
        ("switch", "--to", "filesystem", "--store"),
        ("abort-uploads", "--store"),
        ("media", "verify", ".", "--store"),
        ("media", "copy", ".", "--store"),
        ("cost", "--stored", "1GB", "--files", "1", "--prices"),
        ("check",),
    ],
    ids=" ".join,
)
def test_no_command_reads_what_is_no_file(
    command: tuple[str, ...], no_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(no_file.parent)
    if command == ("check",) and no_file.is_dir():
        pytest.skip("a folder is what it takes")
    assert main([*command, str(no_file)])
    said = "".join(capsys.readouterr())
    assert str(no_file) in said
    assert re.search(f"{WHY}|is not a regular file|the limit for a configuration", said)


def test_no_credentials_file_is_read_that_is_none(no_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(no_file))
    with pytest.raises(StoreError, match="which can't be read as a credentials file"):
        credentials.shared("AKIA")


def test_no_project_is_read_that_is_none(no_file: Path) -> None:
    no_file.rename(no_file.with_name("Pulumi.yaml"))
    with pytest.raises(EngineError, match=WHY):
        backend_of(no_file.parent)


@pytest.mark.parametrize("kind", ["a FIFO", "a device", "a folder", "no certificate"])
def test_a_ca_file_that_is_none_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    else:
        path.write_text("no certificate")
    connection = Connection(endpoint="https://127.0.0.1:9", ca_file=str(path))
    for client in (lambda: trusting(str(path)), lambda: s3_client(connection, Credential("AKIA", "x" * 40))):
        with pytest.raises(StoreError, match=r"ca_file: .*ca\.pem' can't be used"):
            client()


@pytest.mark.parametrize("value", ["2026-02-30", "0x_", "!!int x", "[" * 3_000, "9" * 5_000, "0x" + "f" * 5_000])
def test_a_value_on_a_command_line_is_refused_in_words(value: str) -> None:
    with pytest.raises(UsageError, match="is no YAML value"):
        stackfile.scalar(value)


@pytest.mark.parametrize(
    "stores", ['{"a.example": {}, "a.example": {}}', '{"a.example": {"provider": "minio", "provider": "amazon_s3"}}']
)
@pytest.mark.parametrize("name", ["stores", "defaults"])
def test_a_key_that_json_text_has_twice_is_refused_as_in_yaml(name: str, stores: str) -> None:
    twice = "a.example" if "minio" not in stores else "provider"
    texts = {"stores": "{}", name: stores}
    with pytest.raises(SettingsError, match=f"a key in JSON text is '{twice}'; allowed: each key once"):
        settings.parse(**texts)


def test_what_a_configuration_quotes_turns_no_text_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vars.yml"
    path.write_text('matrix_synapse_media_store_path: "/matrix/\\u202e\\e[2J"\nmatrix_domain: e.com\n')
    main(["check", str(path)])
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines())


def test_a_long_value_is_cut_in_a_message() -> None:
    assert len(str(Problem("bucket", "x" * 100_000, "a name", "Choose one."))) < 500


_PIECES = (
    *("[", "]", "{", "}", ":", "- ", "? ", "#", "~", "'", '"', "|\n", "\n", "  ", "\t", "\0", "\x85", "\ufeff", "ä"),
    *("&a ", "*a", "<<: ", "!!int ", "!!omap ", "%YAML 9\n", "---\n", "...\n", "\U0001f600"),
    *("0x_", "2026-02-30", ".nan", "1_", "1:60"),
)


def mutant(seed: int) -> bytes:
    """A stack file with a few accidental edits."""
    draw = random.Random(seed)
    text = GOOD
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(text) + 1)
        until = min(len(text), at + draw.choice([0, 0, 1, 3, 20]))
        piece = draw.choice([*_PIECES, text[at : at + 30] * draw.randint(1, 3)])
        text = text[:at] + piece + text[until:]
    raw = text.encode()
    if draw.random() < 0.1:
        at = draw.randrange(len(raw) + 1)
        raw = raw[:at] + bytes([draw.randrange(256)]) + raw[at:]
    return raw


def test_a_mutated_file_is_read_or_refused_in_words(project: Path) -> None:
    for seed in range(MUTANTS):
        path = put(project, mutant(seed))
        try:
            stackfile.read(project, "s")
        except (stackfile.StackFileError, SettingsError):
            pass
        except Exception as error:
            raise AssertionError(f"the stack file, seed {seed}: {type(error).__name__}: {error}") from error
        try:
            reading.read(path)
        except Exception as error:
            raise AssertionError(f"`check`, seed {seed}: {type(error).__name__}: {error}") from error
