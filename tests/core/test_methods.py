"""The one table of operations: what each method is given, and what the proof then expects."""

from __future__ import annotations

from typing import get_args

import pytest

from synapse_media import catalog
from synapse_media.methods import (
    ACCESS,
    METHODS,
    NEVER,
    RULES,
    Access,
    Expected,
    MethodName,
    Operation,
    expectations,
    granted,
)

MODULE = {"put", "head", "get", "list", "multipart", "abort", "missing-key"}
ALL_THREE = {"put-bucket-policy", "create-bucket", "other-bucket"}


def table(method: str, access: Access, cannot_refuse: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """{expectation: operations}"""
    found: dict[str, set[str]] = {}
    for operation, expected in expectations(METHODS[method], access, cannot_refuse).items():
        found.setdefault(expected.value, set()).add(operation.value)
    return found


def test_the_module_may_never_delete() -> None:
    """It never deletes, so neither may its key: synapse-s3-storage-provider 1.7.0 calls no delete."""
    assert table("synapse-s3-storage-provider", "least") == {"allowed": MODULE, "refused": {"delete", *ALL_THREE}}


@pytest.mark.parametrize(
    ("method", "more"),
    [
        # kahing/goofys at 350ff31: internal/backend_s3.go has no ListParts and no GetBucketLocation.
        ("goofys", {"copy", "delete", "list-uploads"}),
        # t2bot/matrix-media-repo at 84bcb70: datastores/ puts, gets, removes and lists objects, and nothing else.
        ("matrix-media-repo", {"delete"}),
    ],
)
def test_what_goofys_and_matrix_media_repo_need_beyond_the_module(method: str, more: set[str]) -> None:
    assert table(method, "least") == {"allowed": MODULE | more, "refused": ALL_THREE}


@pytest.mark.parametrize("method", [name for name in METHODS if name != "filesystem"])
def test_full_access_is_everything_on_the_one_bucket_and_nothing_beyond(method: str) -> None:
    everything = {operation.value for operation in Operation}
    beyond = {"create-bucket", "other-bucket"}
    assert table(method, "full") == {"allowed": everything - beyond, "refused": beyond}


def test_what_a_provider_can_not_refuse_is_said_and_not_expected() -> None:
    found = table("synapse-s3-storage-provider", "least", ("delete", "copy", "put"))
    assert found["can't be refused here"] == {"delete", "copy"}
    assert found["allowed"] == MODULE, "what is granted stays expected"
    assert found["refused"] == ALL_THREE


@pytest.mark.parametrize("provider", catalog.names())
def test_the_catalog_names_operations_that_exist(provider: str) -> None:
    names = catalog.load(provider).value("cannot_refuse", ())
    assert set(names) <= {operation.value for operation in Operation}


def test_the_filesystem_asks_nothing() -> None:
    assert not METHODS["filesystem"].uses_store
    assert all(method.uses_store for name, method in METHODS.items() if name != "filesystem")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("access", ACCESS)
def test_nothing_is_granted_that_no_action_grants(method: object, access: Access) -> None:
    assert all(RULES[operation].actions for operation in granted(method, access))  # type: ignore[arg-type]


def test_every_operation_has_a_rule_and_no_method_needs_what_none_may() -> None:
    assert set(RULES) == set(Operation)
    assert not any(method.needs & NEVER for method in METHODS.values())
    assert {method.name for method in METHODS.values()} == set(METHODS)


def test_the_expectations_have_only_the_words_of_a_proof() -> None:
    assert {expected.value for expected in Expected} == {"allowed", "refused", "can't be refused here"}


def test_classes_that_the_module_asserts() -> None:
    """s3_storage_provider.py 1.7.0, parse_config; ONEZONE_IA is not among them."""
    classes = METHODS["synapse-s3-storage-provider"].storage_classes
    assert classes == ("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "INTELLIGENT_TIERING")


@pytest.mark.parametrize("access", ACCESS)
def test_the_leave_to_write_a_policy_is_not_asked_where_there_are_none(access: Access) -> None:
    with_policies, without = (expectations(METHODS["goofys"], access, bucket_policies=there) for there in (True, False))
    left_out = set(with_policies) - set(without)
    assert left_out == ({Operation.PUT_BUCKET_POLICY} if access == "full" else set())


@pytest.mark.parametrize(
    ("method", "endpoint", "bucket", "addressing"),
    [
        # boto3 with an endpoint, and Goofys without --subdomain.
        ("synapse-s3-storage-provider", "https://s3.eu-central-1.amazonaws.com", "media", "path"),
        ("goofys", "https://s3.eu-central-1.amazonaws.com", "media", "path"),
        # minio-go, pkg/s3utils/utils.go: IsVirtualHostSupported.
        ("matrix-media-repo", "https://s3.eu-central-1.amazonaws.com", "media", "virtual"),
        ("matrix-media-repo", "https://s3.eu-central-1.amazonaws.com", "media.example.com", "path"),
        ("matrix-media-repo", "https://storage.googleapis.com", "media", "virtual"),
        ("matrix-media-repo", "https://amazonaws.com.example.net", "media", "path"),
        ("matrix-media-repo", "https://s3.example.com", "media", "path"),
        ("matrix-media-repo", "http://[::1]:9000", "media", "path"),
    ],
)
def test_a_bucket_is_named_as_the_methods_program_does(
    method: str, endpoint: str, bucket: str, addressing: str
) -> None:
    assert METHODS[method].addressing(endpoint, bucket) == addressing


def test_the_type_of_a_methods_name_has_every_method_with_a_store() -> None:
    assert set(get_args(MethodName)) == {name for name, method in METHODS.items() if method.uses_store}
