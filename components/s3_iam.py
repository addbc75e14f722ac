"""A store with the S3 and IAM query APIs: bucket, user, key ring, inline policy, proof."""

from __future__ import annotations

import pulumi

from synapse_media.settings import StoreSettings

from . import policies, resources
from .store import Store


class S3IamStore(Store):
    """Bucket, user under a path of ours, its keys and its one inline policy. No secret but the key's."""

    def __init__(self, name: str, store: StoreSettings) -> None:
        super().__init__(name, store)
        inputs, known_lacks = self.bucket_inputs()
        bucket = resources.Bucket(name, inputs, self.of_bucket())
        connection = self.connection()
        user = resources.User(
            name,
            {
                "userName": store.user,
                "path": f"/synapse-media/{pulumi.get_stack()}/",
                "connection": connection,
                "adopt": store.adopt,
            },
            self.child(),
        )
        ring = resources.KeyRing(
            name,
            {
                "userName": store.user,
                "active": store.keys.active,
                "slots": sorted(store.keys.slots),
                "retireConfirmed": "retire-key" in store.allow,
                "connection": connection,
            },
            self.child(user),
        )
        document = self.key_policy()
        policy = resources.UserPolicy(
            name,
            {
                "userName": store.user,
                "policyName": "synapse-media",
                "policy": policies.to_json(document),
                "connection": connection,
            },
            self.child(user),
        )
        self.finish(
            region=store.region,
            endpoint_url=store.endpoint,
            access_key_id=ring.out("accessKeyId"),
            secret_access_key=ring.out("secretAccessKey"),
            lacks=bucket.out("lacks").apply(lambda found: [*known_lacks, *(found or [])]),
            made=(bucket, ring, policy),
            user=store.user,
            policy=document,
            created_at=ring.out("keys").apply(lambda keys: keys[store.keys.active]["createdAt"]),
        )
