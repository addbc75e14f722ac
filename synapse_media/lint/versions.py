"""The releases of Synapse and its module that files pin: variables, image tags, requirements, Dockerfiles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from synapse_media import values
from synapse_media.homeserver import playbook, synapse

from .reading import Document, Value

_PINS = {
    "module": re.compile(
        r"synapse[-_]s3[-_]storage[-_]provider(?:\[[\w,]*\])?(?:\.git)?[\"']?\s*"
        r"(?:[=~]=+\s*|=\s*[\"'][=^~v]*|@\s*v?|<=\s*|/archive/(?:refs/tags/)?v?)(\d+(?:\.\d+)+)",
        re.IGNORECASE,
    ),
    "synapse": re.compile(
        r"(?:^|[\s\"'/=])(?:matrixdotorg|element-hq|matrix-org)/synapse:v?(\d+(?:\.\d+)+)"
        r"|\bmatrix[-_]synapse(?:\[[\w,-]*\])?[\"']?\s*(?:[=~]=+\s*|=\s*[\"'][=^~v]*)(\d+(?:\.\d+)+)",
        re.IGNORECASE,
    ),
}
_UNPINNED = re.compile(
    r"(?:\bpip\d?\b.*\binstall\b.*|^)\bsynapse[-_]s3[-_]storage[-_]provider"
    r"(?:\.git|/archive/(?:refs/heads/)?(?:main|master)\.(?:zip|tar\.gz))?[\"']?(?:\s|$)"
)
"""An installation of the module without a release."""
_ARGUMENTS = re.compile(r"\s*(?:ARG|ENV)\s", re.IGNORECASE)
_ARGUMENT = re.compile(r"\s(\w+)=(\"[^\"]*\"|'[^']*'|\S+)")
_USE = re.compile(r"\$\{(\w+)(?::?-[^{}]*)?\}|\$(\w+)")
"""The ARG and ENV of a Dockerfile, and their use."""
_VARIABLES = {
    "module": (playbook.MODULE_VERSION,),
    "synapse": playbook.SYNAPSE_VERSIONS,
}


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned release and its place. `newest`: none is pinned, so that pip installs the newest."""

    numbers: values.Version
    at: Value
    setting: str
    newest: bool = False


@dataclass(frozen=True, slots=True)
class Pins:
    """The pinned releases that are known."""

    module: Pin | None = None
    synapse: Pin | None = None

    def over(self, other: Pins) -> Pins:
        """These pins, completed by those of `other`."""
        return Pins(self.module or other.module, self.synapse or other.synapse)

    def __bool__(self) -> bool:
        return bool(self.module or self.synapse)


def of(documents: Iterable[Document]) -> Pins:
    """The pins of several files; the last of each wins."""
    found: dict[str, Pin] = {}
    for document in documents:
        for name, value in (document.root.items if document.root else {}).items():
            for what, variables in _VARIABLES.items():
                numbers = values.version(value.text) if name in variables else None
                if numbers:
                    found[what] = Pin(numbers, value, name)
        found |= dict(_written(document))
        found |= dict(_of_images(document))
    return Pins(found.get("module"), found.get("synapse"))


def _written(document: Document) -> Iterator[tuple[str, Pin]]:
    arguments: dict[str, str] = {}
    for number, line in enumerate(document.source.splitlines(), 1):
        code = re.sub(r"(?:^|\s)#.*", "", line)
        if _ARGUMENTS.match(code):
            # Their defaults; a build may be given others.
            arguments |= {name: value.strip("\"'") for name, value in _ARGUMENT.findall(code)}
        elif arguments:
            code = _resolved(code, arguments)
        for what, pattern in _PINS.items():
            for match in pattern.finditer(code):
                text = next(group for group in match.groups() if group)
                numbers = values.version(text)
                if numbers:
                    setting = synapse.MODULE_DISTRIBUTION if what == "module" else "Synapse"
                    yield what, Pin(numbers, Value(None, document.path, number), setting)
        if _UNPINNED.search(code.strip()) and not _PINS["module"].search(code):
            newest = values.version(synapse.MODULE_VERSION) or ()
            yield "module", Pin(newest, Value(None, document.path, number), synapse.MODULE_DISTRIBUTION, newest=True)


def _resolved(code: str, arguments: Mapping[str, str]) -> str:
    return _USE.sub(lambda use: arguments.get(use[1] or use[2], use[0]), code)


def _of_images(document: Document) -> Iterator[tuple[str, Pin]]:
    """`image: {repository: …/synapse, tag: v1.130.0}`, as charts have it."""
    for root in document.roots:
        for value in _mappings(root, ""):
            path, items = value
            tag, repository = items.items.get("tag"), items.items.get("repository")
            if tag is None or not isinstance(tag.data, str | int | float):
                continue
            named = str(repository.data) if repository else path
            numbers = values.version(tag.text)
            if numbers and re.search(r"(?:^|[/.])synapse(?:\.image)?$", named):
                yield "synapse", Pin(numbers, tag, f"{path}.tag".lstrip("."))


def _mappings(value: Value, path: str) -> Iterator[tuple[str, Value]]:
    if value.items:
        yield path, value
    for name, item in value.items.items():
        yield from _mappings(item, f"{path}.{name}".lstrip("."))
    for item in value.entries:
        yield from _mappings(item, path)
