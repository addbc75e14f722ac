"""Parse sizes, rates and counts strictly: GB is 10^9 bytes, GiB 2^30, and nothing is guessed."""

from __future__ import annotations

import re
from decimal import Decimal

from synapse_media.errors import UsageError

UNITS: dict[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}
"""Bytes of each unit."""

PERIODS: dict[str, Decimal] = {
    "day": Decimal(365) / 12,
    "week": Decimal(365) / 7 / 12,
    "month": Decimal(1),
    "year": Decimal(1) / 12,
}
"""{period: how many there are in a month, with 365 days to the year}."""

MAX_BYTES = 10**18
MAX_FILES = 10**12

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kM]?)")
_UNIT_LIST = "B, kB, MB, GB, TB, PB (powers of 1000) or KiB, MiB, GiB, TiB, PiB (powers of 1024)"


def _fault(option: str, text: str, allowed: str, next_step: str) -> UsageError:
    return UsageError(f"{option} {text!r}: allowed is {allowed}. {next_step}")


def size(text: str, option: str) -> Decimal:
    """Bytes of a size such as `400GB` or `1.5 TiB`. Raises UsageError naming `option`."""
    stripped = text.strip()
    allowed = f"a number with one unit, such as 400GB: {_UNIT_LIST}"
    if stripped.startswith(("-", "−")):
        raise _fault(option, text, allowed, "A size can't be negative.")
    found = _SIZE.fullmatch(stripped)
    if found is None:
        if "/" in stripped:
            raise _fault(option, text, allowed, "This is an amount, not a rate: remove what follows the '/'.")
        if "," in stripped:
            raise _fault(option, text, allowed, "Use a decimal point and no thousands separator.")
        if len(re.findall(r"[A-Za-z]+", stripped)) > 1:
            raise _fault(option, text, allowed, "Give one number with one unit.")
        if re.fullmatch(r"[0-9.]+", stripped):
            raise _fault(option, text, allowed, f"Add the unit: {stripped}GB or {stripped}GiB?")
        raise _fault(option, text, allowed, "Write it that way.")
    number, unit = found.groups()
    if unit not in UNITS:
        raise _fault(option, text, allowed, _unit_guess(number, unit))
    value = Decimal(number) * UNITS[unit]
    if 0 < value < 1:
        raise _fault(option, text, allowed, "It must be at least one byte.")
    if value > MAX_BYTES:
        raise _fault(option, text, "at most 1000 PB", "Check the unit.")
    return value


def _unit_guess(number: str, unit: str) -> str:
    if unit in ("Gb", "Mb", "Tb", "kb", "Kb", "Gbit", "Mbit", "Tbit", "kbit"):
        return "A small b means bits; bytes have a capital B."
    first = unit[0].upper()
    if first in "KMGTP" and unit.lower() in (first.lower(), f"{first.lower()}b", f"{first.lower()}i"):
        thousand = "kB" if first == "K" else f"{first}B"
        return f"Which one: {number}{thousand} (powers of 1000) or {number}{first}iB (powers of 1024)?"
    near = {name.lower(): name for name in UNITS}.get(unit.lower())
    return f"Did you mean {number}{near}?" if near else f"There is no unit {unit!r}."


def rate(text: str, option: str) -> Decimal:
    """Bytes a month of a rate such as `10GB/month`. Raises UsageError naming `option`."""
    amount, period = _split_rate(text, option, "10GB/month")
    value = size(amount, option) * PERIODS[period]
    if value > MAX_BYTES:
        raise _fault(option, text, "at most 1000 PB a month", "Check unit and period.")
    return value


def count(text: str, option: str) -> int:
    """A number of files such as `900k`. Raises UsageError naming `option`."""
    found = _COUNT.fullmatch(text.strip())
    allowed = "a whole number, such as 900000 or 900k or 1.2M"
    if text.strip().startswith(("-", "−")):
        raise _fault(option, text, allowed, "A number of files can't be negative.")
    if found is None:
        raise _fault(option, text, allowed, "k is a thousand, M a million; it takes no unit of size.")
    value = Decimal(found[1]) * {"": 1, "k": 10**3, "M": 10**6}[found[2]]
    if value != value.to_integral_value():
        raise _fault(option, text, allowed, "A number of files can't have a fraction.")
    if value > MAX_FILES:
        raise _fault(option, text, "at most 1000000M", "Check the number.")
    return int(value)


def count_rate(text: str, option: str) -> Decimal:
    """Requests a month of a rate such as `100k/month`. Raises UsageError naming `option`."""
    amount, period = _split_rate(text, option, "100k/month")
    value = count(amount, option) * PERIODS[period]
    if value > MAX_FILES:
        raise _fault(option, text, "at most 1000000M a month", "Check the number.")
    return value


def _split_rate(text: str, option: str, example: str) -> tuple[str, str]:
    amount, slash, period = text.partition("/")
    period = period.strip()
    if not slash or period not in PERIODS:
        near = f"Write {amount.strip()}/month?" if not slash else f"{period!r} is not a period."
        raise _fault(option, text, f"an amount a {', a '.join(PERIODS)}, such as {example}", near)
    return amount, period


def days(text: str, option: str) -> int:
    """A whole number of days from 0 to 3650. Raises UsageError naming `option`."""
    if not re.fullmatch(r"[0-9]{1,4}", text.strip()) or int(text) > 3650:
        raise _fault(option, text, "a whole number of days from 0 to 3650", "Omit the unit.")
    return int(text)


def place(text: str, option: str) -> tuple[float, float]:
    """Latitude and longitude in degrees of `52.5,13.4`. Raises UsageError naming `option`."""
    parts = text.split(",")
    allowed = "LATITUDE,LONGITUDE in degrees, such as 52.5,13.4"
    if len(parts) != 2 or not all(re.fullmatch(r" ?[+-]?[0-9]{1,3}(\.[0-9]+)? ?", part) for part in parts):
        raise _fault(option, text, allowed, "Use decimal points, and one comma between the two.")
    latitude, longitude = float(parts[0]), float(parts[1])
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise _fault(option, text, allowed, "Latitude goes from -90 to 90, longitude from -180 to 180.")
    return latitude, longitude


def show_size(value: Decimal | int) -> str:
    """A size for display, in powers of 1000: `444.4 kB`."""
    left = Decimal(value)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if left < 1000 or unit == "PB":
            break
        left /= 1000
    return f"{_short(left)} {unit}"


def show_count(value: Decimal | int) -> str:
    """A count for display: `900,000`, with one decimal below ten."""
    number = Decimal(value)
    if number < 10 and number != number.to_integral_value():
        return f"{number:.1f}"
    return f"{number.to_integral_value():,}"


def _short(value: Decimal) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0")
