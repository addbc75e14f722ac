"""An administrator's key is never handed to Synapse: judged by the steps of a preview, whoever declares the stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synapse_media.urn import Urn

from .applied import EXISTING_KEY, OURS, PROOF, Homeservers, is_bucket
from .danger import DangerError


def refuse_admin_keys(preview: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raise DangerError where the environment would be read for Synapse's key and has to have the administrator's.

    What is in the state before (users, policies, issued keys) is deleted with the credential in the environment, so
    that this is an administrator's for the whole run, although nothing that is declared now creates keys.

    Args:
        preview: what `pulumi preview --json` prints.
        state: what `pulumi stack export` prints.
    """
    resources = state.get("deployment", {}).get("resources") or ()
    steps = preview.get("steps") or ()
    homeservers = Homeservers.of_steps(steps, resources)
    makers = {
        variable: homeservers.of_resource(one)
        for one in resources
        if _makes_keys(one["urn"])
        for variable in _read(one)
    }
    refused: dict[str, None] = {}
    for step in steps:
        # What stays the same, or is deleted, does not read the environment.
        if Urn.parse(step["urn"]).kind != EXISTING_KEY or step["op"] in ("same", "delete") or not step.get("newState"):
            continue
        shared = [variable for variable in _read(step["newState"]) if variable in makers]
        if shared:
            name, of = homeservers.of(step["urn"]), makers[shared[0]]
            refused[
                f"existing_key of {name} takes the key in {', '.join(shared)} for Synapse. The administrator's has to "
                f"be there, which deletes the keys of {of}. First give {of} up with that: remove its component, put "
                f"{of}/retain-bucket, {of}/retire-key and {of}/narrow-policy into allow, and run `up`. Then declare "
                f"{name} with existing_key, with the key for Synapse in the environment."
            ] = None
    if refused:
        raise DangerError("nothing was changed:\n  " + "\n  ".join(refused))


def _makes_keys(urn: str) -> bool:
    """Whether it is one of the plugin's users, policies or keys, which an administrator's credential deletes."""
    kind = Urn.parse(urn).kind
    return kind.startswith(OURS) and not is_bucket(kind) and kind not in (EXISTING_KEY, PROOF)


def _read(state: Mapping[str, Any]) -> Iterator[str]:
    """The environment variables with the credential for a resource."""
    connection = (state.get("inputs") or {}).get("connection")
    variables = connection.get("variables") if isinstance(connection, Mapping) else None
    yield from map(str, variables if isinstance(variables, list) else ())
