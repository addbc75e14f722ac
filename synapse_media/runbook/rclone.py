"""The copies between a store and the local disk or another store: rclone's remotes and commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from synapse_media.contract import PROOF_OBJECT, StorageOutputs

from .site import Site

KEYS = "/root/synapse-media"
"""Where the server keeps what the copy needs, for the time of the switch."""

_EXCEPT = f"--exclude '/url_cache/**' --exclude '/url_cache_thumbnails/**' --exclude '/{PROOF_OBJECT}*'"
_FAST = "--transfers 32 --checkers 32 --fast-list"


@dataclass(frozen=True, slots=True)
class Remote:
    """A store as rclone reaches it.

    Attributes:
        name: of rclone's remote.
        store: None where it is still to be made: then the commands take its names from its store.json.
        stack: the stack it is in.
        provider: where it is to be made.
        edited: by an edit of this stack, which uses no store yet; else in a new one.
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
        """For rclone, a word of a shell."""
        if self.store is None:
            return f'"${self.name.upper()}"'
        return word(f"{self.name}:{self.store.bucket}/{self.store.prefix}")

    @property
    def url(self) -> str:
        """For the AWS tool, likewise."""
        if self.store is None:
            return f'"s3://${{{self.name.upper()}#*:}}"'
        return word(f"s3://{self.store.bucket}/{self.store.prefix}")

    def _value(self, name: str) -> str:
        return word(str(getattr(self.store, name))) if self.store else f'"$(value {self.json} {name})"'

    @property
    def configuration(self) -> tuple[str, ...]:
        """Lines that make rclone know the store; the secret goes from the file into the environment alone."""
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
            # rclone 1.60 ends where AWS_CA_BUNDLE is set.
            commands.append(f"export RCLONE_CA_CERT={shlex.quote(self.store.ca_file)}; unset AWS_CA_BUNDLE")
        return tuple(commands)


def word(text: str) -> str:
    """One word of a POSIX shell, between double quotes where these need no more."""
    return f'"{text}"' if re.fullmatch(r"[\w@%+=:,./-]*", text, re.ASCII) else shlex.quote(text)


def lines(*pieces: str) -> str:
    """One command of a shell on several lines."""
    return " \\\n    ".join(pieces)


def upload(site: Site, to: Remote) -> tuple[str, ...]:
    """Local files to a store; what is there with another content is written again. And the same with the AWS tool."""
    copy = lines(f"rclone copy {site.media} {to.path} --checksum {_FAST}", _EXCEPT)
    if to.store is not None and to.store.keyless:
        return (copy,)
    variable = f"$RCLONE_CONFIG_{to.name.upper()}_"
    checksums = "AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
    needed = to.store is None or to.store.checksums == "when_required"
    aws = lines(
        f'AWS_ACCESS_KEY_ID="{variable}ACCESS_KEY_ID" AWS_SECRET_ACCESS_KEY="{variable}SECRET_ACCESS_KEY"',
        *((checksums,) if needed else ()),
        f"aws s3 sync {site.media} {to.url}",
        f'--endpoint-url "{variable}ENDPOINT" --region "{variable}REGION"',
        "--exclude 'url_cache/*' --exclude 'url_cache_thumbnails/*'",
    )
    return (copy, "# or, slower where the store is far:\n# " + aws.replace("\n", "\n# "))


def download(site: Site, source: Remote, target: str = "") -> tuple[str, ...]:
    """A store to local files: what is there is left as it is."""
    directory = target or site.media
    return (
        lines(f"rclone copy {source.path} {directory} --ignore-existing {_FAST}", _EXCEPT),
        f"chown -R {site.user} {directory}",
    )


def between(old: Remote, new: Remote) -> tuple[str, ...]:
    """One store to another, through this machine."""
    return (lines(f"rclone copy {old.path} {new.path} --checksum {_FAST}", _EXCEPT),)


def compare(one: str, other: str, *options: str) -> str:
    """Everything of `one` is in `other` with the same content: both are read. The two are words of a shell."""
    return lines(f"rclone check {one} {other} --one-way --download --transfers 32", *options, _EXCEPT)


SAME = (
    "The last lines say `0 differences found` and how many files match, which is as many as the first side has (never "
    "0), and the exit code is 0."
)
COUNTS = "`rclone size` of both says the same number of files and bytes, but for url_cache and what came in since."
