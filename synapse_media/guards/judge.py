"""Judge a change by the store: a pure function over what was applied, what is wanted, and what `allow` names now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from synapse_media import catalog
from synapse_media.allow import Word, entry, retains_bucket, words_of
from synapse_media.methods import METHODS
from synapse_media.settings import StoreSettings
from synapse_media.urn import Urn

from .applied import Applied, Homeservers, Place
from .changes import Change
from .danger import Danger, DangerError

STORE: Final = "store"
"""The kind of a change that is of a whole store, and of no one resource."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a change means for the stores.

    Attributes:
        changes: one for each store that changes in a way that can lose media or cut access, each danger with the word
            by which `allow` lets it through.
        refused: what no word lets through, and the way out, in words.
    """

    changes: tuple[Change, ...] = ()
    refused: tuple[str, ...] = ()

    def without_declared(self, preview: Mapping[str, Any], wanted: Mapping[str, StoreSettings]) -> Verdict:
        """Without the stores that left the stack file for the program, which declares them now: the steps tell what
        becomes of them.

        Args:
            preview: what `pulumi preview --json` prints.
        """
        after = (
            step["newState"] for step in preview.get("steps") or () if step["op"] != "delete" and step.get("newState")
        )
        declared = Homeservers(one for one in after if one.get("urn")).declared
        return replace(self, changes=tuple(x for x in self.changes if x.store in wanted or x.store not in declared))

    def require(self) -> None:
        """Raise DangerError with everything that no word lets through."""
        if self.refused:
            raise DangerError("nothing was changed:\n  " + "\n  ".join(self.refused))


def judge(applied: Mapping[str, Applied], wanted: Mapping[str, StoreSettings], allow: Collection[str]) -> Verdict:
    """What it means for each store that `wanted` follows on `applied`.

    Args:
        applied: the record of each store, by homeserver (`applied.read`).
        wanted: the stack file's stores, by homeserver.
        allow: entries `<homeserver>/<word>`, as the stack file has them now.
    """
    current = renamed(applied, wanted)
    refused = [*_one_user_one_store(current, wanted), *_one_bucket_one_store(current, wanted)]
    changes = []
    for name, was in current.items():
        will = wanted.get(name)
        if was.declared and (will is None or not will.uses_store):
            # No stack file says what becomes of it: the steps of the preview do.
            continue
        words = words_of(name, allow)
        if will is None or not will.uses_store:
            details: tuple[str, ...] = (
                "it leaves the stack file" if will is None else f"method: {was.method} -> {will.method}",
            )
            dangers = tuple(_leaving(was, words))
        else:
            refused += _keys_refused(was, will)
            details = tuple(_moved_in_words(was, will))
            dangers = (*_moving(was, will, words), *_ending(was))
        if dangers:
            changes.append(Change("change", name, STORE, details, dangers))
    return Verdict(tuple(changes), tuple(refused))


def current_names(there: Collection[str], wanted: Mapping[str, StoreSettings]) -> dict[str, str]:
    """{name in the state: name now} of every store that is there: `renamed_from` names a former one.

    A store of the state is no other's new name: then `renamed_from` says what was done already, or is a mistake.
    """
    new_names = {will.renamed_from: name for name, will in wanted.items() if will.renamed_from and name not in there}
    return {name: new_names.get(name, name) for name in there}


def renamed(applied: Mapping[str, Applied], wanted: Mapping[str, StoreSettings]) -> dict[str, Applied]:
    """The records by the name that each store has in the stack file now."""
    return {now: applied[name] for name, now in current_names(applied, wanted).items()}


# ---- a store that leaves


def _leaving(was: Applied, words: Collection[str]) -> Iterator[Danger]:
    for bucket in was.buckets:
        yield _fate(bucket.name, words, "its store leaves the stack")
    if was.ring is not None and was.ring.keys:
        keys = ", ".join(was.ring.keys[slot] for slot in sorted(was.ring.keys))
        yield Danger(
            Word.RETIRE_KEY, f"the key {keys} would be deleted: what Synapse reads with it can no longer be read"
        )
    elif was.user and was.policies:
        yield Danger(Word.RETIRE_KEY, f"{was.user} would be deleted: what signs by it can no longer")
    if was.policies:
        yield Danger(Word.NARROW_POLICY, f"the policy of {was.user} would be deleted")


def _fate(bucket: str, words: Collection[str], why: str) -> Danger:
    if retains_bucket(words):
        return Danger(Word.RETAIN_BUCKET, f"the bucket {bucket} would be given up and left where it is: {why}")
    return Danger(
        Word.DELETE_BUCKET,
        f"the bucket {bucket} would be deleted: {why} (to keep the bucket, name retain-bucket in place of it)",
    )


def _ending(was: Applied) -> Iterator[Danger]:
    """What a run that was cut off has left to be deleted: the engine does that without a word of its own."""
    live = set(was.ring.keys.values()) if was.ring else set()
    keys = [key for key in was.ending_keys if key not in live]
    if keys:
        yield Danger(Word.RETIRE_KEY, f"the key {', '.join(keys)}, which an earlier run replaced, would be deleted now")


# ---- a store that moves


def _place(will: StoreSettings) -> Place:
    ids = will.media_repo.get("s3_datastore_id", "")
    return Place(will.provider, will.endpoint, will.region, will.bucket, will.prefix, ids)


def _differing(was: Applied, will: StoreSettings) -> dict[str, tuple[str, str]]:
    """{setting: (old, new)} of each part of the place that differs."""
    now = _place(will)
    found: dict[str, tuple[str, str]] = {}
    if was.place is not None:
        before = was.place
        for name in ("endpoint", "region", "bucket", "prefix"):
            found[name] = (getattr(before, name), getattr(now, name))
        if _family(before.provider) != _family(now.provider):
            found["provider"] = (before.provider, now.provider)
        # The id belongs to matrix-media-repo: another method has none.
        if before.datastore_id and now.datastore_id:
            found["media_repo.s3_datastore_id"] = (before.datastore_id, now.datastore_id)
        if was.method in METHODS and METHODS[was.method].datastore_ids != METHODS[will.method].datastore_ids:
            # Neither finds in a bucket what the other has put there; the module and Goofys do.
            found["method"] = (was.method, will.method)
        usual = catalog.load(will.provider).endpoint(will.region)
        if _is_looked_up(will.provider) and "provider" not in found and will.endpoint in ("", usual):
            del found["endpoint"]
        if not now.region:
            del found["region"]
    found = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    for bucket in was.buckets:
        # What is there, where a run was cut off before its outputs were noted.
        if bucket.name != now.bucket:
            found.setdefault("bucket", (bucket.name, now.bucket))
        connection = bucket.values.get("connection")
        endpoint = str(connection.get("endpoint") or "") if isinstance(connection, Mapping) else ""
        if was.place is None and now.endpoint and endpoint not in ("", now.endpoint):
            found.setdefault("endpoint", (endpoint, now.endpoint))
    return found


def _is_looked_up(provider: str) -> bool:
    """Whether the endpoint is read from the account or the key, so that the stack file need not have it."""
    known = catalog.load(provider) if provider in catalog.names() else None
    return known is not None and bool(known.value("endpoint_from_account") or known.value("endpoint_from_key"))


def _family(provider: str) -> str:
    """Presets of one family are one way to a store: `minio` and `s3_compatible` may name the same one."""
    return catalog.load(provider).component if provider in catalog.names() else provider


def identity(was: Applied, will: StoreSettings) -> dict[str, tuple[str, str]]:
    """{setting: (old, new)} of what the store knows the key's user by."""
    found: dict[str, tuple[str, str]] = {}
    if was.user and was.user != will.user and (was.iam_endpoint or (was.policies and will.iam_endpoint)):
        found["user"] = (was.user, will.user)
    if was.iam_endpoint != will.iam_endpoint and was.ring is not None and (was.iam_endpoint or will.iam_endpoint):
        found["iam_endpoint"] = (was.iam_endpoint, will.iam_endpoint)
    if was.ring is not None:
        for setting, key in _CONNECTIONS.items():
            before, now = str(was.ring.connection.get(key) or ""), str(will.options.get(setting, ""))
            if before and now and before.rstrip("/") != now.rstrip("/"):
                found[setting] = (before, now)
    return found


