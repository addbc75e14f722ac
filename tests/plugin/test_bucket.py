"""The bucket: made, taken over, watched and given up, on the real embedded store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from synapse_media.contract import PROOF_OBJECT
from synapse_media.errors import StoreError
from synapse_media.plugin.resource import PartialError, Values
from synapse_media.plugin.s3_bucket import OWNER_TAG, Bucket
from synapse_media.schema.model import UNKNOWN
from synapse_media.store import clients as connection
from synapse_media.store.answers import ApiError
from tests.doubles import proxy
from tests.plugin.direct import OWNER, Direct

BUCKET = Bucket()
TLS = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": "arn:aws:s3:::{bucket}/*",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
)


def wanted(direct: Direct, **changes: Any) -> Values:
    """The inputs of a component, as far as the embedded store goes."""
    return {
        "bucket": direct.name,
        "connection": direct.connection(),
        "owner": OWNER,
        "versioning": True,
        "noncurrentDays": 30,
        "abortDays": 7,
        "policy": "",
        "publicAccessBlock": True,
        "encryption": True,
        "acl": "private",
        **changes,
    }


def checked(inputs: Values) -> Values:
    found, failures = BUCKET.check(inputs)
    assert not failures
    return found


def tags(direct: Direct) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in direct.s3.get_bucket_tagging(Bucket=direct.name)["TagSet"]}


def unmark(direct: Direct) -> None:
    direct.s3.delete_bucket_tagging(Bucket=direct.name)


def versioning(direct: Direct) -> str | None:
    status: str | None = direct.s3.get_bucket_versioning(Bucket=direct.name).get("Status")
    return status


# ---- made


def test_a_bucket_is_made_marked_and_versioned(direct: Direct) -> None:
    resource_id, outputs = direct.make(BUCKET, wanted(direct))
    assert resource_id == direct.name
    assert versioning(direct) == "Enabled"
    assert tags(direct) == {OWNER_TAG: OWNER}
    assert outputs["arn"] == f"arn:aws:s3:::{direct.name}"
    assert outputs["adopted"] is False
    assert outputs["differences"] == []
    assert direct.said == []


def test_what_the_store_lacks_is_said(direct: Direct) -> None:
    """versitygw 1.8.0 answers NotImplemented to these."""
    _, outputs = direct.make(BUCKET, wanted(direct))
    assert outputs["lacks"] == [
        "public access block",
        "default encryption",
        "lifecycle rules (old versions and unfinished uploads stay)",
    ]


def test_what_is_not_wanted_is_not_called_lacking(direct: Direct) -> None:
    off: Values = {"noncurrentDays": 0, "abortDays": 0, "publicAccessBlock": False, "encryption": False}
    _, outputs = direct.make(BUCKET, wanted(direct, **off, versioning=False))
    assert outputs["lacks"] == []
    assert versioning(direct) is None


def test_a_policy_is_put(direct: Direct) -> None:
    policy = TLS.replace("{bucket}", direct.name)
    direct.make(BUCKET, wanted(direct, policy=policy))
    assert json.loads(direct.s3.get_bucket_policy(Bucket=direct.name)["Policy"]) == json.loads(policy)


@pytest.mark.parametrize("policy", ["", TLS])
def test_a_second_look_finds_nothing_changed(direct: Direct, policy: str) -> None:
    """Also where the store lacks half of it: a second `up` changes nothing."""
    inputs = checked(wanted(direct, policy=policy.replace("{bucket}", direct.name)))
    _, outputs = BUCKET.create(inputs, direct.context)
    found = BUCKET.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert BUCKET.diff(found.inputs, inputs).changed == ()
    assert found.outputs == outputs


def test_check_fills_in_defaults_and_names_what_is_missing() -> None:
    inputs, failures = BUCKET.check({"bucket": "", "owner": OWNER})
    assert failures == {"bucket": "is missing", "connection": "is missing"}
    assert inputs["forceDestroy"] is False
    assert inputs["manage"] == []
    assert BUCKET.check({"bucket": "b", "owner": "o", "connection": {}, "policy": "{"})[1] == {"policy": "is not JSON"}


def test_a_policy_is_compared_by_its_meaning(direct: Direct) -> None:
    one = checked(wanted(direct, policy='{"Version": "2012-10-17",\n "Statement": []}'))
    other = checked(wanted(direct, policy='{"Statement":[],"Version":"2012-10-17"}'))
    assert BUCKET.diff(one, other).changed == ()


def test_a_preview_knows_what_follows_from_the_inputs(direct: Direct) -> None:
    planned = BUCKET.planned(checked(wanted(direct)), None)
    assert planned["arn"] == f"arn:aws:s3:::{direct.name}"
    assert planned["lacks"] is UNKNOWN, "only the store can tell"
    known = BUCKET.planned(checked(wanted(direct, adopt=True)), {"lacks": ["x"], "adopted": True, "differences": []})
    assert (known["lacks"], known["adopted"]) == (["x"], True)


def test_another_name_is_another_bucket(direct: Direct) -> None:
    found = BUCKET.diff(checked(wanted(direct)), checked(wanted(direct, bucket="other", versioning=False)))
    assert set(found.changed) == {"bucket", "versioning"}
    assert found.replaced == ("bucket",)


# ---- what is there already


def test_a_bucket_with_something_in_it_is_never_taken(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put()
    with pytest.raises(StoreError, match=r"exists already and is not empty.*set adopt: true"):
        direct.make(BUCKET, wanted(direct))
    assert direct.keys_in() == ["local_content/a"]
    assert versioning(direct) is None


def test_a_bucket_with_exactly_our_mark_is_taken_up_again_as_it_is(direct: Direct) -> None:
    """State was lost: the mark is ours, so is the media in it."""
    direct.make(BUCKET, wanted(direct))
    direct.put()
    _, outputs = direct.make(BUCKET, wanted(direct))
    assert outputs["adopted"] is False
    renamed = wanted(direct, owner="synapse-media/tests/new.example.com", formerOwner=OWNER)
    direct.make(BUCKET, renamed)
    assert tags(direct) == {OWNER_TAG: "synapse-media/tests/new.example.com"}
    assert direct.keys_in() == ["local_content/a"]


def test_old_versions_are_media(direct: Direct) -> None:
    direct.make(BUCKET, wanted(direct))
    unmark(direct)
    direct.put()
    direct.s3.delete_object(Bucket=direct.name, Key="local_content/a")
    assert direct.keys_in() == []
    with pytest.raises(StoreError, match="not empty"):
        direct.make(BUCKET, wanted(direct))


@pytest.mark.parametrize("adopt", [False, True])
def test_a_bucket_marked_as_another_stacks_is_refused(direct: Direct, adopt: bool) -> None:
    direct.make(BUCKET, wanted(direct, owner="synapse-media/other/matrix.example.com"))
    with pytest.raises(StoreError, match=r"that of another stack \(synapse-media/other/matrix\.example\.com\)"):
        direct.make(BUCKET, wanted(direct, adopt=adopt))
    assert tags(direct)[OWNER_TAG] == "synapse-media/other/matrix.example.com"


def test_an_empty_bucket_that_an_interrupted_run_left_is_finished(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    _, outputs = direct.make(BUCKET, wanted(direct))
    assert outputs["adopted"] is False
    assert versioning(direct) == "Enabled"
    assert tags(direct) == {OWNER_TAG: OWNER}
    # Killed once more, at the end: marked and versioned by now.
    _, again = direct.make(BUCKET, wanted(direct))
    assert again["adopted"] is False


def test_what_the_proof_left_does_not_count(direct: Direct) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put(f"media/{PROOF_OBJECT}")
    direct.put(f"{PROOF_OBJECT}-copy")
    direct.make(BUCKET, wanted(direct))
    unmark(direct)
    direct.put(f"{PROOF_OBJECT}/no")
    with pytest.raises(StoreError, match="not empty"):
        direct.make(BUCKET, wanted(direct))


def by_tag(direct: Direct) -> None:
    direct.s3.put_bucket_tagging(Bucket=direct.name, Tagging={"TagSet": [{"Key": "team", "Value": "web"}]})


def by_versioning(direct: Direct) -> None:
    direct.s3.put_bucket_versioning(Bucket=direct.name, VersioningConfiguration={"Status": "Enabled"})


def by_policy(direct: Direct) -> None:
    direct.s3.put_bucket_policy(Bucket=direct.name, Policy=public_read(direct.name))


@pytest.mark.parametrize("configure", [by_tag, by_versioning, by_policy])
def test_an_empty_bucket_that_somebody_configured_is_not_taken(
    direct: Direct, configure: Callable[[Direct], None]
) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    configure(direct)
    with pytest.raises(StoreError, match="exists already"):
        direct.make(BUCKET, wanted(direct))


# ---- adopted


def public_read(bucket: str) -> str:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def of_old(direct: Direct) -> Direct:
    """A bucket made by hand years ago: media, a tag, a policy, no versions."""
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put()
    direct.s3.put_bucket_tagging(Bucket=direct.name, Tagging={"TagSet": [{"Key": "team", "Value": "web"}]})
    direct.s3.put_bucket_policy(Bucket=direct.name, Policy=public_read(direct.name))
    return direct


def test_an_adopted_bucket_keeps_its_media_and_settings(of_old: Direct) -> None:
    _, outputs = of_old.make(BUCKET, wanted(of_old, adopt=True))
    assert outputs["adopted"] is True
    assert of_old.keys_in() == ["local_content/a"]
    assert versioning(of_old) is None
    assert json.loads(of_old.s3.get_bucket_policy(Bucket=of_old.name)["Policy"]) == json.loads(public_read(of_old.name))
    assert tags(of_old) == {"team": "web", OWNER_TAG: OWNER}


def test_what_we_would_have_set_otherwise_is_reported(of_old: Direct) -> None:
    _, outputs = of_old.make(BUCKET, wanted(of_old, adopt=True))
    differences = outputs["differences"]
    assert "versioning is False, a new bucket would have True" in differences
    assert any(line.startswith("policy is '{") and "a new bucket would have ''" in line for line in differences)
    assert len(differences) == len(of_old.said)
    assert all(any(words in said for said in of_old.said) for words in differences)


def test_what_nobody_wants_is_no_difference(of_old: Direct) -> None:
    off: Values = {"versioning": False, "policy": None, "acl": "", "noncurrentDays": 0, "abortDays": 0}
    inputs = wanted(of_old, adopt=True, publicAccessBlock=False, encryption=False, **off)
    _, outputs = of_old.make(BUCKET, inputs)
    assert outputs["differences"] == []


def test_an_adopted_bucket_shows_no_change_afterwards(of_old: Direct) -> None:
    inputs = checked(wanted(of_old, adopt=True))
    _, outputs = BUCKET.create(inputs, of_old.context)
    told = list(of_old.said)
    of_old.said.clear()
    found = BUCKET.read(of_old.name, inputs, outputs, of_old.context)
    assert found is not None
    assert BUCKET.diff(found.inputs, inputs).changed == ()
    # What a new one would have otherwise is said each time it is looked at.
    assert of_old.said == told != []


def test_an_adopted_bucket_is_not_made_ours_by_the_way(of_old: Direct) -> None:
    _, outputs = of_old.make(BUCKET, wanted(of_old, adopt=True))
    for step in (
        lambda inputs: BUCKET.planned(inputs, outputs),
        lambda inputs: BUCKET.update(of_old.name, outputs, inputs, of_old.context),
    ):
        with pytest.raises(StoreError, match="set adopt: true"):
            step(checked(wanted(of_old)))
    assert versioning(of_old) is None


def test_only_what_manage_names_is_changed(of_old: Direct) -> None:
    _, outputs = of_old.make(BUCKET, wanted(of_old, adopt=True, manage=["versioning"]))
    assert versioning(of_old) == "Enabled"
    assert of_old.s3.get_bucket_policy(Bucket=of_old.name)
    inputs = checked(wanted(of_old, adopt=True, manage=["policy", "versioning"]))
    outputs = BUCKET.update(of_old.name, outputs, inputs, of_old.context)
    with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
        of_old.s3.get_bucket_policy(Bucket=of_old.name)
    assert not any(line.startswith(("policy", "versioning")) for line in outputs["differences"])


FOLDERS = ("local_content/", "remote_content/")


@pytest.mark.parametrize(
    ("key", "prefix", "said"),
    [
        ("local_content/a", "", ""),
        ("media/local_content/a", "media/", ""),
        ("medialocal_content/a", "media", ""),
        ("media/remote_content/a", "", "Set prefix: 'media/' in the stack file"),
        ("old/2019/remote_content/a", "", "Set prefix: 'old/2019/' in the stack file"),
        ("medialocal_content/a", "media/", "Set prefix: 'media' in the stack file"),
        ("local_content/a", "media/", "Remove prefix from the stack file"),
        ("holiday/picture.jpeg", "", "Is it the right bucket?"),
        ("synapse-media-proof", "media/", ""),
        ("mediasynapse-media-proof", "media", ""),
    ],
)
def test_media_that_will_not_be_found_in_an_adopted_bucket_is_said(
    direct: Direct, key: str, prefix: str, said: str
) -> None:
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put(key)
    direct.said.clear()
    inputs = wanted(direct, adopt=True, mediaIn=[prefix + folder for folder in FOLDERS])
    _, outputs = direct.make(BUCKET, inputs)
    told = [words for words in direct.said if "none where Synapse will look for media" in words]
    assert len(told) == bool(said)
    assert said in "".join(told)
    # Again each time it is looked at, and it is no reason to change anything.
    direct.said.clear()
    found = BUCKET.read(direct.name, checked(inputs), outputs, direct.context)
    assert found is not None
    assert [words for words in direct.said if "none where Synapse will look for media" in words] == told
    assert BUCKET.diff(found.inputs, checked(inputs)).changed == ()


def test_where_media_lies_under_names_of_its_own_nothing_is_said(direct: Direct) -> None:
    """matrix-media-repo has a different layout."""
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put("ab12cd34idv2fmt")
    direct.make(BUCKET, wanted(direct, adopt=True, mediaIn=[]))
    assert not [words for words in direct.said if "look for media" in words]


def test_an_adopted_bucket_becomes_one_like_any_other_once_it_looks_like_one(of_old: Direct) -> None:
    _, outputs = of_old.make(BUCKET, wanted(of_old, adopt=True))
    ours = checked(wanted(of_old, own=True))
    with pytest.raises(StoreError, match=r"still differs from a new bucket: .*versioning is False.*set-versioning"):
        BUCKET.update(of_old.name, outputs, ours, of_old.context)
    assert versioning(of_old) is None
    groups = ["access", "encryption", "lifecycle", "policy", "versioning"]
    alike = BUCKET.update(of_old.name, outputs, checked(wanted(of_old, adopt=True, manage=groups)), of_old.context)
    assert alike["adopted"] is True
    # Not by the way: the word is needed, and without it nothing happens.
    with pytest.raises(StoreError, match="<homeserver>/own-bucket"):
        BUCKET.update(of_old.name, alike, checked(wanted(of_old)), of_old.context)
    assert BUCKET.planned(ours, alike)["bucket"] == of_old.name
    owned = BUCKET.update(of_old.name, alike, ours, of_old.context)
    assert (owned["adopted"], owned["differences"]) == (False, [])
    assert of_old.keys_in() == ["local_content/a"]
    # From here on it needs no word, and what somebody changes by hand is drift as of any other.
    later = checked(wanted(of_old))
    assert BUCKET.diff(owned, later).changed == ()
    of_old.s3.put_bucket_policy(Bucket=of_old.name, Policy=public_read(of_old.name))
    found = BUCKET.read(of_old.name, later, owned, of_old.context)
    assert found is not None
    assert "policy" in BUCKET.diff(found.inputs, later).changed


def test_the_word_alone_is_enough_and_adopt_may_stay(of_old: Direct) -> None:
    """At providers whose new buckets the vendor's plugin makes, adopt: true says that ours has this one."""
    stays, word = checked(wanted(of_old, adopt=True)), checked(wanted(of_old, adopt=True, own=True))
    groups = ["access", "encryption", "lifecycle", "policy", "versioning"]
    with pytest.raises(StoreError, match=r"still differs from a new bucket: .*versioning is False.*own-bucket out of"):
        BUCKET.create(word, of_old.context)
    assert versioning(of_old) is None
    _, outputs = of_old.make(BUCKET, wanted(of_old, adopt=True))
    assert BUCKET.unsettled(outputs, stays) == ()
    assert BUCKET.unsettled(outputs, word) == ("adopted",)
    with pytest.raises(StoreError, match=r"still differs from a new bucket: .*versioning is False.*set-versioning"):
        BUCKET.update(of_old.name, outputs, word, of_old.context)
    assert versioning(of_old) is None
    alike = BUCKET.update(of_old.name, outputs, checked(wanted(of_old, adopt=True, manage=groups)), of_old.context)
    owned = BUCKET.update(of_old.name, alike, word, of_old.context)
    assert (owned["adopted"], owned["differences"]) == (False, [])
    # The word is for one run: neither with it nor without it is anything left to do.
    for inputs in (word, stays):
        assert BUCKET.diff(owned, inputs).changed == ()
        assert BUCKET.unsettled(owned, inputs) == ()
    of_old.s3.put_bucket_versioning(Bucket=of_old.name, VersioningConfiguration={"Status": "Suspended"})
    found = BUCKET.read(of_old.name, stays, owned, of_old.context)
    assert found is not None
    assert BUCKET.diff(found.inputs, stays).changed == ("versioning",)
    BUCKET.update(of_old.name, found.outputs, stays, of_old.context)
    assert versioning(of_old) == "Enabled"
    assert of_old.keys_in() == ["local_content/a"]
    # Adopted anew where it looks as a new one would already, it is one from the start.
    assert BUCKET.create(word, of_old.context)[1]["adopted"] is False


