"""A component of one's own around a store whose bucket and endpoints come from another resource."""

import json
from pathlib import Path

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider, UpdateResult
from synapse_media.components import S3Compatible, S3CompatibleArgs


class _PlaceProvider(ResourceProvider):
    def create(self, props):
        found = json.loads(Path(props["inventory"]).read_text())
        return CreateResult(id_=props["inventory"], outs={**props, **found})

    def update(self, _id, _olds, news):
        # Without it, Pulumi would keep none of the outputs where the inventory has another name.
        return UpdateResult(outs={**news, **json.loads(Path(news["inventory"]).read_text())})


class Place(Resource):
    """Where the store is, as an inventory says; any other resource's outputs would do."""

    bucket: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    iam_endpoint: pulumi.Output[str]

    def __init__(self, name, inventory, opts=None):
        props = {"inventory": inventory, "bucket": None, "endpoint": None, "iam_endpoint": None}
        super().__init__(_PlaceProvider(), name, props, opts)


class Homeserver(pulumi.ComponentResource):
    """A homeserver, with its media."""

    def __init__(self, name, server_name, allow=(), opts=None):
        super().__init__("acme:matrix:Homeserver", name, {}, opts)
        place = Place(name, "inventory.json", pulumi.ResourceOptions(parent=self))
        self.media = S3Compatible(
            f"{name}-media",
            S3CompatibleArgs(
                server_name=server_name,
                bucket=place.bucket,
                endpoint=place.endpoint,
                iam_endpoint=place.iam_endpoint,
                allow=allow,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


# A provider of one's own, with the admin credential of this site: it is handed down to all that is made below.
site = pulumi.ProviderResource(
    "s3store",
    "site",
    {},
    pulumi.ResourceOptions(
        env_var_mappings={
            "SITE_ACCESS_KEY_ID": "S3_ACCESS_KEY_ID",
            "SITE_SECRET_ACCESS_KEY": "S3_SECRET_ACCESS_KEY",
        }
    ),
)
allow = pulumi.Config().get_object("allow") or []
matrix = Homeserver("matrix", "example.com", allow, pulumi.ResourceOptions(providers=[site]))

pulumi.export("bucket", matrix.media.bucket)
pulumi.export("endpoint_url", matrix.media.endpoint_url)
pulumi.export("proof", matrix.media.proof)
pulumi.export("secret_access_key", matrix.media.secret_access_key)
