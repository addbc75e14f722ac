"""Write rendered files, and compare them with those on disk: the only module of the renderer with file access.

All files are first written to temporary files in their directories, and then renamed. If a rename fails, those done are
reverted; a signal waits. Only regular files are opened, and links are not followed.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from synapse_media.errors import SynapseMediaError

from . import quoting

MASK = "<secret>"


class WriteError(SynapseMediaError):
    """Files could not be written. No file was changed, or the message names those that were."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run, as paths relative to the output directory."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]


def write(files: Mapping[str, str], out_dir: Path) -> Report:
    """Write files with mode 0600, and new directories with 0700. A file with the same text is not written.

    Raises:
        WriteError: the disk is full, a place can't be written …; then nothing was changed.
    """
    with _undisturbed():
        return _write(files, out_dir)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Have a signal wait until some kilobytes are written. SIGTERM and SIGHUP would end the process in between, with
    files of two runs in their places and copies of secrets beside them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread alone
        return
    received: list[int] = []

    def note(number: int, _: object) -> None:
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {
        number: signal.signal(number, note)
        for number in numbers
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def _write(files: Mapping[str, str], out_dir: Path) -> Report:
    changed = {path: text for path, text in files.items() if not _has(out_dir / _safe(path), text)}
    staged: list[tuple[Path, Path]] = []
    made: list[Path] = []
    former: list[tuple[Path, Path | None]] = []
    try:
        for path, text in changed.items():
            target = out_dir / path
            _make_directories(target.parent, made)
            staged.append((_stage(target, text), target))
        for temporary, target in staged:
            _put(temporary, target, former)
        for directory in {target.parent for _, target in staged}:
            _sync(directory)
    except OSError as error:
        left = _put_back(former)
        _clear(staged, made)
        said = f"{error.filename or out_dir}: {error.strerror or error}. "
        if left:
            raise WriteError(
                f"{said}Some files are there already and could not be put back: {', '.join(map(str, left))}. Mend that "
                "and run it again before you use any."
            ) from None
        raise WriteError(
            f"{said}No file was changed. Fix that or choose another directory, and run it again."
        ) from None
    except BaseException:
        _put_back(former)
        _clear(staged, made)
        raise
    for _, kept in former:
        if kept is not None:
            kept.unlink()
    for path in files:
        # An unchanged file may have been created with wider permissions.
        if path not in changed and (out_dir / path).stat().st_mode & 0o077:
            (out_dir / path).chmod(0o600)
    return Report(written=tuple(changed), unchanged=tuple(path for path in files if path not in changed))


def others(files: Iterable[str], out_dir: Path, below: str) -> tuple[str, ...]:
    """The files in the directory `below` that are not in `files`, perhaps left by another method or form."""
    known = set(files)
    found = (str(path.relative_to(out_dir)) for path in (out_dir / below).rglob("*") if path.is_file())
    return tuple(sorted(path for path in found if path not in known))


def read(path: Path) -> str | None:
    """The text of a file; None if there is none, or a link, which `write` replaces with a file.

    Raises:
        WriteError: it can't be read, or is not a regular file (a directory, a FIFO, a device, a socket).
    """
    try:
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            return None
        if not stat.S_ISREG(kind):
            raise WriteError(f"{path} is {_kind(kind)}, and a file has to be there. No file was changed. Move it away.")
        # In case it is another thing by now, which would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            # A file of ours is some kilobytes, and one that is larger is none: no more is needed to tell.
            return file.read(_LONGEST).decode("utf-8", errors="backslashreplace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        mend = "Correct its permissions" if isinstance(error, PermissionError) else "Choose another directory"
        raise WriteError(f"{path} can't be read: {error.strerror}. No file was changed. {mend}.") from None


_LONGEST = 1 << 22


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_it, name in kinds if is_it(mode)), "a device")


def _has(path: Path, text: str) -> bool:
    """Whether a file has this text and no other hard link.

    Changing the mode of a file with other links would change it there too, so such a file is replaced.
    """
    return read(path) == text and path.stat().st_nlink == 1


