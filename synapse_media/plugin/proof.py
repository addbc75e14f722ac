"""`s3store:index:Proof`: runs the probes of `store.probes` during `up`, before anything is configured with the key.

With an admin credential, the proof uses a decoy bucket, which the key must not reach, and cleans up afterwards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Protocol

from synapse_media.contract import Proof, fingerprint, secret_sha256
from synapse_media.errors import StoreError
from synapse_media.methods import METHODS, Expected, Operation
from synapse_media.schema.connection import Connection
from synapse_media.schema.resources import PROOF, ProofInputs, ProofLine, ProofState
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Credential, s3_client
from synapse_media.store.objects import clear_proof
from synapse_media.store.probes import advice, own_object, prove

from . import families
from .resource import Context, PartialError, SchemaResource

DECOY: Final = "synapse-media-decoy-"
"""The prefix of the name of every decoy bucket."""


def writes_at_end() -> bool:
    """Whether the engine writes the state at the end of the run only: then no step knows what is in it.

    https://github.com/pulumi/pulumi/blob/master/sdk/go/common/env/env.go
    """
    return os.environ.get("PULUMI_SKIP_CHECKPOINTS", "").lower() in ("1", "true")


def decoy_name(connection: Connection, bucket: str) -> str:
    """The name of the decoy, derived from the store, so that the decoy of an interrupted run is found and reused."""
    seed = f"{connection.endpoint}/{connection.region}/{bucket}"
    return f"{DECOY}{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


class ProofAdministrator(Protocol):
    """The operations of a proof that need the admin credential. Every method may raise StoreError."""

    def ensure_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        """Create an empty bucket that the key must not reach, or find the one of an earlier run.

        It has the store's ownership mark if the provider has marks; one with another mark is refused. False if this
        provider can't create a decoy.
        """

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        """Delete the decoy."""

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        """The store's other decoys, left by interrupted runs; [] if the provider can't find them."""

    def bucket_policy(self, inputs: ProofInputs) -> str | None:
        """The bucket's policy; "" for none, None if the administrator can't read it."""

    def clear(self, inputs: ProofInputs, own: str) -> None:
        """Remove what the proof wrote, and what earlier ones left.

        Args:
            own: the key of its own object.
        """

    def note_known(self, inputs: ProofInputs) -> None:
        """Remove what says at the provider that the key was not handed out, if anything does: the state has it now."""


def clear_with_proved_key(inputs: ProofInputs, own: str) -> None:
    """Remove what the proof wrote, where a key that may write may delete, and the administrator has no key for S3."""
    key = Credential(inputs.access_key_id, inputs.secret_access_key)
    clear_proof(s3_client(inputs.connection, key), inputs.bucket, inputs.prefix, own)


class ProofResource(SchemaResource[ProofInputs, ProofState]):
    """The proof as a resource, run again only if the key, policy, bucket or endpoint changes."""

    described = PROOF
    not_imported = "a proof can't be imported: `up` makes it."

    def make(self, inputs: ProofInputs, context: Context) -> tuple[str, ProofState]:
        name = f"proof-{inputs.bucket}"
        return name, _prove(name, inputs, None, context)

    def find(
        self, resource_id: str, inputs: ProofInputs, state: ProofState, context: Context
    ) -> tuple[str, ProofInputs, ProofState]:
        # A record of what was tried at the time, which can't drift.
        return resource_id, inputs, state

    def change(self, resource_id: str, old: ProofState, inputs: ProofInputs, context: Context) -> ProofState:
        return _prove(resource_id, inputs, old, context)

    def remove(self, resource_id: str, state: ProofState, last: ProofInputs, context: Context) -> None:
        """A proof is only a record; delete nothing but decoys that could not be deleted before."""
        _delete_left(state, context)


def _delete_decoy(administrator: ProofAdministrator, inputs: ProofInputs, decoy: str, context: Context) -> bool:
    """Delete a decoy; False, with a warning, if that failed."""
    try:
        administrator.delete_decoy(inputs, decoy)
    except StoreError as error:
        if not (isinstance(error, ApiError) and error.absent):
            _say_left(decoy, error, context)
            return False
    return True


def _say_left(decoy: str, why: StoreError, context: Context) -> None:
    context.warn(
        f"the empty bucket {decoy}, created for the proof, could not be deleted: {why} The next proof tries again; to "
        "remove it now, delete it at the provider."
    )


def _delete_left(state: ProofState, context: Context) -> list[str]:
    """Delete the decoys of earlier runs with the inputs they were created with; the names of those that remain."""
    administrator = families.proof_administrator(state.inputs.administrator)
    left = []
    for decoy in state.decoys_left:
        try:
            # ensure_decoy checks by the mark that it is this store's.
            if not administrator.ensure_decoy(state.inputs, decoy):
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
    """A decoy for the duration of the proof; "" if there can be none.

    Args:
        left: receives the names of decoys that could not be deleted.
    """
    decoy = decoy_name(inputs.connection, inputs.bucket)
    if not (inputs.admin and inputs.decoy and administrator.ensure_decoy(inputs, decoy)):
        yield ""
        return
    try:
        yield decoy
    finally:
        names = (decoy, *administrator.decoys_left(inputs, decoy))
        left.extend(name for name in names if not _delete_decoy(administrator, inputs, name, context))


def _as_its_reader(inputs: ProofInputs) -> Connection:
    """The connection, with the bucket named in URLs as the method's program does."""
    method, connection = METHODS.get(inputs.method), inputs.connection
    if method is None:
        return connection
    return replace(connection, addressing=method.addressing(connection.endpoint, inputs.bucket))


def _prove(resource_id: str, inputs: ProofInputs, old: ProofState | None, context: Context) -> ProofState:
    credential = Credential(inputs.access_key_id, inputs.secret_access_key)
    expected = {Operation(name): Expected(value) for name, value in inputs.expected.items()}
    state = ProofState(inputs=inputs)
    administrator = families.proof_administrator(inputs.administrator)
    left: list[str] = []
    own = own_object(inputs.prefix)

    def cleared() -> bool:
        # Best effort: after a failed probe the objects may be out of reach, and the lines report that failure.
        try:
            administrator.clear(inputs, own)
        except ApiError:
            return False
        return True

    try:
        if old is not None and old.decoys_left:
            left += _delete_left(old, context)
        with _decoy(administrator, inputs, left, context) as decoy:
            lines = prove(
                _as_its_reader(inputs),
                credential,
                inputs.bucket,
                inputs.prefix,
                expected,
                decoy=decoy,
                policy=administrator.bucket_policy(inputs) if inputs.admin else None,
                settle_seconds=inputs.settle_seconds,
                own=own,
                cleared=cleared if inputs.admin else None,
            )
        # The ring can't do this itself: what it returns is not in the state yet, and a run killed in between would
        # leave a key that nobody knows. Here the state has the key, or there were nothing to prove.
        if not writes_at_end():
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
        then = "All resources are kept: fix the cause and run `synapse-media up` again."
        raise PartialError(f"the proof failed: {advice(lines)} {then}", resource_id, state)
    return state
