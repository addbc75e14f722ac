"""A double of the part of a code host's REST API that the comment script uses: the comments of a pull request.

GitHub's (https://docs.github.com/en/rest/issues/comments), in pages; Gitea's and Forgejo's, the same without pages
(https://docs.gitea.com/api/); GitLab's notes (https://docs.gitlab.com/api/notes/), in pages. It remembers comments,
refuses a wrong token, and answers the next calls with a status of the test's choice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.doubles.serving import serving

BOT = "github-actions[bot]"


@dataclass(frozen=True)
class Flavour:
    """How one host's API has comments: its paths, how a comment is changed, and whose it is."""

    base: str
    comments: str
    comment: str
    edit: str
    author: tuple[str, str]
    scheme: str = "Bearer"
    paged: bool = True


GITHUB = Flavour("", "/repos/o/r/issues/7/comments", "/repos/o/r/issues/comments/", "PATCH", ("user", "login"))
GITEA = Flavour("/api/v1", GITHUB.comments, GITHUB.comment, GITHUB.edit, GITHUB.author, scheme="token", paged=False)
GITLAB = Flavour(
    "/api/v4",
    "/projects/42/merge_requests/7/notes",
    "/projects/42/merge_requests/7/notes/",
    "PUT",
    ("author", "username"),
)


class Forge(ThreadingHTTPServer):
    """Comments in the order they were made.

    Attributes:
        failing: statuses that the next calls get, instead of an answer; `failing_posts`: the next POSTs.
        calls: "METHOD path" of every call.
        login: whose the token is.
    """

    def __init__(self, token: str, flavour: Flavour = GITHUB, login: str = BOT) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.flavour = flavour
        self.login = login
        self.comments: list[dict[str, Any]] = []
        self.failing: list[int] = []
        self.failing_posts: list[int] = []
        self.calls: list[str] = []

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """Of the API."""
        return self.host + self.flavour.base

    def add(self, body: str, login: str = "") -> dict[str, Any]:
        who, name = self.flavour.author
        comment = {"id": 1000 + len(self.comments), "body": body, who: {name: login or self.login}}
        self.comments.append(comment)
        return comment


@contextmanager
def forge(token: str, flavour: Flavour = GITHUB, login: str = BOT) -> Iterator[Forge]:
    """A running double."""
    with Forge(token, flavour, login) as server, serving(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: Forge

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """The calls are the log."""

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server, flavour = self.server, self.server.flavour
        parts = urlsplit(self.path)
        path = parts.path.removeprefix(flavour.base)
        server.calls.append(f"{self.command} {path}")
        failing = server.failing_posts if self.command == "POST" and server.failing_posts else server.failing
        if failing:
            self._send(failing.pop(0), {"message": "Resource not accessible by integration"})
        elif self.headers.get("Authorization") != f"{flavour.scheme} {server.token}":
            self._send(401, {"message": "Bad credentials"})
        elif (self.command, path) == ("GET", "/user"):
            self._send(200, {flavour.author[1]: server.login})
        elif (self.command, path) == ("GET", flavour.comments):
            query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
            size = query.get("per_page", 30) if flavour.paged else max(1, len(server.comments))
            start = (query.get("page", 1) - 1) * size if flavour.paged else 0
            self._send(200, server.comments[start : start + size])
        elif (self.command, path) == ("POST", flavour.comments):
            self._send(201, server.add(json.loads(raw)["body"]))
        elif self.command == flavour.edit and (found := re.fullmatch(rf"{flavour.comment}(\d+)", path)):
            comment = next(one for one in server.comments if one["id"] == int(found[1]))
            comment["body"] = json.loads(raw)["body"]
            self._send(200, comment)
        else:
            self._send(404, {"message": "Not Found"})

    def _send(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("X-GitHub-Request-Id", "0123:ABCD")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
