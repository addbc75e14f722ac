"""`s3store:index:ExistingKey`: a key that the operator has already, for a store where none can be made for Synapse."""

from __future__ import annotations

from synapse_media.schema.resources import EXISTING_KEY, ExistingKeyInputs, ExistingKeyState
from synapse_media.store import credentials
from synapse_media.store.clients import admin_credential

from .resource import Context, SchemaResource


class ExistingKey(SchemaResource[ExistingKeyInputs, ExistingKeyState]):
    """The key in the environment, kept in state as the secret it is. It is never changed, and never deleted."""

    described = EXISTING_KEY
    not_imported = "an existing key can't be imported: `up` reads it from the environment."

    def make(self, inputs: ExistingKeyInputs, context: Context) -> tuple[str, ExistingKeyState]:
        return "existing-key", _with_key(inputs)

    def find(
        self, resource_id: str, inputs: ExistingKeyInputs, state: ExistingKeyState, context: Context
    ) -> tuple[str, ExistingKeyInputs, ExistingKeyState]:
        # A key that the operator replaced is taken up by the next refresh, and proved.
        return resource_id, inputs, _with_key(inputs)

    def change(
        self, resource_id: str, old: ExistingKeyState, inputs: ExistingKeyInputs, context: Context
    ) -> ExistingKeyState:
        return _with_key(inputs)

    def remove(self, resource_id: str, state: ExistingKeyState, last: ExistingKeyInputs, context: Context) -> None:
        """It was there before us, and stays."""


def _with_key(inputs: ExistingKeyInputs) -> ExistingKeyState:
    # What is read here goes into state, and on to Synapse: no credential of a provider that makes keys itself.
    credentials.refuse_foreign(inputs.connection.variables, setting="existing_key")
    key = admin_credential(inputs.connection)
    return ExistingKeyState(inputs=inputs, access_key_id=key.access_key_id, secret_access_key=key.secret)
