"""The command on a bucket of the vendor's plugin: what it looks at because the plugin doesn't."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main
from synapse_media.engine import session
from tests.providers.project import stack
from tests.providers.test_digitalocean_spaces import BUCKET, Cloud
from tests.providers.test_digitalocean_spaces import cloud as cloud  # noqa: PLC0414 - a fixture
from tests.providers.test_digitalocean_spaces import rest as rest  # noqa: PLC0414 - a fixture
from tests.providers.test_digitalocean_spaces import store as store  # noqa: PLC0414 - a fixture


@pytest.fixture
def made(tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stack that the command works on, where CreateBucket answers 200 to whoever owns the bucket."""
    environment = {**cloud.environment, "STAND_IN_DIGITALOCEAN_OWNER_MAY_CREATE_AGAIN": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # The stand-in's own settings: pulumi gets nothing that no provider names.
    monkeypatch.setattr(session, "PASSED", re.compile(rf"{session.PASSED.pattern}|STAND_IN_\w+"))
    project = tmp_path / "project"
    project.mkdir()
    found = stack(project, "spaces-command", environment)
    monkeypatch.chdir(project)
    return found


def test_a_bucket_that_is_there_is_not_taken_over(made: Any, cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    s3 = cloud.s3()
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "fra1"})
    s3.put_object(Bucket=BUCKET, Key="somebody's", Body=b"file")
    made.store((), **cloud.settings())
    assert main(["up", "--stack", made.name, "--yes"]) == 1
    assert "It was not changed" in capfd.readouterr().err
    assert s3.get_object(Bucket=BUCKET, Key="somebody's")["Body"].read() == b"file"
    assert not s3.get_bucket_versioning(Bucket=BUCKET).get("Status")
    s3.delete_object(Bucket=BUCKET, Key="somebody's")
    s3.delete_bucket(Bucket=BUCKET)


def test_a_bucket_that_is_gone_does_not_keep_a_stack_from_its_end(
    made: Any, cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    made.store((), **cloud.settings())
    assert main(["up", "--stack", made.name, "--yes"]) == 0, capfd.readouterr()
    s3 = cloud.s3()
    found = s3.list_object_versions(Bucket=BUCKET)
    for version in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]:
        s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    s3.delete_bucket(Bucket=BUCKET)
    made.store(["delete-bucket"], **cloud.settings())
    assert main(["destroy", "--stack", made.name, "--yes"]) == 0, capfd.readouterr()
    assert not cloud.api.keys


def test_another_name_for_the_bucket_keeps_the_old_ones_media(
    made: Any, cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    made.store((), **cloud.settings())
    assert main(["up", "--stack", made.name, "--yes"]) == 0, capfd.readouterr()
    s3 = cloud.s3()
    s3.put_object(Bucket=BUCKET, Key="local_content/photo", Body=b"photo")
    words = ["replace-bucket", "delete-bucket", "widen-policy", "narrow-policy", "retire-key"]
    made.store(words, **cloud.settings(bucket=f"{BUCKET}-2"))
    assert main(["up", "--stack", made.name, "--yes"]) == 1
    assert "holds media" in capfd.readouterr().err
    made.store([*words, "retain-bucket"], **cloud.settings(bucket=f"{BUCKET}-2"))
    assert main(["up", "--stack", made.name, "--yes"]) == 0, capfd.readouterr()
    assert s3.get_object(Bucket=BUCKET, Key="local_content/photo")["Body"].read() == b"photo"
    assert main(["diff", "--stack", made.name]) == 0
    made.store(["delete-bucket"], **cloud.settings(bucket=f"{BUCKET}-2"))
    assert main(["destroy", "--stack", made.name, "--yes"]) == 0, capfd.readouterr()
    assert s3.get_object(Bucket=BUCKET, Key="local_content/photo")["Body"].read() == b"photo"
