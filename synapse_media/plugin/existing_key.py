"""`s3store:index:ExistingKey`: a key that the operator has already, for a store where none can be made for Synapse.

Inputs: `active` (the slot in use: another one has the key read anew) and `connection`.
Outputs: the inputs, `accessKeyId` and `secretAccessKey` (secret), as the environment has them.
"""

from __future__ import annotations

from synapse_media.errors import StoreError
from synapse_media.store import credentials
from synapse_media.store.connection import Connection

from .resource import UNKNOWN, Context, Found, Resource, Values


class ExistingKey(Resource):
    """The key in the environment, kept in state as the secret it is. It is never changed, and never deleted."""

    pulumi_type = "s3store:index:ExistingKey"
    secrets = frozenset({"secretAccessKey"})
    required = frozenset({"active", "connection"})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "accessKeyId": UNKNOWN, "secretAccessKey": UNKNOWN}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        return "existing-key", _with_key(inputs)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise StoreError("an existing key can't be imported: `up` reads it from the environment.")
        # A key that the operator replaced is taken up by the next refresh, and proved.
        return Found(resource_id, inputs, {**outputs, **_with_key(inputs)})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        return _with_key(inputs)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        """It was there before us, and stays."""


def _with_key(inputs: Values) -> Values:
    connection = Connection.parse(inputs)
    # What is read here goes into state, and on to Synapse: no credential of a provider that makes keys itself.
    credentials.refuse_foreign(connection.variables, setting="existing_key")
    key = connection.admin()
    return {**inputs, "accessKeyId": key.access_key_id, "secretAccessKey": key.secret}
