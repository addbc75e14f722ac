"""The files for Goofys 0.24, a FUSE mount of the bucket under Synapse's media store.

Without an endpoint the playbook makes it write STANDARD_IA, with one STANDARD: so the endpoint is always given.
https://github.com/kahing/goofys
"""

from __future__ import annotations

from . import quoting
from .parts import CONTAINER_ROLE, Effect, Form, Request, comment, header, host, playbook_commands, variables, vars_path

MOUNT = "/var/lib/matrix-synapse/media-s3"
"""Where the plain form mounts the bucket: beside Debian's media store, so that nothing is hidden by the mount."""
MIGRATION_MOUNT = "/matrix/s3-media-store"
"""Where the playbook mounts it during the migration, beside its media store (the playbook's own guide)."""

_UNIT = "synapse-media-goofys.service"
_ENVIRONMENT = "synapse-media-goofys.env"
_OLD = "Goofys has had no release since 2020. The storage provider module is the way off it."


def effect(request: Request, form: Form) -> Effect:
    bucket = quoting.yaml("bucket", request.store.bucket)
    warning = "Never use the storage provider module on this bucket as well: its clean-up would delete the objects."
    if form == "playbook":
        return Effect(
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
                "Copy the media back first, since it lies in the bucket alone: set matrix_s3_media_store_path as in "
                "the variant under migration/, run the same command, and copy from there to "
                "/matrix/synapse/storage/media-store with Synapse stopped. Then remove synapse-media.yml from "
                "host_vars and run it again.",
            ),
        )
    return Effect(
        does=(
            f"Mounts the bucket {bucket} and makes Synapse keep its media there: new media is written to the bucket "
            "alone. Media of before is not found there until it is copied.",
            warning,
            _OLD,
        ),
        apply=("Install these files as INSTALL.md says, which copies the media first.",),
        undo=(
            "Copy the media back first, since it lies in the bucket alone: INSTALL.md says how. Then remove the "
            "drop-ins and restart Synapse.",
        ),
    )


def playbook(request: Request) -> dict[str, str]:
    store = request.store
    _check(request)
    if store.ca_file:
        raise quoting.refuse(
            "ca_file",
            "can't be given to the Goofys of the playbook, which starts it without a way to name one",
            "Use the storage provider module, or a certificate of a public authority.",
        )
    for setting, value in (("access_key_id", store.access_key_id), ("secret_access_key", store.secret_access_key)):
        quoting.docker_environment(setting, value)
    # Empty keys are as good as none to the SDK, which then asks the instance; the defaults are words that are not.
    identity, secret = '""', '""'
    if not store.keyless:
        identity = quoting.ansible("access_key_id", store.access_key_id)
        secret = request.seal("secret_access_key", store.secret_access_key)
    lines = variables(
        (
            ("matrix_s3_media_store_enabled", "true"),
            ("matrix_s3_media_store_bucket_name", quoting.ansible("bucket", store.bucket)),
            ("matrix_s3_media_store_region", quoting.ansible("region", store.region)),
            ("matrix_s3_media_store_custom_endpoint_enabled", "true"),
            ("matrix_s3_media_store_custom_endpoint", quoting.ansible("endpoint_url", store.endpoint_url)),
            ("matrix_s3_media_store_aws_access_key", identity),
            ("matrix_s3_media_store_aws_secret_key", secret),
        )
    )
    during = Effect(
        does=(
            f"Mounts the bucket at {MIGRATION_MOUNT}, beside the media store, which Synapse keeps using: for the time "
            "of the migration, in place of the file of the same name.",
        ),
        apply=(
            *playbook_commands("setup-all,start"),
            "then, on the server, once while Synapse runs and once more with all services but matrix-goofys stopped:",
            "    sudo -u matrix rsync --size-only --ignore-existing -avr /matrix/synapse/storage/media-store/. "
            f"{MIGRATION_MOUNT}/.",
            "then, with matrix-goofys stopped too, move the local directory away and put the final file in place:",
            "    mv /matrix/synapse/storage/media-store /matrix/synapse/storage/media-store-local-backup",
        ),
        undo=("Remove this file and run the same command: the local media store was only read.",),
    )
    path = vars_path(store)
    return {
        path: header(request, effect(request, "playbook")) + "---\n" + lines,
        f"migration/{path}": header(request, during)
        + "---\n"
        + lines
        + variables((("matrix_s3_media_store_path", quoting.ansible("media_path", MIGRATION_MOUNT)),)),
    }


def plain(request: Request) -> dict[str, str]:
    store = request.store
    _check(request)
    mount = request.media_path or MOUNT
    name = host(store.server_name)
    files = {
        "INSTALL.md": _install(request, mount),
        "conf.d/synapse-media.yaml": header(request, effect(request, "plain"))
        + f"media_store_path: {quoting.yaml('media_path', mount)}\n",
        "fstab": _fstab(request, mount),
        f"systemd/{_UNIT}": _unit(request, mount),
        "systemd/matrix-synapse.service.d/synapse-media-goofys.conf": comment(
            "Synapse starts after the bucket is mounted, and stops with the mount. "
            "Goes to /etc/systemd/system/matrix-synapse.service.d/."
        )
        + f"[Unit]\nRequires={_UNIT}\nAfter={_UNIT}\n",
    }
    pairs = _environment(request)
    if pairs:
        files[_ENVIRONMENT] = comment(f"What Goofys needs for {name}'s bucket, for {_UNIT}.") + "".join(
            f"{variable}={value}\n" for variable, value in pairs
        )
    if not store.keyless:
        files["credentials"] = (
            comment(f"The key of {name}'s bucket, for the line in fstab: goes to /root/.aws/credentials.")
            + f"[default]\naws_access_key_id = {quoting.credentials('access_key_id', store.access_key_id)}\n"
            + f"aws_secret_access_key = {quoting.credentials('secret_access_key', store.secret_access_key)}\n"
        )
    return files


