"""The arguments of the components, and the resources made from them, on Pulumi's mocks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.runtime import set_mocks
from pulumi.runtime import test as as_program

import components
from components.args import StoreArgs
from components.store import Store
from synapse_media import catalog, extras, settings
from tests.components.test_s3_iam import Monitor
from tests.providers.mocked import Declared

KMS = "arn:aws:kms:eu-central-1:123456789012:key/abc"
ADMIN = {
    "AWS_ACCESS_KEY_ID": "placeholder",
    "AWS_SECRET_ACCESS_KEY": "placeholder",
    "SPACES_ACCESS_KEY_ID": "placeholder",
    "SPACES_SECRET_ACCESS_KEY": "placeholder",
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ADMIN.items():
        monkeypatch.setenv(name, value)


@dataclass(slots=True)
class Ran:
    """A program's registrations: {URN: request}, and the inputs of all that was made."""

    requests: dict[str, Any]
    made: Declared

    def providers(self, kind: str) -> set[str]:
        """Names of the providers that resources of a type were made by."""
        urns = (found.provider for found in self.requests.values() if found.type.endswith(f":{kind}"))
        return {urn.split("::")[3] for urn in urns}


def run(program: Callable[[], Any], *, preview: bool = False) -> Ran:
    made = Declared()
    monitor = Monitor(made)
    set_mocks(made, project="acme", stack="mocked", preview=preview, monitor=monitor)
    as_program(program)()
    return Ran(monitor.requests, made)


def later(value: Any) -> pulumi.Output[Any]:
    return pulumi.Output.from_input(value)


def amazon(name: str = "media", opts: pulumi.ResourceOptions | None = None, **more: Any) -> Store:
    values = {"server_name": "example.com", "bucket": "example-com-media", "region": "eu-central-1", **more}
    return components.AmazonS3(name, components.AmazonS3Args(**values), opts)


def spaces(name: str, opts: pulumi.ResourceOptions | None = None, **more: Any) -> Store:
    values = {"server_name": f"{name}.example.com", "bucket": f"{name}-media", "region": "fra1", "user": name, **more}
    return components.DigitalOceanSpaces(name, components.DigitalOceanSpacesArgs(**values), opts)


# ---- values of other resources


def test_whatever_comes_later_is_made_of_its_value() -> None:
    """The same as with the values themselves, but for the plugin's name, which nothing that is known tells apart."""
    values: dict[str, Any] = {
        "bucket": "example-com-media",
        "region": "eu-central-1",
        "prefix": "media/",
        "kms_key": KMS,
        "log_bucket": "example-com-logs",
        "tags": {"team": "matrix"},
    }
    found = []
    for handed in (values, {name: later(value) for name, value in values.items()}):
        ran = run(lambda handed=handed: amazon(**handed))
        found.append(
            [one for one in sorted(ran.made.resources, key=lambda one: one[:2]) if "providers:aws" not in one[0]]
        )
        assert "__str__" not in json.dumps(ran.made.resources)
    assert found[0] == found[1]


def test_a_name_may_come_later_in_a_preview_on_mocks() -> None:
    """A user's own tests: Pulumi's mocks have no transforms."""
    ran = run(lambda: (amazon(bucket=later("example-com-media")), spaces("s", bucket=later("media-s"))), preview=True)
    assert ran.made.one("Bucket")["bucket"] == "example-com-media"
    assert ran.made.one("SpacesBucket")["name"] == "media-s"


def test_a_tag_alone_may_come_later() -> None:
    ran = run(lambda: amazon(tags={"team": later("matrix"), "plain": "x"}))
    assert {"team": "matrix", "plain": "x"}.items() <= ran.made.one("User")["tags"].items()


def test_an_endpoint_that_comes_later_is_of_https() -> None:
    """Whether there is a policy that refuses plain http has to be known before."""
    ran = run(lambda: amazon(endpoint=later("https://s3.internal.example.com")))
    assert "aws:SecureTransport" in ran.made.one("BucketPolicy")["policy"]
    with pytest.raises(pulumi.RunError, match="allowed: an https URL"):
        run(lambda: amazon(endpoint=later("http://s3.internal.example.com")))


