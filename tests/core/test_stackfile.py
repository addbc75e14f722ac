"""Stack files on disk: finding, reading, and the messages of refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synapse_media import stackfile
from synapse_media.errors import SettingsError, UsageError

GOOD = """\
config:
  synapse-media:stores:
    matrix.example.com:
      provider: s3_compatible
      endpoint: https://s3.example.com
      iam_endpoint: https://iam.example.com
      bucket: example-media
    local.example.com: {method: filesystem}
    other.example.com: {provider: wasabi, region: eu-central-1, bucket: other-media}
  synapse-media:allow: [matrix.example.com/delete-bucket, gone.example.com/retain-bucket]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("name: synapse-media\nstackConfigDir: stacks\n")
    (tmp_path / "stacks/Pulumi.good.yaml").write_text(GOOD)
    return tmp_path


def write(project: Path, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    (project / "stacks/Pulumi.s.yaml").write_bytes(data)


def test_a_stack_file_is_read(project: Path) -> None:
    stack = stackfile.read(project, "good")
    assert set(stack.stores) == {"matrix.example.com", "local.example.com", "other.example.com"}
    assert stack.path == project / "stacks/Pulumi.good.yaml"
    assert stack.allow == ("matrix.example.com/delete-bucket", "gone.example.com/retain-bucket")
    assert stack.stores["matrix.example.com"].allow == {"delete-bucket"}


@pytest.mark.parametrize("again", ["local.example.com: {method: goofys}", "synapse-media:stores: {}"])
def test_a_key_that_is_there_twice_is_refused(project: Path, again: str) -> None:
    """YAML's loader takes the last one: the store before it would be gone, and its bucket up for deletion."""
    indent = "  " if again.startswith("synapse") else "    "
    write(project, GOOD.replace("  synapse-media:allow", f"{indent}{again}\n  synapse-media:allow"))
    with pytest.raises(stackfile.StackFileError, match=r"'[\w:.-]+' is there twice, keep one.* line \d+"):
        stackfile.read(project, "s")


def test_what_an_anchor_brings_along_may_be_overruled(project: Path) -> None:
    more = "    more.example.com: {<<: &usual {method: goofys}, method: filesystem}\n"
    write(project, GOOD.replace("  synapse-media:allow", f"{more}  synapse-media:allow"))
    assert stackfile.read(project, "s").stores["more.example.com"].method == "filesystem"


def test_each_admin_variable_is_named_once(project: Path) -> None:
    assert stackfile.read(project, "good").admin_variables == (
        "S3_ACCESS_KEY_ID",
        "S3_SECRET_ACCESS_KEY",
        "WASABI_ACCESS_KEY_ID",
        "WASABI_SECRET_ACCESS_KEY",
    )


def test_a_missing_stack_is_answered_with_those_there_are(project: Path) -> None:
    with pytest.raises(stackfile.StackFileError, match=r"Pulumi\.nosuch\.yaml does not exist; stacks here: good"):
        stackfile.read(project, "nosuch")


@pytest.mark.parametrize("name", ["", "../x", "a/b/c/d", "a//b", "org/..", "-s", ".x", "a b", "a\n", "x" * 101, "ä"])
def test_a_stack_name_is_no_path(project: Path, name: str) -> None:
    with pytest.raises(UsageError, match="the stack's name is"):
        stackfile.read(project, name)


@pytest.mark.parametrize(
    "text",
    [
        "config: [",
        "a: b: c",
        "config:\n\t- x",
        b"\xff\xfe\x00bad",
        b"config: \x00",
        "config: !!python/object/apply:os.system ['true']",
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(project: Path, text: str | bytes) -> None:
    write(project, text)
    with pytest.raises(stackfile.StackFileError, match=r"Pulumi\.s\.yaml can't be read as YAML"):
        stackfile.read(project, "s")


@pytest.mark.parametrize("text", ["", "[]", "just text", "3"])
def test_what_is_no_object_is_refused(project: Path, text: str) -> None:
    write(project, text)
    with pytest.raises(stackfile.StackFileError, match="is not a YAML mapping"):
        stackfile.read(project, "s")


@pytest.mark.parametrize("text", ["config:", "config: []", "config: x"])
def test_a_config_that_is_no_object_is_refused(project: Path, text: str) -> None:
    write(project, text)
    with pytest.raises(stackfile.StackFileError, match="`config:` in it is no object"):
        stackfile.read(project, "s")


@pytest.mark.parametrize("text", ["encryptionsalt: v1:x", "config: {acme:size: 3}"])
def test_a_file_of_a_program_that_declares_its_stores_itself(project: Path, text: str) -> None:
    """As plain pulumi writes it. What only reads what the last run left can do without stores in it."""
    write(project, text)
    found = stackfile.read(project, "s", stores_required=False)
    assert (found.stores, found.allow) == ({}, ())
    with pytest.raises(SettingsError, match="synapse-media:stores is missing"):
        stackfile.read(project, "s")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("synapse-media:defualts", "defaults"),
        ("synapse-media:default", "defaults"),
        ("synapse-media:alow", "allow"),
        ("synapse-media:variabels", "variables"),
        ("synapse_media:allow", "allow"),
    ],
)
def test_a_key_that_is_nearly_ours_is_refused(project: Path, key: str, meant: str) -> None:
    """The built-in values counted in place of the defaults, without a word."""
    write(project, GOOD + f"  {key}: {{}}\n")
    with pytest.raises(stackfile.StackFileError, match=rf"'{key}', which nothing reads.*mean synapse-media:{meant}\?"):
        stackfile.read(project, "s")


@pytest.mark.parametrize(
    "key", ["synapse-media:region", "synapse-media:default_region", "my-media:stores", "aws:allow"]
)
def test_a_key_of_the_program_s_own_is_left_to_it(project: Path, key: str) -> None:
    write(project, GOOD + f"  {key}: x\n")
    assert len(stackfile.read(project, "s").stores) == 3


def test_more_than_pulumi_can_hand_on_is_refused(project: Path) -> None:
    """The language host's own words are "argument list too long", from which nobody knows what to do."""

    def stores(count: int) -> str:
        own = {f"m{number}.example.com": {"bucket": f"media-{number:04}"} for number in range(count)}
        config = {"synapse-media:stores": own, "synapse-media:defaults": {"provider": "wasabi", "region": "us-east-1"}}
        return json.dumps({"config": config})

    write(project, stores(2000))
    assert len(stackfile.read(project, "s").stores) == 2000
    write(project, stores(4000))
    with pytest.raises(
        stackfile.StackFileError, match=r"is \d\d\d,\d{3} bytes .* allowed: 130,000.*:defaults.*several"
    ):
        stackfile.read(project, "s")


def test_the_allow_list_of_such_a_file_is_checked_too(project: Path) -> None:
    write(project, "config: {synapse-media:allow: [example.com/delete-buckt, delete-bucket]}")
    with pytest.raises(SettingsError, match=r"Did you mean example\.com/delete-bucket\?") as refused:
        stackfile.read(project, "s", stores_required=False)
    assert [problem.value for problem in refused.value.problems] == ["example.com/delete-buckt", "delete-bucket"]


def test_settings_are_checked_all_at_once(project: Path) -> None:
    write(
        project, "config: {synapse-media:stores: {a: {provider: x, bucket: Y}}, synapse-media:allow: a/delete-bucket}"
    )
    with pytest.raises(SettingsError) as refused:
        stackfile.read(project, "s")
    assert [problem.setting for problem in refused.value.problems] == [
        "synapse-media:allow",
        "stores.a.provider",
        "stores.a.bucket",
    ]


def test_a_directory_in_its_place_is_refused(project: Path) -> None:
    (project / "stacks/Pulumi.s.yaml").mkdir()
    with pytest.raises(stackfile.StackFileError, match=r"Pulumi\.s\.yaml can't be read"):
        stackfile.read(project, "s")


@pytest.mark.parametrize("name", ["good", "acme/good", "acme/synapse-media/good"])
def test_a_stack_of_an_organization_has_the_same_file(project: Path, name: str) -> None:
    stack = stackfile.read(project, name)
    assert (stack.path, stack.name) == (project / "stacks/Pulumi.good.yaml", name)
    assert stackfile.short_name(stack.name) == "good"


def test_a_backend_without_organizations_has_a_placeholder(project: Path) -> None:
    for name in ("good", "organization/good", "organization/synapse-media/good"):
        assert stackfile.without_placeholder(project, name) == "good"
    assert stackfile.without_placeholder(project, "acme/good") == "acme/good"
    with pytest.raises(UsageError, match="of the project 'other'; the project here is 'synapse-media'"):
        stackfile.without_placeholder(project, "organization/other/good")


def test_stack_files_are_where_pulumi_has_them(project: Path, tmp_path: Path) -> None:
    (project / "deep/er").mkdir(parents=True)
    for setting, place in (
        ("", project),
        ("stackConfigDir: deep/er\n", project / "deep/er"),
        (f"stackConfigDir: {tmp_path}/deep\n", tmp_path / "deep"),
    ):
        (project / "Pulumi.yaml").write_text(f"name: synapse-media\n{setting}")
        (place / "Pulumi.moved.yaml").write_text(GOOD)
        assert stackfile.read(project, "moved").path == place / "Pulumi.moved.yaml"
    (project / "Pulumi.yaml").write_text("name: synapse-media\nstackConfigDir: [a]\n")
    with pytest.raises(stackfile.StackFileError, match=r"stackConfigDir is \['a'\]; allowed: a directory's name"):
        stackfile.read(project, "moved")


def test_the_project_is_found_from_below(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project / "a/b"
    below.mkdir(parents=True)
    assert stackfile.find_project(below) == project
    monkeypatch.chdir(below)
    assert stackfile.find_project() == project


def test_no_project_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no Pulumi\.yaml in") as refused:
        stackfile.find_project(tmp_path)
    assert refused.value.exit_code == 64


SHARED = """\
# Of all homeservers.
config:
  synapse-media:defaults:   # of every store
    provider: wasabi
    region: eu-central-1
  synapse-media:stores:
    # the first
    one.example.com:
      bucket: one-media  # never change this

    two.example.com:
      bucket: two-media
      keys:
        active: a
        retiring: []

  # What may pass a guard.
  synapse-media:allow: []
"""


def test_defaults_are_those_of_every_store(project: Path) -> None:
    write(project, SHARED)
    stores = stackfile.read(project, "s").stores
    assert {(store.provider, store.region) for store in stores.values()} == {("wasabi", "eu-central-1")}


def test_a_store_is_added_after_the_last_one_and_every_other_line_stays(project: Path) -> None:
    write(project, SHARED)
    path = project / "stacks/Pulumi.s.yaml"
    path.chmod(0o640)
    stackfile.add_store(path, "three.example.com", {"bucket": "three-media", "tags": {"a": "é"}})
    added = "    three.example.com:\n      bucket: three-media\n      tags:\n        a: é\n"
    before, after = SHARED.split("        retiring: []\n")
    assert path.read_text(encoding="utf-8") == f"{before}        retiring: []\n{added}{after}"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        'config:\n  synapse-media:stores: \'{"local.example.com": {"method": "filesystem"}}\'\n',
        "config:\n  synapse-media:stores: {local.example.com: {method: filesystem}}",
        "config:\n    synapse-media:stores:\n        local.example.com:\n            method: filesystem",
        "config:\n  synapse-media:stores:\n    local.example.com: &usual\n      method: filesystem\n"
        "    other.example.com: *usual\n",
        "config:\n  synapse-media:stores:\n    local.example.com:\n      method: |-\n        filesystem\n# end\n",
    ],
)
def test_a_store_is_added_however_the_file_is_written(project: Path, text: str) -> None:
    write(project, text)
    before = stackfile.read(project, "s").stores
    stackfile.add_store(project / "stacks/Pulumi.s.yaml", "new.example.com", {"method": "filesystem"})
    after = stackfile.read(project, "s").stores
    assert after.keys() == before.keys() | {"new.example.com"}
    assert {name: after[name] for name in before} == before
