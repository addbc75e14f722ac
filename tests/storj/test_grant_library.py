"""The vendor's library itself, run: are the vectors what it makes today, and what does it say that our grants allow."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from synapse_media.engine.obtain import GoProgram, build_once, say_on_stderr
from synapse_media.engine.paths import cache_dir
from synapse_media.plugin.storj_grant import OBJECTS, PERMISSIONS, Grant, parse
from tests.storj.vectors import GENERATOR, HERE, PARENTS, RESTRICTIONS, permissions, restricted

FULL = parse(PARENTS["full"])


@pytest.fixture(scope="module")
def storjkit() -> Path:
    """The program in go/, built once for what is in there."""
    if shutil.which("go") is None:
        pytest.skip("no Go here: what the vendor's library says was not asked; the vectors were compared")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(GENERATOR.iterdir())))
    home = cache_dir() / "tests" / f"storjkit-{digest.hexdigest()[:16]}"
    return build_once(GoProgram("storjkit", GENERATOR, "."), home, say_on_stderr)


def _ask(storjkit: Path, *grants: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [storjkit, "check"], input="\n".join(grants), capture_output=True, text=True, check=True, timeout=60
    )
    verdicts: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(verdicts) == len(grants)
    return verdicts


def _verdict(storjkit: Path, grant: Grant) -> dict[str, frozenset[str]]:
    (found,) = _ask(storjkit, grant.serialize())
    assert found["error"] == ""
    return {place: frozenset(words) for place, words in found["allowed"].items()}


def test_the_vectors_are_current(storjkit: Path) -> None:
    made = subprocess.run([storjkit, "vectors"], capture_output=True, check=True, timeout=60).stdout
    assert made == (HERE / "vectors.json").read_bytes(), "make them anew: see tests/storj/go/main.go"


@pytest.mark.parametrize("name", RESTRICTIONS)
def test_the_satellite_would_allow_what_was_asked(storjkit: Path, name: str) -> None:
    vector = RESTRICTIONS[name]
    parent, child = _ask(storjkit, PARENTS[vector["parent"]], restricted(vector).serialize())
    wanted = permissions(vector["allow"])
    assert child["error"] == ""
    asked = set(child["allowed"]["media/object"])
    # What the parent forbids stays forbidden.
    assert asked == wanted & set(parent["allowed"]["media/object"])
    # Looking at the bucket's own metadata is always allowed.
    assert set(child["allowed"]["media/"]) == asked | {"reads"}
    assert child["allowed"]["other/object"] == child["allowed"]["other/"] == []
    assert child["not_after"] == (vector["not_after"] or parent["not_after"])


def test_it_decrypts_the_bucket_and_no_other(storjkit: Path) -> None:
    parent, child = _ask(storjkit, PARENTS["full"], FULL.restricted(["media"]).serialize())
    assert set(parent["keys"]) == {"media", "other"}
    assert child["keys"] == {"media": parent["keys"]["media"]}


@pytest.mark.parametrize("permission", sorted(PERMISSIONS))
def test_each_permission_alone(storjkit: Path, permission: str) -> None:
    allowed = _verdict(storjkit, FULL.restricted(["media"], [permission]))["media/object"]
    # Whoever may set a retention may read it (macaroon.Caveat.Allows).
    implied = {"get_retention"} if permission == "put_retention" else set()
    assert allowed == {permission} | implied


def test_two_buckets(storjkit: Path) -> None:
    allowed = _verdict(storjkit, FULL.restricted(["other", "media"]))
    assert allowed["media/object"] == allowed["other/object"] == OBJECTS


def test_restricted_again(storjkit: Path) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    grant = FULL.restricted(["media", "other"], OBJECTS, soon).restricted(["media"], ["reads", "writes"])
    (found,) = _ask(storjkit, grant.serialize())
    assert set(found["allowed"]["media/object"]) == {"reads", "writes"}
    assert found["allowed"]["other/object"] == []
    assert found["not_after"] == int(soon.timestamp())


def test_an_ended_grant_allows_nothing(storjkit: Path) -> None:
    allowed = _verdict(storjkit, FULL.restricted(["media"], OBJECTS, datetime.now(UTC) - timedelta(seconds=2)))
    assert set(allowed.values()) == {frozenset()}


def test_what_the_library_refuses_we_refuse(storjkit: Path) -> None:
    broken = [PARENTS["full"][:-4], PARENTS["no-node-id"], "not-a-grant"]
    assert all(verdict["error"] for verdict in _ask(storjkit, *broken))