def test_a_bucket_that_is_not_there_can_not_be_adopted(direct: Direct) -> None:
    with pytest.raises(StoreError, match=r"does not exist, so it can't be adopted"):
        direct.make(BUCKET, wanted(direct, adopt=True))
    assert not direct.bucket_exists()


# ---- drift


def refreshed(direct: Direct, inputs: Values, outputs: Values) -> set[str]:
    """Names of the inputs that a refresh shows as changed, before `up` mends them."""
    found = BUCKET.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert set(found.outputs) >= set(outputs)
    changed = set(BUCKET.diff(found.inputs, inputs).changed)
    mended = BUCKET.update(direct.name, found.outputs, inputs, direct.context)
    again = BUCKET.read(direct.name, inputs, mended, direct.context)
    assert again is not None
    assert BUCKET.diff(again.inputs, inputs).changed == ()
    return changed


def test_versioning_switched_off_is_found_and_mended(direct: Direct) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.s3.put_bucket_versioning(Bucket=direct.name, VersioningConfiguration={"Status": "Suspended"})
    assert refreshed(direct, inputs, outputs) == {"versioning"}
    assert versioning(direct) == "Enabled"


def test_a_public_policy_is_found_and_removed(direct: Direct) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.s3.put_bucket_policy(Bucket=direct.name, Policy=public_read(direct.name))
    assert refreshed(direct, inputs, outputs) == {"policy"}
    with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
        direct.s3.get_bucket_policy(Bucket=direct.name)