def test_a_value_that_comes_later_is_checked_then() -> None:
    with pytest.raises(pulumi.RunError, match=r"AmazonS3 'media': args\.kms_key is 'alias/x'; allowed: an ARN"):
        run(lambda: amazon(kms_key=later("alias/x")))


@pytest.mark.parametrize("when", [str, later])
def test_an_iam_endpoint_of_blanks_hands_nobody_the_administrators_key(when: Callable[[str], Any]) -> None:
    args = components.S3CompatibleArgs(
        server_name="example.com",
        bucket="example-com-media",
        endpoint="https://s3.example.com",
        iam_endpoint=when(" "),
        region="us-east-1",
    )
    with pytest.raises(pulumi.RunError, match=r"args\.iam_endpoint is missing.*existing_key: true"):
        run(lambda: components.S3Compatible("media", args))


@pytest.mark.parametrize(
    "name",
    [
        item.name
        for item in fields(components.AmazonS3Args)
        if item.name != "from_stack_file" and "Input" not in str(item.type)
    ],
)
def test_what_decides_over_resources_refuses_an_output_by_name(name: str) -> None:
    with pytest.raises(pulumi.RunError, match=rf"args\.{name} is a pulumi\.Output; allowed: a value that is known"):
        run(lambda: amazon(**{name: later("anything")}))


@pytest.mark.parametrize("name", ["allow", "keys", "media_repo"])
def test_an_output_is_found_inside_of_a_value(name: str) -> None:
    inside = {
        "allow": [later("delete-bucket")],
        "keys": components.Keys(active=later("a")),  # type: ignore[arg-type]
        "media_repo": {"s3_datastore_id": later("x")},
    }[name]
    with pytest.raises(pulumi.RunError, match=rf"args\.{name} is a pulumi\.Output"):
        run(lambda: amazon(**{name: inside}))


