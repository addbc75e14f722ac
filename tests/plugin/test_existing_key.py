"""A key that the operator has already: taken into state only once the store accepts it."""

from __future__ import annotations

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin.existing_key import ExistingKey
from synapse_media.plugin.resource import PartialError, Values
from tests.doubles import proxy
from tests.plugin.direct import VARIABLES, Direct, allow

KEY = ExistingKey()


def inputs_of(direct: Direct, **changes: object) -> Values:
    inputs, failures = KEY.check(
        {"active": "a", "bucket": direct.name, "connection": direct.connection(iamEndpoint=""), **changes}
    )
    assert not failures
    return inputs


@pytest.fixture
def scoped(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> Direct:
    """A bucket, and a key in the environment that may list it and nothing else."""
    direct.s3.create_bucket(Bucket=direct.name)
    key = direct.user_with_key(allow("s3:ListBucket", on=f"arn:aws:s3:::{direct.name}"))
    monkeypatch.setenv(VARIABLES[0], key.access_key_id)
    monkeypatch.setenv(VARIABLES[1], key.secret)
    return direct


def test_a_key_that_the_store_accepts_is_taken(scoped: Direct) -> None:
    inputs = inputs_of(scoped)
    _, outputs = KEY.create(inputs, scoped.context)
    assert {outputs["accessKeyId"]} == scoped.key_ids()
    found = KEY.read("existing-key", inputs, outputs, scoped.context)
    assert found is not None
    assert (found.inputs, found.outputs) == (inputs, outputs)
    assert KEY.update("existing-key", outputs, inputs, scoped.context) == outputs
    # One bucket that is gone says nothing of the key; an earlier release named none.
    scoped.s3.delete_bucket(Bucket=scoped.name)
    KEY.create(inputs, scoped.context)
    without = inputs_of(scoped, bucket="")
    KEY.create(without, scoped.context)
    assert KEY.diff(without, inputs).changed == ()


@pytest.mark.parametrize("bucket", ["media", ""])
@pytest.mark.parametrize("fault", ["secret", "ID", "address"])
def test_a_key_that_the_store_does_not_accept_gets_nowhere(
    scoped: Direct, monkeypatch: pytest.MonkeyPatch, fault: str, bucket: str
) -> None:
    """Also where it doesn't look swapped: its ID is in the state in clear text."""
    changes: Values = {"bucket": scoped.name if bucket else ""}
    if fault == "address":
        changes["connection"] = scoped.connection(iamEndpoint="", endpoint="http://127.0.0.1:9")
    else:
        monkeypatch.setenv(VARIABLES[fault == "secret"], "x" * (36 if fault == "secret" else 18))
    inputs = inputs_of(scoped, **changes)
    for step in (
        lambda: KEY.create(inputs, scoped.context),
        lambda: KEY.read("existing-key", inputs, {}, scoped.context),
        lambda: KEY.update("existing-key", {}, inputs, scoped.context),
    ):
        with pytest.raises(StoreError) as refused:
            step()
        assert not isinstance(refused.value, PartialError)


def test_a_key_that_sees_other_buckets_is_said(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    direct.s3.create_bucket(Bucket=f"other-{direct.name}"[:60])
    KEY.create(inputs_of(direct), direct.context)
    assert any("it may be an administrator's" in said for said in direct.said)


def test_a_key_that_sees_more_than_synapses_is_not_handed_over(scoped: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator's, in the same variables."""
    direct = scoped
    direct.s3.create_bucket(Bucket=f"other-{direct.name}"[:60])
    inputs = inputs_of(direct)
    _, former = KEY.create(inputs, direct.context)
    for name, value in zip(VARIABLES, (direct.running.access_key_id, direct.running.secret_access_key), strict=True):
        monkeypatch.setenv(name, value)
    for step in (
        lambda: KEY.read("existing-key", inputs, former, direct.context),
        lambda: KEY.update("existing-key", former, {**inputs, "active": "b"}, direct.context),
    ):
        with pytest.raises(StoreError, match="an administrator's key is not handed to Synapse") as refused:
            step()
        assert former["accessKeyId"] in str(refused.value)
        assert direct.running.secret_access_key not in str(refused.value)
    # What Synapse had is gone, so that nothing can be compared: the operator is warned, and the guards ask.
    gone = {**former, "accessKeyId": "AKIAGONE0000000"}
    assert KEY.read("existing-key", inputs, gone, direct.context) is not None
    assert any("it may be an administrator's" in said for said in direct.said)


@pytest.mark.parametrize("lies_to", ["the new key", "the former key"])
def test_a_key_of_which_it_is_not_known_whether_it_sees_more_is_not_handed_over(
    scoped: Direct, monkeypatch: pytest.MonkeyPatch, lies_to: str
) -> None:
    """A page of somebody in between, in place of the list of buckets."""
    direct = scoped
    direct.s3.create_bucket(Bucket=f"other-{direct.name}"[:60])
    _, former = KEY.create(inputs_of(direct), direct.context)
    root = direct.running.access_key_id
    for name, value in zip(VARIABLES, (root, direct.running.secret_access_key), strict=True):
        monkeypatch.setenv(name, value)
    lied_to = root if lies_to == "the new key" else former["accessKeyId"]
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.html(200), when=lambda request: not request.bucket and request.access_key_id == lied_to)
        inputs = inputs_of(direct, connection=direct.connection(iamEndpoint="", endpoint=double.url))
        for step in (
            lambda: KEY.read("existing-key", inputs, former, direct.context),
            lambda: KEY.update("existing-key", former, {**inputs, "active": "b"}, direct.context),
        ):
            with pytest.raises(StoreError, match="list_buckets"):
                step()
        if lies_to == "the new key":
            # Of the first key nothing is handed over yet that it could be wider than.
            KEY.create(inputs, direct.context)
            assert "whether " + root + " can list other buckets" in direct.said[-1]
