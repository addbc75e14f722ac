"""What is said about a comparison: nearest regions, classes that lose money, flips, flags."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from synapse_media import catalog
from synapse_media.cost import fit, markdown, prices
from synapse_media.cost.model import SizeGroup, Usage, curve
from synapse_media.cost.study import Study, as_json, describe_cheapest, marks, money, nearest_region, study

TODAY = date(2026, 11, 23)
GB = Decimal(10**9)
MEDIUM = Usage(400 * GB, growth=10 * GB, egress=50 * GB, files=Decimal(900_000))


def of(usage: Usage, *providers: str, near: tuple[float, float] | None = None) -> Study:
    return study(prices.offers(providers), usage, TODAY, near)


@pytest.mark.parametrize(
    ("provider", "near", "region", "km"),
    [
        # Great-circle distances looked up elsewhere, to about one part in a hundred.
        ("hetzner", (60.2, 24.9), "hel1", 0),
        ("amazon_s3", (52.5, 13.4), "eu-central-1", 424),  # Berlin to Frankfurt
        ("amazon_s3", (40.7, -74.0), "us-east-1", 350),  # New York to Ashburn
        ("wasabi", (-36.8, 174.8), "ap-southeast-2", 2156),  # Auckland to Sydney
        ("digitalocean_spaces", (64.8, -147.7), "sfo2", 3450),  # Fairbanks to San Francisco
    ],
)
def test_the_nearest_region(provider: str, near: tuple[float, float], region: str, km: int) -> None:
    found = nearest_region(catalog.load(provider), near)
    assert found is not None
    assert found.name == region
    assert found.km == pytest.approx(km, rel=0.02, abs=5)


def test_near_the_date_line_is_near() -> None:
    # Two degrees of longitude at the equator are 222 km, whichever way the line runs.
    found = nearest_region(catalog.load("amazon_s3"), (-36.8, -179.0))
    assert found is not None
    assert (found.name, found.km < 700) == ("ap-southeast-6", True)


def test_no_region_where_there_is_no_list() -> None:
    assert nearest_region(catalog.load("storj"), (0, 0)) is None


def test_of_several_priced_regions_the_nearest_is_kept() -> None:
    everywhere = {result.offer.region for result in of(MEDIUM, "amazon_s3").results["USD"]}
    assert everywhere == {"us-east-1", "eu-central-1"}
    for near, region in (((52.5, 13.4), "eu-central-1"), ((40.7, -74.0), "us-east-1")):
        found = of(MEDIUM, "amazon_s3", near=near)
        assert {result.offer.region for result in found.results["USD"]} == {region}
        assert len(found.results["USD"]) == 2


def test_the_price_of_another_region_is_said_to_be_that() -> None:
    word = "Amazon S3: the price is that of us-east-1; that of ap-southeast-2 is not in the catalog."
    assert of(MEDIUM, "amazon_s3", "wasabi", near=(-33.9, 151.2)).notes[0] == word
    assert not any("is not in the catalog" in note for note in of(MEDIUM, "amazon_s3", near=(40.7, -74.0)).notes)


def test_a_class_that_loses_money_is_named() -> None:
    # 2^20 thumbnails of 16 KiB, 16 GiB: 0.368 in STANDARD, 0.20 + 1.40 in STANDARD_IA (see test_model).
    found = of(Usage(16 * Decimal(2**30), files=Decimal(2**20)), "amazon_s3", near=(40.7, -74.0))
    assert (
        "Amazon S3 STANDARD_IA us-east-1 costs 1.23 USD a month more than STANDARD here, most of it for minimum "
        "object size (1.40 USD): thumbnails and other files below 131.1 kB are billed as 131.1 kB." in found.notes
    )
    large = Usage(400 * GB, files=Decimal(1000), sizes=(SizeGroup(1000, 400 * 10**9),))
    assert not any("more than STANDARD" in note for note in of(large, "amazon_s3").notes)


def test_notes_on_missing_inputs() -> None:
    assert any("--files" in note for note in of(Usage(GB), "wasabi").notes)
    assert any("mean size (444.4 kB)" in note for note in of(MEDIUM, "wasabi").notes)
    assert any("a restore reads 450 GB a month, above fair use" in note for note in of(MEDIUM, "wasabi").notes)
    heavy = Usage(400 * GB, egress=500 * GB, files=Decimal(900_000))
    assert any(note.startswith("Wasabi: reads 500 GB a month, above fair use") for note in of(heavy, "wasabi").notes)


def test_flags_become_marks() -> None:
    by_key = {offer.key: offer for offer in prices.offers()}
    assert marks(by_key["wasabi/STANDARD"], TODAY) == ""
    # Whether its TB is decimal is not known.
    assert marks(by_key["backblaze_b2/STANDARD"], TODAY) == "?"
    assert marks(by_key["idrive_e2/STANDARD"], TODAY) == "?"
    assert marks(by_key["scaleway/STANDARD"], TODAY) == "?!"
    assert marks(by_key["wasabi/STANDARD"], date(2027, 6, 1)) == "!"
    notes = study(prices.offers(["wasabi"]), MEDIUM, date(2027, 6, 1)).notes
    assert any(note.startswith("At least one term is older than 180 days") and "Wasabi" in note for note in notes)


def test_describe_cheapest() -> None:
    assert describe_cheapest(of(MEDIUM, "backblaze_b2", "wasabi"), "USD") == (
        "Backblaze B2 is the cheapest from 10 GB to 10 TB."
    )
    assert describe_cheapest(of(MEDIUM, "wasabi"), "USD") == "Wasabi is the cheapest from 10 GB to 10 TB."
    three = describe_cheapest(of(MEDIUM, "amazon_s3", "storj", "wasabi"), "USD")
    # Both tiers of Storj cost 5 USD where they pass Amazon; the one that is cheaper later is named.
    assert three == (
        "Amazon S3 STANDARD_IA us-east-1 is the cheapest below 366.3 GB, Storj Standard from there, Wasabi from 1 TB "
        "(examined from 10 GB to 10 TB, everything else in proportion)."
    )


def test_nothing_is_said_flatly_that_hangs_on_a_price_in_conflict() -> None:
    """IDrive's own pages say 6 and 5 USD for a TB, of which one at least is billed."""
    found = of(MEDIUM, "backblaze_b2", "idrive_e2")
    words = describe_cheapest(found, "USD")
    assert words.startswith(
        "Not certain, since IDrive e2 states two prices. By one: Backblaze B2 is the cheapest below "
    )
    assert "below 873.3 GB" in words
    assert "By the other: Backblaze B2 is the cheapest below 729.5 GB, IDrive e2 from there" in words
    [note] = [note for note in found.notes if "contradict each other" in note]
    assert note.startswith("IDrive e2: ")
    assert "5.00 USD" in note
    # Where the order hangs on another's price, it is said as it is.
    assert describe_cheapest(of(MEDIUM, "cloudflare_r2", "storj"), "USD").startswith(("Cloudflare", "Storj"))


