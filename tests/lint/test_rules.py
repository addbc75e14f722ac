"""Every rule: a sample it must find, with its line, and samples in which nothing may be found."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from synapse_media import lint

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
BASE = "server_name: example.com\nreport_stats: false\n"
M = "matrix_synapse_ext_synapse_s3_storage_provider_"
G = "matrix_s3_media_store_"
R = "matrix_media_repo_datastore_"

GOOD_CONFIG = f"""\
    bucket: acme-media
    region_name: eu-central-1
    endpoint_url: https://s3.example.com
    access_key_id: AKIAIOSFODNN7EXAMPLE
    secret_access_key: {SECRET}
"""
GOOD_PROVIDER = (
    "media_storage_providers:\n- module: s3_storage_provider.S3StorageProviderBackend\n"
    "  store_local: true\n  store_remote: true\n  store_synchronous: true\n  config:\n"
)
GOOD_MODULE = f"""\
{M}enabled: true
{M}store_synchronous: true
{M}update_db_day_count: 36500
{M}periodic_migration_schedule: "2099-01-01 00:00:00"
{M}config_bucket: acme-media
{M}config_region_name: eu-central-1
{M}config_endpoint_url: https://s3.example.com
{M}config_access_key_id: AKIAIOSFODNN7EXAMPLE
{M}config_secret_access_key: {SECRET}
"""
GOOD_GOOFYS = f"""\
{G}enabled: true
{G}bucket_name: acme-media
{G}region: eu-central-1
{G}custom_endpoint_enabled: true
{G}custom_endpoint: https://s3.example.com
{G}aws_access_key: AKIAIOSFODNN7EXAMPLE
{G}aws_secret_key: {SECRET}
"""
GOOD_VARIABLES = f"""\
matrix_media_repo_enabled: true
{R}file_for_kinds: []
{R}s3_for_kinds: [thumbnails, remote_media, local_media, archives]
{R}s3_id: "abc"
{R}s3_opts_endpoint: s3.example.com
{R}s3_opts_region: eu-central-1
{R}s3_opts_bucket_name: acme-media
{R}s3_opts_access_key_id: AKIAIOSFODNN7EXAMPLE
{R}s3_opts_access_secret: {SECRET}
"""
GOOD_DATASTORES = f"""\
repo: {{port: 8000}}
datastores:
- type: file
  id: "one"
  forKinds: []
  opts: {{path: /data/media}}
- type: s3
  id: "two"
  forKinds: [all]
  opts:
    endpoint: s3.example.com:9000
    ssl: true
    region: eu-central-1
    bucketName: acme-media
    accessKeyId: AKIAIOSFODNN7EXAMPLE
    accessSecret: {SECRET}
"""


def synapse(config: str = "", more: str = "") -> str:
    """A homeserver.yaml whose provider has these lines too, or in place of those of the same name."""
    return BASE + more + GOOD_PROVIDER + replaced(GOOD_CONFIG, config, "    ")


def module(*lines: str) -> str:
    return replaced(GOOD_MODULE, "\n".join(lines))


def nightly(*lines: str) -> str:
    """The module with the job on, at the playbook's own hour."""
    return module(f"-{M}periodic_migration_schedule", *lines)


def goofys(*lines: str) -> str:
    return replaced(GOOD_GOOFYS, "\n".join(lines))


def variables(*lines: str) -> str:
    return replaced(GOOD_VARIABLES, "\n".join(lines))


def replaced(text: str, lines: str, indent: str = "") -> str:
    """`text` with each of the lines in place of the one of its name; "-name" takes that one out."""
    for line in filter(None, (part.strip() for part in lines.splitlines())):
        name = line.split(":")[0].removeprefix("-")
        without = re.sub(rf"(?m)^{indent}{re.escape(name)}:.*\n", "", text)
        text = without if line.startswith("-") else f"{without}{indent}{line}\n"
    return text


def custom_module(config: str = "") -> str:
    """The module on the playbook's list of providers of one's own."""
    return (
        "matrix_synapse_"
        + GOOD_PROVIDER.replace("providers:", "providers_custom:")
        + replaced(GOOD_CONFIG, config, "    ")
    )


