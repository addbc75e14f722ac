"""Secrets kept out of every text for people, whoever wrote the text: a library, a server that quotes what it was sent.

What is read from the environment or issued is remembered here, in this process's memory alone. `redacted` is asked
where texts leave: by every error of ours, by warnings and by the lines of `-v`. A text is redacted before it is cut, or
a part of a secret would be left.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

MARK: Final = "[secret]"
_SHORTEST: Final = 8
"""Characters. A shorter word is in ordinary text by chance, and no provider issues one."""
_forms: dict[str, frozenset[str]] = {}
"""{a secret: its forms}"""

# What is secret by its place, known or not.
_BY_PLACE: Final = (
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html
    re.compile(r"(?<=Signature=)[0-9a-fA-F]{16,}|(?<=X-Amz-Security-Token=)[^&\s]+"),
    # RFC 7235: the credentials that follow the scheme.
    re.compile(r"(?<=Bearer )(?=\S*[0-9])[\w.~+/=-]{8,}|(?<=Basic )(?=\S*[0-9=])[\w+/=-]{8,}"),
    # RFC 3986: a password before the host.
    re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]+(?=@)"),
)


def remember(*values: str) -> None:
    """Have every form of these secrets taken out of what is said from now on."""
    for value in values:
        if len(value) >= _SHORTEST and value not in _forms:
            _forms[value] = frozenset(_forms_of(value))


def remember_all(value: Any) -> None:
    """The same for every text in a plain JSON value."""
    if isinstance(value, str):
        remember(value)
    elif isinstance(value, Mapping):
        remember_all(list(value.values()))
    elif isinstance(value, Iterable):
        for item in value:
            remember_all(item)


def redacted(text: str) -> str:
    """The text without any secret that is known, or that stands where only secrets do."""
    # Another thread may remember one meanwhile.
    forms = frozenset().union(*list(_forms.values()))
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MARK)
    for pattern in _BY_PLACE:
        text = pattern.sub(MARK, text)
    return text


def plain(text: str) -> str:
    """The text without what a terminal takes for a command, or what turns its direction: servers write such, too."""
    if text.isprintable():
        return text
    return "".join(
        # A byte of a path that is no text stays what it is.
        each if each.isprintable() or each in "\n\t" or "\udc80" <= each <= "\udcff" else ascii(each)[1:-1]
        for each in text
    )


def _forms_of(value: str) -> Iterator[str]:
    """As it is, and as libraries write it: in a URL, in XML, in JSON, in Python, in Base64."""
    yield value
    yield from (
        quote(value, safe="", errors="replace"),
        quote(value, errors="replace"),
        quote_plus(value, errors="replace"),
    )
    yield from (html.escape(value), json.dumps(value)[1:-1], repr(value)[1:-1])
    raw = value.encode(errors="replace")
    for before in range(3):
        # What stands before it, as in `id:secret`, moves it by so many bytes. The first and last characters depend on
        # its neighbours, too.
        encoded = base64.b64encode(bytes(before) + raw).decode()
        inner = encoded[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))
