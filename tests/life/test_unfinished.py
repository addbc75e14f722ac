"""What was not finished stays so until it is, however often the store is looked at in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_media.cli import checkpoints, stacks
from synapse_media.guards.applied import PROOF
from synapse_media.plugin import families
from synapse_media.schema import model
from synapse_media.schema.resources import ProofInputs
from tests.doubles import proxy
from tests.life.life import SERVER, Life
from tests.processes import beneath

OTHER = "other.example.com"


def test_a_refresh_does_not_forget_that_the_proof_failed(begin: Callable[[], Life]) -> None:
    new = begin()
    new.s3.create_bucket(Bucket=new.bucket)
    denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{new.bucket}/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    new.s3.put_bucket_policy(Bucket=new.bucket, Policy=document)
    new.store(adopt=True)
    assert new.command("up", "--yes")[0] == 1
    new.stack.engine.refresh(new.stack.name)
    code, printed = new.command("diff", "--refresh")
    assert code == 2
    assert f"update Proof of {SERVER}" in printed
    assert "finishes what an earlier run left unfinished" in printed
    new.s3.delete_bucket_policy(Bucket=new.bucket)
    code, printed = new.command("up", "--yes", "--refresh")
    assert code == 0, printed
    new.stack.outputs().require_proof()
    assert '"unfinished"' not in new.stack.state()
    assert new.command("diff", "--refresh")[0] == 0


def test_a_state_of_which_a_full_disk_left_only_the_first(begin: Callable[[], Life]) -> None:
    """What `pulumi stack init` writes first has no deployment at all."""
    new = begin()
    new.store()
    assert new.command("diff")[0] == 2
    backend = Path(new.stack.engine.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
    (state,) = (backend / ".pulumi/stacks").rglob(f"{new.stack.name}.json")
    backup = state.with_name(f"{state.name}.bak")
    first = backup.read_text()
    assert "deployment" not in first
    code, printed = new.command("up", "--yes")
    assert code == 0, printed
    backup.write_text(first)
    state.write_text(state.read_text()[:-20])
    for words in (["diff"], ["show"], ["up", "--yes"]):
        code, printed = new.command(*words)
        assert code == (2 if words == ["diff"] else 0), printed
        assert "a defect" not in printed
    new.stack.outputs().require_proof()


def test_a_store_whose_move_was_cut_off_is_found_at_its_new_place(begin: Callable[[], Life]) -> None:
    new = begin()
    with proxy.in_front_of(new.running.endpoint) as s3, proxy.in_front_of(new.running.iam_endpoint) as iam:
        new.store(endpoint=s3.url, iam_endpoint=iam.url)
        code, printed = new.command("up", "--yes")
        assert code == 0, printed
    keys = new.keys()
    # Nobody answers at the old place, which the state still names.
    new.store("replace-bucket", "retire-key")
    with contextlib.suppress(KeyboardInterrupt), stacks.changing(stacks.open_stack(new.stack.name, credentials=True)):
        raise KeyboardInterrupt
    code, printed = new.command("up", "--yes")
    assert code == 0, printed
    assert "looking at it after the changes" in printed
    assert new.keys() == keys
    assert new.stack.outputs().endpoint_url == new.running.endpoint
    new.stack.outputs().require_proof()
    assert new.command("diff", "--refresh")[0] == 0


def test_a_decoy_that_a_killed_run_left_is_gone_after_the_next(begin: Callable[[], Life]) -> None:
    """Also where the killed run had done all that it was to do but for the proof."""
    life = begin()
    life.store()
    assert life.command("up", "--yes")[0] == 0
    session = stacks.open_stack(life.stack.name, credentials=True)
    (proof,) = (one for one in session.state()["deployment"]["resources"] if one["type"] == PROOF)
    inputs = model.read(ProofInputs, {**proof["inputs"], "secretAccessKey": ""})
    decoy = "synapse-media-decoy-0123456789abcdef"
    with session.credentials():
        assert families.proof_administrator(inputs.administrator).ensure_decoy(inputs, decoy)
    with contextlib.suppress(KeyboardInterrupt), stacks.changing(session):
        raise KeyboardInterrupt  # leaves the mark of a run that was cut off
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert decoy not in {bucket["Name"] for bucket in life.s3.list_buckets()["Buckets"]}
    life.stack.outputs().require_proof()
    assert life.command("diff", "--refresh")[0] == 0


def _kill_at_the_proof(life: Life) -> None:
    """`up`, killed with all its processes when it has made a key and begins to prove it."""
    command = [str(Path(sys.executable).parent / "synapse-media"), "up", "--yes", "--stack", life.stack.name]
    project = life.stack.engine.project
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ}
    ) as child:
        assert child.stdout is not None
        for said in child.stdout:
            if "Proof" in said and "creating" in said:
                break
        for pid in (child.pid, *beneath(child.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_what_a_killed_run_made_is_not_left_behind(begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the state is written at the end only, and the store is taken out of the stack file again."""
    monkeypatch.setenv(checkpoints.VARIABLE, "at-end")
    life = begin()
    first = life.settings()
    second = life.settings(bucket=f"{life.bucket}-2")
    life.stack.write({SERVER: first})
    assert life.command("up", "--yes")[0] == 0
    life.stack.write({SERVER: first, OTHER: second})
    _kill_at_the_proof(life)
    user = f"synapse-media-{life.bucket}-2"
    assert len(life.iam.list_access_keys(UserName=user)["AccessKeyMetadata"]) == 1

    edits = ({SERVER: first}, {SERVER: first, OTHER: {**second, "bucket": f"{life.bucket}-3"}})
    for edit in edits:
        life.stack.write(edit)
        for command in (["up", "--yes"], ["diff"], ["up", "--yes", "--refresh"]):
            code, printed = life.command(*command)
            assert code == 1, printed
            assert f"Bucket of {OTHER}, User of {OTHER}, " in printed
            assert f"KeyRing of {OTHER}" in printed
    assert life.command("destroy", "--yes")[0] == 1

    # As the message says. Leave to delete, or another store, is no reason against it.
    life.stack.write({SERVER: first, OTHER: second}, [f"{OTHER}/delete-bucket", f"{OTHER}/retire-key"])
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    life.stack.outputs(OTHER).require_proof()
    life.stack.write({SERVER: first}, [f"{OTHER}/delete-bucket", f"{OTHER}/retire-key", f"{OTHER}/narrow-policy"])
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert user not in {one["UserName"] for one in life.iam.list_users()["Users"]}
    assert f"{life.bucket}-2" not in {one["Name"] for one in life.s3.list_buckets()["Buckets"]}


def test_what_a_failed_run_made_is_in_the_state(begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine ended by itself: the stack file may be changed, and the stack be given up."""
    monkeypatch.setenv(checkpoints.VARIABLE, "at-end")
    life = begin()
    taken = life.user
    life.iam.create_user(UserName=taken, Path="/others/")
    life.store()
    code, printed = life.command("up", "--yes")
    assert code == 1, printed
    assert "exists already" in printed
    life.store(user=f"{taken}-2")
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
