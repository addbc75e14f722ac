"""The command: several files together, files that are none, what is shown, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from synapse_media import cli, lint, renderer
from synapse_media.errors import UsageError
from synapse_media.lint.reading import MAX_BYTES
from synapse_media.renderer.vault import Vault
from tests.cli.shapes import answer
from tests.end_to_end import synapse as real_synapse
from tests.lint.test_kinds import ALL
from tests.lint.test_rules import (
    BAD,
    BASE,
    GOOD_DATASTORES,
    GOOD_GOOFYS,
    GOOD_MODULE,
    GOOD_PROVIDER,
    SECRET,
    G,
    M,
    R,
    nightly,
    synapse,
)
from tests.renderer.samples import SECRET as RENDERED_SECRET
from tests.renderer.samples import store
from tests.renderer.test_renderer_golden import COMBINATIONS

DOCS = Path(__file__).parents[2] / "docs" / "check.md"


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


def names(report: lint.Report) -> list[str]:
    return [finding.rule for finding in report.findings]


# Rules that need more than one file, and the files.
TOGETHER: dict[str, dict[str, str]] = {
    "not-read": {"homeserver.yaml": BASE, "conf.d/media.yml": GOOD_PROVIDER + "    bucket: x\n    region_name: y\n"},
    "list-replaced": {
        "homeserver.yaml": BASE + "media_storage_providers:\n- module: file_system\n  config: {directory: /backup}\n",
        "conf.d/s3.yaml": synapse().removeprefix(BASE),
    },
    "datastore-lost": {
        "media-repo.yaml": GOOD_DATASTORES.replace('"one"', '"older"'),
        "synapse-media.yaml": GOOD_DATASTORES.removeprefix("repo: {port: 8000}\n"),
    },
    "two-methods-one-bucket": {"homeserver.yaml": synapse(), "media-repo.yaml": GOOD_DATASTORES.replace(":9000", "")},
    "two-homeservers-one-bucket": {"host_vars/a/vars.yml": GOOD_MODULE, "host_vars/b/vars.yml": GOOD_MODULE},
    "two-repositories": {"homeserver.yaml": BASE, "media-repo.yaml": GOOD_DATASTORES},
}


@pytest.mark.parametrize("rule", TOGETHER)
def test_found_between_files(tmp_path: Path, rule: str) -> None:
    write(tmp_path, TOGETHER[rule])
    paths = [tmp_path] if rule in ("not-read", "list-replaced") else [tmp_path / name for name in TOGETHER[rule]]
    assert rule in names(lint.check(paths))


def test_every_rule_has_a_sample() -> None:
    sampled = {bad[0] for bad in BAD} | set(TOGETHER) | {"secret-readable"} | {rule for case in ALL for rule in case[3]}
    assert {rule.name for rule in lint.ALL_RULES} == sampled


def test_the_later_file_wins_as_it_does_for_synapse(tmp_path: Path) -> None:
    write(tmp_path, {"homeserver.yaml": synapse("-bucket"), "conf.d/s3.yaml": synapse().removeprefix(BASE)})
    assert names(lint.check([tmp_path / "homeserver.yaml"])) == ["bucket-missing"]
    assert names(lint.check([tmp_path])) == []
    # The same bucket under an endpoint that is written otherwise; and one of its name elsewhere.
    write(tmp_path, {"homeserver.yaml": synapse("endpoint_url: https://S3.example.com:443/")})
    assert names(lint.check([tmp_path])) == []
    write(tmp_path, {"homeserver.yaml": synapse("endpoint_url: https://s3.example.org")})
    assert names(lint.check([tmp_path])) == ["list-replaced"]
    write(tmp_path, {"homeserver.yaml": synapse("-bucket")})
    # The order that is given, as with -c: a list with a bucket is replaced by one without.
    assert names(lint.check([tmp_path / "conf.d", tmp_path / "homeserver.yaml"])) == ["list-replaced", "bucket-missing"]


def test_host_vars_are_read_by_name_and_apart_from_each_other(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a/vars.yml": nightly(f"{M}update_db_day_count: 0"),
            "a/synapse-media.yml": f"{M}update_db_day_count: 36500\n",
            "b/vars.yml": GOOD_GOOFYS,
        },
    )
    # vars.yml comes after synapse-media.yml, and wins.
    assert names(lint.check([tmp_path / "a"])) == ["nightly-clean-up"]
    found = lint.check([tmp_path / "a", tmp_path / "b"])
    assert names(found) == ["nightly-clean-up", "two-methods-one-bucket"]


def test_variables_of_groups_are_those_of_each_host(tmp_path: Path) -> None:
    without = GOOD_MODULE.replace(f"{M}enabled: true\n", "").replace(f"{M}store_synchronous: true\n", "")
    write(
        tmp_path,
        {
            "inventory/group_vars/all.yml": f"{M}enabled: true\n{M}store_synchronous: false\n",
            "inventory/group_vars/matrix_servers/media.yml": f"{M}store_synchronous: true\n{M}config_endpoint_url: x\n",
            "inventory/host_vars/a/vars.yml": without,
            "inventory/host_vars/b.yml": without.replace("acme-media", "other-media").replace(
                f"{M}config_endpoint_url: https://s3.example.com\n", ""
            ),
        },
    )
    inventory = tmp_path / "inventory"
    groups = [inventory / "group_vars", inventory / "group_vars/matrix_servers"]
    assert lint.check([*groups, inventory / "host_vars/a"]).findings == ()
    # The endpoint of the group is that of the host that has none, and is found once.
    found = lint.check([*groups, inventory / "host_vars/a", inventory / "host_vars"])
    assert [(finding.rule, Path(finding.file).name) for finding in found.findings] == [
        ("endpoint-without-scheme", "media.yml")
    ]
    # Alone they are checked as they are.
    assert "endpoint-without-scheme" in names(lint.check(groups[1:]))


def test_a_domain_of_matrix_media_repo_replaces_the_datastores_for_itself_alone(tmp_path: Path) -> None:
    own = "homeserver: b.example\n" + GOOD_DATASTORES.removeprefix("repo: {port: 8000}\n")
    write(
        tmp_path,
        {"00-main.yaml": GOOD_DATASTORES, "b.yaml": own.replace('"one"', '"three"').replace('"two"', '"four"')},
    )
    assert names(lint.check([tmp_path])) == []
    write(tmp_path, {"b.yaml": own.replace("[all]", "[local_media]")})
    assert names(lint.check([tmp_path])) == ["kind-unstored"]


def test_a_job_is_listed_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"upload.sh": "cd /x\ns3_media_upload upload /data/media acme-media --delete\n"})
    assert cli.main(["check", "--json", str(tmp_path / "upload.sh")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["files"] == {str(tmp_path / "upload.sh"): "a job with s3_media_upload"}
    assert [(found["rule"], found["line"]) for found in answer["findings"]] == [("upload-deletes", 2)]


def test_two_homeservers_in_one_run_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a/homeserver.yaml": synapse(), "b/homeserver.yaml": synapse().replace("example.com", "x.org", 1)})
    with pytest.raises(UsageError, match="different homeservers"):
        lint.check([tmp_path / "a", tmp_path / "b"])


def test_what_an_encrypted_file_may_hold_is_not_missed(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "vars.yml": nightly(f"-{M}config_secret_access_key", f"-{M}update_db_day_count", f"-{M}store_synchronous"),
            "vault.yml": "$ANSIBLE_VAULT;1.1;AES256\n6162\n",
        },
    )
    report = lint.check([tmp_path])
    assert names(report) == []
    assert report.files[str(tmp_path / "vault.yml")] == "encrypted"


def test_a_secret_that_everybody_may_read(tmp_path: Path) -> None:
    write(tmp_path, {"homeserver.yaml": synapse(), "vars.yml": "matrix_domain: example.com\n"})
    file = tmp_path / "homeserver.yaml"
    file.chmod(0o640)
    assert names(lint.check([tmp_path])) == []
    file.chmod(0o644)
    (tmp_path / "vars.yml").chmod(0o644)
    assert names(lint.check([tmp_path])) == ["secret-readable"]


# The examples of the playbook's own guides (commit c0681e4b), as somebody has them who only copied: what is left to do.
GUIDES: dict[str, tuple[str, set[str]]] = {
    "module": (
        f"""\
{M}enabled: true
{M}config_bucket: your-bucket-name
{M}config_region_name: some-region-name
{M}config_endpoint_url: https://s3.REGION_NAME.amazonaws.com
{M}config_storage_class: STANDARD
{M}config_access_key_id: access-key-goes-here
{M}config_secret_access_key: secret-key-goes-here
{M}periodic_migration_schedule: "*-*-* 05:00:00"
""",
        {"nightly-clean-up", "placeholder", "playbook-not-synchronous"},
    ),
    "Goofys": (
        f"""\
{G}enabled: true
{G}bucket_name: "your-bucket-name"
{G}aws_access_key: "access-key-goes-here"
{G}aws_secret_key: "secret-key-goes-here"
{G}region: "eu-central-1"
{G}path: /matrix/s3-media-store
""",
        {"placeholder", "goofys-storage-class", "goofys-migrating"},
    ),
    "Goofys elsewhere": (
        f"""\
{G}enabled: true
{G}bucket_name: "your-bucket-name"
{G}aws_access_key: "access-key-goes-here"
{G}aws_secret_key: "secret-key-goes-here"
{G}region: "eu-central-1"
{G}custom_endpoint_enabled: true
{G}custom_endpoint: "https://your-custom-endpoint"
""",
        {"placeholder"},
    ),
    "matrix-media-repo": (
        f"""\
