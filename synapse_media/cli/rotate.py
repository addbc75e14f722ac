"""`synapse-media rotate`: another key, without a moment in which none works.

The stack file's `keys` line is what is wanted; this edits it, and `up` makes it so. Plain `up` in between keeps both.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from synapse_media import contract, stackfile
from synapse_media.allow import Word, entry
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.guards.applied import Applied, Ring
from synapse_media.guards.applied import read as read_applied
from synapse_media.guards.judge import judge, renamed
from synapse_media.settings import CONFIRMED, PROJECT, SLOTS, Keys, StoreSettings

from . import stacks, up


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "rotate",
        help="replace a store's access key, in two steps",
        description="First a second key is made and proved, and becomes the one that `render` writes; the old one "
        "still works. After Synapse was restarted with it, `--finish` retires the old one.",
    )
    stacks.add_stack(parser, options=False, several=True)
    parser.add_argument("--server", metavar="NAME", help="the homeserver; needed if the stack has several")
    parser.add_argument("--finish", action="store_true", help="retire the old key")
    parser.add_argument("--confirm", action="store_true", help="with --finish: Synapse was restarted with the new key")
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.add_argument("--json", action="store_true", help="for programs: the store with its new key, no secret")


def run(arguments: argparse.Namespace) -> int:
    if arguments.confirm and not arguments.finish:
        raise UsageError("--confirm goes with --finish")
    session = stacks.open_stack(arguments.stack, credentials=True)
    store = _choose(session.stack, arguments.server)
    if store.options.get("keyless"):
        raise UsageError(
            f"store {store.server_name} is keyless: the machine's own role signs, and there is no key to rotate."
        )
    if store.options.get("existing_key"):
        raise UsageError(
            f"store {store.server_name} uses a key of your own (existing_key), which can't be rotated from here: make "
            f"another at the store, put it into the environment and {entry(store.server_name, Word.WIDEN_POLICY)} into "
            f"allow, and run `synapse-media up --refresh --stack {arguments.stack}`; delete the old one after Synapse "
            "was restarted with the new."
        )
    applied = read_applied(session.state())
    judge(applied, session.stack.stores, session.stack.allow).require()
    ring = _ring(session, applied, store)
    if arguments.finish:
        return _finish(session, store, ring, arguments)
    left = _left(ring, store) if ring else []
    if left:
        raise UsageError(
            f"store {store.server_name} is in the middle of a rotation: the key of slot {', '.join(left)} is being "
            f"retired. Go on with `{_command(session.stack, store, '--finish --confirm')}`."
        )
    if not store.keys.retiring:
        _require_active(store, ring, arguments.stack)
        old, new = store.keys.active, next(slot for slot in SLOTS if slot != store.keys.active)
    elif not _active_is_proved(session, store, ring):
        # An earlier run did not get so far.
        old, new = store.keys.retiring[0], store.keys.active
    else:
        raise UsageError(
            f"store {store.server_name} is in the middle of a rotation: keys of slot {store.keys.active} (active) and "
            f"{', '.join(store.keys.retiring)}. Render, restart Synapse, then "
            f"`{_command(session.stack, store, '--finish --confirm')}`."
        )
    stacks.quiet_for_json(session, as_json=arguments.json)
    _apply(session, store, arguments, Keys(new, (old,)))
    _show(session, store, arguments)
    stacks.say(
        f"The key of slot {new} is new and proved; that of slot {old} still works. Now:\n"
        f"  synapse-media render --stack {arguments.stack} --out DIR    and bring the files to the server\n"
        "  restart Synapse\n"
        f"  {_command(session.stack, store, '--finish --confirm')}"
    )
    return 0


def _require_active(store: StoreSettings, ring: Ring | None, stack: str) -> None:
    """Refuse to rotate by a state that is older than the stack file: the store may have other keys than it says."""
    if ring is not None and ring.keys and store.keys.active not in ring.keys:
        raise SynapseMediaError(
            f"stores.{store.server_name}.keys: the state has no key in slot {store.keys.active}, the active one, but "
            f"in {', '.join(sorted(ring.keys))}: it is perhaps an older state. Run `synapse-media up --refresh --stack "
            f"{stack}` first, which looks at the store."
        )


def _apply(
    session: stacks.Session, store: StoreSettings, arguments: argparse.Namespace, keys: Keys, allow: Sequence[str] = ()
) -> None:
    """Make the ring so. The stack file follows when everything was agreed to and the first change is about to be made:
    whoever goes on after a kill finds there what was begun. Where a run ends in an error, it says what the store has.
    """
    name = store.server_name
    _write_keys(session.config, name, keys)
    planned = stacks.reread(session)
    began = False

    def begin() -> None:
        nonlocal began
        _write_keys(session.stack.path, name, keys)
        began = True

    try:
        up.apply(planned, refresh=False, yes=arguments.yes, options=[], allow=allow, begin=begin)
    except BaseException:
        if began:
            _write_keys(session.stack.path, name, _as_they_are(session, store, keys))
        raise


def _as_they_are(session: stacks.Session, store: StoreSettings, wanted: Keys) -> Keys:
    """The keys line of what a rotation has come to: a key that was to go and is still there is not gone."""
    try:
        ring = _ring(session, read_applied(session.state()), store)
    except SynapseMediaError:
        return wanted  # the state can't be read now: the next run goes on with what was begun
    if ring is None or wanted.active not in ring.keys:
        return wanted
    return Keys(wanted.active, tuple(sorted(set(ring.keys) - {wanted.active})))


def _ring(session: stacks.Session, applied: Mapping[str, Applied], store: StoreSettings) -> Ring | None:
    """The store's key ring as the state has it."""
    record = renamed(applied, session.stack.stores).get(store.server_name)
    return record.ring if record else None


