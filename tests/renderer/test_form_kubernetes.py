"""The form for Kubernetes: manifests by Kubernetes' own schema, values as the chart takes them, commands that run."""

from __future__ import annotations

import base64
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from synapse_media.renderer import render
from tests.renderer import readers
from tests.renderer.readers import changes, rendered
from tests.renderer.samples import CASES, SECRET, providers, store

odd = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = ("ess/values.yaml", "ess/values-own-image.yaml")
ESS_CHART = os.environ.get("ESS_CHART", "")


def parsed(text: str) -> Any:
    """As YAML 1.1 and 1.2 have it alike."""
    found = readers.yaml_1_2(text)
    assert readers.yaml_1_1(text) == found
    return found


@odd
@given(
    changed=changes,
    case=st.sampled_from(sorted(CASES)),
)
@example(changed={"bucket": "${HOME}{{ .Values }}$$\\${X}"}, case="amazon")
def test_the_manifests_say_what_the_store_is(changed: dict[str, str], case: str) -> None:
    outputs = store(case, **changed)
    files = rendered(outputs, changed, "kubernetes")
    if not files:
        return
    configurations = [parsed(files[path])["synapse"]["additional"]["synapse-media"]["config"] for path in VALUES]
    configurations.append(parsed(files["any-chart/configmap.yaml"])["data"]["synapse-media.yaml"])
    for text in configurations:
        # ess-helm puts environment variables in place of what looks like one.
        assert "$" not in text
        assert parsed(text) == providers(outputs)
    assert ("secret.yaml" in files) is not outputs.keyless
    if not outputs.keyless:
        reader = configparser.RawConfigParser()
        reader.read_string(parsed(files["secret.yaml"])["stringData"]["credentials"])
        assert dict(reader["default"]) == {
            "aws_access_key_id": outputs.access_key_id,
            "aws_secret_access_key": outputs.secret_access_key,
        }
    if outputs.secret_access_key == SECRET:
        assert [path for path, text in files.items() if SECRET in text] == ["secret.yaml"]


@pytest.mark.parametrize("ca_file", ["", "/etc/ssl/ca.pem"])
@pytest.mark.parametrize("case", ["amazon", "compatible", "keyless"])
def test_kubernetes_accepts_the_manifests(case: str, ca_file: str) -> None:
    files = render(store(case, ca_file=ca_file), "kubernetes")
    documents = [parsed(files["any-chart/configmap.yaml"])]
    if case != "keyless":
        documents.append(parsed(files["secret.yaml"]))
    pod = parsed(files["any-chart/pod-patch.yaml"])["spec"]["template"]["spec"]
    values = parsed(files["ess/values.yaml"])["synapse"]
    for spec in (
        pod,
        # What the chart makes of the values (templates/synapse/_synapse_pod.tpl).
        {
            "initContainers": values["extraInitContainers"],
            "containers": [
                {"name": "synapse", "env": values.get("extraEnv", []), "volumeMounts": values["extraVolumeMounts"]}
            ],
            "volumes": values["extraVolumes"],
        },
    ):
        spec["containers"][0]["image"] = "synapse"
        mounted = {mount["name"] for part in spec["containers"] for mount in part["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        labels = {"app": "synapse"}
        documents.append(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "synapse"},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            }
        )
    for document in documents:
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [("example.com", "example.org"), ("a-b.example", "a.b.example"), ("Example.com", "example.com:8448")],
)
def test_homeservers_in_one_namespace_share_no_object(one: str, other: str) -> None:
    """`kubectl apply` would put the second's key and bucket in place of the first's, without a word."""
    names = []
    for server_name in (one, other):
        files = render(store("compatible", server_name=server_name, ca_file="/etc/ssl/ca.pem"), "kubernetes")
        manifests = [parsed(files[path]) for path in ("secret.yaml", "any-chart/configmap.yaml")]
        for manifest in manifests:
            kubernetes_validate.validate(manifest, "1.34", strict=True)
        made = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
        authority = re.search(r"kubectl create configmap (\S+)", files["INSTALL.md"])
        assert authority
        made.add(("ConfigMap", authority[1]))
        assert all(re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name) for _, name in made)
        # What the pod mounts is what was made.
        volumes = parsed(files["any-chart/pod-patch.yaml"])["spec"]["template"]["spec"]["volumes"]
        mounted = {("Secret", volume["secret"]["secretName"]) for volume in volumes if "secret" in volume}
        mounted |= {("ConfigMap", volume["configMap"]["name"]) for volume in volumes if "configMap" in volume}
        assert mounted == made
        names.append(made)
    assert not names[0] & names[1]


