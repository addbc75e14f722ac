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
from .resource import UNKNOWN, Context, Found, PartialError, Resource, ResourceError, Values, text

JOURNAL: Final = "s3store-making-"
_WINDOW = timedelta(minutes=5)
"""A key made within this time of a journal entry was made by the announced call, which gives up long before."""


class User(Resource):
    """An IAM user under a path of ours. Inputs: `userName`, `path`, `connection`, `adopt`. Output: `arn`."""

    pulumi_type = "s3store:index:User"
    replace_on = frozenset({"userName"})
    required = frozenset({"userName", "path", "connection"})

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        return super().check({"adopt": False, **inputs})

    def planned(self, inputs: Values, old: Values | None) -> Values:
        return {**inputs, "arn": (old or {}).get("arn", UNKNOWN)}

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        user, path = text(inputs, "userName"), text(inputs, "path")
        iam = Connection.parse(inputs).iam()
        try:
            made = call(iam, "create_user", UserName=user, Path=path)["User"]
        except ApiError as error:
            if error.code != "EntityAlreadyExists":
                raise
            made = call(iam, "get_user", UserName=user)["User"]
            if made.get("Path") != path and not inputs.get("adopt"):
                raise ResourceError(
                    f"user: {user!r} exists already (path {made.get('Path')!r}, ours is {path!r}): it is not this "
                    "stack's. Choose another name with the setting user, or set adopt: true to take it over."
                ) from None
        return user, {**inputs, "arn": made.get("Arn", "")}

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            user, connection = Connection.of_import(resource_id)
            inputs = {"userName": user, "connection": connection.values(), "adopt": True}
        user = text(inputs, "userName", resource_id)
        found = _user(Connection.parse(inputs).iam(), user)
        if found is None:
            return None
        inputs = {"path": found.get("Path", "/"), **inputs}
        return Found(user, inputs, {**outputs, **inputs, "arn": found.get("Arn", "")})

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        # Nothing of a user can be changed in place but what is only ours to remember.
        return {**inputs, "arn": text(old, "arn")}

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        user = text(outputs, "userName", resource_id)
        iam = Connection.parse(outputs).iam()
        try:
            if outputs.get("adopt"):
                keys = [key["AccessKeyId"] for key in _listed(iam, user)]
                if keys:
                    raise ResourceError(
                        f"user {user!r} was taken over and still has the keys {', '.join(keys)}: delete them first, if "
                        "nothing uses them."
                    )
            for key in _listed(iam, user):
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


