"""`media free`: what was verified goes, and nothing else."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main
from synapse_media.engine.embedded import Running
from synapse_media.media import free as freeing
from synapse_media.media import homeserver, mounts, verify
from synapse_media.media.bucket import Bucket
from synapse_media.media.report import integer
from synapse_media.media.root import Root
from synapse_media.store.answers import ApiError
from synapse_media.store.objects import Listed
from tests.doubles import proxy
from tests.media.worlds import DAY, KILLS, World, lent, world


@pytest.fixture
def proved_now(embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    with lent(embedded_store, tmp_path, capsys) as made:
        yield made


@pytest.fixture
def one(proved_now: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Without the proof, which takes longer than all that is tried here."""
    monkeypatch.setattr("synapse_media.cli.prove.prove", lambda _: ())
    return proved_now


def files(answer: dict[str, Any]) -> dict[str, int]:
    names = [*freeing.Outcome, "quarantined"]
    return {str(name): answer[name]["files"] for name in names if answer[name]["files"]}


def everything(one: World) -> set[str]:
    """A few files, each with its object."""
    paths = {f"local_content/aa/b{n}/file{n}" for n in range(6)} | {"remote_content/b.example/aa/bb/ünï code"}
    for path in paths:
        one.both(path, path.encode())
    return paths


def test_what_was_verified_goes_and_its_empty_directories_too(at: World) -> None:
    paths = everything(at)
    at.write("local_content/aa/b0/alone")
    code, answer, _ = at.free()
    assert (code, files(answer), answer["deleted"]) == (1, {"freed": 7, "unverified": 1}, False)
    assert at.files() == paths | {"local_content/aa/b0/alone"}
    code, answer, _ = at.free("--delete")
    assert (code, files(answer), answer["deleted"]) == (1, {"freed": 7, "unverified": 1}, True)
    assert at.files() == {"local_content/aa/b0/alone"}
    assert sorted(str(path.relative_to(at.media)) for path in at.media.rglob("*") if path.is_dir()) == [
        *("local_content", "local_content/aa", "local_content/aa/b0", "remote_content"),
    ]
    assert at.objects() == paths
    (at.media / "local_content/aa/b0/alone").unlink()
    code, answer, _ = at.free("--delete")
    assert (code, files(answer)) == (0, {})
    assert at.media.is_dir()


def test_a_time_that_is_larger_than_sqlite_s_numbers(one: World) -> None:
    """A wrong clock left it: each command ended in a report of a defect."""
    one.both("local_content/aa/bb/cc")
    late = one.both("local_content/dd/ee/ff")
    year_2300 = 10_413_792_000
    os.utime(late, (0, year_2300))
    if late.stat().st_mtime != year_2300:
        pytest.skip("this file system has no such times")
    code, answer, said = one.run("verify")
    assert (code, answer["verified"]["files"]) == (0, 2), said
    code, answer, _ = one.free("--delete")
    assert (code, files(answer)) == (0, {"freed": 1, "young": 1})
    assert one.files() == {"local_content/dd/ee/ff"}


def test_what_changed_is_named(one: World) -> None:
    """An object that was lost since its verification is the most important news."""
    for name in ("aa", "bb", "cc"):
        one.both(f"local_content/aa/bb/{name}")
    report = one.home / "report"
    assert one.run("verify", "--report", report)[0] == 0
    one.put("local_content/aa/bb/aa", b"others.")
    one.write("local_content/aa/bb/bb", b"others.")
    code, answer, _ = one.free("--report", report, "--delete")
    assert (code, files(answer)) == (1, {"freed": 1, "changed": 2})
    assert answer["failures"] == {
        "local_content/aa/bb/aa": "its object is gone, or is not the one that was verified",
        "local_content/aa/bb/bb": "the file is not the one that was verified",
    }


def test_an_inode_of_64_bits_is_told_from_others() -> None:
    numbers = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    stored = [integer(number) for number in numbers]
    assert stored[:3] == numbers[:3]
    assert len(set(stored)) == len(numbers)
    assert all(-(2**63) <= number < 2**63 for number in stored)


