"""`s3store:index:User`, `UserPolicy` and `KeyRing` over the IAM query API (Amazon, Wasabi, versitygw, Ceph).

A user is marked as ours by its path, which is set by the call that creates it. An access key can't be marked, so the
key ring keeps a journal: before it creates a key, it adds an inline policy to the user that records the time and the
existing keys.

The input `mark` of all three identifies the store that must own the user. The paths of earlier releases contain only
the stack, so for them the bucket in the user's policy decides.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

from synapse_media.errors import StoreError
from synapse_media.schema.connection import Connection
from synapse_media.schema.resources import (
    KEY_RING,
    USER,
    USER_POLICY,
    KeyRingInputs,
    KeyRingState,
    UserInputs,
    UserMark,
    UserPolicyInputs,
    UserPolicyState,
    UserState,
)
from synapse_media.store import bounded
from synapse_media.store.answers import NO_ANSWER, ApiError, moment, require_asked
from synapse_media.store.clients import Client, Credential, call, call_if_any, iam_client, s3_client, server_time
from synapse_media.store.objects import may_be_there

from .keyring import KeyFamily, MadeKey, RingBase, accepted_at
from .resource import Context, PartialError, SchemaResource, forgetting, import_id
from .s3_bucket import canonical

T = TypeVar("T")

ROOT: Final = "/synapse-media/"
"""The path prefix of every user that any stack created."""
POLICY_NAME: Final = "synapse-media"
"""The inline policy of a store's user."""
JOURNAL: Final = "s3store-making-"
_OPEN: Final = f"{JOURNAL}open-"
"""The prefix of entries whose CreateAccessKey may still be executed by the store."""
_LATE: Final = timedelta(minutes=15)
"""The longest delay with which a request is still executed: after that, its signature is rejected.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html"""
_SKEW: Final = timedelta(minutes=15)
"""The maximum difference between the clocks that date a response and a key, which signatures allow too."""


# ---- the ownership of users


@dataclass(frozen=True, slots=True)
class _User:
    """A user at the store."""

    path: str
    arn: str


def _fault(
    iam: Client,
    user: str,
    found: _User,
    mark: UserMark | None,
    *,
    adopted: bool,
    paths: tuple[str, ...] = (),
    buckets: Collection[str] = (),
    strict: bool = False,
) -> str:
    """Why a user must not be changed; "" if it is this store's or adopted.

    Args:
        paths: further paths of this store's user beside the mark's: where it will be created, where it was last seen.
        buckets: further buckets that its policy may name beside the mark's.
        strict: if the bucket is unknown, assume that any policy belongs to another store.
    """
    path = found.path
    ours = frozenset({*_paths(mark), *paths} - {""})
    if path in ours and path.count("/") > _OLD_SLASHES:
        return ""
    if ours and path not in ours:
        wanted = next(filter(None, (mark.path if mark else "", *paths)), ", ".join(sorted(ours)))
        if path.startswith(ROOT):
            fault = f"user {user!r} is marked as another stack's (path {path!r}, ours is {wanted!r})."
            return fault + _former(path, wanted)
        if not adopted:
            return f"user {user!r} exists already (path {path!r}, ours is {wanted!r}): it is not this stack's."
    known = frozenset({mark.bucket if mark else "", *buckets} - {""})
    named = _named_buckets(iam, user)
    if named and not named & known and (known or strict):
        return f"user {user!r} is another store's: its policy {POLICY_NAME!r} is for {', '.join(sorted(named))}."
    return ""


def _former(path: str, ours: str) -> str:
    """The way out if a path is that of this bucket in this stack, for a homeserver by another name; else "".

    A user keeps its first path, however often its homeserver is renamed: a state that is lost was all that knew it.
    """
    found, wanted = path.strip("/").split("/"), ours.strip("/").split("/")
    differ = [number for number, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other]
    if len(found) != len(wanted) or differ != [_HOMESERVER]:
        return ""
    return f" It was made for this bucket when its homeserver was {found[_HOMESERVER]}: set renamed_from to that."


_HOMESERVER: Final = 3
"""The part of `/synapse-media/<project>/<stack>/<homeserver>/<bucket>/` that a rename changes."""


def _paths(mark: UserMark | None) -> tuple[str, ...]:
    """The paths that mark a user as this store's; () without a mark."""
    return (mark.path, *mark.former_paths) if mark else ()


_OLD_SLASHES: Final = 3
"""The slashes in `/synapse-media/<stack>/`, a path of earlier releases that is not unique to a store."""
_ARN: Final = re.compile(r"arn:[^:]*:s3:::([^/*?$]+)(?:/.*)?")


def _buckets_of(document: object) -> frozenset[str]:
    """The buckets in a policy; empty if it applies to any."""
    try:
        parsed = json.loads(document) if isinstance(document, str) else document
    except ValueError:
        return frozenset()
    found = parsed.get("Statement") if isinstance(parsed, Mapping) else None
    names: set[str] = set()
    for statement in found if isinstance(found, list) else [found]:
        listed = statement.get("Resource") if isinstance(statement, Mapping) else None
        matches = (_ARN.fullmatch(str(arn)) for arn in (listed if isinstance(listed, list) else [listed]))
        names |= {match[1] for match in matches if match}
    return frozenset(names)


