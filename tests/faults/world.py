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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import yaml
from botocore.config import Config

from synapse_media import contract
from synapse_media.contract import ContractError
from synapse_media.engine import embedded
from synapse_media.engine.processes import identity
from synapse_media.guards import applied, changes
from synapse_media.plugin.iam import JOURNAL
from synapse_media.store.objects import is_ours
from synapse_media.urn import Urn
from tests.accounts import user_names
from tests.doubles.proxy import Answer, Proxy, Request, Upstream, in_front_of
from tests.processes import beneath
from tests.providers.project import SERVER, Stack, stack

COMMAND = Path(sys.executable).parent / "synapse-media"
MEDIA = {"local_content/ab/cd/photo": b"a photo" * 1000, "local_thumbnails/ab/cd/photo/32": b"a thumbnail"}
PATIENCE = float(os.environ.get("PATIENCE", "240"))
"""Seconds that a command may take: more than all its retries together, on a machine that is not busy otherwise."""


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


Edit = Mapping[str, Any]
"""Settings of a store that change, as the stack file has them, None for one that goes; beside these: `name`, `managed`
(it is in the stack file), `route` (by which address the server is reached), `region` (the server's, and so that of all
stores), and of `bucket` only what makes it another."""


@dataclass(slots=True)
class Kept:
    """One store of the stack, as the stack file has it."""

    name: str
    bucket: str
    settings: dict[str, Any]
    former: str = ""
    route: str = "usual"
    managed: bool = True

    @property
    def made(self) -> bool:
        return self.managed and self.settings["method"] != "filesystem"


@dataclass(frozen=True, slots=True)
class Held:
    """A key that was handed out: to which store, and whether it is the one in use."""

    store: Kept
    bucket: str
    key: str
    secret: str = field(repr=False)


