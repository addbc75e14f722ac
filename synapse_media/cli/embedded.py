"""`synapse-media embedded`: the S3 and IAM server of one's own machine, and the stack on it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from synapse_media import stackfile
from synapse_media.allow import Word, entry
from synapse_media.engine import embedded
from synapse_media.engine.session import Engine
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.guards.applied import read as read_applied
from synapse_media.methods import METHODS
from synapse_media.settings import PROJECT

from . import env, programs, stacks, up

SERVER_NAME = "matrix.example.com"
BUCKET = "matrix-example-com-media"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A real S3 gateway with IAM (versitygw) on this machine's loopback, over a directory. For trying "
        "everything before a provider is chosen, not for production."
    )
    parser.add_argument(
        "action",
        choices=("start", "stop", "status", "up", "env", "clean"),
        help='env: shell lines after which plain `pulumi` works on the stack embedded, for `eval "$(…)"`; they have '
        "the root credential of the embedded store",
    )
    parser.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="start, up: serve https with a certificate made here; without it as last time",
    )
    parser.add_argument("--method", choices=tuple(METHODS), help="up: the method of the stack")
    parser.add_argument("--yes", action="store_true", help="clean: don't ask")
    parser.add_argument(
        "--bucket",
        action="append",
        default=[],
        metavar="NAME",
        help="clean: this bucket on the server, which the stack embedded did not make, may go with all it holds; once "
        "for each",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "start":
        return _show(embedded.start(tls=arguments.tls), as_json=arguments.json)
    if arguments.action == "status":
        return _show(embedded.status(), as_json=arguments.json)
    if arguments.action == "stop":
        stopped = embedded.stop()
        if arguments.json:
            print(programs.text({"running": False, "stopped": stopped}))
        else:
            print("the embedded store was stopped; its data stays" if stopped else "the embedded store does not run")
        return 0
    if arguments.action == "env":
        return _env(as_json=arguments.json)
    if arguments.action == "clean":
        return _clean(named=arguments.bucket, yes=arguments.yes, as_json=arguments.json)
    return _up(tls=arguments.tls, method=arguments.method, as_json=arguments.json)


def _env(*, as_json: bool) -> int:
    if sys.stdout.isatty():
        raise UsageError(
            "embedded env prints the root credential of the embedded store, so it does not print it on a terminal. "
            'Use: eval "$(synapse-media embedded env)"'
        )
    env.show({**env.missing_here(), **stacks.embedded_environment()}, as_json=as_json)
    return 0


def _show(running: embedded.Running | None, *, as_json: bool) -> int:
    if as_json:
        shown: dict[str, Any] = {"running": running is not None}
        if running is not None:
            shown |= {
                "endpoint": running.endpoint,
                "iam_endpoint": running.iam_endpoint,
                "region": running.region,
                "ca_file": str(running.ca_file or ""),
                "data_dir": str(running.data_dir),
            }
        print(programs.text(shown))
    elif running is None:
        print("the embedded store does not run")
    else:
        print(f"the embedded store runs: S3 at {running.endpoint}, IAM at {running.iam_endpoint}")
        print(f"its data lies in {running.data_dir}")
    return 0 if running is not None else 1


def _up(*, tls: bool | None, method: str | None, as_json: bool) -> int:
    """Start the store, write the stack file, `up`, render, and say what there is."""
    project = stackfile.find_project()
    running = embedded.start(tls=tls)
    known = Engine(project, (), {}, stacks.say).has_stack(stacks.EMBEDDED)
    write_stack_file(project, running, method, known=known)
    session = stacks.open_stack(stacks.EMBEDDED, credentials=True)
    stacks.quiet_for_json(session, as_json=as_json)
    # Back on the local disk there is no key: to ask for that method is to say so.
    words = {Word.RETIRE_KEY} if method == "filesystem" else set()
    record = read_applied(session.state()).get(SERVER_NAME)
    if record is not None and record.place is not None and record.place.endpoint != running.endpoint:
        # It is this server that moved, to https or to a free port, with all that is in it.
        words |= {Word.REPLACE_BUCKET, Word.RETIRE_KEY}
    allow = [entry(SERVER_NAME, word) for word in sorted(words)]
    up.apply(session, refresh=False, yes=True, options=[], allow=allow)
    stores = stacks.outputs_of(session)
    out = project / "out" / stacks.EMBEDDED
    rendered = out / "plain" / SERVER_NAME / "store.json"
    if rendered.exists() and json.loads(rendered.read_text(encoding="utf-8"))["method"] != stores[0].method:
        # Files of another method lying beside would only mislead.
        shutil.rmtree(out)
    from . import main

    for form in ("plain", "playbook"):
        # What it does, and how it is applied, is one form's: the files say it.
        with contextlib.redirect_stdout(io.StringIO()):
            if main(["render", "--stack", stacks.EMBEDDED, "--form", form, "--out", str(out / form)]):
                raise SynapseMediaError(
                    "the store is there and proved, but its configuration was not rendered: see above"
                )
    if as_json:
        print(programs.text({"stores": stacks.report(stores), "rendered": str(out)}))
        return 0
    print(stacks.summary(stores))
    print(
        f"  rendered   {_from_here(out)}/plain (for any Synapse), {_from_here(out)}/playbook (for the Ansible playbook)"
    )
    print("\nNext:")
    for command, what in _next(out):
        print(f"  # {what}\n  {command}")
    return 0


def _next(out: Path) -> list[tuple[str, str]]:
    """(command, what it is for): to look around here, and then at a real provider."""
    command = (
        "synapse-media"
        if shutil.which("synapse-media")
        else shlex.quote(_from_here(Path(sys.executable).parent / "synapse-media"))
    )
    plain = shlex.quote(f"{_from_here(out)}/plain")
    return [
        (f"{command} render --stack {stacks.EMBEDDED} --form plain --out {plain}", "how these files are applied"),
        (f"{command} prove --stack {stacks.EMBEDDED}", "try the key again"),
        (f"{command} cost --stored 400GB --growth 10GB/month", "which provider?"),
        (f"{command} init prod", "a stack file for a real provider; asks which, and says what comes next"),
    ]


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def write_stack_file(project: Path, running: embedded.Running, method: str | None, *, known: bool) -> None:
    """The generated stack file: endpoints as they are now, the method if given, everything else as it was.

    Args:
        known: the stack is in the state; if not, what pulumi wrote into the file belongs to another state.
    """
    path = stackfile.path_of(project, stacks.EMBEDDED)
    with stackfile.editing(path) as document:
        if not known:
            document.pop("encryptionsalt", None)
        config = document.setdefault("config", {})
        stores = config.setdefault(f"{PROJECT}:stores", {})
        store = stores.setdefault(SERVER_NAME, {"provider": "s3_compatible", "bucket": BUCKET})
        store["endpoint"], store["iam_endpoint"] = running.endpoint, running.iam_endpoint
        store["region"] = running.region
        store["settle_seconds"] = 0
        if running.ca_file:
            store["ca_file"] = str(running.ca_file)
        else:
            store.pop("ca_file", None)
        if method:
            store["method"] = method
        store.setdefault("method", "synapse-s3-storage-provider")
        if store["method"] == "matrix-media-repo":
            store.setdefault("media_repo", {"s3_datastore_id": secrets.token_hex(20)})
        else:
            store.pop("media_repo", None)
        # The method may change, the bucket may go if it is empty; what else is allowed, somebody wrote there.
        allow = config.setdefault(f"{PROJECT}:allow", [])
        if isinstance(allow, list):
            needed = (entry(SERVER_NAME, word) for word in (Word.DELETE_BUCKET, Word.WIDEN_POLICY, Word.NARROW_POLICY))
            allow.extend(named for named in needed if named not in allow)


def _clean(*, named: Sequence[str], yes: bool, as_json: bool) -> int:
    """Delete the embedded stack, its server and its data; nothing else of the state directory.

    Args:
        named: buckets on the server that this stack did not make, and that may go all the same.
    """
    project = stackfile.find_project()
    path = stackfile.path_of(project, stacks.EMBEDDED)
    engine = Engine(project, (), {}, stacks.say)
    there = embedded.buckets()
    going = {*(_buckets_of(engine, stacks.EMBEDDED, adopted=False) if there else ()), *named}
    if mistaken := set(named).difference(there):
        raise UsageError(f"--bucket {', '.join(sorted(mistaken))}: the embedded server has no such bucket")
    _refuse_others(engine, going)
    if not (yes or os.environ.get("YES") == stacks.EMBEDDED):
        if not sys.stdin.isatty():
            raise SynapseMediaError("nothing was deleted: this is no terminal to ask on. YES=embedded answers.")
        more = f", with the bucket{'s' * (len(named) > 1)} {', '.join(named)}" if named else ""
        stacks.say(f"This deletes the stack `embedded`, its server and all its data{more}.")
        if input("Type embedded to go on: ").strip() != stacks.EMBEDDED:
            raise SynapseMediaError("nothing was deleted")
    embedded.stop()
    # Now that nobody can make one any more.
    _refuse_others(engine, going)
    # Whether or not there is a stack file: another checkout has none, and the same state.
    stacks.remove(engine, stacks.EMBEDDED)
    path.unlink(missing_ok=True)
    embedded.wipe()
    shutil.rmtree(project / "out" / stacks.EMBEDDED, ignore_errors=True)
    if as_json:
        print(programs.text({"running": False, "deleted": True}))
    else:
        print("the embedded stack, its server and its data are gone")
    return 0


def _refuse_others(engine: Engine, going: Collection[str]) -> None:
    """Raises SynapseMediaError where the server has buckets beside these, naming each and the stack that has it."""
    others = [bucket for bucket in embedded.buckets() if bucket not in going]
    if not others:
        return
    listed = json.loads(engine.run(["stack", "ls", "--json"]).stdout)
    owners = {
        bucket: item["name"]
        for item in listed
        if item["name"] != stacks.EMBEDDED
        for bucket in _buckets_of(engine, item["name"], adopted=True)
    }
    words = [f"{bucket} ({f'stack {owners[bucket]}' if bucket in owners else 'no stack here'})" for bucket in others]
    first = "".join(
        f"`synapse-media destroy --stack {stack}`, or "
        for stack in sorted({owners[bucket] for bucket in others if bucket in owners})
    )
    raise SynapseMediaError(
        f"nothing was deleted: the embedded server holds buckets that the stack embedded did not make: "
        f"{', '.join(words)}. To keep what is in them, copy it away first. Then {first}name each that may go with all "
        f"it holds: `synapse-media embedded clean {' '.join(f'--bucket {bucket}' for bucket in others)}` "
        f'(make clean BUCKETS="{" ".join(others)}").'
    )


def _buckets_of(engine: Engine, stack: str, *, adopted: bool) -> set[str]:
    """The buckets on this machine's loopback that a stack has, as its state says.

    Args:
        adopted: those that it took over, too.
    """
    if not engine.has_stack(stack):
        return set()
    found = [bucket for store in read_applied(engine.export(stack)).values() for bucket in store.buckets]
    return {
        bucket.name
        for bucket in found
        if (adopted or not bucket.values.get("adopted"))
        and urlsplit(str((bucket.values.get("connection") or {}).get("endpoint"))).hostname == "127.0.0.1"
    }
