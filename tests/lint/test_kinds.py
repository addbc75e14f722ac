"""What people really have in their files, kind by kind: what is wrong in it, and the fine files beside it.

The kinds were met in public threads and configurations; the files are written anew. Each says exactly what is found.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from textwrap import dedent, indent

import pytest

from synapse_media import cli, lint
from tests.lint.more_kinds import MORE
from tests.lint.test_rules import (
    BASE,
    GOOD_CONFIG,
    GOOD_DATASTORES,
    GOOD_GOOFYS,
    GOOD_MODULE,
    GOOD_PROVIDER,
    SECRET,
    G,
    M,
    R,
    custom_module,
    goofys,
    in_provider,
    module,
    synapse,
    variables,
)

HOME, VARS, REPO = "homeserver.yaml", "vars.yml", "media-repo.yaml"
DROP_IN = synapse().removeprefix(BASE)
BAD_DROP_IN = synapse("endpoint_url: s3.example.net").removeprefix(BASE)
EXTENSION = "matrix_synapse_configuration_extension_yaml"


FINE_PROVIDER = {
    "module": "s3_storage_provider.S3StorageProviderBackend",
    "store_local": True,
    "store_remote": True,
    "store_synchronous": True,
    "config": {
        "bucket": "acme-media",
        "region_name": "garage",
        "endpoint_url": "https://s3.example.net",
        "access_key_id": "<SOPS:0123abcd:PLACEHOLDER>",
        "secret_access_key": "<SOPS:4567abcd:PLACEHOLDER>",
    },
}
MODULES = "modules:\n- module: s3_storage_provider.S3StorageProviderBackend\n  config: {bucket: acme-media}\n"
PROVIDER = {"module": "s3_storage_provider.S3StorageProviderBackend", "config": {"bucket": "aaa"}}


def config_map(text: str, kind: str = "ConfigMap", name: str = "homeserver.yaml") -> str:
    """A text in an object of Kubernetes, as kubectl and people write it."""
    field = "data" if kind == "ConfigMap" else "stringData"
    return f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: synapse}}\n{field}:\n  {name}: |\n{indent(text, '    ')}"


def block_secret(style: str) -> str:
    return synapse().replace(f"secret_access_key: {SECRET}", f"secret_access_key: {style}\n      {SECRET}")


def sealed_data(text: str) -> str:
    encoded = base64.b64encode(text.encode()).decode()
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: synapse}}\ndata:\n  homeserver.yaml: {encoded}\n"


def binary_data(text: str) -> str:
    return sealed_data(text).replace("Secret", "ConfigMap").replace("\ndata:", "\nbinaryData:")


def s3_opts(*lines: str) -> str:
    """The good media-repo.yaml with lines in place of those of their name, or beside them."""
    text = GOOD_DATASTORES
    for line in lines:
        name = line.split(":")[0]
        kept = [old for old in text.splitlines() if not old.strip().startswith(f"{name}:")]
        text = "\n".join([*kept, f"    {line}"]) + "\n"
    return text


def datastores(line: str, kinds: str = "[all]") -> str:
    return GOOD_DATASTORES.replace("  forKinds: [all]", f"  {line}\n  forKinds: {kinds}")


# ---- (kind, file, text, the rules that are found)

LOSES: list[tuple[str, str, str, set[str]]] = [
    ("store_local", HOME, in_provider("store_local: false"), {"local-not-stored"}),
    ("store_local", HOME, in_provider("store_local: no"), {"local-not-stored"}),
    ("store_local", HOME, in_provider("store_local: False"), {"local-not-stored"}),
    ("store_local", HOME, in_provider('"store_local": off'), {"local-not-stored"}),
    (
        "store_local",
        HOME,
        in_provider("store_local: false").replace("  store_remote: true\n", ""),
        {"local-not-stored"} | {"partly-stored"},
    ),
    ("store_local", VARS, module(f"{M}store_local: false"), {"playbook-local-not-stored"}),
    ("store_local", VARS, module(f"{M}store_local: 'no'"), {"not-a-switch"}),
    ("store_local", VARS, custom_module().replace("store_local: true", "store_local: false"), {"local-not-stored"}),
    # Synapse counts a switch without a value as false.
    ("store_local", HOME, in_provider("store_local:"), {"partly-stored"}),
    ("store_local", HOME, in_provider("store_local: ~"), {"partly-stored"}),
    ("store_local", HOME, in_provider('store_local: ""'), {"partly-stored"}),
    ("store_local", HOME, synapse().replace("store_remote: true", "store_remote: null"), {"partly-stored"}),
    (
        "store_local",
        HOME,
        in_provider("store_local: false").replace("te: true", "te:"),
        {"local-not-stored", "partly-stored"},
    ),
    ("store_local", HOME, in_provider("").replace("te: true", "te:"), {"nothing-stored"}),
    ("store_local", HOME, re.sub(r"(store_\w+): true", r"\1:", synapse()), {"nothing-stored"}),
    ("store_local", HOME, synapse().replace("synchronous: true", "synchronous:"), {"not-synchronous"}),
    ("store_local", VARS, custom_module().replace("store_local: true", "store_local:"), {"partly-stored"}),
    ("store_local", VARS, module(f"{M}store_local:"), {"playbook-local-not-stored"}),
    ("store_local", VARS, module(f"{M}store_local: ~"), {"playbook-local-not-stored"}),
    ("store_local", VARS, module(f"{M}store_local: ''"), {"playbook-local-not-stored"}),
    ("store_local", VARS, module(f"{M}store_local:", f"{M}store_remote: null"), {"playbook-nothing-stored"}),
    ("store_local", VARS, module(f"{M}store_local: '{{{{ my_switch }}}}'"), set()),
    (
        "temporary",
        HOME,
        in_provider("store_local:").replace(BASE, BASE + "media_store_path: /tmp\n"),
        {"partly-stored", "media-store-temporary"},
    ),
    (
        "store_local",
        "values.yaml",
        "synapse:\n  additional:\n    s3.yaml:\n      config: |\n"
        + indent(in_provider("store_local:").removeprefix(BASE), "        "),
        {"partly-stored"},
    ),
    (
        "store_local",
        "homeserver.json",
        json.dumps({"server_name": "a.example", "media_storage_providers": [FINE_PROVIDER | {"store_local": None}]}),
        {"partly-stored"},
    ),
    # A string or number counts as true, unless it is empty or 0.
    ("switch", HOME, in_provider("store_local: 1"), set()),
    ("switch", HOME, in_provider('store_local: "true"'), set()),
    ("switch", HOME, in_provider('store_local: "false"'), {"not-a-switch"}),
    ("switch", HOME, in_provider("store_local: 'off'"), {"not-a-switch"}),
    ("switch", HOME, synapse().replace("synchronous: true", "synchronous: 'no'"), {"not-a-switch"}),
    ("switch", HOME, in_provider("store_local: 0"), {"local-not-stored"}),
    (
        "switch",
        HOME,
        in_provider('store_local: "false"').replace(BASE, BASE + "media_store_path: /tmp\n"),
        {"not-a-switch"},
    ),
    # Media fetched from other servers can be fetched again: a choice.
    ("store_local", HOME, in_provider("store_local: true").replace("store_remote: true", "store_remote: false"), set()),
    ("store_local", VARS, module(f"{M}store_remote: false"), set()),
    (
        "temporary",
        HOME,
        in_provider("store_local: false").replace(BASE, BASE + "media_store_path: /tmp\n"),
        {"local-not-stored", "media-store-temporary"},
    ),
    ("temporary", HOME, BASE + "media_store_path: /run/synapse/media\n", {"media-store-temporary"}),
    (
        "temporary",
        HOME,
        BASE + 'media_store_path: "/dev/shm/media"\nmedia_storage_providers: []\n',
        {"media-store-temporary"},
    ),
    ("temporary", HOME, BASE + "media_store_path: /var/tmp/media_store/\n", {"media-store-temporary"}),
    (
        "temporary",
        HOME,
        BASE + "media_store_path: /tmp/x\nmedia_storage_providers:\n- module: file_system\n  config: {directory: /b}\n",
        {"media-store-temporary"},
    ),
    # With everything in the bucket at once, the local disk is a cache.
    ("temporary", HOME, synapse(more="media_store_path: /tmp/media\n"), set()),
    ("temporary", HOME, BASE + "media_store_path: /tmpfiles/media\n", set()),
    ("temporary", HOME, BASE + "media_store_path: /tmp\nenable_media_repo: false\n", set()),
    ("temporary", HOME, BASE + "media_store_path: /srv/run/media\n", set()),
    (
        "store path",
        VARS,
        goofys("matrix_synapse_media_store_path: /mnt/bigdisk/synapse-media"),
        {"store-path-elsewhere"},
    ),
    ("store path", VARS, goofys("matrix_synapse_media_store_path: '/mnt/media/'"), {"store-path-elsewhere"}),
    ("store path", VARS, "matrix_synapse_media_store_path: /data/media\n", {"store-path-elsewhere"}),
    ("store path", VARS, module("matrix_synapse_media_store_path: /data/media-store"), {"store-path-elsewhere"}),
    (
        "store path",
        VARS,
        goofys("matrix_synapse_media_store_path: /mnt/x/m", "matrix_synapse_storage_path: /mnt/y"),
        {"store-path-elsewhere"},
    ),
    ("store path", VARS, goofys(f"{G}path: /mnt/bucket"), {"goofys-mount-elsewhere"}),
    ("store path", VARS, goofys(f"{G}path: /matrix/synapse/storage/other"), {"goofys-mount-elsewhere"}),
    ("store path", VARS, goofys(f"{G}path: /matrix/s3-media-store"), {"goofys-migrating"}),
    # Another name in the same directory, the whole directory moved, or a mount of one's own.
    ("store path", VARS, goofys("matrix_synapse_media_store_path: /matrix/synapse/storage/media"), set()),
    (
        "store path",
        VARS,
        goofys("matrix_synapse_media_store_path: /mnt/x/media", "matrix_synapse_storage_path: /mnt/x"),
        set(),
    ),
    ("store path", VARS, goofys("matrix_synapse_media_store_path: '{{ matrix_synapse_storage_path }}/m'"), set()),
    (
        "store path",
        VARS,
        goofys("matrix_base_data_path: /srv/matrix", "matrix_synapse_media_store_path: /srv/matrix/synapse/storage/m"),
        set(),
    ),
    (
        "store path",
        VARS,
        goofys("matrix_synapse_base_path: /srv/s", "matrix_synapse_media_store_path: /srv/s/storage/m"),
        set(),
    ),
    ("store path", VARS, goofys(f"{G}path: /matrix/synapse/storage/media-store/"), set()),
    ("store path", VARS, goofys(f"{G}path: '{{{{ matrix_synapse_media_store_path }}}}'"), set()),
    (
        "store path",
        VARS,
        "matrix_synapse_media_store_path: /data/m\nmatrix_synapse_container_additional_volumes:\n"
        "- {src: /data/m, dst: /matrix-media-store-parent/m, options: rw}\n",
        set(),
    ),
    ("prefix", VARS, module(f"{M}config_prefix: media/"), {"prefix-once-ignored"}),
    ("prefix", VARS, module(f'{M}config_prefix: "synapse/example.org/"'), {"prefix-once-ignored"}),
    ("prefix", VARS, module(f"{M}config_prefix: media"), {"prefix-once-ignored", "prefix-form"}),
    ("prefix", VARS, module(f'{M}config_prefix: ""'), set()),
    ("prefix", VARS, module(f"{M}config_prefix:"), set()),
    ("prefix", VARS, module(f"{M}enabled: false", f"{M}config_prefix: media/"), set()),
    ("prefix", HOME, synapse("prefix: media/"), set()),
    ("no local storage", HOME, synapse(more="enable_local_media_storage: false\n"), {"no-local-storage"}),
    ("no local storage", HOME, synapse(more="enable_local_media_storage: no\n"), {"no-local-storage"}),
    (
        "no local storage",
        VARS,
        f"{EXTENSION}: |\n" + indent("enable_local_media_storage: false\n" + DROP_IN, "  "),
        {"no-local-storage"},
    ),
    (
        "no local storage",
        "values.yaml",
        "extraConfig:\n" + indent("enable_local_media_storage: false\n" + DROP_IN, "  "),
        {"no-local-storage"},
    ),
    ("no local storage", HOME, synapse(more="enable_local_media_storage: true\n"), set()),
]

NO_ENDPOINT = "\n".join(
    line for line in synapse("region_name: REGION").splitlines() if not line.strip().startswith("endpoint_url")
)
_R2, _R2_EU = (f"https://{'0123456789abcdef' * 2}{place}.r2.cloudflarestorage.com" for place in ("", ".eu"))
_AMAZON = ("endpoint: s3.eu-central-1.amazonaws.com", "region: eu-central-1")
VALUES: list[tuple[str, str, str, set[str]]] = [
    ("storage class", HOME, synapse('storage_class: ""'), {"storage-class-refused"}),
    ("storage class", HOME, synapse("storage_class:"), {"storage-class-refused"}),
    ("storage class", HOME, synapse("storage_class: ~"), {"storage-class-refused"}),
    ("storage class", HOME, synapse("storage_class: standard"), {"storage-class-refused"}),
    ("storage class", HOME, synapse("storage_class: 'STANDARD '"), {"stray-character"}),
    ("storage class", HOME, synapse("storage_class: DEEP_ARCHIVE"), {"storage-class-refused"}),
    ("storage class", VARS, module(f"{M}config_storage_class: ''"), {"storage-class-refused"}),
    ("storage class", VARS, module(f"{M}config_storage_class:"), {"storage-class-refused"}),
    ("storage class", VARS, custom_module("storage_class: null"), {"storage-class-refused"}),
    ("storage class", HOME, synapse("storage_class: INTELLIGENT_TIERING"), set()),
    ("storage class", VARS, module(f"{M}config_storage_class: '{{{{ storage_class }}}}'"), set()),
    ("storage class", REPO, s3_opts('storageClass: ""'), set()),
    ("comment", HOME, "#@ mine\n" + synapse("bucket: a/b"), {"bucket-name"}),
    ("storage class", REPO, s3_opts("storageClass: GLACIER"), {"storage-class-refused"}),
    ("storage class", REPO, s3_opts("storageClass: DEEP_ARCHIVE"), {"storage-class-refused"}),
    ("storage class", VARS, variables(f"{R}s3_opts_storage_class: GLACIER"), {"storage-class-refused"}),
    ("storage class", REPO, s3_opts("storageClass: standard", *_AMAZON), {"storage-class-refused"}),
    ("storage class", REPO, s3_opts("storageClass: GLACIER_IR", *_AMAZON), set()),
    ("storage class", REPO, s3_opts("storageClass: standard"), set()),
    *(
        ("not S3", HOME, synapse(f"endpoint_url: {endpoint}"), {"endpoint-not-s3"})
        for endpoint in (
            "https://pub-0123456789abcdef.r2.dev",
            "https://api.backblazeb2.com",
            "https://f003.backblazeb2.com",
            "https://link.storjshare.io",
            "https://digitaloceanspaces.com",
            "https://s3.console.aws.amazon.com",
            "http://minio:9001",
        )
    ),
    ("not S3", REPO, s3_opts("endpoint: api.backblazeb2.com"), {"endpoint-not-s3"}),
    ("not S3", VARS, module(f"{M}config_endpoint_url: https://link.storjshare.io"), {"endpoint-not-s3"}),
    ("not S3", HOME, synapse("endpoint_url: http://minio:9000"), set()),
    ("not S3", HOME, synapse("endpoint_url: https://gateway.storjshare.io"), set()),
    ("R2", HOME, synapse(f"endpoint_url: {_R2}\nregion_name: eu-central-1"), {"region-not-endpoints"}),
    ("R2", HOME, synapse(f"endpoint_url: {_R2_EU}\nregion_name: eu"), {"region-not-endpoints"}),
    *(
        ("R2", HOME, synapse(f"endpoint_url: {_R2}\nregion_name: {name}"), set())
        for name in ("auto", "weur", "us-east-1")
    ),
    ("no endpoint", HOME, synapse("endpoint_url:\nregion_name: gra"), {"region-not-endpoints"}),
    ("no endpoint", HOME, NO_ENDPOINT.replace("REGION", "fr-par"), {"region-not-endpoints"}),
    ("no endpoint", HOME, NO_ENDPOINT.replace("REGION", "us-central-1"), {"region-not-endpoints"}),
    ("no endpoint", HOME, NO_ENDPOINT.replace("REGION", "eu-central-1"), set()),
    ("no endpoint", HOME, NO_ENDPOINT.replace("REGION", "cn-north-1"), set()),
    ("no endpoint", HOME, NO_ENDPOINT.replace("REGION", "us-gov-west-1"), set()),
    ("no endpoint", VARS, custom_module("endpoint_url:\nregion_name: garage"), {"region-not-endpoints"}),
    ("nothing", HOME, synapse("access_key_id:\nsecret_access_key:"), {"no-value"}),
    ("nothing", HOME, synapse("access_key_id: null\nsecret_access_key: ~"), {"no-value"}),
    ("nothing", HOME, synapse('access_key_id: ""\nsecret_access_key: ""'), {"no-value"}),
    ("nothing", HOME, synapse("access_key_id:\n-secret_access_key"), {"no-value"}),
    ("nothing", HOME, synapse("access_key_id:"), {"no-value"}),
    ("nothing", HOME, synapse('access_key_id: ""'), {"no-value"}),
    ("nothing", HOME, synapse("secret_access_key:"), {"no-value"}),
    ("nothing", HOME, synapse("-access_key_id"), {"key-half"}),
    ("nothing", VARS, custom_module("access_key_id:"), {"no-value"}),
    ("nothing", VARS, module(f"{M}config_access_key_id:"), {"key-half"}),
    ("nothing", VARS, custom_module("access_key_id:") + f"{M}version: 1.5.0\n", {"key-half", "module-old"}),
    ("a list", HOME, synapse("bucket: [acme-media]"), {"read-as-other"}),
    ("a list", HOME, synapse("bucket: []"), {"read-as-other"}),
    ("a list", HOME, synapse("storage_class: [STANDARD]"), {"read-as-other"}),
    ("a list", HOME, synapse("endpoint_url: [https://s3.example.com]"), {"read-as-other"}),
    ("a list", VARS, custom_module("bucket: [acme-media]"), {"read-as-other"}),
    ("a list", VARS, module(f"{M}config_bucket: [acme-media]"), {"read-as-other"}),
    ("a list", VARS, module(f"{M}config_storage_class: [STANDARD]"), {"read-as-other"}),
    ("nothing", HOME, synapse("region_name:"), {"no-value"}),
    ("nothing", HOME, synapse('region_name: ""'), {"no-value"}),
    ("nothing", HOME, synapse("sse_customer_key:"), {"no-value"}),
    ("nothing", VARS, custom_module("access_key_id:\nsecret_access_key:"), {"no-value"}),
    ("nothing", VARS, module(f"{M}config_region_name: ''"), {"setting-required"}),
    ("nothing", VARS, module(f"{M}config_region_name:"), {"setting-required"}),
    ("nothing", VARS, module(f"{M}config_access_key_id:", f"{M}config_secret_access_key:"), {"setting-required"}),
    ("nothing", HOME, synapse("bucket:"), {"bucket-missing"}),
    ("nothing", HOME, synapse("prefix:"), {"prefix-null"}),
    # The machine's role or the environment has the key; a token of nothing is none.
    ("nothing", HOME, synapse("-access_key_id\n-secret_access_key"), set()),
    ("nothing", HOME, synapse("session_token:"), set()),
    ("nothing", HOME, synapse('session_token: ""'), set()),
    ("nothing", HOME, synapse("endpoint_url:"), set()),
    ("host", HOME, synapse("endpoint_url: http://matrix_minio:9000"), {"endpoint-host"}),
    ("host", HOME, synapse('endpoint_url: "https://my_store.example.net"'), {"endpoint-host"}),
    ("host", HOME, synapse("endpoint_url: https://-s3.example.net"), {"endpoint-host"}),
    ("host", HOME, synapse("endpoint_url: https://s3..example.net"), {"endpoint-host"}),
    ("host", HOME, synapse("endpoint_url: https://s3.example.net:70000"), {"endpoint-host"}),
    ("host", HOME, synapse("endpoint_url: https://https://s3.example.net"), {"endpoint-host"}),
    ("host", HOME, synapse("endpoint_url: https:/s3.example.net"), {"endpoint-without-scheme"}),
    ("host", HOME, synapse("endpoint_url: 'https://s3.example.net?x=1'"), {"endpoint-host"}),
    ("host", VARS, module(f"{M}config_endpoint_url: http://minio_1:9000"), {"endpoint-host"}),
    ("host", VARS, custom_module("endpoint_url: http://minio_1:9000"), {"endpoint-host"}),
    ("host", HOME, synapse("endpoint_url: http://minio:9000"), set()),
    ("host", HOME, synapse("endpoint_url: http://127.0.0.1:9000"), set()),
    ("host", HOME, synapse("endpoint_url: 'http://[fd00::1]:9000'"), set()),
    ("host", HOME, synapse("endpoint_url: HTTPS://S3.Example.net/"), set()),
    ("host", REPO, s3_opts("endpoint: matrix_minio:9000"), set()),
    ("host", VARS, goofys(f"{G}custom_endpoint: http://matrix_minio:9000"), set()),
    ("blank", HOME, synapse('region_name: "eu-central-1 "'), {"stray-character"}),
    ("blank", HOME, synapse('endpoint_url: "https://s3.example.net\\n"'), {"stray-character"}),
    ("blank", HOME, synapse('access_key_id: "AKIAIOSFODNN7EXAMPLE\\t"'), {"stray-character"}),
    ("blank", HOME, synapse(f'secret_access_key: " {SECRET}"'), {"stray-character"}),
    ("blank", HOME, synapse('bucket: "acme-media "'), {"stray-character"}),
    ("blank", HOME, synapse("bucket: '\"acme-media\"'"), {"stray-character"}),
    ("blank", HOME, synapse('bucket: "acme\\u200b-media"'), {"stray-character"}),
    (
        "blank",
        HOME,
        block_secret("|"),
        {"stray-character"},
    ),
    ("blank", HOME, synapse('endpoint_url: "https://s3.example.net\\u00a0"'), {"stray-character"}),
    ("blank", HOME, synapse('session_token: "abc\\n"'), {"stray-character"}),
    ("blank", VARS, module(f'{M}config_access_key_id: "AKIAIOSFODNN7EXAMPLE "'), {"stray-character"}),
    ("blank", REPO, s3_opts(f'accessSecret: "{SECRET}\\n"'), {"stray-character"}),
    ("blank", REPO, s3_opts('bucketName: "acme-media "'), {"stray-character"}),
    ("blank", HOME, synapse("region_name: eu-central-1   "), set()),
    ("blank", HOME, synapse('secret_access_key: "correct horse battery"'), set()),
    (
        "blank",
        HOME,
        block_secret("|-"),
        set(),
    ),
    ("bucket", HOME, synapse("bucket: s3://acme-media"), {"bucket-name"}),
    ("bucket", HOME, synapse("bucket: acme-media/synapse"), {"bucket-name"}),
    ("bucket", HOME, synapse('bucket: "/acme-media"'), {"bucket-name"}),
    ("bucket", HOME, synapse("bucket: acme-media/"), {"bucket-name"}),
    ("bucket", HOME, synapse("bucket: arn:aws:s3:::acme-media"), {"bucket-name"}),
    ("bucket", HOME, synapse("bucket: https://s3.example.net/acme-media"), {"bucket-name"}),
    ("bucket", HOME, synapse("bucket: acme media"), {"stray-character"}),
    ("bucket", HOME, synapse("bucket: Acme-Media"), {"bucket-name-unusual"}),
    ("bucket", HOME, synapse("bucket: acme_media"), {"bucket-name-unusual"}),
    ("bucket", HOME, synapse("bucket: ab"), {"bucket-name-unusual"}),
    ("bucket", VARS, module(f"{M}config_bucket: acme-media/synapse"), {"bucket-name"}),
    ("bucket", VARS, goofys(f"{G}bucket_name: acme-media/synapse"), {"bucket-name"}),
    ("bucket", REPO, s3_opts("bucketName: s3://acme-media"), {"bucket-name"}),
    ("bucket", VARS, variables(f"{R}s3_opts_bucket_name: Acme-Media"), {"bucket-name-unusual"}),
    ("bucket", HOME, synapse("bucket: media.example.org"), set()),
    ("bucket", HOME, synapse("bucket: matrix-media-sphere"), set()),
    ("bucket", VARS, goofys(f"{G}bucket_name: 'acme-media:synapse'"), set()),
    ("region", HOME, synapse("region_name: eu-central-1a"), {"region-form"}),
    (
        "region",
        HOME,
        synapse("region_name: us-east-1b\nendpoint_url: https://s3.us-east-1.amazonaws.com"),
        {"region-form"},
    ),
    ("region", VARS, module(f"{M}config_region_name: eu-west-1c"), {"region-form"}),
    ("region", VARS, goofys(f"{G}region: eu-west-1c"), {"region-form"}),
    ("region", REPO, s3_opts("region: eu-west-1c"), {"region-form"}),
    ("region", HOME, synapse("region_name: eu_central_1"), {"region-form"}),
    ("region", HOME, synapse("region_name: EU (Frankfurt)"), {"stray-character"}),
    ("region", HOME, synapse("endpoint_url: https://s3.eu-central-1a.amazonaws.com"), {"region-form"}),
    ("region", HOME, synapse("endpoint_url: https://s3.us-west-2.amazonaws.com"), {"region-not-endpoints"}),
    ("region", HOME, synapse("endpoint_url: https://s3-us-west-2.amazonaws.com"), {"region-not-endpoints"}),
    ("region", HOME, synapse("endpoint_url: https://s3.dualstack.us-west-2.amazonaws.com/"), {"region-not-endpoints"}),
    (
        "region",
        HOME,
        synapse("region_name: us-east-1\nendpoint_url: https://s3.eu-central-003.backblazeb2.com"),
        {"region-not-endpoints"},
    ),
    (
        "region",
        HOME,
        synapse("region_name: auto\nendpoint_url: https://s3.us-west-004.backblazeb2.com"),
        {"region-not-endpoints"},
    ),
    (
        "region",
        HOME,
        synapse("region_name: us-east-1\nendpoint_url: https://s3.eu-central-2.wasabisys.com"),
        {"region-not-endpoints"},
    ),
    (
        "region",
        HOME,
        synapse("region_name: fr-par\nendpoint_url: https://s3.nl-ams.scw.cloud"),
        {"region-not-endpoints"},
    ),
    (
        "region",
        HOME,
        synapse("region_name: nyc3\nendpoint_url: https://fra1.digitaloceanspaces.com"),
        {"region-not-endpoints"},
    ),
    (
        "region",
        HOME,
        synapse("region_name: EU-CENTRAL-1\nendpoint_url: https://s3.eu-central-1.amazonaws.com"),
        {"region-not-endpoints"},
    ),
    ("region", REPO, s3_opts("endpoint: s3.us-west-004.backblazeb2.com"), {"region-not-endpoints"}),
    ("region", HOME, synapse("region_name: us-east-1\nendpoint_url: https://fra1.digitaloceanspaces.com"), set()),
    ("region", HOME, synapse("region_name: us-east-1\nendpoint_url: https://fsn1.your-objectstorage.com"), set()),
    ("region", HOME, synapse("region_name: auto\nendpoint_url: https://0123abcd.r2.cloudflarestorage.com"), set()),
    ("region", HOME, synapse("region_name: garage\nendpoint_url: https://s3.example.net"), set()),
    (
        "region",
        HOME,
        synapse("region_name: us-gov-west-1\nendpoint_url: https://s3.us-gov-west-1.amazonaws.com"),
        set(),
    ),
    ("region", HOME, synapse("region_name: nbg1\nendpoint_url: https://nbg1.your-objectstorage.com"), set()),
    ("region", HOME, synapse("region_name: us-east-1\nendpoint_url: https://gateway.storjshare.io"), set()),
]

_SIX = (
    "bucket: {}\nregion_name: {}\nendpoint_url: {}\naccess_key_id: {}\nsecret_access_key: {}\nsession_token: {}".format
)
VALUES += [
    ("region", HOME, synapse("region_name: us-east-1\nendpoint_url: https://eu-central-1.linodeobjects.com"), set()),
    ("region", HOME, synapse("region_name: us-east-1\nendpoint_url: https://s3.us-east-005.dream.io"), set()),
    ("region", HOME, synapse("region_name: us-east-1\nendpoint_url: https://storage.googleapis.com"), set()),
    ("region", HOME, synapse("region_name: auto\nendpoint_url: https://t3.storage.dev"), set()),
    ("region", HOME, synapse("region_name: gra\nendpoint_url: https://s3.gra.io.cloud.ovh.net"), set()),
    ("region", HOME, synapse("region_name: it-mil\nendpoint_url: https://s3.it-mil.scw.cloud/"), set()),
]

PLACEHOLDERS: list[tuple[str, str, str, set[str]]] = [
    ("placeholder", HOME, synapse(_SIX("<A>", "<B>", "<URL>", "<KEY_ID>", "<KEY>", "<TOKEN>")), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX("‹bucket›", "‹region›", "‹url›", "‹id›", "‹key›", "‹token›")), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["your_value"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["YOUR_VALUE"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["CHANGE_ME"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["changeme"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["REPLACE_THIS"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["xxxxxxxx"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["'...'"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse("endpoint_url: https://s3.<region>.amazonaws.com"), {"placeholder"}),
    ("placeholder", HOME, synapse("endpoint_url: https://YOUR_ACCOUNT.r2.cloudflarestorage.com"), {"placeholder"}),
    ("placeholder", HOME, synapse("endpoint_url: 'https://s3.{region}.backblazeb2.com'"), {"placeholder"}),
    ("placeholder", HOME, synapse("endpoint_url: https://s3.REGION.amazonaws.com"), {"placeholder"}),
    ("placeholder", HOME, synapse("bucket: your-bucket"), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["replace_with_your_own"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["change_this_value"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["'TODO: fill in'"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*["'[your value]'"] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse("access_key_id: AKIA...\nsecret_access_key: access key"), {"placeholder"}),
    ("placeholder", HOME, synapse("access_key_id: GKxxx\nsecret_access_key: xxxx"), {"placeholder"}),
    (
        "placeholder",
        HOME,
        synapse("access_key_id: AKIAXXXXXXXXXXXXXXXX\nsecret_access_key: key_secret"),
        {"placeholder"},
    ),
    ("placeholder", HOME, synapse("bucket: bucket_name\naccess_key_id: key_id"), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*['"None"'] * 6)), {"placeholder"}),
    ("placeholder", HOME, synapse(_SIX(*['"<no value>"'] * 6)), {"placeholder"}),
    (
        "placeholder",
        HOME,
        synapse("access_key_id: aws-access-key-id\nsecret_access_key: aws-secret-access-key"),
        {"placeholder"},
    ),
    ("placeholder", HOME, synapse("sse_customer_key: <S3_SSEC_KEY>"), {"placeholder"}),
    ("placeholder", HOME, synapse("prefix: <PREFIX>"), {"placeholder"}),
    ("placeholder", VARS, module(f"{M}config_secret_access_key: <secret>"), {"placeholder"}),
    ("placeholder", VARS, goofys(f"{G}aws_secret_key: YOUR_SECRET"), {"placeholder"}),
    ("placeholder", REPO, s3_opts("accessKeyId: <key>", "accessSecret: <secret>"), {"placeholder"}),
    ("placeholder", REPO, s3_opts('accessKeyId: ""', 'accessSecret: "CHANGE-ME"'), {"placeholder", "key-half"}),
    ("placeholder", HOME, synapse("endpoint_url: https://nbg1.your-objectstorage.com\nregion_name: nbg1"), set()),
    ("placeholder", HOME, synapse("bucket: change-of-heart-media"), set()),
    ("placeholder", HOME, synapse("bucket: matrix-elsewhere"), set()),
    ("placeholder", HOME, synapse("access_key_id: minioadmin\nsecret_access_key: minioadmin"), set()),
    ("variable", HOME, synapse(_SIX(*[f'"${{S3_{n}}}"' for n in "ABCDEF"])), {"not-expanded"}),
    ("variable", HOME, synapse(_SIX(*[f"$S3_{n}" for n in "ABCDEF"])), {"not-expanded"}),
    ("variable", HOME, synapse("endpoint_url: https://${S3_HOST}"), {"not-expanded"}),
    ("variable", HOME, synapse('bucket: "${BUCKET:-media}"'), {"not-expanded"}),
    ("variable", HOME, synapse("secret_access_key: __S3_SECRET__"), {"not-expanded"}),
    ("variable", HOME, synapse('secret_access_key: "%S3_SECRET%"'), {"not-expanded"}),
    ("variable", HOME, synapse("secret_access_key: /run/secrets/s3_secret"), {"not-expanded"}),
    ("variable", HOME, synapse("secret_access_key: file:///etc/synapse/s3"), {"not-expanded"}),
    ("variable", VARS, module(f"{M}config_secret_access_key: $S3_SECRET"), {"not-expanded"}),
    ("variable", REPO, s3_opts("accessSecret: ${S3_SECRET}"), {"not-expanded"}),
    *(
        ("variable", HOME, synapse(f"bucket: '{written}'\nsecret_access_key: '{written}'"), {"not-expanded"})
        for written in (
            "@@S3@@",
            "@s3_key@",
            "%%S3%%",
            "#{S3}#",
            "%(s3_key)s",
            "$$S3_KEY",
            "$env:S3",
            "/var/lib/s3/key",
        )
    ),
    *(
        ("placeholder", HOME, synapse(f"bucket: '{written}'\nsecret_access_key: '{written}'"), {"placeholder"})
        for written in ("ENTER_BUCKET", "fill_me_in", "none", "N/A")
    ),
    ("variable", HOME, synapse("endpoint_url: 'https://s3.#{REGION}#.example.net'"), {"not-expanded"}),
    ("placeholder", HOME, synapse("bucket: enter-matrix"), set()),
    ("variable", HOME, synapse("prefix: /mnt/media/"), {"prefix-form"}),
    ("placeholder", HOME, synapse("bucket: none-of-it"), set()),
    *(
        ("secret", HOME, synapse(f"secret_access_key: '{secret}'"), set())
        for secret in (
            "q8Zp3LxkT7wN2vRb5YdF9hJmC4sGaE6uKoWi1XtB",
            "/var+ib/secretsAbCdEfGh0123456789+/AbCdE",
            "ENTERabcdefghijklmnopqrstuvwxyz012345678",
            "NoneAbCdEfGh/123456789+AbCdEfGhIjKlMnOp1",
            "p@ss@word%%x#{y",
        )
    ),
    # A secret may have the sign.
    ("variable", HOME, synapse("secret_access_key: 'pa$$word${'"), set()),
    ("variable", HOME, synapse("secret_access_key: '$ecret'"), set()),
    ("variable", "homeserver.yaml.tmpl", synapse("secret_access_key: ${S3_SECRET}"), set()),
    ("variable", "homeserver.yaml.envsubst", synapse("secret_access_key: ${S3_SECRET}"), set()),
    # Kept elsewhere.
    (
        "elsewhere",
        "homeserver.json",
        json.dumps({"server_name": "a.example", "media_storage_providers": [FINE_PROVIDER]}),
        set(),
    ),
    (
        "elsewhere",
        HOME,
        synapse("bucket: ENC[AES256_GCM,data:x,type:str]\nendpoint_url: ENC[AES256_GCM,data:x,type:str]")
        .replace("store_synchronous: true", "store_synchronous: ENC[AES256_GCM,data:x,type:bool]")
        .replace("store_local: true", "store_local: ENC[AES256_GCM,data:x,type:bool]"),
        set(),
    ),
    ("elsewhere", "secrets.yaml", "data: ENC[AES256_GCM,data:x,type:str]\nsops: {version: 3.9.0, mac: x}\n", set()),
    (
        "elsewhere",
        HOME,
        synapse("secret_access_key: ENC[AES256_GCM,data:abc,iv:x,tag:y,type:str]") + "sops: {version: 3.9.0}\n",
        set(),
    ),
    ("elsewhere", HOME, synapse('secret_access_key: "{{ vault_s3_secret }}"'), set()),
    ("elsewhere", HOME, synapse("secret_access_key: ref+vault://kv/s3#/secret"), set()),
    ("elsewhere", HOME, synapse("secret_access_key: op://infra/s3/secret"), set()),
    (
        "elsewhere",
        VARS,
        module(f"{M}config_secret_access_key: \"{{{{ lookup('community.sops.sops', 's3.yml') }}}}\""),
        set(),
    ),
    ("elsewhere", VARS, module(f"{M}config_secret_access_key: \"{{{{ lookup('env', 'S3_SECRET') }}}}\""), set()),
    (
        "elsewhere",
        VARS,
        module(f"{M}config_secret_access_key: \"{{{{ lookup('hashi_vault', 'secret=kv/s3:key') }}}}\""),
        set(),
    ),
    (
        "elsewhere",
        VARS,
        module(f"{M}config_secret_access_key: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162")
        .replace("\n$ANS", "\n  $ANS")
        .replace("\n6162", "\n  6162"),
        set(),
    ),
]

PLACES: list[tuple[str, str, str, set[str]]] = [
    ("modules", HOME, BASE + DROP_IN.replace("media_storage_providers", "modules"), {"module-misplaced"}),
    (
        "modules",
        HOME,
        synapse(more="modules:\n- {module: s3_storage_provider.S3StorageProviderBackend, config: {bucket: x}}\n"),
        {"module-misplaced"},
    ),
    ("modules", HOME, BASE + DROP_IN.replace("media_storage_providers", "password_providers"), {"module-misplaced"}),
    (
        "modules",
        HOME,
        BASE + "spam_checker:\n  module: s3_storage_provider.S3StorageProviderBackend\n  config: {bucket: x}\n",
        {"module-misplaced"},
    ),
    ("modules", HOME, BASE + "database:\n  name: psycopg2\n" + indent(DROP_IN, "  "), {"module-misplaced"}),
    (
        "modules",
        HOME,
        BASE + "module: s3_storage_provider.S3StorageProviderBackend\nconfig: {bucket: x}\n",
        {"module-misplaced"},
    ),
    (
        "modules",
        "configmap.yaml",
        config_map(BASE + DROP_IN.replace("media_storage_providers", "modules")),
        {"module-misplaced"},
    ),
    *(
        ("modules", name, text, {"module-misplaced"})
        for name, text in (
            (HOME, MODULES),
            (VARS, f"{EXTENSION}: |\n" + indent(MODULES, "  ")),
            (VARS, "matrix_synapse_configuration_extension:\n" + indent(MODULES, "  ")),
            (VARS, f"matrix_synapse_{MODULES}"),
            (VARS, f"{GOOD_MODULE}matrix_synapse_{MODULES}"),
            ("hosts.yml", "all:\n  hosts:\n    a.example.org:\n" + indent(f"matrix_synapse_{MODULES}", " " * 6)),
            ("configmap.yaml", config_map(MODULES)),
            ("secret.yaml", sealed_data(MODULES)),
            ("values.yaml", "synapse:\n  additional:\n    s.yaml:\n      config: |\n" + indent(MODULES, " " * 8)),
            ("values.yaml", "extraConfig:\n" + indent(MODULES, "  ")),
            ("homeserver.json", json.dumps({"modules": [PROVIDER]})),
        )
    ),
    ("modules", VARS, "matrix_synapse_modules:\n- {module: synapse_http_antispam.HTTPAntispam, config: {}}\n", set()),
    ("modules", HOME, synapse(more="modules:\n- {module: synapse_http_antispam.HTTPAntispam, config: {}}\n"), set()),
    ("extension", VARS, f"{EXTENSION}: |\n" + indent(BAD_DROP_IN, "  "), {"endpoint-without-scheme"}),
    (
        "extension",
        VARS,
        "matrix_synapse_configuration_extension:\n" + indent(BAD_DROP_IN, "  "),
        {"endpoint-without-scheme"},
    ),
    (
        "extension",
        VARS,
        "matrix_synapse_configuration_yaml: |\n" + indent(BASE + BAD_DROP_IN, "  "),
        {"endpoint-without-scheme"},
    ),
    (
        "extension",
        VARS,
        f"{EXTENSION}: >-\n  {json.dumps({'media_storage_providers': [PROVIDER]})}\n",
        {"nothing-stored", "region-missing"},
    ),
    (
        "extension",
        VARS,
        GOOD_MODULE
        + f"{EXTENSION}: |\n  media_storage_providers:\n  - module: file_system\n    config: {{directory: /b}}\n",
        {"providers-overridden"},
    ),
    # The module with another store than that of its variables, to which the nightly job uploads.
    *(
        ("extension", VARS, variables_text + f"{EXTENSION}: |\n" + indent(drop_in, "  "), rules)
        for variables_text, drop_in, rules in (
            (GOOD_MODULE, DROP_IN.replace("acme-media", "other-media"), {"providers-overridden"}),
            (GOOD_MODULE, DROP_IN.replace("s3.example.com", "s3.example.net"), {"providers-overridden"}),
            (GOOD_MODULE, DROP_IN + "    prefix: synapse/\n", {"providers-overridden"}),
            (GOOD_MODULE, re.sub(r"(?m)^.*_key.*\n", "", DROP_IN), {"providers-overridden"}),
            (GOOD_MODULE, DROP_IN.replace("acme-media", '"{{ my_bucket }}"'), set()),
            (module(f"{M}config_bucket: '{{{{ my_bucket }}}}'"), DROP_IN, set()),
            (module(f"-{M}config_bucket"), DROP_IN, {"setting-required"}),
            (
                module(
                    f"{M}config_ec2_instance_profile: true",
                    f"-{M}config_access_key_id",
                    f"-{M}config_secret_access_key",
                ),
                re.sub(r"(?m)^.*_key.*\n", "", DROP_IN),
                set(),
            ),
            (module(f"{M}enabled: false"), DROP_IN.replace("acme-media", "other-media"), set()),
        )
    ),
    ("extension", VARS, GOOD_MODULE + f"{EXTENSION}: |\n  max_upload_size: 100M\n  media_retention: {{}}\n", set()),
    ("extension", VARS, f"{EXTENSION}: |\n" + indent(DROP_IN, "  "), set()),
    ("extension", VARS, f"{EXTENSION}: |\n" + indent(DROP_IN.replace(SECRET, '"{{ vault_secret }}"'), "  "), set()),
    ("extension", VARS, f"{EXTENSION}: |\n  {{% if s3 %}}\n" + indent(DROP_IN, "  ") + "  {% endif %}\n", set()),
]

PLACES += [
    ("extension", VARS, GOOD_MODULE + f"{EXTENSION}: |\n  enable_local_media_storage: false\n", {"no-local-storage"}),
    ("extension", VARS, GOOD_MODULE + f"{EXTENSION}: |\n  enable_local_media_storage: true\n", set()),
    ("extension", VARS, f"{EXTENSION}: |\n  enable_local_media_storage: false\n", {"no-storage"}),
    ("extension", VARS, f"{EXTENSION}:\n  enable_local_media_storage: false\n", {"no-storage"}),
    (
        "extension",
        "hosts.yml",
        f"all:\n  hosts:\n    a.example.org:\n      {EXTENSION}: |\n        enable_local_media_storage: false\n",
        {"no-storage"},
    ),
    (
        "extension",
        VARS,
        f"{M}enabled: false\n{EXTENSION}: |\n  enable_local_media_storage: false\n",
        {"no-storage"},
    ),
    ("extension", VARS, f"{EXTENSION}: |\n  enable_local_media_storage: true\n", set()),
    (
        "extension",
        VARS,
        f"{EXTENSION}: |\n  enable_local_media_storage: false\n  media_storage_providers:\n"
        "  - module: file_system\n    store_local: true\n    config: {directory: /b}\n",
        set(),
    ),
    (
        "extension",
        VARS,
        "matrix_synapse_media_storage_providers_custom: [{module: file_system, config: {directory: /b}}]\n"
        f"{EXTENSION}: |\n  enable_local_media_storage: false\n",
        set(),
    ),
    ("extension", VARS, GOOD_GOOFYS + f"{EXTENSION}: |\n  media_store_path: /data/media\n", {"store-path-elsewhere"}),
    ("extension", VARS, GOOD_GOOFYS + f"{EXTENSION}: |\n  media_store_path: /matrix-media-store-parent/m\n", set()),
    (
        "extension",
        VARS,
        f"{EXTENSION}: |\n  media_store_path: /data/media\nmatrix_synapse_container_extra_arguments:\n"
        "- --mount type=bind,src=/mnt/m,dst=/data/media\n",
        set(),
    ),
    ("extension", VARS, "matrix_synapse_" + BAD_DROP_IN, {"endpoint-without-scheme"}),
    (
        "extension",
        "hosts.yml",
        "all:\n  hosts:\n    matrix.example.org:\n" + indent(module(f"{M}config_bucket: a/b"), "      "),
        {"bucket-name"},
    ),
    (
        "extension",
        "play.yml",
        "- hosts: matrix\n  vars:\n" + indent(module(f"{M}config_bucket: a/b"), "    ") + "  roles: [x]\n",
        {"bucket-name"},
    ),
    (
        "extension",
        "values.yaml",
        "synapse:\n  config:\n    mediaStorageProviders:\n"
        + indent(BAD_DROP_IN.removeprefix("media_storage_providers:\n"), "    "),
        {"endpoint-without-scheme"},
    ),
    (
        "extension",
        "compose.yml",
        "configs:\n  a:\n    content: |\n" + indent(BASE + BAD_DROP_IN, "      "),
        {"endpoint-without-scheme"},
    ),
]

MEDIA_REPO: list[tuple[str, str, str, set[str]]] = [
    ("public url", REPO, s3_opts("publicBaseUrl: https://media.example.org"), {"public-url"}),
    ("public url", REPO, s3_opts('publicBaseUrl: "https://media.example.org/files"'), {"public-url"}),
    ("public url", REPO, s3_opts("publicBaseUrl: media.example.org/"), {"public-url"}),
    ("public url", REPO, s3_opts("publicBaseUrl: https://s3.example.com:9000/"), {"public-url"}),
    ("public url", REPO, s3_opts("publicBaseUrl: https://mycdn.example.org/ "), set()),
    ("public url", REPO, s3_opts('publicBaseUrl: "https://mycdn.example.org/ "'), {"public-url"}),
    ("public url", REPO, s3_opts("publicBaseUrl: <URL>/"), {"public-url"}),
    ("public url", REPO, s3_opts("publicBaseUrl: https://s3.example.com/acme-media/"), {"public-url-private"}),
    ("public url", REPO, s3_opts("publicBaseUrl: https://acme-media.s3.example.com/"), {"public-url-private"}),
    ("public url", VARS, variables(f"{R}s3_opts_public_base_url: https://media.example.org"), {"public-url"}),
    (
        "public url",
        VARS,
        variables(f"{R}s3_opts_public_base_url: https://acme-media.s3.example.com/"),
        {"public-url-private"},
    ),
    ("public url", VARS, variables(f"{R}s3_opts_public_base_url: https://media.example.org/"), set()),
    ("public url", REPO, s3_opts("publicBaseUrl: https://media.example.org/media/"), set()),
    ("public url", REPO, s3_opts('publicBaseUrl: ""'), set()),
    (
        "public url",
        REPO,
        s3_opts(
            "endpoint: sfo3.digitaloceanspaces.com",
            "region: sfo3",
            "publicBaseUrl: https://acme-media.sfo3.cdn.digitaloceanspaces.com/",
        ),
        {"public-url-private"},
    ),
    (
        "public url",
        REPO,
        s3_opts("endpoint: s3.eu-central-1.amazonaws.com", "publicBaseUrl: https://d123.cloudfront.net/"),
        set(),
    ),
    ("public url", REPO, s3_opts("publicBaseUrl: https://media.example.com/"), set()),
    (
        "temporary",
        REPO,
        GOOD_DATASTORES.replace("forKinds: []", "forKinds: [thumbnails]")
        .replace("[all]", "[local_media, remote_media, archives]")
        .replace("/data/media", "/tmp/media"),
        {"media-store-temporary"},
    ),
    ("enabled", REPO, datastores("enabled: true"), {"datastore-enabled"}),
    ("enabled", REPO, datastores("enabled: yes"), {"datastore-enabled"}),
    ("enabled", REPO, datastores("enabled: false"), {"datastore-disabled"}),
    ("enabled", REPO, datastores('enabled: "false"'), {"datastore-disabled"}),
    ("enabled", REPO, datastores("enabled: off"), {"datastore-disabled"}),
    (
        "enabled",
        REPO,
        GOOD_DATASTORES.replace("  forKinds: []", "  enabled: false\n  forKinds: []"),
        {"datastore-enabled"},
    ),
]

PLAYBOOK_SYNAPSE = "matrix_synapse_version: v1.139.0"
VERSIONS: list[tuple[str, str, str, set[str]]] = [
    *(
        ("argument", "Dockerfile", text, {"version-pair"})
        for text in (
            "ARG SYNAPSE_VERSION=v1.130.0\nFROM ghcr.io/element-hq/synapse:${SYNAPSE_VERSION}\n"
            "RUN pip install synapse-s3-storage-provider==1.7.0\n",
            "ARG TAG=v1.145.0\nFROM matrixdotorg/synapse:$TAG\nARG S3=1.4.0\n"
            "RUN pip install synapse-s3-storage-provider==${S3}\n",
            'ARG A="v1.130.0" B=1.7.0\nFROM matrixdotorg/synapse:${A:-latest}\nENV S3=1.7.0\n'
            'RUN pip install "synapse-s3-storage-provider==${S3}"\n',
        )
    ),
    (
        "argument",
        "Dockerfile",
        "ARG TAG=v1.146.0\nFROM matrixdotorg/synapse:${TAG}\nRUN pip install synapse-s3-storage-provider==1.7.0\n",
        set(),
    ),
    ("versions", VARS, module(f"{M}version: 1.4.0"), {"module-old"}),
    ("versions", VARS, module(f'{M}version: "1.5.0"'), {"module-old"}),
    ("versions", VARS, module(f"{M}version: 1.6.1"), {"module-old"}),
    (
        "versions",
        VARS,
        module(f"{M}version: 1.3.0", f"{M}config_prefix: media/"),
        {"module-old", "option-too-new", "prefix-once-ignored"},
    ),
    ("versions", VARS, module(f"{M}version: 1.5.0", "matrix_synapse_version: v1.150.0"), {"version-pair"}),
    ("versions", VARS, module(f"{M}version: 1.7.0", PLAYBOOK_SYNAPSE), {"version-pair"}),
    ("versions", VARS, module(PLAYBOOK_SYNAPSE), {"version-pair"}),
    ("versions", VARS, module("matrix_synapse_container_image_tag: v1.120.2"), {"version-pair"}),
    ("versions", VARS, module("matrix_synapse_container_image: ghcr.io/element-hq/synapse:v1.120.2"), {"version-pair"}),
    ("versions", VARS, module(f"{M}version: 1.5.0", PLAYBOOK_SYNAPSE), {"module-old"}),
    (
        "versions",
        VARS,
        custom_module() + "matrix_synapse_container_image_customizations_dockerfile_body_custom: |\n"
        "  RUN pip install synapse-s3-storage-provider==1.5.0\n",
        {"module-old"},
    ),
    ("versions", VARS, module(f"{M}version: 1.7.0"), set()),
    ("versions", VARS, module(f"{M}version: 1.7.0", "matrix_synapse_version: v1.159.0"), set()),
    ("versions", VARS, module(f"{M}version: '{{{{ module_version }}}}'"), set()),
    ("versions", VARS, module(f"{M}enabled: false", f"{M}version: 1.4.0"), set()),
    ("versions", VARS, GOOD_GOOFYS + PLAYBOOK_SYNAPSE + "\n", set()),
    ("versions", "requirements.txt", "matrix-synapse==1.139.2\nsynapse-s3-storage-provider==1.7.0\n", {"version-pair"}),
    (
        "versions",
        "requirements.txt",
        "matrix-synapse[postgres]==1.150.0\nsynapse_s3_storage_provider==1.5.0  # old\n",
        {"version-pair"},
    ),
    ("versions", "requirements.txt", "synapse-s3-storage-provider==1.4.0\n", {"module-old"}),
    (
        "versions",
        "Dockerfile",
        "FROM matrixdotorg/synapse:v1.139.0\nRUN pip install synapse-s3-storage-provider==1.6.0\n",
        {"version-pair"},
    ),
    (
        "versions",
        "Dockerfile",
        "FROM ghcr.io/element-hq/synapse:v1.150.0\n"
        "RUN pip install git+https://github.com/matrix-org/synapse-s3-storage-provider@v1.5.0\n",
        {"version-pair"},
    ),
    (
        "versions",
        "docker-compose.yml",
        "services:\n  synapse:\n    build:\n      dockerfile_inline: |\n"
        "        FROM matrixdotorg/synapse:v1.130.0\n"
        "        RUN pip install synapse-s3-storage-provider==1.7.0\n",
        {"version-pair"},
    ),
    (
        "versions",
        "pyproject.toml",
        'matrix-synapse = "^1.150.0"\nsynapse-s3-storage-provider = "1.5.0"\n',
        {"version-pair"},
    ),
    (
        "versions",
        "Containerfile",
        "FROM matrixdotorg/synapse:v1.139.0\nRUN pip install synapse-s3-storage-provider==1.7\n",
        {"version-pair"},
    ),
    ("versions", "requirements.txt", "matrix-synapse==1.140.0\nsynapse-s3-storage-provider==1.7.0\n", set()),
    (
        "versions",
        "requirements.txt",
        "# synapse-s3-storage-provider==1.4.0\nsynapse-s3-storage-provider==1.7.0\n",
        set(),
    ),
    (
        "versions",
        "Dockerfile",
        "FROM matrixdotorg/synapse:latest\nRUN pip install synapse-s3-storage-provider==1.7.0\n",
        set(),
    ),
    ("versions", "docker-compose.yml", "services: {synapse: {image: 'matrixdotorg/synapse:v1.100.0'}}\n", set()),
    # Reasons follow the release: before 1.6 nothing is handed on as nothing, and boto3 asks the environment.
    ("versions", VARS, custom_module("access_key_id:\nsecret_access_key:") + f"{M}version: 1.5.0\n", {"module-old"}),
    ("versions", VARS, custom_module("access_key_id: 12345"), set()),
    ("versions", VARS, custom_module("access_key_id: 12345") + f"{M}version: 1.5.0\n", {"module-old", "read-as-other"}),
    ("versions", VARS, custom_module("session_token: abc") + f"{M}version: 1.5.0\n", {"module-old", "option-too-new"}),
]

ESS = "serverName: example.org\nsynapse:\n  additional:\n    s3.yaml:\n      config: |\n"
CONTAINERS: list[tuple[str, str, str, set[str]]] = [
    ("kubernetes", "configmap.yaml", config_map(BASE + BAD_DROP_IN), {"endpoint-without-scheme"}),
    ("kubernetes", "configmap.yaml", config_map(BAD_DROP_IN, name="s3.yaml"), {"endpoint-without-scheme"}),
    ("kubernetes", "secret.yaml", config_map(BAD_DROP_IN, "Secret"), {"endpoint-without-scheme"}),
    ("kubernetes", "secret.yaml", sealed_data(BASE + BAD_DROP_IN), {"endpoint-without-scheme"}),
    (
        "kubernetes",
        "all.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: m}\n---\n" + config_map(BAD_DROP_IN) + "---\n",
        {"endpoint-without-scheme"},
    ),
    (
        "kubernetes",
        "list.yaml",
        "apiVersion: v1\nkind: List\nitems:\n-\n" + indent(config_map(BAD_DROP_IN), "  "),
        {"endpoint-without-scheme"},
    ),
    (
        "kubernetes",
        "configmap.yaml",
        config_map(s3_opts("publicBaseUrl: https://x.example"), name="media-repo.yaml"),
        {"public-url"},
    ),
    ("kubernetes", "configmap.yaml", config_map(BASE + "a: [\nmedia_storage_providers: []\n"), {"unreadable"}),
    (
        "kubernetes",
        "deployment.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n"
        "      - image: matrixdotorg/synapse:v1.130.0\n"
        "        args: [pip, install, synapse-s3-storage-provider==1.7.0]\n",
        {"version-pair"},
    ),
    ("kubernetes", "configmap.yaml", config_map(BASE + DROP_IN), set()),
    (
        "kubernetes",
        "configmap.yaml",
        config_map(synapse("secret_access_key: ${S3_SECRET}\naccess_key_id: ${S3_ID}")),
        set(),
    ),
    ("kubernetes", "configmap.yaml", config_map(synapse("secret_access_key: <path:kv/data/s3#secret>")), set()),
    ("kubernetes", "configmap.yaml", config_map(BASE.replace("example.com", '"{{ .Values.name }}"') + DROP_IN), set()),
    (
        "kubernetes",
        "sealed.yaml",
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nspec: {encryptedData: {s3.yaml: AgBy}}\n",
        set(),
    ),
    (
        "kubernetes",
        "external.yaml",
        "apiVersion: external-secrets.io/v1\nkind: ExternalSecret\nspec: {data: []}\n",
        set(),
    ),
    ("helm", "values.yaml", ESS + indent(BAD_DROP_IN, "        "), {"endpoint-without-scheme"}),
    ("helm", "values.yaml", f"{ESS}        enable_local_media_storage: false\n", {"no-storage"}),
    ("helm", "values.yaml", "extraConfig:\n  enable_local_media_storage: false\n", {"no-storage"}),
    # The provider, with its key, is in a Secret; or in another ConfigMap.
    (
        "helm",
        "values.yaml",
        f"{ESS}        enable_local_media_storage: false\n"
        "    keys.yaml: {configSecret: s3, configSecretKey: s3.yaml}\n",
        set(),
    ),
    ("kubernetes", "configmap.yaml", config_map("enable_local_media_storage: false\n", name="local.yaml"), set()),
    ("helm", "values.yaml", ESS.replace("|", "|-") + indent(BAD_DROP_IN, "        "), {"endpoint-without-scheme"}),
    ("helm", "values.yaml", "extraConfig:\n" + indent(BAD_DROP_IN, "  "), {"endpoint-without-scheme"}),
    (
        "helm",
        "release.yaml",
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nspec:\n  values:\n    extraConfig:\n"
        + indent(BAD_DROP_IN, "      "),
        {"endpoint-without-scheme"},
    ),
    (
        "helm",
        "app.yaml",
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n    helm:\n"
        "      values: |\n        extraConfig:\n" + indent(BAD_DROP_IN, "          "),
        {"endpoint-without-scheme"},
    ),
    (
        "helm",
        "values.yaml",
        "image: {repository: ghcr.io/element-hq/synapse, tag: v1.139.0}\n# pip: synapse\n"
        "init: pip install synapse-s3-storage-provider==1.7.0\n",
        {"version-pair"},
    ),
    ("helm", "values.yaml", ESS + indent(DROP_IN, "        "), set()),
    ("binary", "cm.yaml", binary_data(BASE + BAD_DROP_IN), {"endpoint-without-scheme"}),
    ("binary", "cm.yaml", binary_data(BASE + DROP_IN), set()),
    ("binary", "cm.yaml", config_map(BASE + DROP_IN) + "binaryData: {logo.png: iVBORw0KGgo=}\n", set()),
    (
        "helm",
        "values.yaml",
        ESS + indent(synapse("secret_access_key: ${S3_SECRET}").removeprefix(BASE), "        "),
        set(),
    ),
    (
        "json",
        "homeserver.json",
        json.dumps(
            {
                "server_name": "a.example",
                "media_storage_providers": [
                    {
                        "module": "s3_storage_provider.S3StorageProviderBackend",
                        "store_local": True,
                        "store_remote": True,
                        "store_synchronous": True,
                        "config": {"bucket": "b-b", "region_name": "eu-west-1", "endpoint_url": "s3.example.net"},
                    }
                ],
            }
        ),
        {"endpoint-without-scheme"},
    ),
    (
        "json",
        "homeserver.yaml",
        json.dumps(
            {
                "server_name": "a.example",
                "media_storage_providers": [
                    {
                        "module": "s3_storage_provider.S3StorageProviderBackend",
                        "store_local": False,
                        "store_remote": True,
                        "store_synchronous": True,
                        "config": {"bucket": "bbb", "region_name": "eu-west-1"},
                    }
                ],
            },
            indent=2,
        ),
        {"local-not-stored"},
    ),
    (
        "json",
        "homeserver.json",
        json.dumps({"server_name": "a.example", "media_store_path": "/run/m"}, indent="\t"),
        {"media-store-temporary"},
    ),
]

TEMPLATES: dict[str, tuple[str, str]] = {
    "an inventory in INI": ("hosts", "# all of them\n[matrix_servers]\nmatrix.example.org ansible_host=192.0.2.1\n"),
    "Blade": (HOME, BASE + "@if($bucket)\nmedia_storage_providers:\n@endif\n"),
    "consul-template": (
        HOME,
        BASE + "media_store_path: /tmp\nmedia_storage_providers:\n"
        "- module: s3_storage_provider.S3StorageProviderBackend\n  config:\n"
        '    {{- with secret "kv/s3" }}\n    endpoint_url: {{ .Data.data.endpoint }}\n    {{ end }}\n'
        "    bucket: b\n",
    ),
    "Go, one value": (
        HOME,
        BASE + "media_storage_providers:\n- module: s3_storage_provider.S3StorageProviderBackend\n  config:\n"
        "    bucket: {{ .Values.bucket }}\n",
    ),
    "Helm's include": (
        "configmap.yaml",
        'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include "x.name" . }}\ndata:\n'
        "  homeserver.yaml: |\n    media_storage_providers: []\n",
    ),
    "Jinja, blocks": (HOME, BASE + "{% if s3_enabled %}\n" + DROP_IN + "{% endif %}\n"),
    "Jinja, quoted": (
        HOME,
        synapse('bucket: "{{ s3_bucket }}"\nendpoint_url: "{{ s3_endpoint }}"\nregion_name: "{{ r }}"'),
    ),
    "by its name": ("homeserver.yaml.j2", synapse("bucket: a/b")),
    "Go, by its name": ("homeserver.yaml.gotmpl", synapse("bucket: a/b")),
    "Terraform, by its name": ("homeserver.yaml.tftpl", synapse("secret_access_key: ${s3}")),
    "ytt, load": (HOME, '#@ load("@ytt:data", "data")\n' + synapse()),
    "ytt, value": (HOME, synapse("secret_access_key: #@ data.values.secret")),
    "ERB": (HOME, BASE + "media_storage_providers:\n<% if @s3 %>\n- module: x\n<% end %>\n"),
    "matrix-media-repo": (REPO, GOOD_DATASTORES.replace("acme-media", "{{ .Bucket }}")),
    "in the middle of its name": ("homeserver.tmpl.yaml", synapse("bucket: a/b")),
    "Terraform": ("matrix.tf", 'resource "kubernetes_secret" "synapse" {\n  data = { a = "b" }\n}\n'),
    "Nix": ("synapse.nix", "{ services.matrix-synapse.settings.media_storage_providers = [ ]; }\n"),
}

ALL = [*LOSES, *VALUES, *PLACEHOLDERS, *PLACES, *MEDIA_REPO, *VERSIONS, *CONTAINERS, *MORE]


def found(tmp_path: Path, name: str, text: str) -> lint.Report:
    file = tmp_path / name
    file.write_text(dedent(text))
    file.chmod(0o600)
    return lint.check([file])


@pytest.mark.parametrize(
    ("kind", "name", "text", "rules"), ALL, ids=[f"{case[0]} {number}" for number, case in enumerate(ALL)]
)
def test_exactly_this_is_found(tmp_path: Path, kind: str, name: str, text: str, rules: set[str]) -> None:
    report = found(tmp_path, name, text)
    assert {finding.rule for finding in report.findings} == rules, kind
    for finding in report.findings:
        assert 1 <= finding.line <= len(text.splitlines())
        assert SECRET not in str(finding)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_said_to_be_one_and_nothing_else(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text = TEMPLATES[name]
    (tmp_path / file).write_text(text)
    assert cli.main(["check", str(tmp_path / file)]) == 0
    shown = capsys.readouterr().out
    assert f"{file}: {lint.check([tmp_path / file]).files[str(tmp_path / file)]}: not looked into" in shown
    assert lint.check([tmp_path / file]).findings == ()


def test_templates_of_synapse_itself_make_no_template_of_its_file(tmp_path: Path) -> None:
    sign_in = (
        "oidc_providers:\n- idp_id: x\n  user_mapping_provider:\n    config:\n"
        "      localpart_template: '{{ user.preferred_username }}'\n"
    )
    report = found(tmp_path, HOME, synapse("bucket: a/b", sign_in))
    assert [finding.rule for finding in report.findings] == ["bucket-name"]


def test_ansible_needs_quotes_around_an_expression(tmp_path: Path) -> None:
    report = found(tmp_path, VARS, module(f"{M}config_bucket: {{{{ my_bucket }}}}"))
    assert [finding.rule for finding in report.findings] == ["unreadable"]
    assert "quotes" in report.findings[0].reason


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("configmap.yaml", config_map(BASE + BAD_DROP_IN), "      endpoint_url"),
        ("values.yaml", ESS + indent(BAD_DROP_IN, "        "), "endpoint_url"),
        (VARS, "matrix_x: y\n" + f"{EXTENSION}: |\n" + indent(BAD_DROP_IN, "  "), "endpoint_url"),
        ("values.yaml", "a: b\nextraConfig:\n" + indent(BAD_DROP_IN, "  "), "endpoint_url"),
        ("secret.yaml", sealed_data(BAD_DROP_IN), "  homeserver.yaml"),
    ],
)
def test_the_line_is_that_of_the_file(tmp_path: Path, name: str, text: str, line: str) -> None:
    (finding,) = [each for each in found(tmp_path, name, text).findings if each.rule == "endpoint-without-scheme"]
    assert line.strip() in text.splitlines()[finding.line - 1]


def test_every_value_of_the_readme_is_told(tmp_path: Path) -> None:
    _, name, text, _ = PLACEHOLDERS[0]
    assert len(found(tmp_path, name, text).findings) == 6
    _, name, text, _ = next(case for case in PLACEHOLDERS if case[0] == "variable")
    assert len(found(tmp_path, name, text).findings) == 6


def test_pins_in_one_file_are_those_of_a_configuration_in_another(tmp_path: Path) -> None:
    for name, text in (
        (HOME, synapse("access_key_id:\nsecret_access_key:")),
        ("requirements.txt", "synapse-s3-storage-provider==1.5.0\nmatrix-synapse==1.130.0\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    report = lint.check([tmp_path / HOME, tmp_path / "requirements.txt"])
    assert [finding.rule for finding in report.findings] == ["module-old"]
    assert report.files[str(tmp_path / "requirements.txt")] == "versions"


def test_a_directory_without_configuration_does_not_keep_other_files_from_being_checked(tmp_path: Path) -> None:
    (tmp_path / HOME).write_text(synapse("bucket: a/b"))
    (tmp_path / HOME).chmod(0o600)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "s3.yaml.bak").write_text(DROP_IN)
    report = lint.check([tmp_path / HOME, tmp_path / "conf.d"])
    assert [finding.rule for finding in report.findings] == ["bucket-name"]
    assert report.files[str(tmp_path / "conf.d")] == "no *.yaml or *.yml file"


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("values.yaml", ESS.replace("config: |", "configSecret: synapse-s3"), "its configuration is in a Secret"),
        (HOME, "", "empty"),
        (HOME, "\n\n", "empty"),
    ],
)
def test_a_file_without_a_configuration_of_its_own_is_listed(
    tmp_path: Path, name: str, text: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert cli.main(["check", str(tmp_path / name)]) == 0
    assert f"{name}: {what}: not looked into" in capsys.readouterr().out


def test_the_parts_of_one_playbook_are_no_two_homeservers(tmp_path: Path) -> None:
    report = found(tmp_path, VARS, GOOD_MODULE + f"{EXTENSION}: |\n" + indent(DROP_IN, "  "))
    assert report.findings == ()


def test_a_key_without_a_value_is_reported_on_its_own_line(tmp_path: Path) -> None:
    text = synapse("access_key_id:")
    (finding,) = found(tmp_path, HOME, text).findings
    assert text.splitlines()[finding.line - 1].strip() == "access_key_id:"
    assert "'None', with which every request is signed" in finding.reason


def test_mends_name_what_is_to_be_written(tmp_path: Path) -> None:
    for name, text, mend in (
        (HOME, synapse("bucket: acme-media/synapse"), "prefix: synapse/"),
        (HOME, synapse("bucket: s3://acme-media/x"), "Write acme-media."),
        (HOME, synapse("region_name: eu-central-1a"), "Write eu-central-1."),
        (HOME, synapse("endpoint_url: https:/s3.example.net"), "Write https://s3.example.net."),
        (HOME, synapse("endpoint_url: s3.example.net"), "Write https://s3.example.net."),
        (HOME, synapse("endpoint_url: //minio:9000"), "Write https://minio:9000."),
        (REPO, datastores("enabled: false"), "forKinds: []"),
        (REPO, s3_opts("publicBaseUrl: https://x.example/a"), "Write https://x.example/a/"),
    ):
        (finding,) = found(tmp_path, name, text).findings
        assert mend in finding.mend


def test_good_config_is_what_the_cases_start_from(tmp_path: Path) -> None:
    assert GOOD_CONFIG in synapse()
    assert DROP_IN.startswith(GOOD_PROVIDER)
    assert found(tmp_path, HOME, synapse()).findings == ()