def _policy_of(iam: Client, user: str, name: str) -> Mapping[str, Any] | None:
    """An inline policy; None for none. Raises ApiError, also for what is no policy."""
    try:
        found = call(iam, "get_user_policy", UserName=user, PolicyName=name)["PolicyDocument"]
    except ApiError as error:
        if error.absent:
            return None
        raise
    # boto3 leaves what is not JSON as it came.
    if not isinstance(found, Mapping):
        raise ApiError(
            NO_ANSWER, 0, f"get_user_policy {user}/{name}: the answer has no policy: is this the store's IAM API?"
        )
    return found


def _named_buckets(iam: Client, user: str) -> frozenset[str]:
    return _buckets_of(_policy_of(iam, user, POLICY_NAME))


def _refuse(fault: str) -> None:
    if fault:
        raise StoreError(f"user: {fault} It was not changed. Choose another name with the setting user.")


def _refuse_without_path(iam: Client, inputs: UserInputs) -> None:
    """Raises StoreError, and deletes the user that was just made, if the store keeps no paths (SeaweedFS).

    Nothing else tells our users from others', which a later run must neither change nor delete.
    """
    user = inputs.user_name
    found = _user(iam, user)
    if found is None or found.path == inputs.path:
        return
    with suppress(ApiError):
        call(iam, "delete_user", UserName=user)
    raise StoreError(
        f"user: the IAM API at {inputs.connection.iam_endpoint} keeps no path of a user (asked for {inputs.path!r}, "
        f"got {found.path!r}), by which this stack's users are known. Nothing was made. Create a key by hand, limited "
        "to the bucket, and set existing_key: true in place of iam_endpoint."
    )


class User(SchemaResource[UserInputs, UserState]):
    """An IAM user under a path of ours. Its path is never changed: policies of others may refer to it."""

    described = USER

    def foreseen(self, inputs: UserInputs, old: UserState | None) -> UserState:
        return super().foreseen(inputs, old) if old is None else _kept(old, inputs)

    def make(self, inputs: UserInputs, context: Context) -> tuple[str, UserState]:
        user, path = inputs.user_name, inputs.path
        iam = iam_client(inputs.connection)
        adopted = False
        try:
            made = _user_in(call(iam, "create_user", UserName=user, Path=path))
            if made.path != path:
                _refuse_without_path(iam, inputs)
        except ApiError as error:
            if error.code != "EntityAlreadyExists":
                raise
            found = _user(iam, user)
            if found is None:
                raise ApiError(
                    NO_ANSWER,
                    0,
                    f"user {user} at {inputs.connection.iam_endpoint}: the service says that it exists (create_user) "
                    "and that it does not (get_user). Check whether several servers answer at iam_endpoint, of which "
                    "one lags behind or is another store, and run this again.",
                ) from None
            made = found
            fault = _fault(iam, user, made, inputs.mark, adopted=inputs.adopt, paths=(path,))
            if fault:
                over = "" if made.path.startswith(ROOT) else ", or set adopt: true to take it over"
                raise StoreError(f"user: {fault} Choose another name with the setting user{over}.") from None
            adopted = made.path not in (path, *_paths(inputs.mark))
            path = path if adopted else made.path
        return user, UserState(inputs=replace(inputs, path=path), arn=made.arn, adopted=adopted)

    def imported(self, resource_id: str) -> tuple[UserInputs, UserState]:
        user, connection = import_id(resource_id)
        inputs = UserInputs(user_name=user, path="", connection=connection, adopt=True)
        return inputs, UserState(inputs=inputs, adopted=True)

    def find(
        self, resource_id: str, inputs: UserInputs, state: UserState, context: Context
    ) -> tuple[str, UserInputs, UserState] | None:
        user = inputs.user_name or resource_id
        found = _user(iam_client(inputs.connection), user)
        if found is None:
            return None
        path = found.path
        inputs = replace(inputs, path=inputs.path or path, moved_to="")
        kept = state.inputs.path or inputs.path
        state.inputs, state.arn = replace(inputs, path=kept), found.arn
        if path not in (kept, inputs.path, *_paths(inputs.mark)) and (not state.adopted or path.startswith(ROOT)):
            inputs = replace(inputs, moved_to=path)
        return user, inputs, state

    def change(self, resource_id: str, old: UserState, inputs: UserInputs, context: Context) -> UserState:
        user, iam = inputs.user_name, iam_client(inputs.connection)
        # The state keeps the old endpoint until the user was found at the new one, since a refresh uses the state's.
        found = _user(iam, user)
        if found is None:
            raise StoreError(
                f"user: {user!r} does not exist at {inputs.connection.iam_endpoint}. Check iam_endpoint; if the user "
                "was deleted, `synapse-media up --refresh` detects that and creates it again."
            )
        kept, path = _kept(old, inputs), found.path
        moved = not old.adopted and path not in (kept.inputs.path, inputs.path, *_paths(inputs.mark))
        same_place = old.inputs.connection.iam_endpoint == inputs.connection.iam_endpoint
        if moved and same_place and not path.startswith(ROOT):
            _move_back(iam, user, kept.inputs.path)
            found = _user(iam, user) or found
            kept.arn = found.arn
        _refuse(_fault(iam, user, found, inputs.mark, adopted=old.adopted, paths=(inputs.path, kept.inputs.path)))
        return kept

    def remove(self, resource_id: str, state: UserState, last: UserInputs, context: Context) -> None:
        user = state.inputs.user_name or resource_id
        if state.adopted:
            context.warn(f"user {user} was adopted by this stack, so it is not deleted.")
            return
        connection = state.inputs.connection
        iam = iam_client(connection)
        try:
            found = _shown(iam, user)
        except ApiError as error:
            _require_gone(error, "list_access_keys has keys of the user", lambda: bool(_key_ids(iam, user)))
            return
        mark = state.inputs.mark or last.mark
        fault = _fault(iam, user, found, mark, adopted=False, paths=(state.inputs.path,), strict=True)
        if fault:
            context.warn(f"{fault} It is not deleted.")
            return
        try:
            seen = _keys_seen(iam, user)
            never_handed_out, used = _keys_of_nobody(user, connection, mark, seen) if seen else ([], [])
            if used:
                raise StoreError(
                    f"user {user} has the key {', '.join(used)}, which this state does not know, and which may be in "
                    "use: by another checkout with its own state, or from a state that was lost. The user and its "
                    "policies are kept. If the key is that of another component of this stack, as after a rename that "
                    "was interrupted, run `synapse-media up`, which leaves the former entries out of the state. Else "
                    "delete unused keys at the provider, and run this again. To keep the user and "
                    f"stop managing it, remove it from the state, and run this again: {forgetting(context.urn)}"
                )
            for key_id in never_handed_out:
                _delete_key(iam, user, key_id)
            # A user that has some all the same is not deleted by the service.
            for name in _policies_if_any(iam, user):
                _remove_policy(iam, user, name)
            call(iam, "delete_user", UserName=user)
        except ApiError as error:
            _require_gone(error, "get_user shows the user", lambda: _user(iam, user) is not None)


