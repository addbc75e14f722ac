"""Amazon S3 on the vendor's plugin: bucket with its settings, IAM user and policy, or a role for EC2 without any key.

The keys and the proof are resources of our plugin, and so is an adopted bucket (`adopt: true`): the vendor's plugin
would change settings that differ, ours reports them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_aws as aws

from synapse_media.allow import deletes_media
from synapse_media.plugin.iam import POLICY_NAME
from synapse_media.plugin.s3_bucket import OWNER_TAG

from . import policies
from .args import IamStoreArgs, is_known
from .s3_iam import S3IamStore
from .store import given


@dataclass(frozen=True, kw_only=True)
class AmazonS3Args(IamStoreArgs):
    """A store at Amazon. `region` is needed."""

    keyless: bool = False
    """True: a role and an instance profile in place of an access key, for Synapse on EC2."""

    kms_key: pulumi.Input[str] | None = None
    """ARN of a KMS key (no alias: a policy can't grant by it) for encryption at rest. Default: Amazon's own key."""

    log_bucket: pulumi.Input[str] | None = None
    """An existing bucket of the same region and account that receives the access log. Default: no log."""

    tags: pulumi.Input[Mapping[str, pulumi.Input[str]]] | None = None
    """Tags for everything that is created, as name: text."""

    settle_seconds: int | None = None
    """How many seconds to wait at most until Amazon accepts a new key. Default: that of the catalog."""


class AmazonS3(S3IamStore[AmazonS3Args]):
    """What the vendor's plugin makes of a store.

    Produces a private bucket: public access block, owner-enforced objects, encryption, versions that expire, unfinished
    uploads that are removed, TLS only, its access logged by option; an IAM user with one inline policy, or with
    `keyless` a role and an instance profile of the same name. A provider of `opts` for the package `aws` makes them; it
    has to be of the same region and account as the credentials in the environment, by which the keys are made.
    """

    family = "amazon_s3"

    def provision(self) -> None:
        if not self.store.adopt or self.keyless:
            self.vendor = self.get_provider("aws:index:Provider") or self._own_vendor()
        super().provision()

    def _own_vendor(self) -> aws.Provider:
        region, endpoint = self.setting("region"), self.setting("endpoint") if self.own_endpoint else ""
        iam_endpoint = self.setting("iam_endpoint")
        if iam_endpoint == self.provider.iam_endpoint(""):
            iam_endpoint = ""
        needed = tuple(name for name in self.provider.admin_variables if name not in self.provider.optional_variables)
        if is_known((region, endpoint, iam_endpoint)) and not self.alone:
            return _vendor(pulumi.runtime.settings.get_monitor(), region, endpoint, iam_endpoint, needed)
        # Nothing that is known yet, or here, tells it from another store's.
        return _provider(
            self.name,
            region=region,
            endpoint=endpoint,
            iam_endpoint=iam_endpoint,
            variables=needed,
            opts=pulumi.ResourceOptions(parent=self),
        )

    @property
    def own_endpoint(self) -> bool:
        """A private endpoint, or a stand-in: not the one of the catalog."""
        if "endpoint" in self.store.later:
            return "endpoint" in self.raw
        return bool(self.store.endpoint != self.provider.endpoint(self.store.region))

    def setting(self, name: str, default: Any = None) -> Any:
        found = super().setting(name, default)
        if name == "log_bucket" and not is_known(found):
            return found.apply(self._require_log_bucket)
        if name != "endpoint" or is_known(found):
            return found

        def over_https(endpoint: str) -> str:
            if endpoint.startswith("https://"):
                return endpoint
            raise pulumi.RunError(
                f"{self._where}.endpoint is {endpoint!r}; allowed: an https URL, where it is only known once another "
                "resource is made. The bucket's policy refuses plain http."
            )

        return found.apply(over_https)

    def _require_log_bucket(self, name: str | None) -> str:
        if name:
            return name
        raise pulumi.RunError(
            f"{self._where}.log_bucket is None; allowed: the name of a bucket, where another resource gives it. "
            "Whether there is a log decides which resources are made: leave it out for none."
        )

    @property
    def addressing(self) -> str:
        return "path" if self.own_endpoint else super().addressing

    @property
    def tags(self) -> dict[str, str] | pulumi.Output[dict[str, str]]:
        """Every tag there is to be, or an Output of them."""

        def marked(tags: Mapping[str, object] | None) -> dict[str, str]:
            return {**{str(name): str(value) for name, value in (tags or {}).items()}, OWNER_TAG: self.owner}

        return given(marked, self.setting("tags"))

    def by_vendor(self, *depends_on: pulumi.Resource, **options: Any) -> pulumi.ResourceOptions:
        """Args:
        options: further ones, as pulumi.ResourceOptions takes them.
        """
        by = pulumi.ResourceOptions(provider=self.vendor, **options)
        return pulumi.ResourceOptions.merge(self.child(*depends_on), by)

    def under_path(self, *depends_on: pulumi.Resource) -> pulumi.ResourceOptions:
        """For what is made under `path`: it stays where an earlier release put it, since a move makes it another.

        So does a new name: the vendor's plugin would rename a user (UpdateUser), whose keys stay valid.
        """
        options = self.by_vendor(*depends_on, ignore_changes=["path"], replace_on_changes=["name"])
        return pulumi.ResourceOptions.merge(options, self.keeping_in_previews("name"))

    def key_policy(self) -> policies.Policy | pulumi.Output[policies.Policy]:
        if not self.is_set("kms_key"):
            return super().key_policy()

        def with_key(document: policies.Policy, key: str | None) -> policies.Policy:
            if not key:
                return document
            # Writing takes a data key, reading decrypts it; a multipart upload does both.
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
            actions = ["kms:Decrypt", "kms:GenerateDataKey"]
            more = {"Sid": "MediaEncryption", "Effect": "Allow", "Action": actions, "Resource": [key]}
            return policies.document(*document["Statement"], more)

        return given(with_key, super().key_policy(), self.setting("kms_key"))

    # ---- the bucket

    def make_bucket(self) -> tuple[pulumi.Resource, pulumi.Input[Sequence[str]]]:
        if self.store.adopt:
            bucket, lacks = super().make_bucket()
            if not self.is_set("kms_key"):
                return bucket, lacks
            said = "encryption by kms_key, unless the bucket that was taken over has it as its default already"
            return bucket, pulumi.Output.from_input(lacks).apply(lambda found: [*found, said])
        options = pulumi.ResourceOptions.merge(
            pulumi.ResourceOptions(provider=self.vendor), self.keeping_in_previews("bucket")
        )
        made = aws.s3.Bucket(
            self.name,
            bucket=self.setting("bucket"),
            force_destroy=deletes_media(self.store.allow),
            tags=self.tags,
            opts=pulumi.ResourceOptions.merge(self.of_bucket(), options),
        )
        return self._settings(made), []

    def _settings(self, bucket: aws.s3.Bucket) -> pulumi.Resource:
        """The bucket's settings one after the other (Amazon answers 409 to two at a time); the last of them."""
        name, store = self.name, self.store
        last: pulumi.Resource = bucket

        def of_setting() -> pulumi.ResourceOptions:
            # A bucket has one of each: made anew first and the old one deleted after, there would be none; and a bucket
            # that is left behind, or whose deletion is refused, keeps its settings. So none is ever deleted.
            return self.by_vendor(last, deleted_with=bucket, retain_on_delete=True)

        last = aws.s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=of_setting(),
        )
        last = aws.s3.BucketOwnershipControls(
            name,
            bucket=bucket.bucket,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=of_setting(),
        )
        key = self.setting("kms_key")
        by_default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
            sse_algorithm=given(lambda found: "aws:kms" if found else "AES256", key), kms_master_key_id=key
        )
        encryption = aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
            apply_server_side_encryption_by_default=by_default,
            # One data key for many objects: a request to KMS for each thumbnail costs more than its storage.
            bucket_key_enabled=given(lambda found: True if found else None, key),
        )
        last = aws.s3.BucketServerSideEncryptionConfiguration(
            name, bucket=bucket.bucket, rules=[encryption], opts=of_setting()
        )
        last = aws.s3.BucketVersioning(
            name,
            bucket=bucket.bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=of_setting(),
        )
        rule = aws.s3.BucketLifecycleConfigurationRuleArgs(
            id=POLICY_NAME,
            status="Enabled",
            filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
            noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                noncurrent_days=store.noncurrent_days
            ),
            abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                days_after_initiation=store.abort_days
            ),
        )
        last = aws.s3.BucketLifecycleConfiguration(name, bucket=bucket.bucket, rules=[rule], opts=of_setting())
        if self.is_set("log_bucket"):
            last = aws.s3.BucketLogging(
                name,
                bucket=bucket.bucket,
                target_bucket=self.setting("log_bucket"),
                target_prefix=given("{}/".format, self.setting("bucket")),
                # An option: where the stack file no longer has it, it goes.
                opts=self.by_vendor(last, deleted_with=bucket, delete_before_replace=True),
            )
        # Over plain http (a stand-in) it would lock everybody out.
        if "endpoint" in store.later or store.endpoint.startswith("https://"):
            # After the public access block: pulumi-aws#2927.
            document = given(policies.to_json, given(policies.tls_only, self.setting("bucket")))
            last = aws.s3.BucketPolicy(name, bucket=bucket.bucket, policy=document, opts=of_setting())
        return last

    # ---- who may use it

    def make_key(self, bucket: pulumi.Resource, lacks: pulumi.Input[Sequence[str]]) -> None:
        if not self.keyless:
            super().make_key(bucket, lacks)
            return
        document = self.key_policy()
        role = aws.iam.Role(
            self.name,
            name=self.setting("user"),
            path=self.path,
            assume_role_policy=policies.to_json(policies.for_service("ec2.amazonaws.com")),
            tags=self.tags,
            opts=self.under_path(bucket),
        )
        aws.iam.RolePolicy(
            self.name,
            name=POLICY_NAME,
            role=role.name,
            policy=given(policies.to_json, document),
            opts=self.by_vendor(delete_before_replace=True),
        )
        aws.iam.InstanceProfile(
            self.name, name=self.setting("user"), path=self.path, role=role.name, tags=self.tags, opts=self.under_path()
        )
        self.finish_keyless(policy=document, lacks=lacks)

    @property
    def user_takes_keys(self) -> bool:
        return not self.store.adopt

    def make_user(self, bucket: pulumi.Resource) -> pulumi.Resource:
        if self.store.adopt:
            return super().make_user(bucket)
        user: pulumi.Resource = aws.iam.User(
            self.name,
            name=self.setting("user"),
            path=self.path,
            # For what our plugin does not look after, such as a password or an MFA device; a key that the state does
            # not know keeps the key ring (`user_takes_keys`), and so the user.
            force_destroy=True,
            tags=self.tags,
            opts=self.under_path(bucket),
        )
        return user

    def make_user_policy(self, user: pulumi.Resource, document: pulumi.Input[str]) -> pulumi.Resource:
        if self.store.adopt:
            return super().make_user_policy(user, document)
        made: pulumi.Resource = aws.iam.UserPolicy(
            self.name,
            name=POLICY_NAME,
            user=self.setting("user"),
            policy=document,
            opts=pulumi.ResourceOptions.merge(
                self.by_vendor(user, delete_before_replace=True), self.keeping_in_previews("user")
            ),
        )
        return made


