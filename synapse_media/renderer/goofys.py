"""The files for Goofys 0.24, a FUSE mount of the bucket under Synapse's media store.

Without an endpoint the playbook configures STANDARD_IA, with one STANDARD, so the endpoint is always given.
https://github.com/kahing/goofys
"""

from __future__ import annotations

from synapse_media.homeserver import playbook, synapse

from . import quoting
from .request import Form, Instructions, Request
from .text import (
    CONTAINER_ROLE,
    HOLDS_THE_KEY,
    comment,
    credentials_file,
    header,
    host,
    playbook_commands,
    variables,
    vars_path,
)

_UNIT = synapse.GOOFYS_UNIT
_ENVIRONMENT = f"{synapse.GOOFYS_NAME}.env"
_DROP_IN = f"{synapse.UNIT_DROP_INS}/{synapse.GOOFYS_NAME}.conf"
_IN_FSTAB = "With the line in fstab, remove the key from /root/.aws/credentials.\n"
_OLD = "Goofys has had no release since 2020. The storage provider module is the way off it."


def instructions(request: Request, form: Form) -> Instructions:
    bucket = quoting.yaml("bucket", request.store.bucket)
    warning = "Never use the storage provider module on this bucket as well: its clean-up would delete the objects."
    if form == "playbook":
        return Instructions(
            does=(
                f"Mounts the bucket {bucket} over Synapse's media store: new media is written to the bucket alone, "
                "and what lies in the local directory is hidden while it is mounted. So migrate first, with the "
                "variant under migration/.",
                warning,
                _OLD,
                *((CONTAINER_ROLE,) if request.store.keyless else ()),
            ),
            apply=playbook_commands("setup-all,start"),
            undo=(
                f"Copy the media back first, since it lies in the bucket alone: set {playbook.GOOFYS_PATH} as in the "
                f"variant under migration/, run the same command, and copy from there to {playbook.MEDIA_STORE} with "
                "Synapse stopped. Then remove synapse-media.yml from host_vars and run it again.",
            ),
        )
    return Instructions(
        does=(
            f"Mounts the bucket {bucket} and makes Synapse keep its media there: new media is written to the bucket "
            "alone. Media that was there before is not found until it is copied.",
            warning,
            _OLD,
        ),
        apply=("Install these files as INSTALL.md says, which copies the media first.",),
        undo=(
            "Copy the media back first, since it lies in the bucket alone: INSTALL.md says how. Then remove the "
            "drop-ins and restart Synapse.",
        ),
    )


def playbook_files(request: Request) -> dict[str, str]:
    store = request.store
    check(request)
    if store.ca_file:
        raise quoting.refuse(
            "ca_file",
            "can't be given to the Goofys of the playbook, which starts it without a way to name one",
            "Use the storage provider module, or a certificate of a public authority.",
        )
    for setting, value in (("access_key_id", store.access_key_id), ("secret_access_key", store.secret_access_key)):
        quoting.docker_environment(setting, value)
    # With empty keys the SDK uses the instance's role. The playbook's defaults are not empty.
    identity, secret = '""', '""'
    if not store.keyless:
        identity = quoting.ansible("access_key_id", store.access_key_id)
        secret = request.seal("secret_access_key", store.secret_access_key)
    names = playbook.GOOFYS_VARIABLES
    lines = variables(
        (
            (playbook.GOOFYS_ENABLED, "true"),
            (names["bucket"], quoting.ansible("bucket", store.bucket)),
            (names["region"], quoting.ansible("region", store.region)),
            (playbook.GOOFYS_ENDPOINT_ENABLED, "true"),
            (names["endpoint"], quoting.ansible("endpoint_url", store.endpoint_url)),
            (names["access_key_id"], identity),
            (names["secret_access_key"], secret),
        )
    )
    during = Instructions(
        does=(
            f"Mounts the bucket at {playbook.GOOFYS_MIGRATION_MOUNT}, beside the media store, which Synapse keeps "
            "using: for the time of the migration, in place of the file of the same name.",
        ),
        apply=(
            *playbook_commands("setup-all,start"),
            "then, on the server, once while Synapse runs and once more with all services but "
            f"{playbook.GOOFYS_UNIT} stopped:",
            f"    sudo -u {playbook.USER} rsync --size-only --ignore-existing -avr {playbook.MEDIA_STORE}/. "
            f"{playbook.GOOFYS_MIGRATION_MOUNT}/.",
            f"then, with {playbook.GOOFYS_UNIT} stopped too, move the local directory away and put the final file in "
            "place:",
            f"    mv {playbook.MEDIA_STORE} {playbook.MEDIA_STORE}-local-backup",
        ),
        undo=("Remove this file and run the same command: the local media store was only read.",),
    )
    path = vars_path(request)
    return {
        path: header(request, instructions(request, "playbook")) + "---\n" + lines,
        f"migration/{path}": header(request, during)
        + "---\n"
        + lines
        + variables(((playbook.GOOFYS_PATH, quoting.ansible("media_path", playbook.GOOFYS_MIGRATION_MOUNT)),)),
    }


