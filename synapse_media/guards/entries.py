"""What a stack file has that its program does not: stores, and entries of `allow` that name none.

Which stores a program declares is known only after its preview, so that the settings can't tell it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from synapse_media import catalog
from synapse_media.allow import split
from synapse_media.settings import StoreSettings
from synapse_media.urn import Urn

from .applied import Homeservers, is_component, is_ours, resources_of


def notes(
    allow: Collection[str],
    wanted: Mapping[str, StoreSettings],
    state: Mapping[str, Any] | None,
    preview: Mapping[str, Any],
    *,
    whole: bool,
) -> tuple[str, ...]:
    """All warnings of these for one preview.

    Args:
        state: None where it was not read: what it has may be what an entry is of.
        whole: whether the preview is of all resources.
    """
    of_entries = () if state is None else of_no_store(allow, wanted, state, preview)
    return (*of_entries, *(undeclared(wanted, state or {}, preview) if whole else ()))


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
    names = sorted(_there(state, preview) | set(wanted))
    return tuple(_warning(entry, names) for entry in allow if split(entry)[0] not in names)


def undeclared(
    wanted: Mapping[str, StoreSettings], state: Mapping[str, Any], preview: Mapping[str, Any]
) -> tuple[str, ...]:
    """A warning for each store of the stack file that the program made nothing of; as for `of_no_store`.

    Args:
        preview: of all resources.
    """
    there = _there(state, preview)
    return tuple(
        f"the stack file has the store {name}, of which the program makes nothing: {DECLARE}"
        for name, store in wanted.items()
        if store.uses_store and name not in there
    )


DECLARE: Final = (
    "have it declare the stores of its stack file, as docs/library.md says: "
    "publish({name: make(store) for name, store in from_config().items()})"
)


def _there(state: Mapping[str, Any], preview: Mapping[str, Any]) -> set[str]:
    """The stores of which there is something, or will be."""
    resources = resources_of(state)
    steps = preview.get("steps") or ()
    homeservers = Homeservers.of_steps(steps, resources)
    urns = (*(one["urn"] for one in resources), *(step["urn"] for step in steps))
    return {homeservers.of(urn) for urn in urns if is_ours(urn) or is_component(Urn.parse(urn).kind)}


def _warning(entry: str, names: Collection[str]) -> str:
    name, word = split(entry)
    guess = catalog.nearest(name, names)
    next_step = f"Did you mean {guess}/{word}?" if guess else "Remove it if its store is gone."
    return (
        f"synapse-media:allow has {entry}, but this stack has no store {name}; it has {', '.join(names) or 'none'}. "
        f"{next_step}"
    )
