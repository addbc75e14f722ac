"""What the homeserver's own configuration says of its media: which store it uses, for what, and its database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from synapse_media import lint
from synapse_media.contract import StorageOutputs
from synapse_media.errors import SynapseMediaError
from synapse_media.homeserver import synapse
from synapse_media.lint import stores
from synapse_media.lint.config import Config, ConfiguredStore, as_flag, field_of
from synapse_media.lint.reading import Value
from synapse_media.methods import MODULE

from . import database

DEFAULT: Final = synapse.CONFIGURATION
"""Where the Debian package has it."""


class ConfigurationError(SynapseMediaError):
    """The homeserver is not configured as it has to be for what was asked."""


@dataclass(frozen=True, slots=True)
class Homeserver:
    """A homeserver's configuration.

    Attributes:
        said: its files, for messages.
    """

    config: Config
    said: str

    @property
    def server_name(self) -> str:
        """The name in user IDs; "" where these files don't have it."""
        return self.config.field("server_name").text

    def database(self) -> database.Source | None:
        """The database that it names; None where these files name none. Raises UsageError."""
        names = ("database", "databases", "database_path")
        given = {name: _plain(value) for name, value in self.config.settings.items() if name in names}
        of = next((value.file for name, value in self.config.settings.items() if name in names), self.said)
        return database.of_settings(given, of)

    def require_store(self, store: StorageOutputs, directory: Path) -> frozenset[str]:
        """Require that Synapse reads and writes this store below this media store.

        Returns the folders whose new files Synapse stores there: those that may be freed.

        Raises ConfigurationError.
        """
        self._require_directory(directory)
        listed = [each for each in self.config.stores if each.method == MODULE]
        if not listed:
            raise ConfigurationError(
                f"{self.said}: {synapse.PROVIDERS} has no storage provider of {synapse.MODULE_PACKAGE}: without it "
                "Synapse does not look into the bucket, and every file that is deleted here is lost to its users. "
                "Install the file that `synapse-media render` wrote, restart Synapse, and name it by --config, too."
            )
        unlike = [_unlike(each, store) for each in listed]
        if all(unlike):
            raise ConfigurationError(
                f"{self.said}: Synapse uses another store than that of --store: {unlike[0]}. Nothing is deleted: name "
                "the store.json that was rendered with this configuration, or render it again and restart Synapse."
            )
        entry = listed[unlike.index("")].where
        kinds = {
            synapse.STORE_LOCAL: ("local_content", "local_thumbnails"),
            synapse.STORE_REMOTE: ("remote_content", "remote_thumbnail"),
        }
        return frozenset(folder for option, folders in kinds.items() if _is_on(entry, option) for folder in folders)

    def _require_directory(self, directory: Path) -> None:
        given = self.config.field(synapse.MEDIA_STORE_PATH).text
        # A container has it under a name of its own, which says nothing here.
        if not Path(given).is_absolute() or not Path(given).is_dir() or Path(given).samefile(directory):
            return
        raise ConfigurationError(
            f"DIR is {str(directory)!r}; allowed: {given}, which {self.said} has as {synapse.MEDIA_STORE_PATH}. Name "
            "that directory, or the configuration of the homeserver whose media this is."
        )


def read(paths: Sequence[str]) -> Homeserver:
    """The configuration in these files and directories. Raises UsageError."""
    return Homeserver(lint.synapse_config([Path(path) for path in paths]), ", ".join(paths))


def _unlike(found: ConfiguredStore, store: StorageOutputs) -> str:
    """What of a configured store is another, in words; "" where it is this one."""
    endpoint, bucket, prefix = (found.fields[name] for name in ("endpoint", "bucket", "prefix"))
    for field in (endpoint, bucket, prefix):
        if not field.literal:
            return f"{field.setting} is filled in later, and can't be compared: name the file that Synapse reads"
    if bucket.text != store.bucket:
        return f"{bucket.setting} is {bucket.text!r}, and the bucket of --store is {store.bucket!r}"
    if prefix.text != store.prefix:
        return f"{prefix.setting} is {prefix.text!r}, and the prefix of --store is {store.prefix!r}"
    if stores.host(endpoint.text) != stores.host(store.endpoint_url):
        return f"{endpoint.setting} is {endpoint.text!r}, and the endpoint of --store is {store.endpoint_url!r}"
    return ""


def _is_on(entry: Value, option: str) -> bool:
    return as_flag(field_of(option, entry.items.get(option), lint.Kind.SYNAPSE)) is True


def _plain(value: Value) -> Any:
    if isinstance(value.data, dict):
        return {name: _plain(item) for name, item in value.data.items()}
    return [_plain(item) for item in value.data] if isinstance(value.data, tuple) else value.data
