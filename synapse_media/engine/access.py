"""Whether an environment has what a stack's state needs: the backend, the way to it, and the key to its secrets.

On a person's machine a state and a passphrase are made where there are none. In continuous integration one of that
machine's own would be gone with it, so what is missing has to be known before anything is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from synapse_media.engine.session import PASSPHRASE, VARIABLE_PREFIX, backend_of, is_service

_CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "AWS_": (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ),
    "GOOGLE_": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CREDENTIALS"),
    "AZURE_": ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
    "VAULT_": ("VAULT_SERVER_TOKEN",),
}
"""How the names of a vendor's variables begin -> those of which one says that a credential is there."""
_LOGGED_IN = ("PULUMI_ACCESS_TOKEN", "PULUMI_CREDENTIALS_PATH", "PULUMI_HOME")


@dataclass(frozen=True, slots=True)
class Access:
    """What an environment lacks, each in words.

    Attributes:
        lacks: without it nothing can be read.
        perhaps: it is in no variable, but the machine may have it otherwise, as by a role of its own: pulumi's answer
            tells.
    """

    lacks: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()


def access(project: Path, stack_file: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Access:
    """What an environment lacks for the state of a stack. A variable that is set to nothing counts as missing.

    Args:
        project: the directory of a Pulumi.yaml, which may name the backend.
        stack_file: what the stack file says. Its `secretsprovider` decides what opens the secrets; where it has none,
            and no `encryptionsalt` either, a stack on a service is under the service's key.
            https://www.pulumi.com/docs/iac/concepts/secrets/#changing-the-secrets-provider-for-a-stack
    """
    lacks, perhaps = [], []
    backend = environment.get("PULUMI_BACKEND_URL") or backend_of(project)
    on_service = is_service(backend)
    if not backend:
        lacks.append("PULUMI_BACKEND_URL is not set, and Pulumi.yaml names no backend")
    elif on_service and not any(environment.get(name) for name in _LOGGED_IN):
        lacks.append("PULUMI_ACCESS_TOKEN is not set")
    provider = str(stack_file.get("secretsprovider") or "")
    for scheme in (urlsplit(backend).scheme, provider.partition("://")[0]):
        names = _CREDENTIALS[VARIABLE_PREFIX[scheme]] if scheme in VARIABLE_PREFIX else ()
        if names and not any(environment.get(name) for name in names):
            perhaps.append(f"for {scheme}:// none of {', '.join(names)} is set")
    by_passphrase = provider == "passphrase" or "encryptionsalt" in stack_file or not (provider or on_service)
    if by_passphrase and not any(environment.get(name) for name in PASSPHRASE):
        lacks.append(f"neither {' nor '.join(PASSPHRASE)} is set")
    return Access(tuple(lacks), tuple(dict.fromkeys(perhaps)))
