"""`synapse-media media`: the media that is there already. On the server it needs the store.json, boto3 and rclone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

from synapse_media.contract import StorageOutputs
from synapse_media.errors import UsageError
from synapse_media.methods import METHODS

from . import media_copy, media_verify

_OPTIONS: Mapping[str, frozenset[str]] = {
    "copy": frozenset({"config", "shard", "bwlimit", "checksum", "min_age", "dry_run"}),
    "verify": frozenset({"config", "database", "report", "read_all"}),
    "free": frozenset({"config", "database", "report", "older_than", "delete"}),
    "restore": frozenset({"config", "database", "user", "room", "bwlimit", "dry_run"}),
}
"""{action: the options that only some actions have, by their names in the namespace}."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "copy: what is missing or differs in the bucket. verify: whether all of it is there, by content. "
        "free: delete old local files that were verified. restore: what is missing on the disk. Run it on "
        "the server, with the store.json that `render` left there, as root or as the user of Synapse; rclone does the "
        "transfers."
    )
    parser.add_argument("action", choices=tuple(_OPTIONS))
    parser.add_argument("directory", metavar="DIR", help="Synapse's media store: media_store_path in homeserver.yaml")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--stack", "-s", metavar="S", help="the store of a stack; default: the selected one")
    source.add_argument("--store", metavar="FILE", help="a store.json written by `render`")
    parser.add_argument("--server", metavar="NAME", help="the homeserver; needed if the stack has several")
    parser.add_argument("--json", action="store_true", help="for programs")
    media_copy.add_options(parser)
    media_verify.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    _refuse_foreign_options(arguments)
    _require_utf8()
    actions: Mapping[str, Callable[[argparse.Namespace, StorageOutputs], int]] = {
        "copy": media_copy.copy,
        "verify": media_verify.verify,
        "free": media_verify.free,
        "restore": media_copy.restore,
    }
    return actions[arguments.action](arguments, _store(arguments))


def _require_utf8() -> None:
    """Raise UsageError where this locale has another encoding for names: keys of objects are UTF-8."""
    encoding = sys.getfilesystemencoding()
    if encoding.lower() != "utf-8":
        raise UsageError(
            f"names of files have the encoding {encoding} in this locale; allowed: UTF-8, as the names of objects. Set "
            "LC_ALL=C.UTF-8, and run this again."
        )


def _refuse_foreign_options(arguments: argparse.Namespace) -> None:
    given = {name for names in _OPTIONS.values() for name in names if getattr(arguments, name) not in (None, False)}
    if foreign := sorted(given - _OPTIONS[arguments.action]):
        words = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise UsageError(f"media {arguments.action} has no option {words}. `synapse-media help media` lists them.")


def _store(arguments: argparse.Namespace) -> StorageOutputs:
    from . import stores

    if arguments.store:
        loaded = [stores.load_file(arguments.store)]
    else:
        from . import stacks

        loaded = stacks.load(arguments.stack)
    store = stores.choose(loaded, arguments.server)
    if not METHODS[store.method].uses_store:
        raise UsageError(f"{store.server_name}: {store.method} uses no store")
    return store