@cache
def _vendor(
    program: object,  # noqa: ARG001 - a cache key: another run of the program needs a resource of its own
    region: str,
    endpoint: str,
    iam_endpoint: str,
    variables: tuple[str, ...],
) -> aws.Provider:
    """The vendor's plugin for a region, one for all stores there: each is a process of its own.

    Args:
        endpoint, iam_endpoint: "" for the vendor's own.
        variables: of the environment, without which the plugin has no credential.
    """
    name = "-".join(["aws", region, *(urlsplit(url).netloc for url in (endpoint, iam_endpoint) if url)])
    return _provider(
        name,
        region=region,
        endpoint=endpoint,
        iam_endpoint=iam_endpoint,
        variables=variables,
        opts=pulumi.ResourceOptions(),
    )


def _provider(
    name: str,
    *,
    region: pulumi.Input[str],
    endpoint: pulumi.Input[str],
    iam_endpoint: pulumi.Input[str],
    variables: Sequence[str],
    opts: pulumi.ResourceOptions,
) -> aws.Provider:
    """The vendor's plugin. Credentials come from the environment, where the plugin itself finds them."""
    options: dict[str, Any] = {}
    places = {"s3": endpoint, "s3control": endpoint, "iam": iam_endpoint, "sts": iam_endpoint}
    named = {service: url for service, url in places.items() if not is_known(url) or url}
    if named:
        options["endpoints"] = [aws.ProviderEndpointArgs(**named)]
        options["s3_use_path_style"] = "s3" in named
    if pulumi.runtime.is_dry_run() and not all(map(os.environ.get, variables)):
        # A preview from nothing: the plugin doesn't start without a credential, and asks nobody with this one.
        options |= {"access_key": "none", "secret_key": "none", "skip_requesting_account_id": True}
    return aws.Provider(
        name,
        region=region,
        skip_credentials_validation=True,
        skip_metadata_api_check=True,
        skip_region_validation=True,
        **options,
        opts=opts,
    )