class KeyRing(Resource):
    """All access keys of one user, by slot.

    Inputs: `userName`, `active` (slot), `slots` (all slots there shall be), `retireConfirmed`, `connection`.
    Outputs: the inputs, `keys` {slot: {accessKeyId, createdAt}}, `secrets` {slot: secret access key} (secret),
    `accessKeyId` and `secretAccessKey` (secret) of the active slot, `unknownKeys`, `inactiveKeys`.
    """

    pulumi_type = "s3store:index:KeyRing"
    secrets = frozenset({"secrets", "secretAccessKey"})
    replace_on = frozenset({"userName"})
    required = frozenset({"userName", "active", "slots", "connection"})

    def check(self, inputs: Values) -> tuple[Values, dict[str, str]]:
        inputs = {"retireConfirmed": False, **inputs}
        if isinstance(inputs.get("slots"), list):
            inputs["slots"] = sorted(inputs["slots"])
        return super().check(inputs)

    def planned(self, inputs: Values, old: Values | None) -> Values:
        keys = (old or {}).get("keys", {})
        active = inputs.get("active")
        if old is not None and set(inputs["slots"]) == set(keys):
            return {**old, **inputs, **_of_active(active, keys, old.get("secrets", {}))}
        known = active in keys
        return {
            **inputs,
            "keys": UNKNOWN,
            "secrets": UNKNOWN,
            "accessKeyId": keys[active]["accessKeyId"] if known else UNKNOWN,
            "secretAccessKey": (old or {}).get("secrets", {})[active] if known else UNKNOWN,
            "unknownKeys": UNKNOWN,
            "inactiveKeys": UNKNOWN,
        }

    def create(self, inputs: Values, context: Context) -> tuple[str, Values]:
        outputs: Values = {**inputs, "keys": {}, "secrets": {}, "unknownKeys": [], "inactiveKeys": []}
        return text(inputs, "userName"), self._converge(outputs, inputs, context)

    def read(self, resource_id: str, inputs: Values, outputs: Values, context: Context) -> Found | None:
        if not inputs:
            raise ResourceError(
                "a key ring can't be imported: a store never shows a secret access key again. Let `up` make new keys, "
                "and delete the old ones once nothing uses them."
            )
        user = text(inputs, "userName", resource_id)
        iam = Connection.parse(inputs).iam()
        if _user(iam, user) is None:
            return None
        listed = {key["AccessKeyId"]: key for key in _listed(iam, user)}
        kept = {slot: key for slot, key in outputs.get("keys", {}).items() if key["accessKeyId"] in listed}
        outputs = {
            **outputs,
            "keys": kept,
            "secrets": {slot: secret for slot, secret in outputs.get("secrets", {}).items() if slot in kept},
        }
        outputs |= _strangers(listed, kept)
        _report(user, outputs, context)
        outputs |= _of_active(inputs.get("active"), kept, outputs["secrets"])
        return Found(user, {**inputs, "slots": sorted(kept)}, outputs)

    def update(self, resource_id: str, old: Values, inputs: Values, context: Context) -> Values:
        outputs: Values = {"keys": {}, "secrets": {}, **old, **inputs}
        outputs["keys"], outputs["secrets"] = dict(outputs["keys"]), dict(outputs["secrets"])
        return self._converge(outputs, inputs, context)

    def delete(self, resource_id: str, outputs: Values, context: Context) -> None:
        user = text(outputs, "userName", resource_id)
        iam = Connection.parse(outputs).iam()
        try:
            before = frozenset(key["accessKeyId"] for key in outputs.get("keys", {}).values())
            for orphan in _orphans(iam, user, before):
                call(iam, "delete_access_key", UserName=user, AccessKeyId=orphan)
            for key_id in before:
                _delete_key(iam, user, key_id)
            forget_journal(iam, user)
        except ApiError as error:
            if not error.absent:
                raise

    def _converge(self, outputs: Values, inputs: Values, context: Context) -> Values:
        """Make the ring as the inputs say; what was reached is in the PartialError where something stops it."""
        user, slots, active = text(inputs, "userName"), list(inputs["slots"]), inputs["active"]
        connection = Connection.parse(inputs)
        iam = connection.iam()
        keys, secrets = outputs["keys"], outputs["secrets"]
        try:
            known = frozenset(key["accessKeyId"] for key in keys.values())
            for orphan in _orphans(iam, user, known):
                call(iam, "delete_access_key", UserName=user, AccessKeyId=orphan)
                context.warn(f"user {user}: key {orphan}, made by an interrupted run and never handed out, is deleted")
            forget_journal(iam, user)
            listed = {key["AccessKeyId"]: key for key in _listed(iam, user)}
            for slot in [slot for slot, key in keys.items() if key["accessKeyId"] not in listed]:
                del keys[slot]
                secrets.pop(slot, None)
            for slot in slots:
                if slot not in keys:
                    keys[slot], secrets[slot] = _make_key(connection, user, slot, set(listed), context)
                    listed[keys[slot]["accessKeyId"]] = {"Status": "Active"}
            for slot in [slot for slot in keys if slot not in slots]:
                _may_retire(iam, keys[slot], keys[active], confirmed=bool(inputs.get("retireConfirmed")))
                _delete_key(iam, user, keys[slot]["accessKeyId"])
                listed.pop(keys[slot]["accessKeyId"], None)
                del keys[slot]
                secrets.pop(slot, None)
            outputs |= _strangers(listed, keys)
            _report(user, outputs, context)
        except ResourceError as error:
            outputs |= {"slots": sorted(keys), **_of_active(active, keys, secrets)}
            raise PartialError(str(error), user, outputs) from None
        return {**outputs, **_of_active(active, keys, secrets)}


def _of_active(active: Any, keys: Mapping[str, Any], secrets: Mapping[str, Any]) -> Values:
    if active not in keys:
        return {"accessKeyId": "", "secretAccessKey": ""}
    return {"accessKeyId": keys[active]["accessKeyId"], "secretAccessKey": secrets[active]}


def _strangers(listed: Mapping[str, Any], keys: Mapping[str, Any]) -> Values:
    ours = {key["accessKeyId"] for key in keys.values()}
    return {
        "unknownKeys": sorted(set(listed) - ours),
        "inactiveKeys": sorted(key for key in ours if listed.get(key, {}).get("Status") == "Inactive"),
    }


