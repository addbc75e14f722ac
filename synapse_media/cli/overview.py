"""What there is, as `list` and `show` say it: read from the stack files and the state, without changing either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synapse_media import contract, stackfile
from synapse_media.engine.session import Engine
from synapse_media.errors import SynapseMediaError
from synapse_media.guards.applied import PROOF, Applied, Homeservers, resources_of
from synapse_media.guards.applied import read as read_applied
from synapse_media.schema.model import is_secret

from . import stacks


@dataclass(frozen=True, slots=True)
class Overview:
    """A stack of this project.

    Attributes:
        file: its stack file, if there is one.
        stack: what the stack file says; None if there is none, or it can't be read.
        fault: why the stack file can't be read; "" if it can.
        known: what the backend says of it; empty if it was not made yet.
    """

    name: str
    file: Path | None = None
    stack: stackfile.StackFile | None = None
    fault: str = ""
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def updated(self) -> str:
        """When it was last changed, ISO 8601; "" if never."""
        return str(self.known.get("lastUpdate") or "")


@dataclass(frozen=True, slots=True)
class Existing:
    """A store as the state has it.

    Attributes:
        outputs: without its secret; None if no `up` finished it yet, or if `is_encrypted`.
        proved_at: when its key was last proved, ISO 8601; "" if never.
        is_encrypted: the outputs are secrets in the state, as those of a store are that was given a secret.
    """

    record: Applied
    outputs: contract.StorageOutputs | None
    proved_at: str = ""
    is_encrypted: bool = False


def all_stacks(project: Path) -> list[Overview]:
    """Every stack with a stack file of its own or in the backend, by name; the examples are none."""
    engine = Engine(project, (), {}, stacks.say, makes_passphrase=False)
    known = {stackfile.short_name(str(item["name"])): item for item in engine.stacks()}
    files = stackfile.files_in(project / stackfile.config_dir(project))
    names = {name for name in files if not stackfile.is_example(name)} | set(known)
    return [_of(project, name, files.get(name), known.get(name, {})) for name in sorted(names)]


def _of(project: Path, name: str, file: Path | None, known: Mapping[str, Any]) -> Overview:
    if file is None:
        return Overview(name, known=known)
    try:
        return Overview(name, file, stackfile.read(project, name, stores_required=False), known=known)
    except SynapseMediaError as error:
        return Overview(name, file, fault=str(error), known=known)


def existing(project: Path, overview: Overview) -> Iterator[Existing]:
    """The stores in the state of a stack. Nothing is decrypted, so no passphrase is needed."""
    if not overview.known:
        return
    provider = overview.stack.secrets_provider if overview.stack else ""
    state = Engine(project, (), {}, stacks.say, provider, makes_passphrase=False).export(str(overview.known["name"]))
    resources = [one for one in resources_of(state) if one.get("type")]
    homeservers = Homeservers(resources)
    proved = {
        homeservers.of_resource(one): str(one.get("modified") or one.get("created") or "")
        for one in resources
        if one["type"] == PROOF
    }
    for name, record in sorted(read_applied(state).items()):
        encrypted = is_secret(record.outputs) or is_secret(record.outputs.get("bucket"))
        outputs = None if encrypted else _without_secrets(record.outputs)
        yield Existing(record, outputs, proved.get(name, ""), encrypted)


def _without_secrets(outputs: Mapping[str, Any]) -> contract.StorageOutputs | None:
    """The outputs as the state has them in clear; None if there are none, or another release made them."""
    plain = {**outputs, "secret_access_key": ""}
    if isinstance(proof := plain.get("proof"), Mapping):
        plain["proof"] = {key: value for key, value in proof.items() if key != "secret_sha256"}
    try:
        return contract.from_json(plain)
    except contract.ContractError:
        return None
