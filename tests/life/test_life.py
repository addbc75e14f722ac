"""From nothing to destroy, on the real engine and the real embedded store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import botocore.exceptions
import pytest

from synapse_media import contract
from synapse_media.cli import main
from synapse_media.engine.session import EngineError
from synapse_media.guards.changes import Change
from synapse_media.renderer import render
from tests.cli.shapes import answer
from tests.life.life import SERVER, Life


def verbs(found: tuple[Change, ...]) -> dict[str, str]:
    return {change.kind: change.verb for change in found}


def test_a_second_up_changes_nothing_and_what_is_made_is_proved_and_renders(life: Life) -> None:
    first = life.stack.outputs()
    assert first.proof is not None
    assert first.proof.passed
    assert {line.operation: line.outcome for line in first.proof.lines} == {
        **dict.fromkeys(("put", "head", "get", "list", "missing-key", "multipart", "abort"), "allowed"),
        **dict.fromkeys(("put-bucket-policy", "create-bucket", "other-bucket", "delete"), "refused"),
    }
    assert render(first, "plain")
    code, printed = life.command("up", "--yes")
    assert code == 0
    assert "no changes" in printed
    assert life.stack.outputs() == first
    assert life.stack.preview(refresh=True) == ()
    # The proof leaves nothing behind: no object, no decoy, no journal.
    assert "Versions" not in life.s3.list_object_versions(Bucket=life.bucket)
    assert not [b["Name"] for b in life.s3.list_buckets()["Buckets"] if b["Name"].startswith("synapse-media-decoy")]
    assert life.iam.list_user_policies(UserName=life.user)["PolicyNames"] == ["synapse-media"]


def test_diff_says_in_words_and_by_exit_code_what_up_would_do(begin: Callable[[], Life]) -> None:
    new = begin()
    new.store()
    code, printed = new.command("diff")
    assert code == 2
    assert f"create Bucket of {SERVER}" in printed
    assert "+ allow s3:ListBucket on arn:aws:s3:::" in printed
    assert new.command("up", "--yes")[0] == 0
    assert new.command("diff")[0] == 0
    assert new.command("diff", "--refresh")[0] == 0


def test_nothing_is_made_off_a_terminal_without_yes(begin: Callable[[], Life]) -> None:
    new = begin()
    new.store()
    code, printed = new.command("up")
    assert code == 1
    assert "Add --yes" in printed
    with pytest.raises(botocore.exceptions.ClientError, match="404"):
        new.s3.head_bucket(Bucket=new.bucket)


def test_what_is_handed_to_pulumi_is_guarded_as_all_else(life: Life) -> None:
    ring = next(
        one["urn"]
        for one in life.stack.engine.export(life.stack.name)["deployment"]["resources"]
        if one["type"].endswith("KeyRing")
    )
    keys = life.keys()
    for command in (["diff"], ["up", "--yes"]):
        code, printed = life.command(*command, "--", "--replace", ring)
        assert code == 3, printed
        assert "stops working" in printed
        assert life.command(*command, "--", "--target", ring)[0] == 0
    for command in ("diff", "up", "destroy"):
        code, printed = life.command(command, "--", "--config", "synapse-media:allow=[]")
        assert code == 64
        assert "allowed: --target, " in printed
    assert life.command("diff", "--from-nothing", "--", "--target", ring)[0] == 64
    assert life.keys() == keys


def edit_policy(life: Life) -> None:
    anything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [anything]})
    life.iam.put_user_policy(UserName=life.user, PolicyName="synapse-media", PolicyDocument=document)


def delete_policy(life: Life) -> None:
    life.iam.delete_user_policy(UserName=life.user, PolicyName="synapse-media")


def delete_key(life: Life) -> None:
    life.iam.delete_access_key(UserName=life.user, AccessKeyId=life.keys()[0])


def delete_user(life: Life) -> None:
    delete_key(life)
    delete_policy(life)
    life.iam.delete_user(UserName=life.user)


def delete_bucket(life: Life) -> None:
    life.s3.delete_bucket(Bucket=life.bucket)


def make_public(life: Life) -> None:
    reading = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{life.bucket}/*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [reading]})
    life.s3.put_bucket_policy(Bucket=life.bucket, Policy=document)


def suspend_versioning(life: Life) -> None:
    life.s3.put_bucket_versioning(Bucket=life.bucket, VersioningConfiguration={"Status": "Suspended"})


def test_a_policy_that_is_made_anew_under_its_own_name_stands(life: Life) -> None:
    """Made first and deleted after, as the engine does by itself, it would be gone, and nothing would say so."""
    urn = life.stack.urn("s3store:index:UserPolicy")
    before = life.iam.get_user_policy(UserName=life.user, PolicyName="synapse-media")["PolicyDocument"]
    for option in ("--replace", "--target-replace"):
        code, printed = life.command("up", "--yes", "--", option, urn)
        assert code == 0, printed
        after = life.iam.get_user_policy(UserName=life.user, PolicyName="synapse-media")["PolicyDocument"]
        assert after == before
        assert life.stack.preview(refresh=True) == ()


def test_a_bucket_and_a_user_that_are_made_anew_under_their_own_names_stand(life: Life) -> None:
    """They are found and taken over, and the old ones that are deleted after are these very ones."""
    life.store("replace-bucket", "retire-key")
    before = life.keys()
    urns = [life.stack.urn(f"s3store:index:{kind}") for kind in ("Bucket", "User")]
    code, printed = life.command("up", "--yes", "--", *(part for urn in urns for part in ("--replace", urn)))
    assert code == 0, printed
    assert life.s3.head_bucket(Bucket=life.bucket)
    assert life.keys() == before
    assert life.iam.get_user_policy(UserName=life.user, PolicyName="synapse-media")
    assert life.stack.preview(refresh=True) == ()


@pytest.mark.parametrize(
    ("by_hand", "seen"),
    [
        (edit_policy, {"UserPolicy": "update"}),
        (delete_policy, {"UserPolicy": "create"}),
        (delete_key, {"KeyRing": "update"}),
        (delete_user, {"User": "create", "UserPolicy": "create", "KeyRing": "create"}),
        (delete_bucket, {"Bucket": "create"}),
        (make_public, {"Bucket": "update"}),
        (suspend_versioning, {"Bucket": "update"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_was_changed_by_hand_is_found_and_mended(
    life: Life, by_hand: Callable[[Life], None], seen: dict[str, str]
) -> None:
    by_hand(life)
    found = verbs(life.stack.preview(refresh=True))
    assert seen.items() <= found.items()
    assert set(found) <= {*seen, "Proof"}
    code, printed = life.command("up", "--yes", "--refresh")
    assert code == 0, printed
    assert life.stack.preview(refresh=True) == ()
    outputs = life.stack.outputs()
    outputs.require_proof()
    life.client("s3", outputs.access_key_id, outputs.secret_access_key).put_object(
        Bucket=life.bucket, Key="after", Body=b"1"
    )
    assert life.keys() == [outputs.access_key_id]


def test_a_key_of_somebody_else_and_one_switched_off_are_reported_and_left(life: Life) -> None:
    stranger = life.iam.create_access_key(UserName=life.user)["AccessKey"]["AccessKeyId"]
    ours = life.stack.outputs().access_key_id
    life.iam.update_access_key(UserName=life.user, AccessKeyId=ours, Status="Inactive")
    code, printed = life.command("diff", "--refresh")
    assert code == 0
    assert f"has the key {stranger}, not created by this stack" in printed
    assert f"key {ours} was disabled outside of this stack" in printed
    life.command("up", "--yes", "--refresh")
    assert life.keys() == sorted([ours, stranger])
    status = {
        key["AccessKeyId"]: key["Status"] for key in life.iam.list_access_keys(UserName=life.user)["AccessKeyMetadata"]
    }
    assert status == {ours: "Inactive", stranger: "Active"}


def test_a_bucket_is_never_replaced_unasked(life: Life) -> None:
    life.s3.put_object(Bucket=life.bucket, Key="local_content/photo", Body=b"photo")
    life.stack.store((), **life.settings(bucket=f"{life.bucket}-2", user=life.user))
    code, printed = life.command("diff")
    assert code == 3
    assert "DANGER" in printed
    code, printed = life.command("up", "--yes")
    assert code == 3
    assert f"{SERVER}/replace-bucket" in printed
    # Plain pulumi knows fewer guards, and this one.
    with pytest.raises(EngineError, match="protect"):
        life.stack.up()
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"


def test_destroy_goes_as_far_as_allow_says(life: Life) -> None:
    life.s3.put_object(Bucket=life.bucket, Key="local_content/photo", Body=b"photo")
    code, printed = life.command("destroy", "--yes")
    assert code == 3
    assert "retain-bucket" in printed
    life.store("delete-bucket")
    code, printed = life.command("destroy", "--yes")
    assert code == 1
    assert "holds media" in printed
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"
    assert len(life.keys()) == 1
    # Plain pulumi looks later: the plugin refuses by itself.
    life.stack.up()
    with pytest.raises(EngineError, match="holds media and is not deleted"):
        life.stack.destroy()
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"
    life.store("delete-bucket", "delete-media")
    life.capture.readouterr()
    assert main(["destroy", "--stack", life.stack.name, "--yes", "--json"]) == 0
    assert answer("destroy", life.capture.readouterr().out)["buckets"] == {SERVER: "deleted"}
    with pytest.raises(botocore.exceptions.ClientError, match="404"):
        life.s3.head_bucket(Bucket=life.bucket)
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchEntity"):
        life.iam.get_user(UserName=life.user)


def test_a_bucket_with_media_goes_by_its_own_word_alone(life: Life) -> None:
    life.s3.put_object(Bucket=life.bucket, Key="local_content/photo", Body=b"photo")
    words = [f"{SERVER}/{word}" for word in ("retire-key", "narrow-policy", "delete-bucket", "delete-media")]
    for allow, expected, said in ((words[:2], 3, "delete-bucket"), (words[:3], 1, "holds media")):
        life.stack.write({SERVER: {"method": "filesystem"}}, allow)
        code, printed = life.command("up", "--yes")
        assert code == expected
        assert said in printed
        assert len(life.keys()) == 1
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"
    life.stack.write({SERVER: {"method": "filesystem"}}, words)
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    with pytest.raises(botocore.exceptions.ClientError, match="404"):
        life.s3.head_bucket(Bucket=life.bucket)


def test_a_retained_bucket_stays_and_can_be_taken_over_again(life: Life) -> None:
    life.s3.put_object(Bucket=life.bucket, Key="local_content/photo", Body=b"photo")
    life.store("retain-bucket")
    code, printed = life.command("destroy", "--yes", "--json")
    assert code == 0, printed
    assert f'"{SERVER}": "retained"' in printed
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"
    # Its mark is exactly this store's: it is taken up again, media untouched.
    life.store()
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert life.stack.preview(refresh=True) == ()
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"
    life.store("retain-bucket")
    assert life.command("destroy", "--yes")[0] == 0
    # Without a mark nobody knows whose it is.
    life.s3.delete_bucket_tagging(Bucket=life.bucket)
    life.store()
    code, printed = life.command("up", "--yes")
    assert code == 1
    assert "set adopt: true" in printed
    life.store(adopt=True)
    life.s3.put_bucket_versioning(Bucket=life.bucket, VersioningConfiguration={"Status": "Suspended"})
    code, printed = life.command("up", "--yes")
    assert code == 0, printed
    assert "versioning is False, a new bucket would have True" in printed
    assert life.s3.get_bucket_versioning(Bucket=life.bucket)["Status"] == "Suspended"
    assert life.stack.preview(refresh=True) == ()
    assert life.s3.get_object(Bucket=life.bucket, Key="local_content/photo")["Body"].read() == b"photo"


def test_a_key_can_be_brought_along(begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch) -> None:
    new = begin()
    new.s3.create_bucket(Bucket=new.bucket)
    new.s3.put_object(Bucket=new.bucket, Key="local_content/photo", Body=b"photo")
    new.iam.create_user(UserName=new.user)
    key = new.iam.create_access_key(UserName=new.user)["AccessKey"]
    new.store(adopt=True, user=new.user, adopt_key=key["AccessKeyId"])
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "the environment has no SYNAPSE_MEDIA_ADOPTED_SECRET" in printed
    with monkeypatch.context() as patch:
        patch.setenv("SYNAPSE_MEDIA_ADOPTED_SECRET", key["SecretAccessKey"])
        code, printed = new.command("up", "--yes")
    assert code == 0, printed
    assert key["SecretAccessKey"] not in printed
    outputs = new.stack.outputs()
    outputs.require_proof()
    assert (outputs.access_key_id, outputs.secret_access_key) == (key["AccessKeyId"], key["SecretAccessKey"])
    assert new.keys() == [key["AccessKeyId"]]
    assert new.command("diff", "--refresh")[0] == 0
    assert key["SecretAccessKey"] not in new.stack.state()


def test_rotation_never_leaves_synapse_without_a_key(life: Life) -> None:
    first = life.stack.outputs()
    code, printed = life.command("rotate", "--yes")
    assert code == 0, printed
    second = life.stack.outputs()
    second.require_proof()
    assert second.access_key_id != first.access_key_id
    assert life.keys() == sorted([first.access_key_id, second.access_key_id])
    # Plain `up` in between keeps both.
    life.stack.up()
    assert life.keys() == sorted([first.access_key_id, second.access_key_id])
    for key in (first, second):
        life.client("s3", key.access_key_id, key.secret_access_key).list_objects_v2(Bucket=life.bucket)
    assert life.command("rotate", "--yes")[0] == 64
    code, printed = life.command("rotate", "--finish", "--yes")
    assert code == 1
    assert "only you know whether Synapse uses the next one" in printed
    assert life.keys() == sorted([first.access_key_id, second.access_key_id])
    code, printed = life.command("rotate", "--finish", "--confirm", "--yes")
    assert code == 0, printed
    assert life.keys() == [second.access_key_id]
    assert life.command("diff", "--refresh")[0] == 0


def test_a_rotation_that_was_declined_has_not_begun(life: Life) -> None:
    first, before = life.stack.outputs(), life.stack.path.read_text()
    code, printed = life.command("rotate")
    assert code == 1
    assert "nothing was changed" in printed
    assert life.stack.path.read_text() == before
    assert life.command("diff")[0] == 0
    assert life.command("rotate", "--finish", "--confirm", "--yes")[0] == 64
    assert life.keys() == [first.access_key_id]


def test_a_rotation_that_could_not_make_its_key_retires_nothing_and_can_be_begun_anew(life: Life) -> None:
    first = life.stack.outputs()
    stranger = life.iam.create_access_key(UserName=life.user)["AccessKey"]["AccessKeyId"]
    for _ in range(2):
        code, printed = life.command("rotate", "--yes")
        assert code == 1
        assert "has the maximum number of keys" in printed
        # No other change of the stack waits for a key that perhaps can never be made.
        assert "keys is put back to slot a: there is no new key" in printed
    code, printed = life.command("rotate", "--finish", "--confirm", "--yes")
    assert code == 64
    assert "has one key, in slot a: nothing is being retired" in printed
    assert life.keys() == sorted([first.access_key_id, stranger])
    life.iam.delete_access_key(UserName=life.user, AccessKeyId=stranger)
    code, printed = life.command("rotate", "--yes")
    assert code == 0, printed
    second = life.stack.outputs()
    second.require_proof()
    assert life.keys() == sorted([first.access_key_id, second.access_key_id])


def test_what_exists_can_be_imported_and_then_shows_no_change(life: Life, tmp_path: Path) -> None:
    endpoints = {
        "Bucket": life.running.endpoint,
        "User": life.running.iam_endpoint,
        "UserPolicy": life.running.iam_endpoint,
    }
    names = {"Bucket": life.bucket, "User": life.user, "UserPolicy": f"{life.user}/synapse-media"}
    engine = life.stack.engine
    engine.ensure_stack("imported")
    for kind, endpoint in endpoints.items():
        options = ["--yes", "--generate-code=false", "--protect=false", "--stack", "imported"]
        engine.run(["import", f"s3store:index:{kind}", "it", f"{names[kind]}@{endpoint}", *options])
    resources = {r["type"]: r for r in engine.export("imported")["deployment"]["resources"]}
    assert resources["s3store:index:Bucket"]["inputs"]["owner"].endswith(SERVER)
    assert "s3:ListBucket" in resources["s3store:index:UserPolicy"]["inputs"]["policy"]
    with pytest.raises(EngineError, match="can't be imported"):
        engine.run(["import", "s3store:index:KeyRing", "it", f"{life.user}@{life.running.iam_endpoint}", *options])


def test_an_imported_bucket_is_taken_over_and_said_to_be(begin: Callable[[], Life]) -> None:
    new = begin()
    new.s3.create_bucket(Bucket=new.bucket)
    new.s3.put_object(Bucket=new.bucket, Key="local_content/photo", Body=b"photo")
    new.store()
    assert new.command("up", "--yes")[0] == 1
    engine, name = new.stack.engine, new.stack.name
    parent = f"store=urn:pulumi:{name}::synapse-media::synapse-media:index:S3Compatible::{SERVER}"
    engine.run(
        [
            *("import", "s3store:index:Bucket", SERVER, f"{new.bucket}@{new.running.endpoint}", "--parent", parent),
            *("--yes", "--generate-code=false", "--stack", name),
        ]
    )
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "set adopt: true" in printed
    new.store(adopt=True)
    assert "only settings that `allow` permits are changed" in new.command("diff")[1]
    code, printed = new.command("up", "--yes")
    assert code == 0, printed
    code, printed = new.command("diff", "--refresh")
    assert code == 0, printed
    assert "versioning is False, a new bucket would have True" in printed
    assert new.s3.get_bucket_versioning(Bucket=new.bucket).get("Status") is None


def test_a_failed_proof_keeps_what_was_made_and_the_next_up_finishes(begin: Callable[[], Life]) -> None:
    new = begin()
    new.store()
    # Somebody's bucket policy on a bucket of that name: it denies what our policy grants.
    new.s3.create_bucket(Bucket=new.bucket)
    denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{new.bucket}/*"}
    new.store(adopt=True)
    document = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    new.s3.put_bucket_policy(Bucket=new.bucket, Policy=document)
    code, printed = new.command("up", "--yes")
    assert code == 1
    assert "put should be allowed, was refused" in printed
    assert "a bucket policy created by hand" in printed
    keys = new.keys()
    assert len(keys) == 1
    with pytest.raises((contract.ContractError, KeyError)):
        new.stack.outputs().require_proof()
    new.s3.delete_bucket_policy(Bucket=new.bucket)
    code, printed = new.command("up", "--yes")
    assert code == 0, printed
    assert new.keys() == keys


BOTO3_ALONE = """
import sys
known = {"synapse_media", "boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3"}
class Server:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in known | sys.stdlib_module_names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Server())
from synapse_media.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_server_proves_with_boto3_alone(life: Life, tmp_path: Path) -> None:
    """What README has installed there: neither Pulumi nor anything else that this project needs elsewhere."""
    file = tmp_path / "store.json"
    file.write_text(json.dumps(contract.to_json(life.stack.outputs())))
    command = [sys.executable, "-c", BOTO3_ALONE, "prove", "--store", str(file)]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert f"{SERVER}: passed" in answer.stdout


