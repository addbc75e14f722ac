"""The proof: what a key may do is tried with the key itself, on the real embedded store."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from components import policies
from synapse_media import contract
from synapse_media.cli.stores import own_key
from synapse_media.contract import PROOF_OBJECT, ProofLine, StorageOutputs
from synapse_media.errors import StoreError
from synapse_media.methods import METHODS, Access, Expected, Operation, expectations
from synapse_media.plugin import proof
from synapse_media.plugin.resource import Context, PartialError, Values
from synapse_media.plugin.s3 import S3Administrator
from synapse_media.plugin.s3_bucket import OWNER_TAG
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN
from synapse_media.schema.resources import ProofInputs
from synapse_media.store import clients as connections
from synapse_media.store import objects, probes
from synapse_media.store.clients import Credential
from tests.doubles import proxy
from tests.end_to_end import aws_double
from tests.plugin.direct import OWNER, Direct, allow

PROOF = proof.ProofResource()
MODULE = "synapse-s3-storage-provider"
STORES = tuple(name for name in METHODS if METHODS[name].uses_store)


def issued(direct: Direct, method: str = MODULE, access: Access = "least", prefix: str = "") -> Credential:
    """A bucket, and a key under exactly the policy that a component would attach."""
    direct.s3.create_bucket(Bucket=direct.name)
    document = policies.key_policy(direct.name, METHODS[method], access, prefix)
    return direct.user_with_key(*document["Statement"])


def tried(
    direct: Direct, key: Credential, method: str = MODULE, access: Access = "least", **more: Any
) -> dict[str, ProofLine]:
    """Prove without an administrator; the lines by operation."""
    lines = probes.prove(
        direct.parsed(**more.pop("connection", {})),
        key,
        more.pop("bucket", direct.name),
        more.pop("prefix", ""),
        expectations(METHODS[method], access),
        **more,
    )
    return {line.operation: line for line in lines}


def failed(lines: dict[str, ProofLine]) -> dict[str, str]:
    """{operation: outcome} of what failed."""
    return {name: line.outcome for name, line in lines.items() if line.failed}


def proof_inputs(direct: Direct, key: Credential, **changes: Any) -> Values:
    """What a component gives."""
    method, access = changes.get("method", MODULE), changes.get("access", "least")
    expected = expectations(METHODS[method], access)
    return {
        "connection": direct.connection(),
        "bucket": direct.name,
        "prefix": "",
        "method": method,
        "access": access,
        "endpointUrl": direct.endpoint,
        "region": direct.running.region,
        "policySha256": "0" * 64,
        "accessKeyId": key.access_key_id,
        "secretAccessKey": key.secret,
        "expected": {operation.value: value.value for operation, value in expected.items()},
        "admin": True,
        "decoy": True,
        "owner": OWNER,
        "userName": direct.name,
        "settleSeconds": 0,
        **changes,
    }


# ---- what is found on the real store


@pytest.mark.parametrize("access", ["least", "full"])
@pytest.mark.parametrize(("method", "prefix"), [*((name, "") for name in STORES), (MODULE, "media/")])
def test_every_method_and_access_is_proved(direct: Direct, method: str, access: Access, prefix: str) -> None:
    key = issued(direct, method, access, prefix)
    _, outputs = direct.make(PROOF, proof_inputs(direct, key, method=method, access=access, prefix=prefix))
    lines = {line["operation"]: line for line in outputs["lines"]}
    wanted = {operation.value: value for operation, value in expectations(METHODS[method], access).items()}
    assert set(lines) == set(wanted)
    for name, line in lines.items():
        if name == "create-bucket" and line["outcome"] == "not tested":
            continue
        assert line["outcome"] == wanted[name].value, line
    assert direct.versions_in() == [], "the administrator clears up"
    assert not direct.bucket_exists(decoy_of(direct))


def decoy_of(direct: Direct) -> str:
    return proof.decoy_name(direct.parsed(), direct.name)


def test_without_an_administrator_one_object_stays_and_no_decoy_is_tried(direct: Direct) -> None:
    lines = tried(direct, issued(direct))
    assert failed(lines) == {}
    assert lines["other-bucket"].outcome == lines["create-bucket"].outcome == "not tested"
    assert "only an administrator can provide" in lines["other-bucket"].detail
    [own] = direct.keys_in()
    assert re.fullmatch(f"{PROOF_OBJECT}-[0-9a-f]{{12}}", own)
    assert direct.s3.head_object(Bucket=direct.name, Key=own)["ContentLength"] == 1024
    tried(direct, Credential(*issued_again(direct)))
    assert len(set(direct.keys_in())) == 2
    assert objects.is_empty(direct.s3, direct.name)


@pytest.mark.parametrize(
    ("method", "addressing"), [(MODULE, "path"), ("goofys", "path"), ("matrix-media-repo", "virtual")]
)
def test_the_bucket_is_addressed_as_its_reader_does(
    monkeypatch: pytest.MonkeyPatch, method: str, addressing: str
) -> None:
    """Whichever way the administrator goes, in `up` and in `prove --store`."""
    asked = []

    def none(connection: Connection, *_: object, **__: object) -> tuple[ProofLine, ...]:
        asked.append(connection.addressing)
        return ()

    monkeypatch.setattr(proof, "prove", none)
    amazon = Connection(endpoint="https://s3.eu-central-1.amazonaws.com", region="eu-central-1", addressing="virtual")
    inputs = ProofInputs(
        connection=amazon,
        bucket="media",
        method=method,
        access="least",
        endpoint_url=amazon.endpoint,
        region=amazon.region,
        access_key_id="AKIA0000000000000000",
        secret_access_key="s" * 40,
        expected={},
    )
    with pytest.raises(PartialError):
        proof.ProofResource().make(inputs, Context(lambda _: None))
    store = StorageOutputs(
        server_name="example.com",
        provider="amazon_s3",
        method=method,
        access="least",
        bucket="media",
        region=amazon.region,
        endpoint_url=amazon.endpoint,
        access_key_id=inputs.access_key_id,
        secret_access_key=inputs.secret_access_key,
        addressing="virtual",
    )
    assert [*asked, own_key(store)[0].addressing] == [addressing] * 2


def test_proofs_at_once_do_not_see_each_other(direct: Direct) -> None:
    """Each tries to delete what it wrote: one object for all would be gone for the others."""
    key = issued(direct, method="matrix-media-repo")
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(tried, direct, key, method="matrix-media-repo") for _ in range(6)]
        assert [failed(run.result()) for run in runs] == [{}] * 6
    assert direct.keys_in() == []


def test_what_earlier_proofs_left_goes_and_what_others_need_stays(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = issued(direct)
    beside, earlier = f"{PROOF_OBJECT}-0123456789ab", PROOF_OBJECT
    direct.put(beside)
    direct.put(earlier)
    direct.make(PROOF, proof_inputs(direct, key))
    assert direct.keys_in() == [earlier, beside]
    monkeypatch.setattr(objects, "_PROOF_ENDS", timedelta(seconds=-1))
    direct.make(PROOF, proof_inputs(direct, key))
    assert direct.keys_in() == []


def issued_again(direct: Direct) -> tuple[str, str]:
    key = direct.iam.create_access_key(UserName=direct.name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def test_the_proof_stays_under_its_prefix(direct: Direct) -> None:
    key = issued(direct, prefix="media/")
    assert failed(tried(direct, key, prefix="media/")) == {}
    [own] = direct.keys_in()
    assert own.startswith(f"media/{PROOF_OBJECT}-")
    assert failed(tried(direct, key, prefix="other/"))["put"] == "refused"


def test_what_lies_beside_the_proof_object_is_not_cleared_up(direct: Direct) -> None:
    key = issued(direct)
    direct.put(f"{PROOF_OBJECT}-of-concept.pdf")
    direct.make(PROOF, proof_inputs(direct, key))
    assert direct.keys_in() == [f"{PROOF_OBJECT}-of-concept.pdf"]


def test_uploads_that_the_key_may_not_abort_are_cleared_up_by_the_administrator(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    arn = f"arn:aws:s3:::{direct.name}"
    key = direct.user_with_key(allow("s3:ListBucket", on=arn), allow("s3:PutObject", "s3:GetObject", on=f"{arn}/*"))
    with pytest.raises(PartialError, match="abort should be allowed, was refused"):
        direct.make(PROOF, proof_inputs(direct, key))
    assert direct.s3.list_multipart_uploads(Bucket=direct.name).get("Uploads", []) == []


def test_the_outputs_carry_the_fingerprint_that_the_contract_asks_for(direct: Direct) -> None:
    key = issued(direct)
    inputs = proof_inputs(direct, key)
    resource_id, outputs = direct.make(PROOF, inputs)
    assert resource_id == f"proof-{direct.name}"
    store = contract.StorageOutputs(
        server_name="matrix.example.com",
        provider="s3_compatible",
        method=MODULE,
        access="least",
        bucket=direct.name,
        region=direct.running.region,
        endpoint_url=direct.endpoint,
        access_key_id=key.access_key_id,
        secret_access_key=key.secret,
        policy_sha256="0" * 64,
        proof=contract.Proof(outputs["madeFor"], tuple(ProofLine(**line) for line in outputs["lines"])),
    )
    store.require_proof()


def test_a_passed_proof_ends_the_journal(direct: Direct) -> None:
    key = issued(direct)
    direct.policy(allow("s3:ListAllMyBuckets"), name="s3store-making-a")
    direct.make(PROOF, proof_inputs(direct, key))
    assert direct.iam.list_user_policies(UserName=direct.name)["PolicyNames"] == ["by-hand"]


# ---- keys that do not do


def test_a_wrong_secret_is_said_once(direct: Direct) -> None:
    key = replace(issued(direct), secret="wrong0123456789wrong0123456789wrong01234")
    lines = tried(direct, key)
    assert failed(lines) == {"put": "failed (SignatureDoesNotMatch)"}
    assert {line.outcome for name, line in lines.items() if name != "put"} == {"not tested"}
    assert "wrong0123456789" not in str(lines)
    assert "The key itself is not accepted" in probes.advice(tuple(lines.values()))


def test_an_unknown_key_is_said_once(direct: Direct) -> None:
    lines = tried(direct, replace(issued(direct), access_key_id="AKIANOSUCHKEYATALL00"))
    assert failed(lines) == {"put": "failed (InvalidAccessKeyId)"}


def test_a_swapped_id_and_secret_are_recognised(direct: Direct) -> None:
    key = issued(direct)
    lines = tried(direct, Credential(key.secret, key.access_key_id))
    assert "were the two swapped?" in lines["put"].detail


def test_a_policy_without_list_bucket_is_caught(direct: Direct) -> None:
    """Amazon answers 403 for a missing key then, which Synapse takes for a broken store. Here a double answers so."""
    direct.s3.create_bucket(Bucket=direct.name)
    actions = ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload")
    key = direct.user_with_key(allow(*actions, on=f"arn:aws:s3:::{direct.name}/*"))
    with aws_double.answering_403_for_missing_keys(direct.endpoint, {key.access_key_id}) as url:
        lines = tried(direct, key, connection={"endpoint": url})
    assert failed(lines) == {"list": "refused", "missing-key": "refused"}
    assert "list should be allowed, was refused: " in probes.advice(tuple(lines.values()))


def test_a_policy_that_is_too_wide_fails(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    key = direct.user_with_key(allow("s3:*"))
    with pytest.raises(PartialError, match="The key may do more than the method needs") as stopped:
        direct.make(PROOF, proof_inputs(direct, key))
    lines = {line["operation"]: line["outcome"] for line in stopped.value.outputs["lines"]}
    assert lines["delete"] == lines["put-bucket-policy"] == lines["other-bucket"] == "allowed"
    assert stopped.value.outputs["madeFor"]
    assert direct.bucket_exists()


def test_what_can_not_be_refused_does_not_fail(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    key = direct.user_with_key(allow("s3:*", on=f"arn:aws:s3:::{direct.name}*"))
    expected = expectations(METHODS[MODULE], "least", ("delete", "put-bucket-policy"))
    lines = probes.prove(direct.parsed(), key, direct.name, "", expected)
    assert not any(line.failed for line in lines)
    outcomes = {line.operation: line.outcome for line in lines}
    assert outcomes["delete"] == outcomes["put-bucket-policy"] == "allowed"


def test_the_probe_of_the_bucket_policy_changes_nothing(direct: Direct) -> None:
    """It is malformed on purpose: a key that may put one is found out, and no policy is there afterwards."""
    key = issued(direct, access="full")
    assert tried(direct, key, access="full")["put-bucket-policy"].outcome == "allowed"
    with pytest.raises(direct.s3.exceptions.ClientError, match="NoSuchBucketPolicy"):
        direct.s3.get_bucket_policy(Bucket=direct.name)


def test_a_bucket_that_is_gone_is_said_once(direct: Direct) -> None:
    key = issued(direct)
    direct.s3.delete_bucket(Bucket=direct.name)
    direct.policy(allow("s3:*"))
    lines = tried(direct, key)
    assert failed(lines) == {"put": "failed (NoSuchBucket)"}
    assert lines["get"].outcome == "not tested"
    assert lines["get"].detail == "put could not even be tried"
    assert "the bucket does not exist. If it was deleted" in probes.advice(tuple(lines.values()))


def test_a_tls_only_policy_behind_plain_http_is_named(direct: Direct) -> None:
    key = issued(direct)
    document = policies.to_json(policies.tls_only(direct.name))
    direct.s3.put_bucket_policy(Bucket=direct.name, Policy=document)
    lines = tried(direct, key)
    assert set(failed(lines).values()) == {"refused"}
    assert "a TLS-only policy behind a proxy that terminates TLS" in probes.advice(tuple(lines.values()))


# ---- stores that misbehave


def through(direct: Direct, key: Credential, fault: proxy.Fault, **when: Any) -> dict[str, ProofLine]:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(fault, **when)
        return tried(direct, key, connection={"endpoint": double.url})


@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_page_of_somebody_in_between_proves_nothing(direct: Direct, status: int) -> None:
    lines = through(direct, issued(direct), proxy.html(status))
    assert failed(lines) == {"put": "failed (Unparsable)"}
    assert "allowed" not in {line.outcome for line in lines.values()}
    assert "the response is a web page" in lines["put"].detail


@pytest.mark.parametrize("operation", ["get", "list"])
def test_an_answer_cut_short_fails(direct: Direct, operation: str) -> None:
    def wanted(request: proxy.Request) -> bool:
        listing = "list-type" in request.query
        return request.method == "GET" and listing == (operation == "list") and not request.key.endswith("-absent")

    lines = through(direct, issued(direct), proxy.truncated, when=wanted)
    assert operation in failed(lines)
    assert failed(lines)[operation].startswith("failed (")


def test_other_bytes_than_were_written_fail(direct: Direct) -> None:
    def other(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        assert answer is not None
        headers = tuple(pair for pair in answer.headers if not pair[0].lower().startswith(("etag", "x-amz-checksum")))
        return proxy.Answer(answer.status, headers, b"x" * len(answer.body))

    lines = through(
        direct,
        issued(direct),
        other,
        when=lambda request: request.method == "GET" and request.key.startswith(PROOF_OBJECT),
    )
    assert failed(lines)["get"] == failed(lines)["multipart"] == "failed (WrongContent)"
    assert "bytes). What was read is not what was written: check the endpoint" in probes.advice(tuple(lines.values()))


def test_a_wrong_clock_is_no_refusal(direct: Direct) -> None:
    def skewed(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        return proxy.error(request, 403, "RequestTimeTooSkewed", "The difference is too large.")

    lines = through(direct, issued(direct), skewed)
    assert failed(lines)["put"] == "failed (RequestTimeTooSkewed)"
    assert "synchronise it (NTP)" in lines["put"].detail
    assert "TLS-only" not in probes.advice(tuple(lines.values()))


def test_a_server_that_is_down_is_said_once(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    lines = tried(direct, issued(direct), connection={"endpoint": "http://127.0.0.1:9"})
    assert failed(lines) == {"put": "failed (EndpointConnectionError)"}
    assert "Is the store reachable from here" in probes.advice(tuple(lines.values()))


def test_a_server_that_never_answers_is_given_up(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    monkeypatch.setattr(connections, "READ_SECONDS", 1)
    assert failed(through(direct, issued(direct), proxy.black_hole)) == {"put": "failed (ReadTimeoutError)"}


def test_throttling_is_waited_out(direct: Direct) -> None:
    assert failed(through(direct, issued(direct), proxy.slow_down, times=2)) == {}


def not_known_yet(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
    return proxy.error(request, 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist.")


def test_a_new_key_is_given_its_time(direct: Direct) -> None:
    key = issued(direct)
    with proxy.in_front_of(direct.endpoint) as double:
        there = {"endpoint": double.url}
        rule = double.misbehave(not_known_yet, times=1)
        assert failed(tried(direct, key, connection=there)) == {"put": "failed (InvalidAccessKeyId)"}
        double.behave()
        rule = double.misbehave(not_known_yet, times=2)
        begun = time.monotonic()
        assert failed(tried(direct, key, connection=there, settle_seconds=30)) == {}
        assert rule.hits == 2
        assert time.monotonic() - begun > 1
        double.misbehave(not_known_yet)
        begun = time.monotonic()
        assert failed(tried(direct, key, connection=there, settle_seconds=0.5))
        assert time.monotonic() - begun >= 0.5


# ---- the decoy


def test_the_decoy_goes_even_where_the_proof_is_interrupted(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    key = issued(direct)
    seen: list[bool] = []

    def interrupted(*_: object, **named: Any) -> None:
        seen.append(direct.bucket_exists(named["decoy"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(proof, "prove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        direct.make(PROOF, proof_inputs(direct, key))
    assert seen == [True]
    assert not direct.bucket_exists(decoy_of(direct))


def test_the_decoy_of_a_killed_run_is_found_again(direct: Direct) -> None:
    key = issued(direct)
    direct.s3.create_bucket(Bucket=decoy_of(direct))
    direct.make(PROOF, proof_inputs(direct, key))
    assert not direct.bucket_exists(decoy_of(direct))


def test_the_decoy_of_a_run_for_another_bucket_is_found_by_its_mark(direct: Direct) -> None:
    ours, others = f"{proof.DECOY}ours", f"{proof.DECOY}theirs"
    for name, owner in ((ours, OWNER), (others, "synapse-media/other/example.org")):
        direct.s3.create_bucket(Bucket=name)
        direct.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": OWNER_TAG, "Value": owner}]})
    direct.make(PROOF, proof_inputs(direct, issued(direct)))
    assert not direct.bucket_exists(ours)
    assert direct.bucket_exists(others)
    direct.s3.delete_bucket(Bucket=others)


def test_no_proof_asks_for_the_marks_of_the_decoys_beside_it(direct: Direct) -> None:
    """Of a hundred stores each would ask for those of all that are proved at the time."""
    inputs, administrator = proof_inputs(direct, issued(direct)), S3Administrator()
    decoys = [f"{proof.DECOY}beside-{number}" for number in range(3)]
    with proxy.in_front_of(direct.endpoint) as double:
        read = PROOF.read_inputs({**inputs, "connection": direct.connection(endpoint=double.url)})
        for decoy in decoys:
            administrator.ensure_decoy(read, decoy)
        before = len(double.exchanges)
        assert administrator.decoys_left(read, decoys[0]) == []
        assert len(double.exchanges) == before + 1
        # Another process knows nothing of them, and its proof of this store would delete them.
        assert set(S3Administrator().decoys_left(read, decoys[0])) >= {*decoys[1:]}
        for decoy in decoys:
            administrator.delete_decoy(read, decoy)


def test_a_decoy_that_can_not_be_deleted_is_said_and_found_again(direct: Direct) -> None:
    key, decoy = issued(direct), decoy_of(direct)
    with proxy.in_front_of(direct.endpoint) as double:
        rule = double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "no"),
            when=lambda request: request.method == "DELETE" and not request.key,
        )
        # The place decides the name.
        decoy = proof.decoy_name(direct.parsed(endpoint=double.url), direct.name)
        there = proof_inputs(direct, key, connection=direct.connection(endpoint=double.url))
        _, outputs = direct.make(PROOF, there)
        assert rule.hits == 1
        assert outputs["decoysLeft"] == [decoy]
        assert any(decoy in said and "The next proof tries again" in said for said in direct.said)
        tags = direct.s3.get_bucket_tagging(Bucket=decoy)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {OWNER_TAG: OWNER}
        double.behave()
        # Proved at another address, where another name is lent: the old one is not forgotten.
        again = PROOF.update("proof", outputs, proof_inputs(direct, key), direct.context)
    assert "decoysLeft" not in again
    assert not direct.bucket_exists(decoy)
    assert not direct.bucket_exists(decoy_of(direct))


def test_a_decoy_that_was_left_goes_with_the_proof(direct: Direct) -> None:
    decoy = decoy_of(direct)
    direct.s3.create_bucket(Bucket=decoy)
    outputs = {**proof_inputs(direct, issued(direct)), "decoysLeft": [decoy, f"{decoy}-2"]}
    direct.s3.create_bucket(Bucket=f"{decoy}-2")
    direct.s3.put_bucket_tagging(
        Bucket=f"{decoy}-2", Tagging={"TagSet": [{"Key": OWNER_TAG, "Value": "synapse-media/other/x"}]}
    )
    PROOF.delete("proof", outputs, direct.context)
    assert not direct.bucket_exists(decoy)
    assert direct.bucket_exists(f"{decoy}-2"), "another stack's"
    assert f"{decoy}-2" in direct.said[-1]
    direct.s3.delete_bucket(Bucket=f"{decoy}-2")


def test_a_decoy_marked_by_another_is_not_used(direct: Direct) -> None:
    decoy, key = decoy_of(direct), issued(direct)
    direct.s3.create_bucket(Bucket=decoy)
    tag = {"Key": OWNER_TAG, "Value": "synapse-media/other/x"}
    direct.s3.put_bucket_tagging(Bucket=decoy, Tagging={"TagSet": [tag]})
    with pytest.raises(PartialError, match="marked as that of another stack"):
        direct.make(PROOF, proof_inputs(direct, key))
    assert direct.bucket_exists(decoy)
    direct.s3.delete_bucket(Bucket=decoy)


def test_a_decoy_that_can_not_be_lent_keeps_what_was_made(direct: Direct) -> None:
    key = issued(direct)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 400, "TooManyBuckets", "no"),
            when=lambda request: request.method == "PUT" and request.bucket.startswith("synapse-media-decoy-"),
        )
        inputs = proof_inputs(direct, key, connection=direct.connection(endpoint=double.url))
        with pytest.raises(PartialError, match=r"the proof could not be run: .*TooManyBuckets") as stopped:
            direct.make(PROOF, inputs)
    assert stopped.value.outputs["madeFor"] == ""
    assert stopped.value.outputs["lines"] == []
    assert key.secret not in str(stopped.value)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """moto's server, a double of Amazon S3: it checks no signature and enforces no policy here."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_moto_the_decoy_is_asked_for_in_the_stores_own_region(moto_url: str, direct: Direct) -> None:
    """Without its name another answer comes before the one on permission: IllegalLocationConstraintException."""
    key = Credential("testing", "testing")
    there = direct.parsed(endpoint=moto_url, region="eu-central-1")
    client = boto3.client(
        "s3",
        endpoint_url=moto_url,
        region_name="eu-central-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(
        Bucket=f"{direct.name}-decoy", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    expected = {Operation.CREATE_BUCKET: Expected.REFUSED}
    [line] = probes.prove(there, key, direct.name, "", expected, decoy=f"{direct.name}-decoy")
    assert line.outcome == "allowed", "moto lets everybody make it"


FORMER = '{"Version": "2012-10-17", "Statement": []}'


@pytest.mark.parametrize("former", ["", FORMER])
def test_moto_a_policy_is_put_back_where_any_text_is_taken_for_one(moto_url: str, direct: Direct, former: str) -> None:
    key = Credential("testing", "testing")
    there = direct.parsed(endpoint=moto_url, region="us-east-1")
    s3 = connections.s3_client(there, key)
    s3.create_bucket(Bucket=direct.name)
    if former:
        s3.put_bucket_policy(Bucket=direct.name, Policy=former)
    [line] = probes.prove(there, key, direct.name, "", {Operation.PUT_BUCKET_POLICY: Expected.REFUSED})
    assert line.outcome == "allowed"
    if former:
        assert s3.get_bucket_policy(Bucket=direct.name)["Policy"] == former
    else:
        with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
            s3.get_bucket_policy(Bucket=direct.name)


def test_moto_a_policy_that_can_not_be_put_back_is_no_refusal(moto_url: str, direct: Direct) -> None:
    key = Credential("testing", "testing")
    with proxy.in_front_of(moto_url) as double:
        there = direct.parsed(endpoint=double.url, region="us-east-1")
        connections.s3_client(there, key).create_bucket(Bucket=direct.name)
        denied = lambda request, _: proxy.error(request, 403, "AccessDenied", "no")  # noqa: E731
        double.misbehave(denied, when=lambda request: request.method == "DELETE" and "policy" in request.query)
        [line] = probes.prove(there, key, direct.name, "", {Operation.PUT_BUCKET_POLICY: Expected.REFUSED})
    assert line.outcome == "failed (PolicyLeft)"
    assert "could not be put back: do that by hand" in line.detail


def test_a_policy_that_can_not_be_read_is_not_overwritten(moto_url: str, direct: Direct) -> None:
    key = Credential("testing", "testing")
    s3 = connections.s3_client(direct.parsed(endpoint=moto_url, region="us-east-1"), key)
    s3.create_bucket(Bucket=direct.name)
    s3.put_bucket_policy(Bucket=direct.name, Policy=FORMER)
    with proxy.in_front_of(moto_url) as double:
        there = direct.parsed(endpoint=double.url, region="us-east-1")
        denied = lambda request, _: proxy.error(request, 403, "AccessDenied", "no")  # noqa: E731
        double.misbehave(denied, when=lambda request: request.method == "GET" and "policy" in request.query)
        expected = {Operation.PUT_BUCKET_POLICY: Expected.REFUSED}
        [line] = probes.prove(there, key, direct.name, "", expected)
        assert line.outcome == "not tested"
        assert "may not read the bucket's policy" in line.detail
        assert s3.get_bucket_policy(Bucket=direct.name)["Policy"] == FORMER
        # An administrator can.
        [line] = probes.prove(there, key, direct.name, "", expected, policy=FORMER)
    assert line.outcome == "allowed"
    assert s3.get_bucket_policy(Bucket=direct.name)["Policy"] == FORMER


# ---- the resource


def test_a_failed_proof_is_run_again_by_the_next_up(direct: Direct) -> None:
    key = issued(direct)
    inputs = proof_inputs(direct, key)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.html(200))
        broken = proof_inputs(direct, key, connection=direct.connection(endpoint=double.url), decoy=False, admin=False)
        with pytest.raises(
            PartialError, match=r"the proof failed: .* fix the cause and run `synapse-media up` again\.$"
        ) as stopped:
            PROOF.create(broken, direct.context)
    outputs = PROOF.update(stopped.value.resource_id, stopped.value.outputs, inputs, direct.context)
    assert {line["outcome"] for line in outputs["lines"] if line["expected"] == "allowed"} == {"allowed"}


