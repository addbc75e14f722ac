"""`synapse-media media copy` and `restore`: to the bucket, and back."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from synapse_media.contract import StorageOutputs
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.methods import MEDIA_REPO

from . import media_progress, media_verify, programs, terminal

if TYPE_CHECKING:
    from synapse_media.media.bucket import Bucket
    from synapse_media.media.copy import Copied
    from synapse_media.media.database import Known
    from synapse_media.media.plan import Named
    from synapse_media.media.restore import Restored
    from synapse_media.media.tree import Tree

_NAMED = 20
"""Paths of a kind that are named to people."""


def add_options(parser: Any) -> None:
    parser.add_argument(
        "--shard", metavar="N/M", help="copy: part N of M, so that M servers with the same directory share the work"
    )
    parser.add_argument(
        "--bwlimit", metavar="RATE", type=_rate, help="copy, restore: at most so much a second: 500K, 10M"
    )
    parser.add_argument(
        "--checksum", action="store_true", help="copy: compare content, too, where size and time are as they should be"
    )
    parser.add_argument(
        "--min-age",
        type=_age,
        metavar="SECONDS",
        help="copy: leave for the next run what was written so short a time ago (default: 60); 0 where Synapse is "
        "stopped",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--user", metavar="@U:S", help="restore: what this user uploaded; needs the database")
    only.add_argument("--room", metavar="ID", help="restore: what this room's events show; needs the database")
    parser.add_argument("--dry-run", "-n", action="store_true", help="copy, restore: only say what would be done")


def _rate(text: str) -> str:
    if not re.fullmatch(r"[0-9]+(?:\.[0-9]+)?[KMG]", text) or float(text[:-1]) == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no rate; allowed: a number and K, M or G, KiB, MiB or GiB a second"
        )
    return text


def _age(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no age; allowed: seconds, from 0")
    return int(text)


def copy(arguments: argparse.Namespace, store: StorageOutputs) -> int:
    from synapse_media.media import copy as media
    from synapse_media.media.mounts import refuse_mount
    from synapse_media.media.tree import Shard, Tree

    _refuse_media_repo(store, "export_synapse_for_import of the old repository, and gdpr_import of the new one")
    shard = Shard.parse(arguments.shard) if arguments.shard else None
    tree = Tree(arguments.directory)
    refuse_mount(tree.path)
    _refuse_media_of_another(arguments, store, tree)
    with _explained(store), media_progress.shown(json=arguments.json) as told:
        done = media.copy(
            tree,
            media_verify.bucket_of(store),
            shard=shard,
            checksum=arguments.checksum,
            min_age=media.MIN_AGE if arguments.min_age is None else arguments.min_age,
            bwlimit=arguments.bwlimit or "",
            dry_run=arguments.dry_run,
            show=told.show,
        )
    if arguments.json:
        print(
            programs.text(
                {
                    **media_verify.place(arguments, store),
                    "dry_run": arguments.dry_run,
                    **done.to_json(),
                    "unknown": list(tree.unknown),
                }
            )
        )
    else:
        print("\n".join([*_copied(done, dry_run=arguments.dry_run), *_beside(tree.unknown)]))
    return 0 if done.complete else 1


def restore(arguments: argparse.Namespace, store: StorageOutputs) -> int:
    from synapse_media.media import restore as media
    from synapse_media.media.tree import Tree

    _refuse_media_repo(store, "gdpr_export of it, and import_to_synapse")
    tree = Tree(arguments.directory, may_be_empty=True)
    if (arguments.config or arguments.database) and not (arguments.user or arguments.room):
        raise UsageError(
            f"{'--config' if arguments.config else '--database'} is for --user or --room: without them, restore takes "
            "all that the bucket has. What the database knows and nobody has is told by `media verify`."
        )
    known = _known(arguments, store)
    bucket = media_verify.bucket_of(store)
    with _explained(store), media_progress.shown(json=arguments.json) as told:
        done = media.restore(
            tree,
            bucket,
            known=known,
            bwlimit=arguments.bwlimit or "",
            dry_run=arguments.dry_run,
            show=told.show,
        )
        if known is None and not (done.planned.files or done.kept.files or done.failed.count):
            _refuse_media_elsewhere(bucket)
    if not arguments.dry_run:
        media.find_missing(tree, known or (), done)
    if arguments.json:
        print(programs.text({**media_verify.place(arguments, store), "dry_run": arguments.dry_run, **done.to_json()}))
    else:
        print("\n".join(_restored(done, dry_run=arguments.dry_run)))
    return 0 if done.complete else 1


def _refuse_media_elsewhere(bucket: Bucket) -> None:
    """Raise SynapseMediaError where a bucket holds objects, and no media where this store has it."""
    from synapse_media.methods import MEDIA_FOLDERS
    from synapse_media.store.objects import media_elsewhere

    prefix = bucket.store.prefix
    found = media_elsewhere(bucket.client, bucket.store.bucket, [f"{prefix}{folder}" for folder in MEDIA_FOLDERS])
    if found is not None:
        there = "" if found.prefix is None else f"; there is media under the prefix {found.prefix!r}"
        raise SynapseMediaError(
            f"nothing was restored: {bucket.said} holds objects, and no media under the prefix {prefix!r} of this "
            f"store{there}. Is it the store.json of this homeserver?"
        )


def _refuse_media_repo(store: StorageOutputs, programs_of_it: str) -> None:
    if store.method == MEDIA_REPO:
        raise UsageError(
            f"{store.server_name}: {MEDIA_REPO} keeps its media under names of its own, and has programs for it: "
            f"{programs_of_it}. `synapse-media switch` prints the way, with its commands."
        )


def _refuse_media_of_another(arguments: argparse.Namespace, store: StorageOutputs, tree: Tree) -> None:
    """Raise SynapseMediaError where --config says that this is not the directory, the store or the homeserver."""
    if not arguments.config:
        return  # what reads it needs packages that a server need not have
    homeserver = media_verify.homeserver_of(arguments, default=False)
    if homeserver is not None:
        homeserver.require_store(store, tree.path)
        homeserver.require_homeserver(store)


def _known(arguments: argparse.Namespace, store: StorageOutputs) -> tuple[Known, ...] | None:
    """A user's or a room's files as the database knows them; None if all that the bucket has is wanted."""
    if not (arguments.user or arguments.room):
        return None
    with media_verify.database_of(arguments, media_verify.homeserver_of(arguments, default=True)) as database:
        if database is None:
            raise UsageError(
                f"{'--user' if arguments.user else '--room'} needs the homeserver's database: name its homeserver.yaml "
                "with --config, or the database with --database"
            )
        database.require_homeserver(store)
        return tuple(database.of_user(arguments.user) if arguments.user else database.of_room(arguments.room))


@contextlib.contextmanager
def _explained(store: StorageOutputs) -> Iterator[None]:
    """Where rclone failed, ask the store itself: its answer is one that people can act on."""
    from synapse_media.media.rclone import RcloneError
    from synapse_media.store import objects
    from synapse_media.store.clients import s3_client

    from .stores import own_key

    try:
        yield
    except RcloneError:
        objects.look(s3_client(*own_key(store)), store.bucket)
        raise


def _copied(done: Copied, *, dry_run: bool) -> Iterator[str]:
    amount = done.planned if dry_run else done.copied
    yield f"{terminal.counted(amount.files, amount.size)}: {'to be copied' if dry_run else 'copied'}"
    yield f"{terminal.counted(done.same.files, done.same.size)}: in the bucket already"
    if done.uncompared.files:
        yield (
            f"{terminal.counted(done.uncompared.files, done.uncompared.size)}: of these compared by size and time "
            "alone, since the store does not tell their hash; `media verify` reads them"
        )
    if done.young.files:
        yield f"{terminal.counted(done.young.files, done.young.size)}: written a moment ago; left for the next run"
    yield from _named(done.changing, "written to while read; left for the next run")
    yield from _named(done.larger, "larger in the bucket than here: left alone, for the file here may be cut off")
    yield from _named(done.left_out, "left out")
    yield from _named(done.failed, "FAILED")


def _restored(done: Restored, *, dry_run: bool) -> Iterator[str]:
    amount = done.planned if dry_run else done.restored
    yield f"{terminal.counted(amount.files, amount.size)}: {'to be restored' if dry_run else 'restored'}"
    yield f"{terminal.counted(done.kept.files, done.kept.size)}: here already"
    yield from _named(done.unchecked, "restored, and NOT CHECKED against a checksum: look into them")
    yield from _named(done.differs, "here with another size than in the bucket: kept as they are")
    yield from _named(done.failed, "FAILED")
    yield from _named(
        done.renewable, "nowhere: Synapse makes thumbnails anew, and fetches remote media again if its server has it"
    )
    yield from _named(done.missing, "MISSING")


def _named(found: Named, what: str) -> Iterator[str]:
    from synapse_media.media.tree import printable

    if found.count:
        yield f"{found.count} file{'' if found.count == 1 else 's'}: {what}"
        yield from (f"  {printable(path)}: {printable(why)}" for path, why in found.first[:_NAMED])
        if found.count > _NAMED:
            yield f"  … and {found.count - _NAMED} more; --json names up to 1000"


def _beside(unknown: tuple[str, ...]) -> Iterator[str]:
    from synapse_media.media.tree import printable

    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        yield f"beside the media, and not Synapse's: {', '.join(map(printable, unknown[:_NAMED]))}{more}"
