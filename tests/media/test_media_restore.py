"""`media restore` with rclone on the embedded store: all of it comes back as it was, and nothing that is there goes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main
from synapse_media.media import database, restore
from synapse_media.media.rclone import READING, Rclone, RcloneError
from synapse_media.media.tree import STAGING, Tree
from tests.doubles import proxy
from tests.end_to_end import by_hand
from tests.media.test_media_copy import NAMES, contents, counts, many
from tests.media.worlds import KILLS, UNUSUAL, World

_MAIN = "import sys; from synapse_media.cli import main; sys.exit(main())"


def wipe(at: World) -> None:
    shutil.rmtree(at.media)
    at.media.mkdir()


def test_all_of_it_comes_back(at: World) -> None:
    many(at, 20)
    for name in NAMES:
        at.write(name, name.encode())
    at.write("local_content/aa/bb/empty", b"")
    wanted, times = contents(at), {path: (at.media / path).stat().st_mtime for path in at.files()}
    assert at.run("copy")[0] == 0
    wipe(at)
    code, answer, _ = at.run("restore", "--dry-run")
    assert (code, counts(answer)) == (0, {"planned": len(wanted)})
    assert at.files() == set()
    code, answer, _ = at.run("restore")
    assert (code, counts(answer)) == (0, {"planned": len(wanted), "restored": len(wanted)})
    assert contents(at) == wanted
    assert {path: (at.media / path).stat().st_mtime for path in wanted} == pytest.approx(times, abs=0.01)
    assert not (at.media / STAGING).exists()
    code, answer, _ = at.run("restore")
    assert (code, counts(answer)) == (0, {"kept": len(wanted)})


def other_etags(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
    """As a bucket that is encrypted by a key of the user's (SSE-KMS): the ETag looks like an MD5, and is none."""
    answer = upstream.ask(request)
    if answer is None:
        return None
    headers = [(name, f'"{"0" * 32}"' if name.lower() == "etag" else value) for name, value in answer.headers]
    body = (
        re.sub(rb"[0-9a-f]{32}(?=(?:&#34;|&quot;|\")?</ETag>)", b"0" * 32, answer.body)
        if not request.key
        else answer.body
    )
    return proxy.Answer(answer.status, headers, body)


def test_a_bucket_whose_etags_are_no_md5s(one: World) -> None:
    one.write("local_content/aa/bb/cc", b"something")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        double.misbehave(other_etags)
        one.save(replace(one.store, provider="amazon_s3", endpoint_url=double.url))
        code, answer, said = one.run("copy")
        assert (code, counts(answer)) == (0, {"planned": 1, "copied": 1}), said
        wipe(one)
        code, answer, said = one.run("restore")
        assert (code, counts(answer)) == (0, {"planned": 1, "restored": 1, "unchecked": 1}), said
    assert (one.media / "local_content/aa/bb/cc").read_bytes() == b"something"


def test_what_is_there_is_kept(one: World) -> None:
    one.both("local_content/aa/bb/same")
    one.put("local_content/aa/bb/missing")
    one.put("local_content/aa/bb/other", b"longer than here")
    mine = one.write("local_content/aa/bb/other")
    one.put("somebody/elses", b"no media")
    code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (1, {"kept": 2, "planned": 1, "restored": 1, "differs": 1})
    assert answer["differs"]["first"][0]["path"] == "local_content/aa/bb/other"
    assert mine.read_bytes() == b"content"
    assert one.files() == {f"local_content/aa/bb/{name}" for name in ("same", "missing", "other")}


def rotten(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
    """The same wrong content whenever it is asked for, as of a store whose disk is damaged."""
    answer = upstream.ask(request)
    return answer and replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))


def after_the_first_reading_of(name: str) -> tuple[Callable[[proxy.Request], bool], list[str]]:
    """Whether an object is read for the second time or later; and the keys that were asked for so far."""
    asked: list[str] = []

    def second(request: proxy.Request) -> bool:
        is_it = request.method == "GET" and request.key.endswith(name)
        if is_it:
            asked.append(request.key)
        return is_it and len(asked) > 1

    return second, asked


