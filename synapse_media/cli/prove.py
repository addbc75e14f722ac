"""`synapse-media prove`: try a key again, from wherever this runs. On the server it needs nothing but the file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from synapse_media import catalog, contract
from synapse_media.methods import METHODS, expectations

from . import programs, stacks, terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tries every operation with the issued key. `--store FILE` needs no Pulumi and no passphrase: run "
        "it on the server, with the store.json that `render` left there. It writes an object of its own, "
        "and deletes it where the key may; where not, 1 KiB stays (and 9 MiB as an old version, where versions are "
        "kept) until a later proof of `up`."
    )
    source = parser.add_mutually_exclusive_group()
    stacks.add_stacks(source, "the stores of a stack; default: the selected one")
    stacks.add_parallel(parser)
    source.add_argument("--store", metavar="FILE", help="a store.json written by `render`")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    from . import stores

    loaded = [stores.load_file(arguments.store)] if arguments.store else stacks.load(arguments.stack)
    failed = False
    report = {}
    proofs = {}
    for store in loaded:
        lines = prove(store) if METHODS[store.method].uses_store else ()
        from synapse_media.store.probes import advice

        failed = failed or any(line.failed for line in lines)
        proofs[store.server_name] = lines
        report[store.server_name] = {
            "passed": not any(line.failed for line in lines),
            "lines": [contract.line_to_json(line) for line in lines],
            "advice": advice(lines),
        }
    print(programs.text({"proofs": report}) if arguments.json else _in_words(report, proofs))
    return 1 if failed else 0


def prove(store: contract.StorageOutputs) -> tuple[contract.ProofLine, ...]:
    """Prove a store with nothing but its outputs: without an admin, so without a decoy bucket."""
    from synapse_media.store.probes import prove as try_all

    from .stores import own_key

    connection, credential = own_key(store)
    provider = catalog.load(store.provider)
    expected = expectations(
        METHODS[store.method],
        "full" if store.access == "full" else "least",
        store.cannot_refuse,
        bucket_policies=provider.can("bucket_policy") is not False,
    )
    settle = float(provider.value("key_settle_seconds", 0)) if store.keyless else 0
    with stacks.waiting(f"{store.endpoint_url}, each operation in turn"):
        return try_all(connection, credential, store.bucket, store.prefix, expected, settle_seconds=settle)


def _in_words(report: dict[str, Any], proofs: Mapping[str, Sequence[contract.ProofLine]]) -> str:
    words = []
    for name, result in report.items():
        words.append(f"{name}: {'passed' if result['passed'] else 'FAILED'}")
        if terminal.shows_colour(sys.stdout) and proofs[name]:
            words.append(terminal.proof(proofs[name]))
        else:
            words += [
                f"  {line.operation:<18} expected {line.expected}, was {line.outcome}"
                + (f"  ({line.detail})" if line.detail else "")
                for line in proofs[name]
            ]
        if result["advice"]:
            words.append(result["advice"])
    return "\n".join(words)
