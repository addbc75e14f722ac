"""What is rendered, as text in review: `UPDATE_GOLDEN=1 pytest tests/renderer` writes it anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from synapse_media import renderer
from synapse_media.methods import METHODS
from tests.renderer.samples import CASES, store

GOLDEN = Path(__file__).parent / "golden"

COMBINATIONS = [
    (method, form, secrets, case)
    for method in METHODS
    for form in renderer.forms(method)
    for case in CASES
    for secrets in renderer.SECRETS
    # matrix-media-repo can't do without a key, and the filesystem has no store.
    if (method, case) != ("matrix-media-repo", "keyless") and (method != "filesystem" or case == "amazon")
    # What a provider changes shows in the forms of every method.
    if form in ("playbook", "plain") or case in ("amazon", "compatible", "keyless")
    # By reference once a form; plain Goofys and matrix-media-repo have one place for a key, whatever is asked.
    if secrets == "plain" or (case == "compatible" and (form != "plain" or method == "synapse-s3-storage-provider"))
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
