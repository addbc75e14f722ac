"""A store, and what asks it: a client of S3 for its listing, and rclone for contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from synapse_media.contract import StorageOutputs
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Client, call
from synapse_media.store.objects import Listed, listed

from .rclone import Rclone
from .tree import FOLDERS


@dataclass(frozen=True, slots=True)
class Bucket:
    """A store.

    Attributes:
        client: an S3 client with the store's own key.
        rclone: is called for once something has to be read.
    """

    store: StorageOutputs
    client: Client
    rclone: Callable[[], Rclone]

    @property
    def said(self) -> str:
        return f"{self.store.bucket} at {self.store.endpoint_url}"

    def objects(self, name: str = "") -> Iterator[Listed]:
        """Every object of Synapse's media, with what only a listing tells: ETag and storage class. Raises ApiError.

        Args:
            name: how the paths have to begin below Synapse's folders.
        """
        for folder in FOLDERS:
            yield from listed(self.client, self.store.bucket, f"{self.store.prefix}{folder}/{name}")

    def look(self, path: str) -> Listed | None:
        """An object as it is now; None where there is none, or its latest version is a delete marker. Raises ApiError.

        Args:
            path: without the store's prefix.
        """
        key = self.store.prefix + path
        try:
            found = call(self.client, "head_object", Bucket=self.store.bucket, Key=key)
        except ApiError as error:
            # A response to HEAD has no body that could name the error.
            if error.absent or error.status == 404:
                return None
            raise
        etag = str(found.get("ETag") or "").strip('"')
        modified = found["LastModified"].timestamp()
        return Listed(key, found["ContentLength"], etag, modified, str(found.get("StorageClass") or ""))
