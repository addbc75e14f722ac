"""Policy documents as pure functions: settings in, JSON-ready dict out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypedDict

from synapse_media.methods import RULES, Access, Method

Statement = Mapping[str, object]

VERSION = "2012-10-17"


class Policy(TypedDict):
    """A policy document: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_version.html"""

    Version: str
    Statement: list[Statement]


def document(*statements: Statement) -> Policy:
    """A policy document of these statements."""
    return {"Version": VERSION, "Statement": list(statements)}


def to_json(policy: Policy) -> str:
    """In canonical form: what is compared, hashed and sent."""
    return json.dumps(policy, sort_keys=True, separators=(",", ":"))


def key_policy(bucket: str, method: Method, access: Access, prefix: str = "") -> Policy:
    """What the key may do: `least` follows the method's operations, `full` is the guide's own document.

    Args:
        prefix: objects outside it are out of reach under `least`; "" for the whole bucket.
    """
    arn = f"arn:aws:s3:::{bucket}"
    if access == "full":
        return document({"Sid": "Media", "Effect": "Allow", "Action": ["s3:*"], "Resource": [arn, f"{arn}/*"]})
    actions: dict[str, set[str]] = {"bucket": set(), "object": set()}
    for operation in method.needs:
        rule = RULES[operation]
        actions[rule.on].update(rule.actions)
    # No condition on s3:prefix: without ListBucket on the bucket itself, Amazon answers 403 for a missing key.
    return document(
        {"Sid": "MediaBucket", "Effect": "Allow", "Action": sorted(actions["bucket"]), "Resource": [arn]},
        {
            "Sid": "MediaObjects",
            "Effect": "Allow",
            "Action": sorted(actions["object"]),
            "Resource": [f"{arn}/{prefix}*"],
        },
    )


def tls_only(bucket: str) -> Policy:
    """The bucket policy that refuses plain http.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies.html#example-bucket-policies-HTTP-HTTPS
    """
    arn = f"arn:aws:s3:::{bucket}"
    return document(
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


def for_service(service: str) -> Policy:
    """Who may take on a role: machines of one of Amazon's services, for example ec2.amazonaws.com."""
    return document({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})
