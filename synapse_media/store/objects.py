"""The contents of a bucket: check for media, empty it, remove the proof's objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from synapse_media.contract import PROOF_NAME, PROOF_OBJECT
from synapse_media.methods import MEDIA_FOLDERS

from . import bounded
from .answers import NO_ANSWER, ApiError
from .clients import Client, call

ANOTHER_LOOK: Final = 2.0
"""Seconds before the same call is made again: a server that takes over from another may know it then."""
_PROOF_ENDS: Final = timedelta(hours=1)
"""After this time no proof is still at work."""


def create_bucket(s3: Client, bucket: str, region: str) -> None:
    """Make a bucket. Raises ApiError, also where it is there already."""
    named = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    # Amazon's first region, and whatever imitates it, refuses to be named.
    if region not in ("", "us-east-1"):
        try:
            call(s3, "create_bucket", Bucket=bucket, **named)
        except ApiError as error:
            # At Ceph it names a zone group, which need not be what is signed for.
            if error.code != "InvalidLocationConstraint":
                raise
        else:
            return
    call(s3, "create_bucket", Bucket=bucket)


def bucket_names(s3: Client, prefix: str = "") -> Iterator[str]:
    """The names of the buckets that the key may list. Raises ApiError, also where the listing has no end.

    Args:
        prefix: of the names that are wanted. A store that knows it sends no list of thousands.
    """
    next_page = pages_of("buckets", bounded.PAGES)
    asked: dict[str, Any] = {"Prefix": prefix} if prefix else {}
    while True:
        page = call(s3, "list_buckets", **asked)
        yield from (str(bucket["Name"]) for bucket in page.get("Buckets", []) if bucket["Name"].startswith(prefix))
        if not page.get("ContinuationToken"):
            return
        asked["ContinuationToken"] = page["ContinuationToken"]
        next_page(page["ContinuationToken"])


def look(s3: Client, bucket: str) -> None:
    """Raises ApiError unless the bucket can be listed; `absent`, `denied` and `bad_key` are then the store's answer.

    Lists instead of HeadBucket, whose response has no body: a 404 of a proxy could not be told from the store's.
    """
    try:
        call(s3, "list_objects_v2", Bucket=bucket, MaxKeys=1)
    except ApiError as error:
        if not error.absent or error.code == "NoSuchBucket":
            raise
        # NoSuchKey says nothing about a bucket.
        raise ApiError(NO_ANSWER, error.status, f"{error}. That is no answer to the listing of a bucket") from None


def may_be_there(s3: Client, bucket: str) -> bool:
    """Whether a bucket exists, for all that the store says: False only if it reports twice that it does not.

    The second report is its list of buckets, or, where the key may not list them, another look. One wrong answer would
    have a key in use deleted.
    """
    if not _is_said_to_be_gone(s3, bucket):
        return True
    try:
        return bucket in bucket_names(s3, bucket)
    except ApiError as error:
        if not (error.denied or error.lacking):
            return True
    time.sleep(ANOTHER_LOOK)
    return not _is_said_to_be_gone(s3, bucket)


def _is_said_to_be_gone(s3: Client, bucket: str) -> bool:
    try:
        look(s3, bucket)
    except ApiError as error:
        return error.absent
    return False


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it.

    Attributes:
        etag: without its quotes; "" where the store does not tell.
        modified: seconds since 1970, by the store's clock.
        storage_class: "" where the store does not tell.
        expires: when a lifecycle rule deletes it, in the store's words, which HEAD alone tells; "" where none does.
    """

    key: str
    size: int
    etag: str
    modified: float
    storage_class: str
    expires: str = ""


def listed(s3: Client, bucket: str, prefix: str) -> Iterator[Listed]:
    """Every object whose key begins so. Raises ApiError, also where the listing has no end."""
    for item in _objects(s3, bucket, prefix, bounded.PAGES_OF_MEDIA):
        etag = str(item.get("ETag") or "").strip('"')
        modified = item["LastModified"].timestamp()
        yield Listed(item["Key"], item["Size"], etag, modified, str(item.get("StorageClass") or ""))


def _objects(s3: Client, bucket: str, prefix: str, pages: int) -> Iterator[dict[str, Any]]:
    next_page = pages_of(bucket, pages)
    next_empty = pages_of(bucket, bounded.EMPTY_PAGES)
    token: dict[str, str] = {}
    while True:
        page = call(s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        found = page.get("Contents", [])
        yield from found
        if found:
            next_empty = pages_of(bucket, bounded.EMPTY_PAGES)
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}
        next_page(token)
        if not found:
            next_empty(token)


@dataclass(frozen=True, slots=True)
class Version:
    """An object's version, or a delete marker.

    Attributes:
        version_id: "" where the store keeps no versions.
        modified: None where the store does not tell.
    """

    key: str
    version_id: str
    modified: datetime | None

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Version:
        modified = item.get("LastModified")
        return cls(item["Key"], item.get("VersionId") or "", modified if isinstance(modified, datetime) else None)


def _versions(s3: Client, bucket: str, prefix: str = "", *, media: bool = False) -> Iterator[Version]:
    """Every version and delete marker.

    Raises ApiError, also where the listing has no end.

    Args:
        media: all that is in the bucket is wanted, and that may be much.
    """
    marker: dict[str, str] = {}
    pages = bounded.PAGES_OF_MEDIA if media else bounded.PAGES
    next_page = pages_of(bucket, pages)
    while True:
        try:
            page = call(s3, "list_object_versions", Bucket=bucket, Prefix=prefix, **marker)
        except ApiError as error:
            if not error.lacking:
                raise
            break
        for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            yield Version.of(item)
        if not page.get("IsTruncated"):
            return
        marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
        next_page(marker)
    for item in _objects(s3, bucket, prefix, pages):
        yield replace(Version.of(item), version_id="")


