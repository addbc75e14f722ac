"""The files for matrix-media-repo with an s3 datastore."""

from __future__ import annotations

from urllib.parse import urlsplit

from synapse_media.contract import StorageOutputs
from synapse_media.homeserver import media_repo, playbook, synapse

from . import quoting
from .request import Form, Instructions, Request
from .text import ca_arguments, comment, header, host, playbook_commands, variables, vars_path

_ADDRESS = "127.0.0.1:8000"
# From api/routes.go: Matrix's media API, and below, matrix-media-repo's own API.
_PATHS = ("/_matrix/media", "/_matrix/client/v1/media", "/_matrix/federation/v1/media")
_OWN_PATHS = "^/_matrix/client/(unstable/io.t2bot.media|(r0|v1|v3|unstable)/admin/(purge_media_cache|quarantine_media))"


def instructions(request: Request, form: Form) -> Instructions:
    bucket = quoting.yaml("bucket", request.store.bucket)
    old = (
        "The file datastore stays readable and takes nothing new, until its media is transferred to the s3 datastore."
        if request.store.media_repo.get("file_datastore_id")
        else "There is no file datastore: an installation that has one must name its id in the stack file first, or "
        "its media is lost to it."
    )
    does = (
        "matrix-media-repo takes the place of Synapse's media repository and keeps all new media in the bucket "
        f"{bucket}. Media that Synapse has is not found until it is imported.",
        old,
        "The datastore ids are how its database finds media: they must never change.",
    )
    undo = (
        "Media that came in since is known to matrix-media-repo alone, so Synapse would not find it: take it over "
        "first with its own tools, `gdpr_export` and then `import_to_synapse`, or accept its loss."
    )
    if form == "playbook":
        return Instructions(
            does=does,
            apply=playbook_commands("setup-all,start"),
            undo=(undo, "Then remove synapse-media.yml from host_vars and run the same command."),
        )
    return Instructions(
        does=does,
        apply=("Install these files as INSTALL.md says, and restart matrix-media-repo, Synapse and the proxy.",),
        undo=(undo, "Then remove these files and the routes, and restart Synapse and the proxy."),
    )


def playbook_files(request: Request) -> dict[str, str]:
    store = request.store
    ids = _ids(store)
    endpoint = urlsplit(store.endpoint_url)
    names = playbook.S3_VARIABLES
    pairs = [(playbook.MEDIA_REPO_ENABLED, "true"), (playbook.FILE_KINDS, "[]")]
    if "file" in ids:
        pairs += [
            (playbook.FILE_ENABLED, "true"),
            (playbook.FILE_ID, quoting.ansible("media_repo.file_datastore_id", ids["file"])),
        ]
    pairs += [
        (playbook.S3_KINDS, quoting.ansible("kinds", media_repo.KINDS)),
        (playbook.S3_ID, quoting.ansible("media_repo.s3_datastore_id", ids["s3"])),
        (names["endpoint"], quoting.ansible("endpoint_url", endpoint.netloc)),
        (playbook.S3_TLS, quoting.yaml("endpoint_url", endpoint.scheme == "https")),
        (names["region"], quoting.ansible("region", store.region)),
        (names["bucket"], quoting.ansible("bucket", store.bucket)),
        (names["storage_class"], quoting.ansible("storage_class", store.storage_class)),
        (names["access_key_id"], quoting.ansible("access_key_id", store.access_key_id)),
        (names["secret_access_key"], request.seal("secret_access_key", store.secret_access_key)),
    ]
    authority = ca_arguments(store, "SSL_CERT_FILE")
    if authority:
        pairs.append((playbook.MEDIA_REPO_CONTAINER_ARGUMENTS, quoting.ansible("ca_file", authority)))
    return {vars_path(request): header(request, instructions(request, "playbook")) + "---\n" + variables(pairs)}