def _environment(request: Request) -> list[tuple[str, str]]:
    store = request.store
    pairs: list[tuple[str, str]] = []
    if not store.keyless:
        pairs += [
            ("AWS_ACCESS_KEY_ID", quoting.environment("access_key_id", store.access_key_id)),
            ("AWS_SECRET_ACCESS_KEY", quoting.environment("secret_access_key", store.secret_access_key)),
        ]
    if store.ca_file:
        # Go's own variable, for the whole process: it talks to nothing but the store.
        pairs.append(("SSL_CERT_FILE", quoting.environment("ca_file", store.ca_file)))
    return pairs


def _check(request: Request) -> None:
    """These stand in a shell's single quotes (the playbook's unit) and in the options of a mount."""
    store = request.store
    word = r"[A-Za-z0-9][A-Za-z0-9._-]*"
    quoting.need("bucket", store.bucket, word, "letters, digits and . _ -", "a mount with Goofys")
    quoting.need("region", store.region, word, "letters, digits and . _ -", "a mount with Goofys")
    quoting.need("endpoint_url", store.endpoint_url, r"[A-Za-z0-9.:/\[\]_-]+", "a plain URL", "a mount with Goofys")


_TUNING = ("--stat-cache-ttl", "60m0s", "--type-cache-ttl", "60m0s", "--dir-mode", "0700", "--file-mode", "0700")


def _unit(request: Request, mount: str) -> str:
    store = request.store
    path = quoting.systemd_word("media_path", mount)
    start = " ".join(
        quoting.systemd_word("bucket", word)
        for word in ("-f", f"--endpoint={store.endpoint_url}", "--region", store.region, *_TUNING, store.bucket)
    )
    wait = r'i=0; until mountpoint -q -- "$$1"; do i=$$((i+1)); [ $$i -le 60 ] || exit 1; sleep 0.5; done'
    return (
        comment(
            f"Mounts the bucket of {host(store.server_name)} for Synapse. Goes to /etc/systemd/system/. {_OLD}",
        )
        + "[Unit]\nDescription=Synapse's media on S3, mounted with Goofys\n"
        + "Wants=network-online.target\nAfter=network-online.target\nBefore=matrix-synapse.service\n\n"
        + "[Service]\nType=simple\nUser=matrix-synapse\n"
        + (f"EnvironmentFile=/etc/matrix-synapse/{_ENVIRONMENT}\n" if _environment(request) else "")
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
            f"In place of {_UNIT}, for those who mount in /etc/fstab. Write the number that `id -u matrix-synapse` "
            f"prints for UID, {credentials}and give Synapse's unit `RequiresMountsFor=` this directory in place of "
            "Requires= and After=. A certificate of a private authority must be among the system's own here."
        )
        + " ".join(fields)
        + "\n"
    )


def _install(request: Request, mount: str) -> str:
    store = request.store
    what = effect(request, "plain")
    path = quoting.sh("media_path", mount)
    environment = (
        f"    sudo install -o root -m 0600 {_ENVIRONMENT} /etc/matrix-synapse/\n" if _environment(request) else ""
    )
    keyless = "\nFirst run `synapse-media prove --store store.json` on this very machine: its role was not proved.\n"
    return f"""# {host(store.server_name)}: media on S3 with Goofys

What it does: {" ".join(what.does)}
{keyless if store.keyless else ""}
## Install

1. Goofys 0.24.0 as /usr/local/bin/goofys, and the package that has fusermount (`apt install fuse`).
2. The mount, with Synapse still on its local media:

    sudo install -d -o matrix-synapse -m 0700 {path}
{environment}    sudo install -m 0644 systemd/{_UNIT} /etc/systemd/system/
    sudo systemctl daemon-reload
    sudo systemctl enable --now {_UNIT}

3. Copy the media that is there. MEDIA is the directory that `media_store_path` in homeserver.yaml names; the second
   run, with Synapse stopped, is the one that counts:

    sudo -u matrix-synapse rsync -a --size-only MEDIA/. {path}/.
    sudo systemctl stop matrix-synapse
    sudo -u matrix-synapse rsync -a --size-only MEDIA/. {path}/.

4. Let Synapse use it:

    sudo install -D -m 0644 systemd/matrix-synapse.service.d/synapse-media-goofys.conf \\
        /etc/systemd/system/matrix-synapse.service.d/synapse-media-goofys.conf
    sudo install -o matrix-synapse -m 0600 conf.d/synapse-media.yaml /etc/matrix-synapse/conf.d/
    sudo systemctl daemon-reload
    sudo systemctl start matrix-synapse

Look at an old picture and send a new one before you think of removing MEDIA.

## Undo

    sudo systemctl stop matrix-synapse
    sudo -u matrix-synapse rsync -a --size-only {path}/. MEDIA/.
    sudo rm /etc/matrix-synapse/conf.d/synapse-media.yaml
    sudo rm /etc/systemd/system/matrix-synapse.service.d/synapse-media-goofys.conf
    sudo systemctl disable --now {_UNIT}
    sudo systemctl daemon-reload
    sudo systemctl start matrix-synapse
"""
