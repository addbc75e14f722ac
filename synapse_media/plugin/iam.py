"""`s3store:index:User`, `UserPolicy` and `KeyRing` over the IAM query API (Amazon, Wasabi, versitygw, Ceph).

A user is ours by its path, which is written in the same call that makes it. An access key carries no mark at all, so
the ring keeps a journal: before a key is made, an inline policy on the user says when, and which keys were there.

An input `mark` of all three says whose the user has to be: `path` (project, stack, homeserver and bucket), where new
users are put; `formerPaths` (where else a user of this store may be: earlier releases' path has the stack alone, so
there the bucket that the user's policy names decides); `bucket`.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from synapse_media.errors import StoreError
from synapse_media.schema import model
from synapse_media.schema.connection import Connection
from synapse_media.schema.model import UNKNOWN
from synapse_media.store.clients import ApiError, call, iam_client, s3_client
from synapse_media.store.objects import look

from .bucket import canonical
from .keyring import KeyFamily, MadeKey, RingBase, retire_fault
from .resource import Context, Found, PartialError, Resource, Values, connection_of, import_id, text

__all__ = (
    "JOURNAL",
    "POLICY_NAME",
    "ROOT",
    "IamKeys",
    "KeyRing",
    "User",
    "UserPolicy",
    "forget_journal",
    "retire_fault",
)

ROOT: Final = "/synapse-media/"
"""Every user that any stack made is under it."""
POLICY_NAME: Final = "synapse-media"
"""The inline policy of a store's user."""
JOURNAL: Final = "s3store-making-"
_OPEN: Final = f"{JOURNAL}open-"
"""Entries of which it is not known whether their call was executed, or may yet be."""
_LATE: Final = timedelta(minutes=15)
"""A call that was held up somewhere is executed within this time or never: its signature is refused after it.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html"""
_SKEW: Final = timedelta(minutes=15)
"""How far the clock that dates an answer may be from the one that dates a key: what a signature allows."""


# ---- whose a user is


def _fault(
    iam: Any,
    values: Mapping[str, Any],
    found: Mapping[str, Any],
    *,
    adopted: bool,
    paths: Collection[str] = (),
    buckets: Collection[str] = (),
    strict: bool = False,
) -> str:
    """Why a user must not be touched; "" if it is this store's, or taken over.

    Args:
        found: the user as the store has it.
        paths: where it was when state saw it last.
        buckets: that its policy may name beside the store's.
        strict: where it is not known what its policy has to name, a policy is another's.
    """
    user, path = text(values, "userName"), str(found.get("Path") or "/")
    mark = values.get("mark")
    mark = mark if isinstance(mark, Mapping) else {}
    ours = frozenset({text(values, "path"), text(mark, "path"), *(mark.get("formerPaths") or ()), *paths} - {""})
    if path in ours and path.count("/") > _OLD_SLASHES:
        return ""
    if ours and path not in ours:
        wanted = text(mark, "path") or text(values, "path") or ", ".join(sorted(ours))
        if path.startswith(ROOT):
            return f"user {user!r} is marked as another stack's (path {path!r}, ours is {wanted!r})."
        if not adopted:
            return f"user {user!r} exists already (path {path!r}, ours is {wanted!r}): it is not this stack's."
    known = frozenset({text(mark, "bucket"), *buckets} - {""})
    named = _named_buckets(iam, user)
    if named and not named & known and (known or strict):
        return f"user {user!r} is another store's: its policy {POLICY_NAME!r} is for {', '.join(sorted(named))}."
    return ""


_OLD_SLASHES: Final = 3
"""`/synapse-media/<stack>/`: two checkouts may have it for users of the same name."""
_ARN: Final = re.compile(r"arn:[^:]*:s3:::([^/*?$]+)(?:/.*)?")


def _buckets_of(document: object) -> frozenset[str]:
    """The buckets that a policy names; none where it is for any."""
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


