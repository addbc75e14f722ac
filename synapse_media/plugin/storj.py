"""Storj: a bucket, created with a short-lived grant, and S3 keys for grants restricted to the bucket.

Storj's control plane is the operator's access grant (UPLINK_ACCESS), restricted on this machine; an auth service gives
an S3 key pair for a grant, which it can neither list nor delete. So a key is registered once and kept in state; it
ends with its grant: at its expiry, or when the vendor's `uplink` revokes it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from synapse_media.errors import StoreError
from synapse_media.schema.connection import AdminCheck, Connection
from synapse_media.schema.resources import (
    STORJ_BUCKET,
    STORJ_KEY_RING,
    ProofInputs,
    StorjBucketInputs,
    StorjBucketState,
    StorjKeyRingInputs,
    StorjKeyRingState,
)
from synapse_media.store import credentials
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Client, Credential, call, s3_client
from synapse_media.store.http import JsonClient
from synapse_media.store.objects import clear_proof, may_be_there

from .families import Family
from .keyring import KeyFamily, MadeKey, RingBase, is_printed, require_leave
from .resource import Context, PartialError
from .s3_bucket import S3BucketBase, S3Family, mark
from .storj_grant import OBJECTS, PERMISSIONS, Grant, parse

PARENT: Final = "UPLINK_ACCESS"
"""The environment variable that the vendor's own command reads, too."""
AUTH: Final = "https://auth.storjshare.io"

_SHORT: Final = timedelta(hours=1)
"""The lifetime of a key for creating and deleting the bucket."""
_SPARE: Final = timedelta(minutes=10)
"""A short-lived key is not used in its last minutes, since a call takes time."""
_SOON: Final = timedelta(days=30)
_SETTLE: Final = 30.0
"""Seconds until the gateways accept a newly registered key."""
_REVOKE_SECONDS: Final = 60
_LONG_WORD: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,}")
_WORD: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{12,}")
_GRANT: Final = "[access grant]"


# ---- the operator's grant


def parent(bucket: str, needed: Collection[str]) -> Grant:
    """The operator's access grant. Raises StoreError if it is missing or insufficient."""
    given = credentials.read(PARENT)
    if not given:
        raise StoreError(
            f"the environment has no {PARENT}: set it to an access grant of your project that may read, write, list "
            "and delete in every bucket, or in this one (console: Access Keys, New, Access Grant)"
        )
    try:
        grant = parse(given)
    except StoreError as error:
        raise StoreError(f"{PARENT}: {error}") from None
    fault = grant.fault(bucket, needed, datetime.now(UTC))
    if fault:
        raise StoreError(
            f"{PARENT}: the access grant can't be used for the bucket {bucket!r}: {fault}. Use one of the project that "
            f"allows {', '.join(sorted(needed))} there, without an expiry or other limits."
        )
    return grant


def check_admin(asked: AdminCheck) -> None:
    """Raises StoreError if the access grant in the environment is insufficient for the store's keys."""
    parent(asked.bucket, PERMISSIONS if asked.access == "full" else OBJECTS)


def _spelled_out(permissions: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(PERMISSIONS if "*" in permissions else permissions))


# ---- the auth service


@dataclass(frozen=True, slots=True)
class _Registered:
    """A key pair, and the URL of the gateway that accepts it (without a trailing slash).

    Attributes:
        ends: when the pair expires (ISO 8601), if that is before its grant does, as in a free trial; else "".
    """

    credential: Credential
    endpoint: str
    ends: str = ""


