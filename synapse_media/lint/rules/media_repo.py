"""Checks of matrix-media-repo's datastores, in its own file and in the playbook's variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from synapse_media import values
from synapse_media.homeserver import media_repo, playbook
from synapse_media.lint import references, stores
from synapse_media.lint.config import Config, Kind, as_flag, field_of, nearest, shown_name
from synapse_media.lint.findings import Hit, Severity, rule
from synapse_media.lint.reading import Value
from synapse_media.lint.rules.store import changed_by_go
from synapse_media.methods import MEDIA_REPO

_FILE_ONLY = (Kind.MEDIA_REPO,)
_BOTH = (Kind.PLAYBOOK, Kind.MEDIA_REPO)
_KEYS = ("id", "type", media_repo.FOR_KINDS, "opts")
_OPTIONS = {
    "file": ("path",),
    "s3": (
        *media_repo.S3_OPTIONS.values(),
        *(
            media_repo.TLS,
            "tempPath",
            media_repo.PUBLIC_URL,
            "redirectWhenCached",
            media_repo.PREFIX_LENGTH,
            "multipartUploads",
        ),
    ),
}
_ENABLED = "enabled"
"""A key of a datastore before 1.2, which is no longer read."""
_BOOLEANS = ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False", "")
_NO_TEXT = "unquoted, YAML does not parse it as a string, so the id becomes another"
_EXAMPLES = ("UNIQUE_ID_HERE", "ANOTHER_UNIQUE_ID_HERE", "CHANGE_ME_TO_A_UNIQUE_VALUE")


@dataclass(frozen=True, slots=True)
class _Datastore:
    """A datastore, in either kind of file. `kinds` is None if a template decides."""

    setting: str
    at: Value
    kinds: tuple[str, ...] | None


def _datastores(config: Config) -> Iterator[_Datastore]:
    """The datastores that are certainly defined."""
    if config.kind is Kind.MEDIA_REPO:
        for setting, entry in stores.datastores(config):
            yield _Datastore(
                f"{setting}.{media_repo.FOR_KINDS}", entry, _kinds(entry.items.get(media_repo.FOR_KINDS), ())
            )
        return
    if config.flag(playbook.MEDIA_REPO_ENABLED, default=False) is not True:
        return
    for name, enabled, default in (
        (playbook.FILE_KINDS, playbook.FILE_ENABLED, media_repo.KINDS),
        (playbook.S3_KINDS, playbook.S3_ENABLED, ()),
    ):
        found = config.field(name)
        kinds = _kinds(found.value, default) if found.literal else None
        if config.flag(enabled, default=None if kinds is None else bool(kinds)):
            at = found.value or config.settings[playbook.MEDIA_REPO_ENABLED]
            yield _Datastore(found.setting, at, kinds)


NO_LIST = "it must be a list, or matrix-media-repo rejects the file, and does not start"


def _is_no_list(value: Value) -> bool:
    return value.data is not None and not isinstance(value.data, tuple)


def _kinds(value: Value | None, default: tuple[str, ...]) -> tuple[str, ...] | None:
    if value is None:
        return default
    if _is_no_list(value):
        return None
    named = tuple(str(entry.data) for entry in value.entries)
    return media_repo.KINDS if "all" in named else named


@rule(
    "kinds-overlap",
    Severity.WARNS,
    "Two datastores accept the same kind; the last one gets all of it, not the one with the least data.",
    references.MEDIA_REPO_SAMPLE,
    _BOTH,
)
def kinds_overlap(config: Config) -> Iterable[Hit]:
    seen: dict[str, str] = {}
    for datastore in _datastores(config):
        twice = [kind for kind in datastore.kinds or () if kind in seen]
        if twice:
            also = "" if datastore.kinds is None else f" ({seen[twice[0]]} accepts them as well)"
            unset = " (not set; the default is all four)" if seen[twice[0]] == playbook.FILE_KINDS else ""
            yield Hit(
                datastore.at,
                datastore.setting,
                f"{', '.join(twice)}{also}{unset}: matrix-media-repo {media_repo.VERSION} uses the last of "
                "them, not the smallest as documented",
                "List each kind in one datastore. `[]` makes the other one read-only.",
            )
        for kind in datastore.kinds or ():
            seen.setdefault(kind, datastore.setting)


@rule(
    "kind-unstored",
    Severity.BREAKS,
    "A kind that no datastore accepts: its uploads fail.",
    references.MEDIA_REPO_SAMPLE,
    _BOTH,
)
def kind_unstored(config: Config) -> Iterable[Hit]:
    found = list(_datastores(config))
    listed = config.settings.get("datastores")
    if not found and listed is not None and not listed.data and not config.hidden:
        reason = "there is no datastore: uploads fail with `unable to locate a usable datastore`"
        yield Hit(listed, "datastores", reason, "Add one, with each of the four kinds.")
    if not found or any(datastore.kinds is None for datastore in found) or config.hidden:
        return
    taken = {kind for datastore in found for kind in datastore.kinds or ()}
    missing = [kind for kind in media_repo.KINDS if kind not in taken]
    if missing:
        last = found[-1]
        yield Hit(
            last.at,
            last.setting,
            f"no datastore accepts {', '.join(missing)}: uploads fail with `unable to locate a usable datastore`",
            "List each of the four kinds in one datastore.",
        )


@rule(
    "kind-unknown", Severity.BREAKS, "A kind that matrix-media-repo does not know.", references.MEDIA_REPO_SAMPLE, _BOTH
)
def kind_unknown(config: Config) -> Iterable[Hit]:
    for datastore in _datastores(config):
        for kind in datastore.kinds or ():
            if kind not in media_repo.KINDS:
                yield Hit(
                    datastore.at,
                    datastore.setting,
                    f"{kind[:40]!r} is not a kind, and is silently ignored",
                    f"{nearest(kind, media_repo.KINDS)}The kinds are {', '.join(media_repo.KINDS)}.",
                )


@rule(
    "datastore-id",
    Severity.BREAKS,
    "A datastore without a unique id, by which matrix-media-repo finds media.",
    references.MEDIA_REPO,
    _BOTH,
)
def datastore_id(config: Config) -> Iterable[Hit]:
    if config.kind is Kind.PLAYBOOK:
        yield from _variable_ids(config)
        return
    seen: dict[str, str] = {}
    for setting, entry in stores.datastores(config):
        value = entry.items.get("id")
        place = f"{setting}.id"
        text = "" if value is None or value.data is None else value.text
        if not text:
            yield Hit(
                value or entry,
                place,
                "a datastore without an id can't be identified",
                "In an existing installation, use its former id, which the database has (datastore_id in the media "
                "table). In a new one, choose an id, which can never change.",
            )
        elif text in seen:
            yield Hit(
                value or entry,
                place,
                f"{seen[text]} has the same id",
                "Give the newer one another id, before it stores anything.",
            )
        else:
            seen[text] = place
        if value is not None and not value.quoted and changed_by_go(text):
            yield Hit(value, place, _NO_TEXT, "Quote it.")


def _variable_ids(config: Config) -> Iterator[Hit]:
    given: dict[str, str] = {}
    for datastore in _datastores(config):
        is_file = datastore.setting == playbook.FILE_KINDS
        found = config.field(playbook.FILE_ID if is_file else playbook.S3_ID)
        if found.empty and not config.hidden:
            way = f"; or, without a file datastore, set {playbook.FILE_KINDS}: []" if is_file else ""
            yield Hit(
                datastore.at,
                found.setting,
                "the datastore is defined without an id, which the playbook rejects",
                "In an existing installation, run `grep id: …/media-repo.yaml` on the server. In a new one, choose an "
                f"id, which can never change{way}.",
            )
        elif found.text and found.text in given:
            yield Hit(
                found.value or datastore.at,
                found.setting,
                f"{given[found.text]} has the same id",
                "Give each its own id.",
            )
        given.setdefault(found.text, found.setting)
        value = found.value
        if value is not None and found.text and not (value.quoted or value.tag) and found.text != value.text:
            yield Hit(value, found.setting, _NO_TEXT, "Quote it.")


@rule(
    "datastore-id-example",
    Severity.WARNS,
    "A datastore has the id of the sample configuration.",
    references.MEDIA_REPO_SAMPLE,
    _BOTH,
)
def datastore_id_example(config: Config) -> Iterable[Hit]:
    if config.kind is Kind.MEDIA_REPO:
        found = [(f"{setting}.id", entry.items.get("id")) for setting, entry in stores.datastores(config)]
    else:
        names = (playbook.FILE_ID, playbook.S3_ID)
        found = [(name, config.settings.get(name)) for name in names]
    for setting, value in found:
        if value is not None and value.data in _EXAMPLES:
            yield Hit(
                value,
                setting,
                "this is the id of the sample configuration",
                "Choose an id before the first use; after that it can never change.",
            )


@rule(
    "file-store-dropped",
    Severity.BREAKS,
    "The file datastore has an id but is no longer defined: its media becomes unreachable.",
    references.PLAYBOOK_MEDIA_REPO,
    (Kind.PLAYBOOK,),
)
def file_store_dropped(config: Config) -> Iterable[Hit]:
    if config.flag(playbook.MEDIA_REPO_ENABLED, default=False) is not True:
        return
    identity, kinds = config.field(playbook.FILE_ID), config.field(playbook.FILE_KINDS)
    none_taken = kinds.given and kinds.literal and kinds.value is not None and not kinds.value.entries
    off = config.flag(playbook.FILE_ENABLED, default=not none_taken) is False
    if off and not identity.empty:
        yield Hit(
            kinds.value or identity.value or config.start,
            playbook.FILE_ENABLED,
            "the file datastore has an id but is not defined: as long as the database lists media in it, "
            "matrix-media-repo does not start",
            f"Set {playbook.FILE_ENABLED}: true and keep {playbook.FILE_KINDS}: [] (read-only) until its media has "
            "been transferred.",
        )


@rule(
    "datastore-lost",
    Severity.BREAKS,
    "A later file replaces the list of datastores and omits one of an earlier file.",
    references.MEDIA_REPO,
    _FILE_ONLY,
)
def datastore_lost(config: Config) -> Iterable[Hit]:
    kept = {entry.items["id"].text for _, entry in stores.datastores(config) if "id" in entry.items}
    for name, before, after in config.earlier:
        if name != "datastores":
            continue
        ids = [entry.items["id"].text for entry in before.entries if "id" in entry.items]
        lost = [text for text in ids if text not in kept]
        if lost:
            yield Hit(
                after,
                name,
                f"it replaces the list in {before.file}:{before.line}, so {', '.join(map(repr, lost))} is lost: as "
                "long as the database lists media there, matrix-media-repo does not start",
                "Put all datastores into the last list.",
            )


@rule(
    "datastore-form",
    Severity.BREAKS,
    "An unknown or wrongly capitalized key of a datastore, an invalid type, or an option that is not a string.",
    references.MEDIA_REPO_SAMPLE,
    _FILE_ONLY,
)
def datastore_form(config: Config) -> Iterable[Hit]:
    for name, value in config.settings.items():
        if name != "datastores" and name.lower() == "datastores":
            yield Hit(
                value, name, "it is silently ignored: matrix-media-repo's keys are case-sensitive", "Write datastores."
            )
    listed = config.settings.get("datastores")
    if listed is not None and listed.data is not None and not isinstance(listed.data, tuple):
        yield Hit(listed, "datastores", "it must be a list, or the file is rejected", "Begin each datastore with '- '.")
    for setting, entry in stores.datastores(config):
        yield from _unknown(setting, entry, _KEYS)
        kinds = entry.items.get(media_repo.FOR_KINDS)
        if kinds is not None and _is_no_list(kinds):
            yield Hit(kinds, f"{setting}.{media_repo.FOR_KINDS}", NO_LIST, f"Write [{kinds.text[:40]}].")
        kind, opts = entry.items.get("type"), entry.items.get("opts")
        known = _OPTIONS.get(str(kind.data)) if kind is not None else None
        if known is None:
            yield Hit(
                kind or entry, f"{setting}.type", "it is neither 'file' nor 's3'", "Write `type: file` or `type: s3`."
            )
            continue
        if opts is None or not opts.items:
            yield Hit(entry, f"{setting}.opts", "a datastore without options can't store anything", "Add its `opts:`.")
            continue
        yield from _unknown(f"{setting}.opts", opts, known)
        for name, option in opts.items.items():
            if isinstance(option.data, dict | tuple):
                yield Hit(
                    option,
                    f"{setting}.opts.{shown_name(name)}",
                    "an option must be a string, or the file is rejected",
                    "Write a string.",
                )
        if known == _OPTIONS["file"] and "path" not in opts.items:
            yield Hit(opts, f"{setting}.opts.path", "a file datastore needs a path", "Set it to the directory.")


def _unknown(place: str, mapping: Value, known: tuple[str, ...]) -> Iterator[Hit]:
    for name, value in mapping.items.items():
        if name == _ENABLED and known == _KEYS:
            continue  # reported by datastore-enabled and datastore-disabled
        if name not in known:
            guess = next((right for right in known if right.lower() == name.lower()), "")
            mend = f"Write {guess}: keys are case-sensitive." if guess else f"{nearest(name, known)}Fix or remove it."
            yield Hit(value, f"{place}.{shown_name(name)}", "matrix-media-repo silently ignores it", mend)


def _switches(config: Config, *, off: bool) -> Iterator[tuple[str, Value, Value]]:
    for setting, entry in stores.datastores(config):
        found = entry.items.get(_ENABLED)
        if found is None:
            continue
        kinds = entry.items.get(media_repo.FOR_KINDS)
        takes = kinds is not None and bool(kinds.entries)
        is_off = takes and as_flag(field_of("", found, config.kind)) is False
        if is_off == off:
            yield f"{setting}.{_ENABLED}", found, entry


@rule(
    "datastore-disabled",
    Severity.BREAKS,
    "`enabled: false` on a datastore is ignored; the datastore keeps accepting media.",
    references.MEDIA_REPO_SAMPLE,
    _FILE_ONLY,
)
def datastore_disabled(config: Config) -> Iterable[Hit]:
    for setting, value, _ in _switches(config, off=True):
        yield Hit(
            value,
            setting,
            "matrix-media-repo no longer reads it (since 1.2): the datastore keeps accepting the kinds in its forKinds",
            "Write `forKinds: []` instead: the datastore then becomes read-only.",
        )


@rule(
    "datastore-enabled",
    Severity.WARNS,
    "`enabled` on a datastore has no effect.",
    references.MEDIA_REPO_SAMPLE,
    _FILE_ONLY,
)
def datastore_enabled(config: Config) -> Iterable[Hit]:
    for setting, value, _ in _switches(config, off=False):
        yield Hit(value, setting, "it has no effect since 1.2: only forKinds decides", "Remove the line.")


def _public(config: Config) -> Iterator[tuple[str, Value, values.Fault]]:
    for store in config.stores:
        if store.method != MEDIA_REPO or store.enabled is False:
            continue
        if config.kind is Kind.PLAYBOOK:
            found = config.field(playbook.S3_PUBLIC_URL)
        else:
            opts = store.where.items["opts"].items if "opts" in store.where.items else {}
            place = store.fields["bucket"].setting.rpartition(".")[0]
            found = field_of(f"{place}.{media_repo.PUBLIC_URL}", opts.get(media_repo.PUBLIC_URL), config.kind)
        if found.text and found.value is not None:
            fault = values.public_url(found.text, store.fields["endpoint"].text, store.fields["bucket"].text)
            if fault is not None:
                yield found.setting, found.value, fault


@rule(
    "public-url",
    Severity.BREAKS,
    "publicBaseUrl is prepended to the object's name unchanged: without a trailing '/' every redirect is broken.",
    references.MEDIA_REPO_SAMPLE,
    _BOTH,
)
def public_url(config: Config) -> Iterable[Hit]:
    for setting, value, fault in _public(config):
        if fault.rule != "public-url-private":
            yield Hit(value, setting, fault.reason, fault.mend)


@rule(
    "public-url-private",
    Severity.WARNS,
    "publicBaseUrl is the bucket's own address: a private bucket refuses every download.",
    references.MEDIA_REPO_SAMPLE,
    _BOTH,
)
def public_url_private(config: Config) -> Iterable[Hit]:
    for setting, value, fault in _public(config):
        if fault.rule == "public-url-private":
            yield Hit(value, setting, fault.reason, fault.mend)


@rule(
    "ssl-not-boolean",
    Severity.BREAKS,
    "`ssl` is a word that Go does not parse as true: signed requests go over plain HTTP.",
    references.MEDIA_REPO,
    _BOTH,
)
def ssl_not_boolean(config: Config) -> Iterable[Hit]:
    if config.kind is Kind.MEDIA_REPO:
        found = [
            (f"{setting}.opts.{media_repo.TLS}", entry.items["opts"].items.get(media_repo.TLS))
            for setting, entry in stores.datastores(config)
            if "opts" in entry.items
        ]
        # Without a value it is HTTPS, as without the line.
        words = [
            (setting, value, value.text) for setting, value in found if value is not None and value.data is not None
        ]
    else:
        name = playbook.S3_TLS
        ssl = field_of(name, config.settings.get(name), config.kind)
        # Ansible parses an unquoted yes as true; only a quoted one stays a string.
        text = isinstance(ssl.value.data if ssl.value else None, str)
        words = [(name, ssl.value, ssl.text)] if ssl.value is not None and ssl.literal and text else []
    for setting, value, word in words:
        if word not in _BOOLEANS:
            yield Hit(
                value,
                setting,
                f"{word[:20]!r} is not a boolean to it and counts as false: plain HTTP",
                "Write true or false.",
            )


@rule(
    "prefix-length",
    Severity.WARNS,
    "prefixLength over 16.",
    references.MEDIA_REPO_SAMPLE,
    _BOTH,
)
def prefix_length(config: Config) -> Iterable[Hit]:
    if config.kind is Kind.MEDIA_REPO:
        found = [
            (f"{setting}.opts.{media_repo.PREFIX_LENGTH}", entry.items["opts"].items.get(media_repo.PREFIX_LENGTH))
            for setting, entry in stores.datastores(config)
            if "opts" in entry.items
        ]
    else:
        name = playbook.S3_PREFIX_LENGTH
        found = [(name, config.settings.get(name))]
    for setting, value in found:
        if value is not None and value.text.isascii() and value.text.isdigit() and int(value.text) > 16:
            yield Hit(
                value, setting, "with more than 16, later releases may not find the stored media", "Choose 0 to 16."
            )
