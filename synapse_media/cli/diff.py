"""`synapse-media diff`: what `up` would change, in plain words."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from synapse_media import stackfile
from synapse_media.engine.options import has_targets
from synapse_media.engine.session import Engine, EngineError
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.guards import changes, entries, markdown, refusals
from synapse_media.guards.judge import Verdict, judge

from . import checkpoints, programs, reviewed, stacks, terminal

FORMATS = ("text", "markdown", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A real preview in plain words. Exit code 0: nothing, 2: changes, 3: changes that can lose media "
        "or cut access and that the stack file's `allow` does not name."
    )
    stacks.add_stack(parser, several=True)
    parser.add_argument(
        "--refresh", action="store_true", help="look at the store first: finds what was changed by hand"
    )
    parser.add_argument(
        "--from-nothing",
        action="store_true",
        help="what `up` would make where there is nothing yet: needs no state, no passphrase and no credential",
    )
    stacks.add_ci(parser, "previews from nothing, and says why; with --refresh it fails")
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="text (default); markdown, for a pull request; json"
    )
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="for programs: the same as --format json"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.from_nothing and arguments.refresh:
        raise UsageError("--refresh looks at what there is, --from-nothing supposes that there is nothing: name one")
    if arguments.from_nothing and arguments.options:
        raise UsageError("--from-nothing takes no option of pulumi's: there is nothing yet to choose from")
    try:
        why = _lacking(arguments)
        try:
            stack, verdict, preview, state = _preview(arguments)
        except EngineError as error:
            # Where the machine might have had the credential without a variable, pulumi's answer tells that it has not.
            if not arguments.ci or arguments.refresh or not (perhaps := stacks.access_of(arguments.stack).perhaps):
                raise
            why = [_FROM_NOTHING_SINCE + "; ".join([*perhaps, str(error)])]
            arguments.from_nothing = True
            stack, verdict, preview, state = _preview(arguments)
    except SynapseMediaError as error:
        if arguments.format == "markdown":
            print(markdown.failure(arguments.stack, str(error)))
        raise
    stacks.say_calls(preview)
    found = changes.combined(verdict.changes, changes.of_preview(preview, state), stack.allow)
    refused = changes.refused(found, stack.allow)
    warnings = changes.warnings(preview)
    warnings += entries.notes(stack.allow, stack.stores, state, preview, whole=not has_targets(arguments.options))
    nothing: bool = arguments.from_nothing
    mark = "" if nothing else reviewed.digest(found, preview)
    if arguments.format == "json":
        shown = {
            "stack": arguments.stack,
            "from_nothing": nothing,
            **changes.to_json(found, [*why, *warnings], refused),
            "digest": mark,
        }
        print(programs.text(shown))
    elif arguments.format == "markdown":
        print(markdown.section(arguments.stack, found, [*why, *warnings], refused, from_nothing=nothing, digest=mark))
    else:
        print(f"{markdown.FROM_NOTHING}\n" if nothing else "", end="")
        terminal.write_changes(changes.lines(found, [*why, *warnings]), sys.stdout)
    if refused:
        return 3
    return 2 if found else 0


_FROM_NOTHING_SINCE = "from nothing, since the state can't be read here: "


def _lacking(arguments: argparse.Namespace) -> list[str]:
    """In continuous integration that can't read the state, choose a preview from nothing, and say why.

    Raises SynapseMediaError where the store was to be looked at, or chosen from.
    """
    lacks = stacks.access_of(arguments.stack).lacks if arguments.ci and not arguments.from_nothing else ()
    if not lacks:
        return []
    if arguments.refresh or arguments.options:
        what = "--refresh" if arguments.refresh else "an option of pulumi's"
        raise SynapseMediaError(f"{what} needs the state of {arguments.stack}: {'; '.join(lacks)}")
    arguments.from_nothing = True
    return [_FROM_NOTHING_SINCE + "; ".join(lacks)]


def _preview(
    arguments: argparse.Namespace,
) -> tuple[stackfile.StackFile, Verdict, dict[str, Any], dict[str, Any] | None]:
    """The stack file, what its changes mean for the stores, what the engine says, and the state."""
    if arguments.from_nothing:
        project = stackfile.find_project()
        stack = stackfile.read(project, arguments.stack, stores_required=False)
        stacks.require_extras(stack)
        engine = Engine(project, stack.variables, {}, stacks.say)
        preview = engine.preview_from_nothing(stack.name, stack.variables)
        return stack, Verdict(), preview, None
    session = stacks.open_stack(
        arguments.stack, credentials=arguments.refresh, options=arguments.options, stores_required=False
    )
    state = session.state()
    applied = stacks.applied(session, state)
    verdict = judge(applied, session.stack.stores, session.stack.allow)
    verdict.require()
    preview = session.engine.preview(
        arguments.stack, refresh=arguments.refresh, options=arguments.options, config=session.config
    )
    refusals.refuse(preview, state)
    stacks.refuse_to_leave_behind(session, state, checkpoints.making(preview, state))
    return session.stack, verdict.without_declared(preview, session.stack.stores), preview, state
