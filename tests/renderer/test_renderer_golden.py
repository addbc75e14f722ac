"""What is rendered, as text in review: `UPDATE_GOLDEN=1 pytest tests/renderer` writes it anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from renderer_samples import CASES, store

from synapse_media import renderer

GOLDEN = Path(__file__).parent / "golden"

METHODS = ("synapse-s3-storage-provider",)
COMBINATIONS = [
    (method, form, secrets, case)
    for method in METHODS
    for form in renderer.FORMS
    for case in CASES
    for secrets in renderer.SECRETS
    if secrets == "plain" or case == "compatible"
]


def _name(combination: tuple[str, str, str, str]) -> str:
    method, form, secrets, case = combination
    return f"{method}/{form}/{case}" + ("-reference" if secrets == "reference" else "")


@pytest.mark.parametrize("combination", COMBINATIONS, ids=_name)
def test_golden(combination: tuple[str, renderer.Form, renderer.Secrets, str]) -> None:
    method, form, secrets, case = combination
    files = renderer.render(store(case, method), form, secrets)
    assert files == renderer.render(store(case, method), form, secrets)
    place = GOLDEN / _name(combination)
    if os.environ.get("UPDATE_GOLDEN"):
        shutil.rmtree(place, ignore_errors=True)
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    kept = {
        str(path.relative_to(place)): path.read_text(encoding="utf-8") for path in place.rglob("*") if path.is_file()
    }
    assert files == kept


def test_no_golden_file_is_left_over() -> None:
    expected = {_name(combination) for combination in COMBINATIONS}
    assert {str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("*/*/*")} == expected
