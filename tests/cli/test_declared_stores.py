"""Stores that a program declares itself, with none in the stack file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from synapse_media import catalog
from synapse_media.cli import stacks
from synapse_media.contract import ContractError

COMPONENT = "urn:pulumi:prod::acme::synapse-media:index:S3Compatible::media"


def session(resources: list[dict[str, Any]]) -> Any:
    """A stack without outputs."""
    return SimpleNamespace(
        stack=SimpleNamespace(name="prod"),
        engine=SimpleNamespace(outputs=lambda _: {}),
        state=lambda: {"deployment": {"resources": resources}},
    )


def test_a_program_that_exports_no_stores_is_told_to_publish_them() -> None:
    urn = "urn:pulumi:prod::acme::synapse-media:index:S3Compatible$s3store:index:Bucket::media"
    declared = [
        {
            "urn": COMPONENT,
            "type": "synapse-media:index:S3Compatible",
            "inputs": {"serverName": "example.com"},
        },
        {"urn": urn, "type": "s3store:index:Bucket", "parent": COMPONENT, "inputs": {"bucket": "media"}},
    ]
    with pytest.raises(
        ContractError, match=r"has some \(example\.com\)\. If its last `up` did not end.* has to `publish` them"
    ):
        stacks.outputs_of(session(declared))
    assert stacks.outputs_of(session(declared), required=False) == []
    with pytest.raises(ContractError, match="has no stores yet"):
        stacks.outputs_of(session([]))


def test_a_program_may_need_any_providers_credential() -> None:
    named = set(stacks._every_variable())
    for provider in catalog.names():
        assert set(catalog.load(provider).admin_variables) <= named
