"""A stand-in for DigitalOcean's plugin: SpacesBucket by boto3, at the endpoint the program gives.

Lifecycle rules, which the store there lacks, are kept at the endpoint that STAND_IN_DIGITALOCEAN_REST names. Unlike the
vendor's plugin it reaches buckets by path, not by host name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config

from synapse_media.plugin.resource import UNKNOWN, ResourceError, Values
from tests.doubles.vendor_plugin import Vendor, serve

_settings: dict[str, Any] = {}


def _configure(values: Mapping[str, Any]) -> None:
    _settings.update(values)


def client(region: str, *, rest: bool = False) -> Any:
    key_id = _settings.get("spacesAccessId") or os.environ.get("SPACES_ACCESS_KEY_ID")
    secret = _settings.get("spacesSecretKey") or os.environ.get("SPACES_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        raise ResourceError("Spaces credentials not configured")
    return boto3.client(
        "s3",
        endpoint_url=os.environ["STAND_IN_DIGITALOCEAN_REST"] if rest else _settings["spacesEndpoint"],
        region_name=region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard"}),
    )


class SpacesBucket(Vendor):
    pulumi_type = "digitalocean:index/spacesBucket:SpacesBucket"
    replace_on = frozenset({"name", "region"})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "bucketUrn": (old or {}).get("bucketUrn", UNKNOWN)}

    def put(self, inputs: Values, *, new: bool) -> Values:
        name, region = inputs["name"], inputs["region"]
        s3, rest = client(region), client(region, rest=True)
        if new:
            where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            s3.create_bucket(Bucket=name, **where)
            rest.create_bucket(Bucket=name, **where)
        status = "Enabled" if inputs["versioning"]["enabled"] else "Suspended"
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
        rules = [
            {
                "ID": rule["id"],
                "Status": "Enabled" if rule["enabled"] else "Disabled",
                "Filter": {"Prefix": rule["prefix"]},
                "NoncurrentVersionExpiration": {"NoncurrentDays": rule["noncurrentVersionExpiration"]["days"]},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": rule["abortIncompleteMultipartUploadDays"]},
            }
            for rule in inputs["lifecycleRules"]
        ]
        rest.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
        return {"bucketUrn": f"do:space:{name}"}

    def get(self, inputs: Values) -> Values:
        name, region = inputs["name"], inputs["region"]
        s3 = client(region)
        s3.head_bucket(Bucket=name)
        status = s3.get_bucket_versioning(Bucket=name).get("Status")
        answer = client(region, rest=True).get_bucket_lifecycle_configuration(Bucket=name)
        rules = [
            {
                "id": rule["ID"],
                "enabled": rule["Status"] == "Enabled",
                "prefix": rule["Filter"]["Prefix"],
                "noncurrentVersionExpiration": {"days": rule["NoncurrentVersionExpiration"]["NoncurrentDays"]},
                "abortIncompleteMultipartUploadDays": rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"],
            }
            for rule in answer["Rules"]
        ]
        return {"versioning": {"enabled": status == "Enabled"}, "lifecycleRules": rules}

    def remove(self, outputs: Values) -> None:
        name, region = outputs["name"], outputs["region"]
        s3 = client(region)
        if outputs.get("forceDestroy"):
            found = s3.list_object_versions(Bucket=name)
            for item in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]:
                s3.delete_object(Bucket=name, Key=item["Key"], VersionId=item["VersionId"])
        s3.delete_bucket(Bucket=name)
        client(region, rest=True).delete_bucket(Bucket=name)


if __name__ == "__main__":
    serve("digitalocean", [SpacesBucket()], ["token", "spacesSecretKey"], _configure)