def _register(connection: Connection, grant: Grant, *, repeatable: bool) -> _Registered:
    """Register a grant for an S3 key pair. Each call issues another pair, so retry it only for a short-lived grant."""
    client = JsonClient(
        base=(connection.auth_endpoint or AUTH).rstrip("/"),
        what="Storj's auth service",
        headers={},
        setting="auth_endpoint",
        ca_file=connection.ca_file,
        plain_errors=True,
    )
    given = grant.serialize()
    asked = {"access_grant": given, "public": False}
    try:
        answer = client.call("POST", "/v1/access", asked, repeatable=repeatable)
    except ApiError as error:
        # The server may quote the grant in its message, perhaps truncated or in lines.
        words = _WORD.sub(lambda word: _GRANT if word[0] in given else word[0], str(error))
        raise ApiError(error.code, error.status, _LONG_WORD.sub(_GRANT, words)) from None
    found = answer if isinstance(answer, Mapping) else {}
    key_id, secret, endpoint = (found.get(name) for name in ("access_key_id", "secret_key", "endpoint"))
    if not (is_printed(key_id) and is_printed(secret) and isinstance(endpoint, str)):
        raise ApiError("Unparsable", 200, f"POST /v1/access at {client.base}: the answer has no key pair")
    if not _is_base(endpoint):
        raise ApiError(
            "Unparsable", 200, f"POST /v1/access at {client.base}: the gateway in the answer is not an http(s) URL"
        )
    ends = found.get("freeTierRestrictedExpiration")
    moment = _moment(ends)
    if moment is not None and moment <= datetime.now(UTC):
        raise ApiError(
            "Unparsable",
            200,
            f"POST /v1/access at {client.base}: the key pair in the answer ended {moment:%Y-%m-%d}: check "
            "auth_endpoint and the clock of this machine",
        )
    return _Registered(Credential(key_id, secret), endpoint.rstrip("/"), str(ends) if moment else "")


def _moment(text: object) -> datetime | None:
    """A time in the auth service's form (ISO 8601, UTC); None where it is none."""
    try:
        found = datetime.fromisoformat(str(text))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


_BASE: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?")


def _is_base(url: str) -> bool:
    match = _BASE.fullmatch(url)
    return match is not None and 0 < int(match["port"] or 443) < 1 << 16


# ---- short-lived keys, for the bucket alone: kept in memory, never in the state

_short: dict[tuple[object, ...], tuple[_Registered, datetime]] = {}
_lock = threading.Lock()


def administrator(connection: Connection, bucket: str, pause: Callable[[float], None] = time.sleep) -> Client:
    """An S3 client for creating, reading and deleting this bucket alone, valid for less than an hour."""
    grant = parent(bucket, OBJECTS)
    now = datetime.now(UTC)
    key = (grant, bucket, connection.auth_endpoint)
    with _lock:
        registered, ends = _short.get(key, (None, now))
        fresh = registered is None or ends - now < _SPARE
        if registered is None or fresh:
            ends = min(now + _SHORT, grant.not_after or now + _SHORT)
            registered = _register(connection, grant.restricted([bucket], OBJECTS, ends), repeatable=True)
        there = replace(connection, endpoint=connection.endpoint or registered.endpoint)
        s3 = s3_client(there, registered.credential)
        if fresh:
            _wait_until_known(s3, bucket, pause)
            _short[key] = registered, ends
    return s3


def _wait_until_known(s3: Client, bucket: str, pause: Callable[[float], None]) -> None:
    deadline = time.monotonic() + _SETTLE
    while True:
        try:
            call(s3, "get_bucket_location", Bucket=bucket)
        except ApiError as error:
            if error.bad_key and time.monotonic() < deadline:
                pause(1.5)
                continue
            # A grant for a bucket always allows reading it, and bucket names are per project, so a denial means a bad
            # grant.
            if error.bad_key or error.denied:
                raise StoreError(
                    f"{PARENT}: the gateway refuses a key that was just registered for this access grant. The grant, "
                    f"or the API key it was created from, was perhaps revoked: set it to a valid one. {error}"
                ) from None
            if error.is_anybodys:
                raise
        # Any other error of the gateway's own shows that the key was accepted.
        return


