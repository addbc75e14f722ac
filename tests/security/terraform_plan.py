"""What the program declares for Amazon, as a Terraform plan in JSON: the form that scanners of infrastructure read.

https://developer.hashicorp.com/terraform/internals/json-format
"""

from __future__ import annotations

import re
from typing import Any

from tests.providers.mocked import Declared

_FREE_FORM = ("tags",)
"""Maps, where all other objects are blocks."""


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _values(inputs: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in inputs.items():
        if name in _FREE_FORM or not isinstance(value, (dict, list)):
            values[_snake(name)] = value
        elif isinstance(value, dict):
            values[_snake(name)] = [_values(value)]
        else:
            # The provider's SDK has a block that may be repeated in the plural.
            blocks = [_values(item) if isinstance(item, dict) else item for item in value]
            values[_snake(name).removesuffix("s")] = blocks
    return values


def plan(declared: Declared) -> dict[str, Any]:
    """Every resource of Amazon's as a resource to be created, with the references between them."""
    resources, configuration = [], []
    for kind, _, inputs in declared.resources:
        package, module, name = kind.split(":")
        if package != "aws":
            continue
        service = module.partition("/")[0]
        terraform = f"aws_{service}_{_snake(name)}"
        head = {"address": f"{terraform}.media", "mode": "managed", "type": terraform, "name": "media"}
        resources.append({**head, "provider_name": "registry.terraform.io/hashicorp/aws", "values": _values(inputs)})
        expressions = {
            argument: {"references": [f"{target}.{'id' if argument == 'bucket' else 'name'}", target]}
            for argument, target in (
                ("bucket", "aws_s3_bucket.media"),
                ("user", "aws_iam_user.media"),
                ("role", "aws_iam_role.media"),
            )
            if argument in inputs and terraform != target.partition(".")[0]
        }
        configuration.append({**head, "provider_config_key": "aws", "expressions": expressions})
    changes = [
        {**{key: value for key, value in item.items() if key != "values"}, "change": _created(item["values"])}
        for item in resources
    ]
    return {
        "format_version": "1.2",
        "terraform_version": "1.11.0",
        "planned_values": {"root_module": {"resources": resources}},
        "resource_changes": changes,
        "configuration": {
            "provider_config": {"aws": {"name": "aws", "full_name": "registry.terraform.io/hashicorp/aws"}},
            "root_module": {"resources": configuration},
        },
    }


def _created(values: dict[str, Any]) -> dict[str, Any]:
    return {"actions": ["create"], "before": None, "after": values, "after_unknown": {}}
