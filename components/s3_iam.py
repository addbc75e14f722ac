"""A store with the S3 and IAM query APIs: bucket, user, key ring, inline policy, proof."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pulumi

from synapse_media.plugin.iam import POLICY_NAME, ROOT

from . import policies, resources
from .store import Args, Store, given

_LONGEST_PATH = 512
"""https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html"""


def user_path(owner: str, bucket: str) -> str:
    """The IAM path that names project, stack and homeserver (`owner`), and the bucket."""
    path = f"{ROOT}{owner}/{bucket}/"
    # A path that would be too long is replaced by a hash, which is still unique to the owner.
    return path if len(path) <= _LONGEST_PATH else f"{ROOT}{hashlib.sha256(owner.encode()).hexdigest()}/user/{bucket}/"


class S3IamStore(Store[Args]):
    """Bucket, user under this store's path, its keys and its single inline policy. The key is the only secret."""

    @property
    def user_takes_keys(self) -> bool:
        """Whether the user's deletion deletes every key it has. Our plugin's does not."""
        return False

    def provision(self) -> None:
        made, lacks = self.make_bucket()
        self.make_key(made, lacks)

    def make_bucket(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        """The bucket, or the last resource of it; and a description of the features that it lacks."""
        bucket = resources.Bucket(self.name, self.bucket_args(), self.of_bucket())
        return bucket, self.with_known_lacks(bucket.lacks)

    def make_key(self, bucket: pulumi.Resource, lacks: pulumi.Input[Sequence[str]]) -> None:
        """The user, its policy, its keys and the proof."""
        document = self.key_policy()
        user = self.make_user(bucket)
        policy = self.make_user_policy(user, given(policies.to_json, document))
        ring = resources.KeyRing(
            self.name,
            resources.KeyRingArgs(
                **vars(self.any_ring()), mark=self.mark(user), user_takes_keys=self.user_takes_keys or None
            ),
            # Depends on the policy, so that it is deleted first: if a key can't be deleted, the policy stays too.
            self.child(user, policy),
        )
        self.finish(
            ring,
            bucket,
            policy,
            lacks=lacks,
            user=self.setting("user"),
            policy=document,
        )

    def path_of(self, owner: str) -> str | pulumi.Output[str]:
        """The IAM path of an owner's users, or an Output of it."""

        def path(bucket: str) -> str:
            return user_path(owner, bucket)

        return given(path, self.setting("bucket"))

    @property
    def path(self) -> str | pulumi.Output[str]:
        """The IAM path of this store's user, by which it is recognized."""
        return self.path_of(self.owner)

    def mark(self, user: pulumi.Resource | None = None) -> resources.UserMarkArgs:
        """The mark that the user must have before it is changed (synapse_media.plugin.iam).

        Args:
            user: the user resource, if it exists; it keeps its path even if the bucket changes.
        """
        # Releases before 2026-12 used one path for all users of stacks with this name.
        former = [f"{ROOT}{pulumi.get_stack()}/", *([pulumi.get(user, "path")] if user is not None else [])]
        if self.former_owner:
            former.append(self.path_of(self.former_owner))
        return resources.UserMarkArgs(path=self.path, former_paths=former, bucket=self.setting("bucket"))

    def make_user(self, bucket: pulumi.Resource) -> pulumi.Resource:
        # Depends on the bucket: if that is refused, no user is made for it.
        return resources.User(
            self.name,
            resources.UserArgs(
                user_name=self.setting("user"),
                path=self.path,
                connection=self.connection(),
                mark=self.mark(),
                adopt=self.store.adopt,
            ),
            self.child(bucket),
        )

    def make_user_policy(self, user: pulumi.Resource, document: pulumi.Input[str]) -> pulumi.Resource:
        return resources.UserPolicy(
            self.name,
            resources.UserPolicyArgs(
                user_name=self.setting("user"),
                policy_name=POLICY_NAME,
                policy=document,
                connection=self.connection(),
                mark=self.mark(user),
                adopt=self.store.adopt,
            ),
            # A user has one policy of this name: creating the new one before deleting the old leaves none.
            pulumi.ResourceOptions.merge(self.child(user), pulumi.ResourceOptions(delete_before_replace=True)),
        )
