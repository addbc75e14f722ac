"""Sizes, rates and counts: read strictly, or refused with a clear word."""

from __future__ import annotations

from decimal import Decimal

import pytest

from synapse_media.cost import units
from synapse_media.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("400GB", 400 * 10**9),
        ("400 GB", 400 * 10**9),
        ("400GiB", 400 * 2**30),
        ("1.5TiB", 3 * 2**39),
        ("0.1TB", 10**11),
        ("15kB", 15_000),
        ("15KiB", 15 * 1024),
        ("0B", 0),
        ("1PB", 10**15),
        (" 7 MiB ", 7 * 2**20),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert units.size(text, "--stored") == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "Write it that way"),
        ("GB", "Write it that way"),
        ("400", "400GB or 400GiB"),
        ("-5GB", "negative"),
        ("−5GB", "negative"),
        ("400gb", "400GB .* or 400GiB"),
        ("400GIB", "Did you mean 400GiB"),
        ("400gib", "Did you mean 400GiB"),
        ("400Gb", "bits"),
        ("400Gbit", "bits"),
        ("400G", "400GB .* or 400GiB"),
        ("400Gi", "400GB .* or 400GiB"),
        ("15KB", "15kB .* or 15KiB"),
        ("15K", "15kB .* or 15KiB"),
        ("400GB 20GiB", "Give one number"),
        ("400GBGiB", "no unit 'GBGiB'"),
        ("1,5TB", "decimal point"),
        ("1e3GB", "one unit"),
        ("nanGB", "one unit"),
        ("0x10GB", "one unit"),
        ("400GB/month", "an amount, not a rate"),
        ("1001PB", "at most 1000 PB"),
        ("0.5B", "at least one byte"),
        ("9" * 400 + "GB", "at most 1000 PB"),
        ("400 files", "no unit 'files'"),
        ("٤٠٠GB", "Write it that way"),
    ],
)
def test_sizes_refused(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        units.size(text, "--stored")
    assert str(caught.value).startswith("--stored ")
    assert caught.value.exit_code == 64


def test_rates_are_of_an_average_month() -> None:
    assert units.rate("10GB/month", "--growth") == 10 * 10**9
    # A year of 365 days has 12 months.
    assert units.rate("12GB/year", "--growth") == 10**9
    assert units.rate("12GB/day", "--growth") == 365 * 10**9
    assert round(units.rate("84GB/week", "--growth")) == 365 * 10**9
    assert units.rate("10 GiB / month", "--growth") == 10 * 2**30


@pytest.mark.parametrize(
    "text", ["10GB", "10GB/fortnight", "10GB/Month", "/month", "10/month", "10GB/month/day", "-1GB/day"]
)
def test_rates_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--growth"):
        units.rate(text, "--growth")


def test_counts() -> None:
    assert units.count("900k", "--files") == 900_000
    assert units.count("1.2M", "--files") == 1_200_000
    assert units.count("17", "--files") == 17
    assert units.count_rate("365k/year", "--uploads") == Decimal(365_000) / 12


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("900kB", "no unit of size"),
        ("1.5", "can't have a fraction"),
        ("-3", "negative"),
        ("2000000M", "at most"),
        ("1e6", "whole number"),
        ("", "whole number"),
    ],
)
def test_counts_refused(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        units.count(text, "--files")


def test_rates_are_limited_by_the_month() -> None:
    with pytest.raises(UsageError, match="at most 1000 PB a month"):
        units.rate("1000PB/day", "--growth")
    assert units.rate("1000PB/month", "--growth") == 10**18
    with pytest.raises(UsageError, match="at most 1000000M a month"):
        units.count_rate("1000000M/day", "--uploads")


def test_places() -> None:
    assert units.place("52.5,13.4", "--near") == (52.5, 13.4)
    assert units.place("-33.9, 151.2", "--near") == (-33.9, 151.2)


@pytest.mark.parametrize(
    "text", ["", "52.5", "52.5;13.4", "52,5,13,4", "91,0", "0,181", "north,east", "1e1,2", "nan,nan"]
)
def test_places_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--near"):
        units.place(text, "--near")


def test_days() -> None:
    assert units.days("30", "--deleted-age") == 30
    for text in ("-1", "1.5", "9999", "30d", ""):
        with pytest.raises(UsageError, match="--deleted-age"):
            units.days(text, "--deleted-age")


def test_shown_for_people() -> None:
    assert units.show_size(444_444) == "444.4 kB"
    assert units.show_size(400 * 10**9) == "400 GB"
    assert units.show_size(0) == "0 B"
    assert units.show_size(Decimal(10) ** 18) == "1000 PB"
    assert units.show_size(2**40) == "1.1 TB"
    assert units.show_count(900_000) == "900,000"
    assert units.show_count(Decimal("0.25")) == "0.2"
