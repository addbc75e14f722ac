"""The resources of the plugin, called as the engine would, on the real embedded store."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from synapse_media.engine.embedded import Running
from synapse_media.plugin.resource import Context, Resource, Values
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.store.clients import Credential

OWNER = "synapse-media/tests/matrix.example.com"
URN = "urn:pulumi:tests::synapse-media::synapse-media:index:S3Compatible$s3store:index:User::matrix.example.com"
VARIABLES = ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")


@dataclass(slots=True)
class Direct:
    """One test's corner of the store: its names, the administrator's clients, and what the plugin says to the user."""

    running: Running
    name: str
    s3: Any
    iam: Any
    said: list[str] = field(default_factory=list)

    @property
    def context(self) -> Context:
        return Context(warn=self.said.append, note=self.said.append, urn=URN)

    @property
    def endpoint(self) -> str:
        return self.running.endpoint

    def connection(self, **changes: Any) -> Values:
        """`connection` as a component writes it."""
        return {
            "endpoint": self.running.endpoint,
            "region": self.running.region,
            "iamEndpoint": self.running.iam_endpoint,
            "addressing": "path",
            "checksums": "when_required",
            "variables": list(VARIABLES),
            "caFile": "",
            **changes,
        }

    def make(self, resource: Resource, inputs: Values) -> tuple[str, Values]:
        """Check and create. Raises what create raises, and AssertionError where check finds fault."""
        checked, failures = resource.check(inputs)
        assert not failures, failures
        return resource.create(checked, self.context)

    def put(self, key: str = "local_content/a", body: bytes = b"media") -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=body)

    def keys_in(self, bucket: str | None = None) -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=bucket or self.name).get("Contents", [])]

    def versions_in(self) -> list[str]:
        page = self.s3.list_object_versions(Bucket=self.name)
        return [item["Key"] for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]]

    def bucket_exists(self, bucket: str | None = None) -> bool:
        return (bucket or self.name) in self.buckets()

    def buckets(self) -> set[str]:
        return {item["Name"] for item in self.s3.list_buckets()["Buckets"]}

    def key_ids(self) -> set[str]:
        return {key["AccessKeyId"] for key in self.iam.list_access_keys(UserName=self.name)["AccessKeyMetadata"]}

    def user_with_key(self, *statements: Values) -> Credential:
        """A user of this name under a policy, and a key of it."""
        self.iam.create_user(UserName=self.name)
        self.policy(*statements)
        key = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        return Credential(key["AccessKeyId"], key["SecretAccessKey"])

    def policy(self, *statements: Values, name: str = "by-hand") -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        self.iam.put_user_policy(UserName=self.name, PolicyName=name, PolicyDocument=document)

    def parsed(self, **changes: Any) -> Connection:
        return model.read(Connection, self.connection(**changes))


def allow(*actions: str, on: str = "*") -> Values:
    return {"Effect": "Allow", "Action": list(actions), "Resource": on}


def slug(text: str) -> str:
    """A bucket and user name from a test's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().removeprefix("test_"))[:48].strip("-")
