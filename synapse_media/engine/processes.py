"""What a child process may see of the environment, and telling one process from another that got its number later."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

# The names of what any child may see: where things are, the language, the way to the network. No credentials.
_ANY_CHILD = (
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TERM|NO_COLOR|TMPDIR|XDG_\w+"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|AWS_CA_BUNDLE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(?i:https?|all|no)_(?i:proxy)"
)
# Of pulumi's own variables those that say where its state and its plugins are, how to get there, and what is running
# it. Many others write secrets to a file or a collector (PULUMI_DEBUG_GRPC, PULUMI_LOG_OTLP_ENDPOINT), give it options
# that the guards did not see (PULUMI_OPTION_…), leave out backups, or have it attach to a plugin of somebody else's.
_PULUMI = (
    r"HOME|BACKEND_URL|CONFIG_PASSPHRASE|CONFIG_PASSPHRASE_FILE|ACCESS_TOKEN|API|CONSOLE_DOMAIN|CREDENTIALS_PATH"
    r"|CREDENTIAL_STORE|DIY_BACKEND_\w+|SELF_MANAGED_STATE_\w+|RETAIN_CHECKPOINTS|SKIP_UPDATE_CHECK"
    r"|DISABLE_AUTOMATIC_PLUGIN_ACQUISITION|PLUGIN_DOWNLOAD_URL_OVERRIDES|IGNORE_AMBIENT_PLUGINS|PARALLEL\w*"
    r"|DISABLE_CI_DETECTION|CI_\w+"
)
# For pulumi and the plugin, its passphrase and its access token as well.
PASSED = re.compile(rf"{_ANY_CHILD}|PULUMI_(?:{_PULUMI})|SYNAPSE_MEDIA_VERBOSE")
# Of a vendor's SDK, which reaches the backend or the KMS: it logs whole requests, their tokens in them.
LOGGING = re.compile(r"\w+_SDK_GO_LOGGING\w*")
# Read by the commands, which name the stack to pulumi.
_READ_HERE = frozenset({"PULUMI_STACK"})
_PROC = Path("/proc")


def environment(more: str = "") -> dict[str, str]:
    """The environment for a child that is not pulumi: nothing secret is in it.

    Args:
        more: a regular expression of further names.
    """
    passed = re.compile(rf"{_ANY_CHILD}|{more}" if more else _ANY_CHILD)
    return {name: value for name, value in os.environ.items() if passed.fullmatch(name)}


def kept_back() -> list[str]:
    """The names of pulumi's own variables that are set here and that it does not get."""
    own = {name for name in os.environ if name.startswith("PULUMI_")}
    return sorted(name for name in own - _READ_HERE if not PASSED.fullmatch(name))


def identity(pid: int) -> str | None:
    """Text that no later process of that number has; None where no such process runs.

    A process that ended, but was not waited for by its parent, does not run.
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
    """The name of a process's program, perhaps cut off; None where no such process runs."""
    if identity(pid) is None:
        return None
    try:
        return (_PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return _ps(pid, "comm")


def _ps(pid: int, column: str) -> str | None:
    """Where there is no /proc, as on macOS."""
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
