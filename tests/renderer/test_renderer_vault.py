"""Ansible Vault, read back by Ansible itself: the program, on an inventory as the playbook has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main
from synapse_media.contract import to_json
from synapse_media.renderer.vault import Vault, VaultError
from tests.renderer.samples import SECRET, store

TEMPLATED = "a{{ 1+1 }}b"
NAME = "matrix_synapse_ext_synapse_s3_storage_provider_config_secret_access_key"
VARS = "matrix.example.com/inventory/host_vars/matrix.example.com/synapse-media.yml"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("correct horse\n")
    return path


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    path = tmp_path / "store.json"
    path.write_text(json.dumps(to_json(store("amazon", secret_access_key=TEMPLATED))))
    return path


def ansible_has(inventory: Path, *options: str, **variables: str) -> dict[str, Any]:
    """The host's variables as Ansible has them."""
    (inventory / "hosts").write_text("[matrix_servers]\nmatrix.example.com ansible_connection=local\n")
    command = [
        *(str(Path(sys.executable).with_name("ansible")), "-i", str(inventory / "hosts"), "matrix.example.com"),
        *("-m", "ansible.builtin.debug", "-a", f"var={NAME}", *options),
    ]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1", **variables}
    found = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr
    loaded: dict[str, Any] = json.loads(found.stdout.partition("=> ")[2])
    return loaded


def rendered(store_file: Path, out: Path, *options: str) -> str:
    assert main(["render", "--store", str(store_file), "--out", str(out), *options]) == 0
    return (out / VARS).read_text()


@pytest.mark.parametrize("secrets", ["vault", "vault-file", "plain", "reference"])
def test_ansible_reads_the_inventory(secrets: str, store_file: Path, password_file: Path, tmp_path: Path) -> None:
    options = ["--vault-password-file", str(password_file)] if secrets.startswith("vault") else []
    text = rendered(store_file, tmp_path, "--secrets", secrets, *options)
    assert (TEMPLATED in text) == (secrets == "plain")
    found = ansible_has(
        tmp_path / "matrix.example.com/inventory",
        *options,
        HOME=str(tmp_path),
        SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM=TEMPLATED if secrets == "reference" else "",
    )
    assert found[NAME] == TEMPLATED


@pytest.mark.parametrize("secrets", ["vault", "vault-file"])
def test_a_file_whose_plain_text_is_the_same_is_left_alone(
    secrets: str, store_file: Path, password_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--secrets", secrets, "--vault-password-file", str(password_file))
    first = rendered(store_file, tmp_path, *options)
    os.utime(tmp_path / VARS, ns=(1, 1))
    assert main(["render", "--store", str(store_file), "--out", str(tmp_path), "--diff", *options]) == 0
    assert rendered(store_file, tmp_path, *options) == first
    assert (tmp_path / VARS).stat().st_mtime_ns == 1
    capsys.readouterr()

    store_file.write_text(json.dumps(to_json(store("amazon", secret_access_key=SECRET))))
    assert main(["render", "--store", str(store_file), "--out", str(tmp_path), "--diff", *options]) == 2
    shown = capsys.readouterr().out
    assert SECRET not in shown
    assert TEMPLATED not in shown
    assert rendered(store_file, tmp_path, *options) != first


def test_the_contract_of_a_vaulted_store_has_no_secret(store_file: Path, password_file: Path, tmp_path: Path) -> None:
    rendered(store_file, tmp_path, "--secrets", "vault", "--vault-password-file", str(password_file))
    assert json.loads((tmp_path / "matrix.example.com/store.json").read_text())["secret_access_key"] == ""


def test_a_value_is_kept_only_where_it_opens_to_the_same(password_file: Path) -> None:
    vault = Vault(password_file)
    old = vault.value("old")
    assert vault.value("old", [f"a: 1\nb: {old}\nc: 2\n"]) == old
    assert vault.value("new", [f"b: {old}\n"]) != old
    whole = vault.encrypt("text\n", "not encrypted")
    assert vault.encrypt("text\n", whole) == whole
    assert vault.encrypt("other\n", whole) != whole
    assert vault.decrypt(whole) == "text\n"
    assert vault.decrypt("plain\n") == "plain\n"


def test_another_password(password_file: Path, tmp_path: Path) -> None:
    whole = Vault(password_file).encrypt("text\n")
    other = tmp_path / "other"
    other.write_text("battery staple\n")
    with pytest.raises(VaultError, match="does not open"):
        Vault(other).decrypt(whole)
    with pytest.raises(VaultError, match="does not open"):
        Vault(password_file).value("old", ["b: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  00ff\n"])


@pytest.mark.parametrize("secrets", ["vault", "vault-file"])
def test_nothing_is_written_over_what_another_password_opens(
    secrets: str, store_file: Path, password_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = rendered(store_file, tmp_path, "--secrets", secrets, "--vault-password-file", str(password_file))
    other = tmp_path / "other"
    other.write_text("battery staple\n")
    words = ["render", "--store", str(store_file), "--out", str(tmp_path), "--secrets", secrets]
    for option in ([], ["--diff"], ["--secrets", "vault"]):
        assert main([*words, "--vault-password-file", str(other), *option]) == 1
        assert "does not open with --vault-password-file" in capsys.readouterr().err
    assert (tmp_path / VARS).read_text() == first


def test_no_password(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match=r"--vault-password-file .*not found"):
        Vault(tmp_path / "none")
    (tmp_path / "empty").write_text("")
    with pytest.raises(VaultError, match="Invalid vault password"):
        Vault(tmp_path / "empty")


def test_without_ansible(password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ansible.errors", None)
    with pytest.raises(VaultError, match=r"pip install 'synapse-media\[vault\]'"):
        Vault(password_file)
