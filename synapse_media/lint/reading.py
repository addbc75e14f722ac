"""Reads untrusted YAML with the line of each value: size, depth and anchors are limited, any tag is accepted."""

from __future__ import annotations

import datetime as dt
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from synapse_media.homeserver.playbook import VAULT_MARK

MAX_BYTES = 2_000_000
MAX_VALUES = 200_000
"""Values in one file, with anchors counted at each use: the playbook's own largest file has about 7,000."""

_STANDARD = "tag:yaml.org,2002:"
NO_SCALAR = "?"
"""Stands for a key that is a mapping or a list."""
FILLED = "!filled"
"""The tag set here for a value in which something is substituted before its program reads it."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value and its place.

    Attributes:
        data: None, bool, int, float, str, a tuple of Value, or a dict of str to Value; a date stays a str.
        date: a date as Python writes it; "" for anything else.
        text: a scalar as written, without quotes.
        tag: `!vault`, `!unsafe` …; "" for YAML's own tags.
        block: a string in block style (`|` or `>`), which begins on the next line.
    """

    data: Any = field(repr=False)
    file: str
    line: int
    text: str = field(default="", repr=False)
    quoted: bool = False
    tag: str = ""
    block: bool = False
    date: str = ""

    @property
    def items(self) -> Mapping[str, Value]:
        """The items of a mapping; empty for anything else."""
        return self.data if isinstance(self.data, dict) else {}

    @property
    def entries(self) -> tuple[Value, ...]:
        """The entries of a list; empty for anything else."""
        return self.data if isinstance(self.data, tuple) else ()

    def all(self) -> Iterator[Value]:
        """This value and every value in it, at any depth."""
        yield self
        for child in (*self.items.values(), *self.entries):
            yield from child.all()


@dataclass(frozen=True, slots=True)
class Document:
    """One file.

    Attributes:
        root: its mapping; None if it is empty or not a mapping.
        problem: why it is not valid YAML, at `line`; "" if it is.
        encrypted: the whole file is encrypted by Ansible Vault.
        template: TEMPLATE or OTHER_LANGUAGE if it is not YAML itself and can't be checked; else "".
        parts: the mappings of a file with several documents (Kubernetes) or a list; `root` is None then.
        place: the place within its file, for an embedded configuration.
        mode: its permissions.
        duplicates: (key, line) of keys set twice in one mapping.
        alone: it is in the values of a chart, which name no Secret that could have more of the configuration.
    """

    path: str
    root: Value | None = None
    problem: str = ""
    line: int = 1
    encrypted: bool = False
    template: str = ""
    parts: tuple[Value, ...] = ()
    place: str = ""
    mode: int = 0o600
    duplicates: tuple[tuple[str, int], ...] = ()
    alone: bool = False
    source: str = field(default="", repr=False)

    @property
    def roots(self) -> tuple[Value, ...]:
        """All mappings of the file, however many documents it has."""
        return self.parts or ((self.root,) if self.root else ())


class UnreadableError(Exception):
    """A text that can't be parsed. The message has nothing of its content."""

    def __init__(self, problem: str, line: int = 1) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def read(path: Path) -> Document:
    """Read one file. `problem` of the document says what is wrong with it, without any of its content."""
    shown = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Document(shown, problem="is not a regular file")
        if status.st_size > MAX_BYTES:
            return Document(
                shown, problem=f"has {status.st_size:,} bytes; the limit for a configuration is {MAX_BYTES:,}"
            )
        raw = path.read_bytes()
    except OSError as error:
        return Document(shown, problem=f"can't be read: {error.strerror}")
    mode = stat.S_IMODE(status.st_mode)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return Document(shown, problem="is not UTF-8 text", mode=mode)
    if "\0" in text:
        return Document(shown, problem="is binary, not text", mode=mode)
    if text.startswith(VAULT_MARK):
        return Document(shown, encrypted=True, mode=mode)
    return _judged(path, text, mode)


