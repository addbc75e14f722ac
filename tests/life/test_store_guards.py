"""Edits that would lose media, cut access or end nowhere: refused before anything, or led out by their own advice."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from synapse_media import stackfile
from synapse_media.cli import main, stacks
from synapse_media.engine.session import EngineError
from tests.doubles.proxy import error, in_front_of
from tests.life.life import SERVER, Life

PHOTO = b"photo"
OTHER = "other.example.com"


def put_media(life: Life, bucket: str = "") -> None:
    life.s3.put_object(Bucket=bucket or life.bucket, Key="local_content/photo", Body=PHOTO)


def media(life: Life, bucket: str = "") -> bytes:
    body: bytes = life.s3.get_object(Bucket=bucket or life.bucket, Key="local_content/photo")["Body"].read()
    return body


def words(*names: str, server: str = SERVER) -> list[str]:
    return [f"{server}/{name}" for name in names]


def line(life: Life, server: str = SERVER) -> Any:
    return stackfile.read_yaml(life.stack.path)["config"]["synapse-media:stores"][server].get("keys")


def works(life: Life) -> None:
    """What `render` would write is a key that the store accepts."""
    outputs = life.stack.outputs()
    outputs.require_proof()
    life.client("s3", outputs.access_key_id, outputs.secret_access_key).list_objects_v2(Bucket=life.bucket)


# ---- leave to go is what `allow` says now


def test_leave_to_delete_media_does_not_outlive_its_entry(life: Life) -> None:
    life.store("delete-bucket", "delete-media")
    assert life.command("up", "--yes")[0] == 0
    put_media(life)
    life.stack.write({OTHER: {"method": "filesystem"}}, words("delete-bucket", "retire-key", "narrow-policy"))
    code, printed = life.command("up", "--yes")
    assert code == 1, printed
    assert "holds media" in printed
    assert media(life) == PHOTO
    works(life)


def test_nor_in_destroy_where_the_key_is_dead(life: Life) -> None:
    life.store("delete-bucket", "delete-media")
    assert life.command("up", "--yes")[0] == 0
    put_media(life)
    life.iam.delete_access_key(UserName=life.user, AccessKeyId=life.keys()[0])
    life.stack.write({OTHER: {"method": "filesystem"}}, words("delete-bucket"))
    code, printed = life.command("destroy", "--yes")
    assert code == 1, printed
    assert "holds media" in printed
    assert media(life) == PHOTO


def test_an_old_version_is_media(life: Life) -> None:
    put_media(life)
    life.s3.delete_object(Bucket=life.bucket, Key="local_content/photo")
    life.store("delete-bucket")
    code, printed = life.command("destroy", "--yes")
    assert code == 1, printed
    assert "holds media" in printed
    works(life)


def test_what_can_not_be_seen_is_media(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.store("delete-bucket")
    life.iam.delete_access_key(UserName=life.user, AccessKeyId=life.keys()[0])
    with monkeypatch.context() as patch:
        patch.setenv("S3_SECRET_ACCESS_KEY", "of-somebody-else")
        code, printed = life.command("destroy", "--yes")
    assert code == 1, printed
    assert "it can't be seen whether" in printed
    life.s3.head_bucket(Bucket=life.bucket)


def test_leave_to_retain_a_bucket_does_not_outlive_its_entry(life: Life) -> None:
    life.store("retain-bucket")
    assert life.command("up", "--yes")[0] == 0
    life.stack.write({OTHER: {"method": "filesystem"}})
    code, printed = life.command("up", "--yes")
    assert code == 3, printed
    assert f"{SERVER}/delete-bucket" in printed
    assert f"{SERVER}/retire-key" in printed
    works(life)


def test_giving_a_store_up_asks_for_its_key_and_policy_too(life: Life) -> None:
    put_media(life)
    life.stack.write({OTHER: {"method": "filesystem"}}, words("retain-bucket"))
    code, printed = life.command("up", "--yes")
    assert code == 3, printed
    assert f"{SERVER}/narrow-policy, {SERVER}/retire-key" in printed
    life.stack.write({OTHER: {"method": "filesystem"}}, words("retain-bucket", "narrow-policy", "retire-key"))
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert media(life) == PHOTO
    assert life.command("diff")[0] == 0


def test_a_declined_change_leaves_the_bucket_protected(life: Life) -> None:
    life.stack.write({SERVER: {"method": "filesystem"}}, words("delete-bucket", "narrow-policy", "retire-key"))
    code, printed = life.command("up")
    assert code == 1
    assert "Add --yes" in printed
    bucket = next(
        one for one in life.stack.engine.export(life.stack.name)["deployment"]["resources"] if one.get("protect")
    )
    assert bucket["type"] == "s3store:index:Bucket"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_a_question_that_is_cut_off_leaves_the_state_closed(life: Life, number: signal.Signals) -> None:
    put_media(life)
    allow = words("delete-bucket", "delete-media", "narrow-policy", "retire-key")
    life.stack.write({SERVER: {"method": "filesystem"}}, allow)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "synapse-media"), "up", "--stack", life.stack.name],
        cwd=life.stack.engine.project,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ},
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        os.close(theirs)
        said = b""
        while b"Make these changes?" not in said and (more := os.read(child.stdout.fileno(), 1000)):
            said += more
        assert b"Make these changes?" in said
        child.send_signal(number)
    os.close(ours)
    assert child.returncode == (-number if number == signal.SIGKILL else 128 + number)
    life.stack.write({SERVER: life.settings()})
    resources = life.stack.engine.export(life.stack.name)["deployment"]["resources"]
    bucket = next(one for one in resources if one["type"] == "s3store:index:Bucket")
    ring = next(one for one in resources if one["type"] == "s3store:index:KeyRing")
    assert (bucket["protect"], bucket["inputs"].get("forceDestroy", False)) == (True, False)
    assert not ring["inputs"].get("retireConfirmed", False)
    assert media(life) == PHOTO
    works(life)


def rings(life: Life) -> list[dict[str, Any]]:
    resources = life.stack.engine.export(life.stack.name)["deployment"]["resources"]
    return [one for one in resources if one["type"] == "s3store:index:KeyRing"]


def test_what_a_rotation_confirmed_is_not_left_in_the_state(life: Life) -> None:
    """Plain pulumi would read it there as leave for the new key, which nobody named."""
    assert life.command("rotate", "--yes")[0] == 0
    code, printed = life.command("rotate", "--finish", "--confirm", "--yes")
    assert code == 0, printed
    (ring,) = rings(life)
    assert not ring["inputs"].get("retireConfirmed", False)
    assert not ring["outputs"].get("retireConfirmed", False)
    assert life.command("diff")[0] == 0
    options = ["--yes", "--skip-preview", "--suppress-outputs", "--exclude-protected"]
    with pytest.raises(EngineError, match="retire-key"):
        life.stack.engine.run(["destroy", *options, "--stack", life.stack.name])
    works(life)


def test_a_destroy_of_one_resource_leaves_no_leave_for_the_keys(life: Life) -> None:
    resources = life.stack.engine.export(life.stack.name)["deployment"]["resources"]
    (proof,) = [one["urn"] for one in resources if one["type"] == "s3store:index:Proof"]
    life.store("retain-bucket")
    code, printed = life.command("destroy", "--yes", "--", "--target", proof)
    assert code == 0, printed
    (ring,) = rings(life)
    assert not ring["inputs"].get("retireConfirmed", False)
    assert not ring["outputs"].get("retireConfirmed", False)
    works(life)


# ---- ways out


def test_the_way_back_to_the_filesystem(life: Life) -> None:
    allow = words("delete-bucket", "narrow-policy", "retire-key")
    life.stack.write({SERVER: {"method": "filesystem"}}, allow)
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    with pytest.raises(botocore.exceptions.ClientError, match="404"):
        life.s3.head_bucket(Bucket=life.bucket)
    assert life.command("diff")[0] == 0


def test_the_credential_that_deletes_is_asked_for(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.stack.write({SERVER: {"method": "filesystem"}}, words("delete-bucket", "narrow-policy", "retire-key"))
    monkeypatch.delenv("S3_ACCESS_KEY_ID")
    code, printed = life.command("up", "--yes")
    assert code == 1
    assert "lacks S3_ACCESS_KEY_ID" in printed


def test_a_bucket_that_is_renamed_with_media_in_the_old_one(life: Life) -> None:
    put_media(life)
    new = f"{life.bucket}-2"
    allow = words("replace-bucket", "delete-bucket", "retire-key", "narrow-policy", "widen-policy")
    life.stack.write({SERVER: life.settings(bucket=new, user=life.user)}, allow)
    code, printed = life.command("up", "--yes")
    assert code == 1, printed
    assert "holds media" in printed
    with pytest.raises(botocore.exceptions.ClientError, match="404"):
        life.s3.head_bucket(Bucket=new)
    works(life)
    # As the message says: the old bucket is left where it is.
    allow = words("replace-bucket", "retain-bucket", "retire-key", "narrow-policy", "widen-policy")
    life.stack.write({SERVER: life.settings(bucket=new, user=life.user)}, allow)
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert media(life) == PHOTO
    life.bucket = new
    works(life)
    assert life.command("diff", "--refresh")[0] == 0


def test_a_half_rotated_store_can_be_destroyed(life: Life) -> None:
    stranger = life.iam.create_access_key(UserName=life.user)["AccessKey"]["AccessKeyId"]
    assert life.command("rotate", "--yes")[0] == 1
    life.store("delete-bucket")
    code, printed = life.command("destroy", "--yes")
    assert code == 1
    assert f"has the key {stranger}, which this state does not know" in printed
    # A key that is not the store's is deleted by whoever knows whose it is.
    life.iam.delete_access_key(UserName=life.user, AccessKeyId=stranger)
    code, printed = life.command("destroy", "--yes")
    assert code == 0, printed
    with pytest.raises(botocore.exceptions.ClientError, match="404"):
        life.s3.head_bucket(Bucket=life.bucket)


def test_a_second_checkout_gives_up_the_user_of_a_key_that_it_does_not_know(life: Life) -> None:
    """The same project and stack with another state: destroy's instructions end it, and the first goes on."""
    state = life.stack.engine.export(life.stack.name)
    life.stack.engine.replace_state(life.stack.name, {**state, "deployment": {**state["deployment"], "resources": []}})
    used = life.keys()
    life.store("retain-bucket")
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert len(life.keys()) == 2
    code, printed = life.command("destroy", "--yes")
    assert code == 1, printed
    assert f"has the key {used[0]}, which this state does not know" in printed
    [way_out] = set(re.findall(r"eval .*; pulumi state delete '.*' --stack \S+", printed))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-c", f"{way_out} --yes"]
    subprocess.run(shell, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    code, printed = life.command("destroy", "--yes")
    assert code == 0, printed
    assert not life.stack.engine.export(life.stack.name)["deployment"].get("resources")
    life.stack.engine.replace_state(life.stack.name, state)
    assert life.keys() == used
    works(life)


# ---- a store that moves into the program

DECLARED = """
from components import S3Compatible, S3CompatibleArgs, from_config, make, publish

publish({name: make(store) for name, store in from_config().items()})
S3Compatible("%s", S3CompatibleArgs(%s))
"""


def declare(life: Life, component: str = SERVER, **more: Any) -> None:
    """Take the store out of the stack file, and have the program declare it."""
    settings = {"server_name": SERVER, **life.settings(user=life.user, **more)}
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    (life.stack.engine.project / "__main__.py").write_text(DECLARED % (component, arguments))
    life.stack.write({OTHER: {"method": "filesystem"}})


def test_a_store_that_moves_into_the_program_is_no_danger(life: Life) -> None:
    used = life.keys()
    declare(life)
    code, printed = life.command("diff")
    assert code in (0, 2), printed
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert life.keys() == used


@pytest.mark.parametrize("component", [SERVER, "another-name"])
def test_a_store_that_moves_into_the_program_and_elsewhere_is_a_danger(life: Life, component: str) -> None:
    declare(life, component, prefix="other/")
    code, printed = life.command("diff")
    assert code == 3, printed
    assert "becomes other/: media that is there already is looked for elsewhere" in printed


def test_a_store_whose_bucket_is_a_secret_is_guarded_and_shown_like_any_other(life: Life) -> None:
    """Its outputs, and its bucket's name, are ciphertext in the state."""
    put_media(life)
    used = life.keys()
    declare(life)
    program = life.stack.engine.project / "__main__.py"
    secret = program.read_text().replace(f"bucket='{life.bucket}'", f"bucket=Output.secret('{life.bucket}')")
    assert secret != program.read_text()
    program.write_text(f"from pulumi import Output\n{secret}")
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    code, printed = life.command("show", "--stack", life.stack.name)
    assert code == 0, printed
    assert "not finished" not in printed
    assert "failed" not in printed
    assert f"{SERVER}: made; what it has is encrypted in the state" in printed
    code, printed = life.command("diff")
    assert code == 0, printed
    # The store goes, and its media has no word.
    program.write_text(secret[: secret.index("S3Compatible(")])
    allowed = words("delete-bucket", "retire-key", "narrow-policy")
    life.stack.write({OTHER: {"method": "filesystem"}}, allowed)
    code, printed = life.command("up", "--yes")
    assert code in (1, 3), printed
    assert "nothing was changed" in printed
    assert media(life) == PHOTO
    assert life.keys() == used


def test_another_datastore_id_in_the_program_is_a_danger(life: Life) -> None:
    """No part of the store has it, so that nothing else changes."""
    for number, (datastore, expected) in enumerate((("one", (0, 2, 3)), ("one", (0,)), ("two", (3,)))):
        declare(life, method="matrix-media-repo", media_repo={"s3_datastore_id": datastore})
        # Another method needs other rights, and looks for media elsewhere.
        allowed = ("move-media",) if number == 0 else ()
        life.stack.write({OTHER: {"method": "filesystem"}}, words("widen-policy", "narrow-policy", *allowed))
        code, printed = life.command("diff")
        assert code in expected, printed
        if number == 0:
            code, printed = life.command("up", "--yes")
            assert code == 0, printed
    assert "media_repo.s3_datastore_id one becomes two" in printed
    assert life.command("up", "--yes")[0] == 3


def test_the_administrators_key_does_not_become_synapses_in_a_program(life: Life) -> None:
    """Whoever declared the store before: what deletes its keys is in the variables that existing_key reads."""
    used = life.keys()
    allowed = words("retain-bucket", "retire-key", "narrow-policy")
    for name, bucket in ((SERVER, life.bucket), (OTHER, f"{life.bucket}-other")):
        (life.stack.engine.project / "__main__.py").write_text(
            DECLARED.replace('"%s"', '"existing"')
            % (
                f"server_name={name!r}, endpoint={life.running.endpoint!r}, bucket={bucket!r}, existing_key=True, "
                "method='synapse-s3-storage-provider'"
            )
        )
        life.stack.write({"third.example.com": {"method": "filesystem"}}, allowed)
        for command in (("diff",), ("up", "--yes")):
            code, printed = life.command(*command)
            assert code == 3, printed
            assert f"existing_key of {name} takes the key in S3_ACCESS_KEY_ID" in printed
    assert life.keys() == used
    works(life)


# ---- another place


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        ({"region": "eu-west-1"}, "replace-bucket"),
        ({"prefix": "other/"}, "move-media"),
        ({"access": "full", "prefix": "other/"}, "move-media"),
        ({"bucket": "another-bucket-of-ours"}, "replace-bucket"),
        ({"user": "another-user"}, "retire-key"),
    ],
    ids=str,
)
def test_another_place_for_the_media_has_its_word(life: Life, edit: dict[str, Any], word: str) -> None:
    life.stack.write({SERVER: life.settings(user=life.user) | edit})
    assert life.command("diff")[0] == 3
    code, printed = life.command("up", "--yes")
    assert code == 3, printed
    assert f"{SERVER}/{word}" in printed
    works(life)


