"""Python environments with the wheel in them, and projects of users, outside of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from synapse_media.engine.embedded import Running
from tests.providers.project import ROOT

KEPT = ("HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
INDEX = ("UV_", "PIP_", "SSL_CERT_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
"""How the names begin of what says where packages come from."""


def lowest_pulumi() -> str:
    """The lower end of the range in pyproject.toml."""
    required = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (found,) = (text for text in required if text.startswith("pulumi>="))
    return found.removeprefix("pulumi>=").partition(",")[0]


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def build_wheel(folder: Path) -> Path:
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(place: Path, *packages: str | Path) -> None:
    """A virtual environment with these and what they require, from PyPI; as uv makes it, so without pip."""
    env = {
        name: value for name, value in os.environ.items() if name in KEPT or name.startswith(INDEX) or name == "PATH"
    }
    uv = (sys.executable, "-m", "uv")
    for command in (
        (*uv, "venv", "--no-config", "--quiet", "--python", sys.executable, place),
        (*uv, "pip", "install", "--no-config", "--quiet", "--python", place / "bin/python", *packages),
    ):
        done = run(*command, cwd=place.parent, env=env)
        assert done.returncode == 0, done.stderr


def has_bucket(running: Running, name: str) -> bool:
    return name in {bucket["Name"] for bucket in _client(running, "s3", running.endpoint).list_buckets()["Buckets"]}


def has_user(running: Running, name: str) -> bool:
    pages = _client(running, "iam", running.iam_endpoint).get_paginator("list_users").paginate()
    return name in {user["UserName"] for page in pages for user in page["Users"]}


def _client(running: Running, service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=running.region,
        aws_access_key_id=running.access_key_id,
        aws_secret_access_key=running.secret_access_key,
        config=Config(s3={"addressing_style": "path"}),
    )


@dataclass(slots=True)
class UserProject:
    """A user's directory and environment, without this checkout."""

    home: Path
    environment: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """Neither the environment's executables nor this checkout are on the path."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {**kept, "PATH": os.defpath, **self.variables}

    def command(self, *arguments: str, code: int = 0) -> str:
        """`synapse-media` with these; all that it said. Fails where the exit code is another."""
        done = run(self.environment / "bin/synapse-media", *arguments, cwd=self.home, env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, program: str) -> str:
        """What a program prints in the environment."""
        done = run(self.environment / "bin/python", "-I", "-c", program, cwd=self.home, env=self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
