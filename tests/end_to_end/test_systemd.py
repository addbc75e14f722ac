"""The reader of units and environment files, against the examples of systemd's own manual and source."""

from __future__ import annotations

import pytest

from tests.end_to_end import systemd


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=plain", "plain"),
        ("A= spaces inside  and at the end \t\n", "spaces inside  and at the end"),
        ("A=a\\ ", "a "),
        ("A=back\\\\slash", "back\\slash"),
        ("A=con\\\ntinued", "continued"),
        ("A='single $x \\ \"'", 'single $x \\ "'),
        ('A="double \\" \\\\ \\$ \\` \\n %"', 'double " \\ $ ` \\n %'),
        ('A="two\nlines"', "two\nlines"),
        ("A='one' \"two\" three", "onetwothree"),
        ("A=quotes 'inside' stay", "quotes 'inside' stay"),
        ("A=$NOT ${EXPANDED} # no comment", "$NOT ${EXPANDED} # no comment"),
        ("# A=1\n; A=2\n\nA=", ""),
    ],
)
def test_environment_file(text: str, value: str) -> None:
    assert systemd.environment_file(text) == {"A": value}


def test_environment_file_of_several_lines() -> None:
    assert systemd.environment_file("A=1\n#\nB='x\ny'\nC=\\\n3\n") == {"A": "1", "B": "x\ny", "C": "3"}


@pytest.mark.parametrize("text", ["no assignment", "# continued? \\\nA=1", "A='open", 'A="open\\"'])
def test_environment_file_that_systemd_would_read_in_part(text: str) -> None:
    with pytest.raises(ValueError, match=r"assignment|open quote|comment"):
        systemd.environment_file(text)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("echo one 'two two' \"three\\tthree\"", ["echo", "one", "two two", "three\tthree"]),
        ("a 100%% $$5 '$$6'", ["a", "100%", "$5", "$6"]),
        ("a $WORDS x${WORDS}y x$WORDS", ["a", "one", "two", "xone twoy", "x$WORDS"]),
        ("a '' \\x41\\101\\u00e9 b\\s", ["a", "", "AAé", "b "]),
        ("a in'si'de", ["a", "inside"]),
    ],
)
def test_command(line: str, arguments: list[str]) -> None:
    assert systemd.command(line, {"WORDS": "one two"}) == arguments


@pytest.mark.parametrize("line", ["-may-fail", "a %n", "a %%%n", "a 'open", "a \\q"])
def test_command_that_is_not_guessed_at(line: str) -> None:
    with pytest.raises(ValueError, match=r"prefix|specifier|quote|escape"):
        systemd.command(line, {})


def test_unit() -> None:
    text = "# c\n[Unit]\nAfter=a.service b.service\nAfter=\nAfter=c.service\n[Service]\nExecStart=x \\\n  y\n"
    assert systemd.unit(text) == {"Unit": {"After": ["c.service"]}, "Service": {"ExecStart": ["x    y"]}}
