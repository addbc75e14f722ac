"""Every refusal that an edit of a stack file can lead to, and its own advice, walked to its end: exit code 0."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from synapse_media.cli import main
from synapse_media.settings import ADOPTED_SECRET
from tests.life.life import SERVER, Life

OTHER = "other.example.com"
DISK = {"disk.example.com": {"method": "filesystem"}}

Stores = Mapping[str, Mapping[str, Any]]


def edit(life: Life, stores: Stores, *allow: str) -> None:
    life.stack.write({**DISK, **stores}, allow)


def refused(life: Life, *said: str, command: tuple[str, ...] = ("up", "--yes")) -> str:
    """What was said. Nothing that the store's user may do, or has, is other than before."""
    before = life.keys()
    code, printed = life.command(*command)
    assert code in (1, 3), printed
    for words in said:
        assert words in printed
    assert life.keys() == before
    return printed


def done(life: Life, *command: str) -> str:
    code, printed = life.command(*(command or ("up", "--yes")))
    assert code == 0, printed
    return printed


def words_in(printed: str) -> tuple[str, ...]:
    """The entries that a refusal tells to put into `allow`."""
    found = re.findall(r"put (\S+(?:, \S+)*) into synapse-media:allow", printed)
    assert found, printed
    return tuple(found[-1].split(", "))


def command_in(printed: str) -> list[str]:
    """The arguments of the command that a refusal tells to run, as they are printed."""
    (found,) = re.findall(r"`synapse-media ([^`]*)`", printed)
    return shlex.split(found)


def put_media(life: Life) -> None:
    life.s3.put_object(Bucket=life.bucket, Key="local_content/photo", Body=b"photo")


def media_is_there(life: Life) -> None:
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"


# ---- words for `allow`


@pytest.mark.parametrize(
    "change",
    [
        {"method": "goofys"},
        {"access": "full"},
        {"prefix": "media/"},
        {"bucket": "another"},
        {"user": "another"},
        {"method": "filesystem"},
        None,
    ],
    ids=str,
)
def test_the_words_that_are_asked_for_are_enough(life: Life, change: dict[str, Any] | None) -> None:
    if change is None:
        stores = {}
    else:
        names = {name: f"{life.bucket}-2" for name in ("bucket", "user") if name in change}
        stores = {SERVER: life.settings(user=life.user) | change | names}
    edit(life, stores)
    printed = refused(life, "can lose media or cut access")
    edit(life, stores, *words_in(printed))
    done(life)
    assert "no changes" in done(life)


def test_a_bucket_with_media_that_would_go(life: Life) -> None:
    put_media(life)
    words = ("delete-bucket", "retire-key", "narrow-policy")
    edit(life, {}, *(f"{SERVER}/{word}" for word in words))
    refused(life, "holds media", "put <homeserver>/retain-bucket")
    # Undo it.
    edit(life, {SERVER: life.settings()})
    done(life)
    edit(life, {}, *(f"{SERVER}/{word}" for word in ("retain-bucket", *words[1:])))
    done(life)
    media_is_there(life)
    # Its mark has it taken up again; without the mark it is anybody's.
    edit(life, {SERVER: life.settings()})
    done(life)
    edit(life, {}, *(f"{SERVER}/{word}" for word in ("retain-bucket", *words[1:])))
    done(life)
    life.s3.delete_bucket_tagging(Bucket=life.bucket)
    edit(life, {SERVER: life.settings()})
    assert "set adopt: true" in life.command("up", "--yes")[1]
    edit(life, {SERVER: life.settings(adopt=True)})
    done(life)
    edit(life, {SERVER: life.settings()})
    refused(life, "set adopt: true for this store", "<homeserver>/own-bucket")
    # It looks as a new one would: by its word it is one like any other, and needs no word after that.
    edit(life, {SERVER: life.settings()}, f"{SERVER}/own-bucket")
    done(life)
    edit(life, {SERVER: life.settings()})
    assert "no changes" in done(life)
    media_is_there(life)
    edit(life, {}, *(f"{SERVER}/{word}" for word in ("delete-media", *words)))
    done(life)


