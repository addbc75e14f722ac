"""Entry point of the plugin process; the engine starts it through `bin/pulumi-resource-s3store`."""

import sys

from .families import resources
from .protocol import serve

if __name__ == "__main__":
    serve(resources(), sys.argv[1:])
