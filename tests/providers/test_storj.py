"""Storj: the real stack through the real engine, on a double of the auth service and a versitygw behind it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from synapse_media.renderer import render
from tests.doubles import proxy, storj_auth
from tests.doubles.storj_auth import AuthDouble
from tests.providers.project import ROOT, SERVER, Stack, stack

BUCKET = "storj-media"
PARENTS = json.loads((ROOT / "tests/storj/vectors.json").read_text())["parents"]


@pytest.fixture
def auth(embedded_store: Running) -> Iterator[AuthDouble]:
    with storj_auth.in_front_of(embedded_store) as double:
        yield double


@pytest.fixture
def storj(tmp_path: Path) -> Stack:
    return stack(tmp_path, "storj", {"UPLINK_ACCESS": PARENTS["full"]})


def _settings(auth: AuthDouble, **more: Any) -> dict[str, Any]:
    return {
        "provider": "storj",
        "bucket": BUCKET,
        "method": "synapse-s3-storage-provider",
        "auth_endpoint": auth.url,
        **more,
    }


def _s3(store: Running) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key,
    )


def test_life(storj: Stack, auth: AuthDouble, embedded_store: Running) -> None:
    storj.store(**_settings(auth))
    print(storj.up())
    assert storj.preview() == ()
    print(storj.outputs())
