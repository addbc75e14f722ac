"""The stack file's settings: what is refused, how it is said, and that nothing else ever happens."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from synapse_media import catalog, settings
from synapse_media.errors import Problem, SettingsError
from synapse_media.methods import METHODS

NAME = "matrix.example.com"

GOOD: dict[str, Any] = {
    "provider": "s3_compatible",
    "endpoint": "https://s3.example.com",
    "iam_endpoint": "https://iam.example.com",
    "bucket": "example-com-media",
}


def problems_of(stores: object, allow: object = None) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as refused:
        settings.parse(stores, allow)
    return refused.value.problems


def problems_with(**changes: Any) -> tuple[Problem, ...]:
    return problems_of({NAME: {**GOOD, **changes}})


def parsed_with(**changes: Any) -> settings.StoreSettings:
    return settings.parse({NAME: {**GOOD, **changes}})[NAME]


def test_a_minimal_store_is_filled_in_from_the_catalog() -> None:
    assert parsed_with() == settings.StoreSettings(
        server_name=NAME,
        provider="s3_compatible",
        bucket="example-com-media",
        method="synapse-s3-storage-provider",
        access="least",
        region="us-east-1",
        endpoint="https://s3.example.com",
        iam_endpoint="https://iam.example.com",
        user="synapse-media-example-com-media",
    )


@pytest.mark.parametrize("name", ["a..example.com", ".example.com", "example.com.", "a-.example.com", "-a.example.com"])
def test_a_server_name_is_a_host_name(name: str) -> None:
    (problem,) = problems_of({name: GOOD})
    assert "a host name such as matrix.example.com" in str(problem)


@pytest.mark.parametrize("name", ["example.com", "a-b.example.com", "localhost", "192.0.2.1:8448", "xn--a.example"])
def test_a_host_name_is_a_server_name(name: str) -> None:
    assert settings.parse({name: GOOD})[name].server_name == name


def test_every_setting_is_taken_over() -> None:
    store = settings.parse(
        {
            NAME: {
                **GOOD,
                "method": "matrix-media-repo",
                "access": "full",
                "region": "eu-1",
                "storage_class": "STANDARD",
                "user": "media",
                "keys": {"active": "b", "retiring": ["a"]},
                "adopt": True,
                "noncurrent_days": 90,
                "abort_days": 1,
                "media_repo": {"s3_datastore_id": "s", "file_datastore_id": "f"},
                "ca_file": "/etc/ssl/private-ca.pem",
            }
        },
        [f"{NAME}/delete-bucket", f"{NAME}/retire-key", "gone.example.com/retain-bucket"],
    )[NAME]
    assert (store.method, store.access, store.region, store.user) == ("matrix-media-repo", "full", "eu-1", "media")
    assert store.keys == settings.Keys("b", ("a",))
    assert store.keys.slots == ("b", "a")
    assert (store.adopt, store.noncurrent_days, store.abort_days) == (True, 90, 1)
    assert store.media_repo == {"s3_datastore_id": "s", "file_datastore_id": "f"}
    assert store.options == {"ca_file": "/etc/ssl/private-ca.pem"}
    assert store.allow == {"delete-bucket", "retire-key"}


def test_a_region_makes_the_endpoint_where_the_catalog_knows_it() -> None:
    store = settings.parse({NAME: {"provider": "amazon_s3", "region": "eu-central-1", "bucket": "example-com-media"}})
    assert store[NAME].endpoint == "https://s3.eu-central-1.amazonaws.com"
    assert store[NAME].iam_endpoint == "https://iam.amazonaws.com"


def test_filesystem_needs_nothing_but_its_name() -> None:
    store = settings.parse({NAME: {"method": "filesystem"}})[NAME]
    # The rest may stay there, for the way back.
    assert settings.parse({NAME: {**GOOD, "method": "filesystem"}})[NAME] == store
    assert not store.uses_store
    assert store.bucket == ""


BAD_BUCKETS = [
    "Example-Media",
    "example.com.media",
    "ab",
    "a" * 64,
    "xn--media",
    "b2-media",
    "sthree-media",
    "-media",
    "media-",
    "media_example",
    "médiathèque",
    "media example",
    "media-s3alias",
    "media--ol-s3",
    "media--x-s3",
    "media/../other",
    "{{ lookup('env','HOME') }}",
    "media'; drop",
    "192.168.5.4",
]


@pytest.mark.parametrize("bucket", BAD_BUCKETS)
def test_a_bucket_name_that_no_store_accepts_is_refused(bucket: str) -> None:
    [problem] = problems_with(bucket=bucket)
    assert problem.setting == f"stores.{NAME}.bucket"
    assert problem.value == bucket
    assert "a-z, 0-9 and '-'" in problem.allowed
    assert "choose another name" in problem.next_step


def test_a_provider_may_ask_more_of_a_bucket_name() -> None:
    raw = {"provider": "backblaze_b2", "bucket": "media"}
    [problem] = problems_of({NAME: raw})
    assert "6 to" in problem.allowed
    assert problem.next_step.startswith("It has 5 characters")


def test_an_adopted_bucket_may_carry_a_name_of_old() -> None:
    assert parsed_with(bucket="media.example.com", adopt=True).bucket == "media.example.com"
    [problem] = problems_with(bucket="media.example.com")
    assert problem.setting.endswith(".bucket")
    assert problems_with(bucket="Media/../x", adopt=True)
    assert problems_with(bucket="xn--media", adopt=True)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("provider", "backblaze", "backblaze_b2"),
        ("provider", "amazon-s3", "amazon_s3"),
        ("method", "synapse-s3-storage", "synapse-s3-storage-provider"),
        ("method", "goofy", "goofys"),
        ("access", "leest", "least"),
        ("storage_class", "STANDRD", "STANDARD"),
    ],
)
def test_a_wrong_choice_is_answered_with_all_of_them_and_the_nearest(name: str, value: str, meant: str) -> None:
    [problem] = problems_with(**{name: value})
    assert problem.setting == f"stores.{NAME}.{name}"
    assert problem.value == value
    assert meant in problem.allowed
    assert f"Did you mean {meant!r}?" in problem.next_step


def test_an_unknown_region_is_answered_with_the_nearest() -> None:
    [problem] = problems_of({NAME: {"provider": "amazon_s3", "region": "eu-centrall-1", "bucket": "example-media"}})
    assert problem.setting == f"stores.{NAME}.region"
    assert problem.next_step == "Did you mean 'eu-central-1'?"


def test_what_follows_from_a_missing_region_is_not_told_as_well() -> None:
    [problem] = problems_of({NAME: {"provider": "wasabi", "bucket": "example-media"}})
    assert problem.setting == f"stores.{NAME}.region"
    assert "eu-central-1" in problem.allowed


@pytest.mark.parametrize("provider", ["", None, 7, [], {"a": 1}, True])
def test_a_provider_that_is_no_text_is_refused(provider: object) -> None:
    assert [problem.setting for problem in problems_with(provider=provider)] == [f"stores.{NAME}.provider"]


def test_an_unknown_setting_is_named_with_the_nearest() -> None:
    [problem] = problems_with(bukcet="x")
    assert problem.setting == f"stores.{NAME}.bukcet"
    assert str(problem).startswith(f"stores.{NAME}.bukcet is no setting; allowed: abort_days, access, adopt, ")
    assert str(problem).endswith(". Did you mean 'bucket'?")


def test_a_key_is_brought_along_only_with_an_adopted_user() -> None:
    [problem] = problems_with(adopt_key="AKIAEXAMPLE")
    assert problem.setting == f"stores.{NAME}.adopt_key"
    assert "Set adopt: true" in str(problem)
    [problem] = problems_with(adopt=True, adopt_key="wJalr/XUtnFEMI+K7MDENG")
    assert "Not the secret access key" in str(problem)
    assert "wJalr" not in str(problem)


def test_a_secret_put_into_the_stack_file_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as refused:
        settings.parse(
            {NAME: {**GOOD, "secret_access_key": "wJalrXUtnFEMI", "endpoint": "https://admin:hunter2@s3.example.com"}}
        )
    assert len(refused.value.problems) == 2
    assert "secret_access_key" in str(refused.value)
    assert "wJalrXUtnFEMI" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("written", ["2026-02-03", "2026-02-03T04:05:06"])
def test_a_date_is_shown_as_it_was_written(written: str) -> None:
    with pytest.raises(SettingsError, match=f"bucket is {written}; allowed"):
        settings.parse({NAME: {**GOOD, "bucket": yaml.safe_load(written)}})


NO_ENDPOINTS = pytest.mark.parametrize(
    "endpoint",
    [
        "s3.example.com",
        "s3.example.com:9000",
        "https://s3.example.com/bucket",
        "https://s3.example.com//",
        "https://s3.example.com?x=1",
        "https://s3.example.com?",
        "https://s3.example.com#a",
        "https://user:pass@s3.example.com",
        "https://@s3.example.com",
        "ftp://s3.example.com",
        "s3://bucket",
        "https://",
        "https://:9000",
        "https://s3.example.com:0",
        "https://s3.example.com:99999",
        "https://s3.example.com:port",
        "https://s3 .example.com",
        "https://s3.\texample.com",
        "https://[::1",
        "https://{{ host }}",
        "https://s3.example.com'",
        "https://$(host)",
    ],
)


@NO_ENDPOINTS
@pytest.mark.parametrize("name", ["endpoint", "iam_endpoint"])
def test_an_endpoint_is_scheme_and_host(name: str, endpoint: str) -> None:
    [problem] = problems_with(**{name: endpoint})
    assert problem.setting == f"stores.{NAME}.{name}"
    assert "https://s3.example.com" in problem.allowed


OWN_URLS = [
    (name, setting)
    for name in catalog.names()
    for setting, rule in catalog.load(name).value("settings", {}).items()
    if rule["type"] == "url"
]


def _with_own_url(provider: str, setting: str, url: object) -> settings.StoreSettings:
    region = next(iter(catalog.load(provider).regions), "us-east-1")
    store = {"provider": provider, "bucket": "example-com-media", "region": region, setting: url}
    if not catalog.load(provider).endpoint(region):
        store["endpoint"] = "https://s3.example.com"
    return settings.parse({NAME: store})[NAME]


@NO_ENDPOINTS
@pytest.mark.parametrize(("provider", "setting"), OWN_URLS)
def test_a_url_among_a_providers_own_settings_is_scheme_and_host(provider: str, setting: str, endpoint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _with_own_url(provider, setting, endpoint)
    [problem] = refused.value.problems
    assert problem.setting == f"stores.{NAME}.{setting}"
    assert "user:pass" not in str(refused.value)


@pytest.mark.parametrize(("provider", "setting"), OWN_URLS)
def test_a_url_among_a_providers_own_settings_is_kept_in_one_form(provider: str, setting: str) -> None:
    kept = "https://api.example.com"
    assert _with_own_url(provider, setting, "HTTPS://api.example.com:443/").options == {setting: kept}


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("endpoint", "http://matrix_minio:9000", "'_'"),
        ("iam_endpoint", "http://matrix_minio:9000", "'_'"),
        ("endpoint", "https://-s3.example.com", "not a host name"),
        ("endpoint", "https://your-endpoint", "placeholder"),
        ("endpoint", "https://s3.REGION_NAME.example.com", "placeholder"),
        ("bucket", "your-bucket-name", "placeholder"),
        ("bucket", "s3://media", "Write media."),
        ("bucket", "media/synapse", "prefix: synapse/"),
        ("region", "eu-central-1a", "Write eu-central-1."),
        ("region", "REGION", "placeholder"),
        ("region", "-eu", "boto3 rejects"),
    ],
)
def test_a_value_is_judged_as_its_reader_does(name: str, value: str, word: str) -> None:
    [problem] = problems_with(**{name: value})
    assert problem.setting == f"stores.{NAME}.{name}"
    assert word.lower() in problem.next_step.lower()


def test_a_region_that_contradicts_the_endpoint_is_refused() -> None:
    [problem] = problems_with(region="us-east-1", endpoint="https://s3.eu-central-003.backblazeb2.com")
    assert "Write eu-central-003" in problem.next_step
    assert parsed_with(region="us-east-1", endpoint="https://fra1.digitaloceanspaces.com").region == "us-east-1"
    assert parsed_with(region="eu-central-003", endpoint="https://s3.eu-central-003.backblazeb2.com").endpoint


def test_every_setting_that_is_a_url_is_checked_as_one() -> None:
    assert {("backblaze_b2", "realm"), ("garage", "admin_endpoint"), ("storj", "auth_endpoint")} <= set(OWN_URLS)


@pytest.mark.parametrize(
    ("endpoint", "kept"),
    [
        ("https://s3.example.com/", "https://s3.example.com"),
        ("http://127.0.0.1:7271", "http://127.0.0.1:7271"),
        ("https://[::1]:9000", "https://[::1]:9000"),
        ("http://minio-1:9000", "http://minio-1:9000"),
        ("HTTPS://S3.Example.COM", "https://s3.example.com"),
        ("https://s3.example.com:443", "https://s3.example.com"),
        ("http://s3.example.com:80/", "http://s3.example.com"),
        ("http://s3.example.com:443", "http://s3.example.com:443"),
    ],
)
def test_an_endpoint_is_kept_in_one_form(endpoint: str, kept: str) -> None:
    assert parsed_with(endpoint=endpoint).endpoint == kept


def test_an_endpoint_that_nothing_tells_has_to_be_said() -> None:
    raw = {name: value for name, value in GOOD.items() if name != "endpoint"}
    [problem] = problems_of({NAME: raw})
    assert problem.setting == f"stores.{NAME}.endpoint"
    assert "is missing" in str(problem)


@pytest.mark.parametrize("given", [{}, {"iam_endpoint": ""}, {"iam_endpoint": " "}, {"iam_endpoint": "\t"}])
def test_a_store_without_iam_needs_a_key_of_ones_own(given: dict[str, str]) -> None:
    """Of blanks alone, as of a variable that is not set, the administrator's own key became Synapse's."""
    raw = {name: value for name, value in GOOD.items() if name != "iam_endpoint"} | given
    [problem] = problems_of({NAME: raw})
    assert problem.setting == f"stores.{NAME}.iam_endpoint"
    assert "existing_key: true" in problem.next_step
    assert settings.parse({NAME: {**raw, "existing_key": True}})[NAME].options == {"existing_key": True}


@pytest.mark.parametrize("name", ["endpoint", "iam_endpoint"])
@pytest.mark.parametrize("blank", ["", " "])
def test_a_url_of_nothing_is_the_providers(name: str, blank: str) -> None:
    raw = {"provider": "wasabi", "region": "us-east-1", "bucket": "example-media"}
    assert settings.parse({NAME: {**raw, name: blank}}) == settings.parse({NAME: raw})


@pytest.mark.parametrize(
    "prefix",
    ["media", "/media/", "a//b/", "/", "../", "a/../b/", "./", "a/./", "m'/", 'm"/', "m*/", "m?/", "${x}/", "{{x}}/"],
)
def test_a_prefix_is_a_plain_folder(prefix: str) -> None:
    [problem] = problems_with(prefix=prefix)
    assert problem.setting == f"stores.{NAME}.prefix"


@pytest.mark.parametrize("prefix", ["a\n/", "m\x00/", "m\r/", "m%20/", "m\\/", "m\u2028/", "a" * 200 + "/", 5, None])
def test_a_prefix_has_no_character_that_somebody_reads_otherwise(prefix: object) -> None:
    [problem] = problems_with(prefix=prefix)
    assert problem.setting == f"stores.{NAME}.prefix"


def test_a_prefix_is_judged_as_check_judges_it() -> None:
    [problem] = problems_with(prefix=" a/")
    assert problem.setting == f"stores.{NAME}.prefix"


@pytest.mark.parametrize("changes", [{"existing_key": "wJalrXUtnFEMI"}, {"adopt_key": "wJalrXUtnFEMI"}])
def test_a_key_where_none_belongs_is_not_shown(changes: dict[str, Any]) -> None:
    problems = problems_with(**changes)
    assert [problem.setting for problem in problems] == [f"stores.{NAME}.{next(iter(changes))}"]
    assert "wJal" not in " ".join(map(str, problems))


@pytest.mark.parametrize("changes", [{"prefix": "MY_MEDIA/"}, {"bucket": "your-bucket-name", "adopt": True}])
def test_what_is_there_may_look_like_a_placeholder(changes: dict[str, Any]) -> None:
    """Media may be under it: nothing else could be said in its place."""
    assert parsed_with(**changes).bucket == changes.get("bucket", GOOD["bucket"])


@pytest.mark.parametrize(
    ("endpoint", "without"),
    [
        ("https://media-example.fra1.digitaloceanspaces.com", "https://fra1.digitaloceanspaces.com"),
        ("https://my.media.s3.eu-central-1.amazonaws.com", "https://s3.eu-central-1.amazonaws.com"),
    ],
)
def test_a_buckets_address_is_no_endpoint(endpoint: str, without: str) -> None:
    [problem] = problems_with(endpoint=endpoint, region="eu-central-1" if "eu-central-1" in endpoint else "fra1")
    assert problem.setting == f"stores.{NAME}.endpoint"
    assert problem.next_step.endswith(f"write {without}.")


@pytest.mark.parametrize("prefix", ["media", "prefix/to/files", "a-"])
def test_only_a_bucket_that_is_taken_over_may_have_media_under_no_folder(prefix: str) -> None:
    """The README of the storage provider module has such an example, and so have keys that are there."""
    assert parsed_with(prefix=prefix, adopt=True).prefix == prefix
    [problem] = problems_with(prefix=prefix)
    assert "adopt: true" in problem.next_step
    for wrong in (f"/{prefix}", f"{prefix}/..", f"{prefix}*"):
        [problem] = problems_with(prefix=wrong, adopt=True)
        assert problem.setting == f"stores.{NAME}.prefix"


@pytest.mark.parametrize("prefix", ["", "media/", "a/b/", "Media 2024/", "(old)/", "m.d_-!/", "...a/"])
def test_a_good_prefix_is_kept_as_it_is(prefix: str) -> None:
    assert parsed_with(prefix=prefix).prefix == prefix


@pytest.mark.parametrize("method", ["goofys", "matrix-media-repo"])
def test_a_prefix_is_refused_where_the_method_has_none(method: str) -> None:
    extra = {"media_repo": {"s3_datastore_id": "x"}} if method == "matrix-media-repo" else {}
    [problem] = problems_with(method=method, prefix="media/", **extra)
    assert problem.setting == f"stores.{NAME}.prefix"
    assert method in problem.allowed


@pytest.mark.parametrize(
    "storage_class", ["ONEZONE_IA", "GLACIER", "GLACIER_IR", "DEEP_ARCHIVE", "standard", "", None, 1]
)
def test_a_class_that_the_module_refuses_or_that_is_not_read_at_once(storage_class: object) -> None:
    raw = {
        "provider": "amazon_s3",
        "region": "eu-central-1",
        "bucket": "example-media",
        "storage_class": storage_class,
    }
    found = problems_of({NAME: raw})
    assert {problem.setting for problem in found} == {f"stores.{NAME}.storage_class"}


@pytest.mark.parametrize(
    "keys",
    [
        None,
        "a",
        [],
        {"active": "c"},
        {"active": None},
        {"active": "a", "retiring": ["a"]},
        {"active": "a", "retiring": ["b", "b"]},
        {"active": "a", "retiring": "c"},
        {"active": ["a"]},
        {"active": "a", "retiring": [["b"]]},
        {"active": "a", "old": "b"},
    ],
)
def test_keys_are_two_slots(keys: object) -> None:
    assert [problem.setting for problem in problems_with(keys=keys)] == [f"stores.{NAME}.keys"]


@pytest.mark.parametrize("name", ["noncurrent_days", "abort_days"])
@pytest.mark.parametrize("value", [0, -1, 10_000, "7", 7.0, True, None, [], float("nan")])
def test_days_are_whole_numbers_in_a_range(name: str, value: object) -> None:
    [problem] = problems_with(**{name: value})
    assert problem.setting == f"stores.{NAME}.{name}"
    assert "a whole number from 1 to" in problem.allowed


@pytest.mark.parametrize("value", ["true", 1, 0, None, []])
def test_adopt_is_true_or_false(value: object) -> None:
    assert [problem.setting for problem in problems_with(adopt=value)] == [f"stores.{NAME}.adopt"]


@pytest.mark.parametrize("user", ["", "a b", "x" * 65, "jö", "a/b", "a\nb", 3, None, "a'b"])
def test_a_user_name_is_one_that_iam_takes(user: object) -> None:
    assert {problem.setting for problem in problems_with(user=user)} == {f"stores.{NAME}.user"}


@pytest.mark.parametrize("value", [1234, 12.5, True, ["b"], {"a": "b"}, "two\nlines"])
def test_what_yaml_reads_as_something_else_is_told_once(value: object) -> None:
    [problem] = problems_with(bucket=value)
    assert problem.setting == f"stores.{NAME}.bucket"


def test_a_missing_bucket_is_called_missing() -> None:
    raw = {name: value for name, value in GOOD.items() if name != "bucket"}
    [problem] = problems_of({NAME: raw})
    assert str(problem).startswith(f"stores.{NAME}.bucket is missing; allowed: 3 to 63")


def test_media_repo_ids_are_never_invented() -> None:
    [problem] = problems_with(method="matrix-media-repo")
    assert problem.setting == f"stores.{NAME}.media_repo.s3_datastore_id"
    assert "openssl rand" in problem.next_step
    [problem] = problems_with(media_repo={"s3_datastore_id": "x"})
    assert "method: matrix-media-repo" in problem.next_step
    for raw in (None, "x", {"s3": "x"}, {"s3_datastore_id": ""}, {"s3_datastore_id": 5}):
        [problem] = problems_with(method="matrix-media-repo", media_repo=raw)
        assert problem.setting == f"stores.{NAME}.media_repo"


def test_two_datastores_have_two_ids() -> None:
    ids = {"s3_datastore_id": "same", "file_datastore_id": "same"}
    [problem] = problems_with(method="matrix-media-repo", media_repo=ids)
    assert problem.setting == f"stores.{NAME}.media_repo"


@pytest.mark.parametrize("value", ["true", 1, None])
def test_an_option_of_the_provider_has_its_type(value: object) -> None:
    [problem] = problems_with(existing_key=value)
    assert problem.setting == f"stores.{NAME}.existing_key"


@pytest.mark.parametrize(
    "name", ["", " ", "-a", "a-", "a b", "http://a", "a/b", "a\n", "a:b", "a::1", "{{x}}", "a:123456", "ä.example"]
)
def test_a_store_is_named_by_its_homeserver(name: str) -> None:
    [problem] = problems_of({name: GOOD})
    assert problem.setting == f"stores.{name}"
    assert "matrix.example.com" in problem.allowed


@pytest.mark.parametrize("name", ["matrix.example.com", "example.com:8448", "localhost", "EXAMPLE.com", "1.2.3.4"])
def test_a_homeserver_may_have_a_port(name: str) -> None:
    assert list(settings.parse({name: GOOD})) == [name]


@pytest.mark.parametrize("stores", [None, {}, [], "x", 3, [GOOD]])
def test_stores_are_an_object(stores: object) -> None:
    [problem] = problems_of(stores)
    assert problem.setting == "synapse-media:stores"


@pytest.mark.parametrize("raw", [None, [], "x", 3])
def test_a_store_is_an_object(raw: object) -> None:
    assert f"stores.{NAME}" in {problem.setting for problem in problems_of({NAME: raw})}


@pytest.mark.parametrize(
    "allow",
    [
        ["delete-bucket"],
        [f"{NAME}/"],
        ["/delete-bucket"],
        [f"{NAME}/delete"],
        [None],
        [3],
        [[f"{NAME}/delete-bucket"]],
        f"{NAME}/delete-bucket",
        {f"{NAME}/delete-bucket": True},
        "",
        True,
    ],
)
def test_allow_is_a_list_of_homeserver_and_word(allow: object) -> None:
    found = problems_of({NAME: GOOD}, allow)
    assert {problem.setting for problem in found} == {"synapse-media:allow"}
    assert "delete-bucket" in found[0].allowed


def test_a_misspelt_word_of_allow_is_answered_with_the_nearest() -> None:
    [problem] = problems_of({NAME: GOOD}, [f"{NAME}/delete-buckett"])
    assert problem.next_step == f"Did you mean {NAME}/delete-bucket?"


def test_two_stores_never_share_a_bucket() -> None:
    other = {**GOOD, "method": "goofys", "user": "other", "endpoint": "https://S3.example.com:443/"}
    [problem] = problems_of({NAME: GOOD, "other.example.com": other})
    assert problem.setting == "stores.other.example.com.bucket"
    assert f"stores.{NAME} uses it already" in problem.next_step


def test_a_shared_bucket_is_found_beside_other_problems() -> None:
    found = problems_of({NAME: {**GOOD, "access": "all"}, "other.example.com": {**GOOD, "user": "other"}})
    assert {problem.setting for problem in found} == {f"stores.{NAME}.access", "stores.other.example.com.bucket"}


def test_two_stores_never_share_a_user() -> None:
    other = {**GOOD, "bucket": "other-media", "user": "synapse-media-example-com-media"}
    [problem] = problems_of({NAME: GOOD, "other.example.com": other})
    assert problem.setting == "stores.other.example.com.user"


def test_one_bucket_name_at_two_stores_is_two_buckets() -> None:
    other = {**GOOD, "endpoint": "https://s3.example.net", "iam_endpoint": "https://iam.example.net"}
    assert len(settings.parse({NAME: GOOD, "other.example.com": other})) == 2


def test_every_problem_of_every_store_is_told_at_once() -> None:
    stores = {
        "-bad-": GOOD,
        "a.example.com": {
            "provider": "s3_compatible",
            "bucket": "B",
            "method": "goofys",
            "access": "x",
            "region": "no region",
            "endpoint": "s3",
            "prefix": "p",
            "storage_class": "GLACIER",
            "user": "a b",
            "keys": 1,
            "adopt": "yes",
            "noncurrent_days": 0,
            "abort_days": 0,
            "media_repo": 1,
            "existing_key": "no",
            "nonsense": 1,
        },
        "b.example.com": {
            "provider": "nobody",
            "bucket": "B",
            "access": "x",
            "endpoint": "s3",
            "iam_endpoint": "https://iam.example.com/path",
            "prefix": "p",
            "user": "a b",
            "keys": 1,
            "adopt": 1,
            "adopt_key": "!!",
            "media_repo": {"x": 1},
            "nonsense": 1,
        },
        "c.example.com": {"method": "filesystem", "provider": "nobody", "nonsense": 1, "realm": "of any provider"},
    }
    found = {problem.setting for problem in problems_of(stores, ["x"])}
    of_a = ["bucket", "access", "region", "endpoint", "prefix", "storage_class", "user", "keys", "adopt", "nonsense"]
    of_a += ["noncurrent_days", "abort_days", "media_repo", "existing_key"]
    of_b = ["provider", "bucket", "access", "endpoint", "iam_endpoint", "prefix", "user", "keys", "adopt", "adopt_key"]
    of_b += ["media_repo", "nonsense"]
    of_c = ["provider", "nonsense"]
    assert found == {
        "synapse-media:allow",
        "stores.-bad-",
        *(f"stores.a.example.com.{name}" for name in of_a),
        *(f"stores.b.example.com.{name}" for name in of_b),
        *(f"stores.c.example.com.{name}" for name in of_c),
    }


def test_the_message_has_a_line_for_each_problem() -> None:
    with pytest.raises(SettingsError) as refused:
        settings.parse({NAME: {**GOOD, "bucket": "B", "access": "x"}})
    lines = str(refused.value).splitlines()
    assert len(lines) == len(refused.value.problems) == 2
    assert lines[0].startswith(f"stores.{NAME}.bucket is 'B'; allowed: ")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(
    [*catalog.names(), *METHODS, "least", "full", "a", "b", "media/", "https://s3.example.com", "us-east-1", "bucket-1"]
)
NAMES = st.sampled_from(sorted(settings._COMMON | {"existing_key", "ca_file", "kms_key", "tags", "keyless", "x"}))
STORE = st.dictionaries(NAMES, WORDS | ANYTHING, max_size=12)
LIKELY = st.fixed_dictionaries(
    {"provider": st.sampled_from(catalog.names()), "bucket": st.just("example-media")},
    optional={"region": WORDS, "endpoint": WORDS, "iam_endpoint": WORDS, "method": WORDS, "keys": ANYTHING},
)


KEY = st.text(max_size=20) | st.integers() | st.none() | st.dates() | st.sampled_from([NAME, "other.example.com"])


@given(
    stores=ANYTHING | st.dictionaries(KEY, STORE | LIKELY | ANYTHING, max_size=3),
    allow=st.none() | st.lists(st.text(max_size=20), max_size=2) | ANYTHING,
)
@example(stores={NAME: GOOD}, allow=[f"{NAME}/delete-bucket"])
def test_no_input_ends_in_anything_but_settings_or_an_error_that_names_them(stores: object, allow: object) -> None:
    try:
        parsed = settings.parse(stores, allow)
    except SettingsError as refused:
        parsed = {}
        told = refused.problems
    else:
        told = ()
    assert bool(parsed) != bool(told)
    assert all(str(problem) for problem in told)
    for name, store in parsed.items():
        assert store.server_name == name
        assert not store.uses_store or store.bucket


@given(text=st.text(alphabet=string.printable + "\u0085\u2028äöü", max_size=30))
def test_what_is_accepted_as_a_name_has_only_what_it_may_have(text: str) -> None:
    """Newlines above all: `$` in a pattern lets one through at the end."""
    for name, allowed in (
        ("bucket", string.ascii_lowercase + string.digits + "-"),
        ("user", string.ascii_letters + string.digits + "+=,.@_-"),
        ("endpoint", string.ascii_letters + string.digits + ":/.-_[]"),
        ("region", string.ascii_letters + string.digits + "-"),
    ):
        try:
            store = parsed_with(**{name: text})
        except SettingsError:
            continue
        assert set(getattr(store, name)) <= set(allowed)


# ---- as a program says it, and as `pulumi config set` does


def test_settings_in_json_text_are_read_as_the_object_that_they_are() -> None:
    stores, allow = {NAME: GOOD}, [f"{NAME}/delete-bucket"]
    assert settings.parse(json.dumps(stores), json.dumps(allow)) == settings.parse(stores, allow)
    assert problems_of("{not json")[0].setting == "synapse-media:stores"
    assert problems_of({NAME: GOOD}, "delete-bucket")[0].setting == "synapse-media:allow"


def test_what_a_command_confirms_stands_beside_allow_in_json_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.CONFIRMED, f"{NAME}/retire-key")
    allow = settings.with_confirmed(json.dumps([f"{NAME}/delete-bucket"]))
    assert settings.parse({NAME: GOOD}, allow)[NAME].allow == {"delete-bucket", "retire-key"}


@pytest.mark.parametrize(
    ("stores", "named"),
    [
        ({"secure": "AAAB"}, ["synapse-media:stores"]),
        ({NAME: {**GOOD, "bucket": {"secure": "AAAB"}}}, [f"synapse-media:stores.{NAME}.bucket"]),
        (
            {NAME: {"endpoint": {"secure": "AAAB"}, "media_repo": {"s3_datastore_id": {"secure": "AAAB"}}}},
            [f"synapse-media:stores.{NAME}.{name}" for name in ("endpoint", "media_repo.s3_datastore_id")],
        ),
    ],
)
def test_an_encrypted_value_is_named_and_not_shown(stores: object, named: list[str]) -> None:
    problems = problems_of(stores)
    assert [problem.setting for problem in problems] == named
    assert "AAAB" not in str(problems[0])
    assert "--plaintext" in str(problems[0])


AMAZON: dict[str, Any] = {"provider": "amazon_s3", "region": "eu-central-1", "bucket": "example-com-media"}
KMS = "arn:aws:kms:eu-central-1:123456789012:key/abc"


def test_what_a_method_excludes_is_told_with_everything_else() -> None:
    problems = problems_of({NAME: {**AMAZON, "method": "matrix-media-repo", "keyless": True, "abort_days": 0}})
    assert {problem.setting.rpartition(".")[2] for problem in problems} == {"keyless", "abort_days", "s3_datastore_id"}


def test_what_allow_excludes_is_told_with_everything_else() -> None:
    wrong = {**AMAZON, "adopt": True, "kms_key": KMS, "abort_days": 0}
    problems = problems_of({NAME: wrong}, [f"{NAME}/set-encryption"])
    assert {problem.setting.rpartition(".")[2] for problem in problems} == {"kms_key", "abort_days"}


@pytest.mark.parametrize("provider", ["garage", "backblaze_b2", "digitalocean_spaces", "storj"])
def test_an_iam_endpoint_is_refused_where_there_is_no_such_api(provider: str) -> None:
    raw = {"provider": provider, "bucket": "example-com-media", "iam_endpoint": "https://iam.example.com"}
    assert f"stores.{NAME}.iam_endpoint" in [problem.setting for problem in problems_of({NAME: raw})]


def test_what_is_only_known_later_is_not_judged_now() -> None:
    raw = {**AMAZON, "bucket": settings.LATER, "region": settings.LATER, "kms_key": settings.LATER}
    store = settings.check(NAME, raw, ["delete-bucket"], where="args")
    assert store.later == {"bucket", "region", "kms_key", "endpoint", "user"}
    assert store.iam_endpoint == "https://iam.amazonaws.com"
    assert store.allow == {"delete-bucket"}


def test_what_is_only_known_later_stands_for_a_value_that_is_needed() -> None:
    raw: dict[str, Any] = {"provider": "garage", "bucket": "media", "admin_endpoint": settings.LATER}
    with pytest.raises(SettingsError) as refused:
        settings.check(NAME, {**raw, "region": settings.LATER}, where="args")
    assert [problem.setting for problem in refused.value.problems] == ["args.endpoint"]
    assert settings.check(NAME, {**raw, "endpoint": settings.LATER}, where="args").later == {
        "endpoint",
        "admin_endpoint",
    }


def test_a_program_is_told_everything_at_once_by_its_own_names() -> None:
    with pytest.raises(SettingsError) as refused:
        settings.check("not a host", {**GOOD, "bucket": "No", "access": "more"}, ["no-word"], where="args")
    assert {problem.setting for problem in refused.value.problems} == {
        "args.server_name",
        "args.bucket",
        "args.access",
        "args.allow",
    }
    with pytest.raises(SettingsError, match="declare none"):
        settings.check(NAME, {**GOOD, "method": "filesystem"}, where="args")


def test_stores_of_a_program_that_exclude_each_other_are_told_apart_by_their_place() -> None:
    store = settings.check(NAME, GOOD, where="args")
    program = settings.Together()
    program.add("first", store)
    with pytest.raises(SettingsError, match=r"second\.bucket .* first uses it already") as refused:
        program.add("second", settings.check("other.example.com", {**GOOD, "user": store.user}, where="args"))
    assert [problem.setting for problem in refused.value.problems] == ["second.bucket", "second.user"]
    with pytest.raises(SettingsError, match=r"another first\.bucket .* first uses it already"):
        program.add("first", settings.check("other.example.com", {**GOOD, "user": store.user}, where="args"))
    another = settings.check(NAME, {**GOOD, "bucket": "another", "user": "another"}, where="args")
    with pytest.raises(SettingsError, match=r"third\.server_name .* no other store\. first has it already"):
        program.add("third", another)


def test_an_administrators_key_makes_no_store_beside_one_of_its_own_key() -> None:
    own = {"provider": "minio", "endpoint": "https://one.example.com", "bucket": "media-one", "existing_key": True}
    made = {
        "provider": "s3_compatible",
        "endpoint": "https://two.example.com",
        "iam_endpoint": "https://iam.example.com",
        "bucket": "media-two",
    }
    with pytest.raises(SettingsError) as refusal:
        settings.parse({"one.example.com": own, "two.example.com": made})
    [problem] = refusal.value.problems
    assert problem.setting == "stores.one.example.com.existing_key"
    assert "stores.two.example.com is made with an administrator's key in S3_ACCESS_KEY_ID" in str(problem)
    other = {**own, "endpoint": "https://three.example.com", "bucket": "media-three"}
    assert len(settings.parse({"one.example.com": own, "three.example.com": other})) == 2


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"team": None}, "tags.team is None; allowed: at most 256"),
        ({"team": True}, "tags.team is True; allowed: at most 256"),
        ({"team": {"a": "b"}}, "tags.team is {'a': 'b'}; allowed: at most 256"),
        ({"team": "a" * 257}, "allowed: at most 256"),
        ({"aws:team": "a"}, "tags is 'aws:team'; allowed: 1 to 128"),
        ({"AWS:team": "a"}, "not beginning with aws:"),
        ({"": "a"}, "tags is ''; allowed: 1 to 128"),
        ({3: "a"}, "tags is 3; allowed: 1 to 128"),
    ],
)
def test_a_tag_that_amazon_refuses_is_named(tags: object, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings.parse({NAME: {**AMAZON, "tags": tags}})
    assert said in str(refused.value)


def test_a_bucket_is_not_its_own_log() -> None:
    with pytest.raises(SettingsError, match=r"log_bucket is .*; allowed: another bucket than the store's own"):
        settings.parse({NAME: {**AMAZON, "log_bucket": AMAZON["bucket"]}})


DEFAULTS: dict[str, Any] = {"provider": "wasabi", "region": "eu-central-1", "access": "full", "prefix": "media/"}


def with_defaults(defaults: object, *stores: dict[str, Any]) -> list[settings.StoreSettings]:
    named = {f"{number}.example.com": {"bucket": f"media-{number}", **store} for number, store in enumerate(stores)}
    return list(settings.parse(named, None, defaults).values())


def problems_with_defaults(defaults: object, *stores: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        with_defaults(defaults, *stores)
    return [str(problem) for problem in refused.value.problems]


def test_a_store_takes_what_it_does_not_say_from_the_defaults() -> None:
    plain, other = with_defaults(DEFAULTS, {}, {"region": "us-east-1", "access": "least", "prefix": ""})
    assert (plain.provider, plain.region, plain.access, plain.prefix) == ("wasabi", "eu-central-1", "full", "media/")
    assert plain.endpoint == "https://s3.eu-central-1.wasabisys.com"
    assert (other.provider, other.region, other.access, other.prefix) == ("wasabi", "us-east-1", "least", "")
    assert with_defaults(json.dumps(DEFAULTS), {}) == [plain]
    assert with_defaults(None, {**DEFAULTS}) == with_defaults({}, {**DEFAULTS}) == [plain]


def test_null_takes_a_default_away() -> None:
    [store] = with_defaults({**DEFAULTS, "abort_days": 3}, {"access": None, "prefix": None, "abort_days": None})
    assert (store.access, store.prefix, store.abort_days) == ("least", "", 7)
    amazon = {"provider": "amazon_s3", "region": "eu-central-1", "tags": {"team": "matrix"}}
    # Also one that its provider does not know.
    _, store = with_defaults(amazon, {}, {"provider": "wasabi", "tags": None})
    assert store.options == {}
    # Its line says nothing more: what is needed and now missing is the store's.
    [problem] = problems_with_defaults(DEFAULTS, {}, {"provider": None})
    assert problem.startswith("stores.1.example.com.provider is missing; allowed: ")


@pytest.mark.parametrize("name", ["access", "prefix", "abort_days", "user", "storage_class"])
def test_null_that_takes_nothing_away_is_a_value_that_was_forgotten(name: str) -> None:
    [problem] = problems_with_defaults({"provider": "wasabi", "region": "eu-central-1"}, {name: None})
    assert problem.startswith(f"stores.0.example.com.{name} is missing; allowed: ")


def test_an_object_of_the_defaults_is_replaced_as_a_whole() -> None:
    defaults = {"provider": "amazon_s3", "region": "eu-central-1", "tags": {"team": "matrix", "stage": "live"}}
    plain, other = with_defaults(defaults, {}, {"tags": {"team": "chat"}})
    assert plain.options["tags"] == {"team": "matrix", "stage": "live"}
    assert other.options["tags"] == {"team": "chat"}


@pytest.mark.parametrize("name", sorted(settings.per_store()))
def test_what_is_of_one_homeserver_is_no_default(name: str) -> None:
    [problem] = problems_with_defaults({**DEFAULTS, name: "hunter2hunter2"}, {}, {})
    assert problem.startswith(f"defaults.{name} is no default; allowed: abort_days, access, ")
    assert f"Set it in each store: {settings.per_store()[name]}." in problem
    assert "hunter2" not in problem


def test_a_default_is_of_the_settings() -> None:
    assert settings.per_store().keys() >= {"bucket", "user", "keys", "adopt", "existing_key"}
    [problem] = problems_with_defaults({"regoin": "eu-central-1", "provider": "wasabi"}, {}, {})
    assert problem.startswith("defaults.regoin is no setting; allowed: ")
    assert problem.endswith("Did you mean 'region'?")
    [problem] = problems_with_defaults([DEFAULTS], {})
    assert problem.startswith("synapse-media:defaults is [{'provider': 'wasabi'")
    [problem] = problems_with_defaults({**DEFAULTS, "method": "filesystem"}, {}, {})
    assert problem.startswith("defaults.method is 'filesystem'; allowed: synapse-s3-storage-provider, goofys, ")
    [problem] = problems_with_defaults({"region": {"secure": "v1:abc"}}, {})
    assert problem.startswith("synapse-media:defaults.region is a `secure:` value")


def test_what_is_wrong_with_a_default_is_said_once() -> None:
    stores = [{} for _ in range(200)]
    [problem] = problems_with_defaults({**DEFAULTS, "region": "eu-centrall-1"}, *stores)
    assert problem.startswith("defaults.region is 'eu-centrall-1'; allowed: ")
    assert "Did you mean 'eu-central-1'?" in problem
    assert problem.endswith("It is the default of stores.0.example.com and 199 others.")
    # A store that says otherwise does not have it; of what a store says itself, the store is named.
    [of_default, of_store] = sorted(
        problems_with_defaults({**DEFAULTS, "access": "all"}, {"access": "least"}, {}, {"region": "x"})
    )
    assert of_default.startswith("defaults.access is 'all'")
    assert of_default.endswith("It is the default of stores.1.example.com and 1 other.")
    assert of_store.startswith("stores.2.example.com.region is 'x'")


def test_a_default_that_one_provider_does_not_know_names_its_store() -> None:
    defaults = {"provider": "amazon_s3", "region": "eu-central-1", "tags": {"team": "matrix"}}
    [problem] = problems_with_defaults(defaults, {}, {}, {"provider": "wasabi"})
    assert problem.startswith("defaults.tags is no setting; ")
    assert problem.endswith("It is the default of stores.2.example.com.")


def test_variables_of_the_program() -> None:
    assert settings.parse_variables(None) == ()
    assert settings.parse_variables(["GITHUB_TOKEN", "_x1", "GITHUB_TOKEN"]) == ("GITHUB_TOKEN", "_x1")
    assert settings.parse_variables('["KUBECONFIG"]') == ("KUBECONFIG",)


@pytest.mark.parametrize(
    "value",
    ["GITHUB_TOKEN", {"GITHUB_TOKEN": "x"}, [7], [None], ["A=b"], ["1A"], [""], ["A\nB"], [["A"]], 3, True],
)
def test_variables_that_are_none(value: object) -> None:
    with pytest.raises(SettingsError, match=r"synapse-media:variables"):
        settings.parse_variables(value)


def test_a_value_in_place_of_a_variables_name_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.parse_variables(["GITHUB_TOKEN=ghp_hidden", {"GITHUB_TOKEN": "ghp_hidden"}])
    assert "hidden" not in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        settings.parse_variables("GITHUB_TOKEN=ghp_hidden")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["PULUMI_DEBUG_GRPC", "PULUMI_OPTION_TARGET", "AWS_SDK_GO_LOGGING_LEVEL"])
def test_variables_that_make_pulumi_write_secrets_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings.parse_variables(["GITHUB_TOKEN", name])


@pytest.mark.parametrize(
    ("url", "step"),
    [
        ("s3.example.com", "Add the scheme."),
        ("s3.example.com:9000/", "Add the scheme."),
        ("bad value!", "Write http:// or https://, and the host."),
        ("https://s3.example.com/bucket", "Leave out the path"),
    ],
)
def test_how_a_url_is_mended(url: str, step: str) -> None:
    store = {"provider": "s3_compatible", "bucket": "media", "endpoint": url, "iam_endpoint": "https://iam.example.com"}
    with pytest.raises(SettingsError) as caught:
        settings.parse({"example.com": store})
    assert step in str(caught.value)


def test_stores_in_text_that_is_no_json() -> None:
    with pytest.raises(SettingsError, match="This text is no JSON"):
        settings.parse('{"example.com": {')
