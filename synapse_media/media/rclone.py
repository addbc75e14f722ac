"""rclone as the engine of everything that is transferred: one store as its one remote, configured by environment alone.

Tried with 1.60 (Debian 12) and with the release that `engine/versions.py` pins. The options: https://rclone.org/flags/
and https://rclone.org/s3/.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from synapse_media import catalog
from synapse_media.contract import StorageOutputs
from synapse_media.engine.obtain import Say, obtain_rclone, say_on_stderr
from synapse_media.engine.processes import environment
from synapse_media.errors import StoreError
from synapse_media.redaction import redacted, remember

from .plan import temporary

REMOTE: Final = "store"
TRANSFERS: Final = 32
_VARIABLE: Final = f"RCLONE_CONFIG_{REMOTE.upper()}_"
# What a role is found by, where the machine signs: https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
_OF_A_ROLE: Final = r"AWS_(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|PROFILE|CONFIG_FILE|SHARED_CREDENTIALS_FILE"
_OF_A_ROLE_TOO: Final = r"|ROLE_ARN|ROLE_SESSION_NAME|WEB_IDENTITY_TOKEN_FILE|CONTAINER_\w+|EC2_METADATA_\w+|REGION)"
# That of rclone's own names: as the encoding of both sides it leaves every name as it is. By the sides' own, some names
# with control pictures (␊) or its quotation mark (‛) are others there: https://rclone.org/overview/#encoding.
_ENCODING: Final = "Slash,Ctl,Del,Dot"
_ERRORS: Final = frozenset({"error", "critical", "fatal", "alert", "emergency"})


class RcloneError(StoreError):
    """rclone ended with an error. The message has the last of what it said, without any secret.

    Attributes:
        named: {path: what it said of it first} of the files that it named in errors.
        printed: what it printed on standard output all the same.
    """

    def __init__(self, message: str, named: Mapping[str, str] | None = None, printed: str = "") -> None:
        super().__init__(message)
        self.named = dict(named or {})
        self.printed = printed


def without_room(failed: Mapping[str, str]) -> str:
    """The first of these paths for which there was no room on this machine; "" where that was no reason.

    Args:
        failed: {path: why}, as `Rclone.copy` has it.
    """
    return next((path for path, why in failed.items() if _FULL.search(why)), "")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is: files and bytes that arrived, and bytes a second of late."""

    files: int = 0
    size: int = 0
    rate: float = 0

    @classmethod
    def of(cls, stats: Mapping[str, Any]) -> Progress:
        """Of the `stats` in rclone's log: https://rclone.org/rc/#core-stats."""
        return cls(int(stats.get("transfers") or 0), int(stats.get("bytes") or 0), float(stats.get("speed") or 0))

    def __add__(self, other: Progress) -> Progress:
        return Progress(self.files + other.files, self.size + other.size, other.rate)


_NAMED: Final = 1000
"""Files of which an error keeps what was said."""
_THROTTLED: Final = re.compile(
    r"StatusCode: (?:429|503)\b|\b(?:SlowDown|ServiceUnavailable|TooManyRequests|Throttling|RequestLimitExceeded)\b"
)
"""What rclone says of an answer that asks to wait. Its releases before 1.68 tell the code, and not the status."""
_REFUSED: Final = re.compile(
    r"StatusCode: (?:4(?!08|29)[0-9]{2}|50[01])\b(?!.*\bRequestTimeout\b)"
    r"|\b(?:InternalError|InternalServerError|AccessDenied|Forbidden|NoSuchKey)\b"
)
"""The same of another answer of the store's. A 502 or 504 is that of somebody before it, who may reach it soon, and
RequestTimeout, a 400, that of a line that is too slow."""
_STALLED: Final = re.compile(
    r"i/o timeout|timeout awaiting|Client\.Timeout|deadline exceeded|tls: handshake timeout", re.IGNORECASE
)
"""What it says where nothing came for too long: each try of it takes as long as that."""
_PASSES: Final[tuple[tuple[int, Callable[[str], bool]], ...]] = (
    (1, lambda _: True),
    (2, lambda _: True),
    (4, lambda why: not (_REFUSED.search(why) or _STALLED.search(why))),
    (6, lambda why: bool(_THROTTLED.search(why))),
)
"""For each pass over what is left rclone's --low-level-retries, and whether what failed for a reason is tried in it.

rclone multiplies the number: it tries an object as often as that, each request twice, and the library below it each of
these as often again, after a pause that doubles. So one object for which the store always fails would take minutes, and
hold up the others, while a line that breaks, or a store that asks to wait, has to be waited for.
"""
_FULL: Final = re.compile(
    r"no space left on device|disk quota exceeded|too big for remaining disk space", re.IGNORECASE
)
"""What it says of a file for which there is no room here."""
_Once = Callable[[Sequence[str], Sequence[str]], tuple[Collection[str], Mapping[str, str], "RcloneError | None"]]
"""Try files with further options of rclone: those that succeeded, {path: why} of others, and how the whole ended."""


