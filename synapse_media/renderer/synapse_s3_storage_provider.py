"""The files for Synapse's own storage provider module.

Its options were read from `parse_config` in s3_storage_provider.py; `threadpool_size` and the two checksum options
are documented but never copied there, so they are left out. https://github.com/matrix-org/synapse-s3-storage-provider
"""

from __future__ import annotations

from collections.abc import Iterable

from synapse_media import values
from synapse_media.contract import StorageOutputs
from synapse_media.homeserver import playbook, synapse

from . import quoting
from .request import Form, Instructions, Request
from .text import (
    CA_IN_CONTAINER,
    CONTAINER_ROLE,
    HOLDS_THE_KEY,
    PROVE,
    ca_arguments,
    ca_path,
    comment,
    header,
    host,
    playbook_commands,
    variables,
    vars_path,
)

# The playbook's nightly job deletes by name alone. A number of days that selects no new files does not stop it from
# deleting those that an earlier run recorded in its cache.db, so its schedule is moved into the future too.
_NEVER = 36500
_ENVIRONMENT_FILE = "synapse-media.env"
_UNIT_DROP_IN = f"{synapse.UNIT_DROP_INS}/synapse-media.conf"


NEVER_DELETES = "The module never deletes from the bucket: media that is purged or redacted in Synapse stays there."
UNDO_KEEPS = "Local copies stay, so no media is lost as long as nobody cleaned the local disk up."


def does(request: Request) -> tuple[str, ...]:
    """What the module does in every form."""
    return (
        "Synapse copies every new file of local and remote users to the bucket "
        f"{quoting.yaml('bucket', request.store.bucket)} before it answers an upload, and reads from the bucket what "
        "it does not have on disk. Files that are there already are not copied: `synapse-media media copy` does that.",
        "Every file stays on the local disk as well: nothing is deleted. To free the disk, by a timer too, use "
        "`synapse-media media free`, which compares the content first; never `s3_media_upload`, which goes by names "
        "alone.",
    )


def instructions(request: Request, form: Form) -> Instructions:
    if form == "playbook":
        return Instructions(
            does=(
                *does(request),
                "The playbook's nightly job (05:00), which would delete local files by name, is put off to "
                f"{playbook.MIGRATION_NEVER[:4]}. Don't run bin/migrate by hand, which is the same job.",
                "The playbook builds a Synapse image of its own with the module in it.",
                *((CONTAINER_ROLE,) if request.store.keyless else ()),
            ),
            apply=playbook_commands("setup-synapse,start"),
            undo=(f"Remove synapse-media.yml from host_vars and run the same command. {UNDO_KEEPS}",),
        )
    return Instructions(
        does=does(request),
        apply=("Install the module and synapse-media.yaml as INSTALL.md says, then restart Synapse.",),
        undo=(
            "Remove synapse-media.yaml from conf.d and restart Synapse. Local copies stay, so no media is lost as long "
            "as nobody cleaned the local disk up.",
        ),
    )


