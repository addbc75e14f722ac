"""A double of DigitalOcean's API for Spaces keys (/v2/spaces/keys).

Each key it gives is one of a user on the embedded store with a policy for the grants, so that the store refuses what
Spaces would. What it can't show: the service's own checks, its time until a key works, its limits but the 200 keys.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3

from synapse_media.engine.embedded import Running

TOKEN = "dop_v1_a_token_of_this_double"
LIMIT = 200


@dataclass(slots=True)
class SpacesApiDouble:
    """What the API knows. `keys` is by access key ID, as the API shows them, without the secrets."""

    store: Running
    url: str = ""
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def iam(self) -> Any:
        return boto3.client(
            "iam",
            endpoint_url=self.store.iam_endpoint,
            # Like Amazon's, the store's IAM has one region, whatever the gateway signs for.
            region_name="us-east-1",
            aws_access_key_id=self.store.access_key_id,
            aws_secret_access_key=self.store.secret_access_key,
        )

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """(status, JSON body) of a call."""
        if path == "/v2/spaces/keys" and method == "GET":
            page, size = int(query["page"][0]), int(query["per_page"][0])
            listed = list(self.keys.values())[(page - 1) * size : page * size]
            # https://docs.digitalocean.com/reference/api/ : no link leads on from the last page.
            at = f"https://api.digitalocean.com{path}?per_page={size}&page="
            pages = {"next": f"{at}{page + 1}"} if page * size < len(self.keys) else {}
            pages |= {"prev": f"{at}{page - 1}"} if page > 1 else {}
            links = {"pages": pages} if pages else {}
            return 200, {"keys": listed, "links": links, "meta": {"total": len(self.keys)}}
        if path == "/v2/spaces/keys" and method == "POST":
            return self._make(body)
        key_id = path.removeprefix("/v2/spaces/keys/")
        if key_id not in self.keys:
            return 404, {"id": "not_found", "message": "The resource you requested could not be found."}
        if method == "PUT":
            self.keys[key_id] |= {"name": body["name"], "grants": body["grants"]}
            self._grant(key_id)
            return 200, {"key": self.keys[key_id]}
        self._delete(key_id)
        return 204, None

    def _make(self, body: Any) -> tuple[int, Any]:
        if len(self.keys) >= LIMIT:
            return 422, {"id": "unprocessable_entity", "message": "you have reached the limit of keys"}
        self.count += 1
        user = f"spaces-key-{secrets.token_hex(8)}"
        iam = self.iam()
        iam.create_user(UserName=user, Path="/spaces-double/")
        made = iam.create_access_key(UserName=user)["AccessKey"]
        key = {
            "name": body["name"],
            "access_key": made["AccessKeyId"],
            "grants": body["grants"],
            "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.keys[made["AccessKeyId"]], self.users[made["AccessKeyId"]] = key, user
        self._grant(made["AccessKeyId"])
        return 201, {"key": {**key, "secret_key": made["SecretAccessKey"]}}

    def _grant(self, key_id: str) -> None:
        statements = []
        for grant in self.keys[key_id]["grants"]:
            arn = f"arn:aws:s3:::{grant['bucket'] or '*'}"
            if grant["permission"] == "fullaccess":
                actions = ["s3:*"]
            else:
                # A limited key works on objects, and lists them; the bucket itself is not its own.
                actions = ["s3:Get*", "s3:List*", "s3:AbortMultipartUpload"]
                actions += ["s3:PutObject", "s3:DeleteObject*"] if grant["permission"] == "readwrite" else []
            statements.append({"Effect": "Allow", "Action": actions, "Resource": [arn, f"{arn}/*"]})
        self.iam().put_user_policy(
            UserName=self.users[key_id],
            PolicyName="grants",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )

    def _delete(self, key_id: str) -> None:
        iam, user = self.iam(), self.users.pop(key_id)
        iam.delete_access_key(UserName=user, AccessKeyId=key_id)
        iam.delete_user_policy(UserName=user, PolicyName="grants")
        iam.delete_user(UserName=user)
        del self.keys[key_id]


class _Server(ThreadingHTTPServer):
    double: SpacesApiDouble


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        where = urlsplit(self.path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, body = 401, {"id": "Unauthorized", "message": "Unable to authenticate you"}
        else:
            body = json.loads(raw) if raw else None
            status, body = self.server.double.answer(self.command, where.path, parse_qs(where.query), body)
        sent = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.send_header("x-request-id", f"double-{self.server.double.count}")
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names http.server looks for

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def spaces_api(store: Running) -> Iterator[SpacesApiDouble]:
    """The double, answering at its `url`, with its keys on `store`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.double = SpacesApiDouble(store, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
