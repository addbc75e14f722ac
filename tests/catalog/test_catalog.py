"""Every entry of the catalog: of the right shape, believable, and without contradiction."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import botocore.loaders
import jsonschema
import pytest

from synapse_media import catalog, settings
from synapse_media.allow import Word
from synapse_media.methods import Operation

NAMES = catalog.names()
BASES = tuple(family.name for family in catalog.families())
PRESETS = (
    "akamai",
    "ceph_rgw",
    "cloudflare_r2",
    "dreamobjects",
    "google_cloud_storage",
    "hetzner",
    "idrive_e2",
    "minio",
    "ovhcloud",
    "scaleway",
    "seaweedfs",
    "storagegrid",
    "tigris",
)


def raw(name: str) -> dict[str, Any]:
    path = resources.files("synapse_media.catalog") / "data" / f"{name}.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def beliefs(value: Any) -> list[dict[str, Any]]:
    """Every {source, date, certainty} there is, however deep."""
    found = []
    if isinstance(value, dict):
        if "certainty" in value:
            found.append(value)
        found += [item for inner in value.values() for item in beliefs(inner)]
    elif isinstance(value, list):
        found += [item for inner in value for item in beliefs(inner)]
    return found


def test_the_providers_of_the_guide_and_the_presets_are_there() -> None:
    assert sorted((*BASES, *PRESETS)) == list(NAMES)
    assert {name: catalog.load(name).component for name in PRESETS} == dict.fromkeys(PRESETS, "s3_compatible")


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(catalog.schema())


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_fits_the_schema(name: str) -> None:
    checker = jsonschema.Draft202012Validator(catalog.schema(), format_checker=jsonschema.FormatChecker())
    assert [f"{list(error.path)}: {error.message}" for error in checker.iter_errors(raw(name))] == []
    assert raw(name)["name"] == name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("facts", "layout", "value"), "somewhere"),
        (("facts", "layout", "certainty"), "sure"),
        (("facts", "layout", "date"), "2026-13-01"),
        (("facts", "layout", "date"), "2026-02-30"),
        (("facts", "layout", "source"), ""),
        (("facts", "cannot_refuse", "value"), ["everything"]),
        (("facts", "capabilities", "value", "versioning"), "yes"),
        (("facts", "capabilities", "value", "telepathy"), True),
        (("facts", "prices", "value", 0, "currency"), "XAU"),
        (("facts", "prices", "value", 0, "terms", "storage", "value", "per"), "GiB-month"),
        (("facts", "prices", "value", 0, "terms", "storage", "value", "tiers"), [{"price": 6.95}]),
        (("facts", "prices", "value", 0, "terms", "storage", "source"), None),
        (("facts", "settings", "value", "colour"), {"type": "string"}),
        (("facts", "surprise"), {"value": 1, "source": "x", "date": "2026-11-23", "certainty": "primary"}),
        (("extra",), 1),
    ],
)
def test_the_schema_refuses(path: tuple[str | int, ...], value: Any) -> None:
    entry = raw("backblaze_b2")
    place: Any = entry
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    checker = jsonschema.Draft202012Validator(catalog.schema(), format_checker=jsonschema.FormatChecker())
    assert not checker.is_valid(entry)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_says_why_to_believe_it(name: str) -> None:
    found = beliefs(raw(name))
    assert found
    for item in found:
        assert "://" in item["source"] or len(item["source"].split()) >= 2, item
        assert date(2020, 1, 1) <= date.fromisoformat(item["date"]), item


def test_no_source_names_a_machine_of_ours() -> None:
    for name in NAMES:
        for item in beliefs(raw(name)):
            assert not re.search(r"(^|[ (])/(work|tmp|home|root)/|localhost|10\.[0-9]+\.", item["source"]), item


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_has_what_the_rooms_ask_for(name: str) -> None:
    provider = catalog.load(name)
    needed = """addressing admin_permissions admin_variables bucket_name cannot_do cannot_refuse capabilities checksums
        egress_terms encryption_at_rest held_by key_settle_seconds layout limits ownership price_transparency quirks
        scoped_key settings storage_classes"""
    assert set(needed.split()) <= set(provider.facts)
    assert provider.admin_variables
    assert any(item["name"] == "STANDARD" and item["instant"] for item in provider.value("storage_classes"))
    limits = provider.value("bucket_name")
    assert limits["min"] <= limits["max"]


@pytest.mark.parametrize("name", NAMES)
def test_endpoints_are_whole_or_left_to_the_operator(name: str) -> None:
    provider = catalog.load(name)
    for region in provider.regions or ("us-east-1",):
        for url in (provider.endpoint(region), provider.iam_endpoint(region)):
            assert url == "" or re.fullmatch(r"https://[a-z0-9.-]+", url)
    assert ".." not in provider.endpoint("")
    if "{region}" in provider.value("endpoint", ""):
        assert provider.endpoint("") == ""


def test_operations_are_those_of_the_methods() -> None:
    values = catalog.schema()["properties"]["facts"]["properties"]["cannot_refuse"]["properties"]["value"]
    assert values["items"]["enum"] == [str(operation) for operation in Operation]


def test_a_key_that_can_be_refused_everything_needs_a_store_that_can_tell() -> None:
    """Where write includes delete, the catalog must say so: the proof would fail for what can't be helped."""
    for name in ("backblaze_b2", "digitalocean_spaces", "garage", "storj", "cloudflare_r2"):
        assert "delete" in catalog.load(name).value("cannot_refuse"), name
    for name in ("amazon_s3", "wasabi"):
        assert catalog.load(name).value("cannot_refuse") == [], name


