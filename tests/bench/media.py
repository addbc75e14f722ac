"""`make bench`: existing media copied by each program that is there: one tree, one server, one run, bytes verified."""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from synapse_media import contract
from synapse_media.engine import embedded
from synapse_media.engine.obtain import obtain_rclone
from synapse_media.engine.paths import cache_dir
from tests.end_to_end import built, by_hand

CLI = "import sys; from synapse_media.cli import main; sys.exit(main())"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOCK = Path(__file__).parents[1] / "end_to_end" / "synapse.lock"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that copies: its command, and what it needs in its environment and directory.

    Attributes:
        before: a command to be run first, which is not measured.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()


def tree(at: Path, files: int, size: int) -> list[str]:
    """So many originals of so many bytes in all, as Synapse lays them out: most are small, few are large."""
    source = random.Random(files)
    weights = [source.paretovariate(1.2) for _ in range(files)]
    ids = []
    for weight in weights:
        media_id = "".join(source.choices(LETTERS, k=24))
        path = at / "local_content" / media_id[:2] / media_id[2:4] / media_id[4:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(max(1, int(weight * size / sum(weights)))))
        os.utime(path, (time.time() - 10 * 86400,) * 2)
        ids.append(media_id)
    return ids


def database(at: Path, ids: Sequence[str]) -> None:
    """What s3_media_upload reads: the media of a homeserver's database."""
    with closing(sqlite3.connect(at / "homeserver.db")) as connection, connection:
        connection.execute(
            "CREATE TABLE local_media_repository (media_id TEXT, created_ts BIGINT, last_access_ts BIGINT, "
            "url_cache TEXT)"
        )
        connection.execute(
            "CREATE TABLE remote_media_cache (media_origin TEXT, media_id TEXT, filesystem_id TEXT, created_ts BIGINT, "
            "last_access_ts BIGINT)"
        )
        connection.executemany("INSERT INTO local_media_repository VALUES (?, 0, 0, NULL)", [(one,) for one in ids])
    (at / "database.yaml").write_text(f"sqlite:\n  database: {at}/homeserver.db\n", encoding="utf-8")


def programs(store: contract.StorageOutputs, media: Path, at: Path) -> list[Program]:
    """Ours, and each other one that is installed."""
    file = at / f"{store.bucket}.json"
    file.write_text(json.dumps(contract.to_json(store)), encoding="utf-8")
    aws = {
        "AWS_ACCESS_KEY_ID": store.access_key_id,
        "AWS_SECRET_ACCESS_KEY": store.secret_access_key,
        "AWS_DEFAULT_REGION": store.region,
        "AWS_REGION": store.region,
    }
    remote = {
        f"RCLONE_CONFIG_STORE_{name}": value
        for name, value in {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": store.endpoint_url,
            "REGION": store.region,
            "ACCESS_KEY_ID": store.access_key_id,
            "SECRET_ACCESS_KEY": store.secret_access_key,
            "NO_CHECK_BUCKET": "true",
        }.items()
    }
    script = built.python_environment("synapse", LOCK).parent / "s3_media_upload"
    upload = [str(script), "--no-progress"]
    found = [
        Program("media copy", [sys.executable, "-c", CLI, "media", "copy", str(media), "--store", str(file)]),
        Program(
            "rclone, 32 transfers",
            [
                *(str(obtain_rclone()), "copy", str(media), f"store:{store.bucket}", "--config="),
                *("--transfers=32", "--checkers=32", "--fast-list", "--s3-no-head", "--size-only"),
            ],
            remote,
        ),
        Program("rclone", [str(obtain_rclone()), "copy", str(media), f"store:{store.bucket}", "--config="], remote),
        Program(
            "s3_media_upload",
            [*upload, "upload", str(media), store.bucket, "--endpoint-url", store.endpoint_url],
            aws,
            [*upload, "update", str(media), "0d"],
        ),
    ]
    if s5cmd := shutil.which("s5cmd"):
        sync = [s5cmd, "--endpoint-url", store.endpoint_url, "--log", "error", "sync", f"{media}/"]
        found.append(Program("s5cmd sync", [*sync, f"s3://{store.bucket}/"], aws))
    if shutil.which("aws") and not subprocess.run(["aws", "--version"], check=False, capture_output=True).returncode:
        sync = ["aws", "s3", "sync", "--only-show-errors", "--endpoint-url", store.endpoint_url, str(media)]
        found.append(Program("aws s3 sync", [*sync, f"s3://{store.bucket}/"], aws))
    return found


