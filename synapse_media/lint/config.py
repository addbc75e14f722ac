"""From files to configurations: the kind of a file, and how its program merges several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from synapse_media import catalog, values
from synapse_media.homeserver import playbook
from synapse_media.homeserver.synapse import ENABLE_MEDIA_REPO, MEDIA_SETTINGS, MODULE_VERSION

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
    """The known name that `name` is probably a misspelling of; "" if it is known, or similar to none."""
    import difflib

    names = list(known)
    if name in names:
        return ""
    found = difflib.get_close_matches(name, names, n=1, cutoff=alike)
    return found[0] if found else ""


def misspelt_media_setting(name: str) -> str:
    """Synapse's media setting that a top-level key is a misspelling of, or ""."""
    return misspelt(name, MEDIA_SETTINGS) if "media" in name.lower() else ""


_MODULE = re.compile(r"s3[-_. ]?storage[-_. ]?provider", re.IGNORECASE)


def is_module(entry: Value) -> bool:
    """Whether a storage provider is meant to be the S3 module, even if its name is misspelt."""
    module = entry.items.get("module")
    return module is not None and _MODULE.search(str(module.data)) is not None


def lists_module(value: Value | None) -> bool:
    """Whether this is a list with the S3 module."""
    return any(is_module(entry) for entry in (value.entries if value else ()))


def kind_of(document: Document) -> Kind | None:
    """The kind of a document by its top-level keys; None if they don't determine it."""
    names = list(document.root.items) if document.root else []
    misplaced = document.root is not None and lists_module(document.root.items.get("modules"))
    scores = {
        Kind.SYNAPSE: sum(name in _SYNAPSE or bool(misspelt_media_setting(name)) for name in names) + misplaced,
        Kind.PLAYBOOK: sum(bool(re.match(r"(?:matrix|devture)_[a-z]", name)) for name in names),
        Kind.MEDIA_REPO: sum(name.lower() in _MEDIA_REPO for name in names),
    }
    kind = max(scores, key=lambda candidate: scores[candidate])
    return kind if scores[kind] else None


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of a store.

    `value` is None if it is not set. Only literals are checked, not templates or values kept by Vault or SOPS.
    """

    setting: str
    value: Value | None
    literal: bool

    @property
    def given(self) -> bool:
        return self.value is not None and self.value.data is not None

    @property
    def text(self) -> str:
        """Its text; "" if it is not set or not a literal."""
        return str(self.value.data) if self.given and self.literal and self.value is not None else ""

    @property
    def empty(self) -> bool:
        """Whether it is certainly not set, or empty."""
        return not self.given or (self.literal and self.text == "")


@dataclass(frozen=True, slots=True)
class ConfiguredStore:
    """A store in a configuration.

    Attributes:
        method: a key of METHODS.
        where: the place of findings on the store as a whole.
        enabled: None if a template decides.
        keyless: no key is needed here, since the machine's role or the environment provides it.
        fields: bucket, region, endpoint, prefix, storage_class, access_key_id, secret_access_key.
    """

    method: str
    where: Value
    enabled: bool | None
    keyless: bool
    fields: Mapping[str, Field]


@dataclass(frozen=True, slots=True)
class Config:
    """The merged configuration of one program.

    Attributes:
        settings: top-level settings; a later file wins.
        earlier: (name, replaced value, value of the later file).
        ignored: documents of a directory that the program does not read.
        hidden: one of the files is encrypted, so a missing setting may be in it.
        pins: the releases pinned by these or other given files.
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
        """The module's release, if known."""
        return self.pins.module.numbers if self.pins.module else None

    @property
    def module_said(self) -> str:
        """The module's release for messages: the pinned one, else the one that is rendered here."""
        return values.written(self.module_version) if self.module_version else MODULE_VERSION

    @property
    def start(self) -> Value:
        """The start of the first file, for findings on something missing."""
        return Value(None, self.documents[0].path, 1)

    def field(self, name: str) -> Field:
        return field_of(name, self.settings.get(name), self.kind)

    def flag(self, name: str, default: bool | None) -> bool | None:
        """A boolean as its program reads it; `default` if it is not set, None if it can't be determined."""
        found = self.field(name)
        if self.kind is Kind.SYNAPSE and found.value is not None:
            return counts(found, name) if found.literal else None
        if not found.given:
            return default
        if self.kind is Kind.PLAYBOOK and found.literal and name not in playbook.AS_BOOLEAN and is_false_word(found):
            return None if name in playbook.ALSO_AS_BOOLEAN else True
        return as_flag(found)