class StorjFamily(S3Family[StorjBucketInputs]):
    """A bucket, through a key that is valid for an hour and restricted to it."""

    def administrator(self) -> Client:
        return administrator(self.inputs.connection, self.bucket)


class StorjBucket(S3BucketBase[StorjBucketInputs, StorjBucketState]):
    """A bucket, created with the operator's access grant."""

    described = STORJ_BUCKET
    not_imported = "a Storj bucket can't be imported: adopt it with adopt: true in the stack file"

    def family(self, state: StorjBucketState) -> StorjFamily:
        return StorjFamily(state)

    def make(self, inputs: StorjBucketInputs, context: Context) -> tuple[str, StorjBucketState]:
        grant = parent(inputs.bucket, OBJECTS | set(_spelled_out(inputs.key_permissions)))
        if grant.unknown_fields:
            context.warn(
                f"{PARENT}: the access grant has a restriction that this release does not know (caveat field "
                f"{', '.join(map(str, sorted(grant.unknown_fields)))}). A key made here may have more such "
                "permissions than it needs: look for a newer release."
            )
        return super().make(inputs, context)

    def begun(self, inputs: StorjBucketInputs) -> StorjBucketState:
        # Recorded first, so that it is in the state even if creating the bucket fails halfway.
        fingerprint = parent(inputs.bucket, OBJECTS).fingerprint(inputs.bucket)
        return StorjBucketState(inputs=inputs, fingerprint=fingerprint)

    def find(
        self, resource_id: str, inputs: StorjBucketInputs, state: StorjBucketState, context: Context
    ) -> tuple[str, StorjBucketInputs, StorjBucketState] | None:
        _require_same_encryption(state)
        return super().find(resource_id, inputs, state, context)

    def change(
        self, resource_id: str, old: StorjBucketState, inputs: StorjBucketInputs, context: Context
    ) -> StorjBucketState:
        _require_same_encryption(old)
        return super().change(resource_id, old, inputs, context)

    def remove(self, resource_id: str, state: StorjBucketState, last: StorjBucketInputs, context: Context) -> None:
        _require_same_encryption(state)
        super().remove(resource_id, state, last, context)


def _require_same_encryption(state: StorjBucketState) -> None:
    """Raises StoreError for a grant of another project, in which the bucket would seem to be deleted, or of another
    passphrase, with which its contents can't be decrypted."""
    bucket = state.inputs.bucket
    _refuse_other(bucket, parent(bucket, OBJECTS), state.fingerprint)


def _refuse_other(bucket: str, grant: Grant, fingerprint: str) -> None:
    if fingerprint and grant.fingerprint(bucket) != fingerprint:
        raise StoreError(
            f"{PARENT}: the access grant is of another project, or was made with another passphrase, than that of the "
            f"bucket {bucket!r}: it can't read the objects there. Use a grant of that project and passphrase."
        )


class StorjAdministrator:
    """The proof's administrator, through short-lived keys."""

    def ensure_decoy(self, inputs: ProofInputs, decoy: str) -> bool:
        grant = parent(inputs.bucket, OBJECTS)
        if grant.fault(decoy, OBJECTS, datetime.now(UTC)):
            # A grant for this bucket alone can't create a decoy: the proof reports "not tested".
            return False
        s3 = administrator(inputs.connection, decoy)
        try:
            call(s3, "create_bucket", Bucket=decoy)
        except ApiError as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
        # Tags must be enabled for a project, so a denial is ignored.
        mark(s3, decoy, inputs, may_be_denied=True)
        return True

    def delete_decoy(self, inputs: ProofInputs, decoy: str) -> None:
        call(administrator(inputs.connection, decoy), "delete_bucket", Bucket=decoy)

    def decoys_left(self, inputs: ProofInputs, decoy: str) -> list[str]:
        # A short-lived key is restricted to its bucket.
        return []

    def bucket_policy(self, inputs: ProofInputs) -> str | None:
        return ""  # Storj has no bucket policies

    def clear(self, inputs: ProofInputs, own: str) -> None:
        s3 = administrator(inputs.connection, inputs.bucket)
        clear_proof(s3, inputs.bucket, inputs.prefix, own)

    def note_known(self, inputs: ProofInputs) -> None:
        """Nothing to clear: Storj can't list keys, so there is no journal."""


