"""What a person sees: colours, tables and questions on a real pseudo-terminal; plain text everywhere else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_media import catalog, stackfile
from synapse_media.cli import main
from tests.cli.pseudo_terminal import on_terminal
from tests.life.conftest import begin as begin  # noqa: PLC0414 - a fixture
from tests.life.life import Life
from tests.providers.project import ROOT

RED = "\x1b[1;31m"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The part of the project that `init` looks at."""
    shutil.copy2(ROOT / "Pulumi.yaml", tmp_path)
    shutil.copytree(ROOT / "stacks", tmp_path / "stacks", ignore=shutil.ignore_patterns("Pulumi.embedded.yaml"))
    return tmp_path


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def without_waiting(text: str) -> str:
    """Without what is said of a call that takes long, on a busy machine."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("waiting for "))


def table(text: str) -> dict[str, list[str]]:
    """{operation: its other cells} of the proof."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in without_colours(text).splitlines()]
    start = next(at for at, row in enumerate(rows) if row[0] == "operation")
    return {row[0]: row[1:] for row in rows[start:] if len(row) > 1}


def test_changes_dangers_and_proofs_are_in_colour_on_a_terminal_and_nowhere_else(
    begin: Callable[[], Life], capfd: pytest.CaptureFixture[str]
) -> None:
    life = begin()
    name, project = life.stack.name, life.stack.engine.project
    life.store()
    code, shown = on_terminal("up", "--yes", "--stack", name, cwd=project)
    assert code == 0
    assert "\x1b[32mcreate Bucket of " in shown
    assert table(shown)["operation"] == ["expected", "was"]
    assert table(shown)["delete"] == ["refused", "refused"]
    assert "{" not in without_colours(shown)
    # Pulumi's own display, which goes back to lines that it wrote, and says at the end what it did. It masks secrets.
    assert re.search(r"\x1b\[\d*A", shown)
    assert re.search(r"Resources:\s+\+ \d+ created", without_colours(shown))
    assert life.stack.outputs().secret_access_key not in shown
    # What exists, then what is next, once; a new key is said, and is no warning.
    _, next_ = without_colours(shown).split("Next:\n")
    assert f"synapse-media render --stack {name} --out DIR" in next_
    assert "is new. Render" in shown
    assert "warning" not in shown

    for command in ("prove", "show"):
        code, shown = on_terminal(command, "--stack", name, cwd=project)
        assert code == 0
        assert table(shown)["put"][:2] == ["allowed", "allowed"]
        assert RED not in shown
        code, plain = on_terminal(command, "--stack", name, cwd=project, NO_COLOR="1")
        capfd.readouterr()
        assert main([command, "--stack", name]) == code == 0
        assert without_waiting(plain) == capfd.readouterr().out

    life.store(method="matrix-media-repo", media_repo={"s3_datastore_id": "abc"})
    code, shown = on_terminal("diff", "--stack", name, cwd=project)
    assert code == 3
    assert f"{RED}    DANGER: the key may do more than before: s3:DeleteObject" in shown
    # Of the proof's expectations, the one that changes.
    assert '    expected.delete: "refused" -> "allowed"\n' in shown
    assert "put-bucket-policy" not in shown
    for more in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, plain = on_terminal("diff", "--stack", name, cwd=project, **more)
        assert code == 3
        assert "\x1b" not in plain
    capfd.readouterr()
    assert main(["diff", "--stack", name]) == 3
    as_text = capfd.readouterr().out
    assert without_waiting(plain) == without_waiting(without_colours(shown)) == as_text
    code, shown = on_terminal("up", "--yes", "--stack", name, cwd=project)
    assert code == 3
    assert f"{RED}synapse-media up: " in shown


