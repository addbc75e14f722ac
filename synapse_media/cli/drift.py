"""What differs at the stores from what the state has: a preview with a refresh, without what the stack file changes."""

from __future__ import annotations

from synapse_media.guards import changes, refusals
from synapse_media.guards.changes import Change

from . import stacks


def of(stack: str) -> tuple[Change, ...]:
    """The changes by which `up --refresh` would mend the drift of a stack that exists. Changes nothing.

    Raises:
        SynapseMediaError: no stack file, credential or passphrase is there, or a store does not answer.
    """
    session = stacks.open_stack(stack, credentials=True, stores_required=False)
    state = session.state()

    def previewed(*, refresh: bool) -> tuple[Change, ...]:
        preview = session.engine.preview(session.stack.name, refresh=refresh, config=session.config)
        refusals.refuse(preview, state)
        return changes.of_preview(preview, state)

    pending = previewed(refresh=False)
    return tuple(change for change in previewed(refresh=True) if change not in pending)
