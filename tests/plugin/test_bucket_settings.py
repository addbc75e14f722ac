"""Settings of a bucket at stores that take them otherwise than S3's documentation says."""

from __future__ import annotations

from typing import Any

import pytest

from synapse_media.contract import PROOF_OBJECT
from synapse_media.plugin import s3_bucket as buckets
from synapse_media.plugin.resource import PartialError, Values
from synapse_media.plugin.s3_bucket import Bucket
from synapse_media.store.answers import ApiError
from tests.doubles import proxy
from tests.plugin.direct import OWNER, Direct

BUCKET = Bucket()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_PAUSE", 0.001)


def inputs_of(direct: Direct, url: str, **changes: Any) -> Values:
    wanted = {"bucket": direct.name, "owner": OWNER, "connection": direct.connection(endpoint=url), "acl": "private"}
    checked, failures = BUCKET.check({**wanted, **changes})
    assert not failures
    return checked


def writes(subresource: str) -> Any:
    return lambda request: request.method == "PUT" and subresource in request.query


def reads(subresource: str) -> Any:
    return lambda request: request.method == "GET" and subresource in request.query


def test_what_is_taken_and_dropped_is_lacking_and_no_difference(direct: Direct) -> None:
    """MinIO and RustFS take the rule that ends unfinished uploads, and keep the rest of it alone."""
    with proxy.in_front_of(direct.endpoint) as double:
        stored: list[bytes] = []

        def put(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
            stored.append(b"x")
            return proxy.Answer(200)

        def get(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
            if not stored:
                return proxy.error(request, 404, "NoSuchLifecycleConfiguration", "none")
            rule = "<ID>synapse-media</ID><Status>Enabled</Status><Filter><Prefix/></Filter>"
            kept = "<NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays></NoncurrentVersionExpiration>"
            body = f"<LifecycleConfiguration><Rule>{rule}{kept}</Rule></LifecycleConfiguration>"
            return proxy.Answer(200, (("Content-Type", "application/xml"),), body.encode())

        double.misbehave(put, when=writes("lifecycle"))
        double.misbehave(get, when=reads("lifecycle"))
        inputs = inputs_of(direct, double.url, noncurrentDays=30, abortDays=7)
        _, outputs = BUCKET.create(inputs, direct.context)
        assert outputs["lacks"] == ["abortDays (accepted by this store, and not kept)"]
        found = BUCKET.read(direct.name, inputs, outputs, direct.context)
        assert found is not None
        assert not BUCKET.diff(found.inputs, inputs).changed
        # What it does keep is looked at as ever.
        shorter = {**found.outputs, "noncurrentDays": 90}
        drifted = BUCKET.read(direct.name, {**inputs, "noncurrentDays": 90}, shorter, direct.context)
        assert drifted is not None
        assert drifted.inputs["noncurrentDays"] == 30


def _xml(body: str) -> proxy.Answer:
    return proxy.Answer(200, (("Content-Type", "application/xml"),), body.encode())


_KEEPS_NEWER = (
    "<LifecycleConfiguration><Rule><ID>x</ID><Status>Enabled</Status><Filter><Prefix/></Filter>"
    "<NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays>"
    "<NewerNoncurrentVersions>3</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>"
)
_NEEDS_MFA = "<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>"
_SHARED = (
    "<AccessControlPolicy><Owner><ID>us</ID></Owner><AccessControlList>"
    "<Grant><Grantee><ID>us</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant>"
    "<Grant><Grantee><ID>them</ID></Grantee><Permission>READ</Permission></Grant>"
    "</AccessControlList></AccessControlPolicy>"
)


@pytest.mark.parametrize(
    ("subresource", "body", "said"),
    [
        ("lifecycle", _KEEPS_NEWER, "NewerNoncurrentVersions"),
        ("versioning", _NEEDS_MFA, "deleting a version needs MFA"),
        ("acl", _SHARED, "grants READ to them"),
    ],
)
def test_a_part_of_a_setting_that_a_new_bucket_lacks_is_a_difference(
    direct: Direct, subresource: str, body: str, said: str
) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(lambda _, __: _xml(body), when=reads(subresource))
        inputs = inputs_of(direct, double.url, adopt=True, versioning=True, noncurrentDays=30)
        _, outputs = BUCKET.create(inputs, direct.context)
    assert said in "\n".join(outputs["differences"])


def test_a_rule_is_not_written_over_what_the_key_may_not_look_at(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        plain = inputs_of(direct, double.url, mayBeDenied=True)
        _, outputs = BUCKET.create(plain, direct.context)
        denied = lambda request, _: proxy.error(request, 403, "AccessDenied", "no")  # noqa: E731
        double.misbehave(denied, when=reads("lifecycle"))
        written = double.misbehave(lambda _, __: proxy.Answer(200), when=writes("lifecycle"))
        outputs = BUCKET.update(direct.name, outputs, {**plain, "abortDays": 7}, direct.context)
        assert written.hits == 0
        assert outputs["lacks"] == ["lifecycle rules (old versions and unfinished uploads stay)"]


@pytest.mark.parametrize("code", ["MalformedXML", "InvalidArgument", "InvalidRequest"])
def test_a_setting_that_a_store_refuses_is_lacking(direct: Direct, code: str) -> None:
    def refuse(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        return proxy.error(request, 400, code, "not here")

    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(refuse, when=writes("lifecycle"))
        inputs = inputs_of(direct, double.url, abortDays=7)
        _, outputs = BUCKET.create(inputs, direct.context)
        assert outputs["lacks"] == ["lifecycle rules (old versions and unfinished uploads stay)"]
        found = BUCKET.read(direct.name, inputs, outputs, direct.context)
        assert found is not None
        assert not BUCKET.diff(found.inputs, inputs).changed


def test_a_refusal_to_make_it_private_is_no_lack(direct: Direct) -> None:
    def refuse(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        return proxy.error(request, 400, "InvalidRequest", "not here")

    def is_public(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        grantee = "<Grantee><URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee>"
        grant = f"<Grant>{grantee}<Permission>READ</Permission></Grant>"
        body = f"<AccessControlPolicy><AccessControlList>{grant}</AccessControlList></AccessControlPolicy>"
        return proxy.Answer(200, (("Content-Type", "application/xml"),), body.encode())

    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(is_public, when=reads("acl"))
        double.misbehave(refuse, when=writes("acl"))
        with pytest.raises(PartialError, match="InvalidRequest"):
            BUCKET.create(inputs_of(direct, double.url), direct.context)


def test_encryption_that_breaks_writing_is_undone(direct: Direct) -> None:
    """SeaweedFS without a configured key accepts PutBucketEncryption, and answers 500 to each PUT from then on."""
    switched: list[bool] = []

    def setting(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        if request.method == "GET":
            name = "ServerSideEncryptionConfigurationNotFoundError"
            return proxy.error(request, 404, name, "none")
        switched.append(request.method == "PUT")
        return proxy.Answer(204 if request.method == "DELETE" else 200)

    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(setting, when=lambda request: "encryption" in request.query)
        broken = lambda request: request.method == "PUT" and bool(request.key)  # noqa: E731
        double.misbehave(proxy.internal_error, when=broken)
        _, outputs = BUCKET.create(inputs_of(direct, double.url, encryption=True), direct.context)
    assert switched == [True, False]
    assert outputs["lacks"] == ["default encryption"]


def test_encryption_leaves_no_object_behind(direct: Direct) -> None:
    switched: list[str] = []

    def setting(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        if request.method == "GET" and not switched:
            return proxy.error(request, 404, "ServerSideEncryptionConfigurationNotFoundError", "none")
        if request.method == "GET":
            by = "ApplyServerSideEncryptionByDefault"
            by = f"<{by}><SSEAlgorithm>AES256</SSEAlgorithm></{by}>"
            root = "ServerSideEncryptionConfiguration"
            return proxy.Answer(200, (), f"<{root}><Rule>{by}</Rule></{root}>".encode())
        switched.append(request.method)
        return proxy.Answer(200)

    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(setting, when=lambda request: "encryption" in request.query)
        inputs = inputs_of(direct, double.url, encryption=True, versioning=True)
        _, outputs = BUCKET.create(inputs, direct.context)
        assert not outputs.get("lacks")
        assert [one.target for one in double.exchanges if PROOF_OBJECT in one.target and one.method == "PUT"]
        # Another `up` has nothing to try.
        before = len(double.exchanges)
        BUCKET.update(direct.name, outputs, inputs, direct.context)
        assert "PUT" not in [one.method for one in double.exchanges[before:] if PROOF_OBJECT in one.target]
    assert switched == ["PUT"]
    assert direct.versions_in() == []


def _unknown_yet(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
    return proxy.error(request, 404, "NoSuchBucket", "not yet")


def test_a_bucket_that_was_just_made_may_not_be_known_yet(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        rule = double.misbehave(_unknown_yet, when=lambda request: "tagging" in request.query, times=3)
        BUCKET.create(inputs_of(direct, double.url), direct.context)
        assert rule.hits == 3
        # Of a bucket that was made before, it is the store's word.
        known = BUCKET.read(direct.name, inputs_of(direct, double.url), {}, direct.context)
        assert known is not None
        rule = double.misbehave(_unknown_yet, when=reads("tagging"))
        with pytest.raises(ApiError, match="NoSuchBucket"):
            BUCKET.update(direct.name, known.outputs, inputs_of(direct, double.url), direct.context)
        assert rule.hits == 1


def test_a_bucket_that_never_appears_is_given_up(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "SETTLE_SECONDS", 0.0)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(_unknown_yet, when=lambda request: "tagging" in request.query)
        with pytest.raises(PartialError, match="NoSuchBucket"):
            BUCKET.create(inputs_of(direct, double.url), direct.context)
