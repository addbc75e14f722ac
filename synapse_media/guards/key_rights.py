"""What in a change of a key's rights is dangerous, where they stand beside the key and not in a policy.

The providers write them in three forms. Each is read into a set of rights, and one rule judges all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from synapse_media.allow import Word
from synapse_media.schema.model import UNKNOWN_ON_WIRE

from .danger import Danger


@dataclass(frozen=True, slots=True, order=True)
class _Right:
    """A permission on a bucket; "" for the key's one bucket, or for every bucket where the form can name buckets."""

    permission: str
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class _Form:
    """How a ring's input says what its keys may do.

    Attributes:
        input_name: the ring's input.
        is_form: whether a value of that input has this form.
        read: the rights that a value of this form gives.
        in_place: a change is one of the keys that are there; else only of those made from then on.
        covers: whether the first right gives all that the second does.
        described: a right in words.
    """

    input_name: str
    is_form: Callable[[Any], bool]
    read: Callable[[Any], Collection[_Right]]
    in_place: bool
    covers: Callable[[_Right, _Right], bool]
    described: Callable[[_Right], str]


def _names(value: Collection[Any]) -> set[_Right]:
    return {_Right(str(name)) for name in value}


def _switched_on(value: Mapping[str, Any]) -> set[_Right]:
    return {_Right(name) for name, is_on in value.items() if is_on is True}


def _granted(value: Collection[Any]) -> set[_Right]:
    return {
        _Right(str(grant.get("permission")), str(grant.get("bucket") or ""))
        for grant in value
        if isinstance(grant, Mapping)
    }


def _same(wide: _Right, narrow: _Right) -> bool:
    return wide == narrow


def _covers_grant(wide: _Right, narrow: _Right) -> bool:
    """https://docs.digitalocean.com/reference/api/reference/spaces-keys/: fullaccess is of every bucket."""
    if wide.permission == "fullaccess":
        return True
    return wide == narrow or (wide.bucket == narrow.bucket and (wide.permission, narrow.permission) == _READ_BY_WRITE)


_READ_BY_WRITE = ("readwrite", "read")


def _permission(right: _Right) -> str:
    return right.permission


def _on_bucket(right: _Right) -> str:
    return f"{right.permission} on {right.bucket or 'every bucket'}"


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


_FORMS = (
    # Backblaze B2: a key's capabilities are fixed when it is made.
    _Form("capabilities", _is_list, _names, in_place=False, covers=_same, described=_permission),
    # Storj: a grant can't be changed either.
    _Form("permissions", _is_list, _names, in_place=False, covers=_same, described=_permission),
    # Garage: {read, write, owner} of each key on the bucket.
    _Form("permissions", _is_mapping, _switched_on, in_place=True, covers=_same, described=_permission),
    # DigitalOcean Spaces: [{bucket, permission}].
    _Form("grants", _is_list, _granted, in_place=True, covers=_covers_grant, described=_on_bucket),
)


def dangers(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Danger]:
    """Of a ring whose inputs change. A form that either side lacks is not judged: the plugin fills its default in."""
    for form in _FORMS:
        old, new = before.get(form.input_name), after.get(form.input_name)
        if not form.is_form(old) or not form.read(old):
            continue
        whose = "the key" if form.in_place else "the next key"
        if new == UNKNOWN_ON_WIRE:
            yield Danger(Word.WIDEN_POLICY, f"what {whose} may do is known only at apply", unknown=True)
        elif form.is_form(new):
            was, will = form.read(old), form.read(new)
            wider = _beyond(form, will, was)
            if wider:
                yield Danger(Word.WIDEN_POLICY, f"{whose} may do more than before: {wider}")
            narrower = _beyond(form, was, will) if form.in_place else ""
            if narrower:
                yield Danger(Word.NARROW_POLICY, f"{whose} may no longer do: {narrower}")


def _beyond(form: _Form, rights: Collection[_Right], known: Collection[_Right]) -> str:
    """Those of `rights` that none of `known` covers, in words; "" for none."""
    beyond = (right for right in sorted(rights) if not any(form.covers(other, right) for other in known))
    return ", ".join(map(form.described, beyond))
