"""What the components of the S3 and IAM APIs declare for every option, on Pulumi's own mocks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pytest
from google.protobuf import json_format
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, set_mocks
from pulumi.runtime import test as as_program
from pulumi.runtime.mocks import MockMonitor

from components import make, policies
from components.s3_iam import user_path
from synapse_media import catalog, contract, settings
from synapse_media.methods import METHODS, RULES, Access, expectations
from tests.plugin.process import SECRET, SIGNATURE

NAME = "matrix.example.com"
PREFIX = "synapse-media:index:S3Compatible"
GOOD: dict[str, Any] = {
    "provider": "s3_compatible",
    "endpoint": "https://s3.example.com",
    "iam_endpoint": "https://iam.example.com",
    "bucket": "example-media",
}


class Store(Mocks):
    """A double of the plugin: everything is made at once."""

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        made = dict(args.inputs)
        if args.typ.endswith(":KeyRing"):
            keys = {
                slot: {"accessKeyId": f"AKIA{slot}", "createdAt": "2026-01-02T03:04:05+00:00"} for slot in made["slots"]
            }
            made |= {"keys": keys, "accessKeyId": f"AKIA{made['active']}", "secretAccessKey": "made-secret"}
        if args.typ.endswith(":ExistingKey"):
            made |= {"accessKeyId": "AKIAOLD", "secretAccessKey": "old-secret"}
        if args.typ.endswith(":Bucket"):
            made["lacks"] = ["default encryption"]
        if args.typ.endswith(":Proof"):
            made |= {"madeFor": "f" * 64, "lines": [{"operation": "put", "expected": "allowed", "outcome": "allowed"}]}
        return f"{args.name}-id", made

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"nothing is asked of a provider: {args.token}")


class Monitor(MockMonitor):
    """Keeps every registration as the engine would get it, with its options."""

    def __init__(self, mocks: Mocks) -> None:
        super().__init__(mocks)
        self.requests: dict[str, Any] = {}

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        self.requests[self.make_urn(request.parent, request.type, request.name)] = request
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class Declared:
    """What a program declared: its registrations by the last part of their type, and its outputs."""

    requests: dict[str, Any]
    outputs: dict[str, Any] = field(default_factory=dict)
    secret: bool = False

    def one(self, kind: str) -> Any:
        [request] = [found for found in self.requests.values() if found.type.endswith(f":{kind}")]
        return request

    def raw(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = json_format.MessageToDict(self.one(kind).object)
        return found

    @property
    def names(self) -> set[str]:
        """`type::name` with the parents' types, as a URN has it."""
        named = (urn.split("::", 2)[2].removeprefix("pulumi:pulumi:Stack$") for urn in self.requests)
        return {name for name in named if not name.startswith("pulumi:")}


def declare(allow: Iterable[str] = (), **changes: Any) -> Declared:
    """Run the program on one store. A setting that is None is left out."""
    raw = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    [store] = settings.parse({NAME: raw}, [f"{NAME}/{word}" for word in allow]).values()
    return run(store)


def run(store: settings.StoreSettings) -> Declared:
    mocks = Store()
    monitor = Monitor(mocks)
    set_mocks(mocks, project="synapse-media", stack="tests", preview=False, monitor=monitor)
    declared = Declared(monitor.requests)

    @as_program  # type: ignore[untyped-decorator]
    async def program() -> None:
        outputs = make(store)
        secret = pulumi.Output.from_input(outputs["secret_access_key"])
        declared.secret = await secret.is_secret()
        declared.outputs = await pulumi.Output.from_input(outputs).future(with_unknowns=True)  # type: ignore[assignment]

    program()
    return declared


# ---- what is made, and under which names


def test_names_of_resources_are_pinned() -> None:
    """State knows resources by these: a rename needs an alias, or media is left behind."""
    assert declare().names == {
        f"{PREFIX}::{NAME}",
        f"{PREFIX}$s3store:index:Bucket::{NAME}",
        f"{PREFIX}$s3store:index:User::{NAME}",
        f"{PREFIX}$s3store:index:KeyRing::{NAME}",
        f"{PREFIX}$s3store:index:UserPolicy::{NAME}",
        f"{PREFIX}$s3store:index:Proof::{NAME}",
    }


def test_names_with_a_key_of_ones_own_are_pinned() -> None:
    assert declare(iam_endpoint="", existing_key=True).names == {
        f"{PREFIX}::{NAME}",
        f"{PREFIX}$s3store:index:Bucket::{NAME}",
        f"{PREFIX}$s3store:index:ExistingKey::{NAME}",
        f"{PREFIX}$s3store:index:Proof::{NAME}",
    }


