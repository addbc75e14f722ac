"""A preview in plain words, and the guards on it: pure functions over what `pulumi preview --json` says.

A danger is a change that can lose media or cut access. It is refused by `up`, and answered with exit code 3 by
`diff`, unless the stack file's `allow` names it.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from synapse_media import catalog
from synapse_media.allow import Word, deletes_media, entry, words_of
from synapse_media.methods import METHODS, RULES
from synapse_media.schema.model import UNKNOWN_ON_WIRE
from synapse_media.schema.resources import ComponentInput
from synapse_media.urn import Urn, short

from . import key_rights
from .applied import (
    EXISTING_KEY,
    OURS,
    PROOF,
    RING,
    Applied,
    Homeservers,
    former_name,
    is_bucket,
    is_component,
    is_ours,
    keyless_place,
    read,
    resources_of,
)
from .danger import Danger

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
_POLICIES = (f"{OURS}UserPolicy", "aws:iam/userPolicy:UserPolicy", "aws:iam/rolePolicy:RolePolicy")
_IDENTITIES = ("Role", "InstanceProfile", "User")
"""What a key or a machine is known to the store by; the last part of the type."""


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


def of_preview(preview: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> tuple[Change, ...]:
    """The changes of a preview in the engine's order; a replacement is one change, not three steps.

    Args:
        preview: what `pulumi preview --json` prints.
        state: what `pulumi stack export` printed before; None where there is nothing yet.
    """
    found: list[Change] = []
    steps = preview.get("steps", ())
    # What we made last, before a refresh put drift in its place: mending drift is no danger.
    made = {step["urn"]: step["oldState"] for step in steps if step["op"] == "refresh" and step.get("oldState")}
    homeservers = Homeservers.of_steps(steps, resources_of(state or {}))
    records = read(state or {})
    running = _running(steps, homeservers)
    deleted = {step["urn"] for step in steps if step["op"] == "delete"}
    changing = {step["urn"] for step in steps if step["op"] in _VERBS}
    brought = {
        homeservers.of(step["urn"])
        for step in steps
        if Urn.parse(step["urn"]).kind == EXISTING_KEY and step.get("oldState") and step.get("newState")
    }
    kept = {(homeservers.of(step["urn"]), _name(_inputs(step["newState"]))) for step in steps if _is_kept_bucket(step)}
    for urn, verb, old, new, detailed in _merged(steps):
        kind, store = Urn.parse(urn).kind, homeservers.of(urn)
        details = tuple(_details(verb, kind, old, new, detailed))
        if not is_ours(urn):
            # Of the user's own program: shown, and not ours to judge.
            found.append(Change(verb, store, short(kind), details))
            continue
        if verb == "delete" and old.get("retainOnDelete") and old.get("deletedWith") not in deleted:
            why = f"{_name(_inputs(old))} would be given up: it stays, and is not managed here any more"
            dangers: tuple[Danger, ...] = (Danger(Word.RETAIN_BUCKET, why),)
            details = (*details, "it is left where it is")
            found.append(Change("give up", store, short(kind), details, dangers))
            continue
        baseline, runs = _held(made.get(urn, old)), running.get(store, _Running())
        if kind.endswith(RING):
            # A key that the refresh found gone is not what this run would take away.
            baseline = {**baseline, "slots": _inputs(old).get("slots") or ()}
        details = (*details, *_drift(verb, kind, baseline, _found(old, detailed), runs, gone=urn in made))
        dangers = tuple(_dangers(verb, kind, baseline, _wanted(old, new), runs))
        if verb == "delete" and old.get("deletedWith") in deleted:
            # A setting goes with its bucket, of which all is said already.
            dangers = ()
        elif verb == "delete" and is_bucket(kind) and (store, _name(_inputs(old))) in kept:
            # Taken over by another resource of the same store, and then deleted as the former one.
            why = (
                f"the bucket {_name(_inputs(old))} stays the store's, and would be deleted: it is to be given up first"
            )
            dangers = (Danger(Word.RETAIN_BUCKET, why),)
        elif verb == "delete":
            dangers = (*dangers, *_cuts(kind, _inputs(old)))
        if kind == PROOF and verb != "delete":
            was = records.get(store) or records.get(former_name(_inputs(new)))
            if homeservers.is_declared(Urn.parse(urn).of_parent):
                # Of a stack file's the judge tells it.
                component = Urn.parse(urn).parents[-1]
                dangers = (*dangers, *_moves(_place(was, _inputs(old)), _inputs(new)))
                dangers = (*dangers, *_another_kind(was, component), *_another_method(was, _inputs(new)))
        if kind == PROOF and store in brought:
            dangers = (*dangers, *_another_key(_inputs(old), _inputs(new)))
        sources = tuple(one for one in _sources(new) if one in changing and not is_ours(one))
        dangers = tuple(replace(danger, waits_for=sources) if danger.unknown else danger for danger in dangers)
        found.append(Change(verb, store, short(kind), details, dangers))
    return (*_by_components(steps, homeservers, records), *found)


def proofs(preview: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, str]:
    """{homeserver: URN} of the proof of each store that a preview changes, where the state has one.

    The preview leaves out what stays the same, and a proof's URN in the state may be a former one, which no option of
    pulumi takes: it is named beside a resource of the same component that changes.
    """
    resources = resources_of(state)
    steps = preview.get("steps") or ()
    homeservers = Homeservers.of_steps(steps, resources)
    proved = {homeservers.of_resource(one) for one in resources if one["type"] == PROOF and not one.get("delete")}
    found = {}
    for step in steps:
        urn, store = Urn.parse(step["urn"]), homeservers.of(step["urn"])
        if store in proved and step["op"] != "delete" and urn.parents and is_component(urn.parents[-1]):
            kinds = "$".join((*urn.parents, PROOF))
            found[store] = f"urn:pulumi:{urn.stack}::{urn.project}::{kinds}::{urn.name}"
    return found


def ending_buckets(preview: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """(URN in the state, name) of each bucket that a preview deletes, replaces or gives up.

    An entry that an interrupted run left to be deleted may have the URN of the one that stays.
    """
    ending = (step.get("oldState") for step in preview.get("steps") or () if step["op"] in _ENDING)
    return frozenset(
        (str(old["urn"]), str(_name({**_inputs(old), **(old.get("outputs") or {})})))
        for old in ending
        if old and is_bucket(Urn.parse(old["urn"]).kind)
    )


_ENDING = ("delete", "delete-replaced", "replace", "create-replacement")


def _sources(new: Mapping[str, Any]) -> list[str]:
    """The URNs of the resources that the inputs of a resource are made of."""
    by_input: Mapping[str, list[str] | None] = new.get("propertyDependencies") or {}
    return sorted({urn for urns in by_input.values() for urn in urns or ()})


def _is_kept_bucket(step: Mapping[str, Any]) -> bool:
    return (
        step["op"] in ("create", "same", "update", "import")
        and is_bucket(Urn.parse(step["urn"]).kind)
        and step["newState"]
    )


def combined(of_stores: Iterable[Change], steps: Iterable[Change], allow: Collection[str] = ()) -> tuple[Change, ...]:
    """Changes of the stores, then steps of the preview. A danger that both have is listed once, of the store.

    Args:
        allow: says which buckets take their media along, which the engine does not show.
    """
    first = tuple(of_stores)
    known = {(change.store, danger.word) for change in first for danger in change.dangers}
    return first + tuple(
        replace(
            change,
            details=(*change.details, *_of_media(change, allow)),
            dangers=tuple(one for one in change.dangers if (change.store, one.word) not in known),
        )
        for change in steps
    )


def _of_media(change: Change, allow: Collection[str]) -> Iterator[str]:
    goes = is_bucket(change.kind) and change.verb in ("delete", "replace")
    if goes and deletes_media(words_of(change.store, allow)):
        yield f"with all media in it, as {entry(change.store, Word.DELETE_MEDIA)} says"


def _merged(
    steps: Iterable[Mapping[str, Any]],
) -> Iterable[tuple[str, str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """(URN, verb, old state, new state, detailed diff) of what changes. A replacement is three steps of one URN, which
    have the states between them, in an order that depends on what is deleted first."""
    by_urn: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        kind = Urn.parse(step["urn"]).kind
        if step["op"] in _VERBS and not kind.startswith("pulumi:") and not is_component(kind):
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
        if entry(change.store, danger.word) not in allowed
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the text form. `kind` is the change's verb in its first line, or detail, danger, note, none."""

    text: str
    kind: str