def playbook_files(request: Request) -> dict[str, str]:
    store = request.store
    # The migrate job reads these from a file for `docker run --env-file`, and its shell uses them unquoted.
    for setting, value in (("bucket", store.bucket), ("prefix", store.prefix), ("endpoint_url", store.endpoint_url)):
        quoting.need(
            setting,
            value,
            r"[^\s*?\\\x00-\x1f\x7f]*",
            "all but blanks, control characters, * ? and \\",
            "the playbook's migrate job",
        )
    for setting, value in (("access_key_id", store.access_key_id), ("secret_access_key", store.secret_access_key)):
        quoting.docker_environment(setting, value)
    names = playbook.MODULE_VARIABLES
    keys: tuple[tuple[str, str], ...] = (
        (names["access_key_id"], quoting.ansible("access_key_id", store.access_key_id)),
        (
            names["secret_access_key"],
            "" if store.keyless else request.seal("secret_access_key", store.secret_access_key),
        ),
    )
    lines = variables(
        (
            (playbook.MODULE_ENABLED, "true"),
            (playbook.STORE_LOCAL, "true"),
            (playbook.STORE_REMOTE, "true"),
            (playbook.STORE_SYNCHRONOUS, "true"),
            (names["bucket"], quoting.ansible("bucket", store.bucket)),
            (names["prefix"], quoting.ansible("prefix", store.prefix)),
            (names["region"], quoting.ansible("region", store.region)),
            (names["endpoint"], quoting.ansible("endpoint_url", store.endpoint_url)),
            (names["storage_class"], quoting.ansible("storage_class", store.storage_class)),
            (playbook.INSTANCE_PROFILE, quoting.yaml("keyless", store.keyless)),
            *(() if store.keyless else keys),
        )
    )
    lines += (
        "\n"
        + comment(
            "The nightly job deletes what an object of the same name exists for, without a look at its content. "
            "So that it does not run, and selects nothing new if it does:"
        )
        + variables(
            (
                (playbook.MIGRATION_SCHEDULE, quoting.ansible("schedule", playbook.MIGRATION_NEVER)),
                (playbook.MIGRATION_DAYS, str(_NEVER)),
            )
        )
    )
    checksums = tuple(f"--env={name}=when_required" for name in checksum_variables(store))
    authority = ca_arguments(store, "AWS_CA_BUNDLE")
    if checksums:
        lines += "\n" + comment(
            "boto3 sends newer checksum headers in s3_media_upload (bin/migrate), which this store may reject. "
            "Add your own arguments to this list, if you have some."
        )
    if checksums or authority:
        lines += variables(
            ((playbook.MODULE_CONTAINER_ARGUMENTS, quoting.ansible("checksums", checksums + authority)),)
        )
    if authority:
        lines += variables(((playbook.SYNAPSE_CONTAINER_ARGUMENTS, quoting.ansible("ca_file", authority)),))
    more = (
        "A variable that vars.yml sets as well has the value from there: Ansible reads the files of this directory in "
        "the order of their names, and the last one wins."
    )
    return {vars_path(request): header(request, instructions(request, "playbook"), more) + "---\n" + lines}


def checksum_variables(store: StorageOutputs) -> tuple[str, ...]:
    """The variables that make boto3 omit the newer checksums, for a store that may reject them."""
    if store.checksums != "when_required":
        return ()
    return ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")


def plain_files(request: Request) -> dict[str, str]:
    files = {
        "INSTALL.md": _install(request),
        synapse.DROP_IN: _drop_in(request),
        "docker/compose.override.yaml": _compose(request),
        "docker/synapse-media/image/Dockerfile": containerfile(),
        _ENVIRONMENT_FILE: _environment(request, docker=False),
    }
    if _needs_environment(request):
        files[f"docker/synapse-media/{_ENVIRONMENT_FILE}"] = _environment(request, docker=True)
        files[f"systemd/{_UNIT_DROP_IN}"] = (
            comment(f"What Synapse needs for its media's bucket. Goes to {synapse.UNITS}/{synapse.UNIT_DROP_INS}/.")
            + f"[Service]\nEnvironmentFile={synapse.CONFIGURATION}/{_ENVIRONMENT_FILE}\n"
        )
    return files


def _needs_environment(request: Request) -> bool:
    """Whether Synapse itself needs the environment file. With the machine's role it does not."""
    return (request.by_reference and not request.store.keyless) or bool(request.store.ca_file)


def options(store: StorageOutputs) -> list[tuple[str, str]]:
    """(setting of the store, value): what the module's `config` needs, without the key."""
    return [
        ("bucket", store.bucket),
        ("region", store.region),
        ("endpoint", store.endpoint_url),
        ("storage_class", store.storage_class),
        *((("prefix", store.prefix),) if store.prefix else ()),
    ]