@pytest.mark.parametrize("path", VALUES)
@pytest.mark.parametrize("case", ["amazon", "compatible", "keyless"])
def test_the_chart_takes_the_values(case: str, path: str, tmp_path: Path) -> None:
    helm = shutil.which("helm")
    if not helm or not ESS_CHART:
        pytest.skip("needs helm, and ESS_CHART: the directory charts/matrix-stack of ess-helm, in no package registry")
    outputs = store(case, prefix="${HOME}{{ .Values.x }}\u2028%/" if case == "amazon" else "", ca_file="/etc/ca.pem")
    (tmp_path / "values.yaml").write_text(render(outputs, "kubernetes")[path])
    (tmp_path / "base.yaml").write_text(
        "serverName: ess.localhost\nelementWeb: {enabled: false}\nelementAdmin: {enabled: false}\n"
        "matrixRTC: {enabled: false}\nmatrixAuthenticationService: {enabled: false}\n"
        "synapse: {ingress: {host: synapse.ess.localhost}, workers: {media-repository: {enabled: true}}}\n"
    )
    printed = subprocess.run(
        [helm, "template", "ess", ESS_CHART, "--kube-version=1.34.0", "-f", "base.yaml", "-f", "values.yaml"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    ).stdout
    documents = [document for document in yaml.safe_load_all(printed) if document]
    (secret,) = (
        found for found in documents if found["kind"] == "Secret" and found["metadata"]["name"] == "ess-synapse"
    )
    assert parsed(base64.b64decode(secret["data"]["user-synapse-media"]).decode()) == providers(outputs)
    sets = [
        found for found in documents if found["kind"] == "StatefulSet" and "ess-synapse" in found["metadata"]["name"]
    ]
    assert len(sets) == 2
    for found in sets:
        spec = found["spec"]["template"]["spec"]
        names = {variable["name"] for variable in spec["containers"][0]["env"]}
        assert {"AWS_CA_BUNDLE"} <= names
        assert ("AWS_SHARED_CREDENTIALS_FILE" in names) == (case != "keyless")
        assert ("PYTHONPATH" in names) == (path == VALUES[0])
        kubernetes_validate.validate(found, "1.34", strict=True)


def test_the_init_container_brings_the_module_and_what_it_needs(tmp_path: Path) -> None:
    values = parsed(render(store("amazon"), "kubernetes")["ess/values.yaml"])["synapse"]
    (container,) = values["extraInitContainers"]
    *shell, script = container["command"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
    subprocess.run(
        [*shell, script.replace("/modules", str(tmp_path))], check=True, capture_output=True, env=environment
    )
    there = {path.name for path in tmp_path.iterdir()}
    assert {"s3_storage_provider.py", "boto3", "botocore", "s3transfer", "jmespath", "urllib3"} <= there
    # What Synapse's image has in another version, or must not get twice.
    assert not {"twisted", "psycopg2", "synapse"} & there


def test_a_secret_that_is_there_already_is_named_and_none_is_written() -> None:
    bare = store("amazon", secret_access_key="")
    files = render(bare, "kubernetes", "reference", source="secret:media-key")
    assert "secret.yaml" not in files
    volumes = parsed(files["ess/values.yaml"])["synapse"]["extraVolumes"]
    assert [volume["secret"]["secretName"] for volume in volumes if "secret" in volume] == ["media-key"]
    assert "kubectl get secret media-key" in files["INSTALL.md"]
    assert all(SECRET not in text for text in render(store("amazon"), "kubernetes", "reference").values())


# A double of kubectl, helm, podman and sops: it notes that it was called, and fails where a file that it is given is
# not there.
TOOL = """#!/bin/sh
echo "$0 $*" >>"$LOG"
for word; do
    case "$word" in *.yaml | image) [ -e "$word" ] || { echo "$word is not there" >&2; exit 1; } ;; esac
done
"""


@pytest.mark.parametrize("ca_file", ["", "/etc/ssl/ca.pem"])
@pytest.mark.parametrize(("case", "secrets"), [("amazon", "plain"), ("amazon", "reference"), ("keyless", "plain")])
def test_the_commands_of_install_md_run_and_undo_leaves_no_secret(
    case: str, secrets: Any, ca_file: str, tmp_path: Path
) -> None:
    place, tools = tmp_path / "rendered", tmp_path / "bin"
    tools.mkdir()
    for path, text in render(store(case, ca_file=ca_file), "kubernetes", secrets).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)
    for name in ("kubectl", "helm", "podman", "sops"):
        (tools / name).write_text(TOOL)
        (tools / name).chmod(0o755)
    text = (place / "INSTALL.md").read_text()
    commands = re.findall(r"^ {4}((?:(?:kubectl|helm|podman|sops|rm) .*)(?:\n {8}.*)*)", text, flags=re.MULTILINE)
    assert len(commands) >= 8
    subprocess.run(
        ["/bin/bash", "-eu"],
        input="\n".join(commands).encode(),
        cwd=place,
        check=True,
        env={
            "PATH": f"{tools}:{os.defpath}",
            "LOG": str(tmp_path / "log"),
            **dict.fromkeys(("NAMESPACE", "SYNAPSE_IMAGE", "OWN_IMAGE"), "x"),
        },
    )
    assert not [path for path in place.rglob("*") if path.is_file() and SECRET in path.read_text()]
    deleted = "delete secret" in (tmp_path / "log").read_text()
    assert deleted == (case != "keyless")


def test_two_homeservers_of_one_namespace_have_objects_of_their_own() -> None:
    names: list[set[tuple[str, str]]] = []
    for server in ("one.example.com", "Two.example.com:8448"):
        files = render(store("amazon", server_name=server, ca_file="/etc/ssl/ca.pem"), "kubernetes")
        objects = [parsed(files[path]) for path in ("secret.yaml", "any-chart/configmap.yaml")]
        names.append({(found["kind"], found["metadata"]["name"]) for found in objects})
        made = re.findall(r"kubectl create configmap (\S+)", files["INSTALL.md"])
        assert made == [f"synapse-media-{server.lower().replace(':', '-')}-ca"]
        undo = files["INSTALL.md"].partition("## Undo")[2]
        assert all(name in undo for _, name in names[-1])
        # What the pods mount is what was made.
        for path in ("any-chart/pod-patch.yaml", *VALUES):
            assert all(name in files[path] for kind, name in names[-1] if kind == "Secret")
            assert made[0] in files[path]
    assert names[0] == {
        ("Secret", "synapse-media-one.example.com"),
        ("ConfigMap", "synapse-media-one.example.com-config"),
    }
    assert not names[0] & names[1]