def _judged(path: Path, text: str, mode: int) -> Document:
    """Parse a file's text, and tell configurations from templates and other languages."""
    shown = str(path)
    template = "" if is_list_of_pins(path) else _template_by_name(path)
    if template or is_list_of_pins(path):
        return Document(shown, template=template, mode=mode, source=text)
    if _YTT.search(text):
        return Document(shown, template=TEMPLATE, mode=mode, source=text)
    if text.lstrip()[:1] == "{":
        text = text.replace("\t", " ")  # JSON, in which no string may contain a tab
    try:
        parts, duplicates = parse(text, shown)
    except UnreadableError as error:
        if _INI.search(text):
            return Document(shown, template=OTHER_LANGUAGE, mode=mode, source=text)
        if _is_template(text) and not _PLAYBOOK.search(text):
            return Document(shown, template=TEMPLATE, mode=mode, source=text)
        return Document(shown, problem=error.problem, line=error.line, mode=mode, source=text)
    roots = tuple(part for part in parts if isinstance(part.data, dict))
    at = next((found for part in parts for found in _expressions(part)), None)
    if at is not None:
        if _PLAYBOOK.search(text):
            problem = "has {{ }} without quotes, which Ansible rejects"
            return Document(shown, problem=problem, line=at.line, mode=mode, source=text)
        return Document(shown, template=TEMPLATE, mode=mode, source=text)
    root = roots[0] if len(parts) == 1 and roots else None
    several = roots if len(parts) > 1 else tuple(part for part in parts if part.entries)
    return Document(shown, root, parts=several, mode=mode, duplicates=duplicates, source=text)


_TEMPLATES = (
    *(".j2", ".jinja", ".jinja2", ".tmpl", ".tpl", ".ctmpl", ".gotmpl", ".template", ".erb", ".envsubst"),
    *(".tftpl", ".in"),
)
_PLAYBOOK = re.compile(r"^matrix_[a-z]\w*:", re.MULTILINE)
# ytt writes its code into comments, which leaves valid YAML.
_YTT = re.compile(
    r"^\s*#@ *(?:load\(|if |if/end|for |for/end|def |end\b|data\.|overlay/)|[:-] +#@ ?[\w\"'({[]", re.MULTILINE
)
_BEFORE_QUOTES = re.compile(r"^[^'\"#]*(?:\{\{|\{%|\{#|<%)|^\s*@(?:if|foreach|isset|php)\b", re.MULTILINE)
_INI = re.compile(r"\A(?:\s*[#;][^\n]*\n|\s*\n)*\[[\w:.-]+\]\s*$", re.MULTILINE)


TEMPLATE = "a template"
OTHER_LANGUAGE = "not YAML: check the file that is generated from it"
_OTHER_LANGUAGES = (
    *(".nix", ".tf", ".tfvars", ".hcl", ".nomad", ".jsonnet", ".libsonnet", ".cue", ".dhall", ".sh", ".py", ".env"),
    *(".ini", ".toml", ".conf", ".service", ".container", ".md"),
)


def _template_by_name(path: Path) -> str:
    if path.suffix in _TEMPLATES or set(path.suffixes) & set(_TEMPLATES[:-1]):
        return TEMPLATE
    return OTHER_LANGUAGE if path.suffix in _OTHER_LANGUAGES else ""


def is_list_of_pins(path: Path) -> bool:
    """Whether a file pins versions without being YAML: pip's requirements, a Dockerfile."""
    name = path.name.lower()
    if re.match(r"(?:requirements|constraints).*\.(?:txt|in)$", name):
        return True
    return name in ("pyproject.toml", "pipfile") or bool({"dockerfile", "containerfile"} & set(name.split(".")))


def _is_template(text: str) -> bool:
    """Whether invalid YAML has template syntax outside quotes: Jinja, Go, consul-template, ERB, Blade."""
    return _BEFORE_QUOTES.search(text) is not None


def _expressions(value: Value) -> Iterator[Value]:
    """Where `{{ }}` is unquoted: YAML parses it as a mapping that is the key of a mapping."""
    for each in value.all():
        if NO_SCALAR in each.items:
            yield Value(None, value.file, each.items[NO_SCALAR].line)


