"""matrix-docker-ansible-deploy: the variables, paths and units that decide on media (commit c0681e4b, 2026-08-22).

https://github.com/spantaleev/matrix-docker-ansible-deploy
"""

from __future__ import annotations

# ---- prefixes of variables

SYNAPSE = "matrix_synapse_"
"""Before a setting of Synapse's own: the variable of the playbook for it, where there is one."""
MODULE = "matrix_synapse_ext_synapse_s3_storage_provider_"
MODULE_CONTAINER = "matrix_synapse_ext_s3_storage_provider_"
"""Of the container in which the module's nightly job runs."""
GOOFYS = "matrix_s3_media_store_"
MEDIA_REPO = "matrix_media_repo_"
_DATASTORE = f"{MEDIA_REPO}datastore_"
FILE = f"{_DATASTORE}file_"
S3 = f"{_DATASTORE}s3_"

# ---- {setting of a store, as `StorageOutputs` calls it where it has it: variable}

MODULE_VARIABLES = {
    "bucket": f"{MODULE}config_bucket",
    "prefix": f"{MODULE}config_prefix",
    "region": f"{MODULE}config_region_name",
    "endpoint": f"{MODULE}config_endpoint_url",
    "access_key_id": f"{MODULE}config_access_key_id",
    "secret_access_key": f"{MODULE}config_secret_access_key",
    "customer_key": f"{MODULE}config_sse_customer_key",
    "storage_class": f"{MODULE}config_storage_class",
}
GOOFYS_VARIABLES = {
    "bucket": f"{GOOFYS}bucket_name",
    "region": f"{GOOFYS}region",
    "endpoint": f"{GOOFYS}custom_endpoint",
    "access_key_id": f"{GOOFYS}aws_access_key",
    "secret_access_key": f"{GOOFYS}aws_secret_key",
}
S3_VARIABLES = {
    "bucket": f"{S3}opts_bucket_name",
    "region": f"{S3}opts_region",
    "endpoint": f"{S3}opts_endpoint",
    "access_key_id": f"{S3}opts_access_key_id",
    "secret_access_key": f"{S3}opts_access_secret",
    "storage_class": f"{S3}opts_storage_class",
}

# ---- single variables

MODULE_ENABLED = f"{MODULE}enabled"
STORE_LOCAL = f"{MODULE}store_local"
STORE_REMOTE = f"{MODULE}store_remote"
STORE_SYNCHRONOUS = f"{MODULE}store_synchronous"
INSTANCE_PROFILE = f"{MODULE}config_ec2_instance_profile"
"""Whether the machine's role signs, so that there is no key."""
MODULE_VERSION = f"{MODULE}version"
SYNAPSE_VERSIONS = tuple(
    f"{SYNAPSE}{name}"
    for name in (
        "version",
        "container_image_tag",
        "container_image",
        "docker_image_tag",
        "docker_image",
        "version_arm64",
    )
)
"""What names a release of Synapse, now or once; the image has it after a colon."""
THREADPOOL_SIZE = f"{MODULE}config_threadpool_size"
CUSTOMER_KEY_ENABLED = f"{MODULE}config_sse_customer_enabled"
MIGRATION_SCHEDULE = f"{MODULE}periodic_migration_schedule"
"""When the nightly job runs: a calendar event of systemd, 05:00 every day by default."""
MIGRATION_NEVER = "2099-01-01 00:00:00"
"""A schedule of one date, so that the job does not run."""
MIGRATION_DAYS = f"{MODULE}update_db_day_count"
"""The nightly job deletes local files that nobody asked for in so many days; 0, the default, is all of them."""
MODULE_CONTAINER_ARGUMENTS = f"{MODULE_CONTAINER}container_arguments"
SYNAPSE_CONTAINER_ARGUMENTS = f"{SYNAPSE}container_extra_arguments"
GOOFYS_ENABLED = f"{GOOFYS}enabled"
GOOFYS_ENDPOINT_ENABLED = f"{GOOFYS}custom_endpoint_enabled"
GOOFYS_PATH = f"{GOOFYS}path"
MEDIA_REPO_ENABLED = f"{MEDIA_REPO}enabled"
MEDIA_REPO_CONTAINER_ARGUMENTS = f"{MEDIA_REPO}container_extra_arguments"
MEDIA_REPO_ROUTES = f"{MEDIA_REPO}container_labels_traefik_enabled"
"""Whether Traefik sends requests for media to matrix-media-repo."""
FILE_ENABLED, FILE_ID, FILE_KINDS = f"{FILE}enabled", f"{FILE}id", f"{FILE}for_kinds"
S3_ENABLED, S3_ID, S3_KINDS, S3_TLS = f"{S3}enabled", f"{S3}id", f"{S3}for_kinds", f"{S3}opts_ssl"
S3_PREFIX_LENGTH = f"{S3}opts_prefix_length"
S3_PUBLIC_URL = f"{S3}opts_public_base_url"
PROVIDERS = f"{SYNAPSE}media_storage_providers"
PROVIDERS_AUTO = f"{PROVIDERS}_auto"
"""The part of the list that the playbook fills in itself, the module among it."""
PROVIDERS_CUSTOM = f"{PROVIDERS}_custom"
"""The part of the list that is the operator's own."""
LOCAL_STORAGE = f"{SYNAPSE}enable_local_media_storage"
SYNAPSE_GIVES_MEDIA_AWAY = f"{SYNAPSE}ext_media_repo_enabled"
"""Whether Synapse's own media repository is off, since matrix-media-repo has taken its place."""
STORAGE_PATH, STORE_PATH = (f"{SYNAPSE}{name}_path" for name in ("storage", "media_store"))
"""STORE_PATH is the operator's, but Synapse's container sees STORAGE_PATH alone, and looks for the last part of
STORE_PATH there (matrix_synapse_media_store_directory_name, templates/synapse/systemd/matrix-synapse.service.j2)."""
DATA_PATHS = ("matrix_base_data_path", "matrix_synapse_base_path")
STORE_IN_CONTAINER = "/matrix-media-store-parent"
RETENTION = tuple(f"{SYNAPSE}media_retention_{kind}_media_lifetime" for kind in ("local", "remote"))

