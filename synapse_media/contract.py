"""StorageOutputs: what a provisioned store is, for everything downstream. Version 1.

One value per store under the stack outputs `stores` and `store_secrets` (see `split`), and the content of the file that
`render` leaves on a server.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from .errors import SynapseMediaError
from .methods import ACCESS, METHODS, NOT_TESTED, Addressing, Expected

VERSION = 1

PROOF_OBJECT = "synapse-media-proof"
"""How the name of what a proof writes begins, under the prefix; that of an earlier release was this alone."""
PROOF_NAME = re.compile(re.escape(PROOF_OBJECT) + r"(?:-[0-9a-f]{12})?(?:-copy)?\Z")
"""Objects of such a name don't count when a bucket is asked whether it is empty."""

Checksums = Literal["when_required", "when_supported"]


class ContractError(SynapseMediaError):
    """Outputs that can't be used: not ours, of another version, or not proved."""


@dataclass(frozen=True, slots=True)
class ProofLine:
    """One operation tried with the key. `outcome`: allowed, refused, can't be refused here, not tested."""

    operation: str
    expected: str
    outcome: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        if self.outcome == NOT_TESTED or self.expected == Expected.CANNOT_REFUSE:
            return False
        return self.outcome != self.expected


@dataclass(frozen=True, slots=True)
class Proof:
    """The key was tried.

    Attributes:
        made_for: the fingerprint of what it was tried on (see `fingerprint`).
        secret_sha256: of the secret that it was tried with (see `secret_sha256`); "" in proofs of release 0.1.0.
    """

    made_for: str
    lines: tuple[ProofLine, ...]
    secret_sha256: str = field(default="", repr=False)

    @property
    def passed(self) -> bool:
        return bool(self.lines) and not any(line.failed for line in self.lines)


