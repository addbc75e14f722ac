"""A double of Storj's auth service, over http or https, whose keys are real users of a versitygw with IAM.

Like the real one (storj.io/edge, pkg/auth/httpauth): POST /v1/access registers any grant, as often as it is asked,
each time for another key pair; it lists and deletes nothing. What a key may do is what its grant allows, written as an
IAM policy; a grant's end and its revocation are the satellite's affair: `revoke` stands in for that.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3

from synapse_media.engine.embedded import Running
from synapse_media.plugin.storj_grant import Grant, GrantError, parse
from tests.doubles.serving import serving

LONGEST = 4096
"""Bytes of a request, as the real one's default has it."""

ACTIONS = {
    "reads": ("GetObject", "GetObjectVersion", "GetObjectAttributes"),
    "writes": ("PutObject", "CreateBucket", "PutBucketVersioning", "PutBucketTagging"),
    "lists": ("ListBucketVersions", "ListBucketMultipartUploads", "ListMultipartUploadParts"),
    "deletes": ("DeleteObject", "DeleteObjectVersion", "AbortMultipartUpload", "DeleteBucket"),
}
METADATA = ("GetBucketLocation", "GetBucketVersioning", "GetBucketTagging", "ListBucket")
"""Every grant may look at a bucket that it reaches (macaroon.Caveat.Allows)."""


@dataclass(slots=True)
class AuthDouble:
    """A running double.

    Attributes:
        registered: every grant that was given a key pair, with its access key ID, in order.
    """

    url: str
    store: Running
    registered: list[tuple[Grant, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def lasting(self) -> list[tuple[Grant, str]]:
        """Those that live for more than the hour of a key that makes a bucket."""
        soon = datetime.now(UTC) + timedelta(hours=2)
        return [item for item in self.registered if item[0].not_after is None or item[0].not_after > soon]

    def answer(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        """(status, content type, body)"""
        if path != "/v1/access":
            return 404, "text/plain; charset=utf-8", b"404 page not found\n"
        if len(body) > LONGEST:
            return 413, "text/plain; charset=utf-8", b"http: request body too large\n"
        try:
            text = json.loads(body)["access_grant"]
        except (ValueError, KeyError, TypeError):
            return 422, "text/plain; charset=utf-8", b"unmarshal request body\n"
        try:
            grant = parse(text)
        except GrantError:
            return 400, "text/plain; charset=utf-8", b"access grant: invalid access grant format\n"
        if grant.not_after is not None and grant.not_after < datetime.now(UTC) + timedelta(minutes=1):
            return 400, "text/plain; charset=utf-8", b"access grant: expiration cannot be shorter than a minute\n"
        with self._lock:
            key_id, secret = self._user(grant)
            self.registered.append((grant, key_id))
        made = {"access_key_id": key_id, "secret_key": secret, "endpoint": self.store.endpoint}
        return 200, "application/json", json.dumps(made).encode()

    def revoke(self, text: str) -> None:
        """As the satellite revokes any of its grants: every key of it is refused from now on."""
        wanted = parse(text)
        for number, (grant, key_id) in enumerate(self.registered):
            if grant == wanted:
                name = self._name(number)
                self._iam().update_access_key(UserName=name, AccessKeyId=key_id, Status="Inactive")

    def _name(self, number: int) -> str:
        return f"storj-{self.url.rpartition(':')[2]}-{number}"

    def _iam(self) -> Any:
        return boto3.client(
            "iam",
            endpoint_url=self.store.iam_endpoint,
            region_name=self.store.region,
            aws_access_key_id=self.store.access_key_id,
            aws_secret_access_key=self.store.secret_access_key,
            verify=str(self.store.ca_file) if self.store.ca_file else None,
        )

    def _user(self, grant: Grant) -> tuple[str, str]:
        iam, name = self._iam(), self._name(len(self.registered))
        iam.create_user(UserName=name)
        actions = [action for word, named in ACTIONS.items() if word not in grant.forbidden for action in named]
        # An unrestricted grant would reach every bucket; nobody should ever hand one over.
        buckets = sorted(grant.buckets or ())
        statement = {
            "Effect": "Allow",
            "Action": [f"s3:{action}" for action in (*actions, *METADATA)],
            "Resource": [f"arn:aws:s3:::{bucket}{rest}" for bucket in buckets for rest in ("", "/*")],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="grant", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]


@contextmanager
def in_front_of(store: Running, *, tls: bool = False) -> Iterator[AuthDouble]:
    """The double on a free loopback port; over https with the store's own certificate."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/double/revoke":
                double.revoke(body.decode())
                status, kind, answer = 200, "text/plain", b""
            else:
                status, kind, answer = double.answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """`registered` is the log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            folder = Path(str(store.ca_file)).parent
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        double = AuthDouble(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", store)
        with serving(server):
            yield double


UPLINK = '''#!{python}
"""A double of the vendor's command `uplink`: `access revoke --access PARENT CHILD`, the grants in files.

Notes beside itself how it was called, and has the double of the satellite revoke the child.
"""
import json, os, stat, sys, urllib.request
from pathlib import Path

words = sys.argv[1:]
ok = len(words) == 5 and words[:3] == ["access", "revoke", "--access"]
files = [Path(word) for word in words[3:]] if ok else []
note = {{
    "words": words,
    "environment": sorted(os.environ),
    "modes": [stat.filemode(file.stat().st_mode) for file in files],
    "contents": [file.read_text().strip() for file in files],
}}
with Path(__file__).with_name("calls.jsonl").open("a") as log:
    log.write(json.dumps(note) + "\\n")
if Path(__file__).with_name("broken").exists():
    sys.exit("uplink: metaclient: permission denied: " + note["contents"][1])
request = urllib.request.Request("{url}/double/revoke", data=note["contents"][1].encode(), method="POST")
with urllib.request.urlopen(request) as answer:
    print(f'Revoked access "{{words[-1]}}"')
'''


def write_uplink(folder: Path, python: str, double: AuthDouble) -> Path:
    """The double of `uplink` as a program in `folder`, which is then put on PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / "uplink"
    program.write_text(UPLINK.format(python=python, url=double.url))
    program.chmod(0o755)
    return program


def calls(folder: Path) -> list[dict[str, Any]]:
    """How the double of `uplink` in `folder` was called."""
    log = folder / "calls.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
