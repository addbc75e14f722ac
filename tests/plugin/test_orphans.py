"""The key ring's journal: no access key is left unrecorded, and none created by hand is deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin import iam
from synapse_media.plugin.iam import JOURNAL, POLICY_NAME, KeyRing, forget_journal
from synapse_media.plugin.resource import Context, PartialError, Values
from synapse_media.store import pace
from tests.doubles import proxy
from tests.plugin.direct import Direct, allow

RING = KeyRing()
OPEN = f"{JOURNAL}open-"


@pytest.fixture
def owner(direct: Direct) -> Direct:
    """A user of ours."""
    direct.iam.create_user(UserName=direct.name, Path="/synapse-media/tests/")
    direct.policy(allow("s3:ListAllMyBuckets"), name=POLICY_NAME)
    return direct


def ring(direct: Direct, *slots: str, url: str = "", **changes: Any) -> Values:
    where = direct.connection(**({"iamEndpoint": url} if url else {}))
    inputs, failures = RING.check(
        {"userName": direct.name, "active": slots[-1], "slots": list(slots), "connection": where, **changes}
    )
    assert not failures
    return inputs


def journal(direct: Direct) -> set[str]:
    names = direct.iam.list_user_policies(UserName=direct.name)["PolicyNames"]
    return {name for name in names if name.startswith(JOURNAL)}


def by_hand(direct: Direct) -> str:
    made: str = direct.iam.create_access_key(UserName=direct.name)["AccessKey"]["AccessKeyId"]
    return made


def is_making(request: proxy.Request) -> bool:
    return request.action == "CreateAccessKey"


@contextmanager
def ahead(direct: Direct, by: timedelta) -> Iterator[proxy.Proxy]:
    """IAM behind a proxy that dates the answers, with a clock ahead of the one that dates the keys."""

    def dated(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        assert answer is not None
        kept = tuple((name, value) for name, value in answer.headers if name.lower() != "date")
        return proxy.Answer(answer.status, (*kept, ("Date", format_datetime(datetime.now(UTC) + by))), answer.body)

    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(proxy.lost_answer, when=is_making, times=1)
        double.misbehave(dated)
        yield double


@pytest.mark.parametrize("by", [timedelta(seconds=3), timedelta(seconds=-3), timedelta(minutes=14)])
def test_an_orphan_is_found_whatever_the_clocks_say(owner: Direct, by: timedelta) -> None:
    with ahead(owner, by) as double:
        inputs = ring(owner, "a", url=double.url)
        with pytest.raises(PartialError) as stopped:
            RING.create(inputs, owner.context)
        [orphan] = owner.key_ids()
        outputs = RING.update(owner.name, stopped.value.outputs, inputs, owner.context)
    assert owner.key_ids() == {outputs["accessKeyId"]}
    assert orphan != outputs["accessKeyId"]
    assert "orphanUntil" not in outputs


def test_key_ids_of_any_letters_are_told_apart(owner: Direct) -> None:
    """Ceph's and others' have small letters, 'x' among them, dots and dashes."""
    names: dict[str, str] = {}

    def renamed(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        body = request.body.decode()
        for real, shown in names.items():
            body = body.replace(shown, real)
        answer = upstream.ask(proxy.Request(request.method, request.target, request.headers, body.encode()))
        assert answer is not None
        text = answer.body.decode()
        for real, shown in names.items():
            text = text.replace(real, shown)
        return proxy.Answer(answer.status, answer.headers, text.encode())

    names[by_hand(owner)] = "gk-xX0x.by_hand"
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(proxy.lost_answer, when=is_making, times=1)
        double.misbehave(renamed, when=lambda request: request.action == "ListAccessKeys")
        inputs = ring(owner, "a", url=double.url)
        with pytest.raises(PartialError) as stopped:
            RING.create(inputs, owner.context)
        outputs = RING.update(owner.name, stopped.value.outputs, inputs, owner.context)
    assert owner.key_ids() == {*names, outputs["accessKeyId"]}


# ---- the store executes the call after the next run


@contextmanager
def held_up(direct: Direct) -> Iterator[tuple[proxy.Proxy, list[Callable[[], object]]]]:
    """The first call that makes a key is cut off, and the store executes it only when the test says so."""
    late: list[Callable[[], object]] = []

    def cut(request: proxy.Request, upstream: proxy.Upstream) -> None:
        late.append(lambda: upstream.ask(request))

    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(cut, when=is_making, times=1)
        yield double, late


def passed_on(monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    """The server's clock in so many minutes."""
    real = iam.server_time
    monkeypatch.setattr(iam, "server_time", lambda answer: real(answer) + timedelta(minutes=minutes))


