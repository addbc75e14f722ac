"""The project's own files: its licence, its changelog, the checks before a commit, and what a release does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from synapse_media import __version__
from tests.providers.project import ROOT

SCRIPT = ROOT / ".github/release.py"


def _load() -> ModuleType:
    spec = spec_from_file_location("release", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = _load()

CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-12-01

### Added
- Something new.

### Fixed
- Something old.

## [1.2.2] - 2026-11-25

First.
"""


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(line) for line in listed.splitlines()]


def test_the_licence_is_what_the_metadata_says() -> None:
    assert project()["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert release.faults(changelog) == []
    assert "Unreleased" in release.sections(changelog)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (CHANGELOG.replace("## [Unreleased]\n", ""), "not [Unreleased]"),
        (CHANGELOG.replace("2026-12-01", "2026-13-01"), "not of the form"),
        (CHANGELOG.replace("[1.2.3]", "[1.2]"), "not of the form"),
        (CHANGELOG.replace("### Fixed", "### Mended"), "'### Mended'"),
    ],
)
def test_another_form_is_told(wrong: str, told: str) -> None:
    (fault,) = release.faults(wrong)
    assert told in fault


def test_the_notes_are_the_changelog_s() -> None:
    assert release.notes("v1.2.3", "1.2.3", CHANGELOG) == (
        "### Added\n- Something new.\n\n### Fixed\n- Something old.\n"
    )
    assert release.notes("v1.2.2", "1.2.2", CHANGELOG) == "First.\n"


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "told"),
    [
        ("v1.2.4", "1.2.3", CHANGELOG, "tag v1.2.3"),
        ("1.2.3", "1.2.3", CHANGELOG, "tag v1.2.3"),
        ("v1.2.4", "1.2.4", CHANGELOG, "nothing under '## [1.2.4]"),
        ("v1.2.3", "1.2.3", CHANGELOG.replace("[Unreleased]", "[Unreleased]\n- Later."), "under [Unreleased]"),
        ("v1.2.3", "1.2.3", CHANGELOG.replace("### Fixed", "### Mended"), "'### Mended'"),
    ],
)
def test_a_release_that_does_not_fit_is_refused(tag: str, version: str, changelog: str, told: str) -> None:
    with pytest.raises(release.ReleaseError, match=re.escape(told)):
        release.notes(tag, version, changelog)


def test_the_steps_of_the_release_build_what_it_uploads(tmp_path: Path) -> None:
    """The workflow's own commands, in a checkout whose changelog is ready for the release; nothing is published."""
    for folder in ("synapse_media", "components", "bin", "ci", "stacks", "examples"):
        for name in tracked(folder):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".github").mkdir()
    shutil.copy2(SCRIPT, tmp_path / ".github")
    for name in ("LICENSE", "README.md", "pyproject.toml", ".gitignore", "__main__.py"):
        shutil.copy2(ROOT / name, tmp_path)
    changelog = f"# Changelog\n\n## [Unreleased]\n\n## [{__version__}] - 2026-12-01\n\n### Added\n- All of it.\n"
    (tmp_path / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    steps = {step["name"]: step["run"] for step in workflow["jobs"]["build"]["steps"] if "name" in step}
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GITHUB_REF_NAME": f"v{__version__}"}
    for name in ("Notes", "Wheel"):
        done = subprocess.run(
            ["bash", "-e", "-c", steps[name]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "notes.md").read_text(encoding="utf-8") == "### Added\n- All of it.\n"
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [f"synapse_media-{__version__}-py3-none-any.whl"]


def test_publishing_keeps_no_token() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    jobs = workflow["jobs"]
    assert jobs["wheel"]["permissions"] == {"id-token": "write"}
    assert jobs["wheel"]["environment"] == "pypi"
    # Nothing is published before every test has passed.
    for name in ("image", "wheel"):
        assert set(jobs[name]["needs"]) == {"test", "build"}


def test_a_commit_is_checked_as_make_check_does() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    wanted = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert [hook["entry"] for hook in hooks] == wanted


def test_every_go_module_is_kept_up_to_date() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]
    (go,) = (entry for entry in updates if entry["package-ecosystem"] == "gomod")
    assert go["directories"] == sorted(f"/{path.parent}" for path in tracked("*go.mod"))


def test_the_forms_for_issues_are_whole() -> None:
    """https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests/syntax-for-issue-forms"""
    forms = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"]
        assert form["description"]
        ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
        assert len(ids) == len(set(ids))
        for item in form["body"]:
            assert item["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
            assert "value" in item["attributes"] or item["attributes"]["label"]


def test_the_site_is_published_from_what_make_docs_builds_and_by_no_stored_token() -> None:
    text = (ROOT / ".github/workflows/site.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    runs = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    # What was not generated anew before the merge is no documentation of it.
    assert runs == ["make docs", "git diff --exit-code"]
    (path,) = (step["with"]["path"] for step in jobs["build"]["steps"] if "pages-artifact" in step.get("uses", ""))
    assert path == yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nplugins:")[0])["site_dir"]
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert "permissions" not in jobs["build"]
    assert "secrets." not in text
