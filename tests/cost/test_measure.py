"""Measuring a media directory on a real file system."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from synapse_media.cost.measure import DAY, Measured, measure
from synapse_media.cost.model import SizeGroup
from synapse_media.errors import UsageError

NOW = 1_800_000_000.0
EDGES = (0, 4096, 50_000)


def put(path: Path, size: int, days: float = 0) -> Path:
    """A file of so many bytes (sparse), last changed so many days before NOW."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A small media store: 2 originals, 3 thumbnails, remote media, previews of pages."""
    top = tmp_path / "media_store"
    put(top / "local_content" / "aa" / "bb" / "cc1", 100_000, 200)
    put(top / "local_content" / "aa" / "bd" / "cc2", 50_000, 100)
    for number, size in enumerate((1000, 4096, 4097)):
        put(top / "local_thumbnails" / "aa" / "bb" / "cc1" / f"{number}-image-jpeg-scale", size, 40)
    put(top / "remote_content" / "example.org" / "aa" / "bb" / "dd", 60_000, 10)
    put(top / "remote_thumbnail" / "example.org" / "aa" / "bb" / "dd" / "32-32", 500, 10)
    put(top / "url_cache" / "2026-11-01" / "xyz", 70_000, 1)
    return top


def run(path: Path) -> Measured:
    return measure(path, EDGES, NOW)


def test_counted_by_folder(media: Path) -> None:
    found = run(media)
    assert {name: (folder.files, folder.bytes) for name, folder in found.folders.items()} == {
        "local_content": (2, 150_000),
        "local_thumbnails": (3, 9193),
        "remote_content": (1, 60_000),
        "remote_thumbnail": (1, 500),
        "url_cache": (1, 70_000),
    }
    # The previews stay on the disk.
    assert (found.files, found.bytes) == (7, 219_693)
    assert [found.is_stored(name) for name in ("local_content", "url_cache")] == [True, False]
    assert (found.skipped, found.unreadable) == (0, [])


def test_grouped_at_the_minimum_sizes(media: Path) -> None:
    # 500, 1000, 4096 | 4097, 50000 | 60000, 100000: what is as large as the minimum is not padded either way.
    assert run(media).sizes == (SizeGroup(3, 5596), SizeGroup(2, 54_097), SizeGroup(2, 160_000))


def test_padding_is_exact(media: Path) -> None:
    usage = run(media).usage(None, Decimal(0))
    every = [100_000, 50_000, 1000, 4096, 4097, 60_000, 500]
    for minimum in EDGES:
        assert usage.padding(minimum) == sum(max(0, minimum - size) for size in every)


def test_growth_from_the_newest_days(media: Path) -> None:
    found = run(media)
    # Of the last 90 days: 9193 + 60000 + 500 bytes; a month has 365 / 12 days.
    assert found.growth == Decimal(69_693) * 365 / 12 / 90
    assert found.growth_note == "from the files of the last 90 days"
    assert found.usage(None, Decimal(5)).growth == found.growth
    assert found.usage(Decimal(7), Decimal(5)).growth == 7


def test_growth_of_a_young_store(tmp_path: Path) -> None:
    for day in range(30):
        put(tmp_path / "local_content" / "aa" / str(day), 1000, day)
    # 30000 bytes in thirty days
    found = run(tmp_path)
    assert found.growth == Decimal(30_000) * 365 / 12 / 30


def test_growth_is_not_read_from_a_few_days(tmp_path: Path) -> None:
    for number in range(12):
        put(tmp_path / "local_content" / "aa" / str(number), 1000, number % 3)
    found = run(tmp_path)
    assert found.growth is None
    assert found.growth_note == "the oldest file is 3 days old, and growth needs 30"


def test_growth_is_not_read_from_a_copy(tmp_path: Path) -> None:
    put(tmp_path / "local_content" / "aa" / "new", 1000, 3)
    for number in range(9):
        # A copy that took three days.
        put(tmp_path / "local_content" / "aa" / f"copied{number}", 1000, 40.5 + number % 3)
    found = run(tmp_path)
    assert found.growth is None
    assert "copy" in found.growth_note
    assert found.usage(None, Decimal(0)).growth == 0


def test_a_copy_of_long_ago_does_not_hide_the_growth_since(tmp_path: Path) -> None:
    put(tmp_path / "local_content" / "aa" / "copied", 10**6, 300)
    put(tmp_path / "local_content" / "aa" / "new", 9000, 3)
    assert run(tmp_path).growth == Decimal(9000) * 365 / 12 / 90


def test_times_of_the_future_are_today(tmp_path: Path) -> None:
    put(tmp_path / "local_content" / "aa" / "a", 1000, -5)
    put(tmp_path / "local_content" / "aa" / "b", 3000, 20)
    put(tmp_path / "local_content" / "aa" / "c", 3000, 40)
    assert run(tmp_path).growth == Decimal(7000) * 365 / 12 / 41


def test_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "local_content").mkdir()
    found = run(tmp_path)
    assert (found.files, found.bytes, found.sizes, found.growth) == (0, 0, (), None)
    assert found.usage(None, Decimal(0)).stored == 0


def test_files_without_a_byte(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "local_content" / "aa" / str(number), 0)
    put(tmp_path / "local_content" / "aa" / "one", 1)
    found = run(tmp_path)
    assert found.files == 4
    assert found.usage(None, Decimal(0)).padding(4096) == 4 * 4096 - 1