def test_a_key_that_is_made_late_is_found_by_the_next_up(owner: Direct) -> None:
    with held_up(owner) as (double, late):
        inputs = ring(owner, "a", url=double.url)
        with pytest.raises(PartialError) as stopped:
            RING.create(inputs, owner.context)
        outputs = RING.update(owner.name, stopped.value.outputs, inputs, owner.context)
        assert owner.key_ids() == {outputs["accessKeyId"]}
        assert datetime.fromisoformat(outputs["orphanUntil"]) > datetime.now(UTC) + timedelta(minutes=10)
        assert RING.unsettled(outputs, {}) == ("orphanUntil",)
        assert any("got no response. The store may still create it until" in said for said in owner.said)
        # The proof passes: what is not known yet stays noted.
        forget_journal(owner.iam, owner.name, outputs["accessKeyId"])
        assert len(journal(owner)) == 1
        assert all(name.startswith(OPEN) for name in journal(owner))
        again = RING.update(owner.name, outputs, inputs, owner.context)
        assert again == outputs
        late[0]()
        assert len(owner.key_ids()) == 2
        settled = RING.update(owner.name, again, inputs, owner.context)
    assert owner.key_ids() == {outputs["accessKeyId"]}
    assert RING.unsettled(settled, {}) == ()
    assert journal(owner) == set()


