"""`s3store:index:Proof`: the probes of `store.probes` run in `up`, before anything is configured with the key.

There may be an administrator, who makes a decoy bucket and clears up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from synapse_media.contract import Proof, fingerprint, secret_sha256
from synapse_media.errors import StoreError
from synapse_media.methods import Expected, Operation
from synapse_media.schema.connection import Connection
from synapse_media.schema.resources import PROOF, ProofInputs, ProofLine, ProofState
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Credential, s3_client
from synapse_media.store.objects import clear_proof
from synapse_media.store.probes import advice, own_object, prove

from . import families
from .resource import Context, PartialError, SchemaResource

DECOY: Final = "synapse-media-decoy-"
"""How the name of every decoy bucket begins."""


def decoy_name(connection: Connection, bucket: str) -> str:
    """The same name for the same store: what a killed run left is found again."""
    seed = f"{connection.endpoint}/{connection.region}/{bucket}"
    return f"{DECOY}{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


class ProofAdministrator(Protocol):
    """What the proof needs an administrator for. Every method may raise StoreError."""

    def lend_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        """Make an empty bucket of this name that the key must not reach, or find the one an earlier run left.

        It carries the store's mark, where the store has marks; with another's it is refused. False where this
        administrator can make none.
        """

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        """Delete the decoy."""

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        """The decoys of this store but this one, that a run which was killed left; [] where the provider can't tell."""

    def clear(self, inputs: ProofInputs, own: str) -> None:
        """Remove what the proof wrote, and what earlier ones left.

        Args:
            own: the key of its own object.
        """

    def note_known(self, inputs: ProofInputs) -> None:
        """Note that the key is in a state, where the provider holds what was noted to find it by if it were not."""


def clear_with_proved_key(inputs: ProofInputs, own: str) -> None:
    """Remove what the proof wrote, where a key that may write may delete, and the administrator has no key for S3."""
    key = Credential(inputs.access_key_id, inputs.secret_access_key)
    clear_proof(s3_client(inputs.connection, key), inputs.bucket, inputs.prefix, own)


class ProofResource(SchemaResource[ProofInputs, ProofState]):
    """The proof as a resource: run again whenever the key, policy, bucket or endpoint changes, and at no other time."""

    described = PROOF
    not_imported = "a proof can't be imported: `up` makes it."

    def make(self, inputs: ProofInputs, context: Context) -> tuple[str, ProofState]:
        name = f"proof-{inputs.bucket}"
        return name, _prove(name, inputs, None, context)

    def find(
        self, resource_id: str, inputs: ProofInputs, state: ProofState, context: Context
    ) -> tuple[str, ProofInputs, ProofState]:
        # Nothing to read: it says what was tried and when it was made, of which nothing can drift.
        return resource_id, inputs, state

    def change(self, resource_id: str, old: ProofState, inputs: ProofInputs, context: Context) -> ProofState:
        return _prove(resource_id, inputs, old, context)

    def remove(self, resource_id: str, state: ProofState, last: ProofInputs, context: Context) -> None:
        """A proof is a record: nothing at the store is to be deleted but a decoy that could not be before."""
        _delete_left(state, context)


def _delete_decoy(administrator: ProofAdministrator, inputs: ProofInputs, decoy: str, context: Context) -> bool:
    """Delete a decoy; False, and said, where it is still there."""
    try:
        administrator.delete_decoy(inputs, decoy)
    except StoreError as error:
        if not (isinstance(error, ApiError) and error.absent):
            _say_left(decoy, error, context)
            return False
    return True


def _say_left(decoy: str, why: StoreError, context: Context) -> None:
    context.warn(
        f"the bucket {decoy}, made empty for the proof, could not be deleted: {why} The next proof tries again; to be "
        "rid of it now, delete it at the provider."
    )


def _delete_left(state: ProofState, context: Context) -> list[str]:
    """Delete the decoys that earlier runs left, by what they were made with; the names of those still there."""
    administrator = families.proof_administrator(state.inputs.lender)
    left = []
    for decoy in state.decoys_left:
        try:
            # Looked at as if it were made anew: by its mark it is known to be this store's.
            if not administrator.lend_decoy(state.inputs, decoy):
                continue
        except StoreError as error:
            _say_left(decoy, error, context)
            left.append(decoy)
            continue
        if not _delete_decoy(administrator, state.inputs, decoy, context):
            left.append(decoy)
    return left


@contextmanager
def _decoy(administrator: ProofAdministrator, inputs: ProofInputs, left: list[str], context: Context) -> Iterator[str]:
    """A decoy for the time of the proof; "" where there is none to be had.

    Args:
        left: the names of those that could not be deleted afterwards are added to it.
    """
    decoy = decoy_name(inputs.connection, inputs.bucket)
    if not (inputs.admin and inputs.decoy and administrator.lend_decoy(inputs, decoy)):
        yield ""
        return
    try:
        yield decoy
    finally:
        names = (decoy, *administrator.decoys_left(inputs, decoy))
        left.extend(name for name in names if not _delete_decoy(administrator, inputs, name, context))


def _prove(resource_id: str, inputs: ProofInputs, old: ProofState | None, context: Context) -> ProofState:
    credential = Credential(inputs.access_key_id, inputs.secret_access_key)
    expected = {Operation(name): Expected(value) for name, value in inputs.expected.items()}
    state = ProofState(inputs=inputs)
    administrator = families.proof_administrator(inputs.lender)
    left: list[str] = []
    own = own_object(inputs.prefix)
    try:
        if old is not None and old.decoys_left:
            left += _delete_left(old, context)
        with _decoy(administrator, inputs, left, context) as decoy:
            lines = prove(
                inputs.connection,
                credential,
                inputs.bucket,
                inputs.prefix,
                expected,
                decoy=decoy,
                settle_seconds=inputs.settle_seconds,
                own=own,
            )
        if inputs.admin:
            # What a failed probe left may be out of reach; the lines say what failed.
            with suppress(ApiError):
                administrator.clear(inputs, own)
        # The ring can't do this itself: what it returns is not in the state yet, and a run killed in between would
        # leave a key that nobody knows. Here the state has the key, or there were nothing to prove.
        administrator.note_known(inputs)
    except StoreError as error:
        raise PartialError(f"the proof could not be run: {error}", resource_id, state) from None
    finally:
        state.decoys_left = tuple(sorted(set(left)))
    state.secret_sha256 = secret_sha256(credential.access_key_id, credential.secret)
    state.lines = tuple(
        ProofLine(operation=line.operation, expected=line.expected, outcome=line.outcome, detail=line.detail)
        for line in lines
    )
    state.made_for = fingerprint(
        access_key_id=credential.access_key_id,
        policy_sha256=inputs.policy_sha256,
        bucket=inputs.bucket,
        endpoint_url=inputs.endpoint_url,
        region=inputs.region,
        prefix=inputs.prefix,
        method=inputs.method,
        access=inputs.access,
    )
    if not Proof(state.made_for, lines).passed:
        raise PartialError(f"the proof failed: {advice(lines)}", resource_id, state)
    return state