@contextlib.contextmanager
def damaged(one: World, provider: str = "") -> Iterator[proxy.Proxy]:
    """The store whose object `bad` is not what was uploaded."""
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url, provider=provider or one.store.provider))
        double.misbehave(rotten, when=lambda request: request.method == "GET" and request.key.endswith("/bad"))
        yield double


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("has_file", [True, False])
def test_what_lies_in_the_place_of_a_file_is_told(
    one: World, monkeypatch: pytest.MonkeyPatch, links: bool, has_file: bool
) -> None:
    if not links:
        without_links(monkeypatch)
    for name in ("cc", "dd", "ee"):
        one.put(f"local_content/aa/bb/{name}")
    (one.media / "local_content/aa/bb/cc").mkdir(parents=True)
    if has_file:
        one.write("local_content/aa/bb/cc/file")
    (one.media / "local_content/aa/bb/dd").symlink_to(one.home)
    for _ in range(2):
        code, answer, _ = one.run("restore")
        assert code == 1
        assert {failed["path"]: failed["why"] for failed in answer["failed"]["first"]}.keys() == {
            "local_content/aa/bb/cc",
            "local_content/aa/bb/dd",
        }
        assert all("is there as something else" in failed["why"] for failed in answer["failed"]["first"])
    assert (one.media / "local_content/aa/bb/ee").read_bytes() == b"content"
    assert (one.media / "local_content/aa/bb/cc").is_dir()


@pytest.mark.parametrize("part", [5 << 20, 8 << 20, 6 << 20, 11 << 20], ids=["rclone", "boto3", "halves", "one"])
def test_what_was_uploaded_in_parts_is_compared_with_its_etag(
    one: World, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(1).randbytes(11 << 20)
    one.put_in_parts("local_content/aa/bb/big", content, part)
    monkeypatch.setattr(Rclone, "md5s", None)  # nothing is read a second time
    code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (0, {"planned": 1, "restored": 1}), said
    assert (one.media / "local_content/aa/bb/big").read_bytes() == content


@pytest.mark.parametrize("action", ["restore", "verify"])
def test_what_fits_no_etag_is_told_as_not_checked(one: World, capsys: pytest.CaptureFixture[str], action: str) -> None:
    """That is no proof of damage: `verify` takes it, too, where both sides have the same."""
    content = random.Random(1).randbytes(11 << 20)
    one.put_in_parts("local_content/aa/bb/bad", content, 5 << 20)
    one.put_in_parts("local_content/aa/bb/unusual", content, UNUSUAL)
    one.put_in_parts("local_content/aa/bb/good", content, 5 << 20)
    with damaged(one):
        if action == "verify":
            for name in ("bad", "unusual", "good"):
                one.write(f"local_content/aa/bb/{name}", content[:-1] + bytes([content[-1] ^ (name == "bad")]))
            code, answer, said = one.run("verify")
            assert (code, counts(answer)) == (0, {"verified": 3}), said
            return
        code, answer, said = one.run("restore")
        assert (code, counts(answer)) == (0, {"planned": 3, "restored": 3, "unchecked": 2}), said
        wipe(one)
        assert main(["media", "restore", str(one.media), "--store", str(one.store_file)]) == 0
    assert [each["path"] for each in answer["unchecked"]["first"]] == [
        "local_content/aa/bb/bad",
        "local_content/aa/bb/unusual",
    ]
    assert "2 files: restored, and NOT CHECKED against a checksum" in capsys.readouterr().out


def test_content_that_is_not_that_of_its_md5_is_refused(one: World) -> None:
    one.put("local_content/aa/bb/bad")
    one.put("local_content/aa/bb/good")
    with damaged(one):
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 2, "restored": 1, "failed": 1}), said
    assert answer["failed"]["first"][0]["path"] == "local_content/aa/bb/bad"
    assert "another content" in answer["failed"]["first"][0]["why"]
    assert one.files() == {"local_content/aa/bb/good"}


def test_where_an_etag_may_be_no_md5_other_content_is_told_as_not_checked(one: World) -> None:
    one.put("local_content/aa/bb/bad")
    one.put("local_content/aa/bb/good")
    with damaged(one, provider="amazon_s3"):
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (0, {"planned": 2, "restored": 2, "unchecked": 1}), said


def test_what_was_uploaded_in_other_parts_is_read_twice_and_compared(one: World) -> None:
    content = random.Random(1).randbytes(11 << 20)
    for name in ("big", "b\u2028ig"):
        one.put_in_parts(f"local_content/aa/bb/{name}", content, UNUSUAL)
    code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (0, {"planned": 2, "restored": 2, "unchecked": 2}), said
    for name in ("big", "b\u2028ig"):
        assert (one.media / "local_content/aa/bb" / name).read_bytes() == content


@pytest.mark.parametrize(
    "fault", [proxy.truncated, proxy.in_between(404), proxy.in_between(403)], ids=["cut", "404", "403"]
)
def test_what_can_not_be_read_a_second_time_is_no_loss_of_the_rest(one: World, fault: proxy.Fault) -> None:
    many(one, 6)
    wanted = contents(one)
    assert one.run("copy")[0] == 0
    wipe(one)
    content = random.Random(1).randbytes(11 << 20)
    for name in ("big", "broken"):
        one.put_in_parts(f"local_content/aa/bb/{name}", content, UNUSUAL)
    second, _ = after_the_first_reading_of("/broken")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(fault, when=second)
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 8, "restored": 7, "unchecked": 1, "failed": 1}), said
    failed = answer["failed"]["first"][0]
    assert failed["path"] == "local_content/aa/bb/broken"
    assert "can't be read a second time" in failed["why"]
    assert contents(one) == {**wanted, "local_content/aa/bb/big": content}


