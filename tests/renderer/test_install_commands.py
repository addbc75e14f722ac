"""The commands of INSTALL.md of the plain form, run below another root: what they install, and that undo removes it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from synapse_media.renderer import render
from tests.renderer.samples import SECRET, store

# The commands of a machine that this one is not: noted, not run. `install` runs as the user that we are.
DOUBLES = """
sudo() { "$@"; }
systemctl() { :; }
rsync() { :; }
docker() { :; }
install() {
    local words=()
    while [ $# -gt 0 ]; do if [ "$1" = -o ]; then shift 2; else words+=("$1"); shift; fi; done
    command install "${words[@]}"
}
"""


def run(text: str, rendered: Path, root: Path) -> None:
    commands = re.findall(r"^ {4,}((?:sudo|rm|docker) .*)$", text.replace("\\\n", ""), flags=re.MULTILINE)
    commands = [command for command in commands if "/pip " not in command and " -u " not in command]
    script = re.sub(r"(?<=[\s=])/(etc|var|root)/", f"{root}/\\1/", "\n".join(commands))
    subprocess.run(["/bin/bash", "-eu"], input=(DOUBLES + script).encode(), cwd=rendered, check=True)


@pytest.mark.parametrize("ca_file", ["", "/etc/ssl/ca.pem"])
@pytest.mark.parametrize("secrets", ["plain", "reference"])
@pytest.mark.parametrize("case", ["amazon", "keyless"])
@pytest.mark.parametrize("method", ["synapse-s3-storage-provider", "goofys"])
def test_what_is_installed_is_closed_and_undo_takes_it_away(
    method: str, case: str, secrets: Any, ca_file: str, *, tmp_path: Path
) -> None:
    rendered, root = tmp_path / "rendered", tmp_path / "root"
    for path, text in render(store(case, method, ca_file=ca_file), "plain", secrets).items():
        (rendered / path).parent.mkdir(parents=True, exist_ok=True)
        (rendered / path).write_text(text)
    (root / "etc/matrix-synapse/conf.d").mkdir(parents=True)
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "var/lib/matrix-synapse").mkdir(parents=True)
    install, _, undo = (rendered / "INSTALL.md").read_text().partition("## Undo")
    run(install, rendered, root)
    there = [path for path in root.rglob("*") if path.is_file()]
    assert root / "etc/matrix-synapse/conf.d/synapse-media.yaml" in there
    with_secret = [path for path in there if SECRET in path.read_text()]
    assert bool(with_secret) == (case != "keyless")
    assert {path.stat().st_mode & 0o777 for path in with_secret} <= {0o600}
    run(undo, rendered, root)
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_the_proof_by_reference_has_the_secret_from_where_it_is(tmp_path: Path) -> None:
    """The command of each form, with `synapse-media` in place of which a double prints what it would use."""
    source = tmp_path / "media"
    (tmp_path / "credentials").write_text(render(store("amazon"), "nixos")["credentials"])
    (tmp_path / "bin").mkdir()
    for name, text in (
        (
            "synapse-media",
            '#!/bin/sh\ncat "${AWS_SHARED_CREDENTIALS_FILE:-/dev/null}"; echo "${AWS_SECRET_ACCESS_KEY-}"\n',
        ),
        ("kubectl", f'#!/bin/sh\nbase64 "{tmp_path}/credentials"\n'),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    source.write_text((tmp_path / "credentials").read_text())
    for form, options in (
        ("plain", {}),
        ("plain", {"source": f"file:{source}"}),
        ("nixos", {"source": f"file:{source}"}),
        ("kubernetes", {}),
    ):
        files = render(store("amazon"), form, "reference", **options)  # type: ignore[arg-type]
        place = tmp_path / "rendered"
        place.mkdir(exist_ok=True)
        if form == "plain":
            (place / "synapse-media.env").write_text(files["synapse-media.env"])
        (command,) = re.findall(
            r"(?:^ {4}|`)([^`\n]*synapse-media prove --store store\.json\)?)(?:`|$)",
            files["INSTALL.md"],
            flags=re.MULTILINE,
        )
        found = subprocess.run(
            ["/bin/bash", "-euc", command],
            cwd=place,
            check=True,
            capture_output=True,
            text=True,
            env={"PATH": f"{tmp_path / 'bin'}:{os.defpath}"},
        )
        assert SECRET in found.stdout, (form, options, command)
