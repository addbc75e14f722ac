"""`synapse-media doctor`: what a stack needs, and what is wrong before anything is tried."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from synapse_media import catalog, stackfile, values
from synapse_media.engine.processes import environment
from synapse_media.engine.session import Engine
from synapse_media.errors import SynapseMediaError
from synapse_media.guards.applied import resources_of
from synapse_media.homeserver import synapse
from synapse_media.methods import MODULE
from synapse_media.settings import StoreSettings

from . import credentials, programs, stacks

_SECRET_NAME = re.compile(
    r"secret|token|passw|grant|private_?key|application_?key$|^ending$",  # "ending": Storj's grants to be revoked
    re.IGNORECASE,
)

ANSWER_SECONDS = 30
"""How long the Python of --synapse-python may take to answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints the permissions the admin credential needs and what is different at the provider, checks "
        "versions and credentials, and looks for secrets in clear in the state. Exit code 1 if something is wrong."
    )
    stacks.add_stack(parser, options=False)
    parser.add_argument(
        "--synapse-python", metavar="FILE", help="the Python that runs Synapse: the versions of both are compared"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    project = stackfile.find_project()
    stack = stackfile.read(project, arguments.stack)
    findings: list[str] = []
    needs: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for name in sorted({store.provider for store in stack.stores.values() if store.uses_store}):
        provider = catalog.load(name)
        known[name] = differences(provider)
        needs[name] = permissions(provider, [store for store in stack.stores.values() if store.provider == name])
    if stack.name != stacks.EMBEDDED:
        for store in stack.stores.values():
            if store.uses_store:
                with stacks.waiting(f"{store.provider}: is the admin credential accepted?"):
                    found = credentials.findings(store)
                findings += [finding for finding in found if finding not in findings]
    findings += state_findings(Engine(project, (), {}, stacks.say, stack.secrets_provider), stack.name)
    if arguments.synapse_python:
        findings += module_findings(arguments.synapse_python)
    elif any(store.method == MODULE for store in stack.stores.values()):
        stacks.say(f"{MODULE} was not looked at: --synapse-python FILE names the Python that runs Synapse")
    if arguments.json:
        print(programs.text({"needs": needs, "known": known, "findings": findings}))
    else:
        for name, need in needs.items():
            print(f"{name}: the admin credential needs")
            print(need["text"])
            print(f"Once everything is made, it may be deleted: {need['afterwards']}\n")
            print(f"{name}: what is different here")
            print("".join(f"  - {line}\n" for line in known[name]))
        print("\n".join(f"wrong: {finding}" for finding in findings) or "nothing wrong was found")
    return 1 if findings else 0


def permissions(provider: catalog.Provider, stores: Collection[StoreSettings]) -> dict[str, str]:
    """{text: what the admin credential must be allowed, afterwards: what deleting it would cost}."""
    need: Mapping[str, Any] = provider.value("admin_permissions", {})
    text = f"  {need.get('what', 'the right to administer buckets and keys')}"
    actions = list(need.get("actions") or [])
    for option, more in (need.get("only_with") or {}).items():
        if any(store.options.get(option) or option in store.allow for store in stores):
            actions += more
    if actions and provider.can("iam"):
        text += "\n" + json.dumps(_policy(actions, need.get("on_all", ()), stores), indent=2)
    elif actions:
        text += "\n  " + ", ".join(actions)
    return {
        "text": text,
        "afterwards": "then nothing can be created, refreshed, rotated or destroyed until there is another; Synapse "
        "goes on with its own key, and `diff` still works.",
    }


def differences(provider: catalog.Provider) -> list[str]:
    """What the catalog knows that an operator meets at this provider: marks, limits, what it lacks, quirks."""
    described = catalog.capabilities()
    lacking = [words for name, words in described.items() if provider.can(name) is False]
    open_questions = [words for name, words in described.items() if provider.can(name) is None]
    key = provider.value("scoped_key")
    return [
        f"a key for the bucket alone: {key['how']}" + (" (no API makes it)" if key["by_api"] is False else ""),
        f"how what is ours is marked: {provider.value('ownership')['what']}",
        *(f"at most {limit['value']} {limit['what']}" for limit in provider.value("limits")),
        *([f"not to be had: {'; '.join(lacking)}"] if lacking else []),
        *([f"only the store itself can tell: {'; '.join(open_questions)}"] if open_questions else []),
        *(f"{quirk['what']}: {quirk['so']}" for quirk in provider.value("quirks")),
    ]


def _policy(actions: Iterable[str], on_all: Collection[str], stores: Collection[StoreSettings]) -> dict[str, Any]:
    """A policy document for the admin: bucket actions on the buckets and their decoys, IAM actions under our path.

    Args:
        on_all: actions that can't be limited to a resource.
    """
    buckets = sorted({store.bucket for store in stores})
    arns = [f"arn:aws:s3:::{name}{rest}" for name in (*buckets, "synapse-media-decoy-*") for rest in ("", "/*")]
    s3 = sorted(action for action in actions if action.startswith("s3:"))
    iam = sorted(action for action in actions if action.startswith("iam:"))
    ours = [f"arn:aws:iam::*:{kind}/synapse-media/*" for kind in ("user", "role", "instance-profile")]
    # A user that was there has any path.
    users = sorted({store.user for store in stores if store.adopt and store.user})
    ours += [f"arn:aws:iam::*:user/{path}{name}" for name in users for path in ("", "*/")]
    other = sorted({*actions, *on_all} - set(s3) - set(iam))
    statements = [("Buckets", s3, arns), ("Identities", iam, ours), ("Other", other, ["*"])]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": sid, "Effect": "Allow", "Action": allowed, "Resource": on}
            for sid, allowed, on in statements
            if allowed
        ],
    }


