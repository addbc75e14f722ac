"""What each method asks of a store: one table for policies, key capabilities and the proof alike.

A method is the way Synapse reaches the store. The operations were read from the access log of a gateway under the
real programs and from their sources; the names of the actions are those of Amazon's service authorization reference:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

Access = Literal["least", "full"]
MethodName = Literal["synapse-s3-storage-provider", "goofys", "matrix-media-repo"]
"""The methods that use a store."""
Addressing = Literal["path", "virtual"]
ACCESS: tuple[Access, ...] = ("least", "full")


class Operation(StrEnum):
    """Something a key is asked to do to a store, as the proof names it."""

    PUT = "put"
    HEAD = "head"
    GET = "get"
    LIST = "list"
    MULTIPART = "multipart"
    ABORT = "abort"
    MISSING_KEY = "missing-key"
    COPY = "copy"
    DELETE = "delete"
    LIST_PARTS = "list-parts"
    LIST_UPLOADS = "list-uploads"
    LOCATION = "location"
    PUT_BUCKET_POLICY = "put-bucket-policy"
    CREATE_BUCKET = "create-bucket"
    OTHER_BUCKET = "other-bucket"


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operation is written in an IAM policy: its actions, and whether they are on the bucket or its objects.

    No actions: nothing grants it, not even the guide's `s3:*` on the one bucket.
    """

    on: Literal["bucket", "object", "elsewhere"]
    actions: tuple[str, ...]


RULES: MappingProxyType[Operation, Rule] = MappingProxyType(
    {
        Operation.PUT: Rule("object", ("s3:PutObject",)),
        Operation.HEAD: Rule("object", ("s3:GetObject",)),
        Operation.GET: Rule("object", ("s3:GetObject",)),
        Operation.LIST: Rule("bucket", ("s3:ListBucket",)),
        Operation.MULTIPART: Rule("object", ("s3:PutObject",)),
        Operation.ABORT: Rule("object", ("s3:AbortMultipartUpload",)),
        # Without ListBucket Amazon answers 403 for a missing key, which Synapse takes for a broken store.
        Operation.MISSING_KEY: Rule("bucket", ("s3:ListBucket",)),
        Operation.COPY: Rule("object", ("s3:GetObject", "s3:PutObject")),
        Operation.DELETE: Rule("object", ("s3:DeleteObject",)),
        Operation.LIST_PARTS: Rule("object", ("s3:ListMultipartUploadParts",)),
        Operation.LIST_UPLOADS: Rule("bucket", ("s3:ListBucketMultipartUploads",)),
        Operation.LOCATION: Rule("bucket", ("s3:GetBucketLocation",)),
        Operation.PUT_BUCKET_POLICY: Rule("bucket", ("s3:PutBucketPolicy",)),
        Operation.CREATE_BUCKET: Rule("elsewhere", ()),
        Operation.OTHER_BUCKET: Rule("elsewhere", ()),
    }
)


MEDIA_FOLDERS = ("local_content/", "remote_content/")
"""Folders of Synapse's media store in which the files lie, as both the module and a mounted bucket keep them:
https://github.com/element-hq/synapse/blob/develop/synapse/media/filepath.py"""


@dataclass(frozen=True, slots=True)
class Method:
    """One way for Synapse to keep its media.

    `storage_classes` are the ones the method's program accepts (None: any, () : it takes none);
    `needs` is empty for the method that uses no store; `keyless`: its program can sign by the machine's own role;
    `datastore_ids`: it keeps media under ids of its own, which the settings name (`media_repo`);
    `folders`: where its media lies in the bucket, after the prefix (empty: under names of its own);
    `virtual_hosts`: ends of the hosts before which its program puts the bucket's name (elsewhere it is in the path).
    """

    name: str
    title: str
    needs: frozenset[Operation]
    prefix: bool
    storage_classes: tuple[str, ...] | None
    limits: tuple[str, ...]
    keyless: bool = True
    datastore_ids: bool = False
    folders: tuple[str, ...] = ()
    virtual_hosts: tuple[str, ...] = ()

    @property
    def uses_store(self) -> bool:
        return bool(self.needs)

    def addressing(self, endpoint: str, bucket: str) -> Addressing:
        """How its program names the bucket in a URL: the proof has to do the same.

        The module (boto3, with an endpoint) and Goofys (without --subdomain) always put it in the path.
        """
        parts = urlsplit(endpoint)
        host = f".{parts.hostname or ''}"
        # A certificate for *.host is not for names with two more labels.
        fits = parts.scheme == "http" or "." not in bucket
        return "virtual" if fits and any(host.endswith(f".{end}") for end in self.virtual_hosts) else "path"


