"""What `make bench` has Terraform make is generated from our settings; where it is missing, it is said what is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components import policies
from synapse_media.methods import METHODS
from synapse_media.settings import parse
from tests.bench import beside
from tests.engine.helpers import script

STORES: dict[str, Any] = {
    f"m{number}.example.com": {
        "provider": "s3_compatible",
        "endpoint": "http://127.0.0.1:2000",
        "iam_endpoint": "http://127.0.0.1:2001",
        "bucket": f"bench-{number}",
        "prefix": "media/",
        "noncurrent_days": 9,
        "abort_days": 3,
    }
    for number in range(2)
}


def test_each_store_has_what_ours_makes() -> None:
    stores = parse(STORES)
    made = beside.configuration(stores)
    resources = made["resource"]
    assert sorted(resources) == [
        "aws_iam_access_key",
        "aws_iam_user",
        "aws_iam_user_policy",
        "aws_s3_bucket",
        "aws_s3_bucket_lifecycle_configuration",
        "aws_s3_bucket_public_access_block",
    ]
    assert all(list(found) == ["m0_example_com", "m1_example_com"] for found in resources.values())
    store = stores["m1.example.com"]
    name = "m1_example_com"
    assert resources["aws_s3_bucket"][name] == {"bucket": "bench-1"}
    assert resources["aws_iam_user"][name] == {"name": store.user}
    (rule,) = resources["aws_s3_bucket_lifecycle_configuration"][name]["rule"]
    assert rule["noncurrent_version_expiration"] == {"noncurrent_days": 9}
    assert rule["abort_incomplete_multipart_upload"] == {"days_after_initiation": 3}
    policy = json.loads(resources["aws_iam_user_policy"][name]["policy"])
    assert policy == policies.key_policy("bench-1", METHODS[store.method], "least", "media/")
    assert made["provider"]["aws"]["endpoints"] == [{"s3": "http://127.0.0.1:2000", "iam": "http://127.0.0.1:2001"}]


def test_a_reference_is_to_a_resource_that_is_there() -> None:
    resources = beside.configuration(parse(STORES))["resource"]
    found = re.findall(r"(?<!\$)\$\{(\w+)\.(\w+)\.\w+\}", json.dumps(resources))
    assert len(found) == 8
    assert all(name in resources[kind] for kind, name in found)


def test_what_the_server_lacks_is_left_out() -> None:
    made = beside.configuration(parse(STORES), lacks=("lifecycle", "public_access_block"))
    assert sorted(made["resource"]) == ["aws_iam_access_key", "aws_iam_user", "aws_iam_user_policy", "aws_s3_bucket"]


@pytest.mark.parametrize("name", ["tofu", "terraform"])
def test_what_is_missing_is_said(name: str, tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    assert beside.find(environment) == "neither tofu nor terraform is on PATH"
    program = script(tmp_path / "bin" / name, "exit 1")
    said = beside.find(environment)
    assert isinstance(said, str)
    assert said.startswith(f"{program} has no aws provider here")
    provider = script(
        tmp_path / ".terraform.d/plugins/registry.terraform.io/hashicorp/aws/6.0.0/linux_amd64"
        "/terraform-provider-aws_v6.0.0_x5",
        "exit 1",
    )
    assert beside.find(environment) == beside.Tool(program, provider.parent)
    cache = script(tmp_path / "cache/registry.opentofu.org/hashicorp/aws/6/x/terraform-provider-aws_v6", "exit 1")
    assert beside.find({**environment, "TF_PLUGIN_CACHE_DIR": str(tmp_path / "cache")}) == beside.Tool(
        program, cache.parent
    )


def test_each_command_is_run_on_the_configuration(tmp_path: Path, embedded_store: Any) -> None:
    # A stand-in that notes what it is given, and has no provider to run.
    seen = tmp_path / "seen"
    program = script(
        tmp_path / "terraform", f'echo "$2 $AWS_ACCESS_KEY_ID" >> {seen}; cat "$TF_CLI_CONFIG_FILE" >/dev/null'
    )
    folder = tmp_path / "work"
    folder.mkdir()
    tool = beside.Tool(program, tmp_path / "provider")
    costs = beside.life(folder, tool, embedded_store, STORES, ())
    assert list(costs) == ["up", "diff", "diff --refresh", "destroy"]
    key = embedded_store.access_key_id
    assert seen.read_text().splitlines() == [f"{what} {key}" for what in ("apply", "plan", "plan", "destroy")]
    assert embedded_store.secret_access_key not in (folder / "main.tf.json").read_text()
    assert str(tool.provider) in (folder / "tool.rc").read_text()
    script(program, "echo no such resource >&2; exit 1")
    with pytest.raises(RuntimeError, match="terraform apply failed:\nno such resource"):
        beside.life(folder, tool, embedded_store, STORES, ())