# ---- the keys


def _ended(grant: Grant) -> bool:
    return grant.not_after is not None and grant.not_after <= datetime.now(UTC)


def _end_of_key(state: StorjKeyRingState, slot: str) -> datetime | None:
    """When the key of a slot expires, on its own or with its grant; None: never."""
    with_grant = parse(state.grants[slot]).not_after
    of_itself = _moment(state.ends.get(slot))
    if of_itself is None:
        return with_grant
    return min(with_grant or of_itself, of_itself)


def _has_ended(state: StorjKeyRingState, slot: str) -> bool:
    end = _end_of_key(state, slot)
    return end is not None and end <= datetime.now(UTC)


def _lifetime(key_id: str, end: datetime | None) -> str:
    ends = f"ends on {end:%Y-%m-%d}" if end else "has no end"
    return f"deleting a key (key {key_id} {ends}; only the vendor's uplink command can revoke it)"


class StorjKeys(KeyFamily):
    """The keys of one ring, known only from the state.

    The grant, the endpoint and the expiry of a new key are added to the state.
    """

    def __init__(self, state: StorjKeyRingState) -> None:
        self.who = f"bucket {state.inputs.bucket}"
        self._state = state

    def listed(self) -> dict[str, bool]:
        """The keys in the state whose grants have not expired."""
        state = self._state
        return {key.access_key_id: True for slot, key in state.keys.items() if not _has_ended(state, slot)}

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        state, bucket = self._state, self._state.inputs.bucket
        grant = _grant(state.inputs)
        for held in state.grants.values():
            _refuse_other(bucket, grant, parse(held).fingerprint(bucket))
        at = datetime.now(UTC)
        # Recorded before the call, so that the grant can be revoked whatever its outcome.
        state.grants[slot] = grant.serialize()
        try:
            registered = _register(state.inputs.connection, grant, repeatable=False)
        except ApiError as error:
            # Who answers 429 may have passed the request on before.
            if not (300 <= error.status < 500 or error.code == "BadCertificate") or error.status in (408, 429):
                raise StoreError(
                    f"slot {slot!r}: {error}. The request is not repeated, and may have made a key pair, which nobody "
                    f"received. Run `up` again for another."
                ) from None
            del state.grants[slot]
            raise StoreError(f"slot {slot!r}: no key was made: {error}{_meaning(error)}") from None
        state.endpoints[slot], state.ends[slot] = registered.endpoint, registered.ends
        return MadeKey(registered.credential.access_key_id, registered.credential.secret, at.isoformat())

    def usable(self) -> bool:
        inputs = self._state.inputs
        try:
            s3 = administrator(inputs.connection, inputs.bucket)
        except ApiError:
            return True  # of the key pair to look with: it says nothing about the bucket
        return may_be_there(s3, inputs.bucket)

    def delete(self, key_id: str) -> None:
        """Nothing to do: key pairs can't be deleted. The ring revokes the grant afterwards."""

    def orphans(self, known: frozenset[str]) -> list[str]:
        return []


def _meaning(error: ApiError) -> str:
    return {
        400: ". The auth service does not accept this access grant: it serves other satellites, or the grant expires "
        "within a minute. Is auth_endpoint that of the satellite in UPLINK_ACCESS?",
        413: ". The access grant is too long for the auth service: use one that was restricted fewer times.",
        422: ". The server did not understand the request: is auth_endpoint an auth service?",
        404: ". Is auth_endpoint an auth service?",
    }.get(error.status, "")


