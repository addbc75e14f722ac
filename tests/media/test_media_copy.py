"""`media copy` with rclone on the embedded store: everything once, nothing twice, and nothing lost whatever happens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from synapse_media.engine import embedded
from synapse_media.engine.embedded import Running
from synapse_media.media import copy, handover, rclone
from synapse_media.media.root import Root
from synapse_media.methods import Operation
from synapse_media.store import bounded
from tests.doubles import proxy
from tests.media.worlds import KILLS, World, world

ROOT = Path(__file__).parents[2]
DAY = 24 * 3600
_MAIN = "import sys; from synapse_media.cli import main; sys.exit(main())"


def counts(answer: dict[str, Any]) -> dict[str, int]:
    """{kind: how many} of those that there are."""
    found = {name: each.get("files", each.get("count")) for name, each in answer.items() if isinstance(each, dict)}
    return {name: count for name, count in found.items() if count}


def contents(at: World) -> dict[str, bytes]:
    """{path: content} of the media store's files."""
    return {path: (at.media / path).read_bytes() for path in at.files()}


def in_bucket(at: World) -> dict[str, bytes]:
    from tests.end_to_end import by_hand

    client = by_hand.s3(at.admin)
    return {
        path: client.get_object(Bucket=at.store.bucket, Key=at.store.prefix + path)["Body"].read()
        for path in at.objects()
    }


def many(at: World, count: int, size: int = 2000) -> None:
    """So many files of random content, half of them of remote media."""
    source = random.Random(count)
    for number in range(count):
        folder = "local_content" if number % 2 else "remote_content/a.example.org"
        name = "".join(source.choices("abcdefXYZ", k=6))
        at.write(f"{folder}/{name[:2]}/{name[2:4]}/{name[4:]}{number}", source.randbytes(source.randrange(size)))


