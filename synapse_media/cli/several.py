"""Several stacks of one project side by side, each by a process of its own.

A process for each stack, since what a command does to one (its engine, its locks, Ctrl-C, an error) must not touch the
others. Pulumi's locks hold as if somebody had typed each command. Where this process is killed, theirs end in order
(one_of_several.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from synapse_media import stackfile
from synapse_media.engine.files import locked
from synapse_media.engine.paths import private_dir, state_dir
from synapse_media.engine.processes import SignalRelay
from synapse_media.errors import UsageError
from synapse_media.redaction import redacted

from . import programs, stacks, terminal

_PATTERN: Final = frozenset("*?[")
_TICK: Final = 0.1
"""Seconds between two looks at what runs."""
_SHOWN: Final = 20
"""Lines of an error in the summary; all of it is in the file that the summary names."""
_WORDS: Final[Mapping[int, str]] = {0: "done", 2: "changes pending", 3: "dangerous changes pending"}
_ONE: Final = f"{__package__}.one_of_several"
_OF_ONE: Final = ("server", "inventory_host", "reviewed")
"""Options that name something of one stack."""
INTERRUPTED: Final = 128
"""An exit code is this and the number of the signal, where one ended the run."""


def names(project: Path, wanted: Iterable[str]) -> list[str]:
    """The stacks that names and patterns mean, each once, in their order. Raises UsageError for a pattern of none."""
    files = stackfile.files_in(project / stackfile.config_dir(project))
    there = [name for name in files if not stackfile.is_example(name)]
    found: dict[str, None] = {}
    for one in wanted:
        organization, slash, pattern = one.rpartition("/")
        if not _PATTERN & set(pattern):
            found[stackfile.without_placeholder(project, one)] = None
            continue
        matched = [name for name in there if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(f"--stack is {one!r}, which no stack file matches; stacks here: {_listed(there)}")
        found |= dict.fromkeys(stackfile.without_placeholder(project, f"{organization}{slash}{x}") for x in matched)
    return list(found)


def _listed(found: Iterable[str]) -> str:
    return ", ".join(found) or "none"


@dataclass(slots=True)
class Run:
    """One stack's process, and what became of it.

    Attributes:
        code: its exit code; None while it waits or runs.
        output: what it wrote to standard output; `errors`: to standard error. Files of mode 0600.
    """

    stack: str
    command: str
    words: Sequence[str]
    output: Path
    errors: Path
    code: int | None = None
    started: float | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        with _new(self.output) as out, _new(self.errors) as err:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", _ONE, self.command, f"--stack={self.stack}", *self.words],
                # Nothing is written to it. The kernel closes it when this process is gone, however that came.
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                # So that Ctrl-C reaches it once, from here, and not from the terminal as well.
                process_group=0,
            )

    def look(self) -> bool:
        """Whether it ended just now."""
        if self.process is None or self.code is not None or (code := self.process.poll()) is None:
            return False
        self.code = code if code >= 0 else INTERRUPTED - code
        self.process.communicate()  # closes the pipe: so many stacks may be more than a process may have open
        return True

    @property
    def failed(self) -> bool:
        return self.code not in _WORDS

    @property
    def outcome(self) -> str:
        if self.code is None:
            return "not started" if self.started is None else "running"
        return _WORDS.get(self.code, "failed")

    def reason(self) -> str:
        """What it said last of why it failed, or was refused; "" where it said nothing."""
        if self.code is None:
            return ""
        said = _read(self.errors)
        mark = f"synapse-media {self.command}: "
        at = max(said.rfind(f"\n{mark}") + 1, 0)
        if said.startswith(mark, at):
            told = said[at + len(mark) :].strip()
            # What pulumi showed as it went.
            errors = [line.strip() for line in _read(self.output).splitlines() if "error:" in line]
            return redacted("\n".join([told, *errors[-3:]] if told.endswith("see above.") else [told]))
        if self.code > INTERRUPTED:
            return f"signal {self.code - INTERRUPTED} ended it"
        return redacted("\n".join(said.strip().splitlines()[-3:])) if self.failed else ""


def _new(path: Path) -> Any:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def worst(codes: Iterable[int | None]) -> int:
    """One exit code for all: an error (1) before dangerous changes (3) before changes (2) before nothing (0)."""
    found = set(codes)
    return next((code for code in (3, 2, 0) if found <= set(_WORDS) and code in found), 1)


def run(parsed: argparse.Namespace, command: argparse.ArgumentParser, selected: Sequence[str]) -> int:
    """Run a command on several stacks; one exit code. One that fails stops no other.

    Args:
        command: the parser of the command, by which its options are handed on.
    """
    _refuse(parsed, selected)
    asked = getattr(parsed, "yes", True)
    if not asked:
        # Before anything is looked at, where nobody could answer.
        stacks.require_terminal()
    words = {stack: _words(parsed, command, stack) for stack in selected}
    with _folder() as folder:
        return _run_all(parsed, folder, words, asked=asked)


def _run_all(parsed: argparse.Namespace, folder: Path, words: dict[str, list[str]], *, asked: bool) -> int:
    """Run the command with these words on each stack; one exit code.

    Args:
        folder: where the processes write.
        asked: whether the changes were agreed to.
    """
    selected, done = list(words), list[Run]()
    if not asked and parsed.command == "up":
        reviews = [_made(parsed, folder, stack, [*words[stack], "--review"]) for stack in selected]
        if code := _together(reviews, parsed.parallel):
            return _interrupted(reviews, code)
        done, words = _reviewed(reviews, words)
    elif not asked:
        stacks.confirm(f"{parsed.command} the stacks {', '.join(selected)}?")
        words = {stack: [*more, "--yes"] for stack, more in words.items()}
    runs = [_made(parsed, folder, stack, more) for stack, more in words.items()]
    code = _together(runs, parsed.parallel)
    everything = sorted([*done, *runs], key=lambda one: selected.index(one.stack))
    _show(parsed, everything)
    if code:
        return _interrupted(everything, code)
    _summarize(everything)
    return worst(one.code for one in everything)


def _refuse(parsed: argparse.Namespace, selected: Sequence[str]) -> None:
    for option in _OF_ONE:
        if getattr(parsed, option, None):
            raise UsageError(
                f"--{option.replace('_', '-')} is for one stack, and --stack names {len(selected)}: "
                f"{', '.join(selected)}. Name one."
            )
    short = [stackfile.short_name(stack) for stack in selected]
    if parsed.command == "render" and (twice := {name for name in short if short.count(name) > 1}):
        raise UsageError(f"two stacks would be written to {Path(parsed.out) / min(twice)}: name one at a time")


def _words(parsed: argparse.Namespace, command: argparse.ArgumentParser, stack: str) -> list[str]:
    """The options of one stack's process, as they were given for all."""
    values = {**vars(parsed), "stack": None, "parallel": None, "cwd": None}
    if parsed.command == "render":
        values["out"] = str(Path(parsed.out) / stackfile.short_name(stack))
    words: list[str] = []
    for action in command._actions:  # noqa: SLF001 - argparse has no other way to them
        value = values.get(action.dest)
        if not action.option_strings or value in (None, action.default):
            continue
        flag = next((name for name in action.option_strings if name.startswith("--")), action.option_strings[0])
        if action.nargs == 0:
            words += [flag] if value == action.const else []
        else:
            words += [f"{flag}={item}" for item in (value if isinstance(value, list) else [value])]
    options = list(values.get("options") or ())
    return [*words, *(["--", *options] if options else [])]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A directory for what the processes of this run write; those of the last runs stay, for people to read."""
    place = private_dir(state_dir() / "output")
    for former in sorted(path for path in place.iterdir() if path.is_dir())[:-_RUNS_KEPT]:
        with contextlib.suppress(_InUseError, OSError), locked(former / _LOCK, _in_use):
            shutil.rmtree(former, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-", dir=place))  # mode 0700
    with locked(folder / _LOCK):
        yield folder


_RUNS_KEPT: Final = 5
_LOCK: Final = ".lock"


class _InUseError(Exception):
    """A run that is not at its end has the lock."""


def _in_use() -> None:
    raise _InUseError


def _made(parsed: argparse.Namespace, folder: Path, stack: str, words: Sequence[str]) -> Run:
    place = folder / f"{stack.replace('/', '+')}.{parsed.command}"
    return Run(stack, parsed.command, words, place.with_name(f"{place.name}.out"), place.with_name(f"{place.name}.err"))


def _together(runs: Sequence[Run], at_once: int) -> int:
    """Run all of them, at most so many at once; the code of the signal that ended this, or 0."""
    waiting = list(runs)
    with _Relay(runs) as signals, _progress(runs) as show:
        while True:
            active = [one for one in runs if one.process is not None and one.code is None]
            while waiting and len(active) < at_once and not signals.received:
                active.append(waiting.pop(0))
                active[-1].start()
            if not active:
                return signals.received and INTERRUPTED + signals.received
            time.sleep(_TICK)
            show([one for one in active if one.look()])


class _Relay(SignalRelay):
    """Hands signals on to every process, and has no other one started."""

    def __init__(self, runs: Sequence[Run]) -> None:
        super().__init__()
        self._runs = runs

    def pass_on(self, number: int) -> None:
        for one in self._runs:
            if one.process is not None and one.code is None:
                with contextlib.suppress(ProcessLookupError):
                    one.process.send_signal(number)


@contextlib.contextmanager
def _progress(runs: Sequence[Run]) -> Iterator[Callable[[Sequence[Run]], None]]:
    """Show what runs: a table on a terminal, elsewhere a line at the end of each. Yields what each look calls."""
    if not terminal.shows_colour(sys.stderr):

        def say(ended: Sequence[Run]) -> None:
            for one in ended:
                stacks.say(f"{one.stack}: {one.outcome}")

        yield say
        return
    from rich.console import Console
    from rich.live import Live

    with Live(_table(runs), console=Console(file=sys.stderr), transient=True, auto_refresh=False) as live:
        yield lambda _: live.update(_table(runs), refresh=True)


def _table(runs: Sequence[Run]) -> Any:
    """What runs now and what failed, and how many there are of the others."""
    from rich.table import Table
    from rich.text import Text

    ended = sum(one.code is not None for one in runs)
    table = Table(box=None, pad_edge=False, title=f"{ended} of {len(runs)} stacks", title_justify="left")
    for name in ("stack", "", "seconds", "last line"):
        table.add_column(name, no_wrap=True, justify="right" if name == "seconds" else "left")
    for one in runs:
        if one.started is None or not (one.code is None or one.failed):
            continue
        seconds = f"{time.monotonic() - one.started:.0f}" if one.code is None else ""
        last = (one.reason() if one.failed and one.code is not None else _last_line(one)).partition("\n")[0]
        style = terminal.DANGER if one.code is not None else ""
        table.add_row(one.stack, Text(one.outcome, style=style), seconds, Text(last[:200], overflow="ellipsis"))
    return table


def _last_line(one: Run) -> str:
    texts = [path for path in (one.output, one.errors) if path.exists() and path.stat().st_size]
    newest = max(texts, key=lambda path: path.stat().st_mtime_ns, default=None)
    return redacted(next(iter(_read(newest).strip().splitlines()[-1:]), "")) if newest else ""


def _reviewed(reviews: Sequence[Run], words: Mapping[str, list[str]]) -> tuple[list[Run], dict[str, list[str]]]:
    """Show every stack's changes and ask once; what is done with already, and how to make what was agreed to.

    Raises SynapseMediaError where it was not.
    """
    from synapse_media.guards.changes import Line

    found = {one.stack: json.loads(_read(one.output)) for one in reviews if one.code == 2}
    for stack, review in found.items():
        stacks.say(f"\n{stack}:")
        terminal.write_changes([Line(*line) for line in review["lines"]], sys.stderr)
    done = [one for one in reviews if one.code != 2]
    refused = [one for one in done if one.code]
    for one in refused:
        stacks.say(f"\n{one.stack}: {one.outcome}: {one.reason()}")
    if found:
        but = f" The {len(refused)} others that failed or were refused are left as they are." if refused else ""
        stacks.say("")
        stacks.confirm(f"Make these changes of {', '.join(found)}?{but}")
    return done, {stack: ["--yes", f"--reviewed={review['digest']}", *words[stack]] for stack, review in found.items()}


def _show(parsed: argparse.Namespace, runs: Sequence[Run]) -> None:
    """What the processes answered: for programs in one object, for people one after the other."""
    if programs.wanted(parsed):
        print(programs.text({"stacks": {one.stack: _to_json(one) for one in runs}}))
        return
    if parsed.command in ("up", "rotate"):
        return  # mostly pulumi's progress; the summary names the files with it
    for one in runs:
        text = _read(one.output).rstrip()
        if text and not (parsed.command == "diff" and one.code == 0):
            print(f"{text}\n" if getattr(parsed, "format", "") == "markdown" else f"{one.stack}:\n{text}\n")


def _to_json(one: Run) -> dict[str, Any]:
    try:
        answer = json.loads(_read(one.output))
    except ValueError:
        answer = None
    return {"exit_code": one.code, "answer": answer, "error": one.reason() if one.code else ""}


def _summarize(runs: Sequence[Run]) -> None:
    """Which came to what, and why those that failed did. Reasons that are the same are said once."""
    counts = {outcome: sum(one.outcome == outcome for one in runs) for outcome in (*_WORDS.values(), "failed")}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    lines = [(f"{len(runs)} stacks: {told}", "")]
    reasons: dict[tuple[str, str], list[Run]] = {}
    for one in runs:
        # Of changes that are only shown, what was shown says all.
        if one.failed or (one.code == 3 and one.reason()):
            reasons.setdefault((one.outcome, one.reason()), []).append(one)
    for (outcome, reason), same in reasons.items():
        lines.append((f"{', '.join(one.stack for one in same)}: {outcome}", terminal.DANGER))
        shown = reason.splitlines()
        lines += [(f"  {line}", "") for line in shown[:_SHOWN]]
        if len(shown) > _SHOWN or any(one.output.exists() for one in same):
            lines.append((f"  all output: {same[0].errors.with_suffix('.*')}", ""))
    terminal.write(lines, sys.stderr)


def _interrupted(runs: Sequence[Run], code: int) -> int:
    left = [one.stack for one in runs if one.code != 0]
    stacks.say(f"interrupted; not done: {_listed(left)}. Run it again to go on.")
    return code
