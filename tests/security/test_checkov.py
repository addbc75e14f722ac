"""checkov's rules, run by checkov itself on what the program declares for Amazon S3.

The lock is made with: uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
--no-build tests/security/checkov.in -o tests/security/checkov.lock
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end import built
from tests.providers.mocked import declare
from tests.security.terraform_plan import plan

HERE = Path(__file__).parent
KMS = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

MISSION = {
    "CKV_AWS_273": "a homeserver outside Amazon has no other identity than a user; keyless: true has none",
    "CKV_AWS_40": "one user, one policy: a group of one member would hide who may do what",
    "CKV2_AWS_62": "nobody listens to events of a media store",
    "CKV_AWS_144": "a second region doubles the price; versions are kept instead",
}
"""Rules that contradict what this is for, and why."""
BY_OPTION = {
    "CKV_AWS_18": "log_bucket: the log needs a bucket of its own",
    "CKV_AWS_145": "kms_key: AES-256 by Amazon's keys costs nothing per request",
}
"""Rules that hold once the stack file asks for it."""
HELD = {
    "CKV2_AWS_22",
    "CKV2_AWS_40",
    "CKV2_AWS_6",
    "CKV2_AWS_61",
    "CKV_AWS_19",
    "CKV_AWS_20",
    "CKV_AWS_21",
    "CKV_AWS_53",
    "CKV_AWS_54",
    "CKV_AWS_55",
    "CKV_AWS_56",
    "CKV_AWS_57",
    "CKV_AWS_70",
    "CKV_AWS_93",
    "CKV_AWS_300",
    "CKV_AWS_286",
    "CKV_AWS_287",
    "CKV_AWS_288",
    "CKV_AWS_289",
    "CKV_AWS_290",
    "CKV_AWS_355",
    "CKV_AWS_62",
    "CKV_AWS_63",
}
"""Rules that must not only not fail, but have been looked at."""
HELD_BY_ROLE = {"CKV2_AWS_56", "CKV_AWS_274", "CKV_AWS_60", "CKV_AWS_61"}
"""Beside HELD, with keyless: true: rules about roles and what is attached to them."""
NOT_ASKED = {
    "CKV_AWS_375": ("aws_s3_bucket_acl", "BucketOwnerEnforced switches access lists off"),
    "CKV_AWS_379": ("aws_s3_bucket_acl", "the bucket's policy refuses plain http"),
    "CKV2_AWS_43": ("aws_s3_bucket_acl", "BucketOwnerEnforced switches access lists off"),
    "CKV_AWS_348": ("aws_iam_access_key", "the key ring makes keys of its own user only, and root has none of ours"),
    "CKV_AWS_274": ("aws_iam_user_policy_attachment", "one inline policy, no managed one"),
    "CKV2_AWS_56": ("aws_iam_user_policy_attachment", "one inline policy, no managed one"),
    "CKV_AWS_275": ("aws_iam_policy", "one inline policy, no managed one"),
    "CKV2_AWS_14": ("aws_iam_group", "there is no group: see CKV_AWS_40"),
    "CKV2_AWS_21": ("aws_iam_group_membership", "there is no group: see CKV_AWS_40"),
}
"""Rules that find nothing to look at where a user has a key: the type they look at, and what stands for them."""


def _plan(**more: Any) -> dict[str, Any]:
    settings = {
        "provider": "amazon_s3",
        "region": "eu-central-1",
        "bucket": "example-com-media",
        "method": "synapse-s3-storage-provider",
        **more,
    }
    return plan(declare({"matrix.example.com": settings}))


def _laid_open() -> dict[str, Any]:
    """What the program would never declare: the control that the rules bite."""
    opened = _plan()
    for resource in opened["planned_values"]["root_module"]["resources"]:
        if resource["type"] == "aws_s3_bucket_public_access_block":
            resource["values"]["block_public_acls"] = False
        if resource["type"] == "aws_iam_user_policy":
            statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
            resource["values"]["policy"] = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    opened["resource_changes"] = [
        {**change, "change": {**change["change"], "after": resource["values"]}}
        for change, resource in zip(
            opened["resource_changes"], opened["planned_values"]["root_module"]["resources"], strict=True
        )
    ]
    return opened


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """{plan: {"passed": rules, "failed": rules}}; all in one run of checkov, which needs no network."""
    folder = tmp_path_factory.mktemp("plans")
    plans = {
        "key": _plan(),
        "role": _plan(keyless=True),
        "options": _plan(kms_key=KMS, log_bucket="example-com-logs"),
        "open": _laid_open(),
    }
    for name, content in plans.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    python = built.python_environment("checkov", HERE / "checkov.lock")
    command = [str(python), "-m", "checkov.main", "--framework", "terraform_plan", "-o", "json", "--skip-download"]
    files = [word for name in plans for word in ("-f", str(folder / f"{name}.json"))]
    environment = {"PATH": str(python.parent), "HOME": str(folder), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [*command, "--soft-fail", *files], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    answer = json.loads(done.stdout)
    found: dict[str, dict[str, set[str]]] = {name: {"passed": set(), "failed": set()} for name in plans}
    for outcome in ("passed", "failed"):
        for check in answer["results"][f"{outcome}_checks"]:
            found[Path(check["file_path"]).stem][outcome].add(check["check_id"])
    return found


def test_what_fails_contradicts_the_mission_or_waits_for_an_option(results: dict[str, dict[str, set[str]]]) -> None:
    assert results["key"]["failed"] == {*MISSION, *BY_OPTION}
    assert results["options"]["failed"] == {*MISSION}
    assert results["role"]["failed"] == {*MISSION, *BY_OPTION} - {"CKV_AWS_273", "CKV_AWS_40"}


def test_what_holds_was_looked_at(results: dict[str, dict[str, set[str]]]) -> None:
    assert results["key"]["passed"] >= HELD
    assert results["options"]["passed"] >= HELD | set(BY_OPTION)
    assert results["role"]["passed"] >= (HELD - {"CKV2_AWS_22"}) | HELD_BY_ROLE


def test_what_was_not_looked_at_is_of_a_type_that_is_not_made(results: dict[str, dict[str, set[str]]]) -> None:
    made = {resource["type"] for resource in _plan()["planned_values"]["root_module"]["resources"]}
    assert not made & {kind for kind, _ in NOT_ASKED.values()}
    assert not set(NOT_ASKED) & (results["key"]["passed"] | results["key"]["failed"])


def test_the_rules_bite(results: dict[str, dict[str, set[str]]]) -> None:
    assert results["open"]["failed"] >= {
        "CKV2_AWS_40",
        "CKV_AWS_53",
        "CKV2_AWS_6",
        "CKV_AWS_62",
        "CKV_AWS_63",
        "CKV_AWS_355",
    }
