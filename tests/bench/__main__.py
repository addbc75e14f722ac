"""`make bench`: what the product costs, beside an empty Pulumi program in the same run. Prints, never judges.

CPU seconds are those of the children (engine, language host, program, plugin); compare ratios, not machines. The plot
over the number of stores goes to docs/pictures, the table under it to docs/running.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from synapse_media import contract
from synapse_media.cli import checkpoints
from synapse_media.engine import embedded
from synapse_media.methods import METHODS, expectations
from synapse_media.renderer import forms, render
from tests.bench import beside, pictures, server
from tests.bench.measured import PROCESSES, Cost, measured
from tests.doubles import proxy
from tests.providers.project import ROOT, Stack, stack


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


def _stores(count: int) -> dict[str, Any]:
    return {f"m{number}.example.com": {"bucket": f"bench-{count}-{number:03}"} for number in range(count)}


def _defaults(running: embedded.Running, endpoint: str = "", iam_endpoint: str = "") -> dict[str, Any]:
    """What the stores share: repeated, it would be more than Pulumi can hand on for a thousand."""
    return {
        "provider": "s3_compatible",
        "endpoint": endpoint or running.endpoint,
        "iam_endpoint": iam_endpoint or running.iam_endpoint,
        "settle_seconds": 0,
    }


def _life(found: Stack, count: int) -> dict[str, Cost]:
    engine, name = found.engine, found.name
    quiet = ["--skip-preview", "--suppress-outputs", "--suppress-progress"]
    up = ["up", "--yes", *quiet, "--stack", name]
    destroy = ["destroy", "--yes", "--skip-preview", "--suppress-progress", "--stack", name]
    # As the commands decide it.
    at_end = checkpoints.is_worth_it((checkpoints.RESOURCES * count) ** 2)
    costs = {
        "up": measured(lambda: engine.run(up, at_end=at_end)),
        "up again": measured(lambda: engine.run(up)),
        "diff": measured(lambda: engine.preview(name)),
        "diff --refresh": measured(lambda: engine.preview(name, refresh=True)),
    }
    found.let_keys_go()
    return {**costs, "destroy": measured(lambda: engine.run(destroy, at_end=at_end))}


def lives(running: embedded.Running, counts: list[int]) -> dict[int, dict[str, Cost]]:
    """Each command with so many stores, as a ratio to the empty program's in the same run, and to one of fewer stores.

    Returns {number of stores: {command: what it took}}.
    """
    environment = {"S3_ACCESS_KEY_ID": running.access_key_id, "S3_SECRET_ACCESS_KEY": running.secret_access_key}
    done: dict[int, dict[str, Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "empty").mkdir()
        empty = stack(base / "empty", "empty", environment)
        (base / "empty/__main__.py").write_text("", encoding="utf-8")
        beside = _life(empty, 0)
        for count in counts:
            (base / str(count)).mkdir()
            found = stack(base / str(count), f"bench{count}", environment)
            stores = _stores(count)
            found.write(stores, [f"{server}/delete-bucket" for server in stores], _defaults(running))
            done[count] = _life(found, count)
            for what, cost in done[count].items():
                parts = ", ".join(f"{name} {part.cpu:.1f} s {part.memory} MiB" for name, part in cost.parts.items())
                ratio = cost.cpu / beside[what].cpu
                print(
                    f"{count:4} stores {what:<15}{cost} {cost.cpu / count:6.3f} s a store {ratio:6.1f} x empty; {parts}"
                )
        for fewer, more in pairwise(sorted(done)):
            grown = ", ".join(f"{what} {done[more][what].cpu / cost.cpu:.1f}" for what, cost in done[fewer].items())
            print(f"{more / fewer:.1f} x the stores ({fewer} to {more}), x the CPU: {grown}")
    return done


def other_tools(running: embedded.Running, done: Mapping[int, Mapping[str, Cost]]) -> None:
    """The same stores, at most 50, by Terraform or OpenTofu on the same server; else what is missing for it."""
    count = max((count for count in done if count <= _BESIDE), default=0)
    tool = beside.find(os.environ)
    if not count:
        tool = f"none of the numbers of stores is {_BESIDE} or less"
    if isinstance(tool, str):
        print(f"beside Terraform                   not measured: {tool}")
        return
    with tempfile.TemporaryDirectory() as folder:
        stores = {server: _defaults(running) | own for server, own in _stores(count).items()}
        theirs = beside.life(Path(folder), tool, running, stores, lacks=("lifecycle", "public_access_block"))
    for what, cost in theirs.items():
        ours = done[count][what]
        parts = ", ".join(f"{name} {part.cpu:.1f} s {part.memory} MiB" for name, part in cost.parts.items() if part.cpu)
        print(
            f"{count:4} stores {what:<15}{cost} by {tool.program.name}; {parts}; "
            f"ours {ours.cpu:.1f} s CPU, {ours.cpu / cost.cpu:.2f} of it"
        )


_BESIDE = 50
"""Stores that are made by another tool as well."""
_TABLE = re.compile(r"<!-- bench -->\n.*?<!-- end -->", re.DOTALL)


def publish(lives: Mapping[int, Mapping[str, Cost]]) -> None:
    """The plot and the table in docs/, with date and machine."""
    cores, load = os.cpu_count(), os.getloadavg()[2]
    caption = (
        f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"load {load:.0f}: CPU seconds and memory of the commands on the embedded store, without the server's"
    )
    commands = list(next(iter(lives.values())))
    rows = [
        f"| {count} | {' | '.join(f'{costs[name].cpu:.1f} ({costs[name].cpu / count:.3f})' for name in commands)} | "
        f"{' / '.join(str(max(cost.parts[one].memory for cost in costs.values())) for one in PROCESSES)} |"
        for count, costs in lives.items()
    ]
    head = f"| stores | {' | '.join(commands)} | most memory, MiB: {' / '.join(PROCESSES)} |"
    table = "\n".join([f"{caption}.\n", head, "| --- " * (len(commands) + 2) + "|", *rows])
    page = ROOT / "docs/running.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(_TABLE.sub(lambda _: f"<!-- bench -->\n{table}\n<!-- end -->", text), encoding="utf-8")
    for path in pictures.save(lives, ROOT / "docs/pictures", caption):
        print(f"wrote {path.relative_to(ROOT)}")
    print(f"wrote {page.relative_to(ROOT)}")


def calls(running: embedded.Running) -> None:
    """API calls made for one store by each command."""
    environment = {"S3_ACCESS_KEY_ID": running.access_key_id, "S3_SECRET_ACCESS_KEY": running.secret_access_key}
    with (
        tempfile.TemporaryDirectory() as folder,
        proxy.in_front_of(running.endpoint) as s3,
        proxy.in_front_of(running.iam_endpoint) as iam,
    ):
        found = stack(Path(folder), "calls", environment)
        stores = _stores(1)
        found.write(stores, [f"{server}/delete-bucket" for server in stores], _defaults(running, s3.url, iam.url))
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
    parser.add_argument("--stores", type=int, nargs="*", default=[1, 10, 50, 150])
    parser.add_argument("--publish", action="store_true", help="write the plot and the table in docs/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        for name in [name for name in os.environ if name.startswith("PULUMI_")]:
            del os.environ[name]
        imports()
        rendering()
        with server.running("bench", Path(state)) as running:
            calls(running)
            done = lives(running, arguments.stores)
            other_tools(running, done)
    if arguments.publish:
        publish(done)


if __name__ == "__main__":
    main()
