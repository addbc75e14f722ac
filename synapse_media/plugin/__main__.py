"""Entry point of the plugin process: of `bin/pulumi-resource-s3store`, and of the console script of that name."""

import sys

from .backblaze_b2 import B2Bucket, B2KeyRing, B2Lender
from .bucket import Bucket
from .digitalocean_spaces import SpacesAdminKey, SpacesKeyRing, SpacesLender
from .existing_key import ExistingKey
from .garage import GarageBucket, GarageKeyRing, GarageLender
from .iam import KeyRing, User, UserPolicy
from .proof import ProofResource
from .protocol import serve
from .storj import StorjBucket, StorjKeyRing, StorjLender


def main() -> None:
    """Serve the engine that started this process, until it ends."""
    resources = [
        Bucket(),
        User(),
        UserPolicy(),
        KeyRing(),
        ExistingKey(),
        B2Bucket(),
        B2KeyRing(),
        GarageBucket(),
        GarageKeyRing(),
        StorjBucket(),
        StorjKeyRing(),
        SpacesKeyRing(),
        SpacesAdminKey(),
        ProofResource(
            {
                "backblaze_b2": B2Lender(),
                "garage": GarageLender(),
                "spaces": SpacesLender(),
                "storj": StorjLender(),
            }
        ),
    ]
    serve(resources, sys.argv[1:])


if __name__ == "__main__":
    main()