@pytest.mark.parametrize("by_hand", ["removed", "replaced"])
def test_a_policy_changed_by_hand_is_found_and_put_back(direct: Direct, by_hand: str) -> None:
    policy = TLS.replace("{bucket}", direct.name)
    inputs = checked(wanted(direct, policy=policy))
    _, outputs = BUCKET.create(inputs, direct.context)
    if by_hand == "removed":
        direct.s3.delete_bucket_policy(Bucket=direct.name)
    else:
        direct.s3.put_bucket_policy(Bucket=direct.name, Policy=public_read(direct.name))
    assert refreshed(direct, inputs, outputs) == {"policy"}
    assert json.loads(direct.s3.get_bucket_policy(Bucket=direct.name)["Policy"]) == json.loads(policy)


def test_a_public_acl_is_found_and_taken_back(direct: Direct) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.s3.put_bucket_ownership_controls(
        Bucket=direct.name, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    )
    direct.s3.put_bucket_acl(Bucket=direct.name, ACL="public-read")
    assert refreshed(direct, inputs, outputs) == {"acl"}
    grants = direct.s3.get_bucket_acl(Bucket=direct.name)["Grants"]
    assert {grant["Permission"] for grant in grants} == {"FULL_CONTROL"}


def test_a_bucket_that_is_gone_is_gone(direct: Direct) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.s3.delete_bucket(Bucket=direct.name)
    assert BUCKET.read(direct.name, inputs, outputs, direct.context) is None
    BUCKET.delete(direct.name, outputs, direct.context)


