"""What is printed for people to run is taken by the command it names, and does what can be done without a store."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from synapse_media.cli import _joined, init, main, rotate
from synapse_media.cli.commandline import _Parser, parser
from synapse_media.contract import to_json
from synapse_media.engine.obtain import Toolchain
from synapse_media.methods import FILESYSTEM, MODULE
from tests.docs.printed import HOLE, Printed, mentioned, printed
from tests.providers.project import ROOT
from tests.renderer.samples import store


def of(program: str, *commands: str) -> list[Printed]:
    """What is printed of a program: of these commands alone, each command line once."""
    found = [one for one in printed() if one.program == program and (not commands or one.words[1] in commands)]
    return list({one.words: one for one in reversed(found)}.values())


@pytest.fixture
def taking_placeholders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word in capitals stands for any value, that of an option with choices too."""
    checked = _Parser._check_value

    def check(self: _Parser, action: argparse.Action, value: object) -> None:
        if action.dest == "command" or not str(value).isupper():
            checked(self, action, value)

    monkeypatch.setattr(_Parser, "_check_value", check)


def test_enough_is_found() -> None:
    """Every kind of place has some: a reader that finds nothing would let all pass."""
    places = {one.place.partition("/")[0] for one in printed()}
    assert {"README.md", "docs", "tests", "synapse_media", "examples"} <= places
    assert len(of("synapse-media")) > 100
    assert len(of("pulumi")) > 15
    assert len(of("make")) > 15
    assert any("INSTALL.md" in one.place for one in printed())
    assert any("runbook/golden" in one.place for one in printed())


@pytest.mark.usefixtures("taking_placeholders")
def test_the_command_line_takes_each(capsys: pytest.CaptureFixture[str]) -> None:
    made = parser()
    faults = []
    for one in of("synapse-media"):
        words = list(one.words[1:])
        if words == [HOLE]:
            continue
        if len(words) == 1:
            # A command by its name, with no arguments yet.
            if words[0] not in made.commands:
                faults.append(str(one))
            continue
        try:
            _, unknown = made.parse_known_args(_joined(words))
        except SystemExit as ended:
            if ended.code:
                faults.append(f"{one}\n    {capsys.readouterr().err.splitlines()[-1]}")
        else:
            faults += [f"{one}: {word}" for word in unknown if word != HOLE]
    assert not faults, "\n".join(faults)


def test_a_command_that_is_mentioned_has_the_options() -> None:
    made = parser()
    assert len(mentioned()) > 20
    faults = []
    for one in mentioned():
        known = {*made.commands[one.program]._option_string_actions, *made._option_string_actions}
        # Behind "--" they are pulumi's.
        ours = itertools.takewhile(lambda word: word != "--", one.words[1:])
        options = [word.partition("=")[0].rstrip(",.:;)") for word in ours if word.startswith("-")]
        faults += [f"{one}: {it}" for it in options if it not in known]
    assert not faults, "\n".join(faults)