def test_links_are_not_followed_and_named(media: Path, tmp_path: Path) -> None:
    (media / "local_content" / "aa" / "loop").symlink_to(media / "local_content")
    (media / "local_content" / "aa" / "file").symlink_to(put(tmp_path / "elsewhere", 10**9))
    (media / "local_content" / "aa" / "broken").symlink_to(tmp_path / "nothing")
    found = run(media)
    assert (found.files, found.bytes) == (7, 219_693)
    assert found.skipped == 3
    assert all(item.endswith(": a link") for item in found.unreadable)


def test_a_folder_on_another_disk_is_followed_once(media: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (media / "remote_content").rename(disk)
    (media / "remote_content").symlink_to(disk)
    (media / "again").symlink_to(disk)
    (media / "back").symlink_to(tmp_path)
    (media / "self").symlink_to(media / "self")
    found = run(media)
    assert (found.files, found.bytes) == (7, 219_693)
    assert set(found.folders).isdisjoint({"again", "back", "self"})
    assert sorted(item.split(": ")[0] for item in found.unreadable) == [
        str(media / name) for name in ("again", "back", "self")
    ]


def test_what_is_not_a_file(media: Path) -> None:
    os.mkfifo(media / "local_content" / "pipe")
    found = run(media)
    assert found.unreadable == [f"{media / 'local_content' / 'pipe'}: not a file"]


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A directory that everybody may enter, and no rights beyond: the superuser would read what is locked."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@contextmanager
def without_rights() -> Iterator[None]:
    before = os.geteuid()
    if before == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_unreadable_directories_are_reported(nobody: Path) -> None:
    put(nobody / "local_content" / "aa" / "one", 5)
    locked = nobody / "local_content" / "bb"
    put(locked / "two", 5)
    locked.chmod(0)
    with without_rights():
        found = run(nobody)
    locked.chmod(0o755)
    assert found.unreadable == [f"{locked}: Permission denied"]
    assert found.files == 1


def test_an_unreadable_media_directory(nobody: Path) -> None:
    (nobody / "local_content").mkdir()
    nobody.chmod(0o300)
    with without_rights(), pytest.raises(UsageError, match=r"can't be read \(Permission denied\)"):
        run(nobody)
    nobody.chmod(0o755)


def test_gone_while_counting(media: Path) -> None:
    """A directory that can't be opened is reported: here it vanishes between the listing and the look."""
    for number in range(2000):
        put(media / "remote_content" / "example.org" / "zz" / str(number), 1)
    gone = media / "remote_thumbnail"

    def vanish(_: int) -> None:
        if gone.exists():
            for file in sorted(gone.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
            gone.rmdir()

    found = measure(media, EDGES, NOW, vanish)
    assert found.unreadable == [f"{gone}: No such file or directory"]
    assert found.files == 2006


def test_a_listing_that_breaks_off_is_reported_and_the_rest_counted(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /proc or on a broken disk: some entries, then an error."""
    broken = str(media / "local_content" / "aa" / "bb")
    scandir = os.scandir

    def first_only(path: str) -> Iterator[os.DirEntry[str]]:
        with scandir(path) as entries:
            yield next(entries)
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "scandir", lambda path: first_only(path) if path == broken else scandir(path))
    put(media / "local_content" / "aa" / "bb" / "cc3", 5)
    found = run(media)
    assert found.unreadable == [f"{broken}: Input/output error"]
    # One of the two in that directory.
    assert found.files == 7


def test_too_deep_is_reported(media: Path) -> None:
    put(media.joinpath("local_content", *["d"] * 80, "file"), 5)
    found = run(media)
    assert found.skipped == 1
    assert "too deep" in found.unreadable[0]


def test_names_that_are_not_text(media: Path) -> None:
    Path(os.fsdecode(os.fsencode(media / "local_content") + b"/\xff\xfe")).write_bytes(b"x")
    assert run(media).files == 8


def test_only_a_few_faults_are_kept(media: Path) -> None:
    for number in range(50):
        (media / "local_content" / f"link{number}").symlink_to(media)
    found = run(media)
    assert (found.skipped, len(found.unreadable)) == (50, 5)


@pytest.mark.parametrize("kind", ["missing", "file", "other", "parent", "empty", "media-repo"])
def test_what_is_no_media_directory(media: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / kind
    word = "is not a media directory of Synapse"
    if kind == "missing":
        word = r"can't be read \(No such file"
    elif kind == "file":
        put(place, 5)
        word = "is not a directory"
    elif kind == "parent":
        place = tmp_path
        word = f"Did you mean '{media}'"
    else:
        place.mkdir()
        if kind == "other":
            put(place / "Documents" / "a.txt", 5)
        elif kind == "media-repo":
            put(place / "a1" / "b2" / "c3", 5)
    with pytest.raises(UsageError, match=word) as caught:
        run(place)
    assert "--media" in str(caught.value)


def _many(top: Path, files: int) -> Path:
    for number in range(files):
        put(top / "local_content" / f"{number % 7:02}" / f"{number % 11:02}" / str(number), 1)
    return top


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    def peak(path: Path) -> int:
        tracemalloc.start()
        try:
            assert measure(path, EDGES, NOW).files > 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = _many(tmp_path / "few", 300), _many(tmp_path / "many", 3000)
    peak(few)  # warm up
    assert peak(many) < peak(few) + 25_000


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[int] = []
    measure(_many(tmp_path, 2500), EDGES, time.time(), seen.append)
    assert seen == [1000, 2000]
