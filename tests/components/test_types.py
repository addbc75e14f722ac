"""What a type checker says of a program that uses the components."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.providers.project import ROOT

PROGRAM = """\
import pulumi

from components import S3Compatible, S3CompatibleArgs, Strange  # wrong

args = S3CompatibleArgs(server_name="example.com", bucket=pulumi.Output.from_input("media"), access="least")
media = S3Compatible("media", args, pulumi.ResourceOptions(protect=True))
bucket: pulumi.Output[str] = media.bucket
outputs: pulumi.Output[dict[str, object]] = media.outputs
media.bukcet  # wrong
S3CompatibleArgs(server_name="example.com", bucket="media", method="goofy")  # wrong
S3CompatibleArgs(server_name="example.com", bucket="media", access="most")  # wrong
S3CompatibleArgs(server_name="example.com", bucket="media", reggion="a")  # wrong
S3CompatibleArgs(server_name="example.com")  # wrong
S3Compatible("media", {"bucket": "media"})  # wrong
"""


def test_a_type_checker_reports_what_is_misspelt_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "program.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    reported = {int(number) for number in re.findall(r"program\.py:(\d+): error", done.stdout)}
    assert reported == {n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}, done.stdout
