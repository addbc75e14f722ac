"""What commands print with `--json`, checked against the schema of their shapes."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft7Validator

from tests.providers.project import ROOT

SCHEMA: dict[str, Any] = json.loads((ROOT / "synapse_media/cli/shapes.schema.json").read_text(encoding="utf-8"))


def answer(command: str, printed: str) -> dict[str, Any]:
    """The answer of a command, or "error", which must have the shape of that."""
    found: dict[str, Any] = json.loads(printed)
    shape = {"$ref": f"#/definitions/{command}", "definitions": SCHEMA["definitions"]}
    assert [error.message for error in Draft7Validator(shape).iter_errors(found)] == []
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(found)] == []
    return found
