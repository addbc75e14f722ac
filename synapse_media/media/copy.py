"""`media copy`: from the directory to the bucket what is missing there, or differs. Nothing is deleted anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .bucket import PAGE, Bucket, RemoteObject
from .handover import at_once, handed_over
from .pairs import pairs
from .plan import BATCH, Amount, Named, Plan
from .rclone import Progress, Rclone
from .root import Root
from .tree import MediaFile, Shard, Tree, group, md5_of

MIN_AGE: Final = 60
"""Seconds. A file that was written so short a time ago may not be whole: Synapse writes it in its place."""


@dataclass(slots=True)
class Copied:
    """What came of a copy.

    Attributes:
        same: in the bucket already.
        planned: what was missing or differed; as much of it arrived as `copied` says.
        copied: arrived, and is listed by the store with its size.
        young: written so short a time ago that it may not be whole, so left for the next run.
        changing: was written to while it was read, so left for the next run.
        larger: the bucket has more under its name than the disk, which may be a file that was cut off: left alone.
        uncompared: of the right size, and `checksum` was wanted, but the store does not tell the content's hash.
        failed: did not arrive. Where none of many did, no more were tried.
        left_out: what can't be copied.
    """

    same: Amount = field(default_factory=Amount)
    planned: Amount = field(default_factory=Amount)
    copied: Amount = field(default_factory=Amount)
    young: Amount = field(default_factory=Amount)
    uncompared: Amount = field(default_factory=Amount)
    changing: Named = field(default_factory=Named)
    larger: Named = field(default_factory=Named)
    failed: Named = field(default_factory=Named)
    left_out: Named = field(default_factory=Named)

    @property
    def complete(self) -> bool:
        """Whether everything is in the bucket that can be now: what is young or changing the next run takes."""
        return not (self.failed.count or self.left_out.count or self.larger.count)

    def to_json(self) -> dict[str, Any]:
        amounts = ("same", "planned", "copied", "young", "uncompared")
        named = ("changing", "larger", "failed", "left_out")
        return {name: getattr(self, name).to_json() for name in (*amounts, *named)}


def copy(
    tree: Tree,
    bucket: Bucket,
    *,
    shard: Shard | None = None,
    checksum: bool = False,
    min_age: float = MIN_AGE,
    bwlimit: str = "",
    dry_run: bool = False,
    show: Callable[[Progress, Amount], None] = lambda _, __: None,
) -> Copied:
    """Copy what is missing or differs. May be killed at any time and begun anew; several may run at once.

    An object is taken for the file's where it has its size and was written after it; of another size, it is replaced
    unless it is the larger one.

    Args:
        shard: the part of the media to see to.
        checksum: compare the content's MD5 as well, which reads every file.
        min_age: seconds since a file was written; 0 where nothing writes.
        bwlimit: as rclone takes it, such as 10M.
        show: is told how far it is, and of how much.

    Raises:
        ApiError: the store can't be listed.
        RcloneError: it takes nothing.
    """
    report, rclone = Copied(), bucket.rclone()
    with Plan() as plan, Plan() as arrived, Root(tree.path) as root:
        before = _plan(tree, root, bucket, plan, report, shard=shard, checksum=checksum, min_age=min_age)
        report.planned = plan.amount
        for left in tree.left_out:
            report.left_out.add(left.path, left.why)
        if not dry_run:
            _transfer(root, rclone, plan, arrived, report, bwlimit=bwlimit, show=show)
            if arrived.amount.files:
                _look_again(root, bucket, arrived, report, before)
    return report


def _plan(
    tree: Tree,
    root: Root,
    bucket: Bucket,
    plan: Plan,
    report: Copied,
    *,
    shard: Shard | None,
    checksum: bool,
    min_age: float,
) -> int:
    """How many objects of this media there are."""
    objects = 0
    for file, found in pairs(tree.files(shard=shard), _of(bucket.media(), shard)):
        objects += found is not None
        if file is None:
            continue
        if found is not None and _is_same(root, file, found, report, checksum=checksum):
            report.same.add(file.size)
        elif found is not None and found.size > file.size:
            report.larger.add(file.path, f"has {file.size} bytes, and its object {found.size}")
        elif abs(time.time() - file.modified) < min_age:
            report.young.add(file.size)
        else:
            plan.add(file.path, file.size, repr(file.modified))
    return objects


def _of(objects: Iterator[RemoteObject], shard: Shard | None) -> Iterator[RemoteObject]:
    return objects if shard is None else (found for found in objects if shard.has(found.path))


def _is_same(root: Root, file: MediaFile, found: RemoteObject, report: Copied, *, checksum: bool) -> bool:
    if found.size != file.size:
        return False
    # A time to come tells nothing of when it was written.
    if (checksum or file.modified > time.time() + MIN_AGE) and found.md5:
        try:
            with root.opened(file.path) as descriptor, open(descriptor, "rb", closefd=False) as content:
                return md5_of(content) == found.md5
        except OSError:
            return False  # the copy will say what is wrong with it
    # Many stores tell whole seconds.
    if found.modified < int(file.modified):
        return False
    if checksum:
        report.uncompared.add(file.size)
    return True


_DELETED: Final = (
    "was deleted here while it was uploaded, and the bucket has it all the same: `media verify --database` names what "
    "nobody knows"
)
_REPLACED: Final = (
    "was replaced again while it was uploaded, so that the bucket has its former content: run the command again with "
    "--checksum"
)
_REFUSED: Final = "can't be opened ({}): it can't be read, or a part of its path became a symbolic link"


def _transfer(
    root: Root,
    rclone: Rclone,
    plan: Plan,
    arrived: Plan,
    report: Copied,
    *,
    bwlimit: str,
    show: Callable[[Progress, Amount], None],
) -> None:
    options = ("--bwlimit", bwlimit) if bwlimit else ()
    if rclone.etags_may_be_no_md5s:
        # It compares the answer's ETag. The store itself compares what arrives with the Content-MD5 that it is sent.
        options = (*options, "--ignore-checksum")
    before = Progress()
    for batch in plan.batches(at_once(BATCH)):
        sizes: Mapping[str, int] = {path: size for path, size, _ in batch}
        times = {path: float(modified) for path, _, modified in batch}
        done: dict[str, int] = {}
        # What was replaced meanwhile lies in the bucket with its former content, and is newer there than the file.
        for is_last in (False, True):
            began = before

            def shown(progress: Progress, began: Progress = began) -> None:
                show(began + progress, plan.amount)

            sent = _send(root, rclone, sizes, ("--copy-links", *options), shown)
            refused_by_store = _judge(root, sizes, times, sent, done=done, report=report, is_last=is_last)
            takes_none = bool(sent.names) and refused_by_store == len(sent.names)
            if takes_none or not sent.replaced:
                break
            sizes = sent.replaced
        # In the order of the paths, in which the store lists them.
        for path, _, _ in batch:
            if path in done:
                arrived.add(path, done[path], repr(times[path]))
        if takes_none:
            return  # it takes none of the rest
        before = Progress(arrived.amount.files, arrived.amount.size)


@dataclass(frozen=True, slots=True)
class _Sent:
    """What became of files that were to be uploaded.

    Attributes:
        names: those that could be opened.
        failed: {path: why} of those that did not arrive, opened or not.
        deleted: they are not here any more.
        replaced: {path: size} of those under whose name another file lies by now.
    """

    names: Collection[str]
    failed: Mapping[str, str]
    deleted: Collection[str]
    replaced: Mapping[str, int]


def _send(
    root: Root,
    rclone: Rclone,
    sizes: Mapping[str, int],
    options: Sequence[str],
    show: Callable[[Progress], None],
) -> _Sent:
    with handed_over(root, sizes) as handed:
        failed = {path: _REFUSED.format(error.strerror) for path, error in handed.refused.items()}
        names = tuple(handed.opened)
        failed |= rclone.copy(str(handed.directory), rclone.remote(), names, *options, show=show)
        deleted, replaced = handed.gone(root, names)
    deleted |= {path for path, error in handed.refused.items() if isinstance(error, FileNotFoundError)}
    return _Sent(frozenset(names), failed, deleted, replaced)


def _judge(
    root: Root,
    sizes: Mapping[str, int],
    times: Mapping[str, float],
    sent: _Sent,
    *,
    done: dict[str, int],
    report: Copied,
    is_last: bool,
) -> int:
    """Add what arrived to `done`; how many the store refused.

    What was replaced is left out unless this `is_last`: it is sent once more.

    Args:
        sizes, times: of each path when the plan was made.
    """
    refused_by_store = 0
    for path, size in sizes.items():
        if path in sent.deleted:
            # Synapse deleted it meanwhile.
            if path not in sent.failed:
                report.failed.add(path, _DELETED)
        elif path in sent.replaced:
            if is_last:
                # By size and time the bucket's object would be taken for the file's from now on.
                report.failed.add(path, _REPLACED)
        elif path not in sent.failed:
            done[path] = size
        elif path in sent.names and _was_written(root, path, size, times[path]):
            report.changing.add(path, "was changed while it was read")
        else:
            report.failed.add(path, sent.failed[path])
            refused_by_store += path in sent.names
    return refused_by_store


def _look_again(root: Root, bucket: Bucket, arrived: Plan, report: Copied, before: int) -> None:
    """List once more what was copied: an answer to an upload may be another server's, such as a proxy's.

    Args:
        before: how many objects there were.
    """
    among = _beginnings(arrived, before // PAGE)
    files = (MediaFile(path, size, float(modified), 0) for batch in arrived.batches() for path, size, modified in batch)
    for file, found in pairs(files, bucket.media(among=among)):
        if file is None:
            continue
        if found is not None and found.size == file.size:
            report.copied.add(file.size)
        elif found is not None and _was_written(root, file.path, file.size, file.modified):
            report.changing.add(file.path, "was changed while it was read")
        elif found is None:
            report.failed.add(
                file.path,
                "the upload was answered as if it had arrived, but the store does not list it: check the endpoint and "
                "any proxy in front of it, then run the command again",
            )
        else:
            report.failed.add(
                file.path, f"{file.size} bytes were uploaded, but its object has {found.size}: run the command again"
            )


def _beginnings(arrived: Plan, most: int) -> set[str]:
    """How these paths begin: `local_content/aB`; where there are more such beginnings than `most`, `local_content/`.

    A few files that are new in a large bucket would else cost a listing of all of it once more.
    """
    folders, groups = set[str](), set[str]()
    for batch in arrived.batches():
        for path, _, _ in batch:
            folders.add(f"{path.partition('/')[0]}/")
            if len(groups) <= most:
                groups.add(group(path))
    return groups if len(groups) <= most else folders


def _was_written(root: Root, path: str, size: int, modified: float) -> bool:
    """Whether a file was written to since the plan was made.

    Args:
        modified: when it was last written to before that, in seconds since the epoch.
    """
    try:
        status = (root.directory / path).lstat()
    except OSError:
        return False
    return status.st_size != size or status.st_mtime != modified
