"""Post the output of `ci/preview.sh` as one comment on a pull request, edited in place on later runs.

    .venv/bin/python ci/comment.py DIRECTORY

For GitHub, GitLab, Gitea and Forgejo, from their own builds or from Woodpecker's. It reads from the environment:

- the token (not from arguments, which others on the machine can read): COMMENT_TOKEN, or GITHUB_TOKEN;
- the pull request, as the CI system sets it: GITHUB_REPOSITORY and GITHUB_API_URL, with PULL_REQUEST for its
  number (GitHub, Gitea and Forgejo Actions); CI_API_V4_URL, CI_PROJECT_ID and CI_MERGE_REQUEST_IID (GitLab);
  CI_FORGE_TYPE, CI_FORGE_URL, CI_REPO, CI_REPO_REMOTE_ID and CI_COMMIT_PULL_REQUEST (Woodpecker);
- COMMENT_AUTHOR, the login that the token comments as: by default that of GitHub Actions on GitHub, elsewhere the one
  that the host returns for the token.
"""  # noqa: INP001 (a script, not a package)

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.store import credentials
from synapse_media.store.answers import ApiError
from synapse_media.store.http import JsonClient

MARKER = "<!-- synapse-media preview -->"
LIMIT = 65536
"""The maximum length of a comment in characters: GitHub's limit, the lowest of all."""
PAGE = 100
QUIET = "No stack would change."


@dataclass(frozen=True, slots=True)
class Kind:
    """A host's API for comments.

    Attributes:
        comments, comment: the paths of a pull request's comments, and of a single comment.
        author: the field of a comment's author, and the field in it with the login.
        edit: the HTTP method to edit a comment.
        scheme: the scheme of the token in the Authorization header.
        paged: whether comments are listed in pages of PAGE.
        needs: the permissions that the token needs, for messages.
    """

    name: str
    comments: str
    comment: str
    author: tuple[str, str]
    edit: str
    needs: str
    scheme: str = "Bearer"
    paged: bool = True


GITHUB = Kind(
    "GitHub",
    "/repos/{repository}/issues/{number}/comments",
    "/repos/{repository}/issues/comments/{id}",
    ("user", "login"),
    "PATCH",
    "The job needs `permissions: pull-requests: write`; the token of a fork's build has none",
)
"""https://docs.github.com/en/rest/issues/comments"""
GITEA = Kind(
    "Gitea or Forgejo",
    GITHUB.comments,
    GITHUB.comment,
    GITHUB.author,
    GITHUB.edit,
    "The token needs the scope write:issue, and its user may write to the repository",
    scheme="token",
    # It returns all comments at once, whatever page is requested.
    paged=False,
)
"""https://docs.gitea.com/api/ (issue); Forgejo's is the same."""
GITLAB = Kind(
    "GitLab",
    "/projects/{repository}/merge_requests/{number}/notes",
    "/projects/{repository}/merge_requests/{number}/notes/{id}",
    ("author", "username"),
    "PUT",
    "The token is a project access token with the scope api and the role Reporter; a job's own token may not comment",
)
"""https://docs.gitlab.com/api/notes/#merge-requests"""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """The pull request to comment on. `author` is the login of our comments."""

    kind: Kind
    client: JsonClient
    repository: str
    number: int
    author: str

    def comments(self) -> Iterator[dict[str, Any]]:
        """Every comment. Raises ApiError."""
        path, page = self._path(self.kind.comments), 1
        while True:
            query = {"per_page": PAGE, "page": page} if self.kind.paged else None
            listed = self.client.call("GET", path, query=query)
            yield from listed
            if not self.kind.paged or len(listed) < PAGE:
                return
            page += 1

    def is_ours(self, comment: Mapping[str, Any]) -> bool:
        """Whether it is our comment. The author is compared too, since anybody can write the marker."""
        who, login = self.kind.author
        return comment[who][login] == self.author and str(comment["body"]).startswith(MARKER)

    def make(self, text: str) -> None:
        """Raises ApiError."""
        self.client.call("POST", self._path(self.kind.comments), {"body": text})

    def edit(self, number: int, text: str) -> None:
        """Raises ApiError."""
        path = self._path(self.kind.comment).format(id=number)
        self.client.call(self.kind.edit, path, {"body": text}, repeatable=True)

    def _path(self, pattern: str) -> str:
        return pattern.replace("{repository}", self.repository).replace("{number}", str(self.number))