class TestTheEightWaysToLoseMedia:
    """Each was shown to lose media, or to leave it where nobody looks, with the script that people run today."""

    def test_1_an_object_of_the_same_name(self, one: World) -> None:
        for name, there in {"empty": b"", "half": b"con", "other": b"tnetnoc", "longer": b"content and more"}.items():
            one.write(f"local_content/aa/bb/{name}")
            one.put(f"local_content/aa/bb/{name}", there)
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"unverified": 4})
        assert len(one.files()) == 4

    def test_1_an_object_of_the_same_name_in_parts(self, one: World) -> None:
        content = os.urandom(9 << 20)
        one.write("local_content/aa/bb/big", content)
        one.put_in_parts("local_content/aa/bb/big", bytes(len(content)), 8 << 20)
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"unverified": 1})

    @pytest.mark.parametrize("prefix", ["", "media", "other/"])
    def test_2_a_prefix_that_synapse_does_not_use(self, one: World, prefix: str) -> None:
        paths = everything(one)
        one.save(replace(one.store, prefix=prefix))
        code, answer, said = one.free("--delete")
        assert (code, answer["error"]["exit_code"]) == (1, 1)
        assert "config.prefix is 'media/', and the prefix of --store is" in said
        assert one.files() == paths

    def test_3_failure_is_told_by_the_exit_code(self, one: World) -> None:
        paths = everything(one)
        with proxy.in_front_of(one.store.endpoint_url) as double:
            other = replace(one.store, endpoint_url=double.url)
            one.save(other)
            one.configure(other)
            # The proof goes through, then the store is gone.
            double.misbehave(
                proxy.in_between(403), when=lambda request: "prefix=media%2Flocal_content" in request.target
            )
            code, _, said = one.free("--delete")
        assert code == 1
        assert "list_objects_v2" in said
        assert one.files() == paths

    def test_4_nothing_is_remembered_from_a_former_run(self, one: World) -> None:
        everything(one)
        one.free("--delete")
        one.write("local_content/aa/b0/file0", b"cached again, and changed")
        one.both("local_thumbnails/aa/b0/file0/32-32-image-png-crop")
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"freed": 1, "unverified": 1})
        assert one.files() == {"local_content/aa/b0/file0"}

    def test_5_the_root_stays(self, one: World) -> None:
        one.both("local_content/aa/bb/cc")
        one.free("--delete")
        assert one.media.is_dir()
        assert [path.name for path in one.media.iterdir()] == ["local_content"]

    def test_6_what_the_database_does_not_know_and_url_previews_stay(self, one: World) -> None:
        one.both("local_content/aa/bb/known")
        one.both("local_content/aa/bb/unknown")
        one.both("url_cache/2026-01-01/preview")
        database = one.know(aabbknown=(7, 100 * DAY))
        code, answer, _ = one.free("--delete", "--database", database)
        assert (code, files(answer), answer["age_by"]) == (0, {"freed": 1, "unknown": 1}, "last access")
        assert one.files() == {"local_content/aa/bb/unknown", "url_cache/2026-01-01/preview"}

    def test_7_a_file_that_is_being_written_stays(self, one: World) -> None:
        """Synapse writes in place: what is half there has half its object, too, and both are alike."""
        one.both("local_content/aa/bb/half", b"con", age=30)
        one.both("local_content/aa/bb/old", b"con")
        database = one.know(aabbhalf=(7, 100 * DAY), aabbold=(7, 100 * DAY))
        code, answer, _ = one.free("--delete", "--database", database)
        assert (code, files(answer)) == (1, {"unverified": 2})
        database = one.know(aabbnew=(3, 100 * DAY))
        one.both("local_content/aa/bb/new", b"con", age=30)
        code, answer, _ = one.free("--delete", "--database", database)
        assert files(answer) == {"unverified": 2, "young": 1}

    def test_8_a_homeserver_that_does_not_use_the_store(self, one: World) -> None:
        paths = everything(one)
        (one.config / "conf.d" / "synapse-media.yaml").unlink()
        code, _, said = one.free("--delete")
        assert code == 1
        assert "has no storage provider of s3_storage_provider" in said
        assert one.files() == paths

    def test_8_media_that_never_arrived_stays(self, one: World) -> None:
        one.write("local_content/aa/bb/cc")
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"unverified": 1})


class TestAge:
    def test_by_the_files_own_times(self, one: World) -> None:
        one.both("local_content/aa/bb/old")
        one.both("local_content/aa/bb/young", age=DAY)
        file = one.both("local_content/aa/bb/read-lately")
        os.utime(file, (time.time() - DAY, file.stat().st_mtime))
        _, answer, _ = one.free("--delete")
        assert (files(answer), answer["age_by"]) == ({"freed": 1, "young": 2}, "file times")
        assert one.files() == {"local_content/aa/bb/young", "local_content/aa/bb/read-lately"}

    def test_a_verification_is_no_access(self, one: World) -> None:
        """It reads every file, which changes the time of access of those that were not read since they were written."""
        file = one.both("local_content/aa/bb/cc")
        before = file.stat().st_atime_ns
        one.run("verify")
        one.free()
        assert file.stat().st_atime_ns == before

    def test_by_the_last_access_in_the_database(self, one: World) -> None:
        one.both("local_content/aa/bb/old", age=2 * DAY)
        one.both("local_content/aa/bb/young")
        one.both("local_content/aa/bb/hidden")
        database = one.know(aabbold=(7, 100 * DAY), aabbyoung=(7, DAY), aabbhidden=(7, 100 * DAY))
        one.execute("UPDATE local_media_repository SET quarantined_by = '@a:b' WHERE media_id = 'aabbhidden'")
        code, answer, _ = one.free("--delete", "--database", database)
        assert (code, files(answer)) == (0, {"freed": 2, "young": 1, "quarantined": 1})
        assert one.files() == {"local_content/aa/bb/young"}

    def test_an_access_that_is_no_time(self, one: World) -> None:
        one.both("local_content/aa/bb/old")
        database = one.know(aabbold=(7, 100 * DAY))
        one.execute("UPDATE local_media_repository SET last_access_ts = 'abc'")
        code, _, said = one.free("--delete", "--database", database)
        assert code == 1
        assert "last_access_ts or created_ts of some media is 'abc'; allowed: milliseconds since 1970" in said
        assert one.files() == {"local_content/aa/bb/old"}

    @pytest.mark.parametrize("age", ["0d", "30", "yesterday", "-1d"])
    def test_what_is_no_age(self, one: World, age: str) -> None:
        with pytest.raises(SystemExit) as caught:
            one.free(older_than=age)
        assert caught.value.code == 64
        assert "is no age; allowed: 12h, 7d, 4w" in one.capsys.readouterr().err

    def test_none_at_all(self, one: World) -> None:
        code, _, said = one.run("free", "--config", one.config)
        assert code == 64
        assert "--older-than is missing; allowed: an age such as 30d" in said


