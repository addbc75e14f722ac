"""`make up`, `make down` and `make clean`: the commands behind them, on the real engine and the real store."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_media import stackfile
from synapse_media.cli import embedded as command
from synapse_media.cli import main
from synapse_media.engine import embedded
from tests.cli.shapes import answer
from tests.media.worlds import administrator
from tests.providers.project import stack


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project, with a separate state directory that holds another stack as well."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "project").mkdir()
    stack(tmp_path / "project", "another", {})
    monkeypatch.chdir(tmp_path / "project")
    yield tmp_path / "project"
    embedded.wipe()


def test_up_again_another_method_down_and_clean(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["embedded", "up"]) == 0
    printed = capfd.readouterr().out
    for expected in (
        "bucket     matrix-example-com-media at http://127.0.0.1:",
        "may not    ",
        "init prod",
    ):
        assert expected in printed
    # What exists, then what is next: once, and not for each form.
    assert printed.count("Next:") == 1
    assert printed.index("may not    ") < printed.index("Next:")
    assert "To apply:" not in printed
    assert "is new. Render" in printed
    assert "warning" not in printed
    assert main(["embedded", "env"]) == 0
    lines = capfd.readouterr().out
    # Plain pulumi has what it needs to ask the store.
    plain = "pulumi refresh --yes --expect-no-changes --suppress-outputs --stack embedded"
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "S3_"))}
    own |= {"PULUMI_IGNORE_AMBIENT_PLUGINS": "true"}
    subprocess.run(["bash", "-euc", f"{lines}\n{plain}"], check=True, cwd=project, env=own)
    capfd.readouterr()
    rendered = project / "out/embedded"
    drop_in = rendered / "plain/matrix.example.com/conf.d/synapse-media.yaml"
    first = (drop_in.read_bytes(), drop_in.stat().st_mtime_ns)
    assert drop_in.stat().st_mode & 0o777 == 0o600

    assert main(["embedded", "up"]) == 0
    assert "no changes" in capfd.readouterr().err
    assert (drop_in.read_bytes(), drop_in.stat().st_mtime_ns) == first

    assert main(["embedded", "up", "--method", "goofys"]) == 0
    assert (
        not (rendered / "plain/matrix.example.com/INSTALL.md")
        .read_text()
        .startswith("# matrix.example.com: media on S3 with synapse")
    )
    store = json.loads((rendered / "plain/matrix.example.com/store.json").read_text())
    assert store["method"] == "goofys"
    assert not (rendered / "plain/matrix.example.com/docker").exists()

    assert main(["embedded", "stop"]) == 0
    capfd.readouterr()
    assert main(["embedded", "stop", "--json"]) == 0
    assert answer("embedded", capfd.readouterr().out)["stopped"] is False
    assert main(["embedded", "status"]) == 1
    assert main(["diff", "--stack", "embedded"]) == 1
    assert "start it with" in capfd.readouterr().err
    assert main(["embedded", "up", "--json"]) == 0
    printed = capfd.readouterr()
    assert "no changes" in printed.err
    found = answer("embedded", printed.out)
    assert found["stores"][command.SERVER_NAME]["method"] == "goofys"
    assert found["rendered"] == str(rendered)

    assert main(["embedded", "clean"]) == 1
    assert "YES=embedded answers" in capfd.readouterr().err
    assert rendered.exists()
    monkeypatch.setenv("YES", "embedded")
    assert main(["embedded", "clean", "--json"]) == 0
    assert answer("embedded", capfd.readouterr().out)["deleted"] is True
    assert embedded.status() is None
    assert not rendered.exists()
    assert not (project / "stacks/Pulumi.embedded.yaml").exists()
    state = project.parent / "state/synapse-media"
    assert [path.name for path in state.rglob("another*.json")]
    assert (state / "passphrase").exists()
    for place in ("backend", "pulumi-home", "unfinished"):
        assert list((state / place).rglob("*embedded*")) == []


def test_a_server_that_moves_keeps_its_stack(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["embedded", "up"]) == 0
    stored = project / "out/embedded/plain/matrix.example.com/store.json"
    key = json.loads(stored.read_text())["access_key_id"]
    capfd.readouterr()
    assert main(["embedded", "up", "--tls"]) == 0, capfd.readouterr().err
    moved = json.loads(stored.read_text())
    assert moved["endpoint_url"].startswith("https://")
    assert moved["access_key_id"] == key
    assert main(["diff", "--stack", "embedded", "--refresh"]) == 0


def test_clean_takes_the_stack_along_where_its_file_is_missing(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["embedded", "up"]) == 0
    (project / "stacks/Pulumi.embedded.yaml").unlink()
    assert main(["embedded", "clean", "--yes"]) == 0
    assert main(["embedded", "up"]) == 0
    assert "the last run did not come to its end" not in capfd.readouterr().err


def test_clean_deletes_no_bucket_that_was_not_named(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["embedded", "up"]) == 0
    running = embedded.status()
    assert running is not None
    monkeypatch.setenv("S3_ACCESS_KEY_ID", running.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", running.secret_access_key)
    s3 = administrator(running).client("s3")
    s3.create_bucket(Bucket="taken-over")
    another = {
        "provider": "s3_compatible",
        "endpoint": running.endpoint,
        "iam_endpoint": running.iam_endpoint,
        "bucket": "of-another",
        "method": "synapse-s3-storage-provider",
        "settle_seconds": 0,
    }
    with stackfile.editing(project / "stacks/Pulumi.another.yaml") as document:
        document["config"] = {
            "synapse-media:stores": {
                "chat.example.org": another,
                "old.example.org": {**another, "bucket": "taken-over", "adopt": True},
            },
            "synapse-media:allow": [
                "chat.example.org/delete-bucket",
                "chat.example.org/delete-media",
                "old.example.org/retain-bucket",
            ],
        }
    assert main(["up", "--stack", "another", "--yes"]) == 0
    s3.create_bucket(Bucket="by-hand")
    for bucket in ("of-another", "by-hand", "taken-over"):
        s3.put_object(Bucket=bucket, Key="local_content/photo", Body=b"photo")

    def refusal(*arguments: str) -> str:
        capfd.readouterr()
        assert main(["embedded", "clean", "--yes", *arguments]) == 1
        told = capfd.readouterr().err
        assert "nothing was deleted" in told
        for bucket in ("of-another", "by-hand", "taken-over"):
            assert s3.get_object(Bucket=bucket, Key="local_content/photo")["Body"].read() == b"photo"
        assert embedded.status() == running
        return told

    told = refusal()
    assert "by-hand (no stack here), of-another (stack another), taken-over (stack another)" in told
    assert "`synapse-media destroy --stack another`" in told
    assert "`synapse-media embedded clean --bucket by-hand --bucket of-another --bucket taken-over`" in told
    told = refusal("--bucket", "by-hand")
    assert "of-another (stack another), taken-over (stack another)" in told
    assert "by-hand (" not in told
    assert main(["embedded", "clean", "--yes", "--bucket", "by-hand", "--bucket", "mistyped"]) == 64
    assert "--bucket mistyped: the embedded server has no such bucket" in capfd.readouterr().err
    # Its own advice, to the end.
    assert main(["destroy", "--stack", "another", "--yes"]) == 0
    assert main(["embedded", "clean", "--yes", "--bucket", "by-hand", "--bucket", "taken-over"]) == 0
    assert embedded.status() is None
    assert embedded.buckets() == []


def test_clean_refuses_where_the_server_does_not_run(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["embedded", "up"]) == 0
    running = embedded.status()
    assert running is not None
    (running.data_dir / "by-hand").mkdir()
    assert main(["embedded", "stop"]) == 0
    assert main(["embedded", "clean", "--yes"]) == 1
    assert "by-hand (no stack here)" in capfd.readouterr().err
    assert (running.data_dir / "by-hand").is_dir()
    assert main(["embedded", "clean", "--yes", "--bucket", "by-hand"]) == 0
    assert not running.data_dir.exists()


def test_media_stays_with_its_key_until_the_stack_file_lets_it_go(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["embedded", "up"]) == 0
    running = embedded.status()
    assert running is not None
    file = project / "out/embedded/plain/matrix.example.com/store.json"
    s3 = administrator(running).client("s3")
    s3.put_object(Bucket=command.BUCKET, Key="local_content/photo", Body=b"photo")
    assert main(["embedded", "up", "--method", "filesystem"]) == 1
    printed = capfd.readouterr()
    assert "holds media" in printed.err
    assert main(["prove", "--store", str(file)]) == 0

    with stackfile.editing(project / "stacks/Pulumi.embedded.yaml") as document:
        document["config"]["synapse-media:allow"].append(f"{command.SERVER_NAME}/delete-media")
    assert main(["embedded", "up", "--method", "synapse-s3-storage-provider"]) == 0
    assert main(["embedded", "up", "--method", "filesystem"]) == 0
    assert s3.list_buckets()["Buckets"] == []


def test_up_over_tls(project: Path) -> None:
    assert main(["embedded", "up", "--tls"]) == 0
    store = json.loads((project / "out/embedded/plain" / command.SERVER_NAME / "store.json").read_text())
    assert store["endpoint_url"].startswith("https://")
    assert Path(store["ca_file"]).is_file()
    assert all(line["outcome"] == line["expected"] for line in store["proof"]["lines"])
