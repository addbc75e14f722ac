"""What must hold after any `up`: random stacks, random edits of them, and random words of `allow`, on the real store.

EXAMPLES=50 in the environment tries so many stacks; STEPS=6, so many edits of each, one after the other.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, note
from hypothesis import settings as trials
from hypothesis import strategies as st

from synapse_media import contract
from synapse_media.allow import Word
from synapse_media.engine.embedded import Running
from synapse_media.guards import applied
from tests.accounts import user_names
from tests.doubles.proxy import in_front_of
from tests.life.life import Life
from tests.providers.project import stack

NAMES = ("a.example.com", "b.example.com", "c.example.com", "d.example.com")
METHODS = ("synapse-s3-storage-provider", "goofys", "matrix-media-repo", "filesystem")
KEEP = tuple(word for word in Word if word not in ("delete-media", "delete-bucket"))
CUTS = frozenset({"retire-key", "narrow-policy"})
number = itertools.count()

Stores = dict[str, dict[str, Any]]


@dataclass
class Town:
    """One stack, and what it is made of; every bucket and every user of it begins with `slug`."""

    life: Life
    slug: str
    routes: list[dict[str, str]]
    media: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def settings(self, which: int, method: str = METHODS[0]) -> dict[str, Any]:
        return {**self.life.settings(method=method), "bucket": self.bucket(which), "user": self.user(which)}

    def bucket(self, which: int) -> str:
        return f"{self.slug}-bucket-{which}"

    def user(self, which: int) -> str:
        return f"{self.slug}-user-{which}"

    def write(self, stores: Stores, allow: list[str]) -> None:
        """The stack file, whether or not it is right."""
        old = yaml.safe_load(self.life.stack.path.read_text())
        wanted = {"disk.example.com": {"method": "filesystem"}, **stores}
        old["config"] = {"synapse-media:stores": wanted, "synapse-media:allow": allow}
        self.life.stack.path.write_text(yaml.safe_dump(old, sort_keys=False))

    def put_media(self) -> None:
        for bucket in set(self.buckets()) - set(self.media):
            self.media[bucket] = {}
            for key in ("local_content/photo", "media/local_content/photo"):
                self.media[bucket][key] = f"{key} in {bucket}".encode()
                self.life.s3.put_object(Bucket=bucket, Key=key, Body=self.media[bucket][key])

    # ---- what is at the store

    def buckets(self) -> list[str]:
        names = sorted(one["Name"] for one in self.life.s3.list_buckets()["Buckets"])
        return [name for name in names if name.startswith(self.slug)]

    def objects(self, bucket: str) -> dict[str, bytes]:
        s3 = self.life.s3
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {one["Key"]: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}

    def keys(self) -> dict[str, list[str]]:
        iam = self.life.iam
        names = [name for name in user_names(iam) if name.startswith(self.slug)]
        return {
            name: sorted(key["AccessKeyId"] for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"])
            for name in sorted(names)
        }

    def look(self) -> dict[str, Any]:
        """All that a refused `up` must leave as it is."""
        s3, iam, keys = self.life.s3, self.life.iam, self.keys()
        return {
            "objects": {bucket: self.objects(bucket) for bucket in self.buckets()},
            "marks": {bucket: _tags(s3, bucket) for bucket in self.buckets()},
            "rules": {bucket: _rules(s3, bucket) for bucket in self.buckets()},
            "keys": keys,
            "policies": {
                user: {
                    name: iam.get_user_policy(UserName=user, PolicyName=name)["PolicyDocument"]
                    for name in iam.list_user_policies(UserName=user)["PolicyNames"]
                }
                for user in keys
            },
        }

    def records(self) -> dict[str, applied.Applied]:
        return applied.read(self.life.stack.engine.export(self.life.stack.name))

    def known(self) -> set[str]:
        """The keys in the state, of a ring too that another one replaced and that is to be deleted yet."""
        resources = self.life.stack.engine.export(self.life.stack.name)["deployment"].get("resources") or []
        rings = [one["outputs"]["keys"] for one in resources if one["type"].endswith("KeyRing") and one.get("outputs")]
        return {key["accessKeyId"] for ring in rings for key in ring.values()}

    def held(self) -> dict[str, Mapping[str, Any]]:
        """The outputs of every store: what `render` hands out."""
        found = contract.of_stack(self.life.stack.engine.outputs(self.life.stack.name))
        return {name: outputs for name, outputs in found.items() if outputs.get("access_key_id")}

    def works(self, outputs: Mapping[str, Any]) -> bool:
        client = self.life.client("s3", outputs["access_key_id"], outputs["secret_access_key"])
        try:
            client.list_objects_v2(Bucket=outputs["bucket"])
        except botocore.exceptions.ClientError as error:
            return bool(error.response["Error"]["Code"] == "NoSuchBucket")
        return True


def _tags(s3: Any, bucket: str) -> Any:
    try:
        return s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    except botocore.exceptions.ClientError:
        return []


def _rules(s3: Any, bucket: str) -> Any:
    try:
        return s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except botocore.exceptions.ClientError:
        return []


# ---- what an operator may write


@st.composite
def stacks(draw: st.DrawFn, town: Town) -> Stores:
    names = NAMES[: draw(st.sampled_from([1, 1, 2, 3]))]
    return {name: town.settings(which) for which, name in enumerate(names)}


def changed_settings(town: Town) -> dict[str, st.SearchStrategy[dict[str, Any]]]:
    """Settings that may change together, by what the change is; None takes one away."""
    datastores = [{"s3_datastore_id": name} for name in ("id-one", "id-two")]
    methods = [{"method": METHODS[0], "media_repo": None}]
    methods += [{"method": name, "media_repo": None, "prefix": None} for name in ("goofys", "filesystem")]
    methods += [{"method": "matrix-media-repo", "media_repo": ids, "prefix": None} for ids in datastores]
    rings = [(active, retiring) for active, other in ("ab", "ba") for retiring in ([], [other])]
    return {
        "bucket": st.integers(0, 4).map(lambda which: {"bucket": town.bucket(which)}),
        "user": st.integers(0, 4).map(lambda which: {"user": town.user(which)}),
        "region": st.sampled_from([{"region": name} for name in ("us-east-1", "eu-west-1")]),
        "prefix": st.sampled_from([{"prefix": name} for name in ("", "media/", "other/")]),
        "access": st.sampled_from([{"access": name} for name in ("least", "full")]),
        "method": st.sampled_from(methods),
        "keys": st.sampled_from([{"keys": {"active": active, "retiring": old}} for active, old in rings]),
        "adopt": st.booleans().map(lambda adopt: {"adopt": adopt}),
        "noncurrent_days": st.sampled_from([{"noncurrent_days": days} for days in (1, 30, 60)]),
        "endpoint": st.sampled_from(town.routes),
    }


@st.composite
def edits(draw: st.DrawFn, town: Town, before: Stores) -> Stores:
    """The stores after one or two edits."""
    stores = {name: dict(store) for name, store in before.items()}
    settings = changed_settings(town)
    kinds = st.sampled_from([*settings, "remove", "rename", "swap bucket", "swap user", "add"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=2, unique=True)):
        if not stores or kind == "add":
            new = draw(st.sampled_from([name for name in NAMES if name not in stores]))
            stores[new] = {**town.settings(draw(st.integers(0, 4))), "adopt": draw(st.booleans())}
            continue
        name = draw(st.sampled_from(sorted(stores)))
        if kind in settings:
            merged = {**stores[name], **draw(settings[kind])}
            stores[name] = {setting: value for setting, value in merged.items() if value is not None}
        elif kind == "remove":
            del stores[name]
        elif kind == "rename":
            former = {"renamed_from": name} if draw(st.booleans()) else {}
            stores[draw(st.sampled_from(NAMES))] = {**stores.pop(name), **former}
        else:
            setting = kind.removeprefix("swap ")
            one, other = stores[name], stores[draw(st.sampled_from(sorted(stores)))]
            one[setting], other[setting] = other[setting], one[setting]
    return stores


@st.composite
def leave(draw: st.DrawFn) -> list[str]:
    """What `allow` names: nothing, all but the media's deletion in one of two ways, or anything."""
    kind = draw(st.sampled_from(["keep", "keep", "delete", "some", "nothing"]))
    names = draw(st.sampled_from([NAMES, NAMES, NAMES[:1], NAMES[1:]]))
    words: list[str] = {
        "keep": list(KEEP),
        "delete": [word for word in Word if word not in ("delete-media", "retain-bucket")],
        "some": draw(st.lists(st.sampled_from(tuple(Word)), unique=True)) if kind == "some" else [],
        "nothing": [],
    }[kind]
    return [f"{name}/{word}" for name in names for word in words]


