"""A preview in plain words, and the guards on it: pure functions over what `pulumi preview --json` says.

A danger is a change that can lose media or cut access. It is refused by `up`, and answered with exit code 3 by
`diff`, unless the stack file's `allow` names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SynapseMediaError
from .methods import METHODS, RULES

_VERBS = {
    "create": "create",
    "update": "update",
    "delete": "delete",
    "replace": "replace",
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "import": "take over",
    "discard": "forget",
}
_POLICIES = ("s3store:index:UserPolicy", "aws:iam/userPolicy:UserPolicy", "aws:iam/rolePolicy:RolePolicy")
_IDENTITIES = ("Role", "InstanceProfile", "User")
"""What a key or a machine is known to the store by; the last part of the type."""
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What the engine writes for a value that is only known once something was made."""


def is_bucket(kind: str) -> bool:
    """Whether a resource type is a bucket: ours and the vendors' all end in it, and nothing else does."""
    return kind.endswith("Bucket")


class DangerError(SynapseMediaError):
    """A change that may lose media or cut access, and that `allow` does not name."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Danger:
    """`word` is what `allow` has to name, as `<homeserver>/<word>`, for the change to be made."""

    word: str
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """One resource that would change. `details` are lines in words; no secret is in them."""

    verb: str
    store: str
    kind: str
    details: tuple[str, ...] = ()
    dangers: tuple[Danger, ...] = ()

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} of {self.store}"


def of_preview(preview: Mapping[str, Any]) -> tuple[Change, ...]:
    """The changes of a preview in the engine's order; a replacement is one change, not three steps."""
    found: list[Change] = []
    steps = preview.get("steps", ())
    # What we made last, before a refresh put drift in its place: mending drift is no danger.
    made = {step["urn"]: step["oldState"] for step in steps if step["op"] == "refresh" and step.get("oldState")}
    methods = _methods(steps)
    deleted = {step["urn"] for step in steps if step["op"] == "delete"}
    ending = {urn.rpartition("::")[2] for urn in deleted if is_bucket(urn.split("::")[2])}
    for urn, verb, old, new, detailed in _merged(steps):
        kind, store = urn.split("::")[2].rpartition("$")[2], urn.rpartition("::")[2]
        details = tuple(_details(verb, kind, old, new, detailed))
        if verb == "delete" and old.get("retainOnDelete"):
            found.append(Change("give up", store, kind.rpartition(":")[2], (*details, "it is left where it is")))
            continue
        dangers = tuple(_dangers(verb, kind, _inputs(made.get(urn, old)), _inputs(new), methods.get(store, "")))
        if verb == "delete" and old.get("deletedWith") in deleted:
            # A setting goes with its bucket, of which all is said already.
            dangers = ()
        elif verb == "delete" and store not in ending:
            dangers = (*dangers, *_cuts(kind, _inputs(old)))
        found.append(Change(verb, store, kind.rpartition(":")[2], details, dangers))
    return tuple(found)