class StorjKeyRing(RingBase[StorjKeyRingInputs, StorjKeyRingState]):
    """The S3 keys of a bucket, each for its own grant."""

    described = STORJ_KEY_RING

    def family(self, state: StorjKeyRingState) -> StorjKeys:
        return StorjKeys(state)

    def checked(self, inputs: StorjKeyRingInputs) -> tuple[StorjKeyRingInputs, dict[str, str]]:
        inputs, faults = super().checked(inputs)
        # An unknown value is neither a number nor a list.
        days = inputs.expires_in_days
        if isinstance(days, int) and not 0 <= days <= 36500:
            faults["expiresInDays"] = (
                f"is {days!r}; allowed: a whole number of days from 1 to 36500, or 0 for no expiry"
            )
        if isinstance(inputs.permissions, tuple):
            inputs = replace(inputs, permissions=_spelled_out(inputs.permissions))
            if set(inputs.permissions) - set(PERMISSIONS):
                faults["permissions"] = f"allowed: {', '.join(PERMISSIONS)}, or * for all"
        return inputs, faults

    def foreseen(self, inputs: StorjKeyRingInputs, old: StorjKeyRingState | None) -> StorjKeyRingState:
        if old is not None:
            _refuse_change(old, inputs)
        state = super().foreseen(inputs, old)
        if old is not None and old.endpoint:
            state.endpoint = old.endpoint
        return state

    def make(self, inputs: StorjKeyRingInputs, context: Context) -> tuple[str, StorjKeyRingState]:
        name = inputs.user_name
        return name, self.change(name, StorjKeyRingState(inputs=inputs), inputs, context)

    def change(
        self, resource_id: str, old: StorjKeyRingState, inputs: StorjKeyRingInputs, context: Context
    ) -> StorjKeyRingState:
        _refuse_change(old, inputs)
        try:
            state = super().change(resource_id, old, inputs, context)
        except PartialError:
            # The ring changes the given state in place, and the error refers to the same object.
            _end_unused(old, context)
            raise
        _end_unused(state, context)
        if state.ending:
            raise PartialError(
                f"bucket {inputs.bucket}: the keys are up to date, but an old access grant could not be revoked; see "
                "the warning, and run `up` again",
                resource_id,
                state,
            )
        return state

    def find(
        self, resource_id: str, inputs: StorjKeyRingInputs, state: StorjKeyRingState, context: Context
    ) -> tuple[str, StorjKeyRingInputs, StorjKeyRingState] | None:
        found = super().find(resource_id, inputs, state, context)
        for slot, key in state.keys.items():
            ends = _end_of_key(state, slot)
            if ends is not None and ends - datetime.now(UTC) < _SOON:
                context.warn(
                    f"bucket {inputs.bucket}: key {key.access_key_id} expires on {ends:%Y-%m-%d}, after which Synapse "
                    "can't reach its media. Run `synapse-media rotate` before."
                )
        return found

    def remove(self, resource_id: str, state: StorjKeyRingState, last: StorjKeyRingInputs, context: Context) -> None:
        family, bucket = self.family(state), state.inputs.bucket
        confirmed = state.inputs.retire_confirmed or last.retire_confirmed
        require_leave(family, family.listed(), state, confirmed=confirmed)
        grants = (*state.ending, *state.grants.values())
        left = [grant for grant in grants if not _end(parse(grant), bucket, context)]
        if left:
            raise StoreError(
                f"bucket {bucket}: {len(left)} access grants could not be revoked; see the warnings. "
                f"If the grant in {PARENT} was revoked itself, so were its keys: remove uplink from PATH and run this "
                "again."
            )


