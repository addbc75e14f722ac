"""Record the states of stacks as this version leaves them, for later versions to be tried on.

    python -m tests.upgrades.record [NAME ...]

Writes tests/upgrades/<version>/NAME.json for each of PLACES: stores made on an embedded store, a double or a stand-in
(the record's `made_on` says which) that is gone afterwards, so that the keys in it, encrypted under `PASSPHRASE`, open
nothing. Once a release; `garage` needs `make garage` before it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from moto.server import ThreadedMotoServer

from synapse_media import __version__
from synapse_media.engine import embedded
from tests.doubles import storj_auth, vendor_plugin
from tests.doubles.b2_simulator import b2_double
from tests.doubles.spaces_api import TOKEN, spaces_api
from tests.providers import garage_server
from tests.providers.project import ROOT, Stack, stack

HERE = Path(__file__).parent
PASSPHRASE = "a passphrase that everybody may know"
NAME = "recorded"
PLACEHOLDER = "not-a-credential"
# Where the machine that recorded it had its files, and when: not ours to keep.
_DROPPED = ("sourcePosition", "stackTrace", "created", "modified", "time", "path")
_MODULE = "synapse-s3-storage-provider"
_ROTATING = {"keys": {"active": "b", "retiring": ["a"]}}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the stores of a record are made.

    Args:
        made_on: what it is in truth.
        environment: the admin credentials, and where a stand-in finds what it stands on.
        placeholders: variables that a preview looks for but does not use.
        secrets: further ones that the record may not hold.
    """

    made_on: str
    stores: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]
    placeholders: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


@contextmanager
def _store(*, tls: bool = False, region: str = embedded.REGION) -> Iterator[embedded.Running]:
    with patch.object(embedded, "REGION", region):
        running = embedded.start(tls=tls, name="recorded")
        try:
            yield running
        finally:
            embedded.wipe(name="recorded")


@contextmanager
def _moto() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        # It is one for the process: what an earlier record made is still there.
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=10).close()
        yield url
    finally:
        server.stop()


def _make_bucket(running: embedded.Running, name: str) -> str:
    """One to be taken over."""
    boto3.client(
        "s3",
        endpoint_url=running.endpoint,
        region_name=running.region,
        aws_access_key_id=running.access_key_id,
        aws_secret_access_key=running.secret_access_key,
        verify=str(running.ca_file) if running.ca_file else None,
    ).create_bucket(Bucket=name)
    return name


@contextmanager
def on_embedded() -> Iterator[Place]:
    """One store for each method, with every kind of setting that ends in state."""
    with _store() as running:
        environment = {
            f"{prefix}_{name}": value
            for prefix in ("S3", "WASABI")
            for name, value in (
                ("ACCESS_KEY_ID", running.access_key_id),
                ("SECRET_ACCESS_KEY", running.secret_access_key),
            )
        }
        common = {
            "provider": "s3_compatible",
            "endpoint": running.endpoint,
            "iam_endpoint": running.iam_endpoint,
            "settle_seconds": 0,
        }
        stores: dict[str, dict[str, Any]] = {
            "module.example.com": {**common, "bucket": "recorded-module", "method": _MODULE},
            "full.example.com": {
                **common,
                **_ROTATING,
                "bucket": "recorded-full",
                "method": _MODULE,
                "access": "full",
                "prefix": "media/",
                "noncurrent_days": 10,
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
                "method": _MODULE,
            },
            "disk.example.com": {"method": "filesystem"},
        }
        yield Place("the embedded store", stores, environment)


