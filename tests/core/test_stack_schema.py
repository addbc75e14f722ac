"""The JSON Schema of a stack file: it follows from settings and catalog, and refuses nothing that they accept."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of_the_run
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from synapse_media import catalog, settings
from synapse_media.allow import Word
from synapse_media.errors import SettingsError
from synapse_media.methods import METHODS

ROOT = Path(__file__).parents[2]
NAME = "matrix.example.com"
FILE = ROOT / "synapse_media/stack-file.schema.json"
SCHEMA: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)

GOOD: dict[str, Any] = {
    "provider": "s3_compatible",
    "endpoint": "https://s3.example.com",
    "iam_endpoint": "https://iam.example.com",
    "bucket": "example-com-media",
}
AMAZON: dict[str, Any] = {"provider": "amazon_s3", "region": "eu-central-1", "bucket": "example-com-media"}


def faults(stores: object, allow: object = None) -> list[str]:
    whole = {"config": {"synapse-media:stores": stores, **({} if allow is None else {"synapse-media:allow": allow})}}
    return [error.message for error in VALIDATOR.iter_errors(whole)]


def test_the_committed_schema_is_the_one_that_follows() -> None:
    script = SimpleNamespace(**runpy.run_path(str(ROOT / "docs/stack_schema.py")))
    assert FILE.read_text(encoding="utf-8") == script.schema(), "run `make docs`, and look at the difference"
    Draft7Validator.check_schema(SCHEMA)


def test_every_setting_is_described_for_whoever_writes_it() -> None:
    described = {
        *SCHEMA["definitions"]["store"]["properties"],
        *(name for name, item in SCHEMA["definitions"]["store"]["else"]["properties"].items() if item["description"]),
    }
    assert described == settings._COMMON
    for name in catalog.names():
        for setting, item in SCHEMA["definitions"][name]["properties"].items():
            assert setting in described or item["description"], (name, setting)


def test_every_stack_file_that_is_tracked_passes_and_names_the_schema() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*Pulumi.*.yaml"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(listed) > len(list((ROOT / "stacks").glob("Pulumi.s*.yaml")))
    for path in map(ROOT.joinpath, listed):
        text = path.read_text(encoding="utf-8")
        assert list(VALIDATOR.iter_errors(yaml.safe_load(text))) == [], path
        if path.parent == ROOT / "stacks":
            named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", text.splitlines()[0])
            assert named is not None, path
            assert (path.parent / named[1]).resolve() == FILE


@pytest.mark.parametrize(
    "store",
    [
        GOOD,
        {"method": "filesystem"},
        # What the store had may stay there, for the way back.
        {**GOOD, "method": "filesystem", "bucket": "Not/A/Bucket"},
        {**GOOD, "prefix": "médias/", "user": "media", "access": "full", "region": "eu-1", "noncurrent_days": 90},
        {**GOOD, "keys": {"active": "b", "retiring": ["a"]}, "adopt": True, "adopt_key": "AKIAEXAMPLE"},
        {**GOOD, "method": "matrix-media-repo", "media_repo": {"s3_datastore_id": "s", "file_datastore_id": "f"}},
        {**GOOD, "bucket": "media.example.com", "adopt": True},
        {**GOOD, "prefix": "media", "adopt": True},
        {"provider": "s3_compatible", "endpoint": "http://10.0.0.1:9000", "existing_key": True, "bucket": "media-x"},
        {**AMAZON, "tags": {"service": "matrix"}, "keyless": True, "storage_class": "STANDARD_IA"},
        {"provider": "backblaze_b2", "bucket": "example-media", "region": "eu-central-003"},
    ],
)
def test_what_the_settings_accept_passes(store: dict[str, Any]) -> None:
    settings.parse({NAME: store})
    assert faults({NAME: store}) == []


@pytest.mark.parametrize(
    "store",
    [
        {},
        "prod",
        {**GOOD, "bukcet": "x"},
        {**GOOD, "provider": "amazon-s3"},
        {**GOOD, "bucket": "Example"},
        {**GOOD, "bucket": "b2-media"},
        {**GOOD, "bucket": "media--x-s3"},
        {**GOOD, "bucket": "media.example.com"},
        {key: value for key, value in GOOD.items() if key != "bucket"},
        {key: value for key, value in GOOD.items() if key != "endpoint"},
        {key: value for key, value in GOOD.items() if key != "iam_endpoint"},
        {**GOOD, "endpoint": "s3.example.com"},
        {**GOOD, "endpoint": "https://admin:hunter2@s3.example.com"},
        {**GOOD, "method": "goofy"},
        {**GOOD, "method": "goofys", "prefix": "media/"},
        {**GOOD, "method": "matrix-media-repo"},
        {**GOOD, "media_repo": {"s3_datastore_id": "s"}},
        {**GOOD, "access": "more"},
        {**GOOD, "prefix": "/media/"},
        {**GOOD, "prefix": "media"},
        {**GOOD, "noncurrent_days": 0},
        {**GOOD, "noncurrent_days": "30"},
        {**GOOD, "adopt": "yes"},
        {**GOOD, "adopt_key": "AKIAEXAMPLE"},
        {**GOOD, "keys": {"active": "c"}},
        {**GOOD, "user": "a b"},
        {**GOOD, "storage_class": "GLACIER"},
        {**GOOD, "kms_key": "arn:aws:kms:eu-central-1:123456789012:key/x"},
        {**AMAZON, "region": "eu-centrall-1"},
        {key: value for key, value in AMAZON.items() if key != "region"},
        {**AMAZON, "kms_key": "alias/media"},
        {**AMAZON, "tags": {"a": "b"}, "adopt": True},
        {**AMAZON, "keyless": True, "method": "matrix-media-repo", "media_repo": {"s3_datastore_id": "s"}},
        {"provider": "backblaze_b2", "bucket": "media"},
        {"provider": "garage", "bucket": "media-x", "endpoint": "https://s3.example.com"},
    ],
)
def test_what_the_settings_refuse_is_marked(store: Any) -> None:
    with pytest.raises(SettingsError):
        settings.parse({NAME: store})
    assert faults({NAME: store})


@pytest.mark.parametrize("allow", [["delete-bucket"], [f"{NAME}/delete-bucke"], f"{NAME}/delete-bucket", [7]])
def test_allow(allow: object) -> None:
    assert faults({NAME: GOOD}, [f"{NAME}/{word}" for word in Word]) == []
    with pytest.raises(SettingsError):
        settings.parse({NAME: GOOD}, allow)
    # Text may be JSON, which a schema can't look into.
    assert bool(faults({NAME: GOOD}, allow)) is not isinstance(allow, str)


def _values() -> dict[str, st.SearchStrategy[Any]]:
    urls = st.sampled_from(["https://s3.example.com", "http://127.0.0.1:7070/", "HTTPS://X.example", "ftp://x", ""])
    regions = sorted({region for name in catalog.names() for region in catalog.load(name).regions})[::7]
    classes = sorted({item["name"] for n in catalog.names() for item in catalog.load(n).value("storage_classes", ())})
    words = st.sampled_from(["a", "example-com-media", "x.y", "A b", "media/", "", "a/b/"])
    plain = st.one_of(words, st.booleans(), st.integers(-1, 500), st.just({}), st.just([]))
    slots = st.sampled_from(["a", "b", "c"])
    known: dict[str, st.SearchStrategy[Any]] = {
        "provider": st.sampled_from(catalog.names()),
        "method": st.sampled_from(sorted(METHODS)),
        "bucket": st.sampled_from(["example-com-media", "media", "media.example.com", "b2-media", "x" * 64]),
        "access": st.sampled_from(["least", "full", "more"]),
        "region": st.sampled_from([*regions, "eu-central-1", "somewhere", ""]),
        "endpoint": urls,
        "iam_endpoint": urls,
        "prefix": st.sampled_from(["", "media/", "media", "a/b/", "/a/", "médias/", "a b!/", "*/", "a//b/"]),
        "storage_class": st.sampled_from(classes),
        "keys": st.one_of(
            st.fixed_dictionaries(
                {}, optional={"active": slots, "retiring": st.one_of(slots, st.lists(slots, max_size=2))}
            ),
            plain,
        ),
        "media_repo": st.dictionaries(
            st.sampled_from(["s3_datastore_id", "file_datastore_id", "x"]), words, max_size=2
        ),
    }
    others = {*settings._COMMON, *(s for n in catalog.names() for s in catalog.load(n).value("settings", {}))}
    return {name: st.one_of(known.get(name, plain), plain) for name in sorted(others)}


VALUES = _values()
BASES = [
    GOOD,
    AMAZON,
    {"provider": "backblaze_b2", "bucket": "example-com-media"},
    {"provider": "storj", "bucket": "example-com-media"},
    {"provider": "wasabi", "bucket": "example-com-media", "region": "eu-central-1"},
    {"provider": "garage", "bucket": "abc", "endpoint": "https://a.b", "admin_endpoint": "https://a.b"},
]


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """A whole store of one provider, with some of its settings changed."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=4, unique=True))
    adopted = draw(st.sampled_from([{}, {"adopt": True}]))
    return {**draw(st.sampled_from(BASES)), **adopted, **{name: draw(VALUES[name]) for name in names}}


