"""matrix-media-repo 1.3.8: its configuration's names, and where its image and its users have it.

Its options are a map of strings; one that is unknown or of another case is ignored in silence (config.sample.yaml and
datastores/s3.go). https://github.com/t2bot/matrix-media-repo
"""

from __future__ import annotations

VERSION = "1.3.8"
IMAGE = f"ghcr.io/t2bot/matrix-media-repo:v{VERSION}"
UNIT = "matrix-media-repo"
"""Of the playbook and of whoever follows the project's guide; the playbook's container has this name too."""
DATABASE = "matrix_media_repo"
CONFIGURATION = "/etc/matrix-media-repo"
FILE_PATH = "/data/media"
"""The file datastore of the playbook and of the image's volume."""
KINDS = ("thumbnails", "remote_media", "local_media", "archives")
"""Of `forKinds`."""
FOR_KINDS = "forKinds"
S3_OPTIONS = {
    "bucket": "bucketName",
    "region": "region",
    "endpoint": "endpoint",
    "access_key_id": "accessKeyId",
    "secret_access_key": "accessSecret",
    "storage_class": "storageClass",
}
"""{setting of a store: option in the `opts` of an s3 datastore}."""
TLS = "ssl"
PREFIX_LENGTH = "prefixLength"
PUBLIC_URL = "publicBaseUrl"
