"""What a wheel carries: the package with the components in it, all data, and no generic name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_carries_everything_under_one_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"synapse_media"}
    for needed in (
        "synapse_media/components/s3_compatible.py",
        "synapse_media/py.typed",
        "synapse_media/catalog/schema.json",
        "synapse_media/catalog/data/wasabi.json",
        "synapse_media/engine/sources/pulumi/go.sum",
        "synapse_media/engine/sources/versitygw/pin.go",
    ):
        assert needed in names
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import synapse_media.components as found, synapse_media.components.s3_compatible\n"
        "print(found.__file__)"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path / "site")], check=True, capture_output=True, text=True
    )
    assert answer.stdout.startswith(str(tmp_path / "site"))