AS_JSON = (STORE_LOCAL, STORE_REMOTE, STORE_SYNCHRONOUS, LOCAL_STORAGE)
"""Switches that Synapse gets as they are (`| to_json`), so that the string 'no' counts as true there."""
AS_BOOLEAN = (INSTANCE_PROFILE,)
"""Switches that the playbook only reads with `| bool`, which knows 'no'."""
ALSO_AS_BOOLEAN = (MODULE_ENABLED, GOOFYS_ENABLED, MEDIA_REPO_ENABLED)
"""Switches that it reads with `| bool` in tasks, and without in templates, where 'no' counts as true."""
SWITCHES = (
    *(*AS_JSON, *ALSO_AS_BOOLEAN, GOOFYS_ENDPOINT_ENABLED, CUSTOMER_KEY_ENABLED, FILE_ENABLED, S3_ENABLED),
    SYNAPSE_GIVES_MEDIA_AWAY,
)
"""All that a string doesn't switch off."""

FAMILIES: dict[str, tuple[str, ...]] = {
    MODULE: (
        *(MODULE_ENABLED, STORE_LOCAL, STORE_REMOTE, STORE_SYNCHRONOUS, INSTANCE_PROFILE, THREADPOOL_SIZE),
        *(CUSTOMER_KEY_ENABLED, MIGRATION_SCHEDULE, MIGRATION_DAYS, *MODULE_VARIABLES.values()),
        *(MODULE_VERSION, f"{MODULE}config_sse_customer_algo"),
        *(f"{MODULE}migrate_systemd_{name}_services_list" for name in ("required", "wanted")),
    ),
    MODULE_CONTAINER: (
        MODULE_CONTAINER_ARGUMENTS,
        *(f"{MODULE_CONTAINER}{name}_path" for name in ("base", "bin", "data")),
    ),
    GOOFYS: (GOOFYS_ENABLED, GOOFYS_ENDPOINT_ENABLED, GOOFYS_PATH, *GOOFYS_VARIABLES.values()),
    _DATASTORE: (
        *(FILE_ENABLED, FILE_ID, FILE_KINDS, S3_ENABLED, S3_ID, S3_KINDS, S3_TLS, *S3_VARIABLES.values()),
        *(f"{_DATASTORE}opts_path", S3_PREFIX_LENGTH),
        *(S3_PUBLIC_URL, f"{S3}opts_temp_path", f"{S3}opts_redirect_when_cached"),
    ),
}
"""Prefix -> every variable that begins so."""

REMOVED = tuple(
    f"{MEDIA_REPO}{name}"
    for name in ("access_tokens", "datastores", "feature_support", "thumbnails", "uploads", "url_previews")
)
"""Former names, which the playbook refuses: it has a variable for each of their settings now, or none."""

KNOWN = frozenset(
    (
        *(name for names in FAMILIES.values() for name in names),
        *(MEDIA_REPO_ENABLED, PROVIDERS, PROVIDERS_AUTO, PROVIDERS_CUSTOM, SYNAPSE_GIVES_MEDIA_AWAY, *RETENTION),
        *(STORE_PATH, f"{SYNAPSE}enable_media_repo", LOCAL_STORAGE),
    )
)
"""Every variable on media, so that a misspelt one is told from one of another part of the playbook."""

# ---- paths on the server

STORAGE = "/matrix/synapse/storage"
"""STORAGE_PATH by default."""
MEDIA_STORE = "/matrix/synapse/storage/media-store"
HOMESERVER_CONFIGURATION = "/matrix/synapse/config/homeserver.yaml"
GOOFYS_MIGRATION_MOUNT = "/matrix/s3-media-store"
"""Where the playbook's guide mounts the bucket during the migration, beside the media store."""
MEDIA_REPO_BASE = "/matrix/matrix-media-repo"
PSQL = "/matrix/postgres/bin/cli-non-interactive"

# ---- units on the server

SYNAPSE_UNIT = "matrix-synapse"
GOOFYS_UNIT = "matrix-goofys"
PROXY_UNIT = "matrix-traefik"
MIGRATION_UNIT = "matrix-synapse-s3-storage-provider-migrate"
"""The nightly job: a timer and a service of this name."""
DATABASE_HOST = "matrix-postgres"
USER = "matrix"

# ---- where the playbook is run

VAULT_MARK = "$ANSIBLE_VAULT;"
"""How a file begins that Ansible Vault has encrypted as a whole."""

VARS_FILE = "synapse-media.yml"
"""Our file among those of a host."""


def host_vars(host: str) -> str:
    """The directory with a host's variables, all of whose files Ansible reads in the order of their names."""
    return f"inventory/host_vars/{host}"


def command(tags: str) -> str:
    """The command that runs the parts of the playbook that these tags name."""
    return f"ansible-playbook -i inventory/hosts setup.yml --tags={tags}"
