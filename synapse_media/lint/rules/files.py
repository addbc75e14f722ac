"""What goes wrong with files, whatever is in them."""

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
    "A key stands twice in one object: the last one wins in silence.",
    references.YAML_11,
)
def duplicate_key(config: Config) -> Iterable[Hit]:
    effect = (
        "matrix-media-repo refuses such a file"
        if config.kind is Kind.MEDIA_REPO
        else "the last one wins, and nothing is said of the one before"
    )
    for document in config.documents:
        for name, line in document.duplicates:
            yield Hit(
                Value(None, document.path, line),
                name[:80],
                f"it stands twice in one object: {effect}",
                "Keep one of them.",
            )


@rule(
    "secret-readable",
    Severity.WARNS,
    "Everybody on the machine may read a file that holds a secret.",
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
                    f"the file's mode is {mode:04o}, so every user of this machine may read the secret in it",
                    "chmod o-rwx the file (0640 with the group of its program, or 0600).",
                )


@rule(
    "not-read",
    Severity.BREAKS,
    "Synapse reads *.yaml of a directory only; another ending is left out.",
    references.SYNAPSE,
    (Kind.SYNAPSE,),
)
def not_read(config: Config) -> Iterable[Hit]:
    for document in config.ignored:
        names = ", ".join(document.root.items if document.root else ())
        yield Hit(
            Value(None, document.path, 1),
            names[:80],
            "Synapse reads only the files of a directory that end in .yaml",
            "Rename it to end in .yaml.",
        )
