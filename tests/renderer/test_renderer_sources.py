"""A secret that is kept outside: looked up by Ansible itself, by boto3 from a file; anything else is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synapse_media import renderer
from synapse_media.cli import main
from synapse_media.contract import to_json
from synapse_media.renderer import RenderError, render
from tests.end_to_end import systemd
from tests.renderer import readers
from tests.renderer.samples import SECRET, store

NAME = "matrix_synapse_ext_synapse_s3_storage_provider_config_secret_access_key"
# Doubles of two lookups of collections that PyPI has in the whole `ansible` package alone. They take what the real ones
# document, and refuse the rest.
LOOKUPS = {
    "sops": ("sops", "media.sops.yaml", {"extract": '["aws.secret"]'}, "the secret"),
    "hashi_vault": ("vault_kv2_get", "synapse/media", {"engine_mount_point": "kv"}, {"secret": {"key": "the secret"}}),
}


def vars_file(files: dict[str, str]) -> str:
    (text,) = files.values()
    return text


@pytest.fixture
def collections(tmp_path: Path) -> Path:
    for collection, (lookup, term, options, value) in LOOKUPS.items():
        place = tmp_path / "collections/ansible_collections/community" / collection / "plugins/lookup"
        place.mkdir(parents=True)
        (place / f"{lookup}.py").write_text(
            "from ansible.plugins.lookup import LookupBase\n\n\nclass LookupModule(LookupBase):\n"
            "    def run(self, terms, variables=None, **options):\n"
            f"        assert (terms, options) == ([{term!r}], {options!r}), (terms, options)\n"
            f"        return [{value!r}]\n"
        )
    return tmp_path / "collections"


def looked_up(text: str, collections: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (collections / "vars.yml").write_text(text)
    ansible = Path(sys.executable).with_name("ansible")
    return subprocess.run(
        [
            *(ansible, "-i", "localhost,", "-c", "local", "all", "-m", "ansible.builtin.debug"),
            *("-a", f"var={NAME}", "-e", f"@{collections / 'vars.yml'}"),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(collections),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
            **environment,
        },
    )


@pytest.mark.parametrize("kind", ["env", "file", "sops", "vault"])
def test_ansible_looks_the_secret_up(kind: str, collections: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret\n")
    source = {
        "env": "env:MEDIA_SECRET",
        "file": f"file:{secret}",
        "sops": "sops:media.sops.yaml#aws.secret",
        "vault": "vault:kv/synapse/media#key",
    }[kind]
    files = render(store("amazon", secret_access_key=""), "playbook", "reference", source=source)
    found = looked_up(vars_file(files), collections, {"MEDIA_SECRET": "the secret"})
    assert f'"{NAME}": "the secret"' in found.stdout, found.stdout + found.stderr
    if kind == "env":
        assert "export MEDIA_SECRET first" in looked_up(vars_file(files), collections, {}).stdout


def test_plain_synapse_and_goofys_read_it_from_a_file() -> None:
    source = "file:/run/secrets/media"
    for method, path in (("synapse-s3-storage-provider", "synapse-media.env"), ("goofys", "synapse-media-goofys.env")):
        files = render(store("amazon", method, secret_access_key=""), "plain", "reference", source=source)
        environment = systemd.environment_file(files[path])
        assert environment["AWS_SHARED_CREDENTIALS_FILE"] == "/run/secrets/media"
        assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(environment)
        assert "credentials" not in files
    files = render(store("amazon"), "plain", "reference", source=source)
    inside = readers.docker_environment(files["docker/synapse-media/synapse-media.env"])["AWS_SHARED_CREDENTIALS_FILE"]
    volumes = readers.yaml_1_1(files["docker/compose.override.yaml"])["services"]["synapse"]["volumes"]
    assert f"/run/secrets/media:{inside}:ro" in volumes


@pytest.mark.parametrize(
    ("form", "source", "allowed"),
    [
        ("playbook", "env:A B", "env:VARIABLE, file:/ABSOLUTE/PATH, sops:FILE#KEY, vault:MOUNT/PATH#KEY"),
        ("playbook", "env:A') or lookup('pipe', 'id", "env:VARIABLE"),
        ("playbook", "file:relative", "file:/ABSOLUTE/PATH"),
        ("playbook", "file:/a/../b", "file:/ABSOLUTE/PATH"),
        ("playbook", "sops:file", "sops:FILE#KEY"),
        ("playbook", "sops:../file#key", "sops:FILE#KEY"),
        ("playbook", "vault:mount#key", "vault:MOUNT/PATH#KEY"),
        ("playbook", "vault:kv/path#key'] }}", "vault:MOUNT/PATH#KEY"),
        ("playbook", "secret:name", "env:VARIABLE"),
        ("plain", "env:A", "file:/ABSOLUTE/PATH"),
        ("nixos", "sops:file#key", "file:/ABSOLUTE/PATH"),
        ("nixos", "file:/${x}", "file:/ABSOLUTE/PATH"),
        ("kubernetes", "file:/a", "secret:NAME"),
        ("kubernetes", "secret:A_b", "secret:NAME"),
        ("kubernetes", "secret:{{ x }}", "secret:NAME"),
        ("kubernetes", "secret:a\n", "secret:NAME"),
    ],
)
def test_another_place_is_refused(form: renderer.Form, source: str, allowed: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(store("amazon"), form, "reference", source=source)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--secrets-from is {source!r}. Allowed here: ")
    assert allowed in problem


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps(to_json(store("amazon"))))
    words: list[Any] = ["render", "--store", str(given), "--out", str(tmp_path / "out")]
    assert main([*words, "--secrets-from", "env:A"]) == 64
    assert "--secrets-from env:A goes with --secrets reference alone" in capsys.readouterr().err
    assert main([*words, "--secrets", "reference", "--secrets-from", "env:A"]) == 0
    assert "SYNAPSE_MEDIA_SECRET" not in capsys.readouterr().out
    written = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any("lookup('ansible.builtin.env', 'A')" in text for text in written)
    assert not any(SECRET in text for text in written)
