"""Amazon S3 through a stand-in for the vendor's plugin (tests/doubles/aws_plugin.py).

The bucket, its policy, the user and the keys are on the embedded store, over TLS; what that store lacks is on moto.
The stand-in behaves as the vendor's code was measured to: docs/vendors.md.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from synapse_media.cli import main as command
from synapse_media.engine import embedded, session
from synapse_media.engine.session import EngineError
from synapse_media.guards import changes
from synapse_media.renderer import render
from tests.accounts import user_names
from tests.components.library import SOURCE, library, write
from tests.doubles import proxy, vendor_plugin
from tests.providers.project import SERVER, Stack, stack

BUCKET = "amazon-media"
USER = f"synapse-media-{BUCKET}"
MARK = f"synapse-media/amazon/{SERVER}"


@dataclass(slots=True)
class Cloud:
    """Where Amazon is in these tests: the embedded store, and moto for the rest."""

    store: embedded.Running
    rest: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.store.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.store.secret_access_key,
            "AWS_CA_BUNDLE": str(self.store.ca_file),
            "STAND_IN_AWS_REST": self.rest,
        }

    def client(self, service: str, *, rest: bool = False) -> Any:
        place = self.rest if rest else self.store.endpoint if service == "s3" else self.store.iam_endpoint
        return boto3.client(
            service,
            endpoint_url=place,
            region_name=self.store.region,
            aws_access_key_id=self.store.access_key_id,
            aws_secret_access_key=self.store.secret_access_key,
            verify=str(self.store.ca_file),
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "provider": "amazon_s3",
            "region": self.store.region,
            "bucket": BUCKET,
            "method": "synapse-s3-storage-provider",
            "endpoint": self.store.endpoint,
            "iam_endpoint": self.store.iam_endpoint,
            "settle_seconds": 0,
            **more,
        }


@pytest.fixture(scope="module")
def cloud(own_directories: Path) -> Iterator[Cloud]:
    vendor_plugin.install()
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    running = embedded.start(tls=True, name="amazon-tests")
    yield Cloud(running, f"http://{host}:{port}")
    embedded.wipe(name="amazon-tests")
    moto.stop()


@pytest.fixture
def amazon(tmp_path: Path, cloud: Cloud) -> Stack:
    return stack(tmp_path, "amazon", cloud.environment)


def _kinds(stack: Stack) -> set[str]:
    return {change.kind for change in stack.preview(refresh=True)}


def _chain(stack: Stack) -> list[str]:
    """What waits for the one before it, from the bucket on: Amazon answers 409 to two writes at a time."""
    resources = stack.engine.export(stack.name)["deployment"]["resources"]
    parts = {item["urn"]: set(item.get("dependencies", ())) for item in resources if ":s3/bucket" in item["type"]}
    chain = sorted(parts, key=lambda urn: len(_all(urn, parts)))
    assert [len(_all(urn, parts)) for urn in chain] == list(range(len(chain)))
    return [urn.split("::")[2].rpartition(":")[2] for urn in chain]


def _all(urn: str, parts: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    for direct in parts[urn] & set(parts):
        found |= {direct} | _all(direct, parts)
    return found


def test_life_of_a_store(amazon: Stack, cloud: Cloud) -> None:
    s3, iam, rest = cloud.client("s3"), cloud.client("iam"), cloud.client("s3", rest=True)
    amazon.store(**cloud.settings(tags={"service": "matrix"}))
    amazon.up()
    assert amazon.preview() == ()

    first = amazon.outputs()
    first.require_proof()
    assert (first.provider, first.addressing, first.lacks) == ("amazon_s3", "path", ())
    assert render(first, form="plain")
    assert first.secret_access_key not in amazon.state()
    assert cloud.store.secret_access_key not in amazon.state()
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"]}
    assert tags == {"synapse-media:stack": MARK, "service": "matrix"}
    assert iam.get_user(UserName=USER)["User"]["Path"] == f"/synapse-media/synapse-media/amazon/{SERVER}/{BUCKET}/"
    # What the proof wrote is gone: the vendor's plugin deletes none but an empty bucket.
    assert "Versions" not in s3.list_object_versions(Bucket=BUCKET)

    assert _chain(amazon) == [
        "Bucket",
        "BucketPublicAccessBlock",
        "BucketOwnershipControls",
        "BucketServerSideEncryptionConfiguration",
        "BucketVersioning",
        "BucketLifecycleConfiguration",
        "BucketPolicy",
    ]

    # Changed by hand: a refresh finds and describes it, and the next up reverts it.
    rest.delete_public_access_block(Bucket=BUCKET)
    rules = rest.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    rules.append({"ID": "cleaner", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}})
    rest.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [public]}))
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    iam.put_user_policy(
        UserName=USER,
        PolicyName="synapse-media",
        PolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["*"]}]}',
    )
    drifted = {
        "BucketPublicAccessBlock": "it is gone",
        "BucketLifecycleConfiguration": "a lifecycle rule deletes media by age: cleaner expires all media after 1 day",
        "BucketPolicy": f'the bucket\'s policy lets everybody in: allow to "*" s3:GetObject on {public["Resource"]}',
        "BucketVersioning": "versioning is turned off: what is overwritten or deleted is gone at once",
        "UserPolicy": "the key may do more than before: s3:*",
    }
    found = {change.kind: change for change in amazon.preview(refresh=True)}
    assert set(found) == set(drifted)
    for kind, why in drifted.items():
        assert f"found at the store: {why}" in found[kind].details, kind
        assert found[kind].dangers == ()
    assert "- allow s3:* on *" in found["UserPolicy"].details
    assert 'versioningConfiguration.status: "Suspended" -> "Enabled"' in found["BucketVersioning"].details
    assert "__defaults" not in changes.in_words(found.values())
    amazon.up(refresh=True)
    assert amazon.preview(refresh=True) == ()
    block = rest.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert list(block.values()) == [True] * 4

    # Rotation: the second key beside the first, then the first retired.
    amazon.store(**cloud.settings(tags={"service": "matrix"}, keys={"active": "b", "retiring": ["a"]}))
    amazon.up()
    second = amazon.outputs()
    second.require_proof()
    assert second.access_key_id != first.access_key_id
    assert len(iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]) == 2
    s3.put_object(Bucket=BUCKET, Key="media", Body=b"a picture")
    amazon.store(["retire-key", "delete-bucket"], **cloud.settings(keys={"active": "b"}))
    amazon.up()
    keys = [key["AccessKeyId"] for key in iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]]
    assert keys == [second.access_key_id]

    # A bucket with media in it is given up only where the stack file says so.
    with pytest.raises(EngineError, match="BucketNotEmpty"):
        amazon.destroy()
    # Refused, and as private as it was.
    assert rest.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"] == block
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    amazon.store(["delete-bucket", "delete-media"], **cloud.settings(keys={"active": "b"}))
    amazon.up()
    amazon.outputs().require_proof()
    amazon.destroy()
    assert BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert USER not in user_names(iam)


def test_what_is_made_anew_under_its_own_name_stands(amazon: Stack, cloud: Cloud) -> None:
    """Made first and deleted after, as the engine does by itself, it would be gone."""
    s3, rest, name = cloud.client("s3"), cloud.client("s3", rest=True), "amazon-anew"
    stores = {SERVER: cloud.settings(bucket=name), "role.example.com": cloud.settings(bucket="role-anew", keyless=True)}
    amazon.write(stores, [f"{store}/delete-bucket" for store in stores])
    amazon.up()
    resources = amazon.engine.export(amazon.name)["deployment"]["resources"]
    kinds = ("iam/userPolicy", "iam/rolePolicy", "s3/bucket")
    anew = [
        item["urn"]
        for item in resources
        if item["type"].startswith(tuple(f"aws:{kind}" for kind in kinds)) and item["type"] != "aws:s3/bucket:Bucket"
    ]
    assert len(anew) == 2 + 2 * 6
    amazon.up(options=[part for urn in anew for part in ("--replace", urn)])
    assert amazon.preview(refresh=True) == ()
    assert cloud.client("iam").get_user_policy(UserName=f"synapse-media-{name}", PolicyName="synapse-media")
    role = "synapse-media-role-anew"
    assert cloud.client("iam", rest=True).get_role_policy(RoleName=role, PolicyName="synapse-media")
    for bucket in (name, "role-anew"):
        assert s3.get_bucket_policy(Bucket=bucket)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        for setting in ("public_access_block", "bucket_encryption", "bucket_lifecycle_configuration"):
            assert getattr(rest, f"get_{setting}")(Bucket=bucket)
    amazon.outputs().require_proof()
    amazon.destroy()


def test_a_bucket_that_is_left_behind_keeps_its_settings(amazon: Stack, cloud: Cloud) -> None:
    s3, rest = cloud.client("s3"), cloud.client("s3", rest=True)
    allow = ["retain-bucket", "replace-bucket", "narrow-policy", "widen-policy", "retire-key"]
    amazon.store(allow, **cloud.settings(bucket="amazon-left", user="somebody"))
    amazon.up()
    before = amazon.outputs()
    amazon.store(["delete-bucket", *allow], **cloud.settings(bucket="amazon-next", user="somebody"))
    amazon.up()
    assert amazon.preview(refresh=True) == ()
    for bucket in ("amazon-left", "amazon-next"):
        assert s3.get_bucket_policy(Bucket=bucket)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        for setting in ("public_access_block", "bucket_encryption", "bucket_lifecycle_configuration"):
            assert getattr(rest, f"get_{setting}")(Bucket=bucket)
    assert amazon.outputs().access_key_id == before.access_key_id
    amazon.store(["delete-bucket"], **cloud.settings(bucket="amazon-next", user="somebody"))
    amazon.up()
    amazon.destroy()


def test_a_user_of_another_name_is_another_user(amazon: Stack, cloud: Cloud) -> None:
    """The vendor would rename the one there is, and its keys would live on."""
    iam, name = cloud.client("iam"), "amazon-renamed"
    amazon.store(["delete-bucket"], **cloud.settings(bucket=name, user="one"))
    amazon.up()
    first = amazon.outputs()
    amazon.store(["delete-bucket"], **cloud.settings(bucket=name, user="two"))
    (user,) = [change for change in amazon.preview() if change.kind == "User"]
    assert (user.verb, [danger.word for danger in user.dangers]) == ("replace", ["retire-key"])
    amazon.let_keys_go()
    amazon.up()
    assert user_names(iam) == ["two"]
    keys = [key["AccessKeyId"] for key in iam.list_access_keys(UserName="two")["AccessKeyMetadata"]]
    assert keys == [amazon.outputs().access_key_id]
    assert keys != [first.access_key_id]
    amazon.destroy()


def test_a_role_and_a_bucket_that_was_there(amazon: Stack, cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """No key for the one, nothing changed at the other."""
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="amazon-old-media")
    s3.put_object(Bucket="amazon-old-media", Key="media", Body=b"a picture of years ago")
    stores = {
        "old.example.com": cloud.settings(bucket="amazon-old-media", adopt=True),
        "role.example.com": cloud.settings(bucket="amazon-role-media", keyless=True),
    }
    amazon.write(stores)
    said = amazon.up()
    assert (
        "bucket amazon-old-media is adopted without changes: versioning is False, a new bucket would have True" in said
    )
    assert "Status" not in s3.get_bucket_versioning(Bucket="amazon-old-media")
    assert amazon.preview() == ()
    amazon.outputs("old.example.com").require_proof()

    role = amazon.outputs("role.example.com")
    assert (role.keyless, role.access_key_id) == (True, "")
    assert "ec2_instance_profile" in "".join(render(role, form="playbook").values())
    # No key, so nothing to rotate; the stack file is left alone.
    written = amazon.path.read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(amazon.engine.project)
        for variable, value in cloud.environment.items():
            patch.setenv(variable, value)
        assert command(["rotate", "--stack", amazon.name, "--server", "role.example.com", "--yes"]) == 64
    assert "is keyless" in capsys.readouterr().err
    assert amazon.path.read_text() == written
    iam = cloud.client("iam", rest=True)
    assert iam.get_instance_profile(InstanceProfileName="synapse-media-amazon-role-media")
    policy = iam.get_role_policy(RoleName="synapse-media-amazon-role-media", PolicyName="synapse-media")
    assert policy["PolicyDocument"]["Statement"][0]["Action"] == ["s3:ListBucket"]

    # Given up and left where it is: with its settings, and with no guard in the way.
    words = ("retain-bucket", "retire-key", "narrow-policy")
    allow = [f"{name}.example.com/{word}" for name in ("old", "role") for word in words]
    amazon.write(stores, allow)
    amazon.up()
    amazon.write({"old.example.com": stores["old.example.com"]}, allow)
    assert changes.refused(amazon.preview(), allow) == ()
    amazon.up()
    assert s3.get_bucket_versioning(Bucket="amazon-role-media")["Status"] == "Enabled"
    assert cloud.client("s3", rest=True).get_public_access_block(Bucket="amazon-role-media")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="synapse-media-amazon-role-media")

    amazon.destroy()
    assert s3.list_objects_v2(Bucket="amazon-old-media")["KeyCount"] == 1
    assert cloud.client("iam").list_users()["Users"] == []


def test_a_bucket_that_was_there_becomes_a_managed_one_by_a_word(amazon: Stack, cloud: Cloud) -> None:
    """It stays with our plugin, as adopt: true says; the vendor's would make it anew."""
    s3, name = cloud.client("s3"), "amazon-owned"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="local_content/a", Body=b"a picture of years ago")
    adopted = cloud.settings(bucket=name, adopt=True)
    amazon.store(**adopted)
    amazon.up()
    first = amazon.outputs()
    amazon.store(["own-bucket"], **adopted)
    with pytest.raises(EngineError, match=r"still differs from a new bucket: .*versioning is False"):
        amazon.up()
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
    # As it says: first its settings, then the word.
    amazon.store(["set-versioning", "set-lifecycle", "set-policy", "set-access", "set-encryption"], **adopted)
    amazon.up()
    amazon.store(["own-bucket"], **adopted)
    (bucket,) = [change for change in amazon.preview() if change.kind == "Bucket"]
    assert (bucket.verb, bucket.dangers) == ("update", ())
    assert "is adopted without changes" not in amazon.up()
    assert amazon.preview() == ()
    # The word is for that run; from here on the settings are those of any other bucket.
    amazon.store(**adopted)
    assert amazon.preview(refresh=True) == ()
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    assert _kinds(amazon) == {"Bucket"}
    amazon.up(refresh=True)
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    amazon.store(**{**adopted, "noncurrent_days": 1})
    (bucket,) = [change for change in amazon.preview() if change.kind == "Bucket"]
    assert [danger.word for danger in bucket.dangers] == ["shorten-retention"]
    # The same key, and the media of before.
    assert amazon.outputs().access_key_id == first.access_key_id
    assert s3.get_object(Bucket=name, Key="local_content/a")["Body"].read() == b"a picture of years ago"
    amazon.store(["retain-bucket"], **adopted)
    amazon.up()
    amazon.destroy()


