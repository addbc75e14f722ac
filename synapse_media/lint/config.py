"""Files to configurations: which kind a file is, and what its program makes of several together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from synapse_media import catalog, values
from synapse_media.homeserver.synapse import MEDIA_SETTINGS, MODULE_VERSION

from .reading import FILLED, Document, Value
from .versions import Pins


class Kind(StrEnum):
    """Whose configuration a file is."""

    SYNAPSE = "homeserver.yaml"
    PLAYBOOK = "playbook variables"
    MEDIA_REPO = "media-repo.yaml"


_SYNAPSE = {
    *MEDIA_SETTINGS,
    *("server_name", "report_stats", "listeners", "pid_file", "public_baseurl", "log_config", "signing_key_path"),
    *("trusted_key_servers", "registration_shared_secret", "macaroon_secret_key", "form_secret", "worker_app"),
    *("enable_registration", "web_client_location", "max_upload_size", "url_preview_enabled", "turn_uris"),
    *("suppress_key_server_warning", "app_service_config_files", "instance_map", "password_config"),
}
_MEDIA_REPO = {
    *("repo", "homeservers", "datastores", "archiving", "uploads", "downloads", "urlpreviews", "sharedsecretauth"),
    *("accesstokens", "featuresupport", "pgo", "thumbnails", "ratelimit"),
}


def misspelt(name: str, known: Iterable[str], alike: float = 0.84) -> str:
    """The known name that `name` was probably meant to be; "" where it is one, or is like none."""
    import difflib

    names = list(known)
    if name in names:
        return ""
    found = difflib.get_close_matches(name, names, n=1, cutoff=alike)
    return found[0] if found else ""


def misspelt_media_setting(name: str) -> str:
    """Synapse's media setting that a top-level key was meant to be, or ""."""
    return misspelt(name, MEDIA_SETTINGS) if "media" in name.lower() else ""


def kind_of(document: Document) -> Kind | None:
    """Whose configuration this is, by its top-level keys; None where they do not tell."""
    names = list(document.root.items) if document.root else []
    scores = {
        Kind.SYNAPSE: sum(name in _SYNAPSE or bool(misspelt_media_setting(name)) for name in names),
        Kind.PLAYBOOK: sum(bool(re.match(r"(?:matrix|devture)_[a-z]", name)) for name in names),
        Kind.MEDIA_REPO: sum(name.lower() in _MEDIA_REPO for name in names),
    }
    kind = max(scores, key=lambda candidate: scores[candidate])
    return kind if scores[kind] else None


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of a store.

    `value` is None where it is not set. Only a literal is judged: not a template, nor what a vault or sops holds.
    """

    setting: str
    value: Value | None
    literal: bool

    @property
    def given(self) -> bool:
        return self.value is not None and self.value.data is not None

    @property
    def text(self) -> str:
        """As text; "" where it is not set or not literal."""
        return str(self.value.data) if self.given and self.literal and self.value is not None else ""

    @property
    def empty(self) -> bool:
        """Not set, or set to nothing: for sure."""
        return not self.given or (self.literal and self.text == "")


@dataclass(frozen=True, slots=True)
class ConfiguredStore:
    """A store as a configuration reaches it.

    Attributes:
        method: as in METHODS.
        where: what a finding on the whole points at.
        enabled: None where a template decides.
        keyless: no key is needed here: the machine's role, or the environment, has it.
        fields: bucket, region, endpoint, prefix, storage_class, access_key_id, secret_access_key.
    """

    method: str
    where: Value
    enabled: bool | None
    keyless: bool
    fields: Mapping[str, Field]


@dataclass(frozen=True, slots=True)
class Config:
    """What one program makes of its files together.

    Attributes:
        settings: top-level settings; a later file wins.
        earlier: those that a later file replaced.
        ignored: documents of a directory that the program does not read.
        hidden: an encrypted file is among those given, so that what is missing here may be there.
        pins: the releases that these files, or others given, name.
    """

    kind: Kind
    documents: tuple[Document, ...]
    settings: Mapping[str, Value]
    earlier: tuple[tuple[str, Value, Value], ...] = ()
    ignored: tuple[Document, ...] = ()
    hidden: bool = False
    stores: tuple[ConfiguredStore, ...] = ()
    pins: Pins = field(default_factory=Pins)

    @property
    def module_version(self) -> values.Version | None:
        """The module's release, where it is known."""
        return self.pins.module.numbers if self.pins.module else None

    @property
    def module_said(self) -> str:
        """The release of the module that a reason speaks of: the pinned one, or ours."""
        return values.written(self.module_version) if self.module_version else MODULE_VERSION

    @property
    def start(self) -> Value:
        """The beginning of the first file, for what is missing as a whole."""
        return Value(None, self.documents[0].path, 1)

    def field(self, name: str) -> Field:
        return field_of(name, self.settings.get(name), self.kind)

    def flag(self, name: str, default: bool | None) -> bool | None:
        """A switch as its program takes it; `default` where it is not set, None where nobody can tell from here."""
        found = self.field(name)
        if not found.given:
            return default
        return as_flag(found)


