"""Finds what in existing configuration files breaks or loses media. Needs no Pulumi, no store and no network.

`check` reads the files and applies the rules. `rules` has those on a single configuration, `cross_checks` those on
several, `jobs` those on what uploads at night.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synapse_media.errors import UsageError

from . import cross_checks, embedded, jobs, stores, version_rules, versions
from . import rules as _rules  # noqa: F401  (each module registers its rules)
from .config import Config, Kind, group, kind_of
from .findings import RULES, Finding, Hit, Rule, Severity
from .reading import OTHER_LANGUAGE, TEMPLATE, Document, Value, is_manifest, read

__all__ = ["ALL_RULES", "RULES", "Finding", "Kind", "Report", "Rule", "Severity", "check", "synapse_config"]

UNREADABLE = Rule(
    "unreadable",
    Severity.BREAKS,
    (),
    "A file that is not valid YAML: the program that reads it fails.",
    "https://yaml.org/spec/1.1/",
    lambda _: (),
)
ALL_RULES: tuple[Rule, ...] = (*RULES.values(), *cross_checks.RULES, *version_rules.RULES, *jobs.RULES, UNREADABLE)
"""All rules of `check`."""

_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check.

    Attributes:
        findings: by severity, then by file and line.
        files: path -> kind of the file; a kind in NOT_LOOKED_INTO was not checked.
    """

    findings: tuple[Finding, ...]
    files: dict[str, str]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)


def check(paths: Sequence[Path]) -> Report:
    """Read files and directories, and apply every rule.

    A directory stands for its *.yaml and *.yml files and those of its conf.d. Files of one program form one
    configuration, in the order given: see `config.group`.

    Raises:
        UsageError: a path does not exist, no file was recognised, or the files are of two homeservers.
    """
    found, without = _files(paths)
    given = [(read(path), in_directory) for path, in_directory in found]
    documents, configs, unknown = _grouped(given)
    templates = [document for document, _ in documents if document.template]
    hidden = bool(templates) or any(_is_elsewhere(document) for document, _ in given)
    pins = versions.of(document for document, _ in given)
    configs = [replace(config, hidden=hidden, pins=versions.of(config.documents).over(pins)) for config in configs]
    configs = [replace(config, stores=stores.of(config)) for config in configs]
    broken = [document for document, _ in documents if document.problem]
    named = (Kind.SYNAPSE, Kind.MEDIA_REPO)
    empty = any(_not_looked_into(each) == _EMPTY and Path(each.path).name in named for each in unknown)
    with_jobs = [document for document, _ in given if jobs.has_any(document)]
    if not (configs or broken or hidden or pins or empty or with_jobs):
        raise UsageError(
            f"{', '.join(document.path for document in unknown)}: not a homeserver.yaml, variables of the playbook "
            "or a media-repo.yaml, and none is embedded in it"
        )
    findings = [UNREADABLE.finding(_broken(document)) for document in broken]
    findings += version_rules.find(configs, pins)
    findings += jobs.find(with_jobs)
    for config in configs:
        for rule in RULES.values():
            findings += rule.apply(config)
    findings = list(dict.fromkeys([*findings, *cross_checks.find(configs)]))  # variables of a group are every host's
    findings.sort(key=lambda found: (_ORDER.index(found.severity), found.file, found.line, found.rule, found.setting))
    files = {
        document.path: config.kind.value for config in configs for document in (*config.documents, *config.ignored)
    }
    files = {document.path: _not_looked_into(document) for document in unknown} | files
    files |= {document.path: document.template for document in templates}
    files |= {document.path: _JOB for document in with_jobs if files.get(document.path) in NOT_LOOKED_INTO}
    files |= {document.path: "unreadable" for document in broken}
    files |= {str(directory): _NO_FILES for directory in without}
    return Report(tuple(findings), dict(sorted(files.items())))