def test_a_refusal_is_not_taken_for_gone(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket taken for gone would be made anew, and its media forgotten."""
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    key = direct.user_with_key({"Effect": "Deny", "Action": "s3:*", "Resource": "*"})
    monkeypatch.setenv("S3_ACCESS_KEY_ID", key.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", key.secret)
    with pytest.raises(ApiError) as refused:
        BUCKET.read(direct.name, inputs, outputs, direct.context)
    assert refused.value.denied


def test_a_bucket_that_the_store_lists_is_not_gone(direct: Direct) -> None:
    """A server that lags behind, or another one behind the same name, has S3's own words for what it does not know."""
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.put()
    with proxy.in_front_of(direct.endpoint) as double:
        unknown = _unknown_bucket(direct)
        double.misbehave(unknown, when=lambda request: direct.name in request.path)
        there = {**outputs, **inputs, "connection": direct.connection(endpoint=double.url)}
        calls: tuple[Callable[[], object], ...] = (
            lambda: BUCKET.read(direct.name, there, there, direct.context),
            lambda: BUCKET.delete(direct.name, there, direct.context),
            lambda: BUCKET.holds_media(there),
        )
        for call in calls:
            with pytest.raises(ApiError, match=r"says that it does not exist .*, and lists it among its buckets"):
                call()
        # An administrator of some buckets alone may not list them.
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "no"),
            when=lambda request: request.path == "/",
        )
        assert BUCKET.read(direct.name, there, there, direct.context) is None
        # Of such an administrator, one answer is not believed.
        looks = itertools.count(1)
        double.behave()
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "no"),
            when=lambda request: request.path == "/",
        )
        double.misbehave(
            unknown,
            when=lambda request: "tagging" in request.query or ("list-type" in request.query and next(looks) == 1),
        )
        with pytest.raises(ApiError, match=r"says that it does not exist .*, and finds it when asked once more"):
            BUCKET.read(direct.name, there, there, direct.context)
    assert direct.bucket_exists()


def test_the_word_for_a_missing_object_says_nothing_of_a_bucket(direct: Direct) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 404, "NoSuchKey", "there is no such object"),
            when=lambda request: request.bucket == direct.name,
        )
        there = {**outputs, **inputs, "connection": direct.connection(endpoint=double.url)}
        with pytest.raises(ApiError, match=r"NoSuchKey.*That is no answer to the listing of a bucket"):
            BUCKET.read(direct.name, there, there, direct.context)


@pytest.mark.parametrize("status", [200, 404])
def test_a_bucket_that_is_gone_is_gone_where_a_proxy_passes_on_nothing_but_buckets(direct: Direct, status: int) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    direct.s3.delete_bucket(Bucket=direct.name)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.html(status), when=lambda request: not request.bucket)
        there = {**outputs, **inputs, "connection": direct.connection(endpoint=double.url)}
        assert BUCKET.read(direct.name, there, there, direct.context) is None
        BUCKET.delete(direct.name, there, direct.context)


@pytest.mark.parametrize("operation", ["DELETE", "versions"])
def test_one_answer_does_not_make_a_bucket_gone_that_was_just_found(direct: Direct, operation: str) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            _unknown_bucket(direct), when=lambda request: operation in (request.method, *request.query), times=1
        )
        there = {**outputs, **inputs, "connection": direct.connection(endpoint=double.url)}
        with pytest.raises(ApiError, match="NoSuchBucket"):
            BUCKET.delete(direct.name, there, direct.context)
        assert direct.bucket_exists()
        BUCKET.delete(direct.name, there, direct.context)
    assert not direct.bucket_exists()


