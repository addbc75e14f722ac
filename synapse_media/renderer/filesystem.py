"""The files for the local filesystem, Synapse's default: no store, so next to nothing."""

from __future__ import annotations

from . import quoting
from .parts import Effect, Form, Request, comment, header, host, playbook_commands, vars_path

_COPY_FIRST = (
    "Copy media that lies in a bucket back first: what was uploaded or fetched to it and is not in the local "
    "directory, Synapse no longer finds."
)


def effect(request: Request, form: Form) -> Effect:
    named = request.media_path and form == "plain"
    place = quoting.yaml("media_path", request.media_path) if named else "its media_store_path"
    does = (f"Synapse keeps its media in a local directory, {place}, as it does from the start.", _COPY_FIRST)
    if form == "playbook":
        return Effect(
            does=does,
            apply=playbook_commands("setup-all,start"),
            undo=("Render the method of before, put its file here and run the same command.",),
        )
    return Effect(
        does=does,
        apply=("Remove what INSTALL.md names and restart Synapse.",),
        undo=("Put the files of the method of before back and restart Synapse.",),
    )


def playbook(request: Request) -> dict[str, str]:
    names = (
        "matrix_synapse_ext_synapse_s3_storage_provider_*",
        "matrix_synapse_ext_s3_storage_provider_container_arguments",
        "matrix_synapse_media_storage_providers_custom",
        "matrix_s3_media_store_*",
        "matrix_media_repo_*",
    )
    return {
        vars_path(request.store): comment(
            f"Written by `synapse-media render` for {host(request.store.server_name)}; the next run writes it again.",
            "",
            *(f"- {line}" for line in effect(request, "playbook").does),
            "Remove from vars.yml and every other file of this directory the lines that begin with:",
            *(f"    {name}" for name in names),
            "then run:",
            *playbook_commands("setup-all,start"),
            "To undo:",
            *effect(request, "playbook").undo,
        )
        + "---\n{}\n"
    }


def plain(request: Request) -> dict[str, str]:
    what = effect(request, "plain")
    files = {
        "INSTALL.md": f"""# {host(request.store.server_name)}: media on the local filesystem

{" ".join(what.does)}

1. Stop Synapse and copy the media back to the directory that `media_store_path` in homeserver.yaml names.
2. Remove, from homeserver.yaml and from conf.d:

   - `media_storage_providers` and `backup_media_store_path`
   - `enable_media_repo: false`
   - `enable_local_media_storage: false`
   - a `media_store_path` that names a mount of a bucket

3. Remove the units and drop-ins of a mount, and the routes to matrix-media-repo from the proxy.
4. Start Synapse.

`media_store_path` is the one setting there is: the directory for all media, owned by Synapse's user. Its default is
`media_store` in the directory Synapse runs in; Debian's package has /var/lib/matrix-synapse/media.

## Undo

{" ".join(what.undo)}
"""
    }
    if request.media_path:
        files["conf.d/synapse-media.yaml"] = (
            header(request, what) + f"media_store_path: {quoting.yaml('media_path', request.media_path)}\n"
        )
    return files
