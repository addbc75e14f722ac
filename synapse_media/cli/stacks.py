"""What the commands on a stack share: its file, its engine, its credentials, its outputs."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synapse_media import changes, contract, stackfile
from synapse_media.engine import embedded
from synapse_media.engine import session as engine_session
from synapse_media.engine.options import choosing
from synapse_media.engine.paths import private_dir, state_dir
from synapse_media.engine.session import Engine
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.plugin import credentials as plugin_credentials
from synapse_media.plugin import tracing
from synapse_media.redaction import remember
from synapse_media.settings import ADOPTED_SECRET

EMBEDDED = "embedded"


def say(message: str) -> None:
    """To people, on standard error: standard output is for what a command was asked for."""
    print(message, file=sys.stderr)


def waiting(what: str) -> contextlib.AbstractContextManager[None]:
    """Around calls that a store may leave without an answer: after two seconds, what is waited for is said."""
    return engine_session.waiting(say, what)


def add_stack(parser: argparse.ArgumentParser, *, options: bool = True) -> None:
    """The arguments of every command on a stack."""
    parser.add_argument("--stack", "-s", required=True, metavar="S", help="the stack: stacks/Pulumi.S.yaml")
    if options:
        parser.add_argument(
            "options", nargs="*", metavar="-- PULUMI OPTION", help="handed to pulumi: --target, --replace …"
        )


@dataclass(frozen=True, slots=True)
class Session:
    """A stack that is ready for the engine."""

    stack: stackfile.StackFile
    engine: Engine


def open_stack(name: str, *, credentials: bool, options: Sequence[str] = ()) -> Session:
    """Read and check the stack file, and make the engine ready for it.

    Args:
        credentials: fail where an admin variable is missing (a preview from nothing needs none).
        options: what is handed to pulumi later; UsageError for what may not be.
    """
    choosing(options)
    project = stackfile.find_project()
    if stackfile.is_example(name):
        raise UsageError(
            f"--stack is {name!r}, an example that is never changed. Make your own stack: `synapse-media init prod "
            f"--provider {name.replace('-', '_')}`. To see it: `synapse-media diff --from-nothing --stack {name}`."
        )
    stack = stackfile.read(project, name)
    extra = embedded_environment() if name == EMBEDDED else {}
    variables = stack.admin_variables
    missing = [name for name in stack.required_variables if not (os.environ.get(name) or extra.get(name))]
    if missing and credentials:
        raise SynapseMediaError(
            f"the environment lacks {', '.join(missing)}: the admin credential of "
            f"{', '.join(sorted({store.provider for store in stack.stores.values() if store.uses_store}))}. "
            "It is needed to create or refresh, and is kept nowhere."
        )
    if any(store.adopt_key for store in stack.stores.values()):
        variables = (*variables, ADOPTED_SECRET)
    for variable in variables:
        # Before anything has it: a vendor's plugin may show what it can't use.
        plugin_credentials.read(variable)
    engine = Engine(project, variables, extra, say, stack.secrets_provider)
    for restored in engine.restore_cut_states():
        say(f"the state of {restored} could not be read, as after a full disk: took the one before it")
    engine.ensure_stack(name)
    engine.unlock_if_dead(name)
    return Session(stack, engine)


def say_calls(preview: Mapping[str, Any]) -> None:
    """The API calls of a preview, where they were asked for (-v)."""
    for item in preview.get("diagnostics") or ():
        message = str(item.get("message", "")).strip()
        if message.startswith(tracing.MARK):
            say(message)


@contextlib.contextmanager
def changing(session: Session) -> Iterator[None]:
    """Around whatever changes a store. What does not come to its end leaves a mark (`was_cut_off`).

    The state alone does not tell: where it could not be written, it holds what is long gone.
    """
    mark = _mark(session.engine, session.stack.name)
    mark.touch(mode=0o600)
    yield
    mark.unlink(missing_ok=True)


def was_cut_off(session: Session) -> bool:
    """Whether the last change from this machine was, so that the state may not be what the store is."""
    return _mark(session.engine, session.stack.name).exists()


def remove(engine: Engine, name: str) -> None:
    """Forget a stack whose resources are gone or given up, and that it was cut off, where it was."""
    if engine.has_stack(name):
        engine.remove_stack(name, with_resources=True)
    _mark(engine, name).unlink(missing_ok=True)


def _mark(engine: Engine, stack: str) -> Path:
    backend = engine.environment.get("PULUMI_BACKEND_URL", "")
    name = f"{backend}\0{engine.project}\0{stack}"
    return private_dir(state_dir() / "unfinished") / hashlib.sha256(name.encode()).hexdigest()[:32]


def buckets_of(export: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """URN -> resource of every bucket in state."""
    resources = export.get("deployment", {}).get("resources") or []
    return {resource["urn"]: resource for resource in resources if changes.is_bucket(resource["type"])}


def unprotect_allowed(session: Session, words: Iterable[str]) -> None:
    """Take the protection off the buckets that `allow` gives up by one of the words: it lives in state."""
    stack, wanted = session.stack, set(words)
    if not any(entry.rpartition("/")[2] in wanted for entry in stack.allow):
        return
    for urn, bucket in buckets_of(session.engine.export(stack.name)).items():
        name = urn.rpartition("::")[2]
        if bucket.get("protect") and any(f"{name}/{word}" in stack.allow for word in wanted):
            session.engine.unprotect(urn, stack.name)


def embedded_environment() -> dict[str, str]:
    """The embedded store's root credential, for the children of one command alone."""
    running = embedded.status()
    if running is None:
        raise SynapseMediaError("the embedded store does not run: start it with `synapse-media embedded start`")
    remember(running.secret_access_key)
    return {
        "S3_ACCESS_KEY_ID": running.access_key_id,
        "S3_SECRET_ACCESS_KEY": running.secret_access_key,
    }


