"""A double of the part of GitHub's REST API that the comment script uses: the comments of issues, in pages.

https://docs.github.com/en/rest/issues/comments. It remembers comments, refuses a wrong token, and answers the next
calls with a status of the test's choice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.doubles.serving import serving

BOT = "github-actions[bot]"


class GitHub(ThreadingHTTPServer):
    """Comments in the order they were made.

    Attributes:
        failing: statuses that the next calls get, instead of an answer; `failing_posts`: the next POSTs.
        calls: "METHOD path" of every call.
    """

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.comments: list[dict[str, Any]] = []
        self.failing: list[int] = []
        self.failing_posts: list[int] = []
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, body: str, login: str = BOT) -> dict[str, Any]:
        comment = {"id": 1000 + len(self.comments), "body": body, "user": {"login": login}}
        self.comments.append(comment)
        return comment


@contextmanager
def github(token: str) -> Iterator[GitHub]:
    """A running double."""
    with GitHub(token) as server, serving(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """The calls are the log."""

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server
        parts = urlsplit(self.path)
        server.calls.append(f"{self.command} {parts.path}")
        failing = server.failing_posts if self.command == "POST" and server.failing_posts else server.failing
        if failing:
            self._send(failing.pop(0), {"message": "Resource not accessible by integration"})
        elif self.headers.get("Authorization") != f"Bearer {server.token}":
            self._send(401, {"message": "Bad credentials"})
        elif self.command == "GET" and re.fullmatch(r"/repos/o/r/issues/7/comments", parts.path):
            query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
            size = query.get("per_page", 30)
            start = (query.get("page", 1) - 1) * size
            self._send(200, server.comments[start : start + size])
        elif self.command == "POST" and re.fullmatch(r"/repos/o/r/issues/7/comments", parts.path):
            self._send(201, server.add(json.loads(raw)["body"]))
        elif self.command == "PATCH" and (found := re.fullmatch(r"/repos/o/r/issues/comments/(\d+)", parts.path)):
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