def _left(ring: Ring, store: StoreSettings) -> list[str]:
    """Slots with a key that the stack file does not name any more, and that is there yet."""
    return sorted(set(ring.keys) - set(store.keys.slots)) if store.keys.active in ring.keys else []


def _active_is_proved(session: stacks.Session, store: StoreSettings, ring: Ring | None) -> bool:
    """Whether what `render` writes is the key of the active slot, proved."""
    try:
        (found,) = [one for one in stacks.outputs_of(session) if one.server_name == store.server_name]
        found.require_proof()
    except (contract.ContractError, ValueError):
        return False
    return ring is not None and found.access_key_id == ring.keys.get(store.keys.active)


def _show(session: stacks.Session, store: StoreSettings, arguments: argparse.Namespace) -> None:
    found = [one for one in stacks.outputs_of(session) if one.server_name == store.server_name]
    stacks.show(found, as_json=arguments.json)


def _finish(session: stacks.Session, store: StoreSettings, ring: Ring | None, arguments: argparse.Namespace) -> int:
    retiring = list(store.keys.retiring) or (_left(ring, store) if ring else [])
    if not retiring:
        raise UsageError(
            f"store {store.server_name} has one key, in slot {store.keys.active}: nothing is being retired"
        )
    if not _active_is_proved(session, store, ring):
        raise SynapseMediaError(
            f"store {store.server_name}: the key of slot {store.keys.active} is not made and proved yet, so the old "
            f"one stays. Run `{_command(session.stack, store)}`, render, restart Synapse, then "
            "--finish."
        )
    word = entry(store.server_name, Word.RETIRE_KEY)
    if arguments.confirm:
        # For this run alone, so not by way of the stack file.
        session.engine.environment[CONFIRMED] = word
    stacks.quiet_for_json(session, as_json=arguments.json)
    # The guard asks for a word of `allow`; here the plugin itself looks whether the old key is still used.
    _apply(session, store, arguments, Keys(store.keys.active), allow=[word])
    stacks.say(f"the key of slot {', '.join(retiring)} of {store.server_name} is retired")
    _show(session, store, arguments)
    return 0


def _command(stack: stackfile.StackFile, store: StoreSettings, more: str = "") -> str:
    """The command by which this store's rotation goes on."""
    several = sum(one.uses_store for one in stack.stores.values()) > 1
    server = f" --server {store.server_name}" if several else ""
    return f"synapse-media rotate --stack {stack.name}{server} {more}".rstrip()


def _choose(stack: stackfile.StackFile, server: str | None) -> StoreSettings:
    stores = {name: store for name, store in stack.stores.items() if store.uses_store}
    if server is None and len(stores) == 1:
        return next(iter(stores.values()))
    if server not in stores:
        raise UsageError(f"--server is {server!r}; the stores of {stack.path}: {', '.join(stores) or 'none'}")
    return stores[server]


def _write_keys(path: Path, server_name: str, keys: Keys) -> None:
    """Raises SynapseMediaError where the stack file has no such store any more; nothing was written then."""
    with stackfile.editing(path) as document:
        store = ((document.get("config") or {}).get(f"{PROJECT}:stores") or {}).get(server_name)
        if not isinstance(store, MutableMapping):
            raise SynapseMediaError(
                f"{path} has no store {server_name} any more, so its keys line can't be written. Put the store back, "
                "and run this again."
            )
        store["keys"] = {"active": keys.active, "retiring": list(keys.retiring)}
