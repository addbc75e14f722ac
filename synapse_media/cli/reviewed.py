"""What was reviewed is what happens: a digest of the changes that `diff` showed, which `up --reviewed` holds to.

Pulumi's own saved plan is not used: where it does not fit, pulumi shows outputs, secrets in clear.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from synapse_media.errors import SynapseMediaError
from synapse_media.guards import changes
from synapse_media.guards.applied import PROOF
from synapse_media.guards.changes import Change
from synapse_media.urn import short


def digest(found: Sequence[Change]) -> str:
    """SHA-256 of the changes as they are shown, in hexadecimal.

    Without those of the proof, which `up` makes anew where the store changes and its own inputs do not. In an order of
    its own: of several stores the engine has another one each time.
    """
    shown = changes.to_json([change for change in found if change.kind != short(PROOF)], (), ())["changes"]
    lines = sorted(json.dumps(change, sort_keys=True) for change in shown)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def require(found: Sequence[Change], reviewed: str, stack: str) -> None:
    """Raise SynapseMediaError where these are not the changes that were reviewed.

    Args:
        reviewed: their digest; "" where nobody asks.
    """
    if reviewed and digest(found) != reviewed.strip().lower():
        raise SynapseMediaError(
            f"nothing was changed: what `up` would do to the stack {stack} now is not what was reviewed (--reviewed is "
            f"{reviewed!r}; now it is {digest(found)}). Look at `synapse-media diff --stack {stack}` again."
        )
