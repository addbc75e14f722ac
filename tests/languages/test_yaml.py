"""A Pulumi YAML program with the components, by the real YAML language host, on the embedded store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from tests.doubles.vendor_plugin import install
from tests.languages.programs import PACKAGE, YAML_HOST, Program, built, program


@pytest.fixture(scope="module")
def host() -> Path:
    return built(YAML_HOST)


@pytest.fixture
def infra(
    host: Path, embedded_store: Running, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Program]:
    """A YAML project with the package added, and a stack `dev` that is not made yet."""

    def made(component: str = "S3Compatible", **resources: dict[str, Any]) -> Program:
        found = program(tmp_path, embedded_store)
        found.engine.environment["PATH"] += os.pathsep + str(host.parent)
        places = {"endpoint": embedded_store.endpoint, "iamEndpoint": embedded_store.iam_endpoint, "settleSeconds": 0}
        shared = places if component == "S3Compatible" else {}
        declared = {
            name: {"type": f"synapse-media:{component}", "properties": {**shared, **properties}}
            for name, properties in resources.items()
        }
        first = next(iter(resources))
        outputs = {name: f"${{{first}.{name}}}" for name in ("accessKeyId", "bucket", "proof", "secretAccessKey")}
        # Stacks of one project's name would share their state.
        project = {"name": request.node.name, "runtime": "yaml", "resources": declared, "outputs": outputs}
        (tmp_path / "Pulumi.yaml").write_text(yaml.safe_dump(project, sort_keys=False))
        found.pulumi("package", "add", str(PACKAGE))
        found.engine.ensure_stack("dev")
        return found

    return made


def changes(found: Program) -> dict[str, int]:
    summary: dict[str, int] = json.loads(found.pulumi("preview", "--json", "--stack", "dev"))["changeSummary"]
    return summary


def test_a_yaml_program_has_a_proved_store(infra: Callable[..., Program]) -> None:
    found = infra(media={"serverName": "example.com", "bucket": "yaml-media", "keys": {"active": "b"}})
    project = yaml.safe_load((found.folder / "Pulumi.yaml").read_text())
    assert list(project["packages"]) == ["synapse-media"], "the one thing that `package add` writes"
    assert "plugins" not in project
    found.pulumi("up", "--yes", "--skip-preview", "--stack", "dev")

    outputs = found.engine.outputs("dev")
    assert outputs["bucket"] == "yaml-media"
    assert {line["outcome"] for line in outputs["proof"]["lines"]} == {"allowed", "refused"}
    found.assert_deletes("yaml-media", (outputs["accessKeyId"], outputs["secretAccessKey"]), allowed=False)
    state = found.engine.export("dev")
    assert outputs["secretAccessKey"] not in json.dumps(state)
    resources = {item["type"].split("$")[-1]: item for item in state["deployment"]["resources"]}
    assert resources["s3store:index:Bucket"]["protect"] is True
    assert list(resources["s3store:index:KeyRing"]["outputs"]["keys"]) == ["b"]
    assert set(changes(found)) == {"same"}


def test_what_another_resource_gives_is_taken_where_it_can_be(infra: Callable[..., Program]) -> None:
    found = infra(
        first={"serverName": "first.example.com", "bucket": "yaml-first"},
        # In the preview nobody knows the first one's key.
        second={
            "serverName": "second.example.com",
            "bucket": "${first.bucket}-second",
            "user": "of-${first.accessKeyId}",
        },
    )
    assert changes(found)["create"] > 10
    found.pulumi("up", "--yes", "--skip-preview", "--stack", "dev")
    made = {
        item["inputs"]["userName"]
        for item in found.engine.export("dev")["deployment"]["resources"]
        if item["type"].endswith("KeyRing")
    }
    assert made == {"synapse-media-yaml-first", f"of-{found.engine.outputs('dev')['accessKeyId']}"}
    assert set(changes(found)) == {"same"}


def test_two_stores_of_a_vendor_are_in_one_program(infra: Callable[..., Program]) -> None:
    """Each with its own plugin, since a component is created by a call that does not know the others. On a stand-in."""
    install()
    found = infra(
        "AmazonS3",
        one={"serverName": "one.example.com", "bucket": "media-one", "region": "eu-central-1"},
        two={"serverName": "two.example.com", "bucket": "media-two", "region": "eu-central-1"},
    )
    preview = json.loads(found.pulumi("preview", "--json", "--stack", "dev"))
    kinds = [step["urn"].split("::", 2)[2] for step in preview["steps"]]
    vendor = "synapse-media:index:AmazonS3$pulumi:providers:aws"
    assert sorted(kind for kind in kinds if "pulumi:providers:aws" in kind) == [f"{vendor}::one", f"{vendor}::two"]
    made_by = {step["newState"]["provider"] for step in preview["steps"] if "aws:s3/bucket:Bucket" in step["urn"]}
    assert len(made_by) == 2


def test_all_wrong_arguments_are_named_as_the_program_writes_them(infra: Callable[..., Program]) -> None:
    found = infra(media={"serverName": "example.com", "bucket": "NO", "abortDays": 0, "noncurrentDays": 0})
    with pytest.raises(EngineError) as raised:
        found.pulumi("preview", "--stack", "dev")
    said = str(raised.value)
    for name in ("bucket", "abortDays", "noncurrentDays"):
        assert f"S3Compatible 'media': args.{name} is " in said
    assert "Traceback" not in said
    assert "File " not in said


def test_the_host_itself_knows_what_is_needed_and_allowed(infra: Callable[..., Program]) -> None:
    found = infra(media={"serverName": "example.com", "access": "some"})
    with pytest.raises(EngineError, match="Missing required property 'bucket'") as raised:
        found.pulumi("preview", "--stack", "dev")
    assert 'Allowed values are Least ("least"), Full ("full")' in str(raised.value)
