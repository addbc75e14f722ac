"""The programs' own parsers, for what is rendered; a small decoder where a program has none to call."""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from ruamel.yaml import YAML

from synapse_media.contract import StorageOutputs
from synapse_media.renderer import RenderError, quoting, render

_META = "{}%#$\\\"'`!&*?|<>;:@,[]()= \t~-+./0127xeEbonyNY"
_ODD = "\n\r\x00\x01\x1b\x7f\x85\xa0\u2028\ufeff\U0001f600é漢"
texts = st.one_of(
    st.text(alphabet=st.sampled_from(_META), max_size=30),
    st.text(alphabet=st.sampled_from(_META + _ODD), max_size=30),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["{{ 1+1 }}", "{% raw %}", "{# x #}", "012", "0o14", "0x1F", "1e10", "no", "null", "~", "<<", "="]),
)
"""Names, prefixes and secrets that need care."""


changes = st.one_of(
    st.tuples(st.sampled_from(["bucket", "region", "access_key_id", "secret_access_key"]), texts),
    texts.map(lambda text: ("prefix", f"{text}/")),
).map(lambda pair: dict([pair]))
"""One setting that is as odd as can be, the others as they are."""


def rendered(outputs: StorageOutputs, changed: dict[str, str], *arguments: Any, **options: Any) -> dict[str, str]:
    """The files; none where the changed setting was refused, by its name."""
    try:
        return render(outputs, *arguments, **options)
    except RenderError as error:
        problems = error.problems
    assert all(problem.startswith((*changed, "media_path")) for problem in problems), problems
    secret = changed.get("secret_access_key", "")
    assert len(secret) < 5 or not any(secret in problem for problem in problems)
    return {}


def yaml_1_1(text: str) -> Any:
    """As Synapse and Ansible read YAML."""
    return yaml.safe_load(text)


def yaml_1_2(text: str) -> Any:
    """As Go programs and newer readers do."""
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    return reader.load(text)


class Ansible:
    """ansible-core's loader and templar on vars files."""

    def __init__(self) -> None:
        from ansible.parsing.dataloader import DataLoader
        from ansible.plugins.loader import init_plugin_loader
        from ansible.template import Templar, trust_as_template

        init_plugin_loader([])
        self._loader = DataLoader
        self._templar = Templar
        self._trust = trust_as_template

    def variables(self, path: Path) -> dict[str, Any]:
        """Every variable of a vars file, as a task would have it, and as `to_json` and a template would print it."""
        loader = self._loader()
        loaded = loader.load_from_file(str(path), cache="none", trusted_as_template=True)
        templar = self._templar(loader=loader, variables=loaded)
        found: dict[str, Any] = {}
        for name in loaded:
            value = templar.template(self._trust(f"{{{{ {name} }}}}"))
            printed = templar.template(self._trust(f"<{{{{ {name} | to_json }}}}>"))
            assert json.loads(str(printed)[1:-1]) == value
            found[str(name)] = value
        return found


def docker_environment(text: str) -> dict[str, str]:
    """As `docker run --env-file`: a line a variable, nothing is unquoted (docker/cli, opts/file.go)."""
    lines = (line for line in text.split("\n") if line and not line.startswith("#"))
    return {name: value.removesuffix("\r") for name, _, value in (line.partition("=") for line in lines)}


def sh_environment(path: Path, names: list[str]) -> dict[str, str]:
    """As a POSIX shell that sources the file."""
    script = 'set -a; . "$1"; shift; for name; do eval "printf \'%s\\\\0\' \\"\\${$name-}\\""; done'
    found = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(path), *names], check=True, capture_output=True, env={"PATH": os.defpath}
    )
    assert not found.stderr
    return dict(zip(names, found.stdout.decode().split("\0")[:-1], strict=True))


