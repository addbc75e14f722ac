"""A double of the part of Vault's transit engine that pulumi uses: encrypt and decrypt under a named key.

https://developer.hashicorp.com/vault/api-docs/secret/transit. It keeps what it was given under a number, and refuses a
wrong token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.doubles.serving import serving


class Vault(ThreadingHTTPServer):
    """`calls` are the paths asked for with the right token."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.kept: list[str] = []
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Vault

    def do_PUT(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["X-Vault-Token"] != self.server.token:
            self._answer(403, {"errors": ["permission denied"]})
            return
        self.server.calls.append(self.path)
        if "/encrypt/" in self.path:
            self.server.kept.append(asked["plaintext"])
            self._answer(200, {"data": {"ciphertext": f"vault:v1:{len(self.server.kept) - 1}"}})
        else:
            number = int(asked["ciphertext"].rpartition(":")[2])
            self._answer(200, {"data": {"plaintext": self.server.kept[number]}})

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def vault(token: str) -> Iterator[Vault]:
    """A running double."""
    with Vault(token) as server, serving(server):
        yield server