def test_names_at_wasabi_are_pinned() -> None:
    wasabi = "synapse-media:index:Wasabi"
    raw = {"provider": "wasabi", "region": "eu-central-1", "bucket": "example-media"}
    [store] = settings.parse({NAME: raw}).values()
    assert run(store).names == {
        f"{wasabi}::{NAME}",
        *(f"{wasabi}$s3store:index:{kind}::{NAME}" for kind in ("Bucket", "User", "KeyRing", "UserPolicy", "Proof")),
    }


def test_the_filesystem_makes_nothing() -> None:
    [store] = settings.parse({NAME: {"method": "filesystem"}}).values()
    declared = run(store)
    assert declared.names == set()
    outputs = contract.from_json(declared.outputs)
    assert (outputs.method, outputs.bucket, outputs.secret_access_key) == ("filesystem", "", "")
    outputs.require_proof()


def test_the_proof_waits_for_bucket_policy_and_key() -> None:
    declared = declare()
    waits = {urn.split("::")[2].rpartition("$")[2] for urn in declared.one("Proof").dependencies}
    assert waits >= {"s3store:index:Bucket", "s3store:index:KeyRing", "s3store:index:UserPolicy"}
    for kind in ("KeyRing", "UserPolicy"):
        assert any(urn.split("::")[2].endswith("index:User") for urn in declared.one(kind).dependencies)
    assert not declared.one("Bucket").dependencies


# ---- the bucket


@pytest.mark.parametrize(
    ("allow", "protected", "retained", "emptied"),
    [
        ([], True, False, False),
        (["delete-media"], True, False, True),
        (["delete-bucket"], False, False, False),
        (["delete-bucket", "delete-media"], False, False, True),
        (["retain-bucket"], False, True, False),
        (["replace-bucket"], False, False, False),
        (["retire-key", "set-policy"], True, False, False),
    ],
)
def test_a_bucket_is_given_up_only_by_name(allow: list[str], protected: bool, retained: bool, emptied: bool) -> None:
    declared = declare(allow)
    bucket = declared.one("Bucket")
    assert (bucket.protect, bucket.retainOnDelete) == (protected, retained)
    assert declared.raw("Bucket")["forceDestroy"] is emptied
    assert not any(found.protect for urn, found in declared.requests.items() if "index:Bucket" not in urn)


def test_a_bucket_gets_all_that_is_not_known_to_be_missing() -> None:
    found = declare(noncurrent_days=90, abort_days=3).raw("Bucket")
    connection = found.pop("connection")
    assert json.loads(found.pop("policy")) == policies.tls_only("example-media")
    assert found == {
        "bucket": "example-media",
        "owner": f"synapse-media/tests/{NAME}",
        "adopt": False,
        "manage": [],
        "mayBeDenied": False,
        "versioning": True,
        "noncurrentDays": 90,
        "abortDays": 3,
        "publicAccessBlock": True,
        "encryption": True,
        "acl": "private",
        "forceDestroy": False,
        "own": False,
        "mediaIn": ["local_content/", "remote_content/"],
    }
    assert connection == {
        "endpoint": "https://s3.example.com",
        "iamEndpoint": "https://iam.example.com",
        "region": "us-east-1",
        "addressing": "path",
        "checksums": "when_required",
        "variables": ["S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"],
    }


def test_over_plain_http_no_policy_locks_everybody_out() -> None:
    assert declare(endpoint="http://127.0.0.1:7271").raw("Bucket")["policy"] == ""


def test_an_adopted_bucket_is_changed_only_where_allow_names_it() -> None:
    found = declare(["set-policy", "set-lifecycle", "widen-policy"], adopt=True).raw("Bucket")
    assert found["adopt"] is True
    assert found["manage"] == ["lifecycle", "policy"]
    assert declare(adopt=True).raw("User")["adopt"] is True


PRESETS = [name for name in catalog.names() if catalog.load(name).component == "s3_compatible"]