@dataclass(slots=True)
class World:
    """A stack with its stores, and the proxies that its commands reach them through.

    Attributes:
        stores: the first is the one that is changed; the others must not notice.
        media: the buckets that media was put into: whatever happens, it stays there.
        issued: every secret access key that the store ever handed out, whether or not anybody received it.
        environment: variables of the commands beside this process's own.
    """

    stack: Stack
    store: embedded.Running
    store_name: str
    proxies: dict[str, Proxy]
    stores: list[Kept]
    logs: Path
    runs: int = 0
    media: set[str] = field(default_factory=set)
    issued: set[str] = field(default_factory=set)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> Kept:
        return self.stores[0]

    @property
    def made(self) -> list[Kept]:
        return [one for one in self.stores if one.made]

    # ---- what a trial does

    def edit(self, edit: Edit, *, everywhere: bool = False) -> None:
        """What `write` writes from now on."""
        if "region" in edit:
            embedded.stop(name=self.store_name)
            embedded.REGION = str(edit["region"])
            self.store = embedded.start(name=self.store_name, say=lambda _: None)
        for one in self.stores if everywhere else [self.first]:
            changed = dict(edit)
            if "name" in changed:
                one.former, one.name = one.name, changed.pop("name")
            if "bucket" in changed:
                one.bucket = f"{one.bucket}-{changed.pop('bucket')}"
            one.route = changed.pop("route", one.route)
            one.managed = changed.pop("managed", one.managed)
            merged = one.settings | changed
            one.settings = {setting: value for setting, value in merged.items() if value is not None}

    def write(self, *words: str, everywhere: bool = False) -> None:
        """The stack file; which keys it wants stays."""
        old = yaml.safe_load(self.stack.path.read_text(encoding="utf-8")).get("config") or {}
        before = old.get("synapse-media:stores", {})
        # A stack file with no store at all is refused.
        wanted: dict[str, Any] = {"disk.example.com": {"method": "filesystem"}}
        for one in self.stores:
            if one.managed:
                keys = {**before.get(one.former, {}), **before.get(one.name, {})}.get("keys")
                wanted[one.name] = {
                    "provider": "s3_compatible",
                    "endpoint": self.proxies[f"s3 {one.route}"].url,
                    "iam_endpoint": self.proxies[f"iam {one.route}"].url,
                    "bucket": one.bucket,
                    "settle_seconds": 0,
                    **one.settings,
                    **({"renamed_from": one.former} if one.former else {}),
                    **({"keys": keys} if keys and one.made else {}),
                }
        names = [one.name for one in (self.stores if everywhere else [self.first])]
        self.stack.write(wanted, [f"{name}/{word}" for name in names for word in words])

    def held(self) -> list[Held]:
        """Every key that was handed out and may be in use."""
        outputs = contract.of_stack(self.stack.engine.outputs(self.stack.name))
        return [
            Held(one, one.bucket, outputs[one.name]["access_key_id"], outputs[one.name]["secret_access_key"])
            for one in self.made
            if outputs.get(one.name, {}).get("access_key_id")
        ]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command, as people run it."""
        self.runs += 1
        with (self.logs / f"{self.runs:04}-{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [COMMAND, arguments[0], "--stack", self.stack.name, *arguments[1:]],
                cwd=self.stack.engine.project,
                env={**os.environ, **self.environment},
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
        """Into every bucket that has none."""
        for bucket in {one.bucket for one in self.made} - self.media:
            for key, body in MEDIA.items():
                self.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
            self.media.add(bucket)

    def client(self, service: str, key: str = "", secret: str = "") -> Any:
        """The administrator's own client, or that of a key; past the proxies."""
        return boto3.client(
            service,
            endpoint_url=self.store.endpoint if service == "s3" else self.store.iam_endpoint,
            region_name=self.store.region if service == "s3" else "us-east-1",
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

    def recover(self, command: tuple[str, ...]) -> None:
        """`up` again; where that is refused for what only `command` confirms, that one. A rotation that got no new key
        put the keys line back, and is begun anew. Raises BrokenError.
        """
        code, said = self.run("up", "--yes")
        none_begun = command[:2] == ("rotate", "--yes") and not self._keys_line(self.first.name)["retiring"]
        if (code == 3 and command[0] == "rotate") or (code == 0 and none_begun):
            code, said = self.run(*command)
        if code:
            raise BrokenError(f"`up` ended with {code}:\n{said[-3000:]}")

    def settled(self) -> None:
        """Everything must be as if nothing had happened. Raises BrokenError."""
        state = self.stack.engine.export(self.stack.name)["deployment"]
        # The store may still make the key of a call that got no answer: each `up` looks again until it can't.
        waiting = {
            Urn.parse(one["urn"]).name for one in state["resources"] if (one.get("outputs") or {}).get("orphanUntil")
        }
        found = changes.of_preview(self.stack.engine.preview(self.stack.name, refresh=True))
        left = [one for one in found if (one.verb, one.kind) != ("update", "KeyRing") or one.store not in waiting]
        if left:
            raise BrokenError(f"`up` did not converge: {changes.in_words(left)}")
        if state.get("pending_operations"):
            raise BrokenError("operations are pending for ever")
        records = applied.read({"deployment": state})
        if set(records) != {one.name for one in self.made}:
            raise BrokenError(f"the state has the stores {sorted(records)}")
        users, known = [], []
        for one in self.made:
            outputs = self.stack.outputs(one.name)
            try:
                outputs.require_proof()
            except ContractError as error:
                raise BrokenError(f"`up` went well, and the key is not proved: {error}") from None
            ring = records[one.name].ring
            keys = self._keys_line(one.name)
            if ring is None or set(ring.keys) != {keys["active"], *keys["retiring"]}:
                raise BrokenError(f"the stack file wants {keys}, the state has {ring}")
            if outputs.access_key_id != ring.keys[keys["active"]]:
                raise BrokenError(f"{outputs.access_key_id} would be rendered, and the ring is {ring}")
            users.append(outputs.user)
            known += ring.keys.values()
            client = self.client("s3", outputs.access_key_id, outputs.secret_access_key)
            client.list_objects_v2(Bucket=one.bucket)
            mark = [tag["Value"] for tag in self.client("s3").get_bucket_tagging(Bucket=one.bucket)["TagSet"]]
            if mark != [f"synapse-media/{self.stack.name}/{one.name}"]:
                raise BrokenError(f"the bucket of {one.name} is marked {mark}")
        there = self.found()
        expected = {
            "users": sorted(users),
            "keys": sorted(known),
            "policies": ["synapse-media"] * len(users),
            "buckets": sorted(self.media | {one.bucket for one in self.made}),
        }
        if there != expected:
            raise BrokenError(f"the store holds {there}, and should hold {expected}")

    def _keys_line(self, name: str) -> Mapping[str, Any]:
        wanted = yaml.safe_load(self.stack.path.read_text(encoding="utf-8"))["config"]["synapse-media:stores"]
        keys: Mapping[str, Any] = wanted[name].get("keys") or {"active": "a", "retiring": []}
        return keys

    def still_works(self, held: list[Held], *, but: bool) -> None:
        """Every key that was handed out, and that nothing named. Raises BrokenError.

        Args:
            but: those of the first store were named.
        """
        for one in held:
            if one.store is self.first and but:
                continue
            try:
                self.client("s3", one.key, one.secret).list_objects_v2(Bucket=one.bucket)
            except botocore.exceptions.ClientError as error:
                raise BrokenError(f"the key {one.key} of {one.store.name} was handed out: {error}") from None

    def check_media(self) -> None:
        """Every object there, its content too, and nothing else but what a proof that was cut off has left."""
        s3 = self.client("s3")
        for bucket in sorted(self.media):
            listed = s3.list_object_versions(Bucket=bucket)
            keys = sorted(item["Key"] for item in listed.get("Versions", []) if not is_ours(item["Key"]))
            markers = sorted(item["Key"] for item in listed.get("DeleteMarkers", []) if not is_ours(item["Key"]))
            if keys != sorted(MEDIA) or markers:
                raise BrokenError(f"the bucket {bucket} holds {keys}, and delete markers of {markers}")
            for key, body in MEDIA.items():
                if s3.get_object(Bucket=bucket, Key=key)["Body"].read() != body:
                    raise BrokenError(f"{key} in {bucket} has other content")

    def check_nothing(self) -> None:
        """After a destroy that may delete everything: only what was given up before is left."""
        found = self.found()
        left = sorted(self.media - {one.bucket for one in self.made})
        if found != {"users": [], "keys": [], "policies": [], "buckets": left}:
            raise BrokenError(f"destroyed, and the store still holds {found}")

    def found(self) -> dict[str, list[str]]:
        """What is at the store, this stack's or not: no other stack uses this store."""
        iam, s3 = self.client("iam"), self.client("s3")
        users = user_names(iam)
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
def world(folder: Path, name: str, stores: int = 1, store_name: str = "faults") -> Iterator[World]:
    """A new stack on a separate server. The environment must have separate XDG directories already."""
    running = embedded.start(name=store_name, say=lambda _: None)
    credentials = {"S3_ACCESS_KEY_ID": running.access_key_id, "S3_SECRET_ACCESS_KEY": running.secret_access_key}
    before = {variable: os.environ.get(variable) for variable in credentials}
    os.environ.update(credentials)
    region = embedded.REGION
    project, logs = folder / "project", folder / "logs"
    project.mkdir()
    logs.mkdir(mode=0o700)
    names = [SERVER, *(f"matrix-{number}.example.com" for number in range(1, stores))]
    try:
        with ExitStack() as open_proxies:
            proxies = {
                f"{service} {route}": open_proxies.enter_context(in_front_of(url))
                for service, url in (("s3", running.endpoint), ("iam", running.iam_endpoint))
                for route in ("usual", "other")
            }
            made = stack(project, name, credentials)
            kept = [
                Kept(server, f"faults-{name}-{number}", {"method": "synapse-s3-storage-provider"})
                for number, server in enumerate(names)
            ]
            new = World(made, running, store_name, proxies, kept, logs)
            new.write()
            yield new
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value
        embedded.wipe(name=store_name)
        embedded.REGION = region


# ---- processes


def descendants(pid: int) -> dict[int, str]:
    """{pid: command line} of all processes beneath one."""
    return {child: line for child in beneath(pid) if (line := _command_line(child))}


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
        raise BrokenError(f"the command did not end within {PATIENCE:g} s") from None


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


def leftovers(running: Mapping[int, str], patience: float = 120) -> None:
    """What a killed command or engine leaves behind ends by itself, as far as it could act. Raises BrokenError where it
    does not.

    An engine whose command was killed goes on to its end. A language host that waits for an engine that was killed
    finds out after some minutes that there is none: it is killed.

    Args:
        running: {pid: its identity}.
    """
    deadline = time.monotonic() + patience
    left = dict(running)
    while left := {pid: known for pid, known in left.items() if identity(pid) == known}:
        lines = {pid: _command_line(pid) for pid in left}
        if not any("/pulumi --non-interactive" in line for line in lines.values()):
            for pid, line in lines.items():
                if "/pulumi-language-python " in line:
                    kill(pid)
        if time.monotonic() > deadline:
            raise BrokenError(f"processes of the killed run go on: {'; '.join(lines.values())}")
        time.sleep(0.02)


def _command_line(pid: int) -> str:
    """ "" of a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