_MODULE_NEEDS = frozenset(
    {
        Operation.PUT,
        Operation.HEAD,
        Operation.GET,
        Operation.LIST,
        Operation.MULTIPART,
        Operation.ABORT,
        Operation.MISSING_KEY,
    }
)
# kahing/goofys at 350ff31, internal/backend_s3.go: a rename is CopyObject or UploadPartCopy, and each mount aborts what
# ListMultipartUploads shows of uploads older than two days. It calls neither ListParts nor GetBucketLocation.
_GOOFYS_NEEDS = _MODULE_NEEDS | {Operation.COPY, Operation.DELETE, Operation.LIST_UPLOADS}
# t2bot/matrix-media-repo at 84bcb70, datastores/: PutObject, GetObject, RemoveObject and, in a tool, ListObjects of
# minio-go 7.0.82, which asks for the bucket's location only where no region is given; the renderer always gives one.
_MEDIA_REPO_NEEDS = _MODULE_NEEDS | {Operation.DELETE}

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                name="synapse-s3-storage-provider",
                title="Synapse's own storage provider module (recommended)",
                needs=_MODULE_NEEDS,
                prefix=True,
                # The module asserts these: s3_storage_provider.py, parse_config, 1.7.0.
                storage_classes=("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "INTELLIGENT_TIERING"),
                limits=(
                    "never deletes: media that is purged or redacted stays in the bucket",
                    "url_cache is never stored",
                    "local copies stay until somebody removes them",
                ),
                folders=MEDIA_FOLDERS,
            ),
            Method(
                name="goofys",
                title="Goofys, a FUSE mount of the bucket",
                needs=_GOOFYS_NEEDS,
                prefix=False,
                # Fixed by the form: with an endpoint Goofys writes STANDARD.
                storage_classes=("STANDARD",),
                limits=(
                    "Goofys has had no release since 2020",
                    "must never share a bucket with the storage provider module: its clean-up would delete the objects",
                ),
                folders=MEDIA_FOLDERS,
            ),
            Method(
                name="matrix-media-repo",
                title="matrix-media-repo's s3 datastore",
                needs=_MEDIA_REPO_NEEDS,
                prefix=False,
                storage_classes=None,
                limits=("replaces Synapse's media repository: routes change", "a datastore id can never be changed"),
                keyless=False,
                datastore_ids=True,
                # minio-go 7.0.91, pkg/s3utils/utils.go: IsVirtualHostSupported.
                virtual_hosts=("amazonaws.com", "amazonaws.com.cn", "storage.googleapis.com", "aliyuncs.com"),
            ),
            Method(
                name="filesystem",
                title="the local filesystem, Synapse's default",
                needs=frozenset(),
                prefix=False,
                storage_classes=None,
                limits=("the media fills the server's own disk",),
            ),
        )
    }
)

MODULE, GOOFYS, MEDIA_REPO, FILESYSTEM = METHODS
"""The methods' names, in the order of the table."""

NEVER: frozenset[Operation] = frozenset({Operation.PUT_BUCKET_POLICY, Operation.CREATE_BUCKET, Operation.OTHER_BUCKET})
"""What no method needs; refused under `access: least`."""


def granted(method: Method, access: Access) -> frozenset[Operation]:
    """The operations a key of this method is given. `full` is the guide's `s3:*` on the one bucket."""
    if access == "least":
        return method.needs
    return frozenset(operation for operation, rule in RULES.items() if rule.actions)


class Expected(StrEnum):
    """What the proof expects of an operation."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    CANNOT_REFUSE = "can't be refused here"


NOT_TESTED = "not tested"
"""The outcome of an operation that the proof could not try; every other outcome is one of Expected."""


def expectations(
    method: Method, access: Access, cannot_refuse: Iterable[str] = (), *, bucket_policies: bool = True
) -> dict[Operation, Expected]:
    """Expectation = method x access x what the provider can refuse: what the proof and `prove` ask a key, both.

    Args:
        cannot_refuse: operation names from the catalog that the provider's keys can't be denied.
        bucket_policies: the store has bucket policies, as far as is known; where it has none, nothing can be done with
            the leave to write one, and it is not asked.
    """
    given = granted(method, access)
    open_anyway = frozenset(cannot_refuse)
    table: dict[Operation, Expected] = {}
    for operation in Operation:
        if operation in given:
            if operation is not Operation.PUT_BUCKET_POLICY or bucket_policies:
                table[operation] = Expected.ALLOWED
        elif operation in open_anyway:
            table[operation] = Expected.CANNOT_REFUSE
        elif operation in NEVER or operation is Operation.DELETE:
            table[operation] = Expected.REFUSED
        # The rest (copy, list-parts …) is harmless and often can't be split from what is granted: not asked.
    return table
