"""`synapse-media render` from a store.json."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main, render, stacks, stores
from synapse_media.contract import ContractError, to_json
from synapse_media.errors import UsageError
from tests.cli.shapes import answer
from tests.renderer.samples import SECRET, store


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(to_json(store("amazon"))))
    return path


def test_render_says_what_it_does_and_how_to_undo_it(
    store_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["render", "--store", str(store_file), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "2 written, 0 unchanged" in shown
    assert "just run-tags setup-synapse,start" in shown
    assert "Local copies stay" in shown
    assert SECRET not in shown
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "matrix.example.com/store.json",
        "matrix.example.com/inventory/host_vars/matrix.example.com/synapse-media.yml",
    }
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o600}
    assert stores.load_file(str(out / "matrix.example.com/store.json")) == store("amazon")
    assert main(["render", "--store", str(store_file), "--out", str(out)]) == 0
    assert "0 written, 2 unchanged" in capsys.readouterr().out


def test_what_is_printed_to_copy_the_files_runs_whatever_the_directory_is_called(
    store_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PLAYBOOK").mkdir()
    assert main(["render", "--store", str(store_file), "--out", "it's $HOME"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("cp -r")]
    subprocess.run(["sh", "-c", line], check=True)
    assert list((tmp_path / "PLAYBOOK").rglob("synapse-media.yml"))


def test_what_was_rendered_can_be_had_as_json(
    store_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["render", "--store", str(store_file), "--out", str(tmp_path / "out"), "--json"]
    assert main([*words, "--diff"]) == 2
    assert "example-com-media" in answer("render", capsys.readouterr().out)["difference"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert SECRET not in printed
    found = answer("render", printed)["rendered"]["matrix.example.com"]
    assert found["directory"] == str(tmp_path / "out/matrix.example.com")
    assert "matrix.example.com/store.json" in found["written"]
    assert found["does"]
    assert found["apply"]
    assert found["undo"]


def test_what_another_form_left_is_named(store_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["render", "--store", str(store_file), "--out", str(tmp_path)])
    assert "Not of this run" not in capsys.readouterr().out
    main(["render", "--store", str(store_file), "--out", str(tmp_path), "--form", "plain"])
    assert "Not of this run, and not to be used with it: matrix.example.com/inventory/" in capsys.readouterr().out


def test_diff_writes_nothing(store_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["render", "--store", str(store_file), "--out", str(out), "--form", "plain"]
    assert main([*words, "--diff"]) == 2
    shown = capsys.readouterr().out
    assert not out.exists()
    assert '+      bucket: "example-com-media"' in shown
    assert SECRET not in shown
    main(words)
    capsys.readouterr()
    assert main([*words, "--diff"]) == 0
    assert capsys.readouterr().out == ""


def test_by_reference_the_secret_is_in_no_file_and_comes_from_the_environment(
    store_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "--store", str(store_file), "--out", str(tmp_path / "out"), "--secrets", "reference"]) == 0
    assert "SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM" in capsys.readouterr().out
    assert all(SECRET not in path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())
    bare = str(tmp_path / "out/matrix.example.com/store.json")
    assert stores.load_file(bare).secret_access_key == ""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-somebody-else")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "SOMEBODY-ELSE")
    assert stores.load_file(bare).secret_access_key == ""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", store("amazon").access_key_id)
    assert stores.load_file(bare).secret_access_key == "of-somebody-else"
    monkeypatch.setenv("SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM", SECRET)
    assert stores.load_file(bare) == store("amazon")
    monkeypatch.setenv("SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM", f"{SECRET}\n")
    assert main(["prove", "--store", bare]) == 1
    told = capsys.readouterr().err
    assert "SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM has a line break in it" in told
    assert SECRET not in told
    monkeypatch.delenv("SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert main(["prove", "--store", bare]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "is neither in this store.json nor in the environment. Load the environment file" in told
    assert "set SYNAPSE_MEDIA_SECRET_MATRIX_EXAMPLE_COM to the secret" in told
    shared = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    assert main(["prove", "--store", bare]) == 1
    assert "can't be read as a credentials file" in capsys.readouterr().err
    shared.write_text(f"aws_secret_access_key = {SECRET}\n[default]\n")
    assert main(["prove", "--store", bare]) == 1
    assert SECRET not in capsys.readouterr().err
    shared.write_text(
        f"[other]\naws_access_key_id = OTHER\naws_secret_access_key = x\n[media]\n"
        f"aws_access_key_id = {store('amazon').access_key_id}\naws_secret_access_key = {SECRET}\n"
    )
    assert stores.load_file(bare) == store("amazon")
    shared.write_text(shared.read_text().replace(store("amazon").access_key_id, "ANOTHER"))
    assert stores.load_file(bare).secret_access_key == ""


def test_several_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The double: outputs of a stack, without an engine."""
    loaded = [store("amazon"), store("compatible", server_name="example.org:8448", bucket="two")]
    monkeypatch.setattr(stacks, "load", lambda _: loaded)
    assert render.run(arguments("--stack", "prod", "--form", "plain", "--out", str(tmp_path))) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example.org", "matrix.example.com"]
    one = arguments("--stack", "prod", "--server", "example.org:8448", "--out", str(tmp_path / "one"))
    assert render.run(one) == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["example.org"]
    with pytest.raises(
        UsageError, match=r"--server other is not among the stores; there are: matrix\.example\.com, ex"
    ):
        render.run(arguments("--stack", "prod", "--server", "other", "--out", str(tmp_path)))
    loaded.append(store("amazon", server_name="example.org"))
    with pytest.raises(UsageError, match="two homeservers would be written to"):
        render.run(arguments("--stack", "prod", "--out", str(tmp_path / "two")))
    assert not (tmp_path / "two").exists()


