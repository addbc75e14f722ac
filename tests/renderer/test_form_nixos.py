"""The form for NixOS: its module as Nix evaluates it, the key as boto3 reads it, and the commands of INSTALL.md."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from synapse_media import renderer
from synapse_media.renderer import RenderError, quoting, render
from tests.renderer import readers
from tests.renderer.readers import changes, nixos, rendered
from tests.renderer.samples import CASES, SECRET, providers, store

needs_nix = pytest.mark.skipif(readers.NIX is None, reason="Nix is not on this machine (Debian's package: nix-bin)")
odd = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

PATH = "/var/lib/synapse-media/credentials"


@needs_nix
@odd
@given(
    changed=changes,
    case=st.sampled_from(sorted(CASES)),
    secrets=st.sampled_from(renderer.SECRETS),
)
@example(changed={"bucket": "${builtins.readFile /etc/passwd}"}, case="amazon", secrets="plain")
@example(changed={"prefix": "''\"; x = $${1}\r\n\\/"}, case="amazon", secrets="reference")
def test_the_module_says_what_the_store_is(changed: dict[str, str], case: str, secrets: renderer.Secrets) -> None:
    outputs = store(case, **changed)
    files = rendered(outputs, changed, "nixos", secrets)
    if not files:
        return
    module = files["synapse-media.nix"]
    assert len(outputs.secret_access_key) < 5 or outputs.secret_access_key not in module
    found = nixos(module)
    assert found["services"]["matrix-synapse"] == {
        "plugins": ["the plugin"],
        "settings": providers(outputs),
    }
    names = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
    environment = dict.fromkeys(names, "when_required") if outputs.checksums == "when_required" else {}
    unit: dict[str, Any] = {}
    if not outputs.keyless:
        environment["AWS_SHARED_CREDENTIALS_FILE"] = "%d/synapse-media"
        unit["serviceConfig"] = {"LoadCredential": [f"synapse-media:{PATH}"]}
    if environment:
        unit["environment"] = environment
    units = {"matrix-synapse": unit, "matrix-synapse-worker-media": unit}
    assert found.get("systemd", {"services": {}})["services"] == (units if unit else {})


@needs_nix
@pytest.mark.parametrize("case", ["amazon", "compatible", "keyless"])
def test_the_module_of_goofys_mounts_the_bucket_before_each_process_of_synapse(case: str) -> None:
    outputs = store(case, "goofys", ca_file="/etc/ssl/ca.pem")
    module = render(outputs, "nixos")["synapse-media.nix"]
    assert SECRET not in module
    mount = "/var/lib/matrix-synapse/media-s3"
    found = nixos(module)
    assert found["services"]["matrix-synapse"] == {"settings": {"media_store_path": mount}}
    services = found["systemd"]["services"]
    needs = {"requires": ["synapse-media-goofys.service"], "after": ["synapse-media-goofys.service"]}
    unit = services.pop("synapse-media-goofys")
    assert services == {"matrix-synapse": needs, "matrix-synapse-worker-media": needs}
    assert unit["before"] == ["matrix-synapse.service", "matrix-synapse-worker-media.service"]
    key = {} if case == "keyless" else {"AWS_SHARED_CREDENTIALS_FILE": "%d/synapse-media"}
    assert unit["environment"] == {"SSL_CERT_FILE": "/etc/ssl/ca.pem", **key}
    loaded = {} if case == "keyless" else {"LoadCredential": [f"synapse-media:{PATH}"]}
    assert {name: value for name, value in unit["serviceConfig"].items() if name.startswith("Load")} == loaded
    start = unit["serviceConfig"]["ExecStart"].split(" ")
    assert start[0] == "/goofys/bin/goofys"
    assert start[-2:] == [outputs.bucket, mount]
    # But for who mounts, it is the command of the plain form's unit.
    plain = render(outputs, "plain")["systemd/synapse-media-goofys.service"]
    (line,) = re.findall(r"^ExecStart=(.*)$", plain, flags=re.MULTILINE)
    as_root = ["-o", "allow_other", "--uid", "224", "--gid", "225"]
    assert start[1:] == ["-f", *as_root, *line.split(" ")[2:]]
    # While media is copied, Synapse keeps its media store.
    beside = nixos(module, beside=True)
    assert beside["services"]["matrix-synapse"] == {"settings": {}}
    assert set(beside["systemd"]["services"]) == {"synapse-media-goofys"}


@needs_nix
@pytest.mark.parametrize("case", ["amazon", "keyless"])
def test_goofys_is_not_mounted_over_the_media_store_that_is_copied(case: str) -> None:
    module = render(store(case, "goofys"), "nixos", media_path="/srv/media")["synapse-media.nix"]
    apart = {"/srv/media_store": True, "/srv/media-local": True, "/var/media": True}
    covered = ("/srv/media", "/srv/media/", "/srv//./media", "/srv/media/synapse", "/srv", "/")
    for present, allowed in {**apart, **dict.fromkeys(covered, False)}.items():
        said = nixos(module, beside=True, media_store=present)["assertions"][0]
        assert said["assertion"] is allowed, present
        assert f"/srv/media, is Synapse's media_store_path, {present}, or" in said["message"]
    # Later it is Synapse's media store.
    assert nixos(module, media_store="/srv/media")["assertions"][0]["assertion"] is True
    assert len(nixos(module)["assertions"]) == (1 if case == "keyless" else 2)


def test_goofys_mounts_where_it_was_asked_to() -> None:
    files = render(store("amazon", "goofys"), "nixos", media_path="/srv/media")
    assert 'mountPoint = "/srv/media";' in files["synapse-media.nix"]
    assert "/srv/media/." in files["INSTALL.md"]
    assert renderer.takes_media_path(store("amazon", "goofys"), "nixos")
    with pytest.raises(RenderError, match=r"^media_path"):
        render(store("amazon", "goofys"), "nixos", media_path="/srv/the media")
    with pytest.raises(RenderError, match=r"^media_path.*no /\.\./"):
        render(store("amazon", "goofys"), "nixos", media_path="/srv/x/../media")


@pytest.mark.parametrize("case", ["amazon", "keyless"])
@pytest.mark.parametrize("secrets", renderer.SECRETS)
def test_install_md_of_goofys_copies_before_synapse_uses_the_mount(case: str, secrets: renderer.Secrets) -> None:
    text = render(store(case, "goofys"), "nixos", secrets)["INSTALL.md"]
    assert SECRET not in text
    order = [
        "synapse-media.besideMediaStore = true;",
        "nixos-rebuild switch",
        "rsync -rt --size-only MEDIA/.",
        "systemctl stop matrix-synapse",
        "rsync -rt --size-only MEDIA/.",
        "Remove the line `synapse-media.besideMediaStore = true;`",
        "nixos-rebuild switch",
        "## Undo",
        "systemctl stop matrix-synapse",
        "media-s3/. MEDIA/.",
        "out of `imports`",
        "nixos-rebuild switch",
    ]
    at = 0
    for part in order:
        at = text.index(part, at) + len(part)
    assert ("rm -f /var/lib/synapse-media/credentials" in text) == (case != "keyless")


@needs_nix
def test_five_thousand_odd_strings_are_the_same_strings_to_nix() -> None:
    chance = random.Random(14)
    alphabet = "$${}{}\"\"''\\\\\n\r\t;#/*%@`<> abc.\x01\x1b\x7fé漢😀"
    values = ["".join(chance.choices(alphabet, k=chance.randrange(24))) for _ in range(5000)]
    assert readers.nix("[" + "\n".join(quoting.nix("x", value) for value in values) + "]") == values


def test_what_nix_can_not_hold_is_refused() -> None:
    with pytest.raises(RenderError, match=r"^bucket has a NUL"):
        quoting.nix("bucket", "a\0b")


@needs_nix
def test_a_file_of_the_nix_store_is_refused_and_an_encrypted_one_is_decrypted() -> None:
    module = render(store("amazon", ca_file="/etc/ssl/ca.pem"), "nixos")["synapse-media.nix"]
    for path, allowed in ((PATH, True), ("/run/agenix/synapse-media", True), ("/nix/store/abc", False), ("a:b", False)):
        ((said),) = nixos(module, path)["assertions"]
        assert said["assertion"] is allowed
    unit = nixos(module, encrypted=True)["systemd"]["services"]["matrix-synapse"]
    assert unit["serviceConfig"] == {"LoadCredentialEncrypted": [f"synapse-media:{PATH}"]}
    assert unit["environment"]["AWS_CA_BUNDLE"] == "/etc/ssl/ca.pem"
    assert nixos(module, enable=False) == {}


@odd
@given(
    key=st.from_regex(r"[A-Za-z0-9/+]{16,40}={0,2}", fullmatch=True),
    identity=st.from_regex("[A-Z0-9]{4,24}", fullmatch=True),
)
def test_boto3_reads_the_key(key: str, identity: str, tmp_path: Path) -> None:
    changed = {"access_key_id": identity, "secret_access_key": key}
    files = rendered(store("amazon", **changed), changed, "nixos")
    if not files:
        return
    path = tmp_path / "credentials"
    path.write_text(files["credentials"], encoding="utf-8")
    session = botocore.session.Session()
    session.set_config_variable("credentials_file", str(path))
    found = session.get_component("credential_provider").get_provider("shared-credentials-file").load()
    assert (found.access_key, found.secret_key) == (identity, key)


def test_the_path_is_the_one_that_was_asked_for_and_no_secret_is_written_then() -> None:
    files = render(store("amazon", secret_access_key=""), "nixos", "reference", source="file:/run/secrets/media")
    assert set(files) == {"INSTALL.md", "synapse-media.nix"}
    assert 'default = "/run/secrets/media";' in files["synapse-media.nix"]
    assert all(SECRET not in text for text in render(store("amazon"), "nixos", "reference").values())


def test_install_md_puts_the_key_where_root_alone_reads_it_and_undo_removes_it(tmp_path: Path) -> None:
    files = render(store("amazon"), "nixos")
    for path, text in files.items():
        (tmp_path / path).write_text(text)
    before, _, after = files["INSTALL.md"].partition("## Undo")
    commands = [line.strip() for line in before.splitlines() if re.match(r" +sudo install -D", line)]
    # Without root, below another directory.
    here = [
        line.replace("sudo ", "").replace("-o root -g root ", "").replace("/var/lib", f"{tmp_path}/var/lib")
        for line in commands
    ]
    assert len(here) == 1
    subprocess.run(["/bin/sh", "-ec", here[0]], cwd=tmp_path, check=True)
    installed = tmp_path / PATH.removeprefix("/")
    assert installed.read_text() == files["credentials"]
    assert installed.stat().st_mode & 0o777 == 0o600
    undo = [line.strip().replace("sudo ", "") for line in after.splitlines() if re.match(r"    (sudo )?rm ", line)]
    script = "\n".join(undo).replace("/var/lib", f"{tmp_path}/var/lib").replace("/etc/", f"{tmp_path}/etc/")
    subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET in path.read_text()]


@needs_nix
def test_what_install_md_says_for_a_configuration_is_nix() -> None:
    text = render(store("amazon"), "nixos")["INSTALL.md"]
    lines = [line.strip() for line in text.splitlines() if re.match(r" +(age|sops|synapse-media|imports)\b.*;$", line)]
    assert len(lines) == 7
    # One setting of each kind at a time: the same one stands there for agenix, sops-nix and systemd.
    for line in lines:
        assert subprocess.run(
            [str(readers.NIX), "--parse", "--expr", f"{{ config, ... }}: {{ {line} }}"], check=True, capture_output=True
        ).stdout
