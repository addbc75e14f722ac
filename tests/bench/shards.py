"""`python -m tests.bench.shards`: many homeservers in several stacks, on an embedded store that has their state too.

Each shard's `up` and `diff` is measured alone, as on a runner of its own; from that follows what several runners would
take side by side, as long as the store keeps up. Then all at once by one command. Prints, never judges.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import boto3
import yaml
from botocore.config import Config

from tests.bench import server
from tests.bench.__main__ import Cost, measured
from tests.doubles import proxy
from tests.providers.project import stack

STATE = "bench-state"


def side_by_side(seconds: Sequence[float], runners: int) -> float:
    """How long so many runners take, each with one shard after the other: the longest ones first."""
    busy = [0.0] * runners
    for one in sorted(seconds, reverse=True):
        heapq.heappush(busy, heapq.heappop(busy) + one)
    return max(busy)


def write(project: Path, names: Sequence[str], stores: int, endpoint: str, iam_endpoint: str) -> None:
    """A stack file for each shard."""
    shared = {
        "provider": "s3_compatible",
        "endpoint": endpoint,
        "iam_endpoint": iam_endpoint,
        "settle_seconds": 0,
    }
    for name in names:
        config = {
            "synapse-media:defaults": shared,
            "synapse-media:stores": {
                f"m{number}.{name}.example.com": {"bucket": f"{name}-{number:04}"} for number in range(stores)
            },
        }
        text = yaml.safe_dump({"config": config}, sort_keys=False)
        (project / "stacks" / f"Pulumi.{name}.yaml").write_text(text, encoding="utf-8")


def command(project: Path, *arguments: str, codes: Sequence[int] = (0,)) -> Cost:
    """The cost of one command. Raises RuntimeError where it ends with another exit code."""
    words = [sys.executable, "-P", "-m", "synapse_media.cli", *arguments]

    def run() -> None:
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
        if done.returncode not in codes:
            raise RuntimeError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr[-3000:]}")

    return measured(run)


def measure(project: Path, names: Sequence[str], parallel: int) -> None:
    """Each shard alone, and all at once."""
    for what, words in (("up", ["up", "--yes"]), ("diff", ["diff"])):
        alone = [command(project, *words, "--stack", name) for name in names]
        cpu = sum(cost.cpu for cost in alone)
        print(f"{what:<5}each alone: {sum(cost.wall for cost in alone):8.1f} s wall, {cpu:8.1f} s CPU", flush=True)
        for runners in (1, 4, 20):
            seconds = side_by_side([cost.wall for cost in alone], runners)
            print(f"     {runners:2} runners, computed from these: {seconds:8.1f} s", flush=True)
    together = command(project, "up", "--yes", "--stack", "shard-*", "--parallel", str(parallel))
    print(f"up   again, all by one command, {parallel} at once: {together}", flush=True)


def main() -> None:
    """Simulate many homeservers. The numbers are of a machine that does nothing else."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shards", description=main.__doc__)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--stores", type=int, default=50, help="of each shard")
    parser.add_argument("--parallel", type=int, default=2, help="for the one command on all shards")
    parser.add_argument(
        "--throttle", type=float, default=0, metavar="CALLS", help="calls a second that the store takes"
    )
    arguments = parser.parse_args()
    names = [f"shard-{number:02}" for number in range(arguments.shards)]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as doubles:
        base = Path(folder)
        for name in [name for name in os.environ if name.startswith("PULUMI_")]:
            del os.environ[name]
        (base / "state").mkdir()
        os.environ["XDG_STATE_HOME"] = str(base / "state")
        running = doubles.enter_context(server.running("bench-shards", base))
        keys = {"aws_access_key_id": running.access_key_id, "aws_secret_access_key": running.secret_access_key}
        path_style = Config(s3={"addressing_style": "path"})
        client = boto3.client("s3", endpoint_url=running.endpoint, region_name="us-east-1", config=path_style, **keys)
        client.create_bucket(Bucket=STATE)
        url = f"s3://{STATE}?endpoint={running.endpoint}&s3ForcePathStyle=true&region=us-east-1"
        os.environ |= {
            "PULUMI_BACKEND_URL": url,
            "PULUMI_CONFIG_PASSPHRASE": "of the bench",
            "AWS_ACCESS_KEY_ID": running.access_key_id,
            "AWS_SECRET_ACCESS_KEY": running.secret_access_key,
            "S3_ACCESS_KEY_ID": running.access_key_id,
            "S3_SECRET_ACCESS_KEY": running.secret_access_key,
        }
        s3, iam = running.endpoint, running.iam_endpoint
        if arguments.throttle:
            limit = proxy.at_most(arguments.throttle)
            fronts = [doubles.enter_context(proxy.in_front_of(place)) for place in (s3, iam)]
            for front in fronts:
                front.misbehave(limit)
            s3, iam = (front.url for front in fronts)
        project = base / "project"
        project.mkdir()
        stack(project, "unused", {})
        write(project, names, arguments.stores, s3, iam)
        print(f"{arguments.shards} shards of {arguments.stores} stores", flush=True)
        measure(project, names, arguments.parallel)


if __name__ == "__main__":
    main()
