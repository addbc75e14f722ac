"""A double of Garage's admin API, version 2, for one bucket and its keys; its S3 API refuses whoever asks.

What it answers is what Garage does, of what is looked at; tests on the real Garage stand in tests/providers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.doubles.serving import serving

REGION = "garage"


@dataclass(slots=True)
class GarageDouble:
    """A running double: `buckets` by ID, `keys` by access key ID, both as GetBucketInfo and ListKeys have them."""

    url: str
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, operation: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        """The answer to a call. Raises LookupError, with Garage's code, where there is no such thing."""
        if "Key" in operation and "Bucket" not in operation:
            return self._of_keys(operation, query, body)
        if operation == "CreateBucket":
            if any(body["globalAlias"] in bucket["globalAliases"] for bucket in self.buckets.values()):
                raise LookupError("BucketAlreadyExists")
            made = {"id": secrets.token_hex(32), "globalAliases": [body["globalAlias"]], "objects": 0, "keys": []}
            quotas = {"maxSize": None, "maxObjects": None}
            self.buckets[made["id"]] = {**made, "quotas": quotas, "websiteAccess": False}
            return self.buckets[made["id"]]
        if operation == "ListBuckets":
            shown = ("id", "globalAliases")
            return [{"localAliases": [], **{name: one[name] for name in shown}} for one in self.buckets.values()]
        if operation == "CleanupIncompleteUploads":
            return {"uploadsDeleted": 0}
        bucket = self._bucket(query, body)
        if operation == "UpdateBucket":
            bucket |= {
                "websiteAccess": body.get("websiteAccess", {}).get("enabled", bucket["websiteAccess"]),
                **{name: body[name] for name in ("lifecycleRules", "quotas") if name in body},
            }
        elif operation in ("AllowBucketKey", "DenyBucketKey"):
            others = [key for key in bucket["keys"] if key["accessKeyId"] != body["accessKeyId"]]
            has = next((key["permissions"] for key in bucket["keys"] if key not in others), {})
            has = {"read": False, "write": False, "owner": False, **has}
            has |= dict.fromkeys(body["permissions"], operation == "AllowBucketKey")
            name = self._key(body["accessKeyId"])["name"]
            key = {"accessKeyId": body["accessKeyId"], "name": name, "permissions": has}
            bucket["keys"] = [*others, key] if any(has.values()) else others
        elif operation == "DeleteBucket":
            del self.buckets[bucket["id"]]
            return None
        return bucket

    def _of_keys(self, operation: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        if operation == "ListKeys":
            return [{"id": key_id, "name": key["name"], "expired": False} for key_id, key in self.keys.items()]
        if operation == "CreateKey":
            key_id = f"GK{secrets.token_hex(12)}"
            self.keys[key_id] = {"name": body["name"], "secretAccessKey": secrets.token_hex(32)}
            return {**self._key_info(key_id), "secretAccessKey": self.keys[key_id]["secretAccessKey"]}
        key = self._key(query["id"])
        if operation == "GetKeyInfo":
            return self._key_info(query["id"])
        if operation == "UpdateKey":
            key |= body
            for bucket in self.buckets.values():
                bucket["keys"] = [key | body if key["accessKeyId"] == query["id"] else key for key in bucket["keys"]]
            return self._key_info(query["id"])
        del self.keys[query["id"]]
        for bucket in self.buckets.values():
            bucket["keys"] = [key for key in bucket["keys"] if key["accessKeyId"] != query["id"]]
        return None

    def _key(self, key_id: str) -> dict[str, Any]:
        if key_id not in self.keys:
            raise LookupError("NoSuchAccessKey")
        return self.keys[key_id]

    def _key_info(self, key_id: str) -> dict[str, Any]:
        return {
            "accessKeyId": key_id,
            "created": "2026-11-26T00:00:00Z",
            "name": self.keys[key_id]["name"],
            "expiration": None,
            "expired": False,
            "permissions": {"createBucket": False},
            "buckets": [
                {"id": bucket["id"], "globalAliases": bucket["globalAliases"], "permissions": key["permissions"]}
                for bucket in self.buckets.values()
                for key in bucket["keys"]
                if key["accessKeyId"] == key_id
            ],
        }

    def _bucket(self, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        wanted = {query.get("id"), body.get("bucketId"), query.get("globalAlias")} - {None}
        for bucket in self.buckets.values():
            if wanted & {bucket["id"], *bucket["globalAliases"]}:
                return bucket
        raise LookupError("NoSuchBucket")


@contextmanager
def garage_admin() -> Iterator[GarageDouble]:
    """The double on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            where = urlsplit(self.path)
            status, kind, sent = 200, "application/json", b""
            if not where.path.startswith("/v2/"):
                status, kind = 403, "application/xml"
                sent = f"<Error><Code>AccessDenied</Code><Region>{REGION}</Region></Error>".encode()
            else:
                try:
                    query = dict(parse_qsl(where.query))
                    found = double.answer(where.path.removeprefix("/v2/"), query, json.loads(raw or b"{}"))
                    sent = json.dumps(found).encode()
                except LookupError as error:
                    status = 409 if error.args[0] == "BucketAlreadyExists" else 404
                    sent = json.dumps({"code": error.args[0], "message": "double"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = _any  # noqa: N815 - the names http.server looks for

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, serving(server):
        double = GarageDouble(f"http://127.0.0.1:{server.server_port}")
        yield double
