"""`synapse-media init`: a stack file of one's own, from the provider's example."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from synapse_media import catalog, settings, stackfile
from synapse_media.errors import UsageError
from synapse_media.methods import METHODS

from . import credentials, stacks

_ASKED = {
    "provider": "Provider",
    "server_name": "Server name of the homeserver (example.com or matrix.example.com)",
    "bucket": "Bucket",
    "region": "Region",
    "endpoint": "Endpoint (https://…)",
}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "init",
        help="write a stack file of your own",
        description="Writes stacks/Pulumi.NAME.yaml, checks it and the admin credential, and says what comes next. "
        "Asks for what is missing on a terminal.",
    )
    parser.add_argument("name", metavar="NAME", help="the stack's name, for example prod")
    parser.add_argument("--provider", choices=catalog.names())
    parser.add_argument("--server-name", metavar="HOST", help="the homeserver whose media it is")
    parser.add_argument("--bucket", help="default: made from the server name")
    parser.add_argument("--region")
    parser.add_argument("--endpoint", metavar="URL")
    parser.add_argument("--iam-endpoint", metavar="URL")
    parser.add_argument("--method", choices=tuple(METHODS), default="synapse-s3-storage-provider")
    parser.add_argument("--prefix", help='a folder in the bucket, such as "media/"')
    parser.add_argument(
        "--set", action="append", default=[], metavar="SETTING=VALUE", help="any other setting, its value in YAML"
    )
    parser.add_argument("--adopt", action="store_true", help="the bucket is there already: take it over as it is")
    parser.add_argument("--json", action="store_true", help="for programs: the stack file, what is wrong, what is next")


def run(arguments: argparse.Namespace) -> int:
    project = stackfile.find_project()
    path = stackfile.path_of(project, arguments.name)
    if path.exists() or stackfile.is_example(arguments.name):
        raise UsageError(f"{path} exists already, or is an example's: edit it, or choose another name")
    store = _answers(arguments)
    server_name = str(store.pop("server_name"))
    parsed = settings.parse({server_name: store})
    _write(path, project, server_name, store)
    made = parsed[server_name]
    findings = []
    if made.uses_store:
        with stacks.waiting(f"{made.provider}: is the admin credential accepted?"):
            findings = credentials.findings(made)
    steps = _next(arguments.name, made)
    if arguments.json:
        shown = {"stack": arguments.name, "file": str(path), "findings": findings, "next": steps}
        print(json.dumps(shown, indent=2))
        return 0
    print(f"wrote {path}")
    for finding in findings:
        stacks.say(finding)
    print("Next:\n" + "\n".join(f"  {line}" for line in steps))
    return 0


def _next(name: str, store: settings.StoreSettings) -> list[str]:
    """The commands from here to a configuration."""
    exports = []
    if store.uses_store:
        provider = catalog.load(store.provider)
        required = [variable for variable in provider.admin_variables if variable not in provider.optional_variables]
        exports.append(
            f"export {' '.join(required)}      # `synapse-media doctor --stack {name}` says what it must be allowed"
        )
        if provider.optional_variables:
            exports.append(f"export {' '.join(provider.optional_variables)}      # optional")
    return [
        f"synapse-media diff --stack {name}      # what would be made",
        *exports,
        f"synapse-media up --stack {name}        # make it, and prove the key",
        f"synapse-media render --stack {name} --out DIR",
    ]


def _answers(arguments: argparse.Namespace) -> dict[str, Any]:
    provider = catalog.load(arguments.provider or _ask("provider", ""))
    server_name = arguments.server_name or _ask("server_name", "")
    bucket = arguments.bucket or _bucket_of(server_name)
    store: dict[str, Any] = {"server_name": server_name, "provider": provider.name, "bucket": bucket}
    if provider.value("endpoint_from_account", False):
        # Nothing is asked for; what is said is compared with the account's.
        store |= {name: said for name in ("region", "endpoint") if (said := getattr(arguments, name))}
    else:
        region = arguments.region or str(provider.value("default_region", "")) or _ask("region", "", provider.regions)
        store["region"] = region
        if arguments.endpoint or not provider.endpoint(region):
            store["endpoint"] = arguments.endpoint or _ask("endpoint", "")
    if arguments.iam_endpoint:
        store["iam_endpoint"] = arguments.iam_endpoint
    store["method"] = arguments.method
    if arguments.prefix:
        store["prefix"] = arguments.prefix
    if arguments.adopt:
        store["adopt"] = True
    for pair in arguments.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set is {pair!r}; allowed: SETTING=VALUE, the value in YAML")
        store[name] = stackfile.scalar(value)
    return store


def _bucket_of(server_name: str) -> str:
    plain = "".join(letter if letter.isalnum() else "-" for letter in server_name.lower())
    return f"{plain}-media"


def _ask(name: str, default: str, allowed: tuple[str, ...] = ()) -> str:
    """Ask on a terminal; elsewhere say which flag is missing."""
    flag = "--" + name.replace("_", "-")
    if not sys.stdin.isatty():
        hint = f"; allowed: {', '.join(allowed)}" if allowed else ""
        raise UsageError(f"{flag} is missing, and this is no terminal to ask on{hint}")
    if allowed:
        print(", ".join(allowed))
    return input(f"{_ASKED[name]}: ").strip() or default


def _write(path: Path, project: Path, server_name: str, store: dict[str, Any]) -> None:
    """The example of the provider (of its family, for a preset) with this store in it, comments kept."""
    names = (str(store["provider"]), catalog.load(str(store["provider"])).component)
    examples = [stackfile.path_of(project, name.replace("_", "-")) for name in names]
    example = next((place for place in examples if place.exists()), None)
    key = f"{settings.PROJECT}:stores"
    with stackfile.editing(path, like=example) as document:
        if example is None:
            document["config"] = {key: {server_name: store}}
            return
        stores = document["config"][key]
        stores.insert(0, server_name, stores.pop(next(iter(stores))))
        # The example's endpoint, prefix and the like are its own.
        for name in [name for name in stores[server_name] if name not in store and name not in ("access", "keys")]:
            del stores[server_name][name]
        stores[server_name].update(store)