@pytest.mark.parametrize("provider", PRESETS)
def test_what_a_provider_lacks_is_not_asked_for_and_said(provider: str) -> None:
    can = catalog.load(provider).can
    region = catalog.load(provider).regions[0] if catalog.load(provider).regions else "us-east-1"
    keys = {"iam_endpoint": None, "existing_key": True} if can("iam") is False else {}
    declared = declare(provider=provider, region=region, **keys)
    found, lacks = declared.raw("Bucket"), declared.outputs["lacks"]
    for capability, inputs, words in (
        ("versioning", {"versioning": True}, "versioning"),
        (
            "lifecycle",
            {"noncurrentDays": 30, "abortDays": 7},
            "lifecycle rules (old versions and unfinished uploads stay)",
        ),
        ("bucket_policy", {}, "bucket policy"),
        ("public_access_block", {"publicAccessBlock": True}, "public access block"),
        ("encryption", {"encryption": True}, "default encryption"),
    ):
        missing = can(capability) is False
        for name, value in inputs.items():
            assert (found.get(name) == value) != missing, (capability, name)
            assert not (missing and found.get(name)), (capability, name)
        if words != "default encryption":
            assert (words in lacks) == missing, capability
    policy, tls_only = can("bucket_policy") is not False, can("tls_only_policy") is not False
    wanted = policies.to_json(policies.tls_only("example-media")) if tls_only else ""
    assert found.get("policy") == (wanted if policy else None)
    assert ("refusal of plain http by the bucket policy" in lacks) == (policy and not tls_only)
    assert lacks[-1] == "default encryption", "what the plugin found is said as well"


def test_a_ca_file_reaches_every_connection_and_the_server() -> None:
    declared = declare(ca_file="/etc/ssl/own.pem")
    for kind in ("Bucket", "User", "KeyRing", "UserPolicy", "Proof"):
        assert declared.raw(kind)["connection"]["caFile"] == "/etc/ssl/own.pem"
    assert declared.outputs["ca_file"] == "/etc/ssl/own.pem"


# ---- the key and its policy


def granted_actions(document: dict[str, Any]) -> dict[str, set[str]]:
    """{resource: actions}"""
    found: dict[str, set[str]] = {}
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        for resource in statement["Resource"]:
            found.setdefault(resource, set()).update(statement["Action"])
    return found


MODULE_OBJECT = {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"}


@pytest.mark.parametrize("prefix", ["", "media/"])
def test_the_modules_policy(prefix: str) -> None:
    document = json.loads(declare(prefix=prefix).raw("UserPolicy")["policy"])
    assert document["Version"] == "2012-10-17"
    assert granted_actions(document) == {
        "arn:aws:s3:::example-media": {"s3:ListBucket"},
        f"arn:aws:s3:::example-media/{prefix}*": MODULE_OBJECT,
    }


@pytest.mark.parametrize(
    ("settings", "folders"),
    [
        ({}, ["local_content/", "remote_content/"]),
        ({"prefix": "media/"}, ["media/local_content/", "media/remote_content/"]),
        ({"method": "goofys"}, ["local_content/", "remote_content/"]),
        ({"method": "matrix-media-repo", "media_repo": {"s3_datastore_id": "x"}}, []),
    ],
)
def test_a_bucket_knows_where_its_method_looks_for_media(settings: dict[str, Any], folders: list[str]) -> None:
    assert declare(**settings).raw("Bucket")["mediaIn"] == folders


@pytest.mark.parametrize(
    ("method", "more"), [("goofys", {"s3:ListBucketMultipartUploads"}), ("matrix-media-repo", set())]
)
def test_the_policy_of_what_deletes(method: str, more: set[str]) -> None:
    extra = {"media_repo": {"s3_datastore_id": "x"}} if method == "matrix-media-repo" else {}
    document = json.loads(declare(method=method, **extra).raw("UserPolicy")["policy"])
    assert granted_actions(document) == {
        "arn:aws:s3:::example-media": {"s3:ListBucket"} | more,
        "arn:aws:s3:::example-media/*": MODULE_OBJECT | {"s3:DeleteObject"},
    }


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].uses_store])
def test_full_access_is_the_guides_own_document(method: str) -> None:
    document = policies.key_policy("example-media", METHODS[method], "full", "media/")
    assert document["Version"] == "2012-10-17"
    both = {"arn:aws:s3:::example-media", "arn:aws:s3:::example-media/*"}
    assert granted_actions(document) == {resource: {"s3:*"} for resource in both}


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].uses_store])
def test_a_policy_grants_what_the_proof_expects_and_no_more(method: str) -> None:
    """One table drives both."""
    granted = set().union(*granted_actions(policies.key_policy("b", METHODS[method], "least")).values())
    needed = {action for operation in METHODS[method].needs for action in RULES[operation].actions}
    assert granted == needed


def test_a_policy_is_attached_to_the_user_and_to_nobody_else() -> None:
    declared = declare(user="media-user")
    assert declared.raw("UserPolicy")["userName"] == declared.raw("User")["userName"] == "media-user"
    assert declared.raw("UserPolicy")["policyName"] == "synapse-media"
    path = f"/synapse-media/synapse-media/tests/{NAME}/example-media/"
    assert declared.raw("User")["path"] == path
    mark = {"path": path, "formerPaths": ["/synapse-media/tests/"], "bucket": "example-media"}
    assert declared.raw("User")["mark"] == mark
    # Where the user really is, since it stays there when the bucket becomes another.
    mark["formerPaths"] = ["/synapse-media/tests/", path]
    assert [declared.raw(kind)["mark"] for kind in ("UserPolicy", "KeyRing")] == [mark] * 2


