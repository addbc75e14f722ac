"""A runbook's copies and comparisons, as they are printed: there and back again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from synapse_media.contract import to_json
from synapse_media.methods import FILESYSTEM, MODULE
from synapse_media.runbook import Step, runbook
from synapse_media.runbook.media import COMMAND
from synapse_media.runbook.rclone import KEYS
from tests.end_to_end.by_hand import Admin
from tests.renderer import samples


def digests(directory: Path) -> dict[str, str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("prefix", ["", "media/"])
def test_what_a_runbook_copies_is_compared_by_content_and_comes_back(prefix: str, admin: Admin, tmp_path: Path) -> None:
    media, keys = tmp_path / "media", tmp_path / "keys"
    for name in ("local_content/aa/bb/one", "remote_content/example.org/cc/dd/two", "url_cache/2026-01-01/three"):
        (media / name).parent.mkdir(parents=True)
        (media / name).write_bytes(os.urandom(100_000))
        os.utime(media / name, (time.time() - 3600,) * 2)
    before = digests(media)
    stored = {name: digest for name, digest in before.items() if not name.startswith("url_cache")}
    store = admin.provision(prefix=prefix)
    for place in ("old", "new"):
        (keys / place).mkdir(parents=True)
        (keys / place / "store.json").write_text(json.dumps(to_json(store)))
    there = runbook(samples.store(method=FILESYSTEM), MODULE, form="plain", target=store, media_path=str(media)).steps
    back = runbook(store, FILESYSTEM, form="plain", media_path=str(media)).steps

    def follow(steps: Sequence[Step], *titles: str) -> int:
        """Do the steps of these titles, in one shell as the runbook says; its exit code."""
        commands = [
            command for title in titles for step in steps if step.title.startswith(title) for command in step.commands
        ]
        script = "\n".join(["set -e", *commands])
        script = script.replace(COMMAND, str(Path(sys.executable).with_name("synapse-media"))).replace(KEYS, str(keys))
        return subprocess.run(["bash", "-c", script], check=False, capture_output=True).returncode

    # The right name, and half the content.
    half = (media / "local_content/aa/bb/one").read_bytes()[:50_000]
    admin.client("s3").put_object(Bucket=store.bucket, Key=f"{prefix}local_content/aa/bb/one", Body=half)
    assert follow(there, "Compare") != 0
    assert follow(there, "Copy the existing", "Compare") == 0
    assert admin.objects(store.bucket) == {f"{prefix}{name}": digest for name, digest in stored.items()}
    assert follow(there, "Copy the existing") == 0

    for name in ("local_content/aa", "remote_content/example.org"):
        shutil.rmtree(media / name)
    assert follow(back, "Copy back", "Compare") == 0
    assert digests(media) == before

    (media / "local_content/aa/bb/one").write_bytes(os.urandom(100_000))
    assert follow(back, "Compare") != 0