def outputs_of(session: Session) -> list[contract.StorageOutputs]:
    """The stores of a stack as the last `up` left them."""
    stores = session.engine.outputs(session.stack.name).get("stores")
    if not isinstance(stores, dict) or not stores:
        raise contract.ContractError(
            f"stack {session.stack.name} has no stores yet: run `synapse-media up --stack {session.stack.name}` first"
        )
    return [contract.from_json(store) for store in stores.values()]


def holds_media(store: contract.StorageOutputs) -> bool:
    """Whether the store's own key sees media in its bucket; False where it can't tell.

    A look before anything goes: the engine would delete keys and settings first, and only then be refused the bucket.
    """
    from synapse_media.plugin.connection import call
    from synapse_media.plugin.resource import ResourceError

    from .stores import own_key

    try:
        connection, credential = own_key(store)
        with waiting(f"{store.endpoint_url}: is media in {store.bucket}?"):
            page = call(connection.s3(credential), "list_objects_v2", Bucket=store.bucket, MaxKeys=10)
    except ResourceError:
        return False  # the plugin looks once more, and refuses by itself
    return any(item["Key"].rpartition("/")[2] not in contract.PROOF_OBJECTS for item in page.get("Contents", []))


def summary(stores: list[contract.StorageOutputs]) -> str:
    """What exists now, and what each key may and may not do. No secret."""
    lines: list[str] = []
    for store in stores:
        lines.append(f"{store.server_name}: {store.method}")
        if store.method == "filesystem":
            lines.append("  media stays on the server's own disk; no store is used")
            continue
        lines.append(f"  bucket     {store.bucket} at {store.endpoint_url} ({store.provider}, region {store.region})")
        if store.user:
            lines.append(f"  user       {store.user}")
        if store.keyless:
            lines.append("  key        none: the machine's own role signs; prove it on the instance")
        else:
            lines.append(f"  key        {store.access_key_id}{_age(store.key_created_at)}")
        if store.proof is not None:
            lines += [f"  {outcome:<11}{', '.join(names)}" for outcome, names in _by_outcome(store.proof).items()]
        lines += [f"  lacks      {words}" for words in store.lacks]
    return "\n".join(lines)


def report(stores: Iterable[contract.StorageOutputs]) -> dict[str, Any]:
    """The same for programs, by homeserver. No secret."""
    return {
        store.server_name: {
            "provider": store.provider,
            "method": store.method,
            "bucket": store.bucket,
            "region": store.region,
            "endpoint_url": store.endpoint_url,
            "user": store.user,
            "access_key_id": store.access_key_id,
            "key_created_at": store.key_created_at,
            "keyless": store.keyless,
            "proof": {line.operation: line.outcome for line in store.proof.lines} if store.proof else None,
            "lacks": list(store.lacks),
        }
        for store in stores
    }


def show(stores: Iterable[contract.StorageOutputs], *, as_json: bool) -> None:
    """Say what exists now."""
    print(json.dumps(report(stores), indent=2) if as_json else summary(list(stores)))


def quiet_for_json(session: Session, *, as_json: bool) -> None:
    """Standard output is the report's: what pulumi shows goes to standard error."""
    if as_json:
        session.engine.shown_on = 2


def _age(created_at: str) -> str:
    """How old a key is, for people: whoever rotates wants to know."""
    if not created_at:
        return ""
    days = (datetime.now(UTC) - datetime.fromisoformat(created_at)).days
    return f", made {created_at[:10]} ({days} days ago)" if days else f", made {created_at[:10]} (today)"


def _by_outcome(proof: contract.Proof) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in proof.lines:
        outcome = line.expected if line.expected == "can't be refused here" else line.outcome
        found.setdefault({"allowed": "may", "refused": "may not"}.get(outcome, outcome), []).append(line.operation)
    return found
