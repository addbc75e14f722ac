"""The schema of the package for other languages, and how a component is made for them, without an engine.

`UPDATE_GOLDEN=1 pytest tests/languages` writes schema.json anew.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import Any

import pulumi
import pytest
from pulumi.errors import InputPropertiesError
from pulumi.resource import DependencyResource
from pulumi.runtime import set_mocks

import synapse_media
from components import AmazonS3Args, Keys, S3CompatibleArgs
from components.package import Components, arguments, names_in_schema, own_options
from synapse_media import catalog
from tests.languages.programs import HERE
from tests.providers.mocked import Declared

GOLDEN = HERE / "schema.json"
A_PARENT = "urn:pulumi:dev::infra::pulumi:pulumi:Stack::infra-dev"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Components().schema or "")
    return loaded


def test_the_schema_is_the_one_that_was_reviewed(found: dict[str, Any]) -> None:
    assert found.pop("version") == synapse_media.__version__
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_every_component_is_in_it_with_every_argument_of_users_and_no_other(found: dict[str, Any]) -> None:
    assert list(found["resources"]) == [
        f"synapse-media:index:{family.component_class}" for family in catalog.families()
    ]
    taken = found["resources"]["synapse-media:index:AmazonS3"]["inputProperties"]
    own = {item.name for item in fields(AmazonS3Args)} - {"from_stack_file"}
    assert set(taken) == {names_in_schema(name) for name in own}
    for resource in found["resources"].values():
        for name, input_ in resource["inputProperties"].items():
            assert input_["description"], name
            assert "_" not in name


def test_only_what_a_resource_may_give_is_not_plain(found: dict[str, Any]) -> None:
    taken = found["resources"]["synapse-media:index:AmazonS3"]["inputProperties"]
    later = {name for name, input_ in taken.items() if not input_.get("plain")}
    assert later == {
        "bucket",
        "endpoint",
        "iamEndpoint",
        "kmsKey",
        "logBucket",
        "prefix",
        "region",
        "tags",
        "user",
    }


def test_only_the_secret_is_secret(found: dict[str, Any]) -> None:
    for resource in found["resources"].values():
        secret = {name for name, output in resource["properties"].items() if output.get("secret")}
        assert secret == {"outputs", "secretAccessKey"}


def test_what_arrives_becomes_the_arguments_that_python_takes() -> None:
    made = arguments(
        S3CompatibleArgs,
        {
            "serverName": "example.com",
            "bucket": "media",
            "abortDays": 3.0,
            "keys": {"active": "b", "retiring": ["a"]},
            "allow": ["retire-key"],
            "region": None,
        },
    )
    assert made == S3CompatibleArgs(
        server_name="example.com",
        bucket="media",
        abort_days=3,
        keys=Keys(active="b", retiring=("a",)),
        allow=["retire-key"],
    )
    assert isinstance(made.abort_days, int)


def test_an_argument_of_another_release_is_named_and_so_is_a_missing_one() -> None:
    with pytest.raises(InputPropertiesError) as raised:
        arguments(S3CompatibleArgs, {"serverName": "example.com", "fromStackFile": True})
    reasons = {error["property_path"]: error["reason"] for error in raised.value.errors or ()}
    assert set(reasons) == {"bucket", "fromStackFile"}
    assert "serverName" in reasons["fromStackFile"]
    assert "The name of the bucket" in reasons["bucket"]


def test_a_bucket_is_protected_where_the_program_says_nothing_of_it() -> None:
    arrived = own_options(
        pulumi.ResourceOptions(protect=False, retain_on_delete=False, ignore_changes=[], replace_on_changes=[])
    )
    assert (arrived.protect, arrived.retain_on_delete) == (None, None)
    assert (arrived.ignore_changes, arrived.replace_on_changes) == (None, None)
    kept = own_options(pulumi.ResourceOptions(protect=True, ignore_changes=["bucket"]))
    assert (kept.protect, kept.ignore_changes) == (True, ["bucket"])


@pytest.mark.parametrize(
    ("component", "package", "region"),
    [("AmazonS3", "aws", "eu-central-1"), ("DigitalOceanSpaces", "digitalocean", "fra1")],
)
def test_two_stores_of_a_vendor_bring_a_plugin_each(component: str, package: str, region: str) -> None:
    """Each is created by a separate call, and two resources of one name would be refused."""
    recorder = Declared()
    set_mocks(recorder, project="infra", stack="dev", preview=True)

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def calls() -> pulumi.Output[Any]:
        made = [
            Components().construct(
                name,
                f"synapse-media:index:{component}",
                {"serverName": f"{name}.example.com", "bucket": f"media-{name}", "region": region},
                pulumi.ResourceOptions(parent=DependencyResource(A_PARENT), protect=False),
            )
            for name in ("one", "two")
        ]
        return pulumi.Output.all(*(result.state["secretAccessKey"] for result in made))

    calls()
    vendors = [name for kind, name, _ in recorder.resources if kind == f"pulumi:providers:{package}"]
    assert sorted(vendors) == ["one", "two"]
