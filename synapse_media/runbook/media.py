"""The commands that move media between a directory of the server and a store: `synapse-media media`."""

from __future__ import annotations

from synapse_media.homeserver import playbook, synapse

from .rclone import KEYS, Remote, lines
from .site import Site

_ENVIRONMENT = f"{KEYS}/venv"
COMMAND = f"{_ENVIRONMENT}/bin/synapse-media"

NIX_SHELL = "nix-shell -p rclone python3    # rclone 1.60 or newer; the following steps are in this shell"


def install(site: Site) -> tuple[str, ...]:
    """Without Pulumi, which no command on the server needs."""
    apt = "apt install rclone python3-venv    # rclone 1.60 or newer; without one, it is built with Go"
    return (
        NIX_SHELL if site.nixos else apt,
        f"python3 -m venv {_ENVIRONMENT}",
        f"{_ENVIRONMENT}/bin/pip install boto3 pyyaml ruamel.yaml rich 'psycopg[binary]'",
        f"{_ENVIRONMENT}/bin/pip install --no-deps synapse-media",
    )


PASSED = "It ends with `passed` and exit code 0; otherwise it names what differs."
ARRIVED = "It ends with exit code 0; otherwise it names what did not arrive, and may be run again."


def copy(directory: str, to: Remote, *options: str) -> str:
    """What is missing or differs, from the directory to the store."""
    return _command("copy", directory, to, *options)


def restore(directory: str, source: Remote) -> str:
    """What is missing, from the store to the directory."""
    return _command("restore", directory, source)


def verify(directory: str, store: Remote) -> str:
    """Whether everything in the directory is in the store, by content."""
    return _command("verify", directory, store)


def free(site: Site, store: Remote) -> tuple[str, ...]:
    """Local files that are in the store, and that nobody asked for in a month: counted, then deleted."""
    if site.nixos:
        # PostgreSQL lets a user of the machine in by its name alone, and the files are for root.
        count = lines(
            _command("free", site.media, store, "--older-than 30d"),
            f'--config "$CONFIG" --database "postgresql://root@/{synapse.UNIT}?host=/run/postgresql"',
        )
        return (
            f"CONFIG=$(systemctl cat {synapse.UNIT} | grep -om1 '/nix/store/[^ ]*homeserver.yaml')",
            "sudo -u postgres createuser root    # to read; `dropuser root` afterwards",
            "sudo -u postgres psql -c 'GRANT pg_read_all_data TO root'",
            count,
            f"{count} --delete",
        )
    if site.on_server:
        count = _command("free", site.media, store, "--older-than 30d")
        return (count, f"{count} --delete")
    # The configuration names the database by a name that containers alone know.
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    count = lines(
        _command("free", site.media, store, "--older-than 30d"),
        f"--config {playbook.HOMESERVER_CONFIGURATION}",
        '--database "postgresql://synapse@$ADDRESS/synapse"',
    )
    return (
        f"ADDRESS=$(docker inspect -f '{networks}' {playbook.DATABASE_HOST})",
        "read -rsp 'matrix_synapse_database_password: ' PGPASSWORD; export PGPASSWORD",
        count,
        f"{count} --delete",
    )


def _command(action: str, directory: str, store: Remote, *options: str) -> str:
    return " ".join([COMMAND, "media", action, directory, "--store", store.json, *options])
