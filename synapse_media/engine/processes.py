"""The environment of child processes, and process identities that survive the reuse of process ids."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

# Variables that any child may see: paths, locale, proxies and certificates. No credentials.
_ANY_CHILD = (
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TERM|NO_COLOR|TMPDIR|XDG_\w+"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|AWS_CA_BUNDLE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(?i:https?|all|no)_(?i:proxy)"
)
# The PULUMI_… variables that locate its state and plugins, authenticate it, or describe the CI. Many others write
# secrets to a file or a collector (PULUMI_DEBUG_GRPC, PULUMI_LOG_OTLP_ENDPOINT), set options that the guards don't see
# (PULUMI_OPTION_…), disable backups, or attach to a foreign plugin process.
_PULUMI = (
    r"HOME|BACKEND_URL|CONFIG_PASSPHRASE|CONFIG_PASSPHRASE_FILE|ACCESS_TOKEN|API|CONSOLE_DOMAIN|CREDENTIALS_PATH"
    r"|CREDENTIAL_STORE|DIY_BACKEND_\w+|SELF_MANAGED_STATE_\w+|RETAIN_CHECKPOINTS|SKIP_UPDATE_CHECK"
    r"|DISABLE_AUTOMATIC_PLUGIN_ACQUISITION|PLUGIN_DOWNLOAD_URL_OVERRIDES|IGNORE_AMBIENT_PLUGINS|PARALLEL\w*"
    r"|DISABLE_CI_DETECTION|CI_\w+"
)
# For pulumi and the plugin; includes its passphrase and access token.
PASSED = re.compile(rf"{_ANY_CHILD}|PULUMI_(?:{_PULUMI})|SYNAPSE_MEDIA_VERBOSE")
# Makes a vendor's SDK (for the backend or the KMS) log whole requests, including tokens.
LOGGING = re.compile(r"\w+_SDK_GO_LOGGING\w*")
# Read by our commands, which pass the stack to pulumi as an option.
_READ_BY_COMMANDS = frozenset({"PULUMI_STACK"})
_PROC = Path("/proc")


class SignalRelay:
    """Hands SIGINT, SIGTERM and SIGHUP on, so that what runs beneath can finish its current step.

    Entered before a child is started, since a signal that has a handler here is reset to its default there.

    Attributes:
        received: the last signal that was not ignored before; 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._old.get(number) != signal.SIG_IGN:
            self.received = number
            self.pass_on(number)

    def pass_on(self, number: int) -> None:
        """Hand a signal on to the children there are."""
        raise NotImplementedError


def environment(more: str = "") -> dict[str, str]:
    """The environment for a child that is not pulumi, without credentials.

    Args:
        more: a regular expression for further names.
    """
    passed = re.compile(rf"{_ANY_CHILD}|{more}" if more else _ANY_CHILD)
    return {name: value for name, value in os.environ.items() if passed.fullmatch(name)}


def withheld() -> list[str]:
    """The PULUMI_… variables that are set here but not passed on, sorted."""
    own = {name for name in os.environ if name.startswith("PULUMI_")}
    return sorted(name for name in own - _READ_BY_COMMANDS if not PASSED.fullmatch(name))


def identity(pid: int) -> str | None:
    """A string that differs for any later process with the same id; None if no such process runs.

    A zombie counts as not running.
    """
    if not (_PROC / "self/stat").exists():
        return _ps(pid, "lstart")
    try:
        # proc(5): after the name in parentheses, which may hold anything, field 3 is the state, field 22 the start.
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def program_name(pid: int) -> str | None:
    """The name of a process's program, possibly truncated; None if no such process runs."""
    if identity(pid) is None:
        return None
    try:
        return (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return _ps(pid, "comm")


def _ps(pid: int, column: str) -> str | None:
    """A column of ps(1), for systems without /proc such as macOS."""
    answer = subprocess.run(
        ["ps", "-o", f"{column}=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
    )
    return answer.stdout.strip() or None


def end(pid: int, expected: str, *, patience: float = 5) -> None:
    """End a process, if it still is the one of that identity, and wait until it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + patience
        if identity(pid) == expected:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while identity(pid) == expected and time.monotonic() < deadline:
            time.sleep(0.02)