@pytest.mark.parametrize("listing", ["in pages", "broken"])
def test_a_bucket_is_looked_for_in_the_whole_list(direct: Direct, listing: str) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)

    def page(request: proxy.Request, _: proxy.Upstream) -> proxy.Answer:
        if listing == "broken":
            return proxy.Answer(500, (), b"")
        later = "continuation-token" in request.target
        name, more = (direct.name, "") if later else ("other", "<ContinuationToken>t</ContinuationToken>")
        bucket = f"<Bucket><Name>{name}</Name><CreationDate>2026-01-31T23:59:59.000Z</CreationDate></Bucket>"
        body = f"<ListAllMyBucketsResult><Buckets>{bucket}</Buckets>{more}</ListAllMyBucketsResult>"
        return proxy.Answer(200, (("Content-Type", "application/xml"),), body.encode())

    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(_unknown_bucket(direct), when=lambda request: direct.name in request.path)
        double.misbehave(page)
        there = {**outputs, **inputs, "connection": direct.connection(endpoint=double.url)}
        said = "lists it among its buckets" if listing == "in pages" else "Run this again once the store lists"
        with pytest.raises(ApiError, match=said):
            BUCKET.read(direct.name, there, there, direct.context)


def _unknown_bucket(direct: Direct) -> proxy.Fault:
    return lambda request, _: proxy.error(request, 404, "NoSuchBucket", f"{direct.name} does not exist")


@pytest.mark.parametrize("status", [200, 403, 404, 502])
def test_a_page_of_somebody_in_between_is_not_taken_for_gone(direct: Direct, status: int) -> None:
    inputs = checked(wanted(direct))
    _, outputs = BUCKET.create(inputs, direct.context)
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.html(status))
        inputs["connection"] = direct.connection(endpoint=double.url)
        with pytest.raises(StoreError):
            BUCKET.read(direct.name, inputs, {**outputs, **inputs}, direct.context)
        with pytest.raises(StoreError):
            BUCKET.delete(direct.name, {**outputs, **inputs}, direct.context)
    assert direct.bucket_exists()


def test_a_bucket_that_is_not_at_its_new_endpoint_stays_in_state_as_it_was(direct: Direct) -> None:
    """A mistyped endpoint must not make state forget where the media is."""
    _, outputs = direct.make(BUCKET, wanted(direct))
    direct.s3.delete_bucket(Bucket=direct.name)
    with pytest.raises(StoreError, match="does not exist at") as refused:
        BUCKET.update(direct.name, outputs, checked(wanted(direct)), direct.context)
    assert not isinstance(refused.value, PartialError)
    nowhere = direct.connection(endpoint="http://127.0.0.1:9")
    with pytest.raises(ApiError, match=r"Could not connect.*Check endpoint, and whether this machine can reach it"):
        BUCKET.update(direct.name, outputs, checked(wanted(direct, connection=nowhere)), direct.context)


# ---- import


def test_an_import_reads_what_is_there_and_takes_it_over(of_old: Direct) -> None:
    found = BUCKET.read(f"{of_old.name}@{of_old.endpoint}", {}, {}, of_old.context)
    assert found is not None
    assert found.resource_id == of_old.name
    assert found.inputs["bucket"] == of_old.name
    assert found.inputs["adopt"] is True
    assert found.outputs["adopted"] is True
    assert found.inputs["owner"] == ""
    # The program that follows changes nothing of it but its mark.
    inputs = checked(wanted(of_old, adopt=True))
    outputs = BUCKET.update(of_old.name, found.outputs, inputs, of_old.context)
    assert tags(of_old)[OWNER_TAG] == OWNER
    assert versioning(of_old) is None
    assert outputs["adopted"] is True


@pytest.mark.parametrize("resource_id", ["media", "media@s3.example.com", "@https://s3.example.com", ""])
def test_an_import_id_tells_where_the_store_is(resource_id: str, direct: Direct) -> None:
    with pytest.raises(StoreError, match=r"is not NAME@ENDPOINT, for example media@https://"):
        BUCKET.read(resource_id, {}, {}, direct.context)


def test_an_import_of_nothing_finds_nothing(direct: Direct) -> None:
    assert BUCKET.read(f"{direct.name}@{direct.endpoint}", {}, {}, direct.context) is None


def test_a_store_with_an_iam_api_does_not_get_an_existing_key_in_one_step(direct: Direct) -> None:
    """What deletes its user is the administrator's key, in the variables of the key that is meant for Synapse."""
    had, none = checked(wanted(direct)), checked(wanted(direct, connection=direct.connection(iamEndpoint="")))
    for inputs in (none, {**none, "bucket": "another-bucket"}):
        with pytest.raises(
            StoreError, match=r"^existing_key: .*Take two steps\. First, .*retain-bucket.*remove the component.*Then, "
        ):
            BUCKET.diff(had, inputs)
    assert BUCKET.diff(none, had).changed == ("connection",)
    unknown = {**none["connection"], "iamEndpoint": UNKNOWN}
    for not_known_yet in (unknown, UNKNOWN):
        assert BUCKET.diff(had, {**none, "connection": not_known_yet}).changed == ("connection",)


# ---- given up


def test_an_empty_bucket_is_deleted_with_what_the_proof_left(direct: Direct) -> None:
    _, outputs = direct.make(BUCKET, wanted(direct))
    direct.put(PROOF_OBJECT)
    direct.put(PROOF_OBJECT)
    direct.s3.create_multipart_upload(Bucket=direct.name, Key="unfinished")
    BUCKET.delete(direct.name, outputs, direct.context)
    assert not direct.bucket_exists()
    BUCKET.delete(direct.name, outputs, direct.context)


@pytest.mark.parametrize("hidden", [False, True])
def test_media_is_not_deleted_with_its_bucket(direct: Direct, hidden: bool) -> None:
    _, outputs = direct.make(BUCKET, wanted(direct))
    direct.put()
    direct.put(PROOF_OBJECT)
    if hidden:
        direct.s3.delete_object(Bucket=direct.name, Key="local_content/a")
    before = direct.versions_in()
    with pytest.raises(StoreError, match=r"holds media and is not deleted.*retain-bucket.*delete-media"):
        BUCKET.delete(direct.name, outputs, direct.context)
    assert direct.versions_in() == before


def test_media_goes_where_it_is_named(direct: Direct) -> None:
    _, outputs = direct.make(BUCKET, wanted(direct, forceDestroy=True))
    for body in (b"one", b"two"):
        direct.put(body=body)
    direct.put("local_content/b")
    direct.s3.delete_object(Bucket=direct.name, Key="local_content/b")
    BUCKET.delete(direct.name, outputs, direct.context)
    assert not direct.bucket_exists()


