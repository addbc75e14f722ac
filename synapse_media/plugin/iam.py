"""`s3store:index:User`, `UserPolicy` and `KeyRing` over the IAM query API (Amazon, Wasabi, versitygw, Ceph).

A user is ours by its path, which is written in the same call that makes it. An access key carries no mark at all, so
the ring keeps a journal: before a key is made, an inline policy on the user says when, and which keys were there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from .bucket import canonical
from .connection import ApiError, Connection, call
from .keyring import KeyFamily, MadeKey, RingBase, retire_fault
from .resource import UNKNOWN, Context, Found, Resource, ResourceError, Values, text

__all__ = ("JOURNAL", "IamKeys", "KeyRing", "User", "UserPolicy", "forget_journal", "retire_fault")

JOURNAL: Final = "s3store-making-"
_WINDOW = timedelta(minutes=5)
"""A key made within this time of a journal entry was made by the announced call, which gives up long before."""


class User(Resource):
    """An IAM user under a path of ours. Inputs: `userName`, `path`, `connection`, `adopt`.

    Outputs: the inputs, `arn`, `adopted` (it was there before us, so it is never deleted).
    """

    pulumi_type = "s3store:index:User"
    replace_on = frozenset({"userName"})
    required = frozenset({"userName", "path", "connection"})
    one_of_a_name = True

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        return super().check({"adopt": False, **inputs})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "arn": UNKNOWN, "adopted": UNKNOWN} if old is None else self._kept(old, inputs)

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        user, path = text(inputs, "userName"), text(inputs, "path")
        iam = Connection.parse(inputs).iam()
        adopted = False
        try:
            made = call(iam, "create_user", UserName=user, Path=path)["User"]
        except ApiError as error:
            if error.code != "EntityAlreadyExists":
                raise
            made = call(iam, "get_user", UserName=user)["User"]
            adopted = made.get("Path") != path
            if adopted and not inputs.get("adopt"):
                raise ResourceError(
                    f"user: {user!r} exists already (path {made.get('Path')!r}, ours is {path!r}): it is not this "
                    "stack's. Choose another name with the setting user, or set adopt: true to take it over."
                ) from None
        return user, {**inputs, "arn": made.get("Arn", ""), "adopted": adopted}

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            user, connection = Connection.of_import(resource_id)
            inputs = {"userName": user, "connection": connection.values(), "adopt": True}
            outputs = {"adopted": True}
        user = text(inputs, "userName", resource_id)
        found = _user(Connection.parse(inputs).iam(), user)
        if found is None:
            return None
        inputs = {"path": found.get("Path", "/"), **inputs}
        return Found(user, inputs, {**outputs, **inputs, "arn": found.get("Arn", "")})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        user, connection = text(inputs, "userName"), Connection.parse(inputs)
        # State keeps the old place until the user was seen at the new one: a refresh looks where state says.
        if _user(connection.iam(), user) is None:
            raise ResourceError(
                f"user: {user!r} does not exist at {connection.iam_endpoint}. Check iam_endpoint; if the user was "
                "deleted, `synapse-media up --refresh` finds out and makes it again."
            )
        return self._kept(old, inputs)

    def _kept(self, old: Values, inputs: Values) -> Values:
        # Nothing of a user can be changed in place but what is only ours to remember.
        return {**inputs, "arn": text(old, "arn"), "adopted": bool(old.get("adopted"))}

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        user = text(outputs, "userName", resource_id)
        if outputs.get("adopted"):
            context.warn(f"user {user} was there before this stack and is left where it is, with what others gave it.")
            return
        iam = Connection.parse(outputs).iam()
        try:
            for key in _listed(iam, user):
                context.warn(f"user {user}: key {key['AccessKeyId']}, made by somebody else, goes with the user")
                call(iam, "delete_access_key", UserName=user, AccessKeyId=key["AccessKeyId"])
            for name in call(iam, "list_user_policies", UserName=user).get("PolicyNames", []):
                call(iam, "delete_user_policy", UserName=user, PolicyName=name)
            call(iam, "delete_user", UserName=user)
        except ApiError as error:
            if not error.absent:
                raise


class UserPolicy(Resource):
    """An inline policy of a user. Inputs: `userName`, `policyName`, `policy` (JSON), `connection`."""

    pulumi_type = "s3store:index:UserPolicy"
    replace_on = frozenset({"userName", "policyName"})
    required = frozenset({"userName", "policyName", "policy", "connection"})

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
        self._put(inputs)
        return f"{inputs['userName']}/{inputs['policyName']}", dict(inputs)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            name, connection = Connection.of_import(resource_id)
            user, slash, policy = name.partition("/")
            if not slash:
                raise ResourceError(f"import id {resource_id!r} is not USER/POLICY@IAM-ENDPOINT")
            inputs = {"userName": user, "policyName": policy, "connection": connection.values()}
        try:
            found = call(
                Connection.parse(inputs).iam(),
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
        return Found(f"{inputs['userName']}/{inputs['policyName']}", inputs, dict(inputs))

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        self._put(inputs)
        return dict(inputs)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        try:
            call(
                Connection.parse(outputs).iam(),
                "delete_user_policy",
                UserName=outputs["userName"],
                PolicyName=outputs["policyName"],
            )
        except ApiError as error:
            if not error.absent:
                raise

    def _put(self, inputs: Values) -> None:
        call(
            Connection.parse(inputs).iam(),
            "put_user_policy",
            UserName=inputs["userName"],
            PolicyName=inputs["policyName"],
            PolicyDocument=inputs["policy"],
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A journal entry: a key for `slot` was about to be made at `at` (the server's clock), beside the keys `before`."""

    slot: str
    at: datetime
    before: frozenset[str]


