"""What `synapse-media:allow` of a stack file may name, as `<homeserver>/<word>`, and what each word lets pass.

It is the only way past a guard. The functions take the words that name one store; what is no word lets nothing pass.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class Word(StrEnum):
    """A change that can lose media or cut access, and that is made where `allow` names it."""

    DELETE_BUCKET = "delete-bucket"
    DELETE_MEDIA = "delete-media"
    RETAIN_BUCKET = "retain-bucket"
    REPLACE_BUCKET = "replace-bucket"
    MOVE_MEDIA = "move-media"
    WIDEN_POLICY = "widen-policy"
    NARROW_POLICY = "narrow-policy"
    PUBLIC_BUCKET = "public-bucket"
    DISABLE_VERSIONING = "disable-versioning"
    SHORTEN_RETENTION = "shorten-retention"
    RETIRE_KEY = "retire-key"
    OWN_BUCKET = "own-bucket"
    SET_LIFECYCLE = "set-lifecycle"
    SET_POLICY = "set-policy"
    SET_VERSIONING = "set-versioning"
    SET_ACCESS = "set-access"
    SET_ENCRYPTION = "set-encryption"


_SETTINGS = {
    Word.SET_ACCESS: "access",
    Word.SET_ENCRYPTION: "encryption",
    Word.SET_LIFECYCLE: "lifecycle",
    Word.SET_POLICY: "policy",
    Word.SET_VERSIONING: "versioning",
}


def entry(store: str, word: Word) -> str:
    """How `allow` names a word for a homeserver."""
    return f"{store}/{word}"


def split(named: str) -> tuple[str, str]:
    """(homeserver, word) of an entry; ("", word) where it names no homeserver."""
    store, _, word = named.rpartition("/")
    return store, word


def words_of(store: str, allow: Collection[str], former: str = "") -> frozenset[str]:
    """The words of `allow` that name a store, by its name now or by its former one."""
    return frozenset(word for name, word in map(split, allow) if name in {store, former})


def protects_bucket(words: Collection[str]) -> bool:
    """Whether Pulumi protects the bucket: until it may be deleted, given up or replaced."""
    return not {Word.DELETE_BUCKET, Word.RETAIN_BUCKET, Word.REPLACE_BUCKET} & set(words)


def gives_bucket_up(words: Collection[str]) -> bool:
    """Whether `destroy` may take the bucket out of the state, deleted or not."""
    return bool({Word.DELETE_BUCKET, Word.RETAIN_BUCKET} & set(words))


def retains_bucket(words: Collection[str]) -> bool:
    """Whether a bucket that is given up stays where it is; this wins over delete-bucket."""
    return Word.RETAIN_BUCKET in words


def deletes_media(words: Collection[str]) -> bool:
    """Whether a bucket is emptied before it is deleted."""
    return Word.DELETE_MEDIA in words


def settles_media(words: Collection[str]) -> bool:
    """Whether nobody need look for media in a bucket that goes: it may be deleted, or stays where it is."""
    return deletes_media(words) or retains_bucket(words)


def retires_key(words: Collection[str]) -> bool:
    """Whether a key may be deleted that may be in use."""
    return Word.RETIRE_KEY in words


def owns_bucket(words: Collection[str]) -> bool:
    """Whether an adopted bucket may become a fully managed one."""
    return Word.OWN_BUCKET in words


def managed_settings(words: Collection[str]) -> list[str]:
    """The settings of an adopted bucket that are changed, sorted; the others stay as they were found."""
    return sorted(setting for word, setting in _SETTINGS.items() if word in words)
