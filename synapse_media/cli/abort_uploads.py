"""`synapse-media abort-uploads`: remove what uploads that were never completed left behind.

For stores without lifecycle rules: an unfinished upload is invisible there, is charged for, and stays for ever.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from synapse_media import catalog
from synapse_media.contract import StorageOutputs
from synapse_media.errors import SynapseMediaError
from synapse_media.methods import METHODS
from synapse_media.store import bounded
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Client, Credential, call, s3_client, server_time
from synapse_media.store.objects import pages_of

from . import programs

_AGE = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was begun and not completed. `started` is by the store's clock (UTC)."""

    key: str
    upload_id: str
    started: datetime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "For stores without lifecycle rules (Storj): run it now and then, from a timer. Uses the store's "
        "own key; where that may not list uploads, --stack with the admin credential in the environment. Objects are "
        "not touched."
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--stack", "-s", metavar="S", help="the stores of a stack; default: the selected one")
    source.add_argument("--store", metavar="FILE", help="a store.json written by `render`")
    parser.add_argument(
        "--older-than",
        type=age,
        default=timedelta(days=7),
        metavar="AGE",
        help="begun so long ago: 12h, 7d (the default), 4w; an upload under way is younger",
    )
    parser.add_argument("--dry-run", "-n", action="store_true", help="only list them")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    from . import stacks, stores

    environment = dict(os.environ)
    if arguments.store:
        loaded = [stores.load_file(arguments.store)]
    else:
        loaded = stacks.load(arguments.stack)
        if arguments.stack == stacks.EMBEDDED:
            environment |= stacks.embedded_environment()
    report: dict[str, Any] = {}
    for store in loaded:
        report[store.server_name] = {"bucket": store.bucket, "aborted": not arguments.dry_run, "uploads": []}
        if not METHODS[store.method].uses_store:
            _say(f"{store.server_name}: {store.method} uses no store", arguments)
            continue
        with stacks.waiting(f"{store.endpoint_url}: which uploads are unfinished?"):
            client = client_of(store, environment)
            uploads = list(stale(client, store.bucket, store.prefix, arguments.older_than))
        for upload in uploads:
            if not arguments.dry_run:
                with stacks.waiting(f"{store.endpoint_url} to abort {upload.key}"):
                    abort(client, store.bucket, upload)
            done = "would abort" if arguments.dry_run else "aborted"
            _say(f"{done} {upload.key}, begun {upload.started:%Y-%m-%d}", arguments)
            report[store.server_name]["uploads"].append(
                {"key": upload.key, "upload_id": upload.upload_id, "started": upload.started.isoformat()}
            )
        count = len(uploads)
        _say(
            f"{store.server_name}: {count or 'no'} unfinished upload{'' if count == 1 else 's'} in {store.bucket}",
            arguments,
        )
    if arguments.json:
        print(programs.text({"uploads": report}))
    return 0


def _say(line: str, arguments: argparse.Namespace) -> None:
    if not arguments.json:
        print(line)


def age(text: str) -> timedelta:
    """`7d` as a length of time. Raises ArgumentTypeError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; allowed: 12h, 7d, 4w, one hour at least")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def client_of(store: StorageOutputs, environment: dict[str, str]) -> Any:
    """An S3 client that may list the store's uploads: its own key's, or else the admin's.

    Raises SynapseMediaError where neither may.
    """
    from synapse_media.store import credentials

    from .stores import own_key

    connection, own = own_key(store)
    variables = _key_variables(catalog.load(store.provider))
    values = [credentials.read(name, environment) for name in variables]
    candidates = [own, *([Credential(*values)] if values and all(values[:2]) else [])]
    for credential in candidates:
        client = s3_client(connection, credential)
        try:
            call(client, "list_multipart_uploads", Bucket=store.bucket, MaxUploads=1)
        except ApiError as error:
            if not error.denied:
                raise
        else:
            return client
    advice = (
        f"Run this with the admin credential ({', '.join(variables)}) in the environment."
        if variables
        else "The administrator's credential is no key for S3 here: use another one that may."
    )
    raise SynapseMediaError(
        f"{store.server_name}: its key may not list uploads, which {store.method} does not need. {advice}"
    )


def _key_variables(provider: catalog.Provider) -> tuple[str, ...]:
    """Those of the admin variables that are an S3 key: its ID, its secret and, where it may have one, its session
    token, in this order; () where the administrator has none."""
    names = provider.admin_variables
    start = next((number for number, name in enumerate(names) if name.endswith("_KEY_ID")), len(names))
    return names[start : start + 3]


def stale(client: Client, bucket: str, prefix: str, older_than: timedelta) -> Iterator[Upload]:
    """The uploads begun longer ago than that, by the store's own clock. Raises ApiError."""
    found = False
    for upload, now in _begun(client, bucket, prefix):
        found = True
        if _is_stale(upload, prefix, now - older_than):
            yield upload
    if found or not prefix:
        return
    # MinIO takes a prefix for the whole name of an object.
    try:
        for upload, now in _begun(client, bucket, ""):
            if _is_stale(upload, prefix, now - older_than):
                yield upload
    except ApiError as error:
        if not error.denied:
            raise


def _is_stale(upload: Upload, prefix: str, before: datetime) -> bool:
    # A store that does not know a prefix lists the uploads of others as well.
    return upload.key.startswith(prefix) and upload.started <= before


def _begun(client: Client, bucket: str, prefix: str) -> Iterator[tuple[Upload, datetime]]:
    """The unfinished uploads, each with the store's time when it was listed."""
    marker: dict[str, str] = {}
    seen: set[str] = set()
    next_page = pages_of(bucket, bounded.PAGES)
    while True:
        page = _page(client, bucket, prefix, marker)
        uploads = [Upload(x["Key"], x["UploadId"], x["Initiated"].astimezone(UTC)) for x in page.get("Uploads", [])]
        fresh = [upload for upload in uploads if upload.upload_id not in seen]
        seen.update(upload.upload_id for upload in fresh)
        now = server_time(page)
        yield from ((upload, now) for upload in fresh)
        # A store that gives no marker, or the same page again, must not keep this going for ever.
        if not page.get("IsTruncated") or not fresh:
            return
        last = fresh[-1]
        marker = {
            "KeyMarker": page.get("NextKeyMarker") or last.key,
            "UploadIdMarker": page.get("NextUploadIdMarker") or last.upload_id,
        }
        next_page(marker)


def _page(client: Client, bucket: str, prefix: str, marker: dict[str, str]) -> dict[str, Any]:
    try:
        return call(client, "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **marker)
    except ApiError as error:
        if error.status != 400 or "KeyMarker" not in marker:
            raise
    # versitygw 1.8.0 refuses the upload marker that it gave. By the key alone, further uploads of that very key are
    # passed over: the next run finds them.
    return call(client, "list_multipart_uploads", Bucket=bucket, Prefix=prefix, KeyMarker=marker["KeyMarker"])


def abort(client: Client, bucket: str, upload: Upload) -> None:
    """Abort it; completed or aborted by somebody else meanwhile is done. Raises ApiError."""
    try:
        call(client, "abort_multipart_upload", Bucket=bucket, Key=upload.key, UploadId=upload.upload_id)
    except ApiError as error:
        if error.code != "NoSuchUpload":
            raise
