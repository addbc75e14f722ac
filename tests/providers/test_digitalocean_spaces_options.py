"""What each option of DigitalOcean Spaces declares."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from synapse_media import stackfile
from synapse_media.errors import SettingsError
from tests.providers.mocked import Declared, declare

SERVER = "matrix.example.com"
ADMIN = {"SPACES_ACCESS_KEY_ID": "DO00ADMIN", "SPACES_SECRET_ACCESS_KEY": "admin-secret"}
TOKEN = {"DIGITALOCEAN_TOKEN": "dop_v1_admin"}


def _settings(**more: Any) -> dict[str, Any]:
    return {
        "provider": "digitalocean_spaces",
        "region": "fra1",
        "bucket": "example-com-media",
        "method": "synapse-s3-storage-provider",
        **more,
    }


def _declare(**more: Any) -> Declared:
    return declare({SERVER: _settings(**more)})


@pytest.fixture(autouse=True)
def given(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {**ADMIN, **TOKEN}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def _vendors(declared: Declared) -> list[dict[str, Any]]:
    return [inputs for kind, _, inputs in declared.resources if kind == "pulumi:providers:digitalocean"]


def test_a_private_bucket_and_a_key_for_it_alone() -> None:
    made = _declare(noncurrent_days=14, abort_days=3)
    bucket = made.one("SpacesBucket")
    assert (bucket["acl"], bucket["versioning"], bucket["forceDestroy"]) == ("private", {"enabled": True}, False)
    (rule,) = bucket["lifecycleRules"]
    assert rule["noncurrentVersionExpiration"] == {"days": 14}
    assert rule["abortIncompleteMultipartUploadDays"] == 3
    # No rule deletes media by age, and no policy keeps a limited key from being made.
    assert "expiration" not in rule
    assert {kind.rpartition(":")[2] for kind in made.kinds} == {"SpacesBucket", "SpacesKeyRing", "Proof"}
    assert made.one("SpacesKeyRing")["grants"] == [{"bucket": "example-com-media", "permission": "readwrite"}]
    assert made.one("Proof")["decoy"] is False
    assert made.one("Proof")["expected"]["delete"] == "can't be refused here"


def test_no_credential_is_ever_an_input() -> None:
    declared = json.dumps([inputs for _, _, inputs in _declare().resources])
    for secret in (*ADMIN.values(), *TOKEN.values()):
        assert secret not in declared


def test_stores_share_the_vendors_plugin_and_one_admin_key(given: pytest.MonkeyPatch) -> None:
    for name in ADMIN:
        given.delenv(name)
    made = declare({"a.example.com": _settings(bucket="a-media"), "b.example.com": _settings(bucket="b-media")})
    assert len(_vendors(made)) == len(made.of("SpacesAdminKey")) == 1


def test_without_any_credential_no_key_is_taken_for_missing(given: pytest.MonkeyPatch) -> None:
    for name in (*ADMIN, *TOKEN):
        given.delenv(name)
    assert _declare().of("SpacesAdminKey") == []


@pytest.mark.parametrize("name", ADMIN)
def test_half_a_spaces_key(given: pytest.MonkeyPatch, name: str) -> None:
    given.delenv(name)
    with pytest.raises(pulumi.RunError, match=f"{name} is missing"):
        _declare()


def test_a_bucket_that_is_there_already_is_ours_to_report_on() -> None:
    made = _declare(adopt=True)
    assert {kind.rpartition(":")[2] for kind in made.kinds} == {"Bucket", "SpacesKeyRing", "Proof"}
    assert made.one("Bucket")["connection"]["variables"] == list(ADMIN)
    assert made.one("SpacesKeyRing")["adopt"] is True
    assert _vendors(made) == []


def test_endpoints_of_ones_own() -> None:
    made = _declare(endpoint="https://spaces.example.com", api_endpoint="https://api.example.com")
    (vendor,) = _vendors(made)
    assert vendor == {"apiEndpoint": "https://api.example.com", "spacesEndpoint": "https://spaces.example.com"}
    assert made.one("SpacesKeyRing")["connection"]["apiEndpoint"] == "https://api.example.com"


@pytest.mark.parametrize("url", ["http://api.example.com", "https://api.example.com/v2", "api.example.com"])
def test_the_token_goes_nowhere_in_clear(url: str) -> None:
    with pytest.raises(SettingsError, match="api_endpoint"):
        _declare(api_endpoint=url)


def test_the_token_is_required_and_the_key_is_not(tmp_path: Any) -> None:
    (tmp_path / "stacks").mkdir()
    stack = {"config": {"synapse-media:stores": {SERVER: _settings()}}}
    (tmp_path / "Pulumi.yaml").write_text("{name: synapse-media, stackConfigDir: stacks}\n")
    (tmp_path / "stacks/Pulumi.s.yaml").write_text(json.dumps(stack))
    read = stackfile.read(tmp_path, "s")
    assert read.required_variables == tuple(TOKEN)
    assert set(read.admin_variables) == {*TOKEN, *ADMIN}
