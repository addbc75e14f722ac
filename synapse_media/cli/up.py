"""`synapse-media up`: make the stack so, and prove its keys."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from synapse_media import changes
from synapse_media.contract import ContractError
from synapse_media.engine.session import EngineError
from synapse_media.errors import SynapseMediaError

from . import stacks


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "up",
        help="make a stack so, and prove its keys",
        description="Previews, refuses what can lose media unless the stack file's `allow` names it, then "
        "runs `pulumi up`.",
    )
    stacks.add_stack(parser)
    parser.add_argument("--refresh", action="store_true", help="find and mend what was changed by hand")
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.add_argument("--json", action="store_true", help="for programs: what there is then")


def run(arguments: argparse.Namespace) -> int:
    session = stacks.open_stack(arguments.stack, credentials=True, options=arguments.options)
    stacks.quiet_for_json(session, as_json=arguments.json)
    apply(session, refresh=arguments.refresh, yes=arguments.yes, options=arguments.options)
    stacks.show(stacks.outputs_of(session), as_json=arguments.json)
    return 0


def apply(
    session: stacks.Session, *, refresh: bool, yes: bool, options: Sequence[str], allow: Sequence[str] = ()
) -> None:
    """Preview, guard, ask, up.

    Args:
        allow: guards this command may pass beside those of the stack file.
    """
    engine, stack = session.engine, session.stack
    look_again = False
    if not refresh and stacks.was_cut_off(session):
        stacks.say("the last run did not come to its end: looking at the store first")
        try:
            preview = engine.preview(stack.name, refresh=True, options=options)
            refresh = True
        except EngineError as error:
            # A refresh looks where the state says; a store that moves is perhaps not there any more.
            stacks.say(f"that failed, so looking at it after the changes: {error}")
            look_again = True
            preview = engine.preview(stack.name, options=options)
    else:
        preview = engine.preview(stack.name, refresh=refresh, options=options)
    stacks.say_calls(preview)
    found = changes.of_preview(preview)
    stacks.say(changes.in_words(found, changes.warnings(preview)))
    refused = changes.refused(found, [*stack.allow, *allow])
    if refused:
        raise changes.DangerError(changes.refusal(refused, str(stack.path)))
    _refuse_media(session, {x.store for x in found if x.verb == "delete" and changes.is_bucket(x.kind)})
    if found and not yes:
        confirm("Make these changes?")
    if any(changes.is_bucket(change.kind) and change.verb in ("replace", "delete") for change in found):
        stacks.unprotect_allowed(session, ("delete-bucket", "retain-bucket", "replace-bucket"))
    shown = ["--skip-preview", "--suppress-outputs"]  # what it is, was said above; the outputs hold keys
    with stacks.changing(session):
        engine.up(stack.name, [*shown, *(["--refresh"] if refresh else []), *options])
        if look_again:
            apply(session, refresh=True, yes=yes, options=options, allow=allow)
        engine.clear_pending_creates(stack.name)


def _refuse_media(session: stacks.Session, ending: set[str]) -> None:
    """Look before anything goes: the plugin would be refused the bucket when Synapse's key is gone already.

    Args:
        ending: the homeservers whose bucket would be deleted.
    """
    if not ending:
        return
    # What may go with its media is in state, as the last `up` left it; there is nothing else to go by any more.
    buckets = stacks.buckets_of(session.engine.export(session.stack.name))
    kept = {urn.rpartition("::")[2] for urn, item in buckets.items() if not item.get("inputs", {}).get("forceDestroy")}
    try:
        stores = stacks.outputs_of(session)
    except ContractError:
        return  # nothing was finished, so nothing was handed out
    full = [x.server_name for x in stores if x.server_name in ending & kept and x.bucket and stacks.holds_media(x)]
    if full:
        raise SynapseMediaError(
            f"nothing was changed: the bucket of {', '.join(full)} holds media and is not deleted. Undo this change of "
            f"the store, put <homeserver>/retain-bucket (leaves the bucket where it is) or <homeserver>/delete-media "
            f"(deletes the media for good) into synapse-media:allow in {session.stack.path}, and run `up`. Then make "
            "the change again."
        )


def confirm(question: str) -> None:
    """Ask on a terminal; elsewhere `--yes` has to say it."""
    if not sys.stdin.isatty():
        raise SynapseMediaError("nothing was changed: this is no terminal to ask on. Add --yes.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise SynapseMediaError("nothing was changed")