def test_a_former_place_that_takes_another_credential_is_found_out_before(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"bucket": f"{life.bucket}-next", "user": f"{life.user}-next", "iam_endpoint": "http://127.0.0.1:9"}
    life.store("retire-key", "narrow-policy", "replace-bucket", "retain-bucket", **elsewhere)
    with monkeypatch.context() as patch:
        patch.setenv("S3_SECRET_ACCESS_KEY", "of-the-new-place")
        code, printed = life.command("up", "--yes")
    assert code == 1, printed
    assert "which is not accepted there" in printed
    assert len(life.keys()) == 1
    works(life)


def test_a_key_that_a_refresh_found_gone_needs_no_word(life: Life) -> None:
    rotated(life)
    used = life.stack.outputs().access_key_id
    [former] = set(life.keys()) - {used}
    life.iam.delete_access_key(UserName=life.user, AccessKeyId=former)
    life.store(keys={"active": "b", "retiring": []})
    code, printed = life.command("up", "--refresh", "--yes")
    assert code == 0, printed
    assert life.keys() == [used]


def test_a_rotation_by_an_older_state_looks_first(life: Life) -> None:
    life.store(keys={"active": "b", "retiring": []})
    code, printed = life.command("rotate", "--yes")
    assert code == 1, printed
    assert "the state has no key in slot b" in printed
    assert "up --refresh" in printed
    assert line(life) == {"active": "b", "retiring": []}


