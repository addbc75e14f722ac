"""How often a store is called: counted, so that it can't creep up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from synapse_media.plugin.iam import JOURNAL
from tests.accounts import user_names
from tests.doubles.proxy import in_front_of
from tests.life.life import Life
from tests.providers.project import SERVER

CALLS = {"up": 52, "up again": 0, "diff --refresh": 10, "destroy": 16}


def test_the_calls_of_one_store(begin: Callable[[], Life]) -> None:
    life = begin()
    running, counted, seen = life.running, {}, 0
    with in_front_of(running.endpoint) as s3, in_front_of(running.iam_endpoint) as iam:
        store = {
            "provider": "s3_compatible",
            "endpoint": s3.url,
            "iam_endpoint": iam.url,
            "bucket": life.bucket,
            "settle_seconds": 0,
        }
        life.stack.write({SERVER: store}, [f"{SERVER}/delete-bucket"])
        for what, action in (
            ("up", life.stack.up),
            ("up again", life.stack.up),
            ("diff --refresh", lambda: life.stack.preview(refresh=True)),
            ("destroy", life.stack.destroy),
        ):
            action()
            total = len(s3.exchanges) + len(iam.exchanges)
            counted[what], seen = total - seen, total
    assert counted == CALLS


def test_the_embedded_store_keeps_connections(life: Life) -> None:
    """A connection of its own for each call costs as much CPU as a fifth of the call."""
    for endpoint in (life.running.endpoint, life.running.iam_endpoint):
        connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=10)
        with closing(connection):
            for _ in range(2):
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                assert not answer.will_close


@pytest.mark.parametrize("saved", ["each-step", "at-end"])
def test_a_life_whose_state_is_saved(saved: str, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch) -> None:
    """However often that is, the store has the same afterwards, and no note on a key that the state has."""
    monkeypatch.setenv("SYNAPSE_MEDIA_CHECKPOINTS", saved)
    life = begin()
    life.store("delete-bucket", "delete-media")
    for command in ("up", "rotate"):
        code, printed = life.command(command, "--yes")
        assert code == 0, printed
        policies = life.iam.list_user_policies(UserName=life.user)["PolicyNames"]
        assert [name for name in policies if name.startswith(JOURNAL)] == []
    assert life.stack.preview(refresh=True) == ()
    code, printed = life.command("destroy", "--yes")
    assert code == 0, printed
    assert life.user not in user_names(life.iam)


def test_a_way_of_saving_that_there_is_not_is_refused(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNAPSE_MEDIA_CHECKPOINTS", "never")
    code, printed = life.command("up", "--yes")
    assert code == 64
    assert "SYNAPSE_MEDIA_CHECKPOINTS is 'never'; allowed: each-step, at-end" in printed
