"""YAML with the place of every value, read without trust: limits on size, depth and anchors, any tag tolerated."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from synapse_media.homeserver.playbook import VAULT_MARK

MAX_BYTES = 2_000_000
MAX_VALUES = 200_000
"""Values in one file, an anchor's counted each time it is used: the playbook's own largest file has about 7,000."""

_STANDARD = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Value:
    """A value and where it stands.

    Attributes:
        data: None, bool, int, float, str, a tuple of Value, or a dict of str to Value; a date stays text.
        text: a scalar as it is written, without its quotes.
        tag: `!vault`, `!unsafe` …; "" for YAML's own.
    """

    data: Any = field(repr=False)
    file: str
    line: int
    text: str = field(default="", repr=False)
    quoted: bool = False
    tag: str = ""

    @property
    def items(self) -> Mapping[str, Value]:
        """The pairs of a mapping; nothing for anything else."""
        return self.data if isinstance(self.data, dict) else {}

    @property
    def entries(self) -> tuple[Value, ...]:
        """The entries of a list; nothing for anything else."""
        return self.data if isinstance(self.data, tuple) else ()


@dataclass(frozen=True, slots=True)
class Document:
    """One file.

    Attributes:
        root: its mapping; None where it is empty, or something else.
        problem: why it can't be read as YAML, "" if it can; `line` says where.
        encrypted: a whole file of Ansible Vault.
        mode: its permissions.
        duplicates: (key, line) of keys that stand twice in one mapping.
    """

    path: str
    root: Value | None = None
    problem: str = ""
    line: int = 1
    encrypted: bool = False
    mode: int = 0o600
    duplicates: tuple[tuple[str, int], ...] = ()
    source: str = field(default="", repr=False)


class _UnreadableError(Exception):
    def __init__(self, problem: str, line: int = 1) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def read(path: Path) -> Document:
    """Read one file. What is wrong with it is said in the document, without a word of its content."""
    shown = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Document(shown, problem="is no regular file")
        if status.st_size > MAX_BYTES:
            return Document(
                shown, problem=f"has {status.st_size:,} bytes; no configuration is larger than {MAX_BYTES:,}"
            )
        raw = path.read_bytes()
    except OSError as error:
        return Document(shown, problem=f"can't be read: {error.strerror}")
    mode = stat.S_IMODE(status.st_mode)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return Document(shown, problem="is no UTF-8 text", mode=mode)
    if "\0" in text:
        return Document(shown, problem="is binary, no text", mode=mode)
    if text.startswith(VAULT_MARK):
        return Document(shown, encrypted=True, mode=mode)
    try:
        root, duplicates = _parse(text, shown)
    except _UnreadableError as error:
        return Document(shown, problem=error.problem, line=error.line, mode=mode)
    if root is not None and not isinstance(root.data, dict):
        root = None
    return Document(shown, root, mode=mode, duplicates=duplicates, source=text)


def _parse(text: str, file: str) -> tuple[Value | None, tuple[tuple[str, int], ...]]:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # PyYAML quotes the line and names what stands there, which may be a secret.
        problem = re.sub(r"'[^']*'|\"[^\"]*\"", "…", str(getattr(error, "problem", None) or "a forbidden character"))
        raise _UnreadableError(f"is no YAML: {problem}", mark.line + 1 if mark else 1) from None
    except RecursionError:
        raise _UnreadableError("is nested too deeply") from None
    if node is None:
        return None, ()
    reader = _Reader(loader, file)
    try:
        return reader.value(node), tuple(reader.duplicates)
    except RecursionError:
        raise _UnreadableError("is nested too deeply") from None


class _Reader:
    """Nodes to values."""

    def __init__(self, loader: yaml.SafeLoader, file: str) -> None:
        self.loader = loader
        self.file = file
        self.duplicates: list[tuple[str, int]] = []
        self._left = MAX_VALUES
        self._within: set[int] = set()

    def value(self, node: yaml.Node) -> Value:
        line = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise _UnreadableError(
                f"holds more than {MAX_VALUES:,} values (anchors counted each time they are used)", line
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        if id(node) in self._within:
            raise _UnreadableError("has an anchor that holds itself", line)
        self._within.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                data: Any = tuple(self.value(item) for item in node.value)
            else:
                data = self._mapping(node)
        finally:
            self._within.discard(id(node))
        return Value(data, self.file, line, tag=_own(node.tag))

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Value:
        tag, data = _own(node.tag), node.value
        if not tag:
            try:
                data = self.loader.construct_object(node)
            except (ValueError, OverflowError, LookupError, AttributeError, TypeError, yaml.YAMLError):
                raise _UnreadableError("has a value that is none of its kind (a number, a date …)", line) from None
            if not isinstance(data, bool | int | float | str | None):
                data = node.value
        return Value(data, self.file, line, node.value, node.style is not None, tag)

    def _mapping(self, node: yaml.Node) -> dict[str, Value]:
        merged: dict[str, Value] = {}
        own: dict[str, Value] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if key.tag == f"{_STANDARD}merge":
                for base in self._bases(item):
                    merged = {**base, **merged}
                continue
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if name in own:
                self.duplicates.append((name, line))
            read = self.value(item)
            # A block's own line is that of its first entry; people look for the key.
            own[name] = Value(read.data, read.file, line, read.text, read.quoted, read.tag)
        return {**merged, **own}

    def _bases(self, node: yaml.Node) -> Iterator[Mapping[str, Value]]:
        """What `<<` merges in: a mapping, or a list of them, of which the first wins."""
        value = self.value(node)
        for base in value.entries or (value,):
            yield base.items


def _own(tag: str) -> str:
    return "" if tag.startswith(_STANDARD) else tag
