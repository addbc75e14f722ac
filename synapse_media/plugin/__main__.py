"""Entry point of the plugin process: of `bin/pulumi-resource-s3store`, and of the console script of that name."""

import sys

from .families import resources
from .protocol import serve


def main() -> None:
    """Serve the engine that started this process, until it ends."""
    serve(resources(), sys.argv[1:])


if __name__ == "__main__":
    main()
