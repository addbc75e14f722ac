"""Which runs may write the state at their end only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synapse_media.cli import checkpoints, stacks
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.plugin import look
from synapse_media.schema.resources import RESOURCES
from tests.providers.project import ROOT

CONNECTION = {"endpoint": "https://s3.example.com", "region": "us-east-1"}


def _urn(kind: str, name: str = "example.com") -> str:
    return f"urn:pulumi:prod::synapse-media::synapse-media:index:S3Compatible${kind}::{name}"


def _step(op: str, kind: str, *, custom: bool = True, **inputs: Any) -> dict[str, Any]:
    state = {"custom": custom, "type": kind, "inputs": inputs}
    return {"op": op, "urn": _urn(kind), "oldState" if op.startswith("delete") else "newState": state}


BUCKET = _step("create", "s3store:index:Bucket", bucket="media", connection=CONNECTION)
STORE = (
    _step("create", "synapse-media:index:S3Compatible", custom=False),
    BUCKET,
    *(_step("create", f"s3store:index:{kind}") for kind in ("User", "UserPolicy", "KeyRing", "Proof")),
)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    config = tmp_path / "Pulumi.prod.yaml"
    config.write_text("config: {}\n")
    engine = SimpleNamespace(
        has_own_state=True,
        backend="file:///state",
        environment={},
        project=tmp_path,
        export=lambda _: {"deployment": {}},
    )
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(checkpoints.VARIABLE, raising=False)
    monkeypatch.setattr(look, "keeps_marks", lambda values: values["bucket"] != "without-tags")
    return stacks.Session(SimpleNamespace(name="prod"), engine, config, {})  # type: ignore[arg-type]


def _of_up(session: Any, *steps: dict[str, Any], times: int = 100) -> bool:
    return checkpoints.of_up(session, {"steps": [*steps] * times}, {})


def test_many_new_stores_are_written_at_the_end(session: Any) -> None:
    assert _of_up(session, *STORE)
    assert not _of_up(session, *STORE, times=1)


def test_the_documentation_says_from_how_many_stores_on(session: Any) -> None:
    """Both numbers follow from one constant."""
    many = checkpoints.NEW_STORES
    assert _of_up(session, *STORE, times=many)
    assert not _of_up(session, *STORE, times=many - 1)
    there = checkpoints.WORTH_IT // (2 * len(STORE))

    def one_changes(stores: int) -> bool:
        """A preview lists what stays the same as well."""
        steps = [_step("update", "s3store:index:KeyRing"), *[_step("same", BUCKET["urn"])] * (len(STORE) * stores - 1)]
        return checkpoints.of_up(session, {"steps": steps}, {"deployment": {"resources": steps}})

    assert one_changes(there)
    assert not one_changes(there - 1)
    said = f"as with {many} new stores, or one change in a stack of {there};"
    assert said in (ROOT / "docs/running.md").read_text(encoding="utf-8")


def test_in_a_large_state_one_change_is_enough(session: Any) -> None:
    preview = {"steps": [_step("update", "s3store:index:KeyRing")]}
    assert checkpoints.of_up(session, preview, {"deployment": {"resources": [{}] * 10_000}})
    assert not checkpoints.of_up(session, preview, {"deployment": {"resources": [{}] * 100}})


@pytest.mark.parametrize(
    "step",
    [
        _step("create", "aws:s3/bucket:Bucket"),
        _step("delete", "aws:s3/bucket:Bucket"),
        _step("create", "s3store:index:B2Bucket", connection=CONNECTION),
        _step("update", "s3store:index:B2KeyRing"),
        _step("create-replacement", "s3store:index:GarageKeyRing"),
        _step("update", "s3store:index:StorjKeyRing"),
        _step("import", "s3store:index:Bucket", bucket="media", connection=CONNECTION),
        _step("create", "s3store:index:Bucket", bucket="without-tags", connection={"endpoint": "https://other"}),
        _step("create", "s3store:index:Bucket", bucket="media"),
    ],
)
def test_what_is_not_found_again_is_written_after_every_step(session: Any, step: dict[str, Any]) -> None:
    assert not _of_up(session, *STORE, step)


def test_what_is_deleted_by_our_plugin_may_be_deleted_twice(session: Any) -> None:
    assert _of_up(session, *(_step("delete", kind.token) for kind in RESOURCES))


def test_a_state_that_others_may_share_is_written_after_every_step(session: Any) -> None:
    session.engine.has_own_state = False
    assert not _of_up(session, *STORE)


@pytest.mark.parametrize(("said", "few", "many"), [("each-step", False, False), ("at-end", True, True)])
def test_the_variable_decides_where_it_may(
    session: Any, monkeypatch: pytest.MonkeyPatch, said: str, few: bool, many: bool
) -> None:
    monkeypatch.setenv(checkpoints.VARIABLE, said)
    assert _of_up(session, *STORE, times=1) is few
    assert _of_up(session, *STORE) is many
    assert not _of_up(session, _step("update", "s3store:index:B2KeyRing"))
    monkeypatch.setenv(checkpoints.VARIABLE, "never")
    with pytest.raises(UsageError, match="is 'never'; allowed: each-step, at-end"):
        _of_up(session, *STORE)


def _state(*kinds: str) -> dict[str, Any]:
    return {"deployment": {"resources": [{"urn": _urn(kind), "custom": True} for kind in kinds] * 100}}


def test_a_destroy_is_written_at_the_end_where_our_plugin_deletes_everything(session: Any) -> None:
    ours = ("pulumi:providers:s3store", "s3store:index:Bucket", "s3store:index:B2KeyRing")
    assert checkpoints.of_destroy(session, _state(*ours))
    assert not checkpoints.of_destroy(session, _state(*ours, "aws:s3/bucket:Bucket"))


def test_what_may_be_in_no_state_is_not_left_behind_by_a_destroy(session: Any) -> None:
    stacks.refuse_what_is_in_no_state(session)
    with pytest.raises(KeyboardInterrupt), stacks.changing(session, making=[]):
        raise KeyboardInterrupt
    with pytest.raises(SynapseMediaError, match="Run `synapse-media up --stack prod` first"):
        stacks.refuse_what_is_in_no_state(session)
    # A run that is cut off in turn changes nothing about that.
    with pytest.raises(KeyboardInterrupt), stacks.changing(session):
        raise KeyboardInterrupt
    with pytest.raises(SynapseMediaError, match="nothing was destroyed"):
        stacks.refuse_what_is_in_no_state(session)
    with stacks.changing(session):
        pass
    stacks.refuse_what_is_in_no_state(session)