def _kept(old: UserState, inputs: UserInputs) -> UserState:
    """The state for an existing user: its path is kept, and all other inputs are only recorded."""
    return replace(old, inputs=replace(inputs, path=old.inputs.path or inputs.path))


def _move_back(iam: Client, user: str, path: str) -> None:
    """Restore the path that marks the user, after somebody changed it."""
    try:
        call(iam, "update_user", UserName=user, NewPath=path)
    except ApiError as error:
        if not error.lacking:
            raise
        raise StoreError(
            f"user: {user!r} was moved away from the path {path!r}, which is the mark of this store, and this store "
            "can't move a user. Move it back at the provider."
        ) from None


class UserPolicy(SchemaResource[UserPolicyInputs, UserPolicyState]):
    """An inline policy of a user."""

    described = USER_POLICY

    def checked(self, inputs: UserPolicyInputs) -> tuple[UserPolicyInputs, dict[str, str]]:
        if not isinstance(inputs.policy, str):  # not known yet
            return inputs, {}
        try:
            return replace(inputs, policy=canonical(inputs.policy)), {}
        except ValueError:
            return inputs, {"policy": "is not JSON"}

    def make(self, inputs: UserPolicyInputs, context: Context) -> tuple[str, UserPolicyState]:
        return _policy_id(inputs), _with_policy(inputs)

    def imported(self, resource_id: str) -> tuple[UserPolicyInputs, UserPolicyState]:
        name, connection = import_id(resource_id)
        user, slash, policy = name.partition("/")
        if not slash:
            raise StoreError(f"import id {resource_id!r} is not USER/POLICY@IAM-ENDPOINT")
        inputs = UserPolicyInputs(user_name=user, policy_name=policy, policy="", connection=connection)
        return inputs, UserPolicyState(inputs=inputs)

    def find(
        self, resource_id: str, inputs: UserPolicyInputs, state: UserPolicyState, context: Context
    ) -> tuple[str, UserPolicyInputs, UserPolicyState] | None:
        found = _policy_of(iam_client(inputs.connection), inputs.user_name, inputs.policy_name)
        if found is None:
            return None
        inputs = replace(inputs, policy=canonical(json.dumps(found)))
        # Only the inputs get the actual policy: the bucket in the state's policy is what identifies the user as ours.
        state.inputs = replace(inputs, policy=state.inputs.policy or inputs.policy)
        return _policy_id(inputs), inputs, state

    def change(
        self, resource_id: str, old: UserPolicyState, inputs: UserPolicyInputs, context: Context
    ) -> UserPolicyState:
        return _with_policy(inputs, old.inputs.policy)

    def remove(self, resource_id: str, state: UserPolicyState, last: UserPolicyInputs, context: Context) -> None:
        user, name = state.inputs.user_name, state.inputs.policy_name
        iam = iam_client(state.inputs.connection)
        try:
            found = call(iam, "get_user_policy", UserName=user, PolicyName=name)["PolicyDocument"]
            named, ours = _buckets_of(found), _buckets_of(state.inputs.policy)
            if named and ours and not named & ours:
                context.warn(
                    f"user {user}: the policy {name} belongs to another store, for {', '.join(sorted(named))}: it is "
                    "not deleted."
                )
                return
            mark = state.inputs.mark or last.mark
            # Nobody depends on the policy of a user without keys, whoever's it is. That it is another's is asked twice.
            seen = _keys_seen(iam, user)
            if seen and any(_is_ours(iam, user, mark, adopted=False) for _ in range(2)):
                _, used = _keys_of_nobody(user, state.inputs.connection, mark, seen)
                if used:
                    context.warn(
                        f"user {user}: the policy {name} is kept as long as the user has the key {', '.join(used)}, "
                        "which may be in use. It is deleted with the user."
                    )
                    return
            call(iam, "delete_user_policy", UserName=user, PolicyName=name)
        except ApiError as error:
            _require_gone(error, "list_user_policies has the policy", lambda: name in _policies_if_any(iam, user))


