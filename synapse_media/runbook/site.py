"""A homeserver, and how it is stopped, started and configured in each form."""

from __future__ import annotations

from dataclasses import dataclass

from synapse_media.homeserver import playbook, synapse
from synapse_media.renderer import Form, domain, host, inventory_host

HERE, PLAYBOOK, SERVER = "here", "playbook", "server"
"""Where a step is done: where the stack is, where ansible-playbook is run, in a root shell on the homeserver."""


_WORKERS = "    # and every worker"


@dataclass(frozen=True, slots=True)
class Site:
    """A homeserver and how it is run.

    Attributes:
        name: the homeserver, as the stack file has it.
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
        """What stands in user ids."""
        return domain(self.name)

    @property
    def machine(self) -> str:
        """The server's name in the playbook's inventory, and for ssh."""
        return self.host if self.plain else inventory_host(self.name)

    @property
    def user(self) -> str:
        """Owner of the local media, as chown takes it."""
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
        """Take what is configured into use, and start."""
        return (
            (f"systemctl restart {synapse.UNIT}{_WORKERS}",) if self.plain else (playbook.command("setup-all,start"),)
        )

    @property
    def aside(self) -> str:
        """Where the local media goes while a mount takes its place."""
        return f"{self.media}-local"

    @property
    def configuration(self) -> str:
        """The rendered file that switches the method on, below the rendered directory."""
        return synapse.DROP_IN if self.plain else f"{self.host_vars}/{playbook.VARS_FILE}"

    @property
    def host_vars(self) -> str:
        """The directory with the homeserver's variables, where the playbook is."""
        return playbook.host_vars(self.machine)

    @property
    def start(self) -> str:
        """Start Synapse where it was stopped alone, of the plain form."""
        return f"systemctl start {synapse.UNIT}{_WORKERS}"
