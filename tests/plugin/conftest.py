"""What the tests of the plugin share."""

from __future__ import annotations

import hashlib
from typing import Any

import boto3
import pytest
from botocore.config import Config

from synapse_media.engine.embedded import Running
from tests.plugin.direct import VARIABLES, Direct, slug


@pytest.fixture(scope="session")
def admin_clients(embedded_store: Running) -> tuple[Any, Any]:
    """The administrator's own S3 and IAM clients, to look behind the plugin; not its code."""

    def client(service: str, endpoint: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=endpoint,
            region_name=embedded_store.region,
            aws_access_key_id=embedded_store.access_key_id,
            aws_secret_access_key=embedded_store.secret_access_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    return client("s3", embedded_store.endpoint), client("iam", embedded_store.iam_endpoint)


@pytest.fixture
def direct(
    embedded_store: Running,
    admin_clients: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Direct:
    """A corner of the embedded store with names of this test's own; the admin credential is in the environment."""
    monkeypatch.setenv(VARIABLES[0], embedded_store.access_key_id)
    monkeypatch.setenv(VARIABLES[1], embedded_store.secret_access_key)
    unique = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    return Direct(embedded_store, f"{slug(request.node.name)}-{unique}", *admin_clients)
