"""Access grants read and restricted by us, against what the vendor's library made of the same ones."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies

from synapse_media.plugin import storj_grant
from synapse_media.plugin.storj_grant import FIELDS, OBJECTS, PERMISSIONS, GrantError, parse
from tests.storj.vectors import FILE, GENERATOR, PARENTS, RESTRICTIONS, restricted

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize("name", RESTRICTIONS)
def test_restricted_as_the_library_does_it(name: str) -> None:
    vector = RESTRICTIONS[name]
    assert restricted(vector).serialize() == vector["child"]
    assert parse(vector["child"]) == restricted(vector)


@pytest.mark.parametrize("name", sorted(set(PARENTS) - {"no-node-id"}))
def test_comes_out_as_it_went_in(name: str) -> None:
    assert parse(PARENTS[name]).serialize() == PARENTS[name]


def test_no_permission_is_missing() -> None:
    """A permission that the vendor adds would be open in every grant of ours: this fails first."""
    theirs = FILE["fields"]
    assert {f"disallow_{name}": number for name, number in PERMISSIONS.items()} == {
        name: number for name, number in theirs.items() if name.startswith("disallow_")
    }
    assert frozenset(theirs.values()) == FIELDS


def test_the_vectors_are_of_the_pinned_library() -> None:
    pinned = dict(re.findall(r"^\s*(storj\.io/\w+) (v\S+)$", (GENERATOR / "go.mod").read_text(), re.MULTILINE))
    assert (FILE["uplink"], FILE["common"]) == (pinned["storj.io/uplink"], pinned["storj.io/common"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("full", ""),
        ("plain-names", ""),
        ("the-bucket", ""),
        ("ends", ""),
        ("another-bucket", "does not reach the whole bucket 'media' (it reaches other)"),
        ("a-prefix", "it reaches no bucket as a whole"),
        ("ended", "expired at 2020-01-01 00:00 UTC"),
        ("not-yet", "not valid before 2100-01-01"),
        ("read-only", "it forbids deletes, writes"),
        ("objects-expire", "media would be deleted by age"),
    ],
)
def test_what_a_parent_can_give(name: str, why: str) -> None:
    fault = parse(PARENTS[name]).fault("media", OBJECTS, NOW)
    assert why in fault if why else fault == ""


def test_a_parent_that_forbids_what_full_access_asks() -> None:
    assert "it forbids bypass_governance_retention" in parse(PARENTS["the-bucket"]).fault("media", PERMISSIONS, NOW)


def test_a_parent_that_ends_within_a_minute() -> None:
    grant = parse(PARENTS["full"]).restricted(["media"], OBJECTS, NOW + timedelta(seconds=59))
    assert "expires within a minute" in grant.fault("media", OBJECTS, NOW)
    assert grant.fault("media", OBJECTS, NOW - timedelta(seconds=1)) == ""


def test_a_restricted_grant_has_no_root_key() -> None:
    child = parse(PARENTS["full"]).restricted(["media"])
    assert not child.root_key
    assert child.buckets == {"media"}
    assert child.forbidden == frozenset(PERMISSIONS) - OBJECTS
    with pytest.raises(GrantError, match="no encryption key for the whole of other"):
        child.restricted(["other"])


def test_restricted_twice_is_restricted_by_both() -> None:
    ends = NOW + timedelta(days=400)
    first = parse(PARENTS["full"]).restricted(["media", "other"], OBJECTS, ends)
    child = first.restricted(["media"], ["reads", "lists"], ends + timedelta(days=1))
    assert (child.buckets, child.not_after) == ({"media"}, ends)
    assert {"writes", "deletes"} <= child.forbidden
    assert child.fault("other", ["reads"], NOW).startswith("it does not reach")


def test_two_restrictions_alike_are_two_grants() -> None:
    """So that one can be revoked without the other."""
    parent = parse(PARENTS["full"])
    assert parent.restricted(["media"]).tail != parent.restricted(["media"]).tail


def test_no_bucket_is_no_restriction() -> None:
    with pytest.raises(GrantError):
        parse(PARENTS["full"]).restricted([])


def test_a_restriction_that_is_not_known_is_seen() -> None:
    parent = parse(PARENTS["full"])
    assert parent.unknown_fields == frozenset()
    # Field 16, a bool: the number that comes next in the vendor's list.
    grown = replace(parent, caveats=(b"\x80\x01\x01",))
    assert parse(grown.serialize()).unknown_fields == {16}


def test_nothing_of_a_grant_is_shown() -> None:
    grant = parse(PARENTS["a-prefix-has-its-own-key"])
    shown = repr(grant)
    assert grant.root_key.hex() not in shown
    assert repr(grant.root_key)[2:-1] not in shown
    assert "tail" not in shown
    assert "key=" not in shown


WRONG = {
    "nothing": ("", "0 characters"),
    "a passphrase": ("correct horse battery staple and more of it", "not an access grant"),
    "an S3 access key": ("jwd2bmsn4qlxcqkw6fkkbgpxzs4q", "not an access grant"),
    "a name": ("main", "not an access grant"),
    "a piece": (PARENTS["full"][:-5], "checksum"),
    "a letter mistyped": (PARENTS["full"][:50] + "2" + PARENTS["full"][51:], "checksum"),
    "very much": ("1" * 20_000, "20000 characters"),
    "an API key": (storj_grant._base58(b"\x02\x02\x04head\0\0\x06\x20" + bytes(32)), "an API key without"),
    "other bytes": (storj_grant._base58(b"\x0a\x0fhello, world..."), "not an access grant, or a damaged one"),
    "a number that never ends": (storj_grant._base58(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "damaged"),
    "no node": (PARENTS["no-node-id"], "without a node ID"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_grant(name: str) -> None:
    text, why = WRONG[name]
    with pytest.raises(GrantError, match=why) as raised:
        parse(text)
    assert len(text) < 10 or text not in str(raised.value)


def test_a_short_key_is_damage() -> None:
    grant = replace(parse(PARENTS["full"]), root_key=b"short")
    with pytest.raises(GrantError, match="wrong length"):
        parse(grant.serialize())


def test_white_space_around_it_does_no_harm() -> None:
    assert parse(f"  {PARENTS['full']}\n") == parse(PARENTS["full"])


@given(strategies.binary(max_size=200))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    text = storj_grant._base58(payload)
    try:
        parse(text)
    except GrantError as error:
        assert len(text) < 20 or text not in str(error)  # noqa: PT017 - either is right


@given(strategies.integers(min_value=0, max_value=len(PARENTS["ends"]) - 1), strategies.sampled_from("1z9"))
def test_any_mistyped_letter_is_found(at: int, letter: str) -> None:
    text = PARENTS["ends"]
    mistyped = text[:at] + letter + text[at + 1 :]
    if mistyped != text:
        with pytest.raises(GrantError):
            parse(mistyped)
