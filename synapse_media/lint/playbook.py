"""The variables of matrix-docker-ansible-deploy that decide on media (commit c0681e4b, 2026-08-22)."""

from __future__ import annotations

MODULE = "matrix_synapse_ext_synapse_s3_storage_provider_"
GOOFYS = "matrix_s3_media_store_"
MEDIA_REPO = "matrix_media_repo_"
FILE = f"{MEDIA_REPO}datastore_file_"
S3 = f"{MEDIA_REPO}datastore_s3_"

MODULE_FIELDS = {
    "bucket": "config_bucket",
    "prefix": "config_prefix",
    "region": "config_region_name",
    "endpoint": "config_endpoint_url",
    "access_key_id": "config_access_key_id",
    "secret_access_key": "config_secret_access_key",
    "customer_key": "config_sse_customer_key",
    "storage_class": "config_storage_class",
}
GOOFYS_FIELDS = {
    "bucket": "bucket_name",
    "region": "region",
    "endpoint": "custom_endpoint",
    "access_key_id": "aws_access_key",
    "secret_access_key": "aws_secret_key",
}
S3_FIELDS = {
    "bucket": "opts_bucket_name",
    "region": "opts_region",
    "endpoint": "opts_endpoint",
    "access_key_id": "opts_access_key_id",
    "secret_access_key": "opts_access_secret",
    "storage_class": "opts_storage_class",
}

FAMILIES: dict[str, tuple[str, ...]] = {
    MODULE: (
        *("enabled", "version", "store_local", "store_remote", "store_synchronous"),
        *MODULE_FIELDS.values(),
        *("config_ec2_instance_profile", "config_sse_customer_enabled", "config_sse_customer_algo"),
        *("config_threadpool_size", "update_db_day_count", "periodic_migration_schedule"),
        *("migrate_systemd_required_services_list", "migrate_systemd_wanted_services_list"),
    ),
    "matrix_synapse_ext_s3_storage_provider_": ("base_path", "bin_path", "data_path", "container_arguments"),
    GOOFYS: ("enabled", "custom_endpoint_enabled", *GOOFYS_FIELDS.values(), "path"),
    f"{MEDIA_REPO}datastore_": (
        *("file_enabled", "file_id", "file_for_kinds", "opts_path", "s3_enabled", "s3_id", "s3_for_kinds"),
        *(f"s3_{name}" for name in S3_FIELDS.values()),
        *("s3_opts_temp_path", "s3_opts_ssl", "s3_opts_public_base_url", "s3_opts_redirect_when_cached"),
        "s3_opts_prefix_length",
    ),
}
"""Prefix -> every variable that begins so."""

OTHERS = (
    f"{MEDIA_REPO}enabled",
    "matrix_synapse_media_store_path",
    "matrix_synapse_media_storage_providers",
    "matrix_synapse_media_storage_providers_auto",
    "matrix_synapse_media_storage_providers_custom",
    "matrix_synapse_ext_media_repo_enabled",
    "matrix_synapse_enable_media_repo",
    "matrix_synapse_enable_local_media_storage",
    "matrix_synapse_media_retention_local_media_lifetime",
    "matrix_synapse_media_retention_remote_media_lifetime",
)
REMOVED = tuple(
    f"{MEDIA_REPO}{name}"
    for name in ("access_tokens", "datastores", "feature_support", "thumbnails", "uploads", "url_previews")
)
"""Names of before, which the playbook refuses: it has a variable for each of their settings now, or none."""
KNOWN = frozenset(f"{prefix}{name}" for prefix, names in FAMILIES.items() for name in names) | frozenset(OTHERS)
