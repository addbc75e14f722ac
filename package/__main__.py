"""The components as a package for programs in other languages, as Pulumi starts it from this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.package import serve

serve()
