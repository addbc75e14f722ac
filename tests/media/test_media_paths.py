"""Paths of this machine that are no text: each command takes them, wherever an argument names one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.media.worlds import DAY, World

_MAIN = "import sys; from synapse_media.cli import main; sys.exit(main())"
_ODD = os.fsdecode(b"n\xff %41?#")


def told(*arguments: object) -> tuple[int, dict[str, Any], str]:
    """(exit code, the answer, what was said of it) of a command as a process of its own, which the bytes are for."""
    command = [sys.executable, "-c", _MAIN, "media", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    said = done.stderr.decode(errors="backslashreplace")
    # A program reads JSON as UTF-8.
    return done.returncode, json.loads(done.stdout.decode()), said


@pytest.fixture
def odd(one: World) -> World:
    """All of it below a directory whose name is not UTF-8. YAML can't name that: homeserver.yaml has a container's."""
    (one.config / "homeserver.yaml").write_text(
        'server_name: example.com\nmedia_store_path: "/of/a/container"\n', encoding="utf-8"
    )
    one.both("local_content/aa/bb/cc")
    one.write("local_content/aa/bb/dd")
    one.know(aabbcc=(7, 100 * DAY), aabbdd=(7, 100 * DAY))
    home = one.home / _ODD
    home.mkdir()
    for path in (one.media, one.config, one.store_file, one.home / "homeserver.db"):
        path.rename(home / path.name)
    one.home, one.media, one.config = home, home / one.media.name, home / one.config.name
    return one


def test_every_path_that_a_command_is_given(odd: World) -> None:
    media, store, config = odd.media, ("--store", odd.store_file), ("--config", odd.config)
    database, report = ("--database", odd.home / "homeserver.db"), ("--report", odd.home / "report")
    for action, *more in (
        ("copy", *config),
        ("verify", *config, *database, *report),
        ("free", *config, *database, *report, "--older-than", "30d", "--delete"),
        ("free", *config, *database, "--older-than", "30d"),
        ("restore", *database, "--user", "@a:example.com"),
        ("restore",),
    ):
        code, answer, said = told(action, media, *store, *more)
        assert code == 0, (action, said)
        assert answer["directory"] == str(media)
    assert odd.files() == {"local_content/aa/bb/cc", "local_content/aa/bb/dd"}


@pytest.mark.parametrize("action", ["copy", "verify", "restore"])
def test_a_locale_whose_names_are_not_utf8_is_refused(odd: World, action: str) -> None:
    """Names outside of it ended in a report of a defect, and others were looked for under another key."""
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, "media", action, odd.media, "--store", odd.store_file],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 64
    assert b"allowed: UTF-8" in done.stderr


@pytest.mark.parametrize("option", ["--database", "--report", "--config", "--store", "DIR"])
def test_one_that_is_not_there_is_named(odd: World, option: str) -> None:
    given = {
        "--store": odd.store_file,
        "--config": odd.config,
        "--database": odd.home / "homeserver.db",
        "--report": odd.home / "report",
    }
    nowhere = odd.home / "nowhere"
    given |= {option: nowhere} if option in given else {}
    options = [each for name, path in given.items() for each in (name, path)]
    code, answer, said = told("free", nowhere if option == "DIR" else odd.media, *options, "--older-than", "30d")
    assert code != 0
    assert "defect" not in said
    assert "nowhere" in answer["error"]["message"] or option == "--report"


@pytest.mark.parametrize("option", ["--user", "--room", "--server", "--database"])
def test_what_is_no_path_and_no_text(odd: World, option: str) -> None:
    values = {
        "--user": "@a\udcff:example.com",
        "--room": "!a\udcff:example.com",
        "--server": "a\udcff",
        "--database": "postgresql://a@127.0.0.1:1/\udcff",
    }
    given = {"--database": odd.home / "homeserver.db", option: values[option]}
    options = [each for name, value in given.items() for each in (name, value)]
    if option in ("--server", "--database"):
        options += ["--user", "@a:example.com"]
    code, answer, said = told("restore", odd.media, "--store", odd.store_file, *options)
    assert code != 0
    assert "defect" not in said
    assert option in answer["error"]["message"]
