"""What is rendered says exactly what the store is, to the programs that read it; or it was refused by name."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from synapse_media import renderer
from synapse_media.renderer import RenderError, render
from tests.end_to_end import systemd
from tests.renderer import readers
from tests.renderer.readers import changes, rendered, texts
from tests.renderer.samples import CASES, S3_ID, store

odd = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
S3 = "synapse-s3-storage-provider"
VARS = "inventory/host_vars/matrix.example.com/synapse-media.yml"
EXT = "matrix_synapse_ext_synapse_s3_storage_provider_"


def written(text: str, directory: Path) -> Path:
    path = directory / "written"
    path.write_text(text, encoding="utf-8", newline="")
    return path


@odd
@given(changed=changes, case=st.sampled_from(sorted(CASES)))
@example(changed={"secret_access_key": "{{ lookup('pipe', 'id') }}"}, case="amazon")
@example(changed={"bucket": "012"}, case="compatible")
def test_module_in_the_playbook(changed: dict[str, str], case: str, ansible: readers.Ansible, tmp_path: Path) -> None:
    outputs = store(case, S3, **changed)
    files = rendered(outputs, changed, "playbook")
    if not files:
        return
    found = ansible.variables(written(files[VARS], tmp_path))
    expected = {
        "enabled": True,
        "store_local": True,
        "store_remote": True,
        "store_synchronous": True,
        "config_bucket": outputs.bucket,
        "config_prefix": outputs.prefix,
        "config_region_name": outputs.region,
        "config_endpoint_url": outputs.endpoint_url,
        "config_storage_class": "STANDARD",
        "config_ec2_instance_profile": outputs.keyless,
        "periodic_migration_schedule": "2099-01-01 00:00:00",
        "update_db_day_count": 36500,
    }
    if not outputs.keyless:
        expected["config_access_key_id"] = outputs.access_key_id
        expected["config_secret_access_key"] = outputs.secret_access_key
    arguments = found.pop("matrix_synapse_ext_s3_storage_provider_container_arguments", None)
    assert found == {EXT + name: value for name, value in expected.items()}
    assert (arguments is not None) == (outputs.checksums == "when_required")
    # What the role writes for its migrate job: a file for `docker run --env-file`, then unquoted words in sh.
    for value in (outputs.bucket, outputs.prefix):
        assert readers.docker_environment(f"A={value}\n") == {"A": value}
        assert len(value.split()) <= 1


@odd
@given(changed=changes, case=st.sampled_from(sorted(CASES)), secrets=st.sampled_from(renderer.SECRETS))
@example(changed={"secret_access_key": "$HOME %n `id` \"'\\"}, case="amazon", secrets="reference")
def test_module_in_plain_synapse(changed: dict[str, str], case: str, secrets: renderer.Secrets, tmp_path: Path) -> None:
    outputs = store(case, S3, **changed)
    files = rendered(outputs, changed, "plain", secrets)
    if not files:
        return
    text = files["conf.d/synapse-media.yaml"]
    found = readers.yaml_1_1(text)
    assert readers.yaml_1_2(text) == found
    config = {
        "bucket": outputs.bucket,
        "region_name": outputs.region,
        "endpoint_url": outputs.endpoint_url,
        "storage_class": "STANDARD",
        **({"prefix": outputs.prefix} if outputs.prefix else {}),
    }
    key = {"access_key_id": outputs.access_key_id, "secret_access_key": outputs.secret_access_key}
    if not outputs.keyless and secrets == "plain":
        config |= key
    assert found == {
        "media_storage_providers": [
            {
                "module": "s3_storage_provider.S3StorageProviderBackend",
                "store_local": True,
                "store_remote": True,
                "store_synchronous": True,
                "config": config,
            }
        ]
    }
    environment = {"AWS_DEFAULT_REGION": outputs.region}
    if not outputs.keyless:
        environment |= dict(zip(_AWS, key.values(), strict=True))
    if outputs.checksums == "when_required":
        environment |= dict.fromkeys(
            ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"), "when_required"
        )
    path = written(files["synapse-media.env"], tmp_path)
    assert systemd.environment_file(files["synapse-media.env"]) == environment
    assert readers.sh_environment(path, list(environment)) == environment
    docker = files.get("docker/synapse-media/synapse-media.env")
    assert (docker is not None) == (secrets == "reference" and not outputs.keyless)
    if docker is not None:
        assert readers.docker_environment(docker) == environment


_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@odd
@given(changed=changes, case=st.sampled_from(sorted(CASES)))
def test_goofys_in_the_playbook(changed: dict[str, str], case: str, ansible: readers.Ansible, tmp_path: Path) -> None:
    outputs = store(case, "goofys", **changed)
    files = rendered(outputs, changed, "playbook")
    if not files:
        return
    expected = {
        "matrix_s3_media_store_enabled": True,
        "matrix_s3_media_store_bucket_name": outputs.bucket,
        "matrix_s3_media_store_region": outputs.region,
        "matrix_s3_media_store_custom_endpoint_enabled": True,
        "matrix_s3_media_store_custom_endpoint": outputs.endpoint_url,
        "matrix_s3_media_store_aws_access_key": "" if outputs.keyless else outputs.access_key_id,
        "matrix_s3_media_store_aws_secret_key": "" if outputs.keyless else outputs.secret_access_key,
    }
    assert ansible.variables(written(files[VARS], tmp_path)) == expected
    during = ansible.variables(written(files[f"migration/{VARS}"], tmp_path))
    assert during == {**expected, "matrix_s3_media_store_path": "/matrix/s3-media-store"}
    # The role has them in single quotes in a unit.
    for value in (outputs.bucket, outputs.region, outputs.endpoint_url):
        assert systemd.words(f"'{value}'") == [value]
        assert not set(value) & set(" '\"$%\\;&|<>`(){}*?!#~\n\t")


@odd
@given(changed=changes, case=st.sampled_from(sorted(CASES)), path=st.one_of(st.just(""), texts.map("/mnt/{}".format)))
@example(changed={}, case="amazon", path='/mnt/with space/100%/$HOME/"quotes"/\\x')
def test_goofys_in_plain_synapse(changed: dict[str, str], case: str, path: str, tmp_path: Path) -> None:
    outputs = store(case, "goofys", **changed)
    files = rendered(outputs, changed, "plain", media_path=path)
    if not files:
        return
    mount = path or "/var/lib/matrix-synapse/media-s3"
    assert readers.yaml_1_1(files["conf.d/synapse-media.yaml"]) == {"media_store_path": mount}
    service = systemd.unit(files["systemd/synapse-media-goofys.service"])["Service"]
    (start,) = service["ExecStart"]
    assert systemd.command(start, {}) == [
        "/usr/local/bin/goofys",
        "-f",
        f"--endpoint={outputs.endpoint_url}",
        *("--region", outputs.region, "--stat-cache-ttl", "60m0s", "--type-cache-ttl", "60m0s"),
        *("--dir-mode", "0700", "--file-mode", "0700"),
        outputs.bucket,
        mount,
    ]
    (stop,) = service["ExecStop"]
    assert systemd.command(stop, {}) == ["/bin/fusermount", "-u", mount]
    (clear,) = service["ExecStartPre"]
    assert systemd.command(clear.removeprefix("-"), {}) == ["/bin/fusermount", "-u", "-z", mount]
    (wait,) = service["ExecStartPost"]
    assert systemd.command(wait, {})[3:] == ["sh", mount]
    ((device, directory, kind, options),) = readers.fstab(written(files["fstab"], tmp_path))
    assert (device, directory, kind) == (f"goofys#{outputs.bucket}", mount, "fuse")
    assert f"--endpoint={outputs.endpoint_url}" in options.split(",")
    assert f"--region={outputs.region}" in options.split(",")
    assert ("EnvironmentFile" in service) == (not outputs.keyless)
    if not outputs.keyless:
        assert systemd.environment_file(files["synapse-media-goofys.env"]) == {
            "AWS_ACCESS_KEY_ID": outputs.access_key_id,
            "AWS_SECRET_ACCESS_KEY": outputs.secret_access_key,
        }
        credentials = configparser.RawConfigParser()
        credentials.read_string(files["credentials"])
        assert dict(credentials["default"]) == {
            "aws_access_key_id": outputs.access_key_id,
            "aws_secret_access_key": outputs.secret_access_key,
        }


def test_the_wait_for_the_mount_is_a_script_that_ends(tmp_path: Path) -> None:
    files = render(store("amazon", "goofys"), "plain", media_path="/")
    (wait,) = systemd.unit(files["systemd/synapse-media-goofys.service"])["Service"]["ExecStartPost"]
    assert subprocess.run(systemd.command(wait, {}), check=False, timeout=10).returncode == 0
    script = systemd.command(wait, {})[2].replace("-le 60", "-le 1")
    assert subprocess.run(["/bin/sh", "-c", script, "sh", tmp_path], check=False, timeout=10).returncode == 1


@odd
@given(changed=changes, case=st.sampled_from(["amazon", "compatible"]), ids=st.tuples(texts, texts))
@example(changed={"secret_access_key": "0x1F"}, case="amazon", ids=("1e10", ""))
def test_media_repo(
    changed: dict[str, str], case: str, ids: tuple[str, str], ansible: readers.Ansible, tmp_path: Path
) -> None:
    named = {"s3_datastore_id": ids[0] or S3_ID, "file_datastore_id": ids[1]}
    outputs = store(case, "matrix-media-repo", **changed, media_repo=named)
    playbook = rendered(outputs, {**changed, "media_repo": ""}, "playbook")
    plain = rendered(outputs, {**changed, "media_repo": ""}, "plain")
    assert bool(playbook) == bool(plain)
    if not plain:
        return
    host, secure = ("s3.eu-central-1.amazonaws.com", True) if case == "amazon" else ("127.0.0.1:7070", False)
    kinds = ["thumbnails", "remote_media", "local_media", "archives"]
    text = plain["media-repo.d/synapse-media.yaml"]
    found = readers.yaml_1_1(text)
    assert readers.yaml_1_2(text) == found
    s3 = {
        "type": "s3",
        "id": named["s3_datastore_id"],
        "forKinds": kinds,
        "opts": {
            "endpoint": host,
            "ssl": secure,
            "region": outputs.region,
            "bucketName": outputs.bucket,
            "storageClass": "STANDARD",
            "accessKeyId": outputs.access_key_id,
            "accessSecret": outputs.secret_access_key,
        },
    }
    file = {"type": "file", "id": ids[1], "forKinds": [], "opts": {"path": "/data/media"}}
    assert found == {"datastores": [file, s3] if ids[1] else [s3]}
    assert readers.yaml_1_1(plain["conf.d/synapse-media.yaml"]) == {"enable_media_repo": False}
    expected = {
        "enabled": True,
        "datastore_file_for_kinds": [],
        "datastore_s3_for_kinds": kinds,
        "datastore_s3_id": named["s3_datastore_id"],
        "datastore_s3_opts_endpoint": host,
        "datastore_s3_opts_ssl": secure,
        "datastore_s3_opts_region": outputs.region,
        "datastore_s3_opts_bucket_name": outputs.bucket,
        "datastore_s3_opts_storage_class": "STANDARD",
        "datastore_s3_opts_access_key_id": outputs.access_key_id,
        "datastore_s3_opts_access_secret": outputs.secret_access_key,
    }
    if ids[1]:
        expected |= {"datastore_file_enabled": True, "datastore_file_id": ids[1]}
    variables = ansible.variables(written(playbook[VARS], tmp_path))
    assert variables == {f"matrix_media_repo_{name}": value for name, value in expected.items()}


def test_media_repo_routes_parse(tmp_path: Path) -> None:
    files = render(store("amazon", "matrix-media-repo", server_name="example.com:8448"), "plain")
    routes = readers.yaml_1_1(files["reverse-proxy/traefik.yaml"])["http"]
    assert routes["routers"]["matrix-media-repo"]["rule"].startswith("PathPrefix(`/_matrix/media`) || ")
    headers = routes["middlewares"]["matrix-media-repo-host"]["headers"]["customRequestHeaders"]
    assert headers == {"Host": "example.com", "X-Forwarded-Host": "example.com"}
    for path in ("/_matrix/media", "/_matrix/client/v1/media", "/_matrix/federation/v1/media"):
        assert f"location ^~ {path} {{" in files["reverse-proxy/nginx.conf"]
        assert f" {path}/*" in files["reverse-proxy/Caddyfile"]
    # It leaves the port out of Host before it looks for the homeserver.
    assert not any("8448" in text for path, text in files.items() if path.startswith("reverse-proxy/"))


@pytest.mark.parametrize("path", ["", "/srv/media: #1"])
def test_filesystem(path: str, ansible: readers.Ansible, tmp_path: Path) -> None:
    playbook = render(store(method="filesystem"), "playbook")
    assert ansible.variables(written(playbook[VARS], tmp_path)) == {}
    for prefix in ("matrix_synapse_ext_synapse_s3_storage_provider_", "matrix_s3_media_store_", "matrix_media_repo_"):
        assert prefix in playbook[VARS]
    plain = render(store(method="filesystem"), "plain", media_path=path)
    if path:
        assert readers.yaml_1_1(plain["conf.d/synapse-media.yaml"]) == {"media_store_path": path}
    else:
        assert list(plain) == ["INSTALL.md"]


@pytest.mark.parametrize("method", ["synapse-s3-storage-provider", "goofys", "matrix-media-repo"])
def test_by_reference_the_playbook_asks_its_environment(
    method: str, ansible: readers.Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = store("amazon", method)
    files = render(outputs, "playbook", "reference")
    assert all(outputs.secret_access_key not in text for text in files.values())
    # The secret is not needed, so that a store.json without it is enough.
    bare = store("amazon", method, secret_access_key="")
    assert render(bare, "playbook", "reference") == files
    path = written(files[VARS], tmp_path)
    monkeypatch.setenv("SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM", "as {{ it }} is")
    assert "as {{ it }} is" in ansible.variables(path).values()
    monkeypatch.delenv("SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM")
    with pytest.raises(Exception, match="export SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM first"):
        ansible.variables(path)


def test_a_private_authority_is_trusted_where_it_can_be(ansible: readers.Ansible, tmp_path: Path) -> None:
    mount = ["--mount=type=bind,src=/etc/ssl/ca.pem,dst=/synapse-media-ca.pem,ro"]
    path = "/etc/ssl/ca.pem"
    module = store("amazon", ca_file=path)
    found = ansible.variables(written(render(module, "playbook")[VARS], tmp_path))
    arguments = [*mount, "--env=AWS_CA_BUNDLE=/synapse-media-ca.pem"]
    assert found["matrix_synapse_container_extra_arguments"] == arguments
    assert found["matrix_synapse_ext_s3_storage_provider_container_arguments"] == arguments
    plain = render(module, "plain")
    assert systemd.environment_file(plain["synapse-media.env"])["AWS_CA_BUNDLE"] == path
    assert "EnvironmentFile" in plain["systemd/matrix-synapse.service.d/synapse-media.conf"]
    inside = readers.docker_environment(plain["docker/synapse-media/synapse-media.env"])["AWS_CA_BUNDLE"]
    volumes = readers.yaml_1_1(plain["docker/compose.override.yaml"])["services"]["synapse"]["volumes"]
    assert f"{path}:{inside}:ro" in volumes

    goofys = store("keyless", "goofys", ca_file=path)
    environment = systemd.environment_file(render(goofys, "plain")["synapse-media-goofys.env"])
    assert environment == {"SSL_CERT_FILE": path}
    with pytest.raises(RenderError, match="ca_file can't be given"):
        render(goofys, "playbook")

    repo = store("amazon", "matrix-media-repo", ca_file=path)
    found = ansible.variables(written(render(repo, "playbook")[VARS], tmp_path))
    assert found["matrix_media_repo_container_extra_arguments"] == [
        *mount,
        "--env=SSL_CERT_FILE=/synapse-media-ca.pem",
    ]
    assert "SSL_CERT_FILE=/etc/ssl/ca.pem" in render(repo, "plain")["INSTALL.md"]
    for outputs in (module, repo):
        with pytest.raises(RenderError, match="ca_file has a character"):
            render(store("amazon", outputs.method, ca_file="/etc/with space.pem"), "playbook")


def test_the_compose_override_is_compose(tmp_path: Path) -> None:
    for secrets in renderer.SECRETS:
        files = render(store(), "plain", secrets)
        service = readers.yaml_1_2(files["docker/compose.override.yaml"])["services"]["synapse"]
        assert service["build"]["context"] == "./synapse-media/image"
        assert service["command"][-1] == service["volumes"][0].split(":")[1]
        assert ("env_file" in service) == (secrets == "reference")
        if secrets == "reference":
            assert service["env_file"][0]["path"].removeprefix("./") in {path.removeprefix("docker/") for path in files}


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    path = '/mnt/with space/100%/$HOME/"q"'
    files = render(store("amazon", "goofys"), "plain", media_path=path)
    unit = tmp_path / "synapse-media-goofys.service"
    # The programs and the user need not be here: only the syntax is asked.
    text = files["systemd/synapse-media-goofys.service"].replace("User=matrix-synapse\n", "")
    for program in ("/usr/local/bin/goofys", "/bin/fusermount"):
        text = text.replace(program, "/bin/true")
    unit.write_text(text, encoding="utf-8")
    try:
        found = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit], check=False, capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("no systemd here")
    assert [line for line in found.stderr.splitlines() if unit.name in line] == []