def test_destroy_of_what_holds_media(life: Life) -> None:
    put_media(life)
    edit(life, {SERVER: life.settings()})
    refused(life, "is protected", "<homeserver>/delete-bucket", command=("destroy", "--yes"))
    edit(life, {SERVER: life.settings()}, f"{SERVER}/delete-bucket")
    refused(life, "holds media", "Put <homeserver>/delete-media", command=("destroy", "--yes"))
    edit(life, {SERVER: life.settings()}, f"{SERVER}/delete-bucket", f"{SERVER}/delete-media")
    done(life, "destroy", "--yes")


# ---- one store, one bucket, one user


def test_a_bucket_of_another_store_is_given_up_first(life: Life) -> None:
    put_media(life)
    taken = {OTHER: life.settings(user="of-the-other")}
    edit(life, taken)
    printed = refused(life, f"the bucket of {SERVER}", f"put {SERVER}/retain-bucket into allow")
    edit(life, {}, f"{SERVER}/retain-bucket")
    words = words_in(refused(life, "can lose media or cut access"))
    edit(life, {}, f"{SERVER}/retain-bucket", *words)
    done(life)
    assert f"add {OTHER} with adopt: true" in printed
    edit(life, {OTHER: {**taken[OTHER], "adopt": True}})
    code, printed = life.command("up", "--yes")
    assert code == 1
    assert "remove its tag 'synapse-media:stack'" in printed
    life.s3.delete_bucket_tagging(Bucket=life.bucket)
    done(life)
    media_is_there(life)
    life.stack.outputs(OTHER).require_proof()


def test_a_user_of_another_store_is_not_shared(life: Life) -> None:
    other = life.settings(bucket=f"{life.bucket}-2", user=life.user)
    edit(life, {OTHER: other})
    refused(life, f"the user of {SERVER}", "choose a user of its own", f"set renamed_from: {SERVER}")
    edit(life, {SERVER: life.settings(), OTHER: {**other, "user": f"{life.user}-2"}})
    done(life)


def test_a_user_that_is_there_already(begin: Callable[[], Life]) -> None:
    new = begin()
    new.iam.create_user(UserName=new.user, Path="/people/")
    new.store()
    printed = refused(new, "it is not this stack's", "set adopt: true")
    assert "Choose another name with the setting user" in printed
    new.store(adopt=True)
    done(new)
    new.store(user=f"{new.user}-2", adopt=True)
    code, printed = new.command("up", "--yes")
    assert code == 3, printed
    new.stack.store(
        [entry.rpartition("/")[2] for entry in words_in(printed)], **new.settings(user=f"{new.user}-2", adopt=True)
    )
    done(new)


def test_a_bucket_that_is_not_there_to_adopt(begin: Callable[[], Life]) -> None:
    new = begin()
    new.store(adopt=True)
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "set adopt: false to have it created" in printed.replace("\n", " ")
    new.store(adopt=False)
    done(new)


def test_a_bucket_with_the_mark_of_a_stack_that_is_gone(begin: Callable[[], Life]) -> None:
    new = begin()
    new.s3.create_bucket(Bucket=new.bucket)
    mark = {"Key": "synapse-media:stack", "Value": "synapse-media/gone/matrix.example.com"}
    new.s3.put_bucket_tagging(Bucket=new.bucket, Tagging={"TagSet": [mark]})
    new.store(adopt=True)
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "remove its tag 'synapse-media:stack'" in printed
    new.s3.delete_bucket_tagging(Bucket=new.bucket)
    done(new)


# ---- keys


def test_a_key_line_that_would_leave_nobody_with_a_key(life: Life) -> None:
    only_new = life.settings(keys={"active": "b", "retiring": []})
    edit(life, {SERVER: only_new})
    words = words_in(refused(life, "can lose media or cut access"))
    edit(life, {SERVER: only_new}, *words)
    code, printed = life.command("up", "--yes")
    assert code == 1
    assert "Keep both" in printed
    edit(life, {SERVER: life.settings(keys={"active": "b", "retiring": ["a"]})})
    done(life)
    printed = refused(life, "--finish --confirm", command=("rotate", "--finish", "--yes"))
    assert main([*command_in(printed), "--yes"]) == 0
    assert len(life.keys()) == 1


