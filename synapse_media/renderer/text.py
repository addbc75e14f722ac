"""Text shared by the methods' modules: names of files and secrets, comments, headers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from synapse_media.contract import StorageOutputs
from synapse_media.homeserver import playbook
from synapse_media.methods import METHODS

from . import quoting
from .request import Instructions, Request
from .sources import Reference

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"


def host(server_name: str) -> str:
    """The server name without its port."""
    found = re.fullmatch(rf"({_LABEL}(?:\.{_LABEL})*)(?::[0-9]{{1,5}})?", server_name)
    if found is None:
        raise quoting.refuse(
            "server_name", f"is {server_name!r}, which names no host", "Use a host name such as matrix.example.com."
        )
    return found.group(1)


def domain(server_name: str) -> str:
    """What stands in user ids, where the stack file may have the playbook's host for it: matrix.example.com."""
    name = host(server_name)
    bare = name.removeprefix("matrix.")
    return bare if "." in bare else name


def inventory_host(server_name: str) -> str:
    """The host that the playbook's guide has for a server in its inventory: matrix.example.com for example.com.

    https://github.com/spantaleev/matrix-docker-ansible-deploy/blob/master/docs/configuring-playbook.md
    """
    return f"matrix.{domain(server_name)}"


def secret_variable(server_name: str) -> str:
    """The environment variable for a server's secret access key, if it is given by reference."""
    return "SYNAPSE_MEDIA_SECRET_" + re.sub(r"[^A-Z0-9]", "_", host(server_name).upper())


def lookup(server_name: str, source: Reference | None = None) -> str:
    """A YAML scalar that makes Ansible take the secret from `source`, its own environment by default, or stop."""
    found = source or Reference("env", secret_variable(server_name))
    return quoting.yaml("secret_access_key", f"{{{{ {found.lookup()} }}}}")


def vars_path(request: Request) -> str:
    return f"{playbook.host_vars(request.inventory_host)}/{playbook.VARS_FILE}"


def variables(pairs: Iterable[tuple[str, str]]) -> str:
    """Lines of a vars file from (name, YAML value)."""
    return "".join(f"{name}: {value}\n" for name, value in pairs)


def playbook_commands(tags: str) -> tuple[str, ...]:
    """The commands to run the playbook, with and without `just`."""
    return (
        f"    just run-tags {tags}",
        f"or  {playbook.command(tags)}",
    )


CONTAINER_ROLE = (
    "The role is asked for from within a container: the instance's metadata service must allow two hops "
    "(`http-put-response-hop-limit` 2)."
)


CA_IN_CONTAINER = "/synapse-media-ca.pem"


def ca_lines(store: StorageOutputs) -> tuple[str, ...]:
    """The sentences on a private certificate authority, if there is one."""
    if not store.ca_file:
        return ()
    return (f"The store's certificate is trusted with {quoting.yaml('ca_file', store.ca_file)}: copy it there.",)


def ca_path(store: StorageOutputs, where: str = "a mount of Docker") -> str:
    """The authority's file, for a place that can't be quoted."""
    allowed = "an absolute path of letters, digits and . _ / + -"
    return quoting.need("ca_file", store.ca_file, r"/[A-Za-z0-9._/+-]+", allowed, where)


def ca_arguments(store: StorageOutputs, variable: str) -> tuple[str, ...]:
    """Arguments of `docker run`, for a unit or sh, that mount the CA file into the container; none without one.

    Args:
        variable: the environment variable by which the program finds it.
    """
    if not store.ca_file:
        return ()
    return (
        f"--mount=type=bind,src={ca_path(store)},dst={CA_IN_CONTAINER},ro",
        f"--env={variable}={CA_IN_CONTAINER}",
    )


def credentials_file(store: StorageOutputs, goes: str) -> str:
    """The key as the AWS SDKs read it from a file: ~/.aws/credentials, or what AWS_SHARED_CREDENTIALS_FILE names."""
    return (
        comment(f"The key of {host(store.server_name)}'s bucket, {goes}")
        + f"[default]\naws_access_key_id = {quoting.credentials('access_key_id', store.access_key_id)}\n"
        + f"aws_secret_access_key = {quoting.credentials('secret_access_key', store.secret_access_key)}\n"
    )


HOLDS_THE_KEY = "\nThis directory has the key in it, as long as it is there: remove it, too.\n"
PROVE = "synapse-media prove --store store.json"
"""The command by which a key is tried where Synapse runs."""


def proof_lines(store: StorageOutputs) -> tuple[str, ...]:
    """The sentences on the proof; none for a method without a key."""
    if not METHODS[store.method].uses_store:
        return ()
    if store.keyless:
        return (f"There is no key: the machine's own role signs. It is to be proved on the instance: `{PROVE}` there.",)
    return ("The key was proved to do what this needs, before this was written.",)


def comment(*paragraphs: str) -> str:
    """Comment lines, wrapped at 100 columns. A paragraph that starts with a blank or `or  ` stays as it is."""
    lines: list[str] = []
    for paragraph in paragraphs:
        if not paragraph:
            lines.append("#")
        elif paragraph.startswith((" ", "or  ")):
            lines.append(f"# {paragraph}")
        else:
            lines += [
                f"# {line}"
                for line in textwrap.wrap(
                    paragraph,
                    98,
                    subsequent_indent="  " if paragraph.startswith("- ") else "",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            ]
    return "\n".join(lines) + "\n"


def header(request: Request, instructions: Instructions, *more: str) -> str:
    """The comment at the top of a rendered file."""
    return comment(
        f"Written by `synapse-media render` for {host(request.store.server_name)}; the next run writes it again.",
        "",
        "What it does on the server:",
        *(f"- {line}" for line in (*instructions.does, *ca_lines(request.store), *proof_lines(request.store))),
        "To apply:",
        *instructions.apply,
        "To undo:",
        *instructions.undo,
        *(("", *more) if more else ()),
    )
