"""A preview in plain words, and the guards on it: pure functions over what `pulumi preview --json` says.

A danger is a change that can lose media or cut access. It is refused by `up`, and answered with exit code 3 by
`diff`, unless the stack file's `allow` names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SynapseMediaError
from .methods import METHODS, RULES

QUIET = frozenset({"same", "refresh", "read"})
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
_POLICIES = ("s3store:index:UserPolicy", "aws:iam/userPolicy:UserPolicy")


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
    seen: set[str] = set()
    steps = preview.get("steps", ())
    # What we made last, before a refresh put drift in its place: mending drift is no danger.
    made = {step["urn"]: step["oldState"] for step in steps if step["op"] == "refresh" and step.get("oldState")}
    methods = _methods(steps)
    for step in steps:
        verb = _VERBS.get(step["op"])
        if verb is None or step["op"] in QUIET:
            continue
        urn = step["urn"]
        kind = urn.split("::")[2].rpartition("$")[2]
        if kind.startswith(("pulumi:", "synapse-media:")) or urn in seen:
            continue
        seen.add(urn)
        old, new = step.get("oldState") or {}, step.get("newState") or {}
        details = tuple(_details(verb, kind, old, new, step.get("detailedDiff") or {}))
        store = urn.rpartition("::")[2]
        if verb == "delete" and old.get("retainOnDelete"):
            found.append(Change("give up", store, kind.rpartition(":")[2], (*details, "it is left where it is")))
            continue
        dangers = tuple(_dangers(verb, kind, _inputs(made.get(urn, old)), _inputs(new), methods.get(store, "")))
        found.append(Change(verb, store, kind.rpartition(":")[2], details, dangers))
    return tuple(found)


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
    """A policy statement by statement, in words; () for none or one that isn't JSON."""
    if not isinstance(document, str) or not document.strip():
        return ()
    try:
        parsed = json.loads(document)
    except ValueError:
        return ()
    listed = parsed.get("Statement", [])
    return tuple(_statement(item) for item in (listed if isinstance(listed, list) else [listed]))


def _statement(item: Mapping[str, Any]) -> str:
    def many(name: str) -> str:
        value = item.get(name, [])
        return ", ".join(sorted(value)) if isinstance(value, list) else str(value)

    effect = "allow" if item.get("Effect") == "Allow" else "deny"
    actions = many("Action") or f"all but {many('NotAction')}"
    who = f" to {json.dumps(item['Principal'], sort_keys=True)}" if "Principal" in item else ""
    condition = f" when {json.dumps(item['Condition'], sort_keys=True)}" if "Condition" in item else ""
    return f"{effect}{who} {actions} on {many('Resource') or 'all but ' + many('NotResource')}{condition}"


def _grants(document: object) -> frozenset[tuple[str, str]]:
    """(action, resource) pairs a policy allows."""
    if not isinstance(document, str) or not document.strip():
        return frozenset()
    try:
        listed = json.loads(document).get("Statement", [])
    except ValueError:
        return frozenset()
    pairs = set()
    for item in listed if isinstance(listed, list) else [listed]:
        if item.get("Effect") == "Allow":
            actions, resources = item.get("Action", "*"), item.get("Resource", "*")
            for action in actions if isinstance(actions, list) else [actions]:
                pairs |= {(action, res) for res in (resources if isinstance(resources, list) else [resources])}
    return frozenset(pairs)


def _covered(pair: tuple[str, str], by: frozenset[tuple[str, str]]) -> bool:
    return any(_matches(pair[0], action) and _matches(pair[1], resource) for action, resource in by)


def _matches(value: str, pattern: str) -> bool:
    return value == pattern or (pattern.endswith("*") and value.startswith(pattern[:-1]))


def _inputs(state: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs: Mapping[str, Any] = state.get("inputs") or {}
    return inputs


def _shown(value: Any) -> str:
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
    if verb in ("update", "replace"):
        for path in sorted({key.split(".")[0].split("[")[0] for key in detailed}):
            if path not in ("policy", "secretAccessKey", "secrets", "connection"):
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
    if kind.endswith("BucketPublicAccessBlock") and (verb == "delete" or False in after.values()):
        yield Danger("public-bucket", "the public access block is taken away")
    if kind in _POLICIES:
        yield from _policy_dangers(verb, before, after, method)
    if kind.endswith("KeyRing") and verb in ("update", "replace", "delete"):
        gone = set(before.get("slots") or ()) - (set(after.get("slots") or ()) if verb == "update" else set())
        if gone and verb != "delete":
            yield Danger(
                "retire-key", f"the key of slot {', '.join(sorted(gone))} stops working: Synapse must use the other"
            )
        # Where a key has no policy, what it may do is said beside it.
        for name in ("capabilities", "permissions"):
            wider = sorted(set(after.get(name) or ()) - set(before.get(name) or ()))
            if wider and before.get(name):
                yield Danger("widen-policy", f"the next key may do more than before: {', '.join(wider)}")


def _bucket_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    name = before.get("bucket")
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
    if before.get("versioning") is True and after.get("versioning") is False:
        yield Danger("disable-versioning", "versioning is turned off: what is overwritten or deleted is gone at once")
    if before.get("publicAccessBlock") is True and after.get("publicAccessBlock") is False:
        yield Danger("public-bucket", "the public access block is taken away")
    if before.get("acl") == "private" and after.get("acl") != "private":
        yield Danger("public-bucket", "the bucket's access list is no longer private")


def _policy_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any], method: str) -> Iterable[Danger]:
    if verb not in ("update", "replace"):
        return
    was, will = _grants(before.get("policy")), _grants(after.get("policy"))
    wider = sorted(action for action, resource in will if not _covered((action, resource), was))
    if wider:
        yield Danger("widen-policy", f"the key may do more than before: {', '.join(wider)}")
    needed = {action for operation in METHODS[method].needs for action in RULES[operation].actions} if method else set()
    granted = {action for action, _ in will}
    missing = sorted(action for action in needed if not any(_matches(action, pattern) for pattern in granted))
    if missing:
        yield Danger(
            "narrow-policy", f"{method}, which runs now, needs what the key may no longer do: {', '.join(missing)}"
        )


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
