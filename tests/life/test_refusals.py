"""Bad input, at the command: one clear message, a non-zero exit code, nothing half-made."""

from __future__ import annotations

from collections.abc import Callable

import botocore.exceptions
import pytest

from tests.accounts import user_names
from tests.life.life import SERVER, Life


def nothing_was_made(life: Life) -> bool:
    buckets = [bucket["Name"] for bucket in life.s3.list_buckets()["Buckets"]]
    return life.bucket not in buckets and life.user not in users(life)


def users(life: Life) -> list[str]:
    return user_names(life.iam)


def test_all_errors_of_a_stack_file_are_told_at_once(begin: Callable[[], Life]) -> None:
    new = begin()
    new.stack.path.write_text(
        f"""config:
  synapse-media:stores:
    {SERVER}: {{provider: s3_compatible, bucket: My.Bucket, method: synapse, endpoint: s3.example.com, prefix: media}}
    other.example.com: {{provider: amazn_s3, bucket: other-media}}
  synapse-media:allow: [{SERVER}/delete-everything]
"""
    )
    code, printed = new.command("up", "--yes")
    assert code == 1
    for expected in (
        "bucket is 'My.Bucket'",
        "method is 'synapse'",
        "endpoint is 's3.example.com'",
        "Did you mean 'amazon_s3'?",
        "synapse-media:allow is",
    ):
        assert expected in printed
    assert "Traceback" not in printed


def test_two_stores_on_one_bucket_are_refused(begin: Callable[[], Life]) -> None:
    new = begin()
    with pytest.raises(Exception, match="destroy media"):
        new.stack.write({SERVER: new.settings(), "other.example.com": new.settings(method="goofys", user="other")})
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "a bucket that no other store uses" in printed
    assert nothing_was_made(new)


def test_each_admin_variable_that_is_missing_is_named(
    begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = begin()
    new.store()
    monkeypatch.delenv("S3_SECRET_ACCESS_KEY")
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "lacks S3_SECRET_ACCESS_KEY:" in printed
    # What would be made can be seen without one.
    assert new.command("diff")[0] == 2
    assert new.command("diff", "--refresh")[0] == 1
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", new.running.secret_access_key)
    assert nothing_was_made(new)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("S3_SECRET_ACCESS_KEY", "of-somebody-else-who-administers-another-store", "secret access key does not match"),
        ("S3_ACCESS_KEY_ID", "AKIAUNKNOWN", "does not know this access key ID"),
    ],
)
def test_a_wrong_admin_credential_is_told_apart(
    begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    new = begin()
    new.store()
    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        code, printed = new.command("up", "--yes")
    assert code == 1
    assert told in printed
    assert value not in printed or variable == "S3_ACCESS_KEY_ID"
    assert nothing_was_made(new)
    code, printed = new.command("up", "--yes")
    assert code == 0, printed


def test_a_server_that_is_down_is_told_and_the_next_up_goes_on(begin: Callable[[], Life]) -> None:
    new = begin()
    new.store(endpoint="http://127.0.0.1:9", iam_endpoint="http://127.0.0.1:9")
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "http://127.0.0.1:9" in printed
    assert nothing_was_made(new)
    new.store()
    code, printed = new.command("up", "--yes")
    assert code == 0, printed


def test_a_mistyped_endpoint_can_be_corrected(life: Life) -> None:
    before = life.stack.outputs()
    typo = {"endpoint": "http://127.0.0.1:9", "iam_endpoint": "http://127.0.0.1:9"}
    for allow, expected in (((), 3), (("replace-bucket", "retire-key"), 1)):
        life.store(*allow, **typo)
        code, printed = life.command("up", "--yes")
        assert code == expected, printed
        assert "http://127.0.0.1:9" in printed
    life.store()
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert life.stack.outputs() == before


def test_a_bucket_that_is_not_ours_is_left_alone(begin: Callable[[], Life]) -> None:
    new = begin()
    new.store()
    new.s3.create_bucket(Bucket=new.bucket)
    new.s3.put_object(Bucket=new.bucket, Key="theirs", Body=b"1")
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "It was not changed" in printed
    mark = [{"Key": "synapse-media:stack", "Value": "synapse-media/another/matrix.example.org"}]
    new.s3.put_bucket_tagging(Bucket=new.bucket, Tagging={"TagSet": mark})
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "that of another stack" in printed
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchBucketPolicy"):
        new.s3.get_bucket_policy(Bucket=new.bucket)
    assert new.s3.get_bucket_tagging(Bucket=new.bucket)["TagSet"] == mark
    assert new.s3.get_bucket_versioning(Bucket=new.bucket).get("Status") is None
    # And nobody was made who could use it.
    assert new.user not in users(new)
