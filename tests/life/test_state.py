"""Where the state may be: in a bucket of an S3-compatible store, with two `up`s at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synapse_media.engine.embedded import Running
from synapse_media.engine.paths import state_dir
from tests.doubles.proxy import Answer, Proxy, Request, Upstream, in_front_of
from tests.life.life import Life

COMMAND = Path(sys.executable).parent / "synapse-media"


@pytest.fixture
def state_bucket(embedded_store: Running, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket for states, which the environment names."""
    bucket = "states-" + "".join(letter for letter in request.node.name.lower() if letter.isalnum())[:40]
    address = embedded_store.endpoint.removeprefix("http://")
    where = f"endpoint={address}&disableSSL=true&s3ForcePathStyle=true&region={embedded_store.region}"
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"s3://{bucket}?{where}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", embedded_store.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", embedded_store.secret_access_key)
    return bucket


@pytest.fixture
def proxy(embedded_store: Running) -> Iterator[Proxy]:
    with in_front_of(embedded_store.endpoint) as running:
        yield running


@pytest.fixture
def shared(embedded_store: Running, state_bucket: str, proxy: Proxy, begin: Callable[[], Life]) -> Life:
    """A stack whose state is in a bucket, and whose store is reached through the proxy."""
    import boto3

    boto3.client(
        "s3",
        endpoint_url=embedded_store.endpoint,
        region_name=embedded_store.region,
        aws_access_key_id=embedded_store.access_key_id,
        aws_secret_access_key=embedded_store.secret_access_key,
    ).create_bucket(Bucket=state_bucket)
    new = begin()
    new.store(endpoint=proxy.url)
    return new


def test_two_ups_at_once_on_a_state_in_a_bucket(shared: Life, state_bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    passphrase = state_dir() / "passphrase"
    # Two machines: each has a state directory of its own, and the passphrase.
    other = {"XDG_STATE_HOME": str(tmp_path), "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase)}
    arrived, go_on = threading.Event(), threading.Event()

    def hold(request: Request, upstream: Upstream) -> Answer | None:
        arrived.set()
        go_on.wait()
        return upstream.ask(request)

    # Every try of it: however slow this machine is, the first one waits longer than the second one takes.
    proxy.misbehave(hold, when=lambda request: request.method == "PUT")

    def start(**environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(COMMAND), "up", "--stack", shared.stack.name, "--yes"],
            cwd=shared.stack.engine.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )

    with start() as first:
        try:
            assert arrived.wait(300), "the first one makes no bucket"
            # While it does, the other one starts, reports it, and changes nothing.
            with start(**other) as second:
                said, _ = second.communicate(timeout=300)
            assert first.poll() is None
        finally:
            go_on.set()
        told, _ = first.communicate(timeout=300)
    assert second.returncode == 1
    assert "is locked by another run: of " in said
    assert first.returncode == 0, told
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
    shared.store("delete-bucket", endpoint=proxy.url)
    code, printed = shared.command("destroy", "--yes")
    assert code == 0, printed
