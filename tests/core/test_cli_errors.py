"""The command's errors: said in a line on standard error, with the exit code that fits, and never as a traceback."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synapse_media import cli, contract
from synapse_media.contract import Proof, ProofLine, StorageOutputs
from synapse_media.engine.paths import state_dir
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.guards.danger import DangerError
from tests.cli.shapes import answer

SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output, standard error."""

    def of(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main(arguments)
        except SystemExit as ended:
            code = int(str(ended.code or 0))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return of


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("name: synapse-media\nstackConfigDir: stacks\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_interrupt_before_there_is_a_command_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser", interrupted)
    assert run("diff") == (130, "", "synapse-media: interrupted; nothing was changed\n")


def store(**changes: Any) -> StorageOutputs:
    made = StorageOutputs(
        server_name="matrix.example.com",
        provider="s3_compatible",
        method="synapse-s3-storage-provider",
        access="least",
        bucket="media",
        region="eu-1",
        endpoint_url="https://s3.example.com",
        access_key_id="AKIAEXAMPLE",
        secret_access_key=SECRET,
    )
    proved = Proof(made.made_for(), (ProofLine("put", "allowed", "allowed"),))
    return StorageOutputs(**{**{name: getattr(made, name) for name in made.__slots__}, "proof": proved, **changes})


@pytest.mark.parametrize("command", ["diff", "up", "destroy", "doctor", "rotate", "render", "prove"])
def test_a_stack_that_is_not_there(project: Path, run: Run, command: str) -> None:
    more = ["--out", str(project / "out")] if command == "render" else []
    code, printed, error = run(command, "--stack", "nosuch", *more)
    assert code == 1
    assert error.startswith(f"synapse-media {command}: ")
    assert "Pulumi.nosuch.yaml does not exist" in error
    assert printed == ""


@pytest.mark.parametrize("command", ["diff", "up", "destroy", "doctor", "rotate", "prove"])
def test_a_directory_that_is_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(command, "--stack", "s")
    assert code == 64
    assert "no Pulumi.yaml in" in error


def test_every_problem_of_a_stack_file_is_told_and_nothing_is_made(project: Path, run: Run) -> None:
    raw = {"a": {"provider": "nobody", "bucket": "B"}, "b": {"method": "ftp", "provider": "wasabi", "bucket": "b2-x"}}
    (project / "stacks/Pulumi.s.yaml").write_text(json.dumps({"config": {"synapse-media:stores": raw}}))
    code, _, error = run("up", "--stack", "s", "--yes")
    assert code == 1
    lines = error.splitlines()
    assert [line.removeprefix("synapse-media up: ").split(" ")[0] for line in lines] == [
        "stores.a.provider",
        "stores.a.bucket",
        "stores.b.method",
        "stores.b.region",
        "stores.b.bucket",
    ]


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00", b"[]", b"{}", b'{"version": 9}', b"{"])
@pytest.mark.parametrize("command", ["prove", "render"])
def test_a_store_file_that_is_none(tmp_path: Path, run: Run, command: str, content: bytes | None) -> None:
    file = tmp_path / "store.json"
    if content is not None:
        file.write_bytes(content)
    code, printed, error = run(command, "--store", str(file), *(["--out", str(tmp_path)] * (command == "render")))
    assert code == 1
    assert error.startswith(f"synapse-media {command}: ")
    assert printed == ""


def test_a_store_file_of_another_shape_does_not_tell_its_secret(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "store.json"
    file.write_text(json.dumps({**contract.to_json(store()), "secret_access_key": [SECRET], "more": SECRET}))
    code, _, error = run("prove", "--store", str(file))
    assert code == 1
    assert "unknown more" in error
    assert SECRET not in error


@pytest.mark.parametrize(
    "words",
    [
        ("render", "--stack", "s", "--out", ""),
        ("render", "--store", "", "--out", "o"),
        ("destroy", "--stack", ""),
        ("media", "free", ""),
        ("check", ""),
        ("cost", "--stored", "1GB", "--picture", ""),
        ("cost", "--stored", "1GB", "--prices", ""),
        ("cost", "--stored", "1GB", "--near="),
        ("cost", "--fit", "--near", ""),
        ("cost", "--stored", "1GB", "--report", ""),
        ("prove", "--store", ""),
        ("media", "restore", "d", "--store", "s", "--user", ""),
        ("rotate", "--server", ""),
        ("init", "--set", ""),
        ("up", "--reviewed", ""),
        ("-C", "", "list"),
    ],
    ids=" ".join,
)
def test_a_variable_that_is_not_set_names_nothing(words: tuple[str, ...], run: Run) -> None:
    """It would be the current directory, or the selected stack."""
    code, _, error = run(*words)
    assert code == 64
    assert "is empty; leave it out, or name what is meant" in error


def test_a_name_that_is_too_long_is_not_made_right_by_permissions(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "store.json"
    file.write_text(json.dumps(contract.to_json(store(secret_access_key=""))))
    code, _, error = run("render", "--store", str(file), "--out", str(tmp_path / ("x" * 300)), "--secrets", "reference")
    assert code == 1
    assert "File name too long. No file was changed. Choose another directory." in error


@pytest.mark.parametrize("proof", [None, Proof("of something else", ())])
def test_nothing_is_rendered_from_a_key_that_was_not_proved(tmp_path: Path, run: Run, proof: Proof | None) -> None:
    file, out = tmp_path / "store.json", tmp_path / "out"
    file.write_text(json.dumps(contract.to_json(store(proof=proof))))
    code, _, error = run("render", "--store", str(file), "--out", str(out))
    assert code == 1
    assert "proof" in error or "proved" in error
    assert not out.exists() or not list(out.rglob("*"))


def test_a_store_that_can_not_be_asked_for_its_key_does_not_stop_render(tmp_path: Path, run: Run) -> None:
    file, out = tmp_path / "store.json", tmp_path / "out"
    away = store(endpoint_url="http://127.0.0.1:9")
    proof = Proof(away.made_for(), (ProofLine("put", "allowed", "allowed"),))
    file.write_text(json.dumps({**contract.to_json(away), "proof": contract.to_json(store(proof=proof))["proof"]}))
    code, _, error = run("render", "--store", str(file), "--out", str(out))
    assert code == 0
    assert "the store could not be asked whether the key is accepted" in error
    assert list(out.rglob("store.json"))


def test_the_end_of_the_input_is_no_answer(project: Path) -> None:
    """Ctrl-D on a terminal."""
    ours, theirs = pty.openpty()
    program = "import sys; from synapse_media import cli; sys.exit(cli.main(sys.argv[1:]))"
    asking = [sys.executable, "-c", program, "embedded", "clean"]
    environment = {name: value for name, value in os.environ.items() if name != "YES"}
    with subprocess.Popen(
        asking, cwd=project, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        os.write(ours, b"\x04")
        _, error = child.communicate()
    os.close(ours)
    os.close(theirs)
    assert child.returncode == 1
    assert error.endswith("synapse-media embedded: nothing was changed: there was no answer\n")
    assert "Traceback" not in error


def test_a_place_that_can_not_be_written_to(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "store.json"
    file.write_text(json.dumps(contract.to_json(store())))
    code, _, error = run("render", "--store", str(file), "--out", str(file / "below-a-file"))
    assert code == 1
    assert str(file) in error


def raising(error: BaseException) -> Callable[[Any], int]:
    def command(_: Any) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SynapseMediaError("in words"), 1, "in words"),
        (UsageError("in words"), 64, "in words"),
        (DangerError("in words"), 3, "in words"),
        (KeyboardInterrupt(), 130, "interrupted; run it again to go on"),
        (OSError(errno.ENOSPC, "No space left on device", "/var/x"), 1, "/var/x: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 1, "/root/x: Permission denied"),
        (OSError("odd"), 1, "odd"),
    ],
)
def test_what_a_command_raises_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, run: Run, error: BaseException, code: int, said: str
) -> None:
    from synapse_media.cli import env

    monkeypatch.setattr(env, "run", raising(error))
    got, printed, told = run("env")
    assert (got, printed) == (code, "")
    assert told == f"synapse-media env: {said}\n"


def test_a_full_disk_whose_file_is_not_known_is_told_with_the_places_it_may_be(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    from synapse_media.cli import env

    monkeypatch.setattr(env, "run", raising(OSError(errno.ENOSPC, "No space left on device")))
    code, _, told = run("env")
    assert code == 1
    assert f"No space left on device in {state_dir()}, {tempfile.gettempdir()} or where this command writes" in told


@pytest.mark.parametrize(
    "arguments", [["cost", "--json"], ["cost", "--stored=4GB", "--json"], ["cost", "--stored=4GB"]]
)
def test_an_answer_that_can_not_be_written_is_no_traceback(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "synapse_media.cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode in (1, 64)
    assert done.stderr.startswith("synapse-media cost: ")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_defect_is_told_by_its_kind_and_place_and_not_by_what_it_says(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    from synapse_media.cli import env

    def failing(_: Any) -> int:
        secret_of_a_local = SECRET
        try:
            raise ValueError(f"Invalid header value b'Bearer {secret_of_a_local}\\n'")
        except ValueError as error:
            raise KeyError(SECRET) from error

    monkeypatch.setattr(env, "run", failing)
    code, printed, told = run("env")
    assert (code, printed) == (1, "")
    assert told.startswith("synapse-media env: a defect of synapse-media.")
    for words in ("builtins.KeyError", "which came of", "builtins.ValueError", f"{Path(__file__).name}:", "in failing"):
        assert words in told
    assert SECRET not in told


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        (("yaml", "PyYAML"), ("check", "homeserver.yaml")),
        (("rich", "rich"), ("cost", "--stored", "400GB")),
    ],
)
def test_a_package_that_is_missing_is_named_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, run: Run, missing: tuple[str, str], command: tuple[str, ...]
) -> None:
    """As on a server, where the wheel was installed with boto3 alone, for `prove`."""
    module, package = missing
    (project / "homeserver.yaml").write_text("server_name: example.com\n")
    for name in [name for name in sys.modules if name.startswith(("synapse_media.lint", "synapse_media.cost"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("lint", "cost"):
        # An import of a part looks at the package's attributes first.
        monkeypatch.delattr(f"synapse_media.{name}", raising=False)
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    code, printed, told = run(*command)
    assert (code, printed) == (1, "")
    assert told == (
        f"synapse-media {command[0]}: it needs the package {package}, which is not installed here: "
        f"pip install {package}\n"
    )


def test_a_reader_that_went_away_is_no_traceback() -> None:
    """`synapse-media cost | head -1`, for example."""
    program = (
        "import sys; from synapse_media import cli; from synapse_media.cli import env; "
        "env.run = lambda _: print('x' * 1_000_000); sys.exit(cli.main(['env']))"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait(timeout=60) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_terminal_can_not_show_is_no_traceback(encoding: str) -> None:
    """In a locale of Latin-1, for example. A path that is no text keeps its bytes."""
    program = (
        "import sys; from synapse_media import cli; from synapse_media.cli import env; "
        "env.run = lambda _: print('… \\u0141 \\udcff') or 0; sys.exit(cli.main(['env']))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=False)
    assert (answer.returncode, answer.stderr) == (0, b"")
    dots, letter = ("…".encode(), "\u0141".encode()) if encoding == "utf-8" else (b"?", b"?")
    assert answer.stdout == dots + b" " + letter + b" \xff\n"


def test_a_project_whose_path_is_no_text_is_refused(tmp_path: Path, run: Run) -> None:
    project = tmp_path / "\udce4"
    project.mkdir()
    (project / "Pulumi.yaml").write_text("name: synapse-media\n")
    code, _, said = run("-C", str(project), "list")
    assert code == 64
    assert "is not UTF-8" in said


def test_the_command_needs_no_cloud_sdk_to_say_its_help() -> None:
    program = (
        "import sys; from synapse_media import cli; cli.parser().commands; "
        "print(sorted({'boto3', 'botocore', 'pulumi', 'grpc', 'b2sdk'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_stack_is_summed_up_without_its_secret() -> None:
    from synapse_media.cli import stacks

    lines = (
        ProofLine("put", "allowed", "allowed"),
        ProofLine("delete", "refused", "refused"),
        ProofLine("other-bucket", "refused", "not tested", "no admin"),
        ProofLine("copy", "can't be refused here", "allowed"),
        ProofLine("create-bucket", "can't be refused here", "not tested"),
    )
    told = stacks.summary([store(proof=Proof("x", lines), lacks=("default encryption",), user="u")])
    assert SECRET not in told
    for words in ("media at https://s3.example.com", "AKIAEXAMPLE", "may        put", "may not    delete"):
        assert words in told
    assert "  can't be refused here copy\n" in told
    assert "  not tested other-bucket, create-bucket\n" in told
    assert "lacks      default encryption" in told
    assert isinstance(stacks.summary([store(method="filesystem")]), str)


def test_a_program_is_told_whatever_went_wrong(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    from synapse_media.cli import env

    for error, code, words in (
        (OSError(28, "No space left on device", "/tmp/x"), 1, "/tmp/x: No space left on device"),
        (EOFError(), 1, "there was no answer"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("x", name="yaml"), 1, "needs the package PyYAML"),
        (KeyError(SECRET), 1, "a defect of synapse-media"),
        (SynapseMediaError("refused"), 1, "refused"),
    ):

        def failing(_: object, error: BaseException = error) -> int:
            raise error

        monkeypatch.setattr(env, "run", failing)
        ended, printed, told = run("env", "--json")
        found = answer("error", printed)["error"]
        assert (ended, found["exit_code"], found["command"], found["problems"]) == (code, code, "env", [])
        assert words in found["message"]
        assert words in told
        assert SECRET not in printed + told


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("diff", "--format", "json", "--nonesuch"), "diff"),
        (("diff", "--nonesuch", "--json"), "diff"),
        (("--json",), ""),
        (("dif", "--json"), ""),
    ],
)
def test_a_program_is_told_of_a_command_line_that_can_not_be_read(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], command: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 64
    printed = capsys.readouterr()
    found = answer("error", printed.out)["error"]
    assert (found["command"], found["exit_code"]) == (command, 64)
    assert found["message"] in printed.err
