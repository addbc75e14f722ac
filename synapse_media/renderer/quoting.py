"""Quoting: one function per syntax, whose result is read back as exactly the given value.

A value that a syntax can't express is refused, never changed. Every function takes the name of the setting first, for
the message, which does not show the value since it may be a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from synapse_media.errors import SynapseMediaError


class RenderError(SynapseMediaError):
    """Values that can't be rendered: each problem names the setting, the reason and the next step."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def refuse(setting: str, why: str, next_step: str) -> RenderError:
    """The error for one setting."""
    return RenderError((f"{setting} {why}. {next_step}",))


def need(setting: str, value: str, allowed: str, characters: str, where: str) -> str:
    """`value`, for a place without quoting. Raises RenderError if it has other characters than allowed there.

    Args:
        allowed: a regular expression for the whole value.
        characters: the same as text.
        where: the place, for the message.
    """
    if re.fullmatch(allowed, value) is None:
        raise refuse(
            setting, f"has a character that {where} can't hold", f"Allowed there: {characters}. Choose another."
        )
    return value


# Matches what must be escaped between double quotes, in JSON, YAML 1.1 or YAML 1.2.
_YAML_PLAIN = re.compile(r"[^ !#-\[\]-~]")
_YAML_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _yaml_escape(found: re.Match[str]) -> str:
    character = found.group()
    number = ord(character)
    if character in _YAML_SHORT:
        return _YAML_SHORT[character]
    # YAML reads JSON's surrogate pairs as two characters, so these get YAML's long form.
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def yaml(setting: str, value: str | bool | int | Sequence[str]) -> str:
    """A YAML scalar, or a flow list of strings. Strings are always quoted, so `0o14`, `1e10`, `no` remain strings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return "[" + ", ".join(yaml(setting, item) for item in value) + "]"
    _no_surrogate(setting, value)
    return '"' + _YAML_PLAIN.sub(_yaml_escape, value) + '"'


def ansible(setting: str, value: str | bool | int | Sequence[str]) -> str:
    """Like `yaml`, for an Ansible variable: a string that looks like a template is tagged `!unsafe`.

    https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_advanced_syntax.html#unsafe-or-raw-strings
    """
    if isinstance(value, str):
        return ("!unsafe " if re.search(r"\{[{%#]", value) else "") + yaml(setting, value)
    if isinstance(value, bool | int):
        return yaml(setting, value)
    return "[" + ", ".join(ansible(setting, item) for item in value) + "]"


def systemd_word(setting: str, value: str) -> str:
    """An argument of a command line in a systemd unit (`ExecStart=`).

    `man systemd.service` (COMMAND LINES) and `man systemd.syntax` (QUOTING): `%` and `$` are doubled, the rest is
    C-escaped. Not for the program name, in which systemd does not expand `$`.
    """
    _no_nul(setting, value, "a systemd unit")
    if re.fullmatch(r"[\w@+=:,./-]+", value, re.ASCII):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return '"' + "".join(map(_c_escape, escaped)) + '"'


def _c_escape(character: str) -> str:
    number = ord(character)
    if character.isprintable():
        return character
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def environment(setting: str, value: str) -> str:
    """A value for systemd's EnvironmentFile= that a POSIX shell reads the same way (`set -a; . file`).

    Between double quotes both take a backslash before `"`, `\\`, `$` and a backtick, and only there:
    `man systemd.exec`, EnvironmentFile=. systemd drops a variable with another control character than tab and newline.
    """
    _no_nul(setting, value, "an environment file")
    if re.search(r"[\x01-\x08\x0b-\x1f\x7f]", value):
        raise refuse(setting, "has a control character, which an environment file can't hold", "Use another key.")
    if re.fullmatch(r"[\w@+=:,./-]+", value, re.ASCII):
        return value
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def docker_environment(setting: str, value: str) -> str:
    """A value for `docker run --env-file` (and Compose's `format: raw`), which has no quoting."""
    _no_nul(setting, value, "an environment file of Docker")
    if "\n" in value or "\r" in value:
        raise refuse(setting, "has a line break, which an environment file of Docker can't hold", "Use another key.")
    return value


def nix(setting: str, value: str | bool) -> str:
    """A Nix string between double quotes, or a boolean.

    A backslash makes the next character stand for itself, but for `n`, `r` and `t`; `${` would begin an expression,
    and a bare carriage return is read as a newline. https://nix.dev/manual/nix/latest/language/string-literals
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    _no_nul(setting, value, "a Nix string")
    return '"' + re.sub(r'["\\$\n\r\t]', lambda found: _NIX.get(found.group(), "\\" + found.group()), value) + '"'


_NIX = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def fstab(setting: str, value: str) -> str:
    """A field of /etc/fstab, with spaces and backslashes as octal escapes (`man 5 fstab`, `man 3 getmntent`)."""
    _no_nul(setting, value, "/etc/fstab")
    if not value or value.startswith("#"):
        raise refuse(setting, "is empty or starts with '#', which a field of /etc/fstab can't", "Choose another.")
    return re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found.group()):03o}", value)


def sh(setting: str, value: str) -> str:
    """A word for a POSIX shell."""
    _no_nul(setting, value, "a command line")
    return shlex.quote(value)


_CREDENTIAL = re.compile(r"[A-Za-z0-9/+][A-Za-z0-9/+._~-]*={0,2}")
_NUMBER = re.compile(r"(?:[-0-9.eEbox]+|[0-9]+x[0-9a-fA-F]+)=*")


def credentials(setting: str, value: str) -> str:
    """A value for `~/.aws/credentials`, for which there is no common quoting.

    Goofys reads it with aws-sdk-go 1.44, which fails on most punctuation and on values that look like numbers.
    """
    if not _CREDENTIAL.fullmatch(value) or _NUMBER.fullmatch(value):
        raise refuse(
            setting,
            "has a character that a credentials file can't hold, or looks like a number there",
            "Allowed: letters, digits and / + . _ ~ -, and = at the end. Use another key.",
        )
    return value


def _no_nul(setting: str, value: str, where: str) -> None:
    _no_surrogate(setting, value)
    if "\0" in value:
        raise refuse(setting, f"has a NUL character, which {where} can't hold", "Remove it.")


def _no_surrogate(setting: str, value: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise refuse(setting, "has half of a surrogate pair, which is no text", "Remove it.")
