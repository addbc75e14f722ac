"""Where a secret is kept outside of the rendered files, and how Ansible looks it up there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from . import quoting

Kind = Literal["env", "file", "sops", "vault", "secret"]

_PLACE = r"/?[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
_KEY = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_SHAPES: dict[Kind, tuple[str, str]] = {
    "env": (r"[A-Za-z_][A-Za-z0-9_]*", "env:VARIABLE"),
    "file": (r"(?:/[A-Za-z0-9_+][A-Za-z0-9._+-]*)+", "file:/ABSOLUTE/PATH"),
    "sops": (f"{_PLACE}#{_KEY}", "sops:FILE#KEY"),
    "vault": (f"[A-Za-z0-9_-]+/{_PLACE}#{_KEY}", "vault:MOUNT/PATH#KEY"),
    # RFC 1123, as Kubernetes has the names of its objects.
    "secret": (r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "secret:NAME"),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A secret's place.

    Attributes:
        kind: `env`, an environment variable where Ansible runs; `file`, a file; `sops`, a value of a file that SOPS
            encrypted; `vault`, of a key-value store (version 2) of HashiCorp Vault or OpenBao; `secret`, a Secret of
            Kubernetes.
        place: the variable, path or name; for `vault` the mount and the path in it.
        key: of the value in that place, for `sops` and `vault`.
    """

    kind: Kind
    place: str
    key: str = ""

    def lookup(self) -> str:
        """The expression by which Ansible gets the secret; it fails where there is none.

        https://docs.ansible.com/ansible/latest/collections/community/sops/sops_lookup.html
        https://docs.ansible.com/ansible/latest/collections/community/hashi_vault/vault_kv2_get_lookup.html
        """
        if self.kind == "env":
            return f"lookup('ansible.builtin.env', '{self.place}') or undef(hint='export {self.place} first')"
        if self.kind == "file":
            return f"lookup('ansible.builtin.file', '{self.place}')"
        if self.kind == "sops":
            return f"lookup('community.sops.sops', '{self.place}', extract='[\"{self.key}\"]')"
        mount, _, path = self.place.partition("/")
        found = f"lookup('community.hashi_vault.vault_kv2_get', '{path}', engine_mount_point='{mount}')"
        return f"{found}.secret['{self.key}']"


def parse(text: str, allowed: tuple[Kind, ...]) -> Reference:
    """A reference as `--secrets-from` has it. Raises RenderError where it is none of the `allowed` kinds."""
    kind, _, rest = text.partition(":")
    found = next((known for known in allowed if known == kind), None)
    if found is None or re.fullmatch(_SHAPES[found][0], rest) is None or ".." in rest.split("/"):
        raise quoting.refuse(
            "--secrets-from",
            f"is {text!r}",
            "Allowed here: " + ", ".join(_SHAPES[known][1] for known in allowed) + ", without blanks and quotes.",
        )
    place, _, key = rest.partition("#")
    return Reference(found, place, key)
