"""Secrets of a state under a key in a KMS, on a double of Vault: the setting is kept, and its variables arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from tests.doubles.vault_transit import vault
from tests.life.life import SERVER, Life

TOKEN = "the-token-of-vault"


def test_a_kms_takes_the_passphrase_s_place(begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch) -> None:
    life = begin()
    life.stack.name = "kms"
    config = {"synapse-media:stores": {SERVER: life.settings()}}
    life.stack.path.write_text(yaml.safe_dump({"secretsprovider": "hashivault://mykey", "config": config}))
    # Nobody is asked: neither the KMS nor a passphrase.
    assert life.command("diff", "--from-nothing")[0] == 2
    code, printed = life.command("diff")
    assert code == 1
    assert "VAULT_SERVER_URL" in printed
    with vault(TOKEN) as double:
        monkeypatch.setenv("VAULT_SERVER_URL", double.url)
        monkeypatch.setenv("VAULT_SERVER_TOKEN", TOKEN)
        code, printed = life.command("diff")
        assert code == 2, printed
        assert life.command("diff")[0] == 2
        assert {path.rpartition("/")[0] for path in double.calls} == {"/v1/transit/encrypt", "/v1/transit/decrypt"}
    kept = yaml.safe_load(life.stack.path.read_text())
    assert kept["secretsprovider"] == "hashivault://mykey"
    assert "encryptionsalt" not in kept
    assert TOKEN not in printed + life.stack.path.read_text()
    assert life.command("diff", "--from-nothing")[0] == 2