def fstab(path: Path) -> list[tuple[str, ...]]:
    """As the C library's getmntent: device, directory, type, options."""

    class Entry(ctypes.Structure):
        _fields_ = [(name, ctypes.c_char_p) for name in ("device", "directory", "type", "options")] + [
            ("frequency", ctypes.c_int),
            ("pass_number", ctypes.c_int),
        ]

    library = ctypes.CDLL(None, use_errno=True)
    library.setmntent.restype = ctypes.c_void_p
    library.getmntent.argtypes = [ctypes.c_void_p]
    library.getmntent.restype = ctypes.POINTER(Entry)
    library.endmntent.argtypes = [ctypes.c_void_p]
    file = library.setmntent(os.fsencode(path), b"r")
    assert file
    entries = []
    while found := library.getmntent(file):
        entry = found.contents
        fields = (entry.device, entry.directory, entry.type, entry.options)
        entries.append(tuple(field.decode() for field in fields))
    library.endmntent(file)
    return entries


_GENERATOR = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")


def systemd_environment(text: str, directory: Path) -> Mapping[str, str] | None:
    """As systemd itself: its generator for environment.d reads the same syntax (and expands `$`). None: not here."""
    if not _GENERATOR.exists():
        return None
    place = directory / "environment.d"
    place.mkdir()
    (place / "a.conf").write_text(text, encoding="utf-8")
    printed = subprocess.run(
        [_GENERATOR], check=True, capture_output=True, env={"XDG_CONFIG_HOME": str(directory), "PATH": os.defpath}
    ).stdout.decode()
    escapes = {"n": "\n", "t": "\t"}
    return {
        name: re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), re.sub(r'^"(.*)"$', r"\1", value))
        for name, _, value in (line.partition("=") for line in io.StringIO(printed).read().splitlines())
    }


NIX = shutil.which("nix-instantiate")


def nix(expression: str) -> Any:
    """The value of an expression, as Nix evaluates it, all the way down."""
    assert NIX
    with tempfile.TemporaryDirectory() as home:
        found = subprocess.run(
            [NIX, "--eval", "--strict", "--json", "-"],
            input=expression.encode(),
            check=False,
            capture_output=True,
            env={"PATH": os.defpath, "HOME": home, "NIX_REMOTE": f"local?root={home}"},
        )
    assert found.returncode == 0, found.stderr.decode()
    return json.loads(found.stdout)


# A double of nixpkgs, which no package registry has: what the module asks of it, and nothing else.
_NIXPKGS_LIB = """
{
  mkOption = option: option;
  mkIf = condition: value: if condition then value else { };
  literalExpression = text: text;
  types = { str = "str"; bool = "bool"; };
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  optionalAttrs = condition: value: if condition then value else { };
  genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
}
"""


def nixos(
    module: str,
    path: str = "/var/lib/synapse-media/credentials",
    *,
    encrypted: bool = False,
    enable: bool = True,
    beside: bool = False,
    media_store: str = "/var/lib/matrix-synapse/media_store",
) -> dict[str, Any]:
    """The `config` of a module of NixOS, on a machine with one worker."""
    found: dict[str, Any] = nix(
        f"""(({module}) {{
  lib = {_NIXPKGS_LIB};
  pkgs = {{ goofys = "/goofys"; util-linux = "/util-linux"; }};
  config = {{
    users = {{ users.matrix-synapse.uid = 224; groups.matrix-synapse.gid = 225; }};
    services.matrix-synapse = {{
      enable = {quoting.nix("enable", enable)};
      workers.media = {{ }};
      settings.media_store_path = {quoting.nix("media_store", media_store)};
      package.plugins.matrix-synapse-s3-storage-provider = "the plugin";
    }};
    synapse-media = {{
      credentialsFile = {quoting.nix("path", path)};
      encrypted = {quoting.nix("encrypted", encrypted)};
      besideMediaStore = {quoting.nix("beside", beside)};
    }};
  }};
}}).config"""
    )
    return found
