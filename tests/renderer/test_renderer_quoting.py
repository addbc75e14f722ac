"""Each syntax gives back what went in, to the program that reads it; or it was refused."""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from synapse_media.renderer import RenderError, quoting
from tests.end_to_end import systemd
from tests.renderer import readers
from tests.renderer.readers import texts

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.lists(texts, min_size=1, max_size=5))
def test_yaml(values: list[str]) -> None:
    text = "".join(f"k{number}: {quoting.yaml('x', value)}\n" for number, value in enumerate(values))
    text += f"list: {quoting.yaml('x', values)}\nyes_no: {quoting.yaml('x', True)}\nnumber: {quoting.yaml('x', 7)}\n"
    expected = {f"k{number}": value for number, value in enumerate(values)}
    expected |= {"list": values, "yes_no": True, "number": 7}  # type: ignore[dict-item]
    assert readers.yaml_1_1(text) == expected
    assert readers.yaml_1_2(text) == expected


@quick
@given(texts)
def test_yaml_is_json_where_json_can(value: str) -> None:
    quoted = quoting.yaml("x", value)
    assert quoted.isascii()
    assert "\n" not in quoted
    if all(character <= "\uffff" for character in value):
        assert json.loads(quoted) == value


@quick
@given(values=st.lists(texts, min_size=1, max_size=4))
@example(values=["{{ 1+1 }}", "{% set x %}", "{# gone #}", "012", "a: b"])
def test_ansible(values: list[str], ansible: readers.Ansible, tmp_path: Path) -> None:
    path = tmp_path / "vars.yml"
    lines = [f"v{number}: {quoting.ansible('x', value)}\n" for number, value in enumerate(values)]
    lines.append(f"all: {quoting.ansible('x', values)}\nsure: {quoting.ansible('x', False)}\n")
    path.write_text("---\n" + "".join(lines), encoding="utf-8")
    expected = {f"v{number}": value for number, value in enumerate(values)}
    assert ansible.variables(path) == {**expected, "all": values, "sure": False}


@quick
@given(st.lists(texts, min_size=1, max_size=4))
def test_systemd_words(values: list[str]) -> None:
    words = [_or_refused(quoting.systemd_word, value, "\0") for value in values]
    kept = [(word, value) for word, value in zip(words, values, strict=True) if word is not None]
    line = " ".join(["/bin/true", *(word for word, _ in kept)])
    (read,) = systemd.unit(f"[Service]\nExecStart={line}\n")["Service"]["ExecStart"]
    assert systemd.command(read, {"HOME": "/wrong"}) == ["/bin/true", *(value for _, value in kept)]


_CONTROL = "".join(chr(number) for number in (*range(9), *range(11, 32), 127))


@quick
@given(value=texts)
def test_environment_files(value: str, tmp_path: Path) -> None:
    quoted = _or_refused(quoting.environment, value, _CONTROL)
    if quoted is None:
        return
    text = f"# a comment\nA={quoted}\nB=1\n"
    assert systemd.environment_file(text) == {"A": value, "B": "1"}
    path = tmp_path / "file.env"
    path.write_text(text, encoding="utf-8", newline="")
    assert readers.sh_environment(path, ["A", "B"]) == {"A": value, "B": "1"}


def test_environment_files_with_systemd_itself(tmp_path: Path) -> None:
    values = [
        "plain/+=",
        "sp ace",
        " lead",
        "quote'",
        'double"',
        "back\\slash",
        "tick`",
        "x #y;z",
        "é漢😀",
        "a\tb\nc",
    ]
    text = "".join(f"V{number}={quoting.environment('x', value)}\n" for number, value in enumerate(values))
    found = readers.systemd_environment(text, tmp_path)
    if found is None:
        pytest.skip("no systemd here")
    assert [found[f"V{number}"] for number in range(len(values))] == values


@quick
@given(texts)
def test_docker_environment(value: str) -> None:
    quoted = _or_refused(quoting.docker_environment, value, "\0\n\r")
    if quoted is not None:
        assert readers.docker_environment(f"# c\nA={quoted}\nB=1\n") == {"A": value, "B": "1"}


@quick
@given(value=texts)
def test_fstab(value: str, tmp_path: Path) -> None:
    try:
        field = quoting.fstab("x", value)
    except RenderError:
        assert "\0" in value or not value or value.startswith("#")
        return
    path = tmp_path / "fstab"
    path.write_text(f"# c\ngoofys#b {field} fuse _netdev 0 0\n", encoding="utf-8", newline="")
    assert readers.fstab(path) == [("goofys#b", value, "fuse", "_netdev")]


@settings(max_examples=50, deadline=None)
@given(st.lists(texts, max_size=4))
def test_sh(values: list[str]) -> None:
    words = [_or_refused(quoting.sh, value, "\0") for value in values]
    kept = [value for word, value in zip(words, values, strict=True) if word is not None]
    line = " ".join(word for word in words if word is not None)
    found = subprocess.run(["/bin/sh", "-c", f"printf '%s\\0' {line}"], check=True, capture_output=True)
    assert found.stdout.decode().split("\0")[:-1] == (kept or [""])
    assert shlex.split(line) == kept


@quick
@given(st.one_of(texts, st.from_regex(r"[A-Za-z0-9/+=]{1,40}", fullmatch=True)))
def test_credentials(value: str) -> None:
    try:
        text = f"[default]\naws_secret_access_key = {quoting.credentials('x', value)}\n"
    except RenderError:
        return
    reader = configparser.RawConfigParser()
    reader.read_string(text)
    assert reader["default"]["aws_secret_access_key"] == value
    assert value.isascii()


@pytest.mark.parametrize(
    "value",
    # aws-sdk-go 1.44.37 did not read these back from a credentials file, or took one for a number.
    ["e97", "-6", "65b0", "41xcB", ".54", "U=#N", "F+:,N", '"x', ";x", "#x", "f=e3", "12345", "", "a b"],
)
def test_credentials_that_goofys_would_not_read(value: str) -> None:
    with pytest.raises(RenderError, match=r"^secret_access_key "):
        quoting.credentials("secret_access_key", value)


@pytest.mark.parametrize(
    "value", ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "K005+abc/DEF", "e3b0c44298fc1c14", "ab=="]
)
def test_credentials_as_stores_issue_them(value: str) -> None:
    assert quoting.credentials("x", value) == value


@pytest.mark.parametrize(
    "quote",
    [quoting.yaml, quoting.systemd_word, quoting.environment, quoting.docker_environment, quoting.fstab, quoting.sh],
)
def test_half_a_pair_is_refused(quote: Callable[[str, str], str]) -> None:
    with pytest.raises(RenderError, match="surrogate"):
        quote("bucket", "a\ud800")


def test_a_refusal_names_the_setting_and_not_the_value() -> None:
    with pytest.raises(RenderError) as caught:
        quoting.docker_environment("secret_access_key", "top\nsecret")
    assert str(caught.value).startswith("secret_access_key has a line break")
    assert "top" not in str(caught.value)


def _or_refused(quote: Callable[[str, str], str], value: str, refused: str) -> str | None:
    """The quoted value; None where it has one of the characters that this syntax can't hold, and then only."""
    if any(character in refused for character in value):
        with pytest.raises(RenderError, match=r"^setting "):
            quote("setting", value)
        return None
    return quote("setting", value)
