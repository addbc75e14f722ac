"""Bucket names: those that every provider accepts, and none that one of them reads differently."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synapse_media import catalog

PROVIDERS = st.sampled_from(catalog.names()).map(catalog.load)
RESERVED = ("b2-", "xn--", "sthree-", "amzn-s3-demo-")
ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


@given(
    provider=PROVIDERS,
    name=st.text(alphabet=string.ascii_lowercase + string.digits + "-.A_\n é", max_size=70) | st.text(max_size=70),
)
@example(provider=catalog.load("s3_compatible"), name="media\n")
def test_an_accepted_name_is_accepted_everywhere(provider: catalog.Provider, name: str) -> None:
    limits = provider.value("bucket_name")
    plain = re.fullmatch(r"[a-z0-9][a-z0-9-]*[a-z0-9]", name) is not None
    free = not name.startswith(RESERVED) and not name.endswith(ENDS)
    fits = limits["min"] <= len(name) <= limits["max"]
    assert (catalog.bucket_name_fault(name, provider) is None) == (plain and free and fits)


@given(provider=PROVIDERS, name=st.from_regex(r"[a-z0-9][a-z0-9-]{4,40}[a-z0-9]", fullmatch=True))
def test_a_reserved_start_or_end_is_named(provider: catalog.Provider, name: str) -> None:
    for start in RESERVED:
        fault = catalog.bucket_name_fault(start + name, provider)
        assert fault is not None
        assert repr(start) in fault.words
    for end in ("-s3alias", "--ol-s3", "--x-s3", "--table-s3"):
        fault = catalog.bucket_name_fault(name + end, provider)
        assert fault is not None
        assert repr(end) in fault.words or fault.rule is catalog.NameRule.RESERVED


@pytest.mark.parametrize("name", catalog.names())
def test_every_provider_says_how_long_a_name_may_be(name: str) -> None:
    limits = catalog.load(name).value("bucket_name")
    assert 3 <= limits["min"] <= limits["max"] <= 63


def test_an_unknown_provider_is_answered_with_the_nearest() -> None:
    with pytest.raises(catalog.UnknownProviderError, match="Did you mean 'wasabi'"):
        catalog.load("wasaby")


def test_an_endpoint_needs_a_region_only_where_it_has_one() -> None:
    assert catalog.load("amazon_s3").endpoint("") == ""
    assert catalog.load("amazon_s3").iam_endpoint("") == "https://iam.amazonaws.com"
    assert catalog.load("wasabi").endpoint("eu-central-1") == "https://s3.eu-central-1.wasabisys.com"
