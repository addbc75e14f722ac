"""The contents of a bucket: check for media, empty it, remove the proof's objects."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from synapse_media.contract import PROOF_OBJECTS
from synapse_media.methods import MEDIA_FOLDERS

from .clients import ApiError, Client, call


def look(s3: Client, bucket: str) -> None:
    """Raises ApiError unless the bucket can be listed; `absent`, `denied` and `bad_key` are then the store's answer.

    Lists instead of HeadBucket, whose response has no body: a 404 of a proxy could not be told from the store's.
    """
    call(s3, "list_objects_v2", Bucket=bucket, MaxKeys=1)


def _versions(s3: Client, bucket: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, version id) of every version and delete marker; version id "" if the store has no versioning."""
    marker: dict[str, str] = {}
    while True:
        try:
            page = call(s3, "list_object_versions", Bucket=bucket, Prefix=prefix, **marker)
        except ApiError as error:
            if not error.lacking:
                raise
            break
        for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            yield item["Key"], item.get("VersionId") or ""
        if not page.get("IsTruncated"):
            return
        marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
    token: dict[str, str] = {}
    while True:
        page = call(s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        for item in page.get("Contents", []):
            yield item["Key"], ""
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def is_ours(key: str) -> bool:
    """Whether the proof wrote an object, so that it is not media.

    Compares the end of the key, since a prefix need not end with "/".
    """
    return key.endswith(tuple(PROOF_OBJECTS))


def is_empty(s3: Client, bucket: str) -> bool:
    """Whether the bucket has no objects but those of the proof; old versions count as objects."""
    return all(is_ours(key) for key, _ in _versions(s3, bucket))


def holds_media(s3: Client, bucket: str) -> bool:
    """Whether there is media in a bucket; False also if the store reports that the bucket does not exist."""
    try:
        return not is_empty(s3, bucket)
    except ApiError as error:
        if not error.absent:
            raise
        return False


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
    if not looked_for:
        return None
    if any(call(s3, "list_objects_v2", Bucket=bucket, Prefix=under, MaxKeys=1).get("Contents") for under in looked_for):
        return None
    page = call(s3, "list_objects_v2", Bucket=bucket)
    if all(is_ours(item["Key"]) for item in page.get("Contents", [])) and not page.get("IsTruncated"):
        return None
    folders = [""]
    for _ in range(_LISTINGS):
        if not folders:
            break
        page = call(s3, "list_objects_v2", Bucket=bucket, Prefix=folders.pop(0), Delimiter="/")
        for item in page.get("CommonPrefixes", []):
            for folder in MEDIA_FOLDERS:
                if item["Prefix"].endswith(folder):
                    return Elsewhere(item["Prefix"].removesuffix(folder))
            folders.append(item["Prefix"])
    return Elsewhere(None)


def empty_out(s3: Client, bucket: str, *, of_proof: bool = False) -> None:
    """Delete everything in the bucket, including unfinished uploads.

    Args:
        of_proof: delete only what the proof wrote.
    """
    try:
        # The first page is listed again each time: aborted uploads are no longer on it.
        while uploads := [
            upload
            for upload in call(s3, "list_multipart_uploads", Bucket=bucket).get("Uploads", [])
            if not of_proof or is_ours(upload["Key"])
        ]:
            for upload in uploads:
                call(s3, "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except ApiError as error:
        if not error.lacking:
            raise
    for key, version in _versions(s3, bucket):
        if not of_proof or is_ours(key):
            _delete_version(s3, bucket, key, version)


def remove_versions(s3: Client, bucket: str, prefix: str) -> None:
    """Delete every version of the proof's objects under `prefix`; other objects with that prefix stay."""
    for key, version in _versions(s3, bucket, prefix):
        if is_ours(key):
            _delete_version(s3, bucket, key, version)


def _delete_version(s3: Client, bucket: str, key: str, version: str) -> None:
    # One by one: not every store has DeleteObjects.
    call(s3, "delete_object", Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))