def test_a_message_of_a_command_names_the_stack() -> None:
    """There it is known; a command without one is for the stack that happens to be selected."""
    made = parser().commands
    faults = [
        str(one)
        for one in printed()
        if one.program == "synapse-media"
        and one.place.startswith(("synapse_media/cli/", "synapse_media/runbook/", "tests/runbook/"))
        and not one.place.endswith("/examples.py")
        and len(one.words) > 2
        and one.words[1] in made
        and "--stack" in made[one.words[1]]._option_string_actions
        and not {"--stack", "--store", "--help"} & set(one.words)
    ]
    assert not faults, "\n".join(faults)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the commands name."""
    monkeypatch.chdir(tmp_path)
    golden = ROOT / "tests/renderer/golden"
    module = golden / "synapse-s3-storage-provider/plain/amazon"
    shutil.copytree(module / "conf.d", tmp_path / "conf.d")
    (tmp_path / "homeserver.yaml").write_text("server_name: matrix.example.com\n", encoding="utf-8")
    media_repo = next((golden / "matrix-media-repo/plain/amazon").rglob("*.yaml"))
    shutil.copyfile(media_repo, tmp_path / "media-repo.yaml")
    playbook = golden / "synapse-s3-storage-provider/playbook/amazon/inventory"
    shutil.copytree(playbook, tmp_path / "inventory")
    shutil.copyfile(next(playbook.rglob("*.yml")), tmp_path / "vars.yml")
    rendered = tmp_path / "rendered/matrix.example.com"
    for form in ("plain", "playbook"):
        shutil.copytree(golden / f"synapse-s3-storage-provider/{form}/amazon", rendered, dirs_exist_ok=True)
    media = tmp_path / "media/local_content/aa/bb"
    media.mkdir(parents=True)
    (media / "c").write_bytes(b"0" * 1000)
    return tmp_path


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Why a command line was not carried out; "" if it was, whatever its answer is."""
    try:
        code = main(words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr().err
    # `check` answers 1 where it finds something, and says nothing on standard error then.
    return "" if code in (0, 1) and not said.startswith("synapse-media ") else f"{code}: {said}"


def test_what_needs_no_stack_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del place
    faults = []
    for one in of("synapse-media", "check", "cost", "completion", "help"):
        if len(one.words) > 2 and one.whole:
            words = [word.removeprefix("/etc/matrix-synapse/") for word in one.words[1:]]
            if "--media" in words:
                words[words.index("--media") + 1] = "media"
            for drawn in {"--report", "--picture"} & set(words):
                # Matplotlib takes seconds: tests/cost draws.
                at = words.index(drawn)
                del words[at : at + 2]
            why = run(["--help"] if "COMMAND" in words else words, capsys)
            faults += [f"{one}\n    {why}"] * bool(why)
    assert not faults, "\n".join(faults)


def test_render_and_switch_run_on_a_store(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = store("amazon", MODULE)
    elsewhere = replace(here, provider="backblaze_b2", endpoint_url="https://s3.eu-central-003.backblazeb2.com")
    for name, found in (
        ("module.json", here),
        ("filesystem.json", store("amazon", FILESYSTEM)),
        ("new.json", store("amazon", MODULE, provider=elsewhere.provider, endpoint_url=elsewhere.endpoint_url)),
    ):
        (place / name).write_text(json.dumps(to_json(found)), encoding="utf-8")
    faults = []
    for one in of("synapse-media", "render", "switch"):
        if len(one.words) == 2 or not one.whole:
            continue
        to_module = MODULE in one.words or "--media-path" in one.words
        words = list(one.words[1:])
        if "--stack" in words:
            at = words.index("--stack")
            del words[at : at + 2]
        words = [{"--to-stack": "--to-store", "prod-b2": "new.json"}.get(word, word) for word in words]
        words = [word.replace("~", str(place)) for word in words]
        why = run([*words, "--store", "filesystem.json" if to_module else "module.json"], capsys)
        faults += [f"{one}\n    {why}"] * bool(why)
    assert not faults, "\n".join(faults)


@pytest.mark.usefixtures("own_directories")
def test_init_writes_a_stack_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it would ask on a terminal, it is answered."""

    def answer(name: str, default: str = "", allowed: Iterable[str] = (), **_: object) -> str:
        return default or next(iter(allowed), "") or {"endpoint": "https://s3.example.net"}[name]

    monkeypatch.setattr(init, "_ask", answer)
    given = {"PROVIDER": "wasabi", "BUCKET": "our-media"}
    faults = []
    for number, one in enumerate(of("synapse-media", "init")):
        if "--server-name" not in one.words or not one.whole:
            continue
        project = tmp_path / str(number)
        project.mkdir()
        shutil.copy2(ROOT / "Pulumi.yaml", project)
        shutil.copytree(ROOT / "stacks", project / "stacks", ignore=shutil.ignore_patterns("Pulumi.embedded.yaml"))
        monkeypatch.chdir(project)
        words = [given.get(word, word).replace("$(openssl rand -hex 20)", "0f1e2d3c4b") for word in one.words[1:]]
        why = run(words, capsys)
        faults += [f"{one}\n    {why}"] * bool(why)
    assert not faults, "\n".join(faults)


def test_make_has_the_targets_and_variables() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    variables = set(re.findall(r"\$\(([A-Z]+)\)|\$\(if \$\(([A-Z]+)\)", text)) | {("UPDATE_GOLDEN", "")}
    known = {name for pair in variables for name in pair}
    for one in of("make"):
        for word in one.words[1:]:
            name, assigned, _ = word.partition("=")
            assert name in (known if assigned else targets), str(one)


def test_pulumi_has_the_commands_and_options(engine_toolchain: Toolchain) -> None:
    """Each is looked up in the engine's own help: all else it asks a backend for."""
    faults = []
    for one in of("pulumi"):
        # A word after an option may be its value.
        names = tuple(itertools.takewhile(re.compile(r"[a-z][a-z-]*").fullmatch, one.words[1:4]))
        if not names and "-C" not in one.words:
            continue
        shown = _help(engine_toolchain, names)
        found = re.search(r"^Usage:\n  pulumi((?: [a-z-]+)*)(.*)", shown, re.MULTILINE)
        assert found, shown
        command, more = found[1].split(), found[2].replace("[flags]", "").replace("[command]", "").strip()
        # What follows the command are its arguments, if it takes any.
        if (names and not command) or (len(names) > len(command) and not more):
            faults.append(f"{one}: there is {found[0]!r}")
        options = (word.partition("=")[0] for word in one.words[1:] if word.startswith("-"))
        faults += [f"{one}: {it}" for it in options if not re.search(rf"(?<![\w-]){it}(?![\w-])", shown)]
    assert not faults, "\n".join(faults)


@cache
def _help(toolchain: Toolchain, words: tuple[str, ...]) -> str:
    """What `--help` behind these words shows: of the longest name of a command that they begin with."""
    return subprocess.run(
        [toolchain.pulumi, *words, "--help"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    ).stdout


def test_a_rotation_of_one_among_several_names_it() -> None:
    one, other, disk = (
        SimpleNamespace(server_name=name, uses_store=name != "disk") for name in ("one", "other", "disk")
    )
    alone = SimpleNamespace(name="prod", stores={"one": one, "disk": disk})
    both = SimpleNamespace(name="prod", stores={"one": one, "other": other})
    assert rotate._command(alone, one) == "synapse-media rotate --stack prod"  # type: ignore[arg-type]
    assert rotate._command(both, one, "--finish") == "synapse-media rotate --stack prod --server one --finish"  # type: ignore[arg-type]
