"""What was not finished stays so until it is, however often the store is looked at in between."""

from __future__ import annotations

import json
from collections.abc import Callable

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
