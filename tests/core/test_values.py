"""What is said of a value is what its reader does: botocore's own checks, and the module's `parse_config`."""

from __future__ import annotations

import re

import botocore.handlers
import botocore.utils
import pytest
from botocore.exceptions import InvalidRegionError

from synapse_media import values
from synapse_media.methods import MODULE

HOSTS = (
    *("https://s3.example.net", "http://minio:9000", "http://matrix_minio:9000", "https://-a.example", "https://a-"),
    *("https://a..b", "https://s3.example.net.", "http://127.0.0.1:9000", "https://xn--bcher-kva.example"),
    *("https://s3.exämple.net", "https://a@b.example", "https://" + "a" * 64 + ".example", "https://a b.example"),
)
REGIONS = (
    "eu-central-1",
    "garage",
    "None",
    "123",
    "eu_central_1",
    "-a",
    "a-",
    "us east 1",
    "a" * 64,
    "EU",
    "us-east-1 ",
)
BUCKETS = ("acme", "acme/x", "s3://acme", "Acme", "a_b", "a b", "a" * 63, "arn:aws:s3:::acme", "a.b", "ä")
REFUSED = {"bucket-name", "endpoint-host", "endpoint-without-scheme", "region-form", "stray-character"}


def is_refused(field: str, text: str) -> bool:
    fault = values.judge(field, text, MODULE)
    return fault is not None and fault.rule in REFUSED


@pytest.mark.parametrize("text", HOSTS)
def test_hosts_as_botocore_takes_them(text: str) -> None:
    assert is_refused("endpoint", text) == (not botocore.utils.is_valid_endpoint_url(text))


@pytest.mark.parametrize("text", REGIONS)
def test_regions_as_botocore_takes_them(text: str) -> None:
    try:
        botocore.utils.validate_region_name(text)
        refused = False
    except InvalidRegionError:
        refused = True
    assert is_refused("region", text) == refused


@pytest.mark.parametrize("text", BUCKETS)
def test_buckets_as_botocore_takes_them(text: str) -> None:
    allowed = botocore.handlers.VALID_BUCKET
    assert is_refused("bucket", text) == (re.fullmatch(getattr(allowed, "pattern", allowed), text) is None)


@pytest.mark.parametrize(
    ("module", "homeserver", "rule"),
    [
        ("1.7.0", "1.140.0", ""),
        ("1.7.0", "1.163.0rc1", ""),
        ("1.7.0", None, ""),
        (None, "1.100.0", ""),
        ("1.7.0", "1.139.2", "version-pair"),
        ("1.6.0", "1.139.2", "version-pair"),
        ("1.6.1", "1.163.0", "module-old"),
        ("1.5.0", "1.140.0", "version-pair"),
        ("1.5.0", "1.139.0", "module-old"),
        ("1.4.0", None, "module-old"),
    ],
)
def test_pairs_of_releases(module: str | None, homeserver: str | None, rule: str) -> None:
    fault = values.pair(values.version(module or ""), values.version(homeserver or ""))
    assert (fault.rule if fault else "") == rule


def test_what_is_no_version() -> None:
    assert [values.version(text) for text in ("latest", "develop", "", "1", "sha256:abc")] == [None] * 5
    assert values.version("v1.140.0") == (1, 140, 0)
