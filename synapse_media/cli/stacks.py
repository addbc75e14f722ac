"""What the commands on a stack share: its file, its engine, its credentials, its outputs."""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from synapse_media import allow as allowed
from synapse_media import catalog, contract, extras, stackfile
from synapse_media.engine import access as engine_access
from synapse_media.engine import embedded
from synapse_media.engine import session as engine_session
from synapse_media.engine.files import locked, write_private
from synapse_media.engine.options import selecting_options
from synapse_media.engine.paths import private_dir, state_dir
from synapse_media.engine.session import Engine
from synapse_media.errors import StoreError, SynapseMediaError, UsageError
from synapse_media.guards.applied import (
    RING,
    Applied,
    Bucket,
    Homeservers,
    is_bucket,
    is_ours,
    required_variables,
    resources_of,
)
from synapse_media.guards.applied import read as read_applied
from synapse_media.guards.applied import variables as applied_variables
from synapse_media.guards.duplicates import duplicates, without
from synapse_media.guards.entries import DECLARE
from synapse_media.guards.judge import current_names, identity
from synapse_media.methods import FILESYSTEM, NOT_TESTED, Expected
from synapse_media.redaction import remember
from synapse_media.schema import model
from synapse_media.schema.connection import AdminCheck, Connection
from synapse_media.settings import ADOPTED_SECRET, CONFIRMED, StoreSettings
from synapse_media.signals import wait_for_line
from synapse_media.store import credentials as plugin_credentials
from synapse_media.store import tracing
from synapse_media.store.clients import s3_client
from synapse_media.urn import Urn, short

from . import programs, terminal
from .stores import own_key

EMBEDDED = "embedded"


STACK_HELP = "the stack, with the stack file Pulumi.S.yaml; default: PULUMI_STACK, or that of `pulumi stack select`"


def say(message: str) -> None:
    """To people, on standard error: standard output is for what a command was asked for."""
    print(message, file=sys.stderr)


def waiting(what: str) -> contextlib.AbstractContextManager[None]:
    """Around calls that a store may leave without an answer: after two seconds, what is waited for is said."""
    return engine_session.waiting(say, what)


def add_stack(parser: argparse.ArgumentParser, *, options: bool = True, several: bool = False) -> None:
    """The arguments of every command on a stack.

    Args:
        several: it takes several, and runs them side by side.
    """
    if several:
        add_stacks(parser, STACK_HELP)
        add_parallel(parser)
    else:
        parser.add_argument("--stack", "-s", metavar="S", help=STACK_HELP)
    if options:
        parser.add_argument(
            "options", nargs="*", metavar="-- PULUMI OPTION", help="passed to pulumi: --target, --replace …"
        )


def add_stacks(parser: argparse._ActionsContainer, what: str) -> None:
    """The option that names several stacks; a list, until the command line was read."""
    parser.add_argument(
        "--stack",
        "-s",
        metavar="S",
        action="append",
        help=f"{what}; several, side by side: repeat it, or give a pattern such as 'shard-*'",
    )


def add_parallel(parser: argparse.ArgumentParser) -> None:
    """The option of a command that takes several stacks."""
    parser.add_argument(
        "--parallel",
        type=_at_once,
        metavar="N",
        default=min(4, os.cpu_count() or 1),
        help="with several stacks: how many at once (default: the number of cores, at most 4)",
    )


