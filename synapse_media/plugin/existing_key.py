"""`s3store:index:ExistingKey`: a key that the operator has already, for a store where none can be made for Synapse."""

from __future__ import annotations

from synapse_media.schema.resources import EXISTING_KEY, ExistingKeyInputs, ExistingKeyState
from synapse_media.store import credentials
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import admin_credential, call, s3_client
from synapse_media.store.objects import look

from .resource import Context, SchemaResource


class ExistingKey(SchemaResource[ExistingKeyInputs, ExistingKeyState]):
    """The key in the environment, kept in state as the secret it is. It is never changed, and never deleted."""

    described = EXISTING_KEY
    not_imported = "an existing key can't be imported: `up` reads it from the environment."

    def make(self, inputs: ExistingKeyInputs, context: Context) -> tuple[str, ExistingKeyState]:
        return "existing-key", _with_key(inputs, context)

    def find(
        self, resource_id: str, inputs: ExistingKeyInputs, state: ExistingKeyState, context: Context
    ) -> tuple[str, ExistingKeyInputs, ExistingKeyState]:
        # A key that the operator replaced is taken up by the next refresh, and proved.
        return resource_id, inputs, _with_key(inputs, context)

    def change(
        self, resource_id: str, old: ExistingKeyState, inputs: ExistingKeyInputs, context: Context
    ) -> ExistingKeyState:
        return _with_key(inputs, context)

    def remove(self, resource_id: str, state: ExistingKeyState, last: ExistingKeyInputs, context: Context) -> None:
        """It was there before us, and stays."""


def _with_key(inputs: ExistingKeyInputs, context: Context) -> ExistingKeyState:
    """The state with the key in the environment. Raises StoreError where the store does not accept it.

    The access key ID lies in the state in clear, so nothing that may be a secret must get there.
    """
    # What is read here goes into state, and on to Synapse: no credential of a provider that makes keys itself.
    credentials.refuse_foreign(inputs.connection.variables, setting="existing_key")
    key = admin_credential(inputs.connection)
    s3 = s3_client(inputs.connection, key)
    others: set[str] = set()
    try:
        if inputs.bucket:
            look(s3, inputs.bucket)
    except ApiError as error:
        # Whoever is told that there is no such bucket is known.
        if not error.absent:
            raise
    try:
        others = {str(bucket["Name"]) for bucket in call(s3, "list_buckets").get("Buckets", [])} - {inputs.bucket}
    except ApiError as error:
        # A key for the one bucket may not; by the bucket it is known.
        if not (inputs.bucket or error.denied) or error.bad_key:
            raise
    if others:
        context.warn(
            f"existing_key: {key.access_key_id} sees {len(others)} more bucket(s) of this store: it may be an "
            "administrator's. It lies in the state (encrypted) and is handed to Synapse: better give one that is "
            "limited to the bucket."
        )
    return ExistingKeyState(inputs=inputs, access_key_id=key.access_key_id, secret_access_key=key.secret)
