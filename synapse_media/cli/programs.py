"""What the commands print for programs (`--json`), whose shapes `shapes.schema.json` describes."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from synapse_media.errors import NO_SETTING, Problem
from synapse_media.redaction import redacted

FORMAT_VERSION = 1
"""Within it names are only added, never renamed or removed."""


def text(shown: Mapping[str, Any]) -> str:
    """An answer, with the version of its form."""
    answer = json.dumps({"format_version": FORMAT_VERSION, **shown}, indent=2, ensure_ascii=False)
    # A path that is not UTF-8 would be written as its bytes, and JSON has to be UTF-8.
    return re.sub(r"[\ud800-\udfff]", lambda each: f"\\u{ord(each[0]):04x}", answer)


def wanted(parsed: argparse.Namespace) -> bool:
    """Whether a command was asked to answer a program."""
    return bool(getattr(parsed, "json", False)) or getattr(parsed, "format", "") == "json"


def error(command: str, message: str, exit_code: int, problems: Iterable[Problem] = ()) -> str:
    """Why a command failed: in words, and every problem of a stack file apart. No secret is in it."""
    told = {
        "command": command,
        "message": message,
        "exit_code": exit_code,
        "problems": [_problem(problem) for problem in problems],
    }
    return text({"error": told})


def _problem(problem: Problem) -> dict[str, str | None]:
    # Of a name that is no setting, what stands there is nobody's business.
    shown = None if problem.value is None or problem.value is NO_SETTING else redacted(repr(problem.value))
    return {
        "setting": problem.setting,
        "value": shown,
        "allowed": problem.allowed,
        "next_step": redacted(problem.next_step),
    }
