"""StorageOutputs: there and back, and what is never rendered from."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_media import contract
from synapse_media.contract import ContractError, Proof, ProofLine, StorageOutputs

SECRET = "wJalrXUtnFEMI/K7MDENG"
LINES = (ProofLine("put", "allowed", "allowed"), ProofLine("delete", "refused", "refused"))


def store(**changes: Any) -> StorageOutputs:
    """A store with a passed proof, made for what it is with the changes; `proof` may be given too."""
    plain: dict[str, Any] = {
        "server_name": "matrix.example.com",
        "provider": "s3_compatible",
        "method": "synapse-s3-storage-provider",
        "access": "least",
        "bucket": "media",
        "region": "eu-1",
        "endpoint_url": "https://s3.example.com",
        "access_key_id": "AKIAEXAMPLE",
        "secret_access_key": SECRET,
        "policy_sha256": "0" * 64,
    }
    made = StorageOutputs(**{**plain, **changes})
    return made if "proof" in changes else replace(made, proof=Proof(made.made_for(), LINES))


TEXT = st.text(max_size=8)
LINE = st.builds(ProofLine, TEXT, TEXT, TEXT, TEXT)
STORES = st.builds(
    StorageOutputs,
    server_name=TEXT,
    provider=TEXT,
    method=st.sampled_from(["goofys", "filesystem", "matrix-media-repo"]),
    access=st.sampled_from(["least", "full"]),
    bucket=TEXT,
    region=TEXT,
    endpoint_url=TEXT,
    access_key_id=TEXT,
    secret_access_key=TEXT,
    keyless=st.booleans(),
    user=TEXT,
    prefix=TEXT,
    addressing=st.sampled_from(["path", "virtual"]),
    checksums=st.sampled_from(["when_required", "when_supported"]),
    cannot_refuse=st.lists(TEXT, max_size=2).map(tuple),
    media_repo=st.dictionaries(TEXT, TEXT, max_size=2),
    lacks=st.lists(TEXT, max_size=2).map(tuple),
    proof=st.none() | st.builds(Proof, TEXT, st.lists(LINE, max_size=2).map(tuple)),
)


@given(outputs=STORES)
def test_there_and_back_through_json(outputs: StorageOutputs) -> None:
    assert contract.from_json(json.loads(json.dumps(contract.to_json(outputs)))) == outputs


def test_the_wire_form_has_every_field_and_nothing_else() -> None:
    assert set(contract.to_json(store())) == {item.name for item in fields(StorageOutputs)}


def test_the_secret_is_in_no_text_of_a_store() -> None:
    assert SECRET not in repr(store())
    assert SECRET not in str(store())
    assert SECRET not in store().made_for()


def test_a_passed_proof_of_the_same_is_accepted() -> None:
    store().require_proof()


def test_a_store_without_a_proof_is_refused() -> None:
    with pytest.raises(ContractError, match=r"matrix\.example\.com: the key was never proved"):
        store(proof=None).require_proof()


@pytest.mark.parametrize(
    "changed",
    [
        {"access_key_id": "AKIAOTHER"},
        {"policy_sha256": "1" * 64},
        {"bucket": "other"},
        {"endpoint_url": "https://s3.example.net"},
        {"region": "eu-2"},
        {"prefix": "media/"},
        {"method": "goofys"},
        {"access": "full"},
    ],
)
def test_a_proof_of_something_else_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(ContractError, match="made for another key, policy, bucket or endpoint"):
        store(proof=store().proof, **changed).require_proof()


@pytest.mark.parametrize(
    "line",
    [
        ProofLine("list", "allowed", "refused", "AccessDenied"),
        ProofLine("delete", "refused", "allowed"),
        ProofLine("put", "allowed", "failed (NoSuchBucket)", "gone"),
        ProofLine("delete", "refused", "failed (500)"),
    ],
)
def test_a_failed_proof_is_refused_and_says_what_failed(line: ProofLine) -> None:
    made = store()
    with pytest.raises(ContractError) as refused:
        replace(made, proof=Proof(made.made_for(), (*LINES, line))).require_proof()
    said = f"{line.operation} should be {line.expected}, was {line.outcome}"
    assert said + (f" ({line.detail})" if line.detail else "") in str(refused.value)
    assert "put should be" not in str(refused.value) or line.operation == "put"


def test_a_proof_that_tried_nothing_is_refused() -> None:
    made = store()
    with pytest.raises(ContractError, match="nothing was tried"):
        replace(made, proof=Proof(made.made_for(), ())).require_proof()


@pytest.mark.parametrize(
    "line",
    [
        ProofLine("delete", "can't be refused here", "allowed"),
        ProofLine("delete", "can't be refused here", "refused"),
        ProofLine("other-bucket", "refused", "not tested", "no admin"),
    ],
)
def test_what_can_not_be_refused_or_tested_does_not_fail(line: ProofLine) -> None:
    made = store()
    replace(made, proof=Proof(made.made_for(), (*LINES, line))).require_proof()


def test_a_keyless_store_and_the_filesystem_need_no_proof() -> None:
    store(keyless=True, proof=None).require_proof()
    store(method="filesystem", proof=None).require_proof()


@pytest.mark.parametrize("version", [None, 0, 2, "1", [1]])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(ContractError, match="this release reads version 1"):
        contract.from_json({**contract.to_json(store()), "version": version})


def test_what_is_missing_unknown_and_wrong_is_named_at_once_without_a_value() -> None:
    plain = {**contract.to_json(store()), "secret_access_key": [SECRET], "later": 1, "keyless": "false"}
    del plain["bucket"]
    with pytest.raises(ContractError) as refused:
        contract.from_json(plain)
    assert "missing bucket" in str(refused.value)
    assert "unknown later" in str(refused.value)
    assert "keyless, secret_access_key" in str(refused.value)
    assert SECRET not in str(refused.value)


LINE_JSON = {"operation": "put", "expected": "allowed", "outcome": "allowed", "detail": ""}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keyless", "true"),
        ("keyless", 1),
        ("method", "ftp"),
        ("method", ["goofys"]),
        ("access", "more"),
        ("addressing", "dns"),
        ("checksums", "never"),
        ("lacks", "versioning"),
        ("lacks", [1]),
        ("cannot_refuse", {"delete": 1}),
        ("media_repo", ["s3"]),
        ("media_repo", {"s3": 1}),
        ("endpoint_url", 1),
        ("proof", "passed"),
        ("proof", {}),
        ("proof", {"made_for": "x", "lines": None}),
        ("proof", {"made_for": 1, "lines": []}),
        ("proof", {"made_for": "x", "lines": [], "more": 1}),
        ("proof", {"made_for": "x", "lines": ["put"]}),
        ("proof", {"made_for": "x", "lines": [{**LINE_JSON, "more": "x"}]}),
        ("proof", {"made_for": "x", "lines": [{"operation": "put"}]}),
        ("proof", {"made_for": "x", "lines": [{**LINE_JSON, "outcome": 1}]}),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(ContractError, match=f"not what they should be: {name}"):
        contract.from_json({**contract.to_json(store()), name: value})


@given(
    plain=st.dictionaries(
        st.sampled_from([item.name for item in fields(StorageOutputs)]),
        st.none() | st.text(max_size=3) | st.integers() | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_no_file_ends_in_anything_but_a_store_or_a_contract_error(plain: dict[str, Any]) -> None:
    try:
        contract.from_json({**contract.to_json(store()), **plain, "version": 1}).require_proof()
    except ContractError as refused:
        said = str(refused)
    else:
        said = "accepted"
    assert said
    assert SECRET not in said


def test_a_policy_hash_does_not_depend_on_how_it_is_written() -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:*"]}]}
    pretty = '{ "Statement": [ {"Action": ["s3:*"],\n "Effect":"Allow"} ], "Version": "2012-10-17" }'
    assert contract.policy_sha256(document) == contract.policy_sha256(pretty)
    assert contract.policy_sha256(document) != contract.policy_sha256({**document, "Statement": []})
    assert contract.policy_sha256(None) == contract.policy_sha256("") == ""