class IamKeys(KeyFamily):
    """The access keys of an IAM user."""

    def __init__(self, connection: Connection, user: str) -> None:
        self.who = f"user {user}"
        self._connection = connection
        self._iam = connection.iam()
        self._user = user

    def listed(self) -> dict[str, bool] | None:
        try:
            return {key["AccessKeyId"]: key.get("Status") != "Inactive" for key in _listed(self._iam, self._user)}
        except ApiError as error:
            if error.absent:
                return None
            raise

    def make(self, slot: str, before: frozenset[str]) -> MadeKey:
        answer = call(self._iam, "list_access_keys", UserName=self._user)
        listed = [key["AccessKeyId"] for key in answer["AccessKeyMetadata"]]
        at = _server_time(answer)
        _write_journal(self._iam, self._user, _Entry(slot, at, before.union(listed)))
        try:
            made = call(self._connection.iam_once(), "create_access_key", UserName=self._user)["AccessKey"]
        except ApiError as error:
            if error.code in ("LimitExceeded", "LimitExceededException"):
                raise ResourceError(
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
        return _orphans(self._iam, self._user, known)

    def settle(self) -> None:
        forget_journal(self._iam, self._user)

    def last_used(self, key_id: str) -> datetime | None:
        try:
            answer = call(self._iam, "get_access_key_last_used", AccessKeyId=key_id)
        except ApiError as error:
            if error.lacking or error.absent:
                return None
            raise
        used = answer["AccessKeyLastUsed"].get("LastUsedDate")
        return used.astimezone(UTC) if isinstance(used, datetime) else None


class KeyRing(RingBase):
    """The access keys of an IAM user, by slot (see RingBase)."""

    pulumi_type = "s3store:index:KeyRing"

    def family(self, values: Values) -> IamKeys:
        return IamKeys(Connection.parse(values), text(values, "userName"))


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


def _server_time(answer: Mapping[str, Any]) -> datetime:
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)


_SID = re.compile(r"^At(\d{8}T\d{6})Z(?:Before([A-Z0-9x]+))?$")


def _write_journal(iam: Any, user: str, entry: _Entry) -> None:
    sid = f"At{entry.at:%Y%m%dT%H%M%S}Z"
    if entry.before:
        sid += "Before" + "x".join(sorted(entry.before))
    # Denies the user what it could not do anyway: harmless if it stays behind.
    statement = {"Sid": sid, "Effect": "Deny", "Action": "iam:CreateAccessKey", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    call(iam, "put_user_policy", UserName=user, PolicyName=JOURNAL + entry.slot, PolicyDocument=document)


def _journal(iam: Any, user: str) -> list[_Entry]:
    entries = []
    for name in call(iam, "list_user_policies", UserName=user).get("PolicyNames", []):
        if not name.startswith(JOURNAL):
            continue
        document = call(iam, "get_user_policy", UserName=user, PolicyName=name)["PolicyDocument"]
        parsed = json.loads(document) if isinstance(document, str) else document
        match = _SID.match(parsed["Statement"][0].get("Sid", ""))
        if match:
            at = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            entries.append(_Entry(name.removeprefix(JOURNAL), at, frozenset((match[2] or "").split("x")) - {""}))
    return entries


def _orphans(iam: Any, user: str, known: Iterable[str]) -> list[str]:
    """Keys that an interrupted run made and nobody was ever given: announced in the journal, not in state."""
    entries = _journal(iam, user)
    if not entries:
        return []
    listed = {key["AccessKeyId"]: key["CreateDate"].astimezone(UTC) for key in _listed(iam, user)}
    orphans = set()
    for entry in entries:
        # The server writes whole seconds.
        announced = [
            (made, key_id)
            for key_id, made in listed.items()
            if key_id not in entry.before and timedelta(seconds=-1) <= made - entry.at <= _WINDOW
        ]
        # One call was announced, so one key at most: what came after it, somebody else made.
        if announced and not {key_id for _, key_id in announced} & set(known):
            orphans.add(min(announced)[1])
    return sorted(orphans)


def forget_journal(iam: Any, user: str) -> None:
    """Remove the journal: what it announced is in state, or undone."""
    for name in call(iam, "list_user_policies", UserName=user).get("PolicyNames", []):
        if name.startswith(JOURNAL):
            try:
                call(iam, "delete_user_policy", UserName=user, PolicyName=name)
            except ApiError as error:
                if not error.absent:
                    raise