def test_where_nothing_can_be_read_a_second_time_the_rest_is_restored(
    one: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(one, 6)
    wanted = contents(one)
    assert one.run("copy")[0] == 0
    wipe(one)
    one.put_in_parts("local_content/aa/bb/big", random.Random(1).randbytes(11 << 20), UNUSUAL)

    def refused(*_: object) -> None:
        raise RcloneError("the store is not reached")

    monkeypatch.setattr(Rclone, "md5s", refused)
    code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 7, "restored": 6, "failed": 1})
    assert contents(one) == wanted


def test_what_arrives_damaged_does_not_appear(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    one.put("local_content/aa/bb/fine", b"whole")

    def damage(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        return answer and replace(answer, body=bytes(len(answer.body)))

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(damage, when=lambda request: request.method == "GET" and request.key.endswith("/cc"))
        code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 2, "restored": 1, "failed": 1})
    assert one.files() == {"local_content/aa/bb/fine"}
    one.save(one.store)
    assert one.run("restore")[0] == 0
    assert (one.media / "local_content/aa/bb/cc").read_bytes() == b"content"


@pytest.mark.parametrize("fault", [proxy.truncated, proxy.slow_down, lambda *_: None], ids=["cut", "503", "dropped"])
def test_a_store_that_fails_now_and_then(one: World, fault: proxy.Fault) -> None:
    many(one, 12)
    wanted = contents(one)
    assert one.run("copy")[0] == 0
    wipe(one)
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(fault, when=lambda request: request.method == "GET" and bool(request.key), times=5)
        code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (0, {"planned": 12, "restored": 12})
    assert contents(one) == wanted


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_object_for_which_the_store_always_fails_does_not_hold_up_the_rest(one: World, method: str) -> None:
    """Tried as often as a line that breaks, it took seven minutes."""
    many(one, 12)
    wanted = contents(one)
    assert one.run("copy")[0] == 0
    wipe(one)
    one.put("local_content/aa/bb/bad")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        bad = double.misbehave(
            proxy.internal_error, when=lambda request: request.method == method and request.key.endswith("/bad")
        )
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 13, "restored": 12, "failed": 1}), said
    (failed,) = answer["failed"]["first"]
    assert failed["path"] == "local_content/aa/bb/bad"
    assert "StatusCode: 500" in failed["why"]
    assert contents(one) == wanted
    assert bad.hits <= 12


def test_an_object_that_never_arrives_does_not_hold_up_the_rest(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rclone's own five minutes for each try it took more than half an hour."""
    assert READING[:2] == ("--timeout", "30s")
    monkeypatch.setattr(restore, "READING", ("--timeout", "2s"))
    for number in range(5):
        one.put(f"local_content/aa/bb/{number}")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        bad = double.misbehave(
            proxy.black_hole, when=lambda request: request.method == "GET" and request.key.endswith("/3")
        )
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 5, "restored": 4, "failed": 1}), said
    assert answer["failed"]["first"][0]["path"] == "local_content/aa/bb/3"
    assert bad.hits <= 12


def test_a_run_that_is_stopped_loses_little(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        one.put(f"local_content/aa/bb/{number}", b"four")
    batches: list[int] = []
    copy = Rclone.copy

    def counted(self: Rclone, source: str, target: str, names: Collection[str], *options: str, **more: Any) -> Any:
        batches.append(len(names))
        return copy(self, source, target, names, *options, **more)

    monkeypatch.setattr(Rclone, "copy", counted)
    monkeypatch.setattr(restore, "_AT_ONCE", 4)
    assert one.run("restore")[0] == 0
    wipe(one)
    monkeypatch.setattr(restore, "_BYTES_AT_ONCE", 11)
    assert one.run("restore")[0] == 0
    assert batches == [4, 4, 1, 3, 3, 3]
    assert len(one.files()) == 9


def test_an_object_that_can_never_be_read_a_second_time_does_not_hold_up_the_rest(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    one.put_in_parts("local_content/aa/bb/big", random.Random(1).randbytes(11 << 20), UNUSUAL)
    second, asked = after_the_first_reading_of("/big")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(proxy.internal_error, when=second)
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 2, "restored": 1, "failed": 1}), said
    assert "can't be read a second time" in answer["failed"]["first"][0]["why"]
    assert len(asked) <= 12


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_store_that_asks_to_wait_is_waited_for(one: World, method: str) -> None:
    one.put("local_content/aa/bb/cc")
    one.put("local_content/aa/bb/dd")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        rule = double.misbehave(
            proxy.slow_down, when=lambda request: request.method == method and request.key.endswith("/cc"), times=14
        )
        code, answer, said = one.run("restore")
    assert (code, counts(answer), rule.hits) == (0, {"planned": 2, "restored": 2}, 14), said


