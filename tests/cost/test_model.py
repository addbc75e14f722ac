"""The cost model against cases computed by hand, with the arithmetic beside each.

The prices are the catalog's: where one of them changes, the case is computed anew.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse_media.cost import model, prices
from synapse_media.cost.model import SizeGroup, Usage
from synapse_media.cost.prices import Offer, Term
from synapse_media.errors import UsageError

GB, GIB, TB, TIB = Decimal(10**9), Decimal(2**30), Decimal(10**12), Decimal(2**40)
CENT = Decimal("0.01")

OFFERS = {offer.key: offer for offer in prices.offers()}
S3 = OFFERS["amazon_s3/STANDARD@us-east-1"]
S3_IA = OFFERS["amazon_s3/STANDARD_IA@us-east-1"]
B2 = OFFERS["backblaze_b2/STANDARD"]
WASABI = OFFERS["wasabi/STANDARD"]
SPACES = OFFERS["digitalocean_spaces/STANDARD"]
STORJ = OFFERS["storj/STANDARD/Standard"]
STORJ_ADVANCED = OFFERS["storj/STANDARD/Advanced"]
R2 = OFFERS["cloudflare_r2/STANDARD"]
R2_IA = OFFERS["cloudflare_r2/STANDARD_IA"]
HETZNER = OFFERS["hetzner/STANDARD"]
IDRIVE = OFFERS["idrive_e2/STANDARD"]
OVH = OFFERS["ovhcloud/STANDARD/one zone"]


def lines(offer: Offer, usage: Usage) -> dict[str, Decimal]:
    return {line.what: line.amount for line in model.month(offer, usage).lines}


def total(offer: Offer, usage: Usage) -> Decimal:
    return model.month(offer, usage).total


def _crossings(offers: list[Offer], usage: Usage, low: Decimal, high: Decimal) -> list[model.Crossing]:
    return model.crossings(model.curves(offers, usage, low, high), usage)


def made(**terms: dict[str, Any]) -> Offer:
    """An offer of round numbers: a dollar a GB stored and read, requests free, nothing else."""
    plain: dict[str, dict[str, Any]] = {
        "storage": {"tiers": [{"price": "1"}], "per": "GB"},
        "egress": {"tiers": [{"price": "1"}], "per": "GB"},
        "requests_put": {"price": "0", "per": "1000", "free": "0", "whole": False},
        "requests_get": {"price": "0", "per": "1000", "free": "0", "whole": False},
        "minimum_object": {"bytes": 0},
        "minimum_days": {"days": 0},
    }
    values = plain | terms
    return Offer(
        provider="s3_compatible",
        title="made up",
        storage_class="STANDARD",
        region="",
        variant="",
        currency="USD",
        terms={
            name: Term(name, value, "made up here", date(2026, 11, 23), "primary") for name, value in values.items()
        },
    )


class TestStorage:
    def test_amazon_by_the_gib_without_a_minimum(self) -> None:
        # 100 GiB × 0.023
        assert total(S3, Usage(100 * GIB)) == Decimal("2.3")
        assert total(S3, Usage(Decimal(0))) == 0
        # One byte costs something, and next to nothing.
        assert 0 < total(S3, Usage(Decimal(1))) < Decimal("1e-9")

    def test_gb_and_gib_are_not_mixed_up(self) -> None:
        # 100 GB are 100e9 / 2^30 = 93.1322574615478515625 GiB; × 0.023
        assert total(S3, Usage(100 * GB)) == Decimal("93.1322574615478515625") * Decimal("0.023")
        # B2 bills decimal: 110 GiB are 118.111600640 GB, less 10 GB free; × 6.95 / 1000
        assert total(B2, Usage(110 * GIB)) == Decimal("108.111600640") * Decimal("0.00695")

    def test_tiers(self) -> None:
        # 51200 GiB × 0.023 + 460800 GiB × 0.022 + 88000 GiB × 0.021 = 1177.6 + 10137.6 + 1848
        assert total(S3, Usage(600_000 * GIB)) == Decimal("13163.2")

    def test_b2_has_no_minimum_and_ten_gb_free(self) -> None:
        assert total(B2, Usage(10 * GB)) == 0
        # 400 GB × 0.00695 = 2.78; 10 GB × 0.00695 = 0.0695 free
        assert lines(B2, Usage(400 * GB)) == {"storage": Decimal("2.78"), "free storage": Decimal("-0.0695")}

    def test_wasabi_bills_a_tib_at_least(self) -> None:
        # 256 GiB × 7.99 / 1024 = 1.9975, and 768 GiB up to the minimum: 5.9925
        assert lines(WASABI, Usage(256 * GIB)) == {
            "storage": Decimal("1.9975"),
            "up to the minimum storage": Decimal("5.9925"),
        }
        # A decimal TB is still below it; two TiB are twice the price.
        assert total(WASABI, Usage(TB)) == Decimal("7.99")
        assert total(WASABI, Usage(2 * TIB)) == Decimal("15.98")

    def test_idrive_bills_a_tb_at_least(self) -> None:
        # 1000 GB × 0.006; then 1500 GB × 0.006
        assert total(IDRIVE, Usage(GB)) == 6
        assert total(IDRIVE, Usage(1500 * GB)) == 9

    def test_spaces_five_dollars_hold_250_gib(self) -> None:
        assert total(SPACES, Usage(Decimal(0))) == 5
        assert total(SPACES, Usage(250 * GIB)) == 5
        # 5 + 150 GiB × 0.02
        assert total(SPACES, Usage(400 * GIB)) == 8

    def test_storj_charges_five_dollars_at_least(self) -> None:
        # 100 GB × 0.007 = 0.70, so 4.30 up to the minimum
        assert lines(STORJ, Usage(100 * GB)) == {
            "storage": Decimal("0.7"),
            "up to the minimum charge": Decimal("4.3"),
        }
        # 1000 GB × 0.007 is above it; the advanced tier is 0.010
        assert total(STORJ, Usage(TB)) == 7
        assert total(STORJ_ADVANCED, Usage(TB)) == 10

    def test_storj_rounds_up_to_a_gb(self) -> None:
        # 1000 GB and a byte are billed as 1001 GB: 7.007
        assert total(STORJ, Usage(TB + 1)) == Decimal("7.007")

    def test_r2_rounds_up_after_its_free_ten_gb(self) -> None:
        # 10.5 GB less 10 free is half a GB, billed as one: 0.015
        assert total(R2, Usage(Decimal("10.5") * GB)) == Decimal("0.015")

    def test_hetzner_has_a_tb_in_its_base_price(self) -> None:
        assert total(HETZNER, Usage(TB)) == Decimal("6.49")
        # 0.0087 × 730 hours = 6.351 for the second TB
        assert total(HETZNER, Usage(2 * TB)) == Decimal("12.841")


class TestSmallObjects:
    # 600k thumbnails of 15 kB are 9 GB; 300k files of 400 kB are 120 GB.
    USAGE = Usage(
        stored=129 * GB,
        files=Decimal(900_000),
        sizes=(SizeGroup(600_000, 9 * 10**9), SizeGroup(300_000, 120 * 10**9)),
    )

    def test_storj_bills_them_as_50_kb(self) -> None:
        # 600k × 50 kB = 30 GB instead of 9: 21 GB × 0.007 = 0.147
        assert lines(STORJ, self.USAGE)["small files"] == Decimal("0.147")

    def test_wasabi_and_spaces_take_no_notice_above_4_kib(self) -> None:
        assert "small files" not in lines(WASABI, self.USAGE)
        assert "small files" not in lines(SPACES, self.USAGE)

    def test_wasabis_minimum_storage_counts_what_small_files_are_billed_as(self) -> None:
        # 10^6 files of 96 bytes are billed as 4096 bytes each: 4.096 GB; all of it below the TiB anyway.
        usage = Usage(stored=Decimal(96 * 10**6), files=Decimal(10**6))
        assert total(WASABI, usage) == Decimal("7.99")
        # Padding: 4000 bytes × 10^6 = 4 GB × 7.99 / 2^40
        assert lines(WASABI, usage)["small files"] == 4 * GB * Decimal("7.99") / TIB

    def test_hetzner_bills_them_as_64_kib(self) -> None:
        # 16777216 files of 1 KiB are 16 GiB, billed as 1 TiB = 1.099511627776 TB; 1 TB is in the base price:
        # 0.099511627776 × 6.351
        usage = Usage(stored=16 * GIB, files=Decimal(2**24))
        assert lines(HETZNER, usage)["small files"] == Decimal("0.099511627776") * Decimal("6.351")

    def test_infrequent_access_bills_them_as_128_kib(self) -> None:
        # 2^20 files of 16 KiB are 16 GiB, billed as 128 GiB: 112 GiB × 0.0125 = 1.40
        usage = Usage(stored=16 * GIB, files=Decimal(2**20))
        assert lines(S3_IA, usage) == {"storage": Decimal("0.2"), "small files": Decimal("1.4")}
        # So it loses: 1.60 against 16 × 0.023 = 0.368 in STANDARD.
        assert total(S3_IA, usage) == Decimal("1.6")
        assert total(S3, usage) == Decimal("0.368")

    def test_without_sizes_all_files_are_equally_large(self) -> None:
        usage = Usage(stored=9 * GB, files=Decimal(600_000))
        assert usage.mean == 15_000
        assert usage.padding(50_000) == 21 * GB
        assert usage.padding(15_000) == 0

    def test_not_known_without_files(self) -> None:
        assert Usage(stored=9 * GB).padding(50_000) == 0


class TestReading:
    def test_b2_is_free_up_to_three_times_what_is_stored(self) -> None:
        # 100 GB stored: 300 GB are free; storage is (100 - 10) × 0.00695 = 0.6255
        stored = Decimal("0.6255")
        assert total(B2, Usage(100 * GB, egress=300 * GB)) == stored
        # 450 GB × 0.01 = 4.50, of which 300 × 0.01 = 3.00 free
        found = lines(B2, Usage(100 * GB, egress=450 * GB))
        assert found["egress"] == Decimal("4.5")
        assert found["free egress"] == -3
        assert total(B2, Usage(100 * GB, egress=450 * GB)) == stored + Decimal("1.5")

    def test_amazon_after_a_hundred_gib(self) -> None:
        # 0.023 for one GiB stored; 150 GiB × 0.09 = 13.50, of which 100 × 0.09 = 9 free
        assert total(S3, Usage(GIB, egress=150 * GIB)) == Decimal("0.023") + Decimal("4.5")

    def test_egress_tiers_start_after_the_free_part(self) -> None:
        # 20580 GiB less 100: 10240 × 0.09 + 10240 × 0.085 = 921.6 + 870.4
        found = lines(S3, Usage(GIB, egress=20_580 * GIB))
        assert found["egress"] + found["free egress"] == 1792

    def test_spaces_have_a_tib_in_the_subscription(self) -> None:
        # 5 + 100 GiB × 0.01
        assert total(SPACES, Usage(GIB, egress=1124 * GIB)) == 6

    def test_storj_from_the_first_byte(self) -> None:
        # 1000 GB × 0.007 stored, and 100.5 GB, rounded up to 101, × 0.007 read
        assert total(STORJ, Usage(TB, egress=Decimal("100.5") * GB)) == Decimal("7.707")

    def test_free_where_it_is_free(self) -> None:
        for offer in (R2, OVH):
            assert model.month(offer, Usage(TB, egress=50 * TB)).shares.get("egress", 0) == 0

    def test_wasabi_warns_above_fair_use(self) -> None:
        assert model.month(WASABI, Usage(TB, egress=TB)).warnings == ()
        bill = model.month(WASABI, Usage(TB, egress=TB + 1))
        assert bill.total == Decimal("7.99")
        assert "above fair use (1 × the stored size)" in bill.warnings[0]

    def test_retrieval(self) -> None:
        # 10 GiB × 0.01
        assert lines(S3_IA, Usage(100 * GIB, egress=10 * GIB))["retrieval"] == Decimal("0.1")
        # R2 rounds up: 1.5 GB are 2 × 0.01
        assert lines(R2_IA, Usage(TB, egress=Decimal("1.5") * GB))["retrieval"] == Decimal("0.02")


class TestRequests:
    def test_given(self) -> None:
        usage = Usage(GIB, uploads=Decimal(200_000), downloads=Decimal(1_000_000))
        # 200 × 0.005 and 1000 × 0.0004
        found = lines(S3, usage)
        assert (found["uploads"], found["downloads"]) == (1, Decimal("0.4"))

    def test_derived_from_the_mean_file(self) -> None:
        # 100 GB in 100k files: 1 MB each. 5 GB more and 1 GB deleted are 6000 uploads, 20 GB read 20000 downloads.
        usage = Usage(100 * GB, growth=5 * GB, egress=20 * GB, files=Decimal(100_000), deleted=GB)
        assert usage.month_uploads == 6000
        assert usage.month_downloads == 20_000
        found = lines(S3, usage)
        assert (found["uploads"], found["downloads"]) == (Decimal("0.03"), Decimal("0.008"))

    def test_r2_counts_whole_millions_after_its_free_ones(self) -> None:
        # Uploads: 1.2 M, 1 M free, 0.2 M billed as one: 4.50. Downloads: 10 M free.
        usage = Usage(10 * GB, uploads=Decimal(1_200_000), downloads=Decimal(10_000_000))
        assert total(R2, usage) == Decimal("4.5")
        # Infrequent access has nothing free: 2 × 9.00 + 10 × 0.90, and 10 GB × 0.01
        assert total(R2_IA, usage) == Decimal("27.1")

    def test_not_counted_without_files(self) -> None:
        assert lines(S3, Usage(GIB, growth=GB, egress=GB)).keys() == {"storage", "egress", "free egress"}

    def test_free_at_b2(self) -> None:
        assert total(B2, Usage(10 * GB, uploads=Decimal(10**9), downloads=Decimal(10**9))) == 0


class TestMinimumRetention:
    def test_wasabi_bills_to_the_end_of_90_days(self) -> None:
        # 102.4 GiB (a tenth of a TiB) deleted at once: 3 months × 0.799
        usage = Usage(2 * TIB, deleted=Decimal("102.4") * GIB)
        assert lines(WASABI, usage)["deleted 90 days early"] == Decimal("2.397")
        # Deleted after 60 days: one month is left; after 90: nothing.
        assert lines(WASABI, replace(usage, deleted_age=60))["deleted 30 days early"] == Decimal("0.799")
        assert model.month(WASABI, replace(usage, deleted_age=90)).shares.keys() == {"storage"}
        assert model.month(WASABI, replace(usage, deleted_age=900)).shares.keys() == {"storage"}

    def test_infrequent_access_30_days(self) -> None:
        # 80 GiB × 0.0125 for the whole month
        assert lines(S3_IA, Usage(TIB, deleted=80 * GIB))["deleted 30 days early"] == 1

    def test_none_at_b2_spaces_and_standard(self) -> None:
        for offer in (B2, SPACES, S3, HETZNER):
            assert "minimum retention" not in model.month(offer, Usage(2 * TB, deleted=100 * GB)).shares


class TestOverTime:
    def test_months_grow(self) -> None:
        # A dollar a GB: 10, 12, 14
        bills = model.months(made(), Usage(10 * GB, growth=2 * GB), 3)
        assert [bill.total for bill in bills] == [10, 12, 14]

    def test_a_year_is_twelve_months_and_the_first_upload(self) -> None:
        # Storage: 12 × 10 + 2 × (0 + 1 + … + 11) = 252. Uploads: 2 files a month at 1 dollar: 24; and 10 to begin with.
        offer = made(requests_put={"price": "1", "per": "1", "free": "0", "whole": False})
        usage = Usage(10 * GB, growth=2 * GB, files=Decimal(10))
        found = model.year(offer, usage)
        assert {line.what: line.amount for line in found.lines} == {
            "storage": 252,
            "uploads": 24,
            "first upload requests": 10,
        }
        assert found.total == 286

    def test_what_is_asked_a_month_stays_while_files_grow(self) -> None:
        usage = Usage(
            100 * GB, growth=100 * GB, egress=10 * GB, files=Decimal(1000), sizes=(SizeGroup(1000, 100 * 10**9),)
        )
        grown = model.grown(usage, 2)
        assert (grown.stored, grown.files, grown.egress) == (300 * GB, 3000, 10 * GB)
        assert (grown.month_uploads, grown.month_downloads) == (1000, 100)
        assert (grown.sizes[0].files, grown.sizes[0].bytes) == (3000, 300 * 10**9)

    def test_a_new_server_begins_with_nothing(self) -> None:
        # 0, 1, 2 … 11 GB at a dollar
        assert model.year(made(), Usage(Decimal(0), growth=GB)).total == 66

    def test_b2s_first_year_by_hand(self) -> None:
        # 12 × (400 - 10) GB + 10 × 66 GB = 5340 GB-months × 0.00695
        assert model.year(B2, Usage(400 * GB, growth=10 * GB)).total == Decimal("37.113")


class TestOnce:
    def test_a_restore_reads_everything_in_one_month(self) -> None:
        # 400 GiB beside 60 already read: 40 of the 100 free ones are left, so 360 × 0.09 = 32.40;
        # and 1000 downloads more: 0.0004
        usage = Usage(400 * GIB, egress=60 * GIB, files=Decimal(1000))
        found = model.restore(S3, usage)
        assert found.shares == {"egress": Decimal("32.4"), "requests": Decimal("0.0004")}

    def test_a_restore_within_the_allowance_is_free(self) -> None:
        assert model.restore(B2, Usage(400 * GB, egress=800 * GB)).total == 0
        # 801 GB and the 400: one GB above three times 400
        assert model.restore(B2, Usage(400 * GB, egress=801 * GB)).total == CENT

    def test_a_restore_under_a_minimum_charge(self) -> None:
        # Storj: 100 GB stored is 0.70; reading it 0.70 more stays below 5.
        assert model.restore(STORJ, Usage(100 * GB)).total == 0
        # 700 GB: 4.90 stored and 4.90 read are 9.80, 4.80 more than the minimum of 5.
        assert model.restore(STORJ, Usage(700 * GB)).total == Decimal("4.8")

    def test_a_restore_of_an_infrequent_class_pays_retrieval(self) -> None:
        # 50 GiB × 0.01
        assert model.restore(S3_IA, Usage(50 * GIB)).shares == {"retrieval": Decimal("0.5")}

    def test_leaving_pays_for_what_is_young(self) -> None:
        # Wasabi: 102.4 GiB (0.1 TiB) a month for 90 days are 0.3 TiB, with 45 days = 1.5 months to go on average:
        # 0.3 × 1.5 × 7.99 = 3.5955
        usage = Usage(2 * TIB, growth=Decimal("102.4") * GIB)
        assert model.leaving(WASABI, usage).total == Decimal("3.5955")
        # No more can be young than is stored: 0.1 TiB × 1.5 × 7.99 = 1.1985
        assert model.leaving(WASABI, replace(usage, stored=Decimal("102.4") * GIB)).total == Decimal("1.1985")

    def test_leaving_within_a_minimum_charge_costs_nothing_more(self) -> None:
        # Storj: 200 GB stored and read are 1.40 each, and 100 GB a month with half a month to go 0.35: 3.15 of 5.
        usage = Usage(200 * GB, growth=100 * GB)
        assert model.leaving(STORJ, usage).total == 0
        # 700 GB: 4.90 stored, 4.90 read and 0.35, less the 5 that are paid anyway.
        assert model.leaving(STORJ, replace(usage, stored=700 * GB)).total == Decimal("5.15")

    def test_leaving_is_a_restore_where_nothing_is_held_back(self) -> None:
        usage = Usage(400 * GIB, growth=10 * GIB, egress=60 * GIB, files=Decimal(1000))
        assert model.leaving(S3, usage).shares == model.restore(S3, usage).shares

    def test_moving_in_pays_for_each_file_once(self) -> None:
        # 900k × 0.005 / 1000; from B2's point of view nothing
        usage = Usage(400 * GB, files=Decimal(900_000))
        assert model.first_upload(S3, usage).total == Decimal("4.5")
        assert model.first_upload(B2, usage).lines == ()
        assert model.first_upload(S3, Usage(400 * GB)).lines == ()


class TestComparing:
    def test_the_cheapest_first_and_currencies_apart(self) -> None:
        found = model.compare([S3, WASABI, HETZNER, B2, OVH], Usage(400 * GB))
        assert [[result.offer for result in results] for results in found.values()] == [
            [B2, WASABI, S3],
            [OVH, HETZNER],
        ]
        assert list(found) == ["USD", "EUR"]

    def test_what_dominates(self) -> None:
        assert model.month(B2, Usage(400 * GB)).dominant == "storage"
        assert model.month(WASABI, Usage(100 * GB)).dominant == "minimum storage"
        assert model.month(SPACES, Usage(100 * GB)).dominant == "subscription"
        assert model.month(STORJ, Usage(100 * GB)).dominant == "minimum charge"
        assert model.month(S3, Usage(10 * GB, egress=TB)).dominant == "egress"
        assert model.month(B2, Usage(10 * GB)).dominant == ""

    def test_where_two_lines_cross(self) -> None:
        # 5 dollars a month at once, or a dollar a GB: they meet at 5 GB.
        flat = replace(
            made(subscription={"price": "5"}, storage={"tiers": [{"price": "0"}], "per": "GB"}), variant="flat"
        )
        (found,) = _crossings([made(), flat], Usage(GB), GB, 100 * GB)
        assert (found.below.variant, found.above.variant, found.leads) == ("", "flat", True)
        assert abs(found.stored - 5 * GB) <= 5 * GB / 10_000
        assert found.monthly == 5

    def test_b2_and_idrive_by_hand(self) -> None:
        # (x - 10 GB) × 0.00695 = 6 at x = 873.309 GB, below IDrive's TB
        (found,) = _crossings([IDRIVE, B2], Usage(400 * GB), 10 * GB, 10_000 * GB)
        assert (found.below, found.above) == (B2, IDRIVE)
        assert abs(found.stored - (Decimal(6) / Decimal("0.00695") + 10) * GB) <= GB

    def test_a_flip_further_down_does_not_lead(self) -> None:
        flips = _crossings([B2, WASABI, S3], Usage(400 * GB), 10 * GB, 10_000 * GB)
        # 0.023 × x = 7.99 at 347.39 GiB = 373.0 GB, where B2 is cheaper than both.
        assert [(flip.below, flip.above, flip.leads) for flip in flips[:1]] == [(S3, WASABI, False)]
        assert abs(flips[0].stored - Decimal("7.99") / Decimal("0.023") * GIB) <= GB / 10

    def test_of_two_minimum_charges_the_one_that_stays_cheaper_leads(self) -> None:
        # Both tiers of Storj cost 5 dollars where Amazon passes them, at 217.39 GiB; Standard is the cheaper one later.
        flips = _crossings([STORJ_ADVANCED, S3, STORJ], Usage(400 * GB), 10 * GB, 10_000 * GB)
        assert [(flip.below, flip.above, flip.leads) for flip in flips] == [
            (S3, STORJ_ADVANCED, False),
            (S3, STORJ, True),
            (STORJ_ADVANCED, STORJ, False),
        ]
        assert all(abs(flip.stored - 5 / Decimal("0.023") * GIB) <= GB / 10 for flip in flips[:2])

    def test_a_minimum_charge_that_two_share_ends_where_one_grows_out_of_it(self) -> None:
        # Both tiers of Storj cost 5 dollars, until Advanced does not: at 500 GB × 0.010.
        (flip,) = _crossings([STORJ_ADVANCED, STORJ], Usage(400 * GB), 10 * GB, 10_000 * GB)
        assert (flip.below, flip.above, flip.leads) == (STORJ_ADVANCED, STORJ, False)
        assert abs(flip.stored - 500 * GB) <= 2 * GB

    def test_the_leader_from_the_low_end_on(self) -> None:
        span = (10 * GB, 10_000 * GB)
        for offers, led in (
            # At 5 dollars each; Spaces and Advanced grow out of it first.
            ([STORJ_ADVANCED, SPACES, STORJ], [STORJ]),
            ([IDRIVE, B2], [B2, IDRIVE]),
            ([WASABI], [WASABI]),
        ):
            assert model.leaders(model.curves(offers, Usage(400 * GB), *span)) == {"USD": led}

    def test_everything_else_in_proportion(self) -> None:
        usage = Usage(100 * GB, growth=GB, egress=50 * GB, files=Decimal(1000), deleted=GB, uploads=Decimal(5),
                      downloads=Decimal(7), sizes=(SizeGroup(1000, 100 * 10**9),))  # fmt: skip
        double = model.scaled(usage, Decimal(2))
        assert double == Usage(200 * GB, growth=2 * GB, egress=100 * GB, files=Decimal(2000), deleted=2 * GB,
                               uploads=Decimal(10), downloads=Decimal(14),
                               sizes=(SizeGroup(Decimal(2000), 200 * GB),))  # fmt: skip

    def test_currencies_never_cross(self) -> None:
        assert _crossings([B2, HETZNER], Usage(400 * GB), 10 * GB, 10_000 * GB) == []


class TestRefused:
    @pytest.mark.parametrize("name", ["stored", "growth", "egress", "files", "uploads", "downloads", "deleted"])
    def test_nothing_below_zero(self, name: str) -> None:
        with pytest.raises(UsageError, match=name):
            Usage(**{"stored": GB, name: Decimal(-1)})

    def test_more_files_than_bytes(self) -> None:
        with pytest.raises(UsageError, match="one byte per file"):
            Usage(Decimal(1000), files=Decimal(1001))


amounts = st.integers(min_value=0, max_value=10**15).map(Decimal)
usages = st.builds(Usage, stored=st.integers(10**12, 10**16).map(Decimal), growth=amounts, egress=amounts,
                   files=st.integers(1, 10**9).map(Decimal), deleted=amounts)  # fmt: skip
some_offer = st.sampled_from(sorted(OFFERS)).map(OFFERS.__getitem__)


@given(some_offer, usages)
@settings(max_examples=150, deadline=None)
def test_a_bill_adds_up(offer: Offer, usage: Usage) -> None:
    bill = model.month(offer, usage)
    # Amounts have 28 digits.
    assert abs(bill.total - sum(bill.shares.values())) < Decimal("1e-12")
    assert bill.total == sum(line.amount for line in bill.lines) >= 0
    assert all(line.term in model.TERMS for line in bill.lines)
    # Only an allowance takes off.
    assert all(line.amount > 0 or line.what.startswith("free") for line in bill.lines)


@given(some_offer, usages, st.sampled_from(["egress", "deleted", "stored"]), st.integers(1, 10**14))
@settings(max_examples=150, deadline=None)
def test_more_never_costs_less(offer: Offer, usage: Usage, what: str, more: int) -> None:
    # Files left out: more bytes in the same files are fewer small ones. Free egress that grows with what is stored
    # (B2, IDrive) makes storing more cheaper for a heavy reader: that is their offer, so egress is left out there.
    plain = replace(usage, files=None, egress=Decimal(0) if what == "stored" else usage.egress)
    dearer = replace(plain, **{what: getattr(plain, what) + more})
    assert model.month(offer, dearer).total >= model.month(offer, plain).total


@given(some_offer, usages)
@settings(max_examples=60, deadline=None)
def test_once_is_never_a_gain(offer: Offer, usage: Usage) -> None:
    assert model.restore(offer, usage).total >= 0
    assert model.leaving(offer, usage).total >= model.restore(offer, usage).total
