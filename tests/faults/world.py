"""A stack that is run through faults: the command as people start it, a proxy before the store, and what must hold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from synapse_media import changes
from synapse_media.contract import ContractError
from synapse_media.engine import embedded
from synapse_media.engine.processes import identity
from synapse_media.plugin.iam import JOURNAL
from tests.doubles.proxy import Answer, Proxy, Request, Upstream, in_front_of
from tests.providers.project import SERVER, Stack, stack

COMMAND = Path(sys.executable).parent / "synapse-media"
MEDIA = {"local_content/ab/cd/photo": b"a photo" * 1000, "local_thumbnails/ab/cd/photo/32": b"a thumbnail"}
PATIENCE = 240
"""Seconds that a command may take: more than all its retries together."""


class BrokenError(Exception):
    """Something that must hold after a fault does not."""


class _Hearing(Upstream):
    def __init__(self, upstream: Upstream, issued: set[str]) -> None:
        self._upstream = upstream
        self._issued = issued
        self.closing = upstream.closing

    def ask(self, request: Request) -> Answer | None:
        answer = self._upstream.ask(request)
        if answer is not None:
            self._issued.update(found.decode() for found in re.findall(b"<SecretAccessKey>([^<]+)", answer.body))
        return answer


@dataclass(slots=True)
class World:
    """One stack with one store, and the proxies that its commands reach it through."""

    stack: Stack
    store: embedded.Running
    store_name: str
    proxies: dict[str, Proxy]
    bucket: str
    logs: Path
    runs: int = 0
    adopt: bool = False
    """The bucket was given up with the media in it, and is taken over again."""
    issued: set[str] = field(default_factory=set)
    """Every secret access key that the store ever handed out, whether or not anybody received it."""

    # ---- what a trial does

    def write(self, *allow: str) -> None:
        """The stack file; which keys it wants stays."""
        old = yaml.safe_load(self.stack.path.read_text(encoding="utf-8")).get("config") or {}
        keys = old.get("synapse-media:stores", {}).get(SERVER, {}).get("keys")
        self.stack.store(
            allow,
            provider="s3_compatible",
            endpoint=self.proxies["s3"].url,
            iam_endpoint=self.proxies["iam"].url,
            bucket=self.bucket,
            method="synapse-s3-storage-provider",
            settle_seconds=0,
            adopt=self.adopt,
            **({"keys": keys} if keys else {}),
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command, as people run it."""
        self.runs += 1
        with (self.logs / f"{self.runs:04}-{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [COMMAND, arguments[0], "--stack", self.stack.name, *arguments[1:]],
                cwd=self.stack.engine.project,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and all that was said."""
        with self.start(*arguments) as child:
            code = ended(child)
        log = next(self.logs.glob(f"{self.runs:04}-*"))
        return code, log.read_text(encoding="utf-8", errors="replace")

    def put_media(self) -> None:
        for key, body in MEDIA.items():
            self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)

    def client(self, service: str, key: str = "", secret: str = "") -> Any:
        """The administrator's own client, or that of a key; past the proxies."""
        return boto3.client(
            service,
            endpoint_url=self.store.endpoint if service == "s3" else self.store.iam_endpoint,
            region_name=self.store.region,
            aws_access_key_id=key or self.store.access_key_id,
            aws_secret_access_key=secret or self.store.secret_access_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def behave(self) -> None:
        """No fault any more: the network is well, the store runs."""
        for proxy in self.proxies.values():
            proxy.behave()
            proxy.misbehave(lambda request, upstream: self.hearing(upstream).ask(request))
        self.store = embedded.start(name=self.store_name, say=lambda _: None)

    def hearing(self, upstream: Upstream) -> Upstream:
        """The server, with whoever keeps note of the secrets in its answers."""
        return _Hearing(upstream, self.issued)

    # ---- what must hold

    def recover(self) -> None:
        """`up` again, and then everything must be as if nothing had happened. Raises BrokenError."""
        code, said = self.run("up", "--yes")
        if code:
            raise BrokenError(f"`up` ended with {code}:\n{said[-3000:]}")
        left = changes.of_preview(self.stack.engine.preview(self.stack.name, refresh=True))
        if left:
            raise BrokenError(f"`up` did not converge: {changes.in_words(left)}")
        state = self.stack.engine.export(self.stack.name)["deployment"]
        if state.get("pending_operations"):
            raise BrokenError("operations are pending for ever")
        outputs = self.stack.outputs()
        try:
            outputs.require_proof()
        except ContractError as error:
            raise BrokenError(f"`up` went well, and the key is not proved: {error}") from None
        wanted = yaml.safe_load(self.stack.path.read_text(encoding="utf-8"))
        keys = wanted["config"]["synapse-media:stores"][SERVER].get("keys") or {"active": "a", "retiring": []}
        ring = next(one for one in state["resources"] if one["type"].endswith("KeyRing"))["outputs"]["keys"]
        if set(ring) != {keys["active"], *keys["retiring"]}:
            raise BrokenError(f"the stack file wants {keys}, the state has the slots {sorted(ring)}")
        known = {key["accessKeyId"] for key in ring.values()}
        found = self.found()
        expected = {
            "users": [outputs.user],
            "keys": sorted(known),
            "policies": ["synapse-media"],
            "buckets": [self.bucket],
        }
        if found != expected:
            raise BrokenError(f"the store holds {found}, and should hold {expected}")
        client = self.client("s3", outputs.access_key_id, outputs.secret_access_key)
        client.list_objects_v2(Bucket=self.bucket)

    def check_media(self) -> None:
        """Every object there, its content too, and nothing else."""
        s3 = self.client("s3")
        listed = s3.list_object_versions(Bucket=self.bucket)
        keys = sorted(item["Key"] for item in listed.get("Versions", []))
        if keys != sorted(MEDIA) or "DeleteMarkers" in listed:
            raise BrokenError(f"the bucket holds {keys}, {len(listed.get('DeleteMarkers', []))} delete markers")
        for key, body in MEDIA.items():
            if s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() != body:
                raise BrokenError(f"{key} has other content")

    def check_nothing(self) -> None:
        """After a destroy that may delete everything."""
        found = self.found()
        if any(found.values()):
            raise BrokenError(f"destroyed, and the store still holds {found}")

    def found(self) -> dict[str, list[str]]:
        """What is at the store, this stack's or not: no other stack uses this store."""
        iam, s3 = self.client("iam"), self.client("s3")
        users = sorted(user["UserName"] for user in iam.list_users()["Users"])
        return {
            "users": users,
            "keys": sorted(
                key["AccessKeyId"] for user in users for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
            ),
            # The journal of a key that is in state by now may stay until the ring is next changed: it allows nothing.
            "policies": sorted(
                name
                for user in users
                for name in iam.list_user_policies(UserName=user)["PolicyNames"]
                if not name.startswith(JOURNAL)
            ),
            "buckets": sorted(bucket["Name"] for bucket in s3.list_buckets()["Buckets"]),
        }


@contextmanager
def world(folder: Path, name: str, store_name: str = "faults") -> Iterator[World]:
    """A new stack on a store of its own. The environment must have XDG directories of its own already."""
    running = embedded.start(name=store_name, say=lambda _: None)
    credentials = {"S3_ACCESS_KEY_ID": running.access_key_id, "S3_SECRET_ACCESS_KEY": running.secret_access_key}
    before = {variable: os.environ.get(variable) for variable in credentials}
    os.environ.update(credentials)
    project, logs = folder / "project", folder / "logs"
    project.mkdir()
    logs.mkdir(mode=0o700)
    try:
        with in_front_of(running.endpoint) as s3, in_front_of(running.iam_endpoint) as iam:
            made = stack(project, name, credentials)
            new = World(made, running, store_name, {"s3": s3, "iam": iam}, f"faults-{name}", logs)
            new.write()
            yield new
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value
        embedded.wipe(name=store_name)


# ---- processes: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html


def descendants(pid: int) -> dict[int, str]:
    """{pid: command line} of all processes beneath one."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: dict[int, str] = {}
    edge = {pid}
    while edge := {child for child, parent in parents.items() if parent in edge}:
        for child in edge:
            try:
                line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found[child] = line.strip()
    return found


def find(pid: int, what: str) -> int | None:
    """The engine, the language host (or the program that it runs) or the plugin beneath a command."""
    marks = {
        "engine": ("/pulumi --non-interactive",),
        "host": ("pulumi-language-python-exec", "pulumi-language-python "),
        "plugin": ("synapse_media.plugin",),
    }[what]
    beneath = descendants(pid)
    for mark in marks:
        for child, line in beneath.items():
            if mark in line:
                return child
    return None


def ended(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a command. Raises BrokenError, with all of it killed, where it does not end."""
    try:
        return child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        for pid in (child.pid, *descendants(child.pid)):
            kill(pid)
        raise BrokenError(f"the command did not end within {PATIENCE} s") from None


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def later(seconds: float, action: Callable[[], None]) -> threading.Timer:
    """Do it after a while, beside what goes on."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


def leftovers(running: Mapping[int, str], patience: float = 30) -> None:
    """What a killed engine leaves behind ends by itself, as far as it could act. Raises BrokenError where it does not.

    The language host only waits for an engine, and finds out after some minutes that there is none: it is killed.

    Args:
        running: {pid: its identity}.
    """
    deadline = time.monotonic() + patience
    for pid, known in running.items():
        while identity(pid) == known:
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "/pulumi-language-python " in line:
                kill(pid)
            if time.monotonic() > deadline:
                raise BrokenError(f"a process of the killed run goes on: {line}")
            time.sleep(0.02)
