"""`synapse-media destroy`: give a stack up, as far as its `allow` says so."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from synapse_media.allow import Word, entry, gives_bucket_up, retains_bucket, settles_media, words_of
from synapse_media.errors import SynapseMediaError
from synapse_media.guards import entries
from synapse_media.guards.applied import read as read_applied
from synapse_media.guards.danger import DangerError
from synapse_media.guards.judge import current_names

from . import checkpoints, programs, stacks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A bucket is deleted only where `allow` names <homeserver>/delete-bucket, and only if it is empty "
        "or <homeserver>/delete-media is there too; <homeserver>/retain-bucket gives it up and leaves it where it is."
    )
    stacks.add_stack(parser)
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.add_argument("--json", action="store_true", help="for programs: what became of each bucket")


def run(arguments: argparse.Namespace) -> int:
    session = stacks.open_stack(arguments.stack, credentials=False, options=arguments.options, stores_required=False)
    stacks.quiet_for_json(session, as_json=arguments.json)
    with stacks.alone(session):
        return _destroy(session, arguments)


def _destroy(session: stacks.Session, arguments: argparse.Namespace) -> int:
    engine, stack = session.engine, session.stack
    state = session.state()
    applied = stacks.applied(session, state)
    stacks.refuse_what_is_in_no_state(session)
    at_end = checkpoints.of_destroy(session, state)
    names = current_names(applied, stack.stores)
    words = {name: words_of(name, stack.allow, now) for name, now in names.items()}
    buckets = {bucket.urn: name for name, store in applied.items() for bucket in store.buckets}
    kept = [name for name in buckets.values() if not gives_bucket_up(words[name])]
    for note in entries.of_no_store(stack.allow, stack.stores, state, {}):
        stacks.say(note)
    if kept:
        raise DangerError(
            f"nothing was destroyed: the media of {', '.join(kept)} is protected. Put into synapse-media:allow in "
            f"{stack.path} for each: <homeserver>/retain-bucket (give the bucket up, leave it where it is) or "
            "<homeserver>/delete-bucket (with <homeserver>/delete-media, if there is media in it)."
        )
    stacks.require_credentials_to_delete(session, applied.values())
    to_empty = [store for name, store in applied.items() if not settles_media(words[name])]
    full = [why for store in to_empty for why in (stacks.media_in(session, b, store) for b in store.buckets) if why]
    if full:
        raise SynapseMediaError(
            f"nothing was destroyed: {'; '.join(full)}. Put <homeserver>/delete-media into synapse-media:allow to "
            "delete the media for good, or <homeserver>/retain-bucket in place of delete-bucket to leave it where it "
            "is."
        )
    stacks.refuse_keys_of_others(session, applied.values())
    if not arguments.yes:
        stacks.confirm(f"Destroy stack {stack.name} with the buckets of {', '.join(buckets.values()) or 'no store'}?")
    # To destroy a stack is to say that its keys may go.
    keys = [entry(name, Word.RETIRE_KEY) for name in applied]
    with stacks.opening_state(session, state, keys), stacks.changing(session):
        for store in applied.values():
            stacks.forget_gone_buckets(session, store)
        engine.destroy(stack.name, arguments.options, at_end=at_end)
        engine.clear_pending_creates(stack.name)
    if arguments.json:
        left = {bucket.urn for store in read_applied(session.state()).values() for bucket in store.buckets}
        became = {name: _became(words[name], kept=urn in left) for urn, name in buckets.items()}
        print(programs.text({"buckets": became}))
    return 0


def _became(words: Collection[str], *, kept: bool) -> str:
    """What became of a bucket; with pulumi's --target it may still be there."""
    if kept:
        return "managed"
    return "retained" if retains_bucket(words) else "deleted"