def started(at: World, *arguments: str, limits: str = "", before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The command as a process of its own, in a process group of its own, with limits as a shell sets them.

    Args:
        before: the program that runs that shell.
    """
    command = [sys.executable, "-c", _MAIN, "media", "copy", str(at.media), "--json", "--store"]
    first = ["sh", "-c", f'{limits}; exec "$@"', "sh"] if limits else []
    return subprocess.Popen(
        [*before, *first, *command, str(at.store_file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def test_everything_once_and_nothing_twice(at: World) -> None:
    many(at, 30)
    at.write("local_content/aa/bb/empty", b"")
    at.write("local_thumbnails/aa/bb/cc/32-32-image-png-crop")
    at.write("remote_thumbnail/example.org/aa/bb/cc/32-32-image-png")
    wanted = contents(at)
    at.write("url_cache/2026-01-01/abc")
    at.write("url_cache_thumbnails/2026-01-01/abc/32-32-image-png-crop")
    code, answer, _ = at.run("copy")
    assert (code, counts(answer)) == (0, {"planned": 33, "copied": 33})
    assert in_bucket(at) == wanted
    assert (answer["bucket"], answer["prefix"]) == (at.store.bucket, at.store.prefix)
    code, answer, _ = at.run("copy")
    assert (code, counts(answer)) == (0, {"same": 33})
    code, answer, _ = at.run("copy", "--checksum")
    assert (code, counts(answer)) == (0, {"same": 33})


@pytest.mark.parametrize(("at_once", "runs"), [(10_000, 1), (7, 3)])
def test_each_file_is_one_request_and_each_folder_one_before_and_one_after_where_there_are_new_ones(
    one: World, monkeypatch: pytest.MonkeyPatch, at_once: int, runs: int
) -> None:
    """However many are handed over at once; and a second run asks for nothing but one listing of each folder."""
    many(one, 20)
    begun: list[str] = []
    run = rclone.Rclone.run

    def noted(self: rclone.Rclone, command: str, *arguments: str, **named: Any) -> str:
        begun.append(command)
        return run(self, command, *arguments, **named)

    monkeypatch.setattr(rclone.Rclone, "run", noted)
    monkeypatch.setattr(copy, "at_once", lambda _: at_once)
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        assert one.run("copy")[0] == 0
        first = [exchange.method for exchange in double.exchanges]
        assert sorted(first) == ["GET"] * 6 + ["PUT"] * 20
        assert begun == ["copy"] * runs
        assert one.run("copy")[0] == 0
        second = double.exchanges[len(first) :]
        assert [exchange.method for exchange in second] == ["GET"] * 4
        assert all("list-type=2" in exchange.target for exchange in second)
        assert begun == ["copy"] * runs


def test_few_new_files_in_a_large_bucket_are_listed_by_themselves(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is listed once more is what was copied, however similar the names are."""
    monkeypatch.setattr(copy, "PAGE", 3)
    for number in range(12):
        one.both(f"local_content/{number:02}/aa/old")
    new = [
        "local_content/00/aa/new",
        "local_content/00.x/aa/new",
        "local_content/00x/aa/new",
        "remote_content/example.org/aa/bb/new",
    ]
    for path in new:
        one.write(path)

    def prefixes(double: proxy.Proxy, since: int = 0) -> list[str]:
        asked = [parse_qs(urlsplit(each.target).query) for each in double.exchanges[since:] if each.method == "GET"]
        return [query["prefix"][0] for query in asked]

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        code, answer, _ = one.run("copy")
        assert (code, counts(answer)) == (0, {"planned": 4, "copied": 4, "same": 12})
        # "00" has "00.x" and "00x", too.
        assert prefixes(double)[4:] == ["media/local_content/00", "media/remote_content/example.org/aa"]
        for number in range(6):
            one.write(f"local_content/{number:02}/aa/newer")
        since = len(double.exchanges)
        code, answer, _ = one.run("copy")
        assert (code, counts(answer)) == (0, {"planned": 6, "copied": 6, "same": 16})
        # By themselves they would be more requests than pages.
        assert prefixes(double, since)[4:] == ["media/local_content/"]
    assert in_bucket(one) == contents(one)


def test_what_is_handed_over_is_linked_and_removed_in_as_few_calls_as_can_be(
    one: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory once, and nothing is looked for: with thousands of files that took as long as their upload."""
    many(one, 40)
    folders = {str(path.relative_to(one.media)) for path in one.media.rglob("*") if path.is_dir()}
    calls: list[str] = []

    def count(name: str) -> None:
        call = getattr(os, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return call(*arguments, **named)

        monkeypatch.setattr(os, name, counted)

    left: list[list[Path]] = []
    rmtree = shutil.rmtree

    def noted(place: Path, **named: Any) -> None:
        left.append(list(place.iterdir()))
        rmtree(place, **named)

    with Root(one.media) as root:
        for name in ("mkdir", "symlink", "unlink", "rmdir"):
            count(name)
        monkeypatch.setattr(shutil, "rmtree", noted)
        with handover.handed_over(root, sorted(one.files())) as handed:
            assert {path: (handed.directory / path).read_bytes() for path in one.files()} == contents(one)
            calls_for_links = Counter(calls)
        calls_for_all = Counter(calls)
    assert len(handed.opened) == calls_for_links["symlink"] == calls_for_all["unlink"] == 40
    # The directory itself is one more; rmtree removes it.
    assert calls_for_links["mkdir"] == len(folders) + 1
    assert left == [[]]
    assert not handed.directory.exists()


NAMES = (
    "remote_content/example.org/aa/bb/with blanks",
    "remote_content/example.org/aa/bb/ends with one ",
    "remote_content/example.org/aa/bb/ünïcode 画像 😀",
    "remote_content/example.org/aa/bb/e\u0301 in two",
    "remote_content/example.org/aa/bb/\u00e9 in two",
    "remote_content/example.org/aa/bb/～wide．",
    "remote_content/example.org/aa/bb/per%20cent+plus&and?who#hash",
    "remote_content/example.org/aa/bb/'\"`$(quoted)\\*[x]{y}!",
    "remote_content/example.org/aa/bb/-option",
    "remote_content/example.org/aa/bb/# no comment",
    "remote_content/example.org/aa/bb/<xml>&amp;",
    "remote_content/[::1]:8448/aa/bb/cc",
    "remote_content/example.org/aa/bb/back\\slash",
    # What rclone puts in place of characters that a side can't keep, or marks such a character by.
    *(f"remote_content/example.org/aa/bb/x{chr(code)}y" for code in (*range(0x2400, 0x2425), *range(0xFF01, 0xFF5F))),
    *(
        f"remote_content/example.org/aa/b{name}/{name}"
        for name in ("．", "．．", "...", "␊", "‛", "‛．", "‛␀", "‛FF", "␠")
    ),
    *(f"remote_content/example.org/aa/bb/{name}" for name in ("．", "．．", "...", "␊", "‛", "‛．", "‛␀", "‛FF", "␠")),
    "remote_content/example.org/␊/．．/␡",
    "remote_content/example.org/␊/‛／/␡",
)


def test_names_are_kept_as_they_are(at: World) -> None:
    for name in NAMES:
        at.write(name, name.encode())
    code, answer, _ = at.run("copy")
    assert (code, counts(answer)) == (0, {"planned": len(NAMES), "copied": len(NAMES)})
    assert in_bucket(at) == {name: name.encode() for name in NAMES}
    assert counts(at.run("copy")[1]) == {"same": len(NAMES)}
    assert counts(at.run("verify", "--read-all")[1]) == {"verified": len(NAMES)}


def test_what_differs_is_replaced_unless_the_bucket_has_more(one: World) -> None:
    one.write("local_content/aa/bb/nothing")
    one.put("local_content/aa/bb/nothing", b"")
    one.write("local_content/aa/bb/half")
    one.put("local_content/aa/bb/half", b"con")
    one.write("local_content/aa/bb/cut-off-here", b"con")
    one.put("local_content/aa/bb/cut-off-here")
    one.put("local_content/aa/bb/freed", b"only there")
    code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (1, {"planned": 2, "copied": 2, "larger": 1})
    assert answer["larger"]["first"][0]["path"] == "local_content/aa/bb/cut-off-here"
    there = in_bucket(one)
    assert set(there.values()) == {b"content", b"only there"}


def test_content_is_compared_where_that_is_asked_for(one: World) -> None:
    one.write("local_content/aa/bb/other")
    one.put("local_content/aa/bb/other", b"tnetnoc")
    assert counts(one.run("copy")[1]) == {"same": 1}
    assert counts(one.run("copy", "--checksum")[1]) == {"planned": 1, "copied": 1}
    assert set(in_bucket(one).values()) == {b"content"}


def test_what_was_written_after_its_object_is_copied_again(one: World) -> None:
    one.put("local_content/aa/bb/cc", b"before.")
    one.write("local_content/aa/bb/cc", b"content", age=-3 * DAY)
    assert counts(one.run("copy")[1]) == {"planned": 1, "copied": 1}


def test_what_was_uploaded_in_parts_is_not_uploaded_again(one: World) -> None:
    content = random.Random(1).randbytes(11 << 20)
    one.write("local_content/aa/bb/big", content)
    one.put_in_parts("local_content/aa/bb/big", content, 5 << 20)
    assert counts(one.run("copy")[1]) == {"same": 1}
    assert counts(one.run("copy", "--checksum")[1]) == {"same": 1, "uncompared": 1}


def test_what_the_store_refuses_is_a_failure_however_young_the_file(one: World) -> None:
    one.write("local_content/aa/bb/young", age=1)
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "No."),
            when=lambda request: request.method == "PUT",
        )
        code, answer, _ = one.run("copy", "--min-age", "0")
    assert (code, counts(answer)) == (1, {"planned": 1, "failed": 1})


def test_what_may_not_be_whole_is_left_for_the_next_run(one: World) -> None:
    one.write("local_content/aa/bb/old")
    one.write("local_content/aa/bb/young", age=20)
    code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1, "young": 1})
    assert counts(one.run("copy", "--min-age", "5")[1]) == {"planned": 1, "copied": 1, "same": 1}


def test_a_file_that_is_written_to_while_it_is_read(one: World) -> None:
    file = one.write("local_content/aa/bb/growing", b"x" * 60_000)
    one.write("local_content/aa/bb/quiet")
    done = threading.Event()

    def grow() -> None:
        with file.open("ab") as content:
            while not done.is_set():
                content.write(b"y" * 1000)
                content.flush()
                time.sleep(0.01)

    writer = threading.Thread(target=grow)
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        # The plan is made of a quiet file; it grows once the listing was asked for.
        double.misbehave(lambda request, upstream: writer.start() or upstream.ask(request), times=1)
        try:
            code, answer, _ = one.run("copy", "--bwlimit", "50K")
        finally:
            done.set()
            writer.join()
    assert (code, counts(answer)) == (0, {"planned": 2, "copied": 1, "changing": 1})
    os.utime(file, (time.time() - DAY,) * 2)
    one.save(one.store)
    assert one.run("copy")[0] == 0
    assert in_bucket(one)["local_content/aa/bb/growing"] == file.read_bytes()


def test_a_dry_run_changes_nothing(one: World) -> None:
    many(one, 3)
    code, answer, _ = one.run("copy", "--dry-run")
    assert (code, counts(answer)) == (0, {"planned": 3})
    assert one.objects() == set()


def test_what_is_left_out_is_named_and_not_passed_over(one: World, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("not media")
    one.write("local_content/aa/bb/cc")
    (one.media / "local_content/aa/bb/link").symlink_to(tmp_path / "secret.txt")
    (one.media / "notes.txt").write_text("beside")
    code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (1, {"planned": 1, "copied": 1, "left_out": 1})
    assert answer["left_out"]["first"][0]["path"] == "local_content/aa/bb/link"
    assert answer["unknown"] == ["notes.txt"]
    assert one.objects() == {"local_content/aa/bb/cc"}


@contextlib.contextmanager
def exchanged(one: World, when: Callable[[proxy.Request], bool], secret: Path) -> Iterator[None]:
    """A directory of the media store becomes a link out of it, at the first request of this kind."""

    def exchange(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        (one.media / "local_content/zz/zz").rename(one.media / "local_content/zz/away")
        (one.media / "local_content/zz/zz").symlink_to(secret.parent)
        return upstream.ask(request)

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        rule = double.misbehave(exchange, when=when, times=1)
        yield
        assert rule.hits == 1


def test_a_directory_that_becomes_a_link_after_the_plan_is_not_followed(one: World, tmp_path: Path) -> None:
    """Whoever may write to the media store would have root read any file of the machine."""
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets/shadow"
    secret.write_bytes(b"SECRET.")
    one.write("local_content/aa/aa/big")
    one.write("local_content/zz/zz/shadow", b"a")
    # The listing goes on only behind the last file.
    one.put("local_content/zzz/zz/other")
    with exchanged(one, lambda request: request.query.get("prefix") == ["media/remote_thumbnail/"], secret):
        code, answer, _ = one.run("copy", "--min-age", "0")
    assert (code, counts(answer)) == (1, {"planned": 2, "copied": 1, "failed": 1})
    assert "became a symbolic link" in answer["failed"]["first"][0]["why"]
    assert in_bucket(one) == dict.fromkeys(("local_content/aa/aa/big", "local_content/zzz/zz/other"), b"content")


def test_a_directory_that_becomes_a_link_while_others_are_uploaded_is_not_followed(one: World, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets/last"
    secret.write_bytes(b"SECRET.")
    many(one, 200, 20_000)
    one.write("local_content/zz/zz/last")
    wanted = contents(one)
    with exchanged(one, lambda request: request.method == "PUT", secret):
        code, answer, _ = one.run("copy", "--bwlimit", "1M")
    assert (code, counts(answer)) == (0, {"planned": 201, "copied": 201})
    assert in_bucket(one) == wanted


def test_files_that_are_deleted_meanwhile_keep_nothing_from_being_copied(
    one: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of one batch, as in the purge of a server: that is no store that takes nothing."""
    monkeypatch.setattr(copy, "at_once", lambda _: 2)
    for name in ("local_content/aa/aa/one", "local_content/aa/aa/two", "local_content/zz/zz/last"):
        one.write(name)
    one.put("local_content/zzz/zz/other")

    def purge(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        shutil.rmtree(one.media / "local_content/aa")
        return upstream.ask(request)

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(
            purge, when=lambda request: request.query.get("prefix") == ["media/remote_thumbnail/"], times=1
        )
        code, answer, _ = one.run("copy", "--min-age", "0")
    assert (code, counts(answer)) == (0, {"planned": 3, "copied": 1})
    assert set(in_bucket(one)) == {"local_content/zz/zz/last", "local_content/zzz/zz/other"}


def test_files_that_change_their_names_while_others_are_uploaded(one: World) -> None:
    """What is open is uploaded: one that is deleted, and the former one of a name under which another lies by now."""
    many(one, 200, 20_000)
    replaced, deleted = "local_content/zz/zz/replaced", "local_content/zz/zz/zdeleted"
    old = one.write(replaced, b"before").stat().st_mtime
    one.write(deleted)

    def change(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        other = one.write("local_content/zz/zz/other", b"after.")
        os.utime(other, (old, old))
        other.rename(one.media / replaced)
        (one.media / deleted).unlink()
        return upstream.ask(request)

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(change, when=lambda request: request.method == "PUT", times=1)
        code, answer, _ = one.run("copy", "--bwlimit", "1M")
    assert (code, counts(answer)) == (1, {"planned": 202, "copied": 201, "failed": 1})
    (failed,) = answer["failed"]["first"]
    assert failed["path"] == deleted
    assert "was deleted here while it was uploaded" in failed["why"]
    assert in_bucket(one)[replaced] == b"after."


def test_a_file_that_is_replaced_twice_while_it_is_uploaded_is_named_as_failed(one: World) -> None:
    """By size and time the object of its former content passes for the file's: no later run would tell."""
    path = "local_content/aa/bb/cc"
    old = one.write(path, b"content 0").stat().st_mtime
    one.write("local_content/aa/bb/dd")
    contents_in_turn = [b"content 1", b"content 2"]

    def change(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        other = one.write("local_content/other", contents_in_turn.pop(0))
        os.utime(other, (old, old))
        other.rename(one.media / path)
        return answer

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(change, when=lambda request: request.method == "PUT" and request.key.endswith("/cc"), times=2)
        code, answer, _ = one.run("copy")
    assert contents_in_turn == []
    assert (code, counts(answer)) == (1, {"planned": 2, "copied": 1, "failed": 1})
    (failed,) = answer["failed"]["first"]
    assert failed["path"] == path
    assert "was replaced again while it was uploaded" in failed["why"]
    assert (in_bucket(one)[path], (one.media / path).read_bytes()) == (b"content 1", b"content 2")
    one.save(one.store)
    # The advice helps, and a run without it does not.
    assert counts(one.run("copy")[1]) == {"same": 2}
    code, answer, _ = one.run("copy", "--checksum")
    assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1, "same": 1})
    assert in_bucket(one)[path] == b"content 2"


def test_without_its_own_proc_nothing_is_copied(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.write("local_content/aa/bb/cc")
    # As in another namespace of processes: its number there is another one's here.
    monkeypatch.setattr(os, "getpid", lambda: 1)
    code, _, said = one.run("copy")
    assert code == 1
    assert "/proc does not show the open files of this process" in said
    assert in_bucket(one) == {}


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_what_killed_runs_left_of_their_links(
    one: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In the temporary directory, too, where there is memory for new ones."""
    one.write("local_content/aa/bb/cc")
    at = tmp_path / where
    places = {name: at / f"synapse-media-copy-{name}" for name in ("dead", "alive", "another's", "link")}
    for name, place in places.items():
        if name != "link":
            (place / "local_content/aa").mkdir(parents=True)
            place.chmod(0o755 if name == "another's" else 0o700)
    places["link"].symlink_to(places["another's"])
    for name in ("disk", "memory"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name).chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
    monkeypatch.setattr(handover, "_IN_MEMORY", tmp_path / "memory")
    descriptor = os.open(places["alive"], os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert one.run("copy")[0] == 0
    finally:
        os.close(descriptor)
    left = [path.name.rpartition("-")[2] for name in ("disk", "memory") for path in (tmp_path / name).iterdir()]
    assert sorted(left) == ["alive", "another's", "link"]
    assert all((places[name] / "local_content/aa").is_dir() for name in ("alive", "another's"))


@pytest.mark.parametrize(
    ("mode", "used"), [(0o1777, "memory"), (0o777, "disk"), (None, "disk")], ids=["sticky", "not sticky", "none"]
)
def test_links_lie_in_memory_where_nobody_else_can_move_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int | None, used: str
) -> None:
    (tmp_path / "disk").mkdir()
    if mode is not None:
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory").chmod(mode)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
    monkeypatch.setattr(handover, "_IN_MEMORY", tmp_path / "memory")
    with handover.directory(1) as place:
        assert place.parent == tmp_path / used
        assert place.stat().st_mode & 0o777 == 0o700
    assert not place.exists()
    # Contents would fill the memory.
    with handover.directory() as place:
        assert place.parent == tmp_path / "disk"


class Room(NamedTuple):
    """What statvfs tells of a file system."""

    f_files: int = 1_000_000
    f_favail: int = 1_000_000
    f_blocks: int = 100_000
    f_bavail: int = 100_000
    f_frsize: int = 4096


@pytest.mark.parametrize(
    ("room", "used"),
    [
        (Room(), "memory"),
        (Room(f_favail=0), "disk"),
        (Room(f_favail=499), "disk"),
        (Room(f_favail=500), "memory"),
        (Room(f_files=0, f_favail=0), "memory"),
        (Room(f_bavail=0), "disk"),
        (Room(f_bavail=124), "disk"),
        (Room(f_bavail=125), "memory"),
        (Room(f_blocks=0, f_bavail=0), "memory"),
    ],
)
def test_links_lie_in_memory_where_it_has_room_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: Room, used: str
) -> None:
    for name in ("disk", "memory"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o1777)
    dead = tmp_path / "memory" / "synapse-media-copy-dead"
    dead.mkdir(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
    monkeypatch.setattr(handover, "_IN_MEMORY", tmp_path / "memory")
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    with handover.directory(100) as place:
        assert place.parent == tmp_path / used
    assert not dead.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("full", ["nr_inodes=20", "size=64k"])
def test_a_full_dev_shm_is_no_end(one: World, full: str) -> None:
    many(one, 30)
    fill = "; head -c 1M /dev/zero > /dev/shm/filled 2>/dev/null" if "size" in full else ""
    process = started(
        one, limits=f"mount -t tmpfs -o mode=1777,{full} none /dev/shm || exit 77{fill}", before=("unshare", "-m")
    )
    out, said = process.communicate()
    if process.returncode == 77 or "unshare:" in said:
        pytest.skip("no mounts here")
    assert process.returncode == 0, said
    assert json.loads(out)["copied"]["files"] == 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_dev_shm_that_fills_meanwhile_is_told(one: World) -> None:
    """Some other program takes what had room for the links when they were begun."""
    many(one, 30)
    code = (
        "import sys\n"
        "from synapse_media.media import handover\n"
        "handover._has_room = lambda *_: True\n"
        "from synapse_media.cli import main\n"
        "sys.exit(main())\n"
    )
    arguments = ["media", "copy", str(one.media), "--store", str(one.store_file), "--json"]
    mount = "mount -t tmpfs -o mode=1777,nr_inodes=20 none /dev/shm || exit 77"
    command = ["unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh", sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("no mounts here")
    assert done.returncode == 1, done.stderr
    assert (
        "/dev/shm is full (No space left on device), and up to 150 inodes and 1 MiB are taken there for the links by "
        "which rclone is given 30 files. What was done before is whole. Make room there, or name another directory by "
        "TMPDIR, and run this again." in done.stderr
    )
    assert one.objects() == set()
    assert one.run("copy")[0] == 0


def test_a_temporary_directory_without_room_for_a_link_is_told(
    one: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.write("local_content/aa/bb/cc")
    monkeypatch.setattr(handover, "_IN_MEMORY", tmp_path / "memory")

    def full(self: Path, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", target, None, str(self))

    monkeypatch.setattr(Path, "symlink_to", full)
    code, _, said = one.run("copy")
    assert code == 1
    assert f"{tempfile.gettempdir()} is full (No space left on device), and up to 5 inodes and 1 MiB" in said
    assert "Make room there" in said


def test_links_that_can_not_be_made_are_named_by_their_place(
    one: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.write("local_content/aa/bb/cc")
    monkeypatch.setattr(handover, "_IN_MEMORY", tmp_path / "memory")

    def refused(self: Path, target: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", target, None, str(self))

    monkeypatch.setattr(Path, "symlink_to", refused)
    code, _, said = one.run("copy")
    assert code == 1
    assert re.search(
        rf"{re.escape(tempfile.gettempdir())}/synapse-media-copy-\w+/local_content/aa/bb/cc: Read-only", said
    )


@pytest.mark.parametrize("allowed", [300, 400])
def test_as_many_files_are_open_as_may_be(one: World, allowed: int) -> None:
    many(one, 250, 10)
    process = started(one, limits=f"ulimit -Sn 260; ulimit -Hn {allowed}")
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert json.loads(out)["copied"]["files"] == 250
    assert in_bucket(one) == contents(one)


@pytest.mark.parametrize("options", [(), ("--checksum",)], ids=["", "checksum"])
def test_a_file_of_a_time_to_come_is_copied_once(one: World, options: tuple[str, ...]) -> None:
    """It was written by a clock that was wrong, or comes from a backup."""
    one.write("local_content/aa/bb/cc", age=-400 * DAY)
    assert counts(one.run("copy", *options)[1]) == {"planned": 1, "copied": 1}
    assert counts(one.run("copy", *options)[1]) == {"same": 1}


def test_files_of_the_commands_own_are_no_media(one: World) -> None:
    one.write("local_content/aa/bb/cc")
    one.write("local_content/aa/.synapse-media-restore-0123456789abcdef")
    one.write("local_content/.synapse-media-0123456789abcdef", b"")
    code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1})
    assert one.objects() == {"local_content/aa/bb/cc"}


def test_the_storage_class_is_the_stores(one: World) -> None:
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url, storage_class="STANDARD_IA"))
        seen: list[str] = []

        def note(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
            seen.append(request.header("x-amz-storage-class"))
            return upstream.ask(request)

        double.misbehave(note, when=lambda request: request.method == "PUT")
        one.write("local_content/aa/bb/cc")
        assert one.run("copy")[0] == 0
    assert seen == ["STANDARD_IA"]


def test_several_at_once_share_the_work(one: World) -> None:
    many(one, 60)
    running = [started(one, "--shard", f"{number}/2") for number in (1, 2)]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum(answer["copied"]["files"] for answer in answers) == 60
    assert all(answer["copied"]["files"] for answer in answers)
    assert in_bucket(one) == contents(one)
    assert counts(one.run("copy")[1]) == {"same": 60}


def test_two_at_once_on_all_of_it(one: World) -> None:
    many(one, 40)
    running = [started(one) for _ in range(2)]
    for process in running:
        process.communicate(timeout=300)
    assert [process.returncode for process in running] == [0, 0]
    assert in_bucket(one) == contents(one)


def test_a_run_that_is_killed_is_gone_on_with(one: World) -> None:
    """At random moments, each of which finds what the earlier ones left."""
    many(one, 300, size=6000)
    wanted = contents(one)
    moments = random.Random(7)
    left_at: list[int] = []
    for _ in range(KILLS or 20):
        process = started(one, "--bwlimit", "500K")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.3, 2.5))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        there = in_bucket(one)
        assert there.items() <= wanted.items(), "no object is half of a file, or anything else"
        left_at.append(len(there))
    code, answer, _ = one.run("copy")
    assert code == 0
    assert answer["copied"]["files"] <= 300 - left_at[-1]
    assert in_bucket(one) == wanted == contents(one)
    assert counts(one.run("copy")[1]) == {"same": 300}


def test_rclone_ends_with_the_command(one: World) -> None:
    many(one, 50, size=200_000)
    process = started(one, "--bwlimit", "50K")
    deadline = time.monotonic() + 300
    while not (children := _children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    children = _children(process.pid) or children
    process.kill()
    process.communicate()
    assert children
    deadline = time.monotonic() + 60
    while any(embedded.identity(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(embedded.identity(pid) for pid in children)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


FAULTS = {
    "503": proxy.slow_down,
    "500": proxy.internal_error,
    "connection dropped": lambda *_: None,
    "done and not told": proxy.lost_answer,
    "a page": proxy.html(502),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_store_that_fails_now_and_then(one: World, fault: proxy.Fault) -> None:
    many(one, 20)
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        rule = double.misbehave(fault, when=lambda request: request.method == "PUT", times=6)
        code, answer, _ = one.run("copy")
        assert rule.hits == 6
    assert (code, counts(answer)) == (0, {"planned": 20, "copied": 20})
    assert in_bucket(one) == contents(one)


@pytest.mark.parametrize("age", [DAY, -400 * DAY], ids=["past", "future"])
def test_what_never_arrives_is_a_failure_that_is_named(one: World, age: float) -> None:
    many(one, 4)
    one.write("local_content/aa/bb/unlucky", age=age)
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "Access Denied"),
            when=lambda request: request.method == "PUT" and request.key.endswith("unlucky"),
        )
        code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (1, {"planned": 5, "copied": 4, "failed": 1})
    (failed,) = answer["failed"]["first"]
    assert failed["path"] == "local_content/aa/bb/unlucky"
    assert "AccessDenied" in failed["why"]
    assert len(one.objects()) == 4


@pytest.mark.parametrize(
    ("said", "retries"),
    [
        ("api error InternalError, https response error StatusCode: 500, RequestID: x", [1, 2]),
        ("InternalError: We encountered an internal error. Please try again.", [1, 2]),
        ("https response error StatusCode: 403, api error AccessDenied: Access Denied", [1, 2]),
        ("https response error StatusCode: 502, api error BadGateway", [1, 2, 4]),
        ("https response error StatusCode: 408, api error UnknownError", [1, 2, 4]),
        ("https response error StatusCode: 400, api error RequestTimeout: Your socket connection", [1, 2, 4]),
        ("https response error StatusCode: 0, request send failed: EOF", [1, 2, 4]),
        ("unexpected EOF", [1, 2, 4]),
        ("read tcp 192.0.2.1:5000->192.0.2.2:443: i/o timeout", [1, 2]),
        ("request send failed: net/http: timeout awaiting response headers", [1, 2]),
        ("https response error StatusCode: 503, api error SlowDown: Please reduce your request rate.", [1, 2, 4, 6]),
        ("https response error StatusCode: 429, api error UnknownError", [1, 2, 4, 6]),
        ("SlowDown: Please reduce your request rate.", [1, 2, 4, 6]),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
def test_how_long_a_store_is_waited_for(said: str, retries: list[int], named: bool) -> None:
    tried: list[int] = []

    def once(due: Sequence[str], options: Sequence[str]) -> tuple[set[str], dict[str, str], rclone.RcloneError | None]:
        tried.append(int(options[-1]))
        return {"fine"} & set(due), {"bad": said} if named else {}, rclone.RcloneError(said)

    if named:
        assert rclone._in_passes(["bad", "fine"], once) == {"bad": said}
    else:
        with pytest.raises(rclone.RcloneError, match=re.escape(said)):
            rclone._in_passes(["bad", "fine"], once)
    assert tried == retries


def test_a_name_that_looks_like_a_success_is_none() -> None:
    seen = rclone._Copying(rclone.Progress(), lambda _: None)
    why = "Failed to copy: open /media/aa/Copied (1): permission denied"
    seen.note({"level": "error", "object": "aa/Copied (1)", "msg": why})
    seen.note({"level": "info", "object": "aa/Copied (2)", "msg": "Copied (new)"})
    seen.note({"level": "info", "object": "aa/big", "msg": "Multi-thread Copied (new)"})
    assert (seen.done, seen.failed) == ({"aa/Copied (2)", "aa/big"}, {"aa/Copied (1)": why})


def test_content_that_is_damaged_on_its_way_is_not_accepted(one: World) -> None:
    one.write("local_content/aa/bb/cc", b"content")

    def damage(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        return upstream.ask(replace(request, body=b"tnetnoc"))

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(damage, when=lambda request: request.method == "PUT")
        code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (1, {"planned": 1, "failed": 1})
    assert one.objects() == set()


def test_a_listing_that_is_cut_off_is_no_listing(one: World) -> None:
    many(one, 5)
    assert one.run("copy")[0] == 0
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(proxy.truncated, when=lambda request: request.method == "GET")
        code, answer, said = one.run("copy")
    assert code == 1
    assert "error" in answer
    assert said


@pytest.mark.parametrize("checksum", [(), ("--checksum",)], ids=["", "checksum"])
@pytest.mark.parametrize("fault", proxy.NO_STORE.values(), ids=proxy.NO_STORE)
def test_what_is_no_listing_is_no_empty_bucket(one: World, fault: proxy.Fault, checksum: tuple[str, ...]) -> None:
    """A file that was cut off here would replace its good object."""
    one.write("local_content/aa/bb/cc", b"con")
    one.put("local_content/aa/bb/cc", b"content")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(fault, when=lambda request: request.method == "GET")
        code, answer, said = one.run("copy", *checksum)
        assert all(exchange.method == "GET" for exchange in double.exchanges)
    assert code == 1
    assert "error" in answer
    assert "list_objects_v2" in said
    assert in_bucket(one) == {"local_content/aa/bb/cc": b"content"}


def _without_contents(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
    answer = upstream.ask(request)
    assert answer is not None
    body = re.sub(rb"<Contents>.*</Contents>", b"", answer.body, flags=re.DOTALL)
    return replace(answer, body=body, headers=tuple(h for h in answer.headers if h[0].lower() != "content-length"))


@pytest.mark.parametrize("action", ["copy", "verify", "restore"])
def test_a_listing_without_the_objects_that_it_counts_is_no_empty_bucket(one: World, action: str) -> None:
    """A file that was cut off here would replace its good object."""
    one.write("local_content/aa/bb/cc", b"con")
    one.put("local_content/aa/bb/cc", b"content")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(_without_contents, when=lambda request: request.method == "GET")
        code, answer, said = one.run(action)
        assert all(exchange.method == "GET" for exchange in double.exchanges)
    assert code == 1
    assert "error" in answer
    assert "says that it has 1 entries, and has 0" in said


def test_a_listing_that_goes_on_with_nothing_in_it_is_ended(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "EMPTY_PAGES", 7)
    one.write("local_content/aa/bb/cc")

    def goes_on(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        # Never the same place twice.
        after = int(request.query.get("continuation-token", ["0"])[0]) + 1
        body = (
            f"<ListBucketResult><Name>{one.store.bucket}</Name><Prefix/><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{after}</NextContinuationToken></ListBucketResult>"
        )
        return proxy.Answer(200, (("Content-Type", "application/xml"),), body.encode())

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(goes_on, when=lambda request: request.method == "GET")
        code, answer, said = one.run("copy")
    assert code == 1
    assert "error" in answer
    assert "pages" in said
    assert in_bucket(one) == {}


def test_an_upload_that_somebody_else_answered_is_none(one: World) -> None:
    many(one, 3)
    one.write("local_content/aa/bb/lost")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(proxy.html(), when=lambda request: request.method == "PUT" and request.key.endswith("/lost"))
        code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (1, {"planned": 4, "copied": 3, "failed": 1})
    (failed,) = answer["failed"]["first"]
    assert failed["path"] == "local_content/aa/bb/lost"
    assert "the store does not list it" in failed["why"]


def test_an_object_that_arrived_with_another_size_is_a_failure(one: World) -> None:
    one.write("local_content/aa/bb/cc")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))

        def replaced(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
            answer = upstream.ask(request)
            one.put("local_content/aa/bb/cc", b"other content")
            return answer

        double.misbehave(replaced, when=lambda request: request.method == "PUT")
        code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (1, {"planned": 1, "failed": 1})
    assert "7 bytes" in answer["failed"]["first"][0]["why"]
    assert "13" in answer["failed"]["first"][0]["why"]


def with_keys(*keys: str, last: bool = False) -> proxy.Fault:
    """Objects that the embedded store could not have, in the listing of local content."""

    def added(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        assert answer is not None
        items = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{'0' * 32}&quot;</ETag><Size>3</Size></Contents>"
            for key in keys
        ).encode()
        mark = b"<Contents>" if b"<Contents>" in answer.body and not last else b"</ListBucketResult>"
        body = answer.body.replace(mark, items + mark, 1)
        return replace(answer, body=body, headers=tuple(h for h in answer.headers if h[0].lower() != "content-length"))

    return added


def _of_local_content(request: proxy.Request) -> bool:
    return request.query.get("prefix") == ["media/local_content/"]


@pytest.mark.parametrize("action", ["copy", "restore"])
def test_keys_that_are_no_media_are_passed_over(one: World, action: str) -> None:
    one.both("local_content/aa/bb/cc")
    names = ("../../../etc/cron.d/x", "../x", "./x", "/x", "/", "a//b", "aa/", "aa/..")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        keys = sorted(f"media/local_content/{name}" for name in names)
        double.misbehave(with_keys(*keys), when=_of_local_content)
        code, answer, said = one.run(action)
    assert (code, counts(answer)) == (0, {"same" if action == "copy" else "kept": 1}), said
    assert one.files() == {"local_content/aa/bb/cc"}


def test_a_control_character_in_a_key_stops_nothing_else(one: World) -> None:
    one.both("local_content/aa/bb/cc")
    one.write("local_content/aa/bb/dd")
    one.put("local_content/aa/a\x1bb\ncc")
    code, answer, said = one.run("copy")
    assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1, "same": 1}), said
    code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"kept": 2, "failed": 1}), said
    assert "control character" in answer["failed"]["first"][0]["why"]


def test_a_listing_in_another_order_names_the_key(one: World) -> None:
    one.both("local_content/zz/bb/cc")
    one.write("local_content/zz/bb/dd")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(with_keys("media/local_content/aa/bb", last=True), when=_of_local_content)
        code, _, said = one.run("copy")
    assert code == 1
    assert "'media/local_content/aa/bb' after 'media/local_content/zz/bb/cc'" in said
    assert "another order" in said
    assert one.objects() == {"local_content/zz/bb/cc"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bucket": "nonesuch-bucket"}, "NoSuchBucket"),
        ({"secret_access_key": "not-the-secret-of-it"}, "SignatureDoesNotMatch"),
        ({"access_key_id": "NOBODY"}, "InvalidAccessKeyId"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"prefix": "media"}, "no directory of the bucket"),
        ({"prefix": "a//b/"}, "no directory of the bucket"),
        ({"method": "matrix-media-repo"}, "gdpr_import"),
        ({"method": "filesystem"}, "uses no store"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_store_that_is_not_this_one(one: World, changes: dict[str, Any], said: str) -> None:
    one.write("local_content/aa/bb/cc")
    one.save(replace(one.store, **changes))
    code, answer, words = one.run("copy")
    assert code in (1, 64)
    assert said in words
    assert words.count("\n") == 1, "one clear word"
    assert said in answer["error"]["message"]
    assert one.objects() == set()


def test_a_region_that_is_not_the_stores_is_told(one: World) -> None:
    one.write("local_content/aa/bb/cc")
    one.save(replace(one.store, region="elsewhere-9"))
    code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (1, {"planned": 1, "failed": 1})
    assert "AuthorizationHeaderMalformed" in answer["failed"]["first"][0]["why"]


def test_a_key_that_may_not_list(embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = world(embedded_store, tmp_path, capsys)
    bare = made.admin.provision(prefix="media/", without=(Operation.LIST, Operation.MISSING_KEY))
    made.save(replace(bare, server_name="example.com"))
    made.write("local_content/aa/bb/cc")
    code, _, said = made.run("copy")
    assert code == 1
    assert "AccessDenied" in said
    assert made.admin.objects(bare.bucket) == {}


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}", '{"version": 1}', '{"version": 99}'])
def test_a_file_that_is_no_store_json(one: World, text: str) -> None:
    one.store_file.write_text(text)
    code, _, said = one.run("copy")
    assert code == 1
    assert said.startswith("synapse-media media: ")


def test_a_directory_that_is_no_media_store(one: World) -> None:
    one.media = one.media.parent
    code, _, said = one.run("copy")
    assert code == 1
    assert "is: name that" in said
    assert one.objects() == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shard", "17/16"), "allowed: N/M"),
        (("--min-age", "5", "--checksum", "--server", "example.org"), "the stores there are: example.com"),
    ],
)
def test_usage(one: World, arguments: tuple[str, ...], said: str) -> None:
    code, _, words = one.run("copy", *arguments)
    assert code == 64
    assert said in words


@pytest.mark.parametrize("age", ["-5", "soon", "1.5", "60s"])
def test_an_age_that_is_none(one: World, age: str) -> None:
    with pytest.raises(SystemExit) as ended:
        one.run("copy", f"--min-age={age}")
    assert ended.value.code == 64
    assert "allowed: seconds" in one.capsys.readouterr().err


@pytest.mark.parametrize("rate", ["10", "fast", "0M", "-1M", "10MB"])
def test_a_rate_that_is_none(one: World, rate: str) -> None:
    with pytest.raises(SystemExit) as ended:
        one.run("copy", f"--bwlimit={rate}")
    assert ended.value.code == 64


def test_a_wrong_clock_is_told(one: World) -> None:
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "RequestTimeTooSkewed", "The difference is too large.")
        )
        code, _, said = one.run("copy")
    assert code == 1
    assert "The clock of this machine is wrong" in said


def test_the_secret_is_nowhere(one: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    many(one, 30, size=30_000)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    secret = one.store.secret_access_key
    process = started(one, "--bwlimit", "150K", "-v")
    seen: set[str] = set()
    files: set[Path] = set()
    while process.poll() is None:
        for pid in [process.pid, *_children(process.pid)]:
            with contextlib.suppress(OSError):
                seen.add(Path(f"/proc/{pid}/cmdline").read_text())
        with contextlib.suppress(OSError):
            for file in temporary.rglob("*"):
                if file.is_file():
                    files.add(file)
                    assert secret not in file.read_text(errors="replace")
        time.sleep(0.01)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert any("rclone" in line and "copy" in line for line in seen)
    assert not any(secret in text for text in (out, err, *seen))
    assert list(temporary.iterdir()) == []


def test_settings_of_the_users_rclone_do_not_count(one: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configuration = tmp_path / "rclone.conf"
    configuration.write_text("[store]\ntype = s3\nprovider = AWS\nserver_side_encryption = AES256\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(configuration))
    monkeypatch.setenv("RCLONE_DRY_RUN", "true")
    monkeypatch.setenv("RCLONE_CONFIG_STORE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    one.write("local_content/aa/bb/cc")
    code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1})


@pytest.fixture
def tls_store(own_directories: Path) -> Iterator[Running]:
    running = embedded.start(name="tests-media-tls", tls=True)
    yield running
    embedded.wipe(name="tests-media-tls")


@pytest.mark.parametrize("way", ["store", "AWS_CA_BUNDLE"])
def test_an_authority_of_ones_own(
    tls_store: Running,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls_store.ca_file))
    made = world(tls_store, tmp_path, capsys)
    if way == "store":
        monkeypatch.delenv("AWS_CA_BUNDLE")
        made.save(replace(made.store, ca_file=str(tls_store.ca_file)))
    made.write("local_content/aa/bb/cc")
    code, answer, said = made.run("copy")
    assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1}), said


def test_on_a_server_boto3_is_all_that_is_loaded(one: World) -> None:
    one.write("local_content/aa/bb/cc")
    arguments = ["media", "copy", str(one.media), "--store", str(one.store_file)]
    code = f"""
import sys
from synapse_media.cli import main
assert main({arguments!r}) == 0
print(sorted({{"pulumi", "grpc", "components", "yaml", "ruamel", "rich", "psycopg"}} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_a_stack_has_the_store_too(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from synapse_media.cli import main, stacks

    other = replace(one.store, server_name="other.example.com", bucket="another")
    monkeypatch.setattr(stacks, "load", lambda _: [one.store, other])
    one.write("local_content/aa/bb/cc")
    assert main(["media", "copy", str(one.media), "--stack", "prod"]) == 64
    assert "example.com, other.example.com" in one.capsys.readouterr().err
    assert main(["media", "copy", str(one.media), "--stack", "prod", "--server", "example.com"]) == 0
    assert one.objects() == {"local_content/aa/bb/cc"}


def test_what_is_said_to_people(one: World) -> None:
    from synapse_media.cli import main

    many(one, 3, size=100)
    (one.media / "local_content/link").symlink_to("nowhere")
    assert main(["media", "copy", str(one.media), "--store", str(one.store_file)]) == 1
    lines = one.capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 files, ")
    assert lines[0].endswith(": copied")
    assert "1 file: left out" in lines
    assert "  local_content/link: is a symbolic link, which is not followed." in lines


def test_names_can_not_speak_to_the_terminal(one: World) -> None:
    from synapse_media.cli import main

    one.write("local_content/aa/bb/a\x1b]0;title\x07b\nc: copied\x9b")
    (one.media / "be\x1b[31mside").write_text("")
    assert main(["media", "copy", str(one.media), "--store", str(one.store_file), "--dry-run"]) == 1
    said = one.capsys.readouterr().out
    assert set("\x1b\x07\x9b").isdisjoint(said)
    assert r"  local_content/aa/bb/a\x1b]0;title\x07b\nc: copied\x9b: has a control character in its name" in said
    assert r"be\x1b[31mside" in said


SILENT = """#!/bin/sh
case "$1" in version) echo rclone v1.75.0;; *) cat >/dev/null; {} exit 3;; esac
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            """echo '{"level":"notice","msg":"status code: 301, try elsewhere"}' >&2;""",
            "status code: 301, try elsewhere",
        ),
        ("", "ended with code 3 and said nothing"),
    ],
    ids=["a notice", "nothing"],
)
def test_what_rclone_said_at_any_level_is_told(
    one: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, told: str
) -> None:
    program = tmp_path / "bin" / "rclone"
    program.parent.mkdir()
    program.write_text(SILENT.replace("{}", said))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    one.write("local_content/aa/bb/cc")
    code, _, words = one.run("copy")
    assert code == 1
    assert told in words


def test_a_name_beginning_with_a_dash_as_the_directory(one: World) -> None:
    one.write("local_content/aa/bb/cc")
    dashed = one.media.rename(one.media.parent / "-media")
    one.media = dashed
    code, answer, _ = one.run("copy")
    assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1})