def state_findings(engine: Engine, stack: str) -> list[str]:
    """Secrets that the stack's state holds in clear text: values under names that must be secret."""
    try:
        export = engine.export(stack) if engine.has_stack(stack) else {}
    except SynapseMediaError as error:
        return [f"the state of {stack} could not be searched for secrets: {error}"]
    return [
        f"the state of {stack} holds {name} of {resource['urn']} in clear text: rotate that key"
        for resource in resources_of(export)
        for name in sorted({name for part in ("inputs", "outputs") for name in _in_clear(resource.get(part) or {})})
    ]


def _in_clear(value: Any, name: str = "", *, secret: bool = False) -> Iterator[str]:
    """The names, with dots between them, of what is named like a secret and is text.

    Args:
        secret: the value is named so, or lies right in a list or an object that is.
    """
    if isinstance(value, str):
        if secret and value:
            yield name
    elif isinstance(value, list):
        for item in value:
            yield from _in_clear(item, name, secret=secret and isinstance(item, str))
    elif isinstance(value, Mapping) and "ciphertext" not in value:
        for key, item in value.items():
            # One with a dot is a homeserver's.
            named = "." not in key and _SECRET_NAME.search(key) is not None
            inside = secret and isinstance(item, str)
            yield from _in_clear(item, f"{name}.{key}" if name else key, secret=named or inside)


def module_findings(python: str) -> list[str]:
    """Whether the module that a Synapse loads is there, and works with that Synapse."""
    code = (
        "import importlib.metadata as m\n"
        f"print(m.version({synapse.MODULE_DISTRIBUTION!r}))\n"
        f"try: print(m.version({synapse.DISTRIBUTION!r}))\n"
        "except m.PackageNotFoundError: pass"
    )
    try:
        answer = subprocess.run(
            [python, "-c", code],
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
            env=environment(),
        )
    except OSError as error:
        return [f"--synapse-python {python}: {error.strerror}"]
    except subprocess.TimeoutExpired:
        return [f"--synapse-python {python}: no answer within {ANSWER_SECONDS} seconds. Is it a Python?"]
    if answer.returncode:
        return [f"{MODULE} is not installed for {python}: Synapse would not start with the rendered file"]
    module, homeserver = [*answer.stdout.split(), "", ""][:2]
    fault = values.pair(values.version(module), values.version(homeserver))
    return [f"--synapse-python {python}: {fault.reason}. {fault.mend}"] if fault else []
