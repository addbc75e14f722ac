"""What the homeserver's own configuration says of its media: which store it uses, for what, and its database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from synapse_media import lint
from synapse_media.contract import StorageOutputs
from synapse_media.errors import SynapseMediaError, UsageError
from synapse_media.homeserver import synapse
from synapse_media.lint import stores
from synapse_media.lint.config import Config, ConfiguredStore, Field, as_flag, field_of, kind_of
from synapse_media.lint.reading import Document, Value
from synapse_media.lint.reading import read as read_document
from synapse_media.methods import MODULE

from . import database

DEFAULT: Final = synapse.CONFIGURATION
"""Where the Debian package has it."""
_MAIN: Final = "homeserver.yaml"
_MORE: Final = Path(synapse.DROP_IN).parent.name


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

    def require_homeserver(self, store: StorageOutputs) -> None:
        """Require that a store is this homeserver's. Raises ConfigurationError."""
        from synapse_media.renderer import domain

        if self.server_name not in ("", store.server_name, domain(store.server_name)):
            raise ConfigurationError(
                f"{self.said}: server_name is {self.server_name!r}, and --store is of {store.server_name}: media of "
                "two homeservers must not be mixed. Name the store.json of this homeserver."
            )

    def require_store(self, store: StorageOutputs, directory: Path) -> frozenset[str]:
        """Require that Synapse reads and writes this store below this media store.

        Returns the folders whose new files Synapse stores there: those that may be freed.

        Raises ConfigurationError.
        """
        self._require_directory(directory)
        entry = self._entry(store).where
        kinds = {
            synapse.STORE_LOCAL: ("local_content", "local_thumbnails"),
            synapse.STORE_REMOTE: ("remote_content", "remote_thumbnail"),
        }
        return frozenset(folder for option, folders in kinds.items() if _is_on(entry, option) for folder in folders)

    def require_key(self, store: StorageOutputs) -> str:
        """Require that Synapse reads with the key of this store, which is the one that is proved.

        Returns what is to be said where these files have no key, so that nobody can tell; "" where they have it.

        Raises ConfigurationError, which never has the secret in it.
        """
        fields = self._entry(store).fields
        key, secret, token = (fields[name] for name in ("access_key_id", "secret_access_key", "session_token"))
        if all(field.empty for field in (key, secret, token)):
            return (
                ""
                if store.keyless
                else f"{self.said} has no key: whether the one in Synapse's environment is that of --store, which is "
                "proved, can't be told here"
            )
        if why := _unlike_key(key, secret, token, store):
            raise ConfigurationError(
                f"{self.said}: Synapse has another key than that of --store, and only the latter is proved: {why}. "
                "Nothing is deleted: install the file that `synapse-media render` wrote and restart Synapse, or name "
                "the store.json of the key that Synapse has."
            )
        return ""

    def _entry(self, store: StorageOutputs) -> ConfiguredStore:
        """The storage provider that is this store. Raises ConfigurationError where there is none."""
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
        return listed[unlike.index("")]

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
    """The configuration in these files and directories, of which every file counts.

    Of a directory, those are read that the Debian package has Synapse read: homeserver.yaml, then conf.d/*.yaml. One
    without both is read as Synapse reads a directory: *.yaml.

    Raises UsageError, also for a file that can't be read here as Synapse would read it.
    """
    files = list(dict.fromkeys(file for path in paths for file in _files(Path(path))))
    config = lint.synapse_config(files)
    taken = {document.path for document in config.documents}
    for file in files:
        if str(file) not in taken and (why := _why_not(read_document(file))):
            raise UsageError(
                f"--config: {file} {why}, so that nobody knows what Synapse reads there; allowed: the files of YAML "
                "that Synapse reads. Name the file as it is on the server, or move it out of the directory."
            )
    return Homeserver(config, ", ".join(paths))


def _files(path: Path) -> list[Path]:
    """The files that Synapse reads where it is given this path. Raises UsageError."""
    if not path.is_dir():
        return [path]
    main, more = path / _MAIN, path / _MORE
    try:
        if main.exists() or more.is_dir():
            found = [*([main] if main.exists() else []), *(_in(more) if more.is_dir() else [])]
        else:
            found = _in(path)
    except OSError as error:
        raise UsageError(f"--config: {path} can't be read: {error.strerror}") from None
    if not found:
        raise UsageError(
            f"--config: {path} has neither {_MAIN} nor a *.yaml file; allowed: the directory of Synapse's "
            "configuration, or its files"
        )
    return found


def _in(directory: Path) -> list[Path]:
    return sorted(file for file in directory.iterdir() if file.suffix == ".yaml" and not file.is_dir())


def _why_not(document: Document) -> str:
    """Why a file, which was taken for none of Synapse's, may hold settings of it all the same; "" where it does not."""
    if document.problem:
        return document.problem
    if document.template:
        return "is a template"
    if document.encrypted:
        return "is encrypted"
    if kind_of(document) is not None:
        return "is a template, or the configuration of another program"
    return ""


def _unlike(found: ConfiguredStore, store: StorageOutputs) -> str:
    """What of a configured store is another, in words; "" where it is this one."""
    endpoint, bucket, prefix, customer_key = (
        found.fields[name] for name in ("endpoint", "bucket", "prefix", "customer_key")
    )
    for field in (endpoint, bucket, prefix):
        if not field.literal:
            return f"{field.setting} is filled in later, and can't be compared: name the file that Synapse reads"
    if bucket.text != store.bucket:
        return f"{bucket.setting} is {bucket.text!r}, and the bucket of --store is {store.bucket!r}"
    if prefix.text != store.prefix:
        return f"{prefix.setting} is {prefix.text!r}, and the prefix of --store is {store.prefix!r}"
    if customer_key.given:
        return (
            f"{customer_key.setting} is set, with which Synapse can read no object of --store, whose have no such key"
        )
    if _address(endpoint.text) != _address(store.endpoint_url):
        return f"{endpoint.setting} is {endpoint.text!r}, and the endpoint of --store is {store.endpoint_url!r}"
    return ""


def _unlike_key(key: Field, secret: Field, token: Field, store: StorageOutputs) -> str:
    """What of a configured key is not the store's, in words and without the secret; "" where all of it is."""
    for field in (key, secret, token):
        if not field.literal:
            return f"{field.setting} is filled in later, and can't be compared: name the file that Synapse reads"
    if store.keyless:
        return f"{key.setting} is {key.text!r}, and --store has none, since the machine's role is its key"
    if key.text != store.access_key_id:
        return f"{key.setting} is {key.text!r}, and that of --store is {store.access_key_id!r}"
    if secret.text != store.secret_access_key:
        return f"{secret.setting} is not the secret of {store.access_key_id} that --store has"
    if not token.empty:
        return f"{token.setting} is set, with which no key of --store can be used"
    return ""


def _address(endpoint: str) -> tuple[str, str, str]:
    """Scheme, host and path. Where Synapse is given none, boto3 takes Amazon's, by HTTPS."""
    scheme, separator, rest = endpoint.partition("://")
    path = rest.partition("/")[2].strip("/") if separator else ""
    return (scheme.lower() if separator else "" if endpoint else "https"), stores.host(endpoint), path


def _is_on(entry: Value, option: str) -> bool:
    return as_flag(field_of(option, entry.items.get(option), lint.Kind.SYNAPSE)) is True


def _plain(value: Value) -> Any:
    if isinstance(value.data, dict):
        return {name: _plain(item) for name, item in value.data.items()}
    return [_plain(item) for item in value.data] if isinstance(value.data, tuple) else value.data