def provider(values: Iterable[tuple[str, str]]) -> str:
    """The top-level list of homeserver.yaml with this module alone, from (setting of the store, value)."""
    config = "".join(f"      {synapse.MODULE_OPTIONS[name]}: {quoting.yaml(name, value)}\n" for name, value in values)
    return (
        f"{synapse.PROVIDERS}:\n  - module: {synapse.MODULE_CLASS}\n"
        + "".join(
            f"    {name}: true\n" for name in (synapse.STORE_LOCAL, synapse.STORE_REMOTE, synapse.STORE_SYNCHRONOUS)
        )
        + f"    config:\n{config}"
    )


def _drop_in(request: Request) -> str:
    store = request.store
    values = options(store)
    if not store.keyless and not request.by_reference:
        values += [("access_key_id", store.access_key_id), ("secret_access_key", store.secret_access_key)]
    warning = (
        f"It replaces a `{synapse.PROVIDERS}` list that homeserver.yaml or an earlier file of conf.d has: Synapse "
        "merges its files by top-level key and the last one wins. Move other providers into this list, and have no "
        f"`{synapse.BACKUP_PATH}`. Keep `{synapse.ENABLE_LOCAL_STORAGE}` at true: the module reads the local copy."
    )
    return header(request, instructions(request, "plain"), warning) + provider(values)


_KEY_IN_CONTAINER = "/synapse-media-credentials"


def _environment(request: Request, *, docker: bool) -> str:
    """The variables that boto3 reads, for Synapse by reference and for tools such as s3_media_upload."""
    store = request.store
    value = quoting.docker_environment if docker else quoting.environment
    pairs = [("AWS_DEFAULT_REGION", value("region", store.region))]
    if request.source and not store.keyless:
        pairs.append(("AWS_SHARED_CREDENTIALS_FILE", _KEY_IN_CONTAINER if docker else request.source.place))
    elif not store.keyless:
        pairs += [
            ("AWS_ACCESS_KEY_ID", value("access_key_id", store.access_key_id)),
            ("AWS_SECRET_ACCESS_KEY", value("secret_access_key", store.secret_access_key)),
        ]
    pairs += [(name, "when_required") for name in checksum_variables(store)]
    if store.ca_file:
        pairs.append(("AWS_CA_BUNDLE", CA_IN_CONTAINER if docker else value("ca_file", store.ca_file)))
    reader = "`docker run --env-file`: values as they are" if docker else "systemd's EnvironmentFile= and sh"
    return comment(f"The key and region of {host(store.server_name)}'s bucket. For {reader}.") + "".join(
        f"{name}={text}\n" for name, text in pairs
    )


def containerfile() -> str:
    """An image with the module in it, from the one that runs now."""
    return (
        "ARG SYNAPSE_IMAGE\nFROM $SYNAPSE_IMAGE\n"
        f"RUN pip install --no-cache-dir synapse-s3-storage-provider=={synapse.MODULE_VERSION}\n"
    )


def _compose(request: Request) -> str:
    store = request.store
    environment = "    env_file:\n      - path: ./synapse-media/synapse-media.env\n        format: raw\n"
    return (
        comment(
            "Goes beside compose.yaml; `synapse` is the name of Synapse's service there. Set SYNAPSE_IMAGE in .env to "
            "the image and tag that you run now. Undo: remove this file and run `docker compose up -d`."
        )
        + "services:\n  synapse:\n    build:\n      context: ./synapse-media/image\n      args:\n"
        + '        SYNAPSE_IMAGE: "${SYNAPSE_IMAGE:?set it in .env to the image and tag that you run now}"\n'
        + '    image: "synapse-with-s3-storage-provider:local"\n'
        + '    command: ["run", "--config-path", "/data/homeserver.yaml", "--config-path", "/synapse-media.yaml"]\n'
        + "    volumes:\n      - ./synapse-media/synapse-media.yaml:/synapse-media.yaml:ro\n"
        + (f"      - {ca_path(store)}:{CA_IN_CONTAINER}:ro\n" if store.ca_file else "")
        + (f"      - {request.source.place}:{_KEY_IN_CONTAINER}:ro\n" if request.source and not store.keyless else "")
        + (environment if _needs_environment(request) else "")
    )