def synapse_config(paths: Sequence[Path]) -> Config:
    """Synapse's configuration as it reads these files and directories, with its stores; nothing of it is judged.

    Raises:
        UsageError: a path does not exist or can't be read, none of the files is Synapse's, or they are of two
            homeservers.
    """
    given = [(read(path), in_directory) for path, in_directory in _files(paths)[0]]
    documents, configs, _ = _grouped(given)
    # In a directory there may be other files of YAML; one that is named is meant.
    named = {str(path) for path in paths}
    for document, _ in documents:
        if document.problem and document.path in named:
            raise UsageError(f"{document.path} {document.problem}")
    of_synapse = [config for config in configs if config.kind is Kind.SYNAPSE and not config.documents[0].place]
    if not of_synapse:
        raise UsageError(
            f"{', '.join(map(str, paths))}: no configuration of Synapse; allowed: its homeserver.yaml and the files "
            "that it reads after it, or their directory"
        )
    (config,) = of_synapse
    return replace(config, stores=stores.of(config))


def _grouped(
    given: Iterable[tuple[Document, bool]],
) -> tuple[list[tuple[Document, bool]], list[Config], list[Document]]:
    """The documents of files and whether each is of a directory, the configurations, and documents of no known kind."""
    documents = [(part, inside) for document, inside in given for part in _parts(document)]
    usable = [(part, inside) for part, inside in documents if not (part.problem or part.template)]
    configs, unknown = group(usable)
    _refuse_two_homeservers([config for config in configs if not config.documents[0].place])
    return documents, configs, unknown


def _parts(document: Document) -> list[Document]:
    """The file itself, and the configurations embedded in it."""
    if document.problem or document.encrypted or document.template:
        return [document]
    kind = kind_of(document)
    if kind is Kind.PLAYBOOK:
        return [document, *embedded.within_variables(document)]
    if kind is None or (document.root is not None and is_manifest(document.root)):
        return embedded.within(document) or [document]
    if embedded.is_filled_in(document):
        return [replace(document, template=TEMPLATE)]
    return [document]


def _is_elsewhere(document: Document) -> bool:
    """Whether settings of a file are encrypted or in a Secret."""
    return document.encrypted or embedded.is_sealed(document) or embedded.is_in_secret(document)


def _not_looked_into(document: Document) -> str:
    if document.encrypted or embedded.is_sealed(document):
        return "encrypted"
    if embedded.is_in_secret(document):
        return _REFERRED
    if not document.source.strip():
        return _EMPTY
    return "versions" if versions.of([document]) else "not recognised"


_NO_FILES = "no *.yaml or *.yml file"
_REFERRED = "its configuration is in a Secret"
_EMPTY = "empty"
_JOB = f"a job with {jobs.PROGRAM}"
NOT_LOOKED_INTO = ("encrypted", "not recognised", TEMPLATE, OTHER_LANGUAGE, _NO_FILES, _REFERRED, _EMPTY)
"""Kinds of files that are not checked."""


def _broken(document: Document) -> Hit:
    return Hit(
        Value(None, document.path, document.line),
        "the file",
        f"it {document.problem}",
        "Fix the file, or leave it out.",
    )


def _files(paths: Iterable[Path]) -> tuple[list[tuple[Path, bool]], list[Path]]:
    """Every file once, and whether it was found in a directory; and the directories without any.

    Raises:
        UsageError: a path does not exist, or there is no file at all.
    """
    files: dict[Path, tuple[Path, bool]] = {}
    without: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = [(file, True) for place in (path, path / "conf.d") for file in _in(place)]
            if not found:
                without.append(path)
        elif path.exists() or path.is_symlink():
            found = [(path, False)]
        else:
            raise UsageError(f"{path} does not exist")
        for file, inside in found:
            # Path.resolve raises RuntimeError for links that lead in a circle.
            files.setdefault(Path(os.path.realpath(file)), (file, inside))
    if without and not files:
        raise UsageError(f"{', '.join(map(str, without))} has no *.yaml or *.yml file")
    return list(files.values()), without


def _in(directory: Path) -> list[Path]:
    try:
        return sorted(file for file in directory.iterdir() if file.suffix in (".yaml", ".yml") and not file.is_dir())
    except NotADirectoryError:
        return []
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{directory} can't be read: {error.strerror}") from None


def _refuse_two_homeservers(configs: Iterable[Config]) -> None:
    for config in configs:
        for name, before, after in config.earlier:
            if config.kind is Kind.SYNAPSE and name == "server_name" and before.data != after.data:
                raise UsageError(
                    f"{before.file} and {after.file} are of different homeservers: check each in a run of its own"
                )
