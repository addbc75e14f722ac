"""What must hold of every judgement, over thousands of pairs (applied, wanted) and of what `allow` may name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from synapse_media import catalog, settings, stackfile
from synapse_media.allow import Word
from synapse_media.cli.commandline import parser
from synapse_media.guards import changes
from synapse_media.guards.applied import Applied, Bucket, Place, Ring
from synapse_media.guards.judge import Verdict, judge
from synapse_media.settings import Keys, StoreSettings
from tests.providers.project import ROOT

many = trials(
    max_examples=int(os.environ.get("EXAMPLES", "200")), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
SERVERS = ("a.example.com", "b.example.com", "c.example.com")
EXAMPLES = sorted(path.stem.removeprefix("Pulumi.") for path in (ROOT / "stacks").glob("Pulumi.*-*.yaml"))
TOLD = {"backblaze_b2": "https://s3.eu-central-003.backblazeb2.com", "storj": "https://gateway.storjshare.io"}
"""Where the account or the key says that the store is."""


@cache
def example(name: str) -> StoreSettings:
    (store,) = stackfile.read(ROOT, name).stores.values()
    return store


@st.composite
def stores(draw: st.DrawFn, names: Iterable[str] = SERVERS) -> dict[str, StoreSettings]:
    """Stores that a stack file may have, at few places and of few users, so that they meet."""
    found: dict[str, StoreSettings] = {}
    for name in names:
        if not draw(st.booleans()):
            continue
        base = example(draw(st.sampled_from(EXAMPLES)))
        method = draw(st.sampled_from(["synapse-s3-storage-provider", "goofys", "matrix-media-repo", "filesystem"]))
        number = draw(st.integers(0, 3))
        if method == "filesystem":
            found[name] = StoreSettings(name, "", "", method)
            continue
        moved = base.provider in ("s3_compatible", "garage") and draw(st.booleans())
        found[name] = replace(
            base,
            server_name=name,
            method=method,
            bucket=f"bucket-{number}",
            user=draw(st.sampled_from([f"synapse-media-bucket-{number}", "user-0", "user-1"])),
            endpoint="https://other.example.com" if moved else base.endpoint,
            prefix=draw(st.sampled_from(["", "media/"])) if settings.METHODS[method].prefix else "",
            media_repo={"s3_datastore_id": f"id-{draw(st.integers(0, 1))}"} if method == "matrix-media-repo" else {},
            keys=draw(st.sampled_from([Keys("a"), Keys("b"), Keys("a", ("b",)), Keys("b", ("a",))])),
            renamed_from=draw(st.sampled_from(["", "", *(other for other in SERVERS if other != name)])),
            adopt=draw(st.booleans()),
        )
    problems: list[settings.Problem] = []
    settings._check_together(list(found.items()), problems)
    for problem in problems:
        found.pop(problem.setting.rpartition(".")[0], None)
    return found


def as_applied(store: StoreSettings) -> Applied:
    """The record of a store that `up` made as it is wanted."""
    provider = store.provider
    endpoint = TOLD.get(provider, store.endpoint)
    region = store.region or "eu-central-003"
    connection = {
        "endpoint": endpoint,
        "iamEndpoint": store.iam_endpoint,
        "variables": list(catalog.load(provider).admin_variables),
        "adminEndpoint": store.options.get("admin_endpoint", ""),
    }
    urn = f"urn:pulumi:s::synapse-media::synapse-media:store:X$s3store:index:Bucket::{store.server_name}"
    keys = {slot: f"KEY-{store.server_name}-{slot}" for slot in store.keys.slots}
    return Applied(
        store.server_name,
        place=Place(
            provider, endpoint, region, store.bucket, store.prefix, store.media_repo.get("s3_datastore_id", "")
        ),
        outputs={"access_key_id": keys[store.keys.active]},
        method=store.method,
        buckets=(Bucket(urn, "s3store:index:Bucket", {"bucket": store.bucket, "connection": connection}),),
        ring=Ring(urn.replace("Bucket", "KeyRing"), store.user, keys, store.keys.active, connection),
        user=store.user,
        iam_endpoint=store.iam_endpoint,
        policies=True,
        connection=connection,
    )


def all_applied(found: Mapping[str, StoreSettings]) -> dict[str, Applied]:
    return {name: as_applied(store) for name, store in found.items() if store.uses_store}


@st.composite
def half_made(draw: st.DrawFn, found: Mapping[str, StoreSettings]) -> dict[str, Applied]:
    """The records, each perhaps of a run that was cut off."""
    records = {}
    for name, record in all_applied(found).items():
        lost: dict[str, Any] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "place": st.none(),
                    "buckets": st.just(()),
                    "ring": st.sampled_from([None, replace(record.ring, keys={}, active="") if record.ring else None]),
                    "policies": st.just(False),
                    "user": st.just(""),
                    "outputs": st.just({}),
                    "method": st.just(""),
                    "iam_endpoint": st.just(""),
                },
            )
        )
        records[name] = replace(record, **lost)
    return records


ALLOW = st.sets(st.tuples(st.sampled_from(SERVERS), st.sampled_from(tuple(Word))).map("/".join))


def words(verdict: Verdict, store: str) -> set[str]:
    return {danger.word for change in verdict.changes if change.store == store for danger in change.dangers}


def names(verdict: Verdict, store: str) -> bool:
    """Whether a store is among what no word lets through."""
    return any(f"stores.{store}." in refused for refused in verdict.refused)


@many
@given(stores(), ALLOW)
def test_what_stays_as_it_is_has_no_danger(wanted: dict[str, StoreSettings], allow: set[str]) -> None:
    wanted = {name: replace(store, renamed_from="") for name, store in wanted.items()}
    assert judge(all_applied(wanted), wanted, allow) == Verdict()


@many
@given(st.data(), stores(), stores(), ALLOW)
def test_whatever_is_there_gets_a_verdict(
    data: st.DataObject, was: dict[str, StoreSettings], wanted: dict[str, StoreSettings], allow: set[str]
) -> None:
    verdict = judge(data.draw(half_made(was)), wanted, allow)
    assert all(danger.word in Word for change in verdict.changes for danger in change.dangers)
    assert all(change.dangers for change in verdict.changes)


def _place(store: StoreSettings) -> tuple[object, ...]:
    provider = catalog.load(store.provider)
    endpoint = TOLD.get(store.provider, store.endpoint)
    return provider.component, endpoint, store.bucket, store.prefix


@many
@given(stores(), stores(), ALLOW)
def test_another_place_is_a_danger_or_refused(
    was: dict[str, StoreSettings], wanted: dict[str, StoreSettings], allow: set[str]
) -> None:
    verdict = judge(all_applied(was), wanted, allow)
    for name, before in was.items():
        now = wanted.get(name)
        if before.uses_store and now and now.uses_store and _place(before) != _place(now):
            assert words(verdict, name) & {"replace-bucket", "move-media"} or names(verdict, name)


@pytest.mark.parametrize("before", ["synapse-s3-storage-provider", "goofys", "matrix-media-repo"])
@pytest.mark.parametrize("after", ["synapse-s3-storage-provider", "goofys", "matrix-media-repo"])
def test_matrix_media_repo_and_the_others_do_not_find_each_others_media(before: str, after: str) -> None:
    def store(method: str, datastore_id: str) -> StoreSettings:
        ids = {"s3_datastore_id": datastore_id} if settings.METHODS[method].datastore_ids else {}
        return replace(example("s3-compatible"), method=method, access="full", media_repo=ids, prefix="")

    was, will = store(before, "s3one"), store(after, "s3one")
    verdict = judge({was.server_name: as_applied(was)}, {will.server_name: will}, ())
    same_layout = (before == "matrix-media-repo") == (after == "matrix-media-repo")
    assert words(verdict, will.server_name) == (set() if same_layout else {"move-media"})


@many
@given(stores(), stores(), ALLOW)
def test_a_key_that_is_left_behind_is_named(
    was: dict[str, StoreSettings], wanted: dict[str, StoreSettings], allow: set[str]
) -> None:
    verdict = judge(all_applied(was), wanted, allow)
    for name, before in was.items():
        now = wanted.get(name)
        if not (before.uses_store and now and now.uses_store):
            continue
        moved = _place(before)[:2] != _place(now)[:2] or before.iam_endpoint != now.iam_endpoint
        if moved or (before.iam_endpoint and before.user != now.user):
            assert "retire-key" in words(verdict, name)


@many
@given(stores(), stores(), ALLOW)
def test_a_store_leaves_only_by_the_words_for_all_that_goes(
    was: dict[str, StoreSettings], wanted: dict[str, StoreSettings], allow: set[str]
) -> None:
    verdict = judge(all_applied(was), wanted, allow)
    # What was on the local disk is no store yet: its name may be another's new one.
    there = {name for name, before in was.items() if before.uses_store}
    taken_over = {store.renamed_from for name, store in wanted.items() if name not in there}
    for name, before in was.items():
        if before.uses_store and not (name in wanted and wanted[name].uses_store) and name not in taken_over:
            fate = "retain-bucket" if f"{name}/retain-bucket" in allow else "delete-bucket"
            assert words(verdict, name) == {fate, "retire-key", "narrow-policy"}


@many
@given(st.data(), stores(), stores(), ALLOW)
def test_a_word_is_one_stores(
    data: st.DataObject, was: dict[str, StoreSettings], wanted: dict[str, StoreSettings], allow: set[str]
) -> None:
    applied = data.draw(half_made(was))
    together = judge(applied, wanted, allow)
    for name in SERVERS:
        own = {entry for entry in allow if entry.startswith(f"{name}/")}
        alone = judge(applied, wanted, own)
        assert words(together, name) == words(alone, name)
        others = [change for change in together.changes if change.store == name]
        assert len(changes.refused(others, allow - own)) == sum(len(change.dangers) for change in others)


@many
@given(stores(), stores(), ALLOW)
def test_what_was_one_stores_is_not_anothers(
    was: dict[str, StoreSettings], wanted: dict[str, StoreSettings], allow: set[str]
) -> None:
    """Its bucket and its user, in whatever order two stores would change them."""
    verdict = judge(all_applied(was), wanted, allow)
    for name, now in wanted.items():
        for other, before in was.items():
            mine = name == other or (now.renamed_from == other and name not in was)
            if mine or not (now.uses_store and before.uses_store):
                continue
            if _place(now)[:3] == _place(before)[:3]:
                assert names(verdict, name), "its bucket"
            if now.iam_endpoint and (now.iam_endpoint, now.user) == (before.iam_endpoint, before.user):
                assert names(verdict, name), "its user"


@many
@given(stores(), ALLOW)
def test_another_name_alone_is_no_danger_where_it_is_said(was: dict[str, StoreSettings], allow: set[str]) -> None:
    was = {name: replace(store, renamed_from="") for name, store in was.items()}
    wanted = {
        f"new-{name}": replace(store, server_name=f"new-{name}", renamed_from=name) for name, store in was.items()
    }
    assert judge(all_applied(was), wanted, allow) == Verdict()
    unsaid = {name: replace(store, renamed_from="") for name, store in wanted.items()}
    verdict = judge(all_applied(was), unsaid, allow)
    for name, store in was.items():
        if store.uses_store:
            assert names(verdict, f"new-{name}")
            assert words(verdict, name)


@many
@given(stores(), ALLOW)
def test_a_key_that_is_being_retired_is_not_made_active_again(was: dict[str, StoreSettings], allow: set[str]) -> None:
    was = {name: replace(store, renamed_from="") for name, store in was.items()}
    for name, store in was.items():
        if not store.uses_store or not store.keys.retiring:
            continue
        (old,) = store.keys.retiring
        for keys in (Keys(old), Keys(old, (store.keys.active,))):
            wanted = {**was, name: replace(store, keys=keys)}
            verdict = judge(all_applied(was), wanted, allow)
            assert names(verdict, name)
            commands = (line for told in verdict.refused for line in re.findall(r"`synapse-media ([^`]*)`", told))
            for command in commands:
                assert parser().parse_args(command.split()).stack == ["s"]
                assert " --server " in command


def test_a_move_that_was_cut_off_and_taken_back_does_not_lose_what_it_keeps() -> None:
    store = example("s3-compatible")
    was = as_applied(store)
    (kept,) = was.buckets
    begun = replace(kept, values={**kept.values, "bucket": "begun"})
    (change,) = judge({was.server_name: replace(was, buckets=(kept, begun))}, {store.server_name: store}, ()).changes
    assert {danger.word for danger in change.dangers} == {"replace-bucket", "delete-bucket"}
    (why,) = (danger.why for danger in change.dangers if danger.word == "replace-bucket")
    assert f"goes back to {store.bucket}, where Synapse's media is" in why
    assert f"the media in {store.bucket}" not in why
