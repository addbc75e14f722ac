"""Every command that is printed for people: in docs, rendered guides, runbooks and messages of the code.

A backticked program with nothing behind it is its name and not a command line: `synapse-media rotate` in a sentence.
"""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from synapse_media.cli.commandline import parser
from tests.providers.project import ROOT

HOLE = "X"
"""Stands for what a message takes from where it is raised, and for what is left out (…)."""

_TEXTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "examples/**/*.md", "tests/*/golden/**/*")
_CODE = ("synapse_media/**/*.py", "components/*.py", "ci/*.py", "__main__.py")
_PROGRAM = re.compile(r"(?:[\w./~-]*/)?(?:synapse-media|pulumi|make)(?!\S)")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_REST = re.compile(r"\s{2,}(?=[^\s-]).*|\s#\s.*")
_LABEL = re.compile(r"^(?:\$|check:|undo:) +")
_ENVIRONMENT = 'eval "$(synapse-media env)"'
_IMAGE = re.compile(r"^(?:podman|docker) run .* synapse-media (?=\w)")


@dataclass(frozen=True, slots=True)
class Printed:
    """One command line.

    Attributes:
        place: the file where it is printed.
        words: as a shell takes them, the program's name first.
        whole: nothing is left out (`…`) or taken from elsewhere.
    """

    place: str
    words: tuple[str, ...]
    whole: bool

    @property
    def program(self) -> str:
        return self.words[0]

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


@cache
def printed() -> tuple[Printed, ...]:
    """All of them, those of the same words and place once."""
    lines = [*_lines(_TEXTS, _of_text), *_lines(_CODE, _of_code)]
    found = [
        Printed(place, words, whole="…" not in line and f" {HOLE}" not in line)
        for place, line in lines
        for words in _commands(line)
    ]
    return tuple(dict.fromkeys(found))


@cache
def mentioned() -> tuple[Printed, ...]:
    """What stands in backticks of a command without the program's name, as `rotate --finish`: some of its options."""
    made = parser().commands
    lines = [*_lines(_TEXTS, _of_text), *_lines(_CODE, _of_code)]
    words = [(place, tuple(line.split())) for place, line in lines if " -" in line]
    return tuple(Printed(place, found, whole=False) for place, found in words if found[0] in made)


def _lines(patterns: Iterable[str], read: Callable[[str, str], Iterator[str]]) -> Iterator[tuple[str, str]]:
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}):
        place = str(path.relative_to(ROOT))
        yield from ((place, line) for line in read(path.read_text(encoding="utf-8"), place))


def _of_text(text: str, place: str) -> Iterator[str]:
    """What stands in backticks, over the end of a line too, and the lines of blocks of code."""
    for paragraph in text.split("\n\n"):
        yield from (" ".join(match[1].split()) for match in _SPAN.finditer(paragraph))
    fenced = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    ") or not place.endswith(".md"):
            yield _LABEL.sub("", line.strip())


def _of_code(text: str, _: str) -> Iterator[str]:
    """Text in backticks in a string, and separate lines; docstrings and comments are not printed."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    skipped = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    skipped |= {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            said = "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            said = node.value
        else:
            continue
        yield from (match[1] for match in _SPAN.finditer(said))
        # Of our own program alone: "make" is a verb, and "pulumi" a name.
        lines = (line.strip() for line in said.replace("\\\n", " ").splitlines())
        yield from (line for line in lines if line.startswith("synapse-media ") and " --" in line)


def _commands(line: str) -> Iterator[tuple[str, ...]]:
    """The commands in one line of shell; a sentence may follow behind a comma, a colon or blanks."""
    line = _REST.sub("", _IMAGE.sub("synapse-media ", line.replace(_ENVIRONMENT, "synapse-media env")))
    if not _PROGRAM.search(line):
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        # An apostrophe: a sentence.
        assert not _PROGRAM.match(line), line
        return
    for operator, group in itertools.groupby(words, lambda word: not word.strip("&|;()<>")):
        command = [] if operator else [word.replace("…", HOLE) for word in group]
        end = next((at for at, word in enumerate(command) if word.endswith((",", ":"))), len(command))
        if len(command) > 1 and _PROGRAM.fullmatch(command[0]):
            yield (command[0].rpartition("/")[2], *(word.rstrip(",:") for word in command[1 : end + 1]))