@pytest.mark.parametrize("mark", [OWNER, ""])
def test_what_is_written_while_a_bucket_is_deleted_is_not_lost(direct: Direct, mark: str) -> None:
    """After it was found empty; another writer, or a key of the operator's own."""
    with proxy.in_front_of(direct.endpoint) as double:

        def listed_and_then_written(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
            answer = upstream.ask(request)
            direct.put()
            return answer

        there = wanted(direct, connection=direct.connection(endpoint=double.url), forceDestroy=not mark)
        _, outputs = direct.make(BUCKET, there)
        if not mark:
            direct.s3.delete_bucket_tagging(Bucket=direct.name)
        direct.put(PROOF_OBJECT)
        double.misbehave(listed_and_then_written, when=lambda request: "versions" in request.query, times=1)
        with pytest.raises(StoreError, match=r"holds media and is not deleted.*retain-bucket.*delete-media"):
            BUCKET.delete(direct.name, outputs, direct.context)
    assert direct.keys_in() == ["local_content/a"]


def test_a_store_that_lists_no_uploads_can_still_be_left(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 501, "NotImplemented", "no"),
            when=lambda request: "uploads" in request.query,
        )
        _, outputs = direct.make(BUCKET, wanted(direct, connection=direct.connection(endpoint=double.url)))
        BUCKET.delete(direct.name, outputs, direct.context)
    assert not direct.bucket_exists()


# ---- what goes wrong


def test_a_create_that_stops_half_way_is_kept_and_finished(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        rule = double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "no"),
            when=lambda request: request.method == "PUT" and "versioning" in request.query,
        )
        inputs = checked(wanted(direct, connection=direct.connection(endpoint=double.url)))
        with pytest.raises(PartialError, match=r"is there, but not finished: .*AccessDenied") as stopped:
            BUCKET.create(inputs, direct.context)
        assert rule.hits == 1
        assert stopped.value.resource_id == direct.name
        assert versioning(direct) is None
        double.behave()
        BUCKET.update(direct.name, stopped.value.outputs, inputs, direct.context)
    assert versioning(direct) == "Enabled"


def test_a_lost_answer_of_create_bucket_is_no_stranger(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.lost_answer, when=lambda request: request.method == "PUT" and not request.query, times=1)
        _, outputs = direct.make(BUCKET, wanted(direct, connection=direct.connection(endpoint=double.url)))
    assert outputs["adopted"] is False
    assert tags(direct) == {OWNER_TAG: OWNER}


@pytest.mark.parametrize(
    ("mark", "answer"),
    [
        ("synapse-media/other/matrix.example.com", "BucketAlreadyOwnedByYou"),
        ("synapse-media/other/matrix.example.com", "200"),
        ("", "BucketAlreadyOwnedByYou"),
        ("", "200"),
    ],
)
def test_a_bucket_that_the_look_did_not_find_is_not_taken(direct: Direct, mark: str, answer: str) -> None:
    """Another stack made it between look and call, or who answered the look lags behind."""
    direct.s3.create_bucket(Bucket=direct.name)
    direct.put()
    if mark:
        direct.s3.put_bucket_tagging(Bucket=direct.name, Tagging={"TagSet": [{"Key": OWNER_TAG, "Value": mark}]})
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(_unknown_bucket(direct), when=lambda request: request.method == "GET", times=1)
        if answer == "200":
            double.misbehave(proxy.in_between(200), when=lambda request: request.method == "PUT" and not request.query)
        said = "is marked as that of another stack" if mark else "exists already and is not empty or not new"
        with pytest.raises(StoreError, match=said):
            direct.make(BUCKET, wanted(direct, connection=direct.connection(endpoint=double.url)))
    assert versioning(direct) is None
    if mark:
        assert tags(direct) == {OWNER_TAG: mark}


def test_throttling_is_waited_out(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(proxy.slow_down, times=2)
        direct.make(BUCKET, wanted(direct, connection=direct.connection(endpoint=double.url)))
    assert versioning(direct) == "Enabled"


def test_a_bucket_of_a_stranger_is_said_to_be_one(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 409, "BucketAlreadyExists", "taken"),
            when=lambda request: request.method == "PUT",
        )
        with pytest.raises(StoreError, match="is used by another account at this provider"):
            direct.make(BUCKET, wanted(direct, connection=direct.connection(endpoint=double.url)))


def test_a_bucket_one_may_not_look_at_is_not_made_or_touched(direct: Direct) -> None:
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 403, "AccessDenied", "no"),
            when=lambda request: request.method == "GET",
        )
        with pytest.raises(StoreError, match="exists and the store denies access to it"):
            direct.make(BUCKET, wanted(direct, connection=direct.connection(endpoint=double.url)))
        assert {exchange.method for exchange in double.exchanges} == {"GET"}


