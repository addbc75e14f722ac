"""`media verify`: by content, and not by name."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main, media_progress, terminal
from synapse_media.media import report as reports
from synapse_media.media import verify
from synapse_media.media.rclone import Rclone
from synapse_media.media.root import Root
from tests.doubles import proxy
from tests.media.worlds import UNUSUAL, World

BIG = 9 << 20


def counts(answer: dict[str, Any]) -> dict[str, int]:
    return {name: each["files"] for name, each in answer.items() if isinstance(each, dict) and each.get("files")}


def test_everything_is_there(at: World) -> None:
    at.both("local_content/aa/bb/cc")
    at.both("local_content/aa/bb/empty", b"")
    at.both("local_thumbnails/aa/bb/cc/32-32-image-png-crop")
    at.both("remote_content/b.example.org:8448/aa/bb/blanks and ünïcode")
    code, answer, _ = at.run("verify")
    assert (code, counts(answer)) == (0, {"verified": 4})
    assert answer["verified"]["thumbnails"] == 1
    assert answer["lost"] is None


def test_missing_different_and_extra(at: World) -> None:
    at.both("local_content/aa/bb/same")
    at.write("local_content/aa/bb/missing")
    at.write("local_content/aa/bb/other")
    at.put("local_content/aa/bb/other", b"tnetnoc")
    at.write("local_content/aa/bb/half")
    at.put("local_content/aa/bb/half", b"con")
    at.write("local_content/aa/bb/nothing")
    at.put("local_content/aa/bb/nothing", b"")
    at.put("local_content/aa/bb/extra")
    at.put("somebody/elses", b"not of Synapse's media")
    code, answer, _ = at.run("verify")
    assert (code, counts(answer)) == (1, {"verified": 1, "missing": 1, "different": 3, "extra": 1})
    assert answer["missing"]["first"] == ["local_content/aa/bb/missing"]
    assert answer["reasons"] == {
        "local_content/aa/bb/half": "it has 3 bytes there, 7 here",
        "local_content/aa/bb/nothing": "it has 0 bytes there, 7 here",
        "local_content/aa/bb/other": "its content is another there",
    }


class TestObjectsInParts:
    """The ETag of an object that was uploaded in parts is not its MD5."""

    @pytest.mark.parametrize("part", [8 << 20, 5 << 20, 9 << 20])
    def test_of_the_sizes_that_programs_use_nothing_is_read_back(
        self, one: World, part: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = os.urandom(BIG)
        one.put_in_parts("local_content/aa/bb/big", content, part)
        one.write("local_content/aa/bb/big", content)
        monkeypatch.setattr(Rclone, "md5s", None)
        code, answer, _ = one.run("verify")
        assert (code, counts(answer)) == (0, {"verified": 1})

    @pytest.mark.parametrize(
        ("size", "part"),
        [
            (9 << 20, 8 << 20),  # boto3, and so Synapse's module
            (100 << 30, 16 << 20),  # boto3 for as large a file
            (10 << 20, 5 << 20),  # rclone, and the AWS SDK for Java
            (90 << 30, 10 << 20),  # rclone for as large a file
            (10_000 * (11 << 20) + 5, 12 << 20),  # rclone right at the boundary
            (201 << 20, 101 << 20),  # halves
            (7 << 20, 7 << 20),  # one
            (200 << 20, 50 << 20),  # s5cmd
        ],
    )
    def test_the_sizes_that_programs_use(self, size: int, part: int) -> None:
        etag = f"{'0' * 32}-{-(-size // part)}"
        assert part in verify.parts_of(etag, size)
        assert all(-(-size // one) == -(-size // part) for one in verify.parts_of(etag, size))

    @pytest.mark.parametrize("etag", ["", "0" * 32, f"{'0' * 32}-0", f"{'0' * 32}-", f"{'0' * 31}-2", "x-2"])
    def test_of_what_is_in_no_parts_there_is_none(self, etag: str) -> None:
        assert verify.parts_of(etag, 9 << 20) == ()

    def test_of_another_size_they_are_read_back(self, one: World) -> None:
        content = os.urandom(BIG)
        one.put_in_parts("local_content/aa/bb/big", content, UNUSUAL)
        one.write("local_content/aa/bb/big", content)
        changed = content[:-1] + bytes([content[-1] ^ 1])
        one.put_in_parts("local_content/aa/bb/changed", changed, UNUSUAL)
        one.write("local_content/aa/bb/changed", content)
        code, answer, said = one.run("verify")
        assert (code, counts(answer)) == (1, {"verified": 1, "different": 1})
        assert answer["different"]["first"] == ["local_content/aa/bb/changed"]
        assert f"reading 2 objects back, {2 * BIG} bytes" in said


def test_names_with_what_only_unicode_takes_for_the_end_of_a_line(one: World) -> None:
    names = [f"remote_content/b.example/aa/bb/a{end}b" for end in "\u0085\u2028\u2029"]
    for name in names:
        one.both(name)
    code, answer, said = one.run("verify", "--read-all")
    assert (code, counts(answer)) == (0, {"verified": 3}), said


def test_names_can_not_speak_to_the_terminal_either(one: World, capsys: pytest.CaptureFixture[str]) -> None:
    one.write("local_content/aa/bb/a\x1b]0;title\x07b\nc: passed\x9b")
    one.write("remote_content/b.example/aa/bb/d\u2028e")
    assert main(["media", "verify", str(one.media), "--store", str(one.store_file)]) == 1
    said = capsys.readouterr().out
    assert set("\x1b\x07\x9b\u2028").isdisjoint(said)
    assert r"a\x1b]0;title\x07b\nc: passed\x9b" in said
    assert r"d\u2028e" in said


def test_every_object_is_read_back_if_wanted(one: World) -> None:
    one.both("local_content/aa/bb/cc")
    code, answer, said = one.run("verify", "--read-all")
    assert (code, counts(answer)) == (0, {"verified": 1})
    assert "reading 1 objects back, 7 bytes" in said


def test_an_object_whose_etag_is_not_its_md5(one: World) -> None:
    """As with a bucket that is encrypted by a key of the user's."""

    def other_etag(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        if answer is None or request.key:
            return answer
        md5 = b"9a0364b9e99bb480dd25e1f0284c8555"
        assert md5 in answer.body or b"<Contents>" not in answer.body
        return proxy.Answer(answer.status, answer.headers, answer.body.replace(md5, b"0" * 32))

    one.both("local_content/aa/bb/cc")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        double.misbehave(other_etag)
        one.save(replace(one.store, endpoint_url=double.url))
        code, answer, _ = one.run("verify")
    assert (code, counts(answer)) == (0, {"verified": 1})


def test_an_object_that_can_not_be_read_at_once_is_not_verified(one: World) -> None:
    def archived(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        assert answer is not None
        return proxy.Answer(answer.status, answer.headers, answer.body.replace(b">STANDARD<", b">DEEP_ARCHIVE<"))

    one.both("local_content/aa/bb/cc")
    with proxy.in_front_of(one.store.endpoint_url) as double:
        double.misbehave(archived, when=lambda request: not request.key)
        one.save(replace(one.store, endpoint_url=double.url))
        code, answer, _ = one.run("verify")
    assert (code, counts(answer)) == (1, {"unreadable": 1})
    assert "DEEP_ARCHIVE" in answer["reasons"]["local_content/aa/bb/cc"]


class TestAServerThatMisbehaves:
    @pytest.mark.parametrize(
        "fault",
        [proxy.truncated, proxy.lost_answer, proxy.slow_down, proxy.html(), proxy.EMPTY],
        ids=["truncated", "lost answer", "slow down", "HTML", "empty"],
    )
    def test_a_listing_that_fails_is_no_verification(
        self, one: World, fault: proxy.Fault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one.both("local_content/aa/bb/cc")
        report = one.home / "report"
        with proxy.in_front_of(one.store.endpoint_url) as double:
            double.misbehave(fault, when=lambda request: request.bucket == one.store.bucket)
            one.save(replace(one.store, endpoint_url=double.url))
            monkeypatch.setattr("synapse_media.store.clients.ATTEMPTS", 2)
            monkeypatch.setattr("synapse_media.store.pace.SECONDS", 2.0)
            code, answer, said = one.run("verify", "--report", report)
        assert (code, answer["error"]["exit_code"]) == (1, 1)
        assert "synapse-media media: list_objects_v2" in said
        assert not report.exists()

    def test_a_listing_that_is_throttled_once_is_asked_for_again(self, one: World) -> None:
        one.both("local_content/aa/bb/cc")
        with proxy.in_front_of(one.store.endpoint_url) as double:
            double.misbehave(proxy.slow_down, times=1)
            one.save(replace(one.store, endpoint_url=double.url))
            code, answer, _ = one.run("verify")
        assert (code, counts(answer)) == (0, {"verified": 1})

    def test_an_object_that_always_breaks_off_is_not_verified_and_the_others_are(self, one: World) -> None:
        one.both("local_content/aa/bb/good", b"good" * 1000)
        one.both("local_content/aa/bb/bad", b"bad!" * 1000)
        with proxy.in_front_of(one.store.endpoint_url) as double:
            double.misbehave(
                proxy.truncated, when=lambda request: request.method == "GET" and request.key.endswith("bad")
            )
            one.save(replace(one.store, endpoint_url=double.url))
            code, answer, _ = one.run("verify", "--read-all")
        assert code == 1
        assert answer["verified"]["first"] == ["local_content/aa/bb/good"]
        assert (answer["unreadable"]["files"] + answer["different"]["files"]) == 1

    def test_an_object_that_always_fails_is_asked_for_a_few_times_and_the_others_once(self, one: World) -> None:
        for name in ("bad", "fine", "good"):
            one.both(f"local_content/aa/bb/{name}", name.encode() * 1000)
        with proxy.in_front_of(one.store.endpoint_url) as double:
            bad = double.misbehave(proxy.internal_error, when=lambda request: request.key.endswith("bad"))
            one.save(replace(one.store, endpoint_url=double.url))
            code, answer, _ = one.run("verify", "--read-all")
            read = [one for one in double.exchanges if one.method == "GET" and re.search("fine|good", one.target)]
        assert (code, counts(answer)) == (1, {"verified": 2, "unreadable": 1})
        assert "InternalError" in answer["reasons"]["local_content/aa/bb/bad"]
        assert bad.hits <= 12
        assert len(read) == 2

    def test_a_store_that_asks_to_wait_is_waited_for(self, one: World) -> None:
        one.both("local_content/aa/bb/cc", b"content" * 1000)
        with proxy.in_front_of(one.store.endpoint_url) as double:
            double.misbehave(proxy.slow_down, when=lambda request: bool(request.key), times=12)
            one.save(replace(one.store, endpoint_url=double.url))
            code, answer, _ = one.run("verify", "--read-all")
        assert (code, counts(answer)) == (0, {"verified": 1})

    def test_each_object_that_can_not_be_read_has_a_reason_of_its_own(self, one: World) -> None:
        for name in ("good", "refused", "gone", "cut"):
            one.both(f"local_content/aa/bb/{name}", name.encode() * 1000)
        with proxy.in_front_of(one.store.endpoint_url) as double:
            faults = {"refused": proxy.in_between(403), "gone": proxy.in_between(404), "cut": proxy.truncated}
            for name, fault in faults.items():
                double.misbehave(
                    fault, when=lambda request, name=name: request.method == "GET" and request.key.endswith(name)
                )
            one.save(replace(one.store, endpoint_url=double.url))
            code, answer, _ = one.run("verify", "--read-all")
        assert (code, counts(answer)) == (1, {"verified": 1, "unreadable": 3})
        reasons = {path.rpartition("/")[2]: why for path, why in answer["reasons"].items()}
        assert reasons.keys() == set(faults)
        for name, why in reasons.items():
            assert not any(other in why for other in faults if other != name), why
        assert "403" in reasons["refused"]
        assert "403" not in reasons["gone"] + reasons["cut"]


class TestFilesThatChange:
    def test_a_file_that_was_written_a_moment_ago_is_for_the_next_run(self, one: World) -> None:
        one.write("local_content/aa/bb/uploading", age=10)
        one.write("local_content/aa/bb/storing", age=10)
        one.put("local_content/aa/bb/storing", b"con")
        code, answer, _ = one.run("verify")
        assert (code, counts(answer)) == (0, {"recent": 2})

    def test_a_time_to_come_is_not_a_moment_ago(self, one: World) -> None:
        """Whatever is wrong with such a file would never be told."""
        one.write("local_content/aa/bb/missing", age=-400 * 86400)
        one.write("local_content/aa/bb/half", age=-400 * 86400)
        one.put("local_content/aa/bb/half", b"con")
        one.both("local_content/aa/bb/same", age=-400 * 86400)
        code, answer, _ = one.run("verify")
        assert (code, counts(answer)) == (1, {"missing": 1, "different": 1, "verified": 1})

    def test_a_file_that_is_written_while_it_is_read(self, one: World, monkeypatch: pytest.MonkeyPatch) -> None:
        file = one.both("local_content/aa/bb/cc")
        real = os.read

        def read(descriptor: int, size: int) -> bytes:
            piece = real(descriptor, size)
            if piece == b"content":
                file.write_bytes(b"content and more")
            return piece

        monkeypatch.setattr("synapse_media.media.verify.os.read", read)
        _, answer, _ = one.run("verify")
        assert counts(answer) == {"recent": 1}

    def test_a_file_that_is_gone_when_its_turn_comes(self, one: World, monkeypatch: pytest.MonkeyPatch) -> None:
        file = one.both("local_content/aa/bb/cc")
        monkeypatch.setattr(verify, "content", lambda *_: file.unlink() or open(file))  # noqa: SIM115, PTH123
        _, answer, _ = one.run("verify")
        assert counts(answer) == {"recent": 1}


def test_links_are_not_followed_and_are_told(one: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"content")
    one.both("local_content/aa/bb/cc")
    one.put("local_content/aa/bb/link")
    (one.media / "local_content/aa/bb/link").symlink_to(outside)
    code, answer, _ = one.run("verify")
    assert code == 1
    assert counts(answer)["left_out"] == 1
    assert answer["verified"]["files"] == 1


class TestWithTheDatabase:
    def test_lost_orphans_and_damaged(self, one: World) -> None:
        database = one.know(aabbhere=(7, 0), aabbfreed=(7, 0), aabblost=(7, 0), aabbhalf=(7, 0))
        one.both("local_content/aa/bb/here")
        one.put("local_content/aa/bb/freed")
        one.put("local_content/aa/bb/half", b"con")
        one.put("local_content/aa/bb/purged")
        one.both("local_content/aa/bb/strange")
        one.execute("INSERT INTO remote_media_cache VALUES ('b.example', 'id', 0, 3, 'ccddgone', 0, NULL)")
        one.execute("INSERT INTO local_media_repository_thumbnails VALUES ('aabblost', 1, 1, 'image/png', 'crop', 3)")
        # The store's clock has whole seconds.
        before = verify.BEING_WRITTEN
        verify.BEING_WRITTEN = -60  # type: ignore[misc]
        try:
            code, answer, _ = one.run("verify", "--database", database)
        finally:
            verify.BEING_WRITTEN = before  # type: ignore[misc]
        assert code == 1
        assert answer["verified"]["files"] == 2
        assert answer["lost"]["first"] == ["local_content/aa/bb/lost", "local_thumbnails/aa/bb/lost/1-1-image-png-crop"]
        assert answer["lost"]["thumbnails"] == 1
        assert answer["damaged"]["first"] == ["local_content/aa/bb/half"]
        assert answer["orphans"]["first"] == ["local_content/aa/bb/purged", "local_content/aa/bb/strange"]
        assert answer["unknown"]["first"] == ["local_content/aa/bb/strange"]
        assert answer["elsewhere"]["first"] == ["remote_content/b.example/cc/dd/gone"]

    def test_what_is_made_anew_is_no_failure(self, one: World) -> None:
        database = one.know(aabbhere=(7, 0))
        one.both("local_content/aa/bb/here")
        one.execute("INSERT INTO local_media_repository_thumbnails VALUES ('aabbhere', 1, 1, 'image/png', 'crop', 3)")
        one.execute("INSERT INTO remote_media_cache VALUES ('b.example', 'id', 0, 3, 'ccddgone', 0, NULL)")
        code, answer, _ = one.run("verify", "--database", database)
        assert code == 0
        assert (answer["lost"]["files"], answer["elsewhere"]["files"]) == (1, 1)

    def test_a_thumbnail_under_its_former_name_is_known(self, one: World) -> None:
        database = one.know(aabbhere=(7, 0))
        one.both("local_content/aa/bb/here")
        one.both("remote_content/b.example/cc/dd/ee")
        one.both("remote_thumbnail/b.example/cc/dd/ee/1-1-image-png")
        one.execute("INSERT INTO remote_media_cache VALUES ('b.example', 'id', 0, 7, 'ccddee', 0, NULL)")
        small = ("b.example", "id", 1, 1, "crop", "image/png", 7, "ccddee")
        one.execute("INSERT INTO remote_media_cache_thumbnails VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *small)
        code, answer, _ = one.run("verify", "--database", database)
        assert code == 0
        assert counts(answer) == {"verified": 3}

    def test_the_database_of_another_homeserver(self, one: World) -> None:
        database = one.know(zzyyother=(7, 0))
        one.both("local_content/aa/bb/cc")
        code, _, said = one.run("verify", "--database", database)
        assert code == 1
        assert "it is the database of another homeserver, or the prefix is another" in said

    @pytest.mark.parametrize("where", ["media", "users"])
    @pytest.mark.parametrize("has_media", [True, False])
    def test_the_database_of_another_server_name(self, one: World, where: str, has_media: bool) -> None:
        """Even one that knows the same media, as of a homeserver that was moved to another name."""
        if where == "media":
            database = one.know(aabbcc=(7, 0))
            one.execute("UPDATE local_media_repository SET user_id = '@a:other.example'")
        else:
            database = one.know()
            one.execute("INSERT INTO users VALUES ('@a:other.example')")
        if has_media:
            one.both("local_content/aa/bb/cc")
        report = one.home / "report"
        code, answer, said = one.run("verify", "--database", database, "--report", report)
        assert (code, answer["error"]["exit_code"]) == (1, 1)
        assert "is the database of other.example, and --store is of example.com" in said
        assert not report.exists()

    def test_the_name_of_the_playbook_s_host_is_that_of_the_homeserver(self, one: World) -> None:
        database = one.know(aabbcc=(7, 0))
        one.both("local_content/aa/bb/cc")
        one.save(replace(one.store, server_name="matrix.example.com"))
        code, answer, said = one.run("verify", "--database", database)
        assert (code, counts(answer)) == (0, {"verified": 1}), said

    def test_the_database_that_homeserver_yaml_names(self, one: World) -> None:
        database = one.know(aabbcc=(7, 0))
        with (one.config / "homeserver.yaml").open("a") as file:
            file.write(f'database: {{name: sqlite3, args: {{database: "{database}"}}}}\n')
        one.both("local_content/aa/bb/cc")
        code, answer, _ = one.run("verify", "--config", one.config)
        assert (code, answer["lost"]["files"]) == (0, 0)

    def test_a_directory_that_was_wiped(self, one: World) -> None:
        database = one.know(aabbfreed=(7, 0), aabblost=(7, 0))
        one.put("local_content/aa/bb/freed")
        (one.media / "local_content").rmdir()
        code, answer, _ = one.run("verify", "--database", database)
        assert (code, answer["lost"]["first"]) == (1, ["local_content/aa/bb/lost"])
        code, _, said = one.run("verify")
        assert code == 1
        assert "is not Synapse's media store" in said


def test_how_far_it_is(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.both("local_content/aa/bb/cc")
    one.both("local_content/aa/bb/dd")
    monkeypatch.setattr(media_progress, "EVERY", 0)
    code, _, said = one.run("verify", "--read-all")
    assert code == 0
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("comparing contents: 2 of 2 files, 14 B of 14 B, ")]
    assert [line for line in lines if line.startswith("reading 2 objects back, 14 bytes: 2 of 2 files, 14 B of 14 B, ")]
    code, _, said = one.free("--delete")
    assert [line for line in said.splitlines() if line.startswith("deleting what may go: 2 of 2 files, 14 B of 14 B, ")]


@pytest.mark.parametrize("action", ["verify", "free", "copy"])
def test_there_is_one_bar_on_a_terminal(
    one: World, action: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one.both("local_content/aa/bb/cc")
    one.write("local_content/aa/bb/dd", b"only here")
    drawn: list[tuple[float, float, str]] = []
    opened = 0

    @contextmanager
    def bar() -> Iterator[Callable[[float, float, str], None]]:
        nonlocal opened
        opened += 1
        yield lambda done, of, words: drawn.append((done, of, words))

    monkeypatch.setattr(terminal, "bar", bar)
    monkeypatch.setattr(terminal, "shows_colour", lambda _: True)
    monkeypatch.setattr(media_progress, "_DRAWN_EVERY", 0)
    more = ["--config", str(one.config), "--older-than", "30d"] if action == "free" else []
    main(["media", action, str(one.media), "--store", str(one.store_file), *more])
    assert capsys.readouterr().err == ""
    assert opened == 1
    wanted = {"verify": "comparing contents: 2 of 2 files, 16 B of 16 B", "free": "counting what may go: 2 of 2 files"}
    assert any(words.startswith(wanted.get(action, "1 of 1 files")) and done == of for done, of, words in drawn)


def test_nothing_stays_of_a_run_that_is_killed(one: World, tmp_path: Path) -> None:
    one.both("local_content/aa/bb/cc")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with proxy.in_front_of(one.store.endpoint_url) as double:
        double.misbehave(proxy.black_hole)
        one.save(replace(one.store, endpoint_url=double.url))
        child = subprocess.Popen(
            [
                *(sys.executable, "-c", "import sys; from synapse_media.cli import main; sys.exit(main())"),
                *("media", "verify", str(one.media), "--store", str(one.store_file)),
            ],
            env={**os.environ, "TMPDIR": str(temporary), "SQLITE_TMPDIR": str(temporary)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None
        assert any(line.startswith("listing ") for line in child.stderr), "the report is open by then"
        child.kill()
        child.communicate()
    assert list(temporary.iterdir()) == []


class TestTheReport:
    def test_it_is_private_whole_and_can_be_asked(self, one: World) -> None:
        one.both("local_content/aa/bb/cc")
        one.write("local_content/aa/bb/missing")
        report = one.home / "report"
        one.run("verify", "--report", report)
        assert stat.S_IMODE(report.stat().st_mode) == 0o600
        with closing(sqlite3.connect(report)) as connection:
            assert connection.execute("SELECT path, state FROM local ORDER BY path").fetchall() == [
                ("local_content/aa/bb/cc", "verified"),
                ("local_content/aa/bb/missing", "missing"),
            ]
        assert one.store.secret_access_key.encode() not in report.read_bytes()
        assert one.run("verify", "--report", report)[0] == 1

    def test_two_runs_do_not_write_the_same_one(self, one: World) -> None:
        one.both("local_content/aa/bb/cc")
        report = one.home / "report"
        with Root(one.media) as root, reports.writing(report, one.store, root) as first:
            first.note("mine", "yes")
            code, _, said = one.run("verify", "--report", report)
            assert code == 1
            assert "another verification is writing" in said
        with closing(sqlite3.connect(report)) as connection:
            assert connection.execute("SELECT value FROM run WHERE name = 'mine'").fetchone() == ("yes",)

    def test_what_a_killed_run_left_is_replaced(self, one: World) -> None:
        one.both("local_content/aa/bb/cc")
        report = one.home / "report"
        assert one.run("verify", "--report", report)[0] == 0
        report.rename(report.with_name("report.part"))
        assert one.run("verify", "--report", report)[0] == 0
        assert not report.with_name("report.part").exists()

    def test_nothing_else_is_written_over(self, one: World) -> None:
        report = one.home / "notes"
        report.write_text("somebody's notes, longer than the header of a database would be" * 3)
        code, _, said = one.run("verify", "--report", report)
        assert code == 64
        assert "is there and is no report; allowed: a new file, or a former report" in said
        assert report.read_text().startswith("somebody's notes")

    def test_a_place_that_can_not_be_written(self, one: World) -> None:
        code, _, said = one.run("verify", "--report", one.home / "nowhere" / "report")
        assert code == 1
        assert "report.part can't be written: No such file or directory" in said


def test_before_the_bucket_is_mounted_a_directory_is_compared_with_it(one: World) -> None:
    one.save(replace(one.store, method="goofys"))
    one.both("local_content/aa/bb/cc")
    assert counts(one.run("verify")[1])["verified"] == 1


def test_a_method_that_keeps_media_elsewhere(one: World) -> None:
    one.save(replace(one.store, method="matrix-media-repo"))
    code, _, said = one.run("verify")
    assert code == 64
    # Its names are in its database alone.
    assert "allowed: --database postgresql://USER@HOST/NAME" in said
    code, _, said = one.run("free", "--older-than", "30d")
    assert code == 64
    assert "under names of its own" in said
    assert "allowed: a store.json of the method synapse-s3-storage-provider" in said


def test_an_option_of_another_action(one: World) -> None:
    code, _, said = one.run("verify", "--delete")
    assert code == 64
    assert "media verify has no option --delete" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bucket": "synapse-media-nowhere"}, "NoSuchBucket"),
        ({"secret_access_key": "notTheSecretOfThisKey"}, "SignatureDoesNotMatch"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
)
def test_a_store_that_does_not_answer_as_this_one(one: World, changes: dict[str, str], words: str) -> None:
    one.both("local_content/aa/bb/cc")
    one.save(replace(one.store, **changes))
    code, answer, said = one.run("verify")
    assert (code, answer["error"]["exit_code"]) == (1, 1)
    assert words in said
    assert "notTheSecret" not in said


def test_a_prefix_that_nothing_is_under(one: World) -> None:
    one.both("local_content/aa/bb/cc")
    one.save(replace(one.store, prefix="other/"))
    code, answer, _ = one.run("verify")
    assert (code, counts(answer)) == (1, {"missing": 1})


def test_the_words_for_people(one: World) -> None:
    one.both("local_content/aa/bb/cc")
    for number in range(verify.SHOWN + 1):
        one.write(f"local_content/aa/bb/{number:02}")
    one.put("local_content/aa/bb/00", b"con")
    code = main(["media", "verify", str(one.media), "--store", str(one.store_file)])
    said = one.capsys.readouterr().out.splitlines()
    assert code == 1
    assert said[0] == "1 file, 7 B: the same in the bucket"
    assert said[1] == "20 files, 140 B: not in the bucket"
    assert said[2] == "  local_content/aa/bb/01"
    assert "  local_content/aa/bb/00: it has 3 bytes there, 7 here" in said
    assert said[-2].startswith("No database was read")
    assert said[-1].startswith("FAILED")


@pytest.mark.parametrize("action", ["verify", "free"])
def test_on_a_server_nothing_of_pulumi_is_loaded(one: World, action: str) -> None:
    one.both("local_content/aa/bb/cc")
    more = ["--config", str(one.config), "--older-than", "30d"] if action == "free" else []
    arguments = ["media", action, str(one.media), "--store", str(one.store_file), *more]
    code = f"""
import sys
from synapse_media.cli import main
assert main({arguments!r}) == 0
print(sorted({{"pulumi", "grpc", "components"}} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_a_report_that_the_disk_has_no_room_for(one: World) -> None:
    """A limit of the process on the size of a file stands for a full disk."""
    one.both("local_content/aa/bb/cc")
    report = one.home / "report"
    arguments = ["media", "verify", str(one.media), "--store", str(one.store_file), "--report", str(report)]
    code = f"""
import resource, signal, sys
from synapse_media.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
sys.exit(main({arguments!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "report.part can't be written: " in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in one.home.iterdir()) == ["conf", "media_store", "store.json"]
