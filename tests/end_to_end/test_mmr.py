"""matrix-media-repo's own code reads what is rendered, and stores with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from synapse_media.contract import StorageOutputs
from tests.end_to_end import by_hand, mmr, synapse
from tests.end_to_end.by_hand import Admin

DATASTORES = "media-repo.d/synapse-media.yaml"
KINDS = ["thumbnails", "remote_media", "local_media", "archives"]
IDS = {"s3_datastore_id": "0123456789", "file_datastore_id": "1e10"}
Rendered = Callable[..., dict[str, Path]]


@pytest.fixture
def amazon() -> StorageOutputs:
    """A store that is only read about."""
    return by_hand.proved(
        StorageOutputs(
            server_name="matrix.example.com",
            provider="amazon_s3",
            method="matrix-media-repo",
            access="least",
            bucket="012345",
            region="eu-central-1",
            endpoint_url="https://s3.eu-central-1.amazonaws.com",
            access_key_id="1234567890",
            secret_access_key="0x1F",
            storage_class="STANDARD_IA",
            media_repo=IDS,
        )
    )


@pytest.mark.parametrize("secret", ["0x1F", "0o14", "1e10", "yes", "a: b # c", "{{ x }}", "'\"\\\t", "\u00e9\u2028"])
def test_it_reads_what_was_meant(secret: str, amazon: StorageOutputs, rendered: Rendered) -> None:
    store = by_hand.proved(replace(amazon, secret_access_key=secret))
    assert mmr.show(rendered(store)[DATASTORES]) == [
        {"Type": "file", "Id": "1e10", "MediaKinds": [], "Options": {"path": "/data/media"}},
        {
            "Type": "s3",
            "Id": "0123456789",
            "MediaKinds": KINDS,
            "Options": {
                "endpoint": "s3.eu-central-1.amazonaws.com",
                "ssl": "true",
                "region": "eu-central-1",
                "bucketName": "012345",
                "storageClass": "STANDARD_IA",
                "accessKeyId": "1234567890",
                "accessSecret": secret,
            },
        },
    ]


def test_its_list_replaces_that_of_an_earlier_file(amazon: StorageOutputs, rendered: Rendered) -> None:
    directory = rendered(amazon)[DATASTORES].parent
    (directory / "media-repo.yaml").write_text("datastores: [{type: file, id: old, forKinds: [all], opts: {path: /x}}]")
    assert [datastore["Id"] for datastore in mmr.show(directory)] == list(reversed(IDS.values()))


def test_all_kinds_go_to_the_bucket_and_come_back(admin: Admin, rendered: Rendered) -> None:
    """Its minio client takes endpoint, ssl and region as they are; `store` fails unless the content comes back."""
    store = admin.provision(method="matrix-media-repo", media_repo=IDS)
    config = rendered(store)[DATASTORES]
    contents = [os.urandom(size) for size in (1, 100_000, 20 << 20, 5_000)]
    places = [mmr.store(config, kind, content) for kind, content in zip(KINDS, contents, strict=True)]
    assert admin.objects(store.bucket) == {
        place: hashlib.sha256(content).hexdigest() for place, content in zip(places, contents, strict=True)
    }
    for kind, place in zip(KINDS, places, strict=True):
        mmr.remove(config, kind, place)
    assert admin.objects(store.bucket) == {}


def test_an_endpoint_with_a_scheme_is_refused_at_first_use_only(admin: Admin, rendered: Rendered) -> None:
    """Why the endpoint is rendered without one: nothing would tell at the start."""
    store = admin.provision(method="matrix-media-repo", media_repo=IDS)
    config = rendered(store)[DATASTORES]
    host = store.endpoint_url.removeprefix("http://")
    config.write_text(config.read_text().replace(host, store.endpoint_url))
    assert mmr.show(config)[1]["Options"]["endpoint"] == store.endpoint_url
    with pytest.raises(mmr.ReaderError, match="Endpoint url cannot have fully qualified paths"):
        mmr.store(config, "local_media", b"content")


def test_synapse_leaves_media_to_it(amazon: StorageOutputs, rendered: Rendered, home: synapse.Home) -> None:
    drop_in = rendered(amazon)["conf.d/synapse-media.yaml"]
    assert home.load().enable_media_repo
    assert not home.load(drop_in).enable_media_repo
    with home.running(drop_in) as server:
        user = server.register("alice")
        with pytest.raises(synapse.AnswerError) as caught:
            server.upload(user, b"content")
    assert caught.value.status == 404