def test_a_preset_of_another_family_is_refused() -> None:
    args = components.S3CompatibleArgs(
        server_name="example.com", bucket="media", endpoint="https://s3.example.com", provider="wasabi"
    )
    with pytest.raises(pulumi.RunError, match=r"args\.provider is 'wasabi'; allowed: .*minio"):
        run(lambda: components.S3Compatible("media", args))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"server_name": None}, r"args\.server_name is None; allowed: a host name"),
        ({"server_name": 3}, r"args\.server_name is an int; allowed: a host name"),
        ({"from_stack_file": "yes"}, r"args\.from_stack_file is a str; allowed: true or false"),
        ({"allow": None}, r"args\.allow is None; allowed: a list of delete-bucket, "),
        ({"allow": [3]}, r"args\.allow is \[3\]; allowed: a list of delete-bucket, "),
        ({"allow": "delete-bucket"}, r"args\.allow is 'delete-bucket'; allowed: a list of delete-bucket, "),
        ({"allow": {"delete-bucket": True}}, r"args\.allow is a dict; allowed: a list of delete-bucket, "),
    ],
)
def test_an_argument_of_another_type_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(pulumi.RunError, match=rf"AmazonS3 'media': {said}"):
        run(lambda: amazon(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allow": ["delete-bukcet"]}, "Did you mean 'delete-bucket'?"),
        ({"storage_class": 3}, "Write it as a string."),
        ({"adopt": "yes"}, "Write it as a boolean."),
        ({"keys": "a"}, "Write Keys(active, retiring)."),
        ({"keys": components.Keys(retiring=None)}, "retiring a list of the others"),  # type: ignore[arg-type]
        ({"settle_seconds": "x"}, "allowed: a whole number of seconds, 0 to 3600."),
        ({"settle_seconds": -1}, "allowed: a whole number of seconds, 0 to 3600."),
        ({"settle_seconds": 3601}, "allowed: a whole number of seconds, 0 to 3600."),
        ({"settle_seconds": 10**5000}, "allowed: a whole number of seconds, 0 to 3600."),
        ({"noncurrent_days": 10**5000}, "allowed: a whole number from 1 to 3650."),
        ({"tags": "x"}, "allowed: an object."),
    ],
)
def test_a_message_is_written_for_a_program(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        run(lambda: amazon(**changes))
    assert said in str(refused.value)
    assert "YAML" not in str(refused.value)
    assert "<Word" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("media", None), r"'media': args is None; allowed: S3CompatibleArgs"),
        (("media", {"bucket": "x"}), r"'media': args is a dict; allowed: S3CompatibleArgs"),
        (
            ("media", components.WasabiArgs(server_name="example.com", bucket="media")),
            r"'media': args is a WasabiArgs; allowed: S3CompatibleArgs",
        ),
        ((None, None), "name is None; allowed: a string"),
        (("", None), "name is a str; allowed: a string that is not empty"),
        (("media", None, {"protect": True}), r"opts is a dict; allowed: pulumi\.ResourceOptions"),
        (("media", None, pulumi.InvokeOptions()), r"opts is an InvokeOptions; allowed: pulumi\.ResourceOptions"),
    ],
)
def test_an_argument_of_a_constructor_of_another_type_is_named(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(pulumi.RunError, match=f"S3Compatible.*{said}"):
        run(lambda: components.S3Compatible(*arguments))


def test_what_is_published_is_what_a_store_has() -> None:
    def publishing(chosen: Callable[[Store], Any]) -> Callable[[], None]:
        return lambda: components.publish(chosen(amazon()))

    for chosen, said in (
        (lambda store: {"example.com": store}, r"stores\['example.com'\] is an AmazonS3; allowed: storage_outputs"),
        (lambda store: {"example.com": store.outputs}, r"stores\['example.com'\] is an Output; allowed"),
        (lambda _: {"example.com": {}}, r"stores\['example.com'\] is a dict; allowed"),
        (lambda store: store.outputs, "stores is an Output; allowed: a mapping"),
        (lambda store: {None: store.storage_outputs}, r"stores\[None\] is a dict"),
    ):
        with pytest.raises(pulumi.RunError, match=said):
            run(publishing(chosen))
    with pytest.raises(pulumi.RunError, match="store is a dict; allowed: a value of from_config"):
        components.make({"provider": "minio"})  # type: ignore[arg-type]


def test_several_calls_publish_all_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)

    def program() -> None:
        one, two = amazon(), amazon("more", server_name="example.org", bucket="example-org-media", user="more")
        components.publish({"example.com": one.storage_outputs})
        components.publish({"example.org": two.storage_outputs})
        with pytest.raises(pulumi.RunError, match=r"stores\['example.com'\] was published by an earlier call"):
            components.publish({"example.com": dict(one.storage_outputs)})
        with pytest.raises(pulumi.RunError, match=r"stores\['example.com'\] is the store of 'example.org'"):
            components.publish({"example.com": two.storage_outputs})

    run(program)
    assert set(exported["stores"]) == set(exported["store_secrets"]) == {"example.com", "example.org"}


def test_a_store_that_was_refused_is_not_held_against_the_next() -> None:
    def program() -> None:
        amazon()
        with pytest.raises(pulumi.RunError, match="a bucket that no other store uses"):
            amazon("again", server_name="example.org", user="again")
        amazon("again", server_name="example.org", bucket="example-org-media", user="again")

    run(program)


def test_a_missing_sdk_of_a_stack_files_store_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {"provider": "amazon_s3", "bucket": "example-com-media", "region": "eu-central-1"}
    [store] = settings.parse({"example.com": raw}).values()
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(pulumi.RunError, match=r"pip install 'synapse-media\[aws\]'"):
        components.make(store)


