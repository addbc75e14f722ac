"""The same stores made by Terraform or OpenTofu, where one and an aws provider are on the machine: CPU and memory.

Nothing is downloaded: the provider is run as it is found (`dev_overrides`,
https://developer.hashicorp.com/terraform/cli/config/config-file#development-overrides-for-provider-developers).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import policies
from synapse_media.engine.embedded import Running
from synapse_media.methods import METHODS
from synapse_media.settings import StoreSettings, parse
from tests.bench.measured import Cost, measured

_PROVIDER = "terraform-provider-aws"
_PLACES = ("~/.terraform.d/plugins", "~/.terraform.d/plugin-cache", "~/.local/share/terraform/plugins")
_SHARED = ("/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins")


@dataclass(frozen=True, slots=True)
class Tool:
    """A `tofu` or `terraform`, and the directory of the aws provider that it is to run."""

    program: Path
    provider: Path


def find(environment: Mapping[str, str]) -> Tool | str:
    """The tool that is there, or what is missing."""
    path = environment.get("PATH", os.defpath)
    program = shutil.which("tofu", path=path) or shutil.which("terraform", path=path)
    if program is None:
        return "neither tofu nor terraform is on PATH"
    cache = environment.get("TF_PLUGIN_CACHE_DIR", "")
    home = environment.get("HOME", "")
    folders = [Path(place.replace("~", home, 1)) for place in _PLACES if home]
    folders += [*(Path(place) for place in _SHARED), *([Path(cache)] if cache else [])]
    found = [Path(place) for place in path.split(os.pathsep) if any(Path(place).glob(f"{_PROVIDER}*"))]
    found += [file.parent for folder in folders for file in sorted(folder.rglob(f"{_PROVIDER}_*")) if file.is_file()]
    if not found:
        places = ", ".join(["PATH", "TF_PLUGIN_CACHE_DIR", *_PLACES, *_SHARED])
        return f"{program} has no aws provider here: no {_PROVIDER} in {places}"
    return Tool(Path(program), found[-1])


def configuration(stores: Mapping[str, StoreSettings], *, lacks: Sequence[str] = ()) -> dict[str, Any]:
    """Bucket, public access block, lifecycle, user, policy and key of each store, in Terraform's JSON syntax.

    Args:
        stores: of one endpoint; at least one.
        lacks: what the server doesn't have: "lifecycle", "public_access_block".
    """
    first = next(iter(stores.values()))
    made: dict[str, dict[str, Any]] = {}

    for server, store in stores.items():
        label = server.replace(".", "_")
        bucket, user = f"${{aws_s3_bucket.{label}.bucket}}", f"${{aws_iam_user.{label}.name}}"
        document = policies.to_json(
            policies.key_policy(store.bucket, METHODS[store.method], store.access, store.prefix)
        )
        blocked = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
        rule = {
            "id": "media",
            "status": "Enabled",
            "filter": {},
            "noncurrent_version_expiration": {"noncurrent_days": store.noncurrent_days},
            "abort_incomplete_multipart_upload": {"days_after_initiation": store.abort_days},
        }
        wanted: dict[str, dict[str, Any]] = {
            "aws_s3_bucket": {"bucket": store.bucket},
            "aws_s3_bucket_public_access_block": {"bucket": bucket, **dict.fromkeys(blocked, True)},
            "aws_s3_bucket_lifecycle_configuration": {"bucket": bucket, "rule": [rule]},
            "aws_iam_user": {"name": store.user},
            # A text in this syntax is a template.
            "aws_iam_user_policy": {"name": "media", "user": user, "policy": document.replace("${", "$${")},
            "aws_iam_access_key": {"user": user},
        }
        for kind, arguments in wanted.items():
            if not any(kind.startswith(f"aws_s3_bucket_{name}") for name in lacks):
                made.setdefault(kind, {})[label] = arguments
    return {
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
        "provider": {
            "aws": {
                "region": first.region,
                "endpoints": [{"s3": first.endpoint, "iam": first.iam_endpoint}],
                "s3_use_path_style": True,
                "skip_credentials_validation": True,
                "skip_metadata_api_check": True,
                "skip_region_validation": True,
                "skip_requesting_account_id": True,
            }
        },
        "resource": made,
    }


def life(
    folder: Path, tool: Tool, running: Running, stores: Mapping[str, Any], lacks: Sequence[str]
) -> dict[str, Cost]:
    """{command of ours: what the command of the same purpose took}. `folder` gets the configuration and the state."""
    (folder / "main.tf.json").write_text(json.dumps(configuration(parse(stores), lacks=lacks)), encoding="utf-8")
    overrides = f'provider_installation {{ dev_overrides {{ "hashicorp/aws" = {json.dumps(str(tool.provider))} }} }}'
    (folder / "tool.rc").write_text(overrides, encoding="utf-8")
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "AWS_ACCESS_KEY_ID": running.access_key_id,
        "AWS_SECRET_ACCESS_KEY": running.secret_access_key,
        "TF_CLI_CONFIG_FILE": str(folder / "tool.rc"),
        "CHECKPOINT_DISABLE": "1",
    }

    def run(*arguments: str) -> Cost:
        command = [str(tool.program), f"-chdir={folder}", *arguments, "-no-color", "-input=false"]

        def action() -> None:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{tool.program.name} {arguments[0]} failed:\n{done.stderr[-3000:]}")

        return measured(action)

    return {
        "up": run("apply", "-auto-approve"),
        "diff": run("plan", "-refresh=false"),
        "diff --refresh": run("plan"),
        "destroy": run("destroy", "-auto-approve"),
    }
