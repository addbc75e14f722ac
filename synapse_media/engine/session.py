"""Run pulumi for a project: its environment, stacks, locks and errors."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from synapse_media import incoming
from synapse_media.engine import live
from synapse_media.engine.files import write_private
from synapse_media.engine.obtain import Say, Toolchain, obtain_pulumi, say_on_stderr
from synapse_media.engine.options import selecting_options
from synapse_media.engine.paths import private_dir, state_dir
from synapse_media.engine.processes import LOGGING, PASSED, SignalRelay, program_name, withheld
from synapse_media.engine.vendor_errors import readable_errors
from synapse_media.errors import SynapseMediaError

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASS|KEY|GRANT|ACCESS|CREDENTIAL", re.IGNORECASE)
VARIABLE_PREFIX = {
    "s3": "AWS_",
    "gs": "GOOGLE_",
    "azblob": "AZURE_",
    "awskms": "AWS_",
    "gcpkms": "GOOGLE_",
    "azurekeyvault": "AZURE_",
    "hashivault": "VAULT_",
}
"""{scheme of a backend or secrets provider: prefix of the vendor's variables}"""
PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
"""Pulumi reads the second only if the first is not set."""
_HALF_WRITTEN = ("error: EOF", "unexpected EOF", "unexpected end of JSON input")
"""How pulumi's message ends where a file of its state is being written: of its attributes, or of the state itself."""
_LISTED_AT_MOST, _LISTED_EVERY = 10, 0.2
"""Times, and seconds between them."""
_WRITTEN_WITHIN = 1.0
"""Seconds that a process which lives may take to write its lock."""
_ANNOUNCE_AFTER = 2.0
"""Seconds after which a call without progress output is announced."""
_GOGC = "200"
"""The heap may grow to three times what is in use before it is collected; Go's default of 100 is twice."""
# ANSI colours, and the colour tags in pulumi's JSON.
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|<\{%[^%]*%\}>")


class EngineError(SynapseMediaError):
    """Pulumi failed. The message is its output without colours, progress and secrets."""


def environment(
    variables: Iterable[str] = (), *, say: Say = say_on_stderr, project: Path | None = None
) -> dict[str, str]:
    """The environment for pulumi and its children, with no more of the user's variables than they need.

    `variables` names the admin credentials that this stack's provider reads; those not set here are omitted. `project`
    is the directory of a Pulumi.yaml, which may name the backend. Installs the engine and generates the passphrase if
    they are missing.
    """
    return _environment(obtain_pulumi(say), variables, say, project=project)


def _environment(
    toolchain: Toolchain,
    variables: Iterable[str],
    say: Say,
    secrets_provider: str = "",
    project: Path | None = None,
    *,
    makes_passphrase: bool = True,
) -> dict[str, str]:
    named = set(variables)
    result = {name: value for name, value in os.environ.items() if name in named or PASSED.fullmatch(name)}
    if "PULUMI_BACKEND_URL" not in result and project and (backend := backend_of(project)):
        result["PULUMI_BACKEND_URL"] = backend
    # A backend in a bucket, or a KMS, needs the vendor's own variables.
    schemes = (url.partition("://")[0] for url in (result.get("PULUMI_BACKEND_URL", ""), secrets_provider))
    prefixes = tuple(VARIABLE_PREFIX[scheme] for scheme in schemes if scheme in VARIABLE_PREFIX)
    if prefixes:
        result |= {
            name: value
            for name, value in os.environ.items()
            if name.startswith(prefixes) and not LOGGING.fullmatch(name)
        }
    if names := withheld():
        say(
            f"{', '.join(names)}: not passed to pulumi, since such variables can make it write secrets to disk or "
            "do other than "
            "previewed. `-v` shows each API call, without secrets."
        )
    # The pinned language host has no virtualenv option and takes the interpreter from PATH.
    path = [str(Path(sys.executable).parent), str(toolchain.bin), os.environ.get("PATH", os.defpath)]
    result["PATH"] = os.pathsep.join(path)
    result["PULUMI_SKIP_UPDATE_CHECK"] = "1"
    # Collecting as often as by default is a third of what it costs to start pulumi.
    result["GOGC"] = os.environ.get("GOGC", _GOGC)
    if toolchain.route == "source":
        # The vendor could not be reached, so plugins can't be downloaded either: don't retry five times.
        result["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    if "PULUMI_HOME" not in result:
        result["PULUMI_HOME"] = str(_without_logs(private_dir(state_dir() / "pulumi-home")))
    if "PULUMI_BACKEND_URL" not in result:
        result["PULUMI_BACKEND_URL"] = f"file://{quote(str(private_dir(state_dir() / 'backend')))}"
    if not result.keys() & set(PASSPHRASE):
        passphrase = state_dir() / "passphrase"
        if makes_passphrase:
            _make_passphrase(passphrase, say)
        result["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(passphrase)
    return result


def _without_logs(home: Path) -> Path:
    """Have pulumi write no log of its own there, which takes half of the engine's CPU with many stores.

    It logs every step at the level of debugging, secrets included, compressed at first and encrypted once it has the
    stack's key. There is no option against it, but where it can't make the directory it goes on without (StartLogging
    in pkg/logging/encrypted.go). A directory that is there, by an earlier release or the user's wish, stays.
    """
    with contextlib.suppress(OSError):
        (home / "logs").touch(mode=0o600, exist_ok=False)
    return home


@contextlib.contextmanager
def waiting(say: Say, what: str) -> Iterator[None]:
    """Announce a call without progress output if it takes longer than _ANNOUNCE_AFTER."""
    timer = threading.Timer(_ANNOUNCE_AFTER, lambda: say(f"waiting for {what} …"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _project_settings(project: Path) -> dict[str, Any]:
    import yaml

    path = project / "Pulumi.yaml"
    try:
        loaded = yaml.safe_load(incoming.text(path, 1_000_000))
    except OSError as error:
        raise EngineError(f"{path} can't be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise EngineError(f"{path} can't be read as YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(loaded, dict):
        raise EngineError(f"{path} is not a YAML mapping")
    return loaded


def backend_of(project: Path) -> str:
    """The backend URL in Pulumi.yaml; "" if it has none."""
    backend = _project_settings(project).get("backend")
    return str(backend.get("url") or "") if isinstance(backend, dict) else ""


def is_service(backend: str) -> bool:
    """Whether a backend is a service, as Pulumi Cloud, which has secrets providers of its own."""
    return backend.startswith(("https://", "http://"))


def _make_passphrase(path: Path, say: Say) -> None:
    if not path.exists() and write_private(path, secrets.token_urlsafe(32), replace=False):
        say(
            f"Generated a passphrase for the secrets in the state: {path}. Back up {state_dir()}: without "
            "passphrase and "
            "state, the provisioned resources can no longer be managed."
        )


def _require_passphrase(env: Mapping[str, str]) -> None:
    """Raises EngineError for an empty passphrase: secrets would look encrypted and be readable by everybody."""
    name = next(name for name in PASSPHRASE if name in env)
    value = env[name]
    if name.endswith("_FILE") and value and Path(value).is_file():
        empty, where = not Path(value).read_text(encoding="utf-8").strip(), f"{name} ({value})"
    else:
        empty, where = not value, name
    if empty:
        raise EngineError(
            f"{where} is empty: anyone with the state could read every key in it. Set it to the stack's passphrase, or "
            f"unset it to have one generated in {state_dir() / 'passphrase'}."
        )


class Engine:
    """Pulumi for one project.

    `variables`: names of environment variables to pass on (see `environment`); `extra`: further variables with values,
    such as the embedded store's credentials; `secrets_provider`: what encrypts secrets in the state, as
    `secretsprovider` in the stack file; "" for the backend's default: a service's own key, else a passphrase;
    `makes_passphrase`: generate one where there is none, which a look at what exists does not need.
    """

    def __init__(
        self,
        project: Path,
        variables: Iterable[str] = (),
        extra: Mapping[str, str] | None = None,
        say: Say = say_on_stderr,
        secrets_provider: str = "",
        *,
        makes_passphrase: bool = True,
    ) -> None:
        self.project = project
        self.say = say
        self.shown_on: int | None = None  # file descriptor for pulumi's output; None: standard output
        self.toolchain = obtain_pulumi(say)
        self.environment = {
            **_environment(
                self.toolchain, variables, say, secrets_provider, project, makes_passphrase=makes_passphrase
            ),
            **(extra or {}),
        }
        of_service = is_service(self.environment["PULUMI_BACKEND_URL"])
        self.secrets_provider = secrets_provider or ("default" if of_service else "passphrase")
        self._by_passphrase = self.secrets_provider == "passphrase" or (
            self.secrets_provider == "default" and not of_service
        )
        self._secrets = _secrets_among(self.environment)

    @property
    def project_name(self) -> str:
        """The project's name in Pulumi.yaml, which is part of every URN and of our ownership marks."""
        return str(_project_settings(self.project)["name"])

    def pass_on(self, variables: Iterable[str]) -> None:
        """Pass further environment variables to pulumi and its children; those not set here are omitted."""
        more = {name: os.environ[name] for name in variables if name in os.environ and name not in self.environment}
        self.environment |= more
        self._secrets |= _secrets_among(more)

    def run(
        self,
        args: Sequence[str],
        *,
        capture: bool = True,
        check: bool = True,
        at_end: bool = False,
        is_live: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run `pulumi <args>` in the project. Raises EngineError if it fails, unless `check` is False.

        On Ctrl-C (or SIGTERM) pulumi is asked to stop after its current step, and this call still waits for it: killing
        it would leave the stack locked.

        Args:
            at_end: write the state at the end only, not after every step. After a kill it is that of before.
            is_live: show pulumi's live display, for which standard output must be a terminal.
        """
        if self._by_passphrase:
            _require_passphrase(self.environment)
        env = {**self.environment, **({"PULUMI_SKIP_CHECKPOINTS": "true"} if at_end else {})}
        return self._run(args, capture=capture, check=check, cwd=self.project, env=env, is_live=is_live)

    def _run(
        self,
        args: Sequence[str],
        *,
        capture: bool,
        check: bool,
        cwd: Path,
        env: Mapping[str, str],
        is_live: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(self.toolchain.pulumi), *(() if is_live else ("--non-interactive",)), *args]
        with contextlib.ExitStack() as context:
            ours, theirs = context.enter_context(live.pair()) if is_live else (-1, -1)
            relay = context.enter_context(_Relay())
            child = context.enter_context(
                subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=env,
                    stdin=theirs if is_live else subprocess.DEVNULL,
                    stdout=theirs if is_live else subprocess.PIPE if capture else self.shown_on,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    # So that Ctrl-C reaches pulumi once, from _Relay, and not from the terminal as well.
                    process_group=0,
                )
            )
            relay.to(child.pid)
            if capture:
                # Captured output shows no progress.
                with waiting(self.say, f"`pulumi {args[0]}`"):
                    stdout, stderr = child.communicate()
            elif is_live:
                stdout, stderr = "", _shown_live(child, ours, theirs)
            else:
                stdout, stderr = "", _shown(child)
        if relay.received:
            raise KeyboardInterrupt if relay.received == signal.SIGINT else SystemExit(128 + relay.received)
        done = subprocess.CompletedProcess(command, child.returncode, stdout or "", stderr or "")
        if check and done.returncode:
            raise self._error(args, done, shown=not capture)
        return done

    def has_stack(self, stack: str) -> bool:
        """Whether the backend knows the stack."""
        return any(_is_same(item["name"], stack) for item in self.stacks())

    def selected_stack(self) -> str:
        """The stack of `pulumi stack select`; "" if none is selected."""
        return next((str(item["name"]) for item in self.stacks() if item.get("current")), "")

    def stacks(self) -> list[dict[str, Any]]:
        """The project's stacks in the backend, as `pulumi stack ls --json` prints them."""
        args = ["stack", "ls", "--json"]
        for attempt in itertools.count(1):
            done = self.run(args, check=False)
            if done.returncode == 0:
                break
            error = self._error(args, done)
            # It reads the files of all stacks, and another process may be writing one of them just now.
            if attempt == _LISTED_AT_MOST or not str(error).endswith(_HALF_WRITTEN):
                raise error
            time.sleep(_LISTED_EVERY)
        listed: list[dict[str, Any]] = json.loads(done.stdout)
        return listed

    def ensure_stack(self, stack: str) -> None:
        """Create the stack, with its secrets provider, unless it exists."""
        if not self.has_stack(stack):
            try:
                self.run(
                    ["stack", "init", "--no-select", "--secrets-provider", self.secrets_provider, "--stack", stack]
                )
            except EngineError:
                if not self.has_stack(stack):
                    raise
                raise EngineError(
                    f"the stack {stack} was made by another run just now. Wait until that one is done, and run this "
                    "again."
                ) from None

    def outputs(self, stack: str) -> dict[str, Any]:
        """The stack's outputs, with secrets in plain text."""
        return self._json(["stack", "output", "--json", "--show-secrets", "--stack", stack])

    def export(self, stack: str) -> dict[str, Any]:
        """The stack's state, with secrets encrypted."""
        exported = self._json(["stack", "export", "--stack", stack])
        # null where the state is the one that `pulumi stack init` wrote first, as of a restored backup.
        return {**exported, "deployment": exported.get("deployment") or {}}

    def replace_state(self, stack: str, export: Mapping[str, Any]) -> None:
        """Replace the stack's state with an edited export. Calls no store."""
        descriptor, name = tempfile.mkstemp(prefix="synapse-media-", suffix=".json")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(export, file)
            self.run(["stack", "import", "--file", name, "--stack", stack])
        finally:
            Path(name).unlink(missing_ok=True)

    def preview(
        self,
        stack: str,
        refresh: bool = False,
        options: Sequence[str] = (),
        config: Path | None = None,
    ) -> dict[str, Any]:
        """The output of `pulumi preview --json`: steps, diagnostics, changeSummary.

        A preview that fails only because a protected resource would be deleted is returned too, with that step in it.

        Args:
            config: a copy of the stack file to use instead of it.
        """
        args = ["preview", "--json", *(["--refresh"] if refresh else []), "--stack", stack, *selecting_options(options)]
        args += ["--config-file", str(config)] if config else []
        done = self.run(args, check=False)
        if done.returncode and not _only_protected(done.stdout):
            raise self._error(args, done)
        loaded: dict[str, Any] = json.loads(done.stdout)
        return loaded

    def preview_from_nothing(self, stack: str, variables: Collection[str] = ()) -> dict[str, Any]:
        """A preview as if nothing existed, in a temporary backend and without credentials.

        Args:
            variables: those that the program needs for resources of its own.
        """
        import yaml

        settings = _project_settings(self.project)
        stack = stack.rpartition("/")[2]  # the temporary backend has no organizations
        source = self.project / settings.get("stackConfigDir", ".") / f"Pulumi.{stack}.yaml"
        if not source.is_file():
            raise EngineError(f"There is no stack file {source}.")
        config = yaml.safe_load(source.read_text(encoding="utf-8")) or {}
        # They are for another passphrase, or need a KMS.
        for name in ("encryptionsalt", "encryptedkey", "secretsprovider"):
            config.pop(name, None)
        # With an absolute path, the copy would overwrite the original.
        settings["stackConfigDir"] = "stacks"
        settings["main"] = str(self.project / settings.get("main", "."))
        for kind in settings.get("plugins", {}).values():
            for plugin in kind:
                plugin["path"] = str(self.project / plugin["path"])
        options = settings["runtime"].get("options", {}) if isinstance(settings["runtime"], dict) else {}
        if "virtualenv" in options:
            options["virtualenv"] = str(self.project / options["virtualenv"])
        with tempfile.TemporaryDirectory(prefix="synapse-media-") as name:
            copy = Path(name) / "project"
            (copy / "stacks").mkdir(parents=True)
            (Path(name) / "backend").mkdir()
            (copy / "Pulumi.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
            (copy / "stacks" / source.name).write_text(yaml.safe_dump(config), encoding="utf-8")
            # Without the variables and values of this stack, which are credentials.
            env = {key: value for key, value in self.environment.items() if PASSED.fullmatch(key) or key in variables}
            env["PULUMI_BACKEND_URL"] = f"file://{name}/backend"
            env["PULUMI_CONFIG_PASSPHRASE"] = secrets.token_urlsafe(16)
            for variable in ("PULUMI_CONFIG_PASSPHRASE_FILE", "PULUMI_ACCESS_TOKEN"):
                env.pop(variable, None)
            for args in (
                ["stack", "init", "--no-select", "--secrets-provider", "passphrase", "--stack", stack],
                ["preview", "--json", "--stack", stack],
            ):
                done = self._run(args, capture=True, check=True, cwd=copy, env=env)
            loaded: dict[str, Any] = json.loads(done.stdout)
            return loaded

    def up(self, stack: str, options: Sequence[str] = (), *, config: Path | None = None, at_end: bool = False) -> None:
        """`pulumi up` with its output shown; `options` are passed to pulumi.

        Not constrained by a plan of the preview (`--plan`): on a mismatch pulumi prints outputs with secrets in plain
        text.

        Args:
            config: the copy of the stack file that was previewed.
            at_end: see `run`.
        """
        args = [
            "up",
            "--yes",
            "--skip-preview",
            "--suppress-outputs",
            "--stack",
            stack,
            *options,
        ]
        args += ["--config-file", str(config)] if config else []
        self._run_shown(args, at_end=at_end)

    def destroy(self, stack: str, options: Sequence[str] = (), *, at_end: bool = False) -> None:
        """`pulumi destroy` with its output shown. `at_end`: see `run`."""
        self._run_shown(["destroy", "--yes", "--stack", stack, *options], at_end=at_end)

    def refresh(self, stack: str, options: Sequence[str] = ()) -> None:
        """`pulumi refresh`, shown as it goes."""
        self._run_shown(["refresh", "--yes", "--stack", stack, *options])

    def _run_shown(self, args: Sequence[str], *, at_end: bool = False) -> None:
        """Run a command with its output shown: live on a terminal, line by line elsewhere."""
        is_plain = "--suppress-progress" in args
        is_live = self.shown_on is None and not is_plain and live.possible()
        words = [*args, *(() if is_live or is_plain else ("--suppress-progress",))]
        self.run(words, capture=False, at_end=at_end, is_live=is_live)

    def remove_stack(self, stack: str, *, with_resources: bool = False) -> None:
        """Remove a stack and its backups from the backend; its stack file stays.

        A stack that still has resources is refused unless `with_resources`.
        """
        options = ["--remove-backups"] if self._file_backend() else []
        if with_resources:
            options.append("--force")
        self.run(["stack", "rm", "--yes", "--preserve-config", *options, "--stack", stack])
        # Pulumi leaves empty directories and logs behind.
        project, name = self.project_name, stack.rpartition("/")[2]
        backend = self._file_backend()
        for kind in ("backups", "history", "locks/organization"):
            if backend is not None:
                with contextlib.suppress(OSError):
                    (backend / ".pulumi" / kind / project / name).rmdir()
        home = Path(self.environment["PULUMI_HOME"])
        for log in home.glob(f"logs/*+{project}+{name}-????????T??????.log"):
            log.unlink(missing_ok=True)

    def unlock_if_dead(self, stack: str) -> bool:
        """Remove the lock of an engine that was killed; True if there was one.

        Only in a file backend, and only if its owner was a process on this host that no longer runs. Unlike
        `pulumi cancel`, which removes every lock, this can't remove one that was just taken.
        """
        backend = self._file_backend()
        if backend is None:
            return False
        locks = backend / ".pulumi" / "locks" / "organization" / self.project_name / stack.rpartition("/")[2]
        cleared = False
        # gocloud.dev/blob/fileblob writes a lock beside its name first. What is left of it where the disk was full or
        # the process was killed, pulumi reads as a lock, too.
        for lock in (*locks.glob("*.json"), *locks.glob("*.json.*.tmp")):
            with contextlib.suppress(FileNotFoundError, KeyError, TypeError):
                # A truncated lock has no owner: the process that failed to write it did not get the lock.
                owner = _json_in(lock)
                if owner is None and lock.suffix == ".tmp" and time.time() - lock.stat().st_mtime < _WRITTEN_WITHIN:
                    continue
                if owner is None or (owner["hostname"] == socket.gethostname() and _is_dead(owner["pid"])):
                    lock.unlink()
                    cleared = True
        return cleared

    def restore_truncated_states(self) -> list[str]:
        """Restore truncated state files from pulumi's backups; the names of the stacks restored to an earlier state.

        Only in a file backend, where pulumi replaces a file even if writing the new one failed, for example on a full
        disk (gocloud.dev/blob/fileblob). The previous state is kept beside it.
        """
        backend = self._file_backend()
        if backend is None:
            return []
        home = backend / ".pulumi"
        for attributes in (*home.glob("stacks/*/*.attrs"), *home.glob("locks/*/*/*/*.attrs")):
            if _is_truncated(attributes):
                attributes.unlink(missing_ok=True)
        restored = []
        project = self.project_name
        for state in (home / "stacks" / project).glob("*.json"):
            if not _is_truncated(state):
                continue
            older = sorted((home / "backups" / project / state.stem).glob("*.json"), reverse=True)
            for copy in (state.with_name(f"{state.name}.bak"), *older):
                if copy.is_file() and _json_in(copy) is not None:
                    write_private(state, copy.read_text(encoding="utf-8"))
                    restored.append(state.stem)
                    break
        return restored

    def clear_pending_creates(self, stack: str) -> bool:
        """Clear the record of interrupted creates by a refresh; True if there was one.

        Otherwise pulumi warns about them on every run. The plugin finds what they created.
        """
        if not self.export(stack).get("deployment", {}).get("pending_operations"):
            return False
        self.run(["refresh", "--yes", "--clear-pending-creates", "--stack", stack])
        return True

    @property
    def backend(self) -> str:
        """The URL of the state's backend; of a directory the same one however it is spelled."""
        backend = self._file_backend()
        return f"file://{quote(str(backend.resolve()))}" if backend else self.environment.get("PULUMI_BACKEND_URL", "")

    @property
    def has_own_state(self) -> bool:
        """Whether the state is in this user's `state_dir`, where what is noted of runs is too.

        Another directory may be shared with other users, and with other machines.
        """
        backend = self._file_backend()
        return backend is not None and backend.resolve().is_relative_to(state_dir().resolve())

    def _file_backend(self) -> Path | None:
        url = self.environment.get("PULUMI_BACKEND_URL", "")
        if not url.startswith("file://"):
            return None
        path = unquote(url.removeprefix("file://").partition("?")[0])
        return self.project / Path(path or "~").expanduser()

    def _json(self, args: Sequence[str]) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.run(args).stdout)
        return loaded

    def _error(
        self, args: Sequence[str], done: subprocess.CompletedProcess[str], *, shown: bool = False
    ) -> EngineError:
        output = readable_errors(self._clean(_diagnostics(done.stdout) + "\n" + done.stderr))
        what = f"`pulumi {' '.join(args[:2] if args[0] in ('stack', 'config') else args[:1])}`"
        if "incorrect passphrase" in output:
            how = next((name for name in PASSPHRASE if name in self.environment), "the passphrase")
            value = f" ({self.environment[how]})" if how.endswith("_FILE") else ""
            return EngineError(
                f"{what} failed: {how}{value} does not have the passphrase of this stack. Set "
                "PULUMI_CONFIG_PASSPHRASE_FILE to the file that has it. An `encryptionsalt:` in the stack file "
                "that belongs to "
                "another passphrase has the same effect: remove that line if there is no `secure:` value."
            )
        if locked := _LOCKED.search(output):
            here = self._file_backend() is not None and locked["host"] == socket.gethostname()
            return EngineError(f"{what} failed: {_about_the_lock(locked, args, here=here)}")
        if (missing := re.search(r"KeyError: '(\w+)'", output)) and missing[1] in os.environ.keys() - self.environment:
            output += (
                f"\n{missing[1]} is set here, but not passed to the program: name it under "
                "`synapse-media:variables` in the stack file, as a list."
            )
        if "no resource plugin 'pulumi-resource-s3store'" in output:
            own = Path(sys.executable).parent
            return EngineError(
                f"{what} failed: pulumi can't find the plugin {own / 'pulumi-resource-s3store'}. Give its "
                f"directory in Pulumi.yaml (`plugins: {{providers: [{{name: s3store, path: {own}}}]}}`), or activate "
                "the Python environment, which puts its `bin` on PATH, and unset PULUMI_IGNORE_AMBIENT_PLUGINS."
            )
        if missing := re.search(r"no resource plugin 'pulumi-resource-([\w-]+)' found.* version (v[\d.]+)", output):
            return EngineError(
                f"{what} failed: the vendor's plugin {missing[1]} {missing[2]} is not installed. With access to the "
                f'vendor: eval "$(synapse-media env)" && pulumi plugin install resource {missing[1]} {missing[2]}'
            )
        # What was shown as it went is not said again.
        tail = "see above." if shown else "\n".join(output.splitlines()[-30:]) or "see above."
        return EngineError(f"{what} failed (code {done.returncode}): {tail}")

    def _clean(self, text: str) -> str:
        text = _COLOURS.sub("", text)
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


_LOCKED = re.compile(r"(?P<lock>\S+): created by (?P<owner>\S+)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<since>\S+)")
"""A lock as pulumi names it (pkg/backend/diy/lock.go)."""


def _about_the_lock(lock: re.Match[str], args: Sequence[str], *, here: bool) -> str:
    """Who holds the lock of a stack, and what to do.

    Args:
        here: a process of this machine holds it, which lives: `unlock_if_dead` has looked.
    """
    stack = args[args.index("--stack") + 1] if "--stack" in args else ""
    told = (
        f"the stack {stack} is locked by another run: of {lock['owner']} on the machine {lock['host']}, process "
        f"{lock['pid']}, since {lock['since']}. This run did not begin. Wait for the end of that one, and run this "
        "again."
    )
    if here:
        return told
    return (
        f"{told} The lock is not removed for you, since nobody here sees whether that process still runs: where it is "
        f'dead for sure, eval "$(synapse-media env)" && pulumi cancel --stack {stack} removes the lock. If it is not, '
        "both runs then write the state, and what one of them made is missing in it."
    )


def _shown(child: subprocess.Popen[str]) -> str:
    """Show a child's standard error as it comes, and wait for its end; the last of it."""
    last: collections.deque[str] = collections.deque(maxlen=100)
    for line in child.stderr or ():
        sys.stderr.write(line)
        sys.stderr.flush()
        last.append(line)
    child.wait()
    return "".join(last)


def _shown_live(child: subprocess.Popen[str], ours: int, theirs: int) -> str:
    """Show a child's live display and its standard error, and wait for its end; the last of the latter."""
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(_shown(child)))
    reader.start()
    live.show(child, ours, theirs)
    reader.join()
    return said[0]


def _is_same(one: str, other: str) -> bool:
    """Whether two names mean the same stack: pulumi omits the organization if it is the user's default."""
    first, second = one.split("/"), other.split("/")
    return first[-1] == second[-1] and (min(len(first), len(second)) == 1 or first[0] == second[0])


def _secrets_among(environment: Mapping[str, str]) -> set[str]:
    """The values of variables with secrets, to be removed from messages."""
    return {
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name) and not name.endswith("_FILE") and len(value) >= 6
    }


def _json_in(path: Path) -> Any:
    """The parsed content of a file; None if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _is_truncated(path: Path) -> bool:
    """Whether a file is not JSON; no longer there, it was one of another stack, which is being changed."""
    try:
        return _json_in(path) is None
    except FileNotFoundError:
        return False


def _diagnostics(stdout: str) -> str:
    """The errors in the output of a failed `--json` command."""
    try:
        loaded = json.loads(stdout)
    except json.JSONDecodeError:
        return stdout
    diagnostics = loaded.get("diagnostics", []) if isinstance(loaded, dict) else []
    return "\n".join(item["message"] for item in diagnostics if item.get("severity") == "error")


def _only_protected(stdout: str) -> bool:
    """Whether the protection of resources is the only reason that a preview failed."""
    errors = [line for line in _diagnostics(stdout).splitlines() if line.startswith("error:")]
    stopped = [line for line in errors if "preview failed" not in line]
    return bool(stopped) and all(
        "unable to replace resource" in line or "unable to delete resource" in line or "cannot be deleted" in line
        for line in stopped
    )


class _Relay(SignalRelay):
    """Hands signals on to one child.

    If SIGINT were still ignored (nohup, a background job of a script), pulumi's children would ignore it too, and
    pulumi would wait 5 s for each of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = 0

    def to(self, pid: int) -> None:
        self._pid = pid
        if self.received:
            self.pass_on(self.received)

    def pass_on(self, number: int) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _is_dead(pid: int) -> bool:
    """Whether the process id is unused, or belongs to another program by now."""
    name = program_name(pid)
    return name is None or "pulumi" not in name
