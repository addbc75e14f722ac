"""The golden vectors: access grants, and what the vendor's own library made of them (`go/`, made-up secrets)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synapse_media.plugin import storj_grant
from synapse_media.plugin.storj_grant import Grant

HERE = Path(__file__).resolve().parent
GENERATOR = HERE / "go"
FILE: dict[str, Any] = json.loads((HERE / "vectors.json").read_text(encoding="utf-8"))
PARENTS: dict[str, str] = FILE["parents"]
RESTRICTIONS: dict[str, dict[str, Any]] = {item["name"]: item for item in FILE["restrictions"]}


def moment(seconds: int) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def permissions(words: list[str]) -> frozenset[str]:
    return frozenset(storj_grant.PERMISSIONS if words == ["*"] else words)


def restricted(vector: dict[str, Any]) -> Grant:
    """What we make of a vector's parent, with its nonce."""
    return storj_grant.parse(PARENTS[vector["parent"]]).restricted(
        [vector["bucket"]],
        permissions(vector["allow"]),
        moment(vector["not_after"]),
        bytes.fromhex(vector["nonce"]),
    )
