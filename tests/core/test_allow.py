"""The words of `allow`: what each permits, and that messages and docs name no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synapse_media import allow
from synapse_media.allow import Word

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(?:<homeserver>|matrix\.example\.com)/([a-z]+-[a-z]+)\b")


@pytest.mark.parametrize(
    ("decides", "words"),
    [
        (lambda words: not allow.protects_bucket(words), {Word.DELETE_BUCKET, Word.RETAIN_BUCKET, Word.REPLACE_BUCKET}),
        (allow.gives_bucket_up, {Word.DELETE_BUCKET, Word.RETAIN_BUCKET}),
        (allow.retains_bucket, {Word.RETAIN_BUCKET}),
        (allow.deletes_media, {Word.DELETE_MEDIA}),
        (allow.settles_media, {Word.DELETE_MEDIA, Word.RETAIN_BUCKET}),
        (allow.retires_key, {Word.RETIRE_KEY}),
        (allow.owns_bucket, {Word.OWN_BUCKET}),
    ],
)
def test_a_word_lets_pass_what_it_says_and_nothing_else(decides: object, words: set[Word]) -> None:
    assert callable(decides)
    assert {word for word in Word if decides({word.value})} == words
    assert not decides(set())
    assert decides(set(Word))


def test_every_setting_of_an_adopted_bucket_has_its_word() -> None:
    assert [f"set-{name}" for name in allow.managed_settings(set(Word))] == sorted(
        word for word in Word if word.startswith("set-")
    )
    assert allow.managed_settings({Word.RETIRE_KEY}) == []


def test_an_entry_is_read_as_it_is_written() -> None:
    assert allow.split(allow.entry("matrix.example.com:8448", Word.RETIRE_KEY)) == (
        "matrix.example.com:8448",
        Word.RETIRE_KEY,
    )
    named = [allow.entry("a.example", Word.RETIRE_KEY), allow.entry("b.example", Word.MOVE_MEDIA), "retire-key"]
    assert allow.words_of("a.example", named) == {Word.RETIRE_KEY}
    assert allow.words_of("new.example", named, "b.example") == {Word.MOVE_MEDIA}


def test_what_people_are_told_to_write_is_a_word() -> None:
    files = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(path for name in ("synapse_media", "components", "ci") for path in (ROOT / name).rglob("*.py")),
    ]
    told = {word for path in files for word in NAMED.findall(path.read_text(encoding="utf-8"))}
    assert len(told) > 5
    assert told <= set(Word)