def test_wrong_admin_credentials_are_told_apart(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "not-the-secret-of-this-key")
    with pytest.raises(StoreError) as refused:
        direct.make(BUCKET, wanted(direct))
    assert "not-the-secret" not in str(refused.value)
    assert not direct.bucket_exists()
    monkeypatch.delenv("S3_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="the environment has no S3_SECRET_ACCESS_KEY"):
        direct.make(BUCKET, wanted(direct))
    monkeypatch.delenv("S3_ACCESS_KEY_ID")
    with pytest.raises(StoreError, match="has no S3_ACCESS_KEY_ID and no S3_SECRET_ACCESS_KEY"):
        direct.make(BUCKET, wanted(direct))


def test_without_an_endpoint_nothing_is_called(direct: Direct) -> None:
    """boto3 without an endpoint talks to Amazon: the admin's credential must not go there by accident."""
    with pytest.raises(StoreError, match="endpoint is missing"):
        direct.make(BUCKET, wanted(direct, connection=direct.connection(endpoint="")))


def test_a_profile_of_the_users_own_does_not_matter(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-does-not-exist")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    connection._session.cache_clear()
    # Clients are kept, so one that no other test has.
    direct.make(BUCKET, wanted(direct, connection=direct.connection(iamEndpoint="http://127.0.0.1:2")))
    assert direct.bucket_exists()


# ---- moto stands in for what the embedded store lacks: lifecycle, public access block, encryption


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """moto's server, a double of Amazon S3: it checks no signature and enforces no policy here."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def on_moto(moto_url: str, direct: Direct) -> tuple[Any, Values]:
    """A client of moto, and inputs for a bucket there."""
    client = boto3.client(
        "s3",
        endpoint_url=moto_url,
        region_name="eu-central-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(s3={"addressing_style": "path"}),
    )
    policy = TLS.replace("{bucket}", direct.name)
    there = direct.connection(endpoint=moto_url, region="eu-central-1")
    return client, checked(wanted(direct, policy=policy, connection=there))


BLOCK = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}


def test_moto_a_bucket_gets_all_of_it(on_moto: tuple[Any, Values], direct: Direct) -> None:
    s3, inputs = on_moto
    _, outputs = BUCKET.create(inputs, direct.context)
    assert outputs["lacks"] == []
    name = {"Bucket": direct.name}
    assert s3.get_bucket_location(**name)["LocationConstraint"] == "eu-central-1"
    assert s3.get_public_access_block(**name)["PublicAccessBlockConfiguration"] == BLOCK
    [rule] = s3.get_bucket_encryption(**name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    [rule] = s3.get_bucket_lifecycle_configuration(**name)["Rules"]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert "Expiration" not in rule, "what is current is never deleted by age"
    found = BUCKET.read(direct.name, inputs, outputs, direct.context)
    assert found is not None
    assert BUCKET.diff(found.inputs, inputs).changed == ()


def test_moto_the_policy_comes_after_the_public_access_block(moto_url: str, direct: Direct) -> None:
    """The other way round Amazon can refuse it: pulumi-aws#2927."""
    with proxy.in_front_of(moto_url) as double:
        there = direct.connection(endpoint=double.url)
        direct.make(BUCKET, wanted(direct, policy=TLS.replace("{bucket}", direct.name), connection=there))
        puts = [exchange.target for exchange in double.exchanges if exchange.method == "PUT" and "?" in exchange.target]
    assert [target.partition("?")[2].rstrip("=") for target in puts] == [
        "tagging",
        "versioning",
        "publicAccessBlock",
        "encryption",
        "lifecycle",
        "policy",
    ]


def test_moto_settings_are_sent_as_older_servers_read_them(moto_url: str, direct: Direct) -> None:
    """Content-MD5 and no checksum header: https://github.com/boto/boto3/issues/4392"""
    seen: list[tuple[str, set[str]]] = []

    def look(request: proxy.Request, upstream: proxy.Upstream) -> proxy.Answer | None:
        if request.method == "PUT" and request.query:
            seen.append((request.target, {name.lower() for name, _ in request.headers}))
        return upstream.ask(request)

    with proxy.in_front_of(moto_url) as double:
        double.misbehave(look)
        there = direct.connection(endpoint=double.url)
        direct.make(BUCKET, wanted(direct, policy=TLS.replace("{bucket}", direct.name), connection=there))
    assert len(seen) == 6
    for target, headers in seen:
        assert "content-md5" in headers, target
        assert not any(name.startswith("x-amz-checksum-") or name == "x-amz-sdk-checksum-algorithm" for name in headers)


def no_block(s3: Any, bucket: str) -> None:
    s3.delete_public_access_block(Bucket=bucket)


def half_a_block(s3: Any, bucket: str) -> None:
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**BLOCK, "RestrictPublicBuckets": False})


def no_encryption(s3: Any, bucket: str) -> None:
    s3.delete_bucket_encryption(Bucket=bucket)


def no_lifecycle(s3: Any, bucket: str) -> None:
    s3.delete_bucket_lifecycle(Bucket=bucket)


def rules(s3: Any, bucket: str, *more: dict[str, Any]) -> None:
    ours = {
        "ID": "synapse-media",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [ours, *more]})


def shorter(s3: Any, bucket: str) -> None:
    rule = {
        "ID": "x",
        "Status": "Enabled",
        "Filter": {"Prefix": "a"},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    rules(s3, bucket, rule)


def expiring(s3: Any, bucket: str) -> None:
    rule = {"ID": "old media", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 90}}
    rules(s3, bucket, rule)


@pytest.mark.parametrize(
    ("by_hand", "changed"),
    [
        (no_block, {"publicAccessBlock"}),
        (half_a_block, {"publicAccessBlock"}),
        (no_encryption, {"encryption"}),
        (no_lifecycle, {"noncurrentDays", "abortDays"}),
        (shorter, {"noncurrentDays"}),
        (expiring, {"expiringRules"}),
    ],
)
def test_moto_drift_is_found_and_mended(
    on_moto: tuple[Any, Values], direct: Direct, by_hand: Callable[[Any, str], None], changed: set[str]
) -> None:
    s3, inputs = on_moto
    _, outputs = BUCKET.create(inputs, direct.context)
    by_hand(s3, direct.name)
    assert refreshed(direct, inputs, outputs) == changed


def test_moto_a_rule_that_deletes_media_is_named_and_left_in_an_adopted_bucket(
    on_moto: tuple[Any, Values], direct: Direct
) -> None:
    s3, inputs = on_moto
    s3.create_bucket(Bucket=direct.name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    expiring(s3, direct.name)
    _, outputs = BUCKET.create({**inputs, "adopt": True}, direct.context)
    assert "the lifecycle rules old media delete media by age: remove them" in outputs["differences"]
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=direct.name)["Rules"]) == 2


@pytest.mark.parametrize(("noncurrent", "abort"), [(0, 7), (30, 0)])
def test_moto_a_lifecycle_rule_has_only_what_is_wanted(
    on_moto: tuple[Any, Values], direct: Direct, noncurrent: int, abort: int
) -> None:
    """A rule of 0 days is refused by Amazon, and would be wrong."""
    s3, inputs = on_moto
    inputs |= {"noncurrentDays": noncurrent, "abortDays": abort}
    _, outputs = BUCKET.create(inputs, direct.context)
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=direct.name)["Rules"]
    assert ("NoncurrentVersionExpiration" in rule) == bool(noncurrent)
    assert ("AbortIncompleteMultipartUpload" in rule) == bool(abort)
    assert refreshed(direct, inputs, outputs) == set()


# ---- an adopted bucket with settings of its own

