"""The interface of the methods' modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from synapse_media.contract import StorageOutputs

from .sources import Reference

Form = Literal["playbook", "plain", "nixos", "kubernetes"]
Secrets = Literal["plain", "reference"]
Seal = Callable[[str, str], str]
"""Writes a secret into a vars file: (setting, value) -> the YAML after `name: `."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """What the files do on the server, how to apply them and how to undo that, in sentences or commands.

    A line of `apply` that starts with four spaces is a command.
    """

    does: tuple[str, ...]
    apply: tuple[str, ...]
    undo: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """The parameters of a rendering.

    Attributes:
        secrets: `plain` or by `reference`; the vars files ask `seal`, whatever this says.
        seal: writes a secret into a vars file.
        inventory_host: the server's name in the playbook's inventory.
        media_path: a local directory of the plain form; "": the method's own choice.
        source: where the secret is kept, by reference; None: where the form has it by default.
    """

    store: StorageOutputs
    secrets: Secrets
    seal: Seal
    inventory_host: str
    media_path: str = ""
    source: Reference | None = None

    @property
    def by_reference(self) -> bool:
        return self.secrets == "reference"


class FormRenderer(Protocol):
    """The module of a form that only one method has."""

    def files(self, request: Request) -> dict[str, str]: ...

    def instructions(self, request: Request) -> Instructions: ...


class MethodRenderer(Protocol):
    """The module of a method, for the forms that every method has."""

    def playbook_files(self, request: Request) -> dict[str, str]: ...

    def plain_files(self, request: Request) -> dict[str, str]: ...

    def instructions(self, request: Request, form: Form) -> Instructions: ...