def test_a_class_that_the_recommended_module_cannot_write_is_marked_where_it_is_ranked() -> None:
    """s3_storage_provider.py 1.7.0, parse_config, takes four classes; ONEZONE_IA is none of them."""
    found = of(MEDIUM, "scaleway")
    ranked = {result.offer.storage_class: marks(result.offer, TODAY) for result in found.results["EUR"]}
    assert "*" in ranked["ONEZONE_IA"]
    assert "*" not in ranked["STANDARD"]
    [note] = [note for note in found.notes if "marked '*'" in note]
    assert "Scaleway Object Storage ONEZONE_IA" in note
    assert "STANDARD, REDUCED_REDUNDANCY, STANDARD_IA, INTELLIGENT_TIERING" in note
    assert "ONEZONE_IA (not by the recommended module) is the cheapest" in describe_cheapest(found, "EUR")


def test_what_is_billed_is_shown_not_what_is_stored_alone() -> None:
    small = Usage(50 * GB, files=Decimal(1_000_000), deleted=10 * GB, deleted_age=10)
    found = of(small, "hetzner", "wasabi", "storj")
    by_key = {result.offer.key: result for results in found.results.values() for result in results}
    # A million files of 50 kB each, billed as 65,536 bytes.
    assert by_key["hetzner/STANDARD"].month.billed == 65_536_000_000
    wasabi = by_key["wasabi/STANDARD"].month
    assert wasabi.billed == 1024**4
    # 1 TiB at least, and 10 GB for the 80 days that were left of 90.
    early = 10 * GB * Decimal("7.99") / 1024**4 * 80 / 30
    assert abs(wasabi.stored - Decimal("7.99") - early) < Decimal("0.000001")
    assert wasabi.stored == wasabi.total
    [note] = [note for note in found.notes if "are billed as more" in note]
    assert "Hetzner Object Storage 65.5 GB" in note
    assert "Wasabi 1.1 TB" in note
    assert "Storj" not in note
    shown = as_json(found)["currencies"]["EUR"][0]["month"]["storage_as_billed"]
    assert shown["bytes"] == 65_536_000_000


