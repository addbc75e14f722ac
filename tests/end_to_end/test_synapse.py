"""A real Synapse with its real S3 module, on what is rendered, as it is: media goes to the bucket and comes back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from synapse_media.cli import main
from synapse_media.contract import StorageOutputs
from synapse_media.engine.embedded import Running
from synapse_media.methods import Operation
from tests.end_to_end import by_hand, synapse, systemd
from tests.end_to_end.aws_double import answering_403_for_missing_keys
from tests.end_to_end.by_hand import Admin
from tests.providers.project import SERVER, stack

DROP_IN = "conf.d/synapse-media.yaml"
Rendered = Callable[..., dict[str, Path]]


@pytest.fixture(params=["", "media/"], ids=["whole-bucket", "prefix"])
def provisioned(
    request: pytest.FixtureRequest, embedded_store: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[StorageOutputs, Path]:
    """A store made, proved and rendered by the commands themselves, and the directory with its files."""
    environment = {
        "S3_ACCESS_KEY_ID": embedded_store.access_key_id,
        "S3_SECRET_ACCESS_KEY": embedded_store.secret_access_key,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    project, out = tmp_path / "project", tmp_path / "out"
    project.mkdir()
    name = f"synapse{len(request.param)}"
    found = stack(project, name, environment)
    found.store(
        provider="s3_compatible",
        endpoint=embedded_store.endpoint,
        iam_endpoint=embedded_store.iam_endpoint,
        bucket=f"end-to-end-{name}",
        prefix=request.param,
        settle_seconds=0,
    )
    monkeypatch.chdir(project)
    assert main(["up", "--stack", name, "--yes"]) == 0
    assert main(["render", "--stack", name, "--form", "plain", "--out", str(out)]) == 0
    return found.outputs(), out / SERVER


def test_media_lives_in_the_bucket(
    provisioned: tuple[StorageOutputs, Path], admin: Admin, home: synapse.Home, picture: bytes
) -> None:
    store, files = provisioned
    drop_in = files / DROP_IN
    contents = [(os.urandom(100_000), "application/octet-stream"), (picture, "image/jpeg"), (os.urandom(20 << 20), "")]
    with home.running(drop_in) as server:
        user = server.register("alice")
        uploads = [(server.upload(user, content, kind), content) for content, kind in contents]
        image = uploads[1][0]
        thumbnail = server.thumbnail(user, image)

        local = synapse.files_of(home.media)
        assert len([name for name in local if name.startswith("local_content/")]) == 3
        assert len([name for name in local if name.startswith("local_thumbnails/")]) > 1
        assert admin.objects(store.bucket) == {store.prefix + name: digest for name, digest in local.items()}

        shutil.rmtree(home.media)
        assert [server.download(user, media) for media, _ in uploads] == [content for _, content in uploads]
        assert server.thumbnail(user, image) == thumbnail

    home.media.mkdir(exist_ok=True)
    with home.running(drop_in) as server:
        assert [server.download(user, media) for media, _ in uploads] == [content for _, content in uploads]


def test_undo_is_removing_the_file_and_restarting(admin: Admin, rendered: Rendered, home: synapse.Home) -> None:
    store = admin.provision()
    content = os.urandom(100_000)
    with home.running(rendered(store)[DROP_IN]) as server:
        user = server.register("alice")
        media = server.upload(user, content)
    in_bucket = admin.objects(store.bucket)
    with home.running() as server:
        assert server.download(user, media) == content
        server.upload(user, b"of a Synapse that knows no bucket")
    assert len(in_bucket) == 1
    assert admin.objects(store.bucket) == in_bucket


def test_the_key_by_reference_comes_from_the_environment_file(
    admin: Admin, rendered: Rendered, home: synapse.Home
) -> None:
    store = admin.provision()
    files = rendered(store, secrets="reference")
    assert store.secret_access_key not in files[DROP_IN].read_text()
    environment = systemd.environment_file(files["synapse-media.env"].read_text())
    with home.running(files[DROP_IN], environment=environment) as server:
        media = server.upload(user := server.register("alice"), b"content")
        shutil.rmtree(home.media)
        assert server.download(user, media) == b"content"
    assert len(admin.objects(store.bucket)) == 1


@pytest.mark.parametrize(
    ("prefix", "secret"),
    [("", "012"), ("media/", "{{ x }}%n$HOME ${x}"), ("", "'\"\\\t: #"), ("", "\u00e9\u2028")],
    ids=["number", "templates", "quotes", "unicode"],
)
def test_synapse_reads_what_was_meant(prefix: str, secret: str, rendered: Rendered, home: synapse.Home) -> None:
    store = by_hand.proved(
        StorageOutputs(
            server_name="matrix.example.com",
            provider="amazon_s3",
            method="synapse-s3-storage-provider",
            access="least",
            bucket="012345",
            region="eu-central-1",
            endpoint_url="https://s3.eu-central-1.amazonaws.com",
            access_key_id="1234567890",
            secret_access_key=secret,
            storage_class="STANDARD_IA",
            prefix=prefix,
        )
    )
    (provider,) = home.load(rendered(store)[DROP_IN]).media_storage_providers
    assert provider == {
        "class": "s3_storage_provider.S3StorageProviderBackend",
        "store_local": True,
        "store_remote": True,
        "store_synchronous": True,
        "config": {
            "bucket": "012345",
            "prefix": prefix,
            "extra_args": {"StorageClass": "STANDARD_IA"},
            "region_name": "eu-central-1",
            "endpoint_url": "https://s3.eu-central-1.amazonaws.com",
            "access_key_id": "1234567890",
            "secret_access_key": secret,
        },
    }


def test_synapse_refuses_a_storage_class_that_the_module_does_not_know(
    admin: Admin, rendered: Rendered, home: synapse.Home
) -> None:
    """Why the settings refuse it first: the playbook accepts it, and Synapse then does not start."""
    drop_in = rendered(admin.provision())[DROP_IN]
    drop_in.write_text(drop_in.read_text().replace('"STANDARD"', '"ONEZONE_IA"'))
    with pytest.raises(synapse.ConfigError):
        home.load(drop_in)
    with pytest.raises(synapse.StartError, match="media_storage_providers"), home.running(drop_in):
        pass


def test_the_filesystem_is_the_directory_that_was_named(admin: Admin, rendered: Rendered, home: synapse.Home) -> None:
    directory = str(home.directory / "100% of: it's")
    store = replace(admin.provision(), method="filesystem")
    loaded = home.load(rendered(store, media_path=directory)["conf.d/synapse-media.yaml"])
    assert (loaded.media_store_path, loaded.media_storage_providers) == (directory, [])


class TestWhatAnUnprovedKeyWouldHaveCost:
    """Synapse starts with each of these, says nothing, and then fails its users: why nothing unproved is rendered."""

    def test_wrong_secret(self, admin: Admin, rendered: Rendered, home: synapse.Home) -> None:
        wrong = by_hand.proved(replace(admin.provision(), secret_access_key="not the secret of this key"))
        assert upload_status(home, rendered(wrong)[DROP_IN]) == 500

    def test_bucket_deleted(self, admin: Admin, rendered: Rendered, home: synapse.Home) -> None:
        store = admin.provision()
        admin.client("s3").delete_bucket(Bucket=store.bucket)
        assert upload_status(home, rendered(store)[DROP_IN]) == 500

    @pytest.mark.parametrize(("without", "status"), [((Operation.LIST, Operation.MISSING_KEY), 500), ((), 404)])
    def test_policy_without_list_bucket(
        self,
        without: tuple[Operation, ...],
        status: int,
        admin: Admin,
        rendered: Rendered,
        home: synapse.Home,
    ) -> None:
        """Media that is nowhere is an error of the server, rather than "not found", where the store answers 403."""
        store = admin.provision(without=without)
        lacking = {store.access_key_id} if without else set[str]()
        with answering_403_for_missing_keys(store.endpoint_url, lacking) as endpoint_url:
            drop_in = rendered(by_hand.proved(replace(store, endpoint_url=endpoint_url)))[DROP_IN]
            with home.running(drop_in) as server:
                media = server.upload(user := server.register("alice"), b"content")
                (key,) = admin.objects(store.bucket)
                admin.client("s3").delete_object(Bucket=store.bucket, Key=key)
                shutil.rmtree(home.media)
                with pytest.raises(synapse.AnswerError) as caught:
                    server.download(user, media)
        assert caught.value.status == status


def upload_status(home: synapse.Home, drop_in: Path) -> int:
    with home.running(drop_in) as server:
        user = server.register("alice")
        with pytest.raises(synapse.AnswerError) as caught:
            server.upload(user, b"content")
    return caught.value.status
