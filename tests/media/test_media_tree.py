"""Synapse's media store as a directory: what is one, what is handed out of it, and in which order."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_media.errors import UsageError
from synapse_media.media.bucket import RemoteObject
from synapse_media.media.pairs import pairs
from synapse_media.media.tree import STAGING, MediaFile, MediaTreeError, Shard, Tree, group, sort_key


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "media_store"
    (made / "local_content").mkdir(parents=True)
    return made


def test_every_kind_of_media_and_no_cache(root: Path) -> None:
    media = [
        "local_content/aA/bB/cc",
        "local_thumbnails/aA/bB/cc/32-32-image-png-crop",
        "remote_content/example.org:8448/aA/bB/cc",
        "remote_thumbnail/example.org/aA/bB/cc/32-32-image-png",
    ]
    write(root, *media, "url_cache/2026-01-01/x", "url_cache_thumbnails/2026-01-01/x/y", f"{STAGING}/x", "notes/x")
    tree = Tree(root)
    assert [file.path for file in tree.files()] == media
    assert tree.left_out == []
    assert tree.unknown == ("notes",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/", "is the root of the file system"),
        ("nonesuch", "no such directory"),
        ("file", "is not a directory"),
        ("empty", "neither local_content nor remote_content"),
        ("media_store/local_content", "is a part of the media store"),
        ("media_store/local_content/aA", "is a part of the media store"),
        (".", "media_store is: name that"),
    ],
)
def test_what_is_no_media_store(tmp_path: Path, given: str, said: str) -> None:
    write(tmp_path, "media_store/local_content/aA/bB/cc", "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaTreeError, match=re.escape(said)) as caught:
        Tree(tmp_path / given)
    assert "name" in str(caught.value).lower(), "the next step"


def test_an_empty_directory_is_one_to_restore_to(tmp_path: Path) -> None:
    assert list(Tree(tmp_path, may_be_empty=True).files()) == []
    write(tmp_path, "notes.txt")
    with pytest.raises(MediaTreeError):
        Tree(tmp_path, may_be_empty=True)


def test_no_link_is_followed(root: Path, tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/aA/bB/cc", "secret")
    write(root, "local_content/aA/bB/cc")
    (root / "local_content/aA/bB/out").symlink_to(tmp_path / "secret")
    (root / "local_content/zZ").symlink_to(tmp_path / "elsewhere")
    (root / "local_content/yY").symlink_to("aA")
    (root / "local_content/loop").symlink_to("loop")
    (root / "remote_content").symlink_to(tmp_path / "elsewhere")
    tree = Tree(root)
    assert [file.path for file in tree.files()] == ["local_content/aA/bB/cc"]
    told = {left.path: left.why for left in tree.left_out}
    assert set(told) == {
        "local_content/aA/bB/out",
        "local_content/loop",
        "local_content/yY",
        "local_content/zZ",
        "remote_content",
    }
    assert "out of the media store" in told["local_content/zZ"]
    assert "out of" not in told["local_content/yY"]
    assert "mount --bind" in told["remote_content"]


def test_the_media_store_itself_may_be_reached_by_a_link(root: Path, tmp_path: Path) -> None:
    write(root, "local_content/aA/bB/cc")
    (tmp_path / "link").symlink_to(root)
    tree = Tree(tmp_path / "link")
    assert tree.path == root
    assert len(list(tree.files())) == 1


def test_names_that_no_store_keeps_are_told(root: Path) -> None:
    write(root, "local_content/aA/bB/fine ünïcode ")
    bad = os.fsencode(root) + b"/local_content/aA/bB/not-\xff-utf8"
    with open(bad, "wb"):  # noqa: PTH123 - the name is bytes
        pass
    write(root, "local_content/aA/bB/line\nbreak")
    os.mkfifo(root / "local_content/aA/bB/pipe")
    tree = Tree(root)
    assert [file.path for file in tree.files()] == ["local_content/aA/bB/fine ünïcode "]
    told = [(left.path, left.why) for left in tree.left_out]
    assert [path.rpartition("/")[2] for path, _ in told] == ["line\nbreak", "not-\\xff-utf8", "pipe"]
    for (_, why), words in zip(told, ("control", "not UTF-8", "not a regular"), strict=True):
        assert words in why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_told(root: Path) -> None:
    write(root, "local_content/aA/bB/cc")
    (root / "local_content/aA").chmod(0)
    tree = Tree(root)
    assert list(tree.files()) == []
    (root / "local_content/aA").chmod(0o700)
    assert [left.path for left in tree.left_out] == ["local_content/aA"]


def test_what_is_deleted_meanwhile_is_passed_over(root: Path) -> None:
    write(root, "local_content/aA/bB/1", "local_content/aA/bB/2", "local_content/cC/dD/3")
    tree = Tree(root)
    files = tree.files()
    assert next(files).path == "local_content/aA/bB/1"
    (root / "local_content/aA/bB/2").unlink()
    (root / "local_content/cC/dD/3").unlink()
    assert list(files) == []
    assert tree.left_out == []


part = st.text(st.sampled_from("ab-. 0é\U0001f600～"), min_size=1, max_size=3).filter(
    lambda name: name not in (".", "..")
)


@given(st.sets(st.lists(part, min_size=1, max_size=3).map("/".join), max_size=15))
def test_the_order_is_that_of_whole_keys(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    (root / "local_content").mkdir()
    made = set()
    for name in names:
        path = f"local_content/{name}"
        # A name can't be both a file and a directory.
        if not (root / path).exists() and not any((root / parent).is_file() for parent in Path(path).parents):
            write(root, path)
            made.add(path)
    assert [file.path for file in Tree(root).files()] == sorted(made, key=lambda path: path.encode())


@given(st.sets(st.text("abc/-", min_size=1), max_size=20), st.sets(st.text("abc/-", min_size=1), max_size=20))
def test_each_path_comes_once_with_what_there_is(ours: set[str], theirs: set[str]) -> None:
    files = [MediaFile(path, 1, 0, 0) for path in sorted(ours, key=sort_key)]
    objects = [RemoteObject(path, 1, 0, "") for path in sorted(theirs, key=sort_key)]
    found = list(pairs(files, objects))
    assert [(file or remote).path for file, remote in found] == sorted(ours | theirs, key=sort_key)  # type: ignore[union-attr]
    assert {file.path for file, _ in found if file} == ours
    assert {remote.path for _, remote in found if remote} == theirs
    assert all(file is None or remote is None or file.path == remote.path for file, remote in found)


@pytest.mark.parametrize("text", ["17/16", "0/16", "1/0", "3", "3/", "-1/3", "1/3/5", "a/b", "1/99999", ""])
def test_a_shard_that_there_is_not(text: str) -> None:
    with pytest.raises(UsageError, match="allowed: N/M"):
        Shard.parse(text)


def test_the_shards_are_all_of_it_and_each_file_is_in_one(root: Path) -> None:
    paths = [f"local_content/{one}{two}/{two}{one}/x" for one in "abcXYZ" for two in "abcdef"]
    paths += [f"remote_content/{server}.example/{one}a/bb/x" for server in "pqr" for one in "abcXYZ"]
    paths += ["local_content/stray", "remote_content/q.example/stray"]
    write(root, *paths)
    tree = Tree(root)
    parts = [[file.path for file in tree.files(shard=Shard(number, 3))] for number in (1, 2, 3)]
    assert sorted(path for part in parts for path in part) == sorted(paths)
    assert all(len(part) > 5 for part in parts)
    assert [file.path for file in tree.files(shard=Shard(1, 1))] == sorted(paths, key=sort_key)
    assert group("remote_content/q.example/aA/bB/cc") == "remote_content/q.example/aA"
