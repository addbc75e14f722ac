"""Checks of the files themselves, whatever they configure."""

from __future__ import annotations

from collections.abc import Iterable

from synapse_media.lint import references, stores
from synapse_media.lint.config import Config, Kind
from synapse_media.lint.findings import Hit, Severity, rule
from synapse_media.lint.reading import Value
from synapse_media.lint.rules.store import is_example


@rule(
    "duplicate-key",
    Severity.BREAKS,
    "A key is set twice in one mapping; the last value silently wins.",
    references.YAML_11,
)
def duplicate_key(config: Config) -> Iterable[Hit]:
    effect = (
        "matrix-media-repo rejects such a file" if config.kind is Kind.MEDIA_REPO else "the last value silently wins"
    )
    for document in config.documents:
        for name, line in document.duplicates:
            yield Hit(
                Value(None, document.path, line),
                name[:80],
                f"it is set twice in one mapping: {effect}",
                "Keep one of the two.",
            )


@rule(
    "secret-readable",
    Severity.WARNS,
    "A file that contains a secret is readable by every user of the machine.",
    references.MODULE,
)
def secret_readable(config: Config) -> Iterable[Hit]:
    modes = {document.path: document.mode for document in config.documents}
    seen: set[str] = set()
    for store in config.stores:
        for name in stores.SECRETS:
            found = store.fields.get(name)
            if (
                found is None
                or found.value is None
                or not found.text
                or found.value.file in seen
                or is_example(found.text)
            ):
                continue
            mode = modes[found.value.file]
            if mode & 0o004:
                seen.add(found.value.file)
                yield Hit(
                    found.value,
                    found.setting,
                    f"the file's mode is {mode:04o}, so every user of this machine can read the secret in it",
                    "Run chmod o-rwx on the file (0640 with its program's group, or 0600).",
                )


@rule(
    "not-read",
    Severity.BREAKS,
    "Synapse reads only the *.yaml files of a directory and skips others.",
    references.SYNAPSE,
    (Kind.SYNAPSE,),
)
def not_read(config: Config) -> Iterable[Hit]:
    for document in config.ignored:
        names = ", ".join(document.root.items if document.root else ())
        yield Hit(
            Value(None, document.path, 1),
            names[:80],
            "Synapse reads only the *.yaml files of a directory",
            "Rename it to *.yaml.",
        )