@pytest.mark.usefixtures("own_directories")
def test_init_shows_the_choices_and_asks_again_after_a_typo(project: Path) -> None:
    answers = ["wasbi", "wasabi", "", "example.com", "mars", "eu-central-2", "gofys", "goofys"]
    code, shown = on_terminal("init", "prod", cwd=project, typed="".join(f"{answer}\n" for answer in answers))
    assert code == 0
    for words in (
        "digitalocean_spaces   DigitalOcean Spaces",
        "'wasbi' is none of these. Did you mean 'wasabi'?",
        "'mars' is none of these. Allowed: us-east-1, ",
        "goofys                       Goofys, a FUSE mount of the bucket",
        "Method [synapse-s3-storage-provider]: ",
        "'gofys' is none of these. Did you mean 'goofys'?",
    ):
        assert words in shown
    store = stackfile.read(project, "prod").stores["example.com"]
    assert (store.provider, store.region, store.method) == ("wasabi", "eu-central-2", "goofys")


@pytest.mark.usefixtures("own_directories")
def test_init_asks_for_the_id_that_a_method_needs(project: Path) -> None:
    answers = ["wasabi", "example.com", "eu-central-2", "matrix-media-repo", ""]
    code, shown = on_terminal("init", "prod", cwd=project, typed="".join(f"{answer}\n" for answer in answers))
    assert code == 0
    assert "media-repo.yaml" in shown
    store = stackfile.read(project, "prod").stores["example.com"]
    assert re.fullmatch("[0-9a-f]{40}", store.media_repo["s3_datastore_id"])


@pytest.mark.usefixtures("own_directories")
@pytest.mark.parametrize("provider", catalog.names())
def test_init_comes_to_its_end_at_every_provider_that_it_shows(project: Path, provider: str) -> None:
    """Asked as a person answers: with what the question names, whichever questions there are."""
    entry = catalog.load(provider)
    answers = [provider, "exa mple", "example.com"]
    from_account = entry.value("endpoint_from_account", False)
    region = str(entry.value("default_region", "")) or next(iter(entry.regions), "eu-1")
    if not from_account and not entry.value("default_region", ""):
        answers += ["not a region", region]
    if not from_account and not entry.endpoint(region):
        answers += ["not a url", "https://s3.example.net"]
    answers.append("goofys")
    settings = entry.value("settings", {})
    if "existing_key" in settings and not entry.iam_endpoint(region):
        answers += ["s3.example.net/iam", "existing_key=true"]
    answers += ["http://127.0.0.1:3903"] if "admin_endpoint" in settings else []
    code, shown = on_terminal("init", "prod", cwd=project, typed="".join(f"{answer}\n" for answer in answers))
    assert code == 0, shown
    assert "is 'exa mple'; allowed: a host name such as" in shown
    store = stackfile.read(project, "prod").stores["example.com"]
    assert (store.provider, store.method) == (provider, "goofys")


@pytest.mark.usefixtures("own_directories")
def test_init_asks_for_a_bucket_where_the_server_name_makes_none(project: Path) -> None:
    answers = ["wasabi", f"{'long.' * 13}example.com", "Media", "media-of-long", "eu-central-2", ""]
    code, shown = on_terminal("init", "prod", cwd=project, typed="".join(f"{answer}\n" for answer in answers))
    assert code == 0, shown
    assert "made from the server name, can't be a bucket's name at wasabi" in shown
    (store,) = stackfile.read(project, "prod").stores.values()
    assert store.bucket == "media-of-long"


@pytest.mark.usefixtures("own_directories")
def test_who_names_the_provider_is_not_asked_for_the_method(project: Path) -> None:
    code, shown = on_terminal(
        "init", "prod", "--provider", "wasabi", "--region", "eu-central-2", cwd=project, typed="example.com\n"
    )
    assert code == 0
    assert "Method" not in shown
    assert stackfile.read(project, "prod").stores["example.com"].method == "synapse-s3-storage-provider"


@pytest.mark.usefixtures("own_directories")
def test_a_root_credential_is_not_shown_on_a_terminal(project: Path) -> None:
    code, shown = on_terminal("embedded", "env", cwd=project)
    assert code == 64
    assert 'Use: eval "$(synapse-media embedded env)"' in shown
    assert "export" not in shown
