"""A state in a bucket, which two machines share: each with a home, a state directory and an engine's home."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config

from synapse_media.engine.embedded import Running
from synapse_media.engine.obtain import Toolchain
from tests.providers.project import Stack, stack

SHARDS = ("east", "west")


@dataclass
class Machine:
    """One that has a copy of the project, and nothing else of another's."""

    name: str
    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "synapse_media.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        with self.start(*arguments) as child:
            out, err = child.communicate()
        return child.returncode, out + err

    def pulumi(self, *arguments: str) -> None:
        """As after `eval "$(synapse-media env)"`."""
        words = ["bash", "-c", f'eval "$("{sys.executable}" -P -m synapse_media.cli env)"; exec pulumi "$@"', "-"]
        subprocess.run(
            [*words, *arguments], cwd=self.folder, env=self.environment, check=True, stdout=subprocess.DEVNULL
        )


class Shared:
    """Two machines, and the bucket with their state."""

    def __init__(self, base: Path, server: Running, unique: str) -> None:
        config = Config(s3={"addressing_style": "path"})
        keys = {"aws_access_key_id": server.access_key_id, "aws_secret_access_key": server.secret_access_key}
        common: dict[str, Any] = {"region_name": "us-east-1", "config": config, **keys}
        self.s3 = boto3.client("s3", endpoint_url=server.endpoint, **common)
        self.iam = boto3.client("iam", endpoint_url=server.iam_endpoint, **common)
        self.bucket = f"state-{unique}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.unique = unique
        made: Stack = stack(base, "unused", {})
        for name in SHARDS:
            store = {
                "provider": "s3_compatible",
                "endpoint": server.endpoint,
                "iam_endpoint": server.iam_endpoint,
                "bucket": f"{unique}-{name}",
                "settle_seconds": 0,
            }
            homeserver = f"{name}.example.com"
            config_of = {
                "synapse-media:stores": {homeserver: store},
                "synapse-media:allow": [f"{homeserver}/delete-bucket"],
            }
            path = made.path.with_name(f"Pulumi.{name}.yaml")
            path.write_text(yaml.safe_dump({"config": config_of}), encoding="utf-8")
        self.machines = [self._machine(name, base, server) for name in ("one", "two")]

    def _machine(self, name: str, base: Path, server: Running) -> Machine:
        home = base.parent / f"home-{name}"
        (home / "state").mkdir(parents=True)
        url = f"s3://{self.bucket}?endpoint={server.endpoint}&s3ForcePathStyle=true&region=us-east-1"
        own = {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            "PULUMI_HOME": str(home / "pulumi"),
            "PULUMI_BACKEND_URL": url,
            "PULUMI_CONFIG_PASSPHRASE": "of both machines",
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "S3_ACCESS_KEY_ID": server.access_key_id,
            "S3_SECRET_ACCESS_KEY": server.secret_access_key,
        }
        return Machine(name, base, {**os.environ, **own})

    def locks(self) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=".pulumi/locks/").get("Contents", [])
        return [item["Key"] for item in listed]

    def read(self, key: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        return loaded

    def keys(self, name: str) -> list[str]:
        listed = self.iam.list_access_keys(UserName=f"synapse-media-{self.unique}-{name}")["AccessKeyMetadata"]
        return [key["AccessKeyId"] for key in listed]


@pytest.fixture
def shared(
    tmp_path: Path, embedded_store: Running, engine_toolchain: Toolchain, request: pytest.FixtureRequest
) -> Shared:
    unique = f"shared-{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"
    base = tmp_path / "project"
    base.mkdir()
    return Shared(base, embedded_store, unique)


def test_two_machines_are_at_different_shards_at_once_and_at_one_by_turns(shared: Shared) -> None:
    one, two = shared.machines
    runs = [one.start("up", "--yes", "--stack", "east"), two.start("up", "--yes", "--stack", "west")]
    for run in runs:
        out, err = run.communicate()
        assert run.returncode == 0, out + err
    # Each sees what the other made.
    for machine, stack_name in ((one, "west"), (two, "east")):
        code, said = machine.run("diff", "--stack", stack_name)
        assert code == 0, said
    before = shared.keys("east")
    assert len(before) == 1

    # A run that began meanwhile is in the way; by its lock, or by what it had made before this one began.
    config = yaml.safe_load((one.folder / "stacks/Pulumi.east.yaml").read_text(encoding="utf-8"))
    config["config"]["synapse-media:stores"]["east.example.com"]["access"] = "full"
    config["config"]["synapse-media:allow"].append("east.example.com/widen-policy")
    (one.folder / "stacks/Pulumi.east.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    both = [machine.start("up", "--yes", "--stack", "east") for machine in (one, two)]
    ended = [(run.communicate(), run.returncode) for run in both]
    assert 0 in [code for _, code in ended], ended
    for (out, err), code in ended:
        assert code == 0 or "is locked by another run: of " in err or "another run changed the state" in err, out + err
    for machine in (one, two):
        assert machine.run("diff", "--stack", "east")[0] == 0
        assert machine.run("prove", "--stack", "east")[0] == 0
    assert shared.keys("east") == before
    assert shared.locks() == []


def test_the_lock_of_a_dead_run_of_another_machine_is_told_and_left_where_it_is(shared: Shared) -> None:
    one, two = shared.machines
    run = one.start("up", "--yes", "--stack", "east")
    # Its engine is killed as soon as it holds the lock, whatever it is at.
    lock = ""
    while run.poll() is None and not lock:
        found = [key for key in shared.locks() if "/east/" in key and "Lock" not in key]
        lock = found[0] if found and _has_user(shared) else ""
    assert lock, run.communicate()
    owner = shared.read(lock)
    os.kill(owner["pid"], signal.SIGKILL)
    assert run.wait() == 1
    run.communicate()
    assert shared.locks() == [lock]
    # As of a host that is not this one.
    shared.s3.put_object(Bucket=shared.bucket, Key=lock, Body=json.dumps({**owner, "hostname": "runner-7"}).encode())

    for machine in (one, two):
        code, said = machine.run("up", "--yes", "--stack", "east")
        assert code == 1, said
        assert f"on the machine runner-7, process {owner['pid']}, since {owner['timestamp'][:10]}" in said
        assert "pulumi cancel --stack east removes the lock. If it is not, both runs then write the state" in said
        assert shared.locks() == [lock]
    # Another stack's lock is in nobody's way.
    code, said = two.run("up", "--yes", "--stack", "west")
    assert code == 0, said
    code, said = two.run("up", "--yes", "--stack", "east", "--stack", "west")
    assert code == 1
    assert "2 stacks: 1 done, 1 failed" in said
    assert said.rindex("east: failed") < said.rindex("on the machine runner-7")

    two.pulumi("cancel", "--yes", "--stack", "east")
    assert shared.locks() == []
    code, said = two.run("up", "--yes", "--stack", "east")
    assert code == 0, said
    code, said = one.run("diff", "--stack", "east")
    assert code == 0, said
    code, said = one.run("prove", "--stack", "east")
    assert code == 0, said
    # Nothing was lost, and no key is there that nobody has.
    assert len(shared.keys("east")) == 1


def _has_user(shared: Shared) -> bool:
    """Whether something was made already."""
    try:
        shared.iam.get_user(UserName=f"synapse-media-{shared.unique}-east")
    except shared.iam.exceptions.NoSuchEntityException:
        return False
    return True
