"""The real Goofys mounts what is rendered, and a real Synapse keeps its media there.

Files of more than 2 MB take 10 s each: Goofys asks `Expect: 100-Continue`, and the embedded store knows only the
spelling `100-continue`, so Goofys waits until it gives up waiting.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end import goofys, synapse
from tests.end_to_end.by_hand import Admin
from tests.renderer import readers

Rendered = Callable[..., dict[str, Path]]

pytestmark = pytest.mark.skipif(bool(goofys.unusable()), reason=goofys.unusable() or "usable")


def test_synapse_stores_through_the_unit(
    admin: Admin, rendered: Rendered, home: synapse.Home, picture: bytes, tmp_path: Path
) -> None:
    store = admin.provision(method="goofys")
    mount_point = tmp_path / "media of 100%"
    mount_point.mkdir()
    files = rendered(store, media_path=str(mount_point))
    unit = files["systemd/synapse-media-goofys.service"].read_text()
    environment = files["synapse-media-goofys.env"].read_text()
    contents = [(os.urandom(100_000), ""), (picture, "image/jpeg"), (os.urandom(20 << 20), "")]
    with goofys.mounted_by_unit(unit, environment, mount_point, tmp_path / "goofys.log"):
        with home.running(files["conf.d/synapse-media.yaml"]) as server:
            user = server.register("alice")
            uploads = [(server.upload(user, content, kind), content) for content, kind in contents]
            thumbnail = server.thumbnail(user, uploads[1][0])
        seen = synapse.files_of(mount_point)
    assert len([name for name in seen if name.startswith("local_content/")]) == 3
    in_bucket = admin.objects(store.bucket)
    assert {key: digest for key, digest in in_bucket.items() if not key.endswith("/")} == seen
    assert list(mount_point.iterdir()) == []
    assert list(home.media.iterdir()) == []
    with (
        goofys.mounted_by_unit(unit, environment, mount_point, tmp_path / "goofys.log"),
        home.running(files["conf.d/synapse-media.yaml"]) as server,
    ):
        assert [server.download(user, media) for media, _ in uploads] == [content for _, content in uploads]
        assert server.thumbnail(user, uploads[1][0]) == thumbnail


def test_fstab(admin: Admin, rendered: Rendered, tmp_path: Path) -> None:
    store = admin.provision(method="goofys")
    (tmp_path / "media of it").mkdir()
    files = rendered(store, media_path=str(tmp_path / "media of it"))
    line = files["fstab"].read_text().replace("--uid=UID", f"--uid={os.getuid()}")
    content = os.urandom(100_000)
    with goofys.mounted_by_fstab(line, files["credentials"].read_text(), tmp_path / "home") as mount_point:
        assert mount_point == tmp_path / "media of it"
        (mount_point / "directory").mkdir()
        (mount_point / "directory" / "file").write_bytes(content)
        assert (mount_point / "directory" / "file").read_bytes() == content
        assert (mount_point / "directory" / "file").stat().st_uid == os.getuid()
        (mount_point / "directory" / "file").rename(mount_point / "moved")
        (mount_point / "directory").rmdir()
    assert list(admin.objects(store.bucket)) == ["moved"]


@pytest.mark.skipif(readers.NIX is None, reason="Nix is not on this machine (Debian's package: nix-bin)")
@pytest.mark.skipif(os.getuid() != 0, reason="the service of NixOS is root's")
def test_the_service_of_nixos(admin: Admin, rendered: Rendered, tmp_path: Path) -> None:
    store = admin.provision(method="goofys")
    (tmp_path / "media").mkdir()
    unit = rendered(store, media_path=str(tmp_path / "media"))["systemd/synapse-media-goofys.service"].read_text()
    files = rendered(store, media_path=str(tmp_path / "media"), form="nixos")
    service = readers.nixos(files["synapse-media.nix"].read_text())["systemd"]["services"]["synapse-media-goofys"]
    unit = re.sub(r"(?m)^ExecStart=.*$", f"ExecStart={service['serviceConfig']['ExecStart']}", unit)
    assert set(service["environment"]) == {"AWS_SHARED_CREDENTIALS_FILE"}
    environment = f"AWS_SHARED_CREDENTIALS_FILE={files['credentials']}\n"
    content = os.urandom(100_000)
    with goofys.mounted_by_unit(unit, environment, tmp_path / "media", tmp_path / "goofys.log"):
        subprocess.run(["/bin/sh", "-ec", service["postStart"]], check=True, timeout=60)
        (tmp_path / "media" / "file").write_bytes(content)
        found = (tmp_path / "media" / "file").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (224, 225, 0o700)
        options = subprocess.run(["findmnt", "-no", "OPTIONS", tmp_path / "media"], capture_output=True, check=True)
        assert {b"allow_other", b"default_permissions"} <= set(options.stdout.strip().split(b","))
    assert list(admin.objects(store.bucket)) == ["file"]


def test_a_key_that_is_wrong_mounts_nothing(admin: Admin, rendered: Rendered, tmp_path: Path) -> None:
    store = admin.provision(method="goofys")
    (tmp_path / "media").mkdir()
    files = rendered(store, media_path=str(tmp_path / "media"))
    wrong = files["credentials"].read_text().replace(store.secret_access_key, "not the secret of this key")
    line = files["fstab"].read_text().replace("--uid=UID", f"--uid={os.getuid()}")
    with pytest.raises(goofys.MountError), goofys.mounted_by_fstab(line, wrong, tmp_path / "home"):
        pass
