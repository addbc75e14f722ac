"""Runbooks as text in review (`UPDATE_GOLDEN=1 pytest tests/runbook` writes it anew), their order, what is refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from synapse_media import cli
from synapse_media.cli.commandline import parser
from synapse_media.contract import StorageOutputs, to_json
from synapse_media.errors import UsageError
from synapse_media.methods import FILESYSTEM, GOOFYS, MEDIA_REPO, METHODS, MODULE
from synapse_media.renderer import Form, render
from synapse_media.renderer.writing import write
from synapse_media.runbook import (
    DangerousOrderError,
    Effect,
    Runbook,
    RunbookError,
    Step,
    migrations,
    require_safe,
    runbook,
)
from synapse_media.runbook.media import COMMAND
from synapse_media.runbook.rclone import Remote
from synapse_media.runbook.site import Site
from tests.cli.shapes import answer
from tests.renderer.samples import S3_ID, SECRET, store

GOLDEN = Path(__file__).parent / "golden"
FORMS = ("playbook", "plain", "nixos")

NEW = {
    "provider": "backblaze_b2",
    "bucket": "new-media",
    "endpoint_url": "https://s3.eu-central-003.backblazeb2.com",
    "region": "eu-central-003",
}


def new_store(method: str, **changes: str) -> StorageOutputs:
    return store("amazon", method, **NEW, **changes)


# name: (where the homeserver is now, --to, the store that is made already)
ENDS: dict[str, tuple[StorageOutputs, str, StorageOutputs | None]] = {
    **{
        f"{before}-to-{after}": (store("amazon", before), after, None)
        for before, after in itertools.permutations(METHODS, 2)
    },
    **{
        f"{method}-to-another-provider": (store("amazon", method), "backblaze_b2", new_store(method))
        for method in (MODULE, GOOFYS, MEDIA_REPO)
    },
    f"{MODULE}-to-a-provider-to-come": (store("amazon", MODULE, prefix="media/"), "wasabi", None),
    f"{MEDIA_REPO}-to-a-provider-to-come": (store("amazon", MEDIA_REPO), "wasabi", None),
    f"{FILESYSTEM}-to-a-provider": (store("amazon", FILESYSTEM), "wasabi", None),
    f"{MODULE}-to-{GOOFYS}-elsewhere": (store("compatible", MODULE), GOOFYS, new_store(GOOFYS)),
}


CASES = [
    (form, name)
    for form in FORMS
    for name, (current, to, target) in ENDS.items()
    # NixOS has no form for matrix-media-repo.
    if form != "nixos" or MEDIA_REPO not in (current.method, to, target.method if target else "")
]


@pytest.mark.parametrize(("form", "name"), CASES)
def test_golden(name: str, form: str) -> None:
    current, to, target = ENDS[name]
    text = str(runbook(current, to, form=form, target=target, stack="prod"))  # type: ignore[arg-type]
    file = GOLDEN / form / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
    assert max(map(len, text.splitlines())) < 200


def test_no_golden_file_is_left_over() -> None:
    assert {str(file.relative_to(GOLDEN)) for file in GOLDEN.rglob("*.txt")} == {
        f"{form}/{name}.txt" for form, name in CASES
    }


@pytest.mark.parametrize(("form", "name"), CASES)
def test_every_step_says_how_to_check_and_undo_it_and_a_shell_takes_its_commands(name: str, form: str) -> None:
    current, to, target = ENDS[name]
    plan = runbook(current, to, form=form, target=target)  # type: ignore[arg-type]
    for step in plan.steps:
        assert step.title
        assert step.why
        assert step.check
        assert step.undo
        assert step.where in ("here", "playbook", "server")
        assert form == "playbook" or step.where != "playbook"
    script = "\n".join(command for step in plan.steps for command in step.commands)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert SECRET not in str(plan)
    assert json.loads(json.dumps(plan.to_json()))["steps"][0]["number"] == 1


@pytest.mark.parametrize(("form", "name"), CASES)
def test_the_old_place_is_emptied_last_and_after_the_content_was_compared(name: str, form: str) -> None:
    current, to, target = ENDS[name]
    steps = runbook(current, to, form=form, target=target).steps  # type: ignore[arg-type]
    effects = [effect for step in steps for effect in step.effects]
    assert effects.index(Effect.VERIFIED) < effects.index(Effect.EMPTIED) if Effect.EMPTIED in effects else True
    deleting = [
        number
        for number, step in enumerate(steps)
        if any("destroy --stack" in command or re.search(r"rm -r .*/m", command) for command in step.commands)
    ]
    switched = max(number for number, step in enumerate(steps) if Effect.ENTERED in step.effects)
    exported = [number for number in deleting if "synapse-export" in " ".join(steps[number].commands)]
    assert all(number > switched for number in deleting if number not in exported)


SITE = Site("matrix.example.com", "playbook", "/matrix/synapse/storage/media-store")
OLD = Remote("old", store("amazon", MODULE), "S")
TO_COME = Remote("new", None, "S-new")
EVERY_MIGRATION = {
    **{f"to {method}": migrations.from_filesystem(SITE, method, TO_COME) for method in (MODULE, GOOFYS, MEDIA_REPO)},
    **{f"from {method}": migrations.to_filesystem(SITE, method, OLD) for method in (MODULE, GOOFYS, MEDIA_REPO)},
    **{
        f"{method} on": migrations.between_stores(SITE, method, OLD, TO_COME) for method in (MODULE, GOOFYS, MEDIA_REPO)
    },
    "module to goofys": migrations.module_to_goofys(SITE, OLD),
    "goofys to module": migrations.goofys_to_module(SITE, OLD),
}
ORDER = (
    (Effect.COPIED, Effect.VERIFIED),
    (Effect.VERIFIED, Effect.LEFT),
    (Effect.LEFT, Effect.ENTERED),
    (Effect.VERIFIED, Effect.EMPTIED),
    (Effect.ENTERED, Effect.EMPTIED),
    (Effect.CLEAN_UP_OFF, Effect.COPIED),
    (Effect.STOPS, Effect.COPIED),
)


@pytest.mark.parametrize("name", EVERY_MIGRATION)
def test_a_dangerous_order_is_refused(name: str) -> None:
    migration = EVERY_MIGRATION[name]
    steps = [step for step in (*migration.steps, *migration.last) if step.effects]

    def check(changed: list[migrations.Step]) -> None:
        replace(migration, steps=tuple(changed), last=()).checked()

    check(steps)
    tried = 0
    for first, second in ORDER:
        one = next((step for step in steps if first in step.effects), None)
        other = next((step for step in steps if second in step.effects), None)
        if one is None or other is None or one is other or (second is Effect.ENTERED and name == "to " + MODULE):
            continue
        exchanged = [other if step is one else one if step is other else step for step in steps]
        with pytest.raises(DangerousOrderError):
            check(exchanged)
        tried += 1
    for needed in (Effect.LEFT, Effect.ENTERED, Effect.VERIFIED, Effect.COPIED, Effect.STARTS, Effect.CLEAN_UP_OFF):
        without = [step for step in steps if needed not in step.effects]
        if len(without) < len(steps):
            with pytest.raises(DangerousOrderError):
                check(without)
            tried += 1
    assert tried >= 3


def test_a_comparison_while_media_comes_in_counts_only_if_it_goes_to_both() -> None:
    live = [step for step in EVERY_MIGRATION["from " + MODULE].steps if step.effects]
    require_safe(live, written_both_ways=True, deletes_by_name=True)
    with pytest.raises(DangerousOrderError, match="still written to the old place"):
        require_safe(live, deletes_by_name=True)


def step_of(plan: Runbook, title: str) -> Step:
    (step,) = (step for step in plan.steps if step.title == title)
    return step


def shell(command: str, directory: Path, programs: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command of a step, with doubles of programs that this machine lacks, as bodies of shell functions."""
    doubles = "".join(f"{name}() {{ {body}\n}}\n" for name, body in (programs or {}).items())
    return subprocess.run(["bash", "-c", doubles + command], cwd=directory, check=False, capture_output=True, text=True)