def test_a_run_that_is_killed_is_gone_on_with(one: World) -> None:
    many(one, 150, size=6000)
    wanted = contents(one)
    assert one.run("copy")[0] == 0
    wipe(one)
    moments = random.Random(3)
    command = [sys.executable, "-c", _MAIN, "media", "restore"]
    for _ in range(KILLS or 6):
        process = subprocess.Popen(
            [*command, str(one.media), "--store", str(one.store_file), "--bwlimit", "300K"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.5, 4))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        there = {path: content for path, content in contents(one).items() if not path.startswith(STAGING)}
        assert there.items() <= wanted.items(), "no file is half of an object"
    deadline = time.monotonic() + 60
    while (code := one.run("restore")[0]) != 0 and time.monotonic() < deadline:
        time.sleep(0.5)  # the lock of the one that was killed is the kernel's to release
    assert code == 0
    assert contents(one) == wanted
    assert not (one.media / STAGING).exists()


_KILLED = """
import os, signal, stat, sys
real, left = os.fchmod, int(sys.argv.pop(1))
def fchmod(descriptor, mode):
    global left
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor, mode)
os.fchmod = fchmod
from synapse_media.cli import main
sys.exit(main())
"""


def test_a_run_that_is_killed_leaves_no_directory_that_synapse_can_not_use(one: World) -> None:
    paths = ("local_content/aa/bb/cc", "local_content/aa/dd/ee", "remote_content/example.org/aa/bb/cc")
    for path in paths:
        one.put(path)
    wipe(one)
    one.media.chmod(0o751)
    for moment in (1, 2, 3, 2, 1):
        command = [sys.executable, "-c", _KILLED, str(moment), "media", "restore", str(one.media)]
        done = subprocess.run([*command, "--store", str(one.store_file)], check=False, capture_output=True)
        assert done.returncode == -signal.SIGKILL
        assert Tree(one.media, may_be_empty=True).unknown == ()
    code, _, said = one.run("restore")
    assert code == 0, said
    assert one.files() == set(paths)
    for path in one.media.rglob("*"):
        assert not path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o751, path
        assert ".synapse-media" not in path.name


def test_what_a_killed_run_left_does_not_count_as_used(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.put("local_content/aa/bb/cc")
    left = one.media / STAGING / "arriving/left"
    left.parent.mkdir(parents=True)
    (one.media / STAGING).chmod(0o700)
    left.write_bytes(b"content")
    usage = namedtuple("usage", ["total", "used", "free"])  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 0 if left.exists() else 1 << 40))
    code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (0, {"planned": 1, "restored": 1}), said


@pytest.mark.parametrize("command", ["restore", "free"])
def test_what_a_run_left_that_was_killed_at_its_end_goes(one: World, command: str) -> None:
    """Links to files that are freed, or purged, would keep what they hold on the disk."""
    file = one.both("local_content/aa/bb/cc")
    arriving = one.media / STAGING / "arriving"
    arriving.mkdir(parents=True)
    (one.media / STAGING).chmod(0o700)
    (arriving / "cc").hardlink_to(file)
    assert (one.run("restore", "--dry-run") if command == "restore" else one.free())[0] == 0
    assert arriving.exists()
    code = (one.run("restore") if command == "restore" else one.free("--delete"))[0]
    assert code == 0
    assert not (one.media / STAGING).exists()
    assert one.files() == ({"local_content/aa/bb/cc"} if command == "restore" else set())


def test_files_that_a_killed_run_did_not_finish_go(one: World) -> None:
    one.both("local_content/aa/bb/cc")
    name = f"{STAGING}-0123456789abcdef"
    left = [one.write(f"local_content/aa/{name}"), one.write(f"local_content/aa/bb/{name}", b"")]
    empty = one.media / "local_content" / f"{STAGING}-fedcba9876543210"
    empty.mkdir()
    others = [one.write(f"local_content/aa/{name}0"), one.write(f"remote_content/{name}/aa/bb/cc")]
    assert one.run("restore", "--dry-run")[0] == 0
    assert all(path.exists() for path in (*left, empty))
    assert one.run("restore")[0] == 0
    assert not any(path.exists() for path in (*left, empty))
    assert all(path.exists() for path in others)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_belongs_to_whom_the_media_store_belongs(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    one.put("remote_content/example.org/aa/bb/cc")
    mine = one.write("local_content/zz/yy/there")
    mine.chmod(0o640)
    for path in (one.media, *one.media.rglob("*")):
        os.chown(path, 1234, 2345)
        if path.is_dir():
            path.chmod(0o2750)
    assert one.run("restore")[0] == 0
    for path in one.media.rglob("*"):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (1234, 2345), path
        assert stat.S_IMODE(status.st_mode) == (0o2750 if path.is_dir() else 0o640), path


@pytest.mark.parametrize(
    ("mode", "below", "file"), [(0o700, 0o700, 0o600), (0o1777, 0o775, 0o664), (0o2770, 0o2770, 0o660)]
)
def test_an_empty_directory_gives_its_own_manner(one: World, mode: int, below: int, file: int) -> None:
    """But for that of a disk which everybody may write to."""
    one.put("local_content/aa/bb/cc")
    wipe(one)
    one.media.chmod(mode)
    assert one.run("restore")[0] == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in one.media.rglob("*")}
    assert modes == {"local_content": below, "aa": below, "bb": below, "cc": file}


