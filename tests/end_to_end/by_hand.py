"""Buckets, users and keys made by hand with boto3 on the embedded store: what the programs under test are given.

The way through components and engine has tests of its own; here it would only hide what is tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from synapse_media.contract import Proof, ProofLine, StorageOutputs, policy_sha256
from synapse_media.methods import METHODS, RULES, Operation


@dataclass(frozen=True, slots=True)
class Admin:
    """The embedded store, with its root credentials."""

    endpoint_url: str
    iam_endpoint_url: str
    access_key_id: str
    secret_access_key: str
    region: str

    def client(self, service: str) -> Any:
        """A boto3 client: `s3` or `iam`."""
        return _administrators(self, service)

    def provision(
        self,
        *,
        method: str = "synapse-s3-storage-provider",
        prefix: str = "",
        without: Collection[Operation] = (),
        **changes: Any,
    ) -> StorageOutputs:
        """A new bucket and user, and a key that may do what the method needs, `without` some of it.

        The key is used once: a proof with that one line is what the outputs carry.
        """
        name = f"media-{secrets.token_hex(4)}"
        self.client("s3").create_bucket(Bucket=name)
        iam = self.client("iam")
        iam.create_user(UserName=name)
        policy = _policy(name, METHODS[method].needs - set(without))
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        outputs = StorageOutputs(
            server_name="matrix.example.com",
            provider="s3_compatible",
            method=method,
            access="least",
            bucket=name,
            region=self.region,
            endpoint_url=self.endpoint_url,
            access_key_id=key["AccessKeyId"],
            secret_access_key=key["SecretAccessKey"],
            user=name,
            prefix=prefix,
            policy_sha256=policy_sha256(policy),
        )
        s3(outputs).put_object(Bucket=name, Key="proof", Body=b"proof")
        self.client("s3").delete_object(Bucket=name, Key="proof")
        return proved(replace(outputs, **changes))

    def retire(self, outputs: StorageOutputs) -> None:
        """Delete the user of what was provisioned, where the test has left it.

        The server reads all its users for each request, so that those of hundreds of tests would be most of its work.
        """
        iam, user = self.client("iam"), outputs.user
        with contextlib.suppress(iam.exceptions.NoSuchEntityException):
            for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
                iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
            for name in iam.list_user_policies(UserName=user)["PolicyNames"]:
                iam.delete_user_policy(UserName=user, PolicyName=name)
            iam.delete_user(UserName=user)

    def objects(self, bucket: str) -> dict[str, str]:
        """Key -> SHA-256 of the content."""
        client = self.client("s3")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {
            key: hashlib.sha256(client.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest() for key in keys
        }


def s3(credentials: Admin | StorageOutputs, **config: Any) -> Any:
    """A boto3 client for S3 with these credentials, that tries once; `config` as of botocore's Config."""
    return _client("s3", credentials, credentials.endpoint_url, **config)


def proved(outputs: StorageOutputs) -> StorageOutputs:
    """With a proof made for exactly these outputs, for those who render what was changed on purpose."""
    return replace(outputs, proof=Proof(outputs.made_for(), (ProofLine("put", "allowed", "allowed"),)))


@cache
def _administrators(admin: Admin, service: str) -> Any:
    return s3(admin) if service == "s3" else _client("iam", admin, admin.iam_endpoint_url)


@cache
def _session() -> Any:
    """One for all, since each reads the models of the services anew; without credentials of its own."""
    import boto3

    return boto3.session.Session()


def _client(service: str, credentials: Admin | StorageOutputs, endpoint_url: str, **config: Any) -> Any:
    from botocore.config import Config

    return _session().client(
        service,
        endpoint_url=endpoint_url,
        region_name=credentials.region,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **config),
    )


def _policy(bucket: str, operations: Collection[Operation]) -> dict[str, Any]:
    resources = {"bucket": f"arn:aws:s3:::{bucket}", "object": f"arn:aws:s3:::{bucket}/*"}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": sorted(
                    {action for one in operations if RULES[one].on == on for action in RULES[one].actions}
                ),
                "Resource": resource,
            }
            for on, resource in resources.items()
            if any(RULES[one].on == on for one in operations)
        ],
    }
