"""The files of a media store beside the objects of a bucket, one after the other: in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .bucket import RemoteObject
from .tree import MediaFile, sort_key


def pairs(
    files: Iterable[MediaFile], objects: Iterable[RemoteObject]
) -> Iterator[tuple[MediaFile | None, RemoteObject | None]]:
    """Each path once, in order, with what there is of it: the file, the object, or both.

    Args:
        files, objects: both in the order of `tree.sort_key`, as `Tree.files` and `Bucket.media` give them.
    """
    local, remote = iter(files), iter(objects)
    file, found = next(local, None), next(remote, None)
    while file is not None or found is not None:
        if file is None:
            yield None, found
            found = next(remote, None)
        elif found is None:
            yield file, None
            file = next(local, None)
        else:
            ours, theirs = sort_key(file.path), sort_key(found.path)
            yield (file if ours <= theirs else None), (found if theirs <= ours else None)
            if ours <= theirs:
                file = next(local, None)
            if theirs <= ours:
                found = next(remote, None)
