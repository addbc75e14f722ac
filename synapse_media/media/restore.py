"""`media restore`: from the bucket to the directory what is missing there. What is there is kept as it is."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from synapse_media.engine.files import locked
from synapse_media.errors import SynapseMediaError

from .bucket import Bucket, RemoteObject
from .mounts import below
from .pairs import pairs
from .plan import FULL, Amount, Named, Plan
from .rclone import READING, Progress, Rclone, RcloneError, without_room
from .root import Root
from .tree import FOLDERS, STAGING, MediaFile, Tree, md5_of, name_fault
from .verify import READ_BACK, etags_of, parts_of

if TYPE_CHECKING:
    from .database import Known

_AT_ONCE: Final = 1000
_BYTES_AT_ONCE: Final = 1 << 30
"""Files that rclone is handed at once, and the bytes with which that is enough: what arrived is compared and put in its
place after them, so a run that is stopped loses as much at most."""
RESERVE: Final = 200 << 20
"""Bytes that stay free on a disk; a twentieth of a small one."""
_OTHER_CONTENT: Final = "arrived with another content than it has in the bucket"
_COMPARED_WITH_ITSELF: Final = (
    "its ETag is no checksum of this content by any part size that programs use: it was uploaded in another way, or "
    "encrypted by a key of your own, or is damaged in the bucket. Read twice, it was the same"
)
_ETAG: Final = re.compile(r"[0-9a-f]{32}(?:-[0-9]+)?")
"""One that may be of MD5s."""
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)
_NO_UNNAMED_FILES: Final = (errno.ENOTSUP, errno.EISDIR, errno.EINVAL)
_IN_THE_WAY: Final = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)


class RestoreError(SynapseMediaError):
    """A restore that was not begun, or could not go on. What was restored is whole."""


@dataclass(slots=True)
class Restored:
    """What came of a restore.

    Attributes:
        kept: was on the disk already.
        planned: what was missing; as much of it was written and compared as `restored` says.
        unchecked: of those restored, the ones whose content could be compared with itself alone.
        differs: on the disk with another size than in the bucket: kept, and looked into by whoever reads this.
        failed: did not arrive whole.
        missing: local media that is wanted by name, and neither here nor in the bucket.
        renewable: the same of thumbnails, which Synapse makes anew, and of remote media, which it fetches again.
    """

    kept: Amount = field(default_factory=Amount)
    planned: Amount = field(default_factory=Amount)
    restored: Amount = field(default_factory=Amount)
    unchecked: Named = field(default_factory=Named)
    differs: Named = field(default_factory=Named)
    failed: Named = field(default_factory=Named)
    missing: Named = field(default_factory=Named)
    renewable: Named = field(default_factory=Named)

    @property
    def complete(self) -> bool:
        return not (self.differs.count or self.failed.count or self.missing.count)

    def to_json(self) -> dict[str, Any]:
        names = ("kept", "planned", "restored", "unchecked", "differs", "failed", "missing", "renewable")
        return {name: getattr(self, name).to_json() for name in names}


def restore(
    tree: Tree,
    bucket: Bucket,
    *,
    known: Collection[Known] | None = None,
    bwlimit: str = "",
    dry_run: bool = False,
    show: Callable[[Progress, Amount], None] = lambda _, __: None,
) -> Restored:
    """Restore what is missing. May be killed at any time and begun anew.

    A file appears in its place only when its content was compared with the object's, with the owner and the mode that
    the media store's files have, and the time that it had when it was copied.

    Args:
        known: the files that are wanted, as the database has them; None: all that the bucket has.
        bwlimit: as rclone takes it, such as 10M.
        show: is told how far it is, and of how much.

    Raises:
        RestoreError: there is too little space, another restore runs, its directory is not this user's alone, or the
            media store's owner can't be given to what is written.
        RcloneError: the store can't be listed, or hands out nothing.
    """
    report, rclone = Restored(), bucket.rclone()
    wanted = None if known is None else {path: each.size for each in known for path in (each.path, each.former)}
    with Plan() as plan:
        for file, found in pairs(tree.files(), _wanted(bucket.media(), wanted)):
            if found is not None:
                _decide(tree, file, found, plan, report, size=(wanted or {}).get(found.path))
        report.planned, unfinished = plan.amount, tuple(tree.unfinished)
        if dry_run or not (plan.amount.files or unfinished or os.path.lexists(tree.path / STAGING)):
            return report
        manner = Manner.of(tree) if plan.amount.files else None
        with Root(tree.path) as root, staging(root) as arriving:
            # Nobody else restores to this directory now: whoever began these was killed.
            for path in unfinished:
                _remove(root, path)
            if manner is not None:
                # What was left there is gone, and does not count.
                _require_space(tree, plan)
                _transfer(root, rclone, plan, report, arriving, manner=manner, bwlimit=bwlimit, show=show)
    return report


def find_missing(tree: Tree, known: Iterable[Known], report: Restored) -> None:
    """Name after a restore what the database knows, and neither the directory nor the bucket has."""
    failed = {path for path, _ in report.failed.first}
    for each in known:
        places = [path for path in (each.path, each.former) if path]
        if not failed & set(places) and not any((tree.path / path).is_file() for path in places):
            found = report.renewable if each.thumbnail or each.origin else report.missing
            found.add(each.path, "the database knows it, and neither this directory nor the bucket has it")


def _remove(root: Root, path: str) -> None:
    """Remove what a restore that was killed left: an empty directory, or a file."""
    with contextlib.suppress(OSError):
        root.remove_directory(path)
        return
    with contextlib.suppress(OSError):
        with root.opened(path) as descriptor:
            status = os.fstat(descriptor)
        root.unlink(path, status.st_dev, status.st_ino, status.st_ctime_ns)


def _wanted(objects: Iterator[RemoteObject], paths: Collection[str] | None) -> Iterator[RemoteObject]:
    return objects if paths is None else (found for found in objects if found.path in paths)


def _decide(
    tree: Tree, file: MediaFile | None, found: RemoteObject, plan: Plan, report: Restored, *, size: int | None
) -> None:
    """Plan what is missing here.

    Args:
        size: what the database has of it; None where that is not known.
    """
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
        elif size is not None and found.size != size:
            report.failed.add(found.path, f"is damaged: it has {found.size} bytes there, and {size} by the database")
        else:
            plan.add(found.path, found.size, found.etag if _ETAG.fullmatch(found.etag) else "")
        return
    report.kept.add(file.size)
    if file.size != found.size:
        report.differs.add(file.path, f"has {file.size} bytes, and its object {found.size}")


def _require_space(tree: Tree, plan: Plan) -> None:
    """Raise RestoreError where a disk has too little space for its part: the media store's, or one mounted below.

    Everything arrives on the media store's own. What belongs to another disk is removed there after each batch.
    """
    here = tree.path.stat().st_dev
    mounted: dict[str, int] = {}
    places = {here: tree.path}
    # The deepest first.
    for place in sorted(below(tree.path), key=lambda place: -len(place.parts)):
        with contextlib.suppress(OSError):  # one that can't be looked at, or is gone
            device = mounted[f"{place.relative_to(tree.path)}/"] = place.stat().st_dev
            places.setdefault(device, place)
    amounts = {device: Amount() for device in places}
    most = 0
    for batch in plan.batches():
        passing = 0
        for path, size, _ in batch:
            over = next((folder for folder in mounted if path.startswith(folder)), None)
            amounts[here if over is None else mounted[over]].add(size)
            # Even what is mounted from the same disk is copied there.
            passing += 0 if over is None else size
        most = max(most, amounts[here].size + passing)
    for device, amount in amounts.items():
        wanted = max(most, amount.size) if device == here else amount.size
        if not wanted:
            continue
        disk = shutil.disk_usage(places[device])
        reserve = min(RESERVE, disk.total // 20)
        if disk.free < wanted + reserve:
            raise RestoreError(
                f"{places[device]}: {disk.free >> 20} MiB are free, and {wanted >> 20} MiB would be written there, "
                f"with {reserve >> 20} MiB left free: nothing was begun. Make room, or restore a part."
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
        folder = next((status for name in FOLDERS if (status := _directory(tree.path / name)) is not None), root)
        example = next(tree.files(), None)
        directory_mode = stat.S_IMODE(folder.st_mode)
        if example is None:
            # That of an empty disk may be everybody's.
            directory_mode &= ~(stat.S_ISVTX | stat.S_IWOTH)
        file_mode = directory_mode & 0o666
        if example is not None:
            with contextlib.suppress(FileNotFoundError):
                status = (tree.path / example.path).lstat()
                if stat.S_ISREG(status.st_mode):
                    file_mode = status.st_mode & 0o777
        if os.geteuid() not in (0, folder.st_uid):
            raise RestoreError(
                f"{tree.path} belongs to the user with number {folder.st_uid}, and what this user writes Synapse could "
                "not delete. Run this as root, or as that user."
            )
        return cls(folder.st_uid, folder.st_gid, file_mode, directory_mode)

    @property
    def owner(self) -> tuple[int, int] | None:
        """(uid, gid) to give to what is written; None where it is this user's anyway."""
        return (self.uid, self.gid) if os.geteuid() == 0 else None

    def give(self, content: int) -> None:
        """Owner and mode to an open file."""
        if self.owner is not None:
            os.fchown(content, *self.owner)
        os.fchmod(content, self.file_mode)


