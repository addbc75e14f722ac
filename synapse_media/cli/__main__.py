"""`python -m synapse_media.cli`: the command, for whoever starts it by an interpreter."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
