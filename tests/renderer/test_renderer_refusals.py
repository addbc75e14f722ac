"""What is not rendered, and what is said then; and what the renderer may not do."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any, get_args

import pytest

from synapse_media import renderer
from synapse_media.contract import ContractError, Proof, ProofLine
from synapse_media.methods import METHODS
from synapse_media.renderer import RenderError, instructions, render
from tests.renderer.samples import CASES, SECRET, proved, store

S3 = "synapse-s3-storage-provider"


@pytest.mark.parametrize("form", renderer.FORMS)
def test_nothing_is_rendered_without_a_proof_made_for_it(form: renderer.Form) -> None:
    with pytest.raises(ContractError, match="never proved"):
        render(CASES["amazon"], form)
    with pytest.raises(ContractError, match="another key"):
        render(replace(store("amazon"), access_key_id="AKIAOTHER"), form)
    failed = Proof(store("amazon").made_for(), (ProofLine("delete", "refused", "allowed"),))
    with pytest.raises(ContractError, match="delete should be refused"):
        render(replace(store("amazon"), proof=failed), form)


def of_forms(*methods: str) -> list[tuple[str, renderer.Form]]:
    return [(method, form) for method in methods for form in renderer.forms(method)]


@pytest.mark.parametrize(("method", "form"), of_forms(S3, "goofys"))
def test_a_store_without_a_key_is_to_be_proved_on_the_instance(method: str, form: renderer.Form) -> None:
    files = render(replace(store("keyless", method), proof=None), form)
    assert "to be proved on the instance" in re.sub(r"\s+#?\s*", " ", " ".join(files.values()))


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        (S3, {"endpoint_url": "s3.example.com"}, r"^endpoint_url is 's3\.example\.com'; allowed: scheme and host"),
        (S3, {"endpoint_url": "https://s3.example.com/bucket"}, "^endpoint_url is "),
        (S3, {"endpoint_url": "https://me@s3.example.com"}, "^endpoint_url is "),
        (S3, {"endpoint_url": "http://[::1"}, "^endpoint_url is "),
        (S3, {"prefix": "/media"}, "^prefix is '/media'"),
        (S3, {"prefix": "/media/"}, "^prefix is '/media/'"),
        (S3, {"storage_class": "ONEZONE_IA"}, r"^storage_class is 'ONEZONE_IA'; synapse-s3-storage-provider takes STA"),
        (S3, {"bucket": ""}, "^bucket is missing"),
        (S3, {"region": ""}, "^region is missing"),
        (S3, {"access_key_id": ""}, "^access_key_id is missing"),
        (S3, {"secret_access_key": ""}, "^secret_access_key is missing in these outputs"),
        (S3, {"server_name": "../../etc"}, r"^server_name is '\.\./\.\./etc', which names no host"),
        (S3, {"server_name": "a..example.com"}, "^server_name is "),
        (S3, {"server_name": "a-.example.com"}, "^server_name is "),
        (S3, {"server_name": "a\nb"}, "^server_name is "),
        ("goofys", {"prefix": "media/"}, "^prefix is 'media/', but goofys supports none"),
        ("goofys", {"storage_class": "STANDARD_IA"}, "^storage_class is 'STANDARD_IA'; goofys takes STANDARD"),
        ("matrix-media-repo", {"prefix": "media/"}, "^prefix is 'media/', but matrix-media-repo supports none"),
        ("matrix-media-repo", {"media_repo": {}}, r"^media_repo\.s3_datastore_id is missing"),
        (
            "matrix-media-repo",
            {"media_repo": {"s3_datastore_id": "one", "file_datastore_id": "one"}},
            "^media_repo has the same id for two datastores",
        ),
    ],
)
def test_what_would_break_is_refused(method: str, changes: dict[str, Any], said: str) -> None:
    for form in renderer.forms(method):
        with pytest.raises(RenderError, match=said):
            render(store("amazon", method, **changes), form)


def test_every_problem_is_said_at_once() -> None:
    outputs = store("amazon", endpoint_url="s3.example.com", prefix="/media", storage_class="GLACIER", region="")
    with pytest.raises(RenderError) as caught:
        render(outputs, "playbook")
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "region",
        "endpoint_url",
        "prefix",
        "storage_class",
    ]


@pytest.mark.parametrize("form", renderer.forms("matrix-media-repo"))
def test_media_repo_needs_a_key(form: renderer.Form) -> None:
    with pytest.raises(RenderError, match="keyless can't be used with matrix-media-repo"):
        render(store("keyless", "matrix-media-repo"), form)


def test_media_repo_has_its_key_in_one_place() -> None:
    with pytest.raises(RenderError, match="secrets can't be by reference"):
        render(store("amazon", "matrix-media-repo"), "plain", "reference")


def test_a_relative_media_path_and_an_unknown_method_are_refused() -> None:
    with pytest.raises(RenderError, match="media_path 'media' is not an absolute path"):
        render(store("amazon", "goofys"), "plain", media_path="media")
    with pytest.raises(RenderError, match="method 'floppy' can't be rendered"):
        render(replace(CASES["amazon"], method="floppy"), "plain")


def test_a_method_in_the_table_has_a_module() -> None:
    for method in METHODS:
        for form in renderer.forms(method):
            outputs = store("amazon", method)
            assert render(outputs, form)
            said = instructions(outputs, form)
            assert said.does
            assert said.apply
            assert said.undo


@pytest.mark.parametrize(("method", "form"), of_forms(*METHODS))
def test_a_port_is_no_part_of_a_directory(method: str, form: renderer.Form) -> None:
    files = render(store("amazon", method, server_name="example.com:8448"), form)
    assert not any(":" in path for path in files)
    if form == "playbook":
        assert "inventory/host_vars/matrix.example.com/synapse-media.yml" in files


def test_one_method_sets_no_switch_of_another() -> None:
    switches = {
        S3: "matrix_synapse_ext_synapse_s3_storage_provider_enabled: true",
        "goofys": "matrix_s3_media_store_enabled: true",
        "matrix-media-repo": "matrix_media_repo_enabled: true",
    }
    for method in METHODS:
        text = "".join(render(store("amazon", method), "playbook").values())
        assert {name for name, switch in switches.items() if switch in text} == {method} & set(switches)


@pytest.mark.parametrize(
    ("form", "method", "step"),
    [
        ("nixos", "matrix-media-repo", "systemd service of your own whose REPO_CONFIG names a directory"),
        ("nixos", "filesystem", "`synapse-media switch --to filesystem --form nixos`"),
        ("kubernetes", "goofys", f"Set method: {S3} in the stack file"),
        ("kubernetes", "matrix-media-repo", "Render it with --form plain"),
        ("kubernetes", "filesystem", "docs/forms/kubernetes.md"),
        ("floppy", "goofys", "choose one of these"),
    ],
)
def test_a_form_that_a_method_does_not_have_is_refused_with_what_to_do(form: Any, method: str, step: str) -> None:
    allowed = "playbook, plain, nixos" if method == "goofys" else "playbook, plain"
    said = f"form is '{form}', which {method} does not have; allowed: {allowed}: .*{re.escape(step)}"
    with pytest.raises(RenderError, match=said):
        render(store("amazon", method), form)
    with pytest.raises(RenderError, match=said):
        instructions(store("amazon", method), form)


def test_every_form_is_one_that_a_method_has_or_whose_lack_is_explained() -> None:
    assert set(renderer.forms(S3)) == set(renderer.FORMS) == set(get_args(renderer.Form))


def test_options_that_do_nothing_or_delete_are_left_out() -> None:
    for form in renderer.FORMS:
        text = "".join(render(store("compatible"), form).values())
        for word in (
            "threadpool_size",
            "request_checksum_calculation",
            "--delete",
            "enable_local_media_storage: false",
        ):
            assert f"{word}" not in text


def test_the_secret_shows_in_no_representation_and_no_instructions() -> None:
    outputs = store("amazon", "goofys")
    assert SECRET not in repr(outputs)
    assert SECRET not in repr(instructions(outputs, "plain"))


def test_importing_the_renderer_loads_nothing_slow() -> None:
    script = (
        "import sys; import synapse_media.renderer; "
        "print({'pulumi', 'boto3', 'botocore', 'yaml', 'ansible', 'socket', 'subprocess'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout == "set()\n"


def test_a_proof_is_needed_for_each_prefix_and_method() -> None:
    for changes in ({"prefix": "other/"}, {"method": "goofys", "prefix": ""}, {"bucket": "other"}):
        with pytest.raises(ContractError, match="another key"):
            render(replace(store(), **changes), "plain")
        assert render(proved(replace(store(), **changes)), "plain")
