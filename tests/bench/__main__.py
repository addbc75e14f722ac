"""`make bench`: what the product costs, beside an empty Pulumi program in the same run. Prints, never judges.

CPU seconds are those of the children (engine, language host, program, plugin); compare ratios, not machines.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synapse_media import contract
from synapse_media.engine import embedded
from synapse_media.methods import METHODS, expectations
from synapse_media.renderer import forms, render
from tests.doubles import proxy
from tests.providers.project import Stack, stack


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one command."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:6.2f} s wall {self.cpu:6.2f} s CPU"


def measured(action: Callable[[], object]) -> Cost:
    """Wall clock, and CPU of the children, of one action."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    action()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def imports() -> None:
    """What our packages add to `import pulumi`, and whether a cloud SDK is loaded where no call is made."""
    ours = "import pulumi, components, components.s3_compatible, synapse_media.settings"

    def best(code: str) -> Cost:
        runs = [measured(lambda: subprocess.run([sys.executable, "-c", code], check=True)) for _ in range(7)]
        return min(runs, key=lambda cost: cost.cpu)

    alone, together = best("import pulumi"), best(ours)
    print(f"import pulumi                      {alone}")
    print(f"import pulumi and ours             {together}   +{together.cpu - alone.cpu:.2f} s CPU")
    sdks = (
        "[name for name in ('boto3', 'botocore', 'pulumi_aws', 'pulumi_digitalocean', 'b2sdk') if name in sys.modules]"
    )
    answer = subprocess.run(
        [sys.executable, "-c", f"{ours}\nimport sys\nprint({sdks})"], capture_output=True, text=True, check=True
    )
    print(f"cloud SDKs loaded by it            {answer.stdout.strip()}")


def rendering() -> None:
    """Milliseconds to render one store, by method and form."""
    for method in METHODS.values():
        outputs = _sample(method.name)
        for form in forms(method):
            start = time.perf_counter()
            for _ in range(50):
                render(outputs, form)
            print(f"render {method.name:<28}{form:<9} {(time.perf_counter() - start) * 20:6.2f} ms")


def _sample(method: str) -> contract.StorageOutputs:
    plain: dict[str, Any] = {
        "server_name": "matrix.example.com",
        "provider": "s3_compatible",
        "method": method,
        "access": "least",
        "bucket": "media",
        "region": "us-east-1",
        "endpoint_url": "https://s3.example.com",
        "access_key_id": "AKIAEXAMPLE",
        "secret_access_key": "secret",
        "media_repo": {"s3_datastore_id": "a"} if method == "matrix-media-repo" else {},
        "version": contract.VERSION,
    }
    bare = contract.from_json(plain)
    lines = [
        {"operation": name.value, "expected": value.value, "outcome": value.value, "detail": ""}
        for name, value in expectations(METHODS[method], "least").items()
    ]
    return contract.from_json({**plain, "proof": {"made_for": bare.made_for(), "lines": lines}})


def _stores(running: embedded.Running, count: int, endpoint: str, iam_endpoint: str) -> dict[str, Any]:
    return {
        f"m{number}.example.com": {
            "provider": "s3_compatible",
            "endpoint": endpoint or running.endpoint,
            "iam_endpoint": iam_endpoint or running.iam_endpoint,
            "bucket": f"bench-{count}-{number:03}",
            "settle_seconds": 0,
        }
        for number in range(count)
    }


def _life(found: Stack) -> dict[str, Cost]:
    engine, name = found.engine, found.name
    quiet = ["--skip-preview", "--suppress-outputs", "--suppress-progress"]
    up = ["up", "--yes", *quiet, "--stack", name]
    return {
        "up": measured(lambda: engine.run(up)),
        "up again": measured(lambda: engine.run(up)),
        "diff": measured(lambda: engine.preview(name)),
        "diff --refresh": measured(lambda: engine.preview(name, refresh=True)),
        "destroy": measured(lambda: engine.run(["destroy", "--yes", "--skip-preview", "--stack", name])),
    }


def lives(running: embedded.Running, counts: list[int]) -> None:
    """Each command with 1 and 50 stores, as a ratio to the empty program's in the same run."""
    environment = {"S3_ACCESS_KEY_ID": running.access_key_id, "S3_SECRET_ACCESS_KEY": running.secret_access_key}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "empty").mkdir()
        empty = stack(base / "empty", "empty", environment)
        (base / "empty/__main__.py").write_text("", encoding="utf-8")
        beside = _life(empty)
        for count in counts:
            (base / str(count)).mkdir()
            found = stack(base / str(count), f"bench{count}", environment)
            stores = _stores(running, count, "", "")
            found.write(stores, [f"{server}/delete-bucket" for server in stores])
            for what, cost in _life(found).items():
                ratio = cost.cpu / beside[what].cpu
                print(f"{count:3} stores {what:<15}{cost}   {ratio:5.1f} x the empty program's CPU")


def calls(running: embedded.Running) -> None:
    """API calls made for one store by each command."""
    environment = {"S3_ACCESS_KEY_ID": running.access_key_id, "S3_SECRET_ACCESS_KEY": running.secret_access_key}
    with (
        tempfile.TemporaryDirectory() as folder,
        proxy.in_front_of(running.endpoint) as s3,
        proxy.in_front_of(running.iam_endpoint) as iam,
    ):
        found = stack(Path(folder), "calls", environment)
        stores = _stores(running, 1, s3.url, iam.url)
        found.write(stores, [f"{server}/delete-bucket" for server in stores])
        seen = 0
        for what, action in (
            ("up", found.up),
            ("up again", found.up),
            ("diff --refresh", lambda: found.preview(refresh=True)),
            ("destroy", found.destroy),
        ):
            action()
            total = len(s3.exchanges) + len(iam.exchanges)
            print(f"calls of one store, {what:<15}{total - seen:4}")
            seen = total


def main() -> None:
    """Measure all of it on an embedded store of the run's own."""
    parser = argparse.ArgumentParser(prog="make bench", description=main.__doc__)
    parser.add_argument("--stores", type=int, nargs="*", default=[1, 50])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        for name in [name for name in os.environ if name.startswith("PULUMI_")]:
            del os.environ[name]
        imports()
        rendering()
        running = embedded.start(name="bench")
        try:
            calls(running)
            lives(running, arguments.stores)
        finally:
            embedded.wipe(name="bench")


if __name__ == "__main__":
    main()
