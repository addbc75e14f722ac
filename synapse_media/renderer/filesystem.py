"""The files for the local filesystem, Synapse's default, which needs no store."""

from __future__ import annotations

from synapse_media.homeserver import playbook, synapse

from . import quoting
from .request import Form, Instructions, Request
from .text import comment, header, host, playbook_commands, vars_path

_COPY_FIRST = "Copy media back from the bucket first: afterwards Synapse finds only what is in the local directory."


def instructions(request: Request, form: Form) -> Instructions:
    named = request.media_path and form == "plain"
    place = quoting.yaml("media_path", request.media_path) if named else f"its {synapse.MEDIA_STORE_PATH}"
    does = (f"Synapse keeps its media in a local directory, {place}, as it does from the start.", _COPY_FIRST)
    if form == "playbook":
        return Instructions(
            does=does,
            apply=playbook_commands("setup-all,start"),
            undo=("Render the former method, put its file here and run the same command.",),
        )
    return Instructions(
        does=does,
        apply=("Remove what INSTALL.md names and restart Synapse.",),
        undo=("Put the files of the former method back and restart Synapse.",),
    )


def playbook_files(request: Request) -> dict[str, str]:
    names = (
        f"{playbook.MODULE}*",
        playbook.MODULE_CONTAINER_ARGUMENTS,
        playbook.PROVIDERS_CUSTOM,
        f"{playbook.GOOFYS}*",
        f"{playbook.MEDIA_REPO}*",
    )
    return {
        vars_path(request): comment(
            f"Written by `synapse-media render` for {host(request.store.server_name)}; the next run writes it again.",
            "",
            *(f"- {line}" for line in instructions(request, "playbook").does),
            "Remove from vars.yml and every other file of this directory the lines that begin with:",
            *(f"    {name}" for name in names),
            "then run:",
            *playbook_commands("setup-all,start"),
            "To undo:",
            *instructions(request, "playbook").undo,
        )
        + "---\n{}\n"
    }


def plain_files(request: Request) -> dict[str, str]:
    what = instructions(request, "plain")
    setting = synapse.MEDIA_STORE_PATH
    files = {
        "INSTALL.md": f"""# {host(request.store.server_name)}: media on the local filesystem

{" ".join(what.does)}

1. Stop Synapse and copy the media back to the directory that `{setting}` in homeserver.yaml names.
2. Remove, from homeserver.yaml and from conf.d:

   - `{synapse.PROVIDERS}` and `{synapse.BACKUP_PATH}`
   - `{synapse.ENABLE_MEDIA_REPO}: false`
   - `{synapse.ENABLE_LOCAL_STORAGE}: false`
   - a `{setting}` that names a mount of a bucket

3. Remove the units and drop-ins of a mount, and the routes to matrix-media-repo from the proxy.
4. Start Synapse.

`{setting}` is the one setting there is: the directory for all media, owned by Synapse's user. Its default is
`media_store` in the directory Synapse runs in; Debian's package has {synapse.MEDIA_STORE}.

## Undo

{" ".join(what.undo)}
"""
    }
    if request.media_path:
        files[synapse.DROP_IN] = (
            header(request, what) + f"{synapse.MEDIA_STORE_PATH}: {quoting.yaml('media_path', request.media_path)}\n"
        )
    return files