def _at_once(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed: a number of processes, 1 or more")
    return number


def require_terminal() -> None:
    """Raise SynapseMediaError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise SynapseMediaError("nothing was changed: this is no terminal to ask on. Add --yes.")


def confirm(question: str) -> None:
    """Ask on a terminal; elsewhere `--yes` has to say it."""
    require_terminal()
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    wait_for_line(sys.stdin)
    if input().strip().lower() not in ("y", "yes"):
        raise SynapseMediaError("nothing was changed")


def add_ci(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """The option of a command that continuous integration runs.

    Args:
        otherwise: what it does where the environment lacks what the state needs.
    """
    parser.add_argument(
        "--ci",
        action="store_true",
        help="make no state and no passphrase on this machine: where the environment lacks what the state needs, "
        + otherwise,
    )


def access_of(name: str) -> engine_access.Access:
    """What this environment lacks for the state of a stack. Raises StackFileError."""
    project = stackfile.find_project()
    return engine_access.access(project, stackfile.read_yaml(stackfile.path_of(project, name)))


def selected(*, or_store: bool) -> str:
    """The stack of a command that names none: PULUMI_STACK, else the one of `pulumi stack select`.

    Args:
        or_store: the command takes a file of `render` in its place.

    Raises:
        UsageError: none was selected.
    """
    if name := os.environ.get("PULUMI_STACK"):
        return name
    more = ", or --store FILE for the file that `render` wrote" if or_store else ""
    try:
        project = stackfile.find_project()
    except UsageError as error:
        raise UsageError(f"--stack is missing{more}, and there is {error}") from None
    if name := Engine(project, (), {}, say).selected_stack():
        say(f"stack {name}, as selected")
        return name
    raise UsageError(
        f"--stack is missing{more}, PULUMI_STACK is not set, and no stack is selected (`pulumi stack select`)"
    )


@dataclass(frozen=True, slots=True)
class Session:
    """A stack that is ready for the engine.

    Attributes:
        config: a copy of the stack file as it was read. What is judged and what is made go by it, whatever becomes of
            the stack file meanwhile.
        own: credentials of the stack's own that are not in this environment, as the embedded store's.
    """

    stack: stackfile.StackFile
    engine: Engine
    config: Path
    own: Mapping[str, str]

    def state(self) -> dict[str, Any]:
        """The stack's state, secrets encrypted."""
        return self.engine.export(self.stack.name)

    @contextlib.contextmanager
    def credentials(self) -> Iterator[None]:
        """Around calls of this process to the store, by the admin's credentials."""
        before = {name: os.environ.get(name) for name in self.own}
        os.environ.update(self.own)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def open_stack(
    name: str, *, credentials: bool, options: Sequence[str] = (), runs: bool = True, stores_required: bool = True
) -> Session:
    """Read and check the stack file, and make the engine ready for it.

    Args:
        name: as pulumi takes it: ORGANIZATION/NAME, too, where the backend has organizations.
        credentials: fail where an admin variable is missing (a preview from nothing needs none).
        options: the options for pulumi. Raises UsageError for one that is not allowed.
        runs: the program or the plugin will run; MissingExtraError where the SDK of a vendor is not installed.
        stores_required: SettingsError where the stack file has no stores. Else the program may declare them itself.
    """
    selecting_options(options)
    project = stackfile.find_project()
    if stackfile.is_example(name):
        raise UsageError(
            f"--stack is {name!r}, an example that is never changed. Make your own stack: `synapse-media init prod "
            f"--provider {name.replace('-', '_')}`. To see it: `synapse-media diff --from-nothing --stack {name}`."
        )
    stack = stackfile.read(project, name, stores_required=stores_required)
    if runs:
        require_extras(stack)
    own = embedded_environment() if name == EMBEDDED else {}
    # Where the stack file names no provider, the program's own stores may be of any.
    variables = stack.admin_variables or _every_variable()
    if credentials:
        _require(stack.required_variables, own, (store.provider for store in stack.stores.values() if store.uses_store))
    if any(store.adopt_key for store in stack.stores.values()):
        variables = (*variables, ADOPTED_SECRET)
    for variable in variables:
        # Before anything has it: a vendor's plugin may show what it can't use.
        plugin_credentials.read(variable)
    engine = Engine(project, (*variables, *stack.variables), own, say, stack.secrets_provider)
    for restored in engine.restore_truncated_states():
        say(f"the state of {restored} could not be read, as after a full disk: took the one before it")
    engine.ensure_stack(name)
    engine.unlock_if_dead(name)
    config = copy_of(engine, stack.path)
    return Session(stackfile.read(project, name, config, stores_required=stores_required), engine, config, own)


def _every_variable() -> tuple[str, ...]:
    """The environment variables with the admin credentials of every provider."""
    named = (name for provider in catalog.names() for name in catalog.load(provider).admin_variables)
    return (*dict.fromkeys(named), ADOPTED_SECRET)


def require_extras(stack: stackfile.StackFile) -> None:
    """Raise MissingExtraError where the SDK of a vendor whose store is in the stack is not installed."""
    extras.require(store.provider for store in stack.stores.values() if store.uses_store)


def reread(session: Session) -> Session:
    """The session of a copy that was edited."""
    project = session.engine.project
    return replace(session, stack=stackfile.read(project, session.stack.name, session.config))


def copy_of(engine: Engine, path: Path) -> Path:
    """A copy of a stack file that is there as long as the engine object is."""
    folder = Path(tempfile.mkdtemp(prefix="synapse-media-"))  # mode 0700
    weakref.finalize(engine, shutil.rmtree, folder, ignore_errors=True)
    return Path(shutil.copyfile(path, folder / path.name))


def _require(variables: Iterable[str], own: Collection[str], providers: Iterable[str]) -> None:
    missing = [name for name in variables if not (os.environ.get(name) or name in own)]
    if missing:
        from .credentials import from_a_profile

        raise SynapseMediaError(
            f"the environment lacks {', '.join(missing)}: the admin credential of "
            f"{', '.join(sorted(set(providers)))}. It is needed to create, refresh or delete, and is kept nowhere. "
            f"{from_a_profile(missing)}".rstrip()
        )


def applied(session: Session, state: Mapping[str, Any]) -> dict[str, Applied]:
    """What was last applied, by homeserver; from here on pulumi gets the credentials to read and delete all of it."""
    found = read_applied(state)
    # Stores that leave the stack file are deleted with them.
    extras.require(store.provider for store in found.values() if store.provider in catalog.names())
    variables = applied_variables(found)
    for variable in variables:
        plugin_credentials.read(variable)
    session.engine.pass_on(variables)
    return found


def require_credentials_to_delete(session: Session, leaving: Iterable[Applied]) -> None:
    """What leaves the stack is deleted with a credential that the stack file may not name any more."""
    for store in leaving:
        _require(required_variables(store), session.engine.environment, [store.provider or store.server_name])


def refuse_keys_of_others(session: Session, ending: Iterable[Applied]) -> None:
    """Raise SynapseMediaError where a user would be deleted with keys that the state does not know.

    Our plugin refuses that itself; a vendor's deletes every key of the user.

    Args:
        ending: the stores whose user would be deleted.
    """
    from synapse_media.plugin.iam import unknown_keys

    found = []
    for store in ending:
        if not store.user_takes_keys:
            continue
        connection = model.read(Connection, store.ring.connection if store.ring else store.connection)
        known = [*(store.ring.keys.values() if store.ring else ()), *store.ending_keys]
        with session.credentials(), waiting(f"{store.server_name}: has {store.user} keys of others?"):
            keys = unknown_keys(store.user, connection, known)
        if keys:
            found.append(f"user {store.user} has the key {', '.join(keys)}, which the state does not know")
    if found:
        raise SynapseMediaError(
            f"nothing was changed: {'; '.join(found)}. It may be in use, and would be deleted with the user. Delete "
            "the keys that nobody uses at the provider, and run this again."
        )


def require_former_place(session: Session, was: Applied, will: StoreSettings) -> None:
    """Raise SynapseMediaError where a store's keys move elsewhere and its former place takes another credential.

    What is there is deleted with the one in the environment, at the end of the run: the new keys are made by then.
    """
    from synapse_media.plugin import families

    moved = {setting: before for setting, (before, _) in identity(was, will).items() if setting != "user"}
    place = was.place
    # Of the same names at another address nothing is deleted at the former one, which may be gone.
    stays = was.user == will.user and (place is None or place.bucket == will.bucket)
    if was.ring is None or not moved or stays or was.provider not in catalog.names():
        return
    former = model.read(Connection, was.ring.connection)
    asked = AdminCheck(
        connection=former,
        bucket=place.bucket if place else will.bucket,
        access=will.access,
        region=former.region,
        endpoint=former.endpoint,
    )
    try:
        with session.credentials(), waiting(f"{will.server_name}: is the credential accepted where its keys are now?"):
            families.load(catalog.load(was.provider).component).check_admin(asked)
    except StoreError as error:
        where = next(iter(moved.values()))
        raise SynapseMediaError(
            f"nothing was changed: {', '.join(moved)} of {will.server_name} changes, and the key and the user at "
            f"{where} would be deleted with the credential in the environment, which is not accepted there: {error} "
            f"Give the store up there first, with the credential of that place: method: filesystem, with "
            f"{will.server_name}/retain-bucket, retire-key and narrow-policy in allow, and `up`; then name the new "
            "place. Where the former place is gone for good, docs/state.md says how to take it out of the state."
        ) from None


def asked_while_closed(session: Session, ask: Callable[[], None], confirmed: Collection[str] = ()) -> None:
    """Ask within `opening_state`, so that a process that is killed while it waits for an answer leaves nothing open.

    Args:
        ask: raises where the answer is no.
        confirmed: as for `opening_state`.
    """
    _align(session, session.state(), ())
    ask()
    _align(session, session.state(), [*session.stack.allow, *confirmed])


@contextlib.contextmanager
def opening_state(session: Session, state: Mapping[str, Any], confirmed: Collection[str] = ()) -> Iterator[None]:
    """Have the state let go of what `allow` names now, and of nothing else; where nothing comes of it, of nothing.

    Pulumi reads from the state whether a bucket is protected, retained, or emptied before it is deleted, and the plugin
    whether a key may go. There these would outlive the entry of `allow` that they came from.

    Args:
        state: as it was just exported.
        confirmed: entries that this command confirms beside those of `allow`.
    """
    _align(session, state, [*session.stack.allow, *confirmed])
    before = _mark_as_it_is(session)
    try:
        yield
    except BaseException:
        # What was declined, refused or cut off must not leave the state open; whoever goes on opens it again.
        with contextlib.suppress(SynapseMediaError):
            # An earlier run's mark may be there: only a new one says that this run has begun.
            if _mark_as_it_is(session) == before:
                # Nothing was changed at the store, so the former state holds, duplicates included.
                missing = len(resources_of(state)) - len(resources_of(session.state()))
                if missing > 0:
                    session.engine.replace_state(session.stack.name, state)
            _align(session, session.state(), ())
        raise
    if confirmed:
        # What was confirmed is done, and the rest of it was confirmed for this run alone.
        _align(session, session.state(), session.stack.allow)


def forget_duplicates(session: Session, preview: Mapping[str, Any], previewed: Mapping[str, Any]) -> bool:
    """Leave out of the state what a run would delete although the thing lives on under another entry; whether any.

    Args:
        previewed: the state as it was exported before the preview.
    """
    if not duplicates(previewed, preview):
        return False
    # Exported anew: it was opened since (`opening_state`), and another run may have changed it.
    state = session.state()
    positions, homeservers = duplicates(state, preview), Homeservers(resources_of(state))
    for number in positions:
        entry = resources_of(state)[number]
        kind = short(Urn.parse(entry["urn"]).kind)
        store = homeservers.of(entry["urn"])
        say(f"{kind} of {store}: a former entry of the state is left out, since what it names is kept")
    if positions:
        session.engine.replace_state(session.stack.name, without(state, positions))
    return bool(positions)


def _align(session: Session, state: Mapping[str, Any], allow: Collection[str]) -> None:
    if _aligned(copy.deepcopy(dict(state)), session, allow) is not None:
        # Exported anew: what another run wrote in between must not be lost.
        aligned = _aligned(session.state(), session, allow)
        if aligned is not None:
            session.engine.replace_state(session.stack.name, aligned)


def _aligned(state: dict[str, Any], session: Session, allow: Collection[str]) -> dict[str, Any] | None:
    """The state, changed; None where it is right as it is."""
    changed = False
    names = current_names(read_applied(state), session.stack.stores)
    homeservers = Homeservers(resources_of(state))
    for resource in (one for one in resources_of(state) if is_ours(one["urn"])):
        store, kind = homeservers.of_resource(resource), str(resource["type"])
        words = allowed.words_of(store, allow, names.get(store, store))
        wanted: dict[str, bool] = {}
        if is_bucket(kind):
            changed |= _set(resource, "protect", value=allowed.protects_bucket(words))
            changed |= _set(resource, "retainOnDelete", value=allowed.retains_bucket(words))
            wanted = {_FORCE: allowed.deletes_media(words)}
        elif kind.endswith(RING):
            wanted = {_CONFIRMED: allowed.retires_key(words)}
        for name, value in wanted.items():
            for part in ("inputs", "outputs"):
                if isinstance(resource.get(part), dict):
                    changed |= _set(resource[part], name, value=value)
    return state if changed else None


_FORCE, _CONFIRMED = "forceDestroy", "retireConfirmed"
BY_ALLOW = frozenset({_FORCE, _CONFIRMED})
"""The inputs that follow from `allow`: they say what may be deleted, not what is made."""


def _set(values: dict[str, Any], name: str, *, value: bool) -> bool:
    """Whether that was a change."""
    if bool(values.get(name)) is value:
        return False
    values[name] = value
    return True


def fingerprint(state: Mapping[str, Any]) -> frozenset[tuple[str, str, str]]:
    """What tells a state from one that another run changed: each resource's URN, id, and time of its last change."""
    return frozenset((one["urn"], str(one.get("id")), str(one.get("modified"))) for one in resources_of(state))


def changed_meanwhile() -> SynapseMediaError:
    """What is judged and agreed to holds for the state that was looked at alone."""
    return SynapseMediaError(
        "nothing was changed: another run changed the state meanwhile, so that this is no longer what was reviewed. "
        "Run it again to see what it would do now."
    )


def say_calls(preview: Mapping[str, Any]) -> None:
    """The API calls of a preview, where they were asked for (-v)."""
    for item in preview.get("diagnostics") or ():
        message = str(item.get("message", "")).strip()
        if message.startswith(tracing.MARK):
            say(message)


_alone: set[Path] = set()
"""The lock files that this process holds."""


@contextlib.contextmanager
def alone(session: Session) -> Iterator[None]:
    """Around a whole run that changes a stack, its questions included: this user's only one at a time.

    Pulumi's own lock is held only while it works, and what was judged or asked before must be what is then.

    Raises SynapseMediaError where another process of this user is at it.
    """
    path = _mark(session.engine, session.stack.name).with_suffix(".lock")
    if path in _alone:
        yield
        return

    def refuse() -> None:
        raise SynapseMediaError(
            f"nothing was changed: another run of this machine is changing the stack {session.stack.name}, or asks "
            "whether it may. Wait for its end, or answer it, and run this again."
        )

    with locked(path, refuse):
        _alone.add(path)
        try:
            yield
        finally:
            _alone.discard(path)


@contextlib.contextmanager
def changing(
    session: Session,
    confirmed: Sequence[str] = (),
    begin: Callable[[], None] = lambda: None,
    judged: frozenset[tuple[str, str, str]] | None = None,
    *,
    making: Sequence[Making] | None = None,
) -> Iterator[None]:
    """Around whatever changes a store. What does not come to its end leaves a mark (`was_cut_off`).

    The state alone does not tell: where it could not be written, it holds what is long gone.

    Args:
        confirmed: what the command confirms beside `allow`; the run that goes on after it may go as far.
        begin: called before the first change; where it fails, nothing was begun.
        judged: the `fingerprint` of the state that was judged; None: it makes no difference.
        making: what is made, of which the state knows at the end only; None: it knows after every step.

    Raises SynapseMediaError where somebody else changed the state since.
    """
    # `alone` keeps this user's other runs away, and nobody else reaches a state in this user's directory.
    if judged is not None and not session.engine.has_own_state and fingerprint(session.state()) != judged:
        raise changed_meanwhile()
    mark = _mark(session.engine, session.stack.name)
    before = mark.read_text(encoding="utf-8") if mark.exists() else None
    former = _lacked_by_state(session)
    written = _written_at(session) if making else ""
    noted = {
        _MISSING: making is not None or former is not None,
        _MAKING: [list(one) for one in making or former or ()],
        "confirmed": list(confirmed),
        CONFIRMED: session.engine.environment.get(CONFIRMED, ""),
        "wanted": _wanted(session),
    }
    write_private(mark, json.dumps(noted))
    try:
        begin()
    except BaseException:
        if before is None:
            mark.unlink()
        else:
            write_private(mark, before)
        raise
    try:
        yield
    except BaseException:
        # It failed, or was asked to stop: the engine then ends by itself, and the state has whatever was made.
        if making is not None and former is None and _written_at(session) != written:
            write_private(mark, json.dumps({**noted, _MISSING: False, _MAKING: []}))
        raise
    mark.unlink(missing_ok=True)


class Making(NamedTuple):
    """A resource that a run makes.

    Attributes:
        urn: its URN.
        former_id: its ID in the state before; "" for none.
        digest: of its inputs.
    """

    urn: str
    former_id: str
    digest: str


def refuse_what_is_in_no_state(session: Session) -> None:
    """Raise SynapseMediaError where the state may lack what a run made that was cut off: it would be left behind."""
    if _lacked_by_state(session) is not None:
        raise SynapseMediaError(
            "nothing was destroyed: the last `up` was cut off before it wrote what it had made into the state, so that "
            f"this would leave it behind. Run `synapse-media up --stack {session.stack.name}` first, which finds it. "
            f"If there is no store any more: delete {_mark(session.engine, session.stack.name)}."
        )


def refuse_to_leave_behind(session: Session, state: Mapping[str, Any], making: Iterable[Making]) -> None:
    """Raise SynapseMediaError where a run that was cut off may have made what is in no state, and this one does not.

    Args:
        making: what this run makes; the same as then is found again at the store.
    """
    ids = {one["urn"]: str(one.get("id") or "") for one in resources_of(state)}
    now = {(one.urn, one.digest) for one in making}
    left = [
        one
        for one in _lacked_by_state(session) or ()
        if ids.get(one.urn, "") == one.former_id and (one.urn, one.digest) not in now
    ]
    if left:
        named = (Urn.parse(one.urn) for one in left)
        words = ", ".join(f"{short(urn.kind)} of {urn.name}" for urn in named)
        raise SynapseMediaError(
            "nothing was changed: the last `up` was cut off before it wrote what it had made into the state, and this "
            f"one would not make the same: {words}. What there is of it at the store would be left behind, with a key "
            "that works. Put the stack file (or the program) back to what it was then, run "
            f"`synapse-media up --stack {session.stack.name}`, which finds it, and make the change after that. "
            f"If there is nothing of it at the store: delete {_mark(session.engine, session.stack.name)}."
        )


_MISSING = "made and not in the state"
_MAKING = "making"


def _lacked_by_state(session: Session) -> list[Making] | None:
    """What the state may lack after a run that was cut off; None where it has everything."""
    try:
        noted = json.loads(_mark(session.engine, session.stack.name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return [Making(*one) for one in noted.get(_MAKING, ())] if noted.get(_MISSING) else None


def _written_at(session: Session) -> str:
    """When the state was written."""
    return str(session.state()["deployment"].get("manifest", {}).get("time", ""))


def was_cut_off(session: Session) -> bool:
    """Whether this user's last change was, so that the state may not be what the store is."""
    return _mark(session.engine, session.stack.name).exists()


def _wanted(session: Session) -> str:
    """SHA-256 of what the stack file says, however it is written."""
    said = stackfile.read_yaml(session.config).get("config")
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _mark_as_it_is(session: Session) -> tuple[int, int] | None:
    """What tells one mark from another, each written as a new file; None where there is none."""
    try:
        found = _mark(session.engine, session.stack.name).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def resume(session: Session) -> list[str]:
    """Have the run that goes on confirm what the one that was cut off did; those entries of `allow`.

    Only where the stack file wants the same: what was confirmed for one change lets no other pass.
    """
    try:
        found = json.loads(_mark(session.engine, session.stack.name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    if found.get("wanted") != _wanted(session):
        if found["confirmed"] or found[CONFIRMED]:
            say("the stack file was changed since the last run was cut off: what that one confirmed does not count")
        return []
    if found[CONFIRMED]:
        session.engine.environment.setdefault(CONFIRMED, found[CONFIRMED])
    return [str(entry) for entry in found["confirmed"]]


def remove(engine: Engine, name: str) -> None:
    """Forget a stack whose resources are gone or given up, and that it was cut off, where it was."""
    if engine.has_stack(name):
        engine.remove_stack(name, with_resources=True)
    _mark(engine, name).unlink(missing_ok=True)


def _mark(engine: Engine, stack: str) -> Path:
    name = f"{engine.backend}\0{engine.project}\0{stack}"
    return private_dir(state_dir() / "unfinished") / hashlib.sha256(name.encode()).hexdigest()[:32]


def embedded_environment() -> dict[str, str]:
    """The embedded store's root credential, for the children of one command alone."""
    running = embedded.status()
    if running is None:
        raise SynapseMediaError("the embedded store does not run: start it with `synapse-media embedded start`")
    remember(running.secret_access_key)
    return {
        "S3_ACCESS_KEY_ID": running.access_key_id,
        "S3_SECRET_ACCESS_KEY": running.secret_access_key,
    }


def load(name: str) -> list[contract.StorageOutputs]:
    """The stores of a stack, by its name, as the last `up` left them."""
    return outputs_of(open_stack(name, credentials=False, runs=False, stores_required=False))


def outputs_of(session: Session, *, required: bool = True) -> list[contract.StorageOutputs]:
    """The stores of a stack as the last `up` left them.

    Args:
        required: ContractError where the program exports none. A ContractError, too, where a key is gone.
    """
    stores = contract.of_stack(session.engine.outputs(session.stack.name))
    if not (stores or required):
        return []
    state = session.state()
    records = read_applied(state)
    if not stores and records:
        raise contract.ContractError(
            f"stack {session.stack.name} exports no stores, and has some ({', '.join(records)}). If its last `up` did "
            f"not end, run `synapse-media up --stack {session.stack.name}`. If a program of yours declares them, it "
            "has to `publish` them (docs/library.md)"
        )
    if not stores:
        first = (
            f"stack {session.stack.name} has no stores yet: run `synapse-media up --stack {session.stack.name}` first"
        )
        # Where the program has run, it may have done nothing with them.
        undone = f". If that made none of them, {DECLARE}" if resources_of(state) else ""
        raise contract.ContractError(f"{first}{undone}")
    found = [contract.from_json(store) for store in stores.values()]
    faults = [fault for fault in (_key_fault(store, records.get(store.server_name)) for store in found) if fault]
    if faults:
        raise contract.ContractError(
            "; ".join(faults) + f". Run `synapse-media up --refresh --stack {session.stack.name}`."
        )
    return found


def _key_fault(store: contract.StorageOutputs, record: Applied | None) -> str:
    """Why the key in the outputs is not one that there is; "". Outputs outlive what they were made from."""
    if not store.access_key_id:
        return ""
    where = f"store {store.server_name}: the key {store.access_key_id} of its last outputs"
    if record is None or (record.ring is None and not record.has_key):
        return f"{where} is not in the state any more"
    # Beside a key of the operator's own a ring is what an earlier run has left to be deleted.
    if not record.has_key and record.ring is not None and store.access_key_id not in record.ring.keys.values():
        return f"{where} is not in its key ring any more"
    if store.policy_sha256 and record.policies and store.policy_sha256 not in map(_policy_sha256, record.policies):
        # As by a run that was cut off before its proof: what runs now may not reach its media any more.
        return f"{where} was proved with another policy than the state has now"
    return ""


def _policy_sha256(document: str) -> str:
    """As that of the outputs; "" of what is no document."""
    try:
        return contract.policy_sha256(document)
    except ValueError:
        return ""


def media_in(session: Session, bucket: Bucket, record: Applied) -> str:
    """Why a bucket is not known to be empty; "" where the store says that it is, or that it is gone.

    A look before anything goes: the engine would delete keys and settings first, and only then be refused the bucket.
    """
    from synapse_media.plugin.look import look
    from synapse_media.store.objects import is_empty

    with session.credentials(), waiting(f"{record.server_name}: is media in {bucket.name}?"):
        try:
            holds = look(bucket.kind, _seen_as(bucket, record))
        except StoreError as error:
            # The store's own key may see enough, where there is no admin's or it is for another API.
            try:
                connection, credential = own_key(_outputs_of(session, record))
                # A bucket that only this look says is gone may be there all the same.
                holds = not is_empty(s3_client(connection, credential), bucket.name)
            except (StoreError, contract.ContractError):
                return f"it can't be seen whether the bucket {bucket.name} holds media, so it is taken to: {error}"
    return f"the bucket {bucket.name} holds media" if holds else ""


def forget_gone_buckets(session: Session, record: Applied) -> None:
    """Drop from the state each bucket of a vendor's plugin that the store says is gone: some can't delete it then."""
    from synapse_media.plugin.look import is_gone

    for bucket in record.buckets:
        if not bucket.by_vendor or bucket.retained:
            continue
        try:
            with session.credentials():
                gone = is_gone(_seen_as(bucket, record))
        except StoreError:
            continue  # the vendor's plugin will say why it can't be reached
        if gone:
            session.engine.refresh(session.stack.name, ["--target", bucket.urn])


def refuse_taken_buckets(session: Session, preview: Mapping[str, Any]) -> None:
    """Raise StoreError where a vendor's plugin would make a bucket that is there already, and not this store's."""
    from synapse_media.plugin.look import refuse_taken

    steps = preview.get("steps", ())
    homeservers = Homeservers.of_steps(steps)
    new = [
        (homeservers.of(step["urn"]), step["urn"], step["newState"].get("inputs") or {})
        for step in steps
        if step["op"] == "create" and is_ours(step["urn"])
    ]
    # What makes the store's key knows the way to it.
    connections = {name: inputs["connection"] for name, _, inputs in new if inputs.get("connection")}
    for name, urn, inputs in new:
        bucket, store = Bucket(urn, Urn.parse(urn).kind, inputs), session.stack.stores.get(name)
        if not (is_bucket(bucket.kind) and bucket.by_vendor):
            continue
        connection = connections.get(name)
        if connection is None and store is not None:
            connection = model.write(_connection(store.provider, store.endpoint, store.region, store.options))
        if connection is None:
            continue  # a program's own, without a key: where it is, no stack file says
        owner = f"{session.engine.project_name}/{stackfile.short_name(session.stack.name)}/{name}"
        with session.credentials(), waiting(f"{name}: is there a bucket {bucket.name}?"):
            refuse_taken({"bucket": bucket.name, "connection": connection, "owner": owner})


def _connection(provider: str, endpoint: str, region: str, options: Mapping[str, object] | None = None) -> Connection:
    """The way to a store's S3 API with the admin's key."""
    if provider not in catalog.names():
        return Connection(endpoint=endpoint, region=region)
    return catalog.load(provider).connection(endpoint=endpoint, region=region, options=options)


def _seen_as(bucket: Bucket, record: Applied) -> dict[str, Any]:
    """The values by which a bucket is looked at: its outputs, or of a vendor's the name and the way there."""
    if not bucket.by_vendor:
        return dict(bucket.values)
    endpoint, region = (str(record.outputs.get(name) or "") for name in ("endpoint_url", "region"))
    return {
        "bucket": bucket.name,
        "connection": {**model.write(_connection(record.provider, endpoint, region)), **record.connection},
    }


def _outputs_of(session: Session, record: Applied) -> contract.StorageOutputs:
    found = contract.of_stack(session.engine.outputs(session.stack.name)).get(record.server_name)
    if found is None:
        raise contract.ContractError(f"store {record.server_name} has no outputs")
    return contract.from_json(found)


def summary(stores: list[contract.StorageOutputs]) -> str:
    """What exists now, and what each key may and may not do. No secret."""
    lines: list[str] = []
    for store in stores:
        lines.append(f"{store.server_name}: {store.method}")
        if store.method == FILESYSTEM:
            lines.append("  media stays on the server's own disk; no store is used")
            continue
        lines.append(f"  bucket     {store.bucket} at {store.endpoint_url} ({store.provider}, region {store.region})")
        if store.user:
            lines.append(f"  user       {store.user}")
        if store.keyless:
            lines.append("  key        none: the machine's own role signs; prove it on the instance")
        else:
            lines.append(f"  key        {store.access_key_id}{_age(store.key_created_at)}")
        if store.proof is not None:
            if terminal.shows_colour(sys.stdout):
                lines.append(terminal.proof(store.proof.lines))
            else:
                lines += [f"  {outcome:<10} {', '.join(names)}" for outcome, names in _by_outcome(store.proof).items()]
        lines += [f"  lacks      {words}" for words in store.lacks]
    return "\n".join(lines)


def report(stores: Iterable[contract.StorageOutputs]) -> dict[str, Any]:
    """The same for programs, by homeserver. No secret."""
    return {
        store.server_name: {
            "provider": store.provider,
            "method": store.method,
            "bucket": store.bucket,
            "region": store.region,
            "endpoint_url": store.endpoint_url,
            "user": store.user,
            "access_key_id": store.access_key_id,
            "key_created_at": store.key_created_at,
            "keyless": store.keyless,
            "proof": {line.operation: line.outcome for line in store.proof.lines} if store.proof else None,
            "lacks": list(store.lacks),
        }
        for store in stores
    }


def show(stores: Iterable[contract.StorageOutputs], *, as_json: bool) -> None:
    """Say what exists now."""
    print(programs.text({"stores": report(stores)}) if as_json else summary(list(stores)))


def quiet_for_json(session: Session, *, as_json: bool) -> None:
    """Standard output is the report's: what pulumi shows goes to standard error."""
    if as_json:
        session.engine.shown_on = 2


def _age(created_at: str) -> str:
    """How old a key is, for people: whoever rotates wants to know."""
    if not created_at:
        return ""
    days = (datetime.now(UTC) - datetime.fromisoformat(created_at)).days
    return f", made {created_at[:10]} ({days} days ago)" if days else f", made {created_at[:10]} (today)"


def _by_outcome(proof: contract.Proof) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in proof.lines:
        untold = line.expected == Expected.CANNOT_REFUSE and line.outcome != NOT_TESTED
        outcome = line.expected if untold else line.outcome
        found.setdefault(
            {Expected.ALLOWED.value: "may", Expected.REFUSED.value: "may not"}.get(outcome, outcome), []
        ).append(line.operation)
    return found