@contextmanager
def on_amazon_s3() -> Iterator[Place]:
    """With keys, with a role, and taken over."""
    vendor_plugin.install()
    with _moto() as rest, _store(tls=True) as running:
        credentials = {
            "AWS_ACCESS_KEY_ID": running.access_key_id,
            "AWS_SECRET_ACCESS_KEY": running.secret_access_key,
        }
        wiring = {"AWS_CA_BUNDLE": str(running.ca_file), "STAND_IN_AWS_REST": rest}
        common = {
            "provider": "amazon_s3",
            "region": running.region,
            "endpoint": running.endpoint,
            "iam_endpoint": running.iam_endpoint,
            "settle_seconds": 0,
        }
        stores: dict[str, dict[str, Any]] = {
            "module.example.com": {
                **common,
                "bucket": "recorded-module",
                "method": _MODULE,
                "tags": {"service": "matrix"},
            },
            "full.example.com": {
                **common,
                **_ROTATING,
                "bucket": "recorded-full",
                "method": "goofys",
                "access": "full",
                "noncurrent_days": 10,
                "abort_days": 3,
            },
            "role.example.com": {**common, "bucket": "recorded-role", "method": _MODULE, "keyless": True},
            "old.example.com": {
                **common,
                "bucket": _make_bucket(running, "recorded-old"),
                "method": _MODULE,
                "adopt": True,
            },
        }
        made_on = "a stand-in for the vendor's plugin, on the embedded store and moto"
        yield Place(made_on, stores, credentials | wiring, tuple(credentials))


@contextmanager
def _spaces(*, token_alone: bool) -> Iterator[Place]:
    vendor_plugin.install()
    region = "fra1"
    with _moto() as rest, _store(region=region) as running, spaces_api(running) as api:
        common = {
            "provider": "digitalocean_spaces",
            "region": region,
            "endpoint": running.endpoint,
            "api_endpoint": api.url,
            "settle_seconds": 0,
        }
        stores: dict[str, dict[str, Any]] = {
            "module.example.com": {**common, "bucket": "recorded-module", "method": _MODULE},
            "goofys.example.com": {
                **common,
                **_ROTATING,
                "bucket": "recorded-goofys",
                "method": "goofys",
                "noncurrent_days": 10,
            },
        }
        environment = {"DIGITALOCEAN_TOKEN": TOKEN, "STAND_IN_DIGITALOCEAN_REST": rest}
        if not token_alone:
            environment["SPACES_ACCESS_KEY_ID"] = running.access_key_id
            environment["SPACES_SECRET_ACCESS_KEY"] = running.secret_access_key
            # Only with a key of the user's own.
            stores["old.example.com"] = {
                **common,
                "bucket": _make_bucket(running, "recorded-old"),
                "method": _MODULE,
                "adopt": True,
            }
        made_on = "a stand-in for the vendor's plugin and a double of the keys' API, on the embedded store and moto"
        placeholders = ("DIGITALOCEAN_TOKEN",) if token_alone else ()
        yield Place(made_on, stores, environment, placeholders, (running.secret_access_key,))


def on_digitalocean_spaces() -> AbstractContextManager[Place]:
    return _spaces(token_alone=False)


def on_digitalocean_spaces_by_token() -> AbstractContextManager[Place]:
    """The stack has its own full-access key."""
    return _spaces(token_alone=True)


@contextmanager
def on_storj() -> Iterator[Place]:
    parent = json.loads((ROOT / "tests/storj/vectors.json").read_text(encoding="utf-8"))["parents"]["full"]
    with _store() as running, storj_auth.in_front_of(running) as auth:
        common = {"provider": "storj", "auth_endpoint": auth.url}
        stores: dict[str, dict[str, Any]] = {
            "module.example.com": {**common, "bucket": "recorded-module", "method": _MODULE},
            "full.example.com": {
                **common,
                **_ROTATING,
                "bucket": "recorded-full",
                "method": "goofys",
                "access": "full",
                "expires_in_days": 0,
            },
        }
        made_on = "a double of the auth service, on the embedded store"
        yield Place(made_on, stores, {"UPLINK_ACCESS": parent}, (), (running.secret_access_key,))