def releases() -> str:
    """Which releases of Synapse and the module go together, as INSTALL.md says it."""
    needed, since = map(values.written, (synapse.MODULE_NEEDS_SYNAPSE, synapse.THREADPOOL_SINCE))
    return (
        f"Release {synapse.MODULE_VERSION} of the module needs Synapse {needed} or newer, and such a Synapse needs "
        f"release\n{since} or newer of the module: upgrade both together. On the machine with the stack\n"
        "`synapse-media doctor --stack S --synapse-python FILE` compares them.\n"
    )


def _install(request: Request) -> str:
    name = host(request.store.server_name)
    what = instructions(request, "plain")
    systemd = (
        f"""
   What Synapse needs beside that file, in its environment:

       sudo install -o root -m 0600 {_ENVIRONMENT_FILE} {synapse.CONFIGURATION}/{_ENVIRONMENT_FILE}
       sudo install -D -m 0644 systemd/{_UNIT_DROP_IN} \\
           {synapse.UNITS}/{_UNIT_DROP_IN}
       sudo systemctl daemon-reload
"""
        if _needs_environment(request)
        else ""
    )
    elsewhere = (
        "   with `set -a; . ./synapse-media.env; set +a` in its shell before, for what it needs beside that file.\n"
        if _needs_environment(request)
        else ""
    )
    forget = (
        f"    sudo rm -f {synapse.CONFIGURATION}/{_ENVIRONMENT_FILE} \\\n        {synapse.UNITS}/{_UNIT_DROP_IN}\n"
        "    sudo systemctl daemon-reload\n"
        if _needs_environment(request)
        else ""
    )
    prove = f"`{PROVE}`"
    if request.by_reference and not request.store.keyless:
        prove = f"`(set -a; . ./{_ENVIRONMENT_FILE}; {PROVE})`, since store.json has no secret"
    keyless = "\nFirst run `synapse-media prove --store store.json` on this very machine: its role was not proved.\n"
    return f"""# {name}: media on S3 with synapse-s3-storage-provider {synapse.MODULE_VERSION}

What it does: {" ".join(what.does)}

{releases()}{keyless if request.store.keyless else ""}
A wrong key does not keep Synapse from starting: every upload fails instead. So prove the key from the server
itself first: {prove}.

## Debian package (packages.matrix.org)

1. The module, into the package's own environment (again after every upgrade of the package, which renews it):

       sudo {synapse.VIRTUAL_ENVIRONMENT}/bin/pip install synapse-s3-storage-provider=={synapse.MODULE_VERSION}

2. The configuration, readable by Synapse alone:

       sudo install -o {synapse.USER} -m 0600 {synapse.DROP_IN} {synapse.CONFIGURATION}/conf.d/
{systemd}
3. `sudo systemctl restart {synapse.UNIT}`

## Synapse from pip

1. `/path/to/synapse/venv/bin/pip install synapse-s3-storage-provider=={synapse.MODULE_VERSION}`
2. Start Synapse with a second `-c`: `python -m synapse.app.homeserver -c homeserver.yaml -c {synapse.DROP_IN}`
{elsewhere}
Workers need the same file and the same `-c`.

## Docker Compose (2.30 or newer)

1. Copy the content of docker/ beside your compose.yaml, and {synapse.DROP_IN} into synapse-media/ there.
   Synapse runs as user 991 in its image: `sudo chown 991:991 synapse-media/synapse-media.yaml`.
2. In .env: `SYNAPSE_IMAGE=` and the image with the tag that you run now.
3. `docker compose build synapse && docker compose up -d synapse`

## Undo

{" ".join(what.undo)} With Debian's package:

    sudo rm -f {synapse.CONFIGURATION}/{synapse.DROP_IN}
{forget}    sudo systemctl restart {synapse.UNIT}

With Docker, beside compose.yaml:

    rm -rf compose.override.yaml synapse-media
    docker compose up -d synapse
{"" if request.store.keyless else HOLDS_THE_KEY}
{NEVER_DELETES}
synapse-media.env is for tools that copy or check the bucket by hand: `set -a; . ./synapse-media.env`.
"""
