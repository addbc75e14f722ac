"""The registry of provider families: all that the plugin and the commands know of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from synapse_media import catalog
from synapse_media.errors import StoreError
from synapse_media.plugin import families, keyring
from synapse_media.schema import resources
from synapse_media.schema.resources import AccessKey
from tests.plugin.direct import URN

ROOT = Path(__file__).parents[2]
MODULES = sorted({family.plugin for family in catalog.families()})
ADMINISTRATORS = {"": "s3", "backblaze_b2": "backblaze_b2", "garage": "garage", "spaces": "digitalocean_spaces"}
ADMINISTRATORS["storj"] = "storj"


def test_every_resource_is_served_by_exactly_one_family() -> None:
    served = [resource.pulumi_type for family in families.every() for resource in family.resources]
    assert sorted([*served, resources.PROOF.token]) == sorted(kind.token for kind in resources.RESOURCES)
    assert sorted(resource.pulumi_type for resource in families.resources()) == sorted([*served, resources.PROOF.token])


@pytest.mark.parametrize("administrator", ADMINISTRATORS)
def test_a_recorded_state_finds_the_administrator_of_its_proof(administrator: str) -> None:
    found = families.proof_administrator(administrator)
    assert type(found).__module__ == f"synapse_media.plugin.{ADMINISTRATORS[administrator]}"


def test_every_family_has_an_administrator_of_its_own() -> None:
    modules = {family.administrator: family.plugin for family in catalog.families()}
    assert ADMINISTRATORS.items() <= modules.items()
    assert len(modules) == len(MODULES)
    with pytest.raises(StoreError, match=r"administrator: is 'nobody'; allowed: .*'garage'"):
        families.proof_administrator("nobody")


def imports(path: Path) -> set[str]:
    """The last parts of what a module imports, late imports included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").rpartition(".")[2], *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name.rpartition(".")[2] for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_other_module_names_a_family(module: str) -> None:
    """So deleting the module and the catalog's entry leaves nothing else to delete."""
    others = [path for path in (ROOT / "synapse_media").rglob("*.py") if path.stem != module]
    assert [str(path) for path in others if module in imports(path)] == []


@pytest.mark.parametrize("component", [family.name for family in catalog.families()])
def test_a_family_is_imported_alone(component: str) -> None:
    """`doctor` asks one provider, and needs no library of another."""
    code = (
        "import sys; from synapse_media.plugin import families; "
        f"families.load({component!r}).check_admin; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert {module for module in MODULES if f"synapse_media.plugin.{module}" in loaded.split()} == {
        catalog.load(component).plugin
    }
    # Backblaze's own takes a second to load: not before a call is made.
    assert "b2sdk" not in loaded.split()


@pytest.mark.parametrize(
    ("used", "said"),
    [
        (None, "does not tell when a key was last used"),
        (
            datetime(2026, 11, 26, 9, 30, tzinfo=UTC),
            "last used at 2026-11-26 09:30 UTC; a store may record a use hours",
        ),
    ],
)
def test_a_time_of_last_use_does_not_confirm_that_a_key_may_go(used: datetime | None, said: str) -> None:
    family = SimpleNamespace(last_used=lambda _: used)
    old = AccessKey(access_key_id="AKIAFORMER", created_at="2026-11-01T00:00:00Z")
    with pytest.raises(StoreError, match=said):
        keyring._require_confirmed(family, old, URN, confirmed=False)  # type: ignore[arg-type]
