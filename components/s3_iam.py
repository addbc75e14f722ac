"""A store with the S3 and IAM query APIs: bucket, user, key ring, inline policy, proof."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pulumi

from synapse_media.allow import retires_key
from synapse_media.plugin.iam import POLICY_NAME, ROOT
from synapse_media.settings import StoreSettings

from . import policies, resources
from .store import Store

_LONGEST_PATH = 512
"""https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html"""


def user_path(owner: str, bucket: str) -> str:
    """The IAM path that names project, stack and homeserver (`owner`), and the bucket."""
    path = f"{ROOT}{owner}/{bucket}/"
    # Where it would be too long, what it names is still told from any other.
    return path if len(path) <= _LONGEST_PATH else f"{ROOT}{hashlib.sha256(owner.encode()).hexdigest()}/user/{bucket}/"


class S3IamStore(Store):
    """Bucket, user under a path of ours, its keys and its one inline policy. No secret but the key's."""

    def __init__(self, name: str, store: StoreSettings) -> None:
        super().__init__(name, store)
        self.provision()

    def provision(self) -> None:
        """Make the parts; `outputs` is there at the end of it."""
        made, lacks = self.make_bucket()
        self.make_key(made, lacks)

    def make_bucket(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        """The bucket, or what is made last of it; in words what it lacks."""
        inputs, known_lacks = self.bucket_inputs()
        bucket = resources.Bucket(self.name, inputs, self.of_bucket())
        return bucket, bucket.out("lacks").apply(lambda found: [*known_lacks, *(found or [])])

    def make_key(self, bucket: pulumi.Resource, lacks: pulumi.Input[Sequence[str]]) -> None:
        """The user with its policy and its keys, and the proof."""
        store, document = self.store, self.key_policy()
        user = self.make_user(bucket)
        ring = resources.KeyRing(
            self.name,
            {
                "userName": store.user,
                "active": store.keys.active,
                "slots": sorted(store.keys.slots),
                "retireConfirmed": retires_key(store.allow),
                "connection": self.connection(),
                **self.mark(user),
                **({"adoptKey": store.adopt_key} if store.adopt_key else {}),
            },
            self.child(user),
        )
        self.finish(
            region=store.region,
            endpoint_url=store.endpoint,
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=lacks,
            made=(bucket, ring, self.make_user_policy(user, policies.to_json(document))),
            user=store.user,
            policy=document,
            created_at=self.created_at(ring),
        )

    @property
    def path(self) -> str:
        """Where this store's user is made, and by what it is known again."""
        return user_path(self.owner, self.store.bucket)

    def mark(self, user: pulumi.Resource | None = None) -> dict[str, Any]:
        """Whose the user has to be before anything of it is changed (synapse_media.plugin.iam).

        Args:
            user: which was found to be ours wherever it is; its path stays, also where the bucket becomes another.
        """
        # Releases before 2026-12 put every user of a stack of this name under one path.
        former = [f"{ROOT}{pulumi.get_stack()}/", *([pulumi.get(user, "path")] if user is not None else [])]
        if self.former_owner:
            former.append(user_path(self.former_owner, self.store.bucket))
        mark = {"path": self.path, "formerPaths": former, "bucket": self.store.bucket}
        return {"mark": mark, "adopt": self.store.adopt}

    def make_user(self, bucket: pulumi.Resource) -> pulumi.Resource:
        # After the bucket: where that is refused, nobody is made who may use it.
        return resources.User(
            self.name,
            {
                "userName": self.store.user,
                "path": self.path,
                "connection": self.connection(),
                **self.mark(),
            },
            self.child(bucket),
        )

    def make_user_policy(self, user: pulumi.Resource, document: str) -> pulumi.Resource:
        return resources.UserPolicy(
            self.name,
            {
                "userName": self.store.user,
                "policyName": POLICY_NAME,
                "policy": document,
                "connection": self.connection(),
                **self.mark(user),
            },
            # A user has one of this name: made anew first and the old one deleted after, there would be none.
            pulumi.ResourceOptions.merge(self.child(user), pulumi.ResourceOptions(delete_before_replace=True)),
        )