def field_of(setting: str, value: Value | None, kind: Kind) -> Field:
    literal = True
    if value is not None:
        kept_elsewhere = isinstance(value.data, str) and values.is_reference(value.data)
        literal = value.tag == "!unsafe" or (value.tag not in ("!vault", FILLED) and not kept_elsewhere)
        literal = literal and (kind is not Kind.SYNAPSE or not isinstance(value.data, dict | tuple))
    return Field(setting, value, literal)


def as_flag(found: Field) -> bool | None:
    """true and false, as a bool or as Ansible's words; None for anything else."""
    if isinstance(found.value.data if found.value else None, bool):
        return found.text == "True"
    return {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }.get(found.text.lower())


def merge(kind: Kind, documents: Sequence[Document], ignored: Iterable[Document] = ()) -> Config:
    """Merge by top-level key, the later file wins: so do Synapse, Ansible and matrix-media-repo."""
    settings: dict[str, Value] = {}
    earlier: list[tuple[str, Value, Value]] = []
    for document in documents:
        for name, value in (document.root.items if document.root else {}).items():
            if name in settings:
                earlier.append((name, settings[name], value))
            settings[name] = value
    return Config(kind, tuple(documents), settings, tuple(earlier), tuple(ignored))


@dataclass(slots=True)
class _Group:
    kind: Kind
    documents: list[Document] = field(default_factory=list)
    ignored: list[Document] = field(default_factory=list)


def group(found: Iterable[tuple[Document, bool]]) -> tuple[list[Config], list[Document]]:
    """Configurations, and the documents whose kind nobody could tell.

    All of Synapse's files are one configuration, in their order; those of the playbook and of matrix-media-repo are
    one a directory, in the order of their names.

    Args:
        found: documents, and whether each was found in a directory rather than named.
    """
    groups: dict[tuple[Kind, str], _Group] = {}
    unknown: list[Document] = []
    for document, in_directory in found:
        kind = kind_of(document)
        if kind is None or document.root is None:
            unknown.append(document)
            continue
        place = "" if kind is Kind.SYNAPSE else str(Path(document.path).parent)
        if document.place:
            place = f"{document.path}:{document.place}"
        into = groups.setdefault((kind, place), _Group(kind))
        if kind is Kind.SYNAPSE and in_directory and not document.place and not document.path.endswith(".yaml"):
            into.ignored.append(document)
        else:
            into.documents.append(document)
    configs = []
    for each in groups.values():
        if each.kind is not Kind.SYNAPSE:
            each.documents.sort(key=lambda document: Path(document.path).name)
        configs.append(merge(each.kind, each.documents or each.ignored, each.ignored))
    return configs, unknown


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or ""."""
    guess = catalog.nearest(name, known)
    return f"Did you mean {guess!r}? " if guess else ""
