"""`s3store:index:ExistingKey`: the operator's own key, for a store on which none can be created for Synapse."""

from __future__ import annotations

from synapse_media.errors import StoreError
from synapse_media.schema.resources import EXISTING_KEY, ExistingKeyInputs, ExistingKeyState
from synapse_media.store import credentials
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Client, Credential, admin_credential, s3_client
from synapse_media.store.objects import bucket_names, look

from .resource import Context, SchemaResource


class ExistingKey(SchemaResource[ExistingKeyInputs, ExistingKeyState]):
    """The key in the environment, kept as a secret in the state. It is never changed or deleted."""

    described = EXISTING_KEY
    not_imported = "an existing key can't be imported: `up` reads it from the environment."

    def make(self, inputs: ExistingKeyInputs, context: Context) -> tuple[str, ExistingKeyState]:
        return "existing-key", _with_key(inputs, None, context)

    def find(
        self, resource_id: str, inputs: ExistingKeyInputs, state: ExistingKeyState, context: Context
    ) -> tuple[str, ExistingKeyInputs, ExistingKeyState]:
        # If the operator replaced the key, a refresh picks up the new one, which is then proved.
        return resource_id, inputs, _with_key(inputs, state, context)

    def change(
        self, resource_id: str, old: ExistingKeyState, inputs: ExistingKeyInputs, context: Context
    ) -> ExistingKeyState:
        return _with_key(inputs, old, context)

    def remove(self, resource_id: str, state: ExistingKeyState, last: ExistingKeyInputs, context: Context) -> None:
        """Nothing to delete: the key is the operator's."""


def _with_key(inputs: ExistingKeyInputs, former: ExistingKeyState | None, context: Context) -> ExistingKeyState:
    """The state with the key in the environment.

    The access key ID is in plain text in the state, so no secret must be taken for it.

    Raises:
        StoreError: the store does not accept the key, or it reaches buckets that Synapse's former key does not.
    """
    # The key is stored and handed to Synapse, so it must not be the admin credential of a provider that creates keys.
    credentials.refuse_foreign(inputs.connection.variables, setting="existing_key")
    key = admin_credential(inputs.connection)
    s3 = s3_client(inputs.connection, key)
    others: set[str] = set()
    try:
        if inputs.bucket:
            look(s3, inputs.bucket)
    except ApiError as error:
        # The store accepted the key if it reports that there is no such bucket.
        if not error.absent:
            raise
    try:
        others = _other_buckets(s3, inputs.bucket)
    except ApiError as error:
        if error.bad_key:
            raise
        # A key for one bucket may not list buckets; that it is valid was seen by the bucket above.
        if not (error.denied or error.lacking):
            if not inputs.bucket:
                raise
            if former is not None and _is_another(key, former):
                raise StoreError(
                    f"existing_key: whether the key {key.access_key_id} in the environment reaches more than Synapse's "
                    f"key {former.access_key_id} is not known, and an administrator's key is not handed to Synapse: "
                    f"{error}"
                ) from None
            context.warn(
                f"existing_key: whether {key.access_key_id} can list other buckets, as an administrator's key can, is "
                f"not known: {error}"
            )
    if others:
        if former is not None:
            _refuse_wider(inputs, key, others, former)
        context.warn(
            f"existing_key: {key.access_key_id} can list {len(others)} other bucket(s) of this store: it may be an "
            "administrator's. It is kept in the state (encrypted) and handed to Synapse: use one that is limited "
            "to the "
            "bucket if you can."
        )
    return ExistingKeyState(inputs=inputs, access_key_id=key.access_key_id, secret_access_key=key.secret)


def _other_buckets(s3: Client, bucket: str) -> set[str]:
    return set(bucket_names(s3)) - {bucket}


def _is_another(key: Credential, former: ExistingKeyState) -> bool:
    return former.access_key_id not in ("", key.access_key_id)


def _refuse_wider(inputs: ExistingKeyInputs, key: Credential, others: set[str], former: ExistingKeyState) -> None:
    """Raises StoreError if the key that Synapse has can't list these buckets. A former key that the store no longer
    accepts tells nothing."""
    if not _is_another(key, former):
        return
    try:
        had = _other_buckets(
            s3_client(inputs.connection, Credential(former.access_key_id, former.secret_access_key)), inputs.bucket
        )
    except ApiError as error:
        if error.bad_key:
            return
        if not (error.denied or error.lacking):
            raise
        had = set()
    more = others - had
    if more:
        raise StoreError(
            f"existing_key: the environment has the key {key.access_key_id}, which can list {len(more)} bucket(s) that "
            f"Synapse's key {former.access_key_id} can't: an administrator's key is not handed to Synapse. Put "
            f"Synapse's key into {' and '.join(inputs.connection.variables)}; a new one has to be limited to the "
            "bucket as the former one is."
        )
