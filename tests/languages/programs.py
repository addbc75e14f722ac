"""Programs in other languages on the embedded store: what they are run with."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from synapse_media.engine.embedded import Running
from synapse_media.engine.obtain import GoProgram, Say, build_once, say_on_stderr
from synapse_media.engine.paths import cache_dir
from synapse_media.engine.session import Engine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "bin" / "pulumi-resource-synapse-media"

YAML_HOST = GoProgram("pulumi-language-yaml", HERE / "yaml", "github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml")
SDK_WRITER = GoProgram("sdk", HERE / "sdk", ".")


def built(program: GoProgram, say: Say = say_on_stderr) -> Path:
    """A Go program of these tests, built once for its sources."""
    sources = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(program.source.iterdir()))).hexdigest()[:12]
    return build_once(program, cache_dir() / "tests" / f"{program.name}-{sources}", say)


@dataclass(slots=True)
class Program:
    """A folder for a program of one's own, and the embedded store."""

    folder: Path
    store: Running
    engine: Engine

    def pulumi(self, *arguments: str) -> str:
        """What pulumi printed. Raises EngineError with it."""
        return self.engine.run(arguments).stdout

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program in the environment that pulumi has here, at its end."""
        return subprocess.run(
            command, cwd=self.folder, env=self.engine.environment, capture_output=True, text=True, check=False
        )

    def s3(self, access_key_id: str, secret_access_key: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.store.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def assert_deletes(self, bucket: str, key: tuple[str, str], *, allowed: bool) -> None:
        """That an issued key may write to its bucket, and may or may not delete."""
        client = self.s3(*key)
        client.put_object(Bucket=bucket, Key="probe", Body=b"x")
        if allowed:
            client.delete_object(Bucket=bucket, Key="probe")
            return
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=bucket, Key="probe")


def program(folder: Path, store: Running, **variables: str) -> Program:
    """A folder in which both plugins are on PATH, as after `pip install`, and nothing else is known of them."""
    (folder / "Pulumi.yaml").write_text("{name: infra, runtime: yaml}\n")
    engine = Engine(folder, (), say=lambda _: None)
    path = [str(PACKAGE.parent), engine.environment["PATH"]]
    engine.environment |= {
        "S3_ACCESS_KEY_ID": store.access_key_id,
        "S3_SECRET_ACCESS_KEY": store.secret_access_key,
        "ENDPOINT": store.endpoint,
        "IAM_ENDPOINT": store.iam_endpoint,
        "PULUMI_IGNORE_AMBIENT_PLUGINS": "false",
        **variables,
        "PATH": os.pathsep.join(path),
    }
    return Program(folder, store, engine)