class TestTheLastLook:
    """What happens between the verification and the deletion."""

    @pytest.fixture
    def before_the_last_look(
        self, one: World, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Callable[[], object]], None]:
        """Have something happen right before a file is read for the last time."""

        def arrange(happens: Callable[[], object]) -> None:
            real = freeing.content

            def content(root: Root, path: str) -> verify.Content:
                happens()
                return real(root, path)

            monkeypatch.setattr(freeing, "content", content)

        return arrange

    @pytest.mark.parametrize("keeps_time", [False, True])
    def test_the_file_is_written(self, one: World, before_the_last_look: Any, keeps_time: bool) -> None:
        file = one.both("local_content/aa/bb/cc")
        times = file.stat()

        def write() -> None:
            file.write_bytes(b"CONTENT")
            if keeps_time:
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

        before_the_last_look(write)
        _, answer, _ = one.free("--delete")
        assert files(answer) == {"changed": 1}
        assert file.read_bytes() == b"CONTENT"

    def test_another_file_is_put_in_its_place(self, one: World, before_the_last_look: Any) -> None:
        file = one.both("local_content/aa/bb/cc")
        times = file.stat()

        def replace_it() -> None:
            other = one.write("other", b"content")
            os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
            other.rename(file)

        before_the_last_look(replace_it)
        _, answer, _ = one.free("--delete")
        assert files(answer) == {"changed": 1}
        assert file.exists()

    def test_a_link_out_of_the_tree_is_put_in_its_place(self, one: World, before_the_last_look: Any) -> None:
        file = one.both("local_content/aa/bb/cc")
        outside = one.home / "outside"
        outside.write_bytes(b"content")

        def link() -> None:
            file.unlink()
            file.symlink_to(outside)

        before_the_last_look(link)
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"failed": 1})
        assert outside.exists()
        assert file.is_symlink()

    def test_a_directory_becomes_a_link_out_of_the_tree(self, one: World, monkeypatch: pytest.MonkeyPatch) -> None:
        file = one.both("local_content/aa/bb/cc")
        outside = one.home / "outside"
        real = Root.unlink

        def unlink(root: Root, path: str, *status: int) -> bool:
            (one.media / "local_content/aa/bb").rename(outside)
            (one.media / "local_content/aa/bb").symlink_to(outside)
            return real(root, path, *status)

        monkeypatch.setattr(Root, "unlink", unlink)
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"failed": 1})
        assert (outside / file.name).exists()

    def test_it_is_gone(self, one: World, before_the_last_look: Any) -> None:
        file = one.both("local_content/aa/bb/cc")
        before_the_last_look(file.unlink)
        _, answer, _ = one.free("--delete")
        assert files(answer) == {"gone": 1}

    @pytest.mark.parametrize("there", [None, b"tnetnoc", b""])
    def test_the_object_is_another_by_then(self, one: World, there: bytes | None) -> None:
        one.both("local_content/aa/bb/cc")
        report = one.home / "report"
        one.run("verify", "--report", report)
        if there is None:
            one.admin.client("s3").delete_object(Bucket=one.store.bucket, Key="media/local_content/aa/bb/cc")
        else:
            one.put("local_content/aa/bb/cc", there)
        code, answer, _ = one.free("--delete", "--report", report)
        assert (code, files(answer)) == (1, {"changed": 1})
        assert one.files() == {"local_content/aa/bb/cc"}

    @pytest.mark.parametrize("there", [None, b"other content of another file"])
    def test_objects_change_while_files_are_deleted(
        self, one: World, before_the_last_look: Any, there: bytes | None
    ) -> None:
        """Deleting takes hours. Every object goes, or is replaced, once the first file is being deleted."""
        paths = everything(one)

        def change() -> None:
            for path in paths:
                if there is None:
                    one.admin.client("s3").delete_object(Bucket=one.store.bucket, Key=f"media/{path}")
                else:
                    one.put(path, there)

        before_the_last_look(change)
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"changed": len(paths)})
        assert one.files() == paths

    def test_an_object_that_can_not_be_looked_at(self, one: World) -> None:
        paths = everything(one)
        with proxy.in_front_of(one.store.endpoint_url) as double:
            other = replace(one.store, endpoint_url=double.url)
            one.save(other)
            one.configure(other)
            double.misbehave(proxy.in_between(403), when=lambda request: "file3" in request.target)
            code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"freed": len(paths) - 1, "failed": 1})
        assert "the object can't be looked at: head_object" in answer["failures"]["local_content/aa/b3/file3"]
        assert one.files() == {"local_content/aa/b3/file3"}

    @pytest.mark.parametrize(
        ("error", "every", "asked_for_all"),
        [
            (ApiError("SlowDown", 503, "slow down"), 1, False),
            (ApiError("", 0, "no answer"), 1, False),
            (ApiError("SlowDown", 503, "slow down"), 8, True),
            (ApiError("AccessDenied", 403, "no"), 1, True),
        ],
        ids=["503", "no answer", "now and then", "403"],
    )
    def test_a_store_that_does_not_answer_is_not_asked_for_each(
        self, one: World, monkeypatch: pytest.MonkeyPatch, error: ApiError, every: int, *, asked_for_all: bool
    ) -> None:
        """Each takes two minutes of attempts: thousands would take days."""
        for number in range(150):
            one.both(f"local_content/aa/bb/{number:03}")
        asked: list[str] = []
        real = Bucket.look

        def look(bucket: Bucket, path: str) -> Listed | None:
            if "/." in path:
                return real(bucket, path)  # whether the directory is the bucket
            asked.append(path)
            if len(asked) % every == 0:
                raise error
            return real(bucket, path)

        monkeypatch.setattr(Bucket, "look", look)
        code, answer, _ = one.free("--delete")
        assert code == 1
        assert files(answer) == ({"failed": 150} if every == 1 else {"freed": 132, "failed": 18})
        assert (len(asked) == 150) is asked_for_all
        assert len(one.files()) == answer["failed"]["files"]

    @pytest.mark.parametrize(
        ("header", "value", "words"),
        [
            ("x-amz-archive-status", "DEEP_ARCHIVE_ACCESS", "can't be read at once: it is in DEEP_ARCHIVE_ACCESS"),
            ("x-amz-storage-class", "GLACIER", "can't be read at once: it is in GLACIER"),
            ("x-amz-expiration", 'expiry-date="Sat, 28 Nov 2026 00:00:00 GMT", rule-id="all"', "by a lifecycle rule"),
        ],
    )
    def test_an_object_that_could_not_be_served_or_not_for_long(
        self, one: World, header: str, value: str, words: str
    ) -> None:
        """Only HEAD tells."""
        paths = everything(one)

        def told(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
            answer = upstream.ask(request)
            assert answer is not None
            others = (each for each in answer.headers if each[0].lower() != header)
            return replace(answer, headers=(*others, (header, value)))

        with proxy.in_front_of(one.store.endpoint_url) as double:
            other = replace(one.store, endpoint_url=double.url)
            one.save(other)
            one.configure(other)
            double.misbehave(told, when=lambda request: request.method == "HEAD" and "file3" in request.target)
            code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"freed": len(paths) - 1, "failed": 1})
        assert words in answer["failures"]["local_content/aa/b3/file3"]
        assert one.files() == {"local_content/aa/b3/file3"}

    def test_the_file_is_written_after_it_was_read_and_its_time_put_back(
        self, one: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = one.both("local_content/aa/bb/cc")
        real = freeing.content

        def content(root: Root, path: str) -> verify.Content:
            found, times = real(root, path), file.stat()
            file.write_bytes(b"CONTENT")
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
            return found

        monkeypatch.setattr(freeing, "content", content)
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (1, {"changed": 1})
        assert file.read_bytes() == b"CONTENT"

    def test_the_file_is_cached_again(self, one: World) -> None:
        file = one.both("local_content/aa/bb/cc")
        database = one.know(aabbcc=(7, 100 * DAY))
        report = one.home / "report"
        one.run("verify", "--report", report, "--database", database)
        file.write_bytes(b"content")
        code, answer, _ = one.free("--delete", "--report", report, "--database", database)
        assert (code, files(answer)) == (0, {"young": 1})


class TestTheReport:
    def test_of_this_store_and_directory_it_is_taken(self, one: World) -> None:
        paths = everything(one)
        report = one.home / "report"
        one.run("verify", "--report", report)
        one.both("local_content/aa/bb/later")
        code, answer, _ = one.free("--delete", "--report", report)
        assert (code, files(answer)) == (0, {"freed": len(paths)})
        assert (answer["verification"]["failed"], answer["verification"]["verified"]["files"]) == (False, len(paths))
        assert one.files() == {"local_content/aa/bb/later"}

    @pytest.mark.parametrize("of", ["missing", "different", "left_out", "damaged", "lost"])
    def test_what_it_has_as_wrong_fails_as_without_it(self, one: World, of: str) -> None:
        """A timer that runs `verify` and then `free` may look at the exit code of the second one alone."""
        one.both("local_content/aa/b0/good")
        database = one.know(aab0good=(7, 100 * DAY))
        if of == "missing":
            one.write("local_content/aa/bb/cc")
        elif of == "different":
            one.both("local_content/aa/bb/cc")
            one.put("local_content/aa/bb/cc", b"another")
        elif of == "left_out":
            (one.media / "local_content" / "aa" / "link").symlink_to("b0")
        else:
            if of == "damaged":
                one.both("local_content/aa/bb/cc")
            one.know(aabbcc=(8, 100 * DAY))
        report = one.home / "report"
        assert one.run("verify", "--report", report, "--database", database)[0] == 1
        for more in (), ("--delete",):
            without = one.free("--database", database)
            code, answer, _ = one.free("--report", report, "--database", database, *more)
            assert (code, files(answer)) == (1, files(without[1]))
            assert answer["verification"] == without[1]["verification"]
            assert answer["verification"][of]["files"] == 1
        assert not (one.media / "local_content/aa/b0/good").exists()

    def test_what_was_asked_for_or_purged_since_stays(self, one: World) -> None:
        for name in ("aa", "bb", "cc", "dd"):
            one.both(f"local_content/aa/bb/{name}")
        database = one.know(**{f"aabb{name}": (7, 100 * DAY) for name in ("aa", "bb", "cc", "dd")})
        report = one.home / "report"
        assert one.run("verify", "--report", report, "--database", database)[0] == 0
        one.execute(
            "UPDATE local_media_repository SET last_access_ts = ? WHERE media_id = 'aabbaa'", time.time() * 1000
        )
        one.execute("DELETE FROM local_media_repository WHERE media_id = 'aabbbb'")
        one.execute("UPDATE local_media_repository SET quarantined_by = '@a:example.com' WHERE media_id = 'aabbcc'")
        # It was not there yet, and is not lost.
        one.know(aabbee=(7, 0))
        code, answer, said = one.free("--delete", "--report", report, "--database", database)
        assert (code, files(answer)) == (0, {"freed": 2, "young": 1, "unknown": 1, "quarantined": 1}), said
        assert one.files() == {"local_content/aa/bb/aa", "local_content/aa/bb/bb"}

    def test_with_the_database_it_is_not_taken_without(self, one: World) -> None:
        one.both("local_content/aa/bb/cc")
        database = one.know(aabbcc=(7, 100 * DAY))
        report = one.home / "report"
        one.run("verify", "--report", report, "--database", database)
        code, _, said = one.free("--delete", "--report", report)
        assert code == 1
        assert "of a verification with the database, and without it nobody knows what was asked for since" in said
        assert one.files() == {"local_content/aa/bb/cc"}

    @pytest.mark.parametrize("of", ["another name", "other media"])
    def test_the_database_of_another_homeserver_is_not_taken(self, one: World, of: str) -> None:
        """That none of its files is known there would look as if there were nothing to delete."""
        one.both("local_content/aa/bb/cc")
        database = one.know(aabbcc=(7, 100 * DAY))
        report = one.home / "report"
        assert one.run("verify", "--report", report, "--database", database)[0] == 0
        one.execute("UPDATE local_media_repository SET media_id = 'zzyyxx'")
        if of == "another name":
            one.execute("UPDATE local_media_repository SET user_id = '@a:other.example'")
        words = {
            "another name": "is the database of other.example, and --store is of example.com",
            "other media": "it is the database of another homeserver, or the prefix is another",
        }[of]
        for more in (), ("--delete",):
            code, answer, said = one.free("--report", report, "--database", database, *more)
            assert (code, answer["error"]["exit_code"]) == (1, 1)
            assert words in said
        assert one.files() == {"local_content/aa/bb/cc"}

    def test_it_is_said_where_it_has_something_as_wrong(self, one: World) -> None:
        one.write("local_content/aa/bb/cc")
        report = one.home / "report"
        one.run("verify", "--report", report)
        where = ("--store", str(one.store_file), "--config", str(one.config), "--older-than", "30d")
        assert main(["media", "free", str(one.media), *where, "--report", str(report)]) == 1
        assert "FAILED: not everything is in the bucket" in one.capsys.readouterr().out

    def test_of_another_store(self, one: World) -> None:
        self.is_refused(one, lambda report: self.noted(report, "store", "0" * 64), "it is of another store")

    def test_of_another_directory(self, one: World) -> None:
        self.is_refused(one, lambda report: self.noted(report, "directory", "[1, 2]"), "it is of another directory")

    def test_of_yesterday(self, one: World) -> None:
        before = repr(time.time() - 25 * 3600)
        self.is_refused(one, lambda report: self.noted(report, "started", before), "it was begun 25 hours ago")

    def test_of_tomorrow(self, one: World) -> None:
        after = repr(time.time() + 25 * 3600)
        self.is_refused(one, lambda report: self.noted(report, "started", after), "it was begun")

    @pytest.mark.parametrize("name", ["started", "directory"])
    def test_that_somebody_edited(self, one: World, name: str) -> None:
        self.is_refused(one, lambda report: self.noted(report, name, "[yesterday"), "which is damaged")

    def test_that_was_not_ended(self, one: World) -> None:
        self.is_refused(one, lambda report: self.noted(report, "ended", ""), "did not come to its end")

    def test_of_another_release(self, one: World) -> None:
        def change(report: Path) -> None:
            with closing(sqlite3.connect(report)) as connection, connection:
                connection.execute("PRAGMA user_version = 3")

        self.is_refused(one, change, "of format version 3; allowed: 2")

    def test_that_is_cut_off(self, one: World) -> None:
        self.is_refused(one, lambda report: os.truncate(report, 5000), "damaged")

    def test_that_is_none(self, one: World) -> None:
        self.is_refused(one, lambda report: report.write_text("{}"), "which is no report")  # type: ignore[arg-type]

    def test_that_others_may_write(self, one: World) -> None:
        self.is_refused(one, lambda report: report.chmod(0o666), "which others than this user may write")

    def test_that_is_a_link(self, one: World) -> None:
        def change(report: Path) -> None:
            report.rename(report.with_name("elsewhere"))
            report.symlink_to(report.with_name("elsewhere"))

        self.is_refused(one, change, "which is no report")

    def test_that_is_not_there(self, one: World) -> None:
        self.is_refused(one, lambda report: report.unlink(), "No such file")

    def test_without_the_database_that_there_is(self, one: World) -> None:
        self.is_refused(one, lambda _: None, "without the database", "--database", one.know(aab0file0=(7, 0)))

    @staticmethod
    def noted(report: Path, name: str, value: str) -> None:
        with closing(sqlite3.connect(report)) as connection, connection:
            connection.execute("UPDATE run SET value = ? WHERE name = ?", (value, name))

    @staticmethod
    def is_refused(one: World, change: Callable[[Path], None], words: str, *more: object) -> None:
        paths = everything(one)
        report = one.home / "report"
        one.run("verify", "--report", report)
        change(report)
        code, _, said = one.free("--delete", "--report", report, *more)
        assert code == 1
        assert words in said
        assert "--report" in said
        assert one.files() == paths


class TestWhatSynapseIsConfiguredFor:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"bucket": "another"}, "config.bucket is 'another', and the bucket of --store is"),
            ({"endpoint_url": "https://s3.example.org"}, "config.endpoint_url is 'https://s3.example.org'"),
            ({"prefix": ""}, "config.prefix is '', and the prefix of --store is 'media/'"),
        ],
    )
    def test_another_store(self, one: World, changes: dict[str, str], words: str) -> None:
        paths = everything(one)
        one.configure(replace(one.store, **changes))
        code, _, said = one.free("--delete")
        assert code == 1
        assert words in said
        assert "Nothing is deleted: name the store.json that was rendered with this configuration" in said
        assert one.files() == paths

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            (r"( *)endpoint_url: http:", r"\1endpoint_url: https:", "config.endpoint_url is 'https://"),
            (r"( *endpoint_url: \S+)", r"\1/elsewhere", "/elsewhere', and the endpoint of --store is"),
            (r"( *)bucket:", r"\1sse_customer_key: k\n\1bucket:", "config.sse_customer_key is set"),
        ],
    )
    def test_a_store_that_synapse_reads_otherwise(self, one: World, old: str, new: str, words: str) -> None:
        paths = everything(one)
        drop_in = one.config / "conf.d" / "synapse-media.yaml"
        text = drop_in.read_text().replace('"', "")
        drop_in.write_text(re.sub(old, new, text))
        code, _, said = one.free("--delete")
        assert code == 1
        assert words in said
        assert one.files() == paths

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            (
                r"access_key_id: \S+",
                "access_key_id: AKIAOFYESTERDAY00000",
                "access_key_id is 'AKIAOFYESTERDAY00000', and",
            ),
            (r"secret_access_key: \S+", "secret_access_key: of-yesterday", "secret_access_key is not the secret of "),
            (r" *secret_access_key: \S+\n", "", "secret_access_key is not the secret of "),
            (r" *access_key_id: \S+\n", "", "access_key_id is '', and that of --store is '"),
            (r"( *)access_key_id:", r"\1session_token: t\n\1access_key_id:", "session_token is set"),
            (r"secret_access_key: \S+", 'secret_access_key: "{{ vault_key }}"', "is a template"),
        ],
    )
    @pytest.mark.parametrize("way", ["delete", "dry-run"])
    def test_another_key(self, one: World, old: str, new: str, words: str, way: str) -> None:
        """The proof is that of the key in store.json: after a rotation Synapse may still have the former one."""
        paths = everything(one)
        drop_in = one.config / "conf.d" / "synapse-media.yaml"
        text = re.sub(old, new, drop_in.read_text())
        assert text != drop_in.read_text()
        drop_in.write_text(text)
        code, answer, said = one.free(*(["--delete"] if way == "delete" else []))
        assert code != 0
        assert words in said
        assert not {one.store.secret_access_key, "of-yesterday"} & set(re.split(r"[\s'\"]+", f"{said} {answer}"))
        assert one.files() == paths

    def test_a_key_where_the_machines_role_is_the_key(self, one: World) -> None:
        entry = homeserver.read([str(one.config)])
        keyless = replace(one.store, keyless=True, access_key_id="", secret_access_key="")
        with pytest.raises(
            homeserver.ConfigurationError, match="--store has none, since the machine's role is its key"
        ):
            entry.require_key(keyless)
        drop_in = one.config / "conf.d" / "synapse-media.yaml"
        drop_in.write_text(re.sub(r" *(secret_)?access_key(_id)?: \S+\n", "", drop_in.read_text()))
        assert homeserver.read([str(one.config)]).require_key(keyless) == ""

    def test_a_key_that_is_elsewhere_is_told(self, one: World) -> None:
        """As rendered by reference: Synapse has it from its environment, which is not to be seen here."""
        everything(one)
        drop_in = one.config / "conf.d" / "synapse-media.yaml"
        drop_in.write_text(re.sub(r" *(secret_)?access_key(_id)?: \S+\n", "", drop_in.read_text()))
        code, answer, said = one.free()
        assert (code, files(answer)) == (0, {"freed": 7})
        assert "has no key: whether the one in Synapse's environment is that of --store" in said

    def test_another_key_is_no_fault_for_a_copy(self, one: World) -> None:
        one.write("local_content/aa/bb/cc")
        drop_in = one.config / "conf.d" / "synapse-media.yaml"
        drop_in.write_text(re.sub(r"( access_key_id): \S+", r"\1: AKIAOFYESTERDAY00000", drop_in.read_text()))
        assert one.run("copy", "--config", one.config)[0] == 0

    def test_another_homeserver(self, one: World) -> None:
        paths = everything(one)
        (one.config / "homeserver.yaml").write_text("server_name: example.org\n")
        code, _, said = one.free("--delete")
        assert code == 1
        assert "server_name is 'example.org', and --store is of example.com" in said
        assert one.files() == paths

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b'media_storage_providers: []\nfoo: "{{ bar }}"\n', "is a template"),
            (b"{# c #}\nmedia_storage_providers: []\nx: {% y %}\n", "is a template"),
            (b"media_storage_providers: []\n\tfoo: 1\n", "is not valid YAML"),
            (b"media_storage_providers: []\nfoo: caf\xe9\n", "UTF-8"),
            (b"$ANSIBLE_VAULT;1.1;AES256\n3132\n", "is encrypted"),
            (b"a: 1\n---\nmedia_storage_providers: []\n", "has more than one YAML document"),
            (
                b"repo: {}\ndatastores: []\nmedia_storage_providers: []\n",
                "is a template, or the configuration of another program",
            ),
        ],
    )
    def test_a_file_of_the_directory_that_can_not_be_read_as_synapse_does(
        self, one: World, content: bytes, words: str
    ) -> None:
        paths = everything(one)
        (one.config / "conf.d" / "z.yaml").write_bytes(content)
        code, _, said = one.free("--delete")
        assert code == 64
        assert f"{one.config / 'conf.d' / 'z.yaml'} " in said
        assert words in said
        assert one.files() == paths

    @pytest.mark.parametrize(
        "place", ["synapse-media.yaml", "conf.d/synapse-media.yml", "conf.d/sub/synapse-media.yaml"]
    )
    def test_a_file_that_synapse_does_not_read(self, one: World, place: str) -> None:
        paths = everything(one)
        (one.config / place).parent.mkdir(exist_ok=True)
        (one.config / "conf.d" / "synapse-media.yaml").rename(one.config / place)
        code, _, said = one.free("--delete")
        assert code == 1
        assert "has no storage provider of s3_storage_provider" in said
        assert one.files() == paths

    def test_a_directory_of_nothing_but_files(self, one: World) -> None:
        """As Synapse reads it where it is given a directory; one that says nothing of media is left alone."""
        everything(one)
        (one.config / "conf.d" / "other.yaml").write_text("# nothing\n")
        (one.config / "conf.d" / "more.yaml").write_text("presence: {enabled: false}\n")
        code, answer, _ = one.run("free", "--config", one.config / "conf.d", "--older-than", "30d")
        assert (code, files(answer)) == (0, {"freed": 7})

    def test_a_directory_without_any(self, one: World) -> None:
        code, _, said = one.run("free", "--config", one.media, "--older-than", "30d")
        assert code == 64
        assert "has neither homeserver.yaml nor a *.yaml file" in said

    def test_by_the_rendered_file_alone(self, one: World) -> None:
        everything(one)
        drop_in = one.config / "conf.d" / "synapse-media.yaml"
        code, answer, _ = one.run("free", "--config", drop_in, "--older-than", "30d", "--delete")
        assert (code, files(answer)) == (0, {"freed": 7})

    def test_no_remote_media(self, one: World) -> None:
        everything(one)
        drop_in = one.config / "conf.d" / "synapse-media.yaml"
        drop_in.write_text(drop_in.read_text().replace("store_remote: true", "store_remote: false"))
        code, answer, _ = one.free("--delete")
        assert (code, files(answer)) == (0, {"freed": 6, "off": 1})
        assert one.files() == {"remote_content/b.example/aa/bb/ünï code"}

    def test_another_media_store(self, one: World) -> None:
        paths = everything(one)
        other = one.home / "other"
        other.mkdir()
        (one.config / "homeserver.yaml").write_text(f"server_name: example.com\nmedia_store_path: {other}\n")
        code, _, said = one.free("--delete")
        assert code == 1
        assert f"DIR is '{one.media}'; allowed: {other}" in said
        assert one.files() == paths

    @pytest.mark.parametrize(
        ("text", "words"),
        [("a: [", "is not valid YAML"), ("things: 1\n", "no configuration of Synapse"), ("", "no configuration")],
    )
    def test_a_file_that_is_none(self, one: World, text: str, words: str) -> None:
        file = one.home / "homeserver.yaml"
        file.write_text(text)
        code, _, said = one.run("free", "--config", file, "--older-than", "30d")
        assert code == 64
        assert words in said

    def test_none(self, one: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("synapse_media.media.homeserver.DEFAULT", str(one.home / "nowhere"))
        code, _, said = one.run("free", "--older-than", "30d")
        assert code == 64
        assert "--config is missing" in said


def test_a_key_that_fails_its_proof(proved_now: World) -> None:
    one = proved_now
    paths = everything(one)
    user = one.store.user
    one.admin.client("iam").put_user_policy(
        UserName=user,
        PolicyName=user,
        PolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":'
        f'["arn:aws:s3:::{one.store.bucket}","arn:aws:s3:::{one.store.bucket}/*"]}}]}}',
    )
    code, _, said = one.free("--delete")
    assert code == 1
    assert "the key fails its proof, so nothing is deleted" in said
    assert one.files() == paths


class TestADirectoryThatIsTheBucket:
    def test_goofys(self, one: World) -> None:
        paths = everything(one)
        one.save(replace(one.store, method="goofys"))
        code, _, said = one.free("--delete")
        assert code == 64
        assert "the bucket is mounted as the media store" in said
        assert one.files() == paths

    def test_whatever_makes_it_so(
        self, embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The embedded store keeps a bucket as a directory: the two are one, and no mount says so."""
        one = world(embedded_store, tmp_path, capsys, "")
        one.put("local_content/aa/bb/cc")
        one.media = embedded_store.data_dir / one.store.bucket
        os.utime(one.media / "local_content/aa/bb/cc", (1, 1))
        (one.config / "homeserver.yaml").write_text("server_name: example.com\n")
        code, _, said = one.free("--delete")
        assert code == 1
        assert f"{one.media} and the bucket {one.store.bucket} are one" in said
        assert one.objects() == {"local_content/aa/bb/cc"}

    @pytest.mark.parametrize(
        "line",
        [
            "40 1 0:50 / {} rw - fuse.goofys media rw",
            "40 1 0:50 / {}/remote_content rw - fuse.rclone store:media rw",
            "40 1 0:50 / {} rw shared:1 master:2 - fuse /usr/bin/s3fs#media rw",
        ],
    )
    def test_a_mount(self, tmp_path: Path, line: str) -> None:
        media = tmp_path / "with blank"
        table = tmp_path / "mountinfo"
        mounted = line.format(str(media).replace(" ", "\\040"))
        table.write_text(f"20 1 8:1 / / rw - ext4 /dev/sda rw\n{mounted}\n")
        with pytest.raises(freeing.RefusedError, match="is a bucket, mounted by"):
            freeing.refuse_mount(media, table)

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting is for root")
    def test_a_part_of_it_that_is_bound_from_the_bucket(
        self, embedded_store: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is of the same file system, and nothing but the table of mounts tells of it."""
        one = world(embedded_store, tmp_path, capsys, "")
        path = "remote_content/b.example/aa/bb/cc"
        one.both("local_content/aa/bb/cc")
        one.put(path)
        with bound(embedded_store.data_dir / one.store.bucket / "remote_content/b.example", one.media, path):
            os.utime(one.media / path, (1, 1))
            code, _, said = one.free("--delete")
        assert code == 1
        assert "a file that was written to remote_content/b.example appeared there as an object" in said
        assert one.objects() == {path, "local_content/aa/bb/cc"}
        assert (one.media / "local_content/aa/bb/cc").exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting is for root")
    @pytest.mark.parametrize("kind", ["bind", "tmpfs"])
    def test_another_disk_that_is_mounted_below(self, one: World, kind: str) -> None:
        path = "remote_content/b.example/aa/bb/cc"
        one.put(path)
        disk = Path("/dev/shm") / f"{one.home.name}-disk" if kind == "bind" else None
        try:
            if disk:
                disk.mkdir()
            with bound(disk, one.media, path):
                one.write(path)
                code, answer, _ = one.run("verify")
                assert (code, answer["verified"]["files"]) == (0, 1)
                code, answer, _ = one.free("--delete")
                assert (code, files(answer)) == (0, {"freed": 1})
                assert one.files() == set()
        finally:
            if disk:
                shutil.rmtree(disk)
        assert one.objects() == {path}

    def test_what_is_mounted_below(self, tmp_path: Path) -> None:
        table = tmp_path / "mountinfo"
        media = tmp_path / "media"
        places = ["/", tmp_path, media, f"{media}-other/aa", f"{media}/local_content", f"{media}/local_content", "/x"]
        table.write_text("".join(f"20 1 8:1 / {place} rw - ext4 /dev/sda rw\n" for place in places))
        assert mounts.below(media, table) == [media / "local_content"]
        assert mounts.below(media, tmp_path / "no such file") == []

    @pytest.mark.parametrize("blank", ["\u3000", "\u00a0", "\u2003", "\u2028", "\u0085", "\v", "\u00e4"])
    def test_blanks_and_ends_of_lines_that_the_kernel_does_not_escape(self, tmp_path: Path, blank: str) -> None:
        media, table = tmp_path / f"disk{blank}x" / "media", tmp_path / "mountinfo"
        table.write_bytes(
            f"20 1 8:1 / / rw - ext4 /dev/sda rw\n21 1 8:2 / /media/USB{blank}stick rw - vfat /dev/sdb1 rw\n"
            f"41 1 0:50 / {media}/local_content rw - fuse.goofys media{blank}bucket rw\n".encode()
        )
        assert mounts.below(media, table) == [media / "local_content"]
        with pytest.raises(freeing.RefusedError, match="is a bucket, mounted by goofys"):
            freeing.refuse_mount(media, table)

    def test_what_killed_runs_left(self, one: World) -> None:
        one.both("local_content/aa/bb/cc")
        left = one.write("local_content/.synapse-media-0123456789abcdef", b"")
        others = {
            one.write("local_content/.synapse-media-0123456789abcdef0", b""),
            one.write("local_content/.synapse-media-0123456789abcde0", b"content"),
            one.write("local_content/.synapse-media-0123456789abcde1", b"", age=30),
        }
        one.free("--delete")
        assert not left.exists()
        assert all(other.exists() for other in others)

    def test_other_mounts(self, tmp_path: Path) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(
            "20 1 8:1 / / rw - ext4 /dev/sda rw\n"
            f"41 1 0:50 / {tmp_path} rw - fuse.mergerfs disks rw\n"
            "42 1 0:51 / /somewhere/else rw - fuse.goofys media rw\n"
        )
        freeing.refuse_mount(tmp_path / "media", table)
        freeing.refuse_mount(tmp_path, tmp_path / "no such file")


@contextmanager
def bound(disk: Path | None, media: Path, path: str) -> Iterator[None]:
    """A directory, or a disk of its own, mounted two levels below the media store, as the path has it."""
    place = media.joinpath(*Path(path).parts[:2])
    place.mkdir(parents=True)
    what = ["--bind", str(disk)] if disk else ["-t", "tmpfs", "tmpfs"]
    if subprocess.run(["mount", *what, str(place)], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_the_store_is_asked_for_several_at_once_and_before_each_deletion(one: World) -> None:
    paths = {f"local_content/{n % 3:02}/bb/{n}" for n in range(24)}
    for path in paths:
        one.both(path)
    meet = threading.Barrier(4)
    seen: set[str] = set()

    def look(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        path = request.key.removeprefix(one.store.prefix)
        assert (one.media / path).exists()
        seen.add(path)
        meet.wait(timeout=60)
        return upstream.ask(request)

    with proxy.in_front_of(one.store.endpoint_url) as double:
        double.misbehave(
            look, when=lambda request: request.method == "HEAD" and request.key.removeprefix(one.store.prefix) in paths
        )
        one.save(replace(one.store, endpoint_url=double.url))
        one.configure(replace(one.store, endpoint_url=double.url))
        code, answer, said = one.free("--delete")
    assert (code, files(answer)) == (0, {"freed": 24}), said
    assert seen == paths
    assert one.files() == set()
    assert [path.name for path in one.media.iterdir()] == ["local_content"]


def test_nothing_more_is_begun_once_it_is_interrupted(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        one.both(f"local_content/aa/bb/{number}")

    class Interrupted(verify.Meter):
        def add(self, size: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(freeing, "Meter", Interrupted)
    monkeypatch.setattr(freeing, "_AT_ONCE", 1)
    with suppress(KeyboardInterrupt):
        one.free("--delete")
    assert 0 < len(one.files()) < 200


_FREE = """
import sys
from synapse_media.cli import main, prove
prove.prove = lambda _: ()  # it takes longer than all the rest
sys.exit(main())
"""


def test_killed_at_any_moment_nothing_is_lost(one: World) -> None:
    """Every file is here as it was, or its object is in the bucket as the file was; and the next run goes on."""
    numbers = range(60)
    paths = {f"local_content/{n % 7:02}/{n % 5:02}/file{n}": str(n).encode() for n in numbers}
    for path, content in paths.items():
        one.both(path, content)
    database = one.know(**{f"{n % 7:02}{n % 5:02}file{n}": (len(str(n)), 100 * DAY) for n in numbers})
    command = [
        *(sys.executable, "-c", _FREE, "media", "free", str(one.media), "--store", str(one.store_file)),
        *("--config", str(one.config), "--database", str(database), "--older-than", "30d", "--delete"),
    ]
    dice = random.Random(7)
    begun = 0
    for turn in range(KILLS or 20):
        for path in paths.keys() - one.files():
            one.write(path, paths[path])
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        # The moments that matter are those in which it deletes.
        for line in child.stderr:
            if "deleting" in line:
                break
        while turn % 2 and child.poll() is None and len(one.files()) == len(paths):
            pass  # until it has begun, however slow this machine is
        time.sleep(dice.uniform(0, 0.08))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        left = one.files()
        begun += 0 < len(left) < len(paths)
        assert {path: (one.media / path).read_bytes() for path in left} == {path: paths[path] for path in left}
    assert begun
    assert one.objects() == paths.keys()
    left = one.files()
    code, answer, _ = one.free("--delete", "--database", database)
    assert (code, answer["freed"]["files"]) == (0, len(left))
    assert one.files() == set()
    assert [path.name for path in one.media.iterdir()] == ["local_content"]


def test_the_words_for_people(one: World) -> None:
    everything(one)
    one.write("local_content/aa/bb/alone")
    from synapse_media.cli import main

    code = main(
        [
            *("media", "free", str(one.media), "--store", str(one.store_file), "--config", str(one.config)),
            *("--older-than", "30d"),
        ]
    )
    said = one.capsys.readouterr()
    assert code == 1
    assert "7 files, 191 B: to be deleted, with --delete" in said.out
    assert "1 file, 7 B: kept: not verified" in said.out
    assert "no database was read" in said.out
