"""The comment on a pull request, written against doubles of the hosts' APIs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from tests.doubles import forge_api
from tests.doubles.forge_api import Flavour, Forge, forge
from tests.providers.project import ROOT

TOKEN = "token-that-no-output-may-hold"
SCRIPT = ROOT / "ci/comment.py"
Comment = Callable[..., tuple[int, str]]


def _load() -> ModuleType:
    spec = spec_from_file_location("ci_comment", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


comment_script = _load()


@pytest.fixture
def api() -> Iterator[Forge]:
    with forge(TOKEN) as running:
        yield running


@pytest.fixture
def comment(api: Forge, tmp_path: Path) -> Comment:
    """Run the script with these sections; its exit code and all it said."""

    def run(environment: dict[str, str] | None = None, **sections: str) -> tuple[int, str]:
        for old in tmp_path.glob("*.md"):
            old.unlink()
        for stack, text in sections.items():
            (tmp_path / f"{stack}.md").write_text(text, encoding="utf-8")
        variables = {
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_API_URL": api.url,
            "PULL_REQUEST": "7",
            **(environment or {}),
        }
        done = subprocess.run(
            [sys.executable, SCRIPT, tmp_path], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert TOKEN not in said
        assert "Traceback" not in said
        return done.returncode, said

    return run


def test_a_comment_is_made_once_and_edited_in_place(api: Forge, comment: Comment) -> None:
    api.add("Nice work", "a-person")
    assert comment(prod="### Stack prod: 1 to create\n") == (0, "a comment was made\n")
    assert comment(prod="### Stack prod: 1 to create\n") == (0, "the comment says so already\n")
    assert comment(prod="### Stack prod: 2 to create\n", spare="### Stack spare\n") == (0, "the comment was edited\n")
    assert len(api.comments) == 2
    text = api.comments[1]["body"]
    assert text.startswith(comment_script.MARKER)
    assert "2 to create" in text
    assert "1 to create" not in text
    assert text.index("prod") < text.index("spare")
    # Nothing left to say: the comment says that, too.
    assert comment() == (0, "the comment was edited\n")
    assert comment_script.QUIET in api.comments[1]["body"]


def test_nothing_to_say_makes_no_comment(api: Forge, comment: Comment) -> None:
    assert comment() == (0, "there is nothing to say\n")
    assert api.comments == []


def test_our_comment_is_found_on_a_later_page(api: Forge, comment: Comment) -> None:
    for number in range(230):
        api.add(f"comment {number}", "a-person")
    ours = api.add(f"{comment_script.MARKER}\nold")
    assert comment(prod="### new") == (0, "the comment was edited\n")
    assert "### new" in ours["body"]
    assert len([call for call in api.calls if call.startswith("GET")]) == 3


def test_a_full_last_page_ends_too(api: Forge, comment: Comment) -> None:
    for number in range(100):
        api.add(f"comment {number}", "a-person")
    assert comment(prod="### new") == (0, "a comment was made\n")


def test_a_comment_of_somebody_else_with_our_marker_is_left(api: Forge, comment: Comment) -> None:
    theirs = api.add(f"{comment_script.MARKER}\nmine now", "a-person")
    assert comment(prod="### new") == (0, "a comment was made\n")
    assert theirs["body"].endswith("mine now")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_says_which_permission_is_missing(api: Forge, comment: Comment, status: int) -> None:
    api.failing = [status]
    code, said = comment(prod="### new")
    assert code == 1
    assert "pull-requests: write" in said
    assert f"HTTP {status}" in said
    assert "0123:ABCD" in said


def test_a_server_error_is_tried_again(api: Forge, comment: Comment) -> None:
    api.failing = [502]
    assert comment(prod="### new") == (0, "a comment was made\n")
    api.failing = [503]
    assert comment(prod="### newer") == (0, "the comment was edited\n")
    assert len(api.comments) == 1


def test_making_a_comment_is_not_tried_twice(api: Forge) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client = comment_script.JsonClient(api.url, "the API", headers, "GITHUB_API_URL", pause=lambda _: None)
    where = comment_script.PullRequest(comment_script.GITHUB, client, "o/r", 7, "me")
    api.failing_posts = [500]
    with pytest.raises(comment_script.ApiError, match="HTTP 500"):
        comment_script.publish(where, "text", quiet=False)
    assert [call for call in api.calls if call.startswith("POST")] == ["POST /repos/o/r/issues/7/comments"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"GITHUB_TOKEN": ""}, "GITHUB_TOKEN is set"),
        ({"PULL_REQUEST": TOKEN}, "PULL_REQUEST has an unexpected form"),
        ({"GITHUB_REPOSITORY": "o/r/../x"}, "GITHUB_REPOSITORY has an unexpected form"),
        ({"GITHUB_API_URL": "http://api.example.com"}, "https only"),
    ],
)
def test_a_wrong_environment_is_told_without_its_secrets(
    api: Forge, comment: Comment, wrong: dict[str, str], told: str
) -> None:
    code, said = comment(wrong, prod="### new")
    assert code == 64
    assert told in said
    assert api.calls == []


def test_what_does_not_fit_is_left_out_whole() -> None:
    sections = {"a": "### a\n" + "x" * 40000, "b": "### b\n" + "y" * 40000, "c": "### c\nshort"}
    text = comment_script.body(sections)
    assert len(text) <= comment_script.LIMIT
    assert "### a" in text
    assert "### b" not in text
    assert "### c" in text
    assert "1 more did not fit" in text


ACTIONS = {"GITHUB_REPOSITORY": "o/r", "PULL_REQUEST": "7", "GITHUB_TOKEN": TOKEN}
WOODPECKER = {
    "CI": "woodpecker",
    "CI_REPO": "o/r",
    "CI_REPO_REMOTE_ID": "42",
    "CI_COMMIT_PULL_REQUEST": "7",
    "COMMENT_TOKEN": TOKEN,
}


@pytest.mark.parametrize(
    ("flavour", "variables"),
    [
        (forge_api.GITEA, {**ACTIONS, "GITHUB_API_URL": "{url}"}),
        (forge_api.GITEA, {**ACTIONS, "GITHUB_API_URL": "{url}/", "COMMENT_AUTHOR": "forgejo-actions"}),
        (forge_api.GITEA, {**WOODPECKER, "CI_FORGE_TYPE": "forgejo", "CI_FORGE_URL": "{host}"}),
        (forge_api.GITEA, {**WOODPECKER, "CI_FORGE_TYPE": "gitea", "CI_FORGE_URL": "{host}/"}),
        (forge_api.GITLAB, {**WOODPECKER, "CI_FORGE_TYPE": "gitlab", "CI_FORGE_URL": "{host}"}),
        (
            forge_api.GITLAB,
            {
                "GITLAB_CI": "true",
                "CI_API_V4_URL": "{url}",
                "CI_PROJECT_ID": "42",
                "CI_MERGE_REQUEST_IID": "7",
                "COMMENT_TOKEN": TOKEN,
            },
        ),
    ],
)
def test_every_host_has_its_comment_once(flavour: Flavour, variables: dict[str, str], tmp_path: Path) -> None:
    with forge(TOKEN, flavour, login="forgejo-actions") as api:
        environment = {name: value.format(url=api.url, host=api.host) for name, value in variables.items()}

        def run(text: str) -> tuple[int, str]:
            (tmp_path / "prod.md").write_text(text, encoding="utf-8")
            done = subprocess.run(
                [sys.executable, SCRIPT, tmp_path],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            said = done.stdout + done.stderr
            assert TOKEN not in said
            return done.returncode, said

        theirs = api.add(f"{comment_script.MARKER}\nmine now", "a-person")
        for number in range(230):
            api.add(f"comment {number}", "a-person")
        assert run("### 1 to create") == (0, "a comment was made\n")
        assert run("### 2 to create") == (0, "the comment was edited\n")
        assert "### 2 to create" in api.comments[-1]["body"]
        assert len(api.comments) == 232
        assert theirs["body"].endswith("mine now")
        # Asked for only where nobody said it.
        assert ("GET /user" in api.calls) is ("COMMENT_AUTHOR" not in variables)
        api.failing = [403]
        code, said = run("### 3 to create")
        assert code == 1
        assert "HTTP 403" in said
        assert "The token" in said


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({**WOODPECKER, "CI_FORGE_TYPE": "bitbucket", "CI_FORGE_URL": "https://x.example"}, "CI_FORGE_TYPE"),
        ({**WOODPECKER, "CI_FORGE_TYPE": "gitea", "CI_FORGE_URL": "http://git.example.com"}, "https only"),
        ({"GITLAB_CI": "true", "CI_API_V4_URL": "https://gitlab.example.com/api/v4"}, "CI_MERGE_REQUEST_IID"),
    ],
)
def test_a_host_that_can_not_be_told_is_refused(variables: dict[str, str], told: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert told in done.stderr
    assert TOKEN not in done.stdout + done.stderr
