"""`media restore` with rclone on the embedded store: all of it comes back as it was, and nothing that is there goes."""

from __future__ import annotations

import contextlib
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
from dataclasses import replace
from pathlib import Path

import pytest

from synapse_media.engine.embedded import Running
from synapse_media.media import restore
from synapse_media.media.tree import STAGING
from tests.doubles import proxy
from tests.media.test_media_copy import NAMES, contents, counts, many
from tests.media.worlds import World, world

_MAIN = "import sys; from synapse_media.cli import main; sys.exit(main())"


@pytest.fixture(params=["", "media/"], ids=["whole-bucket", "prefix"])
def at(
    request: pytest.FixtureRequest, embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> World:
    return world(embedded_store, tmp_path, capsys, request.param)


@pytest.fixture
def one(embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return world(embedded_store, tmp_path, capsys)


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
        assert (code, counts(answer)) == (0, {"planned": 1, "restored": 1}), said
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


def test_what_was_uploaded_in_parts_is_read_twice_and_compared(one: World) -> None:
    content = random.Random(1).randbytes(11 << 20)
    one.put_in_parts("local_content/aa/bb/big", content, 5 << 20)
    assert one.run("restore")[0] == 0
    assert (one.media / "local_content/aa/bb/big").read_bytes() == content


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


def test_a_run_that_is_killed_is_gone_on_with(one: World) -> None:
    many(one, 150, size=6000)
    wanted = contents(one)
    assert one.run("copy")[0] == 0
    wipe(one)
    moments = random.Random(3)
    command = [sys.executable, "-c", _MAIN, "media", "restore"]
    for _ in range(6):
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


def test_an_empty_directory_gives_its_own_manner(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    wipe(one)
    one.media.chmod(0o700)
    assert one.run("restore")[0] == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in one.media.rglob("*")}
    assert modes == {"local_content": 0o700, "aa": 0o700, "bb": 0o700, "cc": 0o600}


def test_too_little_space_is_told_before_anything_is_done(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.put("local_content/aa/bb/cc")
    usage = namedtuple("usage", ["total", "used", "free"])  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, restore.RESERVE))
    code, _, said = one.run("restore")
    assert code == 1
    assert "nothing was begun" in said
    assert one.files() == set()


def test_nothing_is_written_through_a_link(one: World, tmp_path: Path) -> None:
    one.put("remote_content/example.org/aa/bb/cc")
    one.put("local_content/aa/bb/cc")
    (tmp_path / "elsewhere").mkdir()
    (one.media / "remote_content").symlink_to(tmp_path / "elsewhere")
    code, answer, _ = one.run("restore")
    assert (code, counts(answer)) == (1, {"planned": 1, "restored": 1, "failed": 1})
    assert "symbolic link" in answer["failed"]["first"][0]["why"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_at_a_time(one: World) -> None:
    one.put("local_content/aa/bb/cc")
    (one.media / STAGING).mkdir()
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
