"""`synapse-media switch`: the way from one method or provider to another, as a runbook."""

from __future__ import annotations

import argparse

from synapse_media.renderer import FORMS

from . import programs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints one runbook in the order that loses nothing: what each step needs, what is copied first or "
        "back, how to check it, how to undo it. Changes nothing. Orders that lose media are refused."
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--stack", "-s", metavar="S", help="the stack that is in use; default: the selected one")
    source.add_argument("--store", metavar="FILE", help="a store.json written by `render`")
    parser.add_argument("--server", metavar="NAME", help="the homeserver; needed if the stack has several")
    parser.add_argument(
        "--to",
        required=True,
        metavar="METHOD|PROVIDER",
        help="a method (filesystem: back to the local disk), or a provider: then the method stays",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--to-stack", metavar="S", help="the stack of the new store, if it is made already")
    target.add_argument("--to-store", metavar="FILE", help="the same from a store.json")
    parser.add_argument(
        "--form",
        choices=FORMS,
        default="playbook",
        help="for matrix-docker-ansible-deploy (default), for NixOS, or plain for any other Synapse; kubernetes has no "
        "runbook, and the error says what to do",
    )
    parser.add_argument(
        "--media-path", metavar="PATH", default="", help="Synapse's local media store, if not the usual"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    from synapse_media.runbook import runbook

    from . import stacks, stores

    loaded = [stores.load_file(arguments.store)] if arguments.store else stacks.load(arguments.stack)
    current = stores.choose(loaded, arguments.server)
    target = None
    if arguments.to_store:
        target = stores.load_file(arguments.to_store)
    elif arguments.to_stack:
        target = stores.choose(stacks.load(arguments.to_stack), current.server_name)
    plan = runbook(
        current,
        arguments.to,
        form=arguments.form,
        target=target,
        stack=arguments.stack or "STACK",
        new_stack=arguments.to_stack or "",
        media_path=arguments.media_path,
    )
    print(programs.text(plan.to_json()) if arguments.json else plan, end="\n" if arguments.json else "")
    return 0
