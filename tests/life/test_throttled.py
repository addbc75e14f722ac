"""A store that answers 20 calls a second and throttles the others: stores come up there without an error."""

from __future__ import annotations

from pathlib import Path

from synapse_media.engine.embedded import Running
from tests.doubles import proxy
from tests.life.life import Life
from tests.providers.project import stack

STORES = 8


def test_stores_come_up_where_calls_are_throttled(tmp_path: Path, embedded_store: Running) -> None:
    limit = proxy.at_most(20)
    environment = {
        "S3_ACCESS_KEY_ID": embedded_store.access_key_id,
        "S3_SECRET_ACCESS_KEY": embedded_store.secret_access_key,
    }
    with (
        proxy.in_front_of(embedded_store.endpoint) as s3,
        proxy.in_front_of(embedded_store.iam_endpoint) as iam,
    ):
        for double in (s3, iam):
            double.misbehave(limit)
        made = stack(tmp_path, "throttled", environment)
        made.write(
            {
                f"m{number}.example.com": {
                    "provider": "s3_compatible",
                    "endpoint": s3.url,
                    "iam_endpoint": iam.url,
                    "bucket": f"throttled-{number}",
                    "settle_seconds": 0,
                }
                for number in range(STORES)
            }
        )
        made.up()
        throttled = [one for double in (s3, iam) for one in double.exchanges if one.status in (429, 503)]
        assert {one.status for one in throttled} == {429, 503}
        assert any(one.action == "CreateAccessKey" for one in iam.exchanges)
        assert [step.verb for step in made.preview() if step.kind != "Stack"] == []
        for number in range(STORES):
            name = f"m{number}.example.com"
            proof = made.outputs(name).proof
            assert proof is not None
            assert proof.passed
            life = Life(made, embedded_store, f"throttled-{number}", f"synapse-media-throttled-{number}", None)
            assert life.keys() == [made.outputs(name).access_key_id]
