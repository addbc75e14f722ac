"""The look into a bucket before anything is deleted or made, on the real embedded store."""

from __future__ import annotations

from typing import Any

import pytest

from synapse_media.errors import StoreError
from synapse_media.plugin import look
from synapse_media.plugin.resource import Values
from synapse_media.plugin.s3_bucket import Bucket
from synapse_media.schema.resources import B2_BUCKET, BUCKET, GARAGE_BUCKET, STORJ_BUCKET
from tests.doubles import proxy
from tests.plugin.direct import OWNER, Direct

VENDORS = "aws:s3/bucket:Bucket"


def values(direct: Direct, **more: Any) -> Values:
    return {"bucket": direct.name, "connection": direct.connection(), **more}


@pytest.mark.parametrize("kind", [BUCKET.token, VENDORS])
def test_media_is_seen_old_versions_included(direct: Direct, kind: str) -> None:
    assert look.is_gone(values(direct))
    assert not look.look(kind, values(direct))
    inputs: Values = {**values(direct, owner=OWNER), "versioning": True}
    _, outputs = direct.make(Bucket(), inputs)
    seen = outputs if kind == BUCKET.token else values(direct)
    assert not look.is_gone(values(direct))
    assert not look.look(kind, seen)
    direct.put()
    direct.s3.delete_object(Bucket=direct.name, Key="local_content/a")
    assert look.look(kind, seen)


def test_the_bucket_of_each_family_is_looked_at_by_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {BUCKET.token, B2_BUCKET.token, GARAGE_BUCKET.token, STORJ_BUCKET.token}
    monkeypatch.delenv("GARAGE_ADMIN_TOKEN", raising=False)
    connection = {"adminEndpoint": "http://127.0.0.1:9", "variables": ["GARAGE_ADMIN_TOKEN"]}
    with pytest.raises(StoreError, match="a token of Garage's admin API"):
        look.look(GARAGE_BUCKET.token, {"bucket": "media", "connection": connection})
    assert set(look._buckets()) == kinds


def test_what_is_there_and_not_this_store_s_is_refused(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = values(direct, owner=OWNER)
    look.refuse_taken(ours)
    direct.make(Bucket(), ours)
    direct.put()
    look.refuse_taken(ours)
    with pytest.raises(StoreError, match=r"marked as that of another stack"):
        look.refuse_taken({**ours, "owner": "synapse-media/other/matrix.example.com"})
    direct.s3.delete_bucket_tagging(Bucket=direct.name)
    with pytest.raises(StoreError, match=r"exists already and is not empty"):
        look.refuse_taken(ours)
    # One answer that it is not there is not believed: the vendor's plugin would adopt it.
    with proxy.in_front_of(direct.endpoint) as double:
        double.misbehave(
            lambda request, _: proxy.error(request, 404, "NoSuchBucket", "there is no such bucket"),
            when=lambda request: "list-type" in request.query,
            times=1,
        )
        with pytest.raises(StoreError, match=r"exists already and is not empty"):
            look.refuse_taken({**ours, "connection": direct.connection(endpoint=double.url)})
    # Without a key for S3 there is no look: the vendor's plugin says what it lacks.
    monkeypatch.delenv("S3_ACCESS_KEY_ID")
    look.refuse_taken(ours)
