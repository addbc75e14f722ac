"""Files on disk: whole or not at all, closed to others, untouched where nothing changed; diffs without a secret."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synapse_media import renderer
from synapse_media.renderer import RenderError, render, writing
from synapse_media.renderer.writing import MASK, WriteError, difference, masked, write
from tests.renderer.readers import texts
from tests.renderer.samples import SECRET, store

FILES = {"a.yml": "one\n", "b/c/d.env": "two\n"}


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_files_and_directories_are_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        report = write(FILES, tmp_path / "out")
    finally:
        os.umask(before)
    assert tree(tmp_path / "out") == FILES
    assert {mode(tmp_path / "out" / path) for path in FILES} == {0o600}
    assert {mode(tmp_path / "out" / path) for path in (".", "b", "b/c")} == {0o700}
    assert report == writing.Report(written=("a.yml", "b/c/d.env"), unchanged=())


def test_unchanged_files_are_not_touched(tmp_path: Path) -> None:
    write(FILES, tmp_path)
    for path in FILES:
        os.utime(tmp_path / path, ns=(1, 1))
    (tmp_path / "a.yml").chmod(0o644)
    report = write({**FILES, "b/c/d.env": "three\n"}, tmp_path)
    assert report == writing.Report(written=("b/c/d.env",), unchanged=("a.yml",))
    assert (tmp_path / "a.yml").stat().st_mtime_ns == 1
    assert mode(tmp_path / "a.yml") == 0o600
    assert (tmp_path / "b/c/d.env").read_text() == "three\n"


def test_what_else_lies_there_is_named(tmp_path: Path) -> None:
    write(FILES, tmp_path)
    (tmp_path / "b/old.yml").write_text("")
    (tmp_path / "elsewhere").write_text("")
    assert writing.others(FILES, tmp_path, "b") == ("b/old.yml",)


def _as_a_file(out: Path) -> None:
    out.write_text("in the way")


def _with_a_directory(out: Path) -> None:
    (out / "b/c/d.env").mkdir(parents=True)


def _with_a_file_as_directory(out: Path) -> None:
    out.mkdir()
    (out / "b").write_text("in the way")


@pytest.mark.parametrize("prepare", [_as_a_file, _with_a_directory, _with_a_file_as_directory])
def test_nothing_is_half_made(prepare: Callable[[Path], None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(out)
    before = tree(tmp_path)
    with pytest.raises(WriteError):
        write(FILES, out)
    assert tree(tmp_path) == before


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """As on a full disk: here it is the size of a file that has an end."""
    write({"a.yml": "old\n"}, tmp_path)
    script = (
        "import resource, signal, sys; from pathlib import Path; from synapse_media.renderer import writing\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "writing.write({'a.yml': 'new', 'b/c.yml': 'x' * 5000}, Path(sys.argv[1]))"
    )
    found = subprocess.run([sys.executable, "-c", script, tmp_path], check=False, capture_output=True, text=True)
    assert "WriteError" in found.stderr
    assert "No file was changed" in found.stderr
    assert tree(tmp_path) == {"a.yml": "old\n"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="Permission denied"):
        write(FILES, tmp_path)
    tmp_path.chmod(0o700)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x"])
def test_no_file_lies_outside(path: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="outside"):
        write({path: ""}, tmp_path / "out")
    assert tree(tmp_path) == {}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "a.yml").symlink_to(tmp_path / "target")
    write({"a.yml": "ours"}, tmp_path)
    assert tree(tmp_path) == {"a.yml": "ours", "target": "theirs"}


def test_difference_is_a_diff_that_patch_takes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = [f"line {number}\n" for number in range(30)]
    write({"a.yml": "".join(lines), "same.yml": "same\n"}, out)
    changed = {"a.yml": "".join([*lines[:3], "new\n", *lines[5:28], "end\n"]), "same.yml": "same\n"}
    shown = difference(changed, out)
    assert shown.startswith("--- a.yml\n+++ a.yml\n@@ -2,6 +2,5 @@\n line 1\n line 2\n-line 3\n-line 4\n+new\n")
    assert "same.yml" not in shown
    assert tree(out) == {"a.yml": "".join(lines), "same.yml": "same\n"}
    subprocess.run(["git", "apply", "-p0", "-"], cwd=out, input=shown, text=True, check=True)
    assert tree(out) == changed
    assert difference(changed, out) == ""
    (out / "a.yml").write_text(changed["a.yml"].removesuffix("\n"))
    assert "-end\n\\ No newline at end of file\n+end\n" in difference(changed, out)


def test_difference_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert difference({"a.yml": "one\ntwo\n"}, tmp_path) == "--- /dev/null\n+++ a.yml\n@@ -0,0 +1,2 @@\n+one\n+two\n"


METHOD_AND_FORM = [
    (method, form)
    for method in ("synapse-s3-storage-provider", "goofys", "matrix-media-repo")
    for form in renderer.forms(method)
]


@pytest.mark.parametrize("secrets", renderer.SECRETS)
@pytest.mark.parametrize(("method", "form"), METHOD_AND_FORM)
def test_no_secret_is_in_a_diff(method: str, form: renderer.Form, secrets: renderer.Secrets, tmp_path: Path) -> None:
    if (method, form, secrets) == ("matrix-media-repo", "plain", "reference"):
        return
    old = render(store("amazon", method, secret_access_key="the-older-secret-of-before"), form)
    new = render(store("amazon", method, bucket="another"), form, secrets)
    assert SECRET not in difference(new, tmp_path, [SECRET])
    write(old, tmp_path)
    shown = difference(new, tmp_path, [SECRET])
    assert "another" in shown
    assert SECRET not in shown
    assert "older-secret" not in shown


def test_a_new_secret_shows_as_a_change(tmp_path: Path) -> None:
    write(render(store("amazon"), "playbook"), tmp_path)
    shown = difference(render(store("amazon", secret_access_key="new"), "playbook"), tmp_path, ["new"])
    changed = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert [line[:1] for line in changed] == ["-", "+"]
    assert all(line.endswith(f"secret_access_key: {MASK}") for line in changed)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    secret=texts.map(lambda text: f"q7w{text}z9k"), method=st.sampled_from(["goofys", "synapse-s3-storage-provider"])
)
def test_the_odd_secret_is_masked_too(secret: str, method: str) -> None:
    for form in renderer.forms(method):
        try:
            files = render(store("amazon", method, secret_access_key=secret), form)
        except RenderError:
            continue
        for text in files.values():
            for known in ([secret], []):
                shown = "\n".join(masked(text.split("\n"), known))
                assert "q7w" not in shown
                assert "z9k" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("secret: x", "secret: <secret>"),
        ("a_password = 'x' # why", "a_password = <secret>"),
        ('  {"accessSecret": "x", "b": 1}', '  {"accessSecret": <secret>'),
        ("SECRET_KEY='one\ntwo'\nB=1", "SECRET_KEY=<secret>\n<secret>\nB=1"),
        ("token: |\n  x\n\n  y\nnext: 1", "token: |\n<secret>\n\n<secret>\nnext: 1"),
        ("my_token: !vault |\n  3132\nnext: 1", "my_token: !vault |\n<secret>\nnext: 1"),
        ("AWS_SECRET_ACCESS_KEY=!bang", "AWS_SECRET_ACCESS_KEY=<secret>"),
        ("secret:\n  nested: x\nnext: 1", "secret:\n<secret>\nnext: 1"),
        ('secret: ""\nid: x', 'secret: ""\nid: x'),
        ("bucket: x\naccess_key_id: y", "bucket: x\naccess_key_id: y"),
        ("# the secret is elsewhere", "# the secret is elsewhere"),
        ("key: \"{{ lookup('env', 'X') }}\"", "key: \"{{ lookup('env', 'X') }}\""),
        ("secret: \"{{ lookup('env', 'X') }}\"", "secret: \"{{ lookup('env', 'X') }}\""),
        ('secret: !unsafe "{{ x\ny }}"\nz: 1', "secret: <secret>\n<secret>\nz: 1"),
    ],
)
def test_what_is_named_like_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked(text.split("\n")) == shown.split("\n")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except OSError:
        pytest.skip("only root makes a device, and not everywhere")


@pytest.mark.parametrize("make", [_fifo, _socket, _device, Path.mkdir])
def test_what_is_no_file_is_named_and_not_opened(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "a.yml").write_text("theirs")
    make(tmp_path / "b/c/d.env")
    before = (tmp_path / "b/c/d.env").lstat()
    for act in (write, difference):
        with pytest.raises(WriteError, match=r"d\.env is a .*, and a file has to be there\. No file was changed"):
            act(FILES, tmp_path)  # type: ignore[operator]
    assert tree(tmp_path) == {"a.yml": "theirs"}
    after = (tmp_path / "b/c/d.env").lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert {path.name for path in tmp_path.rglob("*")} == {"a.yml", "b", "c", "d.env"}


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_file_behind_a_link_keeps_its_mode_and_its_text(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "theirs").write_text(FILES["a.yml"])
    (tmp_path / "theirs").chmod(0o644)
    link(out / "a.yml", tmp_path / "theirs")
    assert write(FILES, out).written == tuple(FILES)
    assert mode(tmp_path / "theirs") == 0o644
    assert mode(out / "a.yml") == 0o600
    assert not (out / "a.yml").is_symlink()
    assert not (out / "a.yml").samefile(tmp_path / "theirs")
    assert tree(out) == FILES


def test_a_link_to_an_endless_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.yml").symlink_to("/dev/zero")
    write({"a.yml": "ours"}, tmp_path)
    assert tree(tmp_path) == {"a.yml": "ours"}


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize("error", [OSError(16, "Device or resource busy"), KeyboardInterrupt()])
def test_where_one_can_not_be_replaced_the_others_are_put_back(
    error: BaseException, hard_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a mount point or an immutable file: here the call fails for the last of them."""
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "a.yml").write_text("old")
    (tmp_path / "a.yml").chmod(0o640)
    (tmp_path / "link.yml").symlink_to("target")
    before = {path.name: (path.lstat().st_ino, path.lstat().st_mode) for path in tmp_path.iterdir()}
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "z.yml":
            raise error
        return replace(self, target)

    def no_link(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", fail)
    if not hard_links:
        monkeypatch.setattr(os, "link", no_link)
    files = {"a.yml": "new", "link.yml": "new", "new/one.yml": "new", "z.yml": "new"}
    with pytest.raises(WriteError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write(files, tmp_path)
    assert "No file was changed" in str(caught.value) or isinstance(error, KeyboardInterrupt)
    assert {path.name: (path.lstat().st_ino, path.lstat().st_mode) for path in tmp_path.iterdir()} == before
    assert (tmp_path / "a.yml").read_text() == "old"
    assert (tmp_path / "link.yml").readlink() == Path("target")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("place", ["fsync", "link", "unlink"])
def test_a_signal_waits_until_all_is_written(
    place: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGTERM, of systemd, `timeout` or CI, the process would end there and then."""
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text("old")
    real, said = getattr(os, place), []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if not said:
            os.kill(os.getpid(), number)
        said.append(arguments)
        return real(*arguments, **named)

    def end(*_: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(number, end)
    monkeypatch.setattr(os, place, interrupted)
    try:
        with pytest.raises(SystemExit):
            write({"a.yml": "new", "b.yml": "new"}, tmp_path)
    finally:
        signal.signal(number, before)
    assert said
    assert tree(tmp_path) == {"a.yml": "new", "b.yml": "new"}


def test_what_could_not_be_put_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yml").write_text("old")
    replace, calls = Path.replace, []

    def only_once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", only_once)
    with pytest.raises(WriteError, match=r"could not be put back: .*/a\.yml\. Mend that") as caught:
        write({"a.yml": "new", "b.yml": "new"}, tmp_path)
    assert "No file was changed" not in str(caught.value)
