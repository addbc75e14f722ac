"""systemd units and environment files, read as systemd reads them: systemd.syntax(7), .service(5) and .exec(5).

Only what a unit of ours may hold; anything else is an error rather than a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SPACE = " \t\n\r"
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", '"': '"', "'": "'", "s": " ",
}  # fmt: skip
_NUMERIC = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
# Inside of double quotes a backslash is dropped before these only, and with a newline.
_DOUBLE_ESCAPE = re.compile(r'\\(?:(["\\`$])|\n)')
# To the end of the line, less trailing white space that is not escaped.
_BARE = re.compile(r"((?:\\.|\\\Z|[^\\\n])*?)[ \t\r]*(?:\n|\Z)", re.DOTALL)
_BARE_ESCAPE = re.compile(r"\\(?:\n|(.)|\Z)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\$")


def unit(text: str) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> values in order; an empty value forgets the ones before, as systemd does."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] | None = None
    for line in re.sub(r"\\\n", " ", text).splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped.startswith("["):
            if not stripped.endswith("]"):
                raise ValueError(f"not a section: {stripped}")
            section = sections.setdefault(stripped[1:-1], {})
            continue
        key, equals, value = stripped.partition("=")
        if section is None or not equals:
            raise ValueError(f"not an assignment in a section: {stripped}")
        if value.strip():
            section.setdefault(key.rstrip(), []).append(value.lstrip())
        else:
            section[key.rstrip()] = []
    return sections


def command(line: str, environment: Mapping[str, str]) -> list[str]:
    """The arguments an Exec line starts, with `%%`, quotes, escapes and variables resolved.

    Raises ValueError for other specifiers (they depend on the host), and for a prefix such as "-" or "+".
    """
    if line[:1] in "@-:+!|":
        raise ValueError(f"an Exec prefix: {line}")
    arguments: list[str] = []
    for word in words(line):
        plain = _specifiers(word)
        alone = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", plain)
        if alone:
            arguments += environment.get(alone[1], "").split()
        else:
            arguments.append(_VARIABLE.sub(lambda found: environment.get(found[1], "") if found[1] else "$", plain))
    return arguments


def words(line: str) -> list[str]:
    """Split into words as systemd does: quotes anywhere, C escapes inside and outside of them."""
    found: list[str] = []
    current: list[str] | None = None
    quote = ""
    at = 0
    while at < len(line):
        char = line[at]
        at += 1
        if char == "\\":
            text, at = _escape(line, at)
            current = [*(current or []), text]
        elif quote:
            if char == quote:
                quote = ""
            else:
                current = [*(current or []), char]
        elif char in "'\"":
            quote = char
            current = current or []
        elif char in _SPACE:
            if current is not None:
                found.append("".join(current))
            current = None
        else:
            current = [*(current or []), char]
    if quote:
        raise ValueError(f"an open quote: {line}")
    if current is not None:
        found.append("".join(current))
    return found


def environment_file(text: str) -> dict[str, str]:
    """The variables of an EnvironmentFile=.

    No expansion; `#` and `;` begin a comment line; quotes count where a value or its next part begins, and may hold
    newlines. Raises ValueError for what systemd would skip in silence: a line that is no assignment, an open quote.
    """
    variables: dict[str, str] = {}
    rest = text
    while rest := rest.lstrip(_SPACE):
        line, _, after = rest.partition("\n")
        if line[0] in "#;":
            if line.endswith("\\"):
                raise ValueError(f"a comment that some versions continue: {line}")
            rest = after
            continue
        name, equals, _ = line.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"not an assignment: {line}")
        variables[name.rstrip()], rest = _value(rest[len(name) + 1 :])
    return variables


def _value(text: str) -> tuple[str, str]:
    """A value of an environment file, and the text after its line."""
    parts: list[str] = []
    rest = text.lstrip(" \t\r")
    while rest[:1] in {"'", '"'}:
        pattern = _SINGLE if rest[0] == "'" else _DOUBLE
        found = pattern.match(rest)
        if found is None:
            raise ValueError("an open quote")
        quoted = found[1]
        parts.append(quoted if pattern is _SINGLE else _DOUBLE_ESCAPE.sub(r"\1", quoted))
        rest = rest[found.end() :].lstrip(" \t\r")
    bare = _BARE.match(rest)
    if bare is None:
        raise AssertionError("the pattern matches nothing, too")
    parts.append(_BARE_ESCAPE.sub(r"\1", bare[1]))
    return "".join(parts), rest[bare.end() :]


def _escape(line: str, at: int) -> tuple[str, int]:
    if line[at : at + 1] in _ESCAPES and at < len(line):
        return _ESCAPES[line[at]], at + 1
    number = _NUMERIC.match(line, at)
    if number is None:
        raise ValueError(f"an unknown escape: {line[at - 1 :]}")
    digits = number[1] or number[2] or number[3]
    return chr(int(digits, 16) if digits else int(number[4], 8)), number.end()


def _specifiers(word: str) -> str:
    if re.search(r"%(?!%)", word.replace("%%", "")):
        raise ValueError(f"a specifier of the host: {word}")
    return word.replace("%%", "%")
