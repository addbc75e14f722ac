"""A stack that uses what another one made: `pulumi config set media organization/mixed/prod` says which."""

import pulumi

SERVER_NAME = "example.com"

media = pulumi.StackReference(pulumi.Config().require("media"))
store = media.require_output("stores").apply(lambda stores: stores[SERVER_NAME])
secrets = media.require_output("store_secrets").apply(lambda found: found[SERVER_NAME])

pulumi.export("bucket", store["bucket"])
pulumi.export("endpoint_url", store["endpoint_url"])
pulumi.export("access_key_id", store["access_key_id"])
pulumi.export("secret_access_key", secrets["secret_access_key"])  # this one alone is a secret