def plain_files(request: Request) -> dict[str, str]:
    if request.by_reference:
        raise quoting.refuse(
            "secrets",
            "can't be by reference in media-repo.yaml, which is where matrix-media-repo has its key from",
            "Render it with `--secrets plain`: the file is 0600.",
        )
    what = instructions(request, "plain")
    return {
        "INSTALL.md": _install(request, what),
        synapse.DROP_IN: header(request, what) + f"{synapse.ENABLE_MEDIA_REPO}: false\n",
        "media-repo.d/synapse-media.yaml": _datastores(request, what),
        "reverse-proxy/Caddyfile": _caddy(request.store),
        "reverse-proxy/nginx.conf": _nginx(request.store),
        "reverse-proxy/traefik.yaml": _traefik(request.store),
    }


def _ids(store: StorageOutputs) -> dict[str, str]:
    """The datastore ids set by the operator, for `s3` and optionally `file`. A made-up id would lose media."""
    if store.keyless:
        raise quoting.refuse(
            "keyless", "can't be used with matrix-media-repo, which requires a key", "Give the store a key."
        )
    found = {kind: store.media_repo.get(f"{kind}_datastore_id", "") for kind in ("s3", "file")}
    if not found["s3"]:
        raise quoting.refuse(
            "media_repo.s3_datastore_id", "is missing", "Set it in the stack file, never change it again, and run `up`."
        )
    if found["s3"] == found["file"]:
        raise quoting.refuse(
            "media_repo", "has the same id for two datastores", "Give each the one that it has in media-repo.yaml."
        )
    return {kind: value for kind, value in found.items() if value}


def _datastores(request: Request, what: Instructions) -> str:
    store = request.store
    ids = _ids(store)
    endpoint = urlsplit(store.endpoint_url)
    file_datastore = ""
    if "file" in ids:
        file_datastore = (
            "  - type: file\n"
            f"    id: {quoting.yaml('media_repo.file_datastore_id', ids['file'])}\n"
            "    # Read only. The path must be the one that media-repo.yaml has for this datastore.\n"
            f"    {media_repo.FOR_KINDS}: []\n"
            "    opts:\n"
            f"      path: {quoting.yaml('media_path', request.media_path or media_repo.FILE_PATH)}\n"
        )
    names = media_repo.S3_OPTIONS
    options = (
        (names["endpoint"], quoting.yaml("endpoint_url", endpoint.netloc)),
        (media_repo.TLS, quoting.yaml("endpoint_url", endpoint.scheme == "https")),
        (names["region"], quoting.yaml("region", store.region)),
        (names["bucket"], quoting.yaml("bucket", store.bucket)),
        (names["storage_class"], quoting.yaml("storage_class", store.storage_class)),
        (names["access_key_id"], quoting.yaml("access_key_id", store.access_key_id)),
        (names["secret_access_key"], quoting.yaml("secret_access_key", store.secret_access_key)),
    )
    return (
        header(
            request,
            what,
            "It replaces the `datastores` list of media-repo.yaml, so it holds every datastore. Further ones of "
            "yours, with their ids, go into this list.",
        )
        + "datastores:\n"
        + file_datastore
        + "  - type: s3\n"
        + f"    id: {quoting.yaml('media_repo.s3_datastore_id', ids['s3'])}\n"
        + f"    {media_repo.FOR_KINDS}: {quoting.yaml('kinds', media_repo.KINDS)}\n"
        + "    opts:\n"
        + "".join(f"      {name}: {value}\n" for name, value in options)
    )


def _routes(store: StorageOutputs) -> str:
    return comment(
        f"The routes that matrix-media-repo must be given, before those of Synapse; it listens on {_ADDRESS} here. "
        "It knows its homeserver by the Host header, which must be the `name` that media-repo.yaml has: the "
        f"homeserver's server_name, {host(store.server_name)} here. It leaves a port in Host out of account, so that "
        "`name` must have none.",
        "Where access tokens are cached (`maxCacheTimeSeconds`), /_matrix/client/*/logout goes to it as well.",
    )