def body(sections: Mapping[str, str]) -> str:
    """The comment, with a section per stack. Sections beyond the host's limit are omitted, with a note.

    Args:
        sections: stack name -> its Markdown.
    """
    parts, left_out = [MARKER, "## What `up` would do"], 0
    room = LIMIT - sum(map(len, parts)) - 200
    for text in sections.values():
        if len(text) + 2 > room:
            left_out += 1
            continue
        room -= len(text) + 2
        parts.append(text.strip())
    if not sections:
        parts.append(QUIET)
    if left_out:
        parts.append(f"**{left_out} more did not fit here: see the job's log.**")
    return "\n\n".join(parts) + "\n"


def publish(where: PullRequest, text: str, *, quiet: bool) -> str:
    """Edit our comment, or create one unless `quiet`. Returns a message about the result. Raises ApiError."""
    for comment in where.comments():
        if where.is_ours(comment):
            if comment["body"].strip() == text.strip():
                return "the comment says so already"
            where.edit(comment["id"], text)
            return "the comment was edited"
    if quiet:
        return "there is nothing to say"
    where.make(text)
    return "a comment was made"


def _from_environment(name: str, pattern: str, default: str = "") -> str:
    value = os.environ.get(name) or default
    if not re.fullmatch(pattern, value):
        # The value is not shown, since it may be a token in the wrong variable.
        raise UsageError(f"{name} {'is not set' if not value else 'has an unexpected form'}; wanted: {pattern}")
    return value


_REPOSITORY = r"[\w.-]+/[\w.-]+"
_NUMBER = r"\d{1,12}"
_URL = r"https?://\S+"


def _place() -> tuple[Kind, str, str, int]:
    """The kind of host, the URL of its API, the repository and the pull request's number. Raises UsageError."""
    if os.environ.get("GITLAB_CI"):
        base = _from_environment("CI_API_V4_URL", _URL)
        number = int(_from_environment("CI_MERGE_REQUEST_IID", _NUMBER))
        return GITLAB, base, _from_environment("CI_PROJECT_ID", _NUMBER), number
    if os.environ.get("CI") == "woodpecker":
        forge = _from_environment("CI_FORGE_TYPE", "github|gitlab|gitea|forgejo")
        url = _from_environment("CI_FORGE_URL", _URL).rstrip("/")
        number = int(_from_environment("CI_COMMIT_PULL_REQUEST", _NUMBER))
        if forge == "gitlab":
            return GITLAB, f"{url}/api/v4", _from_environment("CI_REPO_REMOTE_ID", _NUMBER), number
        repository = _from_environment("CI_REPO", _REPOSITORY)
        if forge == "github":
            base = "https://api.github.com" if url == "https://github.com" else f"{url}/api/v3"
            return GITHUB, base, repository, number
        return GITEA, f"{url}/api/v1", repository, number
    repository = _from_environment("GITHUB_REPOSITORY", _REPOSITORY)
    number = int(_from_environment("PULL_REQUEST", _NUMBER))
    base = _from_environment("GITHUB_API_URL", _URL, "https://api.github.com")
    return GITEA if base.rstrip("/").endswith("/api/v1") else GITHUB, base, repository, number


def _pull_request(kind: Kind, base: str, repository: str, number: int) -> PullRequest:
    """The pull request to comment on. Raises UsageError, StoreError for a malformed token, ApiError."""
    token = credentials.read("COMMENT_TOKEN") or credentials.read("GITHUB_TOKEN")
    if not token:
        raise UsageError("neither COMMENT_TOKEN nor GITHUB_TOKEN is set")
    base = base.rstrip("/")
    if not base.startswith("https://") and urlsplit(base).hostname not in {"127.0.0.1", "localhost"}:
        raise UsageError(f"{kind.name}'s API is at {base!r}: a token goes over https only")
    headers = {"Authorization": f"{kind.scheme} {token}"}
    if kind is GITHUB:
        headers |= {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    client = JsonClient(base, f"{kind.name}'s API", headers, "GITHUB_API_URL")
    known = "github-actions[bot]" if kind is GITHUB and os.environ.get("CI") != "woodpecker" else ""
    author = _from_environment("COMMENT_AUTHOR", r"[\w.\[\]-]+|", known)
    if not author:
        author = str(client.call("GET", "/user")[kind.author[1]])
    return PullRequest(kind, client, repository, number, author)


def run(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise UsageError("usage: ci/comment.py DIRECTORY, the one that ci/preview.sh wrote")
    sections = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(arguments[0]).glob("*.md"))}
    place = _place()
    try:
        print(publish(_pull_request(*place), body(sections), quiet=not sections))
    except ApiError as error:
        hint = f". {place[0].needs}" if error.status in {401, 403, 404} else ""
        raise SynapseMediaError(f"the comment was not written: {error}{hint}") from None
    return 0


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except SynapseMediaError as error:
        print(f"ci/comment.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
