"""Read credentials from the environment: validated first, and only from variables that the catalog names.

Libraries show a malformed credential (with a line break or quotes copied along) in their errors: http.client and
urllib3 the whole header, botocore the signed one.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from synapse_media import catalog, incoming
from synapse_media.errors import StoreError
from synapse_media.redaction import remember

_QUOTES = "\"'`“”‘’"


def fault(value: str) -> str:
    """What is wrong with a credential's form, as a clause without the value; "" if nothing.

    Every provider's credentials are printable ASCII without spaces.
    """
    if not value:
        return "is empty"
    if "\n" in value or "\r" in value:
        return "has a line break in it"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        return "has a control character in it"
    if any(letter.isspace() for letter in value):
        return "begins or ends with a blank" if value != value.strip() else "has a blank in it"
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        return "has a quotation mark at its beginning or end"
    return "" if value.isascii() else "has a character in it that is not ASCII"


def refuse_malformed(what: str, value: str) -> None:
    """Raises StoreError, with `what` and never the value, if a credential is malformed."""
    why = fault(value)
    if why:
        raise StoreError(
            f"{what} {why}: set it to the value exactly as issued, on one line and without quotation marks. Its "
            "present value is not shown."
        )


def read(name: str, environment: Mapping[str, str] | None = None) -> str:
    """The credential in an environment variable; "" if it is not set. Raises StoreError if it is malformed.

    Args:
        environment: by default that of this process.
    """
    value = (os.environ if environment is None else environment).get(name, "")
    if value:
        if not name.endswith("_KEY_ID"):
            remember(value.strip())
        refuse_malformed(name, value)
    return value


def shared(access_key_id: str) -> str:
    """The secret of this key in the file that AWS_SHARED_CREDENTIALS_FILE names; "" where there is none.

    Raises StoreError where that file can't be read, or the secret is malformed.
    """
    path = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "")
    if not path:
        return ""
    reader = configparser.RawConfigParser()
    try:
        reader.read_string(incoming.text(Path(path), 1 << 20))
    except (OSError, UnicodeDecodeError, configparser.Error):
        # What the reader says has a line of the file in it.
        raise StoreError(
            f"AWS_SHARED_CREDENTIALS_FILE is {path!r}, which can't be read as a credentials file: name one that has "
            "[default], aws_access_key_id and aws_secret_access_key, and that this user may read."
        ) from None
    for section in reader.values():
        if section.get("aws_access_key_id") == access_key_id:
            secret = section.get("aws_secret_access_key", "")
            remember(secret)
            refuse_malformed(f"aws_secret_access_key in {path}", secret)
            return secret
    return ""


def refuse_foreign(names: Collection[str], *, family: str = "", setting: str = "") -> None:
    """Raises StoreError unless the variables are those of a provider's admin credential.

    A request to the plugin gives the variables and the address their values are sent to, so without this check it could
    send any variable anywhere.

    Args:
        family: the component the provider must have; "": any.
        setting: a setting the provider must have, such as `existing_key`.
    """
    providers = [catalog.load(name) for name in catalog.names()]
    allowed = [
        provider.admin_variables
        for provider in providers
        if family in ("", provider.component) and (not setting or setting in provider.value("settings", {}))
    ]
    if not any(set(names) <= set(variables) for variables in allowed):
        known = "; ".join(dict.fromkeys(", ".join(variables) for variables in allowed))
        raise StoreError(
            f"connection.variables: {', '.join(names)} is not a provider's admin credential; allowed: {known}."
        )