def test_a_path_is_never_longer_than_iam_takes() -> None:
    paths = {user_path(f"project/{stack}/{'long.' * 100}example.com", "media") for stack in ("one", "two")}
    assert len(paths) == 2
    for path in paths:
        assert len(path) <= 512
        assert path.startswith("/synapse-media/")
        assert path.endswith("/media/")


@pytest.mark.parametrize(
    ("keys", "active", "slots"),
    [
        ({}, "a", ["a"]),
        ({"active": "b"}, "b", ["b"]),
        ({"active": "b", "retiring": ["a"]}, "b", ["a", "b"]),
        ({"active": "a", "retiring": ["b"]}, "a", ["a", "b"]),
    ],
)
def test_the_ring_follows_the_stack_file(keys: dict[str, Any], active: str, slots: list[str]) -> None:
    declared = declare(keys=keys)
    ring = declared.raw("KeyRing")
    assert (ring["active"], ring["slots"]) == (active, slots)
    assert declared.outputs["access_key_id"] == f"AKIA{active}"
    assert ring["retireConfirmed"] is False


def test_a_retirement_is_confirmed_by_allow() -> None:
    assert declare(["retire-key"]).raw("KeyRing")["retireConfirmed"] is True


# ---- the proof and the outputs


@pytest.mark.parametrize("access", ["least", "full"])
def test_the_proof_gets_what_the_outputs_will_say(access: Access) -> None:
    declared = declare(access=access, prefix="media/", settle_seconds=3)
    proof, outputs = declared.raw("Proof"), declared.outputs
    assert (proof["admin"], proof["decoy"], proof["settleSeconds"]) == (True, True, 3)
    assert proof["expected"] == {
        operation.value: expected.value
        for operation, expected in expectations(METHODS["synapse-s3-storage-provider"], access).items()
    }
    assert (proof["endpointUrl"], proof["connection"]["endpoint"]) == ("https://s3.example.com",) * 2
    for ours, theirs in (
        ("bucket", "bucket"),
        ("prefix", "prefix"),
        ("method", "method"),
        ("access", "access"),
        ("region", "region"),
        ("policySha256", "policy_sha256"),
        ("accessKeyId", "access_key_id"),
        ("endpointUrl", "endpoint_url"),
        ("userName", "user"),
    ):
        assert proof[ours] == outputs[theirs], ours
    assert outputs["policy_sha256"] == contract.policy_sha256(declared.raw("UserPolicy")["policy"])


def test_a_key_of_ones_own_is_proved_without_an_administrator() -> None:
    declared = declare(iam_endpoint="", existing_key=True)
    proof = declared.raw("Proof")
    assert (proof["admin"], proof["decoy"], proof["userName"]) == (False, False, "")
    assert "refused" not in proof["expected"].values()
    assert declared.outputs["access_key_id"] == "AKIAOLD"
    assert declared.raw("Bucket")["mayBeDenied"] is True


def test_the_secret_is_a_secret_wherever_it_goes() -> None:
    declared = declare()
    assert declared.secret
    assert declared.outputs["secret_access_key"] == "made-secret"
    assert declared.raw("Proof")["secretAccessKey"] == {SIGNATURE: SECRET, "value": "made-secret"}
    for urn, request in declared.requests.items():
        if "Proof" not in urn:
            assert "made-secret" not in str(request.object), urn


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"iam_endpoint": "", "existing_key": True},
        {"method": "matrix-media-repo", "media_repo": {"s3_datastore_id": "s", "file_datastore_id": "f"}},
        {"method": "goofys", "access": "full", "adopt": True},
        {"prefix": "media/", "keys": {"active": "b", "retiring": ["a"]}},
    ],
)
def test_the_outputs_are_the_contracts(changes: dict[str, Any]) -> None:
    outputs = declare(**changes).outputs
    store = contract.from_json(outputs)
    # `keyless` is the one field that only a keyless store says.
    assert set(outputs) | {"keyless"} == set(contract.to_json(store))
    assert store.server_name == NAME
    assert store.proof is not None
    assert store.proof.made_for == "f" * 64
    assert store.media_repo == changes.get("media_repo", {})
    assert store.prefix == changes.get("prefix", "")
    assert store.lacks == ("default encryption",)