def plain_files(request: Request) -> dict[str, str]:
    store = request.store
    check(request)
    mount = request.media_path or synapse.GOOFYS_MOUNT
    name = host(store.server_name)
    files = {
        "INSTALL.md": _install(request, mount),
        synapse.DROP_IN: header(request, instructions(request, "plain"))
        + f"{synapse.MEDIA_STORE_PATH}: {quoting.yaml('media_path', mount)}\n",
        "fstab": _fstab(request, mount),
        f"systemd/{_UNIT}": _unit(request, mount),
        f"systemd/{_DROP_IN}": comment(
            "Synapse starts after the bucket is mounted, and stops with the mount. "
            f"Goes to {synapse.UNITS}/{synapse.UNIT_DROP_INS}/."
        )
        + f"[Unit]\nRequires={_UNIT}\nAfter={_UNIT}\n",
    }
    pairs = _environment(request)
    if pairs:
        files[_ENVIRONMENT] = comment(f"What Goofys needs for {name}'s bucket, for {_UNIT}.") + "".join(
            f"{variable}={value}\n" for variable, value in pairs
        )
    if not store.keyless and not request.source:
        files["credentials"] = credentials_file(store, "for the line in fstab: goes to /root/.aws/credentials.")
    return files


def _environment(request: Request) -> list[tuple[str, str]]:
    store = request.store
    pairs: list[tuple[str, str]] = []
    if request.source and not store.keyless:
        pairs.append(("AWS_SHARED_CREDENTIALS_FILE", request.source.place))
    elif not store.keyless:
        pairs += [
            ("AWS_ACCESS_KEY_ID", quoting.environment("access_key_id", store.access_key_id)),
            ("AWS_SECRET_ACCESS_KEY", quoting.environment("secret_access_key", store.secret_access_key)),
        ]
    if store.ca_file:
        # Go's variable for the whole process, which connects to the store only.
        pairs.append(("SSL_CERT_FILE", quoting.environment("ca_file", store.ca_file)))
    return pairs


def check(request: Request) -> None:
    """Refuse values that can't be quoted in the playbook's unit (single quotes of a shell) or in mount options."""
    store = request.store
    word = r"[A-Za-z0-9][A-Za-z0-9._-]*"
    quoting.need("bucket", store.bucket, word, "letters, digits and . _ -", "a mount with Goofys")
    quoting.need("region", store.region, word, "letters, digits and . _ -", "a mount with Goofys")
    quoting.need("endpoint_url", store.endpoint_url, r"[A-Za-z0-9.:/\[\]_-]+", "a plain URL", "a mount with Goofys")


TUNING = ("--stat-cache-ttl", "60m0s", "--type-cache-ttl", "60m0s", "--dir-mode", "0700", "--file-mode", "0700")


