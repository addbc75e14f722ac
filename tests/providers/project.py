"""A copy of the project with one stack file of a test's own, run by the real engine through the real plugin."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from synapse_media import contract, stackfile
from synapse_media.engine.session import Engine
from synapse_media.guards import changes

ROOT = Path(__file__).resolve().parents[2]
SERVER = "matrix.example.com"


@dataclass(slots=True)
class Stack:
    """A stack of a test's own: the file, and the engine that makes it so."""

    engine: Engine
    name: str

    @property
    def path(self) -> Path:
        return self.engine.project / "stacks" / f"Pulumi.{self.name}.yaml"

    def write(
        self, stores: Mapping[str, Any], allow: Iterable[str] = (), defaults: Mapping[str, Any] | None = None
    ) -> None:
        """The stack file; what is wrong in it is found before the engine runs."""
        salt = yaml.safe_load(self.path.read_text()).get("encryptionsalt") if self.path.exists() else None
        config = {"synapse-media:stores": dict(stores), "synapse-media:allow": list(allow)}
        if defaults:
            config["synapse-media:defaults"] = dict(defaults)
        self.path.write_text(
            yaml.safe_dump({"config": config, **({"encryptionsalt": salt} if salt else {})}, sort_keys=False)
        )
        stackfile.read(self.engine.project, self.name)

    def store(self, allow: Iterable[str] = (), **settings: Any) -> None:
        """A stack file with one store."""
        self.write({SERVER: settings}, [f"{SERVER}/{word}" for word in allow])

    def up(self, *, refresh: bool = False, options: Iterable[str] = ()) -> str:
        """What pulumi said, with no guard before it. Raises EngineError with it."""
        refreshing = ["--refresh"] if refresh else []
        return self.engine.run(
            ["up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", self.name, *refreshing, *options]
        ).stdout

    def preview(self, *, refresh: bool = False) -> tuple[changes.Change, ...]:
        return changes.of_preview(self.engine.preview(self.name, refresh=refresh))

    def let_keys_go(self) -> None:
        """Give leave in the state for the keys to go, as the command does where `allow` names retire-key."""
        state = self.engine.export(self.name)
        for resource in state["deployment"].get("resources") or []:
            if resource["type"].endswith("KeyRing"):
                resource.setdefault("outputs", {})["retireConfirmed"] = True
        self.engine.replace_state(self.name, state)

    def destroy(self) -> str:
        """What pulumi said, with leave for the keys to go."""
        self.let_keys_go()
        return self.engine.run(["destroy", "--yes", "--skip-preview", "--stack", self.name]).stdout

    def outputs(self, server_name: str = SERVER) -> contract.StorageOutputs:
        return contract.from_json(contract.of_stack(self.engine.outputs(self.name))[server_name])

    def urn(self, kind: str) -> str:
        """Of the one resource of a type."""
        resources = self.engine.export(self.name)["deployment"]["resources"]
        (urn,) = [item["urn"] for item in resources if item["type"] == kind]
        return str(urn)

    def state(self) -> str:
        """The state as it is on disk: secrets encrypted."""
        return json.dumps(self.engine.export(self.name))


def stack(folder: Path, name: str, environment: Mapping[str, str]) -> Stack:
    """A new stack in a copy of the project, without what another test of that name left in its state.

    Args:
        environment: the admin credentials, for the engine's children alone.
    """
    for item in ("Pulumi.yaml", "__main__.py", "bin", "components"):
        source = ROOT / item
        if source.is_dir():
            shutil.copytree(source, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / item)
    (folder / "stacks").mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    made = Stack(Engine(folder, (), environment, say=lambda _: None), name)
    made.path.write_text("config: {}\n")
    if made.engine.has_stack(name):
        made.engine.remove_stack(name, with_resources=True)
    made.engine.ensure_stack(name)
    return made