IN, OUT = "module: s3_storage_provider.S3StorageProviderBackend\n", "media_storage_providers: []\n"


@pytest.mark.parametrize("form", ["plain", "playbook"])
@pytest.mark.parametrize(("to", "title"), [(GOOFYS, "Remove the module"), (FILESYSTEM, "Disable the module")])
def test_the_check_that_the_module_is_out_fails_while_it_is_in(form: Form, to: str, title: str, tmp_path: Path) -> None:
    module = store("amazon", MODULE)
    write(render(module, form), tmp_path / "elsewhere")
    (tmp_path / "settings").mkdir()
    step = step_of(runbook(module, to, form=form), title)
    (search,) = (command for command in step.commands if command.startswith("grep "))
    search = re.sub(r" [^ ]+$", " settings", search)
    assert step.check.startswith("grep finds nothing")
    assert not shell(search, tmp_path).stdout
    # A configuration that is kept elsewhere is linked.
    (tmp_path / "settings/linked").symlink_to(tmp_path / "elsewhere")
    assert "s3_storage_provider" in shell(search, tmp_path).stdout


def nix_store(tmp_path: Path, homeserver: str) -> dict[str, str]:
    """Doubles of systemctl and nix-store on a machine with NixOS, where a unit has the script of a job elsewhere."""
    files = {
        "1-homeserver.yaml": f"media_store_path: /var/lib/matrix-synapse/media\n{homeserver}",
        "2-unit-script-clean-start/bin/clean-start": "#!/bin/sh\ns3_media_upload upload /media bucket --delete\n",
        "3-matrix-synapse-s3-storage-provider-1.5.0/bin/s3_media_upload": "exec .s3_media_upload-wrapped\n",
        "4-unit-clean.service/clean.service": f"ExecStart={tmp_path}/2-unit-script-clean-start/bin/clean-start\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    config = f"--config-path {tmp_path}/1-homeserver.yaml"
    paths = " ".join(f"{tmp_path}/{name.split('/')[0]}" for name in files)
    return {
        "systemctl": f"printf 'ExecStart=/x/synapse_homeserver \\\\\\n  {config} \\\\\\n  --keys-directory /y\\n'",
        "nix-store": f"printf '%s\\n' {paths}",
    }


@pytest.mark.parametrize(("to", "title"), [(GOOFYS, "Remove the module"), (FILESYSTEM, "Disable the module")])
def test_on_nixos_the_check_that_the_module_is_out_reads_what_synapse_reads(
    to: str, title: str, tmp_path: Path
) -> None:
    step = step_of(runbook(store("amazon", MODULE), to, form="nixos"), title)
    assert step.check.startswith("The last command prints each file of Synapse's configuration, with :0")
    for homeserver, lines in ((IN, 1), (OUT, 0)):
        found = shell(step.commands[-1], tmp_path, nix_store(tmp_path, homeserver))
        assert found.stdout == f"{tmp_path}/1-homeserver.yaml:{lines}\n"


def test_on_nixos_the_check_that_the_module_is_in_fails_without_it(tmp_path: Path) -> None:
    step = step_of(runbook(store("amazon", FILESYSTEM), MODULE, form="nixos"), "Enable the module")
    assert "The last command prints a file of Synapse's configuration." in step.check
    for homeserver, named in ((IN, f"{tmp_path}/1-homeserver.yaml\n"), (OUT, "")):
        assert shell(step.commands[-1], tmp_path, nix_store(tmp_path, homeserver)).stdout == named


def test_on_nixos_a_job_is_found_in_the_script_of_a_unit(tmp_path: Path) -> None:
    step = step_of(
        runbook(store("amazon", MODULE), FILESYSTEM, form="nixos"), "Make sure that no job deletes local media"
    )
    doubles = nix_store(tmp_path, OUT)
    found = [shell(command, tmp_path, doubles).stdout for command in step.commands if "nix-store" in command]
    assert found == [f"{tmp_path}/2-unit-script-clean-start/bin/clean-start\n"]


def test_a_job_is_found_through_a_link_too(tmp_path: Path) -> None:
    step = step_of(
        runbook(store("amazon", MODULE), FILESYSTEM, form="plain"), "Make sure that no job deletes local media"
    )
    (tmp_path / "clean.service").write_text("ExecStart=s3_media_upload upload /media bucket --delete\n")
    (tmp_path / "units").mkdir()
    search = step.commands[-1].replace("/etc/systemd/system", "units")
    assert "units" not in shell(search, tmp_path).stdout
    (tmp_path / "units/clean.service").symlink_to(tmp_path / "clean.service")
    assert "units/clean.service" in shell(search, tmp_path).stdout


REMOVING = [
    (form, name)
    for form, name in CASES
    if any(
        "rm -r --one" in line
        for step in runbook(*ENDS[name][:2], form=form, target=ENDS[name][2]).steps
        for line in step.commands
    )  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("form", "name"), REMOVING)
def test_local_media_is_never_removed_where_the_bucket_is_mounted(name: str, form: Form, tmp_path: Path) -> None:
    current, to, target = ENDS[name]
    plan = runbook(current, to, form=form, target=target, media_path=str(tmp_path / "media"))
    local = [line for step in plan.steps for line in step.commands if "rm -r" in line and str(tmp_path) in line]
    assert local
    for line in local:
        assert line.startswith("stat -f -c %T ")
        directory = Path(line.rsplit(" ", 1)[1])
        directory.mkdir(parents=True)
        (directory / "picture").touch()
        # Goofys is `fuseblk` or `fuse`, by the release of coreutils; a dead mount has no answer.
        for answered in ("echo fuseblk", "echo fuse", "echo x >&2; return 1"):
            shell(line, tmp_path, {"stat": answered})
            assert (directory / "picture").exists()
        shell(line, tmp_path)
        assert not directory.exists()


@pytest.mark.parametrize("form", FORMS)
def test_the_runbook_begins_with_which_directory_is_the_media_store(form: Form) -> None:
    for before, after in itertools.permutations((FILESYSTEM, MODULE, GOOFYS), 2):
        if {before, after} == {GOOFYS, MODULE} and before == GOOFYS:
            continue  # no local media is read or written
        first = runbook(store("amazon", before), after, form=form, media_path="/srv/media").steps[0]
        assert first.title == "Make sure which directory is the local media store"
        local = "/srv/media-local" if before == GOOFYS and form == "playbook" else "/srv/media"
        assert first.commands[-1] == f"findmnt -T {local}"
        assert "--media-path" in first.check


def test_on_nixos_the_present_media_store_is_printed(tmp_path: Path) -> None:
    first = runbook(store("amazon", FILESYSTEM), GOOFYS, form="nixos").steps[0]
    found = shell(first.commands[0], tmp_path, nix_store(tmp_path, OUT)).stdout
    assert found == f"{tmp_path}/1-homeserver.yaml:media_store_path: /var/lib/matrix-synapse/media\n"
    assert "below 22.05" in first.why


MOUNTS = {
    "plain": "/var/lib/matrix-synapse/media-s3",
    "nixos": "/var/lib/matrix-synapse/media-s3",
    "playbook": "/matrix/s3-media-store",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_mount_point_is_not_the_local_media_store(form: Form) -> None:
    mount = MOUNTS[form]
    parent = mount.rpartition("/")[0]
    for path in (mount, f"{mount}/", f"{mount}/media", parent, f"{parent}/./x/..{mount.removeprefix(parent)}"):
        for before, after in ((FILESYSTEM, GOOFYS), (GOOFYS, FILESYSTEM), (MODULE, GOOFYS), (GOOFYS, MODULE)):
            with pytest.raises(UsageError, match=f"the bucket is mounted at {mount}"):
                runbook(store("amazon", before), after, form=form, media_path=path)
    assert runbook(store("amazon", FILESYSTEM), GOOFYS, form=form, media_path=f"{mount}-local")
    assert runbook(store("amazon", FILESYSTEM), MODULE, form=form, media_path=mount)


def test_on_nixos_what_undoes_a_step_that_rebuilt_rebuilds() -> None:
    """`systemctl start` changes nothing for a Synapse that runs, and a file in `imports` that is not there fails."""
    rebuilt = 0
    for form, name in CASES:
        if form != "nixos":
            continue
        current, to, target = ENDS[name]
        for step in runbook(current, to, form="nixos", target=target).steps:
            if "nixos-rebuild switch" not in step.commands:
                continue
            rebuilt += 1
            assert re.search("nixos-rebuild switch|`synapse-media switch|these commands again", step.undo), step.undo
            assert "last command again" not in step.undo
            assert "nixos-rebuild" not in step.undo or "`imports`" in step.undo
    assert rebuilt >= 10


def test_on_nixos_a_media_store_path_of_ones_own_goes_before_goofys_sets_it() -> None:
    for name in (f"{FILESYSTEM}-to-{GOOFYS}", f"{MODULE}-to-{GOOFYS}", f"{MODULE}-to-{GOOFYS}-elsewhere"):
        current, to, target = ENDS[name]
        commands = step_of(runbook(current, to, form="nixos", target=target), "Mount the bucket and start").commands
        (own,) = (number for number, line in enumerate(commands) if "remove a `media_store_path` of your own" in line)
        assert own < commands.index("nixos-rebuild switch")


def test_on_nixos_the_steps_rebuild_and_touch_no_file_that_nix_writes() -> None:
    """/etc/systemd and /etc/matrix-synapse are not there to be changed by hand."""
    for form, name in CASES:
        if form != "nixos":
            continue
        current, to, target = ENDS[name]
        plan = runbook(current, to, form="nixos", target=target)
        commands = [line for step in plan.steps for command in step.commands for line in command.split("\n")]
        assert not any(
            re.search(r"/etc/(systemd|matrix-synapse)|\bapt\b|daemon-reload|systemctl .*able", line)
            for line in commands
        )
        entered = [step for step in plan.steps if Effect.ENTERED in step.effects]
        assert all("nixos-rebuild switch" in step.commands for step in entered)
        assert "conf.d" not in str(plan)
        assert "homeserver.yaml" not in re.sub(r"\[\^ \]\*homeserver.yaml|'homeserver.yaml\$'", "", str(plan))
        # Between the two methods of one bucket nothing is rebuilt, which would start Synapse.
        left = [step for step in plan.steps if step.effects == (Effect.LEFT,)]
        assert not any("nixos-rebuild switch" in command for step in left for command in step.commands)


@pytest.mark.parametrize(
    ("form", "current", "to", "words"),
    [
        ("kubernetes", MODULE, FILESYSTEM, "has no runbook.*--form plain --media-path PATH.*kubectl rollout status"),
        ("kubernetes", FILESYSTEM, MODULE, "has no runbook"),
        ("nixos", MODULE, MEDIA_REPO, "which matrix-media-repo does not have.*--form plain.*nixos-rebuild switch"),
        ("nixos", MEDIA_REPO, FILESYSTEM, "which matrix-media-repo does not have"),
        ("floppy", MODULE, FILESYSTEM, "there are runbooks for: playbook, plain, nixos"),
    ],
)
def test_a_form_without_a_runbook_is_refused_with_what_to_do(form: Form, current: str, to: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        runbook(store("amazon", current), to, form=form)


REFUSED: dict[str, tuple[StorageOutputs, str, StorageOutputs | None, str]] = {
    "nothing to do": (store("amazon", MODULE), MODULE, None, "nothing to switch"),
    "the same provider": (store("amazon", MODULE), "amazon_s3", None, "nothing to switch"),
    "filesystem again": (store("amazon", FILESYSTEM), FILESYSTEM, None, "nothing to switch"),
    "no key for the media repository": (store("keyless", MODULE), MEDIA_REPO, None, "matrix-media-repo requires one"),
    "a prefix under a mount": (store("compatible", MODULE), GOOFYS, None, "supports no prefix"),
    "both on one bucket": (store("amazon", MODULE), GOOFYS, store("amazon", GOOFYS), "Omit --to-stack"),
    "the bucket in use": (store("amazon", MODULE), MEDIA_REPO, store("amazon", MEDIA_REPO), "Create another bucket"),
    "onto itself": (store("amazon", MODULE), MODULE, store("amazon", MODULE), "copied onto itself"),
    "made for another method": (store("amazon", MODULE), GOOFYS, new_store(MODULE), "proved for that alone"),
    "another provider than named": (store("amazon", MODULE), "wasabi", new_store(MODULE), "make the two agree"),
    "another homeserver": (store("amazon", MODULE), MODULE, new_store(MODULE, server_name="x.org"), "two homeservers"),
    "another datastore id": (
        store("amazon", MEDIA_REPO),
        MEDIA_REPO,
        new_store(MEDIA_REPO, media_repo={"s3_datastore_id": S3_ID[::-1]}),  # type: ignore[arg-type]
        "Set the old id",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    current, to, target, words = REFUSED[name]
    with pytest.raises(RunbookError, match=words):
        runbook(current, to, target=target)


@pytest.mark.parametrize("path", ["media", "/a b", "/a'b", "/$x", "/a;b", "/"])
def test_a_path_that_a_shell_would_take_apart_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="--media-path"):
        runbook(store("amazon", MODULE), FILESYSTEM, media_path=path)


def test_ends_that_do_not_fit_are_wrong_usage() -> None:
    with pytest.raises(UsageError, match="Did you mean 'goofys'"):
        runbook(store("amazon", MODULE), "goofy")
    with pytest.raises(UsageError, match="has no store"):
        runbook(store("amazon", MODULE), FILESYSTEM, target=new_store(MODULE))


def test_the_names_of_the_store_stand_in_the_commands() -> None:
    def on(**changes: str) -> str:
        case = "keyless" if changes.pop("keyless", "") else "compatible"
        return str(runbook(store(case, MODULE, **changes), "wasabi", media_path="/srv/media/"))

    text = on()
    assert 'rclone copy "old:acme-media/media/" "$NEW" --checksum' in text
    assert "media copy /srv/media --store /root/synapse-media/new/store.json --min-age 0" in text
    assert 'RCLONE_CONFIG_OLD_ENDPOINT="http://127.0.0.1:7070"' in text
    keyless = on(keyless="yes")
    assert "RCLONE_CONFIG_OLD_ENV_AUTH=true" in keyless
    assert "OLD_ACCESS_KEY_ID" not in keyless
    private = on(ca_file="/etc/ca.pem", addressing="virtual")
    assert "RCLONE_CA_CERT=/etc/ca.pem" in private
    assert "FORCE_PATH_STYLE=false" in private


@pytest.mark.parametrize(("form", "name"), CASES)
def test_media_goes_between_the_disk_and_a_store_by_our_own_command(name: str, form: str) -> None:
    """It compares by content, and its exit code tells; what is printed of it must be what it takes."""
    current, to, target = ENDS[name]
    steps = runbook(current, to, form=form, target=target).steps  # type: ignore[arg-type]
    commands = [command for step in steps for command in step.commands if f"{COMMAND} media " in command]
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        parsed = parser().parse_args(words[words.index("media") :])
        assert parsed.store in ("/root/synapse-media/old/store.json", "/root/synapse-media/new/store.json")
    # The keys are removed when nothing needs them any more.
    needed = [number for number, step in enumerate(steps) if any("store.json" in line for line in step.commands)]
    assert not needed or steps[needed[-1]].title == "Remove the keys from the server"
    text = " ".join(command for step in steps for command in step.commands)
    assert not re.search(r"rclone (copy|check|delete|sync) /", text)


REACHING_THE_OLD = [
    name for name, ends in ENDS.items() if "RCLONE_CONFIG_OLD" in str(runbook(*ends[:2], target=ends[2]))
]


@pytest.mark.parametrize(("form", "name"), [case for case in CASES if case[1] in REACHING_THE_OLD])
def test_what_a_store_json_says_is_one_word_of_a_shell(name: str, form: str, tmp_path: Path) -> None:
    """Everything that a file could hold, in commands that people paste into a root shell."""
    current, to, target = ENDS[name]
    trap = tmp_path / "run"
    odd = f"x\"'`touch {trap}`$(touch {trap});touch {trap}\n"
    changes = {"bucket": f"b{odd}", "region": f"r{odd}", "endpoint_url": f"https://e{odd}", "storage_class": f"s{odd}"}
    if current.prefix:
        changes["prefix"] = f"p{odd}/"
    both = [replace(store, **changes) if store else None for store in (current, target)]
    if both[1]:
        both[1] = replace(both[1], bucket=f"other{odd}")
    assert both[0]
    plan = runbook(both[0], to, form=form, target=both[1])  # type: ignore[arg-type]
    commands = [
        command
        for step in plan.steps
        for command in step.commands
        if "RCLONE_CONFIG" in command or "rclone " in command
    ]
    double = 'rclone() { printf "%s\\0" "$@" >>log; }; aws() { :; }; chown() { :; }; mkdir() { :; }\n'
    script = double + "\n".join(commands).replace("value() {", "unused() {") + "\nenv -0 >environment\n"
    subprocess.run(
        ["bash", "-c", f"value() {{ echo from-the-file; }}\n{script}"], cwd=tmp_path, check=True, capture_output=True
    )
    assert not trap.exists()
    words = (tmp_path / "log").read_text().split("\0")
    assert f"old:{both[0].bucket}/{both[0].prefix}" in words
    environment = (tmp_path / "environment").read_text().split("\0")
    assert f"RCLONE_CONFIG_OLD_ENDPOINT=https://e{odd}" in environment
    assert f"RCLONE_CONFIG_OLD_REGION=r{odd}" in environment


@pytest.mark.parametrize("stack", ["a b", "a;b", "$(x)", "a\n"])
def test_a_stack_that_a_shell_would_take_apart_is_refused(stack: str) -> None:
    with pytest.raises(UsageError, match="--stack is"):
        runbook(store("amazon", MODULE), FILESYSTEM, stack=stack)
    with pytest.raises(UsageError, match="--to-stack is"):
        runbook(store("amazon", MODULE), "wasabi", new_stack=stack)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(to_json(store("amazon", MODULE))))
    new.write_text(json.dumps(to_json(new_store(MODULE))))
    assert cli.main(["switch", "--store", str(old), "--to", "filesystem"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("matrix.example.com: from synapse-s3-storage-provider at amazon_s3 to filesystem")
    assert SECRET not in text
    assert cli.main(["switch", "--store", str(old), "--to", "backblaze_b2", "--to-store", str(new), "--json"]) == 0
    plan = answer("switch", capsys.readouterr().out)
    assert plan["to"] == "synapse-s3-storage-provider at backblaze_b2"
    assert any("new-media" in command for step in plan["steps"] for command in step["commands"])
    assert cli.main(["switch", "--store", str(old), "--to", "synapse-s3-storage-provider"]) == 1
    assert "nothing to switch" in capsys.readouterr().err
    assert cli.main(["switch", "--store", str(old), "--server", "x.org", "--to", "filesystem"]) == 64
    assert cli.main(["switch", "--store", str(old), "--to", "nonsense"]) == 64
    assert cli.main(["switch", "--store", str(tmp_path / "none"), "--to", "filesystem"]) == 1
