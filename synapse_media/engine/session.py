"""Everything about running pulumi for a project: its environment, its stacks, its locks, its errors."""

from __future__ import annotations

import contextlib
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self
from urllib.parse import quote, unquote

from synapse_media.engine.files import write_private
from synapse_media.engine.obtain import Say, Toolchain, obtain_pulumi, say_on_stderr
from synapse_media.engine.options import target_options
from synapse_media.engine.paths import private_dir, state_dir
from synapse_media.engine.processes import LOGGING, PASSED, kept_back, program_name
from synapse_media.engine.vendor_errors import without_repetition
from synapse_media.errors import SynapseMediaError

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASS|KEY|GRANT|ACCESS|CREDENTIAL", re.IGNORECASE)
# By the scheme of a backend or of a secrets provider: how the names of its own variables begin.
_OF_SCHEME = {
    "s3": "AWS_",
    "gs": "GOOGLE_",
    "azblob": "AZURE_",
    "awskms": "AWS_",
    "gcpkms": "GOOGLE_",
    "azurekeyvault": "AZURE_",
    "hashivault": "VAULT_",
}
_PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
"""Pulumi reads the second only where the first is not set."""
_SILENCE = 2.0
"""Seconds after which the user is shown what is waited for."""
# Colours of a terminal, and pulumi's own marks for them in JSON.
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|<\{%[^%]*%\}>")


class EngineError(SynapseMediaError):
    """Pulumi failed; the text is what it said, without colours, progress and secrets."""


def environment(
    variables: Iterable[str] = (), *, say: Say = say_on_stderr, project: Path | None = None
) -> dict[str, str]:
    """The whole environment for pulumi and its children: no more of the user's than they need.

    `variables` are the names of admin credentials and the like that this stack's provider reads; those unset stay
    unset. `project` is the directory of a Pulumi.yaml, which may name the backend. Obtains the engine, and generates
    the passphrase, where they are missing.
    """
    return _environment(obtain_pulumi(say), variables, say, project=project)