def _end_unused(state: StorjKeyRingState, context: Context) -> None:
    """Revoke the grants of keys that are no longer kept or were never handed out; record those that remain."""
    keys, bucket = state.keys, state.inputs.bucket
    waiting = (*state.ending, *(grant for slot, grant in state.grants.items() if slot not in keys))
    state.grants = {slot: grant for slot, grant in state.grants.items() if slot in keys}
    state.endpoints = {slot: url for slot, url in state.endpoints.items() if slot in keys}
    state.ends = {slot: end for slot, end in state.ends.items() if slot in keys}
    state.endpoint = state.endpoints.get(state.inputs.active, "")
    state.ending = tuple(grant for grant in waiting if not _end(parse(grant), bucket, context))
    state.lifetimes = tuple(
        _lifetime(key.access_key_id, _end_of_key(state, slot)) for slot, key in sorted(keys.items())
    )


def _refuse_change(old: StorjKeyRingState, inputs: StorjKeyRingInputs) -> None:
    """Raises StoreError if the permissions of an existing key changed: a grant can only be replaced, by a rotation."""
    slot, wanted = inputs.active, frozenset(PERMISSIONS) - frozenset(inputs.permissions)
    if slot not in old.keys or slot not in old.grants or _has_ended(old, slot):
        return
    if parse(old.grants[slot]).forbidden != wanted:
        other = "b" if slot == "a" else "a"
        raise StoreError(
            f"permissions: the key of slot {slot!r} was made with other permissions, and a Storj grant can't be "
            f"changed, only replaced. Rotate in the same edit: keys: {{active: {other}, retiring: [{slot}]}}."
        )


def _grant(inputs: StorjKeyRingInputs) -> Grant:
    """A new grant for the bucket, by the inputs."""
    bucket, permissions, days = inputs.bucket, frozenset(inputs.permissions), inputs.expires_in_days
    ends = datetime.now(UTC) + timedelta(days=days) if days else None
    return parent(bucket, permissions).restricted([bucket], permissions, ends)


# ---- the vendor's command


def _end(grant: Grant, bucket: str, context: Context) -> bool:
    """Revoke a grant, or warn that it stays valid; False if revoking it failed."""
    if _ended(grant):
        return True
    until = f"until {grant.not_after:%Y-%m-%d}" if grant.not_after else "forever"
    program = shutil.which("uplink")
    if program is None:
        context.warn(
            f"bucket {bucket}: a retired key stays valid {until}: Storj can't delete keys, and the vendor's uplink "
            "command, which could revoke it, is not on PATH. To revoke it, delete the API key that its grant was "
            "created from in the console."
        )
        return True
    fault = _revoke(program, grant)
    if fault:
        context.warn(f"bucket {bucket}: `uplink access revoke` failed, and the key stays valid {until}: {fault}")
    return not fault


def _revoke(program: str, grant: Grant) -> str:
    """The error of the command; "" if it succeeded. Grants are passed as files, since others can read arguments."""
    given = credentials.read(PARENT)
    if not given:
        return f"the environment has no {PARENT}"
    with tempfile.TemporaryDirectory(prefix="synapse-media-") as name:
        folder = Path(name)  # mode 0700
        for file, content in (("parent", given), ("child", grant.serialize())):
            descriptor = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(content + "\n")
        kept = {
            word: os.environ[word] for word in ("PATH", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR") if word in os.environ
        }
        # Without the user's configuration: no prompt on the first run, and no access grant of another project.
        environment = {**kept, "UPLINK_INTERACTIVE": "false", "UPLINK_CONFIG_DIR": name}
        command = [program, "access", "revoke", "--access", str(folder / "parent"), str(folder / "child")]
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_REVOKE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_REVOKE_SECONDS} s"
        except OSError as error:
            return str(error.strerror)
        first = " ".join(_LONG_WORD.sub(_GRANT, done.stderr or done.stdout).split())[:300]
        return "" if done.returncode == 0 else f"{first or 'no message'} (code {done.returncode})"


FAMILY: Final = Family(
    resources=(StorjBucket(), StorjKeyRing()),
    proof_administrator=StorjAdministrator(),
    check_admin=check_admin,
)
