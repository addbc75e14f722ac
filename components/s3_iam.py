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
    # Where it would be too long, what it names is still told from any other.
    return path if len(path) <= _LONGEST_PATH else f"{ROOT}{hashlib.sha256(owner.encode()).hexdigest()}/user/{bucket}/"


class S3IamStore(Store[Args]):
    """Bucket, user under a path of ours, its keys and its one inline policy. No secret but the key's."""

    def provision(self) -> None:
        made, lacks = self.make_bucket()
        self.make_key(made, lacks)

    def make_bucket(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        """The bucket, or what is made last of it; in words what it lacks."""
        bucket = resources.Bucket(self.name, self.bucket_args(), self.of_bucket())
        return bucket, self.with_known_lacks(bucket.lacks)

    def make_key(self, bucket: pulumi.Resource, lacks: pulumi.Input[Sequence[str]]) -> None:
        """The user with its policy and its keys, and the proof."""
        document = self.key_policy()
        user = self.make_user(bucket)
        policy = self.make_user_policy(user, given(policies.to_json, document))
        ring = resources.KeyRing(
            self.name,
            resources.KeyRingArgs(**vars(self.any_ring()), mark=self.mark(user)),
            # After the policy, so that it is deleted before it: a key that is not let go keeps its rights.
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
        """The path for an owner's mark, or an Output of it."""

        def path(bucket: str) -> str:
            return user_path(owner, bucket)

        return given(path, self.setting("bucket"))

    @property
    def path(self) -> str | pulumi.Output[str]:
        """Where this store's user is made, and by what it is known again."""
        return self.path_of(self.owner)

    def mark(self, user: pulumi.Resource | None = None) -> resources.UserMarkArgs:
        """Whose the user has to be before anything of it is changed (synapse_media.plugin.iam).

        Args:
            user: which was found to be ours wherever it is; its path stays, also where the bucket becomes another.
        """
        # Releases before 2026-12 put every user of a stack of this name under one path.
        former = [f"{ROOT}{pulumi.get_stack()}/", *([pulumi.get(user, "path")] if user is not None else [])]
        if self.former_owner:
            former.append(self.path_of(self.former_owner))
        return resources.UserMarkArgs(path=self.path, former_paths=former, bucket=self.setting("bucket"))

    def make_user(self, bucket: pulumi.Resource) -> pulumi.Resource:
        # After the bucket: where that is refused, nobody is made who may use it.
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
            # A user has one of this name: made anew first and the old one deleted after, there would be none.
            pulumi.ResourceOptions.merge(self.child(user), pulumi.ResourceOptions(delete_before_replace=True)),
        )