@pytest.fixture
def towns(
    embedded_store: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], Town]]:
    monkeypatch.setenv("S3_ACCESS_KEY_ID", embedded_store.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", embedded_store.secret_access_key)
    with contextlib.ExitStack() as opened:
        alias = {
            "endpoint": opened.enter_context(in_front_of(embedded_store.endpoint)).url,
            "iam_endpoint": opened.enter_context(in_front_of(embedded_store.iam_endpoint)).url,
        }

        def new() -> Town:
            slug = f"town-{next(number)}-{os.getpid()}"
            project = tmp_path / slug
            project.mkdir()
            monkeypatch.chdir(project)
            made = stack(project, slug, {})
            life = Life(made, embedded_store, f"{slug}-bucket-0", f"{slug}-user-0", capfd)
            usual = {"endpoint": embedded_store.endpoint, "iam_endpoint": embedded_store.iam_endpoint}
            return Town(life, slug, [usual, alias])

        yield new


@trials(
    max_examples=int(os.environ.get("EXAMPLES", "3")),
    deadline=None,
    # A smaller example would take as long again to find, many times over.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    derandomize="EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(st.data())
def test_after_any_up_nothing_is_lost_or_cut_that_was_not_named(towns: Callable[[], Town], data: st.DataObject) -> None:
    town = towns()
    stores = data.draw(stacks(town))
    town.write(stores, [])
    code, printed = town.life.command("up", "--yes")
    assert code == 0, printed
    town.put_media()
    for _ in range(int(os.environ.get("STEPS", "3"))):
        edited, allow = data.draw(edits(town, stores)), data.draw(leave())
        note(f"{stores} -> {edited}, allow {allow}")
        if step(town, stores, edited, allow):
            stores = edited


def step(town: Town, stores: Stores, edited: Stores, allow: list[str]) -> bool:
    """Edit the stack, run `up`, and look; whether it was made so."""
    before, held, records = town.look(), town.held(), town.records()
    town.write(edited, allow)
    code, printed = town.life.command("up", "--yes")
    note(f"exit code {code}: {printed[-2000:]}")
    after = town.look()
    assert code in (0, 1, 3), printed
    assert "Traceback" not in printed, printed
    began = "Updating (" in printed
    if not began:
        assert after == before, f"refused, and changed: {printed}"
    names = {new["renamed_from"]: name for name, new in edited.items() if new.get("renamed_from")}

    def named(store: str, *words: str) -> bool:
        return any(f"{name}/{word}" in allow for name in (store, names.get(store)) for word in words)

    owners = {bucket.name: name for name, record in records.items() for bucket in record.buckets}
    for bucket, objects in before["objects"].items():
        if after["objects"].get(bucket) != objects:
            assert bucket in owners, f"{bucket} was no store's: {printed}"
            assert named(owners[bucket], "delete-media"), f"media of {bucket}: {printed}"
    for store, outputs in held.items():
        if outputs["bucket"] in after["objects"] and not named(store, *CUTS):
            assert town.works(outputs), f"the key of {store}: {printed}"
    known = town.known()
    there = {key for keys in after["keys"].values() for key in keys}
    assert there <= known, f"keys in no state: {there - known}: {printed}"
    if code == 0:
        again, printed = town.life.command("up", "--yes")
        assert again == 0, printed
        assert "no changes" in printed, printed
        assert town.look() == after, printed
        for outputs in town.held().values():
            assert town.works(outputs)
        town.put_media()
        return True
    if began:
        # What failed can be undone.
        town.write(stores, [f"{name}/{word}" for name in {*stores, *edited} for word in KEEP])
        code, printed = town.life.command("up", "--yes")
        assert code == 0, f"undone: {printed}"
        town.put_media()
    return False
