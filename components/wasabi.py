"""Wasabi: its S3 API per region, its one IAM endpoint for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from .args import IamStoreArgs
from .s3_iam import S3IamStore


@dataclass(frozen=True, kw_only=True)
class WasabiArgs(IamStoreArgs):
    """A store at Wasabi. `region` is needed."""


class Wasabi(S3IamStore[WasabiArgs]):
    """A versioned bucket with lifecycle rule and HTTPS-only policy; an IAM user with one inline policy and its keys.

    Tags on users are not among Wasabi's documented calls, so a user is ours by its path alone.
    https://docs.wasabi.com/docs/iam-and-sts-support
    """

    family = "wasabi"