@pytest.mark.parametrize(
    "name", ["accessKeyId", "policySha256", "bucket", "endpointUrl", "region", "prefix", "method", "access", "expected"]
)
def test_a_proof_is_made_again_for_anything_else_and_only_then(direct: Direct, name: str) -> None:
    inputs = proof_inputs(direct, Credential("AKIA", "secret"))
    assert PROOF.diff(inputs, dict(inputs)).changed == ()
    changed = PROOF.diff(inputs, {**inputs, name: {"put": "refused"} if name == "expected" else "other"})
    assert changed.changed == (name,)
    assert changed.replaced == ()


def test_a_refresh_looks_at_nothing_and_an_import_is_refused(direct: Direct) -> None:
    inputs, failures = PROOF.check(proof_inputs(direct, Credential("AKIA", "secret"), connection={}))
    assert not failures
    found = PROOF.read("proof", inputs, {**inputs, "madeFor": "x", "lines": []}, direct.context)
    assert found is not None
    assert found.inputs == inputs
    with pytest.raises(StoreError, match="a proof can't be imported"):
        PROOF.read("proof", {}, {}, direct.context)
    PROOF.delete("proof", inputs, direct.context)


def test_a_preview_promises_nothing(direct: Direct) -> None:
    planned = PROOF.planned(proof_inputs(direct, Credential("AKIA", "secret")), None)
    assert planned["madeFor"] is planned["lines"] is UNKNOWN


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), ""),
        ((ProofLine("put", "allowed", "allowed"),), ""),
        ((ProofLine("put", "allowed", "refused", "no"),), "Something denies what the policy grants"),
        ((ProofLine("put", "allowed", "failed (SlowDown)", "x"),), "Is the store reachable from here"),
        ((ProofLine("list-uploads", "allowed", "failed (NotImplemented)", "x"),), "has no such call"),
        ((ProofLine("delete", "refused", "allowed"),), "look for a second policy"),
    ],
)
def test_the_advice_fits_what_failed(lines: tuple[ProofLine, ...], said: str) -> None:
    told = probes.advice(lines)
    assert said in told
    assert bool(told) == bool(said)
    assert ": ." not in told
