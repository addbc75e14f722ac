"""A stand-in for Amazon's plugin: the types that components/amazon_s3.py uses, by boto3.

Buckets, policies and users are made at the endpoints the program gives; what the store there lacks (public access
block, encryption, lifecycle, logging, roles) at the one that STAND_IN_AWS_REST names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config

from synapse_media.plugin.resource import Resource, Values
from tests.doubles.vendor_plugin import Gone, Vendor, serve

_settings: dict[str, Any] = {}


def _configure(values: Mapping[str, Any]) -> None:
    _settings.update(values)


def client(service: str, *, rest: bool = False) -> Any:
    named = (_settings.get("endpoints") or [{}])[0]
    style = "path" if _settings.get("s3UsePathStyle") or rest else "virtual"
    return boto3.client(
        service,
        endpoint_url=os.environ["STAND_IN_AWS_REST"] if rest else named.get(service),
        region_name=_settings["region"],
        config=Config(s3={"addressing_style": style}, retries={"mode": "standard"}),
        verify=False if rest else None,
    )


class Bucket(Vendor):
    pulumi_type = "aws:s3/bucket:Bucket"
    replace_on = frozenset({"bucket"})

    def put(self, inputs: Values, old: Values | None) -> Values:
        s3, name = client("s3"), inputs["bucket"]
        if old is None:
            region = _settings["region"]
            where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            s3.create_bucket(Bucket=name, **where)
            client("s3", rest=True).create_bucket(Bucket=name, **where)
        tags = [{"Key": key, "Value": value} for key, value in inputs.get("tags", {}).items()]
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
        return {"arn": f"arn:aws:s3:::{name}"}

    def get(self, outputs: Values) -> Values:
        s3, name = client("s3"), outputs["bucket"]
        s3.head_bucket(Bucket=name)
        return {"tags": {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=name)["TagSet"]}}

    def remove(self, outputs: Values) -> None:
        s3, name = client("s3"), outputs["bucket"]
        if outputs.get("forceDestroy"):
            found = s3.list_object_versions(Bucket=name)
            for item in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]:
                s3.delete_object(Bucket=name, Key=item["Key"], VersionId=item["VersionId"])
        s3.delete_bucket(Bucket=name)
        client("s3", rest=True).delete_bucket(Bucket=name)


class _OfBucket(Vendor):
    """A setting of a bucket."""

    replace_on = frozenset({"bucket"})

    def identity(self, inputs: Values) -> str:
        return str(inputs["bucket"])


_BLOCK = {
    "blockPublicAcls": "BlockPublicAcls",
    "blockPublicPolicy": "BlockPublicPolicy",
    "ignorePublicAcls": "IgnorePublicAcls",
    "restrictPublicBuckets": "RestrictPublicBuckets",
}


class PublicAccessBlock(_OfBucket):
    pulumi_type = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"

    def put(self, inputs: Values, old: Values | None) -> Values:
        wanted = {theirs: inputs[ours] for ours, theirs in _BLOCK.items()}
        client("s3", rest=True).put_public_access_block(Bucket=inputs["bucket"], PublicAccessBlockConfiguration=wanted)
        return {}

    def get(self, outputs: Values) -> Values:
        answer = client("s3", rest=True).get_public_access_block(Bucket=outputs["bucket"])
        return {ours: answer["PublicAccessBlockConfiguration"][theirs] for ours, theirs in _BLOCK.items()}

    def remove(self, outputs: Values) -> None:
        client("s3", rest=True).delete_public_access_block(Bucket=outputs["bucket"])


class OwnershipControls(_OfBucket):
    pulumi_type = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"

    def put(self, inputs: Values, old: Values | None) -> Values:
        rules = [{"ObjectOwnership": inputs["rule"]["objectOwnership"]}]
        client("s3").put_bucket_ownership_controls(Bucket=inputs["bucket"], OwnershipControls={"Rules": rules})
        return {}

    def get(self, outputs: Values) -> Values:
        answer = client("s3").get_bucket_ownership_controls(Bucket=outputs["bucket"])
        return {"rule": {"objectOwnership": answer["OwnershipControls"]["Rules"][0]["ObjectOwnership"]}}

    def remove(self, outputs: Values) -> None:
        client("s3").delete_bucket_ownership_controls(Bucket=outputs["bucket"])


class Encryption(_OfBucket):
    pulumi_type = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"

    def put(self, inputs: Values, old: Values | None) -> Values:
        rules = []
        for rule in inputs["rules"]:
            by_default = rule["applyServerSideEncryptionByDefault"]
            wanted = {"SSEAlgorithm": by_default["sseAlgorithm"]}
            if "kmsMasterKeyId" in by_default:
                wanted["KMSMasterKeyID"] = by_default["kmsMasterKeyId"]
            rules.append(
                {
                    "ApplyServerSideEncryptionByDefault": wanted,
                    "BucketKeyEnabled": rule.get("bucketKeyEnabled", False),
                }
            )
        client("s3", rest=True).put_bucket_encryption(
            Bucket=inputs["bucket"], ServerSideEncryptionConfiguration={"Rules": rules}
        )
        return {}

    def get(self, outputs: Values) -> Values:
        answer = client("s3", rest=True).get_bucket_encryption(Bucket=outputs["bucket"])
        found = []
        for rule in answer["ServerSideEncryptionConfiguration"]["Rules"]:
            theirs = rule["ApplyServerSideEncryptionByDefault"]
            by_default = {"sseAlgorithm": theirs["SSEAlgorithm"]}
            if "KMSMasterKeyID" in theirs:
                by_default["kmsMasterKeyId"] = theirs["KMSMasterKeyID"]
            ours: Values = {"applyServerSideEncryptionByDefault": by_default}
            if rule.get("BucketKeyEnabled"):
                ours["bucketKeyEnabled"] = True
            found.append(ours)
        return {"rules": found}

    def remove(self, outputs: Values) -> None:
        client("s3", rest=True).delete_bucket_encryption(Bucket=outputs["bucket"])


class Versioning(_OfBucket):
    pulumi_type = "aws:s3/bucketVersioning:BucketVersioning"

    def put(self, inputs: Values, old: Values | None) -> Values:
        status = inputs["versioningConfiguration"]["status"]
        client("s3").put_bucket_versioning(Bucket=inputs["bucket"], VersioningConfiguration={"Status": status})
        return {}

    def get(self, outputs: Values) -> Values:
        status = client("s3").get_bucket_versioning(Bucket=outputs["bucket"]).get("Status", "Disabled")
        return {"versioningConfiguration": {"status": status}}

    def remove(self, outputs: Values) -> None:
        client("s3").put_bucket_versioning(Bucket=outputs["bucket"], VersioningConfiguration={"Status": "Suspended"})


_ACTIONS = {
    "expiration": ("Expiration", {"days": "Days"}),
    "noncurrentVersionExpiration": ("NoncurrentVersionExpiration", {"noncurrentDays": "NoncurrentDays"}),
    "abortIncompleteMultipartUpload": (
        "AbortIncompleteMultipartUpload",
        {"daysAfterInitiation": "DaysAfterInitiation"},
    ),
}


class Lifecycle(_OfBucket):
    pulumi_type = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"

    def put(self, inputs: Values, old: Values | None) -> Values:
        rules = []
        for rule in inputs["rules"]:
            wanted: Values = {
                "ID": rule["id"],
                "Status": rule["status"],
                "Filter": {"Prefix": rule["filter"]["prefix"]},
            }
            for ours, (theirs, names) in _ACTIONS.items():
                if ours in rule:
                    wanted[theirs] = {names[name]: value for name, value in rule[ours].items()}
            rules.append(wanted)
        client("s3", rest=True).put_bucket_lifecycle_configuration(
            Bucket=inputs["bucket"], LifecycleConfiguration={"Rules": rules}
        )
        return {}

    def get(self, outputs: Values) -> Values:
        answer = client("s3", rest=True).get_bucket_lifecycle_configuration(Bucket=outputs["bucket"])
        rules = []
        for rule in answer["Rules"]:
            prefix = rule["Filter"].get("Prefix", "")
            found: Values = {"id": rule["ID"], "status": rule["Status"], "filter": {"prefix": prefix}}
            for ours, (theirs, names) in _ACTIONS.items():
                if theirs in rule:
                    found[ours] = {name: rule[theirs][their] for name, their in names.items() if their in rule[theirs]}
            rules.append(found)
        return {"rules": rules}

    def remove(self, outputs: Values) -> None:
        client("s3", rest=True).delete_bucket_lifecycle(Bucket=outputs["bucket"])


class Logging(_OfBucket):
    pulumi_type = "aws:s3/bucketLogging:BucketLogging"

    def put(self, inputs: Values, old: Values | None) -> Values:
        wanted = {"TargetBucket": inputs["targetBucket"], "TargetPrefix": inputs["targetPrefix"]}
        client("s3", rest=True).put_bucket_logging(
            Bucket=inputs["bucket"], BucketLoggingStatus={"LoggingEnabled": wanted}
        )
        return {}

    def get(self, outputs: Values) -> Values:
        found = client("s3", rest=True).get_bucket_logging(Bucket=outputs["bucket"]).get("LoggingEnabled")
        if found is None:
            raise Gone
        return {"targetBucket": found["TargetBucket"], "targetPrefix": found["TargetPrefix"]}

    def remove(self, outputs: Values) -> None:
        client("s3", rest=True).put_bucket_logging(Bucket=outputs["bucket"], BucketLoggingStatus={})


class Policy(_OfBucket):
    pulumi_type = "aws:s3/bucketPolicy:BucketPolicy"
    documents = frozenset({"policy"})

    def put(self, inputs: Values, old: Values | None) -> Values:
        client("s3").put_bucket_policy(Bucket=inputs["bucket"], Policy=inputs["policy"])
        return {}

    def get(self, outputs: Values) -> Values:
        return {"policy": client("s3").get_bucket_policy(Bucket=outputs["bucket"])["Policy"]}

    def remove(self, outputs: Values) -> None:
        client("s3").delete_bucket_policy(Bucket=outputs["bucket"])


class User(Vendor):
    """A new name or path is UpdateUser, in place: the keys live on under the new name."""

    pulumi_type = "aws:iam/user:User"

    def put(self, inputs: Values, old: Values | None) -> Values:
        iam = client("iam")
        tags = [{"Key": key, "Value": value} for key, value in inputs.get("tags", {}).items()]
        if old is None:
            iam.create_user(UserName=inputs["name"], Path=inputs["path"], Tags=tags)
        else:
            if (old["name"], old["path"]) != (inputs["name"], inputs["path"]):
                iam.update_user(UserName=old["name"], NewUserName=inputs["name"], NewPath=inputs["path"])
            iam.tag_user(UserName=inputs["name"], Tags=tags)
        return {"arn": iam.get_user(UserName=inputs["name"])["User"]["Arn"]}

    def get(self, outputs: Values) -> Values:
        iam = client("iam")
        found = iam.get_user(UserName=outputs["name"])["User"]
        tags = iam.list_user_tags(UserName=outputs["name"])["Tags"]
        return {"path": found["Path"], "tags": {tag["Key"]: tag["Value"] for tag in tags}}

    def remove(self, outputs: Values) -> None:
        iam, name = client("iam"), outputs["name"]
        if outputs.get("forceDestroy"):
            for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
                iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        iam.delete_user(UserName=name)


class UserPolicy(Vendor):
    pulumi_type = "aws:iam/userPolicy:UserPolicy"
    replace_on = frozenset({"name", "user"})
    documents = frozenset({"policy"})

    def put(self, inputs: Values, old: Values | None) -> Values:
        client("iam").put_user_policy(
            UserName=inputs["user"], PolicyName=inputs["name"], PolicyDocument=inputs["policy"]
        )
        return {}

    def get(self, outputs: Values) -> Values:
        found = client("iam").get_user_policy(UserName=outputs["user"], PolicyName=outputs["name"])["PolicyDocument"]
        return {"policy": found if isinstance(found, str) else json.dumps(found)}

    def remove(self, outputs: Values) -> None:
        client("iam").delete_user_policy(UserName=outputs["user"], PolicyName=outputs["name"])


class Role(Vendor):
    pulumi_type = "aws:iam/role:Role"
    replace_on = frozenset({"name", "path"})
    documents = frozenset({"assumeRolePolicy"})

    def put(self, inputs: Values, old: Values | None) -> Values:
        iam, name = client("iam", rest=True), inputs["name"]
        tags = [{"Key": key, "Value": value} for key, value in inputs.get("tags", {}).items()]
        trust = inputs["assumeRolePolicy"]
        if old is None:
            iam.create_role(RoleName=name, Path=inputs["path"], AssumeRolePolicyDocument=trust, Tags=tags)
        else:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
            iam.tag_role(RoleName=name, Tags=tags)
        return {"arn": iam.get_role(RoleName=name)["Role"]["Arn"]}

    def get(self, outputs: Values) -> Values:
        found = client("iam", rest=True).get_role(RoleName=outputs["name"])["Role"]
        trust = found["AssumeRolePolicyDocument"]
        return {
            "path": found["Path"],
            "assumeRolePolicy": trust if isinstance(trust, str) else json.dumps(trust),
            "tags": {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())},
        }

    def remove(self, outputs: Values) -> None:
        client("iam", rest=True).delete_role(RoleName=outputs["name"])


class RolePolicy(Vendor):
    pulumi_type = "aws:iam/rolePolicy:RolePolicy"
    replace_on = frozenset({"name", "role"})
    documents = frozenset({"policy"})

    def put(self, inputs: Values, old: Values | None) -> Values:
        client("iam", rest=True).put_role_policy(
            RoleName=inputs["role"], PolicyName=inputs["name"], PolicyDocument=inputs["policy"]
        )
        return {}

    def get(self, outputs: Values) -> Values:
        answer = client("iam", rest=True).get_role_policy(RoleName=outputs["role"], PolicyName=outputs["name"])
        return {"policy": json.dumps(answer["PolicyDocument"])}

    def remove(self, outputs: Values) -> None:
        client("iam", rest=True).delete_role_policy(RoleName=outputs["role"], PolicyName=outputs["name"])


class InstanceProfile(Vendor):
    pulumi_type = "aws:iam/instanceProfile:InstanceProfile"
    replace_on = frozenset({"name", "path"})

    def put(self, inputs: Values, old: Values | None) -> Values:
        iam, name = client("iam", rest=True), inputs["name"]
        if old is None:
            tags = [{"Key": key, "Value": value} for key, value in inputs.get("tags", {}).items()]
            iam.create_instance_profile(InstanceProfileName=name, Path=inputs["path"], Tags=tags)
        elif old["role"] != inputs["role"]:
            iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=old["role"])
        if old is None or old["role"] != inputs["role"]:
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=inputs["role"])
        return {"arn": iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"]}

    def get(self, outputs: Values) -> Values:
        answer = client("iam", rest=True).get_instance_profile(InstanceProfileName=outputs["name"])
        return {"role": answer["InstanceProfile"]["Roles"][0]["RoleName"]}

    def remove(self, outputs: Values) -> None:
        iam = client("iam", rest=True)
        iam.remove_role_from_instance_profile(InstanceProfileName=outputs["name"], RoleName=outputs["role"])
        iam.delete_instance_profile(InstanceProfileName=outputs["name"])


if __name__ == "__main__":
    types: list[Resource] = [
        Bucket(),
        PublicAccessBlock(),
        OwnershipControls(),
        Encryption(),
        Versioning(),
        Lifecycle(),
        Logging(),
        Policy(),
        User(),
        UserPolicy(),
        Role(),
        RolePolicy(),
        InstanceProfile(),
    ]
    serve("aws", types, ["accessKey", "secretKey", "token"], _configure)
