"""Errors of the vendors' plugins, made from Terraform providers, as a person wants to read them. Pure text."""

from __future__ import annotations

import re

# Each is printed twice: by the library beneath, with a line of its source, and as the answer to the engine.
_BY_LIBRARY = re.compile(
    r"(?:error: )?sdk-v2/provider\d*\.go:\d+: sdk\.helper_schema: (?P<said>.*?): provider=[\w-]+@\S+", re.DOTALL
)
_COUNTED = re.compile(r"\d+ errors? occurred:\s*\n(?P<said>(?:\s*\* .*\n?)+)")
_WORDLESS = re.compile(r"Forbidden: Forbidden(?!\.? The store)")
_WHY = (
    "Forbidden: Forbidden. The store refuses the admin's key and says no more: its secret is wrong, it was deleted, or "
    "it may not do this. Check the variables that `synapse-media doctor` names"
)


def without_repetition(text: str) -> str:
    """Each error once, without the library's line of source; a refusal without words with its likely causes.

    Args:
        text: what pulumi said, several errors and lines of other kinds among it. What is not a vendor's error stays as
            it is.
    """
    text = _COUNTED.sub(lambda found: re.sub(r"(?m)^\s*\* ", "", found["said"]), text)

    def kept(found: re.Match[str]) -> str:
        said = found["said"]
        elsewhere = _BY_LIBRARY.sub("", text)
        return "" if _flat(said) in _flat(elsewhere) else said

    text = _BY_LIBRARY.sub(kept, text)
    return _WORDLESS.sub(_WHY, "\n".join(line for line in text.splitlines() if line.strip() not in ("", "error:")))


def _flat(text: str) -> str:
    return " ".join(text.split())
