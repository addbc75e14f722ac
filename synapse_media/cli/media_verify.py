"""`synapse-media media verify` and `free`: is it in the bucket, by content; and what may go from the disk."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse_media.contract import StorageOutputs
from synapse_media.errors import UsageError
from synapse_media.homeserver import synapse
from synapse_media.methods import MEDIA_REPO

from . import media_progress, programs
from .abort_uploads import age
from .terminal import counted

if TYPE_CHECKING:
    from synapse_media.media.bucket import Bucket
    from synapse_media.media.database import Database
    from synapse_media.media.free import Freed
    from synapse_media.media.homeserver import Homeserver
    from synapse_media.media.verify import Result

_KINDS = {
    "verified": "the same in the bucket",
    "missing": "not in the bucket",
    "different": "other content in the bucket",
    "unreadable": "could not be compared",
    "recent": "written a moment ago; left for the next run",
    "left_out": "can't be copied",
    "extra": "in the bucket and not here, as after `media free`",
    "damaged": "of another size than the database has",
    "lost": "known to the database, and nowhere; Synapse makes thumbnails anew",
    "elsewhere": "the same, of other servers, from which Synapse fetches it again",
    "orphans": "in the bucket and unknown to the database, as after a purge",
    "unknown": "here and unknown to the database",
}
_OUTCOMES = {
    "young": "kept: used too recently",
    "unverified": "kept: not verified",
    "unknown": "kept: the database does not know them",
    "off": "kept: Synapse stores none of their kind in the bucket",
    "changed": "kept: file or object changed since",
    "gone": "deleted by somebody else meanwhile",
    "failed": "kept: could not be read or deleted",
}


def add_options(parser: Any) -> None:
    parser.add_argument(
        "--config",
        action="append",
        metavar="PATH",
        help="homeserver.yaml and each file that Synapse reads after it, or their directory. copy: refuse unless it "
        f"names this directory, store and prefix. free needs it (default: {synapse.CONFIGURATION}); verify, free and "
        "restore take the database from it",
    )
    parser.add_argument(
        "--database",
        metavar="WHERE",
        help="verify, free, restore: the homeserver's database, where --config has it not: a file of SQLite or "
        "postgresql://USER@HOST/NAME; it is only read",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="verify: leave what was found in this file (SQLite, 0600). free: take it from there instead of verifying "
        "everything now",
    )
    parser.add_argument(
        "--read-all", action="store_true", help="verify: read every object back, whatever checksum the store has"
    )
    parser.add_argument(
        "--older-than", type=age, metavar="AGE", help="free: files that nobody asked for in so long: 30d, 12w"
    )
    parser.add_argument("--delete", action="store_true", help="free: delete them; without it they are only counted")


def verify(arguments: argparse.Namespace, store: StorageOutputs) -> int:
    from synapse_media.media import verify as media
    from synapse_media.media.mounts import refuse_mount
    from synapse_media.media.tree import Tree

    if store.method == MEDIA_REPO:
        return _verify_media_repo(arguments, store)
    media.require_media_of_synapse(store, to_delete=False)
    with (
        database_of(arguments, homeserver_of(arguments, default=False)) as database,
        media_progress.shown(json=arguments.json) as told,
    ):
        # Beside a database it tells something of a directory that was wiped, too.
        tree = Tree(arguments.directory, may_be_empty=database is not None)
        refuse_mount(tree.path)
        found = media.verify(
            tree,
            bucket_of(store),
            database=database,
            report=Path(arguments.report) if arguments.report else None,
            read_all=arguments.read_all,
            say=told.say,
            show=told.show,
        )
    return _told(arguments, store, found)


def _verify_media_repo(arguments: argparse.Namespace, store: StorageOutputs) -> int:
    """By its own database, in which alone the names of its objects are."""
    from synapse_media.media import media_repo
    from synapse_media.media.database import of_option
    from synapse_media.media.mounts import refuse_mount
    from synapse_media.media.tree import Tree
    from synapse_media.renderer import domain

    if not arguments.database or arguments.config or arguments.report:
        raise UsageError(
            f"--store is of the method {MEDIA_REPO}; allowed: --database postgresql://USER@HOST/NAME, which has to "
            "name its own database, without --config and --report"
        )
    tree = Tree(arguments.directory, may_be_empty=True)
    refuse_mount(tree.path)
    with media_progress.shown(json=arguments.json) as told:
        found = media_repo.verify(
            tree,
            bucket_of(store),
            of_option(arguments.database),
            {store.server_name, domain(store.server_name)},
            say=told.say,
            show=told.show,
        )
    return _told(arguments, store, found)


def _told(arguments: argparse.Namespace, store: StorageOutputs, found: Result) -> int:
    print(
        programs.text({**place(arguments, store), **found.to_json()}) if arguments.json else "\n".join(_verified(found))
    )
    return 1 if found.failed else 0


def free(arguments: argparse.Namespace, store: StorageOutputs) -> int:
    from synapse_media.media import free as media
    from synapse_media.media.tree import Tree
    from synapse_media.media.verify import require_media_of_synapse

    from .prove import prove

    require_media_of_synapse(store, to_delete=True)
    if arguments.older_than is None:
        raise UsageError(
            "--older-than is missing; allowed: an age such as 30d, since when nobody asked for a file that goes"
        )
    homeserver = homeserver_of(arguments, default=True)
    if homeserver is None:
        raise UsageError(
            f"--config is missing, and there is no {synapse.CONFIGURATION}; allowed: the homeserver.yaml of this "
            "media, and each file that Synapse reads after it. Nothing is deleted before it names this store."
        )
    with database_of(arguments, homeserver) as database, media_progress.shown(json=arguments.json) as told:
        done = media.free(
            Tree(arguments.directory),
            bucket_of(store),
            homeserver,
            arguments.older_than,
            prove=lambda: prove(store),
            database=database,
            report=Path(arguments.report) if arguments.report else None,
            delete=arguments.delete,
            say=told.say,
            show=told.show,
        )
    print(programs.text({**place(arguments, store), **done.to_json()}) if arguments.json else "\n".join(_freed(done)))
    return 1 if done.failed else 0


def place(arguments: argparse.Namespace, store: StorageOutputs) -> dict[str, str]:
    """What every answer to a program begins with."""
    return {
        "action": arguments.action,
        "server_name": store.server_name,
        "bucket": store.bucket,
        "prefix": store.prefix,
        "directory": arguments.directory,
    }


def homeserver_of(arguments: argparse.Namespace, *, default: bool) -> Homeserver | None:
    if not (arguments.config or default):
        return None  # without the packages that read a configuration
    from synapse_media.media import homeserver

    if arguments.config:
        return homeserver.read(arguments.config)
    return homeserver.read([homeserver.DEFAULT]) if Path(homeserver.DEFAULT).is_dir() else None


@contextlib.contextmanager
def database_of(arguments: argparse.Namespace, homeserver: Homeserver | None) -> Iterator[Database | None]:
    from synapse_media.media.database import Database, of_option

    source = of_option(arguments.database) if arguments.database else homeserver.database() if homeserver else None
    if source is None:
        yield None
        return
    with Database(source) as database:
        yield database


def bucket_of(store: StorageOutputs) -> Bucket:
    from synapse_media.media.bucket import Bucket
    from synapse_media.media.rclone import Rclone
    from synapse_media.store.clients import s3_client

    from .stores import own_key

    return Bucket(store, s3_client(*own_key(store)), lambda: Rclone(store))


def _verified(found: Result) -> Iterator[str]:
    from synapse_media.media.tree import printable
    from synapse_media.media.verify import Found

    for each in fields(found):
        kind = getattr(found, each.name)
        if not isinstance(kind, Found) or not (kind.count or each.name == "verified"):
            continue
        small = f", {kind.thumbnails} of them thumbnails" if kind.thumbnails else ""
        yield f"{counted(kind.count, kind.size)}: {_KINDS[each.name]}{small}"
        if each.name in ("verified", "recent", "extra"):
            continue
        reasons = dict(found.reasons)
        yield from (printable(f"  {path}{f': {reasons[path]}' if reasons.get(path) else ''}") for path in kind.paths)
        if kind.count > len(kind.paths):
            yield f"  … and {kind.count - len(kind.paths)} more: --report keeps all of them"
    if not found.has_database:
        yield "No database was read, so what is lost was not looked for: --config or --database names it."
    yield "FAILED: not everything is in the bucket as it is here" if found.failed else "passed"


def _freed(done: Freed) -> Iterator[str]:
    from synapse_media.media.free import Outcome
    from synapse_media.media.tree import printable

    freed = done.counts[Outcome.FREED]
    yield f"{counted(freed.files, freed.size)}: {'deleted here' if done.deleted else 'to be deleted, with --delete'}"
    if done.quarantined.files:
        yield f"  {done.quarantined.files} of them quarantined: they stay in the bucket, and quarantined"
    for name, words in _OUTCOMES.items():
        count = done.counts[Outcome(name)]
        if count.files:
            yield f"{counted(count.files, count.size)}: {words}"
    yield from (printable(f"  {path}: {why}") for path, why in done.failures)
    if not done.by_database:
        yield "Age is that of the files, since no database was read: reading them may not have changed it (noatime)."
    if done.verification.failed:
        yield "FAILED: not everything is in the bucket as it is here; `media verify` names what is not"
