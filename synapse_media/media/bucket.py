"""A store, and what asks it: a client of S3 for its listing, and rclone for contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from synapse_media.contract import StorageOutputs
from synapse_media.store import objects
from synapse_media.store.clients import Client

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

    def objects(self, name: str = "") -> Iterator[objects.Listed]:
        """Every object of Synapse's media, with what only a listing tells: ETag and storage class. Raises ApiError.

        Args:
            name: how the paths have to begin below Synapse's folders.
        """
        for folder in FOLDERS:
            yield from objects.listed(self.client, self.store.bucket, f"{self.store.prefix}{folder}/{name}")
