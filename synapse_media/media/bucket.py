"""A store, and what asks it: a client of S3 for its listing, and rclone for contents."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from synapse_media.contract import StorageOutputs
from synapse_media.errors import StoreError
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Client, call
from synapse_media.store.objects import Listed, listed

from .rclone import Rclone
from .tree import FOLDERS, sort_key

PAGE: Final = 1000
"""Objects that an answer to a listing has at most."""
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_MEDIA: Final = tuple(f"{folder}/" for folder in FOLDERS)


class UnsortedError(StoreError):
    """A store whose listing is not in the order of keys, so that it can't be compared in little memory."""


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object of the store.

    Attributes:
        path: relative to the media store: the key without the store's prefix.
        modified: when the store wrote it, in seconds since the epoch, by the store's clock.
        etag: in small letters.
    """

    path: str
    size: int
    modified: float
    etag: str

    @property
    def md5(self) -> str:
        """Of its content, in hexadecimal; "" where the store does not tell (an object that was uploaded in parts)."""
        return self.etag if _MD5.fullmatch(self.etag) else ""


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

    def objects(self, among: Collection[str] = _MEDIA) -> Iterator[Listed]:
        """Every object of Synapse's media, with what only a listing tells: ETag and storage class. Raises ApiError.

        Args:
            among: how their paths begin. Each is a request at least, but for those that begin with another one.
        """
        covered: str | None = None
        for beginning in sorted(among, key=sort_key):
            if covered is None or not beginning.startswith(covered):
                covered = beginning
                yield from listed(self.client, self.store.bucket, f"{self.store.prefix}{beginning}")

    def media(self, *, among: Collection[str] = _MEDIA) -> Iterator[RemoteObject]:
        """Every object of Synapse's media, in the order of `tree.sort_key`, as the pages come: in little memory.

        To be merged with `Tree.files`, which has the same order. One request per folder and PAGE objects. What is
        neither media nor a thumbnail is left out, as are keys that are no path of a file.

        It is not rclone's own listing: that takes a web page, or an empty answer, for a bucket without objects.

        Args:
            among: as for `objects`.

        Raises:
            ApiError: the store can't be listed.
            UnsortedError: a store's keys come in another order.
        """
        last = b""
        for item in self.objects(among):
            if (key := sort_key(item.key)) <= last:
                raise UnsortedError(
                    f"{self.store.endpoint_url} lists {self.store.bucket} in another order than that of keys "
                    f"({item.key!r} after {last.decode(errors='replace')!r}), and as large a listing can't be compared "
                    "otherwise: nothing was done."
                )
            last = key
            path = item.key.removeprefix(self.store.prefix)
            # Synapse writes no such key, and a file of this name would lie elsewhere.
            if not {"", ".", ".."}.isdisjoint(path.split("/")):
                continue
            yield RemoteObject(path, item.size, item.modified, item.etag.lower())

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
        # An object of INTELLIGENT_TIERING may lie in an archive tier, which no listing tells.
        storage_class = str(found.get("ArchiveStatus") or found.get("StorageClass") or "")
        return Listed(key, found["ContentLength"], etag, modified, storage_class, str(found.get("Expiration") or ""))