def _policy_id(inputs: UserPolicyInputs) -> str:
    return f"{inputs.user_name}/{inputs.policy_name}"


def _with_policy(inputs: UserPolicyInputs, former: str | None = None) -> UserPolicyState:
    """Set the policy of a user.

    Args:
        former: the policy in the state, whose buckets the user's policy may name too; None if the state has none.
    """
    iam, user = iam_client(inputs.connection), inputs.user_name
    found = _user(iam, user)
    if found is not None:
        buckets = _buckets_of(inputs.policy) | _buckets_of(former)
        _refuse(_fault(iam, user, found, inputs.mark, adopted=inputs.adopt, buckets=buckets))
        if former is None and not inputs.adopt:
            _refuse_narrower(iam, inputs)
    call(iam, "put_user_policy", UserName=user, PolicyName=inputs.policy_name, PolicyDocument=inputs.policy)
    return UserPolicyState(inputs=inputs)


def _refuse_narrower(iam: Client, inputs: UserPolicyInputs) -> None:
    """Raises StoreError if the policy would narrow one that is not in this state while the user has unknown keys.

    Such keys may be in use: by another checkout with its own state, or from a state that was lost. A narrower policy
    would take permissions from them. Without unknown keys nobody depends on the old policy, and keys in the state are
    protected by the guards, which ask before a policy is narrowed.
    """
    user = inputs.user_name
    found = _policy_of(iam, user, inputs.policy_name)
    if found is None or allows_all(inputs.policy, found):
        return
    # Some services say of a user without keys that there is nothing.
    seen = frozenset(_key_ids(iam, user) or _key_ids(iam, user))
    _, used = _keys_of_nobody(user, inputs.connection, inputs.mark, seen) if seen else ([], [])
    if used:
        raise StoreError(
            f"user: {user!r} exists already, with another policy and with the key {', '.join(used)}, neither of "
            "which this state knows. It may be in use: by another checkout with its own state, or from a state that "
            "was lost. Its policy was not changed. If another checkout has it, choose another user. After a lost "
            "state, run `up` with the stack file as it was (access, method, prefix) and change it then; or delete the "
            "unused keys at the provider."
        )


def _rights(document: object, effect: str) -> set[tuple[str, str, str]]:
    """{(action, resource, the rest of the statement as JSON)} that a policy allows or denies."""
    parsed = json.loads(document) if isinstance(document, str) else document
    found = parsed.get("Statement") if isinstance(parsed, Mapping) else None
    rights = set()
    for statement in found if isinstance(found, list) else [found]:
        if not isinstance(statement, Mapping) or statement.get("Effect") != effect:
            continue
        named = ("Effect", "Sid", "Action", "Resource")
        rest = json.dumps({name: value for name, value in statement.items() if name not in named}, sort_keys=True)
        actions, resources = (
            value if isinstance(value, list) else [value or ""]
            for value in (statement.get("Action"), statement.get("Resource"))
        )
        rights |= {(str(action).lower(), str(resource), rest) for action in actions for resource in resources}
    return rights


def allows_all(policy: object, former: object) -> bool:
    """Whether a policy certainly allows everything that a former one allowed. Both are documents, parsed or as JSON.

    Raises ValueError if one is not JSON.
    """

    def covers(wide: tuple[str, str, str], narrow: tuple[str, str, str]) -> bool:
        same = wide[2] in ("{}", narrow[2])
        return same and fnmatchcase(narrow[0], wide[0]) and fnmatchcase(narrow[1], wide[1])

    allowed, denied = _rights(policy, "Allow"), _rights(former, "Deny")
    return all(any(covers(one, right) for one in allowed) for right in _rights(former, "Allow")) and all(
        any(covers(one, right) for one in denied) for right in _rights(policy, "Deny")
    )


# ---- the keys


def _keys_of_nobody(
    user: str, connection: Connection, mark: UserMark | None, seen: frozenset[str]
) -> tuple[list[str], list[str]]:
    """The keys of a user of which the state has none: (those of interrupted runs that were never handed out, those that
    may be in use).

    Args:
        seen: those that were listed a moment ago.
    """
    keys = IamKeys(KeyRingInputs(user_name=user, active="", slots=(), connection=connection, mark=mark))
    never_handed_out = keys.orphans(frozenset())
    return never_handed_out, sorted({*seen, *(keys.listed() or ())} - set(never_handed_out))