@dataclass(frozen=True, slots=True)
class StorageOutputs:
    """A store, as the renderer and the commands on the server see it.

    Attributes:
        server_name: the homeserver, `example.com` or `matrix.example.com`.
        region: as the store signs it; "us-east-1" where the store does not care.
        endpoint_url: with scheme, without a trailing slash; "" with `filesystem` only.
        secret_access_key: the only secret. Empty with `keyless`.
        keyless: the machine's own role signs; proved on the instance.
        prefix: put before each key as it is; "", or ends with "/" but in a bucket that was taken over.
        policy_sha256: of the canonical policy document, "" where the store has none.
        media_repo: `s3_datastore_id` and, while old media lies there, `file_datastore_id`; never invented.
        key_created_at: when the active key was made, ISO 8601 in UTC; "" where the store does not tell.
        ca_file: PEM file to trust for a private endpoint; "" for the system's.
        lacks: settings of the bucket that this store does not have, in words.
    """

    server_name: str
    provider: str
    method: str
    access: str
    bucket: str
    region: str
    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    keyless: bool = False
    user: str = ""
    storage_class: str = "STANDARD"
    prefix: str = ""
    addressing: Addressing = "path"
    checksums: Checksums = "when_required"
    policy_sha256: str = ""
    cannot_refuse: tuple[str, ...] = ()
    media_repo: Mapping[str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    ca_file: str = ""
    key_created_at: str = ""
    proof: Proof | None = None
    version: int = VERSION

    def made_for(self) -> str:
        """The fingerprint that a proof of these outputs must carry."""
        return fingerprint(
            access_key_id=self.access_key_id,
            policy_sha256=self.policy_sha256,
            bucket=self.bucket,
            endpoint_url=self.endpoint_url,
            region=self.region,
            prefix=self.prefix,
            method=self.method,
            access=self.access,
        )

    def require_proof(self) -> None:
        """Raise ContractError unless a passed proof was made for exactly this key, policy, bucket and endpoint."""
        if self.keyless or self.method == "filesystem":
            return
        name = f"store {self.server_name}"
        if self.proof is None:
            raise ContractError(f"{name}: the key was never proved. Run `synapse-media up`; it proves the key.")
        if self.proof.made_for != self.made_for():
            raise ContractError(
                f"{name}: the proof was made for another key, policy, bucket or endpoint. Run `synapse-media up` again."
            )
        tried = self.proof.secret_sha256
        if tried and self.secret_access_key and tried != secret_sha256(self.access_key_id, self.secret_access_key):
            raise ContractError(
                f"{name}: the proof was made with another secret access key of {self.access_key_id}. Run "
                "`synapse-media up --refresh`, and render again."
            )
        if not self.proof.passed:
            failed = "; ".join(
                f"{line.operation} should be {line.expected}, was {line.outcome}"
                + (f" ({line.detail})" if line.detail else "")
                for line in self.proof.lines
                if line.failed
            )
            raise ContractError(f"{name}: the proof failed: {failed or 'nothing was tried'}. Mend it, then `up` again.")


def fingerprint(**inputs: str) -> str:
    """SHA-256 over the named inputs of a proof; no secret goes in."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def secret_sha256(access_key_id: str, secret: str) -> str:
    """SHA-256 by which a secret access key is known again. Kept as secret as the key: it could be guessed from this."""
    return hashlib.sha256(f"{access_key_id}\0{secret}".encode()).hexdigest()


def policy_sha256(document: Mapping[str, Any] | str | None) -> str:
    """SHA-256 of a policy document in canonical JSON; "" for none."""
    if not document:
        return ""
    parsed = json.loads(document) if isinstance(document, str) else document
    return hashlib.sha256(json.dumps(parsed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def line_to_json(line: ProofLine) -> dict[str, str]:
    """The wire form of one line of a proof."""
    return {item.name: getattr(line, item.name) for item in fields(line)}


def to_json(outputs: StorageOutputs) -> dict[str, Any]:
    """The wire form (camelCase-free plain JSON). Holds the secret: write it at 0600 only."""
    plain: dict[str, Any] = {}
    for item in fields(outputs):
        value = getattr(outputs, item.name)
        if isinstance(value, Proof):
            value = {
                "made_for": value.made_for,
                "lines": [line_to_json(line) for line in value.lines],
                "secret_sha256": value.secret_sha256,
            }
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        plain[item.name] = value
    return plain


def split(outputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The wire form without its secrets, and the secrets: what a stack exports as `stores` and `store_secrets`.

    Args:
        outputs: the wire form; its values may be a program's, and not known yet.
    """
    shown, secrets = dict(outputs), {"secret_access_key": outputs["secret_access_key"]}
    del shown["secret_access_key"]
    if outputs.get("proof") is not None:
        shown["proof"] = {name: value for name, value in outputs["proof"].items() if name != "secret_sha256"}
        secrets["secret_sha256"] = outputs["proof"].get("secret_sha256", "")
    return shown, secrets


def of_stack(outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The wire form of each store that a stack exports, by homeserver; {} where it exports none.

    Releases before 2026-12 had the secrets in `stores`.
    """
    stores, secrets = (outputs.get(name) for name in ("stores", "store_secrets"))
    found: dict[str, dict[str, Any]] = {}
    for name, store in (stores if isinstance(stores, Mapping) else {}).items():
        if not isinstance(store, Mapping):
            continue
        own = (secrets.get(name) if isinstance(secrets, Mapping) else None) or {}
        whole = dict(store)
        if "secret_access_key" in own:
            whole["secret_access_key"] = own["secret_access_key"]
        if "secret_sha256" in own and isinstance(store.get("proof"), Mapping):
            whole["proof"] = {**store["proof"], "secret_sha256": own["secret_sha256"]}
        found[str(name)] = whole
    return found


_REQUIRED = (
    "server_name",
    "provider",
    "method",
    "access",
    "bucket",
    "region",
    "endpoint_url",
    "access_key_id",
    "secret_access_key",
)
_CHOICES: Mapping[str, Collection[str]] = {
    "method": METHODS,
    "access": ACCESS,
    "addressing": get_args(Addressing),
    "checksums": get_args(Checksums),
}


def from_json(plain: Mapping[str, Any]) -> StorageOutputs:
    """Read the wire form. Raises ContractError naming what is missing, unknown, wrong, or of a newer version."""
    version = plain.get("version")
    if version != VERSION:
        raise ContractError(
            f"store outputs of version {version!r}; this release reads version {VERSION}. "
            "Run `synapse-media up` and `render` with one release."
        )
    # What is not said is as if it was left out.
    values = {str(name): value for name, value in plain.items() if value is not None}
    known = {item.name for item in fields(StorageOutputs)}
    faults = {
        "missing": [name for name in _REQUIRED if name not in values],
        "unknown": sorted(set(values) - known),
        # Only their names: the secret may be among them.
        "not what they should be:": sorted(name for name in known & set(values) if not _is_right(name, values[name])),
    }
    if any(faults.values()):
        told = "; ".join(f"{what} {', '.join(names)}" for what, names in faults.items() if names)
        raise ContractError(f"not the outputs of a store: {told}")
    if "proof" in values:
        proof = values["proof"]
        lines = tuple(ProofLine(**line) for line in proof["lines"])
        values["proof"] = Proof(proof["made_for"], lines, proof.get("secret_sha256") or "")
    for name in ("cannot_refuse", "lacks"):
        values[name] = tuple(values.get(name, ()))
    return StorageOutputs(**values)


def _is_right(name: str, value: object) -> bool:
    if name in _CHOICES:
        return isinstance(value, str) and value in _CHOICES[name]
    if name == "version":
        return True
    if name == "keyless":
        return isinstance(value, bool)
    if name in ("cannot_refuse", "lacks"):
        return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    if name == "media_repo":
        return isinstance(value, Mapping) and all(isinstance(item, str) for pair in value.items() for item in pair)
    if name == "proof":
        return _is_proof(value)
    return isinstance(value, str)


def _is_proof(value: object) -> bool:
    if not isinstance(value, Mapping) or not {"made_for", "lines"} <= set(value) <= {
        "made_for",
        "lines",
        "secret_sha256",
    }:
        return False
    if not isinstance(value["lines"], list) or not isinstance(value.get("secret_sha256") or "", str):
        return False
    needed, known = {"operation", "expected", "outcome"}, {item.name for item in fields(ProofLine)}
    return isinstance(value["made_for"], str) and all(
        isinstance(line, Mapping)
        and needed <= set(line) <= known
        and all(isinstance(text, str) for text in line.values())
        for line in value["lines"]
    )
