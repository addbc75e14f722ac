"""A stand-in for DigitalOcean's plugin: SpacesBucket by boto3, at the endpoint the program gives.

As measured on pulumi-digitalocean 4.76 (terraform-provider-digitalocean 2.96,
digitalocean/spaces/resource_spaces_bucket.go): a new `name` changes nothing but the state, where the id stays; the
bucket is read and deleted by its id, its settings are put and its objects deleted by its name; the access list is never
read; a bucket that is there already is not looked for, it is CreateBucket that fails; a bucket that is gone can't be
deleted.

Lifecycle rules, which the store there lacks, are kept at the endpoint that STAND_IN_DIGITALOCEAN_REST names. Unlike the
vendor's plugin it reaches buckets by path, not by host name, and signs for the bucket's region. Where
STAND_IN_DIGITALOCEAN_OWNER_MAY_CREATE_AGAIN is set, the store answers 200 to a second CreateBucket of its owner, as
Ceph RGW does (ceph/ceph#68722).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from synapse_media.errors import StoreError
from synapse_media.plugin.resource import Values
from synapse_media.schema.model import UNKNOWN
from tests.doubles.vendor_plugin import Vendor, serve

_settings: dict[str, Any] = {}


def _configure(values: Mapping[str, Any]) -> None:
    _settings.update(values)


def client(region: str, *, rest: bool = False) -> Any:
    key_id = _settings.get("spacesAccessId") or os.environ.get("SPACES_ACCESS_KEY_ID")
    secret = _settings.get("spacesSecretKey") or os.environ.get("SPACES_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        raise StoreError("Spaces credentials not configured")
    return boto3.client(
        "s3",
        endpoint_url=os.environ["STAND_IN_DIGITALOCEAN_REST"] if rest else _settings["spacesEndpoint"],
        region_name=region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard"}),
    )


REGIONS = ("ams3", "atl1", "blr1", "fra1", "lon1", "nyc3", "sfo2", "sfo3", "sgp1", "syd1", "tor1")
_ROUNDS = 3
"""After which the stand-in gives up emptying one bucket to delete another. The vendor's plugin doesn't."""


class SpacesBucket(Vendor):
    pulumi_type = "digitalocean:index/spacesBucket:SpacesBucket"
    replace_on = frozenset({"region"})
    gone_is_done = False

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        inputs, failures = super().check(inputs)
        if inputs["region"] not in (*REGIONS, UNKNOWN):
            failures["region"] = f"expected region to be one of {list(REGIONS)}, got {inputs['region']}"
        return inputs, failures

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return super().planned(inputs, old or {"bucketUrn": UNKNOWN})

    def told(self, error: ClientError) -> str:
        code = error.response["Error"].get("Code", "")
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            return "Forbidden: Forbidden"
        return f"{code}: {error.response['Error'].get('Message', '')}"

    def put(self, inputs: Values, old: Values | None) -> Values:
        name, region = inputs["name"], inputs["region"]
        s3, rest = client(region), client(region, rest=True)
        if old is None:
            _create(s3, name, region)
            _create(rest, name, region)
            if inputs["acl"] != "private":
                _put_acl(s3, name, inputs["acl"])
        elif old["acl"] != inputs["acl"]:
            _put_acl(s3, name, inputs["acl"])
        if old is None or old["versioning"] != inputs["versioning"]:
            status = "Enabled" if inputs["versioning"]["enabled"] else "Suspended"
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
        if old is None or old["lifecycleRules"] != inputs["lifecycleRules"]:
            rules = [_their_rule(rule) for rule in inputs["lifecycleRules"]]
            rest.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
        return {"bucketUrn": f"do:space:{name}"}

    def get(self, outputs: Values) -> Values:
        bucket, region = outputs["id"], outputs["region"]
        s3, rest = client(region), client(region, rest=True)
        s3.head_bucket(Bucket=bucket)
        status = s3.get_bucket_versioning(Bucket=bucket).get("Status")
        try:
            listed = rest.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
                raise
            listed = []
        return {"versioning": {"enabled": status == "Enabled"}, "lifecycleRules": [_our_rule(rule) for rule in listed]}

    def remove(self, outputs: Values) -> None:
        bucket = outputs["id"]
        s3 = client(outputs["region"])
        for _ in range(_ROUNDS):
            try:
                s3.delete_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketNotEmpty" or not outputs.get("forceDestroy"):
                    raise
                found = s3.list_object_versions(Bucket=outputs["name"])
                for item in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]:
                    s3.delete_object(Bucket=outputs["name"], Key=item["Key"], VersionId=item["VersionId"])
            else:
                client(outputs["region"], rest=True).delete_bucket(Bucket=bucket)
                return
        raise StoreError(f"{bucket} is never empty, because {outputs['name']} is emptied: this goes on without end")


def _create(s3: Any, bucket: str, region: str) -> None:
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        s3.create_bucket(Bucket=bucket, **where)
    except s3.exceptions.BucketAlreadyOwnedByYou:
        if not os.environ.get("STAND_IN_DIGITALOCEAN_OWNER_MAY_CREATE_AGAIN"):
            raise


def _put_acl(s3: Any, bucket: str, acl: str) -> None:
    # The store takes an access list only where a bucket's objects may have owners of their own, as Spaces always does.
    ownership = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=ownership)
    s3.put_bucket_acl(Bucket=bucket, ACL=acl)


def _their_rule(rule: Values) -> Values:
    wanted: Values = {
        "ID": rule["id"],
        "Status": "Enabled" if rule["enabled"] else "Disabled",
        "Filter": {"Prefix": rule.get("prefix", "")},
    }
    if "expiration" in rule:
        wanted["Expiration"] = {"Days": rule["expiration"]["days"]}
    if "noncurrentVersionExpiration" in rule:
        wanted["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule["noncurrentVersionExpiration"]["days"]}
    if "abortIncompleteMultipartUploadDays" in rule:
        wanted["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule["abortIncompleteMultipartUploadDays"]}
    return wanted


def _our_rule(rule: Values) -> Values:
    found: Values = {
        "id": rule["ID"],
        "enabled": rule["Status"] == "Enabled",
        "prefix": rule["Filter"].get("Prefix", ""),
    }
    if "Expiration" in rule:
        found["expiration"] = {"days": rule["Expiration"].get("Days", 0)}
    if "NoncurrentVersionExpiration" in rule:
        found["noncurrentVersionExpiration"] = {"days": rule["NoncurrentVersionExpiration"]["NoncurrentDays"]}
    if "AbortIncompleteMultipartUpload" in rule:
        found["abortIncompleteMultipartUploadDays"] = rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
    return found


if __name__ == "__main__":
    serve("digitalocean", [SpacesBucket()], ["token", "spacesSecretKey"], _configure)