def test_nothing_is_written_where_one_store_can_not_be_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [store("amazon"), store("compatible", server_name="example.org", prefix="/slash-first")]
    monkeypatch.setattr(stacks, "load", lambda _: loaded)
    assert main(["render", "--stack", "prod", "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--secrets", "vault"], "needs --vault-password-file"),
        (["--secrets", "vault", "--form", "plain", "--vault-password-file", "f"], "goes with --form playbook alone"),
        (["--vault-password-file", "f"], "is for --secrets vault"),
    ],
)
def test_wrong_usage(words: list[str], said: str, store_file: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["render", "--store", str(store_file), "--out", str(tmp_path), *words]) == 64
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "form", "taken"),
    [
        ("synapse-s3-storage-provider", "playbook", False),
        ("synapse-s3-storage-provider", "plain", False),
        ("goofys", "playbook", False),
        ("goofys", "plain", True),
        ("matrix-media-repo", "playbook", False),
        ("matrix-media-repo", "plain", True),
        ("filesystem", "playbook", False),
        ("filesystem", "plain", True),
    ],
)
def test_a_media_path_is_written_somewhere_or_refused(
    method: str, form: str, taken: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "given.json", tmp_path / "out"
    given.write_text(json.dumps(to_json(store(method=method))))
    words = ["render", "--store", str(given), "--out", str(out), "--form", form, "--media-path", "/srv/xyz"]
    assert main(words) == (0 if taken else 64)
    assert ("--media-path has no effect" in capsys.readouterr().err) != taken
    assert any("/srv/xyz" in path.read_text() for path in out.rglob("*.yaml")) == taken


def test_a_media_path_without_a_file_datastore_is_refused(tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps(to_json(store("amazon", "matrix-media-repo"))))
    words = ["render", "--store", str(given), "--out", str(tmp_path / "out"), "--form", "plain"]
    assert main([*words, "--media-path", "/srv/xyz"]) == 64
    assert main(words) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "not the outputs of a store"),
        ("{}", "version None"),
        ('{"region": "a", "bucket": "b", "region": "c"}', "region: is there twice"),
    ],
)
def test_a_file_that_is_no_store(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ContractError, match=said):
        stores.load_file(str(path))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"endpoint_url": "x"}, "endpoint_url is 'x'"),
        ({"endpoint_url": "http://a_b"}, "endpoint_url is 'http://a_b'"),
        ({"region": "a b"}, "region is 'a b'"),
    ],
)
def test_a_store_that_boto3_refuses(changed: dict[str, str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    path.write_text(json.dumps({**to_json(store("amazon")), **changed}))
    with pytest.raises(ContractError, match=said):
        stores.load_file(str(path))


def test_a_password_in_the_endpoint_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    path.write_text(json.dumps({**to_json(store("amazon")), "endpoint_url": "https://user:hidden@s3.example.com"}))
    with pytest.raises(ContractError, match="endpoint_url has a user name or a password") as refused:
        stores.load_file(str(path))
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("server_name", "hosts", "options", "host"),
    [
        ("example.com", None, [], "matrix.example.com"),
        ("matrix.example.com", None, [], "matrix.example.com"),
        ("matrix.org", None, [], "matrix.matrix.org"),
        ("example.com:8448", None, [], "matrix.example.com"),
        ("example.com", None, ["--inventory-host", "node-1"], "node-1"),
        ("example.com", "[matrix_servers]\nmatrix.example.com ansible_host=192.0.2.1\n", [], "matrix.example.com"),
        ("example.com", "matrix_servers:\n  hosts:\n    matrix.example.com:\n", [], "matrix.example.com"),
        ("example.com", "[matrix_servers]\nexample.com ansible_host=192.0.2.1\n", [], "example.com"),
        ("example.com", "[matrix_servers]\nnode-1\n", ["--inventory-host", "node-1"], "node-1"),
    ],
)
def test_the_variables_are_those_of_the_host_in_the_inventory(
    server_name: str,
    hosts: str | None,
    options: list[str],
    host: str,
    *,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, out = tmp_path / "given.json", tmp_path / "out"
    given.write_text(json.dumps(to_json(store("amazon", server_name=server_name))))
    if hosts is not None:
        (tmp_path / "inventory").mkdir()
        (tmp_path / "inventory/hosts").write_text(hosts)
        options = [*options, "--inventory", str(tmp_path / "inventory")]
    assert main(["render", "--store", str(given), "--out", str(out), *options]) == 0
    assert (out / server_name.partition(":")[0] / f"inventory/host_vars/{host}/synapse-media.yml").is_file()
    assert (f"for the host {host} of the inventory; --inventory DIR looks" in capsys.readouterr().out) == (
        hosts is None
    )


@pytest.mark.parametrize("host", ["a b", "../../x", "m\u00e4trix", "a..b"])
def test_a_host_in_the_inventory_that_is_none_is_named(
    host: str, store_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["render", "--store", str(store_file), "--out", str(tmp_path / "out"), "--inventory-host", host]
    assert main(words) == 64
    assert f"--inventory-host is {host!r}, which names no host" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("hosts", ["[matrix_servers]\nmatrix.example.community\n# matrix.example.com\n", ""])
def test_a_host_that_is_not_in_the_inventory_is_said(hosts: str, tmp_path: Path, capsys: Any) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps(to_json(store("amazon", server_name="example.com"))))
    (tmp_path / "inventory/host_vars/matrix.example.community").mkdir(parents=True)
    (tmp_path / "inventory/hosts").write_text(hosts)
    words = [
        "render",
        "--store",
        str(given),
        "--out",
        str(tmp_path / "out"),
        "--inventory",
        str(tmp_path / "inventory"),
    ]
    assert main(words) == 64
    said = " ".join(capsys.readouterr().err.split())
    assert "has no host matrix.example.com or example.com, so that Ansible would not read" in said
    assert "Under host_vars there: matrix.example.community. Name the host as the inventory does" in said
    assert "for those, leave out --inventory." in said
    assert not (tmp_path / "out").exists()
    assert main([*words, "--form", "plain"]) == 64
    assert "go with --form playbook alone" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "none")]) == 64
    assert "is not a directory" in capsys.readouterr().err