def test_a_datastore_id_that_moves_has_its_word(begin: Callable[[], Life]) -> None:
    new = begin()
    ids = {"s3_datastore_id": "a1b2c3d4e5"}
    new.stack.store((), **new.settings(method="matrix-media-repo", media_repo=ids))
    code, printed = new.command("up", "--yes")
    assert code == 0, printed
    new.stack.store((), **new.settings(method="matrix-media-repo", media_repo={"s3_datastore_id": "f6a7b8c9d0"}))
    code, printed = new.command("up", "--yes")
    assert code == 3, printed
    assert f"{SERVER}/move-media" in printed
    new.stack.store(
        ["move-media"], **new.settings(method="matrix-media-repo", media_repo={"s3_datastore_id": "f6a7b8c9d0"})
    )
    code, printed = new.command("up", "--yes")
    assert code == 0, printed
    assert new.command("diff")[0] == 0


def test_a_homeserver_can_be_renamed(life: Life) -> None:
    put_media(life)
    keys = life.keys()
    life.stack.write({OTHER: life.settings(user=life.user)}, words("delete-bucket", "retire-key", "narrow-policy"))
    code, printed = life.command("up", "--yes")
    assert code == 3, printed
    assert f"set renamed_from: {SERVER}" in printed
    assert life.command("diff")[0] == 3
    works(life)
    for _ in range(2):
        life.stack.write({OTHER: life.settings(user=life.user, renamed_from=SERVER)})
        code, printed = life.command("up", "--yes")
        assert code == 0, printed
    outputs = life.stack.outputs(OTHER)
    outputs.require_proof()
    assert life.keys() == keys == [outputs.access_key_id]
    assert media(life) == PHOTO
    tags = life.s3.get_bucket_tagging(Bucket=life.bucket)["TagSet"]
    assert [tag["Value"].rpartition("/")[2] for tag in tags] == [OTHER]
    life.stack.write({OTHER: life.settings(user=life.user)})
    assert life.command("diff", "--refresh")[0] == 0