def parse(
    text: str, file: str, *, offset: int = 0, filled: bool = False
) -> tuple[tuple[Value, ...], tuple[tuple[str, int], ...]]:
    """The documents of a text, and its duplicate keys.

    Args:
        offset: lines before the text in its file.
        filled: something replaces `${X}` and `{{ }}` before the program reads it.

    Raises:
        UnreadableError: it is not valid YAML, or exceeds a limit.
    """
    try:
        loader = yaml.SafeLoader(text)
        nodes = []
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                nodes.append(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # PyYAML quotes the line and names what stands there, which may be a secret.
        problem = re.sub(r"'[^']*'|\"[^\"]*\"", "…", str(getattr(error, "problem", None) or "a forbidden character"))
        # At the end of the text the mark is on the line after it.
        line = min(mark.line + 1, len(text.splitlines()) or 1) if mark else 1
        raise UnreadableError(f"is not valid YAML: {problem}", line + offset) from None
    except RecursionError:
        raise UnreadableError("is nested too deeply") from None
    reader = _Reader(loader, file, offset, filled=filled)
    try:
        values = tuple(reader.value(node) for node in nodes)
    except RecursionError:
        raise UnreadableError("is nested too deeply") from None
    if len(values) > 1 and not all(value.data is None or is_manifest(value) for value in values):
        line = nodes[1].start_mark.line + 1 + offset
        raise UnreadableError("has more than one YAML document: the second begins here", line)
    kept = values if len(values) == 1 else tuple(value for value in values if value.data is not None)
    return kept, tuple(reader.duplicates)


def is_manifest(value: Value) -> bool:
    """Whether this is a Kubernetes object."""
    return {"apiVersion", "kind"} <= set(value.items)


class _Reader:
    """Converts nodes to values."""

    def __init__(self, loader: yaml.SafeLoader, file: str, offset: int, *, filled: bool) -> None:
        self.loader = loader
        self.file = file
        self.offset = offset
        self.filled = filled
        self.duplicates: list[tuple[str, int]] = []
        self._left = MAX_VALUES
        self._within: set[int] = set()

    def value(self, node: yaml.Node) -> Value:
        line = node.start_mark.line + 1 + self.offset
        self._left -= 1
        if self._left < 0:
            raise UnreadableError(
                f"holds more than {MAX_VALUES:,} values (anchors counted each time they are used)", line
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        if id(node) in self._within:
            raise UnreadableError("has an anchor that contains itself", line)
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
        tag, data, date = _own(node.tag), node.value, ""
        if not tag:
            try:
                data = self.loader.construct_object(node)
                # YAML reads a hexadecimal number of any length; Python refuses to write one of more than 4,300 digits.
                written = str(data)
            except (ValueError, OverflowError, LookupError, AttributeError, TypeError, yaml.YAMLError):
                raise UnreadableError("has an invalid value of its type (a number, a date …)", line) from None
            if isinstance(data, dt.date):
                date = written
            if not isinstance(data, bool | int | float | str | None):
                data = node.value
        if self.filled and re.search(r"\$\{|\$\(|\$[A-Z_]{3}", node.value):
            tag = FILLED
        block = node.style in ("|", ">")
        return Value(data, self.file, line, node.value, node.style is not None, tag, block, date)

    def _mapping(self, node: yaml.Node) -> dict[str, Value]:
        merged: dict[str, Value] = {}
        own: dict[str, Value] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1 + self.offset
            if key.tag == f"{_STANDARD}merge":
                for base in self._bases(item):
                    merged = {**base, **merged}
                continue
            name = key.value if isinstance(key, yaml.ScalarNode) else NO_SCALAR
            if name in own:
                self.duplicates.append((name, line))
            read = self.value(item)
            # A block node's line is that of its first entry; readers look for the key.
            own[name] = replace(read, line=line)
        return {**merged, **own}

    def _bases(self, node: yaml.Node) -> Iterator[Mapping[str, Value]]:
        """The mappings merged by `<<`: one, or a list of which the first wins."""
        value = self.value(node)
        for base in value.entries or (value,):
            yield base.items


def _own(tag: str) -> str:
    return "" if tag.startswith(_STANDARD) else tag