def test_the_journal_is_closed_once_no_late_call_can_make_a_key(owner: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    with held_up(owner) as (double, _):
        inputs = ring(owner, "a", url=double.url)
        with pytest.raises(PartialError) as stopped:
            RING.create(inputs, owner.context)
        outputs = RING.update(owner.name, stopped.value.outputs, inputs, owner.context)
    forget_journal(owner.iam, owner.name, outputs["accessKeyId"])
    inputs = ring(owner, "a")
    passed_on(monkeypatch, 16)
    settled = RING.update(owner.name, {**outputs, **inputs}, inputs, owner.context)
    assert RING.unsettled(settled, {}) == ()
    assert journal(owner) == set()
    assert owner.key_ids() == {outputs["accessKeyId"]}


def test_a_run_killed_in_a_rotation_leaves_its_journal_to_the_ring(owner: Direct) -> None:
    """The proof of the key that is used goes on meanwhile: it says nothing of the one that was asked for."""
    _, outputs = RING.create(ring(owner, "a"), owner.context)
    forget_journal(owner.iam, owner.name, outputs["accessKeyId"])
    with held_up(owner) as (double, late):
        with pytest.raises(PartialError):
            RING.update(owner.name, outputs, ring(owner, "a", "b", url=double.url), owner.context)
        forget_journal(owner.iam, owner.name, outputs["accessKeyId"])
        assert journal(owner) == {f"{JOURNAL}b"}
        late[0]()
    both = RING.update(owner.name, outputs, ring(owner, "a", "b"), owner.context)
    assert owner.key_ids() == {key["accessKeyId"] for key in both["keys"].values()}


def test_a_refresh_finds_a_key_of_which_the_state_does_not_know(owner: Direct) -> None:
    """Of a killed run whose state is written at the end, and whose edit of the stack file was undone."""
    _, outputs = RING.create(ring(owner, "a"), owner.context)
    RING.update(owner.name, outputs, ring(owner, "a", "b"), owner.context)
    assert len(owner.key_ids()) == 2
    owner.said.clear()
    found = RING.read(owner.name, ring(owner, "a"), outputs, owner.context)
    assert found is not None
    assert found.outputs["unknownKeys"] == []
    assert not any("not created by this stack" in said for said in owner.said)
    assert RING.unsettled(found.outputs, ring(owner, "a")) == ("orphanUntil",)
    settled = RING.update(owner.name, found.outputs, ring(owner, "a"), owner.context)
    assert owner.key_ids() == {outputs["accessKeyId"]}
    assert RING.unsettled(settled, ring(owner, "a")) == ()


def test_two_runs_that_were_cut_off_are_both_looked_for(owner: Direct) -> None:
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        late: list[Callable[[], object]] = []
        double.misbehave(lambda request, upstream: late.append(lambda: upstream.ask(request)), when=is_making, times=2)
        inputs = ring(owner, "a", url=double.url)
        with pytest.raises(PartialError) as first:
            RING.create(inputs, owner.context)
        with pytest.raises(PartialError) as second:
            RING.update(owner.name, first.value.outputs, inputs, owner.context)
        for call in late:
            call()
        assert len(owner.key_ids()) == 2
        outputs = RING.update(owner.name, second.value.outputs, inputs, owner.context)
    assert owner.key_ids() == {outputs["accessKeyId"]}


def test_a_run_cut_off_while_it_kept_an_entry_open_counts_one_call(owner: Direct) -> None:
    """The entry is under both names then, and still stands for one key at most."""
    with held_up(owner) as (double, late):
        inputs = ring(owner, "a", url=double.url)
        double.misbehave(proxy.internal_error, when=lambda request: request.action == "DeleteUserPolicy")
        with pytest.raises(PartialError) as stopped:
            RING.create(inputs, owner.context)
        with pytest.raises(StoreError):
            RING.update(owner.name, stopped.value.outputs, inputs, owner.context)
        assert len(journal(owner)) == 2
        late[0]()
    by_hand(owner)
    outputs = RING.update(owner.name, stopped.value.outputs, ring(owner, "a"), owner.context)
    assert len(owner.key_ids() - {outputs["accessKeyId"]}) == 1
    assert journal(owner) == {f"{JOURNAL}a"}


def test_a_key_older_than_the_entry_is_no_orphan(owner: Direct) -> None:
    """The list that was asked before the key was made lacked one that is in use."""
    theirs = by_hand(owner)

    def changed(found: str, becomes: str) -> proxy.Fault:
        def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
            answer = upstream.ask(request)
            assert answer is not None
            body = re.sub(found, becomes, answer.body.decode(), flags=re.DOTALL)
            return proxy.Answer(answer.status, answer.headers, body.encode())

        return fault

    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        lists = double.misbehave(
            changed("<member>.*</member>", ""), when=lambda request: request.action == "ListAccessKeys"
        )
        double.misbehave(lambda _, __: None, when=is_making, times=1)
        inputs = ring(owner, "a", url=double.url)
        with pytest.raises(PartialError) as stopped:
            RING.create(inputs, owner.context)
        assert lists.hits
        double.behave()
        long_ago = "<CreateDate>2025-01-02T03:04:05Z</CreateDate>"
        double.misbehave(
            changed("<CreateDate>[^<]*</CreateDate>", long_ago), when=lambda request: request.action == "ListAccessKeys"
        )
        outputs = RING.update(owner.name, stopped.value.outputs, inputs, owner.context)
    assert owner.key_ids() == {theirs, outputs["accessKeyId"]}
    assert outputs["unknownKeys"] == [theirs]


# ---- the call was refused


def refused(code: str, status: int = 403) -> proxy.Fault:
    return lambda request, _: proxy.error(request, status, code, "no")


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("LimitExceeded", 409), ("Throttling", 400), ("NoSuchEntity", 404)]
)
def test_a_call_that_was_refused_leaves_no_journal(
    owner: Direct, code: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a key that somebody creates by hand afterwards is not taken for an orphan."""
    monkeypatch.setattr(pace, "SECONDS", 0.0)
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(refused(code, status), when=is_making)
        with pytest.raises(PartialError) as stopped:
            RING.create(ring(owner, "a", url=double.url), owner.context)
    assert journal(owner) == set()
    theirs = by_hand(owner)
    outputs = RING.update(owner.name, stopped.value.outputs, ring(owner, "a"), owner.context)
    assert owner.key_ids() == {theirs, outputs["accessKeyId"]}


@pytest.mark.parametrize("fault", [proxy.internal_error, proxy.html(403), refused("RequestTimeout", 408)])
def test_what_may_have_been_executed_stays_noted(owner: Direct, fault: proxy.Fault) -> None:
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(fault, when=is_making)
        with pytest.raises(PartialError):
            RING.create(ring(owner, "a", url=double.url), owner.context)
    assert journal(owner) == {f"{JOURNAL}a"}


# ---- a user that was taken over


def test_no_key_of_a_user_that_was_taken_over_is_deleted_as_an_orphan(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    with held_up(direct) as (double, _), pytest.raises(PartialError) as stopped:
        RING.create(ring(direct, "a", url=double.url, adopt=True), direct.context)
    theirs = by_hand(direct)
    outputs = stopped.value.outputs
    inputs = ring(direct, "a", adopt=True)
    outputs = RING.update(direct.name, {**outputs, **inputs}, inputs, direct.context)
    assert direct.key_ids() == {theirs, outputs["accessKeyId"]}
    assert any(f"key {theirs} may have been created by an interrupted run" in said for said in direct.said)
    assert RING.unsettled(outputs, {}) == ("orphanUntil",)
    passed_on(monkeypatch, 16)
    outputs = RING.update(direct.name, outputs, inputs, direct.context)
    assert RING.unsettled(outputs, {}) == ()
    assert direct.key_ids() == {theirs, outputs["accessKeyId"]}


def test_an_orphan_of_a_user_that_this_store_made_beside_a_bucket_that_was_taken_over_is_found(owner: Direct) -> None:
    kept = by_hand(owner)
    mark = {"path": "/synapse-media/tests/", "formerPaths": [], "bucket": owner.name}
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(proxy.lost_answer, when=is_making, times=1)
        inputs = ring(owner, "a", url=double.url, mark=mark, adopt=True)
        with pytest.raises(PartialError) as stopped:
            RING.create(inputs, owner.context)
        outputs = RING.update(owner.name, stopped.value.outputs, inputs, owner.context)
    assert owner.key_ids() == {kept, outputs["accessKeyId"]}
    assert RING.unsettled(outputs, {}) == ()


# ---- the ring ends


@pytest.mark.parametrize("after", [None, timedelta(seconds=1), timedelta(minutes=4), timedelta(hours=1)])
def test_a_ring_whose_key_may_be_in_use_is_not_deleted(owner: Direct, after: timedelta | None) -> None:
    """Whatever the store tells of its last use: within minutes of being made it may be Synapse's."""
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        _, outputs = RING.create(ring(owner, "a", url=double.url), owner.context)
        made = datetime.fromisoformat(outputs["keys"]["a"]["createdAt"])
        double.misbehave(
            proxy.key_last_used(made + after if after is not None else None),
            when=lambda request: request.action == "GetAccessKeyLastUsed",
        )
        with pytest.raises(StoreError, match="may be in use and is not deleted") as kept:
            RING.delete(owner.name, outputs, owner.context)
        assert outputs["accessKeyId"] in str(kept.value)
        assert "synapse-media destroy" in str(kept.value)
        assert "<homeserver>/retire-key" in str(kept.value)
        assert owner.key_ids() == {outputs["accessKeyId"]}


@pytest.mark.parametrize("where", ["outputs", "inputs"])
def test_leave_lets_a_ring_go(owner: Direct, where: str) -> None:
    """From the outputs, where a command puts it; or from the inputs, where the last `up` left what `allow` said."""
    _, outputs = RING.create(ring(owner, "a", retireConfirmed=True), owner.context)
    assert outputs["retireConfirmed"] is False, "it was for that run"
    leave = {"retireConfirmed": True}
    if where == "outputs":
        RING.delete(owner.name, {**outputs, **leave}, owner.context)
    else:
        RING.delete(owner.name, outputs, Context(owner.said.append, {**ring(owner, "a"), **leave}))
    assert owner.key_ids() == set()


def test_a_ring_without_a_key_goes_unasked(owner: Direct) -> None:
    with proxy.in_front_of(owner.running.iam_endpoint) as double:
        double.misbehave(refused("AccessDenied"), when=is_making)
        with pytest.raises(PartialError) as stopped:
            RING.create(ring(owner, "a", url=double.url), owner.context)
    RING.delete(owner.name, {**stopped.value.outputs, "connection": owner.connection()}, owner.context)


def test_a_ring_whose_bucket_is_gone_goes_unasked(owner: Direct) -> None:
    mark = {"path": "/synapse-media/tests/", "formerPaths": [], "bucket": owner.name}
    owner.s3.create_bucket(Bucket=owner.name)
    _, outputs = RING.create(ring(owner, "a", mark=mark), owner.context)
    with pytest.raises(StoreError, match="may be in use"):
        RING.delete(owner.name, outputs, owner.context)
    owner.s3.delete_bucket(Bucket=owner.name)
    RING.delete(owner.name, outputs, owner.context)
    assert owner.key_ids() == set()


def test_what_is_no_key_of_the_user_does_not_get_into_state_as_one(
    owner: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the secret, in the place of its ID."""
    monkeypatch.setenv("SYNAPSE_MEDIA_ADOPTED_SECRET", "AlphanumericSecretAccessKey0123456789abc")
    with pytest.raises(StoreError, match="the user has no key of this ID") as refused:
        RING.create(ring(owner, "a", adopt=True, adoptKey="AnotherSecretAccessKey0123456789"), owner.context)
    assert not isinstance(refused.value, PartialError)
    assert "AnotherSecret" not in str(refused.value)


@pytest.mark.parametrize("how", ["retired", "destroyed"])
def test_a_key_that_was_brought_along_is_never_deleted(
    direct: Direct, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    direct.iam.create_user(UserName=direct.name, Path="/web/")
    brought = direct.iam.create_access_key(UserName=direct.name)["AccessKey"]
    monkeypatch.setenv("SYNAPSE_MEDIA_ADOPTED_SECRET", brought["SecretAccessKey"])
    inputs = ring(direct, "a", adopt=True, adoptKey=brought["AccessKeyId"])
    _, outputs = RING.create(inputs, direct.context)
    assert outputs["accessKeyId"] == brought["AccessKeyId"]
    both = RING.update(direct.name, outputs, ring(direct, "a", "b", adopt=True), direct.context)
    if how == "retired":
        last = RING.update(direct.name, both, ring(direct, "b", adopt=True), direct.context)
        assert last["unknownKeys"] == [brought["AccessKeyId"]]
        assert direct.key_ids() == {brought["AccessKeyId"], last["accessKeyId"]}
    else:
        RING.delete(direct.name, {**both, "retireConfirmed": True}, direct.context)
        # What the ring made itself is its own.
        assert direct.key_ids() == {brought["AccessKeyId"]}
    assert any(f"key {brought['AccessKeyId']} was adopted and is not deleted" in said for said in direct.said)
