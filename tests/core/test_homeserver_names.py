"""The names of the homeserver's software stand once, in `synapse_media.homeserver`."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from synapse_media import methods
from synapse_media.contract import StorageOutputs
from synapse_media.homeserver import synapse

ROOT = Path(__file__).parents[2] / "synapse_media"
LEAF = ROOT / "homeserver"
READERS = tuple(ROOT / name for name in ("renderer", "lint", "runbook", "cli", "cost", "engine"))

NAME = re.compile(
    r"\bmatrix_(?:synapse|s3|media_repo)[a-z0-9_]*"  # variables of the playbook, a database
    r"|/matrix/[\w./-]*\w"  # its paths
    r"|(?:/etc|/var/lib|/opt/venvs)/matrix-[\w./-]*\w"  # paths of packages
    r"|/etc/systemd/\w+"
    r"|\bmatrix-(?:synapse|goofys|postgres|traefik)\b(?!/)"  # units, users
    r"|[\w-]+\.(?:service|timer)\b"
    r"|inventory/\w+"
    r"|\bghcr\.io/[\w/-]+"
)
METHODS = {method.title for method in methods.METHODS.values()} | set(methods.METHODS)
"""A method may be called as the program it is named after."""


def texts(path: Path) -> Iterator[str]:
    """Every text of a module but its docstrings and links: what is written, compared or printed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield re.sub(r"https?://\S+", "", node.value)


def modules(*rooms: Path) -> Iterator[Path]:
    """But the one that is links alone."""
    return (path for at in rooms for path in sorted(at.rglob("*.py")) if path.name != "references.py")


def test_no_name_is_spelled_in_two_modules() -> None:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in modules(LEAF, *READERS):
        for text in texts(path):
            for name in set(NAME.findall(text)) - METHODS:
                # Two programs of the leaf may call a thing alike: a unit of the Debian package and of the playbook.
                found[name].add("homeserver" if path.is_relative_to(LEAF) else str(path.relative_to(ROOT)))
    assert {name: sorted(where) for name, where in found.items() if len(where) > 1} == {}
    assert len(found) > 20


def test_what_is_a_name_alone_is_spelled_in_the_leaf_alone() -> None:
    """Names of settings and options, where a text is nothing else. Those of our own contract are other names."""
    ours = {item.name for item in fields(StorageOutputs)} | set(synapse.MODULE_OPTIONS)
    leaf = {
        text
        for path in modules(LEAF)
        for text in texts(path)
        if re.fullmatch(r"[A-Za-z]+(?:[_A-Z.][A-Za-z0-9_.]*)", text) and text not in ours
    }
    assert {"media_storage_providers", "bucketName", "store_local"} <= leaf
    twice = {(text, str(path.relative_to(ROOT))) for path in modules(*READERS) for text in texts(path) if text in leaf}
    assert twice == set()