@pytest.mark.parametrize(
    "providers",
    [
        (),
        ("storj",),
        ("digitalocean_spaces", "storj"),
        ("amazon_s3", "storj", "wasabi"),
        ("cloudflare_r2", "digitalocean_spaces", "idrive_e2", "wasabi"),
    ],
)
@pytest.mark.parametrize(
    "usage",
    [Usage(400 * GB), MEDIUM, Usage(50 * GB, egress=200 * GB), Usage(30 * GB, files=Decimal(900_000))],
    ids=["stored", "medium", "much read", "small files"],
)
def test_who_is_said_to_be_the_cheapest_is(providers: tuple[str, ...], usage: Usage) -> None:
    """At sizes beside those the flips were looked for at. Close to a flip (rounding up to a GB) two are as good."""
    found = of(usage, *providers)
    low, high = found.span
    for currency, results in found.results.items():
        words = describe_cheapest(found, currency)
        flips = [flip for flip in found.flips if flip.leads and flip.currency == currency]
        assert [flip.above for flip in flips] == list(found.leaders[currency][1:])
        assert all(offer.label in words for offer in found.leaders[currency])
        for curves in zip(*(points(result.offer, usage, low, high) for result in results), strict=True):
            size = curves[0][0]
            named = found.leaders[currency][sum(flip.stored <= size for flip in flips)]
            costs = {result.offer.key: cost for result, (_, cost) in zip(results, curves, strict=True)}
            near = any(abs(flip.stored - size) < max(size / 10, 2 * GB) for flip in flips)
            assert near or costs[named.key] <= min(costs.values()), (currency, size)


def points(offer: prices.Offer, usage: Usage, low: Decimal, high: Decimal) -> list[tuple[Decimal, Decimal]]:
    drawn = curve(offer, usage, low, high, 48)
    return list(zip(drawn.stored, drawn.cost, strict=True))


def test_a_new_server_has_a_picture_too() -> None:
    found = of(Usage(Decimal(0), growth=GB), "backblaze_b2", "idrive_e2")
    assert found.typical == Usage(GB)
    assert [result.month.total for result in found.results["USD"]] == [0, 6]
    assert [flip.leads for flip in found.flips] == [True]


def test_one_offer_a_provider_is_drawn_and_every_leader() -> None:
    found = study(prices.offers(), MEDIUM, TODAY)
    drawn = {offer.key for currency in found.results for offer in found.drawn(currency)}
    assert {"amazon_s3/STANDARD@us-east-1", "storj/STANDARD/Standard", "cloudflare_r2/STANDARD"} <= drawn
    assert len({key.split("/")[0] for key in drawn}) == len(drawn)
    # Infrequent access is the cheapest below 366.3 GB here: so it is drawn beside STANDARD.
    drawn = {offer.key for offer in of(MEDIUM, "amazon_s3", "storj", "wasabi").drawn("USD")}
    assert drawn == {
        "amazon_s3/STANDARD@us-east-1",
        "amazon_s3/STANDARD_IA@us-east-1",
        "storj/STANDARD/Standard",
        "wasabi/STANDARD",
    }


def test_money_for_people() -> None:
    assert money(Decimal("1234.567"), "USD") == "1,234.57 USD"
    assert money(Decimal("0.004"), "USD") == "< 0.01 USD"
    assert money(Decimal(0), "USD") == "0.00 USD"


def test_json_has_everything() -> None:
    found = as_json(of(MEDIUM, "backblaze_b2", "hetzner", near=(52.5, 13.4)))
    (b2,) = found["currencies"]["USD"]
    assert b2["offer"] == "backblaze_b2/STANDARD"
    assert b2["month"]["total"] == "2.7105"
    assert b2["month"]["lines"][0] == {"term": "storage", "what": "storage", "quantity": "400 GB", "amount": "2.7800"}
    assert b2["terms"]["storage"]["date"] == "2026-10-06"
    assert "decimal units are assumed" in b2["terms"]["storage"]["note"]
    assert found["usage"]["uploads_per_month"] == 22_500
    assert found["nearest"]["hetzner"]["region"] == "fsn1"
    assert set(found["currencies"]) == {"USD", "EUR"}


def test_fit_has_the_guides_other_aspects() -> None:
    found = {item.provider: item for item in fit.fits(near=(52.5, 13.4))}
    assert set(found) == set(catalog.names())
    assert found["storj"].layout == "distributed"
    assert found["hetzner"].regions == "fsn1 (Falkenstein, Germany), 233 km"
    assert found["garage"].regions == "wherever you run it"
    assert any("deny delete" in item for item in found["digitalocean_spaces"].cannot)
    assert "encryption" in found["wasabi"].uncertain
    assert fit.fits(["backblaze_b2"])[0].regions == "7 regions, fixed at sign-up"
    with pytest.raises(catalog.UnknownProviderError):
        fit.fits(["backblaze"])


def test_markdown_is_a_table() -> None:
    text = markdown.costs(of(MEDIUM, "backblaze_b2", near=(52.5, 13.4)))
    assert "| Backblaze B2 ?; eu-central-003 (Amsterdam), 576 km | 2.71 | 37.11 | 0.00 | 0.00 | storage |" in text
    rows = markdown.aspects(fit.fits()).splitlines()
    assert {row.count("|") for row in rows} == {6}