def test_the_access_log_and_a_key_of_ones_own(amazon: Stack, cloud: Cloud) -> None:
    rest, name, logs = cloud.client("s3", rest=True), "amazon-options", "amazon-logs"
    key = f"arn:aws:kms:{cloud.store.region}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    where = {"CreateBucketConfiguration": {"LocationConstraint": cloud.store.region}}
    rest.create_bucket(Bucket=logs, **({} if cloud.store.region == "us-east-1" else where))
    # moto answers as Amazon does where the log's bucket doesn't let the log service write.
    grants = {"Effect": "Allow", "Principal": {"Service": "logging.s3.amazonaws.com"}, "Action": "s3:PutObject"}
    statement = {**grants, "Resource": f"arn:aws:s3:::{logs}/*"}
    rest.put_bucket_policy(Bucket=logs, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))

    amazon.store(["delete-bucket"], **cloud.settings(bucket=name, log_bucket=logs, kms_key=key))
    amazon.up()
    assert amazon.preview(refresh=True) == ()
    log = rest.get_bucket_logging(Bucket=name)["LoggingEnabled"]
    assert (log["TargetBucket"], log["TargetPrefix"]) == (logs, f"{name}/")
    (rule,) = rest.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    assert rule["BucketKeyEnabled"] is True
    chain = _chain(amazon)
    assert chain.index("BucketLogging") == chain.index("BucketPolicy") - 1

    rest.put_bucket_logging(Bucket=name, BucketLoggingStatus={})
    assert _kinds(amazon) == {"BucketLogging"}
    amazon.up(refresh=True)
    assert rest.get_bucket_logging(Bucket=name)["LoggingEnabled"] == log
    amazon.destroy()


