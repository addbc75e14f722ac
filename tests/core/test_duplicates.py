"""One thing under two entries of the state: which of them is left out before a run would delete the thing."""

from __future__ import annotations

from typing import Any

from synapse_media.guards.duplicates import duplicates, without

STORE = "urn:pulumi:s::synapse-media::synapse-media:store"
CONNECTION = {"endpoint": "http://s3", "iamEndpoint": "http://iam"}


def entry(
    kind: str, values: dict[str, Any], family: str = "S3Compatible", name: str = "a", **more: Any
) -> dict[str, Any]:
    return {"urn": f"{STORE}:{family}${kind}::{name}", "type": kind, "inputs": values, "outputs": values, **more}


def state(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"deployment": {"resources": list(resources)}}


def deleting(*resources: dict[str, Any], making: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {
        "steps": [
            *({"op": "delete", "urn": one["urn"], "oldState": one} for one in resources),
            *({"op": "create", "urn": one["urn"], "newState": one} for one in making),
        ]
    }


USER = {"userName": "u", "connection": CONNECTION}
POLICY = {"userName": "u", "policyName": "p", "connection": CONNECTION}
BUCKET = {"bucket": "b", "connection": CONNECTION}


def test_what_a_replacement_took_over_is_not_deleted_as_the_old_one() -> None:
    living, old = entry("s3store:index:User", USER), entry("s3store:index:User", USER, delete=True)
    assert duplicates(state(living, old), {}) == [1]
    other = entry("s3store:index:User", {**USER, "userName": "v"}, delete=True)
    assert duplicates(state(living, other), {}) == []


def test_a_ring_is_known_by_its_keys() -> None:
    keys = {"keys": {"a": {"accessKeyId": "K1"}}, "userName": "u"}
    living, same = entry("s3store:index:KeyRing", keys), entry("s3store:index:KeyRing", keys, delete=True)
    older = entry("s3store:index:KeyRing", {**keys, "keys": {"a": {"accessKeyId": "K0"}}}, delete=True)
    assert duplicates(state(living, same), {}) == [1]
    assert duplicates(state(living, older), {}) == []


def test_another_provider_on_the_same_server_takes_over() -> None:
    kinds = {"s3store:index:User": USER, "s3store:index:UserPolicy": POLICY, "s3store:index:Bucket": BUCKET}
    old = [entry(kind, values) for kind, values in kinds.items()]
    new = tuple(entry(kind, values, "Wasabi") for kind, values in kinds.items())
    assert duplicates(state(*old), deleting(*old, making=new)) == [0, 1, 2]
    elsewhere = {"endpoint": "http://other", "iamEndpoint": "http://other"}
    moved = tuple(entry(kind, {**values, "connection": elsewhere}, "Wasabi") for kind, values in kinds.items())
    assert duplicates(state(*old), deleting(*old, making=moved)) == []
    of_another = tuple(entry(kind, values, "Wasabi", "b") for kind, values in kinds.items())
    assert duplicates(state(*old), deleting(*old, making=of_another)) == []


def test_what_the_vendors_plugin_made_is_handed_over_with_its_settings() -> None:
    bucket = entry("aws:s3/bucket:Bucket", {"bucket": "b"}, "AmazonS3")
    setting = entry("aws:s3/bucketVersioning:BucketVersioning", {"bucket": "b"}, "AmazonS3", deletedWith=bucket["urn"])
    user = entry("aws:iam/user:User", {"name": "u"}, "AmazonS3")
    policy = entry("aws:iam/userPolicy:UserPolicy", {"user": "u", "name": "p"}, "AmazonS3")
    ours = (
        entry("s3store:index:Bucket", BUCKET, "AmazonS3"),
        entry("s3store:index:User", USER, "AmazonS3"),
        entry("s3store:index:UserPolicy", POLICY, "AmazonS3"),
    )
    export = state(bucket, setting, user, policy)
    positions = duplicates(export, deleting(bucket, setting, user, policy, making=ours))
    assert positions == [0, 2, 3]
    assert without(export, positions)["deployment"]["resources"] == []
    # The other way round the vendor's plugin fails where the thing is there, so that nothing is deleted.
    back = state(*ours)
    assert duplicates(back, deleting(*ours, making=(bucket, user, policy))) == []
