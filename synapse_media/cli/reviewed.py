"""What was reviewed is what happens: a digest of the changes of a preview, which `up --reviewed` holds to.

Pulumi's own saved plan is not used: where it does not fit, pulumi shows outputs, secrets in clear.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from synapse_media.errors import SynapseMediaError
from synapse_media.guards import changes
from synapse_media.guards.applied import PROOF
from synapse_media.guards.changes import Change
from synapse_media.urn import short

from . import checkpoints


def digest(found: Sequence[Change], preview: Mapping[str, Any]) -> str:
    """SHA-256 of the changes as they are shown, and of all that is made or changed for them, in hexadecimal.

    What is shown of a new resource is little: where it is made, and with which settings, is in its inputs.

    Without those of the proof, which `up` makes anew where the store changes and its own inputs do not. In an order of
    its own: of several stores the engine has another one each time.

    Args:
        preview: in which the changes were found; it has "[secret]" in place of secrets.
    """
    shown = changes.to_json([change for change in found if change.kind != short(PROOF)], (), ())["changes"]
    lines = [json.dumps(change, sort_keys=True) for change in shown]
    lines += [f"{step['op']} {step['urn']} {inputs}" for step, inputs in checkpoints.changing(preview)]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def require(found: Sequence[Change], preview: Mapping[str, Any], reviewed: str, stack: str) -> str:
    """The digest of these changes. Raises SynapseMediaError where they are not those that were reviewed.

    Args:
        reviewed: the digest of those; "" where nobody asks.
    """
    now = digest(found, preview)
    if reviewed and now != reviewed.strip().lower():
        raise SynapseMediaError(
            f"nothing was changed: what `up` would do to the stack {stack} now is not what was reviewed (--reviewed is "
            f"{reviewed!r}; now it is {now}). Look at `synapse-media diff --stack {stack}` again."
        )
    return now
