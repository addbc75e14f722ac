"""Entries of `allow` that name no store of the stack: misspelt, or left from a store that is gone.

Which stores a program declares is known only after its preview, so that the settings can't tell it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from synapse_media import catalog
from synapse_media.allow import split
from synapse_media.urn import Urn

from .applied import Homeservers, is_component, is_ours, resources_of


def of_no_store(
    allow: Collection[str], wanted: Collection[str], state: Mapping[str, Any], preview: Mapping[str, Any]
) -> tuple[str, ...]:
    """A warning for each entry without a store of its name.

    Args:
        allow: entries `<homeserver>/<word>` of the stack file.
        wanted: the stack file's stores.
        state: what `pulumi stack export` printed before.
        preview: what `pulumi preview --json` prints; {} where there is none.
    """
    resources = resources_of(state)
    steps = preview.get("steps") or ()
    homeservers = Homeservers.of_steps(steps, resources)
    urns = (*(one["urn"] for one in resources), *(step["urn"] for step in steps))
    there = {homeservers.of(urn) for urn in urns if is_ours(urn) or is_component(Urn.parse(urn).kind)}
    names = sorted(there | set(wanted))
    return tuple(_warning(entry, names) for entry in allow if split(entry)[0] not in names)


def _warning(entry: str, names: Collection[str]) -> str:
    name, word = split(entry)
    guess = catalog.nearest(name, names)
    next_step = f"Did you mean {guess}/{word}?" if guess else "Remove it if its store is gone."
    return (
        f"synapse-media:allow has {entry}, but this stack has no store {name}; it has {', '.join(names) or 'none'}. "
        f"{next_step}"
    )
