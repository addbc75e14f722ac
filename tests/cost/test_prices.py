"""Offers from the catalog, and prices of one's own over them."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from synapse_media import catalog
from synapse_media.cost import prices
from synapse_media.cost.model import Usage, month
from synapse_media.errors import UsageError

TODAY = date(2026, 11, 23)
WHOLE = {
    "storage": {"value": {"tiers": [{"price": "0.01", "up_to": "500"}, {"price": "0.008"}], "per": "GB"}},
    "egress": {"value": {"tiers": [{"price": "0"}], "per": "GB"}},
    "requests_put": {"value": {"price": "0", "per": "1000", "free": "0", "whole": False}},
    "requests_get": {"value": {"price": "0", "per": "1000", "free": "0", "whole": False}},
    "minimum_object": {"value": {"bytes": 0}},
    "minimum_days": {"value": {"days": 0}},
}


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_terms_are_those_of_the_schema() -> None:
    terms = catalog.schema()["$defs"]["offer"]["properties"]["terms"]
    assert set(prices._TERMS) == set(terms["properties"])
    assert set(prices.REQUIRED) == set(terms["required"])
    for name, fields in prices._TERMS.items():
        assert set(fields) == set(terms["properties"][name]["properties"]["value"]["properties"]), name


def test_keys_and_labels_tell_offers_apart() -> None:
    found = prices.offers()
    assert len({offer.key for offer in found}) == len({offer.label for offer in found}) == len(found)
    labels = {offer.key: offer.label for offer in found}
    assert labels["amazon_s3/STANDARD_IA@eu-central-1"] == "Amazon S3 STANDARD_IA eu-central-1"
    assert labels["storj/STANDARD/Advanced"] == "Storj Advanced"
    assert labels["backblaze_b2/STANDARD"] == "Backblaze B2"


def test_chosen_by_provider_and_class() -> None:
    assert {offer.provider for offer in prices.offers(["wasabi", "storj"])} == {"wasabi", "storj"}
    assert {offer.storage_class for offer in prices.offers(classes=["STANDARD_IA"])} == {"STANDARD_IA"}


@pytest.mark.parametrize(
    ("providers", "classes", "word"),
    [
        (["backblaze"], [], "Did you mean 'backblaze_b2'"),
        (["garage"], [], "no price for Garage"),
        ([], ["STANDARD-IA"], "Did you mean 'STANDARD_IA'"),
        (["wasabi"], ["STANDARD_IA"], "--class 'STANDARD_IA': allowed is one of STANDARD"),
        ([], ["GLACIER_IR"], r"no price for it \(Amazon S3\). Give your own with --prices FILE"),
        (["ovhcloud"], ["STANDARD_IA"], r"no price for it \(OVHcloud Object Storage\)"),
        ([], ["GLACIER"], "its objects must be restored before they can be read .* so Synapse can't use it"),
    ],
)
def test_unknown_ones_are_refused(providers: list[str], classes: list[str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        prices.offers(providers, classes)


def test_classes_without_a_price_are_known() -> None:
    assert prices.unpriced(prices.offers()) == [
        "Amazon S3 GLACIER_IR, INTELLIGENT_TIERING, ONEZONE_IA, REDUCED_REDUNDANCY",
        "OVHcloud Object Storage STANDARD_IA",
    ]
    assert prices.unpriced(prices.offers(["wasabi"])) == []


def test_a_price_of_a_unit_that_is_assumed_is_uncertain() -> None:
    for offer in prices.offers():
        for name, term in offer.terms.items():
            assert "assumed" not in term.note or "uncertain" in term.flags(TODAY), (offer.key, name)


def test_what_is_said_of_egress_is_what_is_computed() -> None:
    for name in catalog.names():
        provider = catalog.load(name)
        said = provider.value("egress_terms")
        for offer in prices.offers([name]) if provider.value("prices") else ():
            terms = {key: term.value for key, term in offer.terms.items()}
            words = [f"{item['amount']} {item['per']}" for key, item in terms.items() if key == "egress_free"]
            words += [f"{terms[key]['times']} times" for key in terms if key == "egress_free_times_stored"]
            (price, *more), per = terms["egress"]["tiers"], terms["egress"]["per"]
            if not more and Decimal(price["price"]):
                words.append(f"{Decimal(price['price']).normalize():f} {offer.currency}/{per}")
            assert all(word in said for word in words), (offer.key, words, said)


def test_old_and_uncertain_terms_are_flagged() -> None:
    term = prices.Term("storage", {}, "somewhere", date(2026, 5, 27), "primary")
    assert term.flags(date(2026, 11, 23)) == ()  # 180 days
    assert term.flags(date(2026, 11, 24)) == ("old",)
    unsure = prices.Term("storage", {}, "somewhere", date(2026, 5, 27), "uncertain")
    assert unsure.flags(date(2026, 11, 24)) == ("uncertain", "old")
    by_key = {offer.key: offer for offer in prices.offers()}
    assert by_key["scaleway/STANDARD"].flags(TODAY)["egress"] == ("uncertain", "old")
    assert by_key["idrive_e2/STANDARD"].flags(TODAY)["minimum_days"] == ("uncertain",)
    assert by_key["wasabi/STANDARD"].flags(TODAY) == {}
    # In half a year everything is.
    assert all(offer.flags(date(2027, 6, 1)) for offer in prices.offers())


def test_one_term_replaces_the_catalogs(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"backblaze_b2": [{"terms": {"storage": {"value": {"tiers": [{"price": "6.00"}], "per": "TB"}}}}]},
    )
    (offer,) = prices.offers(["backblaze_b2"], overrides=prices.read_overrides(path, TODAY))
    # 400 GB less 10 free × 0.006; egress as the catalog has it: 1200 GB free, 100 × 0.01
    assert month(offer, Usage(Decimal(400 * 10**9), egress=Decimal(1300 * 10**9))).total == Decimal("3.34")
    assert offer.terms["storage"].source == str(path)
    assert offer.terms["storage"].when == TODAY
    assert offer.terms["egress"].source.startswith("https://www.backblaze.com/")


def test_an_offer_of_ones_own(tmp_path: Path) -> None:
    own = {"class": "STANDARD", "variant": "our hoster", "currency": "EUR", "terms": WHOLE}
    overrides = prices.read_overrides(written(tmp_path, {"s3_compatible": [own]}), TODAY)
    (offer,) = prices.offers(["s3_compatible"], overrides=overrides)
    assert offer.label == "Any other S3-compatible store our hoster"
    # 500 × 0.01 + 100 × 0.008
    assert month(offer, Usage(Decimal(600 * 10**9))).total == Decimal("5.8")
    assert len(prices.offers(overrides=overrides)) == len(prices.offers()) + 1


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("```")[0]
    assert sorted(prices.read_overrides(written(tmp_path, example), TODAY)) == ["backblaze_b2", "s3_compatible"]


def term(name: str, value: Any) -> Any:
    return {"wasabi": [{"terms": {name: {"value": value}}}]}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([], "an object with a list of offers per provider"),
        ({"wasaby": []}, "provider 'wasaby': allowed is one of"),
        ({"wasabi": []}, "a list of offers"),
        ({"wasabi": {}}, "a list of offers"),
        ({"wasabi": ["x"]}, r"wasabi\[0\]"),
        ({"wasabi": [{"terms": {}, "price": 1}]}, r"wasabi\[0\]"),
        ({"wasabi": [{"terms": {}, "currency": "GBP"}]}, "USD or EUR"),
        ({"wasabi": [{"terms": {}, "currency": "EUR"}]}, "USD, as the catalog has it: currencies are not mixed"),
        ({"wasabi": [{"terms": {}, "class": 1}]}, "text for class"),
        ({"wasabi": [{"terms": {}, "class": "COLD"}]}, "all of storage, egress"),
        ({"garage": [{"terms": {}}]}, "since the catalog has no garage/STANDARD"),
        (term("storage_price", {}), "one of storage, storage_free"),
        ({"wasabi": [{"terms": {"storage": "7.99"}}]}, "an object with value"),
        (term("storage", {"tiers": [{"price": "1"}]}), "an object with tiers, per"),
        (term("storage", {"tiers": [{"price": 7.99}], "per": "TB"}), "price"),
        (term("storage", {"tiers": [{"price": "-1"}], "per": "TB"}), "price"),
        (term("storage", {"tiers": [{"price": "1e3"}], "per": "TB"}), "price"),
        (term("storage", {"tiers": [], "per": "TB"}), "ascending"),
        (term("storage", {"tiers": [{"price": "1", "up_to": "5"}], "per": "TB"}), "the last one without up_to"),
        (
            term(
                "storage",
                {"tiers": [{"price": "1", "up_to": "5"}, {"price": "1", "up_to": "5"}, {"price": "1"}], "per": "TB"},
            ),
            "ascending",
        ),
        (term("storage", {"tiers": [{"price": "1"}, {"price": "1"}], "per": "TB"}), "ascending"),
        (term("storage", {"tiers": [{"price": "1"}], "per": "GB-month"}), "GB, GiB, TB or TiB"),
        (term("requests_put", {"price": "1", "per": "0", "free": "0", "whole": False}), "a number of requests"),
        (term("requests_put", {"price": "1", "per": "1", "free": "0", "whole": 1}), "true or false"),
        (term("minimum_object", {"bytes": 1.5}), "a whole number of bytes"),
        (term("minimum_object", {"bytes": True}), "a whole number of bytes"),
        (term("minimum_days", {"days": -1}), "a whole number of days"),
        ({"wasabi": [{"terms": {"minimum_days": {"value": {"days": 1}, "date": "soon"}}}]}, "a date such as"),
        ({"wasabi": [{"terms": {"minimum_days": {"value": {"days": 1}, "date": 1}}}]}, "a date such as"),
        ({"wasabi": [{"terms": {"minimum_days": {"value": {"days": 1}, "certainty": "sure"}}}]}, "primary, secondary"),
    ],
)
def test_a_faulty_file_is_refused_at_the_place(tmp_path: Path, content: Any, word: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError, match=word) as caught:
        prices.read_overrides(path, TODAY)
    assert str(path) in str(caught.value)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        prices.read_overrides(tmp_path / "none.json", TODAY)
    with pytest.raises(UsageError, match="can't be read"):
        prices.read_overrides(tmp_path, TODAY)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not JSON"):
        prices.read_overrides(binary, TODAY)
