"""The table of the vendors' resources, row by row: the real engine previews states in which one value is other.

The verdict is the plugin's and the engine's, with the options that our components set: that of the stand-in, and of the
vendor's own plugin where it is on this machine. The danger is judged in the other direction: from the program's value
to the other.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from synapse_media import __version__
from synapse_media.engine.obtain import Toolchain
from synapse_media.guards import changes
from tests.doubles import aws_plugin, digitalocean_plugin, vendor_plugin
from tests.providers import vendor_table
from tests.providers.vendor_table import BUCKET, LOGGING, ROLE, ROWS, SPACE, STATE, VERSIONING, Row
from tests.upgrades.record import HERE, NAME, PASSPHRASE
from tests.upgrades.test_upgrades import restored

PARENTS = {BUCKET: "bucket", ROLE: "name"}
"""Inputs on which other resources hang: changed alone."""
STORES = {"aws": ("module.example.com", "role.example.com"), "digitalocean": ("module.example.com",)}
CLASSES = {
    kind.pulumi_type: kind
    for module in (aws_plugin, digitalocean_plugin)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, vendor_plugin.Vendor) and hasattr(kind, "pulumi_type")
}


def _record(vendor: str) -> dict[str, Any]:
    name = {"aws": "amazon_s3", "digitalocean": "digitalocean_spaces"}[vendor]
    found: dict[str, Any] = json.loads((HERE / __version__ / f"{name}.json").read_text(encoding="utf-8"))
    if vendor == "aws":
        _log_access(found)
    return found


def _log_access(record: dict[str, Any]) -> None:
    """Have one store of a record log its accesses; it was recorded without."""
    stack, resources = yaml.safe_load(record["stack_file"]), record["state"]["deployment"]["resources"]
    stack["config"]["synapse-media:stores"]["module.example.com"]["log_bucket"] = "logs"
    record["stack_file"] = yaml.safe_dump(stack, sort_keys=False)
    at = next(i for i, item in enumerate(resources) if item["type"] == VERSIONING and "module." in item["urn"])
    made = copy.deepcopy(resources[at])
    inputs = {"bucket": made["inputs"]["bucket"], "targetBucket": "logs", "targetPrefix": "recorded-module/"}
    made |= {"type": LOGGING, "urn": made["urn"].replace(VERSIONING, LOGGING), "inputs": inputs, "outputs": inputs}
    resources.insert(at + 1, made)


def _rounds(rows: Iterable[Row]) -> list[list[Row]]:
    """One input of each resource at a time; what others hang on first, and alone."""
    listed = list(rows)
    rounds: list[list[Row]] = [[row for row in listed if PARENTS.get(row.kind) == row.name]]
    for row in listed:
        if row not in rounds[0]:
            free = (one for one in rounds[1:] if row.kind not in {other.kind for other in one})
            (next(free, None) or rounds.append([]) or rounds[-1]).append(row)
    return [one for one in rounds if one]


def _with(record: dict[str, Any], rows: Iterable[Row], stores: tuple[str, ...]) -> dict[str, Any]:
    """The record, the input of each row other in the state of one resource."""
    changed = copy.deepcopy(record)
    for row in rows:
        item = next(
            item
            for item in changed["state"]["deployment"]["resources"]
            if item["type"] == row.kind and item["urn"].endswith(stores)
        )
        for part in ("inputs", "outputs"):
            item[part] = {**item[part], row.name: row.other(item[part][row.name])}
    return changed


def _reversed(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step from what it leads to, back to where it began."""
    old, new = step["oldState"], step["newState"]
    return {
        **step,
        "oldState": {**old, "inputs": new["inputs"], "outputs": new["inputs"]},
        "newState": {**new, "inputs": old["inputs"]},
    }


@pytest.fixture(params=["the stand-in", "the vendor's own"])
def plugin(request: pytest.FixtureRequest, vendor: str) -> Iterator[None]:
    """One of the two where the engine looks."""
    if request.param == "the stand-in":
        vendor_plugin.install()
    else:
        own = vendor_plugin.own_plugin(vendor)
        if own is None:
            pytest.skip(f"no pulumi-resource-{vendor} on PATH or in PULUMI_HOME: only its stand-in was tried")
        vendor_plugin.install({vendor: own})
    yield
    vendor_plugin.install()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("vendor", "rows"),
    [
        pytest.param(vendor, rows, id=f"{vendor}-{index}")
        for vendor in STORES
        for index, rows in enumerate(_rounds(row for row in ROWS if row.kind.startswith(f"{vendor}:")))
    ],
)
def test_what_a_change_of_an_input_does(
    vendor: str, rows: list[Row], tmp_path: Path, engine_toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    preview = restored(tmp_path, _with(_record(vendor), rows, STORES[vendor])).engine.preview(NAME)
    steps = {step["urn"].split("::")[2].rpartition("$")[2]: step for step in preview["steps"] if step["op"] != "same"}
    proofs = [step for step in preview["steps"] if step["urn"].split("::")[2].endswith(":Proof")]
    for row in rows:
        what = f"{row.kind} {row.name}"
        assert (row.name in CLASSES[row.kind].replace_on) == (row.vendor == vendor_table.REPLACED), what
        if row.here == vendor_table.IGNORED:
            assert row.kind not in steps, what
            continue
        own = [step for step in preview["steps"] if step["urn"] == steps[row.kind]["urn"]]
        (change,) = changes.of_preview({"steps": own})
        assert change.verb == row.verb, what
        assert any(line.startswith(row.name) for line in change.details) or row.name in ("policy", "assumeRolePolicy")
        back = [_reversed(step) for step in own if step.get("oldState") and step.get("newState")]
        # The proofs tell whose the resource is; they may change themselves, by what a release expects of a key.
        found = changes.of_preview({"steps": [*proofs, *back]})
        (change,) = (one for one in found if one.kind != "Proof")
        assert {danger.word for danger in change.dangers} - {"narrow-policy"} == ({row.word} if row.word else set()), (
            what
        )


def test_every_input_that_we_set_has_a_row() -> None:
    for vendor, stores in STORES.items():
        for item in _record(vendor)["state"]["deployment"]["resources"]:
            if item["type"].startswith(f"{vendor}:") and item["urn"].endswith(stores):
                missing = set(item["inputs"]) - {row.name for row in ROWS if row.kind == item["type"]}
                assert missing == set(), item["type"]
    assert {row.kind for row in ROWS} == set(CLASSES)


def test_a_region_that_spaces_has_not_is_refused() -> None:
    inputs = {"name": "media", "region": "nowhere", "acl": "private"}
    _, failures = CLASSES[SPACE]().check(inputs)
    assert "one of" in failures["region"]


def test_what_is_written_into_the_state_alone_says_so() -> None:
    assert {(row.kind, row.name) for row in ROWS if row.vendor == STATE} == {
        (BUCKET, "forceDestroy"),
        (vendor_table.USER, "forceDestroy"),
        (SPACE, "forceDestroy"),
        (SPACE, "name"),
    }


def test_the_page_has_this_table() -> None:
    text = vendor_table.PAGE.read_text(encoding="utf-8")
    assert vendor_table.page(text) == text, "run `python -m tests.providers.vendor_table`"