@contextmanager
def on_backblaze_b2() -> Iterator[Place]:
    with _store() as running, b2_double(running) as double:
        common = {"provider": "backblaze_b2", "realm": double.API_URL}
        stores: dict[str, dict[str, Any]] = {
            "module.example.com": {**common, "bucket": "recorded-module", "method": _MODULE},
            "full.example.com": {
                **common,
                **_ROTATING,
                "bucket": "recorded-full",
                "method": "goofys",
                "access": "full",
                "noncurrent_days": 10,
            },
        }
        environment = {"B2_APPLICATION_KEY_ID": double.key_id, "B2_APPLICATION_KEY": double.key}
        made_on = "a double (the vendor's own simulator of its API), on the embedded store"
        yield Place(made_on, stores, environment, (), (running.secret_access_key,))


@contextmanager
def on_garage() -> Iterator[Place]:
    with (
        tempfile.TemporaryDirectory(prefix="synapse-media-garage-") as folder,
        garage_server.running(Path(folder)) as node,
    ):
        common = {"provider": "garage", "endpoint": node.endpoint, "admin_endpoint": node.admin_endpoint}
        stores: dict[str, dict[str, Any]] = {
            "module.example.com": {
                **common,
                "bucket": "recorded-module",
                "method": _MODULE,
                "quota_bytes": 50_000_000,
            },
            "goofys.example.com": {**common, **_ROTATING, "bucket": "recorded-goofys", "method": "goofys"},
        }
        yield Place(f"Garage {garage_server.VERSION}", stores, {"GARAGE_ADMIN_TOKEN": node.token})


PLACES = {
    "embedded": on_embedded,
    "amazon_s3": on_amazon_s3,
    "digitalocean_spaces": on_digitalocean_spaces,
    "digitalocean_spaces_by_token": on_digitalocean_spaces_by_token,
    "storj": on_storj,
    "backblaze_b2": on_backblaze_b2,
    "garage": on_garage,
}


def clean(value: Any) -> Any:
    """Without the recording machine's paths and times."""
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items() if key not in _DROPPED}
    return [clean(item) for item in value] if isinstance(value, list) else value


def recorded(made: Stack, place: Place) -> dict[str, Any]:
    state = made.engine.export(made.name)
    deployment = state["deployment"]
    deployment["resources"] = [
        # A provider's own inputs and outputs are values of ours; only what surrounds them is of the machine.
        {key: item if key in ("inputs", "outputs") else clean(item) for key, item in one.items() if key not in _DROPPED}
        for one in deployment["resources"]
    ]
    deployment["manifest"] = clean(deployment["manifest"])
    deployment["manifest"].pop("plugins", None)
    return {
        "made_on": place.made_on,
        "placeholders": list(place.placeholders),
        "stack_file": made.path.read_text(encoding="utf-8"),
        "state": state,
    }


def record(name: str) -> Path:
    with tempfile.TemporaryDirectory(prefix="synapse-media-record-") as base:
        for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            os.environ[variable] = f"{base}/{variable}"
        os.environ["PULUMI_CONFIG_PASSPHRASE"] = PASSPHRASE
        project = Path(base) / "project"
        project.mkdir()
        with PLACES[name]() as place:
            made = stack(project, NAME, place.environment)
            made.write(place.stores)
            made.up()
            result = json.dumps(recorded(made, place), indent=1, sort_keys=True)
            issued = [made.outputs(server_name).secret_access_key for server_name in place.stores]
        given = [value for variable, value in place.environment.items() if not variable.startswith("STAND_IN_")]
        for found in (base, str(ROOT), str(Path.home()), *given, *place.secrets, *filter(None, issued)):
            if found in result:
                raise SystemExit(f"the record {name} holds a secret or a path of this machine")
    target = HERE / __version__ / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(result + "\n", encoding="utf-8")
    return target


def main() -> None:
    for name in sys.argv[1:] or PLACES:
        print(record(name))


if __name__ == "__main__":
    main()
