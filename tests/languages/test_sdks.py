"""The SDKs that `pulumi package add` generates for TypeScript and Go: they compile, and a program with each makes a
store on the embedded server.

The programs are run by the Automation API, so that they need no language host: Pulumi's hosts for Node.js and Go are
on no package registry.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from synapse_media.engine.embedded import Running
from synapse_media.engine.processes import environment
from tests.languages.programs import HERE, PACKAGE, SDK_WRITER, Program, built, program

MODULE = "example.com/pulumi-synapse-media/sdk/go"


@pytest.fixture(scope="module")
def sdks(embedded_store: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an SDK for each language: `go` and `nodejs`."""
    folder = tmp_path_factory.mktemp("sdks")
    (folder / "schema.json").write_text(program(folder, embedded_store).pulumi("package", "get-schema", str(PACKAGE)))
    subprocess.run([built(SDK_WRITER), folder / "schema.json", folder], check=True)
    return folder


def run(
    *command: str | Path, cwd: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A compiler or a package manager, as a developer runs it."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**environment(r"GO[A-Z0-9]+|(?i:npm_config_\w+)|NODE_EXTRA_CA_CERTS"), **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def outputs(found: Program, *command: str) -> dict[str, Any]:
    """What a program says of the store that it made: outputs by name, their values alone."""
    done = found.run(*command)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {name for name, output in said.items() if output["secret"]} == {"secretAccessKey"}
    return {name: output["value"] for name, output in said.items()}


def assert_proved(found: Program, made: Mapping[str, Any], bucket: str) -> None:
    """That the store is there, was proved, and its key may delete, as the program's method needs."""
    assert made["bucket"] == bucket
    assert {line["outcome"] for line in made["proof"]["lines"]} == {"allowed", "refused"}
    found.assert_deletes(bucket, (made["accessKeyId"], made["secretAccessKey"]), allowed=True)


def test_the_go_sdk_compiles_and_makes_a_store(sdks: Path, embedded_store: Running, tmp_path: Path) -> None:
    for source in (HERE / "sdk/go.mod", HERE / "sdk/go.sum", HERE / "go/main.go"):
        shutil.copy(source, tmp_path)
    shutil.copytree(sdks / "go", tmp_path / "sdk")
    run("go", "mod", "edit", f"-require={MODULE}@v0.0.0", f"-replace={MODULE}=./sdk", cwd=tmp_path)
    # As the engine is built, so that what the two share is compiled once.
    flags = {"GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
    run("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", "infra", ".", cwd=tmp_path, variables=flags)
    run("go", "build", "-trimpath", "-ldflags", "-s -w", f"{MODULE}/...", cwd=tmp_path, variables=flags)

    found = program(tmp_path, embedded_store, BUCKET="go-media")
    assert_proved(found, outputs(found, str(tmp_path / "infra")), "go-media")


def test_the_typescript_sdk_compiles_and_makes_a_store(sdks: Path, embedded_store: Running, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine: the TypeScript SDK is neither compiled nor run")
    for source in (HERE / "typescript").iterdir():
        if source.is_file():
            shutil.copy(source, tmp_path)
    shutil.copytree(sdks / "nodejs", tmp_path / "sdk")
    run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=tmp_path)
    run(tmp_path / "node_modules/.bin/tsc", cwd=tmp_path)
    # The SDK's own build puts it beside what is compiled: its version is read from it.
    shutil.copy(sdks / "nodejs/package.json", tmp_path / "bin/sdk")

    found = program(tmp_path, embedded_store, BUCKET="typescript-media")
    assert_proved(found, outputs(found, node, "--no-deprecation", "bin/index.js"), "typescript-media")