def test_a_user_of_another_store_is_not_taken_over(life: Life) -> None:
    life.stack.write(
        {OTHER: life.settings(user=life.user, bucket=f"{life.bucket}-2")},
        words("delete-bucket", "retire-key", "narrow-policy"),
    )
    code, printed = life.command("up", "--yes")
    assert code == 3, printed
    assert f"the user of {SERVER}" in printed
    works(life)


def test_another_provider_on_the_same_server_keeps_what_it_took_over(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_media(life)
    monkeypatch.setenv("WASABI_ACCESS_KEY_ID", life.running.access_key_id)
    monkeypatch.setenv("WASABI_SECRET_ACCESS_KEY", life.running.secret_access_key)
    moved = life.settings(provider="wasabi", region="us-east-1", user=life.user)
    del moved["settle_seconds"]
    life.stack.write({SERVER: moved}, words("replace-bucket", "retire-key"))
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    works(life)
    assert life.iam.list_user_policies(UserName=life.user)["PolicyNames"] == ["synapse-media"]
    assert media(life) == PHOTO
    assert life.command("diff", "--refresh")[0] == 0


# ---- what was reviewed is what happens


def test_a_stack_file_that_is_saved_at_the_question_changes_nothing(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.store(noncurrent_days=40)

    def save_meanwhile(question: str) -> None:
        life.store("widen-policy", method="goofys", noncurrent_days=40)

    monkeypatch.setattr(stacks, "confirm", save_meanwhile)
    code, printed = life.command("up")
    assert code == 0, printed
    assert life.stack.outputs().method == "synapse-s3-storage-provider"
    document = life.iam.get_user_policy(UserName=life.user, PolicyName="synapse-media")["PolicyDocument"]
    assert "DeleteObject" not in json.dumps(document)


def test_a_state_that_moved_on_at_the_question_is_not_changed_beyond_what_was_reviewed(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.store(noncurrent_days=40)
    ring = next(
        one
        for one in life.stack.engine.export(life.stack.name)["deployment"]["resources"]
        if one["type"].endswith("Ring")
    )

    def forget(question: str) -> None:
        life.stack.engine.run(
            ["state", "delete", ring["urn"], "--yes", "--target-dependents", "--stack", life.stack.name]
        )

    keys = life.keys()
    monkeypatch.setattr(stacks, "confirm", forget)
    code, printed = life.command("up")
    assert code == 1, printed
    assert "no longer what was reviewed" in printed
    assert life.keys() == keys


# ---- rotation


def rotated(life: Life) -> None:
    code, printed = life.command("rotate", "--yes")
    assert code == 0, printed


def test_a_key_that_is_being_retired_never_becomes_active_again(life: Life) -> None:
    rotated(life)
    outputs = life.stack.outputs()
    for keys in ({"active": "a", "retiring": []}, {"active": "a", "retiring": ["b"]}):
        life.store("retire-key", keys=keys)
        for command in (("diff",), ("up", "--yes"), ("rotate", "--yes"), ("rotate", "--finish", "--yes")):
            code, printed = life.command(*command)
            assert code == 3, printed
            assert "Set keys: {active: b, retiring: [a]}" in printed
    assert life.stack.outputs() == outputs
    # As the message says.
    life.store(keys={"active": "b", "retiring": ["a"]})
    assert life.command("diff")[0] == 0
    code, printed = life.command("rotate", "--finish", "--confirm", "--yes")
    assert code == 0, printed
    life.store(keys={"active": "b", "retiring": ["a"]})
    code, printed = life.command("up", "--yes")
    assert code == 3
    assert "has no key (any more)" in printed
    life.store(keys={"active": "b", "retiring": []})
    assert life.command("diff")[0] == 0


def test_a_finish_that_was_killed_is_finished(life: Life) -> None:
    rotated(life)
    outputs = life.stack.outputs()
    session = stacks.open_stack(life.stack.name, credentials=True)
    # As it is left by a kill between the edit of the stack file and the engine's first change.
    life.store(keys={"active": "b", "retiring": []})
    assert life.command("up", "--yes")[0] == 3
    assert life.command("rotate", "--yes")[0] == 64
    assert len(life.keys()) == 2
    with pytest.raises(KeyboardInterrupt), stacks.changing(session, [f"{SERVER}/retire-key"]):
        raise KeyboardInterrupt
    code, printed = life.command("rotate", "--finish", "--confirm", "--yes")
    assert code == 0, printed
    assert life.keys() == [outputs.access_key_id]
    assert line(life) == {"active": "b", "retiring": []}
    assert life.command("diff", "--refresh")[0] == 0


def test_a_rotation_whose_key_is_refused_stands_in_no_way(life: Life) -> None:
    """The user has as many keys as it may have: whose the other is, nobody here knows."""
    life.iam.create_access_key(UserName=life.user)
    code, printed = life.command("rotate", "--yes")
    assert code == 1, printed
    assert "has the maximum number of keys" in printed
    assert line(life) == {"active": "a", "retiring": []}
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    works(life)
    assert life.command("diff")[0] == 0
    assert len(life.keys()) == 2


def test_a_rotation_that_was_cut_off_and_then_declined_is_not_in_the_stack_file(life: Life) -> None:
    session = stacks.open_stack(life.stack.name, credentials=True)
    with pytest.raises(KeyboardInterrupt), stacks.changing(session):
        raise KeyboardInterrupt
    assert life.command("rotate")[0] == 1
    assert line(life) is None
    assert len(life.keys()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_killed_in_finish_is_finished_by_up(life: Life, number: signal.Signals) -> None:
    rotated(life)
    outputs = life.stack.outputs()
    command = [str(Path(sys.executable).parent / "synapse-media"), "rotate", "--stack", life.stack.name]
    with subprocess.Popen(
        [*command, "--finish", "--confirm", "--yes"],
        cwd=life.stack.engine.project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ},
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        for said in child.stdout:
            if said.startswith("Updating"):
                child.send_signal(number)
                break
        child.stdout.read()
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    code, printed = life.command("rotate", "--finish", "--confirm", "--yes")
    assert code in (0, 64), printed
    assert life.keys() == [outputs.access_key_id]
    assert line(life) == {"active": "b", "retiring": []}


def test_what_a_run_that_was_cut_off_confirmed_lets_no_other_change_pass(life: Life) -> None:
    rotated(life)
    life.store(keys={"active": "b", "retiring": []})
    session = stacks.open_stack(life.stack.name, credentials=True)
    with pytest.raises(KeyboardInterrupt), stacks.changing(session, words("retire-key", "replace-bucket")):
        raise KeyboardInterrupt
    for edit in ({"user": f"{life.user}-other"}, {"method": "filesystem"}):
        life.store(keys={"active": "b", "retiring": ["a"]}, **edit)
        code, printed = life.command("up", "--yes")
        assert code == 3, printed
        assert "what that one confirmed does not count" in printed
        assert f"{SERVER}/retire-key" in printed
        works(life)


def test_one_run_at_a_time(life: Life) -> None:
    rotated(life)
    before = life.stack.path.read_text()
    command = [str(Path(sys.executable).parent / "synapse-media"), "rotate", "--stack", life.stack.name]
    with stacks.alone(stacks.open_stack(life.stack.name, credentials=True)):
        other = subprocess.run(
            [*command, "--finish", "--confirm", "--yes"],
            cwd=life.stack.engine.project,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ},
        )
    assert other.returncode == 1
    assert "nothing was changed: another run of this machine" in other.stderr
    assert life.stack.path.read_text() == before
    assert len(life.keys()) == 2


def test_a_store_that_is_taken_out_at_the_question(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "confirm", lambda _: life.stack.write({OTHER: {"method": "filesystem"}}))
    code, printed = life.command("rotate")
    assert code == 1, printed
    assert f"has no store {SERVER} any more" in printed
    assert len(life.keys()) == 1
    assert not stacks.was_cut_off(stacks.open_stack(life.stack.name, credentials=True))


# ---- what is rendered


def test_a_key_that_is_gone_is_not_rendered(life: Life, tmp_path: Path) -> None:
    ring = next(
        one
        for one in life.stack.engine.export(life.stack.name)["deployment"]["resources"]
        if one["type"].endswith("Ring")
    )
    life.store("delete-bucket")
    code, printed = life.command("destroy", "--yes", "--", "--target", ring["urn"], "--target-dependents")
    assert code == 0, printed
    code, printed = life.command("render", "--out", str(tmp_path / "rendered"))
    assert code == 1, printed
    assert "is not in the state any more" in printed
    assert not (tmp_path / "rendered").exists()


def not_rendered_until_looked_at(life: Life, tmp_path: Path, said: str) -> None:
    """`render` refuses in these words, and what it advises leads out."""
    code, printed = life.command("render", "--out", str(tmp_path / "rendered"))
    assert code == 1, printed
    assert said in printed
    assert not (tmp_path / "rendered").exists()
    code, printed = life.command("up", "--yes", "--refresh")
    assert code == 0, printed
    assert main(["render", "--stack", life.stack.name, "--out", str(tmp_path / "rendered")]) == 0


def test_an_older_state_is_noticed_by_asking_the_store(life: Life, tmp_path: Path) -> None:
    older = life.stack.engine.export(life.stack.name)
    rotated(life)
    assert life.command("rotate", "--finish", "--confirm", "--yes")[0] == 0
    life.stack.engine.replace_state(life.stack.name, older)
    life.store()
    not_rendered_until_looked_at(life, tmp_path, "does not accept")
    works(life)


def test_a_key_that_may_not_read_is_not_rendered(life: Life, tmp_path: Path) -> None:
    [name] = life.iam.list_user_policies(UserName=life.user)["PolicyNames"]
    listing = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{life.bucket}"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [listing]})
    life.iam.put_user_policy(UserName=life.user, PolicyName=name, PolicyDocument=document)
    not_rendered_until_looked_at(life, tmp_path, "does not accept")


def test_a_key_whose_policy_was_changed_since_its_proof_is_not_rendered(life: Life, tmp_path: Path) -> None:
    """As by a run that was cut off in between: the state has the new policy, and the outputs are those of before."""
    state = life.stack.engine.export(life.stack.name)
    [policy] = [one for one in state["deployment"]["resources"] if one["type"].endswith(":UserPolicy")]
    policy["inputs"]["policy"] = policy["inputs"]["policy"].replace(":GetObject", ":GetObjectTagging")
    life.stack.engine.replace_state(life.stack.name, state)
    not_rendered_until_looked_at(life, tmp_path, "was proved with another policy than the state has now")


def test_a_store_file_with_a_key_that_is_gone_is_not_rendered(
    life: Life, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "--stack", life.stack.name, "--out", str(tmp_path / "first")]) == 0
    [file] = (tmp_path / "first").rglob("store.json")
    again = ["render", "--store", str(file), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    rotated(life)
    assert life.command("rotate", "--finish", "--confirm", "--yes")[0] == 0
    refused = ["render", "--store", str(file), "--out", str(tmp_path / "refused")]
    capfd.readouterr()
    assert main(refused) == 1
    assert "does not accept" in (said := capfd.readouterr().err)
    assert f"copy the new store.json to {file}" in said
    assert not (tmp_path / "refused").exists()


# ---- one thing under two entries of the state


def test_a_replacement_that_was_cut_off_deletes_nothing_that_is_in_use(life: Life) -> None:
    put_media(life)
    resources = life.stack.engine.export(life.stack.name)["deployment"]["resources"]
    (user,) = [one["urn"] for one in resources if one["type"].endswith(":User")]
    wide = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [wide]})
    life.iam.put_user_policy(UserName=life.user, PolicyName="by-hand", PolicyDocument=document)
    life.store("retire-key")
    code, printed = life.command("up", "--yes", "--", "--replace", user)
    assert code == 1, printed
    life.iam.delete_user_policy(UserName=life.user, PolicyName="by-hand")
    life.store()
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    works(life)
    assert life.command("diff", "--refresh")[0] == 0


def test_a_move_to_another_provider_that_was_cut_off_goes_on(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    put_media(life)
    monkeypatch.setenv("WASABI_ACCESS_KEY_ID", life.running.access_key_id)
    monkeypatch.setenv("WASABI_SECRET_ACCESS_KEY", life.running.secret_access_key)
    denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{life.bucket}/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    moved = life.settings(provider="wasabi", region="us-east-1", user=life.user)
    del moved["settle_seconds"]
    allow = words("replace-bucket", "retain-bucket", "retire-key", "narrow-policy", "set-policy")
    life.stack.write({SERVER: {**moved, "adopt": True}}, [entry for entry in allow if "set-policy" not in entry])
    life.s3.put_bucket_policy(Bucket=life.bucket, Policy=document)
    code, printed = life.command("up", "--yes")
    assert code == 1, printed
    life.s3.delete_bucket_policy(Bucket=life.bucket)
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    works(life)
    assert media(life) == PHOTO
    assert life.command("diff", "--refresh")[0] == 0


def test_a_bucket_that_is_back_is_not_deleted_as_the_one_that_was_left(life: Life) -> None:
    """As two moves leave it that were cut off, there and back again."""
    put_media(life)
    export = life.stack.engine.export(life.stack.name)
    (bucket,) = [one for one in export["deployment"]["resources"] if one["type"] == "s3store:index:Bucket"]
    export["deployment"]["resources"].append({**bucket, "delete": True, "protect": False})
    life.stack.engine.replace_state(life.stack.name, export)
    life.store("replace-bucket", "delete-bucket", "delete-media", noncurrent_days=31)
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert media(life) == PHOTO
    works(life)
    assert life.command("diff", "--refresh")[0] == 0


def test_media_that_stays_is_not_said_to_be_deleted_where_a_move_is_taken_back(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_media(life)
    wide = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [wide]})
    life.iam.put_user_policy(UserName=life.user, PolicyName="by-hand", PolicyDocument=document)
    allow = ("replace-bucket", "delete-bucket", "widen-policy", "narrow-policy")
    begun = f"{life.bucket}-2"
    with monkeypatch.context() as patched:
        patched.setattr(stacks, "media_in", lambda *_: "")  # uploaded after the look
        life.store(*allow, bucket=begun, user=life.user)
        code, printed = life.command("up", "--yes")
    assert code == 1, printed
    assert "the proof failed" in printed
    life.iam.delete_user_policy(UserName=life.user, PolicyName="by-hand")
    put_media(life, begun)
    life.store(*allow, user=life.user)
    code, printed = life.command("up", "--yes")
    assert code == 1, printed
    assert f"the bucket {begun} holds media" in printed
    assert f"the bucket {life.bucket} holds media" not in printed
    for version in life.s3.list_object_versions(Bucket=begun).get("Versions", []):
        life.s3.delete_object(Bucket=begun, Key=version["Key"], VersionId=version["VersionId"])
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert media(life) == PHOTO
    works(life)
    assert life.command("diff", "--refresh")[0] == 0


def test_a_run_that_fails_midway_after_one_that_was_cut_off_is_not_taken_for_one_that_never_began(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.store("delete-bucket")
    with pytest.raises(KeyboardInterrupt), stacks.changing(stacks.open_stack(life.stack.name, credentials=True)):
        raise KeyboardInterrupt  # leaves the mark of a run that was cut off
    monkeypatch.setattr(stacks, "media_in", lambda *_: put_media(life) or "")  # uploaded after the look
    code, printed = life.command("destroy", "--yes")
    assert code == 1, printed
    assert "holds media and is not deleted" in printed
    assert not any(
        one["type"] == "s3store:index:KeyRing"
        for one in life.stack.engine.export(life.stack.name)["deployment"]["resources"]
    )
    assert media(life) == PHOTO


def test_nothing_goes_where_the_store_lists_a_bucket_that_it_says_is_gone(begin: Callable[[], Life]) -> None:
    """A node that lags behind, or another store behind the same name: the key and the user would go first."""
    life = begin()
    with in_front_of(life.running.endpoint) as s3:
        store = {
            "provider": "s3_compatible",
            "endpoint": s3.url,
            "iam_endpoint": life.running.iam_endpoint,
            "bucket": life.bucket,
            "settle_seconds": 0,
        }
        life.stack.write({SERVER: store}, [f"{SERVER}/delete-bucket", f"{SERVER}/retire-key"])
        life.stack.up()
        put_media(life)
        s3.misbehave(
            lambda request, _: error(request, 404, "NoSuchBucket", "gone"),
            when=lambda request: life.bucket in request.path,
        )
        code, said = life.command("destroy", "--yes")
        assert code == 1, said
        assert f"it can't be seen whether the bucket {life.bucket} holds media" in said
        assert life.iam.list_access_keys(UserName=life.user)["AccessKeyMetadata"]
        s3.behave()
        assert life.stack.preview(refresh=True) == ()
        life.stack.write({SERVER: store}, [f"{SERVER}/{word}" for word in ("delete-bucket", "delete-media")])
        code, said = life.command("destroy", "--yes")
        assert code == 0, said
