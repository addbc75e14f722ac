"""Entry point of the plugin process; the engine starts it through `bin/pulumi-resource-s3store`."""

import sys

from .backblaze import B2Bucket, B2KeyRing, B2Lender
from .bucket import Bucket
from .existing_key import ExistingKey
from .iam import KeyRing, User, UserPolicy
from .proof import ProofResource
from .protocol import serve
from .storj import StorjBucket, StorjKeyRing, StorjLender

if __name__ == "__main__":
    resources = [
        Bucket(),
        User(),
        UserPolicy(),
        KeyRing(),
        ExistingKey(),
        B2Bucket(),
        B2KeyRing(),
        StorjBucket(),
        StorjKeyRing(),
        ProofResource({"backblaze_b2": B2Lender(), "storj": StorjLender()}),
    ]
    serve(resources, sys.argv[1:])
