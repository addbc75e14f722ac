"""Record the state of a stack as this version leaves it, for later versions to be tried on.

    python -m tests.upgrades.record

Writes tests/upgrades/<version>/embedded.json: a stack of one store for each method, made on an embedded store that is
gone afterwards, so that the keys in it (encrypted under `PASSPHRASE`) open nothing. Once a release.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from synapse_media import __version__
from synapse_media.engine import embedded
from tests.providers.project import Stack, stack

HERE = Path(__file__).parent
PASSPHRASE = "a passphrase that everybody may know"
NAME = "recorded"
# Where the machine that recorded it had its files, and when: not ours to keep.
_DROPPED = ("sourcePosition", "stackTrace", "created", "modified", "time", "path")


def stores(running: embedded.Running) -> dict[str, dict[str, Any]]:
    """One for each method, with every kind of setting that ends in state."""
    common = {
        "provider": "s3_compatible",
        "endpoint": running.endpoint,
        "iam_endpoint": running.iam_endpoint,
        "settle_seconds": 0,
    }
    return {
        "module.example.com": {**common, "bucket": "recorded-module", "method": "synapse-s3-storage-provider"},
        "full.example.com": {
            **common,
            "bucket": "recorded-full",
            "method": "synapse-s3-storage-provider",
            "access": "full",
            "prefix": "media/",
            "noncurrent_days": 10,
            "keys": {"active": "b", "retiring": ["a"]},
        },
        "goofys.example.com": {**common, "bucket": "recorded-goofys", "method": "goofys"},
        "repo.example.com": {
            **common,
            "bucket": "recorded-repo",
            "method": "matrix-media-repo",
            "media_repo": {"s3_datastore_id": "0" * 40},
        },
        "wasabi.example.com": {
            "provider": "wasabi",
            "region": running.region,
            "endpoint": running.endpoint,
            "iam_endpoint": running.iam_endpoint,
            "bucket": "recorded-wasabi",
            "method": "synapse-s3-storage-provider",
        },
        "disk.example.com": {"method": "filesystem"},
    }


def clean(value: Any) -> Any:
    """Without the recording machine's paths and times."""
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items() if key not in _DROPPED}
    return [clean(item) for item in value] if isinstance(value, list) else value


def recorded(made: Stack) -> dict[str, Any]:
    state = made.engine.export(made.name)
    deployment = state["deployment"]
    deployment["resources"] = [
        # A provider's own inputs and outputs are values of ours; only what surrounds them is of the machine.
        {key: item if key in ("inputs", "outputs") else clean(item) for key, item in one.items() if key not in _DROPPED}
        for one in deployment["resources"]
    ]
    deployment["manifest"] = clean(deployment["manifest"])
    deployment["manifest"].pop("plugins", None)
    return {"stack_file": made.path.read_text(encoding="utf-8"), "state": state}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="synapse-media-record-") as base:
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            os.environ[variable] = f"{base}/{variable}"
        os.environ["PULUMI_CONFIG_PASSPHRASE"] = PASSPHRASE
        running = embedded.start()
        try:
            project = Path(base) / "project"
            project.mkdir()
            environment = {
                f"{prefix}_{name}": value
                for prefix in ("S3", "WASABI")
                for name, value in (
                    ("ACCESS_KEY_ID", running.access_key_id),
                    ("SECRET_ACCESS_KEY", running.secret_access_key),
                )
            }
            made = stack(project, NAME, environment)
            made.write(stores(running))
            made.up()
            result = json.dumps(recorded(made), indent=1, sort_keys=True)
        finally:
            embedded.wipe()
        for found in (base, str(Path.home()), running.secret_access_key):
            if found in result:
                raise SystemExit(f"the record holds {found!r}, which is of this machine")
    target = HERE / __version__ / "embedded.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(result + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
