"""`synapse-media rotate`: another key, without a moment in which none works.

The stack file's `keys` line is what is wanted; this edits it, and `up` makes it so. Plain `up` in between keeps both.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, MutableMapping
from typing import Any

from synapse_media import contract, stackfile
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.settings import CONFIRMED, PROJECT, SLOTS, StoreSettings

from . import stacks, up


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "rotate",
        help="replace a store's access key, in two steps",
        description="First a second key is made and proved, and becomes the one that `render` writes; the old one "
        "still works. After Synapse was restarted with it, `--finish` retires the old one.",
    )
    stacks.add_stack(parser, options=False)
    parser.add_argument("--server", metavar="NAME", help="the homeserver; needed if the stack has several")
    parser.add_argument("--finish", action="store_true", help="retire the old key, if nothing uses it any more")
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
            "another at the store, put it into the environment, and run `synapse-media up --refresh`; delete the old "
            "one after Synapse was restarted with the new."
        )
    if arguments.finish:
        return _finish(session, store, arguments)
    if not store.keys.retiring:
        old, new = store.keys.active, next(slot for slot in SLOTS if slot != store.keys.active)
        _write_keys(session.stack, store.server_name, new, [old])
    elif not _active_is_proved(session, store):
        # An earlier run did not get so far.
        old, new = store.keys.retiring[0], store.keys.active
    else:
        raise UsageError(
            f"store {store.server_name} is in the middle of a rotation: keys of slot {store.keys.active} (active) and "
            f"{', '.join(store.keys.retiring)}. Render, restart Synapse, then `synapse-media rotate --finish`."
        )
    try:
        session = stacks.open_stack(arguments.stack, credentials=True)
        stacks.quiet_for_json(session, as_json=arguments.json)
        up.apply(session, refresh=False, yes=arguments.yes, options=[])
    except BaseException:
        if not stacks.was_cut_off(session):
            # Nothing was begun. What was, the next `rotate` goes on with.
            _write_keys(session.stack, store.server_name, store.keys.active, list(store.keys.retiring))
        raise
    _show(session, store, arguments)
    stacks.say(
        f"The key of slot {new} is new and proved; that of slot {old} still works. Now:\n"
        f"  synapse-media render --stack {arguments.stack} --out DIR    and bring the files to the server\n"
        "  restart Synapse\n"
        f"  synapse-media rotate --stack {arguments.stack} --finish"
    )
    return 0


def _key_in(session: stacks.Session, store: StoreSettings, slot: str) -> str:
    """Access key ID of a slot as the state has it; "" if there is none."""
    for resource in session.engine.export(session.stack.name).get("deployment", {}).get("resources") or []:
        if resource["type"].endswith("KeyRing") and resource["urn"].endswith(f"::{store.server_name}"):
            key: Mapping[str, str] = resource.get("outputs", {}).get("keys", {}).get(slot, {})
            return key.get("accessKeyId", "")
    return ""


def _active_is_proved(session: stacks.Session, store: StoreSettings) -> bool:
    """Whether what `render` writes is the key of the active slot, proved."""
    try:
        (found,) = [one for one in stacks.outputs_of(session) if one.server_name == store.server_name]
        found.require_proof()
    except (contract.ContractError, ValueError):
        return False
    return found.access_key_id == _key_in(session, store, store.keys.active)


def _show(session: stacks.Session, store: StoreSettings, arguments: argparse.Namespace) -> None:
    found = [one for one in stacks.outputs_of(session) if one.server_name == store.server_name]
    stacks.show(found, as_json=arguments.json)


def _finish(session: stacks.Session, store: StoreSettings, arguments: argparse.Namespace) -> int:
    if not store.keys.retiring:
        raise UsageError(
            f"store {store.server_name} has one key, in slot {store.keys.active}: nothing is being retired"
        )
    if not _active_is_proved(session, store):
        raise SynapseMediaError(
            f"store {store.server_name}: the key of slot {store.keys.active} is not made and proved yet, so the old "
            f"one stays. Run `synapse-media rotate --stack {session.stack.name}`, render, restart Synapse, then "
            "--finish."
        )
    retiring = list(store.keys.retiring)
    word = f"{store.server_name}/retire-key"
    _write_keys(session.stack, store.server_name, store.keys.active, [])
    try:
        session = stacks.open_stack(session.stack.name, credentials=True)
        stacks.quiet_for_json(session, as_json=arguments.json)
        if arguments.confirm:
            # For this run alone, so not by way of the stack file.
            session.engine.environment[CONFIRMED] = word
        # The guard asks for a word of `allow`; here the plugin itself looks whether the old key is still used.
        up.apply(session, refresh=False, yes=arguments.yes, options=[], allow=[word])
    except BaseException:
        # The old key was not retired: the stack file must go on to say so.
        _write_keys(session.stack, store.server_name, store.keys.active, retiring)
        raise
    stacks.say(f"the key of slot {', '.join(retiring)} of {store.server_name} is retired")
    _show(session, store, arguments)
    return 0


def _choose(stack: stackfile.StackFile, server: str | None) -> StoreSettings:
    stores = {name: store for name, store in stack.stores.items() if store.uses_store}
    if server is None and len(stores) == 1:
        return next(iter(stores.values()))
    if server not in stores:
        raise UsageError(f"--server is {server!r}; the stores of {stack.path}: {', '.join(stores) or 'none'}")
    return stores[server]


def _write_keys(stack: stackfile.StackFile, server_name: str, active: str, retiring: list[str]) -> None:
    with stackfile.editing(stack.path) as document:
        store: MutableMapping[str, Any] = document["config"][f"{PROJECT}:stores"][server_name]
        store["keys"] = {"active": active, "retiring": retiring}