@pytest.mark.parametrize("name", NAMES)
def test_capabilities_agree_with_each_other(name: str) -> None:
    provider = catalog.load(name)
    if provider.can("tls_only_policy"):
        assert provider.can("bucket_policy")
    if provider.can("lifecycle_abort"):
        assert provider.can("lifecycle")
    if provider.value("ownership")["bucket"] == "tag" and name != "s3_compatible" and provider.component == name:
        assert provider.can("bucket_tags")
    if provider.can("iam"):
        assert provider.iam_endpoint("us-east-1")
    if provider.value("scoped_key")["by_api"]:
        assert provider.can("scoped_key")


@pytest.mark.parametrize("name", NAMES)
def test_prices_agree_with_classes_and_regions(name: str) -> None:
    provider = catalog.load(name)
    classes = {item["name"]: item for item in provider.value("storage_classes")}
    seen = set()
    for offer in provider.value("prices", ()):
        key = (offer["class"], offer["region"], offer["variant"])
        assert key not in seen
        seen.add(key)
        known = classes[offer["class"]]
        assert known["instant"], "Synapse must be able to read it at once"
        assert offer["region"] == "" or offer["region"] in provider.regions


def test_presets_have_the_rest_of_their_component() -> None:
    base, preset = catalog.load("s3_compatible"), catalog.load("hetzner")
    assert preset.admin_variables == base.admin_variables
    assert preset.value("settings") == base.value("settings")
    assert preset.value("held_by") != base.value("held_by")
    assert preset.endpoint("fsn1") == "https://fsn1.your-objectstorage.com"


def _partitions() -> dict[str, dict[str, Any]]:
    """Amazon's partitions by their IDs, as the locked botocore has them."""
    loaded = botocore.loaders.Loader().load_data("partitions")
    return {item["id"]: item for item in loaded["partitions"]}


def test_amazons_regions_are_those_the_locked_boto_knows() -> None:
    """By partitions.json: endpoints.json is behind it, and lacks me-west-1 and sa-west-1."""
    known = set(_partitions()["aws"]["regions"]) - {"aws-global"}
    assert set(catalog.load("amazon_s3").regions) == known