def _safe(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise WriteError(f"{path} would lie outside of the output directory")
    return path


def _make_directories(directory: Path, made: list[Path]) -> None:
    if directory.is_dir():
        return
    _make_directories(directory.parent, made)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        made.append(directory)


def _stage(target: Path, text: str) -> Path:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _clear(staged: Iterable[tuple[Path, Path]], made: list[Path]) -> None:
    for temporary, _ in staged:
        temporary.unlink(missing_ok=True)
    for directory in reversed(made):
        with contextlib.suppress(OSError):
            directory.rmdir()


def _put(temporary: Path, target: Path, former: list[tuple[Path, Path | None]]) -> None:
    """Put a file in its place, and note in `former` where that is, and under what name the former one is kept."""
    kept: Path | None = None
    if target.is_symlink() or target.exists():
        kept = temporary.with_name(f"{temporary.name}.former")
        try:
            os.link(target, kept, follow_symlinks=False)
        except OSError:
            # No hard links here, or not of somebody else's file: then it is away for a moment.
            target.rename(kept)
    former.append((target, kept))
    temporary.replace(target)


def _put_back(former: Iterable[tuple[Path, Path | None]]) -> list[Path]:
    """Undo `_put`; what could not be put back."""
    left: list[Path] = []
    for target, kept in former:
        try:
            if kept is None:
                target.unlink(missing_ok=True)
            else:
                kept.replace(target)
                # Two names of one file are left as they are by that.
                kept.unlink(missing_ok=True)
        except OSError:
            left.append(target)
    return left


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def difference(
    files: Mapping[str, str],
    out_dir: Path,
    secrets: Iterable[str] = (),
    *,
    reveal: Callable[[str], str] = str,
) -> str:
    """The changes that `write` would make, as a unified diff with secrets masked; "" if there are none.

    A changed secret shows as a changed line that is masked on both sides.

    Args:
        secrets: values to mask everywhere. The values of keys with names like those of secrets are masked too, since
            the file on disk may have an older secret.
        reveal: maps the text on disk to the text to compare, to decrypt a file.
    """
    hidden = tuple(secrets)
    parts: list[str] = []
    for path, text in files.items():
        before = read(out_dir / _safe(path))
        if before is not None:
            before = reveal(before)
        if before != text:
            parts += _unified(path, before, text, hidden)
    return "".join(f"{line}\n" for line in parts)


def _unified(path: str, before: str | None, after: str, secrets: tuple[str, ...]) -> list[str]:
    old, new = _lines(before or ""), _lines(after)
    shown_old, shown_new = masked(old, secrets), masked(new, secrets)
    lines = [f"--- {path if before is not None else '/dev/null'}", f"+++ {path}"]
    # Compared unmasked and shown masked, so that a new secret shows as a change.
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(2):
        lines.append(_hunk(group))
        for tag, from_old, to_old, from_new, to_new in group:
            if tag == "equal":
                lines += [f" {line}" for line in shown_old[from_old:to_old]]
                continue
            lines += [f"-{line}" for line in shown_old[from_old:to_old]]
            lines += [f"+{line}" for line in shown_new[from_new:to_new]]
    return lines


def _hunk(group: list[tuple[str, int, int, int, int]]) -> str:
    ranges = ((group[0][1], group[-1][2]), (group[0][3], group[-1][4]))
    # An empty range is denoted by the line before it.
    old, new = (f"{start + (start != end)},{end - start}" for start, end in ranges)
    return f"@@ -{old} +{new} @@"


def _lines(text: str) -> list[str]:
    *whole, rest = text.split("\n")
    return [*whole, f"{rest}\n\\ No newline at end of file"] if rest else whole


_SECRET_KEY = re.compile(
    r"""[\w.-]*(?:secret|passw|token|private_?key|customer_key)[\w.-]*["']?\s*[:=]\s*(?P<value>.*)""", re.IGNORECASE
)
# Values without a secret: nothing, an empty string, the header of a block scalar, a reference.
_TELLS_NOTHING = re.compile(r"""(?:(?:""|'')?,?|(?:!\w+\s+)?[|>][-+0-9]*)\s*$|"\{\{ lookup\('""")


def masked(lines: list[str], secrets: Iterable[str] = ()) -> list[str]:
    """The same number of lines, masked: known secrets, and all lines of the values of keys named like secrets."""
    values = sorted({form for secret in secrets if secret for form in _forms(secret)}, key=len, reverse=True)
    result: list[str] = []
    within: int | None = None
    quote = ""
    for line in lines:
        if not line.strip():
            result.append(line)
            continue
        indent = len(line) - len(line.lstrip())
        if quote or (within is not None and indent > within):
            quote = "" if quote and _ends(line, quote) else quote
            result.append(MASK)
            continue
        shown = line
        found = _SECRET_KEY.search(line)
        within = indent if found else None
        if found and not _TELLS_NOTHING.match(found["value"]):
            quote = _left_open(found["value"])
            shown = line[: found.start("value")] + MASK
        for value in values:
            shown = shown.replace(value, MASK)
        result.append(shown)
    return result


def _left_open(value: str) -> str:
    """The opening quote of a value that continues on the next line; "" if it does not."""
    quote = re.sub(r"^!\w+\s+", "", value)[:1]
    return quote if quote in ('"', "'") and (len(value) == 1 or not _ends(value, quote)) else ""


def _ends(line: str, quote: str) -> bool:
    return line.rstrip(", \t").endswith(quote) and not line.rstrip(", \t").endswith(f"\\{quote}")


def _forms(secret: str) -> tuple[str, ...]:
    """A secret as written in each rendered syntax, without surrounding quotes."""
    forms = [secret, json.dumps(secret)[1:-1], quoting.yaml("secret", secret)[1:-1]]
    with contextlib.suppress(quoting.RenderError):
        forms.append(quoting.environment("secret", secret).removeprefix('"').removesuffix('"'))
    return tuple(forms)
