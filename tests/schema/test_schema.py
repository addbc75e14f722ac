"""The package schema and the components' classes follow from the descriptions, and Pulumi takes them."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

import synapse_media
from synapse_media.engine.obtain import Toolchain
from synapse_media.schema import model
from synapse_media.schema.package import package
from synapse_media.schema.resources import RESOURCES, ResourceType

ROOT = Path(__file__).parents[2]

each = pytest.mark.parametrize("kind", RESOURCES, ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "schema.py")))


def test_the_committed_schema_is_the_one_that_follows(script: SimpleNamespace) -> None:
    assert script.SCHEMA.read_text(encoding="utf-8") == script.schema(), "run `make docs`, and look at the difference"


def test_the_components_classes_are_those_that_follow(script: SimpleNamespace) -> None:
    assert script.CLASSES.read_text(encoding="utf-8") == script.classes(), "run `make docs`"


def test_the_reference_is_the_one_that_follows(script: SimpleNamespace) -> None:
    text = script.reference()
    assert script.REFERENCE.read_text(encoding="utf-8") == text, "run `make docs`"
    assert "| required |" in text
    for row in text.splitlines():
        assert not row.startswith("| `") or not row.endswith(" |  |"), f"not documented: {row}"


@each
def test_every_field_is_described(kind: ResourceType) -> None:
    for described in (kind.inputs, kind.state):
        plain = {one.name for one in fields(described)} - {one.name for one in model.properties(described)}
        assert plain <= {"inputs"}
        for one in model.properties(described):
            assert one.meta.doc.endswith("."), one.name


@each
def test_what_is_secret_is_an_output_that_nobody_gives_but_the_proof(kind: ResourceType) -> None:
    secret = {one.wire for one in model.properties(kind.inputs) if one.meta.secret}
    assert secret == ({"secretAccessKey"} if kind.name == "Proof" else set())


@each
def test_a_state_survives_the_wire(kind: ResourceType) -> None:
    required = {one.wire: _some(one) for one in model.properties(kind.inputs) if one.required}
    state = model.read_state(kind.state, kind.inputs, required)
    again = model.read_state(kind.state, kind.inputs, json.loads(json.dumps(model.write_state(state))))
    assert again == state


def _some(one: model.Property) -> object:
    return {"str": "x"}.get(getattr(one.type, "__name__", ""), {} if "dict" in str(one.type) else None)


def test_a_renamed_property_is_read_by_its_former_name_too() -> None:
    [proof] = [kind for kind in RESOURCES if kind.name == "Proof"]
    for name in ("lender", "administrator"):
        found = model.read(proof.inputs, {name: "garage"})
        assert model.write(found)["administrator"] == "garage"
        assert "lender" not in model.write(found)


def test_a_wrong_type_is_named_and_its_value_is_not() -> None:
    [bucket] = [kind for kind in RESOURCES if kind.name == "Bucket"]
    for name, value in {
        "bucket": 7,
        "abortDays": "many",
        "versioning": 1,
        "manage": "everything",
        "connection": [],
    }.items():
        with pytest.raises(model.WireError, match=rf"^{name}: allowed: ") as fault:
            model.read(bucket.inputs, {"bucket": "b", "owner": "o", "connection": {}, name: value})
        assert str(value) not in str(fault.value)


def test_pulumi_takes_the_schema(engine_toolchain: Toolchain, tmp_path: Path) -> None:
    """The real engine asks the real plugin, and binds what it answers."""
    environment = {**os.environ, "PULUMI_HOME": str(tmp_path), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    answer = subprocess.run(
        [engine_toolchain.pulumi, "package", "get-schema", str(ROOT / "bin" / "pulumi-resource-s3store")],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    served = json.loads(answer.stdout)
    described = package(synapse_media.__version__)
    assert set(served["resources"]) == set(described["resources"])
    assert served["resources"]["s3store:index:KeyRing"]["properties"]["secretAccessKey"]["secret"] is True
    assert "warning" not in answer.stderr.lower(), answer.stderr
