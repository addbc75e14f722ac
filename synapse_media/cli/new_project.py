"""A Pulumi project of one's own, as `synapse-media init` makes it where there is none."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import synapse_media
from synapse_media.errors import UsageError
from synapse_media.schema import resources

PACKAGE = Path(synapse_media.__file__).resolve().parent
VENV = ".venv"
"""Where an environment is looked for that does not run this."""


PLUGIN = "bin/pulumi-resource-s3store"
STACKS = "stacks"
"""The directory of the stack files."""


CI = {
    "github": ("preview.yml", ".github/workflows/preview.yml"),
    "gitlab": ("gitlab.yml", ".gitlab-ci.yml"),
    "forgejo": ("forgejo.yml", ".forgejo/workflows/preview.yml"),
    "gitea": ("forgejo.yml", ".gitea/workflows/preview.yml"),
    "woodpecker": ("woodpecker.yml", ".woodpecker/preview.yml"),
}
"""By the system that builds: the file of this package, and its place in a project."""


@dataclass(frozen=True, slots=True)
class Written:
    """The files that were written, and those that were there and kept, each with the lines that it lacks."""

    files: tuple[str, ...] = ()
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def require(project: Path) -> None:
    """Raise UsageError where no project can be made in a directory, before anything is asked or written."""
    if find_spec("synapse_media.components") is None:
        raise UsageError(
            f"no Pulumi.yaml in {project} or above it, and this synapse-media is that of a checkout, which serves the "
            "checkout's project alone: go there, or install the wheel to make a project here (docs/library.md)"
        )
    other = next((name for name in ("Pulumi.yml", "Pulumi.json") if (project / name).exists()), "")
    if other:
        raise UsageError(
            f"{project} has a project in {other}, which these commands do not read: rename it to Pulumi.yaml (of JSON, "
            "too: JSON is YAML), and run this again"
        )
    if (project / "__main__.py").exists():
        raise UsageError(
            f"{project} has a program, __main__.py, but no Pulumi.yaml: make the project in an empty directory, or "
            "make this one a project with `pulumi new` and add the stores to it (docs/library.md)"
        )


def make(project: Path, extra: str, ci: str = "github") -> Written:
    """Write the files of a project; one that is there is kept as it is.

    Args:
        ci: whose recipe is written, a name in CI.
        extra: the extra of this package that the first stack needs; "" for none.
    """
    # A release may change what its program and its recipes have to be; a patch does not.
    requirement = f"synapse-media{f'[{extra}]' if extra else ''}~={synapse_media.__version__}"
    environment = _environment(project)
    venv = environment or VENV
    ignored = (f"/{venv}/", "/out/", f"/{STACKS}/Pulumi.embedded.yaml", "__pycache__/")
    files = {
        "Pulumi.yaml": _project_file(project, environment),
        "__main__.py": (PACKAGE / "project/__main__.py")
        .read_text(encoding="utf-8")
        .replace("from components import", "from synapse_media.components import"),
        "requirements.txt": f"{requirement}\n",
        ".gitignore": "".join(f"{line}\n" for line in ignored),
        PLUGIN: (PACKAGE / PLUGIN).read_text(encoding="utf-8").replace("/.venv/", f"/{venv}/"),
        **{name: (PACKAGE / name).read_text(encoding="utf-8") for name in ("ci/preview.sh", "ci/up.sh")},
        CI[ci][1]: (PACKAGE / "ci" / CI[ci][0]).read_text(encoding="utf-8"),
    }
    needed = {"requirements.txt": (requirement,), ".gitignore": ignored}
    kept = {}
    for name, text in files.items():
        path = project / name
        if path.exists():
            there = path.read_text(encoding="utf-8").splitlines()
            kept[name] = tuple(line for line in needed.get(name, ()) if line not in there)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if text.startswith("#!"):
            path.chmod(0o755)
    return Written(tuple(name for name in files if name not in kept), kept)


def _project_file(project: Path, environment: str | None) -> str:
    import yaml

    runtime: dict[str, Any] = {"name": "python", "options": {"toolchain": "pip"}}
    settings: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", project.name).strip("-")[:100] or "synapse-media",
        "description": "Object storage for a Matrix homeserver's media",
        "runtime": runtime,
        "stackConfigDir": STACKS,
        # Found so, the plugin needs no activated environment; of one on PATH pulumi warns each time.
        "plugins": {"providers": [{"name": resources.PLUGIN, "path": Path(PLUGIN).parent.as_posix()}]},
    }
    if environment is not None:
        runtime["options"]["virtualenv"] = environment
    return yaml.safe_dump(settings, sort_keys=False)


def _environment(project: Path) -> str | None:
    """The virtual environment that runs this, relative to the project; None where it lies elsewhere."""
    if sys.prefix == sys.base_prefix:
        return None
    prefix = Path(sys.prefix)
    place = prefix.parent.resolve() / prefix.name
    return place.relative_to(project.resolve()).as_posix() if place.is_relative_to(project.resolve()) else None