def in_provider(text: str) -> str:
    """The valid provider with one line changed: 'store_local: true' -> text."""
    return synapse().replace("  store_local: true\n", f"  {text}\n" if text else "")


BAD: list[tuple[str, str, str]] = [
    # rule, file, sample; the line that is to be found is marked with #!
    ("placeholder", "vars.yml", module(f"{M}config_bucket: your-bucket-name #!")),
    ("placeholder", "vars.yml", goofys(f"{G}custom_endpoint: https://your-custom-endpoint #!")),
    (
        "placeholder",
        "media-repo.yaml",
        GOOD_DATASTORES.replace("bucketName: acme-media", "bucketName: your-media-bucket #!"),
    ),
    ("bucket-missing", "homeserver.yaml", synapse("-bucket").replace("Backend\n", "Backend #!\n")),
    ("bucket-missing", "vars.yml", goofys(f"-{G}bucket_name", f"{G}enabled: true #!")),
    ("endpoint-missing", "vars.yml", variables(f"-{R}s3_opts_endpoint", "matrix_media_repo_enabled: true #!")),
    ("endpoint-missing", "vars.yml", variables(f'{R}s3_opts_endpoint: "" #!')),
    (
        "endpoint-missing",
        "media-repo.yaml",
        GOOD_DATASTORES.replace("    endpoint: s3.example.com:9000\n", "").replace("type: s3", "type: s3 #!"),
    ),
    ("endpoint-missing", "media-repo.yaml", GOOD_DATASTORES.replace("s3.example.com:9000", '"" #!')),
    ("key-half", "homeserver.yaml", synapse("-secret_access_key\naccess_key_id: AKIAIOSFODNN7EXAMPLE #!")),
    ("key-half", "vars.yml", module(f"-{M}config_secret_access_key", f"{M}config_access_key_id: AKIA #!")),
    ("key-missing", "vars.yml", variables(f"-{R}s3_opts_access_key_id", f"-{R}s3_opts_access_secret")),
    (
        "keys-swapped",
        "homeserver.yaml",
        synapse(f"secret_access_key: AKIAIOSFODNN7EXAMPLE\naccess_key_id: {SECRET} #!"),
    ),
    ("keys-swapped", "vars.yml", goofys(f"{G}aws_secret_key: 00123456789abcdef00000001", f"{G}aws_access_key: K00 #!")),
    ("endpoint-without-scheme", "homeserver.yaml", synapse("endpoint_url: s3.example.com #!")),
    ("endpoint-without-scheme", "homeserver.yaml", synapse('endpoint_url: "" #!')),
    ("endpoint-without-scheme", "vars.yml", module(f"{M}config_endpoint_url: httpfoo #!")),
    ("endpoint-with-scheme", "vars.yml", variables(f"{R}s3_opts_endpoint: https://s3.example.com #!")),
    ("endpoint-with-scheme", "media-repo.yaml", GOOD_DATASTORES.replace("s3.example.com:9000", "s3.example.com/x #!")),
    ("endpoint-names-bucket", "homeserver.yaml", synapse("endpoint_url: https://s3.example.com/acme-media #!")),
    ("endpoint-names-bucket", "vars.yml", module(f"{M}config_endpoint_url: https://acme-media.fra1.example.com #!")),
    ("endpoint-path", "homeserver.yaml", synapse("endpoint_url: https://s3.example.com/storage/v1 #!")),
    ("storage-class-refused", "homeserver.yaml", synapse("storage_class: ONEZONE_IA #!")),
    ("storage-class-refused", "vars.yml", module(f"{M}config_storage_class: GLACIER #!")),
    ("prefix-form", "homeserver.yaml", synapse("prefix: media #!")),
    ("prefix-form", "vars.yml", module(f"{M}config_prefix: /media/ #!")),
    ("prefix-null", "homeserver.yaml", synapse("prefix: #!")),
    ("region-missing", "homeserver.yaml", synapse("-region_name")),
    ("region-missing", "vars.yml", goofys(f"-{G}region", f"{G}enabled: true #!")),
    ("region-missing", "vars.yml", variables(f"-{R}s3_opts_region")),
    ("read-as-other", "homeserver.yaml", synapse("secret_access_key: 0123 #!")),
    ("read-as-other", "homeserver.yaml", synapse("bucket: 12345 #!")),
    ("read-as-other", "vars.yml", module(f"{M}config_access_key_id: 0123 #!")),
    ("read-as-other", "media-repo.yaml", GOOD_DATASTORES.replace(f"accessSecret: {SECRET}", "accessSecret: 0x1F #!")),
    ("secret-is-template", "vars.yml", module(f'{M}config_secret_access_key: "{{{{abc}}}}x{{{{d}}}}" #!')),
    ("secret-is-template", "vars.yml", module(f'{M}config_secret_access_key: "a{{{{ 1+1 }}}}b" #!')),
    ("not-for-a-shell", "vars.yml", goofys(f'{G}bucket_name: "acme media" #!')),
    ("not-for-a-shell", "vars.yml", module(f'{M}config_prefix: "my media/" #!')),
    ("duplicate-key", "homeserver.yaml", synapse() + "report_stats: true #!\n"),
    ("misspelt-setting", "homeserver.yaml", BASE + "media_store_providers: #!\n- module: x\n"),
    ("misspelt-setting", "homeserver.yaml", BASE + "enable_media_repository: false #!\n"),
    ("provider-form", "homeserver.yaml", BASE + "media_storage_providers: {module: x} #!\n"),
    ("provider-form", "homeserver.yaml", synapse().replace("S3StorageProviderBackend", "S3StorageProvider #!")),
    ("provider-form", "homeserver.yaml", BASE + "media_storage_providers:\n- store_local: true #!\n"),
    (
        "provider-form",
        "homeserver.yaml",
        BASE + "media_storage_providers:\n- module: s3_storage_provider.S3StorageProviderBackend #!\n  bucket: x\n",
    ),
    (
        "nothing-stored",
        "homeserver.yaml",
        synapse().replace("  store_local: true\n  store_remote: true\n", "").replace("Backend\n", "Backend #!\n"),
    ),
    ("partly-stored", "homeserver.yaml", in_provider("").replace("Backend\n", "Backend #!\n")),
    ("partly-stored", "homeserver.yaml", in_provider("store_local: false #!").replace("remote: true", "remote: false")),
    ("not-a-switch", "homeserver.yaml", in_provider('store_local: "false" #!')),
    ("not-synchronous", "homeserver.yaml", synapse().replace("synchronous: true", "synchronous: false #!")),
    ("dead-option", "homeserver.yaml", synapse("threadpool_size: 80 #!")),
    ("dead-option", "homeserver.yaml", synapse("request_checksum_calculation: when_supported #!")),
    ("dead-option", "homeserver.yaml", synapse("sse_customer_algo: AES256 #!")),
    ("unknown-option", "homeserver.yaml", synapse("store_locale: true #!")),
    ("unknown-option", "homeserver.yaml", in_provider("store_local: true\n  bucket: acme-media #!")),
    ("provider-and-backup", "homeserver.yaml", synapse(more="backup_media_store_path: /backup #!\n")),
    ("no-local-storage", "homeserver.yaml", synapse(more="enable_local_media_storage: false #!\n")),
    ("no-local-storage", "vars.yml", module("matrix_synapse_enable_local_media_storage: false #!")),
    ("no-storage", "homeserver.yaml", BASE + "enable_local_media_storage: false #!\n"),
    ("no-storage", "vars.yml", "matrix_synapse_enable_local_media_storage: false #!\n"),
    ("retention-stays", "homeserver.yaml", synapse(more="media_retention: {remote_media_lifetime: 90d} #!\n")),
    ("retention-stays", "vars.yml", module("matrix_synapse_media_retention_remote_media_lifetime: 90d #!")),
    ("goofys-and-module", "vars.yml", GOOD_MODULE + goofys(f"{G}enabled: true #!")),
    ("goofys-and-module", "vars.yml", GOOD_MODULE + goofys(f"{G}enabled: true #!", f"{G}bucket_name: another")),
    ("media-repo-and-other", "vars.yml", GOOD_VARIABLES + module(f"{M}enabled: true #!")),
    ("media-repo-and-other", "vars.yml", GOOD_VARIABLES + goofys(f"{G}enabled: yes #!")),
    (
        "media-repo-and-other",
        "vars.yml",
        GOOD_VARIABLES + custom_module("bucket: another").replace("Backend\n", "Backend #!\n"),
    ),
    ("nightly-clean-up", "vars.yml", nightly(f"{M}update_db_day_count: 0 #!")),
    ("nightly-clean-up", "vars.yml", nightly(f"-{M}update_db_day_count", f"{M}enabled: true #!")),
    (
        "nightly-clean-up",
        "vars.yml",
        module(
            f"-{M}update_db_day_count", f"{M}periodic_migration_schedule: '2026-*-* 05:00:00'", f"{M}enabled: yes #!"
        ),
    ),
    ("clean-up-by-name", "vars.yml", nightly(f"{M}update_db_day_count: 30 #!")),
    ("clean-up-by-name", "vars.yml", nightly(f"{M}update_db_day_count: 36500 #!")),
    ("playbook-not-synchronous", "vars.yml", module(f"{M}store_synchronous: false #!")),
    ("playbook-not-synchronous", "vars.yml", module(f"-{M}store_synchronous", f"{M}enabled: true #!")),
    ("playbook-nothing-stored", "vars.yml", module(f"{M}store_local: false #!", f"{M}store_remote: false")),
    ("playbook-dead-option", "vars.yml", module(f"{M}config_threadpool_size: 80 #!")),
    ("setting-required", "vars.yml", module(f"-{M}config_region_name", f"{M}enabled: true #!")),
    ("setting-required", "vars.yml", module(f'{M}config_endpoint_url: "" #!')),
    (
        "goofys-default",
        "vars.yml",
        goofys(f"-{G}aws_access_key", f"-{G}aws_secret_key", f"{G}enabled: true #!"),
    ),
    ("goofys-default", "vars.yml", goofys(f"-{G}custom_endpoint", f"{G}enabled: true #!")),
    ("customer-key-half", "vars.yml", module(f"{M}config_sse_customer_enabled: true #!")),
    ("customer-key-half", "vars.yml", module(f"{M}config_sse_customer_key: {'k' * 32} #!")),
    (
        "checksum-headers",
        "vars.yml",
        module(f"{M}config_endpoint_url: https://s3.eu-central-003.backblazeb2.com #!"),
    ),
    (
        "endpoint-unused",
        "vars.yml",
        goofys(f"-{G}custom_endpoint_enabled", f"{G}custom_endpoint: https://x.example #!"),
    ),
    (
        "goofys-storage-class",
        "vars.yml",
        goofys(f"-{G}custom_endpoint", f"-{G}custom_endpoint_enabled", f"{G}enabled: true #!"),
    ),
    ("misspelt-variable", "vars.yml", module("matrix_synapse_ext_s3_storage_provider_config_bucket: x #!")),
    ("misspelt-variable", "vars.yml", goofys(f"{G}access_key: x #!")),
    ("misspelt-variable", "vars.yml", "matrix_media_repo_enable: true #!\n"),
    ("misspelt-variable", "vars.yml", variables(f"{R}file_opts_path: /x #!")),
    ("removed-variable", "vars.yml", variables("matrix_media_repo_datastores: [] #!")),
    ("providers-overridden", "vars.yml", module("matrix_synapse_media_storage_providers: [] #!")),
    (
        "kinds-overlap",
        "vars.yml",
        variables(f"-{R}file_for_kinds", f'{R}file_id: "f"', f"{R}s3_for_kinds: [local_media] #!"),
    ),
    (
        "kinds-overlap",
        "media-repo.yaml",
        GOOD_DATASTORES.replace("[]", "[thumbnails]").replace("type: s3", "type: s3 #!"),
    ),
    ("kind-unstored", "vars.yml", variables(f"{R}s3_for_kinds: [local_media, thumbnails] #!")),
    ("kind-unstored", "media-repo.yaml", GOOD_DATASTORES.replace("[all]", "[]").replace("type: s3", "type: s3 #!")),
    ("kind-unknown", "vars.yml", variables(f"{R}s3_for_kinds: [all, thumbnail] #!").replace("[all", "[thumbnails")),
    ("datastore-id", "vars.yml", variables(f"-{R}s3_id", f"{R}s3_for_kinds: [all] #!")),
    (
        "datastore-id",
        "vars.yml",
        variables(f"-{R}file_for_kinds", f"{R}s3_for_kinds: []", "matrix_media_repo_enabled: true #!"),
    ),
    ("datastore-id", "vars.yml", variables(f"{R}s3_id: 0123 #!")),
    ("datastore-id", "media-repo.yaml", GOOD_DATASTORES.replace('id: "two"', 'id: "one" #!')),
    ("datastore-id", "media-repo.yaml", GOOD_DATASTORES.replace('id: "two"', 'id: "" #!')),
    ("datastore-id", "media-repo.yaml", GOOD_DATASTORES.replace('id: "two"', "id: 0123 #!")),
    ("datastore-id-example", "media-repo.yaml", GOOD_DATASTORES.replace('"one"', "UNIQUE_ID_HERE #!")),
    ("datastore-id-example", "vars.yml", variables(f"{R}s3_id: CHANGE_ME_TO_A_UNIQUE_VALUE #!")),
    ("file-store-dropped", "vars.yml", variables(f'{R}file_id: "old"', f"{R}file_for_kinds: [] #!")),
    ("datastore-form", "media-repo.yaml", GOOD_DATASTORES.replace("forKinds: [all]", "forkinds: [all] #!")),
    ("datastore-form", "media-repo.yaml", GOOD_DATASTORES.replace("bucketName: acme", "bucketname: acme #!")),
    ("datastore-form", "media-repo.yaml", GOOD_DATASTORES.replace("type: file", "type: files #!")),
    (
        "datastore-form",
        "media-repo.yaml",
        GOOD_DATASTORES.replace("{path: /data/media}", "{} #!").replace("file\n", "file #!\n"),
    ),
    ("datastore-form", "media-repo.yaml", GOOD_DATASTORES.replace("region: eu-central-1", "region: [eu] #!")),
    ("datastore-form", "media-repo.yaml", GOOD_DATASTORES.replace("datastores:", "Datastores: #!")),
    ("ssl-not-boolean", "media-repo.yaml", GOOD_DATASTORES.replace("ssl: true", "ssl: yes #!")),
    ("ssl-not-boolean", "vars.yml", variables(f'{R}s3_opts_ssl: "on" #!')),
    ("prefix-length", "media-repo.yaml", GOOD_DATASTORES + "    prefixLength: 17 #!\n"),
    ("prefix-length", "vars.yml", variables(f"{R}s3_opts_prefix_length: 17 #!")),
    ("two-methods-one-bucket", "vars.yml", GOOD_GOOFYS + variables(f"{R}s3_opts_bucket_name: acme-media #!")),
    ("two-methods-one-bucket", "vars.yml", GOOD_GOOFYS + custom_module("bucket: acme-media #!")),
    (
        "two-methods-one-bucket",
        "vars.yml",
        goofys(f"{G}path: /matrix/s3-media-store") + custom_module("bucket: acme-media #!"),
    ),
    ("unreadable", "homeserver.yaml", "server_name: example.com\nlisteners: ]#!\n"),
]

