"""`media restore`: from the bucket to the directory what is missing there. What is there is kept as it is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from synapse_media.engine.files import locked
from synapse_media.errors import SynapseMediaError

from .pairs import pairs
from .plan import Amount, Named, Plan
from .rclone import Progress, Rclone, RemoteObject
from .tree import FOLDERS, STAGING, MediaFile, Tree, md5_of, name_fault

RESERVE: Final = 200 << 20
"""Bytes that stay free on the disk."""


class RestoreError(SynapseMediaError):
    """A restore that was not begun, or could not go on. What was restored is whole."""


@dataclass(slots=True)
class Restored:
    """What came of a restore.

    Attributes:
        kept: was on the disk already.
        planned: what was missing; as much of it was written and compared as `restored` says.
        differs: on the disk with another size than in the bucket: kept, and looked into by whoever reads this.
        failed: did not arrive whole.
    """

    kept: Amount = field(default_factory=Amount)
    planned: Amount = field(default_factory=Amount)
    restored: Amount = field(default_factory=Amount)
    differs: Named = field(default_factory=Named)
    failed: Named = field(default_factory=Named)

    @property
    def complete(self) -> bool:
        return not (self.differs.count or self.failed.count)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).to_json() for name in ("kept", "planned", "restored", "differs", "failed")}


def restore(
    tree: Tree,
    rclone: Rclone,
    *,
    only: Callable[[str], bool] = lambda _: True,
    bwlimit: str = "",
    dry_run: bool = False,
    show: Callable[[Progress, Amount], None] = lambda _, __: None,
) -> Restored:
    """Restore what is missing. May be killed at any time and begun anew.

    A file appears in its place only when its content was compared with the object's, with the owner and the mode that
    the media store's files have, and the time that it had when it was copied.

    Args:
        only: whether a path is wanted.
        bwlimit: as rclone takes it, such as 10M.
        show: is told how far it is, and of how much.

    Raises:
        RestoreError: there is too little space, another restore runs, or its owner can't be given to what is written.
        RcloneError: the store can't be listed, or hands out nothing.
    """
    report = Restored()
    with Plan() as plan:
        for file, found in pairs(tree.files(), _wanted(rclone.listing(hashes=True), only)):
            if found is not None:
                _decide(tree, file, found, plan, report)
        report.planned = plan.amount
        if not dry_run and plan.amount.files:
            _require_space(tree, plan.amount)
            manner = Manner.of(tree)
            with _staging(tree) as staging:
                _transfer(tree.path, rclone, plan, report, staging, manner=manner, bwlimit=bwlimit, show=show)
    return report


def _wanted(objects: Iterator[RemoteObject], only: Callable[[str], bool]) -> Iterator[RemoteObject]:
    return (found for found in objects if only(found.path))


def _decide(tree: Tree, file: MediaFile | None, found: RemoteObject, plan: Plan, report: Restored) -> None:
    if file is None:
        # Both come in one order, so the walk is past whatever lies before this path.
        blocked = {left.path: left.why for left in tree.left_out}
        above = next((str(parent) for parent in PurePosixPath(found.path).parents if str(parent) in blocked), "")
        if above:
            report.failed.add(found.path, f"would lie in {above}, which {blocked[above]}")
        elif found.path in blocked:
            report.failed.add(found.path, f"is there as something else, which {blocked[found.path]}")
        elif why := name_fault(found.path):
            report.failed.add(repr(found.path), why)
        else:
            plan.add(found.path, found.size, found.md5 or "")
        return
    report.kept.add(file.size)
    if file.size != found.size:
        report.differs.add(file.path, f"has {file.size} bytes, and its object {found.size}")


def _require_space(tree: Tree, planned: Amount) -> None:
    free = shutil.disk_usage(tree.path).free
    if free < planned.size + RESERVE:
        raise RestoreError(
            f"{tree.path}: {free >> 20} MiB are free, and {planned.files} files of {planned.size >> 20} MiB would be "
            f"restored, with {RESERVE >> 20} MiB left free: nothing was begun. Make room, or restore a part."
        )


@dataclass(frozen=True, slots=True)
class Manner:
    """Whose the media store is, and the modes of its files and directories."""

    uid: int
    gid: int
    file_mode: int
    directory_mode: int

    @classmethod
    def of(cls, tree: Tree) -> Manner:
        """As what is there has it; in an empty one, as the directory itself.

        Raises RestoreError where this user can't write files of that owner.
        """
        root = tree.path.stat()
        folder = next((status for name in FOLDERS if (status := _status(tree.path / name)) is not None), root)
        example = next(tree.files(), None)
        directory_mode = stat.S_IMODE(folder.st_mode)
        file_mode = directory_mode & 0o666
        if example is not None:
            with contextlib.suppress(FileNotFoundError):
                file_mode = stat.S_IMODE((tree.path / example.path).stat().st_mode)
        if os.geteuid() not in (0, folder.st_uid):
            raise RestoreError(
                f"{tree.path} belongs to the user with number {folder.st_uid}, and what this user writes Synapse could "
                "not delete. Run this as root, or as that user."
            )
        return cls(folder.st_uid, folder.st_gid, file_mode, directory_mode)

    def give(self, path: Path, mode: int) -> None:
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)
        path.chmod(mode)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _staging(tree: Tree) -> Iterator[Path]:
    """A directory in the media store for what is not yet compared. What a run that was killed left in it goes."""
    staging = tree.path / STAGING
    staging.mkdir(mode=0o700, exist_ok=True)

    def refuse() -> None:
        raise RestoreError(f"another restore to {tree.path} is running: wait for its end")

    with locked(staging / "lock", refuse):
        arriving = staging / "arriving"
        shutil.rmtree(arriving, ignore_errors=True)
        try:
            yield arriving
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _transfer(
    root: Path,
    rclone: Rclone,
    plan: Plan,
    report: Restored,
    staging: Path,
    *,
    manner: Manner,
    bwlimit: str,
    show: Callable[[Progress, Amount], None],
) -> None:
    # Some releases write several parts of a large file at once, into a file of the final size.
    # Contents are compared below: rclone takes for an MD5 what is none where a key of the user's encrypts.
    options = ("--multi-thread-streams", "0", "--ignore-checksum", *(("--bwlimit", bwlimit) if bwlimit else ()))
    for batch in plan.batches():
        before = Progress(report.restored.files, report.restored.size)

        def shown(progress: Progress, before: Progress = before) -> None:
            show(before + progress, plan.amount)

        staging.mkdir(mode=0o700)
        failed = rclone.copy(rclone.remote(), str(staging), [path for path, _, _ in batch], *options, show=shown)
        arrived = {path: md5 for path, _, md5 in batch if path not in failed}
        doubtful = rclone.etags_may_be_no_md5s
        again = _read_again(
            rclone,
            (path for path, md5 in arrived.items() if not md5 or (doubtful and not _has_md5(staging / path, md5))),
        )
        os.sync()  # what has a name must have its content, too, after a power cut
        for path, size, md5 in batch:
            why = failed.get(path) or _fault(staging / path, size, again.get(path, md5))
            if why:
                report.failed.add(path, why)
            else:
                _put(staging / path, root, path, manner)
                report.restored.add(size)
        shutil.rmtree(staging)


def _has_md5(path: Path, md5: str) -> bool:
    try:
        with path.open("rb") as content:
            return md5 == md5_of(content)
    except OSError:
        return False


def _read_again(rclone: Rclone, paths: Iterable[str]) -> dict[str, str]:
    """{path: MD5} of objects, by reading them a second time."""
    names = list(paths)
    if not names:
        return {}
    lines = rclone.run("md5sum", "--download", "--", rclone.remote(), names=names).splitlines()
    return {path: md5 for md5, _, path in (line.partition("  ") for line in lines)}


def _fault(path: Path, size: int, md5: str) -> str:
    """Why what arrived is not what is in the bucket; "" where it is."""
    try:
        with path.open("rb") as content:
            found = md5_of(content)
            if os.fstat(content.fileno()).st_size != size:
                return "arrived with another size than it has in the bucket"
    except OSError as error:
        return f"can't be read again after it was written: {error.strerror}"
    return "" if md5 == found else "arrived with another content than it has in the bucket"


def _put(arrived: Path, root: Path, path: str, manner: Manner) -> None:
    """Move a file to its place in one step, unless something is there meanwhile."""
    target = root / path
    missing = [parent for parent in target.parents if parent.is_relative_to(root) and not parent.exists()]
    for parent in reversed(missing):
        with contextlib.suppress(FileExistsError):
            parent.mkdir()
            manner.give(parent, manner.directory_mode)
    manner.give(arrived, manner.file_mode)
    try:
        target.hardlink_to(arrived)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        if not target.exists():  # a file system without hard links
            arrived.rename(target)