_CONNECTIONS = {
    "admin_endpoint": "adminEndpoint",
    "api_endpoint": "apiEndpoint",
    "auth_endpoint": "authEndpoint",
    "realm": "realm",
}
"""A provider's own settings of where its keys are made, and what the plugin's inputs call them."""


def _moved_in_words(was: Applied, will: StoreSettings) -> Iterator[str]:
    for name, (before, now) in {**_differing(was, will), **identity(was, will)}.items():
        yield f"{name}: {before or 'nothing'} -> {now or 'nothing'}"


def _moving(was: Applied, will: StoreSettings, words: Collection[str]) -> Iterator[Danger]:
    differing, keys_elsewhere = _differing(was, will), identity(was, will)
    elsewhere = [name for name in ("provider", "endpoint", "region", "bucket") if name in differing]
    if elsewhere:
        left = sorted({bucket.name for bucket in was.buckets} - {will.bucket})
        if elsewhere == ["bucket"] and was.place is not None and was.place.bucket == will.bucket:
            why = (
                f"an earlier run that was cut off was to move the store to {', '.join(left)}, and this goes back to "
                f"{will.bucket}, where Synapse's media is: what was put into {', '.join(left)} is not found there"
            )
        else:
            why = f"another {' and '.join(elsewhere)} is another place: the media in {_where(was)} is not found there"
        yield Danger(Word.REPLACE_BUCKET, why)
        for bucket in was.buckets:
            # At the same endpoint, what manages the bucket changes and the bucket stays.
            made_anew = "provider" in differing or ("region" in differing and bucket.by_vendor)
            if bucket.name != will.bucket or (made_anew and "endpoint" in differing):
                yield _fate(bucket.name, words, "another takes its place")
    for name in ("prefix", "media_repo.s3_datastore_id", "method"):
        if name in differing:
            before, now = differing[name]
            yield Danger(
                Word.MOVE_MEDIA,
                f"{name} {before or 'without one'} becomes {now or 'none'}: media that is there already is looked for "
                "elsewhere, and not found",
            )
    cut = [name for name in ("provider", "endpoint", "region") if name in differing and was.ring is not None]
    if (keys_elsewhere or cut) and (was.ring is None or was.ring.keys):
        keys = ", ".join(sorted(was.ring.keys.values())) if was.ring else was.user
        yield Danger(
            Word.RETIRE_KEY,
            f"another {' and '.join([*cut, *keys_elsewhere])}: {keys} is not managed here any more. Where it is not "
            "deleted by this, delete it at its old place once Synapse uses the new key",
        )


