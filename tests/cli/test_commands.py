"""The command line itself, and the commands that need no engine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import util
from pathlib import Path

import pulumi
import pytest
import yaml

from components import make
from synapse_media import catalog, extras, settings, stackfile
from synapse_media.cli import _joined, credentials, doctor, main
from synapse_media.cli.commandline import COMMANDS, parser
from synapse_media.cli.examples import OF
from synapse_media.engine.embedded import Running
from synapse_media.engine.obtain import obtain_pulumi
from synapse_media.engine.session import Engine
from synapse_media.settings import StoreSettings
from tests.cli.shapes import answer
from tests.doubles import proxy
from tests.providers.project import ROOT
from tests.storj.vectors import PARENTS

MEDIA_REPO = ["--set", "media_repo={s3_datastore_id: abc}"]
EXAMPLES = sorted(path.name for path in (ROOT / "stacks").glob("Pulumi.*.yaml"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The part of the project that `init` looks at."""
    shutil.copy2(ROOT / "Pulumi.yaml", tmp_path)
    shutil.copytree(ROOT / "stacks", tmp_path / "stacks", ignore=shutil.ignore_patterns("Pulumi.embedded.yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert f"synapse-media {command}" in printed
        assert " --json" in printed or command in ("completion", "help")
        assert "\nexamples:\n  synapse-media " in printed


def test_the_examples_are_command_lines_and_their_pages_are_there() -> None:
    made = parser()
    assert set(OF) == set(made.commands) == set(COMMANDS)
    for command, found in OF.items():
        assert (ROOT / "docs" / found.page).is_file(), command
        for line, what in found.lines:
            assert what
            assert made.parse_args(shlex.split(line)).command == command


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["dif"], "'diff'"),
        (["destory", "--stack", "prod"], "'destroy'"),
        (["diff", "--refrsh"], "'--refresh'"),
        (["rotate", "--finnish"], "'--finish'"),
        (["init", "--provider", "backblaze"], "'backblaze_b2'"),
        (["help", "rotat"], "'rotate'"),
    ],
)
def test_what_was_probably_meant_is_named(arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 64
    assert f"Did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("topic", ["", *COMMANDS])
def test_help_is_the_help_of_the_command(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["help", *([topic] if topic else [])], [*([topic] if topic else []), "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    halves = capsys.readouterr().out
    assert halves[: len(halves) // 2] == halves[len(halves) // 2 :]


_OF_A_COMMAND = ["cli.completion", "cli.examples", "homeserver", "homeserver.synapse"]


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["--version"], []),
        (["--help"], []),
        (["help"], ["cli.help", *_OF_A_COMMAND]),
        (["completion", "--help"], _OF_A_COMMAND),
    ],
)
def test_what_is_printed_is_all_that_is_loaded(words: list[str], modules: list[str]) -> None:
    """Of the package; and none of what takes long to load."""
    program = (
        "import atexit, sys\n"
        "ours = lambda: sorted(name for name in sys.modules if name.startswith('synapse_media'))\n"
        "others = lambda: sorted({'yaml', 'ruamel', 'rich', 'ssl', 'subprocess', 'http', 'email'} & set(sys.modules))\n"
        "atexit.register(lambda: print(*ours(), *others(), file=sys.stderr))\n"
        "from synapse_media.cli import main\n"
        f"main({words})"
    )
    answer = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert "synapse-media" in answer.stdout
    always = ("cli", "cli.commandline", "cli.programs", "cli.terminal", "errors", "redaction", "signals")
    assert answer.stderr.split() == sorted(
        ["synapse_media", *(f"synapse_media.{name}" for name in (*always, *modules))]
    )


def completed(line: str, project: Path) -> list[str]:
    """What is offered at the end of a command line, asked for as a shell does."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(project / "offered"),
    }
    command = [sys.executable, "-c", "from synapse_media.cli import main; main()"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [word.strip() for word in (project / "offered").read_text(encoding="utf-8").splitlines()]


def test_a_shell_is_offered_commands_options_values_and_stacks(project: Path) -> None:
    (project / "stacks/Pulumi.prod.yaml").touch()
    assert set(completed("synapse-media ro", project)) == {"rotate"}
    assert {"diff", "show", "list"} <= set(completed("synapse-media ", project))
    assert set(completed("synapse-media diff --ref", project)) == {"--refresh"}
    assert set(completed("synapse-media init --provider wa", project)) == {"wasabi"}
    assert set(completed("synapse-media up --stack pr", project)) == {"prod"}
    assert set(completed("synapse-media show -s pr", project)) == {"prod"}
    assert set(completed("synapse-media switch --to w", project)) == {"wasabi"}
    assert set(completed("synapse-media switch --to goo", project)) == {"goofys", "google_cloud_storage"}
    # Nothing is asked and nothing is made for it.
    assert set(completed("synapse-media prove --stack pr", project)) == {"prod"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    assert "synapse-media" in script.read_text(encoding="utf-8")
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed here: its script is not run")
    subprocess.run([found, "-n", script], check=True)
    if shell == "bash":
        bash = f"source {script}; complete -p synapse-media"
        assert "synapse-media" in subprocess.run([found, "-c", bash], check=True, capture_output=True, text=True).stdout


@pytest.mark.usefixtures("own_directories")
def test_what_env_says_can_be_had_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del project
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["env", "--json"]) == 0
    variables = answer("env", capsys.readouterr().out)["variables"]
    assert lines == [f"export {name}={shlex.quote(it)}" for name, it in variables.items()]


@pytest.mark.usefixtures("own_directories")
def test_env_needs_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program on the Automation API has none, and needs the same engine, state and passphrase."""
    monkeypatch.chdir(tmp_path)
    assert main(["env", "--json"]) == 0
    assert {"PATH", "PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE"} <= set(
        json.loads(capsys.readouterr().out)["variables"]
    )


def test_the_environment_of_a_checkout_makes_no_project_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its program could not import `synapse_media.components`."""
    monkeypatch.chdir(tmp_path)
    assert (
        main(["init", "prod", "--provider", "wasabi", "--region", "eu-central-2", "--server-name", "a.example"]) == 64
    )
    assert "install the wheel to make a project here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_init_wrote_can_be_had_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--provider", "wasabi", "--region", "eu-central-2", "--server-name", "example.com"]
    assert main(["init", "prod", *words, "--json"]) == 0
    found = answer("init", capsys.readouterr().out)
    assert found["file"] == str(project / "stacks/Pulumi.prod.yaml")
    assert all(" is not set: " in line for line in found["findings"])
    assert found["next"][0].startswith("synapse-media diff --stack prod")


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["diff", "--nonesuch"], ["switch"], ["embedded", "dance"]])
def test_wrong_usage_is_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 64
    assert "usage:" in capsys.readouterr().err


@pytest.mark.usefixtures("own_directories")
@pytest.mark.parametrize("command", ["diff", "up", "destroy", "doctor", "rotate", "prove", "render", "abort-uploads"])
def test_without_a_stack_the_selected_one_is_meant(
    project: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--out", str(project / "out")] if command == "render" else []
    assert main([command, *more]) == 64
    assert "no stack is selected (`pulumi stack select`)" in capsys.readouterr().err
    # Named by pulumi's own variable; there is no such stack file.
    monkeypatch.setenv("PULUMI_STACK", "organization/synapse-media/chosen")
    assert main([command, *more]) == 1
    assert "stacks/Pulumi.chosen.yaml does not exist" in capsys.readouterr().err
    monkeypatch.chdir(project.parent)
    monkeypatch.delenv("PULUMI_STACK")
    assert main([command, *more]) == 64
    assert "--stack is missing" in capsys.readouterr().err


@pytest.mark.usefixtures("own_directories")
def test_the_stack_that_pulumi_selected(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "prod", "--provider", "wasabi", "--region", "eu-central-2", "--server-name", "a.example"]) == 0
    engine = Engine(project, say=lambda _: None)
    engine.ensure_stack("prod")
    engine.run(["stack", "select", "prod"])
    capsys.readouterr()
    assert main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert "stack prod, as selected" in printed.err
    assert "WASABI_ACCESS_KEY_ID is not set" in printed.out


@pytest.mark.usefixtures("own_directories")
@pytest.mark.parametrize("before", [True, False])
def test_another_directory(
    project: Path, before: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.parent)
    words = ["--provider", "wasabi", "--region", "eu-central-2", "--server-name", "a.example"]
    where = ["-C", project.name]
    assert main([*where, "init", "prod", *words] if before else ["init", "prod", *words, *where]) == 0
    assert (project / "stacks/Pulumi.prod.yaml").is_file()
    assert Path.cwd() == project.parent
    assert main(["diff", "--cwd", "nonesuch"]) == 1
    assert "nonesuch: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("provider", "sdk"),
    [
        ("amazon_s3", ("aws", "pulumi_aws")),
        ("backblaze_b2", ("b2", "b2sdk")),
        ("digitalocean_spaces", ("digitalocean", "pulumi_digitalocean")),
    ],
)
@pytest.mark.usefixtures("own_directories")
def test_a_vendors_sdk_that_is_not_installed_is_named_before_anything_is_called(
    project: Path,
    provider: str,
    sdk: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    extra, module = sdk

    def find_spec(name: str) -> object:
        return None if name == module else util.find_spec(name)

    region = catalog.load(provider).value("default_region") or (*catalog.load(provider).regions, "")[0]
    words = ["--provider", provider, "--server-name", "a.example", *(["--region", region] if region else [])]
    monkeypatch.setattr(extras, "find_spec", find_spec)
    wanted = f"{provider} needs the package {module}, which is not installed here: pip install 'synapse-media[{extra}]'"
    assert main(["init", "prod", *words]) == 0
    assert wanted in capsys.readouterr().err
    assert main(["doctor", "--stack", "prod"]) == 1
    assert wanted in capsys.readouterr().out
    for command in (["up"], ["diff"], ["diff", "--from-nothing"], ["rotate"], ["destroy"]):
        assert main([*command, "--stack", "prod"]) == 1
        assert wanted in capsys.readouterr().err
    (store,) = stackfile.read(project, "prod").stores.values()
    # As Pulumi shows it, without a traceback.
    with pytest.raises(pulumi.RunError) as refused:
        make(store)
    assert str(refused.value) == wanted


def test_extras_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.MODULES) == set(declared) - {"all", "pictures", "postgres", "vault"}
    assert declared["all"] == [f"synapse-media[{','.join(sorted(set(declared) - {'all'}))}]"]
    allowed = catalog.schema()["properties"]["extra"]["enum"]
    assert set(allowed) == {entry.extra for entry in map(catalog.load, catalog.names()) if entry.extra}
    assert set(allowed) == set(extras.MODULES)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["--provider", "amazon_s3", "--region", "eu-central-1"], {"region": "eu-central-1"}),
        (["--provider", "wasabi", "--region", "eu-central-2"], {"region": "eu-central-2"}),
        (["--provider", "hetzner", "--region", "fsn1", "--set", "existing_key=true"], {"existing_key": True}),
        (["--provider", "amazon_s3", "--region", "eu-west-1", "--adopt"], {"adopt": True}),
        (
            ["--provider", "wasabi", "--region", "us-west-1", "--method", "matrix-media-repo", *MEDIA_REPO],
            {"media_repo": {"s3_datastore_id": "abc"}},
        ),
    ],
)
def test_init_writes_a_stack_file_that_can_be_used(
    project: Path, arguments: list[str], setting: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "prod", "--server-name", "example.com", *arguments]) == 0
    printed = capsys.readouterr()
    assert "synapse-media diff --stack prod" in printed.out
    assert "is not set" in printed.err
    store = stackfile.read(project, "prod").stores["example.com"]
    assert store.bucket == "example-com-media"
    for name, value in setting.items():
        assert (getattr(store, name) if hasattr(store, name) else store.options[name]) == value
    # A second one would overwrite it.
    assert main(["init", "prod", "--server-name", "example.com", *arguments]) == 64


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--region", "eu-central-1"], "Cloudflare R2 refuses requests signed for 'eu-central-1'; allowed: auto, "),
        (["--endpoint", "https://pub-0123.r2.dev"], "is no S3 endpoint of Cloudflare R2"),
    ],
)
def test_init_refuses_what_the_provider_does(
    project: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--provider", "cloudflare_r2", "--server-name", "example.com", "--set", "existing_key=true"]
    endpoint = ["--endpoint", "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"]
    assert main(["init", "prod", *words, *endpoint, *arguments]) == 1
    assert reason in capsys.readouterr().err


SHARED = """\
config:
  synapse-media:defaults:
    provider: wasabi
    region: eu-central-1
    storage_class: STANDARD
  synapse-media:stores:
    one.example.com:
      bucket: one-media

  # What may pass a guard.
  synapse-media:allow: []
"""


def test_init_adds_a_store_with_what_the_defaults_leave_open(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "stacks/Pulumi.shard.yaml"
    path.write_text(SHARED, encoding="utf-8")
    assert main(["init", "shard", "--store", "two.example.com"]) == 0
    printed = capsys.readouterr()
    assert f"added two.example.com to {path}" in printed.out
    assert "WASABI_ACCESS_KEY_ID" in printed.err
    added = "    two.example.com:\n      bucket: two-example-com-media\n      method: synapse-s3-storage-provider\n"
    assert path.read_text(encoding="utf-8") == SHARED.replace("one-media\n", f"one-media\n{added}")
    assert main(["init", "shard", "--store", "three.example.com", "--region", "eu-central-2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(path)
    stores = stackfile.read(project, "shard").stores
    assert [(store.bucket, store.region) for store in stores.values()] == [
        ("one-media", "eu-central-1"),
        ("two-example-com-media", "eu-central-1"),
        ("three-example-com-media", "eu-central-2"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["init", "shard", "--store", "one.example.com"], 64, "has a store for one.example.com already: edit it"),
        (["init", "other", "--store", "x.example.com"], 64, "make it with --server-name x.example.com in place of"),
        (["init", "wasabi", "--store", "x.example.com"], 64, "is an example's, which is never changed"),
        (["init", "shard", "--store", "x.example.com", "--bucket", "one-media"], 1, "stores.one.example.com uses it"),
        (["init", "shard", "--store", "x.example.com", "--set", "tags={}"], 1, "stores.x.example.com.tags is no"),
        (["init", "shard"], 64, "add a store with --store HOST"),
    ],
)
def test_init_adds_no_store_that_would_be_refused(
    project: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "stacks/Pulumi.shard.yaml"
    path.write_text(SHARED, encoding="utf-8")
    assert main(arguments) == code
    assert said in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == SHARED


@pytest.mark.parametrize("provider", ["google_cloud_storage", "tigris", "dreamobjects", "akamai"])
def test_init_names_its_own_option_for_a_store_without_an_iam_api(
    project: Path, provider: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--provider", provider, "--server-name", "example.com", "--region", "us-east-1"]
    assert main(["init", "prod", *words]) == 1
    shown = capsys.readouterr().err
    assert "--set existing_key=true" in shown
    assert "existing_key: true" not in shown
    assert main(["init", "prod", *words, "--set", "existing_key=true"]) == 0


def test_init_tells_what_must_be_exported_and_what_may_be(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--server-name", "example.com", "--provider", "amazon_s3", "--region", "eu-central-1"]
    assert main(["init", "prod", *arguments]) == 0
    exports = [line.strip() for line in capsys.readouterr().out.splitlines() if "export " in line]
    assert exports[0].startswith("export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY      # ")
    assert exports[1:] == ["export AWS_SESSION_TOKEN      # optional"]


def test_init_of_a_stack_that_uses_no_store_asks_for_no_credential(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--server-name", "example.com", "--provider", "amazon_s3", "--region", "eu-central-1"]
    assert main(["init", "prod", "--method", "filesystem", *arguments]) == 0
    printed = capsys.readouterr()
    assert "export" not in printed.out
    assert printed.err == ""
    assert stackfile.read(project, "prod").stores["example.com"].method == "filesystem"


def test_an_example_is_never_written_to(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (project / "stacks/Pulumi.wasabi.yaml").read_bytes()
    for command in (["up", "--yes"], ["diff"], ["rotate"], ["destroy", "--yes"]):
        assert main([command[0], "--stack", "wasabi", *command[1:]]) == 64
        assert "an example that is never changed" in capsys.readouterr().err
    assert main(["init", "wasabi", "--provider", "wasabi", "--server-name", "example.com"]) == 64
    assert (project / "stacks/Pulumi.wasabi.yaml").read_bytes() == before


def test_a_vendor_s_plugin_that_is_missing_is_named_with_the_way_to_get_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    if obtain_pulumi().route != "source":
        pytest.skip("this engine downloads the vendor's plugin by itself")
    assert main(["diff", "--from-nothing", "--stack", "amazon-s3"]) == 1
    assert "pulumi plugin install resource aws v" in capfd.readouterr().err


def test_init_says_which_answer_is_missing_where_it_can_t_ask(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", (project / "Pulumi.yaml").open())
    assert main(["init", "prod", "--server-name", "example.com"]) == 64
    assert "--provider is missing" in capsys.readouterr().err
    assert main(["init", "prod", "--provider", "wasabi", "--server-name", "example.com", "--region", "mars"]) == 1
    assert "region is 'mars'" in capsys.readouterr().err
    sys.stdin.close()
    assert not (project / "stacks/Pulumi.prod.yaml").exists()


def test_init_asks_for_a_bucket_where_the_server_name_makes_none(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["init", "--provider", "wasabi", "--region", "eu-central-1"]
    long = f"matrix.{'x' * 60}.example.com"
    assert main([*words, "--server-name", long]) == 64
    said = capsys.readouterr().err
    assert f"--bucket is missing: matrix-{'x' * 60}-example-com-media, made from the server name" in said
    assert "it has 85 characters. Name one with --bucket." in said
    assert not list((project / "stacks").glob("Pulumi.prod.yaml"))
    assert main([*words, "--server-name", long, "--bucket", "our-media"]) == 0


def test_init_asks_on_a_terminal(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["wasabi", "example.com", "eu-central-2", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _question: next(answers))
    assert main(["init", "prod"]) == 0
    assert stackfile.read(project, "prod").stores["example.com"].region == "eu-central-2"


def test_a_negative_value_belongs_to_its_option_and_what_follows_two_dashes_to_pulumi() -> None:
    given = ["cost", "--near", "-33.9,151.2", "--json", "--", "--parallel", "-1"]
    assert _joined(given) == ["cost", "--near=-33.9,151.2", "--json", "--", "--parallel", "-1"]


def test_an_edit_keeps_comments_and_what_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text("# mine\nconfig:\n  a: 1  # one\n  'b': \"two\"\n")
    path.chmod(0o640)
    with stackfile.editing(path) as document:
        document["config"]["a"] = 3
    assert path.read_text() == "# mine\nconfig:\n  a: 3  # one\n  'b': \"two\"\n"
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.stat().st_mtime_ns
    with stackfile.editing(path):
        pass
    assert path.stat().st_mtime_ns == before


def test_an_edit_of_settings_in_json_text_leaves_an_object_and_nothing_else_does(tmp_path: Path) -> None:
    """`pulumi config set synapse-media:stores '…'` writes text."""
    path = tmp_path / "Pulumi.x.yaml"
    text = """config:
  synapse-media:stores: '{"example.com": {"provider": "wasabi"}}'
"""
    path.write_text(text)
    with stackfile.editing(path) as document:
        assert document["config"]["synapse-media:stores"] == {"example.com": {"provider": "wasabi"}}
    assert path.read_text() == text
    with stackfile.editing(path) as document:
        document["config"]["synapse-media:stores"]["example.com"]["region"] = "eu-central-2"
    stores = yaml.safe_load(path.read_text())["config"]["synapse-media:stores"]
    assert stores == {"example.com": {"provider": "wasabi", "region": "eu-central-2"}}


@pytest.mark.parametrize(
    ("access", "parent", "why"),
    [
        ("least", "full", ""),
        ("least", "the-bucket", ""),
        ("least", "read-only", "it forbids deletes, writes"),
        ("full", "full", ""),
        ("full", "the-bucket", "it forbids bypass_governance_retention"),
    ],
)
def test_a_grant_that_can_t_give_what_is_needed_is_told(
    access: str, parent: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLINK_ACCESS", PARENTS[parent])
    raw = {"provider": "storj", "bucket": "media", "method": "goofys", "access": access}
    found = credentials.findings(settings.parse({"example.com": raw})["example.com"])
    assert len(found) == bool(why)
    assert why in "".join(found)


def test_init_keeps_a_region_and_an_endpoint_that_the_account_would_tell(project: Path) -> None:
    said = ["--region", "us-west-002", "--endpoint", "https://s3.us-west-002.example.com"]
    assert main(["init", "prod", "--provider", "backblaze_b2", "--server-name", "example.com", *said]) == 0
    store = stackfile.read(project, "prod").stores["example.com"]
    assert (store.region, store.endpoint) == ("us-west-002", "https://s3.us-west-002.example.com")


CREDENTIALS = {
    "amazon_s3": {"region": "eu-central-1"},
    "wasabi": {"region": "eu-central-2"},
    "s3_compatible": {"iam_endpoint": "http://127.0.0.1:9"},
    "digitalocean_spaces": {"region": "fra1", "api_endpoint": "http://127.0.0.1:9"},
    "backblaze_b2": {"realm": "http://127.0.0.1:9"},
    "garage": {"admin_endpoint": "http://127.0.0.1:9"},
    "storj": {},
}


def test_every_provider_family_is_tried() -> None:
    assert set(CREDENTIALS) == {catalog.load(name).component for name in catalog.names()}


@pytest.mark.parametrize("provider", CREDENTIALS)
def test_a_credential_that_is_not_accepted_is_told(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an address without a server: each family's call is made, and its failure is reported."""
    entry = catalog.load(provider)
    raw = {"provider": provider, "bucket": "example-com-media", **CREDENTIALS[provider]}
    if provider not in ("backblaze_b2", "storj"):
        raw["endpoint"] = "http://127.0.0.1:9"
    store = settings.parse({"example.com": raw})["example.com"]
    lacking = credentials.findings(store)
    assert [line.partition(" ")[0] for line in lacking] == [
        name for name in entry.admin_variables if name not in entry.optional_variables
    ]
    for name in entry.admin_variables:
        monkeypatch.setenv(name, "0123456789abcdef0123456789abcdef")
    (finding,) = credentials.findings(store)
    # An access grant is looked at on this machine. Of the others nobody said anything.
    refused = "the admin credential was not accepted: "
    unknown = "it is not known whether the admin credential is accepted: "
    assert finding.startswith(refused if provider == "storj" else unknown)
    assert "0123456789abcdef" not in finding


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("provider", [name for name in CREDENTIALS if name != "storj"])
def test_a_status_that_anybody_gives_accepts_no_credential(
    provider: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx's `deny`, a firewall, an IP filter: a bare status everywhere."""
    for name in catalog.load(provider).admin_variables:
        monkeypatch.setenv(name, "0123456789abcdef0123456789abcdef")
    with proxy.in_front_of("http://127.0.0.1:9") as double:
        double.misbehave(proxy.in_between(status))
        raw = {"provider": provider, "bucket": "example-com-media", **CREDENTIALS[provider]}
        raw |= {name: double.url for name in raw if raw[name] == "http://127.0.0.1:9"}
        if provider != "backblaze_b2":
            raw["endpoint"] = double.url
        (finding,) = credentials.findings(settings.parse({"example.com": raw})["example.com"])
    assert finding.startswith("it is not known whether the admin credential is accepted: ")
    assert f"(HTTP {status}" in finding


@pytest.mark.parametrize(
    ("provider", "there", "lacking"),
    [
        ("amazon_s3", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], []),
        ("digitalocean_spaces", ["DIGITALOCEAN_TOKEN"], []),
        ("digitalocean_spaces", ["DIGITALOCEAN_TOKEN", "SPACES_ACCESS_KEY_ID"], ["SPACES_SECRET_ACCESS_KEY"]),
        ("digitalocean_spaces", [], ["DIGITALOCEAN_TOKEN"]),
    ],
)
def test_a_variable_that_may_be_missing_is_missed_beside_its_other_half_only(
    provider: str, there: list[str], lacking: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in there:
        monkeypatch.setenv(name, "set")
    assert [line.partition(" ")[0] for line in credentials.missing(catalog.load(provider))] == lacking


@pytest.mark.usefixtures("own_directories")
def test_who_has_a_profile_is_told_how_it_becomes_variables(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--provider", "amazon_s3", "--region", "eu-central-1", "--server-name", "a.example"]
    assert main(["init", "prod", *words]) == 0
    assert "--profile PROFILE --format env" in capsys.readouterr().err
    monkeypatch.setenv("AWS_PROFILE", "of work")
    line = """eval "$(aws configure export-credentials --profile 'of work' --format env)\""""
    (told,) = [found for found in credentials.missing(catalog.load("amazon_s3")) if line in found]
    assert told.startswith("AWS_ACCESS_KEY_ID is not set")
    assert main(["up", "--stack", "prod"]) == 1
    assert line in capsys.readouterr().err
    # It is of no use to other providers.
    assert not any("aws " in found for found in credentials.missing(catalog.load("wasabi")))


@pytest.mark.usefixtures("own_directories")
@pytest.mark.parametrize("command", ["list", "show"])
def test_a_look_makes_no_passphrase(
    project: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "state"))
    assert main([command]) == 0
    assert "no stack yet" in capsys.readouterr().out
    assert not (project / "state/synapse-media/passphrase").exists()


@pytest.mark.parametrize(("secret", "accepted"), [("", True), ("of somebody else", False)])
def test_a_credential_is_tried_on_the_real_store(
    embedded_store: Running, monkeypatch: pytest.MonkeyPatch, secret: str, accepted: bool
) -> None:
    raw = {"provider": "s3_compatible", "bucket": "example-com-media", "endpoint": embedded_store.endpoint}
    store = settings.parse({"example.com": {**raw, "iam_endpoint": embedded_store.iam_endpoint}})["example.com"]
    monkeypatch.setenv("S3_ACCESS_KEY_ID", embedded_store.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", secret or embedded_store.secret_access_key)
    assert (credentials.findings(store) == []) is accepted


def test_doctor_prints_the_admin_s_policy_limited_to_what_is_ours() -> None:
    store = StoreSettings("example.com", "amazon_s3", "example-com-media", "goofys", options={"log_bucket": "logs"})
    text = doctor.permissions(catalog.load("amazon_s3"), [store])["text"]
    policy = json.loads(text[text.index("{") :])
    by_sid = {statement["Sid"]: statement for statement in policy["Statement"]}
    assert "arn:aws:s3:::example-com-media" in by_sid["Buckets"]["Resource"]
    # What an option asks for, and no more.
    assert "s3:PutBucketLogging" in by_sid["Buckets"]["Action"]
    assert "iam:CreateRole" not in by_sid["Identities"]["Action"]
    assert "*" not in by_sid["Buckets"]["Resource"]
    assert by_sid["Identities"]["Resource"] == [
        "arn:aws:iam::*:user/synapse-media/*",
        "arn:aws:iam::*:role/synapse-media/*",
        "arn:aws:iam::*:instance-profile/synapse-media/*",
    ]
    assert {"iam:CreateAccessKey", "iam:PutUserPolicy"} <= set(by_sid["Identities"]["Action"])
    assert not any("*" in action for statement in policy["Statement"] for action in statement["Action"])


def test_the_admin_s_policy_suffices_to_delete_the_user() -> None:
    """The vendor's plugin asks for all that could hang on a user it forces away, and fails where it may not."""
    store = StoreSettings("example.com", "amazon_s3", "example-com-media", "goofys", user="media")
    text = doctor.permissions(catalog.load("amazon_s3"), [store])["text"]
    by_sid = {statement["Sid"]: statement for statement in json.loads(text[text.index("{") :])["Statement"]}
    assert {
        "iam:ListSSHPublicKeys",
        "iam:ListMFADevices",
        "iam:DeleteLoginProfile",
        "iam:ListSigningCertificates",
        "iam:ListServiceSpecificCredentials",
    } <= set(by_sid["Identities"]["Action"])
    # It can't be limited to a user.
    assert by_sid["Other"] == {
        "Sid": "Other",
        "Effect": "Allow",
        "Action": ["iam:ListVirtualMFADevices"],
        "Resource": ["*"],
    }
    assert "s3:PutBucketAcl" not in by_sid["Buckets"]["Action"]
    assert not any("media" in arn.rpartition("/")[2] for arn in by_sid["Identities"]["Resource"])


def test_the_admin_s_policy_reaches_a_user_and_an_access_list_that_were_there() -> None:
    adopted = StoreSettings(
        "example.com",
        "amazon_s3",
        "example-com-media",
        "goofys",
        user="media",
        adopt=True,
        allow=frozenset({"set-access"}),
    )
    text = doctor.permissions(catalog.load("amazon_s3"), [adopted])["text"]
    by_sid = {statement["Sid"]: statement for statement in json.loads(text[text.index("{") :])["Statement"]}
    assert {"arn:aws:iam::*:user/media", "arn:aws:iam::*:user/*/media"} <= set(by_sid["Identities"]["Resource"])
    assert "s3:PutBucketAcl" in by_sid["Buckets"]["Action"]


def test_doctor_looks_at_the_module_of_a_synapse(tmp_path: Path) -> None:
    assert "is not installed" in doctor.module_findings(sys.executable)[0]
    assert "No such file" in doctor.module_findings(str(tmp_path / "python"))[0]
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho 1.5.0\n")
    old.chmod(0o755)
    assert "1.5.0" in doctor.module_findings(str(old))[0]
    for recent in ("1.7.0", "1.7", "2", "1.7.0\\n1.140.0"):
        old.write_text(f"#!/bin/sh\nprintf '{recent}\\n'\n")
        assert doctor.module_findings(str(old)) == []
    for module, homeserver in (("1.7.0", "1.139.2"), ("1.5.0", "1.163.0")):
        old.write_text(f"#!/bin/sh\nprintf '{module}\\n{homeserver}\\n'\n")
        (finding,) = doctor.module_findings(str(old))
        assert f"Synapse {homeserver}" in finding
        assert "Upgrade the module to 1.7.0" in finding


def test_a_python_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0)
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    assert "no answer within 0 seconds" in doctor.module_findings(str(silent))[0]


@pytest.mark.parametrize("name", catalog.names())
def test_doctor_shows_what_the_catalog_knows_of_a_provider(name: str) -> None:
    provider = catalog.load(name)
    text = "\n".join(doctor.differences(provider))
    assert all(quirk["what"] in text and quirk["so"] in text for quirk in provider.value("quirks"))
    assert all(f"{limit['value']} {limit['what']}" in text for limit in provider.value("limits"))
    assert provider.value("ownership")["what"] in text
    for capability, words in catalog.capabilities().items():
        assert (words in text) is (provider.can(capability) is not True)


@pytest.mark.parametrize(("method", "said"), [("synapse-s3-storage-provider", True), ("goofys", False)])
def test_doctor_says_that_the_module_was_not_looked_at(
    project: Path, method: str, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--server-name", "example.com", "--provider", "amazon_s3", "--region", "eu-central-1"]
    assert main(["init", "prod", "--method", method, *arguments]) == 0
    capsys.readouterr()
    main(["doctor", "--stack", "prod"])
    assert ("was not looked at" in capsys.readouterr().err) is said


def test_examples_are_complete() -> None:
    for name in EXAMPLES:
        if name == "Pulumi.embedded.yaml":
            continue
        stack = stackfile.read(ROOT, name.removeprefix("Pulumi.").removesuffix(".yaml"))
        assert all(isinstance(store, StoreSettings) for store in stack.stores.values())
        assert stack.admin_variables