def _nginx(store: StorageOutputs) -> str:
    name = host(store.server_name)
    body = (
        f" {{\n    proxy_pass http://{_ADDRESS};\n    proxy_set_header Host {name};\n"
        f"    proxy_set_header X-Forwarded-Host {name};\n    proxy_set_header X-Forwarded-For $remote_addr;\n"
        "    proxy_read_timeout 60s;\n    client_max_body_size 100M;\n}\n"
    )
    places = [f"location ^~ {path}" for path in _PATHS] + [f"location ~ {_OWN_PATHS}"]
    return _routes(store) + "".join(place + body for place in places)


def _caddy(store: StorageOutputs) -> str:
    prefixes = " ".join(f"{path}/*" for path in _PATHS)
    name = host(store.server_name)
    proxy = (
        f" {{\n\treverse_proxy {_ADDRESS} {{\n\t\theader_up Host {name}\n"
        f"\t\theader_up X-Forwarded-Host {name}\n\t}}\n}}\n"
    )
    return (
        _routes(store)
        + f"@media path {prefixes}\nhandle @media{proxy}"
        + f"@media_own path_regexp {_OWN_PATHS}\nhandle @media_own{proxy}"
    )


def _traefik(store: StorageOutputs) -> str:
    rule = " || ".join([*(f"PathPrefix(`{path}`)" for path in _PATHS), f"PathRegexp(`{_OWN_PATHS}`)"])
    name = quoting.yaml("server_name", host(store.server_name))
    return (
        _routes(store)
        + "http:\n  routers:\n    matrix-media-repo:\n"
        + f"      rule: {quoting.yaml('rule', rule)}\n"
        + "      priority: 1000\n      middlewares: [matrix-media-repo-host]\n      service: matrix-media-repo\n"
        + "  middlewares:\n    matrix-media-repo-host:\n      headers:\n        customRequestHeaders:\n"
        + f"          Host: {name}\n          X-Forwarded-Host: {name}\n"
        + "  services:\n    matrix-media-repo:\n      loadBalancer:\n        servers:\n"
        + f"          - url: {quoting.yaml('url', f'http://{_ADDRESS}')}\n"
    )


def _install(request: Request, what: Instructions) -> str:
    store = request.store
    authority = ""
    if store.ca_file:
        variable = f"SSL_CERT_FILE={quoting.sh('ca_file', store.ca_file)}"
        authority = f"   The store's authority is a private one: `{variable}` in its environment.\n"
    transfer = ""
    if store.media_repo.get("file_datastore_id"):
        transfer = f"""
Media of the file datastore moves to the bucket with, as an administrator of the repository:

    POST /_matrix/media/unstable/admin/datastores/{store.media_repo["file_datastore_id"]}/transfer_to/{
            store.media_repo["s3_datastore_id"]
        }

Keep the file datastore in the list until `GET …/admin/datastores/<file id>/size_estimate` finds nothing there.
"""
    return f"""# {host(store.server_name)}: media on S3 with matrix-media-repo

What it does: {" ".join(what.does)}

An S3 setting that is wrong shows at the first upload, not at the start: prove the key from the server itself first,
with `synapse-media prove --store store.json`.

## Install

1. matrix-media-repo {media_repo.VERSION} with its media-repo.yaml (database, `homeservers`), as
   https://docs.t2bot.io/matrix-media-repo/ says. For media over federation it needs a signing key that is merged
   into Synapse's: `generate_signing_key` and `combine_signing_keys` of the same release.
2. media-repo.d/synapse-media.yaml, readable by matrix-media-repo alone. `REPO_CONFIG` may name a directory, whose
   files are merged in the order of their names; a later `datastores` list replaces an earlier one, so let the name
   of this file sort last. Or put its list in place of the one in media-repo.yaml.
{authority}3. {synapse.DROP_IN} into {synapse.CONFIGURATION}/conf.d/: it switches Synapse's own repository off.
4. One of reverse-proxy/ into your proxy, before the routes of Synapse.
5. Restart matrix-media-repo, Synapse and the proxy.
{transfer}
## Undo

{" ".join(what.undo)}
"""
