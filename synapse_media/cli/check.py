"""`synapse-media check`: what is wrong with the configuration that somebody already has."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_media.redaction import plain

from . import programs

if TYPE_CHECKING:
    from synapse_media import lint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Reads homeserver.yaml with its conf.d, the playbook's vars.yml, and media-repo.yaml, each known "
        "by what is in it, also within Kubernetes' manifests and Helm's values; several of one program are read "
        "together, in the order given. Needs no stack, no store and no network, and shows no secret. Exit code 1 for a "
        "finding that loses media or breaks; warnings count with --strict alone."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or a directory such as conf.d")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--strict", action="store_true", help="exit code 1 for warnings too")


def run(arguments: argparse.Namespace) -> int:
    from synapse_media import lint

    report = lint.check([Path(file) for file in arguments.files])
    if arguments.json:
        findings = [found.to_json() for found in report.findings]
        print(programs.text({"findings": findings, "files": report.files}))
    else:
        # It quotes what stands in the files.
        print(plain(_in_words(report)))
    failing = len(report.findings) - (0 if arguments.strict else report.count(lint.Severity.WARNS))
    return 1 if failing else 0


def _in_words(report: lint.Report) -> str:
    from synapse_media import lint

    lines = [f"{found}\n" for found in report.findings]
    lines += [f"{path}: {kind}: not looked into" for path, kind in report.files.items() if kind in lint.NOT_LOOKED_INTO]
    files = f"{len(report.files)} file{'s' * (len(report.files) != 1)}"
    counts = ", ".join(f"{report.count(severity)} {severity}" for severity in lint.Severity if report.count(severity))
    lines.append(f"{files}: {counts or 'nothing found'}")
    return "\n".join(lines)
