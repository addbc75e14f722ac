"""rclone remotes, and the commands that copy from one store to another."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from synapse_media.contract import PROOF_OBJECT, StorageOutputs

KEYS = "/root/synapse-media"
"""The server's directory for the keys that the copy needs during the switch."""

_EXCLUDES = f"--exclude '/url_cache/**' --exclude '/url_cache_thumbnails/**' --exclude '/{PROOF_OBJECT}*'"
_PARALLEL = "--transfers 32 --checkers 32 --fast-list"


@dataclass(frozen=True, slots=True)
class Remote:
    """A store as a remote of rclone.

    Attributes:
        name: the name of the remote.
        store: None if it doesn't exist yet: then the commands read bucket and endpoint from its store.json.
        stack: its stack.
        provider: its provider, if it doesn't exist yet.
        edited: it will be created by editing this stack, which has no store yet, instead of in a new one.
    """

    name: Literal["old", "new"]
    store: StorageOutputs | None
    stack: str
    provider: str = "PROVIDER"
    edited: bool = False

    @property
    def shown(self) -> str:
        return f"the bucket {self.store.bucket} at {self.store.endpoint_url}" if self.store else "the new bucket"

    @property
    def json(self) -> str:
        return f"{KEYS}/{self.name}/store.json"

    @property
    def path(self) -> str:
        """The remote path for rclone, as a word of a shell."""
        if self.store is None:
            return f'"${self.name.upper()}"'
        return word(f"{self.name}:{self.store.bucket}/{self.store.prefix}")

    def _value(self, name: str) -> str:
        return word(str(getattr(self.store, name))) if self.store else f'"$(value {self.json} {name})"'

    @property
    def configuration(self) -> tuple[str, ...]:
        """Commands that configure the remote. The secret is passed from the file to the environment only."""
        variable = f"RCLONE_CONFIG_{self.name.upper()}_"
        commands = [
            "value() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \"$@\"; }",
            f"export {variable}TYPE=s3 {variable}PROVIDER=Other {variable}NO_CHECK_BUCKET=true",
            f"export {variable}ENDPOINT={self._value('endpoint_url')}",
            f"export {variable}REGION={self._value('region')}",
        ]
        if self.name == "new":
            commands.append(f"export {variable}STORAGE_CLASS={self._value('storage_class')}")
        if self.store is not None and self.store.keyless:
            commands.append(f"export {variable}ENV_AUTH=true")
        else:
            commands += [
                f'export {variable}{name.upper()}="$(value {self.json} {name})"'
                for name in ("access_key_id", "secret_access_key")
            ]
        if self.store is None:
            commands.append(
                f'{self.name.upper()}="{self.name}:$(value {self.json} bucket)/$(value {self.json} prefix)"'
            )
        if self.store is not None and self.store.addressing == "virtual":
            commands.append(f"export {variable}FORCE_PATH_STYLE=false")
        if self.store is not None and self.store.ca_file:
            # rclone 1.60 fails if AWS_CA_BUNDLE is set.
            commands.append(f"export RCLONE_CA_CERT={shlex.quote(self.store.ca_file)}; unset AWS_CA_BUNDLE")
        return tuple(commands)


def word(text: str) -> str:
    """One word of a POSIX shell, between double quotes where these need no more."""
    return f'"{text}"' if re.fullmatch(r"[\w@%+=:,./-]*", text, re.ASCII) else shlex.quote(text)


def lines(*pieces: str) -> str:
    """A shell command on several lines."""
    return " \\\n    ".join(pieces)


def between(old: Remote, new: Remote) -> tuple[str, ...]:
    """Copy one store to another, through this machine."""
    return (lines(f"rclone copy {old.path} {new.path} --checksum {_PARALLEL}", _EXCLUDES),)


def compare(one: str, other: str) -> str:
    """Check that everything in `one` is in `other` with the same content, by reading both. Both are shell words."""
    return lines(f"rclone check {one} {other} --one-way --download --transfers 32", _EXCLUDES)


SAME = (
    "The last lines say `0 differences found` and a number of matching files that equals that of the first side (never "
    "0), and the exit code is 0."
)
COUNTS = "`rclone size` shows the same number of files and bytes for both, except for url_cache and newer files."
