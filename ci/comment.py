"""Put what `ci/preview.sh` wrote into one comment on a pull request: made once, then edited in place.

    .venv/bin/python ci/comment.py DIRECTORY

From the environment, as GitHub Actions sets it: GITHUB_TOKEN (nowhere else: an argument can be read by others on the
machine), GITHUB_REPOSITORY, GITHUB_API_URL, and PULL_REQUEST, the pull request's number. COMMENT_AUTHOR, if the token
is not that of the Actions app: the login that it comments as.
"""  # noqa: INP001 (a script, not a package)

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.store import credentials
from synapse_media.store.answers import ApiError
from synapse_media.store.http import JsonClient

MARKER = "<!-- synapse-media preview -->"
LIMIT = 65536
"""Characters of a comment's body."""
PAGE = 100
QUIET = "No stack would change."


def body(sections: Mapping[str, str]) -> str:
    """The comment: a section a stack, whole or left out with a word, so that the host takes it.

    Args:
        sections: {stack: its Markdown}.
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


def publish(client: JsonClient, repository: str, number: int, author: str, text: str, *, quiet: bool) -> str:
    """Edit our comment, or make one, unless there is nothing to say; what was done, in words. Raises ApiError."""
    comments = f"/repos/{repository}/issues/{number}/comments"
    for comment in _all(client, comments):
        # Anybody can write the marker into a comment; only ours is ours to edit.
        if comment["user"]["login"] == author and str(comment["body"]).startswith(MARKER):
            if comment["body"].strip() == text.strip():
                return "the comment says so already"
            where = f"/repos/{repository}/issues/comments/{comment['id']}"
            client.call("PATCH", where, {"body": text}, repeatable=True)
            return "the comment was edited"
    if quiet:
        return "there is nothing to say"
    client.call("POST", comments, {"body": text})
    return "a comment was made"


def _all(client: JsonClient, path: str) -> Iterator[dict[str, Any]]:
    page = 1
    while True:
        listed = client.call("GET", path, query={"per_page": PAGE, "page": page})
        yield from listed
        if len(listed) < PAGE:
            return
        page += 1


def _from_environment(name: str, pattern: str, default: str = "") -> str:
    value = os.environ.get(name) or default
    if not re.fullmatch(pattern, value):
        # A token that was put into the wrong variable is not repeated.
        raise UsageError(f"{name} {'is not set' if not value else 'has an unexpected form'}; wanted: {pattern}")
    return value


def run(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise UsageError("usage: ci/comment.py DIRECTORY, the one that ci/preview.sh wrote")
    token = credentials.read("GITHUB_TOKEN")
    if not token:
        raise UsageError("GITHUB_TOKEN is not set")
    repository = _from_environment("GITHUB_REPOSITORY", r"[\w.-]+/[\w.-]+")
    number = int(_from_environment("PULL_REQUEST", r"\d{1,12}"))
    base = _from_environment("GITHUB_API_URL", r"https?://\S+", "https://api.github.com").rstrip("/")
    if not base.startswith("https://") and urlsplit(base).hostname not in {"127.0.0.1", "localhost"}:
        raise UsageError(f"GITHUB_API_URL is {base!r}: a token goes over https only")
    author = _from_environment("COMMENT_AUTHOR", r"[\w\[\]-]+", "github-actions[bot]")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    sections = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(arguments[0]).glob("*.md"))}
    client = JsonClient(base, "GitHub's API", headers)
    try:
        print(publish(client, repository, number, author, body(sections), quiet=not sections))
    except ApiError as error:
        hint = (
            ". The job needs `permissions: pull-requests: write`; the token of a fork's build has none"
            if error.status in {401, 403, 404}
            else ""
        )
        raise SynapseMediaError(f"the comment was not written: {error}{hint}") from None
    return 0


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except SynapseMediaError as error:
        print(f"ci/comment.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
