"""`synapse-media render`: what the homeserver reads, in files."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from synapse_media import renderer
from synapse_media.contract import PROOF_OBJECT, ContractError, StorageOutputs, to_json
from synapse_media.errors import UsageError
from synapse_media.renderer import writing
from synapse_media.store.clients import s3_client

from . import programs

if TYPE_CHECKING:
    from synapse_media.renderer.vault import Vault

CONTRACT = "store.json"
_VAULT = ("vault", "vault-file")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes DIR/<homeserver>/…: the files of the store's method, and store.json, which the commands "
        "on the server take with --store. All at 0600; a file that would not change is not touched."
    )
    source = parser.add_mutually_exclusive_group()
    from . import stacks

    stacks.add_stacks(source, "the stores of a stack; default: the selected one")
    stacks.add_parallel(parser)
    source.add_argument("--store", metavar="FILE", help="a store.json written by an earlier `render`")
    parser.add_argument("--server", metavar="NAME", help="this homeserver of the stack alone")
    parser.add_argument(
        "--form",
        choices=renderer.FORMS,
        default="playbook",
        help="for matrix-docker-ansible-deploy (default), for NixOS (with the storage provider module or Goofys), for "
        "Kubernetes (with the module alone), or plain for any other Synapse",
    )
    parser.add_argument(
        "--secrets",
        choices=(*renderer.SECRETS, *_VAULT),
        default="plain",
        help="plain (default); by reference: from where --secrets-from says, by default Ansible's environment, an "
        "environment file, a file of NixOS, or a Secret of Kubernetes; vault: the value encrypted with Ansible Vault; "
        "vault-file: the whole vars file",
    )
    parser.add_argument(
        "--secrets-from",
        metavar="PLACE",
        default="",
        help="with reference: env:VARIABLE, file:/PATH, sops:FILE#KEY or vault:MOUNT/PATH#KEY for the playbook, "
        "file:/PATH for plain and nixos, secret:NAME for kubernetes",
    )
    parser.add_argument("--vault-password-file", metavar="FILE", help="for the two with vault")
    parser.add_argument(
        "--media-path",
        metavar="PATH",
        default="",
        help="plain form: where Goofys mounts (nixos form too), matrix-media-repo's file datastore, or Synapse's media "
        "store with the method filesystem",
    )
    parser.add_argument(
        "--inventory",
        metavar="DIR",
        help="playbook form: the playbook's inventory directory; the host must be in it",
    )
    parser.add_argument(
        "--inventory-host",
        metavar="HOST",
        default="",
        help="playbook form: the server's name in that inventory; default: matrix. and the domain, or with --inventory "
        "the server's own name where that alone is there",
    )
    parser.add_argument("--diff", action="store_true", help="show what would change, secrets masked, and write nothing")
    parser.add_argument("--json", action="store_true", help="for programs: which files, what they do, what to do")
    parser.add_argument("--out", metavar="DIR", required=True)


def run(arguments: argparse.Namespace) -> int:
    if arguments.secrets_from and arguments.secrets != "reference":
        raise UsageError(f"--secrets-from {arguments.secrets_from} goes with --secrets reference alone")
    vault = _vault(arguments)
    selected = _select(arguments)
    if arguments.media_path:
        _refuse_media_path(arguments, selected)
    hosts = {store.server_name: _inventory_host(store, arguments) for store in selected}
    if arguments.inventory_host and len(selected) > 1:
        raise UsageError("--inventory-host names the host of one homeserver: choose it with --server")
    out = Path(arguments.out)
    files: dict[str, str] = {}
    comparable: dict[str, str] = {}
    for store in selected:
        place = renderer.host(store.server_name)
        if f"{place}/{CONTRACT}" in files:
            raise UsageError(f"two homeservers would be written to {out / place}: choose one with --server")
        for path, (text, plain) in _files(store, arguments, vault, out / place, hosts[store.server_name]).items():
            files[f"{place}/{path}"] = text
            comparable[f"{place}/{path}"] = plain
    if arguments.diff:
        shown = writing.difference(
            comparable,
            out,
            [store.secret_access_key for store in selected],
            reveal=vault.decrypt if vault else str,
        )
        print(programs.text({"difference": shown}) + "\n" if arguments.json else shown, end="")
        return 2 if shown else 0
    report = writing.write(files, out)
    if arguments.json:
        rendered = {store.server_name: _report(store, arguments, report, out) for store in selected}
        print(programs.text({"rendered": rendered}))
        return 0
    for store in selected:
        print(_in_words(store, arguments, report, files, out, host=hosts[store.server_name]))
    return 0


def _vault(arguments: argparse.Namespace) -> Vault | None:
    if arguments.secrets not in _VAULT:
        if arguments.vault_password_file:
            raise UsageError("--vault-password-file is for --secrets vault or vault-file")
        return None
    if arguments.form != "playbook":
        raise UsageError(f"--secrets {arguments.secrets} is Ansible's: it goes with --form playbook alone")
    if not arguments.vault_password_file:
        raise UsageError(f"--secrets {arguments.secrets} needs --vault-password-file FILE")
    from synapse_media.renderer.vault import Vault

    return Vault(Path(arguments.vault_password_file))


def _select(arguments: argparse.Namespace) -> list[StorageOutputs]:
    from . import stacks, stores

    loaded = [stores.load_file(arguments.store)] if arguments.store else stacks.load(arguments.stack)
    if arguments.store:
        advice = (
            "Where the stack is, run `synapse-media up --refresh --stack S` and `synapse-media render --stack S --out "
            f"DIR`, and copy the new store.json to {arguments.store}."
        )
    else:
        advice = f"Run `synapse-media up --refresh --stack {arguments.stack}`, and render again."
    for store in loaded:
        if arguments.server in (None, store.server_name):
            _ask(store, advice)
    selected = [store for store in loaded if arguments.server in (None, store.server_name)]
    if not selected:
        names = ", ".join(store.server_name for store in loaded)
        raise UsageError(f"--server {arguments.server} is not among the stores; there are: {names}")
    return selected


def _ask(store: StorageOutputs, advice: str) -> None:
    """Refuse a key that the store does not know, as after an older state was restored or in a file from before a
    rotation, and one that may not read below the prefix: it would be handed out dead.

    Args:
        advice: what to do then.
    """
    from synapse_media.store.answers import ApiError
    from synapse_media.store.clients import call

    from . import stacks, stores

    if not store.access_key_id or not store.secret_access_key:
        return
    connection, credential = stores.own_key(store)
    try:
        with stacks.waiting(f"{store.endpoint_url}: is the key accepted?"):
            s3 = s3_client(connection, credential, attempts=2)
            call(s3, "list_objects_v2", Bucket=store.bucket, Prefix=store.prefix + PROOF_OBJECT, MaxKeys=1)
            # Not there: to read it is refused all the same where reading is not allowed.
            call(s3, "get_object", Bucket=store.bucket, Key=store.prefix + PROOF_OBJECT)
    except ApiError as error:
        # To list and to read is what every method's key may do.
        if error.code == "NoSuchKey":
            return
        if error.bad_key or error.denied or error.code == "NoSuchBucket":
            raise ContractError(
                f"store {store.server_name}: nothing was rendered, because the store does not accept what would be: "
                f"{error} {advice}"
            ) from None
        stacks.say(f"{store.server_name}: the store could not be asked whether the key is accepted: {error}")


def _inventory_host(store: StorageOutputs, arguments: argparse.Namespace) -> str:
    """The host whose variables the files are; Ansible never reads those of a host that is not in its inventory."""
    if arguments.form != "playbook":
        if arguments.inventory or arguments.inventory_host:
            raise UsageError("--inventory and --inventory-host go with --form playbook alone")
        return ""
    if arguments.inventory_host:
        try:
            renderer.host(arguments.inventory_host)
        except renderer.RenderError:
            raise UsageError(
                f"--inventory-host is {arguments.inventory_host!r}, which names no host. Use the name that the "
                "inventory has, such as matrix.example.com."
            ) from None
    usual, own = renderer.inventory_host(store.server_name), renderer.host(store.server_name)
    candidates = [arguments.inventory_host] if arguments.inventory_host else [usual, own]
    if not arguments.inventory:
        return str(candidates[0])
    inventory = Path(arguments.inventory)
    if not inventory.is_dir():
        raise UsageError(f"--inventory {inventory} is not a directory. Name the `inventory` directory of the playbook.")
    found = next((host for host in candidates if _is_in(inventory, host)), None)
    if found is None:
        there = sorted(path.name for path in (inventory / "host_vars").glob("*") if path.is_dir())
        raise UsageError(
            f"{store.server_name}: --inventory {inventory} has no host {' or '.join(dict.fromkeys(candidates))}, so "
            "that Ansible would not read what is rendered for it. Under host_vars there: "
            f"{', '.join(there) or 'nothing'}. Name the host as the inventory does with --inventory-host. Ranges of "
            "hosts and inventories that are programs are not read: for those, leave out --inventory."
        )
    return str(found)


def _is_in(inventory: Path, host: str) -> bool:
    """Whether a host stands in an inventory: at the start of a line of INI or YAML in a file, or with variables."""
    if (inventory / "host_vars" / host).is_dir():
        return True
    name = re.compile(rf"^[\s\"']*{re.escape(host)}(?=[\s:\"']|$)", re.MULTILINE)
    return any(name.search(_start_of(path)) for path in inventory.iterdir() if path.is_file())


def _start_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LONGEST_INVENTORY).decode("utf-8", errors="replace")


_LONGEST_INVENTORY = 1 << 24


def _refuse_media_path(arguments: argparse.Namespace, selected: Iterable[StorageOutputs]) -> None:
    for store in selected:
        if not renderer.takes_media_path(store, arguments.form):
            raise UsageError(
                f"--media-path has no effect on the files of {store.server_name} ({store.method}, {arguments.form} "
                "form). It goes with --form plain, and with goofys (in --form nixos too), filesystem, or a "
                "matrix-media-repo that has `file_datastore_id`. Leave it out, or choose a homeserver with --server."
            )


def _files(
    store: StorageOutputs, arguments: argparse.Namespace, vault: Vault | None, place: Path, host: str
) -> dict[str, tuple[str, str]]:
    """{path: (text to write, text to compare)}: they differ where a whole file is encrypted."""
    rendered = _render(store, arguments, vault, place, host)
    files = {path: (text, text) for path, text in rendered.items()}
    if vault and arguments.secrets == "vault-file" and store.secret_access_key:
        files = {path: (vault.encrypt(text, writing.read(place / path)), text) for path, text in rendered.items()}
    # Who keeps the secret out of the files wants it in none.
    kept = store if arguments.secrets == "plain" else _without_secret(store)
    contract = json.dumps(to_json(kept), indent=2) + "\n"
    return {**files, CONTRACT: (contract, contract)}


def _without_secret(store: StorageOutputs) -> StorageOutputs:
    """The store without its secret, and without what the secret could be guessed from."""
    proof = replace(store.proof, secret_sha256="") if store.proof else None
    return replace(store, secret_access_key="", proof=proof)


def _render(
    store: StorageOutputs, arguments: argparse.Namespace, vault: Vault | None, place: Path, host: str
) -> Mapping[str, str]:
    if vault is None:
        return renderer.render(
            store,
            arguments.form,
            arguments.secrets,
            media_path=arguments.media_path,
            source=arguments.secrets_from,
            host_in_inventory=host,
        )
    if arguments.secrets == "vault-file":
        return renderer.render(store, "playbook", host_in_inventory=host)
    # The paths alone: an encrypted value is kept where a file of the same path has it already.
    found = (writing.read(place / path) for path in renderer.render(store, "playbook", host_in_inventory=host))
    existing = [vault.decrypt(text) for text in found if text is not None]
    return renderer.render(
        store, "playbook", seal=lambda _, value: vault.value(value, existing), host_in_inventory=host
    )


def _report(store: StorageOutputs, arguments: argparse.Namespace, report: writing.Report, out: Path) -> dict[str, Any]:
    place = renderer.host(store.server_name)
    instructions = _instructions(store, arguments)
    return {
        "directory": str(out / place),
        "written": [path for path in report.written if path.startswith(f"{place}/")],
        "unchanged": [path for path in report.unchanged if path.startswith(f"{place}/")],
        "does": list(instructions.does),
        "apply": list(instructions.apply),
        "undo": list(instructions.undo),
    }


def _instructions(store: StorageOutputs, arguments: argparse.Namespace) -> renderer.Instructions:
    secrets = cast("renderer.Secrets", arguments.secrets if arguments.secrets in renderer.SECRETS else "plain")
    return renderer.instructions(
        store, arguments.form, secrets, media_path=arguments.media_path, source=arguments.secrets_from
    )


def _about_the_host(arguments: argparse.Namespace, host: str) -> list[str]:
    """Where nobody looked whether the playbook has the host."""
    if arguments.form != "playbook" or arguments.inventory:
        return []
    return [
        f"  for the host {host} of the inventory; --inventory DIR looks whether it is there, --inventory-host names "
        "another"
    ]


def _in_words(
    store: StorageOutputs,
    arguments: argparse.Namespace,
    report: writing.Report,
    files: Iterable[str],
    out: Path,
    *,
    host: str,
) -> str:
    place = renderer.host(store.server_name)
    instructions = _instructions(store, arguments)
    written = sum(path.startswith(f"{place}/") for path in report.written)
    unchanged = sum(path.startswith(f"{place}/") for path in report.unchanged)
    lines = [
        f"{store.server_name}: {store.method}, {arguments.form} form, in {out / place} "
        f"({written} written, {unchanged} unchanged)",
        *(f"  {line}" for line in instructions.does),
        "To apply:",
        *(
            [f"      cp -r {shlex.quote(str(out / place / 'inventory'))} PLAYBOOK/"]
            if arguments.form == "playbook"
            else []
        ),
        *_about_the_host(arguments, host),
        *(f"  {line}" for line in instructions.apply),
        "To undo:",
        *(f"  {line}" for line in instructions.undo),
    ]
    by_default = arguments.secrets == "reference" and not arguments.secrets_from
    if by_default and arguments.form == "playbook" and store.secret_access_key:
        lines.append(f"The secret is looked up in the environment: {renderer.secret_variable(store.server_name)}")
    left = writing.others(files, out, place)
    if left:
        lines.append(f"Not of this run, and not to be used with it: {', '.join(left)}")
    return "\n".join(lines)