def _in_passes(names: Iterable[str], once: _Once) -> dict[str, str]:
    """{path: why} of those that failed in every pass; "" where rclone named no reason.

    Raises RcloneError where rclone failed, and not because of one of them.
    """
    left, failed = dict.fromkeys(names, ""), dict[str, str]()
    trouble: RcloneError | None = None
    for retries, is_tried in _PASSES:
        unnamed = str(trouble or "")
        due = [name for name in left if is_tried(failed.get(name, unnamed))]
        if not due:
            break
        done, why, trouble = once(due, ("--low-level-retries", str(retries)))
        for name in done:
            left.pop(name, None)
            failed.pop(name, None)
        failed |= {name: said for name, said in why.items() if name in left}
    if left and trouble is not None and not failed:
        raise trouble
    return left | failed


class _Copying:
    """What a run of `rclone copy` tells of each file."""

    def __init__(self, before: Progress, show: Callable[[Progress], None]) -> None:
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.last = ""
        self.progress = before
        self._before, self._show = before, show

    def note(self, event: Mapping[str, Any]) -> None:
        name = event.get("object")
        # The error first: it has the path in it, and in that anything may stand.
        if isinstance(name, str) and event["level"] in _ERRORS:
            self.failed[name] = _brief(str(event["msg"]))
        elif isinstance(name, str) and "Copied (" in event["msg"]:
            self.done.add(name)
        elif event["msg"] and "stats" not in event:
            self.last = _brief(str(event["msg"]))
        if isinstance(event.get("stats"), Mapping):
            self.progress = self._before + Progress.of(event["stats"])
            self._show(self.progress)


_COPY: Final = (
    # What is to be copied was found out by a listing already: neither HEAD nor listing asks for it once more.
    *("--no-check-dest", "--no-traverse", "--no-unicode-normalization"),
    *("--transfers", str(TRANSFERS), "--checkers", str(TRANSFERS), "--buffer-size", "1M"),
    # Of its own accord rclone would begin anew with all of them. Single requests it does repeat.
    *("--retries", "1", "--stats", "1s"),
)
READING: Final = ("--timeout", "30s", "--contimeout", "15s")
"""For what only reads: a store that sends nothing for so long is asked again, on another connection. By default rclone
waits for five minutes, each time."""
_MD5SUM: Final = (*READING, "--download", "--transfers", "8", "--buffer-size", "1M")