def test_too_little_space_is_told_before_anything_is_done(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.put("local_content/aa/bb/cc")
    usage = namedtuple("usage", ["total", "used", "free"])  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, restore.RESERVE))
    code, _, said = one.run("restore")
    assert code == 1
    assert "nothing was begun" in said
    assert one.files() == set()
    # A small disk never has so much free.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100 << 20, 90 << 20, 10 << 20))
    assert one.run("restore")[0] == 0


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_meanwhile_is_told(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some other program takes what was free when it began."""
    wanted = {f"local_content/aa/bb/{number}": bytes([number]) * (600 << 10) for number in range(3)}
    for path, content in wanted.items():
        one.put(path, content)
    wipe(one)
    usage = namedtuple("usage", ["total", "used", "free"])  # noqa: PYI024 - as shutil has it
    with small_disk(one.media, "1m"), monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 1 << 40))
        code, _, said = one.run("restore")
        assert code == 1
        assert "could not be written: " in said
        assert "What was restored before is whole. Make room on its file system, and run this again." in said
        assert contents(one).items() <= wanted.items()
    assert one.run("restore")[0] == 0
    assert contents(one) == wanted


def test_too_little_space_on_a_disk_mounted_below(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.put("local_content/aa/bb/cc", bytes(2 << 20))
    one.put("remote_content/example.org/aa/bb/cc")
    monkeypatch.setattr(restore, "RESERVE", 0)
    with small_disk(one.media / "local_content", "1m"):
        code, _, said = one.run("restore")
        assert code == 1
        assert f"{one.media / 'local_content'}: 1 MiB are free, and 2 MiB would be written there" in said
        assert "nothing was begun" in said
        assert one.files() == set()
    one.run("restore")
    assert len(one.files()) == 2


def test_what_belongs_to_another_disk_arrives_on_this_one_first(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        one.put(f"local_content/aa/bb/{number}", bytes(1 << 20))
        one.put(f"remote_content/example.org/aa/bb/{number}", bytes(1 << 20))
    monkeypatch.setattr(restore, "RESERVE", 0)
    usage = namedtuple("usage", ["total", "used", "free"])  # noqa: PYI024 - as shutil has it
    with small_disk(one.media / "local_content", "64m"):
        for free, enough in (((6 << 20) - 1, False), (6 << 20, True)):
            monkeypatch.setattr(
                shutil,
                "disk_usage",
                lambda place, free=free: usage(1 << 40, 0, free if place == one.media else 64 << 20),
            )
            code, _, said = one.run("restore")
            assert (code == 0) is enough, said
            assert enough or f"{one.media}: 5 MiB are free, and 6 MiB would be written there" in said


def test_one_directory_that_can_not_be_written_stops_nothing_else(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "RESERVE", 0)
    for number in range(4):
        one.put(f"local_content/1{number}/bb/cc")
    place = one.media / "local_content/11"
    place.mkdir()
    with small_disk(place, "1m,ro"):
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 4, "restored": 3, "failed": 1}), said
    (failed,) = answer["failed"]["first"]
    assert failed == {
        "path": "local_content/11/bb/cc",
        "why": "could not be put in its place (Read-only file system)",
    }


def test_nothing_is_written_through_a_link(one: World, tmp_path: Path) -> None:
    one.put("remote_content/example.org/aa/bb/cc")
    one.put("local_content/aa/bb/cc")
    (tmp_path / "elsewhere").mkdir()
    (one.media / "remote_content").symlink_to(tmp_path / "elsewhere")
    code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 1, "restored": 1, "failed": 1})
    assert "symbolic link" in answer["failed"]["first"][0]["why"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@contextlib.contextmanager
def during(one: World, happens: Callable[[], object], *, listing: bool = False) -> Iterator[None]:
    """Have something happen while the first object is being downloaded, or while the bucket is listed."""

    def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        happens()
        return upstream.ask(request)

    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(fault, when=lambda request: request.method == "GET" and bool(request.key) != listing, times=1)
        yield


def test_nothing_is_written_through_a_link_that_is_made_meanwhile(one: World, tmp_path: Path) -> None:
    one.put("local_content/aa/bb/cc")
    one.put("local_content/aa/dd/ee")
    (one.media / "local_content/aa").mkdir()
    (tmp_path / "elsewhere").mkdir()
    with during(one, lambda: (one.media / "local_content/aa/bb").symlink_to(tmp_path / "elsewhere")):
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 2, "restored": 1, "failed": 1}), said
    assert answer["failed"]["first"][0]["path"] == "local_content/aa/bb/cc"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (one.media / "local_content/aa/dd/ee").read_bytes() == b"content"


def test_a_directory_above_the_media_store_that_becomes_a_link_meanwhile(one: World, tmp_path: Path) -> None:
    one.put("local_content/aa/bb/cc")
    real, elsewhere = tmp_path / "homeserver", tmp_path / "elsewhere"
    (elsewhere / one.media.name).mkdir(parents=True)
    real.mkdir()
    one.media.rename(real / one.media.name)
    one.media = real / one.media.name

    def exchange() -> None:
        real.rename(tmp_path / "moved")
        real.symlink_to(elsewhere)

    with during(one, exchange, listing=True):
        code, _, said = one.run("restore")
    assert code == 1
    assert str(one.media) in said
    assert "another directory" in said
    assert list((elsewhere / one.media.name).iterdir()) == []


def test_a_staging_directory_that_is_exchanged_meanwhile(one: World, tmp_path: Path) -> None:
    one.put("local_content/aa/bb/cc")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "arriving").mkdir(parents=True)
    (elsewhere / "arriving/precious").write_bytes(b"mine")

    def exchange() -> None:
        (one.media / STAGING).rename(one.media / "moved")
        (one.media / STAGING).symlink_to(elsewhere)

    with during(one, exchange):
        code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (0, {"planned": 1, "restored": 1}), said
    assert (one.media / "local_content/aa/bb/cc").read_bytes() == b"content"
    assert [path.name for path in elsewhere.rglob("*")] == ["arriving", "precious"]
    assert list((one.media / "moved").iterdir()) == []


def a_link(staging: Path, victim: Path) -> None:
    staging.symlink_to(victim)


def a_file(staging: Path, _: Path) -> None:
    staging.write_bytes(b"")


def open_to_others(staging: Path, _: Path) -> None:
    staging.mkdir()
    staging.chmod(0o770)


def somebody_elses(staging: Path, _: Path) -> None:
    staging.mkdir(mode=0o700)
    os.chown(staging, 1234, 2345)


def a_link_as_lock(staging: Path, victim: Path) -> None:
    staging.mkdir(mode=0o700)
    (staging / "lock").symlink_to(victim / "arriving/precious")


def a_link_to_nothing_as_lock(staging: Path, victim: Path) -> None:
    staging.mkdir(mode=0o700)
    (staging / "lock").symlink_to(victim / "new")


@pytest.mark.parametrize(
    "planted",
    [
        a_link,
        a_file,
        open_to_others,
        pytest.param(
            somebody_elses, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
        ),
        a_link_as_lock,
        a_link_to_nothing_as_lock,
    ],
)
def test_a_staging_directory_that_is_not_ours_is_refused(
    one: World, tmp_path: Path, planted: Callable[[Path, Path], None]
) -> None:
    one.put("local_content/aa/bb/cc")
    victim = tmp_path / "victim"
    (victim / "arriving").mkdir(parents=True, mode=0o755)
    (victim / "arriving/precious").write_bytes(b"mine")
    (victim / "arriving/precious").chmod(0o644)
    planted(one.media / STAGING, victim)
    code, answer, said = one.run("restore")
    assert code == 1
    assert str(one.media / STAGING) in said
    assert "delete it" in said
    assert "error" in answer
    assert {path.name for path in victim.rglob("*")} == {"arriving", "precious"}
    assert (victim / "arriving/precious").read_bytes() == b"mine"
    assert stat.S_IMODE((victim / "arriving/precious").stat().st_mode) == 0o644
    assert not (one.media / "local_content/aa").exists()


def test_what_else_lies_in_the_staging_directory_stays(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    (one.media / STAGING / "arriving").mkdir(parents=True)
    (one.media / STAGING).chmod(0o700)
    (one.media / STAGING / "arriving/left").write_bytes(b"")
    (one.media / STAGING / "backup").write_bytes(b"mine")
    assert one.run("restore")[0] == 0
    assert [path.name for path in (one.media / STAGING).iterdir()] == ["backup"]


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file system no hard links."""

    def refusing(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refusing)


def test_a_file_system_without_hard_links(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.put("local_content/aa/bb/cc")
    without_links(monkeypatch)
    assert one.run("restore")[0] == 0
    assert one.files() == {"local_content/aa/bb/cc"}


@pytest.fixture(params=[True, False], ids=["unnamed", "named"])
def other_disk(one: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another file system below the media store: one that has files without a name, and one that has none."""
    folder = one.media / "local_content"
    mount = ["mount", "-t", "tmpfs", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    folder.chmod(0o750)
    os.chown(folder, 1234, 2345)
    if not request.param:
        opening = os.open

        def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "not supported")
            return opening(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refusing)
    yield folder
    monkeypatch.undo()
    subprocess.run(["umount", folder], check=True)


def test_another_disk_below_the_media_store(one: World, other_disk: Path) -> None:
    there = one.write("local_content/zz/yy/there")
    there.chmod(0o640)
    wanted = {}
    for number in range(3):
        path = one.write(f"local_content/aa/bb/{number}", bytes([number]) * (3 << 20))
        wanted[path] = (path.read_bytes(), path.stat().st_mtime)
    assert one.run("copy")[0] == 0
    shutil.rmtree(other_disk / "aa")
    code, answer, said = one.run("restore")
    assert (code, counts(answer)) == (0, {"kept": 1, "planned": 3, "restored": 3}), said
    assert one.files() == {str(path.relative_to(one.media)) for path in (there, *wanted)}
    for path, (content, modified) in wanted.items():
        status = path.stat()
        assert path.read_bytes() == content
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 2345, 0o640)
        assert status.st_mtime == pytest.approx(modified, abs=0.01)


@pytest.mark.usefixtures("other_disk")
def test_a_copy_to_another_disk_that_differs_does_not_appear(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.put("local_content/aa/bb/cc")
    writing = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", lambda source, target: (writing(source, target), target.write(b"x")))
    code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 1, "failed": 1})
    assert one.files() == set()


@pytest.mark.usefixtures("other_disk")
def test_another_disk_that_is_full(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.put("local_content/aa/bb/cc")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    code, _, said = one.run("restore")
    assert code == 1
    assert "local_content/aa/bb/cc" in said
    assert "Make room" in said
    assert one.files() == set()


def test_one_at_a_time(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    (one.media / STAGING).mkdir(mode=0o700)
    with restore.locked(one.media / STAGING / "lock"):
        code, _, said = one.run("restore")
    assert code == 1
    assert "another restore" in said
    assert one.run("restore")[0] == 0


def test_one_user_s_media_alone(one: World) -> None:
    one.both("local_content/aa/bb/cc")
    one.both("local_content/dd/ee/ff")
    one.both("local_thumbnails/aa/bb/cc/32-32-image-png-crop")
    database = one.know(aabbcc=(7, 0), ddeeff=(7, 0))
    one.execute("UPDATE local_media_repository SET user_id = '@b:example.com' WHERE media_id = 'ddeeff'")
    one.execute(
        "INSERT INTO local_media_repository_thumbnails VALUES (?, ?, ?, ?, ?, ?)",
        "aabbcc",
        32,
        32,
        "image/png",
        "crop",
        7,
    )
    wipe(one)
    code, answer, said = one.run("restore", "--user", "@a:example.com", "--database", database)
    assert (code, counts(answer)) == (0, {"planned": 2, "restored": 2}), said
    assert one.files() == {"local_content/aa/bb/cc", "local_thumbnails/aa/bb/cc/32-32-image-png-crop"}
    code, _, said = one.run("restore", "--user", "@nobody:example.com", "--database", database)
    assert code == 64
    assert "has no media of that user" in said


@pytest.mark.parametrize("content", [b"", b"cont", b"content and more"])
def test_an_object_of_another_size_than_the_database_has_is_not_put_in_place(one: World, content: bytes) -> None:
    one.put("local_content/aa/bb/cc", content)
    one.put("local_content/dd/ee/ff")
    database = one.know(aabbcc=(7, 0), ddeeff=(7, 0))
    code, answer, _ = one.run("restore", "--user", "@a:example.com", "--database", database)
    assert (code, counts(answer)) == (1, {"planned": 1, "restored": 1, "failed": 1})
    (failed,) = answer["failed"]["first"]
    assert failed["path"] == "local_content/aa/bb/cc"
    assert f"is damaged: it has {len(content)} bytes there, and 7 by the database" in failed["why"]
    assert one.files() == {"local_content/dd/ee/ff"}


def test_media_of_a_user_that_nobody_has_is_named(one: World) -> None:
    """Whoever gives up the bucket after it would never know."""
    one.put("local_content/aa/bb/cc")
    database = one.know(aabbcc=(7, 0), ddeeff=(7, 0))
    code, answer, _ = one.run("restore", "--user", "@a:example.com", "--database", database)
    assert (code, counts(answer)) == (1, {"planned": 1, "restored": 1, "missing": 1})
    assert [one["path"] for one in answer["missing"]["first"]] == ["local_content/dd/ee/ff"]
    one.write("local_content/dd/ee/ff")
    code, answer, _ = one.run("restore", "--user", "@a:example.com", "--database", database)
    assert (code, counts(answer)) == (0, {"kept": 1})


def test_the_database_of_another_homeserver_is_not_taken(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    database = one.know(aabbcc=(7, 0))
    one.execute("UPDATE local_media_repository SET user_id = '@a:other.example'")
    code, answer, said = one.run("restore", "--user", "@a:other.example", "--database", database)
    assert (code, answer["error"]["exit_code"]) == (1, 1)
    assert "is the database of other.example, and --store is of example.com" in said
    assert one.files() == set()


@pytest.mark.parametrize("option", ["--database", "--config"])
def test_a_database_is_for_a_user_or_a_room(one: World, option: str) -> None:
    code, _, said = one.run("restore", option, one.config)
    assert code == 64
    assert f"{option} is for --user or --room" in said


def test_a_user_s_media_needs_the_database(one: World) -> None:
    code, _, said = one.run("restore", "--user", "@a:example.com", "--config", one.config)
    assert code == 64
    assert "--database" in said


def test_copy_refuses_media_of_another_homeserver(one: World) -> None:
    one.write("local_content/aa/bb/cc")
    assert one.run("copy", "--config", one.config, "--dry-run")[0] == 0
    for changes, words in (
        ({"server_name": "other.org"}, "two homeservers"),
        ({"prefix": "elsewhere/"}, "prefix"),
        ({"bucket": "another-bucket"}, "bucket"),
    ):
        one.save(replace(one.store, **changes))
        code, _, said = one.run("copy", "--config", one.config)
        assert code == 1
        assert words in said
    assert one.objects() == set()


@pytest.mark.parametrize("fault", proxy.NO_STORE.values(), ids=proxy.NO_STORE)
def test_what_is_no_answer_of_a_store_is_no_empty_bucket(one: World, fault: proxy.Fault) -> None:
    one.put("local_content/aa/bb/cc")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        one.save(replace(one.store, endpoint_url=double.url))
        double.misbehave(fault)
        code, answer, said = one.run("restore")
    assert code == 1
    assert "error" in answer
    assert said


def test_an_empty_bucket_is_one(one: World) -> None:
    code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (0, {})


def test_media_under_another_prefix_is_no_empty_bucket(one: World) -> None:
    one.client.put_object(Bucket=one.store.bucket, Key="elsewhere/local_content/aa/bb/cc", Body=b"content")
    code, answer, _ = one.run("restore")
    assert code == 1
    said = answer["error"]["message"]
    assert "holds objects, and no media under the prefix 'media/' of this store" in said
    assert "there is media under the prefix 'elsewhere/'" in said


def test_what_synapse_gets_again_by_itself_is_named_and_no_failure(one: World) -> None:
    """As with `verify`: nobody could do anything about it."""
    one.both("local_content/aa/bb/cc")
    database = one.know(aabbcc=(7, 0))
    small = ("aabbcc", 32, 32, "image/png", "crop", 7)
    one.execute("INSERT INTO local_media_repository_thumbnails VALUES (?, ?, ?, ?, ?, ?)", *small)
    thumbnail = "local_thumbnails/aa/bb/cc/32-32-image-png-crop"
    code, answer, _ = one.run("verify", "--database", database)
    assert (code, answer["lost"]["first"]) == (0, [thumbnail])
    wanted = ("restore", "--user", "@a:example.com", "--database", database)
    code, answer, _ = one.run(*wanted)
    assert (code, counts(answer)) == (0, {"kept": 1, "renewable": 1})
    assert [each["path"] for each in answer["renewable"]["first"]] == [thumbnail]
    (one.media / "local_content/aa/bb/cc").unlink()
    by_hand.s3(one.admin).delete_object(Bucket=one.store.bucket, Key=f"{one.store.prefix}local_content/aa/bb/cc")
    assert one.run("verify", "--database", database)[0] == 1
    code, answer, _ = one.run(*wanted)
    assert (code, counts(answer)) == (1, {"missing": 1, "renewable": 1})


def test_remote_media_of_a_room_that_nobody_has_is_no_failure(one: World) -> None:
    known = database.Known("remote_content/b.example/aa/bb/cc", "", "b.example", "m", False, 7, 0, False)
    done = restore.Restored()
    restore.find_missing(Tree(one.media), [known], done)
    assert (done.complete, [path for path, _ in done.renewable.first]) == (True, [known.path])
