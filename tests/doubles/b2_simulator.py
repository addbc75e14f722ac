"""A double of Backblaze B2: b2sdk's own simulator of the native API behind HTTP, its S3 data on the embedded store.

A bucket made here is made there too, and a key minted here is an access key of a user there whose policy follows from
the key's capabilities: so what b2_create_key gave is proved by S3.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import boto3
from b2sdk.v3 import EncryptionAlgorithm, EncryptionMode, EncryptionSetting, RawSimulator
from b2sdk.v3.exception import B2Error, BadRequest

from synapse_media.engine.embedded import Running
from tests.doubles.serving import serving

_ACTIONS = {
    "listFiles": ("s3:ListBucket", "s3:ListBucketMultipartUploads"),
    "readFiles": ("s3:GetObject",),
    # A delete by name only hides, so it comes with writeFiles.
    "writeFiles": ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:DeleteObject"),
    "deleteFiles": ("s3:DeleteObjectVersion",),
    "readBuckets": ("s3:GetBucketLocation",),
}
_RENAMED = {"validDurationInSeconds": "valid_duration_seconds", "fileLockEnabled": "is_file_lock_enabled"}
_CODES = {
    "Conflict": "conflict",
    "DuplicateBucketName": "duplicate_bucket_name",
    "FileNotPresent": "file_not_present",
}
_STATUS = {"unauthorized": 401, "bad_auth_token": 401, "expired_auth_token": 401, "conflict": 409}
Fault = Callable[[str], tuple[int, str, bytes] | None]


class B2Double(RawSimulator):  # type: ignore[misc]
    """One account. `calls` are the operations asked for; `fault` may answer one of them: (status, type, body)."""

    def __init__(self, store: Running, url: str, s3_url: str = "") -> None:
        super().__init__()
        self.API_URL = self.DOWNLOAD_URL = url
        self.S3_API_URL = s3_url or store.endpoint
        self.calls: list[str] = []
        self.fault: Fault = lambda _: None
        self._store = store
        self.key_id, self.key = self.create_account()

    def client(self, service: str) -> Any:
        """boto3 with root's key on the embedded store."""
        return boto3.client(
            service,
            endpoint_url=self._store.endpoint if service == "s3" else self._store.iam_endpoint,
            region_name=self._store.region,
            aws_access_key_id=self._store.access_key_id,
            aws_secret_access_key=self._store.secret_access_key,
        )

    def create_bucket(self, *arguments: Any, **named: Any) -> Any:
        made = super().create_bucket(*arguments, **named)
        s3 = self.client("s3")
        # Another double on the same store may have left its bucket there.
        with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
            s3.create_bucket(Bucket=made["bucketName"])
        return made

    def delete_bucket(self, api_url: str, token: str, account_id: str, bucket_id: str) -> Any:
        if self.bucket_id_to_bucket[bucket_id].file_id_to_file:
            raise BadRequest("Cannot delete non-empty bucket", "cannot_delete_non_empty_bucket")
        gone = super().delete_bucket(api_url, token, account_id, bucket_id)
        s3, name = self.client("s3"), gone["bucketName"]
        for item in s3.list_objects_v2(Bucket=name).get("Contents", []):
            s3.delete_object(Bucket=name, Key=item["Key"])
        s3.delete_bucket(Bucket=name)
        return gone

    def create_key(self, *arguments: Any, **named: Any) -> Any:
        made = super().create_key(*arguments, **named)
        simulated = self.key_id_to_key.pop(made["applicationKeyId"])
        iam, user = self.client("iam"), f"b2-{made['applicationKeyId']}-{uuid4().hex[:12]}"
        iam.create_user(UserName=user)
        actions = sorted({action for name in simulated.capabilities for action in _ACTIONS.get(name, ())})
        names = [bucket["name"] for bucket in simulated.buckets_or_none or ()]
        where = [arn for name in names for arn in (f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*")]
        statement = {"Effect": "Allow", "Action": actions, "Resource": where}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        if actions and where:
            iam.put_user_policy(UserName=user, PolicyName="capabilities", PolicyDocument=document)
        minted = iam.create_access_key(UserName=user)["AccessKey"]
        simulated.application_key_id, simulated.key = minted["AccessKeyId"], minted["SecretAccessKey"]
        simulated.user = user
        self.key_id_to_key[simulated.application_key_id] = simulated
        return simulated.as_created_key()

    def delete_key(self, api_url: str, token: str, application_key_id: str) -> Any:
        user = getattr(self.key_id_to_key.get(application_key_id), "user", "")
        gone = super().delete_key(api_url, token, application_key_id)
        self.client("iam").delete_access_key(UserName=user, AccessKeyId=application_key_id)
        return gone

    def put_file(self, bucket: str, name: str) -> None:
        """A file in the bucket, as the native API sees it."""
        token = self.authorize_account(self.API_URL, self.key_id, self.key)["authorizationToken"]
        bucket_id = self.bucket_name_to_bucket[bucket].bucket_id
        made = self.hide_file(self.API_URL, token, bucket_id, name)
        assert made["fileName"] == name

    def answer(self, operation: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        """The answer to a call of the native API, as Python values."""
        if operation == "authorize_account":
            key_id, _, key = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
            return self.authorize_account(self.API_URL, key_id, key)
        # The simulator lists buckets of all types.
        arguments = {_snake(name): value for name, value in body.items() if name != "bucketTypes"}
        if operation == "list_unfinished_large_files":
            arguments["prefix"] = arguments.pop("name_prefix", None)
        sse = arguments.get("default_server_side_encryption")
        if sse:
            algorithm = EncryptionAlgorithm(sse["algorithm"]) if sse.get("algorithm") else None
            mode = EncryptionMode(sse["mode"]) if sse.get("mode") else EncryptionMode.NONE
            arguments["default_server_side_encryption"] = EncryptionSetting(mode, algorithm)
        return getattr(self, operation)(self.API_URL, headers["Authorization"], **arguments)


def _snake(name: str) -> str:
    return _RENAMED.get(name) or re.sub(r"([A-Z])", lambda match: "_" + match[1].lower(), name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        operation = self.path.rpartition("/b2_")[2]
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        double = self.server.double
        with self.server.lock:
            double.calls.append(operation)
            fault = double.fault(operation)
            status, kind, body = fault or self._simulated(double, operation, json.loads(raw or b"{}"))
        if status:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.close_connection = True

    def _simulated(self, double: B2Double, operation: str, body: Mapping[str, Any]) -> tuple[int, str, bytes]:
        try:
            answer = double.answer(operation, self.headers, body)
            return 200, "application/json", json.dumps(answer, default=list).encode()
        except B2Error as error:
            code = _CODES.get(type(error).__name__) or getattr(error, "code", None) or "bad_request"
            status = _STATUS.get(code, 400)
            told = {"status": status, "code": code, "message": str(error)}
            return status, "application/json", json.dumps(told).encode()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is the base class's
        """Quiet."""


class _Server(ThreadingHTTPServer):
    double: B2Double
    lock: threading.Lock


@contextmanager
def b2_double(store: Running, s3_url: str = "") -> Iterator[B2Double]:
    """A running double; its API_URL is the realm.

    Args:
        s3_url: what the account says its S3 API is; "" for the embedded store.
    """
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.lock = threading.Lock()
        server.double = B2Double(store, f"http://127.0.0.1:{server.server_port}", s3_url)
        with serving(server):
            yield server.double
