"""What an environment lacks for the state of a stack: by the backend and the stack file's `secretsprovider`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synapse_media.engine.access import access

CLOUD = "https://api.pulumi.com"
SALT = {"encryptionsalt": "v1:abc"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: media\nruntime: python\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("stack_file", "environment"),
    [
        # A passphrase, with a backend of one's own.
        (SALT, {"PULUMI_BACKEND_URL": "file:///state", "PULUMI_CONFIG_PASSPHRASE": "p"}),
        ({}, {"PULUMI_BACKEND_URL": "file:///state", "PULUMI_CONFIG_PASSPHRASE_FILE": "/p"}),
        # The service's own key: no passphrase at all.
        ({}, {"PULUMI_BACKEND_URL": CLOUD, "PULUMI_ACCESS_TOKEN": "t"}),
        (SALT, {"PULUMI_BACKEND_URL": CLOUD, "PULUMI_ACCESS_TOKEN": "t", "PULUMI_CONFIG_PASSPHRASE": "p"}),
        # A KMS: no passphrase either.
        (
            {"secretsprovider": "awskms://alias/media?region=eu-central-1"},
            {"PULUMI_BACKEND_URL": "s3://state", "AWS_ACCESS_KEY_ID": "a", "AWS_SESSION_TOKEN": "s"},
        ),
        (
            {"secretsprovider": "awskms://alias/media"},
            {"PULUMI_BACKEND_URL": "s3://state", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"},
        ),
        (
            {"secretsprovider": "hashivault://media"},
            {"PULUMI_BACKEND_URL": "file:///state", "VAULT_SERVER_TOKEN": "t"},
        ),
    ],
)
def test_nothing_is_lacking(project: Path, stack_file: dict[str, Any], environment: dict[str, str]) -> None:
    found = access(project, stack_file, environment)
    assert found.lacks == ()
    assert found.perhaps == ()


@pytest.mark.parametrize(
    ("stack_file", "environment", "told"),
    [
        ({}, {"PULUMI_CONFIG_PASSPHRASE": "p"}, "PULUMI_BACKEND_URL"),
        (SALT, {"PULUMI_BACKEND_URL": "file:///state", "PULUMI_CONFIG_PASSPHRASE": ""}, "PULUMI_CONFIG_PASSPHRASE"),
        ({}, {"PULUMI_BACKEND_URL": "file:///state"}, "PULUMI_CONFIG_PASSPHRASE"),
        (
            {"secretsprovider": "passphrase"},
            {"PULUMI_BACKEND_URL": CLOUD, "PULUMI_ACCESS_TOKEN": "t"},
            "PULUMI_CONFIG_PASSPHRASE",
        ),
        ({}, {"PULUMI_BACKEND_URL": CLOUD, "PULUMI_ACCESS_TOKEN": ""}, "PULUMI_ACCESS_TOKEN"),
    ],
)
def test_what_is_lacking_is_told(
    project: Path, stack_file: dict[str, Any], environment: dict[str, str], told: str
) -> None:
    (lacking,) = access(project, stack_file, environment).lacks
    assert told in lacking


@pytest.mark.parametrize(
    ("stack_file", "backend", "told"),
    [
        ({"secretsprovider": "awskms://alias/media"}, "file:///state", "awskms"),
        (SALT, "s3://state", "s3://"),
        ({"secretsprovider": "gcpkms://projects/p"}, "gs://state", "GOOGLE_"),
    ],
)
def test_what_the_machine_may_have_otherwise_is_pulumi_s_to_say(
    project: Path, stack_file: dict[str, Any], backend: str, told: str
) -> None:
    found = access(project, stack_file, {"PULUMI_BACKEND_URL": backend, "PULUMI_CONFIG_PASSPHRASE": "p"})
    assert found.lacks == ()
    assert told in " ".join(found.perhaps)


def test_a_backend_that_pulumi_yaml_names_counts(project: Path) -> None:
    (project / "Pulumi.yaml").write_text(f"name: media\nbackend: {{url: {CLOUD}}}\n", encoding="utf-8")
    assert access(project, {}, {"PULUMI_ACCESS_TOKEN": "t"}).lacks == ()
    (lacking,) = access(project, {}, {}).lacks
    assert "PULUMI_ACCESS_TOKEN" in lacking
