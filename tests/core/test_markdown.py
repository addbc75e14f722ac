"""A preview as Markdown: readable, and nothing that a stack file holds becomes markup, a link or a mention."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from synapse_media.guards import markdown
from synapse_media.guards.changes import Change
from synapse_media.guards.danger import Danger

OURS = {"h3", "p", "code", "pre", "details", "summary", "blockquote", "ul", "li"}
INERT = {"code", "pre"}
HOSTILE = [
    "@everyone",
    "</pre><img src=x onerror=alert(1)>",
    "</code></pre></details> @team",
    "![x](https://evil.example/p.png)",
    "[click](https://evil.example)",
    "https://evil.example www.evil.example a@evil.example",
    "`` ` ``` **bold** _it_ ~~gone~~ | a | b |",
    "\n\n# Heading\n\n- @item\n\n```\n",
    "<!-- synapse-media preview --> -->",
    "&lt;script&gt; &#60;b&#62; &amp;",
    "\u202egnp.exe\u200b\x1b[31m",
    "fixes #1, org/repo#2, GH-3",
]


class Rendered(HTMLParser):
    """Tags, and text by whether it is in code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[object] = []
        self.inert: list[str] = []
        self.live: list[str] = []
        self._open: list[str] = []
        self.feed(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        (self.inert if INERT & set(self._open) else self.live).append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")


def whole(text: str) -> str:
    danger = Danger("delete-bucket", f"the bucket {text} would be deleted")
    let = Danger("widen-policy", text)
    changes = (Change("delete", text, "Bucket", (f"name: {text}", text), (danger, let)), Change("create", text, text))
    refused = ((changes[0], danger),)
    return markdown.section(text, changes, (text,), refused, from_nothing=True) + markdown.failure(text, text)


def only_ours(text: str) -> Rendered:
    seen = Rendered(whole(text))
    assert seen.tags <= OURS
    assert seen.attributes == []
    return seen


LIVE = only_ours("x").live


def test_nothing_hostile_leaves_its_place() -> None:
    for text in HOSTILE:
        seen = only_ours(text)
        # Whatever the names are, what is not code is the same.
        assert seen.live == LIVE, text
        shown = "".join(seen.inert)
        assert "".join(markdown._visible(text).split()) in "".join(shown.split())


@given(st.text(max_size=60))
def test_no_text_whatever_leaves_its_place(text: str) -> None:
    assert "".join(only_ours(f"x{text}").live) == "".join(LIVE)


def test_dangers_come_first_and_what_is_allowed_is_said() -> None:
    text = whole("matrix.example.com")
    assert text.index("[!CAUTION]") < text.index("lets it") < text.index("<details>") < text.index("Notes")
    assert "From nothing" in text


def test_a_quiet_preview_says_so() -> None:
    text = markdown.section("prod", (), (), (), from_nothing=False)
    assert text == f"### Stack {markdown.code('prod')}: no changes\n"
