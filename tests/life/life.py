"""A stack of a test's own on the real embedded store, driven by the command as people run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from synapse_media.cli import main
from synapse_media.engine.embedded import Running
from tests.providers.project import SERVER, Stack

__all__ = ["SERVER", "Life"]


@dataclass(slots=True)
class Life:
    """One store's life: its stack, the admin's view of the server, and the command."""

    stack: Stack
    running: Running
    bucket: str
    user: str
    capture: Any

    def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and all that was printed by the command and its children."""
        self.capture.readouterr()
        name, *rest = arguments
        code = main([name, "--stack", self.stack.name, *rest])
        printed = self.capture.readouterr()
        return code, printed.out + printed.err

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "provider": "s3_compatible",
            "endpoint": self.running.endpoint,
            "iam_endpoint": self.running.iam_endpoint,
            "bucket": self.bucket,
            "method": "synapse-s3-storage-provider",
            "settle_seconds": 0,
            **more,
        }

    def store(self, *allow: str, **more: Any) -> None:
        self.stack.store(allow, **self.settings(**more))

    @property
    def s3(self) -> Any:
        return self.client("s3", self.running.access_key_id, self.running.secret_access_key)

    @property
    def iam(self) -> Any:
        return self.client("iam", self.running.access_key_id, self.running.secret_access_key)

    def client(self, service: str, key: str, secret: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.running.endpoint if service == "s3" else self.running.iam_endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(s3={"addressing_style": "path"}),
        )

    def keys(self) -> list[str]:
        return sorted(key["AccessKeyId"] for key in self.iam.list_access_keys(UserName=self.user)["AccessKeyMetadata"])
