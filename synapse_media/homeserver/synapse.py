"""Synapse 1.163, its S3 module, and the Debian package of packages.matrix.org: settings, paths and units.

https://element-hq.github.io/synapse/latest/usage/configuration/config_documentation.html
https://github.com/matrix-org/synapse-s3-storage-provider (1.7.0)
"""

from __future__ import annotations

# ---- settings of homeserver.yaml

MEDIA_STORE_PATH = "media_store_path"
PROVIDERS = "media_storage_providers"
BACKUP_PATH = "backup_media_store_path"
ENABLE_MEDIA_REPO = "enable_media_repo"
ENABLE_LOCAL_STORAGE = "enable_local_media_storage"
RETENTION = "media_retention"
MEDIA_SETTINGS = (
    *(MEDIA_STORE_PATH, PROVIDERS, BACKUP_PATH, ENABLE_MEDIA_REPO, ENABLE_LOCAL_STORAGE, RETENTION),
    "synchronous_backup_media_store",
    "enable_authenticated_media",
    "media_upload_limits",
    "media_instance_running_background_jobs",
    "max_pending_media_uploads",
    "prevent_media_downloads_from",
    "remote_media_download_per_second",
    "remote_media_download_burst_count",
    "rc_media_create",
)
"""All with `media` in their name."""

# ---- of a storage provider, and of the module's `config`

STORE_LOCAL, STORE_REMOTE, STORE_SYNCHRONOUS = "store_local", "store_remote", "store_synchronous"
MODULE_VERSION = "1.7.0"
HANG_MENDED = (1, 7)
"""The module's first release in which a missing object does not leave requests hanging:
https://github.com/matrix-org/synapse-s3-storage-provider/pull/159"""
THREADPOOL_SINCE = (1, 6)
"""The module's first release that calls `ModuleApi.defer_to_threadpool`, and makes text of region and access key ID."""
MODULE_NEEDS_SYNAPSE = (1, 140)
"""Synapse's first release that has it: what the module needs since."""
MODULE_DISTRIBUTION = "synapse-s3-storage-provider"
DISTRIBUTION = "matrix-synapse"
"""As pip knows the two."""
MODULE_PACKAGE = "s3_storage_provider"
MODULE_CLASS = f"{MODULE_PACKAGE}.S3StorageProviderBackend"
FILE_SYSTEM_MODULES = ("file_system", "synapse.rest.media.v1.storage_provider")
"""Names of Synapse's own storage provider, which has a directory."""
MEDIA_WORKER = "synapse.app.media_repository"
"""The `worker_app` that keeps media where the main process does not."""
MODULE_OPTIONS = {
    "bucket": "bucket",
    "prefix": "prefix",
    "region": "region_name",
    "endpoint": "endpoint_url",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
    "customer_key": "sse_customer_key",
    "storage_class": "storage_class",
}
"""{setting of a store: option} of what `parse_config` of the module reads."""
CUSTOMER_KEY_ALGORITHM = "sse_customer_algo"

# ---- the Debian package

UNIT = "matrix-synapse"
USER = "matrix-synapse"
CONFIGURATION = "/etc/matrix-synapse"
DROP_IN = "conf.d/synapse-media.yaml"
"""Our file, below CONFIGURATION: Synapse reads conf.d after homeserver.yaml."""
MEDIA_STORE = "/var/lib/matrix-synapse/media"
MEDIA_STORE_OF_NIXOS = "/var/lib/matrix-synapse/media_store"
"""Where `system.stateVersion` is 22.05 or newer (nixos/modules/services/matrix/synapse.nix)."""
VIRTUAL_ENVIRONMENT = "/opt/venvs/matrix-synapse"
UNITS = "/etc/systemd/system"
UNIT_DROP_INS = f"{UNIT}.service.d"
"""Below UNITS: what is added to Synapse's unit."""

# ---- Goofys as we render it, for this package

GOOFYS_MOUNT = f"{MEDIA_STORE}-s3"
"""Beside the package's media store, so that nothing is hidden by the mount."""
GOOFYS_NAME = "synapse-media-goofys"
GOOFYS_UNIT = f"{GOOFYS_NAME}.service"
