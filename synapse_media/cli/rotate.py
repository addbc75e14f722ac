"""`synapse-media rotate`: another key, without a moment in which none works.

The stack file's `keys` line is what is wanted; this edits it, and `up` makes it so. Plain `up` in between keeps both.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from synapse_media import contract, stackfile
from synapse_media.allow import Word, entry
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.guards.applied import Applied, Ring
from synapse_media.guards.applied import read as read_applied
from synapse_media.guards.judge import judge, renamed
from synapse_media.settings import CONFIRMED, PROJECT, SLOTS, Keys, StoreSettings

from . import stacks, up

Proved: TypeAlias = Callable[[], Mapping[str, str]]
"""Of `_proved`, asked once for all stores and only where it matters."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "First a second key is made and proved, and becomes the one that `render` writes; the old one "
        "still works. After Synapse was restarted with it, `--finish` retires the old one."
    )
    stacks.add_stack(parser, options=False, several=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--server", metavar="NAME", help="the homeserver; needed if the stack has several")
    which.add_argument("--all", action="store_true", help="every store of the stack that has keys of its own")
    parser.add_argument("--finish", action="store_true", help="retire the old key")
    parser.add_argument("--confirm", action="store_true", help="with --finish: Synapse was restarted with the new key")
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.add_argument("--json", action="store_true", help="for programs: the store with its new key, no secret")


def run(arguments: argparse.Namespace) -> int:
    if arguments.confirm and not arguments.finish:
        raise UsageError("--confirm goes with --finish")
    session = stacks.open_stack(arguments.stack, credentials=True)
    chosen = _choose(session.stack, arguments)
    applied = read_applied(session.state())
    judge(applied, session.stack.stores, session.stack.allow).require()
    step = _old_key_goes if arguments.finish else _new_key_comes
    proved = cache(lambda: _proved(session))
    wanted: dict[str, Keys] = {}
    for store in chosen:
        try:
            _require_own_keys(session.stack, store)
            wanted[store.server_name] = step(session, store, _ring(session, applied, store), proved)
        except UsageError as nothing_to_do:
            if not arguments.all:
                raise
            stacks.say(f"left out: {nothing_to_do}")
    stacks.quiet_for_json(session, as_json=arguments.json)
    if wanted and arguments.finish:
        _finish(session, wanted, arguments)
    elif wanted:
        _begin(session, wanted, arguments)
    _show(session, wanted, arguments)
    return 0


def _require_own_keys(stack: stackfile.StackFile, store: StoreSettings) -> None:
    """Raise UsageError where the store has no key of ours."""
    if store.options.get("keyless"):
        raise UsageError(
            f"store {store.server_name} is keyless: the machine's own role signs, and there is no key to rotate."
        )
    if store.options.get("existing_key"):
        raise UsageError(
            f"store {store.server_name} uses a key of your own (existing_key), which can't be rotated from here: make "
            f"another at the store, put it into the environment and {entry(store.server_name, Word.WIDEN_POLICY)} into "
            f"allow, and run `synapse-media up --refresh --stack {stack.name}`; delete the old one after Synapse "
            "was restarted with the new."
        )


def _new_key_comes(session: stacks.Session, store: StoreSettings, ring: Ring | None, proved: Proved) -> Keys:
    """The keys with a new one beside the old. Raises UsageError where a rotation has begun already."""
    left = _left(ring, store) if ring else []
    if left:
        raise UsageError(
            f"store {store.server_name} is in the middle of a rotation: the key of slot {', '.join(left)} is being "
            f"retired. Go on with `{_command(session.stack, store, '--finish --confirm')}`."
        )
    if not store.keys.retiring:
        _require_active(store, ring, session.stack.name)
        return Keys(next(slot for slot in SLOTS if slot != store.keys.active), (store.keys.active,))
    if not _active_is_proved(store, ring, proved):
        # An earlier run did not get so far.
        return Keys(store.keys.active, (store.keys.retiring[0],))
    raise UsageError(
        f"store {store.server_name} is in the middle of a rotation: keys of slot {store.keys.active} (active) and "
        f"{', '.join(store.keys.retiring)}. Render, restart Synapse, then "
        f"`{_command(session.stack, store, '--finish --confirm')}`."
    )


def _begin(session: stacks.Session, wanted: Mapping[str, Keys], arguments: argparse.Namespace) -> None:
    _apply(session, wanted, arguments)
    for name, keys in wanted.items():
        of = "" if len(session.stack.stores) == 1 else f" of {name}"
        stacks.say(f"The key of slot {keys.active}{of} is new and proved; that of slot {keys.retiring[0]} still works.")
    more = "--all --finish --confirm" if arguments.all else "--finish --confirm"
    finish = _command(session.stack, session.stack.stores[next(iter(wanted))], more, every=arguments.all)
    stacks.say(
        "Now:\n"
        f"  synapse-media render --stack {arguments.stack} --out DIR    and bring the files to the server\n"
        "  restart Synapse\n"
        f"  {finish}"
    )


def _require_active(store: StoreSettings, ring: Ring | None, stack: str) -> None:
    """Refuse to rotate by a state that is older than the stack file: the store may have other keys than it says."""
    if ring is not None and ring.keys and store.keys.active not in ring.keys:
        raise SynapseMediaError(
            f"stores.{store.server_name}.keys: the state has no key in slot {store.keys.active}, the active one, but "
            f"in {', '.join(sorted(ring.keys))}: it is perhaps an older state. Run `synapse-media up --refresh --stack "
            f"{stack}` first, which looks at the store."
        )


def _apply(
    session: stacks.Session, wanted: Mapping[str, Keys], arguments: argparse.Namespace, allow: Sequence[str] = ()
) -> None:
    """Make the rings so. The stack file follows when everything was agreed to and the first change is about to be made:
    whoever goes on after a kill finds there what was begun. Where a run ends in an error, it says what the store has.
    """
    _write_keys(session.config, wanted)
    planned = stacks.reread(session)
    began = False

    def begin() -> None:
        nonlocal began
        _write_keys(session.stack.path, wanted)
        began = True

    try:
        up.apply(planned, refresh=False, yes=arguments.yes, options=[], allow=allow, begin=begin)
    except BaseException:
        if began:
            _write_keys(session.stack.path, found := _as_they_are(session, wanted))
            if len(found) > 1:
                # Pulumi ends at the first failure, and says nothing of those that were done before.
                for name, keys in found.items():
                    done = "done" if keys == wanted[name] else "not done"
                    stacks.say(
                        f"{name}: {done}; keys: active {keys.active}, retiring {', '.join(keys.retiring) or 'none'}"
                    )
        raise


def _as_they_are(session: stacks.Session, wanted: Mapping[str, Keys]) -> dict[str, Keys]:
    """The keys lines of what a rotation has come to: a key that was to go and is still there is not gone."""
    try:
        applied = read_applied(session.state())
    except SynapseMediaError:
        return dict(wanted)  # the state can't be read now: the next run goes on with what was begun
    found = {}
    for name, keys in wanted.items():
        ring = _ring(session, applied, session.stack.stores[name])
        has = ring.keys if ring else {}
        former = [slot for slot in keys.retiring if slot in has]
        if keys.active in has:
            found[name] = Keys(keys.active, tuple(sorted(set(has) - {keys.active})))
        elif former:
            # The new key was not made, and perhaps never can be: no other change of the stack may wait for it.
            found[name] = Keys(former[0])
            stacks.say(f"stores.{name}.keys is put back to slot {former[0]}: there is no new key")
        else:
            found[name] = keys
    return found


def _ring(session: stacks.Session, applied: Mapping[str, Applied], store: StoreSettings) -> Ring | None:
    """The store's key ring as the state has it."""
    record = renamed(applied, session.stack.stores).get(store.server_name)
    return record.ring if record else None


def _left(ring: Ring, store: StoreSettings) -> list[str]:
    """Slots with a key that the stack file does not name any more, and that is there yet."""
    return sorted(set(ring.keys) - set(store.keys.slots)) if store.keys.active in ring.keys else []


def _active_is_proved(store: StoreSettings, ring: Ring | None, proved: Proved) -> bool:
    """Whether what `render` writes is the key of the active slot, proved."""
    key = proved().get(store.server_name)
    return ring is not None and key is not None and key == ring.keys.get(store.keys.active)


def _proved(session: stacks.Session) -> dict[str, str]:
    """{homeserver: the access key ID that `render` writes}, of those whose proof holds."""
    try:
        outputs = stacks.outputs_of(session)
    except contract.ContractError:
        return {}
    found = {}
    for one in outputs:
        with contextlib.suppress(contract.ContractError):
            one.require_proof()
            found[one.server_name] = one.access_key_id
    return found


def _show(session: stacks.Session, wanted: Collection[str], arguments: argparse.Namespace) -> None:
    found = [one for one in stacks.outputs_of(session) if one.server_name in wanted]
    stacks.show(found, as_json=arguments.json)


def _old_key_goes(session: stacks.Session, store: StoreSettings, ring: Ring | None, proved: Proved) -> Keys:
    """The keys without the old one. Raises UsageError where there is none, SynapseMediaError where it is needed yet."""
    if not _retiring(store, ring):
        raise UsageError(
            f"store {store.server_name} has one key, in slot {store.keys.active}: nothing is being retired"
        )
    if not _active_is_proved(store, ring, proved):
        raise SynapseMediaError(
            f"store {store.server_name}: the key of slot {store.keys.active} is not made and proved yet, so the old "
            f"one stays. Run `{_command(session.stack, store)}`, render, restart Synapse, then "
            "--finish."
        )
    return Keys(store.keys.active)


def _retiring(store: StoreSettings, ring: Ring | None) -> list[str]:
    return list(store.keys.retiring) or (_left(ring, store) if ring else [])


def _finish(session: stacks.Session, wanted: Mapping[str, Keys], arguments: argparse.Namespace) -> None:
    applied = read_applied(session.state())
    retiring = {
        name: _retiring(store, _ring(session, applied, store))
        for name, store in session.stack.stores.items()
        if name in wanted
    }
    words = [entry(name, Word.RETIRE_KEY) for name in wanted]
    if arguments.confirm:
        # For this run alone, so not by way of the stack file.
        session.engine.environment[CONFIRMED] = " ".join(words)
    # The guard asks for a word of `allow`; here the plugin itself looks whether the old key is still used.
    _apply(session, wanted, arguments, allow=words)
    for name, slots in retiring.items():
        stacks.say(f"the key of slot {', '.join(slots)} of {name} is retired")


def _command(stack: stackfile.StackFile, store: StoreSettings, more: str = "", *, every: bool = False) -> str:
    """The command by which this store's rotation goes on, or that of every store."""
    several = sum(one.uses_store for one in stack.stores.values()) > 1
    server = f" --server {store.server_name}" if several and not every else ""
    return f"synapse-media rotate --stack {stack.name}{server} {more}".rstrip()


def _choose(stack: stackfile.StackFile, arguments: argparse.Namespace) -> list[StoreSettings]:
    stores = {name: store for name, store in stack.stores.items() if store.uses_store}
    if arguments.all or (arguments.server is None and len(stores) == 1):
        return list(stores.values())
    if arguments.server not in stores:
        raise UsageError(
            f"--server is {arguments.server!r}; the stores of {stack.path}: {', '.join(stores) or 'none'}; all of "
            "them: --all"
        )
    return [stores[arguments.server]]


def _write_keys(path: Path, wanted: Mapping[str, Keys]) -> None:
    """Raises SynapseMediaError where the stack file lacks one of the stores by now; nothing was written then."""
    with stackfile.editing(path) as document:
        stores = (document.get("config") or {}).get(f"{PROJECT}:stores") or {}
        for name, keys in wanted.items():
            store = stores.get(name)
            if not isinstance(store, MutableMapping):
                raise SynapseMediaError(
                    f"{path} has no store {name} any more, so its keys line can't be written. Put the store back, "
                    "and run this again."
                )
            store["keys"] = {"active": keys.active, "retiring": list(keys.retiring)}