def _unit(request: Request, mount: str) -> str:
    store = request.store
    path = quoting.systemd_word("media_path", mount)
    start = " ".join(
        quoting.systemd_word("bucket", word)
        for word in ("-f", f"--endpoint={store.endpoint_url}", "--region", store.region, *TUNING, store.bucket)
    )
    wait = r'i=0; until mountpoint -q -- "$$1"; do i=$$((i+1)); [ $$i -le 60 ] || exit 1; sleep 0.5; done'
    return (
        comment(
            f"Mounts the bucket of {host(store.server_name)} for Synapse. Goes to {synapse.UNITS}/. {_OLD}",
        )
        + "[Unit]\nDescription=Synapse's media on S3, mounted with Goofys\n"
        + "Wants=network-online.target\nAfter=network-online.target\n"
        + f"Before={synapse.UNIT}.service\n\n"
        + f"[Service]\nType=simple\nUser={synapse.USER}\n"
        + (f"EnvironmentFile={synapse.CONFIGURATION}/{_ENVIRONMENT}\n" if _environment(request) else "")
        + "# What a Goofys that died has left in the way.\n"
        + f"ExecStartPre=-/bin/fusermount -u -z {path}\n"
        + f"ExecStart=/usr/local/bin/goofys {start} {path}\n"
        + "# Synapse must not start before the bucket is there: it would write below the mount.\n"
        + f"ExecStartPost=/bin/sh -c '{wait}' sh {path}\n"
        + f"ExecStop=/bin/fusermount -u {path}\n"
        + "Restart=always\nRestartSec=2\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def _fstab(request: Request, mount: str) -> str:
    store = request.store
    options = ",".join(
        (
            "_netdev",
            "allow_other",
            f"--endpoint={store.endpoint_url}",
            f"--region={store.region}",
            "--stat-cache-ttl=60m0s",
            "--type-cache-ttl=60m0s",
            "--dir-mode=0700",
            "--file-mode=0700",
            "--uid=UID",
        )
    )
    credentials = "" if store.keyless else "put the file credentials at /root/.aws/credentials, "
    fields = (f"goofys#{store.bucket}", quoting.fstab("media_path", mount), "fuse", options, "0", "0")
    return (
        comment(
            f"In place of {_UNIT}, for those who mount in /etc/fstab. Write the number that `id -u {synapse.USER}` "
            f"prints for UID, {credentials}and give Synapse's unit `RequiresMountsFor=` this directory in place of "
            "Requires= and After=. A certificate of a private authority must be among the system's own here."
        )
        + " ".join(fields)
        + "\n"
    )


def _install(request: Request, mount: str) -> str:
    store = request.store
    what = instructions(request, "plain")
    path = quoting.sh("media_path", mount)
    setting = synapse.MEDIA_STORE_PATH
    environment = (
        f"    sudo install -o root -m 0600 {_ENVIRONMENT} {synapse.CONFIGURATION}/\n" if _environment(request) else ""
    )
    names = [
        f"{synapse.UNITS}/{_UNIT}",
        *((f"{synapse.CONFIGURATION}/{_ENVIRONMENT}",) if _environment(request) else ()),
    ]
    forget = f"    sudo rm -f {' '.join(names)}\n"
    keyless = "\nFirst run `synapse-media prove --store store.json` on this very machine: its role was not proved.\n"
    return f"""# {host(store.server_name)}: media on S3 with Goofys

What it does: {" ".join(what.does)}
{keyless if store.keyless else ""}
## Install

1. Goofys 0.24.0 as /usr/local/bin/goofys, and the package that has fusermount (`apt install fuse`).
2. The mount, with Synapse still on its local media:

    sudo install -d -o {synapse.USER} -m 0700 {path}
{environment}    sudo install -m 0644 systemd/{_UNIT} {synapse.UNITS}/
    sudo systemctl daemon-reload
    sudo systemctl enable --now {_UNIT}

3. Copy the media that is there. MEDIA is the directory that `{setting}` in homeserver.yaml names; the second
   run, with Synapse stopped, is the one that counts:

    sudo -u {synapse.USER} rsync -a --size-only MEDIA/. {path}/.
    sudo systemctl stop {synapse.UNIT}
    sudo -u {synapse.USER} rsync -a --size-only MEDIA/. {path}/.

4. Let Synapse use it:

    sudo install -D -m 0644 systemd/{_DROP_IN} \\
        {synapse.UNITS}/{_DROP_IN}
    sudo install -o {synapse.USER} -m 0600 {synapse.DROP_IN} {synapse.CONFIGURATION}/conf.d/
    sudo systemctl daemon-reload
    sudo systemctl start {synapse.UNIT}

Look at an old picture and send a new one before you think of removing MEDIA.

## Undo

    sudo systemctl stop {synapse.UNIT}
    sudo -u {synapse.USER} rsync -a --size-only {path}/. MEDIA/.
    sudo rm {synapse.CONFIGURATION}/{synapse.DROP_IN}
    sudo rm {synapse.UNITS}/{_DROP_IN}
    sudo systemctl disable --now {_UNIT}
{forget}    sudo systemctl daemon-reload
    sudo systemctl start {synapse.UNIT}
{"" if store.keyless else HOLDS_THE_KEY + _IN_FSTAB}"""