def _report(user: str, outputs: Values, context: Context) -> None:
    for key in outputs["unknownKeys"]:
        context.warn(
            f"user {user} has the key {key}, not made by this stack. It is left alone: delete it if nobody uses it."
        )
    for key in outputs["inactiveKeys"]:
        context.warn(
            f"user {user}: key {key} was switched off by somebody. It is left so; Synapse can't use it. Switch it "
            "on at the provider, or rotate."
        )


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


def _delete_key(iam: Any, user: str, key_id: str) -> None:
    try:
        call(iam, "delete_access_key", UserName=user, AccessKeyId=key_id)
    except ApiError as error:
        if not error.absent:
            raise


def _make_key(
    connection: Connection, user: str, slot: str, before: Iterable[str], context: Context
) -> tuple[dict[str, str], str]:
    """({accessKeyId, createdAt}, secret access key). One try: a repeated call would leave a key that nobody knows."""
    iam = connection.iam()
    answer = call(iam, "list_access_keys", UserName=user)
    listed = [key["AccessKeyId"] for key in answer["AccessKeyMetadata"]]
    at = _server_time(answer)
    _write_journal(iam, user, _Entry(slot, at, frozenset([*before, *listed])))
    try:
        made = call(connection.iam_once(), "create_access_key", UserName=user)["AccessKey"]
    except ApiError as error:
        if error.code in ("LimitExceeded", "LimitExceededException"):
            raise ResourceError(
                f"user {user!r} has as many keys as it may have ({', '.join(listed)}) and slot {slot!r} needs another. "
                f"Delete one that nothing uses. {error}"
            ) from None
        raise
    context.warn(f"user {user}: key {made['AccessKeyId']} is new. Render, and restart Synapse to use it.")
    created = made.get("CreateDate") or at
    return {"accessKeyId": made["AccessKeyId"], "createdAt": created.astimezone(UTC).isoformat()}, made[
        "SecretAccessKey"
    ]


def _server_time(answer: Mapping[str, Any]) -> datetime:
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)


_PROOF_TIME = timedelta(minutes=5)

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
    orphans = []
    for key in _listed(iam, user):
        key_id, made = key["AccessKeyId"], key["CreateDate"].astimezone(UTC)
        for entry in entries:
            # The server writes whole seconds.
            announced = timedelta(seconds=-1) <= made - entry.at <= _WINDOW
            if key_id not in known and key_id not in entry.before and announced:
                orphans.append(key_id)
                break
    return orphans


def forget_journal(iam: Any, user: str) -> None:
    """Remove the journal: what it announced is in state, or undone."""
    for name in call(iam, "list_user_policies", UserName=user).get("PolicyNames", []):
        if name.startswith(JOURNAL):
            try:
                call(iam, "delete_user_policy", UserName=user, PolicyName=name)
            except ApiError as error:
                if not error.absent:
                    raise


def _may_retire(iam: Any, old: Mapping[str, str], new: Mapping[str, str], *, confirmed: bool) -> None:
    if confirmed:
        return
    made = datetime.fromisoformat(new["createdAt"])
    why = retire_fault(_last_used(iam, old["accessKeyId"]), _last_used(iam, new["accessKeyId"]), made)
    if why:
        raise ResourceError(
            f"key {old['accessKeyId']} is not retired: {why}. Render, restart Synapse, and then confirm: "
            "`synapse-media rotate --finish --confirm`, or <homeserver>/retire-key in the stack file's allow."
        )


def retire_fault(old_used: datetime | None, new_used: datetime | None, new_made: datetime) -> str:
    """Why the old key can't be taken for unused; "" if Synapse has moved on to the new one.

    The proof uses the new key as soon as it is made; only a use well after that is Synapse's.
    """
    if new_used is None:
        return "this store does not tell when a key was last used"
    if new_used - new_made < _PROOF_TIME:
        return "nobody but the proof has used the new key yet"
    if old_used is not None and old_used >= new_used:
        return f"it was used at {old_used:%Y-%m-%d %H:%M} UTC, after the new one was"
    return ""


def _last_used(iam: Any, key_id: str) -> datetime | None:
    try:
        used = call(iam, "get_access_key_last_used", AccessKeyId=key_id)["AccessKeyLastUsed"].get("LastUsedDate")
    except ApiError as error:
        if error.lacking or error.absent:
            return None
        raise
    return used.astimezone(UTC) if isinstance(used, datetime) else None