def _where(was: Applied) -> str:
    if was.place is not None:
        return f"{was.place.bucket} at {was.place.endpoint or was.place.provider}"
    return ", ".join(bucket.name for bucket in was.buckets)


# ---- what no word lets through


def _keys_refused(was: Applied, will: StoreSettings) -> Iterator[str]:
    """A key that was retired, or is being retired, never becomes the active one again."""
    ring, keys = was.ring, will.keys
    if ring is None or not ring.active or will.options.get("existing_key"):
        return
    if retiring := was.retiring_key(keys.active):
        yield (
            f"stores.{will.server_name}.keys makes slot {keys.active} active, whose key {retiring} is "
            f"being retired: a key that was replaced is not used again. Set keys: {_line(ring.active, ring.retiring)}, "
            f"as it is, and go on with `synapse-media rotate --stack {Urn.parse(ring.urn).stack} --server "
            f"{will.server_name} --finish --confirm`; after that `rotate` makes a new key."
        )
    missing = [slot for slot in keys.retiring if slot not in ring.keys and keys.active in ring.keys]
    if missing:
        yield (
            f"stores.{will.server_name}.keys retires slot {', '.join(missing)}, which has no key (any more). Set keys: "
            f"{_line(keys.active, sorted(set(keys.retiring) - set(missing)))}; `synapse-media rotate` makes a new key."
        )


def _line(active: str, retiring: Collection[str]) -> str:
    return f"{{active: {active}, retiring: [{', '.join(retiring)}]}}"


def _one_user_one_store(current: Mapping[str, Applied], wanted: Mapping[str, StoreSettings]) -> Iterator[str]:
    """A user belongs to one store: two would overwrite its policy and delete each other's key."""
    owners = {(was.iam_endpoint, was.user): name for name, was in current.items() if was.iam_endpoint and was.user}
    for name, will in wanted.items():
        if not will.uses_store or not will.iam_endpoint:
            continue
        owner = owners.get((will.iam_endpoint, will.user), name)
        if owner != name:
            yield (
                f"stores.{name}.user is {will.user!r}, the user of {owner}. {_rename(name, owner, wanted)}Otherwise "
                "choose a user of its own."
            )


def _one_bucket_one_store(current: Mapping[str, Applied], wanted: Mapping[str, StoreSettings]) -> Iterator[str]:
    """A bucket belongs to one store: what deletes the one would delete the other's media."""

    def of(provider: str, endpoint: str, bucket: str) -> tuple[str, str, str]:
        return _family(provider), "" if _is_looked_up(provider) else endpoint, bucket

    owners = {
        of(was.provider, was.place.endpoint, was.place.bucket): name for name, was in current.items() if was.place
    }
    for name, will in wanted.items():
        owner = owners.get(of(will.provider, will.endpoint, will.bucket), name)
        if will.uses_store and owner != name:
            yield (
                f"stores.{name}.bucket is {will.bucket!r}, the bucket of {owner}. {_rename(name, owner, wanted)}"
                f"Otherwise give it up first: put {entry(owner, Word.RETAIN_BUCKET)} into allow, remove {owner} and "
                f"run `up`; then take the mark of {owner} off the bucket (docs/adopt.md), and add {name} with "
                "adopt: true."
            )


def _rename(name: str, owner: str, wanted: Mapping[str, StoreSettings]) -> str:
    if owner in wanted:
        return ""
    return f"If the homeserver {owner} is now called {name}, set renamed_from: {owner} for it. "
