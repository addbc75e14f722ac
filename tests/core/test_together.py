"""Stores that one program declares one after the other: which of them exclude each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from synapse_media import settings
from synapse_media.errors import SettingsError
from synapse_media.settings import StoreSettings

NAMES = ("a.example.com", "b.example.com", "c.example.com", "d.example.com")
STORE = settings.check(
    NAMES[0],
    {
        "provider": "s3_compatible",
        "endpoint": "https://s3.example.com",
        "iam_endpoint": "https://iam.example.com",
        "bucket": "example-com-media",
        "method": "synapse-s3-storage-provider",
    },
    where="args",
)


@st.composite
def stores(draw: st.DrawFn) -> StoreSettings:
    """Of few names, places and users, so that they meet."""
    return replace(
        STORE,
        server_name=draw(st.sampled_from(NAMES)),
        provider=draw(st.sampled_from(["s3_compatible", "s3_compatible", "ceph_rgw", "wasabi"])),
        bucket=draw(st.sampled_from(["", *(f"bucket-{number}" for number in range(6))])),
        endpoint=draw(st.sampled_from(["", "https://s3.example.com", "https://other.example.com"])),
        iam_endpoint=draw(st.sampled_from(["", "https://iam.example.com"])),
        user=draw(st.sampled_from(["", *(f"user-{number}" for number in range(6))])),
        renamed_from=draw(st.sampled_from(["", "", "", *NAMES, "former.example.com"])),
        options=draw(st.sampled_from([{}, {}, {}, {"existing_key": True}])),
    )


@given(st.lists(stores(), max_size=12))
@trials(max_examples=500, deadline=None)
def test_a_store_is_judged_as_if_compared_with_all(declared: list[StoreSettings]) -> None:
    program = settings.Together()
    taken: list[tuple[str, StoreSettings]] = []
    for number, store in enumerate(declared):
        problems: list[settings.Problem] = []
        settings._check_together([*taken, (f"store {number}", store)], problems)
        said: list[settings.Problem] = []
        try:
            program.add(f"store {number}", store)
        except SettingsError as error:
            said += error.problems
        assert said == problems
        if not problems:
            taken.append((f"store {number}", store))


def test_a_store_is_compared_with_those_alone_that_share_something(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    judge = settings._check_together

    def counted(found: list[tuple[str, StoreSettings]], problems: list[settings.Problem]) -> None:
        compared.append(len(found))
        judge(found, problems)

    monkeypatch.setattr(settings, "_check_together", counted)
    program = settings.Together()
    for number in range(300):
        own = {"server_name": f"m{number}.example.com", "bucket": f"media-{number}", "user": f"user-{number}"}
        program.add(f"store {number}", replace(STORE, **own))
    assert compared == [1] * 300
    with pytest.raises(SettingsError, match="store 7 uses it already"):
        program.add("once more", replace(STORE, server_name="new.example.com", bucket="media-7"))
    assert compared[-1] == 2
