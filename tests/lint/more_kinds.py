"""More of what people have in their files: (kind, file, text, the rules that are found), as in test_kinds."""

from __future__ import annotations

from textwrap import indent

from tests.lint.test_rules import (
    BASE,
    GOOD_DATASTORES,
    GOOD_MODULE,
    GOOD_PROVIDER,
    SECRET,
    G,
    M,
    R,
    custom_module,
    goofys,
    module,
    synapse,
    variables,
)

HOME, VARS, REPO = "homeserver.yaml", "vars.yml", "media-repo.yaml"
ADDITIONAL = "synapse:\n  additional:\n    s3.yaml:\n      config: |\n"
EXTENSION = "matrix_synapse_configuration_extension_yaml: |\n"
CLASS = "s3_storage_provider.S3StorageProviderBackend"
ARCHIVE = "https://github.com/matrix-org/synapse-s3-storage-provider/archive"
FILE_SYSTEM = "media_storage_providers:\n- module: file_system\n  store_local: true\n"
CRON_JOB = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: upload}
spec:
  schedule: '0 3 * * *'
  jobTemplate: {spec: {template: {spec: {containers: [{name: upload, command: [sh, -c, '%s']}]}}}}
"""
UPLOAD = "s3_media_upload update /data/media 1m && s3_media_upload upload /data/media %s"


def named(name: str) -> str:
    return synapse().replace(CLASS, name)


def kinds(text: str) -> str:
    return GOOD_DATASTORES.replace("forKinds: [all]", f"forKinds: {text}")


def dockerfile(image: str, command: str) -> str:
    return f"FROM {image}\nRUN {command}\n"


# A list of providers that is none, and names of the module that nobody has.
PROVIDERS: list[tuple[str, str, str, set[str]]] = [
    ("no list", HOME, BASE + "media_storage_providers:\n# - module: file_system\n", {"provider-form"}),
    ("no list", HOME, BASE + "media_storage_providers: ~\n", {"provider-form"}),
    ("no list", HOME, BASE + "media_storage_providers: s3\n", {"provider-form"}),
    ("no list", HOME, BASE + f"media_storage_providers:\n- {CLASS}\n", {"provider-form"}),
    (
        "no list",
        "worker.yaml",
        "worker_app: synapse.app.media_repository\nmedia_storage_providers:\n",
        {"provider-form"},
    ),
    ("no list", VARS, "matrix_synapse_media_storage_providers_custom: |\n  - module: file_system\n", {"provider-form"}),
    ("no list", VARS, "matrix_synapse_media_storage_providers_custom:\n", {"provider-form"}),
    # The process does not read the list, or a chart fills it in.
    ("no list", HOME, BASE + "enable_media_repo: false\nmedia_storage_providers:\n", set()),
    ("no list", "values.yaml", "config:\n  server_name: example.com\n  media_storage_providers:\n", set()),
    ("no list", VARS, "matrix_synapse_media_storage_providers_custom: '{{ my_providers }}'\n", set()),
    ("module's name", HOME, named("s3-storage-provider.S3StorageProviderBackend"), {"provider-form"}),
    ("module's name", HOME, named("synapse_s3_storage_provider.S3StorageProviderBackend"), {"provider-form"}),
    ("module's name", HOME, named("synapse-s3-storage-provider"), {"provider-form"}),
    ("module's name", HOME, named("S3StorageProviderBackend"), {"provider-form"}),
    ("module's name", HOME, named("S3_storage_provider.S3StorageProviderBackend"), {"provider-form"}),
    ("module's name", HOME, named("file_system"), {"provider-form"}),
    ("module's name", HOME, named("my_company.providers.Backend"), set()),
    ("module's name", VARS, custom_module().replace(CLASS, "s3-storage-provider.Backend"), {"provider-form"}),
    (
        "options outside",
        HOME,
        synapse().replace("  config:\n", "").replace("    ", "  "),
        {"provider-form", "unknown-option"},
    ),
    ("options outside", HOME, synapse().replace("    ", "  "), {"provider-form", "unknown-option"}),
    ("options outside", HOME, synapse().replace("    ", "  - "), {"provider-form"}),
    ("file system", HOME, BASE + FILE_SYSTEM, {"provider-form"}),
    ("file system", HOME, BASE + FILE_SYSTEM + "  config: {path: /backup}\n", {"provider-form"}),
    ("file system", HOME, BASE + FILE_SYSTEM + "  config: {directory: /backup}\n", set()),
    ("tag", HOME, BASE + "media_storage_providers: !include s3.yaml\n", {"unknown-tag"}),
    ("tag", HOME, synapse("secret_access_key: !env_var S3_SECRET"), {"unknown-tag"}),
    ("tag", HOME, synapse("access_key_id: !ENV '${S3_KEY}'\nsecret_access_key: !ENV '${S3_SECRET}'"), {"unknown-tag"}),
    ("tag", HOME, BASE + "database: !secret database\n", {"unknown-tag"}),
    ("tag", HOME, synapse("secret_access_key: !vault x"), set()),
    (
        "tag",
        "values.yaml",
        ADDITIONAL + indent(GOOD_PROVIDER + "    bucket: !ENV b\n    region_name: eu-central-1\n", "        "),
        set(),
    ),
]

# A string that says no, read as a non-empty string.
SWITCHES: list[tuple[str, str, str, set[str]]] = [
    ("string", HOME, synapse(more="enable_local_media_storage: 'false'\n"), {"not-a-switch"}),
    ("string", HOME, BASE + "enable_local_media_storage: 'no'\n", {"not-a-switch"}),
    ("string", HOME, synapse(more="enable_media_repo: 'false'\n"), {"not-a-switch"}),
    ("string", HOME, synapse(more="enable_local_media_storage: 'true'\nenable_media_repo: 'yes'\n"), set()),
    # Synapse counts any other empty value as false here, and nothing but false as false there.
    ("empty", HOME, synapse(more="enable_local_media_storage:\n"), {"no-local-storage"}),
    ("empty", HOME, synapse(more="enable_local_media_storage: 0\n"), {"no-local-storage"}),
    ("empty", HOME, BASE + "enable_media_repo:\nmedia_store_path: /tmp/media\n", {"media-store-temporary"}),
    ("empty", HOME, synapse(more="enable_local_media_storage: ${LOCAL_STORAGE}\n"), {"not-a-switch"}),
    ("string", VARS, module(f"{M}store_local: 'false'"), {"not-a-switch"}),
    ("string", VARS, module(f"{M}store_local: 'no'", f"{M}store_remote: 'no'"), {"not-a-switch"}),
    ("string", VARS, module(f"{M}store_synchronous: 'no'"), {"not-a-switch"}),
    ("string", VARS, module(f"{M}store_synchronous: 'yes'", f"{M}store_local: 'true'"), set()),
    ("string", VARS, module(f"{M}store_local: \"{{{{ 'no' | bool }}}}\""), set()),
    ("string", VARS, module(f"{M}store_local: 0"), {"playbook-local-not-stored"}),
    ("string", VARS, module("matrix_synapse_enable_local_media_storage: 'no'"), {"not-a-switch"}),
    ("string", VARS, module(f"{M}enabled: 'false'"), {"not-a-switch"}),
    ("string", VARS, module(f"{M}enabled: 'yes'"), set()),
    ("string", VARS, goofys(f"{G}enabled: 'no'"), {"not-a-switch"}),
    ("string", VARS, goofys(f"{G}custom_endpoint_enabled: 'off'"), {"not-a-switch"}),
    ("string", VARS, variables(f"{R}s3_enabled: 'false'"), {"not-a-switch"}),
    ("string", VARS, variables("matrix_media_repo_enabled: 'no'"), {"not-a-switch"}),
    (
        "string",
        VARS,
        module(f"{M}config_sse_customer_enabled: 'no'", f"{M}config_sse_customer_key: {'k' * 32}"),
        {"not-a-switch"},
    ),
    # This one alone is always read with `| bool`.
    (
        "string",
        VARS,
        module(f"{M}config_ec2_instance_profile: 'no'", f"-{M}config_access_key_id", f"-{M}config_secret_access_key"),
        {"setting-required"},
    ),
    ("string", VARS, module(f"{M}config_ec2_instance_profile: 'no'"), set()),
]

MEDIA_STORE: list[tuple[str, str, str, set[str]]] = [
    ("media store", HOME, BASE + f"media_store_path: {path}\n", {"media-store-path"})
    for path in (
        "",
        "~",
        "[/data/media]",
        "s3://acme-media/",
        "$DATA/media",
        "${DATA_DIR}/media",
        "'~/media'",
        "/srv/$X/m",
    )
] + [
    ("media store", HOME, BASE + f"media_store_path: {path}\n", set())
    for path in ("media_store", "/data/media_store", "./media", "/srv/a$b", "/mnt/~media")
]
MEDIA_STORE += [
    ("media store", HOME, BASE + "enable_media_repo: false\nmedia_store_path:\n", set()),
    ("media store", "values.yaml", "config:\n  server_name: example.com\n  media_store_path:\n", set()),
    (
        "media store",
        VARS,
        GOOD_MODULE + EXTENSION + "  media_retention: {remote_media_lifetime: 30d}\n",
        {"retention-stays"},
    ),
]

FIELDS: list[tuple[str, str, str, set[str]]] = (
    [
        ("placeholder", HOME, synapse(f"secret_access_key: {text}"), {"placeholder"})
        for text in (
            "S3_SECRET",
            "AWS_SECRET",
            "MINIO_PASSWORD",
            "B2_KEY_ID",
            "ACCESSKEYID",
            "applicationKey",
            "SECRETACCESSKEY",
        )
    ]
    + [
        ("placeholder", HOME, synapse("access_key_id: keyID"), {"placeholder"}),
        ("placeholder", HOME, synapse("access_key_id: MINIO_USER"), {"placeholder"}),
        # Words that people do take for a password.
        ("placeholder", HOME, synapse("access_key_id: minioadmin\nsecret_access_key: supersecret"), set()),
        ("customer key", HOME, synapse("sse_customer_key: " + "k" * 32), set()),
        ("customer key", HOME, synapse("sse_customer_key: tooshort"), {"customer-key-length"}),
        ("customer key", HOME, synapse("sse_customer_key: " + "ü" * 16), set()),
        ("customer key", HOME, synapse("sse_customer_key: " + "a" * 43 + "="), {"customer-key-length"}),
        (
            "customer key",
            VARS,
            module(f"{M}config_sse_customer_enabled: true", f"{M}config_sse_customer_key: {'k' * 31}"),
            {"customer-key-length"},
        ),
        (
            "customer key",
            VARS,
            module(f"{M}config_sse_customer_enabled: true", f"{M}config_sse_customer_key: '{{{{ vault_key }}}}'"),
            set(),
        ),
    ]
    + [
        ("other host", HOME, synapse(f"region_name: {region}\nendpoint_url: {host}"), {"endpoint-not-s3"})
        for region, host in (
            ("fra1", "https://fra1.cdn.digitaloceanspaces.com"),
            ("fra1", "https://acme-media.fra1.cdn.digitaloceanspaces.com"),
            ("eu-west-1", "http://s3-website-eu-west-1.amazonaws.com"),
            ("eu-central-1", "http://acme-media.s3-website.eu-central-1.amazonaws.com"),
            ("eu-central-1", "https://eu-central-1.console.aws.amazon.com/s3/buckets/acme-media"),
            ("garage", "http://garage:3902"),
            ("garage", "https://my-garage.example.net:3903"),
            ("garage", "http://garage.garage.svc.cluster.local:3901"),
            ("us-east-1", "https://link.eu1.storjshare.io"),
            ("us-west-004", "https://api004.backblazeb2.com"),
        )
    ]
    + [
        ("other host", HOME, synapse(f"region_name: {region}\nendpoint_url: {host}"), set())
        for region, host in (
            ("garage", "http://garage:3900"),
            ("garage", "https://garage.example.net"),
            ("auto", "https://0123456789abcdef0123456789abcdef.us.r2.cloudflarestorage.com"),
        )
    ]
)

REPOSITORY: list[tuple[str, str, str, set[str]]] = [
    ("kinds", REPO, kinds("all"), {"datastore-form"}),
    ("kinds", REPO, kinds('"local_media,remote_media"'), {"datastore-form"}),
    ("kinds", REPO, kinds(""), {"kind-unstored"}),
    ("kinds", VARS, variables(f"{R}s3_for_kinds: all"), {"kinds-form"}),
    ("kinds", VARS, variables(f"{R}s3_for_kinds: '{{{{ my_kinds }}}}'"), set()),
    ("no datastore", REPO, "repo: {port: 8000}\ndatastores:\n", {"kind-unstored"}),
    ("no datastore", REPO, "repo: {port: 8000}\ndatastores: []\n", {"kind-unstored"}),
    ("no datastore", REPO, "repo: {port: 8000}\ndatastores:\n  one:\n    type: file\n", {"datastore-form"}),
    # Of a directory of which the others have the datastores.
    (
        "no datastore",
        REPO,
        "repo: {port: 8000}\nhomeservers: [{name: example.com, csApi: 'https://example.com'}]\n",
        set(),
    ),
]

RELEASES: list[tuple[str, str, str, set[str]]] = [
    (
        "not pinned",
        "Dockerfile",
        dockerfile("ghcr.io/element-hq/synapse:v1.120.0", f"pip install {what}"),
        {"version-pair"},
    )
    for what in (
        "synapse-s3-storage-provider",
        "--no-cache-dir boto3 'synapse-s3-storage-provider'",
        "git+https://github.com/matrix-org/synapse-s3-storage-provider.git",
    )
] + [
    (
        "not pinned",
        "Dockerfile",
        dockerfile("matrixdotorg/synapse:v1.150.0", "pip install synapse-s3-storage-provider"),
        set(),
    ),
    ("not pinned", "requirements.txt", "synapse-s3-storage-provider\nmatrix-synapse==1.130.0\n", {"version-pair"}),
    (
        "not pinned",
        "compose.yaml",
        "services:\n  synapse:\n    build:\n      dockerfile_inline: |\n        FROM matrixdotorg/synapse:v1.99.0\n"
        "        RUN pip install synapse-s3-storage-provider\n",
        {"version-pair"},
    ),
]

JOBS: list[tuple[str, str, str, set[str]]] = [
    ("job", "crontab", f"0 3 * * * {UPLOAD % 'acme-media --delete'}\n", {"upload-deletes"}),
    ("job", "crontab", f"0 3 * * * {UPLOAD % '--endpoint-url https://s3.example.com acme-media'}\n", set()),
    ("job", "upload.sh", f"#!/bin/sh\n{UPLOAD % '--delete $BUCKET'}\n", {"upload-deletes"}),
    ("job", "upload.sh", f"{UPLOAD % '--endpoint-url s3.example.com acme-media'}\n", {"endpoint-without-scheme"}),
    ("job", "upload.sh", f"{UPLOAD % '--prefix media/ acme-media/media'}\n", {"bucket-name"}),
    (
        "job",
        "upload.sh",
        UPLOAD.replace(" %s", " \\\n  %s") % "s3://acme-media \\\n  --delete",
        {"bucket-name", "upload-deletes"},
    ),
    ("job", "upload.sh", f"# {UPLOAD % 'acme-media --delete'}\ns3_media_upload upload /data acme-media\n", set()),
    ("job", "upload.service", f"[Service]\nExecStart={UPLOAD % 'acme-media --delete'}\n", {"upload-deletes"}),
    ("job", "cron.yaml", CRON_JOB % UPLOAD % "acme-media --delete", {"upload-deletes"}),
    ("job", "cron.yaml", CRON_JOB % UPLOAD % "$(BUCKET)", set()),
    (
        "job",
        "compose.yaml",
        "services:\n  upload:\n    command:\n      - s3_media_upload\n      - --no-progress\n      - upload\n"
        "      - /data\n      - <bucket>\n      - --delete\n    restart: always\n",
        {"upload-deletes", "placeholder"},
    ),
]


def repository(**lines: str) -> str:
    """The good media-repo.yaml with other values in the `opts` of its s3 datastore."""
    text = GOOD_DATASTORES
    for name, value in lines.items():
        kept = [line for line in text.splitlines() if not line.strip().startswith(f"{name}:")]
        text = "\n".join([*kept, f"    {name}: {value}"]) + "\n"
    return text


# What YAML makes of a value that is not in quotes: PyYAML for Synapse, yaml.v3 for matrix-media-repo.
UNQUOTED: list[tuple[str, str, str, set[str]]] = [
    *(
        ("text to yaml.v3", REPO, repository(endpoint=host), set())
        for host in ("10.0.0.5", "10.0.0.5:9000", "1.2.3.4/")
    ),
    *(
        ("text to yaml.v3", REPO, GOOD_DATASTORES.replace('id: "two"', f"id: {text}"), set())
        for text in ("2024-11", "0123-45", "10-20", "12e", "1.2.3", "15", "1.5", "9e999")
    ),
    *(
        ("no text to yaml.v3", REPO, GOOD_DATASTORES.replace('id: "two"', f"id: {text}"), {"datastore-id"})
        for text in ("0123", "0x1F", "1e10", "1_000", "2026-01-01", "1.50", "+5", "True", "99999999999999999999")
    ),
    ("a date", HOME, synapse("bucket: 2026-01-01"), {"read-as-other"}),
    ("a date", HOME, synapse("prefix: 2026-01-01"), {"read-as-other", "prefix-form"}),
    ("a date", HOME, synapse("session_token: 2026-01-01"), {"read-as-other"}),
    ("a date", HOME, synapse('bucket: "2026-01-01"'), set()),
    # The playbook hands it on as text, and the module makes a text of a key itself.
    ("a date", VARS, module(f"{M}config_bucket: 2026-01-01"), set()),
    ("a date", HOME, synapse("access_key_id: 2026-01-01"), set()),
    *(
        ("a mapping", HOME, synapse(line), {"read-as-other"})
        for line in ("bucket: {name: media}", "region_name: {a: b}", "storage_class: {a: b}", "prefix: {a: b}")
    ),
]
# Hosts, buckets and regions as minio-go, boto3 and the vendors have them.
ADDRESSES: list[tuple[str, str, str, set[str]]] = [
    *(
        ("minio-go's host", REPO, repository(endpoint=f"'{host}'"), {"endpoint-host"})
        for host in (
            *("s3.example.net:abc", "s3.net:9000:9000", "_s3.net", "-s3.net", ".s3.net", "s3.net-", "::1", "s3;net"),
            *("s3.net\\", "s3%2enet", "a" * 256),
        )
    ),
    *(
        ("minio-go's host", REPO, repository(endpoint=f"'{host}'"), set())
        for host in ("s3.net", "s3.net:9000", "[::1]:9000", "min_io:9000", "s3.net/", "s3.net.")
    ),
    *(("minio-go's bucket", REPO, repository(bucketName=name), {"bucket-name"}) for name in ("m.-x", "m-.x", "me..x")),
    ("no ssl", REPO, repository(ssl="null"), set()),
    ("no ssl", REPO, repository(ssl="~"), set()),
    ("no ssl", REPO, repository(ssl="sure"), {"ssl-not-boolean"}),
    *(
        ("a second name", HOME, synapse(f"endpoint_url: https://{host}"), set())
        for host in ("s3.nl-1.wasabisys.com", "s3.de-1.wasabisys.com", "s3-accelerate.amazonaws.com")
    ),
    (
        "another region",
        HOME,
        synapse("endpoint_url: https://s3-fips.us-east-2.amazonaws.com"),
        {"region-not-endpoints"},
    ),
    (
        "another region",
        HOME,
        synapse("endpoint_url: https://bucket.vpce-1a2b3c4d.s3.us-east-2.vpce.amazonaws.com"),
        {"region-not-endpoints"},
    ),
    ("dropped by boto3", HOME, synapse('endpoint_url: " https://s3.example.com"'), set()),
    ("dropped by boto3", HOME, synapse("endpoint_url: https://s3.example.com#x"), set()),
    ("kept by boto3", HOME, synapse('endpoint_url: "https://s3.example.com "'), {"stray-character"}),
    ("kept by boto3", HOME, synapse("endpoint_url: https://s3.example.com?x"), {"endpoint-host"}),
    (
        "an access point",
        HOME,
        synapse("bucket: arn:aws:s3:eu-central-1:123456789012:accesspoint/my-ap\n-endpoint_url"),
        set(),
    ),
    ("an ARN", HOME, synapse("bucket: arn:aws:s3:::acme-media"), {"bucket-name"}),
    ("a bucket's host", HOME, synapse("bucket: media.s3.eu-central-1.amazonaws.com"), {"bucket-name"}),
    (
        "a bucket's host",
        HOME,
        synapse("endpoint_url: https://other.s3.eu-central-1.amazonaws.com"),
        {"endpoint-names-bucket"},
    ),
    (
        "a bucket's host",
        HOME,
        synapse("endpoint_url: https://other.fra1.digitaloceanspaces.com\nregion_name: fra1"),
        {"endpoint-names-bucket"},
    ),
    ("a store's host", HOME, synapse("endpoint_url: https://s3.eu-central-1.amazonaws.com"), set()),
    ("a store's host", HOME, synapse("endpoint_url: https://s3.dualstack.eu-central-1.amazonaws.com"), set()),
    ("a store's host", HOME, synapse("endpoint_url: https://fra1.digitaloceanspaces.com\nregion_name: fra1"), set()),
    *(
        ("placeholder", HOME, synapse(line), {"placeholder"})
        for line in (
            *('access_key_id: "<<ACCESS_KEY>>"', 'secret_access_key: "<<SECRET_KEY>>"', "region_name: my-region"),
            *("endpoint_url: https://s3.yourdomain.com", "endpoint_url: https://XXXX.r2.cloudflarestorage.com"),
            *("endpoint_url: https://s3.us-west-xxx.backblazeb2.com", "bucket: bucket-name-goes-here"),
            "secret_access_key: put-it-in-here",
        )
    ),
    *(
        # As in every case: the test looks for the secret in what is said.
        ("a secret in braces", HOME, synapse(f'secret_access_key: "{text}"'), {"not-expanded"})
        for text in (f"${{S3_SECRET:-{SECRET}}}", f"${{{SECRET}}}", f"${{X:={SECRET}}}")
    ),
    ("a secret in braces", REPO, repository(accessSecret=f'"${{S3_SECRET:-{SECRET}}}"'), {"not-expanded"}),
    ("no placeholder", HOME, synapse("secret_access_key: wish-you-were-here"), set()),
    ("no placeholder", HOME, synapse("bucket: nothing-to-see-here"), set()),
    ("a blank", HOME, synapse(more='media_store_path: "/data/media "\n'), {"media-store-path"}),
    ("a switch", HOME, synapse().replace("store_local: true", "store_local: []"), {"partly-stored"}),
    ("a switch", HOME, synapse().replace("store_local: true", "store_local: {}"), {"partly-stored"}),
    ("a switch", HOME, synapse().replace("store_local: true", "store_local: y"), set()),
    ("a long number", HOME, synapse(f"bucket: 0x{'f' * 5_000}"), {"unreadable"}),
    ("a long number", HOME, synapse(f"bucket: {':'.join('1' * 3_000)}"), {"unreadable"}),
    (
        "a job in what is no YAML",
        "b.yaml",
        "a: [\nrun: s3_media_upload upload /d acme-media --delete\n",
        {"unreadable", "upload-deletes"},
    ),
]

OWN_NAMES: list[tuple[str, str, str, set[str]]] = [
    *(
        ("a server by the bucket's name", HOME, synapse(f"bucket: {bucket}\nendpoint_url: https://{host}"), set())
        for bucket, host in (
            *(("matrix", "matrix.example.com"), ("minio", "minio.example.com:9000")),
            *(("gateway", "gateway.storjshare.io"), ("objects", "objects.dreamhost.com")),
        )
    ),
    (
        "a server by the bucket's name",
        HOME,
        synapse("bucket: acme-media\nendpoint_url: https://acme-media.s3.example.com"),
        {"endpoint-names-bucket"},
    ),
    ("a server by the bucket's name", REPO, repository(bucketName="minio", endpoint="minio.example.com"), set()),
    *(
        ("a name of one's own", HOME, synapse(line), set())
        for line in (
            "endpoint_url: https://static.88-198-12-34.clients.your-server.de",
            "endpoint_url: https://nx12345.your-storageshare.de",
            *("bucket: eu-media-x", "bucket: my-matrix-x", "bucket: my-synapse-media-here"),
            *("secret_access_key: the-raven-is-there", "secret_access_key: key_to_everywhere"),
        )
    ),
    *(
        # As in every case: the test looks for the secret in what is said.
        (
            "a secret in a name",
            HOME,
            BASE + GOOD_PROVIDER.rstrip() + f" {{bucket: acme-media, region_name: eu-central-1, {text}}}\n",
            {"unknown-option"},
        )
        for text in (
            f"secret_access_key:{SECRET}",
            f"secret_access_key={SECRET}",
            f'"secret_access_key: {SECRET}"',
            f"{SECRET}: secret_access_key",
        )
    ),
    ("a secret in a bucket", HOME, synapse(f"bucket: https://AKIA:{SECRET}@s3.example.net/b"), {"bucket-name"}),
    *(
        (
            "a secret in an endpoint",
            HOME,
            synapse(f"endpoint_url: https://${{U{default}{SECRET}}}@s3.example.net"),
            {"not-expanded"},
        )
        for default in (":-", "-", ":=", "=", ":?", ":+")
    ),
    *(
        ("an archive's release", "Dockerfile", dockerfile(f"matrixdotorg/synapse:{image}", f"pip install {url}"), rules)
        for image, url, rules in (
            ("v1.120.0", f"{ARCHIVE}/refs/tags/v1.7.0.zip", {"version-pair"}),
            ("v1.152.0", f"{ARCHIVE}/refs/tags/v1.7.0.zip", set()),
            ("v1.120.0", f"{ARCHIVE}/v1.7.0.tar.gz", {"version-pair"}),
            ("v1.120.0", f"{ARCHIVE}/refs/heads/main.zip", {"version-pair"}),
            ("v1.150.0", f"{ARCHIVE}/main.zip", set()),
        )
    ),
]

MORE = [*PROVIDERS, *SWITCHES, *MEDIA_STORE, *FIELDS, *REPOSITORY, *RELEASES, *JOBS, *UNQUOTED, *ADDRESSES, *OWN_NAMES]