def _environment(
    toolchain: Toolchain,
    variables: Iterable[str],
    say: Say,
    secrets_provider: str = "passphrase",
    project: Path | None = None,
) -> dict[str, str]:
    named = set(variables)
    result = {name: value for name, value in os.environ.items() if name in named or PASSED.fullmatch(name)}
    if "PULUMI_BACKEND_URL" not in result and project and (backend := _backend_of(project)):
        result["PULUMI_BACKEND_URL"] = backend
    # A backend in a bucket, and a KMS, is reached with the vendor's own variables.
    schemes = (url.partition("://")[0] for url in (result.get("PULUMI_BACKEND_URL", ""), secrets_provider))
    prefixes = tuple(_OF_SCHEME[scheme] for scheme in schemes if scheme in _OF_SCHEME)
    if prefixes:
        result |= {
            name: value
            for name, value in os.environ.items()
            if name.startswith(prefixes) and not LOGGING.fullmatch(name)
        }
    if names := kept_back():
        say(
            f"{', '.join(names)}: not handed to pulumi, which may write secrets down because of it, or do what was not "
            "previewed. `-v` shows each API call without a secret."
        )
    # The older language host knows no virtualenv option: the interpreter comes from PATH.
    path = [str(Path(sys.executable).parent), str(toolchain.bin), os.environ.get("PATH", os.defpath)]
    result["PATH"] = os.pathsep.join(path)
    result["PULUMI_SKIP_UPDATE_CHECK"] = "1"
    if toolchain.route == "source":
        # Here the vendor's plugins can't be downloaded either; without this it tries five times.
        result["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    if "PULUMI_HOME" not in result:
        result["PULUMI_HOME"] = str(private_dir(state_dir() / "pulumi-home"))
    if "PULUMI_BACKEND_URL" not in result:
        result["PULUMI_BACKEND_URL"] = f"file://{quote(str(private_dir(state_dir() / 'backend')))}"
    if not result.keys() & set(_PASSPHRASE):
        result["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase_file(say))
    return result


@contextlib.contextmanager
def waiting(say: Say, what: str) -> Iterator[None]:
    """Around a call that shows no progress: where it takes long, the user is shown what is waited for."""
    timer = threading.Timer(_SILENCE, lambda: say(f"waiting for {what} …"))
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
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise EngineError(f"{path} can't be read as YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(loaded, dict):
        raise EngineError(f"{path} is no YAML object")
    return loaded


def _backend_of(project: Path) -> str:
    """The backend that Pulumi.yaml names; "" where it names none."""
    backend = _project_settings(project).get("backend")
    return str(backend.get("url") or "") if isinstance(backend, dict) else ""


def _passphrase_file(say: Say) -> Path:
    path = state_dir() / "passphrase"
    if not path.exists() and write_private(path, secrets.token_urlsafe(32), replace=False):
        say(
            f"Made a passphrase for the secrets in the state: {path}. Back up {state_dir()}: without the passphrase "
            "and the state, what was provisioned can no longer be managed from here."
        )
    return path


def _refuse_no_passphrase(env: Mapping[str, str]) -> None:
    """Under an empty passphrase secrets look encrypted, and everybody can read them."""
    name = next(name for name in _PASSPHRASE if name in env)
    value = env[name]
    if name.endswith("_FILE") and value and Path(value).is_file():
        empty, where = not Path(value).read_text(encoding="utf-8").strip(), f"{name} ({value})"
    else:
        empty, where = not value, name
    if empty:
        raise EngineError(
            f"{where} is empty: whoever has the state could read every key in it. Set it to the stack's passphrase, or "
            f"unset it for one that is made and kept in {state_dir() / 'passphrase'}."
        )


class Engine:
    """Pulumi for one project.

    `variables`: names of environment variables to pass on (see `environment`); `extra`: further ones with their
    values, such as the embedded store's credentials; `secrets_provider`: what encrypts the secrets in the state, as the
    stack file's `secretsprovider` names it.
    """

    def __init__(
        self,
        project: Path,
        variables: Iterable[str] = (),
        extra: Mapping[str, str] | None = None,
        say: Say = say_on_stderr,
        secrets_provider: str = "passphrase",
    ) -> None:
        self.project = project
        self.secrets_provider = secrets_provider
        self.say = say
        self.shown_on: int | None = None  # a file descriptor for what pulumi shows; None: standard output
        self.toolchain = obtain_pulumi(say)
        self.environment = {
            **_environment(self.toolchain, variables, say, secrets_provider, project),
            **(extra or {}),
        }
        self._secrets = _secrets_among(self.environment)

    @property
    def project_name(self) -> str:
        """The name that Pulumi.yaml gives the project; part of every URN and of our marks."""
        return str(_project_settings(self.project)["name"])

    def pass_on(self, variables: Iterable[str]) -> None:
        """Hand further variables of this environment to pulumi and its children; those unset stay unset."""
        more = {name: os.environ[name] for name in variables if name in os.environ and name not in self.environment}
        self.environment |= more
        self._secrets |= _secrets_among(more)

    def run(self, args: Sequence[str], *, capture: bool = True, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `pulumi <args>` in the project. Raises EngineError where it fails, unless `check` is False.

        A first Ctrl-C (or SIGTERM) asks pulumi to stop after the step it is at; this call then still waits for it,
        since killing it would leave a locked stack behind.
        """
        if self.secrets_provider in ("passphrase", "default"):
            _refuse_no_passphrase(self.environment)
        return self._run(args, capture=capture, check=check, cwd=self.project, env=self.environment)

    def _run(
        self, args: Sequence[str], *, capture: bool, check: bool, cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        command = [str(self.toolchain.pulumi), "--non-interactive", *args]
        with (
            _Relay() as relay,
            subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if capture else self.shown_on,
                stderr=subprocess.PIPE if capture else None,
                encoding="utf-8",
                errors="replace",
                # So that a Ctrl-C reaches pulumi once: from here, and not from the terminal as well.
                process_group=0,
            ) as child,
        ):
            relay.to(child.pid)
            # What is captured shows nothing of itself.
            with waiting(self.say, f"`pulumi {args[0]}`") if capture else contextlib.nullcontext():
                stdout, stderr = child.communicate()
        if relay.received:
            raise KeyboardInterrupt if relay.received == signal.SIGINT else SystemExit(128 + relay.received)
        done = subprocess.CompletedProcess(command, child.returncode, stdout or "", stderr or "")
        if check and done.returncode:
            raise self._error(args, done)
        return done

    def has_stack(self, stack: str) -> bool:
        """Whether the backend knows the stack."""
        return any(_is_same(item["name"], stack) for item in self._stacks())

    def selected_stack(self) -> str:
        """The stack of `pulumi stack select`; "" where none was selected."""
        return next((str(item["name"]) for item in self._stacks() if item.get("current")), "")

    def _stacks(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.run(["stack", "ls", "--json"]).stdout)
        return listed

    def ensure_stack(self, stack: str) -> None:
        """Make the stack where there is none, its secrets under the secrets provider."""
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
        """The stack's outputs, secrets in clear text."""
        return self._json(["stack", "output", "--json", "--show-secrets", "--stack", stack])

    def export(self, stack: str) -> dict[str, Any]:
        """The stack's state, secrets encrypted."""
        return self._json(["stack", "export", "--stack", stack])

    def replace_state(self, stack: str, export: Mapping[str, Any]) -> None:
        """Put an exported state back, changed, as `pulumi state …` does for a single resource. No call to a store."""
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
        """What `up` with these options would do, as `pulumi preview --json` says: steps, diagnostics, changeSummary.

        One that only fails because something protected would go is an answer too: the step is in it.

        Args:
            config: a copy of the stack file to go by.
        """
        args = ["preview", "--json", *(["--refresh"] if refresh else []), "--stack", stack, *target_options(options)]
        args += ["--config-file", str(config)] if config else []
        done = self.run(args, check=False)
        if done.returncode and not _only_protected(done.stdout):
            raise self._error(args, done)
        loaded: dict[str, Any] = json.loads(done.stdout)
        return loaded

    def preview_from_nothing(self, stack: str) -> dict[str, Any]:
        """What `up` would do in an empty world. Reads the stack file and writes nothing that stays; no credentials."""
        import yaml

        settings = _project_settings(self.project)
        stack = stack.rpartition("/")[2]  # the backend made for it has no organizations
        source = self.project / settings.get("stackConfigDir", ".") / f"Pulumi.{stack}.yaml"
        if not source.is_file():
            raise EngineError(f"There is no stack file {source}.")
        config = yaml.safe_load(source.read_text(encoding="utf-8")) or {}
        # They belong to another passphrase, or need a KMS.
        for name in ("encryptionsalt", "encryptedkey", "secretsprovider"):
            config.pop(name, None)
        # An absolute one would have the copy written over the original.
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
            # Without what was named for this stack or given to it: no credentials.
            env = {key: value for key, value in self.environment.items() if PASSED.fullmatch(key)}
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

    def up(self, stack: str, options: Sequence[str] = (), *, config: Path | None = None) -> None:
        """`pulumi up`, shown as it goes; `options` are pulumi's own.

        Not held to a plan of the preview (`--plan`): where it does not fit, pulumi prints outputs, secrets in clear.

        Args:
            config: the copy of the stack file that was previewed.
        """
        args = ["up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", stack, *options]
        args += ["--config-file", str(config)] if config else []
        self.run(args, capture=False)

    def destroy(self, stack: str, options: Sequence[str] = ()) -> None:
        """`pulumi destroy`, shown as it goes."""
        self.run(["destroy", "--yes", "--stack", stack, *options], capture=False)

    def refresh(self, stack: str, options: Sequence[str] = ()) -> None:
        """`pulumi refresh`, shown as it goes."""
        self.run(["refresh", "--yes", "--stack", stack, *options], capture=False)

    def remove_stack(self, stack: str, *, with_resources: bool = False) -> None:
        """Forget a stack, its backups too; its stack file stays.

        One that still has resources is refused, unless `with_resources` says that they are gone or given up.
        """
        options = ["--remove-backups"] if self._file_backend() else []
        if with_resources:
            options.append("--force")
        self.run(["stack", "rm", "--yes", "--preserve-config", *options, "--stack", stack])
        # What pulumi leaves of it: empty directories, and logs.
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
        """Remove what an engine that was killed left locked; True if something was.

        Only in a file backend, and only a lock whose owner was a process of this host that no longer runs. Unlike
        `pulumi cancel`, which removes every lock, this can't hit one that was taken a moment ago.
        """
        backend = self._file_backend()
        if backend is None:
            return False
        project = self.project_name
        cleared = False
        for lock in (backend / ".pulumi" / "locks" / "organization" / project / stack.rpartition("/")[2]).glob(
            "*.json"
        ):
            with contextlib.suppress(FileNotFoundError, KeyError, TypeError):
                # Half a lock is nobody's: whoever could not write it did not get it.
                owner = _json_in(lock)
                if owner is None or (owner["hostname"] == socket.gethostname() and _is_dead(owner["pid"])):
                    lock.unlink()
                    cleared = True
        return cleared

    def restore_cut_states(self) -> list[str]:
        """Put back what a full disk cut off; the names of the stacks whose state is now the one before the last.

        Only in a file backend, where pulumi puts a file into place even if it could not be written to its end
        (gocloud.dev/blob/fileblob), so that nothing can be read any more. It keeps the state before beside it.
        """
        backend = self._file_backend()
        if backend is None:
            return []
        home = backend / ".pulumi"
        for attributes in (*home.glob("stacks/*/*.attrs"), *home.glob("locks/*/*/*/*.attrs")):
            if _json_in(attributes) is None:
                attributes.unlink(missing_ok=True)
        restored = []
        project = self.project_name
        for state in (home / "stacks" / project).glob("*.json"):
            if _json_in(state) is not None:
                continue
            older = sorted((home / "backups" / project / state.stem).glob("*.json"), reverse=True)
            for copy in (state.with_name(f"{state.name}.bak"), *older):
                if copy.is_file() and _json_in(copy) is not None:
                    write_private(state, copy.read_text(encoding="utf-8"))
                    restored.append(state.stem)
                    break
        return restored

    def clear_pending_creates(self, stack: str) -> bool:
        """Refresh away the record of creates that were cut off, where there is one; True if there was.

        Pulumi warns of them for ever otherwise. What they made is found again by the plugin.
        """
        if not self.export(stack).get("deployment", {}).get("pending_operations"):
            return False
        self.run(["refresh", "--yes", "--clear-pending-creates", "--stack", stack])
        return True

    def _file_backend(self) -> Path | None:
        url = self.environment.get("PULUMI_BACKEND_URL", "")
        if not url.startswith("file://"):
            return None
        path = unquote(url.removeprefix("file://").partition("?")[0])
        return self.project / Path(path or "~").expanduser()

    def _json(self, args: Sequence[str]) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.run(args).stdout)
        return loaded

    def _error(self, args: Sequence[str], done: subprocess.CompletedProcess[str]) -> EngineError:
        said = without_repetition(self._clean(_diagnostics(done.stdout) + "\n" + done.stderr))
        what = f"`pulumi {' '.join(args[:2] if args[0] in ('stack', 'config') else args[:1])}`"
        if "incorrect passphrase" in said:
            how = next((name for name in _PASSPHRASE if name in self.environment), "the passphrase")
            value = f" ({self.environment[how]})" if how.endswith("_FILE") else ""
            return EngineError(
                f"{what} failed: {how}{value} does not hold the passphrase this stack was made with. Set "
                "PULUMI_CONFIG_PASSPHRASE_FILE to the file that does. A stack file with somebody else's "
                "`encryptionsalt:` fails like this too: remove that line if there is no `secure:` value."
            )
        if "no resource plugin 'pulumi-resource-s3store'" in said:
            own = Path(sys.executable).parent
            return EngineError(
                f"{what} failed: pulumi does not find our plugin, {own / 'pulumi-resource-s3store'}. Name its "
                f"directory in Pulumi.yaml (`plugins: {{providers: [{{name: s3store, path: {own}}}]}}`), or activate "
                "the Python environment, which puts its `bin` on PATH, and unset PULUMI_IGNORE_AMBIENT_PLUGINS."
            )
        if missing := re.search(r"no resource plugin 'pulumi-resource-([\w-]+)' found.* version (v[\d.]+)", said):
            return EngineError(
                f"{what} failed: the vendor's plugin {missing[1]} {missing[2]} is not installed. Where the vendor can "
                f'be reached: eval "$(synapse-media env)" && pulumi plugin install resource {missing[1]} {missing[2]}'
            )
        tail = "\n".join(said.splitlines()[-30:]) or "see above."
        return EngineError(f"{what} failed (code {done.returncode}): {tail}")

    def _clean(self, text: str) -> str:
        text = _COLOURS.sub("", text)
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _is_same(one: str, other: str) -> bool:
    """Whether two names are of one stack: pulumi leaves the organization out where it is the user's default."""
    first, second = one.split("/"), other.split("/")
    return first[-1] == second[-1] and (min(len(first), len(second)) == 1 or first[0] == second[0])


def _secrets_among(environment: Mapping[str, str]) -> set[str]:
    """The values that no message may hold."""
    return {
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name) and not name.endswith("_FILE") and len(value) >= 6
    }


def _json_in(path: Path) -> Any:
    """What a file holds; None where that is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _diagnostics(stdout: str) -> str:
    """The errors in the answer of a failed `--json` command."""
    try:
        loaded = json.loads(stdout)
    except json.JSONDecodeError:
        return stdout
    diagnostics = loaded.get("diagnostics", []) if isinstance(loaded, dict) else []
    return "\n".join(item["message"] for item in diagnostics if item.get("severity") == "error")


def _only_protected(stdout: str) -> bool:
    """Whether all that stops a preview is Pulumi's protection of a resource."""
    errors = [line for line in _diagnostics(stdout).splitlines() if line.startswith("error:")]
    stopped = [line for line in errors if "preview failed" not in line]
    return bool(stopped) and all(
        "unable to replace resource" in line or "unable to delete resource" in line or "cannot be deleted" in line
        for line in stopped
    )


class _Relay:
    """Passes SIGINT, SIGTERM and SIGHUP on to a child, so that it can end what it is at.

    Entered before the child is started: what has a handler here is at its default there. Where SIGINT is ignored
    (nohup, a script's background job) pulumi's children would ignore it too, and pulumi waits 5 s for each of them.
    """

    def __init__(self) -> None:
        self.received = 0
        self._pid = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._old[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def to(self, pid: int) -> None:
        self._pid = pid
        if self.received:
            self._pass_on(self.received, None)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self._old.get(number) == signal.SIG_IGN:
            return
        self.received = number
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _is_dead(pid: int) -> bool:
    """Whether the number is free, or another program's by now."""
    name = program_name(pid)
    return name is None or "pulumi" not in name