@contextmanager
def delayed(running: embedded.Running) -> Iterator[str]:
    """The address of the server, 20 ms further away."""
    parts = urlsplit(running.endpoint)
    command = [sys.executable, "-m", "tests.bench.delay", str(parts.hostname), str(parts.port)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield f"http://127.0.0.1:{int(child.stdout.readline())}"
    finally:
        child.terminate()
        child.communicate()


def measured(program: Program, at: Path, limit: float) -> tuple[float, float] | None:
    """(seconds, CPU seconds) of a run; None where it took longer than `limit`."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(at),
        "XDG_CACHE_HOME": str(cache_dir().parent),
        **program.environment,
    }
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    try:
        subprocess.run(program.command, check=True, cwd=at, env=environment, timeout=limit, stdout=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(running: embedded.Running, endpoint: str, media: Path, ids: Sequence[str], limit: float) -> None:
    """Every program into a bucket of its own, twice."""
    admin = by_hand.Admin(
        running.endpoint, running.iam_endpoint, running.access_key_id, running.secret_access_key, running.region
    )
    ours: list[float] = []
    for number in range(len(programs(replace(admin.provision(), endpoint_url=endpoint), media, media.parent))):
        store = replace(admin.provision(), endpoint_url=endpoint)
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder)
            database(at, ids)
            program = programs(store, media, at)[number]
            if program.before:
                environment = {"PATH": os.environ["PATH"], "HOME": folder, **program.environment}
                subprocess.run(program.before, check=True, cwd=at, env=environment, capture_output=True)
            for which in (0, 1):
                cost = measured(program, at, limit)
                if cost is None:
                    print(f"  {program.name:<22} run {which + 1}: not done after {limit:.0f} s")
                    break
                if number == 0:
                    ours.append(cost[0])
                print(
                    f"  {program.name:<22} run {which + 1}: {cost[0]:7.2f} s, {cost[1]:6.2f} s CPU, "
                    f"{len(ids) / cost[0]:6.0f} files/s, {cost[0] / ours[which]:6.2f} x the time of media copy"
                )
            else:
                print(f"  {'':<22} {different(media, running.data_dir / store.bucket)} of {len(ids)} files differ")
        shutil.rmtree(running.data_dir / store.bucket)


def different(media: Path, bucket: Path) -> int:
    """How many files are not in the bucket with the same bytes."""
    files = [path for path in media.rglob("*") if path.is_file()]
    same = (bucket / path.relative_to(media) for path in files)
    return sum(
        not (there.is_file() and filecmp.cmp(path, there, shallow=False))
        for path, there in zip(files, same, strict=True)
    )


# ---- a plan of a million files


def names(count: int) -> Iterator[str]:
    """In order, so many."""
    for number in range(count):
        digits = f"{number:08}"
        yield f"local_content/{digits[:2]}/{digits[2:4]}/{digits[4:]}abcdefghijklmnop"


class _Listing(BaseHTTPRequestHandler):
    """A store that holds every second one of a million objects, and answers listings alone."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        start = int(asked.get("continuation-token", ["0"])[0])
        held = self.server.keys if asked.get("prefix", [""])[0] == "local_content/" else []  # type: ignore[attr-defined]
        keys = list(held[start : start + 1000])
        more = start + 1000 < len(held)
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            '<ETag>"d41d8cd98f00b204e9800998ecf8427e"</ETag><Size>1000</Size></Contents>'
            for key in keys
        )
        token = f"<NextContinuationToken>{start + 1000}</NextContinuationToken>" if more else ""
        body = (
            f'<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>{str(more).lower()}</IsTruncated>'
            f"<KeyCount>{len(keys)}</KeyCount>{token}{contents}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


PLAN = """
import json, pathlib, resource, sys, time
from synapse_media import contract
from synapse_media.cli.stores import own_key
from synapse_media.media import bucket, copy, rclone, tree
from synapse_media.store.clients import s3_client
from tests.bench.media import names

class Many(tree.Tree):
    def __init__(self, count):
        self.left_out, self.path, self.count = [], pathlib.Path.cwd(), count

    def files(self, *, shard=None):
        return (tree.MediaFile(path, 1000, 1e9, 1e9) for path in names(self.count))

store = contract.from_json(json.loads(sys.stdin.read()))
start = time.monotonic()
at = bucket.Bucket(store, s3_client(*own_key(store)), lambda: rclone.Rclone(store))
done = copy.copy(Many(int(sys.argv[1])), at, dry_run=True)
# getrusage would tell what the process that started this one had.
(own,) = (int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
print(f"  {done.same.files} there, {done.planned.files} to be copied: {time.monotonic() - start:.1f} s, "
      f"{own} MiB, and rclone {child} MiB")
"""


def planned(store: contract.StorageOutputs, counts: Sequence[int]) -> None:
    """What a plan costs in memory: as much for a million files as for a tenth of them."""
    for count in counts:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Listing)
        server.keys = list(names(count))[::2]  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            at = replace(store, endpoint_url=f"http://127.0.0.1:{server.server_port}", prefix="")
            text = json.dumps(contract.to_json(at))
            subprocess.run([sys.executable, "-c", PLAN, str(count)], input=text, text=True, check=True)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def main() -> None:
    """Copy one tree with each program, on loopback and behind 20 ms; plan a million files."""
    parser = argparse.ArgumentParser(prog="make bench", description=main.__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--planned", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--limit", type=float, default=1800, help="seconds that one run may take")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        media = Path(folder) / "media_store"
        ids = tree(media, arguments.files, arguments.megabytes * 1_000_000)
        running = embedded.start(name="bench")
        try:
            print(f"{len(ids)} files, {arguments.megabytes} MB, on loopback", flush=True)
            compare(running, running.endpoint, media, ids, arguments.limit)
            print("the same, 20 ms away", flush=True)
            with delayed(running) as endpoint:
                compare(running, endpoint, media, ids, arguments.limit)
            print("a plan, half of which is in the bucket", flush=True)
            root = (running.access_key_id, running.secret_access_key)
            planned(_sample(running, *root), arguments.planned)
        finally:
            embedded.wipe(name="bench")


def _sample(running: embedded.Running, key_id: str, secret: str) -> contract.StorageOutputs:
    return contract.StorageOutputs(
        server_name="example.com",
        provider="s3_compatible",
        method="synapse-s3-storage-provider",
        access="least",
        bucket="bench",
        region=running.region,
        endpoint_url=running.endpoint,
        access_key_id=key_id,
        secret_access_key=secret,
    )


if __name__ == "__main__":
    main()