def test_other_partitions_of_amazon_are_said_to_be_unsupported() -> None:
    """Their endpoints have other domains, which {region} alone can't say."""
    provider = catalog.load("amazon_s3")
    [said] = [item for item in provider.value("cannot_do") if "partition" in item]
    for name, word in {"aws-us-gov": "GovCloud", "aws-cn": "China", "aws-eusc": "European Sovereign Cloud"}.items():
        assert word in said
        for region in _partitions()[name]["regions"]:
            assert region not in provider.regions


CORRECTED = {
    # {provider: what it can and can't do by the vendor's own text; each was null or wrong in release 0.1.0}
    "ceph_rgw": {"tls_only_policy": True},
    "hetzner": {"bucket_tags": False, "ownership_controls": False, "encryption": False},
    "minio": {"lifecycle": True, "lifecycle_abort": False},
    "ovhcloud": {
        "bucket_tags": True,
        "encryption": True,
        "public_access_block": False,
        "ownership_controls": False,
        "bucket_policy": False,
        "lifecycle": True,
        "lifecycle_abort": True,
    },
    # Accepted without a key-encryption key, after which every write fails: never to be set.
    "seaweedfs": {"encryption": False},
    "storj": {"bucket_tags": True, "versioning": True},
    "wasabi": {"lifecycle_abort": True, "key_last_used": True},
}


@pytest.mark.parametrize("name", CORRECTED)
def test_what_a_provider_can_do_is_as_its_own_pages_say(name: str) -> None:
    provider = catalog.load(name)
    assert {capability: provider.can(capability) for capability in CORRECTED[name]} == CORRECTED[name]


def test_minio_is_not_recommended_and_says_what_is() -> None:
    """Community binaries ended in 2025-10, its repository was archived in 2026-02."""
    provider = catalog.load("minio")
    said = " ".join(f"{quirk['what']} {quirk['so']}" for quirk in provider.value("quirks"))
    for word in ("no longer maintained", "not recommended", "Garage", "versitygw", "SeaweedFS", "Ceph"):
        assert word in said
    assert any("no longer maintained" in item for item in provider.value("cannot_do"))


@pytest.mark.parametrize(
    ("name", "bucket", "fits"),
    [
        ("ovhcloud", "example--media", False),
        ("ovhcloud", "example-com-media", True),
        ("scaleway", "example--media", True),
        ("dreamobjects", "media", False),
        ("dreamobjects", "b2-media", False),
    ],
)
def test_names_that_only_some_providers_refuse(name: str, bucket: str, *, fits: bool) -> None:
    assert (catalog.bucket_name_fault(bucket, catalog.load(name)) is None) == fits


def test_scaleway_has_milan() -> None:
    assert catalog.load("scaleway").endpoint("it-mil") == "https://s3.it-mil.scw.cloud"
    assert "it-mil" in catalog.load("scaleway").regions


def test_scaleways_prices_are_not_taken_for_the_vendors_word_any_more() -> None:
    """Its faq.mdx of 2026-11-04 states none, and refers to the pricing page."""
    for offer in catalog.load("scaleway").value("prices"):
        assert not [name for name, term in offer["terms"].items() if term["certainty"] == "primary"]


def test_a_price_in_conflict_is_uncertain() -> None:
    """IDrive's own pages say 5 and 6 USD for a TB."""
    [offer] = catalog.load("idrive_e2").value("prices")
    storage = offer["terms"]["storage"]
    assert storage["certainty"] == "uncertain"
    assert "in conflict: 6 USD" in storage["note"]
    assert "5 USD" in storage["note"]


def test_storjs_tier_is_its_location() -> None:
    """docs of 2026-07-15: LocationConstraint chooses where a bucket is stored, and so what it costs."""
    [quirk] = [item for item in catalog.load("storj").value("quirks") if "LocationConstraint" in item["what"]]
    for name in ("global-1", "regional-1", "archive-1", "us-select-1"):
        assert name in quirk["what"]
    assert "Advanced" in quirk["what"]