class Rclone:
    """rclone with one store as its remote."""

    def __init__(
        self,
        store: StorageOutputs,
        *,
        program: Path | None = None,
        say: Say = say_on_stderr,
    ) -> None:
        """
        Args:
            program: the program to run; by default the one on PATH, or else one that is built.

        Raises:
            StoreError: there is no secret, or the store's prefix is no directory's, which rclone can't write to.
            ObtainError: there is no rclone, and none can be built.
        """
        _require_directory(store)
        self.store = store
        self._environment = _environment(store)
        self.program = program or obtain_rclone(say)

    def remote(self, path: str = "") -> str:
        """A path of the media store as rclone names it."""
        return f"{REMOTE}:{self.store.bucket}/{self.store.prefix}{path}"

    @property
    def etags_may_be_no_md5s(self) -> bool:
        """Whether this provider's ETags may look like MD5s and be none, where a key of the user's encrypts."""
        return bool(catalog.load(self.store.provider).value("etags_may_be_no_md5s", False))

    def copy(
        self,
        source: str,
        target: str,
        names: Collection[str],
        *options: str,
        show: Callable[[Progress], None] = lambda _: None,
    ) -> dict[str, str]:
        """Copy these files from one directory to the other, whatever is in the other; {path: why} of those that failed.

        The content of each is compared by its hash on arrival. One that did not arrive is tried several times.

        Args:
            source, target: a directory of this machine, or a path of `remote`.
            options: further ones of rclone.
            show: is told once a second how far it is.

        Raises RcloneError where rclone failed, and not because of one of them.
        """
        before, last = Progress(), ""

        def once(due: Sequence[str], retries: Sequence[str]) -> tuple[set[str], dict[str, str], RcloneError | None]:
            nonlocal before, last
            run, trouble = _Copying(before, show), None
            try:
                self.run("copy", *_COPY, *retries, *options, "--", source, target, names=due, on_event=run.note)
            except RcloneError as error:
                trouble = error
            before, last = run.progress, run.last
            return run.done, run.failed, trouble

        failed = _in_passes(names, once)
        why = f"rclone did not copy it{f', and said last: {last}' if last else ''}; run the command again"
        return {name: said or why for name, said in failed.items()}

    def md5s(self, names: Iterable[str]) -> dict[str, str | RcloneError]:
        """{path: MD5 of the object's content, or why it could not be read}, by reading it.

        Raises RcloneError where rclone failed, and not because of one of them.
        """
        found = dict[str, str | RcloneError]()

        def once(due: Sequence[str], retries: Sequence[str]) -> tuple[set[str], dict[str, str], RcloneError | None]:
            named, trouble = dict[str, str](), None
            try:
                printed = self.run("md5sum", *_MD5SUM, *retries, "--", self.remote(), names=due)
            except RcloneError as error:
                printed, named, trouble = error.printed, error.named, error
            # What a path is named for in an error may be a sum for all that is printed of it.
            sums = {path: md5 for path, md5 in _sums(printed) if path not in named}
            found.update(sums)
            return set(sums), named, trouble

        failed = _in_passes(names, once)
        return found | {name: RcloneError(why or "rclone md5sum did not tell of it") for name, why in failed.items()}

    def run(
        self,
        command: str,
        *arguments: str,
        names: Iterable[str] | None = None,
        on_event: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> str:
        """Run a command to its end; what it printed on standard output.

        Args:
            names: paths for `--files-from-raw`, which are handed over without an argument or a file.
            on_event: is called with each line of its log: `level`, `msg`, and `object` or `stats` where it has one.

        Raises RcloneError where it failed.
        """
        files = ["--files-from-raw", "-"] if names is not None else []
        cause = ""
        named: dict[str, str] = {}
        last = ""
        with contextlib.ExitStack() as opened:
            with temporary(needed="what rclone prints, up to about 150 bytes for each file, is written there"):
                output = opened.enter_context(tempfile.TemporaryFile())
            child, log = opened.enter_context(self._started(command, *files, *arguments, names=names, to=output))
            for event in _events(log):
                if event["level"] in _ERRORS:
                    # The first error is the cause; the later ones sum up.
                    cause = cause or str(event["msg"])
                    if len(named) < _NAMED and isinstance(event.get("object"), str):
                        named.setdefault(event["object"], _brief(str(event["msg"])))
                elif event["msg"] and "stats" not in event:
                    last = str(event["msg"])
                on_event(event)
            code = child.wait()
            output.seek(0)
            printed = output.read().decode(errors="surrogateescape")
            if code:
                raise RcloneError(self._in_words(command, code, cause or last), named, printed)
            return printed

    @contextlib.contextmanager
    def _started(
        self, *command: str, names: Iterable[str] | None, to: IO[bytes]
    ) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
        """A running command and its log. It ends with this process, too: its log has no reader then."""
        with contextlib.ExitStack() as opened:
            with temporary():
                given = opened.enter_context(tempfile.TemporaryFile())
                for name in names or ():
                    given.write(os.fsencode(name) + b"\n")
                given.seek(0)
            child = subprocess.Popen(
                self._command(*command),
                stdin=given if names is not None else subprocess.DEVNULL,
                stdout=to,
                stderr=subprocess.PIPE,
                env=self._environment,
            )
        with _ended(child):
            assert child.stderr is not None  # noqa: S101 - it was asked for
            yield child, child.stderr

    def _command(self, command: str, *arguments: str) -> list[str]:
        # No configuration file: a remote of the same name in it would add to ours.
        return [str(self.program), command, "--config=", "--use-json-log", "--log-level", "INFO", *arguments]

    def _in_words(self, command: str, code: int, why: str) -> str:
        place = f"{self.store.bucket} at {self.store.endpoint_url}"
        why = _brief(why)
        said = f": {why}" if why else " and said nothing. Run the command again; `synapse-media prove` tries the key."
        return f"rclone {command} ({place}) ended with code {code}{said}"


def _sums(printed: str) -> Iterator[tuple[str, str]]:
    """(path, MD5) of what `rclone md5sum` printed."""
    # Only a newline ends a line: names have whatever else Unicode takes for one.
    for line in printed.split("\n"):
        match = re.fullmatch(r"([0-9a-f]{32}) {2}(.+)", line)
        if match:
            yield match[2], match[1]


def _brief(said: str) -> str:
    """The first line of what rclone said, without any secret."""
    return redacted(said).strip().partition("\n")[0][:500]


def _require_directory(store: StorageOutputs) -> None:
    prefix = store.prefix
    if prefix and (not prefix.endswith("/") or prefix.startswith("/") or re.search(r"//|(?:^|/)\.\.?/", prefix)):
        raise StoreError(
            f"{store.server_name}: its prefix is {prefix!r}, which is no directory of the bucket, and rclone copies "
            "directories; allowed: names that end with '/'. Copy the objects by a tool that takes the beginning of "
            "keys, to keys under such a prefix; then change the prefix, with "
            f"{store.server_name}/move-media in the stack file's allow."
        )


def _environment(store: StorageOutputs) -> dict[str, str]:
    """The environment of the child: none of our caller's credentials or RCLONE_… options, and this store's key."""
    if not (store.keyless or store.secret_access_key):
        raise StoreError(f"{store.server_name}: there is no secret access key of {store.access_key_id}")
    remember(store.secret_access_key)
    passed = environment(_OF_A_ROLE + _OF_A_ROLE_TOO if store.keyless else "")
    # rclone 1.60 does not start with it set: "LoadCustomCABundleError".
    authority = store.ca_file or passed.get("AWS_CA_BUNDLE", "")
    passed.pop("AWS_CA_BUNDLE", None)
    settings = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": store.endpoint_url,
        "REGION": store.region,
        "STORAGE_CLASS": store.storage_class,
        "FORCE_PATH_STYLE": str(store.addressing == "path").lower(),
        "LIST_VERSION": "2",
        "ENCODING": _ENCODING,
        "NO_CHECK_BUCKET": "true",
        # The answer to an upload has the MD5 of what arrived: no further request asks for it.
        "NO_HEAD": "true",
        # Since 1.71; the releases before it send Content-MD5 alone, which every store checks.
        "USE_DATA_INTEGRITY_PROTECTIONS": str(store.checksums == "when_supported").lower(),
        **(
            {"ENV_AUTH": "true"}
            if store.keyless
            else {"ACCESS_KEY_ID": store.access_key_id, "SECRET_ACCESS_KEY": store.secret_access_key}
        ),
    }
    return {
        **passed,
        **{f"{_VARIABLE}{name}": value for name, value in settings.items()},
        "RCLONE_LOCAL_ENCODING": _ENCODING,
        **({"RCLONE_CA_CERT": authority} if authority else {}),
    }


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have a child end with whoever reads it."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def _events(log: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of rclone's log. The very last words of some releases are no JSON, whatever they were asked for."""
    for raw in log:
        line = raw.decode(errors="replace").strip()
        try:
            event = json.loads(line)
        except ValueError:
            if line:
                yield {"level": "error", "msg": re.sub(r"^[0-9/]+ [0-9:]+ (?:[A-Z]+ *: )?", "", line)}
            continue
        if isinstance(event, dict):
            yield {"level": "", "msg": "", **event}
