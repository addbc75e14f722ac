"""Readable errors from the vendors' Terraform-based plugins. Pure text."""

from __future__ import annotations

import re

# Each error is printed twice: by the Terraform SDK, with a line of its source, and in the response to the engine.
_SDK_LINE = re.compile(
    r"(?:error: )?sdk-v2/provider\d*\.go:\d+: sdk\.helper_schema: (?P<message>.*?): provider=[\w-]+@\S+", re.DOTALL
)
_ERROR_LIST = re.compile(r"\d+ errors? occurred:\s*\n(?P<message>(?:\s*\* .*\n?)+)")
_WITHOUT_REASON = re.compile(r"Forbidden: Forbidden(?!\.? The store)")
_LIKELY_CAUSES = (
    "Forbidden: Forbidden. The store rejected the admin key without a reason: its secret is wrong, it was "
    "deleted, or it "
    "lacks a permission. Check the variables that `synapse-media doctor` names"
)


def readable_errors(text: str) -> str:
    """Each vendor error once, without its line of source; a refusal without a reason gets the likely causes.

    Args:
        text: pulumi's output. Lines that are not vendor errors are unchanged.
    """
    text = _ERROR_LIST.sub(lambda found: re.sub(r"(?m)^\s*\* ", "", found["message"]), text)

    def kept(found: re.Match[str]) -> str:
        message = found["message"]
        elsewhere = _SDK_LINE.sub("", text)
        return "" if _single_spaced(message) in _single_spaced(elsewhere) else message

    text = _SDK_LINE.sub(kept, text)
    return _WITHOUT_REASON.sub(
        _LIKELY_CAUSES, "\n".join(line for line in text.splitlines() if line.strip() not in ("", "error:"))
    )


def _single_spaced(text: str) -> str:
    return " ".join(text.split())