def _merged(
    steps: Iterable[Mapping[str, Any]],
) -> Iterable[tuple[str, str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """(URN, verb, old state, new state, detailed diff) of what changes. A replacement is three steps of one URN, which
    have the states between them, in an order that depends on what is deleted first."""
    by_urn: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        kind = step["urn"].split("::")[2].rpartition("$")[2]
        if step["op"] in _VERBS and not kind.startswith(("pulumi:", "synapse-media:")):
            by_urn.setdefault(step["urn"], []).append(step)
    for urn, own in by_urn.items():
        verbs = [_VERBS[step["op"]] for step in own]
        verb = "replace" if "replace" in verbs else verbs[0]
        same = [step for step, its in zip(own, verbs, strict=True) if its == verb]
        old, new, detailed = (
            next((step[name] for step in same if step.get(name)), dict[str, Any]())
            for name in ("oldState", "newState", "detailedDiff")
        )
        yield urn, verb, old, new, detailed


def refused(changes: Iterable[Change], allow: Iterable[str]) -> tuple[tuple[Change, Danger], ...]:
    """The dangers that `allow` does not name.

    Args:
        allow: entries `<homeserver>/<word>` of the stack file.
    """
    allowed = frozenset(allow)
    return tuple(
        (change, danger)
        for change in changes
        for danger in change.dangers
        if f"{change.store}/{danger.word}" not in allowed
    )


def in_words(changes: Iterable[Change], warnings: Iterable[str] = ()) -> str:
    """The text form: one paragraph a change, dangers marked, warnings last; "no changes" if there are none."""
    lines = []
    for change in changes:
        lines.append(str(change))
        lines += [f"    {detail}" for detail in change.details]
        lines += [f"    DANGER: {danger.why}" for danger in change.dangers]
    lines += [f"note: {warning}" for warning in warnings]
    return "\n".join(lines) if lines else "no changes"


def warnings(preview: Mapping[str, Any]) -> tuple[str, ...]:
    """What the plugin reports without deciding it: unknown keys, keys switched off, an adopted bucket's differences."""
    return tuple(
        dict.fromkeys(
            str(item.get("message", "")).strip().removeprefix("warning: ")
            for item in preview.get("diagnostics") or ()
            if item.get("severity") == "warning"
        )
    )


def statements(document: object) -> tuple[str, ...]:
    """A policy statement by statement, in words; () for none or one that isn't a policy."""
    return tuple(map(_statement, _listed(document)))


def _listed(document: object) -> tuple[Mapping[str, Any], ...]:
    """The statements of a policy, whatever somebody wrote at the store by hand."""
    try:
        parsed = json.loads(document) if isinstance(document, str) else None
    except (ValueError, RecursionError):
        return ()
    found = parsed.get("Statement") if isinstance(parsed, Mapping) else None
    return tuple(item for item in (found if isinstance(found, list) else [found]) if isinstance(item, Mapping))


def _many(item: Mapping[str, Any], name: str) -> list[str]:
    value = item.get(name, [])
    return sorted(map(str, value)) if isinstance(value, list) else [str(value)]


def _statement(item: Mapping[str, Any]) -> str:
    def many(name: str) -> str:
        return ", ".join(_many(item, name))

    effect = "allow" if item.get("Effect") == "Allow" else "deny"
    actions = many("Action") or f"all but {many('NotAction')}"
    who = f" to {json.dumps(item['Principal'], sort_keys=True)}" if "Principal" in item else ""
    if "NotPrincipal" in item:
        who = f" to all but {json.dumps(item['NotPrincipal'], sort_keys=True)}"
    condition = f" when {json.dumps(item['Condition'], sort_keys=True)}" if "Condition" in item else ""
    return f"{effect}{who} {actions} on {many('Resource') or 'all but ' + many('NotResource')}{condition}"


@dataclass(frozen=True, slots=True)
class _Right:
    """An action on a resource, both perhaps with wildcards, as a statement allows or denies it.

    `only` is what limits it further (a condition, exceptions), "" for nothing.
    """

    action: str
    resource: str
    only: str

    def within(self, other: _Right) -> bool:
        return (
            _matches(self.action.lower(), other.action.lower())
            and _matches(self.resource, other.resource)
            and other.only in ("", self.only)
        )


def _rights(document: object, effect: str) -> tuple[_Right, ...]:
    found = []
    for item in _listed(document):
        if item.get("Effect") != effect:
            continue
        limits = {name: item[name] for name in ("Condition", "NotAction", "NotResource") if name in item}
        only = json.dumps(limits, sort_keys=True) if limits else ""
        for action in _many(item, "Action") or ["*"]:
            found += [_Right(action, resource, only) for resource in _many(item, "Resource") or ["*"]]
    return tuple(found)


def _beyond(rights: Iterable[_Right], known: Iterable[_Right]) -> tuple[_Right, ...]:
    """Those of `rights` that are within none of `known`."""
    listed = tuple(known)
    return tuple(right for right in rights if not any(right.within(other) for other in listed))


def _matches(value: str, pattern: str) -> bool:
    """Whether a policy's pattern covers a value, which may be a pattern itself: "?" covers no "*"."""
    parts = (".*" if letter == "*" else "[^*]" if letter == "?" else re.escape(letter) for letter in pattern)
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


def _open_to_all(document: object) -> frozenset[str]:
    """The statements, in words, that allow something to everybody, or to all but a few."""
    return frozenset(
        _statement(item)
        for item in _listed(document)
        if item.get("Effect") == "Allow" and ("NotPrincipal" in item or _is_everybody(item.get("Principal")))
    )


def _is_everybody(principal: object) -> bool:
    """Whether everybody is among those that a statement names, alone or beside others."""
    named = list(principal.values()) if isinstance(principal, Mapping) else [principal]
    return any("*" in (item if isinstance(item, list) else [item]) for item in named)


def _inputs(state: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs: Mapping[str, Any] = state.get("inputs") or {}
    return inputs


def _shown(value: Any) -> str:
    if value == _UNKNOWN:
        return "what is known later"
    return "nothing" if value in (None, "", [], {}) else json.dumps(value, sort_keys=True)


def _details(
    verb: str, kind: str, old: Mapping[str, Any], new: Mapping[str, Any], detailed: Mapping[str, Any]
) -> Iterable[str]:
    before, after = _inputs(old), _inputs(new)
    name = (
        after.get("bucket")
        or after.get("userName")
        or before.get("bucket")
        or before.get("userName")
        or after.get("name")
    )
    if verb in ("create", "delete") and isinstance(name, str):
        yield f"name: {name}"
    if "policy" in after or "policy" in before:
        was, will = statements(before.get("policy")), statements(after.get("policy"))
        yield from (f"- {line}" for line in was if line not in will)
        yield from (f"+ {line}" for line in will if line not in was)
    if verb == "update" and is_bucket(kind) and (old.get("outputs") or {}).get("adopted"):
        yield "it was taken over: its settings are changed only where `allow` names them"
    if verb in ("update", "replace"):
        for path in sorted({key.split(".")[0].split("[")[0] for key in detailed}):
            if path == "orphanUntil":
                yield "looks for a key that an interrupted run asked for, and that the store may still make"
            elif path not in ("policy", "secretAccessKey", "secrets", "connection"):
                yield f"{path}: {_shown(before.get(path))} -> {_shown(after.get(path))}"
            elif path != "policy":
                yield f"{path} changes"
        if not detailed:
            yield "finishes what an earlier run left unfinished"
    if kind.endswith("KeyRing"):
        was_slots, will_slots = set(before.get("slots") or ()), set(after.get("slots") or ())
        yield from (f"a key is made for slot {slot}" for slot in sorted(will_slots - was_slots))
        if verb != "create":
            yield from (f"the key of slot {slot} is retired" for slot in sorted(was_slots - will_slots))


def _methods(steps: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The method each store runs now: that of its last proof."""
    found = {}
    for step in steps:
        if "s3store:index:Proof" in step["urn"] and step.get("oldState"):
            found[step["urn"].rpartition("::")[2]] = str(_inputs(step["oldState"]).get("method", ""))
    return found


def _dangers(
    verb: str, kind: str, before: Mapping[str, Any], after: Mapping[str, Any], method: str
) -> Iterable[Danger]:
    if is_bucket(kind):
        yield from _bucket_dangers(verb, before, after)
    if kind.endswith("BucketVersioning") and "Enabled" not in json.dumps(after):
        yield Danger("disable-versioning", "versioning is turned off: what is overwritten or deleted is gone at once")
    if kind.endswith("BucketAcl") and after.get("acl", "private") not in ("private", before.get("acl")):
        yield Danger("public-bucket", f"the bucket's access list would be {after['acl']}")
    if kind.endswith("BucketPublicAccessBlock") and (verb == "delete" or False in after.values()):
        yield Danger("public-bucket", "the public access block is taken away")
    if verb != "delete" and (is_bucket(kind) or kind.endswith("BucketPolicy")):
        for statement in sorted(_open_to_all(after.get("policy")) - _open_to_all(before.get("policy"))):
            yield Danger("public-bucket", f"the bucket's policy would {statement}")
    if kind in _POLICIES:
        yield from _policy_dangers(verb, before, after, method)
    if kind.endswith("KeyRing") and verb in ("update", "replace"):
        yield from _ring_dangers(verb, before, after)
    if kind.rpartition(":")[2] in _IDENTITIES and verb == "replace":
        yield Danger("retire-key", f"{_name(before)} would be replaced: what signs by it now can no longer")


def _ring_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    """Of a key ring that is there and changes."""
    gone = set(before.get("slots") or ()) - (set(after.get("slots") or ()) if verb == "update" else set())
    if gone:
        yield Danger(
            "retire-key", f"the key of slot {', '.join(sorted(gone))} stops working: Synapse must use the other"
        )
    # Where a key has no policy, what it may do is said beside it.
    for name in ("capabilities", "permissions"):
        wider = sorted(set(after.get(name) or ()) - set(before.get(name) or ()))
        if wider and before.get(name):
            yield Danger("widen-policy", f"the next key may do more than before: {', '.join(wider)}")
    yield from _grant_dangers(before.get("grants"), after.get("grants"))


def _cuts(kind: str, before: Mapping[str, Any]) -> Iterable[Danger]:
    """What goes although its bucket stays: Synapse may be using it."""
    if kind.endswith("KeyRing"):
        slots = ", ".join(sorted(before.get("slots") or ()))
        yield Danger("retire-key", f"the keys of slot {slots} would be deleted, and the bucket stays")
    if kind in _POLICIES:
        yield Danger("narrow-policy", "the policy would be deleted, and the bucket stays: its key may do nothing more")
    if kind.rpartition(":")[2] in _IDENTITIES:
        yield Danger("retire-key", f"{_name(before)} would be deleted, and the bucket stays: what signs by it can not")


def _name(inputs: Mapping[str, Any]) -> object:
    """What a vendor's or our own plugin calls the thing."""
    return next((inputs[name] for name in ("bucket", "userName", "name") if inputs.get(name)), "what has no name")


def _grant_dangers(before: Any, after: Any) -> Iterable[Danger]:
    """Of keys whose rights are grants: {bucket, permission} each, as at DigitalOcean Spaces."""
    was, will = _granted(before), _granted(after)
    if not was:
        return
    for word, change, more, less in (
        ("widen-policy", "may do more than before", will, was),
        ("narrow-policy", "may no longer do", was, will),
    ):
        beyond = [one for one in sorted(more) if not any(_covers(other, one) for other in less)]
        if beyond:
            said = ", ".join(f"{permission} on {bucket or 'every bucket'}" for bucket, permission in beyond)
            yield Danger(word, f"the key {change}: {said}")


def _granted(grants: Any) -> set[tuple[str, str]]:
    """(bucket, permission) of each grant."""
    listed = grants if isinstance(grants, list) else []
    return {(str(one.get("bucket") or ""), str(one.get("permission"))) for one in listed if isinstance(one, Mapping)}


def _covers(wide: tuple[str, str], narrow: tuple[str, str]) -> bool:
    """https://docs.digitalocean.com/reference/api/reference/spaces-keys/: fullaccess is of every bucket."""
    same = wide[0] == narrow[0] and wide[1] in (narrow[1], "readwrite") and narrow[1] != "fullaccess"
    return wide[1] == "fullaccess" or same


def _on(versioning: Any) -> bool:
    """Ours is a word, the vendor's an object."""
    return versioning is True or (isinstance(versioning, Mapping) and versioning.get("enabled") is True)


def _bucket_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    name = _name(before)
    if verb == "replace":
        yield Danger(
            "replace-bucket", f"the bucket {name} would be replaced by another: its media stays behind or is lost"
        )
    if verb == "delete":
        yield Danger(
            "delete-bucket",
            f"the bucket {name} would be deleted (to keep it, name retain-bucket in `allow` and run `up` while its "
            "store is still in the stack file)",
        )
    if verb != "update":
        return
    if _on(before.get("versioning")) and not _on(after.get("versioning")):
        yield Danger("disable-versioning", "versioning is turned off: what is overwritten or deleted is gone at once")
    if before.get("publicAccessBlock") is True and after.get("publicAccessBlock") is False:
        yield Danger("public-bucket", "the public access block is taken away")
    if (before.get("acl") == "private" and after.get("acl") != "private") or (
        before.get("private") is True and after.get("private") is not True
    ):
        yield Danger("public-bucket", "the bucket's access list is no longer private")


def _policy_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any], method: str) -> Iterable[Danger]:
    if verb not in ("update", "replace"):
        return
    old, new = before.get("policy"), after.get("policy")
    if new == _UNKNOWN:
        yield Danger("widen-policy", "what the key may do is only known once other things are made")
        return
    was, will = _rights(old, "Allow"), _rights(new, "Allow")
    had_denied, denied = _rights(old, "Deny"), _rights(new, "Deny")
    wider = {right.action for right in (*_beyond(will, was), *_beyond(had_denied, denied))}
    if wider:
        yield Danger("widen-policy", f"the key may do more than before: {', '.join(sorted(wider))}")
    missing = _missing(method, was, will, _beyond(denied, had_denied))
    if missing:
        yield Danger(
            "narrow-policy", f"{method}, which runs now, needs what the key may no longer do: {', '.join(missing)}"
        )


def _missing(method: str, was: tuple[_Right, ...], will: tuple[_Right, ...], denied: tuple[_Right, ...]) -> list[str]:
    """Actions that the method needs and no longer has, as far as they reached before: the bucket, or a prefix in it."""

    def grants(action: str, rights: Iterable[_Right]) -> list[_Right]:
        return [right for right in rights if _matches(action.lower(), right.action.lower())]

    missing = set()
    for operation in METHODS[method].needs if method in METHODS else ():
        rule = RULES[operation]
        for action in rule.actions:
            reached = [
                _Right(action, right.resource, right.only)
                for right in grants(action, was)
                if right.resource == "*" or ("/" in right.resource) == (rule.on == "object")
            ]
            if not grants(action, will) or _beyond(reached, will) or grants(action, denied):
                missing.add(action)
    return sorted(missing)


def to_json(
    changes: Iterable[Change], warnings: Iterable[str], refused: Iterable[tuple[Change, Danger]]
) -> dict[str, Any]:
    """For programs: {changes: [{verb, store, kind, details, dangers}], warnings, refused: [<homeserver>/<word>]}."""
    return {
        "changes": [
            {
                "verb": change.verb,
                "store": change.store,
                "kind": change.kind,
                "details": list(change.details),
                "dangers": [{"word": danger.word, "why": danger.why} for danger in change.dangers],
            }
            for change in changes
        ],
        "warnings": list(warnings),
        "refused": sorted({f"{change.store}/{danger.word}" for change, danger in refused}),
    }


def refusal(refused: Iterable[tuple[Change, Danger]], path: str) -> str:
    """The message of an `up` that does not go on."""
    lines = [f"{change}: {danger.why}" for change, danger in refused]
    words = sorted({f"{change.store}/{danger.word}" for change, danger in refused})
    return (
        "nothing was changed, because this can lose media or cut access:\n  "
        + "\n  ".join(lines)
        + f"\nTo have it made all the same, put {', '.join(words)} into synapse-media:allow in {path}."
    )