@pytest.mark.parametrize("name", ["iam_endpoint", "prefix", "user", "kms_key", "tags"])
def test_an_optional_input_that_is_none_later_takes_its_default(name: str) -> None:
    found = []
    for handed in ({}, {name: later(None)}):
        ran = run(lambda handed=handed: amazon(**handed))
        found.append(
            [one for one in sorted(ran.made.resources, key=lambda one: one[:2]) if "providers:aws" not in one[0]]
        )
    assert found[0] == found[1]


def test_a_user_that_is_none_follows_from_a_bucket_that_comes_later() -> None:
    ran = run(lambda: amazon(bucket=later("acme-media"), user=later(None)))
    assert ran.made.one("User")["name"] == "synapse-media-acme-media"


def test_a_log_that_comes_later_is_some_bucket() -> None:
    with pytest.raises(pulumi.RunError, match=r"args\.log_bucket is None; allowed: the name of a bucket"):
        run(lambda: amazon(log_bucket=later(None)))
    with pytest.raises(pulumi.RunError, match=r"args\.log_bucket is .*; allowed: another bucket than the store's own"):
        run(lambda: amazon(log_bucket=later("example-com-media")))


def test_a_tag_that_comes_later_is_checked_then() -> None:
    with pytest.raises(pulumi.RunError, match=r"args\.tags\.team is None; allowed: at most 256 letters"):
        run(lambda: amazon(tags={"team": later(None)}))


@pytest.mark.parametrize(
    ("provider", "refused"), [("garage", ["noncurrent_days"]), ("storj", ["abort_days", "noncurrent_days"])]
)
def test_a_retention_that_the_provider_lacks_is_refused(provider: str, refused: list[str]) -> None:
    component = catalog.load(provider).component_class
    own = (
        {"admin_endpoint": "http://127.0.0.1:3903", "endpoint": "http://127.0.0.1:3900"} if provider == "garage" else {}
    )
    args = getattr(components, f"{component}Args")

    def declare(**more: Any) -> None:
        run(
            lambda: getattr(components, component)(
                "media", args(server_name="example.com", bucket="media", **own, **more)
            )
        )

    declare()
    for name in refused:
        with pytest.raises(pulumi.RunError, match=rf"args\.{name} is 3; allowed: nothing: "):
            declare(**{name: 3})
    # The defaults that a stack file's settings carry are none that were given.
    raw = {"provider": provider, "bucket": "media", **own}
    run(lambda: components.make(settings.parse({"example.com": raw})["example.com"]))


# ---- options


def test_a_provider_of_the_users_own_takes_the_place_of_ours() -> None:
    import pulumi_aws
    import pulumi_digitalocean

    def program() -> None:
        aws = pulumi_aws.Provider("of-the-user", region="eu-central-1")
        ocean = pulumi_digitalocean.Provider("of-the-user")
        amazon(opts=pulumi.ResourceOptions(provider=aws))
        spaces("ocean", pulumi.ResourceOptions(providers={"digitalocean": ocean}))

    ran = run(program)
    for kind in ("Bucket", "BucketPolicy", "User", "UserPolicy", "SpacesBucket"):
        assert ran.providers(kind) == {"of-the-user"}, kind
    assert [name for kind, name, _ in ran.made.resources if kind.startswith("pulumi:providers:")] == ["of-the-user"] * 2


def test_a_provider_of_a_component_above_takes_the_place_of_ours() -> None:
    """As examples/component-inputs hands one down; here for a vendor's package, whose cloud no test reaches."""
    import pulumi_aws

    def program() -> None:
        aws = pulumi_aws.Provider("of-the-user", region="eu-central-1")
        above = pulumi.ComponentResource("acme:a:Home", "home", {}, pulumi.ResourceOptions(providers=[aws]))
        amazon(opts=pulumi.ResourceOptions(parent=above))

    ran = run(program)
    for kind in ("Bucket", "BucketPolicy", "User", "UserPolicy"):
        assert ran.providers(kind) == {"of-the-user"}, kind
    assert [name for kind, name, _ in ran.made.resources if kind.startswith("pulumi:providers:")] == ["of-the-user"]


