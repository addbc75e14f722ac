"""What the vendors' plugins say when they fail, as measured on pulumi-digitalocean 4.76."""

from __future__ import annotations

from synapse_media.engine.vendor_errors import readable_errors

AT = "sdk-v2/provider2.go:572: sdk.helper_schema:"
WRONG_SECRET = f"""\
digitalocean:index:SpacesBucket (matrix.example.com):
  error: {AT} error reading Spaces bucket "media": Forbidden: Forbidden
\tstatus code: 403, request id: tx1, host id: : provider=digitalocean@4.76.0
  error: 1 error occurred:
\t* error reading Spaces bucket "media": Forbidden: Forbidden
\tstatus code: 403, request id: tx1, host id:
"""


def test_an_error_is_told_once_and_without_a_line_of_source() -> None:
    told = readable_errors(WRONG_SECRET)
    assert told.count("error reading Spaces bucket") == 1
    assert ".go:" not in told
    assert "sdk.helper_schema" not in told
    assert "1 error occurred" not in told
    assert told.startswith("digitalocean:index:SpacesBucket (matrix.example.com):")
    assert "status code: 403, request id: tx1" in told


def test_a_refusal_without_words_has_its_causes() -> None:
    told = readable_errors(WRONG_SECRET)
    assert "its secret is wrong, it was deleted, or it lacks a permission" in told
    assert readable_errors(told) == told, "said once, however often it is asked"


def test_what_is_told_in_no_other_place_is_kept() -> None:
    told = readable_errors(f"error: {AT} creating Bucket: BucketAlreadyExists: taken: provider=aws@7.51.1\nand more")
    assert told == "creating Bucket: BucketAlreadyExists: taken\nand more"


def test_two_errors_stay_two() -> None:
    said = "error: 2 errors occurred:\n\t* one is wrong\n\t* two is wrong\n"
    assert readable_errors(said).splitlines() == ["error: one is wrong", "two is wrong"]


def test_what_is_no_vendors_error_stays_as_it_is() -> None:
    said = "error: bucket: 'media' exists already.\n  * a list\nwarning: key AKIA"
    assert readable_errors(said) == said
