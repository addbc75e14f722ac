"""Configurations embedded in other files: ConfigMaps and Secrets, Helm values, variables of the playbook.

This is independent of any chart: an object or string with media settings of Synapse or datastores of
matrix-media-repo is a configuration.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import replace

from synapse_media import values
from synapse_media.homeserver import media_repo, playbook, synapse

from . import stores
from .config import kind_of, lists_module
from .reading import FILLED, TEMPLATE, Document, UnreadableError, Value, is_manifest, parse

_MARKS = (
    *(synapse.PROVIDERS, synapse.ENABLE_LOCAL_STORAGE, synapse.BACKUP_PATH, synapse.MEDIA_STORE_PATH),
    synapse.RETENTION,
)
_WORD = re.compile(
    rf"\b(?:{'|'.join((*_MARKS, synapse.MODULE_PACKAGE))}|datastores|media_store(?:age)?_providers)\b\"?\s*:"
    rf"|{synapse.MODULE_CLASS}"
)
_SEALED = ("SealedSecret", "ExternalSecret", "ClusterExternalSecret", "SecretProviderClass", "VaultStaticSecret")


def within(document: Document) -> list[Document]:
    """The configurations embedded in a file of another kind."""
    return [
        replace(found, alone=not (is_manifest(root) or found.place or "secret" in document.source.lower()))
        for root in document.roots
        for found in _in(root, document, filled=True)
    ]


def within_variables(document: Document) -> list[Document]:
    """The configurations in raw variables of the playbook, each on its own: they override its generated settings."""
    found = []
    for name, value in (document.root.items if document.root else {}).items():
        if name in (playbook.PROVIDERS, playbook.PROVIDERS_AUTO, playbook.PROVIDERS_CUSTOM):
            continue
        inside = _in(value, document, filled=False)
        found += [replace(each, place=name, mode=document.mode) for each in inside]
    return found


def is_sealed(document: Document) -> bool:
    """Whether a file only has secrets that are encrypted or kept elsewhere, so there is nothing to check."""
    kinds = [str(root.items["kind"].data) for root in document.roots if is_manifest(root)]
    return any(kind in _SEALED for kind in kinds) or any("sops" in root.items for root in document.roots)


def is_in_secret(document: Document) -> bool:
    """Whether Helm values take a configuration from a Secret, as ess-helm's `configSecret` does."""
    named = (each.items.get("configSecret") for root in document.roots for each in root.all())
    return any(name is not None and isinstance(name.data, str) for name in named)


_ELSEWHERE = ("oidc_providers", "oidc_config", "saml2_config", "cas_config", "jwt_config", "sso", "email", "modules")
"""Settings of Synapse in which templates are normal values."""


def is_filled_in(document: Document) -> bool:
    """Whether a homeserver.yaml or media-repo.yaml is a template with quoted expressions."""
    items = document.root.items if document.root else {}
    within = (each.data for name, value in items.items() if name not in _ELSEWHERE for each in value.all())
    return any(isinstance(data, str) and re.search(r"\{\{.*?\}\}|\{%.*?%\}|<%.*?%>", data) for data in within)


def _in(value: Value, document: Document, *, filled: bool) -> Iterator[Document]:
    if isinstance(value.data, str):
        yield from _in_text(value, value.data, document, filled=filled)
    elif value.items and _is_configuration(value):
        root = _marked(value) if filled else value
        yield Document(document.path, root, source=document.source)
    elif value.items and _has_variables(value):
        inside = Document(document.path, value, mode=document.mode, source=document.source)
        yield from (inside, *within_variables(inside))
    else:
        for name, item in value.items.items():
            if is_manifest(value) and name in ("data", "binaryData"):
                for each in item.items.values():
                    coded = name == "binaryData" or str(value.items["kind"].data) == "Secret"
                    yield from _in(_decoded(each) if coded else each, document, filled=filled)
            else:
                yield from _in(_as_providers(name, item), document, filled=filled)
        for item in value.entries:
            yield from _in(item, document, filled=filled)


def _as_providers(name: str, value: Value) -> Value:
    """Rename a list of storage providers under a chart's own key to Synapse's; return anything else unchanged."""
    if name == "modules" or not lists_module(value):
        return value
    return replace(value, data={synapse.PROVIDERS: value})


def _has_variables(value: Value) -> bool:
    """Whether these are variables of the playbook, in an inventory or a play."""
    return any(name in playbook.KNOWN for name in value.items) or lists_module(value.items.get(stores.PLAYBOOK_MODULES))


def _is_configuration(value: Value) -> bool:
    if any(name in value.items for name in _MARKS) or lists_module(value.items.get("modules")):
        return True
    datastores = value.items.get("datastores")
    return datastores is not None and any(
        media_repo.FOR_KINDS in entry.items or "opts" in entry.items for entry in datastores.entries
    )


def _decoded(value: Value) -> Value:
    """The decoded value of a Secret's `data` or a ConfigMap's `binaryData`; unchanged if it is not one of a text."""
    if not isinstance(value.data, str):
        return value
    try:
        text = base64.b64decode("".join(value.data.split()), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return value
    return Value(text, value.file, value.line, text, quoted=True)


def _in_text(value: Value, text: str, document: Document, *, filled: bool) -> Iterator[Document]:
    if not _WORD.search(text):
        return
    offset = value.line if value.block else value.line - 1
    try:
        roots, duplicates = parse(text, document.path, offset=offset if value.block else 0, filled=filled)
    except UnreadableError as error:
        if re.search(r"\{\{|\{%|<%", text):
            yield Document(document.path, template=TEMPLATE, line=value.line)
        else:
            yield Document(document.path, problem=error.problem, line=error.line if value.block else value.line)
        return
    for root in roots:
        if not (root.items or root.entries):
            continue
        at = root if value.block else _moved(root, value.line)
        found = Document(document.path, at if at.items else None, duplicates=duplicates, source=document.source)
        if kind_of(found) is not None:
            yield found
        else:
            yield from _in(at, document, filled=filled)


def _moved(value: Value, line: int) -> Value:
    """A value of a one-line string, with the line of that string."""
    data = value.data
    if isinstance(data, dict):
        data = {name: _moved(item, line) for name, item in data.items()}
    elif isinstance(data, tuple):
        data = tuple(_moved(item, line) for item in data)
    return replace(value, data=data, line=line)


def _marked(value: Value) -> Value:
    """The value with the tag FILLED on what will be substituted, as `parse` sets it."""
    data = value.data
    if isinstance(data, dict):
        data = {name: _marked(item) for name, item in data.items()}
    elif isinstance(data, tuple):
        data = tuple(_marked(item) for item in data)
    elif isinstance(data, str) and values.expansion("", data):
        return replace(value, tag=FILLED)
    return replace(value, data=data)