def test_a_bucket_is_protected_as_the_options_say() -> None:
    def protected(opts: pulumi.ResourceOptions | None = None, **more: Any) -> bool:
        ran = run(lambda: amazon(opts=opts, **more))
        (bucket,) = [found for found in ran.requests.values() if found.type == "aws:s3/bucket:Bucket"]
        return bool(bucket.protect)

    assert protected()
    assert not protected(allow=["delete-bucket"])
    assert protected(pulumi.ResourceOptions(protect=True), allow=["delete-bucket"])
    assert not protected(pulumi.ResourceOptions(protect=False))


def test_vendors_plugins_at_two_apis_are_two() -> None:
    """One had the other's name, since only the bucket's endpoint was part of it."""

    def program() -> None:
        spaces("one")
        spaces("two", api_endpoint="https://api.one.example.com")
        spaces("three", api_endpoint="https://api.two.example.com")
        spaces("four", api_endpoint="https://api.two.example.com")

    ran = run(program)
    # Registered at once, so in any order.
    names = sorted(name for kind, name, _ in ran.made.resources if kind == "pulumi:providers:digitalocean")
    assert names == ["digitalocean", "digitalocean-api.one.example.com", "digitalocean-api.two.example.com"]


def test_a_vendors_plugin_is_found_under_the_name_without_its_api() -> None:
    ran = run(lambda: spaces("one", api_endpoint="https://api.one.example.com"))
    (found,) = [one for one in ran.requests.values() if one.type == "pulumi:providers:digitalocean"]
    assert [alias.spec.name for alias in found.aliases] == ["digitalocean"]


# ---- the face of the package


def test_a_component_and_its_arguments_are_found_by_name_and_nothing_else_is() -> None:
    for family in catalog.families():
        name = family.component_class
        component, args = getattr(components, name), getattr(components, f"{name}Args")
        assert component.family == family.name
        assert issubclass(args, StoreArgs)
        assert {name, f"{name}Args"} <= set(components.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        components.Nothing  # noqa: B018 - it is looked for
    assert all(hasattr(components, name) for name in components.__all__)


def test_every_setting_of_a_stack_file_is_an_argument() -> None:
    for name in catalog.names():
        component = catalog.load(name).component_class
        there = {item.name for item in fields(getattr(components, f"{component}Args"))}
        assert set(catalog.load(name).value("settings", {})) <= there


def test_a_vendors_sdk_is_loaded_only_when_its_class_is_used() -> None:
    program = (
        "import sys, components\n"
        "components.S3Compatible, components.GarageArgs\n"
        "assert not {'pulumi_aws', 'pulumi_digitalocean'} & set(sys.modules)\n"
        "components.AmazonS3Args\n"
        "assert 'pulumi_aws' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "method": st.sampled_from(["goofys", "synapse-s3-storage-provider"]),
            "access": st.sampled_from(["least", "full"]),
            "iam_endpoint": st.just("https://iam.example.com:443"),
            "adopt": st.booleans(),
            "user": st.just("somebody"),
            "keys": st.sampled_from([{"active": "b", "retiring": ["a"]}, {"active": "a"}]),
            "noncurrent_days": st.integers(1, 3650),
            "abort_days": st.integers(1, 365),
            "renamed_from": st.just("old.example.com"),
            "ca_file": st.just("/etc/ca.pem"),
            "settle_seconds": st.integers(0, 60),
        },
    )
)
def test_a_stack_files_settings_come_back_from_the_arguments_as_they_were(changes: dict[str, Any]) -> None:
    base = {"provider": "s3_compatible", "bucket": "media", "endpoint": "https://s3.example.com/"}
    raw = {**base, **({} if "iam_endpoint" in changes else {"existing_key": True}), **changes}
    [store] = settings.parse({"example.com": raw}, ["example.com/delete-bucket"]).values()
    args = components.arguments(store)
    known, later_ones, problems = args.raw()
    assert not later_ones
    assert not problems
    assert settings.check(args.server_name, known, args.allow, where="args") == store
