"""A preview as Markdown for a pull request's comment. What comes out of a stack file stays text, whatever is in it.

Names, policies and messages may be anybody's. They go into `<code>` and `<pre>` alone, where no host looks for
mentions, and with every punctuation mark as a numeric reference, which can open neither Markdown nor HTML
(https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references).
"""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from .changes import Change, advice_first, entries_for
from .danger import Danger

FROM_NOTHING = "From nothing: what `up` would make where there is nothing yet. No state was read, no store was asked."


def code(text: str) -> str:
    """Inline code, for a line of Markdown."""
    marks = "".join(
        letter if letter.isalnum() or letter == " " or ord(letter) > 127 else f"&#{ord(letter)};"
        for letter in _visible(text)
    )
    return f"<code>{marks}</code>"


def block(lines: Iterable[str]) -> str:
    """Lines as they are, in an HTML block, which no Markdown reaches into."""
    return "<pre>\n" + "\n".join(html.escape(_visible(line)) for line in lines) + "\n</pre>"


def section(
    stack: str,
    changes: Sequence[Change],
    warnings: Sequence[str],
    refused: Sequence[tuple[Change, Danger]],
    *,
    from_nothing: bool,
    digest: str = "",
) -> str:
    """A stack's section: dangers first, then the changes, folded, then notes.

    Args:
        digest: by which `up --reviewed` knows these changes again; "" where there is none.
    """
    parts = [f"### Stack {code(stack)}: {_count(changes)}"]
    if from_nothing:
        parts.append(FROM_NOTHING)
    if refused:
        parts.append("> [!CAUTION]\n> This can lose media or cut access:\n>")
        parts[-1] += "".join(f"\n> - {code(f'{change}: {danger.why}')}" for change, danger in refused)
        first = advice_first(danger for _, danger in refused)
        if first:
            parts.append(code(first))
        if entries := entries_for(refused):
            named = ", ".join(map(code, entries))
            parts.append(f"`up` refuses it, unless `synapse-media:allow` of the stack file names {named}.")
    let = [(change, danger) for change in changes for danger in change.dangers if (change, danger) not in refused]
    if let:
        parts.append("Can lose media or cut access, and `synapse-media:allow` lets it:")
        parts[-1] += "\n" + "".join(f"\n- {code(f'{change}: {danger.why}')}" for change, danger in let)
    if changes:
        lines = [line for change in changes for line in (str(change), *(f"    {detail}" for detail in change.details))]
        parts.append(f"<details><summary>The changes</summary>\n\n{block(lines)}\n\n</details>")
    if warnings:
        parts.append("Notes:\n" + "".join(f"\n- {code(warning)}" for warning in warnings))
    if changes and digest:
        parts.append(f"Digest of these changes: {digest}")
    return "\n\n".join(parts) + "\n"


def failure(stack: str, said: str) -> str:
    """The section of a stack whose preview failed."""
    return f"### Stack {code(stack)}: no preview\n\n{block(said.splitlines())}\n"


def _count(changes: Sequence[Change]) -> str:
    if not changes:
        return "no changes"
    verbs = Counter(change.verb for change in changes)
    return ", ".join(f"{number} to {verb}" for verb, number in verbs.items())


def _visible(text: str) -> str:
    """One line; control characters, and those that turn the direction of text, as escapes."""
    return "".join(
        letter if unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} else f"\\u{ord(letter):04x}"
        for letter in text
    )