GOOD: list[tuple[str, str]] = [
    ("homeserver.yaml", synapse()),
    ("homeserver.yaml", synapse("-access_key_id\n-secret_access_key")),
    ("homeserver.yaml", synapse("prefix: media/\nstorage_class: STANDARD_IA\nendpoint_url: https://s3.example.com/")),
    ("homeserver.yaml", synapse("access_key_id: 123456789")),
    ("homeserver.yaml", BASE + "media_storage_providers:\n- module: file_system\n  config: {directory: /backup}\n"),
    ("homeserver.yaml", BASE + "media_storage_providers: []\nmedia_store_path: /x\nmedia_retention: {}\n"),
    ("homeserver.yaml", BASE + "enable_media_repo: false\n"),
    ("vars.yml", GOOD_MODULE),
    ("vars.yml", module(f"{M}store_synchronous: yes", f"{M}config_bucket: '{{{{ my_bucket }}}}'")),
    ("vars.yml", module(f'{M}config_secret_access_key: !unsafe "a{{{{ 1+1 }}}}b"')),
    ("vars.yml", module(f"{M}config_secret_access_key: \"{{{{ lookup('ansible.builtin.env', 'X') }}}}\"")),
    ("vars.yml", module(f"{M}config_secret_access_key: !vault 6162")),
    (
        "vars.yml",
        module(f"{M}config_ec2_instance_profile: true", f"-{M}config_access_key_id", f"-{M}config_secret_access_key"),
    ),
    ("vars.yml", module(f"{M}update_db_day_count: 0", f"{M}periodic_migration_schedule: '2099-01-01'")),
    ("vars.yml", nightly(f"{M}update_db_day_count: '{{{{ days }}}}'")),
    ("vars.yml", module(f"{M}config_sse_customer_enabled: true", f"{M}config_sse_customer_key: {'k' * 32}")),
    (
        "vars.yml",
        module(
            f"{M}config_endpoint_url: https://s3.eu-central-003.backblazeb2.com",
            f"{M}config_region_name: eu-central-003",
        )
        + "matrix_synapse_ext_s3_storage_provider_container_arguments:\n"
        "- --env=AWS_REQUEST_CHECKSUM_CALCULATION=when_required\n",
    ),
    ("vars.yml", module(f"{M}config_endpoint_url: https://s3.eu-central-1.amazonaws.com")),
    ("vars.yml", variables(f"{R}s3_id: 1230")),
    # Switched off: nothing of it counts.
    ("vars.yml", module(f"{M}enabled: false", f"{M}update_db_day_count: 0", f"{M}config_endpoint_url: ''")),
    ("vars.yml", f"{M}enabled: false\n{M}config_endpoint_url: s3\n{M}config_storage_class: GLACIER\n"),
    ("vars.yml", GOOD_GOOFYS),
    ("vars.yml", goofys(f"{G}custom_endpoint: s3.example.com")),  # https is implied
    ("vars.yml", goofys(f"{G}enabled: false") + GOOD_MODULE),
    # A bucket that is mounted to copy from, while the module is on another.
    ("vars.yml", GOOD_MODULE + goofys(f"{G}bucket_name: old-media", f"{G}path: /matrix/s3-media-store")),
    ("vars.yml", GOOD_VARIABLES),
    ("vars.yml", variables(f'{R}file_id: "f"', f"{R}file_enabled: true", f"{R}s3_opts_ssl: yes")),
    ("vars.yml", variables("matrix_media_repo_enabled: '{{ maybe }}'", f"{R}s3_opts_endpoint: '{{{{ x }}}}'")),
    (
        "vars.yml",
        "matrix_s3_media_store_helper: x\nmatrix_x: '{{ matrix_s3_media_store_helper }}'\n",
    ),
    ("media-repo.yaml", GOOD_DATASTORES),
    (
        "media-repo.yaml",
        GOOD_DATASTORES.replace("    region: eu-central-1\n", "").replace("s3.example.com:9000", "s3.amazonaws.com"),
    ),
]