def _directory(path: Path) -> os.stat_result | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status if stat.S_ISDIR(status.st_mode) else None


@contextlib.contextmanager
def staging(root: Root) -> Iterator[Path]:
    """A directory in the media store for what is not yet compared. What a run that was killed left in it goes.

    The user to whom the media store belongs can rename it, but not reach into it: the path leads there by its open
    descriptor, whatever has its name meanwhile. Raises RestoreError where another restore uses it, or it is not ours.
    """
    shown = root.directory / STAGING

    def refuse() -> None:
        raise RestoreError(f"another restore to {root.directory} is running: wait for its end")

    def unfit(why: str) -> RestoreError:
        return RestoreError(f"{shown} {why}: nothing was begun. Look what it is, delete it, and run this again.")

    with root.make_directories(STAGING, mode=0o700, owner=None) as above, contextlib.ExitStack() as opened:
        # It was recognised before the bucket was listed, and a link may have been put above it since.
        if (opened_at := Path(f"/proc/self/fd/{above}").readlink()) != root.directory:
            raise RestoreError(
                f"{root.directory} leads to another directory than at the beginning, {opened_at}: nothing was begun. "
                "Look who changes the directories above the media store, and run this again."
            )
        with contextlib.suppress(FileExistsError):
            os.mkdir(STAGING, 0o700, dir_fd=above)
        try:
            descriptor = os.open(STAGING, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            raise unfit(f"is no directory that can be opened ({error.strerror})") from None
        opened.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise unfit(f"belongs to the user with number {status.st_uid}, not to the one that runs this")
        if status.st_mode & 0o077:
            raise unfit(f"has the mode {stat.S_IMODE(status.st_mode):04o}, which lets others in")
        # By the number of this process, so that rclone finds it, too.
        place = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        try:
            opened.enter_context(locked(place / "lock", refuse))
        except OSError as error:
            raise unfit(f"has in it a lock that can't be opened ({error.strerror})") from None
        arriving = place / "arriving"
        shutil.rmtree(arriving, ignore_errors=True)
        try:
            yield arriving
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
            (place / "lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                os.rmdir(STAGING, dir_fd=above)


def _transfer(
    root: Root,
    rclone: Rclone,
    plan: Plan,
    report: Restored,
    arriving: Path,
    *,
    manner: Manner,
    bwlimit: str,
    show: Callable[[Progress, Amount], None],
) -> None:
    # Some releases write several parts of a large file at once, into a file of the final size.
    # Contents are compared below: rclone takes for an MD5 what is none where a key of the user's encrypts.
    options = ["--multi-thread-streams", "0", "--ignore-checksum"]
    # What waits for its share of the bandwidth would be taken for a line that stalls.
    options += ["--bwlimit", bwlimit] if bwlimit else READING
    for batch in plan.batches(_AT_ONCE, _BYTES_AT_ONCE):
        before = Progress(report.restored.files, report.restored.size)

        def shown(progress: Progress, before: Progress = before) -> None:
            show(before + progress, plan.amount)

        arriving.mkdir(mode=0o700)
        failed = rclone.copy(rclone.remote(), str(arriving), [path for path, _, _ in batch], *options, show=shown)
        arrived = {path: _content(arriving / path, size, etag) for path, size, etag in batch if path not in failed}
        again = _read_again(
            rclone,
            # An ETag that looks like an MD5 is one, but for those providers where a key of the user's may encrypt.
            (
                path
                for path, _, etag in batch
                if path in arrived
                and not arrived[path].why
                and not arrived[path].fits
                and ("-" in etag or not etag or rclone.etags_may_be_no_md5s)
            ),
        )
        os.sync()  # what has a name must have its content, too, after a power cut
        for path, size, _ in batch:
            here = arrived.get(path) or _Arrived(why=failed[path])
            why = here.why or ("" if here.fits else _unlike(here, again.get(path)))
            why = why or _put(arriving / path, root, path, manner, here.md5)
            if why:
                report.failed.add(path, why)
                continue
            report.restored.add(size)
            if not here.fits:
                report.unchecked.add(path, _COMPARED_WITH_ITSELF)
        if full := without_room(failed):
            # Nothing of what is left would arrive either.
            raise _no_room(root.directory / full, failed[full])
        shutil.rmtree(arriving)


def _read_again(rclone: Rclone, paths: Iterable[str]) -> dict[str, str | RcloneError]:
    """{path: MD5, or why there is none} of objects, by reading them a second time."""
    left, found = iter(paths), dict[str, str | RcloneError]()
    while names := list(islice(left, READ_BACK)):
        try:
            found |= rclone.md5s(names)
        except RcloneError as error:
            # What the listing has a hash of arrived all the same.
            found |= dict.fromkeys(names, error)
    return found


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A file that arrived.

    Attributes:
        fits: whether the object's ETag is that of this content.
        why: it is not what is in the bucket; "" where nothing speaks against it.
    """

    md5: str = ""
    fits: bool = False
    why: str = ""


def _content(path: Path, size: int, etag: str) -> _Arrived:
    try:
        with path.open("rb") as content:
            if os.fstat(content.fileno()).st_size != size:
                return _Arrived(why="arrived with another size than it has in the bucket")
            etags = etags_of(content.fileno(), parts_of(etag, size))
    except OSError as error:
        return _Arrived(why=f"can't be read again after it was written: {error.strerror}")
    return _Arrived(etags[0], etag in etags.values())


def _unlike(here: _Arrived, there: str | RcloneError | None) -> str:
    """Why what arrived is not what was read a second time, or was not to be; "" where it is."""
    if isinstance(there, RcloneError):
        return f"arrived, and can't be read a second time to be compared: {there}"
    return "" if there == here.md5 else _OTHER_CONTENT


def _put(arrived: Path, root: Root, path: str, manner: Manner, md5: str) -> str:
    """Move a file to its place in one step, unless something is there meanwhile; why it could not, or ""."""
    name = path.rpartition("/")[2]
    try:
        with (
            root.make_directories(path, mode=manner.directory_mode, owner=manner.owner) as folder,
            arrived.open("rb") as content,
        ):
            manner.give(content.fileno())
            try:
                return _name(content.fileno(), str(arrived), folder, name)
            except OSError as error:
                # Another file system is mounted below the media store.
                if error.errno != errno.EXDEV:
                    raise
                return _copy(content, folder, name, manner, md5)
    except ValueError as error:
        return str(error)
    except OSError as error:
        if error.errno in FULL:
            raise _no_room(root.directory / path, error.strerror or "") from None
        why = ": a part of its path is a symbolic link or a file, or was removed meanwhile"
        return f"could not be put in its place ({error.strerror}){why if error.errno in _IN_THE_WAY else ''}"


def _no_room(place: Path, why: str) -> RestoreError:
    return RestoreError(
        f"{place} could not be written: {why}. What was restored before is whole. Make room on its file system, and "
        "run this again."
    )


def _name(content: int, source: str, folder: int, name: str) -> str:
    """Give an open file its name in an open directory, unless something of that name is there; why it could not, or "".

    Args:
        source: its path, or its name in the same directory, for a file system without hard links.
    """
    try:
        # By the descriptor: whatever has the name of the source meanwhile, this is the file that was compared.
        os.link(f"/proc/self/fd/{content}", name, dst_dir_fd=folder)
        return ""
    except OSError as error:
        if error.errno not in (errno.EEXIST, *_NO_LINKS):
            raise
        is_taken = error.errno == errno.EEXIST
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        if is_taken:
            raise
        os.rename(source, name, src_dir_fd=folder, dst_dir_fd=folder)
        return ""
    # A file of this size was written meanwhile, as by Synapse, which had it from the bucket, too.
    if stat.S_ISREG(there.st_mode) and there.st_size == os.fstat(content).st_size:
        return ""
    return "is there as something else, which was kept"


def _copy(content: BufferedReader, folder: int, name: str, manner: Manner, md5: str) -> str:
    """Copy a file to a directory of another file system, as `_put` moves it; why it could not, or ""."""
    with contextlib.ExitStack() as opened:
        temporary = f"{STAGING}-{secrets.token_hex(8)}"
        try:
            # Without a name, nothing of it stays if this is killed.
            descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
            opened.callback(_unlink, temporary, folder)
        copied = opened.enter_context(os.fdopen(descriptor, "wb"))
        shutil.copyfileobj(content, copied)
        copied.flush()
        os.fsync(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(descriptor, "rb", closefd=False) as again:
            if md5_of(again) != md5:
                return _OTHER_CONTENT
        manner.give(descriptor)
        status = os.fstat(content.fileno())
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        return _name(descriptor, temporary, folder, name)


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