def pages_of(bucket: str, pages: int) -> Callable[[object], None]:
    """As `bounded.within_pages`, of a listing of a bucket; raises ApiError."""
    count = bounded.within_pages(pages)

    def next_page(place: object) -> None:
        try:
            count(place)
        except bounded.TooMuchError as error:
            raise ApiError(NO_ANSWER, 0, f"the listing of {bucket}: the answer {error}") from None

    return next_page


def is_ours(key: str) -> bool:
    """Written by the proof: not media. A prefix need not end with "/", so something may stand before the name."""
    return PROOF_NAME.search(key) is not None


def left_by_proof(s3: Client, bucket: str) -> list[Version] | None:
    """What the proof left in a bucket that has nothing else; None if it has. Old versions count as media."""
    found: list[Version] = []
    for version in _versions(s3, bucket):
        if not is_ours(version.key):
            return None
        found.append(version)
    return found


def is_empty(s3: Client, bucket: str) -> bool:
    """Nothing in it but what the proof left."""
    return left_by_proof(s3, bucket) is not None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Objects lie in a bucket, but none where media is looked for. `prefix`: one that would fit; None: none found."""

    prefix: str | None


_LISTINGS: Final = 30
"""Listings that the search for a fitting prefix makes at most; a page has 1000 names."""


def media_elsewhere(s3: Client, bucket: str, looked_for: Collection[str]) -> Elsewhere | None:
    """Whether a bucket that holds objects has none where media will be looked for; None where all is well.

    Args:
        looked_for: prefixes of keys, such as media/local_content/; none: nothing is asked.
    """

    def names(under: str, count: int) -> Sequence[str]:
        page = call(s3, "list_objects_v2", Bucket=bucket, Prefix=under, MaxKeys=count)
        return [item["Key"] for item in page.get("Contents", [])]

    def folders(under: str) -> Sequence[str]:
        page = call(s3, "list_objects_v2", Bucket=bucket, Prefix=under, Delimiter="/")
        return [item["Prefix"] for item in page.get("CommonPrefixes", [])]

    return search(looked_for, names, folders)


PAGE: Final = 1000
"""Names of a page."""


def search(
    looked_for: Collection[str],
    names: Callable[[str, int], Sequence[str]],
    folders: Callable[[str], Iterable[str]],
) -> Elsewhere | None:
    """As `media_elsewhere`, of any store.

    Args:
        names: the first so many names of objects under a prefix.
        folders: the prefixes one level below a prefix, each with "/" at its end.
    """
    if not looked_for or any(names(under, 1) for under in looked_for):
        return None
    first = names("", PAGE)
    if len(first) < PAGE and all(map(is_ours, first)):
        return None
    left = [""]
    for _ in range(_LISTINGS):
        if not left:
            break
        for prefix in folders(left.pop(0)):
            for folder in MEDIA_FOLDERS:
                if prefix.endswith(folder):
                    return Elsewhere(prefix.removesuffix(folder))
            left.append(prefix)
    return Elsewhere(None)


def empty_out(s3: Client, bucket: str, *, of_proof: bool = False, listed: Iterable[Version] | None = None) -> None:
    """Delete everything in the bucket, including unfinished uploads.

    Args:
        of_proof: delete only what the proof wrote.
        listed: what is in the bucket, where that was just listed.
    """
    try:
        # Listed anew each time: what was aborted is gone from the first page.
        next_page = pages_of(bucket, bounded.PAGES_OF_MEDIA)
        while uploads := [
            upload
            for upload in call(s3, "list_multipart_uploads", Bucket=bucket).get("Uploads", [])
            if not of_proof or is_ours(upload["Key"])
        ]:
            for upload in uploads:
                call(s3, "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            next_page([upload["UploadId"] for upload in uploads])
    except ApiError as error:
        if not error.lacking:
            raise
    for version in _versions(s3, bucket, media=not of_proof) if listed is None else listed:
        if not of_proof or is_ours(version.key):
            _delete_version(s3, bucket, version)


def remove_versions(s3: Client, bucket: str, prefix: str) -> None:
    """Delete every version of what the proof wrote under `prefix`, and of nothing whose name only begins alike."""
    for version in _versions(s3, bucket, prefix):
        if is_ours(version.key):
            _delete_version(s3, bucket, version)


def clear_proof(s3: Client, bucket: str, prefix: str, own: str) -> None:
    """Delete what a proof wrote, and what earlier ones left; nothing of one that runs beside it.

    Args:
        prefix: the store's.
        own: the key of the proof's own object.
    """
    for version in _versions(s3, bucket, prefix + PROOF_OBJECT):
        if is_ours(version.key) and is_left(version.key, own, version.modified):
            _delete_version(s3, bucket, version)


def is_left(key: str, own: str, written: datetime | None) -> bool:
    """Whether nobody needs an object of a proof any more: it is the own one, or older than any proof takes."""
    return key.startswith(own) or (written is not None and datetime.now(UTC) - written > _PROOF_ENDS)


def _delete_version(s3: Client, bucket: str, version: Version) -> None:
    # One by one: not every store has DeleteObjects.
    named = {"VersionId": version.version_id} if version.version_id else {}
    call(s3, "delete_object", Bucket=bucket, Key=version.key, **named)