def test_a_name_that_is_taken(amazon: Stack, cloud: Cloud) -> None:
    """What was made before it stays in state, and the next run goes on from there."""
    cloud.client("s3").create_bucket(Bucket="amazon-taken")
    amazon.store(**cloud.settings(bucket="amazon-taken"))
    with pytest.raises(EngineError, match="BucketAlreadyOwnedByYou"):
        amazon.up()
    amazon.store(["delete-bucket"], **cloud.settings(bucket="amazon-not-taken"))
    amazon.up()
    amazon.outputs().require_proof()
    amazon.destroy()
    assert cloud.client("iam").list_users()["Users"] == []


def test_a_name_that_a_stranger_has(amazon: Stack, cloud: Cloud) -> None:
    """The gateway has one account, so the answer is a double's; the user that was made goes again."""
    with proxy.in_front_of(cloud.rest) as double:
        taken = double.misbehave(lambda request, _: proxy.error(request, 409, "BucketAlreadyExists", "not available"))
        amazon.store(**cloud.settings(bucket="amazon-strangers", endpoint=double.url))
        with pytest.raises(EngineError, match="BucketAlreadyExists"):
            amazon.up()
        assert taken.hits
    amazon.destroy()
    assert cloud.client("iam").list_users()["Users"] == []


def test_killed_while_the_bucket_is_made(amazon: Stack, cloud: Cloud) -> None:
    """The vendor's plugin doesn't know its own bucket again; the guide's way out works, and nothing else is left."""
    s3, name = cloud.client("s3"), "amazon-killed"
    amazon.store(["delete-bucket"], **cloud.settings(bucket=name))
    command = [str(amazon.engine.toolchain.pulumi), "--non-interactive", "up", "--yes", "--skip-preview"]
    with subprocess.Popen(
        [*command, "--stack", amazon.name],
        cwd=amazon.engine.project,
        env={**amazon.engine.environment, "STAND_IN_HANGS_AFTER": "Bucket"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as engine:
        deadline = time.monotonic() + 120
        while name not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
            assert time.monotonic() < deadline
            assert engine.poll() is None
            time.sleep(0.2)
        engine.kill()
    assert amazon.engine.unlock_if_dead(amazon.name)
    with pytest.raises(EngineError, match="BucketAlreadyOwnedByYou"):
        amazon.up()
    s3.delete_bucket(Bucket=name)
    cloud.client("s3", rest=True).delete_bucket(Bucket=name)
    amazon.up()
    made = amazon.outputs()
    made.require_proof()
    keys = cloud.client("iam").list_access_keys(UserName=made.user)["AccessKeyMetadata"]
    assert [key["AccessKeyId"] for key in keys] == [made.access_key_id]
    amazon.destroy()


def test_a_user_with_a_key_made_by_hand_is_not_deleted(
    amazon: Stack, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The vendor's plugin would delete the key with the user."""
    iam, settings = cloud.client("iam"), cloud.settings(bucket="amazon-by-hand")
    user = f"synapse-media-{settings['bucket']}"
    amazon.store(["delete-bucket"], **settings)
    amazon.up()
    by_hand = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
    monkeypatch.chdir(amazon.engine.project)
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    # The stand-in's own settings: pulumi gets nothing that no provider names.
    monkeypatch.setattr(session, "PASSED", re.compile(rf"{session.PASSED.pattern}|STAND_IN_\w+"))

    def refused(*words: str) -> None:
        keys = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
        assert command([words[0], "--stack", amazon.name, *words[1:]]) == 1
        assert f"user {user} has the key {by_hand}, which the state does not know" in capfd.readouterr().err
        assert iam.list_access_keys(UserName=user)["AccessKeyMetadata"] == keys

    refused("destroy", "--yes")
    # Plain pulumi too, where the state lets the store's own key go.
    keys = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
    with pytest.raises(EngineError, match=f"has the key {by_hand}, which the state does not know"):
        amazon.destroy()
    assert iam.list_access_keys(UserName=user)["AccessKeyMetadata"] == keys
    assert iam.get_user_policy(UserName=user, PolicyName="synapse-media")
    allow = [f"{SERVER}/{word}" for word in ("delete-bucket", "retire-key", "narrow-policy")]
    amazon.write({SERVER: {"method": "filesystem"}}, allow)
    refused("up", "--yes")
    # As it says.
    iam.delete_access_key(UserName=user, AccessKeyId=by_hand)
    assert command(["up", "--stack", amazon.name, "--yes"]) == 0, capfd.readouterr()
    assert user not in user_names(iam)


@pytest.mark.parametrize("keyless", [False, True])
def test_a_name_that_is_unknown_in_a_preview_replaces_nothing_unless_it_changes(
    tmp_path: Path, cloud: Cloud, *, keyless: bool
) -> None:
    """As of our own buckets (tests/components/test_library.py)."""
    first, second = (f"unknown-{keyless}-{number}".lower() for number in (1, 2))

    def program(bucket: str, tag: str, allow: str = "") -> str:
        return f"""{SOURCE}
    AmazonS3(
        "media",
        AmazonS3Args(
            server_name="example.com",
            bucket=Source("name", "{bucket}", "{tag}").found,
            region={cloud.store.region!r},
            endpoint={cloud.store.endpoint!r},
            iam_endpoint={cloud.store.iam_endpoint!r},
            keyless={keyless},
            settle_seconds=0,
            allow=[{allow}],
        ),
    )
    """

    found = library(tmp_path / "project", f"amazon-{keyless}", cloud.environment, program(first, "1"))
    found.up()
    write(found, program(first, "2"))
    verbs = {change.verb for change in found.preview() if change.kind != "Resource"}
    assert verbs == {"update"}

    # With a preview before it, as plain pulumi runs: the same name in the end, and then another one.
    found.engine.run(["up", "--yes", "--stack", found.name])
    write(found, program(second, "3"))
    with pytest.raises(EngineError, match="marked for protection"):
        found.engine.run(["up", "--yes", "--stack", found.name])
    names = {one["Name"] for one in cloud.client("s3").list_buckets()["Buckets"]}
    assert names & {first, second} == {first}

    write(found, program(first, "3", '"delete-bucket", "retire-key"'))
    found.up()
    found.engine.run(["destroy", "--yes", "--skip-preview", "--stack", found.name])
