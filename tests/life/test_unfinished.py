"""What was not finished stays so until it is, however often the store is looked at in between."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

from synapse_media.cli import stacks
from synapse_media.guards.applied import PROOF
from synapse_media.plugin import families
from synapse_media.schema import model
from synapse_media.schema.resources import ProofInputs
from tests.doubles import proxy
from tests.life.life import SERVER, Life


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
