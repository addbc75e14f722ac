"""How a store is reached: one type, for the plugin, the components and the commands."""

from __future__ import annotations

from dataclasses import dataclass

from .model import prop


@dataclass(frozen=True, slots=True)
class Connection:
    """The addresses of a store, and the names of the environment variables with the administrator's credential.

    No credential is in it: it is part of a resource's inputs, and so of the state.
    """

    endpoint: str = prop("URL of the S3 API, with scheme; empty where the account or the key says it.", default="")
    region: str = prop("The region that requests are signed for; empty: us-east-1.", default="")
    iam_endpoint: str = prop("URL of the IAM query API; empty where the store has none.", default="")
    admin_endpoint: str = prop("URL of Garage's admin API; empty elsewhere.", default="", sparse=True)
    api_endpoint: str = prop("URL of DigitalOcean's API; empty: the vendor's own.", default="", sparse=True)
    auth_endpoint: str = prop("URL of Storj's auth service; empty: the vendor's own.", default="", sparse=True)
    realm: str = prop(
        "Backblaze B2's `production`, or the URL of an API that speaks like it; empty: production.",
        default="",
        sparse=True,
    )
    addressing: str = prop("How a URL names the bucket.", default="path", choices=("path", "virtual", "auto"))
    checksums: str = prop(
        "When an S3 request carries a checksum beside its signature.",
        default="when_required",
        choices=("when_required", "when_supported"),
    )
    variables: tuple[str, ...] = prop(
        "Environment variables with the administrator's access key ID, secret access key and, where there is one, "
        "session token; where the provider has another kind of credential, its variables.",
        default=(),
    )
    ca_file: str = prop("PEM file to trust in place of the system's; empty: the system's.", default="")


@dataclass(frozen=True, slots=True)
class AdminCheck:
    """What `doctor` asks of an administrator's credential, before anything is made.

    Attributes:
        bucket: the store's bucket, which may not exist yet.
        access: the store's access: `least` or `full`.
        region: the region as the stack file has it; empty: none.
        endpoint: the endpoint, where it is not the one that follows from the region; empty: none.
    """

    connection: Connection
    bucket: str
    access: str
    region: str
    endpoint: str
