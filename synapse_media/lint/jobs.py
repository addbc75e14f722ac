"""Jobs that run the module's `s3_media_upload`: crontabs, units, scripts, CronJobs of Kubernetes, services of Compose.

Its options: scripts/s3_media_upload of https://github.com/matrix-org/synapse-s3-storage-provider (1.7.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from synapse_media import methods, values

from . import references
from .findings import RULES as FOUND
from .findings import Finding, Hit, Rule, Severity
from .reading import Document, Value

PROGRAM = "s3_media_upload"
DELETES = Rule(
    "upload-deletes",
    Severity.WARNS,
    (),
    "A job runs s3_media_upload with --delete, which deletes local files by name, whatever the object's content.",
    references.MODULE,
    lambda _: (),
)
RULES = (DELETES,)

# To the end of the command, which may go on in the next line, or be a list of YAML.
_COMMAND = re.compile(rf"\b{PROGRAM}\b((?:\\\r?\n|\n\s*-\s|[^\n;&|])*)")
_WORD = re.compile(r"[^\s,\[\]\"']+")
_TAKES_VALUE = ("--prefix", "--storage-class", "--sse-customer-key", "--sse-customer-algo", "--endpoint-url")


@dataclass(frozen=True, slots=True)
class _Upload:
    """One `s3_media_upload upload`; an option that is not given is ""."""

    line: int
    bucket: str
    endpoint: str
    deletes: bool


def has_any(document: Document) -> bool:
    """Whether a file runs `s3_media_upload upload`."""
    return next(_uploads(document), None) is not None


def find(documents: Iterable[Document]) -> Iterator[Finding]:
    """What in these jobs deletes local files unseen, or fails."""
    for document in documents:
        for job in _uploads(document):
            at = Value(None, document.path, job.line)
            if job.deletes:
                reason = (
                    "--delete removes each local file for which the bucket has an object of that name, whatever its "
                    "content: if it is empty or truncated, the file is lost, and the job succeeds"
                )
                mend = "Remove --delete until the bucket has been compared with the local files by content."
                yield DELETES.finding(Hit(at, f"{PROGRAM} --delete", reason, mend))
            for field, text in (("bucket", job.bucket), ("endpoint", job.endpoint)):
                # A shell, Compose or Kubernetes expands variables here.
                if not text or values.expansion(field, text) or values.is_reference(text) or "$" in text:
                    continue
                fault = values.judge(field, text, methods.MODULE)
                if fault is not None:
                    yield FOUND[fault.rule].finding(Hit(at, f"{PROGRAM} {field}", fault.reason, fault.mend))


def _uploads(document: Document) -> Iterator[_Upload]:
    text = re.sub(r"(?m)^\s*(?:#|//).*$", "", document.source)
    for found in _COMMAND.finditer(text):
        words = [word for word in _WORD.findall(found[1]) if word not in ("-", "\\")]
        while words[:1] == ["--no-progress"]:
            words.pop(0)
        if words[:1] == ["upload"]:
            yield _upload(words[1:], text.count("\n", 0, found.start()) + 1)


def _upload(words: Sequence[str], line: int) -> _Upload:
    positional: list[str] = []
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in _TAKES_VALUE:
            options[name] = value if equals else next(rest, "")
        elif not word.startswith("--"):
            positional.append(word)
    bucket = positional[1] if len(positional) > 1 else ""
    return _Upload(line, bucket, options.get("--endpoint-url", ""), deletes="--delete" in words)