def run(tmp_path: Path, name: str, text: str, mode: int = 0o600) -> lint.Report:
    file = tmp_path / name
    file.write_text(dedent(text))
    file.chmod(mode)
    return lint.check([file])


@pytest.mark.parametrize(("name", "file", "text"), BAD, ids=[f"{number}-{bad[0]}" for number, bad in enumerate(BAD)])
def test_found_where_it_is(tmp_path: Path, name: str, file: str, text: str) -> None:
    found = [finding for finding in run(tmp_path, file, text).findings if finding.rule == name]
    assert found
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("#!")]
    if marked:
        assert {finding.line for finding in found} & set(marked)
    for finding in found:
        assert finding.file == str(tmp_path / file)
        assert finding.reason
        assert finding.mend.endswith((".", "media."))
        assert finding.link.startswith("https://")


def test_the_link_is_of_the_method_that_was_found(tmp_path: Path) -> None:
    (found,) = run(tmp_path, "vars.yml", variables(f"-{R}s3_opts_region")).findings
    assert "matrix-media-repo" in found.link
    (found,) = run(tmp_path, "vars.yml", goofys(f"-{G}region")).findings
    assert "goofys" in found.link
    (found,) = run(tmp_path, "homeserver.yaml", synapse("-region_name")).findings
    assert "synapse-s3-storage-provider" in found.link


@pytest.mark.parametrize(("file", "text"), GOOD, ids=str)
def test_nothing_is_found(tmp_path: Path, file: str, text: str) -> None:
    assert run(tmp_path, file, text).findings == ()
