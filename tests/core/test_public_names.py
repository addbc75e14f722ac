"""What a program may rely on from one release to the next: CONTRIBUTING.md, "Versions"."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import components
from synapse_media import catalog

ROOT = Path(__file__).parents[2]

COMPONENTS = (
    "AmazonS3",
    "AmazonS3Args",
    "BackblazeB2",
    "BackblazeB2Args",
    "DigitalOceanSpaces",
    "DigitalOceanSpacesArgs",
    "Garage",
    "GarageArgs",
    "Keys",
    "S3Compatible",
    "S3CompatibleArgs",
    "Storj",
    "StorjArgs",
    "Wasabi",
    "WasabiArgs",
    "from_config",
    "make",
    "publish",
)
FUNCTIONS = {
    "components": {"from_config": (), "make": ("store",), "publish": ("stores",)},
    "synapse_media.contract": {"from_json": ("plain",), "of_stack": ("outputs",)},
    "synapse_media.renderer": {"render": ("outputs", "form")},
    "synapse_media.renderer.writing": {"write": ("files", "out_dir")},
}
"""Module -> function -> its first arguments, which may be given by position."""


def test_the_names_of_the_components() -> None:
    assert tuple(components.__all__) == COMPONENTS
    # Each class is one that a family of the catalog loads: none is only listed.
    classes = {family.component_class for family in catalog.families()}
    assert {name.removesuffix("Args") for name in COMPONENTS if name[0].isupper()} == {*classes, "Keys"}


@pytest.mark.parametrize("module", FUNCTIONS)
def test_the_functions_take_what_they_took(module: str) -> None:
    for name, first in FUNCTIONS[module].items():
        parameters = tuple(inspect.signature(getattr(import_module(module), name)).parameters)
        assert parameters[: len(first)] == first, name


def test_the_examples_use_nothing_else() -> None:
    public = {
        *(("synapse_media.components", name) for name in COMPONENTS),
        *((module, name) for module, functions in FUNCTIONS.items() for name in functions),
        ("synapse_media", "contract"),
    }
    for path in sorted((ROOT / "examples").rglob("*.py")):
        used = {
            (node.module, alias.name)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("synapse_media")
            for alias in node.names
        }
        assert used <= public, path
