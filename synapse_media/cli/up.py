"""`synapse-media up`: make the stack so, and prove its keys."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from synapse_media import catalog
from synapse_media.allow import Word, settles_media, words_of
from synapse_media.engine.options import has_targets
from synapse_media.engine.session import EngineError
from synapse_media.errors import SynapseMediaError
from synapse_media.guards import changes, entries, refusals
from synapse_media.guards.applied import PROOF, Applied, is_bucket
from synapse_media.guards.changes import Change
from synapse_media.guards.danger import DangerError
from synapse_media.guards.judge import STORE, Verdict, judge, renamed
from synapse_media.settings import StoreSettings
from synapse_media.stackfile import StackFile
from synapse_media.urn import short

from . import checkpoints, stacks, terminal
from . import reviewed as what_was_reviewed

PROOF_KIND = short(PROOF)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Previews, refuses what can lose media unless the stack file's `allow` names it, then runs `pulumi up`."
    )
    stacks.add_stack(parser, several=True)
    parser.add_argument("--refresh", action="store_true", help="find and mend what was changed by hand")
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.add_argument(
        "--reviewed",
        metavar="DIGEST",
        default="",
        help="go on only if the changes are those whose digest `diff` showed",
    )
    # Of several stacks: what would be changed, as one object, and nothing is; asked about once for all.
    parser.add_argument("--review", action="store_true", help=argparse.SUPPRESS)
    stacks.add_ci(parser, "it fails")
    parser.add_argument("--json", action="store_true", help="for programs: what there is then")


def run(arguments: argparse.Namespace) -> int:
    if arguments.ci and (lacks := stacks.access_of(arguments.stack).lacks):
        raise SynapseMediaError(
            f"nothing was changed: the state of {arguments.stack} can't be read: {'; '.join(lacks)}"
        )
    session = stacks.open_stack(arguments.stack, credentials=True, options=arguments.options, stores_required=False)
    stacks.quiet_for_json(session, as_json=arguments.json or arguments.review)
    if arguments.review:
        return _review(session, arguments)
    apply(
        session,
        refresh=arguments.refresh,
        yes=arguments.yes,
        options=arguments.options,
        reviewed=arguments.reviewed,
    )
    # A program that declares its stores may keep them to itself.
    stores = stacks.outputs_of(session, required=bool(session.stack.stores))
    stacks.show(stores, as_json=arguments.json)
    if stores and not arguments.json:
        print(
            "\nNext:\n  # configuration for the homeserver, and how to apply it\n"
            f"  synapse-media render --stack {arguments.stack} --out DIR"
        )
    return 0


class _ReviewedError(Exception):
    """In place of an answer: what would be changed is to be shown elsewhere."""

    def __init__(self, found: Sequence[Change], digest: str) -> None:
        super().__init__()
        self.found, self.digest = found, digest


def _review(session: stacks.Session, arguments: argparse.Namespace) -> int:
    """Everything up to the question, and nothing after it: the changes as `cli.several` asks about them."""

    def ask(_: stacks.Session, found: Sequence[Change], digest: str) -> None:
        raise _ReviewedError(found, digest)

    try:
        apply(session, refresh=arguments.refresh, yes=False, options=arguments.options, ask=ask)
    except _ReviewedError as review:
        lines = [[line.text, line.kind] for line in changes.lines(review.found)]
        print(json.dumps({"digest": review.digest, "lines": lines}))
        return 2
    return 0


def apply(
    session: stacks.Session,
    *,
    refresh: bool,
    yes: bool,
    options: Sequence[str],
    allow: Sequence[str] = (),
    begin: Callable[[], None] = lambda: None,
    reviewed: str = "",
    ask: Callable[[stacks.Session, Sequence[Change], str], None] | None = None,
) -> None:
    """Preview, guard, ask, and do what was previewed.

    Args:
        ask: called with the changes and their digest, in place of the question; whatever it raises is as a refusal.
        reviewed: the digest of the changes that were agreed to; "" for none.
        allow: what this command confirms beside the stack file's `allow`.
        begin: called when everything was agreed to, just before the first change.
    """
    with stacks.alone(session):
        _apply(
            session,
            refresh=refresh,
            yes=yes,
            options=options,
            allow=allow,
            begin=begin,
            reviewed=reviewed,
            ask=ask or _ask,
        )


def _apply(
    session: stacks.Session,
    *,
    refresh: bool,
    yes: bool,
    options: Sequence[str],
    allow: Sequence[str],
    begin: Callable[[], None],
    reviewed: str,
    ask: Callable[[stacks.Session, Sequence[Change], str], None],
) -> None:
    engine, stack = session.engine, session.stack
    cut_off = stacks.was_cut_off(session)
    confirmed = [*allow, *(stacks.resume(session) if cut_off else ())]
    look_again = False
    state = session.state()
    applied = stacks.applied(session, state)
    verdict = _judged(session, applied, confirmed)
    with stacks.opening_state(session, state, confirmed):

        def previewed(refresh: bool, more: Sequence[str] = ()) -> dict[str, Any]:
            return engine.preview(stack.name, refresh, [*options, *more], config=session.config)

        if cut_off and not refresh:
            stacks.say("the last run did not come to its end: looking at the store first")
            try:
                preview = previewed(refresh=True)
                refresh = True
            except EngineError as error:
                # A refresh looks where the state says; a store that moves is perhaps not there any more.
                stacks.say(f"that failed, so looking at it after the changes: {error}")
                look_again = True
                preview = previewed(refresh=False)
        else:
            preview = previewed(refresh)
        judged = stacks.fingerprint(state)
        if stacks.forget_duplicates(session, preview, state):
            judged = stacks.fingerprint(session.state())
            preview = previewed(refresh)
        stacks.say_calls(preview)
        refusals.refuse(preview, state)
        steps = changes.of_preview(preview, state)
        again = [] if has_targets(options) else _to_prove_again(applied, preview, state, steps, cut_off=cut_off)
        if again:
            preview = previewed(refresh, again)
            steps = changes.of_preview(preview, state)
        found = changes.combined(verdict.without_declared(preview, stack.stores).changes, steps, stack.allow)
        terminal.write_changes(changes.lines(found, _notes(stack, state, preview, options)), sys.stderr)
        stacks.refuse_to_leave_behind(session, state, making := checkpoints.making(preview, state))
        _refuse_dangers(stack, found, confirmed)
        digest = what_was_reviewed.require(found, preview, reviewed, stack.name)
        _refuse_what_the_store_has(session, applied, found, steps, preview)
        if (found or cut_off) and not yes:
            stacks.asked_while_closed(session, lambda: ask(session, found, digest), confirmed)
        _say_what_is_slow(session, found)
        at_end = not look_again and checkpoints.of_up(session, preview, state)
        with stacks.changing(session, confirmed, begin, judged, making=making if at_end else None):
            shown = [*(["--refresh"] if refresh else []), *options, *again]
            engine.up(stack.name, shown, config=session.config, at_end=at_end)
            if at_end or cut_off:
                checkpoints.settle(session, preview, everything=cut_off)
            if look_again:
                apply(session, refresh=True, yes=yes, options=options, allow=allow)
            engine.clear_pending_creates(stack.name)


def _refuse_dangers(stack: StackFile, found: Sequence[Change], confirmed: Sequence[str]) -> None:
    """Raise DangerError for what neither `allow` nor the command names."""
    refused = changes.refused(found, [*stack.allow, *confirmed])
    if refused:
        raise DangerError(changes.refusal(refused, str(stack.path)))


def _refuse_what_the_store_has(
    session: stacks.Session,
    applied: Mapping[str, Applied],
    found: Sequence[Change],
    steps: Sequence[Change],
    preview: Mapping[str, Any],
) -> None:
    """Raise where the store has media, keys or buckets that these changes would take away or take over."""
    _refuse_media(session, applied, found, preview)
    _refuse_keys(session, applied, steps)
    stacks.refuse_taken_buckets(session, preview)


def _notes(
    stack: StackFile, state: Mapping[str, Any], preview: Mapping[str, Any], options: Sequence[str]
) -> tuple[str, ...]:
    whole = not has_targets(options)
    return (*changes.warnings(preview), *entries.notes(stack.allow, stack.stores, state, preview, whole=whole))


def _judged(session: stacks.Session, applied: Mapping[str, Applied], confirmed: Sequence[str]) -> Verdict:
    """What the guards say of each store, before anything is asked of the engine.

    Raises DangerError, or SynapseMediaError where a credential that the changes need is missing.
    """
    stack = session.stack
    current = {name: (was, stack.stores.get(name)) for name, was in renamed(applied, stack.stores).items()}
    stacks.require_credentials_to_delete(session, [was for was, will in current.values() if not _stays(will)])
    verdict = judge(applied, stack.stores, [*stack.allow, *confirmed])
    verdict.require()
    for was, will in current.values():
        if _stays(will):
            stacks.require_former_place(session, was, will)
    return verdict


def _ask(session: stacks.Session, found: Sequence[Change], _: str) -> None:
    """Ask whether to go on, and stop where it is no longer what was asked about."""
    if not found:
        return
    reviewed = session.state()
    stacks.confirm("Make these changes?")
    if session.state()["deployment"] != reviewed["deployment"]:
        raise stacks.changed_meanwhile()


def _say_what_is_slow(session: stacks.Session, found: Sequence[Change]) -> None:
    """Pulumi shows what it waits for, but not that so long is usual."""
    for change in found:
        store = session.stack.stores.get(change.store)
        slow = catalog.load(store.provider).value("slow_changes", {}) if store and store.uses_store else {}
        if change.verb in ("create", "update", "replace") and change.kind in slow:
            stacks.say(f"{change.verb} {change.kind} of {change.store} takes {slow[change.kind]}")


def _to_prove_again(
    applied: Mapping[str, Applied],
    preview: Mapping[str, Any],
    state: Mapping[str, Any],
    steps: Sequence[Change],
    *,
    cut_off: bool,
) -> list[str]:
    """Pulumi's options to have the key proved again where its store changes and the proof's own inputs do not: what is
    said at the end is what is then. After a run that was cut off, of every store: it may have changed it, and a proof
    that was killed left a bucket, which the next proof deletes."""
    proved = {step.store for step in steps if step.kind == PROOF_KIND}
    changed = set(applied) if cut_off else {step.store for step in steps if step.verb in _CHANGING}
    changed -= proved
    urns = changes.proofs(preview, state)
    return [word for name in sorted(changed & set(applied) & set(urns)) for word in ("--replace", urns[name])]


_CHANGING = ("create", "update", "replace")


def _stays(store: StoreSettings | None) -> TypeGuard[StoreSettings]:
    return store is not None and store.uses_store


def _refuse_media(
    session: stacks.Session, applied: Mapping[str, Applied], found: Sequence[Change], preview: Mapping[str, Any]
) -> None:
    """Look before anything goes: the plugin would be refused the bucket when Synapse's key is gone already."""
    stack = session.stack
    ending = changes.ending_buckets(preview)
    moving = {
        x.store for x in found if any(danger.word is Word.REPLACE_BUCKET for danger in x.dangers if x.kind == STORE)
    }
    full = []
    for name, was in renamed(applied, stack.stores).items():
        replaced = any(x.verb == "replace" and is_bucket(x.kind) for x in found if x.store == name)
        # Ours sees that in one run it took over what it would then delete; a vendor's plugin does not.
        if replaced and name not in moving and any(bucket.by_vendor for bucket in was.buckets):
            raise DangerError(
                f"nothing was changed: the bucket of {name} would be replaced by one of the same name at the same "
                "place, which is made first and deleted after. Leave the option out that has it replaced."
            )
        if not settles_media(words_of(name, stack.allow)):
            going = (bucket for bucket in was.buckets if (bucket.urn, bucket.name) in ending)
            full += [(name, why) for why in (stacks.media_in(session, bucket, was) for bucket in going) if why]
    if full:
        raise SynapseMediaError(
            f"nothing was changed: {'; '.join(why for _, why in full)}. Undo this change of "
            f"{', '.join(dict.fromkeys(name for name, _ in full))}, or put <homeserver>/retain-bucket (leaves the "
            "bucket where it is, in place of delete-bucket) or <homeserver>/delete-media (deletes the media for good) "
            f"into synapse-media:allow in {stack.path}."
        )


def _refuse_keys(session: stacks.Session, applied: Mapping[str, Applied], steps: Sequence[Change]) -> None:
    """Look before a user goes whose deletion would take keys along that are not this state's."""
    users = {step.store for step in steps if step.kind.endswith("User") and step.verb in ("delete", "replace")}
    now = renamed(applied, session.stack.stores).items()
    stacks.refuse_keys_of_others(session, [was for name, was in now if name in users])