def _named_buckets(iam: Any, user: str) -> frozenset[str]:
    try:
        found = call(iam, "get_user_policy", UserName=user, PolicyName=POLICY_NAME)
    except ApiError as error:
        if error.absent:
            return frozenset()
        raise
    return _buckets_of(found["PolicyDocument"])


def _refuse(fault: str) -> None:
    if fault:
        raise StoreError(f"user: {fault} Nothing of it is changed. Choose another name with the setting user.")


class User(Resource):
    """An IAM user under a path of ours. Inputs: `userName`, `path`, `connection`, `adopt`, `mark`.

    Outputs: the inputs (`path` is where it is, which never changes), `arn`, `adopted` (it was there before us, so it is
    never deleted).
    """

    pulumi_type = "s3store:index:User"
    replace_on = frozenset({"userName"})
    required = frozenset({"userName", "path", "connection"})
    # A user stays where it was made: policies of others may name it by its path. What was moved, a refresh shows.
    passing = frozenset({"path", "mark"})
    one_of_a_name = True

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        return super().check({"adopt": False, **inputs})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "arn": UNKNOWN, "adopted": UNKNOWN} if old is None else self._kept(old, inputs)

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        user, path = text(inputs, "userName"), text(inputs, "path")
        iam = iam_client(connection_of(inputs))
        adopted = False
        try:
            made = call(iam, "create_user", UserName=user, Path=path)["User"]
        except ApiError as error:
            if error.code != "EntityAlreadyExists":
                raise
            made = call(iam, "get_user", UserName=user)["User"]
            fault = _fault(iam, inputs, made, adopted=bool(inputs.get("adopt")))
            if fault:
                over = "" if str(made.get("Path")).startswith(ROOT) else ", or set adopt: true to take it over"
                raise StoreError(f"user: {fault} Choose another name with the setting user{over}.") from None
            adopted = made.get("Path") not in (path, *_former(inputs))
            path = path if adopted else made["Path"]
        return user, {**inputs, "path": path, "arn": made.get("Arn", ""), "adopted": adopted}

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            user, connection = import_id(resource_id)
            inputs = {"userName": user, "connection": model.write(connection), "adopt": True}
            outputs = {"adopted": True}
        user = text(inputs, "userName", resource_id)
        found = _user(iam_client(connection_of(inputs)), user)
        if found is None:
            return None
        path = found.get("Path", "/")
        inputs = {"path": path, **{name: value for name, value in inputs.items() if name != "movedTo"}}
        kept = text(outputs, "path") or inputs["path"]
        drifted = inputs
        if path not in (kept, inputs["path"], *_former(inputs)) and (
            not outputs.get("adopted") or path.startswith(ROOT)
        ):
            drifted = {**inputs, "movedTo": path}
        return Found(user, drifted, {**outputs, **inputs, "path": kept, "arn": found.get("Arn", "")})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        user, connection = text(inputs, "userName"), connection_of(inputs)
        iam, adopted = iam_client(connection), bool(old.get("adopted"))
        # State keeps the old place until the user was seen at the new one: a refresh looks where state says.
        found = _user(iam, user)
        if found is None:
            raise StoreError(
                f"user: {user!r} does not exist at {connection.iam_endpoint}. Check iam_endpoint; if the user was "
                "deleted, `synapse-media up --refresh` finds out and makes it again."
            )
        kept, path = self._kept(old, inputs), str(found.get("Path") or "/")
        moved = not adopted and path not in (kept["path"], inputs["path"], *_former(inputs))
        same_place = connection_of({**inputs, **old}).iam_endpoint == connection.iam_endpoint
        if moved and same_place and not path.startswith(ROOT):
            _move_back(iam, user, kept["path"])
            found = _user(iam, user) or found
            kept["arn"] = found.get("Arn", "")
        _refuse(_fault(iam, inputs, found, adopted=adopted, paths=(kept["path"],)))
        return kept

    def _kept(self, old: Values, inputs: Values) -> Values:
        # Nothing of a user can be changed in place but what is only ours to remember.
        kept = {"path": text(old, "path") or inputs["path"], "arn": text(old, "arn")}
        return {**inputs, **kept, "adopted": bool(old.get("adopted"))}

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        user = text(outputs, "userName", resource_id)
        if outputs.get("adopted"):
            context.warn(f"user {user} was there before this stack and is left where it is, with what others gave it.")
            return
        iam = iam_client(connection_of(outputs))
        found = _user(iam, user)
        if found is None:
            return
        fault = _fault(iam, {**context.inputs, **outputs}, found, adopted=False, strict=True)
        if fault:
            context.warn(f"{fault} It is left where it is.")
            return
        try:
            for key in _listed(iam, user):
                context.warn(f"user {user}: key {key['AccessKeyId']}, made by somebody else, goes with the user")
                call(iam, "delete_access_key", UserName=user, AccessKeyId=key["AccessKeyId"])
            for name in _policies(iam, user):
                _remove_policy(iam, user, name)
            call(iam, "delete_user", UserName=user)
        except ApiError as error:
            if not error.absent:
                raise


