"""What an answer holds is of the type that the API's model gives it, or it is no answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from botocore.response import StreamingBody

from synapse_media.errors import StoreError
from synapse_media.plugin.iam import KeyRing, User
from synapse_media.plugin.resource import Values
from synapse_media.plugin.s3_bucket import Bucket
from synapse_media.store import clients as connections
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Client, call, iam_client, s3_client
from tests.doubles import proxy
from tests.plugin.direct import OWNER, Direct
from tests.plugin.test_hostile_answers import KEY, hostile, says

PATH = "/synapse-media/tests/"


@pytest.fixture(autouse=True)
def credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY_ID", KEY.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", KEY.secret)
    monkeypatch.setattr(connections, "ATTEMPTS", 1)


def answered(operation: str, body: str, **arguments: Any) -> dict[str, Any]:
    """An operation of S3, or of IAM, to which this is the answer."""
    of_iam = "UserName" in arguments
    with hostile(says(200, body, x_amz_request_id="R1")) as store:
        client: Client = iam_client(store.connection()) if of_iam else s3_client(store.connection(), KEY)
        return call(client, operation, **arguments)


TAGGED = "<Tagging><TagSet>{}</TagSet></Tagging>"
LISTED = "<ListBucketResult>{}</ListBucketResult>"
VERSIONS = "<ListVersionsResult>{}</ListVersionsResult>"
SHOWN = "<GetUserResponse><GetUserResult>{}</GetUserResult></GetUserResponse>"
KEYS = "<ListAccessKeysResponse><ListAccessKeysResult>{}</ListAccessKeysResult></ListAccessKeysResponse>"
MADE = "<CreateAccessKeyResponse><CreateAccessKeyResult>{}</CreateAccessKeyResult></CreateAccessKeyResponse>"
OF_BUCKET = {"Bucket": "b"}
OF_USER = {"UserName": "u"}
TAG = "<Tag><Key>a</Key><Value>v</Value></Tag>"
OBJECT = "<Contents><Key>k</Key><Size>1</Size></Contents>"
WHOLE = "<IsTruncated>false</IsTruncated>"

WRONG = {
    "two texts": ("get_bucket_tagging", OF_BUCKET, TAGGED, "<Tag><Key>a</Key><Key>b</Key><Value>v</Value></Tag>"),
    "two values": ("get_bucket_tagging", OF_BUCKET, TAGGED, "<Tag><Key>a</Key><Value>v</Value><Value>w</Value></Tag>"),
    "two lists": ("get_bucket_tagging", OF_BUCKET, "<Tagging>{}</Tagging>", f"<TagSet>{TAG}</TagSet>" * 2),
    "a text for a list": ("get_bucket_tagging", OF_BUCKET, TAGGED, "none"),
    "a text for a structure": ("get_bucket_tagging", OF_BUCKET, TAGGED, "<Tag>none</Tag>"),
    "elements for a text": (
        "get_bucket_tagging",
        OF_BUCKET,
        TAGGED,
        "<Tag><Key><Key>a</Key></Key><Value>v</Value></Tag>",
    ),
    "two whole numbers": ("list_objects_v2", OF_BUCKET, LISTED, f"{WHOLE}<KeyCount>0</KeyCount><KeyCount>0</KeyCount>"),
    "no whole number": ("list_objects_v2", OF_BUCKET, LISTED, f"{WHOLE}<KeyCount>many</KeyCount>"),
    "a number without a digit": ("list_objects_v2", OF_BUCKET, LISTED, f"{WHOLE}<KeyCount/>"),
    "two of true and false": ("list_objects_v2", OF_BUCKET, LISTED, "<IsTruncated>true</IsTruncated>" * 2),
    "neither true nor false": ("list_objects_v2", OF_BUCKET, LISTED, "<IsTruncated>yes</IsTruncated>"),
    "nothing for true and false": ("list_objects_v2", OF_BUCKET, LISTED, "<IsTruncated/>"),
    "two dates": (
        "list_object_versions",
        OF_BUCKET,
        VERSIONS,
        f"{WHOLE}<Version>{'<LastModified>2026-01-31T23:59:59.000Z</LastModified>' * 2}</Version>",
    ),
    "two structures": ("get_user", OF_USER, SHOWN, "<User><Path>/</Path></User>" * 2),
    "two paths": ("get_user", OF_USER, SHOWN, "<User><Path>/</Path><Path>/</Path></User>"),
    "two lists of keys": ("list_access_keys", OF_USER, KEYS, "<AccessKeyMetadata/>" * 2),
    "a text for a list of keys": ("list_access_keys", OF_USER, KEYS, "<AccessKeyMetadata>none</AccessKeyMetadata>"),
    "two IDs": (
        "list_access_keys",
        OF_USER,
        KEYS,
        f"<AccessKeyMetadata><member>{'<AccessKeyId>AKIA</AccessKeyId>' * 2}</member></AccessKeyMetadata>",
    ),
    "two secrets": (
        "create_access_key",
        OF_USER,
        MADE,
        "<AccessKey><AccessKeyId>AKIA</AccessKeyId>"
        "<SecretAccessKey>s3cr3t-one</SecretAccessKey><SecretAccessKey>s3cr3t-two</SecretAccessKey></AccessKey>",
    ),
}


@pytest.mark.parametrize(("operation", "asked", "document", "inside"), WRONG.values(), ids=WRONG)
def test_what_is_of_another_type_is_no_answer(operation: str, asked: Values, document: str, inside: str) -> None:
    with pytest.raises(ApiError, match=f"{operation} at .*: the answer is not that of an S3 or IAM API: ") as caught:
        answered(operation, document.format(inside), **asked)
    assert caught.value.is_anybodys
    assert not re.search("<Element|unhashable|Error:|s3cr3t", str(caught.value))


RIGHT: dict[str, tuple[str, Values, str, Callable[[Any], object], object]] = {
    "tags": ("get_bucket_tagging", OF_BUCKET, TAGGED.format(TAG * 2), lambda found: len(found["TagSet"]), 2),
    "one object": (
        "list_objects_v2",
        OF_BUCKET,
        LISTED.format(WHOLE + OBJECT),
        lambda found: found["Contents"],
        [{"Key": "k", "Size": 1}],
    ),
    "objects, and blanks between": (
        "list_objects_v2",
        OF_BUCKET,
        LISTED.format(f"\n  {WHOLE}\n" + f"{OBJECT}\n  " * 3),
        lambda found: len(found["Contents"]),
        3,
    ),
    "an empty list": (
        "list_access_keys",
        OF_USER,
        KEYS.format("<AccessKeyMetadata>\n  </AccessKeyMetadata>"),
        lambda found: found["AccessKeyMetadata"],
        [],
    ),
    "an empty text": (
        "get_user",
        OF_USER,
        SHOWN.format("<User><Path/></User>"),
        lambda found: found["User"]["Path"],
        "",
    ),
    "what the model does not know": (
        "get_user",
        OF_USER,
        SHOWN.format("<User>" + "<Mood><Now>good</Now></Mood>" * 2 + "</User>"),
        lambda found: found["User"],
        {},
    ),
    "a document that is a text": (
        "get_bucket_location",
        OF_BUCKET,
        "<LocationConstraint>moon-1</LocationConstraint>",
        lambda found: found["LocationConstraint"],
        "moon-1",
    ),
    "a document without its text": (
        "get_bucket_location",
        OF_BUCKET,
        "<LocationConstraint/>",
        lambda found: found["LocationConstraint"],
        None,
    ),
    "True as Python writes it": (
        "list_objects_v2",
        OF_BUCKET,
        LISTED.format("<IsTruncated>True</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
        lambda found: found["IsTruncated"],
        True,
    ),
}


@pytest.mark.parametrize(("operation", "asked", "body", "read", "wanted"), RIGHT.values(), ids=RIGHT)
def test_what_is_of_its_type_is_taken(
    operation: str, asked: Values, body: str, read: Callable[[Any], object], wanted: object
) -> None:
    assert read(answered(operation, body, **asked)) == wanted


@pytest.mark.parametrize("inside", ["<Code>NoSuchBucket</Code>" * 2, "<Code><a>NoSuchBucket</a></Code>"])
@pytest.mark.parametrize("form", ["<Error>{}</Error>", "<ErrorResponse><Error>{}</Error></ErrorResponse>"])
def test_an_error_with_two_codes_or_none_is_nobodys(form: str, inside: str) -> None:
    with hostile(says(404, form.format(inside))) as store:
        for client, operation, asked in (
            (s3_client(store.connection(), KEY), "list_objects_v2", OF_BUCKET),
            (iam_client(store.connection()), "get_user", OF_USER),
        ):
            with pytest.raises(ApiError, match=r"404 Not Found \(HTTP 404") as caught:
                call(client, operation, **asked)
            assert caught.value.is_anybodys
            assert not caught.value.absent


def test_an_object_is_read_as_it_is() -> None:
    """It is no document, whatever it looks like."""
    body = answered("get_object", "<a/><a/>", Bucket="b", Key="k")["Body"]
    assert isinstance(body, StreamingBody)
    assert body.read() == b"<a/><a/>"


def twice(*names: str) -> proxy.Fault:
    """An answer in which each of these elements is there twice."""

    def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        answer = upstream.ask(request)
        assert answer is not None
        body = answer.body
        for name in names:
            body = re.sub(rf"(<{name}>[^<]*</{name}>)".encode(), rb"\1\1", body)
        headers = tuple(pair for pair in answer.headers if pair[0].lower() != "content-length")
        return proxy.Answer(answer.status, headers, body)

    return fault


@pytest.mark.parametrize("name", ["Key", "Value"])
def test_a_bucket_with_two_keys_in_a_tag_is_neither_ours_nor_anybodys(direct: Direct, name: str) -> None:
    bucket = Bucket()
    with proxy.in_front_of(direct.endpoint) as double:
        there = direct.connection(endpoint=double.url)
        inputs, _ = bucket.check({"bucket": direct.name, "connection": there, "owner": OWNER, "policy": ""})
        _, outputs = bucket.create(inputs, direct.context)
        double.misbehave(twice(name), when=lambda one: one.method == "GET" and "tagging" in one.query)
        for step in (
            lambda: bucket.read(direct.name, inputs, outputs, direct.context),
            lambda: bucket.update(direct.name, outputs, inputs, direct.context),
            lambda: bucket.delete(direct.name, outputs, direct.context),
        ):
            with pytest.raises(StoreError, match=f"get_bucket_tagging at .*<{name}> is there more than once"):
                step()
    assert direct.bucket_exists()


@pytest.mark.parametrize("name", ["UserName", "Path", "Arn", "AccessKeyId", "Status", "CreateDate"])
def test_a_user_and_its_keys_by_an_answer_that_names_them_twice(direct: Direct, name: str) -> None:
    user, ring = User(), KeyRing()
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        shared = {"userName": direct.name, "connection": direct.connection(iamEndpoint=double.url)}
        of_user, _ = user.check({**shared, "path": PATH})
        of_ring, _ = ring.check({**shared, "active": "a", "slots": ["a"]})
        _, made = user.create(of_user, direct.context)
        _, keys = ring.create(of_ring, direct.context)
        double.misbehave(twice(name), when=lambda one: one.action in ("GetUser", "ListAccessKeys"))
        refusals = []
        for step in (
            lambda: user.read(direct.name, of_user, made, direct.context),
            lambda: ring.read(direct.name, of_ring, keys, direct.context),
        ):
            try:
                step()
            except StoreError as error:
                refusals.append(str(error))
    assert refusals
    assert all(f"<{name}> is there more than once" in said for said in refusals)


@pytest.mark.parametrize("operation", ["delete_bucket", "delete_bucket_policy"])
def test_a_deletion_is_not_done_by_the_document_of_another_operation(operation: str) -> None:
    with pytest.raises(ApiError, match=r"the body is <ListVersionsResult>, where there is none"):
        answered(operation, VERSIONS.format(WHOLE), Bucket="b")
    answered(operation, "", Bucket="b")