def unknown_keys(user: str, connection: Connection, known: Collection[str]) -> list[str]:
    """The keys of a user that are not `known`; without those that a run which was cut off made, and nobody was given.

    [] where the user is gone. Raises StoreError where the store can't be asked.
    """
    keys = IamKeys(KeyRingInputs(user_name=user, active="", slots=(), connection=connection))
    never_handed_out = keys.orphans(frozenset(known))
    return sorted(set(keys.listed() or ()) - {*known, *never_handed_out})


@dataclass(frozen=True, slots=True)
class _Entry:
    """A journal entry, written before a key for `slot` is created; `at` is the server's time.

    Attributes:
        before: digests of the keys that existed.
        nonce: makes entries distinct; "" in those of earlier releases.
        policies: the names of the inline policies that contain it.
    """

    slot: str
    at: datetime
    before: frozenset[str]
    nonce: str
    policies: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        return any(name.startswith(_OPEN) for name in self.policies)

    def announced(self, key_id: str) -> bool:
        """Whether the key was created after the entry was written."""
        return _digest(key_id) not in self.before


class IamKeys(KeyFamily):
    """The access keys of an IAM user.

    Args:
        inputs: the inputs of the ring.
    """

    def __init__(self, inputs: KeyRingInputs) -> None:
        self.who = f"user {inputs.user_name}"
        self.notes: list[str] = []
        self._inputs = inputs
        self._iam = iam_client(inputs.connection)
        self._user = inputs.user_name
        self._found: _User | None = None
        self._done: list[str] = []
        self._open: list[_Entry] = []
        self._listing: Mapping[str, Any] | None = None

    def listed(self) -> dict[str, bool] | None:
        try:
            self._listing = _whole(self._iam, "list_access_keys", self._user, _KEYS)
        except ApiError as error:
            if error.absent:
                return None
            raise
        return {key["AccessKeyId"]: key.get("Status") != "Inactive" for key in self._listing[_KEYS]}

    def require_ours(self, known: Collection[str]) -> None:
        self._found = _user(self._iam, self._user)
        if self._found is None:
            return
        fault = _fault(self._iam, self._user, self._found, self._inputs.mark, adopted=self._inputs.adopt)
        # If the user has a key from the state, it is the user in the state, whatever its path.
        if fault and not set(known) & set(self.listed() or ()):
            _refuse(fault)

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        # What was listed a moment ago is good for one key: the next one is announced beside it.
        answer, self._listing = self._listing or _whole(self._iam, "list_access_keys", self._user, _KEYS), None
        listed = [key["AccessKeyId"] for key in answer[_KEYS]]
        at = server_time(answer)
        digests = frozenset(map(_digest, before.union(listed)))
        name = JOURNAL + slot
        _write_entry(self._iam, self._user, name, _Entry(slot, at, digests, secrets.token_hex(4)))
        try:
            made = call(iam_client(self._inputs.connection, attempts=1), "create_access_key", UserName=self._user)[
                "AccessKey"
            ]
        except ApiError as error:
            if _was_refused(error):
                # No key was created, so a key that appears later is not from this call.
                with suppress(ApiError):
                    _remove_policy(self._iam, self._user, name)
            if error.code in ("LimitExceeded", "LimitExceededException"):
                raise StoreError(
                    f"{self.who} has the maximum number of keys ({', '.join(listed)}), and slot {slot!r} needs "
                    f"another. Delete an unused one. {error}"
                ) from None
            raise
        created = (made.get("CreateDate") or at).astimezone(UTC)
        return MadeKey(made["AccessKeyId"], made["SecretAccessKey"], created.isoformat())

    def delete(self, key_id: str) -> None:
        self._listing = None
        _delete_key(self._iam, self._user, key_id)

    def orphans(self, known: frozenset[str]) -> list[str]:
        """Keys of journalled calls that were never handed out: they are newer than the entry and not in the state.

        None of an adopted user, on which somebody else may have created a key meanwhile.
        """
        try:
            entries, now, malformed = _journal(self._iam, self._user)
        except ApiError as error:
            if error.absent:
                return []
            raise
        self._done, self._open, self.notes = malformed, [], []
        if not entries:
            return []
        made = {key["AccessKeyId"]: key["CreateDate"].astimezone(UTC) for key in _listed(self._iam, self._user)}
        adopted = self._is_adopted()
        orphans: list[str] = []
        for entry in sorted(entries, key=lambda one: one.at):
            if not entry.is_open and any(entry.announced(key_id) for key_id in known):
                # The key of this entry is in the state.
                self._done += entry.policies
                continue
            after = sorted(
                (date, key_id)
                for key_id, date in made.items()
                if entry.announced(key_id)
                and key_id not in known
                and key_id not in orphans
                # A list that lacked it, and not the entry, would make an older key a new one.
                and entry.at - _SKEW <= date <= entry.at + _LATE + _SKEW
            )
            if after and not adopted:
                # An entry is for one call, so for at most one key: the first after it. Later keys are not ours.
                orphans.append(after[0][1])
                self._done += entry.policies
                continue
            for _, key_id in after:
                self.notes.append(
                    f"{self.who}: key {key_id} may have been created by an interrupted run. The user was adopted, so "
                    "the key is kept: delete it if it is unused."
                )
            if now > entry.at + _LATE:
                self._done += entry.policies
            else:
                self._open.append(entry)
        return orphans

    def _is_adopted(self) -> bool:
        self._found = self._found or _user(self._iam, self._user)
        path = self._found.path if self._found else "/"
        if path in _paths(self._inputs.mark):
            # Made by this store: `adopt` was for its bucket.
            return False
        return self._inputs.adopt or not path.startswith(ROOT)

    def settle(self, *, ending: bool = False) -> str:
        for entry in self._open:
            if ending:
                self._done += entry.policies
            elif not entry.is_open:
                # The proof, which runs next, clears the entry of the key that it proves; rename this one so that it
                # stays.
                _write_entry(self._iam, self._user, f"{_OPEN}{entry.slot}-{entry.nonce}", entry)
                self._done += entry.policies
        for name in self._done:
            _remove_policy(self._iam, self._user, name)
        self._done = []
        return max(entry.at + _LATE for entry in self._open).isoformat() if self._open else ""

    def still_works(self, key: Credential) -> str:
        connection, mark = self._inputs.connection, self._inputs.mark
        if mark is None or not mark.bucket:
            return ""
        return accepted_at(key, connection, mark.bucket)

    def last_used(self, key_id: str) -> datetime | None:
        try:
            answer = call(self._iam, "get_access_key_last_used", AccessKeyId=key_id)
            require_asked(f"get_access_key_last_used {key_id}", {"UserName": self._user}, answer)
        except ApiError as error:
            if error.lacking or error.absent:
                return None
            raise
        used = answer["AccessKeyLastUsed"].get("LastUsedDate")
        return used.astimezone(UTC) if isinstance(used, datetime) else None

    def usable(self) -> bool:
        mark = self._inputs.mark
        if mark is None or not mark.bucket:
            return True
        return may_be_there(s3_client(self._inputs.connection), mark.bucket)


