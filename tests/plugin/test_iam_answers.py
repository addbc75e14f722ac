"""IAM's answers about somebody else, its listings of several pages, and what it says of what is deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin.iam import POLICY_NAME, IamKeys, KeyRing, User, UserPolicy
from synapse_media.plugin.resource import PartialError, Values
from synapse_media.schema import model
from synapse_media.schema.resources import KeyRingInputs
from synapse_media.store import bounded
from synapse_media.store import clients as connections
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import call, s3_client
from tests.accounts import user_names
from tests.doubles import proxy
from tests.plugin.direct import Direct, allow
from tests.plugin.test_hostile_answers import KEY, hostile, says

USER, POLICY, RING = User(), UserPolicy(), KeyRing()
PATH = "/synapse-media/tests/"
DOCUMENT = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListAllMyBuckets")]})


@pytest.fixture(autouse=True)
def two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ATTEMPTS", 2)


def inputs_of(resource: Any, direct: Direct, iam_endpoint: str = "", **changes: Any) -> Values:
    there = direct.connection(iamEndpoint=iam_endpoint) if iam_endpoint else direct.connection()
    own: dict[Any, Values] = {
        USER: {"path": PATH},
        POLICY: {"policyName": POLICY_NAME, "policy": DOCUMENT},
        RING: {"active": "a", "slots": ["a"]},
    }
    found, faults = resource.check({"userName": direct.name, "connection": there, **own[resource], **changes})
    assert not faults
    return dict(found)


def keys_of(direct: Direct, iam_endpoint: str) -> IamKeys:
    return IamKeys(model.read(KeyRingInputs, inputs_of(RING, direct, iam_endpoint)))


def edited(answer: proxy.Answer | None, edit: Any) -> proxy.Answer:
    assert answer is not None
    headers = tuple(pair for pair in answer.headers if pair[0].lower() != "content-length")
    return proxy.Answer(answer.status, headers, edit(answer.body.decode()).encode())


def names(name: str, other: str) -> proxy.Fault:
    """An answer with another content of these elements."""
    return lambda request, upstream: edited(
        upstream.ask(request), lambda body: re.sub(f"<{name}>[^<]*</{name}>", f"<{name}>{other}</{name}>", body)
    )


def action(*wanted: str) -> Any:
    return lambda request: request.action in wanted


# ---- about somebody else


SHOUTING = "an answer in other case"


@pytest.mark.parametrize(
    ("resource", "step", "asked", "name"),
    [
        (USER, "make", "CreateUser", "UserName"),
        (USER, "read", "GetUser", "UserName"),
        (USER, "delete", "GetUser", "UserName"),
        (POLICY, "read", "GetUserPolicy", "UserName"),
        (POLICY, "read", "GetUserPolicy", "PolicyName"),
        (POLICY, "delete", "GetUserPolicy", "PolicyName"),
        (RING, "make", "ListAccessKeys", "UserName"),
        (RING, "make", "CreateAccessKey", "UserName"),
        (RING, "read", "ListAccessKeys", "UserName"),
        (RING, "delete", "ListAccessKeys", "UserName"),
    ],
)
def test_an_answer_about_somebody_else_is_none(direct: Direct, resource: Any, step: str, asked: str, name: str) -> None:
    if resource is not USER:
        direct.iam.create_user(UserName=direct.name, Path=PATH)
        direct.policy(allow("s3:ListAllMyBuckets"), name="stays")
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        inputs = inputs_of(resource, direct, double.url)
        if asked == "ListAccessKeys" and step == "make":
            # Of a user without keys, it names nobody.
            direct.iam.create_access_key(UserName=direct.name)
        outputs: Values = {} if step == "make" else resource.create(inputs, direct.context)[1]
        rule = double.misbehave(names(name, "somebody-else"), when=action(asked))
        steps = {
            "make": lambda: resource.create(inputs, direct.context),
            "read": lambda: resource.read(direct.name, inputs, outputs, direct.context),
            "delete": lambda: resource.delete(direct.name, {**outputs, "retireConfirmed": True}, direct.context),
        }
        wanted = direct.name if name == "UserName" else POLICY_NAME
        with pytest.raises(StoreError, match=f"names the {name} 'somebody-else', and '{wanted}' was asked for"):
            steps[step]()
        assert rule.hits
        changing = {"DeleteAccessKey", "DeleteUser", "DeleteUserPolicy"}
        assert not changing & {exchange.action for exchange in double.exchanges}


@pytest.mark.parametrize("content", ["", None, SHOUTING])
def test_an_answer_that_names_nobody_or_in_other_case_is_one(direct: Direct, content: str | None) -> None:
    """Many servers leave names out; IAM does not tell them by their case."""

    def edit(body: str) -> str:
        other = direct.name.upper() if content == SHOUTING else content
        new = "" if other is None else f"<UserName>{other}</UserName>"
        return re.sub("<UserName>[^<]*</UserName>", new, body)

    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(lambda request, upstream: edited(upstream.ask(request), edit))
        made = {}
        for resource in (USER, POLICY, RING):
            inputs = inputs_of(resource, direct, double.url)
            made[resource] = resource.create(inputs, direct.context)[1]
            assert resource.read(direct.name, inputs, made[resource], direct.context) is not None
        for resource in (RING, POLICY, USER):
            resource.delete(direct.name, {**made[resource], "retireConfirmed": True}, direct.context)


def test_a_key_that_an_answer_gives_to_somebody_else_is_replaced(direct: Direct) -> None:
    direct.iam.create_user(UserName=direct.name, Path=PATH)
    direct.policy(allow("s3:ListAllMyBuckets"), name=POLICY_NAME)
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(names("UserName", "somebody-else"), when=action("CreateAccessKey"), times=1)
        inputs = inputs_of(RING, direct, double.url)
        with pytest.raises(PartialError, match=r"the key may have been made.* up` again") as stopped:
            RING.create(inputs, direct.context)
        assert stopped.value.outputs["keys"] == {}
        (lost,) = direct.key_ids()
        finished = RING.update(direct.name, stopped.value.outputs, inputs, direct.context)
    assert direct.key_ids() == {finished["accessKeyId"]} != {lost}


def test_the_last_use_of_a_key_of_somebody_else_is_none(direct: Direct) -> None:
    body = (
        "<GetAccessKeyLastUsedResponse><GetAccessKeyLastUsedResult><UserName>somebody-else</UserName>"
        "<AccessKeyLastUsed><LastUsedDate>2026-01-31T23:59:59Z</LastUsedDate></AccessKeyLastUsed>"
        "</GetAccessKeyLastUsedResult></GetAccessKeyLastUsedResponse>"
    )
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(proxy.in_between(200, "application/xml", body))
        family = keys_of(direct, double.url)
        with pytest.raises(ApiError, match="somebody-else"):
            family.last_used("AKIAEXAMPLE000000000")


@pytest.mark.parametrize(
    ("operation", "document"),
    [
        ("list_objects_v2", "ListBucketResult"),
        ("list_object_versions", "ListVersionsResult"),
        ("list_multipart_uploads", "ListMultipartUploadsResult"),
    ],
)
def test_a_listing_of_another_bucket_is_none(operation: str, document: str) -> None:
    name = "Bucket" if operation == "list_multipart_uploads" else "Name"
    page = f"<{document}><{name}>{{}}</{name}><IsTruncated>false</IsTruncated></{document}>"
    for other, refused in (("other", True), ("", False), ("b", False)):
        with hostile(says(200, page.format(other))) as store:
            client = s3_client(store.connection(), KEY)
            if not refused:
                call(client, operation, Bucket="b")
                continue
            with pytest.raises(ApiError, match=f"{operation} at .*names the {name} 'other', and 'b' was asked"):
                call(client, operation, Bucket="b")


# ---- listings of several pages


def page_by_page(*, without_marker: bool = False, endless: bool = False) -> proxy.Fault:
    """A listing with each entry on a page of its own; the embedded service has all on one."""
    whole: dict[str, proxy.Answer | None] = {}

    def fault(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer:
        marker = re.search(r"(?:^|&)Marker=(\d+)", request.body.decode())
        at = int(marker[1]) if marker else 0
        if not marker:
            whole[request.action] = upstream.ask(request)

        def page(body: str) -> str:
            members = re.findall("<member>.*?</member>", body, flags=re.DOTALL)
            for number, member in enumerate(members):
                if number != at:
                    body = body.replace(member, "", 1)
            body = re.sub("<IsTruncated>[^<]*</IsTruncated>", "", body)
            more = endless or at + 1 < len(members)
            place = "" if without_marker or not more else f"<Marker>{at + 1}</Marker>"
            end = f"<IsTruncated>{str(more).lower()}</IsTruncated>{place}"
            return re.sub(r"(</List\w+Result>)", rf"{end}\1", body, count=1)

        return edited(whole[request.action], page)

    return fault


LISTINGS = action("ListAccessKeys", "ListUserPolicies")


def two_keys(direct: Direct, url: str) -> tuple[Values, Values, str]:
    """A ring with a key, beside which a stranger has one on a later page."""
    direct.iam.create_user(UserName=direct.name, Path=PATH)
    direct.policy(allow("s3:ListAllMyBuckets"), name=POLICY_NAME)
    inputs = inputs_of(RING, direct, url)
    _, outputs = RING.create(inputs, direct.context)
    stranger = str(direct.iam.create_access_key(UserName=direct.name)["AccessKey"]["AccessKeyId"])
    return inputs, outputs, stranger


def test_keys_and_policies_of_later_pages_are_found(direct: Direct) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        inputs, outputs, stranger = two_keys(direct, double.url)
        direct.policy(allow("s3:GetObject"), name="a-first")
        direct.policy(allow("s3:GetObject"), name="zz-last")
        double.misbehave(page_by_page(), when=LISTINGS)
        found = RING.read(direct.name, inputs, outputs, direct.context)
        assert found is not None
        assert found.outputs["unknownKeys"] == [stranger]
        assert found.outputs["accessKeyId"] == outputs["accessKeyId"]
        assert found.outputs["otherPolicies"] == ["a-first", "zz-last"]
        with pytest.raises(StoreError, match=f"has the key {stranger}, which the state does not know"):
            RING.delete(direct.name, {**outputs, "userTakesKeys": True, "retireConfirmed": True}, direct.context)
    assert stranger in direct.key_ids()


def test_a_page_that_does_not_say_where_the_next_one_begins_is_refused(direct: Direct) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        inputs, outputs, _ = two_keys(direct, double.url)
        double.misbehave(page_by_page(without_marker=True), when=LISTINGS)
        with pytest.raises(ApiError, match=r"list_access_keys .*: the page says that more follows, and not where"):
            RING.read(direct.name, inputs, outputs, direct.context)


@pytest.mark.parametrize("round_in_circles", [True, False])
def test_a_listing_of_iam_without_end_is_given_up(
    direct: Direct, round_in_circles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "PAGES", 5)
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        inputs, outputs, _ = two_keys(direct, double.url)
        double.misbehave(page_by_page(endless=True), when=LISTINGS)
        if round_in_circles:
            double.behave()
            again = "<IsTruncated>true</IsTruncated><Marker>m</Marker></ListAccessKeysResult>"
            whole = r"(<IsTruncated>[^<]*</IsTruncated>)?(<Marker>[^<]*</Marker>)?\s*</ListAccessKeysResult>"
            double.misbehave(
                lambda request, upstream: edited(upstream.ask(request), lambda body: re.sub(whole, again, body)),
                when=LISTINGS,
            )
        why = "begins where a page before it did" if round_in_circles else "more than 5 pages"
        with pytest.raises(ApiError, match=f"list_access_keys .*{why}"):
            RING.read(direct.name, inputs, outputs, direct.context)
        assert len(double.exchanges) < 30


@pytest.mark.parametrize("operation", ["ListAttachedUserPolicies", "ListGroupsForUser"])
def test_what_else_a_user_is_given_is_read_to_its_end(direct: Direct, operation: str) -> None:
    part, name = {
        "ListAttachedUserPolicies": ("AttachedPolicies", "PolicyArn"),
        "ListGroupsForUser": ("Groups", "GroupName"),
    }[operation]

    def fault(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        more = "Marker=" not in request.body.decode()
        end = "<IsTruncated>true</IsTruncated><Marker>1</Marker>" if more else "<IsTruncated>false</IsTruncated>"
        entry = f"<{part}><member><{name}>{'first' if more else 'second'}</{name}></member></{part}>"
        body = f"<{operation}Response><{operation}Result>{entry}{end}</{operation}Result></{operation}Response>"
        return proxy.Answer(200, (("Content-Type", "application/xml"),), body.encode())

    direct.iam.create_user(UserName=direct.name, Path=PATH)
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        double.misbehave(fault, when=action(operation))
        inputs = inputs_of(RING, direct, double.url)
        _, outputs = RING.create(inputs, direct.context)
        found = RING.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert found.outputs["attachedPolicies" if part == "AttachedPolicies" else "groups"] == ["first", "second"]


# ---- what is said of what is deleted


def gone(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
    return proxy.error(request, 404, "NoSuchEntity", "there is no such thing")


def with_all(direct: Direct, url: str) -> dict[Any, Values]:
    return {one: one.create(inputs_of(one, direct, url), direct.context)[1] for one in (USER, POLICY, RING)}


def test_a_key_that_is_listed_is_not_gone(direct: Direct) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        outputs = with_all(direct, double.url)[RING]
        double.misbehave(gone, when=action("DeleteAccessKey"))
        two = inputs_of(RING, direct, double.url, active="b", slots=["a", "b"])
        both = RING.update(direct.name, outputs, two, direct.context)
        one = inputs_of(RING, direct, double.url, active="b", slots=["b"], retireConfirmed=True)
        with pytest.raises(PartialError, match=r"delete_access_key .*NoSuchEntity.* list_access_keys") as stopped:
            RING.update(direct.name, both, one, direct.context)
        assert set(stopped.value.outputs["keys"]) == {"a", "b"}
        with pytest.raises(ApiError, match=r"delete_access_key .*NoSuchEntity.* list_access_keys"):
            RING.delete(direct.name, {**both, "retireConfirmed": True}, direct.context)
        assert len(direct.key_ids()) == 2


def test_a_key_that_is_not_listed_is_gone(direct: Direct) -> None:
    """Deleted by a call whose answer was lost, and which was tried again; or with its user."""
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        outputs = with_all(direct, double.url)[RING]
        double.misbehave(proxy.lost_answer, when=action("DeleteAccessKey"), times=1)
        RING.delete(direct.name, {**outputs, "retireConfirmed": True}, direct.context)
        assert [one.status for one in double.exchanges if one.action == "DeleteAccessKey"] == [None, 404]
        assert direct.key_ids() == set()
        family = keys_of(direct, double.url)
        direct.iam.delete_user_policy(UserName=direct.name, PolicyName=POLICY_NAME)
        assert policies(direct) == []
        direct.iam.delete_user(UserName=direct.name)
        family.delete(outputs["accessKeyId"])


@pytest.mark.parametrize("said_by", ["DeleteUser", "ListAccessKeys"])
def test_a_user_that_is_shown_is_not_gone(direct: Direct, said_by: str) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        outputs = USER.create(inputs_of(USER, direct, double.url), direct.context)[1]
        double.misbehave(gone, when=action(said_by))
        with pytest.raises(ApiError, match=r"NoSuchEntity.* get_user"):
            USER.delete(direct.name, outputs, direct.context)
        double.behave()
        USER.delete(direct.name, outputs, direct.context)
    assert direct.name not in user_names(direct.iam)


@pytest.mark.parametrize("has_one", [True, False])
def test_a_user_of_whose_policies_nothing_is_told_is_deleted_where_it_has_none(direct: Direct, has_one: bool) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        outputs = USER.create(inputs_of(USER, direct, double.url), direct.context)[1]
        if has_one:
            direct.policy(allow("s3:ListAllMyBuckets"), name="by-hand")
        double.misbehave(gone, when=action("ListUserPolicies"))
        if has_one:
            with pytest.raises(ApiError, match=r"delete_user .*DeleteConflict"):
                USER.delete(direct.name, outputs, direct.context)
        else:
            USER.delete(direct.name, outputs, direct.context)
    assert (direct.name in user_names(direct.iam)) is has_one


def test_a_user_that_has_keys_is_not_gone(direct: Direct) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        outputs = with_all(direct, double.url)[USER]
        double.misbehave(gone, when=action("GetUser"))
        with pytest.raises(ApiError, match=r"get_user .*NoSuchEntity.* list_access_keys"):
            USER.delete(direct.name, outputs, direct.context)
    assert direct.key_ids()


@pytest.mark.parametrize("said_by", ["GetUserPolicy", "DeleteUserPolicy", "ListAccessKeys"])
def test_a_policy_that_is_listed_is_not_gone(direct: Direct, said_by: str) -> None:
    with proxy.in_front_of(direct.running.iam_endpoint) as double:
        USER.create(inputs_of(USER, direct, double.url), direct.context)
        outputs = POLICY.create(inputs_of(POLICY, direct, double.url), direct.context)[1]
        double.misbehave(gone, when=action(said_by))
        with pytest.raises(ApiError, match=r"NoSuchEntity.* list_user_policies"):
            POLICY.delete(direct.name, outputs, direct.context)
        double.behave()
        POLICY.delete(direct.name, outputs, direct.context)
    assert policies(direct) == []


def policies(direct: Direct) -> Collection[str]:
    found: list[str] = direct.iam.list_user_policies(UserName=direct.name)["PolicyNames"]
    return found