def test_a_user_with_as_many_keys_as_it_may_have(life: Life) -> None:
    by_hand = life.iam.create_access_key(UserName=life.user)["AccessKey"]["AccessKeyId"]
    refused(life, "Delete an unused one", command=("rotate", "--yes"))
    life.iam.delete_access_key(UserName=life.user, AccessKeyId=by_hand)
    done(life, "rotate", "--yes")
    done(life, "rotate", "--finish", "--confirm", "--yes")


def test_a_key_to_bring_along_that_is_not_there(begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch) -> None:
    new = begin()
    new.s3.create_bucket(Bucket=new.bucket)
    new.iam.create_user(UserName=new.user)
    key = new.iam.create_access_key(UserName=new.user)["AccessKey"]
    new.store(adopt=True, adopt_key="AKIAELSEWHERE")
    refused(new, "adopt_key: the user has no key of this ID", key["AccessKeyId"])
    new.store(adopt=True, adopt_key=key["AccessKeyId"])
    refused(new, f"the environment has no {ADOPTED_SECRET}")
    monkeypatch.setenv(ADOPTED_SECRET, key["SecretAccessKey"])
    done(new)
    assert new.stack.outputs().access_key_id == key["AccessKeyId"]


def test_another_existing_key_than_before(begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch) -> None:
    new = begin()
    new.s3.create_bucket(Bucket=new.bucket)
    new.iam.create_user(UserName=new.user)
    rights = {
        "Effect": "Allow",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{new.bucket}", f"arn:aws:s3:::{new.bucket}/*"],
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
    new.iam.put_user_policy(UserName=new.user, PolicyName="media", PolicyDocument=document)
    administrators = {name: os.environ[name] for name in ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")}

    def with_key() -> str:
        key = new.iam.create_access_key(UserName=new.user)["AccessKey"]
        monkeypatch.setenv("S3_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("S3_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        return str(key["AccessKeyId"])

    def settings() -> dict[str, Any]:
        return {**new.settings(existing_key=True, adopt=True, access="full"), "iam_endpoint": ""}

    first = with_key()
    new.stack.store((), **settings())
    done(new)
    for name, value in administrators.items():
        monkeypatch.setenv(name, value)
    # No word lets it through.
    new.s3.create_bucket(Bucket=f"{new.bucket}-2")
    new.stack.write({SERVER: settings()}, [f"{SERVER}/widen-policy"])
    for command in (("diff", "--refresh"), ("up", "--refresh", "--yes")):
        code, printed = new.command(*command)
        assert code == 1, printed
        assert "an administrator's key is not handed to Synapse" in printed
    new.stack.store((), **settings())
    # As a plain `up` does after a run that was cut off.
    done(new)
    assert new.stack.outputs().access_key_id == first
    second = with_key()
    words = words_in(refused(new, f"{first} becomes {second}", command=("up", "--refresh", "--yes")))
    new.stack.write({SERVER: settings()}, words)
    done(new, "up", "--refresh", "--yes")
    assert new.stack.outputs().access_key_id == second


# ---- commands


def test_what_has_to_be_made_first(begin: Callable[[], Life], tmp_path: Path) -> None:
    new = begin()
    new.store()
    out = str(tmp_path / "rendered")
    code, printed = new.command("render", "--out", out)
    assert code == 1
    assert f"run `synapse-media up --stack {new.stack.name}` first" in printed
    code, printed = new.command("rotate", "--finish", "--yes")
    assert code == 64
    assert "nothing is being retired" in printed
    done(new)
    done(new, "render", "--out", out)


# ---- names


def test_a_former_name_is_no_leave_for_a_store_that_is_still_there(life: Life) -> None:
    """Two stores, and a stack file that would make one of the other: the words of the one are not the other's."""
    put_media(life)
    second = life.settings(bucket=f"{life.bucket}-2", user=f"{life.user}-2")
    edit(life, {SERVER: life.settings(), OTHER: second})
    done(life)
    merged = {OTHER: {**second, "renamed_from": SERVER}}
    edit(life, merged, *(f"{OTHER}/{word}" for word in ("delete-bucket", "delete-media", "retire-key")))
    refused(life, f"{SERVER}/delete-bucket")
    refused(life, "is protected", command=("destroy", "--yes"))
    media_is_there(life)
