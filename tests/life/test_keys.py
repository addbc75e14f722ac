"""Keys and marks over a store's life, by the real engine: what plain pulumi can't cut, and what no proxy can hide."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from synapse_media.engine.session import EngineError
from synapse_media.plugin.iam import POLICY_NAME
from tests.accounts import user_names
from tests.doubles import proxy
from tests.life.life import Life
from tests.providers.project import SERVER


def plain_destroy(life: Life) -> str:
    """As anybody types it."""
    options = ["--yes", "--skip-preview", "--suppress-outputs", "--exclude-protected"]
    return life.stack.engine.run(["destroy", *options, "--stack", life.stack.name]).stdout


def test_plain_destroy_does_not_delete_a_key_in_use(begin: Callable[[], Life]) -> None:
    new = begin()
    with proxy.in_front_of(new.running.iam_endpoint) as iam:
        in_an_hour = proxy.key_last_used(datetime.now(UTC) + timedelta(hours=1))
        iam.misbehave(in_an_hour, when=lambda request: request.action == "GetAccessKeyLastUsed")
        new.store(iam_endpoint=iam.url)
        new.stack.up()
        keys = new.keys()
        with pytest.raises(EngineError, match="may be in use and is not deleted") as refused:
            plain_destroy(new)
        assert keys[0] in str(refused.value)
        assert new.keys() == keys
        # The policy as well: a key without rights is no key.
        assert new.iam.list_user_policies(UserName=new.user)["PolicyNames"] == [POLICY_NAME]
        # What the message says: the leave is in state by the next `up`, although nothing changes by it.
        new.store("retire-key", iam_endpoint=iam.url)
        new.stack.up()
        assert new.stack.preview() == ()
        plain_destroy(new)
    assert new.user not in user_names(new.iam)


@pytest.mark.parametrize("fault", ["traefik", "empty 200"])
def test_a_router_that_loses_the_s3_route_has_nothing_forgotten(begin: Callable[[], Life], fault: str) -> None:
    new = begin()
    with proxy.in_front_of(new.running.endpoint) as s3:
        new.store(endpoint=s3.url)
        new.stack.up()
        outputs, state = new.stack.outputs(), new.stack.engine.export(new.stack.name)["deployment"]["resources"]
        s3.misbehave(proxy.NO_STORE[fault])
        with pytest.raises(EngineError, match=r"404|not that of an S3"):
            new.stack.up(refresh=True)
        s3.behave()
        now = new.stack.engine.export(new.stack.name)["deployment"]["resources"]
        assert [one["urn"] for one in now] == [one["urn"] for one in state]
        assert new.stack.preview(refresh=True) == ()
        assert new.stack.outputs() == outputs


def test_a_key_that_is_made_late_is_found_by_a_plain_up(begin: Callable[[], Life]) -> None:
    """The call is cut off, the store gets to it after the next `up`."""
    new = begin()
    late: list[Callable[[], object]] = []
    with proxy.in_front_of(new.running.iam_endpoint) as iam:
        iam.misbehave(
            lambda request, upstream: late.append(lambda: upstream.ask(request)),
            when=lambda request: request.action == "CreateAccessKey",
            times=1,
        )
        new.store(iam_endpoint=iam.url)
        with pytest.raises(EngineError, match="create_access_key"):
            new.stack.up()
        assert "The store may still create it until" in new.stack.up()
        keys = new.keys()
        assert len(keys) == 1
        late[0]()
        assert len(new.keys()) == 2
        assert [change.kind for change in new.stack.preview()] == ["KeyRing"]
        new.stack.up()
        assert new.keys() == keys
        assert new.stack.preview() == ()
        assert new.iam.list_user_policies(UserName=new.user)["PolicyNames"] == ["synapse-media"]
        new.stack.outputs().require_proof()


def test_a_rotation_of_several_says_which_stores_are_done(begin: Callable[[], Life]) -> None:
    new, other = begin(), "other.example.com"
    with proxy.in_front_of(new.running.iam_endpoint) as iam:
        away = new.settings(iam_endpoint=iam.url, bucket=f"{new.bucket}-2")
        new.stack.write({SERVER: new.settings(), other: away})
        for words in (("up",), ("rotate", "--all")):
            code, printed = new.command(*words, "--yes")
            assert code == 0, printed
    code, printed = new.command("rotate", "--all", "--finish", "--confirm", "--yes")
    assert code == 1
    assert f"{SERVER}: done; keys: active b, retiring none" in printed
    assert f"{other}: not done; keys: active b, retiring a" in printed
