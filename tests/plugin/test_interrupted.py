"""What an interrupted run leaves in state is read without complaint."""

from __future__ import annotations

from synapse_media.plugin.s3_bucket import Bucket
from tests.plugin.direct import OWNER, Direct


def test_a_half_made_bucket_is_read_although_it_is_not_noted_what_the_store_lacks(direct: Direct) -> None:
    bucket = Bucket()
    wanted, _ = bucket.check(
        {"bucket": direct.name, "connection": direct.connection(), "owner": OWNER, "encryption": True, "abortDays": 7}
    )
    name, outputs = bucket.create(wanted, direct.context)
    assert "default encryption" in outputs["lacks"]
    found = bucket.read(name, wanted, {**outputs, "lacks": []}, direct.context)
    assert found is not None
    assert found.inputs == wanted