def test_prove_again_finds_what_broke_since(life: Life, tmp_path: Path) -> None:
    file = tmp_path / "store.json"
    file.write_text(json.dumps(contract.to_json(life.stack.outputs())))
    file.chmod(0o600)
    assert main(["prove", "--store", str(file)]) == 0
    for version in life.s3.list_object_versions(Bucket=life.bucket)["Versions"]:
        life.s3.delete_object(Bucket=life.bucket, Key=version["Key"], VersionId=version["VersionId"])
    life.s3.delete_bucket(Bucket=life.bucket)
    life.capture.readouterr()
    assert main(["prove", "--store", str(file)]) == 1
    assert "NoSuchBucket" in life.capture.readouterr().out


def test_no_secret_is_written_anywhere_but_into_the_encrypted_state(life: Life, own_directories: Path) -> None:
    life.command("rotate", "--yes")
    life.command("up", "--yes", "--refresh")
    life.command("diff", "--format", "json")
    first = life.stack.engine.export(life.stack.name)
    assert "secretAccessKey" in json.dumps(first)
    shown = life.stack.engine.run(["stack", "export", "--show-secrets", "--stack", life.stack.name]).stdout
    ring = next(r for r in json.loads(shown)["deployment"]["resources"] if r["type"].endswith("KeyRing"))
    issued = [json.loads(ring["outputs"]["secrets"]["plaintext"])[slot] for slot in ("a", "b")]
    assert len(set(issued)) == 2
    places = [own_directories, life.stack.engine.project]
    for secret in (*issued, life.running.secret_access_key):
        found = subprocess.run(
            ["grep", "-rlaF", "-e", secret, *map(str, places)], capture_output=True, text=True, check=False
        ).stdout.split()
        # The server's own account data is the one place where it must be.
        assert [path for path in found if "/embedded/tests/" not in path] == []
