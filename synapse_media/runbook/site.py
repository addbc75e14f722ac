"""How a homeserver is stopped, started and configured in each form."""

from __future__ import annotations

from dataclasses import dataclass

from synapse_media.homeserver import playbook, synapse
from synapse_media.renderer import Form, domain, host, inventory_host

HERE, PLAYBOOK, SERVER = "here", "playbook", "server"
"""Where a step is done: on the machine with the stack, on the one that runs ansible-playbook, on the homeserver."""

_WORKERS = "    # and every worker"


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
    def plain(self) -> bool:
        return self.form == "plain"

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
        return self.host if self.plain else inventory_host(self.name)

    @property
    def user(self) -> str:
        """The owner of the local media, for chown."""
        return synapse.USER if self.plain else f"{playbook.USER}:{playbook.USER}"

    @property
    def operator(self) -> str:
        """Where Synapse is started and stopped."""
        return SERVER if self.plain else PLAYBOOK

    @property
    def stop(self) -> tuple[str, ...]:
        return (f"systemctl stop {synapse.UNIT}{_WORKERS}",) if self.plain else (playbook.command("stop"),)

    @property
    def apply(self) -> tuple[str, ...]:
        """Apply the configuration, and start."""
        return (
            (f"systemctl restart {synapse.UNIT}{_WORKERS}",) if self.plain else (playbook.command("setup-all,start"),)
        )

    @property
    def aside(self) -> str:
        """Where the local media is moved while a mount is in its place."""
        return f"{self.media}-local"

    @property
    def configuration(self) -> str:
        """The rendered file that enables the method, relative to the output directory."""
        return synapse.DROP_IN if self.plain else f"{self.host_vars}/{playbook.VARS_FILE}"

    @property
    def host_vars(self) -> str:
        """The directory of the homeserver's variables in the playbook."""
        return playbook.host_vars(self.machine)

    @property
    def start(self) -> str:
        """Start Synapse alone, in the plain form."""
        return f"systemctl start {synapse.UNIT}{_WORKERS}"
