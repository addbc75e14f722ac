"""Which of pulumi's own options may be handed on, and which of them a preview needs."""

from __future__ import annotations

import pytest

from synapse_media.engine.options import selecting_options
from synapse_media.errors import UsageError


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([], []),
        (["--replace", "urn:a", "--replace=urn:b"], ["--replace", "urn:a", "--replace=urn:b"]),
        (["-p", "1", "-t", "urn:a", "--target-dependents"], ["-t", "urn:a", "--target-dependents"]),
        # As pulumi reads it: the word after the option is its value, whatever it looks like.
        (["--message", "--replace", "--diff"], []),
    ],
)
def test_a_preview_gets_what_chooses(options: list[str], chosen: list[str]) -> None:
    assert selecting_options(options) == chosen


@pytest.mark.parametrize(
    "options",
    [
        ["--stack", "other"],
        ["-sother"],
        ["--config=a=b"],
        ["--config-file", "x"],
        ["--ignore-protect"],
        ["--refresh"],
        ["--target", "urn:a", "--ignore-protect"],
        ["--diff", "template"],
        ["--"],
        [""],
    ],
)
def test_what_a_guard_would_not_have_judged_is_refused(options: list[str]) -> None:
    with pytest.raises(UsageError, match="is not passed to pulumi; allowed: --target, "):
        selecting_options(options)


def test_a_value_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match=r"-- --target needs a value"):
        selecting_options(["--diff", "--target"])


@pytest.mark.parametrize(
    "option",
    [
        "--debug",
        "-d",
        "--json",
        "-j",
        "--show-secrets",
        "--show-secrets=true",
        "--show-config",
        "--verbose=9",
        "-v",
        "-v9",
        "-v=9",
        "-dv=9",
        "-yd",
        "--logtostderr",
        "--logflow",
        "--event-log",
        "--tracing",
        "--tracing-header",
        "--otel-traces=file:///tmp/traces",
        "--profiling",
        "--memprofilerate",
        "--attach-debugger",
    ],
)
def test_what_shows_secrets_is_refused_with_what_to_use_in_its_place(option: str) -> None:
    with pytest.raises(UsageError, match=r"is refused: .*\. To see each API call.*SYNAPSE_MEDIA_VERBOSE") as refusal:
        selecting_options(["--diff", option, "9"])
    assert f"-- {option} is refused" in str(refusal.value)


def test_a_value_is_no_option_that_shows_secrets() -> None:
    assert selecting_options(["-t", "-d", "--message", "--debug"]) == ["-t", "-d"]
    with pytest.raises(UsageError, match="is not passed to pulumi"):
        selecting_options(["-turn:pulumi:dev"])
