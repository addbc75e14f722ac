"""What each option of Amazon S3 declares."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest
from pulumi.runtime import set_mocks
from pulumi.runtime import test as as_program

from components.amazon_s3 import AmazonS3, AmazonS3Args
from synapse_media import contract
from synapse_media.errors import SettingsError, StoreError
from synapse_media.renderer import RenderError, render
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.store.clients import Credential, admin_credential
from tests.providers.mocked import Declared, declare

SERVER = "matrix.example.com"
KMS = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SETTINGS = (
    "BucketPublicAccessBlock",
    "BucketOwnershipControls",
    "BucketServerSideEncryptionConfiguration",
    "BucketVersioning",
    "BucketLifecycleConfiguration",
    "BucketLogging",
    "BucketPolicy",
)


def _settings(**more: Any) -> dict[str, Any]:
    return {
        "provider": "amazon_s3",
        "region": "eu-central-1",
        "bucket": "example-com-media",
        "method": "synapse-s3-storage-provider",
        **more,
    }


def _declare(allow: tuple[str, ...] = (), *, preview: bool = False, **more: Any) -> Declared:
    return declare({SERVER: _settings(**more)}, [f"{SERVER}/{word}" for word in allow], preview=preview)


@pytest.fixture(autouse=True)
def _credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDADMIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "admin-secret")


def _provider(declared: Declared) -> dict[str, Any]:
    (inputs,) = [inputs for kind, _, inputs in declared.resources if kind == "pulumi:providers:aws"]
    return inputs


def test_a_bucket_nobody_else_can_read() -> None:
    made = _declare(noncurrent_days=14, abort_days=3)
    # Nothing of what v7 deprecates on the bucket itself.
    assert set(made.one("Bucket")) == {"bucket", "forceDestroy", "tags"}
    assert made.one("Bucket")["forceDestroy"] is False
    block = made.one("BucketPublicAccessBlock")
    assert [block[name] for name in block if name != "bucket"] == [True] * 4
    assert made.one("BucketOwnershipControls")["rule"] == {"objectOwnership": "BucketOwnerEnforced"}
    (rule,) = made.one("BucketServerSideEncryptionConfiguration")["rules"]
    assert rule == {"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}
    assert made.one("BucketVersioning")["versioningConfiguration"] == {"status": "Enabled"}
    (rule,) = made.one("BucketLifecycleConfiguration")["rules"]
    assert rule["noncurrentVersionExpiration"] == {"noncurrentDays": 14}
    assert rule["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 3}
    # No rule deletes media by age.
    assert "expiration" not in rule
    (statement,) = json.loads(made.one("BucketPolicy")["policy"])["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert "BucketLogging" not in {kind.rpartition(":")[2] for kind in made.kinds}
    assert made.one("Proof")["decoy"] is True


def test_media_is_deleted_only_where_allow_says_so() -> None:
    assert _declare(("delete-media",)).one("Bucket")["forceDestroy"] is True


def test_a_key_of_ones_own_for_encryption() -> None:
    made = _declare(kms_key=KMS)
    (rule,) = made.one("BucketServerSideEncryptionConfiguration")["rules"]
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KMS}
    assert rule["bucketKeyEnabled"] is True
    for access in ("least", "full"):
        policy = json.loads(_declare(kms_key=KMS, access=access).one("UserPolicy")["policy"])
        statement = policy["Statement"][-1]
        assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
        assert statement["Resource"] == [KMS]


def test_an_alias_is_no_key() -> None:
    with pytest.raises(SettingsError, match="kms_key"):
        _declare(kms_key="arn:aws:kms:eu-central-1:123456789012:alias/media")


def test_the_access_log_goes_where_it_is_asked_for() -> None:
    assert _declare(log_bucket="example-com-logs").one("BucketLogging") == {
        "bucket": "example-com-media",
        "targetBucket": "example-com-logs",
        "targetPrefix": "example-com-media/",
    }


def test_tags_are_on_everything_and_ours_beside_them() -> None:
    made = _declare(tags={"team": "matrix", "cost-centre": 42, "synapse-media:stack": "another"})
    tags = {"team": "matrix", "cost-centre": "42", "synapse-media:stack": f"synapse-media/mocked/{SERVER}"}
    assert made.one("Bucket")["tags"] == tags
    assert made.one("User")["tags"] == tags


def test_a_role_in_place_of_a_key() -> None:
    made = _declare(keyless=True)
    names = {kind.rpartition(":")[2] for kind in made.kinds}
    assert names == {"Bucket", *SETTINGS, "Role", "RolePolicy", "InstanceProfile"} - {"BucketLogging"}
    trust = json.loads(made.one("Role")["assumeRolePolicy"])["Statement"]
    assert trust == [{"Action": "sts:AssumeRole", "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}]
    assert (
        made.one("Role")["path"]
        == made.one("InstanceProfile")["path"]
        == "/synapse-media/synapse-media/mocked/matrix.example.com/example-com-media/"
    )
    assert "s3:PutObject" in made.one("RolePolicy")["policy"]

    outputs = contract.from_json(made.outputs[SERVER])
    assert (outputs.keyless, outputs.access_key_id, outputs.proof) == (True, "", None)
    outputs.require_proof()
    files = "".join(render(outputs, form="plain").values())
    assert "secret_access_key" not in files


@pytest.mark.parametrize("keyless", [False, True])
def test_a_programs_component_says_where_a_store_without_a_key_is(*, keyless: bool) -> None:
    """For the guards on a preview: it has no proof, which says it of every other."""
    recorder = Declared()
    set_mocks(recorder, project="acme", stack="mocked", preview=False)

    @as_program  # type: ignore[untyped-decorator]
    def program() -> pulumi.Output[Any]:
        bucket = pulumi.Output.from_input("example-com-media")
        args = AmazonS3Args(
            server_name=SERVER,
            region="eu-central-1",
            bucket=bucket,
            prefix="media/",
            method="synapse-s3-storage-provider",
            keyless=keyless,
        )
        return AmazonS3("media", args).outputs

    program()
    [said] = [inputs for kind, _, inputs in recorder.resources if kind == "synapse-media:index:AmazonS3"]
    place = {
        "method": "synapse-s3-storage-provider",
        "endpointUrl": "https://s3.eu-central-1.amazonaws.com",
        "region": "eu-central-1",
        "bucket": "example-com-media",
        "prefix": "media/",
    }
    assert said == {"serverName": SERVER, **({"keylessPlace": place} if keyless else {})}


def test_a_program_that_needs_a_key_gets_no_role() -> None:
    with pytest.raises(SettingsError, match="nothing with method matrix-media-repo, which signs with an access key"):
        _declare(keyless=True, method="matrix-media-repo", media_repo={"s3_datastore_id": "abc"})


def test_a_bucket_that_is_there_already_is_ours_to_report_on() -> None:
    made = _declare(("set-lifecycle",), adopt=True)
    assert {kind.partition(":")[0] for kind in made.kinds} == {"s3store"}
    assert made.one("Bucket")["adopt"] is True
    assert made.one("Bucket")["manage"] == ["lifecycle"]
    assert not [kind for kind, _, _ in made.resources if kind == "pulumi:providers:aws"]


@pytest.mark.parametrize(("option", "value"), [("log_bucket", "example-com-logs"), ("tags", {"team": "matrix"})])
def test_what_an_adopted_bucket_would_not_get_is_refused(option: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"{option} is .*; allowed: nothing beside adopt: true"):
        _declare(adopt=True, **{option: value})


def test_a_key_of_ones_own_reads_a_bucket_that_is_there_already() -> None:
    made = _declare(adopt=True, kms_key=KMS)
    assert json.loads(made.one("UserPolicy")["policy"])["Statement"][-1]["Resource"] == [KMS]
    (said,) = made.outputs[SERVER]["lacks"]
    assert said.startswith("encryption by kms_key, unless ")
    with pytest.raises(SettingsError, match="set-encryption would set AES256"):
        _declare(("set-encryption",), adopt=True, kms_key=KMS)


def test_a_role_for_a_bucket_that_is_there_already() -> None:
    made = _declare(adopt=True, keyless=True)
    assert "s3store:index:Bucket" in made.kinds
    assert not {kind.rpartition(":")[2] for kind in made.kinds} & {*SETTINGS, "User", "KeyRing"}


def test_stores_of_a_region_share_the_vendors_plugin() -> None:
    made = declare(
        {
            "a.example.com": _settings(bucket="a-media"),
            "b.example.com": _settings(bucket="b-media"),
            "c.example.com": _settings(bucket="c-media", region="eu-west-1"),
            "d.example.com": _settings(bucket="d-media", endpoint="https://s3.internal.example.com"),
        }
    )
    # Sorted: a program registers its resources at once, in no order of its own.
    names = sorted(name for kind, name, _ in made.resources if kind == "pulumi:providers:aws")
    assert names == ["aws-eu-central-1", "aws-eu-central-1-s3.internal.example.com", "aws-eu-west-1"]


def test_the_vendors_own_endpoints_are_left_to_its_plugin() -> None:
    made = _declare()
    assert set(_provider(made)) == {
        "region",
        "skipCredentialsValidation",
        "skipMetadataApiCheck",
        "skipRegionValidation",
    }
    assert made.outputs[SERVER]["addressing"] == "virtual"


def test_endpoints_of_ones_own() -> None:
    made = _declare(endpoint="https://s3.internal.example.com", iam_endpoint="https://iam.internal.example.com")
    provider = _provider(made)
    assert json.loads(provider["endpoints"]) == [
        {
            "iam": "https://iam.internal.example.com",
            "s3": "https://s3.internal.example.com",
            "s3control": "https://s3.internal.example.com",
            "sts": "https://iam.internal.example.com",
        }
    ]
    assert provider["s3UsePathStyle"] == "true"
    assert made.one("Proof")["connection"]["addressing"] == made.outputs[SERVER]["addressing"] == "path"


def test_over_plain_http_no_policy_locks_everybody_out() -> None:
    assert _declare(endpoint="http://127.0.0.1:7271").of("BucketPolicy") == []


def test_no_credential_is_ever_an_input() -> None:
    declared = json.dumps([inputs for _, _, inputs in _declare().resources])
    assert "AKIDADMIN" not in declared
    assert "admin-secret" not in declared


def test_only_a_preview_from_nothing_has_a_credential_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "accessKey" not in _provider(_declare(preview=True))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "accessKey" not in _provider(_declare())
    blind = _provider(_declare(preview=True))
    assert blind["secretKey"]["value"] == "none"
    assert blind["skipRequestingAccountId"] == "true"


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE", "GLACIER_IR"])
def test_a_class_that_synapse_cant_read_at_once(storage_class: str) -> None:
    with pytest.raises(SettingsError, match="reads from these at once"):
        _declare(storage_class=storage_class)


def test_a_role_cant_be_rendered_for_a_program_that_needs_a_key() -> None:
    outputs = contract.from_json(_declare(keyless=True).outputs[SERVER] | {"method": "matrix-media-repo"})
    with pytest.raises(RenderError, match="which requires a key"):
        render(outputs, form="plain")


def test_a_temporary_credential_has_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = model.read(Connection, _declare().one("KeyRing")["connection"])
    assert admin_credential(connection) == Credential("AKIDADMIN", "admin-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "admin-token")
    assert admin_credential(connection) == Credential("AKIDADMIN", "admin-secret", "admin-token")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="has no AWS_SECRET_ACCESS_KEY:"):
        admin_credential(connection)