def test_checksum_quirks_are_as_old_as_they_are() -> None:
    spaces, b2 = (catalog.load(name) for name in ("digitalocean_spaces", "backblaze_b2"))
    assert any("until 2025-01-30" in quirk["what"] for quirk in spaces.value("quirks"))
    assert any("unsettled" in quirk["what"] for quirk in b2.value("quirks"))
    assert any("CRC64NVME" in quirk["what"] for quirk in catalog.load("wasabi").value("quirks"))


def test_admin_permissions_of_amazon_are_actions_without_wildcards() -> None:
    value = catalog.load("amazon_s3").value("admin_permissions")
    actions = [
        *value["actions"],
        *value["on_all"],
        *(action for more in value["only_with"].values() for action in more),
    ]
    assert all(re.fullmatch(r"(s3|iam|kms):[A-Z][A-Za-z]+", action) for action in actions)
    assert set(value["only_with"]) <= {*catalog.load("amazon_s3").value("settings"), *Word}
    # What the component and the key ring can't do without.
    for needed in ("s3:CreateBucket", "s3:PutBucketPolicy", "iam:PutUserPolicy", "iam:GetAccessKeyLastUsed"):
        assert needed in actions


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_its_own_are_read(name: str) -> None:
    """Each setting passes with a right value, and is refused with one of another type."""
    provider = catalog.load(name)
    of_type = {
        "boolean": True,
        "integer": 400,
        "string": "text",
        "url": "https://api.example.com",
        "object": {"team": "matrix"},
        "list": ["one"],
    }
    examples = (
        "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "example-com-logs",
    )
    own = provider.value("settings")
    store = {"provider": name, "bucket": "example-com-media", "region": next(iter(provider.regions), "us-east-1")}
    if not provider.endpoint(store["region"]):
        store["endpoint"] = "https://s3.example.com"
    right = {
        key: next(example for example in examples if re.fullmatch(rule["pattern"], example))
        if rule["type"] == "string" and "pattern" in rule
        else of_type[rule["type"]]
        for key, rule in own.items()
    }
    parsed = settings.parse({"matrix.example.com": store | right})
    assert parsed["matrix.example.com"].options == right
    for key in own:
        with pytest.raises(settings.SettingsError, match=key):
            settings.parse({"matrix.example.com": store | {key: 3.5}})


def test_an_unknown_provider_is_answered_with_the_nearest() -> None:
    with pytest.raises(catalog.UnknownProviderError, match="Did you mean 'backblaze_b2'"):
        catalog.load("backblaze")


def test_an_entry_is_loaded_in_a_moment() -> None:
    def load() -> float:
        catalog.load.cache_clear()
        start = time.perf_counter()
        catalog.load("amazon_s3")
        return time.perf_counter() - start

    # The best of many: the machine may be busy, the file is what is measured.
    assert min(load() for _ in range(20)) < 0.002


def test_only_what_is_asked_for_is_read() -> None:
    script = (
        "import sys\n"
        "from synapse_media import catalog\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "catalog.load('minio'); catalog.load('minio')\n"
        "print(sorted(name.rsplit('/')[-1] for name in opened if name.endswith('.json')))\n"
        "print('jsonschema' in sys.modules, 'boto3' in sys.modules, 'yaml' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['minio.json', 's3_compatible.json']\nFalse False False\n"


def test_every_fact_is_read_by_something() -> None:
    """A fact that no code reads and no user sees would not be kept up to date."""
    root = Path(__file__).parents[2]
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for room in ("synapse_media", "components", "ci")
        for path in (root / room).rglob("*.py")
    )
    facts = catalog.schema()["properties"]["facts"]["properties"]
    assert {name for name in facts if f'"{name}"' not in code and f"'{name}'" not in code} == set()
