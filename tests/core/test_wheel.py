"""What a wheel carries: the package with components, recipes, examples and data in it, and no generic name."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel of a checkout that contains a user's stack files."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "__main__.py"):
        shutil.copy2(ROOT / name, checkout)
    for name in ("synapse_media", "bin", "components", "ci", "stacks"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "stacks/Pulumi.mine.yaml").write_text("encryptionsalt: mine\n")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.Path(built)


def test_a_wheel_carries_everything_under_one_name(wheel: zipfile.Path) -> None:
    names = wheel.root.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"synapse_media"}
    # Where `pip install` puts it, `man` finds it: beside the command in `bin`.
    assert [name.partition(".data/")[2] for name in names if ".data/" in name and name[-1] != "/"] == [
        "data/share/man/man1/synapse-media.1"
    ]
    for needed in (
        "synapse_media/components/s3_compatible.py",
        "synapse_media/py.typed",
        "synapse_media/catalog/schema.json",
        "synapse_media/catalog/data/wasabi.json",
        "synapse_media/bin/pulumi-resource-s3store",
        "synapse_media/ci/comment.py",
        "synapse_media/ci/preview.sh",
        "synapse_media/ci/preview.yml",
        "synapse_media/engine/sources/pulumi/go.sum",
        "synapse_media/engine/sources/rclone/main.go",
        "synapse_media/engine/sources/versitygw/main.go",
        "synapse_media/project/__main__.py",
        "synapse_media/stack-file.schema.json",
    ):
        assert needed in names


def test_a_wheel_carries_the_examples_and_nobodys_stack_files(wheel: zipfile.Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "stacks"], cwd=ROOT, check=True, capture_output=True, text=True)
    found = {f"stacks/{item.name}" for item in (wheel / "synapse_media/stacks").iterdir()}
    assert found == set(tracked.stdout.split())


def test_a_wheel_says_whose_it_is_and_under_which_licence(wheel: zipfile.Path) -> None:
    (info,) = (item for item in wheel.iterdir() if item.name.endswith(".dist-info"))
    said = (info / "METADATA").read_text(encoding="utf-8")
    for line in ("License-Expression: Apache-2.0", "License-File: LICENSE", "Author: The synapse-media authors"):
        assert f"\n{line}\n" in said
    assert "Apache License" in (info / "licenses/LICENSE").read_text(encoding="utf-8")
    # A classifier for a licence contradicts the expression: PyPI refuses both together.
    assert "Classifier: License ::" not in said


def test_a_wheel_has_the_command_and_the_plugin(wheel: zipfile.Path) -> None:
    (info,) = (item for item in wheel.iterdir() if item.name.endswith(".dist-info"))
    parser = configparser.ConfigParser()
    parser.read_string((info / "entry_points.txt").read_text(encoding="utf-8"))
    assert dict(parser["console_scripts"]) == {
        "pulumi-resource-s3store": "synapse_media.plugin.__main__:main",
        "synapse-media": "synapse_media.cli:main",
    }