@dataclass(frozen=True, slots=True)
class _Extras:
    """What grants a user permissions beside this store's policy.

    Attributes:
        policies: names of inline policies.
        attached: ARNs of attached policies.
        groups: names of groups.
    """

    policies: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, inputs: KeyRingInputs) -> _Extras:
        """Those that a refresh added to the inputs."""
        return cls(inputs.other_policies, inputs.attached_policies, inputs.groups)

    def among(self, inputs: KeyRingInputs) -> KeyRingInputs:
        """The inputs with these instead of any others."""
        return replace(inputs, other_policies=self.policies, attached_policies=self.attached, groups=self.groups)

    def __bool__(self) -> bool:
        return bool(self.policies or self.attached or self.groups)

    def __str__(self) -> str:
        named = (("inline policy", self.policies), ("attached policy", self.attached), ("group", self.groups))
        return "; ".join(f"{word} {', '.join(names)}" for word, names in named if names)


class KeyRing(RingBase[KeyRingInputs, KeyRingState]):
    """The access keys of an IAM user, by slot (see RingBase).

    A refresh also finds what else grants permissions to the user, and adds it to the inputs if the user was created by
    us. It then shows as a change, and the next `up` removes it. For an adopted user it is only reported.
    """

    described = KEY_RING

    def family(self, state: KeyRingState) -> IamKeys:
        return IamKeys(state.inputs)

    def find(
        self, resource_id: str, inputs: KeyRingInputs, state: KeyRingState, context: Context
    ) -> tuple[str, KeyRingInputs, KeyRingState] | None:
        inputs, state.inputs = _Extras().among(inputs), _Extras().among(state.inputs)
        found = super().find(resource_id, inputs, state, context)
        if found is None:
            return None
        resource_id, drifted, state = found
        iam, user = iam_client(inputs.connection), inputs.user_name or resource_id
        extras = _extras(iam, user, context)
        if not extras:
            return found
        adopted = inputs.adopt or state.inputs.adopt
        if _is_ours(iam, user, inputs.mark or state.inputs.mark, adopted=adopted):
            state.inputs = extras.among(state.inputs)
            return resource_id, extras.among(drifted), state
        context.warn(f"user {user} was adopted, and has more permissions than this store's policy grants: {extras}")
        return found

    def change(self, resource_id: str, old: KeyRingState, inputs: KeyRingInputs, context: Context) -> KeyRingState:
        extras = _Extras.of(old.inputs)
        state = super().change(resource_id, old, inputs, context)
        iam, user = iam_client(inputs.connection), inputs.user_name
        if not extras or not _is_ours(iam, user, inputs.mark, adopted=state.inputs.adopt):
            return state
        try:
            _remove_extras(iam, user, extras)
        except ApiError as error:
            state.inputs = extras.among(state.inputs)
            raise PartialError(f"user {user}: {extras} could not be removed: {error}", resource_id, state) from None
        context.warn(f"user {user}: removed {extras}, which granted its keys more than this store's policy")
        return state

    def remove(self, resource_id: str, state: KeyRingState, last: KeyRingInputs, context: Context) -> None:
        if state.inputs.user_takes_keys or last.user_takes_keys:
            known = [key.access_key_id for key in state.keys.values()]
            user = state.inputs.user_name or resource_id
            keys = unknown_keys(user, state.inputs.connection, known)
            if keys:
                raise StoreError(
                    f"user {user} has the key {', '.join(keys)}, which the state does not know. It may be in use, and "
                    "would be deleted with the user. Nothing was deleted. Delete the keys that nobody uses at the "
                    "provider, and run this again. To keep the user and all its keys, remove the key ring, the policy "
                    "and the user from the state first (docs/state.md)."
                )
        super().remove(resource_id, state, last, context)