DEFAULTS = "synapse-media:defaults"
DEFAULTABLE = SCHEMA["properties"]["config"]["properties"][DEFAULTS]["properties"]


def faults_with(defaults: object, store: object) -> list[str]:
    whole = {"config": {DEFAULTS: defaults, "synapse-media:stores": {NAME: store}}}
    return [error.message for error in VALIDATOR.iter_errors(whole)]


def test_what_the_defaults_have_a_store_may_lack() -> None:
    defaults = {"provider": "wasabi", "region": "eu-central-1"}
    own = {"bucket": "example-com-media"}
    settings.parse({NAME: own}, None, defaults)
    assert faults_with(defaults, own) == []
    assert faults({NAME: own})


@pytest.mark.parametrize("name", sorted(DEFAULTABLE))
def test_null_takes_a_default_away(name: str) -> None:
    defaults = {"provider": "wasabi", "region": "eu-central-1", name: None}
    own = {"provider": "wasabi", "region": "eu-central-1", "bucket": "example-com-media", name: None}
    if name not in ("provider", "region"):
        settings.parse({NAME: own}, None, defaults)
    assert faults_with(defaults, own) == []


@pytest.mark.parametrize(
    ("defaults", "store"),
    [
        ({"bucket": "example-com-media"}, GOOD),
        ({"existing_key": True}, GOOD),
        ({"regoin": "eu-central-1"}, GOOD),
        ([], GOOD),
        ({}, {**GOOD, "bukcet": "x"}),
        ({"provider": "wasabi", "region": "eu-central-1"}, {"bucket": "example-com-media", "access": "more"}),
    ],
)
def test_what_the_settings_refuse_beside_defaults_is_marked(defaults: Any, store: Any) -> None:
    with pytest.raises(SettingsError):
        settings.parse({NAME: store}, None, defaults)
    assert faults_with(defaults, store)


@given(changed(), st.sets(st.sampled_from(sorted(VALUES)), max_size=5), st.sets(st.sampled_from(sorted(VALUES))))
@settings_of_the_run(max_examples=400)
def test_nothing_is_marked_beside_defaults_that_the_settings_accept(
    store: dict[str, Any], moved: set[str], unset: set[str]
) -> None:
    defaults = {name: value for name, value in store.items() if name in moved}
    own = {name: None if name in unset else value for name, value in store.items() if name not in moved - unset}
    try:
        settings.parse({NAME: own}, None, defaults)
    except SettingsError:
        return
    assert faults_with(defaults, own) == []


@given(changed())
@settings_of_the_run(max_examples=400)
def test_nothing_is_marked_that_the_settings_accept(store: dict[str, Any]) -> None:
    try:
        settings.parse({NAME: store})
    except SettingsError:
        # What only the commands know is not the schema's to say.
        return
    assert faults({NAME: store}) == []