def field_of(setting: str, value: Value | None, kind: Kind) -> Field:
    literal = True
    if value is not None:
        kept_elsewhere = isinstance(value.data, str) and values.is_reference(value.data)
        # Synapse's reader rejects any tag but YAML's own, which is reported by unknown-tag.
        by_others = value.tag in ("!vault", FILLED) or (kind is Kind.SYNAPSE and value.tag != "")
        literal = value.tag == "!unsafe" or not (by_others or kept_elsewhere)
        literal = literal and (kind is not Kind.SYNAPSE or not isinstance(value.data, dict | tuple))
    return Field(setting, value, literal)


def counts(found: Field, name: str) -> bool:
    """Whether Synapse counts a value as true: its media repository is disabled by false alone, the rest by any empty
    value."""
    data = found.value.data if found.value else None
    return data is not False if name == ENABLE_MEDIA_REPO else bool(data)


def is_false_word(found: Field) -> bool:
    """Whether it is a string that means false, such as 'no', but is not one to a program that doesn't convert it."""
    return isinstance(found.value.data if found.value else None, str) and bool(found.text) and not as_flag(found)


def as_flag(found: Field) -> bool | None:
    """The boolean value, also of Ansible's words for one; None for anything else."""
    if isinstance(found.value.data if found.value else None, bool):
        return found.text == "True"
    return {
        "true": True,
        "yes": True,
        "on": True,
        "y": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "n": False,
        "0": False,
    }.get(found.text.lower())


def merge(kind: Kind, documents: Sequence[Document], ignored: Iterable[Document] = ()) -> Config:
    """Merge by top-level key; the later file wins, as for Synapse, Ansible and matrix-media-repo."""
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
    """The configurations, and the documents of unknown kind.

    All of Synapse's files form one configuration, in their order; those of the playbook and of matrix-media-repo form
    one per directory, in the order of their names. An inventory has one per host, with the variables of its groups; a
    file of matrix-media-repo for one domain is a configuration of its own.

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
        place = "" if kind is Kind.SYNAPSE else _place(document, kind)
        if document.place:
            place = f"{document.path}:{document.place}"
        into = groups.setdefault((kind, place), _Group(kind))
        if kind is Kind.SYNAPSE and in_directory and not document.place and not document.path.endswith(".yaml"):
            into.ignored.append(document)
        else:
            into.documents.append(document)
    _add_group_variables(groups)
    configs = []
    for each in groups.values():
        if each.kind is not Kind.SYNAPSE:
            each.documents.sort(key=lambda document: (_rank(document), Path(document.path).name))
        configs.append(merge(each.kind, each.documents or each.ignored, each.ignored))
    return configs, unknown


def _place(document: Document, kind: Kind) -> str:
    """What the files of one configuration have in common: their directory, host or domain."""
    path = Path(document.path)
    domain = document.root.items.get("homeserver") if document.root else None
    if kind is Kind.MEDIA_REPO and domain is not None and isinstance(domain.data, str):
        return f"{path.parent}:{domain.data}"
    of_host = path.parent.name == "host_vars"
    return str(path.with_suffix("") if of_host and path.suffix in (".yml", ".yaml") else path.parent)


def _rank(document: Document) -> int:
    """Which variables Ansible prefers: those of a host to those of a group, and these to those of all."""
    parts = Path(document.path).with_suffix("").parts
    return 2 if "group_vars" not in parts else 1 if "all" not in parts else 0


def _add_group_variables(groups: dict[tuple[Kind, str], _Group]) -> None:
    """Add the variables of an inventory's groups to each of its hosts."""
    hosts: dict[Path, list[_Group]] = {}
    shared: dict[Path, list[tuple[Kind, str]]] = {}
    for (kind, place), each in groups.items():
        parts = Path(place).parts
        for name in ("host_vars", "group_vars"):
            if kind is Kind.PLAYBOOK and name in parts and not any(document.place for document in each.documents):
                inventory = Path(*parts[: parts.index(name)])
                if name == "host_vars":
                    hosts.setdefault(inventory, []).append(each)
                else:
                    shared.setdefault(inventory, []).append((kind, place))
    for inventory, of_hosts in hosts.items():
        for key in shared.get(inventory, ()):
            documents = groups.pop(key).documents
            for each in of_hosts:
                each.documents += documents


def shown_name(name: str) -> str:
    """An unknown name of a setting, without what no such name has in it.

    In `{secret_access_key:wJal…}`, where the blank after the colon is missing, the secret is a part of the name.
    """
    bare = re.split(r"\W", name, maxsplit=1, flags=re.ASCII)[0]
    if len(bare) > _LONGEST_NAME:
        return "…"
    return name if bare == name else f"{bare}…"


_LONGEST_NAME = 30
"""Characters of the names of options, which are shorter; secrets are longer."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or ""."""
    guess = catalog.nearest(name, known)
    return f"Did you mean {guess!r}? " if guess else ""
