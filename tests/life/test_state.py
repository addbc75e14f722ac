"""Where the state may be: in a bucket of an S3-compatible store, with two `up`s at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_media.engine.embedded import Running
from tests.life.life import Life

COMMAND = Path(sys.executable).parent / "synapse-media"


@pytest.fixture
def state_bucket(embedded_store: Running, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket for states; the environment says so, as a person's would."""
    bucket = "states-" + "".join(letter for letter in request.node.name.lower() if letter.isalnum())[:40]
    address = embedded_store.endpoint.removeprefix("http://")
    where = f"endpoint={address}&disableSSL=true&s3ForcePathStyle=true&region={embedded_store.region}"
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"s3://{bucket}?{where}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", embedded_store.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", embedded_store.secret_access_key)
    return bucket


@pytest.fixture
def shared(embedded_store: Running, state_bucket: str, begin: Callable[[], Life]) -> Life:
    """A stack whose state is in a bucket."""
    import boto3

    boto3.client(
        "s3",
        endpoint_url=embedded_store.endpoint,
        region_name=embedded_store.region,
        aws_access_key_id=embedded_store.access_key_id,
        aws_secret_access_key=embedded_store.secret_access_key,
    ).create_bucket(Bucket=state_bucket)
    new = begin()
    new.store()
    return new


def test_two_ups_at_once_on_a_state_in_a_bucket(shared: Life, state_bucket: str) -> None:
    command = [str(COMMAND), "up", "--stack", shared.stack.name, "--yes"]
    project = shared.stack.engine.project
    children = [
        subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    ended = []
    for child in children:
        said, _ = child.communicate(timeout=300)
        ended.append((child.returncode, said))
    assert min(code for code, _ in ended) == 0, ended
    for code, said in ended:
        # Whoever came second was told, and changed nothing.
        assert code == 0 or "currently locked" in said
    assert shared.command("up", "--yes")[0] == 0
    outputs = shared.stack.outputs()
    outputs.require_proof()
    assert shared.keys() == [outputs.access_key_id]
    assert shared.command("diff", "--refresh")[0] == 0
    # It is there and nowhere else, and no secret is in it in clear.
    listed = [item["Key"] for item in shared.s3.list_objects_v2(Bucket=state_bucket)["Contents"]]
    assert f".pulumi/stacks/synapse-media/{shared.stack.name}.json" in listed
    for key in listed:
        content = shared.s3.get_object(Bucket=state_bucket, Key=key)["Body"].read()
        assert outputs.secret_access_key.encode() not in content
        assert shared.running.secret_access_key.encode() not in content
    shared.store("delete-bucket")
    code, printed = shared.command("destroy", "--yes")
    assert code == 0, printed