def lines(changes: Iterable[Change], warnings: Iterable[str] = ()) -> tuple[Line, ...]:
    """The text form: one paragraph a change, dangers marked, warnings last; without a change, "no changes" first."""
    found = []
    for change in changes:
        found.append(Line(str(change), change.verb))
        found += [Line(f"    {detail}", "detail") for detail in change.details]
        found += [Line(f"    DANGER: {danger.why}", "danger") for danger in change.dangers]
    notes = [Line(f"note: {warning}", "note") for warning in warnings]
    return (*(found or [Line("no changes", "none")]), *notes)


def in_words(changes: Iterable[Change], warnings: Iterable[str] = ()) -> str:
    """The text form as one text."""
    return "\n".join(line.text for line in lines(changes, warnings))


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
    inputs: Mapping[str, Any] = _plain(state.get("inputs") or {})
    return inputs


def _wanted(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs after a step; a bucket that became a fully managed one by own-bucket counts as not adopted.

    The stack file may have adopt: true for it still, since that says whose plugin has it.
    """
    inputs = _inputs(new)
    owned = inputs.get("adopt") is True and (old.get("outputs") or {}).get("adopted") is False
    return {**inputs, "adopt": False} if owned else inputs


def _found(state: Mapping[str, Any], detailed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs as they are at the store, as far as the state knows.

    Our plugin writes what a refresh found into the inputs. A vendor's writes it into the outputs alone, and says of
    what differs that it is no difference of inputs.
    """
    outputs = _plain(state.get("outputs") or {})
    names = {_top(path) for path, kind in detailed.items() if not (kind or {}).get("inputDiff")}
    return {**_held(state), **{name: outputs[name] for name in names if name in outputs}}


def _held(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs of what is in the state; of a key ring the slots that have a key, since one may be half made."""
    inputs, keys = _inputs(state), (state.get("outputs") or {}).get("keys")
    return {**inputs, "slots": sorted(keys)} if "slots" in inputs and isinstance(keys, Mapping) else inputs


def _plain(value: Any) -> Any:
    """Without what a vendor's plugin notes for itself, such as `__defaults`."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items() if not name.startswith("__")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


_NOT_SHOWN = frozenset({"tagsAll"})
"""Outputs that follow from inputs which are shown."""
_DOCUMENTS = ("policy", "assumeRolePolicy")
_PART = re.compile(r"""\[(\d+)\]|\.?\["((?:[^"\\]|\\.)*)"\]|\.?([^.\[\]]+)""")
"""A step of a path in a detailed diff: rules[0].expiration, tags["a.b"], or tags.["a.b"]."""


def _top(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _at(values: Any, path: str) -> Any:
    """The value at a path of a detailed diff; None where there is none."""
    for index, quoted, name in _PART.findall(path):
        if index:
            values = values[int(index)] if isinstance(values, list) and int(index) < len(values) else None
        else:
            values = values.get(quoted or name) if isinstance(values, Mapping) else None
    return values


def _changed(path: str, was: Any, will: Any) -> Iterator[str]:
    """An input before and after; of an object with several entries those that differ."""
    entries: Mapping[str, tuple[str, str]] = {}
    if isinstance(was, Mapping) and isinstance(will, Mapping) and was and will:
        both = {name: (_shown(was.get(name)), _shown(will.get(name))) for name in sorted({*was, *will})}
        entries = {name: shown for name, shown in both.items() if shown[0] != shown[1]}
    for name, (before, after) in entries.items():
        yield f"{path}.{name}: {before} -> {after}"
    if not entries:
        yield f"{path}: {_shown(was)} -> {_shown(will)}"


def _shown(value: Any) -> str:
    if value == UNKNOWN_ON_WIRE:
        return "what is known later"
    value = _without_nothing(value)
    return "nothing" if value in (None, "", [], {}) else json.dumps(value, sort_keys=True)


def _without_nothing(value: Any) -> Any:
    """Without what says nothing inside of an object: a vendor's outputs name every setting there could be."""
    if isinstance(value, Mapping):
        kept = {name: _without_nothing(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in (None, "", [], {})}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value


def _details(
    verb: str, kind: str, old: Mapping[str, Any], new: Mapping[str, Any], detailed: Mapping[str, Any]
) -> Iterable[str]:
    before, after = _found(old, detailed), _inputs(new)
    name = (
        after.get("bucket")
        or after.get("userName")
        or before.get("bucket")
        or before.get("userName")
        or after.get("name")
    )
    if verb in ("create", "delete") and isinstance(name, str) and name != UNKNOWN_ON_WIRE:
        yield f"name: {name}"
    yield from _place_of_new(kind, after) if verb == "create" else ()
    shown = set()
    for document in _DOCUMENTS:
        was, will = statements(before.get(document)), statements(after.get(document))
        if was != will:
            shown.add(document)
        yield from (f"- {line}" for line in was if line not in will)
        yield from (f"+ {line}" for line in will if line not in was)
    if verb == "update" and is_bucket(kind) and (old.get("outputs") or {}).get("adopted"):
        yield "it is adopted: only settings that `allow` permits are changed"
    if verb in ("update", "replace"):
        # Of our own resources each input is shown as a whole; of a vendor's each path in it.
        paths = {_top(path) if kind_.get("inputDiff") else path for path, kind_ in detailed.items()}
        for path in sorted(path for path in paths if _top(path) not in {*shown, *_NOT_SHOWN}):
            if path == "orphanUntil":
                yield "looks for a key that an interrupted run asked for, and that the store may still make"
            elif _top(path) not in ("secretAccessKey", "secrets", "connection"):
                yield from _changed(path, _at(before, path), _at(after, path))
            else:
                yield f"{path} changes"
        if not detailed:
            yield from _without_detail(verb, kind, before, after)
    if kind.endswith(RING):
        was_slots, will_slots = set(before.get("slots") or ()), set(after.get("slots") or ())
        yield from (f"a key is made for slot {slot}" for slot in sorted(will_slots - was_slots))
        if verb != "create":
            yield from (f"the key of slot {slot} is retired" for slot in sorted(was_slots - will_slots))


def _place_of_new(kind: str, inputs: Mapping[str, Any]) -> Iterable[str]:
    """Where it is made, of what is made by our plugin, and whether it may be there already."""
    connection = inputs.get("connection")
    if isinstance(connection, Mapping) and kind != PROOF:
        apis = (connection.get(name) for name in ("iamEndpoint", "adminEndpoint", "apiEndpoint", "realm"))
        places = [connection.get("endpoint")] if is_bucket(kind) else [*apis, connection.get("endpoint")]
        region = connection.get("region")
        if place := next((place for place in places if place), None):
            yield f"at: {place}" + (f", region {region}" if is_bucket(kind) and region else "")
    if inputs.get("adopt"):
        yield "one that is there is taken over"


def _without_detail(verb: str, kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    """Of a change whose plugin tells no input."""
    if verb == "replace":
        yield "is made anew, as it is"
    elif kind.startswith(OURS):
        yield "finishes what an earlier run left unfinished"
    else:
        # The plugin of dynamic providers says only that something changes.
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                yield from _changed(name, before.get(name), after.get(name))


def _drift(
    verb: str,
    kind: str,
    made: Mapping[str, Any],
    found: Mapping[str, Any],
    runs: _Running,
    *,
    gone: bool,
) -> Iterable[str]:
    """What is dangerous in how a resource was found. To mend that is no danger: it is shown, with no word to ask for.

    Args:
        made: the inputs as we made it last.
        gone: for a thing that is made anew: we had made it.
    """
    if verb == "create" and gone:
        yield "found at the store: it is gone"
        if not is_bucket(kind):
            yield from (f"found at the store: {danger.why}" for danger in _dangers("delete", kind, made, {}, runs))
    elif verb in ("update", "replace"):
        for danger in _dangers("update", kind, made, found, runs):
            # That another key is made for one that is gone is shown already.
            if danger.word is not Word.RETIRE_KEY:
                yield f"found at the store: {danger.why}"


@dataclass(frozen=True, slots=True)
class _Running:
    """What a store runs on now, by its last proof.

    `objects` is what the method's objects are in a policy: the bucket, or a prefix in it; "" where it is not known.
    """

    method: str = ""
    objects: str = ""


def _running(steps: Iterable[Mapping[str, Any]], homeservers: Homeservers) -> dict[str, _Running]:
    """What each store runs on."""
    found = {}
    for step in steps:
        if Urn.parse(step["urn"]).kind == PROOF and step.get("oldState"):
            proved = _inputs(step["oldState"])
            bucket = proved.get("bucket")
            objects = f"arn:aws:s3:::{bucket}/{proved.get('prefix') or ''}*" if bucket else ""
            found[homeservers.of(step["urn"])] = _Running(str(proved.get("method", "")), objects)
    return found


def _by_components(
    steps: Iterable[Mapping[str, Any]], homeservers: Homeservers, records: Mapping[str, Applied]
) -> Iterator[Change]:
    """Of a store that a program declares, what its component alone says: the id of matrix-media-repo's datastore, and
    the place of one without a key, which has no proof."""
    for step in steps:
        kind = Urn.parse(step["urn"]).kind
        if not is_component(kind) or step["op"] == "delete":
            continue
        store, inputs = homeservers.of(step["urn"]), _inputs(step.get("newState") or {})
        was = records.get(store) or records.get(str(inputs.get(ComponentInput.RENAMED_FROM) or ""))
        if was is None or was.place is None:
            continue
        details, dangers = [], []
        before, now = was.place.datastore_id, str(inputs.get(ComponentInput.S3_DATASTORE_ID) or "")
        # The id belongs to matrix-media-repo: another method has none.
        if before and now and before != now:
            name = "media_repo.s3_datastore_id"
            details.append(f"{name}: {before} -> {now}")
            why = f"{name} {before} becomes {now}: media that is there already is looked for elsewhere, and not found"
            dangers.append(Danger(Word.MOVE_MEDIA, why))
        after = keyless_place(inputs)
        if after:
            dangers += [*_moves(_place(was, {}), after), *_another_kind(was, kind), *_another_method(was, after)]
        if dangers:
            yield Change("change", store, "store", tuple(details), tuple(dangers))


def _place(was: Applied | None, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a store's media is, named as in a proof's inputs.

    Args:
        was: its record, whatever its component was called; None where there is none.
        before: the inputs of its proof before, for a store whose run was cut off.
    """
    if was is None or was.place is None:
        return before
    place = was.place
    return {"endpointUrl": place.endpoint, "region": place.region, "bucket": place.bucket, "prefix": place.prefix}


def _another_method(was: Applied | None, after: Mapping[str, Any]) -> Iterable[Danger]:
    """Where a store gets the method matrix-media-repo, or loses it: it finds no file of the others, nor they its."""
    will = str(after.get("method") or "")
    if was is None or was.method not in METHODS or will not in METHODS:
        return
    if METHODS[was.method].datastore_ids != METHODS[will].datastore_ids:
        yield Danger(
            Word.MOVE_MEDIA,
            f"method {was.method} becomes {will}: media that is there already is looked for elsewhere, and not found",
        )


def _another_kind(was: Applied | None, now: str) -> Iterable[Danger]:
    """Where another provider's component declares a store now.

    Args:
        now: the component's type.
    """
    if was is None or was.place is None or was.place.provider not in catalog.names():
        return
    before = catalog.load(was.place.provider).component.replace("_", "")
    if short(now).lower() != before:
        yield Danger(
            Word.REPLACE_BUCKET,
            f"{was.place.provider} becomes {short(now)}: media that is there already is looked for elsewhere, and not "
            "found",
        )


def _moves(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    """Where a proof shows that a store's media is looked for elsewhere than it is."""
    for name, word in {
        "endpointUrl": Word.REPLACE_BUCKET,
        "region": Word.REPLACE_BUCKET,
        "bucket": Word.REPLACE_BUCKET,
        "prefix": Word.MOVE_MEDIA,
    }.items():
        was, will = before.get(name), after.get(name)
        if not isinstance(was, str) or not isinstance(will, str) or was in (UNKNOWN_ON_WIRE, will):
            continue
        if will != UNKNOWN_ON_WIRE:
            yield Danger(
                word,
                f"{name} {was or 'none'} becomes {will or 'none'}: media that is there already is looked for "
                "elsewhere, and not found",
            )
        elif name in ("bucket", "prefix"):
            # The others may be read from the account. A vendor's bucket of such a name is not among the steps.
            why = f"{name}, now {was or 'none'}, is known only at apply: at another, existing media is not found"
            yield Danger(word, why, unknown=True)


def _another_key(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    """Where a proof shows that the key in the environment is not the one that Synapse has.

    It may be the administrator's, for whom the variables are the same ones, and nothing at the store tells.
    """
    was, will = before.get("accessKeyId"), after.get("accessKeyId")
    if was and will and was != will:
        other = "the key that is in the environment then" if will == UNKNOWN_ON_WIRE else will
        yield Danger(
            Word.WIDEN_POLICY,
            f"Synapse's key {was} becomes {other}, as the environment has it, and what that one may do is not known: "
            "an administrator's key must not be handed to Synapse",
        )


def _dangers(
    verb: str, kind: str, before: Mapping[str, Any], after: Mapping[str, Any], runs: _Running
) -> Iterable[Danger]:
    if is_bucket(kind):
        yield from _bucket_dangers(verb, before, after)
    if kind.endswith("BucketVersioning") and "Enabled" not in json.dumps(after):
        yield Danger(
            Word.DISABLE_VERSIONING, "versioning is turned off: what is overwritten or deleted is gone at once"
        )
    if kind.endswith("BucketAcl") and after.get("acl", "private") not in ("private", before.get("acl")):
        yield Danger(Word.PUBLIC_BUCKET, f"the bucket's access list is {after['acl']}")
    if kind.endswith("BucketPublicAccessBlock") and (verb == "delete" or False in after.values()):
        yield Danger(Word.PUBLIC_BUCKET, "the public access block is taken away")
    if verb != "delete":
        for statement in sorted(_open_to_all(after.get("policy")) - _open_to_all(before.get("policy"))):
            yield Danger(Word.PUBLIC_BUCKET, f"the bucket's policy lets everybody in: {statement}")
    if verb == "update":
        yield from _lifecycle_dangers(before, after)
        yield from _trust_dangers(kind, before, after)
    if kind in _POLICIES:
        yield from _policy_dangers(verb, before, after, runs)
    if kind.endswith(RING) and verb in ("update", "replace"):
        yield from _ring_dangers(verb, before, after)
    if (
        short(kind) in _IDENTITIES
        and verb != "create"
        and UNKNOWN_ON_WIRE in (after.get("userName"), after.get("name"))
    ):
        why = f"the name, now {_name(before)}, is known only at apply: another would replace it"
        yield Danger(Word.RETIRE_KEY, why, unknown=True)
    elif short(kind) in _IDENTITIES and verb == "replace":
        yield Danger(Word.RETIRE_KEY, f"{_name(before)} would be replaced: what signs by it now can no longer")


def _ring_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    """Of a key ring that is there and changes."""
    if after.get("userName") == UNKNOWN_ON_WIRE:
        yield Danger(
            Word.RETIRE_KEY,
            f"the user's name, now {before.get('userName')}, is known only at apply: another replaces its keys",
            unknown=True,
        )
    gone = set(before.get("slots") or ()) - (set(after.get("slots") or ()) if verb == "update" else set())
    if gone:
        yield Danger(
            Word.RETIRE_KEY, f"the key of slot {', '.join(sorted(gone))} stops working: Synapse must use the other"
        )
    yield from key_rights.dangers(before, after)
    # A ring of Spaces keys looks after its bucket's access list.
    if after.get("acl") == "public":
        yield Danger(Word.PUBLIC_BUCKET, "the bucket's access list lets everybody in")


def _cuts(kind: str, before: Mapping[str, Any]) -> Iterable[Danger]:
    """What goes that Synapse may be using."""
    if kind.endswith(RING):
        slots = ", ".join(sorted(before.get("slots") or ()))
        yield Danger(Word.RETIRE_KEY, f"the keys of slot {slots} would be deleted")
    if kind in _POLICIES:
        yield Danger(Word.NARROW_POLICY, "the policy would be deleted: its key may do nothing more")
    if short(kind) in _IDENTITIES:
        yield Danger(Word.RETIRE_KEY, f"{_name(before)} would be deleted: what signs by it no longer can")


def _name(inputs: Mapping[str, Any]) -> object:
    """What a vendor's or our own plugin calls the thing."""
    return next((inputs[name] for name in ("bucket", "userName", "name") if inputs.get(name)), "what has no name")


def _on(versioning: Any) -> bool:
    """Ours is a word, the vendor's an object."""
    return versioning is True or (isinstance(versioning, Mapping) and versioning.get("enabled") is True)


def _bucket_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    name = _name(before)
    if verb in ("update", "replace") and after.get("bucket") == UNKNOWN_ON_WIRE:
        yield Danger(
            Word.REPLACE_BUCKET,
            f"the bucket's name, now {name}, is known only at apply: another would replace it",
            unknown=True,
        )
    elif verb == "replace":
        yield Danger(
            Word.REPLACE_BUCKET, f"the bucket {name} would be replaced by another: its media stays behind or is lost"
        )
    if verb == "delete":
        yield Danger(
            Word.DELETE_BUCKET,
            f"the bucket {name} would be deleted (to keep the bucket, name retain-bucket in place of it)",
        )
    if verb != "update":
        return
    if _on(before.get("versioning")) and not _on(after.get("versioning")):
        yield Danger(
            Word.DISABLE_VERSIONING, "versioning is turned off: what is overwritten or deleted is gone at once"
        )
    if before.get("publicAccessBlock") is True and after.get("publicAccessBlock") is False:
        yield Danger(Word.PUBLIC_BUCKET, "the public access block is taken away")
    if (before.get("acl") == "private" and after.get("acl") != "private") or (
        before.get("private") is True and after.get("private") is not True
    ):
        yield Danger(Word.PUBLIC_BUCKET, "the bucket's access list is no longer private")


def _lifecycle_dangers(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    """Of anything that holds lifecycle rules: a bucket, or a setting of one."""
    if after.get("adopt") is True and "lifecycle" not in (after.get("manage") or ()):
        return  # taken over: its rules stay as they are
    new = [rule for rule in _expiring(after) if rule not in _expiring(before)]
    if new:
        yield Danger(Word.SHORTEN_RETENTION, f"a lifecycle rule deletes media by age: {', '.join(new)}")
    was, will = _kept_days(before), _kept_days(after)
    if was is not None and will is not None and will < was:
        yield Danger(
            Word.SHORTEN_RETENTION,
            f"old versions are kept for {_days(will)}, no longer {_days(was)}: after that nothing brings back what was "
            "overwritten or deleted",
        )


def _days(count: float) -> str:
    return "for ever" if count == math.inf else f"{count:g} day{'' if count == 1 else 's'}"


def _rules(inputs: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The lifecycle rules in force, as the vendors' plugins have them; None for what has none."""
    listed = inputs.get("rules", inputs.get("lifecycleRules"))
    if not isinstance(listed, list):
        return None
    rules = [rule for rule in listed if isinstance(rule, Mapping)]
    # The encryption of a bucket has rules of another kind.
    return [rule for rule in rules if rule.get("status") == "Enabled" or rule.get("enabled") is True]


def _expiring(inputs: Mapping[str, Any]) -> list[str]:
    """The rules that delete media by age, in words."""
    ours = inputs.get("expiringRules")
    found = [str(name) or "one without a name" for name in (ours if isinstance(ours, list) else ())]
    for rule in _rules(inputs) or ():
        expiration = rule.get("expiration")
        if isinstance(expiration, Mapping) and (expiration.get("days") or expiration.get("date")):
            where = rule.get("prefix") or _at(rule, "filter.prefix")
            when = f"after {_days(expiration['days'])}" if expiration.get("days") else f"on {expiration['date']}"
            found.append(f"{rule.get('id')} expires {f'what is under {where}' if where else 'all media'} {when}")
    return found


def _kept_days(inputs: Mapping[str, Any]) -> float | None:
    """Days that an old version is kept; infinity for ever, None where the inputs don't say."""
    rules = _rules(inputs)
    if rules is None:
        days = inputs.get("noncurrentDays")
        return (days or math.inf) if isinstance(days, (int, float)) else None
    found = [
        days
        for rule in rules
        if isinstance(expiration := rule.get("noncurrentVersionExpiration"), Mapping)
        and isinstance(days := expiration.get("noncurrentDays", expiration.get("days")), (int, float))
    ]
    return min((days for days in found if days), default=math.inf)


def _policy_dangers(verb: str, before: Mapping[str, Any], after: Mapping[str, Any], runs: _Running) -> Iterable[Danger]:
    if verb not in ("update", "replace"):
        return
    old, new = before.get("policy"), after.get("policy")
    if new == UNKNOWN_ON_WIRE:
        yield Danger(Word.WIDEN_POLICY, "what the key may do is known only at apply", unknown=True)
        return
    was, will = _rights(old, "Allow"), _rights(new, "Allow")
    had_denied, denied = _rights(old, "Deny"), _rights(new, "Deny")
    wider = {right.action for right in (*_beyond(will, was), *_beyond(had_denied, denied))}
    if wider:
        yield Danger(Word.WIDEN_POLICY, f"the key may do more than before: {', '.join(sorted(wider))}")
    missing = _missing(runs, was, will, _beyond(denied, had_denied))
    if missing:
        yield Danger(
            Word.NARROW_POLICY,
            f"{runs.method}, which runs now, needs what the key may no longer do: {', '.join(missing)}",
        )


def _trust_dangers(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Danger]:
    """Of a role: who may take it on. Of an instance profile: which role its machines have."""
    if kind.endswith("InstanceProfile") and before.get("role") != after.get("role"):
        yield Danger(Word.RETIRE_KEY, f"machines no longer sign by the role {before.get('role')}")
    trusted = statements(before.get("assumeRolePolicy"))
    for statement in statements(after.get("assumeRolePolicy")):
        if statement not in trusted:
            yield Danger(Word.WIDEN_POLICY, f"the role may be taken on by others: {statement}")


def _missing(
    runs: _Running, was: tuple[_Right, ...], will: tuple[_Right, ...], denied: tuple[_Right, ...]
) -> list[str]:
    """Actions that the method needs and no longer has where it needs them: in the bucket, or under its prefix."""

    def grants(action: str, rights: Iterable[_Right]) -> list[_Right]:
        return [right for right in rights if _matches(action.lower(), right.action.lower())]

    missing = set()
    for operation in METHODS[runs.method].needs if runs.method in METHODS else ():
        rule = RULES[operation]
        for action in rule.actions:
            reached = [
                _Right(action, _needed(right.resource, runs.objects if rule.on == "object" else ""), right.only)
                for right in grants(action, was)
                if right.resource == "*" or ("/" in right.resource) == (rule.on == "object")
            ]
            if not grants(action, will) or _beyond(reached, will) or grants(action, denied):
                missing.add(action)
    return sorted(missing)


def _needed(resource: str, objects: str) -> str:
    """As much of what a right reached as the method's objects are."""
    return objects if objects and _matches(objects, resource) else resource


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
        "refused": sorted({entry(change.store, danger.word) for change, danger in refused}),
    }


def refusal(refused: Iterable[tuple[Change, Danger]], path: str) -> str:
    """The message of an `up` that does not go on."""
    refused = tuple(refused)
    lines = [f"{change}: {danger.why}" for change, danger in refused]
    text = "nothing was changed, because this can lose media or cut access:\n  " + "\n  ".join(lines)
    first = advice_first(danger for _, danger in refused)
    if first:
        text += f"\n{first}"
    if entries := entries_for(refused):
        text += f"\nTo have it made all the same, put {', '.join(entries)} into synapse-media:allow in {path}."
    return text


def entries_for(refused: Iterable[tuple[Change, Danger]]) -> list[str]:
    """The entries of `allow` that permit them; none for what waits for another resource."""
    return sorted({entry(change.store, danger.word) for change, danger in refused if not danger.waits_for})


def advice_first(dangers: Iterable[Danger]) -> str:
    """What to apply first, so that what the dangers wait for is known; "" where they wait for nothing."""
    urns = sorted({urn for danger in dangers for urn in danger.waits_for})
    if not urns:
        return ""
    targets = " ".join(f"--target {shlex.quote(urn)}" for urn in urns)
    return (
        "What is known only at apply follows from other resources that change. Apply those first, then run this "
        f"again, which shows what it comes to: pulumi up --stack {Urn.parse(urns[0]).stack} {targets}"
    )