def _extras(iam: Client, user: str, context: Context) -> _Extras:
    """What grants a user permissions beside our policy. Many stores support inline policies only."""
    policies = [name for name in _policies(iam, user) if name != POLICY_NAME and not name.startswith(JOURNAL)]
    attached = _if_any(iam, user, context, "list_attached_user_policies", part="AttachedPolicies", name="PolicyArn")
    groups = _if_any(iam, user, context, "list_groups_for_user", part="Groups", name="GroupName")
    return _Extras(tuple(sorted(policies)), tuple(sorted(attached)), tuple(sorted(groups)))


def _if_any(iam: Client, user: str, context: Context, operation: str, *, part: str, name: str) -> list[str]:
    try:
        return [str(item[name]) for item in _whole(iam, operation, user, part, ask=call_if_any).get(part, [])]
    except ApiError as error:
        if error.denied:
            context.warn(f"user {user}: its other permissions are unknown: {error}")
            return []
        if error.lacking:
            return []
        raise


def _is_ours(iam: Client, user: str, mark: UserMark | None, *, adopted: bool) -> bool:
    """Whether a user was created by this store, not adopted."""
    if adopted:
        return False
    ours = _paths(mark)
    try:
        path = _shown(iam, user).path
    except ApiError as error:
        _require_gone(error, "list_access_keys has keys of the user", lambda: bool(_key_ids(iam, user)))
        return False
    return path in ours or (not ours and path.startswith(ROOT))


def _remove_extras(iam: Client, user: str, extras: _Extras) -> None:
    ways = (
        (extras.policies, "delete_user_policy", "PolicyName"),
        (extras.attached, "detach_user_policy", "PolicyArn"),
        (extras.groups, "remove_user_from_group", "GroupName"),
    )
    for names, operation, argument in ways:
        for name in names:
            try:
                call(iam, operation, UserName=user, **{argument: name})
            except ApiError as error:
                if not error.absent:
                    raise


# ---- calls


def _user(iam: Client, user: str) -> _User | None:
    try:
        return _shown(iam, user)
    except ApiError as error:
        if error.absent:
            return None
        raise


def _shown(iam: Client, user: str) -> _User:
    """A user. Raises ApiError, also where it is gone."""
    return _user_in(call(iam, "get_user", UserName=user))


def _user_in(answer: Mapping[str, Any]) -> _User:
    found = answer["User"]
    return _User(str(found.get("Path") or "/"), str(found.get("Arn") or ""))


_KEYS: Final = "AccessKeyMetadata"
_POLICIES: Final = "PolicyNames"


def _whole(
    iam: Client, operation: str, user: str, part: str, ask: Callable[..., dict[str, Any]] = call
) -> dict[str, Any]:
    """A listing to its end: its first answer, with the entries of all. Raises ApiError, also where it has no end.

    Args:
        part: what of an answer has the entries.
    """
    next_page = bounded.within_pages(bounded.PAGES)
    found = page = ask(iam, operation, UserName=user)
    # One that names the next place and leaves out IsTruncated has one.
    while page.get("IsTruncated", bool(page.get("Marker"))):
        marker = page.get("Marker")
        what = f"{operation} {user} at {iam.meta.endpoint_url}"
        if not marker:
            raise ApiError(
                NO_ANSWER,
                0,
                f"{what}: the page says that more follows, and not where (Marker): check the IAM endpoint and any "
                "proxy in front of it.",
            )
        try:
            next_page(marker)
        except bounded.TooMuchError as error:
            raise ApiError(NO_ANSWER, 0, f"{what}: the answer {error}") from None
        page = ask(iam, operation, UserName=user, Marker=marker)
        found.setdefault(part, []).extend(page[part])
    return found


