"""A user's project, with its own name and a program that uses the components as a library."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from synapse_media.engine.session import Engine
from tests.providers.project import ROOT, Stack

PROJECT = "acme-infra"

SOURCE = """
    from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

    class Names(ResourceProvider):
        def create(self, props):
            return CreateResult("x", {**props, "found": props["given"]})

        def diff(self, _id, old, new):
            return DiffResult(changes=any(old.get(one) != new.get(one) for one in ("given", "tag")))

        def update(self, _id, old, new):
            return UpdateResult({**new, "found": new["given"]})

    class Source(Resource):
        found: pulumi.Output[str]

        def __init__(self, name, given, tag):
            super().__init__(Names(), name, {"given": given, "tag": tag, "found": None})
"""
"""Classes of a program: a resource `Source`, whose output is unknown in each preview that changes its tag."""


def library(folder: Path, name: str, environment: Mapping[str, str], program: str) -> Stack:
    """A new stack of a project with its own program.

    Args:
        environment: the admin credentials, for the engine's children alone.
        program: what comes after the imports of `os`, `pulumi` and the components.
    """
    settings = {
        "name": PROJECT,
        "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
        "stackConfigDir": "stacks",
        "plugins": {"providers": [{"name": "s3store", "path": str(ROOT / "bin")}]},
    }
    (folder / "stacks").mkdir(parents=True)
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    # In a wheel the components are in the package; here they are next to it.
    (folder / "components").symlink_to(ROOT / "components")
    made = Stack(Engine(folder, (), environment, say=lambda _: None), name)
    made.path.write_text("config: {}\n")
    write(made, program)
    made.engine.ensure_stack(name)
    return made


def write(stack: Stack, program: str) -> None:
    imports = "import os\n\nimport pulumi\n\nfrom components import *\n\n"
    (stack.engine.project / "__main__.py").write_text(imports + textwrap.dedent(program))
