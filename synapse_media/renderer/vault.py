"""Encrypt files or single values with Ansible Vault, by ansible-core's library.

Encryption is not deterministic, so existing ciphertext is kept if it decrypts to the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from synapse_media.errors import SynapseMediaError
from synapse_media.homeserver.playbook import VAULT_MARK

_BLOCK = re.compile(r"!vault \|\n((?:[ \t]+\S+\n)+)")


class VaultError(SynapseMediaError):
    """Ansible Vault can't be used: ansible-core or the password is missing, or the password is wrong."""


class Vault:
    """Encryption and decryption with one password."""

    def __init__(self, password_file: Path) -> None:
        """Read the password as Ansible does: the file's content, or its output if it is executable.

        Raises:
            VaultError: ansible-core is not installed, or the file has no password.
        """
        try:
            from ansible.errors import AnsibleError
            from ansible.parsing.dataloader import DataLoader
            from ansible.parsing.vault import VaultLib, get_file_vault_secret
        except ImportError:
            raise VaultError(
                "Ansible Vault needs ansible-core here: pip install 'synapse-media[vault]', or use --secrets reference."
            ) from None
        self._error: type[Exception] = AnsibleError
        try:
            secret: Any = get_file_vault_secret(filename=str(password_file), loader=DataLoader())
            secret.load()
        except AnsibleError as error:
            raise VaultError(f"--vault-password-file {password_file}: {error}") from None
        self._library = VaultLib([("default", secret)])

    def encrypt(self, plain: str, existing: str | None = None) -> str:
        """Encrypt a whole file; `existing` unchanged if it decrypts to the same text.

        Raises:
            VaultError: `existing` is encrypted with another password.
        """
        if existing is not None and existing.startswith(VAULT_MARK) and self.decrypt(existing) == plain:
            return existing
        return str(self._library.encrypt(plain).decode("ascii"))

    def decrypt(self, text: str) -> str:
        """The plain text of a file, encrypted or not. Raises VaultError if the password is wrong."""
        if not text.startswith(VAULT_MARK):
            return text
        try:
            return str(self._library.decrypt(text.encode()).decode())
        except (self._error, UnicodeDecodeError) as error:
            raise VaultError(
                f"what is on disk does not open with --vault-password-file: {error}. Give the password it was "
                "encrypted with, or change it first with `ansible-vault rekey` or move the file away."
            ) from None

    def value(self, plain: str, existing: Iterable[str] = ()) -> str:
        """A `!vault` value as YAML to follow `name: `; one from the `existing` files if it decrypts to the same text.

        Raises:
            VaultError: a value in `existing` is encrypted with another password.
        """
        for text in existing:
            for found in _BLOCK.finditer(text):
                old = "\n".join(found[1].split()) + "\n"
                if self.decrypt(old) == plain:
                    return _indented(old)
        return _indented(self.encrypt(plain))


def _indented(encrypted: str) -> str:
    return "!vault |\n" + "\n".join(f"  {line}" for line in encrypted.split())