URL_CACHE = {
    "ID": "url cache",
    "Status": "Enabled",
    "Filter": {"Prefix": "url_cache/"},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
}
COLDER = {
    "ID": "colder",
    "Status": "Enabled",
    "Filter": {"Prefix": "remote_content/"},
    "Transitions": [{"Days": 60, "StorageClass": "GLACIER_IR"}],
}
MARKERS = {
    "ID": "markers",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "Expiration": {"ExpiredObjectDeleteMarker": True},
}
KMS = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:eu-central-1:123456789012:key/ours"}


def put_rules(s3: Any, bucket: str, *rules: dict[str, Any]) -> None:
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


def rules_in(s3: Any, bucket: str) -> dict[str, dict[str, Any]]:
    return {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}


def encrypt(s3: Any, bucket: str) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": KMS}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def encryption_in(s3: Any, bucket: str) -> Any:
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    return rule["ApplyServerSideEncryptionByDefault"]


OURS = {**URL_CACHE, "ID": "by hand", "Filter": {"Prefix": ""}}


@pytest.mark.parametrize(
    ("rules", "kms", "said"),
    [
        ((URL_CACHE, COLDER, MARKERS), True, ["noncurrentDays is 0", "abortDays is 0", "url_cache/", "GLACIER_IR"]),
        ((URL_CACHE, COLDER, MARKERS), False, ["ExpiredObjectDeleteMarker"]),
        ((OURS, COLDER), False, ["GLACIER_IR"]),
        ((OURS, {**OURS, "ID": "off", "Status": "Disabled"}), False, ['"Status": "Disabled"']),
        ((OURS,), True, ["aws:kms", "key/ours"]),
    ],
)
def test_moto_an_adopted_bucket_that_differs_in_any_part_is_not_owned(
    on_moto: tuple[Any, Values], direct: Direct, rules: tuple[dict[str, Any], ...], kms: bool, said: list[str]
) -> None:
    s3, inputs = on_moto
    BUCKET.create(inputs, direct.context)
    put_rules(s3, direct.name, *rules)
    if kms:
        encrypt(s3, direct.name)
    before = rules_in(s3, direct.name), encryption_in(s3, direct.name)
    _, outputs = BUCKET.create({**inputs, "adopt": True}, direct.context)
    for part in said:
        assert part in "\n".join(outputs["differences"])
    with pytest.raises(StoreError, match=r"still differs from a new bucket.*Nothing was changed") as refused:
        BUCKET.update(direct.name, outputs, {**inputs, "own": True}, direct.context)
    assert all(part in str(refused.value) for part in said)
    assert (rules_in(s3, direct.name), encryption_in(s3, direct.name)) == before


def test_moto_nothing_is_written_to_a_bucket_that_is_owned(
    moto_url: str, on_moto: tuple[Any, Values], direct: Direct
) -> None:
    s3, inputs = on_moto
    BUCKET.create(inputs, direct.context)
    put_rules(s3, direct.name, OURS)
    _, outputs = BUCKET.create({**inputs, "adopt": True}, direct.context)
    assert outputs["differences"] == []
    with proxy.in_front_of(moto_url) as double:
        inputs["connection"] = direct.connection(endpoint=double.url, region="eu-central-1")
        owned = BUCKET.update(direct.name, outputs, {**inputs, "own": True}, direct.context)
        assert [one.target for one in double.exchanges if one.method not in ("GET", "HEAD")] == []
    assert (owned["adopted"], owned["lacks"]) == (False, [])
    assert rules_in(s3, direct.name) == {"by hand": OURS}


# ---- what others add to a bucket of ours


def test_moto_rules_of_others_are_kept_beside_ours(on_moto: tuple[Any, Values], direct: Direct) -> None:
    s3, inputs = on_moto
    _, outputs = BUCKET.create(inputs, direct.context)
    ours = rules_in(s3, direct.name)["synapse-media"]
    longer = {**OURS, "ID": "longer", "NoncurrentVersionExpiration": {"NoncurrentDays": 90}}
    put_rules(s3, direct.name, ours, COLDER, MARKERS, longer)
    encrypt(s3, direct.name)
    assert refreshed(direct, inputs, outputs) == set()
    assert set(rules_in(s3, direct.name)) == {"synapse-media", "colder", "markers", "longer"}
    # Ours is written anew: with another time, and where it was deleted by hand.
    changed = {**inputs, "noncurrentDays": 60}
    outputs = BUCKET.update(direct.name, outputs, changed, direct.context)
    assert rules_in(s3, direct.name)["colder"]["Transitions"] == COLDER["Transitions"]
    put_rules(s3, direct.name, COLDER, MARKERS)
    assert refreshed(direct, changed, outputs) == {"noncurrentDays", "abortDays"}
    assert set(rules_in(s3, direct.name)) == {"synapse-media", "colder", "markers"}
    assert encryption_in(s3, direct.name) == KMS


def test_moto_a_rule_loses_only_the_action_that_was_found_as_drift(on_moto: tuple[Any, Values], direct: Direct) -> None:
    s3, inputs = on_moto
    _, outputs = BUCKET.create(inputs, direct.context)
    ours = rules_in(s3, direct.name)["synapse-media"]
    put_rules(s3, direct.name, ours, {**COLDER, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}})
    assert refreshed(direct, inputs, outputs) == {"noncurrentDays"}
    assert "NoncurrentVersionExpiration" not in rules_in(s3, direct.name)["colder"]
    assert rules_in(s3, direct.name)["colder"]["Transitions"] == COLDER["Transitions"]


@pytest.mark.parametrize("narrowed", [{"Filter": {"Prefix": "url_cache/"}}, {"Status": "Disabled"}])
def test_moto_our_rule_made_narrower_is_drift(
    on_moto: tuple[Any, Values], direct: Direct, narrowed: dict[str, Any]
) -> None:
    s3, inputs = on_moto
    _, outputs = BUCKET.create(inputs, direct.context)
    put_rules(s3, direct.name, {**rules_in(s3, direct.name)["synapse-media"], **narrowed})
    assert refreshed(direct, inputs, outputs) == {"noncurrentDays", "abortDays"}


def test_moto_an_empty_bucket_with_a_rule_is_not_new(on_moto: tuple[Any, Values], direct: Direct) -> None:
    s3, inputs = on_moto
    s3.create_bucket(Bucket=direct.name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    put_rules(s3, direct.name, COLDER)
    with pytest.raises(StoreError, match="exists already"):
        BUCKET.create(inputs, direct.context)
