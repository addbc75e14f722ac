"""The table of CONTRIBUTING.md, enforced: which part may import which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LEAVES = {"errors", "redaction"}
CORE = {"contract", "methods", "settings", "stackfile", "catalog"}
MAY = {
    "errors": {"redaction"},
    "redaction": set(),
    "signals": set(),
    "incoming": set(),
    "allow": set(),
    "urn": set(),
    "schema": set(),
    "catalog": {"errors", "schema"},
    "methods": set(),
    "contract": {"catalog", "errors", "methods"},
    "values": {"catalog", "homeserver", "methods"},
    "settings": {"allow", "catalog", "errors", "methods", "contract", "values"},
    "stackfile": {"catalog", "errors", "incoming", "methods", "settings"},
    "extras": {"catalog", "errors"},
    "store": {"errors", "incoming", "redaction", "schema", "catalog", "methods", "contract"},
    "plugin": {"errors", "urn", "redaction", "schema", "catalog", "methods", "contract", "settings", "store"},
    "guards": {"schema", "allow", "urn", "catalog", "methods", "settings", "errors"},
    "homeserver": set(),
    "renderer": {"methods", "contract", "errors", "homeserver", "values"},
    "lint": {"catalog", "methods", "errors", "homeserver", "values"},
    "runbook": {"allow", "catalog", "methods", "contract", "errors", "homeserver", "renderer"},
    "cost": {"catalog", "methods", "contract", "errors", "incoming"},
    "engine": {"errors", "signals", "incoming", "redaction"},
    "media": {
        "catalog",
        "contract",
        "engine",
        "errors",
        "homeserver",
        "lint",
        "methods",
        "redaction",
        "renderer",
        "store",
    },
}
"""Room of `synapse_media` -> the other rooms that it may import; `cli` may import all."""
COMPONENTS = {"allow", "schema", "catalog", "contract", "errors", "extras", "methods", "settings", "plugin"}


def room(path: Path) -> str:
    """The first part of a module's name below `synapse_media`."""
    return path.relative_to(ROOT / "synapse_media").parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The rooms of `synapse_media` that a module imports, late imports included."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            names = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "synapse_media" and len(name) > 1 and name[1] != "__version__":
                yield name[1]
            if name[0] == "components":
                yield "components"


@pytest.mark.parametrize("name", sorted(MAY))
def test_a_room_imports_what_the_table_says(name: str) -> None:
    at = ROOT / "synapse_media" / name
    files = sorted(at.rglob("*.py")) if at.is_dir() else [at.with_suffix(".py")]
    wrong = {
        (str(path.relative_to(ROOT)), other)
        for path in files
        for other in imported(path)
        if other not in MAY[name] | {name}
    }
    assert wrong == set()


def test_every_room_is_in_the_table() -> None:
    rooms = {room(path) for path in (ROOT / "synapse_media").rglob("*.py")} - {"__init__", "cli"}
    assert rooms == set(MAY)


def test_the_table_has_no_circle() -> None:
    done: set[str] = set()
    while left := {name for name in MAY if name not in done}:
        free = {name for name in left if MAY[name] <= done}
        assert free, f"a circle among {sorted(left)}"
        done |= free


def test_components_import_what_the_table_says() -> None:
    for path in (ROOT / "components").glob("*.py"):
        assert set(imported(path)) - {"components"} <= COMPONENTS, path.name


def test_commands_do_not_import_each_other_in_a_circle() -> None:
    at = ROOT / "synapse_media" / "cli"
    uses: dict[str, set[str]] = {}
    for path in at.glob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        uses[path.stem] = names & {other.stem for other in at.glob("*.py")}
    done: set[str] = set()
    while left := set(uses) - done:
        free = {name for name in left if uses[name] <= done}
        assert free, f"a circle among {sorted(left)}"
        done |= free
