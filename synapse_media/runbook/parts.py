"""What the ways have in common: where things are in each form, the two places of a copy, and the commands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from synapse_media.contract import PROOF_OBJECT, StorageOutputs
from synapse_media.methods import METHODS
from synapse_media.renderer import Form, host

HERE, PLAYBOOK, SERVER = "here", "playbook", "server"

MODULE, GOOFYS, MEDIA_REPO, FILESYSTEM = METHODS

KEYS = "/root/synapse-media"
"""Where the server keeps what the copy needs, for the time of the switch."""

_EXCEPT = f"--exclude '/url_cache/**' --exclude '/url_cache_thumbnails/**' --exclude '/{PROOF_OBJECT}*'"
_FAST = "--transfers 32 --checkers 32 --fast-list"


@dataclass(frozen=True, slots=True)
class Site:
    """A homeserver and how it is run.

    Attributes:
        name: the homeserver, as the stack file has it.
        media: the local media store.
    """

    name: str
    form: Form
    media: str

    @property
    def plain(self) -> bool:
        return self.form == "plain"

    @property
    def host(self) -> str:
        return host(self.name)

    @property
    def domain(self) -> str:
        """What stands in user ids, as far as one can guess: the playbook's host is matrix.example.com."""
        return self.host.removeprefix("matrix.")

    @property
    def user(self) -> str:
        return "matrix-synapse" if self.plain else "matrix:matrix"

    @property
    def operator(self) -> str:
        """Where Synapse is started and stopped."""
        return SERVER if self.plain else PLAYBOOK

    @property
    def stop(self) -> tuple[str, ...]:
        return ("systemctl stop matrix-synapse    # and every worker",) if self.plain else (_tags("stop"),)

    @property
    def apply(self) -> tuple[str, ...]:
        """Take what is configured into use, and start."""
        return (
            ("systemctl restart matrix-synapse    # and every worker",) if self.plain else (_tags("setup-all,start"),)
        )

    @property
    def aside(self) -> str:
        """Where the local media goes while a mount takes its place."""
        return f"{self.media}-local"

    @property
    def configuration(self) -> str:
        return "conf.d/synapse-media.yaml" if self.plain else f"inventory/host_vars/{self.host}/synapse-media.yml"


def _tags(tags: str) -> str:
    return f"ansible-playbook -i inventory/hosts setup.yml --tags={tags}"


@dataclass(frozen=True, slots=True)
class Place:
    """A store as the copy sees it: the rclone remote `old` or `new`.

    Attributes:
        store: None where it is still to be made: then the commands take its names from its store.json.
        stack: the stack it is in.
        provider: where it is to be made.
        edited: by an edit of this stack, which uses no store yet; else in a new one.
    """

    remote: Literal["old", "new"]
    store: StorageOutputs | None
    stack: str
    provider: str = "PROVIDER"
    edited: bool = False

    @property
    def shown(self) -> str:
        return f"the bucket {self.store.bucket} at {self.store.endpoint_url}" if self.store else "the new bucket"

    @property
    def json(self) -> str:
        return f"{KEYS}/{self.remote}/store.json"

    @property
    def path(self) -> str:
        """For rclone, to be put between double quotes."""
        return f"{self.remote}:{self.store.bucket}/{self.store.prefix}" if self.store else f"${self.remote.upper()}"

    @property
    def url(self) -> str:
        """For the AWS tool, likewise."""
        path = f"${{{self.remote.upper()}#*:}}" if self.store is None else self.path.split(":", 1)[1]
        return f"s3://{path}"

    def _value(self, name: str) -> str:
        return str(getattr(self.store, name)) if self.store else f"$(value {self.json} {name})"

    @property
    def remote_commands(self) -> tuple[str, ...]:
        """Lines that make rclone know the store; the secret goes from the file into the environment alone."""
        prefix = f"export RCLONE_CONFIG_{self.remote.upper()}_"
        commands = [
            "value() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \"$@\"; }",
            f"{prefix}TYPE=s3 {prefix.split()[1]}PROVIDER=Other {prefix.split()[1]}NO_CHECK_BUCKET=true",
            f'{prefix}ENDPOINT="{self._value("endpoint_url")}"',
            f'{prefix}REGION="{self._value("region")}"',
        ]
        if self.remote == "new":
            commands.append(f'{prefix}STORAGE_CLASS="{self._value("storage_class")}"')
        if self.store is not None and self.store.keyless:
            commands.append(f"{prefix}ENV_AUTH=true")
        else:
            commands += [
                f'{prefix}{name.upper()}="$(value {self.json} {name})"'
                for name in ("access_key_id", "secret_access_key")
            ]
        if self.store is None:
            commands.append(f'{self.remote.upper()}="{self.remote}:{self._value("bucket")}/{self._value("prefix")}"')
        if self.store is not None and self.store.addressing == "virtual":
            commands.append(f"export {prefix}FORCE_PATH_STYLE=false")
        if self.store is not None and self.store.ca_file:
            # rclone 1.60 ends where AWS_CA_BUNDLE is set.
            commands.append(f"export RCLONE_CA_CERT={shlex.quote(self.store.ca_file)}; unset AWS_CA_BUNDLE")
        return tuple(commands)


def lines(*parts: str) -> str:
    """One command of a shell on several lines."""
    return " \\\n    ".join(parts)


def upload(site: Site, place: Place) -> tuple[str, ...]:
    """Local files to a store; what is there with another content is written again. And the same with the AWS tool."""
    copy = lines(f'rclone copy {site.media} "{place.path}" --checksum {_FAST}', _EXCEPT)
    if place.store is not None and place.store.keyless:
        return (copy,)
    remote = f"$RCLONE_CONFIG_{place.remote.upper()}_"
    checksums = "AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
    needed = place.store is None or place.store.checksums == "when_required"
    aws = lines(
        f'AWS_ACCESS_KEY_ID="{remote}ACCESS_KEY_ID" AWS_SECRET_ACCESS_KEY="{remote}SECRET_ACCESS_KEY"',
        *((checksums,) if needed else ()),
        f'aws s3 sync {site.media} "{place.url}"',
        f'--endpoint-url "{remote}ENDPOINT" --region "{remote}REGION"',
        "--exclude 'url_cache/*' --exclude 'url_cache_thumbnails/*'",
    )
    return (copy, "# or, slower where the store is far:\n# " + aws.replace("\n", "\n# "))


def download(site: Site, place: Place, target: str = "") -> tuple[str, ...]:
    """A store to local files: what is there is left as it is."""
    directory = target or site.media
    return (
        lines(f'rclone copy "{place.path}" {directory} --ignore-existing {_FAST}', _EXCEPT),
        f"chown -R {site.user} {directory}",
    )


def across(old: Place, new: Place) -> tuple[str, ...]:
    """One store to another, through this machine."""
    return (lines(f'rclone copy "{old.path}" "{new.path}" --checksum {_FAST}', _EXCEPT),)


def compare(one: str, other: str, *options: str) -> str:
    """Everything of `one` is in `other` with the same content: both are read."""
    return lines(f'rclone check "{one}" "{other}" --one-way --download --transfers 32', *options, _EXCEPT)


SAME = (
    "The last lines say `0 differences found` and how many files match, which is as many as the first side has (never "
    "0), and the exit code is 0."
)
COUNTS = "`rclone size` of both says the same number of files and bytes, but for url_cache and what came in since."
