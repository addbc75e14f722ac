"""`synapse-media cost` as people run it: through the command's own main."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest

from synapse_media.cli import main
from tests.cli.shapes import answer

MEDIUM = ["--stored", "400GB", "--growth", "10GB/month", "--egress", "50GB/month", "--files", "900k"]
DATE = ["--date", "2026-11-23"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["cost", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    top = tmp_path / "media_store"
    for folder, files, size in (
        ("local_content", 20, 10**6),
        ("local_thumbnails", 100, 10_000),
        ("url_cache", 5, 5000),
    ):
        place = top / folder / "aa" / "bb"
        place.mkdir(parents=True)
        for number in range(files):
            with (place / str(number)).open("wb") as file:
                file.truncate(size)
            day = 86_400 * (number % 50)
            stamp = date(2026, 1, 1).toordinal() * 86_400 - day
            os.utime(place / str(number), (stamp, stamp))
    return top


@pytest.mark.usefixtures("wide")
def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *MEDIUM, *DATE)
    assert (code, err) == (0, "")
    assert "400 GB stored, 10 GB more a month, 50 GB read a month, 900,000 files; prices as known on 2026-11-23." in out
    rows = [line.split() for line in out.splitlines()]
    assert ["Backblaze", "B2", "?", "2.71", "37.11", "0.00", "0.00", "storage"] in rows
    assert out.index("Backblaze B2") < out.index("Wasabi") < out.index("Hetzner")
    assert "Backblaze B2 is the cheapest below 873.3 GB, IDrive e2 from there" in out


@pytest.mark.usefixtures("wide")
def test_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *MEDIUM, *DATE, "--lines", "--provider", "backblaze_b2")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["free", "storage", "10", "GB", "-0.0695"] in rows
    assert ["total", "2.7105"] in rows
    assert "Backblaze B2, the first year" in out
    assert ["total", "37.1130"] in rows


@pytest.mark.usefixtures("wide")
def test_near(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *MEDIUM, *DATE, "--near", "52.5,13.4")
    assert code == 0
    assert "fra1 (Frankfurt), 422 km" in out
    assert "us-east-1" not in out
    # Not taken for an option of its own.
    code, out, _ = run(capsys, *MEDIUM, *DATE, "--near", "-33.9,151.2")
    assert code == 0
    assert "ap-southeast-2 (Sydney), 0 km" in out
    assert "the price is that of us-east-1; that of ap-southeast-2 is not in the catalog" in out


@pytest.mark.usefixtures("wide")
def test_what_is_not_compared_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    word = "Not compared, since the catalog has no price for them: OVHcloud Object Storage STANDARD_IA."
    assert word in run(capsys, *MEDIUM, *DATE, "--provider", "ovhcloud")[1]
    assert "Not compared" not in run(capsys, *MEDIUM, *DATE, "--provider", "ovhcloud", "--class", "STANDARD")[1]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *MEDIUM, *DATE, "--json", "--provider", "wasabi", "--deleted", "10GB/month")
    found = answer("cost", out)
    assert (code, err) == (0, "")
    (wasabi,) = found["currencies"]["USD"]
    assert wasabi["month"]["dominant"] == "minimum storage"
    assert {line["what"] for line in wasabi["month"]["lines"]} >= {"deleted 90 days early"}
    assert found["measured"] is None


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *MEDIUM, *DATE, "--markdown", "--provider", "storj")
    assert code == 0
    assert "| Storj Standard | 5.00 | 60.00 | 0.95 | 0.98 | storage |" in out


def test_small_files(capsys: pytest.CaptureFixture[str]) -> None:
    # 600k × (50000 - 15000) bytes = 21 GB × 0.007 = 0.147
    code, out, _ = run(
        capsys, *MEDIUM, *DATE, "--small-files", "600k", "--small-size", "15kB", "--provider", "storj", "--json"
    )
    assert code == 0
    lines = json.loads(out)["currencies"]["USD"][0]["month"]["lines"]
    assert {"term": "minimum object size", "what": "small files", "quantity": "21 GB", "amount": "0.1470"} in lines


def test_requests_given(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "--stored", "100GiB", "--uploads", "200k/month", "--downloads", "1M/month", "--json", *DATE,
        "--provider", "amazon_s3", "--class", "STANDARD",
    )  # fmt: skip
    assert code == 0
    us_east = json.loads(out)["currencies"]["USD"][0]
    # 2.30 + 200 × 0.005 + 1000 × 0.0004
    assert us_east["month"]["total"] == "3.7000"


@pytest.mark.usefixtures("wide")
def test_measured(capsys: pytest.CaptureFixture[str], media: Path) -> None:
    code, out, _ = run(capsys, "--media", str(media), "--egress", "1GB/month", *DATE)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["local_content", "20", "20", "MB", "yes"] in rows
    assert ["url_cache", "5", "25", "kB", "no"] in rows
    assert "21 MB stored" in out
    assert "120 files" in out


def test_measured_as_json(capsys: pytest.CaptureFixture[str], media: Path) -> None:
    (media / "local_content" / "loop").symlink_to(media)
    code, out, _ = run(capsys, "--media", str(media), "--growth", "1GB/month", "--json", *DATE)
    found = json.loads(out)
    assert code == 0
    assert found["measured"]["folders"]["local_thumbnails"] == {"files": 100, "bytes": 10**6, "stored": True}
    assert found["measured"]["not_counted"] == 1
    assert found["usage"]["growth_bytes_per_month"] == 10**9
    # 100 thumbnails of 10 kB are billed as 50 kB each at Storj: 4 MB more, within the GB that is rounded up to.
    assert found["usage"]["files"] == 120


def test_a_file_of_prices(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(
        '{"wasabi": [{"terms": {"minimum_storage": {"value": {"amount": "0", "per": "TB"}}}}]}', encoding="utf-8"
    )
    code, out, _ = run(capsys, "--stored", "512GiB", "--provider", "wasabi", "--json", "--prices", str(path), *DATE)
    assert code == 0
    # Half a TiB × 7.99
    assert json.loads(out)["currencies"]["USD"][0]["month"]["total"] == "3.9950"


def test_pictures_and_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path, media: Path) -> None:
    place, page = tmp_path / "pictures", tmp_path / "cost.html"
    code, _, err = run(
        capsys,
        "--media",
        str(media),
        *DATE,
        "--provider",
        "backblaze_b2",
        "--picture",
        str(place),
        "--report",
        str(page),
    )
    assert code == 0
    assert err.splitlines()[-1] == f"wrote {page}"
    assert len(list(place.iterdir())) == 6
    assert "local_thumbnails" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("wide")
def test_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run(capsys, "--fit", "--near", "52.5,13.4")
    assert code == 0
    assert "cannot" in out
    for title in ("Amazon S3", "Garage", "Storj", "MinIO"):
        assert title in out
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "--fit", "--provider", "storj")
    assert code == 0
    assert len(out.splitlines()) < 20
    assert "cannot         • deny delete" in out
    code, out, _ = run(capsys, "--fit", "--json", "--provider", "storj")
    assert answer("cost", out)["fit"][0]["layout"] == "distributed"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "Say what is stored"),
        (["--stored=-5GB"], "can't be negative"),
        (["--stored", "-5GB"], "can't be negative"),
        (["--stored", "400GB", "--growth", "-1GB/month"], "can't be negative"),
        (["--stored", "400GB", "--growth", "1000PB/day"], "at most 1000 PB a month"),
        (["--stored", "1GB", "--deleted", "900PB/month"], "--deleted '900PB/month'"),
        (["--stored", "400GB", "--files", "0"], "--files '0'"),
        (["--stored", "400GB", "--uploads", "1000000M/day"], "at most 1000000M a month"),
        (["--stored", "400"], "Add the unit"),
        (["--stored", "2000000TB"], "at most 1000 PB"),
        (["--stored", "400GB", "--growth", "10GB"], "Write 10GB/month"),
        (["--stored", "400GB/month"], "remove what follows"),
        (["--stored", "400GB 3GiB"], "one number with one unit"),
        (["--stored", "400GB", "--files", "900kB"], "no unit of size"),
        (["--stored", "1kB", "--files", "2k"], "one byte per file"),
        (["--stored", "400GB", "--uploads", "5"], "Write 5/month"),
        (["--stored", "400GB", "--deleted-age", "x"], "--deleted-age"),
        (["--stored", "400GB", "--provider", "backblaze"], "Did you mean 'backblaze_b2'"),
        (["--stored", "400GB", "--class", "COLD"], "--class 'COLD'"),
        (["--stored", "400GB", "--near", "north"], "--near"),
        (["--stored", "400GB", "--date", "yesterday"], "--date"),
        (["--stored", "400GB", "--date", "20261123"], "--date"),
        (["--stored", "400GB", "--date", "2026-02-30"], "--date"),
        (["--stored", "400GB", "--prices", "/nowhere/prices.json"], "can't be read"),
        (["--stored", "400GB", "--media", "/tmp"], "--stored and --media don't go together"),
        (["--media", "/nowhere"], "can't be read"),
        (["--media", "/etc"], "is not a media directory"),
        (["--stored", "400GB", "--small-files", "5"], "go together"),
        (["--stored", "400GB", "--small-files", "5", "--small-size", "1kB"], "go together"),
        (["--stored", "4GB", "--files", "10", "--small-files", "11", "--small-size", "1kB"], "at most --files"),
        (["--stored", "4GB", "--files", "9", "--small-files", "9", "--small-size", "5kB"], "Check the three numbers"),
        (["--stored", "4GB", "--files", "9", "--small-files", "8", "--small-size", "0B"], "--small-size '0B'"),
        (["--stored", "4GB", "--files", "10", "--small-files", "9", "--small-size", "1GB"], "are more than --stored"),
        (["--stored", "9kB", "--files", "10", "--small-files", "9", "--small-size", "1kB"], "Check the three numbers"),
        (["--stored", "4GB", "--files", "10", "--small-files", "1", "--small-size", "1GB"], "smaller still"),
        (["--fit", "--report", "x.html"], "--fit and --report"),
        (["--fit", "--provider", "nobody"], "--provider 'nobody': allowed is one of akamai, amazon_s3"),
        (["--fit", "--class", "NOPE"], "--fit and --class"),
        (["--fit", "--stored=-5GB"], "--fit and --stored"),
        (["--fit", "--prices", "/nowhere"], "--fit and --prices"),
        (["--fit", "--media", "/nowhere"], "--fit and --media"),
        (["--fit", "--lines"], "--fit and --lines"),
        (["--stored", "400GB", "--report", "homeserver.yaml"], "a file whose name ends in .html"),
        (["--stored", "400GB", "--class", "GLACIER_IR"], "Give your own with --prices FILE"),
    ],
)
def test_a_clear_word(capsys: pytest.CaptureFixture[str], arguments: list[str], word: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 64
    assert out == ""
    assert err.startswith("synapse-media cost: ")
    assert word in err
    assert "Traceback" not in err


def test_neither_pulumi_nor_boto_nor_matplotlib_is_asked_for() -> None:
    script = (
        "import sys\n"
        "from synapse_media.cli import main\n"
        "code = main(['cost', '--stored', '1GB', '--json'])\n"
        "slow = {'pulumi', 'boto3', 'botocore', 'b2sdk', 'matplotlib', 'grpc', 'yaml'} & set(sys.modules)\n"
        "sys.exit(code or (str(slow) if slow else 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["format_version"] == 1


def test_the_progress_is_silent_off_a_terminal(capsys: pytest.CaptureFixture[str], media: Path) -> None:
    from synapse_media.cli.cost import _Progress

    with _Progress() as progress:
        progress.started -= 60
        progress.seen(1000)
    assert progress.bar is None
    assert run(capsys, "--media", str(media), "--json")[2] == ""


def test_the_progress_is_shown_on_a_terminal_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real pseudo terminal in place of stderr."""
    from synapse_media.cli.cost import _Progress

    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with _Progress() as progress:
            progress.seen(1000)
            assert progress.bar is None
            progress.started -= 3
            progress.seen(2000)
            progress.seen(123_000)
    shown = b""
    # The other end is closed: what it wrote can be read, then Linux says so by an error.
    with suppress(OSError):
        while more := os.read(ours, 65_536):
            shown += more
    os.close(ours)
    assert b"counting" in shown
    assert b"123,000" in shown