def _listed(iam: Client, user: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = _whole(iam, "list_access_keys", user, _KEYS)[_KEYS]
    return listed


def _keys_seen(iam: Client, user: str) -> frozenset[str]:
    """The access key IDs of a user; none only if two lists have none: a key in use would lose its policy by one."""
    return frozenset(str(key["AccessKeyId"]) for key in _listed(iam, user) or _listed(iam, user))


def _policies(iam: Client, user: str) -> list[str]:
    """Names of the inline policies."""
    names: list[str] = _whole(iam, "list_user_policies", user, _POLICIES).get(_POLICIES, [])
    return names


def _key_ids(iam: Client, user: str) -> list[str]:
    """The access key IDs of a user; [] where it is gone."""
    return [str(key["AccessKeyId"]) for key in _if_there(lambda: _listed(iam, user))]


def _policies_if_any(iam: Client, user: str) -> list[str]:
    """As `_policies`; [] where the user is gone. Some services say the same of one that has none."""
    return _if_there(lambda: _policies(iam, user))


def _if_there(listing: Callable[[], list[T]]) -> list[T]:
    try:
        return listing()
    except ApiError as error:
        if error.absent:
            return []
        raise


def _delete_key(iam: Client, user: str, key_id: str) -> None:
    try:
        call(iam, "delete_access_key", UserName=user, AccessKeyId=key_id)
    except ApiError as error:
        _require_gone(error, "list_access_keys has the key", lambda: key_id in _key_ids(iam, user))


def _remove_policy(iam: Client, user: str, name: str) -> None:
    try:
        call(iam, "delete_user_policy", UserName=user, PolicyName=name)
    except ApiError as error:
        _require_gone(error, "list_user_policies has the policy", lambda: name in _policies_if_any(iam, user))


def _require_gone(error: ApiError, otherwise: str, is_there: Callable[[], bool]) -> None:
    """Raises ApiError unless an error says that something is gone, and a second call does not say otherwise.

    What is only thought to be gone would be forgotten: a key of it would work for ever.

    Args:
        otherwise: what the second call says if it does.
        is_there: makes the second call.
    """
    if not error.absent:
        raise error
    if is_there():
        raise ApiError(
            NO_ANSWER,
            0,
            f"{error}. Yet {otherwise}: it is not taken for gone. Run this again; if it stays so, check whether "
            "several servers answer at iam_endpoint, of which one lags behind or is another store.",
        )


def _was_refused(error: ApiError) -> bool:
    """Whether the call was certainly not executed: IAM rejected it, throttled it, or was never reached."""
    not_taken = error.code in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "SSLError",
        "ProxyConnectionError",
        "ThrottledAnswerError",
    )
    # What somebody in between refuses may be the answer alone.
    said = 400 <= error.status < 500 and not error.is_anybodys
    return not_taken or (said and error.status != 408 and error.code != "RequestTimeout")


# ---- the journal


_SID: Final = re.compile(r"At(\d{8}T\d{6})Z(?:Before([A-Z0-9x]+)|Nonce([0-9a-f]{8})Digests([0-9a-f]*))?")
"""The current form is the one with a nonce; releases before 2026-12 recorded the key IDs themselves."""
_DIGITS: Final = 16


def _digest(key_id: str) -> str:
    """A digest of an access key ID, which may have characters that a Sid can't."""
    return hashlib.sha256(key_id.encode()).hexdigest()[:_DIGITS]


def _write_entry(iam: Client, user: str, name: str, entry: _Entry) -> None:
    nonce = entry.nonce or secrets.token_hex(4)
    sid = f"At{entry.at:%Y%m%dT%H%M%S}ZNonce{nonce}Digests{''.join(sorted(entry.before))}"
    # Denies only what the user is not allowed anyway, so it is harmless if it stays.
    statement = {"Sid": sid, "Effect": "Deny", "Action": "iam:CreateAccessKey", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    call(iam, "put_user_policy", UserName=user, PolicyName=name, PolicyDocument=document)


def _read_entry(iam: Client, user: str, name: str) -> _Entry | None:
    """The entry in a policy; None if it is malformed."""
    document = call(iam, "get_user_policy", UserName=user, PolicyName=name)["PolicyDocument"]
    try:
        parsed = json.loads(document) if isinstance(document, str) else document
        match = _SID.fullmatch(str(parsed["Statement"][0].get("Sid", "")))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if match is None:
        return None
    try:
        at = moment("the journal", datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC))
    except (ValueError, ApiError):
        return None
    if match[3] is None:
        before = frozenset(map(_digest, (match[2] or "").split("x"))) - {_digest("")}
    else:
        before = frozenset(match[4][start : start + _DIGITS] for start in range(0, len(match[4]), _DIGITS))
    slot = name.removeprefix(_OPEN).rpartition("-")[0] if name.startswith(_OPEN) else name.removeprefix(JOURNAL)
    return _Entry(slot, at, before, match[3] or "", (name,))


def _journal(iam: Client, user: str) -> tuple[list[_Entry], datetime, list[str]]:
    """The entries, the server's time, and the names of journal policies that are malformed."""
    answer = _whole(iam, "list_user_policies", user, _POLICIES)
    found: dict[tuple[object, ...], _Entry] = {}
    malformed = []
    for name in answer.get(_POLICIES, []):
        if not name.startswith(JOURNAL):
            continue
        entry = _read_entry(iam, user, name)
        if entry is None:
            malformed.append(name)
            continue
        # A run interrupted while it renamed an entry leaves it under both names.
        key = (entry.slot, entry.at, entry.before, entry.nonce)
        twin = found.get(key)
        found[key] = replace(entry, policies=(*twin.policies, name)) if twin else entry
    return list(found.values()), server_time(answer), malformed


def forget_journal(iam: Client, user: str, key_id: str) -> None:
    """Remove the entries of a key that is in the state. Other entries stay: the outcome of their calls is unknown."""
    for name in _policies(iam, user):
        if name.startswith(JOURNAL) and not name.startswith(_OPEN):
            entry = _read_entry(iam, user, name)
            if entry is None or entry.announced(key_id):
                _remove_policy(iam, user, name)
