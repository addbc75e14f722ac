"""Ansible Vault, with ansible-core's own library: a whole file, or one value of it.

The same text encrypts to another one each time, so what is on disk is kept wherever it opens to the same plain text.
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
    """Ansible Vault could not be used: no ansible-core, no password, or one that opens nothing."""


class Vault:
    """A password, and what it opens."""

    def __init__(self, password_file: Path) -> None:
        """Read the password as Ansible does: the file's text, or what it prints where it is executable.

        Raises:
            VaultError: ansible-core is not installed, or there is no password in the file.
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
        """A whole file; `existing` as it is, where it opens to this very text.

        Raises:
            VaultError: `existing` is encrypted with another password: nobody could read both.
        """
        if existing is not None and existing.startswith(VAULT_MARK) and self.decrypt(existing) == plain:
            return existing
        return str(self._library.encrypt(plain).decode("ascii"))

    def decrypt(self, text: str) -> str:
        """The plain text of a file, whether it is encrypted or not. Raises VaultError where the password is another."""
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
        """YAML after `name: `, for a `!vault` value; one that is in the `existing` files already, where it opens so.

        Raises:
            VaultError: a value in `existing` does not open with this password.
        """
        for text in existing:
            for found in _BLOCK.finditer(text):
                old = "\n".join(found[1].split()) + "\n"
                if self.decrypt(old) == plain:
                    return _indented(old)
        return _indented(self.encrypt(plain))


def _indented(encrypted: str) -> str:
    return "!vault |\n" + "\n".join(f"  {line}" for line in encrypted.split())