matrix_media_repo_enabled: true
{R}file_id: "CHANGE_ME_TO_A_UNIQUE_VALUE"
{R}file_for_kinds: ["thumbnails", "remote_media", "local_media", "archives"]
{R}s3_for_kinds: []
{R}s3_opts_temp_path: ""
{R}s3_opts_endpoint: "sfo2.digitaloceanspaces.com"
{R}s3_opts_access_key_id: ""
{R}s3_opts_access_secret: ""
{R}s3_opts_ssl: true
{R}s3_opts_bucket_name: "your-media-bucket"
""",
        {"datastore-id-example"},
    ),
}


@pytest.mark.parametrize("guide", GUIDES)
def test_right_on_the_examples_of_the_playbook(tmp_path: Path, guide: str) -> None:
    text, expected = GUIDES[guide]
    write(tmp_path, {"vars.yml": text})
    assert set(names(lint.check([tmp_path]))) == expected


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_nothing_is_found_in_what_is_rendered(
    tmp_path: Path, combination: tuple[str, renderer.Form, renderer.Secrets, str]
) -> None:
    method, form, secrets, case = combination
    files = renderer.render(store(case, method), form, secrets)
    wanted = {path: text for path, text in files.items() if path.endswith((".yml", ".yaml")) and "/" in path}
    read = {
        path: text
        for path, text in wanted.items()
        if path.split("/")[0] in ("inventory", "conf.d", "media-repo.d", "any-chart", "ess")
    }
    write(tmp_path, read)
    if not read:
        assert form == "nixos" or (method, form) == ("filesystem", "plain")
        return
    if method == "filesystem":
        with pytest.raises(UsageError):  # `{}`: nothing to look into
            lint.check([tmp_path / path for path in read])
        return
    report = lint.check([tmp_path / path for path in read])
    # The playbook's prefix is said of any: nobody knows from the file when the store was begun.
    assert {finding.rule for finding in report.findings} <= {"prefix-once-ignored"}
    assert set(report.files.values()) <= {*(kind.value for kind in lint.Kind), "versions"}


def test_nothing_is_found_in_vars_with_a_vault(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse")
    password.chmod(0o600)
    vault = Vault(password)
    files = renderer.render(store(), "playbook", seal=lambda _, value: vault.value(value, []))
    write(tmp_path, files)
    report = lint.check([tmp_path / path for path in files])
    assert {finding.rule for finding in report.findings} <= {"prefix-once-ignored"}


def test_nothing_is_found_in_what_synapse_generates(tmp_path: Path) -> None:
    file = tmp_path / "homeserver.yaml"
    subprocess.run(
        [
            *(str(real_synapse.installed()), "-m", "synapse.app.homeserver", "--server-name", "example.com"),
            *("--config-path", str(file), "--generate-config", "--report-stats", "no"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text().replace(str(tmp_path), "/srv/synapse"))  # pytest's own is below /tmp
    report = lint.check([file])
    assert report.findings == ()
    assert list(report.files.values()) == ["homeserver.yaml"]


# What is said to keep Synapse from starting, or to be ignored by it: Synapse's own loader decides.
REFUSED_BY_SYNAPSE = ("storage-class-refused", "provider-and-backup", "provider-form", "bucket-missing")


def test_synapse_itself_refuses_what_is_said_to_keep_it_from_starting(tmp_path: Path) -> None:
    home = real_synapse.home(tmp_path / "home")
    samples = [bad for bad in BAD if bad[0] in REFUSED_BY_SYNAPSE and bad[1] == "homeserver.yaml"]
    assert {bad[0] for bad in samples} == set(REFUSED_BY_SYNAPSE)
    drop_in = tmp_path / "media.yaml"
    for _, __, text in samples:
        drop_in.write_text(text.removeprefix(BASE))
        with pytest.raises(real_synapse.ConfigError):
            home.load(drop_in)
    drop_in.write_text(synapse("threadpool_size: 80\nunknown: 1", "media_store_providers: [x]\n").removeprefix(BASE))
    (provider,) = home.load(drop_in).media_storage_providers
    assert {"threadpool_size", "unknown"}.isdisjoint(provider["config"])


BROKEN: dict[str, tuple[bytes, str]] = {
    "binary": (b"server_name: a\0b\n", "binary"),
    "latin": ("server_name: é\n".encode("latin-1"), "UTF-8"),
    "tab": (b"a:\n\t- b\n", "not valid YAML"),
    "two documents": (b"a: 1\n---\nb: 2\n", "more than one YAML document"),
    "no such date": (b"a: 2026-99-99\n", "invalid value of its type"),
    "python": (b"a: !!python/object/apply:os.system [ls]\nserver_name: x\n", ""),
    "deep": (b"a: " + b"[" * 50_000, "nested"),
    "itself": (b"a: &a [*a]\n", "contains itself"),
    "bomb": (
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 10)) for n in range(ord("b"), ord("k"))),
        "more than",
    ),
    "huge": (b"#" * (MAX_BYTES + 1), "bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_invalid_file_is_reported(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, word = BROKEN[name]
    (tmp_path / "homeserver.yaml").write_bytes(content)
    code = cli.main(["check", str(tmp_path / "homeserver.yaml")])
    shown = capsys.readouterr().out
    if word:
        assert code == 1
        assert word in shown
        assert shown.count("unreadable") == 1
    else:
        assert code == 0


@pytest.mark.parametrize("text", ["", "---\n", "- a\n- b\n", "hello\n", "name: somebody\n", "{}\n"])
def test_what_is_no_configuration_is_wrong_usage(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.yaml").write_text(text)
    assert cli.main(["check", str(tmp_path / "some.yaml")]) == 64
    assert "not a homeserver.yaml" in capsys.readouterr().err


def test_paths_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(tmp_path / "none.yaml")]) == 64
    assert "does not exist" in capsys.readouterr().err
    assert cli.main(["check", str(tmp_path)]) == 64
    assert "no *.yaml" in capsys.readouterr().err


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "homeserver.yaml")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    assert cli.main(["check", str(tmp_path / "homeserver.yaml"), str(tmp_path / "gone.yaml")]) == 1
    shown = capsys.readouterr().out
    assert "not a regular file" in shown
    assert "No such file" in shown


LEAKY = (
    f"{M}enabled: true\n{M}config_secret_access_key: *{SECRET}\n",
    f'{M}enabled: true\n{M}config_secret_access_key: "{SECRET}\n',
    f"{M}enabled: true\n{M}config_secret_access_key: %{SECRET}\n",
    f"{M}enabled: true\n{M}config_secret_access_key: {SECRET}: x\n",
    f"{M}enabled: true\n{M}config_secret_access_key: !!int {SECRET}\n",
    f"{M}enabled: true\n{M}config_secret_access_key: !<{SECRET}\n",
    f"{M}enabled: true\n{M}config_secret_access_key: {{{SECRET}\n",
    f"server_name: x\nmedia_storage_providers: {SECRET}\n",
    synapse(f"endpoint_url: user:{SECRET}@s3.example.com"),
)


@pytest.mark.parametrize("text", [*LEAKY, *(bad[2] for bad in BAD)])
def test_no_secret_is_shown(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yml"
    file.write_text(text)
    cli.main(["check", str(file)])
    cli.main(["check", "--json", str(file)])
    shown = "".join(capsys.readouterr())
    assert shown
    # Not even a part of it, as YAML's own messages would have.
    assert not any(part in shown for part in (SECRET, SECRET[:12], SECRET[-12:], RENDERED_SECRET))


def test_exit_codes_and_the_report_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "homeserver.yaml"
    write(tmp_path, {"homeserver.yaml": synapse()})
    assert cli.main(["check", str(file)]) == 0
    assert capsys.readouterr().out == "1 file: nothing found\n"
    write(tmp_path, {"homeserver.yaml": synapse("prefix: media")})
    assert cli.main(["check", str(file)]) == 0
    assert cli.main(["check", "--strict", str(file)]) == 1
    assert capsys.readouterr().out.endswith("1 file: 1 warns\n")
    write(tmp_path, {"homeserver.yaml": synapse("prefix: media\nstorage_class: GLACIER")})
    assert cli.main(["check", "--json", str(file)]) == 1
    report = answer("check", capsys.readouterr().out)
    assert report["files"] == {str(file): "homeserver.yaml"}
    # The worst first.
    assert [(found["rule"], found["severity"]) for found in report["findings"]] == [
        ("storage-class-refused", "breaks"),
        ("prefix-form", "warns"),
    ]
    assert {"file", "line", "setting", "reason", "mend", "link"} < set(report["findings"][0])


def test_the_documentation_has_every_rule() -> None:
    rows = [line.split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    listed = {(row[0].strip("| `"), row[1], row[2].removesuffix(" |")) for row in rows}
    assert listed == {(rule.name, str(rule.severity), rule.summary) for rule in lint.ALL_RULES}