def _former(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Further paths by which a user is this store's."""
    mark = values.get("mark")
    return (text(mark, "path"), *(mark.get("formerPaths") or ())) if isinstance(mark, Mapping) else ()


def _move_back(iam: Any, user: str, path: str) -> None:
    """Put back the mark that somebody took off."""
    try:
        call(iam, "update_user", UserName=user, NewPath=path)
    except ApiError as error:
        if not error.lacking:
            raise
        raise StoreError(
            f"user: {user!r} was moved away from the path {path!r}, which is the mark of this store, and this store "
            "can't move a user. Move it back at the provider."
        ) from None


class UserPolicy(Resource):
    """An inline policy of a user. Inputs: `userName`, `policyName`, `policy` (JSON), `connection`, `adopt`, `mark`."""

    pulumi_type = "s3store:index:UserPolicy"
    replace_on = frozenset({"userName", "policyName"})
    required = frozenset({"userName", "policyName", "policy", "connection"})
    one_of_a_name = True
    passing = frozenset({"adopt", "mark"})

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        inputs, failures = super().check(inputs)
        if isinstance(inputs.get("policy"), str) and not failures:
            try:
                inputs = {**inputs, "policy": canonical(inputs["policy"])}
            except ValueError:
                failures["policy"] = "is not JSON"
        return inputs, failures

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return dict(inputs)

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        self._put(inputs, {})
        return f"{inputs['userName']}/{inputs['policyName']}", dict(inputs)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            name, connection = import_id(resource_id)
            user, slash, policy = name.partition("/")
            if not slash:
                raise StoreError(f"import id {resource_id!r} is not USER/POLICY@IAM-ENDPOINT")
            inputs = {"userName": user, "policyName": policy, "connection": model.write(connection)}
        try:
            found = call(
                iam_client(connection_of(inputs)),
                "get_user_policy",
                UserName=inputs["userName"],
                PolicyName=inputs["policyName"],
            )["PolicyDocument"]
        except ApiError as error:
            if error.absent:
                return None
            raise
        document = found if isinstance(found, str) else json.dumps(found)
        inputs = {**inputs, "policy": canonical(document)}
        # Among the inputs alone: the bucket that the outputs name is the one by which the user is ours.
        ours = {"policy": text(outputs, "policy") or inputs["policy"]}
        return Found(f"{inputs['userName']}/{inputs['policyName']}", inputs, {**inputs, **ours})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        self._put(inputs, old)
        return dict(inputs)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        iam, user = iam_client(connection_of(outputs)), outputs["userName"]
        try:
            found = call(iam, "get_user_policy", UserName=user, PolicyName=outputs["policyName"])["PolicyDocument"]
            named, ours = _buckets_of(found), _buckets_of(outputs.get("policy"))
            if named and ours and not named & ours:
                context.warn(
                    f"user {user}: the policy {outputs['policyName']} is another store's, for "
                    f"{', '.join(sorted(named))}: it is left as it is."
                )
                return
            call(iam, "delete_user_policy", UserName=user, PolicyName=outputs["policyName"])
        except ApiError as error:
            if not error.absent:
                raise

    def _put(self, inputs: Values, old: Values) -> None:
        iam, user = iam_client(connection_of(inputs)), inputs["userName"]
        found = _user(iam, user)
        if found is not None:
            buckets = _buckets_of(inputs["policy"]) | _buckets_of(old.get("policy"))
            _refuse(_fault(iam, inputs, found, adopted=bool(inputs.get("adopt")), buckets=buckets))
        call(
            iam,
            "put_user_policy",
            UserName=user,
            PolicyName=inputs["policyName"],
            PolicyDocument=inputs["policy"],
        )


# ---- the keys


@dataclass(frozen=True, slots=True)
class _Entry:
    """A journal entry: a key for `slot` was about to be made at `at` (the server's clock).

    Attributes:
        before: digests of the keys that were there.
        nonce: tells two entries apart; "" in those of earlier releases.
        policies: names of the inline policies that hold it.
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
        """Whether the key came after the announcement."""
        return _digest(key_id) not in self.before


class IamKeys(KeyFamily):
    """The access keys of an IAM user.

    Args:
        values: the inputs or outputs of the ring, for whose the user has to be.
    """

    def __init__(self, connection: Connection, user: str, values: Values | None = None) -> None:
        self.who = f"user {user}"
        self.notes: list[str] = []
        self._connection = connection
        self._iam = iam_client(connection)
        self._user = user
        self._values: Values = {**(values or {}), "userName": user}
        self._found: dict[str, Any] | None = None
        self._done: list[str] = []
        self._open: list[_Entry] = []

    def listed(self) -> dict[str, bool] | None:
        try:
            return {key["AccessKeyId"]: key.get("Status") != "Inactive" for key in _listed(self._iam, self._user)}
        except ApiError as error:
            if error.absent:
                return None
            raise

    def require_ours(self, known: Collection[str]) -> None:
        self._found = _user(self._iam, self._user)
        if self._found is None:
            return
        fault = _fault(self._iam, self._values, self._found, adopted=bool(self._values.get("adopt")))
        # A key of ours on it: whatever its path says, it is the user that state knows.
        if fault and not set(known) & set(self.listed() or ()):
            _refuse(fault)

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        answer = call(self._iam, "list_access_keys", UserName=self._user)
        listed = [key["AccessKeyId"] for key in answer["AccessKeyMetadata"]]
        at = _server_time(answer)
        digests = frozenset(map(_digest, before.union(listed)))
        name = JOURNAL + slot
        _write_entry(self._iam, self._user, name, _Entry(slot, at, digests, secrets.token_hex(4)))
        try:
            made = call(iam_client(self._connection, attempts=1), "create_access_key", UserName=self._user)["AccessKey"]
        except ApiError as error:
            if _was_refused(error):
                # No key was made: whatever key there is later, somebody else made.
                with suppress(ApiError):
                    _remove_policy(self._iam, self._user, name)
            if error.code in ("LimitExceeded", "LimitExceededException"):
                raise StoreError(
                    f"{self.who} has as many keys as it may have ({', '.join(listed)}) and slot {slot!r} needs "
                    f"another. Delete one that nothing uses. {error}"
                ) from None
            raise
        created = (made.get("CreateDate") or at).astimezone(UTC)
        return MadeKey(made["AccessKeyId"], made["SecretAccessKey"], created.isoformat())

    def delete(self, key_id: str) -> None:
        try:
            call(self._iam, "delete_access_key", UserName=self._user, AccessKeyId=key_id)
        except ApiError as error:
            if not error.absent:
                raise

    def orphans(self, known: frozenset[str]) -> list[str]:
        """Keys that an announced call made and nobody was ever given: not there before it, and not in state.

        On a user that was taken over none is deleted: somebody may have made it by hand meanwhile.
        """
        try:
            entries, now, senseless = _journal(self._iam, self._user)
        except ApiError as error:
            if error.absent:
                return []
            raise
        self._done, self._open, self.notes = senseless, [], []
        if not entries:
            return []
        made = {key["AccessKeyId"]: key["CreateDate"].astimezone(UTC) for key in _listed(self._iam, self._user)}
        adopted = self._is_adopted()
        orphans: list[str] = []
        for entry in sorted(entries, key=lambda one: one.at):
            if not entry.is_open and any(entry.announced(key_id) for key_id in known):
                # Its call was answered, and the key is in state.
                self._done += entry.policies
                continue
            after = sorted(
                (date, key_id)
                for key_id, date in made.items()
                if entry.announced(key_id)
                and key_id not in known
                and key_id not in orphans
                and date <= entry.at + _LATE + _SKEW
            )
            if after and not adopted:
                # One call was announced, so one key at most: what came after it, somebody else made.
                orphans.append(after[0][1])
                self._done += entry.policies
                continue
            for _, key_id in after:
                self.notes.append(
                    f"{self.who}: key {key_id} may have been made by an interrupted run. The user was taken over, so "
                    "it is left alone: delete it if nobody uses it."
                )
            if now > entry.at + _LATE:
                self._done += entry.policies
            else:
                self._open.append(entry)
        return orphans

    def _is_adopted(self) -> bool:
        if self._values.get("adopt"):
            return True
        self._found = self._found or _user(self._iam, self._user)
        path = str((self._found or {}).get("Path") or "/")
        return not path.startswith(ROOT) and path not in (text(self._values, "path"), *_former(self._values))

    def settle(self, *, ending: bool = False) -> str:
        for entry in self._open:
            if ending:
                self._done += entry.policies
            elif not entry.is_open:
                # The proof, which comes next, ends what was announced for the key it proves; not this one.
                _write_entry(self._iam, self._user, f"{_OPEN}{entry.slot}-{entry.nonce}", entry)
                self._done += entry.policies
        for name in self._done:
            _remove_policy(self._iam, self._user, name)
        self._done = []
        return max(entry.at + _LATE for entry in self._open).isoformat() if self._open else ""

    def last_used(self, key_id: str) -> datetime | None:
        try:
            answer = call(self._iam, "get_access_key_last_used", AccessKeyId=key_id)
        except ApiError as error:
            if error.lacking or error.absent:
                return None
            raise
        used = answer["AccessKeyLastUsed"].get("LastUsedDate")
        return used.astimezone(UTC) if isinstance(used, datetime) else None

    def usable(self) -> bool:
        mark = self._values.get("mark")
        bucket = text(mark, "bucket") if isinstance(mark, Mapping) else ""
        if not bucket:
            return True
        try:
            look(s3_client(self._connection), bucket)
        except ApiError as error:
            return not error.absent
        return True


_BESIDE: Final = ("otherPolicies", "attachedPolicies", "groups")


class KeyRing(RingBase):
    """The access keys of an IAM user, by slot (see RingBase).

    Further inputs: `mark`, `adopt` (the user may be somebody else's).
    Further inputs after a refresh, and outputs, where a user of ours may do more than its policy says: `otherPolicies`
    (inline), `attachedPolicies` (ARNs), `groups`. The next `up` takes them away.
    """

    pulumi_type = "s3store:index:KeyRing"
    passing = RingBase.passing | {"mark", "adopt"}

    def family(self, values: Values) -> IamKeys:
        return IamKeys(connection_of(values), text(values, "userName"), values)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        found = super().read(resource_id, _without(inputs), _without(outputs), context)
        if found is None:
            return None
        iam, user = iam_client(connection_of(inputs)), text(inputs, "userName", resource_id)
        beside = _beside(iam, user, context)
        if not beside:
            return found
        if _is_ours(iam, {**outputs, **inputs}):
            return Found(found.resource_id, {**found.inputs, **beside}, {**found.outputs, **beside})
        context.warn(f"user {user} was taken over and may do more than this store's policy says: {_in_words(beside)}")
        return found

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        beside = {name: old[name] for name in _BESIDE if old.get(name)}
        outputs = super().update(resource_id, _without(old), inputs, context)
        iam = iam_client(connection_of(inputs))
        if not beside or not _is_ours(iam, inputs):
            return outputs
        user = text(inputs, "userName")
        try:
            _take_away(iam, user, beside)
        except ApiError as error:
            raise PartialError(
                f"user {user}: {_in_words(beside)} could not be taken away: {error}", resource_id, {**outputs, **beside}
            ) from None
        context.warn(f"user {user}: {_in_words(beside)} taken away: a key of it could do more than its policy says")
        return outputs


def _without(values: Values) -> Values:
    return {name: value for name, value in values.items() if name not in _BESIDE}


def _in_words(beside: Mapping[str, Sequence[str]]) -> str:
    words = dict(zip(_BESIDE, ("inline policy", "attached policy", "group"), strict=True))
    return "; ".join(f"{words[name]} {', '.join(found)}" for name, found in beside.items())


def _beside(iam: Any, user: str, context: Context) -> dict[str, list[str]]:
    """What a user may do its work by beside our policy: many stores have nothing but inline policies."""
    found = {
        "otherPolicies": [
            name for name in _policies(iam, user) if name != POLICY_NAME and not name.startswith(JOURNAL)
        ],
        "attachedPolicies": _if_any(
            iam, user, context, "list_attached_user_policies", part="AttachedPolicies", name="PolicyArn"
        ),
        "groups": _if_any(iam, user, context, "list_groups_for_user", part="Groups", name="GroupName"),
    }
    return {name: sorted(names) for name, names in found.items() if names}


def _if_any(iam: Any, user: str, context: Context, operation: str, *, part: str, name: str) -> list[str]:
    try:
        return [str(item[name]) for item in call(iam, operation, UserName=user).get(part, [])]
    except ApiError as error:
        if error.denied:
            context.warn(f"user {user}: what else it may do is not known: {error}")
            return []
        if error.lacking:
            return []
        raise


def _is_ours(iam: Any, values: Mapping[str, Any]) -> bool:
    """Whether a user was made here, and not taken over."""
    if values.get("adopt"):
        return False
    path = str((_user(iam, text(values, "userName")) or {}).get("Path") or "/")
    return path in _former(values) or (not _former(values) and path.startswith(ROOT))


def _take_away(iam: Any, user: str, beside: Mapping[str, Sequence[str]]) -> None:
    ways = {
        "otherPolicies": ("delete_user_policy", "PolicyName"),
        "attachedPolicies": ("detach_user_policy", "PolicyArn"),
        "groups": ("remove_user_from_group", "GroupName"),
    }
    for kind, names in beside.items():
        operation, argument = ways[kind]
        for name in names:
            try:
                call(iam, operation, UserName=user, **{argument: name})
            except ApiError as error:
                if not error.absent:
                    raise


# ---- calls


def _user(iam: Any, user: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = call(iam, "get_user", UserName=user)["User"]
    except ApiError as error:
        if error.absent:
            return None
        raise
    return found


def _listed(iam: Any, user: str) -> list[dict[str, Any]]:
    answer = call(iam, "list_access_keys", UserName=user)
    listed: list[dict[str, Any]] = answer["AccessKeyMetadata"]
    return listed


def _policies(iam: Any, user: str) -> list[str]:
    """Names of the inline policies."""
    names: list[str] = call(iam, "list_user_policies", UserName=user).get("PolicyNames", [])
    return names


def _remove_policy(iam: Any, user: str, name: str) -> None:
    try:
        call(iam, "delete_user_policy", UserName=user, PolicyName=name)
    except ApiError as error:
        if not error.absent:
            raise


def _was_refused(error: ApiError) -> bool:
    """Whether the call was surely not executed: IAM itself said no, or was never reached."""
    never_sent = error.code in ("EndpointConnectionError", "ConnectTimeoutError", "SSLError", "ProxyConnectionError")
    return never_sent or (400 <= error.status < 500 and error.status != 408 and error.code != "RequestTimeout")


def _server_time(answer: Mapping[str, Any]) -> datetime:
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)


# ---- the journal


_SID: Final = re.compile(r"At(\d{8}T\d{6})Z(?:Before([A-Z0-9x]+)|Nonce([0-9a-f]{8})Digests([0-9a-f]*))?")
"""The second form; the first is that of releases before 2026-12, which named the keys themselves."""
_DIGITS: Final = 16


def _digest(key_id: str) -> str:
    """A Sid knows letters and digits alone, an access key ID may have others."""
    return hashlib.sha256(key_id.encode()).hexdigest()[:_DIGITS]


def _write_entry(iam: Any, user: str, name: str, entry: _Entry) -> None:
    nonce = entry.nonce or secrets.token_hex(4)
    sid = f"At{entry.at:%Y%m%dT%H%M%S}ZNonce{nonce}Digests{''.join(sorted(entry.before))}"
    # Denies the user what it could not do anyway: harmless if it stays behind.
    statement = {"Sid": sid, "Effect": "Deny", "Action": "iam:CreateAccessKey", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    call(iam, "put_user_policy", UserName=user, PolicyName=name, PolicyDocument=document)


def _read_entry(iam: Any, user: str, name: str) -> _Entry | None:
    """The entry that a policy holds; None where it makes no sense."""
    document = call(iam, "get_user_policy", UserName=user, PolicyName=name)["PolicyDocument"]
    try:
        parsed = json.loads(document) if isinstance(document, str) else document
        match = _SID.fullmatch(str(parsed["Statement"][0].get("Sid", "")))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if match is None:
        return None
    at = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    if match[3] is None:
        before = frozenset(map(_digest, (match[2] or "").split("x"))) - {_digest("")}
    else:
        before = frozenset(match[4][start : start + _DIGITS] for start in range(0, len(match[4]), _DIGITS))
    slot = name.removeprefix(_OPEN).rpartition("-")[0] if name.startswith(_OPEN) else name.removeprefix(JOURNAL)
    return _Entry(slot, at, before, match[3] or "", (name,))


def _journal(iam: Any, user: str) -> tuple[list[_Entry], datetime, list[str]]:
    """The entries, the server's time, and the names of policies that are none."""
    answer = call(iam, "list_user_policies", UserName=user)
    found: dict[tuple[object, ...], _Entry] = {}
    senseless = []
    for name in answer.get("PolicyNames", []):
        if not name.startswith(JOURNAL):
            continue
        entry = _read_entry(iam, user, name)
        if entry is None:
            senseless.append(name)
            continue
        # A run that was cut off while it kept an entry open leaves it under both names.
        key = (entry.slot, entry.at, entry.before, entry.nonce)
        twin = found.get(key)
        found[key] = replace(entry, policies=(*twin.policies, name)) if twin else entry
    return list(found.values()), _server_time(answer), senseless


def forget_journal(iam: Any, user: str, key_id: str) -> None:
    """Remove what announced a key that is in state by now; of other calls it is not known what became of them."""
    for name in _policies(iam, user):
        if name.startswith(JOURNAL) and not name.startswith(_OPEN):
            entry = _read_entry(iam, user, name)
            if entry is None or entry.announced(key_id):
                _remove_policy(iam, user, name)
