"""How a homeserver is stopped, started and configured in each form."""

from __future__ import annotations

from dataclasses import dataclass

from synapse_media.homeserver import playbook, synapse
from synapse_media.renderer import Form, domain, host, inventory_host, nixos

HERE, PLAYBOOK, SERVER = "here", "playbook", "server"
"""Where a step is done: on the machine with the stack, on the one that runs ansible-playbook, on the homeserver."""

NIXOS = "/etc/nixos"
"""The usual directory of configuration.nix; a flake may be elsewhere."""


@dataclass(frozen=True, slots=True)
class Site:
    """A homeserver in one form of installation.

    Attributes:
        name: the server name in the stack file.
        media: the local media store.
    """

    name: str
    form: Form
    media: str

    @property
    def on_server(self) -> bool:
        """Whether the server is configured on itself, not by the playbook."""
        return self.form != "playbook"

    @property
    def nixos(self) -> bool:
        return self.form == "nixos"

    @property
    def host(self) -> str:
        return host(self.name)

    @property
    def domain(self) -> str:
        """The domain of user ids."""
        return domain(self.name)

    @property
    def machine(self) -> str:
        """The server's name in the playbook's inventory and for ssh."""
        return self.host if self.on_server else inventory_host(self.name)

    @property
    def user(self) -> str:
        """The owner of the local media, for chown."""
        return synapse.USER if self.on_server else f"{playbook.USER}:{playbook.USER}"

    @property
    def operator(self) -> str:
        """Where Synapse is started and stopped."""
        return SERVER if self.on_server else PLAYBOOK

    @property
    def stop(self) -> tuple[str, ...]:
        return (f"systemctl stop {self._units}",) if self.on_server else (playbook.command("stop"),)

    @property
    def apply(self) -> tuple[str, ...]:
        """Apply the configuration, and start."""
        if self.nixos:
            # A rebuild restarts what runs; it is not what starts a unit that was stopped by hand.
            return ("nixos-rebuild switch", self.start)
        return (f"systemctl restart {self._units}",) if self.on_server else (playbook.command("setup-all,start"),)

    @property
    def restart(self) -> str:
        """Start again what was stopped, with the configuration as it was."""
        return self.start if self.on_server else playbook.command("start")

    @property
    def aside(self) -> str:
        """Where the local media is moved while a mount is in its place."""
        return f"{self.media}-local"

    @property
    def configuration(self) -> str:
        """The rendered file that enables the method, relative to the output directory."""
        if self.nixos:
            return nixos.MODULE_FILE
        return synapse.DROP_IN if self.on_server else f"{self.host_vars}/{playbook.VARS_FILE}"

    @property
    def in_use(self) -> str:
        """Where that file is on the server, or in the playbook's directory."""
        if self.nixos:
            return f"{NIXOS}/{self.configuration}"
        return f"{synapse.CONFIGURATION}/{self.configuration}" if self.on_server else self.configuration

    @property
    def settings(self) -> str:
        """The directory of the configuration, on the server or of the playbook."""
        return NIXOS if self.nixos else synapse.CONFIGURATION if self.on_server else "inventory"

    def running(self, search: str) -> str:
        """NixOS: a command that runs `search`, a grep, on every file that Synapse reads its configuration from."""
        return f"systemctl cat {synapse.UNIT} | grep -o 'config-path [^ ]*' | cut -d' ' -f2 | xargs -r {search}"

    def built(self, search: str) -> tuple[str, ...]:
        """NixOS: the same for the configuration as it is now, which is built and not applied."""
        return ("nixos-rebuild build", f"nix-store -qR result | grep 'homeserver.yaml$' | xargs -r {search}")

    @property
    def configured_media(self) -> tuple[str, ...]:
        """Commands that print Synapse's present media store."""
        if self.nixos:
            return (self.running(f"grep -H {synapse.MEDIA_STORE_PATH}"),)
        if self.on_server:
            return (f"grep -RH ^{synapse.MEDIA_STORE_PATH}: {synapse.CONFIGURATION}",)
        return (
            f"grep {synapse.MEDIA_STORE_PATH} {playbook.HOMESERVER_CONFIGURATION}",
            f"systemctl cat {playbook.SYNAPSE_UNIT} | grep -o 'src=[^,]*,dst={playbook.STORE_IN_CONTAINER}'",
        )

    @property
    def jobs(self) -> tuple[str, ...]:
        """Commands that name the files of jobs which run `s3_media_upload`, where the server is configured on itself.

        `-R` follows symbolic links, as the units below /etc/systemd/system are. On NixOS, the script of a unit is a
        file of its own in the store, beside the program itself and its metadata.
        """
        timers, search = "systemctl list-timers --all", "s3_media_upload"
        if self.nixos:
            closure = f"nix-store -qR /run/current-system | xargs grep -rls {search}"
            return (
                timers,
                f"{closure} | grep -vE '/bin/[.]?{search}|-info/'",
                f"grep -Rls {search} /var/spool/cron",
            )
        places = f"/etc/cron* /var/spool/cron {synapse.UNITS} /usr/lib/systemd/system /usr/local/bin /usr/local/sbin"
        return (timers, f"grep -Rls {search} {places}")

    @property
    def host_vars(self) -> str:
        """The directory of the homeserver's variables in the playbook."""
        return playbook.host_vars(self.machine)

    @property
    def start(self) -> str:
        """Start Synapse alone, where the server is configured on itself."""
        return f"systemctl start {self._units}"

    @property
    def _units(self) -> str:
        if self.nixos:
            return f"{synapse.UNIT}    # or {synapse.UNIT}.target, where there are workers"
        return f"{synapse.UNIT}    # and every worker"
